"""MIT's replay cache file, read and looked up by plain code of its own: what the library is compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["places", "records", "siphash"]

_WORD = (1 << 64) - 1


def records(path: str | os.PathLike[str]) -> dict[int, tuple[bytes, int]]:
    """Return the tag and the time of each slot that was written, by its number from the first slot on."""
    content = Path(path).read_bytes()[16:] if os.path.exists(path) else b""
    assert len(content) % 16 == 0, "a record is torn"
    return {
        at // 16: (content[at : at + 12], int.from_bytes(content[at + 12 : at + 16], "big"))
        for at in range(0, len(content), 16)
        if any(content[at : at + 16])
    }


def places(seed: bytes, tag: bytes, tables: int = 12) -> Iterator[int]:
    """Yield the slots in which a tag may be, in the order in which they are searched."""
    first, slots = 0, 1023
    for table in range(tables):
        key = bytes([(seed[0] + table) % 256]) + seed[1:]
        slot = first + siphash(key, tag) % slots
        yield from (slot, slot + 1)
        first += slots
        slots = 2048 << table


def siphash(key: bytes, message: bytes) -> int:
    """Return SipHash-2-4, as its authors describe it."""
    halves = [int.from_bytes(key[at : at + 8], "little") for at in (0, 8)]
    v = [
        half ^ int.from_bytes(constant, "big")
        for half, constant in zip(
            halves * 2, (b"somepseu", b"dorandom", b"lygenera", b"tedbytes"), strict=True
        )
    ]

    def add_rotate_xor(a: int, b: int, turn: int, turn_a: int) -> None:
        v[a] = (v[a] + v[b]) & _WORD
        v[b] = _rotate(v[b], turn) ^ v[a]
        v[a] = _rotate(v[a], turn_a)

    def rounds(count: int) -> None:
        for _ in range(count):
            add_rotate_xor(0, 1, 13, 32)
            add_rotate_xor(2, 3, 16, 0)
            add_rotate_xor(0, 3, 21, 0)
            add_rotate_xor(2, 1, 17, 32)

    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _rotate(word: int, turn: int) -> int:
    return (word << turn | word >> (64 - turn)) & _WORD
