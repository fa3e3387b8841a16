"""MIT's kinit, kvno and klist, and curl, as clients of the embedded KDC."""

from __future__ import annotations

import base64
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from purekrb import Acceptor, Keytab
from purekrb.messages.der import read_header
from purekrb.messages.kpasswd import PasswordPolicy
from purekrb.testing import Realm
from support.peers import find_program, run

R = "EXAMPLE.TEST"
WEB = "HTTP/web.example.test"
#: MIT's name of each encryption type, as klist -e prints it (RC4 under its old and its new name).
ETYPE_NAMES = {
    17: ("aes128-cts-hmac-sha1-96",),
    18: ("aes256-cts-hmac-sha1-96",),
    19: ("aes128-cts-hmac-sha256-128",),
    20: ("aes256-cts-hmac-sha384-192",),
    23: ("arcfour-hmac", "DEPRECATED:arcfour-hmac"),
}
#: udp_preference_limit, in bytes of the request, that leads to each transport.
_TRANSPORTS = {"udp": 1465, "tcp": 1}


class Mit:
    """MIT's programs, with one realm's krb5.conf and a credential cache of their own."""

    def __init__(self, realm: Realm, directory: Path, **libdefaults: object) -> None:
        self.directory = directory
        self.conf = directory / "krb5.conf"
        self.trace = directory / "trace.log"
        realm.write_krb5_conf(self.conf, **libdefaults)
        self.env = {
            **os.environ,
            "KRB5_CONFIG": str(self.conf),
            "KRB5CCNAME": f"FILE:{directory}/cc",
            "KRB5_TRACE": str(self.trace),
            "LC_ALL": "C",
            "TZ": "UTC",
        }

    def __call__(self, program: str, *arguments: str, text: str = "") -> str:
        """Run one of MIT's programs; return its stdout; fail if it fails."""
        return run([find_program(program, "krb5-user"), *arguments], env=self.env, text=text)

    def failure(self, program: str, *arguments: str, text: str = "") -> str:
        """Run one of MIT's programs; return all that it says; fail if it does not fail."""
        argv = [find_program(program, "krb5-user"), *arguments]
        done = subprocess.run(
            argv, env=self.env, input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode != 0, f"{argv} succeeded: {done.stdout}"
        return done.stdout + done.stderr


@pytest.fixture
def realm(krb_realm: Realm) -> Realm:
    krb_realm.add_user("alice", "pw")
    krb_realm.add_service(WEB)
    return krb_realm


@pytest.fixture
def mit(realm: Realm, tmp_path: Path) -> Mit:
    return Mit(realm, tmp_path)


@pytest.mark.parametrize("transport", _TRANSPORTS)
def test_kinit_with_a_password_and_kvno_over_udp_and_tcp(
    realm: Realm, tmp_path: Path, transport: str
) -> None:
    mit = Mit(realm, tmp_path, udp_preference_limit=_TRANSPORTS[transport])
    mit("kinit", "alice", text="pw\n")
    assert mit("kvno", WEB) == f"{WEB}@{R}: kvno = 1\n"
    listed = mit("klist")
    assert f"Default principal: alice@{R}" in listed
    assert f"krbtgt/{R}@{R}" in listed
    assert f"{WEB}@{R}" in listed
    trace = mit.trace.read_text()
    assert ("Sending initial UDP request to dgram 127.0.0.1" in trace) == (transport == "udp")
    assert ("Sending TCP request to stream 127.0.0.1" in trace) == (transport == "tcp")


def test_kinit_turns_to_tcp_when_the_reply_is_too_long_for_udp(realm: Realm, mit: Mit) -> None:
    realm.udp_limit = 400
    mit("kinit", "alice", text="pw\n")
    trace = mit.trace.read_text()
    assert "Sending initial UDP request" in trace
    assert "Request or response is too big for UDP; retrying with TCP" in trace
    assert "krbtgt" in mit("klist")


@pytest.mark.parametrize("etype", ETYPE_NAMES)
def test_kinit_and_kvno_with_each_encryption_type(tmp_path: Path, etype: int) -> None:
    with Realm(R, etypes=(etype,)) as realm:
        realm.add_user("alice", "pw")
        realm.add_service(WEB)
        mit = Mit(realm, tmp_path)
        mit("kinit", "alice", text="pw\n")
        mit("kvno", WEB)
        listed = [
            line.partition("Etype (skey, tkt): ")[2].strip()
            for line in mit("klist", "-e").splitlines()
        ]
    both = {f"{name}, {name}" for name in ETYPE_NAMES[etype]}
    found = [line for line in listed if line]
    assert len(found) == 2
    assert set(found) <= both


@pytest.mark.parametrize("etype", ETYPE_NAMES)
def test_kinit_with_a_user_key_and_a_service_key_of_one_encryption_type(
    realm: Realm, tmp_path: Path, etype: int
) -> None:
    # MIT's clients refuse fewer iterations than the default of the encryption type.
    realm.add_user(
        "bob",
        "bobpw",
        etypes=(etype,),
        salt="not the default",
        iterations=None if etype == 23 else 40000,
    )
    realm.add_service("svc/one", etypes=(etype,))
    mit = Mit(realm, tmp_path)
    mit("kinit", "bob", text="bobpw\n")
    mit("kvno", "svc/one")
    last = mit("klist", "-e").rpartition("Etype (skey, tkt): ")[2].strip()
    assert last in {f"{name}, {name}" for name in ETYPE_NAMES[etype]}


def test_kinit_with_a_keytab_of_a_user_and_of_a_service(realm: Realm, mit: Mit) -> None:
    Keytab([*realm.keytab("alice"), *realm.keytab(WEB)]).save(mit.directory / "keys.keytab")
    for client in ("alice", WEB):
        mit("kinit", "-k", "-t", str(mit.directory / "keys.keytab"), client)
        assert f"Default principal: {client}@{R}" in mit("klist")


def test_kvno_verifies_tickets_with_the_services_keytab_before_and_after_a_key_change(
    realm: Realm, mit: Mit
) -> None:
    old, new = mit.directory / "old.keytab", mit.directory / "new.keytab"
    realm.keytab(WEB).save(old)
    mit("kinit", "alice", text="pw\n")
    assert "keytab entry valid" in mit("kvno", "-k", str(old), WEB)
    realm.change_key(WEB).save(new)
    mit("kinit", "alice", text="pw\n")
    assert f"{WEB}@{R}: kvno = 2, keytab entry valid" in mit("kvno", "-k", str(new), WEB)
    assert "keytab entry invalid" in mit.failure("kvno", "-k", str(old), WEB)


def test_kinit_without_preauthentication(realm: Realm, mit: Mit) -> None:
    realm.add_user("alice", "pw", preauth=False)
    mit("kinit", "alice", text="pw\n")
    assert "Flags: " in mit("klist", "-f")
    assert "A" not in mit("klist", "-f").rpartition("Flags: ")[2]
    assert "Password incorrect" in mit.failure("kinit", "alice", text="wrong\n")


def test_klist_shows_the_flags_that_kinit_asked_for(mit: Mit) -> None:
    mit("kinit", "-f", "-p", "-r", "3d", "-l", "1h", "alice", text="pw\n")
    flags = mit("klist", "-f").rpartition("Flags: ")[2].strip()
    assert set(flags) == set("FPRIAT")
    mit("kinit", "-F", "-P", "alice", text="pw\n")
    assert set(mit("klist", "-f").rpartition("Flags: ")[2].strip()) & set("FP") == set()


def test_kinit_renews_a_renewable_ticket(realm: Realm, mit: Mit) -> None:
    mit("kinit", "-r", "3d", "alice", text="pw\n")
    mit("kinit", "-R")
    assert set(mit("klist", "-f").rpartition("Flags: ")[2].strip()) == set(
        "RAT"
    )  # no longer I, initial
    mit("kinit", "-l", "1h", "alice", text="pw\n")
    assert "KDC can't fulfill requested option" in mit.failure("kinit", "-R")


def test_klist_shows_ok_as_delegate_on_tickets_of_services_that_have_it(
    realm: Realm, mit: Mit
) -> None:
    realm.add_service("deleg/x", ok_as_delegate=True)
    mit("kinit", "-f", "alice", text="pw\n")
    mit("kvno", "deleg/x")
    assert "O" in mit("klist", "-f").rpartition("Flags: ")[2]


def test_kinit_follows_an_enterprise_name_to_the_real_one(mit: Mit) -> None:
    mit("kinit", "-C", "-E", f"alice@{R}", text="pw\n")
    assert f"Default principal: alice@{R}" in mit("klist")


@pytest.mark.parametrize(
    ("user", "password", "says"),
    [
        ("alice", "wrong", "Password incorrect"),
        ("nobody", "pw", "not found in Kerberos database"),
        ("gone", "pw", "credentials have been revoked"),
    ],
)
def test_kinit_says_what_the_kdc_refuses(
    realm: Realm, mit: Mit, user: str, password: str, says: str
) -> None:
    realm.add_user("gone", "pw", disabled=True)
    assert says in mit.failure("kinit", user, text=f"{password}\n")
    mit("kinit", "alice", text="pw\n")


def test_kinit_asks_for_a_new_password_when_the_old_one_has_expired(realm: Realm, mit: Mit) -> None:
    realm.add_user("old", "pw", password_expired=True)
    told = mit.failure("kinit", "old", text="pw\n")
    assert "Password has expired" in mit.trace.read_text()
    assert "kadmin/changepw" in mit.trace.read_text()
    assert "Cannot read password" in told  # it asks for the new one
    mit("kinit", "old", text="pw\nanother\nanother\n")
    mit("kinit", "old", text="another\n")


def test_kpasswd_changes_a_password_or_says_the_rules(tmp_path: Path) -> None:
    rules = PasswordPolicy(8, 3, True, 0.0, 86400.0)
    with Realm(password_policy=rules) as realm:
        realm.add_user("alice", "Old-pass1")
        mit = Mit(realm, tmp_path)
        said = mit.failure("kpasswd", "alice", text="Old-pass1\nshort\nshort\n")
        assert "at least 8 characters" in said
        assert "previous 3 passwords" in said
        said = mit("kpasswd", "alice", text="Old-pass1\nNew-pass1\nNew-pass1\n")
        assert "Password changed" in said
        mit("kinit", "alice", text="New-pass1\n")


def test_kvno_says_what_the_kdc_refuses(realm: Realm, mit: Mit) -> None:
    mit("kinit", "alice", text="pw\n")
    assert "not found in Kerberos database" in mit.failure("kvno", "HTTP/nobody.example.test")
    realm.clock_offset = 7200
    assert "Clock skew too great" in mit.failure("kvno", WEB)
    realm.clock_offset = 0
    mit("kvno", WEB)


def test_kinit_copes_with_a_kdc_whose_clock_is_off(realm: Realm, tmp_path: Path) -> None:
    """MIT takes the KDC's time from PREAUTH_REQUIRED; with it, the tickets serve as well."""
    realm.clock_offset = 7200
    mit = Mit(realm, tmp_path, kdc_timesync=1)
    mit("kinit", "alice", text="pw\n")
    mit("kvno", WEB)


def test_kvno_follows_referrals_through_two_trusts(tmp_path: Path) -> None:
    with Realm("A.TEST") as a, Realm("B.TEST") as b, Realm("C.TEST") as c:
        a.trust(b)
        b.trust(c)
        a.add_user("alice", "pw")
        c.add_service("host/far.example").save(tmp_path / "far.keytab")
        mit = Mit(a, tmp_path)
        with mit.conf.open(
            "a"
        ) as conf:  # for kvno -k, which checks the way that a ticket took; clients need none
            conf.write("[capaths]\n  A.TEST = {\n    C.TEST = B.TEST\n  }\n")
        mit("kinit", "alice", text="pw\n")
        assert "keytab entry valid" in mit(
            "kvno", "-k", str(tmp_path / "far.keytab"), "host/far.example"
        )
        listed = mit("klist")
    assert "Ticket server: host/far.example@C.TEST" in listed
    trace = mit.trace.read_text()
    assert "Following referral TGT krbtgt/B.TEST@A.TEST" in trace
    assert "Following referral TGT krbtgt/C.TEST@B.TEST" in trace


class NegotiateServer(http.server.ThreadingHTTPServer):
    """Answers 401 Negotiate until a token comes; keeps the tokens."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), NegotiateHandler)
        self.tokens: list[bytes] = []


class NegotiateHandler(http.server.BaseHTTPRequestHandler):
    server: NegotiateServer

    def do_GET(self) -> None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Negotiate":
            self.server.tokens.append(base64.b64decode(token, validate=True))
        self.send_response(200 if scheme == "Negotiate" else 401)
        if scheme != "Negotiate":
            self.send_header("WWW-Authenticate", "Negotiate")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def web() -> Iterator[NegotiateServer]:
    with NegotiateServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def mech_token_of(token: bytes) -> bytes:
    """Return the Kerberos token inside the first token of SPNEGO. Source: RFC 4178 4.2.1."""
    _, at, stop = read_header(token, 0, len(token))
    _, _, at = read_header(token, at, stop)  # past the mechanism's OID
    _, at, _ = read_header(token, at, stop)  # negTokenInit [0]
    _, at, stop = read_header(token, at, stop)
    while at < stop:
        tag, start, end = read_header(token, at, stop)
        if tag == 0xA2:
            _, start, end = read_header(token, start, end)
            return token[start:end]
        at = end
    raise AssertionError("the token carries no mechToken")


def test_curl_gets_a_ticket_for_the_web_server_and_sends_it(
    realm: Realm, mit: Mit, web: NegotiateServer
) -> None:
    keytab = realm.add_service("HTTP/localhost")
    mit("kinit", "alice", text="pw\n")
    curl = find_program("curl", "curl")
    url = f"http://localhost:{web.server_address[1]}/"
    status = run(
        [
            curl,
            "-sS",
            "--noproxy",
            "*",
            "--negotiate",
            "-u",
            ":",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            url,
        ],
        env=mit.env,
    )
    assert status == "200"
    assert f"HTTP/localhost@{R}" in mit("klist")
    (token,) = web.tokens
    acceptor = Acceptor(keytab)
    acceptor.step(mech_token_of(token))
    assert str(acceptor.initiator) == f"alice@{R}"
    assert str(acceptor.acceptor) == f"HTTP/localhost@{R}"
