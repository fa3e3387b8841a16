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
from threading import Lock
from typing import ClassVar

from purekrb import crypto
from purekrb.constants import Flag, KeyUsage
from purekrb.errors import DecodeError, IntegrityError, PolicyError, ProtocolError
from purekrb.gss.sequence import SequenceWindow
from purekrb.keys import EncryptionKey
from purekrb.system import RandomBytes

__all__ = ["WrapToken", "MicToken", "CfxProtection", "HEADER_SIZE"]

HEADER_SIZE = 16
SENT_BY_ACCEPTOR, SEALED, ACCEPTOR_SUBKEY = 1, 2, 4
_WRAP, _MIC, _FILLER = b"\x05\x04", b"\x04\x04", 0xFF
_MIC_FILLER = b"\xff" * 5
_WRAP_HEADER = struct.Struct(">HBBHHQ")
_MIC_HEADER = struct.Struct(">HB5sQ")
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
        if len(token) < HEADER_SIZE or token[:2] != _WRAP or token[3] != _FILLER:
            raise DecodeError("this is not an RFC 4121 Wrap token")
        _, flags, _, ec, rrc, snd_seq = _WRAP_HEADER.unpack_from(token)
        turn = rrc % (len(token) - HEADER_SIZE) if len(token) > HEADER_SIZE else 0
        body = (
            token[HEADER_SIZE:] if not turn else token[HEADER_SIZE + turn :] + token[HEADER_SIZE : HEADER_SIZE + turn]
        )
        return cls(flags, ec, rrc, snd_seq, body)


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

    `send_seq` and `receive_seq` are the initial sequence numbers. Safe to use from several threads.
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
    ) -> None:
        profile = crypto.profile_of(key.etype)
        self._mac_size = profile.checksum_size
        self._confounder_size = profile.confounder_size
        #: Bytes by which a sealed body is rotated: the trailer (last block and MAC) comes first.
        self._sealed_rrc = HEADER_SIZE + self._mac_size
        subkey = ACCEPTOR_SUBKEY if acceptor_subkey else 0
        self._send_flags = subkey | (0 if initiator else SENT_BY_ACCEPTOR)
        self._receive_flags = subkey | (SENT_BY_ACCEPTOR if initiator else 0)
        ours = (KeyUsage.INITIATOR_SEAL, KeyUsage.INITIATOR_SIGN)
        theirs = (KeyUsage.ACCEPTOR_SEAL, KeyUsage.ACCEPTOR_SIGN)
        if not initiator:
            ours, theirs = theirs, ours
        self._seal, self._sign = (crypto.usage_cipher(key, usage) for usage in ours)
        self._unseal, self._unsign = (crypto.usage_cipher(key, usage) for usage in theirs)
        self._random = random
        self._send_lock, self._receive_lock = Lock(), Lock()
        self._send_seq = send_seq
        self._window = SequenceWindow(
            receive_seq, replay=bool(flags & _REPLAY), sequence=bool(flags & _SEQUENCE)
        )

    def wrap(self, data: bytes, sealed: bool) -> bytes:
        """Return a Wrap token over `data`. Source: RFC 4121 4.2.4."""
        seq = self._next_seq()
        if not sealed:
            header = _WRAP_HEADER.pack(0x0504, self._send_flags, _FILLER, 0, 0, seq)
            mac = self._seal.checksum(data + header)
            size = self._mac_size
            return b"".join((_WRAP_HEADER.pack(0x0504, self._send_flags, _FILLER, size, size, seq), mac, data))
        flags, rrc = self._send_flags | SEALED, self._sealed_rrc
        header = _WRAP_HEADER.pack(0x0504, flags, _FILLER, 0, 0, seq)
        body = self._seal.encrypt(data + header, self._random(self._confounder_size))
        return b"".join((_WRAP_HEADER.pack(0x0504, flags, _FILLER, 0, rrc, seq), body[-rrc:], body[:-rrc]))

    def unwrap(self, token: bytes, sealed: bool) -> bytes:
        """Return the data of a Wrap token; with `sealed`, refuse one that is only signed. Source: RFC 4121 4.2.4."""
        parsed = WrapToken.decode(token)
        self._check_flags(parsed.flags)
        if not parsed.flags & SEALED:
            if sealed:
                raise PolicyError("the message is only signed, not sealed: unwrap(token, sealed=False) accepts such")
            data = self._open_signed(parsed)
        else:
            data = self._open_sealed(parsed, token[:4])
        self._check_sequence(parsed.snd_seq)
        return data

    def get_mic(self, data: bytes) -> bytes:
        """Return a MIC token over `data`. Source: RFC 4121 4.2.6.1."""
        header = _MIC_HEADER.pack(0x0404, self._send_flags, _MIC_FILLER, self._next_seq())
        return header + self._sign.checksum(data + header)

    def verify_mic(self, data: bytes, mic: bytes) -> None:
        """Raise unless `mic` is the peer's MIC token over `data`."""
        parsed = MicToken.decode(mic)
        self._check_flags(parsed.flags)
        if parsed.flags & SEALED:
            raise ProtocolError("a MIC token is marked as sealed")
        if not hmac.compare_digest(self._unsign.checksum(data + mic[:HEADER_SIZE]), parsed.data):
            raise IntegrityError
        self._check_sequence(parsed.snd_seq)

    def wrap_size_limit(self, output_size: int, sealed: bool) -> int:
        """Return the largest size of data whose Wrap token has at most `output_size` bytes (0 where none fits)."""
        overhead = HEADER_SIZE + self._mac_size + (self._confounder_size + HEADER_SIZE if sealed else 0)
        return max(0, output_size - overhead)

    def _open_sealed(self, token: WrapToken, start: bytes) -> bytes:
        plaintext = self._unseal.decrypt(token.data)
        end = len(plaintext) - HEADER_SIZE - token.ec
        # The encrypted copy of the header protects all of it but RRC, which changes nothing but the layout.
        copy = start + token.ec.to_bytes(2, "big") + b"\0\0" + token.snd_seq.to_bytes(8, "big")
        if end < 0 or not hmac.compare_digest(plaintext[-HEADER_SIZE:], copy):
            raise IntegrityError
        return plaintext[:end]

    def _open_signed(self, token: WrapToken) -> bytes:
        size = self._mac_size
        if token.ec != size or len(token.data) < size:
            raise DecodeError(f"the checksum of a signed message has {size} bytes")
        data = token.data[:-size]
        header = _WRAP_HEADER.pack(0x0504, token.flags, _FILLER, 0, 0, token.snd_seq)
        if not hmac.compare_digest(self._unseal.checksum(data + header), token.data[-size:]):
            raise IntegrityError
        return data

    def _check_flags(self, flags: int) -> None:
        # Unknown bits are ignored, as RFC 4121 4.2.2 demands, but the checksum covers them.
        if (flags ^ self._receive_flags) & SENT_BY_ACCEPTOR:
            raise ProtocolError("this token was sent in the other direction: a reflection, or one of our own")
        if (flags ^ self._receive_flags) & ACCEPTOR_SUBKEY:
            raise ProtocolError("the token is not protected with the key that this context agreed on")

    def _check_sequence(self, snd_seq: int) -> None:
        with self._receive_lock:
            self._window.check(snd_seq)

    def _next_seq(self) -> int:
        with self._send_lock:
            seq = self._send_seq
            self._send_seq = seq + 1 & _SEQ_MASK
        return seq
