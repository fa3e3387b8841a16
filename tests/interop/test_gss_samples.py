"""purekrb's contexts with MIT's sample programs gss-client and gss-server, over TCP.

They frame each token with a byte of flags and a 32-bit big-endian length.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from purekrb import Acceptor, Config, Credential, Flag, Initiator, KdcClient, Keytab
from support.mit import ETYPES, MitRealm
from support.peers import Daemon, find_program, free_port

RC4 = 23
#: Bits of a frame's flags.
NOOP, CONTEXT, DATA, MIC, CONTEXT_NEXT, WRAPPED, ENCRYPTED, SEND_MIC = (1 << bit for bit in range(8))
MESSAGES = 100
SIZES = (1, 15, 16, 17, 1024, 64 * 1024, 1024 * 1024)


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


@pytest.fixture(scope="module")
def client(mit_realm: MitRealm) -> KdcClient:
    return KdcClient(Config.from_file(mit_realm.krb5_conf))


@pytest.fixture(scope="module")
def credential() -> Credential:
    return Credential.from_password("user@MIT.TEST", "userpw")


@pytest.fixture(params=ETYPES, ids=[f"etype-{etype}" for etype in ETYPES])
def etype(request: pytest.FixtureRequest) -> int:
    etype: int = request.param
    return etype


@dataclass
class GssServer:
    port: int
    log: Path


@pytest.fixture
def gss_server(mit_realm: MitRealm, etype: int) -> Iterator[GssServer]:
    server = GssServer(free_port(), mit_realm.path("gss-server.log"))
    program = find_program("gss-server", "krb5-gss-samples")
    argv = [program, "-port", str(server.port), "-keytab", str(mit_realm.service_keytab), f"svc-{etype}@localhost"]
    daemon = Daemon(argv, env=mit_realm.env, log=server.log, port=server.port)
    yield server
    daemon.stop()


def connect(server: GssServer, context: Initiator) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
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


@pytest.mark.parametrize(
    ("mechanism", "kind"),
    [("kerberos", WRAPPED | ENCRYPTED), ("kerberos", WRAPPED), ("kerberos", 0), ("negotiate", WRAPPED | ENCRYPTED)],
    ids=["sealed", "signed", "mic", "spnego"],
)
def test_gss_server_takes_our_messages_and_signs_them(
    gss_server: GssServer, client: KdcClient, credential: Credential, etype: int, mechanism: str, kind: int
) -> None:
    ticket = client.get_ticket(credential, f"svc-{etype}/localhost")
    context = Initiator(ticket, mechanism=mechanism, permitted_etypes=(etype,))
    with connect(gss_server, context) as connection:
        assert context.mutual
        messages = [*(b"message %d" % number for number in range(MESSAGES)), *(b"x" * size for size in SIZES)]
        for data in messages:
            token = context.wrap(data, sealed=bool(kind & ENCRYPTED)) if kind & WRAPPED else data
            if etype == RC4:  # purekrb has no MICs there, so the server is not asked for one
                send(connection, DATA | kind, token)
                assert receive(connection) == (NOOP, b"")
                continue
            send(connection, DATA | kind | SEND_MIC, token)
            flags, mic = receive(connection)
            assert flags == MIC
            context.verify_mic(data, mic)
        send(connection, NOOP)
        assert connection.recv(1) == b"", "gss-server says more than was asked"
    log = gss_server.log.read_text(errors="replace")
    assert 'Accepted connection: "user@MIT.TEST"' in log
    assert log.count("Received message: ") == len(messages)
    assert 'Received message: "message 99"' in log


def test_gss_server_refuses_an_altered_message(
    gss_server: GssServer, client: KdcClient, credential: Credential, etype: int
) -> None:
    context = Initiator(client.get_ticket(credential, f"svc-{etype}/localhost"), permitted_etypes=(etype,))
    with connect(gss_server, context) as connection:
        send(connection, DATA | WRAPPED | ENCRYPTED, context.wrap(b"genuine"))
        assert receive(connection) == (NOOP, b"")
        token = bytearray(context.wrap(b"altered"))
        token[-1] ^= 1
        send(connection, DATA | WRAPPED | ENCRYPTED, bytes(token))
        assert connection.recv(1) == b"", "gss-server acknowledged an altered message"


# --- gss-client and our acceptor


@dataclass
class SampleService:
    """The acceptor's side of the sample protocol, for one connection, in a thread of its own."""

    keytab: Keytab
    etype: int
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    received: list[bytes] = field(default_factory=list)
    kinds: set[int] = field(default_factory=set)
    acceptor: Acceptor | None = None
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
        context = self.acceptor = Acceptor(self.keytab, permitted_etypes=(self.etype,), require=Flag(0))
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
            self.kinds.add(flags if flags & WRAPPED else flags & ~ENCRYPTED)  # meaningless without WRAPPED
            send(connection, *((MIC, context.get_mic(data)) if flags & SEND_MIC else (NOOP, b"")))


def run_gss_client(realm: MitRealm, service: SampleService, *options: str) -> str:
    """Run gss-client against `service` and return what it says."""
    program = find_program("gss-client", "krb5-gss-samples")
    thread = service.start()
    port = service.listener.getsockname()[1]
    done = subprocess.run(
        [program, "-port", str(port), *options],
        env={**realm.env, "KRB5CCNAME": f"FILE:{realm.kinit('user')}"},
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


@pytest.mark.parametrize(
    ("option", "kind"),
    [((), WRAPPED | ENCRYPTED), (("-nx",), WRAPPED), (("-nw",), 0), (("-spnego",), WRAPPED | ENCRYPTED)],
    ids=["sealed", "signed", "mic", "spnego"],
)
def test_gss_client_is_answered_by_our_acceptor(
    mit_realm: MitRealm, etype: int, option: tuple[str, ...], kind: int
) -> None:
    service = SampleService(Keytab.load(mit_realm.service_keytab), etype)
    mics = etype != RC4
    options = (*option, *(() if mics else ("-nm",)), "-seq", "-mcount", str(MESSAGES))
    output = run_gss_client(mit_realm, service, *options, "127.0.0.1", f"svc-{etype}@localhost", "from gss-client")
    assert service.received == [b"from gss-client"] * MESSAGES
    assert service.kinds == {DATA | kind | (SEND_MIC if mics else 0)}
    assert service.acceptor is not None
    assert str(service.acceptor.initiator) == "user@MIT.TEST"
    assert service.acceptor.etype == etype
    assert service.acceptor.flags & (Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE) == (
        Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE
    )
    for name in ("MUTUAL", "REPLAY", "SEQUENCE", "CONF", "INTEG"):
        assert f"GSS_C_{name}_FLAG" in output
    assert output.count("Signature verified.") == (MESSAGES if mics else 0)
    assert output.count("Response received.") == (0 if mics else MESSAGES)


@pytest.mark.parametrize("size", SIZES)
def test_gss_client_sends_every_size(mit_realm: MitRealm, size: int) -> None:
    message = mit_realm.path("message")
    message.write_bytes(b"x" * size)
    service = SampleService(Keytab.load(mit_realm.service_keytab), 18)
    output = run_gss_client(mit_realm, service, "-f", "127.0.0.1", "svc-18@localhost", str(message))
    assert service.received == [b"x" * size]
    assert output.count("Signature verified.") == 1


@pytest.mark.parametrize("mechanism", [(), ("-spnego",)], ids=["kerberos", "spnego"])
def test_gss_client_without_mutual_authentication_gets_a_context(
    mit_realm: MitRealm, mechanism: tuple[str, ...]
) -> None:
    service = SampleService(Keytab.load(mit_realm.service_keytab), 18)
    options = (*mechanism, "-nomutual", "-seq")
    output = run_gss_client(mit_realm, service, *options, "127.0.0.1", "svc-18@localhost", "one way")
    assert service.received == [b"one way"]
    assert service.acceptor is not None
    assert not service.acceptor.flags & Flag.MUTUAL
    assert "GSS_C_MUTUAL_FLAG" not in output
    assert output.count("Signature verified.") == 1
