"""The service principal names that accounts have in the directory.

All functions take the session with the domain whose accounts they change and, where names are compared, a `forest`:
a session with a global catalog, or the same session where there is none.
Source: DsWriteAccountSpn and MS-DRSR 4.1.28, which say the same in terms of LDAP; setspn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple
from uuid import uuid4

from purekrb.directory.accounts import (
    ACCOUNT_ATTRIBUTES,
    Account,
    account_of,
    check_name,
    find_account,
    find_caller,
    find_computer,
)
from purekrb.directory.ldap import (
    INVALID_PARAMETER,
    OBJECT_NOT_FOUND,
    SPN_NOT_UNIQUE,
    Change,
    ChangeOperation,
    LdapSession,
    Scope,
    any_equals,
    like,
)
from purekrb.errors import (
    AccountNotFoundError,
    DirectoryError,
    InsufficientRightsError,
    SpnError,
    SpnNotUniqueError,
    SpnValidatedWriteDeniedError,
)
from purekrb.log import Log
from purekrb.spn import ServicePrincipalName, SpnType, get_spn, map_spn

__all__ = [
    "SpnOperation",
    "change",
    "duplicates",
    "find",
    "query",
    "reset_host",
    "server_register",
    "write",
]

_log = Log("purekrb.directory")

_INVALID_FUNCTION = 1
_SYNTAX_INVALID = 8373
_VALIDATED_WRITE_DENIED = 8203
#: How many names one search asks for. Domain controllers refuse filters of more than some thousand terms.
_CHUNK = 100
_CONSTRAINT_VIOLATION, _INSUFFICIENT_ACCESS_RIGHTS = 19, 50
#: Why a directory refuses names: the Windows error number, and what Samba says in its place.
_REASONS = {
    _VALIDATED_WRITE_DENIED: re.compile(r"acl: spn validation failed"),
    _SYNTAX_INVALID: re.compile(r"[0-9A-F]{8}: samldb: spn\[.*\] invalid with", re.DOTALL),
    SPN_NOT_UNIQUE: re.compile(r"[0-9A-F]{8}: samldb: spn\[.*\] would cause a conflict", re.DOTALL),
}


class SpnOperation(IntEnum):
    """What `write_account_spn` does: DS_SPN_WRITE_OP."""

    ADD = 0
    REPLACE = 1
    DELETE = 2


def write(
    session: LdapSession,
    forest: LdapSession,
    operation: SpnOperation | int,
    account: str,
    spns: Sequence[str],
) -> None:
    """Change the service principal names of `account`; see `Directory.write_account_spn`."""
    _check_sequence(spns)
    check_name(account)
    operation = _operation(operation)
    if not spns and operation is not SpnOperation.REPLACE:
        raise DirectoryError(
            f"there is no SPN to {operation.name}: name at least one", code=INVALID_PARAMETER
        )
    if operation is SpnOperation.REPLACE:
        _check_names(spns)
        found = find_account(session, account)
        _check_unique(session, forest, found, spns)
        _modify(
            session, forest, found, [_change(ChangeOperation.REPLACE, _spelled_once(spns))], spns
        )
    elif operation is SpnOperation.ADD:
        change(session, forest, account, add=spns)
    else:
        change(session, forest, account, delete=spns)


def change(
    session: LdapSession,
    forest: LdapSession,
    account: str,
    *,
    delete: Sequence[str] = (),
    add: Sequence[str] = (),
) -> None:
    """Delete and add service principal names of `account` in one step; see `Directory.change_account_spns`."""
    for spns in (delete, add):
        _check_sequence(spns)
    _check_names(add)
    for spn in delete:
        _check_deletable(spn)
    found = find_account(session, account)
    _check_unique(session, forest, found, add)
    changes = _changes(found, delete, add)
    if changes:
        _modify(session, forest, found, changes, add)


def server_register(
    session: LdapSession,
    forest: LdapSession,
    operation: SpnOperation | int,
    service_class: str,
    account: str,
) -> list[str]:
    """Write the names of `service_class` on this machine; see `Directory.server_register_spn`."""
    spns = [get_spn(kind, service_class)[0] for kind in (SpnType.DNS_HOST, SpnType.NB_HOST)]
    write(session, forest, operation, account or find_caller(session).dn, spns)
    return spns


def find(forest: LdapSession, spn: str) -> list[Account]:
    """Return the accounts that have `spn`; see `Directory.find_spn`."""
    ServicePrincipalName.parse(spn, strict=False)
    return _search(forest, any_equals("servicePrincipalName", [spn]))


def query(forest: LdapSession, pattern: str) -> list[Account]:
    """Return the accounts that have a name like `pattern`; see `Directory.query_spns`."""
    return _search(forest, like("servicePrincipalName", pattern))


def duplicates(forest: LdapSession) -> dict[str, list[Account]]:
    """Return the names that several accounts have; see `Directory.duplicate_spns`."""
    owners: dict[object, dict[str, Account]] = {}
    spelled: dict[object, str] = {}
    for account in _search(forest, "(servicePrincipalName=*)"):
        for spn in account.spns:
            key = _key(spn)
            spelled.setdefault(key, spn)
            owners.setdefault(key, {})[account.dn] = account
    return {spelled[key]: list(found.values()) for key, found in owners.items() if len(found) > 1}


def reset_host(session: LdapSession, forest: LdapSession, host: str) -> list[str]:
    """Give a computer the names of the class HOST again; see `Directory.reset_host_spns`."""
    computer = find_computer(session, host)
    dns_name, account = computer.text("dNSHostName"), computer.text("sAMAccountName")
    spns = [f"HOST/{name}" for name in (dns_name, account.removesuffix("$")) if name]
    change(session, forest, computer.dn, add=spns)
    return spns


# What is asked for ------------------------------------------------------------------------------------------------


def _operation(operation: SpnOperation | int) -> SpnOperation:
    try:
        return SpnOperation(operation)
    except ValueError:
        raise DirectoryError(
            f"SPN operation {operation!r} is unknown: use a member of SpnOperation",
            code=_INVALID_FUNCTION,
        ) from None


def _check_sequence(spns: Sequence[str]) -> None:
    if isinstance(spns, str):
        raise TypeError("spns is a sequence of service principal names, not one string")


def _check_names(spns: Iterable[str]) -> None:
    for spn in spns:
        ServicePrincipalName.parse(spn)


def _check_deletable(spn: str) -> None:
    """Raise SpnError for what no directory can hold: what somebody stored must be deletable, however odd."""
    if not spn or not spn.isprintable():
        raise SpnError(
            f"SPN {spn!r} is empty or has characters that are no text: give it as the directory shows it"
        )


def _spelled_once(spns: Iterable[str]) -> list[str]:
    """Return `spns` without those that differ from an earlier one in case alone."""
    return list({spn.casefold(): spn for spn in reversed(list(spns))}.values())[::-1]


def _changes(account: Account, delete: Iterable[str], add: Iterable[str]) -> list[Change]:
    """Return the changes that delete and add these names, whatever their case."""
    stored: dict[str, list[str]] = {}
    for spn in account.spns:
        stored.setdefault(spn.casefold(), []).append(spn)
    # What is not there now may be there when the request arrives, so it is named all the same.
    leaving = [
        spelling for spn in _spelled_once(delete) for spelling in stored.get(spn.casefold(), [spn])
    ]
    gone = {spn.casefold() for spn in leaving}
    # Samba, unlike Windows, takes the same name in another case for another value, and would store both.
    coming = [
        spn
        for spn in _spelled_once(add)
        if spn.casefold() in gone or spn in account.spns or spn.casefold() not in stored
    ]
    adding, deleting = (
        _change(ChangeOperation.ADD, coming),
        _change(ChangeOperation.DELETE, leaving),
    )
    # Samba checks the values of the first change alone: the names to add come first, unless one changes its case.
    ordered = (
        [deleting, adding] if gone & {spn.casefold() for spn in coming} else [adding, deleting]
    )
    return [one for one in ordered if one.values]


def _change(operation: ChangeOperation, spns: Sequence[str]) -> Change:
    return Change(operation, "servicePrincipalName", spns)


# What the directory has -------------------------------------------------------------------------------------------


class _Collision(NamedTuple):
    """An account besides the one in question has `other`, which is `spn` or which the KDC may take for it."""

    spn: str
    other: str
    owner: str


def _search(session: LdapSession, search_filter: str) -> list[Account]:
    found = session.search(session.base_dn, search_filter, ACCOUNT_ATTRIBUTES)
    return sorted(map(account_of, found), key=lambda account: account.dn)


def _key(spn: str) -> object:
    """Return what all spellings of `spn` have in common."""
    try:
        return ServicePrincipalName.parse(spn, strict=False).key
    except SpnError:  # stored by somebody else
        return spn.casefold()


def _collisions(
    session: LdapSession,
    forest: LdapSession,
    account: Account,
    equivalents: Mapping[str, Iterable[str]],
) -> list[_Collision]:
    """Return which accounts besides `account` have a key of `equivalents`, or one of its values."""
    names = {
        spn: {name.casefold(): name for name in (spn, *others)}
        for spn, others in equivalents.items()
    }
    wanted = list(dict.fromkeys(name for equal in names.values() for name in equal.values()))
    owners: dict[str, Account] = {}
    # The catalog knows the forest, but late: what was written a moment ago is seen where it was written.
    for searched in {id(session): session, id(forest): forest}.values():
        for at in range(0, len(wanted), _CHUNK):
            found = _search(searched, any_equals("servicePrincipalName", wanted[at : at + _CHUNK]))
            owners.update((owner.dn, owner) for owner in found if owner.sid != account.sid)
    return [
        _Collision(spn, other, owner.dn)
        for spn, equal in names.items()
        for owner in owners.values()
        for other in owner.spns
        if other.casefold() in equal
    ]


def _mappings(session: LdapSession) -> tuple[str, ...]:
    """Return the forest's sPNMappings: which service classes the KDC also finds under which other one."""
    base = f"CN=Directory Service,CN=Windows NT,CN=Services,{session.root_dse.text('configurationNamingContext')}"
    found = session.search(base, "(objectClass=*)", ("sPNMappings",), scope=Scope.BASE)
    return found[0].texts("sPNMappings") if found else ()


def _mapped_to(spn: str, mappings: Iterable[str]) -> Iterator[str]:
    """Yield the names that the KDC also finds under `spn`."""
    service_class, _, rest = spn.partition("/")
    for mapping in mappings:
        alias, _, classes = mapping.partition("=")
        if alias.strip().casefold() == service_class.casefold():
            yield from (f"{name.strip()}/{rest}" for name in classes.split(",") if name.strip())


def _check_unique(
    session: LdapSession, forest: LdapSession, account: Account, spns: Sequence[str]
) -> None:
    """Raise SpnNotUniqueError where an account besides `account` has one of `spns`."""
    if not spns:
        return
    mappings = _mappings(session)
    aliases = {spn: filter(None, [map_spn(spn, mappings)]) for spn in spns}
    collisions = _collisions(session, forest, account, aliases)
    for spn, other, owner in collisions:
        if spn.casefold() == other.casefold():
            taken = [
                found for found in collisions if found.spn.casefold() == found.other.casefold()
            ]
            raise _not_unique(spn, taken, None)
        # Not forbidden: a web server often has an account of its own on a host whose computer has HOST/host.
        _log.warning(
            "%s has %s, which stands for %s too where nobody has that; %s takes it",
            owner,
            other,
            spn,
            account.dn,
        )


def _modify(
    session: LdapSession,
    forest: LdapSession,
    account: Account,
    changes: Sequence[Change],
    added: Sequence[str],
) -> None:
    """Make `changes`, with which `account` gets the names `added`, in one request that fails or succeeds as a whole."""
    for one in changes:
        _log.debug(
            "%s of %s: %s %s",
            one.attribute,
            account.dn,
            one.operation.name,
            ", ".join(map(str, one.values)),
        )
    try:
        _send(session, account, changes)
    except DirectoryError as error:
        raise _refusal(session, forest, account, added, error) from error


def _send(session: LdapSession, account: Account, changes: Sequence[Change]) -> None:
    try:
        session.modify(account.dn, changes, permissive=True)
    except DirectoryError as error:
        only_deletes = all(one.operation is ChangeOperation.DELETE for one in changes)
        if not only_deletes or error.ldap_result != _CONSTRAINT_VIOLATION:
            raise
        # Samba checks the values of the first change as if they were to be added, so that nobody could delete a name
        # that is malformed, or that another account has as well. It lets them go behind one that nobody has.
        nobodys = _change(ChangeOperation.DELETE, [f"purekrb/{uuid4()}"])
        session.modify(account.dn, [nobodys, *changes], permissive=True)


def _refusal(
    session: LdapSession,
    forest: LdapSession,
    account: Account,
    added: Sequence[str],
    error: DirectoryError,
) -> DirectoryError | SpnError:
    """Return what the directory meant when it refused to give `account` the names `added`."""
    if error.code == OBJECT_NOT_FOUND:
        return _like(
            error,
            AccountNotFoundError,
            f"the account {account.dn!r} has gone meanwhile: check its name",
        )
    reason = next(
        (n for n, said in _REASONS.items() if error.code == n or said.match(error.diagnostic)), 0
    )
    if reason == _VALIDATED_WRITE_DENIED:
        return _like(
            error,
            SpnValidatedWriteDeniedError,
            f"{account.dn!r} may only register names of two parts for its own host: have an administrator register "
            f"{', '.join(added)}",
            code=reason,
        )
    if reason == _SYNTAX_INVALID:
        return SpnError(
            f"one of {', '.join(added)} is no SPN to the directory: {error.diagnostic!r}",
            code=reason,
        )
    if reason != SPN_NOT_UNIQUE and error.ldap_result not in (
        _CONSTRAINT_VIOLATION,
        _INSUFFICIENT_ACCESS_RIGHTS,
    ):
        return error
    mappings = _mappings(session)
    equivalents = {
        spn: [*filter(None, [map_spn(spn, mappings)]), *_mapped_to(spn, mappings)] for spn in added
    }
    collisions = _collisions(session, forest, account, equivalents)
    if error.ldap_result == _INSUFFICIENT_ACCESS_RIGHTS:
        others = "".join(
            f", nor take {spn!r} from {owner!r}, which has {other!r}"
            for spn, other, owner in collisions
        )
        message = f"the account that is bound may not write the service principal names of {account.dn!r}{others}"
        return _like(
            error,
            InsufficientRightsError,
            f"{message}: ask an administrator to do it, or for the right",
        )
    return (
        _not_unique(added[0], collisions, error)
        if collisions or reason == SPN_NOT_UNIQUE
        else error
    )


def _not_unique(
    spn: str, collisions: Sequence[_Collision], cause: DirectoryError | None
) -> DirectoryError:
    """Return the error for names that `collisions` shows, or for `spn` where nothing is to be seen of another's."""
    names = dict.fromkeys(found.spn for found in collisions) or [spn]
    has = (
        " and ".join(f"{owner!r} has {other!r}" for _, other, owner in collisions)
        or "another account has it"
    )
    return _like(
        cause,
        SpnNotUniqueError,
        f"SPN {', '.join(map(repr, names))} must be unique in the forest, but {has}: delete it there first",
        code=SPN_NOT_UNIQUE,
        spn=next(iter(names)),
        owners=tuple(dict.fromkeys(found.owner for found in collisions)),
    )


def _like(
    cause: DirectoryError | None, kind: type[DirectoryError], message: str, **details: Any
) -> DirectoryError:
    """Return an error of `kind` with the numbers and the diagnostic of `cause`, where `details` has no others."""
    return kind(message, **{**(vars(cause) if cause else {}), **details})
