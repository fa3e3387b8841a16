"""The layer between ldap3 and its socket: whole LDAP messages, through TLS or SASL, in time.

`MessageReader` is pure; `MessageSocket` does the I/O. Source: RFC 4511 5.1, 5.2.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from purekrb.directory.answers import (
    INTERMEDIATE,
    SEARCH_ENTRY,
    SEARCH_REFERENCE,
    Entry,
    Header,
    Wanted,
    count_elements,
    header_of,
    read_entry,
    read_urls,
    request_of,
)
from purekrb.errors import (
    DecodeError,
    KerberosError,
    PolicyError,
    ProtocolError,
    TransportError,
    TransportTimeoutError,
    UnsupportedError,
)
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.io.blocking import wait_ready
from purekrb.io.steps import Wait
from purekrb.log import Log
from purekrb.sasl import SecurityLayer

__all__ = ["MAX_MESSAGE", "MAX_RESPONSE", "MAX_RESULT", "MessageReader", "MessageSocket"]

_log = Log("purekrb.directory")

#: The largest LDAP message in bytes: one entry with all its values.
MAX_MESSAGE = 64 << 20
#: The largest answer to one request in bytes: a page of entries.
MAX_RESPONSE = 256 << 20
#: The largest LDAP message in bytes before the server has proved its identity; and after that, the
#: largest message that is not an entry.
MAX_RESULT = 65_536
#: An answer may have one BER element per so many bytes, and some to spare: what directories need
#: for names and values. So an answer costs at most 20 bytes of memory for each of its own bytes.
_SPARE_ELEMENTS = 20_000
_BYTES_PER_ELEMENT = 5
#: The elements to spare in a result, which has 4, and a few for a referral or controls.
_SPARE_RESULT_ELEMENTS = 64
#: The tag of a request -> the tag of the result that ends its answer. Source: RFC 4511 4.2 to 4.12.
_RESULTS = {
    0x60: 0x61,
    0x63: 0x65,
    0x66: 0x67,
    0x68: 0x69,
    0x4A: 0x6B,
    0x6C: 0x6D,
    0x6E: 0x6F,
    0x77: 0x78,
}
_READ_SIZE = 65_536
_SEQUENCE = 0x30
_MAX_LENGTH_OCTETS = 4


class MessageReader:
    """Cuts a byte stream into LDAP messages, in linear time; refuses excessive lengths at once."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self.max_message = max_message
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """The number of bytes that were fed and not yet returned in a message."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere."""
        self._buffer += data

    def next_message(self) -> bytes | None:
        """Return the next message, or None until it is complete.

        Raises DecodeError if the message is too large, or if this is not LDAP.
        """
        size = self._size()
        if size is None or len(self._buffer) < size:
            return None
        with memoryview(self._buffer) as view:
            message = bytes(view[:size])
        del self._buffer[:size]
        return message

    def _size(self) -> int | None:
        """Return the size of the first message and its header; None if the header is incomplete."""
        head = self._buffer[: 2 + _MAX_LENGTH_OCTETS]
        if head and head[0] != _SEQUENCE:
            raise DecodeError(
                f"an LDAP message starts with 0x30, got 0x{head[0]:02x}: is this an LDAP server?"
            )
        if len(head) < 2:
            return None
        octets = head[1] & 0x7F if head[1] & 0x80 else 0
        if head[1] == 0x80 or octets > _MAX_LENGTH_OCTETS:  # RFC 4511 5.1: definite lengths only
            raise DecodeError(
                "the length of an LDAP message is indefinite or has more than 4 octets"
            )
        if len(head) < 2 + octets:
            return None
        length = int.from_bytes(head[2 : 2 + octets], "big") if octets else head[1]
        if length > self.max_message:
            raise DecodeError(
                f"an LDAP message announces {length} bytes, more than {self.max_message}"
            )
        return 2 + octets + length


class MessageSocket:
    """Replaces the connected socket of an ldap3 connection; `recv` returns one whole LDAP message.

    ldap3 reassembles messages without a limit on their size, structure or time. Here a request has
    a `deadline` (`time.monotonic`'s; None: the socket's own timeout). Between `begin` and `end`,
    ldap3 only gets results, and `entries` are read here. Until `secure`, the server has not proved
    its
    identity: it may only send small results. Every failure is final: it closes the connection and
    is kept in `failure`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = MessageReader(MAX_RESULT)
        self._layer: SecurityLayer | None = None
        self._bound = False
        self._number, self._result = 0, 0
        self._received, self._elements = 0, 0
        self._deadline: float | None = None
        self._reads, self._searching = False, False
        self._wanted: Wanted = None
        self.entries: list[Entry] = []
        self.failure: KerberosError | None = None

    @property
    def layer(self) -> SecurityLayer | None:
        """The SASL layer in force."""
        return self._layer

    @property
    def usable(self) -> bool:
        """Whether a request can be sent: nothing has failed, and nothing waits to be read."""
        return self._socket.fileno() >= 0 and not wait_ready(Wait([self._socket], [], 0.0))

    @property
    def encrypted(self) -> bool:
        """Whether TLS or a sealing layer encrypts the messages."""
        return self.has_tls or (self._layer is not None and self._layer.sealed)

    @property
    def has_tls(self) -> bool:
        """Whether TLS protects this connection."""
        return isinstance(self._socket, ssl.SSLSocket)

    @property
    def channel_bindings(self) -> ChannelBindings | None:
        """The channel bindings that tie a context to TLS; None without TLS. Source: RFC 5929 4.

        Raises PolicyError if the certificate does not permit channel bindings.
        """
        if not isinstance(self._socket, ssl.SSLSocket):
            return None
        try:
            return ChannelBindings.tls_server_end_point(
                self._socket.getpeercert(binary_form=True) or b""
            )
        except UnsupportedError as error:
            raise PolicyError(
                f"the bind cannot be tied to TLS: {error}; "
                "use ldap:// without StartTLS, which Kerberos seals, "
                "or a directory whose certificate is signed with RSA or ECDSA"
            ) from None

    def is_verified_for(self, names: Collection[str]) -> bool:
        """Return whether the TLS certificate was verified and is for one of `names`.

        Source: RFC 9525 6.
        """
        sock = self._socket
        if not isinstance(sock, ssl.SSLSocket):
            return False
        try:
            certificate = sock.getpeercert()
        except ValueError:  # before the handshake
            return False
        if not certificate:  # the issuer was not checked
            return False
        if sock.context.check_hostname and sock.server_hostname in names:
            return True
        return any(_is_for(certificate, name) for name in names)

    def detach(self) -> socket.socket:
        """Return the socket, to start TLS on it.

        Raises ProtocolError if data after the last answer has arrived (RFC 4511 4.14.1).
        """
        self._check_nothing_waits()
        return self._socket

    def begin(
        self, deadline: float | None, *, searching: bool = False, wanted: Wanted = None
    ) -> None:
        """Begin a request whose answer is due at `deadline`; `wanted`: attributes of a search."""
        self._deadline = deadline
        self._reads, self._searching, self._wanted = True, searching, wanted
        self.entries = []

    def end(self) -> None:
        """End the request. From now on ldap3 reads its answers itself, without a deadline."""
        self._deadline = None
        self._reads, self._searching, self._wanted = False, False, None
        self.entries = []

    def secure(self, layer: SecurityLayer | None) -> None:
        """Send and receive everything through `layer` from now on: the server is authenticated."""
        self._check_nothing_waits()
        self._layer = layer
        self._bound = True
        self._reads = False
        self._reader.max_message = MAX_MESSAGE

    def recv(self, size: int = 0) -> bytes:
        """Return the next LDAP message for ldap3, of any size; b"" if the server has closed."""
        try:
            while message := self._next_message():
                if self._admit(message):
                    break
        except BaseException as error:
            self._fail(error)
            raise
        return message

    def _next_message(self) -> bytes:
        while (message := self._reader.next_message()) is None:
            data = self._read()
            if not data:
                return self._end()
            self._reader.feed(data if self._layer is None else self._layer.unwrap(data))
        return message

    def _admit(self, message: bytes) -> bool:
        """Return whether `message` is for ldap3.

        Its size and structure are checked before anything expensive is done with it.
        """
        self._left()
        header = header_of(message)
        part = header.operation in (SEARCH_ENTRY, SEARCH_REFERENCE, INTERMEDIATE)
        reads = self._reads or not self._bound
        if reads:
            self._check_answers(header, part)
        self._received += len(message)
        most = MAX_RESPONSE if self._bound else MAX_RESULT
        if self._received > most:
            raise DecodeError(f"the answer to one request has more than {most} bytes")
        if part or not reads:
            allowed = _SPARE_ELEMENTS + self._received // _BYTES_PER_ELEMENT - self._elements
            self._elements += count_elements(message, header, allowed, self._left)
        else:
            if len(message) > MAX_RESULT:
                raise DecodeError(f"the result of a request has more than {MAX_RESULT} bytes")
            count_elements(
                message,
                header,
                _SPARE_RESULT_ELEMENTS + len(message) // _BYTES_PER_ELEMENT,
                self._left,
            )
        if not (reads and part):
            return True
        if header.operation == SEARCH_ENTRY:
            self.entries.append(read_entry(message, header, self._wanted, self._left))
        else:
            urls = ", ".join(read_urls(message, header))
            _log.debug("a referral of the directory to %s is not followed", urls)
        return False

    def _check_answers(self, header: Header, part: bool) -> None:
        """Raise ProtocolError for a message that is not part of the answer to the current request.

        Source: RFC 4511 4.1.1.1, 4.5.2.
        """
        ours = header.number == self._number
        if part and not (ours and self._searching and header.operation != INTERMEDIATE):
            raise ProtocolError("the server sends parts of an answer without a request for them")
        if ours and not part and header.operation != self._result:
            raise ProtocolError(
                "the server's answer is not of the kind that was asked for",
                expected=f"the tag 0x{self._result:02x}",
                got=f"0x{header.operation:02x}",
            )

    def sendall(self, data: bytes) -> None:
        """Send one LDAP message, a request."""
        try:
            self._limit()
            self._number, operation = request_of(data)
            self._result = _RESULTS.get(operation, 0)
            self._received = self._elements = 0
            if self._layer is not None:
                data = self._layer.wrap(data)
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
        # shutdown, settimeout, getpeername, getpeercert and so on are those of the socket.
        return getattr(self._socket, name)

    def _check_nothing_waits(self) -> None:
        # Data that an attacker injects before the protection begins would count as the server's.
        # Source: RFC 4511 4.14.1.
        if self._reader.pending:
            raise ProtocolError(
                "the server sent more data before the protection of the connection began"
            )

    def _read(self) -> bytes:
        self._limit()
        try:
            return self._socket.recv(_READ_SIZE)
        except OSError as error:
            raise _broken(error) from None

    def _limit(self) -> None:
        left = self._left()
        if left is not None:
            self._socket.settimeout(left)

    def _left(self) -> float | None:
        """Return the seconds until the deadline; None without one.

        Raises TransportTimeoutError if it has passed.
        """
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _late()
        return left

    def _end(self) -> bytes:
        rest = self._reader.pending + (self._layer.pending if self._layer else 0)
        if rest:
            raise TransportError(
                "the server closed the connection in the middle of a message "
                f"({rest} bytes of it have arrived)"
            )
        return b""

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, KerberosError):
            self.failure = error
            _log.debug("the connection is closed: %s", error)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.close()


def _is_for(certificate: Mapping[str, Any], name: str) -> bool:
    """Return whether `certificate`, as returned by `getpeercert`, is for the host `name`.

    Source: RFC 9525 6.3, 6.5.
    """
    address = _address(name)
    for name_type, value in certificate.get("subjectAltName", ()):
        if name_type == "DNS" and address is None and _covers(value, name):
            return True
        if name_type == "IP Address" and address is not None and _address(value) == address:
            return True
    return False


def _covers(pattern: str, name: str) -> bool:
    """Return whether the DNS name `pattern`, whose first label may be "*", matches `name`.

    Source: RFC 9525 6.3.
    """
    first, *rest = pattern.lower().split(".")
    host, *domain = name.lower().rstrip(".").split(".")
    return rest == domain and (first == host or (first == "*" and len(rest) > 1))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.strip())
    except ValueError:
        return None


def _broken(error: OSError) -> TransportError:
    if isinstance(error, TimeoutError):
        return _late()
    return TransportError(f"the connection to the directory broke: {error.strerror or error}")


def _late() -> TransportTimeoutError:
    return TransportTimeoutError(
        "the directory did not answer in time: is it busy, or is the timeout too short?"
    )
