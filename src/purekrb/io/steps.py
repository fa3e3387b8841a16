"""Steps: generators that work on non-blocking sockets and yield what they wait for.

`drive` of blocking.py or of asyncio.py runs them. A blocking function is one step: it runs in a
thread.
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
    """Go on when a socket of `reading` or `writing` is ready, or at `until` (`time.monotonic`)."""

    reading: list[socket.socket]
    writing: list[socket.socket]
    until: float


#: Yields what to wait for, is sent the ready sockets, returns a T.
Steps = Generator[Wait, Collection[socket.socket], T]


def in_thread(
    function: Callable[[], T], deadline: float, clock: Callable[[], float], late: str
) -> Steps[T]:
    """Return what the blocking `function` returns, which runs in a thread of its own.

    Raises TransportTimeoutError, with the text `late`, at the deadline. After it, `function` is not
    started.
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
    """Return what `function`, which asks DNS for `what`, returns; it runs in a thread."""
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
            raise TransportError(f"no socket to wait for a thread: {error.strerror}") from error
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
        """Return or raise what the call did, once `socket` is readable."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set, as there was no error

    def close(self) -> None:
        """Stop waiting; the call ends by itself."""
        self.socket.close()
