"""PKINIT: a proof by the client's certificate, or of nothing at all (anonymous).

Both sides agree on a key by Diffie-Hellman with fresh values. The client signs its value if it has
a certificate; the KDC always signs its own, and its certificate must lead to an anchor. Who gets
either key later cannot read what was recorded. Source: RFC 4556 3, RFC 5349, RFC 8062, RFC 8070,
RFC 8636, MS-PKCA.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime

from purekrb import crypto
from purekrb.constants import ErrorCode, KeyUsage, PaDataType
from purekrb.credentials.kdc_trust import KdcTrust
from purekrb.crypto.dh import DH_GROUPS, Curve, DhGroup, DhSecret, Field
from purekrb.crypto.pkinit_kdf import KDF_HASHES, kdf_key, octetstring2key
from purekrb.errors import (
    DecodeError,
    IntegrityError,
    PolicyError,
    ProtocolError,
)
from purekrb.exchanges.preauth.client_keys import ClientKeys
from purekrb.exchanges.preauth.mechanism import Next
from purekrb.exchanges.preauth.signed_data import (
    open_signed_data,
    signed_data,
    to_sign,
    unsigned_data,
)
from purekrb.exchanges.runner import Computation, Exchange
from purekrb.keys import EncryptionKey
from purekrb.krb5conf.pkinit import pkinit_options
from purekrb.log import Log
from purekrb.messages.ap import EncryptedData, KrbError
from purekrb.messages.certificate_names import Krb5PrincipalName
from purekrb.messages.cms import AlgorithmIdentifier, Algorithms, SubjectPublicKeyInfo
from purekrb.messages.der import tlv
from purekrb.messages.kdc import AsRep, KdcReqBody, MethodData, PaData
from purekrb.messages.pkinit import (
    AuthPack,
    KdcDhKeyInfo,
    OtherInfo,
    PaChecksum2,
    PaPkAsReq,
    PkAuthenticator,
    SuppPubInfo,
    TypedData,
    decode_key,
    decode_pa_pk_as_rep,
    dh_number,
    encode_dh_number,
)
from purekrb.names import ANONYMOUS_REALM, PrincipalName
from purekrb.oids import contents_of, dotted, oid_text
from purekrb.system import RandomBytes

__all__ = [
    "key_by_sha1",
    "AUTH_DATA",
    "DH_KEY_DATA",
    "PkinitProof",
    "check_key_exchange",
    "group_of",
    "other_info",
    "public_key_info",
    "public_value",
    "wire_value",
]

log = Log("purekrb.kdc")

#: The types of the signed contents: an AuthPack, a KDCDHKeyInfo.
AUTH_DATA = contents_of("1.3.6.1.5.2.3.1")
DH_KEY_DATA = contents_of("1.3.6.1.5.2.3.2")
_DH_PUBLIC_NUMBER = contents_of("1.2.840.10046.2.1")
_EC_PUBLIC_KEY = contents_of("1.2.840.10045.2.1")
#: The OID of each curve, whole. Source: RFC 5480 2.1.1.1.
_CURVES = {
    "P-256": tlv(0x06, contents_of("1.2.840.10045.3.1.7")),
    "P-384": tlv(0x06, contents_of("1.3.132.0.34")),
    "P-521": tlv(0x06, contents_of("1.3.132.0.35")),
}
_SHA256 = AlgorithmIdentifier(contents_of("2.16.840.1.101.3.4.2.1"), b"")
#: The signatures that are read here, the preferred ones first. Source: RFC 8636 4.
_SIGNATURES = tuple(
    AlgorithmIdentifier(contents_of(oid), parameters)
    for oid, parameters in (
        ("1.2.840.113549.1.1.11", b"\x05\0"),
        ("1.2.840.113549.1.1.13", b"\x05\0"),
        ("1.2.840.10045.4.3.2", b""),
        ("1.2.840.10045.4.3.3", b""),
        ("1.2.840.10045.4.3.4", b""),
    )
)
#: What a KDC may say that does not take the SHA-1 checksum alone. Source: MS-PKCA, RFC 4556 3.2.2.
_CHECKSUM_MISSED = frozenset(
    (
        ErrorCode.KDC_ERR_SUMTYPE_NOSUPP,
        ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
        ErrorCode.KRB_AP_ERR_MODIFIED,
        ErrorCode.KRB_AP_ERR_INAPP_CKSUM,
        ErrorCode.KDC_ERR_PA_CHECKSUM_MUST_BE_INCLUDED,
        ErrorCode.KDC_ERR_DIGEST_IN_SIGNED_DATA_NOT_ACCEPTED,
    )
)
_DH_PARAMETERS = PaDataType.TD_DH_PARAMETERS
_KDFS = tuple(KDF_HASHES)[:-1]  # without SHA-1


# -- groups on the wire ----------------------------------------------------------------------------


def _algorithm(group: Field | Curve) -> AlgorithmIdentifier:
    """Return the group as SubjectPublicKeyInfo names it. Source: RFC 3279 2.3.3, RFC 5480 2.1."""
    if isinstance(group, Curve):
        return AlgorithmIdentifier(_EC_PUBLIC_KEY, _CURVES[group.name])
    p, g, q = group.prime, group.generator, (group.prime - 1) // 2
    numbers = (encode_dh_number(n.to_bytes(group.size, "big")) for n in (p, g, q))
    return AlgorithmIdentifier(_DH_PUBLIC_NUMBER, tlv(0x30, b"".join(numbers)))


_ALGORITHMS = {name: _algorithm(group) for name, group in DH_GROUPS.items()}


def group_of(algorithm: AlgorithmIdentifier) -> Field | Curve | None:
    """Return the group that is meant, or None for one that is not had."""
    for name, known in _ALGORITHMS.items():
        if algorithm == known:
            return DH_GROUPS[name]
        # RFC 3279 2.3.3: q may be missing in practice, and more may follow it.
        group = DH_GROUPS[name]
        if isinstance(group, Field) and algorithm.algorithm == _DH_PUBLIC_NUMBER:
            p_and_g = encode_dh_number(group.prime.to_bytes(group.size, "big")) + b"\x02\1\2"
            if p_and_g == algorithm.parameters[4 : 4 + len(p_and_g)]:
                return group
    return None


def wire_value(group: DhGroup, value: bytes) -> bytes:
    """Return a public value as a SubjectPublicKeyInfo and a KDCDHKeyInfo hold it."""
    return encode_dh_number(value) if isinstance(group, Field) else value


def public_value(group: DhGroup, data: bytes) -> bytes:
    """Return the public value that `wire_value` gives. Raises DecodeError."""
    return dh_number(data) if isinstance(group, Field) else data


def public_key_info(group: Field | Curve, value: bytes) -> SubjectPublicKeyInfo:
    """Return the public key that an AuthPack holds."""
    return SubjectPublicKeyInfo(_ALGORITHMS[group.name], wire_value(group, value))


def other_info(kdf: bytes, etype: int, body: KdcReqBody, request: bytes, pk_as_rep: bytes) -> bytes:
    """Return what the key derivation `kdf` binds the key to: names, request and reply.

    `request` is the whole AS-REQ as it went out, `pk_as_rep` the value of PA-PK-AS-REP as it came.
    The realm of an anonymous client is hidden here, too, as MIT does. Source: RFC 8636 4.
    """
    cname, sname = body.cname or PrincipalName(()), body.sname or PrincipalName(())
    crealm = ANONYMOUS_REALM if cname.anonymous else body.realm
    client = Krb5PrincipalName(crealm, cname).encode()
    server = Krb5PrincipalName(body.realm, sname).encode()
    bound = SuppPubInfo(etype, request, pk_as_rep).encode()
    return OtherInfo(AlgorithmIdentifier(kdf, b""), client, server, bound).encode()


# -- the proof -------------------------------------------------------------------------------------


class PkinitProof:
    """One use of PKINIT by the client of `keys`: its certificate's, or anonymous."""

    def __init__(self, keys: ClientKeys, trust: KdcTrust, random: RandomBytes) -> None:
        self._keys = keys
        self._random = random
        self._trust = trust.for_realm(keys.realm)
        config = trust.config
        self._min_bits = 2048 if config is None else pkinit_options(config, keys.realm).dh_min_bits
        self._group = _first_group(self._min_bits)
        self._asked = False
        self._other_group_asked = False
        self._freshness_token: bytes | None = None
        #: Whether the KDC gets the checksum of MS-PKCA, too. Those that know RFC 8070 skip what they
        #: do not know there; Heimdal's before 8 takes the rest of the request for missing.
        self._second_checksum = False
        self._sent: tuple[DhSecret, KdcReqBody, datetime] | None = None

    def __str__(self) -> str:
        if not self._asked:
            return "PA-PK-AS-REQ, when the KDC asks for it"
        whose = "a certificate" if self._keys.credential.certificate else "nobody's name"
        return f"PA-PK-AS-REQ in {_described(self._group)} by {whose}"

    def asked(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[None]:
        """Like `Proof.asked`: take the freshness token. Source: RFC 8070 2.3."""
        if self._sent is not None:
            raise PolicyError(
                f"{self._keys.label}: the KDC asks for the same proof again without a reason; it was "
                "not sent a second time"
            )
        tokens = (m.padata_value for m in methods if m.padata_type == PaDataType.AS_FRESHNESS)
        self._freshness_token = next(tokens, None) or None
        self._second_checksum = self._freshness_token is not None
        self._asked = True
        return
        yield  # a generator, as the interface says

    def padata(self, body: KdcReqBody, time: datetime) -> Exchange[tuple[PaData, ...]]:
        """Like `Proof.padata`: a fresh public value, signed; before that, that we take a token."""
        if not self._asked:
            wanted = self._keys.credential.freshness
            return (PaData(PaDataType.AS_FRESHNESS, b""),) if wanted else ()
        secret = self._group.new_secret(self._random)
        pack = self._auth_pack(secret, body, time).encode()
        request = PaPkAsReq((yield from self._signed(pack, time)))
        self._sent = secret, body, time
        return (PaData(PaDataType.PK_AS_REQ, request.encode()),)

    def _auth_pack(self, secret: DhSecret, body: KdcReqBody, time: datetime) -> AuthPack:
        encoded = body.encode()
        second = PaChecksum2(hashlib.sha256(encoded).digest(), _SHA256)
        authenticator = PkAuthenticator(
            cusec=time.microsecond,
            ctime=time.replace(microsecond=0),
            nonce=body.nonce,
            # RFC 4556 3.2.1 says SHA-1. Domain controllers without it look at the second.
            pa_checksum=hashlib.sha1(encoded).digest(),  # noqa: S324
            freshness_token=self._freshness_token,
            pa_checksum2=second if self._second_checksum else None,
        )
        return AuthPack(
            pk_authenticator=authenticator,
            client_public_value=public_key_info(self._group, secret.public),
            supported_cms_types=_SIGNATURES,
            client_dh_nonce=None,  # no value is used twice
            supported_kdfs=tuple(map(contents_of, _KDFS)),
        )

    def _signed(self, pack: bytes, time: datetime) -> Exchange[bytes]:
        certificate = self._keys.credential.certificate
        if certificate is None:
            return unsigned_data(AUTH_DATA, pack)  # RFC 8062 4.1
        from purekrb.credentials.certificate import signature_kind

        certificate.check_dates(time)
        digest = signature_kind(certificate.certificate.public_key()).hash.name
        attributes = to_sign(AUTH_DATA, pack, digest)
        if not certificate.waits:
            signature = certificate.sign(attributes)
            return signed_data(AUTH_DATA, pack, attributes, digest, signature, certificate.chain)
        signing = Computation(
            lambda: certificate.sign(attributes),
            "the key of the certificate did not sign before the deadline: is the card in its "
            "reader, and does it wait for somebody?",
        )
        yield signing
        return signed_data(AUTH_DATA, pack, attributes, digest, signing.result, certificate.chain)

    def refused(self, error: KrbError) -> Next:
        """Like `Proof.refused`: once, another group may do, and once another checksum.

        Nothing weaker follows this proof.
        """
        if self._sent is None:
            return Next.FAILURE
        if error.error_code in _CHECKSUM_MISSED and not self._second_checksum:
            log.debug("the KDC may want the second checksum")
            self._second_checksum, self._sent = True, None
            return Next.AGAIN
        wants_other = error.error_code == ErrorCode.KDC_ERR_DH_KEY_PARAMETERS_NOT_ACCEPTED
        if not wants_other or self._other_group_asked:
            return Next.FAILURE
        self._other_group_asked = True
        wanted = [group for group in map(group_of, _dh_parameters(error)) if group]
        strong = [group for group in wanted if group.strength >= self._min_bits]
        if not strong:
            found = ", ".join(map(_described, wanted)) or "no group that purekrb has"
            raise PolicyError(
                f"the KDC does not take {_described(self._group)}: it names {found}, and "
                f"pkinit_dh_min_bits is {self._min_bits} ({self._keys.label}); have the KDC take one "
                "of at least that size"
            )
        strongest = max(strong, key=lambda group: group.strength)
        if strongest is self._group:
            return Next.FAILURE
        log.debug("the KDC wants another group: %s", _described(strongest))
        self._group, self._sent = strongest, None
        return Next.AGAIN

    def reply_key(self, reply: AsRep, request: bytes) -> Exchange[EncryptionKey]:
        """Like `Proof.reply_key`: the shared one, after the check of the KDC's signature."""
        found = [p for p in reply.padata or () if p.padata_type == PaDataType.PK_AS_REP]
        if self._sent is None or not found:
            raise PolicyError(
                f"{self._keys.label}: the KDC gave a ticket without PKINIT, under a key that a "
                "certificate does not have; have the account require pre-authentication, and the "
                "KDC offer PKINIT"
            )
        secret, body, time = self._sent
        self._sent = None
        value = found[0].padata_value
        answer = decode_pa_pk_as_rep(value)
        info = self._opened(answer.dh_signed_data, body, time)
        if answer.server_dh_nonce is not None:  # RFC 4556 3.2.3.1: only with a clientDHNonce
            raise ProtocolError(
                "the KDC would use its Diffie-Hellman value again; nobody asked it to"
            )
        received = public_value(self._group, info.subject_public_key)
        shared, etype = secret.shared(received), reply.enc_part.etype
        if answer.kdf is None:
            log.debug("the KDC has no key derivation of RFC 8636: the key is made by SHA-1")
            return key_by_sha1(shared, reply.enc_part)
        kdf = dotted(answer.kdf)
        if kdf not in _KDFS:
            raise ProtocolError(
                "the KDC derives the key by a function that was not offered",
                got=oid_text(answer.kdf),
            )
        return kdf_key(kdf, etype, shared, other_info(answer.kdf, etype, body, request, value))
        yield  # a generator, as the interface says

    def _opened(self, data: bytes, body: KdcReqBody, time: datetime) -> KdcDhKeyInfo:
        """Return what the KDC has signed, if it is the KDC of the realm. RFC 4556 3.2.4."""
        try:
            opened = open_signed_data(data, DH_KEY_DATA)
        except IntegrityError:
            opened = None
        if opened is None or not opened.signature:
            raise IntegrityError(
                f"{self._keys.label}: the KDC's Diffie-Hellman value is not signed, or is not the "
                "one that was signed: the answer is forged or damaged"
            )
        trust = self._trust
        key = trust.verify(opened.certificates, realm=body.realm, now=int(time.timestamp()))
        trust.verify_signature(
            key, opened.algorithm, opened.attributes, opened.signature, digest=opened.digest
        )
        info = KdcDhKeyInfo.decode(opened.content)
        if info.nonce != body.nonce:  # RFC 4556 3.2.4
            raise ProtocolError(
                "the KDC's Diffie-Hellman value belongs to another request: its nonce differs (a "
                "replayed reply?)"
            )
        return info


def _first_group(min_bits: int) -> Field | Curve:
    """Return the weakest finite field of at least `min_bits`: every KDC has those; else a curve."""
    strong = [group for group in DH_GROUPS.values() if group.strength >= min_bits]
    fields = [group for group in strong if isinstance(group, Field)]
    return (fields or strong)[0]


def _described(group: Field | Curve) -> str:
    return group.name if isinstance(group, Curve) else f"a field of {group.name} bits"


def _dh_parameters(error: KrbError) -> Iterable[AlgorithmIdentifier]:
    """Return the groups that the KDC takes: TD-DH-PARAMETERS, bare, in FAST or among typed data."""
    data = error.e_data or b""
    try:
        typed = TypedData.decode(data).entries
        values = [entry.data_value or b"" for entry in typed if entry.data_type == _DH_PARAMETERS]
    except DecodeError:
        methods: MethodData = MethodData.decode(data)
        entries = methods.entries
        values = [entry.padata_value for entry in entries if entry.padata_type == _DH_PARAMETERS]
    return Algorithms.decode(values[0]).entries if values else ()


def check_key_exchange(
    reply: AsRep, key: EncryptionKey, session_key: EncryptionKey, *, anonymous: bool
) -> None:
    """Refuse a session key to which the KDC alone, or a KDC of another client, has contributed.

    `key` is the reply key of PKINIT, without FAST. Anonymous clients need the proof; from others,
    it is checked where it is there. Source: RFC 8062 7.
    """
    found = [p for p in reply.padata or () if p.padata_type == PaDataType.PKINIT_KX]
    if not found:
        if anonymous:
            raise ProtocolError(
                "the KDC does not prove that it gave the session key to this client alone: "
                "PA-PKINIT-KX is missing"
            )
        return
    encrypted = EncryptedData.decode(found[0].padata_value)
    plain = crypto.decrypt(key, KeyUsage.PA_PKINIT_KX, encrypted.cipher)
    expected = crypto.cf2(decode_key(plain), key, b"PKINIT", b"KEYEXCHANGE")
    same_etype = expected.etype == session_key.etype
    if not (same_etype and hmac.compare_digest(expected.contents, session_key.contents)):
        raise ProtocolError(
            "the session key is not the one of PA-PKINIT-KX: someone between may know it"
        )


def key_by_sha1(shared: bytes, sealed: EncryptedData) -> EncryptionKey:
    """Return the reply key without RFC 8636, by which `sealed`, the reply's, is encrypted.

    RFC 4556 3.2.3.1 pads the shared value with zeros to the length of the prime. So does Heimdal's
    KDC, but it then takes only as many bytes as there were before: the last ones are lost, in one of
    256 exchanges. That key is taken if the reply decrypts with it.
    """
    key = octetstring2key(sealed.etype, shared)
    if shared[0] == 0:
        shorter = octetstring2key(sealed.etype, shared[: len(shared.lstrip(b"\0"))])
        try:
            crypto.decrypt(shorter, KeyUsage.AS_REP_ENC_PART, sealed.cipher)
        except IntegrityError:
            return key
        return shorter
    return key
