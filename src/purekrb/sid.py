"""Security identifiers (SIDs): they identify an account or a group in a domain, whatever its name.

Source: MS-DTYP 2.4.2.1 (text) and 2.4.2.2 (bytes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from purekrb.errors import DecodeError

__all__ = ["Sid"]

_MAX_SUB_AUTHORITIES = 15
#: The authority: decimal below 2**32, twelve hexadecimal digits from there on.
_TEXT = re.compile(
    r"S-1-([0-9]{1,10}|0x[0-9A-F]{12})((?:-[0-9]{1,10}){1,15})", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True, slots=True)
class Sid:
    """A SID: an identifier authority of 48 bits, and 1 to 15 sub-authorities of 32 bits.

    `str()` returns the text S-1-5-21-... Equal SIDs compare equal and are hashable. Raises
    DecodeError if a part is out of range.
    """

    authority: int
    sub_authorities: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.sub_authorities) <= _MAX_SUB_AUTHORITIES:
            raise DecodeError(
                f"a SID has {len(self.sub_authorities)} sub-authorities, expected 1 to 15"
            )
        if not 0 <= self.authority < 1 << 48 or not all(
            0 <= part < 1 << 32 for part in self.sub_authorities
        ):
            raise DecodeError(
                "a part of a SID is out of range: its authority has 48 bits, a sub-authority 32"
            )

    @classmethod
    def parse(cls, text: str) -> Sid:
        """Return the SID of a text such as S-1-5-32-544."""
        match = _TEXT.fullmatch(text)
        if not match:
            raise DecodeError(f"{text[:200]!r} is not a SID: expected the form S-1-5-21-1-2-3-1104")
        authority = int(match[1], 16 if match[1][:2].lower() == "0x" else 10)
        return cls(authority, tuple(map(int, match[2][1:].split("-"))))

    @classmethod
    def decode(cls, data: bytes) -> Sid:
        """Return the SID at the start of `data`; `len(sid.encode())` is its size there.

        The layout: revision 1, count, authority (six bytes, big-endian), sub-authorities (four
        bytes each, little-endian).
        """
        if len(data) < 8 or data[0] != 1 or len(data) < 8 + 4 * data[1]:
            raise DecodeError(f"a SID of {len(data)} bytes is cut off, or not of revision 1")
        parts = (int.from_bytes(data[at : at + 4], "little") for at in range(8, 8 + 4 * data[1], 4))
        return cls(int.from_bytes(data[2:8], "big"), tuple(parts))

    def encode(self) -> bytes:
        """Return the SID in its binary form, as in the attribute objectSid."""
        parts = b"".join(part.to_bytes(4, "little") for part in self.sub_authorities)
        return bytes((1, len(self.sub_authorities))) + self.authority.to_bytes(6, "big") + parts

    def __str__(self) -> str:
        authority = str(self.authority) if self.authority < 1 << 32 else f"0x{self.authority:012X}"
        return "-".join(("S-1", authority, *map(str, self.sub_authorities)))
