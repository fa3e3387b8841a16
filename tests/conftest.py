"""Fixtures of all tests: the real peers, each started once per session and stopped with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.mit import MitRealm


@pytest.fixture(scope="session")
def mit_realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    """MIT's KDC with the realms MIT.TEST and SUB.TEST (tests/support/mit.py says who lives there)."""
    realm = MitRealm(tmp_path_factory.mktemp("mit"))
    yield realm
    realm.stop()
