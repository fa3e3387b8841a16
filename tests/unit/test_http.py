"""HTTP Negotiate without HTTP: the fields, origins, the client's dialogue and the service's gate."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, ClassVar

import pytest

from purekrb import (
    Acceptor,
    ChannelBindings,
    ChannelBindingsError,
    DecodeError,
    Flag,
    Initiator,
    MutualAuthenticationError,
    Principal,
    ServiceTicket,
)
from purekrb.integrations.asgi import KerberosMiddleware as AsgiMiddleware
from purekrb.integrations.http.client import Dialogue, Fields, Reply, Settings
from purekrb.integrations.http.gate import Admitted, Gate, Refused
from purekrb.integrations.http.headers import find_challenge, read_credentials, write_field
from purekrb.integrations.http.origins import leads_elsewhere, origin_of, service_of
from purekrb.integrations.http.rounds import Rounds
from purekrb.integrations.wsgi import KerberosMiddleware as WsgiMiddleware
from purekrb.messages.spnego import NegTokenResp
from purekrb.replay import FileReplayCache, MemoryReplayCache
from support.spnego import NTLM_TOKEN as NTLM
from support.spnego import PreferringNtlm
from support.tickets import ALICE, Entry, issue
from support.tls import self_signed

URL = "http://web.example.test/"
SECURE = "https://web.example.test/"


# -- header fields ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        (["Negotiate"], b""),
        (["negotiate YWJj"], b"abc"),
        (['Basic realm="a, Negotiate eHl6"', "Negotiate YWJj"], b"abc"),
        (['Basic realm="x\\", Negotiate ", Negotiate'], b""),
        (["NTLM, Negotiate YWI=, Bearer"], b"ab"),
        (["Basic realm=x"], None),
        (["Negotiated YWJj"], None),
        (["XNegotiate"], None),
        ([], None),
    ],
)
def test_a_challenge_is_found_among_others(fields: list[str], token: bytes | None) -> None:
    assert find_challenge(fields) == token


@pytest.mark.parametrize("field", ["Negotiate YWJ", "Negotiate " + "A" * 200_000])
def test_a_challenge_that_is_not_base64_is_refused(field: str) -> None:
    assert find_challenge(["Negotiate YWJj"]) == b"abc"
    with pytest.raises(DecodeError):
        find_challenge([field])


def test_credentials_are_read_as_they_are_written() -> None:
    assert write_field(None) == write_field(b"") == "Negotiate"
    assert read_credentials(write_field(b"token")) == b"token"
    assert read_credentials("NEGOTIATE dG9rZW4=") == b"token"
    assert read_credentials("Basic YTpi") is None
    for bad in (
        "Negotiate a b",
        "Negotiate dG9rZW4=,Negotiate dG9rZW4=",
        "Negotiate ü",
        "Negotiate " + "A" * 200_000,
    ):
        with pytest.raises(DecodeError):
            read_credentials(bad)


# -- origins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "elsewhere"),
    [
        ("/next", False),
        ("http://WEB.example.test:80/next", False),
        ("http://user@web.example.test./", False),
        ("https://web.example.test/", True),
        ("http://web.example.test:8080/", True),
        ("//other.example.test/", True),
        ("http://web.example.test.evil.test/", True),
        ("http://web.example.test@evil.test/", True),
        ("http://[::1", True),
        ("http://web.example.test:99999/", True),
        ("ftp://web.example.test/", True),
    ],
)
def test_a_redirect_leads_elsewhere_by_scheme_host_or_port(location: str, elsewhere: bool) -> None:
    assert leads_elsewhere("http://web.example.test/dir/page", location) is elsewhere


def test_the_service_is_the_urls_host_in_small_letters() -> None:
    assert service_of(origin_of("https://WEB.Example.Test.:8443/x?y#z")) == "HTTP/web.example.test"
    for url in ("/relative", "http:///", "http://[::1", "mailto:alice@example.test"):
        with pytest.raises(DecodeError):
            origin_of(url)


# -- the client's dialogue -------------------------------------------------------------------------


class Client:
    """Drives a dialogue with tickets that need no KDC."""

    def __init__(self, url: str = URL, **options: Any) -> None:
        self.ticket, self.keys = issue()
        defaults: dict[str, Any] = {
            "target": None,
            "mutual": "required",
            "preemptive": False,
            "delegate": False,
            "channel_bindings": True,
            "proxy_target": None,
            "config": None,
            "timeout": 10.0,
        }
        self.settings = Settings(None, **(defaults | options))
        self.mutual = (defaults | options)["mutual"]
        self.starts: list[Any] = []
        self.url = url
        self.dialogue = Dialogue(self.settings, url)

    def _drive(self, exchange: Any) -> Any:
        try:
            step = next(exchange)
            while True:
                self.starts.append(step)
                flags = Flag.DEFAULT & ~Flag.MUTUAL if self.mutual == "disabled" else Flag.DEFAULT
                step = exchange.send(
                    Initiator(
                        self.ticket,
                        flags=flags,
                        mechanism="negotiate",
                        channel_bindings=step.channel_bindings,
                    )
                )
        except StopIteration as done:
            return done.value

    def open(self) -> Fields:
        return self._drive(self.dialogue.open())

    def answer(self, status: int, *challenges: str, **reply: Any) -> Fields | None:
        reply.setdefault("url", self.url)
        return self._drive(self.dialogue.answer(Reply(status, challenges=challenges, **reply)))

    def token(self) -> str:
        """The field after a first 401."""
        fields = self.answer(401, "Negotiate")
        assert fields is not None
        return fields["Authorization"]

    def gate(self, **options: Any) -> Gate:
        return Gate(self.keys, replay_cache=MemoryReplayCache(), **options)

    def admitted(self, **options: Any) -> Admitted:
        verdict = self.gate().judge(self.token(), **options)
        assert isinstance(verdict, Admitted)
        return verdict


def test_a_token_is_sent_when_asked_and_the_proof_is_verified() -> None:
    client = Client()
    assert client.open() == {}
    admitted = client.admitted()
    assert admitted.user.principal == ALICE
    assert client.answer(200, admitted.answer) is None
    assert [start.target for start in client.starts] == ["HTTP/web.example.test"]


def test_a_token_may_be_sent_unasked() -> None:
    client = Client(preemptive=True)
    verdict = client.gate().judge(client.open()["Authorization"])
    assert isinstance(verdict, Admitted)
    assert client.answer(200, verdict.answer) is None


def test_a_target_of_the_callers_replaces_the_urls_host() -> None:
    client = Client(target="HTTP/alias.example.test")
    client.token()
    assert client.starts[0].target == "HTTP/alias.example.test"


OTHER_TOKENS = {
    "nothing came": ([], "has no WWW-Authenticate"),
    "another scheme": (["Basic realm=x"], "has no WWW-Authenticate"),
    "the word alone": (["Negotiate"], "without a token"),
    "accepted, without a proof": (
        [write_field(NegTokenResp(0).encode())],
        "has not proved its identity",
    ),
    "not base64": (["Negotiate YWJ"], "not base64"),
    "rubbish": (["Negotiate YWJj"], "has a token that is no proof"),
    "NTLM": ([write_field(NTLM)], "has a token that is no proof"),
}


@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("name", OTHER_TOKENS)
def test_a_success_without_proof_is_an_error_that_names_the_cause(name: str, status: int) -> None:
    challenges, text = OTHER_TOKENS[name]
    client = Client()
    client.admitted()
    with pytest.raises(MutualAuthenticationError, match=text):
        client.answer(status, *challenges)


def test_the_proof_of_another_context_is_no_proof() -> None:
    client, other = Client(), Client()
    admitted = other.admitted()
    client.token()
    with pytest.raises(MutualAuthenticationError, match="no proof"):
        client.answer(200, admitted.answer)
    assert other.answer(200, admitted.answer) is None


def test_a_success_that_nobody_was_asked_for_is_no_proof() -> None:
    client = Client()
    client.open()
    with pytest.raises(MutualAuthenticationError, match="preemptive=True"):
        client.answer(200)


def test_optional_takes_a_missing_proof_and_refuses_a_wrong_one() -> None:
    for challenges in ([], ["Negotiate"], [write_field(NegTokenResp(0).encode())]):
        client = Client(mutual="optional")
        client.admitted()
        assert client.answer(200, *challenges) is None
    client = Client(mutual="optional")
    client.token()
    with pytest.raises(MutualAuthenticationError):
        client.answer(200, Client().admitted().answer)


def test_disabled_asks_for_no_proof() -> None:
    client = Client(mutual="disabled")
    admitted = client.admitted()
    assert Flag.MUTUAL not in admitted.user._context.flags
    assert client.answer(200) is None
    with pytest.raises(ValueError, match="mutual"):
        Client(mutual="yes")
    with pytest.raises(ValueError, match="delegate"):
        Client(mutual="disabled", delegate=True)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_error_of_the_service_is_for_the_caller(status: int) -> None:
    client = Client()
    client.admitted()
    assert client.answer(status) is None


def test_a_refused_token_is_not_followed_by_another() -> None:
    client = Client()
    client.token()
    assert client.answer(401, "Negotiate") is None
    assert len(client.starts) == 1
    client = Client()
    client.token()
    assert client.answer(401, write_field(NegTokenResp(2).encode())) is None
    assert len(client.starts) == 1


def test_an_unasked_token_that_is_refused_is_followed_by_one_more() -> None:
    client = Client(preemptive=True)
    assert client.open()
    assert client.answer(401, "Negotiate") is not None
    assert client.answer(401, "Negotiate") is None
    assert len(client.starts) == 2


def test_a_service_cannot_keep_a_client_busy() -> None:
    client = Client()
    for _ in range(20):
        if client.answer(401, "Negotiate") is None:
            break
    assert len(client.starts) == 1


def test_another_scheme_is_left_to_the_caller() -> None:
    client = Client()
    assert client.answer(401, 'Basic realm="x"') is None
    assert client.starts == []


def test_a_redirect_never_carries_a_token_to_another_origin(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for url in (SECURE, "http://other.example.test/", "http://web.example.test:81/"):
        client = Client()
        admitted = client.admitted()
        assert client.answer(302, admitted.answer, location=url) is None
        assert client.answer(401, "Negotiate", url=url) is None
        assert client.answer(200, url=url) is None
        # Nor where it comes back from there.
        assert client.answer(401, "Negotiate") is None
        assert len(client.starts) == 1
        assert "a redirect led there" in caplog.text


def test_a_redirect_to_another_origin_needs_a_proof_itself() -> None:
    client = Client()
    client.token()
    with pytest.raises(MutualAuthenticationError, match="request that URL directly"):
        client.answer(302, location="http://evil.test/")


def test_a_redirect_within_the_origin_is_followed_by_a_new_handshake() -> None:
    client = Client()
    client.open()
    assert client.answer(301, location="/next") is None
    url = "http://web.example.test/next"
    fields = client.answer(401, "Negotiate", url=url)
    assert fields is not None
    verdict = client.gate().judge(fields["Authorization"])
    assert isinstance(verdict, Admitted)
    with pytest.raises(MutualAuthenticationError):
        client.answer(200, url=url)


def test_a_proxy_gets_a_token_of_its_own() -> None:
    client = Client()
    proxy = "http://proxy.example.test:3128"
    fields = client.answer(407, proxy_challenges=["Negotiate"], proxy=proxy)
    assert fields is not None
    assert list(fields) == ["Proxy-Authorization"]
    # A token serves once: the proxy gets another one with that for the service.
    again = client.answer(401, "Negotiate")
    assert again is not None
    assert list(again) == ["Authorization", "Proxy-Authorization"]
    assert again["Proxy-Authorization"] != fields["Proxy-Authorization"]
    admitted = client.gate().judge(again["Authorization"])
    assert isinstance(admitted, Admitted)
    assert client.answer(200, admitted.answer) is None
    web, at_proxy = "HTTP/web.example.test", "HTTP/proxy.example.test"
    assert [start.target for start in client.starts] == [at_proxy, web, at_proxy]


def test_a_service_cannot_pose_as_a_proxy() -> None:
    client = Client()
    assert client.answer(407, proxy_challenges=["Negotiate"]) is None
    assert client.starts == []


def test_tokens_are_bound_to_the_tls_server() -> None:
    certificate, other = certificates()
    client = Client(SECURE)
    fields = client.answer(401, "Negotiate", certificate=certificate)
    assert fields is not None
    bindings = ChannelBindings.tls_server_end_point(certificate)
    assert client.starts[0].channel_bindings == bindings
    acceptor = Acceptor(client.keys, channel_bindings=bindings)
    answer = acceptor.step(read_credentials(fields["Authorization"]))
    assert acceptor.channel_bound
    assert client.answer(200, write_field(answer), certificate=certificate) is None
    # The same answer over another server is a sign of somebody in between.
    client = Client(SECURE)
    client.answer(401, "Negotiate", certificate=certificate)
    with pytest.raises(ChannelBindingsError, match="another certificate"):
        client.answer(200, certificate=other)


def test_no_token_is_sent_unbound_unless_told_so() -> None:
    client = Client(SECURE)
    with pytest.raises(ChannelBindingsError, match="channel_bindings=False"):
        client.answer(401, "Negotiate")
    assert client.starts == []
    client = Client(SECURE, channel_bindings=False)
    assert client.answer(401, "Negotiate") is not None
    assert client.starts[0].channel_bindings is None


def test_an_unasked_token_waits_until_the_tls_server_is_known() -> None:
    certificate, _ = certificates()
    client = Client(SECURE, preemptive=True)
    assert client.open() == {}
    client.answer(401, "Negotiate", certificate=certificate)
    client.dialogue = Dialogue(client.settings, SECURE)
    assert list(client.open()) == ["Authorization"]
    assert client.starts[1].channel_bindings == ChannelBindings.tls_server_end_point(certificate)


def certificates() -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    first, second = (
        self_signed(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()) for _ in range(2)
    )
    return first, second


# -- the service's gate ----------------------------------------------------------------------------


def first_token(ticket: ServiceTicket, **options: Any) -> str:
    return write_field(Initiator(ticket, mechanism="negotiate", **options).step())


def gate_for(keys: list[Entry], **options: Any) -> Gate:
    return Gate(keys, replay_cache=MemoryReplayCache(), **options)


def test_a_client_that_asks_for_no_proof_is_admitted_and_answered() -> None:
    ticket, keys = issue()
    verdict = gate_for(keys).judge(first_token(ticket, flags=Flag.INTEG))
    assert isinstance(verdict, Admitted)
    assert find_challenge([verdict.answer])


def test_a_request_without_a_token_is_told_what_to_do() -> None:
    _, keys = issue()
    gate = gate_for(keys)
    for authorization in (None, "Basic YTpi"):
        verdict = gate.judge(authorization)
        assert isinstance(verdict, Refused)
        headers = dict(verdict.headers)
        assert (verdict.status, headers["WWW-Authenticate"]) == (401, "Negotiate")
        assert headers["Content-Type"].startswith("text/plain")
        assert b"kinit" in verdict.body
    page = gate.judge(None, wants_html=True)
    assert isinstance(page, Refused)
    assert page.body.startswith(b"<!doctype html>")
    assert int(dict(page.headers)["Content-Length"]) == len(page.body)


REFUSALS: dict[str, tuple[Callable[[Any], str], bytes]] = {
    "rubbish": (lambda _: "Negotiate YWJj", b"did not accept"),
    "not base64": (lambda _: "Negotiate YWJ", b"did not accept"),
    "nothing": (lambda _: "Negotiate", b"sent none"),
    "NTLM": (lambda _: write_field(NTLM), b"NTLM"),
    "NTLM in SPNEGO": (
        lambda _: (
            "Negotiate "
            + base64.b64encode(
                bytes.fromhex(
                    "604806062b0601050502a03e303ca00e300c060a2b06010401823702020aa22a0428"
                )
                + b"NTLMSSP\0"
                + bytes(32)
            ).decode()
        ),
        b"NTLM",
    ),
    "a ticket for another service's key": (lambda _: first_token(issue()[0]), b"did not accept"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_bad_token_is_refused_and_its_sender_told_what_to_do(name: str) -> None:
    make, text = REFUSALS[name]
    ticket, keys = issue()
    gate = gate_for(keys)
    for wants_html in (False, True):
        verdict = gate.judge(make(ticket), wants_html=wants_html)
        assert isinstance(verdict, Refused)
        assert verdict.status == 401
        assert text in verdict.body
        assert dict(verdict.headers)["WWW-Authenticate"].startswith("Negotiate")
    assert isinstance(gate.judge(first_token(ticket)), Admitted)


def test_a_browser_gets_no_token_with_a_refusal_since_it_would_hide_the_page() -> None:
    gate = gate_for(issue()[1])
    token = first_token(issue()[0])
    fields = [
        dict(gate.judge(token, wants_html=wants_html).headers)["WWW-Authenticate"]  # type: ignore[union-attr]
        for wants_html in (False, True)
    ]
    assert find_challenge(fields[:1])
    assert fields[1] == "Negotiate"


def test_a_token_counts_once() -> None:
    ticket, keys = issue()
    gate, token = gate_for(keys), first_token(ticket)
    assert isinstance(gate.judge(token), Admitted)
    again = gate.judge(token)
    assert isinstance(again, Refused)
    assert b"already made" in again.body


def test_refusals_for_which_the_service_is_to_blame_are_in_its_log(
    tmp_path: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticket, keys = issue()
    no_keys = gate_for(issue()[1])
    no_cache = Gate(keys, replay_cache=FileReplayCache(tmp_path / "missing" / "file"))
    for _ in range(3):  # whoever can connect could fill the log
        for gate in (no_keys, no_cache):
            assert isinstance(gate.judge(first_token(ticket), peer="192.0.2.7"), Refused)
            gate.judge("Negotiate YWJj", peer="192.0.2.7")
    told = [record for record in caplog.records if record.name == "purekrb.http"]
    assert [record.levelname for record in told] == ["WARNING", "WARNING"]
    for record, words in zip(told, ("does not decrypt", "cannot be used"), strict=True):
        assert "192.0.2.7" in record.getMessage()
        assert words in record.getMessage()
    assert isinstance(gate_for(keys).judge(first_token(ticket)), Admitted)


def test_a_client_of_several_rounds_is_admitted_on_its_connection_alone() -> None:
    ticket, keys = issue()
    gate = gate_for(keys)
    client = PreferringNtlm(ticket)
    token, seen = client.step(None), []
    for _ in range(4):
        assert token is not None
        verdict = gate.judge(write_field(token), connection=("127.0.0.1", 1000))
        if isinstance(verdict, Admitted):
            break
        field = dict(verdict.headers)["WWW-Authenticate"]
        seen.append(field)
        token = client.step(find_challenge([field]))
        # Another connection cannot go on with it, and does not disturb it.
        assert isinstance(gate.judge(write_field(token), connection=("127.0.0.1", 2)), Refused)
    assert isinstance(verdict, Admitted)
    assert verdict.user.principal == ALICE
    assert len(seen) >= 1


def test_a_half_made_context_makes_nobody_another() -> None:
    bob = Principal.parse("bob@EXAMPLE.TEST")
    alice_ticket, keys = issue()
    bob_ticket, _ = issue(client=bob, key=keys[0].key)
    gate = gate_for(keys)

    def field(verdict: Admitted | Refused) -> bytes | None:
        assert isinstance(verdict, Refused)
        return find_challenge([dict(verdict.headers)["WWW-Authenticate"]])

    # Both come over one connection of a proxy, and bob's rounds follow alice's.
    alice, other = PreferringNtlm(alice_ticket), PreferringNtlm(bob_ticket)
    alice_first, bob_first = alice.step(None), other.step(None)
    assert alice_first
    assert bob_first
    hint = field(gate.judge(write_field(alice_first)))
    alice_second, bob_second = alice.step(hint), other.step(hint)
    assert alice_second
    assert bob_second
    third = other.step(field(gate.judge(write_field(bob_second))))
    assert third
    verdict = gate.judge(write_field(third))
    assert isinstance(verdict, Admitted)
    assert verdict.user.principal == bob
    # Nor does bob's last round complete what alice has begun.
    alice = PreferringNtlm(alice_ticket)
    first = alice.step(None)
    assert first
    second = alice.step(field(gate.judge(write_field(first))))
    assert second
    assert isinstance(gate.judge(write_field(second)), Refused)
    assert isinstance(gate.judge(write_field(third)), Refused)


def test_half_made_contexts_are_bounded_in_number_and_time() -> None:
    now = [0.0]
    rounds = Rounds(3, 10.0, lambda: now[0])
    contexts = [Acceptor(issue()[1]) for _ in range(5)]
    for number, context in enumerate(contexts):
        rounds.put(number, context)
        assert len(rounds) <= 3
    assert [rounds.take(n) is not None for n in range(5)] == [False, False, True, True, True]
    rounds.put("a", contexts[0])
    now[0] = 5.0
    rounds.put("b", contexts[1])
    now[0] = 10.5
    assert rounds.take("a") is None
    assert rounds.take("b") is contexts[1]
    assert rounds.take("b") is None


@pytest.mark.parametrize(
    ("path", "public"),
    [
        ("/", False),
        ("/healthz", True),
        ("/healthz/", False),
        ("/healthz/../admin", False),
        ("/static/app.css", True),
        ("/static/", True),
        ("/static", False),
        ("/statics", False),
        ("/static/../admin", False),
        ("/static/./app.css", False),
        ("/static//admin", False),
        ("/static/..%2fadmin", False),
        ("/static/..\\admin", False),
        ("/static/..;/admin", False),
        ("/static/app.css;v=1", True),
        ("", False),
    ],
)
def test_public_paths_are_the_listed_ones_alone(path: str, public: bool) -> None:
    assert gate_for(issue()[1], public=["/healthz", "/static/*"]).is_public(path) is public


@pytest.mark.parametrize("public", [["static"], ["/a*b"], ["*"]])
def test_a_public_path_that_says_something_else_than_meant_is_refused(public: list[str]) -> None:
    assert not gate_for(issue()[1], public=[]).is_public("/")
    with pytest.raises(ValueError, match="public path"):
        gate_for(issue()[1], public=public)
    with pytest.raises(TypeError):
        gate_for(issue()[1], public="/static/*")


def test_who_is_known_may_still_be_forbidden() -> None:
    ticket, keys = issue()
    gate = gate_for(keys)
    admitted = gate.judge(first_token(ticket))
    assert isinstance(admitted, Admitted)
    refused = gate.forbid(admitted, wants_html=True)
    assert refused.status == 403
    assert b"alice@EXAMPLE.TEST" in refused.body
    assert dict(refused.headers)["WWW-Authenticate"] == admitted.answer


def test_channel_bindings_are_checked_and_can_be_demanded(tmp_path: Any) -> None:
    import ssl

    ticket, keys = issue()
    ours, other = certificates()
    pem = tmp_path / "tls.pem"
    pem.write_text(ssl.DER_cert_to_PEM_cert(ours))

    def sent(certificate: bytes | None) -> str:
        bindings = certificate and ChannelBindings.tls_server_end_point(certificate)
        return first_token(ticket, channel_bindings=bindings)

    for required in (False, True):
        gate = gate_for(keys, certificate=pem, require_channel_bindings=required)
        bound = gate.judge(sent(ours))
        assert isinstance(bound, Admitted)
        assert bound.user.channel_bound
        assert isinstance(gate.judge(sent(other)), Refused)
        assert isinstance(gate.judge(sent(None)), Refused if required else Admitted)
    unknown = gate_for(keys, require_channel_bindings=True)
    assert isinstance(unknown.judge(sent(ours)), Refused)
    told = ssl.DER_cert_to_PEM_cert(ours)
    assert isinstance(unknown.judge(sent(ours), tls_certificate=told), Admitted)


def test_a_renewed_certificate_is_read_and_the_one_before_stays_valid(tmp_path: Any) -> None:
    import os
    import ssl

    ticket, keys = issue()
    old, new = certificates()
    pem = tmp_path / "tls.pem"
    pem.write_text(ssl.DER_cert_to_PEM_cert(old))
    gate = gate_for(keys, certificate=pem, require_channel_bindings=True)
    fresh = tmp_path / "new.pem"
    fresh.write_text(ssl.DER_cert_to_PEM_cert(new))
    os.replace(fresh, pem)
    for certificate in (old, new):
        token = first_token(
            ticket, channel_bindings=ChannelBindings.tls_server_end_point(certificate)
        )
        assert isinstance(gate.judge(token), Admitted)
    pem.write_text("half-writ")
    token = first_token(ticket, channel_bindings=ChannelBindings.tls_server_end_point(new))
    assert isinstance(gate.judge(token), Admitted)


def test_keys_are_replaced_while_a_service_runs(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import os

    from purekrb import Keytab, KeytabEntry

    def entries(*groups: list[Entry]) -> Keytab:
        moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
        listed = (entry for group in groups for entry in group)
        return Keytab(KeytabEntry(e.principal, e.kvno, e.key, moment) for e in listed)

    path = tmp_path / "keytab"
    old_ticket, old = issue(kvno=5)
    new_ticket, new = issue(kvno=6)
    entries(old).save(path)
    gate = Gate(path, replay_cache=MemoryReplayCache())

    def admitted(ticket: ServiceTicket) -> bool:
        return isinstance(gate.judge(first_token(ticket)), Admitted)

    assert (admitted(old_ticket), admitted(new_ticket)) == (True, False)
    entries(old, new).save(path)
    assert (admitted(old_ticket), admitted(new_ticket)) == (True, True)
    path.write_bytes(b"half-writ")
    assert (admitted(old_ticket), admitted(new_ticket)) == (True, True)
    assert "the keys of the keytab before stay in use" in caplog.text
    os.remove(path)
    assert (admitted(old_ticket), admitted(new_ticket)) == (True, True)
    # A key that has left the file stops working with the next request.
    entries(new).save(path)
    assert (admitted(old_ticket), admitted(new_ticket)) == (False, True)


class SlowCache:
    """A cache of the caller's, which may wait for the network; it notes its thread."""

    threads: ClassVar[list[str]] = []

    def remember(self, *_: Any) -> None:
        self.threads.append(threading.current_thread().name)


# -- ASGI without a server -------------------------------------------------------------------------


def ask(app: Any, scope: dict[str, Any], *received: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an application sends to one request."""
    sent: list[dict[str, Any]] = []
    waiting = list(received or [{"type": "http.request", "body": b""}])

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app({"headers": [], "path": "/", "type": "http", **scope}, receive, send))
    return sent


def test_asgi_judges_in_a_thread_if_the_replay_cache_may_wait() -> None:
    ticket, keys = issue()
    users: list[Any] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        users.append(scope["user"].principal)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    for cache in (MemoryReplayCache(), SlowCache()):
        protected = AsgiMiddleware(app, keys, replay_cache=cache)
        headers = [(b"authorization", first_token(ticket).encode())]
        (start,) = ask(protected, {"headers": headers})
        assert start["status"] == 200
        assert start["headers"][0][0] == b"www-authenticate"
    assert users == [ALICE, ALICE]
    assert SlowCache.threads[0] != threading.main_thread().name


def test_django_judges_in_a_thread_if_the_replay_cache_may_wait() -> None:
    from django.conf import settings
    from django.http import HttpRequest, HttpResponse
    from django.test import override_settings

    from purekrb.integrations.django import KerberosMiddleware as DjangoMiddleware

    if not settings.configured:
        settings.configure()
    ticket, keys = issue()

    async def view(request: Any) -> HttpResponse:
        return HttpResponse(str(request.kerberos))

    before = len(SlowCache.threads)
    for cache in (MemoryReplayCache(), SlowCache()):
        with override_settings(PUREKRB={"keytab": keys, "replay_cache": cache}):
            middleware = DjangoMiddleware(view)
        request = HttpRequest()
        request.META["HTTP_AUTHORIZATION"] = first_token(ticket)
        response = asyncio.run(middleware(request))
        assert (response.status_code, response.content) == (200, b"alice@EXAMPLE.TEST")
        assert response["WWW-Authenticate"].startswith("Negotiate ")
        refused = asyncio.run(middleware(HttpRequest()))
        assert refused.status_code == 401
    (thread,) = SlowCache.threads[before:]
    assert thread != threading.main_thread().name


def test_a_websocket_is_authenticated_too() -> None:
    ticket, keys = issue()
    reached: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["user"].principal)
        await receive()
        await send({"type": "websocket.accept"})

    protected = AsgiMiddleware(app, keys, replay_cache=MemoryReplayCache())
    connect = {"type": "websocket.connect"}
    assert ask(protected, {"type": "websocket"}, connect) == [
        {"type": "websocket.close", "code": 1008}
    ]
    extensions = {"websocket.http.response": {}}
    start, body = ask(protected, {"type": "websocket", "extensions": extensions}, connect)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert body["body"]
    assert reached == []
    headers = [(b"authorization", first_token(ticket).encode())]
    (accept,) = ask(protected, {"type": "websocket", "headers": headers}, connect)
    assert accept["headers"][0][0] == b"www-authenticate"
    assert reached == [ALICE]
    with pytest.raises(ValueError, match="cannot be authenticated"):
        ask(protected, {"type": "webtransport"})


def test_a_coroutine_may_decide_who_comes_in() -> None:
    ticket, keys = issue()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def alone(user: Any) -> bool:
        return bool(user.principal == ALICE)

    async def nobody(_user: Any) -> bool:
        return False

    for authorize, status in ((alone, 200), (nobody, 403)):
        protected = AsgiMiddleware(app, keys, authorize=authorize, replay_cache=MemoryReplayCache())
        headers = [(b"authorization", first_token(ticket).encode())]
        assert ask(protected, {"headers": headers})[0]["status"] == status


def test_a_coroutine_that_nothing_awaits_lets_nobody_in() -> None:
    ticket, keys = issue()

    async def nobody(_user: Any) -> bool:
        return False

    def served(authorize: Any) -> list[str]:
        def app(_environ: Any, start: Any) -> list[bytes]:
            start("200 OK", [])
            return []

        statuses: list[str] = []
        protected = WsgiMiddleware(app, keys, authorize=authorize, replay_cache=MemoryReplayCache())
        environ = {"HTTP_AUTHORIZATION": first_token(ticket)}
        protected(environ, lambda status, _headers: statuses.append(status))
        return statuses

    with pytest.raises(TypeError, match="coroutine"):
        served(nobody)
    assert served(lambda _user: True) == ["200 OK"]
    assert served(lambda _user: False) == ["403 Forbidden"]


def test_a_user_tells_who_it_is() -> None:
    ticket, keys = issue()
    verdict = gate_for(keys).judge(first_token(ticket))
    assert isinstance(verdict, Admitted)
    user = verdict.user
    assert str(user) == user.display_name == "alice@EXAMPLE.TEST"
    assert repr(user) == "<User alice@EXAMPLE.TEST>"
    assert user.is_authenticated
    assert user.identity.principal == ALICE
    assert not user.has_sid("S-1-5-21-1-2-3-512")
    assert user.delegated_credential is None
