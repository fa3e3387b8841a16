"""Accounts of services: creating, disabling and deleting them.

The keys of a new account come into the keytab first, as in a rotation. If anything fails, the
account is removed again. If the process dies, the next attempt finds its own account by the key in
the keytab, and completes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from purekrb.credentials import files
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab, change_keytab, keytab_path
from purekrb.directory import spns as account_spns
from purekrb.directory.account_keys import ETYPES_OF_KEYS, AccountNames, belonging, without
from purekrb.directory.accounts import (
    AES_BITS,
    ETYPES,
    Account,
    find_account,
    number_of,
)
from purekrb.directory.ldap import (
    ANY_OBJECT,
    INVALID_PARAMETER,
    OBJECT_NOT_FOUND,
    Change,
    ChangeOperation,
    LdapSession,
    Scope,
    single,
)
from purekrb.directory.rights import without_right
from purekrb.directory.rotation import NewKeys, as_unicode_pwd, check_encrypted, names_of_account
from purekrb.directory.transaction import transaction
from purekrb.directory.windows_errors import USER_EXISTS
from purekrb.dn import escape_rdn_value, parent_of
from purekrb.errors import (
    AccountNotFoundError,
    ClientUnknownError,
    CredentialError,
    DecodeError,
    DirectoryError,
    InsufficientRightsError,
    PreauthFailedError,
    TransportError,
)
from purekrb.kdc.client import KdcClient
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.sid import Sid
from purekrb.spn import ServicePrincipalName
from purekrb.system import RandomBytes, random_bytes
from purekrb.tracebacks import forget_frames

__all__ = [
    "COMPUTER",
    "CONTROL",
    "DISABLED",
    "USER",
    "AccountKind",
    "ServiceAccount",
    "create",
    "delete",
    "disable",
]

_log = Log("purekrb.directory")

DISABLED = 0x2
CONTROL = "userAccountControl"
#: What no sAMAccountName may have. Source: MS-SAMR 3.1.1.8.4. "@" would make it look like a UPN.
_FORBIDDEN = re.compile(r'["/\\\[\]:;|=,+*?<>@\x00-\x1f\x7f]')
_NO_SUCH_ATTRIBUTE, _NOT_ON_NON_LEAF, _VALUE_EXISTS = 16, 66, 20
#: An account that is not there yet.
_NOBODY = Sid(0, (0,))


class AccountKind(NamedTuple):
    """A kind of account: its class, where it is put, how its name ends, and its first flags.

    `container` is the well-known GUID of the container: administrators may have chosen another one.
    `flags` are bits of userAccountControl. Source: MS-ADTS 6.1.1.4, 2.2.16.
    """

    object_class: str
    container: str
    suffix: str
    longest: int
    flags: int


#: A user; its password does not expire, since it is rotated.
USER = AccountKind("user", "a9d1ca15768811d1aded00c04fd8d5cd", "", 20, 0x10200)
#: A computer; its name without "$" is a NetBIOS name.
COMPUTER = AccountKind("computer", "aa312825768811d1aded00c04fd8d5cd", "$", 16, 0x1000)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A new account: its kvno, its keytab, and the names that the keytab has."""

    account: Account
    keytab: str
    kvno: int
    principals: tuple[Principal, ...] = field(default=())


@forget_frames
def create(
    session: LdapSession,
    forest: LdapSession,
    kdc: KdcClient,
    name: str,
    keytab: files.FilePath | None,
    *,
    kind: AccountKind = USER,
    spns: Sequence[str] = (),
    parent: str = "",
    attributes: Mapping[str, Sequence[str]] | None = None,
    owner: str = "",
    random: RandomBytes = random_bytes,
) -> ServiceAccount:
    """Create an account and its keytab; see `Directory.create_service_account`.

    `attributes` are more attributes of the object.
    """
    if isinstance(spns, str):
        raise TypeError("spns is a sequence of service principal names, not one string")
    _check_account_name(name, kind)
    for spn in spns:
        ServicePrincipalName.parse(spn)
    check_encrypted(session)
    path = keytab_path(keytab)
    more = {key: list(values) for key, values in (attributes or {}).items()}
    with files.turn_at(path, what="keytab"):
        existing = _existing(session, name)
        if existing is not None:
            return _complete(session, kdc, existing, spns, path, owner)
        dn = f"CN={escape_rdn_value(name.removesuffix('$'))},{parent or _place(session, kind)}"
        nobody = Account(dn, name, (), UUID(int=0), _NOBODY)
        account_spns.check_unique(session, forest, nobody, spns)
        dns_name = next(iter(more.get("dNSHostName", ())), "")
        upn = next(iter(more.get("userPrincipalName", ())), "")
        names = AccountNames(name, session.domain.upper(), tuple(spns), upn, dns_name)
        new = NewKeys(kdc, names, path, random=random)
        new.put((), 1)  # all or nothing: there is nothing to undo if it fails
        try:
            with transaction() as undo:
                undo.add(
                    f"deleting {dn} and its keys in {path}",
                    lambda: _remove_ours(session, new, name),
                )
                _add(session, forest, nobody, kind, spns, more, new)
                _log.debug("step: the directory has the account %s", dn)
                account = find_account(session, dn)
                keys = new.prove()
                _, told = names_of_account(session, account)
                kvno = new.version(keys, told)
                new.finish(keys, kvno)
                if owner:
                    files.give(path, owner, what="keytab")
        except TransportError as error:
            raise type(error)(
                f"{error}. If the account {name} was created, its keys are in {path}: do the same "
                "again to complete it"
            ) from None
    return ServiceAccount(account, path, kvno, tuple(names.principals))


@forget_frames
def _add(
    session: LdapSession,
    forest: LdapSession,
    account: Account,
    kind: AccountKind,
    spns: Sequence[str],
    more: Mapping[str, Sequence[str]],
    new: NewKeys,
) -> None:
    """Create the object, whole: in one request, which succeeds or fails."""
    values: dict[str, Sequence[str | bytes]] = {
        "sAMAccountName": [account.name],
        CONTROL: [str(kind.flags)],
        ETYPES: [str(AES_BITS)],
        "unicodePwd": [as_unicode_pwd(new.password)],
        **({"servicePrincipalName": list(spns)} if spns else {}),
        **more,
    }
    try:
        session.add(account.dn, kind.object_class, values)
    except InsufficientRightsError as error:
        where = parent_of(account.dn)
        raise without_right(session, error, f"create {kind.object_class}", where) from None
    except DirectoryError as error:
        if error.code == OBJECT_NOT_FOUND:
            raise DirectoryError(
                f"there is no {parent_of(account.dn)} to create the account in: check the DN, or "
                "create it first",
                code=error.code,
                ldap_result=error.ldap_result,
                diagnostic=error.diagnostic,
            ) from None
        if not spns:
            raise
        raise account_spns.refusal(session, forest, account, spns, error) from None


def _existing(session: LdapSession, name: str) -> Account | None:
    try:
        return find_account(session, name)
    except AccountNotFoundError:
        return None


@forget_frames
def _complete(
    session: LdapSession,
    kdc: KdcClient,
    account: Account,
    spns: Sequence[str],
    path: str,
    owner: str,
) -> ServiceAccount:
    """Complete what an earlier attempt has begun: the account is ours if the keytab has its key."""
    names, told = names_of_account(session, account)
    try:
        credential = Credential.from_keytab(names.own, path)
        kdc.get_tgt(credential)
    except (CredentialError, DecodeError, PreauthFailedError) as error:
        raise DirectoryError(
            f"there is an account {account.name} already: {account.dn}, and it is not one that was "
            f"begun with the keytab {path} ({error}). Choose another name; or, if it is yours, give "
            "it new keys (purekrb account rotate --reset)",
            code=USER_EXISTS,
        ) from None
    missing = {spn.casefold() for spn in spns} - {spn.casefold() for spn in account.spns}
    if missing:
        raise DirectoryError(
            f"there is an account {account.name} already, with its key in {path}, but without "
            f"{', '.join(sorted(missing))}: add these names to it (purekrb spn add)",
            code=USER_EXISTS,
        )
    etypes = [etype for etype in ETYPES_OF_KEYS if etype in credential.etypes]
    keys = kdc._run(lambda: kdc._proved_keys(credential, etypes))
    new = NewKeys(kdc, names, path)
    kvno = new.version(keys, told)
    new.finish(keys, kvno)
    if owner:
        files.give(path, owner, what="keytab")
    return ServiceAccount(account, path, kvno, tuple(names.principals))


def _remove_ours(session: LdapSession, new: NewKeys, name: str) -> None:
    """Delete the account, if it is the one whose password we have; then its keys in the keytab.

    As long as the account is there, the keys stay: with them, the next attempt completes it.
    """
    account = _existing(session, name)
    if account is not None:
        try:
            new.log_in()
        except (ClientUnknownError, PreauthFailedError):  # it is somebody else's
            pass
        else:
            session.delete(account.dn)
    new.take_back()


def disable(session: LdapSession, account: str) -> Account:
    """Disable an account; see `Directory.disable_account`."""
    found = find_account(session, account)
    for last in (False, True):
        entry = single(
            session.search(found.dn, ANY_OBJECT, (CONTROL,), scope=Scope.BASE),
            f"account {found.dn!r}",
        )
        flags = number_of(entry, CONTROL)
        if flags is None:
            raise DirectoryError(
                f"the directory does not show {CONTROL} of {found.dn}: ask as an administrator"
            )
        if flags & DISABLED:
            break
        changes = [  # somebody else may change other flags at the same time
            Change(ChangeOperation.DELETE, CONTROL, [str(flags)]),
            Change(ChangeOperation.ADD, CONTROL, [str(flags | DISABLED)]),
        ]
        try:
            session.modify(found.dn, changes)
            break
        except InsufficientRightsError as error:
            raise without_right(session, error, "disable", found.dn) from None
        except DirectoryError as error:
            if last or error.ldap_result not in (_NO_SUCH_ATTRIBUTE, _VALUE_EXISTS):
                raise
    _log.debug("%s is disabled", found.dn)
    return found


@forget_frames
def delete(session: LdapSession, account: str, keytab: files.FilePath | None = None) -> Account:
    """Delete an account; see `Directory.delete_account`."""
    found = find_account(session, account)
    names, _ = names_of_account(session, found)
    try:
        session.delete(found.dn)
    except InsufficientRightsError as error:
        raise without_right(session, error, "delete", found.dn) from None
    except DirectoryError as error:
        if error.ldap_result != _NOT_ON_NON_LEAF:
            raise
        below = session.search(found.dn, ANY_OBJECT, (), scope=Scope.LEVEL)
        shown = "; ".join(entry.dn for entry in below[:5])
        raise DirectoryError(
            f"{found.dn} cannot be deleted while there are objects below it: {shown}. Remove them "
            "first; those of services with purekrb scp remove",
            code=error.code,
            ldap_result=error.ldap_result,
            diagnostic=error.diagnostic,
        ) from None
    _log.debug("%s is deleted", found.dn)
    path = None if keytab is None else keytab_path(keytab)
    if path is not None and files.exists(path):
        with files.turn_at(path, what="keytab"):
            left = change_keytab(path, lambda old: _without_account(old, names), make=False)
            if not len(left):
                files.remove_private(path, what="keytab", shared=True)
    return found


def _without_account(keytab: Keytab, names: AccountNames) -> Keytab:
    return without(keytab, [entry.key for entry in belonging(keytab, names)])


def _place(session: LdapSession, kind: AccountKind) -> str:
    """Return the DN of the container for new accounts of this kind. Source: MS-ADTS 6.1.1.4."""
    base = f"<WKGUID={kind.container},{session.base_dn}>"
    found = session.search(base, ANY_OBJECT, (), scope=Scope.BASE)
    return single(found, f"container for a new {kind.object_class}").dn


def _check_account_name(name: str, kind: AccountKind) -> None:
    """Raise DirectoryError (code 87) for what cannot name an account of this kind."""
    what = ""
    if not name.removesuffix("$").strip():
        what = "it is empty"
    elif found := _FORBIDDEN.search(name):
        what = f"no name may have {found[0]!r}"
    elif name != name.strip() or name.endswith("."):
        what = "it begins or ends with a blank, or ends with a dot"
    elif len(name) > kind.longest:
        what = f"it has {len(name)} characters, at most {kind.longest} are possible"
    elif not name.isprintable():
        what = "it has characters that cannot be shown"
    elif name.endswith("$") and not kind.suffix:
        what = 'a "$" at the end marks the account of a computer'
    elif name[:4].upper() == "S-1-":
        what = "it looks like a SID"
    elif not name.endswith(kind.suffix):
        what = f"the name of a computer's account ends with {kind.suffix!r}"
    if what:
        raise DirectoryError(
            f"{name!r} cannot be the name of an account (sAMAccountName): {what}",
            code=INVALID_PARAMETER,
        )
