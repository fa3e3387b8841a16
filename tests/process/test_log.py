"""The log tells each step of the protocol and why a check failed; it is silent by default and holds no secret."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import purekrb
from purekrb import (
    Acceptor,
    ChannelBindings,
    Config,
    Credential,
    EncryptionKey,
    Flag,
    Initiator,
    KdcClient,
    KerberosError,
    Keytab,
    KeytabEntry,
    Principal,
    ServiceTicket,
)
from purekrb.testing import Realm
from support.canaries import PASSWORD, leaks
from support.commands import ARGV, Commands
from support.peers import free_port

WEB = "HTTP/web.example.test"
WEB_PRINCIPAL = f"{WEB}@EXAMPLE.TEST"
TGS = "krbtgt/EXAMPLE.TEST@EXAMPLE.TEST"
AES = "aes256-cts-hmac-sha1-96"
OFFER = f"{AES}, aes128-cts-hmac-sha1-96, aes256-cts-hmac-sha384-192, aes128-cts-hmac-sha256-128"
FLAGS = Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE | Flag.CONF | Flag.INTEG


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as realm, Realm("OTHER.TEST") as other:
        realm.trust(other)
        realm.add_user("alice", PASSWORD)
        realm.add_service(WEB, ok_as_delegate=True)
        other.add_service("HTTP/far.other.test")
        yield realm


@pytest.fixture
def alice() -> Credential:
    return Credential.from_password("alice@EXAMPLE.TEST", PASSWORD)


@pytest.fixture
def ticket(realm: Realm, alice: Credential) -> ServiceTicket:
    return KdcClient(realm.config).get_ticket(alice, WEB)


Told = Callable[[], list[str]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """Returns what the client and the service have told since the last call; what the KDC tells is left out."""
    caplog.set_level(logging.DEBUG, "purekrb")

    def messages() -> list[str]:
        found = [
            record.getMessage()
            for record in caplog.records
            if not record.name.startswith("purekrb.testing")
        ]
        caplog.clear()
        return found

    messages()
    return messages


def assert_told(lines: list[str], *story: str) -> None:
    """`story` is what the lines begin with, in this order; * stands for what differs from run to run."""
    patterns = [re.escape(passage).replace(r"\*", ".*") for passage in story]
    assert len(lines) == len(patterns), "\n".join(lines)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.match(pattern, line), f"{line!r} does not begin with {pattern!r}"


def fails(call: Callable[[], object]) -> str:
    """Return the message of the error that `call` raises."""
    with pytest.raises(KerberosError) as raised:
        call()
    return str(raised.value)


AS = (
    f"AS-REQ to EXAMPLE.TEST: alice@EXAMPLE.TEST asks for {TGS}, no pre-authentication, etypes {OFFER}",
    "udp 127.0.0.1 port *: sent * bytes for EXAMPLE.TEST",
    "udp 127.0.0.1 port *: answered with * bytes",
    "KRB-ERROR from EXAMPLE.TEST: KDC_ERR_PREAUTH_REQUIRED 25",
    f"EXAMPLE.TEST takes pre-authentication of the types 19, 136, 2: PA-ENC-TIMESTAMP with {AES} is chosen",
    f"AS-REQ to EXAMPLE.TEST: alice@EXAMPLE.TEST asks for {TGS}, PA-ENC-TIMESTAMP with {AES}, etypes {OFFER}",
    "udp 127.0.0.1 port *: sent * bytes for EXAMPLE.TEST",
    "udp 127.0.0.1 port *: answered with * bytes",
)
AS_REP = (
    f"AS-REP from EXAMPLE.TEST: ticket for {TGS} until 20*, session key {AES}, encrypted with the client's key {AES} "
    "kvno 1; clock offset +0 s"
)
AP_REQ = f"AP-REQ: alice@EXAMPLE.TEST presents a ticket for {WEB_PRINCIPAL}, session key {AES}, mutual authentication"
KEYS = f"ticket for {WEB_PRINCIPAL}, {AES} kvno 1; keys to choose from: 4"
VERIFIED = f"AP-REQ verified: client alice@EXAMPLE.TEST, ticket for {WEB_PRINCIPAL} kvno 1 {AES}, session key {AES}"
AP_REP = (
    f"AP-REP for alice@EXAMPLE.TEST: ctime and cusec of its authenticator, acceptor subkey {AES}"
)
ESTABLISHED = f"context established: alice@EXAMPLE.TEST -> {WEB_PRINCIPAL}, {AES}, "
NEW = "the authenticator is new to the replay cache"


def tgs(wanted: str, realm: str = "EXAMPLE.TEST", *, purpose: str = "") -> tuple[str, ...]:
    return (
        f"TGS-REQ to {realm}: alice@EXAMPLE.TEST asks for {wanted}{purpose}, etypes {OFFER}",
        f"udp 127.0.0.1 port *: sent * bytes for {realm}",
        "udp 127.0.0.1 port *: answered with * bytes",
        f"TGS-REP from {realm}: ticket for {wanted} until 20*, session key {AES}, encrypted with the service's key "
        f"{AES} kvno 1",
    )


# -- what succeeds


def test_the_whole_story_of_a_handshake(realm: Realm, alice: Credential, told: Told) -> None:
    bindings = ChannelBindings(application_data=b"tls")
    keytab = realm.keytab(WEB)
    initiator = purekrb.initiate(
        WEB, alice, realm.config, flags=FLAGS | Flag.DELEG, channel_bindings=bindings
    )
    assert_told(told(), *AS, AS_REP, *tgs(WEB_PRINCIPAL), *tgs(TGS, purpose=" (FORWARDED)"))
    acceptor = Acceptor(keytab, channel_bindings=bindings)
    request = initiator.step()
    assert_told(
        told(),
        f"KRB-CRED: alice@EXAMPLE.TEST delegates its TGT to {WEB_PRINCIPAL}",
        AP_REQ + " required",
    )
    reply = acceptor.step(request)
    assert_told(
        told(),
        *(KEYS, VERIFIED, "channel bindings: the initiator's are equal to ours"),
        *("KRB-CRED: alice@EXAMPLE.TEST delegated its TGT, until 20*", NEW, AP_REP),
        ESTABLISHED + "DELEG, MUTUAL, REPLAY, SEQUENCE, CONF, INTEG",
    )
    initiator.step(reply)
    assert_told(
        told(),
        "AP-REP verified: its ctime and cusec are those of our authenticator, so the service has its key",
        ESTABLISHED + "DELEG, MUTUAL, REPLAY, SEQUENCE, CONF, INTEG",
    )


def test_the_way_through_another_realm(realm: Realm, alice: Credential, told: Told) -> None:
    client = KdcClient(realm.config)
    client.get_tgt(alice)
    told()
    client.get_ticket(alice, "HTTP/far.other.test@OTHER.TEST")
    assert_told(
        told(),
        f"ticket for {TGS} from the store, until 20",
        *tgs("krbtgt/OTHER.TEST@EXAMPLE.TEST"),
        "EXAMPLE.TEST refers to OTHER.TEST",
        *tgs("HTTP/far.other.test@OTHER.TEST", "OTHER.TEST"),
    )
    client.get_ticket(alice, "HTTP/far.other.test@OTHER.TEST")
    assert_told(told(), "ticket for HTTP/far.other.test@OTHER.TEST from the store, until 20")


def test_the_choice_of_a_key_from_a_keytab(realm: Realm, told: Told, tmp_path: Path) -> None:
    realm.add_service("host/pc.example.test", kvno=7, etypes=(18, 17)).save(tmp_path / "keytab")
    told()
    credential = Credential.from_keytab("host/pc.example.test@EXAMPLE.TEST", tmp_path / "keytab")
    assert_told(
        told(),
        "read the keytab *keytab: * bytes",
        f"keys of host/pc.example.test@EXAMPLE.TEST from the keytab: kvno 7, {AES}, aes128-cts-hmac-sha1-96",
    )
    KdcClient(realm.config).get_tgt(credential)
    assert f"encrypted with the client's key {AES} kvno 7" in told()[-1]


def test_a_service_with_several_keys_tells_which_it_tried(
    realm: Realm, ticket: ServiceTicket, told: Told
) -> None:
    older = KeytabEntry(Principal.parse(WEB_PRINCIPAL), 1, EncryptionKey(18, bytes(32)))
    Acceptor([older, *realm.keytab(WEB)]).step(Initiator(ticket).step())
    lines = told()
    assert f"the key of {WEB_PRINCIPAL} kvno 1 does not decrypt the ticket" in lines
    assert lines[-1].startswith(ESTABLISHED)


def test_a_corrected_clock_is_told(alice: Credential, told: Told) -> None:
    with Realm("EXAMPLE.TEST", clock_offset=3600) as realm:
        realm.add_user("alice", PASSWORD)
        KdcClient(realm.config).get_tgt(alice)
    assert [
        line for line in told() if "clock offset +3600 s" in line or "clock offset +3599 s" in line
    ]


# -- what fails


def test_a_wrong_password_is_told_as_the_kdc_says_it(realm: Realm, told: Told) -> None:
    wrong = Credential.from_password("alice@EXAMPLE.TEST", PASSWORD + "x")
    error = fails(lambda: KdcClient(realm.config).get_tgt(wrong))
    assert_told(
        told(),
        *AS,
        "KRB-ERROR from EXAMPLE.TEST: KDC_ERR_PREAUTH_FAILED 24",
        f"AS exchange failed: {error}",
    )


def test_an_unknown_service_is_told(realm: Realm, alice: Credential, told: Told) -> None:
    client = KdcClient(realm.config)
    client.get_tgt(alice)
    told()
    error = fails(lambda: client.get_ticket(alice, "HTTP/none.example.test"))
    lines = told()
    assert lines[-2:] == [
        "KRB-ERROR from EXAMPLE.TEST: KDC_ERR_S_PRINCIPAL_UNKNOWN 7",
        f"TGS exchange failed: {error}",
    ]


def test_a_kdc_that_cannot_be_reached_is_told(alice: Credential, told: Told) -> None:
    port = free_port()
    config = Config(realms={"EXAMPLE.TEST": [f"tcp/127.0.0.1:{port}"]}, dns_lookup_kdc=False)
    fails(lambda: KdcClient(config).get_tgt(alice))
    assert_told(
        told(),
        "AS-REQ to EXAMPLE.TEST",
        f"tcp 127.0.0.1 port {port}: Connection refused",
    )


def refused(acceptor: Acceptor, token: bytes | None) -> Callable[[], object]:
    return lambda: acceptor.step(token)


def _replay(keytab: Keytab, ticket: ServiceTicket) -> tuple[Acceptor, bytes | None]:
    token = Initiator(ticket).step()
    Acceptor(keytab).step(token)
    return Acceptor(keytab), token


def _other_bindings(keytab: Keytab, ticket: ServiceTicket) -> tuple[Acceptor, bytes | None]:
    theirs, ours = (
        ChannelBindings(application_data=b"theirs"),
        ChannelBindings(application_data=b"ours"),
    )
    return Acceptor(keytab, channel_bindings=ours), Initiator(
        ticket, channel_bindings=theirs
    ).step()


def _late(keytab: Keytab, ticket: ServiceTicket) -> tuple[Acceptor, bytes | None]:
    late = datetime.now(timezone.utc) + timedelta(hours=1)
    return Acceptor(keytab, clock=lambda: late), Initiator(ticket).step()


def _newer_key(keytab: Keytab, ticket: ServiceTicket) -> tuple[Acceptor, bytes | None]:
    newer = [KeytabEntry(entry.principal, 2, EncryptionKey(18, bytes(32))) for entry in keytab]
    return Acceptor(newer[:1]), Initiator(ticket).step()


def _no_mutual(keytab: Keytab, ticket: ServiceTicket) -> tuple[Acceptor, bytes | None]:
    return Acceptor(keytab), Initiator(ticket, flags=Flag.INTEG).step()


def _another_name(keytab: Keytab, ticket: ServiceTicket) -> tuple[Acceptor, bytes | None]:
    others = [KeytabEntry(Principal.parse("a/b@EXAMPLE.TEST"), 1, entry.key) for entry in keytab]
    return Acceptor([*keytab, *others], service="a/c@EXAMPLE.TEST"), Initiator(ticket).step()


@pytest.mark.parametrize(
    ("scene", "code"),
    [
        (_replay, "KRB_AP_ERR_REPEAT 34"),
        (_other_bindings, "KRB_AP_ERR_MODIFIED 41"),
        (_late, "KRB_AP_ERR_SKEW 37"),
        (_newer_key, "KRB_AP_ERR_BADKEYVER 44"),
        (_no_mutual, "KRB_AP_ERR_MUT_FAIL 46"),
        (_another_name, "KRB_AP_ERR_NOT_US 35"),
    ],
    ids=lambda value: value.__name__[1:] if callable(value) else "",
)
def test_a_service_tells_which_check_failed_and_why(
    realm: Realm, ticket: ServiceTicket, told: Told, scene: Any, code: str
) -> None:
    acceptor, token = scene(realm.keytab(WEB), ticket)
    told()
    error = fails(refused(acceptor, token))
    assert told()[-2:] == [
        f"KRB-ERROR for the initiator: {code}",
        f"Acceptor: no context: {code}: {error}",
    ]


def test_a_client_tells_why_it_does_not_believe_the_service(
    realm: Realm, ticket: ServiceTicket, told: Told
) -> None:
    keytab = realm.keytab(WEB)
    recorded = Acceptor(keytab).step(Initiator(ticket).step())
    impostor = Keytab(
        [KeytabEntry(entry.principal, 1, EncryptionKey(18, bytes(32))) for entry in keytab][:1]
    )
    with pytest.raises(purekrb.ApError) as raised:
        Acceptor(impostor).step(Initiator(ticket).step())
    for answer, begin in (
        (
            recorded,
            "Initiator: no context: the service did not return the time of our authenticator",
        ),
        (
            raised.value.response,
            "Initiator: no context: KRB_AP_ERR_BAD_INTEGRITY 31: the service refused us",
        ),
        (b"garbage", "Initiator: no context: "),
    ):
        initiator = Initiator(ticket)
        initiator.step()
        told()
        error = fails(lambda initiator=initiator, answer=answer: initiator.step(answer))  # type: ignore[misc]
        assert_told(told(), begin)
        assert error


# -- silence


QUIET = """
import sys
import purekrb
from purekrb.testing import Realm
with Realm() as realm:
    alice, keytab = realm.add_user("alice", "pw"), realm.add_service("HTTP/web")
    initiator = purekrb.initiate("HTTP/web", alice, realm.config)
    acceptor = purekrb.Acceptor(keytab)
    initiator.step(acceptor.step(initiator.step()))
    try:
        purekrb.initiate("HTTP/none", alice, realm.config)
    except purekrb.KerberosError:
        print("done")
keytab.save("keytab")
import os
os.chmod("keytab", 0o644)
purekrb.Keytab.load("keytab")  # which is worth a warning
"""


def test_a_program_that_does_not_ask_hears_nothing(tmp_path: Path) -> None:
    def run(script: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-W", "error", "-c", script]
        return subprocess.run(
            argv, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        )

    quiet = run(QUIET)
    assert (quiet.stdout, quiet.stderr) == ("done\n", "")
    asked = run("import logging; logging.basicConfig()\n" + QUIET)
    assert "every user can read it" in asked.stderr


def test_the_library_sets_no_level_and_no_handler_but_the_one_that_does_nothing() -> None:
    script = (
        "import logging, purekrb, purekrb.testing, purekrb.aio, purekrb.directory.directory, purekrb.channel.blocking\n"
        "for name in ('ap', 'channel', 'credentials', 'directory', 'gss', 'kdc'):\n"
        "    assert not purekrb.log.Log(f'purekrb.{name}').on()\n"
        "logs = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith('purekrb')]\n"
        "print(*sorted((log.name, log.level, *map(type, log.handlers)) for log in logs if log.level or log.handlers))\n"
        "print(len(logs), logging.root.handlers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    assert first == "('purekrb', 0, <class 'logging.NullHandler'>)"
    assert int(second.split()[0]) > 5
    assert second.endswith(" []")


# -- the command


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    realm: Realm,
) -> Commands:
    return Commands(tmp_path, monkeypatch, capsys, realm)


def without_times(text: str) -> list[str]:
    return [re.sub(r"^ *[0-9.]+ ms  ", "", line) for line in text.splitlines()]


def test_trace_stands_before_or_after_the_command_and_tells_the_same(run: Commands) -> None:
    before = run("--trace", "kinit", "alice", stdin=PASSWORD)
    after = run("kinit", "--trace", "alice", stdin=PASSWORD)
    assert (before.code, after.code) == (0, 0)
    for result in (before, after):
        assert re.fullmatch(r"alice@EXAMPLE.TEST: ticket until \S+ \S+\n", result.out)
        lines = without_times(result.err)
        assert all(re.match(r"purekrb\.[a-z]+ +\S", line) for line in lines)
        told = [line.split(maxsplit=1)[1] for line in lines if line.startswith("purekrb.kdc")]
        assert_told(told, "configuration read from *krb5.conf", *AS, AS_REP)
    actions = (
        run("spn", "make", "HTTP", "web", "--trace"),
        run("--trace", "spn", "make", "HTTP", "web"),
    )
    assert [(result.code, result.out, result.err) for result in actions] == [
        (0, "HTTP/web\n", "")
    ] * 2


def test_without_trace_nothing_is_told(run: Commands) -> None:
    assert run("kinit", "alice", stdin=PASSWORD).err == ""
    logger = logging.getLogger("purekrb")
    before = (logger.level, list(logger.handlers))
    assert "AS-REQ" in run("--trace", "kinit", "alice", stdin=PASSWORD).err
    assert (logger.level, logger.handlers) == before
    assert run("kinit", "alice", stdin=PASSWORD).err == ""


def test_a_trace_of_a_failure_ends_with_the_error(run: Commands) -> None:
    result = run("--trace", "kinit", "alice", stdin=PASSWORD[::-1])
    *lines, last = result.err.splitlines()
    assert result.code == 3
    assert "AS exchange failed: " in lines[-1]
    assert last.startswith("purekrb: wrong password (AS exchange for alice@EXAMPLE.TEST")
    assert PASSWORD[::-1] not in result.err


def test_a_trace_holds_no_control_characters(run: Commands, realm: Realm) -> None:
    result = run("--trace", "kinit", "\x1b[2Jmallory", stdin="pw")
    assert result.code == 6
    assert r"\x1b[2Jmallory@EXAMPLE.TEST asks for" in result.err
    assert "\x1b" not in result.err


def test_a_trace_that_nobody_reads_stops_nothing(run: Commands) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{' '.join(ARGV)} --trace kinit alice 2>&-"],
        input=f"{PASSWORD}\n",
        capture_output=True,
        text=True,
        cwd=run.directory,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("alice@EXAMPLE.TEST: ticket until")


def test_no_line_holds_a_secret(
    realm: Realm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every key that client, KDC and service make or read meanwhile is looked for, in each spelling."""
    secrets = [PASSWORD.encode()]
    make = EncryptionKey.__init__

    def remember(self: EncryptionKey, etype: int, contents: bytes) -> None:
        secrets.append(bytes(contents))
        make(self, etype, contents)

    monkeypatch.setattr(EncryptionKey, "__init__", remember)
    caplog.set_level(logging.DEBUG, "purekrb")
    alice = Credential.from_password("alice@EXAMPLE.TEST", PASSWORD)
    initiator = purekrb.initiate(WEB, alice, realm.config, flags=FLAGS | Flag.DELEG)
    keytab = realm.keytab(WEB)
    token = initiator.step()
    initiator.step(Acceptor(keytab).step(token))
    for refusal in (
        refused(Acceptor(keytab), token),
        lambda: purekrb.initiate("HTTP/none", alice, realm.config),
        lambda: KdcClient(realm.config).get_tgt(
            Credential.from_password("alice@EXAMPLE.TEST", PASSWORD + "x")
        ),
    ):
        fails(refusal)
    assert len(secrets) > 20
    assert len(caplog.records) > 40
    records = "\n".join(f"{record.getMessage()} {record.args!r}" for record in caplog.records)
    assert leaks(records, secrets) == []
