"""Wrap tokens in pieces, as MIT's gss_wrap_iov makes them, and the layout that DCE style gives them (WrapEx).

    with TRAILER       HEADER (token header | confounder) | DATA ... | TRAILER (filler | header copy | MAC)
    without TRAILER    HEADER (token header | filler | header copy | MAC | confounder) | DATA ...

A message that is only signed has neither confounder nor filler nor header copy. SIGN_ONLY buffers are signed where they
stand among the DATA and are not part of the token. In DCE style the filler has 16 bytes instead of none, and RRC names
16 bytes less than the rotation. Source: RFC 4121 4.2, MS-KILE 3.4.5.4.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import accumulate
from typing import ClassVar

from purekrb.crypto.aes_cts import BLOCK
from purekrb.errors import DecodeError, IntegrityError, PolicyError
from purekrb.gss.tokens import HEADER_SIZE, SEALED, SND_SEQ, CfxProtection, rotated, wrap_header
from purekrb.records import record

__all__ = ["IovType", "IovBuffer", "IovProtection", "DceProtection"]


class IovType(IntEnum):
    """What a buffer of `wrap_iov` is; the numbers are those of gssapi_ext.h."""

    DATA = 1
    HEADER = 2
    TRAILER = 7
    PADDING = 9
    STREAM = 10
    SIGN_ONLY = 11


@record
class IovBuffer(tuple[IovType, bytes]):
    """A buffer of `wrap_iov` and `unwrap_iov`; HEADER, TRAILER and PADDING are given without data to `wrap_iov`."""

    type: IovType
    data: bytes = b""

    def __repr__(self) -> str:
        return f"IovBuffer({IovType(self.type).name}, {len(self.data)} bytes)"


_DATA, _SIGN_ONLY = IovType.DATA, IovType.SIGN_ONLY
_HEADER, _TRAILER, _PADDING, _STREAM = IovType.HEADER, IovType.TRAILER, IovType.PADDING, IovType.STREAM
_TYPES = max(IovType) + 1
#: _new(IovBuffer, (type, data)) is what IovBuffer(type, data) does, without a call of Python.
_new = tuple.__new__
#: The contents of the buffers that occur once, by type; None where there is none.
_Single = list["bytes | None"]
#: (number of DATA buffers before it, contents) of each SIGN_ONLY buffer.
_Signed = list[tuple[int, bytes]]


class IovProtection(CfxProtection):
    """Per-message tokens in one piece or in several."""

    #: The filler of a sealed token in pieces; as long as the rotation that its RRC does not name.
    _filler: ClassVar[bytes] = b""

    __slots__ = ()

    def wrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]:
        """Return `buffers` with the token in them. Source: RFC 4121 4.2.4, MS-KILE 3.4.5.4.1."""
        if sealed and len(buffers) == 2:
            (first, _), (second, contents) = buffers
            if first == _HEADER and second == _DATA:  # together they are a whole token
                data = contents if type(contents) is bytes else _bytes(contents)
                token = self.wrap(data, True)
                start = len(token) - len(data)
                return [_new(IovBuffer, (_HEADER, token[:start])), _new(IovBuffer, (_DATA, token[start:]))]
        return self._wrap_pieces(buffers, sealed)

    def _wrap_pieces(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]:
        single, pieces, signed = _parse(buffers, received=False)
        flags = self._send_flags | (SEALED if sealed and pieces else 0)
        snd_seq, seal = next(self._send_seq), self._seal or self._make_seal()
        data = b"".join(pieces)
        if flags & SEALED:
            size, start = len(data), BLOCK
            copy = wrap_header(flags, len(self._filler), 0) + snd_seq
            body, last, mac = seal.encrypt_mixed(
                b"".join((data, self._filler, copy)), self._confounder(), _offsets(signed, pieces)
            )
            front, data, tail = body[:start], body[start : start + size], b"".join((body[start + size :], last, mac))
            ec = len(self._filler)
        else:
            copy = wrap_header(flags, 0, 0) + snd_seq
            front, tail = b"", seal.checksum(_mixed(pieces, signed), copy)
            ec = len(tail)
        if single[_TRAILER] is None:
            rrc = self._named_rotation(flags, ec, len(tail))
            single[_HEADER] = b"".join((wrap_header(flags, ec, rrc), snd_seq, tail, front))
        else:
            single[_HEADER] = b"".join((wrap_header(flags, ec, 0), snd_seq, front))
            single[_TRAILER] = tail
        single[_PADDING] = b""
        return _filled(buffers, single, pieces, data)

    def unwrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]:
        """Return `buffers` with the message in DATA; with `sealed`, refuse DATA that is only signed."""
        if len(buffers) == 2:
            (first, head), (second, body) = buffers
            if (
                first == _HEADER
                and second == _DATA
                and head[:SND_SEQ] == self._theirs.sealed
                and len(head) == HEADER_SIZE + self._sealed_rrc + BLOCK
            ):  # together they are a token as `wrap` makes it
                return [buffers[0], _new(IovBuffer, (_DATA, self.unwrap(b"".join((head, body)), sealed)))]
        return self._unwrap_pieces(buffers, sealed)

    def _unwrap_pieces(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]:
        single, pieces, signed = _parse(buffers, received=True)
        stream = single[_STREAM] is not None
        token = single[_STREAM] or single[_HEADER] or b""
        flags, ec, rrc, _ = self._read_header(token)
        unseal = self._unseal or self._make_unseal()
        if flags & SEALED:
            front, tail = BLOCK, ec + HEADER_SIZE + self._mac_size
        else:
            if sealed and pieces:
                raise PolicyError("the message is only signed, not sealed: pass sealed=False to accept such")
            front, tail = 0, self._mac_size
            if ec != tail:
                raise DecodeError(f"the checksum of a signed message has {tail} bytes")
        if stream:
            if len(pieces) != 1 or single[_TRAILER] is not None or single[_PADDING] is not None:
                raise ValueError("beside STREAM there are one DATA buffer, which receives the message, and SIGN_ONLY")
            size = len(token) - HEADER_SIZE - front - tail
            if size < 0:
                raise DecodeError("the message is cut off")
            body = rotated(token[HEADER_SIZE:], -self._rotation(flags, ec, rrc))
            pieces = [body[front : front + size]]
            first, last = body[:front], body[front + size :]
        else:
            first, last = self._ends(single, flags, ec, rrc, front, tail)
        mac_size = self._mac_size
        if flags & SEALED:
            plaintext = unseal.decrypt_mixed(
                b"".join((first, *pieces, last[:-mac_size])), last[-mac_size:], _offsets(signed, pieces)
            )
            # The encrypted copy of the header protects all of it but RRC, which changes nothing but the layout.
            copy = b"".join((token[:6], b"\0\0", token[8:HEADER_SIZE]))
            if not hmac.compare_digest(plaintext[-HEADER_SIZE:], copy):
                raise IntegrityError
            data = plaintext[: len(plaintext) - ec - HEADER_SIZE]
        else:
            copy = b"".join((token[:4], bytes(4), token[8:HEADER_SIZE]))
            if not hmac.compare_digest(unseal.checksum(_mixed(pieces, signed), copy), last):
                raise IntegrityError
            data = b"".join(pieces)
        self._window.check(token[SND_SEQ:HEADER_SIZE])
        return _filled(buffers, single, pieces, data)

    def wrap_iov_length(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[int]:
        """Return the length of each buffer that `wrap_iov` would return; takes no sequence number."""
        single, pieces, _ = _parse(buffers, received=False)
        front, tail = (BLOCK, len(self._filler) + self._sealed_rrc) if sealed and pieces else (0, self._mac_size)
        header = HEADER_SIZE + front + (tail if single[_TRAILER] is None else 0)
        sizes = {_HEADER: header, _TRAILER: tail, _PADDING: 0}
        return [sizes.get(kind, len(data)) for kind, data in buffers]

    def _rotation(self, flags: int, ec: int, rrc: int) -> int:
        """Return by how many bytes the body of a token is rotated whose header names `rrc`."""
        return rrc

    def _named_rotation(self, flags: int, ec: int, rotation: int) -> int:
        """Return the RRC of a token whose body is rotated by `rotation` bytes."""
        return rotation

    def _ends(self, single: _Single, flags: int, ec: int, rrc: int, front: int, tail: int) -> tuple[bytes, bytes]:
        """Return what stands before and behind the data once the rotation is undone."""
        header, trailer = (single[_HEADER] or b"")[HEADER_SIZE:], single[_TRAILER]
        if trailer is None:
            rotation, trailer, header = self._named_rotation(flags, ec, tail), header[:tail], header[tail:]
        else:
            rotation = 0
        if rrc != rotation or len(header) != front or len(trailer) != tail or single[_PADDING]:
            raise DecodeError(
                "the token is not split as wrap_iov does (HEADER, DATA, empty PADDING, TRAILER or none): "
                "pass all of it as STREAM"
            )
        return header, trailer


class DceProtection(IovProtection):
    """Per-message tokens in DCE style: a token in one piece is that of `wrap_iov` without TRAILER."""

    __slots__ = ()

    _filler = b"\xff" * BLOCK
    wrap_iov = IovProtection._wrap_pieces
    unwrap_iov = IovProtection._unwrap_pieces

    def wrap(self, data: bytes, sealed: bool) -> bytes:
        """Return HEADER and DATA as one token."""
        header, body = self.wrap_iov([IovBuffer(_HEADER), IovBuffer(_DATA, data)], sealed)
        return header.data + body.data

    def unwrap(self, token: bytes, sealed: bool) -> bytes:
        """Return the data of a token; with `sealed`, refuse one that is only signed."""
        return self.unwrap_iov([IovBuffer(_STREAM, token), IovBuffer(_DATA)], sealed)[1].data

    def unwrap_into(self, token: bytes, sealed: bool, out: memoryview) -> int:
        """Write the data of a token into `out`, which has room for it, and return its size."""
        data = self.unwrap(token, sealed)
        out[: len(data)] = data
        return len(data)

    def wrap_size_limit(self, output_size: int, sealed: bool) -> int:
        """Return the largest size of data whose token has at most `output_size` bytes (0 where none fits)."""
        return super().wrap_size_limit(output_size - len(self._filler) if sealed else output_size, sealed)

    # The rotation is by EC + RRC: a fault of Windows that its peers share. Source: MS-KILE 3.4.5.4.1.

    def _rotation(self, flags: int, ec: int, rrc: int) -> int:
        return rrc + ec if flags & SEALED else rrc

    def _named_rotation(self, flags: int, ec: int, rotation: int) -> int:
        return rotation - ec if flags & SEALED else rotation


def _bytes(data: bytes) -> bytes:
    return data if type(data) is bytes else memoryview(data).tobytes()


def _parse(buffers: Sequence[IovBuffer], *, received: bool) -> tuple[_Single, list[bytes], _Signed]:
    """Return the buffers that occur once by type, the contents of DATA, and SIGN_ONLY with its place.

    What was `received` may have STREAM instead of HEADER.
    """
    single: _Single = [None] * _TYPES
    pieces: list[bytes] = []
    signed: _Signed = []
    for kind, contents in buffers:
        data = _bytes(contents)
        if kind == _DATA:
            pieces.append(data)
        elif kind == _SIGN_ONLY:
            signed.append((len(pieces), data))
        elif single[IovType(kind)] is not None:
            raise ValueError(f"there is more than one {IovType(kind).name} buffer")
        else:
            single[kind] = data
    if (single[_HEADER] is None) == (single[_STREAM] is None) or (single[_STREAM] is not None and not received):
        raise ValueError("the buffers need one HEADER, or for unwrap_iov one STREAM instead")
    return single, pieces, signed


def _offsets(signed: _Signed, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    """Return the SIGN_ONLY contents with their offsets in the joined DATA."""
    if not signed:
        return []
    ends = [0, *accumulate(map(len, pieces))]
    return [(ends[number], contents) for number, contents in signed]


def _mixed(pieces: list[bytes], signed: _Signed) -> bytes:
    """Return DATA and SIGN_ONLY joined in their order."""
    mixed: list[bytes] = []
    done = 0
    for number, contents in signed:
        mixed += (*pieces[done:number], contents)
        done = number
    return b"".join((*mixed, *pieces[done:]))


def _filled(buffers: Iterable[IovBuffer], single: _Single, pieces: list[bytes], data: bytes) -> list[IovBuffer]:
    """Return `buffers` with `data`, cut as `pieces` are, in DATA, and what is in `single`."""
    filled = []
    ends = accumulate(map(len, pieces))
    at = 0
    for buffer in buffers:
        kind = buffer[0]
        if kind == _DATA:
            end = next(ends)
            filled.append(IovBuffer(_DATA, data[at:end]))
            at = end
        elif kind == _SIGN_ONLY:
            filled.append(buffer)
        else:
            filled.append(IovBuffer(kind, single[kind] or b""))
    return filled
