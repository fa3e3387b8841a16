"""A certificate authority in memory, and certificates of clients and KDCs, good and bad."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from purekrb import Principal
from purekrb.messages.certificate_names import Krb5PrincipalName
from purekrb.messages.der import tlv

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)

KP_KDC = "1.3.6.1.5.2.3.5"
KP_CLIENT = "1.3.6.1.5.2.3.4"
SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"


@cache
def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    """Return an RSA key; they take long, so they are made once."""
    return rsa.generate_private_key(65537, 2048)


def san_of(principal: str) -> x509.OtherName:
    """Return the alternative name of PKINIT."""
    found = Principal.parse(principal)
    value = Krb5PrincipalName(found.realm, found.name).encode()
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.2.2"), value)


def upn(text: str) -> x509.OtherName:
    """Return the alternative name of Active Directory."""
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), tlv(0x0C, text.encode()))


class Issued:
    """A certificate and its key; an authority issues more."""

    def __init__(self, certificate: x509.Certificate, key: Any) -> None:
        self.certificate = certificate
        self.key = key
        self.revoked: list[x509.RevokedCertificate] = []

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )

    def p12(self, password: bytes | None, *others: Issued) -> bytes:
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = (
                serialization.PrivateFormat.PKCS12.encryption_builder()
                .kdf_rounds(2000)
                .build(password)
            )
        return pkcs12.serialize_key_and_certificates(
            b"name", self.key, self.certificate, [o.certificate for o in others], encryption
        )

    def issue(
        self,
        name: str,
        *names: x509.GeneralName,
        purposes: Sequence[str] | None = (KP_KDC,),
        key: Any = None,
        authority: bool = False,
        begins: datetime = NOW - DAY,
        ends: datetime = NOW + DAY,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> Issued:
        """Return a certificate by this authority."""
        return make(
            name,
            self,
            names,
            purposes=purposes,
            key=key,
            authority=authority,
            begins=begins,
            ends=ends,
            extensions=extensions,
        )

    def revoke(self, *others: Issued) -> None:
        for other in others:
            self.revoked.append(
                x509.RevokedCertificateBuilder(
                    other.certificate.serial_number, NOW - DAY / 2
                ).build()
            )

    def crl(
        self,
        *,
        ends: datetime = NOW + DAY,
        signer: Any = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """Return the revocation list in PEM."""
        builder = x509.CertificateRevocationListBuilder(
            self.certificate.subject, NOW - DAY, ends, revoked_certificates=self.revoked
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        signed = builder.sign(signer or self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def make(
    name: str,
    issuer: Issued | None = None,
    names: Sequence[x509.GeneralName] = (),
    *,
    purposes: Sequence[str] | None = None,
    key: Any = None,
    authority: bool = False,
    begins: datetime = NOW - DAY,
    ends: datetime = NOW + DAY,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Issued:
    """Return a certificate by `issuer`, or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        issuer.certificate.subject if issuer else subject,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        begins,
        ends,
    ).add_extension(x509.BasicConstraints(authority, None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if purposes:
        usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in purposes])
        builder = builder.add_extension(usage, critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def authority(name: str = "the CA", **options: Any) -> Issued:
    """Return a new authority."""
    return make(name, authority=True, **options)


def key_usage(*allowed: str) -> x509.KeyUsage:
    """Return a key usage with the fields of these names."""
    known = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{field: field in allowed for field in known})
