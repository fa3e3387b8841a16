"""MakeSignature, VerifySignature, EncryptMessage, DecryptMessage: RFC 4121 tokens in buffers.

    MakeSignature    DATA ...            -> TOKEN, a MIC token over the DATA in their order
    EncryptMessage   DATA ...            -> TOKEN | DATA ... | PADDING, together a Wrap token
    DecryptMessage   the same, or STREAM (a Wrap token) and DATA (receives the message)

DATA with the attribute READONLY_WITH_CHECKSUM are only signed: they are not encrypted, and are not
part of the token. Buffers of other types, and READONLY ones, are ignored. If a function fails, it
changes neither the buffers nor the context. The exception is a genuine message that comes twice or
out of order: the context remembers that it has come.
"""

from __future__ import annotations

from purekrb.constants import EncryptionType, Flag
from purekrb.errors import DecodeError, PolicyError
from purekrb.gss.context import MAX_TOKEN, SecurityContext
from purekrb.gss.iov import IovBuffer, IovType
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

#: A size much larger than any overhead, to measure the overhead of tokens.
_LARGE = 1 << 24
#: The bytes after the data in an RC4 token. AES tokens have none. Source: RFC 4757 7.3.
_RC4_PADDING = 1
#: The starts of Wrap tokens, with AES keys and with RC4 keys.
#: Source: RFC 4121 4.2.6.2, RFC 4757 7.3.
_STARTS = (b"\x05\x04", b"\x60")


def sizes(context: SecurityContext) -> dict[str, int]:
    """Return the sizes of buffers: for a context token, a signature, a block, a message's TOKEN."""
    flags = context.flags
    rc4 = context.etype == EncryptionType.RC4_HMAC  # signatures are not available with it
    return {
        "MaxToken": MAX_TOKEN,
        "MaxSignature": _overhead(context, sealed=False) if flags & Flag.INTEG and not rc4 else 0,
        "BlockSize": 1,
        "SecurityTrailer": _overhead(context, sealed=True) if flags & Flag.CONF else 0,
    }


def make_signature(context: SecurityContext, qop: int, message: SecBufferDesc) -> None:
    """Sign the DATA buffers; TOKEN receives the signature, and its length."""
    if qop:
        raise RefusedError(
            SEC_E_QOP_NOT_SUPPORTED, f"a signature has quality of protection 0, not {qop:#x}"
        )
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
    """Encrypt the DATA buffers in place; with SECQOP_WRAP_NO_ENCRYPT, only sign them."""
    sealed = qop == 0
    if not sealed and qop & 0xFFFFFFFF != SECQOP_WRAP_NO_ENCRYPT:
        raise RefusedError(
            SEC_E_QOP_NOT_SUPPORTED,
            f"the quality of protection is 0 or WRAP_NO_ENCRYPT, not {qop:#x}",
        )
    _demand(context, Flag.CONF if sealed else Flag.INTEG)
    data, token = _data(message), the_only(message, SECBUFFER_TOKEN, "SECBUFFER_TOKEN")
    padding = _padding(message)
    pad = _RC4_PADDING if context.etype == EncryptionType.RC4_HMAC else 0
    if pad and not padding:
        raise RefusedError(
            SEC_E_INVALID_TOKEN,
            "a message with an RC4 key needs a buffer of type SECBUFFER_PADDING",
        )
    for buffer in padding:
        _check_room(buffer, pad)
    _check_room(token, _overhead(context, sealed) - pad)
    # `wrap` puts the checksum of AES after the data. On Windows it goes into TOKEN, before the
    # data.
    if any(map(_is_signed_only, data)) or not (sealed or pad):
        header, *pieces = context.wrap_iov([IovBuffer(IovType.HEADER), *map(_piece, data)], sealed)
        start = header.data
        wrapped = b"".join(piece.data for piece in pieces if piece.type == IovType.DATA)
        rest = b""
    else:
        plaintext = _joined(data)
        whole = context.wrap(plaintext, sealed)
        end = len(whole) - pad
        start = whole[: end - len(plaintext)]
        wrapped = whole[end - len(plaintext) : end]
        rest = whole[end:]
    token.Buffer = start
    _scatter(wrapped, data)
    for buffer in padding:
        buffer.Buffer = rest


def decrypt_message(context: SecurityContext, message: SecBufferDesc) -> int:
    """Put the peer's message into the DATA buffers; return its quality of protection.

    It is 0, or SECQOP_WRAP_NO_ENCRYPT if the message was only signed.
    """
    _demand(context, Flag.INTEG)
    data, padding = _data(message), _padding(message)
    streams = buffers_of(message, SECBUFFER_STREAM)
    if not streams:
        token = the_only(message, SECBUFFER_TOKEN, "SECBUFFER_TOKEN")
        plaintext, qop = _unwrap(context, token.Buffer, data, _joined(padding))
        room = sum(buffer.BufferSize for buffer in data if not _is_signed_only(buffer))
        if len(plaintext) > room:
            raise RefusedError(
                SEC_E_BUFFER_TOO_SMALL,
                "TOKEN contains a part of the message: pass all of it as STREAM",
            )
        _scatter(plaintext, data)
        return qop
    targets = [buffer for buffer in data if not _is_signed_only(buffer)]
    if len(streams) != 1 or len(targets) != 1:
        raise RefusedError(
            SEC_E_INVALID_TOKEN, "a STREAM needs one DATA buffer, which receives the message"
        )
    stream, target = streams[0].Buffer, targets[0]
    try:
        plaintext, qop = _unwrap(context, stream, data, stream=True)
    except DecodeError as error:
        if _has_only_begun(context, stream):
            raise RefusedError(
                SEC_E_INCOMPLETE_MESSAGE, f"{error}: pass the stream again when more has arrived"
            ) from None
        raise
    target.resize(plaintext)
    return qop


def _is_signed_only(buffer: SecBuffer) -> bool:
    return bool(buffer.BufferType & SECBUFFER_READONLY_WITH_CHECKSUM)


def _piece(buffer: SecBuffer) -> IovBuffer:
    return IovBuffer(IovType.SIGN_ONLY if _is_signed_only(buffer) else IovType.DATA, buffer.Buffer)


def _has_only_begun(context: SecurityContext, token: bytes) -> bool:
    """Return whether `token` is the start of a token, shorter than the token of an empty message.

    An AES token does not contain its length, so a longer part of it looks like an altered token.
    """
    begun = any(token[: len(start)] == start[: len(token)] for start in _STARTS)
    sealed = len(token) < 3 or bool(token[2] & SEALED)
    return begun and not context.wrap_size_limit(len(token) + 1, sealed)


def _unwrap(
    context: SecurityContext,
    token: bytes,
    data: list[SecBuffer],
    padding: bytes = b"",
    *,
    stream: bool = False,
) -> tuple[bytes, int]:
    """Return the message, and its quality of protection.

    `token` is the whole Wrap token if `stream`; otherwise, it is the part before `data`.
    """

    def unwrapped(sealed: bool) -> bytes:
        if not any(map(_is_signed_only, data)):
            whole = token if stream else b"".join((token, _joined(data), padding))
            return context.unwrap(whole, sealed)
        pieces = [
            IovBuffer(piece.type) if stream and piece.type == IovType.DATA else piece
            for piece in map(_piece, data)
        ]
        first = IovBuffer(IovType.STREAM if stream else IovType.HEADER, token)
        received = context.unwrap_iov([first, *pieces], sealed)
        return b"".join(piece.data for piece in received if piece.type == IovType.DATA)

    try:
        return unwrapped(True), 0
    except PolicyError:  # the only sign that the message is not sealed
        return unwrapped(False), SECQOP_WRAP_NO_ENCRYPT


def _demand(context: SecurityContext, flag: Flag) -> None:
    if not context.flags & flag:
        what = "confidentiality" if flag == Flag.CONF else "integrity"
        raise RefusedError(
            SEC_E_QOP_NOT_SUPPORTED, f"{what} was not asked for when this context was initialized"
        )


def _signature_size(context: SecurityContext) -> int:
    size = sizes(context)["MaxSignature"]
    if not size:
        raise RefusedError(
            SEC_E_QOP_NOT_SUPPORTED,
            "this context has no signatures: "
            "integrity was not asked for when it was initialized, or its key is RC4",
        )
    return size


def _overhead(context: SecurityContext, sealed: bool) -> int:
    return _LARGE - context.wrap_size_limit(_LARGE, sealed)


def _data(message: SecBufferDesc) -> list[SecBuffer]:
    found = buffers_of(message, SECBUFFER_DATA)
    if not found:
        raise RefusedError(
            SEC_E_INVALID_TOKEN, "a buffer of type SECBUFFER_DATA is needed, but none was passed"
        )
    return found


def _padding(message: SecBufferDesc) -> list[SecBuffer]:
    found = buffers_of(message, SECBUFFER_PADDING)
    if len(found) > 1:
        raise RefusedError(
            SEC_E_INVALID_TOKEN, "there is more than one buffer of type SECBUFFER_PADDING"
        )
    return found


def _check_room(buffer: SecBuffer, size: int) -> None:
    if buffer.MaxBufferSize < size:
        raise RefusedError(
            SEC_E_BUFFER_TOO_SMALL,
            f"a buffer has room for {buffer.MaxBufferSize} bytes, but {size} are needed",
        )


def _joined(buffers: list[SecBuffer]) -> bytes:
    return b"".join(buffer.Buffer for buffer in buffers)


def _scatter(data: bytes, buffers: list[SecBuffer]) -> None:
    """Distribute `data` over `buffers`, without those that are only signed.

    If `data` is shorter than the buffers, the last ones are shortened.
    """
    start = 0
    for buffer in buffers:
        if _is_signed_only(buffer):
            continue
        end = start + buffer.BufferSize
        buffer.Buffer = data[start:end]
        start = end
