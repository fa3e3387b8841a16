"""The keys of a service in a file, as the file is at the time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from purekrb.credentials import files
from purekrb.credentials.defaults import keytab_name
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.errors import KerberosError
from purekrb.log import Log
from purekrb.system import fork_safe

__all__ = ["KeytabFile"]

log = Log("purekrb.http")


class KeytabFile:
    """An iterable of the entries of a keytab, which is read again once its file has changed.

    `path` is as for `Keytab.load`, whose errors the first reading raises. Later, while the file is
    missing, half-written or not trusted, the keys before stay in use, and the log tells why.
    """

    def __init__(self, path: files.FilePath | None = None) -> None:
        self._path = files.split_type(keytab_name(path).name)[1]
        self._lock = fork_safe(threading.Lock())
        self._seen = self._stamp()
        self._keytab = Keytab.load(self._path)

    def __iter__(self) -> Iterator[KeytabEntry]:
        if self._stamp() != self._seen:
            with self._lock:
                self._read_again()
        return iter(self._keytab)

    def _read_again(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:  # another thread was faster
            return
        self._seen = stamp
        try:
            self._keytab = Keytab.load(self._path)
        except KerberosError as error:
            log.warning("the keys read before stay in use: %s", error)
        else:
            log.debug("%s has changed: its keys are read again", self._path)

    def _stamp(self) -> tuple[int, ...] | None:
        """Return what changes with the file, or None if there is none."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
