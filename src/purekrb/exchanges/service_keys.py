"""The keys of a service, and the choice of keys to try on a ticket. Source: RFC 4120 3.2.3."""

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
#: The most service keys that are tried on one ticket. So junk does not cost a decryption for each
#: key of a large keytab.
MAX_TRIES = 16


class ServiceKey(Protocol):
    """A key of a service; KeytabEntry is one."""

    @property
    def principal(self) -> Principal: ...
    @property
    def kvno(self) -> int: ...
    @property
    def key(self) -> EncryptionKey: ...


#: The keys of an acceptor; a Keytab is one.
ServiceKeys = Iterable[ServiceKey]


def is_for(service: Principal, name: Principal) -> bool:
    """Return whether an acceptor for `service` answers to `name`; an empty realm matches any.

    As at a directory's KDC, the case of letters does not count. The keytab's owner chose both names.
    """
    ours, theirs = service.components, name.components
    if ours != theirs and (len(ours) != len(theirs) or _folded(ours) != _folded(theirs)):
        return False
    return not service.realm or service.realm.casefold() == name.realm.casefold()


def _folded(components: tuple[str, ...]) -> str:
    return "/".join(components).casefold()


def answered_for(keys: list[ServiceKey], service: Principal | None) -> list[ServiceKey]:
    """Return the keys of an acceptor for `service`; all keys if `service` is None."""
    if service is None:
        return keys
    return [entry for entry in keys if is_for(service, entry.principal)]


def same_kvno(wanted: int, held: int) -> bool:
    """Return whether two key versions match; old keytabs hold only the low 8 bits of theirs."""
    return wanted == held or (held < 256 and wanted & 0xFF == held)


def likeliest(ticket: Ticket, candidates: list[ServiceKey]) -> Iterator[ServiceKey]:
    """Yield the entries to try, each key once, and at most MAX_TRIES keys.

    The order is: the key with the ticket's name and version, other versions of that name, other
    names. The service may have an alias, or its account several names.
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
                log.debug("%d keys were tried; the others are skipped", MAX_TRIES)
                return
            tried.append(entry.key)
            yield entry


def _by_kvno(wanted: int | None) -> Callable[[ServiceKey], tuple[bool, int]]:
    return lambda entry: (wanted is not None and not same_kvno(wanted, entry.kvno), -entry.kvno)


def names_of(found: ServiceKey, fitting: list[ServiceKey]) -> tuple[Principal, ...]:
    """Return the principals of `fitting` that share the key of `found`, in the keytab's order.

    Nothing proves which of them the client asked for.
    """
    if len(fitting) == 1:
        return (found.principal,)
    # `==` would copy both keys each time, and a keytab may be large.
    ours = found.key._contents or b""
    same = [
        entry.principal
        for entry in fitting
        if hmac.compare_digest(entry.key._contents or b"", ours)
    ]
    return tuple(dict.fromkeys(same))
