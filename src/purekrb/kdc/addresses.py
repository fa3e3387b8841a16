"""The network addresses of this machine, to which a ticket can be bound. Source: RFC 4120 7.1."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from purekrb.constants import AddressType
from purekrb.errors import UnsupportedError
from purekrb.messages.ap import HostAddress

__all__ = ["local_addresses"]

#: Address family -> address type, offset of the address in its sockaddr, and its size in bytes.
_FAMILIES = {
    socket.AF_INET: (AddressType.IPV4, 4, 4),
    socket.AF_INET6: (AddressType.IPV6, 8, 16),
}
_UP, _LOOPBACK = 0x1, 0x8  # IFF_UP and IFF_LOOPBACK, the same on Linux, macOS and the BSDs


class _Interface(ctypes.Structure):
    """The first fields of struct ifaddrs, which are the same on Linux, macOS and the BSDs."""


_Interface._fields_ = [
    ("next", ctypes.POINTER(_Interface)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]


def local_addresses(extra: Iterable[str] = ()) -> tuple[HostAddress, ...]:
    """Return the IPv4 and IPv6 addresses of this machine, except those of loopback, and the `extra` ones.

    Link-local IPv6 addresses are left out: they mean nothing without an interface. Raises
    UnsupportedError if the system does not tell the addresses.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        first = ctypes.POINTER(_Interface)()
        failed = libc.getifaddrs(ctypes.byref(first))
    except (AttributeError, TypeError, OSError):  # Windows
        raise UnsupportedError("this system does not tell its network addresses") from None
    if failed:
        reason = os.strerror(ctypes.get_errno())
        raise UnsupportedError(f"this system does not tell its network addresses: {reason}")
    try:
        return tuple(dict.fromkeys((*_addresses(first), *map(_address, extra))))
    finally:
        libc.freeifaddrs(first)


def _address(text: str) -> HostAddress:
    address = ip_address(text)
    kind = AddressType.IPV4 if address.version == 4 else AddressType.IPV6
    return HostAddress(int(kind), address.packed)


def _addresses(interface: ctypes._Pointer[_Interface]) -> Iterator[HostAddress]:
    while interface:
        entry = interface.contents
        interface = entry.next
        if not entry.address or not entry.flags & _UP or entry.flags & _LOOPBACK:
            continue
        # BSDs have a byte of the length before that of the family.
        head = ctypes.string_at(entry.address, 2)
        family = head[1] if sys.platform != "linux" else int.from_bytes(head, sys.byteorder)
        known = _FAMILIES.get(family)  # type: ignore[call-overload]
        if known is None:
            continue
        kind, offset, size = known
        address = ctypes.string_at(entry.address + offset, size)
        if not address.startswith(b"\xfe\x80"):
            yield HostAddress(int(kind), address)
