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

from purekrb.channel.blocking import CLOSE_TIMEOUT
from purekrb.channel.establish import (
    LONGEST_WAIT,
    READ_SIZE,
    AcceptorOptions,
    accept,
    broken,
    connect_and_handshake,
    handshake,
    lost_place,
    open_listener,
    peer_address,
    source_of,
    stream_factory,
)
from purekrb.channel.framing import DEFAULT_MAX_FRAME, check_max_frame
from purekrb.channel.places import Places
from purekrb.channel.stream import (
    HANDSHAKE_TIMEOUT,
    MAX_HANDSHAKES,
    MAX_PER_SOURCE,
    Authorize,
    Context,
    SealedStream,
    check_flags,
)
from purekrb.constants import Flag
from purekrb.errors import KerberosError
from purekrb.exchanges.ap_exchange import ServiceKeys
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.context import MAX_TOKEN
from purekrb.gss.initiator import Delegate, Initiator
from purekrb.io.asyncio import OpenConnection, drive, in_task
from purekrb.io.steps import Steps, Wait
from purekrb.log import Log
from purekrb.messages.ap import HostAddress
from purekrb.refusals import Refusals
from purekrb.replay.default import may_wait

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from purekrb.credentials.credential import Credential
    from purekrb.kdc.client import Target
    from purekrb.krb5conf.config import Config

__all__ = ["Channel", "Server", "connect", "start_server"]

log = Log("purekrb.channel")

T = TypeVar("T")
#: The threads of a server that passes requests on to KDCs (IAKERB).
RELAYING_THREADS = 8


class Channel(Generic[Context]):
    """An established, sealed and mutually authenticated connection, an async context manager.

    One task may send while another receives. `context` names the peer until the channel is closed.
    If an exception leaves the `async with` block, the connection is cut without a close notice, so
    that the peer does not take this for the regular end.
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
        """The established security context, with `initiator`, `acceptor`, `flags`, `endtime`.

        A client's is an `Initiator`; a server's is an `Acceptor`, which knows the client's
        `identity`.
        """
        return cast(Context, self._stream.context)

    async def send(self, message: bytes) -> None:
        """Send `message`, sealed, and wait while the peer is slow; an empty message is not sent.

        Raises ValueError if it is too long for a frame. A broken connection closes the channel. If
        this is cancelled, the message is sent as a whole or not at all.
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

        If this is cancelled, nothing is lost: call again. Raises TransportError if the connection
        was cut without a close notice of the peer. After any error, the channel is closed.
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
        """Send a close notice and close. Safe to repeat."""
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
        """Close without a close notice: the peer's recv() raises TransportError. Safe to repeat."""
        self._stream.abort()
        self._writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            await self.close()
        else:
            self.abort()


async def connect(
    address: tuple[str, int],
    target: Target,
    credential: Credential | None = None,
    config: Config | None = None,
    *,
    flags: Flag = Flag.DEFAULT,
    delegate: Delegate = False,
    mechanism: str = "kerberos",
    channel_bindings: ChannelBindings | None = None,
    max_token: int = MAX_TOKEN,
    timeout: float = 10.0,
    max_frame: int = DEFAULT_MAX_FRAME,
    open_connection: OpenConnection | None = None,
) -> Channel[Initiator]:
    """Return a channel to the service `target` at `address`, which has proved its identity.

    Like `purekrb.connect`. If this is cancelled, everything is closed.
    """
    # Imported here: a service does not need a KDC client.
    from purekrb.kdc.client import initiate_async

    check_flags(flags)
    check_max_frame(max_frame)
    deadline = time.monotonic() + timeout
    context = await initiate_async(
        target,
        credential,
        config,
        flags=flags,
        delegate=delegate,
        mechanism=mechanism,
        channel_bindings=channel_bindings,
        max_token=max_token,
        timeout=timeout,
        open_connection=open_connection,
    )
    stream = SealedStream(context, max_frame=max_frame)
    dial = None if open_connection is None else in_task(open_connection)
    return await open_channel(
        await drive(connect_and_handshake(address, stream, deadline, dial)), stream
    )


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
    """A listening service that runs `handler(channel)` in a task for each established channel.

    The channel is closed when its handler returns, and cut when it raises. The server continues
    whatever the handler raises: a KerberosError, such as a cut connection, is logged at DEBUG, and
    anything else goes to the loop's exception handler.
    """

    def __init__(
        self,
        listener: socket.socket,
        handler: Callable[[Channel[Acceptor]], Awaitable[None]],
        new_stream: Callable[[HostAddress], SealedStream],
        places: Places[asyncio.Task[None]],
        *,
        threads: int,
        handshake_timeout: float,
    ) -> None:
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._listener = listener
        self._handler = handler
        self._new_stream = new_stream
        self._handshake_timeout = handshake_timeout
        self._in_thread = threads > 0
        self._places = places
        self._refusals = Refusals(log)
        self._place_left = asyncio.Event()
        # The places need not be checked before `_look_at`.
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = math.inf
        self._verifier = futures.ThreadPoolExecutor(threads or 1, "purekrb-verify")
        self._tasks: set[asyncio.Task[None]] = set()
        # The tasks that wait for a frame of the handshake; these may be cut.
        self._waiting: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening socket; empty after `close()`."""
        return () if self._listener.fileno() < 0 else (self._listener,)

    async def serve_forever(self) -> None:
        """Wait until the server is closed. If this is cancelled, close it."""
        try:
            await asyncio.wait({self._accepting})
            if not self._accepting.cancelled():
                self._accepting.result()  # raises the error that ended it
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop listening, cancel the handlers and wait for them. Safe to repeat.

        The channels of the handlers are cut.
        """
        self._accepting.cancel()
        await asyncio.wait({self._accepting})
        self._listener.close()
        # The accepting task, which creates all others, has ended. So each task has begun by now,
        # and closes its connection when it is cancelled.
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
                # loop.sock_accept() would lose a connection that arrives with a cancellation.
                sock, peer = await drive(accept(self._listener))
            except OSError as error:
                log.warning("no connection can be accepted now: %s", error)
                # Out of descriptors; the listener stays readable, so this would spin.
                await asyncio.sleep(0.1)
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
        """Make sure that the places are checked by `moment`."""
        if moment < self._look_at:
            if self._timer is not None:
                self._timer.cancel()
            self._look_at = moment
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(moment - time.monotonic(), self._look)

    def _look(self) -> None:
        """End the handshakes that were silent for too long, and check for a free place."""
        self._look_at = math.inf
        for task in self._places.overdue(time.monotonic()):
            self._cut(task)
        self._place_left.set()
        self._watch(self._places.look_at())

    def _cut(self, task: asyncio.Task[None], rounds: int = 3) -> None:
        """End a handshake that has lost its place, unless its token has already arrived.

        This waits for three rounds of the loop: in the first one the loop reads what has arrived,
        in the second one the task learns of it. By then the task has also begun, and so closes its
        socket when it is cancelled.
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
            self._refusals.report(peer, error)
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
            raise  # this comes from the user or from close(), not from the handler
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
            stream = self._new_stream(address)
            await drive(handshake(sock, stream, deadline, partial(self._advance, task)))
            return await open_channel(sock, stream)
        except asyncio.CancelledError:
            sock.close()
            if task in self._places:
                raise  # this comes from close()
            raise lost_place() from None
        except BaseException:
            sock.close()
            raise

    def _advance(self, task: asyncio.Task[None], stream: SealedStream) -> Steps[bytes]:
        """Take the tokens that have arrived, in a thread if the replay cache may wait."""
        if not stream.has_token:
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


def run_in(executor: futures.Executor, function: Callable[[], T]) -> Steps[T]:
    """Run `function` in `executor` and return its result.

    If this is closed early, it first waits for the function to end.
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
                futures.wait([future])  # before the caller closes the context that it works on
        return future.result()


async def start_server(
    handler: Callable[[Channel[Acceptor]], Awaitable[None]],
    address: tuple[str | None, int],
    keytab: ServiceKeys | None,
    *,
    max_frame: int = DEFAULT_MAX_FRAME,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
    max_handshakes: int = MAX_HANDSHAKES,
    max_per_source: int = MAX_PER_SOURCE,
    check_addresses: bool = True,
    authorize: Authorize | None = None,
    **options: Unpack[AcceptorOptions],
) -> Server:
    """Return a server at `address` that authenticates its clients and runs `handler` for each.

    It serves at once. The arguments are those of `purekrb.listen`. If the replay cache is in a
    database or a server, or if there is a `relay`, tokens are verified in a thread, so that the
    event loop continues.
    """
    new_stream = stream_factory(
        keytab, options, check_addresses, max_frame=max_frame, authorize=authorize
    )
    places: Places[asyncio.Task[None]] = Places(max_handshakes, max_per_source)
    return Server(
        open_listener(address),
        handler,
        new_stream,
        places,
        threads=_threads(options),
        handshake_timeout=handshake_timeout,
    )


def _threads(options: AcceptorOptions) -> int:
    """Return how many threads verify tokens; 0: the event loop does."""
    if options.get("relay") is not None:
        return RELAYING_THREADS  # each waits for a KDC
    # One thread for long work: two would take the interpreter from the loop twice as often.
    return int(may_wait(options.get("replay_cache")))
