"""HTTP with a new context for each request: requests per second of services, and what clients add.

python -m bench.http            # everything, two minutes
python -m bench.http clients    # the clients alone; or: services

It needs what the extra `interop` installs, and ASGI-GSSAPI and Flask-GSSAPI. MIT's KDC and, if it is installed, Apache
with mod_auth_gssapi run beside.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

#: Rounds, and the requests of each contender in one.
_ROUNDS, _REQUESTS, _CONNECTIONS = 40, 100, 4
_PAGES = 25


def main() -> None:
    """Measure, and print a table."""
    from support.mit import MitRealm

    wanted = sys.argv[1:] or ["services", "clients"]
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        realm = MitRealm(Path(directory))
        try:
            if "services" in wanted:
                services(realm)
            if "clients" in wanted:
                clients(realm)
        finally:
            realm.stop()


# -- services --------------------------------------------------------------------------------------

_UVICORN = ["-m", "uvicorn", "--log-level", "error", "--no-access-log", "--port", "{port}"]
_GUNICORN = ["-m", "gunicorn", "-w", "1", "--threads", "4", "--no-control-socket", "-b"]
_GUNICORN += ["127.0.0.1:{port}"]
SERVICES = {
    "ASGI, purekrb": [*_UVICORN, "--factory", "bench.http_apps:purekrb_asgi"],
    "ASGI-GSSAPI": [*_UVICORN, "--factory", "bench.http_apps:gssapi_asgi"],
    "ASGI, bare": [*_UVICORN, "--factory", "bench.http_apps:bare_asgi"],
    "WSGI, purekrb": [*_GUNICORN, "bench.http_apps:purekrb_wsgi()"],
    "Flask, purekrb": [*_GUNICORN, "bench.http_apps:purekrb_flask()"],
    "Flask-GSSAPI": [*_GUNICORN, "bench.http_apps:gssapi_flask()"],
    "Flask, bare": [*_GUNICORN, "bench.http_apps:bare_flask()"],
}


@contextmanager
def server(realm: Any, name: str) -> Iterator[int]:
    """Run a service; give its port. Each has a replay cache of its own, of the default kind."""
    from support.peers import Daemon, on_free_port

    env = {
        **realm.env,
        "KRB5_KTNAME": str(realm.service_keytab),
        "PYTHONPATH": str(ROOT),
        "KRB5RCACHENAME": f"file2:{realm.path('rcache')}",
    }

    def start(port: int) -> tuple[int, Daemon]:
        argv = [sys.executable, *(part.format(port=port) for part in SERVICES[name])]
        return port, Daemon(argv, env=env, log=realm.path("log"), port=port)

    port, daemon = on_free_port(start)
    try:
        yield port
    finally:
        daemon.stop()


def services(realm: Any) -> None:
    """Compare services: batches in turns, with tokens that were made before."""
    from purekrb import Credential, Initiator, KdcClient
    from purekrb.integrations.http.headers import write_field

    user = Credential.from_password("user@MIT.TEST", realm.passwords["user"])
    ticket = KdcClient(realm.config).get_ticket(user, "HTTP/localhost")

    def tokens() -> list[str]:
        return [
            write_field(Initiator(ticket, mechanism="negotiate").step()) for _ in range(_REQUESTS)
        ]

    with ExitStack() as stack:
        ports = {name: stack.enter_context(server(realm, name)) for name in SERVICES}
        paths = dict.fromkeys(ports, "/")
        try:
            from support.apache import Apache

            apache = Apache(realm)
        except BaseException as error:  # a missing peer ends a test
            print(f"without Apache: {error}")
        else:
            stack.callback(apache.stop)
            ports["Apache, mod_auth_gssapi"] = apache.port
            paths["Apache, mod_auth_gssapi"] = "/index.html"
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for number in range(_ROUNDS + 1):
            for name, port in ports.items():
                batch = tokens()
                start = time.perf_counter()
                asyncio.run(_load(port, paths[name], batch))
                if number:  # the first round warms up
                    rates[name].append(_REQUESTS / (time.perf_counter() - start))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in medians.items():
        print(f"{name:26} {rate:7.0f} requests/s")
    pairs = [("ASGI, purekrb", "ASGI-GSSAPI")]
    pairs += [(ours, "Flask-GSSAPI") for ours in ("WSGI, purekrb", "Flask, purekrb")]
    for ours, theirs in pairs:
        print(f"{ours} / {theirs}: {medians[ours] / medians[theirs]:.2f} (goal: 1.3 or more)")


async def _load(port: int, path: str, tokens: list[str]) -> None:
    """Make one request with each token, over a few connections that are kept."""

    async def worker(own: list[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for token in own:
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n"
            writer.write(head.encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b" 200 " not in answer[:16]:
                raise RuntimeError(answer.decode())
            size = int(answer.partition(b"content-length:")[2].split(b"\r", 1)[0])
            await reader.readexactly(size)
            if b"connection: close" in answer:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    await asyncio.gather(*(worker(tokens[n::_CONNECTIONS]) for n in range(_CONNECTIONS)))


# -- clients ---------------------------------------------------------------------------------------


def clients(realm: Any) -> None:
    """Compare what authentication adds to a request, in processor time of the client."""
    import os

    import httpx
    import httpx_gssapi
    import requests
    import requests_gssapi

    from purekrb.integrations import httpx as purekrb_httpx
    from purekrb.integrations import requests as purekrb_requests

    os.environ["KRB5_CONFIG"] = str(realm.krb5_conf)
    os.environ["KRB5CCNAME"] = f"FILE:{realm.kinit('user', services=['HTTP/localhost'])}"

    def session(auth: Any = None) -> Callable[[str], Any]:
        made = requests.Session()
        made.trust_env, made.auth = False, auth
        return made.get

    def client(auth: Any = None) -> Callable[[str], Any]:
        return httpx.Client(auth=auth, trust_env=False).get

    required, wanted = requests_gssapi.REQUIRED, httpx_gssapi.REQUIRED
    contenders: dict[str, Callable[[str], Any]] = {
        "requests": session(),
        "requests, purekrb": session(purekrb_requests.Negotiate(preemptive=True)),
        "requests-gssapi": session(
            requests_gssapi.HTTPSPNEGOAuth(mutual_authentication=required, opportunistic_auth=True)
        ),
        "httpx": client(),
        "httpx, purekrb": client(purekrb_httpx.Negotiate(preemptive=True)),
        "httpx-gssapi": client(
            httpx_gssapi.HTTPSPNEGOAuth(mutual_authentication=wanted, opportunistic_auth=True)
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with server(realm, "ASGI, purekrb") as port, server(realm, "ASGI, bare") as open_port:
        for number in range(_ROUNDS + 1):
            for name, get in contenders.items():
                url = f"http://localhost:{open_port if name in ('requests', 'httpx') else port}/"
                for _ in range(_PAGES):
                    start = time.process_time()
                    response = get(url)
                    taken = time.process_time() - start
                    if response.status_code != 200:
                        raise RuntimeError(f"{name}: {response.status_code}")
                    if number:
                        times[name].append(taken)
    medians = {name: statistics.median(found) * 1e6 for name, found in times.items()}
    added = {
        name: medians[name] - medians[name.partition("-")[0].partition(",")[0]] for name in medians
    }
    for name, more in added.items():
        print(f"{name:18} {medians[name]:5.0f} us, {more:4.0f} us more")
    for name in ("requests, purekrb", "httpx, purekrb"):
        ratio = added[name] / added["requests-gssapi"]
        print(f"{name} / requests-gssapi: {ratio:.2f} (goal: 0.8 or less)")
    print(f"httpx, purekrb / httpx-gssapi: {added['httpx, purekrb'] / added['httpx-gssapi']:.2f}")


if __name__ == "__main__":
    main()
