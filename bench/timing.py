"""Interleaved timing: each contender runs a short batch in turn, so that whatever slows the machine slows them all."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Batch", "Contender", "Row", "measure", "repeat", "each"]

#: Length of a batch in seconds. This kind of machine may run 1.5 ms and then stand still for 8 ms, so it is shorter.
BATCH = 0.001
#: Below this a row takes 10th percentiles, from it on medians: a longer operation has its share of every standstill.
SHORT = 0.001

#: For how long single calls are tried, in seconds, to tell how long one takes.
CALIBRATING = 0.01

#: Does n operations and returns the seconds that they took together.
Batch = Callable[[int], float]


@dataclass(frozen=True)
class Contender:
    """A name and what to measure; `batch_seconds` is about how long a batch of it may take."""

    name: str
    batch: Batch
    batch_seconds: float = BATCH


@dataclass
class Row:
    """One line of the table: what each contender needs for one operation, as all samples. `unit` is s or B."""

    group: str
    work: str
    samples: dict[str, list[float]] = field(default_factory=dict)
    unit: str = "s"
    statistic: str = ""  # what `value` is, "p10" or "median": one for the row, so that ratios compare like with like
    note: str = ""

    def value(self, name: str) -> float:
        """Return the contender's 10th percentile or median."""
        samples = self.samples[name]
        return _p10(samples) if self.statistic == "p10" else statistics.median(samples)

    def spread(self, name: str) -> float:
        """Return (median - 10th percentile) / 10th percentile."""
        low = _p10(self.samples[name])
        return (statistics.median(self.samples[name]) - low) / low


def repeat(call: Callable[..., object], *arguments: object) -> Batch:
    """Return the batch that calls again and again."""

    def batch(n: int) -> float:
        turns = range(n)
        start = time.perf_counter()
        for _ in turns:
            call(*arguments)
        return time.perf_counter() - start

    return batch


def each(produce: Callable[[], object], consume: Callable[..., object]) -> Batch:
    """Return the batch that times `consume` over what `produce` made beforehand."""

    def batch(n: int) -> float:
        made = [produce() for _ in range(n)]
        start = time.perf_counter()
        for item in made:
            consume(item)
        return time.perf_counter() - start

    return batch


def measure(row: Row, contenders: Sequence[Contender], seconds: float, rounds: int) -> Row:
    """Let the contenders take turns for about `seconds`, but at least `rounds` times, and fill the row."""
    sizes = [_batch_size(contender) for contender in contenders]
    turns = list(zip(contenders, sizes, strict=True))
    row.samples = {contender.name: [] for contender in contenders}
    gc.collect()
    gc.disable()
    try:
        deadline = time.perf_counter() + seconds
        done = 0
        while time.perf_counter() < deadline or done < rounds:
            for contender, size in turns:
                row.samples[contender.name].append(contender.batch(size) / size)
            turns.append(turns.pop(0))  # nobody is always behind the same neighbour
            done += 1
    finally:
        gc.enable()
    row.statistic = "p10" if min(map(_p10, row.samples.values())) < SHORT else "median"
    return row


def _p10(samples: Sequence[float]) -> float:
    return sorted(samples)[len(samples) // 10]


def _batch_size(contender: Contender) -> int:
    best = contender.batch(1)
    if best > 10 * CALIBRATING:
        return 1
    stop = time.perf_counter() + CALIBRATING
    while time.perf_counter() < stop:  # the first calls take several times as long as later ones
        best = min(best, contender.batch(1))
    return max(1, min(400, int(contender.batch_seconds / best)))
