"""The directory of a domain: where services register their names and publish where they can be found.

All but the pure data is loaded on first use, for it brings ldap3 with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from purekrb.directory.scp import ServiceConnectionPoint

__all__ = ["Account", "Directory", "EmbeddedDirectory", "ServiceConnectionPoint", "SpnOperation"]

if TYPE_CHECKING:
    from purekrb.directory.accounts import Account
    from purekrb.directory.directory import Directory, EmbeddedDirectory
    from purekrb.directory.spns import SpnOperation

_HOMES = {"Account": "accounts", "Directory": "directory", "EmbeddedDirectory": "directory", "SpnOperation": "spns"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"purekrb.directory.{_HOMES[name]}"), name)
