"""Tickets that an acceptor has seen before: decoded once, decrypted once for each service key.

A client presents its ticket at each handshake until the ticket expires. So an acceptor remembers
the decoded and the decrypted ticket. It remembers only results that depend on the ticket's bytes
and the key. Checks that depend on the time, the request or the acceptor's policy are made anew each
time.
"""

from __future__ import annotations

from functools import lru_cache

from purekrb import crypto
from purekrb.constants import KeyUsage, TicketFlags
from purekrb.errors import DecodeError
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import EncTicketPart, Ticket
from purekrb.names import ANONYMOUS_REALM, Principal
from purekrb.records import record

__all__ = ["OpenedTicket", "open_ticket", "read_ticket", "MAX_OPENED"]

#: The most opened tickets that one service key keeps; the oldest is dropped first.
MAX_OPENED = 256
#: The largest ticket, in bytes, that is remembered, so that junk takes little memory.
_MAX_KNOWN = 8192
#: `&` of an IntFlag is slow: see constants.py.
_ANONYMOUS = int(TicketFlags.ANONYMOUS)


@record
class OpenedTicket:
    """A ticket's encrypted part, its client, and whether the client is anonymous.

    `account` is the same for all spellings of the client: some KDCs let a client choose the case
    of its name.
    """

    part: EncTicketPart
    client: Principal
    anonymous: bool
    account: str

    @property
    def key(self) -> EncryptionKey:
        """The session key, which is wiped with the service's key."""
        return self.part.key


def read_ticket(ticket: bytes) -> Ticket:
    """Return a ticket's cleartext fields. Raises DecodeError."""
    return _known_ticket(ticket) if len(ticket) <= _MAX_KNOWN else _decode(ticket)


def _decode(data: bytes) -> Ticket:
    ticket = Ticket.decode(data)
    if not ticket.realm or not ticket.sname.components:
        # RFC 4120 6.1, 6.2: a principal is a name in a realm.
        raise DecodeError("the ticket names no service: its realm or its sname is empty")
    return ticket


_known_ticket = lru_cache(maxsize=MAX_OPENED)(_decode)


def open_ticket(key: EncryptionKey, cipher: bytes) -> OpenedTicket:
    """Return the encrypted part of a ticket, decrypted with `key`, the service's.

    Raises IntegrityError for another key and for altered bytes, and DecodeError for a ticket
    without a client. The opened ticket is kept with the key. This exposes no further secret: the
    key can open the ticket anyway.
    """
    opened: OpenedTicket | None = key._opened.get(cipher)
    if opened is None:
        # No variable holds the plaintext, so that the traceback of a later refusal does not show
        # the session key.
        part = EncTicketPart.decode(crypto.decrypt(key, KeyUsage.TICKET, cipher))
        # RFC 4120 6.1, 6.2: a principal is a name in a realm.
        if not part.crealm or not part.cname.components:
            raise DecodeError("the ticket names no client: its crealm or its cname is empty")
        client = part.cname.principal(part.crealm)
        opened = OpenedTicket(part, client, _is_anonymous(part), str(client).casefold())
        if len(key._opened) >= MAX_OPENED:
            # The copy is one atomic step: other threads may add or drop tickets at the same time.
            for oldest in list(key._opened)[:1]:
                # It is not wiped, because a handshake may be using it; its key wipes itself.
                key._opened.pop(oldest, None)
        key._opened[cipher] = opened
    return opened


def _is_anonymous(part: EncTicketPart) -> bool:
    """Return whether the ticket's client is anonymous. Source: RFC 8062 3."""
    return bool(part.flags & _ANONYMOUS) or part.cname.anonymous or part.crealm == ANONYMOUS_REALM
