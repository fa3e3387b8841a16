"""AES-CBC with ciphertext stealing (RFC 3962 5) on cipher objects that live as long as their key.

Making an OpenSSL cipher object costs twenty times what encrypting a block does, so `AesCts` keeps one running CBC
encryptor and one decryptor. RFC 3962 wants a zero IV for each message, while a running object chains from its last
ciphertext block s. As every message here starts with a 16-byte confounder c, feeding c XOR s gives the very bytes
that a fresh object with a zero IV gives for c; on decryption the first block comes out as c XOR s.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

__all__ = ["AesCts", "BLOCK"]

BLOCK = 16
_ZEROS = tuple(bytes(n) for n in range(BLOCK))
_ZERO_BLOCK = bytes(BLOCK)


class AesCts:
    """Encrypts and decrypts whole messages under one key. Not thread-safe: its owner holds a lock around each call."""

    __slots__ = ("_decryptor", "_encryptor", "_key", "_received", "_sent")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._encryptor: CipherContext | None = None
        self._decryptor: CipherContext | None = None
        self._sent = 0  # last ciphertext block that went through the encryptor, as an integer
        self._received = 0  # the same for the decryptor

    def encrypt(self, confounder: bytes, plaintext: bytes) -> bytes:
        """Return CTS(confounder | plaintext) with a zero IV; as long as its input. `confounder` has 16 bytes."""
        encryptor = self._encryptor
        if encryptor is None:
            encryptor = Cipher(algorithms.AES(self._key), modes.CBC(_ZERO_BLOCK)).encryptor()
            self._sent = 0
        self._encryptor = None  # put back at the end: an exception in between drops a state we would not know
        first = (int.from_bytes(confounder, "big") ^ self._sent).to_bytes(BLOCK, "big")
        pad = -len(plaintext) % BLOCK
        out = encryptor.update(b"".join((first, plaintext, _ZEROS[pad])))
        last = out[-BLOCK:]
        self._sent = int.from_bytes(last, "big")
        self._encryptor = encryptor
        if len(out) == BLOCK:
            return out
        return b"".join((out[: -2 * BLOCK], last, out[-2 * BLOCK : -BLOCK - pad]))

    def decrypt(self, ciphertext: bytes) -> tuple[bytes, bytes]:
        """Return (confounder, plaintext) of `ciphertext`, which has at least 16 bytes; the inverse of `encrypt`."""
        decryptor = self._decryptor
        if decryptor is None:
            decryptor = Cipher(algorithms.AES(self._key), modes.CBC(_ZERO_BLOCK)).decryptor()
            self._received = 0
        self._decryptor = None
        size = len(ciphertext)
        tail = size % BLOCK or BLOCK
        if size == BLOCK:
            last = bytes(ciphertext)
            out = decryptor.update(last)
        elif tail == BLOCK:
            last = bytes(ciphertext[-2 * BLOCK : -BLOCK])
            out = decryptor.update(b"".join((ciphertext[: -2 * BLOCK], ciphertext[-BLOCK:], last)))
        else:
            last = bytes(ciphertext[-tail - BLOCK : -tail])
            # The end of the block before the last was stolen from what `last` decrypts to, its plaintext being zeros.
            chained = int.from_bytes(decryptor.update(last), "big") ^ self._received
            self._received = int.from_bytes(last, "big")
            stolen = chained.to_bytes(BLOCK, "big")[tail:]
            out = decryptor.update(b"".join((ciphertext[: -tail - BLOCK], ciphertext[-tail:], stolen, last)))
        confounder = (int.from_bytes(out[:BLOCK], "big") ^ self._received).to_bytes(BLOCK, "big")
        self._received = int.from_bytes(last, "big")
        self._decryptor = decryptor
        return confounder, out[BLOCK:size]
