"""An HTTPS server on loopback that answers as a test says: a KDC proxy, or what pretends to be one."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable

from purekrb.messages.kkdcp import KdcProxyMessage
from support.kdc_stubs import TcpStub
from support.tls import ServerTls

__all__ = ["HttpsStub", "proxied", "response"]


def proxied(reply: bytes) -> bytes:
    """Return the KDC-PROXY-MESSAGE that holds `reply`."""
    return KdcProxyMessage(len(reply).to_bytes(4, "big") + reply).encode()


def response(
    body: bytes,
    *fields: str,
    status: str = "200 OK",
    version: str = "1.1",
    kind: str = "application/kerberos",
    length: bool = True,
) -> bytes:
    """Return an HTTP response with `body`."""
    lines = [f"HTTP/{version} {status}", *([f"Content-Type: {kind}"] if kind else []), *fields]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class HttpsStub(TcpStub):
    """Calls `answer(body)` for the body of each POST and sends what it returns: bytes, or pieces.

    `requests` holds the heads and bodies that came.
    """

    def __init__(self, tls: ServerTls, answer: Callable[[bytes], bytes | Iterable[bytes]]) -> None:
        self._tls = tls
        self._answer = answer
        self.requests: list[tuple[str, bytes]] = []
        super().__init__(HttpsStub._serve_one)

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            stream = self._tls.context.wrap_socket(connection, server_side=True)
        except ssl.SSLError:  # the client does not trust us
            return
        with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                piece = stream.recv(65536)
                if not piece:
                    return
                data += piece
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            while len(body) < length:
                body += stream.recv(65536)
            self.requests.append((head.decode(), body))
            answer = self._answer(body)
            for piece in (answer,) if isinstance(answer, bytes) else answer:
                stream.sendall(piece)

    def url(self, host: str = "localhost", path: str = "/KdcProxy") -> str:  # type: ignore[override]
        """Return the URL of this server by one of its names."""
        return f"https://{host}:{self.port}{path}"
