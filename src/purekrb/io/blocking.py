"""The driver of steps in the calling thread."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Collection
from typing import TypeVar

from purekrb.errors import TransportError
from purekrb.io.steps import Steps, Wait

__all__ = ["drive", "wait_ready"]

T = TypeVar("T")


def drive(steps: Steps[T]) -> T:
    """Run `steps` and return their result; wait whenever they yield a `Wait`."""
    try:
        wait = next(steps)
        while True:
            wait = steps.send(wait_ready(wait))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def wait_ready(wait: Wait) -> Collection[socket.socket]:
    """Return the sockets that are ready; wait until one is, or the time is over."""
    seconds = max(wait.until - time.monotonic(), 0)
    try:
        # On Windows a refused connection is neither readable nor writable.
        if not hasattr(select, "poll"):
            reading, writing, failed = select.select(
                wait.reading, wait.writing, wait.writing, seconds
            )
            return {*reading, *writing, *failed}
        poll = select.poll()  # a selector would take a descriptor and two more system calls
        for sock in wait.reading:
            poll.register(sock, select.POLLIN)
        for sock in wait.writing:
            poll.register(sock, select.POLLOUT)
        ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
    except OSError as error:
        raise TransportError(f"cannot wait for a connection: {error.strerror}") from error
    return [sock for sock in (*wait.reading, *wait.writing) if sock.fileno() in ready]
