"""The places for connections in the handshake, and the choice of connections that lose theirs.

Pure, and shared by both servers: connections are any hashable objects, and callers pass the times,
which are `time.monotonic`'s.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

__all__ = ["GRACE", "PATIENCE", "Places"]

T = TypeVar("T")

#: Seconds for each frame of the client while half of the places are taken, or more.
PATIENCE = 1.0
#: Seconds that a connection may be silent before it can lose its place to a newcomer.
GRACE = 0.1


class Places(Generic[T]):
    """The `limit` places for connections in the handshake.

    A connection is silent while the server waits for its next frame, even if a part of the frame
    has arrived. It is crowded when half of the places are taken, or more. Then

    - a connection that has been silent for `PATIENCE` loses its place (`overdue`);
    - a newcomer whose source has `per_source` silent connections takes the place of the oldest.

    When all places are taken, a newcomer takes the place of the connection that has been silent
    longest. But no connection loses its place to a newcomer before it has been silent for `GRACE`.
    So newcomers wait (`opens_at`) while all places are taken by such connections and by connections
    whose tokens are being verified. Each call takes the same time, however many connections there
    are.
    """

    def __init__(self, limit: int, per_source: int) -> None:
        if limit < 1 or per_source < 1:
            raise ValueError(
                f"max_handshakes is {limit}, max_per_source {per_source}, expected at least 1 each"
            )
        self._limit = limit
        self._per_source = per_source
        self._sources: dict[T, bytes] = {}  # of all that have a place
        self._silent: dict[T, float] = {}  # silent since when; oldest first, here and below
        self._silent_by_source: dict[bytes, dict[T, None]] = {}

    def __contains__(self, connection: T) -> bool:
        return connection in self._sources

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def crowded(self) -> bool:
        """Whether half of the places are taken, or more."""
        return 2 * len(self._sources) >= self._limit

    def opens_at(self) -> float:
        """Return when a newcomer has a place: 0.0 for now, infinity for when another leaves."""
        if len(self._sources) < self._limit:
            return 0.0
        return next(iter(self._silent.values()), math.inf) + GRACE

    def enter(self, connection: T, source: bytes, now: float) -> T | None:
        """Give a place to `connection`, still silent. Return the loser of the place, or None."""
        loser = None
        if self.crowded and len(own := self._silent_by_source.get(source, {})) >= self._per_source:
            loser = next(iter(own))
            if now < self._silent[loser] + GRACE:
                loser = None
        if loser is None and len(self._sources) >= self._limit:
            loser = next(iter(self._silent), None)
        if loser is not None:
            self.leave(loser)
        self._sources[connection] = source
        self._wait_for(connection, source, now)
        return loser

    def heard(self, connection: T, now: float) -> None:
        """Begin to wait anew: a frame of `connection` has arrived, and the next one is due."""
        source = self._sources.get(connection)
        if source is not None:
            self.busy(connection)
            self._wait_for(connection, source, now)

    def busy(self, connection: T) -> None:
        """Keep the place of `connection` while its token is being verified."""
        if self._silent.pop(connection, None) is not None:
            own = self._silent_by_source[self._sources[connection]]
            del own[connection]
            if not own:
                del self._silent_by_source[self._sources[connection]]

    def leave(self, connection: T) -> None:
        """Take back the place of `connection`, if it has one."""
        self.busy(connection)
        self._sources.pop(connection, None)

    def overdue(self, now: float) -> list[T]:
        """Return the connections that were silent for too long by `now`, and take their places."""
        lost: list[T] = []
        while self.look_at() <= now:
            lost.append(next(iter(self._silent)))
            self.leave(lost[-1])
        return lost

    def look_at(self) -> float:
        """Return when `overdue` will return something if nothing else happens; infinity: never."""
        if not self.crowded:
            return math.inf
        return next(iter(self._silent.values()), math.inf) + PATIENCE

    def _wait_for(self, connection: T, source: bytes, now: float) -> None:
        self._silent[connection] = now
        self._silent_by_source.setdefault(source, {})[connection] = None
