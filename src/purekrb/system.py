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

__all__ = [
    "Clock",
    "RandomBytes",
    "now",
    "seconds_of",
    "pause",
    "random_bytes",
    "random_block",
    "unpredictable",
    "local_fqdn",
]

#: Returns the current time as an aware UTC datetime with microseconds.
Clock = Callable[[], datetime]
#: Returns n unpredictable bytes.
RandomBytes = Callable[[int], bytes]

#: Returns the system time: aware, UTC, with microseconds.
now: Clock = partial(datetime.now, timezone.utc)


def seconds_of(clock: Clock) -> Callable[[], float]:
    """Return a function that reads `clock` as seconds since 1970, as `datetime.timestamp` counts them.

    What is compared with the time for each message is compared so: making a datetime takes four times as long.
    """
    return time.time if clock is now else lambda: clock().timestamp()


#: Waits for a number of seconds: for another program to let go of a file.
pause: Callable[[float], None] = time.sleep

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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_blocks.clear)


def local_fqdn() -> str:
    """Return what this machine calls itself: its full DNS name where it is configured well. May ask the DNS."""
    import socket  # on demand: nothing else in the core needs it

    return socket.getfqdn()
