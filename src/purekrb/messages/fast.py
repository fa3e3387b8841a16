"""The messages of FAST, which protect those of an AS or TGS exchange. Source: RFC 6113 5.4.

impacket has no specs for them: they are declared and written here. `FxFastRequest` and
`FxFastReply` are the values of PA-FX-FAST; each is a CHOICE with one alternative.
"""

from __future__ import annotations

from datetime import datetime

from purekrb.keys import EncryptionKey
from purekrb.messages.ap import CHECKSUM, ENCRYPTED_DATA, NAME, Checksum, EncryptedData
from purekrb.messages.der import (
    INT32,
    MICROSECONDS,
    SEQ_NUMBER,
    Any_,
    Context,
    Field,
    GeneralString,
    KerberosFlags,
    KerberosTime,
    Message,
    OctetString,
    Sequence,
)
from purekrb.messages.kdc import PADATA, PaData
from purekrb.messages.layouts import Key
from purekrb.names import PrincipalName
from purekrb.records import record

__all__ = [
    "ARMOR_AP_REQUEST",
    "FastArmor",
    "FastFinished",
    "FastReq",
    "FastResponse",
    "FxFastReply",
    "FxFastRequest",
]

#: FX_FAST_ARMOR_AP_REQUEST, the armor-type of an AP-REQ. Source: RFC 6113 5.4.1.1.
ARMOR_AP_REQUEST = 1


@record
class FastArmor(Message):
    """KrbFastArmor ::= SEQUENCE { armor-type [0] Int32, armor-value [1] OCTET STRING }"""

    armor_type: int
    armor_value: bytes


FastArmor.schema = Sequence(
    FastArmor, Field(0, "armor_type", INT32), Field(1, "armor_value", OctetString())
)


@record
class FastReq(Message):
    """KrbFastReq ::= SEQUENCE {
    fast-options [0] FastOptions, padata [1] SEQUENCE OF PA-DATA, req-body [2] KDC-REQ-BODY }

    `req_body` holds the DER bytes of the body.
    """

    fast_options: int
    padata: tuple[PaData, ...]
    req_body: bytes


FastReq.schema = Sequence(
    FastReq,
    Field(0, "fast_options", KerberosFlags()),
    Field(1, "padata", PADATA),
    Field(2, "req_body", Any_(0x30)),
)


@record
class FxFastRequest(Message):
    """PA-FX-FAST-REQUEST ::= CHOICE { armored-data [0] KrbFastArmoredReq }, where

    KrbFastArmoredReq ::= SEQUENCE { armor [0] KrbFastArmor OPTIONAL, req-checksum [1] Checksum,
    enc-fast-req [2] EncryptedData }
    """

    armor: FastArmor | None
    req_checksum: Checksum
    enc_fast_req: EncryptedData


FxFastRequest.schema = Context(
    0,
    Sequence(
        FxFastRequest,
        Field(0, "armor", FastArmor.schema, optional=True),
        Field(1, "req_checksum", CHECKSUM),
        Field(2, "enc_fast_req", ENCRYPTED_DATA),
    ),
)


@record
class FxFastReply(Message):
    """PA-FX-FAST-REPLY ::= CHOICE { armored-data [0] KrbFastArmoredRep }, where

    KrbFastArmoredRep ::= SEQUENCE { enc-fast-rep [0] EncryptedData }
    """

    enc_fast_rep: EncryptedData


FxFastReply.schema = Context(0, Sequence(FxFastReply, Field(0, "enc_fast_rep", ENCRYPTED_DATA)))


@record
class FastFinished(Message):
    """KrbFastFinished ::= SEQUENCE {
    timestamp [0] KerberosTime, usec [1] Microseconds, crealm [2] Realm, cname [3] PrincipalName,
    ticket-checksum [4] Checksum }
    """

    timestamp: datetime
    usec: int
    crealm: str
    cname: PrincipalName
    ticket_checksum: Checksum


FastFinished.schema = Sequence(
    FastFinished,
    Field(0, "timestamp", KerberosTime()),
    Field(1, "usec", MICROSECONDS),
    Field(2, "crealm", GeneralString()),
    Field(3, "cname", NAME),
    Field(4, "ticket_checksum", CHECKSUM),
)


@record
class FastResponse(Message):
    """KrbFastResponse ::= SEQUENCE {
    padata [0] SEQUENCE OF PA-DATA, strengthen-key [1] EncryptionKey OPTIONAL,
    finished [2] KrbFastFinished OPTIONAL, nonce [3] UInt32 }
    """

    padata: tuple[PaData, ...]
    strengthen_key: EncryptionKey | None
    finished: FastFinished | None
    nonce: int


FastResponse.schema = Sequence(
    FastResponse,
    Field(0, "padata", PADATA),
    Field(1, "strengthen_key", Key(), optional=True),
    Field(2, "finished", FastFinished.schema, optional=True),
    Field(3, "nonce", SEQ_NUMBER),
)
