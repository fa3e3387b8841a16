"""One end of a sealed stream without I/O: the handshake, messages, and the authenticated end.

The blocking and the asyncio channel carry bytes between a socket and a SealedStream, which makes
all decisions. docs/wire-format.md describes the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from purekrb.authorization import is_allowed
from purekrb.channel.framing import check_max_frame, encode_frame, frame_reader
from purekrb.constants import Flag, flag_names
from purekrb.errors import ContextError, KerberosError, PolicyError, ProtocolError, TransportError
from purekrb.gss.context import SecurityContext
from purekrb.gss.initiator import Initiator
from purekrb.log import Log

__all__ = [
    "Authorize",
    "CHANNEL_FLAGS",
    "HANDSHAKE_TIMEOUT",
    "MAX_HANDSHAKES",
    "MAX_PER_SOURCE",
    "MAX_ROUNDS",
    "SealedStream",
    "check_flags",
    "error_frame",
]

log = Log("purekrb.channel")

#: The context of a channel: an Initiator at the client, an Acceptor at the server; `Channel` alone
#: means either.
if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from purekrb.gss.acceptor import Acceptor

    Context = TypeVar("Context", bound=SecurityContext, default=SecurityContext, covariant=True)
else:
    from typing import TypeVar

    Context = TypeVar("Context", covariant=True)

#: Tells whether an authenticated client may come in.
Authorize = Callable[["Acceptor"], bool]

#: The flags that an established context must have, on both sides.
CHANNEL_FLAGS = Flag.MUTUAL | Flag.CONF | Flag.INTEG | Flag.SEQUENCE
#: The most tokens that one end may make and take before the context is established.
MAX_ROUNDS = 10
#: Seconds that a client has for the handshake.
HANDSHAKE_TIMEOUT = 10.0
#: The most connections of one server that are in the handshake at the same time.
MAX_HANDSHAKES = 256
#: The most of them that may come from one source address, once half of the places are taken.
MAX_PER_SOURCE = 32


def check_flags(flags: Flag) -> None:
    """Raise ValueError if a context with `flags` does not suffice for a channel."""
    missing = CHANNEL_FLAGS & ~flags
    if missing:
        raise ValueError(f"a channel needs {', '.join(flag_names(Flag, missing))}: add it to flags")


def error_frame(error: BaseException) -> bytes:
    """Return the frame that tells the peer why the handshake failed; b"" if it must not know."""
    if isinstance(error, KerberosError) and error.response:
        return encode_frame(error.response)
    return b""


class SealedStream:
    """One end of a channel: bytes from the peer go in and messages come out, and vice versa.

    `authorize(context)` tells whether the peer may come in, before it gets its last token.

    Call `begin()` and then `handshake(data)` until `established`; after that `seal`, `feed` and
    `next_message`. After any error, the stream and its context are closed, and every call raises;
    the caller closes the connection.
    """

    def __init__(
        self,
        context: SecurityContext,
        *,
        max_frame: int,
        authorize: Authorize | None = None,
    ) -> None:
        self.context = context
        self._authorize = authorize
        self.established = False
        self.closed = False
        self.peer_closed = False
        self._max_frame = check_max_frame(max_frame)
        self.rounds = 0  # the number of tokens made or taken so far
        self._reader = frame_reader(context.max_token)
        self._max_message = 0

    def begin(self) -> bytes:
        """Return the first bytes to send: an initiator's token, or b"" for an acceptor."""
        with self._fatal():
            return self._step(None) if isinstance(self.context, Initiator) else b""

    def handshake(self, data: bytes) -> bytes:
        """Take bytes that arrived (b"": the peer closed), and return the bytes to send, if any.

        Any KerberosError ends the handshake: send `error_frame(error)` before closing.
        """
        self.feed(data)
        return self.advance()

    @property
    def has_token(self) -> bool:
        """Whether a whole token has arrived for `advance`."""
        return self._reader.has_frame

    def advance(self) -> bytes:
        """Take the tokens that have arrived; return the bytes to send. Raises like `handshake`."""
        out = b""
        with self._fatal():
            while not self.established and (token := self._reader.next_frame()) is not None:
                out += self._step(token)
        return out

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived.

        b"" is the end of the connection. Raises TransportError if there was no close notice before.
        """
        self._check_open()
        self._reader.feed(data)
        if not data and not self.peer_closed:
            self.abort()
            if not self.established:
                raise TransportError(
                    "the peer closed the connection during the handshake: its log may tell why"
                )
            raise TransportError(
                "the connection was cut: no close notice came, only "
                f"{self._reader.pending} bytes of an unfinished frame; "
                "the peer may have meant to send more than was received"
            )

    def next_message(self) -> bytes | None:
        """Return the next message; None if more bytes are needed or if `peer_closed` is set.

        A refused frame or token (DecodeError, IntegrityError, SequenceError and so on) closes the
        stream.
        """
        self._check_open()
        with self._fatal():
            if self.peer_closed or (token := self._reader.next_frame()) is None:
                return None
            message = self.context.unwrap(token, sealed=True)
        if message:
            return message
        self.peer_closed = True
        log.debug("close notice received: the peer will not send more")
        return None

    def seal(self, message: bytes) -> bytes:
        """Return the frame that carries `message`; b"" for an empty message, which is not sent."""
        self._check_open()
        if self.peer_closed:
            raise TransportError(
                "the peer has closed the channel and does not read any more: connect again"
            )
        if len(message) > self._max_message:
            raise ValueError(
                f"a message of {len(message)} bytes does not fit into a frame of "
                f"{self._max_frame}: "
                f"send at most {self._max_message} at once, or raise max_frame on both sides"
            )
        return encode_frame(self.context.wrap(message, sealed=True)) if message else b""

    def seal_close(self) -> bytes:
        """Close the stream; return the close notice, a sealed empty message, or b"" if useless."""
        notice = b""
        if self.established and not self.closed and not self.peer_closed:
            try:
                notice = encode_frame(self.context.wrap(b"", sealed=True))
            except KerberosError as error:  # an expired context cannot seal
                log.debug("no close notice: %s", error)
        self.abort()
        return notice

    def abort(self) -> None:
        """Close the stream and its context without a notice: the peer will see that it was cut."""
        self.closed = True
        self.context.close()

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abort()
            raise

    def _check_open(self) -> None:
        if self.closed:
            raise ContextError("the channel is closed, here or by an earlier error: connect again")

    def _step(self, in_token: bytes | None) -> bytes:
        self.rounds += 1
        if self.rounds > MAX_ROUNDS:
            raise ProtocolError(
                "the handshake does not end: the peer keeps sending tokens", expected=MAX_ROUNDS
            )
        token = self.context.step(in_token)
        if self.context.established:
            missing = CHANNEL_FLAGS & ~self.context.flags
            if missing:
                raise PolicyError(
                    f"the context lacks {', '.join(flag_names(Flag, missing))}, which a channel "
                    "needs: let the client ask for mutual authentication, sequence, integrity and "
                    "confidentiality"
                )
            if self._authorize is not None and not is_allowed(
                self._authorize(cast("Acceptor", self.context))
            ):
                raise PolicyError(
                    f"{self.context.initiator} is authenticated, and may not come in: "
                    "let a function that is passed as authorize= decide otherwise"
                )
            self._reader.max_frame = self._max_frame
            self._max_message = self.context.wrap_size_limit(self._max_frame)
            self.established = True
            log.debug(
                "channel established: %s -> %s", self.context.initiator, self.context.acceptor
            )
        return encode_frame(token) if token else b""
