"""Signed data of PKINIT: made by a key that signs, opened to what was signed.

Source: RFC 5652 5, RFC 4556 3.2.1, 3.2.3.1, RFC 8062 4.1.
"""

from __future__ import annotations

import hashlib
import hmac

from purekrb.errors import DecodeError, IntegrityError, ProtocolError, UnsupportedError
from purekrb.messages.cms import (
    AlgorithmIdentifier,
    Attribute,
    ContentInfo,
    EncapsulatedContent,
    SignedAttributes,
    SignedData,
    SignerInfo,
    issuer_and_serial,
)
from purekrb.messages.der import tlv
from purekrb.oids import contents_of, oid_text
from purekrb.records import record

__all__ = ["DIGESTS", "OpenedData", "open_signed_data", "signed_data", "to_sign", "unsigned_data"]

_CONTENT_TYPE = contents_of("1.2.840.113549.1.9.3")
_MESSAGE_DIGEST = contents_of("1.2.840.113549.1.9.4")
#: The name of a hash in `hashlib`, by the contents of its OID. Source: RFC 5754 2, RFC 3370 2.1.
DIGESTS = {
    contents_of("1.3.14.3.2.26"): "sha1",
    contents_of("2.16.840.1.101.3.4.2.1"): "sha256",
    contents_of("2.16.840.1.101.3.4.2.2"): "sha384",
    contents_of("2.16.840.1.101.3.4.2.3"): "sha512",
}
_DIGEST_OIDS = {name: oid for oid, name in DIGESTS.items()}
#: The version of signed data whose content is not of type id-data, and that of a signer that is
#: named by issuer and serial number. Source: RFC 5652 5.1, 5.3.
_VERSION, _SIGNER_VERSION = 3, 1
_SET, _OID, _OCTETS = 0x31, 0x06, 0x04


def unsigned_data(content_type: bytes, content: bytes) -> bytes:
    """Return `content` in signed data that nobody signed, as anonymous clients send it."""
    encapsulated = EncapsulatedContent(content_type, content)
    return ContentInfo(SignedData(_VERSION, (), encapsulated, None, None, ())).encode()


def to_sign(content_type: bytes, content: bytes, digest: str) -> bytes:
    """Return the signed attributes of `content`: what the signature is made of."""
    value = hashlib.new(digest, content).digest()
    return SignedAttributes.of(
        Attribute(_CONTENT_TYPE, tlv(_SET, tlv(_OID, content_type))),
        Attribute(_MESSAGE_DIGEST, tlv(_SET, tlv(_OCTETS, value))),
    ).encode()


def signed_data(
    content_type: bytes,
    content: bytes,
    attributes: bytes,
    digest: str,
    signature: tuple[bytes, bytes],
    chain: tuple[bytes, ...],
) -> bytes:
    """Return `content` in signed data. `attributes` are those of `to_sign`.

    `signature` is the DER AlgorithmIdentifier and the value; `chain` are the certificates, the
    signer's first.
    """
    algorithm, value = signature
    by = AlgorithmIdentifier(_DIGEST_OIDS[digest], b"")  # RFC 5754 2: without parameters
    signer = SignerInfo(
        version=_SIGNER_VERSION,
        issuer_and_serial=issuer_and_serial(chain[0]),
        subject_key_identifier=None,
        explicit_key_identifier=None,
        digest_algorithm=by,
        signed_attrs=attributes,
        signature_algorithm=AlgorithmIdentifier.decode(algorithm),
        signature=value,
    )
    encapsulated = EncapsulatedContent(content_type, content)
    certificates = tuple(sorted(chain))  # X.690 11.6
    return ContentInfo(
        SignedData(_VERSION, (by,), encapsulated, certificates, None, (signer,))
    ).encode()


@record
class OpenedData:
    """What signed data hold: the content, and for who checks the signature, all that this needs.

    `certificates` are DER, the signer's first. Without a signer, the last five are empty: nothing
    vouches for the content.
    """

    content: bytes
    certificates: tuple[bytes, ...]
    algorithm: bytes
    digest: bytes
    attributes: bytes
    signature: bytes


def open_signed_data(data: bytes, content_type: bytes) -> OpenedData:
    """Return what signed data hold. The signature itself is not checked here.

    Raises DecodeError, ProtocolError for other data than one signer's of `content_type`, and
    IntegrityError if the content is not the one whose hash is signed. Source: RFC 5652 5.4.
    """
    signed = ContentInfo.decode(data).content
    found = signed.encap_content_info
    if found.content_type != content_type:
        raise ProtocolError(
            "the signed data hold something else than was expected",
            expected=oid_text(content_type),
            got=oid_text(found.content_type),
        )
    content = found.content
    if content is None:
        raise ProtocolError("the signed data have no content")
    if not signed.signer_infos:
        return OpenedData(content, (), b"", b"", b"", b"")
    if len(signed.signer_infos) > 1:  # RFC 4556 3.2.1, 3.2.3.1: one
        raise ProtocolError(
            "the data are signed by several, of whom one may be anybody",
            expected=1,
            got=len(signed.signer_infos),
        )
    (signer,) = signed.signer_infos
    _check_digest(signer, content_type, content)
    certificates = tuple(dict.fromkeys(signed.certificates or ()))
    own = [certificate for certificate in certificates if _is_of(certificate, signer)]
    if len(own) != 1:
        raise ProtocolError("the certificate of the signer is not among those that came")
    others = (certificate for certificate in certificates if certificate is not own[0])
    return OpenedData(
        content,
        (own[0], *others),
        signer.signature_algorithm.encode(),
        signer.digest_algorithm.encode(),
        signer.signed_attrs or b"",
        signer.signature,
    )


def _check_digest(signer: SignerInfo, content_type: bytes, content: bytes) -> None:
    """Refuse signed attributes that are not of this content. Source: RFC 5652 5.3, 11.1, 11.2."""
    digest = DIGESTS.get(signer.digest_algorithm.algorithm)
    if digest is None:
        raise UnsupportedError(
            f"the data are signed with the hash {oid_text(signer.digest_algorithm.algorithm)}, which "
            "purekrb does not have: expected SHA-256, SHA-384 or SHA-512"
        )
    if signer.signed_attrs is None:  # they MUST be there for content that is not id-data
        raise ProtocolError(
            "the signature covers no attributes, and so not the type of the content"
        )
    found = SignedAttributes.decode(signer.signed_attrs).entries
    own = [entry for entry in found if entry.type in (_CONTENT_TYPE, _MESSAGE_DIGEST)]
    kind = [entry.values for entry in own if entry.type == _CONTENT_TYPE]
    value = [entry.values for entry in own if entry.type == _MESSAGE_DIGEST]
    if len(kind) != 1 or len(value) != 1:
        raise ProtocolError("the signed attributes do not name type and hash of the content once")
    if kind[0] != tlv(_SET, tlv(_OID, content_type)):
        raise ProtocolError("the signed type of the content is not that of the data")
    expected = tlv(_SET, tlv(_OCTETS, hashlib.new(digest, content).digest()))
    if not hmac.compare_digest(value[0], expected):
        raise IntegrityError("the content is not the one that was signed")


def _is_of(certificate: bytes, signer: SignerInfo) -> bool:
    """Return whether the signer's name is that of this certificate."""
    if signer.issuer_and_serial is not None:
        try:
            return issuer_and_serial(certificate) == signer.issuer_and_serial
        except DecodeError:
            return False
    from cryptography import x509

    from purekrb.credentials.x509 import load_certificate
    from purekrb.errors import CertificateError

    try:
        extensions = load_certificate(certificate).extensions
        named = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except (CertificateError, ValueError, x509.ExtensionNotFound):
        return False
    return named == x509.SubjectKeyIdentifier(signer.key_identifier or b"")
