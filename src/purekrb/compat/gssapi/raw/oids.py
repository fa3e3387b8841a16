"""Object identifiers. Source: X.690 8.19."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["OID"]


class OID:
    """An object identifier; `elements` are its bytes in DER, without tag and length."""

    __slots__ = ("_elements",)

    _elements: bytes

    def __new__(cls, cpy: OID | None = None, elements: bytes | None = None) -> OID:
        oid = super().__new__(cls)
        if cpy is not None and elements is not None:
            raise TypeError("pass either an OID to copy or its elements")
        oid._elements = cpy._elements if cpy is not None else bytes(elements or b"")
        return oid

    @classmethod
    def from_int_seq(cls, integer_sequence: str | Iterable[int | str]) -> OID:
        """Return the OID with these numbers: text such as "1.2.840", or an iterable of numbers."""
        parts = (
            integer_sequence.split(".") if isinstance(integer_sequence, str) else integer_sequence
        )
        numbers = [int(part) for part in parts]
        if len(numbers) < 2 or min(numbers) < 0 or numbers[0] > 2:
            raise ValueError(
                f"an OID has at least two numbers, of which the first is 0, 1 or 2: {numbers}"
            )
        return cls(elements=b"".join(map(_base128, (numbers[0] * 40 + numbers[1], *numbers[2:]))))

    @property
    def dotted_form(self) -> str:
        """The numbers as text, such as "1.2.840.113554.1.2.2"."""
        numbers, number = [], 0
        for byte in self._elements:
            number = number << 7 | byte & 0x7F
            if byte < 0x80:
                numbers.append(number)
                number = 0
        if not numbers:
            return ""
        first = min(numbers[0] // 40, 2)
        return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))

    def __bytes__(self) -> bytes:
        return self._elements

    def __repr__(self) -> str:
        return f"<OID {self.dotted_form}>"

    def __eq__(self, other: object) -> bool:
        return self._elements == other._elements if isinstance(other, OID) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._elements)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (None, self._elements)


def _base128(number: int) -> bytes:
    out = [number & 0x7F]
    while number := number >> 7:
        out.append(number & 0x7F | 0x80)
    return bytes(reversed(out))
