"""Times for authenticators: never the same microsecond twice, so that no acceptor takes one for a replay."""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from datetime import datetime, timedelta
from weakref import WeakKeyDictionary

from purekrb import system
from purekrb.system import Clock

__all__ = ["MICROSECOND", "unique_now"]

MICROSECOND = timedelta(microseconds=1)
#: How far a clock may be set back before its new time is believed: twice the usual skew, after which no replay cache
#: still holds what was given before.
_SET_BACK = timedelta(minutes=10)

#: The last time given, by clock. Weak, for clocks that live no longer than one exchange.
_last: MutableMapping[object, datetime] = WeakKeyDictionary()
#: That of the system's clock, which is asked for almost always.
_last_of_system: MutableMapping[object, datetime] = {}
_lock = threading.Lock()


def unique_now(clock: Clock) -> datetime:
    """Return the time of `clock`, as an aware UTC datetime that this process has not been given by it before.

    It increases even when the clock stands still or is set back a little; safe to call from many threads. Each clock
    has a memory of its own, so that a recorded handshake replays bit for bit. Source: RFC 4120 5.5.1 (ctime, cusec).
    """
    if clock is system.now:
        return _unique(clock, clock, _last_of_system)
    owner = getattr(clock, "__self__", clock)  # a bound method is a new object each time: its owner is what lasts
    try:
        return _unique(clock, owner, _last)
    except TypeError:  # no weak references to it: it shares one memory with its like
        return _unique(clock, unique_now, _last)


def _unique(clock: Clock, owner: object, memory: MutableMapping[object, datetime]) -> datetime:
    with _lock:
        last = memory.get(owner)
        now = clock()
        if last is not None and last - _SET_BACK < now <= last:
            now = last + MICROSECOND
        memory[owner] = now
    return now
