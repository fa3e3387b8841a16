"""Which KDCs a client trusts by their certificates. Source: RFC 4556 3.2.4, RFC 5280 6.

Three things must hold, and no setting turns all of them off: a chain to the anchors at the KDC's
time, the purpose of a KDC, and the name of the realm or of the host. OpenSSL and the validator of
`cryptography` do the work; revocation lists and names are checked here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import verification

from purekrb.credentials.x509 import (
    Sources,
    certificates_of,
    contents,
    date_problem,
    described,
    host_names,
    key_usages,
    load_certificate,
    load_crls,
    name_text,
    principal_names,
    public_key_of,
    purposes,
    utc,
)
from purekrb.errors import (
    CertificateError,
    DecodeError,
    IntegrityError,
    PolicyError,
    UnsupportedError,
)
from purekrb.krb5conf.config import Config
from purekrb.krb5conf.pkinit import EkuChecking, PkinitOptions, pkinit_options
from purekrb.log import Log
from purekrb.messages.der import read_header
from purekrb.names import Principal
from purekrb.oids import OID_NAMES, dotted, oid_text
from purekrb.text import visible

__all__ = ["KdcTrust"]

log = Log("purekrb.credentials")

_KP_KDC = "1.3.6.1.5.2.3.5"
_SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
_ANY_PURPOSE = "2.5.29.37.0"
#: The purposes that pass each check. A certificate for any purpose (2.5.29.37.0) is none of a KDC.
_PURPOSES: dict[EkuChecking, tuple[str, ...]] = {
    "kpKDC": (_KP_KDC,),
    "kpServerAuth": (_KP_KDC, _SERVER_AUTH),
    "none": (),
}
_MAX_CHAIN = 8
#: More certificates than any KDC sends.
_MAX_CERTIFICATES = 32


@dataclass(frozen=True, slots=True)
class KdcTrust:
    """The anchors of a KDC's certificate, and what it must say.

    None leaves a field to krb5.conf: `pkinit_anchors` and so on, of the realm or of [libdefaults].
    `anchors` are the authorities, `pool` more certificates between them and KDCs, `revoke`
    revocation lists: each a path, `FILE:path`, `DIR:path`, `ENV:variable`, the contents of a file,
    or several of these. With `require_crl_checking`, each authority must have a list.
    `eku_checking` "kpServerAuth" takes the certificate of a TLS server as well, and "none" that of
    any purpose. `hosts` are DNS names of KDCs: a certificate that names one of them need not name
    the realm. Active Directory's certificates name hosts alone. `allow_sha1` takes a SHA-1
    signature of the KDC's answer, as Samba makes it; those of certificates are never SHA-1.
    `config` is the configuration that is asked; a `KdcClient` sets its own.
    """

    anchors: Sources | None = field(default=None, repr=False)  # contents, maybe
    pool: Sources | None = field(default=None, repr=False)
    revoke: Sources | None = field(default=None, repr=False)
    require_crl_checking: bool | None = None
    eku_checking: EkuChecking | None = None
    hosts: tuple[str, ...] | None = None
    allow_sha1: bool | None = None
    config: Config | None = field(default=None, repr=False)

    @classmethod
    def of(cls, anchors: KdcTrust | Sources | None) -> KdcTrust:
        """Return `anchors`, which may be all of it, or the anchors alone."""
        return anchors if isinstance(anchors, KdcTrust) else cls(anchors)

    def for_realm(self, realm: str) -> KdcTrust:
        """Return this with every field set, by krb5.conf where it is None. Raises ConfigError."""
        options = PkinitOptions() if self.config is None else pkinit_options(self.config, realm)
        configured = {
            name: getattr(options, "kdc_hostname" if name == "hosts" else name)
            for name in _SETTINGS
            if getattr(self, name) is None
        }
        return replace(self, **configured) if configured else self

    def verify(
        self, certificates: Sequence[bytes], *, realm: str, hosts: Sequence[str] = (), now: int
    ) -> Any:
        """Return the public key of the KDC's certificate if the KDC of `realm` has it.

        `certificates` are DER, the KDC's own first; the others may lead to an anchor. `hosts` are
        more names as those of `self.hosts`. `now` is the KDC's time, in seconds since 1970. Raises
        CertificateError, and ConfigError.
        """
        trust = self.for_realm(realm)
        if not certificates or len(certificates) > _MAX_CERTIFICATES:
            raise CertificateError(
                f"the KDC of {realm} sent {len(certificates)} certificates, expected 1 to "
                f"{_MAX_CERTIFICATES}: its answer is forged or damaged"
            )
        try:
            leaf, *others = map(load_certificate, certificates)
        except CertificateError as error:
            raise CertificateError(f"a certificate of the KDC of {realm}: {error}") from None
        whose = f"the certificate of the KDC of {realm} ({described(leaf)})"
        time = datetime.fromtimestamp(now, timezone.utc)
        chain = _chain(leaf, others, trust, whose, realm, time)
        _check_purpose(chain, trust.eku_checking or "kpKDC", whose)
        _check_names(leaf, realm, (*(trust.hosts or ()), *hosts), whose)
        _check_revocation(chain, trust, whose, time)
        key = public_key_of(leaf)
        if key is None:
            raise CertificateError(f"{whose} has a key that cannot be read: it is damaged")
        log.debug("%s is trusted: %s", whose, " <- ".join(map(described, chain)))
        return key

    def verify_signature(
        self,
        public_key: Any,
        algorithm: bytes,
        data: bytes,
        signature: bytes,
        *,
        digest: bytes | None = None,
    ) -> None:
        """Raise an error unless `signature` is that of `data` by the key of the KDC's certificate.

        `algorithm` is the DER AlgorithmIdentifier of the signature, `digest` that of the hash,
        which counts if `algorithm` names the kind of the key alone (RFC 3370 3.2). Raises
        PolicyError for SHA-1 unless `allow_sha1`, UnsupportedError for other algorithms that are
        not known, and IntegrityError if the signature does not fit.
        """
        kind, hash_ = self._algorithm(algorithm, digest)
        try:
            if kind == "RSA" and isinstance(public_key, rsa.RSAPublicKey):
                public_key.verify(signature, data, padding.PKCS1v15(), hash_)
                return
            if kind == "ECDSA" and isinstance(public_key, ec.EllipticCurvePublicKey):
                public_key.verify(signature, data, ec.ECDSA(hash_))
                return
        except InvalidSignature:
            pass
        raise IntegrityError(
            "the signature of the KDC's answer does not fit its certificate: the answer is forged "
            "or damaged"
        )

    def _algorithm(
        self, algorithm: bytes, digest: bytes | None
    ) -> tuple[str, hashes.HashAlgorithm]:
        """Return the kind of the key and the hash of a signature."""
        oid = _oid(algorithm)
        kind, hash_ = _SIGNATURES.get(dotted(oid), ("", None))
        if kind and hash_ is None and digest is not None:
            oid = _oid(digest)
            hash_ = _HASHES.get(dotted(oid))
        if hash_ is None:
            raise UnsupportedError(
                f"the KDC signs its answer by {oid_text(oid)}, which purekrb does not have: "
                "expected RSA or ECDSA with SHA-256, SHA-384 or SHA-512"
            )
        # The hash of the content counts as much as that of the signature.
        content_hash = None if digest is None else _HASHES.get(dotted(_oid(digest)))
        is_sha1 = any(isinstance(found, hashes.SHA1) for found in (hash_, content_hash))
        if is_sha1 and not self.allow_sha1:
            raise PolicyError(
                "the KDC signs its answer with SHA-1, which is refused since others could forge "
                "it: give the KDC a newer version; if you accept the risk, set pkinit_allow_sha1 = "
                "true for its realm in krb5.conf, or KdcTrust(allow_sha1=True)"
            )
        return kind, hash_


_SETTINGS = (
    "anchors",
    "pool",
    "revoke",
    "require_crl_checking",
    "eku_checking",
    "hosts",
    "allow_sha1",
)

#: Source: RFC 5754 2, RFC 3370 2.1.
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "1.3.14.3.2.26": hashes.SHA1(),  # noqa: S303
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
#: Signature -> the kind of the key, and the hash if it tells. Source: RFC 5754 3, RFC 3370 3,
#: RFC 5753 7.1.1.
_SIGNATURES: dict[str, tuple[str, hashes.HashAlgorithm | None]] = {
    "1.2.840.113549.1.1.1": ("RSA", None),
    "1.2.840.113549.1.1.5": ("RSA", hashes.SHA1()),  # noqa: S303
    "1.2.840.113549.1.1.11": ("RSA", hashes.SHA256()),
    "1.2.840.113549.1.1.12": ("RSA", hashes.SHA384()),
    "1.2.840.113549.1.1.13": ("RSA", hashes.SHA512()),
    "1.2.840.10045.2.1": ("ECDSA", None),
    "1.2.840.10045.4.1": ("ECDSA", hashes.SHA1()),  # noqa: S303
    "1.2.840.10045.4.3.2": ("ECDSA", hashes.SHA256()),
    "1.2.840.10045.4.3.3": ("ECDSA", hashes.SHA384()),
    "1.2.840.10045.4.3.4": ("ECDSA", hashes.SHA512()),
}


def _oid(algorithm: bytes) -> bytes:
    """Return the OID of a DER AlgorithmIdentifier. Raises DecodeError."""
    tag, begin, end = read_header(algorithm, 0, len(algorithm))
    inner, start, stop = read_header(algorithm, begin, end)
    if tag != 0x30 or inner != 0x06 or end != len(algorithm):
        raise DecodeError("an AlgorithmIdentifier is damaged")
    return algorithm[start:stop]


# -- the chain ---------------------------------------------------------------------------------------


def _authority(_policy: object, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    """Refuse an authority whose key is not for certificates. Source: RFC 5280 4.2.1.3."""
    if usage is not None and not usage.key_cert_sign:
        raise ValueError(f"the key of {described(certificate)} may not sign certificates")


def _policies() -> tuple[verification.ExtensionPolicy, verification.ExtensionPolicy]:
    """Return what authorities and KDCs need: an authority is marked as one; KDCs are checked here."""
    anything = verification.ExtensionPolicy.permit_all()
    either = verification.Criticality.AGNOSTIC
    authorities = anything.require_present(x509.BasicConstraints, either, None)
    return authorities.may_be_present(x509.KeyUsage, either, _authority), anything


def _chain(
    leaf: x509.Certificate,
    others: list[x509.Certificate],
    trust: KdcTrust,
    whose: str,
    realm: str,
    time: datetime,
) -> list[x509.Certificate]:
    """Return the certificates from the KDC's to that of an anchor. Raises CertificateError."""
    anchors = certificates_of(trust.anchors or (), "anchor")
    if not anchors:
        why = "none of the anchors is a certificate" if trust.anchors else "no anchor is given"
        raise CertificateError(
            f"{whose} cannot be checked: {why}; set pkinit_anchors of {realm} in "
            "krb5.conf to the file of its certificate authority, or pass anchors="
        )
    pool = [*others, *certificates_of(trust.pool or (), "certificate")]
    issued = _issued_below(anchors, pool)
    authorities, kdcs = _policies()
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(anchors))
        .time(time)
        .max_chain_depth(_MAX_CHAIN)
        .extension_policies(ca_policy=authorities, ee_policy=kdcs)
        .build_client_verifier()
    )
    try:
        return verifier.verify(leaf, issued).chain
    except Exception as error:  # VerificationError, and what the library says of odd certificates
        reason = str(error)
    raise CertificateError(f"{whose} {_why_untrusted(leaf, [*pool, *anchors], time, reason)}")


def _issued_below(
    anchors: list[x509.Certificate], pool: list[x509.Certificate]
) -> list[x509.Certificate]:
    """Return those of `pool` that lead to an anchor by their signatures, each of which is tried once.

    The validator follows every way through the rest as well: some certificates that sign each other
    have it at work for hours.
    """
    found: list[x509.Certificate] = []
    left = pool
    issuers = anchors
    while issuers:
        new = [one for one in left if any(_has_issued(issuer, one) for issuer in issuers)]
        left = [one for one in left if one not in new]
        found += new
        issuers = new
    return found


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    if issuer.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # InvalidSignature, and what the library says of odd keys and algorithms
        return False
    return True


def _why_untrusted(
    leaf: x509.Certificate, known: list[x509.Certificate], time: datetime, reason: str
) -> str:
    """Return the cause for people, and the remedy that the facts support."""
    problem = date_problem(leaf, time)
    if problem is not None:
        return f"{problem}, and the KDC's clock shows {utc(time)}: renew it on the KDC"
    if leaf.issuer == leaf.subject:
        return "is its own authority, and is none of the anchors: add it to them if you trust it"
    issuers = [certificate for certificate in known if certificate.subject == leaf.issuer]
    issuer = visible(name_text(leaf.issuer))
    if not issuers:
        return (
            f"was issued by {issuer}, which is none of the anchors: add the certificate of that "
            "authority if you trust it (pkinit_anchors, or pkinit_pool if an anchor issued it)"
        )
    for certificate in issuers:
        problem = date_problem(certificate, time)
        if problem is not None:
            return (
                f"was issued by {issuer}, whose certificate {problem}, and the KDC's clock shows "
                f"{utc(time)}: get the new one of that authority"
            )
    return (
        f"does not lead to an anchor, though it names {issuer}: the anchor may be another one of "
        f"that name ({visible(reason)[:200]})"
    )


# -- what it says ------------------------------------------------------------------------------------


def _check_purpose(chain: list[x509.Certificate], checking: EkuChecking, whose: str) -> None:
    """Raise CertificateError unless the certificate is for KDCs, and its key for signatures.

    An authority below the anchor that names purposes issues certificates for these alone, as TLS
    and Windows take it.
    """
    leaf, *authorities = chain
    if "digitalSignature" not in key_usages(leaf):
        raise CertificateError(f"{whose} has a key that may not sign data: it is not for a KDC")
    accepted = _PURPOSES[checking]
    if not accepted:
        return
    found = purposes(leaf) or []
    if not any(purpose in accepted for purpose in found):
        said = (
            f"is for {', '.join(map(_purpose_name, found))} only" if found else "says of no purpose"
        )
        remedy = (
            "; if it is a TLS server's that the KDC uses, set pkinit_eku_checking = kpServerAuth"
            if _SERVER_AUTH in found
            else ""
        )
        raise CertificateError(
            f"{whose} {said}, expected that of a KDC (extended key usage {_KP_KDC}): give the KDC "
            f"another certificate{remedy}"
        )
    for authority in authorities[:-1]:
        limits = purposes(authority)
        if limits is not None and not any(one in (*accepted, _ANY_PURPOSE) for one in limits):
            raise CertificateError(
                f"{whose} was issued by way of {described(authority)}, whose certificates are for "
                f"{', '.join(map(_purpose_name, limits))} only: give the KDC a certificate of "
                "another authority"
            )


def _purpose_name(oid: str) -> str:
    known = {_SERVER_AUTH: "TLS servers", "1.3.6.1.5.5.7.3.2": "TLS clients"}
    return known.get(oid) or OID_NAMES.get(oid, oid)


def _check_names(leaf: x509.Certificate, realm: str, hosts: Iterable[str], whose: str) -> None:
    """Raise CertificateError unless the certificate names the realm's KDC, or one of `hosts`."""
    principals = [name for name in principal_names(leaf) if name.realm]
    if Principal(("krbtgt", realm), realm) in principals:
        return
    own = [host.lower().rstrip(".") for host in host_names(leaf)]
    expected = [host.lower().rstrip(".") for host in hosts]
    if any(host in expected for host in own):
        return
    said = [visible(str(name)) for name in (*principals[:4], *own[:4])]
    remedy = "give the KDC a certificate that does"
    if own and not principals:
        remedy += (
            f"; if {visible(own[0])} is a KDC of {realm} that you trust, as with Active Directory, "
            "set pkinit_kdc_hostname to that name"
        )
    raise CertificateError(
        f"{whose} is for {' and '.join(said) or 'no principal and no host'}, and does not name "
        f"krbtgt/{realm}@{realm}{' or ' + ' or '.join(expected[:4]) if expected else ''}: {remedy}"
    )


# -- revocation --------------------------------------------------------------------------------------


def _check_revocation(
    chain: list[x509.Certificate], trust: KdcTrust, whose: str, time: datetime
) -> None:
    """Raise CertificateError if a list revokes a certificate of the chain, or is needed and missing."""
    lists = [
        found
        for where, data in contents(() if trust.revoke is None else trust.revoke, "revocation list")
        for found in load_crls(data, where)
    ]
    if not lists and not trust.require_crl_checking:
        return
    for certificate, issuer in itertools.pairwise(chain):
        said = [found for found in lists if _is_list_of(found, issuer)]
        if any(_revokes(found, certificate) for found in said):
            raise CertificateError(
                f"{whose} is revoked"
                + ("" if certificate is chain[0] else f", by way of {described(certificate)}")
                + f" by {described(issuer)}: do not trust it, and give the KDC another one"
            )
        current = [found for found in said if _is_current(found, time)]
        if said and not current:
            ends = max(found.next_update_utc or time for found in said)
            raise CertificateError(
                f"{whose} cannot be checked: the revocation list of {described(issuer)} ended at "
                f"{utc(ends)}, and the KDC's clock shows {utc(time)}: get the new list"
            )
        if not said and trust.require_crl_checking:
            raise CertificateError(
                f"{whose} cannot be checked: there is no revocation list of {described(issuer)}, "
                "and pkinit_require_crl_checking asks for one: add it to pkinit_revoke"
            )


def _is_list_of(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Return whether the authority has made the list, and the list stands for itself.

    A list for some certificates alone, or one of changes, has a critical extension (RFC 5280 5.2).
    """
    if found.issuer != issuer.subject or "cRLSign" not in key_usages(issuer):
        return False
    if any(extension.critical for extension in found.extensions):
        log.warning(
            "a revocation list of %s is passed over: it is not a whole one", described(issuer)
        )
        return False
    try:
        return found.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except Exception:  # a key or an algorithm that the library does not have
        return False


def _revokes(found: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    """Return whether the list revokes the certificate; a list that cannot be read revokes all."""
    try:
        entry = found.get_revoked_certificate_by_serial_number(certificate.serial_number)
    except ValueError:
        return True
    return entry is not None


def _is_current(found: x509.CertificateRevocationList, time: datetime) -> bool:
    return found.next_update_utc is None or time <= found.next_update_utc
