"""`purekrb.doctor` in the embedded realm: each broken situation has its failed step and its remedy."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from purekrb import CCache, Config, Credential, KdcClient, Keytab
from purekrb.constants import PaDataType
from purekrb.doctor import Report, examine, page
from purekrb.doctor.steps import STEPS
from purekrb.integrations.wsgi import KerberosMiddleware
from purekrb.kdc.locate import Locator
from purekrb.replay import MemoryReplayCache
from purekrb.system import now
from purekrb.testing import Realm
from purekrb.testing.kdc_proxy import KdcProxy
from support import pki
from support.canaries import leaks, pieces
from support.commands import Commands
from support.kdc_stubs import DnsStub
from support.tls import Authority

#: A host that resolves everywhere.
SPN = "HTTP/localhost"


class Machine:
    """A realm, and the files of a machine: krb5.conf, the ccache of alice, the keytab of SPN."""

    def __init__(self, realm: Realm, directory: Path) -> None:
        self.realm, self.directory = realm, directory
        self.conf = directory / "krb5.conf"
        realm.write_krb5_conf(self.conf)
        self.alice = realm.add_user("alice", "pw")
        realm.add_service(SPN).save(directory / "keytab")
        KdcClient(realm.config).get_tgt(self.alice)
        self.alice.save(directory / "ccache")

    def keep(self, keytab: Keytab) -> None:
        """Make `keytab` the machine's."""
        (self.directory / "keytab").unlink()
        keytab.save(self.directory / "keytab")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    for name in ("KRB5_CLIENT_KTNAME", "KRB5_TRACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    monkeypatch.setenv("KRB5CCNAME", str(tmp_path / "ccache"))
    monkeypatch.setenv("KRB5_KTNAME", str(tmp_path / "keytab"))
    with Realm("EXAMPLE.TEST") as realm:
        yield Machine(realm, tmp_path)


def statuses(report: Report) -> dict[str, set[str]]:
    """The statuses of each step; every step has one."""
    found = {name: {finding.status for finding in report.of(name)} for name, _ in STEPS}
    assert all(found.values()), "no step is left out, whatever happened before it"
    return found


def failed(report: Report, step: str) -> tuple[str, str]:
    """The text and the remedy of the one finding of a step that is failed."""
    assert report.exit_code == 2
    (finding,) = [finding for finding in report.of(step) if finding.status == "failed"]
    assert finding.remedy
    return finding.text, finding.remedy


def failed_steps(report: Report) -> list[str]:
    return [name for name, found in statuses(report).items() if "failed" in found]


# -- a machine where all is well


def test_where_all_is_well_no_step_fails_and_the_exchange_is_whole(machine: Machine) -> None:
    before = {path: path.read_bytes() for path in machine.directory.iterdir()}
    report = examine(SPN)
    assert report.exit_code == 0, [f for f in report.findings if f.status in ("failed", "warning")]
    found = statuses(report)
    for step in ("clock", "KDCs", "TGT", "ticket", "keytab", "handshake", "user"):
        assert found[step] == {"ok"}
    assert [message.name for message in report.exchanged] == [
        "AS-REQ", "KRB-ERROR", "TGS-REQ", "TGS-REP", "AP-REQ", "AP-REP",
    ]  # fmt: skip
    assert {path: path.read_bytes() for path in machine.directory.iterdir()} == before


def test_nothing_that_is_shown_holds_a_secret(machine: Machine) -> None:
    report = examine(SPN)
    shown = page(report) + json.dumps(
        [(f.text, f.remedy) for f in report.findings]
        + [(m.facts, m.tree) for m in report.exchanged],
        default=str,
    )
    keys = [ticket.session_key.contents for ticket in CCache.load(machine.directory / "ccache")]
    keys += [entry.key.contents for entry in Keytab.load(machine.directory / "keytab")]
    assert leaks(shown, [piece for key in keys for piece in pieces(key)]) == []


def test_a_password_in_a_url_is_not_shown(machine: Machine) -> None:
    report = examine("http://alice:hunter2@localhost:1/")
    assert report.target == "http://localhost:1/"
    assert "hunter2" not in page(report)


def test_a_client_keytab_is_named_and_not_tried(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.directory / "ccache").unlink()
    path = machine.directory / "client.keytab"
    Keytab.from_password("batch@EXAMPLE.TEST", "pw").save(path)
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(path))
    report = examine(SPN)
    assert "can get one of batch@EXAMPLE.TEST" in report.of("TGT")[0].text
    assert not any(m.name == "AS-REP" for m in report.exchanged)


def test_of_a_collection_the_ccache_that_fits_the_service_is_used(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = machine.directory / "collection"
    collection.mkdir(mode=0o700)
    monkeypatch.setenv("KRB5CCNAME", f"DIR:{collection}")
    with Realm("OTHER.TEST") as other:
        bruno = other.add_user("bruno", "pw")
        KdcClient(other.config).get_tgt(bruno)
        for credential in (machine.alice, bruno):  # the last is the primary
            credential.save(f"DIR:{collection}")
        assert examine(SPN).of("TGT")[0].text.startswith("TGT of alice@EXAMPLE.TEST")


def test_a_realm_in_small_letters_is_told(machine: Machine) -> None:
    report = examine("alice@example.test")
    assert "EXAMPLE.TEST" in " ".join(f"{f.text} {f.remedy}" for f in report.of("KDCs"))
    assert report.exit_code == 2


def test_no_proof_of_a_password_is_ever_sent(machine: Machine) -> None:
    for target in ("alice", str(machine.directory / "keytab"), SPN, None, "bob"):
        sent = [m for m in examine(target).exchanged if m.name == "AS-REQ"]
        for message in sent:
            padata = message.tree["AsReq"].get("padata", [])
            assert not any(str(PaDataType.ENC_TIMESTAMP.value) in str(p) for p in padata)


def test_every_kind_of_target_is_examined(machine: Machine) -> None:
    for target in (None, "alice", "alice@EXAMPLE.TEST", str(machine.directory / "keytab"), SPN):
        assert examine(target).exit_code == 0, target
    for target in (
        "http://127.0.0.1:1/",
        "gopher://x/",
        "ldap://127.0.0.1:1",
        "\0",
        "@",
        "a/b/c/d@@",
    ):
        assert examine(target).exit_code == 2, target
    strange = (
        "http://[::1", "http://x:99999/", f"https://{'a' * 300}/", "x:y:1", "HTTP/a\nb", "\udcff",
        "HTTP/\udcff", "FILE:/nope", "/etc/passwd", "http://localhost:1/ x\r\nA: b", "https:///x",
    )  # fmt: skip
    for target in strange:
        assert examine(target, timeout=0.3).exit_code == 2, target
    with pytest.raises(TypeError):
        examine(b"HTTP/web")  # type: ignore[arg-type]


# -- broken situations


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_wrong_clock_is_found_and_the_chain_goes_on(machine: Machine, seconds: float) -> None:
    machine.realm.clock_offset = seconds
    report = examine(SPN)
    texts = [f for f in report.of("clock") if f.status == "failed"]
    assert len(texts) == 2
    assert "3600.0 s" in texts[0].text
    assert ("behind" in texts[0].text) == (seconds > 0)
    assert "NTP" in texts[0].remedy
    # In the other direction, the TGT is not valid yet for the KDC.
    assert failed_steps(report) == (["clock"] if seconds > 0 else ["clock", "ticket"])
    assert statuses(report)["handshake"] == ({"ok"} if seconds > 0 else {"skipped"})


def test_a_clock_that_drifts_is_a_warning(machine: Machine) -> None:
    machine.realm.clock_offset = 90
    report = examine(SPN)
    assert statuses(report)["clock"] == {"warning"}
    assert report.exit_code == 1


def test_a_dead_kdc_is_found_and_a_second_one_is_used(machine: Machine) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
        alive = f"127.0.0.1:{machine.realm.port}"
        report = examine(SPN, config=Config(realms={"EXAMPLE.TEST": [dead]}), timeout=0.5)
        text = report.of("KDCs")
        assert {finding.status for finding in text} == {"failed"}
        assert "firewall" in text[0].remedy
        assert statuses(report)["clock"] == {"skipped"}
        both = Config(
            realms={"EXAMPLE.TEST": [dead, alive]}, domain_realm={"localhost": "EXAMPLE.TEST"}
        )
        report = examine(SPN, config=both, timeout=0.5)
        assert statuses(report)["KDCs"] == {"warning", "ok"}
        assert statuses(report)["handshake"] == {"ok"}


def test_a_realm_without_a_kdc_says_what_to_add(machine: Machine) -> None:
    config = Config(dns_lookup_kdc=False, default_realm="NOWHERE.TEST")
    text, remedy = failed(examine("alice@NOWHERE.TEST", config=config), "KDCs")
    assert "no KDC of realm NOWHERE.TEST is known" in text
    assert "kdc = host:port" in remedy


def test_a_missing_spn_is_found(machine: Machine) -> None:
    report = examine("HTTP/other.localhost")
    text, remedy = failed(report, "ticket")
    assert "KDC_ERR_S_PRINCIPAL_UNKNOWN" in text
    assert "purekrb spn add HTTP/other.localhost" in remedy
    assert "alias" in remedy


def test_a_stale_keytab_is_found(machine: Machine) -> None:
    machine.realm.change_key(SPN)
    report = examine(SPN)
    text, remedy = failed(report, "keytab")
    assert "kvno 1, the ticket has kvno 2: the keytab is stale" in text
    assert "export the keytab again" in remedy
    assert failed_steps(report) == ["keytab", "handshake"]


def test_a_keytab_that_is_too_new_is_told_apart(machine: Machine) -> None:
    machine.keep(Keytab.from_password(f"{SPN}@EXAMPLE.TEST", "pw", kvno=9))
    assert "older kvno 1" in failed(examine(SPN), "keytab")[0]


def test_a_keytab_with_another_salt_is_found(machine: Machine) -> None:
    machine.keep(Keytab.from_password(f"{SPN}@EXAMPLE.TEST", "pw", kvno=1))
    text, remedy = failed(examine(SPN), "keytab")
    assert "another salt" in text
    assert "--ask-kdc" in remedy


def test_a_keytab_whose_name_differs_in_case_is_found(machine: Machine) -> None:
    machine.keep(Keytab.from_password("HTTP/LOCALHOST@EXAMPLE.TEST", "pw", kvno=1))
    text, remedy = failed(examine(SPN), "keytab")
    assert "the case of the name differs" in text
    assert "as the KDC spells it" in remedy


def aes_config(realm: Realm) -> Config:
    """The configuration of a machine that does not know RC4, unlike `realm.config`."""
    return Config(realms={realm.name: [f"127.0.0.1:{realm.port}"]}, default_realm=realm.name)


def test_an_account_with_rc4_keys_alone_is_found() -> None:
    with Realm("EXAMPLE.TEST", etypes=(18, 17, 23)) as realm:
        realm.add_user("old", "pw", etypes=(23,))
        text, remedy = failed(examine("old@EXAMPLE.TEST", config=aes_config(realm)), "user")
        assert "only keys of rc4-hmac" in text
        assert "msDS-SupportedEncryptionTypes" in remedy


def test_a_service_that_gets_rc4_tickets_is_found() -> None:
    with Realm("EXAMPLE.TEST", etypes=(18, 17, 23)) as realm:
        alice = realm.add_user("alice", "pw")
        keytab = realm.add_service(SPN, etypes=(23, 18))
        report = examine(SPN, config=aes_config(realm), credential=alice, keytab=keytab)
        text, remedy = failed(report, "ticket")
        assert "rc4-hmac" in text
        assert "msDS-SupportedEncryptionTypes of the account to 24" in remedy


@pytest.mark.parametrize(
    ("options", "words"),
    [({"disabled": True}, "disabled"), ({"password_expired": True}, "expired")],
)
def test_the_state_of_an_account_is_told(machine: Machine, options: Any, words: str) -> None:
    machine.realm.add_user("carol", "pw", **options)
    text, _ = failed(examine("carol"), "user")
    assert words in text


def test_an_unknown_user_and_one_without_preauthentication_are_told(machine: Machine) -> None:
    assert "does not know the client" in failed(examine("nobody"), "user")[0]
    machine.realm.add_user("open", "pw", preauth=False)
    report = examine("open")
    assert statuses(report)["user"] == {"warning"}
    assert "require pre-authentication" in report.of("user")[0].remedy


def test_a_tgt_that_has_ended_is_told_with_its_time(machine: Machine) -> None:
    stored = CCache.load(machine.directory / "ccache")
    (tgt,) = stored
    ended = datetime(2026, 1, 1, 10, tzinfo=timezone.utc)
    from support.values import replace

    old = replace(
        tgt,
        endtime=ended,
        starttime=ended - timedelta(hours=1),
        authtime=ended - timedelta(hours=1),
    )
    (machine.directory / "ccache").unlink()
    CCache(stored.principal, [old]).save(machine.directory / "ccache")
    text, remedy = failed(examine(SPN), "TGT")
    assert "2026-01-01 10:00:00Z" in text
    assert "kinit" in remedy


def test_without_a_ticket_the_steps_that_need_one_are_skipped(machine: Machine) -> None:
    (machine.directory / "ccache").unlink()
    report = examine(SPN)
    assert failed_steps(report) == []
    for step in ("TGT", "ticket", "keytab", "handshake"):
        assert statuses(report)[step] == {"skipped"}
    assert any("kinit" in f.remedy for f in report.of("TGT"))
    assert report.exit_code == 1, "the ccache that a service needs is missing"


def test_lines_of_krb5_conf_without_effect_are_named(machine: Machine) -> None:
    conf = machine.directory / "krb5.conf"
    conf.write_text(
        conf.read_text().replace("[libdefaults]", "[libdefaults]\n qualify_shortname = x.test", 1)
    )
    report = examine(SPN)
    found = [f for f in report.of("krb5.conf") if "qualify_shortname" in f.text]
    assert [f.status for f in found] == ["skipped"]
    assert "is not followed: names of hosts" in found[0].text
    assert report.exit_code == 0


def test_lines_of_krb5_conf_that_do_not_count_are_listed(machine: Machine) -> None:
    path = machine.directory / "krb5.conf"
    path.write_text("[libdefaults]\n clockskew = soon ; comment\n" + path.read_text())
    report = examine(SPN)
    warnings = [f for f in report.of("krb5.conf") if f.status == "warning"]
    assert any("krb5.conf:2" in f.text for f in warnings), report.of("krb5.conf")
    path.write_text("this is no krb5.conf {{{\n")
    assert "failed" in statuses(examine(SPN))["krb5.conf"]


def test_an_unreadable_keytab_is_told(machine: Machine) -> None:
    path = machine.directory / "other"
    path.write_bytes(b"no keytab")
    path.chmod(0o600)
    text, remedy = failed(examine(SPN, keytab=path), "ccache and keytab")
    assert "other" in text
    assert remedy
    assert "failed" in statuses(examine(str(path)))["ccache and keytab"]


# -- services


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def serving(app: Any, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://localhost:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def hello(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def guarded(machine: Machine, **options: Any) -> KerberosMiddleware:
    return KerberosMiddleware(
        hello,
        Keytab.load(machine.directory / "keytab"),
        replay_cache=MemoryReplayCache(),
        **options,
    )


def test_a_service_that_proves_itself_is_told(machine: Machine) -> None:
    for url in serving(guarded(machine)):
        report = examine(url)
        assert report.exit_code == 0, report.findings
        assert "has proved itself" in report.of("service")[-1].text
        assert [m.receiver for m in report.exchanged if m.name == "AP-REQ"] == [
            "keytab in memory",
            "service",
        ]


def test_a_service_that_requires_channel_bindings_is_told_apart(
    machine: Machine, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    authority.issue(["localhost"], ["127.0.0.1"], stem="localhost")
    certificate = tmp_path / "localhost.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "localhost.key")
    bound = {"require_channel_bindings": True, "certificate": str(certificate)}
    for url in serving(guarded(machine, **bound), context):
        report = examine(url, ca_file=authority.ca)
        texts = [f.text for f in report.of("service")]
        assert report.exit_code == 0, report.findings
        assert any("bound to the certificate" in text for text in texts)
        assert any("channel bindings are required" in text for text in texts)
        text, remedy = failed(examine(url), "service")
        assert "not trusted" in text
        assert "--ca-file" in remedy
    for url in serving(guarded(machine, **bound)):
        text, remedy = failed(examine(url), "service")
        assert "channel bindings" in remedy
        assert "use https" in remedy
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    other.issue(["localhost"], ["127.0.0.1"], stem="localhost")
    bound["certificate"] = str(tmp_path / "other" / "localhost.pem")
    bound["require_channel_bindings"] = False
    for url in serving(guarded(machine, **bound), context):
        text, remedy = failed(examine(url, ca_file=authority.ca), "service")
        assert "without them, the login succeeds" in text
        assert "give the service that certificate" in remedy


@pytest.mark.parametrize(
    ("status", "fields", "words", "result"),
    [
        ("401 Unauthorized", [("WWW-Authenticate", "Basic realm=x")], "switch Negotiate", 2),
        ("200 OK", [], "path of a protected page", 1),
        ("302 Found", [("Location", "http://localhost/elsewhere")], "about that place", 1),
    ],
)
def test_what_a_service_offers_is_told(
    machine: Machine, status: str, fields: list[tuple[str, str]], words: str, result: int
) -> None:
    def app(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        start_response(status, fields)
        return [b""]

    for url in serving(app):
        report = examine(url)
        assert words in " ".join(f.remedy for f in report.of("service"))
        assert report.exit_code == result


def test_a_service_that_does_not_prove_itself_is_told(machine: Machine) -> None:
    def app(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
        known = "HTTP_AUTHORIZATION" in environ
        start_response(
            "200 OK" if known else "401 No", [] if known else [("WWW-Authenticate", "Negotiate")]
        )
        return [b""]

    for url in serving(app):
        text, remedy = failed(examine(url), "service")
        assert "has not proved itself" in text
        assert "send its token back" in remedy


def test_what_is_no_http_server_is_told(machine: Machine) -> None:
    class Garbage(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"SSH-2.0-x\r\n")

    with HTTPServer(("127.0.0.1", 0), Garbage) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        text, _ = failed(examine(f"localhost:{server.server_port}"), "service")
        assert "does not answer in HTTP" in text


# -- the command


def test_the_command_prints_a_table_or_json_and_writes_a_page(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Commands(machine.directory, monkeypatch, capsys, machine.realm)
    result = run("doctor", SPN, "--html", "report.html")
    assert result.code == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert "handshake" in result.out
    written = machine.directory / "report.html"
    assert written.stat().st_mode & 0o777 == 0o600
    assert "<!DOCTYPE html>" in written.read_text()
    (as_json,) = run("doctor", SPN, "--json").json
    assert as_json["target"] == SPN
    assert {finding["step"] for finding in as_json["findings"]} == {name for name, _ in STEPS}
    assert run("doctor", "nobody").code == 2
    machine.realm.clock_offset = 90
    assert run("doctor").code == 1


def test_a_credential_of_the_caller_is_used(machine: Machine) -> None:
    (machine.directory / "ccache").unlink()
    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    report = examine(SPN, credential=alice)
    assert report.exit_code == 0
    assert "the credential is the caller's" in report.of("ccache and keytab")[0].text


def test_the_certificates_of_krb5_conf_are_looked_at(machine: Machine) -> None:
    ca = pki.authority(begins=now() - pki.DAY, ends=now() + pki.DAY)
    span = {"begins": now() - pki.DAY, "ends": now() + pki.DAY}
    good = ca.issue("alice", pki.san_of("alice@EXAMPLE.TEST"), **span)
    old = ca.issue("old", begins=now() - pki.DAY, ends=now() - pki.DAY / 2)
    for name, data in (
        ("ca.pem", ca.pem),
        ("good.pem", good.pem + good.key_pem()),
        ("old.pem", old.pem + old.key_pem()),
        ("locked.pem", good.pem + good.key_pem(b"a password")),
    ):
        (machine.directory / name).write_bytes(data)
        (machine.directory / name).chmod(0o600)
    path = machine.directory / "krb5.conf"
    plain = path.read_text()

    def with_lines(*lines: str) -> Report:
        inside = "\n ".join(line.format(home=machine.directory) for line in lines)
        path.write_text(plain.replace("[libdefaults]", f"[libdefaults]\n {inside}", 1))
        return examine(SPN)

    assert statuses(with_lines())["certificates"] == {"skipped"}
    identity = "pkinit_identities = FILE:{home}/"
    anchors = "pkinit_anchors = FILE:{home}/ca.pem"
    report = with_lines(identity + "good.pem", anchors)
    assert statuses(report)["certificates"] == {"ok"}
    assert "for alice@EXAMPLE.TEST, until" in report.of("certificates")[0].text
    report = with_lines(
        identity + "locked.pem",
        identity + "old.pem",
        "pkinit_anchors = FILE:{home}/old.pem",
        "pkinit_allow_sha1 = true",
    )
    texts = [f"{found.status}: {found.text}" for found in report.of("certificates")]
    assert texts[0].startswith("skipped: ")
    assert texts[0].endswith(f"it asks for a secret: Password of {machine.directory}/locked.pem")
    assert "failed" in texts[1]
    assert "expired at" in texts[1]
    assert texts[2].startswith("failed: anchors of EXAMPLE.TEST: 0 of 1 certificates valid")
    assert "pkinit_allow_sha1 is set" in texts[3]
    assert (
        "pkinit_anchors is not set" in failed(with_lines(identity + "good.pem"), "certificates")[0]
    )


# -- other ways to a KDC


def test_a_kdc_proxy_is_named_by_its_url(machine: Machine) -> None:
    with KdcProxy(machine.realm) as proxy:
        text = machine.conf.read_text()
        through = text.replace(f"kdc = 127.0.0.1:{machine.realm.port}", f"kdc = {proxy.url}")
        anchors = f"kdc = {proxy.url}\n    http_anchors = FILE:{proxy.anchor}"
        machine.conf.write_text(through.replace(f"kdc = {proxy.url}", anchors))
        report = examine(SPN)
        assert report.exit_code == 0
        assert f"{proxy.url}: answers in" in report.of("KDCs")[0].text
        machine.conf.write_text(through)
        said, remedy = failed(examine(SPN), "KDCs")
        assert proxy.url in said
        assert "certificate is not accepted" in said
        assert proxy.url in remedy


def test_uri_records_and_the_site_are_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kdc = f"krb5srv:m:tcp:127.0.0.1:{machine.realm.port}"
    text = machine.conf.read_text()
    begin = text.index("[realms]")
    text = text[:begin].replace("dns_lookup_kdc = false", "dns_lookup_kdc = true")
    machine.conf.write_text(f"{text}[realms]\n EXAMPLE.TEST = {{\n sitename = Paris\n }}\n")
    srv = {"_kerberos._tcp.Paris._sites.dc._msdcs.EXAMPLE.TEST.": ["0 0 88 near.hosts.example."]}
    with DnsStub(srv, uris={"_kerberos.EXAMPLE.TEST.": [f'0 0 "{kdc}"']}) as dns:
        monkeypatch.setattr(Locator, "resolver", lambda _: dns.resolver)
        report = examine(SPN)
    said = [finding.text for finding in report.of("DNS")]
    port = machine.realm.port
    assert f"_kerberos.EXAMPLE.TEST: tcp://127.0.0.1:{port} (URI records)" in said
    assert "this machine is in the site Paris" in said
    assert any("Paris._sites" in text and "near.hosts.example" in text for text in said)
    assert "warning" not in {finding.status for finding in report.of("DNS")}
    assert statuses(report)["KDCs"] == {"ok"}
