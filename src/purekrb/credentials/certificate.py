"""A client's certificate and its private key, from files. Source: RFC 4556 3.2.1, RFC 5349.

The key signs, and is never shown. Here it is in memory; `smartcard.py` has those that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple, NoReturn, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from purekrb.credentials import files
from purekrb.credentials.x509 import (
    Source,
    as_certificate_error,
    date_problem,
    described,
    is_pem,
    load_certificates,
    pem_blocks,
    principal_names,
    public_key_of,
    read_file,
)
from purekrb.errors import CertificateError, DecodeError
from purekrb.messages.der import read_header, tlv
from purekrb.names import Principal
from purekrb.tracebacks import forget_frames

__all__ = ["Ask", "ClientCertificate", "Password", "SigningKey", "SignatureKind", "signature_kind"]

#: Gets a password or a PIN; its argument says of what. It is called only if there is a need.
Ask = Callable[[str], str]
Password = str | bytes | Ask

#: More than any certificate with its chain and key has.
_MAX_SIZE = 256 << 10
#: More certificates than a chain has; the rest of a file is left out.
_MAX_CHAIN = 16

_SEQUENCE, _OID, _NULL = 0x30, 0x06, b"\x05\x00"
#: sha256WithRSAEncryption, with the parameters NULL. Source: RFC 4055 5.
_RSA_SHA256 = tlv(_SEQUENCE, tlv(_OID, bytes.fromhex("2a864886f70d01010b")) + _NULL)


def _ecdsa(arc: int) -> bytes:
    """Return the AlgorithmIdentifier of ECDSA with a hash of SHA-2. Source: RFC 5758 3.2."""
    return tlv(_SEQUENCE, tlv(_OID, bytes.fromhex("2a8648ce3d0403") + bytes([arc])))


class SignatureKind(NamedTuple):
    """How keys of a kind sign: the DER AlgorithmIdentifier, and the hash."""

    algorithm: bytes
    hash: hashes.HashAlgorithm


_KEY_TYPES = rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey
_RSA = SignatureKind(_RSA_SHA256, hashes.SHA256())
#: Curve -> how its keys sign. Source: RFC 5349 4.
_CURVES = {
    "secp256r1": SignatureKind(_ecdsa(2), hashes.SHA256()),
    "secp384r1": SignatureKind(_ecdsa(3), hashes.SHA384()),
    "secp521r1": SignatureKind(_ecdsa(4), hashes.SHA512()),
}


def signature_kind(public_key: object) -> SignatureKind:
    """Return how the key of `public_key` signs. Raises CertificateError for other kinds of keys."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return _RSA
    if isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name in _CURVES:
        return _CURVES[public_key.curve.name]
    raise CertificateError(
        "the certificate has a key of a kind that cannot be used to log in: it must be RSA, or "
        "elliptic-curve on P-256, P-384 or P-521; ask for another certificate"
    )


class SigningKey(Protocol):
    """A private key, wherever it is."""

    def sign(self, data: bytes, kind: SignatureKind) -> bytes:
        """Return the signature of `data`; of ECDSA, the DER of r and s. Raises CertificateError."""

    def close(self) -> None:
        """Release what the key holds."""


class _KeyInMemory:
    """A private key of the library."""

    __slots__ = ("_key",)

    def __init__(self, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def sign(self, data: bytes, kind: SignatureKind) -> bytes:
        if isinstance(self._key, rsa.RSAPrivateKey):
            signature = self._key.sign(data, padding.PKCS1v15(), kind.hash)
            # A wrong signature by a damaged key would give the key away: it stays here.
            try:
                self._key.public_key().verify(signature, data, padding.PKCS1v15(), kind.hash)
            except InvalidSignature:
                raise CertificateError(
                    "the private key is damaged: it makes no right signature"
                ) from None
            return signature
        return self._key.sign(data, ec.ECDSA(kind.hash))

    def close(self) -> None:
        del self._key


class ClientCertificate:
    """A client's certificate with the private key that signs for it.

    `certificate` is the client's own, `chain` its DER and that of the authorities between it and
    the KDC's anchors, the client's first. `principal_name` is the principal in it: that of PKINIT
    (id-pkinit-san), or else a user principal name as an enterprise name without a realm; or None.
    `identity` is where it comes from, in MIT's words, such as `FILE:/path`. It cannot be pickled or
    copied.
    """

    # Without a __dict__, no tool can print one.
    __slots__ = ("_key", "_kind", "certificate", "chain", "identity", "principal_name")

    def __init__(
        self,
        certificate: x509.Certificate,
        key: SigningKey,
        others: Sequence[x509.Certificate] = (),
        *,
        identity: str | None = None,
    ) -> None:
        self._kind = signature_kind(public_key_of(certificate))
        self._key: SigningKey | None = key
        self.certificate = certificate
        self.chain = tuple(
            found.public_bytes(serialization.Encoding.DER) for found in (certificate, *others)
        )
        self.identity = identity
        self.principal_name: Principal | None = next(principal_names(certificate), None)

    @classmethod
    @forget_frames
    def from_files(
        cls,
        certificate: Source,
        key: Source | None = None,
        *,
        password: Password | None = None,
    ) -> ClientCertificate:
        """Return the certificate and its key in PEM or DER; each a path, `FILE:path`, or contents.

        Without `key`, the file of the certificate holds both. `password` is that of an encrypted
        key, or a function that gets it. The file may hold the authorities' certificates too. Raises CertificateError.
        """
        where, data = _read(certificate, "certificate", public=key is not None)
        if key is None:
            key_where, key_data = where, data
        else:
            key_where, key_data = _read(key, "private key", public=False)
        found = load_certificates(data, where)
        if not found:
            raise CertificateError(f"{where} holds no certificate: {_what_it_is(data)}")
        private = _load_key(key_data, key_where, password)
        leaf, others = _own_certificate(found, private, where, key_where)
        paths = [text for text in (_path(certificate), _path(key)) if text]
        return cls(
            leaf,
            _KeyInMemory(private),
            others,
            identity=f"FILE:{','.join(paths)}" if paths else None,
        )

    @classmethod
    @forget_frames
    def from_pkcs12(cls, source: Source, password: Password | None = None) -> ClientCertificate:
        """Return the certificate and its key in a PKCS#12 file (.p12, .pfx).

        `source` is a path, `PKCS12:path`, or the contents. Raises CertificateError.
        """
        where, data = _read(source, "PKCS#12 file", public=False)
        if is_pem(data):
            raise CertificateError(
                f"{where} is PEM, and not PKCS#12: use from_certificate, or FILE: instead of PKCS12:"
            )
        if not _is_pkcs12(data):
            raise CertificateError(f"{where} is no PKCS#12 file: {_what_it_is(data)}")
        store = _load_pkcs12(data, where, password)
        private = store.key
        if store.cert is None or not isinstance(private, _KEY_TYPES):
            missing = "certificate" if private is not None else "private key of a usable kind"
            raise CertificateError(
                f"{where} holds no {missing}: export the certificate with its private key"
            )
        others = [entry.certificate for entry in store.additional_certs]
        leaf, others = _own_certificate([store.cert.certificate, *others], private, where, where)
        path = _path(source)
        return cls(leaf, _KeyInMemory(private), others, identity=f"PKCS12:{path}" if path else None)

    @property
    def elliptic(self) -> bool:
        """Whether the key is on an elliptic curve; otherwise, it is RSA's."""
        return self._kind is not _RSA

    @property
    def waits(self) -> bool:
        """Whether a signature may take long: the key is not in memory, but on a card."""
        return not isinstance(self._key, _KeyInMemory)

    @forget_frames
    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the DER AlgorithmIdentifier of the signature, and the signature of `data`.

        It is RSASSA-PKCS1-v1_5 with SHA-256, or ECDSA with SHA-256, -384 or -512 by its curve.
        Raises CertificateError if the key cannot sign.
        """
        if self._key is None:
            raise CertificateError(
                f"the key of the certificate of {described(self.certificate)} was wiped: "
                "make a new credential"
            )
        return self._kind.algorithm, self._key.sign(data, self._kind)

    def check_dates(self, now: datetime) -> None:
        """Raise CertificateError unless the certificate is valid at `now`.

        A KDC would refuse it without a word that helps.
        """
        problem = date_problem(self.certificate, now.astimezone(timezone.utc))
        if problem is not None:
            raise CertificateError(
                f"the certificate of {described(self.certificate)} {problem}: "
                + ("get a new one" if "expired" in problem else "check the clock")
            )

    def wipe(self) -> None:
        """Release the key."""
        key, self._key = self._key, None
        if key is not None:
            key.close()

    def __repr__(self) -> str:
        return f"ClientCertificate({described(self.certificate)}, key=<redacted>)"

    def _refuse(self, *_args: object) -> NoReturn:
        raise TypeError("a ClientCertificate holds a key and cannot be pickled or copied")

    __reduce__ = _refuse
    __reduce_ex__ = _refuse
    __copy__ = _refuse
    __deepcopy__ = _refuse


def _path(source: Source | None) -> str | None:
    """Return the path in `source`; None if it is contents."""
    if source is None or isinstance(source, bytes):
        return None
    text = files.text_of(source)
    return None if "-----BEGIN " in text else files.split_type(text)[1]


def _read(source: Source, what: str, *, public: bool) -> tuple[str, bytes]:
    """Return the name and the contents of a file."""
    path = _path(source)
    if path is None:
        data = source if isinstance(source, bytes) else files.text_of(source).encode()
        return "the data given", data
    if public:
        return path, read_file(path, what, max_size=_MAX_SIZE)
    return path, as_certificate_error(
        lambda: files.read_private(path, what=what, shared=True, max_size=_MAX_SIZE)
    )


def _is_pkcs12(data: bytes) -> bool:
    """Return whether `data` begins as a PFX: a SEQUENCE with the version 3. Source: RFC 7292 4."""
    return data[:1] == b"\x30" and b"\x02\x01\x03" in data[2:10]


def _what_it_is(data: bytes) -> str:
    """Return what a file is instead, and what to do."""
    if is_pem(data):
        labels = {label for label, _ in pem_blocks(data)}
        if any(label.endswith("PRIVATE KEY") for label in labels):
            return "it holds a private key alone; name the file of the certificate"
        if any("CERTIFICATE" in label for label in labels):
            return "the certificate in it is damaged"
        return "its PEM is cut off, or is something else"
    if _is_pkcs12(data):
        return "it is PKCS#12: use from_pkcs12, or PKCS12: instead of FILE:"
    if not data:
        return "it is empty"
    return "it is neither PEM nor DER; check the path"


def _asked(password: Password, what: str) -> bytes:
    """Return the password, which may have to be asked for."""
    if callable(password):
        password = password(f"Password of {what}")
    return password.encode() if isinstance(password, str) else password


def _load_pkcs12(
    data: bytes, where: str, password: Password | None
) -> pkcs12.PKCS12KeyAndCertificates:
    # Without a password, there is none, or it is empty.
    tries: list[bytes | None] = [None, b""]
    if password is not None and not callable(password):
        tries = [_asked(password, where)]
    while True:
        try:
            return pkcs12.load_pkcs12(data, tries.pop(0))
        except UnsupportedAlgorithm:
            failure = (
                f"{where} is encrypted in a way that is not supported, as old programs do (RC2): "
                "export it again, with AES"
            )
            break
        except Exception:  # ValueError and more, by the library's version
            failure = f"the password of {where} is wrong, or the file is damaged"
            if password is None:
                failure = f"{where} is encrypted, or damaged: give its password"
        if not tries and callable(password):
            tries = [_asked(password, where)]
            password = b""  # asked for once
        if not tries:
            break
    raise CertificateError(failure)


def _load_key(
    data: bytes, where: str, password: Password | None
) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    load: Callable[..., Any] = serialization.load_der_private_key
    if is_pem(data):
        load = serialization.load_pem_private_key
        keys = [block for label, block in pem_blocks(data) if label.endswith("PRIVATE KEY")]
        if not keys:
            raise CertificateError(
                f"{where} holds no private key: name the file of the key as well"
            )
        encrypted = b"ENCRYPTED" in keys[0]
        data = keys[0]
    else:
        encrypted = _is_encrypted(data)
    if encrypted and password is None:
        raise CertificateError(f"the private key in {where} is encrypted: give its password")
    secret = _asked(password, where) if encrypted and password is not None else None
    try:
        # To prove an RSA key right takes 50 ms. A wrong one makes a wrong signature, see `sign`.
        key = load(data, secret, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        failure = f"the private key in {where} is of a kind that is not supported: use RSA or EC"
    except Exception:  # ValueError, TypeError and more, by the library's version
        failure = f"the private key in {where} cannot be read: it is damaged"
        if encrypted:
            failure = f"the password of the private key in {where} is wrong, or the file is damaged"
    else:
        if isinstance(key, _KEY_TYPES):
            return key
        failure = f"the private key in {where} is of a kind that is not supported: use RSA or EC"
    raise CertificateError(failure)


def _is_encrypted(data: bytes) -> bool:
    """Return whether a key in DER is an EncryptedPrivateKeyInfo: it begins with an algorithm.

    The others begin with a version number. Source: RFC 5958 3, 2.
    """
    try:
        _, begin, end = read_header(data, 0, len(data))
        return read_header(data, begin, end)[0] == _SEQUENCE
    except DecodeError:
        return False


def _own_certificate(
    found: Sequence[x509.Certificate],
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    where: str,
    key_where: str,
) -> tuple[x509.Certificate, list[x509.Certificate]]:
    """Return the certificate of `key` among `found`, and the others. Raises CertificateError."""
    ours = key.public_key()
    for leaf in found:
        if public_key_of(leaf) == ours:
            return leaf, [other for other in found if other != leaf][: _MAX_CHAIN - 1]
    place = "in it" if where == key_where else f"in {key_where}"
    raise CertificateError(
        f"the private key {place} is not that of the certificate of {described(found[0])} in "
        f"{where}: name the key that belongs to it"
    )
