"""Replays, races, floods, forks and damaged replay caches (K232 to K247, K405 to K431). PUREKRB_SOAK=1: full counts."""

from __future__ import annotations

import contextlib
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

from purekrb import (
    Acceptor,
    ApError,
    CredentialError,
    Initiator,
    KerberosError,
    MutualAuthenticationError,
    Principal,
    ReplayError,
    ServiceTicket,
)
from purekrb.constants import ErrorCode
from purekrb.exchanges.unique_time import UniqueTimes
from purekrb.replay import (
    BUCKET,
    KEEP,
    FileReplayCache,
    MemoryReplayCache,
    ReplayCache,
    SqliteReplayCache,
)
from support.contexts import (
    Elapsed,
    FixedClock,
    acceptor,
    ap_req,
    authenticator,
    error_of,
    flipped,
    with_ticket,
)
from support.processes import Child, in_children, soak
from support.rcache2 import records
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


@pytest.fixture
def elapsed() -> Elapsed:
    return Elapsed()


@pytest.fixture(params=["memory", "file", "sqlite"])
def cache(
    request: pytest.FixtureRequest, tmp_path: Path, elapsed: Elapsed
) -> Iterator[ReplayCache]:
    if request.param == "memory":
        yield MemoryReplayCache(monotonic=elapsed)
    elif request.param == "file":
        yield FileReplayCache(tmp_path / "rcache2", monotonic=elapsed)
    else:
        on_disk = SqliteReplayCache(tmp_path / "replay", monotonic=elapsed)
        yield on_disk
        on_disk.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replay"


def stored_in(cache: ReplayCache) -> int:
    if isinstance(cache, FileReplayCache):
        return len(records(cache.path))
    return len(cache)  # type: ignore[arg-type]


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


def test_k235_the_file_does_not_grow_past_what_is_alive(path: Path, elapsed: Elapsed) -> None:
    count = soak(1500, 10_000)
    cache = SqliteReplayCache(path, monotonic=elapsed)
    sizes = []
    for era in range(4):
        moment = NOW + era * timedelta(seconds=KEEP + 2 * BUCKET)
        for number in range(count):
            cache.remember(tag(era * count + number), moment, moment)
        sizes.append(size_of(path))
        assert len(cache) == count
        elapsed.seconds += KEEP + 2 * BUCKET
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


def test_k237_an_authenticator_does_not_pass_once_for_each_name_of_its_account(
    cache: ReplayCache,
) -> None:
    ticket, keys = issue()
    keys.append(Entry(HOST, 3, keys[0].key))
    token = Initiator(ticket).step()
    assert accepts(keys, token, cache, service=str(HOST))
    assert not accepts(keys, token, cache, service=str(SERVICE))


def test_k238_the_same_microsecond_of_another_client_or_service_is_no_replay(
    cache: ReplayCache,
) -> None:
    moment = soon()
    ticket, keys = issue()
    assert accepts(keys, ap_req(ticket, authenticator(ticket, now=moment)), cache)
    bob = Principal.parse("bob@EXAMPLE.TEST")
    for other in (
        issue(client=bob, key=keys[0].key),
        issue(service=HOST),
        issue(client=bob, service=HOST),
    ):
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
    "damage",
    [corrupt, truncate, remove, remove_the_main_file, put_another_in_its_place, let_others_write],
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
def test_k241_two_processes_never_end_up_with_two_files(
    path: Path, damage: Callable[[Path], None]
) -> None:
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
def test_k247_a_file_of_another_format_is_refused_and_left_alone(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CredentialError):
        SqliteReplayCache(path)
    assert path.read_bytes() == content
    path.unlink()
    SqliteReplayCache(path).close()


# --- K244: clocks


@pytest.mark.parametrize("step", [-600, -300, -1, 0, 1, 290])
def test_k244_a_replay_is_found_when_the_clock_steps(
    cache: ReplayCache, elapsed: Elapsed, step: int
) -> None:
    ticket, keys = issue(now=NOW - timedelta(hours=1))
    clock = FixedClock(NOW + timedelta(seconds=max(0, -step)))
    token = Initiator(ticket, clock=clock).step()
    assert accepts(keys, token, cache, clock=clock)
    # Others come and go, so that old entries are dropped.
    for later in (0, BUCKET, 2 * BUCKET):
        elapsed.seconds += BUCKET
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
def test_k244_a_replay_is_found_when_the_clock_is_set_back_by_ten_minutes(
    cache: ReplayCache, elapsed: Elapsed, ahead: int
) -> None:
    """The clock goes on until the token is too old, others come, and then it goes back to where the token would do."""
    ticket, keys = issue(now=NOW - timedelta(hours=1))
    clock = FixedClock(NOW + timedelta(seconds=300))
    token = Initiator(ticket, clock=FixedClock(clock.moment + timedelta(seconds=ahead))).step()
    assert accepts(keys, token, cache, clock=clock)
    last = clock.moment + timedelta(seconds=ahead + 300)  # when it would pass for the last time
    late = FixedClock(last + timedelta(seconds=600))
    elapsed.seconds += (late.moment - clock.moment).total_seconds()
    assert accepts(keys, Initiator(ticket, clock=late).step(), cache, clock=late)
    assert not accepts(keys, token, cache, clock=FixedClock(last))


def test_k244_a_large_skew_does_not_outlast_the_memory(
    cache: ReplayCache, elapsed: Elapsed
) -> None:
    """An hour of clock_skew: what the cache may have dropped is refused, not taken for new."""
    moment = NOW + timedelta(hours=1)
    ticket, keys = issue(now=NOW)
    taken = 0
    token = Initiator(ticket, clock=FixedClock(moment - timedelta(minutes=50))).step()
    fresh = Initiator(ticket, clock=FixedClock(moment - timedelta(minutes=5))).step()
    for later in (0, BUCKET, 2 * BUCKET):
        clock = FixedClock(moment + timedelta(seconds=later))
        elapsed.seconds += BUCKET
        assert accepts(
            keys, Initiator(ticket, clock=clock).step(), cache, clock=clock, clock_skew=3600
        )
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
    expired, expired_keys = issue(
        endtime=NOW - timedelta(days=1), starttime=None, authtime=NOW - timedelta(days=2)
    )
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
    assert stored_in(cache) == 0
    assert accepts(keys, token, cache)
    assert stored_in(cache) == 1


def test_the_genuine_authenticator_is_what_is_stored(cache: ReplayCache) -> None:
    """The control of K237 and K246: an altered copy of a token neither passes nor uses it up."""
    ticket, keys = issue()
    token = ap_req(ticket, replace(authenticator(ticket), seq_number=1))
    with pytest.raises(KerberosError):
        accepts(keys, flipped(token, 8 * len(token) - 9), cache)
    assert accepts(keys, token, cache)
    assert not accepts(keys, token, cache)


# --- K405: one account fills the cache


def flood(
    keys: list[Entry], ticket: ServiceTicket, cache: ReplayCache, most: int
) -> tuple[int, ReplayError]:
    """Return how many authenticators of the ticket's client are taken until one is refused, and how."""
    for number in range(most):
        try:
            acceptor(keys, replay_cache=cache).step(
                ap_req(ticket, authenticator(ticket, now=soon()))
            )
        except ReplayError as error:
            return number, error
    raise AssertionError(f"all of {most} were taken")


def small(
    kind: str, path: Path, elapsed: Elapsed, entries: int
) -> MemoryReplayCache | SqliteReplayCache:
    if kind == "memory":
        return MemoryReplayCache(entries, monotonic=elapsed)
    return SqliteReplayCache(path, max_bytes=64 * 1024 + 48 * entries, monotonic=elapsed)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_k405_one_client_leaves_room_for_others(
    kind: str, path: Path, elapsed: Elapsed, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not help to get several tickets, nor to spell the name in another way."""
    alice, keys = issue()
    spelled, others = issue(client=Principal.parse("ALICE@EXAMPLE.TEST"), key=keys[0].key)
    bob, _ = issue(client=Principal.parse("bob@EXAMPLE.TEST"), key=keys[0].key)
    cache = small(kind, path, elapsed, 400)
    first = ap_req(alice, authenticator(alice, now=soon()))
    assert accepts(keys, first, cache)
    taken, error = flood(keys, alice, cache, 3000)
    assert taken > 100
    assert "this client has filled its share" in str(error)
    assert error.code == error_of(error.response).error_code == ErrorCode.KRB_ERR_GENERIC
    with pytest.raises(ReplayError, match="its share"):
        acceptor(others, replay_cache=cache).step(
            ap_req(spelled, authenticator(spelled, now=soon()))
        )
    for number in range(20):
        assert accepts(keys, ap_req(bob, authenticator(bob, now=soon())), cache), number
    assert not accepts(keys, first, cache), "nothing of the flood was forgotten"
    warnings = [record.getMessage() for record in caplog.records if record.name == "purekrb.replay"]
    assert len(warnings) == 1, "one warning a minute, however many are refused"
    assert "alice@example.test" in warnings[0]
    elapsed.seconds += 61
    with pytest.raises(ReplayError, match="its share"):
        acceptor(keys, replay_cache=cache).step(ap_req(alice, authenticator(alice, now=soon())))
    assert len([record for record in caplog.records if record.name == "purekrb.replay"]) == 2


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_k405_what_no_skew_admits_again_makes_room_and_is_never_taken_for_new(
    kind: str, path: Path, elapsed: Elapsed
) -> None:
    cache = small(kind, path, elapsed, 400)
    begin = NOW - timedelta(seconds=NOW.timestamp() % BUCKET)  # of a bucket
    count = 0
    with contextlib.suppress(ReplayError):
        for count in range(3000):
            cache.remember(tag(count), begin, begin, "alice")
    assert 100 < count < 2999
    later = begin + timedelta(seconds=3 * BUCKET)
    elapsed.seconds += BUCKET
    with pytest.raises(
        ReplayError, match="its share"
    ):  # the clock has jumped ahead: no such time has passed
        cache.remember(tag(count), later, later, "alice")
    elapsed.seconds += 2 * BUCKET + 400
    cache.remember(tag(count), later, later, "alice")
    assert len(cache) == 1
    # The clock is set back to where it would pass.
    for number in (0, count - 1, count + 1):
        with pytest.raises(ReplayError, match="older than the replay cache"):
            cache.remember(tag(number), begin, begin, "bob")
    with pytest.raises(ReplayError, match="already presented"):
        cache.remember(tag(count), later, later, "alice")
    cache.remember(tag(count + 1), later, later, "alice")


def test_k405_the_file_is_bounded_for_clients_that_nobody_names_and_for_all_processes(
    path: Path,
) -> None:
    limit = 128 * 1024

    def job(number: int) -> bytes:
        mine = SqliteReplayCache(path, max_bytes=limit)
        for stored in range(10_000):
            try:
                mine.remember(tag(number * 10_000 + stored), NOW, NOW)
            except ReplayError as error:
                # Who comes last finds the file full at once; who waits too long for it tries again.
                if "the replay cache is full" in str(error):
                    return b"%d" % (stored + 1)
        return b"0"

    stored = list(map(int, in_children(3, job)))
    assert min(stored) > 0
    assert sum(stored) > 1000
    assert path.stat().st_size <= limit + 8192
    SqliteReplayCache(path, max_bytes=2 * limit).remember(tag(99_999_999), NOW, NOW)


def test_k405_caches_made_for_the_protocol_as_it_was_are_called_as_they_were() -> None:
    ticket, keys = issue()
    calls: list[tuple[object, ...]] = []

    class Own:
        def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
            calls.append((tag, ctime, now))

    class Derived(MemoryReplayCache):
        def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:  # type: ignore[override]
            calls.append((tag, ctime, now))
            super().remember(tag, ctime, now)

    class Told:
        def remember(self, tag: bytes, ctime: datetime, now: datetime, *, client: str = "") -> None:
            calls.append((tag, ctime, now, client))

    for cache in (Own(), Derived(), Told()):
        assert accepts(keys, Initiator(ticket).step(), cache)
    assert [len(call) for call in calls] == [3, 3, 4]
    assert calls[-1][-1] == "alice@example.test"


# --- K407: who else can write where the file is


def other_user() -> int:
    if os.getuid() != 0:
        pytest.skip("only root can make files of another user")
    return 4711


def sticky(directory: Path) -> None:
    directory.chmod(0o1777)


def of_another_user(directory: Path) -> None:
    os.chown(directory, other_user(), -1)


def below_one_that_others_write(directory: Path) -> None:
    directory.parent.chmod(0o777)


@pytest.mark.parametrize(
    "spoil",
    [
        sticky,
        lambda directory: directory.chmod(0o770),
        of_another_user,
        below_one_that_others_write,
    ],
)
def test_k407_a_directory_in_which_others_can_put_files_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    directory = tmp_path / "above" / "replay"
    directory.mkdir(parents=True, mode=0o755)
    SqliteReplayCache(directory / "cache").close()
    before = sorted(directory.iterdir())
    spoil(directory)
    for path in (directory / "cache", directory / "new"):
        with pytest.raises(CredentialError, match="directory"):
            SqliteReplayCache(path)
    assert sorted(directory.iterdir()) == before


def test_k407_a_directory_of_ours_in_a_sticky_one_is_safe(tmp_path: Path) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "ours").mkdir(mode=0o700)
    SqliteReplayCache(shared / "ours" / "cache").remember(tag(1), NOW, NOW)


def test_k407_a_directory_that_becomes_unsafe_is_found_when_the_file_is_opened_again(
    path: Path,
) -> None:
    cache = SqliteReplayCache(path)
    cache.remember(tag(1), NOW, NOW)
    cache.close()
    path.parent.chmod(0o777)
    with pytest.raises(ReplayError, match="others can write to the directory"):
        cache.remember(tag(2), NOW, NOW)
    path.parent.chmod(0o700)
    cache.remember(tag(2), NOW, NOW)
    cache.close()


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("how", ["foreign", "writable", "link"])
def test_k407_a_journal_that_is_not_ours_is_refused(path: Path, suffix: str, how: str) -> None:
    cache = SqliteReplayCache(path)
    cache.remember(tag(1), NOW, NOW)
    cache.close()
    beside = path.with_name(path.name + suffix)
    beside.unlink(missing_ok=True)
    if how == "link":
        beside.symlink_to("/dev/null")
    else:
        beside.write_bytes(b"")
        if how == "foreign":
            os.chown(beside, other_user(), -1)
        else:
            beside.chmod(0o666)
    with pytest.raises(CredentialError, match=suffix):
        SqliteReplayCache(path)
    beside.unlink()
    again = SqliteReplayCache(path)
    with pytest.raises(ReplayError, match="already presented"):
        again.remember(tag(1), NOW, NOW)
    again.close()


def as_older_version(path: Path) -> sqlite3.Connection:
    """Return a connection to the file as it was made before: two tables, a write-ahead log, one authenticator."""
    older = sqlite3.connect(path, isolation_level=None)
    path.chmod(0o600)
    older.executescript(
        """
        PRAGMA application_id = 0x70726b62;
        PRAGMA user_version = 1;
        CREATE TABLE seen (bucket INTEGER NOT NULL, tag BLOB NOT NULL, PRIMARY KEY (bucket, tag)) WITHOUT ROWID;
        CREATE TABLE meta (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
        INSERT INTO meta VALUES ('created_at', 1700000000);
        PRAGMA journal_mode = WAL;
        """
    )
    older.execute("INSERT INTO seen VALUES (?, ?)", (int(NOW.timestamp()) // BUCKET, tag(1)))
    return older


def test_k407_nobody_can_cut_off_what_is_mapped_into_memory(path: Path) -> None:
    """As somebody could with the index of a write-ahead log, which ended the process by SIGBUS."""
    as_older_version(path).close()

    def job(writer: int) -> None:
        cache = SqliteReplayCache(path)
        cache.remember(tag(2), NOW, NOW)
        mapped = [
            line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
        ]
        names = {file.name for file in path.parent.iterdir()}
        for file in path.parent.glob(path.name + "?*"):
            os.truncate(file, 0)
        cache.remember(tag(3), NOW, NOW)
        os.truncate(path, 0)
        try:
            cache.remember(tag(4), NOW, NOW)
        except ReplayError as error:
            os.write(writer, repr((mapped, sorted(names), int(error.code or 0))).encode())

    child = Child(job)
    found = child.output()
    assert child.ended_well
    assert (
        found == repr(([], ["replay", "replay-journal"], int(ErrorCode.KRB_ERR_GENERIC))).encode()
    )


def test_k407_the_file_of_an_older_version_is_taken_over_by_many_processes_at_once(
    path: Path,
) -> None:
    for number in range(soak(2, 50)):
        older = path.with_name(str(number))
        as_older_version(older).close()

        def job(number: int, path: Path = older) -> bytes:
            mine = SqliteReplayCache(path)
            mine.remember(tag(100 + number), NOW, NOW)
            with pytest.raises(ReplayError, match="already presented"):
                mine.remember(tag(1), NOW, NOW)
            return b"stored"

        assert in_children(6, job) == [b"stored"] * 6


# --- K414: the clock jumps ahead and back


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(days=1), timedelta(days=4000)])
def test_k414_nothing_is_forgotten_by_a_clock_that_jumps_ahead_and_back(
    cache: ReplayCache, elapsed: Elapsed, path: Path, jump: timedelta
) -> None:
    for number in range(5):
        cache.remember(tag(number), NOW, NOW)
    ahead = NOW + jump
    for number, later in enumerate((0, BUCKET, 2 * BUCKET), 10):
        elapsed.seconds += 200
        moment = ahead + timedelta(seconds=later)
        cache.remember(tag(number), moment, moment)
    caches = [cache]
    if isinstance(cache, SqliteReplayCache):  # one that was opened meanwhile
        caches.append(SqliteReplayCache(path, monotonic=elapsed))
        caches[-1].remember(tag(20), moment, moment)
    for new, each in enumerate(caches, 30):
        for number in range(5):
            with pytest.raises(ReplayError, match="already presented"):
                each.remember(tag(number), NOW, NOW)
        each.remember(tag(new), NOW, NOW)
    if isinstance(cache, FileReplayCache):
        return  # drops nothing, and uses places again: test_replay_file.py
    # Once the time has really passed, they are dropped.
    elapsed.seconds += 2 * KEEP
    late = NOW + timedelta(seconds=2 * KEEP)
    before = len(cache)  # type: ignore[arg-type]
    cache.remember(tag(99), late, late)
    assert len(cache) <= before - 5 + 1  # type: ignore[arg-type]


def test_k414_the_file_of_a_machine_that_was_started_again_forgets_nothing_too_early(
    path: Path,
) -> None:
    """The monotonic clock begins anew, below what the file says or above it."""
    elapsed = Elapsed()
    for run, begin in enumerate((100_000.0, 5.0, 200_000.0)):
        elapsed.seconds = begin
        cache = SqliteReplayCache(path, monotonic=elapsed)
        cache.remember(tag(run), NOW, NOW)
        ahead = NOW + timedelta(days=1)
        cache.remember(tag(10 + run), ahead + timedelta(seconds=run * BUCKET), ahead)
        for number in range(run + 1):
            with pytest.raises(ReplayError, match="already presented"):
                cache.remember(tag(number), NOW, NOW)
        cache.close()


def test_k414_after_a_start_of_the_machine_what_a_power_failure_took_does_not_pass(
    path: Path,
) -> None:
    ticket, keys = issue()
    elapsed = Elapsed()
    cache = SqliteReplayCache(path, monotonic=elapsed)
    token = Initiator(ticket).step()
    assert accepts(keys, token, cache)
    cache.close()
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM seen")
    file.close()
    elapsed.seconds = 0.0
    cache = SqliteReplayCache(path, monotonic=elapsed)
    with pytest.raises(ReplayError, match="older than the replay cache"):
        acceptor(keys, replay_cache=cache).step(token)
    assert accepts(keys, Initiator(ticket).step(), cache)
    cache.close()


@pytest.mark.parametrize("open_meanwhile", [False, True])
def test_k414_a_file_that_was_made_while_the_clock_was_ahead_heals(
    path: Path, open_meanwhile: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ticket, keys = issue()
    cache = SqliteReplayCache(path)
    old = Initiator(ticket).step()
    if not open_meanwhile:
        cache.close()
    with sqlite3.connect(path) as file:
        file.execute("UPDATE meta SET value = value + 86400 WHERE name = 'created_at'")
    file.close()
    if open_meanwhile:
        with pytest.raises(ReplayError, match="older than the replay cache"):
            acceptor(keys, replay_cache=cache).step(Initiator(ticket).step())
        assert "86400 s ahead of the clock: corrected" in caplog.text
        time.sleep(0.13)
    for each in (cache, SqliteReplayCache(path)):
        token = Initiator(ticket).step()
        assert accepts(keys, token, each)
        assert not accepts(keys, token, each)
        with pytest.raises(ReplayError, match="older than the replay cache"):
            acceptor(keys, replay_cache=each).step(old)
        each.close()


# --- K416: the clock is set back to where an AP-REP was recorded


def test_k416_a_recorded_ap_rep_proves_nothing_after_the_clock_was_set_back() -> None:
    ticket, keys = issue()
    clock = FixedClock()
    moment = clock.moment
    first = Initiator(ticket, clock=clock)
    recorded = acceptor(keys).step(first.step())
    first.step(recorded)
    assert first.established
    for shift in (timedelta(hours=3), timedelta(hours=-3), timedelta(0)):
        clock.moment = moment + shift
        again = Initiator(ticket, clock=clock)
        again.step()
        with pytest.raises(MutualAuthenticationError, match="time of our authenticator"):
            again.step(recorded)
        assert not again.established
    # The control: a clock that nobody has asked gives the very same time, and with it the recording passes.
    careless = Initiator(ticket, clock=FixedClock(moment))
    careless.step()
    careless.step(recorded)
    assert careless.established


def test_k416_the_systems_clock_gives_other_microseconds_to_each_process() -> None:
    """A job that starts at the same moment of its second every hour, and whose clock is set back by an hour."""
    ticket, keys = issue()
    clock = FixedClock()

    def job(_: int) -> bytes:
        return str(UniqueTimes()(clock)).encode()

    assert len(set(in_children(6, job))) >= 5
    times = UniqueTimes()
    recorded = acceptor(keys).step(ap_req(ticket, authenticator(ticket, now=times(clock))))
    assert recorded is not None
    hour, given = timedelta(hours=1), {times(clock)}
    for _ in range(soak(50, 5000)):
        clock.moment += hour
        times(clock)
        clock.moment -= hour
        given.add(times(clock))
    assert len(given) == soak(50, 5000) + 1


# --- K431: damage


def read_all(path: Path) -> str:
    """Use the file; return the way in which it is refused, or "" where nothing is noticed."""
    cache = None
    try:
        cache = SqliteReplayCache(path, timeout=0.2)
        len(cache)
        for number in range(3):
            with contextlib.suppress(ReplayError):
                cache.remember(tag(number), NOW, NOW)
        cache.remember(tag(9), NOW, NOW)
    except CredentialError as error:
        return f"{path} cannot be used as a replay cache" if str(path) in str(error) else ""
    except ReplayError as error:
        return str(error)
    finally:
        if cache is not None:
            cache.close()
    return ""


def test_k431_a_damaged_file_is_refused_by_the_promised_errors(path: Path) -> None:
    cache = SqliteReplayCache(path)
    for number in range(3):
        cache.remember(tag(number), NOW, NOW)
    cache.close()
    genuine = path.read_bytes()
    assert read_all(path) == "", "the control: a file that nobody damaged"
    # The bytes that mean something, each with all bits flipped and with one; and the file cut off anywhere.
    places = [at for at, byte in enumerate(genuine) if byte][:: soak(6, 1)]
    damaged = [
        genuine[:at] + bytes([genuine[at] ^ mask]) + genuine[at + 1 :]
        for at in places
        for mask in (0xFF, 0x80)
    ]
    damaged += [genuine[:size] for size in range(1, len(genuine), soak(997, 61))]
    noticed = 0
    for content in damaged:
        path.with_name(path.name + "-journal").unlink(missing_ok=True)
        path.write_bytes(content)
        noticed += read_all(path) != ""
    assert noticed > len(damaged) // 4


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE meta SET value = 'then'",
        "UPDATE meta SET value = x'ff'",
        "UPDATE meta SET value = 1e999",
        "UPDATE meta SET value = -1",
        "DELETE FROM meta",
        "DROP TABLE seen",
        "ALTER TABLE seen ADD COLUMN more",
        "CREATE TRIGGER forget AFTER INSERT ON seen BEGIN DELETE FROM seen; END",
        "CREATE TABLE more (x)",
        "UPDATE sqlite_master SET sql = cast(x'43ff' AS TEXT) WHERE name = 'seen'",
        "UPDATE sqlite_master SET sql = replace(sql, ', PRIMARY KEY (bucket, tag)) WITHOUT ROWID', ')') "
        "WHERE name = 'seen'",
    ],
)
def test_k431_a_file_whose_contents_make_no_sense_is_refused(path: Path, damage: str) -> None:
    used, other = SqliteReplayCache(path), path.with_name("other")
    used.remember(tag(1), NOW, NOW)
    used.close()
    other.write_bytes(path.read_bytes())
    other.chmod(0o600)
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("PRAGMA writable_schema = ON")
    file.execute(damage)
    file.close()
    with pytest.raises(CredentialError, match="cannot be used"):
        SqliteReplayCache(path)
    with pytest.raises(ReplayError, match="failed"):
        used.remember(tag(2), NOW, NOW)
    SqliteReplayCache(other).remember(tag(2), NOW, NOW)
