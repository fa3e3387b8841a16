"""SipHash-2-4 of one replay tag under the keys of all hash tables of a file, in a single pass.

Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.

A long integer holds one 64-bit word for each table, in lanes of 120 bits. The upper bits of a lane
take what additions carry and what rotations shift out, 51 bits at most. So ten tables cost 1.5 times as much as one.
"""

from __future__ import annotations

import struct
from functools import lru_cache

__all__ = ["Schedule", "schedule", "siphash"]

#: The words v0 to v3 of all lanes; a 1 in each lane; the mask of the words; how to unpack them.
Schedule = tuple[int, int, int, int, int, int, struct.Struct]

_WORD = (1 << 64) - 1
_LANE = 120
_CONSTANTS = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


@lru_cache(maxsize=32)
def schedule(seed: bytes, tables: int) -> Schedule:
    """Return the start of the hash under `tables` keys; the first key is `seed` (16 bytes).

    Each further key is the one before with its first byte incremented, modulo 256.
    """
    ones = sum(1 << (_LANE * table) for table in range(tables))
    first = sum(
        int.from_bytes(bytes([(seed[0] + table) & 0xFF]) + seed[1:8], "little") << (_LANE * table)
        for table in range(tables)
    )
    second = int.from_bytes(seed[8:], "little") * ones
    c0, c1, c2, c3 = (constant * ones for constant in _CONSTANTS)
    words = struct.Struct("<" + "Q7x" * tables)
    return first ^ c0, second ^ c1, first ^ c2, second ^ c3, ones, _WORD * ones, words


def siphash(start: Schedule, tag: bytes) -> tuple[int, ...]:
    """Return the hashes (0 .. 2^64-1) of `tag` (12 bytes), one for each key of `start`."""
    v0, v1, v2, v3, ones, mask, words = start
    head = int.from_bytes(tag[:8], "little") * ones
    tail = (int.from_bytes(tag[8:], "little") | len(tag) << 56) * ones
    # A word of the message is added before and after its two rounds. The four rounds at the end add
    # nothing, but change v2 first.
    for added, closing, rounds in (
        (head, 0, (1, 2)),
        (tail, 0, (1, 2)),
        (0, 0xFF * ones, (1, 2, 3, 4)),
    ):
        v3 ^= added
        v2 ^= closing
        for _ in rounds:
            v0 = (v0 + v1) & mask
            v1 = ((v1 << 13 | v1 >> 51) & mask) ^ v0
            v0 = (v0 << 32 | v0 >> 32) & mask
            v2 = (v2 + v3) & mask
            v3 = ((v3 << 16 | v3 >> 48) & mask) ^ v2
            v0 = (v0 + v3) & mask
            v3 = ((v3 << 21 | v3 >> 43) & mask) ^ v0
            v2 = (v2 + v1) & mask
            v1 = ((v1 << 17 | v1 >> 47) & mask) ^ v2
            v2 = (v2 << 32 | v2 >> 32) & mask
        v0 ^= added
    return words.unpack((v0 ^ v1 ^ v2 ^ v3).to_bytes(words.size, "little"))
