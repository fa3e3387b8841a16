"""SASL over security contexts: the mechanisms GSSAPI and GSS-SPNEGO, and their security layers.

Pure: bytes in, bytes out, for both sides. The protocol around SASL (LDAP, IMAP, Kafka) carries the
tokens and the outcome.

    client.step() -> response ----------------------> server.step(response) -> challenge
    client.step(challenge) -> response <------------/            ... until server.complete
    client.succeed() -> the security layer <--------- success    server.security

Source: RFC 4422, RFC 4752 (GSSAPI); MS-ADTS 5.1.1.1.2 (GSS-SPNEGO, whose layer follows from the
flags of the context).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import IntFlag
from typing import ClassVar, NamedTuple

from purekrb.authorization import is_allowed
from purekrb.channel.stream import MAX_ROUNDS
from purekrb.constants import Flag, flag_names
from purekrb.errors import ContextError, PolicyError, ProtocolError
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.context import SecurityContext
from purekrb.gss.initiator import Initiator
from purekrb.io.framing import FrameReader, encode_frame
from purekrb.log import Log
from purekrb.names import Principal

__all__ = [
    "CLIENTS",
    "MAX_BUFFER",
    "GssapiClient",
    "GssapiServer",
    "GssSpnegoClient",
    "GssSpnegoServer",
    "Layer",
    "SaslClient",
    "SecurityLayer",
    "context_flags",
]

_log = Log("purekrb.sasl")

#: The largest buffer that we accept: the most that the three octets of RFC 4752 3.3 can express.
MAX_BUFFER = 0xFF_FFFF
#: The largest buffer that we send. Servers take at least this size, even if the mechanism does not
#: let them say so.
_MAX_SENT = 0x1_0000
#: The smallest buffer that is worth sending: a token has up to 72 bytes besides the data.
_MIN_SENT = 256


class Layer(IntFlag):
    """The security layers, with their bits in the negotiation. Source: RFC 4752 3.3."""

    NONE = 1
    INTEGRITY = 2
    CONFIDENTIALITY = 4


#: All layers, and whether each one needs a flag of the context.
_ALL = Layer.NONE | Layer.INTEGRITY | Layer.CONFIDENTIALITY
_NEEDS = {
    Layer.CONFIDENTIALITY: Flag.CONF,
    Layer.INTEGRITY: Flag.INTEG,
    Layer.NONE: Flag(0),
}


class _Reply(NamedTuple):
    """The peer's token, and at a client, whether it came with the server's success.

    A token of b"" means that there is none.
    """

    token: bytes
    final: bool = False


def context_flags(layer: Layer) -> Flag:
    """Return the flags to request of a context, so that `layer` can be negotiated on it.

    For several layers, these are the flags of the strongest.
    """
    if layer == Layer.NONE:
        # A server would read INTEG as a request for a layer, which is not allowed inside TLS.
        return Flag.MUTUAL
    flags = Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE | Flag.INTEG
    return flags | Flag.CONF if layer & Layer.CONFIDENTIALITY else flags


class SecurityLayer:
    """The protection of a connection after the authentication.

    Data go in buffers: a length of 4 bytes, big-endian, and a Wrap token. `max_send` and
    `max_receive` are the largest buffers, without the length, in each direction.
    Source: RFC 4752 3.3, RFC 4422 3.7.
    """

    def __init__(
        self,
        context: SecurityContext,
        *,
        sealed: bool,
        max_send: int,
        max_receive: int = MAX_BUFFER,
    ) -> None:
        self.context = context
        self.sealed = sealed
        self._max_data = context.wrap_size_limit(max_send, sealed)
        refusal = (
            "a SASL buffer announces {length} bytes, expected 1 to {limit}: "
            "the peer does not keep to the security layer that was agreed on"
        )
        self._reader = FrameReader(max_receive, "big", refusal)

    @property
    def pending(self) -> int:
        """The number of bytes of an incomplete buffer."""
        return self._reader.pending

    def wrap(self, data: bytes) -> bytes:
        """Return `data` in as many buffers as the peer's limit requires."""
        return b"".join(
            encode_frame(self.context.wrap(data[start : start + self._max_data], self.sealed))
            for start in range(0, len(data), self._max_data)
        )

    def unwrap(self, data: bytes) -> bytes:
        """Take the next bytes of the connection; return the data of all complete buffers.

        Raises DecodeError for a length that was not agreed on, and IntegrityError, SequenceError
        and so on for a forged token. After any error the connection must be closed.
        """
        self._reader.feed(data)
        found = bytearray()
        while (token := self._reader.next_frame()) is not None:
            found += self.context.unwrap(token, self.sealed)
        return bytes(found)


#: A side yields what to send, receives the peer's replies, and returns its last token, None if
#: there is none, and the security layer.
_Steps = Generator[bytes, _Reply, "tuple[bytes | None, SecurityLayer | None]"]


class _Exchange:
    """The common part of clients and servers. Any error is final."""

    #: The name of the mechanism in the protocol.
    mechanism: ClassVar[str]

    def __init__(self, context: SecurityContext, layers: Layer, max_buffer: int) -> None:
        if not 0 < layers <= int(_ALL):
            raise ValueError("layers are some of Layer.NONE, INTEGRITY and CONFIDENTIALITY")
        if not _MIN_SENT <= max_buffer <= MAX_BUFFER:
            raise ValueError(f"max_buffer is {max_buffer}, expected {_MIN_SENT} to {MAX_BUFFER}")
        self.context = context
        #: The layer agreed on, for the data after the success; None if they go as they are.
        self.security: SecurityLayer | None = None
        #: Whether the exchange has succeeded.
        self.complete = False
        self._layers = layers
        self._max_buffer = max_buffer
        self._steps = self._begin()
        self._over = False
        next(self._steps)

    def _begin(self) -> _Steps:
        """Return the steps of this side. The first reply, which it asks for at once, starts it."""
        raise NotImplementedError

    def _advance(self, reply: _Reply) -> bytes | None:
        """Take the peer's reply and return the next token."""
        if self._over:
            raise ContextError(f"this {self.mechanism} exchange is over: begin a new one")
        try:
            return self._steps.send(reply)
        except StopIteration as end:
            self._over = self.complete = True
            token: bytes | None
            token, self.security = end.value
            return token
        except BaseException:
            self._over = True
            raise

    def _secured(self, layer: Layer, max_send: int) -> SecurityLayer | None:
        if layer is Layer.NONE:
            return None
        return SecurityLayer(
            self.context,
            sealed=layer is Layer.CONFIDENTIALITY,
            max_send=min(max_send, _MAX_SENT),
            max_receive=self._max_buffer,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.context!r}>"


class SaslClient(_Exchange):
    """The client's side. `context` is new, with at least the flags of `context_flags(layer)`.

    `layer` names the acceptable security layers; the strongest of them that the server offers is
    chosen. `authzid` is who the client wants to act as, "" for itself. `max_buffer` is the largest
    buffer that the server may send, in bytes. Call `step` for each challenge of the server, and
    `succeed` when the protocol says that authentication succeeded.
    """

    context: Initiator
    #: Whether the latest response was the last one: what is left is the server's outcome.
    is_last = False

    def __init__(
        self,
        context: Initiator,
        *,
        layer: Layer = Layer.CONFIDENTIALITY,
        authzid: str = "",
        max_buffer: int = MAX_BUFFER,
    ) -> None:
        self._authzid = authzid.encode()
        super().__init__(context, layer, max_buffer)

    def step(self, challenge: bytes | None = None) -> bytes:
        """Return the response to the server's challenge; without one, the initial response.

        Raises PolicyError if the server offers no acceptable layer, ProtocolError and DecodeError
        if it does not keep to the mechanism, and the errors of `SecurityContext.step`.
        """
        return self._advance(_Reply(challenge or b"")) or b""

    def succeed(self, data: bytes = b"") -> SecurityLayer | None:
        """Take the server's success and its additional `data`; return the security layer.

        It is None if no layer was agreed on. Raises ProtocolError if the server has not proved its
        identity, or has not agreed on a layer, and the errors of `step`.
        """
        self._advance(_Reply(data, final=True))
        if not self.complete:  # it was the first call
            self._over = True
            raise _too_early()
        return self.security


class GssapiClient(SaslClient):
    """The client's side of the mechanism GSSAPI. Source: RFC 4752 3.1."""

    mechanism = "GSSAPI"

    def _begin(self) -> _Steps:
        context = self.context
        reply = yield b""
        if reply.token:  # RFC 4752 3.1: the client speaks first
            raise ProtocolError("the server sent a token before the client's first one")
        response = context.step() or b""
        for _ in range(MAX_ROUNDS):
            reply = yield response
            if reply.final:
                raise _too_early()
            if context.established:
                break
            response = context.step(reply.token) or b""
        else:
            raise _endless()
        layer, answer, max_send = self._choose(context.unwrap(reply.token, sealed=False))
        self.is_last = True
        reply = yield context.wrap(answer + self._authzid, sealed=False)
        if not reply.final or reply.token:
            # RFC 4752 3.2: the server's answer to the choice is the outcome.
            raise ProtocolError(
                "the server continues to negotiate after the security layer was chosen"
            )
        return None, self._secured(layer, max_send)

    def _choose(self, offer: bytes) -> tuple[Layer, bytes, int]:
        """Return the layer chosen of the server's offer, our answer, and the limit of its buffers.

        Source: RFC 4752 3.1, 3.3.
        """
        if len(offer) != 4:
            raise ProtocolError(
                "the server's offer of security layers has the wrong length",
                expected="4 octets",
                got=len(offer),
            )
        offered, max_send = Layer(offer[0] & _ALL), int.from_bytes(offer[1:], "big")
        _log.debug("the server offers %s, buffers of %d bytes", _named(offered), max_send)
        # RFC 4752 3.1: the client selects, and never less than it asked for.
        layer = _strongest(self._layers & offered)
        if layer is None:
            raise PolicyError(
                f"the server does not offer the security layer {_named(self._layers)} "
                f"(its offer: 0x{offer[0]:02x}), and no weaker one is accepted; "
                "configure the server, or connect with TLS"
            )
        if layer is Layer.NONE:
            return layer, bytes((layer, 0, 0, 0)), 0
        _check_max_send(max_send, "server")
        return layer, bytes((layer, *self._max_buffer.to_bytes(3, "big"))), max_send


class GssSpnegoClient(SaslClient):
    """The client's side of the mechanism GSS-SPNEGO. Source: MS-ADTS 5.1.1.1.2.

    The context's flags decide on the layer, so `layer` names one; there is no `authzid`.
    """

    mechanism = "GSS-SPNEGO"

    def _begin(self) -> _Steps:
        layer = _strongest(self._layers)
        if self._authzid or layer != self._layers:
            raise ValueError("GSS-SPNEGO has one layer, and no authzid")
        return self._negotiate(layer)

    def _negotiate(self, layer: Layer) -> _Steps:
        context = self.context
        reply = yield b""
        response = context.step(reply.token or None) or b""  # a server's hints, if any
        self.is_last = context.established
        for _ in range(MAX_ROUNDS):
            reply = yield response
            if context.established and reply.token:
                raise ProtocolError("the server sent one more token after the context was complete")
            response = b"" if context.established else context.step(reply.token) or b""
            self.is_last = context.established
            if reply.final:
                break
        else:
            raise _endless()
        if response or not context.established:
            raise _too_early()
        return None, self._secured(layer, _MAX_SENT)


#: Whether a client may act as the name that it asks for.
Authorize = Callable[[Principal, str], bool]


class _Server(_Exchange):
    """The server's side. `context` is new. `layers` are those that the client may choose from.

    Call `step` with each response of the client. Its challenge belongs to the next round until
    `complete`; then the client has succeeded, and `context.initiator` names it.
    """

    context: Acceptor
    #: Who the client wants to act as, once it is permitted; "" for itself.
    authzid = ""

    def step(self, response: bytes | None = None) -> bytes | None:
        """Return the next challenge; once `complete`, the data to send with the success, or None.

        `response` is None if the client began without an initial response. Raises PolicyError if
        the client does not want a layer of ours or may not act as its authzid, ProtocolError and
        DecodeError if it does not keep to the mechanism, and the errors of `SecurityContext.step`.
        """
        return self._advance(_Reply(response or b""))

    def _available(self) -> Layer:
        """Return those of our layers that the client's context has the flags for."""
        found = Layer(0)
        for layer, flag in _NEEDS.items():
            if layer & self._layers and flag & self.context.flags == flag:
                found |= layer
        if not found:
            raise PolicyError(
                f"the client's context has no security layer that is accepted here: it must ask "
                f"for {_named(self._layers)}"
            )
        return found


class GssapiServer(_Server):
    """The server's side of the mechanism GSSAPI. Source: RFC 4752 3.2.

    `authorize(principal, authzid)` tells whether a client may act as the name that it sends. By
    default, this is the client's own principal alone. A client that sends none acts as itself, and
    is not asked about. `max_buffer` is the largest buffer that the client may send, in bytes.
    """

    mechanism = "GSSAPI"

    def __init__(
        self,
        context: Acceptor,
        *,
        layers: Layer = Layer.CONFIDENTIALITY,
        authorize: Authorize | None = None,
        max_buffer: int = MAX_BUFFER,
    ) -> None:
        super().__init__(context, layers, max_buffer)
        self._authorize = _is_itself if authorize is None else authorize

    def _begin(self) -> _Steps:
        context = self.context
        reply = yield b""
        if not reply.token:  # RFC 4422 3: the client has sent no initial response
            reply = yield b""
        for _ in range(MAX_ROUNDS):
            challenge = context.step(reply.token)
            if not context.established:
                reply = yield challenge or b""
                continue
            if challenge:
                reply = yield challenge
                if reply.token:
                    # RFC 4752 3.1: the client's context is complete, and it has no token.
                    raise ProtocolError("the client sent a token after the context was complete")
            break
        else:
            raise _endless()
        offer = self._available()
        size = 0 if offer is Layer.NONE else self._max_buffer
        reply = yield context.wrap(bytes((offer, *size.to_bytes(3, "big"))), sealed=False)
        layer, max_send = self._chosen(context.unwrap(reply.token, sealed=False), offer)
        return None, self._secured(layer, max_send)

    def _chosen(self, answer: bytes, offer: Layer) -> tuple[Layer, int]:
        """Return the layer that the client chose, and the limit of its buffers. RFC 4752 3.2."""
        if len(answer) < 4:
            raise ProtocolError(
                "the client's choice of a security layer is too short",
                expected="4 octets",
                got=len(answer),
            )
        layer = next((one for one in _NEEDS if one == answer[0]), None)
        if layer is None or not layer & offer:
            raise PolicyError(
                f"the client chose the security layer 0x{answer[0]:02x}, but "
                f"{_named(offer)} was offered"
            )
        max_send = int.from_bytes(answer[1:4], "big")
        if layer is not Layer.NONE:
            _check_max_send(max_send, "client")
        try:
            authzid = answer[4:].decode()
        except UnicodeDecodeError:
            raise ProtocolError("the client's authorization identity is not UTF-8") from None
        client = self.context.initiator
        if authzid and not is_allowed(self._authorize(client, authzid)):
            raise PolicyError(
                f"{client} may not act as {authzid[:200]!r}: "
                "let the client send no authorization identity, or pass authorize="
            )
        _log.debug("%s chose %s, buffers of %d bytes", client, layer.name, max_send)
        self.authzid = authzid
        return layer, max_send


class GssSpnegoServer(_Server):
    """The server's side of the mechanism GSS-SPNEGO. Source: MS-ADTS 5.1.1.1.2.

    The flags that the client asked for decide on the layer: the strongest of `layers` that they
    allow.
    """

    mechanism = "GSS-SPNEGO"

    def __init__(
        self,
        context: Acceptor,
        *,
        layers: Layer = Layer.CONFIDENTIALITY,
        max_buffer: int = MAX_BUFFER,
    ) -> None:
        super().__init__(context, layers, max_buffer)

    def _begin(self) -> _Steps:
        context = self.context
        reply = yield b""
        for _ in range(MAX_ROUNDS):
            challenge = context.step(reply.token)
            if context.established:
                break
            reply = yield challenge or b""
        else:
            raise _endless()
        layer = _strongest(self._available()) or Layer.NONE
        return challenge, self._secured(layer, _MAX_SENT)


#: The clients by mechanism. Source: RFC 4752 3, MS-ADTS 3.1.1.3.4.5.
CLIENTS: dict[str, type[SaslClient]] = {
    client.mechanism: client for client in (GssapiClient, GssSpnegoClient)
}


def _strongest(layers: Layer) -> Layer | None:
    return next((layer for layer in _NEEDS if layer & layers), None)


def _named(layers: Layer) -> str:
    return " or ".join(flag_names(Layer, layers)) or "none"


def _is_itself(client: Principal, authzid: str) -> bool:
    return authzid == str(client)


def _check_max_send(max_send: int, peer: str) -> None:
    if max_send < _MIN_SENT:
        raise ProtocolError(
            f"the {peer} takes buffers of {max_send} bytes at most, which is too small for a "
            "message",
            expected=f"at least {_MIN_SENT}",
        )


def _too_early() -> ProtocolError:
    return ProtocolError(
        "the server reports success before it has proved its identity: treat it as an impostor"
    )


def _endless() -> ProtocolError:
    return ProtocolError(
        "the exchange does not end: the peer keeps sending tokens", expected=MAX_ROUNDS
    )
