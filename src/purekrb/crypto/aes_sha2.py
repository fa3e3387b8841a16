"""aes128-cts-hmac-sha256-128 and aes256-cts-hmac-sha384-192. Source: RFC 8009."""

from __future__ import annotations

import hmac
from threading import Lock

from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from purekrb.crypto.aes_cts import BLOCK, AesCts
from purekrb.crypto.derivation import kdf_hmac_sha2, usage_constant
from purekrb.crypto.profile import WIPED, iterations
from purekrb.errors import IntegrityError

__all__ = ["AesSha2"]

_HASHES: dict[str, type[SHA256] | type[SHA384]] = {"sha256": SHA256, "sha384": SHA384}
_ZERO_IV = bytes(BLOCK)


class _UsageCipher:
    """Encrypts, then appends HMAC(Ki, IV | ciphertext). Source: RFC 8009 5."""

    __slots__ = ("_checksum", "_cts", "_integrity", "_lock", "_mac_size")

    def __init__(self, profile: AesSha2, key: bytes, usage: int) -> None:
        size = self._mac_size = profile.checksum_size
        name = profile.hash_name
        algorithm = _HASHES[name]()

        def specific(kind: str, nbytes: int) -> bytes:
            return kdf_hmac_sha2(name, key, usage_constant(usage, kind), nbytes)

        self._lock = Lock()
        self._cts = AesCts(specific("encrypt", profile.key_size))
        # The cipher state (IV) is zero for every message, so its block goes into the keyed state once.
        self._integrity = HMAC(specific("integrity", size), algorithm)
        self._integrity.update(_ZERO_IV)
        self._checksum = HMAC(specific("checksum", size), algorithm)

    def encrypt(self, plaintext: bytes, confounder: bytes) -> bytes:
        with self._lock:
            ciphertext = self._cts.encrypt(confounder, plaintext)
        mac = self._integrity.copy()
        mac.update(ciphertext)
        return ciphertext + mac.finalize()[: self._mac_size]

    def decrypt(self, ciphertext: bytes) -> bytes:
        size = self._mac_size
        if len(ciphertext) < BLOCK + size:
            raise IntegrityError
        body = ciphertext[:-size]
        mac = self._integrity.copy()
        mac.update(body)
        if not hmac.compare_digest(mac.finalize()[:size], ciphertext[-size:]):
            raise IntegrityError
        with self._lock:
            return self._cts.decrypt(body)[1]

    def checksum(self, data: bytes) -> bytes:
        mac = self._checksum.copy()
        mac.update(data)
        return mac.finalize()[: self._mac_size]

    def wipe(self) -> None:
        self._cts = self._integrity = self._checksum = WIPED


class AesSha2:
    """The profile of etype 19 (SHA-256, 128-bit MAC) or 20 (SHA-384, 192-bit MAC)."""

    confounder_size = BLOCK

    def __init__(
        self, etype: int, name: bytes, key_size: int, hash_name: str, checksum_size: int, checksum_type: int
    ) -> None:
        self.etype = etype
        self.key_size = key_size
        self.hash_name = hash_name
        self.checksum_size = checksum_size
        self.checksum_type = checksum_type
        self._name = name

    def string_to_key(self, password: bytes, salt: bytes, params: bytes | None) -> bytes:
        count = iterations(params, 32768)
        salted = self._name + b"\x00" + salt
        algorithm = _HASHES[self.hash_name]()
        seed = PBKDF2HMAC(algorithm=algorithm, length=self.key_size, salt=salted, iterations=count).derive(password)
        return kdf_hmac_sha2(self.hash_name, seed, b"kerberos", self.key_size)

    def usage_cipher(self, key: bytes, usage: int) -> _UsageCipher:
        return _UsageCipher(self, key, usage)

    def prf(self, key: bytes, data: bytes) -> bytes:
        """Source: RFC 8009 5: KDF-HMAC-SHA2(key, "prf", data) as long as the hash."""
        return kdf_hmac_sha2(self.hash_name, key, b"prf", _HASHES[self.hash_name]().digest_size, data)
