"""A SOCKS5 proxy on loopback, which alone knows the hosts of a network (RFC 1928)."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Mapping

from support.kdc_stubs import TcpStub

__all__ = ["SocksStub", "relay", "socks_connector"]

_HOST_NAME = 3
_SUCCESS, _NO_HOST, _REFUSED = 0, 4, 5


class SocksStub(TcpStub):
    """Connects clients to the hosts of `network`: name -> port on loopback. Addresses it does not know.

    `asked` holds the names and ports that came.
    """

    def __init__(self, network: Mapping[str, int]) -> None:
        self.network = network
        self.asked: list[tuple[str, int]] = []
        super().__init__(SocksStub._serve_one)

    def _serve_one(self, client: socket.socket) -> None:
        stream = client.makefile("rb")
        _, count = stream.read(2)
        stream.read(count)
        client.sendall(b"\5\0")
        kind = stream.read(4)[3]
        size = stream.read(1)[0] if kind == _HOST_NAME else {1: 4, 4: 16}[kind]
        address = stream.read(size)
        port = int.from_bytes(stream.read(2), "big")
        name = address.decode() if kind == _HOST_NAME else address.hex()
        self.asked.append((name, port))
        code = _SUCCESS if name in self.network else _NO_HOST
        server = None
        if code == _SUCCESS:
            try:
                server = socket.create_connection(("127.0.0.1", self.network[name]), 5)
            except OSError:
                code = _REFUSED
        client.sendall(bytes((5, code, 0, 1)) + bytes(6))
        if server is not None:
            with server:
                relay(client, server)

    @property
    def url(self) -> str:
        return f"socks5://{self.host}:{self.port}"


def relay(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until one side ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select(30):
                piece = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if not piece:
                    return
                key.data.sendall(piece)


def socks_connector(stub: SocksStub) -> Callable[[str, int, float], socket.socket]:
    """Return an `open_connection` that goes through the proxy, which looks up the names."""

    def open_connection(host: str, port: int, timeout: float) -> socket.socket:
        sock = socket.create_connection((stub.host, stub.port), timeout)
        try:
            sock.sendall(b"\5\1\0")
            _exactly(sock, 2)
            name = host.encode("idna")
            sock.sendall(bytes((5, 1, 0, 3, len(name))) + name + port.to_bytes(2, "big"))
            code = _exactly(sock, 10)[1]
            if code:
                raise ConnectionError(f"the SOCKS proxy says {code}")
        except BaseException:
            sock.close()
            raise
        return sock

    return open_connection


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError("the SOCKS proxy has left")
        data += piece
    return data
