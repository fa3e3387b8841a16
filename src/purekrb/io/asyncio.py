"""The driver of steps on an asyncio event loop, and connections that a caller's coroutine opens."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

from purekrb.io.blocking import wait_ready
from purekrb.io.dial import Dial, Unclaimed, failure, stream_socket
from purekrb.io.steps import Steps, Wait

__all__ = ["OpenConnection", "call", "drive", "in_task"]

#: Host and port -> a connected socket, or streams as those of `asyncio.open_connection`.
OpenConnection = Callable[
    [str, int], Awaitable["socket.socket | tuple[asyncio.StreamReader, asyncio.StreamWriter]"]
]

T = TypeVar("T")

#: Seconds between two polls of the sockets, if the loop cannot tell when they are ready.
_POLL = 0.01
_READ_SIZE = 65536
#: The tasks that pass bytes on; the loop itself holds them only weakly.
_relays: set[asyncio.Task[None]] = set()


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


def in_task(open_connection: OpenConnection) -> Dial:
    """Return what awaits `open_connection` in a task of the running loop."""
    return lambda host, port, _timeout: _InTask(open_connection, host, port)


class _InTask:
    """A connection that is being opened; see `purekrb.io.dial.Dialing`. Closing it cancels the task."""

    def __init__(self, open_connection: OpenConnection, host: str, port: int) -> None:
        self.socket, self._signal = socket.socketpair()
        self._unclaimed = Unclaimed()
        self._error: Exception | None = None
        opening = self._open(open_connection, host, port)
        self._task = asyncio.get_running_loop().create_task(opening)

    async def _open(self, open_connection: OpenConnection, host: str, port: int) -> None:
        try:
            try:
                opened: Any = await open_connection(host, port)
            except Exception as error:
                raise failure(error) from error
            if isinstance(opened, tuple) and len(opened) == 2:
                opened = _relayed(*opened)
            self._unclaimed.put(stream_socket(opened))
        except Exception as error:
            self._error = error
        finally:
            self._signal.close()

    def result(self) -> socket.socket:
        if self._error is not None:
            raise self._error
        return self._unclaimed.take()

    def close(self) -> None:
        self._task.cancel()
        self.socket.close()
        self._signal.close()
        self._unclaimed.close()


def _relayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> socket.socket:
    """Return a socket whose bytes two tasks pass to and from the streams, until it is closed."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    inward = loop.create_task(_inward(reader, theirs))
    outward = loop.create_task(_outward(theirs, writer))

    def ended(task: asyncio.Task[None]) -> None:
        _relays.discard(task)
        if not task.cancelled():
            task.exception()  # the socket tells its owner that this has ended
        if task is outward:
            inward.cancel()
            writer.close()
        else:
            with suppress(OSError):
                theirs.shutdown(socket.SHUT_WR)
        if inward.done() and outward.done():
            theirs.close()

    for task in (inward, outward):
        _relays.add(task)
        task.add_done_callback(ended)
    return ours


async def _inward(reader: asyncio.StreamReader, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(_READ_SIZE):
        await loop.sock_sendall(sock, data)


async def _outward(sock: socket.socket, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(sock, _READ_SIZE):
        writer.write(data)
        await writer.drain()
