"""The messages between a client and a KDC, as records on the DER codec.

Field names are those of the ASN.1 in snake_case. Each docstring is its ASN.1. An absent OPTIONAL
field is None. The schemas here read all messages, and write replies for the embedded KDC. The
messages of a client are written by impacket's specs (`impacket_der`), which are imported for the
first request. Nothing here encrypts. Source: RFC 4120 5.2.7, 5.4, 5.9; RFC 6806.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any, ClassVar

from purekrb.constants import MessageType
from purekrb.errors import DecodeError
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import (
    ADDRESSES,
    ENCRYPTED_DATA,
    MAX_ENTRIES,
    NAME,
    PVNO,
    TICKET_TAG,
    EncryptedData,
    HostAddress,
    KrbError,
    ListOf,
)
from purekrb.messages.der import (
    INT32,
    MICROSECONDS,
    SEQ_NUMBER,
    Any_,
    Application,
    Boolean,
    Field,
    GeneralString,
    Integer,
    KerberosFlags,
    KerberosTime,
    Message,
    OctetString,
    Sequence,
    SequenceOf,
    tlv,
)
from purekrb.messages.layouts import Key, Recurring, Remembered
from purekrb.names import PrincipalName
from purekrb.records import record
from purekrb.tracebacks import forget_frames

__all__ = [
    "PaData",
    "MethodData",
    "EtypeInfo2Entry",
    "EtypeInfo2",
    "PaEncTsEnc",
    "PaPacRequest",
    "KdcReqBody",
    "AsReq",
    "TgsReq",
    "AsRep",
    "TgsRep",
    "LastReqEntry",
    "EncKdcRepPart",
    "decode_kdc_reply",
]

_PVNO = Integer(PVNO, PVNO)
_STRING = Remembered(GeneralString())
_OCTETS = OctetString()
_TIME = Remembered(KerberosTime())
_FLAGS = Remembered(KerberosFlags())
_TICKET = Any_(TICKET_TAG)


class _ClientMessage(Message):
    """Base of a client's messages; `spec` is the name of impacket's class that writes them."""

    __slots__ = ()
    spec: ClassVar[str]

    def encode(self) -> bytes:
        """Return the DER bytes. Raises ValueError for a value that its field cannot hold."""
        from purekrb.messages.impacket_der import encode

        return encode(self.spec, self)


# -- pre-authentication ----------------------------------------------------------------------------


@record
class PaData(Message):
    """PA-DATA ::= SEQUENCE { padata-type [1] Int32, padata-value [2] OCTET STRING }"""

    padata_type: int
    padata_value: bytes

    def __repr__(self) -> str:
        return f"PaData(padata_type={self.padata_type!r})"


PaData.schema = Sequence(PaData, Field(1, "padata_type", INT32), Field(2, "padata_value", _OCTETS))
PADATA = SequenceOf(PaData.schema, MAX_ENTRIES)


@record
class MethodData(Message):
    """METHOD-DATA ::= SEQUENCE OF PA-DATA. Source: RFC 4120 5.9.1."""

    entries: tuple[PaData, ...]


MethodData.schema = ListOf(MethodData, PADATA)


@record
class EtypeInfo2Entry(Message):
    """ETYPE-INFO2-ENTRY ::= SEQUENCE {
    etype [0] Int32, salt [1] KerberosString OPTIONAL, s2kparams [2] OCTET STRING OPTIONAL }

    `salt` is bytes (UTF-8), the form for string-to-key. None means the default salt.
    """

    etype: int
    salt: bytes | None
    s2kparams: bytes | None


class _Salt:
    """KerberosString as the bytes of its UTF-8."""

    tag = GeneralString.tag
    _text = GeneralString()

    def decode(self, contents: bytes) -> bytes:
        return self._text.decode(contents).encode()

    def encode(self, value: bytes) -> bytes:
        return self._text.encode(value.decode())


EtypeInfo2Entry.schema = Sequence(
    EtypeInfo2Entry,
    Field(0, "etype", INT32),
    Field(1, "salt", _Salt(), optional=True),
    Field(2, "s2kparams", _OCTETS, optional=True),
)


@record
class EtypeInfo2(Message):
    """ETYPE-INFO2 ::= SEQUENCE OF ETYPE-INFO2-ENTRY, in the KDC's order. RFC 4120 5.2.7.5."""

    entries: tuple[EtypeInfo2Entry, ...]


EtypeInfo2.schema = ListOf(EtypeInfo2, SequenceOf(EtypeInfo2Entry.schema, MAX_ENTRIES))


@record
class PaEncTsEnc(_ClientMessage):
    """PA-ENC-TS-ENC ::= SEQUENCE {
    patimestamp [0] KerberosTime, pausec [1] Microseconds OPTIONAL }
    """

    spec = "PA_ENC_TS_ENC"
    patimestamp: datetime
    pausec: int | None


PaEncTsEnc.schema = Sequence(
    PaEncTsEnc, Field(0, "patimestamp", _TIME), Field(1, "pausec", MICROSECONDS, optional=True)
)


@record
class PaPacRequest(_ClientMessage):
    """KERB-PA-PAC-REQUEST ::= SEQUENCE { include-pac [0] BOOLEAN }. Source: MS-KILE 2.2.3."""

    spec = "KERB_PA_PAC_REQUEST"
    include_pac: bool


PaPacRequest.schema = Sequence(PaPacRequest, Field(0, "include_pac", Boolean()))


# -- requests --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KdcReqBody(_ClientMessage):
    """KDC-REQ-BODY ::= SEQUENCE {
    kdc-options [0] KDCOptions, cname [1] PrincipalName OPTIONAL, realm [2] Realm,
    sname [3] PrincipalName OPTIONAL, from [4] KerberosTime OPTIONAL, till [5] KerberosTime,
    rtime [6] KerberosTime OPTIONAL, nonce [7] UInt32, etype [8] SEQUENCE OF Int32,
    addresses [9] HostAddresses OPTIONAL, enc-authorization-data [10] EncryptedData OPTIONAL,
    additional-tickets [11] SEQUENCE OF Ticket OPTIONAL }

    `additional_tickets` holds the DER bytes of each Ticket. A decoded body encodes to the received
    bytes, so that a checksum over it can be verified (RFC 4120 5.2.7.1, 5.4.1). A new body is
    encoded only once.
    """

    spec = "KDC_REQ_BODY"
    kdc_options: int
    cname: PrincipalName | None
    realm: str
    sname: PrincipalName | None
    from_: datetime | None
    till: datetime
    rtime: datetime | None
    nonce: int
    etype: tuple[int, ...]
    addresses: tuple[HostAddress, ...] | None = None
    enc_authorization_data: EncryptedData | None = None
    additional_tickets: tuple[bytes, ...] | None = None
    _encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoded", b"")

    def encode(self) -> bytes:
        """Return the DER bytes; for a decoded body, the received bytes. Raises ValueError."""
        encoded = self._encoded
        if not encoded:
            encoded = _ClientMessage.encode(self)
            object.__setattr__(self, "_encoded", encoded)
        return encoded


class _ReceivedBody:
    """KDC-REQ-BODY that keeps its received bytes."""

    tag = 0x30

    def __init__(self, inner: Sequence) -> None:
        self.inner = inner

    def decode(self, contents: bytes) -> KdcReqBody:
        body: KdcReqBody = self.inner.decode(contents)
        object.__setattr__(body, "_encoded", tlv(self.tag, contents))
        return body

    def encode(self, value: KdcReqBody) -> bytes:
        return self.inner.encode(value)


_BODY = KdcReqBody.schema = _ReceivedBody(
    Sequence(
        KdcReqBody,
        Field(0, "kdc_options", _FLAGS),
        Field(1, "cname", NAME, optional=True),
        Field(2, "realm", _STRING),
        Field(3, "sname", NAME, optional=True),
        Field(4, "from_", _TIME, optional=True),
        Field(5, "till", _TIME),
        Field(6, "rtime", _TIME, optional=True),
        Field(7, "nonce", SEQ_NUMBER),  # some send a negative Int32
        Field(8, "etype", SequenceOf(INT32, MAX_ENTRIES)),
        Field(9, "addresses", ADDRESSES, optional=True),
        Field(10, "enc_authorization_data", ENCRYPTED_DATA, optional=True),
        Field(11, "additional_tickets", SequenceOf(_TICKET, MAX_ENTRIES), optional=True),
    )
)


@record
class _KdcReq(_ClientMessage):
    """KDC-REQ ::= SEQUENCE {
    pvno [1] INTEGER (5), msg-type [2] INTEGER, padata [3] SEQUENCE OF PA-DATA OPTIONAL,
    req-body [4] KDC-REQ-BODY }
    """

    pvno: ClassVar[int] = PVNO
    msg_type: ClassVar[MessageType]
    padata: tuple[PaData, ...] | None
    req_body: KdcReqBody

    def encode(self) -> bytes:
        """Return the DER bytes. Raises ValueError for a value that its field cannot hold."""
        from purekrb.messages.impacket_der import encode

        body = self.req_body.encode()  # a received body keeps its bytes
        fields = SimpleNamespace(
            pvno=self.pvno, msg_type=self.msg_type, padata=self.padata, req_body=body
        )
        return encode(self.spec, fields)


class AsReq(_KdcReq):
    """AS-REQ ::= [APPLICATION 10] KDC-REQ"""

    __slots__ = ()
    spec = "AS_REQ"
    msg_type = MessageType.AS_REQ


class TgsReq(_KdcReq):
    """TGS-REQ ::= [APPLICATION 12] KDC-REQ"""

    __slots__ = ()
    spec = "TGS_REQ"
    msg_type = MessageType.TGS_REQ


def _request(make: type[_KdcReq]) -> Application:
    return Application(
        make.msg_type,
        Sequence(
            lambda pvno, msg_type, *rest: make(*rest),
            Field(1, "pvno", _PVNO),
            Field(2, "msg_type", Integer(make.msg_type, make.msg_type)),
            Field(3, "padata", PADATA, optional=True),
            Field(4, "req_body", _BODY),
        ),
    )


AsReq.schema = _request(AsReq)
TgsReq.schema = _request(TgsReq)


# -- replies ---------------------------------------------------------------------------------------


@record
class _KdcRep(Recurring):
    """KDC-REP ::= SEQUENCE {
    pvno [0] INTEGER (5), msg-type [1] INTEGER, padata [2] SEQUENCE OF PA-DATA OPTIONAL,
    crealm [3] Realm, cname [4] PrincipalName, ticket [5] Ticket, enc-part [6] EncryptedData }

    `ticket` holds the received DER bytes of the Ticket.
    """

    pvno: ClassVar[int] = PVNO
    msg_type: ClassVar[MessageType]
    padata: tuple[PaData, ...] | None
    crealm: str
    cname: PrincipalName
    ticket: bytes
    enc_part: EncryptedData


class AsRep(_KdcRep):
    """AS-REP ::= [APPLICATION 11] KDC-REP"""

    __slots__ = ()
    msg_type = MessageType.AS_REP


class TgsRep(_KdcRep):
    """TGS-REP ::= [APPLICATION 13] KDC-REP"""

    __slots__ = ()
    msg_type = MessageType.TGS_REP


def _reply(make: type[_KdcRep]) -> Application:
    return Application(
        make.msg_type,
        Sequence(
            lambda pvno, msg_type, *rest: make(*rest),
            Field(0, "pvno", _PVNO),
            Field(1, "msg_type", Integer(make.msg_type, make.msg_type)),
            Field(2, "padata", PADATA, optional=True),
            Field(3, "crealm", _STRING),
            Field(4, "cname", NAME),
            Field(5, "ticket", _TICKET),
            Field(6, "enc_part", ENCRYPTED_DATA),
        ),
    )


AsRep.schema = _reply(AsRep)
TgsRep.schema = _reply(TgsRep)


@record
class LastReqEntry(Message):
    """One element of LastReq: SEQUENCE { lr-type [0] Int32, lr-value [1] KerberosTime }"""

    lr_type: int
    lr_value: datetime


LastReqEntry.schema = Sequence(
    LastReqEntry, Field(0, "lr_type", INT32), Field(1, "lr_value", _TIME)
)

_AS_PART, _TGS_PART = b"\x79", b"\x7a"  # [APPLICATION 25], [APPLICATION 26]


class _EncKdcRepPart(Recurring):
    """Accepts both tags in either reply: some KDCs send tag 26 in an AS-REP (RFC 4120 5.4.2)."""

    __slots__ = ()

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> Any:
        """Return the decrypted part of an AS-REP or a TGS-REP. Raises DecodeError."""
        return super().decode(_AS_PART + data[1:] if data[:1] == _TGS_PART else data)

    def encode(self, msg_type: int = MessageType.AS_REP) -> bytes:
        """Return the DER bytes, tagged for an AS-REP or a TGS-REP."""
        return (_AS_PART if msg_type == MessageType.AS_REP else _TGS_PART) + super().encode()[1:]


@record
class EncKdcRepPart(_EncKdcRepPart):
    """EncASRepPart ::= [APPLICATION 25], EncTGSRepPart ::= [APPLICATION 26] SEQUENCE {
    key [0] EncryptionKey, last-req [1] LastReq, nonce [2] UInt32,
    key-expiration [3] KerberosTime OPTIONAL, flags [4] TicketFlags, authtime [5] KerberosTime,
    starttime [6] KerberosTime OPTIONAL, endtime [7] KerberosTime,
    renew-till [8] KerberosTime OPTIONAL, srealm [9] Realm, sname [10] PrincipalName,
    caddr [11] HostAddresses OPTIONAL, encrypted-pa-data [12] SEQUENCE OF PA-DATA OPTIONAL }
    """

    key: EncryptionKey
    last_req: tuple[LastReqEntry, ...]
    nonce: int
    key_expiration: datetime | None
    flags: int
    authtime: datetime
    starttime: datetime | None
    endtime: datetime
    renew_till: datetime | None
    srealm: str
    sname: PrincipalName
    caddr: tuple[HostAddress, ...] | None = None
    encrypted_pa_data: tuple[PaData, ...] | None = None


EncKdcRepPart.schema = Application(
    25,
    Sequence(
        EncKdcRepPart,
        Field(0, "key", Key()),
        Field(1, "last_req", SequenceOf(LastReqEntry.schema, MAX_ENTRIES)),
        Field(2, "nonce", SEQ_NUMBER),
        Field(3, "key_expiration", _TIME, optional=True),
        Field(4, "flags", _FLAGS),
        Field(5, "authtime", _TIME),
        Field(6, "starttime", _TIME, optional=True),
        Field(7, "endtime", _TIME),
        Field(8, "renew_till", _TIME, optional=True),
        Field(9, "srealm", _STRING),
        Field(10, "sname", NAME),
        Field(11, "caddr", ADDRESSES, optional=True),
        Field(12, "encrypted_pa_data", PADATA, optional=True),
    ),
)

_REPLIES: dict[bytes, type[AsRep] | type[TgsRep] | type[KrbError]] = {
    b"\x6b": AsRep,
    b"\x6d": TgsRep,
    b"\x7e": KrbError,
}


def decode_kdc_reply(data: bytes) -> AsRep | TgsRep | KrbError:
    """Return the message in a KDC's reply. Raises DecodeError for any other message."""
    kind = _REPLIES.get(bytes(data[:1]))
    if kind is None:
        raise DecodeError(
            "the answer is not a Kerberos message: "
            "check that a KDC listens at this address and port"
        )
    return kind.decode(data)
