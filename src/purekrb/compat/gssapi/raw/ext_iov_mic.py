"""The MIC of several buffers. Source: MIT's documentation of gss_get_mic_iov."""

from __future__ import annotations

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw import message as raw_message
from purekrb.compat.gssapi.raw.ext_dce import IOV, IOVBufferType
from purekrb.compat.gssapi.raw.message import QoP
from purekrb.compat.gssapi.raw.sec_contexts import SecurityContext, context_of
from purekrb.crypto import profile_of
from purekrb.errors import KerberosError
from purekrb.gss.tokens import HEADER_SIZE

__all__ = ["get_mic_iov", "get_mic_iov_length", "verify_mic_iov"]

_MIC_TOKEN = int(IOVBufferType.mic_token)
_SIGNED = (IOVBufferType.data, IOVBufferType.sign_only, IOVBufferType.padding)


def get_mic_iov(context: SecurityContext, message: IOV, qop: int | None = None) -> None:
    """Put the MIC of the data and sign_only buffers, in their order, into the mic_token buffer."""
    place = _mic_place(message)
    message._set({place: raw_message.get_mic(context, _signed(message), qop)})


def get_mic_iov_length(context: SecurityContext, message: IOV, qop: int | None = None) -> None:
    """Give the mic_token buffer the length of a MIC."""
    raw_message.check_qop(qop)
    try:
        size = HEADER_SIZE + profile_of(context_of(context).etype).checksum_size
    except KerberosError as error:
        raise _status.gss_error(error, message=True) from error
    message._set({_mic_place(message): bytes(size)})


def verify_mic_iov(context: SecurityContext, message: IOV, qop: int | None = None) -> QoP:
    """Raise unless the mic_token buffer holds the peer's MIC of the others; return 0."""
    mic = message[_mic_place(message)].value or b""
    return raw_message.verify_mic(context, _signed(message), mic)


def _signed(message: IOV) -> bytes:
    return b"".join(value or b"" for kind, _, value in message if kind in _SIGNED)


def _mic_place(message: IOV) -> int:
    for place, (kind, _, _) in enumerate(message):
        if kind == _MIC_TOKEN:
            return place
    raise _status.status(codes.FAILURE, 0, "the message has no mic_token buffer")
