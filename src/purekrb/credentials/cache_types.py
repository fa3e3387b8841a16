"""The types of credential caches, by the prefix of a name. A name is `TYPE:residual`.

A ccache belongs to a collection: that of a directory, of a daemon, of a keyring. A collection has a
name, too, which stands for its primary ccache. A file is a collection of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from purekrb.credentials import files
from purekrb.credentials.caches import directory, file, memory
from purekrb.errors import UnsupportedError

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache

__all__ = ["CACHE_TYPES", "CacheType", "resolve"]


class CacheType(Protocol):
    """Where the ccaches of one type are kept.

    Each function takes the residual of a name, and raises a KerberosError if it fails:
    CredentialError if there is no such ccache. The first four get the residual of one ccache, the
    others that of a collection, or of a ccache in it.
    """

    def load(
        self, residual: str, decode: Callable[[bytes], CCache], *, foreign: bool = False
    ) -> CCache:
        """Return the ccache of this name. `decode` reads the file format.

        With `foreign`, it may be a file of another user.
        """

    def save(self, residual: str, ccache: CCache) -> None:
        """Replace the ccache of this name by `ccache`."""

    def merge(self, residual: str, ccache: CCache) -> None:
        """Add what `ccache` holds to the ccache of this name, or make it: `CCache.merge_into`."""

    def destroy(self, residual: str) -> None:
        """Remove the ccache of this name."""

    def primary(self, residual: str) -> str:
        """Return the ccache that a collection stands for, whether it exists or not.

        The residual of a ccache is returned as it is.
        """

    def members(self, residual: str) -> list[str]:
        """Return the ccaches that exist, the primary first. A ccache has itself alone."""

    def unique(self, residual: str) -> str:
        """Return the name of a new ccache beside the others."""

    def switch(self, residual: str) -> None:
        """Make this ccache the primary of its collection."""

    def stamp(self, residual: str) -> object:
        """Return a value that changes when the ccache does; None if it must be read to know."""

    def unusable(self) -> str:
        """Return why this machine cannot have such ccaches; "" if it can."""


def _kcm() -> CacheType:
    from purekrb.credentials.caches import kcm

    return kcm


def _keyring() -> CacheType:
    from purekrb.credentials.caches import keyring

    return keyring


#: The types by the prefix of a name, in capitals; a function loads one on demand. A name without a
#: prefix is a FILE.
CACHE_TYPES: dict[str, CacheType | Callable[[], CacheType]] = {
    "FILE": file,
    "MEMORY": memory,
    "DIR": directory,
    "KCM": _kcm,
    "KEYRING": _keyring,
}

_INSTEAD = "use a file: export KRB5CCNAME=FILE:/path and get the tickets again (kinit)"
#: What other programs have -> why purekrb does not, and what to do.
_REFUSED = {
    "API": "credential caches of type API belong to the Kerberos library of macOS or Windows, "
    f"which purekrb does not call; {_INSTEAD}",
    "MSLSA": "credential caches of type MSLSA are the tickets of a Windows logon, which only "
    f"Windows' own functions read; {_INSTEAD}",
}


def resolve(name: files.FilePath) -> tuple[str, CacheType, str]:
    """Return the type of a ccache by its name: prefix, functions; and the name without the type.

    Raises UnsupportedError for a type that purekrb does not have, and TypeError for bytes.
    """
    prefix, residual = "FILE", name
    if isinstance(name, str):
        prefix, residual = files.split_type(name)
    cache_type = CACHE_TYPES.get(prefix)
    if cache_type is None:
        raise UnsupportedError(
            _REFUSED.get(prefix)
            or f"credential caches of type {prefix} are not known: the types are "
            f"{', '.join(CACHE_TYPES)}; {_INSTEAD}"
        )
    if callable(cache_type):
        cache_type = CACHE_TYPES[prefix] = cache_type()
    return prefix, cache_type, files.text_of(residual)
