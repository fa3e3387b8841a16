"""The domain controller ping: an LDAP search for the attribute Netlogon, in a datagram.

A client learns from it in which site it is. Nothing in it is signed. Source: MS-ADTS 6.3.1.9, 6.3.3,
RFC 4511 4.5, RFC 1035 4.1.4.
"""

from __future__ import annotations

from enum import IntFlag

from purekrb.errors import DecodeError
from purekrb.messages.der import tlv
from purekrb.records import record

__all__ = [
    "Netlogon",
    "NetlogonFlags",
    "decode_answer",
    "decode_netlogon",
    "encode_ping",
    "is_answer",
]

#: NETLOGON_NT_VERSION_5, _5EX and _WITH_CLOSEST_SITE: an answer with the names of sites.
_NT_VERSION = 0x16
#: LOGON_SAM_LOGON_RESPONSE_EX, and LOGON_SAM_USER_UNKNOWN_EX, which has the same form.
_OPCODES = (23, 25)
_NAMES_AT = 24
_MAX_NAME = 255
_ATTRIBUTE = b"netlogon"

_INTEGER, _OCTETS, _ENUMERATED, _BOOLEAN = 0x02, 0x04, 0x0A, 0x01
_SEQUENCE, _SET = 0x30, 0x31
_SEARCH_REQUEST, _SEARCH_ENTRY = 0x63, 0x64
_AND, _EQUALITY = 0xA0, 0xA3


class NetlogonFlags(IntFlag):
    """What a domain controller is. Source: MS-ADTS 6.3.1.2."""

    PDC = 1 << 0
    GC = 1 << 2
    LDAP = 1 << 3
    DS = 1 << 4
    KDC = 1 << 5
    TIMESERV = 1 << 6
    CLOSEST = 1 << 7
    WRITABLE = 1 << 8
    GOOD_TIMESERV = 1 << 9
    NDNC = 1 << 10
    SELECT_SECRET_DOMAIN_6 = 1 << 11
    FULL_SECRET_DOMAIN_6 = 1 << 12
    WS = 1 << 13
    DS_8 = 1 << 14
    DS_9 = 1 << 15
    DS_10 = 1 << 16
    DNS_CONTROLLER = 1 << 29
    DNS_DOMAIN = 1 << 30
    DNS_FOREST = 1 << 31


@record
class Netlogon:
    """NETLOGON_SAM_LOGON_RESPONSE_EX: what a domain controller says of itself and of the client.

    `client_site` is "" if the client's address belongs to no site.
    """

    opcode: int
    flags: int
    domain_guid: bytes
    forest: str
    domain: str
    host: str
    netbios_domain: str
    netbios_host: str
    user: str
    dc_site: str
    client_site: str


def encode_ping(domain: str, message_id: int) -> bytes:
    """Return the search whose answer describes a domain controller of the DNS name `domain`."""

    def equal(name: bytes, value: bytes) -> bytes:
        return tlv(_EQUALITY, tlv(_OCTETS, name) + tlv(_OCTETS, value))

    request = (
        tlv(_OCTETS, b"")  # the root DSE,
        + tlv(_ENUMERATED, b"\0") * 2  # itself, without aliases,
        + tlv(_INTEGER, b"\0") * 2  # without limits of size and time,
        + tlv(_BOOLEAN, b"\0")  # with values
        + tlv(
            _AND,
            equal(b"DnsDomain", domain.encode())
            + equal(b"NtVer", _NT_VERSION.to_bytes(4, "little")),
        )
        + tlv(_SEQUENCE, tlv(_OCTETS, b"Netlogon"))
    )
    number = message_id.to_bytes(4, "big").lstrip(b"\0") or b"\0"
    return tlv(_SEQUENCE, tlv(_INTEGER, number) + tlv(_SEARCH_REQUEST, request))


def decode_answer(data: bytes) -> tuple[int, Netlogon]:
    """Return the message ID and the content of the answer to a ping.

    Raises DecodeError if `data` does not begin with an entry that has the attribute Netlogon.
    """
    message = _Reader(data).enter(_SEQUENCE)
    number = int.from_bytes(message.take(_INTEGER), "big", signed=True)
    entry = message.enter(_SEARCH_ENTRY)
    entry.take(_OCTETS)
    attributes = entry.enter(_SEQUENCE)
    while not attributes.is_empty:
        attribute = attributes.enter(_SEQUENCE)
        name = attribute.take(_OCTETS)
        values = attribute.enter(_SET)
        if name.lower() == _ATTRIBUTE:
            return number, decode_netlogon(values.take(_OCTETS))
    raise DecodeError("the answer of the domain controller has no attribute Netlogon")


def is_answer(data: bytes) -> bool:
    """Return whether `data` is the answer to a ping."""
    if data[:1] != bytes([_SEQUENCE]) or _ATTRIBUTE not in data[:512].lower():
        return False
    try:
        decode_answer(data)
    except DecodeError:
        return False
    return True


def decode_netlogon(data: bytes) -> Netlogon:
    """Return the content of a Netlogon attribute. Raises DecodeError."""
    opcode = int.from_bytes(data[:2], "little")
    if len(data) < _NAMES_AT or opcode not in _OPCODES:
        raise DecodeError(f"{len(data)} bytes with operation {opcode} are no answer of Netlogon")
    names, at = [], _NAMES_AT
    for _ in range(8):
        name, at = _name(data, at)
        names.append(name)
    return Netlogon(opcode, int.from_bytes(data[4:8], "little"), data[8:_NAMES_AT], *names)


def _name(data: bytes, at: int) -> tuple[str, int]:
    """Return the name at an offset, and the offset after it.

    A pointer leads to an earlier place than the name that it is in, so there is no loop.
    """
    labels: list[str] = []
    size, end, limit = 0, 0, at
    while True:
        length = _byte(data, at)
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | _byte(data, at + 1)
            if target >= limit:
                raise DecodeError("a compressed name of Netlogon does not lead backwards")
            end = end or at + 2
            at = limit = target
            continue
        if length >= 0x40:
            raise DecodeError(f"a label of a name of Netlogon begins with 0x{length:02x}")
        label = data[at + 1 : at + 1 + length]
        at += 1 + length
        size += 1 + length
        if len(label) < length or size > _MAX_NAME:
            raise DecodeError("a name of Netlogon is cut off or too long")
        if not length:
            return ".".join(labels), end or at
        try:
            labels.append(label.decode())
        except UnicodeDecodeError:
            raise DecodeError("a name of Netlogon is not UTF-8") from None


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise DecodeError("a name of Netlogon is cut off")
    return data[at]


class _Reader:
    """Reads elements with definite lengths in BER, as LDAP allows them (RFC 4511 5.1)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def enter(self, tag: int) -> _Reader:
        """Return a reader of the contents of the next element."""
        return _Reader(self.take(tag))

    def take(self, tag: int) -> bytes:
        """Return the contents of the next element. Raises DecodeError for another tag."""
        data, start = self._data, self._at + 2
        head = data[self._at : start]
        if len(head) < 2 or head[0] != tag:
            raise DecodeError(
                f"the answer of the domain controller has 0x{head[:1].hex()} where 0x{tag:02x} belongs"
            )
        length = head[1]
        if length & 0x80:
            octets = length & 0x7F
            if not 0 < octets <= 4:
                raise DecodeError("a length in the answer of the domain controller is not definite")
            length = int.from_bytes(data[start : start + octets], "big")
            start += octets
        if start + length > len(data):
            raise DecodeError("the answer of the domain controller is cut off")
        self._at = start + length
        return data[start : self._at]
