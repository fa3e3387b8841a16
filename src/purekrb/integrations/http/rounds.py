"""Contexts that wait for a client's next round, bounded in number and in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from purekrb.gss.acceptor import Acceptor
from purekrb.system import fork_safe

__all__ = ["Rounds"]


class Rounds:
    """Half-made contexts, one for each connection.

    The oldest makes room if there are `most`; each is kept for `seconds`. A context is not what
    identifies a client: its last token is. So it does no harm if clients share a connection.
    """

    def __init__(
        self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._lock = fork_safe(threading.Lock())
        self._waiting: dict[Hashable, tuple[float, Acceptor]] = {}  # the oldest first

    def put(self, connection: Hashable, context: Acceptor) -> None:
        """Keep the context of a connection for its next round."""
        with self._lock:
            self._waiting.pop(connection, None)
            self._drop_old()
            while self._waiting and len(self._waiting) >= self._most:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[connection] = (self._clock(), context)

    def take(self, connection: Hashable) -> Acceptor | None:
        """Return the context that a connection waits with, and forget it."""
        with self._lock:
            self._drop_old()
            return self._waiting.pop(connection, (0.0, None))[1]

    def _drop_old(self) -> None:
        oldest = self._clock() - self._seconds
        while self._waiting:
            connection, (since, _) = next(iter(self._waiting.items()))
            if since > oldest:
                return
            del self._waiting[connection]

    def __len__(self) -> int:
        return len(self._waiting)
