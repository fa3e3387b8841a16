"""Handshakes per second of one and of two acceptor processes, purekrb's and MIT's library's, in turns.

python -m bench.acceptors

Tokens are made beforehand, each with an authenticator of its own; a process accepts its share and makes the AP-REP. All
processes of a kind share one replay cache file of MIT's format. Two processes need two cores for themselves.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from bench.lab import Lab, lab
from purekrb import Acceptor, Initiator, Keytab
from purekrb.replay import FileReplayCache

_TOKENS, _ROUNDS = 1000, 7


def main() -> None:
    """Print the medians."""
    rates: dict[tuple[str, int], list[float]] = {}
    with lab() as realm:
        os.environ["KRB5RCACHENAME"] = f"file2:{realm.directory}/mit-rcache2"
        os.environ["KRB5_KTNAME"] = f"FILE:{realm.directory}/service.keytab"
        for _ in range(_ROUNDS):
            for count in (1, 2):
                for kind in (_ours, _mits):
                    rates.setdefault((kind.__name__[1:], count), []).append(
                        _rate(realm, kind, count)
                    )
    for (name, count), found in rates.items():
        label = {"ours": "purekrb", "mits": "python-gssapi"}[name]
        print(f"{label}, {count} processes: {statistics.median(found):,.0f} handshakes/s")
    for count in (1, 2):
        ours, mits = (statistics.median(rates[name, count]) for name in ("ours", "mits"))
        print(f"{count} processes: {ours / mits:.2f} of MIT's")


def _rate(realm: Lab, kind: Callable[..., None], count: int) -> float:
    ticket = realm.ticket(18)
    shares = [[Initiator(ticket).step() for _ in range(_TOKENS // count)] for _ in range(count)]
    context = multiprocessing.get_context("fork")
    done: Queue[tuple[float, float]] = context.Queue()
    begin = context.Barrier(count)
    workers = [
        context.Process(target=kind, args=(realm.directory, share, begin, done)) for share in shares
    ]
    for worker in workers:
        worker.start()
    spans = [done.get() for _ in workers]
    for worker in workers:
        worker.join()
    return _TOKENS / (max(end for _, end in spans) - min(start for start, _ in spans))


def _ours(
    directory: Path, tokens: list[bytes], begin: Barrier, done: Queue[tuple[float, float]]
) -> None:
    keytab = Keytab.load(directory / "service.keytab")
    cache = FileReplayCache(directory / "our-rcache2")

    def accept(token: bytes) -> None:
        acceptor = Acceptor(keytab, replay_cache=cache)
        acceptor.step(token)
        if not acceptor.established:
            raise RuntimeError("no context")

    _run(accept, tokens, begin, done)


def _mits(
    directory: Path, tokens: list[bytes], begin: Barrier, done: Queue[tuple[float, float]]
) -> None:
    import gssapi

    credentials = gssapi.Credentials(usage="accept")

    def accept(token: bytes) -> None:
        acceptor = gssapi.SecurityContext(creds=credentials, usage="accept")
        acceptor.step(token)
        if not acceptor.complete:
            raise RuntimeError("no context")

    _run(accept, tokens, begin, done)


def _run(
    accept: Callable[[bytes], None],
    tokens: list[bytes],
    begin: Barrier,
    done: Queue[tuple[float, float]],
) -> None:
    accept(tokens[0])  # what the first one loads does not count
    begin.wait()
    start = time.monotonic()
    for token in tokens[1:]:
        accept(token)
    done.put((start, time.monotonic()))


if __name__ == "__main__":
    main()
