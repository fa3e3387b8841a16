"""The channel bindings of the service's own TLS certificates, read from their files."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from purekrb.errors import ConfigError
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.log import Log
from purekrb.system import fork_safe

__all__ = ["Certificates", "bindings_of_pem"]

log = Log("purekrb.http")
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Certificates:
    """The certificates that TLS in front of a service may show; PEM files, the first of each counts.

    A file that changes is read again. The certificate before stays valid, since what ends TLS may
    still show it.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self._paths = [Path(path) for path in paths]
        self._lock = fork_safe(threading.Lock())
        self._stamps: dict[Path, tuple[int, int, int]] = {}
        self._current: dict[Path, ChannelBindings] = {}
        self._former: dict[Path, ChannelBindings] = {}
        for path in self._paths:
            self._read(path)

    def bindings(self) -> tuple[ChannelBindings, ...]:
        """Return the bindings that a client may send, the most likely first."""
        with self._lock:
            for path in self._paths:
                try:
                    self._read(path)
                except ConfigError as error:
                    log.warning("the certificate read before stays in use: %s", error)
            return (*self._current.values(), *self._former.values())

    def _read(self, path: Path) -> None:
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if self._stamps.get(path) == stamp:
                return
            self._stamps[path] = stamp
            bindings = bindings_of_pem(path.read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"the certificate {path} cannot be read: {error}") from None
        if path in self._current and self._current[path] != bindings:
            self._former[path] = self._current[path]
        self._current[path] = bindings


def bindings_of_pem(text: str) -> ChannelBindings:
    """Return the bindings to the first certificate of PEM text.

    Raises ValueError if there is none, and UnsupportedError if its signature has no hash function.
    """
    import ssl

    start, end = text.find(_BEGIN), text.find(_END)
    if not 0 <= start < end:
        raise ValueError("it holds no certificate in PEM")
    der = ssl.PEM_cert_to_DER_cert(text[start : end + len(_END)])
    return ChannelBindings.tls_server_end_point(der)
