"""Replay caches by themselves: what they remember, for how long, and in which file."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import purekrb.replay
from purekrb import ConfigError, CredentialError, ReplayError
from purekrb.constants import ErrorCode
from purekrb.replay import (
    BUCKET,
    KEEP,
    FileReplayCache,
    MemoryReplayCache,
    ReplayCache,
    SqliteReplayCache,
    default_replay_cache,
)
from purekrb.replay.siphash import schedule, siphash
from support import rcache2
from support.contexts import Elapsed

#: Far ahead of the clock, so that a cache file that a test makes, whenever it runs, is older than its authenticators.
NOW = datetime.now(timezone.utc) + timedelta(hours=2)
SECOND = timedelta(seconds=1)


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


def refuses(cache: ReplayCache, number: int, ctime: datetime, now: datetime) -> ReplayError:
    with pytest.raises(ReplayError) as caught:
        cache.remember(tag(number), ctime, now)
    return caught.value


# --- both


def test_an_authenticator_passes_once(cache: ReplayCache) -> None:
    cache.remember(tag(1), NOW, NOW)
    error = refuses(cache, 1, NOW, NOW)
    assert error.code == ErrorCode.KRB_AP_ERR_REPEAT
    assert "already presented" in str(error)
    cache.remember(tag(2), NOW, NOW)


@pytest.mark.parametrize("later", [0, 1, BUCKET - 1, BUCKET, BUCKET + 1, KEEP - BUCKET, KEEP - 1])
def test_an_authenticator_is_remembered_for_the_whole_time(
    cache: ReplayCache, elapsed: Elapsed, later: int
) -> None:
    cache.remember(tag(1), NOW, NOW)
    elapsed.seconds += later
    moment = NOW + timedelta(seconds=later)
    cache.remember(tag(2), moment, moment)  # opens a new bucket, which drops old ones
    assert refuses(cache, 1, NOW, moment).code == ErrorCode.KRB_AP_ERR_REPEAT


@pytest.mark.parametrize("ahead", [-299, -1, 0, 1, 299])
def test_the_clients_clock_does_not_matter_to_what_is_found(cache: ReplayCache, ahead: int) -> None:
    ctime = NOW + timedelta(seconds=301 + ahead)
    cache.remember(tag(1), ctime, NOW)
    for later in (0, 60, 600):
        refuses(cache, 1, ctime, NOW + timedelta(seconds=later))


def test_what_is_too_old_to_be_remembered_is_refused(cache: ReplayCache, elapsed: Elapsed) -> None:
    moment = NOW + timedelta(seconds=KEEP + BUCKET + 1)
    cache.remember(tag(1), NOW, NOW)
    elapsed.seconds += KEEP + BUCKET + 1
    cache.remember(tag(2), moment, moment)
    for number in (1, 3):
        error = refuses(cache, number, NOW, moment)
        assert error.code == ErrorCode.KRB_AP_ERR_SKEW
        assert "clock_skew" in str(error)


def test_old_entries_are_dropped_and_live_ones_kept(cache: ReplayCache, elapsed: Elapsed) -> None:
    for number in range(50):
        cache.remember(tag(number), NOW, NOW)
    middle = NOW + timedelta(seconds=KEEP // 2)
    elapsed.seconds += KEEP // 2
    for number in range(50, 70):
        cache.remember(tag(number), middle, middle)
    late = NOW + timedelta(seconds=KEEP + 2 * BUCKET)
    elapsed.seconds += KEEP // 2 + 2 * BUCKET
    cache.remember(tag(99), late, late)
    if not isinstance(cache, FileReplayCache):  # which uses their places again
        assert len(cache) == 21  # type: ignore[arg-type]
    for number in range(50, 70):
        refuses(cache, number, middle, late)


def test_one_authenticator_from_many_threads_passes_once(cache: ReplayCache) -> None:
    barrier = threading.Barrier(8)
    passed: list[int] = []

    def present() -> None:
        for number in range(40):
            barrier.wait()
            try:
                cache.remember(tag(number), NOW, NOW)
            except ReplayError:
                continue
            passed.append(number)

    threads = [threading.Thread(target=present) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(passed) == list(range(40))


# --- memory


def test_a_full_memory_cache_refuses_rather_than_forgets() -> None:
    elapsed = Elapsed()
    cache = MemoryReplayCache(max_entries=3, monotonic=elapsed)
    for number in range(3):
        cache.remember(tag(number), NOW, NOW)
    error = refuses(cache, 4, NOW, NOW)
    assert error.code == ErrorCode.KRB_ERR_GENERIC
    assert "full" in str(error)
    assert refuses(cache, 1, NOW, NOW).code == ErrorCode.KRB_AP_ERR_REPEAT
    late = NOW + timedelta(seconds=KEEP + BUCKET)
    elapsed.seconds += KEEP + BUCKET
    cache.remember(tag(4), late, late)
    assert len(cache) == 1


@pytest.mark.parametrize("size", [0, -1])
def test_a_memory_cache_has_room_for_one_at_least(size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MemoryReplayCache(size)
    MemoryReplayCache(1).remember(tag(1), NOW, NOW)


# --- the default


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Set a variable; all others that name replay caches are unset, and krb5.conf is empty."""
    for name in ("KRB5RCACHENAME", "KRB5RCACHETYPE", "KRB5RCACHEDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "krb5.conf").touch()
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    return monkeypatch.setenv


def path_of_default() -> str:
    cache = default_replay_cache()
    assert isinstance(cache, FileReplayCache)
    assert cache is default_replay_cache(), "one for the process"
    return cache.path


def test_the_default_is_mits_file_of_this_user(
    environment: Callable[[str, str], None], tmp_path: Path
) -> None:
    name = f"krb5_{os.geteuid()}.rcache2"
    assert path_of_default() == f"/var/tmp/{name}"
    for number, variable in enumerate(("TMPDIR", "KRB5RCACHEDIR")):  # the latter counts more
        directory = tmp_path / str(number)
        directory.mkdir()
        environment(variable, str(directory))
        assert path_of_default() == f"{directory}/{name}"
    environment("KRB5RCACHETYPE", "dfl")
    assert path_of_default() == f"{directory}/{name}"


def test_names_are_taken_from_the_environment_and_from_krb5_conf(
    environment: Callable[[str, str], None], tmp_path: Path
) -> None:
    other = tmp_path / "other.conf"
    other.write_text(f"[libdefaults]\n default_rcache_name = file2:{tmp_path}/%{{uid}}\n")
    environment("KRB5_CONFIG", str(other))
    assert path_of_default() == f"{tmp_path}/{os.getuid()}"
    environment("KRB5RCACHETYPE", "memory")
    assert isinstance(default_replay_cache(), MemoryReplayCache)
    environment("KRB5RCACHENAME", f"file2:{tmp_path}/b:c")
    assert path_of_default() == f"{tmp_path}/b:c"


def test_no_replay_cache_is_a_choice_with_a_warning(
    environment: Callable[[str, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    environment("KRB5RCACHENAME", "none:")
    for _ in range(3):
        default_replay_cache().remember(tag(1), NOW, NOW)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "replays are not detected: KRB5RCACHENAME='none:'" in record.getMessage()


@pytest.mark.parametrize("name", ["none", "/var/tmp/x", "FILE:/x", "file2:", "file:/x", "redis:x"])
def test_a_name_that_means_nothing_is_an_error(
    environment: Callable[[str, str], None], name: str
) -> None:
    environment("KRB5RCACHENAME", name)
    with pytest.raises(ConfigError, match=r"KRB5RCACHENAME.*does not name a replay cache"):
        default_replay_cache()


@pytest.mark.parametrize("how", ["missing", "of all", "a file"])
def test_without_a_usable_directory_the_default_is_in_memory_with_a_warning(
    environment: Callable[[str, str], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    directory = tmp_path / "directory"
    if how == "of all":
        directory.mkdir()
        directory.chmod(0o777)
    elif how == "a file":
        directory.touch()
    environment("KRB5RCACHEDIR", str(directory))
    cache = default_replay_cache()
    assert isinstance(cache, MemoryReplayCache)
    assert cache is default_replay_cache()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(directory) in record.getMessage()


def test_a_broken_krb5_conf_leaves_the_default_file_with_a_warning(
    environment: Callable[[str, str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "krb5.conf").write_text("nonsense")
    environment("KRB5RCACHEDIR", str(tmp_path))
    assert path_of_default().startswith(str(tmp_path))
    assert "krb5.conf cannot be read" in caplog.text


# --- SipHash


def test_siphash_has_the_result_that_its_authors_publish() -> None:
    key = bytes(range(16))
    assert siphash(schedule(key, 1), bytes(range(12)))[0] == 0x751E8FBC860EE5FB
    assert rcache2.siphash(key, bytes(range(15))) == 0xA129CA6149BE45E5


@pytest.mark.parametrize("seed", [bytes(range(16)), b"\xff" * 16, b"\xfe" + bytes(15)])
def test_siphash_under_many_keys_at_once_is_that_under_each(seed: bytes) -> None:
    for tables in (1, 2, 5, 17):
        for message in (bytes(12), b"\xff" * 12, os.urandom(12)):
            assert siphash(schedule(seed, tables), message) == tuple(
                rcache2.siphash(bytes([(seed[0] + table) % 256]) + seed[1:], message)
                for table in range(tables)
            )


def test_the_package_has_no_other_lazy_names() -> None:
    assert purekrb.replay.SqliteReplayCache is SqliteReplayCache
    with pytest.raises(AttributeError):
        purekrb.replay.MongoReplayCache  # noqa: B018


# --- SQLite


def test_the_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "replay"
    old = os.umask(0)
    try:
        cache = SqliteReplayCache(path)
        cache.remember(tag(1), NOW, NOW)
        assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
        cache.close()
    finally:
        os.umask(old)


def test_what_was_stored_is_known_after_a_restart(tmp_path: Path) -> None:
    for number in range(5):
        cache = SqliteReplayCache(str(tmp_path / "replay"))
        cache.remember(tag(number), NOW, NOW)
        for known in range(number + 1):
            refuses(cache, known, NOW, NOW)
        assert len(cache) == number + 1
        cache.close()


def test_a_closed_cache_opens_again(tmp_path: Path) -> None:
    cache = SqliteReplayCache(tmp_path / "replay")
    cache.remember(tag(1), NOW, NOW)
    cache.close()
    cache.close()
    assert len(cache) == 1
    cache.close()
    refuses(cache, 1, NOW, NOW)
    cache.close()


def test_two_caches_on_one_file_know_the_same(tmp_path: Path) -> None:
    one, two = (SqliteReplayCache(tmp_path / "replay") for _ in range(2))
    one.remember(tag(1), NOW, NOW)
    refuses(two, 1, NOW, NOW)
    two.remember(tag(2), NOW, NOW)
    refuses(one, 2, NOW, NOW)
    one.close()
    refuses(two, 1, NOW, NOW)
    two.close()


def test_a_new_file_refuses_what_is_older_and_takes_the_clients_of_now(tmp_path: Path) -> None:
    before = datetime.now(timezone.utc)
    cache = SqliteReplayCache(tmp_path / "replay")
    after = datetime.now(timezone.utc)
    for ctime in (before, before - SECOND, before - timedelta(seconds=299)):
        error = refuses(cache, 1, ctime, after)
        assert error.code == ErrorCode.KRB_AP_ERR_REPEAT
        assert "older than the replay cache" in str(error)
    cache.remember(tag(1), after, after)
    cache.close()


def test_a_service_can_accept_in_the_second_in_which_its_file_was_made(tmp_path: Path) -> None:
    from purekrb import Initiator
    from support.contexts import acceptor
    from support.tickets import issue

    ticket, keys = issue()
    for number in range(5):
        cache = SqliteReplayCache(tmp_path / str(number))
        assert acceptor(keys, replay_cache=cache).step(Initiator(ticket).step())
        cache.close()


Spoil = Callable[[Path], object]


def as_link(path: Path) -> None:
    target = path.with_name("target")
    SqliteReplayCache(target).close()
    path.symlink_to(target)


def as_other_program(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE seen (bucket, tag)")
    other.close()
    path.chmod(0o600)


def as_other_version(path: Path) -> None:
    SqliteReplayCache(path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 2")
    other.close()


def as_noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)
    path.chmod(0o600)


def writable_by_group(path: Path) -> None:
    SqliteReplayCache(path).close()
    path.chmod(0o620)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(as_link, "not a regular file", id="a-symbolic-link"),
        pytest.param(Path.mkdir, "not a regular file", id="a-directory"),
        pytest.param(os.mkfifo, "not a regular file", id="a-fifo"),
        pytest.param(writable_by_group, "others can write", id="writable-by-others"),
        pytest.param(as_other_program, "another program", id="another-programs-database"),
        pytest.param(as_other_version, "another program or version", id="another-version"),
        pytest.param(as_noise, "not a database", id="noise"),
    ],
)
def test_a_file_that_is_not_a_private_replay_cache_is_refused(
    tmp_path: Path, spoil: Spoil, why: str
) -> None:
    path = tmp_path / "replay"
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(CredentialError, match=why) as caught:
        SqliteReplayCache(path)
    assert str(path) in str(caught.value)
    assert before is None or path.read_bytes() == before
    good = SqliteReplayCache(tmp_path / "good")
    good.remember(tag(1), NOW, NOW)
    good.close()


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="No such file"):
        SqliteReplayCache(tmp_path / "missing" / "replay")
