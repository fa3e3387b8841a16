"""The commands take names as people write them, and say which one is meant where they do not fit."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

import purekrb
from purekrb import (
    Acceptor,
    CCache,
    Config,
    Credential,
    KdcClient,
    Keytab,
    KeytabEntry,
    Principal,
    TransportError,
)
from purekrb.messages.ap import KrbError
from purekrb.messages.kdc import MethodData, PaData
from purekrb.names import PrincipalName
from purekrb.testing import Realm
from support.commands import Commands
from support.kdc_stubs import TcpStub, frame, read_frame

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("NORTH.TEST") as realm:
        realm.add_user("anna", PASSWORD)
        realm.add_service("HTTP/web.north.test")
        yield realm


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    realm: Realm,
) -> Commands:
    return Commands(tmp_path, monkeypatch, capsys, realm)


@pytest.mark.parametrize("user", ["anna@north.test", "anna@North.Test", "anna@NORTH.test"])
def test_a_realm_in_other_letters_is_named_with_the_file(run: Commands, user: str) -> None:
    result = run("kinit", user, stdin=PASSWORD)
    assert result.code == 9
    assert "krb5.conf has NORTH.TEST: realm names are case-sensitive" in result.err
    assert "add kdc" not in result.err
    assert run("kinit", "anna@NORTH.TEST", stdin=PASSWORD).code == 0


def test_a_section_in_small_letters_is_named_as_well(run: Commands, tmp_path: Path) -> None:
    conf = tmp_path / "small.conf"
    text = (tmp_path / "krb5.conf").read_text()
    conf.write_text(text.replace("NORTH.TEST = {", "north.test = {"))
    result = run("kinit", "--config", str(conf), "anna@NORTH.TEST", stdin=PASSWORD)
    assert result.code == 9
    assert "small.conf has north.test" in result.err
    assert "add kdc" not in result.err


@pytest.mark.parametrize("user", ["NORTH\\anna", "north\\anna", "north.test\\anna", "anna"])
def test_a_user_of_a_windows_domain_gets_a_ticket(run: Commands, user: str) -> None:
    result = run("kinit", user, stdin=PASSWORD)
    assert (result.code, result.err) == (0, "")
    assert CCache.load().principal == Principal.parse("anna@NORTH.TEST")


def test_an_unknown_suffix_is_told_to_be_an_enterprise_name(run: Commands) -> None:
    result = run("kinit", "john.doe@mail.example", stdin=PASSWORD)
    assert result.code == 9
    assert "kinit -E" in result.err
    result = run("kinit", "john.doe\\@mail.example@NORTH.TEST", stdin=PASSWORD)
    assert result.code == 6
    assert "kinit -E" in result.err


@pytest.mark.parametrize(
    "target",
    [
        "HTTP/web.north.test",
        "HTTP/WEB.north.test",
        "HTTP/Web.North.Test.",
        "HTTP@web.north.test",
        "HTTP@WEB.NORTH.TEST",
        "HTTP/web.north.test@north.test",
        "HTTP/WEB.north.test@North.Test",
        "HTTP/web.north.test@NORTH",
        "HTTP/web.north.test@north",
    ],
)
def test_a_target_in_text_reaches_the_service(run: Commands, realm: Realm, target: str) -> None:
    credential = Credential.from_password("anna@NORTH.TEST", PASSWORD)
    ticket = KdcClient(realm.config).get_ticket(credential, target)
    assert str(ticket.service) == "HTTP/web.north.test@NORTH.TEST"
    assert run("kinit", "anna", stdin=PASSWORD).code == 0
    assert run("kvno", target).code == 0


def test_a_principal_is_taken_byte_for_byte(realm: Realm) -> None:
    client = KdcClient(realm.config)
    credential = Credential.from_password("NORTH\\anna", PASSWORD)
    with pytest.raises(purekrb.ServiceUnknownError, match=r"try HTTP/web\.north\.test"):
        client.get_ticket(credential, Principal.parse("HTTP/WEB.north.test@NORTH.TEST"))
    assert client.get_ticket(credential, Principal.parse("HTTP/web.north.test@NORTH.TEST"))


@pytest.mark.parametrize("value", ["north.test", "North.Test", "NORTH"])
def test_a_realm_in_domain_realm_may_be_in_small_letters(realm: Realm, value: str) -> None:
    config = Config(realm.config.realms, domain_realm={".north.test": value}, dns_lookup_kdc=False)
    credential = Credential.from_password("anna@NORTH.TEST", PASSWORD)
    ticket = KdcClient(config).get_ticket(credential, "HTTP/web.north.test")
    assert ticket.service.realm == "NORTH.TEST"


def test_an_unknown_service_is_told_of_aliases_and_a_trace_that_the_setting_is_not_followed(
    run: Commands, tmp_path: Path
) -> None:
    conf = tmp_path / "krb5.conf"
    conf.write_text(
        conf.read_text().replace(
            "[libdefaults]", "[libdefaults]\n dns_canonicalize_hostname = fallback\n rdns = false"
        )
    )
    assert run("kinit", "anna", stdin=PASSWORD).code == 0
    result = run("--trace", "kvno", "HTTP/www.north.test")
    assert result.code == 6
    assert "alias" in result.err.splitlines()[-1]
    assert "dns_canonicalize_hostname is not followed" in result.err
    assert "rdns" not in result.err


def test_a_host_is_made_canonical_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver follows the CNAME; its answer comes in the form of getaddrinfo."""
    asked = []

    def resolver(host: str, port: None, **options: int) -> list[object]:
        asked.append((host, options["flags"]))
        if host == "gone.north.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        canonical = "Web.North.Test." if host == "www.north.test" else ""
        return [(socket.AF_INET, 1, 6, canonical, ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    assert purekrb.canonicalize_host("www.north.test") == "web.north.test"
    assert purekrb.canonicalize_host("HOST.north.test.") == "host.north.test"
    assert asyncio.run(purekrb.aio.canonicalize_host("www.north.test")) == "web.north.test"
    with pytest.raises(TransportError, match=r"gone\.north\.test.*spelling"):
        purekrb.canonicalize_host("gone.north.test")
    assert {flags for _, flags in asked} == {socket.AI_CANONNAME}


def test_the_systems_resolver_names_this_machine() -> None:
    assert purekrb.canonicalize_host("LOCALHOST").startswith("localhost")


def test_a_kind_of_preauthentication_that_is_missing_is_a_refusal_of_the_kdc(
    run: Commands, tmp_path: Path
) -> None:
    hardened = MethodData((PaData(136, b""), PaData(19, b"\x30\x00"), PaData(133, b"c")))
    error = KrbError(
        5,
        30,
        None,
        None,
        datetime.now(timezone.utc).replace(microsecond=0),
        0,
        25,
        None,
        None,
        "NORTH.TEST",
        PrincipalName(("krbtgt", "NORTH.TEST"), 2),
        None,
        hardened.encode(),
    ).encode()

    def answer(stub: TcpStub, connection: socket.socket) -> None:
        read_frame(connection)
        connection.sendall(frame(error))

    with TcpStub(answer) as stub:
        (tmp_path / "hardened.conf").write_text(
            "[libdefaults]\n dns_lookup_kdc = false\n[realms]\n"
            f" NORTH.TEST = {{\n  kdc = tcp/127.0.0.1:{stub.port}\n }}\n"
        )
        result = run(
            "kinit",
            "--config",
            str(tmp_path / "hardened.conf"),
            "anna@NORTH.TEST",
            stdin=PASSWORD,
        )
    assert result.code == 6
    assert result.err.startswith(
        "purekrb: the KDC takes a password or key only within FAST, and this log-in has no armor"
    )
    assert "kinit -T CACHE" in result.err
    assert "133" not in result.err


@pytest.mark.parametrize("user", ["anna", "NORTH\\anna"])
def test_a_keytab_takes_the_salt_of_the_kdc_and_says_so(run: Commands, user: str) -> None:
    result = run("keytab", "from-password", "new.keytab", user, "--ask-kdc", stdin=PASSWORD)
    assert (result.code, result.err) == (0, "")
    assert "salt NORTH.TESTanna, kvno 1" in result.out
    assert run("kinit", "-t", "new.keytab", "anna").code == 0
    result = run("keytab", "from-password", "no.keytab", user, "--ask-kdc", stdin="guess")
    assert result.code == 3
    assert not Path("no.keytab").exists()
    both = ("--ask-kdc", "--salt", "NORTH.TESTanna")
    assert run("keytab", "from-password", "no.keytab", user, *both, stdin=PASSWORD).code == 9


def test_keys_are_asked_for_with_a_password_alone(realm: Realm) -> None:
    client = KdcClient(realm.config)
    anna = Credential.from_password("anna@NORTH.TEST", PASSWORD)
    keys = client.account_keys(anna)
    assert [(found.key.etype, found.salt) for found in keys] == [
        (18, b"NORTH.TESTanna"),
        (17, b"NORTH.TESTanna"),
    ]
    keytab = client.make_keytab(
        anna, "host/a.north.test@NORTH.TEST", "host/b.north.test@NORTH.TEST"
    )
    assert len(keytab) == 4
    assert {entry.key.contents for entry in keytab} == {found.key.contents for found in keys}
    made = asyncio.run(purekrb.aio.KdcClient(realm.config).make_keytab(anna))
    assert {entry.principal for entry in made} == {anna.principal}
    with pytest.raises(purekrb.CredentialError, match="from a password"):
        client.account_keys(Credential.from_keytab(anna.principal, keytab=made))


@pytest.mark.parametrize(
    ("account", "salt"),
    [
        ("WEB1$@AD.TEST", "AD.TESThostweb1.ad.test"),
        ("web1$@AD.TEST", "AD.TESThostweb1.ad.test"),
        ("GMSA-x$@AD.Test", "AD.Testhostgmsa-x.ad.test"),
        ("web1@AD.TEST", "AD.TESTweb1"),
        ("host/web1$@AD.TEST", "AD.TESThostweb1$"),
    ],
)
def test_a_computers_account_has_the_salt_of_a_computer(account: str, salt: str) -> None:
    made = Keytab.from_password(account, PASSWORD, etypes=(18,))
    (entry,) = made
    assert entry.key == purekrb.crypto.string_to_key(18, PASSWORD, salt)


@pytest.mark.parametrize(
    ("name", "kvno", "genuine"),
    [
        ("HTTP/web.north.test", 1, True),
        ("http/WEB.north.test", 1, True),
        ("svc-web", 1, True),
        ("HTTP/web.north.test", 77, True),
        ("svc-web", 77, True),
        ("HTTP/web.north.test", 77, False),
        ("svc-web", 77, False),
        ("HTTP/web.north.test", 1, False),
        ("svc-web", 1, False),
    ],
)
def test_kvno_checks_a_keytab_as_the_acceptor_does(
    run: Commands, realm: Realm, name: str, kvno: int, genuine: bool
) -> None:
    owner = Principal.parse(f"{name}@NORTH.TEST")
    keytab = Keytab(
        KeytabEntry(
            owner,
            kvno,
            entry.key if genuine else purekrb.crypto.random_key(entry.key.etype),
        )
        for entry in realm.keytab("HTTP/web.north.test")
    )
    keytab.save("other.keytab")
    assert run("kinit", "anna", stdin=PASSWORD).code == 0
    result = run("kvno", "HTTP/web.north.test", "-k", "other.keytab")
    credential = Credential.from_ccache()
    acceptor = Acceptor(keytab)
    token = purekrb.initiate("HTTP/web.north.test", credential, realm.config).step()
    if genuine:
        acceptor.step(token)
        assert result.code == 0
        assert "keytab entry valid" in result.out
        assert (f"kvno {kvno} opens" in result.out) == ((name, kvno) != ("HTTP/web.north.test", 1))
    else:
        with pytest.raises(purekrb.ApError) as caught:
            acceptor.step(token)
        assert result.code == 7
        assert result.err == f"purekrb: {caught.value}\n"
