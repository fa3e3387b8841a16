"""A broker of Kafka that knows SASL GSSAPI and the names of its topics: enough of the protocol for a real client.

Its Kerberos is purekrb's GssapiServer, as brokers use Java's: version 1 of SaslHandshake, tokens in SaslAuthenticate.
"""

from __future__ import annotations

import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from purekrb import KerberosError
from purekrb.integrations.sasl import GssapiServer

__all__ = ["Broker", "kafka_broker"]

_METADATA, _HANDSHAKE, _API_VERSIONS, _AUTHENTICATE = 3, 17, 18, 36
#: The versions of each request that the broker speaks.
_VERSIONS = ((_METADATA, 0, 1), (_HANDSHAKE, 0, 1), (_API_VERSIONS, 0, 0), (_AUTHENTICATE, 0, 0))
_UNSUPPORTED_VERSION, _AUTHENTICATION_FAILED = 35, 58


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


class Broker(socketserver.ThreadingTCPServer):
    """Listens on localhost. `clients` are the principals that have authenticated themselves."""

    daemon_threads = True

    def __init__(self, new_server: Callable[[], GssapiServer], tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.new_server = new_server
        self.tls = tls
        self.topics = ["orders", "prices"]
        self.clients: list[str] = []
        self.refused: list[KerberosError] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def get_request(self) -> Any:
        sock, address = super().get_request()
        return (self.tls.wrap_socket(sock, server_side=True) if self.tls else sock), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients cut connections."""


class _Connection(socketserver.StreamRequestHandler):
    server: Broker

    def handle(self) -> None:
        self.sasl = self.server.new_server()
        while size := self.rfile.read(4):
            request = self.rfile.read(int.from_bytes(size, "big"))
            key, version, correlation, name_size = struct.unpack_from(">hhih", request)
            body = request[10 + max(name_size, 0) :]
            answer = struct.pack(">i", correlation) + self.answer(key, version, body)
            self.wfile.write(struct.pack(">i", len(answer)) + answer)

    def answer(self, key: int, version: int, body: bytes) -> bytes:
        if key == _API_VERSIONS:
            rows = b"".join(struct.pack(">hhh", *row) for row in _VERSIONS)
            error = _UNSUPPORTED_VERSION if version else 0
            return struct.pack(">hi", error, len(_VERSIONS)) + rows
        if key == _HANDSHAKE:
            return struct.pack(">hi", 0, 1) + _string("GSSAPI")
        if key == _AUTHENTICATE:
            return self.authenticate(body[4:])
        if not self.sasl.complete:
            raise ConnectionError("the client has not authenticated itself")
        assert key == _METADATA
        host = _string("localhost") + struct.pack(">ih", self.server.port, -1)
        topics = b"".join(
            struct.pack(">h", 0) + _string(topic) + struct.pack(">?i", False, 0)
            for topic in self.server.topics
        )
        return (
            struct.pack(">ii", 1, 1)
            + host
            + struct.pack(">ii", 1, len(self.server.topics))
            + topics
        )

    def authenticate(self, token: bytes) -> bytes:
        try:
            challenge = self.sasl.step(token) or b""
        except KerberosError as error:
            self.server.refused.append(error)
            return struct.pack(">h", _AUTHENTICATION_FAILED) + _string("refused") + bytes(4)
        if self.sasl.complete:
            self.server.clients.append(str(self.sasl.context.initiator))
        return struct.pack(">hh", 0, -1) + struct.pack(">i", len(challenge)) + challenge


@contextmanager
def kafka_broker(
    new_server: Callable[[], GssapiServer], tls: ssl.SSLContext | None = None
) -> Iterator[Broker]:
    """Run a broker that makes a new `GssapiServer` for each connection."""
    with Broker(new_server, tls) as broker:
        thread = threading.Thread(target=broker.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield broker
        finally:
            broker.shutdown()
            thread.join()
