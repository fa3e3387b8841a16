"""A replay cache in Redis or Valkey, for acceptors of one service on several machines.

It needs the package redis: `pip install purekrb[redis]`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from threading import Lock
from typing import Any
from weakref import WeakSet

from purekrb.constants import ErrorCode
from purekrb.errors import ConfigError, ReplayError, UnsupportedError
from purekrb.replay.cache import KEEP, ReplayCache, log, remember_in, replayed, too_old
from purekrb.system import fork_safe, in_child, monotonic
from purekrb.tracebacks import forget_frames

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.cluster import RedisCluster
    from redis.exceptions import AuthenticationError, MovedError, NoPermissionError
    from redis.retry import Retry
except ImportError as missing:
    raise UnsupportedError(
        f"the package {missing.name} is not installed: run `pip install purekrb[redis]`"
    ) from None

__all__ = ["RedisReplayCache"]

_parse_url: Any = redis.connection.parse_url  # it has no type annotations
_KEEP = timedelta(seconds=KEEP)
_SCHEMES = ("redis", "rediss", "unix")
#: Seconds between two warnings that the fallback is in use.
_WARN_EVERY = 60


class RedisReplayCache:
    """A replay cache in the server at `url`: redis://HOST:PORT/DB, rediss://... (TLS), or unix://PATH.

    The user and the password are better given as `username` and `password` than in the URL. With
    TLS, the server's certificate must be of its host name and of a CA of the system, or of the file
    `ca_file` (PEM); `certificate` and `key` (PEM files) are those of the client. With `cluster`,
    the URL names one node of a cluster, and each authenticator goes to the node of its hash tag.

    An authenticator takes one command (SET NX PX), its key is `purekrb:replay:{TAG}`, and it is kept
    for 20 minutes. Authenticators are refused (ReplayError) unless the server answers within
    `timeout` seconds. With a `fallback`, usually a FileReplayCache, each authenticator is first
    stored there; if the server fails, the fallback alone decides, which the log tells. Then another
    machine accepts what this one has accepted.

    The server must keep all keys until they expire. A server that evicts keys (maxmemory-policy) is
    warned of; after one that has lost its keys, or a replica that has not got the last ones, takes
    over, authenticators of the last minutes would pass once more. The cache is safe for threads and
    after fork(). No repr, log or error shows the password.
    """

    @forget_frames
    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
        cluster: bool = False,
        timeout: float = 1.0,
        fallback: ReplayCache | None = None,
    ) -> None:
        scheme = url.partition("://")[0]
        if scheme not in _SCHEMES or (cluster and scheme == "unix"):
            raise ConfigError(
                "this is no URL of a Redis server: write redis://HOST:PORT/DB, rediss://HOST:PORT/DB "
                "for TLS, or unix://PATH"
            )
        tls = {"ssl_ca_certs": ca_file, "ssl_certfile": certificate, "ssl_keyfile": key}
        given = {name: value for name, value in tls.items() if value is not None}
        if given and scheme != "rediss":
            raise ConfigError("certificates are only used with TLS: write rediss:// in the URL")
        # The URL counts more than arguments to redis-py.
        logon = {"username": username, "password": password}
        given |= {name: value for name, value in logon.items() if value is not None}
        try:
            named = _parse_url(url)
        except ValueError:
            raise ConfigError(
                "this is no URL of a Redis server: check its port and its database"
            ) from None
        for name in given.keys() & named.keys():
            raise ConfigError(f"the {name} is given twice: leave it out of the URL")
        #: What errors and logs show of the server.
        self._where = (
            named.get("path") or f"{named.get('host', 'localhost')}:{named.get('port', 6379)}"
        )
        self._url = url
        self._options: dict[str, Any] = {
            **given,
            "protocol": 2,  # all servers have it
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            # A repeated SET would find its own key, and refuse the client as if it replayed.
            "retry": Retry(NoBackoff(), 0),
        }
        if scheme == "rediss":
            self._options["ssl_check_hostname"] = True
        self._cluster = cluster
        self._timeout = timeout
        self._fallback = fallback
        self._quiet_until = float("-inf")
        self._client: Any = None
        self._lock = fork_safe(Lock())
        _caches.add(self)

    def __repr__(self) -> str:
        return f"RedisReplayCache({self._where})"

    def remember(self, tag: bytes, ctime: datetime, now: datetime, client: str = "") -> None:
        """Store `tag`. Raises ReplayError if it was stored before, or if the server fails."""
        if now - ctime > _KEEP:
            raise too_old()
        if self._fallback is not None:
            remember_in(self._fallback, tag, ctime, now, client)
        kept = max(ctime - now, timedelta(0)) + _KEEP
        try:
            is_new = self._store(f"purekrb:replay:{{{tag.hex()}}}", kept)
        except (redis.RedisError, OSError) as error:
            self._failed(error)
            return
        if not is_new:
            raise replayed()

    def close(self) -> None:
        """Close the connections. The next `remember` opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    @forget_frames
    def _store(self, key: str, kept: timedelta) -> bool:
        client = self._client or self._connect()
        return bool(client.set(key, b"", nx=True, px=int(kept.total_seconds() * 1000) + 1))

    def _connect(self) -> Any:
        # Without the lock: while a server is silent, no thread waits for the attempts of others.
        made = RedisCluster if self._cluster else redis.Redis
        client = made.from_url(self._url, **self._options)
        self._warn_of_eviction(client)
        with self._lock:
            if self._client is None:
                self._client = client
            return self._client

    def _warn_of_eviction(self, client: Any) -> None:
        try:
            found = client.info("memory")
        except redis.ResponseError:  # the user may not ask
            return
        for server in (found, *found.values()):  # one server, or each of a cluster
            policy = server.get("maxmemory_policy") if isinstance(server, dict) else None
            if policy not in (None, "noeviction"):
                log.warning(
                    "the replay cache %s forgets authenticators when its memory is full: set its "
                    "maxmemory-policy to noeviction, not %s",
                    self._where,
                    policy,
                )

    def _failed(self, error: Exception) -> None:
        """Raise ReplayError, or warn if there is a fallback."""
        reason, remedy = _explain(error, self._timeout)
        if self._fallback is None:
            raise ReplayError(
                f"the replay cache {self._where} {reason}: no client can be accepted safely; {remedy}",
                code=ErrorCode.KRB_ERR_GENERIC,
            ) from None
        moment = monotonic()
        if moment >= self._quiet_until:
            self._quiet_until = moment + _WARN_EVERY
            log.warning(
                "the replay cache %s %s: replays are only detected on this machine; %s",
                self._where,
                reason,
                remedy,
            )


def _explain(error: Exception, timeout: float) -> tuple[str, str]:
    """Return what the server did, and what helps. Texts of the server hold no password."""
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return f"did not answer within {timeout:g} s", "check its load and the network"
    if isinstance(error, AuthenticationError | NoPermissionError):
        return f"refused us ({error})", "check user, password and rights (SET purekrb:replay:*)"
    if isinstance(error, redis.ConnectionError | OSError):
        return f"cannot be reached ({error})", "start it, or correct its URL"
    if isinstance(error, MovedError):
        return "is a node of a cluster", "pass cluster=True"
    return f"failed ({error})", "see its log"


#: A child process makes connections of its own: another thread may have held a lock of redis-py.
_caches: WeakSet[RedisReplayCache] = WeakSet()
_inherited: list[Any] = []


def _in_child() -> None:
    for cache in list(_caches):
        if cache._client is not None:
            _inherited.append(cache._client)  # never closed here: its parent uses the connections
            cache._client = None


in_child(_in_child)
