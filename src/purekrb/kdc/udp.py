"""A KDC over UDP: one datagram each way. Source: RFC 4120 7.2.1."""

from __future__ import annotations

import socket

from purekrb.kdc.attempt import Attempt, Candidate, Place, open_socket
from purekrb.krb5conf.config import Config
from purekrb.log import Log

__all__ = ["RESEND", "UdpAttempt"]

_log = Log("purekrb.kdc")

#: Seconds until a datagram is sent again; the pause doubles each time.
RESEND = 1.0
_LARGEST = 65535


class UdpAttempt(Attempt):
    """One datagram, sent a few times. The socket is connected, so only the KDC can answer."""

    def __init__(
        self,
        candidate: Candidate,
        place: Place,
        message: bytes,
        config: Config,
        now: float,
    ) -> None:
        super().__init__(candidate, open_socket(place, socket.SOCK_DGRAM), now)
        self._message = message
        self._left = max(config.max_retries, 1)
        self._pause = RESEND
        try:
            self.resend(now)
        except BaseException:
            self.close()
            raise

    def resend(self, now: float) -> None:
        """Send the datagram again, with a longer pause each time."""
        self._left -= 1
        self.resend_at = now + self._pause if self._left else float("inf")
        self._pause *= 2
        try:
            self.socket.send(self._message)
            self.has_sent = True
        except BlockingIOError:
            _log.debug("%s: the datagram is lost, the socket's buffer is full", self.candidate)

    def receive(self) -> bytes | None:
        """Return the datagram if it is a reply."""
        try:
            reply = self.socket.recv(_LARGEST)
        except BlockingIOError:
            return None
        if not self.is_reply(reply):
            _log.debug(
                "%s: ignored a datagram of %d bytes that is not a reply", self.candidate, len(reply)
            )
            return None
        return reply
