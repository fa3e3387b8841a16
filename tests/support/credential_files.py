"""Keytab and ccache files put together by hand: every version, byte order and defect that the tests need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from purekrb import crypto
from purekrb.constants import TicketFlags
from purekrb.credentials.ccache import CCache
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.credentials.ticket import ServiceTicket
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import AuthorizationDataEntry, HostAddress
from purekrb.names import Principal

ALICE = Principal.parse("alice@R.TEST")
BOB = Principal.parse("bob@R.TEST")
TGS = Principal.parse("krbtgt/R.TEST@R.TEST")
WEB = Principal.parse("HTTP/web.r.test@R.TEST")
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def key(etype: int = 18) -> EncryptionKey:
    """Return a key whose bytes are all different, so that a part of it is recognised."""
    return EncryptionKey(etype, bytes(range(1, crypto.profile_of(etype).key_size + 1)))


def ticket(service: Principal = WEB, **changes: Any) -> ServiceTicket:
    """Return a ticket for `service` that is valid around NOW."""
    fields: dict[str, Any] = {
        "client": ALICE,
        "service": service,
        "ticket": b"the ticket for " + str(service).encode(),
        "session_key": key(),
        "flags": TicketFlags.FORWARDABLE | TicketFlags.INITIAL,
        "authtime": NOW - HOUR,
        "starttime": NOW - HOUR,
        "endtime": NOW + HOUR,
        "renew_till": NOW + 24 * HOUR,
    }
    return ServiceTicket(**{**fields, **changes})


def full_ticket() -> ServiceTicket:
    """Return a ticket with every optional field filled."""
    return ticket(
        caddr=(HostAddress(2, bytes([127, 0, 0, 1])), HostAddress(24, bytes(16))),
        authorization_data=(AuthorizationDataEntry(1, b"ad"), AuthorizationDataEntry(-100, b"")),
        second_ticket=b"the TGT of the service",
        is_skey=True,
    )


def good_ccache() -> CCache:
    """Return a ccache with a TGT, a full ticket, a configuration entry and a time offset."""
    ccache = CCache(
        ALICE, [ticket(TGS, time_offset=timedelta(seconds=-7, microseconds=5)), full_ticket()]
    )
    ccache.set_config("fast_avail", b"yes")
    return ccache


def good_keytab() -> Keytab:
    """Return a keytab with three entries of two principals."""
    return Keytab(
        [
            KeytabEntry(WEB, 2, key(17), NOW - HOUR),
            KeytabEntry(WEB, 300, key(18), NOW),
            KeytabEntry(Principal.parse("host/web.r.test@R.TEST"), 1, key(20), NOW),
        ]
    )


# -- keytab


def keytab_record(
    *,
    components: Sequence[bytes] = (b"HTTP", b"web.r.test"),
    realm: bytes = b"R.TEST",
    kvno: int = 3,
    etype: int = 17,
    contents: bytes = bytes(range(1, 17)),
    trailer: bytes = b"",
    version: int = 2,
    order: str = "big",
) -> bytes:
    """Return one record of a keytab without its size."""

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, order)  # type: ignore[arg-type]

    def data(value: bytes) -> bytes:
        return number(len(value), 2) + value

    return b"".join(
        (
            number(len(components) + (version == 1), 2),
            data(realm),
            *map(data, components),
            number(2, 4) if version == 2 else b"",
            number(1_700_000_000, 4),
            bytes([kvno]),
            number(etype, 2),
            data(contents),
            trailer,
        )
    )


def keytab_file(*parts: bytes | int) -> bytes:
    """Return a keytab of version 2: bytes are records, which get their size; numbers are sizes alone."""
    return b"\5\2" + b"".join(
        part.to_bytes(4, "big", signed=part < 0)
        if isinstance(part, int)
        else len(part).to_bytes(4, "big") + part
        for part in parts
    )


# -- ccache


class CCacheWriter:
    """Writes the fields of a ccache of any version in any byte order."""

    def __init__(self, version: int = 4, order: str = "big") -> None:
        self.version, self.order = version, order

    def number(self, value: int, size: int = 4) -> bytes:
        return value.to_bytes(size, self.order)  # type: ignore[arg-type]

    def data(self, value: bytes) -> bytes:
        return self.number(len(value)) + value

    def principal(self, *components: bytes, realm: bytes = b"R.TEST") -> bytes:
        name_type = b"" if self.version == 1 else self.number(1)
        count = self.number(len(components) + (self.version == 1))
        return name_type + count + self.data(realm) + b"".join(map(self.data, components))

    def credential(
        self,
        service: bytes | None = None,
        *,
        client: bytes | None = None,
        etype: int = 17,
        contents: bytes = bytes(range(1, 17)),
        times: Sequence[int] = (1_700_000_000, 1_700_000_000, 4_000_000_000, 0),
        is_skey: int = 0,
        addresses: bytes | None = None,
        authorization_data: bytes | None = None,
        ticket: bytes = b"ticket",
    ) -> bytes:
        none = self.number(0)
        return b"".join(
            (
                self.principal(b"alice") if client is None else client,
                self.principal(b"HTTP", b"web.r.test") if service is None else service,
                self.number(etype, 2) * (2 if self.version == 3 else 1),
                self.data(contents),
                *map(self.number, times),
                bytes([is_skey]),
                self.number(0x40000000),
                none if addresses is None else addresses,
                none if authorization_data is None else authorization_data,
                self.data(ticket),
                none,
            )
        )

    def file(
        self, *credentials: bytes, header: bytes = b"", principal: bytes | None = None
    ) -> bytes:
        """Return the whole file; without `credentials` it holds one good one."""
        start = bytes([5, self.version]) + (
            len(header).to_bytes(2, "big") + header if self.version == 4 else b""
        )
        principal = self.principal(b"alice") if principal is None else principal
        return start + principal + b"".join(credentials or (self.credential(),))


def run_python(script: str, *arguments: object, cwd: Path) -> str:
    """Run a script in an interpreter of its own and return what it prints; so may it fork, kill and limit itself."""
    argv = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    return subprocess.run(
        argv, cwd=cwd, check=True, capture_output=True, text=True, timeout=120
    ).stdout
