"""rc4-hmac, which is opt-in. Source: RFC 4757.

MD4 and RC4 come from pycryptodomex, which is imported at the first use.
"""

from __future__ import annotations

import hashlib
import hmac

from purekrb.crypto.derivation import Keyed
from purekrb.crypto.profile import WIPED
from purekrb.errors import IntegrityError
from purekrb.keys import EncryptionKey

__all__ = ["Rc4Hmac", "hmac_md5", "hmac_md5_checksum", "nt_hash", "rc4"]

MAC = 16
CONFOUNDER = 8
#: The usages that Windows numbers differently: AS-REP 3 -> 8 (RFC 4757 3), and GSS sign 23 -> 13
#: (RFC 4757 7.2 and 7.3).
_USAGES = {3: 8, 23: 13}


def hmac_md5(key: bytes, data: bytes) -> bytes:
    """Return HMAC-MD5(key, data)."""
    return hmac.digest(key, data, "md5")


def nt_hash(password: bytes) -> bytes:
    """Return MD4 of a password in UTF-16-LE, which is its key. Source: RFC 4757 2."""
    from Cryptodome.Hash import MD4

    return MD4.new(password).digest()  # noqa: S303


def rc4(key: bytes, data: bytes) -> bytes:
    """Return `data` encrypted (or decrypted) with RC4 under `key`."""
    from Cryptodome.Cipher import ARC4

    return ARC4.new(key).encrypt(data)


def hmac_md5_checksum(key: EncryptionKey, usage: int, data: bytes) -> bytes:
    """Return the 16 bytes of the HMAC-MD5 checksum (-138) with a key of any encryption type.

    Some of Microsoft's messages have this checksum whatever the key. Source: RFC 4757 4.
    """
    return _UsageCipher(key.contents, usage).checksum(data)


class _UsageCipher:
    __slots__ = ("_base", "_salt", "_sign")

    confounder_size = CONFOUNDER

    def __init__(self, key: bytes, usage: int) -> None:
        self._salt = _USAGES.get(usage, usage).to_bytes(4, "little")
        self._base = Keyed(hmac_md5, hmac_md5(key, self._salt))
        self._sign = Keyed(hmac_md5, hmac_md5(key, b"signaturekey\0"))

    def encrypt(self, plaintext: bytes, confounder: bytes) -> bytes:
        message = confounder + plaintext
        mac = self._base(message)
        return mac + rc4(self._base(mac), message)

    def decrypt(self, ciphertext: bytes) -> bytes:
        if len(ciphertext) < MAC + CONFOUNDER:
            raise IntegrityError
        mac = ciphertext[:MAC]
        message = rc4(self._base(mac), ciphertext[MAC:])
        # RFC 4757 4: the checksum of confounder and plaintext.
        if not hmac.compare_digest(self._base(message), mac):
            del message  # most of it may be genuine: a traceback with locals must not show it
            raise IntegrityError
        return message[CONFOUNDER:]

    def checksum(self, data: bytes) -> bytes:
        return self._sign(hashlib.md5(self._salt + data, usedforsecurity=False).digest())

    def wipe(self) -> None:
        self._base = self._sign = WIPED


class Rc4Hmac:
    """The profile of etype 23."""

    etype = 23
    key_size = 16
    confounder_size = CONFOUNDER
    checksum_size = MAC
    checksum_type = -138

    def string_to_key(self, password: bytes, salt: bytes, params: bytes | None) -> bytes:
        # No variable holds the password in UTF-16: see `forget_frames`.
        return nt_hash(password.decode("utf-8").encode("utf-16-le"))

    def schedule(self, key: bytes) -> bytes:
        return key

    def usage_cipher(self, schedule: bytes, usage: int) -> _UsageCipher:
        return _UsageCipher(schedule, usage)

    def prf(self, key: bytes, data: bytes) -> bytes:
        """Return HMAC-SHA1(key, data). Source: RFC 6113 A."""
        return hmac.digest(key, data, "sha1")
