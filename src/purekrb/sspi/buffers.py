"""SecBuffer and SecBufferDesc, in the shape of pywin32, and the search among buffers."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.sspi.constants import (
    SEC_E_BAD_BINDINGS,
    SEC_E_BUFFER_TOO_SMALL,
    SEC_E_INVALID_TOKEN,
    SECBUFFER_ATTRMASK,
    SECBUFFER_CHANNEL_BINDINGS,
    SECBUFFER_READONLY,
    SECBUFFER_VERSION,
)
from purekrb.sspi.status import RefusedError

__all__ = ["SecBuffer", "SecBufferDesc", "buffers_of", "channel_bindings", "fill", "the_only"]

#: SEC_CHANNEL_BINDINGS: type, length and offset of both addresses; length and offset of the
#: application data. Source: the Windows SDK's documentation of sspi.h.
_CHANNEL_BINDINGS = struct.Struct("<8L")
#: The same with 64-bit fields: what struct.pack("LLLLLLLL", ...) gives where a C long has 64 bits.
_WIDE_BINDINGS = struct.Struct("<8Q")
#: Which of the fields are the size and the offset of an address or of the application data.
_PARTS = ((1, 2), (4, 5), (6, 7))


class SecBuffer:
    """A buffer of `BufferSize` bytes.

    `BufferType` is SECBUFFER_..., possibly with a READONLY attribute. `Buffer` is the content as
    bytes. Setting it also sets `BufferSize`, which never exceeds `MaxBufferSize`.
    """

    __slots__ = ("BufferType", "_content", "_size")

    def __init__(self, BufferSize: int, BufferType: int) -> None:
        self.BufferType = BufferType & 0xFFFFFFFF  # pywin32's READONLY is negative
        self._size = BufferSize
        self._content = bytes(BufferSize)

    @property
    def Buffer(self) -> bytes:
        """The content. Setting more than `MaxBufferSize` bytes raises ValueError."""
        return self._content

    @Buffer.setter
    def Buffer(self, content: bytes) -> None:
        content = memoryview(content).tobytes()
        if len(content) > self._size:
            raise ValueError(f"{len(content)} bytes do not fit into a buffer of {self._size}")
        self._content = content

    @property
    def BufferSize(self) -> int:
        """The size of the content in bytes. Setting it cuts the content, or pads it with zeros."""
        return len(self._content)

    @BufferSize.setter
    def BufferSize(self, size: int) -> None:
        self.Buffer = self._content[:size].ljust(size, b"\0")

    @property
    def MaxBufferSize(self) -> int:
        """The largest size of the content in bytes."""
        return self._size

    def Clear(self) -> None:
        """Fill the whole buffer with zeros."""
        self._content = bytes(self._size)

    def resize(self, content: bytes) -> None:
        """Set `content` of any size, like a function that allocates the buffer itself."""
        self._size = max(self._size, len(content))
        self._content = content

    def __repr__(self) -> str:
        return f"SecBuffer({self.BufferSize} of {self._size} bytes, type {self.BufferType:#x})"


class SecBufferDesc:
    """A sequence of `SecBuffer`, empty by default. `Version` is SECBUFFER_VERSION."""

    __slots__ = ("Version", "_buffers")

    def __init__(self, Version: int = SECBUFFER_VERSION, buffers: Iterable[SecBuffer] = ()) -> None:
        self.Version = Version
        self._buffers: list[SecBuffer] = []
        for buffer in buffers:
            self.append(buffer)

    def append(self, buffer: SecBuffer) -> None:
        """Add a buffer at the end."""
        self._buffers.append(_checked(buffer))

    def __getitem__(self, index: int) -> SecBuffer:
        return self._buffers[index]

    def __setitem__(self, index: int, buffer: SecBuffer) -> None:
        self._buffers[index] = _checked(buffer)

    def __len__(self) -> int:
        return len(self._buffers)

    def __iter__(self) -> Iterator[SecBuffer]:
        return iter(self._buffers)

    def __repr__(self) -> str:
        return f"SecBufferDesc({self._buffers})"


def _checked(buffer: SecBuffer) -> SecBuffer:
    if not isinstance(buffer, SecBuffer):
        raise TypeError(f"a SecBufferDesc holds SecBuffer objects, not {type(buffer).__name__}")
    return buffer


def buffers_of(message: SecBufferDesc | None, buffer_type: int) -> list[SecBuffer]:
    """Return the buffers of a type, whatever their attributes, except READONLY ones."""
    if message is None:
        return []
    if not isinstance(message, SecBufferDesc):
        raise TypeError(f"pass the buffers in a SecBufferDesc, not in {type(message).__name__}")
    if message.Version != SECBUFFER_VERSION:
        raise RefusedError(
            SEC_E_INVALID_TOKEN,
            f"the buffers have version {message.Version}, expected {SECBUFFER_VERSION}",
        )
    return [
        buffer
        for buffer in message
        if buffer.BufferType & ~SECBUFFER_ATTRMASK & 0xFFFFFFFF == buffer_type
        and not buffer.BufferType & SECBUFFER_READONLY
    ]


def the_only(message: SecBufferDesc | None, buffer_type: int, name: str) -> SecBuffer:
    """Return the only buffer of a type, called `name` in errors. Refuses none and several."""
    found = buffers_of(message, buffer_type)
    if len(found) != 1:
        raise RefusedError(
            SEC_E_INVALID_TOKEN,
            f"one buffer of type {name} is needed, but {len(found)} were passed",
        )
    return found[0]


def fill(buffer: SecBuffer, content: bytes) -> None:
    """Put `content` into `buffer`. Refuses a buffer that is too small."""
    if len(content) > buffer.MaxBufferSize:
        raise RefusedError(
            SEC_E_BUFFER_TOO_SMALL,
            f"{len(content)} bytes do not fit into a buffer of {buffer.MaxBufferSize}",
        )
    buffer.Buffer = content


def channel_bindings(message: SecBufferDesc | None) -> ChannelBindings | None:
    """Return the SEC_CHANNEL_BINDINGS in a buffer of type CHANNEL_BINDINGS; None without one."""
    found = buffers_of(message, SECBUFFER_CHANNEL_BINDINGS)
    if not found:
        return None
    data = found[0].Buffer
    if len(data) < _CHANNEL_BINDINGS.size:
        raise RefusedError(SEC_E_BAD_BINDINGS, "the channel bindings end before their header does")
    fields = _CHANNEL_BINDINGS.unpack_from(data)
    if not _is_plausible(fields, data, _CHANNEL_BINDINGS.size):
        fields = _wide_fields(data)
    from_type, from_size, from_at, to_type, to_size, to_at, size, at = fields
    return ChannelBindings(
        application_data=data[at : at + size],
        initiator_address=data[from_at : from_at + from_size],
        acceptor_address=data[to_at : to_at + to_size],
        initiator_addrtype=from_type,
        acceptor_addrtype=to_type,
    )


def _is_plausible(fields: tuple[int, ...], data: bytes, header: int) -> bool:
    """Return whether each part lies between the header and the end, and none is left out."""
    parts = [(fields[at], fields[size]) for size, at in _PARTS if fields[size]]
    if not parts:
        return not any(data[header:])
    return all(at >= header and at + size <= len(data) for at, size in parts)


def _wide_fields(data: bytes) -> tuple[int, ...]:
    """Return the fields of bindings whose numbers have 64 bits, as offsets into `data`.

    Scripts for Windows write an offset of 32, the size of the narrow header, whatever their numbers
    have; then the application data follow the header. Raises RefusedError for anything else.
    """
    header = _WIDE_BINDINGS.size
    if len(data) > header:
        fields = _WIDE_BINDINGS.unpack_from(data)
        alone = not (fields[1] or fields[4])
        if alone and fields[7] == _CHANNEL_BINDINGS.size and header + fields[6] == len(data):
            fields = (*fields[:7], header)
        if _is_plausible(fields, data, header):
            return fields
    raise RefusedError(
        SEC_E_BAD_BINDINGS,
        "the channel bindings do not refer to their own data: pack eight numbers of 32 bits, "
        'struct.pack("<8L", ...), and then what they refer to',
    )
