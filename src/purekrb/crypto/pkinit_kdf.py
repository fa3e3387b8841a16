"""From the shared secret of PKINIT to the reply key. Source: RFC 4556 3.2.3.1, RFC 8636 4."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from purekrb.errors import UnsupportedError
from purekrb.keys import KEY_SIZES, EncryptionKey, etype_name

__all__ = ["KDF_HASHES", "kdf_key", "octetstring2key"]

#: The key derivation functions by the dotted OID, the preferred one first. Source: RFC 8636 9.
KDF_HASHES: dict[str, Callable[[bytes], Any]] = {
    "1.3.6.1.5.2.3.6.2": hashlib.sha256,
    "1.3.6.1.5.2.3.6.3": hashlib.sha512,
    "1.3.6.1.5.2.3.6.4": hashlib.sha384,
    "1.3.6.1.5.2.3.6.1": hashlib.sha1,
}


def kdf_key(kdf: str, etype: int, shared: bytes, other_info: bytes) -> EncryptionKey:
    """Return the reply key by the function with the OID `kdf`. Source: RFC 8636 4.

    `shared` is the secret in the size of the group, `other_info` an encoded OtherInfo.
    """
    digest = KDF_HASHES[kdf]
    return _key(etype, lambda n: digest(n.to_bytes(4, "big") + shared + other_info).digest(), 1)


def octetstring2key(etype: int, secret: bytes) -> EncryptionKey:
    """Return the reply key by SHA-1, for a KDC without RFC 8636. Source: RFC 4556 3.2.3.1."""

    def block(n: int) -> bytes:
        return hashlib.sha1(bytes((n,)) + secret).digest()  # noqa: S324 - RFC 4556

    return _key(etype, block, 0)


def _key(etype: int, block: Callable[[int], bytes], first: int) -> EncryptionKey:
    """Return the key of blocks from number `first` on, one after the other, cut to its size.

    The encryption types here have no random-to-key of their own: the bytes are the key.
    """
    size = KEY_SIZES.get(etype)
    if size is None:
        raise UnsupportedError(f"PKINIT makes no key of {etype_name(etype)} here")
    seed, number = b"", first
    while len(seed) < size:
        seed += block(number)
        number += 1
    return EncryptionKey(etype, seed[:size])
