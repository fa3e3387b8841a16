"""The driver of steps on an asyncio event loop."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any, TypeVar

from purekrb.io.blocking import wait_ready
from purekrb.io.steps import Steps, Wait

__all__ = ["call", "drive"]

T = TypeVar("T")

#: Seconds between two polls of the sockets, if the loop cannot tell when they are ready.
_POLL = 0.01


async def drive(steps: Steps[T]) -> T:
    """Run `steps` and return their result; wait whenever they yield a `Wait`."""
    try:
        wait = next(steps)
        while True:
            try:
                ready = await _wait_ready(wait)
            except NotImplementedError:  # Windows' proactor loop
                ready = await _poll(wait)
            wait = steps.send(ready)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        steps.close()


async def _wait_ready(wait: Wait) -> Collection[socket.socket]:
    loop = asyncio.get_running_loop()
    ready: list[socket.socket] = []
    woken = asyncio.Event()

    def wake(sock: socket.socket) -> None:
        ready.append(sock)
        woken.set()

    with ExitStack() as undo:
        undo.callback(loop.call_later(max(wait.until - time.monotonic(), 0), woken.set).cancel)
        for sock in wait.reading:
            loop.add_reader(sock, wake, sock)
            undo.callback(loop.remove_reader, sock)
        for sock in wait.writing:
            loop.add_writer(sock, wake, sock)
            undo.callback(loop.remove_writer, sock)
        await woken.wait()
    return ready


async def _poll(wait: Wait) -> Collection[socket.socket]:
    """Do the same on a loop that cannot tell when a socket is ready."""
    while True:
        ready = wait_ready(wait._replace(until=0.0))
        if ready or time.monotonic() >= wait.until:
            return ready
        await asyncio.sleep(_POLL)


async def call(function: Callable[[Any], Any], argument: object) -> Any:
    """Return what `function` returns: a coroutine function is awaited, a plain one runs in a thread."""
    if inspect.iscoroutinefunction(function):
        result = function(argument)
    else:
        result = await asyncio.to_thread(function, argument)
    return await result if inspect.isawaitable(result) else result
