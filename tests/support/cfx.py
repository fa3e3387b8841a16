"""RFC 4121 tokens built field by field from the key of a context, apart from the code that they test."""

from __future__ import annotations

import hmac
import struct
from collections import deque
from dataclasses import dataclass, field

from purekrb import Acceptor, EncryptionKey, Initiator, crypto

__all__ = ["SEAL", "SIGN", "Forger", "header", "rotate"]

#: Key usages by role. Source: RFC 4121 2.
SEAL = {"acceptor": 22, "initiator": 24}
SIGN = {"acceptor": 23, "initiator": 25}


def header(
    flags: int, ec: int, rrc: int, seq: int, *, tok_id: int = 0x0504, filler: int = 0xFF
) -> bytes:
    """Return the 16 bytes before the body of a Wrap token. Source: RFC 4121 4.2.6.2."""
    return struct.pack(">HBBHHQ", tok_id, flags, filler, ec, rrc, seq)


def rotate(body: bytes, count: int) -> bytes:
    """Return `body` rotated right by `count` bytes. Source: RFC 4121 4.2.5."""
    turned = deque(body)
    turned.rotate(count)
    return bytes(turned)


@dataclass
class Forger:
    """Makes the tokens that `role` sends, with any field altered before it is protected."""

    key: EncryptionKey
    role: str
    acceptor_subkey: bool = True
    seq: int = 0
    _mac_size: int = field(init=False)

    def __post_init__(self) -> None:
        self._mac_size = crypto.profile_of(self.key.etype).checksum_size

    @classmethod
    def peer_of(cls, context: Initiator | Acceptor, seq: int) -> Forger:
        """Return a forger of tokens for `context`, whose peer counts from `seq`."""
        return cls(
            context.session_key,
            "acceptor" if isinstance(context, Initiator) else "initiator",
            True,
            seq,
        )

    @property
    def mac_size(self) -> int:
        return self._mac_size

    @property
    def flags(self) -> int:
        """The flags of this sender: SentByAcceptor 1, AcceptorSubkey 4."""
        return (1 if self.role == "acceptor" else 0) | (4 if self.acceptor_subkey else 0)

    def sealed(
        self,
        data: bytes,
        *,
        seq: int | None = None,
        flags: int | None = None,
        ec: int = 0,
        fill: bytes | None = None,
        rrc: int = 0,
        turn: int | None = None,
        usage: int | None = None,
        copy: bytes | None = None,
        outer: bytes | None = None,
        plaintext: bytes | None = None,
    ) -> bytes:
        """Return a sealed Wrap token.

        `ec` bytes of filler (`fill`) follow the data; `rrc` is the field and `turn` the rotation. `copy` is the
        encrypted copy of the header, `outer` the header, `plaintext` all that is encrypted.
        """
        seq = self.seq if seq is None else seq
        flags = self.flags | 2 if flags is None else flags
        copy = header(flags, ec, 0, seq) if copy is None else copy
        if plaintext is None:
            plaintext = data + (bytes(ec) if fill is None else fill) + copy
        body = crypto.encrypt(self.key, SEAL[self.role] if usage is None else usage, plaintext)
        outer = header(flags, ec, rrc, seq) if outer is None else outer
        return outer + rotate(body, rrc if turn is None else turn)

    def signed(
        self,
        data: bytes,
        *,
        seq: int | None = None,
        flags: int | None = None,
        ec: int | None = None,
        rrc: int = 0,
        turn: int | None = None,
        usage: int | None = None,
        copy: bytes | None = None,
        outer: bytes | None = None,
    ) -> bytes:
        """Return a Wrap token that is only signed; arguments as for `sealed`."""
        seq = self.seq if seq is None else seq
        flags = self.flags if flags is None else flags
        ec = self._mac_size if ec is None else ec
        copy = header(flags, 0, 0, seq) if copy is None else copy
        mac = crypto.checksum(self.key, SEAL[self.role] if usage is None else usage, data + copy)
        outer = header(flags, ec, rrc, seq) if outer is None else outer
        return outer + rotate(data + mac, rrc if turn is None else turn)

    def mic(
        self,
        data: bytes,
        *,
        seq: int | None = None,
        flags: int | None = None,
        usage: int | None = None,
        start: bytes | None = None,
    ) -> bytes:
        """Return a MIC token; `start` is its first 16 bytes."""
        seq = self.seq if seq is None else seq
        flags = self.flags if flags is None else flags
        if start is None:
            start = b"\x04\x04" + bytes([flags]) + b"\xff" * 5 + seq.to_bytes(8, "big")
        return start + crypto.checksum(
            self.key, SIGN[self.role] if usage is None else usage, data + start
        )

    def opens(self, token: bytes) -> bytes:
        """Return the data of a Wrap token of this sender, taken apart step by step."""
        tok_id, flags, filler, ec, rrc, seq = struct.unpack_from(">HBBHHQ", token)
        assert (tok_id, filler, flags & ~2) == (0x0504, 0xFF, self.flags)
        body = token[16:]
        body = rotate(body, len(body) - rrc % len(body))
        if flags & 2:
            plaintext = crypto.decrypt(self.key, SEAL[self.role], body)
            assert plaintext[-16:] == header(flags, ec, 0, seq)
            return plaintext[: len(plaintext) - 16 - ec]
        assert ec == self._mac_size
        data, mac = body[:-ec], body[-ec:]
        assert hmac.compare_digest(
            mac, crypto.checksum(self.key, SEAL[self.role], data + header(flags, 0, 0, seq))
        )
        return data
