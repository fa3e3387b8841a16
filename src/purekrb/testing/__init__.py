"""An embedded KDC for tests and demos: the class `Realm`, and the pytest fixture `krb_realm`.

It is not built to withstand attackers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purekrb.testing.realm import Realm

__all__ = ["Realm"]


def __getattr__(name: str) -> Any:
    # Lazy, because every run of pytest imports this package on its way to the plugin.
    if name == "Realm":
        from purekrb.testing.realm import Realm

        return Realm
    raise AttributeError(f"module 'purekrb.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
