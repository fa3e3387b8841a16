"""DIR:directory and DIR::path: ccaches as files of one directory.

The name of the directory stands for its primary ccache. The file `primary` in it names that one;
without this file it is `tkt`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from purekrb.credentials import files
from purekrb.credentials.caches import file
from purekrb.errors import DecodeError
from purekrb.system import random_bytes

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache

__all__ = [
    "destroy",
    "load",
    "members",
    "merge",
    "primary",
    "save",
    "stamp",
    "switch",
    "unique",
    "unusable",
]

#: MIT adds six letters and digits. A name with a dot is a lock or a copy.
_MEMBER = re.compile(r"tkt[A-Za-z0-9_-]*")
_WHAT = "directory of credential caches"
_POINTER = "primary file of the credential caches"


def load(residual: str, decode: Callable[[bytes], CCache], *, foreign: bool = False) -> CCache:
    """Return the ccache in the file."""
    return file.load(residual[1:], decode, foreign=foreign)


def save(residual: str, ccache: CCache) -> None:
    """Replace the file. The directory is made if only it is missing."""
    _make_directory(residual)
    file.save(residual[1:], ccache)


def merge(residual: str, ccache: CCache) -> None:
    """Merge into the file."""
    _make_directory(residual)
    file.merge(residual[1:], ccache)


def destroy(residual: str) -> None:
    """Remove the file; the file `primary` stays."""
    file.destroy(residual[1:])


def primary(residual: str) -> str:
    """Return ":path" of the ccache that the directory stands for."""
    if residual.startswith(":"):
        return residual
    pointer = os.path.join(residual, "primary")
    name = "tkt"
    if files.exists(pointer):
        name = os.fsdecode(files.read_private(pointer, what=_POINTER, max_size=4096))
        name = name.rstrip("\n")
    if not name.startswith("tkt") or "/" in name or os.path.basename(name) != name or "\0" in name:
        raise DecodeError(
            f"{pointer} does not name a credential cache beside it: "
            "expected a file name that begins with tkt"
        )
    return f":{os.path.join(residual, name)}"


def members(residual: str) -> list[str]:
    """Return ":path" of each ccache in the directory, the primary first."""
    if residual.startswith(":"):
        return [residual] if files.exists(residual[1:]) else []
    names = [name for name in files.names_in(residual, what=_WHAT) if _MEMBER.fullmatch(name)]
    paths = [f":{os.path.join(residual, name)}" for name in sorted(names)]
    first = primary(residual)
    return sorted(paths, key=lambda path: path != first)


def unique(residual: str) -> str:
    """Return ":path" of a new file in the directory."""
    directory = os.path.dirname(residual[1:]) if residual.startswith(":") else residual
    return f":{os.path.join(directory, f'tkt{random_bytes(4).hex()}')}"


def switch(residual: str) -> None:
    """Write the name of the file into the file `primary`."""
    directory, name = os.path.split(primary(residual)[1:])
    files.write_private(os.path.join(directory, "primary"), os.fsencode(f"{name}\n"), what=_POINTER)


def stamp(residual: str) -> object:
    """Return the stamp of the file."""
    return file.stamp(residual[1:])


def unusable() -> str:
    """Return "": every machine has directories."""
    return ""


def _make_directory(residual: str) -> None:
    files.make_private_directory(os.path.dirname(residual[1:]), what=_WHAT)
