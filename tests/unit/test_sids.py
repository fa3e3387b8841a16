"""Names of SIDs: from a table, from the directory, remembered, and never a wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from purekrb import DecodeError
from purekrb.directory import Directory, EmbeddedDirectory
from purekrb.directory import sids as sids_module
from purekrb.directory.ldap import LdapSession
from purekrb.directory.sids import MAX_SIDS, WELL_KNOWN, SidNames
from purekrb.errors import AccountNotFoundError, DirectoryError
from purekrb.sid import Sid

BASE = "DC=example,DC=test"
FOREIGN = Sid.parse("S-1-5-21-9-9-9-1105")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def directory() -> Iterator[EmbeddedDirectory]:
    with Directory.embedded("example.test") as directory:
        yield directory


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The filters of the searches that are made by SID."""
    made: list[str] = []
    search = LdapSession.search

    def watched(self: LdapSession, base: str, search_filter: str, *args: Any, **named: Any) -> Any:
        if "objectSid" in search_filter:
            made.append(search_filter)
        return search(self, base, search_filter, *args, **named)

    monkeypatch.setattr(LdapSession, "search", watched)
    return made


def test_sids_of_users_computers_and_groups_get_the_names_that_windows_shows(
    directory: EmbeddedDirectory,
) -> None:
    alice, web = directory.add_user("alice"), directory.add_computer("web.example.test")
    admins = directory.add_group("Web Admins")
    names = directory.resolve([admins.sid, str(alice.sid), web.sid, FOREIGN, "s-1-5-11", "S-1-1-0"])
    assert names == {
        admins.sid: "EXAMPLE\\Web Admins",
        alice.sid: "EXAMPLE\\alice",
        web.sid: "EXAMPLE\\WEB$",
        Sid.parse("S-1-5-11"): "NT AUTHORITY\\Authenticated Users",
        Sid.parse("S-1-1-0"): "Everyone",
    }
    assert list(names)[:2] == [admins.sid, alice.sid]  # in the order of the question
    assert directory.resolve([]) == {}


def test_well_known_sids_need_no_directory() -> None:
    def nobody() -> Any:
        raise AssertionError("the directory was asked")

    assert SidNames().resolve(WELL_KNOWN, nobody) == WELL_KNOWN
    assert WELL_KNOWN[Sid.parse("S-1-5-32-544")] == "BUILTIN\\Administrators"
    assert WELL_KNOWN[Sid.parse("S-1-5-18")] == "NT AUTHORITY\\SYSTEM"
    assert len(set(WELL_KNOWN.values())) == len(WELL_KNOWN)


def test_a_name_has_a_sid_and_the_way_back(directory: EmbeddedDirectory) -> None:
    group, alice = directory.add_group("Web Admins"), directory.add_user("alice")
    for name in (
        "Web Admins",
        "EXAMPLE\\web admins",
        "example.test\\Web Admins",
        group.dn,
        str(group.sid),
    ):
        assert directory.find_sid(name) == group.sid
    assert directory.find_sid("alice@example.test") == directory.find_sid("alice") == alice.sid
    assert directory.find_sid("builtin\\administrators") == Sid.parse("S-1-5-32-544")
    for absent in ("Web*", "nobody", "CN=nobody,DC=example,DC=test"):
        with pytest.raises(AccountNotFoundError):
            directory.find_sid(absent)
    with pytest.raises(DirectoryError) as other:
        directory.find_sid("OTHER\\Web Admins")
    assert other.value.code == 1355
    with pytest.raises(AccountNotFoundError):  # a group is no account
        directory.find_account("Web Admins")


def test_names_are_remembered_for_a_while_and_what_has_none_for_a_shorter_one(
    directory: EmbeddedDirectory, searches: list[str]
) -> None:
    clock = Clock()
    names = directory._names = SidNames(clock)
    group = directory.add_group("Web Admins")
    searches.clear()
    wanted = [group.sid, FOREIGN]
    for _ in range(3):
        assert directory.resolve(wanted) == {group.sid: "EXAMPLE\\Web Admins"}
    assert len(searches) == 1
    clock.now += 61
    directory.resolve(wanted)
    assert len(searches) == 2
    assert len(searches[1]) < len(searches[0])  # the foreign one alone
    directory._session.modify(
        group.dn,
        [sids_change("sAMAccountName", "Old Admins")],
    )
    assert directory.resolve([group.sid])[group.sid] == "EXAMPLE\\Web Admins"
    assert directory.resolve([group.sid], max_age=30)[group.sid] == "EXAMPLE\\Old Admins"
    clock.now += 601
    directory._session.delete(group.dn)
    assert directory.resolve([group.sid]) == {}
    assert names is directory._names


def sids_change(name: str, value: str) -> Any:
    from purekrb.directory.ldap import Change, ChangeOperation

    return Change(ChangeOperation.REPLACE, name, [value])


def test_many_sids_are_asked_for_in_batches_and_the_memory_is_bounded(
    directory: EmbeddedDirectory, searches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = directory.add_group("Web Admins")
    many = [Sid(5, (21, 9, 9, 9, rid)) for rid in range(1000, 1249)]
    searches.clear()
    assert directory.resolve([*many, group.sid]) == {group.sid: "EXAMPLE\\Web Admins"}
    assert [one.count("objectSid=") for one in searches] == [100, 100, 50]
    monkeypatch.setattr(sids_module, "MAX_SIDS", 20)
    directory.resolve([*many[:19], group.sid], max_age=0)
    assert len(directory._names._found) == 20


def test_k656_more_sids_than_anybody_has_are_refused(directory: EmbeddedDirectory) -> None:
    some = [Sid(5, (21, 1, 1, 1, rid)) for rid in range(MAX_SIDS + 1)]
    with pytest.raises(DirectoryError, match="more than the 10000 of one call") as refused:
        directory.resolve(some)
    assert refused.value.code == 87
    for malformed in ("S-1-5-21-", "alice", "S-1-5-32-544)(objectClass=*"):
        with pytest.raises(DecodeError):
            directory.resolve([malformed])
    with pytest.raises(TypeError, match="not one text"):
        directory.resolve("S-1-5-11")
    assert directory.resolve(some[:1]) == {}


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param({"cn": ["S-1-5-21-9-9-9-1105"]}, id="K657-foreign-security-principal"),
        pytest.param({"sAMAccountName": ["\x1b]0;root\x07"]}, id="K657-control-characters"),
        pytest.param({"sAMAccountName": [""]}, id="K657-empty"),
    ],
)
def test_an_object_that_does_not_say_its_name_gives_none(
    directory: EmbeddedDirectory, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, list[str]]
) -> None:
    answering(monkeypatch, [(f"CN=x,{BASE}", {"objectSid": [FOREIGN.encode()], **raw(attributes)})])
    assert directory.resolve([FOREIGN]) == {}
    answering(
        monkeypatch,
        [(f"CN=x,{BASE}", {"objectSid": [FOREIGN.encode()], "sAMAccountName": [b"alice"]})],
    )
    assert directory.resolve([FOREIGN], max_age=0) == {FOREIGN: "EXAMPLE\\alice"}


def raw(attributes: dict[str, list[str]]) -> dict[str, list[bytes]]:
    return {name: [value.encode() for value in values] for name, values in attributes.items()}


def answering(
    monkeypatch: pytest.MonkeyPatch, entries: list[tuple[str, dict[str, list[bytes]]]]
) -> None:
    """Have the directory answer each search by SID with these entries."""
    from purekrb.directory.answers import Entry, spelled
    from purekrb.directory.embedded import EmbeddedSession

    search = EmbeddedSession.search
    columns = {name.casefold(): name for name in ("objectSid", "sAMAccountName")}

    def answer(self: Any, base: str, search_filter: str, *args: Any, **named: Any) -> Any:
        if "objectSid" in search_filter:
            return [Entry(dn, spelled(values.items(), columns)) for dn, values in entries]
        return search(self, base, search_filter, *args, **named)

    monkeypatch.setattr(EmbeddedSession, "search", answer)


def test_k658_an_answer_about_another_sid_or_with_two_names_gives_none(
    directory: EmbeddedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Sid.parse("S-1-5-21-9-9-9-512")

    def named(
        sid: Sid | bytes, name: str, dn: str = f"CN=x,{BASE}"
    ) -> tuple[str, dict[str, list[bytes]]]:
        data = sid if isinstance(sid, bytes) else sid.encode()
        return dn, {"objectSid": [data], "sAMAccountName": [name.encode()]}

    for answers in (
        [named(other, "Domain Admins")],
        [named(FOREIGN, "alice"), named(FOREIGN, "bob")],
        [named(FOREIGN.encode()[:-1], "alice")],
        [named(b"", "alice")],
        [named(FOREIGN, "alice", "CN=x,DC=elsewhere,DC=test")],
        [named(FOREIGN, "alice", "CN=x")],
    ):
        answering(monkeypatch, answers)
        assert directory.resolve([FOREIGN], max_age=0) == {}
    answering(monkeypatch, [named(FOREIGN, "alice"), named(other, "Domain Admins")])
    assert directory.resolve([FOREIGN], max_age=0) == {FOREIGN: "EXAMPLE\\alice"}
