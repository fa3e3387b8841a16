"""SASL over security contexts: the mechanisms GSSAPI and GSS-SPNEGO, and their security layers.

Pure: bytes in, bytes out. A bind is a generator, `reply = yield response`, that the LDAP code
drives; it returns the security layer. Source: RFC 4752 (GSSAPI); MS-ADTS 5.1.1.1.2 (GSS-SPNEGO,
whose layer follows from the flags of the context).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import IntFlag
from typing import NamedTuple

from purekrb.channel.stream import MAX_ROUNDS
from purekrb.constants import Flag
from purekrb.errors import PolicyError, ProtocolError
from purekrb.gss.context import SecurityContext
from purekrb.io.framing import FrameReader, encode_frame
from purekrb.log import Log

__all__ = ["MAX_BUFFER", "MECHANISMS", "Bind", "Layer", "Reply", "SecurityLayer", "context_flags"]

_log = Log("purekrb.directory")

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


class Reply(NamedTuple):
    """A server's answer to one bind request: its token, and whether the bind has succeeded.

    A token of b"" means that there is none.
    """

    token: bytes
    final: bool


def context_flags(layer: Layer) -> Flag:
    """Return the flags to request of a context, so that `layer` can be negotiated on it."""
    if layer is Layer.NONE:
        # A server would read INTEG as a request for a layer, which is not allowed inside TLS.
        return Flag.MUTUAL
    flags = Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE | Flag.INTEG
    return flags | Flag.CONF if layer is Layer.CONFIDENTIALITY else flags


class SecurityLayer:
    """The protection of a connection after the bind.

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
        self._sealed = sealed
        self._max_data = context.wrap_size_limit(max_send, sealed)
        refusal = (
            "a SASL buffer announces {length} bytes, expected 1 to {limit}: "
            "the server does not keep to the security layer that was agreed on"
        )
        self._reader = FrameReader(max_receive, "big", refusal)

    @property
    def pending(self) -> int:
        """The number of bytes of an incomplete buffer."""
        return self._reader.pending

    def wrap(self, data: bytes) -> bytes:
        """Return `data` in as many buffers as the peer's limit requires."""
        return b"".join(
            encode_frame(self.context.wrap(data[start : start + self._max_data], self._sealed))
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
            found += self.context.unwrap(token, self._sealed)
        return bytes(found)


#: One bind: yields what to send, is sent the server's replies, and returns the security layer.
Bind = Generator[bytes, Reply, SecurityLayer | None]


def _gssapi(context: SecurityContext, layer: Layer) -> Bind:
    """Bind by GSSAPI. Source: RFC 4752 3.1."""
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
    answer, max_send = _choose(context.unwrap(reply.token, sealed=False), layer)
    reply = yield context.wrap(answer, sealed=False)
    if not reply.final or reply.token:
        # RFC 4752 3.2: the server's answer to the choice is the outcome of the bind.
        raise ProtocolError("the server continues to negotiate after the security layer was chosen")
    if layer is Layer.NONE:
        return None
    return _layer(context, layer, max_send)


def _gss_spnego(context: SecurityContext, layer: Layer) -> Bind:
    """Bind by GSS-SPNEGO. Source: MS-ADTS 5.1.1.1.2."""
    response = context.step() or b""
    for _ in range(MAX_ROUNDS):
        reply = yield response
        if context.established and reply.token:
            raise ProtocolError("the server sent one more token after the context was complete")
        response = b"" if context.established else context.step(reply.token) or b""
        if reply.final:
            break
    else:
        raise _endless()
    if response or not context.established:
        raise _too_early()
    return None if layer is Layer.NONE else _layer(context, layer, _MAX_SENT)


#: The mechanisms by name. Source: RFC 4752 3, MS-ADTS 3.1.1.3.4.5.
MECHANISMS: dict[str, Callable[[SecurityContext, Layer], Bind]] = {
    "GSSAPI": _gssapi,
    "GSS-SPNEGO": _gss_spnego,
}


def _choose(offer: bytes, layer: Layer) -> tuple[bytes, int]:
    """Return our answer to the server's offer of layers, and the size limit of the buffers we send.

    Source: RFC 4752 3.1, 3.3.
    """
    if len(offer) != 4:
        raise ProtocolError(
            "the server's offer of security layers has the wrong length",
            expected="4 octets",
            got=len(offer),
        )
    offered, max_send = Layer(offer[0] & 7), int.from_bytes(offer[1:], "big")
    _log.debug("the server offers %s, buffers of %d bytes", offered, max_send)
    if not layer & offered:  # RFC 4752 3.1: the client selects, and never less than it asked for
        raise PolicyError(
            f"the server does not offer the security layer {layer.name} "
            f"(its offer: 0x{offer[0]:02x}), and no weaker one is accepted; "
            "configure the server, or connect with TLS"
        )
    if layer is Layer.NONE:
        return bytes((layer, 0, 0, 0)), 0
    if max_send < _MIN_SENT:
        raise ProtocolError(
            f"the server takes buffers of {max_send} bytes at most, which is too small for a "
            "message",
            expected=f"at least {_MIN_SENT}",
        )
    return bytes((layer, *MAX_BUFFER.to_bytes(3, "big"))), min(max_send, _MAX_SENT)


def _layer(context: SecurityContext, layer: Layer, max_send: int) -> SecurityLayer:
    return SecurityLayer(context, sealed=layer is Layer.CONFIDENTIALITY, max_send=max_send)


def _too_early() -> ProtocolError:
    return ProtocolError(
        "the server reports success before it has proved its identity: treat it as an impostor"
    )


def _endless() -> ProtocolError:
    return ProtocolError(
        "the bind does not end: the server keeps sending tokens", expected=MAX_ROUNDS
    )
