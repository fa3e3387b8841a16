"""aes128-cts-hmac-sha256-128 and aes256-cts-hmac-sha384-192. Source: RFC 8009."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.hmac import HMAC

from purekrb.crypto.aes_cipher import AesUsageCipher
from purekrb.crypto.aes_cts import BLOCK
from purekrb.crypto.derivation import (
    CHECKSUM,
    ENCRYPT,
    INTEGRITY,
    Keyed,
    kdf_hmac_sha2,
    usage_constant,
)
from purekrb.crypto.profile import iterations, pbkdf2

__all__ = ["AesSha2"]

_HASHES: dict[str, type[SHA256] | type[SHA384]] = {"sha256": SHA256, "sha384": SHA384}
_ZERO_IV = bytes(BLOCK)
#: Derives n bytes from a key with a label: KDF-HMAC-SHA2 of RFC 8009 3.
Derive = Callable[[bytes, int], bytes]


class AesSha2:
    """The profile of etype 19 (SHA-256, 128-bit MAC) or 20 (SHA-384, 192-bit MAC)."""

    confounder_size = BLOCK
    encrypt_then_mac = True

    def __init__(
        self,
        etype: int,
        name: bytes,
        key_size: int,
        hash_name: str,
        checksum_size: int,
        checksum_type: int,
    ) -> None:
        self.etype = etype
        self.key_size = key_size
        self.hash_name = hash_name
        self.checksum_size = checksum_size
        self.checksum_type = checksum_type
        self._name = name

    def string_to_key(self, password: bytes, salt: bytes, params: bytes | None) -> bytes:
        salted = self._name + b"\x00" + salt
        seed = pbkdf2(self.hash_name, password, salted, iterations(params, 32768), self.key_size)
        return kdf_hmac_sha2(self.hash_name, seed, b"kerberos", self.key_size)

    def schedule(self, key: bytes) -> Derive:
        return Keyed(kdf_hmac_sha2, self.hash_name, key)

    def usage_cipher(self, schedule: Derive, usage: int) -> AesUsageCipher:
        return AesUsageCipher(self, schedule, usage)

    def encryption(self, derive: Derive, usage: int) -> tuple[bytes, HMAC]:
        """Return Ke, and the HMAC keyed with Ki."""
        # RFC 8009 5: the MAC covers the IV. It is zero for every message, so it goes into the keyed
        # state once.
        state = self._hmac(derive, usage, INTEGRITY)
        state.update(_ZERO_IV)
        return derive(usage_constant(usage, ENCRYPT), self.key_size), state

    def checksum(self, derive: Derive, usage: int) -> HMAC:
        return self._hmac(derive, usage, CHECKSUM)

    def _hmac(self, derive: Derive, usage: int, kind: int) -> HMAC:
        return HMAC(
            derive(usage_constant(usage, kind), self.checksum_size), _HASHES[self.hash_name]()
        )

    def prf(self, key: bytes, data: bytes) -> bytes:
        """Return KDF-HMAC-SHA2(key, "prf", data), as long as the hash. Source: RFC 8009 5."""
        return kdf_hmac_sha2(
            self.hash_name, key, b"prf", _HASHES[self.hash_name]().digest_size, data
        )
