"""Mutations of seeds: bits, bytes, lengths and pieces, drawn with a caller's random numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

__all__ = ["MAX_SIZE", "mutant"]

#: Bytes of a mutant, which keeps a run short.
MAX_SIZE = 1 << 16
_BYTES = (0x00, 0x01, 0x7F, 0x80, 0x81, 0x84, 0x88, 0xFF, 0x30, 0x0A, 0x5C)
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

#: Changes the data in place; the seeds are there to take pieces from.
_Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def mutant(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of `seeds` after one to four changes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        rng.choice(_CHANGES)(rng, data, seeds)
    return bytes(data[:MAX_SIZE])


def _place(rng: random.Random, data: bytearray) -> int:
    return rng.randrange(len(data) + 1)


def _piece(rng: random.Random, data: bytes | bytearray) -> bytes:
    start = rng.randrange(len(data) + 1)
    return bytes(data[start : start + rng.choice((1, 2, 4, 8, 16, 64, 4096))])


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((*_BYTES, rng.randrange(256)))


def _number(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at, size = _place(rng, data), rng.choice((2, 4, 8))
    number = rng.choice(_NUMBERS) & (1 << 8 * size) - 1
    data[at : at + size] = number.to_bytes(size, rng.choice(("big", "little")))


def _cut(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[_place(rng, data) :]


def _remove(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(rng, data)
    del data[at : at + rng.choice((1, 2, 4, 16))]


def _insert(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(rng, data)
    data[at:at] = bytes(rng.choice(_BYTES) for _ in range(rng.choice((1, 2, 4, 300))))


def _double(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(rng, data)
    data[at:at] = _piece(rng, data)


def _splice(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = _place(rng, data)
    piece = _piece(rng, rng.choice(seeds))
    data[at : at + rng.choice((0, len(piece)))] = piece


def _extend(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A header before the data with their length, as DER and frames have it, or a wrong one."""
    size = max(0, len(data) + rng.choice((-1, 0, 0, 1)))
    heads = b"\x30" + bytes((min(size, 0x7F),)), size.to_bytes(4, "big"), size.to_bytes(4, "little")
    data[:0] = rng.choice(heads)


_CHANGES: tuple[_Change, ...] = (
    _flip,
    _flip,
    _set,
    _set,
    _number,
    _cut,
    _remove,
    _insert,
    _double,
    _splice,
    _extend,
)
