"""Replay caches: who has presented which authenticator. Source: RFC 4120 3.2.3.

`ReplayCache` is the interface. `MemoryReplayCache` serves one process; `SqliteReplayCache` (imported on first use)
serves many processes of one machine and survives their death. A cache holds a 16-byte digest per authenticator.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, cast

from purekrb.constants import ErrorCode
from purekrb.errors import ReplayError
from purekrb.system import fork_safe, monotonic
from purekrb.trace import Log

if TYPE_CHECKING:
    from purekrb.replay.sqlite import SqliteReplayCache

__all__ = ["ReplayCache", "MemoryReplayCache", "SqliteReplayCache", "default_replay_cache", "bucket_of", "KEEP"]

log = Log("purekrb.replay")
#: Seconds of authenticator time that share a bucket, the unit in which old entries are dropped.
BUCKET = 300
#: How long an authenticator is remembered, in seconds: four times the usual skew, so that a clock that is set back by
#: ten minutes does not let a replay through.
KEEP = 1200
#: The usual skew, in seconds. A cache that runs full drops what an acceptor with this one admits no more.
SKEW = 300
#: Seconds between two warnings of one cache.
_WARN_EVERY = 60
_KEEP = timedelta(seconds=KEEP)
_AHEAD = timedelta(seconds=-SKEW)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class ReplayCache(Protocol):
    """Remembers authenticators. Implementations are atomic and thread-safe, and fail closed.

    One whose `remember` has a further parameter `client` is also told whose authenticator it is: a text that is the
    same for all tickets of a client, whatever the case of its name. So it can limit what one client fills.
    """

    def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
        """Store `tag` (16 bytes), the digest of an authenticator made at `ctime`.

        Raises ReplayError where it was stored before, or where that cannot be told.
        """


class _KnowsClients(Protocol):
    def remember(self, tag: bytes, ctime: datetime, now: datetime, client: str) -> None: ...


def remember_in(cache: ReplayCache, tag: bytes, ctime: datetime, now: datetime, client: str) -> None:
    """Store `tag` in `cache`, and tell it the client if it wants to know."""
    if _wants_client(type(cache)):
        cast(_KnowsClients, cache).remember(tag, ctime, now, client=client)
    else:
        cache.remember(tag, ctime, now)


@lru_cache(maxsize=64)
def _wants_client(kind: type) -> bool:
    # By the parameters, as a subclass of ours may have those of the Protocol.
    code = getattr(getattr(kind, "remember", None), "__code__", None)
    return code is not None and "client" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


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


def older_than_memory() -> ReplayError:
    """Return the error for an authenticator from a time of which the cache does not know everything."""
    return ReplayError(
        "this authenticator is older than the replay cache, which therefore cannot tell whether it was "
        "presented before: let the client try again",
        code=ErrorCode.KRB_AP_ERR_REPEAT,
    )


def full(client: str | None, capacity: str, remedy: str) -> ReplayError:
    """Return the error for a client, where it is known, that has filled its share; else for all."""
    whose = "this client has filled its share of the replay cache" if client else "the replay cache is full"
    return ReplayError(
        f"{whose} ({capacity}): refused, since forgetting an authenticator would let it be replayed; {remedy}",
        code=ErrorCode.KRB_ERR_GENERIC,
    )


class Alarm:
    """Tells in the log, at most once a minute, that a replay cache refuses clients since it is full."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._quiet_until = float("-inf")

    def ring(self, error: ReplayError, client: str | None) -> None:
        """Warn of `error`, which is what the client gets."""
        moment = self._monotonic()
        if moment >= self._quiet_until:
            self._quiet_until = moment + _WARN_EVERY
            log.warning("%r is refused, and others may be: %s", client or "a client", error)


class _Bucket:
    __slots__ = ("clients", "emptied", "last", "tags")

    def __init__(self) -> None:
        self.emptied = False  # before its time, so that nobody knows what was in it
        self.tags: set[bytes] = set()
        self.clients: dict[int, int] = {}  # how many of the tags are of a client, by its hash
        self.last = float("-inf")  # when the newest was stored, or is to count as stored, by the monotonic clock


class MemoryReplayCache:
    """A replay cache in the memory of this process, of at most `max_entries` authenticators.

    An authenticator takes about 100 bytes, the first one of a client another 100. Forgets at exit and knows nothing of
    other processes: where a service runs in several, or is restarted within minutes, use SqliteReplayCache. One client
    may fill as much as it leaves free, so that others always find room. When it is full of live entries it refuses new
    ones rather than forget old ones. `monotonic` tells how much time has really passed: a clock that jumps ahead makes
    it forget nothing.
    """

    def __init__(self, max_entries: int = 1_000_000, *, monotonic: Callable[[], float] = monotonic) -> None:
        if max_entries < 1:
            raise ValueError("max_entries must be at least 1")
        self._max_entries = max_entries
        self._monotonic = monotonic
        self._alarm = Alarm(monotonic)
        self._buckets: dict[int, _Bucket] = {}
        self._entries = 0
        self._lock = fork_safe(Lock())

    def remember(self, tag: bytes, ctime: datetime, now: datetime, client: str | None = None) -> None:
        """Store `tag`; raise ReplayError where it was stored before, or the cache or the client's share is full."""
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
                self._make_room(now)  # which may empty this very bucket
                if not found.emptied and not self._has_room(client, share):
                    crowded = client if self._entries < self._max_entries else None
                    error = full(
                        crowded,
                        f"{self._max_entries} live authenticators",
                        "use SqliteReplayCache or a larger max_entries",
                    )
                    self._alarm.ring(error, client)
                    raise error
            if found.emptied:
                raise older_than_memory()
            stored = self._monotonic()
            if age < _AHEAD:  # a large clock_skew: it can be admitted for longer
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
        """Return the bucket, new, and drop the old ones."""
        for number in self._old(oldest_bucket(now), KEEP):
            self._entries -= len(self._buckets.pop(number).tags)
        made = self._buckets[bucket] = _Bucket()
        return made

    def _make_room(self, now: datetime) -> None:
        """Empty the buckets that the usual clock skew can never admit again, and close them."""
        for number in self._old(bucket_of(now) - SKEW // BUCKET, 2 * SKEW):
            bucket = self._buckets[number]
            self._entries -= len(bucket.tags)
            bucket.tags, bucket.clients, bucket.emptied = set(), {}, True

    def _old(self, before: int, idle: float) -> list[int]:
        """Return the buckets before the given one in which nothing was stored for `idle` seconds.

        Which are old is told by a clock that may have jumped ahead; that so much time has passed is told by one that
        does not. Else a clock that is set right again would let through what was forgotten meanwhile.
        """
        moment = self._monotonic()
        return [number for number, bucket in self._buckets.items() if number < before and moment - bucket.last >= idle]

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
