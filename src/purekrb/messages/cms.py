"""Signed data: what PKINIT needs of CMS and X.509. Source: RFC 5652, RFC 5280.

The parts that are only compared stay DER: names, algorithms' parameters, certificates. Everything
is read strictly and within bounds, like all other messages of peers; `cryptography` takes the
certificates apart.
"""

from __future__ import annotations

from typing import ClassVar

from purekrb.errors import DecodeError
from purekrb.messages.ap import ListOf
from purekrb.messages.der import (
    Any_,
    BitString,
    Field,
    Integer,
    Message,
    ObjectIdentifier,
    OctetString,
    Sequence,
    SequenceOf,
    SetOf,
    UntaggedField,
    read_header,
    tlv,
)
from purekrb.oids import contents_of
from purekrb.records import record

__all__ = [
    "ALGORITHM",
    "MAX_SIGNED_DATA",
    "AlgorithmIdentifier",
    "Algorithms",
    "Attribute",
    "ContentInfo",
    "EncapsulatedContent",
    "PUBLIC_KEY_INFO",
    "SignedAttributes",
    "SignedData",
    "SignerInfo",
    "SubjectPublicKeyInfo",
    "issuer_and_serial",
]

#: The largest signed data in bytes; real ones have two to eight kilobytes.
MAX_SIGNED_DATA = 1 << 16
_MAX_ALGORITHMS, _MAX_CERTIFICATES, _MAX_ATTRIBUTES, _MAX_SIGNERS = 32, 32, 16, 8

_SIGNED_DATA = contents_of("1.2.840.113549.1.7.2")
_OID = ObjectIdentifier()
_OCTETS = OctetString()
_VERSION = Integer(0, 5)


@record
class AlgorithmIdentifier(Message):
    """AlgorithmIdentifier ::= SEQUENCE { algorithm OBJECT IDENTIFIER, parameters ANY OPTIONAL }

    `algorithm` are the contents of the OID, `parameters` a whole element, or b"".
    """

    algorithm: bytes
    parameters: bytes


class _Algorithm:
    tag = 0x30

    def decode(self, contents: bytes) -> AlgorithmIdentifier:
        contents = bytes(contents)
        tag, begin, end = read_header(contents, 0, len(contents))
        if tag != _OID.tag:
            raise DecodeError("an AlgorithmIdentifier does not begin with an OBJECT IDENTIFIER")
        if end < len(contents) and read_header(contents, end, len(contents))[2] != len(contents):
            raise DecodeError("an AlgorithmIdentifier has more than one parameter")
        return AlgorithmIdentifier(_OID.decode(contents[begin:end]), contents[end:])

    def encode(self, value: AlgorithmIdentifier) -> bytes:
        return tlv(_OID.tag, value.algorithm) + value.parameters


ALGORITHM = _Algorithm()
AlgorithmIdentifier.schema = ALGORITHM


@record
class Algorithms(Message):
    """SEQUENCE OF AlgorithmIdentifier: TD-DH-PARAMETERS, TD-CMS-DIGEST-ALGORITHMS"""

    entries: tuple[AlgorithmIdentifier, ...]


Algorithms.schema = ListOf(Algorithms, SequenceOf(ALGORITHM, _MAX_ALGORITHMS))


@record
class SubjectPublicKeyInfo(Message):
    """SubjectPublicKeyInfo ::= SEQUENCE {
    algorithm AlgorithmIdentifier, subjectPublicKey BIT STRING }
    """

    algorithm: AlgorithmIdentifier
    subject_public_key: bytes


PUBLIC_KEY_INFO = Sequence(
    SubjectPublicKeyInfo,
    UntaggedField("algorithm", ALGORITHM),
    UntaggedField("subject_public_key", BitString()),
)
SubjectPublicKeyInfo.schema = PUBLIC_KEY_INFO


@record
class Attribute(Message):
    """Attribute ::= SEQUENCE { attrType OBJECT IDENTIFIER, attrValues SET OF ANY }

    `values` is the whole SET.
    """

    type: bytes
    values: bytes


_ATTRIBUTE = Sequence(
    Attribute, UntaggedField("type", _OID), UntaggedField("values", Any_(SetOf.tag))
)
Attribute.schema = _ATTRIBUTE


@record
class SignedAttributes(Message):
    """SignedAttributes ::= SET OF Attribute"""

    entries: tuple[Attribute, ...]

    @classmethod
    def of(cls, *attributes: Attribute) -> SignedAttributes:
        """Return the attributes in the order of DER. Source: X.690 11.6."""
        return cls(tuple(sorted(attributes, key=Attribute.encode)))


SignedAttributes.schema = ListOf(SignedAttributes, SetOf(_ATTRIBUTE, _MAX_ATTRIBUTES))


@record
class SignerInfo(Message):
    """SignerInfo ::= SEQUENCE {
    version INTEGER, sid SignerIdentifier, digestAlgorithm AlgorithmIdentifier,
    signedAttrs [0] IMPLICIT SET OF Attribute OPTIONAL, signatureAlgorithm AlgorithmIdentifier,
    signature OCTET STRING, unsignedAttrs [1] IMPLICIT SET OF Attribute OPTIONAL }, where

    SignerIdentifier ::= CHOICE { IssuerAndSerialNumber, [0] IMPLICIT SubjectKeyIdentifier }

    `issuer_and_serial` and `signed_attrs` are whole elements; the latter has the tag that is
    hashed, SET OF. Heimdal writes the identifier of a key with an explicit tag, in
    `explicit_key_identifier`; `key_identifier` is that of either form.
    """

    version: int
    issuer_and_serial: bytes | None
    subject_key_identifier: bytes | None
    explicit_key_identifier: bytes | None
    digest_algorithm: AlgorithmIdentifier
    signed_attrs: bytes | None
    signature_algorithm: AlgorithmIdentifier
    signature: bytes
    unsigned_attrs: bytes | None = None

    @property
    def key_identifier(self) -> bytes | None:
        """The subject key identifier of the signer's certificate, if it is named by that."""
        if self.subject_key_identifier is None:
            return self.explicit_key_identifier
        return self.subject_key_identifier


_SIGNER_INFO = Sequence(
    SignerInfo,
    UntaggedField("version", _VERSION),
    UntaggedField("issuer_and_serial", Any_(0x30), optional=True),
    Field(0, "subject_key_identifier", _OCTETS, optional=True, implicit=True),
    Field(0, "explicit_key_identifier", _OCTETS, optional=True),
    UntaggedField("digest_algorithm", ALGORITHM),
    Field(0, "signed_attrs", Any_(SetOf.tag), optional=True, implicit=True),
    UntaggedField("signature_algorithm", ALGORITHM),
    UntaggedField("signature", _OCTETS),
    Field(1, "unsigned_attrs", Any_(SetOf.tag), optional=True, implicit=True),
)
SignerInfo.schema = _SIGNER_INFO


@record
class EncapsulatedContent(Message):
    """EncapsulatedContentInfo ::= SEQUENCE {
    eContentType OBJECT IDENTIFIER, eContent [0] EXPLICIT OCTET STRING OPTIONAL }
    """

    content_type: bytes
    content: bytes | None


_ENCAPSULATED = Sequence(
    EncapsulatedContent,
    UntaggedField("content_type", _OID),
    Field(0, "content", _OCTETS, optional=True),
)
EncapsulatedContent.schema = _ENCAPSULATED


@record
class SignedData(Message):
    """SignedData ::= SEQUENCE {
    version INTEGER, digestAlgorithms SET OF AlgorithmIdentifier,
    encapContentInfo EncapsulatedContentInfo, certificates [0] IMPLICIT SET OF ANY OPTIONAL,
    crls [1] IMPLICIT SET OF ANY OPTIONAL, signerInfos SET OF SignerInfo }

    The certificates are X.509's, each a whole element.
    """

    version: int
    digest_algorithms: tuple[AlgorithmIdentifier, ...]
    encap_content_info: EncapsulatedContent
    certificates: tuple[bytes, ...] | None
    crls: bytes | None
    signer_infos: tuple[SignerInfo, ...]


_SIGNED = Sequence(
    SignedData,
    UntaggedField("version", _VERSION),
    UntaggedField("digest_algorithms", SetOf(ALGORITHM, _MAX_ALGORITHMS)),
    UntaggedField("encap_content_info", _ENCAPSULATED),
    Field(0, "certificates", SetOf(Any_(0x30), _MAX_CERTIFICATES), optional=True, implicit=True),
    Field(1, "crls", Any_(SetOf.tag), optional=True, implicit=True),
    UntaggedField("signer_infos", SetOf(_SIGNER_INFO, _MAX_SIGNERS)),
)
SignedData.schema = _SIGNED


class _SignedDataType(ObjectIdentifier):
    def decode(self, contents: bytes) -> bytes:
        oid = super().decode(contents)
        if oid != _SIGNED_DATA:
            raise DecodeError("the message is no signed data")
        return oid


@record
class ContentInfo(Message):
    """ContentInfo ::= SEQUENCE {
    contentType OBJECT IDENTIFIER, content [0] EXPLICIT ANY }, where the ANY is a SignedData
    """

    content: SignedData
    content_type: ClassVar[bytes] = _SIGNED_DATA


class _ContentInfo(Sequence):
    def decode(self, contents: bytes) -> ContentInfo:
        if len(contents) > MAX_SIGNED_DATA:
            raise DecodeError(
                f"signed data of {len(contents)} bytes are larger than {MAX_SIGNED_DATA}"
            )
        found: ContentInfo = super().decode(contents)
        return found


ContentInfo.schema = _ContentInfo(
    lambda _, content: ContentInfo(content),
    UntaggedField("content_type", _SignedDataType()),
    Field(0, "content", _SIGNED),
)


def issuer_and_serial(certificate: bytes) -> bytes:
    """Return the IssuerAndSerialNumber of a certificate. Raises DecodeError.

    Source: RFC 5652 10.2.4, RFC 5280 4.1.
    """
    _, at, stop = read_header(certificate, 0, len(certificate))
    _, at, stop = read_header(certificate, at, stop)
    tag, _, end = read_header(certificate, at, stop)
    if tag == 0xA0:  # the version
        at = end
        tag, _, end = read_header(certificate, at, stop)
    serial = certificate[at:end]
    _, _, at = read_header(certificate, end, stop)  # the algorithm of the signature
    issuer_tag, _, end = read_header(certificate, at, stop)
    if (tag, issuer_tag) != (0x02, 0x30):
        raise DecodeError("a certificate does not have the form of X.509")
    return tlv(0x30, certificate[at:end] + serial)
