"""An acceptor on one core; on another 1,000 clients that all come at once, or few beside a flood: see `rows`.

Run as a program it is the acceptor, or the flood.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.goals import IDLE, NEIGHBOUR, OURS, PAIR
from bench.lab import Lab
from bench.timing import Row
from bench.worker import ROOT
from purekrb import Initiator, aio, listen
from purekrb.channel.framing import encode_frame, frame_reader
from purekrb.gss.context import MAX_TOKEN

__all__ = ["rows"]

CLIENTS = 1000
#: Connections a second that stay silent, and the address that they come from.
FLOOD, FLOODER = 150, "127.0.0.2"
#: Honest clients a second beside it, for how many seconds, and from where.
HONEST, SECONDS, NEIGHBOURHOOD = 100, 1.5, "127.0.0.1"
#: Seconds until a flood has filled whatever it can fill.
FILLING = 2.0
#: Seconds after which an honest client gives up.
PATIENCE = 10.0


def rows(lab: Lab, rounds: int) -> Iterator[Row]:
    """Yield the time per handshake of bursts, and the longest of single handshakes beside a flood."""
    _allow_descriptors()
    yield _bursts(lab, rounds)
    for kind in ("asyncio", "blocking"):
        yield _flooded(lab, kind, max(1, rounds // 3))


def _bursts(lab: Lab, rounds: int) -> Row:
    """Return the time per handshake of bursts, each of 1,000 new clients with new tickets, beside that of pairs."""
    row = Row("asyncio", "handshake, 1,000 clients at once", statistic="median")
    row.samples = {OURS: [], PAIR: []}
    tails = []
    with _one_core(-1), _acceptor(lab) as address:
        _burst(lab, address)  # the first one imports and allocates
        for _ in range(max(3, rounds // 3)):
            seconds, latencies = _burst(lab, address)
            row.samples[OURS].append(seconds / CLIENTS)
            tails.append(sorted(latencies)[CLIENTS * 99 // 100])
            tickets = lab.new_tickets(18, CLIENTS // 10)
            start = time.perf_counter()
            for ticket in tickets:
                lab.connect(ticket)
            row.samples[PAIR].append((time.perf_counter() - start) / len(tickets))
    rate = 1 / row.value(OURS)
    row.note = f"{rate:,.0f} handshakes/s, p99 {sorted(tails)[len(tails) // 2] * 1e3:.0f} ms from connect to proof"
    return row


def _flooded(lab: Lab, kind: str, rounds: int) -> Row:
    """Return the 99th percentiles of handshakes: beside a flood (ours), also from its address, and without one."""
    row = Row("asyncio", f"p99 of handshakes beside a flood, {kind}", statistic="median")
    row.samples = {OURS: [], NEIGHBOUR: [], IDLE: []}
    late = 0

    def measure(name: str, source: str) -> None:
        nonlocal late
        latencies = _paced(lab, address, source)
        row.samples[name].append(sorted(latencies)[len(latencies) * 99 // 100])
        late += sum(latency >= PATIENCE for latency in latencies)

    with _one_core(-1), _acceptor(lab, kind) as address:
        _paced(lab, address, NEIGHBOURHOOD)  # the first ones import and allocate
        for _ in range(rounds):
            measure(IDLE, NEIGHBOURHOOD)
            with _flood(address):
                measure(OURS, NEIGHBOURHOOD)
                measure(NEIGHBOUR, FLOODER)
    row.note = f"{FLOOD} silent connections a second; {late} of {3 * rounds * int(HONEST * SECONDS)} had no answer"
    return row


def _paced(lab: Lab, address: tuple[str, int], source: str) -> list[float]:
    """Return the seconds from connect to proof of clients at `source` that come one after the other."""
    initiators = [
        Initiator(ticket) for ticket in lab.new_tickets(18, int(HONEST * SECONDS), "client{number}")
    ]
    coming = [encode_frame(initiator.step() or b"") for initiator in initiators]
    selector, latencies, waiting = selectors.DefaultSelector(), [], {}
    begin = time.perf_counter()
    for number, (initiator, token) in enumerate(zip(initiators, coming, strict=True)):
        _hear(selector, waiting, latencies, begin + number / HONEST)
        client = socket.socket()
        client.setblocking(False)
        client.bind((source, 0))
        waiting[client] = (initiator, token, frame_reader(MAX_TOKEN), time.perf_counter())
        client.connect_ex(address)
        selector.register(client, selectors.EVENT_WRITE)
    _hear(selector, waiting, latencies, time.perf_counter() + PATIENCE)
    latencies += [PATIENCE] * len(waiting)
    for client in waiting:
        client.close()
    selector.close()
    return latencies


def _hear(
    selector: selectors.BaseSelector, waiting: dict[Any, Any], latencies: list[float], until: float
) -> None:
    """Go on with the handshakes that are under way, until that time; at the end, until there are none."""
    last = until - time.perf_counter() > 1
    while (left := until - time.perf_counter()) > 0 and (waiting or not last):
        for key, event in selector.select(left):
            client: Any = key.fileobj
            initiator, token, reader, start = waiting[client]
            try:
                if event == selectors.EVENT_WRITE:
                    client.send(token)
                    selector.modify(client, selectors.EVENT_READ)
                    continue
                data = client.recv(65536)
            except OSError:
                data = b""
            reader.feed(data)
            answer = reader.next_frame()
            if answer is not None:
                initiator.step(answer)
            if answer is not None or not data:
                latencies.append(time.perf_counter() - start if data else PATIENCE)
                selector.unregister(client)
                client.close()
                del waiting[client]


@contextlib.contextmanager
def _flood(address: tuple[str, int]) -> Iterator[None]:
    argv = [sys.executable, "-m", "bench.crowd", "flood", str(address[1])]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE)
    try:
        time.sleep(FILLING)
        yield
    finally:
        process.communicate()


def _stay_silent(address: tuple[str, int]) -> None:
    """Make connections at a steady pace and say nothing, until standard input ends."""
    idle: list[socket.socket] = []
    begin = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not selector.select(max(0.0, begin + len(idle) / FLOOD - time.perf_counter())):
            client = socket.socket()
            client.setblocking(False)
            client.bind((FLOODER, 0))
            client.connect_ex(address)
            idle.append(client)


def _burst(lab: Lab, address: tuple[str, int]) -> tuple[float, list[float]]:
    """Return the seconds from the first connect to the last verified AP-REP, and those of each client."""
    initiators = [Initiator(ticket) for ticket in lab.new_tickets(18, CLIENTS, "client{number}")]
    first = [encode_frame(initiator.step() or b"") for initiator in initiators]
    selector = selectors.DefaultSelector()
    latencies: list[float] = []
    sockets: list[socket.socket] = []
    begin = time.perf_counter()
    for initiator, token in zip(initiators, first, strict=True):
        start = time.perf_counter()
        client = socket.create_connection(address)
        client.setblocking(False)
        client.send(token)
        sockets.append(client)
        selector.register(client, selectors.EVENT_READ, (initiator, frame_reader(MAX_TOKEN), start))
    while len(latencies) < CLIENTS:
        for key, _ in selector.select(30):
            initiator, reader, start = key.data
            reader.feed(key.fileobj.recv(65536))  # type: ignore[union-attr]
            token = reader.next_frame()
            if token is not None:
                initiator.step(token)
                latencies.append(time.perf_counter() - start)
                selector.unregister(key.fileobj)
    seconds = time.perf_counter() - begin
    selector.close()
    for client in sockets:
        client.close()
    return seconds, latencies


@contextlib.contextmanager
def _acceptor(lab: Lab, kind: str = "asyncio") -> Iterator[tuple[str, int]]:
    argv = [sys.executable, "-m", "bench.crowd", kind, str(lab.directory)]
    process = subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield ("127.0.0.1", int(process.stdout.readline()))  # type: ignore[union-attr]
    finally:
        process.communicate()


@contextlib.contextmanager
def _one_core(number: int) -> Iterator[None]:
    """Run on one core alone meanwhile, counted from the first (0) or the last (-1). Linux only, else nothing."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CLIENTS
    if soft < wanted:
        new = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))


async def _serve(lab: Lab) -> None:
    async def handler(channel: Any) -> None:
        await channel.recv()  # stays until the client goes

    server = await aio.start_server(
        handler, ("127.0.0.1", 0), lab.keytab, replay_cache=lab.replay_cache
    )
    print(server.address[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(
            None, sys.stdin.read
        )  # until the parent closes it


def _serve_blocking(lab: Lab) -> None:
    with listen(("127.0.0.1", 0), lab.keytab, replay_cache=lab.replay_cache) as server:
        print(server.address[1], flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), server.close())).start()
        for channel in server:
            channel.abort()


if __name__ == "__main__":
    _allow_descriptors()
    work, argument = sys.argv[1:]
    if work == "flood":
        _stay_silent(("127.0.0.1", int(argument)))
        sys.exit()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})
    if work == "asyncio":
        asyncio.run(_serve(Lab(Path(argument))))
    else:
        _serve_blocking(Lab(Path(argument)))
