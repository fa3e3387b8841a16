"""What processes share and what they must not: children of a fork, and processes that are handed something."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from purekrb import (
    Acceptor,
    Initiator,
    Keytab,
    KeytabEntry,
    ReplayError,
    SspiError,
    crypto,
    errors,
    sspi,
)
from purekrb.replay import FileReplayCache, SqliteReplayCache
from support.contexts import ALL, acceptor, authenticator_of, pair
from support.processes import Child, in_children
from support.rcache2 import records
from support.tickets import issue

KEY = bytes(range(32))
#: Far ahead of the clock, so that a cache file that a test makes, whenever it runs, is older than its authenticators.
NOW = datetime.now(timezone.utc) + timedelta(hours=2)


def tag(number: int) -> bytes:
    return number.to_bytes(16, "big")


def refuses(cache: SqliteReplayCache, number: int) -> None:
    with pytest.raises(ReplayError):
        cache.remember(tag(number), NOW, NOW)


def fail() -> None:
    """Raise; at module level, where a worker process finds it."""
    raise errors.KdcError("no", code=6)


# -- children of a fork, and workers


def test_a_fork_repeats_no_confounder() -> None:
    """Parent and children seal the same message with the same number, and no two tokens are alike."""
    for etype in ALL:
        ours, _ = pair(etype)
        for _ in range(3):
            ours.wrap(b"so that blocks are drawn ahead")
        # Children write to a pipe that holds all they say.
        children = [
            Child(lambda writer, c=ours: os.write(writer, c.wrap(bytes(100)))) for _ in range(3)
        ]  # type: ignore[misc]
        tokens = [ours.wrap(bytes(100)), *(child.output() for child in children)]
        assert all(child.ended_well for child in children)
        if etype == 23:
            assert len({token[-109:] for token in tokens}) == 4
        else:
            assert len({token[8:16] for token in tokens}) == 1
            assert len({token[16:] for token in tokens}) == 4
            assert not set.intersection(
                *({token[at : at + 16] for at in range(16, 160, 16)} for token in tokens)
            )


def test_a_fork_repeats_no_subkey_and_no_sequence_number() -> None:
    ticket, keys = issue()
    Initiator(ticket).step()

    def tokens(writer: int) -> None:
        for _ in range(3):
            token = Initiator(ticket).step()
            assert token is not None
            os.write(writer, len(token).to_bytes(4, "big") + token)

    children = [Child(tokens) for _ in range(3)]
    sent = []
    for child in children:
        data = child.output()
        assert child.ended_well
        while data:
            size = int.from_bytes(data[:4], "big")
            sent.append(authenticator_of(data[4 : 4 + size], ticket))
            assert acceptor(keys).step(data[4 : 4 + size])
            data = data[4 + size :]
    assert len(sent) == 9
    assert len({a.subkey.contents for a in sent if a.subkey}) == 9
    assert len({a.seq_number for a in sent}) == 9


def test_a_fork_repeats_no_acceptors_subkey() -> None:
    ticket, keys = issue()
    pair()

    def accept(writer: int) -> None:
        theirs = acceptor(keys)
        theirs.step(Initiator(ticket).step())
        os.write(writer, theirs.session_key.contents)

    children = [Child(accept) for _ in range(4)]
    subkeys = [child.output() for child in children]
    assert all(child.ended_well for child in children)
    assert len(set(subkeys)) == 4


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("etype", ALL)
def test_a_forked_child_and_its_parent_go_on_with_one_key(etype: int) -> None:
    key = crypto.random_key(etype)
    size = crypto.profile_of(etype).confounder_size
    crypto.decrypt(key, 9, crypto.encrypt(key, 9, b"before the fork"))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # only os._exit leaves here: pytest must not run twice
        try:
            random_one = crypto.encrypt(key, 9, b"x" * 40)
            fixed_one = crypto.encrypt(key, 9, b"y" * 33, bytes(size))
            os.write(write, len(random_one).to_bytes(2, "big") + random_one + fixed_one)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    length = int.from_bytes(answer[:2], "big")
    random_one, fixed_one = answer[2 : 2 + length], answer[2 + length :]
    ours = crypto.encrypt(key, 9, b"x" * 40)
    assert crypto.decrypt(key, 9, random_one) == b"x" * 40
    assert ours != random_one, "the child drew the confounder of its parent"
    assert fixed_one == crypto.encrypt(key, 9, b"y" * 33, bytes(size))


def test_another_process_goes_on() -> None:
    ours, theirs = pair()
    program = (
        "import sys; from purekrb import Acceptor\n"
        "key, blob, token = map(bytes.fromhex, sys.argv[1:])\n"
        "context = Acceptor.import_context(blob, key)\n"
        "print(context.initiator, context.unwrap(token).decode(), context.wrap(b'answer').hex())\n"
    )
    words = [KEY.hex(), theirs.export_context(KEY).hex(), ours.wrap(b"question").hex()]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    initiator, question, answer = done.stdout.split()
    assert (initiator, question) == ("alice@EXAMPLE.TEST", "question")
    assert ours.unwrap(bytes.fromhex(answer)) == b"answer"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_an_error_comes_home_from_a_worker_process() -> None:
    with (
        concurrent.futures.ProcessPoolExecutor(1) as pool,
        pytest.raises(errors.KdcError, match="no") as caught,
    ):
        pool.submit(fail).result(timeout=30)
    assert caught.value.code == 6


def test_all_doors_to_an_acceptor_share_the_default_replay_cache() -> None:
    """Four processes, two with Acceptor and two with SSPI's ServerAuth, take one token once."""
    ticket, entries = issue()
    token = Initiator(ticket).step()
    keytab = Keytab(KeytabEntry(entry.principal, entry.kvno, entry.key) for entry in entries)

    def job(number: int) -> bytes:
        if number % 2:
            sspi.set_default_credential(keytab=keytab)
            try:
                sspi.ServerAuth("Kerberos").authorize(token)
            except SspiError as error:
                return b"%d" % error.winerror
            return b"taken"
        try:
            Acceptor(keytab).step(token)
        except ReplayError as error:
            return b"%d" % error.code
        return b"taken"

    refusals = {b"34", b"%d" % sspi.SEC_E_LOGON_DENIED}
    results = in_children(4, job)
    assert results.count(b"taken") == 1
    assert set(results) - {b"taken"} <= refusals


def test_sspi_takes_a_replay_cache_for_all_services_or_for_one(tmp_path: Path) -> None:
    ticket, entries = issue()
    keytab = Keytab(KeytabEntry(entry.principal, entry.kvno, entry.key) for entry in entries)
    shared, own = FileReplayCache(tmp_path / "shared"), FileReplayCache(tmp_path / "own")
    sspi.set_default_credential(keytab=keytab, replay_cache=shared)
    try:
        token = Initiator(ticket).step()
        sspi.ServerAuth("Kerberos").authorize(token)
        with pytest.raises(SspiError):
            sspi.ServerAuth("Kerberos").authorize(token)
        sspi.ServerAuth("Kerberos", replay_cache=own).authorize(token)
        with pytest.raises(SspiError):
            sspi.ServerAuth("Kerberos", replay_cache=own).authorize(token)
    finally:
        sspi.set_default_credential()
    assert [len(records(cache.path)) for cache in (shared, own)] == [1, 1]


def test_processes_may_create_the_file_at_the_same_time(tmp_path: Path) -> None:
    for attempt in range(10):
        path = tmp_path / str(attempt)

        def job(number: int, path: Path = path) -> bytes:
            SqliteReplayCache(path).remember(tag(number), NOW, NOW)
            return b"stored"

        assert in_children(8, job) == [b"stored"] * 8
        cache = SqliteReplayCache(path)
        assert len(cache) == 8
        cache.close()


def test_a_cache_works_on_in_a_child_and_its_parent(tmp_path: Path) -> None:
    cache = SqliteReplayCache(tmp_path / "replay")
    cache.remember(tag(1), NOW, NOW)

    def job(writer: int) -> None:
        refuses(cache, 1)
        cache.remember(tag(2), NOW, NOW)
        cache.close()

    child = Child(job)
    child.output()
    assert child.ended_well
    refuses(cache, 2)
    cache.remember(tag(3), NOW, NOW)
    assert len(cache) == 3
    cache.close()


def test_a_fork_in_the_middle_of_anothers_store_leaves_a_usable_cache(tmp_path: Path) -> None:
    cache = SqliteReplayCache(tmp_path / "replay")
    done, go = threading.Event(), threading.Event()

    def hammer() -> None:
        number = 1000
        while not done.is_set():
            go.wait()  # a process that stores without a pause would let no other in
            cache.remember(tag(number), NOW, NOW)
            number += 1

    thread = threading.Thread(target=hammer)
    go.set()
    thread.start()
    try:
        for number in range(30):
            child = Child(lambda _, number=number: cache.remember(tag(number), NOW, NOW))  # type: ignore[misc]
            go.clear()
            child.output()
            assert child.ended_well
            go.set()
    finally:
        done.set()
        go.set()
        thread.join()
    for number in range(30):
        refuses(cache, number)
    cache.close()
