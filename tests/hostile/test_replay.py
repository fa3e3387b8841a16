"""Replays, races, floods and damaged replay caches (K232 to K247). PUREKRB_SOAK=1 runs the full counts."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from purekrb import Acceptor, ApError, CredentialError, Initiator, KerberosError, Principal, ReplayError
from purekrb.constants import ErrorCode
from purekrb.replay import BUCKET, KEEP, MemoryReplayCache, ReplayCache, SqliteReplayCache
from support.contexts import FixedClock, acceptor, ap_req, authenticator, error_of, flipped, with_ticket
from support.processes import Child, in_children, soak
from support.tickets import ALICE, SERVICE, Entry, issue
from support.values import replace

#: Far ahead of the clock, so that a cache file that a test makes, whenever it runs, is older than its authenticators.
NOW = datetime.now(timezone.utc) + timedelta(hours=2)


def soon() -> datetime:
    """Return a time that an acceptor with the real clock takes, and that is later than the making of any cache."""
    return datetime.now(timezone.utc) + timedelta(seconds=60)


HOST = Principal.parse("host/web.example.test@EXAMPLE.TEST")


def tag(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture(params=["memory", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReplayCache]:
    if request.param == "memory":
        yield MemoryReplayCache()
    else:
        on_disk = SqliteReplayCache(tmp_path / "replay")
        yield on_disk
        on_disk.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replay"


def accepts(keys: list[Entry], token: bytes | None, cache: ReplayCache, **options: object) -> bool:
    """Return whether an acceptor takes the token; that it does not may have no other reason than a replay."""
    context = acceptor(keys, replay_cache=cache, **options)
    refusal: ReplayError | None = None
    try:
        context.step(token)
    except ReplayError as error:
        refusal = error
    if refusal is not None:
        assert refusal.code == error_of(refusal.response).error_code == ErrorCode.KRB_AP_ERR_REPEAT
    assert context.established == (refusal is None)
    return refusal is None


# --- K232 to K234: the same token again


def test_k232_the_same_ap_req_twice_in_one_thread(cache: ReplayCache) -> None:
    ticket, keys = issue()
    token = Initiator(ticket).step()
    assert accepts(keys, token, cache)
    assert not accepts(keys, token, cache)
    assert accepts(keys, Initiator(ticket).step(), cache)


def test_k232_the_same_ap_req_twice_in_a_pool_of_threads(cache: ReplayCache) -> None:
    ticket, keys = issue()
    tokens = [Initiator(ticket).step() for _ in range(20)]
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda token: accepts(keys, token, cache), tokens * 4))
    assert sum(taken) == len(tokens)


def test_k232_the_same_ap_req_in_several_processes(path: Path) -> None:
    ticket, keys = issue()
    cache = SqliteReplayCache(path)
    token = Initiator(ticket).step()
    taken = in_children(4, lambda number: b"%d" % accepts(keys, token, cache))
    assert sorted(taken) == [b"0", b"0", b"0", b"1"]
    cache.close()


def test_k232_the_same_ap_req_after_a_restart_of_the_service(path: Path) -> None:
    ticket, keys = issue()
    token = ap_req(ticket, authenticator(ticket, now=soon()))
    service = Child(lambda _: accepts(keys, token, SqliteReplayCache(path)) or os.abort())
    service.output()
    assert service.ended_well
    again = SqliteReplayCache(path)
    assert not accepts(keys, token, again)
    assert accepts(keys, ap_req(ticket, authenticator(ticket, now=soon())), again)
    again.close()


def test_k233_many_processes_race_with_one_tag(path: Path) -> None:
    rounds = soak(20, 100)
    SqliteReplayCache(path).close()

    def job(_: int) -> bytes:
        mine = SqliteReplayCache(path)
        passed = bytearray(rounds)
        for number in range(rounds):
            try:
                mine.remember(tag(number), NOW, NOW)
                passed[number] = 1
            except ReplayError as error:
                if error.code != ErrorCode.KRB_AP_ERR_REPEAT:
                    raise
        return bytes(passed)

    results = in_children(10, job)
    assert [sum(column) for column in zip(*results, strict=True)] == [1] * rounds


def test_k234_many_processes_store_at_once_without_loss_or_false_alarm(path: Path) -> None:
    each = soak(100, 1000)
    SqliteReplayCache(path).close()

    def job(number: int) -> bytes:
        mine = SqliteReplayCache(path)
        for n in range(each):
            mine.remember(tag(number * each + n), NOW, NOW)
        return b"stored"

    assert in_children(10, job) == [b"stored"] * 10
    cache = SqliteReplayCache(path)
    assert len(cache) == 10 * each
    for number in range(10 * each):
        with pytest.raises(ReplayError):
            cache.remember(tag(number), NOW, NOW)
    cache.remember(tag(10 * each), NOW, NOW)
    cache.close()


# --- K235, K236


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))


def test_k235_the_file_does_not_grow_past_what_is_alive(path: Path) -> None:
    count = soak(1500, 10_000)
    cache = SqliteReplayCache(path)
    sizes = []
    for era in range(4):
        moment = NOW + era * timedelta(seconds=KEEP + 2 * BUCKET)
        for number in range(count):
            cache.remember(tag(era * count + number), moment, moment)
        sizes.append(size_of(path))
        assert len(cache) == count
    cache.close()
    assert max(sizes[1:]) <= 1.5 * sizes[0]


def test_k236_looking_and_storing_are_one_step(cache: ReplayCache) -> None:
    barrier = threading.Barrier(6)
    ticket, keys = issue()
    tokens = [Initiator(ticket).step() for _ in range(30)]
    taken: list[int] = []

    def present() -> None:
        for number, token in enumerate(tokens):
            barrier.wait()
            if accepts(keys, token, cache):
                taken.append(number)

    threads = [threading.Thread(target=present) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(30))


# --- K237 to K240: what makes an authenticator another one


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sname": HOST.name}, id="K237-to-a-name-with-the-same-key"),
        pytest.param({"sname": Principal.parse("x/y@R").name}, id="K237-to-a-name-without-a-key"),
        pytest.param({"realm": "OTHER.TEST"}, id="K237-to-another-realm"),
    ],
)
def test_k237_a_rewritten_cleartext_name_does_not_make_a_replay_new(
    cache: ReplayCache, changes: dict[str, object]
) -> None:
    """The names of one account share its keys, so the name decides which of its keytab entries is tried first."""
    ticket, keys = issue()
    keys.append(Entry(HOST, 3, keys[0].key))
    token = Initiator(ticket).step()
    assert token is not None
    rewritten = with_ticket(token, **changes)
    assert accepts(keys, rewritten, MemoryReplayCache()), "it is the replay cache that refuses"
    assert accepts(keys, token, cache)
    assert not accepts(keys, rewritten, cache)
    assert not accepts(keys, rewritten, cache, service=str(HOST))
    assert accepts(keys, Initiator(ticket).step(), cache)


def test_k237_an_authenticator_does_not_pass_once_for_each_name_of_its_account(cache: ReplayCache) -> None:
    ticket, keys = issue()
    keys.append(Entry(HOST, 3, keys[0].key))
    token = Initiator(ticket).step()
    assert accepts(keys, token, cache, service=str(HOST))
    assert not accepts(keys, token, cache, service=str(SERVICE))


def test_k238_the_same_microsecond_of_another_client_or_service_is_no_replay(cache: ReplayCache) -> None:
    moment = soon()
    ticket, keys = issue()
    assert accepts(keys, ap_req(ticket, authenticator(ticket, now=moment)), cache)
    bob = Principal.parse("bob@EXAMPLE.TEST")
    for other in (issue(client=bob, key=keys[0].key), issue(service=HOST), issue(client=bob, service=HOST)):
        assert accepts(other[1], ap_req(other[0], authenticator(other[0], now=moment)), cache)


def test_k239_two_authenticators_of_one_microsecond_are_two(cache: ReplayCache) -> None:
    ticket, keys = issue(client=ALICE)
    moment = soon()
    first, second = (ap_req(ticket, authenticator(ticket, now=moment)) for _ in range(2))
    assert first != second
    assert accepts(keys, first, cache)
    assert accepts(keys, second, cache)
    assert not accepts(keys, first, cache)
    assert not accepts(keys, second, cache)


def test_k240_an_acceptor_without_a_cache_refuses_the_second_presentation() -> None:
    ticket, keys = issue()
    token = Initiator(ticket).step()
    assert Acceptor(keys).step(token)
    with pytest.raises(ReplayError):
        Acceptor(keys).step(token)
    assert Acceptor(keys).step(Initiator(ticket).step())


# --- K241 to K243, K247: files


def corrupt(path: Path) -> None:
    for file in path.parent.glob(path.name + "*"):
        with file.open("r+b") as stream:
            stream.write(os.urandom(file.stat().st_size))


def truncate(path: Path) -> None:
    for file in path.parent.glob(path.name + "*"):
        if not file.name.endswith("-shm"):  # it is mapped into memory: who cuts it off kills the process
            os.truncate(file, 0)


def remove(path: Path) -> None:
    for file in path.parent.glob(path.name + "*"):
        file.unlink()


def remove_the_main_file(path: Path) -> None:
    path.unlink()


def put_another_in_its_place(path: Path) -> None:
    other = path.with_name("other")
    SqliteReplayCache(other).close()
    other.replace(path)


def let_others_write(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize(
    "damage", [corrupt, truncate, remove, remove_the_main_file, put_another_in_its_place, let_others_write]
)
def test_k241_a_cache_that_is_lost_or_damaged_while_in_use_lets_no_replay_through(
    path: Path, damage: Callable[[Path], None]
) -> None:
    ticket, keys = issue()
    cache = SqliteReplayCache(path)
    token = Initiator(ticket).step()
    assert accepts(keys, token, cache)
    assert accepts(keys, Initiator(ticket).step(), cache)
    damage(path)
    for _ in range(3):
        with pytest.raises(ReplayError) as caught:
            acceptor(keys, replay_cache=cache).step(token)
        assert caught.value.response
    cache.close()


@pytest.mark.parametrize("damage", [remove, remove_the_main_file, put_another_in_its_place])
def test_k241_two_processes_never_end_up_with_two_files(path: Path, damage: Callable[[Path], None]) -> None:
    """One goes on with the file that was there, the other opens the new one: no token may pass at both."""
    ticket, keys = issue()
    old = SqliteReplayCache(path)
    assert accepts(keys, Initiator(ticket).step(), old)
    damage(path)
    new = SqliteReplayCache(path)
    token = Initiator(ticket).step()
    with pytest.raises(ReplayError) as caught:
        acceptor(keys, replay_cache=old).step(token)
    assert caught.value.code == ErrorCode.KRB_ERR_GENERIC
    assert accepts(keys, token, new)
    assert not accepts(keys, token, old)
    both = Initiator(ticket).step()
    assert accepts(keys, both, old), "it has found the new file"
    assert not accepts(keys, both, new)
    old.close()
    new.close()


@pytest.mark.parametrize("damage", [remove, truncate])
def test_k241_a_service_that_starts_without_its_cache_refuses_what_may_be_a_replay(
    path: Path, damage: Callable[[Path], None]
) -> None:
    ticket, keys = issue()
    cache = SqliteReplayCache(path)
    token = Initiator(ticket).step()
    assert accepts(keys, token, cache)
    cache.close()
    damage(path)
    cache = SqliteReplayCache(path)
    with pytest.raises(ReplayError, match="older than the replay cache"):
        acceptor(keys, replay_cache=cache).step(token)
    assert accepts(keys, Initiator(ticket).step(), cache)
    cache.close()


def test_k241_a_full_disk_refuses_and_what_was_stored_stays(path: Path) -> None:
    cache = SqliteReplayCache(path)
    cache.remember(tag(0), NOW, NOW)
    cache.close()

    def job(writer: int) -> None:
        mine = SqliteReplayCache(path)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))
        stored = 0
        try:
            while stored < 100_000:
                mine.remember(tag(stored + 1), NOW, NOW)
                stored += 1
        except ReplayError as error:
            if error.code == ErrorCode.KRB_ERR_GENERIC:
                os.write(writer, b"%d" % stored)

    child = Child(job)
    stored = int(child.output())
    assert child.ended_well
    assert stored > 3
    cache = SqliteReplayCache(path)
    for number in range(stored + 1):
        with pytest.raises(ReplayError, match="already presented"):
            cache.remember(tag(number), NOW, NOW)
    cache.remember(tag(stored + 2), NOW, NOW)
    cache.close()


def test_k242_kill_9_in_the_middle_of_a_store_loses_nothing(path: Path) -> None:
    SqliteReplayCache(path).close()
    known = 0
    for attempt in range(soak(12, 1000)):

        def job(writer: int, first: int = known) -> None:
            mine = SqliteReplayCache(path)
            for number in range(first, first + 100_000):
                mine.remember(tag(number), NOW, NOW)
                os.write(writer, b".")

        child = Child(job)
        time.sleep(0.02 + 0.003 * (attempt % 12))
        child.kill()
        confirmed = len(child.output())
        cache = SqliteReplayCache(path)
        # What was confirmed is there; one more may be, whose confirmation was cut off.
        assert known + confirmed <= len(cache) <= known + confirmed + 1
        if confirmed:
            for number in (known, known + confirmed - 1):
                with pytest.raises(ReplayError, match="already presented"):
                    cache.remember(tag(number), NOW, NOW)
        known = len(cache)
        cache.close()
    assert known > 20
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_k243_a_file_of_another_user_is_refused(path: Path) -> None:
    if os.getuid() == 0:
        SqliteReplayCache(path).close()
        os.chown(path, 1, 1)
    else:
        path = Path("/etc/passwd")
    with pytest.raises(CredentialError, match="belongs to user"):
        SqliteReplayCache(path)


def test_k243_a_symbolic_link_is_refused_and_not_followed(path: Path) -> None:
    target = path.with_name("target")
    path.symlink_to(target)
    with pytest.raises(CredentialError, match="regular file"):
        SqliteReplayCache(path)
    assert not target.exists()
    SqliteReplayCache(target).close()


OLD_FORMATS = [
    pytest.param(b"\x05\x01" + bytes(62), id="K247-records-behind-a-version"),
    pytest.param(b"\0\0\1\x8c" + bytes(200), id="K247-Java-like-list"),
    pytest.param(os.urandom(16) + bytes(4096), id="K247-MIT-like-hash-table"),
    pytest.param(b"SQLite format 3\0" + bytes(84), id="K247-cut-off-database"),
    pytest.param(b"{}", id="K247-text"),
]


@pytest.mark.parametrize("content", OLD_FORMATS)
def test_k247_a_file_of_another_format_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CredentialError):
        SqliteReplayCache(path)
    assert path.read_bytes() == content
    path.unlink()
    SqliteReplayCache(path).close()


# --- K244: clocks


@pytest.mark.parametrize("step", [-600, -300, -1, 0, 1, 290])
def test_k244_a_replay_is_found_when_the_clock_steps(cache: ReplayCache, step: int) -> None:
    ticket, keys = issue(now=NOW - timedelta(hours=1))
    clock = FixedClock(NOW + timedelta(seconds=max(0, -step)))
    token = Initiator(ticket, clock=clock).step()
    assert accepts(keys, token, cache, clock=clock)
    # Others come and go, so that old entries are dropped.
    for later in (0, BUCKET, 2 * BUCKET):
        others = FixedClock(clock.moment + timedelta(seconds=later))
        assert accepts(keys, Initiator(ticket, clock=others).step(), cache, clock=others)
    stepped = FixedClock(clock.moment + timedelta(seconds=step))
    if step >= -300:
        assert not accepts(keys, token, cache, clock=stepped)
    else:
        with pytest.raises(ApError) as caught:
            accepts(keys, token, cache, clock=stepped)
        assert caught.value.code == ErrorCode.KRB_AP_ERR_SKEW
    # The clock is set right again.
    assert not accepts(keys, token, cache, clock=clock)


@pytest.mark.parametrize("ahead", [-299, 0, 299])
def test_k244_a_replay_is_found_when_the_clock_is_set_back_by_ten_minutes(cache: ReplayCache, ahead: int) -> None:
    """The clock goes on until the token is too old, others come, and then it goes back to where the token would do."""
    ticket, keys = issue(now=NOW - timedelta(hours=1))
    clock = FixedClock(NOW + timedelta(seconds=300))
    token = Initiator(ticket, clock=FixedClock(clock.moment + timedelta(seconds=ahead))).step()
    assert accepts(keys, token, cache, clock=clock)
    last = clock.moment + timedelta(seconds=ahead + 300)  # when it would pass for the last time
    late = FixedClock(last + timedelta(seconds=600))
    assert accepts(keys, Initiator(ticket, clock=late).step(), cache, clock=late)
    assert not accepts(keys, token, cache, clock=FixedClock(last))


def test_k244_a_large_skew_does_not_outlast_the_memory(cache: ReplayCache) -> None:
    """An hour of clock_skew: what the cache may have dropped is refused, not taken for new."""
    moment = NOW + timedelta(hours=1)
    ticket, keys = issue(now=NOW)
    taken = 0
    token = Initiator(ticket, clock=FixedClock(moment - timedelta(minutes=50))).step()
    fresh = Initiator(ticket, clock=FixedClock(moment - timedelta(minutes=5))).step()
    for later in (0, BUCKET, 2 * BUCKET):
        clock = FixedClock(moment + timedelta(seconds=later))
        assert accepts(keys, Initiator(ticket, clock=clock).step(), cache, clock=clock, clock_skew=3600)
        for old in (token, fresh):
            try:
                acceptor(keys, replay_cache=cache, clock=clock, clock_skew=3600).step(old)
                taken += 1
            except ReplayError:
                continue
    assert taken == 1


# --- K245, K246: floods


def test_k245_a_flood_by_one_client_is_bounded_in_memory() -> None:
    cache = MemoryReplayCache(max_entries=1000)
    for number in range(1000):
        cache.remember(tag(number), NOW, NOW)
    for number in range(1000, 3000):
        with pytest.raises(ReplayError, match="full"):
            cache.remember(tag(number), NOW, NOW)
    assert len(cache) == 1000
    with pytest.raises(ReplayError, match="already presented"):
        cache.remember(tag(1), NOW, NOW)


def test_k245_a_flood_takes_few_bytes_a_record_and_no_scan(path: Path) -> None:
    count = soak(6000, 1_000_000)
    cache = SqliteReplayCache(path)
    times = []
    for part in range(6):
        start = time.perf_counter()
        for number in range(part * count // 6, (part + 1) * count // 6):
            cache.remember(number.to_bytes(8, "big") * 2, NOW, NOW)
        times.append(time.perf_counter() - start)
    cache.close()
    assert path.stat().st_size / count < 48
    assert min(times[3:]) < 3 * min(times[:3]), "a store must not take longer the more is stored"


def test_k246_nothing_is_stored_before_everything_else_was_verified(cache: ReplayCache) -> None:
    ticket, keys = issue()
    _, others = issue()
    token = Initiator(ticket).step()
    assert token is not None
    expired, expired_keys = issue(endtime=NOW - timedelta(days=1), starttime=None, authtime=NOW - timedelta(days=2))
    refused = [
        (keys, flipped(token, 8 * len(token) - 1)),
        (keys, flipped(token, 8 * len(token) - 3000)),
        (others, token),
        (expired_keys, ap_req(expired)),
        (keys, ap_req(ticket, authenticator(ticket, crealm="EVIL.TEST"))),
        (keys, ap_req(ticket, authenticator(ticket, now=NOW - timedelta(hours=1)))),
        (keys, ap_req(ticket, authenticator(ticket, cksum=None))),
    ]
    for _ in range(soak(10, 100_000)):
        for key_table, bad in refused:
            with pytest.raises(KerberosError):
                acceptor(key_table, replay_cache=cache).step(bad)
    assert len(cache) == 0  # type: ignore[arg-type]
    assert accepts(keys, token, cache)
    assert len(cache) == 1  # type: ignore[arg-type]


def test_the_genuine_authenticator_is_what_is_stored(cache: ReplayCache) -> None:
    """The control of K237 and K246: an altered copy of a token neither passes nor uses it up."""
    ticket, keys = issue()
    token = ap_req(ticket, replace(authenticator(ticket), seq_number=1))
    with pytest.raises(KerberosError):
        accepts(keys, flipped(token, 8 * len(token) - 9), cache)
    assert accepts(keys, token, cache)
    assert not accepts(keys, token, cache)
