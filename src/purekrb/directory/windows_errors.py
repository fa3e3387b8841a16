"""Windows' error numbers in the diagnostic texts of a domain controller, in words.

A text begins with the number in eight hexadecimal digits. Samba writes the same numbers. They tell
the reason where LDAP's result code covers several. Source: MS-ERREF 2.2.
"""

from __future__ import annotations

import re

__all__ = ["ACCESS_DENIED", "PASSWORD_RESTRICTION", "USER_EXISTS", "WINDOWS_ERRORS", "number_in"]

ACCESS_DENIED = 5
USER_EXISTS = 1316
PASSWORD_RESTRICTION = 1325
_NUMBER = re.compile(r"([0-9A-Fa-f]{8}): ")

#: Number -> its name, and what it says and advises.
WINDOWS_ERRORS = {
    ACCESS_DENIED: (
        "ERROR_ACCESS_DENIED",
        "the bound account may not do this: ask an administrator for the right, or to do it",
    ),
    86: (
        "ERROR_INVALID_PASSWORD",
        "the old password is not the account's: it was changed elsewhere, or is mistyped",
    ),
    USER_EXISTS: (
        "ERROR_USER_EXISTS",
        "the domain has an account of this name already: choose another name, or remove it first",
    ),
    1317: ("ERROR_NO_SUCH_USER", "the domain has no such account: check the name"),
    PASSWORD_RESTRICTION: (
        "ERROR_PASSWORD_RESTRICTION",
        "the domain's password policy refuses it: it is too short, too simple, was used before, or "
        "the last one is too new (minimum password age)",
    ),
    8213: (
        "ERROR_DS_CANT_ON_NON_LEAF",
        "there are objects below this one: remove them first",
    ),
    8344: (
        "ERROR_DS_INSUFF_ACCESS_RIGHTS",
        "the bound account may not do this: ask an administrator for the right, or to do it",
    ),
    8557: (
        "ERROR_DS_MACHINE_ACCOUNT_QUOTA_EXCEEDED",
        "the bound account has created as many computers as one may: ask an administrator for the "
        "right to create them in this place",
    ),
    8648: (
        "ERROR_DS_UPN_VALUE_NOT_UNIQUE_IN_FOREST",
        "another account of the forest has this user principal name: choose another one",
    ),
}


def number_in(diagnostic: str) -> int:
    """Return the error number at the start of a diagnostic text; 0 without one."""
    found = _NUMBER.match(diagnostic)
    return int(found[1], 16) if found else 0
