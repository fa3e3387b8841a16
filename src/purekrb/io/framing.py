"""Frames on a byte stream: a length of 4 bytes, then that many bytes.

KDCs over TCP (RFC 4120 7.2.2), SASL buffers (RFC 4422 3.7) and channels (docs/wire-format.md)
differ in the order of the length's bytes and in their limits.
"""

from __future__ import annotations

from typing import Literal

from purekrb.errors import DecodeError

__all__ = ["LENGTH_SIZE", "FrameReader", "encode_frame"]

LENGTH_SIZE = 4
ByteOrder = Literal["little", "big"]


def encode_frame(body: bytes, byteorder: ByteOrder = "big") -> bytes:
    """Return `body` as one frame."""
    return len(body).to_bytes(LENGTH_SIZE, byteorder) + body


class FrameReader:
    """Cuts a byte stream into frames, in linear time.

    An announced length causes no allocation. `max_frame` may be changed between frames; it applies
    to each frame whose body has not been returned yet. `refusal` is the text of the error for a
    length that is zero or more than `max_frame`, with the fields {length} and {limit}.
    """

    def __init__(self, max_frame: int, byteorder: ByteOrder, refusal: str) -> None:
        self.max_frame = max_frame
        self._byteorder = byteorder
        self._refusal = refusal
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """The number of bytes that were fed and not yet returned in a frame."""
        return len(self._buffer)

    @property
    def has_frame(self) -> bool:
        """Whether all of the next frame was fed. False if its length is zero."""
        length = int.from_bytes(self._buffer[:LENGTH_SIZE], self._byteorder)
        return 0 < length <= len(self._buffer) - LENGTH_SIZE

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere."""
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Return the body of the next frame, or None until it is complete.

        Raises DecodeError for a length that is zero or more than `max_frame`; the stream cannot be
        read any further.
        """
        if len(self._buffer) < LENGTH_SIZE:
            return None
        length = int.from_bytes(self._buffer[:LENGTH_SIZE], self._byteorder)
        if not 0 < length <= self.max_frame:
            raise DecodeError(self._refusal.format(length=length, limit=self.max_frame))
        end = LENGTH_SIZE + length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            body = bytes(view[LENGTH_SIZE:end])
        del self._buffer[:end]
        return body
