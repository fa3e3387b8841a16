"""Keytab files: the long-term keys of services.

Source: MIT's keytab file format, versions 0x0501 and 0x0502. A file holds the version and records;
each record follows its signed 32-bit size. A negative size marks a hole, where an entry was
deleted. A size of 0 ends the list. A record is

    count(2) realm component... name-type(4) timestamp(4) kvno(1) etype(2) key [kvno(4)] [padding]

Realm, components and key follow their length, which has two bytes. In version 0x0501, integers have
the byte order of the machine that wrote the file (assumed to be ours), the count includes the
realm, and there is no name type.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from purekrb import crypto
from purekrb.constants import NameType
from purekrb.credentials import files
from purekrb.credentials.binary import Reader, counted, integer
from purekrb.credentials.defaults import keytab_name
from purekrb.errors import CredentialError, DecodeError, KerberosError, UnsupportedError
from purekrb.keys import EncryptionKey, etype_name
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.records import record, replace
from purekrb.system import EPOCH, fork_safe, now
from purekrb.text import first_of
from purekrb.tracebacks import forget_frames

__all__ = ["Keytab", "KeytabEntry", "change_keytab", "keytab_path"]

log = Log("purekrb.credentials")

_WHAT = "keytab"
#: Two changes of a file within so many seconds may leave the same times on it.
_TICK = 0.1
_LAST_SECOND = 0xFFFFFFFF


@record
class KeytabEntry:
    """One key of a principal.

    `timestamp` (aware, whole seconds) is the time when the entry was written, and nothing more.
    """

    principal: Principal
    kvno: int
    key: EncryptionKey
    timestamp: datetime = EPOCH

    def __str__(self) -> str:
        return f"{self.principal} kvno {self.kvno} ({etype_name(self.key.etype)})"


class Keytab:
    """An immutable list of keys: `add`, `merge` and `remove` return another keytab.

    Names are matched exactly, including case and realm. Keys of unknown encryption types are kept,
    so that saving loses nothing.
    """

    __slots__ = ("_by_principal", "_file", "entries")

    def __init__(self, entries: Iterable[KeytabEntry] = ()) -> None:
        self.entries = tuple(entries)
        self._file: _File | None = None
        self._by_principal: dict[Principal, list[KeytabEntry]] = {}
        for entry in self.entries:
            self._by_principal.setdefault(entry.principal, []).append(entry)
        for found in self._by_principal.values():
            found.sort(key=lambda entry: (entry.kvno, entry.timestamp), reverse=True)

    @classmethod
    @forget_frames
    def load(cls, path: files.FilePath | None = None) -> Keytab:
        """Return the keytab in a file; None means `defaults.keytab_name()`.

        The result is what the file holds now. An acceptor that is given it looks at the file again at
        each handshake, see `current`. The name may begin with FILE: or WRFILE:. Raises
        CredentialError if the file cannot be read or trusted (see `files.read_private`),
        DecodeError if it is not a keytab, and UnsupportedError for other types.
        """
        return _File(keytab_path(path)).newest

    def current(self) -> Keytab:
        """Return the keytab in the file that this one was loaded from, as it is now.

        It costs one stat if the file has not changed. If the file is missing, half-written or not
        to be trusted, the last good content stays in force, and the log warns of it, once for each
        change. A keytab that does not come from `load` is returned itself.
        """
        file = self._file
        if file is None:
            return self
        stamp = files.stamp(file.for_stat)
        return file.newest if stamp == file.stamp else file.look(stamp)

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> Keytab:
        """Return the keytab in `data`. Raises DecodeError if any byte is wrong."""
        if data[:2] in (b"\5\3", b"\5\4"):
            raise DecodeError(
                "this is a credential cache, not a keytab: klist -c shows its tickets"
            )
        if data[:2] not in (b"\5\1", b"\5\2"):
            raise DecodeError(
                "this is not a keytab: it does not begin with the version 0501 or 0502"
            )
        version = data[1]
        order = "big" if version == 2 else sys.byteorder
        reader = Reader(data, _WHAT, order)
        reader.take(2)
        entries = []
        while reader.remaining:
            size = reader.signed(4)
            begins = reader.offset
            record = reader.take(abs(size))
            if size > 0:
                entries.append(
                    _decode_entry(Reader(record, "keytab entry", order, begins), version)
                )
            elif size == 0 and any(reader.take(reader.remaining)):
                raise DecodeError(
                    "the keytab is damaged: data follow the record of size 0, which ends it"
                )
        return cls(entries)

    @classmethod
    @forget_frames
    def from_password(
        cls,
        principal: Principal | str,
        password: str | bytes,
        *,
        kvno: int = 1,
        etypes: Iterable[int] = (18, 17),
        salt: str | bytes | None = None,
        timestamp: datetime | None = None,
    ) -> Keytab:
        """Return the keys of a password, one for each encryption type.

        The salt must be the KDC's, which may be another than the default: KdcClient.make_keytab asks
        the KDC for it. None means the default salt of the principal; for an account with "$" at its
        end, as computers and managed accounts of Active Directory have it, that is
        `<REALM>host<name in lower case>.<realm in lower case>`. `timestamp` is now by default.
        """
        principal = Principal.of(principal)
        salt = _default_salt(principal) if salt is None else salt
        stamp = (timestamp or now()).replace(microsecond=0)
        return cls(
            KeytabEntry(principal, kvno, crypto.string_to_key(etype, password, salt), stamp)
            for etype in etypes
        )

    @forget_frames
    def encode(self) -> bytes:
        """Return the file of this keytab, in version 0x0502.

        Raises CredentialError if a field is too large for the format.
        """
        records = (_encode_entry(entry) for entry in self.entries)
        return b"\5\2" + b"".join(counted(record, 4) for record in records)

    def save(self, path: files.FilePath | None = None) -> None:
        """Replace the file by this keytab, atomically and with mode 0600.

        Then give the file to the service's user. Names are as for `load`. Raises CredentialError if
        the file cannot be written; the old file is then unchanged.
        """
        files.write_private(keytab_path(path), self.encode(), what=_WHAT)

    def find(
        self, principal: Principal | str, kvno: int | None = None, etype: int | None = None
    ) -> list[KeytabEntry]:
        """Return the entries of exactly this principal, the newest kvno first."""
        principal = Principal.of(principal) if isinstance(principal, str) else principal
        return [
            entry
            for entry in self._by_principal.get(principal, ())
            if kvno in (None, entry.kvno) and etype in (None, entry.key.etype)
        ]

    @property
    def principals(self) -> list[Principal]:
        """The principals, each once, in the order of the file."""
        return list(self._by_principal)

    def add(self, *entries: KeytabEntry) -> Keytab:
        """Return a keytab with `entries` added.

        Each replaces an entry of the same principal, kvno and etype.
        """
        new = {_slot(entry) for entry in entries}
        return Keytab((*(entry for entry in self.entries if _slot(entry) not in new), *entries))

    def merge(self, other: Keytab) -> Keytab:
        """Return a keytab with the entries of both.

        If both have an entry of the same principal, kvno and etype, that of `other` is used.
        """
        return self.add(*other.entries)

    def remove(
        self, principal: Principal | str, kvno: int | None = None, etype: int | None = None
    ) -> Keytab:
        """Return a keytab without the entries that `find` returns.

        Raises CredentialError if there are none.
        """
        gone = self.find(principal, kvno, etype)
        if not gone:
            raise CredentialError(
                f"the keytab has no such key of {principal}; it has {self.summary()}"
            )
        slots = {_slot(entry) for entry in gone}
        return Keytab(entry for entry in self.entries if _slot(entry) not in slots)

    def summary(self) -> str:
        """Return the first ten entries as text for messages: principals, kvnos and etypes."""
        return first_of(map(str, self.entries), 10) or "no keys"

    def __iter__(self) -> Iterator[KeytabEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        return self.entries == other.entries if isinstance(other, Keytab) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # the keys in it have no hash either

    def __repr__(self) -> str:
        return f"Keytab({self.summary()})"


class _File:
    """The file of a keytab, and the newest good content that it has had. Raises as `load` does."""

    __slots__ = ("_lock", "_path", "for_stat", "newest", "stamp")

    def __init__(self, path: str) -> None:
        self._path, self.for_stat = path, files.for_stat(path)
        self._lock = fork_safe(threading.Lock())
        self.stamp = files.stamp(path)
        self.newest = self._read()
        self._settle()

    def look(self, stamp: object) -> Keytab:
        """Return the newest good content of the file, which has another stamp now."""
        with self._lock:
            if stamp != self.stamp:
                self.stamp = stamp
                self._read_again()
                self._settle()
            return self.newest

    def _read_again(self) -> None:
        try:
            keytab = self._read()
            if not len(keytab) and len(self.newest):
                raise DecodeError(f"{self._path}: it holds no key any more")
        except KerberosError as error:
            log.warning("the keys of the keytab before stay in use: %s", error)
            return
        # The same key objects, since those have the tickets that were opened with them.
        known = {_slot(entry): entry.key for entry in self.newest}
        entries = [
            replace(entry, key=old)
            if (old := known.get(_slot(entry))) is not None and old == entry.key
            else entry
            for entry in keytab
        ]
        self.newest = Keytab(entries)
        self.newest._file = self
        log.debug("the keytab %s has changed: it has %s", self._path, self.newest.summary())

    def _settle(self) -> None:
        """Forget the stamp of a file that was just changed: the next change may leave it the same."""
        if isinstance(self.stamp, tuple) and self.stamp[-1] / 1e9 > now().timestamp() - _TICK:
            self.stamp = ()

    def _read(self) -> Keytab:
        try:
            keytab = Keytab.decode(files.read_private(self._path, what=_WHAT, shared=True))
        except DecodeError as error:
            raise DecodeError(f"{self._path}: {error}") from error
        keytab._file = self
        return keytab


def change_keytab(
    path: files.FilePath, change: Callable[[Keytab], Keytab], *, make: bool
) -> Keytab:
    """Replace the keytab in a file by the result of `change`, and return that result.

    The file is locked against other writers meanwhile. If `make` is true, a missing file counts as
    an empty keytab. Raises CredentialError and DecodeError as `load` does.
    """
    name = keytab_path(path)
    with files.locked(name, what=_WHAT, shared=True, make=make) as file:
        if file is None:
            return change(Keytab.load(path))  # this raises the error that the file is missing
        try:
            keytab = change(Keytab.decode(file.read() or b"\5\2"))  # a new file is empty
        except DecodeError as error:
            raise DecodeError(f"{name}: {error}") from error
        file.replace(keytab.encode())
    return keytab


def _default_salt(principal: Principal) -> bytes:
    """Return the salt of a principal; accounts of computers have one of their own.

    Source: RFC 4120 4, MS-KILE 3.1.1.2.
    """
    name, realm = principal.components[0], principal.realm
    if len(principal.components) > 1 or not name.endswith("$"):
        return principal.default_salt
    return f"{realm}host{name[:-1].lower()}.{realm.lower()}".encode()


def keytab_path(name: files.FilePath | None) -> str:
    """Return the file of a keytab's name; None means `defaults.keytab_name()`."""
    if name is None:
        name = keytab_name().name
    if not isinstance(name, str):
        return files.text_of(name)
    kind, path = files.split_type(name)
    if kind not in ("FILE", "WRFILE"):
        raise UnsupportedError(
            f"keytabs of type {kind} are not supported: name a file, as in FILE:/etc/krb5.keytab"
        )
    return path


def _slot(entry: KeytabEntry) -> tuple[Principal, int, int]:
    return entry.principal, entry.kvno, entry.key.etype


def _decode_entry(reader: Reader, version: int) -> KeytabEntry:
    count = reader.count(2, 2)
    if version == 1:
        if not count:
            raise DecodeError("the principal of a keytab entry has no realm: its count is 0")
        count -= 1
    begins = reader.offset
    realm = reader.text(2)
    if not count or not realm:
        raise DecodeError(
            f"the keytab entry at byte {begins} has a principal without a "
            f"{'name' if realm else 'realm'}"
        )
    components = tuple([reader.text(2) for _ in range(count)])
    name_type = reader.signed(4) if version == 2 else NameType.PRINCIPAL
    timestamp = EPOCH + timedelta(seconds=reader.unsigned(4))
    kvno = reader.unsigned(1)
    etype = reader.signed(2)
    key = EncryptionKey(etype, reader.counted(2))
    if reader.remaining >= 4:  # any further bytes are padding: the entry fills a former hole
        kvno = reader.unsigned(4) or kvno
    return KeytabEntry(Principal(components, realm, name_type), kvno, key, timestamp)


def _encode_entry(entry: KeytabEntry) -> bytes:
    principal = entry.principal
    if not principal.realm or not principal.components:
        raise CredentialError(
            "a key of the keytab has a principal without a name or realm: it could not be found"
        )
    seconds = (entry.timestamp - EPOCH) // timedelta(seconds=1)
    return b"".join(
        (
            integer(len(principal.components), 2),
            counted(principal.realm, 2),
            *(counted(component, 2) for component in principal.components),
            integer(principal.name_type, 4, signed=True),
            integer(min(max(seconds, 0), _LAST_SECOND), 4),
            integer(entry.kvno & 0xFF, 1),
            integer(entry.key.etype, 2, signed=True),
            counted(entry.key.contents, 2),
            integer(entry.kvno, 4),
        )
    )
