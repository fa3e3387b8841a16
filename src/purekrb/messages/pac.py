"""The PAC: the facts that a domain controller tells about a ticket's client. Source: MS-PAC 2.

    cBuffers (4) | version 0 (4) | cBuffers x { type (4) | size (4) | offset (8) } | buffers

All numbers are little-endian; buffers start at multiples of 8. `Pac.decode` reads only that table.
Do not decode the buffers before the server signature is verified (`exchanges/identity.py` does both
in this order).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import IntEnum

from purekrb.constants import ChecksumType
from purekrb.errors import PacError
from purekrb.messages.ndr import Group, Ndr, member_of, sid_of, text_of
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
#: The checksum types of PAC signatures, with their sizes in bytes. Source: MS-PAC 2.8.
SIGNATURE_SIZES = {
    ChecksumType.HMAC_SHA1_96_AES128: 12,
    ChecksumType.HMAC_SHA1_96_AES256: 12,
    ChecksumType.HMAC_SHA256_128_AES128: 16,
    ChecksumType.HMAC_SHA384_192_AES256: 24,
    ChecksumType.HMAC_MD5: 16,
}
_RODC_ID = 2  # the size of the RODC identifier, which may follow a signature
#: The moment from which a FILETIME counts units of 100 ns. Source: MS-DTYP 2.3.3.
FILETIME_EPOCH = datetime(1601, 1, 1, tzinfo=timezone.utc)


class PacBuffer(IntEnum):
    """Types of PAC buffers. Source: MS-PAC 2.4."""

    LOGON_INFO = 1
    CREDENTIALS_INFO = 2
    SERVER_CHECKSUM = 6
    KDC_CHECKSUM = 7
    CLIENT_INFO = 10
    DELEGATION_INFO = 11
    UPN_DNS_INFO = 12
    CLIENT_CLAIMS_INFO = 13
    DEVICE_INFO = 14
    DEVICE_CLAIMS_INFO = 15
    TICKET_CHECKSUM = 16
    ATTRIBUTES_INFO = 17
    REQUESTER_SID = 18
    FULL_CHECKSUM = 19


@dataclass(frozen=True, slots=True)
class PacSignature:
    """PAC_SIGNATURE_DATA: a checksum type, the checksum, and its read-only DC. Source: MS-PAC 2.8.

    `rodc_identifier` has 16 bits, little-endian, after the checksum. It is None unless a read-only
    domain controller made the signature.
    """

    cksumtype: int
    signature: bytes
    rodc_identifier: int | None = None


@dataclass(frozen=True, slots=True)
class Pac:
    """A PAC and its table of buffers: type -> (offset, size) in `data`."""

    data: bytes = field(repr=False)  # the logon information holds a session key
    buffers: Mapping[int, tuple[int, int]]

    @classmethod
    def decode(cls, data: bytes) -> Pac:
        """Return the PAC. Raises PacError if its table is malformed.

        A table is malformed, too, if a type occurs twice or if buffers overlap. Source: MS-PAC 2.3.
        """
        if len(data) < _HEADER.size:
            raise PacError(f"the PAC is cut off: it has {len(data)} bytes")
        count, version = _HEADER.unpack_from(data)
        end_of_table = _HEADER.size + count * _ENTRY.size
        if version != 0 or end_of_table > len(data):
            raise PacError(
                f"the PAC is malformed: version {version}, "
                f"{count} buffers announced in {len(data)} bytes"
            )
        buffers: dict[int, tuple[int, int]] = {}
        for at in range(_HEADER.size, end_of_table, _ENTRY.size):
            kind, size, offset = _ENTRY.unpack_from(data, at)
            if offset % _ALIGNMENT or offset < end_of_table or offset + size > len(data):
                raise PacError(
                    f"PAC buffer {kind} lies outside the PAC: "
                    f"{size} bytes at {offset} of {len(data)}"
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
        """Return the bytes of the buffer of that type, or None."""
        offset, size = self.buffers.get(kind, (0, 0))
        return self.data[offset : offset + size] if offset else None

    def signature(self, kind: PacBuffer) -> PacSignature | None:
        """Return the signature of that type, or None. Raises PacError for other checksum types."""
        data = self.buffer(kind)
        if data is None:
            return None
        cksumtype = int.from_bytes(data[:4], "little", signed=True)
        size = SIGNATURE_SIZES.get(cksumtype)  # type: ignore[call-overload]
        if size is None or len(data) - 4 not in (size, size + _RODC_ID):
            raise PacError(
                f"PAC buffer {kind.name} holds no signature: "
                f"checksum type {cksumtype}, {len(data)} bytes"
            )
        identifier = data[4 + size :]
        return PacSignature(
            cksumtype,
            data[4 : 4 + size],
            int.from_bytes(identifier, "little") if identifier else None,
        )

    def signed_data(self) -> bytes:
        """Return the data that the server signature covers: the PAC with both signatures zeroed.

        Their types are not zeroed. The identifier of a read-only domain controller is, as Windows
        does it. Source: MS-PAC 2.8.4.
        """
        data = bytearray(self.data)
        for kind in (PacBuffer.SERVER_CHECKSUM, PacBuffer.KDC_CHECKSUM):
            if self.signature(kind) is not None:
                start, size = self.buffers[kind]
                data[start + 4 : start + size] = bytes(size - 4)
        return bytes(data)


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """PAC_CLIENT_INFO: the client's name in the ticket, and the ticket's authtime. MS-PAC 2.7."""

    authtime: datetime
    name: str

    @classmethod
    def decode(cls, data: bytes) -> ClientInfo:
        """Return the buffer's content, with the time in whole seconds. Raises PacError."""
        if len(data) < 10 or len(data) < 10 + int.from_bytes(data[8:10], "little"):
            raise PacError("the PAC's client information is cut off")
        seconds = int.from_bytes(data[:8], "little") // 10_000_000
        try:
            authtime = FILETIME_EPOCH + timedelta(seconds=seconds)
        except OverflowError:
            raise PacError("the PAC's client information has an impossible time") from None
        return cls(authtime, text_of(data[10 : 10 + int.from_bytes(data[8:10], "little")]))


@dataclass(frozen=True, slots=True)
class UpnDnsInfo:
    """UPN_DNS_INFO: user principal name, domain's DNS name, and since 2021 SAM name and SID.

    If `constructed` is true, the account has no UPN of its own: `upn` is then made of its name and
    its domain. Source: MS-PAC 2.10.
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
            sam_name, sid = text_of(_piece(data, *sam)), sid_of(_piece(data, *owner))
        return cls(
            text_of(_piece(data, *fields[:2])),
            text_of(_piece(data, *fields[2:])),
            bool(flags & constructed),
            sam_name,
            sid,
        )


@dataclass(frozen=True, slots=True)
class LogonInfo:
    """KERB_VALIDATION_INFO: the account, its SID and those of its groups. Source: MS-PAC 2.5.

    Fields that an application cannot use are left out: times, profile paths, counters.
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
        ndr = Ndr(data, "logon information")
        # LogonTime, LogoffTime, KickOffTime, PasswordLastSet, PasswordCanChange, PasswordMustChange
        ndr.skip(6 * 8)
        # EffectiveName, FullName, LogonScript, three paths
        names = [ndr.string_header() for _ in range(6)]
        ndr.skip(2 * 2)  # LogonCount, BadPasswordCount
        user_id, primary_group_id, group_count, group_ids, user_flags = (
            ndr.uint32() for _ in range(5)
        )
        ndr.skip(16)  # UserSessionKey
        domains = [ndr.string_header() for _ in range(2)]  # LogonServer, LogonDomainName
        domain_id = ndr.uint32()
        # Reserved1, UserAccountControl, SubAuthStatus, ILogon times and counts
        ndr.skip(2 * 4 + 2 * 4 + 2 * 8 + 2 * 4)
        sid_count, sids, resource_domain, resource_count, resources = (
            ndr.uint32() for _ in range(5)
        )
        # The data of the pointers follow in the order of the pointers.
        effective_name, full_name, *_ = [ndr.string(header) for header in names]
        memberships = ndr.memberships(group_ids, group_count)
        _, domain = [ndr.string(header) for header in domains]
        domain_sid = ndr.sid() if domain_id else None
        extra = ndr.sids_and_attributes(sids, sid_count)
        resource_sid = ndr.sid() if resource_domain else None
        resource_memberships = ndr.memberships(resources, resource_count)
        if domain_sid is None:
            raise PacError("the PAC does not name the account's domain")
        groups = [Group(member_of(domain_sid, rid), attributes) for rid, attributes in memberships]
        extra = extra if user_flags & extra_sids else []
        if user_id:
            user_sid = member_of(domain_sid, user_id)
        elif extra:  # an account without a RID in this domain is the first in the list of SIDs
            user_sid = extra.pop(0).sid
        else:
            raise PacError("the PAC does not name an account")
        if user_flags & resource_groups and resource_sid is not None:
            extra += [
                Group(member_of(resource_sid, rid), attributes)
                for rid, attributes in resource_memberships
            ]
        return cls(
            effective_name,
            full_name,
            domain,
            user_sid,
            member_of(domain_sid, primary_group_id),
            (*groups, *extra),
        )


def _piece(data: bytes, size: int, offset: int) -> bytes:
    if offset + size > len(data):
        raise PacError("a text in the PAC points past the end of its buffer")
    return data[offset : offset + size]
