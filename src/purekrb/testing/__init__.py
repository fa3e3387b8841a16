"""An embedded KDC for tests and demos: `from purekrb.testing import Realm`, and the pytest fixture `krb_realm`.

`Realm` is a whole realm in this process, with users, services and real sockets, for tests of purekrb and of programs
that use it. It is for tests, not for production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purekrb.testing.realm import Realm

__all__ = ["Realm"]


def __getattr__(name: str) -> Any:
    # Lazy, since every run of pytest imports this package on its way to the plugin.
    if name == "Realm":
        from purekrb.testing.realm import Realm

        return Realm
    raise AttributeError(f"module 'purekrb.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
