"""Replay caches: which authenticators have been presented before. Source: RFC 4120 3.2.3.

`ReplayCache` is the interface. `MemoryReplayCache` serves one process. `SqliteReplayCache`,
imported on first use, serves many processes of one machine and survives their death. A cache holds
a 16-byte digest per authenticator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purekrb.replay.cache import BUCKET, KEEP, ReplayCache, bucket_of, remember_in
from purekrb.replay.memory import MemoryReplayCache, default_replay_cache

if TYPE_CHECKING:
    from purekrb.replay.sqlite import SqliteReplayCache

__all__ = [
    "ReplayCache",
    "MemoryReplayCache",
    "SqliteReplayCache",
    "default_replay_cache",
    "remember_in",
    "bucket_of",
    "BUCKET",
    "KEEP",
]


def __getattr__(name: str) -> Any:
    if name == "SqliteReplayCache":  # a service without such a cache does not import sqlite3
        from purekrb.replay.sqlite import SqliteReplayCache

        return SqliteReplayCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
