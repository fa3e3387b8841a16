"""The service principal names that accounts have in the directory.

All functions take the session with the domain whose accounts they change. Functions that compare
names also take `forest`: a session with a global catalog, or the same session if there is none.
Source: DsWriteAccountSpn, and MS-DRSR 4.1.28, which says the same in terms of LDAP; setspn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any, NamedTuple
from uuid import uuid4

from purekrb.directory.account_state import etype_finding, read_state, suspects_rc4
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
    ANY_OBJECT,
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
from purekrb.directory.rights import how_to_grant
from purekrb.errors import (
    AccountNotFoundError,
    DirectoryError,
    InsufficientRightsError,
    SpnError,
    SpnNotUniqueError,
    SpnValidatedWriteDeniedError,
)
from purekrb.log import Log
from purekrb.spn import ServicePrincipalName, SpnType, get_spn, map_spn, target_principal

__all__ = [
    "SpnOperation",
    "change",
    "check_unique",
    "duplicates",
    "find",
    "query",
    "refusal",
    "reset_host",
    "server_register",
    "stands_for",
    "write",
]

_log = Log("purekrb.directory")

_INVALID_FUNCTION = 1
_SYNTAX_INVALID = 8373
_VALIDATED_WRITE_DENIED = 8203
#: The number of names in one search. Domain controllers refuse filters of some thousand terms.
_CHUNK = 100
_CONSTRAINT_VIOLATION, _INSUFFICIENT_ACCESS_RIGHTS = 19, 50
#: Reasons to refuse names: the Windows error number -> the diagnostic message of Samba for it.
_REASONS = {
    _VALIDATED_WRITE_DENIED: re.compile(r"acl: spn validation failed"),
    _SYNTAX_INVALID: re.compile(r"[0-9A-F]{8}: samldb: spn\[.*\] invalid with", re.DOTALL),
    SPN_NOT_UNIQUE: re.compile(r"[0-9A-F]{8}: samldb: spn\[.*\] would cause a conflict", re.DOTALL),
}


class SpnOperation(IntEnum):
    """The operations of `write_account_spn`, as in DS_SPN_WRITE_OP."""

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
        check_unique(session, forest, found, spns)
        replacing = _change(ChangeOperation.REPLACE, _spelled_once(spns))
        _modify(session, forest, found, [replacing], spns)
        _warn(session, found, spns)
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
    warn_of_rc4: bool = True,
) -> None:
    """Delete and add names of `account` in one step; see `Directory.change_account_spns`.

    `warn_of_rc4`: log that tickets may be of RC4. An installation finds out whether they are.
    """
    for spns in (delete, add):
        _check_sequence(spns)
    _check_names(add)
    for spn in delete:
        _check_deletable(spn)
    found = find_account(session, account)
    check_unique(session, forest, found, add)
    changes = _changes(found, delete, add)
    if changes:
        _modify(session, forest, found, changes, add)
        _warn(session, found, add, rc4=warn_of_rc4)


def _warn(
    session: LdapSession, account: Account, added: Sequence[str], *, rc4: bool = True
) -> None:
    """Log for which of the added names clients will get no ticket, or one of RC4.

    The names are written, whatever is found.
    """
    for spn in added:
        why = _unaskable(spn)
        if why:
            _log.warning("%s is registered, but clients of purekrb do not ask for it: %s", spn, why)
    with suppress(DirectoryError):
        if rc4 and added and suspects_rc4(state := read_state(session, account)):
            _log.warning("%s", etype_finding(state))


def _unaskable(spn: str) -> str:
    """Return why a client does not ask the KDC for `spn`; "" if it does."""
    try:
        asked = target_principal(spn)
    except SpnError as error:
        return str(error)
    if asked.realm:
        return f"they ask the realm {asked.realm} for {'/'.join(asked.components)}"
    return ""


def server_register(
    session: LdapSession,
    forest: LdapSession,
    operation: SpnOperation | int,
    service_class: str,
    account: str,
) -> list[str]:
    """Write the names of `service_class` on this machine; see `Directory.server_register_spn`."""
    types = (SpnType.DNS_HOST, SpnType.NB_HOST)
    spns = [get_spn(spn_type, service_class)[0] for spn_type in types]
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


# The request --------------------------------------------------------------------------------------


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
    """Raise SpnError for a name that a directory cannot hold; any stored name must be deletable."""
    if not spn or not spn.isprintable():
        raise SpnError(
            f"SPN {spn!r} is empty or has unprintable characters: give it as the directory shows it"
        )


def _spelled_once(spns: Iterable[str]) -> list[str]:
    """Return `spns` without those that differ from an earlier one only in case."""
    return list({spn.casefold(): spn for spn in reversed(list(spns))}.values())[::-1]


def _changes(account: Account, delete: Iterable[str], add: Iterable[str]) -> list[Change]:
    """Return the changes that delete and add these names, whatever their case."""
    stored: dict[str, list[str]] = {}
    for spn in account.spns:
        stored.setdefault(spn.casefold(), []).append(spn)
    # A name that is not there now may be there when the request arrives, so it is deleted anyway.
    leaving = [
        spelling for spn in _spelled_once(delete) for spelling in stored.get(spn.casefold(), [spn])
    ]
    gone = {spn.casefold() for spn in leaving}
    # Unlike Windows, Samba considers the same name in another case a different value, and would
    # store both.
    coming = [
        spn
        for spn in _spelled_once(add)
        if spn.casefold() in gone or spn in account.spns or spn.casefold() not in stored
    ]
    adding = _change(ChangeOperation.ADD, coming)
    deleting = _change(ChangeOperation.DELETE, leaving)
    # Samba only checks the values of the first change. So the names to add come first, unless one
    # of them replaces itself in another case.
    changes = [adding, deleting]
    if gone & {spn.casefold() for spn in coming}:
        changes = [deleting, adding]
    return [one for one in changes if one.values]


def _change(operation: ChangeOperation, spns: Sequence[str]) -> Change:
    return Change(operation, "servicePrincipalName", spns)


# The directory ------------------------------------------------------------------------------------


class _Collision(NamedTuple):
    """Another account, `owner`, has `other`, which is `spn` or which the KDC may take for `spn`."""

    spn: str
    other: str
    owner: str


def _search(session: LdapSession, search_filter: str) -> list[Account]:
    found = session.search(session.base_dn, search_filter, ACCOUNT_ATTRIBUTES)
    return sorted(map(account_of, found), key=lambda account: account.dn)


def _key(spn: str) -> object:
    """Return a key that is equal for all spellings of `spn`."""
    try:
        return ServicePrincipalName.parse(spn, strict=False).key
    except SpnError:  # malformed, but stored by another program
        return spn.casefold()


def _collisions(
    session: LdapSession,
    forest: LdapSession,
    account: Account,
    equivalents: Mapping[str, Iterable[str]],
) -> list[_Collision]:
    """Return the accounts other than `account` that have a key or a value of `equivalents`.

    `equivalents` maps each name in question to the names that are equivalent to it.
    """
    names = {
        spn: {name.casefold(): name for name in (spn, *others)}
        for spn, others in equivalents.items()
    }
    wanted = list(dict.fromkeys(name for equal in names.values() for name in equal.values()))
    owners: dict[str, Account] = {}
    # The catalog covers the forest, but lags behind. Recent changes are seen in the domain itself.
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
    """Return the forest's sPNMappings: other classes under which the KDC finds a service class."""
    configuration = session.root_dse.text("configurationNamingContext")
    base = f"CN=Directory Service,CN=Windows NT,CN=Services,{configuration}"
    found = session.search(base, ANY_OBJECT, ("sPNMappings",), scope=Scope.BASE)
    return found[0].texts("sPNMappings") if found else ()


def stands_for(session: LdapSession, spn: str) -> str | None:
    """Return the name under which the KDC also looks for `spn`; None if its class has no other."""
    return map_spn(spn, _mappings(session))


def _mapped_to(spn: str, mappings: Iterable[str]) -> Iterator[str]:
    """Yield the names that the KDC also finds under `spn`."""
    service_class, _, rest = spn.partition("/")
    for mapping in mappings:
        alias, _, classes = mapping.partition("=")
        if alias.strip().casefold() == service_class.casefold():
            yield from (f"{name.strip()}/{rest}" for name in classes.split(",") if name.strip())


def check_unique(
    session: LdapSession, forest: LdapSession, account: Account, spns: Sequence[str]
) -> None:
    """Raise SpnNotUniqueError if an account other than `account` has one of `spns`."""
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
        # This is allowed: a web server often has an account of its own on a host whose computer has
        # HOST/host.
        _log.warning(
            "%s has %s, which has also stood for %s so far; %s takes it over",
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
    """Make `changes`, which give `account` the names `added`, in one request.

    The request succeeds or fails as a whole.
    """
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
        raise refusal(session, forest, account, added, error) from error


def _send(session: LdapSession, account: Account, changes: Sequence[Change]) -> None:
    try:
        session.modify(account.dn, changes, permissive=True)
    except DirectoryError as error:
        only_deletes = all(one.operation is ChangeOperation.DELETE for one in changes)
        if not only_deletes or error.ldap_result != _CONSTRAINT_VIOLATION:
            raise
        # Samba checks the values of the first change as if they were added, so a malformed or
        # duplicate name could not be deleted. It can be after the deletion of an unused name.
        unused = _change(ChangeOperation.DELETE, [f"purekrb/{uuid4()}"])
        session.modify(account.dn, [unused, *changes], permissive=True)


def refusal(
    session: LdapSession,
    forest: LdapSession,
    account: Account,
    added: Sequence[str],
    error: DirectoryError,
) -> DirectoryError | SpnError:
    """Return the error that tells why the directory did not give `account` the names `added`."""
    if error.code == OBJECT_NOT_FOUND:
        return _like(
            error,
            AccountNotFoundError,
            f"the account {account.dn!r} no longer exists: check its name",
        )
    reason = next(
        (n for n, said in _REASONS.items() if error.code == n or said.match(error.diagnostic)), 0
    )
    if reason == _VALIDATED_WRITE_DENIED:
        return _like(
            error,
            SpnValidatedWriteDeniedError,
            f"{account.dn!r} may only register names of two parts for its own host: "
            f"have an administrator register {', '.join(added)}",
            code=reason,
        )
    if reason == _SYNTAX_INVALID:
        return SpnError(
            f"the directory does not accept one of {', '.join(added)} as an SPN: "
            f"{error.diagnostic!r}",
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
        _, commands = how_to_grant(session, "write spns", account.dn)
        return _like(
            error,
            InsufficientRightsError,
            "the bound account may not write the service principal names of "
            f"{account.dn!r}{others}: ask an administrator to do it, or for the right: {commands}",
        )
    if collisions or reason == SPN_NOT_UNIQUE:
        return _not_unique(added[0], collisions, error)
    return error


def _not_unique(
    spn: str, collisions: Sequence[_Collision], cause: DirectoryError | None
) -> DirectoryError:
    """Return the error for the names in `collisions`; if the owner is not visible, for `spn`."""
    names = dict.fromkeys(found.spn for found in collisions) or [spn]
    has = (
        " and ".join(f"{owner!r} has {other!r}" for _, other, owner in collisions)
        or "another account has it"
    )
    return _like(
        cause,
        SpnNotUniqueError,
        f"SPN {', '.join(map(repr, names))} must be unique in the forest, but {has}: "
        "delete it there first",
        code=SPN_NOT_UNIQUE,
        spn=next(iter(names)),
        owners=tuple(dict.fromkeys(found.owner for found in collisions)),
    )


def _like(
    cause: DirectoryError | None, error_class: type[DirectoryError], message: str, **details: Any
) -> DirectoryError:
    """Return an error with the codes and the diagnostic of `cause`, overridden by `details`."""
    return error_class(message, **{**(vars(cause) if cause else {}), **details})
