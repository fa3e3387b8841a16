"""Credential caches: the tickets of one client.

Source: MIT's credential cache file format, versions 0x0501 to 0x0504. A file holds the version, a
header (version 4 only), the default principal, and then credentials up to its end. A credential is

    client server key authtime(4) starttime(4) endtime(4) renew-till(4) is-skey(1) flags(4)
    addresses authorization-data ticket second-ticket

Counts and lengths have four bytes. Versions 1 and 2 have the byte order of the machine that wrote
the file; the first count in the file shows it. A credential for the realm X-CACHECONF: is a
configuration entry: its ticket is the value.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from purekrb.constants import NameType, TicketFlags
from purekrb.credentials import files
from purekrb.credentials.binary import ByteOrder, Reader, counted, integer
from purekrb.credentials.cache_types import CacheType, resolve
from purekrb.credentials.defaults import ccache_name, foreign_allowed
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CredentialError, DecodeError
from purekrb.keys import EncryptionKey
from purekrb.log import Log
from purekrb.messages.ap import AuthorizationDataEntry, HostAddress
from purekrb.names import Principal
from purekrb.system import EPOCH, fork_safe
from purekrb.system import now as system_now
from purekrb.tracebacks import forget_frames

__all__ = ["CCache"]

log = Log("purekrb.credentials")

_WHAT = "credential cache"
_LAST_SECOND = 0xFFFFFFFF
_DELTA_TIME = 1  # the only header tag that is defined
_CONFIG_REALM = "X-CACHECONF:"
_CONFIG_NAME = "krb5_ccache_conf_data"
_START_REALM = "start_realm"
#: Marks a removed entry. It is as long as the other realm, so that it can be written over it.
_REMOVED_CONFIG_REALM = "X-RMED-CONF:"
#: Bytes from the start of a service principal to the text of its realm: name type, count, length.
_TO_REALM = 12
#: If a file has this size, the next merge writes it anew without duplicates.
_TOO_MUCH = 1 << 20


class Piece(NamedTuple):
    """A ticket or configuration entry as stores keep it that have no file.

    `service` is its principal in text, `data` the credential as in a file of version 4, `endtime`
    that of a ticket.
    """

    service: str
    data: bytes
    endtime: datetime | None


Pieces = list[Piece]
_Tickets = list[ServiceTicket]
#: A ticket or the name of a configuration entry; the number of bytes from the start of its service
#: principal to the end of the file; and the number of bytes from its times to the end.
_Place = tuple[ServiceTicket | tuple[str, ...], int, int]
#: A ticket counts as postdated if it starts more than this after the present.
_CLOCK_SKEW = timedelta(minutes=5)


class CCache:
    """The tickets of `principal`, in memory until saved. Several threads may use it.

    `principal` is the default client. It may be set again when the KDC has named the canonical
    principal. Iteration yields the tickets, without configuration entries. The names of ccaches are
    `FILE:path` or a path, `DIR::path`, and `MEMORY:name` (shared within this process). `DIR:directory`
    and `MEMORY:` are collections: the name stands for the primary ccache. `name` is the full name
    that this ccache was loaded from, saved to or merged into; it is None if there was none.
    """

    __slots__ = ("_config", "_loaded", "_lock", "_tickets", "_time_offsets", "name", "principal")

    def __init__(self, principal: Principal | str, tickets: Iterable[ServiceTicket] = ()) -> None:
        self.principal = Principal.of(principal)
        self.name: str | None = None
        self._lock = fork_safe(threading.RLock())
        self._tickets: dict[tuple[Principal, Principal], list[ServiceTicket]] = {}
        self._config: dict[tuple[str, ...], bytes] = {}
        self._time_offsets: dict[str, timedelta] = {}
        #: The file that this ccache was loaded from, and the tickets and configuration that were
        #: read from it or merged into it. A merge does not write these again.
        self._loaded: tuple[str, list[ServiceTicket], dict[tuple[str, ...], bytes]] | None = None
        for ticket in tickets:
            self.store(ticket)

    # -- tickets

    def store(self, ticket: ServiceTicket) -> None:
        """Store `ticket`. It replaces an older one of the same client for the same service.

        A TGT of a realm also sets the time offset of the realm's KDC.
        """
        with self._lock:
            same = self._tickets.setdefault((ticket.client, ticket.service), [])
            same[:] = [*(old for old in same if _kind(old) != _kind(ticket)), ticket]
            if ticket.is_tgt and ticket.service.components[1] == ticket.service.realm:
                self._time_offsets[ticket.service.realm] = ticket.time_offset

    def find(
        self,
        service: Principal | str,
        *,
        client: Principal | None = None,
        now: datetime | None = None,
        margin: float = 0,
    ) -> ServiceTicket | None:
        """Return a ticket of `client` (default: the default principal) for exactly `service`.

        The ticket is valid at `now` (our clock, corrected by the ticket's time offset) and for
        `margin` seconds more. If there are several, the one that lasts longest is returned; if
        there is none, None. Invalid, postdated and user-to-user tickets are skipped.
        """
        service = Principal.of(service) if isinstance(service, str) else service
        instant = system_now() if now is None else now
        with self._lock:
            found = list(self._tickets.get((client or self.principal, service), ()))
        usable = [
            ticket
            for ticket in found
            if _valid(ticket, instant + ticket.time_offset, timedelta(seconds=margin))
            and not ticket.is_skey
        ]
        return max(usable, key=lambda ticket: ticket.endtime, default=None)

    def __iter__(self) -> Iterator[ServiceTicket]:
        with self._lock:
            return iter([ticket for same in self._tickets.values() for ticket in same])

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._tickets.values()))

    def __repr__(self) -> str:
        return f"CCache({self.principal}, {len(self)} tickets)"

    # -- time offsets and configuration

    def time_offset(self, realm: str | None = None) -> timedelta:
        """Return the clock of the KDC of `realm` (default: the client's realm) minus our clock.

        The result is zero if the offset was never measured.
        """
        with self._lock:
            return self._time_offsets.get(
                self.principal.realm if realm is None else realm, timedelta(0)
            )

    def set_time_offset(self, offset: timedelta, realm: str | None = None) -> None:
        """Set the clock of the KDC of `realm` (default: the client's realm) minus our clock.

        A file keeps the offset of the client's realm only.
        """
        with self._lock:
            self._time_offsets[self.principal.realm if realm is None else realm] = offset

    @property
    def realm(self) -> str:
        """The realm whose KDC gave the TGT: that of the client, unless the client hides it.

        MIT's programs keep the latter, too (`start_realm`).
        """
        hidden = self.get_config(_START_REALM)
        return self.principal.realm if hidden is None else hidden.decode(errors="replace")

    def begin_with(self, initial: ServiceTicket) -> None:
        """Store the ticket of an AS exchange; its client is that of all tickets from now on."""
        self.principal = initial.client  # the KDC may have replied with the canonical name
        realm = initial.service.realm
        hidden = None if realm == initial.client.realm else realm.encode()
        self.set_config(_START_REALM, hidden)
        self.store(initial)

    def get_config(self, key: str, principal: Principal | None = None) -> bytes | None:
        """Return the value of a configuration entry such as `fast_avail` or `pa_type`, or None.

        Some entries concern a principal: pass it as `principal` (for `pa_type`, the TGT's service).
        """
        with self._lock:
            return self._config.get(_config_name(key, principal))

    def set_config(self, key: str, value: bytes | None, principal: Principal | None = None) -> None:
        """Set a configuration entry; None removes it."""
        with self._lock:
            if value is None:
                self._config.pop(_config_name(key, principal), None)
            else:
                self._config[_config_name(key, principal)] = value

    def config_entries(self) -> list[tuple[str, str, bytes]]:
        """Return (key, principal, value) of each configuration entry; "" if it concerns none."""
        with self._lock:
            return [(name[1], "".join(name[2:]), value) for name, value in self._config.items()]

    # -- bytes

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> CCache:
        """Return the ccache in a file of version 1 to 4. Raises DecodeError if any byte is wrong.

        Credentials that MIT or Heimdal marked as removed are left out. Undefined header tags are
        ignored.
        """
        return cls._decode(data, None)

    @classmethod
    def _decode(cls, data: bytes, places: list[_Place] | None) -> CCache:
        """Return the ccache in `data`.

        If `places` is a list, the places of tickets and configuration entries are added to it.
        """
        if len(data) < 2 or data[0] != 5 or not 1 <= data[1] <= 4:
            raise DecodeError(
                "this is not a credential cache: it does not begin with a version from 0501 to 0504"
            )
        version = data[1]
        if version in (1, 2) and _is_keytab(data):  # both formats have these versions
            raise DecodeError("this is a keytab, not a credential cache: klist -k shows its keys")
        reader = Reader(data, _WHAT, _byte_order(data, version))
        reader.take(2)
        offset = _decode_header(reader) if version == 4 else timedelta(0)
        ccache = cls(_decode_client(reader, version))
        ccache.set_time_offset(offset)
        while reader.remaining:
            ccache._decode_credential(reader, version, offset, places)
        return ccache

    def _decode_credential(
        self, reader: Reader, version: int, offset: timedelta, places: list[_Place] | None
    ) -> None:
        client = _decode_client(reader, version)
        service_left = reader.remaining
        # The realm may be empty: MIT stores a referred ticket under the name without a realm, too.
        service = _decode_principal(reader, version)
        etype = reader.signed(2)
        if version == 3 and reader.signed(2) != etype:
            raise DecodeError("the credential cache is damaged: a key has two encryption types")
        contents = reader.counted(4)
        times_left = reader.remaining
        authtime, starttime, endtime, renew_till = (reader.unsigned(4) for _ in range(4))
        is_skey = reader.unsigned(1) != 0  # MIT writes 8 for true
        flags = reader.unsigned(4)
        addresses = [(reader.unsigned(2), reader.counted(4)) for _ in range(reader.count(4, 6))]
        authorization_data = [
            (reader.signed(2), reader.counted(4)) for _ in range(reader.count(4, 6))
        ]
        ticket = reader.counted(4)
        second_ticket = reader.counted(4)
        if service.realm == _CONFIG_REALM and service.components[:1] == (_CONFIG_NAME,):
            self._config[service.components] = ticket
            if places is not None:
                places.append((service.components, service_left, times_left))
            return
        if service.realm == _REMOVED_CONFIG_REALM or (endtime == 0 and authtime != 0):
            return
        found = ServiceTicket(
            client=client,
            service=service,
            ticket=ticket,
            session_key=EncryptionKey(etype, contents),
            flags=flags,
            authtime=_time(authtime),
            starttime=_time(starttime) if starttime else None,
            endtime=_time(endtime),
            renew_till=_time(renew_till) if renew_till else None,
            caddr=tuple(HostAddress(*address) for address in addresses),
            authorization_data=tuple(
                AuthorizationDataEntry(*entry) for entry in authorization_data
            ),
            time_offset=offset,
            second_ticket=second_ticket,
            is_skey=is_skey,
        )
        # Not through store(): it would drop all but the last of several tickets for one service.
        self._tickets.setdefault((client, service), []).append(found)
        if places is not None:
            places.append((found, service_left, times_left))

    @forget_frames
    def encode(self) -> bytes:
        """Return the file of this ccache, in version 4.

        Raises CredentialError if a field is too large for the format.
        """
        with self._lock:
            return b"".join(
                (
                    b"\5\4",
                    counted(_encode_header(self.time_offset()), 2),
                    _encode_principal(self.principal),
                    *(self._encode_config(name, value) for name, value in self._config.items()),
                    *(_encode_ticket(ticket) for ticket in self),
                )
            )

    def _encode_config(self, name: tuple[str, ...], value: bytes) -> bytes:
        return _encode_ticket(self._config_ticket(name, value))

    def _config_ticket(self, name: tuple[str, ...], value: bytes) -> ServiceTicket:
        service = Principal(name, _CONFIG_REALM, NameType.UNKNOWN)
        return ServiceTicket(
            self.principal, service, value, EncryptionKey(0, b""), 0, EPOCH, None, EPOCH
        )

    # -- names

    @classmethod
    @forget_frames
    def load(cls, name: files.FilePath | None = None, *, foreign: bool = False) -> CCache:
        """Return the ccache of that name; None means `defaults.ccache_name()`.

        For MEMORY it is the saved object itself. Raises CredentialError if the ccache does not
        exist, or if its file cannot be trusted (see `files.read_private`); DecodeError if the file
        is damaged; UnsupportedError for a type that purekrb does not have, TypeError for bytes.

        A file of another user is refused unless `foreign` is true, or PUREKRB_FOREIGN_CCACHE=1 is
        in the environment: who can write the file chooses the identity. A file that is open to
        everybody is refused even then.
        """
        chosen = ccache_name(name)
        prefix, cache_type, residual = resolve(chosen.name)
        member = cache_type.primary(residual)
        try:
            ccache = cache_type.load(member, cls.decode, foreign=foreign or foreign_allowed())
        except CredentialError as error:
            if chosen.note:
                raise CredentialError(f"{error}{chosen.note}") from None
            others: Caches = []
            if member != residual:
                with contextlib.suppress(CredentialError, DecodeError):
                    others = cls.list(f"{prefix}:{residual}")
            if not others:
                raise
            raise CredentialError(f"{error}; {_those_there(others)}") from None
        ccache.name = f"{prefix}:{member}"
        return ccache

    def save(self, name: files.FilePath | None = None) -> str:
        """Replace the ccache of that name by this one; return the full name of what was written.

        None means `defaults.ccache_name()`. In a collection, the ccache of this principal is
        replaced, or a new one is made if it has none, and becomes the primary: no other changes.

        A file is replaced atomically, and the new one has mode 0600. Tickets that other programs
        added to the old file are lost; `merge_into` keeps them. Raises CredentialError if the file
        cannot be written; the old file is then unchanged.
        """
        prefix, cache_type, residual = _named(name)
        member = self._place_in(prefix, cache_type, residual)
        cache_type.save(member, self)
        if member not in (residual, cache_type.primary(residual)):
            cache_type.switch(member)
        self.name = f"{prefix}:{member}"
        return self.name

    def merge_into(self, name: files.FilePath | None = None) -> str:
        """Add the tickets and configuration of this ccache to the ccache `name`.

        Returns the full name of what was written. If that ccache does not exist, it is made. In a
        collection, it is the ccache of this principal. If the ccache has a ticket that lasts
        longer, that ticket stays; a file keeps its time offset. If this ccache was loaded from that
        file, only later additions are written. Processes and threads that write at the same time,
        MIT's programs included, lose nothing. Raises CredentialError if the ccache cannot be
        written, belongs to another principal, or was removed after this one was loaded from it.
        """
        prefix, cache_type, residual = _named(name)
        member = self._place_in(prefix, cache_type, residual)
        cache_type.merge(member, self)
        self.name = f"{prefix}:{member}"
        return self.name

    def _place_in(self, prefix: str, cache_type: CacheType, residual: str) -> str:
        """Return where this ccache goes: to the named one, or to its place in the collection."""
        member = cache_type.primary(residual)
        if member == residual:
            return member
        found = CCache.list(f"{prefix}:{residual}")
        for ccache in found:
            if ccache.principal == self.principal and ccache.name is not None:
                return ccache.name.partition(":")[2]
        return cache_type.unique(residual) if member in cache_type.members(residual) else member

    @staticmethod
    def destroy(name: files.FilePath | None = None) -> None:
        """Remove the ccache of that name; a file is first overwritten with zeros.

        Of a collection, the primary is removed. Raises CredentialError if the ccache does not exist
        or cannot be removed.
        """
        _, cache_type, residual = _named(name)
        cache_type.destroy(cache_type.primary(residual))

    # -- collections

    @classmethod
    def list(cls, name: files.FilePath | None = None) -> Caches:
        """Return the ccaches of the collection `name`, the primary first, each with its `name`.

        None means `defaults.ccache_name()`. A file, or any other name of one ccache, is a
        collection of one. If a ccache cannot be read, the log warns of it, and it is left out.
        """
        prefix, cache_type, residual = _named(name)
        found = []
        for member in cache_type.members(residual):
            try:
                ccache = cache_type.load(member, cls.decode, foreign=foreign_allowed())
            except (CredentialError, DecodeError) as error:
                log.warning("%s:%s is left out: %s", prefix, member, error)
                continue
            ccache.name = f"{prefix}:{member}"
            found.append(ccache)
        return found

    @classmethod
    def choose(cls, principal: Principal | str, name: files.FilePath | None = None) -> CCache:
        """Return the ccache of `principal` in the collection `name`, which is as for `list`.

        Raises CredentialError if it has none.
        """
        principal = Principal.of(principal)
        found = cls.list(name)
        for ccache in found:
            if ccache.principal == principal:
                return ccache
        where = ccache_name(name).name
        raise CredentialError(
            f"there is no credential cache of {principal} in {where}; {_those_there(found)}: "
            f"get a ticket first (kinit {principal})"
        )

    @staticmethod
    def switch(name: files.FilePath) -> None:
        """Make the ccache `name` the primary of its collection.

        Raises CredentialError if it does not exist, and UnsupportedError for a file.
        """
        _, cache_type, residual = _named(name)
        member = cache_type.primary(residual)
        if not cache_type.members(member):
            raise CredentialError(
                f"there is no credential cache {files.text_of(name)}: get a ticket first (kinit)"
            )
        cache_type.switch(member)

    @staticmethod
    def new_name(name: files.FilePath | None = None) -> str:
        """Return a name for a new ccache in the collection `name`, which is as for `list`.

        The ccache is made when something is saved to it.
        """
        prefix, cache_type, residual = _named(name)
        return f"{prefix}:{cache_type.unique(residual)}"

    # -- read again

    @staticmethod
    def stamp(name: str) -> object:
        """Return a value that changes when the ccache does; None if it must be read to know."""
        _, cache_type, residual = resolve(name)
        return cache_type.stamp(cache_type.primary(residual))

    def take(self, newer: CCache) -> None:
        """Take the tickets and configuration of `newer`, which was read from the same place."""
        with self._lock:
            self._take(list(newer), newer._config)
            self._time_offsets.update(newer._time_offsets)
            self._loaded, self.name = newer._loaded, newer.name

    # -- for the modules of caches/

    def pieces(self) -> tuple[bytes, Pieces]:
        """Return the encoded principal, and each configuration entry and ticket by itself."""
        with self._lock:
            entries = self._pieces_of(list(self), self._config)
        return _encode_principal(self.principal), entries

    def additions_to(self, other: CCache) -> Pieces:
        """Return what a merge adds to `other`, as `pieces` does.

        Raises CredentialError if `other` belongs to another principal.
        """
        return self._pieces_of(*self._news_for(other, None))

    def _pieces_of(self, tickets: _Tickets, config: dict[tuple[str, ...], bytes]) -> Pieces:
        return [
            *(
                Piece(str(self._config_ticket(name, value).service), data, None)
                for name, value in config.items()
                for data in [self._encode_config(name, value)]
            ),
            *(Piece(str(one.service), _encode_ticket(one), one.endtime) for one in tickets),
        ]

    def _set_origin(self, path: str) -> None:
        """Note that the file at `path` holds what this ccache holds now."""
        with self._lock:
            self._loaded = path, list(self), dict(self._config)

    def _is_from(self, path: str) -> bool:
        """Return whether this ccache was loaded from the file at `path`."""
        return self._loaded is not None and path == self._loaded[0]

    def _add_to(self, other: CCache) -> None:
        """Add to `other` what it lacks. Raises CredentialError if it has another principal."""
        other._take(*self._news_for(other, None))

    def _add_to_file(self, file: files.LockedFile, data: bytes, path: str) -> bool:
        """Add to `file`, which holds `data`, what it lacks.

        Returns whether the file still has its path.
        """
        places: list[_Place] = []
        try:
            other = self._decode(data, places)
        except DecodeError as error:
            raise DecodeError(f"{path}: {error}") from error
        tickets, config = self._news_for(other, path)
        marks = {}
        slots = {_slot(ticket) for ticket in tickets}
        for found, service_left, times_left in places:
            if isinstance(found, ServiceTicket):
                replaced = _slot(found) in slots
            elif replaced := found in config:
                marks[len(data) - service_left + _TO_REALM] = _REMOVED_CONFIG_REALM.encode()
            if replaced:  # MIT marks a removed credential by these values of authtime and endtime
                marks[len(data) - times_left] = b"\xff\xff\xff\xff"
                marks[len(data) - times_left + 8] = bytes(4)
        # The data are added in place. If the file were replaced, an MIT program that waits for the
        # lock would write to a file that has lost its path.
        if data[1] == 4 and len(data) < _TOO_MUCH:
            added = [self._encode_config(name, value) for name, value in config.items()]
            return file.extend(b"".join([*added, *map(_encode_ticket, tickets)]), marks)
        other._take(tickets, config)
        file.replace(other.encode())
        return True

    def _take(self, tickets: _Tickets, config: dict[tuple[str, ...], bytes]) -> None:
        with self._lock:
            for ticket in tickets:
                self.store(ticket)
            self._config.update(config)

    def _news_for(
        self, other: CCache, path: str | None
    ) -> tuple[_Tickets, dict[tuple[str, ...], bytes]]:
        """Return the tickets and configuration that a merge adds to `other`, the ccache at `path`.

        Raises CredentialError if `other` belongs to another principal.
        """
        if other.principal != self.principal:
            raise CredentialError(
                f"the credential cache is that of {other.principal}, expected {self.principal}: "
                "choose another name"
            )
        with self._lock:
            tickets, config = list(self), dict(self._config)
            _, old_tickets, old_config = (
                self._loaded if self._loaded and self._loaded[0] == path else (path, [], {})
            )
        # A ticket that kinit has replaced in the meantime is not put back.
        there: dict[object, _Tickets] = {}
        for ticket in other:
            there.setdefault(_slot(ticket), []).append(ticket)
        known = set(map(_identity, (*other, *old_tickets)))
        return [
            ticket
            for ticket in tickets
            if _identity(ticket) not in known
            and all(old.endtime <= ticket.endtime for old in there.get(_slot(ticket), ()))
        ], {
            name: value
            for name, value in config.items()
            if value not in (old_config.get(name), other._config.get(name))
        }


#: The ccaches of a collection. In the class, `list` is a method.
Caches = list[CCache]


def _named(name: files.FilePath | None) -> tuple[str, CacheType, str]:
    return resolve(ccache_name().name if name is None else name)


def _those_there(ccaches: Caches) -> str:
    names = ", ".join(str(ccache.principal) for ccache in ccaches)
    return f"there are those of {names}" if names else "it is empty"


def _slot(ticket: ServiceTicket) -> tuple[Principal, Principal, tuple[bool, bytes]]:
    """Return the slot of a ticket: a ccache keeps one ticket for each slot."""
    return ticket.client, ticket.service, _kind(ticket)


def _identity(ticket: ServiceTicket) -> tuple[object, bytes, bytes]:
    """Return a value that identifies a ticket, whether it is in memory or was read from a file."""
    return _slot(ticket), ticket.ticket, _seconds(ticket.endtime)


def _kind(ticket: ServiceTicket) -> tuple[bool, bytes]:
    """Return the value that differs between tickets of one client for one service.

    A client may hold a user-to-user ticket besides the usual one.
    """
    return ticket.is_skey, ticket.second_ticket


def _config_name(key: str, principal: Principal | None) -> tuple[str, ...]:
    return (_CONFIG_NAME, key) if principal is None else (_CONFIG_NAME, key, str(principal))


def _valid(ticket: ServiceTicket, instant: datetime, margin: timedelta) -> bool:
    """Return whether `ticket` is valid at `instant` of the KDC's clock and for `margin` longer."""
    return (
        ticket.endtime > instant + margin
        and (ticket.starttime is None or ticket.starttime <= instant + _CLOCK_SKEW)
        and not ticket.flags & TicketFlags.INVALID
    )


def _is_keytab(data: bytes) -> bool:
    """Return whether `data`, of version 1 or 2, begin with the size of a keytab's record.

    In a ccache, a small number is there: the type of a name, or the count of its components.
    """
    size = int.from_bytes(data[2:6], "big" if data[1] == 2 else sys.byteorder, signed=True)
    return 16 <= abs(size) <= len(data) - 6


def _byte_order(data: bytes, version: int) -> ByteOrder:
    """Return the byte order of a file.

    Versions 1 and 2 do not state it. The count of the first principal is small, so the order that
    gives the smaller number is the right one.
    """
    if version > 2:
        return "big"
    count = data[2:6] if version == 1 else data[6:10]
    if count == count[::-1]:
        return sys.byteorder
    return "little" if count[::-1] < count else "big"


def _decode_header(reader: Reader) -> timedelta:
    contents = reader.counted(2)
    header = Reader(
        contents, "header of the credential cache", begins=reader.offset - len(contents)
    )
    offset = timedelta(0)
    while header.remaining:
        tag, value = header.unsigned(2), header.counted(2)
        if tag == _DELTA_TIME:
            delta = Reader(
                value, "time offset of the credential cache", begins=header.offset - len(value)
            )
            offset = timedelta(seconds=delta.signed(4), microseconds=delta.signed(4))
            if delta.remaining:
                raise DecodeError(
                    f"the time offset of the credential cache has {len(value)} bytes, expected 8"
                )
    return offset


def _encode_header(offset: timedelta) -> bytes:
    if not offset:
        return b""
    delta = integer(offset // timedelta(seconds=1), 4, signed=True) + integer(
        offset.microseconds, 4
    )
    return integer(_DELTA_TIME, 2) + counted(delta, 2)


def _decode_principal(reader: Reader, version: int) -> Principal:
    name_type = reader.signed(4) if version > 1 else NameType.PRINCIPAL
    count = reader.count(4, 4)
    if version == 1:
        if not count:
            raise DecodeError("the credential cache is damaged: a principal has no realm")
        count -= 1
    realm = reader.text(4)
    return Principal(tuple([reader.text(4) for _ in range(count)]), realm, name_type)


def _decode_client(reader: Reader, version: int) -> Principal:
    client = _decode_principal(reader, version)
    if not client.realm or not client.components:
        what = "name" if client.realm else "realm"
        raise DecodeError(
            f"the credential cache is damaged: the client before byte {reader.offset} has no {what}"
        )
    return client


def _encode_principal(principal: Principal) -> bytes:
    return b"".join(
        (
            integer(principal.name_type, 4, signed=True),
            integer(len(principal.components), 4),
            counted(principal.realm, 4),
            *(counted(component, 4) for component in principal.components),
        )
    )


def _time(seconds: int) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def _seconds(time: datetime | None) -> bytes:
    """Return the four bytes of a time, 0 for None.

    A time after the year 2106 becomes the last one that fits; the ticket then expires too early.
    """
    seconds = 0 if time is None else (time - EPOCH) // timedelta(seconds=1)
    return integer(min(max(seconds, 0), _LAST_SECOND), 4)


def _encode_ticket(ticket: ServiceTicket) -> bytes:
    return b"".join(
        (
            _encode_principal(ticket.client),
            _encode_principal(ticket.service),
            integer(ticket.session_key.etype, 2, signed=True),
            counted(ticket.session_key.contents, 4),
            *map(_seconds, (ticket.authtime, ticket.starttime, ticket.endtime, ticket.renew_till)),
            integer(ticket.is_skey, 1),
            integer(ticket.flags & 0xFFFFFFFF, 4),
            integer(len(ticket.caddr), 4),
            *(integer(entry.addr_type, 2) + counted(entry.address, 4) for entry in ticket.caddr),
            integer(len(ticket.authorization_data), 4),
            *(
                integer(ad.ad_type, 2, signed=True) + counted(ad.ad_data, 4)
                for ad in ticket.authorization_data
            ),
            counted(ticket.ticket, 4),
            counted(ticket.second_ticket, 4),
        )
    )
