"""The accounts of a domain: users and computers, and their service principal names."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from purekrb.directory.ldap import Entry, LdapSession, Scope, equals, object_guid, single
from purekrb.sid import Sid

__all__ = ["ACCOUNT_ATTRIBUTES", "Account", "account_of", "find_account", "find_computer"]

#: What `account_of` needs of an entry.
ACCOUNT_ATTRIBUTES = ("sAMAccountName", "servicePrincipalName", "objectGUID", "objectSid")


@dataclass(frozen=True, slots=True)
class Account:
    """A user or computer account: its DN, its sAMAccountName and its service principal names.

    `object_guid` stays the same when the account is moved or renamed; `sid` is how access control names it.
    """

    dn: str
    name: str
    spns: tuple[str, ...]
    object_guid: UUID
    sid: Sid


def account_of(entry: Entry) -> Account:
    """Return the account that `entry` describes. Raises DirectoryError or DecodeError for what is none."""
    return Account(
        dn=entry.dn,
        name=entry.text("sAMAccountName"),
        spns=entry.texts("servicePrincipalName"),
        object_guid=object_guid(entry),
        sid=Sid.decode(b"".join(entry.attributes["objectSid"])),
    )


def find_account(session: LdapSession, account: str) -> Account:
    """Return the account that a DN, a sAMAccountName (`WEB$`, `alice`) or a userPrincipalName names.

    Raises DirectoryError, with code 8333 where there is none.
    """
    if "=" in account:
        found = session.search(account, "(objectClass=user)", ACCOUNT_ATTRIBUTES, scope=Scope.BASE)
    else:
        attribute = "userPrincipalName" if "@" in account else "sAMAccountName"
        found = session.search(
            session.base_dn, f"(&(objectClass=user){equals(attribute, account)})", ACCOUNT_ATTRIBUTES
        )
    return account_of(single(found, f"account {account!r}"))


def find_computer(session: LdapSession, host: str) -> Entry:
    """Return the computer object whose DNS name or sAMAccountName is `host`, without attributes.

    Raises DirectoryError, with code 8333 where there is none.
    """
    names = equals("dNSHostName", host) + equals("sAMAccountName", host)
    return single(
        session.search(session.base_dn, f"(&(objectClass=computer)(|{names}))"), f"computer object of {host!r}"
    )
