"""Where a client's certificate is, in MIT's words, and which of several is used."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509

from purekrb import (
    CertificateError,
    Config,
    ConfigError,
    Credential,
    CredentialError,
    Keytab,
    Principal,
    UnsupportedError,
)
from purekrb.credentials.cert_match import choose, parse_rule
from purekrb.credentials.identities import open_identity
from purekrb.credentials.x509 import described
from support.pki import CLIENT_AUTH, KP_CLIENT, Issued, authority, key_usage, make, san_of, upn

CA = authority()
ALICE = CA.issue("alice", san_of("alice@X.TEST"), purposes=[KP_CLIENT])
BOB = CA.issue("bob", san_of("bob@X.TEST"), upn("bob@mail.example"), purposes=[CLIENT_AUTH])
SMART_CARD = "1.3.6.1.4.1.311.20.2.2"


def put(directory: Path, name: str, data: bytes) -> Path:
    path = directory / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    put(tmp_path, "alice.crt", ALICE.pem)
    put(tmp_path, "alice.key", ALICE.key_pem())
    put(tmp_path, "both.pem", ALICE.pem + ALICE.key_pem())
    put(tmp_path, "locked.key", ALICE.key_pem(b"pem password"))
    put(tmp_path, "alice.p12", ALICE.p12(b"p12 password"))
    put(tmp_path, "open.p12", ALICE.p12(None))
    put(tmp_path, "with, comma.crt", ALICE.pem)
    (tmp_path / "several").mkdir()
    for name, issued in (("a", ALICE), ("b", BOB)):
        put(tmp_path / "several", f"{name}.crt", issued.pem)
        put(tmp_path / "several", f"{name}.key", issued.key_pem())
    put(tmp_path / "several", "ca.crt", CA.pem)  # without a key
    put(tmp_path / "several", "damaged.crt", b"")
    put(tmp_path / "several", "damaged.key", b"")
    return tmp_path


def never(_prompt: str) -> str:
    raise AssertionError


def test_an_identity_names_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_IDENTITY", f"FILE:{home}/alice.crt,{home}/alice.key")
    for text in (
        f"FILE:{home}/alice.crt,{home}/alice.key",
        f"{home}/alice.crt,{home}/alice.key",
        f"FILE:{home}/both.pem",
        f"FILE:{home}/with, comma.crt,{home}/alice.key",
        f"PKCS12:{home}/open.p12",
        "ENV:MY_IDENTITY",
    ):
        assert open_identity(text, ask=never).certificate == ALICE.certificate, text


def test_k567_a_password_is_asked_for_once_and_only_if_there_is_a_need(home: Path) -> None:
    prompts = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return "p12 password" if ".p12" in prompt else "pem password"

    locked = f"FILE:{home}/alice.crt,{home}/locked.key"
    assert open_identity(locked, ask=ask).sign(b"")
    assert open_identity(f"PKCS12:{home}/alice.p12", ask=ask).sign(b"")
    assert prompts == [f"Password of {home}/locked.key", f"Password of {home}/alice.p12"]
    for text in (locked, f"PKCS12:{home}/alice.p12"):
        with pytest.raises(CertificateError, match="give its password"):
            open_identity(text)
        asked = []
        with pytest.raises(CertificateError, match=r"the password of .* is wrong"):
            open_identity(text, ask=lambda prompt: asked.append(prompt) or "wrong")  # noqa: B023
        assert len(asked) == 1
    key = (home / "locked.key").read_bytes()
    assert Credential.from_certificate(None, ALICE.pem, key, password=ask).principal


def test_a_directory_has_pairs_of_files(home: Path) -> None:
    text = f"DIR:{home}/several"
    for options, issued in (
        ({"principal": Principal.parse("bob@X.TEST")}, BOB),
        ({"principal": Principal.parse("bob@MAIL.EXAMPLE")}, BOB),
        ({"rules": ["<SUBJECT>^CN=bob$"]}, BOB),
        ({}, ALICE),  # of the two, it alone is for logging in
    ):
        assert open_identity(text, **options).certificate == issued.certificate  # type: ignore[arg-type]
    (home / "nothing").mkdir()
    for directory in ("nothing", "missing"):
        with pytest.raises(CertificateError, match=r"called NAME.crt and NAME.key"):
            open_identity(f"DIR:{home}/{directory}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SMARTCARD:x", "write one of FILE:..., DIR:..., PKCS12:..., PKCS11:..., ENV:..."),
        ("FILE:", "there is no such file"),
        ("FILE:/missing.pem", "there is no such file"),
        ("PKCS12:/missing.p12", "there is no such file"),
        ("ENV:NO_SUCH_VARIABLE", "set the variable NO_SUCH_VARIABLE"),
        ("ENV:LOOP", "set the variable LOOP"),
        ("PKCS11:m.so:pin=1234", "'pin' in PKCS11:.* is not known"),
        ("PKCS11:m.so:slotid=one", "slotid is a number"),
        ("PKCS11:m.so:certid=xyz", "certid is hexadecimal"),
    ],
)
def test_what_is_no_identity_is_told(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOP", "ENV:LOOP")
    with pytest.raises(CertificateError, match=said):
        open_identity(text, ask=never)


def test_without_the_package_for_smart_cards_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(UnsupportedError, match=r"pip install purekrb\[smartcard\]"):
        Credential.from_pkcs11(None, os.devnull, pin=never)


# -- rules -------------------------------------------------------------------------------------------


class Held(NamedTuple):
    certificate: x509.Certificate

    def __str__(self) -> str:
        return described(self.certificate)


SIGNING = make(
    "signing",
    names=[x509.DNSName("a.x.test")],
    purposes=[CLIENT_AUTH, SMART_CARD],
    extensions=[(key_usage("digital_signature"), True)],
)


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("<SUBJECT>CN=sign", True),
        ("<SUBJECT>^sign", False),
        ("<ISSUER>CN=signing", True),
        ("<SAN>a.x.test", True),
        ("<SAN>b.x.test", False),
        ("<EKU>clientAuth", True),
        ("<EKU>msScLogin,clientAuth", True),
        ("<EKU>pkinit", False),
        ("<KU>digitalSignature", True),
        ("<KU>digitalSignature,keyEncipherment", False),
        ("<SUBJECT>signing<EKU>pkinit", False),
        ("&&<SUBJECT>signing<EKU>pkinit", False),
        ("||<SUBJECT>signing<EKU>pkinit", True),
        (" && <SUBJECT>signing<KU>digitalSignature", True),
        ("<SUBJECT>(CN=other|CN=signing)", True),
    ],
)
def test_a_rule_holds(rule: str, holds: bool) -> None:
    assert parse_rule(rule).holds(SIGNING.certificate) is holds


@pytest.mark.parametrize(
    "rule", ["", "CN=x", "<OTHER>x", "<EKU>any", "<EKU>", "<KU>x", "x<SUBJECT>y", "<SUBJECT>("]
)
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError):
        parse_rule(rule)


def of(*issued: Issued) -> list[Held]:
    return [Held(each.certificate) for each in issued]


def test_the_first_rule_that_fits_one_certificate_counts() -> None:
    both = of(ALICE, BOB)
    assert choose(both, None, ["<ISSUER>the CA", "<SUBJECT>bob"], "x") == both[1]
    with pytest.raises(CertificateError, match="no rule of pkinit_cert_match fits exactly one"):
        choose(both, Principal.parse("bob@X.TEST"), ["<ISSUER>the CA"], "x")


def test_a_certificate_that_names_another_one_is_used_if_it_is_the_only_one() -> None:
    only = of(BOB)
    assert choose(only, Principal.parse("carol@X.TEST"), [], "x") == only[0]
    with pytest.raises(CertificateError, match="holds no certificate"):
        choose([], None, [], "x")
    with pytest.raises(CertificateError, match="holds several certificates that fit: alice, alice"):
        choose(of(ALICE, ALICE), None, [], "the card")


# -- the default credential --------------------------------------------------------------------------


def test_the_default_credential_is_the_configured_certificate_without_tickets_and_keytab(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{home}/ccache")
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", f"FILE:{home}/client.keytab")
    monkeypatch.delenv("KRB5_CLIENT_KTNAME")

    def config(*identities: str) -> Config:
        return Config(
            default_realm="X.TEST",
            realms={"X.TEST": ["localhost"]},
            pkinit={"pkinit_identities": identities},
        )

    found = Credential.default(config(f"FILE:{home}/missing", f"FILE:{home}/both.pem"))
    assert found.principal == Principal.parse("alice@X.TEST")
    assert found.certificate is not None
    assert found.kdc_trust is not None
    with pytest.raises(CredentialError, match="get a ticket first") as plain:
        Credential.default(config())
    assert "pkinit_identities" not in str(plain.value)
    locked = f"FILE:{home}/alice.crt,{home}/locked.key"
    with pytest.raises(CredentialError, match=r"; and pkinit_identities: .* give its password"):
        Credential.default(config(locked))
    Keytab.from_password("bob@X.TEST", "pw").save(home / "client.keytab")
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", f"FILE:{home}/client.keytab")
    assert Credential.default(config(f"FILE:{home}/both.pem")).principal.components == ("bob",)
