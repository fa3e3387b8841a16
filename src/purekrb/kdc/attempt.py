"""One request to one KDC: the common part of the transports.

A transport is one module (udp.py, tcp.py, https.py) with one class of attempts, and one row in the
table of transport.py.
"""

from __future__ import annotations

import errno
import os
import socket

from purekrb.constants import MessageType
from purekrb.errors import DecodeError
from purekrb.kdc.records import SocketAddress
from purekrb.krb5conf.config import KdcAddress
from purekrb.messages import der
from purekrb.records import record

__all__ = ["Attempt", "AttemptError", "Candidate", "Place", "connected", "is_reply", "open_socket"]

#: Where an attempt goes: an address, or a socket that is connected already.
Place = SocketAddress | socket.socket

_REPLY_TAGS = {
    0x60 | number for number in (MessageType.AS_REP, MessageType.TGS_REP, MessageType.KRB_ERROR)
}
_CONNECTING = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


class AttemptError(Exception):
    """This attempt has failed; the text says why. It never leaves kdc/."""


@record
class Candidate:
    """A KDC of `realm` to try: one transport, and one address.

    Without one (None), its addresses are not looked up yet, or it is reached without.
    """

    kdc: KdcAddress
    transport: str
    realm: str
    address: SocketAddress | None = None

    def __str__(self) -> str:
        text = f"{self.transport} {self.kdc.host} port {self.kdc.port}"
        if self.transport == "https":
            text = str(self.kdc)
        if self.address is not None and self.address.sockaddr[0] != self.kdc.host:
            text += f" ({self.address.sockaddr[0]})"
        return text


def is_reply(message: bytes) -> bool:
    """Return whether `message` looks like a KDC's: exactly one AS-REP, TGS-REP or KRB-ERROR."""
    try:
        tag, _, end = der.read_header(message, 0, len(message))
    except DecodeError:
        return False
    return tag in _REPLY_TAGS and end == len(message)


class Attempt:
    """An attempt to get a reply from a candidate. `started` and `resend_at` are monotonic times."""

    writing = False
    #: Whether the server may have got a part of the request.
    has_sent = False
    resend_at = float("inf")
    #: Whether a message looks like an answer.
    is_reply = staticmethod(is_reply)

    def __init__(self, candidate: Candidate, sock: socket.socket, now: float) -> None:
        self.candidate = candidate
        self.socket = sock
        self.started = now

    def receive(self) -> bytes | list[SocketAddress] | socket.socket | None:
        """Read what has arrived; return a whole reply, what came before one, or None.

        Before a reply come the addresses that were looked up, or a socket that is connected.

        Raises OSError, DecodeError or AttemptError if this attempt has failed.
        """
        raise NotImplementedError

    def resend(self, now: float) -> None:
        """Send the request again; due at `resend_at`."""

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def open_socket(place: Place, socket_type: socket.SocketKind) -> socket.socket:
    """Return a non-blocking socket that is connected, or connecting, to `place`."""
    if isinstance(place, socket.socket):
        place.setblocking(False)
        return place
    sock = socket.socket(place.family, socket_type)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(place.sockaddr)
        if code not in _CONNECTING:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def connected(sock: socket.socket) -> None:
    """Raise OSError if the attempt of `sock` to connect, which has ended, has failed."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
