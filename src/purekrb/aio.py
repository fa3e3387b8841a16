"""The asyncio counterparts of the public blocking calls. Each is loaded on first use (PEP 562)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["KdcClient", "canonicalize_host", "initiate", "keep_fresh", "connect", "start_server"]

if TYPE_CHECKING:
    from purekrb.channel.aio import connect, start_server
    from purekrb.kdc.client import AsyncKdcClient as KdcClient
    from purekrb.kdc.client import initiate_async as initiate
    from purekrb.kdc.hosts import canonicalize_host_async as canonicalize_host
    from purekrb.kdc.renewal import keep_fresh_async as keep_fresh

#: Public name -> (module, name there).
_HOMES = {
    "KdcClient": ("kdc.client", "AsyncKdcClient"),
    "canonicalize_host": ("kdc.hosts", "canonicalize_host_async"),
    "initiate": ("kdc.client", "initiate_async"),
    "keep_fresh": ("kdc.renewal", "keep_fresh_async"),
    "connect": ("channel.aio", "connect"),
    "start_server": ("channel.aio", "start_server"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'purekrb.aio' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(f"purekrb.{module}"), attribute)
    globals()[name] = value  # later accesses do not call this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
