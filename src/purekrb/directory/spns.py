"""The service principal names that accounts have in the directory.

Source: DsWriteAccountSpn and MS-DRSR 4.1.28, which say the same in terms of LDAP.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from enum import IntEnum

from purekrb.directory.accounts import ACCOUNT_ATTRIBUTES, Account, account_of, find_account
from purekrb.directory.ldap import (
    CONTROL_CHARACTERS,
    INVALID_PARAMETER,
    Change,
    ChangeOperation,
    LdapSession,
    equals,
)
from purekrb.errors import DirectoryError
from purekrb.spn import ServicePrincipalName

__all__ = ["SpnOperation", "find", "write"]

_log = logging.getLogger("purekrb.directory")

_INVALID_FUNCTION = 1


class SpnOperation(IntEnum):
    """What `write_account_spn` does: DS_SPN_WRITE_OP."""

    ADD = 0
    REPLACE = 1
    DELETE = 2


def write(session: LdapSession, operation: SpnOperation | int, account: str, spns: Sequence[str]) -> None:
    """Change the service principal names of `account`; see `Directory.write_account_spn`."""
    if isinstance(spns, str):
        raise TypeError("spns is a sequence of service principal names, not one string")
    if not account or CONTROL_CHARACTERS.search(account):
        raise DirectoryError(
            f"account {account!r} is empty or has control characters: give its DN or its name",
            code=INVALID_PARAMETER,
        )
    try:
        operation = SpnOperation(operation)
    except ValueError:
        raise DirectoryError(
            f"SPN operation {operation!r} is unknown: use a member of SpnOperation", code=_INVALID_FUNCTION
        ) from None
    if not spns and operation is not SpnOperation.REPLACE:
        raise DirectoryError(f"there is no SPN to {operation.name}: name at least one", code=INVALID_PARAMETER)
    for spn in spns:
        # What somebody stored by other means must be deletable, however odd.
        ServicePrincipalName.parse(spn, strict=operation is not SpnOperation.DELETE)
    found = find_account(session, account)
    _log.debug("%s service principal names of %s: %s", operation.name, found.dn, ", ".join(spns) or "all")
    session.modify(found.dn, [Change(ChangeOperation[operation.name], "servicePrincipalName", spns)], permissive=True)


def find(session: LdapSession, spn: str) -> list[Account]:
    """Return the accounts that have `spn`; see `Directory.find_spn`."""
    ServicePrincipalName.parse(spn, strict=False)
    found = session.search(session.base_dn, equals("servicePrincipalName", spn), ACCOUNT_ATTRIBUTES)
    return sorted(map(account_of, found), key=lambda account: account.dn)
