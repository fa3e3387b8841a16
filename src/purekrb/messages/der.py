"""A small declarative codec for the strict DER that RFC 4120 messages use.

A message is a record with a schema: `Application(14, Sequence(ApReq, Field(0, "pvno", INT32), ...))`.
Decoding refuses everything that is not DER: indefinite or non-minimal lengths, wrong order, missing, repeated or
unknown fields, trailing bytes, non-minimal integers. Nesting is bounded, because a schema is finite; counts are bounded
by `SequenceOf`. All failures are DecodeError. Source: ITU-T X.690 8, 10, 11; RFC 4120 5.1, 5.2.

How it works: a type knows its tag and turns contents (what stands behind tag and length) into a value and back. What
comes again costs little: `Sequence` remembers the layouts that it has accepted, so that a message whose tags and
lengths are those of an earlier one is taken apart by two calls of `struct`; `Remembered` remembers whole values. That
keeps an AP-REQ at some microseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cache, lru_cache, partial
from operator import attrgetter, itemgetter
from typing import Any, ClassVar, Protocol, TypeVar

from purekrb.errors import DecodeError
from purekrb.keys import EncryptionKey
from purekrb.records import field_names, record
from purekrb.secrecy import forget_locals

__all__ = [
    "DerType",
    "Boolean",
    "Integer",
    "Enumerated",
    "ObjectIdentifier",
    "OctetString",
    "GeneralString",
    "KerberosTime",
    "KerberosFlags",
    "Any_",
    "Sequence",
    "Labelled",
    "SequenceOf",
    "Remembered",
    "Lasting",
    "Application",
    "Context",
    "Field",
    "Message",
    "INT32",
    "UINT32",
    "MICROSECONDS",
    "SEQ_NUMBER",
    "tlv",
    "read_header",
]

MAX_STRING = 8192
_MAX_INTEGER = 9  # bytes
MAX_OID = 64
#: Bytes of a value that is worth remembering, which bounds what strangers can have remembered.
MAX_REMEMBERED = 256
#: Layouts of one type that are remembered; real messages of a type have a handful, by the sizes of their numbers.
MAX_LAYOUTS = 64
#: What holds other elements is copied up to this size, which is quickest; beyond, no level of nesting copies it again.
MAX_COPIED = 64 * 1024
UTC = timezone.utc


@lru_cache(maxsize=4096)
def header(tag: int, size: int) -> bytes:
    """Return tag and minimal definite length of contents of `size` bytes."""
    if size < 0x80:
        return bytes((tag, size))
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length


@lru_cache(maxsize=4096)
def headers_around(size: int, tags: tuple[int, ...]) -> bytes:
    """Return the headers with `tags` inside each other, outermost first, before contents of `size` bytes."""
    found = b""
    for tag in reversed(tags):
        found = header(tag, size + len(found)) + found
    return found


@lru_cache(maxsize=4096)
def headers_of(total: int, tags: tuple[int, ...]) -> bytes | None:
    """Return the headers of an element of `total` bytes with `tags` inside each other, outermost first.

    There is one way to write them, as lengths are minimal; or none for some sizes, which gives None.
    """
    for size in range(total - 2 * len(tags), max(total - 6 * len(tags), 0) - 1, -1):
        if size + len(found := headers_around(size, tags)) == total:
            return found
    return None


def tlv(tag: int, contents: bytes) -> bytes:
    """Return tag, minimal definite length and `contents`."""
    return header(tag, len(contents)) + contents


def _long_length(buf: bytes, at: int) -> tuple[int, int]:
    """Return (start, length) for the length octets at `at`, which are not of the short form."""
    count = buf[at] & 0x7F
    if count == 1 and buf[at + 1] >= 0x80:
        return at + 2, buf[at + 1]
    if not 1 <= count <= 4:
        raise DecodeError("an indefinite or oversized length is not DER")
    start = at + 1 + count
    length = int.from_bytes(buf[at + 1 : start], "big")
    if length < 0x80 or length >> 8 * (count - 1) == 0:
        raise DecodeError("a length is not encoded in its shortest form")
    return start, length


def read_header(buf: bytes, at: int, stop: int) -> tuple[int, int, int]:
    """Return (tag, start, end) of the TLV at `at`, which must end at or before `stop`; single-byte tags only."""
    if at + 2 > stop:
        raise DecodeError("the data ends inside a DER header")
    tag = buf[at]
    if tag & 0x1F == 0x1F:
        raise DecodeError("a multi-byte tag occurs nowhere in Kerberos")
    length = buf[at + 1]
    start = at + 2
    if length >= 0x80:
        if at + 2 + (length & 0x7F) > stop:
            raise DecodeError("the data ends inside a DER header")
        start, length = _long_length(buf, at + 1)
    end = start + length
    if end > stop:
        raise DecodeError("a DER length reaches past the end of the data")
    return tag, start, end


def _part(contents: bytes, begin: int, end: int, tag: int) -> bytes:
    """Return contents[begin:end]: bytes, or for a large constructed element, which is only walked, a view of them."""
    if end - begin > MAX_COPIED and tag & 0x20:
        return memoryview(contents)[begin:end]  # type: ignore[return-value]  # it has all that a walk needs
    return bytes(contents[begin:end])


class DerType(Protocol):
    """A type of the schema language."""

    tag: int

    def decode(self, contents: bytes) -> Any:
        """Return the value of `contents`, a large view of them where the tag is that of a constructed type."""

    def encode(self, value: Any) -> bytes:
        """Return the contents that encode `value`."""


class Boolean:
    """BOOLEAN as bool: 00 or FF."""

    tag = 0x01

    def decode(self, contents: bytes) -> bool:
        if contents not in (b"\0", b"\xff"):
            raise DecodeError("a BOOLEAN is neither 00 nor FF")
        return contents != b"\0"

    def encode(self, value: bool) -> bytes:
        return b"\xff" if value else b"\0"


class Integer:
    """INTEGER between `low` and `high`; with `mask`, negative values come out as unsigned (old senders' habit)."""

    tag = 0x02

    def __init__(self, low: int, high: int, mask: int | None = None) -> None:
        self.low, self.high, self.mask = low, high, mask
        #: By size, the least number above zero that has no shorter form.
        self._least = (high + 1, max(low, 0), *(max(low, 1 << 8 * size - 9) for size in range(2, _MAX_INTEGER + 1)))

    def decode(self, contents: bytes) -> int:
        value, size = int.from_bytes(contents, "big", signed=True), len(contents)
        if size <= _MAX_INTEGER and self._least[size] <= value <= self.high:
            return value  # as almost all are; a mask would change nothing
        # What is in range has at most 64 bits, so that the shift leaves the sign alone: -1 or 0.
        if not self.low <= value <= self.high or (value ^ (value >> 64)).bit_length() // 8 + 1 != size:
            raise DecodeError(self._fault(contents, value))
        return value if self.mask is None else value & self.mask

    def encode(self, value: int) -> bytes:
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is outside {self.low}..{self.high}")
        return value.to_bytes((value ^ (value >> 64)).bit_length() // 8 + 1, "big", signed=True)

    def _fault(self, contents: bytes, value: int) -> str:
        if len(contents) > _MAX_INTEGER:
            return "an INTEGER is larger than any in Kerberos"
        if self.low <= value <= self.high:
            return "an INTEGER is not encoded in its shortest form"
        return f"an INTEGER is outside {self.low}..{self.high}"


class Enumerated(Integer):
    """ENUMERATED between `low` and `high`."""

    tag = 0x0A


class ObjectIdentifier:
    """OBJECT IDENTIFIER as the bytes of its contents, at most 64: it is compared, and decoded for people alone."""

    tag = 0x06

    def decode(self, contents: bytes) -> bytes:
        if not 0 < len(contents) <= MAX_OID or contents[-1] >= 0x80:
            raise DecodeError(f"an OBJECT IDENTIFIER is empty, cut off, or longer than {MAX_OID} bytes")
        return contents

    def encode(self, value: bytes) -> bytes:
        return bytes(value)


class OctetString:
    """OCTET STRING as bytes."""

    tag = 0x04
    decode = bytes
    encode = bytes


class GeneralString:
    """KerberosString as str: UTF-8 (a superset of what RFC 4120 5.2.1 allows), no NUL, at most 8192 bytes."""

    tag = 0x1B

    def decode(self, contents: bytes) -> str:
        if len(contents) > MAX_STRING:
            raise DecodeError(f"a string of {len(contents)} bytes is longer than {MAX_STRING}")
        if 0 in contents:
            raise DecodeError("a KerberosString contains NUL")
        try:
            return contents.decode()
        except UnicodeDecodeError:
            failure = DecodeError("a KerberosString is not UTF-8")
        raise failure  # not in the course of the other error, which holds what it read

    def encode(self, value: str) -> bytes:
        raw = value.encode()
        if 0 in raw or len(raw) > MAX_STRING:
            raise ValueError(f"a KerberosString contains NUL or is longer than {MAX_STRING} bytes")
        return raw


class KerberosTime:
    """KerberosTime as an aware UTC datetime in whole seconds: exactly YYYYMMDDHHMMSSZ. Source: RFC 4120 5.2.3."""

    tag = 0x18

    def decode(self, contents: bytes) -> datetime:
        if len(contents) != 15 or contents[14] != 0x5A or not contents[:14].isdigit():
            raise DecodeError("a KerberosTime is not of the form YYYYMMDDHHMMSSZ")
        n = int(contents[:14])
        try:
            return datetime(
                n // 10**10, n // 10**8 % 100, n // 10**6 % 100, n // 10**4 % 100, n // 100 % 100, n % 100, 0, UTC
            )
        except ValueError:
            raise DecodeError("a KerberosTime names a day or an hour that does not exist") from None

    def encode(self, value: datetime) -> bytes:
        t = value if value.tzinfo is UTC else value.astimezone(UTC)
        return b"%04d%02d%02d%02d%02d%02dZ" % (t.year, t.month, t.day, t.hour, t.minute, t.second)


class KerberosFlags:
    """KerberosFlags as a 32-bit int, bit 0 highest; missing bits are zeros, more are dropped. RFC 4120 5.2.8."""

    tag = 0x03

    def decode(self, contents: bytes) -> int:
        size = len(contents)
        if size == 0 or contents[0] > 7 or (size == 1 and contents[0]) or size > 33:
            raise DecodeError("KerberosFlags are not a well-formed BIT STRING")
        unused = contents[0]
        if unused and contents[-1] & ((1 << unused) - 1):
            raise DecodeError("unused bits of KerberosFlags are not zero")
        return int.from_bytes(contents[1:5].ljust(4, b"\0"), "big")

    def encode(self, value: int) -> bytes:
        return b"\0" + int(value).to_bytes(4, "big")


class Any_:  # noqa: N801 - "Any" is typing's
    """One whole TLV with the given outer tag, kept as its bytes (a Ticket that is passed on as it came)."""

    def __init__(self, tag: int) -> None:
        self.tag = tag

    def decode(self, contents: bytes) -> bytes:
        return tlv(self.tag, contents)

    def encode(self, value: bytes) -> bytes:
        head = headers_of(len(value), (self.tag,))
        if head is None or not value.startswith(head):
            raise ValueError(f"expected one DER element with tag 0x{self.tag:02x}")
        return value[len(head) :]


@record
class Field:
    """Field `name` of a SEQUENCE, explicitly tagged [number]; None stands for an absent optional one."""

    number: int
    name: str
    type: DerType
    optional: bool = False

    @property
    def tags(self) -> tuple[int, int]:
        """The tags in front of the contents, outermost first."""
        return 0xA0 | self.number, self.type.tag


T = TypeVar("T")


class _Absent(bytes):
    """What an absent field encodes to."""


_ABSENT = _Absent()


#: A layout of a SEQUENCE that has been accepted: what cuts out of data the bytes that never change, which these are,
#: what cuts out the other contents, the values with a place for what these decode to, and of each of these its place,
#: its number among the contents, and what decodes it. A plain tuple is quicker to take apart than a named one.
_Layout = tuple[
    Callable[[bytes], tuple[bytes, ...]],
    tuple[bytes, ...],
    Callable[[bytes], tuple[bytes, ...]],
    list[Any],
    tuple[tuple[int, int, Callable[[bytes], Any]], ...],
]


@record
class _Place:
    """A field that changes: its headers end at `begin`; `decode` takes data[contents:end] and gives value `at`."""

    at: int
    begin: int
    contents: int
    end: int
    decode: Callable[[bytes], Any]


class Sequence:
    """SEQUENCE of explicitly tagged fields, as `make(*values)` in field order; `make` may be a record.

    `extensible` skips unknown fields at the end, for types whose ASN.1 ends in "...".

    Each accepted layout is remembered by the size of the data. Data whose headers are, byte by byte, those of a
    remembered layout have the same fields in the same places; only the values are still to be read. Fields that are the
    same in each message of a program (`Lasting`) count as headers. So it is with writing.
    """

    tag = 0x30

    def __init__(self, make: Callable[..., Any], *fields: Field, extensible: bool = False) -> None:
        self.make: Callable[[Any], Any] = lambda values: make(*values)
        self._make = make
        names = [f.name for f in fields]
        self._is_record = isinstance(make, type) and field_names(make) == tuple(names)
        if isinstance(make, type) and self._is_record and not hasattr(make, "__post_init__"):
            self.make = partial(tuple.__new__, make)
        self._attributes = _tuples(attrgetter, names)
        self.fields = fields
        self.extensible = extensible
        self._layouts: dict[int, list[_Layout]] = {}
        self._lasting = _tuples(itemgetter, [at for at, f in enumerate(fields) if isinstance(f.type, Lasting)])
        self._fresh = [(at, f.type.encode) for at, f in enumerate(fields) if not isinstance(f.type, Lasting)]
        self._template = lru_cache(maxsize=MAX_LAYOUTS)(self._template_for)

    def decode(self, contents: bytes) -> Any:
        value = self.recognise(contents)
        return self.walk(contents, 0) if value is None else value

    def recognise(self, data: bytes) -> Any:
        """Return the value of data whose layout is remembered, else None."""
        for unchanged, expected, contents, values, places in self._layouts.get(len(data), ()):
            if unchanged(data) == expected:
                found, parts = values.copy(), contents(data)
                for at, number, decode in places:
                    found[at] = decode(parts[number])
                return self.make(found)
        return None

    def walk(self, data: bytes, start: int) -> Any:
        """Return the value of the contents from `start` to the end of `data`, whatever their layout, and remember it.

        What stands before `start` are headers around the SEQUENCE, which the caller has checked.
        """
        values: list[Any] = []
        places: list[_Place] = []
        at, stop = start, len(data)
        for field in self.fields:
            number, name, kind, optional = field.number, field.name, field.type, field.optional
            tag = data[at] if at < stop else None
            if tag == 0xA0 | number:
                begin, end = _explicit_field(data, at, kind.tag, name)
                if end > stop:
                    raise DecodeError(f"field {name} reaches past the end of its SEQUENCE")
                value = kind.decode(_part(data, begin, end, kind.tag))
                if not isinstance(kind, Lasting) or end - begin > MAX_REMEMBERED:
                    places.append(_place(len(values), kind, begin, end, value))
                values.append(value)
                at = end
            elif optional:
                values.append(None)
            else:
                raise DecodeError(f"field {name} is missing, repeated or out of order")
        if at == stop:
            self._learn(data, values, places)
        else:
            self._skip_extensions(data, at, stop)
        return self.make(values)

    def _learn(self, data: bytes, values: list[Any], places: list[_Place]) -> None:
        unchanged, contents, end = "", "", 0
        for place in places:
            unchanged += f"{place.begin - end}s{place.end - place.begin}x"
            contents += f"{place.contents - end}x{place.end - place.contents}s"
            end = place.end
        cut = struct.Struct(f"{unchanged}{len(data) - end}s").unpack
        cut_contents = struct.Struct(f"{contents}{len(data) - end}x").unpack
        values = list(values)
        for place in places:
            values[place.at] = None  # it may be secret
        decoders = tuple((place.at, number, place.decode) for number, place in enumerate(places))
        _remember(self._layouts, len(data), (cut, cut(data), cut_contents, values, decoders))

    def _skip_extensions(self, data: bytes, at: int, stop: int) -> None:
        if not self.extensible:
            raise DecodeError("unknown, repeated or misplaced fields at the end of a SEQUENCE")
        last = max(f.number for f in self.fields)
        while at < stop:
            tag, _, at = read_header(data, at, stop)
            if tag & 0xE0 != 0xA0 or tag & 0x1F <= last:
                raise DecodeError("an extension field is out of order")
            last = tag & 0x1F

    def encode(self, value: Any, tags: tuple[int, ...] = ()) -> bytes:
        """Return the contents that encode `value`, behind headers with `tags`, outermost first."""
        values = value if self._is_record else self._attributes(value)
        fresh = [_ABSENT if values[at] is None else encode(values[at]) for at, encode in self._fresh]
        sizes: tuple[int | None, ...] = tuple(map(len, fresh))
        if 0 in sizes:  # what is absent is not the same as what is there and empty
            sizes = tuple([None if part is _ABSENT else len(part) for part in fresh])
        parts = self._template(tags, self._lasting(values), sizes).copy()
        parts[1::2] = fresh
        return b"".join(parts)

    def _template_for(
        self, tags: tuple[int, ...], values: tuple[Any, ...], sizes: tuple[int | None, ...]
    ) -> list[bytes]:
        """Return what stands before, between and behind the fresh fields, with a place for each of these.

        `values` are those of the lasting fields, `sizes` those of the others (None: it is absent).
        """
        lasting, fresh = iter(values), iter(sizes)
        parts, total = [b""], 0
        for field in self.fields:
            if isinstance(field.type, Lasting):
                parts[-1] += _element(field, next(lasting))
            else:
                size = next(fresh)
                parts[-1] += _headers(field, size)
                parts += [b"", b""]
                total += size or 0
        parts[0] = headers_around(sum(map(len, parts)) + total, tags) + parts[0]
        return parts


def _headers(field: Field, size: int | None) -> bytes:
    """Return what stands before contents of `size` bytes, nothing where the field is absent (None)."""
    if size is not None:
        return headers_around(size, field.tags)
    if not field.optional:
        raise ValueError(f"field {field.name} is required")
    return b""


def _element(field: Field, value: Any) -> bytes:
    contents = b"" if value is None else field.type.encode(value)
    return _headers(field, None if value is None else len(contents)) + contents


def _remember(memory: dict[int, list[T]], size: int, item: T) -> None:
    """Add what was learned from contents of that size; where there is too much, all else is forgotten."""
    if sum(map(len, memory.values())) >= MAX_LAYOUTS:
        memory.clear()
    memory[size] = [*memory.get(size, ()), item]  # a new list: others may be going through the old one


def _tuples(getter: Callable[..., Callable[[Any], Any]], keys: list[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return `getter(*keys)`, attrgetter or itemgetter, which gets a tuple also for one key and for none."""
    if not keys:
        return lambda _: ()
    got = getter(*keys)
    return got if len(keys) > 1 else lambda value: (got(value),)


def _place(at: int, kind: DerType, begin: int, end: int, value: Any) -> _Place:
    """Return the place of a field of this type that was found to hold `value`, its contents at data[begin:end]."""
    if isinstance(kind, Labelled):
        *numbers, octets = kind._attributes(value)
        begin = end - len(octets)
        return _Place(at, begin, begin, end, partial(kind._make, *numbers))
    if isinstance(kind, Any_):
        return _Place(at, begin, begin - len(header(kind.tag, end - begin)), end, bytes)
    if isinstance(kind, Remembered) and end - begin <= MAX_REMEMBERED:
        return _Place(at, begin, begin, end, kind.known)
    return _Place(at, begin, begin, end, kind.decode)


def _explicit_field(buf: bytes, at: int, inner: int, name: str) -> tuple[int, int]:
    """Return (start, end) of the contents of the field at `at`."""
    begin, length = at + 2, buf[at + 1]
    if length >= 0x80:
        begin, length = _long_length(buf, at + 1)
    end = begin + length
    if buf[begin] != inner:
        raise DecodeError(f"field {name} has another type than 0x{inner:02x}")
    length = buf[begin + 1]
    if length >= 0x80:
        begin, length = _long_length(buf, begin + 1)
    else:
        begin += 2
    if begin + length != end:
        raise DecodeError(f"field {name} has a length that does not fit")
    return begin, end


class Labelled(Sequence):
    """SEQUENCE of numbers that come again, and an OCTET STRING at the end: a ciphertext, a checksum, a key.

    What stands before the octets, its label, is remembered as a whole, with the numbers that it holds: here where it is
    written, in the layout of what is around it where it is read.
    """

    def __init__(self, make: Callable[..., Any], *fields: Field) -> None:
        super().__init__(make, *fields)
        self._label = lru_cache(maxsize=MAX_LAYOUTS)(self._label_for)

    def encode(self, value: Any, tags: tuple[int, ...] = ()) -> bytes:
        values = value if self._is_record else self._attributes(value)
        octets: bytes = values[-1]
        return self._label(tags, values[:-1], len(octets)) + octets

    def _label_for(self, tags: tuple[int, ...], numbers: tuple[int | None, ...], size: int) -> bytes:
        """Return what stands before octets of that size."""
        label = b"".join(map(_element, self.fields, numbers)) + _headers(self.fields[-1], size)
        return headers_around(len(label) + size, tags) + label


class SequenceOf:
    """SEQUENCE OF `item` as a tuple, of at most `limit` elements."""

    tag = 0x30

    def __init__(self, item: DerType, limit: int) -> None:
        self.item = item
        self.limit = limit

    def decode(self, contents: bytes) -> tuple[Any, ...]:
        values: list[Any] = []
        decode, expected = self.item.decode, self.item.tag
        at, stop = 0, len(contents)
        while at < stop:
            tag = contents[at]
            if tag != expected:
                raise DecodeError("an element of a SEQUENCE OF has another type")
            begin, length = at + 2, contents[at + 1]
            if length >= 0x80:
                begin, length = _long_length(contents, at + 1)
            at = begin + length
            if at > stop:
                raise DecodeError("an element reaches past the end of its SEQUENCE OF")
            if len(values) == self.limit:
                raise DecodeError(f"a SEQUENCE OF has more than {self.limit} elements")
            values.append(decode(_part(contents, begin, at, expected)))
        return tuple(values)

    def encode(self, value: tuple[Any, ...]) -> bytes:
        return b"".join(tlv(self.item.tag, self.item.encode(v)) for v in value)


class Remembered:
    """`inner`, an immutable value that is no secret and comes again in many messages: the last ones are remembered.

    Values that are equal must encode to the same bytes.
    """

    def __init__(self, inner: DerType) -> None:
        self.tag = inner.tag
        self._inner = inner
        #: `decode` for contents that are short enough to be remembered.
        self.known = lru_cache(maxsize=256)(inner.decode)
        #: Our own values are few; of others only an embedded KDC writes any.
        self.encode: Callable[[Any], bytes] = lru_cache(maxsize=256)(inner.encode)

    def decode(self, contents: bytes) -> Any:
        return self.known(contents) if len(contents) <= MAX_REMEMBERED else self._inner.decode(contents)


class Lasting(Remembered):
    """The same, where the value hardly ever changes from one message of a program to the next."""


INT32 = Lasting(Integer(-(1 << 31), (1 << 31) - 1))
UINT32 = Integer(0, (1 << 32) - 1)
MICROSECONDS = Integer(0, 999_999)
#: UInt32 that some implementations send as a negative Int32. Source: RFC 4120 5.5.1 (seq-number).
SEQ_NUMBER = Integer(-(1 << 31), (1 << 32) - 1, mask=(1 << 32) - 1)


class Key(Labelled):
    """EncryptionKey of RFC 4120 5.2.9: SEQUENCE { keytype [0] Int32, keyvalue [1] OCTET STRING }."""

    def __init__(self) -> None:
        super().__init__(EncryptionKey, Field(0, "etype", INT32), Field(1, "contents", OctetString()))


class _Explicit:
    """`inner` under another tag, explicitly: what encloses a message. `Message` reads and writes all tags at once."""

    tag_class: ClassVar[int]

    def __init__(self, number: int, inner: DerType) -> None:
        self.tag = self.tag_class | number
        self.inner = inner


class Application(_Explicit):
    """`inner` under [APPLICATION number], explicitly."""

    tag_class = 0x60


class Context(_Explicit):
    """`inner` under the context-specific tag [number], explicitly: one alternative of a CHOICE."""

    tag_class = 0xA0


#: How a message is read and written: the tags around what its schema encloses, outermost first; what recognises it
#: (see `Sequence`), else walks it; what encodes it.
_Frame = tuple[
    tuple[int, ...],
    Callable[[bytes], Any],
    Callable[[bytes, int], Any],
    Callable[[Any, tuple[int, ...]], bytes],
]


def _find_frame(kind: Any) -> _Frame:
    schema: DerType | _Explicit = kind.schema
    tags = [schema.tag]
    while isinstance(schema, _Explicit):
        schema = schema.inner
        tags.append(schema.tag)
    if isinstance(schema, Sequence):
        return tuple(tags), schema.recognise, schema.walk, schema.encode
    body = schema

    def encode(value: Any, tags: tuple[int, ...]) -> bytes:
        contents = body.encode(value)
        return headers_around(len(contents), tags) + contents

    return tuple(tags), lambda _: None, lambda data, start: body.decode(data[start:]), encode


_frame_of: Callable[[Any], _Frame] = cache(_find_frame)


class Message:
    """Base of all messages: `decode` bytes into a record, `encode` it back."""

    __slots__ = ()
    schema: ClassVar[DerType | _Explicit]

    @classmethod
    def decode(cls: type[M], data: bytes) -> M:
        """Return the message that `data` is, to the last byte. Raises DecodeError."""
        try:
            value: M
            data = bytes(data)
            tags, recognise, walk, _ = _frame_of(cls)
            value = recognise(data)
            return walk(data, _enter(cls.__name__, tags, data)) if value is None else value
        except IndexError:  # a header cut off by the end of the data
            del data
            failure = DecodeError(f"the {cls.__name__} ends inside a field")
        except DecodeError as error:
            del data
            failure = error.with_traceback(None)  # it says all that the frames could
        except BaseException as error:
            del data  # it may be a decrypted message
            forget_locals(error)  # what `forget_frames` does, without the cost of a wrapper
            raise
        raise failure

    def encode(self) -> bytes:
        """Return the DER bytes."""
        try:
            tags, _, _, encode = _frame_of(type(self))
            return encode(self, tags)
        except BaseException as error:  # as in `decode`
            forget_locals(error)
            raise


def _enter(name: str, tags: tuple[int, ...], data: bytes) -> int:
    """Return where the contents start inside headers with `tags`, each of which must reach to the end of `data`."""
    at = 0
    for expected in tags:
        tag, start, end = read_header(data, at, len(data))
        if tag != expected:
            raise DecodeError(f"this is not a {name}: tag 0x{tag:02x} instead of 0x{expected:02x}")
        if end != len(data):
            raise DecodeError(f"{len(data) - end} bytes follow the end of the {name}")
        at = start
    return at


M = TypeVar("M", bound=Message)  # not by its name, which `typing` would compile when it is imported
