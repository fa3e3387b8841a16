"""Damaged, hostile and contended credential caches: K219 to K231."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from purekrb.constants import TicketFlags
from purekrb.credentials.ccache import CCache
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
    good_ccache,
    key,
    run_python,
    ticket,
)
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
        writer.credential(writer.principal(b"krbtgt", b"R.TEST"), etype=18, contents=bytes(range(32))),
        header=header,
    )


# -- the format


@pytest.mark.parametrize(("version", "order"), VERSIONS)
def test_every_prefix_is_refused_or_has_fewer_tickets_and_never_part_of_a_key(version: int, order: str) -> None:
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
def test_every_flipped_bit_is_refused_or_read_and_written_without_loss(version: int, order: str) -> None:
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
    pytest.param(CCacheWriter(1).file(principal=bytes(8)), id="K219-version-1-principal-without-realm"),
    pytest.param(W.file(principal=W.principal(b"alice", realm=b"")), id="K219-default-principal-without-realm"),
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
        pytest.param(b"\0\7\0\3abc" + b"\0\1\0\x08" + bytes(8), id="K222-unknown-tag-before-the-time-offset"),
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
        pytest.param(W.credential(times=(1, 1, 0, 0), contents=bytes(16)), None, id="K223-removed-with-zero-key"),
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


@pytest.mark.parametrize("of", [BOB, Principal.parse("alice@EVIL.TEST"), Principal.parse("ALICE@R.TEST")], ids=str)
def test_k224_the_ticket_of_another_client_is_never_returned(of: Principal) -> None:
    ccache = CCache(ALICE, [ticket(client=of, ticket=b"theirs", endtime=NOW + 9 * HOUR), ticket(TGS)])
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
        pytest.param({"endtime": NOW + 30 * SECOND}, 60, False, id="K225-expires-within-the-margin"),
        pytest.param({"endtime": NOW + 61 * SECOND}, 60, True, id="K225-expires-after-the-margin"),
        pytest.param({"endtime": NOW + HOUR, "time_offset": 2 * HOUR}, 0, False, id="K225-expired-by-the-KDC-clock"),
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
def test_a_ticket_is_returned_only_while_it_is_usable(changes: dict[str, Any], margin: float, usable: bool) -> None:
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
    pytest.param(_chmod(0o644), "mode 0644 gives others access, expected 0600; run chmod 600", id="K227-mode-0644"),
    pytest.param(_chmod(0o620), "mode 0620 gives others access", id="K227-group-writable"),
    pytest.param(_chmod(0o602), "mode 0602 gives others access", id="K227-world-writable"),
    pytest.param(_hard_link, "has 2 hard links, expected 1", id="K227-hard-link"),
    pytest.param(_symlink, "is a symbolic link, .* name the file that it points to", id="K227-symlink"),
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


def test_k228_a_file_swapped_while_it_is_opened_is_judged_by_what_was_opened(tmp_path: Path) -> None:
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
    CCache(ALICE, [ticket(Principal.parse(f"svc/{n}@R.TEST")) for n in range(500)]).save(tmp_path / "new")
    (tmp_path / "dir").mkdir()


def test_k229_a_writer_killed_at_each_step_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
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


def test_k229_a_writer_killed_at_any_time_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
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
    assert said.startswith("CredentialError cannot write the credential cache dir/cc: the file size limit is reached")
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


def test_k231_a_full_disk_and_a_read_only_one_are_typed_errors_and_leave_the_old_file(tmp_path: Path) -> None:
    unshare = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a small file system (unshare --map-root-user --mount)")
    _two_versions(tmp_path)
    argv = [*unshare, sys.executable, "-c", _MOUNT]
    said = subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == [
        "CredentialError cannot write the credential cache dir/cc: the disk is full: free some space and try again",
        "2 ['cc']",
        "CredentialError cannot write the credential cache dir/cc: the file system is read-only: choose another place",
        "2 ['cc']",
        "CredentialError cannot make the lock of the credential cache dir/cc.lock: the file system is read-only:"
        " choose another place",
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
