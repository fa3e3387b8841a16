"""Whether the file of a replay cache is this user's alone, and its directory safe."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["check_directories", "check_file"]

_OTHERS_WRITE = 0o022


def check_file(info: os.stat_result, what: str) -> None:
    """Raise OSError unless `info` is of a regular file that only this user can write."""
    if not stat.S_ISREG(info.st_mode):
        raise OSError(f"{what} is not a regular file")
    if hasattr(os, "geteuid") and info.st_uid != os.geteuid():
        raise OSError(f"{what} belongs to user {info.st_uid}")
    if hasattr(os, "geteuid") and info.st_mode & _OTHERS_WRITE:
        raise OSError(f"others can write to {what}")


def check_directories(directory: Path, *, sticky: bool = False) -> None:
    """Raise OSError if others could replace a file in `directory`, or the directory itself.

    They can if they may write to the directory or to one above it, unless that one is sticky. They
    can then still make new files; so with `sticky` false, `directory` itself must not be writable
    for them.
    """
    if not hasattr(os, "geteuid"):
        return
    for place in (directory, *directory.parents):
        info = os.lstat(place)
        if info.st_uid not in (0, os.geteuid()):
            raise OSError(f"the directory {place} belongs to user {info.st_uid}")
        suffices = sticky or place != directory
        if info.st_mode & _OTHERS_WRITE and not (suffices and info.st_mode & stat.S_ISVTX):
            raise OSError(f"others can write to the directory {place}")
