"""The interface of encryption types: the RFC 3961 framework as two small protocols."""

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

#: The largest PBKDF2 iteration count that is accepted: a KDC must not keep a client busy.
#: Source: RFC 3962 3.
MAX_ITERATIONS = 0x1000000
#: Up to this count, PBKDF2 takes a few milliseconds. It is the default of etypes 17 and 18.
#: Source: RFC 3962 4.
QUICK_ITERATIONS = 4096
#: Whether cryptography releases the interpreter's lock during PBKDF2. hashlib always releases it,
#: but can take twice the time.
_LETS_OTHERS_RUN = int(cryptography.__version__.partition(".")[0]) >= 50


class UsageCipher(Protocol):
    """One key for one key usage: the specific keys Ke, Ki and Kc of RFC 3961 5.3. Thread-safe.

    The specific keys are derived at their first use.
    """

    @property
    def confounder_size(self) -> int:
        """The same as that of its profile."""

    def encrypt(self, plaintext: bytes, confounder: bytes) -> bytes:
        """Return the ciphertext with its checksum. `confounder` has `confounder_size` bytes."""

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Return the plaintext. Raises IntegrityError for short or altered data, or another key."""

    def checksum(self, data: bytes) -> bytes:
        """Return the keyed checksum (get_mic) over `data`."""

    def wipe(self) -> None:
        """Drop the derived keys; every later call raises CredentialError."""


class _Wiped:
    def __call__(self, *_args: object) -> NoReturn:
        raise CredentialError("this key was wiped: load or derive it again")

    copy = update = encrypt = decrypt = __call__


#: Replaces a derived key. A thread that still holds the cipher gets an error, never a result under
#: another key.
WIPED: Any = _Wiped()


class Profile(Protocol):
    """One encryption type. Source: RFC 3961 3."""

    etype: int
    key_size: int
    confounder_size: int
    checksum_size: int
    checksum_type: int

    def string_to_key(self, password: bytes, salt: bytes, params: bytes | None) -> bytes:
        """Return the key of a password (UTF-8).

        Raises DecodeError or PolicyError for bad `params`.
        """

    def schedule(self, key: bytes) -> Any:
        """Return the object from which all usages of `key` derive; made once for each key."""

    def usage_cipher(self, schedule: Any, usage: int) -> UsageCipher:
        """Return the cipher of `usage` (0 .. 2^32-1) for the result of `schedule`."""

    def prf(self, key: bytes, data: bytes) -> bytes:
        """Return the pseudo-random function of the protocol key."""


def iterations(params: bytes | None, default: int) -> int:
    """Return the PBKDF2 iteration count in string-to-key parameters. RFC 3962 4, RFC 8009 4.

    `params` is None (the etype's default) or 4 bytes, big-endian. Raises DecodeError for another
    length, and PolicyError for a count outside 1 .. 0x1000000 (a zero would mean 2^32).
    """
    if params is None:
        return default
    if len(params) != 4:
        raise DecodeError(f"string-to-key parameters must have 4 bytes, got {len(params)}")
    count = int.from_bytes(params, "big")
    # RFC 3962 3: refuse counts that take too long.
    if not 1 <= count <= MAX_ITERATIONS:
        raise PolicyError(
            f"a PBKDF2 iteration count of {count} is outside 1..{MAX_ITERATIONS}: refused"
        )
    return count


def pbkdf2(hash_name: str, password: bytes, salt: bytes, count: int, size: int) -> bytes:
    """Return `size` bytes of PBKDF2 with HMAC of "sha1", "sha256" or "sha384".

    Source: RFC 8018 5.2. If `count` is above `QUICK_ITERATIONS`, other threads can run meanwhile.
    """
    if count > QUICK_ITERATIONS and not _LETS_OTHERS_RUN:
        return hashlib.pbkdf2_hmac(hash_name, password, salt, count, size)
    from cryptography.hazmat.primitives import hashes  # only passwords pay for these imports
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    algorithm: hashes.HashAlgorithm = getattr(hashes, hash_name.upper())()
    return PBKDF2HMAC(algorithm=algorithm, length=size, salt=salt, iterations=count).derive(
        password
    )
