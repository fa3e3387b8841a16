"""Kerberos cryptography: the RFC 3961 framework for etypes 17 to 20, and for 23, which is opt-in.

Every function takes an EncryptionKey and uses its etype. AES and HMAC are those of OpenSSL, through
the package cryptography. Usage numbers are those of `KeyUsage` (RFC 4120 7.5.1).
"""

from __future__ import annotations

import hmac
from functools import cache

from purekrb.constants import EncryptionType
from purekrb.crypto.aes_cts import LARGE
from purekrb.crypto.aes_sha1 import AesSha1
from purekrb.crypto.aes_sha2 import AesSha2
from purekrb.crypto.derivation import n_fold
from purekrb.crypto.profile import Profile, UsageCipher
from purekrb.errors import IntegrityError, UnsupportedError
from purekrb.keys import EncryptionKey, etype_name, etype_names
from purekrb.system import RandomBytes, before_fork, random_bytes
from purekrb.tracebacks import forget_frames, forget_locals

__all__ = [
    "EncryptionKey",
    "string_to_key",
    "random_key",
    "encrypt",
    "decrypt",
    "checksum",
    "verify_checksum",
    "prf",
    "prf_plus",
    "n_fold",
    "cf2",
    "profile_of",
    "usage_cipher",
]

_PROFILES: dict[int, Profile] = {
    profile.etype: profile
    for profile in (
        AesSha1(17, 16, 15),
        AesSha1(18, 32, 16),
        AesSha2(19, b"aes128-cts-hmac-sha256-128", 16, "sha256", 16, 19),
        AesSha2(20, b"aes256-cts-hmac-sha384-192", 32, "sha384", 24, 20),
    )
}
#: The most usages for which one EncryptionKey keeps its derived keys. A context needs five, an
#: exchange with a KDC six.
_MAX_DERIVED = 16


def profile_of(etype: int) -> Profile:
    """Return the profile of an encryption type. Raises UnsupportedError for an unknown etype."""
    profile = _PROFILES.get(etype)
    return _opted_in(etype) if profile is None else profile


def _opted_in(etype: int) -> Profile:
    if etype != EncryptionType.RC4_HMAC:
        known = etype_names(EncryptionType)
        raise UnsupportedError(
            f"encryption type {etype_name(etype)} is not supported; supported: {known}"
        )
    from purekrb.crypto.rc4 import Rc4Hmac  # only RC4 keys pay for the import

    return _PROFILES.setdefault(23, Rc4Hmac())


def usage_cipher(key: EncryptionKey, usage: int) -> UsageCipher:
    """Return the cipher of `key` for `usage`. The key keeps it, so that it is derived once."""
    cipher: UsageCipher | None = key._derived.get(usage)
    return _derived(key, usage) if cipher is None else cipher


def _derived(key: EncryptionKey, usage: int) -> UsageCipher:
    if not 0 <= usage < 1 << 32:
        raise ValueError(f"a key usage is a 32-bit number, got {usage}")
    profile, derived = profile_of(key.etype), key._derived
    try:
        if key._schedule is None:
            key._schedule = profile.schedule(key.contents)
        if len(derived) >= _MAX_DERIVED:
            # The copy is one atomic step: other threads may add or drop ciphers at the same time.
            for oldest in list(derived)[:1]:
                derived.pop(oldest, None)
        cipher = derived[usage] = profile.usage_cipher(key._schedule, usage)
    except BaseException as error:  # the effect of `forget_frames`, without the cost of a wrapper
        forget_locals(error)
        raise
    return cipher


@forget_frames
def string_to_key(
    etype: int, password: str | bytes, salt: str | bytes, params: bytes | None = None
) -> EncryptionKey:
    """Return the key of a password. Source: RFC 3961 3, RFC 3962 4, RFC 8009 4, RFC 4757 2.

    Text is encoded as UTF-8. `params` is None or the 4-byte PBKDF2 iteration count (big-endian,
    1 .. 0x1000000). Raises UnsupportedError for an unknown etype, and DecodeError or PolicyError
    for bad `params`.
    """
    password = password.encode() if isinstance(password, str) else password
    salt = salt.encode() if isinstance(salt, str) else salt
    return EncryptionKey(etype, profile_of(etype).string_to_key(password, salt, params))


def random_key(etype: int, random: RandomBytes = random_bytes) -> EncryptionKey:
    """Return a new random key; random-to-key is the identity for all supported etypes."""
    return EncryptionKey(etype, random(profile_of(etype).key_size))


def encrypt(
    key: EncryptionKey, usage: int, plaintext: bytes, confounder: bytes | None = None
) -> bytes:
    """Return ciphertext and checksum of `plaintext` in one bytes object.

    `confounder` (16 bytes; 8 for RC4) is random by default; pass one only to replay a recording.
    Source: RFC 3961 5.3, RFC 8009 5, RFC 4757 4.
    """
    cipher = usage_cipher(key, usage)
    size = cipher.confounder_size
    if confounder is None:
        confounder = random_bytes(size)
    elif len(confounder) != size:
        raise ValueError(
            f"the confounder of {etype_name(key.etype)} must have {size} bytes, "
            f"got {len(confounder)}"
        )
    return cipher.encrypt(plaintext, confounder)


def decrypt(key: EncryptionKey, usage: int, ciphertext: bytes) -> bytes:
    """Return the plaintext.

    Raises IntegrityError for another key or usage, and for altered or short data.
    Source: RFC 3961 5.3, RFC 8009 5, RFC 4757 4.
    """
    return usage_cipher(key, usage).decrypt(ciphertext)


def checksum(key: EncryptionKey, usage: int, data: bytes) -> bytes:
    """Return the keyed checksum over `data`: 12 bytes (etypes 17, 18), 16 (19, 23) or 24 (20).

    Source: RFC 3961 5.4.
    """
    return usage_cipher(key, usage).checksum(data)


def verify_checksum(key: EncryptionKey, usage: int, data: bytes, mac: bytes) -> None:
    """Raise IntegrityError unless `mac` is the checksum over `data`; compared in constant time."""
    if not hmac.compare_digest(checksum(key, usage, data), mac):
        raise IntegrityError


@forget_frames
def prf(key: EncryptionKey, data: bytes) -> bytes:
    """Return the pseudo-random function: 16 bytes (etypes 17, 18), 32 (19), 48 (20) or 20 (23).

    Source: RFC 3961 3.
    """
    return profile_of(key.etype).prf(key.contents, data)


@forget_frames
def prf_plus(key: EncryptionKey, data: bytes, nbytes: int) -> bytes:
    """Return `nbytes` bytes of PRF+(key, data), at most 255 rounds. Source: RFC 6113 5.1."""
    out = b""
    count = 1
    while len(out) < nbytes:
        if count > 255:
            raise ValueError("PRF+ has at most 255 blocks")
        out += prf(key, bytes([count]) + data)
        count += 1
    return out[:nbytes]


@forget_frames
def cf2(key1: EncryptionKey, key2: EncryptionKey, pepper1: bytes, pepper2: bytes) -> EncryptionKey:
    """Return KRB-FX-CF2(key1, key2, pepper1, pepper2), a key of key1's etype. RFC 6113 5.1."""
    size = profile_of(key1.etype).key_size
    one = int.from_bytes(prf_plus(key1, pepper1, size), "big")
    two = int.from_bytes(prf_plus(key2, pepper2, size), "big")
    return EncryptionKey(key1.etype, (one ^ two).to_bytes(size, "big"))


@cache
def _use_each_once() -> None:
    """Encrypt and decrypt with each encryption type, once in the life of a process.

    The cipher library initializes itself at the first use of a cipher, under locks of its own. If a
    process forked while another thread did that, the child would wait for these locks for ever.
    """
    for etype in (17, 18, 19, 20):
        key = EncryptionKey(etype, bytes(profile_of(etype).key_size))
        for size in (1, 2 * LARGE):
            decrypt(key, 0, encrypt(key, 0, bytes(size), bytes(16)))
        checksum(key, 0, b"")


before_fork(_use_each_once)
