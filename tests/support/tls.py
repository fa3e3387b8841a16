"""A certificate authority for the tests, and servers' certificates of it."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = ["Authority", "ServerTls", "self_signed"]

_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class ServerTls:
    """What a TLS server has: a context, and its certificate in DER."""

    context: ssl.SSLContext
    der: bytes


Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


class Authority:
    """A CA whose own certificate is the file `ca`. Its `key` decides how certificates are signed."""

    def __init__(self, directory: Path, name: str = "Test CA", key: Key | None = None) -> None:
        self._directory = directory
        self._name = name
        self._key = key or ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name, self._key.public_key(), ca=True).add_extension(
            _KEY_USAGE, critical=True
        )
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(_pem(self._sign(builder)))

    def issue(
        self,
        names: Sequence[str],
        addresses: Sequence[str] = (),
        *,
        stem: str,
        usage: str = "",
        expired: bool = False,
    ) -> x509.Certificate:
        """Write `stem`.pem and `stem`.key for a server of these names and return the certificate.

        `usage` is the OID of its extended key usage; by default it has none.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [
            *map(x509.DNSName, names),
            *(x509.IPAddress(ipaddress.ip_address(a)) for a in addresses),
        ]
        builder = self._builder(names[0], key.public_key(), ca=False, expired=expired)
        if usage:
            purposes = x509.ExtendedKeyUsage([x509.ObjectIdentifier(usage)])
            builder = builder.add_extension(purposes, critical=False)
        certificate = self._sign(
            builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        )
        (self._directory / f"{stem}.pem").write_bytes(_pem(certificate))
        file = self._directory / f"{stem}.key"
        file.touch(mode=0o600)  # Samba refuses a key that others can read
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate

    def server(self, name: str, **options: Any) -> ServerTls:
        """Return the TLS of a server called `name`; `options` are those of `issue`."""
        certificate = self.issue([name], stem=name, **options)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        return ServerTls(context, certificate.public_bytes(serialization.Encoding.DER))

    def _builder(
        self, subject: str, key: CertificatePublicKeyTypes, *, ca: bool, expired: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        end = now - timedelta(hours=1) if expired else now + timedelta(days=30)
        return (
            x509.CertificateBuilder()
            .subject_name(_common_name(subject))
            .issuer_name(_common_name(self._name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(
            self._key,
            hashes.SHA256() if isinstance(self._key, ec.EllipticCurvePrivateKey) else None,
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def self_signed(key: Any, algorithm: hashes.HashAlgorithm | None, rsa_padding: Any = None) -> bytes:
    """Return a certificate in DER that key signs for itself with this algorithm."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dc1.example.test")])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    return builder.sign(key, algorithm, rsa_padding=rsa_padding).public_bytes(
        serialization.Encoding.DER
    )
