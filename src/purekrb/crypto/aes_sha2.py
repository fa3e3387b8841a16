"""aes128-cts-hmac-sha256-128 and aes256-cts-hmac-sha384-192. Source: RFC 8009."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from threading import Lock

from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from purekrb.crypto.aes_cts import BLOCK, AesCts
from purekrb.crypto.derivation import CHECKSUM, ENCRYPT, INTEGRITY, kdf_hmac_sha2, usage_constant
from purekrb.crypto.profile import WIPED, iterations
from purekrb.errors import IntegrityError

__all__ = ["AesSha2"]

_HASHES: dict[str, type[SHA256] | type[SHA384]] = {"sha256": SHA256, "sha384": SHA384}
_ZERO_IV = bytes(BLOCK)
#: Returns n bytes derived from a key with a label: KDF-HMAC-SHA2 of RFC 8009 3.
Derive = Callable[[bytes, int], bytes]


class _UsageCipher:
    """Encrypts, then appends HMAC(Ki, IV | ciphertext). Source: RFC 8009 5."""

    __slots__ = ("_checksum", "_cts", "_derive", "_integrity", "_lock", "_mac_size", "_profile", "_usage")

    def __init__(self, profile: AesSha2, derive: Derive, usage: int) -> None:
        self._profile, self._derive, self._usage = profile, derive, usage
        self._mac_size = profile.checksum_size
        self._lock = Lock()
        self._cts: AesCts | None = None
        self._integrity: HMAC | None = None
        self._checksum: HMAC | None = None

    def _prepare(self) -> tuple[AesCts, HMAC]:
        with self._lock:  # two threads must not end up with two running ciphers
            if self._cts is None or self._integrity is None:
                integrity = self._hmac(INTEGRITY)
                # The cipher state (IV) is zero for every message, so its block goes into the keyed state once.
                integrity.update(_ZERO_IV)
                self._integrity = integrity
                self._cts = AesCts(self._derive(usage_constant(self._usage, ENCRYPT), self._profile.key_size))
            return self._cts, self._integrity

    def _hmac(self, kind: int) -> HMAC:
        key = self._derive(usage_constant(self._usage, kind), self._mac_size)
        return HMAC(key, _HASHES[self._profile.hash_name]())

    def encrypt(self, plaintext: bytes, confounder: bytes) -> bytes:
        cts, integrity = self._cts, self._integrity
        if cts is None or integrity is None:
            cts, integrity = self._prepare()
        with self._lock:
            ciphertext = cts.encrypt(confounder, plaintext)
        mac = integrity.copy()
        mac.update(ciphertext)
        return ciphertext + mac.finalize()[: self._mac_size]

    def decrypt(self, ciphertext: bytes) -> bytes:
        size = self._mac_size
        if len(ciphertext) < BLOCK + size:
            raise IntegrityError
        cts, integrity = self._cts, self._integrity
        if cts is None or integrity is None:
            cts, integrity = self._prepare()
        body = ciphertext[:-size]
        mac = integrity.copy()
        mac.update(body)
        if not hmac.compare_digest(mac.finalize()[:size], ciphertext[-size:]):
            raise IntegrityError
        with self._lock:
            return cts.decrypt(body)[1]

    def checksum(self, data: bytes) -> bytes:
        checksum = self._checksum
        if checksum is None:
            checksum = self._checksum = self._hmac(CHECKSUM)
        mac = checksum.copy()
        mac.update(data)
        return mac.finalize()[: self._mac_size]

    def wipe(self) -> None:
        self._cts = self._integrity = self._checksum = self._derive = WIPED


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

    def schedule(self, key: bytes) -> Derive:
        return partial(kdf_hmac_sha2, self.hash_name, key)

    def usage_cipher(self, schedule: Derive, usage: int) -> _UsageCipher:
        return _UsageCipher(self, schedule, usage)

    def prf(self, key: bytes, data: bytes) -> bytes:
        """Source: RFC 8009 5: KDF-HMAC-SHA2(key, "prf", data) as long as the hash."""
        return kdf_hmac_sha2(self.hash_name, key, b"prf", _HASHES[self.hash_name]().digest_size, data)
