"""A small declarative codec for the strict DER of RFC 4120 messages.

A message is a record with a schema:
`Application(14, Sequence(ApReq, Field(0, "pvno", INT32), ...))`.
Decoding refuses everything that is not DER: indefinite or non-minimal lengths, wrong order,
missing, repeated or unknown fields, trailing bytes, non-minimal integers. Nesting is bounded,
because a schema is finite. `SequenceOf` bounds counts. All failures are DecodeError.
Source: ITU-T X.690 8, 10, 11; RFC 4120 5.1, 5.2.

A type knows its tag, and converts contents (the octets after tag and length) to a value and back.
This file remembers only headers that it has written; `layouts.py` holds the memory that makes
reading fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from functools import lru_cache, partial
from typing import Any, ClassVar, Protocol, TypeVar

from purekrb.errors import DecodeError
from purekrb.records import field_names
from purekrb.tracebacks import forget_locals

__all__ = [
    "DerType",
    "Boolean",
    "Integer",
    "Enumerated",
    "ObjectIdentifier",
    "OctetString",
    "BitString",
    "GeneralString",
    "Utf8String",
    "KerberosTime",
    "KerberosFlags",
    "Any_",
    "Sequence",
    "SequenceOf",
    "SetOf",
    "Application",
    "Context",
    "Field",
    "UntaggedField",
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
#: Up to this size in bytes, the contents of a constructed element are copied, which is fastest.
#: Larger contents are not copied, so that nesting does not multiply the copies.
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
    """Return the nested headers with `tags`, outermost first, around contents of `size` bytes."""
    found = b""
    for tag in reversed(tags):
        found = header(tag, size + len(found)) + found
    return found


@lru_cache(maxsize=4096)
def headers_of(total: int, tags: tuple[int, ...]) -> bytes | None:
    """Return the nested headers with `tags`, outermost first, of an element of `total` bytes.

    There is only one way to write them, because lengths are minimal. For some sizes there is none:
    the result is None.
    """
    for size in range(total - 2 * len(tags), max(total - 6 * len(tags), 0) - 1, -1):
        if size + len(found := headers_around(size, tags)) == total:
            return found
    return None


def tlv(tag: int, contents: bytes) -> bytes:
    """Return tag, minimal definite length and `contents`."""
    return header(tag, len(contents)) + contents


def read_header(buf: bytes, at: int, stop: int) -> tuple[int, int, int]:
    """Return (tag, start, end) of the TLV at `at`, which must end at or before `stop`.

    Only single-byte tags are accepted. Raises DecodeError. Source: X.690 8.1, 10.1.
    """
    if at + 2 > stop:
        raise DecodeError("the data ends inside a DER header")
    tag, length, start = buf[at], buf[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise DecodeError("the data hold a multi-byte tag, which Kerberos does not use")
    if length >= 0x80:  # X.690 8.1.3.5, the long form: so many octets hold the length
        count = length & 0x7F
        if not 1 <= count <= 4:
            raise DecodeError("an indefinite or oversized length is not DER")
        start += count
        if start > stop:
            raise DecodeError("the data ends inside a DER header")
        length = int.from_bytes(buf[at + 2 : start], "big")
        if length < 0x80 or length >> 8 * (count - 1) == 0:  # X.690 10.1
            raise DecodeError("a length is not encoded in its shortest form")
    end = start + length
    if end > stop:
        raise DecodeError("a DER length reaches past the end of the data")
    return tag, start, end


def _part(contents: bytes, begin: int, end: int, tag: int) -> bytes:
    """Return contents[begin:end] as bytes, or as a view for a large constructed element."""
    if end - begin > MAX_COPIED and tag & 0x20:
        # A view has everything that a walk needs.
        return memoryview(contents)[begin:end]  # type: ignore[return-value]
    return bytes(contents[begin:end])


class DerType(Protocol):
    """A type of the schema language."""

    tag: int

    def decode(self, contents: bytes) -> Any:
        """Return the value of `contents`: bytes, or a view for a large constructed type."""

    def encode(self, value: Any) -> bytes:
        """Return the contents that encode `value`."""


class Boolean:
    """BOOLEAN as bool: 00 or FF."""

    tag = 0x01

    def decode(self, contents: bytes) -> bool:
        # X.690 11.1: TRUE is FF.
        if contents not in (b"\0", b"\xff"):
            raise DecodeError("a BOOLEAN is neither 00 nor FF")
        return contents != b"\0"

    def encode(self, value: bool) -> bytes:
        return b"\xff" if value else b"\0"


class Integer:
    """INTEGER between `low` and `high`; with `mask`, negative values are decoded as unsigned ones.

    Some old implementations send unsigned numbers as negative ones.
    """

    tag = 0x02

    def __init__(self, low: int, high: int, mask: int | None = None) -> None:
        self.low, self.high, self.mask = low, high, mask

    def decode(self, contents: bytes) -> int:
        size = len(contents)
        if size > _MAX_INTEGER:
            raise DecodeError("an INTEGER is larger than any in Kerberos")
        # X.690 8.3.2: the first octet must not merely repeat the sign bit of the second one.
        repeats = size > 1 and contents[0] in (0, 0xFF) and contents[0] ^ contents[1] < 0x80
        if size == 0 or repeats:
            raise DecodeError("an INTEGER is not encoded in its shortest form")
        value = int.from_bytes(contents, "big", signed=True)
        if not self.low <= value <= self.high:
            raise DecodeError(f"an INTEGER is outside {self.low}..{self.high}")
        return value if self.mask is None else value & self.mask

    def encode(self, value: int) -> bytes:
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is outside {self.low}..{self.high}")
        bits = (~value if value < 0 else value).bit_length() + 1  # one more for the sign
        return value.to_bytes((bits + 7) // 8, "big", signed=True)


class Enumerated(Integer):
    """ENUMERATED between `low` and `high`."""

    tag = 0x0A


class ObjectIdentifier:
    """OBJECT IDENTIFIER as the bytes of its contents, at most 64. It is only compared."""

    tag = 0x06

    def decode(self, contents: bytes) -> bytes:
        if not 0 < len(contents) <= MAX_OID or contents[-1] >= 0x80:
            raise DecodeError(
                f"an OBJECT IDENTIFIER is empty, cut off, or longer than {MAX_OID} bytes"
            )
        return contents

    def encode(self, value: bytes) -> bytes:
        return bytes(value)


class OctetString:
    """OCTET STRING as bytes."""

    tag = 0x04
    decode = bytes
    encode = bytes


class BitString:
    """BIT STRING of whole octets, as bytes."""

    tag = 0x03

    def decode(self, contents: bytes) -> bytes:
        if contents[:1] != b"\0":
            raise DecodeError("a BIT STRING does not consist of whole octets")
        return contents[1:]

    def encode(self, value: bytes) -> bytes:
        return b"\0" + value


class GeneralString:
    """KerberosString as str: UTF-8 without NUL, at most 8192 bytes.

    RFC 4120 5.2.1 allows only a subset of it.
    """

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
        raise failure  # outside of the `except`: the other error holds the contents

    def encode(self, value: str) -> bytes:
        raw = value.encode()
        if 0 in raw or len(raw) > MAX_STRING:
            raise ValueError(f"a KerberosString contains NUL or is longer than {MAX_STRING} bytes")
        return raw


class Utf8String(GeneralString):
    """UTF8String as str, with the bounds of a KerberosString."""

    tag = 0x0C


class KerberosTime:
    """KerberosTime as an aware UTC datetime in whole seconds: YYYYMMDDHHMMSSZ. RFC 4120 5.2.3."""

    tag = 0x18

    def decode(self, contents: bytes) -> datetime:
        if len(contents) != 15 or contents[14] != 0x5A or not contents[:14].isdigit():
            raise DecodeError("a KerberosTime does not have the form YYYYMMDDHHMMSSZ")
        n = int(contents[:14])
        date, time = divmod(n, 10**6)
        year, month, day = date // 10**4, date // 100 % 100, date % 100
        try:
            return datetime(year, month, day, time // 10**4, time // 100 % 100, time % 100, 0, UTC)
        except ValueError:
            raise DecodeError("a KerberosTime has a day or an hour that does not exist") from None

    def encode(self, value: datetime) -> bytes:
        t = value if value.tzinfo is UTC else value.astimezone(UTC)
        return b"%04d%02d%02d%02d%02d%02dZ" % (t.year, t.month, t.day, t.hour, t.minute, t.second)


class KerberosFlags:
    """KerberosFlags as a 32-bit int, with bit 0 the highest. Source: RFC 4120 5.2.8.

    Missing bits are zeros; bits beyond 32 are dropped.
    """

    tag = 0x03

    def decode(self, contents: bytes) -> int:
        size = len(contents)
        if size == 0 or contents[0] > 7 or (size == 1 and contents[0]) or size > 33:
            raise DecodeError("KerberosFlags are not a well-formed BIT STRING")
        unused = contents[0]
        # X.690 11.2.1: unused bits are zero.
        if unused and contents[-1] & ((1 << unused) - 1):
            raise DecodeError("unused bits of KerberosFlags are not zero")
        return int.from_bytes(contents[1:5].ljust(4, b"\0"), "big")

    def encode(self, value: int) -> bytes:
        return b"\0" + int(value).to_bytes(4, "big")


class Any_:  # noqa: N801 - "Any" is typing's
    """One whole TLV with the given outer tag, kept as its bytes (a Ticket that is passed on)."""

    def __init__(self, tag: int) -> None:
        self.tag = tag

    def decode(self, contents: bytes) -> bytes:
        return tlv(self.tag, contents)

    def encode(self, value: bytes) -> bytes:
        head = headers_of(len(value), (self.tag,))
        if head is None or not value.startswith(head):
            raise ValueError(f"expected one DER element with tag 0x{self.tag:02x}")
        return value[len(head) :]


class Field:
    """Field `name` of a SEQUENCE, tagged [number]; an absent optional field is None.

    The tag stands before that of the type, or with `implicit` in its place (X.690 8.14).
    """

    def __init__(
        self,
        number: int,
        name: str,
        type: DerType,  # noqa: A002 - the word of the schema
        optional: bool = False,
        *,
        implicit: bool = False,
    ) -> None:
        self.number, self.name, self.type, self.optional = number, name, type, optional
        #: The tags in front of the contents, outermost first.
        self.tags: tuple[int, ...] = 0xA0 | number, type.tag
        if implicit:
            self.tags = (0x80 | type.tag & 0x20 | number,)


class UntaggedField(Field):
    """Field `name` of a SEQUENCE, known by the tag of its type, as in X.509 and CMS."""

    def __init__(
        self,
        name: str,
        type: DerType,  # noqa: A002 - the word of the schema
        optional: bool = False,
    ) -> None:
        super().__init__(0, name, type, optional)
        self.tags = (type.tag,)


class Sequence:
    """SEQUENCE of tagged fields, as `make(*values)` in field order.

    `make` may be a record. `extensible` skips unknown fields at the end, for types whose ASN.1 ends
    in "...".
    """

    tag = 0x30

    def __init__(self, make: Callable[..., Any], *fields: Field, extensible: bool = False) -> None:
        #: Makes the SEQUENCE's value from the values of all fields.
        self.make: Callable[[Iterable[Any]], Any] = lambda values: make(*values)
        if isinstance(make, type) and field_names(make) and not hasattr(make, "__post_init__"):
            self.make = partial(tuple.__new__, make)  # a record, which is a tuple of its fields
        self.fields = fields
        self.extensible = extensible
        # For writing: the name of each field, the encoder of its contents, and the tags before them.
        self._writers = [(f.name, f.type.encode, f.tags, f.optional) for f in fields]

    def decode(self, contents: bytes) -> Any:
        return self.make([value for value, _, _ in self.walk(contents)])

    def walk(self, contents: bytes) -> Iterator[tuple[Any, int, int]]:
        """Yield the value, and the begin and the end of the contents, of each field.

        An absent field is None; it begins and ends at the place where it could be.
        """
        at, stop = 0, len(contents)
        for field in self.fields:
            tags = field.tags
            tag = contents[at] if at < stop else None
            if tag == tags[0]:
                _, begin, at = read_header(contents, at, stop)
                end = at
                if len(tags) > 1:
                    tag, begin, end = read_header(contents, begin, at)
                    if tag != tags[1]:
                        raise DecodeError(
                            f"field {field.name} does not have the type 0x{tags[1]:02x}"
                        )
                    if end != at:
                        raise DecodeError(f"field {field.name} has a length that does not fit")
                yield field.type.decode(_part(contents, begin, end, tag)), begin, end
            elif field.optional:
                yield None, at, at
            else:
                raise DecodeError(f"field {field.name} is missing, repeated or out of order")
        if at != stop:
            self._skip_extensions(contents, at, stop)

    def _skip_extensions(self, contents: bytes, at: int, stop: int) -> None:
        if not self.extensible:
            raise DecodeError("unknown, repeated or misplaced fields at the end of a SEQUENCE")
        last = max(f.number for f in self.fields)
        while at < stop:
            tag, _, at = read_header(contents, at, stop)
            if tag & 0xC0 != 0x80 or tag & 0x1F <= last:
                raise DecodeError("an extension field is out of order")
            last = tag & 0x1F

    def encode(self, value: Any) -> bytes:
        parts = b""
        for name, encode, tags, optional in self._writers:
            item = getattr(value, name)
            if item is not None:
                contents = encode(item)
                parts += headers_around(len(contents), tags) + contents
            elif not optional:
                raise ValueError(f"field {name} is required")
        return parts


class SequenceOf:
    """SEQUENCE OF `item` as a tuple, of at most `limit` elements."""

    tag = 0x30

    def __init__(self, item: DerType, limit: int) -> None:
        self.item = item
        self.limit = limit

    def decode(self, contents: bytes) -> tuple[Any, ...]:
        values: list[Any] = []
        at, stop = 0, len(contents)
        while at < stop:
            tag, begin, at = read_header(contents, at, stop)
            if tag != self.item.tag:
                raise DecodeError("an element of a SEQUENCE OF has the wrong type")
            if len(values) == self.limit:
                raise DecodeError(f"a SEQUENCE OF has more than {self.limit} elements")
            values.append(self.item.decode(_part(contents, begin, at, tag)))
        return tuple(values)

    def encode(self, value: tuple[Any, ...]) -> bytes:
        return b"".join(tlv(self.item.tag, self.item.encode(v)) for v in value)


class SetOf(SequenceOf):
    """SET OF `item` as a tuple, of at most `limit` elements, in the order of the bytes."""

    tag = 0x31


INT32 = Integer(-(1 << 31), (1 << 31) - 1)
UINT32 = Integer(0, (1 << 32) - 1)
MICROSECONDS = Integer(0, 999_999)
#: UInt32 that some implementations send as a negative Int32. Source: RFC 4120 5.5.1 (seq-number).
SEQ_NUMBER = Integer(-(1 << 31), (1 << 32) - 1, mask=(1 << 32) - 1)


class _Explicit:
    """`inner` under another, explicit tag: the outside of a message, which `Message` reads."""

    tag_class: ClassVar[int]

    def __init__(self, number: int, inner: DerType) -> None:
        self.tag = self.tag_class | number
        self.inner = inner

    def encode(self, value: Any) -> bytes:
        return tlv(self.inner.tag, self.inner.encode(value))


class Application(_Explicit):
    """`inner` under the explicit tag [APPLICATION number]."""

    tag_class = 0x60


class Context(_Explicit):
    """`inner` under the explicit context-specific tag [number]: one alternative of a CHOICE."""

    tag_class = 0xA0


class Message:
    """Base of all messages: `decode` converts bytes to a record, `encode` converts it back."""

    __slots__ = ()
    schema: ClassVar[DerType | _Explicit]

    @classmethod
    def decode(cls: type[M], data: bytes) -> M:
        """Return the message in `data`, which ends with the message. Raises DecodeError."""
        try:
            value: M = cls._read(data)
            return value
        except DecodeError as error:
            del data
            failure = error.with_traceback(None)  # the frames would add nothing but secrets
        except BaseException as error:
            del data  # it may be a decrypted message
            forget_locals(error)  # the effect of `forget_frames`, without the cost of a wrapper
            raise
        raise failure

    @classmethod
    def _read(cls, data: bytes) -> Any:
        kind, contents = cls._open(data)
        return kind.decode(contents)

    @classmethod
    def _open(cls, data: bytes) -> tuple[Any, bytes]:
        """Return the type inside all explicit tags, and its contents, which must end `data`."""
        kind: Any = cls.schema
        while True:
            tag, start, end = read_header(data, 0, len(data))
            if tag != kind.tag:
                name, expected = cls.__name__, kind.tag
                raise DecodeError(
                    f"this is not a {name}: tag 0x{tag:02x} instead of 0x{expected:02x}"
                )
            if end != len(data):
                raise DecodeError(f"{len(data) - end} bytes follow the end of the {cls.__name__}")
            data = _part(data, start, end, tag)
            if not isinstance(kind, _Explicit):
                return kind, data
            kind = kind.inner

    def encode(self) -> bytes:
        """Return the DER bytes."""
        try:
            return tlv(self.schema.tag, self.schema.encode(self))
        except BaseException as error:  # as in `decode`
            forget_locals(error)
            raise


# The bound is the class, not its name: `typing` would compile a name at import.
M = TypeVar("M", bound=Message)
