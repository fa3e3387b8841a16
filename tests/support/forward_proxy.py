"""A forward proxy that wants Negotiate: for requests in cleartext and for CONNECT."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from purekrb import Keytab
from purekrb.integrations.http.gate import Admitted, Gate
from purekrb.replay import MemoryReplayCache

__all__ = ["ForwardProxy", "forward_proxy"]


@dataclass
class ForwardProxy:
    """A proxy that runs. `seen` are the requests that it let through: the user and the first line."""

    url: str
    seen: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def forward_proxy(keytab: Keytab) -> Iterator[ForwardProxy]:
    """Run a proxy on loopback whose clients authenticate to the service of `keytab`."""
    gate = Gate(keytab, replay_cache=MemoryReplayCache())
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = ForwardProxy(f"http://localhost:{listener.getsockname()[1]}")

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(client, gate, proxy), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _serve(client: socket.socket, gate: Gate, proxy: ForwardProxy) -> None:
    with client, suppress(OSError), client.makefile("rb") as stream:
        while head := _head(stream):
            first, fields = head
            length = int(fields.get("content-length", 0))
            body = stream.read(length)
            verdict = gate.judge(fields.pop("proxy-authorization", None))
            if not isinstance(verdict, Admitted):
                challenge = dict(verdict.headers)["WWW-Authenticate"]
                client.sendall(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                    + f"Proxy-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n".encode()
                )
                continue
            proxy.seen.append((str(verdict.user), first))
            method, target, _ = first.split()
            if method == "CONNECT":
                host, _, port = target.rpartition(":")
                with socket.create_connection((host, int(port))) as server:
                    client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                    _tunnel(client, server)
                return
            _pass_on(client, method, target, fields, body)


def _head(stream: object) -> tuple[str, dict[str, str]] | None:
    lines = []
    while (line := stream.readline().decode("latin-1").strip()) or not lines:  # type: ignore[attr-defined]
        if not line:
            return None
        lines.append(line)
    pairs = (line.partition(":") for line in lines[1:])
    return lines[0], {name.lower(): value.strip() for name, _, value in pairs}


def _pass_on(
    client: socket.socket, method: str, target: str, fields: dict[str, str], body: bytes
) -> None:
    url = urlsplit(target)
    fields["connection"] = "close"
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    path = url.path + (f"?{url.query}" if url.query else "")
    with socket.create_connection((url.hostname, url.port or 80)) as server:
        server.sendall(f"{method} {path or '/'} HTTP/1.1\r\n{head}\r\n".encode() + body)
        answer = b""
        while piece := server.recv(65536):
            answer += piece
    # The server has closed its connection; ours stays.
    head_bytes, _, rest = answer.partition(b"\r\n\r\n")
    kept = [
        line for line in head_bytes.split(b"\r\n") if not line.lower().startswith(b"connection:")
    ]
    if not any(line.lower().startswith(b"content-length:") for line in kept):
        rest = _joined(rest)
        kept = [line for line in kept if not line.lower().startswith(b"transfer-encoding:")]
        kept.append(b"Content-Length: %d" % len(rest))
    client.sendall(b"\r\n".join(kept) + b"\r\n\r\n" + rest)


def _joined(chunks: bytes) -> bytes:
    body = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        count = int(size, 16)
        body, chunks = body + chunks[:count], chunks[count + 2 :]
    return body


def _tunnel(one: socket.socket, other: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                piece = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if not piece:
                    return
                key.data.sendall(piece)
