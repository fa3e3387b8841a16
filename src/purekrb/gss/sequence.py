"""Sequence numbers: those a sender takes, and the window of a receiver. Source: RFC 2743 1.2.3, RFC 4121 4.2.2.

Numbers are given and taken as they stand in tokens, as big-endian bytes. The window is 64 wide, as MIT's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from struct import Struct
from threading import Lock

from purekrb.errors import SequenceError
from purekrb.system import fork_safe

__all__ = ["SequenceWindow", "numbers"]

_WIDTH = 64
_MAP = (1 << _WIDTH) - 1
_PACK = {32: Struct(">I").pack, 64: Struct(">Q").pack}
_PACK_SIGNED = Struct(">q").pack
#: The most numbers of a run: for one token with the lock, so many come without.
_RUN = 64


def numbers(first: int) -> Iterator[bytes]:
    """Return the 64-bit numbers from `first` on, 0 after the highest. Taking the next one is atomic."""
    if first < 1 << 63:
        return map(_PACK[64], count(first))  # it would take ages to reach the highest
    return map(_PACK_SIGNED, count(first - (1 << 64)))  # the same bits, and after -1 comes 0


class SequenceWindow:
    """Judges the sequence numbers of genuine tokens; call `check` only after the token's MAC was verified.

    `first` is the peer's initial number, `bits` the width of its counter (64 in RFC 4121, 32 in RFC 4757). With
    `replay`, no number passes twice; with `sequence`, none out of order either. `seen` is the window behind `first`,
    where an earlier one is carried on. Thread-safe: of the threads that have the same number, one passes.
    """

    __slots__ = ("_bits", "_judges", "_lock", "_run", "_sequence", "_state")

    def __init__(self, first: int, *, replay: bool, sequence: bool, bits: int = 64, seen: int = 0) -> None:
        self._bits = bits
        #: The number that is expected next, and the window behind it: bit n tells that number - 1 - n was received.
        self._state = first & (1 << bits) - 1, seen
        self._run: _Run | None = None  # where there is one, it knows more
        self._judges = replay or sequence
        self._sequence = sequence
        self._lock = fork_safe(Lock())

    @property
    def state(self) -> tuple[int, int]:
        """The number that is expected next, and the window behind it: `first` and `seen` of one that carries on."""
        with self._lock:
            self._end_run()
            return self._state

    def check(self, number: bytes) -> None:
        """Record `number`. Raises SequenceError with reason "gap", "unsequenced", "duplicate" or "old"."""
        run = self._run
        if run is not None and number == run.next and run.taken.setdefault(number, mine := (number,)) is mine:
            run.next = next(run.later, b"")
        elif self._judges:
            with self._lock:
                self._end_run()
                self._judge(int.from_bytes(number, "big"))

    def _judge(self, number: int) -> None:
        expected, seen = self._state
        mask = (1 << self._bits) - 1
        ahead = (number - expected) & mask
        if ahead <= mask >> 1:
            self._state = expected, seen = number + 1 & mask, (seen << ahead + 1 | 1) & _MAP if ahead < _WIDTH else 1
            if not ahead:
                self._run = _Run(expected, seen, self._bits)
            elif self._sequence:
                raise SequenceError(f"{ahead} messages are missing before this one", reason="gap")
            return
        behind = mask - ahead
        if behind >= _WIDTH:
            raise SequenceError("a message from before the window: too old to tell whether it is new", reason="old")
        bit = 1 << behind
        if seen & bit:
            raise SequenceError("this message was already received", reason="duplicate")
        self._state = expected, seen | bit
        if self._sequence:
            raise SequenceError("a message arrived later than its successors", reason="unsequenced")

    def _end_run(self) -> None:
        run = self._run
        if run is not None:
            expected = run.end()
            received = expected - run.first
            self._state = expected & (1 << self._bits) - 1, (run.seen << received | (1 << received) - 1) & _MAP
            self._run = None


class _Run:
    """Numbers in order, each of which a thread takes without a lock: that would cost more than all else about it.

    The number that is `next` belongs to the thread that is the first to put it into `taken`, as `dict.setdefault` tells
    in one step; what it puts there is its own, so that it can tell. That thread then says what is next, and nobody else
    does. Nothing is ever taken out. So all numbers before `next` are taken, and none behind it. The run begins at
    `first`, with `seen` as the window behind it.
    """

    __slots__ = ("_pack", "_stop", "first", "later", "next", "seen", "taken")

    def __init__(self, first: int, seen: int, bits: int) -> None:
        self._pack = pack = _PACK[bits]
        self._stop = min(first + _RUN, 1 << bits)
        self.first = first
        self.seen = seen
        self.next = pack(first)
        self.later = map(pack, range(first + 1, self._stop))
        self.taken: dict[bytes, object] = {}

    def end(self) -> int:
        """Return the number behind the last one that was taken, having taken it in the name of nobody.

        So nobody takes another: `next` cannot go past it. A thread that has taken its number and not said yet what is
        next, or never will since it was interrupted, is no obstacle. Called under the window's lock.
        """
        number = int.from_bytes(self.next, "big") if self.next else self._stop
        while number < self._stop and self.taken.setdefault(self._pack(number), None) is not None:
            number += 1
        return number
