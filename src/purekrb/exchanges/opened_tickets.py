"""Tickets that an acceptor has seen before: taken apart once, decrypted once for each service key.

A client presents its ticket at each handshake until it expires, so an acceptor remembers what its
bytes mean. Only what the bytes alone decide is remembered: whatever depends on the time, on the
request or on what the acceptor permits is checked anew each time.
"""

from __future__ import annotations

from functools import lru_cache

from purekrb import crypto
from purekrb.constants import KeyUsage, TicketFlags
from purekrb.errors import DecodeError
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import EncTicketPart, Ticket
from purekrb.names import Principal
from purekrb.records import record

__all__ = ["OpenedTicket", "open_ticket", "read_ticket", "MAX_OPENED"]

#: Opened tickets that one service key keeps; the oldest leaves.
MAX_OPENED = 256
#: Tickets up to this size in bytes are remembered, so that junk takes little memory.
_MAX_KNOWN = 8192
#: `&` of an IntFlag is slow: see constants.py.
_ANONYMOUS = int(TicketFlags.ANONYMOUS)
#: The name of clients without one, and the realm of those that hide theirs too. RFC 8062 3.
_ANONYMOUS_NAME, _ANONYMOUS_REALM = ("WELLKNOWN", "ANONYMOUS"), "WELLKNOWN:ANONYMOUS"


@record
class OpenedTicket:
    """A ticket's encrypted part, the client that it names, and whether that is anonymous.

    `account` stands for all spellings of the client: some KDCs let it choose the case of its name.
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

    Raises IntegrityError for another key and for altered bytes, DecodeError for a ticket without a
    client. The opened ticket is kept with the key. Whoever has the key can open the ticket, so it
    holds no secret that was not there before.
    """
    opened: OpenedTicket | None = key._opened.get(cipher)
    if opened is None:
        # No variable holds the plaintext: the traceback of a later refusal must not show the
        # session key.
        part = EncTicketPart.decode(crypto.decrypt(key, KeyUsage.TICKET, cipher))
        if not part.crealm or not part.cname.components:
            raise DecodeError("the ticket names no client: its crealm or its cname is empty")
        client = part.cname.principal(part.crealm)
        opened = OpenedTicket(part, client, _is_anonymous(part), str(client).casefold())
        if len(key._opened) >= MAX_OPENED:
            # Copied in one step: other threads may add or drop at the same time.
            for oldest in list(key._opened)[:1]:
                # Not wiped, since a handshake may be using it; its key wipes itself.
                key._opened.pop(oldest, None)
        key._opened[cipher] = opened
    return opened


def _is_anonymous(part: EncTicketPart) -> bool:
    """Return whether the KDC does not say who the client is. Source: RFC 8062 3."""
    return (
        bool(part.flags & _ANONYMOUS)
        or part.cname.components == _ANONYMOUS_NAME
        or part.crealm == _ANONYMOUS_REALM
    )
