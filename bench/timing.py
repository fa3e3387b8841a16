"""Interleaved timing: each contender runs a short batch in turn, so that whatever slows the machine slows them all."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Contender", "Row", "measure"]

#: Length of a batch. This kind of machine may run 1.5 ms and then stand still for 8 ms, so a batch is shorter.
BATCH = 0.001
MIN_ROUNDS = 15


@dataclass(frozen=True)
class Contender:
    """`make(n)` prepares n operations and returns a function that does them all; only that function is timed."""

    name: str
    make: Callable[[int], Callable[[], object]]
    batched: bool = True


@dataclass
class Row:
    """One measured line: seconds per operation of each contender, as all samples."""

    group: str
    work: str
    samples: dict[str, list[float]] = field(default_factory=dict)

    def seconds(self, name: str) -> float:
        """Return the 10th percentile under a millisecond, else the median."""
        ordered = sorted(self.samples[name])
        low = ordered[len(ordered) // 10]
        return low if low < 0.001 else statistics.median(ordered)

    def spread(self, name: str) -> float:
        """Return (median - 10th percentile) / 10th percentile."""
        ordered = sorted(self.samples[name])
        low = ordered[len(ordered) // 10]
        return (statistics.median(ordered) - low) / low


def measure(group: str, work: str, contenders: Sequence[Contender], seconds: float) -> Row:
    """Run the contenders in turn for about `seconds` and return what was measured."""
    row = Row(group, work, {contender.name: [] for contender in contenders})
    sizes = {contender.name: _batch_size(contender) for contender in contenders}
    deadline = time.perf_counter() + seconds
    rounds = 0
    gc.disable()
    try:
        while time.perf_counter() < deadline or rounds < MIN_ROUNDS:
            shift = rounds % len(contenders)
            for contender in (*contenders[shift:], *contenders[:shift]):
                row.samples[contender.name].append(_once(contender, sizes[contender.name]))
            rounds += 1
    finally:
        gc.enable()
    return row


def _once(contender: Contender, size: int) -> float:
    run = contender.make(size)
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / size


def _batch_size(contender: Contender) -> int:
    if not contender.batched:
        _once(contender, 1)
        return 1
    best = min(_once(contender, 1) for _ in range(5))
    return max(1, min(400, int(BATCH / best)))
