"""Clock, randomness and host name of the operating system.

The only module of the sans-I/O core that touches any of them. Everything else takes a `Clock` and a `RandomBytes`
as arguments, with these as defaults, so that a recorded handshake replays bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial

__all__ = ["Clock", "RandomBytes", "now", "random_bytes", "local_fqdn"]

#: Returns the current time as an aware UTC datetime with microseconds.
Clock = Callable[[], datetime]
#: Returns n unpredictable bytes.
RandomBytes = Callable[[int], bytes]


#: Returns the system time: aware, UTC, with microseconds.
now: Clock = partial(datetime.now, timezone.utc)

random_bytes: RandomBytes = os.urandom


def local_fqdn() -> str:
    """Return what this machine calls itself: its full DNS name where it is configured well. May ask the DNS."""
    import socket  # on demand: nothing else in the core needs it

    return socket.getfqdn()
