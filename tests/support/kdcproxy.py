"""PyPI's kdcproxy, an HTTPS proxy before real KDCs (MS-KKDCP), with a certificate of a test CA."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from wsgiref.simple_server import WSGIRequestHandler, make_server

from support.tls import Authority

__all__ = ["RunningProxy", "kdcproxy"]


@dataclass
class RunningProxy:
    """A proxy that runs. `answers` are the statuses of its answers."""

    url: str
    answers: list[str] = field(default_factory=list)


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def kdcproxy(
    directory: Path, authority: Authority, realms: Mapping[str, Mapping[str, str]]
) -> Iterator[RunningProxy]:
    """Run kdcproxy for `realms`: name -> {"kerberos": URL, "kpasswd": URL}, URLs as kerberos+tcp://host:port."""
    import kdcproxy as package

    conf = directory / "kdcproxy.conf"
    sections = ["[global]\nuse_dns = false\n"]
    for realm, servers in realms.items():
        sections.append(f"[{realm}]\n" + "".join(f"{k} = {v}\n" for k, v in servers.items()))
    conf.write_text("\n".join(sections))
    with mock.patch.dict(os.environ, {"KDCPROXY_CONFIG": str(conf)}):
        application = package.Application()
    running = RunningProxy("")

    def noting(environ: dict[str, Any], start_response: Any) -> Any:
        def start(status: str, *arguments: Any) -> Any:
            running.answers.append(status)
            return start_response(status, *arguments)

        return application(environ, start)

    authority.issue(["localhost"], stem="kdcproxy", usage="1.3.6.1.5.5.7.3.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stem = authority.ca.parent / "kdcproxy"
    context.load_cert_chain(stem.with_suffix(".pem"), stem.with_suffix(".key"))
    server = make_server("127.0.0.1", 0, noting, handler_class=_Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    running.url = f"https://localhost:{server.server_port}/KdcProxy"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
