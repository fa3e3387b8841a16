"""Credentials of a password."""

from __future__ import annotations

from collections.abc import Iterable

from purekrb.compat.gssapi import _status, _stores
from purekrb.compat.gssapi.raw import creds as raw
from purekrb.compat.gssapi.raw.misc import check_mech
from purekrb.compat.gssapi.raw.named_tuples import AcquireCredResult
from purekrb.compat.gssapi.raw.names import Name, principal_of
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.credentials.credential import Credential
from purekrb.tracebacks import forget_frames

__all__ = ["acquire_cred_with_password"]


@forget_frames
def acquire_cred_with_password(
    name: Name,
    password: bytes,
    lifetime: int | None = None,
    mechs: Iterable[OID] | None = None,
    usage: str = "initiate",
) -> AcquireCredResult:
    """Return the credential of `name` with its password, which the KDC has confirmed.

    Its tickets stay in memory.
    """
    return raw.acquired(with_password(name, password, mechs, usage))


@forget_frames
@_status.as_gss_errors
def with_password(
    name: Name, password: bytes, mechs: Iterable[OID] | None, usage: str
) -> raw.Creds:
    """Return the credential of a password."""
    if usage != "initiate":
        raise _status.unavailable(
            "acquire_cred_with_password", "a password serves to initiate alone"
        )
    mechs = None if mechs is None else tuple(mechs)
    for mech in mechs or ():
        check_mech(mech)
    credential = Credential.from_password(principal_of(name), password)
    _stores.client().get_tgt(credential)
    creds = raw.from_credential(credential)
    if mechs is not None:
        creds._mechs = mechs
    return creds
