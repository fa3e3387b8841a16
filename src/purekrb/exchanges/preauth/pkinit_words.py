"""What a KDC that refuses PKINIT says, in words. Source: RFC 4556 3.1.3, RFC 8636 6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purekrb.constants import ErrorCode
from purekrb.errors import KdcError, PreauthFailedError
from purekrb.exchanges.kdc_reply import ExchangeLabel, kdc_error
from purekrb.messages.ap import KrbError

if TYPE_CHECKING:
    from purekrb.credentials.certificate import ClientCertificate

__all__ = ["refusal"]

_OTHER_CERTIFICATE = "use another certificate, or have the realm's administrator look at this one"
#: error-code -> what the KDC says of the certificate, and what helps.
_REFUSALS: dict[int, tuple[str, str]] = {
    ErrorCode.KDC_ERR_PADATA_TYPE_NOSUPP: (
        "the KDC does not do PKINIT: it has no certificate for it",
        "give the KDC one (in Active Directory, of the template Kerberos Authentication; in MIT's "
        "kdc.conf, pkinit_identity), and restart it",
    ),
    ErrorCode.KDC_ERR_PREAUTH_FAILED: (
        "the KDC does not accept the proof",
        "see the KDC's log: it may want a freshness token, another certificate, or other rules that "
        "lead from the certificate to the account",
    ),
    ErrorCode.KDC_ERR_CLIENT_NOT_TRUSTED: (
        "the KDC does not trust the client's certificate",
        "have its authority added to those of the KDC (in Active Directory, to NTAuth)",
    ),
    ErrorCode.KDC_ERR_KDC_NOT_TRUSTED: (
        "the KDC has no certificate that this client would trust",
        "give the KDC a certificate of one of the anchors",
    ),
    ErrorCode.KDC_ERR_INVALID_SIG: (
        "the KDC finds the client's signature wrong",
        "check that the key belongs to the certificate",
    ),
    ErrorCode.KDC_ERR_DH_KEY_PARAMETERS_NOT_ACCEPTED: (
        "the KDC takes none of the Diffie-Hellman groups that are permitted here",
        "set pkinit_dh_min_bits to what the KDC takes, 2048 at least",
    ),
    ErrorCode.KDC_ERR_CERTIFICATE_MISMATCH: (
        "the certificate is not the one that the KDC has for the account",
        "use that one, or have this one registered (in Active Directory, altSecurityIdentities)",
    ),
    ErrorCode.KDC_ERR_CANT_VERIFY_CERTIFICATE: (
        "the KDC finds no way from the client's certificate to an authority that it trusts",
        "put the certificates between them into the client's file, or have the authority added to "
        "those of the KDC",
    ),
    ErrorCode.KDC_ERR_INVALID_CERTIFICATE: (
        "the KDC finds a certificate of the client, or of an authority, invalid",
        _OTHER_CERTIFICATE,
    ),
    ErrorCode.KDC_ERR_REVOKED_CERTIFICATE: (
        "the client's certificate, or that of an authority, is revoked",
        "get a new certificate",
    ),
    ErrorCode.KDC_ERR_REVOCATION_STATUS_UNKNOWN: (
        "the KDC does not know whether the client's certificate is revoked",
        "have the KDC get the revocation list of the authority",
    ),
    ErrorCode.KDC_ERR_REVOCATION_STATUS_UNAVAILABLE: (
        "the KDC cannot find out whether the client's certificate is revoked",
        "have the KDC reach the authority's revocation list",
    ),
    ErrorCode.KDC_ERR_CLIENT_NAME_MISMATCH: (
        "the certificate does not name this account",
        "use a certificate that names it: as id-pkinit-san, or in Active Directory as the user "
        "principal name; or name the account that it is for",
    ),
    ErrorCode.KDC_ERR_KDC_NAME_MISMATCH: (
        "the KDC is not the one that was named",
        "ask a KDC of the client's realm",
    ),
    ErrorCode.KDC_ERR_INCONSISTENT_KEY_PURPOSE: (
        "the certificate is not for logging in",
        "use one with the purpose id-pkinit-KPClientAuth, or smart card logon, whose key may make "
        "signatures (MIT's KDC wants the key usage digitalSignature to say so)",
    ),
    ErrorCode.KDC_ERR_DIGEST_IN_CERT_NOT_ACCEPTED: (
        "the KDC does not accept the hash with which the client's certificate is signed",
        "get a certificate that is signed with SHA-256",
    ),
    ErrorCode.KDC_ERR_PA_CHECKSUM_MUST_BE_INCLUDED: (
        "the KDC misses a checksum of the request",
        "see the KDC's log: both that there are were sent",
    ),
    ErrorCode.KDC_ERR_DIGEST_IN_SIGNED_DATA_NOT_ACCEPTED: (
        "the KDC does not accept the hash of the client's signature",
        "use a certificate with another kind of key",
    ),
    ErrorCode.KDC_ERR_PUBLIC_KEY_ENCRYPTION_NOT_SUPPORTED: (
        "the KDC does not do public-key encryption, which nobody asked it to",
        "see the KDC's log for the reason",
    ),
    ErrorCode.KDC_ERR_NO_ACCEPTABLE_KDF: (
        "the KDC has none of the key derivations SHA-256, SHA-384 and SHA-512",
        "give the KDC a newer version",
    ),
}  # fmt: skip
#: What Heimdal says of keys that it does not read, and of authorities that it does not trust.
_CANNOT_VERIFY = "the KDC could not verify the client's signature"
_RSA_WANTED = "use an RSA key: KDCs of Heimdal and Samba do not read those of elliptic curves"
_ANCHOR_WANTED = (
    "have the authority of the client's certificate added to those of the KDC (pkinit_anchors); "
    "Heimdal says no more of one that it does not trust"
)


def refusal(
    error: KrbError, label: ExchangeLabel, certificate: ClientCertificate | None
) -> KdcError:
    """Return the exception for the KRB-ERROR that ends an exchange by PKINIT."""
    code = error.error_code
    said = _REFUSALS.get(code)
    if code == ErrorCode.KRB_AP_ERR_BAD_INTEGRITY and certificate is not None:
        said = _CANNOT_VERIFY, _RSA_WANTED if certificate.elliptic else _ANCHOR_WANTED
    if said is None:
        return kdc_error(error, label)
    what, advice = said
    kind = PreauthFailedError if code == ErrorCode.KDC_ERR_PREAUTH_FAILED else KdcError
    return kdc_error(error, label, words=(kind, what, advice))
