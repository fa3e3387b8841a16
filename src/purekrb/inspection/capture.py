"""The Kerberos messages in packets, and in files of captured packets (pcap, pcapng).

Ethernet (with VLAN tags), loopback, Linux's "any" and raw IP are read; of IPv4 and IPv6, UDP and
TCP of the ports 88 and 464. TCP segments are put in order; what is missing ends a stream. Nothing
here raises anything but DecodeError. Source: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng,
RFC 791, RFC 8200, RFC 4120 7.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address

from purekrb.errors import DecodeError
from purekrb.records import record

__all__ = ["MAGICS", "Captured", "messages", "packet", "is_packet", "framed", "is_framed"]

_PORTS = {88, 464}
_LENGTH = 4  # RFC 4120 7.2.2: a message in TCP has its length in front
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_PCAP = {
    b"\xa1\xb2\xc3\xd4": (">", 10**6),
    b"\xd4\xc3\xb2\xa1": ("<", 10**6),
    b"\xa1\xb2\x3c\x4d": (">", 10**9),
    b"\x4d\x3c\xb2\xa1": ("<", 10**9),
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"
#: The first four bytes of the files.
MAGICS = {*_PCAP, _PCAPNG}
_IPV4, _IPV6 = 0x0800, 0x86DD
_VLAN = {0x8100, 0x88A8}
_UDP, _TCP = 17, 6
#: IPv6 headers that may stand before TCP or UDP: hop-by-hop, routing, destination options.
_EXTENSIONS = {0, 43, 60}


@record
class Captured:
    """A message and its way: "address:port" of both ends, and when it was captured."""

    time: datetime | None
    source: str
    destination: str
    message: bytes


@record
class _Segment:
    """The data of one UDP or TCP packet. `sequence` is None for UDP."""

    source: str
    destination: str
    ports: tuple[int, int]
    sequence: int | None
    data: bytes


def messages(data: bytes) -> list[Captured]:
    """Return the messages in a file of captured packets. Raises DecodeError if there is none."""
    frames = _pcapng(data) if data.startswith(_PCAPNG) else _pcap(data)
    found: list[Captured] = []
    streams: dict[tuple[str, str], list[tuple[datetime | None, int, bytes]]] = {}
    for time, link, frame in frames:
        segment = _segment(_network_layer(link, frame))
        if segment is None or not _PORTS.intersection(segment.ports) or not segment.data:
            continue
        if segment.sequence is None:
            found.append(Captured(time, segment.source, segment.destination, segment.data))
        else:
            ends = segment.source, segment.destination
            streams.setdefault(ends, []).append((time, segment.sequence, segment.data))
    for ends, segments in streams.items():
        found += [Captured(time, *ends, message) for time, message in _stream(segments)]
    if not found:
        raise DecodeError("the capture holds no packet with data of the ports 88 and 464")
    return sorted(found, key=lambda each: each.time or _EPOCH)


def packet(data: bytes) -> Captured | None:
    """Return what a single packet carries, from its Ethernet or its IP header on."""
    segment = _segment(_bare_packet(data))
    if segment is None or not segment.data:
        return None
    message = segment.data
    if segment.sequence is not None and is_framed(message):
        message = message[_LENGTH:]
    return Captured(None, segment.source, segment.destination, message)


def is_packet(data: bytes) -> bool:
    """Whether `data` are a packet whose IP header fits its length."""
    return _segment(_bare_packet(data)) is not None


def is_framed(data: bytes) -> bool:
    """Whether `data` are messages with their lengths in front, and nothing else."""
    at = 0
    while at + _LENGTH < len(data):
        size = int.from_bytes(data[at : at + _LENGTH], "big")
        at += _LENGTH + size
        if not size:
            return False
    return 0 < at == len(data)


def framed(data: bytes) -> list[bytes]:
    """Return the messages of `data`, which `is_framed`."""
    found = []
    while data:
        size = int.from_bytes(data[:_LENGTH], "big")
        found.append(data[_LENGTH : _LENGTH + size])
        data = data[_LENGTH + size :]
    return found


def _stream(
    segments: list[tuple[datetime | None, int, bytes]],
) -> Iterator[tuple[datetime | None, bytes]]:
    """Yield the messages of one direction of a TCP connection, up to the first gap."""
    first = segments[0][1]
    half = 1 << 31
    data = b""
    times: list[tuple[int, datetime | None]] = []

    def place(sequence: int) -> int:
        return (sequence - first + half) % (2 * half) - half

    begin = min(place(sequence) for _, sequence, _ in segments)
    for time, sequence, piece in sorted(segments, key=lambda each: place(each[1])):
        skip = len(data) - (place(sequence) - begin)
        if skip < 0:
            break
        if skip < len(piece):
            times.append((len(data), time))
            data += piece[skip:]
    at = 0
    while at + _LENGTH < len(data):
        size = int.from_bytes(data[at : at + _LENGTH], "big")
        if not size or at + _LENGTH + size > len(data):
            break
        yield (
            max((entry for entry in times if entry[0] <= at), key=lambda entry: entry[0])[1],
            data[at + _LENGTH : at + _LENGTH + size],
        )
        at += _LENGTH + size


# -- files -----------------------------------------------------------------------------------------


def _time(units: int, resolution: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=units * 10**6 // resolution)
    except OverflowError:
        return None


def _pcap(data: bytes) -> Iterator[tuple[datetime | None, int, bytes]]:
    """Yield the time, the link type and the bytes of each packet."""
    order, resolution = _PCAP[data[:4]]
    if len(data) < 24:
        raise DecodeError("the capture is cut off")
    link = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
    at = 24
    while at + 16 <= len(data):
        seconds, fraction, size, _ = struct.unpack_from(order + "4I", data, at)
        at += 16
        yield _time(seconds * resolution + fraction, resolution), link, data[at : at + size]
        at += size


def _pcapng(data: bytes) -> Iterator[tuple[datetime | None, int, bytes]]:
    """Yield the same from the blocks of a pcapng file: sections, interfaces, enhanced packets."""
    order, at = "<", 0
    interfaces: list[tuple[int, int]] = []
    while at + 12 <= len(data):
        if data.startswith(_PCAPNG, at):
            order = ">" if data[at + 8 : at + 12] == b"\x1a\x2b\x3c\x4d" else "<"
            interfaces = []
        kind, size = struct.unpack_from(order + "2I", data, at)
        if size < 12 or at + size > len(data):
            return
        body = data[at + 8 : at + size - 4]
        at += size
        if kind == 1 and len(body) >= 8:  # interface description
            interfaces.append(
                (struct.unpack_from(order + "H", body)[0], _resolution(order, body[8:]))
            )
        elif kind == 6 and len(body) >= 20:  # enhanced packet
            interface, high, low, captured, _ = struct.unpack_from(order + "5I", body)
            if interface < len(interfaces):
                link, resolution = interfaces[interface]
                yield _time(high << 32 | low, resolution), link, body[20 : 20 + captured]


def _resolution(order: str, options: bytes) -> int:
    """Return the units per second of an interface: its option if_tsresol, or microseconds."""
    while len(options) >= 4:
        kind, size = struct.unpack_from(order + "2H", options)
        if kind == 9 and size == 1:
            power = options[4]
            return 1 << (power & 0x3F) if power & 0x80 else 10 ** min(power, 18)
        if not kind:
            break
        options = options[4 + size + -size % 4 :]
    return 10**6


# -- layers ----------------------------------------------------------------------------------------


def _network_layer(link: int, frame: bytes) -> bytes:
    """Return the IP packet of a frame, or nothing."""
    header = _LINKS.get(link)
    if header is None:
        return b""
    if link != 1:
        return frame[header:]
    at = 12
    kind = int.from_bytes(frame[at : at + 2], "big")
    while kind in _VLAN:
        at += 4
        kind = int.from_bytes(frame[at : at + 2], "big")
    return frame[at + 2 :] if kind in (_IPV4, _IPV6) else b""


#: The size of each link type's header: loopback (BSD, OpenBSD), Ethernet, raw IP, Linux "any".
_LINKS = {0: 4, 108: 4, 1: 14, 12: 0, 101: 0, 228: 0, 229: 0, 113: 16, 276: 20}


def _bare_packet(data: bytes) -> bytes:
    """Return the IP packet of bytes that begin with it or with an Ethernet header."""
    if _ip(data):
        return data
    return _network_layer(1, data)


def _ip(data: bytes) -> tuple[int, str, str, bytes] | None:
    """Return the protocol, the addresses and the data of a whole IP packet, or None."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        header, total = 4 * (data[0] & 15), int.from_bytes(data[2:4], "big")
        fragment = int.from_bytes(data[6:8], "big") & 0x3FFF
        if header < 20 or not header <= total <= len(data) or fragment:
            return None
        ends = str(ip_address(data[12:16])), str(ip_address(data[16:20]))
        return data[9], *ends, data[header:total]
    if len(data) >= 40 and data[0] >> 4 == 6:
        end = 40 + int.from_bytes(data[4:6], "big")
        protocol, at = data[6], 40
        while protocol in _EXTENSIONS and at + 8 <= min(end, len(data)):
            protocol, at = data[at], at + 8 + 8 * data[at + 1]
        if not at <= end <= len(data):
            return None
        ends = f"[{ip_address(data[8:24])}]", f"[{ip_address(data[24:40])}]"
        return protocol, *ends, data[at:end]
    return None


def _segment(data: bytes) -> _Segment | None:
    """Return the data of an IP packet's UDP or TCP, or None."""
    found = _ip(data)
    if found is None:
        return None
    protocol, source, destination, payload = found
    if protocol not in (_UDP, _TCP) or len(payload) < (8 if protocol == _UDP else 20):
        return None
    ports: tuple[int, int] = struct.unpack_from(">2H", payload)
    ends = f"{source}:{ports[0]}", f"{destination}:{ports[1]}"
    if protocol == _UDP:
        size = int.from_bytes(payload[4:6], "big")
        if not 8 <= size <= len(payload):
            return None
        return _Segment(*ends, ports, None, payload[8:size])
    (sequence,) = struct.unpack_from(">I", payload, 4)
    sequence += bool(payload[13] & 0x02)  # a SYN counts
    return _Segment(*ends, ports, sequence, payload[4 * (payload[12] >> 4) :])
