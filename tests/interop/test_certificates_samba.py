"""User principal names in certificates, in files and on a smart card, at Samba's KDC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from purekrb import Config, Credential, KdcClient
from purekrb.constants import NameType
from support.pki import CLIENT_AUTH, Issued, rsa_key, upn
from support.samba import SambaDc
from support.softhsm import PIN, SoftHsm

SMART_CARD_LOGON = "1.3.6.1.4.1.311.20.2.2"
#: A name whose suffix is no realm.
MAIL = "card.holder@mail.example"


@pytest.fixture(scope="module")
def config(samba_dc: SambaDc) -> Config:
    samba_dc.add_user("cardholder", userPrincipalName=MAIL)
    relations = {
        "pkinit_anchors": [f"FILE:{samba_dc.pkinit.anchors}"],
        "pkinit_kdc_hostname": ["dc1.ad.test"],
    }
    return replace(samba_dc.config, pkinit=relations)


@pytest.fixture(scope="module")
def files(samba_dc: SambaDc) -> tuple[Path, Path]:
    return samba_dc.pkinit.issue(
        "cardholder", [upn(MAIL)], [SMART_CARD_LOGON, CLIENT_AUTH], rsa_key(9)
    )


@pytest.fixture(scope="module")
def hsm(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    made = SoftHsm(tmp_path_factory.mktemp("softhsm"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        made.new_token("card")
        certificate = x509.load_pem_x509_certificate(files[0].read_bytes())
        made.put("card", Issued(certificate, rsa_key(9)), label="PIV", id_=b"\x01")
        yield made
        made.close()


def test_a_user_principal_name_of_another_suffix_is_looked_up(
    config: Config, files: tuple[Path, Path]
) -> None:
    credential = Credential.from_certificate(None, *files)
    assert credential.principal.name_type == NameType.ENTERPRISE
    client = KdcClient(config)
    tgt = client.get_tgt(credential, require="strong")
    assert str(tgt.client) == "cardholder@AD.TEST"
    assert str(credential.ccache.principal) == "cardholder@AD.TEST"
    assert client.get_ticket(credential, "ldap/dc1.ad.test").client == tgt.client


def test_a_smart_card_logs_in(config: Config, hsm: SoftHsm) -> None:
    credential = Credential.from_pkcs11(None, hsm.module, pin=lambda _prompt: PIN)
    assert str(KdcClient(config).get_tgt(credential).client) == "cardholder@AD.TEST"
    credential.wipe()
