"""A replay cache in an SQLite file: for many processes on one machine, across restarts and kill -9."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
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
from purekrb.system import WINDOW, fork_safe, monotonic, random_bytes, wait_until
from purekrb.system import now as system_now

__all__ = ["SqliteReplayCache"]

_APPLICATION_ID = 0x70726B62  # "prkb": another program's database is refused, not overwritten
_VERSION = 1
#: What the file holds: the statements, which SQLite keeps as they are, by the names of what they make.
_TABLES = {
    # the digests of the authenticators
    "seen": "CREATE TABLE seen (bucket INTEGER NOT NULL, tag BLOB NOT NULL, PRIMARY KEY (bucket, tag)) WITHOUT ROWID",
    # `created_at`: older authenticators are refused, since the file does not know them. `started_at`: when the machine
    # was started, or so it seemed.
    "meta": "CREATE TABLE meta (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID",
    # when something was last stored in a bucket, by the monotonic clock; how much longer it can be admitted than
    # what is of that moment; and whether the bucket was emptied before its time, so that nobody knows what was in it
    "life": "CREATE TABLE life (bucket INTEGER PRIMARY KEY, noted REAL NOT NULL, more REAL NOT NULL, emptied INTEGER)",
}
_STORE = """
INSERT OR IGNORE INTO seen SELECT :bucket, :tag WHERE :ctime >= (SELECT value FROM meta WHERE name = 'created_at')
AND NOT EXISTS (SELECT 1 FROM life WHERE bucket = :bucket AND emptied)
"""
_NOTE = """
INSERT INTO life VALUES (:bucket, :noted, :more, 0) ON CONFLICT DO UPDATE SET noted = :noted, more = max(more, :more)
"""
# A moment that the monotonic clock has not reached is one from before the machine was started.
_OLD = """
SELECT bucket FROM life WHERE bucket < :before
AND :moment - (CASE WHEN noted > :moment THEN 0 ELSE noted END) >= :idle + more
AND emptied <= :emptied
"""
#: Seconds between two notes that a bucket is in use.
_NOTE_EVERY = 60
#: Seconds by which two opinions on when the machine was started may differ: what keeps a clock right may do it.
_SAME_START = 30
#: Bytes that an authenticator takes in the file, or less.
_ENTRY = 32
#: Authenticators between two looks at the size of the file.
_LOOK_EVERY = 64
_MIN_BYTES = 64 * 1024
_SECONDS = WINDOW / 1_000_000
_PATIENCE = 0.02
_OTHERS_WRITE = 0o022
_JOURNALS = ("-journal", "-wal", "-shm")


def _limits(before: int, moment: float, idle: float, emptied: int) -> dict[str, float]:
    """Return the parameters of _OLD."""
    return {"before": before, "moment": moment, "idle": idle, "emptied": emptied}


class SqliteReplayCache:
    """A replay cache in the file `path`, shared by all processes that open it; about 40 bytes an authenticator.

    The file is created with mode 0600; one that is a symbolic link, belongs to another user, can be written by others
    or is no replay cache is refused with CredentialError, and so is a directory in which others can write, /tmp among
    them: they could put a journal there. A file that fails later (deleted, corrupt, read-only, disk full) makes
    `remember` raise ReplayError: it fails closed. A cache that had to be created cannot know what was presented before,
    so it refuses authenticators that are older than itself; and so after a start of the machine, since a power failure
    takes the last ones. What remains is a client whose clock is ahead of ours: after a loss, wait as long as the clock
    skew.

    `max_bytes` limits the size of the file. One client may fill as much as it leaves free, so that others always find
    room. Making a file may wait for an eighth of a second, and each access for `timeout` seconds. `monotonic` tells how
    much time has really passed, in a way that all processes of the machine share. Safe for threads and after fork().
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
        # Links and `..` on the way are resolved once; the name itself must not be a link.
        self._path = Path(os.path.realpath(given.parent), given.name)
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._alarm = Alarm(monotonic)
        self._lock = fork_safe(Lock())
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._noted: dict[int, float] = {}  # when this process wrote into `life`, by bucket
        self._clients: dict[
            int, dict[int, int]
        ] = {}  # what this process stored, by bucket and hash of the client
        self._until_look = 0
        self._free = 0  # authenticators for which there is room
        _caches.add(self)
        with self._lock:
            try:
                self._open()
            except Exception as error:  # SQLite answers damage with many: UnicodeDecodeError, ValueError, MemoryError
                self._drop()
                raise CredentialError(
                    f"{self._path} cannot be used as a replay cache ({error}): give a path in a directory that only "
                    "this service can write; remove a damaged file only while the service is stopped"
                ) from None
            except BaseException:
                self._drop()
                raise

    def remember(
        self, tag: bytes, ctime: datetime, now: datetime, client: str | None = None
    ) -> None:
        """Store `tag` durably against the death of this process; raise ReplayError where it was stored before.

        Also where the file, or what one client may fill of it, is full.
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

    # -- what is old, and what there is room for

    def _note(
        self, connection: sqlite3.Connection, bucket: int, now: datetime, moment: float
    ) -> None:
        """Note that the bucket is in use, until the next note at least, and drop what is old."""
        # What is stored in it may be as late as its end, and so be admitted for as much longer.
        more = _NOTE_EVERY + max(0.0, (bucket + 1) * BUCKET - now.timestamp())
        oldest = oldest_bucket(now)
        with _transaction(connection):
            # Which are old is told by a clock that may have jumped ahead; that so much time has passed is told by one
            # that does not. Else a clock that is set right again would let through what was forgotten meanwhile.
            old = connection.execute(_OLD, _limits(oldest, moment, KEEP, 1)).fetchall()
            connection.executemany("DELETE FROM seen WHERE bucket = ?", old)
            connection.executemany("DELETE FROM life WHERE bucket = ?", old)
            connection.execute(_NOTE, {"bucket": bucket, "noted": moment, "more": more})
        for known in [known for known in self._noted if known < oldest]:
            del self._noted[known]
            self._clients.pop(known, None)
        self._noted[bucket] = moment

    def _look(self, connection: sqlite3.Connection) -> None:
        """Find out how much room is left."""
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
        """Empty and close what the usual clock skew can never admit again; raise ReplayError if that is too little."""
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
        if created_at > present + 2 * _SECONDS:  # it was made by a clock that was ahead
            healed = (_window_end(present), created_at)
            connection.execute(
                "UPDATE meta SET value = ? WHERE name = 'created_at' AND value = ?", healed
            )
            log.warning(
                "the replay cache %s was made at a time that is %.0f s ahead of the clock: set right",
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
        except (
            Exception
        ) as error:  # SQLite answers damage with many: UnicodeDecodeError, ValueError, MemoryError
            self._drop()
            raise ReplayError(
                f"the replay cache {self._path} failed ({error}): no client can be accepted safely. Free the disk or "
                f"remove the file, and wait {KEEP // 60} minutes before the service starts again",
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
        _check_directories(self._path.parent)
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
                _check_ours(os.lstat(f"{self._path}{suffix}"), f"its {suffix} file")
        self._noted.clear()
        self._until_look = 0
        connection = self._connect()
        present, moment = system_now().timestamp(), self._monotonic()
        with _transaction(connection):
            created_at = self._set_up(connection, present, moment)
        self._check_file_is_ours()
        if 0 < created_at - present <= _SECONDS:
            wait_until(
                created_at
            )  # else it would refuse the first clients, whose window is that of its making
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
            connection.text_factory = bytes  # text of a damaged file may be anything
            # No file is mapped into memory, neither this one nor the index of a write-ahead log, which is why there is
            # no such log: a mapped file that somebody cuts off kills the process. And nothing waits for the disk: it
            # would take milliseconds, and only a power failure may take the last entries or damage the file.
            connection.execute("PRAGMA mmap_size = 0")
            connection.execute("PRAGMA synchronous = OFF")
            _check_tables(connection)
            try:
                connection.execute("PRAGMA journal_mode = PERSIST")
                break
            except sqlite3.OperationalError:
                # Locked. The file of an older version has a write-ahead log, which only a process that is alone with it
                # can end; so each goes out of the others' way.
                if not patience:
                    raise
                self._drop()
                wait_until(system_now().timestamp() + _PATIENCE * (1 + random_bytes(1)[0] / 256))
        connection.execute("PRAGMA journal_size_limit = 1048576")
        return connection

    @staticmethod
    def _set_up(connection: sqlite3.Connection, present: float, moment: float) -> float:
        """Make what is missing in the file, and return since when it knows all."""
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
        _check_ours(info, "it")
        found = (info.st_dev, info.st_ino)
        if self._inode not in (None, found):
            raise OSError("it was replaced while in use")
        return found


def _check_ours(info: os.stat_result, what: str) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise OSError(f"{what} is not a regular file")
    if hasattr(os, "geteuid") and info.st_uid != os.geteuid():
        raise OSError(f"{what} belongs to user {info.st_uid}")
    if hasattr(os, "geteuid") and info.st_mode & _OTHERS_WRITE:
        raise OSError(f"others can write to {what}")


def _check_directories(directory: Path) -> None:
    """Raise OSError where others could put a file of theirs in the place of the cache or of its journal.

    They can in a directory that they may write, sticky or not, as the journal comes and goes; and where they can put
    another directory in the place of this one, which a sticky one does not allow.
    """
    if not hasattr(os, "geteuid"):
        return
    for place in (directory, *directory.parents):
        info = os.lstat(place)
        if info.st_uid not in (0, os.geteuid()):
            raise OSError(f"the directory {place} belongs to user {info.st_uid}")
        if info.st_mode & _OTHERS_WRITE and (place == directory or not info.st_mode & stat.S_ISVTX):
            raise OSError(f"others can write to the directory {place}")


def _check_tables(connection: sqlite3.Connection) -> set[str]:
    """Return which of our tables there are. Raises OSError where there is anything else."""
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
        raise OSError("it is damaged, or the database of another program: its tables are others")
    return made


def _created_at(connection: sqlite3.Connection) -> float:
    """Return since when the file knows all authenticators, in seconds since 1970."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'created_at'").fetchone()
    if row is None or type(row[0]) is not float or not 0 < row[0] < 1e12:
        raise OSError("its creation time is missing")
    return row[0]


def _window_end(seconds: float) -> float:
    """Return the end of the window of `seconds`: authenticators made before then may have times up to there."""
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


# Around fork(): while the locks of all caches are held, no thread is inside SQLite, whose own locks a child would
# inherit locked for ever. The child opens the file anew.
_caches: WeakSet[SqliteReplayCache] = WeakSet()
_held: list[SqliteReplayCache] = []
_forking = fork_safe(Lock())  # of the thread that forks
#: Kept for ever: a child process must not close a connection of its parent, which may still be using the files.
_inherited: list[sqlite3.Connection] = []


def _before_fork() -> None:
    _forking.acquire()
    while waiting := set(_caches) - set(
        _held
    ):  # again, as others may be made while one is waited for
        for cache in waiting:
            cache._lock.acquire()
            _held.append(cache)


def _after_fork(child: bool) -> None:
    for cache in _held:
        if not child:
            cache._lock.release()
        elif cache._connection is not None:  # whose lock `fork_safe` has opened
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
