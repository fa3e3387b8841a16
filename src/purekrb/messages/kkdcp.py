"""KDC-PROXY-MESSAGE: a message for a KDC, or of one, inside of HTTPS. Source: MS-KKDCP 2.2.2."""

from __future__ import annotations

from purekrb.errors import DecodeError
from purekrb.messages.der import INT32, Field, GeneralString, Message, OctetString, Sequence
from purekrb.records import record

__all__ = ["KdcProxyMessage", "unwrap", "wrap"]

_LENGTH_OCTETS = 4


@record
class KdcProxyMessage(Message):
    """KDC-PROXY-MESSAGE ::= SEQUENCE {
    kerb-message [0] OCTET STRING, target-domain [1] KERB-REALM OPTIONAL,
    dclocator-hint [2] INTEGER OPTIONAL }

    `kerb_message` begins with its length in four octets, as over TCP.
    """

    kerb_message: bytes
    target_domain: str | None = None
    dclocator_hint: int | None = None


KdcProxyMessage.schema = Sequence(
    KdcProxyMessage,
    Field(0, "kerb_message", OctetString()),
    Field(1, "target_domain", GeneralString(), optional=True),
    Field(2, "dclocator_hint", INT32, optional=True),
)


def wrap(message: bytes, realm: str) -> bytes:
    """Return the request that has a proxy send `message` to a server of `realm`."""
    length = len(message).to_bytes(_LENGTH_OCTETS, "big")
    return KdcProxyMessage(length + message, realm).encode()


def unwrap(answer: bytes) -> bytes:
    """Return the message in the answer of a proxy. Raises DecodeError."""
    framed = KdcProxyMessage.decode(answer).kerb_message
    length, message = framed[:_LENGTH_OCTETS], framed[_LENGTH_OCTETS:]
    if len(length) < _LENGTH_OCTETS or int.from_bytes(length, "big") != len(message):
        raise DecodeError(
            f"the message of a KDC proxy announces 0x{length.hex()} bytes and has {len(message)}"
        )
    return message
