"""Frames, tokens and proofs that a channel refuses. After each of them, the next client is served."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from purekrb import (
    Acceptor,
    ApError,
    ChannelBindings,
    ContextError,
    DecodeError,
    Flag,
    Initiator,
    IntegrityError,
    KerberosError,
    MutualAuthenticationError,
    PolicyError,
    ProtocolError,
    SequenceError,
    TransportError,
)
from purekrb.channel.framing import encode_frame
from purekrb.channel.stream import CHANNEL_FLAGS, MAX_ROUNDS, SealedStream, check_flags
from purekrb.constants import ErrorCode, NegState
from purekrb.messages.spnego import NegTokenResp
from support.channels import (
    KEYS,
    PATIENCE,
    TICKET,
    RawClient,
    Side,
    assert_echoes,
    open_descriptors,
    raw_server,
    read_frame,
    reset,
)
from support.spnego import PreferringNtlm
from support.tickets import issue

# -- frames and tokens


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


def test_a_client_that_resets_the_connection_during_the_handshake_disturbs_nobody(
    server: Side,
) -> None:
    with server.serve(KEYS) as running:
        raw = RawClient(running.address)
        raw.socket.sendall(b"\x80\0\0\0")
        time.sleep(0.05)
        reset(raw.socket)
        assert_echoes(server, running.address)


def test_a_server_without_free_descriptors_waits_for_some(
    server: Side, caplog: pytest.LogCaptureFixture
) -> None:
    with server.serve(KEYS) as running, socket.socket() as waiting:
        before = open_descriptors()
        assert_echoes(server, running.address)
        settle = time.monotonic() + PATIENCE
        while (
            open_descriptors() != before
        ):  # what the server closes later would make room for the next connection
            assert time.monotonic() < settle
            time.sleep(0.01)
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


@pytest.mark.parametrize(
    "case", ["altered", "replayed", "gap", "signed-only", "mic", "short", "no-token"]
)
def test_a_refused_message_ends_the_connection(server: Side, case: str) -> None:
    with server.serve(KEYS) as running:
        with RawClient(running.address, TICKET).establish() as raw:
            frames, expected = hostile_frames(raw.context)[case]
            for frame in frames:
                raw.send_frame(frame)
            for _ in frames[1:]:
                assert (
                    raw.context.unwrap(raw.recv_frame()) == b"first"
                )  # the genuine one was accepted
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
def test_a_frame_beyond_the_limits_is_refused_after_the_handshake(
    server: Side, length: int
) -> None:
    with server.serve(KEYS, max_frame=2048) as running:
        with RawClient(running.address, TICKET).establish() as raw:
            raw.send_frame(raw.context.wrap(bytes(raw.context.wrap_size_limit(2048))))
            assert len(raw.recv_frame()) == 2048  # the longest that is accepted
            raw.socket.sendall(length.to_bytes(4, "little"))
            assert raw.ended()
        assert isinstance(running.error(), DecodeError)
        assert_echoes(server, running.address, max_frame=2048)


def test_a_message_too_long_for_a_frame_is_not_sent_and_the_channel_goes_on(
    client: Side, server: Side
) -> None:
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
        assert refused.value.code in (
            ErrorCode.KRB_AP_ERR_MODIFIED,
            ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
        )
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
def test_a_server_without_a_proof_is_refused(
    client: Side, answer: bytes, expected: type[KerberosError]
) -> None:
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
    for use in (
        stream.next_message,
        lambda: stream.seal(b"x"),
        lambda: stream.handshake(b"x"),
        initiator.step,
    ):
        with pytest.raises(ContextError):
            use()


@pytest.mark.parametrize("lacking", [Flag.MUTUAL, Flag.CONF, Flag.INTEG, Flag.SEQUENCE])
def test_a_server_refuses_a_context_without_a_flag_that_channels_need(
    server: Side, lacking: Flag
) -> None:
    with server.serve(KEYS) as running:
        flags = (
            Flag(0) if lacking is Flag.INTEG else Flag.DEFAULT & ~lacking
        )  # the others imply INTEG
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
    ours, theirs = (
        ChannelBindings(application_data=b"our tls"),
        ChannelBindings(application_data=b"their tls"),
    )
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
