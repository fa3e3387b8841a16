"""Replay caches: which authenticators have been presented before. Source: RFC 4120 3.2.3.

`ReplayCache` is the interface. `FileReplayCache`, the default, shares MIT's file with all acceptors
of the user on this machine. `MemoryReplayCache` serves one process. `SqliteReplayCache` has limits
for the room of each client. `RedisReplayCache` serves several machines. A cache holds a 16-byte tag
per authenticator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from purekrb.replay.cache import BUCKET, KEEP, ReplayCache, bucket_of, remember_in
from purekrb.replay.default import NoReplayCache, default_replay_cache
from purekrb.replay.memory import MemoryReplayCache

if TYPE_CHECKING:
    from purekrb.replay.file import FileReplayCache
    from purekrb.replay.redis import RedisReplayCache
    from purekrb.replay.sqlite import SqliteReplayCache

__all__ = [
    "ReplayCache",
    "FileReplayCache",
    "MemoryReplayCache",
    "NoReplayCache",
    "RedisReplayCache",
    "SqliteReplayCache",
    "default_replay_cache",
    "remember_in",
    "bucket_of",
    "BUCKET",
    "KEEP",
]

#: A service without such a cache does not import these modules, nor sqlite3 or redis.
_ON_DEMAND = {
    "FileReplayCache": "file",
    "RedisReplayCache": "redis",
    "SqliteReplayCache": "sqlite",
}


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return getattr(import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
