"""What the default replay cache costs a handshake: MIT's file against the memory cache, in turns.

python -m bench.replay                 # a new file
python -m bench.replay 3600000         # after so many authenticators, 1,000 a second: an hour takes three minutes
python -m bench.replay 3600000 FILE    # keeps the file; measures it again if it is there
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from purekrb.replay import FileReplayCache, MemoryReplayCache, ReplayCache

#: The cost that the file may add to a handshake, in microseconds.
GOAL = 40
_ROUNDS, _BATCH = 40, 250
_STEP = timedelta(milliseconds=1)
_START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def main() -> None:
    """Fill, measure, and print both medians and the difference."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(sys.argv[2] if len(sys.argv) > 2 else f"{directory}/rcache2")
        file, memory = FileReplayCache(path), MemoryReplayCache(50_000_000)
        if not path.exists():
            for number in range(count):
                moment = _START + number * _STEP
                file.remember(os.urandom(16), moment, moment)
        end = _START + count * _STEP
        times: dict[ReplayCache, list[float]] = {file: [], memory: []}
        for _ in range(_ROUNDS):
            for cache, found in times.items():
                found += [_one(cache, end) for _ in range(_BATCH)]
        medians = [statistics.median(found) * 1e6 for found in times.values()]
        size = path.stat()
    over = medians[0] - medians[1]
    print(
        f"{count} authenticators, {size.st_size / 1e6:.1f} MB ({size.st_blocks * 512 / 1e6:.1f} MB on disk): "
        f"file {medians[0]:.1f} us, memory {medians[1]:.1f} us, {over:.1f} us more "
        f"({'within' if over <= GOAL else 'ABOVE'} {GOAL} us)"
    )


def _one(cache: ReplayCache, moment: datetime) -> float:
    tag = os.urandom(16)
    start = time.perf_counter()
    cache.remember(tag, moment, moment)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
