"""The replay cache of acceptors that are given none, chosen as MIT's library chooses it.

Source: MIT krb5, "replay cache" (rcache_def): KRB5RCACHENAME, KRB5RCACHETYPE, default_rcache_name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from purekrb.errors import ConfigError, ReplayError
from purekrb.log import Log
from purekrb.replay.cache import ReplayCache
from purekrb.replay.memory import MemoryReplayCache

__all__ = ["NoReplayCache", "default_replay_cache", "may_wait", "named_replay_cache"]

log = Log("purekrb.replay")

#: What the choice depends on, besides the user and krb5.conf.
_VARIABLES = ("KRB5RCACHENAME", "KRB5RCACHETYPE", "KRB5RCACHEDIR", "TMPDIR", "KRB5_CONFIG")
#: The caches that were chosen, by user and variables. A cache stays for the life of the process.
_chosen: dict[tuple[object, ...], ReplayCache] = {}
_MAX_CHOSEN = 64
_memory = MemoryReplayCache()


class NoReplayCache:
    """Takes every authenticator, as often as it comes: what `none:` names."""

    def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
        """Do nothing."""


def default_replay_cache() -> ReplayCache:
    """Return the default cache of acceptors: MIT's file of this user, unless another one is named.

    The names are `dfl:` (the default), `file2:PATH`, `none:` (no protection, with a warning), and
    `memory:`, which MIT's programs do not know. If the directory of the default file cannot be
    used, it is the memory cache of this process, with a warning. Raises ConfigError for another
    name. The same cache is returned until the user or the environment changes.
    """
    environ = os.environ
    key = (getattr(os, "geteuid", int)(), *[environ.get(name) for name in _VARIABLES])
    cache = _chosen.get(key)
    if cache is None:
        if len(_chosen) >= _MAX_CHOSEN:
            _chosen.clear()
        cache = _chosen.setdefault(key, _choose())
    return cache


def may_wait(cache: ReplayCache | None) -> bool:
    """Return whether a cache (None: the default one) may hold up an event loop.

    A database waits for the disk and for other processes: usually 30 us, sometimes 6 ms; a server
    answers over the network. MIT's file is never flushed, and it is locked for 20 us. Everything
    else that an acceptor does takes less time than a thread would cost: an AP-REQ is tried with at
    most MAX_TRIES keys.
    """
    from purekrb.replay.file import FileReplayCache

    quick = (FileReplayCache, MemoryReplayCache, NoReplayCache)
    return cache is not None and not isinstance(cache, quick)


def _choose() -> ReplayCache:
    return named_replay_cache(*_name())


def named_replay_cache(name: str, source: str) -> ReplayCache:
    """Return the cache of a name that `default_replay_cache` knows; `source` says what gave the name.

    Raises ConfigError for another name.
    """
    kind, colon, residual = name.partition(":")
    make = _TYPES.get(kind)
    if make is None or not colon or (kind == "file2" and not residual):
        raise ConfigError(
            f"{source} does not name a replay cache: write dfl:, file2:PATH, memory: or none:"
        )
    return make(residual, source)


def _name() -> tuple[str, str]:
    """Return the name of the cache, and what gave it."""
    name, kind = os.environ.get("KRB5RCACHENAME"), os.environ.get("KRB5RCACHETYPE")
    if name:
        return name, f"KRB5RCACHENAME={name!r}"
    if kind:
        return f"{kind}:", f"KRB5RCACHETYPE={kind!r}"
    from purekrb.krb5conf.config import Config  # only here is krb5.conf read
    from purekrb.krb5conf.tokens import expand_tokens

    try:
        name = expand_tokens(Config.from_file().default_rcache_name or "")
    except ConfigError as error:
        log.warning("the default replay cache is used, since krb5.conf cannot be read: %s", error)
        name = ""
    return (name, f"default_rcache_name = {name}") if name else ("dfl:", "")


def _default_file(_residual: str, _source: str) -> ReplayCache:
    from purekrb.replay.file import FileReplayCache

    try:
        cache = FileReplayCache()
        cache.check()
    except ReplayError as error:
        log.warning(
            "replays are remembered by this process alone, and not after its end, since there is "
            "no place for a file: %s",
            error,
        )
        return _memory
    return cache


def _file(residual: str, _source: str) -> ReplayCache:
    from purekrb.replay.file import FileReplayCache

    return FileReplayCache(residual)


def _no_cache(_residual: str, source: str) -> ReplayCache:
    log.warning("replays are not detected: %s", source)
    return NoReplayCache()


_TYPES: dict[str, Callable[[str, str], ReplayCache]] = {
    "dfl": _default_file,
    "file2": _file,
    "memory": lambda _residual, _source: _memory,
    "none": _no_cache,
}
