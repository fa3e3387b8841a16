"""The messages of security contexts, as records on the DER codec. Source: RFC 4120 5.3 to 5.9.

Field names are those of the ASN.1 in snake_case. Each docstring is its ASN.1. Times are aware UTC
datetimes in whole seconds. Flags are ints (`TicketFlags`, `ApOptions`). An absent OPTIONAL field is
None. Nothing here encrypts.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

from purekrb.constants import MessageType
from purekrb.keys import EncryptionKey
from purekrb.messages.der import (
    INT32,
    MICROSECONDS,
    SEQ_NUMBER,
    Any_,
    Application,
    Field,
    GeneralString,
    KerberosFlags,
    KerberosTime,
    Message,
    OctetString,
    Sequence,
    SequenceOf,
)
from purekrb.messages.layouts import Key, Labelled, Recurring, Remembered
from purekrb.names import Principal, PrincipalName
from purekrb.records import record

__all__ = [
    "EncryptedData",
    "Checksum",
    "HostAddress",
    "AuthorizationDataEntry",
    "AuthorizationData",
    "EtypeList",
    "Ticket",
    "TransitedEncoding",
    "EncTicketPart",
    "ApReq",
    "Authenticator",
    "ApRep",
    "EncApRepPart",
    "KrbCred",
    "KrbCredInfo",
    "EncKrbCredPart",
    "KrbError",
    "MAX_ENTRIES",
]

#: The protocol version of all messages. Source: RFC 4120 5.4.1.
PVNO = 5
#: The most addresses, authorization data, tickets or name components; real messages have fewer.
MAX_ENTRIES = 256

_INT32 = Remembered(INT32)
_STRING = Remembered(GeneralString())
_OCTETS = OctetString()
_TIME = Remembered(KerberosTime())
_FLAGS = Remembered(KerberosFlags())
_KEY = Key()
TICKET_TAG = 0x61


def _name(name_type: int, components: tuple[str, ...]) -> PrincipalName:
    return PrincipalName(components, name_type)


class _Name(Remembered):
    """PrincipalName. Equal names may differ in their type, so their fields are the cache's key."""

    def __init__(self) -> None:
        fields = (
            Field(0, "name_type", INT32),
            Field(1, "components", SequenceOf(_STRING, MAX_ENTRIES)),
        )
        inner = Sequence(_name, *fields)
        super().__init__(inner)
        encoded = lru_cache(maxsize=256)(
            lambda components, name_type: inner.encode(_name(name_type, components))
        )
        self.encode = lambda name: encoded(name.components, name.name_type)


NAME = _Name()


@record
class EncryptedData(Message):
    """EncryptedData ::= SEQUENCE {
    etype [0] Int32, kvno [1] UInt32 OPTIONAL, cipher [2] OCTET STRING }
    """

    etype: int
    kvno: int | None
    cipher: bytes


ENCRYPTED_DATA = EncryptedData.schema = Labelled(
    EncryptedData,
    Field(0, "etype", INT32),
    Field(1, "kvno", SEQ_NUMBER, optional=True),
    Field(2, "cipher", _OCTETS),
)


@record
class Checksum(Message):
    """Checksum ::= SEQUENCE { cksumtype [0] Int32, checksum [1] OCTET STRING }"""

    cksumtype: int
    checksum: bytes


CHECKSUM = Checksum.schema = Labelled(
    Checksum, Field(0, "cksumtype", INT32), Field(1, "checksum", _OCTETS)
)


@record
class HostAddress(Message):
    """HostAddress ::= SEQUENCE { addr-type [0] Int32, address [1] OCTET STRING }"""

    addr_type: int
    address: bytes


ADDRESS = HostAddress.schema = Labelled(
    HostAddress, Field(0, "addr_type", INT32), Field(1, "address", _OCTETS)
)
ADDRESSES = SequenceOf(ADDRESS, MAX_ENTRIES)


@record
class AuthorizationDataEntry(Message):
    """One element of AuthorizationData: SEQUENCE { ad-type [0] Int32, ad-data [1] OCTET STRING }"""

    ad_type: int
    ad_data: bytes


AuthorizationDataEntry.schema = Labelled(
    AuthorizationDataEntry, Field(0, "ad_type", INT32), Field(1, "ad_data", _OCTETS)
)
_AUTHORIZATION_DATA = SequenceOf(AuthorizationDataEntry.schema, MAX_ENTRIES)


class ListOf:
    """A SEQUENCE OF or SET OF that is a whole message, as a Message with one field `entries`."""

    def __init__(self, make: type, inner: SequenceOf) -> None:
        self.make, self.inner, self.tag = make, inner, inner.tag

    def decode(self, contents: bytes) -> object:
        return self.make(self.inner.decode(contents))

    def encode(self, value: Any) -> bytes:
        return self.inner.encode(value.entries)


@record
class AuthorizationData(Message):
    """AuthorizationData ::= SEQUENCE OF SEQUENCE { ad-type [0] Int32, ad-data [1] OCTET STRING }

    These are also the contents of AD-IF-RELEVANT (RFC 4120 5.2.6.1).
    """

    entries: tuple[AuthorizationDataEntry, ...]


AuthorizationData.schema = ListOf(AuthorizationData, _AUTHORIZATION_DATA)


@record
class EtypeList(Message):
    """EtypeList ::= SEQUENCE OF Int32

    The initiator's session-key etypes, in order of preference. Source: RFC 4537 3.
    """

    entries: tuple[int, ...]


EtypeList.schema = ListOf(EtypeList, SequenceOf(INT32, MAX_ENTRIES))


@record
class Ticket(Recurring):
    """Ticket ::= [APPLICATION 1] SEQUENCE {
    tkt-vno [0] INTEGER (5), realm [1] Realm, sname [2] PrincipalName, enc-part [3] EncryptedData }
    """

    tkt_vno: int
    realm: str
    sname: PrincipalName
    enc_part: EncryptedData


Ticket.schema = Application(
    1,
    Sequence(
        Ticket,
        Field(0, "tkt_vno", _INT32),
        Field(1, "realm", _STRING),
        Field(2, "sname", NAME),
        Field(3, "enc_part", EncryptedData.schema),
    ),
)


@record
class TransitedEncoding(Message):
    """TransitedEncoding ::= SEQUENCE { tr-type [0] Int32, contents [1] OCTET STRING }"""

    tr_type: int
    contents: bytes


TransitedEncoding.schema = Labelled(
    TransitedEncoding, Field(0, "tr_type", INT32), Field(1, "contents", _OCTETS)
)


@record
class EncTicketPart(Recurring):
    """EncTicketPart ::= [APPLICATION 3] SEQUENCE {
    flags [0] TicketFlags, key [1] EncryptionKey, crealm [2] Realm, cname [3] PrincipalName,
    transited [4] TransitedEncoding, authtime [5] KerberosTime, starttime [6] KerberosTime OPTIONAL,
    endtime [7] KerberosTime, renew-till [8] KerberosTime OPTIONAL,
    caddr [9] HostAddresses OPTIONAL, authorization-data [10] AuthorizationData OPTIONAL }
    """

    flags: int
    key: EncryptionKey
    crealm: str
    cname: PrincipalName
    transited: TransitedEncoding
    authtime: datetime
    starttime: datetime | None
    endtime: datetime
    renew_till: datetime | None
    caddr: tuple[HostAddress, ...] | None
    authorization_data: tuple[AuthorizationDataEntry, ...] | None


EncTicketPart.schema = Application(
    3,
    Sequence(
        EncTicketPart,
        Field(0, "flags", _FLAGS),
        Field(1, "key", _KEY),
        Field(2, "crealm", _STRING),
        Field(3, "cname", NAME),
        Field(4, "transited", Remembered(TransitedEncoding.schema)),
        Field(5, "authtime", _TIME),
        Field(6, "starttime", _TIME, optional=True),
        Field(7, "endtime", _TIME),
        Field(8, "renew_till", _TIME, optional=True),
        Field(9, "caddr", ADDRESSES, optional=True),
        Field(10, "authorization_data", _AUTHORIZATION_DATA, optional=True),
    ),
)


@record
class ApReq(Recurring):
    """AP-REQ ::= [APPLICATION 14] SEQUENCE {
    pvno [0] INTEGER (5), msg-type [1] INTEGER (14), ap-options [2] APOptions, ticket [3] Ticket,
    authenticator [4] EncryptedData }

    `ticket` holds the DER bytes of the Ticket, as issued by the KDC.
    """

    pvno: int
    msg_type: int
    ap_options: int
    ticket: bytes
    authenticator: EncryptedData


ApReq.schema = Application(
    14,
    Sequence(
        ApReq,
        Field(0, "pvno", _INT32),
        Field(1, "msg_type", _INT32),
        Field(2, "ap_options", _FLAGS),
        Field(3, "ticket", Any_(TICKET_TAG)),
        Field(4, "authenticator", EncryptedData.schema),
    ),
)


@record
class Authenticator(Recurring):
    """Authenticator ::= [APPLICATION 2] SEQUENCE {
    authenticator-vno [0] INTEGER (5), crealm [1] Realm, cname [2] PrincipalName,
    cksum [3] Checksum OPTIONAL, cusec [4] Microseconds, ctime [5] KerberosTime,
    subkey [6] EncryptionKey OPTIONAL, seq-number [7] UInt32 OPTIONAL,
    authorization-data [8] AuthorizationData OPTIONAL }
    """

    authenticator_vno: int
    crealm: str
    cname: PrincipalName
    cksum: Checksum | None
    cusec: int
    ctime: datetime
    subkey: EncryptionKey | None
    seq_number: int | None
    authorization_data: tuple[AuthorizationDataEntry, ...] | None


Authenticator.schema = Application(
    2,
    Sequence(
        Authenticator,
        Field(0, "authenticator_vno", _INT32),
        Field(1, "crealm", _STRING),
        Field(2, "cname", NAME),
        Field(3, "cksum", Checksum.schema, optional=True),
        Field(4, "cusec", MICROSECONDS),
        Field(5, "ctime", _TIME),
        Field(6, "subkey", _KEY, optional=True),
        Field(7, "seq_number", SEQ_NUMBER, optional=True),
        Field(8, "authorization_data", Remembered(_AUTHORIZATION_DATA), optional=True),
    ),
)


@record
class ApRep(Recurring):
    """AP-REP ::= [APPLICATION 15] SEQUENCE {
    pvno [0] INTEGER (5), msg-type [1] INTEGER (15), enc-part [2] EncryptedData }
    """

    pvno: int
    msg_type: int
    enc_part: EncryptedData


ApRep.schema = Application(
    15,
    Sequence(
        ApRep,
        Field(0, "pvno", _INT32),
        Field(1, "msg_type", _INT32),
        Field(2, "enc_part", EncryptedData.schema),
    ),
)


@record
class EncApRepPart(Recurring):
    """EncAPRepPart ::= [APPLICATION 27] SEQUENCE {
    ctime [0] KerberosTime, cusec [1] Microseconds, subkey [2] EncryptionKey OPTIONAL,
    seq-number [3] UInt32 OPTIONAL }
    """

    ctime: datetime
    cusec: int
    subkey: EncryptionKey | None
    seq_number: int | None


EncApRepPart.schema = Application(
    27,
    Sequence(
        EncApRepPart,
        Field(0, "ctime", _TIME),
        Field(1, "cusec", MICROSECONDS),
        Field(2, "subkey", _KEY, optional=True),
        Field(3, "seq_number", SEQ_NUMBER, optional=True),
    ),
)


@record
class KrbCred(Message):
    """KRB-CRED ::= [APPLICATION 22] SEQUENCE {
    pvno [0] INTEGER (5), msg-type [1] INTEGER (22), tickets [2] SEQUENCE OF Ticket,
    enc-part [3] EncryptedData }

    `tickets` holds the DER bytes of each Ticket.
    """

    pvno: int
    msg_type: int
    tickets: tuple[bytes, ...]
    enc_part: EncryptedData


KrbCred.schema = Application(
    22,
    Sequence(
        KrbCred,
        Field(0, "pvno", _INT32),
        Field(1, "msg_type", _INT32),
        Field(2, "tickets", SequenceOf(Any_(TICKET_TAG), MAX_ENTRIES)),
        Field(3, "enc_part", EncryptedData.schema),
    ),
)


@record
class KrbCredInfo(Message):
    """KrbCredInfo ::= SEQUENCE {
    key [0] EncryptionKey, prealm [1] Realm OPTIONAL, pname [2] PrincipalName OPTIONAL,
    flags [3] TicketFlags OPTIONAL, authtime [4] KerberosTime OPTIONAL,
    starttime [5] KerberosTime OPTIONAL, endtime [6] KerberosTime OPTIONAL,
    renew-till [7] KerberosTime OPTIONAL, srealm [8] Realm OPTIONAL,
    sname [9] PrincipalName OPTIONAL, caddr [10] HostAddresses OPTIONAL }
    """

    key: EncryptionKey
    prealm: str | None
    pname: PrincipalName | None
    flags: int | None
    authtime: datetime | None
    starttime: datetime | None
    endtime: datetime | None
    renew_till: datetime | None
    srealm: str | None
    sname: PrincipalName | None
    caddr: tuple[HostAddress, ...] | None


KrbCredInfo.schema = Sequence(
    KrbCredInfo,
    Field(0, "key", _KEY),
    Field(1, "prealm", _STRING, optional=True),
    Field(2, "pname", NAME, optional=True),
    Field(3, "flags", _FLAGS, optional=True),
    Field(4, "authtime", _TIME, optional=True),
    Field(5, "starttime", _TIME, optional=True),
    Field(6, "endtime", _TIME, optional=True),
    Field(7, "renew_till", _TIME, optional=True),
    Field(8, "srealm", _STRING, optional=True),
    Field(9, "sname", NAME, optional=True),
    Field(10, "caddr", ADDRESSES, optional=True),
)


@record
class EncKrbCredPart(Message):
    """EncKrbCredPart ::= [APPLICATION 29] SEQUENCE {
    ticket-info [0] SEQUENCE OF KrbCredInfo, nonce [1] UInt32 OPTIONAL,
    timestamp [2] KerberosTime OPTIONAL, usec [3] Microseconds OPTIONAL,
    s-address [4] HostAddress OPTIONAL, r-address [5] HostAddress OPTIONAL }
    """

    ticket_info: tuple[KrbCredInfo, ...]
    nonce: int | None
    timestamp: datetime | None
    usec: int | None
    s_address: HostAddress | None
    r_address: HostAddress | None


EncKrbCredPart.schema = Application(
    29,
    Sequence(
        EncKrbCredPart,
        Field(0, "ticket_info", SequenceOf(KrbCredInfo.schema, MAX_ENTRIES)),
        Field(1, "nonce", SEQ_NUMBER, optional=True),
        Field(2, "timestamp", _TIME, optional=True),
        Field(3, "usec", MICROSECONDS, optional=True),
        Field(4, "s_address", HostAddress.schema, optional=True),
        Field(5, "r_address", HostAddress.schema, optional=True),
    ),
)


@record
class KrbError(Message):
    """KRB-ERROR ::= [APPLICATION 30] SEQUENCE {
    pvno [0] INTEGER (5), msg-type [1] INTEGER (30), ctime [2] KerberosTime OPTIONAL,
    cusec [3] Microseconds OPTIONAL, stime [4] KerberosTime, susec [5] Microseconds,
    error-code [6] Int32, crealm [7] Realm OPTIONAL, cname [8] PrincipalName OPTIONAL,
    realm [9] Realm, sname [10] PrincipalName, e-text [11] KerberosString OPTIONAL,
    e-data [12] OCTET STRING OPTIONAL }
    """

    pvno: int
    msg_type: int
    ctime: datetime | None
    cusec: int | None
    stime: datetime
    susec: int
    error_code: int
    crealm: str | None
    cname: PrincipalName | None
    realm: str
    sname: PrincipalName
    e_text: str | None
    e_data: bytes | None

    @classmethod
    def of(
        cls, code: int, moment: datetime, server: Principal, e_data: bytes | None = None
    ) -> KrbError:
        """Return the error of `server` at `moment`, which says no more than it must."""
        return cls(
            pvno=PVNO,
            msg_type=MessageType.KRB_ERROR,
            ctime=None,
            cusec=None,
            stime=moment.replace(microsecond=0),
            susec=moment.microsecond,
            error_code=code,
            crealm=None,
            cname=None,
            realm=server.realm,
            sname=server.name,
            e_text=None,
            e_data=e_data,
        )


KrbError.schema = Application(
    30,
    Sequence(
        KrbError,
        Field(0, "pvno", _INT32),
        Field(1, "msg_type", _INT32),
        Field(2, "ctime", _TIME, optional=True),
        Field(3, "cusec", MICROSECONDS, optional=True),
        Field(4, "stime", _TIME),
        Field(5, "susec", MICROSECONDS),
        Field(6, "error_code", INT32),
        Field(7, "crealm", _STRING, optional=True),
        Field(8, "cname", NAME, optional=True),
        Field(9, "realm", _STRING),
        Field(10, "sname", NAME),
        Field(11, "e_text", _STRING, optional=True),
        Field(12, "e_data", _OCTETS, optional=True),
    ),
)
