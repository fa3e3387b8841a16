"""`purekrb convert`: tickets from a kirbi to a credential cache and back; nothing that exists is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from purekrb import CCache, Kirbi
from purekrb.testing import Realm
from support.canaries import PASSWORD
from support.commands import Commands

WEB = "HTTP/web.example.test"


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", PASSWORD)
        realm.add_service(WEB)
        yield realm


@pytest.fixture
def run(
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    realm: Realm,
) -> Commands:
    run = Commands(tmp_path, monkeypatch, capsys, realm)  # type: ignore[arg-type]
    assert run("kinit", "alice", stdin=PASSWORD).code == 0
    return run


def test_a_ticket_that_went_through_a_kirbi_still_works(
    run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = run("convert", "ccache", "Alice.KIRBI", "--json")
    assert there.json == [
        {"source": "ccache", "target": "Alice.KIRBI", "format": "kirbi", "tickets": 1}
    ]
    assert run("convert", "Alice.KIRBI", f"FILE:{run.directory}/back").code == 0
    back = CCache.load(run.directory / "back")
    assert (
        list(back)
        == list(CCache.load(run.directory / "ccache"))
        == list(Kirbi.load(run.directory / "Alice.KIRBI"))
    )
    assert run("kvno", WEB, "-c", "back").code == 0


def test_a_target_that_exists_stays_as_it_is(run: Commands) -> None:
    before = (run.directory / "ccache").read_bytes()
    assert run("convert", "ccache", "t.kirbi").code == 0
    for target in ("ccache", "FILE:ccache"):
        refused = run("convert", "t.kirbi", target)
        assert (refused.code, "exists: choose another name" in refused.err) == (7, True)
    CCache.load("ccache").save("MEMORY:there")
    assert run("convert", "t.kirbi", "MEMORY:there").code == 7
    assert run("convert", "t.kirbi", "MEMORY:elsewhere").code == 0
    assert run("convert", "MEMORY:elsewhere", "u.kirbi").code == 0
    assert (run.directory / "ccache").read_bytes() == before


def test_what_is_neither_is_refused(run: Commands) -> None:
    for name in ("noise", "noise.kirbi"):
        (run.directory / name).touch(0o600)
        (run.directory / name).write_bytes(b"neither of the two")
        refused = run("convert", name, "target")
        assert (refused.code, "this is not a kirbi" in refused.err) == (8, True)
        assert not (run.directory / "target").exists()
    assert run("convert", "missing", "target").code == 7
