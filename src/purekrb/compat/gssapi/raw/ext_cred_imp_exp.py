"""Exported credentials.

    "purekrb credential" | version (1) | JSON

A credential in a file is exported as the file's name. One in memory is exported with its tickets
and their session keys in clear, as MIT's is: hand the token only to whom may act in this name.
"""

from __future__ import annotations

import json
from contextlib import suppress

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status, _stores
from purekrb.compat.gssapi.raw import creds as raw
from purekrb.compat.gssapi.raw.creds import Creds
from purekrb.compat.gssapi.raw.names import export_name, import_name, mech_name, principal_of
from purekrb.compat.gssapi.raw.types import NameType
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.errors import KerberosError
from purekrb.names import Principal
from purekrb.tracebacks import forget_frames

__all__ = ["export_cred", "import_cred"]

_HEAD = b"purekrb credential\x01"


@forget_frames
@_status.as_gss_errors
def export_cred(creds: Creds) -> bytes:
    """Return the token of a credential; a password or key is replaced by the tickets it gives."""
    creds = raw.filled(creds, "initiate")
    tickets = None
    if creds._credential is not None:
        if creds._credential.can_get_tgt and not len(creds._credential.ccache):
            _stores.client().get_tgt(creds._credential)
        tickets = creds._credential.with_impersonator().encode().hex()
    accepts = creds._accepts
    fields = {
        "usage": creds._usage,
        "principal": None if creds._principal is None else str(creds._principal),
        "ccache": creds._ccache_name,
        "tickets": tickets,
        "keytab": creds._keytab_name,
        "accepts": None if accepts is None else export_name(mech_name(principal_of(accepts))).hex(),
        "rcache": creds._rcache_name,
    }
    return _HEAD + json.dumps(fields).encode()


@forget_frames
def import_cred(token: bytes) -> Creds:
    """Return the credential that `export_cred` has exported. Raises InvalidTokenError."""
    with suppress(ValueError, TypeError, KeyError, AttributeError, KerberosError):
        if token.startswith(_HEAD):
            return _imported(json.loads(token[len(_HEAD) :]))
    # Raised outside of the `with`: the other error, which would be its context, may quote a key.
    raise _status.status(
        codes.DEFECTIVE_TOKEN, 0, "this is not a credential that this version has exported"
    )


def _imported(fields: dict[str, str | None]) -> Creds:
    creds = Creds()
    usage = fields["usage"]
    if usage not in raw.USAGES:
        raise ValueError
    creds._usage = usage
    creds._principal = None if fields["principal"] is None else Principal.parse(fields["principal"])
    creds._ccache_name = fields["ccache"]
    if fields["tickets"] is not None:
        creds._credential = Credential.from_ccache(CCache.decode(bytes.fromhex(fields["tickets"])))
    creds._keytab_name = fields["keytab"]
    if fields["accepts"] is not None:
        creds._accepts = import_name(bytes.fromhex(fields["accepts"]), NameType.export)
    creds._rcache_name = fields["rcache"]
    return creds
