"""The directory of a domain: where services register their names and publish where they can be found.

`Directory` is loaded on first use, for it brings ldap3 with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from purekrb.directory.scp import ServiceConnectionPoint

__all__ = ["Directory", "ServiceConnectionPoint", "SpnOperation"]

if TYPE_CHECKING:
    from purekrb.directory.ldap import Directory, SpnOperation


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("purekrb.directory.ldap"), name)
