"""What the blocking channels alone have: timeouts, threads, signals."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time

import pytest

from purekrb import ApError, ContextError, KerberosError, TransportTimeoutError, listen
from support.channels import (
    KEYS,
    LOCALHOST,
    PATIENCE,
    TICKET,
    AnyChannel,
    RawClient,
    Side,
    connect_blocking,
    echo,
)
from support.tickets import issue


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
        channels = [
            connect_blocking(server.address, TICKET) for _ in range(4)
        ]  # all served at the same time
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
    with (
        Side("blocking").serve(KEYS) as running,
        connect_blocking(running.address, TICKET) as channel,
    ):
        before = signal.signal(signal.SIGALRM, lambda *_: channel.close())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(ContextError):
                channel.recv()
        finally:
            signal.signal(signal.SIGALRM, before)


def test_a_refusal_is_logged_for_the_service_and_holds_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticket, keys = issue()
    _, other_keys = issue()
    caplog.set_level(logging.DEBUG, "purekrb.channel")
    with Side("blocking").serve(other_keys) as running, pytest.raises(ApError):
        connect_blocking(running.address, ticket)
    assert "was refused" in caplog.text
    secrets = (keys[0].key.contents, other_keys[0].key.contents, ticket.session_key.contents)
    assert not any(secret.hex() in caplog.text for secret in secrets)
