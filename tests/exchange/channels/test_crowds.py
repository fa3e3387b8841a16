"""Servers that are kept busy: by slow peers, by crowds, and by a replay cache that waits for its disk."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from purekrb import TransportTimeoutError, aio, listen
from purekrb.channel import places
from purekrb.channel.aio import Channel as AioChannel
from purekrb.channel.framing import encode_frame
from purekrb.replay import MemoryReplayCache, SqliteReplayCache
from support.channels import (
    KEYS,
    LOCALHOST,
    PATIENCE,
    TICKET,
    RawClient,
    Side,
    assert_echoes,
    connect_asyncio,
    raw_server,
    trickle,
)
from support.processes import soak

# -- peers that are slow


@pytest.mark.parametrize("manner", ["silent", "trickling"])
def test_a_slow_client_loses_its_place_and_delays_nobody(server: Side, manner: str) -> None:
    with (
        server.serve(KEYS, handshake_timeout=2.0) as running,
        RawClient(running.address, TICKET) as slow,
    ):
        began = time.monotonic()
        token = encode_frame(slow.context.step() or b"")
        sending = threading.Thread(
            target=trickle, args=(slow, token if manner == "trickling" else b"")
        )
        sending.start()
        assert_echoes(server, running.address)
        assert time.monotonic() - began < 2  # while the slow one still had its place
        assert slow.ended()
        assert 1.9 < time.monotonic() - began < 8  # its whole token would take longer
        sending.join()
        assert_echoes(server, running.address)


def test_a_slow_server_is_given_up_at_the_deadline(client: Side) -> None:
    def slow(connection: socket.socket) -> None:
        for byte in b"\x80\0\0\0" + bytes(128):
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with raw_server(slow) as (address, _):
        began = time.monotonic()
        with pytest.raises(TransportTimeoutError):
            client.connect(address, TICKET, timeout=0.3)
        assert 0.25 < time.monotonic() - began < 4  # its token takes more than six seconds


def test_k287_idle_connections_beyond_the_limit_make_room_for_the_honest_client(
    server: Side,
) -> None:
    with server.serve(KEYS, max_handshakes=2, handshake_timeout=5.0) as running:
        began = time.monotonic()
        idle = [RawClient(running.address) for _ in range(6)]
        assert_echoes(server, running.address)
        assert (
            time.monotonic() - began < 4
        )  # the two oldest went after a tenth of a second each, and so on
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
        with flood(
            running.address, 150, "127.0.0.1" if from_the_same_address else "127.0.0.2"
        ) as idle:
            while len(idle) < 80:  # more than there are places
                time.sleep(0.01)
            for _ in range(soak(10, 500)):
                began = time.monotonic()
                assert_echoes(server, running.address)
                assert time.monotonic() - began < 4  # a round trip, on a machine that is busy
                time.sleep(0.02)
            assert sum(map(is_cut, list(idle)[:40])) > 8


def test_k408_in_a_crowd_a_silent_client_has_a_second_and_otherwise_the_whole_timeout(
    server: Side, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places.PATIENCE == 1.0
    monkeypatch.setattr(
        places, "PATIENCE", 2.0
    )  # a busy machine may need a second for what follows
    caplog.set_level(logging.DEBUG, "purekrb.channel")
    with server.serve(KEYS, max_handshakes=8) as running:
        few = [RawClient(running.address, TICKET) for _ in range(3)]
        time.sleep(2.3)
        assert not any(is_cut(raw.socket) for raw in few)
        many = [RawClient(running.address, TICKET) for _ in range(3)]  # now it is a crowd
        began = time.monotonic()
        assert [raw.ended() for raw in few] == [True] * 3
        assert time.monotonic() - began < 1.9  # their time was over
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
            trickling = threading.Thread(
                target=trickle, args=(slow, encode_frame(slow.context.step() or b""))
            )
            trickling.start()
            assert slow.ended()
            assert 0.9 < time.monotonic() - began < 5
            trickling.join()
        assert_echoes(server, running.address)


def test_k408_many_honest_clients_of_one_address_get_in_at_once_where_the_share_lets_them(
    server: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "PATIENCE", PATIENCE)  # they establish one after the other
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

        async with await aio.start_server(
            handler, LOCALHOST, KEYS, replay_cache=cache, max_handshakes=1
        ) as server:
            first = asyncio.ensure_future(connect_asyncio(server.address, TICKET))
            while not cache.memory.entered.is_set():
                await asyncio.sleep(0.001)  # the loop runs, or this would never be seen
            second = asyncio.ensure_future(
                connect_asyncio(server.address, TICKET)
            )  # waits: nobody loses a place
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
