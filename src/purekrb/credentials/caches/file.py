"""FILE:path: a ccache in a file, under the checks and locks of `files.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from purekrb.credentials import files
from purekrb.errors import CredentialError, DecodeError, UnsupportedError
from purekrb.system import pause, random_bytes
from purekrb.tracebacks import forget_frames

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

_WHAT = "credential cache"
#: How often a merge looks again, 10 ms later each time, for a file that MIT's kinit makes anew.
_ATTEMPTS = 100


def load(residual: str, decode: Callable[[bytes], CCache], *, foreign: bool = False) -> CCache:
    """Return the ccache in the file. DecodeError names the file."""
    if not files.exists(residual):
        raise CredentialError(
            f"there is no credential cache {residual}: "
            "get a ticket first (kinit), or set KRB5CCNAME to its name"
        )
    try:
        ccache = decode(files.read_private(residual, what=_WHAT, foreign=foreign))
    except DecodeError as error:
        raise DecodeError(f"{residual}: {error}") from error
    ccache._set_origin(residual)
    return ccache


def save(residual: str, ccache: CCache) -> None:
    """Replace the file atomically. The new one has mode 0600."""
    files.write_private(residual, ccache.encode(), what=_WHAT)


@forget_frames
def merge(residual: str, ccache: CCache) -> None:
    """Merge under the lock of the file that has this path when the merge ends.

    MIT's kinit takes no lock when it removes the file and makes it anew, empty at first. So a merge
    waits for a file that was there and is gone. To make it here would stop kinit, and would put
    back the former identity.
    """
    loaded = known = ccache._is_from(residual)
    for left in reversed(range(_ATTEMPTS)):
        with files.locked(residual, what=_WHAT, make=not (loaded or (known and left))) as file:
            data = b"" if file is None or file.made else file.read()
            if file is not None and data:
                if ccache._add_to_file(file, data, residual):
                    if loaded:
                        ccache._set_origin(residual)
                    return
            elif file is not None and (file.made or not (left or loaded)):
                file.replace(ccache.encode())
                return
        known = True
        pause(0.01)
    raise CredentialError(
        f"the credential cache {residual} was removed after its tickets were read: "
        "get a ticket first (kinit)"
    )


def destroy(residual: str) -> None:
    """Overwrite the file with zeros and remove it."""
    files.remove_private(residual, what=_WHAT)


def primary(residual: str) -> str:
    """Return the file itself: it is a collection of one."""
    return residual


def members(residual: str) -> list[str]:
    """Return the file, if it exists."""
    return [residual] if files.exists(residual) else []


def unique(residual: str) -> str:
    """Return the path of a new file beside this one."""
    return f"{residual}_{random_bytes(4).hex()}"


def switch(residual: str) -> None:
    """Raise UnsupportedError: KRB5CCNAME or krb5.conf chooses among files."""
    raise UnsupportedError(
        f"the file {residual} has no collection in which it could be the primary: "
        f"set KRB5CCNAME=FILE:{residual}, or keep the tickets in a DIR, KCM or KEYRING collection"
    )


def stamp(residual: str) -> object:
    """Return the stamp of the file."""
    return files.stamp(residual)


def unusable() -> str:
    """Return "": every machine has files."""
    return ""
