"""Times for authenticators: never the same time twice. Source: RFC 4120 3.2.5.

An AP-REP proves the service by returning the authenticator's time. If a client made another
authenticator with the same time and ticket, a recorded AP-REP would prove the service again. So no
time is returned twice, even if the clock is set back. Another process does not know the times of
this one: it uses other microseconds.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import datetime, timedelta
from hashlib import blake2b
from threading import Lock
from weakref import WeakKeyDictionary

from purekrb import system
from purekrb.system import EPOCH, WINDOW, Clock, fork_safe, in_child, random_bytes

__all__ = ["MICROSECOND", "UniqueTimes", "unique_now"]

MICROSECOND = timedelta(microseconds=1)
#: The places from which the first time of a window is drawn. The others are for the next times.
_FIRST_PLACES = 100_000
_NEXT_PLACES = WINDOW - _FIRST_PLACES
#: How far the system's clock may be set back before its new time is believed. No peer refuses a
#: time that is this much ahead.
_SET_BACK = timedelta(minutes=1)
_PERIOD = timedelta(microseconds=WINDOW)

#: How far another clock may be set back before its new time is believed.
_OTHER_SET_BACK = timedelta(minutes=10)
#: The number of times that are remembered for another clock.
_MAX_GIVEN = 4096


class UniqueTimes:
    """Returns times with random microseconds. No two are equal, even if the clock is set back.

    Time is cut into windows of an eighth of a second. Each window has a random place for its first
    time; the next times follow, one microsecond each. So windows and places go up until the clock
    is set back by more than a minute. From then on, every window leaves out as many places as any
    earlier window has used. So nothing repeats, and only four numbers must be remembered. If too
    few places are left, the clock is not believed: times continue after the last one, and peers
    refuse them until the clock has caught up.
    """

    def __init__(self) -> None:
        self._lock = fork_safe(Lock())
        self._left_out = 0  # places that were used before the clock was set back
        self._most = 0  # the most places used in a window since then
        self._taken = 0  # places used in this window
        self._window = 0  # the window of the last time
        self._end = self._next = self._set_back = EPOCH
        self.draw()

    def draw(self) -> None:
        """Draw all places anew: a child process must not repeat its parent's times."""
        self._secret = random_bytes(16)
        self._enter(self._window)

    def __call__(self, clock: Clock) -> datetime:
        """Return the time of `clock`, with an error of less than a window."""
        with self._lock:
            now = clock()
            if now >= self._end:
                self._enter((now - EPOCH) // _PERIOD)
            elif (
                now < self._set_back
                and self._left_out + max(self._most, self._taken) <= _NEXT_PLACES // 2
            ):
                self._left_out += max(self._most, self._taken)
                self._most = self._taken = 0
                self._enter((now - EPOCH) // _PERIOD)
            if self._left_out + self._taken >= _NEXT_PLACES:
                self._enter(self._window + 1)
            given = self._next
            self._next = given + MICROSECOND
            self._taken += 1
        return given

    def _enter(self, window: int) -> None:
        # When the clock is set back, this object must find a window's place again, and nobody else
        # may know it.
        drawn = blake2b(
            window.to_bytes(8, "big", signed=True), key=self._secret, digest_size=8
        ).digest()
        first = int.from_bytes(drawn, "big") % _FIRST_PLACES
        begin = EPOCH + window * _PERIOD
        self._next = begin + (first + self._left_out) * MICROSECOND
        self._end, self._set_back = begin + _PERIOD, begin - _SET_BACK
        self._most = max(self._most, self._taken)
        self._window, self._taken = window, 0


_of_system = UniqueTimes()
_system_time = _of_system.__call__
in_child(_of_system.draw)

#: The last times of each clock, in order. Weak, because some clocks live only for one exchange.
_last: MutableMapping[object, dict[datetime, None]] = WeakKeyDictionary()
_lock = fork_safe(Lock())


def unique_now(clock: Clock) -> datetime:
    """Return the time of `clock`, as an aware UTC datetime that it has not had in this process.

    The system's clock gets random microseconds (see `UniqueTimes`). Any other clock replays a
    recording: its time is returned unchanged if it is new. If such a clock stands still or is set
    back a little, its last time plus a microsecond is returned. If it repeats one of its last 4096
    times, the next free microsecond is returned. Each clock has its own memory, so that a recorded
    handshake replays bit for bit. Thread-safe. Source: RFC 4120 5.5.1 (ctime, cusec).
    """
    if clock is system.now:
        return _system_time(clock)
    # A bound method is a new object each time, but its owner is not.
    owner = getattr(clock, "__self__", clock)
    try:
        return _unique(clock, owner)
    except TypeError:  # it cannot have weak references: all such clocks share one memory
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
