"""MEMORY:name: ccaches that all code of this process shares. `load` returns the saved object."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from purekrb.errors import CredentialError
from purekrb.system import fork_safe

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache

__all__ = ["destroy", "load", "merge", "save"]

_caches: dict[str, CCache] = {}
_lock = fork_safe(threading.Lock())


def load(residual: str, decode: Callable[[bytes], CCache]) -> CCache:
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
