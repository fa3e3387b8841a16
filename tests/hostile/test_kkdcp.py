"""KDC proxies and gateways that lie (K260, K590 to K599), over the blocking and the asyncio client alike."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from purekrb import Config, KdcClient, OutcomeUnknownError, ProtocolError, TransportError
from purekrb.aio import KdcClient as AsyncKdcClient
from purekrb.doctor.recorder import question
from purekrb.errors import TransportTimeoutError
from purekrb.krb5conf.config import KdcAddress, RealmConfig
from purekrb.messages.kkdcp import KdcProxyMessage, unwrap
from purekrb.names import Principal
from purekrb.testing import Realm
from support import asking
from support.https_stub import HttpsStub, proxied, response
from support.kdc_stubs import reply_of
from support.tls import Authority, ServerTls

REALM = "R.TEST"
REQUEST = b"\x6a\x03req"
REPLY = reply_of()
GOOD = response(proxied(REPLY))

Ask = Callable[..., bytes]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def settings(authority: Authority, *urls: str, **options: Any) -> Config:
    servers = RealmConfig(
        kdc=tuple(map(KdcAddress.parse, urls)),
        options={"http_anchors": (f"FILE:{authority.ca}",)},
    )
    return Config(realms={REALM: servers}, dns_lookup_kdc=False, **options)


@pytest.fixture(params=["blocking", "asyncio"])
def ask(request: pytest.FixtureRequest, authority: Authority) -> Ask:
    """ask(url, ..., timeout=) -> reply."""

    def send(*urls: str, timeout: float = 10.0) -> bytes:
        locator = asking.Locator(settings(authority, *urls))
        deadline = time.monotonic() + timeout
        if request.param == "blocking":
            return asking.send(locator, REALM, REQUEST, deadline)
        return asyncio.run(asking.send_async(locator, REALM, REQUEST, deadline))

    return send


@pytest.fixture(scope="module")
def certified(authority: Authority) -> Callable[..., ServerTls]:
    return functools.cache(authority.server)


@pytest.fixture
def gateway(certified: Callable[..., ServerTls]) -> Iterator[Callable[..., HttpsStub]]:
    """gateway(answer, name=, usage=, expired=) -> a running server."""
    running: list[HttpsStub] = []

    def run(answer: Any, name: str = "localhost", **options: Any) -> HttpsStub:
        stub = HttpsStub(
            certified(name, **options), answer if callable(answer) else lambda _: answer
        )
        running.append(stub.__enter__())
        return stub

    yield run
    for stub in running:
        stub.__exit__(None, None, None)


# -- what is accepted ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(GOOD, id="plain"),
        pytest.param(response(proxied(REPLY), version="1.0", length=False), id="HTTP/1.0"),
        pytest.param(response(proxied(REPLY), kind="Application/Kerberos; a=b"), id="type"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, id="after 100"),
        pytest.param(
            response(b"", "Transfer-Encoding: chunked", length=False)
            + b"".join(b"1\r\n%c\r\n" % octet for octet in proxied(REPLY))
            + b"0\r\n\r\n",
            id="chunked",
        ),
        pytest.param([GOOD[i : i + 1] for i in range(len(GOOD))], id="octet by octet"),
    ],
)
def test_a_gateway_that_keeps_to_the_rules_is_believed(ask: Ask, gateway: Any, answer: Any) -> None:
    stub = gateway(answer)
    assert ask(stub.url()) == REPLY
    head, body = stub.requests[0]
    assert head.startswith("POST /KdcProxy HTTP/1.1\r\n")
    assert f"\r\nHost: localhost:{stub.port}\r\n" in f"{head}\r\n"
    assert "\r\nContent-Type: application/kerberos\r\n" in f"{head}\r\n"
    assert unwrap(body) == REQUEST
    assert KdcProxyMessage.decode(body).target_domain == REALM


# -- what is not -----------------------------------------------------------------------------------


def chunks_without_end(size: int) -> Iterable[bytes]:
    yield response(b"", "Transfer-Encoding: chunked", length=False)
    while True:
        yield b"%x\r\n%s\r\n" % (size, bytes(size)) * (65536 // size)


def endless(piece: bytes) -> Iterable[bytes]:
    while True:
        yield piece


BAD = {
    "K590-redirect": (
        response(b"", "Location: /KdcProxy", status="302 Found"),
        r"redirects \(HTTP 302\), which is not followed",
    ),
    "K590-permanent": (
        response(b"", "Location: https://localhost/", status="308 Permanent Redirect"),
        "HTTP 308",
    ),
    "K591-chunks-without-end": (lambda _: chunks_without_end(65536), "has more than 1048576 bytes"),
    "K591-small-chunks-without-end": (lambda _: chunks_without_end(1), "in more than 16384 pieces"),
    "K592-status-403": (response(b"", status="403 Forbidden"), "the gateway forbids this"),
    "K592-status-404": (response(b"", status="404 Not Found"), "correct the URL"),
    "K592-status-500": (response(b"", status="500 Oops"), "refuses .HTTP 500"),
    "K592-status-503": (response(b"", status="503 No KDC"), "no answer from a KDC"),
    "K592-status-204": (response(b"", status="204 No Content"), "HTTP 204"),
    "K593-http-1.0-cut-off": (
        response(proxied(REPLY), version="1.0", length=False)[:-1],
        "DER",
    ),
    "K593-http-1.1-cut-off": (GOOD[:-1], "not HTTP"),
    "K593-nothing": (b"", "not HTTP"),
    "K593-no-http": (b"SSH-2.0-OpenSSH_9.2\r\n" * 2, "not HTTP"),
    "K594-gzip": (response(proxied(REPLY), "Content-Encoding: gzip"), "encoded by gzip"),
    "K595-html": (response(b"<html>log in", kind="text/html"), "text/html in place of"),
    "K595-no-type": (response(proxied(REPLY), kind=""), "of no type in place of"),
    "K596-a-long-announcement": (
        response(b"x" * 100, "Content-Length: 99999999999", length=False),
        "not HTTP",
    ),
    "K596-a-long-body": (response(bytes((1 << 20) + 1)), "has more than 1048576 bytes"),
    "K596-a-head-without-end": (
        lambda _: [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 100_000],
        "not HTTP",
    ),
    "K596-100-without-end": (
        lambda _: endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        "100 Continue",
    ),
    "K597-no-message": (response(b""), "DER"),
    "K597-no-der": (response(b"\xff" * 40), "multi-byte tag"),
    "K597-length-too-large": (
        response(KdcProxyMessage(b"\0\0\1\0" + REPLY).encode()),
        "announces 0x00000100 bytes",
    ),
    "K597-length-cut-off": (response(KdcProxyMessage(b"\0\0\0").encode()), "announces 0x000000"),
    "K597-bytes-behind": (response(proxied(REPLY) + b"\0"), "1 bytes follow"),
    "K597-no-kerberos": (response(proxied(b"hello")), "not Kerberos"),
    "K597-two-replies": (response(proxied(REPLY + REPLY)), "not Kerberos"),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=case) for case in BAD])
def test_an_answer_that_is_none_ends_the_attempt_and_the_next_kdc_is_asked(
    ask: Ask, gateway: Any, case: str
) -> None:
    answer, why = BAD[case]
    bad, good = gateway(answer), gateway(GOOD)
    with pytest.raises(TransportError, match=why) as caught:
        ask(bad.url())
    assert not isinstance(caught.value, TransportTimeoutError)
    assert len(bad.requests) == 1
    assert ask(bad.url(), good.url()) == REPLY
    assert len(good.requests) == 1


def test_k596_a_gateway_that_never_ends_its_answer_is_left_at_the_deadline(
    ask: Ask, gateway: Any
) -> None:
    def slow(_: bytes) -> Iterable[bytes]:
        yield GOOD[:-1]
        while True:
            time.sleep(0.1)
            yield b""
            if stub.stopping.is_set():
                return

    stub = gateway(slow)
    with pytest.raises(TransportTimeoutError, match="no answer"):
        ask(stub.url(), timeout=0.5)
    assert ask(stub.url(), gateway(GOOD).url()) == REPLY


CERTIFICATES: dict[str, tuple[dict[str, Any], str, str]] = {
    "another-host": ({"name": "gateway.elsewhere.test"}, "localhost", "write the URL with a name"),
    "an-address": ({}, "127.0.0.1", "write the URL with a name"),
    "expired": ({"expired": True}, "localhost", "renew or correct"),
    # 1.3.6.1.5.2.3.5: a KDC's certificate for PKINIT; it is none of a TLS server.
    "of-a-kdc": ({"usage": "1.3.6.1.5.2.3.5"}, "localhost", "unsuitable certificate purpose"),
    "of-a-client": ({"usage": "1.3.6.1.5.5.7.3.2"}, "localhost", "unsuitable certificate purpose"),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=f"K260-{case}") for case in CERTIFICATES])
def test_a_certificate_that_is_not_the_gateways_gets_no_request(
    ask: Ask, gateway: Any, case: str
) -> None:
    options, host, why = CERTIFICATES[case]
    bad, good = gateway(GOOD, **options), gateway(GOOD, usage="1.3.6.1.5.5.7.3.1")
    with pytest.raises(TransportError, match=f"certificate is not accepted.*{why}"):
        ask(bad.url(host))
    assert bad.requests == []
    assert ask(bad.url(host), good.url()) == REPLY


def test_k260_a_certificate_of_another_ca_gets_no_request(
    ask: Ask, gateway: Any, tmp_path: Path
) -> None:
    other = Authority(tmp_path)
    with HttpsStub(other.server("localhost"), lambda _: GOOD) as bad:
        with pytest.raises(TransportError, match="name its CA by http_anchors"):
            ask(bad.url())
        assert bad.requests == []
    assert ask(gateway(GOOD).url()) == REPLY


def test_k260_an_anchor_that_cannot_be_read_is_not_replaced_by_those_of_the_system(
    gateway: Any, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = gateway(GOOD)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".ca.pem").write_bytes(authority.ca.read_bytes())
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("LOOP", "ENV:LOOP")
    monkeypatch.setenv("ANCHOR", f"FILE:{authority.ca}")

    def send(*anchors: str) -> bytes:
        servers = RealmConfig(
            kdc=(KdcAddress.parse(stub.url()),), options={"http_anchors": anchors}
        )
        locator = asking.Locator(Config(realms={REALM: servers}))
        return asking.send(locator, REALM, REQUEST, time.monotonic() + 10)

    for anchor, why in {
        f"FILE:{tmp_path}/none.pem": "No such file",
        f"FILE:{tmp_path}/empty.pem": "there is no certificate",
        f"DIR:{tmp_path}/hidden": "there is no certificate",
        f"DIR:{tmp_path}/none": "No such file",
        "ENV:NOT_SET": "names no anchor",
        "ENV:LOOP": "names no anchor",
        str(authority.ca): "names no anchor",
        f"PKCS12:{authority.ca}": "names no anchor",
    }.items():
        with pytest.raises(TransportError, match=f"http_anchors.*{why}"):
            send(anchor)
        with pytest.raises(TransportError, match=why):
            send(f"FILE:{authority.ca}", anchor)
    assert stub.requests == []
    for anchor in (f"FILE:{authority.ca}", f"DIR:{authority.ca.parent}", "ENV:ANCHOR"):
        assert send(anchor) == REPLY


# -- whole exchanges -------------------------------------------------------------------------------


class AsyncFace:
    """The asyncio client, called like the blocking one."""

    def __init__(self, config: Config) -> None:
        self._client = AsyncKdcClient(config)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args: asyncio.run(getattr(self._client, name)(*args))


@pytest.mark.parametrize("client_class", [KdcClient, AsyncFace])
def test_k598_the_reply_of_another_realm_is_refused(
    client_class: Any, gateway: Any, authority: Authority
) -> None:
    ours, other = Realm(REALM), Realm("OTHER.TEST")
    for realm in (ours, other):
        realm.add_user("alice", "pw", preauth=False)
    alice = ours.add_user("alice", "pw", preauth=False)

    def by(realm: Realm) -> HttpsStub:
        return gateway(lambda body: response(proxied(realm.handle(unwrap(body)))))

    config = settings(authority, by(ours).url())
    assert str(client_class(config).get_tgt(alice).client) == f"alice@{REALM}"

    request = question(Principal(("alice",), other.name), (18,), datetime.now(timezone.utc))
    stub = gateway(response(proxied(other.handle(request))))
    with pytest.raises(ProtocolError):
        client_class(settings(authority, stub.url())).get_tgt(alice)


@pytest.mark.parametrize("client_class", [KdcClient, AsyncFace])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(
            response(b"", status="503 No KDC"), OutcomeUnknownError, id="K599-no-answer-of-a-kdc"
        ),
        pytest.param(GOOD[:40], OutcomeUnknownError, id="K599-cut-off"),
        pytest.param(
            response(b"", status="302 Found"), TransportError, id="K599-a-redirect-changes-nothing"
        ),
        pytest.param(response(b"", status="403 Forbidden"), TransportError, id="K599-forbidden"),
    ],
)
def test_a_password_is_sent_once_and_a_lost_answer_is_unknown(
    client_class: Any, gateway: Any, authority: Authority, answer: bytes, error: Any
) -> None:
    realm = Realm(REALM)
    alice = realm.add_user("alice", "old password")
    kdc = gateway(lambda body: response(proxied(realm.handle(unwrap(body)))))
    bad = gateway(answer)

    def config(*servers: HttpsStub) -> Config:
        base = settings(authority, kdc.url())
        addresses = tuple(KdcAddress.parse(server.url()) for server in servers)
        changed = replace(base.realm(REALM), kpasswd_server=addresses)
        return replace(base, realms={REALM: changed})

    with pytest.raises(error) as caught:
        client_class(config(bad)).change_password(alice, "new password")
    assert type(caught.value) is error
    assert len(bad.requests) == 1
    if error is OutcomeUnknownError:
        spare = gateway(lambda body: response(proxied(realm.handle(unwrap(body)))))
        with pytest.raises(OutcomeUnknownError):
            client_class(config(bad, spare)).change_password(alice, "new password")
        assert spare.requests == []
    else:
        client_class(config(bad, kdc)).change_password(alice, "new password")
        alice = realm.add_user("alice", "old password")
    client_class(config(kdc)).change_password(alice, "new password")
