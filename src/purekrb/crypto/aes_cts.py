"""AES-CBC with ciphertext stealing (RFC 3962 5) on cipher objects that live as long as their key.

Making an OpenSSL cipher object costs twenty times what encrypting a block does, so `AesCts` keeps one running CBC
encryptor and one decryptor. RFC 3962 wants a zero IV for each message, while a running object chains from its last
ciphertext block s. As every message here starts with a 16-byte confounder c, feeding c XOR s gives the very bytes
that a fresh object with a zero IV gives for c; on decryption the first block comes out as c XOR s.

A running object and its s are one pair, taken out of a list and put back last. Both steps are atomic, so threads need
no lock: who finds the list empty makes a new object. After an exception in between, which leaves a state that nobody
knows, the pair is lost, and the next message starts with a new object too.

Small messages are one join and one call. Large ones go through in chunks that stay in the processor's cache while they
are hashed and encrypted, straight into the buffer of the result.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

__all__ = ["AesCts", "BLOCK", "LARGE"]

BLOCK = 16
#: Bytes in a chunk of a large message, and the size from which a message is large: below, copies cost less than calls.
CHUNK = 64 * 1024
LARGE = 32 * 1024
_ZEROS = tuple(bytes(n) for n in range(BLOCK))
_ZERO_BLOCK = bytes(BLOCK)
_number = int.from_bytes
#: What update_into demands of room beyond its output.
_SLACK = BLOCK - 1

#: A CBC object and the last ciphertext block that went through it, as a number.
_Running = tuple[CipherContext, int]
#: Takes the next bytes of a message into its MAC.
Hash = Callable[["bytes | memoryview"], None]


class AesCts:
    """Encrypts and decrypts whole messages under one key. Thread-safe."""

    __slots__ = ("_decryptors", "_encryptors", "_key")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._encryptors: list[_Running] = []
        self._decryptors: list[_Running] = []

    def encrypt(self, confounder: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        """Return CTS(confounder | plaintext) with a zero IV, as (all but the last 16 bytes, the last 16 bytes)."""
        try:
            encryptor, before = self._encryptors.pop()
        except IndexError:
            encryptor, before = self._new_encryptor()
        pad = -len(plaintext) & 15
        first = (_number(confounder, "big") ^ before).to_bytes(BLOCK, "big")
        out = encryptor.update(b"".join((first, plaintext, _ZEROS[pad])))
        last = out[-BLOCK:]
        self._encryptors.append((encryptor, _number(last, "big")))
        return _swapped(out, last, pad)

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
        try:
            encryptor, before = self._encryptors.pop()
        except IndexError:
            encryptor, before = self._new_encryptor()
        first = (_number(confounder, "big") ^ before).to_bytes(BLOCK, "big")
        out[:BLOCK] = encryptor.update(first)
        if plain is not None:
            plain(confounder)
        if cipher is not None:
            cipher(out[:BLOCK])
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
        last = final[-BLOCK:]
        self._encryptors.append((encryptor, _number(last, "big")))
        body, last = _swapped(final, last, pad)
        out[BLOCK + end :] = body
        if cipher is not None:
            cipher(body)
            cipher(last)
        return last

    def decrypt(self, ciphertext: bytes) -> tuple[bytes, bytes]:
        """Return (confounder, plaintext) of `ciphertext`, which has at least 16 bytes; the inverse of `encrypt`."""
        try:
            decryptor, before = self._decryptors.pop()
        except IndexError:
            decryptor, before = self._new_decryptor()
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
            stolen = _unchained(decryptor.update(last), before)[tail:]
            before = _number(last, "big")
            out = decryptor.update(b"".join((ciphertext[: -tail - BLOCK], ciphertext[-tail:], stolen, last)))
        self._decryptors.append((decryptor, _number(last, "big")))
        return _unchained(out[:BLOCK], before), out[BLOCK:size]

    def decrypt_into(self, out: memoryview, body: memoryview, last: bytes, plain: Hash | None) -> bytes:
        """Decrypt body | last, the parts that `encrypt_into` makes, into `out`; return the 16 bytes of the suffix.

        `out` is 16 bytes shorter than `body`, which is longer than LARGE. `plain` hashes the plaintext, where given.
        What is in `out` is not to be used before its MAC is verified.
        """
        try:
            decryptor, before = self._decryptors.pop()
        except IndexError:
            decryptor, before = self._new_decryptor()
        # The last two ciphertext blocks stand in each other's place; to know the end of the block before the last, the
        # last is decrypted first.
        tail = len(body) % BLOCK or BLOCK
        end = len(body) - tail
        swapped = b"".join((body[end:], last))
        head, final = swapped[BLOCK:], swapped[:BLOCK]
        stolen = _unchained(decryptor.update(final), before)[tail:]
        after = _number(final, "big")
        confounder = _unchained(decryptor.update(body[:BLOCK]), after)
        if plain is not None:
            plain(confounder)
        near = (len(body) - _SLACK) // BLOCK * BLOCK  # update_into wants room
        for at in range(BLOCK, near, CHUNK):
            stop = min(at + CHUNK, near)
            decryptor.update_into(body[at:stop], out[at - BLOCK : stop - BLOCK + _SLACK])
            if plain is not None:
                plain(out[at - BLOCK : stop - BLOCK])
        rest = decryptor.update(b"".join((body[near:end], head, stolen, final)))[: len(out) - near + 2 * BLOCK]
        if plain is not None:
            plain(rest)
        self._decryptors.append((decryptor, after))
        out[near - BLOCK :] = rest[:-BLOCK]
        return rest[-BLOCK:]

    def _new_encryptor(self) -> _Running:
        return Cipher(algorithms.AES(self._key), modes.CBC(_ZERO_BLOCK)).encryptor(), 0

    def _new_decryptor(self) -> _Running:
        return Cipher(algorithms.AES(self._key), modes.CBC(_ZERO_BLOCK)).decryptor(), 0


def _unchained(block: bytes, before: int) -> bytes:
    """Return what one block decrypts to alone; `before` is the ciphertext block that it was chained to."""
    return (_number(block, "big") ^ before).to_bytes(BLOCK, "big")


def _swapped(out: bytes, last: bytes, pad: int) -> tuple[bytes, bytes]:
    """Swap the last two blocks of `out` and cut off what was stolen; return (all but the last 16 bytes, these)."""
    if not pad:
        return (out[: -2 * BLOCK] + last, out[-2 * BLOCK : -BLOCK]) if len(out) > BLOCK else (b"", out)
    cut = BLOCK - pad
    return out[: -2 * BLOCK] + last[:cut], last[cut:] + out[-2 * BLOCK : -BLOCK - pad]
