"""What honest peers say to each other over a channel, and how a channel ends."""

from __future__ import annotations

import socket
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    ContextError,
    ContextExpiredError,
    Flag,
    Initiator,
    IntegrityError,
    KeytabEntry,
    Principal,
    TransportError,
)
from purekrb.channel.framing import encode_frame
from purekrb.channel.stream import SealedStream
from purekrb.constants import ErrorCode
from support.channels import (
    KEYS,
    PATIENCE,
    TICKET,
    AnyChannel,
    RawClient,
    Side,
    assert_echoes,
    raw_server,
    read_frame,
    reset,
)
from support.tickets import ALICE, SERVICE, issue

# -- honest peers


@pytest.mark.parametrize("etype", [17, 18, 19, 20, 23])
def test_messages_of_all_sizes_go_both_ways(client: Side, server: Side, etype: int) -> None:
    ticket, keys = issue(etype)
    permitted = {"permitted_etypes": (etype,)}
    with (
        server.serve(keys, **permitted) as running,
        client.connect(running.address, ticket, **permitted) as channel,
    ):
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


def test_k410_a_server_refuses_anonymous_clients_unless_it_lets_them_in(
    client: Side, server: Side
) -> None:
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
        raw.socket.sendall(
            b"".join(encode_frame(raw.context.wrap(b"%d" % number)) for number in range(50))
        )
        assert [raw.context.unwrap(raw.recv_frame()) for _ in range(50)] == [
            b"%d" % number for number in range(50)
        ]


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
            threading.Thread(
                target=lambda name=name: [channel.send(name * 3000) for _ in range(20)]
            )
            for name in (b"a", b"b", b"c")
        ]
        for thread in threads:
            thread.start()
        got = [channel.recv() for _ in range(60)]
        for thread in threads:
            thread.join()
    assert (
        sorted(message[:1] for message in got if message) == [b"a"] * 20 + [b"b"] * 20 + [b"c"] * 20
    )
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
    with (
        server.serve(KEYS, lambda channel: None) as running,
        client.connect(running.address, TICKET) as channel,
    ):
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
