"""What stands between ldap3 and its socket: one whole LDAP message at a time, through TLS or a SASL layer, in time.

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
from purekrb.directory.sasl import SecurityLayer
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

__all__ = ["MAX_MESSAGE", "MAX_RESPONSE", "MAX_RESULT", "MessageReader", "MessageSocket"]

_log = Log("purekrb.directory")

#: The largest LDAP message that is accepted, in bytes: one entry with all its values.
MAX_MESSAGE = 64 << 20
#: The most that one request may bring, in bytes: a page of entries.
MAX_RESPONSE = 256 << 20
#: The largest LDAP message, in bytes, before the server has proved itself; and the largest one that is no entry.
MAX_RESULT = 65_536
#: BER elements that an answer may have, besides one for so many bytes of it: the least that directories need for names
#: and values. With these, an answer costs at most 20 bytes of memory for each of its bytes, whatever it consists of.
_SPARE_ELEMENTS = 20_000
_BYTES_PER_ELEMENT = 5
#: The same of a result alone, which has 4 elements and a few for a referral or controls.
_SPARE_RESULT_ELEMENTS = 64
#: The tag of the result that ends the answer to a request. Source: RFC 4511 4.2 to 4.12.
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
    """Cuts a byte stream into LDAP messages, in linear time; a length that no message has is refused at once."""

    def __init__(self, max_message: int = MAX_MESSAGE) -> None:
        self.max_message = max_message
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
        with memoryview(self._buffer) as view:
            message = bytes(view[:size])
        del self._buffer[:size]
        return message

    def _size(self) -> int | None:
        """Return the size of the first message, header included; None where the header is not complete."""
        head = self._buffer[: 2 + _MAX_LENGTH_OCTETS]
        if head and head[0] != _SEQUENCE:
            raise DecodeError(
                f"an LDAP message starts with 0x30, got 0x{head[0]:02x}: is this an LDAP server?"
            )
        if len(head) < 2:
            return None
        octets = head[1] & 0x7F if head[1] & 0x80 else 0
        if head[1] == 0x80 or octets > _MAX_LENGTH_OCTETS:
            raise DecodeError("the length of an LDAP message is definite and has 1 to 4 octets")
        if len(head) < 2 + octets:
            return None
        length = int.from_bytes(head[2 : 2 + octets], "big") if octets else head[1]
        if length > self.max_message:
            raise DecodeError(
                f"an LDAP message announces {length} bytes, more than {self.max_message}"
            )
        return 2 + octets + length


class MessageSocket:
    """Stands in for the connected socket of an ldap3 connection, which gets one whole LDAP message from each `recv`.

    ldap3 puts together what its socket returns, and forgets to bound it, its structure and the time that it takes.
    `deadline` (`time.monotonic`'s; None: the socket's own timeout) is that of the request under way. Between `begin`
    and `end` ldap3 gets results alone, and `entries` are read here. Until `secure`, the server has not proved itself:
    results are all that it may send, and small ones. Every failure is final: the connection is closed, and `failure`
    is the reason.
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
        """Whether a request can be sent: nothing has failed, and the server neither closed nor spoke unasked."""
        return self._socket.fileno() >= 0 and not wait_ready(Wait([self._socket], [], 0.0))

    @property
    def has_tls(self) -> bool:
        """Whether TLS protects this connection."""
        return isinstance(self._socket, ssl.SSLSocket)

    @property
    def channel_bindings(self) -> ChannelBindings | None:
        """What ties a context to the TLS of this connection; None without TLS. Source: RFC 5929 4.

        Raises PolicyError where the certificate has none: a context that nothing ties to TLS must be asked for
        without it.
        """
        if not isinstance(self._socket, ssl.SSLSocket):
            return None
        try:
            return ChannelBindings.tls_server_end_point(
                self._socket.getpeercert(binary_form=True) or b""
            )
        except UnsupportedError as error:
            raise PolicyError(
                f"nothing can tie the bind to TLS: {error}; use ldap:// without StartTLS, which Kerberos seals, or a "
                "directory whose certificate is signed with RSA or ECDSA"
            ) from None

    def is_verified_for(self, names: Collection[str]) -> bool:
        """Return whether the certificate of this TLS connection was verified, and is for one of `names`."""
        sock = self._socket
        if not isinstance(sock, ssl.SSLSocket):
            return False
        try:
            certificate = sock.getpeercert()
        except ValueError:  # before the handshake
            return False
        if not certificate:  # nobody looked who issued it
            return False
        if sock.context.check_hostname and sock.server_hostname in names:
            return True
        return any(_is_for(certificate, name) for name in names)

    def detach(self) -> socket.socket:
        """Return the socket, to start TLS on it. Raises ProtocolError if more than the last answer has arrived."""
        self._check_nothing_waits()
        return self._socket

    def begin(
        self, deadline: float | None, *, searching: bool = False, wanted: Wanted = None
    ) -> None:
        """Say that a request begins, whose answer must be here at `deadline`; `wanted` are a search's attributes."""
        self._deadline = deadline
        self._reads, self._searching, self._wanted = True, searching, wanted
        self.entries = []

    def end(self) -> None:
        """Say that the request is over: what is asked for next, ldap3 reads alone, in its own time."""
        self._deadline = None
        self._reads, self._searching, self._wanted = False, False, None
        self.entries = []

    def secure(self, layer: SecurityLayer | None) -> None:
        """Send and receive everything from now on through `layer`: the server has proved itself."""
        self._check_nothing_waits()
        self._layer = layer
        self._bound = True
        self._reads = False
        self._reader.max_message = MAX_MESSAGE

    def recv(self, size: int = 0) -> bytes:
        """Return the next LDAP message for ldap3, whatever `size` says; b"" where the server has closed between two."""
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
        """Return whether `message` is for ldap3. Its structure is checked and counted before it costs anything."""
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
            _log.debug("the directory refers to %s, which is not followed", urls)
        return False

    def _check_answers(self, header: Header, part: bool) -> None:
        """Raise ProtocolError for what does not belong into the answer to the request under way."""
        ours = header.number == self._number
        if part and not (ours and self._searching and header.operation != INTERMEDIATE):
            raise ProtocolError("the server sends parts of an answer that nothing asked for")
        if ours and not part and header.operation != self._result:
            raise ProtocolError(
                "the server answers something else than it was asked",
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
        # shutdown, settimeout, getpeername, getpeercert ... are the socket's
        return getattr(self._socket, name)

    def _check_nothing_waits(self) -> None:
        # Who can write into the connection would have his words taken for those of the protected server.
        if self._reader.pending:
            raise ProtocolError(
                "the server sent more before the protection of the connection began"
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
        """Return the seconds until the deadline, None without one. Raises TransportTimeoutError where it has passed."""
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
                f"the server closed the connection in the middle of a message ({rest} bytes are here)"
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
    """Return whether `certificate`, as `getpeercert` has it, is for the host `name`. Source: RFC 9525 6.3, 6.5."""
    address = _address(name)
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "DNS" and address is None and _covers(value, name):
            return True
        if kind == "IP Address" and address is not None and _address(value) == address:
            return True
    return False


def _covers(pattern: str, name: str) -> bool:
    """Return whether the DNS name `pattern`, whose first label may be "*", stands for `name`."""
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
        "the directory did not answer in time: is it busy, or the timeout too short?"
    )
