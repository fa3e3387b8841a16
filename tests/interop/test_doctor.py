"""`purekrb.doctor` with MIT's KDC and Samba's domain controller; its page in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest

from purekrb import Config, Credential, Keytab
from purekrb.directory import Directory
from purekrb.directory.ldap import Change, ChangeOperation
from purekrb.doctor import Report, examine, page
from support.measured_pages import measure, screenshot
from support.mit import MitRealm
from support.samba import SambaDc

SPN = "HTTP/localhost"


def failed(report: Report, step: str) -> tuple[str, str]:
    (finding,) = [finding for finding in report.of(step) if finding.status == "failed"]
    assert finding.remedy
    return finding.text, finding.remedy


@pytest.fixture(autouse=True)
def no_files_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KRB5_KTNAME", "KRB5_CLIENT_KTNAME", "KRB5CCNAME"):
        monkeypatch.setenv(name, str(tmp_path / name))


# -- MIT


@pytest.fixture(scope="module")
def user(mit_realm: MitRealm) -> Credential:
    mit_realm.addprinc("doctor-user", "doctor-pw", flags="+requires_preauth")
    return Credential.from_password("doctor-user@MIT.TEST", "doctor-pw")


def without_rc4(realm: MitRealm) -> Config:
    return Config(realms={"MIT.TEST": list(map(str, realm.config.kdcs("MIT.TEST")))})


def test_mit_where_all_is_well(mit_realm: MitRealm, user: Credential) -> None:
    mit_realm.addprinc("HTTP/doctor.localhost")
    keytab = mit_realm.keytab("HTTP/doctor.localhost")
    target = "HTTP/doctor.localhost@MIT.TEST"
    report = examine(target, config=mit_realm.config, credential=user, keytab=keytab)
    assert [f for f in report.findings if f.status == "failed"] == []
    assert {f.status for f in report.of("KDCs")} == {"ok"}
    assert report.of("handshake")[0].status == "ok"
    mit_realm.kadmin("cpw -randkey HTTP/doctor.localhost")
    report = examine(target, config=mit_realm.config, credential=user, keytab=keytab)
    assert "the keytab is stale" in failed(report, "keytab")[0]


def test_mit_a_keytab_with_the_wrong_salt_is_told_the_right_one(
    mit_realm: MitRealm, user: Credential
) -> None:
    name = mit_realm.addprinc("HTTP/salt.localhost", "svc-pw", flags="+requires_preauth")
    etypes = (20, 19, 18, 17)
    wrong = Keytab.from_password(name, "svc-pw", salt="AD.TESThostsalt", etypes=etypes)
    report = examine(name, config=mit_realm.config, credential=user, keytab=wrong)
    text, remedy = failed(report, "keytab")
    assert "with another salt" in text
    assert "'MIT.TESTHTTPsalt.localhost'" in remedy
    right = Keytab.from_password(name, "svc-pw", etypes=etypes)
    report = examine(name, config=mit_realm.config, credential=user, keytab=right)
    assert report.of("handshake")[0].status == "ok"


def test_mit_an_account_with_rc4_keys_alone(mit_realm: MitRealm) -> None:
    name = mit_realm.addprinc("doctor-rc4", "pw", etypes=(23,), flags="+requires_preauth")
    text, remedy = failed(examine(name, config=without_rc4(mit_realm)), "user")
    assert "has no key of aes256" in text
    assert "msDS-SupportedEncryptionTypes" in remedy


def test_mit_counts_no_failure_against_the_account(mit_realm: MitRealm, user: Credential) -> None:
    for target in ("doctor-user@MIT.TEST", SPN):
        examine(target, config=mit_realm.config)
    shown = mit_realm.kadmin("getprinc doctor-user")
    assert "Failed password attempts: 0" in shown


# -- Samba


@pytest.fixture(scope="module")
def admin(samba_dc: SambaDc) -> Credential:
    return Credential.from_password(f"{samba_dc.administrator}@{samba_dc.realm}", samba_dc.password)


def examined(dc: SambaDc, admin: Credential, target: str, **options: object) -> Report:
    return examine(
        target,
        config=dc.config,
        credential=admin,
        directory=f"ldap://{dc.address}",
        directory_target=f"ldap/{dc.host}",
        **options,  # type: ignore[arg-type]
    )


def test_samba_an_spn_that_is_right(samba_dc: SambaDc, admin: Credential) -> None:
    samba_dc.add_user("doc-good", servicePrincipalName=["HTTP/good.ad.test"])
    keytab = samba_dc.keytab("HTTP/good.ad.test")
    report = examined(samba_dc, admin, "HTTP/good.ad.test", keytab=keytab)
    (finding,) = report.of("SPN")
    assert finding.status == "ok"
    assert "CN=doc-good" in finding.text
    assert "aes256-cts-hmac-sha1-96" in finding.text
    assert "its password was set on 20" in finding.text
    assert report.of("handshake")[0].status == "ok"


def test_samba_a_missing_spn(samba_dc: SambaDc, admin: Credential) -> None:
    report = examined(samba_dc, admin, "HTTP/missing.ad.test")
    text, remedy = failed(report, "SPN")
    assert text == "no account of the directory has HTTP/missing.ad.test"
    assert "purekrb spn add HTTP/missing.ad.test" in remedy
    assert "KDC_ERR_S_PRINCIPAL_UNKNOWN" in failed(report, "ticket")[0]


def test_samba_a_duplicate_spn(samba_dc: SambaDc, admin: Credential) -> None:
    url, target = f"ldap://{samba_dc.address}", f"ldap/{samba_dc.host}"
    with Directory.connect(url, admin, samba_dc.config, target) as directory:
        for name in ("doc-one", "doc-two"):
            # Samba does not compare what is added in one request with a deletion of nothing.
            changes = (
                Change(ChangeOperation.DELETE, "servicePrincipalName", ["spns/absent"]),
                Change(ChangeOperation.ADD, "servicePrincipalName", ["HTTP/twice.ad.test"]),
            )
            directory._sessions.main.modify(samba_dc.add_user(name), changes, permissive=True)
    report = examined(samba_dc, admin, "HTTP/twice.ad.test")
    text, remedy = failed(report, "SPN")
    assert "2 accounts have HTTP/twice.ad.test" in text
    assert "CN=doc-one" in text
    assert "CN=doc-two" in text
    assert "remove it from all but the one" in remedy
    for name in ("doc-one", "doc-two"):
        samba_dc.delete(f"CN={name},CN=Users,{samba_dc.base}")


def test_samba_an_account_that_gets_rc4_tickets(samba_dc: SambaDc, admin: Credential) -> None:
    samba_dc.add_user("doc-rc4", etypes=0, servicePrincipalName=["HTTP/rc4.ad.test"])
    report = examined(samba_dc, admin, "HTTP/rc4.ad.test")
    (finding,) = report.of("SPN")
    assert finding.status == "warning"
    assert "msDS-SupportedEncryptionTypes to 24" in finding.remedy
    assert "rc4-hmac" in failed(report, "ticket")[0]


def test_samba_a_directory_proves_itself(samba_dc: SambaDc, admin: Credential) -> None:
    report = examine(
        f"ldap://{samba_dc.address}",
        config=samba_dc.config,
        credential=admin,
        directory=f"ldap://{samba_dc.address}",
        directory_target=f"ldap/{samba_dc.host}",
    )
    assert report.of("service")[0].status == "ok"


# -- the page


@pytest.fixture(scope="module")
def shown(mit_realm: MitRealm) -> str:
    mit_realm.addprinc("page-user", "page-pw", flags="+requires_preauth")
    mit_realm.addprinc("HTTP/page.localhost")
    return page(
        examine(
            "HTTP/page.localhost@MIT.TEST",
            config=mit_realm.config,
            credential=Credential.from_password("page-user@MIT.TEST", "page-pw"),
            keytab=mit_realm.keytab("HTTP/page.localhost"),
        )
    )


def test_the_page_opens_in_chromium_without_overflow_and_its_texts_can_be_copied(
    shown: str, tmp_path: Path
) -> None:
    for found in measure(shown, tmp_path, 1280, 700, 340):
        assert found["scrolls"] <= 0, found["width"]
        assert found["outside"] == [], found["width"]
        assert found["overflowing"] == [], found["width"]
        assert found["invisible"] == []
        assert found["font"] >= 11, "the smallest text can be read"
        for text in ("purekrb doctor: HTTP/page.localhost@MIT.TEST", "AS-REQ", "TGS-REP", "AP-REP"):
            assert text in found["text"]
        assert "cname: page-user (PRINCIPAL 1)" in found["text"]
    assert screenshot(shown, tmp_path, 1280, 900).startswith(b"\x89PNG")


def test_hostile_texts_stay_text_in_the_page(tmp_path: Path) -> None:
    hostile = "x" * 500 + "<script>document.body.remove()</script>&lt;\"'"
    report = examine(hostile, config=Config(default_realm="EXAMPLE.TEST", dns_lookup_kdc=False))
    (found,) = measure(page(report), tmp_path, 340)
    assert found["outside"] == found["overflowing"] == []
    assert "<script>document.body.remove()</script>" in found["text"]
