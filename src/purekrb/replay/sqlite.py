"""A replay cache in an SQLite file: for many processes on one machine, across restarts and kill -9."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Lock
from weakref import WeakSet

from purekrb.constants import ErrorCode
from purekrb.errors import CredentialError, ReplayError
from purekrb.replay import KEEP, bucket_of, check_age, oldest_bucket, replayed
from purekrb.system import now as system_now

__all__ = ["SqliteReplayCache"]

_APPLICATION_ID = 0x70726B62  # "prkb": another program's database is refused, not overwritten
_VERSION = 1
_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
CREATE TABLE seen (bucket INTEGER NOT NULL, tag BLOB NOT NULL, PRIMARY KEY (bucket, tag)) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
"""


class SqliteReplayCache:
    """A replay cache in the file `path`, shared by all processes that open it; about 30 bytes an authenticator.

    The file is created with mode 0600; one that is a symbolic link, belongs to another user, can be written by others
    or is no replay cache is refused with CredentialError. A file that fails later (deleted, corrupt, read-only, disk
    full) makes `remember` raise ReplayError: it fails closed. A cache that had to be created cannot know what was
    presented before, so it refuses authenticators that are older than itself. What remains is a client whose clock is
    ahead of ours: after a loss, wait as long as the clock skew. Safe for threads and after fork().
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 5.0) -> None:
        self._path = Path(path)
        self._timeout = timeout
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._created_at = 0.0
        self._newest_bucket = 0
        _caches.add(self)
        with self._lock:
            try:
                self._open()
            except (OSError, sqlite3.Error) as error:
                self._drop()
                raise CredentialError(
                    f"{self._path} cannot be used as a replay cache ({error}): give a path in a directory that only "
                    "this service can write; remove a damaged file only while the service is stopped"
                ) from None

    def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
        """Store `tag` durably against the death of this process; raise ReplayError where it was stored before."""
        bucket = bucket_of(ctime)
        check_age(ctime, now)
        with self._lock, self._failing_closed():
            connection = self._connection or self._open()
            self._check_file_is_ours()
            if ctime.timestamp() < self._created_at:
                raise ReplayError(
                    "this authenticator is older than the replay cache, which therefore cannot tell whether it was "
                    "presented before: let the client try again",
                    code=ErrorCode.KRB_AP_ERR_REPEAT,
                )
            if bucket > self._newest_bucket:
                connection.execute("DELETE FROM seen WHERE bucket < ?", (oldest_bucket(now),))
                self._newest_bucket = bucket
            stored = connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (bucket, tag)).rowcount
            if stored != 1:
                raise replayed()

    def close(self) -> None:
        """Close the file. The next `remember` opens it again."""
        with self._lock:
            self._drop()

    def __len__(self) -> int:
        with self._lock, self._failing_closed():
            connection = self._connection or self._open()
            return int(connection.execute("SELECT count(*) FROM seen").fetchone()[0])

    @contextlib.contextmanager
    def _failing_closed(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self._drop()
            raise ReplayError(
                f"the replay cache {self._path} failed ({error}): no client can be accepted safely. Free the disk or "
                f"remove the file, and wait {KEEP // 60} minutes before the service starts again",
                code=ErrorCode.KRB_ERR_GENERIC,
            ) from None

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _open(self) -> sqlite3.Connection:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600))
        self._inode = None
        self._inode = self._check_file_is_ours()
        connection = sqlite3.connect(
            self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=8
        )
        self._connection = connection
        # NORMAL loses nothing when a process dies; only a power failure may take the last entries.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                for statement in filter(None, map(str.strip, _SCHEMA.split(";"))):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES ('created_at', ?)", (system_now().timestamp(),))
            connection.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        identity = (
            connection.execute("PRAGMA application_id").fetchone()[0],
            connection.execute("PRAGMA user_version").fetchone()[0],
        )
        if identity != (_APPLICATION_ID, _VERSION):
            raise OSError("it is the database of another program or version")
        with contextlib.suppress(sqlite3.OperationalError):  # locked: another process opens the file and sees to it
            connection.execute("PRAGMA journal_mode = WAL")
        row = connection.execute("SELECT value FROM meta WHERE name = 'created_at'").fetchone()
        if row is None:
            raise OSError("its creation time is missing")
        self._created_at = float(row[0])
        self._check_file_is_ours()
        return connection

    def _check_file_is_ours(self) -> tuple[int, int]:
        info = os.lstat(self._path)
        if not stat.S_ISREG(info.st_mode):
            raise OSError("it is not a regular file")
        if hasattr(os, "getuid") and info.st_uid != os.getuid():
            raise OSError(f"it belongs to user {info.st_uid}")
        if hasattr(os, "getuid") and info.st_mode & 0o022:
            raise OSError("others can write to it")
        found = (info.st_dev, info.st_ino)
        if self._inode not in (None, found):
            raise OSError("it was replaced while in use")
        return found


# Around fork(): while the locks of all caches are held, no thread is inside SQLite, whose own locks a child would
# inherit locked for ever. The child opens the file anew.
_caches: WeakSet[SqliteReplayCache] = WeakSet()
_held: list[SqliteReplayCache] = []
#: Kept for ever: a child process must not close a connection of its parent, which may still be using the files.
_inherited: list[sqlite3.Connection] = []


def _before_fork() -> None:
    for cache in list(_caches):
        cache._lock.acquire()
        _held.append(cache)


def _after_fork(child: bool) -> None:
    caches = list(_held)
    _held.clear()  # before the first release, which lets another thread's fork() in
    for cache in caches:
        if child and cache._connection is not None:
            _inherited.append(cache._connection)
            cache._connection = None
        cache._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=partial(_after_fork, False), after_in_child=partial(_after_fork, True)
    )
