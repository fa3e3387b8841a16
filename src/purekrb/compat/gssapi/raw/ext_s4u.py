"""Acting in a user's name: S4U2Self. Source: MS-SFU 3.1.5.1.1; MIT's gssapi_ext.h."""

from __future__ import annotations

from collections.abc import Iterable

from purekrb.compat.gssapi import _status, _stores
from purekrb.compat.gssapi.raw import creds as raw_creds
from purekrb.compat.gssapi.raw.creds import Creds
from purekrb.compat.gssapi.raw.misc import check_mech
from purekrb.compat.gssapi.raw.named_tuples import AcquireCredResult, AddCredResult
from purekrb.compat.gssapi.raw.names import Name, principal_of
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.credentials.credential import Credential
from purekrb.tracebacks import forget_frames

__all__ = ["acquire_cred_impersonate_name", "add_cred_impersonate_name"]


def acquire_cred_impersonate_name(
    impersonator_cred: Creds,
    name: Name | None,
    lifetime: int | None = None,
    mechs: Iterable[OID] | None = None,
    usage: str = "initiate",
) -> AcquireCredResult:
    """Return a credential in the name of `name`, with which `impersonator_cred` acts.

    The KDC is asked at once. `lifetime` has no effect, as in MIT's library. Contexts with the
    credential use constrained delegation.
    """
    return raw_creds.acquired(_impersonating(impersonator_cred, name, mechs, usage))


def add_cred_impersonate_name(
    input_cred: Creds,
    impersonator_cred: Creds,
    name: Name,
    mech: OID,
    usage: str = "initiate",
    init_lifetime: int | None = None,
    accept_lifetime: int | None = None,
) -> AddCredResult:
    """Return `input_cred` with the credential of `acquire_cred_impersonate_name` added."""
    return raw_creds.added(input_cred, _impersonating(impersonator_cred, name, [mech], usage))


@forget_frames
@_status.as_gss_errors
def _impersonating(
    impersonator: Creds, name: Name | None, mechs: Iterable[OID] | None, usage: str
) -> Creds:
    if usage != "initiate":
        raise ValueError(
            f'one initiates in the name of another: usage is "initiate", not {usage!r}'
        )
    if name is None:
        raise ValueError("name whom to act for")
    chosen = None if mechs is None else tuple(mechs)
    for mech in chosen or ():
        check_mech(mech)
    service = raw_creds.credential_of(raw_creds.filled(impersonator, "initiate"))
    ticket = _stores.client().impersonate(service, principal_of(name))
    creds = raw_creds.from_credential(Credential.on_behalf_of(service, ticket))
    if chosen is not None:
        creds._mechs = chosen
    return creds
