"""ServiceTicket: a ticket and the data that its owner needs to use it.

Source: RFC 4120 3.1.5, 3.3.4, 5.4.2.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from purekrb.keys import EncryptionKey
from purekrb.messages.ap import AuthorizationDataEntry, HostAddress
from purekrb.names import Principal
from purekrb.records import record

__all__ = ["ServiceTicket"]


@record
class ServiceTicket:
    """A ticket for `service`, issued to `client`; a TGT is the ticket for krbtgt/REALM.

    `ticket` is the DER Ticket. All other fields come from the encrypted part of the KDC's reply,
    never from the ticket's cleartext. `flags` are `TicketFlags` bits. Times are aware UTC datetimes
    in whole seconds. `caddr`: where the ticket may be used from; by default, anywhere.
    `time_offset` is the KDC's clock minus our clock, measured when the initial ticket came. A
    user-to-user ticket has `is_skey` set: it is encrypted in the session key of `second_ticket`
    (DER), not in the service's key (RFC 4120 3.7). `by_s4u2self`: the service got it for itself, and
    the client has proved nothing; files do not keep this.
    """

    client: Principal
    service: Principal
    ticket: bytes
    session_key: EncryptionKey
    flags: int
    authtime: datetime
    starttime: datetime | None
    endtime: datetime
    renew_till: datetime | None = None
    caddr: tuple[HostAddress, ...] = ()
    authorization_data: tuple[AuthorizationDataEntry, ...] = ()
    time_offset: timedelta = timedelta(0)
    second_ticket: bytes = b""
    is_skey: bool = False
    by_s4u2self: bool = False

    @property
    def is_tgt(self) -> bool:
        """Whether this is a ticket-granting ticket; cross-realm TGTs count."""
        return len(self.service.components) == 2 and self.service.components[0] == "krbtgt"

    def __repr__(self) -> str:
        return (
            f"ServiceTicket({self.client} -> {self.service}, "
            f"until {self.endtime:%Y-%m-%d %H:%M:%SZ})"
        )
