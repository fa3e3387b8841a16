"""MIT's sample programs gss-client and gss-server, over TCP, and purekrb at the other end.

They frame each token with a byte of flags and a 32-bit big-endian length.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from purekrb import Acceptor, Initiator
from support.mit import MitRealm
from support.peers import Daemon, find_program, on_free_port

__all__ = [
    "CONTEXT",
    "CONTEXT_NEXT",
    "DATA",
    "ENCRYPTED",
    "MIC",
    "NOOP",
    "SEND_MIC",
    "WRAPPED",
    "GssServer",
    "SampleService",
    "receive",
    "run_gss_client",
    "send",
]

#: Bits of a frame's flags.
NOOP, CONTEXT, DATA, MIC, CONTEXT_NEXT, WRAPPED, ENCRYPTED, SEND_MIC = (
    1 << bit for bit in range(8)
)


def send(connection: socket.socket, flags: int, token: bytes = b"") -> None:
    connection.sendall(bytes([flags]) + len(token).to_bytes(4, "big") + token)


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """Return the flags and the token of the next frame; (NOOP, b"") where the stream ends instead."""
    # The samples write a frame in three pieces, each of which would wait 40 ms for the delayed ACK of the one before.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    with connection.makefile("rb", buffering=0) as stream:
        header = _exactly(stream, 5)
        if len(header) < 5:
            return NOOP, b""
        return header[0], _exactly(stream, int.from_bytes(header[1:], "big"))


def _exactly(stream: socket.SocketIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := stream.read(size - len(data))):
        data += piece
    return bytes(data)


# --- our initiator and gss-server


class GssServer:
    """A running gss-server with the keys of `service` (svc-18@localhost); `log` is what it says."""

    def __init__(self, realm: MitRealm, service: str) -> None:
        self.log = realm.path("gss-server.log")
        program = find_program("gss-server", "krb5-gss-samples")

        def start(port: int) -> Daemon:
            self.port = port
            argv = [program, "-port", str(port), "-keytab", str(realm.service_keytab), service]
            return Daemon(argv, env=realm.env, log=self.log, port=port)

        self._daemon = on_free_port(start)

    def stop(self) -> None:
        """Stop the server."""
        self._daemon.stop()

    def connect(self, context: Initiator) -> socket.socket:
        """Return a connection on which `context` is established."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        send(connection, NOOP | CONTEXT_NEXT)
        token = context.step()
        while token is not None:
            send(connection, CONTEXT, token)
            if context.established:
                break
            flags, reply = receive(connection)
            assert flags == CONTEXT
            token = context.step(reply)
        assert context.established
        return connection


# --- gss-client and our acceptor


@dataclass
class SampleService:
    """The acceptor's side of the sample protocol, for one connection, in a thread of its own."""

    acceptor: Acceptor
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    received: list[bytes] = field(default_factory=list)
    kinds: set[int] = field(default_factory=set)
    error: BaseException | None = None

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        try:
            with self.listener, self.listener.accept()[0] as connection:
                connection.settimeout(30)
                self._serve(connection)
        except BaseException as error:
            self.error = error

    def _serve(self, connection: socket.socket) -> None:
        context = self.acceptor
        assert receive(connection) == (NOOP | CONTEXT_NEXT, b"")
        while not context.established:
            flags, token = receive(connection)
            assert flags == CONTEXT
            reply = context.step(token)
            if reply is not None:
                send(connection, CONTEXT, reply)
        while (frame := receive(connection))[0] != NOOP:
            flags, data = frame
            if flags & WRAPPED:
                data = context.unwrap(data, sealed=bool(flags & ENCRYPTED))
            self.received.append(data)
            self.kinds.add(
                flags if flags & WRAPPED else flags & ~ENCRYPTED
            )  # meaningless without WRAPPED
            send(connection, *((MIC, context.get_mic(data)) if flags & SEND_MIC else (NOOP, b"")))


def run_gss_client(
    realm: MitRealm, service: SampleService, *options: str, env: Mapping[str, str] | None = None
) -> str:
    """Run gss-client against `service` and return what it says; `env` replaces variables."""
    program = find_program("gss-client", "krb5-gss-samples")
    thread = service.start()
    port = service.listener.getsockname()[1]
    done = subprocess.run(
        [program, "-port", str(port), *options],
        env={**realm.env, "KRB5CCNAME": f"FILE:{realm.kinit('user')}", **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    thread.join(timeout=30)
    if service.error is not None:
        raise service.error
    return done.stdout + done.stderr
