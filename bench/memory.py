"""How far one call raises the peak of resident memory, in a process of its own: see `rows`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.cases import HUGE
from bench.goals import MIT, OURS
from bench.lab import Lab
from bench.timing import Row
from bench.worker import ROOT

__all__ = ["rows"]


def rows(lab: Lab, rounds: int) -> Iterator[Row]:
    """Yield what wrap and unwrap of 16 MiB need besides their input. Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        return
    lab.mit.use(18)
    for work in ("wrap", "unwrap"):
        row = Row("memory", f"{work} 16 MiB", unit="B", statistic="median")
        for name in (OURS, MIT):
            row.samples[name] = [_in_new_process(lab, name, work) for _ in range(min(rounds, 5))]
        yield row


def _in_new_process(lab: Lab, name: str, work: str) -> float:
    argv = [sys.executable, "-m", "bench.memory", str(lab.directory), name, work]
    # Without this the C library keeps freed blocks of up to 32 MiB, and what is kept is not counted again.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    return float(
        subprocess.run(argv, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout
    )


def _main(directory: str, name: str, work: str) -> None:
    lab = Lab(Path(directory))
    data = os.urandom(HUGE)
    call: Callable[[bytes], object]
    if name == OURS:
        ours, peer = lab.our_pair(18)
        ours.wrap(b"first"), ours.unwrap(peer.wrap(b"first"))  # what is made once
        source = data if work == "wrap" else peer.wrap(data)
        call = ours.wrap if work == "wrap" else ours.unwrap
    else:
        theirs, their_peer = lab.mit.pair(18)
        theirs.wrap(b"first", True), theirs.unwrap(their_peer.wrap(b"first", True).message)
        source = data if work == "wrap" else their_peer.wrap(data, True).message
        call = (lambda item: theirs.wrap(item, True)) if work == "wrap" else theirs.unwrap
    del data
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = _peak()
    result = call(source)
    print(_peak() - before)
    del result


def _peak() -> int:
    """Return VmHWM in bytes."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    _main(*sys.argv[1:])
