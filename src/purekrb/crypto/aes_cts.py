"""AES-CBC with ciphertext stealing (RFC 3962 5) on cipher objects that live as long as their key.

Making an OpenSSL cipher object costs twenty times as much as encrypting a block. So `AesCts` keeps
one running CBC encryptor and one running decryptor. RFC 3962 demands a zero IV for each message,
but a running object chains from its last ciphertext block. Before each message, extra blocks make
that block zero:

- A decryptor gets a block of zeros. Its output is dropped; the next block is chained to the zeros.
- An encryptor gets its last ciphertext block s, which gives E(s XOR s) = E(0). Then it gets
  D(0) XOR E(0), a constant of the key, which gives E(D(0)) = 0. Both outputs are dropped; the next
  block is chained to the zero block.

So the output is the same as that of a new object. A thread takes an object out of a list, and puts
it back at the end, an encryptor together with its s. Both steps are atomic, so threads need no
lock: a thread that finds the list empty makes a new object. If an exception comes in between, the
object is lost, and the next message starts with a new one.

A small message is one join and one call. A large message is processed in chunks. A chunk stays in
the processor's cache while it is hashed and encrypted, straight into the buffer of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

__all__ = ["AesCts", "BLOCK", "LARGE"]

BLOCK = 16
#: The size of a chunk of a large message, and the size from which a message is large, in bytes.
#: Below that size, copies cost less than calls.
CHUNK = 64 * 1024
LARGE = 32 * 1024
_ZEROS = tuple(bytes(n) for n in range(BLOCK))
_ZERO_BLOCK = bytes(BLOCK)
_CBC = modes.CBC(_ZERO_BLOCK)
#: The starts of the last block of a ciphertext and of the block before it, which CTS swaps.
_LAST, _BEFORE_LAST = -BLOCK, -2 * BLOCK
#: The room that update_into demands beyond its output, in bytes.
_SLACK = BLOCK - 1

#: Takes the next bytes of a message into its MAC.
Hash = Callable[["bytes | memoryview"], None]


class AesCts:
    """Encrypts and decrypts whole messages under one key. Thread-safe."""

    __slots__ = ("_cipher", "_decryptors", "_encryptors", "_zeroing")

    def __init__(self, key: bytes) -> None:
        self._cipher: Cipher[Any] = Cipher(algorithms.AES(key), _CBC)
        self._encryptors: list[tuple[CipherContext, bytes]] = []
        self._decryptors: list[CipherContext] = []
        self._zeroing: bytes | None = None

    def encrypt(self, message: bytes) -> tuple[bytes, bytes, bytes]:
        """Return CTS(message) with a zero IV, in three pieces; the last has 16 bytes.

        `message` starts with its confounder of 16 bytes. Source: RFC 3962 5.
        """
        try:
            encryptor, before = self._encryptors.pop()
            before += self._zeroing or self._find_zeroing()
        except IndexError:
            encryptor, before = self._cipher.encryptor(), b""
        pad = -len(message) % BLOCK
        if pad:
            message += _ZEROS[pad]
        out = encryptor.update(before + message)
        last = out[_LAST:]
        self._encryptors.append((encryptor, last))
        if len(message) == BLOCK:
            return b"", b"", last
        start, before_last = out[len(before) : _BEFORE_LAST], out[_BEFORE_LAST:_LAST]
        if not pad:
            return start, last, before_last
        cut = BLOCK - pad  # the end of the block before the last is stolen
        return start, last[:cut], last[cut:] + before_last[:cut]

    def encrypt_into(
        self,
        out: memoryview,
        confounder: bytes,
        data: memoryview,
        suffix: bytes,
        plain: Hash | None,
        cipher: Hash | None,
    ) -> bytes:
        """Write CTS(confounder | data | suffix) into `out`, and return its last 16 bytes instead.

        `out` is as long as `data` and `suffix` together. `data` has at least LARGE bytes, `suffix`
        has 16. `plain` hashes the plaintext and `cipher` the ciphertext, unless they are None.
        """
        try:
            encryptor, before = self._encryptors.pop()
            before += self._zeroing or self._find_zeroing()
        except IndexError:
            encryptor, before = self._cipher.encryptor(), b""
        first = encryptor.update(before + confounder)[-BLOCK:]
        out[:BLOCK] = first
        if plain is not None:
            plain(confounder)
        if cipher is not None:
            cipher(first)
        end = (len(data) - _SLACK) // BLOCK * BLOCK
        for at in range(0, end, CHUNK):
            stop = min(at + CHUNK, end)
            chunk = data[at:stop]
            if plain is not None:
                plain(chunk)
            encryptor.update_into(chunk, out[BLOCK + at : BLOCK + stop + _SLACK])
            if cipher is not None:
                cipher(out[BLOCK + at : BLOCK + stop])
        rest = b"".join((data[end:], suffix))
        if plain is not None:
            plain(rest)
        pad = -len(rest) % BLOCK
        final = encryptor.update(rest + _ZEROS[pad])
        last = final[_LAST:]
        self._encryptors.append((encryptor, last))
        cut = BLOCK - pad
        body = b"".join((final[:_BEFORE_LAST], last[:cut]))
        last = last[cut:] + final[_BEFORE_LAST:_LAST][:cut]
        out[BLOCK + end :] = body
        if cipher is not None:
            cipher(body)
            cipher(last)
        return last

    def decrypt(self, start: bytes | memoryview, last: bytes) -> bytes:
        """Return the message of the ciphertext start | last; `last` has 16 bytes."""
        try:
            decryptor = self._decryptors.pop()
        except IndexError:
            decryptor = self._cipher.decryptor()
        tail = len(start) % BLOCK
        if not tail:
            # CTS swaps the last two blocks. (If there is only one block, `start` is empty.)
            out = decryptor.update(b"".join((_ZERO_BLOCK, start[:_LAST], last, start[_LAST:])))
            self._decryptors.append(decryptor)
            return out[BLOCK:]
        # The end of the block before the last was stolen: the last block decrypts to it.
        swapped = b"".join((start[-tail:], last))
        final, cut = swapped[:BLOCK], swapped[BLOCK:]
        stolen = decryptor.update(_ZERO_BLOCK + final)[BLOCK + tail :]
        out = decryptor.update(b"".join((_ZERO_BLOCK, start[:-tail], cut, stolen, final)))
        self._decryptors.append(decryptor)
        return out[BLOCK : tail - BLOCK]

    def decrypt_into(
        self, out: memoryview, body: memoryview, last: bytes, plain: Hash | None
    ) -> bytes:
        """Decrypt body | last, the parts that `encrypt_into` makes, into `out`; return the suffix.

        The suffix has 16 bytes. `out` is 16 bytes shorter than `body`, which is longer than LARGE.
        `plain` hashes the plaintext, unless it is None. The caller must verify the MAC before it
        uses `out`.
        """
        try:
            decryptor = self._decryptors.pop()
        except IndexError:
            decryptor = self._cipher.decryptor()
        # As in `decrypt`; here a whole last block counts as one that has stolen nothing.
        tail = len(body) % BLOCK or BLOCK
        end = len(body) - tail
        swapped = b"".join((body[end:], last))
        final, cut = swapped[:BLOCK], swapped[BLOCK:]
        first = decryptor.update(b"".join((_ZERO_BLOCK, final, _ZERO_BLOCK, body[:BLOCK])))
        stolen = first[BLOCK + tail : 2 * BLOCK]
        if plain is not None:
            plain(first[-BLOCK:])  # the confounder
        near = (len(body) - _SLACK) // BLOCK * BLOCK  # update_into needs room
        for at in range(BLOCK, near, CHUNK):
            stop = min(at + CHUNK, near)
            decryptor.update_into(body[at:stop], out[at - BLOCK : stop - BLOCK + _SLACK])
            if plain is not None:
                plain(out[at - BLOCK : stop - BLOCK])
        rest = decryptor.update(b"".join((body[near:end], cut, stolen, final)))[
            : len(out) - near + 2 * BLOCK
        ]
        if plain is not None:
            plain(rest)
        self._decryptors.append(decryptor)
        out[near - BLOCK :] = rest[:-BLOCK]
        return rest[-BLOCK:]

    def _find_zeroing(self) -> bytes:
        """Return D(0) XOR E(0)."""
        encrypted, decrypted = (
            int.from_bytes(context.update(_ZERO_BLOCK), "big")
            for context in (self._cipher.encryptor(), self._cipher.decryptor())
        )
        zeroing = self._zeroing = (encrypted ^ decrypted).to_bytes(BLOCK, "big")
        return zeroing
