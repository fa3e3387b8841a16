"""The accounts of a domain: users and computers, and their service principal names."""

from __future__ import annotations

from dataclasses import dataclass

from purekrb.directory.ldap import Entry, LdapSession, Scope, equals, single

__all__ = ["ACCOUNT_ATTRIBUTES", "Account", "account_of", "find_account", "find_computer"]

#: What `account_of` needs of an entry.
ACCOUNT_ATTRIBUTES = ("sAMAccountName", "servicePrincipalName")


@dataclass(frozen=True, slots=True)
class Account:
    """A user or computer account: its DN, its sAMAccountName and its service principal names."""

    dn: str
    name: str
    spns: tuple[str, ...]


def account_of(entry: Entry) -> Account:
    """Return the account that `entry` describes."""
    return Account(entry.dn, entry.text("sAMAccountName"), entry.texts("servicePrincipalName"))


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
