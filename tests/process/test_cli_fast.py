"""`kinit -T` and `--require`: a password in an armor, or not sent at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from purekrb.testing import Realm
from support.canaries import PASSWORD
from support.commands import Commands


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", PASSWORD)
        realm.add_user("host", PASSWORD)
        yield realm


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    realm: Realm,
) -> Commands:
    return Commands(tmp_path, monkeypatch, capsys, realm)


def test_the_floor_needs_an_armor(run: Commands) -> None:
    refused = run("kinit", "alice", "--require", "fast", stdin=PASSWORD)
    assert refused.code == 1
    assert "FAST is required, but there is no armor; nothing was sent" in refused.err
    assert not (run.directory / "ccache").exists()
    assert run("kinit", "host", "-c", "FILE:armor", stdin=PASSWORD).code == 0
    in_fast = run(
        "kinit", "alice", "-T", "FILE:armor", "--require", "fast", "--trace", stdin=PASSWORD
    )
    assert in_fast.code == 0
    assert "AS-REQ in FAST to EXAMPLE.TEST" in in_fast.err
    missing = run("kinit", "alice", "-T", "FILE:missing", stdin=PASSWORD)
    assert missing.code == 7
    assert "-T FILE:missing: there is no credential cache" in missing.err
    weak = run("kinit", "alice", "--require", "strong", stdin=PASSWORD)
    assert weak.code == 1
    assert "PA-ENC-TIMESTAMP" in weak.err
