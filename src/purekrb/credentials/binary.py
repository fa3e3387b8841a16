"""The bounded reader and the counted fields of keytab and ccache files."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from purekrb.errors import CredentialError, DecodeError

__all__ = ["ByteOrder", "Reader", "integer", "counted"]

ByteOrder = Literal["big", "little"]


class Reader:
    """Reads fields from the front of `data`. A read costs only its length, so parsing is linear.

    A read past the end raises DecodeError. For that error, `what` names the file, and `begins` is
    the offset of `data` in the file. Errors state offsets and lengths, never contents: if a length
    is damaged, any field may span a key.
    """

    __slots__ = ("_at", "_begins", "_data", "_order", "_what")

    def __init__(self, data: bytes, what: str, order: ByteOrder = "big", begins: int = 0) -> None:
        self._data, self._what, self._order, self._begins, self._at = data, what, order, begins, 0

    @property
    def offset(self) -> int:
        """The offset of the next field in the file."""
        return self._begins + self._at

    @property
    def remaining(self) -> int:
        """The number of bytes that are left."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if size > self.remaining:
            raise DecodeError(
                f"the {self._what} is cut off or damaged: a field at byte {self.offset} has "
                f"{size} bytes, {self.remaining} are left"
            )
        start = self._at
        self._at += size
        return self._data[start : self._at]

    def unsigned(self, size: int) -> int:
        """Return the next `size` bytes as an unsigned number."""
        return int.from_bytes(self.take(size), self._order)

    def signed(self, size: int) -> int:
        """Return the next `size` bytes as a signed number, in two's complement."""
        return int.from_bytes(self.take(size), self._order, signed=True)

    def counted(self, size: int) -> bytes:
        """Return the bytes of a field whose length comes first, in `size` bytes."""
        return self.take(self.unsigned(size))

    def text(self, size: int) -> str:
        """Return the UTF-8 text of a field whose length comes first, in `size` bytes."""
        raw = self.counted(size)
        # DecodeError is raised outside the block: a UnicodeDecodeError holds what it read.
        with suppress(UnicodeDecodeError):
            return raw.decode()
        raise DecodeError(
            f"the {self._what} is damaged: a name of {len(raw)} bytes at byte "
            f"{self.offset - len(raw)} is not UTF-8"
        )

    def count(self, size: int, least: int) -> int:
        """Return the number of items that follow; each has at least `least` bytes.

        Raises DecodeError if fewer bytes are left than so many items need.
        """
        count = self.unsigned(size)
        if count * least > self.remaining:
            raise DecodeError(
                f"the {self._what} is damaged: it announces {count} items before byte "
                f"{self.offset}, but {self.remaining} bytes are left"
            )
        return count


def integer(value: int, size: int, *, signed: bool = False) -> bytes:
    """Return `value` in `size` bytes, big-endian. Raises CredentialError if it does not fit."""
    try:
        return int(value).to_bytes(size, "big", signed=signed)
    except OverflowError:
        raise CredentialError(
            f"{value} does not fit into the {size} bytes that the file format has for it"
        ) from None


def counted(data: bytes | str, size: int) -> bytes:
    """Return `data` (text as UTF-8) after its length in `size` bytes, big-endian."""
    raw = data.encode() if isinstance(data, str) else data
    return integer(len(raw), size) + raw
