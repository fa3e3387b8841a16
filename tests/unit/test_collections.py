"""Collections of credential caches: list, choose by principal, switch the primary, make a new one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from purekrb import CCache, CredentialError, Principal, UnsupportedError
from purekrb.credentials.caches import memory
from purekrb.records import replace
from support.credential_files import ALICE, BOB, TGS, ticket

CAROL = Principal.parse("carol@R.TEST")


@pytest.fixture(params=["DIR", "MEMORY"])
def collection(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of an empty collection."""
    monkeypatch.setattr(memory, "_caches", {})
    monkeypatch.setattr(memory, "_primary", ["tkt"])
    return f"DIR:{tmp_path}/cc" if request.param == "DIR" else "MEMORY:"


def tickets_of(client: Principal) -> CCache:
    return CCache(client, [replace(ticket(TGS), client=client)])


def principals(name: str) -> list[Principal]:
    return [ccache.principal for ccache in CCache.list(name)]


def test_each_principal_has_its_own_ccache(collection: str) -> None:
    assert CCache.list(collection) == []
    first = tickets_of(ALICE).save(collection)
    second = tickets_of(BOB).save(collection)
    assert first != second
    assert principals(collection) == [BOB, ALICE]  # the primary comes first
    assert CCache.load(collection).principal == BOB
    before = CCache.load(second).encode()
    assert tickets_of(ALICE).save(collection) == first
    assert principals(collection) == [ALICE, BOB]
    assert CCache.load(second).encode() == before
    assert len({first, second, tickets_of(CAROL).save(collection)}) == 3
    assert set(principals(collection)) == {ALICE, BOB, CAROL}


def test_a_merge_goes_to_the_ccache_of_its_principal(collection: str) -> None:
    first = tickets_of(ALICE).save(collection)
    tickets_of(BOB).save(collection)
    assert CCache(ALICE, [ticket()]).merge_into(collection) == first
    assert len(CCache.load(first)) == 2
    assert CCache.load(collection).principal == BOB  # a merge switches nothing
    tickets_of(CAROL).merge_into(collection)
    assert set(principals(collection)) == {ALICE, BOB, CAROL}


def test_a_ccache_is_chosen_by_its_principal(collection: str) -> None:
    tickets_of(ALICE).save(collection)
    tickets_of(BOB).save(collection)
    chosen = CCache.choose("alice@R.TEST", collection)
    assert chosen.principal == ALICE
    assert chosen.name is not None
    assert CCache.load(chosen.name).principal == ALICE
    with pytest.raises(CredentialError, match=r"of carol@R.TEST in .*those of bob@R.TEST, alice@R"):
        CCache.choose(CAROL, collection)


def test_the_primary_is_switched_and_destroyed(collection: str) -> None:
    first = tickets_of(ALICE).save(collection)
    second = tickets_of(BOB).save(collection)
    CCache.switch(first)
    assert CCache.load(collection).principal == ALICE
    CCache.destroy(collection)
    with pytest.raises(CredentialError, match=r"there are those of bob@R.TEST"):
        CCache.load(collection)
    assert principals(collection) == [BOB]
    CCache.switch(second)
    assert CCache.load(collection).principal == BOB
    with pytest.raises(CredentialError, match="there is no credential cache"):
        CCache.switch(first)


def test_a_new_name_is_not_in_use(collection: str) -> None:
    taken = tickets_of(ALICE).save(collection)
    new = CCache.new_name(collection)
    assert new != taken
    assert new.startswith(taken.partition(":")[0])
    tickets_of(ALICE).save(new)  # the same principal may have two, if they are named
    assert principals(collection) == [ALICE, ALICE]
    assert principals(new) == [ALICE]


def test_an_unreadable_member_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tickets_of(ALICE).save(f"DIR:{tmp_path}")
    (tmp_path / "tktdamaged").write_bytes(b"junk")
    (tmp_path / "tktdamaged").chmod(0o600)
    assert principals(f"DIR:{tmp_path}") == [ALICE]
    assert any("tktdamaged is left out" in record.getMessage() for record in caplog.records)


def test_files_of_a_directory_collection_are_private_and_in_mits_form(tmp_path: Path) -> None:
    directory = tmp_path / "cc"
    tickets_of(ALICE).save(f"DIR:{directory}")
    tickets_of(BOB).save(f"DIR:{directory}")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    names = sorted(os.listdir(directory))
    assert names[:2] == ["primary", "tkt"]
    assert names[2].startswith("tkt")
    assert (directory / "primary").read_text() == f"{names[2]}\n"
    assert {stat.S_IMODE((directory / name).stat().st_mode) for name in names} == {0o600}


def test_a_directory_whose_parent_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match=r"cannot make the directory .*no such file"):
        tickets_of(ALICE).save(f"DIR:{tmp_path}/no/cc")
    assert CCache.list(f"DIR:{tmp_path}/no/cc") == []


def test_a_file_is_a_collection_of_one(tmp_path: Path) -> None:
    path = f"FILE:{tmp_path}/cc"
    assert CCache.list(path) == []
    assert tickets_of(ALICE).save(path) == path
    assert principals(path) == [ALICE]
    assert CCache.choose(ALICE, path).name == path
    with pytest.raises(CredentialError, match=r"those of alice@R.TEST"):
        CCache.choose(BOB, path)
    with pytest.raises(UnsupportedError, match="set KRB5CCNAME=FILE:"):
        CCache.switch(path)
    new = CCache.new_name(path)
    assert new.startswith(path)
    tickets_of(BOB).save(new)
    assert principals(path) == [ALICE]
