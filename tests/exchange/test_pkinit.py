"""PKINIT with the embedded KDC: both clients, every group, tokens, words; what is loaded without it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from purekrb import (
    Acceptor,
    CertificateError,
    Config,
    Credential,
    Initiator,
    KdcClient,
    KdcError,
    PolicyError,
    PreauthFailedError,
    PreauthUnsupportedError,
    ProtocolError,
)
from purekrb.constants import ErrorCode, PaDataType
from purekrb.credentials.kdc_trust import KdcTrust
from purekrb.crypto.dh import DH_GROUPS
from purekrb.exchanges.preauth.pkinit import AUTH_DATA
from purekrb.exchanges.preauth.signed_data import open_signed_data, signed_data, to_sign
from purekrb.kdc.client import AsyncKdcClient
from purekrb.messages.cms import AlgorithmIdentifier, ContentInfo
from purekrb.messages.kdc import AsReq
from purekrb.messages.pkinit import AuthPack, PaPkAsReq
from purekrb.oids import contents_of
from purekrb.testing import Realm
from purekrb.testing.certificates import KeyKind
from purekrb.testing.kdc_accounts import RefusedError
from purekrb.testing.kdc_pkinit import KdcPkinit
from support.pki import authority, rsa_key
from support.values import replace

R = "EXAMPLE.TEST"
Call = Callable[..., Any]
REQUEST, FRESHNESS, REP = PaDataType.PK_AS_REQ, PaDataType.AS_FRESHNESS, PaDataType.ENC_PA_REP


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest) -> Call:
    """call(config, method, ...) with a client of either kind."""

    def call(config: Config, method: str, *args: Any, **options: Any) -> Any:
        if request.param == "blocking":
            return getattr(KdcClient(config), method)(*args, **options)
        return asyncio.run(getattr(AsyncKdcClient(config), method)(*args, **options))

    return call


def realm_with(**options: Any) -> Realm:
    realm = Realm(R, pkinit=KdcPkinit(R, **options))
    realm.add_user("alice", "pw")
    realm.add_user("bob", "pw")
    return realm


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with realm_with() as realm:
        yield realm


def watch(realm: Realm) -> list[AsReq]:
    """Return a list of the requests that come."""
    found: list[AsReq] = []
    handle = realm._kdc.handle

    def handled(request: bytes) -> bytes:
        if request[:1] == b"\x6a":
            found.append(AsReq.decode(request))
        return handle(request)

    realm._kdc.handle = handled  # type: ignore[method-assign]
    return found


def types(request: AsReq) -> list[int]:
    return [p.padata_type for p in request.padata or ()]


def auth_pack(request: AsReq) -> AuthPack:
    (value,) = [p.padata_value for p in request.padata or () if p.padata_type == REQUEST]
    return AuthPack.decode(
        open_signed_data(PaPkAsReq.decode(value).signed_auth_pack, AUTH_DATA).content
    )


@pytest.mark.parametrize("form", ["subject_key_identifier", "explicit_key_identifier"])
def test_a_signer_may_be_named_by_the_identifier_of_its_key(form: str) -> None:
    """RFC 5652 5.3 has an implicit tag there, and Heimdal writes an explicit one."""
    key = rsa_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    other = x509.SubjectKeyIdentifier(bytes(20))
    issuer = authority()
    own = issuer.issue("KDC", key=key, extensions=[(identifier, False)]).der
    foreign = issuer.issue("other", key=key, extensions=[(other, False)]).der
    algorithm = AlgorithmIdentifier(contents_of("1.2.840.113549.1.1.11"), b"\5\0").encode()
    attributes = to_sign(AUTH_DATA, b"content", "sha256")
    plain = ContentInfo.decode(
        signed_data(AUTH_DATA, b"content", attributes, "sha256", (algorithm, b"s"), (own,))
    ).content
    (signer,) = plain.signer_infos
    named = {"issuer_and_serial": None, form: identifier.digest}
    for certificates in ((own, foreign), (foreign, own)):
        signed = replace(plain, certificates=certificates, signer_infos=(replace(signer, **named),))
        found = open_signed_data(ContentInfo(signed).encode(), AUTH_DATA)
        assert found.certificates == (own, foreign)
    stranger = replace(plain, certificates=(foreign,), signer_infos=(replace(signer, **named),))
    with pytest.raises(ProtocolError, match="the certificate of the signer is not among"):
        open_signed_data(ContentInfo(stranger).encode(), AUTH_DATA)


@pytest.mark.parametrize("key", ["RSA", "P-256", "P-384", "P-521"])
def test_a_certificate_gets_a_ticket(call: Call, key: KeyKind) -> None:
    with realm_with(key=key) as realm:
        seen = watch(realm)
        credential = realm.issue_certificate("alice", key=key)
        assert call(realm.config, "get_tgt", credential, require="strong").is_tgt
        assert list(map(types, seen)) == [[FRESHNESS, REP], [REQUEST, REP]]
        keytab = realm.add_service("HTTP/web.example.test")
        ticket = call(realm.config, "get_ticket", credential, "HTTP/web.example.test")
        acceptor = Acceptor(keytab)
        acceptor.step(Initiator(ticket).step())
        assert str(acceptor.initiator) == f"alice@{R}"


def test_both_checksums_the_token_and_every_kdf_but_sha1_are_sent(realm: Realm, call: Call) -> None:
    seen = watch(realm)
    assert call(realm.config, "get_tgt", realm.issue_certificate("alice")).is_tgt
    pack = auth_pack(seen[1])
    authenticator = pack.pk_authenticator
    assert authenticator.nonce == seen[1].req_body.nonce
    assert len(authenticator.pa_checksum or b"") == 20
    assert authenticator.pa_checksum2 is not None
    assert len(authenticator.pa_checksum2.checksum) == 32
    assert authenticator.freshness_token in realm.pkinit._tokens  # type: ignore[union-attr]
    assert pack.client_dh_nonce is None
    assert [kdf[-1] for kdf in pack.supported_kdfs or ()] == [2, 3, 4]


def test_a_kdc_that_knows_no_tokens_gets_the_second_checksum_if_it_wants_it(call: Call) -> None:
    """Heimdal before 8 does not read what follows a checksum that it does not know."""
    with realm_with(freshness=False) as realm:
        seen = watch(realm)
        assert call(realm.config, "get_tgt", realm.issue_certificate("alice")).is_tgt
        authenticator = auth_pack(seen[1]).pk_authenticator
        assert (authenticator.freshness_token, authenticator.pa_checksum2) == (None, None)
        assert len(authenticator.pa_checksum or b"") == 20
    with realm_with(freshness=False, require_sha2=True) as realm:
        seen = watch(realm)
        assert call(realm.config, "get_tgt", realm.issue_certificate("alice")).is_tgt
        packs = [auth_pack(request).pk_authenticator for request in seen[1:]]
        assert [pack.pa_checksum2 is None for pack in packs] == [True, False]


def test_every_login_has_a_value_of_its_own(realm: Realm, call: Call) -> None:
    seen = watch(realm)
    credential = realm.issue_certificate("alice")
    for _ in range(3):
        call(realm.config, "get_tgt", credential)
    values = {
        auth_pack(request).client_public_value for request in seen if REQUEST in types(request)
    }
    assert len(values) == 3


@pytest.mark.parametrize("name", DH_GROUPS)
def test_another_group_is_tried_once(call: Call, name: str) -> None:
    with realm_with(groups=(name,)) as realm:
        seen = watch(realm)
        assert call(realm.config, "get_tgt", realm.issue_certificate("alice")).is_tgt
        assert len(seen) == (2 if name == "2048" else 3)


def test_of_several_groups_the_strongest_is_taken(realm: Realm, call: Call) -> None:
    with realm_with(groups=("P-256", "4096")) as realm:
        seen = watch(realm)
        assert call(realm.config, "get_tgt", realm.issue_certificate("alice")).is_tgt
        value = auth_pack(seen[-1]).client_public_value
        assert value is not None
        assert len(value.subject_public_key) > 500


def test_a_group_below_the_floor_is_not_used(call: Call) -> None:
    with realm_with(groups=("2048",)) as realm:
        seen = watch(realm)
        config = replace(realm.config, pkinit={"pkinit_dh_min_bits": ("4096",)})
        with pytest.raises(
            PolicyError, match=r"a field of 2048 bits, and pkinit_dh_min_bits is 4096"
        ):
            call(config, "get_tgt", realm.issue_certificate("alice"))
        assert len(seen) == 2
    with realm_with(groups=("P-384",)) as realm:
        config = replace(realm.config, pkinit={"pkinit_dh_min_bits": ("P-384",)})
        seen = watch(realm)
        assert call(config, "get_tgt", realm.issue_certificate("alice")).is_tgt
        assert len(seen) == 2


def test_a_kdc_without_key_derivations_makes_the_key_by_sha1(
    call: Call, caplog: pytest.LogCaptureFixture
) -> None:
    with realm_with(kdfs=()) as realm, caplog.at_level("DEBUG", "purekrb.kdc"):
        assert call(realm.config, "get_tgt", realm.issue_certificate("alice")).is_tgt
    assert "no key derivation of RFC 8636" in caplog.text


def test_a_kdc_may_require_its_token(call: Call) -> None:
    with realm_with(require_freshness=True) as realm:
        assert call(realm.config, "get_tgt", realm.issue_certificate("alice")).is_tgt
        kdc = realm.pkinit
        assert kdc is not None
        kdc._tokens = deque(maxlen=0)  # it forgets each at once
        with pytest.raises(PreauthFailedError, match="it may want a freshness token"):
            call(realm.config, "get_tgt", realm.issue_certificate("alice"))


def test_a_user_principal_name_is_looked_up_by_the_kdc(call: Call) -> None:
    with realm_with() as realm:
        realm.add_alias(r"alice\@mail.example", "alice")
        credential = realm.issue_certificate("alice", upn="alice@mail.example")
        tgt = call(realm.config, "get_tgt", credential)
        assert str(tgt.client) == f"alice@{R}"


def test_fast_and_pkinit_go_together(call: Call) -> None:
    with realm_with(require_freshness=True) as realm:
        armor = Credential.from_password(f"bob@{R}", "pw")
        seen = watch(realm)
        credential = realm.issue_certificate("alice")
        assert call(realm.config, "get_tgt", credential, armor=armor, require="fast").is_tgt
        assert list(map(types, seen))[-2:] == [[PaDataType.FX_FAST]] * 2


def test_the_key_signs_outside_of_the_event_loop(realm: Realm) -> None:
    """A card waits for somebody: meanwhile, the loop goes on."""
    credential = realm.issue_certificate("alice")
    certificate = credential.certificate
    assert certificate is not None
    threads = []

    class Slow:
        def sign(self, data: bytes, kind: Any) -> bytes:
            threads.append(threading.current_thread())
            return inner.sign(data, kind)

        def close(self) -> None:
            inner.close()

    inner: Any = certificate._key
    certificate._key = Slow()

    async def get() -> None:
        await AsyncKdcClient(realm.config).get_tgt(credential)

    asyncio.run(get())
    assert threads
    assert threading.main_thread() not in threads


# -- refusals


def test_a_kdc_without_pkinit_is_named(call: Call, realm: Realm) -> None:
    credential = realm.issue_certificate("alice")
    with Realm(R) as other:
        other.add_user("alice", "pw")
        with pytest.raises(PreauthUnsupportedError, match="does not offer PKINIT"):
            call(other.config, "get_tgt", credential)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (16, "the KDC does not do PKINIT: it has no certificate for it .*Kerberos Authentication"),
        (24, "the KDC does not accept the proof"),
        (31, "the KDC could not verify the client's signature"),
        (62, "the KDC does not trust the client's certificate"),
        (64, "finds the client's signature wrong"),
        (66, "not the one that the KDC has for the account"),
        (70, "no way from the client's certificate"),
        (71, "invalid"),
        (72, "is revoked"),
        (73, "does not know whether"),
        (74, "cannot find out whether"),
        (75, "does not name this account"),
        (76, "not the one that was named"),
        (77, "not for logging in"),
        (78, "the hash with which the client's certificate is signed"),
        (79, "misses a checksum"),
        (80, "does not accept the hash of the client's signature"),
        (81, "public-key encryption"),
        (100, "none of the key derivations"),
    ],
)
def test_what_the_kdc_says_of_certificates_is_said_in_words(
    realm: Realm, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RefusedError(ErrorCode(code), "no")

    credential = realm.issue_certificate("alice")
    assert KdcClient(realm.config).get_tgt(credential).is_tgt
    monkeypatch.setattr(KdcPkinit, "verify", refuse)
    with pytest.raises(KdcError, match=words) as caught:
        KdcClient(realm.config).get_tgt(credential)
    assert caught.value.code == code
    assert isinstance(caught.value, PreauthFailedError) == (code == 24)


@pytest.mark.parametrize(("key", "words"), [("RSA", "pkinit_anchors"), ("P-256", "use an RSA key")])
def test_a_signature_that_is_not_verified_has_the_remedy_of_its_key(
    key: KeyKind, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RefusedError(ErrorCode.KRB_AP_ERR_BAD_INTEGRITY, "")

    with realm_with() as realm:
        credential = realm.issue_certificate("alice", key=key)
        assert KdcClient(realm.config).get_tgt(credential).is_tgt
        monkeypatch.setattr(KdcPkinit, "verify", refuse)
        with pytest.raises(KdcError, match=f"could not verify the client's signature .*{words}"):
            KdcClient(realm.config).get_tgt(credential)


def test_the_certificate_of_another_client_is_refused(call: Call, realm: Realm) -> None:
    bobs = realm.issue_certificate("bob")
    stolen = Credential(f"alice@{R}", certificate=bobs.certificate, kdc_trust=bobs.kdc_trust)
    with pytest.raises(KdcError, match="does not name this account"):
        call(realm.config, "get_tgt", stolen)
    assert call(realm.config, "get_tgt", bobs).is_tgt


def test_a_revoked_certificate_is_refused(call: Call, realm: Realm) -> None:
    credential = realm.issue_certificate("alice")
    assert call(realm.config, "get_tgt", credential).is_tgt
    certificate, kdc = credential.certificate, realm.pkinit
    assert certificate is not None
    assert kdc is not None
    kdc.revoked.add(certificate.certificate.serial_number)
    with pytest.raises(KdcError, match="is revoked"):
        call(realm.config, "get_tgt", credential)


def test_an_account_without_preauthentication_is_told(call: Call, realm: Realm) -> None:
    credential = realm.issue_certificate("bob")
    realm.add_user("bob", "pw", preauth=False)
    with pytest.raises(PolicyError, match="have the account require pre-authentication"):
        call(realm.config, "get_tgt", credential)
    realm.add_user("bob", "pw")
    assert call(realm.config, "get_tgt", credential).is_tgt


def test_a_kdc_that_names_a_host_alone_needs_that_host(call: Call) -> None:
    with realm_with(names_realm=False, hosts=("dc1.example.test",)) as realm:
        credential = realm.issue_certificate("alice")
        with pytest.raises(CertificateError, match="pkinit_kdc_hostname"):
            call(realm.config, "get_tgt", credential)
        credential.kdc_trust = KdcTrust(realm.anchors, hosts=("dc1.example.test",))
        assert call(realm.config, "get_tgt", credential).is_tgt


# -- what is loaded, and what is shown


def test_who_does_not_use_it_loads_nothing_of_it(tmp_path: Path) -> None:
    with realm_with() as realm:
        realm.write_krb5_conf(tmp_path / "krb5.conf")
        code = """
import sys
from purekrb import Config, Credential, KdcClient
client = KdcClient(Config.from_file(sys.argv[1]))
client.get_tgt(Credential.from_password("alice@EXAMPLE.TEST", "pw"))
parts = ("pkinit", "cms", "x509", "certificate", "kdc_trust", "dh")
print(sorted(name for name in sys.modules if name.rpartition(".")[2] in parts and "purekrb" in name))
"""
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "krb5.conf")],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.splitlines() == ["[]"]


def test_krb5_conf_names_the_anchors(tmp_path: Path) -> None:
    with realm_with() as realm:
        path = tmp_path / "krb5.conf"
        realm.write_krb5_conf(path)
        issued = realm.issue_certificate("alice")
        credential = Credential(
            issued.principal, certificate=issued.certificate, kdc_trust=KdcTrust()
        )
        assert KdcClient(Config.from_file(path)).get_tgt(credential).is_tgt
        nowhere = replace(realm.config, realms={R: replace(realm._servers, options={})})
        with pytest.raises(CertificateError, match="no anchor is given"):
            KdcClient(nowhere).get_tgt(credential)
