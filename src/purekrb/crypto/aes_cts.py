"""AES-CBC with ciphertext stealing (RFC 3962 5) on cipher objects that live as long as their key.

Making an OpenSSL cipher object costs twenty times what encrypting a block does, so `AesCts` keeps one running CBC
encryptor and one decryptor. RFC 3962 wants a zero IV for each message, while a running object chains from its last
ciphertext block s. As every message here starts with a 16-byte confounder c, feeding c XOR s gives the very bytes
that a fresh object with a zero IV gives for c; on decryption the first block comes out as c XOR s.

Small messages are one join and one call. Large ones go through in chunks that stay in the processor's cache while they
are hashed and encrypted, straight into the buffer of the result.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

__all__ = ["AesCts", "BLOCK", "LARGE"]

BLOCK = 16
#: Bytes in a chunk of a large message, and the size from which a message is large.
CHUNK = 16 * 1024
LARGE = 16 * 1024
_ZEROS = tuple(bytes(n) for n in range(BLOCK))
_ZERO_BLOCK = bytes(BLOCK)
_number = int.from_bytes
#: What update_into demands of room beyond its output.
_SLACK = BLOCK - 1

#: Takes the next bytes of a message into its MAC.
Hash = Callable[["bytes | memoryview"], None]


class AesCts:
    """Encrypts and decrypts whole messages under one key. Not thread-safe: its owner holds a lock around each call."""

    __slots__ = ("_decryptor", "_encryptor", "_key", "_received", "_sent")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._encryptor: CipherContext | None = None
        self._decryptor: CipherContext | None = None
        self._sent = 0  # last ciphertext block that went through the encryptor, as an integer
        self._received = 0  # the same for the decryptor

    def encrypt(self, confounder: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        """Return CTS(confounder | plaintext) with a zero IV, as (all but the last 16 bytes, the last 16 bytes)."""
        encryptor = self._encryptor or self._new_encryptor()
        self._encryptor = None
        pad = -len(plaintext) & 15
        first = (_number(confounder, "big") ^ self._sent).to_bytes(BLOCK, "big")
        out = encryptor.update(b"".join((first, plaintext, _ZEROS[pad])))
        return self._end_encryption(encryptor, out, pad)

    def encrypt_into(
        self,
        out: memoryview,
        confounder: bytes,
        data: memoryview,
        suffix: bytes,
        plain: Hash | None,
        cipher: Hash | None,
    ) -> bytes:
        """Write CTS(confounder | data | suffix) into `out`, but for its last 16 bytes, which are returned.

        `out` is as long as data and suffix together, `data` at least LARGE; `suffix` has 16 bytes. `plain` and `cipher`
        hash the plaintext and the ciphertext, where given.
        """
        encryptor = self._encryptor or self._new_encryptor()
        self._encryptor = None
        first = (_number(confounder, "big") ^ self._sent).to_bytes(BLOCK, "big")
        out[:BLOCK] = encryptor.update(first)
        if plain is not None:
            plain(confounder)
        if cipher is not None:
            cipher(out[:BLOCK])
        at = 0
        while len(data) - at > CHUNK + _SLACK:
            chunk, place = data[at : at + CHUNK], out[BLOCK + at : BLOCK + at + CHUNK]
            if plain is not None:
                plain(chunk)
            encryptor.update_into(chunk, out[BLOCK + at : BLOCK + at + CHUNK + _SLACK])
            if cipher is not None:
                cipher(place)
            at += CHUNK
        rest = b"".join((data[at:], suffix))
        if plain is not None:
            plain(rest)
        pad = -len(rest) % BLOCK
        body, last = self._end_encryption(encryptor, encryptor.update(rest + _ZEROS[pad]), pad)
        out[BLOCK + at :] = body
        if cipher is not None:
            cipher(body)
            cipher(last)
        return last

    def decrypt(self, ciphertext: bytes) -> tuple[bytes, bytes]:
        """Return (confounder, plaintext) of `ciphertext`, which has at least 16 bytes; the inverse of `encrypt`."""
        decryptor = self._decryptor or self._new_decryptor()
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
            stolen = self._decrypt_block(decryptor, last)[tail:]
            out = decryptor.update(b"".join((ciphertext[: -tail - BLOCK], ciphertext[-tail:], stolen, last)))
        confounder = (_number(out[:BLOCK], "big") ^ self._received).to_bytes(BLOCK, "big")
        self._received = _number(last, "big")
        self._decryptor = decryptor
        return confounder, out[BLOCK:size]

    def decrypt_into(
        self, out: memoryview, body: memoryview, last: bytes, plain: Hash | None, cipher: Hash | None
    ) -> bytes:
        """Decrypt body | last, the parts that `encrypt_into` makes, into `out`; return the 16 bytes of the suffix.

        `out` is 16 bytes shorter than `body`, which is longer than LARGE. `plain` and `cipher` hash as in encrypting.
        What is in `out` is not to be used before its MAC is verified.
        """
        decryptor = self._decryptor or self._new_decryptor()
        self._decryptor = None
        # The last two ciphertext blocks stand in each other's place; to know the end of the block before the last, the
        # last is decrypted first.
        tail = len(body) % BLOCK or BLOCK
        end = len(body) - tail
        swapped = b"".join((body[end:], last))
        before, final = swapped[BLOCK:], swapped[:BLOCK]
        stolen = self._decrypt_block(decryptor, final)[tail:]
        confounder = decryptor.update(body[:BLOCK])
        confounder = (_number(confounder, "big") ^ self._received).to_bytes(BLOCK, "big")
        if plain is not None:
            plain(confounder)
        if cipher is not None:
            cipher(body[:BLOCK])
        at = BLOCK
        while end - at > CHUNK + _SLACK:
            chunk, place = body[at : at + CHUNK], out[at - BLOCK : at - BLOCK + CHUNK]
            if cipher is not None:
                cipher(chunk)
            decryptor.update_into(chunk, out[at - BLOCK : at - BLOCK + CHUNK + _SLACK])
            if plain is not None:
                plain(place)
            at += CHUNK
        if cipher is not None:
            cipher(body[at:])
            cipher(last)
        rest = decryptor.update(b"".join((body[at:end], before, stolen, final)))[: len(out) - at + 2 * BLOCK]
        if plain is not None:
            plain(rest)
        self._received = _number(final, "big")
        self._decryptor = decryptor
        out[at - BLOCK :] = rest[:-BLOCK]
        return rest[-BLOCK:]

    # A method takes its cipher object away and puts it back when all went well: after an exception in between, whose
    # state nobody knows, the next message starts with a new object.

    def _new_encryptor(self) -> CipherContext:
        self._sent = 0
        return Cipher(algorithms.AES(self._key), modes.CBC(_ZERO_BLOCK)).encryptor()

    def _new_decryptor(self) -> CipherContext:
        self._received = 0
        return Cipher(algorithms.AES(self._key), modes.CBC(_ZERO_BLOCK)).decryptor()

    def _end_encryption(self, encryptor: CipherContext, out: bytes, pad: int) -> tuple[bytes, bytes]:
        """Swap the last two blocks of `out` and cut off what was stolen; return (all but the last 16 bytes, these)."""
        last = out[-BLOCK:]
        self._sent = _number(last, "big")
        self._encryptor = encryptor
        if not pad:
            return (out[: -2 * BLOCK] + last, out[-2 * BLOCK : -BLOCK]) if len(out) > BLOCK else (b"", out)
        cut = BLOCK - pad
        return out[: -2 * BLOCK] + last[:cut], last[cut:] + out[-2 * BLOCK : -BLOCK - pad]

    def _decrypt_block(self, decryptor: CipherContext, block: bytes) -> bytes:
        """Return what `block` decrypts to alone, by undoing the chaining of the running object."""
        chained = _number(decryptor.update(block), "big") ^ self._received
        self._received = _number(block, "big")
        return chained.to_bytes(BLOCK, "big")
