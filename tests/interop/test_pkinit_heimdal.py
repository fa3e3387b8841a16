"""PKINIT with Heimdal's KDC, which has neither RFC 8636 nor freshness: a certificate, and nobody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from purekrb import CertificateError, Credential, KdcClient, KdcError
from purekrb.system import now
from support.heimdal import HeimdalRealm
from support.pki import KP_KDC, rsa_key, san_of
from support.pkinit_files import PkinitFiles


class PkinitRealm(HeimdalRealm):
    """A realm whose KDC has PKINIT, also for anonymous clients."""

    files: PkinitFiles

    def _write_conf(self, port: int) -> None:
        super()._write_conf(port)
        if not hasattr(self, "files"):
            self.files = PkinitFiles(self.directory, self.realm)
        certificate, key = self.files.kdc
        pkinit = f"""\
 enable-pkinit = yes
 pkinit_identity = FILE:{certificate},{key}
 pkinit_anchors = FILE:{self.files.anchors}
 pkinit_principal_in_certificate = yes
 enable-anonymous = yes
 allow-anonymous = yes
 historical_anon_pkinit = no
"""
        text = self.krb5_conf.read_text().replace(" enable-pkinit = no\n", pkinit)
        begin = f" {self.realm} = {{\n"
        anchors = f"  pkinit_anchors = FILE:{self.files.anchors}\n"
        self.krb5_conf.write_text(text.replace(begin, begin + anchors, 1))


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PkinitRealm]:
    realm = PkinitRealm(tmp_path_factory.mktemp("heimdal"))
    try:
        yield realm
    finally:
        realm.stop()


def test_an_rsa_certificate_logs_in(realm: PkinitRealm, caplog: pytest.LogCaptureFixture) -> None:
    client = KdcClient(realm.config)
    credential = realm.files.credential()
    with caplog.at_level("DEBUG", "purekrb.kdc"):
        assert client.get_tgt(credential, require="strong").is_tgt
    assert "the key is made by SHA-1" in caplog.text
    assert str(client.get_ticket(credential, "gsvc/localhost").client) == "pre@HEIM.TEST"


def test_what_it_says_of_elliptic_keys_is_said_in_words(realm: PkinitRealm) -> None:
    credential = realm.files.credential(elliptic=True)
    with pytest.raises(KdcError, match="use an RSA key") as caught:
        KdcClient(realm.config).get_tgt(credential)
    assert caught.value.code == 31


def test_nobody_gets_a_ticket_and_it_is_an_armor(realm: PkinitRealm) -> None:
    nobody = Credential.anonymous("HEIM.TEST")
    client = KdcClient(realm.config)
    tgt = client.get_tgt(nobody)
    assert str(tgt.client) == "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"
    assert str(client.get_ticket(nobody, "gsvc/localhost").client) == str(tgt.client)
    alice = Credential.from_password("pre@HEIM.TEST", "prepw")
    assert KdcClient(realm.config, armor="anonymous").get_tgt(alice, require="fast").is_tgt


def test_the_certificate_of_another_is_refused(realm: PkinitRealm, tmp_path: Path) -> None:
    other = realm.files.credential("user")
    stolen = Credential("pre@HEIM.TEST", certificate=other.certificate, kdc_trust=other.kdc_trust)
    with pytest.raises(KdcError, match="the certificate does not name this account"):
        KdcClient(realm.config).get_tgt(stolen)
    assert KdcClient(realm.config).get_tgt(other).is_tgt


def test_a_kdc_is_found_by_the_identifier_of_its_key(tmp_path: Path) -> None:
    class Identified(PkinitRealm):
        """Its certificate has the extension that those of openssl have."""

        def _write_conf(self, port: int) -> None:
            super()._write_conf(port)
            tgs = san_of(f"krbtgt/{self.realm}@{self.realm}")
            key = rsa_key()
            identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
            self.files.issue("kdc", [tgs], [KP_KDC], key, extensions=[(identifier, False)])

    realm = Identified(tmp_path)
    try:
        assert KdcClient(realm.config).get_tgt(realm.files.credential(), require="strong").is_tgt
        assert KdcClient(realm.config).get_tgt(Credential.anonymous("HEIM.TEST")).is_tgt
    finally:
        realm.stop()


def test_a_kdc_whose_certificate_has_expired_is_refused(tmp_path: Path) -> None:
    class Expired(PkinitRealm):
        def _write_conf(self, port: int) -> None:
            super()._write_conf(port)
            tgs = san_of(f"krbtgt/{self.realm}@{self.realm}")
            ended = now() - timedelta(hours=1)
            self.files.issue("kdc", [tgs], [KP_KDC], rsa_key(), ends=ended)

    realm = Expired(tmp_path)
    try:
        with pytest.raises(CertificateError, match=r"expired at .*, and the KDC's clock shows"):
            KdcClient(realm.config).get_tgt(realm.files.credential())
    finally:
        realm.stop()
