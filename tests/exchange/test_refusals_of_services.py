"""What a service says of a ticket that it cannot open, of a peer that sent no token, and in its log."""

from __future__ import annotations

import base64
import logging
import threading
from typing import Any

import pytest

import purekrb
from purekrb import Acceptor, Flag, Initiator, Keytab, Principal, crypto
from purekrb.constants import DEFAULT_ETYPES, ErrorCode
from purekrb.errors import (
    ApError,
    ContextError,
    CredentialError,
    DecodeError,
    KerberosError,
    MutualAuthenticationError,
    ProtocolError,
    UnsupportedError,
)
from purekrb.gss.framing import unframe
from purekrb.gss.strangers import what_is
from purekrb.log import Log
from purekrb.refusals import INTERVAL, Refusals, is_own_fault
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm
from support.tickets import SERVICE, Entry, issue

ACCOUNT = Principal.parse("svc-web@EXAMPLE.TEST")


def refusal(keys: list[Entry], token: bytes | None, **options: Any) -> KerberosError:
    with pytest.raises(KerberosError) as caught:
        Acceptor(keys, replay_cache=MemoryReplayCache(), **options).step(token)
    return caught.value


def renamed(keys: list[Entry], principal: Principal, kvno: int, *, same: bool) -> list[Entry]:
    return [
        Entry(principal, kvno, key.key if same else crypto.random_key(key.key.etype))
        for key in keys
    ]


# -- keys


@pytest.mark.parametrize("account", ["svc-web", "WEB$", "svc_app-1"])
@pytest.mark.parametrize("named", [True, False])
def test_an_old_key_under_the_name_of_the_account_is_told_to_be_old(
    account: str, named: bool
) -> None:
    principal = Principal.parse(f"{account}@EXAMPLE.TEST")
    ticket, keys = issue(kvno=6)
    options = {"service": account} if named else {}
    error = refusal(renamed(keys, principal, 5, same=False), Initiator(ticket).step(), **options)
    assert isinstance(error, ApError)
    assert error.code == ErrorCode.KRB_AP_ERR_BADKEYVER
    for words in (f"kvno 5 of {principal}", f"{SERVICE} has kvno 6", "older", "aes256"):
        assert words in str(error)
    assert "export one with that name" not in str(error)
    if not named:  # the client hears the code, and a name that it knows
        assert account.encode() not in (error.response or b"")
    current = renamed(keys, principal, 6, same=True)
    Acceptor(current, **options).step(Initiator(ticket).step())


@pytest.mark.parametrize("kvno", [5, 6])
def test_an_old_key_beside_one_of_another_account_is_told_to_be_perhaps_old(kvno: int) -> None:
    ticket, keys = issue(kvno=6)
    other = Principal.parse("svc-db@EXAMPLE.TEST")
    held = [
        *renamed(keys, ACCOUNT, kvno, same=False),
        *renamed(keys, other, 6, same=False),
    ]
    error = refusal(held, Initiator(ticket).step())
    assert getattr(error, "code", None) == ErrorCode.KRB_AP_ERR_NOKEY
    assert f"{ACCOUNT} kvno {kvno}" in str(error)
    assert ("or of another kvno" in str(error)) == (kvno == 5)


def test_a_keytab_newer_than_the_ticket_says_so_under_the_accounts_name() -> None:
    ticket, keys = issue(kvno=6)
    error = refusal(renamed(keys, ACCOUNT, 7, same=False), Initiator(ticket).step())
    assert getattr(error, "code", None) == ErrorCode.KRB_AP_ERR_BADKEYVER
    assert "the client's ticket is older" in str(error)


@pytest.mark.parametrize(
    ("principal", "kvno", "code"),
    [
        (SERVICE, 1, ErrorCode.KRB_AP_ERR_BADKEYVER),  # as from_password makes it
        (SERVICE, 3, ErrorCode.KRB_AP_ERR_BAD_INTEGRITY),
        (ACCOUNT, 1, ErrorCode.KRB_AP_ERR_BADKEYVER),
        (ACCOUNT, 3, ErrorCode.KRB_AP_ERR_NOKEY),
    ],
)
def test_a_key_of_the_wrong_salt_is_among_the_causes(
    principal: Principal, kvno: int, code: int
) -> None:
    password, salt = "Passw0rd.1", "EXAMPLE.TESTsvc-Web"
    right = crypto.string_to_key(18, password, salt)
    ticket, _ = issue(key=right)
    wrong = Keytab.from_password(principal, password, kvno=kvno)
    error = refusal(list(wrong), Initiator(ticket).step())  # type: ignore[arg-type]
    assert getattr(error, "code", None) == code
    assert "another salt" in str(error)
    assert "--ask-kdc" in str(error)
    # The kvno is harmless, as long as the key is right.
    made = Keytab.from_password(principal, password, kvno=kvno, salt=salt)
    Acceptor(made).step(Initiator(ticket).step())


@pytest.mark.parametrize("kvno", [3, 4])
def test_an_rc4_ticket_for_an_account_with_aes_keys_names_the_attribute(kvno: int) -> None:
    ticket, keys = issue(23, session_etype=18)
    aes = [Entry(ACCOUNT, kvno, crypto.random_key(etype)) for etype in (18, 17)]
    held = [*aes, *renamed(keys, ACCOUNT, 3, same=True)]
    error = refusal(held, Initiator(ticket).step())
    assert getattr(error, "code", None) == ErrorCode.KDC_ERR_ETYPE_NOSUPP
    text = str(error)
    assert "the ticket is of rc4-hmac" in text
    assert "24 (0x18)" in text
    assert ("only lacks" in text) == (kvno == 3)
    accepted = Acceptor(held, permitted_etypes=(*DEFAULT_ETYPES, 23))
    accepted.step(Initiator(ticket).step())
    assert accepted.established


@pytest.mark.parametrize(
    "service",
    [
        "HTTP/web.example.test",
        "http/web.example.test",
        "HTTP/WEB.Example.Test",
        "HTTP/web.example.test@example.test",
    ],
)
def test_service_is_compared_as_the_kdc_compares(service: str) -> None:
    ticket, keys = issue()
    context = Acceptor(keys, service=service)
    context.step(Initiator(ticket).step())
    assert context.acceptor == SERVICE


@pytest.mark.parametrize("service", ["HTTP/wep.example.test", "cifs/web.example.test"])
def test_a_service_without_an_entry_is_shown_those_that_are_there(service: str) -> None:
    ticket, keys = issue()
    error = refusal(renamed(keys, ACCOUNT, 3, same=True), Initiator(ticket).step(), service=service)
    assert getattr(error, "code", None) == ErrorCode.KRB_AP_ERR_NOKEY
    assert f"no key for {service}" in str(error)
    assert f"it has {ACCOUNT} kvno 3 (aes256" in str(error)


# -- what is no token


def waiting(mechanism: str, flags: Flag = Flag.DEFAULT) -> Initiator:
    context = Initiator(issue()[0], mechanism=mechanism, flags=flags)
    context.step()
    return context


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
@pytest.mark.parametrize("nothing", [b"", None])
def test_a_service_that_answers_without_a_token_has_not_proved_itself(
    mechanism: str, nothing: bytes | None
) -> None:
    context = waiting(mechanism)
    with pytest.raises(MutualAuthenticationError, match=r"did not prove itself.*without MUTUAL"):
        context.step(nothing)
    assert not context.established
    with pytest.raises(ContextError):
        context.wrap(b"secret")
    with pytest.raises(ContextError):
        context.step(b"")


def test_a_negotiation_without_mutual_that_gets_no_answer_is_no_lack_of_proof() -> None:
    context = waiting("negotiate", Flag.INTEG)
    with pytest.raises(ProtocolError) as caught:
        context.step(b"")
    assert not isinstance(caught.value, MutualAuthenticationError)


STRANGERS = [
    (b"<!DOCTYPE html><html>", "HTML"),
    (b"\n <html><body>403</body>", "HTML"),
    (b"HTTP/1.1 200 OK\r\n", "an HTTP response"),
    (b"Negotiate YIICQwYJKoZIhvcSAQICAQBu", "the value of an HTTP header"),
    (b'{"error": "no"}', "JSON"),
    (b"YIICQwYJKoZIhvcSAQICAQBuggIyMIICLg==", "in base64"),
    (b"TlRMTVNTUAABAAAA", "an NTLM token in base64"),
    (b"\x15\x03\x03\x00\x02\x02\x28", "a TLS alert"),
    (b"\x16\x03\x01\x02\x00\x01", "a TLS handshake"),
    (b"\x05\x04\x00\xff" + bytes(20), "of an established context"),
    (b"hello, who is there?", "text"),
]


@pytest.mark.parametrize(("token", "words"), STRANGERS)
@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
def test_what_the_peer_sent_instead_of_a_token_is_named(
    token: bytes, words: str, mechanism: str
) -> None:
    with pytest.raises(DecodeError, match=words) as caught:
        waiting(mechanism).step(token)
    assert "where a" in str(caught.value)
    error = refusal(issue()[1], token, mechanism=mechanism)
    assert isinstance(error, DecodeError)
    assert words in str(error)


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
def test_ntlm_is_named(mechanism: str) -> None:
    error = refusal(issue()[1], b"NTLMSSP\0\x01\0\0\0" + bytes(24), mechanism=mechanism)
    assert isinstance(error, UnsupportedError)
    assert "NTLM" in str(error)
    with pytest.raises(KerberosError, match="NTLM") as caught:
        waiting(mechanism).step(b"NTLMSSP\0\x02\0\0\0" + bytes(24))
    # It is the client who falls back, and who reads this.
    assert "the client has no Kerberos ticket" not in str(caught.value)


def test_a_bare_ap_req_is_named_and_nothing_is_taken_for_a_token_that_is_one() -> None:
    ticket, keys = issue()
    token = Initiator(ticket).step() or b""
    error = refusal(keys, unframe(token)[1])
    assert "a bare AP-REQ without the GSS-API frame" in str(error)
    assert what_is(token) is None
    assert what_is(b"") == "nothing"
    assert what_is(base64.b64encode(token)) == "text in base64: decode it first"
    assert what_is(b"\x01\x02\x03\xff" * 8) is None


# -- calls with the wrong kind of argument


def test_a_file_name_is_no_keytab_and_a_name_no_credential() -> None:
    with pytest.raises(TypeError, match=r'Keytab\.load\("FILE"\)'):
        Acceptor("/etc/krb5.keytab")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Credential\.from_password"):
        purekrb.initiate("HTTP/web.example.test", "alice")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r'Keytab\.load\("FILE"\)'):
        purekrb.listen(("127.0.0.1", 0), "/etc/krb5.keytab")  # type: ignore[arg-type]


# -- the log of a server


def test_a_server_that_refuses_everybody_says_so_at_warning_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Realm() as realm:
        alice = realm.add_user("alice", "pw")
        old = realm.add_service("HTTP/web.example.test")
        realm.change_key("HTTP/web.example.test")
        with (
            caplog.at_level(logging.DEBUG, "purekrb.channel"),
            purekrb.listen(("127.0.0.1", 0), old) as server,
        ):
            thread = threading.Thread(target=lambda: list(server))
            thread.start()
            for _ in range(3):
                with pytest.raises(KerberosError):
                    purekrb.connect(server.address, "HTTP/web.example.test", alice, realm.config)
            server.close()
            thread.join(10)
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert [r.name for r in warnings] == ["purekrb.channel"]
    assert "kvno" in warnings[0].getMessage()
    assert "127.0.0.1" in warnings[0].getMessage()
    quiet = [
        r for r in caplog.records if r.levelno == logging.DEBUG and "refused" in r.getMessage()
    ]
    assert len(quiet) == 2


CAUSES = [
    (ApError("kvno", code=ErrorCode.KRB_AP_ERR_BADKEYVER), True),
    (ApError("no key", code=ErrorCode.KRB_AP_ERR_NOKEY), True),
    (ApError("rc4", code=ErrorCode.KDC_ERR_ETYPE_NOSUPP), True),
    (ApError("clock", code=ErrorCode.KRB_AP_ERR_SKEW), True),
    (ApError("cache", code=ErrorCode.KRB_ERR_GENERIC), True),
    (CredentialError("keytab"), True),
    (ApError("replay", code=ErrorCode.KRB_AP_ERR_REPEAT), False),
    (ApError("flags", code=ErrorCode.KRB_AP_ERR_MUT_FAIL), False),
    (DecodeError("garbage"), False),
    (ProtocolError("order"), False),
]


@pytest.mark.parametrize(("error", "own"), CAUSES)
def test_causes_are_the_servers_or_the_clients(error: KerberosError, own: bool) -> None:
    assert is_own_fault(error) == own


def test_each_cause_is_warned_of_once_a_minute_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    time = 0.0
    refusals = Refusals(Log("purekrb.channel"), monotonic=lambda: time)
    with caplog.at_level(logging.WARNING, "purekrb.channel"):
        for step in range(1000):
            time = step * INTERVAL / 400  # two and a half minutes
            for error, _ in CAUSES:
                refusals.report(("192.0.2.1", 1024 + step), error)
    by_cause = [r.getMessage() for r in caplog.records if "kvno" in r.getMessage()]
    assert len(by_cause) == 3
    assert "399 more" in by_cause[1]
    assert len(caplog.records) == 3 * sum(own for _, own in CAUSES)
