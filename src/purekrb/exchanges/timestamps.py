"""Times for authenticators: never the same microsecond twice, so that no acceptor takes one for a replay."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from weakref import WeakKeyDictionary

from purekrb.system import Clock

__all__ = ["unique_now"]

_TICK = timedelta(microseconds=1)
#: How far a clock may be set back before its new time is believed: twice the usual skew, after which no replay cache
#: still holds what was given before.
_SET_BACK = timedelta(minutes=10)

#: The last time given, by clock. Weak, for clocks that live no longer than one exchange.
_last: WeakKeyDictionary[object, datetime] = WeakKeyDictionary()
_lock = threading.Lock()


def unique_now(clock: Clock) -> datetime:
    """Return the time of `clock`, as an aware UTC datetime that this process has not been given by it before.

    It increases even when the clock stands still or is set back a little; safe to call from many threads. Each clock
    has a memory of its own, so that a recorded handshake replays bit for bit. Source: RFC 4120 5.5.1 (ctime, cusec).
    """
    owner = getattr(clock, "__self__", clock)  # a bound method is a new object each time: its owner is what lasts
    with _lock:
        now = clock()
        try:
            last = _last.get(owner)
        except TypeError:  # no weak references to it: it shares one memory with its like
            owner = unique_now
            last = _last.get(owner)
        if last is not None and last - _SET_BACK < now <= last:
            now = last + _TICK
        _last[owner] = now
    return now
