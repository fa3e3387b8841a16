"""Files that hold secrets: opened so that nobody can swap them, replaced so that nothing is lost.

In the core, only this module and `purekrb.replay.sqlite` open files. All checks are made on the
open descriptor, never on the path, so an attacker gains nothing by swapping the file in between. If
the platform has no O_NOFOLLOW, owners or modes (Windows), the other checks remain.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from purekrb.errors import CredentialError
from purekrb.log import Log
from purekrb.system import fork_safe, pause, random_bytes
from purekrb.tracebacks import forget_frames

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FilePath",
    "LockedFile",
    "MAX_SIZE",
    "read_private",
    "read_public",
    "write_private",
    "remove_private",
    "make_directories",
    "make_private_directory",
    "is_directory",
    "names_in",
    "exists",
    "for_stat",
    "give",
    "locked",
    "set_lock",
    "split_type",
    "stamp",
    "text_of",
    "turn_at",
]

FilePath = str | os.PathLike[str]

#: More than any keytab or ccache has. It bounds the memory that a wrong path costs.
MAX_SIZE = 16 << 20

#: The most symbolic links on the way to a file, and the most attempts while they are swapped.
_MAX_LINKS = 8
_MAX_SWAPS = 3
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
#: CLOEXEC: no child process inherits a key. NONBLOCK: opening a FIFO returns at once. NOCTTY: a
#: terminal that is opened does not become the controlling terminal.
_FLAGS = _NOFOLLOW | sum(
    getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
)

_REMEDIES = {
    errno.ENOENT: "there is no such file or directory: check the path",
    errno.ELOOP: "it is a symbolic link, which is not followed here: name the file that it points to",
    errno.EACCES: "permission denied: run as the owner of the file, or ask for access to it",
    errno.EPERM: "permission denied: run as the owner of the file, or ask for access to it",
    errno.ENOSPC: "the disk is full: free some space and try again",
    errno.EDQUOT: "the disk quota is used up: free some space and try again",
    errno.EFBIG: "the file size limit is reached: raise it (ulimit -f) and try again",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.EAGAIN: "another program has kept it locked for ten seconds: let it end, and try again",
}
#: A write to a file that was opened for reading, since writing is not permitted.
_REMEDIES[errno.EBADF] = _REMEDIES[errno.EACCES]
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)

#: The names of files that are being written. A killed writer leaves such a file; the next writer in
#: the directory removes it.
_TEMPORARY = re.compile(r"\.purekrb\.[0-9a-f]{16}")

#: Linux has locks that belong to the open file. A lock of the process would be lost as soon as any
#: thread closes the same file. Both kinds exclude each other. MIT's programs take the same kind.
_OFD = (
    {
        getattr(fcntl, f"LOCK_{kind}") | wait: (
            command,
            struct.pack("hhqqi0q", getattr(fcntl, f"F_{name}LCK"), os.SEEK_SET, 0, 0, 0),
        )
        for kind, name in (("EX", "WR"), ("SH", "RD"), ("UN", "UN"))
        for wait, command in ((0, fcntl.F_OFD_SETLKW), (fcntl.LOCK_NB, fcntl.F_OFD_SETLK))
    }
    if sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")
    else {}
)
#: If locks belong to the process, this lock excludes its threads from each other.
_turn: contextlib.AbstractContextManager[object] = (
    contextlib.nullcontext() if _OFD else fork_safe(threading.RLock())
)
#: Seconds between the attempts to lock a file that other users can lock: ten seconds in all.
_WAITS = (0.001,) * 100 + (0.05,) * 198
#: The errors of a file system without locks; MIT's programs cannot lock there either.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

_log = Log("purekrb.credentials")


def text_of(path: FilePath) -> str:
    """Return a path as text.

    Raises TypeError for bytes: they may be the contents of a file, and errors quote paths.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(
            "a path is text or a pathlib.Path, not bytes: "
            "to read the contents of a file, use `decode`"
        )
    return text


def split_type(name: str) -> tuple[str, str]:
    """Return the type and the residual of a keytab or ccache name.

    `FILE:/x` gives ("FILE", "/x"). A plain path is a FILE.
    """
    prefix, colon, residual = name.partition(":")
    if colon and len(prefix) > 1 and prefix.isalnum():  # a single letter is a Windows drive
        return prefix.upper(), residual
    return "FILE", name


def _failed(action: str, what: str, path: str, error: OSError) -> CredentialError:
    reason = _REMEDIES.get(error.errno or 0) or os.strerror(error.errno or 0)
    return CredentialError(f"cannot {action} the {what} {path}: {reason}")


def _euid() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _check_regular(mode: int, what: str, path: str) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a device")
        raise CredentialError(
            f"refused the {what} {path}: it is {kind}, not a regular file; name the file itself"
        )


def _check(
    status: os.stat_result,
    what: str,
    path: str,
    *,
    shared: bool,
    foreign: bool | None = None,
    public: bool = False,
) -> None:
    """Raise CredentialError unless the open file can be trusted.

    Unless `shared`, only our user may have access to it. `foreign` is as for `read_private`. If it
    is `public`, everybody may read it.
    """
    _check_regular(status.st_mode, what, path)
    if not hasattr(os, "geteuid"):
        return
    uid, mode = os.geteuid(), stat.S_IMODE(status.st_mode)
    if status.st_uid != uid and not (shared and status.st_uid == 0):
        if foreign and not mode & 0o027:
            _log.warning("the %s %s belongs to uid %d, not to us", what, path, status.st_uid)
            return
        allowed = f"{uid} or 0" if shared and uid else f"{uid}"
        trust = (
            "; if you trust that user, pass foreign=True or set PUREKRB_FOREIGN_CCACHE=1"
            if foreign is False and not mode & 0o027
            else ""
        )
        raise CredentialError(
            f"refused the {what} {path}: it belongs to uid {status.st_uid} and has mode "
            f"{mode:04o}, expected uid {allowed}; "
            f"run as its owner, or make a copy of your own{trust}"
        )
    if shared:
        if mode & 0o022:
            raise CredentialError(
                f"refused the {what} {path}: mode {mode:04o} lets others write it, and so choose "
                f"{'whom to trust' if public else 'the keys'}; run chmod go-w on it and check its "
                "contents"
            )
        if mode & 0o004 and not public:
            _log.warning("the %s %s has mode %04o: every user can read it", what, path, mode)
        return
    if mode & 0o077:
        raise CredentialError(
            f"refused the {what} {path}: mode {mode:04o} gives others access, expected 0600; "
            "run chmod 600 on it, or make a new one if others may have read it"
        )
    if status.st_nlink > 1:
        raise CredentialError(
            f"refused the {what} {path}: it has {status.st_nlink} hard links, expected 1; "
            "someone may have linked it to keep it: remove it and make a new one"
        )


def set_lock(fd: int, kind: int) -> None:
    """Set fcntl's lock on the whole file; `kind` is as for `fcntl.flock`. Raises OSError."""
    if fcntl is None:
        return
    if _OFD:
        try:
            fcntl.fcntl(fd, *_OFD[kind])
            return
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: the kernel does not have such locks
                raise
    fcntl.lockf(fd, kind)


def _lock(
    fd: int, *, exclusive: bool, shared: bool, take: Callable[[int, int], None] = set_lock
) -> None:
    """Take the lock that MIT's programs take on a file that they read or write.

    If a file is ours alone, only our own programs can lock it, and they release it soon. Other
    users can keep a `shared` file locked: after ten seconds, OSError is raised.
    """
    if fcntl is None:
        return
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        if not shared:
            take(fd, kind)
            return
        for wait in _WAITS:
            try:
                take(fd, kind | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            pause(wait)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return
        raise
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _follow(path: str, what: str) -> str:
    """Return the file that the link at `path` leads to. Raises OSError and CredentialError.

    Each link on the way must belong to root or to us: another user would choose the file.
    """
    reached, pending = os.path.dirname(path), [os.path.basename(path)]
    links = 0
    while pending:
        name = pending.pop(0)
        here = os.path.join(reached, name)
        status = os.lstat(here)
        if not stat.S_ISLNK(status.st_mode):
            reached = here
            continue
        links += 1
        if links > _MAX_LINKS:
            raise CredentialError(
                f"cannot read the {what} {path}: its symbolic links lead in a circle, or there are "
                f"more than {_MAX_LINKS}; make it point at the file itself"
            )
        if status.st_uid not in (0, _euid()):
            expected = f"{_euid()} or 0" if _euid() else "0"
            raise CredentialError(
                f"refused the {what} {path}: {here} is a symbolic link of uid {status.st_uid}, "
                f"expected {expected}; name the file that it points to"
            )
        text = os.readlink(here)
        if os.path.isabs(text):
            reached = os.path.abspath(os.sep)
        pending = [part for part in text.split(os.sep) if part not in ("", os.curdir)] + pending
    return reached


def _open_to_read(path: str, what: str, *, shared: bool, foreign: bool | None, public: bool) -> int:
    """Open a file as `_open` does, also through links of root and our own."""
    opened = partial(_open, what=what, writing=False, shared=shared, foreign=foreign, public=public)
    for left in reversed(range(_MAX_SWAPS)):
        try:
            return opened(path)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        try:
            return opened(_follow(path, what))
        except OSError as error:
            # The links of a Kubernetes volume may be swapped, and the old target removed.
            if not left or error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
    raise AssertionError("unreachable")


def _open(
    path: str,
    what: str,
    *,
    writing: bool,
    shared: bool,
    foreign: bool | None = None,
    public: bool = False,
) -> int:
    """Open an existing file, check it and lock it; return its descriptor.

    Raises OSError and CredentialError.
    """
    if not _NOFOLLOW and os.path.islink(path):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    take = set_lock
    try:
        fd = os.open(path, (os.O_RDWR if writing else os.O_RDONLY) | _FLAGS)
    except PermissionError:
        if not (writing and shared):
            raise
        # The owner of this keytab may only read it: fcntl cannot lock it for writing, and MIT's
        # programs cannot write it.
        fd = os.open(path, os.O_RDONLY | _FLAGS)
        take = getattr(fcntl, "flock", set_lock)
    try:
        # Checked before the lock is taken: others could hold a lock on a file of their own.
        status = os.fstat(fd)
        _check(status, what, path, shared=shared, foreign=foreign, public=public)
        # The owner of a file that is not ours could keep it locked.
        waits = shared or (foreign is not None and status.st_uid != _euid())
        try:
            _lock(fd, exclusive=writing, shared=waits, take=take)
        except OSError as error:
            if writing or shared:
                raise
            _log.warning("the %s %s is read without a lock: %s", what, path, error.strerror)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        # If a fork has copied the descriptor, closing it here would not release the lock.
        set_lock(fd, fcntl.LOCK_UN)
    os.close(fd)


@forget_frames
def read_private(
    path: FilePath,
    *,
    what: str,
    shared: bool = False,
    foreign: bool | None = None,
    max_size: int = MAX_SIZE,
) -> bytes:
    """Return the contents of a file that holds secrets.

    It must be a regular file of at most `max_size` bytes. A symbolic link is followed if it belongs
    to root or to us. Unless `shared`, the file must be ours, have one hard link, and give others no
    access. A `shared` file (a keytab) may also belong to root, and others may read it (the log
    warns of this), but not write it. If `foreign` is true, the file may belong to another user, and
    its group may read it; if it is false, the refusal says how to permit that. If a check fails,
    CredentialError is raised; `what` names the file in it.
    """
    return _read(path, what, max_size, shared=shared, foreign=foreign)


def read_public(path: FilePath, *, what: str, max_size: int = MAX_SIZE) -> bytes:
    """Return the contents of a file that says whom to trust, such as a CA's certificate.

    It is read as a `shared` file of `read_private`, but others may read it as well.
    """
    return _read(path, what, max_size, shared=True, public=True)


def _read(
    path: FilePath,
    what: str,
    max_size: int,
    *,
    shared: bool,
    foreign: bool | None = None,
    public: bool = False,
) -> bytes:
    path = text_of(path)
    try:
        with _turn:
            fd = _open_to_read(path, what, shared=shared, foreign=foreign, public=public)
            try:
                return _read_all(fd, path, what, max_size)
            finally:
                _close(fd)
    except OSError as error:
        raise _failed("read", what, path, error) from error


def _read_all(fd: int, path: str, what: str, max_size: int) -> bytes:
    parts = []
    size = 0
    while size <= max_size and (part := os.read(fd, max_size + 1 - size)):
        parts.append(part)
        size += len(part)
    if size > max_size:
        raise CredentialError(
            f"refused the {what} {path}: it is larger than {max_size} bytes; check the path"
        )
    _log.debug("read the %s %s: %d bytes", what, path, size)
    return b"".join(parts)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_directory(directory: str) -> None:
    """Make a rename survive a power failure, if the platform can sync directories."""
    with contextlib.suppress(OSError):
        fd = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _has_path(fd: int, path: str) -> bool:
    """Return whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _new_file(path: str, flags: int) -> int:
    """Return the descriptor of a new file of mode 0600."""
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    if hasattr(os, "fchmod"):
        os.fchmod(fd, 0o600)  # the umask may have removed bits
    return fd


def _new_temporary(directory: str) -> tuple[int, str]:
    """Return the descriptor and the path of a new temporary file.

    `_sweep` does not remove it while this process has it open.
    """
    while True:
        path = os.path.join(directory, f".purekrb.{random_bytes(8).hex()}")
        fd = _new_file(path, os.O_WRONLY)
        if fcntl is None:
            return fd, path
        with contextlib.suppress(OSError):  # without locks, nothing is swept
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd, path
        os.close(fd)  # swept before it was locked


def _sweep(directory: str) -> None:
    """Remove temporary files that killed processes left in the directory.

    A temporary file is locked as long as its writer lives.
    """
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(directory or os.curdir) as entries:
        for name in [entry.name for entry in entries if _TEMPORARY.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                _sweep_file(os.path.join(directory, name))


def _sweep_file(path: str) -> None:
    fd = os.open(path, os.O_RDWR | _FLAGS)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        own = (
            stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
        )
        if own and _has_path(fd, path):  # otherwise its writer has renamed it in the meantime
            _write_all(fd, bytes(status.st_size))
            os.unlink(path)
            _log.debug("removed %s, which a killed process had left", path)
    finally:
        os.close(fd)


@forget_frames
def _replace(path: str, data: bytes, what: str) -> None:
    """Put a new file with `data` in the place of the old one.

    On Windows this fails while any program has the old file open.
    """
    directory = os.path.dirname(path)
    _sweep(directory)
    fd, temporary = _new_temporary(directory)
    try:
        try:
            _write_all(fd, data)
            os.fsync(fd)
            if fcntl is not None:  # the new file is still locked, so it is not swept
                os.replace(temporary, path)
        finally:
            os.close(fd)
        if fcntl is None:
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(directory or os.curdir)
    _log.debug("wrote the %s %s: %d bytes", what, path, len(data))


def _hold_own(path: str, what: str) -> int | None:
    """Lock the file that is to be replaced and return its descriptor, or None if it is not locked.

    If others have access to the file, it is not locked: they could keep a lock on it, and its
    contents are worthless. If it cannot be opened, it is not locked either: the directory decides
    whether it can be replaced.
    """
    if fcntl is None:
        return None
    try:
        return _hold(path, what, shared=False, make=False)[0]
    except (CredentialError, OSError):
        return None


@forget_frames
def write_private(path: FilePath, data: bytes, *, what: str) -> None:
    """Replace the file atomically by one that holds `data`; its mode is 0600 whatever the umask.

    The data is written to a new file in the same directory, which is then renamed. A reader sees
    the old file or the new one, even after a crash. The old file is locked meanwhile (see
    `locked`); if the write fails, it stays. Raises CredentialError, also if the path is a symbolic
    link or anything else than a regular file.
    """
    path = text_of(path)
    with _turn:
        fd = None
        try:
            with contextlib.suppress(FileNotFoundError):
                _check_regular(os.lstat(path).st_mode, what, path)
            fd = _hold_own(path, what)
            _replace(path, data, what)
        except OSError as error:
            raise _failed("write", what, path, error) from error
        finally:
            if fd is not None:
                _close(fd)


def remove_private(path: FilePath, *, what: str, shared: bool = False) -> None:
    """Overwrite the file with zeros and remove it.

    Raises CredentialError, also if the file does not pass the checks of `read_private`.
    """
    path = text_of(path)
    with locked(path, what=what, shared=shared, make=False) as file:
        if file is None:
            raise _failed(
                "change", what, path, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            )
        file.remove()
    _sweep(os.path.dirname(path))
    _log.debug("removed the %s %s", what, path)


def make_directories(path: FilePath, *, what: str) -> None:
    """Make the missing directories above a file of this path. Raises CredentialError."""
    path = text_of(path)
    try:
        os.makedirs(os.path.dirname(path) or os.curdir, 0o755, exist_ok=True)
    except OSError as error:
        raise _failed("make the directory of", what, path, error) from error


def make_private_directory(path: FilePath, *, what: str) -> None:
    """Make a missing directory with mode 0700. Its parent must exist. Raises CredentialError."""
    path = text_of(path)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path or os.curdir, 0o700)
    except OSError as error:
        raise _failed("make", what, path, error) from error


def names_in(path: FilePath, *, what: str) -> list[str]:
    """Return the names of the files in a directory; none if it does not exist.

    Names that are being written are left out. Raises CredentialError.
    """
    path = text_of(path)
    try:
        return [name for name in os.listdir(path) if not _TEMPORARY.fullmatch(name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _failed("read", what, path, error) from error


def for_stat(path: str) -> bytes:
    """Return a path as `stamp` takes it soonest: text is encoded at each call."""
    return os.fsencode(path)


def stamp(path: FilePath | bytes) -> object:
    """Return a value that changes when the file at `path` does, links followed; None without a file.

    It costs one system call. Source: POSIX stat().
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    # Whoever changes the content or the mode changes this time, which nobody can set.
    return status.st_dev, status.st_ino, status.st_ctime_ns


def is_directory(path: FilePath) -> bool:
    """Return whether the path is a directory, links followed."""
    return os.path.isdir(path)


def exists(path: FilePath) -> bool:
    """Return whether the path exists; a dangling link counts."""
    return os.path.lexists(path)


class LockedFile:
    """A file that is locked against other writers: see `locked`. `made`: it is new and empty."""

    __slots__ = ("_fd", "_path", "_what", "made")

    def __init__(self, fd: int, path: str, what: str, made: bool) -> None:
        self._fd, self._path, self._what, self.made = fd, path, what, made

    @forget_frames
    def read(self) -> bytes:
        """Return the contents, of at most MAX_SIZE bytes."""
        with self._failing("read"):
            os.lseek(self._fd, 0, os.SEEK_SET)
            return _read_all(self._fd, self._path, self._what, MAX_SIZE)

    @forget_frames
    def extend(self, data: bytes, marks: Mapping[int, bytes]) -> bool:
        """Add `data` at the end, then write each mark over the bytes at its offset.

        If the data cannot be added, the old contents stay. Programs that have this file open and
        wait for the lock can continue with it, which they could not if it were replaced. Returns
        whether the file still has its path: MIT's kinit removes the file without taking the lock.
        """
        with self._failing("write"):
            end = os.lseek(self._fd, 0, os.SEEK_END)
            try:
                _write_all(self._fd, data)
            except BaseException:
                os.ftruncate(self._fd, end)
                raise
            for at, mark in marks.items():
                os.lseek(self._fd, at, os.SEEK_SET)
                _write_all(self._fd, mark)
            _log.debug("added to the %s %s: %d bytes", self._what, self._path, len(data))
            return _has_path(self._fd, self._path)

    @forget_frames
    def replace(self, data: bytes) -> None:
        """Replace the file as `write_private` does. This object cannot be used afterwards."""
        with self._failing("write"):
            if fcntl is None:
                self.close()
            _replace(self._path, data, self._what)

    def remove(self) -> None:
        """Overwrite the file with zeros and remove it. This object cannot be used afterwards."""
        with self._failing("change"):
            size = os.lseek(self._fd, 0, os.SEEK_END)
            os.lseek(self._fd, 0, os.SEEK_SET)
            _write_all(self._fd, bytes(size))
            os.fsync(self._fd)
            if fcntl is None:
                self.close()
            os.unlink(self._path)

    def close(self) -> None:
        """Release the lock."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if self.made and fcntl is not None and _has_path(fd, self._path):  # it is still empty
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            _close(fd)

    @contextlib.contextmanager
    def _failing(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _failed(action, self._what, self._path, error) from error


def _hold(path: str, what: str, *, shared: bool, make: bool) -> tuple[int | None, bool]:
    """Lock the file at the path; return its descriptor and whether the file is new.

    If the file does not exist, and `make` is false, the descriptor is None.
    """
    while True:
        made = False
        try:
            fd = _open(path, what, writing=True, shared=shared)
        except FileNotFoundError:
            if not make:
                return None, False
            try:
                fd = _new_file(path, os.O_RDWR)
            except FileExistsError:
                continue
            made = True
            try:
                _lock(fd, exclusive=True, shared=shared)
            except BaseException:
                os.close(fd)
                raise
        if _has_path(fd, path):
            return fd, made
        _close(fd)  # the file was replaced while we waited for the lock


@contextlib.contextmanager
def turn_at(path: FilePath, *, what: str) -> Iterator[None]:
    """Keep other callers with the same path out for as long as the block runs.

    The file itself stays free for others to read and write: the lock is on a file beside it,
    `.NAME.lock`. It ends with the process. Raises CredentialError if another caller is in its block.
    """
    path = text_of(path)
    beside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.lock")
    if fcntl is None:
        yield
        return
    while True:
        try:
            fd = os.open(beside, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        except PermissionError as error:
            raise CredentialError(
                f"cannot lock the {what} {path}: permission denied: it is replaced as a whole, so "
                "its owner must be able to write to its directory"
            ) from error
        except OSError as error:
            raise _failed("lock", what, path, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in _NO_LOCKS:
                yield
                return
            raise CredentialError(
                f"the {what} {path} is being changed by another process or thread: let it end, and "
                "try again"
            ) from None
        if _has_path(fd, beside):
            break
        os.close(fd)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        os.close(fd)


def give(path: FilePath, user: str, *, what: str) -> None:
    """Give the file to a user and its group. Only root can. Raises CredentialError.

    The file must pass the checks of `read_private` for a shared file, and have one name: the user
    may own the directory, and have put a file of root's there.
    """
    path = text_of(path)
    try:
        import pwd  # not on Windows

        entry = pwd.getpwnam(user)
    except (ImportError, KeyError):
        raise CredentialError(
            f"the {what} {path} cannot be given to {user!r}: this machine has no such user"
        ) from None
    try:
        fd = _open_to_read(path, what, shared=True, foreign=None, public=False)
        try:
            links = os.fstat(fd).st_nlink
            if links > 1:
                raise CredentialError(
                    f"refused to give the {what} {path} to {user!r}: it has {links} hard links, "
                    "expected 1; see which other file it is"
                )
            os.fchown(fd, entry.pw_uid, entry.pw_gid)
        finally:
            os.close(fd)
    except OSError as error:
        raise _failed("give away", what, path, error) from error


@contextlib.contextmanager
def locked(
    path: FilePath, *, what: str, shared: bool = False, make: bool = True
) -> Iterator[LockedFile | None]:
    """Lock the file against all other programs that write it, MIT's included.

    These programs take the same lock: fcntl's, on the file itself. It is taken after the checks of
    `read_private`, so a user without access to the file cannot make us wait. If the file does not
    exist, an empty one is made, and removed at the end unless it was replaced. If `make` is false,
    a missing file stays missing, and None is yielded. If the platform or the file system has no
    locks, nothing is locked. Raises CredentialError, also if another program keeps a `shared` file
    locked for ten seconds.
    """
    path = text_of(path)
    with _turn:
        try:
            fd, made = _hold(path, what, shared=shared, make=make)
        except OSError as error:
            raise _failed("change", what, path, error) from error
        if fd is None:
            yield None
            return
        file = LockedFile(fd, path, what, made)
        try:
            yield file
        finally:
            file.close()
