"""Several writes that succeed or fail together: after a failure, earlier writes are undone.

LDAP itself has no transactions across requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from purekrb.directory.ldap import OBJECT_NOT_FOUND
from purekrb.errors import DirectoryError, KerberosError, TransportError
from purekrb.log import Log

__all__ = ["Undo", "transaction"]

_log = Log("purekrb.directory")


class Undo:
    """The steps that undo the writes so far."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def add(self, what: str, step: Callable[[], object]) -> None:
        """Remember that `step` undoes the last write.

        `what` names the step in the log, as in "deleting CN=...".
        """
        self._steps.append((what, step))

    def write(self, write: Callable[[], object], what: str, step: Callable[[], object]) -> None:
        """Call `write`, and `add` the step that undoes it.

        If the connection breaks before the answer, the write may or may not have been done. So the
        step must do no harm if it was not.
        """
        try:
            write()
        except TransportError:
            self.add(what, step)
            raise
        self.add(what, step)

    def run(self) -> None:
        """Undo all writes, last first. If a step fails, log a warning and go on."""
        while self._steps:
            what, step = self._steps.pop()
            try:
                step()
            except KerberosError as error:
                if isinstance(error, DirectoryError) and error.code == OBJECT_NOT_FOUND:
                    _log.debug("nothing to undo, the object does not exist: %s", what)
                    continue
                _log.warning(
                    "%s, to undo an unfinished operation, has failed; do it by hand: %s",
                    what,
                    error,
                )
            else:
                _log.debug("undone: %s", what)


@contextmanager
def transaction() -> Iterator[Undo]:
    """Run the block. If it fails, undo all writes that it added to the Undo; raise its error."""
    undo = Undo()
    try:
        yield undo
    except BaseException:
        undo.run()
        raise
