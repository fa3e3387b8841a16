"""Certificates: read from files, and what they say of principals, hosts and purposes.

Source: RFC 5280 4, RFC 7468 2, RFC 4556 3.2, MS-PKCA 3.1.5.2.1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from purekrb.constants import NameType
from purekrb.credentials import files
from purekrb.errors import CertificateError, CredentialError, DecodeError
from purekrb.log import Log
from purekrb.messages.certificate_names import Krb5PrincipalName
from purekrb.messages.der import read_header
from purekrb.names import Principal
from purekrb.text import visible

__all__ = [
    "ID_PKINIT_SAN",
    "MS_UPN",
    "Source",
    "Sources",
    "as_certificate_error",
    "certificates_of",
    "contents",
    "date_problem",
    "described",
    "host_names",
    "is_pem",
    "key_usages",
    "load_certificate",
    "load_certificates",
    "load_crls",
    "name_text",
    "pem_blocks",
    "principal_names",
    "public_key_of",
    "purposes",
    "read_file",
    "utc",
]

log = Log("purekrb.credentials")

#: Certificates: a file or directory by its path or as `FILE:`, `DIR:` or `ENV:` (a variable that
#: holds such a text), or the contents of a file.
Source = str | bytes | os.PathLike[str]
#: One source or several.
Sources = Source | Sequence[Source]

ID_PKINIT_SAN = x509.ObjectIdentifier("1.3.6.1.5.2.2")
#: The user principal name of Active Directory.
MS_UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")

#: More than any bundle of CAs has.
_MAX_SIZE = 4 << 20
_MAX_FILES = 4096
#: How deep one variable may name another.
_MAX_VARIABLES = 4
_UTF8_STRING = 0x0C

T = TypeVar("T")


# -- files -----------------------------------------------------------------------------------------


def pem_blocks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Return the label of each block of PEM in `data`, and the whole block."""
    at = data.find(b"-----BEGIN ")
    while at >= 0:
        stop = data.find(b"-----", at + 11)
        label = data[at + 11 : max(stop, at + 11)]
        end_line = b"-----END " + label + b"-----"
        end = data.find(end_line, stop) if stop >= 0 else -1
        if end < 0:
            return
        yield label.decode("ascii", "replace"), data[at : end + len(end_line)] + b"\n"
        at = data.find(b"-----BEGIN ", end)


def is_pem(data: bytes) -> bool:
    """Return whether there is a block of PEM in `data`."""
    return b"-----BEGIN " in data


def load_certificate(data: bytes) -> x509.Certificate:
    """Return the certificate in DER or PEM. Raises CertificateError."""
    load = x509.load_pem_x509_certificate if is_pem(data) else x509.load_der_x509_certificate
    try:
        found = load(data)
        # The library reads these when they are asked for: what is damaged shall show now.
        _ = found.subject, found.issuer, found.serial_number, found.extensions
        _ = found.not_valid_before_utc, found.not_valid_after_utc
    except Exception:  # ValueError and more, by the library's version
        raise CertificateError("it cannot be read as a certificate: it is damaged") from None
    return found


def load_certificates(data: bytes, where: str) -> list[x509.Certificate]:
    """Return all certificates in `data`, PEM or one in DER; those that cannot be read are left out."""
    if not is_pem(data):
        parts = [data] if data[:1] == b"\x30" else []
    else:
        parts = [block for label, block in pem_blocks(data) if label.endswith("CERTIFICATE")]
    found = []
    for part in parts:
        try:
            found.append(load_certificate(part))
        except CertificateError as error:
            log.debug("a certificate in %s is passed over: %s", where, error)
    return found


def load_crls(data: bytes, where: str) -> list[x509.CertificateRevocationList]:
    """Return all revocation lists in `data`, PEM or one in DER. Raises CertificateError.

    None is left out: a list that cannot be read revokes nothing.
    """
    parts = [block for label, block in pem_blocks(data) if label == "X509 CRL"]
    load = x509.load_pem_x509_crl if is_pem(data) else x509.load_der_x509_crl
    try:
        found = [load(part) for part in (parts if is_pem(data) else [data])]
        for one in found:  # see `load_certificate`
            _ = one.issuer, one.extensions, one.next_update_utc
    except Exception:  # ValueError and more, by the library's version
        raise CertificateError(
            f"{where} cannot be read as a certificate revocation list: get it anew from its issuer"
        ) from None
    return found


def contents(sources: Sources, what: str) -> Iterator[tuple[str, bytes]]:
    """Return the name and contents of each file that `sources` name. Raises CertificateError.

    Of a directory, what cannot be read is left out.
    """
    for source in [sources] if isinstance(sources, str | bytes | os.PathLike) else sources:
        yield from _contents_of(source, what, _MAX_VARIABLES)


def certificates_of(sources: Sources, what: str) -> list[x509.Certificate]:
    """Return all certificates that `sources` name. Raises CertificateError."""
    return [
        certificate
        for where, data in contents(sources, what)
        for certificate in load_certificates(data, where)
    ]


def _contents_of(source: Source, what: str, variables: int) -> Iterator[tuple[str, bytes]]:
    if isinstance(source, bytes):
        yield "the data given", source
        return
    text = files.text_of(source)
    if "-----BEGIN " in text:
        yield "the data given", text.encode()
        return
    kind, path = files.split_type(text)
    if kind == "ENV":
        value = os.environ.get(path)
        if not value or not variables:
            raise CertificateError(
                f"the {what} ENV:{path} names no certificate: set the variable {path} to a name "
                "such as FILE:/path"
            )
        yield from _contents_of(value, what, variables - 1)
    elif kind == "DIR" or (kind == "FILE" and files.is_directory(path)):
        for name in sorted(files.names_in(path, what=f"directory of {what}s"))[:_MAX_FILES]:
            inside = os.path.join(path, name)
            if not files.is_directory(inside):
                try:
                    yield inside, read_file(inside, what)
                except CertificateError as error:
                    log.debug("passed over: %s", error)
    elif kind == "FILE":
        yield path, read_file(path, what)
    else:
        raise CertificateError(
            f"the {what} {text!r} is of a kind that cannot be read: write FILE:path, DIR:path or "
            "ENV:variable"
        )


def read_file(path: files.FilePath, what: str, *, max_size: int = _MAX_SIZE) -> bytes:
    """Return the contents of a file that is no secret. Raises CertificateError."""
    return as_certificate_error(lambda: files.read_public(path, what=what, max_size=max_size))


def as_certificate_error(read: Callable[[], T]) -> T:
    """Return what `read` does; its CredentialError becomes a CertificateError."""
    try:
        return read()
    except CertificateError:
        raise
    except CredentialError as error:
        raise CertificateError(*error.args) from None


# -- what certificates say --------------------------------------------------------------------------


def described(certificate: x509.Certificate) -> str:
    """Return the subject of a certificate for people: its common name, or all of it."""
    return name_text(certificate.subject) or "a certificate without a subject"


def name_text(name: x509.Name) -> str:
    """Return a distinguished name for people."""
    common = [str(found.value) for found in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return visible(common[0] if common else name.rfc4514_string())


def utc(time: datetime) -> str:
    """Return a time for people."""
    return f"{time.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def date_problem(certificate: x509.Certificate, now: datetime) -> str | None:
    """Return why the certificate is not valid at `now`; None if it is."""
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {utc(certificate.not_valid_before_utc)}"
    if now > certificate.not_valid_after_utc:
        return f"expired at {utc(certificate.not_valid_after_utc)}"
    return None


def public_key_of(certificate: x509.Certificate) -> Any:
    """Return the public key in a certificate; None if it is damaged or of an unknown kind."""
    try:
        return certificate.public_key()
    except Exception:  # UnsupportedAlgorithm, ValueError and more, by the library's version
        return None


def _extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> object:
    try:
        return certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return None


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    found = _extension(certificate, ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    return found if isinstance(found, x509.SubjectAlternativeName) else None


def host_names(certificate: x509.Certificate) -> list[str]:
    """Return the DNS names of a certificate."""
    names = _alternative_names(certificate)
    return [] if names is None else names.get_values_for_type(x509.DNSName)


def principal_names(certificate: x509.Certificate) -> Iterator[Principal]:
    """Return the principals that a certificate names; those of PKINIT come first.

    A user principal name is an enterprise name without a realm. What cannot be read is left out.
    """
    names = _alternative_names(certificate)
    others = [] if names is None else names.get_values_for_type(x509.OtherName)
    for kind, read in ((ID_PKINIT_SAN, _of_pkinit), (MS_UPN, _of_upn)):
        for other in others:
            if other.type_id == kind:
                try:
                    yield read(other.value)
                except DecodeError as error:
                    log.debug("a name of %s is passed over: %s", described(certificate), error)


def _of_pkinit(value: bytes) -> Principal:
    found = Krb5PrincipalName.decode(value)
    return Principal.of(found.principal_name.principal(found.realm))


def _of_upn(value: bytes) -> Principal:
    tag, begin, end = read_header(value, 0, len(value))
    text = value[begin:end].decode("utf-8", "replace")
    if tag != _UTF8_STRING or end != len(value) or not text or "�" in text:
        raise DecodeError("a user principal name is no UTF8String")
    return Principal((text,), "", NameType.ENTERPRISE)


def purposes(certificate: x509.Certificate) -> list[str] | None:
    """Return the extended key usages of a certificate, dotted; None if it has no such extension."""
    found = _extension(certificate, ExtensionOID.EXTENDED_KEY_USAGE)
    return (
        [oid.dotted_string for oid in found] if isinstance(found, x509.ExtendedKeyUsage) else None
    )


#: The key usages that rules and checks name, and the fields of the library.
_USAGES = {
    "digitalSignature": "digital_signature",
    "keyEncipherment": "key_encipherment",
    "cRLSign": "crl_sign",
}


def key_usages(certificate: x509.Certificate) -> list[str]:
    """Return what the certificate's key is for, of `_USAGES`; all of it if nothing says.

    Source: RFC 5280 4.2.1.3.
    """
    found = _extension(certificate, ExtensionOID.KEY_USAGE)
    if not isinstance(found, x509.KeyUsage):
        return list(_USAGES)
    return [name for name, field in _USAGES.items() if getattr(found, field)]
