"""A KDC over TCP: one connection for each request. Source: RFC 4120 7.2.2.

Keeping connections open would not help: MIT's KDC closes a connection after its reply.
"""

from __future__ import annotations

import errno
import socket

from purekrb.io.framing import FrameReader, encode_frame
from purekrb.kdc.attempt import Attempt, AttemptError, Candidate, Place, connected, open_socket
from purekrb.krb5conf.config import Config

__all__ = ["MAX_REPLY", "TcpAttempt", "reply_reader"]

#: The largest reply in bytes, the same as in other implementations.
MAX_REPLY = 1 << 20
#: The errors of sending before the connection is established; they depend on the platform.
_NOT_YET = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOTCONN)


class TcpAttempt(Attempt):
    """One request and one reply over a new connection, each after its length."""

    def __init__(
        self,
        candidate: Candidate,
        place: Place,
        message: bytes,
        _config: Config,
        now: float,
    ) -> None:
        super().__init__(candidate, open_socket(place, socket.SOCK_STREAM), now)
        self._unsent = memoryview(encode_frame(message))
        self._reader = reply_reader()
        try:
            self._send()  # a KDC on this machine is connected by now
        except OSError as error:
            self.writing = True
            if error.errno not in _NOT_YET:
                self.close()
                raise

    def receive(self) -> bytes | None:
        """Continue to send, or read bytes; return the reply once it is complete."""
        try:
            if self.writing:
                connected(self.socket)
                self._send()
                return None
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        if not data:
            raise AttemptError(f"it closed the connection after {self._reader.pending} bytes")
        self._reader.feed(data)
        reply = self._reader.next_frame()
        if reply is not None and not self.is_reply(reply):
            raise AttemptError("its reply is not Kerberos")
        return reply

    def _send(self) -> None:
        self._unsent = self._unsent[self.socket.send(self._unsent) :]
        self.has_sent = True
        self.writing = bool(self._unsent)


def reply_reader() -> FrameReader:
    """Return the reader of one reply."""
    refusal = "its reply starts with 0x{length:08x} in place of a length (1 to {limit})"
    return FrameReader(MAX_REPLY, "big", refusal)
