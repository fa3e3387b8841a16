"""Storing credentials in the default place. Source: RFC 5588."""

from __future__ import annotations

from purekrb.compat.gssapi.raw.creds import Creds
from purekrb.compat.gssapi.raw.ext_cred_store import store_cred_into
from purekrb.compat.gssapi.raw.named_tuples import StoreCredResult
from purekrb.compat.gssapi.raw.oids import OID

__all__ = ["store_cred"]


def store_cred(
    creds: Creds,
    usage: str = "both",
    mech: OID | None = None,
    overwrite: bool = False,
    set_default: bool = False,
) -> StoreCredResult:
    """Write the tickets of `creds` to the default credential cache."""
    return store_cred_into(None, creds, usage, mech, overwrite, set_default)
