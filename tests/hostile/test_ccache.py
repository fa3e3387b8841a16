"""Damaged, hostile and contended credential caches: K219 to K231, K409, K422, K423."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from purekrb.constants import TicketFlags
from purekrb.credentials import files
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.directory.state import ServiceState
from purekrb.errors import CredentialError, DecodeError, KerberosError
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
    good_keytab,
    key,
    run_python,
    ticket,
)
from support.processes import Child, soak
from support.values import replace

SOAK = os.environ.get("PUREKRB_SOAK") == "1"
VERSIONS = [
    pytest.param(version, order, id=f"K219-version-{version}-{order}-endian")
    for version in (1, 2, 3, 4)
    for order in (("little", "big") if version < 3 else ("big",))
]
HUGE = b"\xff\xff\xff\xff"
NEGATIVE = b"\x80\0\0\0"
W = CCacheWriter()


def rich_file(version: int, order: str) -> bytes:
    """Return a file with two credentials, addresses, authorization data and, in version 4, a header."""
    writer = CCacheWriter(version, order)
    addresses = writer.number(1) + writer.number(2, 2) + writer.data(bytes([127, 0, 0, 1]))
    header = bytes.fromhex("0001 0008 0000012c 0000d431")
    return writer.file(
        writer.credential(addresses=addresses, authorization_data=addresses),
        writer.credential(
            writer.principal(b"krbtgt", b"R.TEST"), etype=18, contents=bytes(range(32))
        ),
        header=header,
    )


# -- the format


@pytest.mark.parametrize(("version", "order"), VERSIONS)
def test_every_prefix_is_refused_or_has_fewer_tickets_and_never_part_of_a_key(
    version: int, order: str
) -> None:
    data = rich_file(version, order)
    whole = list(CCache.decode(data))
    lengths = []
    for size in range(len(data)):
        try:
            tickets = list(CCache.decode(data[:size]))
        except DecodeError:
            continue
        assert tickets == whole[: len(tickets)]
        lengths.append(len(tickets))
    assert (len(whole), lengths) == (2, [0, 1])  # only at the borders between credentials


@pytest.mark.parametrize(("version", "order"), VERSIONS)
def test_every_flipped_bit_is_refused_or_read_and_written_without_loss(
    version: int, order: str
) -> None:
    data = rich_file(version, order)
    refused = 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            ccache = CCache.decode(bytes(flipped))
            again = CCache.decode(ccache.encode())
        except KerberosError:
            refused += 1
            continue
        assert (again.principal, list(again)) == (ccache.principal, list(ccache))
        assert again.encode() == ccache.encode()
    assert 0 < refused < 8 * len(data)


START = W.file()[: -len(W.credential())]
CREDENTIAL = W.credential()
CLIENT = W.principal(b"alice")
KEY = key(17).contents

MALFORMED = [
    pytest.param(b"", id="K219-empty"),
    pytest.param(b"\5", id="K219-one-byte"),
    pytest.param(b"\5\0" + W.file()[2:], id="K219-version-0500"),
    pytest.param(b"\5\5" + W.file()[2:], id="K219-version-0505"),
    pytest.param(b"\4\4" + W.file()[2:], id="K219-version-0404"),
    pytest.param(b"\5\4\0\0", id="K219-no-principal"),
    pytest.param(W.file() + b"\0", id="K219-one-byte-too-many"),
    pytest.param(W.file(W.credential(contents=bytes(15))), id="K219-key-of-15-bytes"),
    pytest.param(W.file(W.credential(contents=b"")), id="K219-key-of-no-bytes"),
    pytest.param(
        CCacheWriter(1).file(principal=bytes(8)), id="K219-version-1-principal-without-realm"
    ),
    pytest.param(
        W.file(principal=W.principal(b"alice", realm=b"")),
        id="K219-default-principal-without-realm",
    ),
    pytest.param(W.file(principal=W.principal(b"a\0b")), id="K219-NUL-in-a-name"),
    pytest.param(W.file(principal=W.principal(b"\xff")), id="K219-name-is-no-UTF-8"),
    *(
        pytest.param(data, id=f"K220-{what}-{number.hex()}")
        for number in (HUGE, NEGATIVE, b"\0\0\x10\0")
        for what, data in {
            "components": b"\5\4\0\0" + W.number(1) + number + W.file()[12:],
            "realm-length": b"\5\4\0\0" + W.number(1) + W.number(1) + number + W.file()[16:],
            "component-length": b"\5\4\0\0" + CLIENT[:-9] + number + b"alice",
            "key-length": START + CREDENTIAL.replace(W.number(16) + KEY, number + KEY),
            "addresses": W.file(W.credential(addresses=number)),
            "address-length": W.file(W.credential(addresses=W.number(1) + W.number(2, 2) + number)),
            "authorization-data": W.file(W.credential(authorization_data=number)),
            "ticket-length": W.file(CREDENTIAL[:-14] + number + CREDENTIAL[-10:]),
            "second-ticket-length": W.file(CREDENTIAL[:-4] + number),
        }.items()
    ),
    pytest.param(W.file(header=b"\0\1"), id="K222-half-a-tag"),
    pytest.param(W.file(header=b"\0\1\0\x09" + bytes(8)), id="K222-tag-length-past-the-end"),
    pytest.param(W.file(header=b"\0\7\xff\xff"), id="K222-unknown-tag-with-length-past-the-end"),
    pytest.param(W.file(header=b"\0\1\0\7" + bytes(7)), id="K222-time-offset-of-7-bytes"),
    pytest.param(W.file(header=b"\0\1\0\x09" + bytes(9)), id="K222-time-offset-of-9-bytes"),
    pytest.param(b"\5\4\xff\xff" + W.file()[4:], id="K222-header-past-the-end"),
]


def test_the_unmodified_ccache_is_accepted() -> None:
    assert [found.session_key for found in CCache.decode(W.file())] == [key(17)]
    assert W.file() == START + CREDENTIAL


@pytest.mark.parametrize("data", MALFORMED)
def test_a_malformed_ccache_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        CCache.decode(data)


def test_k220_version_3_with_two_encryption_types_for_one_key_is_refused() -> None:
    data = CCacheWriter(3).file()
    at = data.index(b"\0\x11\0\x11")
    with pytest.raises(DecodeError, match="two encryption types"):
        CCache.decode(data[:at] + b"\0\x11\0\x12" + data[at + 4 :])


@pytest.mark.parametrize("where", ["default-principal", "service"])
def test_k221_20000_empty_components_are_parsed_in_linear_time(where: str) -> None:
    name = W.principal(*[b""] * 20_000)
    data = W.file(principal=name) if where == "default-principal" else W.file(W.credential(name))
    start = time.process_time()
    ccache = CCache.decode(data)
    assert time.process_time() - start < 0.5
    named = ccache.principal if where == "default-principal" else next(iter(ccache)).service
    assert len(named.components) == 20_000


def test_k221_5000_credentials_are_parsed_in_linear_time() -> None:
    data = W.file(*[CREDENTIAL] * 5000)
    start = time.process_time()
    assert len(CCache.decode(data)) == 5000
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"\0\7\0\3abc", id="K222-unknown-tag"),
        pytest.param(b"\0\7\0\0", id="K222-unknown-tag-without-contents"),
        pytest.param(
            b"\0\7\0\3abc" + b"\0\1\0\x08" + bytes(8), id="K222-unknown-tag-before-the-time-offset"
        ),
    ],
)
def test_an_unknown_header_tag_is_passed_over(header: bytes) -> None:
    assert [found.session_key for found in CCache.decode(W.file(header=header))] == [key(17)]


def config(name: bytes = b"fast_avail", realm: bytes = b"X-CACHECONF:") -> bytes:
    service = W.principal(b"krb5_ccache_conf_data", name, realm=realm)
    return W.credential(service, etype=0, contents=b"", times=(0, 0, 0, 0), ticket=b"yes")


@pytest.mark.parametrize(
    ("hidden", "value"),
    [
        pytest.param(W.credential(times=(0xFFFFFFFF, 1, 0, 0)), None, id="K223-removed"),
        pytest.param(
            W.credential(times=(1, 1, 0, 0), contents=bytes(16)),
            None,
            id="K223-removed-with-zero-key",
        ),
        pytest.param(config(), b"yes", id="K223-configuration"),
        pytest.param(config(realm=b"X-RMED-CONF:"), None, id="K223-removed-configuration"),
    ],
)
def test_what_is_no_ticket_is_hidden(hidden: bytes, value: bytes | None) -> None:
    writer_file = W.file(hidden, W.credential(W.principal(b"krbtgt", b"R.TEST")), hidden)
    for ccache in (CCache.decode(writer_file), CCache.decode(CCache.decode(writer_file).encode())):
        assert [found.service for found in ccache] == [TGS]
        assert ccache.find(WEB, now=NOW) is None
        assert ccache.get_config("fast_avail") == value


# -- what is found


@pytest.mark.parametrize(
    "of", [BOB, Principal.parse("alice@EVIL.TEST"), Principal.parse("ALICE@R.TEST")], ids=str
)
def test_k224_the_ticket_of_another_client_is_never_returned(of: Principal) -> None:
    ccache = CCache(
        ALICE, [ticket(client=of, ticket=b"theirs", endtime=NOW + 9 * HOUR), ticket(TGS)]
    )
    assert ccache.find(WEB, now=NOW) is None
    ccache.store(ticket(ticket=b"mine"))
    found = ccache.find(WEB, now=NOW)
    assert found is not None
    assert found.ticket == b"mine"
    theirs = ccache.find(WEB, client=of, now=NOW)
    assert theirs is not None
    assert theirs.ticket == b"theirs"


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("changes", "margin", "usable"),
    [
        pytest.param({}, 0, True, id="K225-valid"),
        pytest.param({"endtime": NOW}, 0, False, id="K225-expires-now"),
        pytest.param({"endtime": NOW - SECOND}, 0, False, id="K225-expired"),
        pytest.param({"endtime": NOW + SECOND}, 0, True, id="K225-one-second-left"),
        pytest.param(
            {"endtime": NOW + 30 * SECOND}, 60, False, id="K225-expires-within-the-margin"
        ),
        pytest.param({"endtime": NOW + 61 * SECOND}, 60, True, id="K225-expires-after-the-margin"),
        pytest.param(
            {"endtime": NOW + HOUR, "time_offset": 2 * HOUR},
            0,
            False,
            id="K225-expired-by-the-KDC-clock",
        ),
        pytest.param(
            {"starttime": NOW - 3 * HOUR, "endtime": NOW - HOUR, "time_offset": -2 * HOUR},
            0,
            True,
            id="K225-valid-by-the-KDC-clock",
        ),
        pytest.param({"starttime": NOW + 10 * SECOND}, 0, True, id="K225-starts-within-the-skew"),
        pytest.param({"starttime": NOW + HOUR / 2}, 0, False, id="K225-postdated"),
        pytest.param({"starttime": None}, 0, True, id="K225-no-starttime"),
        pytest.param({"flags": TicketFlags.INVALID}, 0, False, id="K225-invalid"),
    ],
)
def test_a_ticket_is_returned_only_while_it_is_usable(
    changes: dict[str, Any], margin: float, usable: bool
) -> None:
    found = CCache(ALICE, [ticket(**changes)]).find(WEB, now=NOW, margin=margin)
    assert (found is not None) == usable


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param("HTTP/other.r.test@R.TEST", id="K226-other-host"),
        pytest.param("cifs/web.r.test@R.TEST", id="K226-other-class-on-the-host"),
        pytest.param("HTTP/web.r.test@OTHER.TEST", id="K226-other-realm"),
        pytest.param("http/web.r.test@R.TEST", id="K226-other-case"),
        pytest.param("HTTP/web.r.test/x@R.TEST", id="K226-more-components"),
        pytest.param("HTTP\\/web.r.test@R.TEST", id="K226-slash-within-a-component"),
        pytest.param("krbtgt/EVIL.TEST@R.TEST", id="K226-TGT-of-another-realm"),
    ],
)
def test_a_ticket_is_never_used_for_another_service(asked: str) -> None:
    ccache = CCache(ALICE, [ticket(), ticket(TGS)])
    assert ccache.find("HTTP/web.r.test@R.TEST", now=NOW) is not None
    assert ccache.find(asked, now=NOW) is None


def test_k226_a_user_to_user_ticket_is_not_taken_for_an_ordinary_one() -> None:
    ordinary = ticket()
    special = replace(ordinary, is_skey=True, second_ticket=b"theirs", endtime=NOW + 9 * HOUR)
    assert CCache(ALICE, [special]).find(WEB, now=NOW) is None
    assert CCache(ALICE, [ordinary, special]).find(WEB, now=NOW) is ordinary


# -- files


def _other_owner(path: Path) -> Path:
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        return path
    return Path("/etc/passwd")  # which is root's


def _chmod(mode: int) -> Callable[[Path], Path]:
    def change(path: Path) -> Path:
        path.chmod(mode)
        return path

    return change


def _hard_link(path: Path) -> Path:
    os.link(path, path.with_name("kept"))
    return path


def _symlink(path: Path) -> Path:
    path.rename(path.with_name("real"))
    path.symlink_to("real")
    if os.geteuid() != 0:
        pytest.skip("only root can give a link away")
    os.lchown(path, 65534, 65534)
    return path


def _fifo(path: Path) -> Path:
    path.unlink()
    os.mkfifo(path)
    return path


def _directory(path: Path) -> Path:
    path.unlink()
    path.mkdir()
    return path


def _socket(path: Path) -> Path:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


BAD_FILES = [
    pytest.param(_other_owner, "belongs to uid .*, expected", id="K227-other-uid"),
    pytest.param(
        _chmod(0o644),
        "mode 0644 gives others access, expected 0600; run chmod 600",
        id="K227-mode-0644",
    ),
    pytest.param(_chmod(0o620), "mode 0620 gives others access", id="K227-group-writable"),
    pytest.param(_chmod(0o602), "mode 0602 gives others access", id="K227-world-writable"),
    pytest.param(_hard_link, "has 2 hard links, expected 1", id="K227-hard-link"),
    pytest.param(
        _symlink,
        "is a symbolic link of uid 65534.* name the file that it points to",
        id="K227-symlink",
    ),
    pytest.param(_fifo, "is a FIFO, not a regular file", id="K227-fifo"),
    pytest.param(_directory, "is a directory, not a regular file", id="K227-directory"),
    pytest.param(_socket, "cannot read", id="K227-socket"),
    pytest.param(lambda path: Path("/dev/zero"), "(is a device|belongs to uid)", id="K227-device"),
]


@pytest.mark.parametrize(("spoil", "reason"), BAD_FILES)
def test_a_ccache_that_cannot_be_trusted_is_refused_with_the_reason(
    tmp_path: Path, spoil: Callable[[Path], Path], reason: str
) -> None:
    path = tmp_path / "cc"
    good_ccache().save(path)
    assert len(CCache.load(path)) == 2
    spoiled = spoil(path)
    with pytest.raises(CredentialError, match=reason):
        CCache.load(spoiled)


def test_a_ccache_behind_a_link_of_our_own_is_read_and_not_written(tmp_path: Path) -> None:
    good_ccache().save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "again").symlink_to("./link")
    for name in ("link", "again"):
        found = CCache.load(tmp_path / name)
        assert len(found) == 2
        with pytest.raises(CredentialError, match="symbolic link"):
            found.save(tmp_path / name)
        with pytest.raises(CredentialError, match="symbolic link"):
            found.merge_into(tmp_path / name)
        with pytest.raises(CredentialError, match="symbolic link"):
            CCache.destroy(tmp_path / name)
    (tmp_path / "real").chmod(0o644)  # the file behind the link is checked as ever
    with pytest.raises(CredentialError, match="mode 0644 gives others access"):
        CCache.load(tmp_path / "link")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(CredentialError, match="symbolic link"):
        CCache.load(tmp_path / "round")
    (tmp_path / "dangling").symlink_to("none")
    with pytest.raises(CredentialError, match="there is no such file"):
        CCache.load(tmp_path / "dangling")


@pytest.mark.parametrize(
    ("owner", "mode", "read"),
    [
        (65534, 0o600, True),
        (65534, 0o640, True),
        (65534, 0o644, False),
        (65534, 0o660, False),
        (None, 0o640, False),
        (None, 0o644, False),
        (None, 0o666, False),
    ],
)
def test_a_ccache_of_another_user_is_read_where_that_is_allowed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: int | None,
    mode: int,
    read: bool,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = tmp_path / "cc"
    good_ccache().save(path)
    path.chmod(mode)
    if owner is not None:
        os.chown(path, owner, owner)
    with pytest.raises(CredentialError) as refused:
        CCache.load(path)
    assert ("PUREKRB_FOREIGN_CCACHE=1" in str(refused.value)) == read
    if not read:
        with pytest.raises(CredentialError):
            CCache.load(path, foreign=True)
        return
    assert len(CCache.load(path, foreign=True)) == 2
    assert any("belongs to uid 65534" in record.getMessage() for record in caplog.records)
    assert Credential.from_ccache(path, foreign=True).principal == ALICE
    monkeypatch.setenv("PUREKRB_FOREIGN_CCACHE", "1")
    assert len(CCache.load(path)) == 2


def test_a_ccache_that_cannot_be_locked_or_written_is_read_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cc"
    good_ccache().save(path)

    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files, "set_lock", refuse)
    credential = Credential.from_ccache(path)
    assert len(credential.ccache) == 2
    assert any("read without a lock" in record.getMessage() for record in caplog.records)
    credential.ccache.store(ticket(Principal.parse("new/x@R.TEST")))
    credential.keep(path)
    assert "stay in memory" in caplog.records[-1].getMessage()
    assert len(credential.ccache) == 3


def test_k228_a_file_swapped_while_it_is_opened_is_judged_by_what_was_opened(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cc"
    good, bad = tmp_path / "good", tmp_path / "bad"
    good_ccache().save(good)
    CCache(BOB).save(bad)
    bad.chmod(0o666)
    stop = threading.Event()

    def swap() -> None:
        turn = 0
        new = tmp_path / "new"
        while not stop.is_set():
            turn += 1
            if turn % 3 == 0:
                new.symlink_to(good)
            else:
                source = good if turn % 3 == 1 else bad
                new.write_bytes(source.read_bytes())
                new.chmod(stat.S_IMODE(source.stat().st_mode))
            new.replace(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        outcomes = {"good": 0, "refused": 0}
        deadline = time.monotonic() + 20
        while min(outcomes.values()) < 50 and time.monotonic() < deadline:
            try:
                found = CCache.load(path)
            except CredentialError:
                outcomes["refused"] += 1
            else:
                assert found.principal == ALICE  # never what the other file says
                outcomes["good"] += 1
    finally:
        stop.set()
        thread.join()
    assert min(outcomes.values()) >= 50


_KILL_AT_EACH_LINE = """
import os, signal, sys
from purekrb.credentials import files

old, new = open("old", "rb").read(), open("new", "rb").read()
outcomes = {old: 0, new: 0}
limit = 0
status = 1
while status:
    limit += 1
    files.write_private("dir/cc", old, what="credential cache")
    pid = os.fork()
    if not pid:
        lines = 0

        def trace(frame, event, argument):
            global lines
            if frame.f_code.co_filename != files.__file__:
                return None
            lines += event == "line"
            if lines == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        files.write_private("dir/cc", new, what="credential cache")
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), status
    outcomes[open("dir/cc", "rb").read()] += 1
    assert all(os.stat("dir/" + name).st_mode & 0o7777 == 0o600 for name in os.listdir("dir")), os.listdir("dir")
print(*outcomes.values())
"""


def _two_versions(tmp_path: Path) -> None:
    good_ccache().save(tmp_path / "old")
    CCache(ALICE, [ticket(Principal.parse(f"svc/{n}@R.TEST")) for n in range(500)]).save(
        tmp_path / "new"
    )
    (tmp_path / "dir").mkdir()


def test_k229_a_writer_killed_at_each_step_leaves_the_old_file_or_the_new_one(
    tmp_path: Path,
) -> None:
    _two_versions(tmp_path)
    old, new = map(int, run_python(_KILL_AT_EACH_LINE, cwd=tmp_path).split())
    assert old > 5
    assert new > 1
    assert len(CCache.load(tmp_path / "dir" / "cc")) == 500


_KILL_AT_RANDOM = """
import os, random, signal, sys, time
from purekrb import CCache

old, new = open("old", "rb").read(), open("new", "rb").read()
caches = [CCache.load("old"), CCache.load("new")]
caches[0].save("dir/cc")
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        while True:
            for ccache in caches:
                ccache.save("dir/cc")
    time.sleep(random.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert open("dir/cc", "rb").read() in (old, new)
    for name in os.listdir("dir"):
        assert os.stat("dir/" + name).st_mode & 0o7777 == 0o600, name
        if name != "cc":
            os.unlink("dir/" + name)
print(len(CCache.load("dir/cc")))
"""


def test_k229_a_writer_killed_at_any_time_leaves_the_old_file_or_the_new_one(
    tmp_path: Path,
) -> None:
    _two_versions(tmp_path)
    assert int(run_python(_KILL_AT_RANDOM, 1000 if SOAK else 40, cwd=tmp_path)) in (2, 500)


_MERGE_AT_ONCE = """
import os, sys

from purekrb import CCache, Principal
from purekrb.records import replace

writers = int(sys.argv[1])
(model,) = CCache.load("model")
pids = []
for writer in range(writers):
    pid = os.fork()
    if not pid:
        for n in range(5):
            CCache(model.client, [replace(model, service=Principal.parse(f"svc/{writer}-{n}@R"))]).merge_into("dir/cc")
            CCache.load("dir/cc")
        os._exit(0)
    pids.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * writers
print(len({ticket.service for ticket in CCache.load("dir/cc")}), os.listdir("dir"))
"""


def test_k230_tickets_that_many_processes_add_at_once_are_all_there(tmp_path: Path) -> None:
    CCache(ALICE, [ticket()]).save(tmp_path / "model")
    (tmp_path / "dir").mkdir()
    writers = 100 if SOAK else 10
    assert run_python(_MERGE_AT_ONCE, writers, cwd=tmp_path).strip() == f"{5 * writers} ['cc']"


def test_k230_threads_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cc"

    def work(number: int) -> None:
        for n in range(5):
            CCache(ALICE, [ticket(Principal.parse(f"svc/{number}-{n}@R.TEST"))]).merge_into(path)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(CCache.load(path)) == 30


_FILE_SIZE_LIMIT = """
import resource, signal, sys
from purekrb import CCache, KerberosError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
new = CCache.load("new")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    new.save("dir/cc")
except KerberosError as error:
    print(type(error).__name__, error)
"""


def test_k231_a_write_beyond_the_file_size_limit_leaves_the_old_file(tmp_path: Path) -> None:
    _two_versions(tmp_path)
    good_ccache().save(tmp_path / "dir" / "cc")
    said = run_python(_FILE_SIZE_LIMIT, cwd=tmp_path)
    assert said.startswith(
        "CredentialError cannot write the credential cache dir/cc: the file size limit is reached"
    )
    assert len(CCache.load(tmp_path / "dir" / "cc")) == 2
    assert os.listdir(tmp_path / "dir") == ["cc"]


_MOUNT = """
import os, subprocess, sys
from purekrb import CCache, KerberosError

def mount(*arguments):
    subprocess.run(["mount", *arguments, "dir"], check=True)

def attempt(do):
    try:
        do()
    except KerberosError as error:
        print(type(error).__name__, error)
    print(len(CCache.load("dir/cc")), os.listdir("dir"))

small, large = CCache.load("old"), CCache.load("new")
mount("-t", "tmpfs", "-o", "size=16k", "none")
small.save("dir/cc")
attempt(lambda: large.save("dir/cc"))
mount("-o", "remount,ro")
attempt(lambda: small.save("dir/cc"))
attempt(lambda: small.merge_into("dir/cc"))
attempt(lambda: CCache.destroy("dir/cc"))
"""


def test_k231_a_full_disk_and_a_read_only_one_are_typed_errors_and_leave_the_old_file(
    tmp_path: Path,
) -> None:
    unshare = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(
            "this machine lets nobody mount a small file system (unshare --map-root-user --mount)"
        )
    _two_versions(tmp_path)
    argv = [*unshare, sys.executable, "-c", _MOUNT]
    said = subprocess.run(
        argv, cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert said == [
        "CredentialError cannot write the credential cache dir/cc: the disk is full: free some space and try again",
        "2 ['cc']",
        "CredentialError cannot write the credential cache dir/cc: the file system is read-only: choose another place",
        "2 ['cc']",
        "CredentialError cannot change the credential cache dir/cc: the file system is read-only: choose another place",
        "2 ['cc']",
        "CredentialError cannot change the credential cache dir/cc: the file system is read-only: choose another place",
        "2 ['cc']",
    ]


_INTERRUPTED = """
import signal
from purekrb import CCache

interrupts = 0

def count(*_):
    global interrupts
    interrupts += 1

new = CCache.load("new")
signal.signal(signal.SIGALRM, count)
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
for _ in range(10):
    new.save("dir/cc")
    assert len(CCache.load("dir/cc")) == 500
new.merge_into("dir/cc")
signal.setitimer(signal.ITIMER_REAL, 0)
print(interrupts)
"""


def test_k231_interrupted_system_calls_are_taken_up_again(tmp_path: Path) -> None:
    _two_versions(tmp_path)
    assert int(run_python(_INTERRUPTED, cwd=tmp_path)) > 10
    assert os.listdir(tmp_path / "dir") == ["cc"]


# -- several programs at once


NEW = ticket(TGS, ticket=b"the new TGT")


def old_ccache() -> CCache:
    return CCache(
        ALICE, [ticket(TGS), *(ticket(Principal.parse(f"svc/{n}@R.TEST")) for n in range(20))]
    )


def at_once(*jobs: Callable[[], object]) -> list[str]:
    """Run each job in a process of its own, within 3 ms; return what CredentialErrors they raised."""
    start = time.time() + 0.005

    def run(job: Callable[[], object], writer: int) -> None:
        while time.time() < start:
            pass
        time.sleep(random.uniform(0, 0.003))
        try:
            job()
        except CredentialError as error:
            os.write(writer, str(error).encode())

    children = [Child(lambda writer, job=job: run(job, writer)) for job in jobs]  # type: ignore[misc]
    said = [child.output().decode() for child in children]
    assert all(child.ended_well for child in children), "a job failed: see its traceback"
    return said


def add_web(name: object) -> None:
    """Do as kvno does: load, take a while to ask the KDC, merge."""
    ccache = CCache.load(str(name))
    time.sleep(random.uniform(0, 0.003))
    ccache.store(ticket(WEB, client=ccache.principal))
    ccache.merge_into(str(name))


@pytest.mark.parametrize("kind", ["FILE", "DIR"])
def test_k409_a_merge_beside_a_save_puts_no_former_tgt_back(tmp_path: Path, kind: str) -> None:
    name = f"{kind}:{tmp_path}/cc" if kind == "FILE" else f"DIR:{tmp_path}"
    both = 0
    for _ in range(soak(30, 400)):
        old_ccache().save(name)
        at_once(lambda: add_web(name), lambda: CCache(ALICE, [NEW]).save(name))
        found = CCache.load(name)
        assert [tgt.ticket for tgt in found if tgt.is_tgt] == [b"the new TGT"]
        both += len(found) == 2
    assert both  # sometimes the merge came last, and added its own ticket
    assert len(os.listdir(tmp_path)) == 1


def test_k409_a_merge_beside_a_save_puts_no_former_identity_back(tmp_path: Path) -> None:
    path = tmp_path / "cc"
    outcomes = set()
    for _ in range(soak(30, 200)):
        old_ccache().save(path)
        said, _ = at_once(
            lambda: add_web(path), lambda: CCache(BOB, [replace(NEW, client=BOB)]).save(path)
        )
        found = CCache.load(path)
        assert (found.principal, {tgt.client for tgt in found}) == (BOB, {BOB})
        outcomes.add(said.partition(" is that of ")[2])
    assert outcomes <= {"", "bob@R.TEST, expected alice@R.TEST: choose another name"}


@pytest.mark.parametrize(
    "endtime", [NOW, NOW + HOUR, NOW + 2 * HOUR], ids=["shorter", "as-long", "longer"]
)
def test_k409_a_tgt_that_was_replaced_since_it_was_loaded_stays_replaced(
    tmp_path: Path, endtime: datetime
) -> None:
    path = tmp_path / "cc"
    old_ccache().save(path)
    loaded = CCache.load(path)
    loaded.set_config("fast_avail", b"yes")
    loaded.store(ticket(WEB))
    CCache(ALICE, [replace(NEW, endtime=endtime)]).save(path)
    loaded.merge_into(path)
    found = CCache.load(path)
    assert [(one.service, one.endtime) for one in found] == [(TGS, endtime), (WEB, NOW + HOUR)]
    assert found.get_config("fast_avail") == b"yes"
    loaded.merge_into(tmp_path / "other")  # anywhere else goes all of it
    assert len(CCache.load(tmp_path / "other")) == 22


def test_k409_a_ccache_that_was_destroyed_since_it_was_loaded_stays_destroyed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cc"
    old_ccache().save(path)
    loaded = CCache.load(path)
    CCache.destroy(path)
    with pytest.raises(CredentialError, match="was removed after its tickets were read"):
        loaded.merge_into(path)
    assert os.listdir(tmp_path) == []
    old_ccache().merge_into(path)  # positive control: what comes from elsewhere makes it
    assert len(CCache.load(path)) == 21


@pytest.mark.parametrize("loaded", [True, False])
def test_k409_a_merge_waits_for_the_file_that_kinit_makes_anew(
    tmp_path: Path, loaded: bool
) -> None:
    path = tmp_path / "cc"
    old_ccache().save(path)
    ours = CCache.load(path) if loaded else CCache(ALICE)
    ours.store(ticket(WEB))
    data = CCache(ALICE, [NEW]).encode()
    if loaded:
        path.unlink()
    else:
        path.write_bytes(b"")  # made, and not yet written

    def kinit() -> None:
        time.sleep(0.1)
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        time.sleep(0.1)
        os.write(fd, data)
        os.close(fd)

    thread = threading.Thread(target=kinit)
    thread.start()
    ours.merge_into(path)
    thread.join()
    assert [one.ticket for one in CCache.load(path)] == [b"the new TGT", ticket(WEB).ticket]


def test_k409_a_merge_adds_in_place_and_marks_what_it_replaces_as_mit_does(tmp_path: Path) -> None:
    path = tmp_path / "cc"
    good_ccache().save(path)
    before = path.read_bytes()
    inode = path.stat().st_ino
    ours = CCache(ALICE, [ticket(TGS, endtime=NOW + 9 * HOUR)])
    ours.set_config("fast_avail", b"no")
    with path.open("rb") as waiting:  # as a program that waits for the lock
        ours.merge_into(path)
        ours.merge_into(path)  # the same again: nothing
        after = waiting.read()
    assert path.stat().st_ino == inode
    assert after[: len(before)].replace(b"X-RMED-CONF:", b"X-CACHECONF:") != before
    assert after.count(b"X-CACHECONF:") == after.count(b"X-RMED-CONF:") == 1
    changed = [n for n, (one, other) in enumerate(zip(before, after, strict=False)) if one != other]
    assert len(changed) <= 12 + 2 * 8
    found = CCache.decode(after)
    assert found.get_config("fast_avail") == b"no"
    assert {one.service: one.endtime for one in found} == {
        TGS: NOW + 9 * HOUR,
        full_ticket().service: NOW + HOUR,
    }
    assert len(list(found)) == 2


@pytest.mark.parametrize("version", [1, 2, 3])
def test_k409_a_merge_into_a_file_of_an_older_version_writes_it_anew(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "cc"
    path.write_bytes(rich_file(version, sys.byteorder if version < 3 else "big"))
    path.chmod(0o600)
    count = len(CCache.load(path))
    CCache(CCache.load(path).principal, [ticket(Principal.parse("new/x@R.TEST"))]).merge_into(path)
    assert path.read_bytes()[:2] == b"\5\4"
    assert len(CCache.load(path)) == count + 1


def test_k409_a_file_that_has_grown_large_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "cc"
    for n in range(4):
        CCache(ALICE, [ticket(ticket=bytes(400_000), endtime=NOW + n * HOUR)]).merge_into(path)
    assert [one.endtime for one in CCache.load(path)] == [NOW + 3 * HOUR]
    assert path.stat().st_size < 500_000


# -- what other users and killed processes leave


@pytest.mark.parametrize("kind", ["FILE", "DIR"])
@pytest.mark.parametrize(
    "what", ["another user's file", "directory", "symbolic link", "FIFO", "locked file"]
)
def test_k422_what_has_the_name_of_the_cache_and_lock_blocks_nothing(
    tmp_path: Path, kind: str, what: str
) -> None:
    name = f"{kind}:{tmp_path}/tkt" if kind == "FILE" else f"DIR:{tmp_path}"
    good_ccache().save(name)
    lock = tmp_path / "tkt.lock"
    fd = None
    if what == "directory":
        lock.mkdir()
    elif what == "symbolic link":
        lock.symlink_to("/nowhere")
    elif what == "FIFO":
        os.mkfifo(lock)
    else:
        lock.touch(0o600)
        if what == "locked file":
            fd = os.open(lock, os.O_RDWR)
            fcntl.flock(fd, fcntl.LOCK_EX)
            fcntl.lockf(fd, fcntl.LOCK_EX)
        elif os.geteuid() == 0:
            os.chown(lock, 65534, 65534)
        else:
            pytest.skip("only root can give a file away")
    new = CCache.load(name)
    new.store(ticket(Principal.parse("new/x@R.TEST")))
    new.merge_into(name)
    assert len(CCache.load(name)) == 3
    good_ccache().save(name)
    CCache.destroy(name)
    good_ccache().merge_into(name)
    assert len(CCache.load(name)) == 2
    assert sorted(os.listdir(tmp_path)) == ["tkt", "tkt.lock"]
    if fd is not None:
        os.close(fd)


def test_k422_the_lock_of_our_own_programs_does_keep_a_merge_waiting(tmp_path: Path) -> None:
    path = tmp_path / "cc"
    good_ccache().save(path)
    held, released = tmp_path / "held", tmp_path / "released"

    def hold(_: int) -> None:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)  # as MIT's programs do
            held.touch()
            time.sleep(0.2)
            released.touch()

    child = Child(hold)
    while not held.exists():
        time.sleep(0.001)
    CCache(ALICE, [ticket(Principal.parse("new/x@R.TEST"))]).merge_into(path)
    assert released.exists()
    child.output()
    assert len(CCache.load(path)) == 3


_WRITERS = {
    "save": "CCache.load('new').save('dir/cc')",
    "merge": "CCache.load('new').merge_into('dir/cc')",
    "keytab": "Keytab.load('new-kt').save('dir/cc')",
    "keytab-merge": "change_keytab('dir/cc', Keytab.load('new-kt').merge, make=True)",
    "state": "ServiceState.load('new-state').save('dir/cc')",
}
_KILLED_WRITER = """
import os, signal, sys
from purekrb import CCache, Keytab
from purekrb.credentials import files
from purekrb.credentials.caches import file as file_caches
from purekrb.credentials.keytab import change_keytab
from purekrb.directory.state import ServiceState

job, old = compile(sys.argv[1], "job", "exec"), sys.argv[2]
file_caches._ATTEMPTS = 3  # it is in vain here that a merge waits for the one that made the file
left, found, lines, limit = 0, [], 0, 0

def trace(frame, event, argument):
    global lines
    if frame.f_code.co_filename != files.__file__:
        return None
    lines += event == "line"
    if lines == limit:
        os.kill(os.getpid(), signal.SIGKILL)
    return trace

os.mkdir("dir")
status = 1
while status:
    limit += 1
    for name in os.listdir("dir"):
        os.unlink("dir/" + name)
    if old:
        with open("dir/cc", "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(open(old, "rb").read())
    pid = os.fork()
    if not pid:
        sys.settrace(trace)
        exec(job)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), status
    names = os.listdir("dir")
    assert all(os.stat("dir/" + name).st_mode & 0o7777 == 0o600 for name in names), names
    left += any(name != "cc" for name in names)
    found.append(open("dir/cc", "rb").read() if "cc" in names else b"")
    if names != ["cc"] or not found[-1]:
        exec(job)  # the next writer
        assert os.listdir("dir") == ["cc"], os.listdir("dir")
assert found[0] == (open(old, "rb").read() if old else b"")
print(limit, left, len(set(found)))
"""


@pytest.mark.parametrize("there", [True, False], ids=["over-a-file", "new"])
@pytest.mark.parametrize("write", _WRITERS)
def test_k423_what_a_writer_leaves_that_is_killed_at_any_line_the_next_one_removes(
    tmp_path: Path, write: str, there: bool
) -> None:
    good_ccache().save(tmp_path / "new")
    CCache(ALICE, [ticket()]).save(tmp_path / "old")
    good_keytab().save(tmp_path / "new-kt")
    Keytab([KeytabEntry(ALICE, 1, key(), NOW)]).save(tmp_path / "old-kt")
    state = ServiceState(
        object_guid=UUID(int=1), scp_dn="CN=x", domain="r.test", spns=("a/b",), account=None
    )
    state.save(tmp_path / "new-state")
    replace(state, spns=()).save(tmp_path / "old-state")
    old = (
        {"save": "old", "merge": "old", "state": "old-state"}.get(write, "old-kt") if there else ""
    )
    steps, left, versions = map(
        int, run_python(_KILLED_WRITER, _WRITERS[write], old, cwd=tmp_path).split()
    )
    assert steps > 10
    assert (left > 0) == (write != "merge" or not there)  # a merge into a file makes no other
    assert versions == 2  # none or the old one, and the new one


_KILL_AT_RANDOM_AND_SWEEP = """
import os, random, signal, sys, time
from purekrb import CCache

old, new = CCache.load("old"), CCache.load("new")
left = tries = 0
least = int(sys.argv[1])
while tries < least or not left and tries < 50 * least:  # until one was killed while it wrote
    tries += 1
    old.save("dir/cc")
    pid = os.fork()
    if not pid:
        while True:
            new.save("dir/cc")
            old.merge_into("dir/cc")
    time.sleep(random.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    left += os.listdir("dir") != ["cc"]
    CCache.load("dir/cc")
    old.save("dir/cc")
    assert os.listdir("dir") == ["cc"]
print(left)
"""


def test_k423_nothing_is_left_of_writers_that_were_killed_at_any_time(tmp_path: Path) -> None:
    _two_versions(tmp_path)
    left = int(run_python(_KILL_AT_RANDOM_AND_SWEEP, soak(40, 1000), cwd=tmp_path))
    assert left
