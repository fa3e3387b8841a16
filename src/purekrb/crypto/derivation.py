"""Key derivation: n-fold, DR/DK (RFC 3961 5.1) and KDF-HMAC-SHA2 (RFC 8009 3)."""

from __future__ import annotations

import hmac
from functools import lru_cache, partial
from math import lcm
from typing import TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from purekrb.crypto.aes_cts import BLOCK

__all__ = [
    "n_fold",
    "Dk",
    "Keyed",
    "dk",
    "kdf_hmac_sha2",
    "usage_constant",
    "folded_constants",
    "ENCRYPT",
    "CHECKSUM",
    "INTEGRITY",
]

_ECB = modes.ECB()  # noqa: S305 - single blocks
ENCRYPT, CHECKSUM, INTEGRITY = 0xAA, 0x99, 0x55


def n_fold(data: bytes, nbytes: int) -> bytes:
    """Return `data` folded to `nbytes` bytes. Raises ValueError for empty input or output.

    Source: RFC 3961 5.1.
    """
    if not data or nbytes <= 0:
        raise ValueError("n_fold needs at least one byte of input and of output")
    bits = len(data) * 8
    value = int.from_bytes(data, "big")
    total = lcm(len(data), nbytes)
    stretched = 0
    for copy in range(total // len(data)):
        shift = 13 * copy % bits  # each copy is rotated right by 13 bits more
        rotated = (value >> shift) | (value << (bits - shift)) & ((1 << bits) - 1)
        stretched = stretched << bits | rotated
    mask = (1 << nbytes * 8) - 1
    folded = 0
    while stretched:
        folded += stretched & mask
        stretched >>= nbytes * 8
    while folded > mask:  # end-around carry of ones' complement addition
        folded = (folded & mask) + (folded >> nbytes * 8)
    return folded.to_bytes(nbytes, "big")


T = TypeVar("T")


class Keyed(partial[T]):
    """A `partial` of a function whose arguments contain a key: its repr does not show them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.func.__name__}, <redacted>)"


class Dk:
    """DK(key, constant) of an AES key, as a function of constants.

    random-to-key is the identity. Thread-safe. The cipher object is kept, because making one costs
    more than encrypting the blocks. It is taken out of a list and put back, as in `aes_cts`. So no
    thread waits for another one. A child process that is forked meanwhile finds the list empty.
    Source: RFC 3961 5.1, RFC 3962 6.
    """

    __slots__ = ("_encryptors", "_key")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._encryptors: list[CipherContext] = []

    def __call__(self, blocks: bytes) -> list[bytes]:
        """Return the keys for `blocks`, the constants folded to 16 bytes each.

        A derived key is as long as the base key.
        """
        try:
            encryptor = self._encryptors.pop()
        except IndexError:
            encryptor = Cipher(algorithms.AES(self._key), _ECB).encryptor()
        first = encryptor.update(blocks)
        second = b"" if len(self._key) == BLOCK else encryptor.update(first)
        self._encryptors.append(encryptor)
        if len(blocks) == BLOCK:
            return [first + second]
        return [
            first[at : at + BLOCK] + second[at : at + BLOCK] for at in range(0, len(blocks), BLOCK)
        ]


def dk(key: bytes, constant: bytes) -> bytes:
    """Return DK(key, constant) for a key that is used once. Source: RFC 3961 5.1."""
    return Dk(key)(n_fold(constant, BLOCK))[0]  # n_fold does not change a constant of 16 bytes


def kdf_hmac_sha2(
    hash_name: str, key: bytes, label: bytes, nbytes: int, context: bytes = b""
) -> bytes:
    """Return `nbytes` bytes of KDF-HMAC-SHA2. Source: RFC 8009 3.

    One round is enough for every use in RFC 8009.
    """
    message = b"\x00\x00\x00\x01" + label + b"\x00" + context + (nbytes * 8).to_bytes(4, "big")
    return hmac.digest(key, message, hash_name)[:nbytes]


@lru_cache(maxsize=64)
def folded_constants(usage: int, *kinds: int) -> bytes:
    """Return `usage_constant` of each kind, folded to 16 bytes."""
    return b"".join(n_fold(usage_constant(usage, kind), BLOCK) for kind in kinds)


def usage_constant(usage: int, kind: int) -> bytes:
    """Return the constant for the key of `kind` (ENCRYPT, CHECKSUM, INTEGRITY). RFC 3961 5.3."""
    return usage.to_bytes(4, "big") + kind.to_bytes(1, "big")
