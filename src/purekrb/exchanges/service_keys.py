"""The keys of a service, and which of them are tried on a ticket, in which order."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from purekrb.keys import EncryptionKey
from purekrb.log import Log
from purekrb.messages.ap import Ticket
from purekrb.names import Principal

__all__ = [
    "ServiceKey",
    "ServiceKeys",
    "MAX_TRIES",
    "is_for",
    "answered_for",
    "likeliest",
    "names_of",
    "same_kvno",
]

log = Log("purekrb.ap")
#: Service keys that are tried on one ticket, so that junk costs no decryption for each key of a
#: large keytab.
MAX_TRIES = 16


class ServiceKey(Protocol):
    """A key of a service; KeytabEntry is one."""

    @property
    def principal(self) -> Principal: ...
    @property
    def kvno(self) -> int: ...
    @property
    def key(self) -> EncryptionKey: ...


#: The keys that an acceptor has; a Keytab is one.
ServiceKeys = Iterable[ServiceKey]


def is_for(service: Principal, name: Principal) -> bool:
    """Return whether an acceptor for `service` answers by `name`; an empty realm matches any."""
    same = service.components == name.components
    return same and (not service.realm or service.realm == name.realm)


def answered_for(keys: list[ServiceKey], service: Principal | None) -> list[ServiceKey]:
    """Return the keys that count for an acceptor for `service` (None: all)."""
    if service is None:
        return keys
    return [entry for entry in keys if is_for(service, entry.principal)]


def same_kvno(wanted: int, held: int) -> bool:
    """Return whether a ticket's key version is that of a keytab, of which old ones hold 8 bits."""
    return wanted == held or (held < 256 and wanted & 0xFF == held)


def likeliest(ticket: Ticket, candidates: list[ServiceKey]) -> Iterator[ServiceKey]:
    """Yield the entries to try, each key once, and at most MAX_TRIES keys.

    First the key that the ticket names, then older and newer ones of that name, then the others:
    the service may be known by an alias, or its account by several names.
    """
    components, realm = ticket.sname.components, ticket.realm
    named: list[ServiceKey] = []
    others: list[ServiceKey] = []
    for entry in candidates:
        principal = entry.principal
        same = principal.components == components and principal.realm == realm
        (named if same else others).append(entry)
    tried: list[EncryptionKey] = []
    for entries in (named, others):
        entries.sort(key=_by_kvno(ticket.enc_part.kvno))
        for entry in entries:
            if entry.key in tried:
                continue
            if len(tried) == MAX_TRIES:
                log.debug("%d keys were tried, the others are not", MAX_TRIES)
                return
            tried.append(entry.key)
            yield entry


def _by_kvno(wanted: int | None) -> Callable[[ServiceKey], tuple[bool, int]]:
    return lambda entry: (wanted is not None and not same_kvno(wanted, entry.kvno), -entry.kvno)


def names_of(found: ServiceKey, fitting: list[ServiceKey]) -> tuple[Principal, ...]:
    """Return the principals of `fitting` that have the key of `found`, in the keytab's order.

    Nothing proves which of them the client asked for.
    """
    if len(fitting) == 1:
        return (found.principal,)
    # Not by `==`, which copies both keys each time: a keytab may be large.
    ours = found.key._contents or b""
    same = [
        entry.principal
        for entry in fitting
        if hmac.compare_digest(entry.key._contents or b"", ours)
    ]
    return tuple(dict.fromkeys(same))
