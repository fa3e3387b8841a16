"""Channels without a KDC, and one face for the blocking and the asyncio kind, so that one test serves both."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from purekrb import Initiator, ServiceTicket
from purekrb.channel import aio, blocking
from purekrb.channel.establish import connect_and_handshake
from purekrb.channel.framing import DEFAULT_MAX_FRAME, encode_frame, frame_reader
from purekrb.channel.stream import SealedStream
from purekrb.gss.context import SecurityContext
from purekrb.io import asyncio as io_asyncio
from purekrb.io import blocking as io_blocking
from support.tickets import issue

T = TypeVar("T")

#: Seconds after which a test that waits has failed.
PATIENCE = 20.0

LOCALHOST = ("127.0.0.1", 0)

#: A ticket and the keys of its service, for all tests that need no other.
TICKET, KEYS = issue()


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class AsyncioChannel:
    """An asyncio channel with the face of the blocking one."""

    def __init__(self, thread: LoopThread, channel: aio.Channel) -> None:
        self._thread = thread
        self._channel = channel

    @property
    def context(self) -> SecurityContext:
        return self._channel.context

    def send(self, message: bytes) -> None:
        self._thread.run(self._channel.send(message))

    def recv(self) -> bytes | None:
        return self._thread.run(self._channel.recv())

    def close(self) -> None:
        self._thread.run(self._channel.close())

    def abort(self) -> None:
        async def abort() -> None:
            self._channel.abort()

        self._thread.run(abort())

    def __enter__(self) -> AsyncioChannel:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


AnyChannel = blocking.Channel | AsyncioChannel
#: What a server does with a channel.
Service = Callable[[AnyChannel], None]


def echo(channel: AnyChannel) -> None:
    """Send everything back until the client closes."""
    for message in iter(channel.recv, None):
        channel.send(message)


def connect_blocking(
    address: tuple[str, int],
    ticket: ServiceTicket,
    *,
    max_frame: int = DEFAULT_MAX_FRAME,
    timeout: float = PATIENCE,
    **options: Any,
) -> blocking.Channel:
    stream = SealedStream(Initiator(ticket, **options), max_frame=max_frame)
    steps = connect_and_handshake(address, stream, time.monotonic() + timeout)
    return blocking.Channel(io_blocking.drive(steps), stream)


async def connect_asyncio(
    address: tuple[str, int],
    ticket: ServiceTicket,
    *,
    max_frame: int = DEFAULT_MAX_FRAME,
    timeout: float = PATIENCE,
    **options: Any,
) -> aio.Channel:
    stream = SealedStream(Initiator(ticket, **options), max_frame=max_frame)
    steps = connect_and_handshake(address, stream, time.monotonic() + timeout)
    return await aio.open_channel(await io_asyncio.drive(steps), stream)


class Side:
    """Either kind, "blocking" or "asyncio", of clients and servers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.thread = LoopThread() if kind == "asyncio" else None

    def connect(
        self, address: tuple[str, int], ticket: ServiceTicket, **options: Any
    ) -> AnyChannel:
        if self.thread is None:
            return connect_blocking(address, ticket, **options)
        return AsyncioChannel(
            self.thread, self.thread.run(connect_asyncio(address, ticket, **options))
        )

    @contextmanager
    def serve(
        self, keytab: Any, service: Service = echo, **options: Any
    ) -> Iterator[RunningServer]:
        """Run `service` in a thread for each channel. What it raises is in the server's `errors`."""
        running = RunningServer()

        def run(channel: AnyChannel) -> None:
            try:
                with channel:
                    service(channel)
            except BaseException as error:
                running.errors.append(error)
            finally:
                running.finished.release()

        if self.thread is None:
            with blocking.listen(LOCALHOST, keytab, **options) as server:
                running.address = server.address

                def accept() -> None:
                    for channel in server:
                        running.start(run, channel)

                accepting = threading.Thread(target=accept)
                accepting.start()
                try:
                    yield running
                finally:
                    server.close()
                    accepting.join(PATIENCE)
                    running.join()
        else:
            loop_thread = self.thread

            async def handler(channel: aio.Channel) -> None:
                thread = running.start(run, AsyncioChannel(loop_thread, channel))
                while thread.is_alive():
                    await asyncio.sleep(0.002)

            asyncio_server = loop_thread.run(
                aio.start_server(handler, LOCALHOST, keytab, **options)
            )
            running.address = asyncio_server.address
            try:
                yield running
            finally:
                running.join()
                loop_thread.run(asyncio_server.close())

    def stop(self) -> None:
        if self.thread is not None:
            self.thread.stop()


def assert_echoes(
    side: Side, address: tuple[str, int], ticket: ServiceTicket = TICKET, **options: Any
) -> None:
    """The positive control: an honest client is served."""
    with side.connect(address, ticket, **options) as channel:
        channel.send(b"good")
        assert channel.recv() == b"good"


class RunningServer:
    """Where a test server listens, and how its services ended."""

    address: tuple[str, int]

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.finished = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def start(self, service: Service, channel: AnyChannel) -> threading.Thread:
        thread = threading.Thread(target=service, args=(channel,))
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        """Wait until the services have ended, as they do when their clients have."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def error(self) -> BaseException:
        """Wait for the end of a service, and return what it raised."""
        assert self.finished.acquire(timeout=PATIENCE)
        return self.errors.pop()


class RawClient:
    """A client that sends whatever a test wants, over a plain socket."""

    def __init__(
        self, address: tuple[str, int], ticket: ServiceTicket | None = None, **options: Any
    ) -> None:
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames = frame_reader(DEFAULT_MAX_FRAME)
        if ticket is not None:
            self.context = Initiator(ticket, **options)

    def establish(self) -> RawClient:
        self.send_frame(self.context.step() or b"")
        self.context.step(self.recv_frame())
        return self

    def send_frame(self, body: bytes) -> None:
        self.socket.sendall(encode_frame(body))

    def recv_frame(self) -> bytes:
        """Return the next frame, b"" at the end of the connection."""
        while (frame := self.frames.next_frame()) is None:
            data = self.socket.recv(65536)
            if not data:
                return b""
            self.frames.feed(data)
        return frame

    def ended(self) -> bool:
        """Wait for the peer's end of the connection; whether nothing else came."""
        try:
            return self.recv_frame() == b""
        except ConnectionResetError:
            return True

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@contextmanager
def raw_server(serve: Callable[[socket.socket], T]) -> Iterator[tuple[tuple[str, int], Future[T]]]:
    """Run `serve` with the first connection to the address; give the address and the future result."""
    result: Future[T] = Future()
    with socket.create_server(LOCALHOST) as listener:
        listener.settimeout(PATIENCE)

        def run() -> None:
            try:
                with listener.accept()[0] as connection:
                    connection.settimeout(PATIENCE)
                    result.set_result(serve(connection))
            except BaseException as error:
                result.set_exception(error)

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname(), result
        thread.join(PATIENCE)
        assert not thread.is_alive()


def read_frame(connection: socket.socket) -> bytes:
    """Return one frame from a plain socket."""
    frames = frame_reader(DEFAULT_MAX_FRAME)
    while (frame := frames.next_frame()) is None:
        data = connection.recv(1)
        if not data:
            raise EOFError
        frames.feed(data)
    return frame


def open_descriptors() -> int:
    """Return how many descriptors this process has open, after what is garbage has gone."""
    gc.collect()
    return len(os.listdir("/dev/fd"))


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def trickle(raw: RawClient, data: bytes) -> None:
    """Send a byte every 20 ms until the peer hangs up."""
    for byte in data:
        try:
            raw.socket.sendall(bytes([byte]))
        except OSError:
            return
        time.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds, which the other end may still be busy with."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def cancel_after(steps: int, work: Any) -> bool:
    """Cancel `work` after so many turns of the loop; whether it had to be."""
    task = asyncio.ensure_future(work)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    try:
        (await task).abort()
    except asyncio.CancelledError:
        return True
    return False
