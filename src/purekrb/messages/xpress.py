"""XPRESS-Huffman, by which domain controllers compress claims. Source: MS-XCA 2.1, 2.2.

dissect.util decompresses; it has no limits of its own, and stops before the last symbols.
"""

from __future__ import annotations

import io
from typing import Any

from purekrb.errors import PacError, UnsupportedError
from purekrb.tracebacks import forget_frames

__all__ = ["MAX_SIZE", "decompress"]

#: Larger claims do not fit into a ticket. Up to here, all is in the first block of 64 KiB.
MAX_SIZE = 60_000
#: The size of the table with which each block begins.
_TABLE = 256


class _OneBlock(io.BytesIO):
    """Data of which a second block cannot be read: few bytes of it may stand for 128 KiB."""

    tables = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.tables += size == _TABLE
        if self.tables > 1:
            raise EOFError
        return super().read(size)


@forget_frames
def decompress(data: bytes, size: int) -> bytes:
    """Return the `size` bytes that `data` stand for.

    Raises PacError for malformed data or too much, and UnsupportedError without dissect.util.
    """
    if max(size, len(data)) > MAX_SIZE:
        raise PacError(
            f"the PAC's claims have {max(size, len(data))} bytes, but at most {MAX_SIZE} are read"
        )
    try:
        from dissect.util.compression import lzxpress_huffman
    except ImportError:
        raise UnsupportedError(
            "the claims are compressed, which needs dissect.util: run `pip install purekrb[claims]`"
        ) from None
    found = _decompressed(lzxpress_huffman, data)
    if len(found) < size:
        raise PacError("the PAC's compressed claims are malformed")
    return found[:size]


def _decompressed(lzxpress_huffman: Any, data: bytes) -> bytes:
    try:
        # It looks 4 bytes ahead, and ends when it has read all, not when it has used all.
        return bytes(lzxpress_huffman.decompress(_OneBlock(data + bytes(4))))
    except Exception:  # it raises what happens to go wrong
        return b""
