"""The messages of PKINIT. Source: RFC 4556 3.2, RFC 8070 4, RFC 8636 5, MS-PKCA 2.2.

impacket has no specs for them: they are declared and written here. The signed data around an
AuthPack and a KDCDHKeyInfo are in `cms`.
"""

from __future__ import annotations

from datetime import datetime

from purekrb.errors import DecodeError, UnsupportedError
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import ListOf
from purekrb.messages.cms import (
    ALGORITHM,
    PUBLIC_KEY_INFO,
    AlgorithmIdentifier,
    SubjectPublicKeyInfo,
)
from purekrb.messages.der import (
    INT32,
    MICROSECONDS,
    UINT32,
    BitString,
    Context,
    Field,
    KerberosTime,
    Message,
    ObjectIdentifier,
    OctetString,
    Sequence,
    SequenceOf,
    UntaggedField,
    read_header,
    tlv,
)
from purekrb.messages.layouts import Key
from purekrb.records import record
from purekrb.tracebacks import forget_frames

__all__ = [
    "AuthPack",
    "DhRepInfo",
    "ExternalPrincipalIdentifier",
    "KdcDhKeyInfo",
    "OtherInfo",
    "PaChecksum2",
    "PaPkAsReq",
    "PkAuthenticator",
    "SuppPubInfo",
    "TypedData",
    "TypedDataEntry",
    "decode_key",
    "encode_key",
    "dh_number",
    "encode_dh_number",
    "decode_pa_pk_as_rep",
]

_OCTETS = OctetString()
_OID = ObjectIdentifier()
_TIME = KerberosTime()
_KEY = Key()
_MAX_ENTRIES = 64
#: The largest number in bytes that is read: one of a field of 8192 bits.
_MAX_NUMBER = 1025


@record
class PaChecksum2(Message):
    """PAChecksum2 ::= SEQUENCE {
    checksum [0] OCTET STRING, algorithmIdentifier [1] AlgorithmIdentifier }
    """

    checksum: bytes
    algorithm: AlgorithmIdentifier


_CHECKSUM2 = Sequence(PaChecksum2, Field(0, "checksum", _OCTETS), Field(1, "algorithm", ALGORITHM))
PaChecksum2.schema = _CHECKSUM2


@record
class PkAuthenticator(Message):
    """PKAuthenticator ::= SEQUENCE {
    cusec [0] INTEGER (0..999999), ctime [1] KerberosTime, nonce [2] INTEGER (0..4294967295),
    paChecksum [3] OCTET STRING OPTIONAL, ..., freshnessToken [4] OCTET STRING OPTIONAL,
    paChecksum2 [5] PAChecksum2 OPTIONAL }
    """

    cusec: int
    ctime: datetime
    nonce: int
    pa_checksum: bytes | None
    freshness_token: bytes | None
    pa_checksum2: PaChecksum2 | None


_AUTHENTICATOR = Sequence(
    PkAuthenticator,
    Field(0, "cusec", MICROSECONDS),
    Field(1, "ctime", _TIME),
    Field(2, "nonce", UINT32),
    Field(3, "pa_checksum", _OCTETS, optional=True),
    Field(4, "freshness_token", _OCTETS, optional=True),
    Field(5, "pa_checksum2", _CHECKSUM2, optional=True),
    extensible=True,
)
PkAuthenticator.schema = _AUTHENTICATOR

#: KDFAlgorithmId ::= SEQUENCE { kdf-id [0] OBJECT IDENTIFIER, ... }: the contents of the OID.
_KDF = Sequence(lambda kdf_id: kdf_id, Field(0, "kdf_id", _OID), extensible=True)


class _Kdf:
    tag = 0x30

    def decode(self, contents: bytes) -> bytes:
        found: bytes = _KDF.decode(contents)
        return found

    def encode(self, value: bytes) -> bytes:
        return tlv(0xA0, tlv(_OID.tag, value))


@record
class AuthPack(Message):
    """AuthPack ::= SEQUENCE {
    pkAuthenticator [0] PKAuthenticator, clientPublicValue [1] SubjectPublicKeyInfo OPTIONAL,
    supportedCMSTypes [2] SEQUENCE OF AlgorithmIdentifier OPTIONAL,
    clientDHNonce [3] OCTET STRING OPTIONAL, ...,
    supportedKDFs [4] SEQUENCE OF KDFAlgorithmId OPTIONAL }

    A KDF is the contents of its OID.
    """

    pk_authenticator: PkAuthenticator
    client_public_value: SubjectPublicKeyInfo | None
    supported_cms_types: tuple[AlgorithmIdentifier, ...] | None
    client_dh_nonce: bytes | None
    supported_kdfs: tuple[bytes, ...] | None


AuthPack.schema = Sequence(
    AuthPack,
    Field(0, "pk_authenticator", _AUTHENTICATOR),
    Field(1, "client_public_value", PUBLIC_KEY_INFO, optional=True),
    Field(2, "supported_cms_types", SequenceOf(ALGORITHM, _MAX_ENTRIES), optional=True),
    Field(3, "client_dh_nonce", _OCTETS, optional=True),
    Field(4, "supported_kdfs", SequenceOf(_Kdf(), _MAX_ENTRIES), optional=True),
    extensible=True,
)


@record
class ExternalPrincipalIdentifier(Message):
    """ExternalPrincipalIdentifier ::= SEQUENCE {
    subjectName [0] IMPLICIT OCTET STRING OPTIONAL,
    issuerAndSerialNumber [1] IMPLICIT OCTET STRING OPTIONAL,
    subjectKeyIdentifier [2] IMPLICIT OCTET STRING OPTIONAL, ... }
    """

    subject_name: bytes | None
    issuer_and_serial_number: bytes | None
    subject_key_identifier: bytes | None


_EXTERNAL = Sequence(
    ExternalPrincipalIdentifier,
    Field(0, "subject_name", _OCTETS, optional=True, implicit=True),
    Field(1, "issuer_and_serial_number", _OCTETS, optional=True, implicit=True),
    Field(2, "subject_key_identifier", _OCTETS, optional=True, implicit=True),
    extensible=True,
)
ExternalPrincipalIdentifier.schema = _EXTERNAL


@record
class PaPkAsReq(Message):
    """PA-PK-AS-REQ ::= SEQUENCE {
    signedAuthPack [0] IMPLICIT OCTET STRING,
    trustedCertifiers [1] SEQUENCE OF ExternalPrincipalIdentifier OPTIONAL,
    kdcPkId [2] IMPLICIT OCTET STRING OPTIONAL, ... }
    """

    signed_auth_pack: bytes
    trusted_certifiers: tuple[ExternalPrincipalIdentifier, ...] | None = None
    kdc_pk_id: bytes | None = None


PaPkAsReq.schema = Sequence(
    PaPkAsReq,
    Field(0, "signed_auth_pack", _OCTETS, implicit=True),
    Field(1, "trusted_certifiers", SequenceOf(_EXTERNAL, _MAX_ENTRIES), optional=True),
    Field(2, "kdc_pk_id", _OCTETS, optional=True, implicit=True),
    extensible=True,
)


@record
class DhRepInfo(Message):
    """PA-PK-AS-REP ::= CHOICE { dhInfo [0] DHRepInfo, ... }, where

    DHRepInfo ::= SEQUENCE {
    dhSignedData [0] IMPLICIT OCTET STRING, serverDHNonce [1] OCTET STRING OPTIONAL, ...,
    kdf [2] KDFAlgorithmId OPTIONAL }
    """

    dh_signed_data: bytes
    server_dh_nonce: bytes | None
    kdf: bytes | None


DhRepInfo.schema = Context(
    0,
    Sequence(
        DhRepInfo,
        Field(0, "dh_signed_data", _OCTETS, implicit=True),
        Field(1, "server_dh_nonce", _OCTETS, optional=True),
        Field(2, "kdf", _Kdf(), optional=True),
        extensible=True,
    ),
)


def decode_pa_pk_as_rep(value: bytes) -> DhRepInfo:
    """Return the reply in a PA-PK-AS-REP. Raises DecodeError.

    Raises UnsupportedError for its other form, encKeyPack, which has a key under the client's RSA
    key: purekrb never asks for it. Source: RFC 4556 3.2.3.2.
    """
    if value[:1] in (b"\x81", b"\xa1"):
        raise UnsupportedError(
            "the KDC answered by RSA key transport, which was not asked for: with it, whoever gets "
            "the client's key later can read what was recorded"
        )
    return DhRepInfo.decode(value)


@record
class KdcDhKeyInfo(Message):
    """KDCDHKeyInfo ::= SEQUENCE {
    subjectPublicKey [0] BIT STRING, nonce [1] INTEGER (0..4294967295),
    dhKeyExpiration [2] KerberosTime OPTIONAL, ... }
    """

    subject_public_key: bytes
    nonce: int
    dh_key_expiration: datetime | None


KdcDhKeyInfo.schema = Sequence(
    KdcDhKeyInfo,
    Field(0, "subject_public_key", BitString()),
    Field(1, "nonce", UINT32),
    Field(2, "dh_key_expiration", _TIME, optional=True),
    extensible=True,
)


@record
class SuppPubInfo(Message):
    """PkinitSuppPubInfo ::= SEQUENCE {
    enctype [0] Int32, as-REQ [1] OCTET STRING, pk-as-rep [2] OCTET STRING, ... }
    """

    enctype: int
    as_req: bytes
    pk_as_rep: bytes


SuppPubInfo.schema = Sequence(
    SuppPubInfo,
    Field(0, "enctype", INT32),
    Field(1, "as_req", _OCTETS),
    Field(2, "pk_as_rep", _OCTETS),
)


@record
class OtherInfo(Message):
    """OtherInfo ::= SEQUENCE {
    algorithmID AlgorithmIdentifier, partyUInfo [0] OCTET STRING, partyVInfo [1] OCTET STRING,
    suppPubInfo [2] OCTET STRING OPTIONAL, suppPrivInfo [3] OCTET STRING OPTIONAL }

    Source: RFC 8636 4.
    """

    algorithm: AlgorithmIdentifier
    party_u_info: bytes
    party_v_info: bytes
    supp_pub_info: bytes | None


OtherInfo.schema = Sequence(
    OtherInfo,
    UntaggedField("algorithm", ALGORITHM),
    Field(0, "party_u_info", _OCTETS),
    Field(1, "party_v_info", _OCTETS),
    Field(2, "supp_pub_info", _OCTETS, optional=True),
)


@record
class TypedDataEntry(Message):
    """SEQUENCE { data-type [0] Int32, data-value [1] OCTET STRING OPTIONAL }"""

    data_type: int
    data_value: bytes | None


_TYPED_ENTRY = Sequence(
    TypedDataEntry,
    Field(0, "data_type", INT32),
    Field(1, "data_value", _OCTETS, optional=True),
)
TypedDataEntry.schema = _TYPED_ENTRY


@record
class TypedData(Message):
    """TYPED-DATA ::= SEQUENCE OF SEQUENCE {
    data-type [0] Int32, data-value [1] OCTET STRING OPTIONAL }

    The e-data of errors about PKINIT. Source: RFC 4120 5.9.1.
    """

    entries: tuple[TypedDataEntry, ...]


TypedData.schema = ListOf(TypedData, SequenceOf(_TYPED_ENTRY, _MAX_ENTRIES))


def encode_key(key: EncryptionKey) -> bytes:
    """Return an EncryptionKey as it is, the plaintext of a PA-PKINIT-KX. Source: RFC 8062 7."""
    return tlv(_KEY.tag, _KEY.encode(key))


@forget_frames
def decode_key(data: bytes) -> EncryptionKey:
    """Return the key that `encode_key` gives. Raises DecodeError."""
    tag, begin, end = read_header(data, 0, len(data))
    if tag != _KEY.tag or end != len(data):
        raise DecodeError("the data are no EncryptionKey")
    key: EncryptionKey = _KEY.decode(data[begin:end])
    return key


def encode_dh_number(value: bytes) -> bytes:
    """Return a big-endian number as an INTEGER: DHPublicKey of RFC 3279 2.3.3."""
    digits = value.lstrip(b"\0") or b"\0"
    return tlv(0x02, b"\0" * (digits[0] >> 7) + digits)


def dh_number(data: bytes) -> bytes:
    """Return the number of an INTEGER, big-endian. Raises DecodeError, also if it is negative."""
    tag, begin, end = read_header(data, 0, len(data))
    if tag != 0x02 or end != len(data) or not 0 < end - begin <= _MAX_NUMBER:
        raise DecodeError("a Diffie-Hellman value is not one INTEGER of a usual size")
    contents = data[begin:end]
    if contents[0] & 0x80:
        raise DecodeError("a Diffie-Hellman value is negative")
    if len(contents) > 1 and contents[0] == 0 and contents[1] < 0x80:
        raise DecodeError("an INTEGER is not encoded in its shortest form")
    return contents.removeprefix(b"\0")
