"""The interface of replay caches, and their common rules. Source: RFC 4120 3.2.3."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Protocol, cast

from purekrb.constants import ErrorCode
from purekrb.errors import ReplayError
from purekrb.log import Log
from purekrb.system import EPOCH

__all__ = [
    "BUCKET",
    "KEEP",
    "SKEW",
    "Alarm",
    "ReplayCache",
    "bucket_of",
    "check_age",
    "full",
    "older_than_memory",
    "oldest_bucket",
    "remember_in",
    "replayed",
    "too_old",
]

log = Log("purekrb.replay")
#: Seconds of authenticator time that share a bucket, the unit in which old entries are dropped.
BUCKET = 300
#: Seconds for which an authenticator is remembered: four times the usual skew. So a clock that is
#: set back by ten minutes does not admit a replay.
KEEP = 1200
#: The usual skew in seconds. A full cache drops the entries that are too old for an acceptor with
#: this skew.
SKEW = 300
#: Seconds between two warnings of one cache.
_WARN_EVERY = 60
_KEEP = timedelta(seconds=KEEP)


class ReplayCache(Protocol):
    """Remembers authenticators. Implementations are atomic and thread-safe, and fail closed.

    `remember` may have a further parameter `client`. It then gets a text that identifies the
    client: the same for all tickets of the client, whatever the case of its name. With it, a cache
    can limit the share of one client.
    """

    def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
        """Store `tag` (16 bytes), which identifies an authenticator made at `ctime`.

        The last 12 bytes suffice.

        Raises ReplayError if it was stored before, or if the cache cannot know.
        """


class _KnowsClients(Protocol):
    def remember(self, tag: bytes, ctime: datetime, now: datetime, client: str) -> None: ...


def remember_in(
    cache: ReplayCache, tag: bytes, ctime: datetime, now: datetime, client: str
) -> None:
    """Store `tag` in `cache`; pass the client too, if the cache has a parameter for it."""
    if _wants_client(type(cache)):
        cast(_KnowsClients, cache).remember(tag, ctime, now, client=client)
    else:
        cache.remember(tag, ctime, now)


@lru_cache(maxsize=64)
def _wants_client(kind: type) -> bool:
    # The parameters decide, not the class: a subclass of ours may have those of the Protocol.
    code = getattr(getattr(kind, "remember", None), "__code__", None)
    return (
        code is not None
        and "client" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    )


def bucket_of(ctime: datetime) -> int:
    """Return the bucket of an authenticator.

    It does not depend on the clock, so it is the same each time the authenticator is presented.
    """
    age = ctime - EPOCH
    # A division of timedeltas takes three times as long.
    return (age.days * 86400 + age.seconds) // BUCKET


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
    """Raise ReplayError if the bucket of the authenticator may already be forgotten.

    With a large clock_skew, the acceptor admits such authenticators.
    """
    if now - ctime > _KEEP and bucket_of(ctime) < oldest_bucket(now):
        raise too_old()


def too_old() -> ReplayError:
    """Return the error for an authenticator that the replay cache may already have forgotten."""
    return ReplayError(
        f"this authenticator is older than the replay cache remembers ({KEEP} s): "
        "set both clocks (NTP), or use a smaller clock_skew",
        code=ErrorCode.KRB_AP_ERR_SKEW,
    )


def older_than_memory() -> ReplayError:
    """Return the error for an authenticator from a time before the records of the cache."""
    return ReplayError(
        "this authenticator is older than the replay cache, which therefore cannot tell whether it "
        "was presented before: let the client try again",
        code=ErrorCode.KRB_AP_ERR_REPEAT,
    )


def full(client: str | None, capacity: str, remedy: str) -> ReplayError:
    """Return the error for a client that has filled its share; without a client, for all."""
    whose = (
        "this client has filled its share of the replay cache"
        if client
        else "the replay cache is full"
    )
    return ReplayError(
        f"{whose} ({capacity}): "
        f"refused, since a forgotten authenticator could be replayed; {remedy}",
        code=ErrorCode.KRB_ERR_GENERIC,
    )


class Alarm:
    """Warns in the log, at most once a minute, that a full replay cache refuses clients."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._quiet_until = float("-inf")

    def ring(self, error: ReplayError, client: str | None) -> None:
        """Warn of `error`, the error for the client."""
        moment = self._monotonic()
        if moment >= self._quiet_until:
            self._quiet_until = moment + _WARN_EVERY
            log.warning("%r is refused, and others may be: %s", client or "a client", error)
