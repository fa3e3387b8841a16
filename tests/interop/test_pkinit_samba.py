"""PKINIT with Samba's KDC: by a user principal name, as in Active Directory, and a SHA-1 signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from purekrb import (
    CertificateError,
    Config,
    Credential,
    KdcClient,
    KdcError,
    PolicyError,
    Principal,
    records,
)
from purekrb.exchanges.preauth import pkinit
from support.pki import CLIENT_AUTH, KP_CLIENT, san_of, upn
from support.pkinit_files import PkinitFiles
from support.samba import SambaDc

USER = "smartcard"
SMART_CARD_LOGON = "1.3.6.1.4.1.311.20.2.2"


@pytest.fixture(scope="module")
def user(samba_dc: SambaDc) -> str:
    samba_dc.add_user(USER)
    return USER


def configuration(
    dc: SambaDc, *, hosts: Sequence[str] = ("dc1.ad.test",), sha1: str = "true"
) -> Config:
    """Return the configuration with the anchors of the domain, and the named relations."""
    relations = {
        "pkinit_anchors": [f"FILE:{dc.pkinit.anchors}"],
        "pkinit_allow_sha1": [sha1],
        **({"pkinit_kdc_hostname": list(hosts)} if hosts else {}),
    }
    return replace(dc.config, pkinit=relations)


def by_upn(files: PkinitFiles, name: str = USER) -> Credential:
    return files.credential(
        USER, names=[upn(f"{name}@ad.test")], purposes=[SMART_CARD_LOGON, CLIENT_AUTH]
    )


def test_a_certificate_with_a_user_principal_name_logs_in(
    samba_dc: SambaDc, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = KdcClient(configuration(samba_dc))
    credential = by_upn(samba_dc.pkinit)
    with caplog.at_level("DEBUG", "purekrb.kdc"):
        tgt = client.get_tgt(credential)
    assert (str(tgt.client), tgt.is_tgt) == (f"{USER}@AD.TEST", True)
    assert "the key is made by SHA-1" in caplog.text
    assert client.get_ticket(credential, "ldap/dc1.ad.test").client == tgt.client


def test_the_name_may_also_be_looked_up_by_the_kdc(samba_dc: SambaDc, user: str) -> None:
    credential = by_upn(samba_dc.pkinit)
    certificate = credential.certificate
    assert certificate is not None
    name = certificate.principal_name
    assert name is not None
    asked = Credential(
        records.replace(name, realm="AD.TEST"),
        certificate=certificate,
        kdc_trust=credential.kdc_trust,
    )
    tgt = KdcClient(configuration(samba_dc)).get_tgt(asked)
    assert str(tgt.client).casefold() == f"{USER}@AD.TEST".casefold()


def test_it_signs_with_sha1_for_clients_that_do_not_say_what_they_take(
    samba_dc: SambaDc, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It heeds supportedCMSTypes, by which purekrb says SHA-2; without, SHA-1 needs the opt-in."""
    without = configuration(samba_dc, sha1="false")
    assert KdcClient(without).get_tgt(by_upn(samba_dc.pkinit)).is_tgt
    monkeypatch.setattr(pkinit, "_SIGNATURES", None)
    with pytest.raises(PolicyError, match="pkinit_allow_sha1 = true"):
        KdcClient(without).get_tgt(by_upn(samba_dc.pkinit))
    assert KdcClient(configuration(samba_dc)).get_tgt(by_upn(samba_dc.pkinit)).is_tgt


def test_its_certificate_names_a_host_which_must_be_named(samba_dc: SambaDc, user: str) -> None:
    with pytest.raises(CertificateError, match="set pkinit_kdc_hostname to that name"):
        KdcClient(configuration(samba_dc, hosts=())).get_tgt(by_upn(samba_dc.pkinit))


def test_the_certificate_of_another_is_refused(samba_dc: SambaDc, user: str) -> None:
    named = samba_dc.pkinit.credential(
        USER, names=[san_of(f"{USER}@AD.TEST")], purposes=[KP_CLIENT, SMART_CARD_LOGON]
    )
    client = KdcClient(configuration(samba_dc))
    named.principal = Principal.parse(f"{USER}@AD.TEST")
    assert client.get_tgt(named).is_tgt
    other = by_upn(samba_dc.pkinit, "administrator")
    stolen = Credential(f"{USER}@AD.TEST", certificate=other.certificate, kdc_trust=other.kdc_trust)
    with pytest.raises(KdcError, match="the certificate does not name this account") as caught:
        client.get_tgt(stolen)
    assert caught.value.code == 75
