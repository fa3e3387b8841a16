"""The memory for reading: recurring data are read fast, and as strictly as the first time.

A schema uses the types of `der`, and these three if memory pays. Without them it would read the
same messages, but more slowly.

- `Remembered` keeps whole values by their bytes: a name, a time, a set of flags.
- `Recurring` is a message that remembers the layouts in which it was accepted. A layout holds the
  places and the bytes of all headers, from the first byte of the message to its last. Each header
  tells the place of the next one, and the headers tell which fields there are. Assume that other
  data have the same size, and the same bytes at the places of the headers. Then they have the same
  fields at the same places, and the strict walk of `der.Sequence` would accept their headers. Two
  calls of `struct` take such data apart: one cuts out the headers, which are compared as a whole,
  the other one the contents. Each value is then decoded with all of its checks.
- `Labelled` is a SEQUENCE of recurring numbers with an OCTET STRING at its end: a ciphertext, a
  checksum, a key. Its numbers count as headers in the layout around it.

The memory does not change which data are accepted. A layout belongs to one message, and so to the
tags around it. It is never used for a part of another message, even if the same schema reads it.

Secrets are not remembered: a layout holds headers and the numbers of a `Labelled`, and no
`Remembered` contains a key.

Threads: readers take no lock. A new layout is added, under a lock, to a copy of the dict, which
then replaces the dict. A dict or tuple that a reader may hold is never changed. `lru_cache` is
thread-safe by itself.
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

#: The largest value, in bytes, that is remembered. It bounds the memory that strangers can fill.
MAX_REMEMBERED = 256
#: The most values of one type that are remembered.
_MAX_VALUES = 256
#: The most layouts of one message that are remembered; real messages have a handful.
MAX_LAYOUTS = 64

#: Held while a layout is added.
_learning = fork_safe(Lock())

#: A field's number in its SEQUENCE, its number among the present fields, its contents' decoder.
_Place = tuple[int, int, Callable[[bytes], Any]]
#: The function that cuts the headers out of data, the headers, the function that cuts the contents
#: of the fields out, the place of each present field, the function that makes a message of the
#: values of all fields, and the number of all fields. A plain tuple is faster to unpack than a
#: named one.
_Layout = tuple[
    Callable[[bytes], tuple[bytes, ...]],
    tuple[bytes, ...],
    Callable[[bytes], tuple[bytes, ...]],
    tuple[_Place, ...],
    Callable[[list[Any]], Any],
    int,
]


class Remembered:
    """`inner`, whose values recur in many messages: the last ones are remembered.

    Values are immutable and not secret. Equal values must encode to the same bytes.
    """

    def __init__(self, inner: DerType) -> None:
        self.tag = inner.tag
        self._inner = inner
        #: `decode` for contents that are short enough to be remembered.
        self.known = lru_cache(maxsize=_MAX_VALUES)(inner.decode)
        #: Our own values are few; only an embedded KDC writes values of others.
        self.encode: Callable[[Any], bytes] = lru_cache(maxsize=_MAX_VALUES)(inner.encode)

    def decode(self, contents: bytes) -> Any:
        """Return the value of `contents`."""
        if len(contents) > MAX_REMEMBERED:
            return self._inner.decode(contents)
        return self.known(contents)


class Labelled(Sequence):
    """SEQUENCE of recurring numbers, with an OCTET STRING as its last field.

    When it is written, the bytes before the octets are remembered by the numbers and the size.
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
    """Base of recurring messages; their schema is a `Sequence` inside its tags."""

    __slots__ = ()
    #: The layouts by the size of the data. The dict is replaced, never changed: see above.
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
        if found[-1][2] == len(contents):  # no extensions follow
            cls._learn(sequence, data, found)
        return sequence.make([value for value, _, _ in found])

    @classmethod
    def _learn(cls, sequence: Sequence, data: bytes, found: list[tuple[Any, int, int]]) -> None:
        # The SEQUENCE reaches to the end of the data: the other bytes are the headers around it.
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
                known = {}  # if there are too many, all are forgotten
            cls._layouts = {**known, len(data): (*known.get(len(data), ()), layout)}


def _variable(
    kind: DerType, value: Any, begin: int, end: int
) -> tuple[int, int, Callable[[bytes], Any]]:
    """Return how to read a field whose contents, at data[begin:end], encode `value`.

    These are the start of the part that may change, the start of the part that is decoded, and the
    decoder. Both parts end at `end`.
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
