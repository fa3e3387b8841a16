"""The log of the clients that a server has refused.

A cause on the server's own side refuses every client, and none of them may be told more than a
code. So it goes to the log at WARNING, once a minute for each cause. What a client does wrong goes
there at DEBUG: whoever may connect could fill the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from purekrb.constants import ErrorCode
from purekrb.errors import ApError, ConfigError, CredentialError, KerberosError
from purekrb.log import Log
from purekrb.system import fork_safe

__all__ = ["INTERVAL", "Refusals", "is_own_fault"]

#: Seconds between two warnings of one cause.
INTERVAL = 60.0
#: Codes that mean: the keys, the clock or the replay cache of the service, not the client's message.
_OWN_FAULTS = frozenset(
    (
        ErrorCode.KDC_ERR_ETYPE_NOSUPP,
        ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
        ErrorCode.KRB_AP_ERR_TKT_EXPIRED,
        ErrorCode.KRB_AP_ERR_TKT_NYV,
        ErrorCode.KRB_AP_ERR_NOT_US,
        ErrorCode.KRB_AP_ERR_SKEW,
        ErrorCode.KRB_AP_ERR_BADKEYVER,
        ErrorCode.KRB_AP_ERR_NOKEY,
        ErrorCode.KRB_ERR_GENERIC,
    )
)


def is_own_fault(error: KerberosError) -> bool:
    """Return whether the cause of a refusal is probably on the service's side."""
    if isinstance(error, ApError):
        return error.code in _OWN_FAULTS
    return isinstance(error, (CredentialError, ConfigError))


class Refusals:
    """The refusals of one server; `log` takes them. Several threads may report."""

    def __init__(self, log: Log, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._monotonic = monotonic
        self._lock = fork_safe(threading.Lock())
        #: Cause -> when it was last warned of, and how often it was met since. It has as many
        #: entries as there are causes.
        self._causes: dict[object, tuple[float, int]] = {}

    def report(self, peer: object, error: Exception) -> None:
        """Log why the client at `peer` was refused."""
        if not isinstance(error, KerberosError):
            self._log.error("%s was refused because of an unexpected error", peer, exc_info=error)
            return
        silent = self._silent_since(error) if is_own_fault(error) else None
        if silent is None:
            self._log.debug("%s was refused: %s", peer, error)
            return
        more = (
            f" ({silent} more were refused for this cause since the last warning)" if silent else ""
        )
        self._log.warning("%s was refused: %s%s", peer, error, more)

    def _silent_since(self, error: KerberosError) -> int | None:
        """Return how many refusals of this cause were not warned of; None if it is not yet time."""
        cause = (type(error), getattr(error, "code", None))
        now = self._monotonic()
        with self._lock:
            last, silent = self._causes.get(cause, (now - INTERVAL, 0))
            due = now - last >= INTERVAL
            self._causes[cause] = (now, 0) if due else (last, silent + 1)
        return silent if due else None
