"""HTTP Negotiate with other services, behind nginx, over HTTP/2, through proxies; and whose identity a request has."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from purekrb import Credential, Keytab, MutualAuthenticationError, initiate
from purekrb.integrations import httpx as purekrb_httpx
from purekrb.integrations.aiohttp import negotiate
from purekrb.integrations.http.headers import write_field
from purekrb.integrations.requests import Negotiate, ProxyAdapter
from support.apache import Apache
from support.forward_proxy import ForwardProxy, forward_proxy
from support.http_servers import (
    HttpServer,
    Tls,
    auth_request,
    gokrb5,
    gunicorn,
    hypercorn,
    nginx,
    uvicorn,
)
from support.mit import MitRealm
from support.web import curl

USER, PRE = "user@MIT.TEST", "pre@MIT.TEST"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.for_localhost(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def users(mit_realm: MitRealm) -> dict[str, dict[str, Any]]:
    """What our clients need to be one user or the other."""
    return {
        name: {
            "credential": Credential.from_password(name, mit_realm.passwords[name.split("@")[0]]),
            "config": mit_realm.config,
        }
        for name in (USER, PRE)
    }


def session_of(tls: Tls, **user: Any) -> requests.Session:
    session = requests.Session()
    session.trust_env, session.verify = False, str(tls.ca)
    session.auth = Negotiate(**user)
    return session


def trusting(tls: Tls) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(tls.ca))


# -- other services --------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_clients_authenticate_to_apache(
    mit_realm: MitRealm, tls: Tls, users: dict[str, dict[str, Any]], secure: bool
) -> None:
    lines = [
        "LoadModule headers_module {modules}/mod_headers.so",
        'Header always set X-Who "expr=%{{REMOTE_USER}}"',
    ]
    if secure:
        lines += [
            "LoadModule ssl_module {modules}/mod_ssl.so",
            "SSLEngine on",
            f"SSLCertificateFile {tls.certificate}",
            f"SSLCertificateKeyFile {tls.key}",
        ]
    server = Apache(mit_realm, "\n".join(lines))
    url = f"http{'s' if secure else ''}://localhost:{server.port}/index.html"
    try:
        with session_of(tls, **users[USER]) as session:
            for _ in range(2):
                response = session.get(url, timeout=10)
                assert (response.text, response.headers["X-Who"]) == ("hello", USER)
        with httpx.Client(
            auth=purekrb_httpx.Negotiate(**users[USER]), verify=trusting(tls), trust_env=False
        ) as client:
            answer = client.get(url)
            assert (answer.text, answer.headers["X-Who"]) == ("hello", USER)

        async def ask() -> str:
            connector = aiohttp.TCPConnector(ssl=trusting(tls))
            middlewares = (negotiate(**users[USER]),)
            async with (
                aiohttp.ClientSession(connector=connector, middlewares=middlewares) as asking,
                asking.get(url) as found,
            ):
                return found.headers["X-Who"]

        assert asyncio.run(ask()) == USER
    finally:
        server.stop()


def test_a_client_of_gokrb5s_service_learns_that_it_proves_nothing(
    mit_realm: MitRealm, tls: Tls, users: dict[str, dict[str, Any]]
) -> None:
    server = gokrb5(mit_realm)
    try:
        with session_of(tls, **users[USER], mutual="optional") as session:
            assert session.get(server.url, timeout=10).text == USER
        with session_of(tls, **users[USER], mutual="disabled") as session:
            assert session.get(server.url, timeout=10).text == USER
        with session_of(tls, **users[USER]) as session, pytest.raises(MutualAuthenticationError):
            session.get(server.url, timeout=10)
    finally:
        server.daemon.stop()


# -- nginx in front --------------------------------------------------------------------------------

_AUTH_REQUEST = """\
  server {
    listen 127.0.0.1:@PORT@;
    location / {
      auth_request /kerberos;
      auth_request_set $kerberos_user $upstream_http_x_remote_user;
      auth_request_set $kerberos_answer $upstream_http_www_authenticate;
      add_header WWW-Authenticate $kerberos_answer;
      error_page 401 /kerberos-sign-in;
      proxy_set_header X-Remote-User $kerberos_user;
      proxy_set_header Authorization "";
      proxy_pass http://127.0.0.1:BEHIND;
    }
    location = /kerberos {
      internal;
      proxy_pass http://127.0.0.1:AUTH/;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header X-Connection $connection;
    }
    location = /kerberos-sign-in {
      internal;
      proxy_pass http://127.0.0.1:AUTH/sign-in;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
    }
  }
"""


@pytest.fixture
def behind() -> Iterator[int]:
    """A server that trusts nginx: it answers with the header fields that it gets."""
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_nginx_asks_purekrb_who_a_request_comes_from(
    mit_realm: MitRealm, tls: Tls, users: dict[str, dict[str, Any]], behind: int
) -> None:
    asked = auth_request(mit_realm, "--connection-header", "X-Connection")
    http = _AUTH_REQUEST.replace("BEHIND", str(behind)).replace("AUTH", str(asked.port))
    front = nginx(mit_realm, http)
    try:
        forged = {"X-Remote-User": "admin@MIT.TEST"}
        with session_of(tls, **users[USER]) as session:
            got = session.get(f"{front.url}/page", headers=forged, timeout=10).json()
            assert got["x-remote-user"] == USER
            assert "authorization" not in got
        with session_of(tls, **users[PRE], preemptive=True) as session:
            assert session.get(front.url, timeout=10).json()["x-remote-user"] == PRE
        assert (
            json.loads(
                curl(mit_realm, f"{front.url}/page", "--negotiate", "-u", ":").rpartition(" ")[0]
            )["x-remote-user"]
            == USER
        )
        for headers in ({}, {"Authorization": "Negotiate YWJj"}, forged):
            response = requests.get(front.url, headers=headers, timeout=10)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Negotiate"
            assert "<h1>Sign-in required</h1>" in response.text
    finally:
        front.daemon.stop()
        asked.daemon.stop()


_SHARED = """\
  upstream app {
    server 127.0.0.1:BEHIND;
    keepalive 1;
  }
  server {
    listen 127.0.0.1:@PORT@ ssl http2;
    ssl_certificate CERTIFICATE;
    ssl_certificate_key KEY;
    location / {
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Connection $connection;
      proxy_pass http://app;
    }
  }
"""


@pytest.fixture(scope="module")
def shared(mit_realm: MitRealm, tls: Tls) -> Iterator[HttpServer]:
    """nginx, which ends TLS and HTTP/2, and shares one connection to the application among all of its clients."""
    app = gunicorn(
        mit_realm,
        "wsgi",
        workers=1,
        certificate=str(tls.certificate),
        require_channel_bindings=True,
        connection_header="X-Connection",
    )
    http = _SHARED.replace("BEHIND", str(app.port)).replace("CERTIFICATE", str(tls.certificate))
    front = nginx(mit_realm, http.replace("KEY", str(tls.key)), tls=tls)
    yield front
    front.daemon.stop()
    app.daemon.stop()


@pytest.fixture(scope="module")
def over_http2(mit_realm: MitRealm, tls: Tls) -> Iterator[HttpServer]:
    server = hypercorn(
        mit_realm,
        "asgi",
        tls=tls,
        certificate=str(tls.certificate),
        require_channel_bindings=True,
    )
    yield server
    server.daemon.stop()


def test_clients_authenticate_over_http2(
    shared: HttpServer, over_http2: HttpServer, tls: Tls, users: dict[str, dict[str, Any]]
) -> None:
    for server in (shared, over_http2):
        with httpx.Client(
            auth=purekrb_httpx.Negotiate(**users[USER]),
            http2=True,
            verify=trusting(tls),
            trust_env=False,
        ) as client:
            for _ in range(2):
                response = client.post(f"{server.url}/page", content=b"abc")
                assert (response.status_code, response.http_version) == (200, "HTTP/2")
                told = response.json()
                assert (told["user"], told["size"], told["bound"]) == (USER, 3, True)


# -- whose identity a request has ------------------------------------------------------------------


def test_a_connection_that_a_proxy_shares_makes_nobody_another(
    shared: HttpServer, tls: Tls, users: dict[str, dict[str, Any]]
) -> None:
    sessions = {name: session_of(tls, **users[name]) for name in users}

    def ask(number: int) -> None:
        name = (USER, PRE)[number % 2]
        # A requests.Session is not for several threads at a time: its own connection for each.
        with session_of(tls, **users[name]) as session:
            assert session.get(f"{shared.url}/{number}", timeout=20).json()["user"] == name

    for number in range(6):
        name = (USER, PRE)[number % 2]
        assert sessions[name].get(f"{shared.url}/{number}", timeout=10).json()["user"] == name
        stranger = requests.get(f"{shared.url}/{number}", verify=str(tls.ca), timeout=10)
        assert stranger.status_code == 401
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(24)))
    for session in sessions.values():
        session.close()


def token_of(user: dict[str, Any]) -> str:
    context = initiate("HTTP/localhost", user["credential"], user["config"], mechanism="negotiate")
    return write_field(context.step())


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def plain(request: pytest.FixtureRequest, mit_realm: MitRealm) -> Iterator[HttpServer]:
    start: Any = {
        "gunicorn": lambda: gunicorn(mit_realm, "wsgi", workers=1),
        "uvicorn": lambda: uvicorn(mit_realm, "asgi", workers=1),
    }[request.param]
    server = start()
    yield server
    server.daemon.stop()


def test_pipelined_requests_keep_their_identities(
    plain: HttpServer, users: dict[str, dict[str, Any]]
) -> None:
    who = [USER, None, PRE, None, USER]
    lines = []
    for number, name in enumerate(who):
        field = "" if name is None else f"Authorization: {token_of(users[name])}\r\n"
        close = "Connection: close\r\n" if number == len(who) - 1 else ""
        lines.append(f"GET /{number} HTTP/1.1\r\nHost: localhost\r\n{field}{close}\r\n")
    with socket.create_connection(("127.0.0.1", plain.port)) as connection:
        connection.settimeout(20)
        connection.sendall("".join(lines).encode())
        stream = b""
        while piece := connection.recv(65536):
            stream += piece
    answers = [part for part in stream.decode().split("HTTP/1.1 ") if part]
    assert [part[:3] for part in answers] == ["200", "401", "200", "401", "200"]
    for number, (name, part) in enumerate(zip(who, answers, strict=True)):
        if name is not None:
            assert f'"user": "{name}"' in part
            assert f'"path": "/{number}"' in part


def test_requests_at_once_over_one_http2_connection_keep_their_identities(
    over_http2: HttpServer, tls: Tls, users: dict[str, dict[str, Any]]
) -> None:
    async def ask() -> None:
        auths: dict[str | None, Any] = {
            name: purekrb_httpx.Negotiate(**users[name]) for name in users
        }
        async with httpx.AsyncClient(
            http2=True, verify=trusting(tls), trust_env=False, timeout=30
        ) as client:

            async def one(number: int) -> None:
                name = (USER, PRE, None)[number % 3]
                response = await client.get(f"{over_http2.url}/{number}", auth=auths.get(name))
                if name is None:
                    assert response.status_code == 401
                else:
                    assert response.json()["user"] == name

            await asyncio.gather(*map(one, range(30)))

    asyncio.run(ask())


def test_a_cancelled_request_leaves_nobodys_identity_behind(
    shared: HttpServer, plain: HttpServer, tls: Tls, users: dict[str, dict[str, Any]]
) -> None:
    async def ask(server: HttpServer) -> None:
        async with httpx.AsyncClient(verify=trusting(tls), trust_env=False) as client:
            auths = {name: purekrb_httpx.Negotiate(**users[name]) for name in users}
            for number in range(8):
                url = f"{server.url}/{number}"
                task = asyncio.create_task(client.get(url, auth=auths[USER]))
                await asyncio.sleep(0.002 * number)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert (await client.get(url)).status_code == 401
                assert (await client.get(url, auth=auths[PRE])).json()["user"] == PRE

    asyncio.run(ask(shared))
    asyncio.run(ask(plain))


# -- proxies ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxy(mit_realm: MitRealm) -> Iterator[ForwardProxy]:
    with forward_proxy(Keytab.load(mit_realm.keytab("HTTP/localhost"))) as running:
        yield running


def test_requests_authenticates_to_a_proxy_and_to_the_service(
    plain: HttpServer,
    over_http2: HttpServer,
    proxy: ForwardProxy,
    tls: Tls,
    users: dict[str, dict[str, Any]],
) -> None:
    with session_of(tls, **users[USER]) as session:
        session.proxies = {"http": proxy.url, "https": proxy.url}
        proxy.seen.clear()
        assert session.post(f"{plain.url}/a", data=b"abc", timeout=10).json()["size"] == 3
        assert proxy.seen == [(USER, f"POST {plain.url}/a HTTP/1.1")] * len(proxy.seen)
        assert proxy.seen
        assert isinstance(session.auth, Negotiate)
        session.mount("https://", ProxyAdapter(session.auth))
        proxy.seen.clear()
        for _ in range(2):
            told = session.get(f"{over_http2.url}/b", timeout=10).json()
            assert (told["user"], told["bound"]) == (USER, True)
        assert proxy.seen
        for name, line in proxy.seen:
            assert name == USER
            assert line.startswith(f"CONNECT localhost:{over_http2.port} ")


def test_httpx_authenticates_to_a_proxy_and_to_the_service(
    plain: HttpServer, proxy: ForwardProxy, users: dict[str, dict[str, Any]]
) -> None:
    auth = purekrb_httpx.Negotiate(**users[USER], proxy=proxy.url)
    with httpx.Client(auth=auth, proxy=proxy.url, trust_env=False) as client:
        proxy.seen.clear()
        assert client.get(f"{plain.url}/a").json()["user"] == USER
        assert proxy.seen


def test_aiohttp_authenticates_to_a_proxy_and_to_the_service(
    plain: HttpServer,
    over_http2: HttpServer,
    proxy: ForwardProxy,
    tls: Tls,
    users: dict[str, dict[str, Any]],
) -> None:
    async def ask() -> None:
        connector = aiohttp.TCPConnector(ssl=trusting(tls))
        middlewares = (negotiate(**users[USER]),)
        async with aiohttp.ClientSession(connector=connector, middlewares=middlewares) as session:
            for server in (plain, over_http2):
                async with session.get(f"{server.url}/a", proxy=proxy.url) as response:
                    told = await response.json()
                    assert (told["user"], told["bound"]) == (USER, server is over_http2)

    proxy.seen.clear()
    asyncio.run(ask())
    assert [line for _, line in proxy.seen if line.startswith("CONNECT")]
