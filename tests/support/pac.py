"""PACs built buffer by buffer and signed as a KDC signs them, genuine unless altered. Source: MS-PAC 2."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from purekrb import Acceptor, EncryptionKey, Initiator, crypto
from purekrb.constants import AuthDataType, KeyUsage
from purekrb.exchanges.authorization_data import wrap_if_relevant
from purekrb.messages.ap import AuthorizationDataEntry
from purekrb.messages.pac import SIGNATURE_SIZES, PacBuffer
from purekrb.sid import Sid
from support.contexts import acceptor
from support.tickets import ALICE, issue, whole_seconds

DOMAIN = Sid.parse("S-1-5-21-1111-2222-3333")
RESOURCES = Sid.parse("S-1-5-21-7777-8888-9999")
USER_SID = f"{DOMAIN}-1104"
#: SE_GROUP_MANDATORY, ENABLED_BY_DEFAULT, ENABLED; and SE_GROUP_USE_FOR_DENY_ONLY.
ENABLED, DENY_ONLY = 7, 0x10

Buffers = dict[int, bytes]


def filetime(moment: datetime) -> bytes:
    """Return `moment` as 100 ns since 1601, 8 bytes little-endian."""
    return struct.pack("<Q", (int(moment.timestamp()) + 11_644_473_600) * 10_000_000)


def client_info(name: str, authtime: datetime) -> bytes:
    text = name.encode("utf-16-le")
    return filetime(authtime) + struct.pack("<H", len(text)) + text


def logon_info(
    *,
    name: str = "alice",
    full_name: str = "Alice Liddell",
    domain: str = "EXAMPLE",
    domain_sid: Sid = DOMAIN,
    user_id: int = 1104,
    groups: Sequence[tuple[int, int]] = ((513, ENABLED), (1105, ENABLED), (1106, DENY_ONLY)),
    extra: Sequence[tuple[Sid, int]] = ((Sid.parse("S-1-18-1"), ENABLED),),
    resource: Sequence[tuple[int, int]] = ((1200, ENABLED),),
    user_flags: int = 0x220,
    **faults: int,
) -> bytes:
    """Return KERB_VALIDATION_INFO in NDR. `faults` replace numbers: group_count, group_maximum, text_maximum,
    text_actual, text_offset, sid_count, sid_length, extra_pointer, group_pointer, domain_pointer."""
    texts = [name, full_name, "", "", "", ""]

    def header(text: str) -> bytes:
        size = 2 * len(text)
        return struct.pack("<HHI", size, size, 0x20004 if text else 0)

    def pointed(text: str) -> bytes:
        if not text:
            return b""
        size = len(text)
        raw = text.encode("utf-16-le")
        counts = (
            faults.get("text_maximum", size),
            faults.get("text_offset", 0),
            faults.get("text_actual", size),
        )
        return struct.pack("<III", *counts) + raw + bytes(-len(raw) % 4)

    def sid(value: Sid) -> bytes:
        return (
            struct.pack("<I", faults.get("sid_length", len(value.sub_authorities))) + value.encode()
        )

    def rids(entries: Sequence[tuple[int, int]]) -> bytes:
        maximum = struct.pack("<I", faults.get("group_maximum", len(entries)))
        return (
            maximum + b"".join(struct.pack("<II", *entry) for entry in entries) if entries else b""
        )

    fixed = b"".join(
        (
            bytes(6 * 8),
            *map(header, texts),
            bytes(4),
            struct.pack("<II", user_id, 513),
            struct.pack("<I", faults.get("group_count", len(groups))),
            struct.pack("<I", faults.get("group_pointer", 0x20020 if groups else 0)),
            struct.pack("<I", user_flags),
            bytes(16),
            header("DC1"),
            header(domain),
            struct.pack("<I", faults.get("domain_pointer", 0x20030)),
            bytes(40),
            struct.pack("<II", faults.get("sid_count", len(extra)), 0x20040 if extra else 0),
            struct.pack(
                "<III", 0x20050 if resource else 0, len(resource), 0x20060 if resource else 0
            ),
        )
    )
    deferred = b"".join(
        (
            *map(pointed, texts),
            rids(groups),
            pointed("DC1"),
            pointed(domain),
            sid(domain_sid),
            struct.pack("<I", len(extra)) if extra else b"",
            *(
                struct.pack("<II", faults.get("extra_pointer", 0x20044), attributes)
                for _, attributes in extra
            ),
            *(sid(value) for value, _ in extra),
            sid(RESOURCES) + rids(resource) if resource else b"",
        )
    )
    body = struct.pack("<I", 0x20000) + fixed + deferred
    return b"\x01\x10\x08\x00" + b"\xcc" * 4 + struct.pack("<II", len(body), 0) + body


def upn_info(
    upn: str = "alice@example.test",
    dns: str = "EXAMPLE.TEST",
    sam: str = "alice",
    sid: str = USER_SID,
) -> bytes:
    """Return UPN_DNS_INFO in its extended form."""
    data, table, at = b"", [], 24
    for piece in (
        upn.encode("utf-16-le"),
        dns.encode("utf-16-le"),
        sam.encode("utf-16-le"),
        Sid.parse(sid).encode(),
    ):
        table += [len(piece), at + len(data)]
        data += piece
    return struct.pack("<HHHHIHHHH", *table[:4], 2, *table[4:]) + bytes(4) + data


def unsigned(cksumtype: int) -> bytes:
    return struct.pack("<i", cksumtype) + bytes(SIGNATURE_SIZES[cksumtype])  # type: ignore[index]


def buffers(key: EncryptionKey, authtime: datetime, **changes: Any) -> Buffers:
    """Return the buffers of a PAC as today's domain controllers make it; `changes` go to `logon_info`."""
    cksumtype = crypto.profile_of(key.etype).checksum_type
    return {
        PacBuffer.LOGON_INFO: logon_info(**changes),
        PacBuffer.CLIENT_INFO: client_info(str(ALICE.components[0]), authtime),
        PacBuffer.UPN_DNS_INFO: upn_info(),
        PacBuffer.REQUESTER_SID: Sid.parse(USER_SID).encode(),
        PacBuffer.SERVER_CHECKSUM: unsigned(cksumtype),
        PacBuffer.KDC_CHECKSUM: unsigned(16),
        PacBuffer.TICKET_CHECKSUM: unsigned(16),
        PacBuffer.FULL_CHECKSUM: unsigned(16),
    }


def assemble(parts: Buffers | Iterable[tuple[int, bytes]]) -> bytearray:
    """Return the PAC that holds `parts` (type, bytes), not signed."""
    parts = list(parts.items() if isinstance(parts, dict) else parts)
    table, body = bytearray(struct.pack("<II", len(parts), 0)), bytearray()
    start = len(table) + 16 * len(parts)
    for kind, data in parts:
        table += struct.pack("<IIQ", kind, len(data), start + len(body))
        body += data + bytes(-len(data) % 8)
    return table + body


def place(pac: bytes, kind: int) -> int:
    """Return the offset of buffer `kind`."""
    for at in range(8, 8 + 16 * int.from_bytes(pac[:4], "little"), 16):
        if int.from_bytes(pac[at : at + 4], "little") == kind:
            return int.from_bytes(pac[at + 8 : at + 16], "little")
    raise LookupError(kind)


def sign(pac: bytearray, key: EncryptionKey) -> bytes:
    """Return `pac`, whose server signature is zero, with that signature; the others count as the KDC's.

    What stands behind either signature, the identifier of a read-only domain controller, is signed as zeros too.
    """
    start = place(pac, PacBuffer.SERVER_CHECKSUM) + 4
    kdc = place(pac, PacBuffer.KDC_CHECKSUM) + 4
    covered = bytearray(pac)
    for at in range(8, 8 + 16 * int.from_bytes(pac[:4], "little"), 16):
        kind, size, offset = struct.unpack_from("<IIQ", pac, at)
        if kind in (PacBuffer.SERVER_CHECKSUM, PacBuffer.KDC_CHECKSUM):
            covered[offset + 4 : offset + size] = bytes(size - 4)
    mac = crypto.checksum(key, KeyUsage.KERB_NON_KERB_CKSUM_SALT, bytes(covered))
    pac[start : start + len(mac)] = mac
    pac[kdc : kdc + 12] = b"kdc's own..."
    return bytes(pac)


def element(pac: bytes) -> AuthorizationDataEntry:
    """Return the authorization data that a ticket holds `pac` in."""
    return wrap_if_relevant(AuthorizationDataEntry(AuthDataType.WIN2K_PAC, pac))


def now() -> datetime:
    return whole_seconds(datetime.now(timezone.utc))


def established(
    authorization_data: Any, key: EncryptionKey, authtime: datetime, **options: Any
) -> Acceptor:
    """Return the acceptor's end of a context whose ticket holds `authorization_data`."""
    client = options.pop("client", ALICE)
    ticket, keys = issue(
        key.etype,
        key=key,
        session_etype=18,
        now=authtime,
        client=client,
        authorization_data=authorization_data,
    )
    theirs = acceptor(keys, **options)
    theirs.step(Initiator(ticket).step())
    return theirs
