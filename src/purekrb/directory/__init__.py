"""The directory of a domain: services register their names there, and publish where they listen.

This room speaks LDAP. It looks up accounts, writes service principal names, publishes and finds
service connection points (SCPs), and installs and verifies services. Everything except the pure
data is loaded on first use, because it imports ldap3.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from purekrb.directory.scp import ServiceConnectionPoint

__all__ = [
    "Account",
    "AccountStatus",
    "Directory",
    "EmbeddedDirectory",
    "Endpoint",
    "InstalledService",
    "RotatedKeys",
    "ServiceAccount",
    "ServiceConnectionPoint",
    "ServiceState",
    "SpnOperation",
    "VerifiedService",
]

if TYPE_CHECKING:
    from purekrb.directory.account_status import AccountStatus
    from purekrb.directory.accounts import Account
    from purekrb.directory.directory import Directory, EmbeddedDirectory
    from purekrb.directory.endpoints import Endpoint
    from purekrb.directory.install import InstalledService
    from purekrb.directory.rotation import RotatedKeys
    from purekrb.directory.service_accounts import ServiceAccount
    from purekrb.directory.spns import SpnOperation
    from purekrb.directory.state import ServiceState
    from purekrb.directory.verify import VerifiedService

_HOMES = {
    "Account": "accounts",
    "AccountStatus": "account_status",
    "Directory": "directory",
    "EmbeddedDirectory": "directory",
    "Endpoint": "endpoints",
    "InstalledService": "install",
    "RotatedKeys": "rotation",
    "ServiceAccount": "service_accounts",
    "ServiceState": "state",
    "SpnOperation": "spns",
    "VerifiedService": "verify",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"purekrb.directory.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
