"""PKINIT at the embedded KDC, with a certificate authority of its own. FOR TESTS AND DEMOS ONLY.

Source: RFC 4556 3, RFC 5349, RFC 8062, RFC 8070, RFC 8636.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from purekrb import system
from purekrb.constants import ErrorCode, PaDataType
from purekrb.credentials.certificate import signature_kind
from purekrb.credentials.kdc_trust import KdcTrust
from purekrb.credentials.x509 import date_problem, load_certificate, principal_names, purposes
from purekrb.crypto.dh import DH_GROUPS, Curve, Field
from purekrb.crypto.pkinit_kdf import KDF_HASHES, kdf_key, octetstring2key
from purekrb.errors import DecodeError, IntegrityError, KerberosError, ProtocolError
from purekrb.exchanges.preauth.pkinit import (
    AUTH_DATA,
    DH_KEY_DATA,
    group_of,
    other_info,
    public_key_info,
    public_value,
    wire_value,
)
from purekrb.exchanges.preauth.signed_data import (
    OpenedData,
    open_signed_data,
    signed_data,
    to_sign,
)
from purekrb.keys import EncryptionKey
from purekrb.messages.cms import Algorithms
from purekrb.messages.kdc import PaData
from purekrb.messages.pkinit import (
    AuthPack,
    DhRepInfo,
    KdcDhKeyInfo,
    PaPkAsReq,
    TypedData,
    TypedDataEntry,
)
from purekrb.names import Principal
from purekrb.oids import contents_of
from purekrb.testing.certificates import KP_CLIENT, KP_KDC, Authority, KeyKind
from purekrb.testing.kdc_accounts import CLOCK_SKEW, RefusedError
from purekrb.testing.kdc_preauth import PreauthRequest

__all__ = ["KdcPkinit"]

_MAX_TOKENS = 1000


class KdcPkinit:
    """The mechanism for the KDC of `realm`, which has a certificate by an authority of its own.

    `groups` and `kdfs` (dotted OIDs) are those that it takes, the preferred one first; without
    `kdfs`, it makes keys as before RFC 8636. With `anonymous`, it gives tickets to anonymous
    clients. With `freshness`, it gives clients tokens, and with `require_freshness` they must bring
    them. With `require_sha2`, the checksum of RFC 4556, which is SHA-1, does not do.
    `key` is the kind of the KDC's own key, `hosts` are DNS names in its certificate; without
    `names_realm`, its certificate names these alone. With `key_exchange`, it proves to all clients
    what anonymous ones must see.
    """

    type: int = PaDataType.PK_AS_REQ

    def __init__(
        self,
        realm: str,
        now: datetime | None = None,
        *,
        groups: Iterable[str] = tuple(DH_GROUPS),
        kdfs: Iterable[str] = tuple(KDF_HASHES),
        anonymous: bool = True,
        freshness: bool = True,
        require_freshness: bool = False,
        require_sha2: bool = False,
        key: KeyKind = "P-256",
        hosts: Iterable[str] = (),
        names_realm: bool = True,
        key_exchange: bool = False,
    ) -> None:
        self.authority = Authority(f"CA of {realm}", now or system.now())
        self.groups: tuple[Field | Curve, ...] = tuple(DH_GROUPS[name] for name in groups)
        self.kdfs = tuple(kdfs)
        self.anonymous = anonymous
        self.freshness, self.require_freshness = freshness, require_freshness
        self.require_sha2 = require_sha2
        self.key_exchange = key_exchange
        self.revoked: set[int] = set()
        tgs = Principal(("krbtgt", realm), realm) if names_realm else None
        self.certificate = self.authority.issue(
            f"KDC of {realm}", tgs, purposes=(KP_KDC,), hosts=hosts, key=key
        )
        self._tokens: deque[bytes] = deque(maxlen=_MAX_TOKENS)

    def hint(self, request: PreauthRequest) -> bytes | None:
        """Return nothing; beside it goes a freshness token, if the client takes one."""
        if request.client.name.anonymous and not self.anonymous:
            return None
        padata = request.message.padata or ()
        if self.freshness and any(p.padata_type == PaDataType.AS_FRESHNESS for p in padata):
            token = request.random(16)
            self._tokens.append(token)
            request.offers.append(PaData(PaDataType.AS_FRESHNESS, token))
        return b""

    def verify(self, request: PreauthRequest, value: bytes) -> EncryptionKey:
        """Return the shared key; refuse what is not of the client. Source: RFC 4556 3.2.2."""
        try:
            opened = open_signed_data(PaPkAsReq.decode(value).signed_auth_pack, AUTH_DATA)
        except IntegrityError:
            raise RefusedError(ErrorCode.KDC_ERR_INVALID_SIG, "another content is signed") from None
        if request.client.name.anonymous:
            if not self.anonymous or opened.certificates:
                raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "not for anonymous clients")
        else:
            self._check_client(request, opened)
        pack = AuthPack.decode(opened.content)
        self._check_pack(request, pack)
        request.key_exchange = self.key_exchange or request.client.name.anonymous
        return self._answer(request, pack)

    def _check_client(self, request: PreauthRequest, opened: OpenedData) -> None:
        """Refuse unless the client's certificate and signature are good, and it names the client."""
        if not opened.certificates:
            raise RefusedError(ErrorCode.KDC_ERR_INVALID_SIG, "the request is not signed")
        leaf = load_certificate(opened.certificates[0])
        try:
            leaf.verify_directly_issued_by(self.authority.certificate)
        except (ValueError, TypeError, InvalidSignature):
            raise RefusedError(
                ErrorCode.KDC_ERR_CANT_VERIFY_CERTIFICATE, "the certificate is of no authority here"
            ) from None
        if date_problem(leaf, request.time):
            raise RefusedError(ErrorCode.KDC_ERR_INVALID_CERTIFICATE, "the certificate has expired")
        if leaf.serial_number in self.revoked:
            raise RefusedError(ErrorCode.KDC_ERR_REVOKED_CERTIFICATE, "the certificate is revoked")
        if KP_CLIENT.dotted_string not in (purposes(leaf) or ()):
            raise RefusedError(
                ErrorCode.KDC_ERR_INCONSISTENT_KEY_PURPOSE, "the certificate is not for clients"
            )
        if not self._names(leaf, request):
            raise RefusedError(
                ErrorCode.KDC_ERR_CLIENT_NAME_MISMATCH, "the certificate is for another client"
            )
        try:
            KdcTrust().verify_signature(
                leaf.public_key(),
                opened.algorithm,
                opened.attributes,
                opened.signature,
                digest=opened.digest,
            )
        except KerberosError:
            raise RefusedError(ErrorCode.KDC_ERR_INVALID_SIG, "the signature is wrong") from None

    def _names(self, leaf: x509.Certificate, request: PreauthRequest) -> bool:
        """Return whether the certificate names the client, or the name by which it asks."""
        body = request.message.req_body
        asked = body.cname.components if body.cname else ()
        return any(
            name == request.client.name.principal(body.realm)
            or (not name.realm and name.components == asked)
            for name in principal_names(leaf)
        )

    def _check_pack(self, request: PreauthRequest, pack: AuthPack) -> None:
        """Refuse what was not made for this request, or not now."""
        found, body = pack.pk_authenticator, request.message.req_body
        encoded = body.encode()
        second = found.pa_checksum2
        if second is None and (found.pa_checksum is None or self.require_sha2):
            raise RefusedError(
                ErrorCode.KDC_ERR_PA_CHECKSUM_MUST_BE_INCLUDED, "the request has no checksum"
            )
        sha1 = hashlib.sha1(encoded).digest()  # noqa: S324 - RFC 4556 3.2.1
        sha256 = hashlib.sha256(encoded).digest()
        fits = hmac.compare_digest(found.pa_checksum or sha1, sha1) and hmac.compare_digest(
            sha256 if second is None else second.checksum, sha256
        )
        if not fits or found.nonce != body.nonce:
            raise RefusedError(ErrorCode.KRB_AP_ERR_MODIFIED, "the proof is of another request")
        if abs(found.ctime - request.time) > CLOCK_SKEW:
            raise RefusedError(ErrorCode.KRB_AP_ERR_SKEW, "the clock of the client is too far off")
        fresh = found.freshness_token in self._tokens
        if self.require_freshness and not fresh and not request.client.name.anonymous:
            raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "there is no freshness token")

    def _answer(self, request: PreauthRequest, pack: AuthPack) -> EncryptionKey:
        """Return the shared key, and add the KDC's value to the answer."""
        theirs = pack.client_public_value
        group = None if theirs is None else group_of(theirs.algorithm)
        if theirs is None or group is None or group not in self.groups:
            raise self._other_group()
        secret = group.new_secret(request.random)
        public = secret.public
        try:
            shared = secret.shared(public_value(group, theirs.subject_public_key))
        except (DecodeError, ProtocolError):
            raise self._other_group() from None
        offered = pack.supported_kdfs
        name = next((name for name in self.kdfs if contents_of(name) in (offered or ())), None)
        if self.kdfs and offered is not None and name is None:
            raise RefusedError(ErrorCode.KDC_ERR_NO_ACCEPTABLE_KDF, "no key derivation in common")
        body = request.message.req_body
        info = KdcDhKeyInfo(wire_value(group, public), body.nonce, None)
        kdf = None if name is None else contents_of(name)
        value = DhRepInfo(self._signed(info.encode()), None, kdf).encode()
        request.answers.append(PaData(PaDataType.PK_AS_REP, value))
        etype = next(e for e in body.etype if e in request.client.etypes)
        if kdf is None or name is None:
            return octetstring2key(etype, shared)
        bound = other_info(kdf, etype, body, request.encoded, value)
        return kdf_key(name, etype, shared, bound)

    def _signed(self, content: bytes) -> bytes:
        certificate = self.certificate
        digest = signature_kind(certificate.certificate.public_key()).hash.name
        attributes = to_sign(DH_KEY_DATA, content, digest)
        signature = certificate.sign(attributes)
        return signed_data(DH_KEY_DATA, content, attributes, digest, signature, certificate.chain)

    def _other_group(self) -> RefusedError:
        taken = tuple(public_key_info(group, b"").algorithm for group in self.groups)
        entry = TypedDataEntry(PaDataType.TD_DH_PARAMETERS, Algorithms(taken).encode())
        return RefusedError(
            ErrorCode.KDC_ERR_DH_KEY_PARAMETERS_NOT_ACCEPTED,
            "the group is not one of those that are taken",
            e_data=TypedData((entry,)).encode(),
        )
