"""Messages in several buffers (IOV). Source: MIT's documentation of gss_wrap_iov; RFC 4121 4.2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, overload

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw.message import check_qop
from purekrb.compat.gssapi.raw.named_tuples import IOVUnwrapResult
from purekrb.compat.gssapi.raw.sec_contexts import SecurityContext, context_of
from purekrb.errors import KerberosError
from purekrb.gss.iov import IovBuffer, IovType

__all__ = ["IOVBufferType", "IOVBuffer", "IOV", "wrap_iov", "unwrap_iov", "wrap_iov_length"]


class IOVBufferType(IntEnum):
    """The types of buffers."""

    empty = 0
    data = 1
    header = 2
    mech_params = 3
    trailer = 7
    padding = 9
    stream = 10
    sign_only = 11
    mic_token = 12


_ALLOCATED = frozenset((2, 7, 9, 12))
_KNOWN = frozenset(IovType)


class IOVBuffer(NamedTuple):
    """A buffer; `allocate`: whether a function may make it as long as it needs."""

    type: int
    allocate: bool | None
    value: bytes | None


class IOV(Sequence[IOVBuffer]):
    """The buffers of a message, which the functions here change.

    An argument is an IOVBuffer, a tuple `(type, value)`, `(type, allocate)` or
    `(type, allocate, value)`, a type, or the bytes of a data buffer. With `std_layout`, a header
    comes first, and padding and a trailer last. Without `auto_alloc`, call `wrap_iov_length` first.
    """

    def __init__(self, *args: Any, std_layout: bool = True, auto_alloc: bool = True) -> None:
        parts = [2, *args, 9, 7] if std_layout else list(args)
        self._buffers = [_buffer(part, auto_alloc) for part in parts]

    @overload
    def __getitem__(self, ind: int) -> IOVBuffer: ...
    @overload
    def __getitem__(self, ind: slice) -> list[IOVBuffer]: ...
    def __getitem__(self, ind: int | slice) -> IOVBuffer | list[IOVBuffer]:
        return self._buffers[ind]

    def __len__(self) -> int:
        return len(self._buffers)

    def __iter__(self) -> Iterator[IOVBuffer]:
        return iter(self._buffers)

    def __repr__(self) -> str:
        kinds = ", ".join(getattr(kind, "name", str(kind)) for kind, _, _ in self._buffers)
        return f"<IOV {kinds}>"

    def _set(self, values: dict[int, bytes]) -> None:
        """Set the values of the buffers at these places."""
        for place, value in values.items():
            self._buffers[place] = self._buffers[place]._replace(value=value)

    def _own(self) -> tuple[list[int], list[IovBuffer]]:
        """Return purekrb's buffers, and where each stands here."""
        places = [place for place, (kind, _, _) in enumerate(self._buffers) if kind in _KNOWN]
        return places, [
            IovBuffer(IovType(self._buffers[place].type), self._buffers[place].value or b"")
            for place in places
        ]


def _buffer(part: Any, auto_alloc: bool) -> IOVBuffer:
    kind, allocate, value = 1, None, None
    if isinstance(part, IOVBuffer):
        kind, allocate, value = part
    elif isinstance(part, tuple):
        kind, *rest = part
        if len(rest) == 2:
            allocate, value = rest
        elif rest and isinstance(rest[0], bool) and kind in _ALLOCATED:
            allocate = rest[0]
        elif rest:
            value = rest[0]
    elif isinstance(part, int):
        kind = part
    else:
        value = part
    if value is not None and not isinstance(value, (bytes, bytearray, bool)):
        value = value.encode() if isinstance(value, str) else memoryview(value).tobytes()
    if allocate is None:
        allocate = auto_alloc and kind in _ALLOCATED and value is None
    known = kind in IOVBufferType._value2member_map_
    return IOVBuffer(IOVBufferType(kind) if known else kind, bool(allocate), value)


def wrap_iov_length(
    context: SecurityContext, message: IOV, confidential: bool = True, qop: int | None = None
) -> bool:
    """Give the buffers of a message the lengths that `wrap_iov` needs."""
    check_qop(qop)
    places, buffers = message._own()
    try:
        lengths = context_of(context).wrap_iov_length(_empty(buffers), confidential)
    except (KerberosError, ValueError) as error:
        raise _failed(error) from error
    message._set(
        {
            place: bytes(length)
            for place, length in zip(places, lengths, strict=True)
            if message[place].type in _ALLOCATED
        }
    )
    return bool(confidential)


def wrap_iov(
    context: SecurityContext, message: IOV, confidential: bool = True, qop: int | None = None
) -> bool:
    """Put a token into the buffers of a message; return whether the data are encrypted."""
    check_qop(qop)
    places, buffers = message._own()
    try:
        inner = context_of(context)
        for place, length in zip(
            places, inner.wrap_iov_length(_empty(buffers), confidential), strict=True
        ):
            kind, allocate, value = message[place]
            if kind in _ALLOCATED and not allocate and len(value or b"") < length:
                raise ValueError(
                    f"the {IOVBufferType(kind).name} buffer has {len(value or b'')} bytes and "
                    f"needs {length}: call wrap_iov_length first"
                )
        done = inner.wrap_iov(_empty(buffers), confidential)
    except (KerberosError, ValueError) as error:
        raise _failed(error) from error
    message._set({place: data for place, (_, data) in zip(places, done, strict=True)})
    return bool(confidential)


def unwrap_iov(context: SecurityContext, message: IOV) -> IOVUnwrapResult:
    """Take the token out of the buffers of a message, whose data are then in clear."""
    places, buffers = message._own()
    try:
        inner = context_of(context)
        token = next((data for kind, data in buffers if kind in (2, 10)), b"")
        done = inner.unwrap_iov(buffers, False)
    except (KerberosError, ValueError) as error:
        raise _failed(error) from error
    message._set({place: data for place, (_, data) in zip(places, done, strict=True)})
    return IOVUnwrapResult(inner.is_sealed(token), 0)


def _empty(buffers: list[IovBuffer]) -> list[IovBuffer]:
    """Return the buffers without the bytes that hold the place of the token's."""
    return [IovBuffer(kind, b"" if kind in _ALLOCATED else data) for kind, data in buffers]


def _failed(error: KerberosError | ValueError) -> Exception:
    if isinstance(error, KerberosError):
        return _status.gss_error(error, message=True)
    return _status.status(codes.FAILURE, 0, str(error))
