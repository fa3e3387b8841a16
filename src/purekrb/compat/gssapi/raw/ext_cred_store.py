"""Credential stores. Source: MIT's documentation of gss_acquire_cred_from and its keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status, _stores
from purekrb.compat.gssapi._utils import decoded_store
from purekrb.compat.gssapi.raw import creds as raw
from purekrb.compat.gssapi.raw.creds import Creds
from purekrb.compat.gssapi.raw.misc import check_mech
from purekrb.compat.gssapi.raw.named_tuples import (
    AcquireCredResult,
    AddCredResult,
    StoreCredResult,
)
from purekrb.compat.gssapi.raw.names import Name
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import MechType
from purekrb.credentials.ccache import CCache
from purekrb.errors import CredentialError
from purekrb.tracebacks import forget_frames

__all__ = ["acquire_cred_from", "add_cred_from", "store_cred_into"]

Store = Mapping[str | bytes, str | bytes]


@forget_frames
def acquire_cred_from(
    dict_store: Store | None = None,
    name: Name | None = None,
    lifetime: int | None = None,
    mechs: Iterable[OID] | None = None,
    usage: str = "both",
) -> AcquireCredResult:
    """Return the credential of `name` in a store.

    The keys of the store are `ccache`, `client_keytab`, `keytab`, `password` and `rcache`; what is
    not there comes from the default place.
    """
    return raw.acquired(raw.acquire(decoded_store(dict_store), name, mechs, usage))


@forget_frames
def add_cred_from(
    dict_store: Store | None,
    input_creds: Creds,
    name: Name,
    mech: OID,
    usage: str = "both",
    init_lifetime: int | None = None,
    accept_lifetime: int | None = None,
) -> AddCredResult:
    """Return `input_creds` with the credential of `name` in a store added."""
    return raw.added(input_creds, raw.acquire(decoded_store(dict_store), name, [mech], usage))


@_status.as_gss_errors
def store_cred_into(
    dict_store: Store | None,
    creds: Creds,
    usage: str = "both",
    mech: OID | None = None,
    overwrite: bool = False,
    set_default: bool = False,
) -> StoreCredResult:
    """Write the tickets of `creds` to the credential cache that a store names as `ccache`.

    Raises DuplicateCredentialsElementError if there are tickets already and `overwrite` is false.
    Keys are not stored.
    """
    check_mech(mech)
    creds = raw.filled(creds, "initiate")
    if usage == "accept" or creds._usage == "accept":
        raise _status.unavailable("store_cred", "keys to accept with are not stored, only tickets")
    credential = raw.credential_of(creds)
    if credential.can_get_tgt and not len(credential.ccache):
        _stores.client().get_tgt(credential)
    name = decoded_store(dict_store).get("ccache") or _stores.default_ccache_name()
    if not overwrite and _exists(name):
        raise _status.status(
            codes.DUPLICATE_ELEMENT, 0, f"{name} has tickets already: pass overwrite=True"
        )
    credential.save(name)
    return StoreCredResult([MechType.kerberos], "initiate")


def _exists(name: str) -> bool:
    try:
        CCache.load(name)
    except CredentialError:
        return False
    return True
