"""Credentials of a password, added to others."""

from __future__ import annotations

from purekrb.compat.gssapi.raw import creds as raw
from purekrb.compat.gssapi.raw.ext_password import with_password
from purekrb.compat.gssapi.raw.named_tuples import AddCredResult
from purekrb.compat.gssapi.raw.names import Name
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.tracebacks import forget_frames

__all__ = ["add_cred_with_password"]


@forget_frames
def add_cred_with_password(
    input_cred: raw.Creds,
    name: Name,
    mech: OID,
    password: bytes,
    usage: str = "initiate",
    init_lifetime: int | None = None,
    accept_lifetime: int | None = None,
) -> AddCredResult:
    """Return `input_cred` with the credential of `name` and its password added."""
    return raw.added(input_cred, with_password(name, password, [mech], usage))
