"""KDCs on loopback that do what a test says, and a DNS server: real sockets, one thread for each."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from types import TracebackType

import dns.flags
import dns.message
import dns.rdatatype
import dns.resolver
import dns.rrset

from purekrb.messages.ap import KrbError
from purekrb.messages.der import tlv
from purekrb.names import PrincipalName
from support.peers import free_port

__all__ = [
    "DnsStub",
    "TcpStub",
    "UdpStub",
    "closed_port",
    "frame",
    "full_listener",
    "krb_error",
    "read_frame",
    "reply_of",
]


def reply_of(text: bytes = b"hello") -> bytes:
    """Return bytes that look like an AS-REP from outside."""
    return tlv(0x6B, tlv(0x30, tlv(0x04, text)))


def krb_error(code: int, *, realm: str = "R.TEST") -> bytes:
    """Return a KRB-ERROR with `code`."""
    time = datetime.now(timezone.utc).replace(microsecond=0)
    krbtgt = PrincipalName(("krbtgt", realm), 2)
    return KrbError(
        5, 30, None, None, time, 0, code, None, None, realm, krbtgt, None, None
    ).encode()


def frame(message: bytes) -> bytes:
    """Return `message` as it goes over TCP."""
    return struct.pack(">I", len(message)) + message


def read_frame(connection: socket.socket) -> bytes:
    """Return the message that a client sent over TCP."""
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    return data[4:]


def closed_port() -> int:
    """Return a loopback port on which nobody listens."""
    return free_port()


@contextlib.contextmanager
def full_listener(address: str = "127.0.0.1") -> Iterator[int]:
    """A port that drops new connections without a word, as a firewall does: its backlog is full."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind((address, 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


class _Stub:
    """A server thread; `stopping` is set when the test is over."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.host, self.port = sock.getsockname()[:2]
        self.stopping = threading.Event()
        self._threads = [threading.Thread(target=self._serve, daemon=True)]

    def _serve(self) -> None:
        raise NotImplementedError

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join(5)
        self.socket.close()


class TcpStub(_Stub):
    """Calls `handle(stub, connection)` for each connection, in a thread of its own, and closes it then.

    `accepted` counts connections.
    """

    def __init__(
        self,
        handle: Callable[[TcpStub, socket.socket], None],
        *,
        port: int = 0,
        address: str = "127.0.0.1",
    ) -> None:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(64)
        sock.settimeout(0.02)
        self.handle = handle
        self.accepted = 0
        super().__init__(sock)

    def _serve(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self.socket.accept()
            except TimeoutError:
                continue
            self.accepted += 1
            thread = threading.Thread(target=self._handle, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _handle(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with connection, contextlib.suppress(OSError):  # the client may go whenever it likes
            self.handle(self, connection)

    @property
    def url(self) -> str:
        return f"tcp://{self.host}:{self.port}"


class UdpStub(_Stub):
    """Calls `handle(stub, data, client)` for each datagram; `received` holds them all."""

    def __init__(
        self,
        handle: Callable[[UdpStub, bytes, object], None],
        *,
        port: int = 0,
        address: str = "127.0.0.1",
    ) -> None:
        sock = socket.socket(
            socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM
        )
        sock.bind((address, port))
        sock.settimeout(0.02)
        self.handle = handle
        self.received: list[bytes] = []
        super().__init__(sock)

    def _serve(self) -> None:
        while not self.stopping.is_set():
            try:
                data, client = self.socket.recvfrom(65535)
            except TimeoutError:
                continue
            self.received.append(data)
            with contextlib.suppress(OSError):
                self.handle(self, data, client)

    @property
    def url(self) -> str:
        return f"udp://{self.host}:{self.port}"


class DnsStub(UdpStub):
    """Answers SRV queries from `zone`: owner name -> texts of SRV data; other names do not exist. `broken`: raw rdata.

    `uris` is the same for URI queries. `resolver` asks this server alone. `asked` are the names and
    types of the queries.
    """

    def __init__(
        self,
        zone: dict[str, list[str]],
        *,
        uris: dict[str, list[str]] | None = None,
        broken: bytes | None = None,
        broken_type: int = dns.rdatatype.SRV,
    ) -> None:
        self.zone = zone
        self.uris = uris or {}
        self.asked: list[tuple[str, str]] = []
        self.broken = broken
        self._broken_type = broken_type
        super().__init__(DnsStub._answer)
        self.resolver = dns.resolver.Resolver(configure=False)
        self.resolver.nameservers = [self.host]
        self.resolver.port = self.port

    def _breaks(self, kind: int) -> bool:
        return self.broken is not None and kind == self._broken_type

    def _answer(self, data: bytes, client: object) -> None:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        question = query.question[0]
        name, kind = question.name.to_text(), question.rdtype
        self.asked.append((name, dns.rdatatype.to_text(kind)))
        texts = (self.uris if kind == dns.rdatatype.URI else self.zone).get(name)
        if texts is None:
            response.set_rcode(3)
        elif not self._breaks(kind):
            response.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", kind, texts))
        wire = response.to_wire(max_size=65535)
        if texts is not None and self.broken is not None and self._breaks(kind):
            record = (
                b"\xc0\x0c"
                + struct.pack(">HHIH", self._broken_type, 1, 60, len(self.broken))
                + self.broken
            )
            header = bytearray(wire)
            header[6:8] = b"\0\1"
            wire = bytes(header) + record
        self.socket.sendto(wire, client)  # type: ignore[arg-type]
