"""The clock, the randomness and the host name of the operating system.

In the sans-I/O core, only this module uses them. All other modules take a `Clock` and a
`RandomBytes` as arguments, with these as defaults, so a recorded handshake replays bit for bit.
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
    "in_parent",
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
    """Return a function that reads `clock` in seconds since 1970, as `datetime.timestamp` does.

    The checks that each message makes use seconds: to make a datetime takes four times as long.
    """
    return time.time if clock is now else lambda: clock().timestamp()


#: Waits for a number of seconds, for example until another program releases a file.
pause: Callable[[float], None] = time.sleep
#: Returns seconds that never decrease, even if the clock is set. They usually count from the start
#: of the machine.
monotonic: Callable[[], float] = time.monotonic

#: A client draws the time of an authenticator at random within a window of so many microseconds, an
#: eighth of a second. The window is the one that contains the true time. So a replay cache knows
#: which authenticators may be older than itself.
WINDOW = 125_000


def wait_until(seconds: float) -> None:
    """Wait until the system's clock reads `seconds` since 1970, but never longer than a window."""
    time.sleep(min(max(seconds - time.time(), 0), WINDOW / 1_000_000))


random_bytes: RandomBytes = os.urandom

#: The blocks that `random_block` has drawn in advance.
_blocks: list[bytes] = []


def random_block() -> bytes:
    """Return 16 unpredictable bytes from a pool.

    One system call fills the pool with 64 blocks. After a fork, the child starts with an empty
    pool.
    """
    try:
        return _blocks.pop()
    except IndexError:
        drawn = os.urandom(64 * 16)
        _blocks.extend([drawn[at : at + 16] for at in range(16, len(drawn), 16)])
        return drawn[:16]


def unpredictable(random: RandomBytes, size: int) -> bytes:
    """Return at most 16 bytes of `random` that need not stay secret: confounders, sequence numbers.

    The system's bytes come from the pool. Keys never do, since the pool lies in memory before use.
    """
    return random_block()[:size] if random is random_bytes else random(size)


def in_child(function: Callable[[], object]) -> None:
    """Arrange that each child process of this one calls `function` after fork()."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def before_fork(function: Callable[[], object]) -> None:
    """Arrange that this process calls `function` before each fork()."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=function)


def in_parent(function: Callable[[], object]) -> None:
    """Arrange that this process calls `function` after each fork()."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_parent=function)


#: The locks of this process. A reference is removed when its lock is deleted.
_locks: set[ReferenceType[Any]] = set()
#: Bound once, since each context has locks, and many contexts are made.
_keep, _let_go = _locks.add, _locks.discard


def fork_safe(lock: T) -> T:
    """Return `lock`, a Lock or RLock of `threading`. Each child process finds it released.

    A child inherits the state of a lock at fork(), but not the thread that held it, so the lock
    would stay locked for ever. The guarded data must therefore be usable wherever that thread was
    interrupted. Every lock of this package is made with this function.
    """
    _keep(ref(lock, _let_go))
    return lock


def _open_locks() -> None:
    for reference in list(_locks):
        lock = reference()
        if lock is not None:
            lock._at_fork_reinit()  # `logging` and `threading` do the same with their locks


class cached_property(Generic[T]):  # noqa: N801 - the name of the standard library
    """As `functools.cached_property`, but without its lock in Python 3.10 and 3.11.

    All objects of a class share that lock. It is held while the value is computed, even if that
    takes a network request, and a child process could not release it.
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
    """Return the host name of this machine; if it is configured well, this is its full DNS name.

    The call may query the DNS.
    """
    import socket  # on demand, since nothing else in the core needs it

    return socket.getfqdn()
