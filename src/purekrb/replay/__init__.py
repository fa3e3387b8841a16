"""Replay caches: who has presented which authenticator. Source: RFC 4120 3.2.3.

`ReplayCache` is the interface. `MemoryReplayCache` serves one process; `SqliteReplayCache` (imported on first use)
serves many processes of one machine and survives their death. A cache holds a 16-byte digest per authenticator.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from purekrb.constants import ErrorCode
from purekrb.errors import ReplayError

if TYPE_CHECKING:
    from purekrb.replay.sqlite import SqliteReplayCache

__all__ = ["ReplayCache", "MemoryReplayCache", "SqliteReplayCache", "default_replay_cache", "bucket_of", "KEEP"]

#: Seconds of authenticator time that share a bucket, the unit in which old entries are dropped.
BUCKET = 300
#: How long an authenticator is remembered, in seconds: four times the usual skew, so that a clock that is set back by
#: ten minutes does not let a replay through.
KEEP = 1200
_KEEP = timedelta(seconds=KEEP)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class ReplayCache(Protocol):
    """Remembers authenticators. Implementations are atomic and thread-safe, and fail closed."""

    def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
        """Store `tag` (16 bytes), the digest of an authenticator made at `ctime`.

        Raises ReplayError where it was stored before, or where that cannot be told.
        """


def bucket_of(ctime: datetime) -> int:
    """Return the bucket of an authenticator: the same for each presentation of it, whatever the clock says then."""
    age = ctime - _EPOCH
    return (age.days * 86400 + age.seconds) // BUCKET  # dividing timedeltas takes three times as long


def oldest_bucket(now: datetime) -> int:
    """Return the oldest bucket that is still kept at `now`."""
    return bucket_of(now - _KEEP)


def replayed() -> ReplayError:
    """Return the error for an authenticator that was presented before."""
    return ReplayError(
        "this authenticator was already presented: a replay, or a client that repeats its token "
        "(it must make a new one for each attempt)",
        code=ErrorCode.KRB_AP_ERR_REPEAT,
    )


def check_age(ctime: datetime, now: datetime) -> None:
    """Raise ReplayError where the bucket may be forgotten already: a large clock_skew lets such authenticators in."""
    if now - ctime > _KEEP and bucket_of(ctime) < oldest_bucket(now):
        raise ReplayError(
            f"this authenticator is older than what the replay cache remembers ({KEEP} s): set both clocks (NTP), or "
            "use a smaller clock_skew",
            code=ErrorCode.KRB_AP_ERR_SKEW,
        )


class MemoryReplayCache:
    """A replay cache in the memory of this process, of at most `max_entries` authenticators (about 100 bytes each).

    Forgets at exit and knows nothing of other processes: where a service runs in several, or is restarted within
    minutes, use SqliteReplayCache. When it is full of live entries it refuses new ones rather than forget old ones.
    """

    def __init__(self, max_entries: int = 1_000_000) -> None:
        if max_entries < 1:
            raise ValueError("max_entries must be at least 1")
        self._max_entries = max_entries
        self._buckets: dict[int, set[bytes]] = {}
        self._entries = 0
        self._lock = Lock()

    def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
        """Store `tag`; raise ReplayError where it was stored before or the cache is full."""
        bucket = bucket_of(ctime)
        check_age(ctime, now)
        with self._lock:
            seen = self._buckets.get(bucket)
            if seen is None:
                oldest = oldest_bucket(now)
                for old in [b for b in self._buckets if b < oldest]:
                    self._entries -= len(self._buckets.pop(old))
                seen = self._buckets[bucket] = set()
            if tag in seen:
                raise replayed()
            if self._entries >= self._max_entries:
                raise ReplayError(
                    f"the replay cache is full ({self._max_entries} live authenticators): refused, since forgetting "
                    "one would let it be replayed; use SqliteReplayCache or a larger max_entries",
                    code=ErrorCode.KRB_ERR_GENERIC,
                )
            seen.add(tag)
            self._entries += 1

    def __len__(self) -> int:
        return self._entries


#: The cache of every acceptor that is given none.
_DEFAULT = MemoryReplayCache()


def default_replay_cache() -> MemoryReplayCache:
    """Return the process-wide cache that acceptors use unless they are given another."""
    return _DEFAULT


def __getattr__(name: str) -> Any:
    if name == "SqliteReplayCache":  # its sqlite3 is imported only by who asks
        from purekrb.replay.sqlite import SqliteReplayCache

        return SqliteReplayCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
