"""krb5.conf, credential caches and keytabs of the process, read again only if they have changed.

A program that uses GSS-API names files again and again; a library must see at once that another
program has renewed a ticket. So each file is kept with the state (inode, size, time) it had.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Generic, TypeVar

from purekrb.credentials import defaults, files
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab
from purekrb.kdc.client import KdcClient
from purekrb.krb5conf.config import DEFAULT_PATH, Config

__all__ = [
    "client",
    "config",
    "current",
    "default_ccache_name",
    "default_realm",
    "credential_in",
    "keytab_in",
    "set_default_ccache_name",
]

T = TypeVar("T")
#: The most files of a kind that are kept.
_MAX_KEPT = 64
#: For so many seconds, krb5.conf is taken not to have changed.
_FRESH = 1.0
_own = threading.local()


class _Files(Generic[T]):
    """What `read` returns for a name, as long as the file has the same state."""

    def __init__(self, read: Callable[[str], T]) -> None:
        self._read = read
        self._kept: dict[str, tuple[Any, T]] = {}

    def __call__(self, name: str) -> T:
        state = _state(name)
        kept = self._kept.get(name)
        if kept is not None and state is not None and kept[0] == state:
            return kept[1]
        value = self._read(name)
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        # The state before reading: if the file has changed since, it is read again.
        self._kept[name] = state, value
        return value


def _state(name: str) -> tuple[int, int, int] | None:
    """Return what changes with the file of `name`; None if that cannot be told."""
    path = name
    if not name.startswith("/"):
        kind, path = files.split_type(name)
        if kind not in ("FILE", "WRFILE"):
            return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


_ccaches: _Files[Credential] = _Files(lambda name: Credential.from_ccache(CCache.load(name)))
keytab_in: _Files[Keytab] = _Files(Keytab.load)


class _Client:
    """The client of one configuration: of these files, in this state."""

    def __init__(self, listed: str | None, states: list[tuple[int, int, int] | None]) -> None:
        self.listed, self.states = listed, states
        self.client = KdcClient(Config.from_file())
        self.permitted_etypes = self.client.config.permitted_etypes
        self.checked = monotonic()


_client: _Client | None = None


def current() -> _Client:
    """Return the client of the configuration that the environment names now.

    As in MIT's library, files are looked at once a second; those that they include, never again.
    """
    global _client
    listed = os.environ.get("KRB5_CONFIG")
    found = _client
    if found is not None and found.listed == listed:
        if monotonic() - found.checked < _FRESH:
            return found
        if found.states == _states(listed):
            found.checked = monotonic()
            return found
    _client = found = _Client(listed, _states(listed))
    return found


def _states(listed: str | None) -> list[tuple[int, int, int] | None]:
    paths = listed.split(os.pathsep) if listed else [str(DEFAULT_PATH)]
    return [_state(f"FILE:{path}") for path in paths]


def client() -> KdcClient:
    """Return the client of the current configuration."""
    return current().client


def config() -> Config:
    """Return the configuration that the environment names now."""
    return client().config


def default_realm() -> str:
    """Return the default realm; "" if there is none."""
    return config().default_realm or ""


def default_ccache_name() -> str:
    """Return the name of the default credential cache: the thread's own, or the process's."""
    own: str | None = getattr(_own, "ccache_name", None)
    return defaults.ccache_name(own, config()).name


def set_default_ccache_name(name: str | None) -> None:
    """Set the default credential cache of this thread; None: that of the process."""
    _own.ccache_name = name


def default_keytab_name() -> str:
    """Return the name of the default keytab."""
    return defaults.keytab_name(None, config()).name


def default_client_keytab_name() -> str | None:
    """Return the name of the client keytab, or None if none is configured and there is none."""
    chosen = defaults.client_keytab_name(None, config())
    return chosen.name if chosen.named or defaults.exists(chosen) else None


def credential_in(name: str) -> Credential:
    """Return the credential of the tickets in a credential cache. Raises CredentialError."""
    return _ccaches(name)


def keep(name: str, credential: Credential) -> None:
    """Write the new tickets of `credential` to the credential cache `name`.

    Raises CredentialError if it cannot be written.
    """
    credential.with_impersonator().merge_into(name)
