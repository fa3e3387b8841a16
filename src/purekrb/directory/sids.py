"""Names of SIDs: well-known ones by a table, others by the directory, remembered for a while.

A SID that nothing vouches for stays without a name: a wrong name would be worse than none.
Source: MS-DTYP 2.4.2.4 for the table.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from purekrb.directory.accounts import find_account
from purekrb.directory.answers import Entry
from purekrb.directory.ldap import INVALID_PARAMETER, LdapSession, any_equals
from purekrb.directory.patterns import CONTROL_CHARACTERS
from purekrb.dn import domain_of
from purekrb.errors import DecodeError, DirectoryError
from purekrb.log import Log
from purekrb.sid import Sid
from purekrb.system import fork_safe

__all__ = ["MAX_AGE", "MAX_SIDS", "WELL_KNOWN", "SidNames", "find_sid"]

_log = Log("purekrb.directory")

#: Seconds for which a name counts as current.
MAX_AGE = 600.0
#: The same for a SID without a name: the catalog lags behind, and may have been unreachable.
_MAX_AGE_UNNAMED = 60.0
#: The most SIDs in one call, and in the memory.
MAX_SIDS = 10_000
#: The most SIDs in one search. Domain controllers refuse filters of some thousand terms.
_CHUNK = 100
_BUILTIN = 32
#: Whatever may be a member of a group.
_MAY_HAVE_RIGHTS = "(|(objectClass=user)(objectClass=group))"

_NT_AUTHORITY = {
    "1": "DIALUP",
    "2": "NETWORK",
    "3": "BATCH",
    "4": "INTERACTIVE",
    "6": "SERVICE",
    "7": "ANONYMOUS LOGON",
    "8": "PROXY",
    "9": "ENTERPRISE DOMAIN CONTROLLERS",
    "10": "SELF",
    "11": "Authenticated Users",
    "12": "RESTRICTED",
    "13": "TERMINAL SERVER USER",
    "14": "REMOTE INTERACTIVE LOGON",
    "15": "This Organization",
    "17": "IUSR",
    "18": "SYSTEM",
    "19": "LOCAL SERVICE",
    "20": "NETWORK SERVICE",
    "64-10": "NTLM Authentication",
    "64-14": "SChannel Authentication",
    "64-21": "Digest Authentication",
    "1000": "Other Organization",
}
_OF_BUILTIN = {
    544: "Administrators",
    545: "Users",
    546: "Guests",
    547: "Power Users",
    548: "Account Operators",
    549: "Server Operators",
    550: "Print Operators",
    551: "Backup Operators",
    552: "Replicator",
    554: "Pre-Windows 2000 Compatible Access",
    555: "Remote Desktop Users",
    556: "Network Configuration Operators",
    557: "Incoming Forest Trust Builders",
    558: "Performance Monitor Users",
    559: "Performance Log Users",
    560: "Windows Authorization Access Group",
    561: "Terminal Server License Servers",
    562: "Distributed COM Users",
    568: "IIS_IUSRS",
    569: "Cryptographic Operators",
    573: "Event Log Readers",
    574: "Certificate Service DCOM Access",
    575: "RDS Remote Access Servers",
    576: "RDS Endpoint Servers",
    577: "RDS Management Servers",
    578: "Hyper-V Administrators",
    579: "Access Control Assistance Operators",
    580: "Remote Management Users",
}
#: Names of SIDs that are the same in every domain, as Windows shows them in English.
WELL_KNOWN = {
    Sid.parse(text): name
    for text, name in {
        "S-1-0-0": "NULL SID",
        "S-1-1-0": "Everyone",
        "S-1-2-0": "LOCAL",
        "S-1-2-1": "CONSOLE LOGON",
        "S-1-3-0": "CREATOR OWNER",
        "S-1-3-1": "CREATOR GROUP",
        "S-1-3-4": "OWNER RIGHTS",
        "S-1-18-1": "Authentication authority asserted identity",
        "S-1-18-2": "Service asserted identity",
        **{f"S-1-5-{rest}": f"NT AUTHORITY\\{name}" for rest, name in _NT_AUTHORITY.items()},
        **{f"S-1-5-32-{rid}": f"BUILTIN\\{name}" for rid, name in _OF_BUILTIN.items()},
    }.items()
}


class _Found(NamedTuple):
    """A name, or None if there was none; and when that was found."""

    name: str | None
    at: float

    def lifetime(self, max_age: float) -> float:
        return max_age if self.name is not None else min(max_age, _MAX_AGE_UNNAMED)


class SidNames:
    """The names of SIDs in one forest, with their memory. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = fork_safe(threading.Lock())
        self._found: OrderedDict[Sid, _Found] = OrderedDict()

    def resolve(
        self,
        sids: Iterable[Sid | str],
        sessions: Callable[[], Iterable[LdapSession]],
        max_age: float = MAX_AGE,
    ) -> dict[Sid, str]:
        """Return the names of `sids`; see `Directory.resolve`.

        `sessions` returns the sessions to ask, in turn. It is only called if names are missing.
        """
        if isinstance(sids, str):
            raise TypeError("sids is a collection of SIDs, not one text")
        wanted = dict.fromkeys(sid if isinstance(sid, Sid) else Sid.parse(sid) for sid in sids)
        if len(wanted) > MAX_SIDS:
            raise DirectoryError(
                f"{len(wanted)} SIDs are more than the {MAX_SIDS} of one call: ask in parts",
                code=INVALID_PARAMETER,
            )
        names: dict[Sid, str] = {}
        missing: list[Sid] = []
        now = self._monotonic()
        with self._lock:
            for sid in wanted:
                found = self._found.get(sid)
                if sid in WELL_KNOWN:
                    names[sid] = WELL_KNOWN[sid]
                elif found is None or now - found.at > found.lifetime(max_age):
                    missing.append(sid)
                elif found.name is not None:
                    names[sid] = found.name
        if missing:
            looked_up = _look_up(missing, list(sessions()))
            names.update(looked_up)
            with self._lock:
                for sid in missing:
                    self._found.pop(sid, None)  # so that it becomes the newest
                    self._found[sid] = _Found(looked_up.get(sid), now)
                while len(self._found) > MAX_SIDS:
                    self._found.popitem(last=False)
        return {sid: names[sid] for sid in wanted if sid in names}


def find_sid(session: LdapSession, name: str) -> Sid:
    """Return the SID of an account or group; see `Directory.find_sid`."""
    for sid, known in WELL_KNOWN.items():
        if known.casefold() == name.casefold():
            return sid
    return find_account(session, name, classes=_MAY_HAVE_RIGHTS).sid


def _look_up(sids: Sequence[Sid], sessions: Sequence[LdapSession]) -> dict[Sid, str]:
    """Return the names that the directory knows, from the first session that knows each."""
    names: dict[Sid, str] = {}
    domains = _netbios_names(sessions[0])
    for session in sessions:
        left = [sid for sid in sids if sid not in names]
        for at in range(0, len(left), _CHUNK):
            asked = left[at : at + _CHUNK]
            found = session.search(
                session.base_dn,
                any_equals("objectSid", [sid.encode() for sid in asked]),
                ("objectSid", "sAMAccountName"),
            )
            names.update(_names(found, set(asked), domains))
    _log.debug("the directory knows the names of %d of %d SIDs", len(names), len(sids))
    return names


def _names(
    found: Iterable[Entry], asked: Collection[Sid], domains: Mapping[str, str]
) -> dict[Sid, str]:
    """Return the names in the entries of `found`, without those that leave a doubt."""
    names: dict[Sid, set[str]] = {}
    for entry in found:
        try:
            sid = Sid.decode(b"".join(entry.attributes["objectSid"]))
        except DecodeError:
            continue
        name = entry.text("sAMAccountName")  # foreign security principals have none
        builtin = sid.authority == 5 and sid.sub_authorities[0] == _BUILTIN
        domain = "BUILTIN" if builtin else domains.get(domain_of(entry.dn).casefold(), "")
        if sid in asked and name and domain and not CONTROL_CHARACTERS.search(name):
            names.setdefault(sid, set()).add(f"{domain}\\{name}")
    return {sid: candidates.pop() for sid, candidates in names.items() if len(candidates) == 1}


def _netbios_names(session: LdapSession) -> dict[str, str]:
    """Return the NetBIOS names of the domains of the forest by their DNS names.

    Source: MS-ADTS 6.1.1.2.1.1 (crossRef objects).
    """
    configuration = session.root_dse.text("configurationNamingContext")
    found = session.search(
        f"CN=Partitions,{configuration}",
        "(&(objectClass=crossRef)(nETBIOSName=*))",
        ("nCName", "nETBIOSName"),
    )
    names = {domain_of(e.text("nCName")).casefold(): e.text("nETBIOSName") for e in found}
    return {dns: name for dns, name in names.items() if not CONTROL_CHARACTERS.search(name)}
