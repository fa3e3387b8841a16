"""Channels over loopback sockets: blocking and asyncio, client and server, with genuine tickets and hostile peers."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    ChannelBindings,
    Config,
    ContextError,
    ContextExpiredError,
    Credential,
    DecodeError,
    Flag,
    Initiator,
    IntegrityError,
    KdcClient,
    KerberosError,
    KeytabEntry,
    MutualAuthenticationError,
    PolicyError,
    Principal,
    ProtocolError,
    SequenceError,
    ServiceTicket,
    TransportError,
    TransportTimeoutError,
    UnsupportedError,
    aio,
    connect,
    listen,
)
from purekrb.channel.aio import Channel as AioChannel
from purekrb.channel.establish import peer_address, source_of
from purekrb.channel.framing import encode_frame
from purekrb.channel.stream import CHANNEL_FLAGS, MAX_ROUNDS, SealedStream, check_flags
from purekrb.constants import AddressType, ErrorCode, NegState
from purekrb.messages.ap import HostAddress
from purekrb.messages.spnego import NegTokenResp
from purekrb.replay import MemoryReplayCache, SqliteReplayCache
from purekrb.testing import Realm
from support.channels import (
    LOCALHOST,
    PATIENCE,
    AnyChannel,
    RawClient,
    Side,
    connect_asyncio,
    connect_blocking,
    echo,
    open_descriptors,
    raw_server,
    read_frame,
)
from support.processes import soak
from support.spnego import PreferringNtlm
from support.tickets import ALICE, SERVICE, issue

TICKET, KEYS = issue()
KINDS = ["blocking", "asyncio"]


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest) -> Iterator[Side]:
    side = Side(request.param)
    yield side
    side.stop()


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Side]:
    side = Side(request.param)
    yield side
    side.stop()


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """Every test gives back what it opened, whatever it did to the other side."""
    before = open_descriptors()
    yield
    deadline = time.monotonic() + PATIENCE
    while open_descriptors() != before:  # a KDC may still be closing its end
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_echoes(side: Side, address: tuple[str, int], ticket: ServiceTicket = TICKET, **options: Any) -> None:
    """The positive control: an honest client is served."""
    with side.connect(address, ticket, **options) as channel:
        channel.send(b"good")
        assert channel.recv() == b"good"


# -- honest peers


@pytest.mark.parametrize("etype", [17, 18, 19, 20, 23])
def test_messages_of_all_sizes_go_both_ways(client: Side, server: Side, etype: int) -> None:
    ticket, keys = issue(etype)
    permitted = {"permitted_etypes": (etype,)}
    with server.serve(keys, **permitted) as running, client.connect(running.address, ticket, **permitted) as channel:
        for size in (1, 15, 16, 17, 1024, 65_536, 1 << 20):
            message = bytes([size % 251]) * size
            channel.send(message)
            assert channel.recv() == message
        assert channel.context.mutual
        assert channel.context.flags & Flag.DEFAULT == Flag.DEFAULT


def test_both_sides_know_each_other_and_the_flags(client: Side, server: Side) -> None:
    seen: list[Any] = []

    def service(channel: AnyChannel) -> None:
        seen.extend([channel.context.initiator, channel.context.acceptor, channel.context.flags])
        channel.send(b"done")

    with server.serve(KEYS, service) as running, client.connect(running.address, TICKET) as channel:
        assert channel.recv() == b"done"
        assert [channel.context.initiator, channel.context.acceptor] == [ALICE, SERVICE]
    assert seen == [ALICE, SERVICE, Flag.DEFAULT]


def test_k410_a_server_refuses_anonymous_clients_unless_it_lets_them_in(client: Side, server: Side) -> None:
    ticket, keys = issue(client=Principal.parse("WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"))
    with server.serve(keys) as running, pytest.raises(ApError) as caught:
        client.connect(running.address, ticket)
    assert caught.value.code == ErrorCode.KDC_ERR_POLICY
    with server.serve(keys, accept_anonymous=True) as running:
        assert_echoes(client, running.address, ticket)


def test_k411_a_server_may_require_that_the_client_asked_for_it(client: Side, server: Side) -> None:
    ticket, (key,) = issue()
    other = KeytabEntry(Principal.parse("host/web.example.test@EXAMPLE.TEST"), 3, key.key)
    for keys, good in (([key, other], True), ([other], False)):
        with server.serve(keys, require_client_target=True) as running:
            with pytest.raises(ApError):  # the client says nothing
                client.connect(running.address, ticket)
            if good:
                assert_echoes(client, running.address, ticket, send_client_target=True)
                continue
            with pytest.raises(ApError) as caught:
                client.connect(running.address, ticket, send_client_target=True)
            assert caught.value.code == ErrorCode.KRB_AP_ERR_NOT_US


def test_k411_a_connection_names_the_service_that_was_asked_for() -> None:
    seen: list[Any] = []
    with Realm() as realm:
        alice, keytab = realm.add_user("alice", "pw"), realm.add_service("HTTP/web.example.test")
        with listen(("127.0.0.1", 0), keytab, require_client_target=True) as server:
            serving = threading.Thread(target=lambda: seen.append(next(iter(server))))
            serving.start()
            connect(server.address, "HTTP/web.example.test", alice, realm.config).close()
            serving.join()
        with seen[0] as channel:
            assert channel.context.client_target == f"HTTP/web.example.test@{realm.name}"


def test_what_the_server_says_first_arrives_with_its_proof(client: Side, server: Side) -> None:
    def service(channel: AnyChannel) -> None:
        for number in range(100):
            channel.send(b"%d" % number)

    with server.serve(KEYS, service) as running, client.connect(running.address, TICKET) as channel:
        assert [channel.recv() for _ in range(100)] == [b"%d" % number for number in range(100)]
        assert channel.recv() is None


def test_an_empty_message_is_not_sent(client: Side, server: Side) -> None:
    with server.serve(KEYS) as running, client.connect(running.address, TICKET) as channel:
        channel.send(b"")
        channel.send(b"next")
        assert channel.recv() == b"next"


def test_messages_split_anywhere_are_put_together(server: Side) -> None:
    with server.serve(KEYS) as running, RawClient(running.address, TICKET) as raw:
        token = raw.context.step()
        assert token
        for byte in encode_frame(token):
            raw.socket.sendall(bytes([byte]))
        raw.context.step(raw.recv_frame())
        for byte in encode_frame(raw.context.wrap(b"slow")):
            raw.socket.sendall(bytes([byte]))
        assert raw.context.unwrap(raw.recv_frame()) == b"slow"


def test_messages_that_come_together_are_taken_apart(server: Side) -> None:
    with server.serve(KEYS) as running, RawClient(running.address, TICKET).establish() as raw:
        raw.socket.sendall(b"".join(encode_frame(raw.context.wrap(b"%d" % number)) for number in range(50)))
        assert [raw.context.unwrap(raw.recv_frame()) for _ in range(50)] == [b"%d" % number for number in range(50)]


def test_one_thread_sends_while_another_receives(client: Side, server: Side) -> None:
    messages = [bytes([number]) * 50_000 for number in range(1, 100)]
    with server.serve(KEYS) as running, client.connect(running.address, TICKET) as channel:
        sending = threading.Thread(target=lambda: [channel.send(message) for message in messages])
        sending.start()
        assert [channel.recv() for _ in messages] == messages
        sending.join()


def test_messages_of_several_sending_threads_arrive_whole(client: Side, server: Side) -> None:
    with server.serve(KEYS) as running, client.connect(running.address, TICKET) as channel:
        threads = [
            threading.Thread(target=lambda name=name: [channel.send(name * 3000) for _ in range(20)])
            for name in (b"a", b"b", b"c")
        ]
        for thread in threads:
            thread.start()
        got = [channel.recv() for _ in range(60)]
        for thread in threads:
            thread.join()
    assert sorted(message[:1] for message in got if message) == [b"a"] * 20 + [b"b"] * 20 + [b"c"] * 20
    assert {len(set(message)) for message in got if message} == {1}


# -- the end of a channel


def test_close_is_told_to_the_peer_and_ends_the_use(client: Side, server: Side) -> None:
    ends: list[bytes | None] = []

    def service(channel: AnyChannel) -> None:
        ends.extend([channel.recv(), channel.recv(), channel.recv()])

    with server.serve(KEYS, service) as running:
        channel = client.connect(running.address, TICKET)
        channel.send(b"last")
        channel.close()
        channel.close()
        assert running.finished.acquire(timeout=PATIENCE)
        for use in (lambda: channel.send(b"x"), channel.recv):
            with pytest.raises(ContextError):
                use()
        with pytest.raises(ContextError):
            channel.context.wrap(b"the context is dead as well")
    assert ends == [b"last", None, None]
    assert running.errors == []


def test_nothing_can_be_sent_to_a_peer_that_has_closed(client: Side, server: Side) -> None:
    with server.serve(KEYS, lambda channel: None) as running, client.connect(running.address, TICKET) as channel:
        assert channel.recv() is None
        with pytest.raises(TransportError, match="has closed the channel"):
            channel.send(b"anyone there?")


def test_a_connection_that_is_cut_is_an_error_and_no_end(client: Side, server: Side) -> None:
    with server.serve(KEYS, lambda channel: channel.abort()) as running:
        channel = client.connect(running.address, TICKET)
        with pytest.raises(TransportError, match="cut: no close notice"):
            channel.recv()
        with pytest.raises(ContextError):
            channel.recv()
        channel.close()


def test_an_exception_in_the_with_block_cuts_the_connection(client: Side, server: Side) -> None:
    def service(channel: AnyChannel) -> None:
        channel.send(b"half of it")
        raise RuntimeError("power failure")

    with server.serve(KEYS, service) as running, client.connect(running.address, TICKET) as channel:
        assert channel.recv() == b"half of it"
        with pytest.raises(TransportError, match="cut"):
            channel.recv()


@pytest.mark.parametrize("missing", [1, 30])
def test_a_cut_within_a_frame_is_an_error(server: Side, missing: int) -> None:
    with server.serve(KEYS) as running:
        with RawClient(running.address, TICKET).establish() as raw:
            raw.socket.sendall(encode_frame(raw.context.wrap(b"transfer 100000"))[:-missing])
        error = running.error()
    assert isinstance(error, TransportError)
    assert "bytes of an unfinished frame" in str(error)


def test_a_forged_close_notice_is_refused(server: Side) -> None:
    with server.serve(KEYS) as running:
        with RawClient(running.address, TICKET).establish() as raw:
            notice = bytearray(raw.context.wrap(b""))
            notice[-1] ^= 1
            raw.send_frame(bytes(notice))
            assert raw.ended()
        assert isinstance(running.error(), IntegrityError)


def test_a_reset_connection_is_a_transport_error(server: Side) -> None:
    with server.serve(KEYS) as running:
        reset(RawClient(running.address, TICKET).establish().socket)
        assert isinstance(running.error(), TransportError)


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_a_peer_that_resets_the_connection_ends_a_send(client: Side) -> None:
    def vanish(connection: socket.socket) -> None:
        connection.sendall(encode_frame(Acceptor(KEYS).step(read_frame(connection)) or b""))
        connection.recv(1000)
        reset(connection)

    with raw_server(vanish) as (address, _), client.connect(address, TICKET) as channel:
        with pytest.raises(TransportError, match="the connection broke"):
            channel.send(bytes(16_000_000))
        with pytest.raises(ContextError):
            channel.send(b"more")


def test_an_expired_context_sends_nothing_more_not_even_a_close_notice() -> None:
    times = [datetime.now(timezone.utc)]
    stream = SealedStream(Initiator(TICKET, clock=lambda: times[-1]), max_frame=2048)
    acceptor = SealedStream(Acceptor(KEYS), max_frame=2048)
    stream.handshake(acceptor.handshake(stream.begin()))
    acceptor.feed(stream.seal(b"in time"))
    assert acceptor.next_message() == b"in time"
    times.append(TICKET.endtime + timedelta(seconds=1))
    with pytest.raises(ContextExpiredError):
        stream.seal(b"too late")
    stream.feed(acceptor.seal(b"the other clock is behind"))
    assert stream.next_message() == b"the other clock is behind"
    assert stream.seal_close() == b""


# -- frames and tokens that are refused; after each, the next client is served


HOSTILE_BEGINNINGS = {
    "empty-frame": b"\0\0\0\0",
    "length-beyond-the-token-limit": (48_001).to_bytes(4, "little"),
    "length-of-4-GiB": b"\xff\xff\xff\xff",
    "http-request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "junk-token": encode_frame(b"x" * 48_000),
    "one-byte-token": encode_frame(b"\x60"),
}


@pytest.mark.parametrize("beginning", HOSTILE_BEGINNINGS.values(), ids=HOSTILE_BEGINNINGS)
def test_a_hostile_beginning_ends_that_connection_only(server: Side, beginning: bytes) -> None:
    with server.serve(KEYS) as running:
        with RawClient(running.address) as raw:
            raw.socket.sendall(beginning)
            assert raw.ended()
        assert_echoes(server, running.address)


def test_a_negotiation_of_five_tokens_makes_a_channel(server: Side) -> None:
    with server.serve(KEYS) as running, RawClient(running.address) as raw:
        client = PreferringNtlm(TICKET)
        token = client.step(None)
        for _ in range(2):
            raw.send_frame(token or b"")
            token = client.step(raw.recv_frame())
        # The message follows the last token at once, before the server may have read it.
        raw.send_frame(token or b"")
        raw.send_frame(client.kerberos.wrap(b"hello"))
        assert client.kerberos.unwrap(raw.recv_frame()) == b"hello"
        raw.send_frame(client.kerberos.wrap(b""))
        assert raw.ended()


def test_a_negotiation_that_is_refused_is_rejected_before_the_end(server: Side) -> None:
    with server.serve(KEYS) as running:
        with RawClient(running.address) as raw:
            raw.socket.sendall(encode_frame(bytes.fromhex("600a06062b06010505020000")))
            assert NegTokenResp.decode(raw.recv_frame()) == NegTokenResp(NegState.REJECT)
            assert raw.ended()
        assert_echoes(server, running.address)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 100])
def test_a_client_that_leaves_during_the_handshake_disturbs_nobody(server: Side, size: int) -> None:
    with server.serve(KEYS) as running:
        with RawClient(running.address, TICKET) as raw:
            raw.socket.sendall(encode_frame(raw.context.step() or b"")[:size])
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.ended()
        assert_echoes(server, running.address)


def test_a_client_that_resets_the_connection_during_the_handshake_disturbs_nobody(server: Side) -> None:
    with server.serve(KEYS) as running:
        raw = RawClient(running.address)
        raw.socket.sendall(b"\x80\0\0\0")
        time.sleep(0.05)
        reset(raw.socket)
        assert_echoes(server, running.address)


def test_a_server_without_free_descriptors_waits_for_some(server: Side, caplog: pytest.LogCaptureFixture) -> None:
    with server.serve(KEYS) as running, socket.socket() as waiting:
        assert_echoes(server, running.address)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        hoard: list[int] = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + 10, limits[1]))
            with suppress(OSError):
                while True:
                    hoard.append(os.dup(0))
            waiting.connect(running.address)
            deadline = time.monotonic() + PATIENCE
            while "no connection can be accepted now" not in caplog.text:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in hoard:
                os.close(descriptor)
        assert_echoes(server, running.address)


def hostile_frames(context: Initiator) -> dict[str, tuple[list[bytes], type[KerberosError]]]:
    """Return what to send after the handshake, and the error that it is for the service."""
    first, second = context.wrap(b"first"), context.wrap(b"second")
    flipped = bytearray(first)
    flipped[-1] ^= 1
    return {
        "altered": ([bytes(flipped)], IntegrityError),
        "replayed": ([first, first], SequenceError),
        "gap": ([second], SequenceError),
        "signed-only": ([context.wrap(b"third", sealed=False)], PolicyError),
        "mic": ([context.get_mic(b"first")], DecodeError),
        "short": ([first[:16]], KerberosError),
        "no-token": ([b"plaintext"], DecodeError),
    }


@pytest.mark.parametrize("case", ["altered", "replayed", "gap", "signed-only", "mic", "short", "no-token"])
def test_a_refused_message_ends_the_connection(server: Side, case: str) -> None:
    with server.serve(KEYS) as running:
        with RawClient(running.address, TICKET).establish() as raw:
            frames, expected = hostile_frames(raw.context)[case]
            for frame in frames:
                raw.send_frame(frame)
            for _ in frames[1:]:
                assert raw.context.unwrap(raw.recv_frame()) == b"first"  # the genuine one was accepted
            assert raw.ended()
        assert isinstance(running.error(), expected)
        assert_echoes(server, running.address)


def test_a_message_reflected_to_its_sender_is_refused(client: Side) -> None:
    def reflect(connection: socket.socket) -> None:
        acceptor = Acceptor(KEYS)
        connection.sendall(encode_frame(acceptor.step(read_frame(connection)) or b""))
        connection.sendall(encode_frame(read_frame(connection)))

    with raw_server(reflect) as (address, _), client.connect(address, TICKET) as channel:
        channel.send(b"mine")
        with pytest.raises(ProtocolError):
            channel.recv()


@pytest.mark.parametrize("length", [0, 2048 + 1, 2**32 - 1])
def test_a_frame_beyond_the_limits_is_refused_after_the_handshake(server: Side, length: int) -> None:
    with server.serve(KEYS, max_frame=2048) as running:
        with RawClient(running.address, TICKET).establish() as raw:
            raw.send_frame(raw.context.wrap(bytes(raw.context.wrap_size_limit(2048))))
            assert len(raw.recv_frame()) == 2048  # the longest that is accepted
            raw.socket.sendall(length.to_bytes(4, "little"))
            assert raw.ended()
        assert isinstance(running.error(), DecodeError)
        assert_echoes(server, running.address, max_frame=2048)


def test_a_message_too_long_for_a_frame_is_not_sent_and_the_channel_goes_on(client: Side, server: Side) -> None:
    with (
        server.serve(KEYS, max_frame=2048) as running,
        client.connect(running.address, TICKET, max_frame=2048) as channel,
    ):
        longest = channel.context.wrap_size_limit(2048)
        with pytest.raises(ValueError, match=f"send at most {longest} at once"):
            channel.send(bytes(longest + 1))
        channel.send(bytes(longest))
        assert channel.recv() == bytes(longest)


# -- authentication that fails


def test_a_service_with_another_key_tells_why_and_stays_up(client: Side, server: Side) -> None:
    _, other_keys = issue()
    with server.serve(other_keys) as running:
        with pytest.raises(ApError) as refused:
            client.connect(running.address, TICKET)
        assert refused.value.code in (ErrorCode.KRB_AP_ERR_MODIFIED, ErrorCode.KRB_AP_ERR_BAD_INTEGRITY)
        right, _ = issue(key=other_keys[0].key)
        assert_echoes(client, running.address, right)


def test_a_replayed_handshake_is_refused_and_the_peer_hears_the_code(server: Side) -> None:
    with server.serve(KEYS) as running:
        with RawClient(running.address, TICKET) as raw:
            token = raw.context.step() or b""
            raw.send_frame(token)
            raw.context.step(raw.recv_frame())
            assert raw.context.established
        with RawClient(running.address, TICKET) as thief:
            thief.send_frame(token)
            waiting = Initiator(TICKET)
            waiting.step()
            with pytest.raises(ApError) as refused:
                waiting.step(thief.recv_frame())
            assert refused.value.code == ErrorCode.KRB_AP_ERR_REPEAT
            assert thief.ended()
        assert_echoes(server, running.address)


def test_a_service_that_replays_the_proof_of_another_session_is_no_peer(client: Side) -> None:
    session, acceptor = Initiator(TICKET), Acceptor(KEYS)
    recorded = acceptor.step(session.step()) or b""
    session.step(recorded)
    assert session.mutual

    def impostor(connection: socket.socket) -> bytes:
        read_frame(connection)
        connection.sendall(encode_frame(recorded))
        return connection.recv(100)

    with raw_server(impostor) as (address, heard):
        with pytest.raises(MutualAuthenticationError):
            client.connect(address, TICKET)
        assert heard.result(PATIENCE) == b""  # nothing was said to it


ANSWERS = {
    "nothing": (b"", TransportError),
    "empty-frame": (b"\0\0\0\0", DecodeError),
    "oversize-token": ((48_001).to_bytes(4, "little"), DecodeError),
    "http": (b"HTTP/1.1 400 Bad Request\r\n\r\n", DecodeError),
    "junk": (encode_frame(b"junk"), KerberosError),
    "cut-frame": (encode_frame(bytes(100))[:50], TransportError),
}


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_a_server_without_a_proof_is_refused(client: Side, answer: bytes, expected: type[KerberosError]) -> None:
    def impostor(connection: socket.socket) -> None:
        read_frame(connection)
        connection.sendall(answer)

    with raw_server(impostor) as (address, _), pytest.raises(expected):
        client.connect(address, TICKET)


def test_a_wrong_answer_leaves_a_dead_context() -> None:
    initiator = Initiator(TICKET)
    stream = SealedStream(initiator, max_frame=2048)
    stream.begin()
    with pytest.raises(KerberosError):
        stream.handshake(encode_frame(b"junk"))
    for use in (stream.next_message, lambda: stream.seal(b"x"), lambda: stream.handshake(b"x"), initiator.step):
        with pytest.raises(ContextError):
            use()


@pytest.mark.parametrize("lacking", [Flag.MUTUAL, Flag.CONF, Flag.INTEG, Flag.SEQUENCE])
def test_a_server_refuses_a_context_without_a_flag_that_channels_need(server: Side, lacking: Flag) -> None:
    with server.serve(KEYS) as running:
        flags = Flag(0) if lacking is Flag.INTEG else Flag.DEFAULT & ~lacking  # the others imply INTEG
        with RawClient(running.address, TICKET, flags=flags) as raw:
            raw.send_frame(raw.context.step() or b"")
            assert raw.recv_frame()[-1:] != b""  # a KRB-ERROR
            assert raw.ended()
        assert_echoes(server, running.address)


def test_a_client_refuses_a_context_without_the_flags_that_channels_need(client: Side) -> None:
    def lax(connection: socket.socket) -> bytes:
        connection.sendall(encode_frame(Acceptor(KEYS).step(read_frame(connection)) or b""))
        return connection.recv(100)

    with raw_server(lax) as (address, heard):
        with pytest.raises(PolicyError, match="CONF"):
            client.connect(address, TICKET, flags=Flag.MUTUAL)
        assert heard.result(PATIENCE) == b""
    with pytest.raises(ValueError, match="CONF"):
        check_flags(Flag.MUTUAL)
    check_flags(CHANNEL_FLAGS)


def test_channel_bindings_must_be_equal(client: Side, server: Side) -> None:
    ours, theirs = ChannelBindings(application_data=b"our tls"), ChannelBindings(application_data=b"their tls")
    with server.serve(KEYS, channel_bindings=ours, require_channel_bindings=True) as running:
        for wrong in (theirs, None):
            with pytest.raises(ApError):
                client.connect(running.address, TICKET, channel_bindings=wrong)
        assert_echoes(client, running.address, channel_bindings=ours)


class _Endless(Initiator):
    """A mechanism that never comes to an end."""

    def _begin(self, _in_token: bytes | None) -> Iterator[bytes]:  # type: ignore[override]
        while True:
            yield b"once more"


def test_a_handshake_has_at_most_ten_rounds() -> None:
    stream = SealedStream(_Endless(TICKET), max_frame=2048)
    assert stream.begin() == encode_frame(b"once more")
    for _ in range(MAX_ROUNDS - 1):
        assert stream.handshake(encode_frame(b"and again")) == encode_frame(b"once more")
    with pytest.raises(ProtocolError, match="does not end"):
        stream.handshake(encode_frame(b"and again"))
    assert MAX_ROUNDS == 10


# -- peers that are slow


def trickle(raw: RawClient, data: bytes) -> None:
    """Send a byte every 20 ms until the peer hangs up."""
    for byte in data:
        try:
            raw.socket.sendall(bytes([byte]))
        except OSError:
            return
        time.sleep(0.02)


@pytest.mark.parametrize("manner", ["silent", "trickling"])
def test_a_slow_client_loses_its_place_and_delays_nobody(server: Side, manner: str) -> None:
    with server.serve(KEYS, handshake_timeout=1.0) as running, RawClient(running.address, TICKET) as slow:
        began = time.monotonic()
        token = encode_frame(slow.context.step() or b"")
        sending = threading.Thread(target=trickle, args=(slow, token if manner == "trickling" else b""))
        sending.start()
        assert_echoes(server, running.address)
        assert time.monotonic() - began < 1  # while the slow one still had its place
        assert slow.ended()
        assert 0.9 < time.monotonic() - began < 5
        sending.join()
        assert_echoes(server, running.address)


def test_a_slow_server_is_given_up_at_the_deadline(client: Side) -> None:
    def slow(connection: socket.socket) -> None:
        for byte in b"\x80\0\0\0" + bytes(128):
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    with raw_server(slow) as (address, _):
        began = time.monotonic()
        with pytest.raises(TransportTimeoutError):
            client.connect(address, TICKET, timeout=0.3)
        assert 0.25 < time.monotonic() - began < 2


def test_k287_idle_connections_beyond_the_limit_make_room_for_the_honest_client(server: Side) -> None:
    with server.serve(KEYS, max_handshakes=2, handshake_timeout=5.0) as running:
        began = time.monotonic()
        idle = [RawClient(running.address) for _ in range(6)]
        assert_echoes(server, running.address)
        assert time.monotonic() - began < 2  # the two oldest went after a tenth of a second each, and so on
        for raw in idle:
            assert raw.ended()
            raw.socket.close()


# -- crowds


def silent_from(host: str, address: tuple[str, int]) -> socket.socket:
    """Return a connection from that address of this machine, over which nothing is said."""
    return socket.create_connection(address, timeout=PATIENCE, source_address=(host, 0))


@contextmanager
def flood(address: tuple[str, int], a_second: float, host: str) -> Iterator[list[socket.socket]]:
    """Make silent connections from `host` all the time."""
    idle: list[socket.socket] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(1 / a_second):
            idle.append(silent_from(host, address))

    flooding = threading.Thread(target=run)
    flooding.start()
    try:
        yield idle
    finally:
        stop.set()
        flooding.join(PATIENCE)
        for sock in idle:
            sock.close()


def is_cut(sock: socket.socket) -> bool:
    """Tell whether the server has closed the connection by now."""
    if not select.select([sock], [], [], 0)[0]:
        return False
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("from_the_same_address", [False, True], ids=["elsewhere", "same address"])
def test_k408_honest_clients_get_in_during_a_flood_of_silent_connections(
    server: Side, from_the_same_address: bool
) -> None:
    with server.serve(KEYS, max_handshakes=64, max_per_source=8) as running:
        assert_echoes(server, running.address)  # the control: without a flood
        with flood(running.address, 150, "127.0.0.1" if from_the_same_address else "127.0.0.2") as idle:
            while len(idle) < 80:  # more than there are places
                time.sleep(0.01)
            for _ in range(soak(10, 500)):
                began = time.monotonic()
                assert_echoes(server, running.address)
                assert time.monotonic() - began < 1.5  # a round trip, on a machine that is busy
                time.sleep(0.02)
            assert sum(map(is_cut, list(idle)[:40])) > 8


def test_k408_in_a_crowd_a_silent_client_has_a_second_and_otherwise_the_whole_timeout(
    server: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "purekrb.channel")
    with server.serve(KEYS, max_handshakes=8) as running:
        few = [RawClient(running.address, TICKET) for _ in range(3)]
        time.sleep(1.3)
        assert not any(is_cut(raw.socket) for raw in few)
        many = [RawClient(running.address, TICKET) for _ in range(3)]  # now it is a crowd
        began = time.monotonic()
        assert [raw.ended() for raw in few] == [True] * 3
        assert time.monotonic() - began < 0.9  # their second was over
        assert not any(is_cut(raw.socket) for raw in many)
        for raw in many:
            raw.establish()
        for raw in (*few, *many):
            raw.socket.close()
    assert "it was silent, and its place for a handshake was needed" in caplog.text


def test_k408_a_part_of_a_frame_is_no_frame(server: Side) -> None:
    with server.serve(KEYS, max_handshakes=2, handshake_timeout=PATIENCE) as running:
        with RawClient(running.address, TICKET) as slow:
            began = time.monotonic()
            trickling = threading.Thread(target=trickle, args=(slow, encode_frame(slow.context.step() or b"")))
            trickling.start()
            assert slow.ended()
            assert 0.9 < time.monotonic() - began < 5
            trickling.join()
        assert_echoes(server, running.address)


def test_k408_many_honest_clients_of_one_address_get_in_at_once_where_the_share_lets_them(server: Side) -> None:
    with server.serve(KEYS, max_handshakes=40, max_per_source=40) as running:
        clients = [RawClient(running.address, TICKET) for _ in range(39)]
        for raw in clients:
            raw.establish()
        for raw in clients:
            raw.socket.close()
    with server.serve(KEYS, max_handshakes=40, max_per_source=4) as running:
        clients = [RawClient(running.address, TICKET) for _ in range(20)]
        time.sleep(0.3)
        clients.append(RawClient(running.address, TICKET))
        clients[-1].establish()
        assert clients[0].ended()  # the oldest of its address
        for raw in clients:
            raw.socket.close()


def test_k408_what_the_server_could_not_hear_in_time_is_not_silence() -> None:
    """Tokens that arrived while the event loop, or the loop over the clients, did something else."""
    with listen(LOCALHOST, KEYS, max_handshakes=4) as server:
        thread = threading.Thread(target=lambda: [channel.close() for channel in server])
        clients = [RawClient(server.address, TICKET) for _ in range(4)]
        for raw in clients[:3]:
            raw.send_frame(raw.context.step() or b"")
        time.sleep(1.2)  # nobody calls next() meanwhile
        thread.start()
        for raw in clients[:3]:
            raw.context.step(raw.recv_frame())
            assert raw.context.established
        server.close()
        thread.join(PATIENCE)
        for raw in clients:
            raw.socket.close()

    async def main() -> None:
        async def handler(_: AioChannel) -> None:
            pass

        async with await aio.start_server(handler, LOCALHOST, KEYS, max_handshakes=4) as server:
            clients = [RawClient(server.address, TICKET) for _ in range(4)]
            await asyncio.sleep(0.1)
            for raw in clients[:3]:
                raw.send_frame(raw.context.step() or b"")
            time.sleep(1.2)  # the loop stands still
            await asyncio.sleep(0.2)
            for raw in clients[:3]:
                raw.context.step(raw.recv_frame())
                assert raw.context.established
            for raw in clients:
                raw.socket.close()

    asyncio.run(main())


@pytest.mark.parametrize("option", ["max_handshakes", "max_per_source"])
def test_limits_below_one_are_misuse(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        listen(LOCALHOST, KEYS, **{option: 0})  # type: ignore[arg-type]


# -- addresses

HERE, THERE = HostAddress(AddressType.IPV4, b"\x7f\0\0\1"), HostAddress(AddressType.IPV4, b"\x0a\0\0\1")
COMPUTER = HostAddress(AddressType.NETBIOS, b"WORKSTATION    ")


@pytest.mark.parametrize(
    ("bound_to", "taken"),
    [
        pytest.param((THERE,), False, id="K425-another-address"),
        pytest.param((THERE, COMPUTER), False, id="K425-another-address-and-a-name"),
        pytest.param((HostAddress(AddressType.IPV6, bytes(15) + b"\1"),), False, id="K425-IPv6"),
        pytest.param((THERE, HERE), True, id="K425-control-this-address"),
        pytest.param((COMPUTER,), True, id="K425-control-nothing-to-compare-with"),
        pytest.param(None, True, id="K425-control-no-address"),
    ],
)
def test_a_ticket_bound_to_addresses_is_taken_from_there_alone(
    server: Side, bound_to: tuple[HostAddress, ...] | None, taken: bool
) -> None:
    ticket, keys = issue(caddr=bound_to)
    with server.serve(keys) as running:
        if taken:
            assert_echoes(server, running.address, ticket)
        else:
            with pytest.raises(ApError) as refused:
                server.connect(running.address, ticket)
            assert refused.value.code == ErrorCode.KRB_AP_ERR_BADADDR
    with server.serve(keys, check_addresses=False) as running:  # as where addresses are translated
        assert_echoes(server, running.address, ticket)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="one family of addresses alone")
def test_k425_an_ipv4_address_of_a_listener_for_both_families_is_an_ipv4_address() -> None:
    ticket, keys = issue(caddr=(HERE,))
    other, _ = issue(caddr=(THERE,), key=keys[0].key)
    with listen((None, 0), keys) as server:
        thread = threading.Thread(target=lambda: [channel.close() for channel in server])
        thread.start()
        try:
            with connect_blocking(("127.0.0.1", server.address[1]), ticket) as channel:
                assert channel.recv() is None
            with pytest.raises(ApError):
                connect_blocking(("127.0.0.1", server.address[1]), other)
            with pytest.raises(ApError):  # ::1 is another address, and stands in no ticket
                connect_blocking(("::1", server.address[1]), ticket)
        finally:
            server.close()
            thread.join(PATIENCE)


@pytest.mark.parametrize(
    ("family", "peer", "expected", "source"),
    [
        (socket.AF_INET, ("10.0.0.1", 5), THERE, THERE.address),
        (socket.AF_INET6, ("::ffff:10.0.0.1", 5, 0, 0), THERE, THERE.address),
        (
            socket.AF_INET6,
            ("2001:db8:1:2:3:4:5:6", 5, 0, 0),
            HostAddress(AddressType.IPV6, bytes.fromhex("20010db8000100020003000400050006")),
            bytes.fromhex("20010db800010002"),
        ),
        (
            socket.AF_INET6,
            ("fe80::1%eth0", 5, 0, 2),
            HostAddress(AddressType.IPV6, b"\xfe\x80" + bytes(13) + b"\1"),
            b"\xfe\x80" + bytes(6),
        ),
        (socket.AF_INET, (), HostAddress(0, b""), b""),
    ],
)
def test_k425_addresses_are_those_of_tickets_and_sources_are_networks_of_one_host(
    family: int, peer: tuple[Any, ...], expected: HostAddress, source: bytes
) -> None:
    with socket.socket(family) as sock:
        address = peer_address(sock, peer)
    assert (address, source_of(address)) == (expected, source)


# -- what takes long


class SlowCache(MemoryReplayCache):
    """As if its disk were slow: each entry waits for `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()

    def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
        self.entered.set()
        assert self.go_on.wait(PATIENCE)
        super().remember(tag, ctime, now)


class SlowFile:
    """The same as a cache that is not in memory."""

    def __init__(self) -> None:
        self.memory = SlowCache()

    def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
        self.memory.remember(tag, ctime, now)


def test_k420_the_event_loop_goes_on_while_a_replay_cache_waits_for_its_disk() -> None:
    cache = SlowFile()

    async def main() -> None:
        async def handler(channel: AioChannel) -> None:
            await channel.send(b"in")

        async with await aio.start_server(handler, LOCALHOST, KEYS, replay_cache=cache, max_handshakes=1) as server:
            first = asyncio.ensure_future(connect_asyncio(server.address, TICKET))
            while not cache.memory.entered.is_set():
                await asyncio.sleep(0.001)  # the loop runs, or this would never be seen
            second = asyncio.ensure_future(connect_asyncio(server.address, TICKET))  # waits: nobody loses a place
            await asyncio.sleep(0.3)
            assert (first.done(), second.done()) == (False, False)
            cache.memory.go_on.set()
            for client in (first, second):
                async with await client as channel:
                    assert await channel.recv() == b"in"

    asyncio.run(main())


def test_k420_a_server_that_closes_waits_for_a_verification_that_has_begun() -> None:
    cache = SlowFile()

    async def main() -> None:
        async def handler(_: AioChannel) -> None:
            pytest.fail("the server was closed")

        server = await aio.start_server(handler, LOCALHOST, KEYS, replay_cache=cache)
        with RawClient(server.address, TICKET) as raw, RawClient(server.address, TICKET) as queued:
            for client in (raw, queued):
                client.send_frame(client.context.step() or b"")
            while not cache.memory.entered.is_set():
                await asyncio.sleep(0.001)
            threading.Timer(0.2, cache.memory.go_on.set).start()
            await server.close()
            assert cache.memory.go_on.is_set()
            assert len(cache.memory) == 1  # the other one was never begun
            assert (raw.ended(), queued.ended()) == (True, True)

    asyncio.run(main())


def test_k420_a_replay_cache_in_a_file_serves_both_kinds(server: Side, tmp_path: Path) -> None:
    cache = SqliteReplayCache(tmp_path / "replay.sqlite")
    with server.serve(KEYS, replay_cache=cache) as running:
        with RawClient(running.address, TICKET) as raw:
            token = raw.context.step() or b""
            raw.send_frame(token)
            raw.context.step(raw.recv_frame())
        with RawClient(running.address) as again:
            again.send_frame(token)
            assert again.recv_frame()[-1:] != b""  # a KRB-ERROR
            assert again.ended()
        assert_echoes(server, running.address)
        assert len(cache) == 2
    cache.close()


# -- reaching a server


def test_a_refused_connection_says_where(client: Side) -> None:
    with socket.create_server(LOCALHOST) as closed:
        address = closed.getsockname()
    with pytest.raises(TransportError, match=f"127.0.0.1 port {address[1]}"):
        client.connect(address, TICKET)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "label" * 20 + ".test", "a..b"])
def test_a_host_that_does_not_resolve_is_a_transport_error(client: Side, host: str) -> None:
    with pytest.raises(TransportError):
        client.connect((host, 1), TICKET)


def test_a_host_name_is_resolved_and_each_address_tried(client: Side, server: Side) -> None:
    with server.serve(KEYS) as running:
        assert_echoes(client, ("localhost", running.address[1]))


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_misuse(client: Side, port: int) -> None:
    with pytest.raises(ValueError, match="no TCP port"):
        client.connect(("127.0.0.1", port), TICKET)


def test_a_server_that_cannot_listen_says_where() -> None:
    with socket.create_server(LOCALHOST) as taken, pytest.raises(TransportError, match="cannot be listened on"):
        listen(taken.getsockname(), KEYS)
    with pytest.raises(TransportError, match="cannot be listened on"):
        listen(("no-such-host.invalid", 0), KEYS)


def test_options_that_no_acceptor_takes_fail_when_the_server_starts() -> None:
    with pytest.raises(UnsupportedError):
        listen(LOCALHOST, KEYS, mechanism="ntlm")
    with pytest.raises(TypeError):
        listen(LOCALHOST, KEYS, no_such_option=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="max_frame"):
        listen(LOCALHOST, KEYS, max_frame=1)


@pytest.mark.parametrize("host", [None, ""])
def test_a_server_listens_on_all_addresses(server: Side, host: str | None) -> None:
    with listen((host, 0), KEYS) as blocking_server:
        thread = threading.Thread(target=lambda: [channel.close() for channel in blocking_server])
        thread.start()
        with connect_blocking(("127.0.0.1", blocking_server.address[1]), TICKET) as channel:
            assert channel.recv() is None
        blocking_server.close()
        thread.join()


# -- the blocking kind


def test_recv_that_times_out_loses_nothing() -> None:
    side = Side("blocking")
    go_on = threading.Event()

    def service(channel: AnyChannel) -> None:
        go_on.wait(PATIENCE)
        channel.send(bytes(200_000))

    with side.serve(KEYS, service) as running, connect_blocking(running.address, TICKET) as channel:
        with pytest.raises(TransportTimeoutError):
            channel.recv(timeout=0.05)
        with pytest.raises(TransportTimeoutError):
            channel.recv(timeout=0)
        go_on.set()
        assert channel.recv(timeout=PATIENCE) == bytes(200_000)


def test_send_to_a_peer_that_does_not_read_times_out_and_ends_the_channel() -> None:
    done = threading.Event()
    with Side("blocking").serve(KEYS, lambda channel: done.wait(PATIENCE) and None) as running:
        with connect_blocking(running.address, TICKET) as channel:
            with pytest.raises(TransportTimeoutError):
                channel.send(bytes(16_000_000), timeout=0.2)
            with pytest.raises(ContextError):
                channel.send(b"more")
        done.set()


def test_close_from_another_thread_wakes_a_waiting_recv() -> None:
    with Side("blocking").serve(KEYS) as running:
        channel = connect_blocking(running.address, TICKET)
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                channel.recv()
            except KerberosError as error:
                errors.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.1)
        channel.close()
        waiting.join(PATIENCE)
        assert isinstance(errors[0], ContextError)


def test_several_threads_may_iterate_over_one_server() -> None:
    with listen(LOCALHOST, KEYS) as server:

        def worker() -> None:
            for channel in server:
                with channel:
                    echo(channel)

        workers = [threading.Thread(target=worker) for _ in range(4)]
        for thread in workers:
            thread.start()
        channels = [connect_blocking(server.address, TICKET) for _ in range(4)]  # all served at the same time
        for number, channel in enumerate(channels):
            channel.send(b"%d" % number)
        assert [channel.recv() for channel in channels] == [b"0", b"1", b"2", b"3"]
        for channel in channels:
            channel.close()
        server.close()
        for thread in workers:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_a_closed_server_ends_the_iteration_and_the_handshakes() -> None:
    server = listen(LOCALHOST, KEYS)
    raw = RawClient(server.address)
    closing = threading.Timer(0.2, server.close)
    closing.start()
    assert list(server) == []
    assert raw.ended()
    raw.socket.close()
    closing.join()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address)


def test_a_signal_handler_may_close_the_server_it_interrupts() -> None:
    server = listen(LOCALHOST, KEYS)
    before = signal.signal(signal.SIGALRM, lambda *_: server.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert list(server) == []
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_may_close_the_channel_it_interrupts() -> None:
    with Side("blocking").serve(KEYS) as running, connect_blocking(running.address, TICKET) as channel:
        before = signal.signal(signal.SIGALRM, lambda *_: channel.close())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(ContextError):
                channel.recv()
        finally:
            signal.signal(signal.SIGALRM, before)


def test_a_refusal_is_logged_for_the_service_and_holds_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    ticket, keys = issue()
    _, other_keys = issue()
    caplog.set_level(logging.DEBUG, "purekrb.channel")
    with Side("blocking").serve(other_keys) as running, pytest.raises(ApError):
        connect_blocking(running.address, ticket)
    assert "was refused" in caplog.text
    secrets = (keys[0].key.contents, other_keys[0].key.contents, ticket.session_key.contents)
    assert not any(secret.hex() in caplog.text for secret in secrets)


# -- the asyncio kind


class _Odd(BaseException):
    """Not even an Exception."""


RAISED = [
    RuntimeError,
    OSError,
    StopIteration,
    StopAsyncIteration,
    SystemExit,
    GeneratorExit,
    asyncio.CancelledError,
    _Odd,
]


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: f"K288-{kind.__name__}")
def test_the_server_survives_whatever_a_handler_raises(kind: type[BaseException]) -> None:
    reported: list[Any] = []

    async def handler(channel: AioChannel) -> None:
        message = await channel.recv()
        if message == b"fail":
            raise kind("in the handler")
        await channel.send(message or b"")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with await aio.start_server(handler, LOCALHOST, KEYS) as server:
            async with await connect_asyncio(server.address, TICKET) as channel:
                await channel.send(b"fail")
                with pytest.raises(TransportError, match="cut"):
                    await channel.recv()
            async with await connect_asyncio(server.address, TICKET) as channel:
                await channel.send(b"good")
                assert await channel.recv() == b"good"

    asyncio.run(main())
    if kind is asyncio.CancelledError:  # the handler's task ended itself: nothing to report
        assert reported == []
    else:
        assert "the handler failed" in reported[0]["message"]
        assert isinstance(reported[0]["exception"], (kind, RuntimeError))  # StopIteration becomes a RuntimeError


def test_a_kerberos_error_in_a_handler_is_an_everyday_matter() -> None:
    reported: list[Any] = []

    async def handler(channel: AioChannel) -> None:
        await channel.recv()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        async with await aio.start_server(handler, LOCALHOST, KEYS) as server:
            (await connect_asyncio(server.address, TICKET)).abort()
            async with await connect_asyncio(server.address, TICKET) as channel:
                await channel.send(b"x")
                assert await channel.recv() is None

    asyncio.run(main())
    assert reported == []


def test_recv_that_was_cancelled_loses_nothing() -> None:
    async def handler(channel: AioChannel) -> None:
        await channel.recv()

    async def main() -> None:
        received: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def impatient(channel: AioChannel) -> None:
            while True:
                try:
                    message = await asyncio.wait_for(channel.recv(), 0.005)
                except asyncio.TimeoutError:
                    continue
                await received.put(message)
                if message is None:
                    return

        async with await aio.start_server(impatient, LOCALHOST, KEYS) as server:
            raw = await asyncio.to_thread(lambda: RawClient(server.address, TICKET).establish())
            with raw:
                frame = b"".join(encode_frame(raw.context.wrap(message)) for message in (b"one", b"two" * 100, b""))
                for start in range(0, len(frame), 40):
                    raw.socket.sendall(frame[start : start + 40])
                    await asyncio.sleep(0.012)
                assert [await received.get() for _ in range(3)] == [b"one", b"two" * 100, None]

    asyncio.run(main())


def test_a_cancelled_send_leaves_whole_messages() -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        received: list[bytes | None] = []

        async def lazy(channel: AioChannel) -> None:
            await go_on.wait()
            while (message := await channel.recv()) is not None:
                received.append(message)

        async with await aio.start_server(lazy, LOCALHOST, KEYS) as server:
            async with await connect_asyncio(server.address, TICKET) as channel:
                for _ in range(2):  # the second one waits for the first one's turn, or for room
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(channel.send(bytes(15_000_000)), 0.3)
                go_on.set()
                await channel.send(b"end")
            while received[-1:] != [b"end"]:
                await asyncio.sleep(0.01)
        assert set(received) == {bytes(15_000_000), b"end"}

    asyncio.run(main())


async def _until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds, which the other end may still be busy with."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def _cancel_after(steps: int, work: Any) -> bool:
    """Cancel `work` after so many turns of the loop; whether it had to be."""
    task = asyncio.ensure_future(work)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    try:
        (await task).abort()
    except asyncio.CancelledError:
        return True
    return False


def test_k284_a_connect_cancelled_at_any_await_leaves_nothing_behind() -> None:
    async def main() -> None:
        async def handler(channel: AioChannel) -> None:
            await channel.recv()

        async with await aio.start_server(handler, LOCALHOST, KEYS) as server:
            await _cancel_after(100_000, connect_asyncio(server.address, TICKET))  # warms up
            await asyncio.sleep(0.05)
            tasks, descriptors = len(asyncio.all_tasks()), open_descriptors()
            steps = 0
            while await _cancel_after(steps, connect_asyncio(server.address, TICKET)):
                steps += 1 + steps // 10
            assert steps > 5
            await _until(lambda: len(asyncio.all_tasks()) == tasks and open_descriptors() == descriptors)
            async with await connect_asyncio(server.address, TICKET) as channel:
                assert channel.context.established

    asyncio.run(main())


def test_k284_a_server_closed_at_any_moment_leaves_nothing_behind() -> None:
    async def handler(channel: AioChannel) -> None:
        await channel.recv()

    async def main() -> None:
        descriptors, tasks = open_descriptors(), len(asyncio.all_tasks())
        for steps in range(40):
            server = await aio.start_server(handler, LOCALHOST, KEYS)
            connecting = asyncio.ensure_future(connect_asyncio(server.address, TICKET))
            for _ in range(steps):
                await asyncio.sleep(0)
            await server.close()
            await server.close()
            assert server.sockets == ()
            with suppress(TransportError):
                (await connecting).abort()
        await _until(lambda: len(asyncio.all_tasks()) == tasks and open_descriptors() == descriptors)

    asyncio.run(main())


def test_serve_forever_ends_with_close_and_closes_when_cancelled() -> None:
    async def handler(channel: AioChannel) -> None:
        await channel.recv()

    async def main() -> None:
        for end in ("close", "cancel"):
            server = await aio.start_server(handler, LOCALHOST, KEYS)
            assert server.sockets[0].getsockname() == server.address
            serving = asyncio.ensure_future(server.serve_forever())
            channel = await connect_asyncio(server.address, TICKET)
            if end == "close":
                await server.close()
                await serving
            else:
                serving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await serving
            assert server.sockets == ()
            with pytest.raises(TransportError):
                await channel.recv()

    asyncio.run(main())


def test_a_handler_may_close_its_server() -> None:
    async def main() -> None:
        async def handler(channel: AioChannel) -> None:
            await server.close()
            await channel.send(b"closed")

        server = await aio.start_server(handler, LOCALHOST, KEYS)
        async with await connect_asyncio(server.address, TICKET) as channel:
            assert await channel.recv() == b"closed"
            assert await channel.recv() is None
        await server.serve_forever()

    asyncio.run(main())


def test_closing_does_not_wait_for_ever_for_a_peer_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purekrb.channel.aio.CLOSE_TIMEOUT", 0.2)

    async def main() -> None:
        async def deaf(channel: AioChannel) -> None:
            await asyncio.sleep(PATIENCE)

        async with await aio.start_server(deaf, LOCALHOST, KEYS) as server:
            channel = await connect_asyncio(server.address, TICKET)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(channel.send(bytes(16_000_000)), 0.2)
            began = time.monotonic()
            await channel.close()
            assert time.monotonic() - began < 2
            channel = await connect_asyncio(server.address, TICKET)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(channel.send(bytes(16_000_000)), 0.2)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(channel.close(), 0.05)

    asyncio.run(main())


# -- with a KDC: what a user types


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as running:
        running.add_user("alice", "pw")
        running.add_service(TARGET)
        yield running


@pytest.fixture
def alice() -> Credential:
    return Credential.from_password("alice@EXAMPLE.TEST", "pw")


TARGET = "ADSockAuth/web.example.test"


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
def test_connect_gets_its_tickets_and_talks_to_listen(realm: Realm, alice: Credential, mechanism: str) -> None:
    with (
        Side("blocking").serve(realm.keytab(TARGET)) as running,
        connect(running.address, TARGET, alice, realm.config, mechanism=mechanism) as channel,
    ):
        channel.send(b"hello")
        assert channel.recv() == b"hello"
        assert str(channel.context.initiator) == "alice@EXAMPLE.TEST"
        assert str(channel.context.acceptor) == f"{TARGET}@EXAMPLE.TEST"


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
def test_aio_connect_gets_its_tickets_and_talks_to_start_server(
    realm: Realm, alice: Credential, mechanism: str
) -> None:
    async def handler(channel: AioChannel) -> None:
        while (message := await channel.recv()) is not None:
            await channel.send(message.upper())

    async def main() -> None:
        async with (
            await aio.start_server(handler, LOCALHOST, realm.keytab(TARGET)) as server,
            await aio.connect(server.address, TARGET, alice, realm.config, mechanism=mechanism) as channel,
        ):
            await channel.send(b"hello")
            assert await channel.recv() == b"HELLO"
            assert str(channel.context.initiator) == "alice@EXAMPLE.TEST"

    asyncio.run(main())


def test_flags_that_a_channel_cannot_do_without_are_checked_before_anyone_is_asked(alice: Credential) -> None:
    nowhere = Config(realms={"EXAMPLE.TEST": ["tcp://127.0.0.1:1"]})
    with pytest.raises(TransportError):  # the control: it does ask
        connect(("127.0.0.1", 1), TARGET, alice, nowhere)
    with pytest.raises(ValueError, match="MUTUAL"):
        connect(("127.0.0.1", 1), TARGET, alice, nowhere, flags=Flag.DEFAULT & ~Flag.MUTUAL)
    with pytest.raises(ValueError, match="max_frame"):
        connect(("127.0.0.1", 1), TARGET, alice, nowhere, max_frame=0)


def test_k284_aio_connect_cancelled_at_any_await_leaves_nothing_behind(realm: Realm) -> None:
    async def handler(channel: AioChannel) -> None:
        await channel.recv()

    async def main() -> None:
        async with await aio.start_server(handler, LOCALHOST, realm.keytab(TARGET)) as server:

            def connecting() -> Any:
                alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")  # with an empty cache: AS, TGS and AP
                return aio.connect(server.address, TARGET, alice, realm.config)

            await _cancel_after(0, connecting())
            await asyncio.sleep(0.05)
            tasks, descriptors = len(asyncio.all_tasks()), open_descriptors()
            steps = 0
            while await _cancel_after(steps, connecting()):
                steps += 1 + steps // 10
            assert steps > 10
            await _until(lambda: len(asyncio.all_tasks()) == tasks and open_descriptors() == descriptors)
            async with await connecting() as channel:
                assert channel.context.established

    asyncio.run(main())


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for a thousand connections, both ends of them in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_k286_a_thousand_connections_at_once_and_no_identity_is_mixed_up(realm: Realm) -> None:
    users = [realm.add_user(f"user{number}", f"pw{number}") for number in range(50)]
    client = KdcClient(realm.config)
    for user in users:
        client.get_ticket(user, TARGET)
    connections = 1000

    async def handler(channel: AioChannel) -> None:
        while (message := await channel.recv()) is not None:
            await channel.send(b"%s is %s" % (message, str(channel.context.initiator).encode()))

    async def main() -> None:
        descriptors = open_descriptors()
        async with await aio.start_server(handler, LOCALHOST, realm.keytab(TARGET)) as server:
            all_open = asyncio.Event()
            opened = 0

            async def one(number: int) -> bytes | None:
                nonlocal opened
                user = users[number % 50]
                async with await aio.connect(server.address, TARGET, user, realm.config, timeout=120) as channel:
                    opened += 1
                    if opened == connections:
                        all_open.set()
                    await all_open.wait()
                    await channel.send(b"%d" % number)
                    return await channel.recv()

            answers = await asyncio.gather(*map(one, range(connections)))
            assert answers == [b"%d is user%d@EXAMPLE.TEST" % (n, n % 50) for n in range(connections)]
        await _until(lambda: open_descriptors() == descriptors)

    asyncio.run(main())
