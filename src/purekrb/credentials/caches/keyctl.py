"""Keys and keyrings of the Linux kernel, by its system calls. Source: keyctl(2), keyrings(7).

A key is a serial number. Each function raises OSError with the kernel's number; if the platform
does not have these calls, it is ENOSYS.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import sys

__all__ = [
    "PROCESS",
    "SESSION",
    "THREAD",
    "USER",
    "USER_SESSION",
    "add_key",
    "add_keyring",
    "clear",
    "describe",
    "find",
    "has_users_session",
    "own_uid",
    "persistent",
    "read",
    "serials_in",
    "set_timeout",
    "unlink",
    "usable",
]

#: The special keyrings of a process.
THREAD, PROCESS, SESSION, USER, USER_SESSION = -1, -2, -3, -4, -5

#: The numbers of add_key and keyctl.
_CALLS = {
    "x86_64": (248, 250),
    "aarch64": (217, 219),
    "riscv64": (217, 219),
    "loongarch64": (217, 219),
    "ppc64le": (269, 271),
    "s390x": (278, 280),
    "i686": (286, 288),
    "armv7l": (309, 311),
}
_GET_KEYRING_ID, _DESCRIBE, _CLEAR, _LINK, _UNLINK, _SEARCH, _READ = 0, 6, 7, 8, 9, 10, 11
_SET_TIMEOUT, _GET_PERSISTENT = 15, 22
#: More than any ticket or keyring has.
_MAX_SIZE = 1 << 20


@functools.lru_cache(maxsize=1)
def _syscall() -> tuple[object, int, int] | None:
    numbers = _CALLS.get(platform.machine())
    if sys.platform != "linux" or numbers is None or sys.maxsize < 1 << 32:
        return None
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function, *numbers


def _call(which: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call add_key (0) or keyctl (1)."""
    found = _syscall()
    if found is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    function, *numbers = found
    passed = [
        ctypes.c_long(one) if isinstance(one, int) else one for one in (numbers[which], *arguments)
    ]
    result = int(function(*passed))  # type: ignore[operator]
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _keyctl(operation: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    return _call(1, operation, *arguments)


def usable() -> bool:
    """Return whether this kernel, and this container, have keyrings."""
    try:
        _keyctl(_GET_KEYRING_ID, PROCESS, 1)
    except OSError:
        return False
    return True


def own_uid() -> int:
    """Return the user whose keyrings these are."""
    return os.getuid()


def has_users_session() -> bool:
    """Return whether the session of this process is that of all processes of the user."""
    session = _keyctl(_GET_KEYRING_ID, SESSION, 0)
    return session == _keyctl(_GET_KEYRING_ID, USER_SESSION, 0)


def add_key(kind: str, description: str, payload: bytes, keyring: int) -> int:
    """Make a key in `keyring`, or replace the one of this description; return its serial."""
    return _call(0, kind.encode(), description.encode(), payload, len(payload), keyring)


def add_keyring(description: str, keyring: int) -> int:
    """Make a keyring in `keyring`; return its serial."""
    return _call(0, b"keyring", description.encode(), None, 0, keyring)


def find(keyring: int, kind: str, description: str) -> int | None:
    """Return the serial of a key or keyring below `keyring`; None if there is none."""
    try:
        return _keyctl(_SEARCH, keyring, kind.encode(), description.encode(), 0)
    except OSError as error:
        if error.errno in (errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED):
            return None
        raise


def persistent(uid: int, keyring: int) -> int:
    """Link the persistent keyring of `uid` to `keyring`; return its serial."""
    return _keyctl(_GET_PERSISTENT, uid, keyring)


def read(serial: int) -> bytes:
    """Return the payload of a key."""
    size = 4096
    while size <= _MAX_SIZE:
        buffer = ctypes.create_string_buffer(size)
        length = _keyctl(_READ, serial, buffer, size)
        if length <= size:
            return buffer.raw[:length]
        size = length
    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def serials_in(keyring: int) -> list[int]:
    """Return the serials of what a keyring holds."""
    data = read(keyring)
    return [
        int.from_bytes(data[at : at + 4], sys.byteorder, signed=True)
        for at in range(0, len(data) - 3, 4)
    ]


def describe(serial: int) -> tuple[str, str]:
    """Return the type and the description of a key."""
    buffer = ctypes.create_string_buffer(65536)
    length = _keyctl(_DESCRIBE, serial, buffer, len(buffer))
    text = buffer.raw[: max(length - 1, 0)].decode(errors="replace")
    kind, _, _, _, description = text.split(";", 4)
    return kind, description


def set_timeout(serial: int, seconds: int) -> None:
    """Let the kernel remove the key after so many seconds."""
    _keyctl(_SET_TIMEOUT, serial, seconds)


def clear(keyring: int) -> None:
    """Remove all keys from a keyring."""
    _keyctl(_CLEAR, keyring)


def unlink(serial: int, keyring: int) -> None:
    """Remove a key from a keyring."""
    _keyctl(_UNLINK, serial, keyring)
