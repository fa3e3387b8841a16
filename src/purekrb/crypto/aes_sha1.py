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
from purekrb.crypto.derivation import CHECKSUM, ENCRYPT, INTEGRITY, Dk, dk, usage_constant
from purekrb.crypto.profile import WIPED, iterations
from purekrb.errors import IntegrityError

__all__ = ["AesSha1"]

MAC = 12  # HMAC-SHA1-96


class _UsageCipher:
    """Encrypts, then appends HMAC(Ki, confounder | plaintext) over the plaintext. Source: RFC 3961 5.3."""

    __slots__ = ("_checksum", "_cts", "_derive", "_integrity", "_lock", "_usage")

    def __init__(self, derive: Dk, usage: int) -> None:
        self._derive, self._usage = derive, usage
        self._lock = Lock()
        self._cts: AesCts | None = None
        self._integrity: HMAC | None = None
        self._checksum: HMAC | None = None

    def _prepare(self) -> tuple[AesCts, HMAC]:
        with self._lock:  # two threads must not end up with two running ciphers
            if self._cts is None or self._integrity is None:
                self._integrity = HMAC(self._derive(usage_constant(self._usage, INTEGRITY)), SHA1())  # noqa: S303
                self._cts = AesCts(self._derive(usage_constant(self._usage, ENCRYPT)))
            return self._cts, self._integrity

    def encrypt(self, plaintext: bytes, confounder: bytes) -> bytes:
        cts, integrity = self._cts, self._integrity
        if cts is None or integrity is None:
            cts, integrity = self._prepare()
        mac = integrity.copy()
        mac.update(confounder)
        mac.update(plaintext)
        with self._lock:
            ciphertext = cts.encrypt(confounder, plaintext)
        return ciphertext + mac.finalize()[:MAC]

    def decrypt(self, ciphertext: bytes) -> bytes:
        if len(ciphertext) < BLOCK + MAC:
            raise IntegrityError
        cts, integrity = self._cts, self._integrity
        if cts is None or integrity is None:
            cts, integrity = self._prepare()
        with self._lock:
            confounder, plaintext = cts.decrypt(ciphertext[:-MAC])
        mac = integrity.copy()
        mac.update(confounder)
        mac.update(plaintext)
        if not hmac.compare_digest(mac.finalize()[:MAC], ciphertext[-MAC:]):
            del confounder, plaintext  # they may be all but genuine: a traceback that shows locals must not have them
            raise IntegrityError
        return plaintext

    def checksum(self, data: bytes) -> bytes:
        checksum = self._checksum
        if checksum is None:
            checksum = self._checksum = HMAC(self._derive(usage_constant(self._usage, CHECKSUM)), SHA1())  # noqa: S303
        mac = checksum.copy()
        mac.update(data)
        return mac.finalize()[:MAC]

    def wipe(self) -> None:
        self._cts = self._integrity = self._checksum = self._derive = WIPED


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

    def schedule(self, key: bytes) -> Dk:
        return Dk(key)

    def usage_cipher(self, schedule: Dk, usage: int) -> _UsageCipher:
        return _UsageCipher(schedule, usage)

    def prf(self, key: bytes, data: bytes) -> bytes:
        """Source: RFC 3962 6 with RFC 3961 5.3: E(DK(key, "prf"), SHA-1(data) cut to one block), no confounder."""
        digest = hashlib.sha1(data).digest()[:BLOCK]  # noqa: S324 - RFC 3961
        encryptor = Cipher(algorithms.AES(dk(key, b"prf")), modes.CBC(bytes(BLOCK))).encryptor()
        return encryptor.update(digest)
