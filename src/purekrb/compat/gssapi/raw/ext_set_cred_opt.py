"""Options of credentials by OID. Source: MIT's gssapi_ext.h."""

from __future__ import annotations

from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw.creds import Creds
from purekrb.compat.gssapi.raw.oids import OID

__all__ = ["set_cred_option"]

#: GSS_KRB5_CRED_NO_CI_FLAGS_X.
_NO_CI_FLAGS = OID.from_int_seq("1.2.752.43.13.29")


def set_cred_option(
    desired_aspect: OID, creds: Creds | None = None, value: bytes | None = None
) -> Creds:
    """Return `creds` with an option: that contexts do not add CONF and INTEG to their flags.

    Raises OperationUnavailableError for other OIDs.
    """
    if desired_aspect != _NO_CI_FLAGS:
        raise _status.unavailable(
            "set_cred_option", f"there is no {desired_aspect.dotted_form} here"
        )
    creds = Creds() if creds is None else creds
    creds._no_ci_flags = True
    return creds
