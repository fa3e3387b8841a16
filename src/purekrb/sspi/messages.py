"""MakeSignature, VerifySignature, EncryptMessage and DecryptMessage: RFC 4121 tokens, cut into buffers.

    MakeSignature    DATA ...            -> TOKEN, a MIC token over the DATA in their order
    EncryptMessage   DATA ...            -> TOKEN | DATA ... | PADDING, together a Wrap token
    DecryptMessage   the same, or STREAM (a Wrap token) and DATA (receives the message)

Buffers of other types, and READONLY ones, are ignored. Nothing changes in them, nor in the context, where a function
fails; but a genuine message that comes twice or out of order is known from then on.
"""

from __future__ import annotations

from purekrb.constants import EncryptionType, Flag
from purekrb.errors import DecodeError, PolicyError
from purekrb.gss.context import MAX_TOKEN, SecurityContext
from purekrb.gss.tokens import SEALED
from purekrb.sspi.buffers import SecBuffer, SecBufferDesc, buffers_of, the_only
from purekrb.sspi.constants import (
    SEC_E_BUFFER_TOO_SMALL,
    SEC_E_INCOMPLETE_MESSAGE,
    SEC_E_INVALID_TOKEN,
    SEC_E_QOP_NOT_SUPPORTED,
    SECBUFFER_DATA,
    SECBUFFER_PADDING,
    SECBUFFER_READONLY_WITH_CHECKSUM,
    SECBUFFER_STREAM,
    SECBUFFER_TOKEN,
    SECQOP_WRAP_NO_ENCRYPT,
)
from purekrb.sspi.status import RefusedError

__all__ = ["decrypt_message", "encrypt_message", "make_signature", "sizes", "verify_signature"]

#: Larger than any overhead, where the overhead of tokens is measured.
_LARGE = 1 << 24
#: Bytes behind the data in an RC4 token. AES tokens have none. Source: RFC 4757 7.3.
_RC4_PADDING = 1
#: How Wrap tokens begin: with AES keys, with RC4 keys. Source: RFC 4121 4.2.6.2, RFC 4757 7.3.
_STARTS = (b"\x05\x04", b"\x60")


def sizes(context: SecurityContext) -> dict[str, int]:
    """Return the sizes that buffers need: of a context token, a signature, a block and a message's TOKEN."""
    flags = context.flags
    rc4 = context.etype == EncryptionType.RC4_HMAC  # has no signatures here
    return {
        "MaxToken": MAX_TOKEN,
        "MaxSignature": _overhead(context, sealed=False) if flags & Flag.INTEG and not rc4 else 0,
        "BlockSize": 1,
        "SecurityTrailer": _overhead(context, sealed=True) if flags & Flag.CONF else 0,
    }


def make_signature(context: SecurityContext, qop: int, message: SecBufferDesc) -> None:
    """Sign the DATA buffers; TOKEN receives the signature, and its length."""
    if qop:
        raise RefusedError(SEC_E_QOP_NOT_SUPPORTED, f"a signature has quality of protection 0, not {qop:#x}")
    size = _signature_size(context)
    data, token = _data(message), the_only(message, SECBUFFER_TOKEN, "SECBUFFER_TOKEN")
    _check_room(token, size)
    token.Buffer = context.get_mic(_joined(data))


def verify_signature(context: SecurityContext, message: SecBufferDesc) -> None:
    """Raise unless TOKEN is the peer's signature of the DATA buffers."""
    _signature_size(context)
    data, token = _data(message), the_only(message, SECBUFFER_TOKEN, "SECBUFFER_TOKEN")
    context.verify_mic(_joined(data), token.Buffer)


def encrypt_message(context: SecurityContext, qop: int, message: SecBufferDesc) -> None:
    """Protect the DATA buffers in place: encrypted with QOP 0, only signed with SECQOP_WRAP_NO_ENCRYPT."""
    sealed = qop == 0
    if not sealed and qop & 0xFFFFFFFF != SECQOP_WRAP_NO_ENCRYPT:
        raise RefusedError(SEC_E_QOP_NOT_SUPPORTED, f"the quality of protection is 0 or WRAP_NO_ENCRYPT, not {qop:#x}")
    _demand(context, Flag.CONF if sealed else Flag.INTEG)
    data, token = _data(message, in_place=True), the_only(message, SECBUFFER_TOKEN, "SECBUFFER_TOKEN")
    padding = buffers_of(message, SECBUFFER_PADDING)
    pad = _RC4_PADDING if context.etype == EncryptionType.RC4_HMAC else 0
    if pad and not padding:
        raise RefusedError(SEC_E_INVALID_TOKEN, "a message under RC4 needs a buffer of type SECBUFFER_PADDING")
    if padding:
        _check_room(padding[0], pad)
    _check_room(token, _overhead(context, sealed) - pad)
    plaintext = _joined(data)
    wrapped = context.wrap(plaintext, sealed)
    end = len(wrapped) - pad
    start = end - len(plaintext)
    token.Buffer = wrapped[:start]
    _scatter(wrapped[start:end], data)
    if padding:
        padding[0].Buffer = wrapped[end:]


def decrypt_message(context: SecurityContext, message: SecBufferDesc) -> int:
    """Return the quality of protection of the peer's message: 0, or SECQOP_WRAP_NO_ENCRYPT where it was only signed.

    The DATA buffers hold the message then.
    """
    _demand(context, Flag.INTEG)
    data = _data(message, in_place=True)
    stream = buffers_of(message, SECBUFFER_STREAM)
    if not stream:
        token = the_only(message, SECBUFFER_TOKEN, "SECBUFFER_TOKEN").Buffer
        wrapped = token + _joined(data) + _joined(buffers_of(message, SECBUFFER_PADDING))
        plaintext, qop = _unwrap(context, wrapped)
        _scatter(plaintext, data)
        return qop
    if len(stream) != 1 or len(data) != 1:
        raise RefusedError(SEC_E_INVALID_TOKEN, "a STREAM goes with one DATA buffer, which receives the message")
    try:
        plaintext, qop = _unwrap(context, stream[0].Buffer)
    except DecodeError as error:
        if _has_only_begun(context, stream[0].Buffer):
            raise RefusedError(SEC_E_INCOMPLETE_MESSAGE, f"{error}: pass the stream again when more has come") from None
        raise
    data[0].resize(plaintext)
    return qop


def _has_only_begun(context: SecurityContext, token: bytes) -> bool:
    """Return whether `token` is the beginning of one, shorter than that of an empty message.

    An AES token does not tell how long it is: one that is cut off behind that is taken for altered.
    """
    begun = any(token[: len(start)] == start[: len(token)] for start in _STARTS)
    sealed = len(token) < 3 or bool(token[2] & SEALED)
    return begun and not context.wrap_size_limit(len(token) + 1, sealed)


def _unwrap(context: SecurityContext, token: bytes) -> tuple[bytes, int]:
    try:
        return context.unwrap(token), 0
    except PolicyError:  # not sealed, which nothing but this tells
        return context.unwrap(token, sealed=False), SECQOP_WRAP_NO_ENCRYPT


def _demand(context: SecurityContext, flag: Flag) -> None:
    if not context.flags & flag:
        what = "confidentiality" if flag == Flag.CONF else "integrity"
        raise RefusedError(SEC_E_QOP_NOT_SUPPORTED, f"{what} was not asked for when this context was initialized")


def _signature_size(context: SecurityContext) -> int:
    size = sizes(context)["MaxSignature"]
    if not size:
        raise RefusedError(
            SEC_E_QOP_NOT_SUPPORTED,
            "this context has no signatures: integrity was not asked for when it was initialized, or its key is RC4",
        )
    return size


def _overhead(context: SecurityContext, sealed: bool) -> int:
    return _LARGE - context.wrap_size_limit(_LARGE, sealed)


def _data(message: SecBufferDesc, *, in_place: bool = False) -> list[SecBuffer]:
    found = buffers_of(message, SECBUFFER_DATA)
    if not found:
        raise RefusedError(SEC_E_INVALID_TOKEN, "a buffer of type SECBUFFER_DATA is needed, none was passed")
    if in_place and any(buffer.BufferType & SECBUFFER_READONLY_WITH_CHECKSUM for buffer in found):
        raise RefusedError(SEC_E_QOP_NOT_SUPPORTED, "READONLY_WITH_CHECKSUM is for signatures only")
    return found


def _check_room(buffer: SecBuffer, size: int) -> None:
    if buffer.MaxBufferSize < size:
        raise RefusedError(
            SEC_E_BUFFER_TOO_SMALL, f"a buffer has room for {buffer.MaxBufferSize} bytes, {size} are needed"
        )


def _joined(buffers: list[SecBuffer]) -> bytes:
    return b"".join(buffer.Buffer for buffer in buffers)


def _scatter(data: bytes, buffers: list[SecBuffer]) -> None:
    """Put `data` into `buffers` in their order; what is shorter than they are ends early."""
    start = 0
    for buffer in buffers:
        end = start + buffer.BufferSize
        buffer.Buffer = data[start:end]
        start = end
