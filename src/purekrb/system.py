"""Clock, randomness and host name of the operating system.

The only module of the sans-I/O core that touches any of them. Everything else takes a `Clock` and a `RandomBytes`
as arguments, with these as defaults, so that a recorded handshake replays bit for bit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import ReferenceType, ref

__all__ = [
    "Clock",
    "RandomBytes",
    "now",
    "seconds_of",
    "pause",
    "monotonic",
    "wait_until",
    "EPOCH",
    "WINDOW",
    "random_bytes",
    "random_block",
    "unpredictable",
    "in_child",
    "before_fork",
    "fork_safe",
    "cached_property",
    "local_fqdn",
]

T = TypeVar("T")

#: Returns the current time as an aware UTC datetime with microseconds.
Clock = Callable[[], datetime]
#: Returns n unpredictable bytes.
RandomBytes = Callable[[int], bytes]

#: The start of POSIX time.
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: Returns the system time: aware, UTC, with microseconds.
now: Clock = partial(datetime.now, timezone.utc)


def seconds_of(clock: Clock) -> Callable[[], float]:
    """Return a function that reads `clock` as seconds since 1970, as `datetime.timestamp` counts them.

    What is compared with the time for each message is compared so: making a datetime takes four times as long.
    """
    return time.time if clock is now else lambda: clock().timestamp()


#: Waits for a number of seconds: for another program to let go of a file.
pause: Callable[[float], None] = time.sleep
#: Returns seconds that only ever grow, whatever happens to the clock; since the start of the machine, as a rule.
monotonic: Callable[[], float] = time.monotonic

#: The microseconds within which a client draws the time of its authenticator, an eighth of a second:
#: the authenticator's window is that of the true time. So a replay cache can tell which ones are older than itself.
WINDOW = 125_000


def wait_until(seconds: float) -> None:
    """Wait until the system's clock says `seconds` since 1970, for a window at most, whatever happens to the clock."""
    time.sleep(min(max(seconds - time.time(), 0), WINDOW / 1_000_000))


random_bytes: RandomBytes = os.urandom

#: Blocks drawn ahead by `random_block`.
_blocks: list[bytes] = []


def random_block() -> bytes:
    """Return 16 unpredictable bytes, from a pool that one system call fills for 64 blocks and that no fork inherits."""
    try:
        return _blocks.pop()
    except IndexError:
        drawn = os.urandom(64 * 16)
        _blocks.extend([drawn[at : at + 16] for at in range(16, len(drawn), 16)])
        return drawn[:16]


def unpredictable(random: RandomBytes, size: int) -> bytes:
    """Return at most 16 bytes of `random` that are no secret: confounders, sequence numbers.

    The system's come from the pool; keys never do, since what is in the pool lies in memory before it is used.
    """
    return random_block()[:size] if random is random_bytes else random(size)


def in_child(function: Callable[[], object]) -> None:
    """Have `function` called in each child process that fork() makes of this one."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def before_fork(function: Callable[[], object]) -> None:
    """Have `function` called in this process before each fork()."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=function)


#: The locks of this process. A reference leaves with its lock.
_locks: set[ReferenceType[Any]] = set()
_keep, _let_go = _locks.add, _locks.discard  # bound once: contexts have locks, and many are made


def fork_safe(lock: T) -> T:
    """Return `lock`, a Lock or RLock of `threading`, which each child process will find open.

    A child inherits a lock as it was at fork(), but not the thread that held it, so nobody would ever open it. What a
    lock guards must therefore be usable wherever that thread was cut off. Every lock of this package is made so.
    """
    _keep(ref(lock, _let_go))
    return lock


def _open_locks() -> None:
    for reference in list(_locks):
        lock = reference()
        if lock is not None:
            lock._at_fork_reinit()  # as the locks of `logging` and `threading` are


class cached_property(Generic[T]):  # noqa: N801 - the name of the standard library
    """As `functools.cached_property`, without the lock of Python 3.10 and 3.11, one for all objects of a class.

    That lock is held while the value is found, be it by asking over the network, and no child process can open it.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, owner: Any, kind: type | None = None) -> T:
        if owner is None:
            return self  # type: ignore[return-value]
        value = vars(owner)[self._function.__name__] = self._function(owner)
        return value


in_child(_open_locks)
in_child(_blocks.clear)


def local_fqdn() -> str:
    """Return what this machine calls itself: its full DNS name where it is configured well. May ask the DNS."""
    import socket  # on demand: nothing else in the core needs it

    return socket.getfqdn()
