"""Sequence numbers: those a sender takes, and the window of a receiver.

Source: RFC 2743 1.2.3, RFC 4121 4.2.2. Numbers are given and taken as they stand in tokens, as
big-endian bytes. The window is 64 wide, as MIT's.
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
_number = int.from_bytes
_pack_unsigned = Struct(">Q").pack
_pack_signed = Struct(">q").pack


def numbers(first: int) -> Iterator[bytes]:
    """Return the 64-bit numbers from `first` on, 0 after the highest. Taking the next is atomic."""
    if first < 1 << 63:
        return map(_pack_unsigned, count(first))  # it would take ages to reach the highest
    return map(_pack_signed, count(first - (1 << 64)))  # the same bits, and after -1 comes 0


class SequenceWindow:
    """Judges the sequence numbers of genuine tokens; call `check` after the token's MAC was verified.

    `first` is the peer's initial number, `bits` the width of its counter (64 in RFC 4121, 32 in
    RFC 4757). With `replay`, no number passes twice; with `sequence`, none out of order either.
    `seen` is the window before `first`, where an earlier window is carried on. Thread-safe: of the
    threads that have the same number, one passes.
    """

    __slots__ = ("_judges", "_lock", "_mask", "_sequence", "_state")

    def __init__(
        self, first: int, *, replay: bool, sequence: bool, bits: int = 64, seen: int = 0
    ) -> None:
        self._mask = mask = (1 << bits) - 1
        # The number that is expected next, and the window before it: bit n tells that the number
        # expected - 1 - n is missing. One tuple, so that an interrupt leaves the old or the new.
        self._state = first & mask, seen ^ _MAP
        self._judges = replay or sequence
        self._sequence = sequence
        self._lock = fork_safe(Lock())

    @property
    def state(self) -> tuple[int, int]:
        """The number expected next and the window before it: `first` and `seen` of a successor."""
        with self._lock:
            expected, missing = self._state
        return expected, missing ^ _MAP

    def check(self, number: bytes) -> None:
        """Record `number`.

        Raises SequenceError with reason "gap", "unsequenced", "duplicate" or "old".
        """
        if not self._judges:
            return
        value = _number(number, "big")
        with self._lock:
            expected, missing = self._state
            if value == expected:  # as almost always
                self._state = expected + 1 & self._mask, missing << 1 & _MAP
            else:
                self._judge(value)

    def _judge(self, number: int) -> None:
        """Record a number that is not the one expected."""
        expected, missing = self._state
        mask = self._mask
        ahead = (number - expected) & mask
        if ahead <= mask >> 1:
            # All between the number expected and this one is missing, this one is not.
            missing = ((missing + 1 << ahead) - 1) << 1 if ahead < _WIDTH else _MAP - 1
            self._state = number + 1 & mask, missing & _MAP
            if self._sequence:
                raise SequenceError(f"{ahead} messages are missing before this one", reason="gap")
            return
        late = mask - ahead  # 0 for the number before the one expected
        if late >= _WIDTH:
            raise SequenceError(
                "a message from before the window: too old to tell whether it is new", reason="old"
            )
        bit = 1 << late
        if not missing & bit:
            raise SequenceError("this message was already received", reason="duplicate")
        self._state = expected, missing ^ bit
        if self._sequence:
            raise SequenceError("a message arrived later than its successors", reason="unsequenced")
