"""Clock and randomness of the operating system.

The only module of the sans-I/O core that touches either. Everything else takes a `Clock` and a `RandomBytes`
as arguments, with these as defaults, so that a recorded handshake replays bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timezone

__all__ = ["Clock", "RandomBytes", "now", "random_bytes"]

#: Returns the current time as an aware UTC datetime with microseconds.
Clock = Callable[[], datetime]
#: Returns n unpredictable bytes.
RandomBytes = Callable[[int], bytes]


def now() -> datetime:
    """Return the system time: aware, UTC, with microseconds."""
    return datetime.now(timezone.utc)


random_bytes: RandomBytes = os.urandom
