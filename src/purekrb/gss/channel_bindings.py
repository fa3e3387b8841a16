"""Channel bindings: what ties a context to the channel that it runs in. Source: RFC 2744 3.11, RFC 5929, RFC 9266."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from purekrb.errors import DecodeError, UnsupportedError
from purekrb.records import record

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["ChannelBindings"]


@record
class ChannelBindings:
    """Channel bindings as GSS-API knows them: two typed addresses (usually absent) and application data.

    Address types are those of RFC 2744 (0 unspecified, 2 IPv4 ...).
    """

    application_data: bytes = b""
    initiator_address: bytes = b""
    acceptor_address: bytes = b""
    initiator_addrtype: int = 0
    acceptor_addrtype: int = 0

    @classmethod
    def tls_server_end_point(cls, der_certificate: bytes) -> ChannelBindings:
        """Return the bindings to a TLS server's certificate (DER). Source: RFC 5929 4.1.

        The hash is that of the certificate's signature, SHA-256 in place of MD5 and SHA-1. Raises DecodeError for
        no certificate, UnsupportedError where the signature has no single hash (Ed25519, Ed448, RSA-PSS with two).
        """
        from cryptography import x509

        try:
            certificate = x509.load_der_x509_certificate(der_certificate)
        except (ValueError, x509.InvalidVersion):
            raise DecodeError("tls-server-end-point needs the server's certificate in DER") from None
        name = _single_hash(certificate)
        try:
            digest = hashlib.new("sha256" if name in ("md5", "sha1") else name, der_certificate).digest()
        except ValueError:  # none, or one that OpenSSL does not have here
            raise UnsupportedError(
                "RFC 5929 defines no tls-server-end-point for a certificate whose signature has no single hash "
                f"function (its algorithm: {certificate.signature_algorithm_oid.dotted_string})"
            ) from None
        return cls(b"tls-server-end-point:" + digest)

    @classmethod
    def tls_unique(cls, finished: bytes) -> ChannelBindings:
        """Return the bindings to the first Finished message of a TLS 1.2 handshake. Source: RFC 5929 3.

        TLS 1.3 has no tls-unique (RFC 9266 3): Python's `SSLSocket.get_channel_binding` returns None or empty there,
        which raises UnsupportedError.
        """
        if not finished:
            raise UnsupportedError("there is no tls-unique in TLS 1.3: use tls_exporter or tls_server_end_point")
        return cls(b"tls-unique:" + finished)

    @classmethod
    def tls_exporter(cls, exported: bytes) -> ChannelBindings:
        """Return the bindings to 32 bytes exported from TLS with label EXPORTER-Channel-Binding. Source: RFC 9266 2."""
        if len(exported) != 32:
            raise DecodeError(f"tls-exporter has 32 bytes, got {len(exported)}")
        return cls(b"tls-exporter:" + exported)

    def digest(self) -> bytes:
        """Return the 16 bytes of Bnd: MD5 over the fields with little-endian numbers. Source: RFC 4121 4.1.1.2."""

        def number(value: int) -> bytes:
            return value.to_bytes(4, "little")

        packed = b"".join(
            (
                number(self.initiator_addrtype),
                number(len(self.initiator_address)),
                self.initiator_address,
                number(self.acceptor_addrtype),
                number(len(self.acceptor_address)),
                self.acceptor_address,
                number(len(self.application_data)),
                self.application_data,
            )
        )
        return hashlib.md5(packed, usedforsecurity=False).digest()


def _single_hash(certificate: Certificate) -> str:
    """Return the name of the one hash function of the certificate's signature, "" where it has none or several.

    RSA-PSS has one for the message and one for its mask (RFC 4055 3.1), which may differ.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS

    try:
        algorithm = certificate.signature_hash_algorithm
        parameters = certificate.signature_algorithm_parameters
    except (UnsupportedAlgorithm, ValueError):  # ValueError: parameters that are none
        return ""
    if algorithm is None:
        return ""
    if isinstance(parameters, PSS):
        mask = parameters.mgf
        if not isinstance(mask, MGF1) or mask._algorithm.name != algorithm.name:
            return ""
    return algorithm.name
