"""The blocking runner of attempts.py."""

from __future__ import annotations

import selectors
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
    try:
        with selectors.DefaultSelector() as selector:
            for sock in wait.reading:
                selector.register(sock, selectors.EVENT_READ)
            for sock in wait.writing:
                selector.register(sock, selectors.EVENT_WRITE)
            events = selector.select(max(wait.until - time.monotonic(), 0))
    except OSError as error:  # the process has no descriptor left
        raise TransportError(f"cannot wait for a KDC: {error.strerror}") from error
    return [key.fileobj for key, _ in events]  # type: ignore[misc]  # sockets are what was registered
