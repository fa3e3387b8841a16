"""Frames on a byte stream: LE32 length, then that many bytes. Pure: bytes in, frames out.

The framing of Microsoft's SSPI socket sample (its DWORD in x86 order), with the limits that the sample lacks.
A frame is never empty: a zero-length body is not sent, and one that arrives is refused.
"""

from __future__ import annotations

from ..errors import DecodeError

__all__ = ["DEFAULT_MAX_FRAME", "LENGTH_SIZE", "MIN_MAX_FRAME", "FrameReader", "check_max_frame", "encode_frame"]

LENGTH_SIZE = 4
#: The longest body that is accepted, unless told otherwise.
DEFAULT_MAX_FRAME = 16 * 1024 * 1024
#: The smallest usable limit: a sealed token has up to 72 bytes besides the message.
MIN_MAX_FRAME = 1024


def check_max_frame(max_frame: int) -> int:
    """Return `max_frame`, or raise ValueError where it cannot be a limit on frame bodies in bytes."""
    if not MIN_MAX_FRAME <= max_frame < 1 << 8 * LENGTH_SIZE:
        raise ValueError(f"max_frame is {max_frame}, expected {MIN_MAX_FRAME} to {(1 << 8 * LENGTH_SIZE) - 1} bytes")
    return max_frame


def encode_frame(body: bytes) -> bytes:
    """Return `body` as one frame. The caller keeps to the peer's limit, and never passes an empty body."""
    if not body:
        raise ValueError("a frame of zero bytes is not sent")
    return len(body).to_bytes(LENGTH_SIZE, "little") + body


class FrameReader:
    """Cuts a byte stream into frames, in linear time and without trusting the announced length for an allocation.

    `max_frame` may be changed between frames; it applies to each frame whose body has not been returned yet.
    """

    def __init__(self, max_frame: int) -> None:
        self.max_frame = max_frame
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that were fed and not yet returned in a frame."""
        return len(self._buffer)

    @property
    def whole(self) -> int:
        """The length of the next frame's body, if all of it was fed; else 0."""
        length = int.from_bytes(self._buffer[:LENGTH_SIZE], "little")
        return length if len(self._buffer) >= LENGTH_SIZE + length else 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere."""
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Return the body of the next frame, or None until it is complete.

        DecodeError: the announced length is zero or more than `max_frame`; the stream cannot be read any further.
        """
        if len(self._buffer) < LENGTH_SIZE:
            return None
        length = int.from_bytes(self._buffer[:LENGTH_SIZE], "little")
        if not 0 < length <= self.max_frame:
            raise DecodeError(
                f"a frame announces {length} bytes, expected 1 to {self.max_frame}: "
                "the peer speaks another protocol, or its max_frame is larger"
            )
        end = LENGTH_SIZE + length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            body = bytes(view[LENGTH_SIZE:end])
        del self._buffer[:end]
        return body
