"""Credential caches: the tickets of one client. Source: MIT's credential cache file format, versions 0x0501 to 0x0504.

A file is the version, in version 4 a header, the default principal, and credentials one after the other to the end of
the file. A credential is

    client server key authtime(4) starttime(4) endtime(4) renew-till(4) is-skey(1) flags(4)
    addresses authorization-data ticket second-ticket

with counts and lengths of four bytes. Versions 1 and 2 have the byte order of the machine that wrote the file, which
the first count in it tells. A credential for the realm X-CACHECONF: is a configuration entry, its ticket the value.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from purekrb.constants import NameType, TicketFlags
from purekrb.credentials import files
from purekrb.credentials.binary import ByteOrder, Reader, counted, integer
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CredentialError, DecodeError, UnsupportedError
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import AuthorizationDataEntry, HostAddress
from purekrb.names import Principal
from purekrb.system import EPOCH, fork_safe, pause
from purekrb.system import now as system_now
from purekrb.tracebacks import forget_frames

__all__ = ["CCache", "default_name"]

_WHAT = "credential cache"
_LAST_SECOND = 0xFFFFFFFF
_DELTA_TIME = 1  # the only header tag that is defined
_CONFIG_REALM = "X-CACHECONF:"
_CONFIG_NAME = "krb5_ccache_conf_data"
_REMOVED_CONFIG_REALM = "X-RMED-CONF:"  # as long as the other, so that it can be written over it
#: Bytes from the start of a service principal to the text of its realm: name type, count, length.
_TO_REALM = 12
#: A file that has grown so large is written anew by the next merge, without what it holds twice.
_TOO_MUCH = 1 << 20
#: How often a merge looks again, 10 ms later each time, for what MIT's kinit is about to put in place.
_ATTEMPTS = 100
#: A ticket or the name of a configuration entry, and how many bytes of the file follow the start of its service
#: principal and of its times.
_Place = tuple[ServiceTicket | tuple[str, ...], int, int]
#: A ticket that starts this much later than our clock says is taken to be postdated.
_CLOCK_SKEW = timedelta(minutes=5)

_memory: dict[str, CCache] = {}
_memory_lock = fork_safe(threading.Lock())


def default_name() -> str:
    """Return the name of the default ccache: KRB5CCNAME, or FILE:/tmp/krb5cc_<uid>."""
    name = os.environ.get("KRB5CCNAME")
    if name:
        return name
    if hasattr(os, "getuid"):
        return f"FILE:/tmp/krb5cc_{os.getuid()}"  # where MIT looks; files.py makes it safe
    return "FILE:" + os.path.join(os.environ.get("TEMP", os.curdir), "krb5cc")


class CCache:
    """The tickets of `principal`, in memory until saved. Safe for use by several threads.

    `principal` is the default client; it may be set anew when the KDC has told its canonical name. Iteration gives the
    tickets, without configuration entries. Names of ccaches are `FILE:path` or a path, `DIR:directory` (its primary),
    `DIR::path` and `MEMORY:name`, which all of this process share.
    """

    __slots__ = ("_config", "_loaded", "_lock", "_tickets", "_time_offsets", "principal")

    def __init__(self, principal: Principal | str, tickets: Iterable[ServiceTicket] = ()) -> None:
        self.principal = Principal.of(principal)
        self._lock = fork_safe(threading.RLock())
        self._tickets: dict[tuple[Principal, Principal], list[ServiceTicket]] = {}
        self._config: dict[tuple[str, ...], bytes] = {}
        self._time_offsets: dict[str, timedelta] = {}
        #: The file that this ccache was loaded from, and what of it is there already, or was and is no longer wanted.
        self._loaded: tuple[str, list[ServiceTicket], dict[tuple[str, ...], bytes]] | None = None
        for ticket in tickets:
            self.store(ticket)

    # -- tickets

    def store(self, ticket: ServiceTicket) -> None:
        """Keep `ticket` in place of an older one of the same client for the same service.

        A TGT of a realm also tells the time offset of the realm's KDC.
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
        """Return a ticket of `client` (the default principal) for exactly `service`, or None.

        It is valid at `now` (our clock, corrected by the ticket's time offset) and for `margin` seconds more; of
        several the one that lasts longest. Invalid, postdated and user-to-user tickets are passed over.
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

    # -- what else is kept with the tickets

    def time_offset(self, realm: str | None = None) -> timedelta:
        """Return the clock of the KDC of `realm` (the client's) minus ours; zero where it was never measured."""
        with self._lock:
            return self._time_offsets.get(
                self.principal.realm if realm is None else realm, timedelta(0)
            )

    def set_time_offset(self, offset: timedelta, realm: str | None = None) -> None:
        """Remember the clock of the KDC of `realm` (the client's) minus ours. A file keeps that of the client's."""
        with self._lock:
            self._time_offsets[self.principal.realm if realm is None else realm] = offset

    def get_config(self, key: str, principal: Principal | None = None) -> bytes | None:
        """Return the value of a configuration entry, as `fast_avail` or `pa_type`, or None.

        `principal` is what the entry is about, where it is about one (the TGT's service for `pa_type`).
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

    # -- bytes

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> CCache:
        """Return the ccache in a file of version 1 to 4. Raises DecodeError where any byte of it does not fit.

        Credentials that MIT or Heimdal marked as removed are left out, and so are header tags that nobody defines.
        """
        return cls._decode(data, None)

    @classmethod
    def _decode(cls, data: bytes, places: list[_Place] | None) -> CCache:
        """Return the ccache in `data`; add to `places` where its tickets and configuration entries are in there."""
        if len(data) < 2 or data[0] != 5 or not 1 <= data[1] <= 4:
            raise DecodeError(
                "this is no credential cache: it does not begin with the version, 0501 to 0504"
            )
        version = data[1]
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
        service = _decode_principal(
            reader, version
        )  # MIT keeps a referred ticket under the name without a realm, too
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
        # Not through store(), which would drop all but the last of several tickets for one service.
        self._tickets.setdefault((client, service), []).append(found)
        if places is not None:
            places.append((found, service_left, times_left))

    @forget_frames
    def encode(self) -> bytes:
        """Return the file of this ccache, version 4. Raises CredentialError where a field is too large for it."""
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
        service = Principal(name, _CONFIG_REALM, NameType.UNKNOWN)
        return _encode_ticket(
            ServiceTicket(
                self.principal, service, value, EncryptionKey(0, b""), 0, EPOCH, None, EPOCH
            )
        )

    # -- names

    @classmethod
    @forget_frames
    def load(cls, name: files.FilePath | None = None) -> CCache:
        """Return the ccache of that name; None stands for `default_name()`. TypeError for bytes.

        A MEMORY ccache is the very object that was saved. Raises CredentialError for one that does not exist or a file
        that cannot be trusted (see `files.read_private`), DecodeError for a damaged file, UnsupportedError for KCM: and
        other types.
        """
        kind, residual = _resolve(name)
        if kind == "MEMORY":
            with _memory_lock:
                if residual not in _memory:
                    raise CredentialError(
                        f"there is no credential cache MEMORY:{residual} in this process: save one"
                    )
                return _memory[residual]
        if not files.exists(residual):
            raise CredentialError(
                f"there is no credential cache {residual}: get a ticket first (kinit), or set KRB5CCNAME to its name"
            )
        try:
            ccache = cls.decode(files.read_private(residual, what=_WHAT))
        except DecodeError as error:
            raise DecodeError(f"{residual}: {error}") from error
        ccache._loaded_now(residual)
        return ccache

    def _loaded_now(self, path: str) -> None:
        with self._lock:
            self._loaded = path, list(self), dict(self._config)

    def save(self, name: files.FilePath | None = None) -> None:
        """Replace the ccache of that name by this one, atomically and with mode 0600; None stands for `default_name()`.

        What other programs add to the old file goes with it; `merge_into` keeps it. Raises CredentialError; the old
        file is then untouched.
        """
        kind, residual = _resolve(name)
        if kind == "MEMORY":
            with _memory_lock:
                _memory[residual] = self
        else:
            files.write_private(residual, self.encode(), what=_WHAT)

    def merge_into(self, name: files.FilePath | None = None) -> None:
        """Add the tickets and configuration of this ccache to those that `name` holds; made where it does not exist.

        A ticket that is there and lasts longer stays, and so does the time offset of a file. Into the file that this
        ccache was loaded from goes only what has been added since. Several processes and threads that write at once,
        MIT's programs among them, lose nothing to each other. Raises CredentialError, also where `name` holds the
        tickets of another principal, or was removed after this ccache was loaded from it.
        """
        kind, residual = _resolve(name)
        if kind == "MEMORY":
            with _memory_lock:
                other = _memory.setdefault(residual, self)
                other._take(*self._news_for(other, None))
        else:
            self._merge_into_file(residual)

    @forget_frames
    def _merge_into_file(self, path: str) -> None:
        """Merge under the lock of the file that has this path when the merge ends.

        MIT's kinit takes no lock when it removes the file and makes it anew, empty at first. So a file that was there
        and is not is waited for: to make it here would stop kinit, and put the former identity back.
        """
        loaded = known = self._loaded is not None and path == self._loaded[0]
        for left in reversed(range(_ATTEMPTS)):
            with files.locked(path, what=_WHAT, make=not (loaded or (known and left))) as file:
                data = b"" if file is None or file.made else file.read()
                if file is not None and data:
                    if self._add_to(file, data, path):
                        if loaded:
                            self._loaded_now(path)
                        return
                elif file is not None and (file.made or not (left or loaded)):
                    file.replace(self.encode())
                    return
            known = True
            pause(0.01)
        raise CredentialError(
            f"the credential cache {path} was removed after its tickets were read: get a ticket first (kinit)"
        )

    def _add_to(self, file: files.LockedFile, data: bytes, path: str) -> bool:
        """Write into `file`, which holds `data`, what it has not; return whether the file still has its path."""
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
            if replaced:  # authtime and endtime, as MIT marks what is removed
                marks[len(data) - times_left] = b"\xff\xff\xff\xff"
                marks[len(data) - times_left + 8] = bytes(4)
        # Added in place: a program of MIT's that waits for the lock would write to a file that nobody finds any more.
        if data[1] == 4 and len(data) < _TOO_MUCH:
            added = [self._encode_config(name, value) for name, value in config.items()]
            return file.extend(b"".join([*added, *map(_encode_ticket, tickets)]), marks)
        other._take(tickets, config)
        file.replace(other.encode())
        return True

    def _take(self, tickets: list[ServiceTicket], config: dict[tuple[str, ...], bytes]) -> None:
        with self._lock:
            for ticket in tickets:
                self.store(ticket)
            self._config.update(config)

    def _news_for(
        self, other: CCache, path: str | None
    ) -> tuple[list[ServiceTicket], dict[tuple[str, ...], bytes]]:
        """Return the tickets and configuration that a merge adds to `other`, which has `path`.

        Raises CredentialError where they are of another principal.
        """
        if other.principal != self.principal:
            raise CredentialError(
                f"the credential cache is that of {other.principal}, expected {self.principal}: choose another name"
            )
        with self._lock:
            tickets, config = list(self), dict(self._config)
            _, old_tickets, old_config = (
                self._loaded if self._loaded and self._loaded[0] == path else (path, [], {})
            )
        # What kinit has replaced meanwhile is not put back.
        there: dict[object, list[ServiceTicket]] = {}
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

    @staticmethod
    def destroy(name: files.FilePath | None = None) -> None:
        """Remove the ccache of that name, overwriting a file with zeros first. Raises CredentialError."""
        kind, residual = _resolve(name)
        if kind == "MEMORY":
            with _memory_lock:
                if _memory.pop(residual, None) is None:
                    raise CredentialError(
                        f"there is no credential cache MEMORY:{residual} in this process"
                    )
        else:
            files.remove_private(residual, what=_WHAT)


def _resolve(name: files.FilePath | None) -> tuple[str, str]:
    """Return ("FILE", path) or ("MEMORY", name) for the name of a ccache."""
    if name is None:
        name = default_name()
    if not isinstance(name, str):
        return "FILE", files.text_of(name)
    kind, residual = files.split_type(name)
    if kind == "DIR":
        return "FILE", residual[1:] if residual.startswith(":") else _primary(residual)
    if kind not in ("FILE", "MEMORY"):
        raise UnsupportedError(
            f"credential caches of type {kind}: cannot be reached without the system's Kerberos library;"
            " use a file: export KRB5CCNAME=FILE:/path and get the tickets again"
        )
    return kind, residual


def _primary(directory: str) -> str:
    """Return the path of the primary ccache of a DIR collection: what the file `primary` names, or `tkt`."""
    pointer = os.path.join(directory, "primary")
    name = "tkt"
    if files.exists(pointer):
        name = os.fsdecode(
            files.read_private(pointer, what="primary file of the credential caches", max_size=4096)
        )
        name = name.rstrip("\n")
    if not name.startswith("tkt") or "/" in name or os.path.basename(name) != name or "\0" in name:
        raise DecodeError(
            f"{pointer} does not name a credential cache beside it: expected a file name that begins with tkt"
        )
    return os.path.join(directory, name)


def _slot(ticket: ServiceTicket) -> tuple[Principal, Principal, tuple[bool, bytes]]:
    """Return what a ccache has one ticket of."""
    return ticket.client, ticket.service, _kind(ticket)


def _identity(ticket: ServiceTicket) -> tuple[object, bytes, bytes]:
    """Return what is the same in a ticket and in what a file keeps of it, and differs between tickets."""
    return _slot(ticket), ticket.ticket, _seconds(ticket.endtime)


def _kind(ticket: ServiceTicket) -> tuple[bool, bytes]:
    """Return what tells apart the tickets that one client may have for one service at the same time."""
    return ticket.is_skey, ticket.second_ticket


def _config_name(key: str, principal: Principal | None) -> tuple[str, ...]:
    return (_CONFIG_NAME, key) if principal is None else (_CONFIG_NAME, key, str(principal))


def _valid(ticket: ServiceTicket, instant: datetime, margin: timedelta) -> bool:
    """Return whether the KDC's clock `instant` lies within the lifetime of `ticket`, the last `margin` left out."""
    return (
        ticket.endtime > instant + margin
        and (ticket.starttime is None or ticket.starttime <= instant + _CLOCK_SKEW)
        and not ticket.flags & TicketFlags.INVALID
    )


def _byte_order(data: bytes, version: int) -> ByteOrder:
    """Return the order in which the count of the first principal, which is small, is the smaller number."""
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
    """Return the four bytes of a time, 0 for none. Times after 2106 end there: a ticket then expires too early."""
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
