"""The PACs of the embedded KDC, as a domain controller would make them. FOR TESTS AND DEMOS ONLY.

`purekrb.messages.pac` reads them. Source: MS-PAC 2.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from purekrb import crypto, records
from purekrb.constants import AuthDataType, ChecksumType, KeyUsage
from purekrb.exchanges.authorization_data import relevant_entries, wrap_if_relevant
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import AuthorizationDataEntry, EncTicketPart
from purekrb.messages.pac import FILETIME_EPOCH, SIGNATURE_SIZES, Pac, PacBuffer
from purekrb.names import PrincipalName
from purekrb.sid import Sid

__all__ = ["Domain", "pac_in", "with_pac"]

#: The buffers that are signatures. Each KDC makes them anew.
_SIGNATURES = (
    PacBuffer.SERVER_CHECKSUM,
    PacBuffer.KDC_CHECKSUM,
    PacBuffer.TICKET_CHECKSUM,
    PacBuffer.FULL_CHECKSUM,
)
_NEVER = (1 << 63) - 1
_DOMAIN_USERS = 513
#: SE_GROUP_MANDATORY, ENABLED_BY_DEFAULT and ENABLED; and USER_NORMAL_ACCOUNT.
#: Source: MS-PAC 2.2.1, MS-SAMR 2.2.1.12.
_ENABLED, _NORMAL_ACCOUNT = 7, 0x10
#: The RID of the first account. Accounts are numbered in the order in which they first get a
#: ticket.
_FIRST_RID = 1104


@dataclass(slots=True)
class Domain:
    """The domain of a realm. Every account is a member of Domain Users, and of no other group.

    If its KDC is a read-only domain controller, `rodc` (1 to 65535) identifies that.
    """

    realm: str
    sid: Sid
    rodc: int | None = None
    claims: dict[PrincipalName, dict[str, tuple[int | str | bool, ...]]] = field(
        default_factory=dict
    )
    #: Whether claims are compressed, as large ones are by domain controllers.
    compresses_claims: bool = False
    _rids: dict[PrincipalName, int] = field(default_factory=dict)

    def buffers(self, client: PrincipalName, authtime: datetime) -> dict[int, bytes]:
        """Return the buffers of a client's PAC, by their types, without signatures."""
        rid = self._rids.setdefault(client, _FIRST_RID + len(self._rids))
        name = "/".join(client.components)
        account = Sid(self.sid.authority, (*self.sid.sub_authorities, rid)).encode()
        claims = self.claims.get(client)
        claimed: dict[int, bytes] = {}
        if claims is not None:
            claimed[PacBuffer.CLIENT_CLAIMS_INFO] = self._claims(claims)
        return {
            **claimed,
            PacBuffer.LOGON_INFO: self._logon_info(name, rid, authtime),
            PacBuffer.CLIENT_INFO: struct.pack("<Q", _filetime(authtime)) + _counted(name),
            PacBuffer.UPN_DNS_INFO: _upn_dns_info(
                f"{name}@{self.realm.lower()}", self.realm, name, account
            ),
            PacBuffer.REQUESTER_SID: account,
        }

    def _claims(self, claims: Mapping[str, tuple[int | str | bool, ...]]) -> bytes:
        """Return CLAIMS_SET_METADATA. Source: MS-ADTS 2.2.18."""
        ndr = _Ndr()
        ndr.numbers(1, ndr.pointer(), 0, 0, 0, 1)  # one array; nothing reserved
        ndr.numbers(1, len(claims), ndr.pointer(), len(claims))  # CLAIMS_SOURCE_TYPE_AD
        for values in claims.values():
            kind = _CLAIM_TYPES[type(values[0])]
            ndr.numbers(ndr.pointer(), kind | kind << 16, len(values), ndr.pointer())
        for name, values in claims.items():
            ndr.text(name)
            ndr.numbers(len(values))
            if isinstance(values[0], str):
                ndr.numbers(*(ndr.pointer() for _ in values))
                for value in values:
                    ndr.text(str(value))
            else:
                ndr.align(8)
                ndr.body += b"".join(struct.pack("<q", value) for value in values)
        blob = ndr.encode()
        compression, data = (4, _xpress_huffman(blob)) if self.compresses_claims else (0, blob)
        head = _Ndr()
        head.numbers(len(data), head.pointer(), compression, len(blob), 0, 0, 0, len(data))
        head.body += data
        return head.encode()

    def _logon_info(self, name: str, rid: int, authtime: datetime) -> bytes:
        """Return KERB_VALIDATION_INFO in NDR. Source: MS-PAC 2.5, C706 14."""
        fixed, pointed = bytearray(), bytearray()

        def pointer(data: bytes) -> bytes:
            pointed.extend(data + bytes(-len(data) % 4))
            return struct.pack("<I", 0x20000 + len(pointed))  # any number other than zero

        def text(value: str) -> bytes:
            data = value.encode("utf-16-le")
            characters = len(data) // 2
            head = struct.pack("<HH", len(data), len(data))
            return head + pointer(struct.pack("<III", characters, 0, characters) + data)

        fixed += struct.pack("<6Q", _filetime(authtime), _NEVER, _NEVER, 0, 0, _NEVER)
        fixed += b"".join(map(text, (name, name, "", "", "", "")))
        fixed += struct.pack("<HHIII", 0, 0, rid, _DOMAIN_USERS, 1)
        fixed += pointer(struct.pack("<III", 1, _DOMAIN_USERS, _ENABLED))
        fixed += bytes(4 + 16)  # UserFlags, UserSessionKey
        fixed += text("KDC") + text(self.realm.partition(".")[0][:15])
        fixed += pointer(struct.pack("<I", len(self.sid.sub_authorities)) + self.sid.encode())
        fixed += struct.pack("<IIII", 0, 0, _NORMAL_ACCOUNT, 0) + bytes(2 * 8 + 2 * 4)
        fixed += bytes(5 * 4)  # neither further SIDs nor groups of a resource domain
        return _in_ndr(struct.pack("<I", 0x20000) + fixed + pointed)


#: Source: MS-ADTS 2.2.18.2.
_CLAIM_TYPES: dict[type, int] = {int: 1, str: 3, bool: 6}


class _Ndr:
    """Writes a structure in NDR, its pointers' data behind it. Source: C706 14."""

    def __init__(self) -> None:
        self.body = bytearray(struct.pack("<I", 0x20000))  # the pointer to the structure
        self._pointers = 0

    def pointer(self) -> int:
        """Return the next pointer: any number that no other has."""
        self._pointers += 1
        return 0x20000 + 4 * self._pointers

    def align(self, size: int) -> None:
        self.body += bytes(-len(self.body) % size)

    def numbers(self, *values: int) -> None:
        self.align(4)
        self.body += struct.pack(f"<{len(values)}I", *values)

    def text(self, value: str) -> None:
        data = (value + "\0").encode("utf-16-le")
        self.numbers(len(data) // 2, 0, len(data) // 2)
        self.body += data

    def encode(self) -> bytes:
        return _in_ndr(bytes(self.body))


def _in_ndr(body: bytes) -> bytes:
    """Return a structure with the headers of version 1. Source: MS-RPCE 2.2.6."""
    body += bytes(-len(body) % 8)
    return b"\x01\x10\x08\x00" + b"\xcc" * 4 + struct.pack("<II", len(body), 0) + body


def _xpress_huffman(data: bytes) -> bytes:
    """Return `data` in the form of XPRESS Huffman, without making it smaller. Source: MS-XCA 2.1.4.

    Each byte is a symbol of its own; all codes have 9 bits, so each symbol is its code.
    """
    if len(data) >= 1 << 16:
        raise ValueError("the embedded KDC compresses less than 64 KiB of claims")
    end = 256
    bits = "".join(f"{symbol:09b}" for symbol in (*data, end))
    bits += "0" * (-len(bits) % 16 + 16)
    words = [int(bits[at : at + 16], 2) for at in range(0, len(bits), 16)]
    return b"\x99" * 256 + struct.pack(f"<{len(words)}H", *words)


def pac_in(entries: tuple[AuthorizationDataEntry, ...] | None) -> dict[int, bytes] | None:
    """Return the buffers of a ticket's PAC by type, without signatures; None without a PAC."""
    for entry in relevant_entries(entries):
        if entry.ad_type == AuthDataType.WIN2K_PAC:
            pac = Pac.decode(entry.ad_data)
            return {
                buffer_type: pac.data[start : start + size]
                for buffer_type, (start, size) in pac.buffers.items()
                if buffer_type not in _SIGNATURES
            }
    return None


def with_pac(
    ticket: EncTicketPart,
    buffers: Mapping[int, bytes],
    service_key: EncryptionKey,
    kdc_key: EncryptionKey,
    *,
    rodc: int | None,
    signs_ticket: bool,
) -> EncTicketPart:
    """Return `ticket` with a signed PAC of these buffers, in place of any other.

    `signs_ticket` adds the signatures of the ticket and of the whole PAC; tickets for the KDC do
    not have them. Source: MS-PAC 2.8.
    """
    others = tuple(entry for entry in ticket.authorization_data or () if pac_in((entry,)) is None)

    def holding(pac: bytes) -> EncTicketPart:
        first = wrap_if_relevant(AuthorizationDataEntry(AuthDataType.WIN2K_PAC, pac))
        return records.replace(ticket, authorization_data=(first, *others))

    tail = b"" if rodc is None else rodc.to_bytes(2, "little")

    def signature(key: EncryptionKey, mac: bytes | None = None) -> bytes:
        """Return PAC_SIGNATURE_DATA; without `mac`, its placeholder: the type, and zeros."""
        checksum_type = crypto.profile_of(key.etype).checksum_type
        zeros = bytes(SIGNATURE_SIZES[ChecksumType(checksum_type)] + len(tail))
        return struct.pack("<i", checksum_type) + (zeros if mac is None else mac + tail)

    def mac(key: EncryptionKey, data: bytes) -> bytes:
        return crypto.checksum(key, KeyUsage.KERB_NON_KERB_CKSUM_SALT, data)

    parts = {
        **buffers,
        PacBuffer.SERVER_CHECKSUM: signature(service_key),
        PacBuffer.KDC_CHECKSUM: signature(kdc_key),
    }
    if signs_ticket:
        parts[PacBuffer.TICKET_CHECKSUM] = signature(kdc_key, mac(kdc_key, holding(b"\0").encode()))
        parts[PacBuffer.FULL_CHECKSUM] = signature(kdc_key)
        parts[PacBuffer.FULL_CHECKSUM] = signature(kdc_key, mac(kdc_key, _assembled(parts)))
    server = mac(service_key, _assembled(parts))
    parts[PacBuffer.SERVER_CHECKSUM] = signature(service_key, server)
    parts[PacBuffer.KDC_CHECKSUM] = signature(kdc_key, mac(kdc_key, server))
    return holding(_assembled(parts))


def _assembled(parts: Mapping[int, bytes]) -> bytes:
    """Return the PAC of these buffers. Source: MS-PAC 2.3, 2.4."""
    table, body = struct.pack("<II", len(parts), 0), b""
    start = len(table) + 16 * len(parts)
    for buffer_type, data in parts.items():
        table += struct.pack("<IIQ", buffer_type, len(data), start + len(body))
        body += data + bytes(-len(data) % 8)
    return table + body


def _upn_dns_info(upn: str, dns: str, sam: str, sid: bytes) -> bytes:
    """Return UPN_DNS_INFO in its extended form. Source: MS-PAC 2.10."""
    pieces = (upn.encode("utf-16-le"), dns.encode("utf-16-le"), sam.encode("utf-16-le"), sid)
    at, places, data = 24, [], b""
    for piece in pieces:
        places += [len(piece), at + len(data)]
        data += piece + bytes(-len(piece) % 8)
    flags = 1 | 2  # the UPN is constructed; the extended form
    return struct.pack("<HHHHIHHHH", *places[:4], flags, *places[4:]) + bytes(4) + data


def _counted(text: str) -> bytes:
    data = text.encode("utf-16-le")
    return struct.pack("<H", len(data)) + data


def _filetime(moment: datetime) -> int:
    """Return `moment` as 100 ns since 1601."""
    return int((moment - FILETIME_EPOCH).total_seconds()) * 10_000_000
