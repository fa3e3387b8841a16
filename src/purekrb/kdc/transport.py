"""The blocking runner of attempts.py."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Collection
from typing import TypeVar

from purekrb.errors import TransportError
from purekrb.kdc.attempts import Steps, Wait, ask
from purekrb.kdc.locate import Locator

__all__ = ["drive", "send"]

T = TypeVar("T")


def send(locator: Locator, realm: str, message: bytes, deadline: float) -> bytes:
    """Return the reply of some KDC of `realm` to `message`; `deadline` is `time.monotonic`'s.

    Raises ConfigError, UnsupportedError, TransportError or TransportTimeoutError.
    """
    return drive(ask(locator, realm, message, deadline, clock=time.monotonic)).reply


def drive(steps: Steps[T]) -> T:
    """Return what `steps` returns, waiting wherever it asks for that."""
    try:
        wait = next(steps)
        while True:
            wait = steps.send(wait_ready(wait))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        steps.close()


def wait_ready(wait: Wait) -> Collection[socket.socket]:
    """Return the sockets that are ready, waiting until one is or the time is over."""
    seconds = max(wait.until - time.monotonic(), 0)
    try:
        if not hasattr(select, "poll"):  # Windows, where a refused connection is neither readable nor writable
            reading, writing, failed = select.select(wait.reading, wait.writing, wait.writing, seconds)
            return {*reading, *writing, *failed}
        poll = select.poll()  # it takes no descriptor and two system calls less than a selector
        for sock in wait.reading:
            poll.register(sock, select.POLLIN)
        for sock in wait.writing:
            poll.register(sock, select.POLLOUT)
        ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
    except OSError as error:
        raise TransportError(f"cannot wait for a KDC: {error.strerror}") from error
    return [sock for sock in (*wait.reading, *wait.writing) if sock.fileno() in ready]
