"""Sealed streams over blocking sockets: `connect` for a client, `listen` for a service."""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Generic, cast

from purekrb.channel.establish import (
    READ_SIZE,
    AcceptorOptions,
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
from purekrb.errors import TransportError, TransportTimeoutError
from purekrb.exchanges.ap_exchange import ServiceKeys
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.context import MAX_TOKEN
from purekrb.gss.initiator import Delegate, Initiator
from purekrb.io.blocking import drive
from purekrb.io.dial import OpenConnection, in_thread
from purekrb.io.steps import Steps
from purekrb.log import Log
from purekrb.messages.ap import HostAddress
from purekrb.refusals import Refusals
from purekrb.system import fork_safe

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from purekrb.credentials.credential import Credential
    from purekrb.kdc.client import Target
    from purekrb.krb5conf.config import Config

__all__ = ["Channel", "Server", "connect", "listen"]

log = Log("purekrb.channel")

#: Seconds that a closing channel waits for a peer that does not read.
CLOSE_TIMEOUT = 5.0
#: Seconds that closing waits for other threads to leave. It is limited, because a signal handler
#: that closes may have interrupted the very thread that it waits for. That thread then closes.
HANDOVER_TIMEOUT = 1.0
#: The selector that does not need a descriptor of its own.
_Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


class Channel(Generic[Context]):
    """An established, sealed and mutually authenticated connection, a context manager.

    One thread may send while another receives. `context` names the peer until the channel is
    closed. If an exception leaves the `with` block, the connection is cut without a close notice,
    so that the peer does not take this for the regular end.
    """

    def __init__(self, sock: socket.socket, stream: SealedStream) -> None:
        self._socket = sock
        self._stream = stream
        self._sending, self._receiving = fork_safe(Lock()), fork_safe(Lock())

    @property
    def context(self) -> Context:
        """The established security context, with `initiator`, `acceptor`, `flags`, `endtime`.

        A client's is an `Initiator`; a server's is an `Acceptor`, which knows the client's
        `identity`.
        """
        return cast(Context, self._stream.context)

    def send(self, message: bytes, timeout: float | None = None) -> None:
        """Send `message`, sealed; an empty message is not sent.

        Raises ValueError if it is too long for a frame, and TransportTimeoutError if the peer has
        not taken it after `timeout` seconds. This error, and a broken connection, close the
        channel.
        """
        with self._sending:
            frame = self._stream.seal(message)
            try:
                _write(self._socket, frame, _deadline(timeout))
            except BaseException:  # the rest of the frame cannot be sent later
                self._cut()
                raise

    def recv(self, timeout: float | None = None) -> bytes | None:
        """Return the next message, or None when the peer has closed the channel.

        Raises TransportTimeoutError after `timeout` seconds; nothing is lost, so call again. Raises
        TransportError if the connection was cut without a close notice of the peer. After any error
        but the timeout, the channel is closed.
        """
        deadline = _deadline(timeout)
        with self._receiving:
            while True:
                try:
                    message = self._stream.next_message()
                    if message is not None or self._stream.peer_closed:
                        return message
                    self._stream.feed(_read(self._socket, deadline))
                except TransportTimeoutError:
                    raise
                except BaseException:
                    self._cut()
                    raise

    def close(self) -> None:
        """Send a close notice and close. Safe to repeat, and to call from another thread."""
        with _held(self._sending, CLOSE_TIMEOUT) as held:
            if held:  # otherwise a send is stuck, and the notice would be, too
                try:
                    _write(self._socket, self._stream.seal_close(), _deadline(CLOSE_TIMEOUT))
                except TransportError as error:
                    log.debug("the peer did not take the close notice: %s", error)
        self.abort()

    def abort(self) -> None:
        """Close without a close notice: the peer's recv() raises TransportError. Safe to repeat."""
        self._cut()
        # The shutdown wakes threads that wait in send() or recv(). The descriptor is released after
        # they have left, so that none of them ever touches the next socket of the same number.
        with (
            _held(self._sending, HANDOVER_TIMEOUT) as sending,
            _held(self._receiving, HANDOVER_TIMEOUT) as receiving,
        ):
            if sending and receiving:
                self._socket.close()

    def _cut(self) -> None:
        self._stream.abort()
        with suppress(OSError):  # already closed, by the peer or by us
            self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self.abort()


def connect(
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

    `address` is (host, port). Without a credential, that of `Credential.default()` is used. The
    necessary tickets are fetched from the KDC first. `timeout`
    (seconds) covers all of it: tickets, connection and handshake. `max_frame` is the longest frame
    in bytes that is sent or accepted; the service must use the same value. `open_connection` opens
    the connections to the service and to KDCs; it is that of `purekrb.KdcClient`. `delegate` and
    `max_token` are those of `purekrb.initiate`. Raises ValueError for
    `flags` that lack some of those that a channel needs, TransportError, and the errors of
    `purekrb.initiate`.
    """
    # Imported here: a service does not need a KDC client.
    from purekrb.kdc.client import initiate

    check_flags(flags)
    check_max_frame(max_frame)
    deadline = time.monotonic() + timeout
    context = initiate(
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
    dial = None if open_connection is None else in_thread(open_connection)
    return Channel(drive(connect_and_handshake(address, stream, deadline, dial)), stream)


class Server:
    """A listening service: iterate over it for its established channels.

    Handshakes advance while some thread is in `next()`, all at the same time. So a slow or failing
    client does not hold up the others. Serve one client after the other in a single loop, hand each
    channel to a thread, or let several threads iterate over the same server.
    """

    def __init__(
        self,
        listener: socket.socket,
        new_stream: Callable[[HostAddress], SealedStream],
        places: Places[_HalfOpen],
        *,
        handshake_timeout: float,
    ) -> None:
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._listener = listener
        self._new_stream = new_stream
        self._handshake_timeout = handshake_timeout
        self._closed = False
        self._places = places
        self._refusals = Refusals(log)
        self._half_open: set[_HalfOpen] = set()
        self._ready: deque[Channel[Acceptor]] = deque()
        self._lock = fork_safe(Lock())  # held by the thread that drives the handshakes
        self._alarm, self._waker = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._alarm, selectors.EVENT_READ)
        self._selector.register(listener, selectors.EVENT_READ)
        self._accepting = True

    def __iter__(self) -> Iterator[Channel[Acceptor]]:
        return self

    def __next__(self) -> Channel[Acceptor]:
        """Return the next established channel; StopIteration after `close()`."""
        try:
            with self._lock:
                while not self._closed:
                    if self._ready:
                        return self._ready.popleft()
                    self._advance()
            raise StopIteration
        finally:
            if self._closed:
                self.close()  # the first call may have left the work to this thread

    def close(self) -> None:
        """Stop listening and end every iteration. Channels that were handed out stay open.

        Safe to call from any thread or a signal handler, and to repeat.
        """
        self._closed = True
        with suppress(OSError):  # already closed
            self._waker.send(b"\0")  # never read, so it wakes one iterating thread after another
        with _held(self._lock, HANDOVER_TIMEOUT) as held:
            if held:
                self._clean_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _clean_up(self) -> None:
        for connection in self._half_open:
            connection.abandon()
        self._half_open.clear()
        while self._ready:
            self._ready.popleft().abort()
        self._selector.close()
        for sock in (self._listener, self._alarm, self._waker):
            sock.close()

    def _advance(self) -> None:
        """Wait for the next event, and handle it."""
        opens_at = self._places.opens_at()
        self._listen(opens_at <= time.monotonic())
        soonest = min((connection.until for connection in self._half_open), default=math.inf)
        soonest = min(soonest, self._places.look_at(), math.inf if self._accepting else opens_at)
        newcomer = False
        timeout = None if soonest == math.inf else max(0.0, soonest - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._listener:
                newcomer = True
            elif key.data is not None:
                self._selector.unregister(key.fileobj)
                self._resume(key.data, [key.data.sock])
        if newcomer:  # after the connections that sent something, so that they keep their places
            self._accept()
        now = time.monotonic()
        for connection in self._places.overdue(now):
            self._drop(connection)
        for connection in [late for late in self._half_open if late.until <= now]:
            self._selector.unregister(connection.sock)
            self._resume(connection, [])

    def _listen(self, accepting: bool) -> None:
        if accepting and not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif self._accepting and not accepting:
            self._selector.unregister(self._listener)
        self._accepting = accepting

    def _accept(self) -> None:
        try:
            sock, peer = self._listener.accept()
        except BlockingIOError:
            return  # the client is gone again
        except OSError as error:
            log.warning("no connection can be accepted now: %s", error)
            time.sleep(0.1)  # out of descriptors; the listener stays readable, so this would spin
            return
        address, now = peer_address(sock, peer), time.monotonic()
        stream = self._new_stream(address)
        steps = handshake(sock, stream, now + self._handshake_timeout)
        connection = _HalfOpen(sock, peer, stream, steps)
        self._half_open.add(connection)
        loser = self._places.enter(connection, source_of(address), now)
        if loser is not None:
            self._drop(loser)
        self._resume(connection, None)

    def _resume(self, connection: _HalfOpen, ready: list[socket.socket] | None) -> None:
        """Continue a handshake (`ready` is None at its start) until it waits or ends."""
        sock, stream = connection.sock, connection.stream
        rounds = stream.rounds
        try:
            wait = next(connection.steps) if ready is None else connection.steps.send(ready)
        except StopIteration:
            self._forget(connection)
            self._ready.append(Channel(sock, stream))
        except BaseException as error:
            self._forget(connection)
            connection.abandon()
            if not isinstance(error, Exception):
                raise
            self._refusals.report(connection.peer, error)
        else:
            connection.until = wait.until
            self._selector.register(
                sock, selectors.EVENT_READ if wait.reading else selectors.EVENT_WRITE, connection
            )
            if stream.rounds != rounds:
                self._places.heard(connection, time.monotonic())

    def _drop(self, connection: _HalfOpen) -> None:
        """Cut a connection that has lost its place."""
        self._selector.unregister(connection.sock)
        self._forget(connection)
        connection.abandon()
        self._refusals.report(connection.peer, lost_place())

    def _forget(self, connection: _HalfOpen) -> None:
        self._half_open.discard(connection)
        self._places.leave(connection)


@dataclass(eq=False)
class _HalfOpen:
    """A connection in the handshake, which continues when the socket is ready, or at `until`."""

    sock: socket.socket
    peer: object
    stream: SealedStream
    steps: Steps[None]
    until: float = 0.0

    def abandon(self) -> None:
        self.steps.close()
        self.stream.abort()
        self.sock.close()


def listen(
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
    """Return a server at `address` that authenticates its clients with the keys of `keytab`.

    `address` is (host, port). Host None or "" stands for all addresses, and port 0 for a free port:
    see `server.address`. A client has `handshake_timeout` seconds to authenticate itself, and at
    most `max_handshakes` clients may do so at the same time.

    When half of these places are taken, a client has one second for each frame. Then a source
    address (for IPv6, a /64) with `max_per_source` silent clients only gets another place by giving
    up that of its oldest silent client. When all places are taken, the client that has been silent
    longest loses its place. Raise `max_per_source` if many clients share an address.

    A ticket that is bound to addresses is refused from other addresses. With `check_addresses`
    false it is accepted, for clients behind address translation (NAT).

    `authorize(context)` tells whether an authenticated client may come in. It gets the Acceptor,
    and is no coroutine function: pass `purekrb.authorization.members_of(...)`, for instance. A
    client that may not come in gets no answer: its connection is closed. Further `options` are those
    of `purekrb.Acceptor`. The channel itself decides on `require` and `peer_address`; passing them
    raises TypeError.
    """
    new_stream = stream_factory(
        keytab, options, check_addresses, max_frame=max_frame, authorize=authorize
    )
    places: Places[_HalfOpen] = Places(max_handshakes, max_per_source)
    return Server(
        open_listener(address),
        new_stream,
        places,
        handshake_timeout=handshake_timeout,
    )


@contextmanager
def _held(lock: Lock, seconds: float) -> Iterator[bool]:
    """Hold `lock` if it can be acquired within so many seconds; yield whether it is held."""
    held = lock.acquire(timeout=seconds)
    try:
        yield held
    finally:
        if held:
            lock.release()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _remaining(deadline: float | None) -> float | None:
    """Return the seconds until `deadline`. Raises TransportTimeoutError if it has passed."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TransportTimeoutError(
            "the time is over: is the peer busy or stopped? A larger timeout may help"
        )
    return left


def _wait(sock: socket.socket, event: int, deadline: float | None) -> None:
    with _Selector() as selector:
        selector.register(sock, event)
        selector.select(_remaining(deadline))


def _read(sock: socket.socket, deadline: float | None) -> bytes:
    """Return the next bytes, b"" at the end of the connection."""
    while True:
        try:
            return sock.recv(READ_SIZE)
        except BlockingIOError:
            _wait(sock, selectors.EVENT_READ, deadline)
        except OSError as error:
            raise broken(error) from None


def _write(sock: socket.socket, data: bytes, deadline: float | None) -> None:
    with memoryview(data) as view:
        sent = 0
        while sent < len(view):
            try:
                sent += sock.send(view[sent:])
            except BlockingIOError:
                _wait(sock, selectors.EVENT_WRITE, deadline)
            except OSError as error:
                raise broken(error) from None
