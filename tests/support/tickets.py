"""Genuine tickets made without a KDC, for tests of what needs a ticket and a key only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from purekrb import crypto
from purekrb.constants import KeyUsage, TicketFlags
from purekrb.credentials.ticket import ServiceTicket
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import EncryptedData, EncTicketPart, Ticket, TransitedEncoding
from purekrb.names import Principal
from support.values import replace

ALICE = Principal.parse("alice@EXAMPLE.TEST")
SERVICE = Principal.parse("HTTP/web.example.test@EXAMPLE.TEST")


@dataclass(frozen=True)
class Entry:
    """A service key as a keytab holds it."""

    principal: Principal
    kvno: int
    key: EncryptionKey


def whole_seconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def issue(
    etype: int = 18,
    *,
    session_etype: int | None = None,
    client: Principal = ALICE,
    service: Principal = SERVICE,
    kvno: int | None = 3,
    flags: int = TicketFlags.INITIAL | TicketFlags.PRE_AUTHENT,
    now: datetime | None = None,
    key: EncryptionKey | None = None,
    session_key: EncryptionKey | None = None,
    cleartext: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[ServiceTicket, list[Entry]]:
    """Return a ticket for `service` and the service's keys.

    `changes` replace fields of the EncTicketPart, `cleartext` fields of the Ticket around it.
    """
    now = whole_seconds(now or datetime.now(timezone.utc))
    key = key or crypto.random_key(etype)
    session_key = session_key or crypto.random_key(session_etype or etype)
    part = EncTicketPart(
        flags=int(flags),
        key=session_key,
        crealm=client.realm,
        cname=client.name,
        transited=TransitedEncoding(1, b""),
        authtime=now,
        starttime=now,
        endtime=now + timedelta(hours=10),
        renew_till=None,
        caddr=None,
        authorization_data=None,
    )
    part = replace(part, **changes)
    ticket = Ticket(
        tkt_vno=5,
        realm=service.realm,
        sname=service.name,
        enc_part=EncryptedData(
            key.etype, kvno, crypto.encrypt(key, KeyUsage.TICKET, part.encode())
        ),
    )
    ticket = replace(ticket, **(cleartext or {}))
    return (
        ServiceTicket(
            client=client,
            service=service,
            ticket=ticket.encode(),
            session_key=part.key,
            flags=part.flags,
            authtime=part.authtime,
            starttime=part.starttime,
            endtime=part.endtime,
        ),
        [Entry(service, kvno or 0, key)],
    )
