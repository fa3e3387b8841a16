"""The DER bytes of a client's messages to a KDC, by impacket's ASN.1 specs.

Each spec is walked once, and compiled to a function from a dataclass to bytes. Tags, order and
constraints are those of impacket; `der` writes the contents of each value. Filling impacket's own
objects would clone a spec for each request. Values that come again in every request (names,
options, encryption types) are remembered with their tags. Together this makes writing thirty times
as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any

from impacket.krb5 import asn1
from pyasn1.error import PyAsn1Error
from pyasn1.type import char, univ, useful

from purekrb.errors import DecodeError
from purekrb.messages import der

__all__ = ["encode"]

#: The attributes of fields that are not named like the field, in snake_case.
_ATTRIBUTES = {"from": "from_", "name-string": "components"}
#: The most values of one type that are remembered.
_MAX_REMEMBERED = 64

Write = Callable[[Any], bytes]


def encode(spec: str, message: Any) -> bytes:
    """Return the DER bytes of `message` by impacket's class `spec`.

    A SEQUENCE may also be its DER bytes. Raises ValueError for a value that its field cannot hold.
    """
    try:
        return _compiled(spec)(message)
    except (PyAsn1Error, DecodeError):  # their texts may quote the value
        failure = ValueError(f"this {spec} has a value that its ASN.1 does not allow")
    raise failure


@cache
def _compiled(spec: str) -> Write:
    return _writer(getattr(asn1, spec)())[0]


def _writer(spec: Any) -> tuple[Write, bool]:
    """Return the writer of `spec`, with all its tags, and whether it remembers values."""
    if isinstance(spec, univ.Sequence):
        return _sequence(spec)
    if isinstance(spec, univ.SequenceOf):
        item, remembered = _writer(spec.componentType)
        write = _tagged(_tags(spec), lambda values: b"".join(map(item, values)), remembered)
        return (lambda values: write(tuple(values))) if remembered else write, remembered
    encode_contents, remembered = next(
        (leaf[1], leaf[2]) for leaf in _LEAVES if isinstance(spec, leaf[0])
    )
    constraint = spec.subtypeSpec

    def constrained(value: Any) -> bytes:
        data = encode_contents(value)
        constraint(value)
        return data

    return _tagged(
        _tags(spec), constrained if constraint else encode_contents, remembered
    ), remembered


def _sequence(spec: Any) -> tuple[Write, bool]:
    named = spec.componentType.namedTypes
    names = [_ATTRIBUTES.get(field.name, field.name.replace("-", "_")) for field in named]
    writers = [_writer(field.asn1Object) for field in named]
    fields = [
        (name, writer[0], field.isOptional)
        for name, writer, field in zip(names, writers, named, strict=True)
    ]
    remembered = all(writer[1] for writer in writers)
    values = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)

    def contents(items: tuple[Any, ...]) -> bytes:
        parts = []
        for item, (name, field, optional) in zip(items, fields, strict=True):
            if item is not None:
                parts.append(field(item))
            elif not optional:
                raise ValueError(f"field {name} is required")
        return b"".join(parts)

    tags = _tags(spec)
    context = tuple(tag for tag in tags if tag & 0xC0 == 0x80)  # the tags of its field
    own = tags[len(context)]
    element = der.Any_(own)
    written = _tagged((*context, own), element.encode, remembered=False)
    if remembered:
        contents = lru_cache(maxsize=_MAX_REMEMBERED)(contents)

    def write(value: Any) -> bytes:
        if isinstance(value, bytes):
            return written(value)
        data = contents(values(value))
        return der.headers_around(len(data), tags) + data

    return write, remembered


def _tags(spec: Any) -> tuple[int, ...]:
    """Return the tags of a type, outermost first."""
    return tuple(
        tag.tagClass | tag.tagFormat | tag.tagId for tag in reversed(spec.tagSet.superTags)
    )


def _tagged(tags: tuple[int, ...], contents: Write, remembered: bool) -> Write:
    """Return a writer that puts `tags` before the contents of a value."""

    def write(value: Any) -> bytes:
        data = contents(value)
        return der.headers_around(len(data), tags) + data

    return lru_cache(maxsize=_MAX_REMEMBERED)(write) if remembered else write


def _flags(value: int) -> bytes:
    if not 0 <= value < 1 << 32:
        raise ValueError(f"flags must be a 32-bit number, got {value}")
    return der.KerberosFlags().encode(value)


#: A type of pyasn1, the writer of our value's contents, and whether the result is remembered. The
#: first row that fits a spec is used.
_LEAVES: tuple[tuple[type, Callable[[Any], bytes], bool], ...] = (
    (useful.GeneralizedTime, der.KerberosTime().encode, True),
    (char.GeneralString, der.GeneralString().encode, True),
    (univ.BitString, _flags, True),
    (univ.Boolean, der.Boolean().encode, True),
    (asn1.UInt32, der.UINT32.encode, True),  # impacket's has no bounds
    (univ.Integer, der.Integer(-(1 << 63), (1 << 63) - 1).encode, True),
    (univ.OctetString, der.OctetString().encode, False),
)
