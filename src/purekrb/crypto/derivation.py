"""Key derivation: n-fold, DR/DK (RFC 3961 5.1) and KDF-HMAC-SHA2 (RFC 8009 3)."""

from __future__ import annotations

import hmac
from functools import lru_cache
from math import lcm

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

__all__ = ["n_fold", "dk", "kdf_hmac_sha2", "usage_constant"]

BLOCK = 16
_ENCRYPT, _CHECKSUM, _INTEGRITY = 0xAA, 0x99, 0x55


@lru_cache(maxsize=256)
def n_fold(data: bytes, nbytes: int) -> bytes:
    """Return `data` folded to `nbytes` bytes. Raises ValueError for empty input or output. Source: RFC 3961 5.1."""
    if not data or nbytes <= 0:
        raise ValueError("n_fold needs at least one byte of input and of output")
    bits = len(data) * 8
    value = int.from_bytes(data, "big")
    total = lcm(len(data), nbytes)
    stretched = 0
    for copy in range(total // len(data)):
        shift = 13 * copy % bits  # each copy is the one before rotated right by 13 bits
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


def dk(key: bytes, constant: bytes) -> bytes:
    """Return DK(key, constant) of an AES key; random-to-key is the identity. Source: RFC 3961 5.1, RFC 3962 6."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - one block at a time, as DR demands
    block = constant if len(constant) == BLOCK else n_fold(constant, BLOCK)
    out = b""
    while len(out) < len(key):
        block = encryptor.update(block)
        out += block
    return out[: len(key)]


def kdf_hmac_sha2(hash_name: str, key: bytes, label: bytes, nbytes: int, context: bytes = b"") -> bytes:
    """Return `nbytes` bytes of KDF-HMAC-SHA2; one round is enough for every use of RFC 8009. Source: RFC 8009 3."""
    message = b"\x00\x00\x00\x01" + label + b"\x00" + context + (nbytes * 8).to_bytes(4, "big")
    return hmac.digest(key, message, hash_name)[:nbytes]


def usage_constant(usage: int, kind: str) -> bytes:
    """Return the constant of key `usage` for kind "encrypt", "checksum" or "integrity". Source: RFC 3961 5.3."""
    suffix = {"encrypt": _ENCRYPT, "checksum": _CHECKSUM, "integrity": _INTEGRITY}[kind]
    return usage.to_bytes(4, "big") + bytes([suffix])
