"""The sockets sample in examples/: it works, and it has none of the faults of its model."""

from __future__ import annotations

import importlib
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from purekrb import KdcClient, sspi
from purekrb.testing import Realm
from support.commands import environment
from support.sspi import credentials, pair, refused
from support.sspi_examples import EXAMPLES, run_client, running_service

SPN = "ADSockAuth/web.example.test"
CLIENT = ("--class", "ADSockAuth", "--host", "web.example.test", "--port")


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm() as realm:
        yield realm


@pytest.fixture
def lab(realm: Realm, tmp_path: Path) -> Path:
    """A directory with krb5.conf, alice's ccache and the service's keytab; `environment` names them."""
    realm.write_krb5_conf(tmp_path / "krb5.conf")
    realm.add_service(SPN).save(tmp_path / "keytab")
    alice = realm.add_user("alice", "pw")
    KdcClient(realm.config).get_tgt(alice)
    alice.save(tmp_path / "ccache")
    return tmp_path


@pytest.mark.parametrize("package", ["Negotiate", "Kerberos"])
def test_the_client_and_the_service_authenticate_each_other_and_talk(
    lab: Path, package: str
) -> None:
    env = environment(lab)
    with running_service(env, "--spn", SPN, "--package", package) as service:
        for text in ("hello", "once more"):
            done = run_client(env, *CLIENT, service.port, "--package", package, "--text", text)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.splitlines() == [
                f"alice@EXAMPLE.TEST has signed: {text}",
                text.upper(),
            ]
    assert service.name == SPN
    assert service.printed == ["served alice@EXAMPLE.TEST"] * 2


def test_a_service_with_another_key_gets_nothing_but_a_ticket_it_cannot_read(lab: Path) -> None:
    Realm().add_service(SPN).save(lab / "keytab")
    env = environment(lab)
    with running_service(env) as service:
        done = run_client(env, *CLIENT, service.port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("refused: InitializeSecurityContext: SEC_E_WRONG_PRINCIPAL")
    assert len(service.printed) == 1
    assert "SEC_E_INVALID_TOKEN" in service.printed[0]


def test_a_name_that_nobody_registered_is_refused_before_the_service_hears_anything(
    lab: Path,
) -> None:
    env = environment(lab)
    with running_service(env) as service:
        done = run_client(env, *(CLIENT[:3]), "other.example.test", "--port", service.port)
    assert (done.returncode, done.stdout) == (1, "")
    assert "SEC_E_TARGET_UNKNOWN" in done.stderr


# --- one side of the sample in this process, with a peer that is not


@pytest.fixture(scope="module")
def sample() -> Any:
    """The modules of the sample: frames, service and client."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        names = ("sspi_frames", "sspi_service", "sspi_client")
        frames, service, client = (importlib.import_module(name) for name in names)
        yield SimpleNamespace(frames=frames, service=service, client=client)
    finally:
        sys.path.remove(str(EXAMPLES))


@contextmanager
def against(peer: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """Yield a connection to `peer`, which runs in a thread."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs:
            peer(theirs)

    thread = threading.Thread(target=run)
    thread.start()
    with ours:
        yield ours
    thread.join(10)
    assert not thread.is_alive()


def say(data: bytes) -> Callable[[socket.socket], None]:
    """Return a peer that says `data`, whatever it hears, and ends."""

    def peer(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    return peer


FRAMES = [
    ("nothing", b""),
    ("half a length", b"\x05\0"),
    ("a frame of nothing", bytes(4)),
    ("a frame larger than any token", struct.pack("<L", 48_001) + bytes(48_001)),
    ("a frame of 4 GiB", b"\xff" * 4),
    ("a frame that is cut off", struct.pack("<L", 100) + bytes(99)),
    ("noise", struct.pack("<L", 5) + b"noise"),
    ("the length in the wrong order", struct.pack(">L", 5) + b"noise"),
]


@pytest.mark.parametrize("package", ["Kerberos", "Negotiate"])
@pytest.mark.parametrize(
    "data", [row[1] for row in FRAMES], ids=[f"CHK-34-{row[0]}" for row in FRAMES]
)
def test_bad_frames_end_the_handshake_on_either_side(
    sample: Any, data: bytes, package: str
) -> None:
    ours = credentials(package=package)
    with against(say(data)) as connection, pytest.raises((ConnectionError, sspi.error)):
        sample.service.authenticate(sample.frames.Frames(connection), ours.service)
    with against(say(data)) as connection, pytest.raises((ConnectionError, sspi.error)):
        sample.client.authenticate(
            sample.frames.Frames(connection), ours.client, "HTTP/web.example.test"
        )


@contextmanager
def both_sides(sample: Any, package: str = "Kerberos") -> Iterator[tuple[Any, Any, Any, Any]]:
    """Yield frames and context of the client, frames and context of the service, after a good handshake."""
    ours, (one, other) = credentials(package=package), socket.socketpair()
    with one, other:
        frames = sample.frames.Frames(one), sample.frames.Frames(other)
        accepted: list[sspi.CtxtHandle] = []
        thread = threading.Thread(
            target=lambda: accepted.append(sample.service.authenticate(frames[1], ours.service))
        )
        thread.start()
        context = sample.client.authenticate(frames[0], ours.client, "HTTP/web.example.test")
        thread.join(10)
        yield frames[0], context, frames[1], accepted[0]


def test_frames_may_arrive_in_any_pieces(sample: Any) -> None:
    body = bytes(range(200))
    wire = struct.pack("<L", len(body)) + body

    def drip(connection: socket.socket) -> None:
        for at in range(len(wire)):
            connection.sendall(wire[at : at + 1])

    with against(drip) as connection:
        assert sample.frames.Frames(connection).receive(200) == body


def test_a_peer_that_says_too_little_does_not_hold_the_service(
    sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample.frames, "PATIENCE", 0.3)
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(struct.pack("<L", 1000))
        while not stop.wait(0.05):
            connection.sendall(b"x")

    with against(drip) as connection:
        try:
            with pytest.raises(TimeoutError):
                sample.service.authenticate(sample.frames.Frames(connection), credentials().service)
        finally:
            stop.set()


def test_a_client_that_does_not_ask_for_the_proof_is_refused(
    sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with both_sides(sample) as (_, context, _, _):  # this one does
        assert context.QueryContextAttributes(sspi.SECPKG_ATTR_FLAGS) & sspi.ISC_RET_MUTUAL_AUTH
    monkeypatch.setattr(
        sample.client, "ASKED", sspi.ISC_REQ_CONFIDENTIALITY | sspi.ISC_REQ_SEQUENCE_DETECT
    )
    monkeypatch.setattr(sample.client, "NEEDED", sspi.ISC_RET_CONFIDENTIALITY)
    ours = credentials()

    def client(connection: socket.socket) -> None:
        sample.client.authenticate(
            sample.frames.Frames(connection), ours.client, "HTTP/web.example.test"
        )

    with against(client) as connection, refused(sspi.SEC_E_SECURITY_QOS_FAILED):
        sample.service.authenticate(sample.frames.Frames(connection), ours.service)


@pytest.mark.parametrize(
    "lacking", ["MUTUAL_AUTH", "CONFIDENTIALITY", "SEQUENCE_DETECT", "REPLAY_DETECT"]
)
def test_each_flag_is_tested_as_a_bit_of_the_last_return(
    sample: Any, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    asked = sample.client.ASKED & ~getattr(sspi, f"ISC_REQ_{lacking}")
    monkeypatch.setattr(sample.client, "ASKED", asked)
    monkeypatch.setattr(sample.service, "ASKED", 0)
    ours = credentials()

    def service(connection: socket.socket) -> None:
        with pytest.raises(ConnectionError, match="is missing"):
            sample.service.authenticate(sample.frames.Frames(connection), ours.service)

    with against(service) as connection, pytest.raises(ConnectionError, match="is missing"):
        sample.client.authenticate(
            sample.frames.Frames(connection), ours.client, "HTTP/web.example.test"
        )


def test_messages_are_signed_and_secret_and_belong_to_their_place(sample: Any) -> None:
    with both_sides(sample, "Negotiate") as (to_service, client, to_client, service):
        frames = sample.frames
        frames.send_signed(to_service, client, b"signed")
        assert frames.receive_signed(to_client, service) == b"signed"
        frames.send_encrypted(to_client, service, b"secret")
        assert frames.receive_encrypted(to_service, client) == b"secret"
        frames.send_encrypted(to_client, service, b"")  # a frame nevertheless: the token is in it
        assert frames.receive_encrypted(to_service, client) == b""
        with pytest.raises(ValueError):
            frames.send_signed(to_service, client, b"")
        # Only signed, where secrecy is due.
        message = frames.buffers((sspi.SECBUFFER_TOKEN, 60), (sspi.SECBUFFER_DATA, b"public"))
        sspi.EncryptMessage(service, sspi.SECQOP_WRAP_NO_ENCRYPT, message, 0)
        token, data = message[0].Buffer, message[1].Buffer
        to_client.send(struct.pack("<L", len(token)) + token + data)
        with pytest.raises(ConnectionError, match="only signed"):
            frames.receive_encrypted(to_service, client)
        # Altered, and with a token that is longer than the frame.
        frames.send_signed(to_service, client, b"100 to bob")
        text, signature = to_client.receive(100), to_client.receive(100)
        to_service.send(text.replace(b"bob", b"eve"))
        to_service.send(signature)
        with refused(sspi.SEC_E_MESSAGE_ALTERED):
            frames.receive_signed(to_client, service)
        for body in (struct.pack("<L", 1000) + bytes(60), b"abc", bytes(4)):
            to_service.send(body)
            with pytest.raises((ConnectionError, sspi.error)):
                frames.receive_encrypted(to_client, service)


def test_messages_of_another_connection_are_refused(sample: Any) -> None:
    with both_sides(sample) as (to_service, client, to_client, service):
        sample.frames.send_signed(to_service, pair().client, b"hello")
        with refused(sspi.SEC_E_MESSAGE_ALTERED):
            sample.frames.receive_signed(to_client, service)
        sample.frames.send_signed(to_service, client, b"hello")
        assert sample.frames.receive_signed(to_client, service) == b"hello"
