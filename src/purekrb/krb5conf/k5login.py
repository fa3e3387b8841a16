"""The file .k5login: which principals may act as a local user, by that user's own word.

Source: MIT .k5login(5); krb5.conf(5), "k5login_directory", "k5login_authoritative".
"""

from __future__ import annotations

import os
import stat

from purekrb.errors import ConfigError
from purekrb.krb5conf.profile import read_up_to
from purekrb.log import Log
from purekrb.names import Principal

__all__ = ["is_listed", "k5login_of"]

log = Log("purekrb.kdc")

#: Far above any real one.
MAX_SIZE = 1 << 20


def k5login_of(user: str, directory: str | None) -> tuple[str, int] | None:
    """Return the path of a local user's .k5login, and the user's number; None if there is no such user.

    With `directory`, the file has the user's name and stands there; otherwise it is in the home directory.
    """
    if "/" in user or user in ("", ".", "..") or not user.isprintable():
        return None
    try:
        import pwd
    except ImportError:  # Windows
        raise ConfigError("this system has no local users in the sense of .k5login") from None
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return None
    path = os.path.join(directory, user) if directory else os.path.join(account.pw_dir, ".k5login")
    return path, account.pw_uid


def is_listed(principal: Principal, path: str, owner: int) -> bool | None:
    """Return whether the file at `path` lists `principal`; None if there is no such file.

    It lists nobody if it does not belong to `owner` or root, if others may write to it, if it is not a
    regular file, or if it cannot be read.
    """
    try:
        # A FIFO would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning("%s: %s, so it lists nobody", path, error.strerror)
        return False
    try:
        reason = _distrust(os.fstat(descriptor), owner)
        if reason:
            log.warning("%s: %s, so it lists nobody", path, reason)
            return False
        lines = read_up_to(descriptor, MAX_SIZE).split(b"\n")
    except OSError as error:
        log.warning("%s: %s, so it lists nobody", path, error.strerror)
        return False
    finally:
        os.close(descriptor)
    return str(principal).encode("utf-8", "surrogateescape") in lines


def _distrust(found: os.stat_result, owner: int) -> str:
    """Return why a file is not believed, or ""."""
    if not stat.S_ISREG(found.st_mode):
        return "it is not a regular file"
    if found.st_uid not in (owner, 0):
        return f"it belongs to uid {found.st_uid}, and neither to uid {owner} nor to root"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(found.st_mode):04o}): chmod go-w"
    if found.st_size > MAX_SIZE:
        return f"it has more than {MAX_SIZE} bytes"
    return ""
