"""One request to one KDC: what the transports have in common.

A transport is one module (udp.py, tcp.py) with one class of attempts, and one row in the table of
transport.py.
"""

from __future__ import annotations

import errno
import os
import socket

from purekrb.constants import MessageType
from purekrb.errors import DecodeError
from purekrb.kdc.config import KdcAddress
from purekrb.kdc.locate import SocketAddress
from purekrb.messages import der
from purekrb.records import record

__all__ = ["Attempt", "AttemptError", "Candidate", "is_reply", "open_socket"]

_REPLY_TAGS = {
    0x60 | number for number in (MessageType.AS_REP, MessageType.TGS_REP, MessageType.KRB_ERROR)
}
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


class AttemptError(Exception):
    """This attempt is over; the text says why. Never leaves kdc/."""


@record
class Candidate:
    """A KDC over one transport, at one address (None: all addresses, not looked up yet)."""

    kdc: KdcAddress
    transport: str
    address: SocketAddress | None = None

    def __str__(self) -> str:
        text = f"{self.transport} {self.kdc.host} port {self.kdc.port}"
        if self.address is not None and self.address.sockaddr[0] != self.kdc.host:
            text += f" ({self.address.sockaddr[0]})"
        return text


class Attempt:
    """A candidate under way. `started` and `resend_at` are monotonic times."""

    writing = False
    resend_at = float("inf")

    def __init__(self, candidate: Candidate, sock: socket.socket, now: float) -> None:
        self.candidate = candidate
        self.socket = sock
        self.started = now

    def receive(self) -> bytes | list[SocketAddress] | None:
        """Take the bytes that came; return a whole reply, or looked-up addresses.

        Raises OSError, DecodeError or AttemptError when this attempt is over.
        """
        raise NotImplementedError

    def resend(self, now: float) -> None:
        """Send again, at `resend_at`."""

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def open_socket(address: SocketAddress, kind: socket.SocketKind) -> socket.socket:
    """Return a non-blocking socket that is connected, or about to be, to `address`."""
    sock = socket.socket(address.family, kind)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address.sockaddr)
        if code not in _IN_PROGRESS:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def is_reply(message: bytes) -> bool:
    """Whether `message` looks like a KDC's: AS-REP, TGS-REP or KRB-ERROR of just this size."""
    try:
        tag, _, end = der.read_header(message, 0, len(message))
    except DecodeError:
        return False
    return tag in _REPLY_TAGS and end == len(message)
