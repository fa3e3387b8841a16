"""What the tests of the command share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from purekrb.testing import Realm
from support.canaries import PASSWORD
from support.commands import Commands

WEB = "HTTP/web.example.test"


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    """A realm with two users and a web service."""
    with Realm("EXAMPLE.TEST") as realm:
        for user in ("alice", "bob"):
            realm.add_user(user, PASSWORD)
        realm.add_service(WEB)
        yield realm


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    realm: Realm,
) -> Commands:
    """Runs commands in the realm; the default keytab has the keys of the web service."""
    realm.keytab(WEB).save(tmp_path / "keytab")
    return Commands(tmp_path, monkeypatch, capsys, realm)


@pytest.fixture
def logged_in(run: Commands) -> Commands:
    """Runs commands as alice."""
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    return run
