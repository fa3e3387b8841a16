"""Flask, Django, Starlette and FastAPI with Kerberos, and aiohttp as the client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from purekrb import Credential, CredentialError, MutualAuthenticationError
from purekrb.integrations.aiohttp import negotiate
from purekrb.integrations.requests import Negotiate
from support.http_servers import HttpServer, Tls, gunicorn, uvicorn
from support.mit import MitRealm

USER = "user@MIT.TEST"


@pytest.fixture(scope="module")
def user(mit_realm: MitRealm) -> dict[str, Any]:
    return {"credential": Credential.from_password(USER, "userpw"), "config": mit_realm.config}


# -- frameworks ------------------------------------------------------------------------------------

FRAMEWORKS: dict[str, Any] = {
    "flask": lambda realm: gunicorn(realm, "flask", workers=1, public=["/public"]),
    "django by WSGI": lambda realm: gunicorn(realm, "django_wsgi", workers=1, public=["/public"]),
    "django by ASGI": lambda realm: uvicorn(realm, "django_asgi", workers=1, public=["/public"]),
    "starlette": lambda realm: uvicorn(realm, "starlette", workers=1),
    "fastapi": lambda realm: uvicorn(realm, "fastapi", workers=1),
}


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest, mit_realm: MitRealm) -> Iterator[HttpServer]:
    server = FRAMEWORKS[request.param](mit_realm)
    yield server
    server.daemon.stop()


def test_a_framework_tells_its_views_who_asks(framework: HttpServer, user: dict[str, Any]) -> None:
    auth = Negotiate(**user)
    for path in ("/page", "/async"):
        response = requests.get(f"{framework.url}{path}", auth=auth, timeout=10)
        assert response.status_code == 200, response.text
        told = response.json()
        assert (told["user"], told["path"], told["pac"]) == (USER, path, True)
        assert told.get("remote", USER) == USER


def test_a_framework_lets_nobody_else_in(framework: HttpServer) -> None:
    for headers in ({}, {"Authorization": "Negotiate YWJj"}, {"Remote-User": USER}):
        response = requests.get(f"{framework.url}/page", headers=headers, timeout=10)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Negotiate")
    page = requests.get(
        f"{framework.url}/page",
        headers={"Accept": "text/html", "Authorization": "Negotiate YWJj"},
        timeout=10,
    )
    assert "<h1>Sign-in refused</h1>" in page.text


def test_a_framework_has_public_pages(framework: HttpServer, user: dict[str, Any]) -> None:
    for headers in ({}, {"Remote-User": USER}):
        response = requests.get(f"{framework.url}/public", headers=headers, timeout=10)
        assert (response.status_code, response.json()["user"]) == (200, None)
        assert response.json().get("remote") is None
        assert "WWW-Authenticate" not in response.headers


# -- aiohttp ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.for_localhost(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def plain(mit_realm: MitRealm) -> Iterator[HttpServer]:
    server = uvicorn(mit_realm, "asgi", workers=1, public=["/public"])
    yield server
    server.daemon.stop()


@pytest.fixture(scope="module")
def secure(mit_realm: MitRealm, tls: Tls) -> Iterator[HttpServer]:
    options: dict[str, Any] = {
        "certificate": str(tls.certificate),
        "require_channel_bindings": True,
    }
    server = gunicorn(mit_realm, "wsgi", tls=tls, workers=1, **options)
    yield server
    server.daemon.stop()


Job = Callable[[aiohttp.ClientSession], Awaitable[Any]]


def with_session(tls: Tls, job: Job, **options: Any) -> Any:
    async def run() -> Any:
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(tls.ca)))
        async with aiohttp.ClientSession(
            connector=connector, middlewares=(negotiate(**options),)
        ) as session:
            return await job(session)

    return asyncio.run(run())


@pytest.mark.parametrize("preemptive", [False, True])
def test_aiohttp_authenticates(
    plain: HttpServer, secure: HttpServer, tls: Tls, user: dict[str, Any], preemptive: bool
) -> None:
    async def job(session: aiohttp.ClientSession) -> list[Any]:
        told = []
        for server in (plain, secure):
            for number in range(2):
                async with session.post(f"{server.url}/{number}", data=b"abc") as response:
                    told.append(await response.json())
        return told

    told = with_session(tls, job, **user, preemptive=preemptive)
    assert [(t["user"], t["path"], t["size"], t["bound"]) for t in told] == [
        (USER, path, 3, bound) for bound in (False, True) for path in ("/0", "/1")
    ]


def test_aiohttp_authenticates_many_requests_at_once(
    plain: HttpServer, tls: Tls, user: dict[str, Any]
) -> None:
    async def job(session: aiohttp.ClientSession) -> list[Any]:
        async def one(number: int) -> Any:
            async with session.get(f"{plain.url}/{number}") as response:
                return await response.json()

        return await asyncio.gather(*map(one, range(20)))

    assert [t["path"] for t in with_session(tls, job, **user)] == [f"/{n}" for n in range(20)]


def test_aiohttp_sends_files_again(
    secure: HttpServer, tls: Tls, user: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"x" * 100_000)

    async def job(session: aiohttp.ClientSession) -> Any:
        with path.open("rb") as file:
            async with session.post(secure.url, data=file) as response:
                return await response.json()

    assert with_session(tls, job, **user)["size"] == 100_000


def test_aiohttp_tells_of_a_body_that_cannot_be_sent_again(
    plain: HttpServer, tls: Tls, user: dict[str, Any]
) -> None:
    async def body() -> Any:
        yield b"abc"

    async def job(session: aiohttp.ClientSession) -> Any:
        async with session.post(plain.url, data=body()) as response:
            return await response.json()

    assert with_session(tls, job, **user, preemptive=True)["size"] == 3
    with pytest.raises(CredentialError, match="preemptive=True"):
        with_session(tls, job, **user)


def test_aiohttp_sends_no_token_to_another_origin(
    plain: HttpServer, secure: HttpServer, tls: Tls, user: dict[str, Any]
) -> None:
    async def job(session: aiohttp.ClientSession) -> Any:
        async with session.get(f"{plain.url}/?to=/next") as response:
            told = await response.json()
            assert (told["user"], told["path"]) == (USER, "/next")
        async with session.get(f"{plain.url}/?to={secure.url}/page") as response:
            assert (response.status, str(response.url)) == (401, f"{secure.url}/page")
            assert "Authorization" not in response.request_info.headers
        async with session.get(f"{secure.url}/page") as response:
            return response.status

    for preemptive in (False, True):
        assert with_session(tls, job, **user, preemptive=preemptive) == 200


def test_aiohttp_refuses_what_proves_nothing(
    plain: HttpServer, tls: Tls, user: dict[str, Any]
) -> None:
    async def job(session: aiohttp.ClientSession) -> Any:
        async with session.get(f"{plain.url}/public") as response:
            return response.status

    assert with_session(tls, job, **user, mutual="optional") == 200
    with pytest.raises(MutualAuthenticationError):
        with_session(tls, job, **user)


# -- a certificate that is hard to see -------------------------------------------------------------


@pytest.fixture
def curt(tls: Tls) -> Iterator[str]:
    """A TLS server that answers each connection with an empty 401, and closes it."""
    import socket
    import threading

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            with context.wrap_socket(raw, server_side=True) as connection:
                asked.append(connection.recv(65536))
                connection.sendall(
                    b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\n"
                    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
                )

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"https://localhost:{listener.getsockname()[1]}/"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_tokens_are_bound_even_if_the_server_closes_each_connection(
    curt: str, tls: Tls, user: dict[str, Any]
) -> None:
    import httpx

    from purekrb.integrations.httpx import Negotiate as HttpxNegotiate

    response = requests.get(curt, auth=Negotiate(**user), verify=str(tls.ca), timeout=10)
    assert response.request.headers["Authorization"].startswith("Negotiate YI")
    with httpx.Client(
        auth=HttpxNegotiate(**user), verify=ssl.create_default_context(cafile=str(tls.ca))
    ) as client:
        assert client.get(curt).request.headers["Authorization"].startswith("Negotiate YI")

    async def job(session: aiohttp.ClientSession) -> Any:
        async with session.get(curt) as answer:
            return answer.request_info.headers["Authorization"]

    assert with_session(tls, job, **user).startswith("Negotiate YI")
