"""Which right an operation on an account needs, and the commands that grant it.

Source: MS-ADTS 5.1.3.2 (rights), MS-ADA1 to MS-ADA3 (schemaIDGUIDs).
"""

from __future__ import annotations

import shlex
from typing import NamedTuple

from purekrb.directory.accounts import find_caller
from purekrb.directory.ldap import LdapSession
from purekrb.directory.windows_errors import WINDOWS_ERRORS
from purekrb.errors import InsufficientRightsError, KerberosError
from purekrb.text import visible

__all__ = ["RIGHTS", "WRITING", "Right", "without_right"]


class Right(NamedTuple):
    """A right in words, as dsacls writes it, and as an ACE of SDDL without the trustee."""

    what: str
    dsacls: str
    sddl: str


RIGHTS = {
    "create user": Right(
        "create users in it", "CC;user", "OA;CI;CC;bf967aba-0de6-11d0-a285-00aa003049e2;"
    ),
    "create computer": Right(
        "create computers in it", "CC;computer", "OA;CI;CC;bf967a86-0de6-11d0-a285-00aa003049e2;"
    ),
    "create SCP": Right(
        "create service connection points below it",
        "CC;serviceConnectionPoint",
        "OA;CI;CC;28630ec1-41d5-11d1-a9c1-0000f80367c1;",
    ),
    "create managed account": Right(
        "create group managed service accounts in it",
        "CC;msDS-GroupManagedServiceAccount",
        "OA;CI;CC;7b8b558a-93a5-4af7-adca-c017e67f1057;",
    ),
    "reset password": Right(
        "reset its password",
        "CA;Reset Password",
        "OA;;CR;00299570-246d-11d0-a768-00aa006e0529;",
    ),
    "change password": Right(
        "change its own password",
        "CA;Change Password",
        "OA;;CR;ab721a53-1e2f-11d0-9819-00aa0040529b;",
    ),
    "name computer": Right(
        "write its dNSHostName",
        "WP;dNSHostName",
        "OA;;WP;72e39547-7b18-11d1-adef-00c04fd8d5cd;",
    ),
    "write spns": Right(
        "write its servicePrincipalName",
        "WP;servicePrincipalName",
        "OA;;WP;f3a64788-5306-11d1-a9c5-0000f80367c1;",
    ),
    "set etypes": Right(
        "set its msDS-SupportedEncryptionTypes",
        "WP;msDS-SupportedEncryptionTypes",
        "OA;;WP;20119867-1d04-4ab7-9371-cfc3d5df0afd;",
    ),
    "disable": Right(
        "write its userAccountControl",
        "WP;userAccountControl",
        "OA;;WP;bf967a68-0de6-11d0-a285-00aa003049e2;",
    ),
    "delete": Right("delete it", "SD", "A;;SD;;"),
}

#: Attribute -> the right to write it.
WRITING = {
    "dNSHostName": "name computer",
    "servicePrincipalName": "write spns",
    "msDS-SupportedEncryptionTypes": "set etypes",
    "userAccountControl": "disable",
}


def without_right(
    session: LdapSession, error: InsufficientRightsError, right: str, dn: str
) -> InsufficientRightsError:
    """Return the error that says which right on `dn` the bound account lacks, and who grants it."""
    name, commands = how_to_grant(session, right, dn)
    return InsufficientRightsError(
        f"{name} may not {RIGHTS[right].what}: {dn}. Have an administrator do it, or grant that "
        f"right: {commands} ({error.code:08X} {WINDOWS_ERRORS[error.code][0]})",
        code=error.code,
        ldap_result=error.ldap_result,
        diagnostic=error.diagnostic,
    )


def how_to_grant(session: LdapSession, right: str, dn: str) -> tuple[str, str]:
    """Return the name of the bound account, and the commands that give it the right on `dn`."""
    try:
        caller = find_caller(session)
        name, sid = caller.name, str(caller.sid)
    except KerberosError:
        name, sid = "ACCOUNT", "SID"
    _, dsacls, sddl = RIGHTS[right]
    grant = f"{name}@{session.domain}:{dsacls}"
    ace = _typed(f"({sddl};{sid})")
    return name, (
        f"on Windows dsacls {_typed_on_windows(dn)} /G {_typed_on_windows(grant)}, on Samba "
        f"samba-tool dsacl set --objectdn={_typed(dn)} --sddl={ace}"
    )


def _typed_on_windows(text: str) -> str:
    """Return text as one word of cmd, which knows no single quotes, and of PowerShell."""
    return '"{}"'.format(visible(text).replace('"', '\\"'))


def _typed(text: str) -> str:
    """Return text as one word of a shell."""
    return shlex.quote(visible(text))
