"""Messages of contexts. Source: RFC 2743 2.3."""

from __future__ import annotations

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw.named_tuples import UnwrapResult, WrapResult
from purekrb.compat.gssapi.raw.sec_contexts import SecurityContext, context_of
from purekrb.errors import KerberosError

__all__ = ["get_mic", "verify_mic", "wrap_size_limit", "wrap", "unwrap"]


#: A quality of protection; Kerberos has only the default one, whose number is 0.
QoP = int
DEFAULT_QOP: QoP = 0


def check_qop(qop: int | None) -> None:
    """Raise BadQoPError unless `qop` is the only quality of protection there is."""
    if qop:
        raise _status.status(codes.BAD_QOP, 0, f"Kerberos has no quality of protection {qop}")


def get_mic(context: SecurityContext, message: bytes, qop: int | None = None) -> bytes:
    """Return the MIC of a message."""
    check_qop(qop)
    try:
        return context_of(context).get_mic(message)
    except KerberosError as error:
        raise _status.gss_error(error, message=True) from error


def verify_mic(context: SecurityContext, message: bytes, token: bytes) -> QoP:
    """Return the quality of protection, 0, if `token` is the peer's MIC of a message."""
    try:
        context_of(context).verify_mic(message, token)
    except KerberosError as error:
        raise _status.gss_error(error, message=True) from error
    return DEFAULT_QOP


def wrap_size_limit(
    context: SecurityContext, output_size: int, confidential: bool = True, qop: int | None = None
) -> int:
    """Return the size of the largest message whose token has at most `output_size` bytes."""
    check_qop(qop)
    try:
        return context_of(context).wrap_size_limit(output_size, confidential)
    except KerberosError as error:
        raise _status.gss_error(error, message=True) from error


def wrap(
    context: SecurityContext, message: bytes, confidential: bool = True, qop: int | None = None
) -> WrapResult:
    """Return a message as a token, encrypted if `confidential` is true."""
    check_qop(qop)
    confidential = bool(confidential)
    try:
        return WrapResult(context_of(context).wrap(message, confidential), confidential)
    except KerberosError as error:
        raise _status.gss_error(error, message=True) from error


def unwrap(context: SecurityContext, message: bytes) -> UnwrapResult:
    """Return the message in a token, and whether it was encrypted."""
    try:
        inner = context_of(context)
        return UnwrapResult(inner.unwrap(message, False), inner.is_sealed(message), DEFAULT_QOP)
    except KerberosError as error:
        raise _status.gss_error(error, message=True) from error
