"""What a client and a KDC exchange, on impacket's ASN.1 specs and pyasn1. Source: RFC 4120 5.2.7, 5.4, 5.9; RFC 6806.

Each message is a frozen dataclass whose docstring is its ASN.1; `decode` and `encode` go both ways, since the embedded
KDC reads requests and writes replies. pyasn1 is forgiving, so bytes reach it only after `der.check_strict`, and what
it made of them must encode to the same bytes again. Nothing here encrypts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, TypeVar

from impacket.krb5 import asn1
from pyasn1.codec.ber.encoder import AbstractItemEncoder
from pyasn1.codec.cer.encoder import SequenceEncoder
from pyasn1.codec.der import decoder, encoder
from pyasn1.error import PyAsn1Error
from pyasn1.type import tag, univ

from purekrb.constants import MessageType
from purekrb.errors import DecodeError
from purekrb.keys import EncryptionKey
from purekrb.messages import der
from purekrb.messages.ap import EncryptedData, HostAddress, KrbError
from purekrb.names import PrincipalName

__all__ = [
    "PaData",
    "EtypeInfo2Entry",
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
    "decode_method_data",
    "encode_method_data",
    "decode_etype_info2",
    "encode_etype_info2",
]

#: Far above any real message (a reply has about 60 elements), far below what keeps pyasn1 busy for a second.
MAX_ITEMS = 2048
PVNO = 5

_STRING = der.GeneralString()
_TIME = der.KerberosTime()


class _IntegerEncoder(AbstractItemEncoder):  # type: ignore[misc]  # pyasn1 has no types
    """INTEGER in its shortest form, also for -128, -32768 ..., to which pyasn1 gives a byte too many."""

    def encodeValue(self, value: Any, asn1Spec: Any, encodeFun: Any, **options: Any) -> tuple[bytes, bool, bool]:  # noqa: N802, N803
        return _ANY_INTEGER.encode(int(value)), False, True


class _SequenceEncoder(SequenceEncoder):  # type: ignore[misc]  # pyasn1 has no types
    """SEQUENCE with its empty lists, which pyasn1 leaves out: a message that came with one has to encode to itself."""

    omitEmptyOptionals = False  # noqa: N815


_ANY_INTEGER = der.Integer(-(1 << 63), (1 << 63) - 1)
_to_der = encoder.Encoder(
    typeMap={
        **encoder.TYPE_MAP,
        univ.Integer.typeId: _IntegerEncoder(),
        univ.Sequence.typeId: _SequenceEncoder(),
    }
)


class _Type(NamedTuple):
    """How a component of a pyasn1 object becomes a Python value, and how a value gets into its parent at `at`."""

    read: Callable[[Any], Any]
    write: Callable[[Any, Any, Any], None]
    absent: object = None


def _simple(read: Callable[[Any], Any], convert: Callable[[Any], Any]) -> _Type:
    def write(parent: Any, at: Any, value: Any) -> None:
        parent[at] = convert(value)

    return _Type(read, write)


def _integer(kind: der.Integer) -> _Type:
    def read(component: Any) -> int:
        value = int(component)
        if not kind.low <= value <= kind.high:
            raise DecodeError(f"an INTEGER is outside {kind.low}..{kind.high}")
        return value if kind.mask is None else value & kind.mask

    def convert(value: int) -> int:
        if not kind.low <= value <= kind.high:
            raise ValueError(f"{value} is outside {kind.low}..{kind.high}")
        return int(value)

    return _simple(read, convert)


def _octets(component: Any) -> bytes:
    value: bytes = component.asOctets()
    return value


def _read_string(component: Any) -> str:
    raw = _octets(component)
    return _STRING.decode(raw, 0, len(raw))


def _read_time(component: Any) -> datetime:
    raw = _octets(component)
    return _TIME.decode(raw, 0, len(raw))


def _read_flags(component: Any) -> int:
    size, value = len(component), int(component.asInteger())
    return value << 32 - size if size <= 32 else value >> size - 32


def _flags_as_hex(value: int) -> str:
    if not 0 <= value < 1 << 32:
        raise ValueError(f"{value} are not 32 flags")
    return f"0x{int(value):08x}"


def _list(item: _Type, absent: object = None) -> _Type:
    """SEQUENCE OF as a tuple; `absent` is the value that stands for an absent one."""

    def read(component: Any) -> tuple[Any, ...]:
        return tuple(item.read(part) for part in component)

    def write(parent: Any, at: Any, value: tuple[Any, ...]) -> None:
        component = parent[at]
        component.clear()  # makes it a value even when it stays empty
        for i, part in enumerate(value):
            item.write(component, i, part)

    return _Type(read, write, absent)


class _Struct:
    """SEQUENCE as `make(**attributes)`; an attribute is the ASN.1 name in snake_case unless `rename` says otherwise.

    `constants` are components that have one value only, and no attribute.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        fields: dict[str, _Type],
        *,
        rename: dict[str, str] | None = None,
        constants: dict[str, int] | None = None,
    ) -> None:
        self.make = make
        names = rename or {}
        self.fields = [(name, names.get(name, name.replace("-", "_")), kind) for name, kind in fields.items()]
        self.constants = constants or {}

    def read(self, component: Any) -> Any:
        for name, value in self.constants.items():
            if int(component[name]) != value:
                raise DecodeError(f"{name} is {int(component[name])} where {value} belongs")
        values = {}
        for name, attribute, kind in self.fields:
            part = component.getComponentByName(name, default=None, instantiate=False)
            values[attribute] = kind.absent if part is None else kind.read(part)
        return self.make(**values)

    def fill(self, component: Any, value: Any) -> None:
        for name, constant in self.constants.items():
            component[name] = constant
        for name, attribute, kind in self.fields:
            item = getattr(value, attribute)
            if item != kind.absent:
                kind.write(component, name, item)

    @property
    def type(self) -> _Type:
        return _Type(self.read, lambda parent, at, value: self.fill(parent[at], value))


_INT32 = _integer(der.INT32)
_UINT32 = _integer(der.SEQ_NUMBER)  # nonce and kvno too are seen as negative Int32 in the wild
_MICROSECONDS = _integer(der.MICROSECONDS)
_BYTES = _simple(_octets, bytes)
_TEXT = _simple(_read_string, str)
_SALT = _simple(lambda component: _read_string(component).encode(), lambda value: value.decode())
_KERBEROS_TIME = _simple(_read_time, lambda value: _TIME.encode(value).decode())
_FLAGS = _simple(_read_flags, _flags_as_hex)
_BOOLEAN = _simple(bool, bool)
_NAME = _Struct(
    PrincipalName, {"name-type": _INT32, "name-string": _list(_TEXT)}, rename={"name-string": "components"}
).type
_KEY = _Struct(
    EncryptionKey, {"keytype": _INT32, "keyvalue": _BYTES}, rename={"keytype": "etype", "keyvalue": "contents"}
).type
_ENCRYPTED_DATA = _Struct(EncryptedData, {"etype": _INT32, "kvno": _UINT32, "cipher": _BYTES}).type
_ADDRESSES = _list(_Struct(HostAddress, {"addr-type": _INT32, "address": _BYTES}).type)


def _read_element(component: Any) -> bytes:
    """Return the bytes of `component` without its context tag: those that came, or `_read` refuses the message."""
    data: bytes = _to_der(component)
    context, start, _ = der.read_header(data, 0, len(data))
    return data[start:] if context & 0xC0 == 0x80 else data


def _write_element(parent: Any, at: Any, data: bytes) -> None:
    spec = parent[at]
    wrapped = spec.tagSet.superTags[-1]
    if wrapped.tagClass == tag.tagClassContext:
        data = der.tlv(0xA0 | wrapped.tagId, data)
    component, rest = decoder.decode(data, asn1Spec=spec)
    if rest:
        raise ValueError("bytes follow a Ticket")
    parent[at] = component


#: A whole TLV kept as its bytes: a Ticket, or a KDC-REQ-BODY under a checksum.
_ELEMENT = _Type(_read_element, _write_element)


def _read(data: bytes, spec: Any, struct: _Struct | _Type, name: str) -> Any:
    """Return what `data` is. Raises DecodeError, with no word of the data in it: it may hold a key."""
    data = bytes(data)
    der.check_strict(data, max_items=MAX_ITEMS)
    try:
        component, rest = decoder.decode(data, asn1Spec=spec)
        one_form = not rest and _to_der(component) == data
        value = struct.read(component)
    except DecodeError:
        raise
    except Exception as error:  # pyasn1 lets more than its own exceptions out; whichever it is, the bytes are at fault
        failure = f"this is not a well-formed {name} ({type(error).__name__})"
    else:
        if one_form:
            return value
        failure = f"this {name} can be read in more than one way: it is not DER"
    raise DecodeError(failure)  # out here, so that pyasn1's error, which may quote the data, is not its context


def _encode(component: Any, name: str) -> bytes:
    try:
        data: bytes = _to_der(component)
    except PyAsn1Error:
        raise ValueError(f"this {name} has a value that its ASN.1 does not allow") from None
    return data


M = TypeVar("M", bound="_KdcMessage")


class _KdcMessage:
    """Base of all messages here: impacket's spec and the struct that maps it to the dataclass."""

    __slots__ = ()
    spec: ClassVar[Any]
    struct: ClassVar[_Struct]

    @classmethod
    def decode(cls: type[M], data: bytes) -> M:
        """Return the message that `data` is, to the last byte. Raises DecodeError."""
        value: M = _read(data, cls.spec, cls.struct, cls.__name__)
        return value

    def encode(self) -> bytes:
        """Return the DER bytes. Raises ValueError for a value that its field cannot hold."""
        return self._encode_as(self.spec)

    def _encode_as(self, spec: Any) -> bytes:
        component = spec.clone()
        try:
            self.struct.fill(component, self)
        except PyAsn1Error:
            raise ValueError(f"this {type(self).__name__} has a value that its ASN.1 does not allow") from None
        return _encode(component, type(self).__name__)


# -- pre-authentication --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PaData(_KdcMessage):
    """PA-DATA ::= SEQUENCE { padata-type [1] Int32, padata-value [2] OCTET STRING }"""

    padata_type: int
    padata_value: bytes = field(repr=False)


PaData.spec = asn1.PA_DATA()
PaData.struct = _Struct(PaData, {"padata-type": _INT32, "padata-value": _BYTES})
_METHOD_DATA = _list(PaData.struct.type)
_PADATA = _list(PaData.struct.type, absent=())


def decode_method_data(data: bytes) -> tuple[PaData, ...]:
    """Return the elements of METHOD-DATA ::= SEQUENCE OF PA-DATA. Raises DecodeError. Source: RFC 4120 5.9.1."""
    value: tuple[PaData, ...] = _read(data, asn1.METHOD_DATA(), _METHOD_DATA, "METHOD-DATA")
    return value


def encode_method_data(entries: tuple[PaData, ...]) -> bytes:
    """Return the DER bytes of METHOD-DATA."""
    return der.tlv(0x30, b"".join(entry.encode() for entry in entries))


@dataclass(frozen=True, slots=True)
class EtypeInfo2Entry(_KdcMessage):
    """ETYPE-INFO2-ENTRY ::= SEQUENCE {
    etype [0] Int32, salt [1] KerberosString OPTIONAL, s2kparams [2] OCTET STRING OPTIONAL }

    `salt` is bytes (UTF-8), as string-to-key takes it; None stands for the default salt.
    """

    etype: int
    salt: bytes | None
    s2kparams: bytes | None


EtypeInfo2Entry.spec = asn1.ETYPE_INFO2_ENTRY()
EtypeInfo2Entry.struct = _Struct(EtypeInfo2Entry, {"etype": _INT32, "salt": _SALT, "s2kparams": _BYTES})
_ETYPE_INFO2 = _list(EtypeInfo2Entry.struct.type)


def decode_etype_info2(data: bytes) -> tuple[EtypeInfo2Entry, ...]:
    """Return the entries of ETYPE-INFO2, in the KDC's order. Raises DecodeError. Source: RFC 4120 5.2.7.5."""
    value: tuple[EtypeInfo2Entry, ...] = _read(data, asn1.ETYPE_INFO2(), _ETYPE_INFO2, "ETYPE-INFO2")
    return value


def encode_etype_info2(entries: tuple[EtypeInfo2Entry, ...]) -> bytes:
    """Return the DER bytes of ETYPE-INFO2."""
    return der.tlv(0x30, b"".join(entry.encode() for entry in entries))


@dataclass(frozen=True, slots=True)
class PaEncTsEnc(_KdcMessage):
    """PA-ENC-TS-ENC ::= SEQUENCE { patimestamp [0] KerberosTime, pausec [1] Microseconds OPTIONAL }"""

    patimestamp: datetime
    pausec: int | None


PaEncTsEnc.spec = asn1.PA_ENC_TS_ENC()
PaEncTsEnc.struct = _Struct(PaEncTsEnc, {"patimestamp": _KERBEROS_TIME, "pausec": _MICROSECONDS})


@dataclass(frozen=True, slots=True)
class PaPacRequest(_KdcMessage):
    """KERB-PA-PAC-REQUEST ::= SEQUENCE { include-pac [0] BOOLEAN }. Source: MS-KILE 2.2.3."""

    include_pac: bool


PaPacRequest.spec = asn1.KERB_PA_PAC_REQUEST()
PaPacRequest.struct = _Struct(PaPacRequest, {"include-pac": _BOOLEAN})


# -- requests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KdcReqBody(_KdcMessage):
    """KDC-REQ-BODY ::= SEQUENCE {
    kdc-options [0] KDCOptions, cname [1] PrincipalName OPTIONAL, realm [2] Realm, sname [3] PrincipalName OPTIONAL,
    from [4] KerberosTime OPTIONAL, till [5] KerberosTime, rtime [6] KerberosTime OPTIONAL, nonce [7] UInt32,
    etype [8] SEQUENCE OF Int32, addresses [9] HostAddresses OPTIONAL,
    enc-authorization-data [10] EncryptedData OPTIONAL, additional-tickets [11] SEQUENCE OF Ticket OPTIONAL }

    `additional_tickets` holds the DER bytes of each Ticket. A body that was decoded encodes to the bytes that came, so
    that a checksum over it can be made and verified (RFC 4120 5.2.7.1, 5.4.1).
    """

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
    _received: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_received", b"")

    @classmethod
    def decode(cls, data: bytes) -> KdcReqBody:
        """Return the body that `data` is. Raises DecodeError."""
        body: KdcReqBody = _read(data, cls.spec, cls.struct, "KDC-REQ-BODY")
        object.__setattr__(body, "_received", bytes(data))
        return body

    def encode(self) -> bytes:
        """Return the DER bytes; those that came, if this was decoded."""
        return self._received or self._encode_as(self.spec)


KdcReqBody.spec = asn1.KDC_REQ_BODY()
KdcReqBody.struct = _Struct(
    KdcReqBody,
    {
        "kdc-options": _FLAGS,
        "cname": _NAME,
        "realm": _TEXT,
        "sname": _NAME,
        "from": _KERBEROS_TIME,
        "till": _KERBEROS_TIME,
        "rtime": _KERBEROS_TIME,
        "nonce": _UINT32,
        "etype": _list(_INT32),
        "addresses": _ADDRESSES,
        "enc-authorization-data": _ENCRYPTED_DATA,
        "additional-tickets": _list(_ELEMENT),
    },
    rename={"from": "from_"},
)


def _write_body(parent: Any, at: Any, body: KdcReqBody) -> None:
    if body._received:
        _write_element(parent, at, body._received)
    else:
        KdcReqBody.struct.fill(parent[at], body)


_BODY = _Type(lambda component: KdcReqBody.decode(_read_element(component)), _write_body)


def _request(make: Callable[..., Any], msg_type: MessageType) -> _Struct:
    return _Struct(make, {"padata": _PADATA, "req-body": _BODY}, constants={"pvno": PVNO, "msg-type": msg_type})


@dataclass(frozen=True, slots=True)
class AsReq(_KdcMessage):
    """AS-REQ ::= [APPLICATION 10] SEQUENCE {
    pvno [1] INTEGER (5), msg-type [2] INTEGER (10), padata [3] SEQUENCE OF PA-DATA OPTIONAL,
    req-body [4] KDC-REQ-BODY }
    """

    padata: tuple[PaData, ...]
    req_body: KdcReqBody


AsReq.spec = asn1.AS_REQ()
AsReq.struct = _request(AsReq, MessageType.AS_REQ)


@dataclass(frozen=True, slots=True)
class TgsReq(_KdcMessage):
    """TGS-REQ ::= [APPLICATION 12] SEQUENCE {
    pvno [1] INTEGER (5), msg-type [2] INTEGER (12), padata [3] SEQUENCE OF PA-DATA OPTIONAL,
    req-body [4] KDC-REQ-BODY }
    """

    padata: tuple[PaData, ...]
    req_body: KdcReqBody


TgsReq.spec = asn1.TGS_REQ()
TgsReq.struct = _request(TgsReq, MessageType.TGS_REQ)


# -- replies -------------------------------------------------------------------------------------------------------


def _reply(make: Callable[..., Any], msg_type: MessageType) -> _Struct:
    fields = {"padata": _PADATA, "crealm": _TEXT, "cname": _NAME, "ticket": _ELEMENT, "enc-part": _ENCRYPTED_DATA}
    return _Struct(make, fields, constants={"pvno": PVNO, "msg-type": msg_type})


@dataclass(frozen=True, slots=True)
class AsRep(_KdcMessage):
    """AS-REP ::= [APPLICATION 11] SEQUENCE {
    pvno [0] INTEGER (5), msg-type [1] INTEGER (11), padata [2] SEQUENCE OF PA-DATA OPTIONAL, crealm [3] Realm,
    cname [4] PrincipalName, ticket [5] Ticket, enc-part [6] EncryptedData }

    `ticket` holds the DER bytes of the Ticket, as they came.
    """

    padata: tuple[PaData, ...]
    crealm: str
    cname: PrincipalName
    ticket: bytes
    enc_part: EncryptedData


AsRep.spec = asn1.AS_REP()
AsRep.struct = _reply(AsRep, MessageType.AS_REP)


@dataclass(frozen=True, slots=True)
class TgsRep(_KdcMessage):
    """TGS-REP ::= [APPLICATION 13] SEQUENCE {
    pvno [0] INTEGER (5), msg-type [1] INTEGER (13), padata [2] SEQUENCE OF PA-DATA OPTIONAL, crealm [3] Realm,
    cname [4] PrincipalName, ticket [5] Ticket, enc-part [6] EncryptedData }

    `ticket` holds the DER bytes of the Ticket, as they came.
    """

    padata: tuple[PaData, ...]
    crealm: str
    cname: PrincipalName
    ticket: bytes
    enc_part: EncryptedData


TgsRep.spec = asn1.TGS_REP()
TgsRep.struct = _reply(TgsRep, MessageType.TGS_REP)


@dataclass(frozen=True, slots=True)
class LastReqEntry:
    """One element of LastReq: SEQUENCE { lr-type [0] Int32, lr-value [1] KerberosTime }"""

    lr_type: int
    lr_value: datetime


@dataclass(frozen=True, slots=True)
class EncKdcRepPart(_KdcMessage):
    """EncASRepPart ::= [APPLICATION 25], EncTGSRepPart ::= [APPLICATION 26] SEQUENCE {
    key [0] EncryptionKey, last-req [1] LastReq, nonce [2] UInt32, key-expiration [3] KerberosTime OPTIONAL,
    flags [4] TicketFlags, authtime [5] KerberosTime, starttime [6] KerberosTime OPTIONAL, endtime [7] KerberosTime,
    renew-till [8] KerberosTime OPTIONAL, srealm [9] Realm, sname [10] PrincipalName, caddr [11] HostAddresses OPTIONAL,
    encrypted-pa-data [12] SEQUENCE OF PA-DATA OPTIONAL }

    Either tag is read in either reply, since some KDCs send 26 in an AS-REP (RFC 4120 5.4.2).
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

    @classmethod
    def decode(cls, data: bytes) -> EncKdcRepPart:
        """Return the decrypted part of an AS-REP or a TGS-REP. Raises DecodeError."""
        spec = _ENC_TGS_REP_PART if data[:1] == b"\x7a" else _ENC_AS_REP_PART
        value: EncKdcRepPart = _read(data, spec, cls.struct, "EncKDCRepPart")
        return value

    def encode(self, msg_type: int = MessageType.AS_REP) -> bytes:
        """Return the DER bytes, tagged for an AS-REP or a TGS-REP."""
        return self._encode_as(_ENC_AS_REP_PART if msg_type == MessageType.AS_REP else _ENC_TGS_REP_PART)


_ENC_AS_REP_PART = asn1.EncASRepPart()
_ENC_TGS_REP_PART = asn1.EncTGSRepPart()
EncKdcRepPart.struct = _Struct(
    EncKdcRepPart,
    {
        "key": _KEY,
        "last-req": _list(_Struct(LastReqEntry, {"lr-type": _INT32, "lr-value": _KERBEROS_TIME}).type),
        "nonce": _UINT32,
        "key-expiration": _KERBEROS_TIME,
        "flags": _FLAGS,
        "authtime": _KERBEROS_TIME,
        "starttime": _KERBEROS_TIME,
        "endtime": _KERBEROS_TIME,
        "renew-till": _KERBEROS_TIME,
        "srealm": _TEXT,
        "sname": _NAME,
        "caddr": _ADDRESSES,
        "encrypted_pa_data": _METHOD_DATA,  # impacket's spelling
    },
)

_KRB_ERROR = _Struct(
    KrbError,
    {
        "pvno": _INT32,
        "msg-type": _INT32,
        "ctime": _KERBEROS_TIME,
        "cusec": _MICROSECONDS,
        "stime": _KERBEROS_TIME,
        "susec": _MICROSECONDS,
        "error-code": _INT32,
        "crealm": _TEXT,
        "cname": _NAME,
        "realm": _TEXT,
        "sname": _NAME,
        "e-text": _TEXT,
        "e-data": _BYTES,
    },
)


def decode_kdc_reply(data: bytes) -> AsRep | TgsRep | KrbError:
    """Return the message that a KDC's reply is. Raises DecodeError for anything but these three."""
    if data[:1] == b"\x6b":
        return AsRep.decode(data)
    if data[:1] == b"\x6d":
        return TgsRep.decode(data)
    if data[:1] != b"\x7e":
        raise DecodeError("the answer is not a Kerberos message: check that a KDC listens at this address and port")
    error: KrbError = _read(data, asn1.KRB_ERROR(), _KRB_ERROR, "KRB-ERROR")
    return error
