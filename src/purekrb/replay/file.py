"""MIT's replay cache file, "rcache2": shared with all acceptors of this user on this machine.

Source: MIT krb5, "Replay cache file format" (file2), and the files that MIT's library writes.

The file starts with the seed of a hash (16 bytes). Hash tables of 1,023, 2,048, 4,096, ... slots
follow. A slot has 16 bytes: a tag (12) and the time when it was written (4, big-endian seconds). It
was never used if its time is 0, or if it is beyond the end of the file. In each table, a tag has
two places: the slot of its hash modulo the table's size, and the slot after that. Each table hashes
with another key. Tables are searched in turn until a place was never used. A new tag goes to the
first place that was never used or is old.

MIT's documentation takes the hash modulo one slot less, but MIT's library (1.20.1, 1.21.3) does not. After the last
slot of a table comes the first one of the next.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock

from purekrb.constants import ErrorCode
from purekrb.credentials.files import set_lock
from purekrb.errors import ReplayError
from purekrb.replay.cache import KEEP, SKEW, replayed, too_old
from purekrb.replay.ours import check_directories, check_file
from purekrb.replay.siphash import schedule, siphash
from purekrb.system import before_fork, fork_safe, in_parent, monotonic, pause, random_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["FileReplayCache", "default_path"]

_SEED = 16
_TAG = 12
_RECORD = 16
#: Two places that follow each other: tag and time of each.
_PAIR = 2 * _RECORD
_UNPACK = struct.Struct(">12sI12sI").unpack
_NOTHING = bytes(_PAIR)
#: The size in bytes of the first table, with the seed before it. Each table is twice as long.
_FIRST = 16384
#: Far above what the largest acceptor makes: 2^26 slots. It bounds the cost of a damaged file.
_MAX_SIZE = 1 << 30
#: The offset of each table, and its number of slots.
_TABLES = [(_SEED, _FIRST // _RECORD - 1)] + [
    (_FIRST * ((1 << table) - 1), _FIRST // _RECORD << table)
    for table in range(1, (_MAX_SIZE // _FIRST).bit_length() + 1)
]
_KEEP = timedelta(seconds=KEEP)
#: MIT's programs take a slot as old if its time is before now by more than their clock skew. So
#: that they also keep our tags for KEEP seconds, our times are ahead.
_AHEAD = KEEP - SKEW
#: The last time of the format, in 2106. What was written then is never old.
_LATEST = 0xFFFFFFFF
#: Sticky and shared by all users, as MIT has it: that is why owner and mode of the file are checked.
_VAR_TMP = "/var/tmp"  # noqa: S108
_FLAGS = os.O_RDWR | sum(
    getattr(os, name, 0)
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
)
#: Seconds between two attempts to lock the file: a store takes about 30 microseconds.
_WAIT = 0.0002
_BUSY = (errno.EAGAIN, errno.EACCES)
_REMEDIES = {
    errno.ENOENT: "make its directory, or name another file in KRB5RCACHENAME",
    errno.ELOOP: "remove this symbolic link, or name another file in KRB5RCACHENAME",
    errno.ENOSPC: "free some space on its disk",
    errno.EDQUOT: "free some of the disk quota",
}
_REMEDY = (
    "name another file in KRB5RCACHENAME (file2:PATH), or remove this one while no service runs"
)

#: Held while a file is open, so a child process never inherits an open file and with it the lock
#: of the file. It also excludes threads from each other where locks belong to the process.
_turn = fork_safe(Lock())
before_fork(_turn.acquire)
in_parent(_turn.release)


def default_path() -> str:
    """Return the path of MIT's default cache of this user.

    It is krb5_EUID.rcache2 in KRB5RCACHEDIR, else in TMPDIR, else in /var/tmp.
    """
    directory = os.environ.get("KRB5RCACHEDIR") or os.environ.get("TMPDIR") or _VAR_TMP
    return os.path.join(directory, f"krb5_{os.geteuid()}.rcache2")


class FileReplayCache:
    """A replay cache in a file of MIT's format; without `path`, in MIT's default file of this user.

    All acceptors of this user that name the same file share it, those of MIT's library included.
    The file is made with mode 0600. It survives the death of processes. It grows with the rate of
    handshakes: an authenticator is kept for 20 minutes and takes about 25 bytes.

    `remember` raises ReplayError if the file is a symbolic link or not a regular file, belongs to
    another user, has several names, or can be written or replaced by others; if it fails; and if
    another process keeps it locked for `timeout` seconds. The file has no shares for clients, as it
    is never full before its disk. `monotonic` measures the time that has really passed: if the clock
    jumps ahead, this process overwrites nothing. The cache is safe for threads and after fork().
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 5.0,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        if fcntl is None:
            raise ReplayError(
                "this system has no file locks: use MemoryReplayCache",
                code=ErrorCode.KRB_ERR_GENERIC,
            )
        self._is_default = path is None
        self._path = default_path() if path is None else os.path.abspath(path)
        self._user = os.geteuid()
        self._timeout = timeout
        self._monotonic = monotonic
        #: The seconds by which the clock is ahead of the monotonic clock, and when that was last so.
        self._ahead = float("inf")
        self._agreed = 0.0
        #: The file that was checked: device, inode, mode, links and owner; and for which user.
        self._checked: tuple[int, ...] | None = None

    @property
    def path(self) -> str:
        """The path of the file. That of the default file changes with the effective user."""
        if self._is_default and os.geteuid() != self._user:
            self._path, self._user = default_path(), os.geteuid()
        return self._path

    def check(self) -> None:
        """Raise ReplayError if the directory of the file cannot be used. Makes no file."""
        path = self.path
        directory = os.path.dirname(path)
        try:
            check_directories(Path(os.path.realpath(directory)), sticky=True)
            if not os.path.lexists(path) and not os.access(directory, os.W_OK | os.X_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise _failed(path, error) from None

    def remember(self, tag: bytes, ctime: datetime, now: datetime) -> None:
        """Store the last 12 bytes of `tag`, so that they survive the death of this process.

        Raises ReplayError if they were stored before, or if the file cannot be used.
        """
        if now - ctime > _KEEP:
            raise too_old()
        path = self.path
        present, moment = now.timestamp(), self._monotonic()
        written = min(int(max(present, ctime.timestamp() + 1)) + _AHEAD, _LATEST)
        # The clock may have jumped ahead. Then what was written before is not old before the
        # monotonic clock confirms it. Otherwise, after the clock is corrected, authenticators that
        # were overwritten in the meantime would be admitted again.
        ahead = present - moment
        if ahead <= self._ahead + 1 or moment - self._agreed > KEEP:
            self._ahead, self._agreed = ahead, moment
        old = min(int(moment + self._ahead) - SKEW, _LATEST)
        until = moment + self._timeout
        try:
            while True:
                with _turn:
                    if self._store(path, tag[-_TAG:], old, written):
                        return
                if self._monotonic() >= until:
                    raise OSError(f"another process keeps it locked for {self._timeout:g} s")
                pause(_WAIT)
        except OSError as error:
            raise _failed(path, error) from None

    def _store(self, path: str, tag: bytes, old: int, written: int) -> bool:
        """Store `tag` with the time `written`, unless the file is locked or being replaced.

        Slots with a time before `old` are free.
        """
        fd = os.open(path, _FLAGS | os.O_CREAT, 0o600)
        locked = False
        try:
            try:
                set_lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
            info = os.fstat(fd)
            # Others may have made the file, and keep it locked: that is told at once.
            self._check(path, info)
            if not locked or not info.st_nlink:
                return False
            if info.st_size > _MAX_SIZE:
                raise OSError(f"with {info.st_size} bytes it is no replay cache")
            seed = os.pread(fd, _SEED, 0)
            if len(seed) < _SEED:  # a new file
                seed = random_bytes(_SEED)
                os.pwrite(fd, seed, 0)
            # One write of 16 bytes within a page: a kill leaves all of it or nothing.
            os.pwrite(
                fd, tag + written.to_bytes(4, "big"), _place(fd, seed, info.st_size, tag, old)
            )
            return True
        finally:
            if locked:
                # A program that is being started may have a copy of the descriptor, so closing it
                # would not release the lock.
                set_lock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def _check(self, path: str, info: os.stat_result) -> None:
        user = os.geteuid()
        facts = (info.st_dev, info.st_ino, info.st_mode, info.st_nlink, info.st_uid, user)
        if facts == self._checked:
            return
        check_file(info, "it")
        if info.st_nlink > 1:
            raise OSError(f"it has {info.st_nlink} names (hard links)")
        check_directories(Path(os.path.realpath(os.path.dirname(path))), sticky=True)
        self._checked = facts


def _place(fd: int, seed: bytes, size: int, tag: bytes, old: int) -> int:
    """Return the offset for a new tag. Raises ReplayError if the tag is in the file."""
    # The tables that have a part in the file, and the one after them.
    tables = ((max(size, 1) - 1) // _FIRST + 1).bit_length() + 1
    pread, unpack = os.pread, _UNPACK
    free = 0
    for hashed, (start, slots) in zip(siphash(schedule(seed, tables), tag), _TABLES, strict=False):
        at = start + hashed % slots * _RECORD
        pair = pread(fd, _PAIR, at)
        if len(pair) != _PAIR:
            pair = (pair[: len(pair) // _RECORD * _RECORD] + _NOTHING)[:_PAIR]
        tag_1, first, tag_2, second = unpack(pair)
        if (tag_1 == tag and first) or (tag_2 == tag and second):
            raise replayed()
        if first < old or second < old:
            free = free or (at if first < old else at + _RECORD)
            if not (first and second):
                return free
    if not free:
        raise OSError("all places of this authenticator are taken")
    return free


def _failed(path: str, error: OSError) -> ReplayError:
    reason = error.strerror or str(error)
    return ReplayError(
        f"the replay cache {path} cannot be used ({reason}): no client can be accepted safely; "
        f"{_REMEDIES.get(error.errno or 0, _REMEDY)}",
        code=ErrorCode.KRB_ERR_GENERIC,
    )
