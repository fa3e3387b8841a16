"""What a KRB-CRED says of the tickets in it: its clear part, before and after encryption.

Source: RFC 4120 3.6, 5.8.1.
"""

from __future__ import annotations

from collections.abc import Iterable

from purekrb.constants import MessageType
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import DecodeError, ProtocolError
from purekrb.messages.ap import PVNO, EncKrbCredPart, EncryptedData, KrbCred, KrbCredInfo

__all__ = ["decode", "info_of", "message", "tickets_of"]


def info_of(ticket: ServiceTicket) -> KrbCredInfo:
    """Return what a KRB-CRED says of `ticket`, its session key included."""
    return KrbCredInfo(
        key=ticket.session_key,
        prealm=ticket.client.realm,
        pname=ticket.client.name,
        flags=ticket.flags,
        authtime=ticket.authtime,
        starttime=ticket.starttime,
        endtime=ticket.endtime,
        renew_till=ticket.renew_till,
        srealm=ticket.service.realm,
        sname=ticket.service.name,
        caddr=ticket.caddr or None,
    )


def message(tickets: Iterable[ServiceTicket], enc_part: EncryptedData) -> KrbCred:
    """Return the KRB-CRED of `tickets`; `enc_part` holds their `info_of`, in the same order."""
    return KrbCred(
        pvno=PVNO,
        msg_type=MessageType.KRB_CRED,
        tickets=tuple(ticket.ticket for ticket in tickets),
        enc_part=enc_part,
    )


def decode(data: bytes) -> KrbCred:
    """Return the KRB-CRED in `data`. Raises DecodeError or ProtocolError if it is none."""
    found = KrbCred.decode(data)
    # RFC 4120 3.6.2, 5.8.1: pvno and msg-type.
    if found.pvno != PVNO or found.msg_type != MessageType.KRB_CRED:
        raise ProtocolError(
            "this is not a KRB-CRED of Kerberos 5",
            expected=(PVNO, int(MessageType.KRB_CRED)),
            got=(found.pvno, found.msg_type),
        )
    return found


def tickets_of(found: KrbCred, part: EncKrbCredPart) -> list[ServiceTicket]:
    """Return the tickets of a KRB-CRED whose encrypted part is `part`.

    Raises ProtocolError unless each ticket is described once, and DecodeError if a description
    lacks the client, the service or the end.
    """
    # RFC 4120 5.8.1: one KrbCredInfo for each ticket.
    if not found.tickets or len(found.tickets) != len(part.ticket_info):
        raise ProtocolError(
            "a KRB-CRED must describe each of its tickets once",
            expected=len(found.tickets),
            got=len(part.ticket_info),
        )
    return [_ticket(*pair) for pair in zip(found.tickets, part.ticket_info, strict=True)]


def _ticket(ticket: bytes, info: KrbCredInfo) -> ServiceTicket:
    if info.pname is None or info.sname is None or not info.prealm or not info.srealm:
        raise DecodeError("a KRB-CRED does not name the client or the service of its ticket")
    if not info.pname.components or not info.sname.components:
        raise DecodeError(
            "a KRB-CRED hands over a ticket whose client or service has an empty name"
        )
    if info.endtime is None:
        raise DecodeError("a KRB-CRED does not say when its ticket ends")
    return ServiceTicket(
        client=info.pname.principal(info.prealm),
        service=info.sname.principal(info.srealm),
        ticket=ticket,
        session_key=info.key,
        flags=info.flags or 0,
        authtime=info.authtime or info.starttime or info.endtime,
        starttime=info.starttime,
        endtime=info.endtime,
        renew_till=info.renew_till,
        caddr=info.caddr or (),
    )
