"""DIR:directory and DIR::path: ccaches as files of one directory.

The name of the directory stands for its primary ccache. The file `primary` in it names that one;
without this file it is `tkt`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from purekrb.credentials import files
from purekrb.credentials.caches import file
from purekrb.errors import DecodeError

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache

__all__ = ["destroy", "load", "merge", "save"]


def load(residual: str, decode: Callable[[bytes], CCache]) -> CCache:
    """Return the ccache in the file that the name stands for."""
    return file.load(_path(residual), decode)


def save(residual: str, ccache: CCache) -> None:
    """Replace the file that the name stands for."""
    file.save(_path(residual), ccache)


def merge(residual: str, ccache: CCache) -> None:
    """Merge into the file that the name stands for."""
    file.merge(_path(residual), ccache)


def destroy(residual: str) -> None:
    """Remove the file that the name stands for; the file `primary` stays."""
    file.destroy(_path(residual))


def _path(residual: str) -> str:
    """Return the path of the ccache that a DIR name stands for."""
    if residual.startswith(":"):
        return residual[1:]
    pointer = os.path.join(residual, "primary")
    name = "tkt"
    if files.exists(pointer):
        name = os.fsdecode(
            files.read_private(pointer, what="primary file of the credential caches", max_size=4096)
        )
        name = name.rstrip("\n")
    if not name.startswith("tkt") or "/" in name or os.path.basename(name) != name or "\0" in name:
        raise DecodeError(
            f"{pointer} does not name a credential cache beside it: "
            "expected a file name that begins with tkt"
        )
    return os.path.join(residual, name)
