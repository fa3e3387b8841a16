"""What a directory answers, looked at before ldap3 sees it: counted and bounded; and the entries of a search, read.

ldap3 makes a tuple and more of each BER element, and reads an INTEGER of any length in quadratic time. Pure: bytes in,
values out; everything malformed raises DecodeError. Source: RFC 4511 4.1.1, 4.5.2, 5.1 (BER of definite lengths).
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
_BOOLEAN, _INTEGER, _OCTETS, _ENUMERATED, _SEQUENCE, _SET, _CONTROLS = (
    0x01,
    0x02,
    0x04,
    0x0A,
    0x30,
    0x31,
    0xA0,
)
#: What stands inside of answers: the universal types, a referral (3), saslCreds (7), name and value of an extended
#: response (10, 11). ldap3 looks into some elements that are not marked as constructed; no such tag is among these.
_TAGS = frozenset(
    (_BOOLEAN, _INTEGER, _OCTETS, _ENUMERATED, _SEQUENCE, _SET, 0xA3, 0x87, 0x8A, 0x8B)
)
#: The same of an intermediate response, whose name and value have other numbers. Source: RFC 4511 4.13.
_INTERMEDIATE_TAGS = _TAGS | {0x80, 0x81}
#: Octets of a number: those of LDAP are below 2**31 (RFC 4511 4.1.1, maxInt).
_MAX_INTEGER = 8
_MAX_LENGTH_OCTETS = 4
#: How deep elements are nested; an entry needs 5.
_MAX_DEPTH = 16
#: The largest controls, in bytes. ldap3 also takes apart the values of some.
_MAX_CONTROLS = 65_536
#: Elements between two looks at the clock.
_TICK = 0x1000


@dataclass(frozen=True, slots=True)
class Entry:
    """What a search found: the DN, and raw values by LDAP name, none where the object has no such attribute."""

    dn: str
    attributes: Mapping[str, Sequence[bytes]]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the values of the attribute `name` as text; what is no UTF-8 becomes U+FFFD."""
        return tuple(value.decode(errors="replace") for value in self.attributes.get(name, ()))

    def text(self, name: str) -> str:
        """Return the only (or first) value of the attribute `name` as text, "" where there is none."""
        return next(iter(self.texts(name)), "")


class Header(NamedTuple):
    """An LDAPMessage: its number, the tag of its operation, where the contents of that and of the controls are."""

    number: int
    operation: int
    start: int
    stop: int
    controls: tuple[int, int] | None


#: The attributes that a search asked for, by their folded names; None: all.
Wanted = Mapping[str, str] | None


def request_of(message: bytes) -> tuple[int, int]:
    """Return the number of the LDAPMessage `message` and the tag of its operation."""
    number, at, _ = _begin(message)
    return number, message[at]


def header_of(message: bytes) -> Header:
    """Return what the answer `message`, a whole LDAPMessage, consists of. Source: RFC 4511 4.1.1."""
    number, at, end = _begin(message)
    operation, start, stop = _element(message, at, end)
    if operation & 0xE0 != 0x60:
        raise DecodeError(f"an LDAP answer has an operation, not the tag 0x{operation:02x}")
    if stop == end:
        return Header(number, operation, start, stop, None)
    controls = _content(message, stop, end, _CONTROLS)
    if controls[1] != end or end - controls[0] > _MAX_CONTROLS:
        raise DecodeError(f"an LDAP answer ends with controls of at most {_MAX_CONTROLS} bytes")
    return Header(number, operation, start, stop, controls)


def count_elements(message: bytes, header: Header, limit: int, tick: Callable[[], object]) -> int:
    """Return how many BER elements `message` has, all of which fit into each other. DecodeError: more than `limit`.

    `tick` is called now and then; it raises where the time is over.
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
                    f"an LDAP answer consists of too many elements for its size ({len(message)} bytes)"
                )
            if not count % _TICK:
                tick()
            if tag not in tags:
                raise DecodeError(f"no LDAP answer has the tag 0x{tag:02x}")
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
    """Return the SearchResultEntry `message`, with the attributes that were `wanted`. Source: RFC 4511 4.5.2."""
    first, at = _content(message, header.start, header.stop, _OCTETS)
    dn = _text(message[first:at])
    at, stop = _content(message, at, header.stop, _SEQUENCE)
    return Entry(dn, spelled(_attributes(message, at, stop, tick), wanted))


def _attributes(
    message: bytes, at: int, stop: int, tick: Callable[[], object]
) -> Iterator[tuple[str, Sequence[bytes]]]:
    """Yield name and values of the attributes that begin at `at`. An empty SET is no value. Source: RFC 4511 4.1.7."""
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
    """Return the attributes `pairs` that were `wanted`, under the spelling with which they were asked for."""
    attributes: dict[str, Sequence[bytes]] = (
        {} if wanted is None else dict.fromkeys(wanted.values(), ())
    )
    for name, values in pairs:
        known = _spelling(name, wanted)
        if known is not None:
            attributes[known] = values
    return attributes


def _spelling(name: str, wanted: Wanted) -> str | None:
    """Return how the attribute `name` was asked for, None where it was not; a range of its values is kept.

    A directory may answer in another case, and with a part of the values. Source: MS-ADTS 3.1.1.3.1.3.3.
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
    """Return the number of an LDAPMessage, where its operation begins, and where the message ends."""
    start, stop = _content(message, 0, len(message), _SEQUENCE)
    first, at = _content(message, start, stop, _INTEGER)
    if not 1 <= at - first <= _MAX_LENGTH_OCTETS or at >= stop:
        raise DecodeError(
            "an LDAP message begins with a number of 1 to 4 octets and has an operation"
        )
    return int.from_bytes(message[first:at], "big"), at, stop


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError("a name in an LDAP answer is no UTF-8") from None  # RFC 4511 4.1.2


def _content(data: bytes, at: int, stop: int, expected: int) -> tuple[int, int]:
    """Return where the contents of the element at `at` begin and end, which has the tag `expected`."""
    tag, start, end = _element(data, at, stop)
    if tag != expected:
        raise DecodeError(f"an LDAP message has the tag 0x{tag:02x}, expected 0x{expected:02x}")
    return start, end


def _element(data: bytes, at: int, stop: int) -> tuple[int, int, int]:
    """Return the tag of the element at `at`, and where its contents begin and end, which is at `stop` at most."""
    start = at + 2
    if start > stop:
        raise DecodeError("an element of an LDAP message is cut off")
    length = data[at + 1]
    if length > 0x7F:
        octets = length & 0x7F
        if not 1 <= octets <= _MAX_LENGTH_OCTETS:
            raise DecodeError("a length in an LDAP message is definite and has 1 to 4 octets")
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
    end = start + length
    if end > stop:
        raise DecodeError("an element of an LDAP message ends behind the one that it is in")
    return data[at], start, end
