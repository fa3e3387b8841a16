"""Sealed streams for asyncio: `connect` for a client, `start_server` for a service."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent import futures
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from purekrb.channel.blocking import CLOSE_TIMEOUT, report_refusal
from purekrb.channel.establish import (
    LONGEST_WAIT,
    READ_SIZE,
    AcceptorOptions,
    accept,
    broken,
    context_factory,
    dial,
    handshake,
    lost_place,
    open_listener,
    peer_address,
    source_of,
)
from purekrb.channel.framing import DEFAULT_MAX_FRAME, check_max_frame
from purekrb.channel.places import Places
from purekrb.channel.stream import (
    HANDSHAKE_TIMEOUT,
    MAX_HANDSHAKES,
    MAX_PER_SOURCE,
    Context,
    SealedStream,
    check_flags,
)
from purekrb.constants import Flag
from purekrb.errors import KerberosError
from purekrb.exchanges.ap_exchange import ServiceKeys
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.initiator import Initiator
from purekrb.io.asyncio import drive
from purekrb.io.steps import Steps, Wait
from purekrb.log import Log
from purekrb.messages.ap import HostAddress
from purekrb.replay import MemoryReplayCache

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from purekrb.credentials.credential import Credential
    from purekrb.kdc.client import Target
    from purekrb.kdc.config import Config
    from purekrb.replay import ReplayCache

__all__ = ["Channel", "Server", "connect", "start_server"]

log = Log("purekrb.channel")

T = TypeVar("T")


class Channel(Generic[Context]):
    """An established, sealed and mutually authenticated connection. Use it as an async context manager.

    One task may send while another receives. `context` tells who the peer is, until the channel is closed.
    Leaving the `async with` block by an exception cuts the connection, so that the peer does not take it for the end.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: SealedStream
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = stream
        self._sending, self._receiving = asyncio.Lock(), asyncio.Lock()

    @property
    def context(self) -> Context:
        """The established security context: `initiator`, `acceptor`, `flags`, `endtime` ...

        A client's is an `Initiator`; a server's is an `Acceptor`, which knows the client's `identity`.
        """
        return cast(Context, self._stream.context)

    async def send(self, message: bytes) -> None:
        """Send `message`, sealed, and wait while the peer is slow to take it; an empty one is not sent.

        ValueError: it is too long for a frame. A broken connection closes the channel. When cancelled, the message is
        sent as a whole or not at all.
        """
        async with self._sending:
            self._writer.write(self._stream.seal(message))
            try:
                await self._writer.drain()
            except OSError as error:
                self.abort()
                raise broken(error) from None

    async def recv(self) -> bytes | None:
        """Return the next message, or None when the peer has closed the channel.

        Cancelling loses nothing: call again. TransportError when the connection was cut without the peer's close
        notice. After any error the channel is closed.
        """
        async with self._receiving:
            while True:
                try:
                    message = self._stream.next_message()
                    if message is not None or self._stream.peer_closed:
                        return message
                    self._stream.feed(await self._reader.read(READ_SIZE))
                except KerberosError:
                    self.abort()
                    raise
                except OSError as error:
                    self.abort()
                    raise broken(error) from None

    async def close(self) -> None:
        """Tell the peer that this is the end, and close. Safe to repeat."""
        notice = self._stream.seal_close()
        if notice:
            self._writer.write(notice)
        self._writer.close()
        # A peer that does not read must not hold up a server that closes.
        timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._writer.transport.abort)
        try:
            await self._writer.wait_closed()
        except OSError as error:
            log.debug("the peer did not take the close notice: %s", error)
        except BaseException:
            self._writer.transport.abort()
            raise
        finally:
            timer.cancel()

    def abort(self) -> None:
        """Close at once and without a close notice: the peer's recv() raises TransportError. Safe to repeat."""
        self._stream.abort()
        self._writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.close()
        else:
            self.abort()


async def connect(
    address: tuple[str, int],
    target: Target,
    credential: Credential,
    config: Config | None = None,
    *,
    flags: Flag = Flag.DEFAULT,
    mechanism: str = "kerberos",
    channel_bindings: ChannelBindings | None = None,
    timeout: float = 10.0,
    max_frame: int = DEFAULT_MAX_FRAME,
) -> Channel[Initiator]:
    """Return a channel to the service `target` at `address` (host, port), which has proved its identity.

    As `purekrb.connect`. When cancelled, nothing is left behind.
    """
    # Imported here: a service needs neither a KDC client nor what it depends on.
    from purekrb.kdc.client import initiate_async

    check_flags(flags)
    check_max_frame(max_frame)
    deadline = time.monotonic() + timeout
    context = await initiate_async(
        target,
        credential,
        config,
        flags=flags,
        mechanism=mechanism,
        channel_bindings=channel_bindings,
        timeout=timeout,
    )
    stream = SealedStream(context, max_frame=max_frame)
    return await open_channel(await drive(dial(address, stream, deadline)), stream)


async def open_channel(sock: socket.socket, stream: SealedStream) -> Channel[Any]:
    """Return the channel over a socket on which `stream` is established."""
    try:
        reader, writer = await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        stream.abort()
        raise
    return Channel(reader, writer, stream)


class Server:
    """A listening service that runs `handler(channel)` in a task of its own for each established channel.

    The channel is closed when its handler returns, and cut when it raises. Whatever it raises, the server goes on: a
    KerberosError, such as a cut connection, is logged at DEBUG, anything else goes to the loop's exception handler.
    """

    def __init__(
        self,
        listener: socket.socket,
        handler: Callable[[Channel[Acceptor]], Awaitable[None]],
        new_context: Callable[[HostAddress], Acceptor],
        places: Places[asyncio.Task[None]],
        *,
        in_thread: bool,
        max_frame: int,
        handshake_timeout: float,
    ) -> None:
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._listener = listener
        self._handler = handler
        self._new_context = new_context
        self._max_frame = max_frame
        self._handshake_timeout = handshake_timeout
        self._in_thread = in_thread
        self._places = places
        self._place_left = asyncio.Event()
        # Until `_look_at` the places need not be looked at.
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = math.inf
        # One thread for what is long: two would take the interpreter from the loop twice as often.
        self._verifier = futures.ThreadPoolExecutor(1, "purekrb-verify")
        self._tasks: set[asyncio.Task[None]] = set()
        # Those that wait for a frame of the handshake may be cut.
        self._waiting: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket; none after `close()`."""
        return () if self._listener.fileno() < 0 else (self._listener,)

    async def serve_forever(self) -> None:
        """Wait until the server is closed. When cancelled, close it."""
        try:
            await asyncio.wait({self._accepting})
            if not self._accepting.cancelled():
                self._accepting.result()  # raises what ended it
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop listening, cancel the handlers and wait for them; their channels are cut. Safe to repeat."""
        self._accepting.cancel()
        await asyncio.wait({self._accepting})
        self._listener.close()
        # Each task has begun by now, and so looks after its connection: the accepting task was the last to create one.
        tasks = self._tasks - {asyncio.current_task()}  # a handler may close its server
        self._verifier.shutdown(wait=False, cancel_futures=True)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._timer is not None:
            self._timer.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room()
            try:
                # Not loop.sock_accept(), which loses a connection that arrives together with a cancellation.
                sock, peer = await drive(accept(self._listener))
            except OSError as error:
                log.warning("no connection can be accepted now: %s", error)
                await asyncio.sleep(
                    0.1
                )  # out of descriptors: the listener stays readable, so this would spin
                continue
            address = peer_address(sock, peer)
            task = loop.create_task(self._serve(sock, peer, address))
            self._tasks.add(task)
            self._waiting.add(task)
            task.add_done_callback(self._tasks.discard)
            loser = self._places.enter(task, source_of(address), time.monotonic())
            if loser is not None:
                self._cut(loser)
            self._watch(self._places.look_at())

    async def _room(self) -> None:
        """Wait until there is a place for another connection."""
        while (opens_at := self._places.opens_at()) > time.monotonic():
            self._watch(opens_at)
            self._place_left.clear()
            await self._place_left.wait()

    def _watch(self, moment: float) -> None:
        """See to it that the places are looked at by then."""
        if moment < self._look_at:
            if self._timer is not None:
                self._timer.cancel()
            self._look_at = moment
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(moment - time.monotonic(), self._look)

    def _look(self) -> None:
        """End the handshakes that were silent for too long, and see whether there is a place."""
        self._look_at = math.inf
        for task in self._places.overdue(time.monotonic()):
            self._cut(task)
        self._place_left.set()
        self._watch(self._places.look_at())

    def _cut(self, task: asyncio.Task[None], rounds: int = 3) -> None:
        """End a handshake that has lost its place, unless its token turns out to be there.

        Three rounds of the loop later: in the first one the loop sees what arrived until now, in
        the second one the task hears of it. By then it has begun, too, and looks after its socket.
        """
        if task in self._waiting:
            if rounds:
                asyncio.get_running_loop().call_soon(self._cut, task, rounds - 1)
            else:
                task.cancel()

    async def _serve(self, sock: socket.socket, peer: object, address: HostAddress) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            channel = await self._establish(sock, address, task)
        except Exception as error:
            report_refusal(peer, error)
            return
        finally:
            self._waiting.discard(task)
            self._places.leave(task)
            self._place_left.set()
        try:
            async with channel:
                await self._handler(channel)
        except KerberosError as error:
            log.debug("the connection of %s ended: %s", peer, error)
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise  # not the handler's own: the user's, or close()'s
        except BaseException as error:
            asyncio.get_running_loop().call_exception_handler(
                {
                    "message": f"the handler failed and the connection of {peer} was cut",
                    "exception": error,
                }
            )

    async def _establish(
        self, sock: socket.socket, address: HostAddress, task: asyncio.Task[None]
    ) -> Channel[Acceptor]:
        deadline = time.monotonic() + self._handshake_timeout
        try:
            stream = SealedStream(self._new_context(address), max_frame=self._max_frame)
            await drive(handshake(sock, stream, deadline, partial(self._advance, task)))
            return await open_channel(sock, stream)
        except asyncio.CancelledError:
            sock.close()
            if task in self._places:
                raise  # close()'s
            raise lost_place() from None
        except BaseException:
            sock.close()
            raise

    def _advance(self, task: asyncio.Task[None], stream: SealedStream) -> Steps[bytes]:
        """Take the tokens that have arrived, in a thread where a replay cache waits for its disk."""
        if not stream.token_size:
            return stream.advance()
        self._places.busy(task)
        self._waiting.discard(task)
        if self._in_thread:
            out = yield from run_in(self._verifier, stream.advance)
        else:
            out = stream.advance()
        if not stream.established:
            if task not in self._places:
                raise lost_place()
            self._places.heard(task, time.monotonic())
            self._waiting.add(task)
        return out


def waits_for_disk(replay_cache: ReplayCache | None) -> bool:
    """Tell whether a replay cache may hold up the event loop.

    A cache in a file waits for the disk and for other processes: mostly 30 us, 6 ms at times. All
    else takes less than a thread would cost, since an AP-REQ is tried with MAX_TRIES keys at most.
    """
    return replay_cache is not None and not isinstance(replay_cache, MemoryReplayCache)


def run_in(executor: futures.Executor, function: Callable[[], T]) -> Steps[T]:
    """Return what `function` returns, which `executor` runs.

    When this is closed early, nothing of it still runs.
    """
    done, signal = socket.socketpair()
    with done, signal:
        future = executor.submit(function)
        try:
            future.add_done_callback(lambda _: signal.close())
            while done not in (yield Wait([done], [], time.monotonic() + LONGEST_WAIT)):
                pass
        finally:
            if not future.cancel():
                futures.wait([future])  # before the context is closed that it works on
        return future.result()


async def start_server(
    handler: Callable[[Channel[Acceptor]], Awaitable[None]],
    address: tuple[str | None, int],
    keytab: ServiceKeys,
    *,
    max_frame: int = DEFAULT_MAX_FRAME,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
    max_handshakes: int = MAX_HANDSHAKES,
    max_per_source: int = MAX_PER_SOURCE,
    check_addresses: bool = True,
    **options: Unpack[AcceptorOptions],
) -> Server:
    """Return a server at `address` (host, port) that authenticates its clients and runs `handler` for each.

    It serves at once. The arguments are those of `purekrb.listen`. What takes long (a large token
    with a large keytab, a replay cache in a file) is done in a thread: the event loop goes on.
    """
    new_context = context_factory(keytab, options, check_addresses)
    check_max_frame(max_frame)
    places: Places[asyncio.Task[None]] = Places(max_handshakes, max_per_source)
    return Server(
        open_listener(address),
        handler,
        new_context,
        places,
        in_thread=waits_for_disk(options.get("replay_cache")),
        max_frame=max_frame,
        handshake_timeout=handshake_timeout,
    )
