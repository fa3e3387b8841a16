"""Joining a computer to the domain: its account, its names and its keytab.

A new account is created. One that was prepared for this computer, and never used, gets a new
password: by whoever may reset it, or by the computer itself with the one-time password that it was
prepared with. One that is in use is only taken over if the caller says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from purekrb.credentials import files
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import keytab_path
from purekrb.directory import service_accounts
from purekrb.directory import spns as account_spns
from purekrb.directory.account_state import etype_finding, read_state, suspects_rc4
from purekrb.directory.accounts import (
    ACCOUNT_ATTRIBUTES,
    AES_BITS,
    ETYPES,
    Account,
    account_of,
    find_account,
    find_caller,
    number_of,
)
from purekrb.directory.ldap import (
    INVALID_PARAMETER,
    Change,
    ChangeOperation,
    Entry,
    LdapSession,
    Scope,
    single,
)
from purekrb.directory.rotation import WRITABLE, names_of_account, rotate
from purekrb.directory.service_accounts import COMPUTER, CONTROL, DISABLED, ServiceAccount
from purekrb.directory.windows_errors import USER_EXISTS
from purekrb.errors import (
    AccountNotFoundError,
    CredentialError,
    DecodeError,
    DirectoryError,
    PreauthFailedError,
)
from purekrb.kdc.client import KdcClient
from purekrb.log import Log
from purekrb.spn import ServicePrincipalName
from purekrb.system import local_fqdn
from purekrb.tracebacks import forget_frames

__all__ = ["join"]

_log = Log("purekrb.directory")

_DNS_NAME, _LAST_LOGON = "dNSHostName", "lastLogonTimestamp"
_READ = (
    *ACCOUNT_ATTRIBUTES,
    _DNS_NAME,
    ETYPES,
    CONTROL,
    WRITABLE,
    _LAST_LOGON,
)
_IS_COMPUTER = "(objectClass=computer)"
#: The longest NetBIOS name. Source: MS-NBTE 2.2.1.
_LONGEST_NETBIOS = 15
#: The classes of the names that a joining Windows computer registers.
_CLASSES = ("HOST", "RestrictedKrbHost")


@forget_frames
def join(
    session: LdapSession,
    forest: LdapSession,
    kdc: KdcClient,
    credential: Credential,
    name: str,
    keytab: files.FilePath | None,
    *,
    dns_name: str = "",
    spns: Sequence[str] = (),
    parent: str = "",
    owner: str = "",
    reuse: bool = False,
) -> ServiceAccount:
    """Join a computer; see `Directory.join_computer`."""
    if isinstance(spns, str):
        raise TypeError("spns is a sequence of service principal names, not one string")
    host = (dns_name or name or local_fqdn()).rstrip(".").removesuffix("$")
    short = (name or host).partition(".")[0].removesuffix("$").upper()
    full = dns_name or (host if "." in host else f"{host}.{session.domain}").lower()
    if not name and len(short) > _LONGEST_NETBIOS:
        raise DirectoryError(
            f"{short!r}, the name of this host, has more than the {_LONGEST_NETBIOS} characters that "
            "the name of a computer's account may have: choose a name",
            code=INVALID_PARAMETER,
        )
    names = [f"{service}/{one}" for service in _CLASSES for one in (short, full)]
    for spn in spns:
        ServicePrincipalName.parse(spn)
        if spn.casefold() not in map(str.casefold, names):
            names.append(spn)
    account_name = f"{short}$"
    entry = _existing(session, account_name)
    if entry is None:
        return service_accounts.create(
            session,
            forest,
            kdc,
            account_name,
            keytab,
            kind=COMPUTER,
            spns=names,
            parent=parent,
            attributes={_DNS_NAME: [full]},
            owner=owner,
        )
    path = keytab_path(keytab)
    account = account_of(entry)
    itself = find_caller(session).sid == account.sid  # with its one-time password
    if not (reuse or itself or _may_be_taken(session, kdc, account, entry, path)):
        since = entry.text(_DNS_NAME) or ", ".join(account.spns) or account.dn
        raise DirectoryError(
            f"there is a computer {account_name} already, and it is in use: {since}. If it is this "
            "one, or is gone, take its account over (reuse=True; purekrb account join --reuse); "
            "the other one can then log in no more",
            code=USER_EXISTS,
        )
    account_spns.check_unique(session, forest, account, names)
    changes = _changes(account, entry, full, names)
    if itself and ETYPES not in entry.texts(WRITABLE):
        # A prepared account that may not write it is to join all the same.
        changes = [change for change in changes if change.attribute != ETYPES]
        if suspects_rc4(state := read_state(session, account)):
            _log.warning("%s", etype_finding(state))
    done = rotate(session, kdc, credential, account.dn, path, changes=changes)
    if owner:
        files.give(path, owner, what="keytab")
    return ServiceAccount(done.account, done.keytab, done.kvno, done.principals)


def _existing(session: LdapSession, name: str) -> Entry | None:
    """Return the computer's object; None if there is no account of this name."""
    try:
        account = find_account(session, name)
    except AccountNotFoundError:
        return None
    found = session.search(account.dn, _IS_COMPUTER, _READ, scope=Scope.BASE)
    if not found:
        raise DirectoryError(
            f"{account.dn} has the name {name}, and is no computer: choose another name",
            code=USER_EXISTS,
        )
    return single(found, f"computer {name!r}")


def _may_be_taken(
    session: LdapSession, kdc: KdcClient, account: Account, entry: Entry, path: str
) -> bool:
    """Whether the account is this computer's, or was prepared and never used."""
    if not (entry.text(_LAST_LOGON) or account.spns):
        return True
    names, _ = names_of_account(session, account)
    try:
        kdc.get_tgt(Credential.from_keytab(names.own, path))
    except (CredentialError, DecodeError, PreauthFailedError):
        return False
    return True  # an earlier attempt, or another join of the same host


def _changes(account: Account, entry: Entry, full: str, names: Sequence[str]) -> list[Change]:
    """Return what gives the account its DNS name, the names that it lacks, and AES; and enables it."""
    changes: list[Change] = []

    def write(attribute: str, value: str) -> None:
        changes.append(Change(ChangeOperation.REPLACE, attribute, [value]))

    if entry.text(_DNS_NAME).casefold() != full.casefold():
        write(_DNS_NAME, full)
    known = {spn.casefold() for spn in account.spns}
    missing = [spn for spn in names if spn.casefold() not in known]
    if missing:
        changes.append(Change(ChangeOperation.ADD, "servicePrincipalName", missing))
    bits = number_of(entry, ETYPES) or 0
    if not bits & AES_BITS:
        write(ETYPES, str(bits | AES_BITS))
    flags = number_of(entry, CONTROL) or 0
    if flags & DISABLED:
        write(CONTROL, str(flags & ~DISABLED))
    return changes
