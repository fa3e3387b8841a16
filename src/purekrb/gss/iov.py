"""Wrap tokens in pieces, like those of MIT's gss_wrap_iov, and their layout in DCE style (WrapEx).

    HEADER (token header | confounder) | DATA ... | TRAILER (filler | header copy | MAC)
    HEADER (token header | filler | header copy | MAC | confounder) | DATA ...    without TRAILER

A message that is only signed has neither confounder nor filler nor header copy. SIGN_ONLY buffers
are signed at their place among the DATA, and are not part of the token. In DCE style the filler has
16 bytes, otherwise none, and RRC is 16 less than the rotation.
Source: RFC 4121 4.2, MS-KILE 3.4.5.4.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import accumulate
from typing import ClassVar

from purekrb.crypto.aes_cts import BLOCK
from purekrb.errors import DecodeError, IntegrityError, PolicyError
from purekrb.gss.tokens import (
    HEADER_SIZE,
    ONLY_SIGNED,
    SEALED,
    SND_SEQ,
    CfxProtection,
    as_bytes,
    rotated,
    wrap_header,
)
from purekrb.records import record

__all__ = ["IovType", "IovBuffer", "IovProtection", "DceProtection"]


class IovType(IntEnum):
    """The types of buffers of `wrap_iov`, with the numbers of gssapi_ext.h."""

    DATA = 1
    HEADER = 2
    TRAILER = 7
    PADDING = 9
    STREAM = 10
    SIGN_ONLY = 11


@record
class IovBuffer(tuple[IovType, bytes]):
    """A buffer of `wrap_iov` and `unwrap_iov`.

    Pass HEADER, TRAILER and PADDING to `wrap_iov` without data.
    """

    type: IovType
    data: bytes = b""

    def __repr__(self) -> str:
        return f"IovBuffer({IovType(self.type).name}, {len(self.data)} bytes)"


_DATA, _SIGN_ONLY = IovType.DATA, IovType.SIGN_ONLY
_HEADER, _TRAILER, _PADDING, _STREAM = (
    IovType.HEADER,
    IovType.TRAILER,
    IovType.PADDING,
    IovType.STREAM,
)


class _Pieces:
    """The buffers of a token, taken apart.

    `single` holds the contents of the types that occur once (HEADER, TRAILER, PADDING, STREAM).
    `data` holds the contents of DATA in order. `signed` holds the contents of SIGN_ONLY, each with
    the number of DATA buffers before it.
    """

    __slots__ = ("data", "signed", "single")

    def __init__(self) -> None:
        self.single: dict[int, bytes] = {}
        self.data: list[bytes] = []
        self.signed: list[tuple[int, bytes]] = []

    def offsets(self) -> list[tuple[int, bytes]]:
        """Return the SIGN_ONLY contents with their offsets in the joined DATA."""
        if not self.signed:
            return []
        ends = [0, *accumulate(map(len, self.data))]
        return [(ends[number], contents) for number, contents in self.signed]

    def mixed(self) -> bytes:
        """Return DATA and SIGN_ONLY, joined in order."""
        mixed: list[bytes] = []
        done = 0
        for number, contents in self.signed:
            mixed += (*self.data[done:number], contents)
            done = number
        return b"".join((*mixed, *self.data[done:]))

    def filled(self, buffers: Iterable[IovBuffer], message: bytes) -> list[IovBuffer]:
        """Return `buffers` with `message` in DATA, in pieces of the old sizes, and `single`."""
        filled = []
        ends = accumulate(map(len, self.data))
        at = 0
        for buffer in buffers:
            kind, _ = buffer
            if kind == _DATA:
                end = next(ends)
                filled.append(IovBuffer(_DATA, message[at:end]))
                at = end
            elif kind == _SIGN_ONLY:
                filled.append(buffer)
            else:
                filled.append(IovBuffer(kind, self.single.get(kind, b"")))
        return filled


class IovProtection(CfxProtection):
    """Per-message tokens in one piece or in several."""

    #: The filler of a sealed token in pieces. RRC is less than the rotation by its length.
    _filler: ClassVar[bytes] = b""

    __slots__ = ()

    def wrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]:
        """Return `buffers` with the token in them. Source: RFC 4121 4.2.4, MS-KILE 3.4.5.4.1."""
        if sealed and len(buffers) == 2:
            (first, _), (second, contents) = buffers
            if first == _HEADER and second == _DATA:  # together, the same token as `wrap` makes
                data = as_bytes(contents)
                token = self.wrap(data, True)
                start = len(token) - len(data)
                return [IovBuffer(_HEADER, token[:start]), IovBuffer(_DATA, token[start:])]
        return self._wrap_pieces(buffers, sealed)

    def _wrap_pieces(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]:
        pieces = _parse(buffers, received=False)
        flags = self._ours.flags | (SEALED if sealed and pieces.data else 0)
        snd_seq, seal = next(self._send_seq), self._seal or self._make_seal()
        message = b"".join(pieces.data)
        if flags & SEALED:
            ec = len(self._filler)
            plaintext = b"".join((message, self._filler, wrap_header(flags, ec, 0), snd_seq))
            body, last, mac = seal.encrypt_mixed(plaintext, self._confounder(), pieces.offsets())
            end = BLOCK + len(message)
            confounder, message, rest = body[:BLOCK], body[BLOCK:end], body[end:]
            tail = b"".join((rest, last, mac))
        else:
            confounder = b""
            tail = seal.checksum(pieces.mixed(), wrap_header(flags, 0, 0) + snd_seq)
            ec = len(tail)
        single = pieces.single
        if _TRAILER in single:
            single[_HEADER] = b"".join((wrap_header(flags, ec, 0), snd_seq, confounder))
            single[_TRAILER] = tail
        else:
            rrc = self._named_rotation(flags, ec, len(tail))
            single[_HEADER] = b"".join((wrap_header(flags, ec, rrc), snd_seq, tail, confounder))
        single[_PADDING] = b""
        return pieces.filled(buffers, message)

    def unwrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]:
        """Return `buffers` with the message in DATA; with `sealed`, refuse DATA only signed."""
        if len(buffers) == 2:
            (first, head), (second, body) = buffers
            if (
                first == _HEADER
                and second == _DATA
                and len(head) == HEADER_SIZE + self._ours.sealed_rrc + BLOCK
                and head[:SND_SEQ] == self._theirs.sealed
            ):  # together, the same token as `wrap` makes
                message = self.unwrap(b"".join((head, body)), sealed)
                return [buffers[0], IovBuffer(_DATA, message)]
        return self._unwrap_pieces(buffers, sealed)

    def _unwrap_pieces(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]:
        pieces = _parse(buffers, received=True)
        single = pieces.single
        token = single.get(_STREAM) or single.get(_HEADER) or b""
        flags, ec, rrc, _ = self._read_header(token)
        unseal = self._unseal or self._make_unseal()
        if flags & SEALED:
            front, tail = BLOCK, ec + HEADER_SIZE + self._ours.mac_size
        else:
            if sealed and pieces.data:
                raise PolicyError(ONLY_SIGNED)
            front, tail = 0, self._ours.mac_size
            # RFC 4121 4.2.3: without confidentiality, EC is the size of the checksum.
            if ec != tail:
                raise DecodeError(f"the checksum of a signed message has {tail} bytes")
        if _STREAM in single:
            body = rotated(token[HEADER_SIZE:], -self._rotation(flags, ec, rrc))
            first, last = _take_stream(pieces, body, front, tail)
        else:
            first, last = self._ends(single, flags, ec, rrc, front, tail)
        if flags & SEALED:
            end = len(last) - self._ours.mac_size
            ciphertext = b"".join((first, *pieces.data, last[:end]))
            plaintext = unseal.decrypt_mixed(ciphertext, last[end:], pieces.offsets())
            # RFC 4121 4.2.4: the encrypted copy protects the whole header except RRC, which changes
            # only the layout.
            copy = b"".join((token[:6], bytes(2), token[8:HEADER_SIZE]))
            if not hmac.compare_digest(plaintext[-HEADER_SIZE:], copy):
                raise IntegrityError
            message = plaintext[: len(plaintext) - ec - HEADER_SIZE]
        else:
            # RFC 4121 4.2.4: the checksum covers data and header, with EC and RRC 0.
            copy = b"".join((token[:4], bytes(4), token[8:HEADER_SIZE]))
            if not hmac.compare_digest(unseal.checksum(pieces.mixed(), copy), last):
                raise IntegrityError
            message = b"".join(pieces.data)
        # RFC 4121 4.2.2, RFC 2743 1.2.3: replay and order, once the token is genuine.
        self._window.check(token[SND_SEQ:HEADER_SIZE])
        return pieces.filled(buffers, message)

    def wrap_iov_length(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[int]:
        """Return the length of each buffer of `wrap_iov`, without taking a sequence number."""
        pieces = _parse(buffers, received=False)
        front, tail = 0, self._ours.mac_size
        if sealed and pieces.data:
            front, tail = BLOCK, len(self._filler) + self._ours.sealed_rrc
        header = HEADER_SIZE + front + (0 if _TRAILER in pieces.single else tail)
        sizes = {_HEADER: header, _TRAILER: tail, _PADDING: 0}
        return [sizes.get(kind, len(data)) for kind, data in buffers]

    def _rotation(self, flags: int, ec: int, rrc: int) -> int:
        """Return the rotation, in bytes, of the body of a token with this header."""
        return rrc

    def _named_rotation(self, flags: int, ec: int, rotation: int) -> int:
        """Return the RRC for a rotation of the body by `rotation` bytes."""
        return rotation

    def _ends(
        self, single: dict[int, bytes], flags: int, ec: int, rrc: int, front: int, tail: int
    ) -> tuple[bytes, bytes]:
        """Return the bytes before and after the data, with the rotation undone."""
        header, trailer = single[_HEADER][HEADER_SIZE:], single.get(_TRAILER)
        rotation = 0
        if trailer is None:
            rotation = self._named_rotation(flags, ec, tail)
            trailer, header = header[:tail], header[tail:]
        if rrc != rotation or len(header) != front or len(trailer) != tail or single.get(_PADDING):
            raise DecodeError(
                "the token is not split like those of wrap_iov "
                "(HEADER, DATA, empty PADDING, TRAILER or none): pass all of it as STREAM"
            )
        return header, trailer


class DceProtection(IovProtection):
    """Per-message tokens in DCE style. `wrap` is `wrap_iov` without TRAILER, in one piece."""

    __slots__ = ()

    _filler = b"\xff" * BLOCK
    wrap_iov = IovProtection._wrap_pieces
    unwrap_iov = IovProtection._unwrap_pieces

    def wrap(self, data: bytes, sealed: bool) -> bytes:
        """Return HEADER and DATA as one token."""
        header, body = self.wrap_iov([IovBuffer(_HEADER), IovBuffer(_DATA, data)], sealed)
        return header.data + body.data

    def unwrap(self, token: bytes, sealed: bool) -> bytes:
        """Return the data of a token; with `sealed`, refuse a token that is only signed."""
        return self.unwrap_iov([IovBuffer(_STREAM, token), IovBuffer(_DATA)], sealed)[1].data

    def unwrap_into(self, token: bytes, sealed: bool, out: memoryview) -> int:
        """Write the data of a token into `out`, which has room for it, and return its size."""
        data = self.unwrap(token, sealed)
        out[: len(data)] = data
        return len(data)

    def wrap_size_limit(self, output_size: int, sealed: bool) -> int:
        """Return the largest size of data whose token has at most `output_size` bytes, or 0."""
        return super().wrap_size_limit(
            output_size - len(self._filler) if sealed else output_size, sealed
        )

    # MS-KILE 3.4.5.4.1: the rotation is EC + RRC, a fault of Windows that its peers share.

    def _rotation(self, flags: int, ec: int, rrc: int) -> int:
        return rrc + ec if flags & SEALED else rrc

    def _named_rotation(self, flags: int, ec: int, rotation: int) -> int:
        return rotation - ec if flags & SEALED else rotation


def _parse(buffers: Sequence[IovBuffer], *, received: bool) -> _Pieces:
    """Return the buffers, taken apart. A `received` token may have STREAM instead of HEADER."""
    pieces = _Pieces()
    single = pieces.single
    for kind, contents in buffers:
        data = as_bytes(contents)
        if kind == _DATA:
            pieces.data.append(data)
        elif kind == _SIGN_ONLY:
            pieces.signed.append((len(pieces.data), data))
        elif IovType(kind) in single:
            raise ValueError(f"the buffers have more than one {IovType(kind).name}")
        else:
            single[kind] = data
    if (_HEADER in single) == (_STREAM in single) or (_STREAM in single and not received):
        raise ValueError("the buffers need one HEADER, or one STREAM instead for unwrap_iov")
    return pieces


def _take_stream(pieces: _Pieces, body: bytes, front: int, tail: int) -> tuple[bytes, bytes]:
    """Put the data of a token in one piece into `pieces`; return the bytes before and after it.

    `body` is the token without its header, with the rotation undone.
    """
    if len(pieces.data) != 1 or _TRAILER in pieces.single or _PADDING in pieces.single:
        raise ValueError(
            "STREAM needs exactly one DATA buffer, which receives the message; "
            "only SIGN_ONLY may stand beside them"
        )
    end = len(body) - tail
    if end < front:
        raise DecodeError("the message is cut off")
    pieces.data = [body[front:end]]
    return body[:front], body[end:]
