"""Real HTTP servers around the applications of web_apps.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.mit import MitRealm
from support.peers import Daemon, find_program, missing_peer, on_free_port, run
from support.tls import Authority

__all__ = [
    "HttpServer",
    "Tls",
    "auth_request",
    "gokrb5",
    "gunicorn",
    "hypercorn",
    "nginx",
    "uvicorn",
]

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


def hypercorn(realm: MitRealm, app: str, *, tls: Tls, **options: Any) -> HttpServer:
    """Start hypercorn, which speaks HTTP/2, with an application of web_apps.py."""
    argv = [sys.executable, "-m", "hypercorn", "-b", "127.0.0.1:{port}"]
    argv += ["--certfile", str(tls.certificate), "--keyfile", str(tls.key)]
    return serve(realm, [*argv, f"support.web_apps:{app}()"], tls=tls, options=options)


def auth_request(realm: MitRealm, *arguments: str) -> HttpServer:
    """Start `purekrb serve-http-auth`."""
    argv = [sys.executable, "-m", "purekrb", "serve-http-auth", "127.0.0.1:{port}"]
    return serve(realm, [*argv, *arguments], tls=None, options={})


_NGINX = """\
daemon off;
worker_processes 1;
error_log stderr;
pid {directory}/nginx.pid;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
{http}
}}
"""


def nginx(realm: MitRealm, http: str, *, tls: Tls | None = None) -> HttpServer:
    """Start nginx with the text `http` in its block of that name; "@PORT@" there is replaced by a free port."""
    directory = realm.path("nginx")
    directory.mkdir()
    program, log = find_program("nginx", "nginx-light"), directory / "log"

    def start(port: int) -> HttpServer:
        conf = directory / "nginx.conf"
        conf.write_text(_NGINX.format(directory=directory, http=http.replace("@PORT@", str(port))))
        argv = [program, "-p", str(directory), "-e", "stderr", "-c", str(conf)]
        daemon = Daemon(argv, env=realm.env, log=log, port=port)
        return HttpServer(f"http{'s' if tls else ''}://localhost:{port}", daemon, log)

    return on_free_port(start)


def gokrb5(realm: MitRealm) -> HttpServer:
    """Build and start a server behind gokrb5's SPNEGO."""
    go = find_program("go", "golang-go")
    if not Path("/usr/share/gocode/src/github.com/jcmturner/gokrb5").is_dir():
        missing_peer("gokrb5", "golang-github-jcmturner-gokrb5.v8-dev")
    program = _TESTS.parent / ".lab" / "gokrb5" / "spnego_server"
    source = _TESTS / "support" / "go" / "spnego_server.go"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        env = {
            **realm.env,
            "GO111MODULE": "off",
            "GOFLAGS": "",
            "GOPATH": "/usr/share/gocode",
            "GOCACHE": str(program.parent / "cache"),
        }
        run([go, "build", "-o", str(program), str(source)], env=env)
    keytab = realm.keytab("HTTP/localhost")
    argv = [str(program), "127.0.0.1:{port}", str(keytab)]
    return serve(realm, argv, tls=None, options={})
