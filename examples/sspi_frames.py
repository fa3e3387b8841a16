"""Frames of Microsoft's sockets sample: LE32 length, then the body. They have the limits that the sample lacks.

An empty body is not sent. sspi_service.py and sspi_client.py share this module.
"""

from __future__ import annotations

import socket
import struct
import time

from purekrb import sspi

#: The longest body of a context token, and of a message.
MAX_TOKEN = 48_000
MAX_MESSAGE = 1 << 20
#: The legs after which a handshake is given up, and the seconds that a peer has for the whole connection.
MAX_LEGS = 10
PATIENCE = 30.0

_LENGTH = struct.Struct("<L")


class Frames:
    """A connection that carries frames. All waits end `PATIENCE` seconds after it was made."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + PATIENCE

    def send(self, body: bytes) -> None:
        """Send one frame, or nothing if `body` is empty."""
        if body:
            self._connection.settimeout(self._remaining())
            self._connection.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self, limit: int) -> bytes:
        """Return the body of the next frame. Raises ConnectionError at the end, and for more than `limit` bytes."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if not 0 < length <= limit:
            raise ConnectionError(
                f"the peer announces a frame of {length} bytes, expected 1 to {limit}"
            )
        return self._read(length)

    def _read(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            self._connection.settimeout(self._remaining())
            data = self._connection.recv(size - len(received))
            if not data:
                raise ConnectionError(
                    "the peer closed the connection before the next frame was complete"
                )
            received += data
        return bytes(received)

    def _remaining(self) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the peer takes too long")
        return remaining


def buffers(*made: tuple[int, bytes | int]) -> sspi.SecBufferDesc:
    """Return buffers made of (type, content); (type, size) makes one for a function to fill."""
    message = sspi.SecBufferDesc()
    for kind, content in made:
        buffer = sspi.SecBuffer(content if isinstance(content, int) else len(content), kind)
        if not isinstance(content, int):
            buffer.Buffer = content
        message.append(buffer)
    return message


def send_signed(frames: Frames, context: sspi.CtxtHandle, text: bytes) -> None:
    """Send a message that everybody can read and nobody can alter: two frames, the text and its signature."""
    if not text:
        raise ValueError("an empty text makes no frame")
    size = sspi.QueryContextAttributes(context, sspi.SECPKG_ATTR_SIZES)["MaxSignature"]
    message = buffers((sspi.SECBUFFER_DATA, text), (sspi.SECBUFFER_TOKEN, size))
    sspi.MakeSignature(context, 0, message, 0)
    frames.send(message[0].Buffer)
    frames.send(message[1].Buffer)


def receive_signed(frames: Frames, context: sspi.CtxtHandle) -> bytes:
    """Return the peer's next signed message."""
    text, signature = frames.receive(MAX_MESSAGE), frames.receive(MAX_TOKEN)
    message = buffers((sspi.SECBUFFER_DATA, text), (sspi.SECBUFFER_TOKEN, signature))
    sspi.VerifySignature(context, message, 0)
    return text


def send_encrypted(frames: Frames, context: sspi.CtxtHandle, text: bytes) -> None:
    """Send a secret message: one frame with LE32 size of the token, token, ciphertext."""
    size = sspi.QueryContextAttributes(context, sspi.SECPKG_ATTR_SIZES)["SecurityTrailer"]
    message = buffers((sspi.SECBUFFER_TOKEN, size), (sspi.SECBUFFER_DATA, text))
    sspi.EncryptMessage(context, 0, message, 0)
    token, data = message[0].Buffer, message[1].Buffer
    frames.send(_LENGTH.pack(len(token)) + token + data)


def receive_encrypted(frames: Frames, context: sspi.CtxtHandle) -> bytes:
    """Return the peer's next secret message. Raises ConnectionError for one that was only signed."""
    body = frames.receive(MAX_MESSAGE)
    start = _LENGTH.size
    size = _LENGTH.unpack(body[:start])[0] if len(body) >= start else len(body)
    if size > len(body) - start:
        raise ConnectionError(
            f"the peer announces a token of {size} bytes in a message of {len(body)}"
        )
    token, data = body[start : start + size], body[start + size :]
    message = buffers((sspi.SECBUFFER_TOKEN, token), (sspi.SECBUFFER_DATA, data))
    if sspi.DecryptMessage(context, message, 0) == sspi.SECQOP_WRAP_NO_ENCRYPT:
        raise ConnectionError("the peer's message was only signed: anybody may have read it")
    return message[1].Buffer
