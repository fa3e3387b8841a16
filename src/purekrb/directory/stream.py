"""What stands between ldap3 and its socket: one whole LDAP message at a time, through TLS or a SASL layer, in time.

`MessageReader` is pure; `MessageSocket` does the I/O. Source: RFC 4511 5.1, 5.2.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from typing import Any

from purekrb.directory.sasl import SecurityLayer
from purekrb.errors import (
    DecodeError,
    KerberosError,
    ProtocolError,
    TransportError,
    TransportTimeoutError,
    UnsupportedError,
)
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.io.blocking import wait_ready
from purekrb.io.steps import Wait
from purekrb.trace import Log

__all__ = ["MAX_MESSAGE", "MAX_RESPONSE", "MessageReader", "MessageSocket"]

_log = Log("purekrb.directory")

#: The largest LDAP message that is accepted, in bytes: one entry with all its values.
MAX_MESSAGE = 64 << 20
#: The most that one request may bring, in bytes: a page of entries.
MAX_RESPONSE = 256 << 20
_READ_SIZE = 65_536
_SEQUENCE = 0x30
_MAX_LENGTH_OCTETS = 4


class MessageReader:
    """Cuts a byte stream into LDAP messages, in linear time; a length that no message has is refused at once."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self._max_message = max_message
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that were fed and not yet returned in a message."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere."""
        self._buffer += data

    def next_message(self) -> bytes | None:
        """Return the next message, or None until it is complete. DecodeError: this is not LDAP, or too large."""
        size = self._size()
        if size is None or len(self._buffer) < size:
            return None
        message = bytes(self._buffer[:size])
        del self._buffer[:size]
        return message

    def _size(self) -> int | None:
        """Return the size of the first message, header included; None where the header is not complete."""
        head = self._buffer[: 2 + _MAX_LENGTH_OCTETS]
        if head and head[0] != _SEQUENCE:
            raise DecodeError(f"an LDAP message starts with 0x30, got 0x{head[0]:02x}: is this an LDAP server?")
        if len(head) < 2:
            return None
        octets = head[1] & 0x7F if head[1] & 0x80 else 0
        if head[1] == 0x80 or octets > _MAX_LENGTH_OCTETS:
            raise DecodeError("the length of an LDAP message is definite and has 1 to 4 octets")
        if len(head) < 2 + octets:
            return None
        length = int.from_bytes(head[2 : 2 + octets], "big") if octets else head[1]
        if length > self._max_message:
            raise DecodeError(f"an LDAP message announces {length} bytes, more than {self._max_message}")
        return 2 + octets + length


class MessageSocket:
    """Stands in for the connected socket of an ldap3 connection, which gets one whole LDAP message from each `recv`.

    ldap3 puts together what its socket returns, and forgets to bound it and the time that it takes. `deadline`
    (`time.monotonic`'s; None: the socket's own timeout) is that of the request under way. Every failure is final: the
    connection is closed, and `failure` is the reason.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = MessageReader()
        self._layer: SecurityLayer | None = None
        self._received = 0
        self._deadline: float | None = None
        self.failure: KerberosError | None = None

    @property
    def layer(self) -> SecurityLayer | None:
        """The SASL layer in force."""
        return self._layer

    @property
    def usable(self) -> bool:
        """Whether a request can be sent: nothing has failed, and the server neither closed nor spoke unasked."""
        return self._socket.fileno() >= 0 and not wait_ready(Wait([self._socket], [], 0.0))

    @property
    def has_tls(self) -> bool:
        """Whether TLS protects this connection."""
        return isinstance(self._socket, ssl.SSLSocket)

    @property
    def channel_bindings(self) -> ChannelBindings | None:
        """What ties a context to the TLS of this connection; None without TLS. Source: RFC 5929 4."""
        if not isinstance(self._socket, ssl.SSLSocket):
            return None
        try:
            return ChannelBindings.tls_server_end_point(self._socket.getpeercert(binary_form=True) or b"")
        except UnsupportedError as error:  # a server that insists on bindings will refuse us
            _log.warning("no channel bindings are sent: %s", error)
            return None

    def detach(self) -> socket.socket:
        """Return the socket, to start TLS on it. Raises ProtocolError if more than the last answer has arrived."""
        self._check_nothing_waits()
        return self._socket

    def begin(self, deadline: float | None) -> None:
        """Say that a request begins, whose answer must be here at `deadline`."""
        self._deadline = deadline
        self._received = 0

    def secure(self, layer: SecurityLayer | None) -> None:
        """Send and receive everything from now on through `layer`."""
        self._check_nothing_waits()
        self._layer = layer

    def recv(self, size: int = 0) -> bytes:
        """Return the next LDAP message, whatever `size` says; b"" where the server has closed between two."""
        try:
            while (message := self._reader.next_message()) is None:
                data = self._read()
                if not data:
                    return self._end()
                self._reader.feed(data if self._layer is None else self._layer.unwrap(data))
            self._received += len(message)
            if self._received > MAX_RESPONSE:
                raise DecodeError(f"the answer to one request has more than {MAX_RESPONSE} bytes")
        except BaseException as error:
            self._fail(error)
            raise
        return message

    def sendall(self, data: bytes) -> None:
        """Send one LDAP message."""
        try:
            if self._layer is not None:
                data = self._layer.wrap(data)
            self._limit()
            try:
                self._socket.sendall(data)
            except OSError as error:
                raise _broken(error) from None
        except BaseException as error:
            self._fail(error)
            raise

    def close(self) -> None:
        """Close the connection, and end the context of its layer."""
        if self._layer is not None:
            self._layer.context.close()
        self._socket.close()

    def __getattr__(self, name: str) -> Any:
        # shutdown, settimeout, getpeername, getpeercert ... are the socket's
        return getattr(self._socket, name)

    def _check_nothing_waits(self) -> None:
        # Who can write into the connection would have his words taken for those of the protected server.
        if self._reader.pending:
            raise ProtocolError("the server sent more before the protection of the connection began")

    def _read(self) -> bytes:
        self._limit()
        try:
            return self._socket.recv(_READ_SIZE)
        except OSError as error:
            raise _broken(error) from None

    def _limit(self) -> None:
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise _late()
            self._socket.settimeout(left)

    def _end(self) -> bytes:
        rest = self._reader.pending + (self._layer.pending if self._layer else 0)
        if rest:
            raise TransportError(f"the server closed the connection in the middle of a message ({rest} bytes are here)")
        return b""

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, KerberosError):
            self.failure = error
            _log.debug("the connection is closed: %s", error)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.close()


def _broken(error: OSError) -> TransportError:
    if isinstance(error, TimeoutError):
        return _late()
    return TransportError(f"the connection to the directory broke: {error.strerror or error}")


def _late() -> TransportTimeoutError:
    return TransportTimeoutError("the directory did not answer in time: is it busy, or the timeout too short?")
