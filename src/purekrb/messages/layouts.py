"""The memory for reading: data that come again are read fast, and as strictly as the first time.

A schema is made of the types of `der`, and of these three where memory pays. Without them it would
read the same, more slowly.

- `Remembered` keeps whole values by their bytes: a name, a time, a set of flags.
- `Recurring` is a message that remembers the layouts in which it was accepted. A layout says where
  in the data the headers stand, and which they are, from the first byte of the message to its last.
  Each header tells the place of the next one, and the headers tell which fields there are. Data of
  the same size with the same bytes at the places of the headers therefore have the same fields at
  the same places, and the strict walk of `der.Sequence` would accept their headers again. Two calls
  of `struct` take such data apart: one cuts out the headers, which are compared as a whole, one the
  contents. Each value is then decoded with all of its checks.
- `Labelled` is a SEQUENCE of numbers that come again and an OCTET STRING at its end: a ciphertext,
  a checksum, a key. Its numbers count as headers in the layout around it.

The memory does not change what is accepted. A layout belongs to one message, thus to the tags
around it. It is never used for a part of another message, even where the same schema reads it.

Secrets are not remembered: a layout holds headers and the numbers of a `Labelled`, and no key is in
a `Remembered`.

Threads: readers take no lock. To learn a layout is to put a new dict of tuples in the place of the
old one, under a lock; a dict or tuple that a reader may hold is never changed. `lru_cache` is safe
by itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from threading import Lock
from typing import Any, ClassVar

from purekrb.keys import EncryptionKey
from purekrb.messages.der import (
    INT32,
    Any_,
    DerType,
    Field,
    Message,
    OctetString,
    Sequence,
    header,
    headers_around,
)
from purekrb.system import fork_safe

__all__ = ["Remembered", "Labelled", "Key", "Recurring"]

#: Bytes of a value that is worth remembering, which bounds what strangers can have remembered.
MAX_REMEMBERED = 256
#: Values of one type that are remembered.
_MAX_VALUES = 256
#: Layouts of one message that are remembered; real ones have a handful, by their sizes.
MAX_LAYOUTS = 64

#: Taken by whoever learns a layout.
_learning = fork_safe(Lock())

#: Field number in its SEQUENCE, number among the fields that are there, decoder of its contents.
_Place = tuple[int, int, Callable[[bytes], Any]]
#: What cuts the headers out of data, these headers, what cuts the contents of the fields out, the
#: place of each field that is there, what makes a value of the values of all fields, and the number
#: of these. A plain tuple is quicker to take apart than a named one.
_Layout = tuple[
    Callable[[bytes], tuple[bytes, ...]],
    tuple[bytes, ...],
    Callable[[bytes], tuple[bytes, ...]],
    tuple[_Place, ...],
    Callable[[list[Any]], Any],
    int,
]


class Remembered:
    """`inner`, whose values come again in many messages: the last ones are remembered.

    Values are immutable and not secret. Values that are equal must encode to the same bytes.
    """

    def __init__(self, inner: DerType) -> None:
        self.tag = inner.tag
        self._inner = inner
        #: `decode` for contents that are short enough to be remembered.
        self.known = lru_cache(maxsize=_MAX_VALUES)(inner.decode)
        #: Our own values are few; of others only an embedded KDC writes any.
        self.encode: Callable[[Any], bytes] = lru_cache(maxsize=_MAX_VALUES)(inner.encode)

    def decode(self, contents: bytes) -> Any:
        """Return the value of `contents`."""
        if len(contents) > MAX_REMEMBERED:
            return self._inner.decode(contents)
        return self.known(contents)


class Labelled(Sequence):
    """SEQUENCE of numbers that come again, and an OCTET STRING as its last field.

    In writing, all that stands before the octets is remembered by the numbers and the size.
    """

    def __init__(self, make: Callable[..., Any], *fields: Field) -> None:
        super().__init__(make, *fields)
        self.values = attrgetter(*(field.name for field in fields))
        self._label = lru_cache(maxsize=_MAX_VALUES)(self._label_for)

    def encode(self, value: Any) -> bytes:
        """Return the contents that encode `value`."""
        values = self.values(value)
        octets: bytes = values[-1]
        return self._label(values[:-1], len(octets)) + octets

    def _label_for(self, numbers: tuple[int | None, ...], size: int) -> bytes:
        label = b""
        for field, number in zip(self.fields, numbers, strict=False):
            if number is not None:
                contents = field.type.encode(number)
                label += headers_around(len(contents), field.tags) + contents
            elif not field.optional:
                raise ValueError(f"field {field.name} is required")
        return label + headers_around(size, self.fields[-1].tags)


class Key(Labelled):
    """EncryptionKey ::= SEQUENCE { keytype [0] Int32, keyvalue [1] OCTET STRING }

    Source: RFC 4120 5.2.9.
    """

    def __init__(self) -> None:
        fields = Field(0, "etype", INT32), Field(1, "contents", OctetString())
        super().__init__(EncryptionKey, *fields)


class Recurring(Message):
    """Base of messages that come again and again; their schema is a `Sequence` inside its tags."""

    __slots__ = ()
    #: By the size of the data. It is replaced, never changed: see above.
    _layouts: ClassVar[dict[int, tuple[_Layout, ...]]]

    def __init_subclass__(cls) -> None:
        cls._layouts = {}

    @classmethod
    def _read(cls, data: bytes) -> Any:
        for layout in cls._layouts.get(len(data), ()):
            cut_headers, headers, cut_contents, places, make, count = layout
            if cut_headers(data) == headers:
                values, parts = [None] * count, cut_contents(data)
                for at, number, decode in places:
                    values[at] = decode(parts[number])
                return make(values)
        sequence, contents = cls._open(data)
        found = list(sequence.walk(contents))
        if found[-1][2] == len(contents):  # not where extensions follow
            cls._learn(sequence, data, found)
        return sequence.make([value for value, _, _ in found])

    @classmethod
    def _learn(cls, sequence: Sequence, data: bytes, found: list[tuple[Any, int, int]]) -> None:
        # The SEQUENCE reaches to the end of the data: what is more are the headers around it.
        outside = len(data) - found[-1][2]
        to_headers, to_contents, done = "", "", 0
        places: list[_Place] = []
        for at, (value, begin, end) in enumerate(found):
            if value is not None:
                begin, end = begin + outside, end + outside
                kind = sequence.fields[at].type
                changing, start, decode = _variable(kind, value, begin, end)
                to_headers += f"{changing - done}s{end - changing}x"
                to_contents += f"{start - done}x{end - start}s"
                places.append((at, len(places), decode))
                done = end
        cut_headers = struct.Struct(f"{to_headers}{len(data) - done}s").unpack
        cut_contents = struct.Struct(f"{to_contents}{len(data) - done}x").unpack
        headers, make = cut_headers(data), sequence.make
        layout = cut_headers, headers, cut_contents, tuple(places), make, len(found)
        with _learning:
            known = cls._layouts
            if sum(map(len, known.values())) >= MAX_LAYOUTS:
                known = {}  # where there is too much, all of it is forgotten
            cls._layouts = {**known, len(data): (*known.get(len(data), ()), layout)}


def _variable(
    kind: DerType, value: Any, begin: int, end: int
) -> tuple[int, int, Callable[[bytes], Any]]:
    """Return how to read a field whose contents, at data[begin:end], were found to be `value`.

    That is: where the part begins that may change, where the part begins that is decoded (both
    reach to `end`), and what decodes it.
    """
    if isinstance(kind, Labelled):
        *numbers, octets = kind.values(value)
        make, start = kind.make, end - len(octets)
        return start, start, lambda octets: make((*numbers, octets))
    if isinstance(kind, Any_):
        return begin, begin - len(header(kind.tag, end - begin)), bytes
    if isinstance(kind, Remembered) and end - begin <= MAX_REMEMBERED:
        return begin, begin, kind.known
    return begin, begin, kind.decode
