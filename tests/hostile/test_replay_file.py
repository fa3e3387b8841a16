"""The default replay cache, a file of MIT's format, by itself: races, kills, and files that are not ours to use.

PUREKRB_SOAK=1 runs the full counts. What it shares with the other caches is in test_replay.py.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from purekrb import ReplayError
from purekrb.constants import ErrorCode
from purekrb.replay import KEEP, FileReplayCache
from support.contexts import Elapsed, acceptor, ap_req
from support.processes import Child, in_children, soak
from support.rcache2 import places, records
from support.tickets import issue

NOW = datetime.now(timezone.utc)


def tag(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rcache2"


def store(path: Path, number: int = 1) -> None:
    FileReplayCache(path, timeout=0.2).remember(tag(number), NOW, NOW)


def refusal(path: Path, number: int = 1) -> str:
    """Return why the cache takes nobody."""
    with pytest.raises(ReplayError) as caught:
        store(path, number)
    assert caught.value.code == ErrorCode.KRB_ERR_GENERIC, caught.value
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- once, whoever asks


def test_sixteen_processes_take_each_of_a_thousand_tokens_exactly_once(path: Path) -> None:
    """Each process gets all tokens, from another one on."""
    ticket, keys = issue()
    tokens = [ap_req(ticket) for _ in range(soak(150, 1000))]

    def job(number: int) -> bytes:
        taken = bytearray(len(tokens))
        cache = FileReplayCache(path)
        for at in range(len(tokens)):
            which = (at + number) % len(tokens)
            try:
                acceptor(keys, replay_cache=cache).step(tokens[which])
                taken[which] += 1
            except ReplayError as error:
                if error.code != ErrorCode.KRB_AP_ERR_REPEAT:
                    raise
        return bytes(taken)

    results = in_children(16, job)
    assert [sum(column) for column in zip(*results, strict=True)] == [1] * len(tokens)
    assert len(records(path)) == len(tokens)


def test_many_processes_store_at_once_without_loss(path: Path) -> None:
    each = soak(300, 3000)

    def job(number: int) -> bytes:
        cache = FileReplayCache(path)
        for n in range(each):
            cache.remember(tag(number * each + n), NOW, NOW)
        return b"stored"

    assert in_children(8, job) == [b"stored"] * 8
    assert {found for found, _ in records(path).values()} == {
        tag(number)[-12:] for number in range(8 * each)
    }


def test_kill_9_in_the_middle_of_a_store_tears_nothing_and_forgets_nothing(path: Path) -> None:
    confirmed: list[int] = []
    unconfirmed: list[int] = []
    number = 0
    for attempt in range(soak(25, 1000)):

        def job(writer: int, first: int = number) -> None:
            cache = FileReplayCache(path)
            for n in range(first, first + 100_000):
                cache.remember(tag(n), NOW, NOW)
                os.write(writer, b".")

        child = Child(job)
        time.sleep(0.003 + 0.0007 * (attempt % 17))
        child.kill()
        count = len(child.output())
        confirmed += range(number, number + count)
        unconfirmed.append(number + count)  # may have been stored, before it could say so
        number += count + 1
        if count:
            with pytest.raises(ReplayError, match="already presented"):
                store(path, confirmed[-1])
    found = {found for found, _ in records(path).values()}
    assert {tag(n)[-12:] for n in confirmed} <= found
    assert found <= {tag(n)[-12:] for n in (*confirmed, *unconfirmed)}
    assert len(confirmed) > 100


def test_a_child_that_is_started_in_the_middle_of_a_store_keeps_no_lock(path: Path) -> None:
    """A program gets copies of all open files until it is executed, and with them the lock."""
    cache = FileReplayCache(path)
    done = threading.Event()

    def hammer() -> None:
        number = 1000
        while not done.is_set():
            cache.remember(tag(number), NOW, NOW)
            number += 1

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        for number in range(20):
            subprocess.run([sys.executable, "-S", "-c", ""], check=True)
            child = Child(lambda _, number=number: cache.remember(tag(number), NOW, NOW))  # type: ignore[misc]
            child.output()
            assert child.ended_well
    finally:
        done.set()
        thread.join()
    for number in range(20):
        with pytest.raises(ReplayError, match="already presented"):
            cache.remember(tag(number), NOW, NOW)


# --- the format


def test_every_tag_is_where_plain_code_looks_for_it(path: Path) -> None:
    cache = FileReplayCache(path)
    count = 4000
    for number in range(count):
        cache.remember(tag(number), NOW, NOW)
    seed = path.read_bytes()[:16]
    expected: dict[int, bytes] = {}
    for number in range(count):
        kept = tag(number)[-12:]
        expected[next(slot for slot in places(seed, kept) if slot not in expected)] = kept
    assert {slot: found for slot, (found, _) in records(path).items()} == expected
    assert max(expected) > 3071, "the control: there is a third table"


def test_slots_of_what_is_old_are_used_again(path: Path) -> None:
    elapsed = Elapsed()
    cache = FileReplayCache(path, monotonic=elapsed)
    sizes = []
    for era in range(4):
        moment = NOW + era * timedelta(seconds=KEEP + 2)
        for number in range(1500):
            cache.remember(tag(era * 1500 + number), moment, moment)
        sizes.append(len(records(path)))
        elapsed.seconds += KEEP + 2
    assert sizes[0] == 1500
    assert sizes[3] < 3000, f"the control: without that, there would be 6000, not {sizes}"


@pytest.mark.parametrize("ahead", [-299, 0, 299])
def test_a_tag_is_kept_as_long_as_mits_programs_must_keep_it(path: Path, ahead: int) -> None:
    """They overwrite what has a time before now minus the clock skew, which is 300 seconds."""
    FileReplayCache(path).remember(tag(1), NOW + timedelta(seconds=ahead), NOW)
    ((_, written),) = records(path).values()
    assert KEEP - 300 <= written - int(NOW.timestamp()) - max(0, ahead) <= KEEP - 300 + 1, (
        "until 20 minutes after it was made or presented"
    )


def test_after_2106_the_file_forgets_nothing(path: Path) -> None:
    late = datetime(2120, 1, 1, tzinfo=timezone.utc)
    cache = FileReplayCache(path)
    for number in range(300):
        cache.remember(tag(number), late, late)
    for number in range(300):
        with pytest.raises(ReplayError, match="already presented"):
            cache.remember(tag(number), late, late)


# --- files that are not ours to use


def belongs_to_another(path: Path) -> str:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 1, 1)
    return "belongs to user 1"


def is_a_symbolic_link(path: Path) -> str:
    path.rename(path.with_name("target"))
    path.symlink_to("target")
    return "symbolic link"


def has_another_name(path: Path) -> str:
    path.with_name("other").hardlink_to(path)
    return "2 names"


def can_be_written_by_all(path: Path) -> str:
    path.chmod(0o666)
    return "others can write to it"


def can_be_written_by_the_group(path: Path) -> str:
    path.chmod(0o620)
    return "others can write to it"


def is_a_fifo(path: Path) -> str:
    path.unlink()
    os.mkfifo(path, 0o600)
    return "not a regular file"


def is_a_directory(path: Path) -> str:
    path.unlink()
    path.mkdir()
    return "directory"


def has_lost_its_directory(path: Path) -> str:
    path.unlink()
    path.parent.rmdir()
    return "make its directory"


def is_too_large(path: Path) -> str:
    os.truncate(path, 1 << 40)
    return "no replay cache"


@pytest.mark.parametrize(
    "damage",
    [
        *(belongs_to_another, is_a_symbolic_link, has_another_name, can_be_written_by_all),
        *(can_be_written_by_the_group, is_a_fifo, is_a_directory),
        *(has_lost_its_directory, is_too_large),
    ],
)
@pytest.mark.parametrize("moment", ["at first", "in use"])
def test_a_file_that_is_not_ours_to_use_takes_nobody(
    tmp_path: Path, moment: str, damage: Callable[[Path], str]
) -> None:
    directory = tmp_path / "own"
    directory.mkdir(0o700)
    path = directory / "rcache2"
    cache = FileReplayCache(path)
    cache.remember(tag(1), NOW, NOW)
    expected = damage(path)
    if moment == "at first":
        cache = FileReplayCache(path)
    with pytest.raises(ReplayError, match=expected) as caught:
        cache.remember(tag(2), NOW, NOW)
    assert caught.value.code == ErrorCode.KRB_ERR_GENERIC


def test_a_directory_in_which_others_can_replace_the_file_takes_nobody(tmp_path: Path) -> None:
    directory = tmp_path / "of all"
    directory.mkdir()
    directory.chmod(0o777)
    assert "others can write to the directory" in refusal(directory / "rcache2")


def test_a_sticky_directory_of_all_is_usable_as_var_tmp_is(tmp_path: Path) -> None:
    directory = tmp_path / "sticky"
    directory.mkdir()
    directory.chmod(0o1777)
    store(directory / "rcache2")
    assert (directory / "rcache2").stat().st_mode & 0o777 == 0o600


def test_a_file_that_another_process_keeps_locked_is_waited_for_and_then_told(path: Path) -> None:
    store(path)
    with path.open("r+b") as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX)
        begin = time.monotonic()
        child = Child(lambda writer: os.write(writer, refusal(path, 2).encode()) and None)
        assert b"another process keeps it locked for 0.2 s" in child.output()
        assert child.ended_well
        assert time.monotonic() - begin >= 0.2
    store(path, 2)


def test_a_full_disk_refuses_and_what_was_stored_stays(path: Path) -> None:
    def job(writer: int) -> None:
        cache = FileReplayCache(path)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        stored = 0
        try:
            while stored < 100_000:
                cache.remember(tag(stored), NOW, NOW)
                stored += 1
        except ReplayError as error:
            if error.code == ErrorCode.KRB_ERR_GENERIC:
                os.write(writer, b"%d" % stored)

    child = Child(job)
    stored = int(child.output())
    assert child.ended_well
    assert stored > 3
    assert {found for found, _ in records(path).values()} == {
        tag(number)[-12:] for number in range(stored)
    }
    store(path, stored)


def test_a_file_that_was_removed_is_made_again(path: Path) -> None:
    """As MIT's programs do it: whoever may remove the file may let a replay through."""
    cache = FileReplayCache(path)
    cache.remember(tag(1), NOW, NOW)
    path.unlink()
    cache.remember(tag(2), NOW, NOW)
    assert [found for found, _ in records(path).values()] == [tag(2)[-12:]]
