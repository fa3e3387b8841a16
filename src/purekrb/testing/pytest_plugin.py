"""The pytest plugin of purekrb: the fixture `krb_realm`.

It is light to import, because every run of pytest loads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from purekrb.testing import Realm

__all__ = ["krb_realm"]


@pytest.fixture
def krb_realm() -> Iterator[Realm]:
    """A running embedded realm EXAMPLE.TEST without users or services; a new one for each test."""
    from purekrb.testing import Realm

    with Realm("EXAMPLE.TEST") as realm:
        yield realm
