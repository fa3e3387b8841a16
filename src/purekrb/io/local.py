"""A request to a daemon of this machine on a Unix socket, and its answer. Blocks.

Each request has a connection of its own: the daemon may end one whenever it likes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from purekrb.errors import TransportError

__all__ = ["answers", "ask"]

_PIECE = 65536


def answers(path: str) -> bool:
    """Return whether a daemon takes connections at `path`."""
    try:
        with _connected(path, 1.0):
            return True
    except (OSError, AttributeError):
        return False


def ask(
    path: str, request: bytes, head: int, body_size: Callable[[bytes], int], timeout: float
) -> bytes:
    """Send `request`; return the answer: `head` bytes, and as many more as `body_size` says of them.

    Raises TransportError if there is no daemon, if it closes the connection first, or if the whole
    takes longer than `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    try:
        with _connected(path, timeout) as sock:
            sock.sendall(request)
            answer = _read(sock, head, deadline)
            return answer + _read(sock, body_size(answer), deadline)
    except (OSError, AttributeError) as error:  # AttributeError: a platform without such sockets
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TransportError(f"no daemon answers at {path} ({why})") from error


def _connected(path: str, timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _read(sock: socket.socket, size: int, deadline: float) -> bytes:
    parts, missing = [], size
    while missing:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        part = sock.recv(min(missing, _PIECE))
        if not part:
            raise TransportError("the daemon closed the connection before its answer was complete")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
