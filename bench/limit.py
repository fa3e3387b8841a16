"""The limit: the same bytes through OpenSSL's C interface, AES-CBC then HMAC, one after the other, in one thread."""

from __future__ import annotations

import ctypes
import ctypes.util
import os

__all__ = ["Limit"]

_DIGESTS = {18: (b"SHA1", 20), 20: (b"SHA384", 24)}


class Limit:
    """AES-256-CBC and HMAC of one key over `size` bytes, into buffers that exist already."""

    def __init__(self, etype: int, size: int) -> None:
        library = ctypes.util.find_library("crypto")
        if library is None:
            raise RuntimeError("libcrypto is not installed: apt-get install libssl3")
        self._lib = lib = ctypes.CDLL(library)
        for make in (
            lib.EVP_CIPHER_CTX_new,
            lib.EVP_aes_256_cbc,
            lib.EVP_get_digestbyname,
            lib.HMAC_CTX_new,
        ):
            make.restype = ctypes.c_void_p
        digest, key_size = _DIGESTS[etype]
        self._size = (size + 15) // 16 * 16
        self._source = ctypes.create_string_buffer(os.urandom(self._size), self._size)
        self._target = ctypes.create_string_buffer(self._size + 32)
        self._mac = ctypes.create_string_buffer(64)
        self._length = ctypes.c_int()
        key = os.urandom(32)
        self._ciphers = []
        for encrypting in (1, 0):
            context = ctypes.c_void_p(lib.EVP_CIPHER_CTX_new())
            cipher = ctypes.c_void_p(lib.EVP_aes_256_cbc())
            if lib.EVP_CipherInit_ex(context, cipher, None, key, bytes(16), encrypting) != 1:
                raise RuntimeError("libcrypto refused the cipher")
            lib.EVP_CIPHER_CTX_set_padding(context, 0)
            self._ciphers.append(context)
        self._hmac = ctypes.c_void_p(lib.HMAC_CTX_new())
        evp_digest = ctypes.c_void_p(lib.EVP_get_digestbyname(digest))
        if lib.HMAC_Init_ex(self._hmac, os.urandom(key_size), key_size, evp_digest, None) != 1:
            raise RuntimeError("libcrypto refused the digest")

    def seal(self) -> None:
        """Encrypt, then hash."""
        self._cipher(self._ciphers[0])
        self.sign()

    def open(self) -> None:
        """Decrypt, then hash."""
        self._cipher(self._ciphers[1])
        self.sign()

    def sign(self) -> None:
        """Hash alone."""
        lib, hmac = self._lib, self._hmac
        lib.HMAC_Init_ex(hmac, None, 0, None, None)
        lib.HMAC_Update(hmac, self._source, ctypes.c_size_t(self._size))
        if lib.HMAC_Final(hmac, self._mac, None) != 1:
            raise RuntimeError("HMAC failed")

    def _cipher(self, context: ctypes.c_void_p) -> None:
        done = self._lib.EVP_CipherUpdate(
            context, self._target, ctypes.byref(self._length), self._source, self._size
        )
        if done != 1:
            raise RuntimeError("the cipher failed")
