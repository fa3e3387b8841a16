"""Connections that a caller's `open_connection` opens: through a SOCKS proxy or a tunnel.

A blocking one is `open_connection(host, port, timeout)` and returns a connected socket. It runs in
a thread, so that others can be tried beside it and the deadline is kept. That of asyncio is a
coroutine function, `open_connection(host, port)`: see io/asyncio.py. Host names are its to look up.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from purekrb.errors import TransportError, TransportTimeoutError
from purekrb.io.steps import Steps, ThreadCall, Wait

__all__ = ["Dial", "Dialing", "OpenConnection", "dialed", "failure", "in_thread", "stream_socket"]

Socket = socket.socket

#: Host, port and seconds -> a connected socket.
OpenConnection = Callable[[str, int, float], Socket]
_MAX_TEXT = 200


class Dialing(Protocol):
    """A connection that is being opened; `socket` becomes readable when that is done."""

    @property
    def socket(self) -> Socket:
        """What becomes readable."""

    def result(self) -> Socket:
        """Return the connected socket, which is the caller's from now on.

        Raises OSError if there is none, and TypeError if what was opened is no socket.
        """

    def close(self) -> None:
        """Stop waiting. A socket that nobody has taken is closed, now or when it comes."""


#: Begins to open a connection: host, port, and the seconds that it may take.
Dial = Callable[[str, int, float], Dialing]


def in_thread(open_connection: OpenConnection) -> Dial:
    """Return what calls `open_connection` in a thread."""
    return lambda host, port, timeout: _InThread(open_connection, host, port, timeout)


def dialed(
    dial: Dial, host: str, port: int, until: float, clock: Callable[[], float]
) -> Steps[Socket]:
    """Return the socket that is connected to `host`. Raises TransportError (TransportTimeoutError)."""
    dialing = dial(host, port, max(until - clock(), 0))
    try:
        while dialing.socket not in (yield Wait([dialing.socket], [], until)):
            if clock() >= until:
                raise TransportTimeoutError(
                    f"open_connection did not reach {host} port {port} in time"
                )
        return dialing.result()
    except OSError as error:
        raise TransportError(f"cannot connect to {host} port {port}: {error}") from error
    finally:
        dialing.close()


def stream_socket(opened: Any) -> Socket:
    """Return `opened` if it is a socket whose bytes are those of the connection.

    A TLS socket holds bytes back that its descriptor does not tell of.
    """
    if not isinstance(opened, Socket) or hasattr(opened, "pending"):
        raise TypeError(
            f"open_connection returned {type(opened).__name__}: it must return a connected "
            "socket.socket, without TLS on it"
        )
    found: Socket = opened
    return found


def failure(error: Exception) -> OSError:
    """Return the OSError that tells what `open_connection` has raised."""
    why = error.strerror if isinstance(error, OSError) else None
    text = why or repr(str(error))[1:-1][:_MAX_TEXT]  # on one line, whatever it is
    kind = "" if isinstance(error, OSError) and text else f"{type(error).__name__}: "
    return ConnectionError(f"open_connection failed: {kind}{text}".rstrip(": "))


class Unclaimed:
    """Holds a socket until somebody takes it, and closes it if nobody will.

    Two threads may use it at the same time: whichever comes second sees what the first one did.
    """

    def __init__(self) -> None:
        self._sockets: list[Socket] = []
        self._closed = False

    def put(self, sock: Socket) -> None:
        """Hold `sock`."""
        self._sockets.append(sock)
        if self._closed:
            self.close()

    def take(self) -> Socket:
        """Return the socket, and hold it no longer."""
        return self._sockets.pop()

    def close(self) -> None:
        """Close the socket if nobody has taken it."""
        self._closed = True
        with suppress(IndexError):
            self._sockets.pop().close()


class _InThread:
    def __init__(
        self, open_connection: OpenConnection, host: str, port: int, timeout: float
    ) -> None:
        self._unclaimed = Unclaimed()

        def open_it() -> None:
            try:
                opened: Any = open_connection(host, port, timeout)
            except Exception as error:
                raise failure(error) from error
            close = getattr(opened, "close", None)
            try:
                self._unclaimed.put(stream_socket(opened))
            except TypeError:
                if close is not None:
                    close()
                raise

        self._call = ThreadCall(open_it)
        self.socket = self._call.socket

    def result(self) -> Socket:
        self._call.result()
        return self._unclaimed.take()

    def close(self) -> None:
        self._call.close()
        self._unclaimed.close()
