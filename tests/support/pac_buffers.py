"""PAC buffers that no peer of the tests makes, written as NDR: claims, a delegation, a device.

Source: MS-PAC 2.9, 2.11, 2.12; MS-ADTS 2.2.18.
"""

from __future__ import annotations

import struct

from purekrb.testing.pac import _xpress_huffman as compressed

__all__ = ["CLAIMS", "claims_set", "compressed", "delegation", "device", "metadata", "pac_of"]


class Written:
    """Writes NDR: the headers, then what the test puts in."""

    def __init__(self) -> None:
        self.body = b""

    def u16(self, value: int) -> None:
        self.body += bytes(-len(self.body) % 2) + value.to_bytes(2, "little")

    def u32(self, *values: int) -> None:
        for value in values:
            self.body += bytes(-len(self.body) % 4) + value.to_bytes(4, "little")

    def i64(self, value: int) -> None:
        self.body += bytes(-len(self.body) % 8) + (value & (1 << 64) - 1).to_bytes(8, "little")

    def string(self, value: str, nul: bool = True) -> None:
        data = (value + "\0" * nul).encode("utf-16-le")
        self.u32(len(data) // 2, 0, len(data) // 2)
        self.body += data
        self.body += bytes(-len(self.body) % 4)

    def sid(self, *parts: int) -> None:
        self.u32(len(parts))
        self.body += struct.pack(f"<BB6s{len(parts)}I", 1, len(parts), bytes(5) + b"\5", *parts)

    def encode(self) -> bytes:
        head = b"\x01\x10\x08\x00\xcc\xcc\xcc\xcc"
        body = b"\0\0\2\0" + self.body
        return head + struct.pack("<II", len(body), 0) + body


def claims_set() -> bytes:
    out = Written()
    out.body = b"\0\0\2\0"  # aligned from here on: the pointer to the structure counts
    out.u32(1, 0x20004)
    out.u32(0, 0, 0)
    out.u32(1)  # the array: one source
    out.u16(1)
    out.u32(4, 0x20008)
    out.u32(4)
    for kind, count in ((3, 2), (1, 1), (2, 1), (6, 1)):
        out.u32(0x2000C)
        out.u16(kind)
        out.u16(kind)
        out.u32(count, 0x20010)
    out.string("ad://ext/department")
    out.u32(2, 0x20014, 0x20018)
    out.string("Engineering")
    out.string("Päckchen")
    for name, value in (("ad://ext/level", -3), ("ad://ext/id", 1 << 63), ("ad://ext/admin", 1)):
        out.string(name)
        out.u32(1)
        out.i64(value)
    out.body = out.body[4:]
    return out.encode()


def metadata(compression: int, blob: bytes, size: int | None = None) -> bytes:
    out = Written()
    out.u32(len(blob), 0x20004)
    out.u16(compression)
    out.u32(len(blob) if size is None else size)
    out.u16(0)
    out.u32(0, 0)
    out.u32(len(blob))
    out.body += blob + bytes(-len(blob) % 8)
    return out.encode()


CLAIMS = {
    "ad://ext/department": ["Engineering", "Päckchen"],
    "ad://ext/level": [-3],
    "ad://ext/id": [1 << 63],
    "ad://ext/admin": [True],
}


def delegation() -> bytes:
    out = Written()
    out.body += struct.pack("<HHI", 20, 20, 0x20004)
    out.u32(1, 0x20008)
    out.string("HTTP/a@AD1", nul=False)
    out.u32(1)
    out.body += struct.pack("<HHI", 8, 8, 0x2000C)
    out.string("svc1", nul=False)
    return out.encode()


def device() -> bytes:
    out = Written()
    out.u32(1104, 515, 0x20004, 1, 0x20008, 1, 0x2000C, 1, 0x20010)
    out.sid(21, 1, 2, 3)
    out.u32(1, 515, 7)
    out.u32(1, 0x20014, 7)
    out.sid(18, 1)
    out.u32(1, 0x20018, 1, 0x2001C)
    out.sid(21, 9, 9, 9)
    out.u32(1, 600, 7)
    return out.encode()


def pac_of(buffers: dict[int, bytes]) -> bytes:
    head = struct.pack("<II", len(buffers), 0)
    offset = 8 + 16 * len(buffers)
    body = b""
    for kind, data in buffers.items():
        offset += -offset % 8
        body += bytes(-(8 + 16 * len(buffers) + len(body)) % 8)
        head += struct.pack("<IIQ", kind, len(data), offset)
        body += data
        offset += len(data)
    return head + body
