"""Buffers of tokens in pieces: any layout from a few letters, filled at random."""

from __future__ import annotations

import os
from collections.abc import Sequence

from purekrb import IovBuffer, IovType

__all__ = ["LAYOUTS", "layout", "message_of"]

_LETTERS = {
    "H": IovType.HEADER,
    "D": IovType.DATA,
    "S": IovType.SIGN_ONLY,
    "P": IovType.PADDING,
    "T": IovType.TRAILER,
}
#: Layouts of all kinds: DATA alone and in parts, SIGN_ONLY before, behind and between, with and without TRAILER.
LAYOUTS = (
    "HD",
    "HDT",
    "HDPT",
    "HDDD",
    "HSD",
    "HDS",
    "HSDST",
    "HSDS",
    "HDSDSD",
    "DHSDT",
    "HS",
    "HSST",
)


def layout(letters: str, size: int) -> list[IovBuffer]:
    """Return one buffer for each letter; DATA and SIGN_ONLY have `size` random bytes."""
    return [
        IovBuffer(_LETTERS[letter], os.urandom(size) if letter in "DS" else b"")
        for letter in letters
    ]


def message_of(buffers: Sequence[IovBuffer]) -> list[IovBuffer]:
    """Return what is to arrive: DATA and SIGN_ONLY."""
    return [buffer for buffer in buffers if buffer.type in (IovType.DATA, IovType.SIGN_ONLY)]
