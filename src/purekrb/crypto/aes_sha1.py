"""aes128-cts-hmac-sha1-96 and aes256-cts-hmac-sha1-96. Source: RFC 3962, RFC 3961 5.3."""

from __future__ import annotations

import hashlib
import hmac
from threading import Lock

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from purekrb.crypto.aes_cts import BLOCK, AesCts
from purekrb.crypto.derivation import dk, usage_constant
from purekrb.crypto.profile import WIPED, iterations
from purekrb.errors import IntegrityError

__all__ = ["AesSha1"]

MAC = 12  # HMAC-SHA1-96


class _UsageCipher:
    """Encrypts, then appends HMAC(Ki, confounder | plaintext) over the plaintext. Source: RFC 3961 5.3."""

    __slots__ = ("_checksum", "_cts", "_integrity", "_lock")

    def __init__(self, key: bytes, usage: int) -> None:
        self._lock = Lock()
        self._cts = AesCts(dk(key, usage_constant(usage, "encrypt")))
        self._integrity = HMAC(dk(key, usage_constant(usage, "integrity")), SHA1())  # noqa: S303 - RFC 3962
        self._checksum = HMAC(dk(key, usage_constant(usage, "checksum")), SHA1())  # noqa: S303 - RFC 3962

    def encrypt(self, plaintext: bytes, confounder: bytes) -> bytes:
        mac = self._integrity.copy()
        mac.update(confounder)
        mac.update(plaintext)
        with self._lock:
            ciphertext = self._cts.encrypt(confounder, plaintext)
        return ciphertext + mac.finalize()[:MAC]

    def decrypt(self, ciphertext: bytes) -> bytes:
        if len(ciphertext) < BLOCK + MAC:
            raise IntegrityError
        with self._lock:
            confounder, plaintext = self._cts.decrypt(ciphertext[:-MAC])
        mac = self._integrity.copy()
        mac.update(confounder)
        mac.update(plaintext)
        if not hmac.compare_digest(mac.finalize()[:MAC], ciphertext[-MAC:]):
            del confounder, plaintext  # they may be all but genuine: a traceback that shows locals must not have them
            raise IntegrityError
        return plaintext

    def checksum(self, data: bytes) -> bytes:
        mac = self._checksum.copy()
        mac.update(data)
        return mac.finalize()[:MAC]

    def wipe(self) -> None:
        self._cts = self._integrity = self._checksum = WIPED


class AesSha1:
    """The profile of etype 17 (key_size 16) or 18 (key_size 32)."""

    confounder_size = BLOCK
    checksum_size = MAC

    def __init__(self, etype: int, key_size: int, checksum_type: int) -> None:
        self.etype = etype
        self.key_size = key_size
        self.checksum_type = checksum_type

    def string_to_key(self, password: bytes, salt: bytes, params: bytes | None) -> bytes:
        count = iterations(params, 4096)
        seed = PBKDF2HMAC(algorithm=SHA1(), length=self.key_size, salt=salt, iterations=count).derive(password)  # noqa: S303
        return dk(seed, b"kerberos")

    def usage_cipher(self, key: bytes, usage: int) -> _UsageCipher:
        return _UsageCipher(key, usage)

    def prf(self, key: bytes, data: bytes) -> bytes:
        """Source: RFC 3962 6 with RFC 3961 5.3: E(DK(key, "prf"), SHA-1(data) cut to one block), no confounder."""
        digest = hashlib.sha1(data).digest()[:BLOCK]  # noqa: S324 - RFC 3961
        encryptor = Cipher(algorithms.AES(dk(key, b"prf")), modes.CBC(bytes(BLOCK))).encryptor()
        return encryptor.update(digest)
