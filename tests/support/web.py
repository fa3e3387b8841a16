"""A small web server that Negotiate logs in to, and curl as its client."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from purekrb import Acceptor
from support.mit import MitRealm
from support.peers import find_program, run

__all__ = ["curl", "web_server"]


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers whoever has authenticated itself with its name, all others with 401. Source: RFC 4559 4."""

    protocol_version = "HTTP/1.1"
    new_acceptor: Callable[[], Acceptor]
    context: Acceptor | None = None

    def do_GET(self) -> None:
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        answer, self.context = b"", self.context or self.new_acceptor()
        if scheme == "Negotiate":
            answer = self.context.step(base64.b64decode(credentials, validate=True)) or b""
        body = str(self.context.initiator).encode() if self.context.established else b""
        self.send_response(200 if body else 401)
        self.send_header(
            "WWW-Authenticate", f"Negotiate {base64.b64encode(answer).decode()}".strip()
        )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.context.established:
            self.context = None

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def web_server(new_acceptor: Callable[[], Acceptor]) -> Iterator[str]:
    """Have a web server on loopback that takes an acceptor for each login; give its URL."""
    handler = type("Handler", (_Handler,), {"new_acceptor": staticmethod(new_acceptor)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://localhost:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def curl(realm: MitRealm, url: str, *options: str) -> str:
    """Return what curl, as the user of the realm, gets from `url`: the body, a space and the status."""
    argv = [
        find_program("curl", "curl"),
        "-sS",
        "--noproxy",
        "*",
        "-w",
        " %{http_code}",
        *options,
        url,
    ]
    return run(argv, env={**realm.env, "KRB5CCNAME": str(realm.kinit("user"))})
