"""Files that hold secrets: opened so that nothing can be slipped in, replaced so that nothing is lost.

The only module of the package, besides `purekrb.replay.sqlite`, that opens files. All checks are made on the open
descriptor, never on the path, so that a file swapped in between gains nothing. Where the platform has no O_NOFOLLOW,
owners or modes (Windows), the checks that it can do remain.
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
    "write_private",
    "remove_private",
    "make_directories",
    "exists",
    "locked",
    "split_type",
    "text_of",
]

FilePath = str | os.PathLike[str]

#: More than any keytab or ccache has; bounds the memory that a wrong path costs.
MAX_SIZE = 16 << 20

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
#: CLOEXEC: no child inherits a key. NONBLOCK: opening a FIFO returns at once. NOCTTY: opening a terminal takes nothing.
_FLAGS = _NOFOLLOW | sum(
    getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")
)

_REMEDIES = {
    errno.ENOENT: "there is no such file or directory: check the path",
    errno.ELOOP: "it is a symbolic link, which is not followed: name the file that it points to",
    errno.EACCES: "permission denied: run as the owner of the file, or have it given to you",
    errno.EPERM: "permission denied: run as the owner of the file, or have it given to you",
    errno.ENOSPC: "the disk is full: free some space and try again",
    errno.EDQUOT: "the disk quota is used up: free some space and try again",
    errno.EFBIG: "the file size limit is reached: raise it (ulimit -f) and try again",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.EAGAIN: "another program has kept it locked for ten seconds: let it end, and try again",
}
_REMEDIES[errno.EBADF] = _REMEDIES[
    errno.EACCES
]  # opened for reading, since writing is not permitted
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)

#: Names of files that are being written. A killed writer leaves one; the next writer in the directory removes it.
_TEMPORARY = re.compile(r"\.purekrb\.[0-9a-f]{16}")

#: Linux: locks of the open file, not of the process, which would lose its own as soon as any of its threads closes the
#: same file. Both kinds exclude each other, and MIT's programs take this one where there is one, too.
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
#: Where locks belong to the process: what keeps its threads apart.
_turn: contextlib.AbstractContextManager[object] = (
    contextlib.nullcontext() if _OFD else fork_safe(threading.RLock())
)
#: Seconds between the attempts to lock a file that others can lock: ten in all.
_WAITS = (0.001,) * 100 + (0.05,) * 198
#: File systems on which nobody can lock anything, MIT's programs neither.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

_log = Log("purekrb.credentials")


def text_of(path: FilePath) -> str:
    """Return a path as text. Raises TypeError for bytes, which may be a file's contents: errors quote paths."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(
            "a path is text or a pathlib.Path, not bytes; the bytes of a file are read by `decode`"
        )
    return text


def split_type(name: str) -> tuple[str, str]:
    """Return type and residual of a keytab or ccache name: `FILE:/x` is ("FILE", "/x"); a plain path is a FILE."""
    prefix, colon, residual = name.partition(":")
    if colon and len(prefix) > 1 and prefix.isalnum():  # one letter alone is a Windows drive
        return prefix.upper(), residual
    return "FILE", name


def _failed(action: str, what: str, path: str, error: OSError) -> CredentialError:
    reason = _REMEDIES.get(error.errno or 0) or os.strerror(error.errno or 0)
    return CredentialError(f"cannot {action} the {what} {path}: {reason}")


def _check_regular(mode: int, what: str, path: str) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a device")
        raise CredentialError(
            f"refused the {what} {path}: it is {kind}, not a regular file; name the file itself"
        )


def _check(status: os.stat_result, what: str, path: str, *, shared: bool) -> None:
    """Raise CredentialError unless the open file can be trusted and, unless `shared`, is ours alone."""
    _check_regular(status.st_mode, what, path)
    if not hasattr(os, "geteuid"):
        return
    uid, mode = os.geteuid(), stat.S_IMODE(status.st_mode)
    if status.st_uid != uid and not (shared and status.st_uid == 0):
        allowed = f"{uid} or 0" if shared and uid else f"{uid}"
        raise CredentialError(
            f"refused the {what} {path}: it belongs to uid {status.st_uid}, expected {allowed};"
            " run as its owner, or make a copy of your own"
        )
    if shared:
        if mode & 0o022:
            raise CredentialError(
                f"refused the {what} {path}: mode {mode:04o} lets others write it, and so choose the keys;"
                " run chmod go-w on it and check its contents"
            )
        if mode & 0o004:
            _log.warning("the %s %s has mode %04o: every user can read it", what, path, mode)
        return
    if mode & 0o077:
        raise CredentialError(
            f"refused the {what} {path}: mode {mode:04o} gives others access, expected 0600;"
            " run chmod 600 on it, or make a new one if others may have read it"
        )
    if status.st_nlink > 1:
        raise CredentialError(
            f"refused the {what} {path}: it has {status.st_nlink} hard links, expected 1;"
            " someone may have linked it to keep it: remove it and make a new one"
        )


def _set_lock(fd: int, kind: int) -> None:
    """Do with fcntl's lock on the whole file what `fcntl.flock` does with its own. Raises OSError."""
    if fcntl is None:
        return
    if _OFD:
        try:
            fcntl.fcntl(fd, *_OFD[kind])
            return
        except OSError as error:
            if error.errno != errno.EINVAL:  # of a kernel that has no such locks
                raise
    fcntl.lockf(fd, kind)


def _lock(
    fd: int, *, exclusive: bool, shared: bool, take: Callable[[int, int], None] = _set_lock
) -> None:
    """Take the lock that MIT's programs take on a file that they read or write.

    Nobody else can lock a file that is ours alone, and ours let go of it soon. Others can lock a `shared` one as long
    as they like: after ten seconds that is an OSError.
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


def _open(path: str, what: str, *, writing: bool, shared: bool) -> int:
    """Open an existing file, check it and lock it; return its descriptor. Raises OSError and CredentialError."""
    if not _NOFOLLOW and os.path.islink(path):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    take = _set_lock
    try:
        fd = os.open(path, (os.O_RDWR if writing else os.O_RDONLY) | _FLAGS)
    except PermissionError:
        if not (writing and shared):
            raise
        # A keytab that its owner may only read, which fcntl cannot lock and MIT's programs cannot write.
        fd = os.open(path, os.O_RDONLY | _FLAGS)
        take = getattr(fcntl, "flock", _set_lock)
    try:
        _check(
            os.fstat(fd), what, path, shared=shared
        )  # before the lock: others could keep one on a file of theirs
        _lock(fd, exclusive=writing, shared=shared, take=take)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        _set_lock(
            fd, fcntl.LOCK_UN
        )  # closing does not where a fork has made a copy of the descriptor
    os.close(fd)


@forget_frames
def read_private(
    path: FilePath, *, what: str, shared: bool = False, max_size: int = MAX_SIZE
) -> bytes:
    """Return the contents of a file that holds secrets.

    It must be a regular file, no symbolic link, of at most `max_size` bytes. Unless `shared`, it must be ours with one
    hard link and no access for others. A `shared` file (a keytab) may also be root's and readable by others, of which
    the log warns, but not writable by them. `what` names the file in the CredentialError that tells what is wrong.
    """
    path = text_of(path)
    try:
        with _turn:
            fd = _open(path, what, writing=False, shared=shared)
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
            f"refused the {what} {path}: it is larger than {max_size} bytes; is it the right file?"
        )
    _log.debug("read the %s %s: %d bytes", what, path, size)
    return b"".join(parts)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_directory(directory: str) -> None:
    """Make a rename survive a power failure, where directories can be synced at all."""
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
        os.fchmod(fd, 0o600)  # the umask may have taken from it
    return fd


def _new_temporary(directory: str) -> tuple[int, str]:
    """Return the descriptor and the path of a new file that `_sweep` leaves alone while this process has it open."""
    while True:
        path = os.path.join(directory, f".purekrb.{random_bytes(8).hex()}")
        fd = _new_file(path, os.O_WRONLY)
        if fcntl is None:
            return fd, path
        with contextlib.suppress(OSError):  # where there are no locks, nothing is swept
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd, path
        os.close(fd)  # swept before it was locked


def _sweep(directory: str) -> None:
    """Remove what killed writers of ours left in the directory: temporary files that no living process has locked."""
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
        if own and _has_path(fd, path):  # else its writer has given it its name meanwhile
            _write_all(fd, bytes(status.st_size))
            os.unlink(path)
            _log.debug("removed %s, which a killed process had left", path)
    finally:
        os.close(fd)


@forget_frames
def _replace(path: str, data: bytes, what: str) -> None:
    """Give the path to a new file that holds `data`. Windows does so only while nobody has the old one open."""
    directory = os.path.dirname(path)
    _sweep(directory)
    fd, temporary = _new_temporary(directory)
    try:
        try:
            _write_all(fd, data)
            os.fsync(fd)
            if fcntl is not None:  # while the new file is locked, so that nobody sweeps it
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
    """Return the descriptor of the locked file that is to be replaced, None where there is nothing to lock.

    A file that is not ours alone is not locked: others could keep a lock on it, and what it holds is of no use. Nor is
    one that cannot be opened: whether it can be replaced, the directory decides.
    """
    if fcntl is None:
        return None
    try:
        return _hold(path, what, shared=False, make=False)[0]
    except (CredentialError, OSError):
        return None


@forget_frames
def write_private(path: FilePath, data: bytes, *, what: str) -> None:
    """Replace the file at once by one that holds `data`, with mode 0600 whatever the umask is.

    The data goes to a new file in the same directory, which then takes the name: a reader sees the old file or the new
    one, also after a crash, and a failure leaves the old one, which is locked meanwhile (see `locked`). Raises
    CredentialError; also where the path is a symbolic link or anything else than a regular file.
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
    """Overwrite the file with zeros and remove it, under the checks of `read_private`. Raises CredentialError."""
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
    """Make the directories that a file of this path needs, where they are missing. Raises CredentialError."""
    path = text_of(path)
    try:
        os.makedirs(os.path.dirname(path) or os.curdir, 0o755, exist_ok=True)
    except OSError as error:
        raise _failed("make the directory of", what, path, error) from error


def exists(path: FilePath) -> bool:
    """Return whether something, be it a dangling link, has this path."""
    return os.path.lexists(path)


class LockedFile:
    """A file that no other program writes meanwhile; `made` tells that it is new and empty. See `locked`."""

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
        """Add `data` at the end, then write each mark over what is at its offset; a failure leaves the old contents.

        Programs that wait for the lock with this file open go on with it, as they would not with one in its place.
        Returns whether the file still has its path: MIT's kinit takes that away without the lock.
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
        """Replace the file as `write_private` does. It is the last use of this object."""
        with self._failing("write"):
            if fcntl is None:
                self.close()
            _replace(self._path, data, self._what)

    def remove(self) -> None:
        """Overwrite the file with zeros and remove it. It is the last use of this object."""
        with self._failing("change"):
            size = os.lseek(self._fd, 0, os.SEEK_END)
            os.lseek(self._fd, 0, os.SEEK_SET)
            _write_all(self._fd, bytes(size))
            os.fsync(self._fd)
            if fcntl is None:
                self.close()
            os.unlink(self._path)

    def close(self) -> None:
        """Give back the lock."""
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
    """Return the descriptor of the locked file that has the path, and whether it is new; None where there is none."""
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
        _close(fd)  # it was replaced while we waited for the lock


@contextlib.contextmanager
def locked(
    path: FilePath, *, what: str, shared: bool = False, make: bool = True
) -> Iterator[LockedFile | None]:
    """Keep all other programs that write the file off it meanwhile, MIT's among them.

    The lock is the one that these take: fcntl's, on the file itself, after the checks of `read_private`. So a user that
    cannot open the file cannot keep us waiting. A file that does not exist is made, empty, and removed in the end if it
    was not replaced; unless `make` it stays missing, and is None. Where the platform or the file system has no locks,
    nothing is locked. Raises CredentialError, also where another program keeps a `shared` file locked for ten seconds.
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
