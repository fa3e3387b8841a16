"""A small declarative codec for the strict DER that RFC 4120 messages use.

A message is a frozen dataclass with a schema: `Application(14, Sequence(ApReq, Field(0, "pvno", INT32), ...))`.
Decoding refuses everything that is not DER: indefinite or non-minimal lengths, wrong order, missing, repeated or
unknown fields, trailing bytes, non-minimal integers. Nesting is bounded, because a schema is finite; counts are bounded
by `SequenceOf`. All failures are DecodeError. Source: ITU-T X.690 8, 10, 11; RFC 4120 5.1, 5.2.

How it works: a type knows its tag and turns contents (the bytes between `start` and `stop` of a buffer) into a value
and back. `Sequence` reads both tags and both lengths of a field in one go; `Remembered` knows what comes again in many
messages. That keeps an AP-REQ below ten microseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, ClassVar, Protocol, TypeVar

from purekrb.errors import DecodeError
from purekrb.keys import KEY_SIZES, EncryptionKey

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
    "SequenceOf",
    "Remembered",
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
MAX_OID = 64
#: Bytes of a value that is worth remembering, which bounds what strangers can have remembered.
MAX_REMEMBERED = 256
UTC = timezone.utc
#: Outer tag, outer length, inner tag and inner length of a field, where both lengths are short.
_read_headers = struct.Struct("4B").unpack_from
_write_headers = struct.Struct("4B").pack
_SMALL_INTEGERS = tuple(bytes((n,)) for n in range(0x80))


def header(tag: int, size: int) -> bytes:
    """Return tag and minimal definite length of contents of `size` bytes."""
    if size < 0x80:
        return bytes((tag, size))
    if size < 0x100:
        return bytes((tag, 0x81, size))
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length


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


def _check_integer(buf: bytes, start: int, stop: int) -> None:
    if start == stop or (stop - start > 1 and (
        (buf[start] == 0 and buf[start + 1] < 0x80) or (buf[start] == 0xFF and buf[start + 1] >= 0x80)
    )):
        raise DecodeError("an INTEGER is not encoded in its shortest form")
    if stop - start > 9:
        raise DecodeError("an INTEGER is larger than any in Kerberos")


class DerType(Protocol):
    """A type of the schema language."""

    tag: int

    def decode(self, buf: bytes, start: int, stop: int) -> Any:
        """Return the value whose contents are buf[start:stop]."""

    def encode(self, value: Any) -> bytes:
        """Return the contents that encode `value`."""


class Boolean:
    """BOOLEAN as bool: 00 or FF."""

    tag = 0x01

    def decode(self, buf: bytes, start: int, stop: int) -> bool:
        if buf[start:stop] not in (b"\0", b"\xff"):
            raise DecodeError("a BOOLEAN is neither 00 nor FF")
        return buf[start] != 0

    def encode(self, value: bool) -> bytes:
        return b"\xff" if value else b"\0"


class Integer:
    """INTEGER between `low` and `high`; with `mask`, negative values come out as unsigned (old senders' habit)."""

    tag = 0x02

    def __init__(self, low: int, high: int, mask: int | None = None) -> None:
        self.low, self.high, self.mask = low, high, mask

    def decode(self, buf: bytes, start: int, stop: int) -> int:
        if stop - start == 1:
            value = buf[start]
            if value >= 0x80:
                value -= 0x100
        else:
            _check_integer(buf, start, stop)
            value = int.from_bytes(buf[start:stop], "big", signed=True)
        if not self.low <= value <= self.high:
            raise DecodeError(f"an INTEGER is outside {self.low}..{self.high}")
        return value if self.mask is None else value & self.mask

    def encode(self, value: int) -> bytes:
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is outside {self.low}..{self.high}")
        if 0 <= value < 0x80:
            return _SMALL_INTEGERS[value]
        return int(value).to_bytes((value if value >= 0 else ~value).bit_length() // 8 + 1, "big", signed=True)


INT32 = Integer(-(1 << 31), (1 << 31) - 1)
UINT32 = Integer(0, (1 << 32) - 1)
MICROSECONDS = Integer(0, 999_999)
#: UInt32 that some implementations send as a negative Int32. Source: RFC 4120 5.5.1 (seq-number).
SEQ_NUMBER = Integer(-(1 << 31), (1 << 32) - 1, mask=(1 << 32) - 1)


class Enumerated(Integer):
    """ENUMERATED between `low` and `high`."""

    tag = 0x0A


class ObjectIdentifier:
    """OBJECT IDENTIFIER as the bytes of its contents, at most 64: it is compared, and decoded for people alone."""

    tag = 0x06

    def decode(self, buf: bytes, start: int, stop: int) -> bytes:
        if not 0 < stop - start <= MAX_OID or buf[stop - 1] >= 0x80:
            raise DecodeError(f"an OBJECT IDENTIFIER is empty, cut off, or longer than {MAX_OID} bytes")
        return buf[start:stop]

    def encode(self, value: bytes) -> bytes:
        return bytes(value)


class OctetString:
    """OCTET STRING as bytes."""

    tag = 0x04

    def decode(self, buf: bytes, start: int, stop: int) -> bytes:
        return buf[start:stop]

    def encode(self, value: bytes) -> bytes:
        return bytes(value)


class GeneralString:
    """KerberosString as str: UTF-8 (a superset of what RFC 4120 5.2.1 allows), no NUL, at most 8192 bytes."""

    tag = 0x1B

    def decode(self, buf: bytes, start: int, stop: int) -> str:
        raw = buf[start:stop]
        if len(raw) > MAX_STRING:
            raise DecodeError(f"a string of {len(raw)} bytes is longer than {MAX_STRING}")
        if 0 in raw:
            raise DecodeError("a KerberosString contains NUL")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise DecodeError("a KerberosString is not UTF-8") from None

    def encode(self, value: str) -> bytes:
        raw = value.encode()
        if 0 in raw or len(raw) > MAX_STRING:
            raise ValueError(f"a KerberosString contains NUL or is longer than {MAX_STRING} bytes")
        return raw


@lru_cache(maxsize=64)  # the times of one ticket come again in many messages
def _parse_time(raw: bytes) -> datetime:
    if len(raw) != 15 or raw[14] != 0x5A or not raw[:14].isdigit():
        raise DecodeError("a KerberosTime is not of the form YYYYMMDDHHMMSSZ")
    n = int(raw[:14])
    try:
        return datetime(
            n // 10**10, n // 10**8 % 100, n // 10**6 % 100, n // 10**4 % 100, n // 100 % 100, n % 100, 0, UTC
        )
    except ValueError:
        raise DecodeError("a KerberosTime names a day or an hour that does not exist") from None


class KerberosTime:
    """KerberosTime as an aware UTC datetime in whole seconds: exactly YYYYMMDDHHMMSSZ. Source: RFC 4120 5.2.3."""

    tag = 0x18

    def decode(self, buf: bytes, start: int, stop: int) -> datetime:
        return _parse_time(buf[start:stop])

    def encode(self, value: datetime) -> bytes:
        t = value if value.tzinfo is UTC else value.astimezone(UTC)
        return b"%04d%02d%02d%02d%02d%02dZ" % (t.year, t.month, t.day, t.hour, t.minute, t.second)


class KerberosFlags:
    """KerberosFlags as a 32-bit int, bit 0 highest; missing bits are zeros, more are dropped. RFC 4120 5.2.8."""

    tag = 0x03

    def decode(self, buf: bytes, start: int, stop: int) -> int:
        size = stop - start
        if size == 5 and buf[start] == 0:
            return int.from_bytes(buf[start + 1 : stop], "big")
        if size == 0 or buf[start] > 7 or (size == 1 and buf[start]) or size > 33:
            raise DecodeError("KerberosFlags are not a well-formed BIT STRING")
        unused = buf[start]
        if unused and buf[stop - 1] & ((1 << unused) - 1):
            raise DecodeError("unused bits of KerberosFlags are not zero")
        return int.from_bytes(buf[start + 1 : min(start + 5, stop)].ljust(4, b"\0"), "big")

    def encode(self, value: int) -> bytes:
        return b"\0" + int(value).to_bytes(4, "big")


class Any_:  # noqa: N801 - "Any" is typing's
    """One whole TLV with the given outer tag, kept as its bytes (a Ticket that is passed on as it came)."""

    def __init__(self, tag: int) -> None:
        self.tag = tag

    def decode(self, buf: bytes, start: int, stop: int) -> bytes:
        return tlv(self.tag, buf[start:stop])

    def encode(self, value: bytes) -> bytes:
        tag, start, end = read_header(value, 0, len(value))
        if tag != self.tag or end != len(value):
            raise ValueError(f"expected one DER element with tag 0x{self.tag:02x}")
        return value[start:]


class Key:
    """EncryptionKey of RFC 4120 5.2.9: SEQUENCE { keytype [0] Int32, keyvalue [1] OCTET STRING }."""

    tag = 0x30

    def __init__(self) -> None:
        self._pair = Sequence(EncryptionKey, Field(0, "etype", INT32), Field(1, "contents", OctetString()))
        #: What stands before the bytes of a key, by etype, and the other way round.
        self._heads = {
            etype: _write_headers(0xA0, 3, 0x02, 1) + bytes((etype,)) + _write_headers(0xA1, size + 2, 0x04, size)
            for etype, size in KEY_SIZES.items()
        }
        self._known = {head: (etype, len(head) + KEY_SIZES[etype]) for etype, head in self._heads.items()}

    def decode(self, buf: bytes, start: int, stop: int) -> EncryptionKey:
        known = self._known.get(buf[start : start + 9])
        if known is not None and stop - start == known[1]:
            return EncryptionKey(known[0], buf[start + 9 : stop])
        key: EncryptionKey = self._pair.decode(buf, start, stop)
        return key

    def encode(self, value: EncryptionKey) -> bytes:
        head = self._heads.get(value.etype)
        return self._pair.encode(value) if head is None else head + value.contents


@dataclass(frozen=True, slots=True)
class Field:
    """Field `name` of a SEQUENCE, explicitly tagged [number]; None stands for an absent optional one."""

    number: int
    name: str
    type: DerType
    optional: bool = False


class Sequence:
    """SEQUENCE of explicitly tagged fields, as `make(*values)` in field order.

    `extensible` skips unknown fields at the end, for types whose ASN.1 ends in "...".
    """

    tag = 0x30

    def __init__(self, make: Callable[..., Any], *fields: Field, extensible: bool = False) -> None:
        self.make = make
        self.fields = fields
        self.extensible = extensible
        self._decoders = [(0xA0 | f.number, f.type.tag, f.type.decode, f.optional, f.name) for f in fields]
        self._encoders = [(0xA0 | f.number, f.type.tag, f.type.encode, f.optional, f.name) for f in fields]

    def decode(self, buf: bytes, start: int, stop: int) -> Any:
        values: list[Any] = []
        at = start
        for outer, inner, decode, optional, name in self._decoders:
            if at < stop:
                tag, size, kind, length = _read_headers(buf, at)
                if tag == outer:
                    if size < 0x80 and length == size - 2 and kind == inner:
                        begin = at + 4
                        at = begin + length
                    else:
                        begin, at = _long_field(buf, at, inner, name)
                    if at > stop:
                        raise DecodeError(f"field {name} reaches past the end of its SEQUENCE")
                    values.append(decode(buf, begin, at))
                    continue
            if not optional:
                raise DecodeError(f"field {name} is missing, repeated or out of order")
            values.append(None)
        if at != stop:
            self._skip_extensions(buf, at, stop)
        return self.make(*values)

    def _skip_extensions(self, buf: bytes, at: int, stop: int) -> None:
        if not self.extensible:
            raise DecodeError("unknown, repeated or misplaced fields at the end of a SEQUENCE")
        last = max(f.number for f in self.fields)
        while at < stop:
            tag, _, at = read_header(buf, at, stop)
            if tag & 0xE0 != 0xA0 or tag & 0x1F <= last:
                raise DecodeError("an extension field is out of order")
            last = tag & 0x1F

    def encode(self, value: Any) -> bytes:
        parts = []
        for outer, inner, encode, optional, name in self._encoders:
            item = getattr(value, name)
            if item is not None:
                contents = encode(item)
                size = len(contents)
                if size < 0x7E:  # both lengths are short
                    parts.append(_write_headers(outer, size + 2, inner, size))
                    parts.append(contents)
                else:
                    head = header(inner, size)
                    parts += (header(outer, len(head) + size), head, contents)
            elif not optional:
                raise ValueError(f"field {name} is required")
        return b"".join(parts)


def _long_field(buf: bytes, at: int, inner: int, name: str) -> tuple[int, int]:
    """Return (start, end) of the contents of the field at `at`, whose lengths are not both short and right."""
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


class SequenceOf:
    """SEQUENCE OF `item` as a tuple, of at most `limit` elements."""

    tag = 0x30

    def __init__(self, item: DerType, limit: int) -> None:
        self.item = item
        self.limit = limit

    def decode(self, buf: bytes, start: int, stop: int) -> tuple[Any, ...]:
        values: list[Any] = []
        decode, expected = self.item.decode, self.item.tag
        at = start
        while at < stop:
            if buf[at] != expected:
                raise DecodeError("an element of a SEQUENCE OF has another type")
            begin, length = at + 2, buf[at + 1]
            if length >= 0x80:
                begin, length = _long_length(buf, at + 1)
            at = begin + length
            if at > stop:
                raise DecodeError("an element reaches past the end of its SEQUENCE OF")
            if len(values) == self.limit:
                raise DecodeError(f"a SEQUENCE OF has more than {self.limit} elements")
            values.append(decode(buf, begin, at))
        return tuple(values)

    def encode(self, value: tuple[Any, ...]) -> bytes:
        return b"".join(tlv(self.item.tag, self.item.encode(v)) for v in value)


class Remembered:
    """`inner`, an immutable value that is no secret and comes again in many messages: the last ones are remembered."""

    def __init__(self, inner: DerType) -> None:
        self.tag = inner.tag
        self._inner = inner
        self._decode = lru_cache(maxsize=256)(lambda raw: inner.decode(raw, 0, len(raw)))
        self.encode = inner.encode  # not remembered: equal names may differ in their type

    def decode(self, buf: bytes, start: int, stop: int) -> Any:
        if stop - start > MAX_REMEMBERED:
            return self._inner.decode(buf, start, stop)
        return self._decode(buf[start:stop])


class _Explicit:
    """`inner` under another tag, explicitly."""

    tag_class: ClassVar[int]

    def __init__(self, number: int, inner: DerType) -> None:
        self.tag = self.tag_class | number
        self.inner = inner

    def decode(self, buf: bytes, start: int, stop: int) -> Any:
        begin, length = start + 2, buf[start + 1]
        if length >= 0x80:
            begin, length = _long_length(buf, start + 1)
        if buf[start] != self.inner.tag or begin + length != stop:
            raise DecodeError("an explicit tag holds another type, or more than one")
        return self.inner.decode(buf, begin, stop)

    def encode(self, value: Any) -> bytes:
        return tlv(self.inner.tag, self.inner.encode(value))


class Application(_Explicit):
    """`inner` under [APPLICATION number], explicitly."""

    tag_class = 0x60


class Context(_Explicit):
    """`inner` under the context-specific tag [number], explicitly: one alternative of a CHOICE."""

    tag_class = 0xA0


M = TypeVar("M", bound="Message")


class Message:
    """Base of all messages: `decode` bytes into a frozen dataclass, `encode` it back."""

    __slots__ = ()
    schema: ClassVar[DerType]

    @classmethod
    def decode(cls: type[M], data: bytes) -> M:
        """Return the message that `data` is, to the last byte. Raises DecodeError."""
        data = bytes(data)
        try:
            tag, start, end = read_header(data, 0, len(data))
            if tag != cls.schema.tag:
                raise DecodeError(f"this is not a {cls.__name__}: tag 0x{tag:02x} instead of 0x{cls.schema.tag:02x}")
            if end != len(data):
                raise DecodeError(f"{len(data) - end} bytes follow the end of the {cls.__name__}")
            value: M = cls.schema.decode(data, start, end)
            return value
        except (IndexError, struct.error):  # a header cut off by the end of the buffer
            failure = DecodeError(f"the {cls.__name__} ends inside a field")
        except DecodeError as error:
            failure = error.with_traceback(None)
        # What `secrecy.forget_frames` does, without the cost of a wrapper: the data may be a decrypted message.
        del data
        raise failure

    def encode(self) -> bytes:
        """Return the DER bytes."""
        return tlv(self.schema.tag, self.schema.encode(self))
