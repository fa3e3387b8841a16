"""Acting in a user's name: S4U2Self. Source: MS-SFU 3.1.5.1.1."""

from __future__ import annotations

from collections.abc import Iterable

from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw.creds import Creds
from purekrb.compat.gssapi.raw.named_tuples import AcquireCredResult, AddCredResult
from purekrb.compat.gssapi.raw.names import Name
from purekrb.compat.gssapi.raw.oids import OID

__all__ = ["acquire_cred_impersonate_name", "add_cred_impersonate_name"]


def acquire_cred_impersonate_name(
    impersonator_cred: Creds,
    name: Name | None,
    lifetime: int | None = None,
    mechs: Iterable[OID] | None = None,
    usage: str = "initiate",
) -> AcquireCredResult:
    """Raise OperationUnavailableError."""
    raise _status.unavailable("acquire_cred_impersonate_name", _WHY)


def add_cred_impersonate_name(
    input_cred: Creds,
    impersonator_cred: Creds,
    name: Name,
    mech: OID,
    usage: str = "initiate",
    init_lifetime: int | None = None,
    accept_lifetime: int | None = None,
) -> AddCredResult:
    """Raise OperationUnavailableError."""
    raise _status.unavailable("add_cred_impersonate_name", _WHY)


_WHY = "there is no S4U2Self here yet"
