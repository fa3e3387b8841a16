"""aes128-cts-hmac-sha1-96 and aes256-cts-hmac-sha1-96. Source: RFC 3962, RFC 3961 5.3."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.hmac import HMAC

from purekrb.crypto.aes_cipher import AesUsageCipher
from purekrb.crypto.aes_cts import BLOCK
from purekrb.crypto.derivation import CHECKSUM, ENCRYPT, INTEGRITY, Dk, dk, folded_constants
from purekrb.crypto.profile import iterations, pbkdf2

__all__ = ["AesSha1"]

MAC = 12  # HMAC-SHA1-96
_SHA1 = SHA1()  # noqa: S303 - RFC 3962


class AesSha1:
    """The profile of etype 17 (key_size 16) or 18 (key_size 32)."""

    confounder_size = BLOCK
    checksum_size = MAC
    encrypt_then_mac = False

    def __init__(self, etype: int, key_size: int, checksum_type: int) -> None:
        self.etype = etype
        self.key_size = key_size
        self.checksum_type = checksum_type

    def string_to_key(self, password: bytes, salt: bytes, params: bytes | None) -> bytes:
        seed = pbkdf2("sha1", password, salt, iterations(params, 4096), self.key_size)
        return dk(seed, b"kerberos")

    def schedule(self, key: bytes) -> Dk:
        return Dk(key)

    def usage_cipher(self, schedule: Dk, usage: int) -> AesUsageCipher:
        return AesUsageCipher(self, schedule, usage)

    def encryption(self, derive: Dk, usage: int) -> tuple[bytes, HMAC]:
        """Return Ke, and the HMAC keyed with Ki."""
        ke, ki = derive(folded_constants(usage, ENCRYPT, INTEGRITY))
        return ke, HMAC(ki, _SHA1)

    def checksum(self, derive: Dk, usage: int) -> HMAC:
        (kc,) = derive(folded_constants(usage, CHECKSUM))
        return HMAC(kc, _SHA1)

    def prf(self, key: bytes, data: bytes) -> bytes:
        """Return E(DK(key, "prf"), SHA-1(data) cut to one block), without confounder.

        Source: RFC 3962 6, RFC 3961 5.3.
        """
        digest = hashlib.sha1(data).digest()[:BLOCK]  # noqa: S324 - RFC 3961
        encryptor = Cipher(algorithms.AES(dk(key, b"prf")), modes.CBC(bytes(BLOCK))).encryptor()
        return encryptor.update(digest)
