"""Channel bindings tie a context to its channel, such as a TLS connection.

Source: RFC 2744 3.11, RFC 5929, RFC 9266.
"""

from __future__ import annotations

import hashlib

from purekrb.errors import DecodeError, UnsupportedError
from purekrb.messages.der import read_header
from purekrb.records import record

__all__ = ["ChannelBindings"]


@record
class ChannelBindings:
    """Channel bindings of GSS-API: two typed addresses (usually absent) and application data.

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

        The hash function is that of the certificate's signature; SHA-256 replaces MD5 and SHA-1.
        Raises DecodeError if this is not a certificate. Raises UnsupportedError if the signature
        has no single hash function (Ed25519, Ed448, RSA-PSS with two).
        """
        try:
            algorithm = _signature_hash(der_certificate)
        except DecodeError:
            raise DecodeError(
                "tls-server-end-point needs the server's certificate in DER"
            ) from None
        if algorithm is None:
            raise UnsupportedError(
                "RFC 5929 defines no tls-server-end-point for a certificate "
                "whose signature has no single hash function"
            )
        name = "sha256" if algorithm in ("md5", "sha1") else algorithm
        try:
            digest = hashlib.new(name, der_certificate).digest()
        except ValueError:
            raise UnsupportedError(
                f"tls-server-end-point needs {name}, which this OpenSSL does not have"
            ) from None
        return cls(b"tls-server-end-point:" + digest)

    @classmethod
    def tls_unique(cls, finished: bytes) -> ChannelBindings:
        """Return the bindings to the first Finished message of a TLS 1.2 handshake.

        TLS 1.3 has no tls-unique (RFC 9266 3). Python's `SSLSocket.get_channel_binding` then
        returns None or empty bytes, which raise UnsupportedError here. Source: RFC 5929 3.
        """
        if not finished:
            raise UnsupportedError(
                "TLS 1.3 has no tls-unique: use tls_exporter or tls_server_end_point"
            )
        return cls(b"tls-unique:" + finished)

    @classmethod
    def tls_exporter(cls, exported: bytes) -> ChannelBindings:
        """Return the bindings to 32 bytes of keying material that TLS exported.

        The exporter's label is EXPORTER-Channel-Binding. Source: RFC 9266 2.
        """
        if len(exported) != 32:
            raise DecodeError(f"tls-exporter has 32 bytes, got {len(exported)}")
        return cls(b"tls-exporter:" + exported)

    def digest(self) -> bytes:
        """Return the 16 bytes of Bnd: MD5 over the fields, with little-endian numbers.

        Source: RFC 4121 4.1.1.2.
        """

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


#: Prefixes of the contents of OIDs, in hex: RSA Laboratories, ANSI (ECDSA), NIST.
_RSA, _ECDSA, _NIST = "2a864886f70d0101", "2a8648ce3d04", "6086480165030403"
#: The hash function of each signature algorithm, by the contents of the algorithm's OID in hex.
#: Source: RFC 3279 2.2, RFC 4055 5, RFC 5758 3, RFC 8692 2, NIST's register of algorithms.
_SIGNATURES = {
    _RSA + "04": "md5",
    _RSA + "05": "sha1",
    _RSA + "0b": "sha256",
    _RSA + "0c": "sha384",
    _RSA + "0d": "sha512",
    _RSA + "0e": "sha224",
    _NIST + "0d": "sha3_224",
    _NIST + "0e": "sha3_256",
    _NIST + "0f": "sha3_384",
    _NIST + "10": "sha3_512",
    # ECDSA
    _ECDSA + "01": "sha1",
    _ECDSA + "0301": "sha224",
    _ECDSA + "0302": "sha256",
    _ECDSA + "0303": "sha384",
    _ECDSA + "0304": "sha512",
    _NIST + "09": "sha3_224",
    _NIST + "0a": "sha3_256",
    _NIST + "0b": "sha3_384",
    _NIST + "0c": "sha3_512",
    # DSA
    "2a8648ce380403": "sha1",
    _NIST + "01": "sha224",
    _NIST + "02": "sha256",
    _NIST + "03": "sha384",
    _NIST + "04": "sha512",
}
#: RSASSA-PSS, whose parameters name the hash function. Source: RFC 4055 3.1.
_PSS = "2a864886f70d01010a"
_MGF1 = "2a864886f70d010108"
_HASHES = {
    "2b0e03021a": "sha1",
    "608648016503040201": "sha256",
    "608648016503040202": "sha384",
    "608648016503040203": "sha512",
    "608648016503040204": "sha224",
}
_INTEGER, _OID, _SEQUENCE, _EXPLICIT_0, _EXPLICIT_1 = 0x02, 0x06, 0x30, 0xA0, 0xA1


def _signature_hash(certificate: bytes) -> str | None:
    """Return the name of the one hash function of a certificate's signature, or None.

    The rest of the certificate is not read. So a negative or zero serial number, which RFC 5280
    forbids, does no harm. Raises DecodeError. Source: RFC 5280 4.1.
    """
    start, end = _inside(certificate, 0, len(certificate), _SEQUENCE)
    if end != len(certificate):
        raise DecodeError("data follow the certificate")
    tbs_start, tbs_end = _inside(certificate, start, end, _SEQUENCE)
    _check_version(certificate, tbs_start, tbs_end)
    return _hash_of(certificate, *_inside(certificate, tbs_end, end, _SEQUENCE))


def _check_version(certificate: bytes, start: int, end: int) -> None:
    """Raise DecodeError unless TBSCertificate has version 1 (which is absent in DER), 2 or 3."""
    tag, inner, inner_end = read_header(certificate, start, end)
    if tag == _EXPLICIT_0:
        number, number_end = _inside(certificate, inner, inner_end, _INTEGER)
        if certificate[number:number_end] not in (b"\0", b"\1", b"\2"):
            raise DecodeError("the certificate has an unknown version")
    elif tag != _INTEGER:
        raise DecodeError("the certificate has no serial number")


def _hash_of(data: bytes, start: int, end: int) -> str | None:
    """Return the hash function in the contents of an AlgorithmIdentifier."""
    oid_start, oid_end = _inside(data, start, end, _OID)
    oid = data[oid_start:oid_end].hex()
    if oid != _PSS:
        return _SIGNATURES.get(oid)
    start, end = _inside(data, oid_end, end, _SEQUENCE)
    message: str | None = "sha1"  # the defaults
    mask: str | None = "sha1"
    if start < end and data[start] == _EXPLICIT_0:
        inner, start = _inside(data, start, end, _EXPLICIT_0)
        message = _hash_named(data, inner, start)
    if start < end and data[start] == _EXPLICIT_1:
        inner, start = _inside(data, start, end, _EXPLICIT_1)
        inner, stop = _inside(data, inner, start, _SEQUENCE)
        oid_start, oid_end = _inside(data, inner, stop, _OID)
        is_mgf1 = data[oid_start:oid_end].hex() == _MGF1
        mask = _hash_named(data, oid_end, stop) if is_mgf1 else None
    # RFC 4055 3.1: the message and its mask may use different hash functions.
    return message if message == mask else None


def _hash_named(data: bytes, at: int, stop: int) -> str | None:
    """Return the hash function of the AlgorithmIdentifier at `at`."""
    start, end = _inside(data, at, stop, _SEQUENCE)
    oid_start, oid_end = _inside(data, start, end, _OID)
    return _HASHES.get(data[oid_start:oid_end].hex())


def _inside(data: bytes, at: int, stop: int, expected: int) -> tuple[int, int]:
    """Return the start and the end of the contents of the element at `at`."""
    tag, start, end = read_header(data, at, stop)
    if tag != expected:
        raise DecodeError("the certificate has an unexpected element")
    return start, end
