"""From an address to an established stream, for blocking code and asyncio, clients and servers.

`connect_and_handshake` and `handshake` are generators over non-blocking sockets. `drive` in
io/blocking.py or io/asyncio.py runs them; the blocking server runs many handshakes at once by
itself. places.py decides which connections may be in the handshake.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from purekrb.channel.stream import CHANNEL_FLAGS, Authorize, SealedStream, error_frame
from purekrb.constants import AddressType, Flag, flag_names
from purekrb.errors import KerberosError, TransportError, TransportTimeoutError
from purekrb.exchanges.ap_exchange import ServiceKeys
from purekrb.gss.acceptor import Acceptor
from purekrb.io.dial import Dial, dialed
from purekrb.io.steps import Steps, Wait, in_thread, look_up
from purekrb.log import Log
from purekrb.messages.ap import HostAddress

if TYPE_CHECKING:
    from purekrb.credentials.credential import Credential
    from purekrb.gss.channel_bindings import ChannelBindings
    from purekrb.gss.iakerb import Relay
    from purekrb.names import Principal
    from purekrb.replay import ReplayCache

__all__ = [
    "READ_SIZE",
    "AcceptorOptions",
    "accept",
    "broken",
    "connect_and_handshake",
    "stream_factory",
    "handshake",
    "lost_place",
    "open_listener",
    "peer_address",
    "source_of",
]

log = Log("purekrb.channel")

READ_SIZE = 65_536
#: Connections that the kernel holds while all places for handshakes are taken.
BACKLOG = 1024
#: The longest single wait in seconds; selectors do not accept every number.
LONGEST_WAIT = 3600.0
#: Address types as plain numbers.
_IPV4, _IPV6 = int(AddressType.IPV4), int(AddressType.IPV6)
#: The prefix of an IPv6 address that stands for an IPv4 address. Source: RFC 4291 2.5.5.2.
_MAPPED = bytes(10) + b"\xff\xff"


def connect_and_handshake(
    address: tuple[str, int], stream: SealedStream, deadline: float, dial: Dial | None = None
) -> Steps[socket.socket]:
    """Connect to `address` (host, port) and establish `stream`; return the non-blocking socket.

    With `dial`, it opens the connection. `deadline` is `time.monotonic`'s. On any error, the socket
    and the stream are closed.
    """
    try:
        if dial is None:
            sock = yield from _connect(address, deadline)
        else:
            sock = yield from dialed(dial, *address, deadline, time.monotonic)
        try:
            waits = getattr(stream.context, "may_wait", False)
            advance = partial(_in_thread, deadline) if waits else at_once
            yield from handshake(sock, stream, deadline, advance)
        except BaseException:
            sock.close()
            raise
    except BaseException:
        stream.abort()
        raise
    return sock


def accept(listener: socket.socket) -> Steps[tuple[socket.socket, Any]]:
    """Return the next connection and the peer's address."""
    while True:
        try:
            return listener.accept()
        except BlockingIOError:
            yield from _readable(listener, math.inf)


def at_once(stream: SealedStream) -> Steps[bytes]:
    """Take the tokens that have arrived, in this thread."""
    return stream.advance()
    yield  # makes this a generator, as `advance` of `handshake` has to be


def _in_thread(deadline: float, stream: SealedStream) -> Steps[bytes]:
    """Take the tokens that have arrived, in a thread: the context waits for a KDC."""
    late = "no KDC gave the ticket for the service before the deadline"
    return in_thread(stream.advance, deadline, time.monotonic, late)


def handshake(
    sock: socket.socket,
    stream: SealedStream,
    deadline: float,
    advance: Callable[[SealedStream], Steps[bytes]] = at_once,
) -> Steps[None]:
    """Establish `stream` over the non-blocking `sock`; on an error, tell the peer what it may know.

    `advance` takes the tokens that have arrived. The caller closes the socket.
    """
    try:
        _prepare(sock)
        out = stream.begin()
        while True:
            while out:
                try:
                    out = out[sock.send(out) :]
                except BlockingIOError:
                    yield from _writable(sock, deadline)
            if stream.established:
                return
            try:
                data = sock.recv(READ_SIZE)
            except BlockingIOError:
                yield from _readable(sock, deadline)
            else:
                stream.feed(data)
                out = yield from advance(stream)
    except KerberosError as error:
        stream.abort()
        with suppress(OSError):  # the peer may be gone
            sock.send(error_frame(error))
        raise
    except BaseException as error:
        stream.abort()
        if isinstance(error, OSError):
            raise broken(error) from None
        raise


def peer_address(sock: socket.socket, peer: tuple[Any, ...]) -> HostAddress:
    """Return the address of an accepted connection in the form of tickets.

    `peer` is the address from the socket module. An IPv4-mapped IPv6 address becomes an IPv4
    address. If the peer is gone, the system may not know its address any more; then the result does
    not equal any real address. Source: RFC 4120 7.5.3.
    """
    if not peer:
        return HostAddress(0, b"")
    address = socket.inet_pton(sock.family, peer[0].partition("%")[0])
    if address.startswith(_MAPPED):
        address = address[len(_MAPPED) :]
    return HostAddress(_IPV4 if len(address) == 4 else _IPV6, address)


def source_of(address: HostAddress) -> bytes:
    """Return a key for all addresses of a host: the IPv4 address, or the /64 of IPv6."""
    return address.address[:8]


def lost_place() -> TransportTimeoutError:
    """Return the reason for cutting a connection that was silent for too long in a crowd."""
    return TransportTimeoutError(
        "it was silent, and its place for a handshake was needed for others"
    )


def broken(error: OSError) -> TransportError:
    """Return the error to raise for a socket's error."""
    return TransportError(
        f"the connection broke ({error.strerror or error}): what was received may not be all"
    )


class AcceptorOptions(TypedDict, total=False):
    """The arguments of `purekrb.Acceptor` that a server passes on for each connection."""

    mechanism: str
    replay_cache: ReplayCache | None
    channel_bindings: ChannelBindings | None
    require_channel_bindings: bool
    service: str | Principal | None
    clock_skew: float
    permitted_etypes: tuple[int, ...]
    require_pac: bool
    accept_delegation: bool
    accept_anonymous: bool
    require_client_target: bool
    tgt: Credential | None
    enforce_expiry: bool
    relay: Relay | None
    max_token: int


#: The arguments of an acceptor that its channel sets.
_FIXED = {
    "require": "it always has " + ", ".join(flag_names(Flag, CHANNEL_FLAGS)),
    "peer_address": "pass check_addresses",
}


def stream_factory(
    keytab: ServiceKeys | None,
    options: AcceptorOptions,
    check_addresses: bool,
    *,
    max_frame: int,
    authorize: Authorize | None,
) -> Callable[[HostAddress], SealedStream]:
    """Return a function that makes one end of a stream per connection, for the peer's address.

    The address is only checked with `check_addresses`. One acceptor is made now, so that wrong
    options fail at once.
    """
    for fixed, instead in _FIXED.items():
        if fixed in options:
            raise TypeError(f"a channel decides on {fixed} by itself: {instead}")

    def new_stream(address: HostAddress | None) -> SealedStream:
        peer = address if check_addresses else None
        context = Acceptor(keytab, require=CHANNEL_FLAGS, peer_address=peer, **options)
        return SealedStream(context, max_frame=max_frame, authorize=authorize)

    new_stream(None).abort()
    return new_stream


def open_listener(address: tuple[str | None, int]) -> socket.socket:
    """Return a non-blocking socket that listens at `address`; host None or "": on all addresses."""
    host, port = address
    try:
        if not host and socket.has_dualstack_ipv6():
            listener = socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
            )
        else:
            family = _resolve(host, port, socket.AI_PASSIVE)[0][0]
            listener = socket.create_server((host or "", port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        raise TransportError(f"{host!r} port {port} cannot be listened on: {error}") from None
    listener.setblocking(False)
    return listener


def _connect(address: tuple[str, int], deadline: float) -> Steps[socket.socket]:
    """Return a socket that is connected to the first address of the host that answers."""
    host, port = address
    try:
        infos = _resolve(host, port, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        try:
            wanted = f"the addresses of {host}"
            infos = yield from look_up(
                lambda: _resolve(host, port), deadline, time.monotonic, wanted
            )
        except (OSError, UnicodeError) as error:
            if isinstance(error, KerberosError):
                raise
            raise TransportError(
                f"the host name {host!r} cannot be resolved ({error}): check its spelling"
            ) from None
    failures = []
    for number, (family, socket_type, protocol, _, where) in enumerate(infos):
        # Each address gets an equal share of the time left, so that a silent one does not use it
        # up.
        now = time.monotonic()
        until = now + (deadline - now) / (len(infos) - number)
        try:
            sock = socket.socket(family, socket_type, protocol)
            yield from _connect_one(sock, where, until)
            log.debug("connected to %s port %s (%s)", host, port, where[0])
            return sock
        except OSError as error:
            failures.append(f"{where[0]}: {error.strerror or error}")
    late = time.monotonic() >= deadline
    raise (TransportTimeoutError if late else TransportError)(
        f"cannot connect to {host} port {port} ({'; '.join(failures)}): "
        "check that the service runs there and that the network lets us through"
    )


def _connect_one(sock: socket.socket, where: Any, deadline: float) -> Steps[None]:
    try:
        sock.setblocking(False)
        code = sock.connect_ex(where)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            yield from _writable(sock, deadline)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise


def _resolve(host: str | None, port: int, flags: int = 0) -> list[Any]:
    if not 0 <= port <= 0xFFFF:
        raise ValueError(f"there is no TCP port {port}")
    return socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):  # no tunnel's
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # a small message is sent at once


def _readable(sock: socket.socket, deadline: float) -> Steps[None]:
    while sock not in (yield Wait([sock], [], _until(deadline))):
        pass


def _writable(sock: socket.socket, deadline: float) -> Steps[None]:
    while sock not in (yield Wait([], [sock], _until(deadline))):
        pass


def _until(deadline: float) -> float:
    now = time.monotonic()
    if now >= deadline:
        raise TransportTimeoutError("the time is over: the peer is slow or does not answer")
    return min(deadline, now + LONGEST_WAIT)
