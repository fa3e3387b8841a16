"""MEMORY:name: ccaches that all code of this process shares. `load` returns the saved object.

`MEMORY:` alone is the collection of all of them, in the order in which they were made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from purekrb.errors import CredentialError
from purekrb.system import fork_safe, random_bytes

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache

__all__ = [
    "destroy",
    "load",
    "members",
    "merge",
    "primary",
    "save",
    "stamp",
    "switch",
    "unique",
    "unusable",
]

_caches: dict[str, CCache] = {}
#: The name of the primary; it need not exist.
_primary = ["tkt"]
_lock = fork_safe(threading.Lock())


def load(residual: str, decode: Callable[[bytes], CCache], *, foreign: bool = False) -> CCache:
    """Return the ccache that was saved under this name."""
    with _lock:
        if residual not in _caches:
            raise CredentialError(
                f"there is no credential cache MEMORY:{residual} in this process: save one"
            )
        return _caches[residual]


def save(residual: str, ccache: CCache) -> None:
    """Keep `ccache` itself under this name."""
    with _lock:
        _caches[residual] = ccache


def merge(residual: str, ccache: CCache) -> None:
    """Add what `ccache` holds to the ccache of this name."""
    with _lock:
        ccache._add_to(_caches.setdefault(residual, ccache))


def destroy(residual: str) -> None:
    """Forget the ccache of this name."""
    with _lock:
        if _caches.pop(residual, None) is None:
            raise CredentialError(f"there is no credential cache MEMORY:{residual} in this process")


def primary(residual: str) -> str:
    """Return the name of the ccache that `MEMORY:` stands for."""
    return residual or _primary[0]


def members(residual: str) -> list[str]:
    """Return the names of all ccaches of this process, the primary first."""
    with _lock:
        if residual:
            return [residual] if residual in _caches else []
        return sorted(_caches, key=lambda name: name != _primary[0])


def unique(residual: str) -> str:
    """Return a name that is not in use."""
    return random_bytes(8).hex()


def switch(residual: str) -> None:
    """Make this ccache the primary."""
    _primary[0] = primary(residual)


def stamp(residual: str) -> object:
    """Return the ccache itself."""
    return _caches.get(residual)


def unusable() -> str:
    """Return "": every process has memory."""
    return ""
