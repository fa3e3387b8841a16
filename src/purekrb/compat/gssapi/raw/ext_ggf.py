"""Facts about contexts and credentials by OID. Source: RFC 7546; MIT's gssapi_krb5.h."""

from __future__ import annotations

from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw.creds import Creds, credential_of
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.sec_contexts import SecurityContext, context_of

__all__ = ["inquire_cred_by_oid", "inquire_sec_context_by_oid", "set_sec_context_option"]

#: GSS_C_INQ_SSPI_SESSION_KEY, and the arc of encryption types below that of Kerberos.
_SESSION_KEY = OID.from_int_seq("1.2.840.113554.1.2.2.5.5")
_ETYPES = "1.2.840.113554.1.2.2.4"
#: GSS_KRB5_GET_CRED_IMPERSONATOR.
_IMPERSONATOR = OID.from_int_seq("1.2.840.113554.1.2.2.5.14")


@_status.as_gss_errors
def inquire_sec_context_by_oid(context: SecurityContext, desired_aspect: OID) -> list[bytes]:
    """Return the session key and the OID of its encryption type, for GSS_C_INQ_SSPI_SESSION_KEY.

    Raises OperationUnavailableError for other OIDs.
    """
    if desired_aspect != _SESSION_KEY:
        raise _status.unavailable(
            "inquire_sec_context_by_oid", f"no {desired_aspect.dotted_form} here"
        )
    key = context_of(context).session_key
    return [key.contents, bytes(OID.from_int_seq(f"{_ETYPES}.{int(key.etype)}"))]


@_status.as_gss_errors
def inquire_cred_by_oid(cred_handle: Creds, desired_aspect: OID) -> list[bytes]:
    """Return who acts for the client, or [], for GSS_KRB5_GET_CRED_IMPERSONATOR.

    Raises OperationUnavailableError for other OIDs.
    """
    if desired_aspect == _IMPERSONATOR:
        acting = credential_of(cred_handle).impersonation
        return [] if acting is None else [str(acting[0].ccache.principal).encode()]
    raise _status.unavailable("inquire_cred_by_oid", f"no {desired_aspect.dotted_form} here")


def set_sec_context_option(
    desired_aspect: OID, context: SecurityContext, value: bytes | None = None
) -> SecurityContext:
    """Raise OperationUnavailableError: the options there are belong to NTLM."""
    raise _status.unavailable("set_sec_context_option", f"no {desired_aspect.dotted_form} here")
