"""PKINIT under attack: by a KDC with or without a certificate, and by who is on the path.

K520 to K548. Values that are none of a group, in every group: tests/unit/test_pkinit.py; certificates:
tests/unit/test_kdc_trust.py.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from purekrb import (
    CertificateError,
    Credential,
    DecodeError,
    IntegrityError,
    KdcError,
    KerberosError,
    PolicyError,
    PreauthFailedError,
    PreauthUnsupportedError,
    Principal,
    ProtocolError,
    UnsupportedError,
)
from purekrb.constants import ErrorCode, PaDataType, TicketFlags
from purekrb.credentials.kdc_trust import KdcTrust
from purekrb.crypto.dh import DH_GROUPS, Field
from purekrb.exchanges.as_exchange import AsOptions, as_exchange
from purekrb.exchanges.preauth.choice import mechanisms
from purekrb.exchanges.preauth.pkinit import DH_KEY_DATA
from purekrb.exchanges.preauth.signed_data import signed_data, to_sign
from purekrb.exchanges.runner import run
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import KrbError
from purekrb.messages.cms import AlgorithmIdentifier, Algorithms, ContentInfo, SignedData
from purekrb.messages.der import tlv
from purekrb.messages.kdc import AsRep, AsReq, MethodData, PaData
from purekrb.messages.pkinit import (
    DhRepInfo,
    KdcDhKeyInfo,
    TypedData,
    TypedDataEntry,
    encode_dh_number,
)
from purekrb.oids import contents_of
from purekrb.system import now, random_bytes
from purekrb.testing import Realm
from purekrb.testing.certificates import KP_CLIENT, KP_KDC
from purekrb.testing.kdc_pkinit import KdcPkinit
from purekrb.testing.kdc_preauth import PreauthRequest
from support.kdc_path import Path
from support.values import replace

R = "EXAMPLE.TEST"
Change = Callable[[Any], Any]
ANSWERS = {b"\x6b": AsRep, b"\x7e": KrbError}
SHA1_RSA = tlv(0x30, tlv(0x06, contents_of("1.2.840.113549.1.1.5")) + b"\5\0")


def same(value: Any) -> Any:
    return value


class Kdc(KdcPkinit):
    """A KDC with its genuine certificate that changes what it signs, or what it answers."""

    def __init__(
        self, *, info: Change = same, signed: Change = same, rep: Change = same, **options: Any
    ) -> None:
        super().__init__(R, **options)
        self.info, self.signed, self.rep = info, signed, rep

    def _signed(self, content: bytes) -> bytes:
        made = super()._signed(self.info(KdcDhKeyInfo.decode(content)).encode())
        changed = self.signed(ContentInfo.decode(made).content)
        return changed if isinstance(changed, bytes) else ContentInfo(changed).encode()

    def verify(self, request: PreauthRequest, value: bytes) -> EncryptionKey:
        key = super().verify(request, value)
        (answer,) = request.answers
        changed = self.rep(DhRepInfo.decode(answer.padata_value))
        encoded = changed if isinstance(changed, bytes) else changed.encode()
        request.answers[:] = [replace(answer, padata_value=encoded)]
        return key


def realm_of(kdc: KdcPkinit) -> Realm:
    realm = Realm(R, pkinit=kdc)
    realm.add_user("alice", "pw")
    return realm


def log_in(path: Path, credential: Credential | None = None) -> Any:
    """Log alice in by a new certificate, by PKINIT alone."""
    if credential is None:
        credential = path._realm.issue_certificate("alice")
    rows = mechanisms(None, unasked=False, keys=False, public_key=True)
    return run(as_exchange(credential, AsOptions(mechanisms=rows)), path)


def attempt(**changes: Any) -> Any:
    """Log in with a KDC that makes these changes."""
    return log_in(Path(realm_of(Kdc(**changes))))


def proofs(path: Path) -> list[int]:
    """Return the kinds of proof that were sent."""
    kinds = (PaDataType.PK_AS_REQ, PaDataType.ENC_TIMESTAMP, PaDataType.SPAKE)
    found = (AsReq.decode(data) for data in path.seen)
    return [p.padata_type for req in found for p in req.padata or () if p.padata_type in kinds]


def on_replies(change: Callable[[bytes], bytes | None]) -> Callable[[bytes], bytes]:
    """Change the value of PA-PK-AS-REP on the path; None removes it."""

    def down(data: bytes) -> bytes:
        if data[:1] != b"\x6b":
            return data
        reply = AsRep.decode(data)
        padata = []
        for entry in reply.padata or ():
            value: bytes | None = entry.padata_value
            if entry.padata_type == PaDataType.PK_AS_REP:
                value = change(entry.padata_value)
            if value is not None:
                padata.append(replace(entry, padata_value=value))
        return replace(reply, padata=tuple(padata)).encode()

    return down


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    return realm_of(Kdc())


def test_control_the_exchange_succeeds(realm: Realm) -> None:
    path = Path(realm)
    assert log_in(path).is_tgt
    assert proofs(path) == [PaDataType.PK_AS_REQ]
    assert attempt().is_tgt


# -- what the KDC signs


def test_k520_an_answer_to_another_request_is_refused() -> None:
    with pytest.raises(ProtocolError, match="nonce differs"):
        attempt(info=lambda info: replace(info, nonce=info.nonce ^ 1))


def test_k520_a_recorded_answer_is_refused(realm: Realm) -> None:
    recorded: list[bytes] = []
    path = Path(realm, down=on_replies(lambda value: recorded.append(value) or value))  # type: ignore[func-returns-value]
    assert log_in(path).is_tgt
    with pytest.raises(ProtocolError, match="nonce differs"):
        log_in(Path(realm, down=on_replies(lambda value: recorded[0])))


def test_k521_content_of_another_type_is_refused() -> None:
    other = contents_of("1.3.6.1.5.2.3.1")

    def retyped(signed: SignedData) -> SignedData:
        return replace(
            signed, encap_content_info=replace(signed.encap_content_info, content_type=other)
        )

    with pytest.raises(ProtocolError, match="something else than was expected"):
        attempt(signed=retyped)


@pytest.mark.parametrize("certificates", [True, False], ids=["K522-with", "K522-without"])
def test_an_unsigned_answer_is_refused(certificates: bool) -> None:
    def unsigned(signed: SignedData) -> SignedData:
        kept = signed.certificates if certificates else None
        return replace(signed, signer_infos=(), certificates=kept)

    with pytest.raises(IntegrityError, match="is not signed"):
        attempt(signed=unsigned)


def test_k523_two_signers_are_refused() -> None:
    with pytest.raises(ProtocolError, match="signed by several"):
        attempt(signed=lambda signed: replace(signed, signer_infos=signed.signer_infos * 2))


def with_certificate(kdc: KdcPkinit, subject: str, principal: str | None, **options: Any) -> Realm:
    found = None if principal is None else Principal.parse(principal)
    kdc.certificate = kdc.authority.issue(subject, found, **options)
    return realm_of(kdc)


@pytest.mark.parametrize(
    ("principal", "options"),
    [
        pytest.param("krbtgt/OTHER.TEST@OTHER.TEST", {}, id="K524-realm"),
        pytest.param("krbtgt/EXAMPLE.TEST@OTHER.TEST", {}, id="K524-of-another"),
        pytest.param(f"alice@{R}", {}, id="K524-client"),
        pytest.param(None, {"hosts": ("evil.example.test",)}, id="K525"),
    ],
)
def test_the_certificate_of_another_kdc_is_refused(principal: str | None, options: Any) -> None:
    realm = with_certificate(Kdc(), "other", principal, purposes=(KP_KDC,), **options)
    credential = realm.issue_certificate("alice")
    credential.kdc_trust = KdcTrust(realm.anchors, hosts=("dc.example.test",))
    with pytest.raises(CertificateError, match="does not name"):
        log_in(Path(realm), credential)
    good = with_certificate(Kdc(), "dc", None, purposes=(KP_KDC,), hosts=("dc.example.test",))
    credential = good.issue_certificate("alice")
    credential.kdc_trust = KdcTrust(good.anchors, hosts=("dc.example.test",))
    assert log_in(Path(good), credential).is_tgt


def test_k526_a_certificate_that_has_expired_at_the_kdcs_time_is_refused() -> None:
    realm = realm_of(Kdc())
    nobody = Credential.anonymous(R, anchors=realm.anchors)
    assert log_in(Path(realm), nobody).is_tgt
    later = timedelta(days=366)
    realm.clock_offset = later.total_seconds()
    with pytest.raises(CertificateError, match="expired at"):
        run(as_exchange(nobody, AsOptions(), clock=lambda: now() + later), Path(realm))


@pytest.mark.parametrize("purposes", [(), (KP_CLIENT,)], ids=["K527-none", "K527-client"])
def test_a_certificate_that_is_not_for_kdcs_is_refused(purposes: Any) -> None:
    realm = with_certificate(Kdc(), "KDC", f"krbtgt/{R}@{R}", purposes=purposes)
    with pytest.raises(CertificateError, match="expected that of a KDC"):
        log_in(Path(realm))


FIELD = DH_GROUPS["2048"]
assert isinstance(FIELD, Field)
P = FIELD.prime


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(encode_dh_number(n.to_bytes(257, "big")), id=f"K528-{name}")
        for name, n in (("0", 0), ("1", 1), ("p-1", P - 1), ("p", P), ("p+1", P + 1))
    ]
    + [
        pytest.param(b"", id="K528-empty"),
        pytest.param(b"\2\1\xff", id="K528-negative"),
        pytest.param(b"\2\x82\x04\1" + b"\1" * 1025, id="K528-large"),
        pytest.param(b"\4" + bytes(64), id="K528-point"),
    ],
)
def test_a_trivial_public_value_is_refused_although_it_is_signed(value: bytes) -> None:
    with pytest.raises((ProtocolError, DecodeError)):
        attempt(info=lambda info: replace(info, subject_public_key=value))


def test_k530_a_key_derivation_that_was_not_offered_is_refused() -> None:
    for oid in ("1.3.6.1.5.2.3.6.1", "1.3.6.1.5.2.3.6.99"):
        with pytest.raises(ProtocolError, match="a function that was not offered"):
            attempt(rep=lambda rep, oid=oid: replace(rep, kdf=contents_of(oid)))


def test_k531_a_key_derivation_that_is_removed_on_the_path_gives_no_ticket(realm: Realm) -> None:
    def stripped(value: bytes) -> bytes:
        return replace(DhRepInfo.decode(value), kdf=None).encode()

    with pytest.raises(PreauthFailedError, match="not under the key of PKINIT"):
        log_in(Path(realm, down=on_replies(stripped)))


def test_k531_another_key_derivation_gives_no_ticket(realm: Realm) -> None:
    def exchanged(value: bytes) -> bytes:
        return replace(DhRepInfo.decode(value), kdf=contents_of("1.3.6.1.5.2.3.6.3")).encode()

    with pytest.raises(PreauthFailedError, match="not under the key of PKINIT"):
        log_in(Path(realm, down=on_replies(exchanged)))


def test_k533_a_megabyte_of_signed_data_is_not_read() -> None:
    def swollen(signed: SignedData) -> SignedData:
        content = replace(signed.encap_content_info, content=bytes(1 << 20))
        return replace(signed, encap_content_info=content)

    with pytest.raises(DecodeError, match="larger than"):
        attempt(signed=swollen)
    with pytest.raises(DecodeError):
        attempt(signed=lambda signed: replace(signed, certificates=(b"\x30\0",) * 33))


def test_k534_content_that_was_exchanged_is_refused(realm: Realm) -> None:
    """By who is on the path, with a value of his own: else he would be the KDC."""
    group = DH_GROUPS["2048"]
    own = encode_dh_number(group.new_secret(random_bytes).public)

    def exchanged(signed: SignedData) -> SignedData:
        content = signed.encap_content_info
        info = KdcDhKeyInfo.decode(content.content or b"")
        mine = replace(info, subject_public_key=own).encode()
        return replace(signed, encap_content_info=replace(content, content=mine))

    with pytest.raises(IntegrityError, match="is not the one that was signed"):
        attempt(signed=exchanged)


def test_k534_attributes_that_were_exchanged_are_refused() -> None:
    def exchanged(signed: SignedData) -> SignedData:
        (signer,) = signed.signer_infos
        content = signed.encap_content_info
        info = KdcDhKeyInfo.decode(content.content or b"")
        mine = replace(info, subject_public_key=encode_dh_number(b"\5")).encode()
        signer = replace(signer, signed_attrs=to_sign(DH_KEY_DATA, mine, "sha256"))
        return replace(
            signed, encap_content_info=replace(content, content=mine), signer_infos=(signer,)
        )

    with pytest.raises(IntegrityError, match="does not fit its certificate"):
        attempt(signed=exchanged)


@pytest.mark.parametrize("what", ["none", "twice", "no content type"])
def test_k535_attributes_that_do_not_bind_the_content_are_refused(what: str) -> None:
    def changed(signed: SignedData) -> SignedData:
        (signer,) = signed.signer_infos
        attributes = signer.signed_attrs or b""
        begin = 2 if attributes[1] < 0x80 else 3
        first = attributes[begin : begin + 2 + attributes[begin + 1]]
        value = {
            "none": None,
            "twice": tlv(0x31, attributes[begin:] * 2),
            "no content type": tlv(0x31, attributes[begin:].replace(first, b"")),
        }[what]
        return replace(signed, signer_infos=(replace(signer, signed_attrs=value),))

    with pytest.raises((ProtocolError, IntegrityError)):
        attempt(signed=changed)


def test_k535_a_signature_by_another_key_is_refused() -> None:
    """The certificate of the KDC is public: anyone can send it along."""
    other = Kdc()

    def by_other(signed: SignedData) -> bytes:
        content = signed.encap_content_info.content or b""
        attributes = to_sign(DH_KEY_DATA, content, "sha256")
        signature = other.certificate.sign(attributes)
        chain = signed.certificates or ()
        return signed_data(DH_KEY_DATA, content, attributes, "sha256", signature, chain)

    with pytest.raises(IntegrityError, match="does not fit its certificate"):
        attempt(signed=by_other)


def test_k536_the_certificate_of_the_signer_must_be_there_and_of_an_anchor() -> None:
    with pytest.raises(ProtocolError, match="not among those that came"):
        attempt(signed=lambda signed: replace(signed, certificates=()))
    foreign = Kdc()
    realm = realm_of(foreign)
    credential = realm.issue_certificate("alice")
    assert log_in(Path(realm), credential).is_tgt
    credential.kdc_trust = KdcTrust(Kdc().authority.anchor)
    with pytest.raises(CertificateError, match=r"does not lead to an anchor|none of the anchors"):
        log_in(Path(realm), credential)


def test_k537_rsa_key_transport_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="RSA key transport"):
        attempt(rep=lambda rep: tlv(0x81, b"an enveloped key"))


def test_k538_a_value_that_is_used_again_is_refused() -> None:
    with pytest.raises(ProtocolError, match="use its Diffie-Hellman value again"):
        attempt(rep=lambda rep: replace(rep, server_dh_nonce=b"nonce"))


def test_k547_a_sha1_signature_needs_the_opt_in() -> None:
    kdc = Kdc(key="RSA")

    def weak(signed: SignedData) -> bytes:
        content = signed.encap_content_info.content or b""
        attributes = to_sign(DH_KEY_DATA, content, "sha1")
        key: Any = kdc.certificate._key
        value = key._key.sign(attributes, padding.PKCS1v15(), hashes.SHA1())
        chain = signed.certificates or ()
        return signed_data(DH_KEY_DATA, content, attributes, "sha1", (SHA1_RSA, value), chain)

    def weak_digest(signed: SignedData) -> bytes:
        content = signed.encap_content_info.content or b""
        attributes = to_sign(DH_KEY_DATA, content, "sha1")
        signature = kdc.certificate.sign(attributes)
        chain = signed.certificates or ()
        return signed_data(DH_KEY_DATA, content, attributes, "sha1", signature, chain)

    realm = realm_of(kdc)
    credential = realm.issue_certificate("alice")
    for kdc.signed in (weak, weak_digest):
        credential.kdc_trust = KdcTrust(realm.anchors)
        with pytest.raises(PolicyError, match="pkinit_allow_sha1 = true"):
            log_in(Path(realm), credential)
        credential.kdc_trust = KdcTrust(realm.anchors, allow_sha1=True)
        assert log_in(Path(realm), credential).is_tgt


# -- groups


def dh_error(data: bytes, *names: str, entries: tuple[TypedDataEntry, ...] | None = None) -> bytes:
    """Return the KRB-ERROR that asks for other groups, forged on the path."""
    from purekrb.exchanges.preauth.pkinit import public_key_info

    algorithms = Algorithms(tuple(public_key_info(DH_GROUPS[n], b"").algorithm for n in names))
    typed = (TypedDataEntry(PaDataType.TD_DH_PARAMETERS, algorithms.encode()),)
    error = KrbError.decode(data) if data[:1] == b"\x7e" else None
    base = error or KrbError(
        5, 30, None, None, now().replace(microsecond=0), 0, 65, None, None, R,
        Principal.parse(f"krbtgt/{R}@{R}").name, None, None,
    )  # fmt: skip
    e_data = TypedData(typed if entries is None else entries).encode()
    code = ErrorCode.KDC_ERR_DH_KEY_PARAMETERS_NOT_ACCEPTED
    return replace(base, error_code=code, e_data=e_data).encode()


class Forging(Path):
    """A path on which the answer to a proof is forged."""

    def __init__(self, realm: Realm, forge: Callable[[bytes], bytes]) -> None:
        super().__init__(realm)
        self._forge = forge

    def __call__(self, request: Any) -> bytes:
        answer = super().__call__(request)
        padata = AsReq.decode(request.message).padata or ()
        proof = any(p.padata_type == PaDataType.PK_AS_REQ for p in padata)
        return self._forge(answer) if proof else answer


GROUP_2 = AlgorithmIdentifier(
    contents_of("1.2.840.10046.2.1"),
    tlv(0x30, encode_dh_number(b"\xff" * 128) + b"\2\1\2" + encode_dh_number(b"\x7f" * 128)),
)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param((), id="K529-none"),
        pytest.param(
            (TypedDataEntry(PaDataType.TD_DH_PARAMETERS, Algorithms((GROUP_2,)).encode()),),
            id="K529-small",
        ),
        pytest.param((TypedDataEntry(PaDataType.TD_DH_PARAMETERS, None),), id="K529-empty"),
    ],
)
def test_a_small_group_is_not_used_whoever_asks_for_it(realm: Realm, entries: Any) -> None:
    path = Forging(realm, lambda data: dh_error(data, entries=entries))
    with pytest.raises((PolicyError, DecodeError)):
        log_in(path)
    assert proofs(path) == [PaDataType.PK_AS_REQ]


def test_k529_another_group_is_tried_once_and_not_for_ever(realm: Realm) -> None:
    path = Forging(realm, lambda data: dh_error(data, "4096"))
    with pytest.raises(KdcError, match="takes none of the Diffie-Hellman groups"):
        log_in(path)
    assert proofs(path) == [PaDataType.PK_AS_REQ] * 2
    same_group = Forging(realm, lambda data: dh_error(data, "2048"))
    with pytest.raises(KdcError, match="takes none of the Diffie-Hellman groups"):
        log_in(same_group)
    assert proofs(same_group) == [PaDataType.PK_AS_REQ]


def test_k546_a_forged_demand_for_the_second_checksum_is_heeded_once() -> None:
    realm = realm_of(Kdc(freshness=False))

    def forge(data: bytes) -> bytes:
        return replace(
            KrbError.decode(dh_error(data)), error_code=ErrorCode.KRB_AP_ERR_MODIFIED, e_data=None
        ).encode()

    path = Forging(realm, forge)
    with pytest.raises(KdcError):
        log_in(path)
    assert proofs(path) == [PaDataType.PK_AS_REQ] * 2


# -- downgrades


@pytest.mark.parametrize("code", [25, 91], ids=["K539-25", "K539-91"])
def test_pkinit_that_is_stripped_leads_to_nothing_weaker(realm: Realm, code: int) -> None:
    def stripped(data: bytes) -> bytes:
        error = KrbError.decode(data)
        methods = (PaData(PaDataType.ENC_TIMESTAMP, b""), PaData(PaDataType.SPAKE, b""))
        return replace(error, error_code=code, e_data=MethodData(methods).encode()).encode()

    path = Path(realm, down=stripped)
    with pytest.raises(PreauthUnsupportedError, match="does not offer PKINIT"):
        log_in(path)
    assert proofs(path) == []


@pytest.mark.parametrize(
    "again", [PaDataType.PK_AS_REQ, PaDataType.ENC_TIMESTAMP], ids=["K540-again", "K540-weaker"]
)
def test_the_proof_is_not_sent_twice_nor_a_weaker_one_after_it(realm: Realm, again: int) -> None:
    def ask(data: bytes) -> bytes:
        methods = MethodData((PaData(again, b""),)).encode()
        code = ErrorCode.KDC_ERR_PREAUTH_REQUIRED
        return replace(KrbError.decode(dh_error(data)), error_code=code, e_data=methods).encode()

    path = Forging(realm, ask)
    with pytest.raises((PolicyError, PreauthUnsupportedError)):
        log_in(path)
    assert proofs(path) == [PaDataType.PK_AS_REQ]


def test_k541_a_reply_without_pkinit_is_refused(realm: Realm) -> None:
    with pytest.raises(PolicyError, match="gave a ticket without PKINIT"):
        log_in(Path(realm, down=on_replies(lambda value: None)))


# -- anonymous clients


def of_nobody(realm: Realm, down: Callable[[bytes], bytes] = same) -> Any:
    nobody = Credential.anonymous(R, anchors=realm.anchors)
    return log_in(Path(realm, down=down), nobody)


def without_key_exchange(data: bytes) -> bytes:
    if data[:1] != b"\x6b":
        return data
    reply = AsRep.decode(data)
    kept = (p for p in reply.padata or () if p.padata_type != PaDataType.PKINIT_KX)
    return replace(reply, padata=tuple(kept)).encode()


def test_k532_an_anonymous_client_needs_the_proof_of_the_session_key(realm: Realm) -> None:
    assert of_nobody(realm).is_tgt
    with pytest.raises(ProtocolError, match="PA-PKINIT-KX is missing"):
        of_nobody(realm, without_key_exchange)


def test_k532_a_session_key_without_the_clients_part_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A KDC between client and KDC would hand on a session key that it knows."""
    realm = realm_of(Kdc(key_exchange=True))
    genuine = realm._kdc._key_exchange

    def another(reply_key: EncryptionKey, etype: int) -> Any:
        session_key, _ = genuine(reply_key, etype)
        return session_key, genuine(reply_key, etype)[1]

    assert log_in(Path(realm)).is_tgt
    monkeypatch.setattr(realm._kdc, "_key_exchange", another)
    for client in (None, Credential.anonymous(R, anchors=realm.anchors)):
        with pytest.raises(ProtocolError, match="not the one of PA-PKINIT-KX"):
            log_in(Path(realm), client)


def test_k542_a_ticket_of_somebody_or_without_the_flag_is_refused(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def renamed(data: bytes) -> bytes:
        if data[:1] != b"\x6b":
            return data
        reply = AsRep.decode(data)
        return replace(reply, crealm=R, cname=Principal.parse(f"alice@{R}").name).encode()

    with pytest.raises(ProtocolError, match="another client"):
        of_nobody(realm, renamed)
    issue = realm._kdc._issue

    def unmarked(grant: Any, *args: Any) -> Any:
        from dataclasses import replace as changed

        return issue(changed(grant, flags=grant.flags & ~TicketFlags.ANONYMOUS), *args)

    monkeypatch.setattr(realm._kdc, "_issue", unmarked)
    with pytest.raises(ProtocolError, match="not marked as that of an anonymous client"):
        of_nobody(realm)


# -- what the client signs


def test_k543_a_freshness_token_that_was_exchanged_is_refused_by_the_kdc() -> None:
    """The token is signed: an old one gives a request that cannot be kept for later."""
    realm = realm_of(Kdc(require_freshness=True))
    assert log_in(Path(realm)).is_tgt

    def old(data: bytes) -> bytes:
        if data[:1] != b"\x7e":
            return data
        error = KrbError.decode(data)
        entries = tuple(
            replace(e, padata_value=b"an older token")
            if e.padata_type == PaDataType.AS_FRESHNESS
            else e
            for e in MethodData.decode(error.e_data or b"\x30\0").entries
        )
        return replace(error, e_data=MethodData(entries).encode()).encode()

    with pytest.raises(PreauthFailedError, match="freshness token"):
        log_in(Path(realm, down=old))


def test_k544_a_proof_serves_for_no_other_request(realm: Realm) -> None:
    """Who is on the path asks for a ticket of another service, or for another life."""

    def up(data: bytes) -> bytes:
        request = AsReq.decode(data)
        body = replace(request.req_body, till=request.req_body.till - timedelta(hours=1))
        return replace(request, req_body=body).encode()

    path = Path(realm, up=up)
    with pytest.raises(KdcError, match=r"altered|could not verify|MODIFIED"):
        log_in(path)


# -- the machinery


def test_k545_any_damage_of_the_answer_ends_the_exchange(realm: Realm) -> None:
    sizes: list[int] = []
    log_in(Path(realm, down=on_replies(lambda value: sizes.append(len(value)) or value)))  # type: ignore[func-returns-value]
    (size,) = sizes
    credential = realm.issue_certificate("alice")
    refused = 0
    for at in range(0, size, 1 + size // 150):
        for cut in (False, True):

            def damaged(value: bytes, at: int = at, cut: bool = cut) -> bytes:
                at = min(at, len(value) - 1)  # a signature by ECDSA is shorter now and then
                return value[:at] if cut else flip(value, at)

            # With a key derivation, any change of the value gives another key.
            with pytest.raises(KerberosError):
                log_in(Path(realm, down=on_replies(damaged)), credential)
            refused += 1
    assert refused > 200
    assert log_in(Path(realm), credential).is_tgt


def test_k545_any_damage_of_the_request_gives_no_ticket(realm: Realm) -> None:
    credential = realm.issue_certificate("alice")
    refused = 0
    for at in range(0, 1500, 31):

        def up(data: bytes, at: int = at) -> bytes:
            request = AsReq.decode(data)
            padata = [
                replace(p, padata_value=flip(p.padata_value, at))
                if p.padata_type == PaDataType.PK_AS_REQ and at < len(p.padata_value)
                else p
                for p in request.padata or ()
            ]
            return replace(request, padata=tuple(padata)).encode()

        path = Path(realm, up=up)
        try:
            log_in(path, credential)
        except KerberosError:
            refused += 1
    assert refused > 40


def flip(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :]


def test_k548_the_exponent_and_the_shared_secret_are_nowhere(
    realm: Realm, caplog: pytest.LogCaptureFixture
) -> None:
    exponents: list[bytes] = []

    def random(size: int) -> bytes:
        data = random_bytes(size)
        if size == 32:
            exponents.append(data)
        return data

    caplog.set_level(logging.DEBUG)
    credential = realm.issue_certificate("alice")
    options = AsOptions(mechanisms=mechanisms(None, unasked=False, keys=False, public_key=True))
    path = Path(realm, down=on_replies(lambda value: value[:-1]))
    with pytest.raises(KerberosError) as caught:
        run(as_exchange(credential, options, random=random), path)
    (exponent,) = exponents
    number = int.from_bytes(exponent, "big") | 1 << 255
    shown = caplog.text + "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    for secret in (exponent.hex(), str(number), f"{number:x}", repr(exponent)):
        assert secret not in shown
