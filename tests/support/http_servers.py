"""Real HTTP servers around the applications of web_apps.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.mit import MitRealm
from support.peers import Daemon, on_free_port
from support.tls import Authority

__all__ = ["HttpServer", "Tls", "gunicorn", "uvicorn"]

_TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Tls:
    """An authority, and the files of a server's certificate."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def for_localhost(cls, directory: Path) -> Tls:
        """Return the TLS of a server called localhost."""
        authority = Authority(directory)
        authority.issue(["localhost"], ["127.0.0.1"], stem="localhost")
        return cls(authority.ca, directory / "localhost.pem", directory / "localhost.key")


@dataclass(frozen=True)
class HttpServer:
    """A server that runs; `url` has no path."""

    url: str
    daemon: Daemon
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def environment(realm: MitRealm, options: dict[str, Any]) -> dict[str, str]:
    """Return the environment of an application of web_apps.py with these options of its middleware."""
    return {
        **realm.env,
        "KRB5_KTNAME": str(realm.keytab("HTTP/localhost")),
        "PYTHONPATH": str(_TESTS),
        "APP_OPTIONS": json.dumps(options),
    }


def serve(
    realm: MitRealm, argv: Sequence[str], *, tls: Tls | None, options: dict[str, Any]
) -> HttpServer:
    """Start a server; "{port}" in `argv` is replaced by a free one."""
    log = realm.path("http-server.log")

    def start(port: int) -> HttpServer:
        daemon = Daemon(
            [part.format(port=port) for part in argv],
            env=environment(realm, options),
            log=log,
            port=port,
        )
        return HttpServer(f"http{'s' if tls else ''}://localhost:{port}", daemon, log)

    return on_free_port(start)


def gunicorn(
    realm: MitRealm,
    app: str,
    *arguments: str,
    tls: Tls | None = None,
    workers: int = 4,
    **options: Any,
) -> HttpServer:
    """Start gunicorn with an application of web_apps.py; `options` are those of the middleware."""
    argv = [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:{port}", "-w", str(workers)]
    argv += ["--threads", "4", "--no-control-socket"]
    if tls:
        argv += ["--certfile", str(tls.certificate), "--keyfile", str(tls.key)]
    return serve(realm, [*argv, *arguments, f"support.web_apps:{app}()"], tls=tls, options=options)


def uvicorn(
    realm: MitRealm,
    app: str,
    *arguments: str,
    tls: Tls | None = None,
    workers: int = 2,
    **options: Any,
) -> HttpServer:
    """Start uvicorn with an application of web_apps.py; `options` are those of the middleware."""
    argv = [sys.executable, "-m", "uvicorn", "--port", "{port}", "--workers", str(workers)]
    if tls:
        argv += ["--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key)]
    return serve(
        realm,
        [*argv, *arguments, "--factory", f"support.web_apps:{app}"],
        tls=tls,
        options=options,
    )
