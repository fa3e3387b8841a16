"""A certificate authority for the embedded KDC and its clients. FOR TESTS AND DEMOS ONLY.

Its keys are made anew for each realm, and are nowhere but in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from purekrb.credentials.certificate import ClientCertificate
from purekrb.credentials.x509 import ID_PKINIT_SAN, MS_UPN
from purekrb.messages.certificate_names import Krb5PrincipalName
from purekrb.messages.der import tlv
from purekrb.names import Principal

__all__ = ["Authority", "KeyKind", "KP_CLIENT", "KP_KDC"]

#: Purposes: a KDC, a client that logs in. Source: RFC 4556 3.2.2, 3.2.4.
KP_KDC = x509.ObjectIdentifier("1.3.6.1.5.2.3.5")
KP_CLIENT = x509.ObjectIdentifier("1.3.6.1.5.2.3.4")
KeyKind = Literal["RSA", "P-256", "P-384", "P-521"]
_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_LIFE = timedelta(days=365)
_UTF8_STRING = 0x0C


def _new_key(kind: KeyKind) -> _PrivateKey:
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(_CURVES[kind])


class Authority:
    """A certificate authority that is valid from `now` on, or from a day before."""

    def __init__(self, name: str, now: datetime) -> None:
        self._now = now
        self._key = _new_key("P-256")
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def anchor(self) -> str:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _builder(self, subject: x509.Name, key: _PrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - timedelta(days=1))
            .not_valid_after(self._now + _LIFE)
        )

    def issue(
        self,
        subject: str,
        principal: Principal | None,
        *,
        purposes: Iterable[x509.ObjectIdentifier] = (KP_CLIENT,),
        upn: str | None = None,
        hosts: Iterable[str] = (),
        key: KeyKind = "P-256",
    ) -> ClientCertificate:
        """Return a certificate with its key. It names `principal`, or a `upn`, and `hosts`."""
        private = _new_key(key)
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        if principal is not None:
            value = Krb5PrincipalName(principal.realm, principal.name).encode()
            names.append(x509.OtherName(ID_PKINIT_SAN, value))
        if upn is not None:
            names.append(x509.OtherName(MS_UPN, tlv(_UTF8_STRING, upn.encode())))
        builder = self._builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]), private
        ).add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_SIGNS, critical=True)  # MIT's programs want it
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return ClientCertificate.from_files(
            pem,
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
