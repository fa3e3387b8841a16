"""The messages of SPAKE pre-authentication. Source: RFC 9588 3, 4.

impacket has no specs for them: they are declared and written here. A PA-SPAKE is a CHOICE, of which
each alternative is a class; `decode_pa_spake` reads any of them.
"""

from __future__ import annotations

from purekrb.errors import DecodeError
from purekrb.messages.ap import ENCRYPTED_DATA, EncryptedData
from purekrb.messages.der import INT32, Context, Field, Message, OctetString, Sequence, SequenceOf
from purekrb.records import record

__all__ = [
    "SF_NONE",
    "SpakeChallenge",
    "SpakeResponse",
    "SpakeSecondFactor",
    "SpakeSupport",
    "decode_pa_spake",
]

#: The second factor that is none. Source: RFC 9588 12.1.
SF_NONE = 1
#: The most groups and factors; real messages have fewer.
_MAX_ENTRIES = 64


@record
class SpakeSupport(Message):
    """PA-SPAKE ::= CHOICE { support [0] SPAKESupport ... }, where

    SPAKESupport ::= SEQUENCE { groups [0] SEQUENCE OF Int32 }
    """

    groups: tuple[int, ...]


SpakeSupport.schema = Context(
    0, Sequence(SpakeSupport, Field(0, "groups", SequenceOf(INT32, _MAX_ENTRIES)))
)


@record
class SpakeSecondFactor(Message):
    """SPAKESecondFactor ::= SEQUENCE { type [0] Int32, data [1] OCTET STRING OPTIONAL }"""

    type: int
    data: bytes | None


_FACTOR = Sequence(
    SpakeSecondFactor, Field(0, "type", INT32), Field(1, "data", OctetString(), optional=True)
)
SpakeSecondFactor.schema = _FACTOR


@record
class SpakeChallenge(Message):
    """PA-SPAKE ::= CHOICE { ... challenge [1] SPAKEChallenge ... }, where

    SPAKEChallenge ::= SEQUENCE {
    group [0] Int32, pubkey [1] OCTET STRING, factors [2] SEQUENCE OF SPAKESecondFactor }
    """

    group: int
    pubkey: bytes
    factors: tuple[SpakeSecondFactor, ...]


SpakeChallenge.schema = Context(
    1,
    Sequence(
        SpakeChallenge,
        Field(0, "group", INT32),
        Field(1, "pubkey", OctetString()),
        Field(2, "factors", SequenceOf(_FACTOR, _MAX_ENTRIES)),
    ),
)


@record
class SpakeResponse(Message):
    """PA-SPAKE ::= CHOICE { ... response [2] SPAKEResponse ... }, where

    SPAKEResponse ::= SEQUENCE { pubkey [0] OCTET STRING, factor [1] EncryptedData }
    """

    pubkey: bytes
    factor: EncryptedData


SpakeResponse.schema = Context(
    2,
    Sequence(SpakeResponse, Field(0, "pubkey", OctetString()), Field(1, "factor", ENCRYPTED_DATA)),
)

_CHOICES: dict[bytes, type[SpakeSupport] | type[SpakeChallenge] | type[SpakeResponse]] = {
    b"\xa0": SpakeSupport,
    b"\xa1": SpakeChallenge,
    b"\xa2": SpakeResponse,
}


def decode_pa_spake(value: bytes) -> SpakeSupport | SpakeChallenge | SpakeResponse:
    """Return the message in a PA-SPAKE. Raises DecodeError."""
    kind = _CHOICES.get(value[:1])
    if kind is None:
        raise DecodeError("a PA-SPAKE is neither support, nor challenge, nor response")
    return kind.decode(value)
