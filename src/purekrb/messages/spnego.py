"""The tokens of SPNEGO as records on the DER codec. Source: RFC 4178 4, MS-SPNG 2.2.1.

A mechanism is the DER contents of its OID, as bytes. An absent OPTIONAL field is None. The ASN.1
ends in "...", but no field was ever added. So a token with unknown fields is refused as malformed.
"""

from __future__ import annotations

from purekrb.messages.der import (
    Context,
    Enumerated,
    Field,
    GeneralString,
    KerberosFlags,
    Message,
    ObjectIdentifier,
    OctetString,
    Sequence,
    SequenceOf,
    tlv,
)
from purekrb.messages.layouts import Recurring, Remembered
from purekrb.records import record

__all__ = [
    "NegTokenInit",
    "NegTokenInit2",
    "NegHints",
    "NegTokenResp",
    "MAX_MECHANISMS",
    "encode_mech_types",
]

#: The most mechanisms of an offer. Windows offers four, MIT krb5 up to eight.
MAX_MECHANISMS = 64

_OCTETS = OctetString()
_OID = ObjectIdentifier()
# Each program sends the same list again and again.
_MECH_TYPES = Remembered(SequenceOf(_OID, MAX_MECHANISMS))
_FIRST_FIELDS = (
    Field(0, "mech_types", _MECH_TYPES),
    Field(1, "req_flags", Remembered(KerberosFlags()), optional=True),
    Field(2, "mech_token", _OCTETS, optional=True),
)


def encode_mech_types(mech_types: tuple[bytes, ...]) -> bytes:
    """Return the bytes that a mechListMIC signs. Source: RFC 4178 5.

    MechTypeList ::= SEQUENCE OF MechType, without the tag of its field.
    """
    return tlv(_MECH_TYPES.tag, _MECH_TYPES.encode(mech_types))


@record
class NegTokenInit(Recurring):
    """NegTokenInit ::= SEQUENCE { mechTypes [0] MechTypeList, reqFlags [1] ContextFlags OPTIONAL,
    mechToken [2] OCTET STRING OPTIONAL, mechListMIC [3] OCTET STRING OPTIONAL }, under [0] of
    NegotiationToken
    """

    mech_types: tuple[bytes, ...]
    req_flags: int | None = None
    mech_token: bytes | None = None
    mech_list_mic: bytes | None = None


NegTokenInit.schema = Context(
    0, Sequence(NegTokenInit, *_FIRST_FIELDS, Field(3, "mech_list_mic", _OCTETS, optional=True))
)


@record
class NegHints(Message):
    """NegHints ::= SEQUENCE {
    hintName [0] GeneralString OPTIONAL, hintAddress [1] OCTET STRING OPTIONAL }
    """

    hint_name: str | None = None
    hint_address: bytes | None = None


NegHints.schema = Sequence(
    NegHints,
    Field(0, "hint_name", GeneralString(), optional=True),
    Field(1, "hint_address", _OCTETS, optional=True),
)


@record
class NegTokenInit2(Recurring):
    """NegTokenInit2 ::= SEQUENCE {
    mechTypes [0], reqFlags [1] and mechToken [2] as in NegTokenInit,
    negHints [3] NegHints OPTIONAL, mechListMIC [4] OCTET STRING OPTIONAL }

    The first token of an acceptor that speaks first. Source: MS-SPNG 2.2.1.
    """

    mech_types: tuple[bytes, ...]
    req_flags: int | None = None
    mech_token: bytes | None = None
    neg_hints: NegHints | None = None
    mech_list_mic: bytes | None = None


NegTokenInit2.schema = Context(
    0,
    Sequence(
        NegTokenInit2,
        *_FIRST_FIELDS,
        Field(3, "neg_hints", NegHints.schema, optional=True),
        Field(4, "mech_list_mic", _OCTETS, optional=True),
    ),
)


@record
class NegTokenResp(Recurring):
    """NegTokenResp ::= SEQUENCE {
    negState [0] ENUMERATED OPTIONAL, supportedMech [1] MechType OPTIONAL,
    responseToken [2] OCTET STRING OPTIONAL, mechListMIC [3] OCTET STRING OPTIONAL }, under [1] of
    NegotiationToken
    """

    neg_state: int | None = None
    supported_mech: bytes | None = None
    response_token: bytes | None = None
    mech_list_mic: bytes | None = None


NegTokenResp.schema = Context(
    1,
    Sequence(
        NegTokenResp,
        Field(0, "neg_state", Remembered(Enumerated(0, 3)), optional=True),
        Field(1, "supported_mech", Remembered(_OID), optional=True),
        Field(2, "response_token", _OCTETS, optional=True),
        Field(3, "mech_list_mic", _OCTETS, optional=True),
    ),
)
