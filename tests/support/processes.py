"""Child processes by fork(), for tests of what processes share."""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable

__all__ = ["Child", "in_children", "soak"]

#: Seconds after which a child that hangs is killed.
_PATIENCE = 60


def soak(count: int, full: int) -> int:
    """Return how often to do something: `count`, or `full` with PUREKRB_SOAK=1."""
    return full if os.environ.get("PUREKRB_SOAK") == "1" else count


class Child:
    """A forked process that runs `job` with a descriptor to write its findings to."""

    def __init__(self, job: Callable[[int], None]) -> None:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # about threads: the jobs take none of their locks
            self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                signal.alarm(_PATIENCE)
                os.close(reader)
                job(writer)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writer)
        self._reader = reader
        self._status: int | None = None

    def kill(self) -> None:
        """Kill it as kill -9 does."""
        os.kill(self.pid, signal.SIGKILL)

    def output(self) -> bytes:
        """Return all that it wrote, once it has ended."""
        data = b""
        while piece := os.read(self._reader, 65536):
            data += piece
        os.close(self._reader)
        self._status = os.waitpid(self.pid, 0)[1]
        return data

    @property
    def ended_well(self) -> bool:
        """Whether its job returned; call `output` first."""
        return self._status == 0


def in_children(count: int, job: Callable[[int], bytes]) -> list[bytes]:
    """Return what `job(number)` returns in each of `count` processes that start it at the same time."""
    start = time.time() + 0.05

    def run(number: int, writer: int) -> None:
        time.sleep(max(0, start - time.time()))
        result = job(number)
        while result:
            result = result[os.write(writer, result) :]

    children = [Child(lambda writer, number=number: run(number, writer)) for number in range(count)]  # type: ignore[misc]
    results = [child.output() for child in children]
    assert all(child.ended_well for child in children), "a child failed: see its traceback"
    return results
