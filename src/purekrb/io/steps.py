"""Steps: generators that work on non-blocking sockets and yield what they wait for.

`drive` in blocking.py or in asyncio.py runs them. A blocking function becomes one step that waits
for a thread.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Generator
from typing import Generic, NamedTuple, TypeVar

from purekrb.errors import TransportError, TransportTimeoutError

__all__ = ["Steps", "ThreadCall", "Wait", "in_thread", "look_up"]

T = TypeVar("T")


class Wait(NamedTuple):
    """Wait for a socket of `reading` or `writing` to be ready, but not longer than `until`.

    `until` is `time.monotonic`'s.
    """

    reading: list[socket.socket]
    writing: list[socket.socket]
    until: float


#: Yields what to wait for, is sent the ready sockets, and returns a T.
Steps = Generator[Wait, Collection[socket.socket], T]


def in_thread(
    function: Callable[[], T], deadline: float, clock: Callable[[], float], late: str
) -> Steps[T]:
    """Run the blocking `function` in a thread of its own and return its result.

    Raises TransportTimeoutError, with the text `late`, at the deadline. If the deadline has passed
    already, `function` is not started.
    """
    if clock() >= deadline:
        raise TransportTimeoutError(late)
    call = ThreadCall(function)
    try:
        while call.socket not in (yield Wait([call.socket], [], deadline)):
            if clock() >= deadline:
                raise TransportTimeoutError(late)
        return call.result()
    finally:
        call.close()


def look_up(
    function: Callable[[], T], deadline: float, clock: Callable[[], float], what: str
) -> Steps[T]:
    """Run `function`, which asks DNS for `what`, in a thread and return its result."""
    late = f"DNS did not name {what} before the deadline: check the resolver"
    return in_thread(function, deadline, clock, late)


class ThreadCall(Generic[T]):
    """A blocking call in a daemon thread; `socket` becomes readable when it is done.

    Neither the system's resolver nor PBKDF2 can be stopped. A late call is left alone: it ends by
    itself.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        try:
            self.socket, self._signal = socket.socketpair()
        except OSError as error:
            raise TransportError(
                f"cannot create a socket to wait for a thread: {error.strerror}"
            ) from error
        self._function = function
        self._value: T | None = None
        self._error: BaseException | None = None
        try:
            threading.Thread(target=self._run, name="purekrb-in-thread", daemon=True).start()
        except RuntimeError as error:
            self.socket.close()
            self._signal.close()
            raise TransportError(
                f"no thread could be started ({error}): raise the limit of threads"
            ) from error

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error
        finally:
            self._signal.close()

    def result(self) -> T:
        """Return the result of the call, or raise its error, once `socket` is readable."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set, because there was no error

    def close(self) -> None:
        """Stop waiting; the call ends by itself."""
        self.socket.close()
