"""Per-message tokens of RFC 4121: Wrap (sealed, or signed only) and MIC.

A token starts with 16 bytes, numbers big-endian:

    Wrap  05 04 | flags | FF | EC (2) | RRC (2) | SND_SEQ (8), then the body rotated right by RRC
    MIC   04 04 | flags | FF FF FF FF FF       | SND_SEQ (8), then the checksum

The body of a sealed token is Encrypt(data | filler of EC bytes | header with RRC 0); of a signed one, data | checksum
over (data | header with EC and RRC 0). Tokens are sent with EC 0 and rotated so that all overhead stands before the
data, as Windows sends them; any rotation is accepted.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from functools import partial
from itertools import count
from threading import Lock
from typing import ClassVar, NoReturn, cast

from purekrb import crypto
from purekrb.constants import Flag, KeyUsage
from purekrb.crypto.aes_cipher import AesUsageCipher
from purekrb.crypto.aes_cts import BLOCK, LARGE
from purekrb.errors import DecodeError, IntegrityError, KerberosError, PolicyError, ProtocolError, UnsupportedError
from purekrb.gss.sequence import SequenceWindow
from purekrb.keys import EncryptionKey, etype_name
from purekrb.system import RandomBytes, random_block, random_bytes

__all__ = ["WrapToken", "MicToken", "CfxProtection", "HEADER_SIZE", "SEALED", "wrap_header", "rotated"]

HEADER_SIZE = 16
SENT_BY_ACCEPTOR, SEALED, ACCEPTOR_SUBKEY = 1, 2, 4
#: The flags that are the same in every token of a direction.
_CHECKED = SENT_BY_ACCEPTOR | ACCEPTOR_SUBKEY
_WRAP, _MIC, _FILLER = 0x0504, b"\x04\x04", 0xFF
_MIC_FILLER = b"\xff" * 5
_MIC_HEADER = struct.Struct(">2sB5sQ")
_WRAP_HEADER = struct.Struct(">HBBHHQ")
_WRAP_START = struct.Struct(">HBBHH")  # what comes before SND_SEQ
_SEQ_MASK = (1 << 64) - 1
_REPLAY, _SEQUENCE = int(Flag.REPLAY), int(Flag.SEQUENCE)


@dataclass(frozen=True, slots=True)
class WrapToken:
    """A Wrap token taken apart; `data` is the body with the rotation undone. Source: RFC 4121 4.2.6.2."""

    flags: int
    ec: int
    rrc: int
    snd_seq: int
    data: bytes

    @classmethod
    def decode(cls, token: bytes) -> WrapToken:
        """Return the token's fields. Raises DecodeError unless the header is a Wrap header."""
        if len(token) <= HEADER_SIZE:
            raise DecodeError("this is not an RFC 4121 Wrap token, or it is cut off")
        tok_id, flags, filler, ec, rrc, snd_seq = _WRAP_HEADER.unpack_from(token)
        if tok_id != _WRAP or filler != _FILLER:
            raise DecodeError("this is not an RFC 4121 Wrap token")
        return cls(flags, ec, rrc, snd_seq, rotated(token[HEADER_SIZE:], -rrc))


@dataclass(frozen=True, slots=True)
class MicToken:
    """A MIC token taken apart; `data` is its checksum. Source: RFC 4121 4.2.6.1."""

    flags: int
    snd_seq: int
    data: bytes

    @classmethod
    def decode(cls, token: bytes) -> MicToken:
        """Return the token's fields. Raises DecodeError unless the header is a MIC header."""
        if len(token) < HEADER_SIZE or token[:2] != _MIC or token[3:8] != _MIC_FILLER:
            raise DecodeError("this is not an RFC 4121 MIC token")
        return cls(token[2], int.from_bytes(token[8:16], "big"), token[16:])


class CfxProtection:
    """Makes and checks the per-message tokens of one context with an AES key.

    `send_seq` and `receive_seq` are the initial sequence numbers; `seen` is what `sequences` returned, where an earlier
    object is carried on. Safe to use from several threads.
    """

    etypes: ClassVar[tuple[int, ...]] = (17, 18, 19, 20)

    def __init__(
        self,
        key: EncryptionKey,
        *,
        initiator: bool,
        acceptor_subkey: bool,
        send_seq: int,
        receive_seq: int,
        flags: int,
        random: RandomBytes,
        seen: int = 0,
    ) -> None:
        if key.etype not in self.etypes:
            raise UnsupportedError(f"RFC 4121 tokens need an AES key, not {etype_name(key.etype)}")
        profile = crypto.profile_of(key.etype)
        self._mac_size = profile.checksum_size
        self._confounder_size = profile.confounder_size
        #: Bytes by which a sealed body is rotated: the trailer (last block and MAC) comes first.
        self._sealed_rrc = HEADER_SIZE + self._mac_size
        subkey = ACCEPTOR_SUBKEY if acceptor_subkey else 0
        self._send_flags = send_flags = subkey | (0 if initiator else SENT_BY_ACCEPTOR)
        self._receive_flags = subkey | (SENT_BY_ACCEPTOR if initiator else 0)
        ours = (KeyUsage.INITIATOR_SEAL, KeyUsage.INITIATOR_SIGN)
        theirs = (KeyUsage.ACCEPTOR_SEAL, KeyUsage.ACCEPTOR_SIGN)
        if not initiator:
            ours, theirs = theirs, ours
        # Made at once, since plain attributes are read fastest; each derives its keys when it is first used.
        self._seal, self._sign = _cipher(key, ours[0]), _cipher(key, ours[1])
        self._unseal, self._unsign = _cipher(key, theirs[0]), _cipher(key, theirs[1])
        self._confounder = random_block if random is random_bytes else partial(random, BLOCK)
        self._receive_lock = Lock()
        self._send_seq = count(send_seq)  # its next() is atomic
        flags_sealed, size = send_flags | SEALED, self._mac_size
        self._sealed_start = wrap_header(flags_sealed, 0, self._sealed_rrc)
        self._sealed_copy = wrap_header(flags_sealed, 0, 0)
        self._signed_start = wrap_header(send_flags, size, size)
        self._signed_copy = wrap_header(send_flags, 0, 0)
        self._mic_start = _MIC + bytes((send_flags,)) + _MIC_FILLER
        self._window = SequenceWindow(
            receive_seq, replay=bool(flags & _REPLAY), sequence=bool(flags & _SEQUENCE), seen=seen
        )

    def wrap(self, data: bytes, sealed: bool) -> bytes:
        """Return a Wrap token over `data`. Source: RFC 4121 4.2.4."""
        snd_seq = self._next_seq()
        if sealed:
            header, copy = self._sealed_start + snd_seq, self._sealed_copy + snd_seq
            return self._seal.seal(header, data, copy, self._confounder())
        mac = self._seal.checksum(data, self._signed_copy + snd_seq)
        return b"".join((self._signed_start, snd_seq, mac, data))

    def unwrap(self, token: bytes, sealed: bool) -> bytes:
        """Return the data of a Wrap token; with `sealed`, refuse one that is only signed. Source: RFC 4121 4.2.4."""
        flags, ec, rrc, snd_seq = self._read_header(token)
        if flags & SEALED:
            data = self._open_sealed(token, ec, rrc)
        elif sealed:
            raise PolicyError("the message is only signed, not sealed: unwrap(token, sealed=False) accepts such")
        else:
            data = self._open_signed(token, ec, rrc)
        with self._receive_lock:
            self._window.check(snd_seq)
        return data

    def unwrap_into(self, token: bytes, sealed: bool, out: memoryview) -> int:
        """Write the data of a Wrap token into `out`, which has room for it, and return its size.

        After an error nothing of a large message is in `out`, and it is as it was after that of another.
        """
        flags, ec, rrc, snd_seq = self._read_header(token)
        trailer = self._sealed_rrc
        size = len(token) - HEADER_SIZE - trailer - BLOCK
        if size < LARGE or not flags & SEALED or rrc != trailer:
            data = self.unwrap(token, sealed)
            out[: len(data)] = data
            return len(data)
        with memoryview(token) as view, out[:size] as place:
            head = token[: HEADER_SIZE + trailer]
            suffix = self._unseal.open_into(
                place, view[len(head) :], head[HEADER_SIZE : HEADER_SIZE + BLOCK], head[HEADER_SIZE + BLOCK :]
            )
            try:
                self._check_copy(head, suffix, ec, size)
                with self._receive_lock:
                    self._window.check(snd_seq)
            except KerberosError:
                place[:] = bytes(size)
                raise
        return size - ec

    def get_mic(self, data: bytes) -> bytes:
        """Return a MIC token over `data`. Source: RFC 4121 4.2.6.1."""
        header = self._mic_start + self._next_seq()
        return header + self._sign.checksum(data, header)

    def verify_mic(self, data: bytes, mic: bytes) -> None:
        """Raise unless `mic` is the peer's MIC token over `data`."""
        if len(mic) < HEADER_SIZE:
            raise DecodeError("this is not an RFC 4121 MIC token")
        tok_id, flags, filler, snd_seq = _MIC_HEADER.unpack_from(mic)
        if tok_id != _MIC or filler != _MIC_FILLER:
            raise DecodeError("this is not an RFC 4121 MIC token")
        if (flags ^ self._receive_flags) & _CHECKED:
            self._refuse(flags)
        if flags & SEALED:
            raise ProtocolError("a MIC token is marked as sealed")
        if not hmac.compare_digest(self._unsign.checksum(data, mic[:HEADER_SIZE]), mic[HEADER_SIZE:]):
            raise IntegrityError
        with self._receive_lock:
            self._window.check(snd_seq)

    def wrap_size_limit(self, output_size: int, sealed: bool) -> int:
        """Return the largest size of data whose Wrap token has at most `output_size` bytes (0 where none fits)."""
        overhead = HEADER_SIZE + self._mac_size + (self._confounder_size + HEADER_SIZE if sealed else 0)
        return max(0, output_size - overhead)

    def sequences(self) -> tuple[int, int, int]:
        """Return `send_seq`, `receive_seq` and `seen` for an object that carries on where this one ends."""
        with self._receive_lock:
            return next(self._send_seq) & _SEQ_MASK, *self._window.state

    def _open_sealed(self, token: bytes, ec: int, rrc: int) -> bytes:
        trailer = self._sealed_rrc
        if len(token) < HEADER_SIZE + self._confounder_size + trailer:
            raise DecodeError("the sealed message is cut off")
        if rrc != trailer:  # another rotation than ours: turn the body so that it is
            token = token[:HEADER_SIZE] + rotated(token[HEADER_SIZE:], trailer - rrc)
        body = memoryview(token) if len(token) > LARGE else token  # no copy of what is large
        data, suffix = self._unseal.open(
            body[HEADER_SIZE + trailer :],
            token[HEADER_SIZE : HEADER_SIZE + BLOCK],
            token[HEADER_SIZE + BLOCK : HEADER_SIZE + trailer],
        )
        self._check_copy(token, suffix, ec, len(data))
        return data[: len(data) - ec] if ec else data

    def _open_signed(self, token: bytes, ec: int, rrc: int) -> bytes:
        size = self._mac_size
        if ec != size or len(token) < HEADER_SIZE + size:
            raise DecodeError(f"the checksum of a signed message has {size} bytes")
        if rrc != size:
            token = token[:HEADER_SIZE] + rotated(token[HEADER_SIZE:], size - rrc)
        data = token[HEADER_SIZE + size :]
        copy = b"".join((token[:4], bytes(4), token[8:HEADER_SIZE]))
        if not hmac.compare_digest(self._unseal.checksum(data, copy), token[HEADER_SIZE : HEADER_SIZE + size]):
            raise IntegrityError
        return data

    @staticmethod
    def _check_copy(token: bytes, suffix: bytes, ec: int, size: int) -> None:
        # The encrypted copy of the header protects all of it but RRC, which changes nothing but the layout.
        copy = b"".join((token[:6], b"\0\0", token[8:HEADER_SIZE]))
        if ec > size or not hmac.compare_digest(suffix, copy):
            raise IntegrityError

    def _read_header(self, token: bytes) -> tuple[int, int, int, int]:
        """Return flags, EC, RRC and SND_SEQ of a Wrap token of the peer."""
        if len(token) < HEADER_SIZE:
            raise DecodeError("this is not an RFC 4121 Wrap token")
        tok_id, flags, filler, ec, rrc, snd_seq = _WRAP_HEADER.unpack_from(token)
        if tok_id != _WRAP or filler != _FILLER:
            raise DecodeError("this is not an RFC 4121 Wrap token")
        if (flags ^ self._receive_flags) & _CHECKED:
            self._refuse(flags)
        return flags, ec, rrc, snd_seq

    def _refuse(self, flags: int) -> NoReturn:
        # Unknown bits are ignored, as RFC 4121 4.2.2 demands, but the checksum covers them.
        if (flags ^ self._receive_flags) & SENT_BY_ACCEPTOR:
            raise ProtocolError("this token was sent in the other direction: a reflection, or one of our own")
        raise ProtocolError("the token is not protected with the key that this context agreed on")

    def _next_seq(self) -> bytes:
        return (next(self._send_seq) & _SEQ_MASK).to_bytes(8, "big")


def wrap_header(flags: int, ec: int, rrc: int) -> bytes:
    """Return the header of a Wrap token but for its last 8 bytes, SND_SEQ. Source: RFC 4121 4.2.6.2."""
    return _WRAP_START.pack(_WRAP, flags, _FILLER, ec, rrc)


def rotated(body: bytes, turn: int) -> bytes:
    """Return `body` rotated right by `turn` bytes (left where negative)."""
    cut = -turn % len(body)
    return body[cut:] + body[:cut]


def _cipher(key: EncryptionKey, usage: int) -> AesUsageCipher:
    return cast(AesUsageCipher, crypto.usage_cipher(key, usage))
