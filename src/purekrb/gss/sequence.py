"""Sequence numbers: the numbers of a sender, and the window of a receiver.

Numbers have the form that they have in tokens: big-endian bytes. The window is 64 wide, like MIT's.
Source: RFC 2743 1.2.3, RFC 4121 4.2.2.
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
    """Yield the 64-bit numbers from `first` on, 0 after the highest. Taking the next is atomic."""
    if first < 1 << 63:
        return map(_pack_unsigned, count(first))  # reaching the highest number would take ages
    return map(_pack_signed, count(first - (1 << 64)))  # the same bits; 0 follows -1


class SequenceWindow:
    """Judges the sequence numbers of genuine tokens.

    Call `check` after the token's MAC was verified. `first` is the peer's initial number. `bits` is
    the width of its counter: 64 in RFC 4121, 32 in RFC 4757. With `replay`, no number passes twice.
    With `sequence`, no number passes out of order either. `seen` is the window before `first`, for
    a successor of an earlier window. Thread-safe: if several threads have the same number, one
    passes.
    """

    __slots__ = ("_judges", "_lock", "_mask", "_sequence", "_state")

    def __init__(
        self, first: int, *, replay: bool, sequence: bool, bits: int = 64, seen: int = 0
    ) -> None:
        self._mask = mask = (1 << bits) - 1
        # The number expected next, and the window before it. If bit n is set, the number
        # expected - 1 - n is missing. One tuple, so that an interrupt leaves either the old state
        # or the new one.
        self._state = first & mask, seen ^ _MAP
        self._judges = replay or sequence
        self._sequence = sequence
        self._lock = fork_safe(Lock())

    @property
    def state(self) -> tuple[int, int]:
        """The number expected next and the window before it: a successor's `first` and `seen`."""
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
            if value == expected:  # the usual case
                self._state = expected + 1 & self._mask, missing << 1 & _MAP
            else:
                self._judge(value)

    def _judge(self, number: int) -> None:
        """Record a number other than the expected one."""
        expected, missing = self._state
        mask = self._mask
        ahead = (number - expected) & mask
        if ahead <= mask >> 1:
            # All numbers from the expected one up to this one are missing; this one is not.
            missing = ((missing + 1 << ahead) - 1) << 1 if ahead < _WIDTH else _MAP - 1
            self._state = number + 1 & mask, missing & _MAP
            if self._sequence:
                raise SequenceError(f"{ahead} messages are missing before this one", reason="gap")
            return
        late = mask - ahead  # 0 for the number before the one expected
        if late >= _WIDTH:
            raise SequenceError(
                "a message is too old to tell whether it is new: it is from before the window",
                reason="old",
            )
        # RFC 2743 1.2.3: a number that was seen is a duplicate.
        bit = 1 << late
        if not missing & bit:
            raise SequenceError("this message was already received", reason="duplicate")
        self._state = expected, missing ^ bit
        if self._sequence:
            raise SequenceError("a message arrived after its successors", reason="unsequenced")
