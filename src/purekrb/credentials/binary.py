"""The bounded reader and the counted fields that keytab and ccache files are made of."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from purekrb.errors import CredentialError, DecodeError

__all__ = ["ByteOrder", "Reader", "integer", "counted"]

ByteOrder = Literal["big", "little"]


class Reader:
    """Takes fields off the front of `data`. Each read costs its own length only, so that parsing stays linear.

    `what` names the file, and `begins` is where in it `data` begins, for the DecodeError that every read past the end
    raises. Errors tell offsets and lengths, never what stands there: a damaged length lets any field span a key.
    """

    __slots__ = ("_at", "_begins", "_data", "_order", "_what")

    def __init__(self, data: bytes, what: str, order: ByteOrder = "big", begins: int = 0) -> None:
        self._data, self._what, self._order, self._begins, self._at = data, what, order, begins, 0

    @property
    def offset(self) -> int:
        """Where in the file the next field begins."""
        return self._begins + self._at

    @property
    def remaining(self) -> int:
        """The number of bytes not yet taken."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if size > self.remaining:
            raise DecodeError(
                f"the {self._what} is cut off or damaged: a field at byte {self.offset} has {size} bytes,"
                f" {self.remaining} are left"
            )
        start = self._at
        self._at += size
        return self._data[start : self._at]

    def unsigned(self, size: int) -> int:
        """Return the next `size` bytes as a number from 0."""
        return int.from_bytes(self.take(size), self._order)

    def signed(self, size: int) -> int:
        """Return the next `size` bytes as a number in two's complement."""
        return int.from_bytes(self.take(size), self._order, signed=True)

    def counted(self, size: int) -> bytes:
        """Return the bytes that follow a length of `size` bytes."""
        return self.take(self.unsigned(size))

    def text(self, size: int) -> str:
        """Return the UTF-8 text that follows a length of `size` bytes."""
        raw = self.counted(size)
        with suppress(
            UnicodeDecodeError
        ):  # the error raised outside of it: a UnicodeDecodeError holds what it read
            return raw.decode()
        raise DecodeError(
            f"the {self._what} is damaged: a name of {len(raw)} bytes at byte {self.offset - len(raw)} is not UTF-8"
        )

    def count(self, size: int, least: int) -> int:
        """Return a number of items of at least `least` bytes each, refused where so many cannot follow."""
        count = self.unsigned(size)
        if count * least > self.remaining:
            raise DecodeError(
                f"the {self._what} is damaged: it announces {count} items before byte {self.offset},"
                f" but {self.remaining} bytes are left"
            )
        return count


def integer(value: int, size: int, *, signed: bool = False) -> bytes:
    """Return `value` in `size` bytes, big-endian. Raises CredentialError where it does not fit."""
    try:
        return int(value).to_bytes(size, "big", signed=signed)
    except OverflowError:
        raise CredentialError(
            f"{value} does not fit the {size} bytes that the file format has for it"
        ) from None


def counted(data: bytes | str, size: int) -> bytes:
    """Return `data` (text as UTF-8) after its length in `size` bytes, big-endian."""
    raw = data.encode() if isinstance(data, str) else data
    return integer(len(raw), size) + raw
