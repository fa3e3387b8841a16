"""A domain controller that answers pings (LDAP over UDP) as a test says; its answers are written by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from purekrb.messages.der import read_header, tlv
from support.kdc_stubs import UdpStub

__all__ = ["CldapStub", "entry", "message_id", "name", "netlogon"]

NAMES = ("example.test", "example.test", "dc1.example.test", "EXAMPLE", "DC1", "", "Paris", "Paris")


def name(text: str) -> bytes:
    """Return a DNS name without compression."""
    labels = [label.encode() for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def netlogon(
    client_site: str = "Paris",
    *,
    domain: str = "example.test",
    flags: int = 0x13FD,
    opcode: int = 23,
    raw: bytes | None = None,
) -> bytes:
    """Return a Netlogon attribute; `raw` stands for its names."""
    names = (NAMES[0], domain, *NAMES[2:7], client_site)
    body = b"".join(map(name, names)) if raw is None else raw
    head = struct.pack("<HHI", opcode, 0, flags) + bytes(range(16))
    return head + body + struct.pack("<IHH", 5, 0xFFFF, 0xFFFF)


def message_id(request: bytes) -> bytes:
    """Return the INTEGER with the message ID of a request."""
    _, start, _ = read_header(request, 0, len(request))
    _, _, end = read_header(request, start, len(request))
    return request[start:end]


def entry(number: bytes, value: bytes, attribute: bytes = b"Netlogon") -> bytes:
    """Return a search entry with one value of one attribute, and the end of the search."""
    values = tlv(0x31, tlv(4, value))
    attributes = tlv(0x30, tlv(0x30, tlv(4, attribute) + values))
    found = tlv(0x30, number + tlv(0x64, tlv(4, b"") + attributes))
    done = tlv(0x30, number + tlv(0x65, tlv(10, b"\0") + tlv(4, b"") + tlv(4, b"")))
    return found + done


class CldapStub(UdpStub):
    """Answers each ping with what `answer(request)` returns; None: not at all."""

    def __init__(
        self, answer: Callable[[bytes], bytes | None] | None = None, **options: Any
    ) -> None:
        answered = answer or (lambda request: entry(message_id(request), netlogon()))

        def handle(stub: UdpStub, data: bytes, client: Any) -> None:
            reply = answered(data)
            if reply is not None:
                stub.socket.sendto(reply, client)

        super().__init__(handle, **options)
