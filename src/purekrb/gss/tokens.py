"""Per-message tokens of RFC 4121: Wrap (sealed, or signed only) and MIC.

A token starts with 16 bytes. Numbers are big-endian:

    Wrap  05 04 | flags | FF | EC (2) | RRC (2) | SND_SEQ (8), then the body rotated right by RRC
    MIC   04 04 | flags | FF FF FF FF FF       | SND_SEQ (8), then the checksum

The body of a sealed token is Encrypt(data | filler of EC bytes | header with RRC 0). The body of a
signed token is data | checksum over (data | header with EC and RRC 0). Sealed tokens are sent with
EC 0, and rotated so that all overhead comes before the data, like those of Windows. Signed tokens
are sent without rotation, like those of MIT, because some libraries read no others. Any rotation
is accepted.
"""

from __future__ import annotations

import hmac
import struct
from functools import cache, partial
from typing import ClassVar, NoReturn, cast

from purekrb import crypto
from purekrb.constants import Flag, KeyUsage
from purekrb.crypto.aes_cipher import AesUsageCipher
from purekrb.crypto.aes_cts import BLOCK, LARGE
from purekrb.errors import (
    DecodeError,
    IntegrityError,
    PolicyError,
    ProtocolError,
    SequenceError,
    UnsupportedError,
)
from purekrb.gss.sequence import SequenceWindow, numbers
from purekrb.keys import EncryptionKey, etype_name
from purekrb.records import record
from purekrb.system import RandomBytes, random_block, random_bytes

__all__ = [
    "WrapToken",
    "MicToken",
    "CfxProtection",
    "HEADER_SIZE",
    "ONLY_SIGNED",
    "OTHER_DIRECTION",
    "SND_SEQ",
    "SEALED",
    "as_bytes",
    "wrap_header",
    "rotated",
]

HEADER_SIZE = 16
SENT_BY_ACCEPTOR, SEALED, ACCEPTOR_SUBKEY = 1, 2, 4
#: The flags that are the same in all tokens of a direction.
_CHECKED = SENT_BY_ACCEPTOR | ACCEPTOR_SUBKEY
_WRAP, _MIC, _FILLER = 0x0504, b"\x04\x04", 0xFF
_MIC_FILLER = b"\xff" * 5
_WRAP_HEADER = struct.Struct(">HBBHHQ")
_WRAP_START = struct.Struct(">HBBHH")
#: The offset of SND_SEQ in a header.
SND_SEQ = _WRAP_START.size
_REPLAY, _SEQUENCE = int(Flag.REPLAY), int(Flag.SEQUENCE)

#: Errors that the tokens of every etype have.
ONLY_SIGNED = "the message is only signed, not sealed: pass sealed=False to accept signed messages"
OTHER_DIRECTION = "this token was sent in the other direction: a reflection, or one of our own"


def as_bytes(data: bytes) -> bytes:
    """Return any bytes-like object as bytes; TypeError for others (`bytes(5)` gives five zeros)."""
    return data if type(data) is bytes else memoryview(data).tobytes()


@record
class WrapToken:
    """A Wrap token taken apart; `data` is the body with the rotation undone. RFC 4121 4.2.6.2."""

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


@record
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

    `send_seq` and `receive_seq` are the initial sequence numbers. `seen` is 0, or for a successor
    of an earlier object, the value that `sequences` returned. Thread-safe.
    """

    etypes: ClassVar[tuple[int, ...]] = (17, 18, 19, 20)

    __slots__ = (
        "_confounder",
        "_initiator",
        "_key",
        "_ours",
        "_seal",
        "_send_seq",
        "_sign",
        "_theirs",
        "_unseal",
        "_unsign",
        "_window",
    )

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
        self._key = key
        self._initiator = initiator
        subkey = ACCEPTOR_SUBKEY if acceptor_subkey else 0
        self._ours = _layout(key.etype, subkey | (0 if initiator else SENT_BY_ACCEPTOR))
        self._theirs = _layout(key.etype, subkey | (SENT_BY_ACCEPTOR if initiator else 0))
        self._confounder = random_block if random is random_bytes else partial(random, BLOCK)
        # Each cipher is made at its first use: many contexts never use some of them. A token takes
        # its sequence number before its cipher. If the key is wiped in between, no token is made
        # (see `export_context`).
        self._seal: AesUsageCipher | None = None
        self._sign: AesUsageCipher | None = None
        self._unseal: AesUsageCipher | None = None
        self._unsign: AesUsageCipher | None = None
        self._send_seq = numbers(send_seq)
        self._window = SequenceWindow(
            receive_seq, replay=bool(flags & _REPLAY), sequence=bool(flags & _SEQUENCE), seen=seen
        )

    def wrap(self, data: bytes, sealed: bool) -> bytes:
        """Return a Wrap token over `data`. Source: RFC 4121 4.2.4."""
        snd_seq = next(self._send_seq)
        ours, seal = self._ours, self._seal or self._make_seal()
        if sealed:
            return seal.seal(
                ours.sealed + snd_seq, data, ours.sealed_copy + snd_seq, self._confounder()
            )
        mac = seal.checksum(data, ours.signed_copy + snd_seq)
        return b"".join((ours.signed, snd_seq, data, mac))

    def unwrap(self, token: bytes, sealed: bool) -> bytes:
        """Return the data of a Wrap token; with `sealed`, refuse a token that is only signed.

        Source: RFC 4121 4.2.4.
        """
        theirs = self._theirs
        start = token[:SND_SEQ]
        if start == theirs.sealed:
            flags, ec, copy_start = SEALED, 0, theirs.sealed_copy
        elif start == theirs.signed and not sealed:
            flags, ec, copy_start = 0, 0, theirs.signed_copy
        else:
            flags, ec, token, copy_start = self._read_other(token, sealed)
        size = len(token)
        if not flags & SEALED:
            if size < theirs.signed_size:
                raise DecodeError("the signed message is cut off")
            snd_seq = token[SND_SEQ:HEADER_SIZE]
            data, mac = token[HEADER_SIZE : -theirs.mac_size], token[-theirs.mac_size :]
            expected = (self._unseal or self._make_unseal()).checksum(data, copy_start + snd_seq)
            # RFC 4121 4.2.4: the checksum covers data and header.
            if not hmac.compare_digest(expected, mac):
                raise IntegrityError
            # RFC 4121 4.2.2, RFC 2743 1.2.3: replay and order, once the token is genuine.
            self._window.check(snd_seq)
            return data
        if size < theirs.sealed_size:
            raise DecodeError("the sealed message is cut off")
        snd_seq, last, mac = theirs.sealed_parts.unpack_from(token)
        # A view of large tokens spares a copy.
        body = (token if size < LARGE else memoryview(token))[theirs.sealed_body]
        # RFC 4121 4.2.4: the encrypted copy protects the whole header except RRC, which changes
        # only the layout.
        data = (self._unseal or self._make_unseal()).open(body, last, mac, copy_start + snd_seq)
        if ec:
            if ec > len(data):
                raise IntegrityError
            data = data[:-ec]
        self._window.check(snd_seq)
        return data

    def is_sealed(self, token: bytes) -> bool:
        """Return whether the header of a Wrap token says that it is sealed."""
        return len(token) > 2 and bool(token[2] & SEALED)

    def unwrap_into(self, token: bytes, sealed: bool, out: memoryview) -> int:
        """Write the data of a Wrap token into `out`, which has room for it, and return its size.

        After an error, `out` is unchanged, or for a large message zeroed.
        """
        theirs = self._theirs
        size = len(token) - theirs.sealed_size
        if size < LARGE or token[:SND_SEQ] != theirs.sealed:
            data = self.unwrap(token, sealed)
            out[: len(data)] = data
            return len(data)
        snd_seq, last, mac = theirs.sealed_parts.unpack_from(token)
        with memoryview(token) as view, out[:size] as place:
            unseal = self._unseal or self._make_unseal()
            unseal.open_into(
                place, view[theirs.sealed_body], last, mac, theirs.sealed_copy + snd_seq
            )
            try:
                self._window.check(snd_seq)
            except SequenceError:
                place[:] = bytes(size)
                raise
        return size

    def get_mic(self, data: bytes) -> bytes:
        """Return a MIC token over `data`. Source: RFC 4121 4.2.6.1."""
        header = self._ours.detached + next(self._send_seq)
        return header + (self._sign or self._make_sign()).checksum(data, header)

    def verify_mic(self, data: bytes, mic: bytes) -> None:
        """Raise unless `mic` is the peer's MIC token over `data`. Source: RFC 4121 4.2.6.1."""
        header, mac = mic[:HEADER_SIZE], mic[HEADER_SIZE:]
        if header[:SND_SEQ] != self._theirs.detached or not mac:
            self._check_mic_header(header)
        expected = (self._unsign or self._make_unsign()).checksum(data, header)
        if not hmac.compare_digest(expected, mac):
            raise IntegrityError
        self._window.check(header[SND_SEQ:])

    def wrap_size_limit(self, output_size: int, sealed: bool) -> int:
        """Return the largest size of data for a Wrap token of `output_size` bytes, or 0."""
        ours = self._ours
        return max(0, output_size - (ours.sealed_size if sealed else ours.signed_size))

    def sequences(self) -> tuple[int, int, int]:
        """Return the `send_seq`, `receive_seq` and `seen` of a successor."""
        return int.from_bytes(next(self._send_seq), "big"), *self._window.state

    def _read_other(self, token: bytes, sealed: bool) -> tuple[int, int, bytes, bytes]:
        """Check the header of data that may be a token with another layout than ours.

        Return the flags, EC, the token rotated to our layout, and the start of the protected copy
        of its header: with RRC 0, and for a signed token also with EC 0. Source: RFC 4121 4.2.4.
        """
        flags, ec, rrc, _ = self._read_header(token)
        if flags & SEALED:
            token = _turned(token, self._theirs.sealed_rrc - rrc)
            return flags, ec, token, token[:6] + bytes(2)
        if sealed:
            raise PolicyError(ONLY_SIGNED)
        # RFC 4121 4.2.3: without confidentiality, EC is the size of the checksum.
        if ec != self._theirs.mac_size:
            raise DecodeError(f"the checksum of a signed message has {self._theirs.mac_size} bytes")
        token = _turned(token, -rrc)
        return flags, ec, token, token[:4] + bytes(4)

    def _check_mic_header(self, header: bytes) -> None:
        if len(header) < HEADER_SIZE or header[:2] != _MIC or header[3:8] != _MIC_FILLER:
            raise DecodeError("this is not an RFC 4121 MIC token")
        flags = header[2]
        if (flags ^ self._theirs.flags) & _CHECKED:
            self._refuse(flags)
        # RFC 4121 4.2.2: a MIC token does not have the flag Sealed.
        if flags & SEALED:
            raise ProtocolError("a MIC token is marked as sealed")

    def _read_header(self, token: bytes) -> tuple[int, int, int, int]:
        """Return flags, EC, RRC and SND_SEQ of a Wrap token of the peer."""
        if len(token) < HEADER_SIZE:
            raise DecodeError("this is not an RFC 4121 Wrap token")
        tok_id, flags, filler, ec, rrc, snd_seq = _WRAP_HEADER.unpack_from(token)
        # RFC 4121 4.2.6.2: the token id and the filler of a Wrap token.
        if tok_id != _WRAP or filler != _FILLER:
            raise DecodeError("this is not an RFC 4121 Wrap token")
        if (flags ^ self._theirs.flags) & _CHECKED:
            self._refuse(flags)
        return flags, ec, rrc, snd_seq

    def _refuse(self, flags: int) -> NoReturn:
        # RFC 4121 4.2.2: SentByAcceptor and AcceptorSubkey. Unknown bits are ignored, but the
        # checksum covers them.
        if (flags ^ self._theirs.flags) & SENT_BY_ACCEPTOR:
            raise ProtocolError(OTHER_DIRECTION)
        raise ProtocolError("the token is not protected with the key that this context agreed on")

    def _make_seal(self) -> AesUsageCipher:
        self._seal = self._cipher(
            KeyUsage.INITIATOR_SEAL if self._initiator else KeyUsage.ACCEPTOR_SEAL
        )
        return self._seal

    def _make_sign(self) -> AesUsageCipher:
        self._sign = self._cipher(
            KeyUsage.INITIATOR_SIGN if self._initiator else KeyUsage.ACCEPTOR_SIGN
        )
        return self._sign

    def _make_unseal(self) -> AesUsageCipher:
        self._unseal = self._cipher(
            KeyUsage.ACCEPTOR_SEAL if self._initiator else KeyUsage.INITIATOR_SEAL
        )
        return self._unseal

    def _make_unsign(self) -> AesUsageCipher:
        self._unsign = self._cipher(
            KeyUsage.ACCEPTOR_SIGN if self._initiator else KeyUsage.INITIATOR_SIGN
        )
        return self._unsign

    def _cipher(self, usage: int) -> AesUsageCipher:
        return cast(AesUsageCipher, crypto.usage_cipher(self._key, usage))


def wrap_header(flags: int, ec: int, rrc: int) -> bytes:
    """Return the header of a Wrap token without its last 8 bytes, SND_SEQ. RFC 4121 4.2.6.2."""
    return _WRAP_START.pack(_WRAP, flags, _FILLER, ec, rrc)


class _Layout:
    """The parts that all tokens of one direction share.

    `sealed`, `signed` and `detached` (a MIC token) are the headers of our own tokens up to SND_SEQ.
    `sealed_copy` and `signed_copy` start the copy of the header that the MAC covers. `sealed_size`
    and `signed_size` count all bytes except the data. A sealed body is rotated by `sealed_rrc`, the
    size of its last block and MAC, so these two come first. `sealed_parts` reads SND_SEQ, last
    block and MAC; `sealed_body` is the slice after them.
    """

    __slots__ = (
        "detached",
        "flags",
        "mac_size",
        "sealed",
        "sealed_body",
        "sealed_copy",
        "sealed_parts",
        "sealed_rrc",
        "sealed_size",
        "signed",
        "signed_copy",
        "signed_size",
    )

    def __init__(self, flags: int, mac_size: int) -> None:
        self.flags = flags
        self.mac_size = mac_size
        self.sealed_rrc = BLOCK + mac_size
        self.sealed = wrap_header(flags | SEALED, 0, self.sealed_rrc)
        self.sealed_copy = wrap_header(flags | SEALED, 0, 0)
        self.sealed_parts = struct.Struct(f"8x8s16s{mac_size}s")
        self.sealed_body = slice(self.sealed_parts.size, None)
        self.sealed_size = self.sealed_parts.size + BLOCK  # the confounder has BLOCK bytes
        self.signed = wrap_header(flags, mac_size, 0)
        self.signed_copy = wrap_header(flags, 0, 0)
        self.signed_size = HEADER_SIZE + mac_size
        self.detached = _MIC + bytes((flags,)) + _MIC_FILLER


@cache  # sixteen at most
def _layout(etype: int, flags: int) -> _Layout:
    if etype not in CfxProtection.etypes:
        raise UnsupportedError(f"RFC 4121 tokens need an AES key, not {etype_name(etype)}")
    return _Layout(flags, crypto.profile_of(etype).checksum_size)


def rotated(body: bytes, turn: int) -> bytes:
    """Return `body` rotated right by `turn` bytes; left if `turn` is negative."""
    cut = -turn % len(body) if body else 0
    return body[cut:] + body[:cut]


def _turned(token: bytes, turn: int) -> bytes:
    """Return `token` with its body rotated right by `turn` bytes."""
    return token[:HEADER_SIZE] + rotated(token[HEADER_SIZE:], turn) if turn else token
