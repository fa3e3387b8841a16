"""PKINIT with MIT's KDC: keys of both kinds, groups, freshness, anonymous, and as an armor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from purekrb import CCache, CertificateError, Credential, KdcClient, KdcError, PreauthFailedError
from purekrb.constants import TicketFlags
from purekrb.kdc.client import AsyncKdcClient
from support.mit_pkinit import PkinitRealm
from support.pki import authority

FIRST, SECOND = "when the KDC asks for it", "PA-PK-AS-REQ in a field of 2048 bits"


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PkinitRealm]:
    realm = PkinitRealm(tmp_path_factory.mktemp("pkinit"))
    try:
        yield realm
    finally:
        realm.stop()


@pytest.mark.parametrize("elliptic", [False, True], ids=["RSA", "EC"])
def test_a_certificate_logs_in(
    realm: PkinitRealm, elliptic: bool, caplog: pytest.LogCaptureFixture
) -> None:
    client = KdcClient(realm.config)
    credential = realm.credential(elliptic=elliptic)
    with caplog.at_level("DEBUG", "purekrb.kdc"):
        tgt = client.get_tgt(credential)
    assert (str(tgt.client), tgt.is_tgt) == ("pre@MIT.TEST", True)
    assert caplog.text.count("AS-REQ to MIT.TEST") == 2
    assert FIRST in caplog.text
    assert SECOND in caplog.text
    assert "no key derivation of RFC 8636" not in caplog.text
    assert client.get_ticket(credential, "host/localhost").client == tgt.client


def test_asyncio_does_the_same(realm: PkinitRealm) -> None:
    async def get() -> None:
        tgt = await AsyncKdcClient(realm.config).get_tgt(realm.credential(), require="strong")
        assert tgt.is_tgt

    asyncio.run(get())


def test_the_larger_group(realm: PkinitRealm, caplog: pytest.LogCaptureFixture) -> None:
    client = KdcClient(realm.config_with("pkinit_dh_min_bits = 4096"))
    with caplog.at_level("DEBUG", "purekrb.kdc"):
        assert client.get_tgt(realm.credential()).is_tgt
    assert "PA-PK-AS-REQ in a field of 4096 bits" in caplog.text


def test_who_the_certificate_is_not_for_is_told(realm: PkinitRealm) -> None:
    other = realm.credential("user")
    stolen = Credential("pre@MIT.TEST", certificate=other.certificate, kdc_trust=other.kdc_trust)
    with pytest.raises(KdcError, match="the certificate does not name this account"):
        KdcClient(realm.config).get_tgt(stolen)


def test_a_kdc_of_another_authority_is_refused(realm: PkinitRealm) -> None:
    genuine = realm.credential()
    other = authority("another").pem
    paths = realm.directory / "pre.pem", realm.directory / "pre.key"
    strange = Credential.from_certificate("pre@MIT.TEST", *paths, anchors=other)
    with pytest.raises(CertificateError, match="was issued by CA, which is none of the anchors"):
        KdcClient(realm.config).get_tgt(strange)
    assert KdcClient(realm.config).get_tgt(genuine).is_tgt


def test_the_kdc_may_require_another_group_and_a_token(
    realm: PkinitRealm, caplog: pytest.LogCaptureFixture
) -> None:
    realm.restart("pkinit_dh_min_bits = 4096", "pkinit_require_freshness = true")
    try:
        with caplog.at_level("DEBUG", "purekrb.kdc"):
            assert KdcClient(realm.config).get_tgt(realm.credential()).is_tgt
        assert "the KDC wants another group: a field of 4096 bits" in caplog.text
    finally:
        realm.restart()


def test_an_anonymous_client_gets_tickets(realm: PkinitRealm) -> None:
    client = KdcClient(realm.config)
    nobody = Credential.anonymous("MIT.TEST")
    tgt = client.get_tgt(nobody)
    assert str(tgt.client) == "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"
    assert tgt.flags & TicketFlags.ANONYMOUS
    assert client.get_ticket(nobody, "host/localhost").client == tgt.client
    # MIT's programs use the cache, and purekrb theirs.
    path = realm.path("cc")
    nobody.save(path)
    realm.kvno(path, "HTTP/localhost")
    theirs = realm.kinit("@MIT.TEST", "", options=["-n"])
    loaded = Credential.from_ccache(theirs)
    assert loaded.ccache.realm == "MIT.TEST"
    assert client.get_ticket(loaded, "host/localhost").client == tgt.client


@pytest.mark.parametrize("asked", ["password", "certificate"])
def test_an_anonymous_ticket_is_the_armor(
    realm: PkinitRealm, asked: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = KdcClient(realm.config, armor="anonymous")
    credential = realm.credential()
    if asked == "password":
        credential = Credential.from_password("pre@MIT.TEST", "prepw")
    with caplog.at_level("DEBUG", "purekrb.kdc"):
        assert client.get_tgt(credential, require="fast").is_tgt
        assert client.get_tgt(credential, require="fast").is_tgt
    assert caplog.text.count("WELLKNOWN/ANONYMOUS@MIT.TEST asks for krbtgt") == 2  # one log-in
    assert "AS-REQ in FAST to MIT.TEST: pre@MIT.TEST" in caplog.text
    wrong = Credential.from_password("pre@MIT.TEST", "wrong")
    with pytest.raises(PreauthFailedError):
        client.get_tgt(wrong, require="fast")


def test_the_cache_says_how_the_ticket_was_got(realm: PkinitRealm) -> None:
    credential = realm.credential()
    KdcClient(realm.config).get_tgt(credential)
    mine = {key: value for key, _, value in credential.ccache.config_entries()}
    identity = f"FILE:{realm.directory}/pre.pem,{realm.directory}/pre.key"
    theirs = realm.kinit("pre", options=["-X", f"X509_user_identity={identity}"])
    found = {key: value for key, _, value in CCache.load(theirs).config_entries()}
    assert mine["pa_type"] == found["pa_type"] == b"16"
    assert json.loads(mine["pa_config_data"]) == json.loads(found["pa_config_data"])
