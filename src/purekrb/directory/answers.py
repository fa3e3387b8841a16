"""Answers of a directory: checked, counted and bounded before ldap3 sees them.

ldap3 makes at least a tuple of each BER element, and reads an INTEGER of any length in quadratic
time. The entries of a search are read here, without ldap3. Pure: bytes in, values out; everything
malformed raises DecodeError. Source: RFC 4511 4.1.1, 4.5.2, 5.1 (BER with definite lengths).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from purekrb.errors import DecodeError

__all__ = [
    "INTERMEDIATE",
    "SEARCH_ENTRY",
    "SEARCH_REFERENCE",
    "Entry",
    "Header",
    "Wanted",
    "count_elements",
    "header_of",
    "read_entry",
    "read_urls",
    "request_of",
    "spelled",
]

#: The operations of messages that come before a result. Source: RFC 4511 4.5.2, 4.13.
SEARCH_ENTRY, SEARCH_REFERENCE, INTERMEDIATE = 0x64, 0x73, 0x79
_BOOLEAN, _INTEGER, _OCTETS, _ENUMERATED = 0x01, 0x02, 0x04, 0x0A
_SEQUENCE, _SET, _CONTROLS = 0x30, 0x31, 0xA0
#: The tags inside answers: the universal types, a referral (3), saslCreds (7), and the name and
#: value of an extended response (10, 11). ldap3 looks into some elements that are not marked as
#: constructed; their tags are not among these.
_TAGS = frozenset(
    (_BOOLEAN, _INTEGER, _OCTETS, _ENUMERATED, _SEQUENCE, _SET, 0xA3, 0x87, 0x8A, 0x8B)
)
#: The tags inside an intermediate response: its name and value have other numbers.
#: Source: RFC 4511 4.13.
_INTERMEDIATE_TAGS = _TAGS | {0x80, 0x81}
#: The most octets of a number. LDAP's numbers are below 2**31 (RFC 4511 4.1.1, maxInt).
_MAX_INTEGER = 8
_MAX_LENGTH_OCTETS = 4
#: The most levels of nested elements; an entry needs 5.
_MAX_DEPTH = 16
#: The largest controls, in bytes. ldap3 also parses the values of some.
_MAX_CONTROLS = 65_536
#: Elements between two looks at the clock.
_TICK = 0x1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One object that a search found: its DN, and its raw values by attribute name.

    An attribute that was asked for and that the object lacks has no values.
    """

    dn: str
    attributes: Mapping[str, Sequence[bytes]]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the values of the attribute `name` as text; bytes outside UTF-8 become U+FFFD."""
        return tuple(value.decode(errors="replace") for value in self.attributes.get(name, ()))

    def text(self, name: str) -> str:
        """Return the only (or first) value of the attribute `name` as text; "" without one."""
        return next(iter(self.texts(name)), "")


class Header(NamedTuple):
    """An LDAPMessage: its number, and the tag of its operation.

    The contents of the operation are at `start` to `stop`; those of the controls at `controls`.
    """

    number: int
    operation: int
    start: int
    stop: int
    controls: tuple[int, int] | None


#: The attributes that a search asked for, by their case-folded names; None: all attributes.
Wanted = Mapping[str, str] | None


def request_of(message: bytes) -> tuple[int, int]:
    """Return the number of the LDAPMessage `message` and the tag of its operation."""
    number, at, _ = _begin(message)
    return number, message[at]


def header_of(message: bytes) -> Header:
    """Return the header of the answer `message`, a whole LDAPMessage. Source: RFC 4511 4.1.1."""
    number, at, end = _begin(message)
    operation, start, stop = _element(message, at, end)
    if operation & 0xE0 != 0x60:
        raise DecodeError(
            f"an LDAP answer has the tag 0x{operation:02x} where its operation belongs"
        )
    if stop == end:
        return Header(number, operation, start, stop, None)
    controls = _content(message, stop, end, _CONTROLS)
    if controls[1] != end or end - controls[0] > _MAX_CONTROLS:
        raise DecodeError(
            f"the controls of an LDAP answer are expected at its end, with at most {_MAX_CONTROLS} "
            "bytes"
        )
    return Header(number, operation, start, stop, controls)


def count_elements(message: bytes, header: Header, limit: int, tick: Callable[[], object]) -> int:
    """Return the number of BER elements in `message`.

    Raises DecodeError for more than `limit`, and for an element that does not fit into its parent.
    `tick` is called now and then; it raises when the time is over.
    """
    tags = _INTERMEDIATE_TAGS if header.operation == INTERMEDIATE else _TAGS
    count = 3  # the message, its number and its operation
    for at, stop in filter(None, ((header.start, header.stop), header.controls)):
        ends = [stop]
        while ends:
            if at == ends[-1]:
                ends.pop()
                continue
            tag, start, end = _element(message, at, ends[-1])
            count += 1
            if count > limit:
                raise DecodeError(
                    f"an LDAP answer has too many elements for its size ({len(message)} bytes)"
                )
            if not count % _TICK:
                tick()
            if tag not in tags:
                raise DecodeError(f"an LDAP answer has the unexpected tag 0x{tag:02x}")
            if tag & 0x20:
                ends.append(end)
                at = start
                if len(ends) > _MAX_DEPTH:
                    raise DecodeError(
                        f"the elements of an LDAP answer are nested more than {_MAX_DEPTH} deep"
                    )
            else:
                at = end
                if tag in (_INTEGER, _ENUMERATED) and not 1 <= end - start <= _MAX_INTEGER:
                    raise DecodeError(f"a number in an LDAP answer has {end - start} octets")
    return count


def read_entry(message: bytes, header: Header, wanted: Wanted, tick: Callable[[], object]) -> Entry:
    """Return the SearchResultEntry `message`, with the `wanted` attributes.

    Source: RFC 4511 4.5.2.
    """
    first, at = _content(message, header.start, header.stop, _OCTETS)
    dn = _text(message[first:at])
    at, stop = _content(message, at, header.stop, _SEQUENCE)
    return Entry(dn, spelled(_attributes(message, at, stop, tick), wanted))


def _attributes(
    message: bytes, at: int, stop: int, tick: Callable[[], object]
) -> Iterator[tuple[str, Sequence[bytes]]]:
    """Yield the names and values of the attributes from `at` to `stop`.

    An empty SET means that there are no values. Source: RFC 4511 4.1.7.
    """
    while at < stop:
        begin, at = _content(message, at, stop, _SEQUENCE)
        first, begin = _content(message, begin, at, _OCTETS)
        name = _text(message[first:begin])
        begin, end = _content(message, begin, at, _SET)
        values: list[bytes] = []
        while begin < end:
            first, begin = _content(message, begin, end, _OCTETS)
            values.append(message[first:begin])
            if not len(values) % _TICK:
                tick()
        yield name, values


def read_urls(message: bytes, header: Header) -> list[str]:
    """Return the URLs of the SearchResultReference `message`. Source: RFC 4511 4.5.3."""
    urls = []
    at = header.start
    while at < header.stop:
        first, at = _content(message, at, header.stop, _OCTETS)
        urls.append(message[first:at].decode(errors="replace"))
    return urls


def spelled(
    pairs: Iterable[tuple[str, Sequence[bytes]]], wanted: Wanted
) -> dict[str, Sequence[bytes]]:
    """Return those attributes of `pairs` that were `wanted`, spelled as in the request."""
    attributes: dict[str, Sequence[bytes]] = (
        {} if wanted is None else dict.fromkeys(wanted.values(), ())
    )
    for name, values in pairs:
        known = _spelling(name, wanted)
        if known is not None:
            attributes[known] = values
    return attributes


def _spelling(name: str, wanted: Wanted) -> str | None:
    """Return the requested spelling of the attribute `name`; None if it was not requested.

    A directory may answer in another case, and with a range of the values, which the returned name
    keeps. Source: MS-ADTS 3.1.1.3.1.3.3.
    """
    if wanted is None:
        return name
    folded = name.casefold()
    attribute, option, bounds = folded.partition(";range=")
    known = wanted.get(folded)
    if known is None and option and attribute in wanted:
        known = f"{wanted[attribute]};range={bounds}"
    return known


def _begin(message: bytes) -> tuple[int, int, int]:
    """Return the number of an LDAPMessage, the start of its operation, and the message's end."""
    start, stop = _content(message, 0, len(message), _SEQUENCE)
    first, at = _content(message, start, stop, _INTEGER)
    if not 1 <= at - first <= _MAX_LENGTH_OCTETS or at >= stop:
        raise DecodeError(
            "an LDAP message needs a number of 1 to 4 octets at its start, and then an operation"
        )
    return int.from_bytes(message[first:at], "big"), at, stop


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError("a name in an LDAP answer is not UTF-8") from None  # RFC 4511 4.1.2


def _content(data: bytes, at: int, stop: int, expected: int) -> tuple[int, int]:
    """Return the start and end of the contents of the element at `at`.

    Raises DecodeError unless its tag is `expected`.
    """
    tag, start, end = _element(data, at, stop)
    if tag != expected:
        raise DecodeError(f"an LDAP message has the tag 0x{tag:02x}, expected 0x{expected:02x}")
    return start, end


def _element(data: bytes, at: int, stop: int) -> tuple[int, int, int]:
    """Return the tag of the element at `at`, and the start and end of its contents.

    Raises DecodeError if it ends after `stop`.
    """
    start = at + 2
    if start > stop:
        raise DecodeError("an element of an LDAP message is cut off")
    length = data[at + 1]
    if length > 0x7F:
        octets = length & 0x7F
        if not 1 <= octets <= _MAX_LENGTH_OCTETS:
            raise DecodeError("a length in an LDAP message is indefinite or has more than 4 octets")
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
    end = start + length
    if end > stop:
        raise DecodeError("an element of an LDAP message is longer than the element around it")
    return data[at], start, end
