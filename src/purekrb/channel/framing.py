"""Frames of channels: a length of 32 bits, little-endian, and a sealed token of that many bytes.

This is the framing of Microsoft's SSPI socket sample (its DWORD in x86 order), with the limits that
the sample lacks. A frame is never empty: a body of zero bytes is not sent, and is refused if it
arrives.
"""

from __future__ import annotations

from purekrb.io import framing
from purekrb.io.framing import LENGTH_SIZE, FrameReader

__all__ = ["DEFAULT_MAX_FRAME", "MIN_MAX_FRAME", "check_max_frame", "encode_frame", "frame_reader"]

#: The longest body that is accepted by default.
DEFAULT_MAX_FRAME = 16 * 1024 * 1024
#: The smallest usable limit: a sealed token has up to 72 bytes besides the message.
MIN_MAX_FRAME = 1024


def check_max_frame(max_frame: int) -> int:
    """Return `max_frame`, in bytes. Raises ValueError unless it can limit frame bodies."""
    if not MIN_MAX_FRAME <= max_frame < 1 << 8 * LENGTH_SIZE:
        raise ValueError(
            f"max_frame is {max_frame}, expected {MIN_MAX_FRAME} to "
            f"{(1 << 8 * LENGTH_SIZE) - 1} bytes"
        )
    return max_frame


def encode_frame(body: bytes) -> bytes:
    """Return `body`, which is not empty, as one frame. The caller keeps to the peer's limit."""
    if not body:
        raise ValueError("a frame of zero bytes is not sent")
    return framing.encode_frame(body, "little")


def frame_reader(max_frame: int) -> FrameReader:
    """Return the reader of one connection."""
    return FrameReader(
        max_frame,
        "little",
        "a frame announces {length} bytes, expected 1 to {limit}: "
        "the peer speaks another protocol, or its max_frame is larger "
        "(or, in the handshake, its token: pass max_token)",
    )
