"""Several writes that succeed or fail together, though LDAP has no transactions: what was done is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from purekrb.directory.ldap import OBJECT_NOT_FOUND
from purekrb.errors import DirectoryError, KerberosError, TransportError
from purekrb.log import Log

__all__ = ["Undo", "transaction"]

_log = Log("purekrb.directory")


class Undo:
    """What undoes the writes so far."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def add(self, what: str, step: Callable[[], object]) -> None:
        """Remember that `step` undoes the last write; `what` names it for the log, as in "deleting CN=..."."""
        self._steps.append((what, step))

    def write(self, write: Callable[[], object], what: str, step: Callable[[], object]) -> None:
        """Call `write`, and `add` what undoes it, which must do no harm where it was not done.

        For where the connection is lost before the answer, nobody knows whether it was.
        """
        try:
            write()
        except TransportError:
            self.add(what, step)
            raise
        self.add(what, step)

    def run(self) -> None:
        """Undo all writes, the last first. A step that fails is logged as a warning, and does not stop the others."""
        while self._steps:
            what, step = self._steps.pop()
            try:
                step()
            except KerberosError as error:
                if isinstance(error, DirectoryError) and error.code == OBJECT_NOT_FOUND:
                    _log.debug("nothing to undo, it is not there: %s", what)
                    continue
                _log.warning(
                    "%s, to undo what was begun, has failed; do it by hand: %s", what, error
                )
            else:
                _log.debug("undone: %s", what)


@contextmanager
def transaction() -> Iterator[Undo]:
    """Run the block; where it fails, undo all writes that it has added to the Undo, and raise its error."""
    undo = Undo()
    try:
        yield undo
    except BaseException:
        undo.run()
        raise
