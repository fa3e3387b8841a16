"""Credential caches: the file format, what is found in them, names and sharing."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from purekrb.constants import TicketFlags
from purekrb.credentials.cache_types import CACHE_TYPES
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab
from purekrb.errors import CredentialError, DecodeError, UnsupportedError
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import AuthorizationDataEntry, HostAddress
from purekrb.names import Principal
from support.credential_files import (
    ALICE,
    BOB,
    HOUR,
    NOW,
    TGS,
    WEB,
    CCacheWriter,
    full_ticket,
    good_ccache,
    key,
    ticket,
)
from support.values import replace
from support.vectors import params

VERSIONS = [(1, "little"), (1, "big"), (2, "little"), (2, "big"), (3, "big"), (4, "big")]


def seconds(n: int) -> datetime:
    return datetime.fromtimestamp(n, timezone.utc)


@pytest.mark.parametrize("vector", params("ccache.json", "{version}"))
def test_known_files_of_all_versions_are_read(vector: dict[str, Any]) -> None:
    ccache = CCache.decode(vector["file"])
    first, second = ccache
    assert ccache.principal == Principal.parse("testclient@KRBTEST.COM")
    assert (first.client, first.service) == (
        ccache.principal,
        Principal.parse("test/host@EXAMPLE.COM"),
    )
    assert first.session_key == EncryptionKey(17, bytes(range(16)))
    assert (first.authtime, first.starttime) == (seconds(11), seconds(222))
    assert (first.endtime, first.renew_till) == (seconds(3333), seconds(1_000_000_000))
    assert first.flags == TicketFlags.FORWARDABLE | TicketFlags.RENEWABLE
    assert (first.is_skey, first.ticket, first.second_ticket) == (False, b"ticket", b"")
    assert first.caddr == (HostAddress(2, bytes([10, 0, 0, 1])),)
    assert first.authorization_data == (
        AuthorizationDataEntry(512, b"signticket"),
        AuthorizationDataEntry(-100, b""),
    )
    assert (second.client, second.service) == (ccache.principal, Principal((), ""))
    assert second.session_key == EncryptionKey(23, bytes(range(15, -1, -1)))
    assert (second.starttime, second.renew_till, second.flags) == (None, None, 0)
    assert (second.is_skey, second.ticket, second.second_ticket) == (True, b"ticket", b"2ticket")
    offset = timedelta(seconds=300, microseconds=54321) if vector["version"] == 4 else timedelta(0)
    assert ccache.time_offset() == first.time_offset == offset


@pytest.mark.parametrize("vector", params("ccache.json", "{version}")[3:])
def test_the_known_file_of_version_4_is_written_byte_for_byte(vector: dict[str, Any]) -> None:
    assert CCache.decode(vector["file"]).encode() == vector["file"]


@pytest.mark.parametrize(("version", "order"), VERSIONS)
def test_every_version_is_read_in_every_byte_order(version: int, order: str) -> None:
    ccache = CCache.decode(CCacheWriter(version, order).file())
    (found,) = ccache
    assert (found.client, found.service, found.session_key) == (ALICE, WEB, key(17))
    assert (ccache.principal, found.flags) == (ALICE, TicketFlags.FORWARDABLE)


def test_all_that_a_ccache_holds_survives_encoding() -> None:
    ccache = good_ccache()
    decoded = CCache.decode(ccache.encode())
    offset = timedelta(seconds=-7, microseconds=5)
    assert list(decoded) == [
        ticket(TGS, time_offset=offset),
        replace(full_ticket(), time_offset=offset),
    ]
    assert (decoded.principal, decoded.time_offset()) == (ALICE, offset)
    assert decoded.get_config("fast_avail") == b"yes"
    assert decoded.encode() == ccache.encode()


def test_several_tickets_for_one_service_in_a_file_are_all_kept() -> None:
    writer = CCacheWriter()
    data = writer.file(writer.credential(ticket=b"1"), writer.credential(ticket=b"2"))
    assert [found.ticket for found in CCache.decode(data)] == [b"1", b"2"]


def test_times_that_the_format_cannot_hold_end_in_2106() -> None:
    late = ticket(
        endtime=datetime(9999, 1, 1, tzinfo=timezone.utc), starttime=None, renew_till=None
    )
    (found,) = CCache.decode(CCache(ALICE, [late]).encode())
    assert (found.endtime, found.starttime, found.renew_till) == (seconds(0xFFFFFFFF), None, None)


def test_store_replaces_the_older_ticket_for_the_same_service_and_client() -> None:
    ccache = CCache(ALICE, [ticket(ticket=b"old"), ticket(TGS), ticket(client=BOB)])
    ccache.store(ticket(ticket=b"new"))
    assert sorted((str(t.client), str(t.service), t.ticket[:3]) for t in ccache) == [
        ("alice@R.TEST", str(WEB), b"new"),
        ("alice@R.TEST", str(TGS), b"the"),
        ("bob@R.TEST", str(WEB), b"the"),
    ]


def test_find_takes_the_ticket_that_lasts_longest() -> None:
    writer = CCacheWriter()
    times = [(1, 1, end, 0) for end in (3_000_000_000, 4_000_000_000, 2_000_000_000)]
    ccache = CCache.decode(writer.file(*(writer.credential(times=t) for t in times)))
    found = ccache.find(WEB, now=NOW)
    assert found is not None
    assert found.endtime == seconds(4_000_000_000)


def test_find_takes_text_and_the_system_clock() -> None:
    now = datetime.now(timezone.utc)
    good = ticket(starttime=None, endtime=now + HOUR)
    assert CCache(ALICE, [good]).find("HTTP/web.r.test@R.TEST") is good
    assert CCache(ALICE, [replace(good, endtime=now - HOUR)]).find(WEB) is None


def test_find_of_a_service_in_an_unknown_realm_finds_nothing() -> None:
    ccache = CCache(ALICE, [ticket()])
    assert ccache.find(Principal(WEB.components, ""), now=NOW) is None
    with pytest.raises(DecodeError, match="names no realm"):
        ccache.find("HTTP/web.r.test", now=NOW)


def test_the_principal_may_be_set_to_the_canonical_name() -> None:
    ccache = CCache("Alice@r.test", [ticket()])
    assert ccache.find(WEB, now=NOW) is None
    ccache.principal = ALICE
    assert ccache.find(WEB, now=NOW) is not None


def test_time_offsets_are_kept_per_realm_and_the_clients_in_the_file() -> None:
    ccache = CCache(ALICE)
    assert ccache.time_offset() == timedelta(0)
    ccache.set_time_offset(timedelta(seconds=3), "OTHER.TEST")
    ccache.set_time_offset(timedelta(seconds=-90, microseconds=250))
    assert (ccache.time_offset("OTHER.TEST"), ccache.time_offset()) == (
        timedelta(seconds=3),
        timedelta(seconds=-90, microseconds=250),
    )
    decoded = CCache.decode(ccache.encode())
    assert decoded.time_offset("R.TEST") == timedelta(seconds=-90, microseconds=250)
    assert decoded.time_offset("OTHER.TEST") == timedelta(0)


def test_the_tgt_of_a_realm_tells_its_offset_and_other_tickets_do_not() -> None:
    ccache = CCache(ALICE, [ticket(TGS, time_offset=HOUR), ticket(time_offset=2 * HOUR)])
    ccache.store(ticket(Principal.parse("krbtgt/FAR.TEST@R.TEST"), time_offset=3 * HOUR))
    assert (ccache.time_offset(), ccache.time_offset("FAR.TEST")) == (HOUR, timedelta(0))


def test_configuration_entries_are_set_read_and_removed() -> None:
    ccache = CCache(ALICE)
    ccache.set_config("pa_type", b"2", TGS)
    ccache.set_config("fast_avail", b"yes")
    ccache.set_config("fast_avail", None)
    ccache.set_config("never_there", None)
    decoded = CCache.decode(ccache.encode())
    assert decoded.get_config("pa_type", TGS) == b"2"
    assert decoded.get_config("pa_type") is None
    assert decoded.get_config("fast_avail") is None
    assert len(decoded) == 0


def test_load_and_save_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cc"
    good_ccache().save(f"FILE:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name in (path, str(path), f"FILE:{path}", f"DIR::{path}"):
        assert CCache.load(name).encode() == good_ccache().encode()
    monkeypatch.setenv("KRB5CCNAME", str(path))
    assert CCache.load().encode() == good_ccache().encode()


def test_save_replaces_a_file_and_merges_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cc"
    good_ccache().save(path)
    CCache(BOB).save(path)
    assert (CCache.load(path).principal, len(CCache.load(path))) == (BOB, 0)


def test_a_missing_ccache_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="get a ticket first"):
        CCache.load(tmp_path / "none")
    with pytest.raises(CredentialError, match="no credential cache MEMORY:never"):
        CCache.load("MEMORY:never")


def test_load_names_the_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "cc"
    path.touch(0o600)
    with pytest.raises(DecodeError, match=f"{path}: this is not a credential cache"):
        CCache.load(path)


def test_a_keytab_and_a_ccache_in_each_others_place_are_called_by_their_names() -> None:
    keys = Keytab.from_password("anna@EXAMPLE.TEST", "correct horse").encode()
    old_keys = b"\5\1" + (40).to_bytes(4, sys.byteorder) + bytes(40)  # of version 1
    for keytab in (keys, old_keys):
        with pytest.raises(DecodeError, match="this is a keytab, not a credential cache"):
            CCache.decode(keytab)
    with pytest.raises(DecodeError, match="this is a credential cache, not a keytab"):
        Keytab.decode(CCache("anna@EXAMPLE.TEST").encode())


@pytest.mark.parametrize("name", ["API:", "API:x", "MSLSA:", "NONSENSE:x"])
def test_other_types_say_what_to_do(name: str) -> None:
    for call in (CCache.load, good_ccache().save, CCache.destroy):
        with pytest.raises(UnsupportedError, match="export KRB5CCNAME=FILE:"):
            call(name)


class ToyCaches:
    """Keeps ccaches as files in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def load(
        self, residual: str, decode: Callable[[bytes], CCache], *, foreign: bool = False
    ) -> CCache:
        if residual not in self.files:
            raise CredentialError(f"there is no toy {residual}")
        return decode(self.files[residual])

    def save(self, residual: str, ccache: CCache) -> None:
        self.files[residual] = ccache.encode()

    def merge(self, residual: str, ccache: CCache) -> None:
        merged = self.load(residual, CCache.decode) if residual in self.files else ccache
        for found in ccache:
            merged.store(found)
        self.save(residual, merged)

    def destroy(self, residual: str) -> None:
        del self.files[residual]

    def primary(self, residual: str) -> str:
        return residual

    def members(self, residual: str) -> list[str]:
        return list(self.files)

    def unique(self, residual: str) -> str:
        return f"{residual}2"

    def switch(self, residual: str) -> None:
        raise NotImplementedError

    def stamp(self, residual: str) -> object:
        return self.files.get(residual)

    def unusable(self) -> str:
        return ""


def test_a_type_needs_one_row_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="of type TOY"):
        CCache.load("TOY:x")
    toys = ToyCaches()
    monkeypatch.setitem(CACHE_TYPES, "TOY", toys)
    CCache(ALICE, [ticket(TGS)]).save("TOY:x")
    assert [found.service for found in CCache.load("TOY:x")] == [TGS]
    CCache(ALICE, [ticket(WEB)]).merge_into("toy:x")
    monkeypatch.setenv("KRB5CCNAME", "TOY:x")
    assert [found.service for found in Credential.from_ccache().ccache] == [TGS, WEB]
    CCache.destroy()
    assert toys.files == {}
    with pytest.raises(CredentialError, match="there is no toy x"):
        CCache.load("TOY:x")


def test_a_memory_ccache_is_one_object_for_all(request: pytest.FixtureRequest) -> None:
    name = f"MEMORY:{request.node.name}"
    ccache = good_ccache()
    ccache.save(name)
    CCache.load(name).store(ticket(WEB))
    assert CCache.load(name) is ccache
    assert ccache.find(WEB, now=NOW) is not None
    CCache.destroy(name)
    for call in (CCache.load, CCache.destroy):
        with pytest.raises(CredentialError, match="no credential cache MEMORY"):
            call(name)


def test_a_directory_collection_is_read_through_its_primary(tmp_path: Path) -> None:
    good_ccache().save(tmp_path / "tkt")
    CCache(BOB).save(tmp_path / "tktbob")
    assert CCache.load(f"DIR:{tmp_path}").principal == ALICE
    primary = tmp_path / "primary"
    primary.write_text("tktbob\n")
    primary.chmod(0o600)
    assert CCache.load(f"DIR:{tmp_path}").principal == BOB
    assert CCache(ALICE).save(f"DIR:{tmp_path}") == f"DIR::{tmp_path}/tkt"
    assert CCache.load(f"DIR:{tmp_path}").principal == ALICE
    assert CCache.load(tmp_path / "tktbob").principal == BOB


@pytest.mark.parametrize("name", ["", "other", "tkt/../../cc", "/etc/passwd", "tkt\0x"])
def test_a_primary_that_leads_out_of_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    primary = tmp_path / "primary"
    primary.write_text(name)
    primary.chmod(0o600)
    with pytest.raises(DecodeError, match="expected a file name that begins with tkt"):
        CCache.load(f"DIR:{tmp_path}")


def test_destroy_removes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cc"
    good_ccache().save(path)
    CCache.destroy(path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(CredentialError, match="there is no such file"):
        CCache.destroy(path)


@pytest.mark.parametrize("kind", ["FILE", "MEMORY"])
def test_merge_into_adds_to_what_is_there(tmp_path: Path, kind: str) -> None:
    name = f"{kind}:{tmp_path}/cc"
    first = CCache(ALICE, [ticket(TGS)])
    first.merge_into(name)
    second = CCache(ALICE, [ticket(WEB)])
    second.set_config("fast_avail", b"yes")
    second.merge_into(name)
    merged = CCache.load(name)
    assert [t.service for t in merged] == [TGS, WEB]
    assert merged.get_config("fast_avail") == b"yes"
    with pytest.raises(CredentialError, match=r"is that of alice@R.TEST, expected bob@R.TEST"):
        CCache(BOB).merge_into(name)
    CCache.destroy(name)


def test_merge_into_keeps_a_ticket_that_lasts_longer(tmp_path: Path) -> None:
    path = tmp_path / "cc"
    renewed, old = ticket(TGS, endtime=NOW + 9 * HOUR), ticket(TGS)
    for first, second in ((renewed, old), (old, renewed)):
        CCache(ALICE, [first]).save(path)
        CCache(ALICE, [second]).merge_into(path)
        assert [found.endtime for found in CCache.load(path)] == [renewed.endtime]


def test_a_path_with_a_colon_is_a_file_where_it_is_given_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (Path("KCM:1"), "FILE:KCM:1"):
        good_ccache().merge_into(name)
        assert len(CCache.load(name)) == 2
        assert Credential.from_ccache(name).principal == good_ccache().principal
    assert os.listdir(tmp_path) == ["KCM:1"]


def test_threads_store_and_find_at_once() -> None:
    ccache = CCache(ALICE)
    failures = []

    def work(number: int) -> None:
        for n in range(50):
            mine = Principal.parse(f"svc/{number}-{n}@R.TEST")
            ccache.store(ticket(mine))
            found = ccache.find(mine, now=NOW)
            if found is None or found.service != mine or len(list(ccache)) < n:
                failures.append(mine)
            ccache.encode()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(ccache), failures) == (200, [])


def test_ccaches_show_no_key() -> None:
    ccache = CCache(ALICE, [ticket()])
    assert repr(ccache) == "CCache(alice@R.TEST, 1 tickets)"
    assert key().contents.hex() not in repr(list(ccache))
    for leak in (pickle.dumps, copy.deepcopy, vars):
        with pytest.raises(TypeError):
            leak(ccache)
