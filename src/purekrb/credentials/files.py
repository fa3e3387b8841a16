"""Files that hold secrets: opened so that nothing can be slipped in, replaced so that nothing is lost.

The only module of the package, besides `purekrb.replay.sqlite`, that opens files. All checks are made on the open
descriptor, never on the path, so that a file swapped in between gains nothing. Where the platform has no O_NOFOLLOW,
owners or modes (Windows), the checks that it can do remain.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from purekrb.errors import CredentialError
from purekrb.secrecy import forget_frames
from purekrb.system import random_bytes
from purekrb.trace import Log

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FilePath",
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
_FLAGS = _NOFOLLOW | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))

_REMEDIES = {
    errno.ENOENT: "there is no such file or directory: check the path",
    errno.ELOOP: "it is a symbolic link, which is not followed: name the file that it points to",
    errno.EACCES: "permission denied: run as the owner of the file, or have it given to you",
    errno.EPERM: "permission denied: run as the owner of the file, or have it given to you",
    errno.ENOSPC: "the disk is full: free some space and try again",
    errno.EDQUOT: "the disk quota is used up: free some space and try again",
    errno.EFBIG: "the file size limit is reached: raise it (ulimit -f) and try again",
    errno.EROFS: "the file system is read-only: choose another place",
}
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)

_log = Log("purekrb.credentials")


def text_of(path: FilePath) -> str:
    """Return a path as text. Raises TypeError for bytes, which may be a file's contents: errors quote paths."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError("a path is text or a pathlib.Path, not bytes; the bytes of a file are read by `decode`")
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
        raise CredentialError(f"refused the {what} {path}: it is {kind}, not a regular file; name the file itself")


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


@contextlib.contextmanager
def _opened(path: str, flags: int, what: str, *, shared: bool) -> Iterator[int]:
    """Open an existing file, check it and give its descriptor; turn every OSError into a CredentialError."""
    action = "read" if flags == os.O_RDONLY else "change"
    try:
        if not _NOFOLLOW and os.path.islink(path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        fd = os.open(path, flags | _FLAGS)
        try:
            _check(os.fstat(fd), what, path, shared=shared)
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        raise _failed(action, what, path, error) from error


@forget_frames
def read_private(path: FilePath, *, what: str, shared: bool = False, max_size: int = MAX_SIZE) -> bytes:
    """Return the contents of a file that holds secrets.

    It must be a regular file, no symbolic link, of at most `max_size` bytes. Unless `shared`, it must be ours with one
    hard link and no access for others. A `shared` file (a keytab) may also be root's and readable by others, of which
    the log warns, but not writable by them. `what` names the file in the CredentialError that tells what is wrong.
    """
    path = text_of(path)
    with _opened(path, os.O_RDONLY, what, shared=shared) as fd:
        parts = []
        size = 0
        while size <= max_size and (part := os.read(fd, max_size + 1 - size)):
            parts.append(part)
            size += len(part)
    if size > max_size:
        raise CredentialError(f"refused the {what} {path}: it is larger than {max_size} bytes; is it the right file?")
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


@forget_frames
def write_private(path: FilePath, data: bytes, *, what: str) -> None:
    """Replace the file at once by one that holds `data`, with mode 0600 whatever the umask is.

    The data goes to a new file in the same directory, which then takes the name: a reader sees the old file or the new
    one, also after a crash, and a failure leaves the old one. Raises CredentialError; also where the path is a symbolic
    link or anything else than a regular file.
    """
    path = text_of(path)
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{random_bytes(8).hex()}")
    try:
        with contextlib.suppress(FileNotFoundError):
            _check_regular(os.lstat(path).st_mode, what, path)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        try:
            try:
                if hasattr(os, "fchmod"):
                    os.fchmod(fd, 0o600)  # the umask may have taken from it
                _write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _failed("write", what, path, error) from error
    _sync_directory(directory or os.curdir)
    _log.debug("wrote the %s %s: %d bytes", what, path, len(data))


def remove_private(path: FilePath, *, what: str, shared: bool = False) -> None:
    """Overwrite the file with zeros and remove it, under the checks of `read_private`. Raises CredentialError."""
    path = text_of(path)
    with _opened(path, os.O_RDWR, what, shared=shared) as fd:
        _write_all(fd, bytes(os.fstat(fd).st_size))
        os.fsync(fd)
        os.unlink(path)
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


@contextlib.contextmanager
def locked(path: FilePath, *, what: str) -> Iterator[None]:
    """Keep all other users of `locked`, in this and other processes, off the same path meanwhile.

    The lock is on `path` + ".lock", since the file itself is replaced by every write. Where the platform has no flock,
    nothing is locked.
    """
    lock = f"{text_of(path)}.lock"
    if fcntl is None:
        yield
        return
    while True:
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        except OSError as error:
            raise _failed("make", f"lock of the {what}", lock, error) from error
        try:
            _check(os.fstat(fd), f"lock of the {what}", lock, shared=False)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:  # else its last holder has removed it, and others lock a new one
                try:
                    yield
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(lock)
                return
        finally:
            os.close(fd)
