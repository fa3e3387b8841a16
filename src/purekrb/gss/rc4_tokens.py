"""Per-message tokens of RC4 contexts, which are opt-in. Source: RFC 4757 7.

    60 len | OID | token id | SGN_ALG 11 00 | SEAL_ALG | FF FF
    | SND_SEQ (8) | SGN_CKSUM (8) | confounder (8) | data

SEAL_ALG is 10 00 (confounder and data encrypted with RC4) or FF FF (both in clear text). SND_SEQ is
encrypted with RC4. It holds a 32-bit big-endian number and four direction bytes (00 from the
initiator, FF from the acceptor). Every Wrap token carries one byte of padding, 01.

SGN_CKSUM does not cover SND_SEQ. If the number of a sealed token is changed, the token does not
decrypt. But a token that is only signed can be repeated: an attacker on the network can give it the
next number. So seal messages that must not be repeated.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from threading import Lock

from purekrb.constants import KRB5_MECH_OID, Flag
from purekrb.crypto.rc4 import hmac_md5, rc4
from purekrb.errors import DecodeError, IntegrityError, PolicyError, ProtocolError, UnsupportedError
from purekrb.gss.framing import frame, unframe
from purekrb.gss.iov import IovBuffer
from purekrb.gss.sequence import SequenceWindow
from purekrb.gss.tokens import ONLY_SIGNED, OTHER_DIRECTION
from purekrb.keys import EncryptionKey
from purekrb.messages.der import tlv
from purekrb.system import RandomBytes, fork_safe
from purekrb.tracebacks import forget_frames

__all__ = ["Rc4Protection"]

_WRAP = b"\x02\x01"
_HMAC_MD5 = b"\x11\x00"
_SEAL_RC4, _SEAL_NONE = b"\x10\x00", b"\xff\xff"
_FILLER = b"\xff\xff"
_WRAP_SALT = (13).to_bytes(4, "little")
_WRAP_SIZE = 32  # token id to confounder
_PAD = b"\x01"
_MECHANISM = tlv(0x06, KRB5_MECH_OID)


class Rc4Protection:
    """Makes and checks the per-message tokens of one context with an RC4 key. Thread-safe."""

    __slots__ = (  # no __dict__ to print
        "_ours",
        "_random",
        "_seal_key",
        "_send_lock",
        "_send_seq",
        "_seq_key",
        "_sign_key",
        "_theirs",
        "_window",
    )

    @forget_frames
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
        del acceptor_subkey  # the tokens of RFC 4757 have no bit for it
        contents = key.contents
        self._sign_key = hmac_md5(contents, b"signaturekey\0")
        self._seq_key = hmac_md5(contents, bytes(4))
        self._seal_key = hmac_md5(bytes(b ^ 0xF0 for b in contents), bytes(4))
        self._ours, self._theirs = (bytes(4), b"\xff" * 4) if initiator else (b"\xff" * 4, bytes(4))
        self._random = random
        self._send_lock = fork_safe(Lock())
        self._send_seq = send_seq
        self._window = SequenceWindow(
            receive_seq,
            replay=bool(flags & Flag.REPLAY),
            sequence=bool(flags & Flag.SEQUENCE),
            bits=32,
            seen=seen,
        )

    def wrap(self, data: bytes, sealed: bool) -> bytes:
        """Return a Wrap token over `data`. Source: RFC 4757 7.3."""
        seq = self._next_seq()
        header = _HMAC_MD5 + (_SEAL_RC4 if sealed else _SEAL_NONE) + _FILLER
        confounder = self._random(8)
        body = confounder + data + _PAD
        checksum = self._checksum(_WRAP_SALT, _WRAP + header + body)
        snd_seq = rc4(hmac_md5(self._seq_key, checksum), seq + self._ours)
        if sealed:
            body = rc4(hmac_md5(self._seal_key, seq), body)
        return frame(_WRAP, header + snd_seq + checksum + body)

    def unwrap(self, token: bytes, sealed: bool) -> bytes:
        """Return the data of a Wrap token; with `sealed`, refuse one that is only signed."""
        found, inner = unframe(token)
        if found != _WRAP or len(inner) < _WRAP_SIZE - 2 + len(_PAD):
            raise DecodeError("this is not an RFC 4757 Wrap token, or it is cut off")
        seal_alg = inner[2:4]
        if (
            inner[:2] != _HMAC_MD5
            or seal_alg not in (_SEAL_RC4, _SEAL_NONE)
            or inner[4:6] != _FILLER
        ):
            raise DecodeError("this is not an RFC 4757 Wrap token")
        if seal_alg == _SEAL_NONE and sealed:
            raise PolicyError(ONLY_SIGNED)
        checksum, body = inner[14:22], inner[22:]
        seq = self._sequence_of(inner[6:14], checksum)
        if seal_alg == _SEAL_RC4:
            body = rc4(hmac_md5(self._seal_key, seq), body)
        expected = self._checksum(_WRAP_SALT, _WRAP + inner[:6] + body)
        # RFC 4757 7.3: the checksum, and one byte of padding. Both have the same error, so that
        # neither is an oracle for the other.
        if not hmac.compare_digest(expected, checksum) or body[-1:] != _PAD or len(body) < 9:
            raise IntegrityError
        self._check_sequence(seq)
        return body[8:-1]

    def is_sealed(self, token: bytes) -> bool:
        """Return whether the header of a Wrap token says that it is sealed."""
        return unframe(token)[1][2:4] == _SEAL_RC4

    def unwrap_into(self, token: bytes, sealed: bool, out: memoryview) -> int:
        """Write the data of a Wrap token into `out`, which has room for it, and return its size."""
        data = self.unwrap(token, sealed)
        out[: len(data)] = data
        return len(data)

    def get_mic(self, data: bytes) -> bytes:
        """Refuse: messages with the same MD5 digest would have the same MIC. Use `wrap` instead."""
        raise PolicyError(
            "RC4 MIC tokens rest on MD5 and can be forged by collisions: "
            "use wrap(data, sealed=False), or AES keys"
        )

    def verify_mic(self, data: bytes, mic: bytes) -> None:
        """Refuse, for the reason of `get_mic`."""
        self.get_mic(data)

    def wrap_size_limit(self, output_size: int, sealed: bool) -> int:
        """Return the largest size of data for a Wrap token of `output_size` bytes, or 0."""
        for octets in range(5):  # the frame's length has more octets for longer contents
            contents = output_size - 2 - octets
            size = contents - len(_MECHANISM) - _WRAP_SIZE - len(_PAD)
            if size >= 0 and contents < (1 << 8 * octets if octets else 0x80):
                return size
        return 0

    def sequences(self) -> tuple[int, int, int]:
        """Return the `send_seq`, `receive_seq` and `seen` of a successor."""
        with self._send_lock:
            return self._send_seq, *self._window.state

    def wrap_iov(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[IovBuffer]:
        """Refuse: only AES contexts have tokens in pieces."""
        raise UnsupportedError(
            "tokens in pieces (wrap_iov) are for AES contexts: use wrap and unwrap, or AES keys"
        )

    unwrap_iov = wrap_iov

    def wrap_iov_length(self, buffers: Sequence[IovBuffer], sealed: bool) -> list[int]:
        """Refuse, for the reason of `wrap_iov`."""
        return [len(buffer.data) for buffer in self.wrap_iov(buffers, sealed)]

    def _checksum(self, salt: bytes, data: bytes) -> bytes:
        return hmac_md5(self._sign_key, hashlib.md5(salt + data, usedforsecurity=False).digest())[
            :8
        ]

    def _sequence_of(self, snd_seq: bytes, checksum: bytes) -> bytes:
        plain = rc4(hmac_md5(self._seq_key, checksum), snd_seq)
        # RFC 4757 7.2: the direction bytes.
        if plain[4:] == self._ours:
            raise ProtocolError(OTHER_DIRECTION)
        if plain[4:] != self._theirs:
            raise IntegrityError
        return plain[:4]

    def _check_sequence(self, seq: bytes) -> None:
        self._window.check(seq)

    def _next_seq(self) -> bytes:
        with self._send_lock:
            seq = self._send_seq
            self._send_seq = seq + 1 & 0xFFFFFFFF
        return seq.to_bytes(4, "big")
