"""AES-CBC with ciphertext stealing from scratch, block by block as RFC 3962 5 has it: slow, and easy to believe."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK = 16


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=False))


def cts_encrypt(key: bytes, plaintext: bytes) -> bytes:
    """Return CTS(plaintext) with a zero initial vector; plaintext has at least one block."""
    aes = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    blocks = [plaintext[i : i + BLOCK] for i in range(0, len(plaintext), BLOCK)]
    previous, out = bytes(BLOCK), []
    for block in blocks:
        previous = aes.update(_xor(block.ljust(BLOCK, b"\0"), previous))
        out.append(previous)
    if len(out) > 1:
        out[-2:] = [out[-1], out[-2][: len(blocks[-1])]]
    return b"".join(out)


def cts_decrypt(key: bytes, ciphertext: bytes) -> bytes:
    """Return the inverse of `cts_encrypt`."""
    aes = Cipher(algorithms.AES(key), modes.ECB()).decryptor()
    blocks = [ciphertext[i : i + BLOCK] for i in range(0, len(ciphertext), BLOCK)]
    if len(blocks) == 1:
        return aes.update(blocks[0])
    *first, last, short = blocks
    previous, out = bytes(BLOCK), []
    for block in first:
        out.append(_xor(aes.update(block), previous))
        previous = block
    mixed = aes.update(
        last
    )  # the padded last plaintext block XOR the next to last ciphertext block
    whole = short + mixed[len(short) :]
    return b"".join([*out, _xor(aes.update(whole), previous), _xor(mixed, short)])
