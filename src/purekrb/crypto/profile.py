"""What an encryption type offers: the RFC 3961 framework as two small interfaces."""

from __future__ import annotations

import hashlib
from typing import Any, NoReturn, Protocol

import cryptography

from purekrb.errors import CredentialError, DecodeError, PolicyError

__all__ = [
    "Profile",
    "UsageCipher",
    "WIPED",
    "iterations",
    "pbkdf2",
    "MAX_ITERATIONS",
    "QUICK_ITERATIONS",
]

#: The largest PBKDF2 iteration count that is tried; a KDC that names more is refused at once. Source: RFC 3962 3.
MAX_ITERATIONS = 0x1000000
#: Up to as many iterations, PBKDF2 takes a few milliseconds. It is the default of etypes 17 and 18. Source: RFC 3962 4.
QUICK_ITERATIONS = 4096
#: Whether cryptography releases the interpreter's lock during PBKDF2. hashlib always does, but can take twice the time.
_LETS_OTHERS_RUN = int(cryptography.__version__.partition(".")[0]) >= 50


class UsageCipher(Protocol):
    """One key for one key usage: the specific keys Ke, Ki, Kc of RFC 3961 5.3, derived when first used. Thread-safe."""

    @property
    def confounder_size(self) -> int:
        """As that of its profile."""

    def encrypt(self, plaintext: bytes, confounder: bytes) -> bytes:
        """Return the ciphertext with its checksum. `confounder` has `confounder_size` bytes."""

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Return the plaintext. Raises IntegrityError where the ciphertext is too short, altered or of another key."""

    def checksum(self, data: bytes) -> bytes:
        """Return the keyed checksum (get_mic) over `data`."""

    def wipe(self) -> None:
        """Drop the derived keys; every later call raises CredentialError."""


class _Wiped:
    def __call__(self, *_args: object) -> NoReturn:
        raise CredentialError("this key was wiped: load or derive it again")

    copy = update = encrypt = decrypt = __call__


#: Stands where a derived key was: whoever still holds the cipher gets an error, never a result under another key.
WIPED: Any = _Wiped()


class Profile(Protocol):
    """One encryption type. Source: RFC 3961 3."""

    etype: int
    key_size: int
    confounder_size: int
    checksum_size: int
    checksum_type: int

    def string_to_key(self, password: bytes, salt: bytes, params: bytes | None) -> bytes:
        """Return the key of a password (UTF-8). Raises DecodeError or PolicyError for bad `params`."""

    def schedule(self, key: bytes) -> Any:
        """Return what all usages of `key` derive from, made once for each key."""

    def usage_cipher(self, schedule: Any, usage: int) -> UsageCipher:
        """Return the cipher of `usage` (0 .. 2^32-1) under what `schedule` returned."""

    def prf(self, key: bytes, data: bytes) -> bytes:
        """Return the pseudo-random function of the protocol key."""


def iterations(params: bytes | None, default: int) -> int:
    """Return the PBKDF2 iteration count that string-to-key parameters name. Source: RFC 3962 4, RFC 8009 4.

    `params` is None (the default of the etype) or 4 bytes, big-endian. Raises DecodeError for another length,
    PolicyError outside 1 .. 0x1000000 (a zero would stand for 2^32).
    """
    if params is None:
        return default
    if len(params) != 4:
        raise DecodeError(f"string-to-key parameters have 4 bytes, got {len(params)}")
    count = int.from_bytes(params, "big")
    if not 1 <= count <= MAX_ITERATIONS:
        raise PolicyError(
            f"a PBKDF2 iteration count of {count} is outside 1..{MAX_ITERATIONS}: refused"
        )
    return count


def pbkdf2(hash_name: str, password: bytes, salt: bytes, count: int, size: int) -> bytes:
    """Return `size` bytes of PBKDF2 with HMAC of "sha1", "sha256" or "sha384". Source: RFC 8018 5.2.

    Where `count` is above `QUICK_ITERATIONS`, other threads run meanwhile.
    """
    if count > QUICK_ITERATIONS and not _LETS_OTHERS_RUN:
        return hashlib.pbkdf2_hmac(hash_name, password, salt, count, size)
    from cryptography.hazmat.primitives import hashes  # only passwords need these two
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    algorithm: hashes.HashAlgorithm = getattr(hashes, hash_name.upper())()
    return PBKDF2HMAC(algorithm=algorithm, length=size, salt=salt, iterations=count).derive(
        password
    )
