"""Messages with data beside them that are only signed. Source: MIT's gss_wrap_aead."""

from __future__ import annotations

from purekrb.compat.gssapi.raw.ext_dce import IOV, IOVBufferType, unwrap_iov, wrap_iov
from purekrb.compat.gssapi.raw.named_tuples import UnwrapResult, WrapResult
from purekrb.compat.gssapi.raw.sec_contexts import SecurityContext

__all__ = ["wrap_aead", "unwrap_aead"]


def wrap_aead(
    context: SecurityContext,
    message: bytes,
    associated: bytes | None = None,
    confidential: bool = True,
    qop: int | None = None,
) -> WrapResult:
    """Return a message as a token that also signs `associated`, which is not in it."""
    iov = IOV(
        IOVBufferType.header,
        (IOVBufferType.sign_only, associated or b""),
        message,
        IOVBufferType.padding,
        IOVBufferType.trailer,
        std_layout=False,
    )
    encrypted = wrap_iov(context, iov, confidential, qop)
    parts = (value or b"" for kind, _, value in iov if kind != IOVBufferType.sign_only)
    return WrapResult(b"".join(parts), encrypted)


def unwrap_aead(
    context: SecurityContext, message: bytes, associated: bytes | None = None
) -> UnwrapResult:
    """Return the message in a token that also signs `associated`."""
    iov = IOV(
        (IOVBufferType.stream, message),
        (IOVBufferType.sign_only, associated or b""),
        IOVBufferType.data,
        std_layout=False,
    )
    encrypted, qop = unwrap_iov(context, iov)
    return UnwrapResult(iov[2].value or b"", encrypted, qop)
