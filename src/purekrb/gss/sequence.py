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

    __slots__ = ("_expected", "_judges", "_mask", "_seen", "_sequence")

    def __init__(self, first: int, *, replay: bool, sequence: bool, bits: int = 64, seen: int = 0) -> None:
        self._mask = (1 << bits) - 1
        self._expected = first & self._mask
        self._seen = seen  # bit n: number _expected - 1 - n was received
        self._judges = replay or sequence
        self._sequence = sequence

    @property
    def state(self) -> tuple[int, int]:
        """The number that is expected next, and the window behind it: `first` and `seen` of one that carries on."""
        return self._expected, self._seen

    def check(self, number: int) -> None:
        """Record `number`. Raises SequenceError with reason "gap", "unsequenced", "duplicate" or "old"."""
        if not self._judges:
            return
        mask, seen = self._mask, self._seen
        if number == self._expected:
            self._expected = (number + 1) & mask
            if seen != _MAP:  # as it is after 64 messages in order
                self._seen = (seen << 1 | 1) & _MAP
            return
        ahead = (number - self._expected) & mask
        if ahead <= mask >> 1:
            self._seen = (seen << (ahead + 1) | 1) & _MAP if ahead < _WIDTH else 1
            self._expected = (number + 1) & mask
            if self._sequence:
                raise SequenceError(f"{ahead} messages are missing before this one", reason="gap")
            return
        behind = mask - ahead
        if behind >= _WIDTH:
            raise SequenceError("a message from before the window: too old to tell whether it is new", reason="old")
        bit = 1 << behind
        if seen & bit:
            raise SequenceError("this message was already received", reason="duplicate")
        self._seen = seen | bit
        if self._sequence:
            raise SequenceError("a message arrived later than its successors", reason="unsequenced")
