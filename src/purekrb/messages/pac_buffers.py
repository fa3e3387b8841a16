"""The buffers of a PAC that only a reader needs: delegation, claims, the device, attributes.

Nothing here decides about access. Source: MS-PAC 2.9, 2.11 to 2.14; MS-ADTS 2.2.18 (claims).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag

from purekrb.errors import PacError, UnsupportedError
from purekrb.messages.ndr import Group, Ndr, member_of
from purekrb.sid import Sid
from purekrb.tracebacks import forget_frames

__all__ = [
    "DelegationInfo",
    "DeviceInfo",
    "Claim",
    "Claims",
    "PacAttributes",
    "pac_attributes",
]


class PacAttributes(IntFlag):
    """Why the ticket has a PAC. Source: MS-PAC 2.14."""

    PAC_WAS_REQUESTED = 1
    PAC_WAS_GIVEN_IMPLICITLY = 2


def pac_attributes(data: bytes) -> PacAttributes:
    """Return the content of PAC_ATTRIBUTES_INFO. Raises PacError."""
    if len(data) < 8:
        raise PacError("the PAC's attributes are cut off")
    bits = min(int.from_bytes(data[:4], "little"), 32)
    return PacAttributes(int.from_bytes(data[4:8], "little") & ((1 << bits) - 1) & 3)


@dataclass(frozen=True, slots=True)
class DelegationInfo:
    """S4U_DELEGATION_INFO: the service of constrained delegation, and those before it. MS-PAC 2.9."""

    target: str
    transited: tuple[str, ...]

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> DelegationInfo:
        """Return the buffer's content. Raises PacError."""
        ndr = Ndr(data, "delegation information")
        header = ndr.string_header()
        count, pointer = ndr.uint32(), ndr.uint32()
        target = ndr.string(header)
        headers = [ndr.string_header() for _ in range(ndr.count(count, 8))] if pointer else []
        return cls(target, tuple(ndr.string(each) for each in headers))


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """PAC_DEVICE_INFO: the SIDs of the client's device and of its groups. Source: MS-PAC 2.12."""

    device: Sid
    groups: tuple[Group, ...]

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> DeviceInfo:
        """Return the buffer's content. Raises PacError."""
        ndr = Ndr(data, "device information")
        # UserId, PrimaryGroupId, AccountDomainId, AccountGroupCount and Ids, SidCount, ExtraSids,
        # DomainGroupCount, DomainGroup
        user, _, domain, count, groups, sid_count, sids, domain_count, domains = (
            ndr.uint32() for _ in range(9)
        )
        if not domain:
            raise PacError("the PAC does not name the device's domain")
        domain_sid = ndr.sid()
        found = _members(domain_sid, ndr.memberships(groups, count))
        found += ndr.sids_and_attributes(sids, sid_count)
        if domains:
            entries = [
                (ndr.uint32(), ndr.uint32(), ndr.uint32())
                for _ in range(ndr.count(domain_count, 12))
            ]
            for pointer, size, ids in entries:
                if not pointer:
                    raise PacError("the PAC lists groups of a domain without its SID")
                found += _members(ndr.sid(), ndr.memberships(ids, size))
        return cls(member_of(domain_sid, user), tuple(found))


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim: its identifier (ad://ext/...), and its values."""

    id: str
    values: tuple[int | str | bool, ...]


_UNCOMPRESSED, _XPRESS_HUFFMAN = 0, 4
#: Source: MS-ADTS 2.2.18.1.
_COMPRESSIONS = {2: "LZNT1", 3: "XPRESS", _XPRESS_HUFFMAN: "XPRESS Huffman"}


@dataclass(frozen=True, slots=True)
class Claims:
    """CLAIMS_SET_METADATA: claims about the client or its device. Source: MS-ADTS 2.2.18.4.

    `size` is that of the claims, in bytes; `blob` holds them, perhaps compressed.
    """

    compression: int
    size: int
    blob: bytes

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> Claims:
        """Return the buffer's content. Raises PacError."""
        ndr = Ndr(data, "claims")
        size, pointer, compression, full_size = (ndr.uint32() for _ in range(4))
        ndr.skip(3 * 4)  # the reserved fields
        blob = ndr.take(ndr.count(size, 1)) if pointer else b""
        compression &= 0xFFFF
        return cls(compression, size if compression == _UNCOMPRESSED else full_size, blob)

    @property
    def compressed_by(self) -> str:
        """The name of the compression; "" without one."""
        if self.compression == _UNCOMPRESSED:
            return ""
        return _COMPRESSIONS.get(self.compression, str(self.compression))

    @forget_frames
    def claims(self) -> tuple[Claim, ...]:
        """Return the claims.

        Raises PacError, and UnsupportedError if they are compressed in another way than by XPRESS
        Huffman, or if that needs a package that is missing.
        """
        blob = self.blob
        if self.compression == _XPRESS_HUFFMAN and blob:
            from purekrb.messages.xpress import decompress

            blob = decompress(blob, self.size)
        elif self.compression != _UNCOMPRESSED and blob:
            raise UnsupportedError(
                f"the claims are compressed by {self.compressed_by}; purekrb has XPRESS Huffman"
            )
        return tuple(_claims(blob)) if blob else ()


def _claims(data: bytes) -> list[Claim]:
    """Return the claims of a CLAIMS_SET. Source: MS-ADTS 2.2.18.3."""
    ndr = Ndr(data, "claims")
    count, pointer = ndr.uint32(), ndr.uint32()
    ndr.skip(3 * 4)  # the reserved fields
    arrays = []
    for _ in range(ndr.count(count, 12) if pointer else 0):
        ndr.uint16()  # ClaimsSourceType
        arrays.append((ndr.uint32(), ndr.uint32()))
    found = []
    for size, entries in arrays:
        heads = [
            # Id, Type, the union's own Type, ValueCount, Values
            (ndr.uint32(), ndr.uint16(), ndr.uint16(), ndr.uint32(), ndr.uint32())
            for _ in range(ndr.count(size, 16) if entries else 0)
        ]
        for name, kind, _, number, values in heads:
            read = _VALUES.get(kind)
            if read is None:
                raise PacError(f"a claim has the unknown type {kind}")
            identifier = ndr.wide_string() if name else ""
            found.append(Claim(identifier, tuple(read(ndr, number)) if values else ()))
    return found


def _numbers(ndr: Ndr, count: int) -> list[int]:
    return [ndr.int64() for _ in range(ndr.count(count, 8))]


def _strings(ndr: Ndr, count: int) -> list[str]:
    pointers = [ndr.uint32() for _ in range(ndr.count(count, 4))]
    return [ndr.wide_string() if pointer else "" for pointer in pointers]


#: How the values of each CLAIM_TYPE are read. Source: MS-ADTS 2.2.18.2, 2.2.18.5.
_VALUES: dict[int, Callable[[Ndr, int], list[int] | list[str] | list[bool]]] = {
    1: _numbers,  # INT64
    2: lambda ndr, count: [value & (1 << 64) - 1 for value in _numbers(ndr, count)],  # UINT64
    3: _strings,  # STRING
    6: lambda ndr, count: [bool(value) for value in _numbers(ndr, count)],  # BOOLEAN
}


def _members(domain: Sid, memberships: list[tuple[int, int]]) -> list[Group]:
    return [Group(member_of(domain, rid), attributes) for rid, attributes in memberships]
