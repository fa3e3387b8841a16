"""Times for authenticators: never the same twice, since an AP-REP proves the service by returning one. RFC 4120 3.2.5.

An AP-REP that was recorded proves the service to whoever makes an authenticator of the same time with the same ticket.
So no time is given twice, even where the clock is set back; and in another process, which cannot know what was given in
this one, the microseconds are others.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from threading import Lock
from weakref import WeakKeyDictionary

from purekrb import system
from purekrb.system import WINDOW, Clock, fork_safe, in_child, random_bytes

__all__ = ["MICROSECOND", "UniqueTimes", "unique_now"]

MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: Places that the first time of a window is drawn from. The others are for those that follow.
_FIRST_PLACES = 100_000
_NEXT_PLACES = WINDOW - _FIRST_PLACES
#: How far the system's clock may be set back without being believed: what no peer refuses.
_SET_BACK = timedelta(minutes=1)
_PERIOD = timedelta(microseconds=WINDOW)

#: How far another clock may be set back before its new time is believed.
_OTHER_SET_BACK = timedelta(minutes=10)
#: The times of another clock that are remembered.
_MAX_GIVEN = 4096


class UniqueTimes:
    """Gives times with random microseconds, of which no two are equal, though the clock may be set as one likes.

    Time is cut into windows of an eighth of a second. Each has a random place, which is where its first time lies; the
    next ones follow, microsecond by microsecond. So the windows that are given go up, and the places in them, until the
    clock is set back by more than a minute. From then on, in every window, as many places are left out as were taken
    in any one window before. So nothing repeats, and what has to be remembered are four numbers. Where too few places
    are left, the clock is not believed: times go on from the last one, which peers refuse until the clock is there.
    """

    def __init__(self) -> None:
        self._lock = fork_safe(Lock())
        self._left_out = 0  # places that were taken before the clock was set back
        self._most = 0  # places taken in any window since then
        self._taken = 0  # places in this window
        self._window = 0  # of the last time given
        self._end = self._next = self._set_back = _EPOCH
        self.draw()

    def draw(self) -> None:
        """Draw the places of all windows anew: a child process must not give what its parent gives."""
        self._secret = random_bytes(16)
        self._enter(self._window)

    def __call__(self, clock: Clock) -> datetime:
        """Return the time of `clock`, off by less than a window."""
        with self._lock:
            now = clock()
            if now >= self._end:
                self._enter((now - _EPOCH) // _PERIOD)
            elif (
                now < self._set_back
                and self._left_out + max(self._most, self._taken) <= _NEXT_PLACES // 2
            ):
                self._left_out += max(self._most, self._taken)
                self._most = self._taken = 0
                self._enter((now - _EPOCH) // _PERIOD)
            if self._left_out + self._taken >= _NEXT_PLACES:
                self._enter(self._window + 1)
            given = self._next
            self._next = given + MICROSECOND
            self._taken += 1
        return given

    def _enter(self, window: int) -> None:
        # Which place a window has must be known again when the clock is set back, and to nobody else.
        drawn = blake2b(
            window.to_bytes(8, "big", signed=True), key=self._secret, digest_size=8
        ).digest()
        first = int.from_bytes(drawn, "big") % _FIRST_PLACES
        begin = _EPOCH + window * _PERIOD
        self._next = begin + (first + self._left_out) * MICROSECOND
        self._end, self._set_back = begin + _PERIOD, begin - _SET_BACK
        self._most = max(self._most, self._taken)
        self._window, self._taken = window, 0


_of_system = UniqueTimes()
_system_time = _of_system.__call__
in_child(_of_system.draw)

#: The last times given, by clock, in their order. Weak, for clocks that live no longer than one exchange.
_last: MutableMapping[object, dict[datetime, None]] = WeakKeyDictionary()
_lock = fork_safe(Lock())


def unique_now(clock: Clock) -> datetime:
    """Return the time of `clock`, as an aware UTC datetime that this process has not been given by it before.

    That of the system has microseconds at random (see `UniqueTimes`). Any other, which replays a recording, is given as
    it is where that is new: a microsecond later than the last where it stands still or is set back a little, else later
    than those of its last 4096 times that it repeats. Each has a memory of its own, so that a recorded handshake
    replays bit for bit. Safe to call from many threads. Source: RFC 4120 5.5.1 (ctime, cusec).
    """
    if clock is system.now:
        return _system_time(clock)
    owner = getattr(
        clock, "__self__", clock
    )  # a bound method is a new object each time: its owner is what lasts
    try:
        return _unique(clock, owner)
    except TypeError:  # no weak references to it: it shares one memory with its like
        return _unique(clock, unique_now)


def _unique(clock: Clock, owner: object) -> datetime:
    with _lock:
        given = _last.setdefault(owner, {})
        now = clock()
        last = next(reversed(given), now)
        if last - _OTHER_SET_BACK < now < last:
            now = last
        while now in given:
            now += MICROSECOND
        given[now] = None
        if len(given) > _MAX_GIVEN:
            del given[next(iter(given))]
    return now
