"""Accounts of a domain: users and computers, and their service principal names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from purekrb.directory.ldap import (
    ANY_OBJECT,
    INVALID_PARAMETER,
    Entry,
    LdapSession,
    Scope,
    any_equals,
    equals,
    object_guid,
    single,
)
from purekrb.directory.patterns import CONTROL_CHARACTERS
from purekrb.errors import AccountNotFoundError, DecodeError, DirectoryError
from purekrb.sid import Sid

__all__ = [
    "ACCOUNT_ATTRIBUTES",
    "AES_BITS",
    "ETYPES",
    "KVNO",
    "Account",
    "account_by_guid",
    "account_of",
    "check_name",
    "find_account",
    "find_caller",
    "find_computer",
    "number_of",
]

#: The attributes that `account_of` needs.
ACCOUNT_ATTRIBUTES = ("sAMAccountName", "servicePrincipalName", "objectGUID", "objectSid")
_NO_SUCH_DOMAIN = 1355
KVNO, ETYPES = "msDS-KeyVersionNumber", "msDS-SupportedEncryptionTypes"
#: AES128 and AES256 with SHA-1 in msDS-SupportedEncryptionTypes. Source: MS-KILE 2.2.7.
AES_BITS = 0x18
#: What names a computer; the second has the aliases. Source: MS-ADA2 2.226.
_HOST_NAMES = ("dNSHostName", "msDS-AdditionalDnsHostName", "sAMAccountName")
_NUMBER = re.compile(r"-?[0-9]{1,10}")
_IS_ACCOUNT = "(objectClass=user)"  # a computer is a user, too


@dataclass(frozen=True, slots=True)
class Account:
    """A user or computer account: its DN, its sAMAccountName and its service principal names.

    `object_guid` stays the same when the account is moved or renamed. Access control names the
    account by its `sid`.
    """

    dn: str
    name: str
    spns: tuple[str, ...]
    object_guid: UUID
    sid: Sid


def account_of(entry: Entry) -> Account:
    """Return the account that `entry` describes. Raises DirectoryError if it is not an account."""
    return Account(
        dn=entry.dn,
        name=entry.text("sAMAccountName"),
        spns=entry.texts("servicePrincipalName"),
        object_guid=object_guid(entry),
        sid=_object_sid(entry),
    )


def _object_sid(entry: Entry) -> Sid:
    try:
        return Sid.decode(b"".join(entry.attributes["objectSid"]))
    except DecodeError as error:
        raise DirectoryError(
            f"the object {entry.dn!r} is not usable: its objectSid is not a SID ({error})"
        ) from None


def check_name(account: str) -> None:
    """Raise DirectoryError (code 87) for text that cannot name an account."""
    if not account or CONTROL_CHARACTERS.search(account):
        raise DirectoryError(
            f"account {account!r} is empty or has control characters: give a DN or a name",
            code=INVALID_PARAMETER,
        )


def find_account(session: LdapSession, account: str, *, classes: str = _IS_ACCOUNT) -> Account:
    r"""Return the account that `account` names.

    `account` is a DN, a SID (`S-1-5-...`), a sAMAccountName (`WEB$`, `alice`), a sAMAccountName
    with its domain (`EXAMPLE\alice`), or a user principal name (`alice@example.test`). `classes` is
    the filter for its object class. Raises AccountNotFoundError if there is no such account, and
    DirectoryError with code 87 for text that names nothing, or with code 1355 for the name of
    another domain.
    """
    check_name(account)
    what = f"account {account!r}"
    if "=" in account:
        found = session.search(account, classes, ACCOUNT_ATTRIBUTES, scope=Scope.BASE)
        return account_of(single(found, what, AccountNotFoundError))
    if account[:4].upper() == "S-1-":
        return _search(session, equals("objectSid", Sid.parse(account).encode()), what, classes)
    domain, backslash, name = account.rpartition("\\")
    if backslash:
        _check_domain(session, domain, account)
        return _search(session, equals("sAMAccountName", name), what, classes)
    if "@" in account:
        return _find_user_principal(session, account, what)
    return _search(session, equals("sAMAccountName", account), what, classes)


def account_by_guid(session: LdapSession, guid: UUID) -> Account | None:
    """Return the account with this objectGUID, whatever its name is now; None if it is gone."""
    found = session.search(
        session.base_dn,
        f"(&{_IS_ACCOUNT}{equals('objectGUID', guid.bytes_le)})",
        ACCOUNT_ATTRIBUTES,
    )
    return account_of(single(found, f"account with the objectGUID {guid}")) if found else None


def find_caller(session: LdapSession) -> Account:
    """Return the account that the session is bound as.

    Raises DirectoryError if the directory does not say.
    """
    # Samba does not have "Who am I?" (RFC 4532). tokenGroups holds the SIDs of the caller and of
    # its groups, in no particular order; only one of them belongs to an account.
    root = session.search("", ANY_OBJECT, ("tokenGroups",), scope=Scope.BASE)
    sids = root[0].attributes["tokenGroups"] if root else ()
    if not sids:
        raise DirectoryError("the directory does not say which account is bound: name the account")
    return _search(session, any_equals("objectSid", sids), "account that is bound")


def find_computer(session: LdapSession, host: str) -> Entry:
    """Return the computer object whose DNS name, further DNS name or sAMAccountName is `host`.

    The entry has dNSHostName and sAMAccountName. If nothing matches, a computer with the NetBIOS
    name of `host` is taken, provided that it has no DNS name. Raises DirectoryError, with code 8333
    if there is no such computer.
    """
    names = "".join(equals(name, host) for name in _HOST_NAMES)
    found = session.search(
        session.base_dn, f"(&(objectClass=computer)(|{names}))", ("dNSHostName", "sAMAccountName")
    )
    if not found:
        netbios = equals("sAMAccountName", f"{host.partition('.')[0][:15]}$")
        unnamed = f"(&(objectClass=computer)(!(dNSHostName=*)){netbios})"
        found = session.search(session.base_dn, unnamed, ("dNSHostName", "sAMAccountName"))
    return single(found, f"computer object of {host!r}")


def number_of(entry: Entry, name: str) -> int | None:
    """Return the number in an attribute, or None if it is absent. Raises DirectoryError."""
    text = entry.text(name)
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise DirectoryError(
            f"{name} of {entry.dn!r} is {text[:50]!r}, expected a number of 32 bits"
        )
    return int(text)


def _search(session: LdapSession, name: str, what: str, classes: str = _IS_ACCOUNT) -> Account:
    found = session.search(session.base_dn, f"(&{classes}{name})", ACCOUNT_ATTRIBUTES)
    return account_of(single(found, what, AccountNotFoundError))


def _find_user_principal(session: LdapSession, account: str, what: str) -> Account:
    try:
        return _search(session, equals("userPrincipalName", account), what)
    except AccountNotFoundError:
        # Each account also has the implicit name sAMAccountName@domain. Source: MS-ADTS 5.1.1.1.1.
        name, _, domain = account.rpartition("@")
        if domain.casefold() != session.domain.casefold():
            raise
        return _search(session, equals("sAMAccountName", name), what)


def _check_domain(session: LdapSession, domain: str, account: str) -> None:
    """Raise DirectoryError unless `domain` is the NetBIOS or DNS name of the session's domain."""
    if domain == ".":
        raise DirectoryError(
            f"account {account!r} is local to one machine, so no domain knows it: "
            "mutual authentication needs a domain account",
            code=_NO_SUCH_DOMAIN,
        )
    configuration = session.root_dse.text("configurationNamingContext")
    names = f"(|{equals('nETBIOSName', domain)}{equals('dnsRoot', domain)})"
    found = session.search(
        f"CN=Partitions,{configuration}",
        f"(&(objectClass=crossRef){equals('nCName', session.base_dn)}{names})",
    )
    if not found:
        raise DirectoryError(
            f"account {account!r} is not in the domain {session.domain}: "
            "connect to a domain controller of its own domain",
            code=_NO_SUCH_DOMAIN,
        )
