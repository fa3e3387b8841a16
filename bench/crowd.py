"""An asyncio acceptor on one core, and 1,000 clients on another that all come at once: see `rows`.

Run as a program it is the acceptor.
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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.goals import OURS, PAIR
from bench.lab import Lab
from bench.timing import Row
from bench.worker import ROOT
from purekrb import Initiator, aio
from purekrb.channel.framing import encode_frame, frame_reader
from purekrb.gss.context import MAX_TOKEN

__all__ = ["rows"]

CLIENTS = 1000


def rows(lab: Lab, rounds: int) -> Iterator[Row]:
    """Yield the time per handshake of bursts, each of 1,000 new clients with new tickets, beside that of pairs."""
    _allow_descriptors()
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
    yield row


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
def _acceptor(lab: Lab) -> Iterator[tuple[str, int]]:
    argv = [sys.executable, "-m", "bench.crowd", str(lab.directory)]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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

    server = await aio.start_server(handler, ("127.0.0.1", 0), lab.keytab, replay_cache=lab.replay_cache)
    print(server.address[1], flush=True)
    async with server:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent closes it


if __name__ == "__main__":
    _allow_descriptors()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {0})
    asyncio.run(_serve(Lab(Path(sys.argv[1]))))
