"""Group managed service accounts: the password that a directory makes, as keys that are asked for again in time."""

from __future__ import annotations

import logging
import struct
import traceback
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    Credential,
    DecodeError,
    EncryptionKey,
    Initiator,
    Keytab,
    Principal,
)
from purekrb.directory import Directory, EmbeddedDirectory
from purekrb.directory.ldap import ANY_OBJECT, Change, ChangeOperation, LdapSession, Scope
from purekrb.directory.managed_accounts import ManagedKeytab, ManagedPassword, managed_keytab
from purekrb.directory.security_descriptor import SecurityDescriptor
from purekrb.errors import (
    AccountNotFoundError,
    DirectoryError,
    InsufficientRightsError,
    KerberosError,
    PolicyError,
)
from purekrb.replay import MemoryReplayCache
from purekrb.sid import Sid
from support.tickets import issue
from support.vectors import params

BASE = "DC=example,DC=test"
HOURS = 3600 * 10_000_000
#: Characters of which a password may consist: also lone surrogates.
OLD, NEW = (
    "old\ud800canary-of-the-past".encode("utf-16-le", "surrogatepass"),
    bytes(range(1, 255)) + b"\x00\xdc",
)


def blob(
    current: bytes = NEW,
    previous: bytes | None = OLD,
    *,
    query: int = 700 * HOURS,
    unchanged: int = 699 * HOURS,
    padding: int = 0,
    header: Mapping[str, int] = MappingProxyType({}),
) -> bytes:
    """Return the value of the attribute; `header` changes fields of its header."""
    body = current + b"\0\0"
    offsets = {"current": 16, "previous": 0}
    if previous is not None:
        offsets["previous"] = 16 + len(body)
        body += previous + b"\0\0"
    body += bytes(padding)
    offsets["query"] = 16 + len(body)
    offsets["unchanged"] = offsets["query"] + 8
    body += struct.pack("<QQ", query, unchanged)
    fields = {"version": 1, "reserved": 0, "length": 16 + len(body), **offsets, **header}
    return struct.pack("<HHIHHHH", *fields.values()) + body


# The value -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", params("managed_password.json", "{name}"))
def test_the_keys_are_those_that_the_kdc_has(vector: dict[str, Any]) -> None:
    password = ManagedPassword.decode(vector["blob"])
    assert round(password.query_interval * 10_000_000) == vector["query_interval"]
    assert round(password.unchanged_interval * 10_000_000) == vector["unchanged_interval"]
    etypes = [etype for etype in (18, 17, 23) if vector[f"current_{etype}"]]
    keytab = password.keytab(vector["name"], kvno=8, etypes=etypes)
    expected = {
        (kvno, etype): vector[f"{which}_{etype}"]
        for which, kvno in (("current", 8), ("previous", 7))
        for etype in etypes
        if vector[f"{which}_{etype}"]
    }
    assert {(entry.kvno, entry.key.etype): entry.key.contents for entry in keytab} == expected
    assert {str(entry.principal) for entry in keytab} == {vector["name"]}
    assert (
        password.keytab(vector["name"], kvno=8, salt=vector["salt"]).entries[0].key
        == keytab.entries[0].key
    )


def test_entries_have_the_names_of_the_services_too() -> None:
    keytab = ManagedPassword.decode(blob()).keytab(
        "g$@EXAMPLE.TEST", "HTTP/g.example.test@EXAMPLE.TEST", kvno=2
    )
    assert [(str(entry.principal), entry.kvno, entry.key.etype) for entry in keytab] == [
        (name, kvno, etype)
        for kvno in (2, 1)
        for name in ("g$@EXAMPLE.TEST", "HTTP/g.example.test@EXAMPLE.TEST")
        for etype in (18, 17)
    ]
    first = ManagedPassword.decode(blob(previous=None)).keytab("g$@EXAMPLE.TEST")
    assert {entry.kvno for entry in first} == {1}
    # The number may lag behind. No key is lost for that.
    assert {entry.kvno for entry in ManagedPassword.decode(blob()).keytab("g$@EXAMPLE.TEST")} == {
        1,
        0,
    }


def test_k661_no_part_of_a_password_that_is_cut_is_taken() -> None:
    whole = blob()
    assert ManagedPassword.decode(whole).current == NEW
    assert ManagedPassword.decode(blob(padding=6)).previous == OLD
    for size in range(len(whole)):
        with pytest.raises(DecodeError, match="the password of a managed account cannot be read"):
            ManagedPassword.decode(whole[:size])
        cut = whole[:4] + struct.pack("<I", size) + whole[8:size]
        with pytest.raises(DecodeError):
            ManagedPassword.decode(cut)
    with pytest.raises(DecodeError, match="and says"):
        ManagedPassword.decode(whole + b"\0")


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"version": 2}, id="K662-version"),
        pytest.param({"current": 0}, id="K662-no-current"),
        pytest.param({"current": 14}, id="K662-in-the-header"),
        pytest.param({"previous": 16}, id="K662-the-same-twice"),
        pytest.param({"previous": 18}, id="K662-inside-of-the-other"),
        pytest.param({"current": 0xFFFE}, id="K662-outside"),
        pytest.param({"previous": 0xFFFF}, id="K662-previous-outside"),
        pytest.param({"query": 16}, id="K662-interval-over-a-password"),
        pytest.param({"query": 8}, id="K662-interval-in-the-header"),
        pytest.param({"unchanged": 0xFFF8}, id="K662-interval-outside"),
        pytest.param({"unchanged": 0}, id="K662-no-interval"),
        pytest.param({"length": 0}, id="K662-no-length"),
        pytest.param({"length": 0xFFFFFFFF}, id="K662-length"),
    ],
)
def test_parts_that_are_elsewhere_or_overlap_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(DecodeError):
        ManagedPassword.decode(blob(header=wrong))
    assert ManagedPassword.decode(blob()).previous == OLD


@pytest.mark.parametrize(
    "passwords",
    [(b"", None), (NEW, b""), (b"a\0" * 513, None)],
    ids=["K663-empty", "K663-empty-previous", "K663-endless"],
)
def test_a_password_that_is_none_or_has_no_end_is_refused(
    passwords: tuple[bytes, bytes | None],
) -> None:
    with pytest.raises(DecodeError):
        ManagedPassword.decode(blob(*passwords))
    assert ManagedPassword.decode(blob(b"a\0" * 512, None)).current == b"a\0" * 512


def test_k663_intervals_without_end_are_only_long() -> None:
    password = ManagedPassword.decode(blob(query=(1 << 64) - 1, unchanged=0))
    assert password.query_interval > 1e12
    assert password.unchanged_interval == 0


def test_k664_no_password_and_no_key_is_shown() -> None:
    data = blob()
    password = ManagedPassword.decode(data)
    shown = [repr(password), str(password), f"{password}", repr(password.keytab("g$@EXAMPLE.TEST"))]
    for broken in (data[:-1], blob(header={"version": 9}), blob(header={"unchanged": 0})):
        with pytest.raises(DecodeError) as caught:
            ManagedPassword.decode(broken)
        shown.append(repr(caught.value))
        stack = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        shown += [line for line in stack.format() if "test_managed_accounts" not in line]
    for text in shown:
        assert "canary" not in text
        assert NEW.hex() not in text
        assert repr(NEW)[2:40] not in text
    assert "query_interval=" in shown[0]


# From a directory ----------------------------------------------------------------------------------


class Clock:
    now = 5000.0

    def __call__(self) -> float:
        return self.now


def write(directory: EmbeddedDirectory, dn: str, **values: Any) -> None:
    changes = [
        Change(ChangeOperation.REPLACE, name.replace("_", "-"), [] if value is None else [value])
        for name, value in values.items()
    ]
    LdapSession.modify(directory._session, dn, changes)


@pytest.fixture
def directory() -> Iterator[EmbeddedDirectory]:
    with Directory.embedded("example.test") as directory:
        directory.add_computer("web.example.test")
        directory._session.add(f"CN=Managed Service Accounts,{BASE}", "container", {})
        yield directory


@pytest.fixture
def account(directory: EmbeddedDirectory) -> str:
    made = directory.create_managed_account(
        "gmsa-web", spns=["HTTP/gmsa-web.example.test", "HTTP/10.0.0.1"], permitted=["WEB$"]
    )
    write(directory, made.dn, msDS_ManagedPassword=blob(), msDS_KeyVersionNumber="7")
    return made.dn


def test_an_account_is_made_enabled_with_aes_for_those_who_may_read(
    directory: EmbeddedDirectory, account: str
) -> None:
    names = ("userAccountControl", "msDS-SupportedEncryptionTypes", "dNSHostName", "sAMAccountName")
    columns = (*names, "msDS-ManagedPasswordInterval", "msDS-GroupMSAMembership")
    (entry,) = directory._session.search(account, ANY_OBJECT, columns, scope=Scope.BASE)
    assert account == f"CN=gmsa-web,CN=Managed Service Accounts,{BASE}"
    assert [entry.text(name) for name in names] == [
        "4096",
        "24",
        "gmsa-web.example.test",
        "gmsa-web$",
    ]
    assert entry.text("msDS-ManagedPasswordInterval") == "30"
    web = directory.find_account("WEB$").sid
    assert readers(directory, account) == [web]
    alice, admins = directory.add_user("alice").sid, directory.add_group("Web Servers").sid
    for _ in range(2):
        directory.permit_managed_account("gmsa-web", ["alice", "Web Servers", "WEB$"])
        assert readers(directory, account) == [web, alice, admins]
    with pytest.raises(AccountNotFoundError):
        directory.permit_managed_account("gmsa-web", ["nobody"])
    with pytest.raises(DirectoryError):
        directory.permit_managed_account("alice", ["WEB$"])
    with pytest.raises(TypeError):
        directory.permit_managed_account("gmsa-web", "WEB$")
    assert readers(directory, account) == [web, alice, admins]


def readers(directory: EmbeddedDirectory, dn: str) -> list[Sid]:
    (entry,) = directory._session.search(
        dn, ANY_OBJECT, ("msDS-GroupMSAMembership",), scope=Scope.BASE
    )
    descriptor = SecurityDescriptor.decode(entry.attributes["msDS-GroupMSAMembership"][0])
    assert descriptor.dacl is not None
    return [Sid.decode(ace.body[4:]) for ace in descriptor.dacl.aces]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a" * 16},
        {"name": "a,b"},
        {"name": "a*"},
        {"name": "x", "dns_host_name": "web"},
        {"name": "x", "interval": 0},
        {"name": "x", "spns": ["web"]},
        {"name": "x", "permitted": ["nobody"]},
    ],
)
def test_no_account_is_made_by_half_of_an_order(
    directory: EmbeddedDirectory, wrong: dict[str, Any]
) -> None:
    with pytest.raises(KerberosError):
        directory.create_managed_account(**wrong)
    found = directory._session.search(BASE, "(objectClass=msDS-GroupManagedServiceAccount)")
    assert found == []
    assert directory.create_managed_account("x$").name == "x$"


def contents(keytab: Keytab, kvno: int | None = None) -> set[bytes]:
    return {entry.key.contents for entry in keytab if kvno in (None, entry.kvno)}


def test_an_acceptor_takes_tickets_of_both_keys_and_of_the_next_one(
    directory: EmbeddedDirectory, account: str
) -> None:
    clock = Clock()
    keytab = managed_keytab(lambda: directory._session, "gmsa-web", monotonic=clock)
    service = Principal.parse("HTTP/gmsa-web.example.test@EXAMPLE.TEST")

    def accepted(key: EncryptionKey, kvno: int) -> bool:
        ticket, _ = issue(key=key, kvno=kvno, service=service)
        acceptor = Acceptor(keytab, replay_cache=MemoryReplayCache())
        try:
            acceptor.step(Initiator(ticket).step())
        except ApError:
            return False
        return acceptor.established

    current, previous = (keytab.find(service, kvno, 18)[0].key for kvno in (7, 6))
    assert accepted(current, 7)
    assert accepted(previous, 6)
    assert accepted(current, 8)  # the number that the directory told may lag behind
    write(
        directory,
        account,
        msDS_ManagedPassword=blob(b"next" * 2, NEW),
        msDS_KeyVersionNumber="8",
    )
    following = ManagedPassword.decode(blob(b"next" * 2, NEW)).keytab(
        "gmsa-web$@EXAMPLE.TEST", kvno=8
    )
    assert not accepted(following.entries[0].key, 8)
    clock.now += 700 * 3600
    assert accepted(following.entries[0].key, 8)
    assert accepted(current, 7)


def test_the_keys_come_with_all_names_of_the_account(
    directory: EmbeddedDirectory, account: str
) -> None:
    for name in ("gmsa-web", "GMSA-WEB$", account, "EXAMPLE\\gmsa-web$"):
        keytab = directory.managed_keytab(name)
        assert {str(one) for one in keytab.principals} == {
            "gmsa-web$@EXAMPLE.TEST",
            "HTTP/gmsa-web.example.test@EXAMPLE.TEST",
        }
        assert str(keytab.principals[0]) == "gmsa-web$@EXAMPLE.TEST"
        assert {entry.kvno for entry in keytab} == {7, 6}
        assert {entry.key.etype for entry in keytab} == {18, 17}
    expected = ManagedPassword.decode(blob()).keytab("gmsa-web$@EXAMPLE.TEST", kvno=7)
    assert contents(keytab) == contents(expected)
    assert 699 * 3600 < keytab.next_query <= 700 * 3600
    assert Keytab.decode(keytab.encode()).principals == keytab.principals


def test_the_directory_is_asked_again_when_the_interval_is_over(
    directory: EmbeddedDirectory, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    keytab = managed_keytab(lambda: directory._session, "gmsa-web", monotonic=clock)
    write(
        directory,
        account,
        msDS_ManagedPassword=blob(b"next" * 2, NEW, query=10 * HOURS),
        msDS_KeyVersionNumber="8",
    )
    clock.now += 700 * 3600 - 1
    assert keytab.current() is keytab
    clock.now += 1
    newer = keytab.current()
    assert {entry.kvno for entry in newer} == {8, 7}
    assert keytab.current() is newer.current() is newer
    current = contents(keytab, 7)
    assert current == contents(newer, 7)  # now the previous one
    # If the directory fails, the keys stay, and it is asked again after a minute.
    write(directory, account, msDS_ManagedPassword=None)
    clock.now += 10 * 3600
    caplog.set_level(logging.WARNING, logger="purekrb")
    assert keytab.current() is newer
    assert "stay in use" in caplog.text
    write(directory, account, msDS_ManagedPassword=blob(), msDS_KeyVersionNumber="9")
    clock.now += 59
    assert keytab.current() is newer
    clock.now += 1
    assert {entry.kvno for entry in keytab.current()} == {9, 8}


def test_k663_an_interval_of_nothing_is_a_minute(
    directory: EmbeddedDirectory, account: str
) -> None:
    clock = Clock()
    write(directory, account, msDS_ManagedPassword=blob(query=0, unchanged=0))
    keytab = managed_keytab(lambda: directory._session, "gmsa-web", monotonic=clock)
    assert keytab.next_query == 60
    clock.now += 59
    assert keytab.current() is keytab
    clock.now += 1
    assert keytab.current() is not keytab


def test_a_credential_takes_the_keys_and_the_next_ones(
    directory: EmbeddedDirectory, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = Credential.from_gmsa(directory, "gmsa-web")
    assert (str(credential.principal), credential.kvno) == ("gmsa-web$@EXAMPLE.TEST", 7)
    assert credential.can_get_tgt
    source = credential._keytab._source  # type: ignore[union-attr]
    write(directory, account, msDS_ManagedPassword=blob(NEW * 2, NEW), msDS_KeyVersionNumber="8")
    credential.reload_keys()
    assert credential.kvno == 7
    for kvno in (8, 9):
        write(directory, account, msDS_KeyVersionNumber=str(kvno))
        source.due = 0.0
        credential.reload_keys()
        assert credential.kvno == kvno


def test_who_may_not_read_is_told_the_cause_in_words(
    directory: EmbeddedDirectory, account: str
) -> None:
    write(directory, account, msDS_ManagedPassword=None)
    with pytest.raises(
        InsufficientRightsError, match="may not read the password of gmsa-web"
    ) as refused:
        directory.managed_keytab("gmsa-web")
    assert "group-msa-membership" in str(refused.value)
    for other in ("WEB$", "nobody"):
        with pytest.raises(AccountNotFoundError, match=other.removesuffix("$")):
            directory.managed_keytab(other)
    with pytest.raises(AccountNotFoundError):
        Credential.from_gmsa(directory, "nobody")
    write(directory, account, msDS_ManagedPassword=b"short")
    with pytest.raises(DecodeError):
        directory.managed_keytab("gmsa-web")
    write(directory, account, msDS_ManagedPassword=blob())
    assert directory.managed_keytab("gmsa-web").account.dn == account


def test_k665_no_password_is_asked_for_on_a_connection_that_others_can_read(
    directory: EmbeddedDirectory, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    search = LdapSession._search
    monkeypatch.setattr(
        LdapSession, "_search", lambda self, *args: asked.append(args[0]) or search(self, *args)
    )
    monkeypatch.setattr(LdapSession, "encrypted", False)
    with pytest.raises(PolicyError, match="is not encrypted"):
        directory.managed_keytab("gmsa-web")
    assert asked == []
    monkeypatch.setattr(LdapSession, "encrypted", True)
    assert isinstance(directory.managed_keytab("gmsa-web"), ManagedKeytab)


def test_an_account_that_is_of_no_use_is_warned_of(
    directory: EmbeddedDirectory, account: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="purekrb")
    directory.managed_keytab("gmsa-web")
    assert caplog.text == ""
    write(directory, account, userAccountControl="4130", msDS_SupportedEncryptionTypes=None)
    directory.managed_keytab("gmsa-web")
    assert "is disabled" in caplog.text
    assert "RC4" in caplog.text
