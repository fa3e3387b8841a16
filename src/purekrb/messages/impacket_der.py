"""The DER bytes of what a client sends to a KDC, as impacket's ASN.1 specs and pyasn1 write them.

A spec is walked once, and becomes a function from a dataclass to bytes: tags, order and constraints are impacket's, and
each value is encoded by pyasn1. No request clones a spec, as filling impacket's own objects would, and what comes again
in every request (names, options, encryption types) is remembered: together this makes writing ten times as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from impacket.krb5 import asn1
from pyasn1.codec.ber.encoder import AbstractItemEncoder
from pyasn1.codec.der import encoder
from pyasn1.error import PyAsn1Error
from pyasn1.type import char, univ, useful

from purekrb.errors import DecodeError
from purekrb.messages import der

__all__ = ["encode"]

#: Fields whose attribute is not their ASN.1 name in snake_case.
_ATTRIBUTES = {"from": "from_", "name-string": "components"}
_ANY_INTEGER = der.Integer(-(1 << 63), (1 << 63) - 1)

Write = Callable[[Any], bytes]


def encode(spec: str, message: Any) -> bytes:
    """Return the DER bytes of `message` by impacket's class `spec`. A SEQUENCE may also be given as its DER bytes.

    Raises ValueError for a value that its field cannot hold.
    """
    try:
        return _compiled(spec)(message)
    except (PyAsn1Error, DecodeError):  # whose text may quote the value
        failure = ValueError(f"this {spec} has a value that its ASN.1 does not allow")
    raise failure


@cache
def _compiled(spec: str) -> Write:
    return _writer(getattr(asn1, spec)())


class _IntegerEncoder(AbstractItemEncoder):  # type: ignore[misc]  # pyasn1 has no types
    """INTEGER in its shortest form, also for -128, -32768 ..., to which pyasn1 gives a byte too many."""

    def encodeValue(self, value: Any, asn1Spec: Any, encodeFun: Any, **options: Any) -> tuple[bytes, bool, bool]:  # noqa: N802, N803
        return _ANY_INTEGER.encode(int(value)), False, True


_to_der = encoder.Encoder(typeMap={**encoder.TYPE_MAP, univ.Integer.typeId: _IntegerEncoder()})


def _writer(spec: Any) -> Write:
    """Return what writes values of `spec`, with all its tags."""
    if isinstance(spec, univ.Sequence):
        return _sequence(spec)
    if isinstance(spec, univ.SequenceOf):
        item, tags = _writer(spec.componentType), _tags(spec)
        return lambda values: _wrap(tags, b"".join(map(item, values)))
    convert, remembered = next((leaf[1], leaf[2]) for leaf in _LEAVES if isinstance(spec, leaf[0]))

    def leaf(value: Any) -> bytes:
        data: bytes = _to_der(spec.clone(convert(value)))
        return data

    return lru_cache(maxsize=64)(leaf) if remembered else leaf


def _sequence(spec: Any) -> Write:
    fields = [
        (_ATTRIBUTES.get(named.name, named.name.replace("-", "_")), _writer(named.asn1Object), named.isOptional)
        for named in spec.componentType.namedTypes
    ]
    tags = _tags(spec)
    context = [tag for tag in tags if tag & 0xC0 == 0x80]  # of the field that it stands in
    own = tags[: len(tags) - len(context)]
    element = der.Any_(own[-1])

    def write(value: Any) -> bytes:
        if isinstance(value, bytes):
            return _wrap([own[-1], *context], element.encode(value))
        parts = []
        for attribute, field, optional in fields:
            item = getattr(value, attribute)
            if item is not None:
                parts.append(field(item))
            elif not optional:
                raise ValueError(f"field {attribute} is required")
        return _wrap(tags, b"".join(parts))

    return write


def _tags(spec: Any) -> list[int]:
    """Return the tags of a constructed type, the innermost first."""
    return [tag.tagClass | tag.tagFormat | tag.tagId for tag in spec.tagSet.superTags]


def _wrap(tags: list[int], contents: bytes) -> bytes:
    for tag in tags:
        contents = der.tlv(tag, contents)
    return contents


def _flags(value: int) -> str:
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{value} are not 32 flags")
    return f"0x{int(value):08x}"


def _unsigned(value: int) -> int:
    der.UINT32.encode(value)  # impacket's UInt32 has no bounds
    return int(value)


#: pyasn1's type, what makes of our value one that it takes, and whether the result is remembered; the first one fits.
_LEAVES: tuple[tuple[type, Callable[[Any], Any], bool], ...] = (
    (useful.GeneralizedTime, lambda value: der.KerberosTime().encode(value).decode(), True),
    (char.GeneralString, der.GeneralString().encode, True),
    (univ.BitString, _flags, True),
    (univ.Boolean, bool, True),
    (asn1.UInt32, _unsigned, True),
    (univ.Integer, int, True),
    (univ.OctetString, bytes, False),
)
