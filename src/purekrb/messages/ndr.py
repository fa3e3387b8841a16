"""NDR, the transfer syntax of remote procedure calls, as the buffers of a PAC use it.

Source: C706 14, MS-RPCE 2.2.6.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass

from purekrb.errors import DecodeError, PacError
from purekrb.sid import Sid

__all__ = ["Ndr", "Group", "sid_of", "member_of", "text_of"]

#: The headers of version 1, from whose end values are aligned.
_HEADERS = 16


@dataclass(frozen=True, slots=True)
class Group:
    """A group of which the client is a member. `attributes`: SE_GROUP_* bits. MS-PAC 2.2.1."""

    sid: Sid
    attributes: int


class Ndr:
    """Reads the structure that `data` hold, from the front. Each count is checked first.

    `what` names the structure in errors. All failures are PacError.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._what = what
        # Version 1, little-endian, 8 bytes; length and filler; the pointer to the structure.
        if len(data) < 20 or data[:4] != b"\x01\x10\x08\x00" or data[16:20] == bytes(4):
            raise PacError(f"the PAC's {self._what} is not in NDR version 1, or empty")
        if int.from_bytes(data[8:12], "little") > len(data) - 16:
            raise PacError(f"the PAC's {self._what} is cut off")
        self._data, self._at = data, 20

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        if size > len(self._data) - self._at:
            raise PacError(f"the PAC's {self._what} is cut off: a field points past its end")
        self._at += size
        return self._data[self._at - size : self._at]

    def skip(self, size: int) -> None:
        """Leave out the next `size` bytes."""
        self.take(size)

    def align(self, size: int) -> None:
        """Skip the filler before a value of `size` bytes."""
        self.skip(-(self._at - _HEADERS) % size)

    def uint16(self) -> int:
        """Return the next number of 16 bits."""
        self.align(2)
        return int.from_bytes(self.take(2), "little")

    def uint32(self) -> int:
        """Return the next number of 32 bits, or pointer."""
        self.align(4)
        return int.from_bytes(self.take(4), "little")

    def int64(self) -> int:
        """Return the next signed number of 64 bits."""
        self.align(8)
        return int.from_bytes(self.take(8), "little", signed=True)

    def count(self, announced: int, size: int) -> int:
        """Return the number of elements of a conformant array, each of at least `size` bytes."""
        if self.uint32() != announced:
            raise PacError(f"the PAC's {self._what} has two different numbers of elements")
        if announced * size > len(self._data) - self._at:
            raise PacError(f"the PAC's {self._what} is cut off: it announces {announced} elements")
        return announced

    def wide_string(self) -> str:
        """Return the text behind a pointer to a text that ends with NUL."""
        maximum, offset, actual = self.uint32(), self.uint32(), self.uint32()
        if offset or actual > maximum:
            raise PacError(f"a text in the PAC's {self._what} has an impossible length")
        return text_of(self.take(2 * actual)).rstrip("\0")

    def string_header(self) -> tuple[int, int]:
        """Return the length in bytes and the pointer of an RPC_UNICODE_STRING."""
        length, maximum, pointer = struct.unpack("<HHI", self.take(8))
        if length % 2 or length > maximum or (length and not pointer):
            raise PacError(f"a text in the PAC's {self._what} has an impossible length")
        return length, pointer

    def string(self, header: tuple[int, int]) -> str:
        """Return the text of a header: maximum, offset and actual count, then UTF-16."""
        length, pointer = header
        if not pointer:
            return ""
        maximum, offset, actual = self.uint32(), self.uint32(), self.uint32()
        if offset or actual > maximum or length > 2 * actual:
            raise PacError(f"a text in the PAC's {self._what} has an impossible length")
        text = text_of(self.take(2 * actual)[:length])
        self.skip(-self._at % 4)
        return text

    def memberships(self, pointer: int, count: int) -> list[tuple[int, int]]:
        """Return an array of GROUP_MEMBERSHIP: relative identifiers and attributes."""
        return list(struct.iter_unpack("<II", self._array(pointer, count)))

    def sids_and_attributes(self, pointer: int, count: int) -> list[Group]:
        """Return an array of KERB_SID_AND_ATTRIBUTES; the SIDs follow the whole array."""
        entries = list(struct.iter_unpack("<II", self._array(pointer, count)))
        if not all(sid for sid, _ in entries):
            raise PacError("the PAC lists a group without a SID")
        return [Group(self.sid(), attributes) for _, attributes in entries]

    def sid(self) -> Sid:
        """Return an RPC_SID: the number of sub-authorities, then the SID."""
        count = self.uint32()
        data = self.take(8 + 4 * count)
        if data[1] != count:
            raise PacError(f"a SID in the PAC's {self._what} has two lengths")
        return sid_of(data)

    def _array(self, pointer: int, count: int) -> bytes:
        """Return the bytes of a conformant array of `count` elements of 8 bytes."""
        if not pointer:
            if count:
                raise PacError(f"the PAC's {self._what} announces groups, but lists none")
            return b""
        if self.uint32() != count:
            raise PacError(f"the PAC's {self._what} has two different numbers of groups")
        return self.take(8 * count)


def sid_of(data: bytes) -> Sid:
    """Return the SID at the start of `data`. Raises PacError."""
    try:
        return Sid.decode(data)
    except DecodeError as error:
        raise PacError(f"the PAC holds a malformed SID: {error}") from None


def text_of(data: bytes) -> str:
    """Return the text of UTF-16. Raises PacError."""
    with suppress(UnicodeDecodeError):
        return data.decode("utf-16-le")
    # Raised outside of the `with`, so that its context is not a UnicodeDecodeError with the data.
    raise PacError("a text in the PAC is not UTF-16")


def member_of(domain: Sid, rid: int) -> Sid:
    """Return the SID of the account or group `rid` of a domain. Raises PacError."""
    try:
        return Sid(domain.authority, (*domain.sub_authorities, rid))
    except DecodeError as error:
        raise PacError(f"the PAC holds an impossible SID: {error}") from None
