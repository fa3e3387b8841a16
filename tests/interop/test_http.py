"""Real HTTP clients and servers: our clients and curl, requests-gssapi, requests-kerberos and httpx-gssapi, against our
middleware under gunicorn (4 workers) and uvicorn (2 workers), over http and https.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from purekrb import Credential, KerberosError
from purekrb.integrations import httpx as purekrb_httpx
from purekrb.integrations import requests as purekrb_requests
from support import http_clients
from support.http_servers import HttpServer, Tls, gunicorn, uvicorn
from support.mit import MitRealm
from support.peers import run
from support.web import curl

USER = "user@MIT.TEST"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.for_localhost(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def servers(mit_realm: MitRealm, tls: Tls) -> Iterator[dict[str, HttpServer]]:
    """The servers by name. Those with TLS require channel bindings."""
    bound = {"certificate": str(tls.certificate), "require_channel_bindings": True}
    public = {"public": ["/public"]}
    started = {
        "gunicorn": gunicorn(mit_realm, "wsgi", **public),
        "uvicorn": uvicorn(mit_realm, "asgi", **public),
        "gunicorn with TLS": gunicorn(mit_realm, "wsgi", tls=tls, **bound),
        "uvicorn with TLS": uvicorn(mit_realm, "asgi", tls=tls, **bound),
    }
    yield started
    for server in started.values():
        server.daemon.stop()


NAMES = ["gunicorn", "uvicorn", "gunicorn with TLS", "uvicorn with TLS"]
PLAIN = NAMES[:2]


@pytest.fixture(params=NAMES)
def server(request: pytest.FixtureRequest, servers: dict[str, HttpServer]) -> HttpServer:
    found: HttpServer = servers[request.param]
    return found


@pytest.fixture
def user(mit_realm: MitRealm) -> dict[str, Any]:
    """What our clients need to be the user."""
    return {
        "credential": Credential.from_password(USER, "userpw"),
        "config": mit_realm.config,
    }


def session_of(tls: Tls, **user: Any) -> requests.Session:
    session = requests.Session()
    session.trust_env, session.verify = False, str(tls.ca)
    session.auth = purekrb_requests.Negotiate(**user)
    return session


def client_of(tls: Tls, **user: Any) -> httpx.Client:
    return httpx.Client(
        auth=purekrb_httpx.Negotiate(**user),
        verify=ssl.create_default_context(cafile=str(tls.ca)),
        trust_env=False,
    )


def async_client_of(tls: Tls, **user: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        auth=purekrb_httpx.Negotiate(**user),
        verify=ssl.create_default_context(cafile=str(tls.ca)),
        trust_env=False,
    )


# -- our clients -----------------------------------------------------------------------------------


def test_requests_authenticates_and_uses_its_connection_again(
    server: HttpServer, tls: Tls, user: dict[str, Any]
) -> None:
    with session_of(tls, **user) as session:
        for _ in range(3):
            response = session.get(f"{server.url}/page", timeout=10)
            assert response.status_code == 200
            assert response.json()["user"] == USER
            assert response.json()["bound"] is server.url.startswith("https")
            assert [each.status_code for each in response.history] == [401]
        pools: Any = session.get_adapter(server.url).poolmanager.pools  # type: ignore[attr-defined]
        keys = pools.keys()
        assert [pools[key].num_connections for key in keys] == [1]


def test_httpx_authenticates(server: HttpServer, tls: Tls, user: dict[str, Any]) -> None:
    with client_of(tls, **user) as client:
        response = client.get(f"{server.url}/page")
    assert response.status_code == 200
    assert response.json()["user"] == USER
    assert response.json()["bound"] is server.url.startswith("https")


def test_httpx_authenticates_many_requests_at_once(
    server: HttpServer, tls: Tls, user: dict[str, Any]
) -> None:
    async def many() -> list[httpx.Response]:
        async with async_client_of(tls, **user) as client:
            return await asyncio.gather(*(client.get(f"{server.url}/{n}") for n in range(20)))

    responses = asyncio.run(many())
    assert [response.json()["path"] for response in responses] == [f"/{n}" for n in range(20)]
    assert {response.json()["user"] for response in responses} == {USER}


def test_a_token_is_sent_unasked_where_the_server_is_known(
    server: HttpServer, tls: Tls, user: dict[str, Any]
) -> None:
    with session_of(tls, **user, preemptive=True) as session:
        first, second = (session.get(server.url, timeout=10) for _ in range(2))
    assert [len(first.history), len(second.history)] == [int(server.url.startswith("https")), 0]
    with client_of(tls, **user, preemptive=True) as client:
        one, two = (client.get(server.url) for _ in range(2))
    assert [len(one.history), len(two.history)] == [int(server.url.startswith("https")), 0]
    assert second.json()["user"] == two.json()["user"] == USER


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_a_body_is_sent_again_from_where_it_began(
    server: HttpServer, tls: Tls, user: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"x" * 100_000)
    with path.open("rb") as one, path.open("rb") as other, session_of(tls, **user) as session:
        one.seek(50_000)
        body: Any = path.read_bytes()[50_000:] if kind == "bytes" else one
        assert session.post(server.url, data=body, timeout=10).json()["size"] == 50_000
        body = path.read_bytes() if kind == "bytes" else other
        with client_of(tls, **user) as client:
            assert client.post(server.url, content=body).json()["size"] == 100_000


def test_a_body_that_cannot_be_read_twice_is_told_of(
    servers: dict[str, HttpServer], tls: Tls, user: dict[str, Any]
) -> None:
    url = servers["uvicorn"].url
    with session_of(tls, **user) as session, pytest.raises(KerberosError, match="preemptive=True"):
        session.post(url, data=iter([b"a", b"b"]), timeout=10)
    with session_of(tls, **user, preemptive=True) as session:
        assert session.post(url, data=iter([b"a", b"b"]), timeout=10).json()["size"] == 2
    with client_of(tls, **user) as client:  # httpx's bodies are read into memory
        assert client.post(url, content=iter([b"a", b"b"])).json()["size"] == 2


def test_a_redirect_within_the_origin_is_authenticated_anew(
    server: HttpServer, tls: Tls, user: dict[str, Any]
) -> None:
    for preemptive in (False, True):
        with session_of(tls, **user, preemptive=preemptive) as session:
            response = session.post(f"{server.url}/?to=/next", data=b"abc", timeout=10)
            assert (response.json()["path"], response.json()["size"]) == ("/next", 3)
            assert response.json()["user"] == USER
        with client_of(tls, **user, preemptive=preemptive) as client:
            answer = client.post(f"{server.url}/?to=/next", content=b"abc", follow_redirects=True)
            assert (answer.json()["path"], answer.json()["size"]) == ("/next", 3)
            assert answer.json()["user"] == USER


def test_a_redirect_to_another_origin_carries_no_token(
    servers: dict[str, HttpServer], tls: Tls, user: dict[str, Any]
) -> None:
    one, other = servers["uvicorn"].url, servers["gunicorn"].url
    for preemptive in (False, True):
        with session_of(tls, **user, preemptive=preemptive) as session:
            response = session.get(f"{one}/?to={other}/page", timeout=10)
            assert response.status_code == 401
            assert response.url == f"{other}/page"
            assert "Authorization" not in response.request.headers
            public = session.get(f"{one}/?to={other}/public", timeout=10)
            assert public.json()["user"] is None
        with client_of(tls, **user, preemptive=preemptive) as client:
            answer = client.get(f"{one}/?to={other}/page", follow_redirects=True)
            assert (answer.status_code, str(answer.url)) == (401, f"{other}/page")
            assert "Authorization" not in answer.request.headers


@pytest.mark.parametrize("name", PLAIN)
def test_what_needs_no_authentication_is_no_proof_of_the_service(
    servers: dict[str, HttpServer], tls: Tls, user: dict[str, Any], name: str
) -> None:
    url = f"{servers[name].url}/public"
    with session_of(tls, **user) as session, pytest.raises(KerberosError, match="not proved"):
        session.get(url, timeout=10)
    with client_of(tls, **user) as client, pytest.raises(KerberosError, match="not proved"):
        client.get(url)
    with session_of(tls, **user, mutual="optional") as session:
        assert session.get(url, timeout=10).json()["user"] is None


def test_the_credential_of_the_environment_is_the_default(
    servers: dict[str, HttpServer], mit_realm: MitRealm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRB5_CONFIG", str(mit_realm.krb5_conf))
    ccache = mit_realm.kinit("user")
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{ccache}")
    auth = purekrb_requests.Negotiate()
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(2):
            response = session.get(servers["uvicorn"].url, auth=auth, timeout=10)
            assert response.json()["user"] == USER


@pytest.mark.parametrize(
    ("delegate", "delegated"), [(False, False), (True, False), ("always", True)]
)
def test_a_tgt_is_handed_over_at_the_callers_word_alone(
    servers: dict[str, HttpServer], tls: Tls, user: dict[str, Any], delegate: Any, delegated: bool
) -> None:
    # The KDC does not mark the service OK-AS-DELEGATE.
    url = servers["uvicorn"].url
    with session_of(tls, **user, delegate=delegate) as session:
        assert session.get(url, timeout=10).json()["delegated"] is delegated


def test_a_client_keytab_in_the_environment_is_enough(
    servers: dict[str, HttpServer], mit_realm: MitRealm, monkeypatch: pytest.MonkeyPatch
) -> None:
    mit_realm.addprinc("robot")
    monkeypatch.setenv("KRB5_CONFIG", str(mit_realm.krb5_conf))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{mit_realm.path('no-ccache')}")
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(mit_realm.keytab("robot")))
    with requests.Session() as session:
        session.trust_env, session.auth = False, purekrb_requests.Negotiate()
        told = session.get(servers["uvicorn"].url, timeout=10).json()
    assert told["user"] == "robot@MIT.TEST"


# -- their clients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", http_clients.CLIENTS)
def test_clients_of_mits_library_are_served(
    servers: dict[str, HttpServer], mit_realm: MitRealm, tls: Tls, name: str
) -> None:
    sends_bindings = name in ("requests_gssapi", "requests_kerberos")
    reached = [s for n, s in servers.items() if sends_bindings or n in PLAIN]
    urls = [f"{server.url}/{number}" for server in reached for number in range(2)]
    program = Path(http_clients.__file__)
    env = {**mit_realm.env, "KRB5CCNAME": str(mit_realm.kinit("user"))}
    output = run([sys.executable, str(program), name, str(tls.ca), *urls], env=env)
    answers = [json.loads(line) for line in output.splitlines()]
    assert [status for status, _ in answers] == [200] * len(urls), answers
    assert {json.loads(body)["user"] for _, body in answers} == {USER}


def test_curl_is_served(server: HttpServer, mit_realm: MitRealm, tls: Tls) -> None:
    options = ["--negotiate", "-u", ":", "--cacert", str(tls.ca)]
    answer = curl(mit_realm, f"{server.url}/page", *options)
    if server.url.startswith("https"):
        assert answer.endswith(" 401"), "this curl is too old for channel bindings"
    else:
        body, _, status = answer.rpartition(" ")
        assert (status, json.loads(body)["user"]) == ("200", USER)


def test_nobody_is_let_in_without_a_ticket(server: HttpServer, tls: Tls) -> None:
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Remote-User": "admin@MIT.TEST"}):
        response = requests.get(server.url, headers=headers, verify=str(tls.ca), timeout=10)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Negotiate"
        assert "kinit" in response.text


@pytest.mark.parametrize("adapter", ["requests", "httpx", "aiohttp", "flask", "fastapi"])
def test_an_adapter_loads_what_it_adapts_and_nothing_of_the_other_side(adapter: str) -> None:
    code = (
        f"import sys, {adapter}; before = set(sys.modules); import purekrb.integrations.{adapter}\n"
        "print(*(set(sys.modules) - before))"
    )
    loaded = set(run([sys.executable, "-c", code], env={}).split())
    client, service = "purekrb.integrations.http.client", "purekrb.integrations.http.gate"
    is_client = adapter in ("requests", "httpx", "aiohttp")
    assert (client in loaded, service in loaded) == (is_client, not is_client)
    assert ("purekrb.kdc.client" in loaded, "purekrb.gss.acceptor" in loaded) == (
        is_client,
        not is_client,
    )
    assert not {name.split(".")[0] for name in loaded} & {"impacket", "pyasn1", "ldap3", "dns"}


@pytest.mark.parametrize("name", PLAIN)
def test_several_workers_accept_a_token_once(
    servers: dict[str, HttpServer], user: dict[str, Any], name: str
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from purekrb import initiate
    from purekrb.integrations.http.headers import write_field

    context = initiate("HTTP/localhost", *user.values(), mechanism="negotiate")
    headers = {"Authorization": write_field(context.step())}

    def ask(_: int) -> int:
        with requests.Session() as session:  # a connection of its own, to any worker
            session.trust_env = False
            return session.get(servers[name].url, headers=headers, timeout=20).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(40)))
    assert sorted(statuses) == [200] + [401] * 39
