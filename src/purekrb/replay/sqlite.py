"""A replay cache in an SQLite file: for many processes on one machine. It survives kill -9."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock
from weakref import WeakSet

from purekrb.constants import ErrorCode
from purekrb.errors import CredentialError, KerberosError, ReplayError
from purekrb.replay.cache import (
    BUCKET,
    KEEP,
    SKEW,
    Alarm,
    bucket_of,
    check_age,
    full,
    log,
    older_than_memory,
    oldest_bucket,
    replayed,
)
from purekrb.replay.ours import check_directories, check_file
from purekrb.system import WINDOW, fork_safe, monotonic, random_bytes, wait_until
from purekrb.system import now as system_now

__all__ = ["SqliteReplayCache"]

_APPLICATION_ID = 0x70726B62  # "prkb": the database of another program is refused
_VERSION = 1
#: The tables of the file: name and statement. SQLite stores the text of the statements unchanged.
_TABLES = {
    # the digests of the authenticators
    "seen": "CREATE TABLE seen (bucket INTEGER NOT NULL, tag BLOB NOT NULL, "
    "PRIMARY KEY (bucket, tag)) WITHOUT ROWID",
    # `created_at`: the file does not know older authenticators, so they are refused.
    # `started_at`: the time when the machine was started, as far as it can be computed.
    "meta": "CREATE TABLE meta (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID",
    # `noted`: the last time when a tag was stored in the bucket, by the monotonic clock. `more`:
    # the seconds by which such a tag can be admitted longer than one of that time. `emptied`:
    # whether the bucket was emptied before its time, so that its former contents are unknown.
    "life": "CREATE TABLE life (bucket INTEGER PRIMARY KEY, noted REAL NOT NULL, "
    "more REAL NOT NULL, emptied INTEGER)",
}
_STORE = """
INSERT OR IGNORE INTO seen SELECT :bucket, :tag
WHERE :ctime >= (SELECT value FROM meta WHERE name = 'created_at')
AND NOT EXISTS (SELECT 1 FROM life WHERE bucket = :bucket AND emptied)
"""
_NOTE = """
INSERT INTO life VALUES (:bucket, :noted, :more, 0)
ON CONFLICT DO UPDATE SET noted = :noted, more = max(more, :more)
"""
# If the monotonic clock has not reached a noted time, the note was made before the machine started.
_OLD = """
SELECT bucket FROM life WHERE bucket < :before
AND :moment - (CASE WHEN noted > :moment THEN 0 ELSE noted END) >= :idle + more
AND emptied <= :emptied
"""
#: Seconds between two notes that a bucket is in use.
_NOTE_EVERY = 60
#: Two computed start times of the machine may differ by so many seconds, since clocks are adjusted.
_SAME_START = 30
#: The most bytes that an authenticator takes in the file.
_ENTRY = 32
#: Authenticators between two checks of the file's size.
_LOOK_EVERY = 64
_MIN_BYTES = 64 * 1024
_SECONDS = WINDOW / 1_000_000
_PATIENCE = 0.02
_JOURNALS = ("-journal", "-wal", "-shm")


def _limits(before: int, moment: float, idle: float, emptied: int) -> dict[str, float]:
    """Return the parameters of _OLD."""
    return {"before": before, "moment": moment, "idle": idle, "emptied": emptied}


class SqliteReplayCache:
    """A replay cache in the file `path`, shared by all processes that open it.

    An authenticator takes about 40 bytes. The file is created with mode 0600. CredentialError is
    raised if it is a symbolic link, belongs to another user, can be written by others, or is not a
    replay cache; also if others can write to its directory, as to /tmp, since they could put a
    journal there. If the file fails later (deleted, corrupt, read-only, disk full), `remember`
    raises ReplayError: the cache fails closed.

    A new cache cannot know which authenticators were presented before, so it refuses those that are
    older than itself. It does the same after a start of the machine, since a power failure loses
    the last entries. One gap remains: a client whose clock is ahead of ours. After a loss, wait as
    long as the clock skew.

    `max_bytes` limits the size of the file. One client may fill as much as it leaves free, so
    others always find room. Making a file may wait for an eighth of a second, and each access for
    `timeout` seconds. `monotonic` measures the time that has really passed; all processes of the
    machine must share it. The cache is safe for threads and after fork().
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 5.0,
        max_bytes: int = 256 << 20,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        if max_bytes < _MIN_BYTES:
            raise ValueError(f"max_bytes must be at least {_MIN_BYTES}")
        given = Path(path)
        # Links and `..` in the directory are resolved once; the file itself must not be a link.
        self._path = Path(os.path.realpath(given.parent), given.name)
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._alarm = Alarm(monotonic)
        self._lock = fork_safe(Lock())
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        #: The time when this process last wrote into `life`, by bucket.
        self._noted: dict[int, float] = {}
        #: The number of tags that this process has stored, by bucket and by the hash of the client.
        self._clients: dict[int, dict[int, int]] = {}
        self._until_look = 0
        self._free = 0  # authenticators for which there is room
        _caches.add(self)
        with self._lock:
            try:
                self._open()
            # A damaged file causes many errors of SQLite: UnicodeDecodeError, ValueError,
            # MemoryError.
            except Exception as error:
                self._drop()
                raise CredentialError(
                    f"{self._path} cannot be used as a replay cache ({error}): give a path in a "
                    "directory that only this service can write; remove a damaged file only while "
                    "the service is stopped"
                ) from None
            except BaseException:
                self._drop()
                raise

    def remember(
        self, tag: bytes, ctime: datetime, now: datetime, client: str | None = None
    ) -> None:
        """Store `tag`, so that it survives the death of this process.

        Raises ReplayError if it was stored before, if the file or the client's share is full, or if
        the file fails.
        """
        bucket = bucket_of(ctime)
        check_age(ctime, now)
        share = hash(client)
        with self._lock, self._failing_closed():
            connection = self._connection or self._open()
            self._check_file_is_ours()
            moment = self._monotonic()
            if moment - self._noted.get(bucket, float("-inf")) >= _NOTE_EVERY:
                self._note(connection, bucket, now, moment)
            self._until_look -= 1
            if self._until_look < 0:
                self._look(connection)
            if not self._has_room(client, share):
                self._make_room(connection, bucket, tag, now, client)
            if (
                connection.execute(
                    _STORE, {"bucket": bucket, "tag": tag, "ctime": ctime.timestamp()}
                ).rowcount
                != 1
            ):
                self._refuse(connection, bucket, ctime)
            counted = self._clients.setdefault(bucket, {})
            counted[share] = counted.get(share, 0) + 1
            self._free -= 1

    def close(self) -> None:
        """Close the file. The next `remember` opens it again."""
        with self._lock:
            self._drop()

    def __len__(self) -> int:
        with self._lock, self._failing_closed():
            connection = self._connection or self._open()
            return int(connection.execute("SELECT count(*) FROM seen").fetchone()[0])

    # -- old buckets and free room

    def _note(
        self, connection: sqlite3.Connection, bucket: int, now: datetime, moment: float
    ) -> None:
        """Note that the bucket is in use until the next note at least, and drop old buckets."""
        # A tag may be as late as the end of the bucket, and so can be admitted for longer.
        more = _NOTE_EVERY + max(0.0, (bucket + 1) * BUCKET - now.timestamp())
        oldest = oldest_bucket(now)
        with _transaction(connection):
            # The number of a bucket comes from a clock that may have jumped ahead, so a clock that
            # does not jump must confirm the age. Otherwise, after the clock is corrected,
            # authenticators that were forgotten in the meantime would be admitted again.
            old = connection.execute(_OLD, _limits(oldest, moment, KEEP, 1)).fetchall()
            connection.executemany("DELETE FROM seen WHERE bucket = ?", old)
            connection.executemany("DELETE FROM life WHERE bucket = ?", old)
            connection.execute(_NOTE, {"bucket": bucket, "noted": moment, "more": more})
        for known in [known for known in self._noted if known < oldest]:
            del self._noted[known]
            self._clients.pop(known, None)
        self._noted[bucket] = moment

    def _look(self, connection: sqlite3.Connection) -> None:
        """Update the number of authenticators for which there is room."""
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        self._free = (self._max_bytes - (pages - free) * size) // _ENTRY
        self._until_look = _LOOK_EVERY

    def _has_room(self, client: str | None, share: int) -> bool:
        if client is None:
            return self._free > 0
        return sum(counted.get(share, 0) for counted in self._clients.values()) < self._free

    def _make_room(
        self,
        connection: sqlite3.Connection,
        bucket: int,
        tag: bytes,
        now: datetime,
        client: str | None,
    ) -> None:
        """Empty and close the buckets that are too old for the usual clock skew.

        Raises ReplayError if that does not make enough room.
        """
        limits = _limits(bucket_of(now) - SKEW // BUCKET, self._monotonic(), 2 * SKEW, 0)
        if connection.execute(_OLD, limits).fetchone():
            with _transaction(connection):
                old = connection.execute(_OLD, limits).fetchall()
                connection.executemany("DELETE FROM seen WHERE bucket = ?", old)
                connection.executemany("UPDATE life SET emptied = 1 WHERE bucket = ?", old)
            for (emptied,) in old:
                self._clients.pop(emptied, None)
        self._look(connection)
        if self._has_room(client, hash(client)):
            return
        if connection.execute(
            "SELECT 1 FROM seen WHERE bucket = ? AND tag = ?", (bucket, tag)
        ).fetchone():
            raise replayed()
        crowded = client if self._free > 0 else None
        error = full(crowded, f"{self._path}, {self._max_bytes} bytes", "use a larger max_bytes")
        self._alarm.ring(error, client)
        raise error

    def _refuse(self, connection: sqlite3.Connection, bucket: int, ctime: datetime) -> None:
        """Raise the error for an authenticator that was not stored."""
        created_at, present = _created_at(connection), system_now().timestamp()
        if ctime.timestamp() >= created_at:
            emptied = connection.execute(
                "SELECT 1 FROM life WHERE bucket = ? AND emptied", (bucket,)
            ).fetchone()
            raise older_than_memory() if emptied else replayed()
        if created_at > present + 2 * _SECONDS:  # when the file was made, the clock was ahead
            healed = (_window_end(present), created_at)
            connection.execute(
                "UPDATE meta SET value = ? WHERE name = 'created_at' AND value = ?", healed
            )
            log.warning(
                "the replay cache %s was made at a time that is %.0f s ahead of the clock: "
                "corrected",
                self._path,
                created_at - present,
            )
        raise older_than_memory()

    # -- the file

    @contextlib.contextmanager
    def _failing_closed(self) -> Iterator[None]:
        try:
            yield
        except KerberosError:
            raise
        # A damaged file causes many errors of SQLite: UnicodeDecodeError, ValueError, MemoryError.
        except Exception as error:
            self._drop()
            raise ReplayError(
                f"the replay cache {self._path} failed ({error}): "
                "no client can be accepted safely. Free the disk or remove the file, and "
                f"wait {KEEP // 60} minutes before the service starts again",
                code=ErrorCode.KRB_ERR_GENERIC,
            ) from None
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _open(self) -> sqlite3.Connection:
        # The journal comes and goes, so others must not be able to make one, even if the directory
        # is sticky.
        check_directories(self._path.parent)
        with contextlib.suppress(FileExistsError):
            os.close(
                os.open(
                    self._path,
                    os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0),
                    0o600,
                )
            )
        self._inode = None
        self._inode = self._check_file_is_ours()
        for suffix in _JOURNALS:
            with contextlib.suppress(FileNotFoundError):
                check_file(os.lstat(f"{self._path}{suffix}"), f"its {suffix} file")
        self._noted.clear()
        self._until_look = 0
        connection = self._connect()
        present, moment = system_now().timestamp(), self._monotonic()
        with _transaction(connection):
            created_at = self._set_up(connection, present, moment)
        self._check_file_is_ours()
        if 0 < created_at - present <= _SECONDS:
            # Otherwise the cache would refuse the first clients: their window is the one in which
            # it was made.
            wait_until(created_at)
        return connection

    def _connect(self) -> sqlite3.Connection:
        for patience in range(int(self._timeout / _PATIENCE), -1, -1):
            connection = sqlite3.connect(
                self._path,
                timeout=self._timeout,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=16,
            )
            self._connection = connection
            connection.text_factory = bytes  # the text of a damaged file may be anything
            # No file is mapped into memory: if a mapped file is truncated, the process is killed.
            # The index of a write-ahead log is mapped, so such a log is not used. No write waits
            # for the disk: that would take milliseconds, and only a power failure can lose the last
            # entries or damage the file.
            connection.execute("PRAGMA mmap_size = 0")
            connection.execute("PRAGMA synchronous = OFF")
            _check_tables(connection)
            try:
                connection.execute("PRAGMA journal_mode = PERSIST")
                break
            except sqlite3.OperationalError:
                # Locked. The file of an older version has a write-ahead log. Only a process that is
                # alone with the file can end it, so each process closes the file and tries again.
                if not patience:
                    raise
                self._drop()
                wait_until(system_now().timestamp() + _PATIENCE * (1 + random_bytes(1)[0] / 256))
        connection.execute("PRAGMA journal_size_limit = 1048576")
        return connection

    @staticmethod
    def _set_up(connection: sqlite3.Connection, present: float, moment: float) -> float:
        """Make the missing tables; return the time since when the file knows all authenticators."""
        made = _check_tables(connection)
        if "seen" not in made:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        for table in _TABLES.keys() - made:
            connection.execute(_TABLES[table])
        if "life" not in made:
            connection.execute(
                "INSERT INTO life SELECT DISTINCT bucket, ?, 0, 0 FROM seen", (moment,)
            )
        started_at = present - moment
        if "seen" in made:
            created_at = _created_at(connection)
            known = connection.execute(
                "SELECT value FROM meta WHERE name = 'started_at'"
            ).fetchone()
            if (
                known
                and abs(known[0] - started_at) < _SAME_START
                and created_at <= present + _SECONDS
            ):
                return created_at
        created_at = _window_end(present)
        connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [("created_at", created_at), ("started_at", started_at)],
        )
        return created_at

    def _check_file_is_ours(self) -> tuple[int, int]:
        info = os.lstat(self._path)
        check_file(info, "it")
        found = (info.st_dev, info.st_ino)
        if self._inode not in (None, found):
            raise OSError("it was replaced while in use")
        return found


def _check_tables(connection: sqlite3.Connection) -> set[str]:
    """Return the names of our tables in the file. Raises OSError if it holds anything else."""
    found = dict(connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
    ours = {name.encode(): sql.encode() for name, sql in _TABLES.items()}
    identity = tuple(
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version")
    )
    if found and identity != (_APPLICATION_ID, _VERSION):
        raise OSError("it is the database of another program or version")
    made = {name for name in _TABLES if found.get(name.encode()) == ours[name.encode()]}
    # The index of a table with a PRIMARY KEY of text has no statement.
    others = [name for name, sql in found.items() if sql is not None and ours.get(name) != sql]
    if others or (found and not {"seen", "meta"} <= made):
        raise OSError("it is damaged, or the database of another program: its tables differ")
    return made


def _created_at(connection: sqlite3.Connection) -> float:
    """Return the time since when the file knows all authenticators, in seconds since 1970."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'created_at'").fetchone()
    if row is None or type(row[0]) is not float or not 0 < row[0] < 1e12:
        raise OSError("its creation time is missing")
    return row[0]


def _window_end(seconds: float) -> float:
    """Return the end of the window that contains `seconds`.

    Authenticators that were made in this window may have any time up to its end.
    """
    return (seconds // _SECONDS + 1) * _SECONDS


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


# The locks of all caches are held around fork(), so no thread is inside SQLite. Otherwise a child
# could inherit a lock of SQLite that is never released. The child opens the file anew.
_caches: WeakSet[SqliteReplayCache] = WeakSet()
_held: list[SqliteReplayCache] = []
_forking = fork_safe(Lock())  # held by the thread that forks
#: Never closed: a child must not close a connection of its parent, which may still use the files.
_inherited: list[sqlite3.Connection] = []


def _before_fork() -> None:
    _forking.acquire()
    # Repeated, since another cache may be made while this waits for a lock.
    while waiting := set(_caches) - set(_held):
        for cache in waiting:
            cache._lock.acquire()
            _held.append(cache)


def _after_fork(child: bool) -> None:
    for cache in _held:
        if not child:
            cache._lock.release()
        elif cache._connection is not None:  # `fork_safe` has released the lock of the cache
            _inherited.append(cache._connection)
            cache._connection = None
    _held.clear()
    if not child:
        _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=partial(_after_fork, False),
        after_in_child=partial(_after_fork, True),
    )
