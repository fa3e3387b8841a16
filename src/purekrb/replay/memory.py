"""A replay cache in the memory of one process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock

from purekrb.replay.cache import (
    BUCKET,
    KEEP,
    SKEW,
    Alarm,
    bucket_of,
    check_age,
    full,
    older_than_memory,
    oldest_bucket,
    replayed,
)
from purekrb.system import fork_safe, monotonic

__all__ = ["MemoryReplayCache"]

_KEEP = timedelta(seconds=KEEP)
_AHEAD = timedelta(seconds=-SKEW)


class _Bucket:
    __slots__ = ("clients", "emptied", "last", "tags")

    def __init__(self) -> None:
        #: Emptied before its time, so its former contents are unknown.
        self.emptied = False
        self.tags: set[bytes] = set()
        #: The number of tags of each client, by the client's hash.
        self.clients: dict[int, int] = {}
        #: The time when the newest tag was stored, or counts as stored, by the monotonic clock.
        self.last = float("-inf")


class MemoryReplayCache:
    """A replay cache in the memory of this process, for at most `max_entries` authenticators.

    An authenticator takes about 100 bytes, and the first one of a client another 100. The cache is
    lost at exit, and other processes do not share it: if a service runs in several processes, or is
    restarted within minutes, use FileReplayCache. One client may fill as much as it leaves free,
    so others always find room. If the cache is full of live entries, it refuses new ones and keeps
    the old ones. `monotonic` measures the time that has really passed: if the clock jumps ahead,
    nothing is forgotten.
    """

    def __init__(
        self, max_entries: int = 1_000_000, *, monotonic: Callable[[], float] = monotonic
    ) -> None:
        if max_entries < 1:
            raise ValueError("max_entries must be at least 1")
        self._max_entries = max_entries
        self._monotonic = monotonic
        self._alarm = Alarm(monotonic)
        self._buckets: dict[int, _Bucket] = {}
        self._entries = 0
        self._lock = fork_safe(Lock())

    def remember(
        self, tag: bytes, ctime: datetime, now: datetime, client: str | None = None
    ) -> None:
        """Store `tag`.

        Raises ReplayError if it was stored before, or if the cache or the client's share is full.
        """
        bucket = bucket_of(ctime)
        age = now - ctime
        if age > _KEEP:
            check_age(ctime, now)
        share = hash(client)
        with self._lock:
            found = self._buckets.get(bucket) or self._new_bucket(bucket, now)
            if tag in found.tags:
                raise replayed()
            if 2 * self._entries >= self._max_entries and not self._has_room(client, share):
                self._make_room(now)  # this may empty the bucket of this authenticator, too
                if not found.emptied and not self._has_room(client, share):
                    crowded = client if self._entries < self._max_entries else None
                    error = full(
                        crowded,
                        f"{self._max_entries} live authenticators",
                        "use FileReplayCache or a larger max_entries",
                    )
                    self._alarm.ring(error, client)
                    raise error
            if found.emptied:
                raise older_than_memory()
            stored = self._monotonic()
            if age < _AHEAD:  # with a large clock_skew, it can be admitted for longer
                stored -= age.total_seconds()
            if stored > found.last:
                found.last = stored
            clients = found.clients
            clients[share] = clients.get(share, 0) + 1
            self._entries += 1
            found.tags.add(tag)

    def _has_room(self, client: str | None, share: int) -> bool:
        free = self._max_entries - self._entries
        if client is None:
            return free > 0
        return sum(bucket.clients.get(share, 0) for bucket in self._buckets.values()) < free

    def _new_bucket(self, bucket: int, now: datetime) -> _Bucket:
        """Make the bucket and return it; drop old buckets."""
        for number in self._old(oldest_bucket(now), KEEP):
            self._entries -= len(self._buckets.pop(number).tags)
        made = self._buckets[bucket] = _Bucket()
        return made

    def _make_room(self, now: datetime) -> None:
        """Empty and close the buckets that are too old for the usual clock skew."""
        for number in self._old(bucket_of(now) - SKEW // BUCKET, 2 * SKEW):
            bucket = self._buckets[number]
            self._entries -= len(bucket.tags)
            bucket.tags, bucket.clients, bucket.emptied = set(), {}, True

    def _old(self, before: int, idle: float) -> list[int]:
        """Return the buckets before the given one in which nothing was stored for `idle` seconds.

        The number of a bucket comes from a clock that may have jumped ahead, so a clock that does
        not jump must confirm the age. Otherwise, after the clock is corrected, authenticators that
        were forgotten in the meantime would be admitted again.
        """
        moment = self._monotonic()
        return [
            number
            for number, bucket in self._buckets.items()
            if number < before and moment - bucket.last >= idle
        ]

    def __len__(self) -> int:
        return self._entries
