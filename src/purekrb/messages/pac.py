"""The PAC: what a domain controller says about the client of a ticket. Source: MS-PAC 2.

    cBuffers (4) | version 0 (4) | cBuffers x { type (4) | size (4) | offset (8) } | buffers, at multiples of 8

All numbers are little-endian. `Pac.decode` reads that table and nothing else: what is in the buffers is to be believed,
and so decoded, only after the server signature was verified (`exchanges/identity.py` does both in this order).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import IntEnum

from purekrb.constants import ChecksumType
from purekrb.errors import DecodeError, PacError
from purekrb.sid import Sid
from purekrb.tracebacks import forget_frames

__all__ = [
    "Pac",
    "PacBuffer",
    "PacSignature",
    "LogonInfo",
    "Group",
    "ClientInfo",
    "UpnDnsInfo",
    "SIGNATURE_SIZES",
]

_HEADER = struct.Struct("<II")
_ENTRY = struct.Struct("<IIQ")
_ALIGNMENT = 8
#: The checksum types that sign a PAC, with the sizes of their signatures in bytes. Source: MS-PAC 2.8.
SIGNATURE_SIZES = {
    ChecksumType.HMAC_SHA1_96_AES128: 12,
    ChecksumType.HMAC_SHA1_96_AES256: 12,
    ChecksumType.HMAC_SHA256_128_AES128: 16,
    ChecksumType.HMAC_SHA384_192_AES256: 24,
    ChecksumType.HMAC_MD5: 16,
}
_RODC_ID = 2  # bytes that may follow a signature
_FILETIME_EPOCH = datetime(1601, 1, 1, tzinfo=timezone.utc)


class PacBuffer(IntEnum):
    """Types of PAC buffers. Source: MS-PAC 2.4."""

    LOGON_INFO = 1
    SERVER_CHECKSUM = 6
    KDC_CHECKSUM = 7
    CLIENT_INFO = 10
    UPN_DNS_INFO = 12
    TICKET_CHECKSUM = 16
    REQUESTER_SID = 18
    FULL_CHECKSUM = 19


@dataclass(frozen=True, slots=True)
class PacSignature:
    """PAC_SIGNATURE_DATA: a checksum type, the checksum, and which read-only DC made it. Source: MS-PAC 2.8.

    `rodc_identifier` (16 bits, little-endian behind the checksum) is None where no read-only domain controller did.
    """

    cksumtype: int
    signature: bytes
    rodc_identifier: int | None = None


@dataclass(frozen=True, slots=True)
class Pac:
    """A PAC taken apart into its buffers: type -> (offset, size) in `data`."""

    data: bytes = field(repr=False)  # the logon information holds a session key
    buffers: Mapping[int, tuple[int, int]]

    @classmethod
    def decode(cls, data: bytes) -> Pac:
        """Return the table of buffers. Raises PacError where it is malformed, or a type or a byte occurs twice."""
        if len(data) < _HEADER.size:
            raise PacError(f"the PAC is cut off: it has {len(data)} bytes")
        count, version = _HEADER.unpack_from(data)
        end_of_table = _HEADER.size + count * _ENTRY.size
        if version != 0 or end_of_table > len(data):
            raise PacError(
                f"the PAC is malformed: version {version}, {count} buffers announced in {len(data)} bytes"
            )
        buffers: dict[int, tuple[int, int]] = {}
        for at in range(_HEADER.size, end_of_table, _ENTRY.size):
            kind, size, offset = _ENTRY.unpack_from(data, at)
            if offset % _ALIGNMENT or offset < end_of_table or offset + size > len(data):
                raise PacError(
                    f"PAC buffer {kind} lies outside of the PAC: {size} bytes at {offset} of {len(data)}"
                )
            if kind in buffers:
                raise PacError(f"the PAC holds buffer {kind} twice")
            buffers[kind] = offset, size
        end = 0
        for offset, size in sorted(buffers.values()):
            if offset < end:
                raise PacError("the buffers of the PAC overlap")
            end = offset + size
        return cls(data, buffers)

    def buffer(self, kind: PacBuffer) -> bytes | None:
        """Return the bytes of a buffer, None where there is none of that type."""
        offset, size = self.buffers.get(kind, (0, 0))
        return self.data[offset : offset + size] if offset else None

    def signature(self, kind: PacBuffer) -> PacSignature | None:
        """Return a signature, None where there is none. Raises PacError for a checksum type that signs no PAC."""
        data = self.buffer(kind)
        if data is None:
            return None
        cksumtype = int.from_bytes(data[:4], "little", signed=True)
        size = SIGNATURE_SIZES.get(cksumtype)  # type: ignore[call-overload]
        if size is None or len(data) - 4 not in (size, size + _RODC_ID):
            raise PacError(
                f"PAC buffer {kind.name} holds no signature: checksum type {cksumtype}, {len(data)} bytes"
            )
        identifier = data[4 + size :]
        return PacSignature(
            cksumtype,
            data[4 : 4 + size],
            int.from_bytes(identifier, "little") if identifier else None,
        )

    def signed_data(self) -> bytes:
        """Return what the server signature covers: all, with both signatures zero but for their types. MS-PAC 2.8.4.

        Zero is what follows a signature as well, the identifier of a read-only domain controller: so Windows makes it.
        """
        data = bytearray(self.data)
        for kind in (PacBuffer.SERVER_CHECKSUM, PacBuffer.KDC_CHECKSUM):
            if self.signature(kind) is not None:
                start, size = self.buffers[kind]
                data[start + 4 : start + size] = bytes(size - 4)
        return bytes(data)


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """PAC_CLIENT_INFO: the client's name as in the ticket, and the ticket's authtime. Source: MS-PAC 2.7."""

    authtime: datetime
    name: str

    @classmethod
    def decode(cls, data: bytes) -> ClientInfo:
        """Return the buffer's content; the time in whole seconds."""
        if len(data) < 10 or len(data) < 10 + int.from_bytes(data[8:10], "little"):
            raise PacError("the PAC's client information is cut off")
        seconds = int.from_bytes(data[:8], "little") // 10_000_000
        try:
            authtime = _FILETIME_EPOCH + timedelta(seconds=seconds)
        except OverflowError:
            raise PacError("the PAC's client information holds no time") from None
        return cls(authtime, _text(data[10 : 10 + int.from_bytes(data[8:10], "little")]))


@dataclass(frozen=True, slots=True)
class UpnDnsInfo:
    """UPN_DNS_INFO: user principal name, DNS name of the domain, and since 2021 the SAM name and the SID. MS-PAC 2.10.

    `constructed` tells that the account has no UPN of its own: `upn` is then made of its name and its domain.
    """

    upn: str
    dns_domain: str
    constructed: bool
    sam_name: str | None
    sid: Sid | None

    @classmethod
    def decode(cls, data: bytes) -> UpnDnsInfo:
        """Return the buffer's content."""
        constructed, extended = 1, 2
        if len(data) < 12:
            raise PacError("the PAC's UPN information is cut off")
        *fields, flags = struct.unpack_from("<HHHHI", data)
        sam_name = sid = None
        if flags & extended:
            if len(data) < 20:
                raise PacError("the PAC's extended UPN information is cut off")
            sam, owner = struct.unpack_from("<HH", data, 12), struct.unpack_from("<HH", data, 16)
            sam_name, sid = _text(_piece(data, *sam)), _sid(_piece(data, *owner))
        return cls(
            _text(_piece(data, *fields[:2])),
            _text(_piece(data, *fields[2:])),
            bool(flags & constructed),
            sam_name,
            sid,
        )


@dataclass(frozen=True, slots=True)
class Group:
    """A group that the client is a member of. `attributes`: SE_GROUP_* bits. Source: MS-PAC 2.2.1."""

    sid: Sid
    attributes: int


@dataclass(frozen=True, slots=True)
class LogonInfo:
    """KERB_VALIDATION_INFO: the account, its SID and those of its groups. Source: MS-PAC 2.5.

    Only what an application can use: no times, no profile paths, no counters.
    """

    effective_name: str
    full_name: str
    domain: str
    user_sid: Sid
    primary_group: Sid
    groups: tuple[Group, ...]

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> LogonInfo:
        """Return the buffer's content. Raises PacError for malformed NDR."""
        extra_sids, resource_groups = 0x20, 0x200  # bits of UserFlags: these fields are in use
        ndr = _Ndr(data)
        ndr.skip(
            6 * 8
        )  # LogonTime, LogoffTime, KickOffTime, PasswordLastSet, PasswordCanChange, PasswordMustChange
        names = [
            ndr.string_header() for _ in range(6)
        ]  # EffectiveName, FullName, LogonScript, three paths
        ndr.skip(2 * 2)  # LogonCount, BadPasswordCount
        user_id, primary_group_id, group_count, group_ids, user_flags = (
            ndr.uint32() for _ in range(5)
        )
        ndr.skip(16)  # UserSessionKey
        domains = [ndr.string_header() for _ in range(2)]  # LogonServer, LogonDomainName
        domain_id = ndr.uint32()
        ndr.skip(
            2 * 4 + 2 * 4 + 2 * 8 + 2 * 4
        )  # Reserved1, UserAccountControl, SubAuthStatus, ILogon times and counts
        sid_count, sids, resource_domain, resource_count, resources = (
            ndr.uint32() for _ in range(5)
        )
        # What the pointers lead to follows in the order of the pointers.
        effective_name, full_name, *_ = [ndr.string(header) for header in names]
        memberships = ndr.memberships(group_ids, group_count)
        _, domain = [ndr.string(header) for header in domains]
        domain_sid = ndr.sid() if domain_id else None
        extra = ndr.sids_and_attributes(sids, sid_count)
        resource_sid = ndr.sid() if resource_domain else None
        resource_memberships = ndr.memberships(resources, resource_count)
        if domain_sid is None:
            raise PacError("the PAC names no domain of the account")
        groups = [Group(_member(domain_sid, rid), attributes) for rid, attributes in memberships]
        extra = extra if user_flags & extra_sids else []
        if user_id:
            user_sid = _member(domain_sid, user_id)
        elif extra:  # an account that has no RID in this domain leads its list of SIDs
            user_sid = extra.pop(0).sid
        else:
            raise PacError("the PAC names no account")
        if user_flags & resource_groups and resource_sid is not None:
            extra += [
                Group(_member(resource_sid, rid), attributes)
                for rid, attributes in resource_memberships
            ]
        return cls(
            effective_name,
            full_name,
            domain,
            user_sid,
            _member(domain_sid, primary_group_id),
            (*groups, *extra),
        )


class _Ndr:
    """Reads NDR (C706 14, MS-RPCE 2.2.6) from the front of `data`. No count is believed before it was compared."""

    def __init__(self, data: bytes) -> None:
        # Version 1, little-endian, 8 bytes; then length and filler; then the pointer to the structure.
        if len(data) < 20 or data[:4] != b"\x01\x10\x08\x00" or data[16:20] == bytes(4):
            raise PacError("the PAC's logon information is not in NDR version 1, or empty")
        if int.from_bytes(data[8:12], "little") > len(data) - 16:
            raise PacError("the PAC's logon information is cut off")
        self._data, self._at = data, 20

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise PacError("the PAC's logon information is cut off: a field points behind its end")
        self._at += size
        return self._data[self._at - size : self._at]

    def skip(self, size: int) -> None:
        self.take(size)

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def string_header(self) -> tuple[int, int]:
        """Return length in bytes and pointer of an RPC_UNICODE_STRING."""
        length, maximum, pointer = struct.unpack("<HHI", self.take(8))
        if length % 2 or length > maximum or (length and not pointer):
            raise PacError("a text in the PAC's logon information has an impossible length")
        return length, pointer

    def string(self, header: tuple[int, int]) -> str:
        """Return the text that belongs to a header: maximum, offset and actual count, then UTF-16."""
        length, pointer = header
        if not pointer:
            return ""
        maximum, offset, actual = self.uint32(), self.uint32(), self.uint32()
        if offset or actual > maximum or length > 2 * actual:
            raise PacError("a text in the PAC's logon information has an impossible length")
        text = _text(self.take(2 * actual)[:length])
        self.skip(-self._at % 4)
        return text

    def memberships(self, pointer: int, count: int) -> list[tuple[int, int]]:
        """Return an array of GROUP_MEMBERSHIP: relative identifiers and attributes."""
        return list(struct.iter_unpack("<II", self._array(pointer, count)))

    def sids_and_attributes(self, pointer: int, count: int) -> list[Group]:
        """Return an array of KERB_SID_AND_ATTRIBUTES; the SIDs stand behind the whole array."""
        entries = list(struct.iter_unpack("<II", self._array(pointer, count)))
        if not all(sid for sid, _ in entries):
            raise PacError("the PAC lists a group without a SID")
        return [Group(self.sid(), attributes) for _, attributes in entries]

    def sid(self) -> Sid:
        """Return an RPC_SID: the number of sub-authorities, then the SID."""
        count = self.uint32()
        data = self.take(8 + 4 * count)
        if data[1] != count:
            raise PacError("a SID in the PAC's logon information has two lengths")
        return _sid(data)

    def _array(self, pointer: int, count: int) -> bytes:
        """Return the bytes of a conformant array of `count` elements of 8 bytes."""
        if not pointer:
            if count:
                raise PacError("the PAC's logon information announces groups and lists none")
            return b""
        if self.uint32() != count:
            raise PacError("the PAC's logon information tells two numbers of groups")
        return self.take(8 * count)


def _member(domain: Sid, rid: int) -> Sid:
    try:
        return Sid(domain.authority, (*domain.sub_authorities, rid))
    except DecodeError as error:
        raise PacError(f"the PAC's logon information holds an impossible SID: {error}") from None


def _sid(data: bytes) -> Sid:
    try:
        return Sid.decode(data)
    except DecodeError as error:
        raise PacError(f"the PAC holds a malformed SID: {error}") from None


def _text(data: bytes) -> str:
    with suppress(
        UnicodeDecodeError
    ):  # the error raised outside of it: a UnicodeDecodeError holds what it read
        return data.decode("utf-16-le")
    raise PacError("a text in the PAC is not UTF-16")


def _piece(data: bytes, size: int, offset: int) -> bytes:
    if offset + size > len(data):
        raise PacError("a text in the PAC points behind the end of its buffer")
    return data[offset : offset + size]
