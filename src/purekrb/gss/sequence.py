"""The sequence window of a receiver. Source: RFC 2743 1.2.3, RFC 4121 4.2.2; 64 wide, as MIT's."""

from __future__ import annotations

from purekrb.errors import SequenceError

__all__ = ["SequenceWindow"]

_WIDTH = 64
_MAP = (1 << _WIDTH) - 1


class SequenceWindow:
    """Judges the sequence numbers of genuine tokens; call `check` only after the token's MAC was verified.

    `first` is the peer's initial number, `bits` the width of its counter (64 in RFC 4121, 32 in RFC 4757). With
    `replay`, no number passes twice; with `sequence`, none out of order either. `seen` is the window behind `first`,
    where an earlier one is carried on. Not thread-safe: the context locks.
    """

    __slots__ = ("_base", "_mask", "_next", "_replay", "_seen", "_sequence")

    def __init__(self, first: int, *, replay: bool, sequence: bool, bits: int = 64, seen: int = 0) -> None:
        self._mask = (1 << bits) - 1
        self._base = first
        self._next = 0  # expected number, relative to the first
        self._seen = seen  # bit n: number _next - 1 - n was received
        self._replay = replay
        self._sequence = sequence

    @property
    def state(self) -> tuple[int, int]:
        """The number that is expected next, and the window behind it: `first` and `seen` of one that carries on."""
        return (self._base + self._next) & self._mask, self._seen

    def check(self, number: int) -> None:
        """Record `number`. Raises SequenceError with reason "gap", "unsequenced", "duplicate" or "old"."""
        if not (self._replay or self._sequence):
            return
        relative = (number - self._base) & self._mask
        if relative == self._next:
            self._seen = (self._seen << 1 | 1) & _MAP
            self._next = (relative + 1) & self._mask
            return
        ahead = (relative - self._next) & self._mask
        if ahead <= self._mask >> 1:
            self._seen = (self._seen << (ahead + 1) | 1) & _MAP if ahead < _WIDTH else 1
            self._next = (relative + 1) & self._mask
            if self._sequence:
                raise SequenceError(f"{ahead} messages are missing before this one", reason="gap")
            return
        behind = (self._next - 1 - relative) & self._mask
        if behind >= _WIDTH:
            raise SequenceError("a message from before the window: too old to tell whether it is new", reason="old")
        bit = 1 << behind
        if self._seen & bit:
            raise SequenceError("this message was already received", reason="duplicate")
        self._seen |= bit
        if self._sequence:
            raise SequenceError("a message arrived later than its successors", reason="unsequenced")
