"""Keytab files: the long-term keys of services. Source: MIT's keytab file format, versions 0x0501 and 0x0502.

A file is the version and records, each behind a signed 32-bit size. A negative size is a hole, where an entry was
deleted; a size of 0 ends the list. A record is

    count(2) realm component... name-type(4) timestamp(4) kvno(1) etype(2) key [kvno(4)] [padding]

with realm, components and key behind a length of two bytes. In version 0x0501 integers have the byte order of the
machine that wrote the file (taken to be ours), the count includes the realm and the name type is missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from purekrb import crypto
from purekrb.constants import NameType
from purekrb.credentials import files
from purekrb.credentials.binary import Reader, counted, integer
from purekrb.errors import CredentialError, DecodeError, UnsupportedError
from purekrb.keys import EncryptionKey, etype_name
from purekrb.names import Principal
from purekrb.records import record
from purekrb.system import EPOCH, now
from purekrb.tracebacks import forget_frames

__all__ = ["Keytab", "KeytabEntry", "change_keytab"]

_WHAT = "keytab"
_DEFAULT_NAME = "FILE:/etc/krb5.keytab"
_LAST_SECOND = 0xFFFFFFFF


@record
class KeytabEntry:
    """One key of a principal. `timestamp` (aware, whole seconds) is when it was written and means nothing else."""

    principal: Principal
    kvno: int
    key: EncryptionKey
    timestamp: datetime = EPOCH

    def __str__(self) -> str:
        return f"{self.principal} kvno {self.kvno} ({etype_name(self.key.etype)})"


class Keytab:
    """An immutable list of keys: `add`, `merge` and `remove` return another keytab.

    Names are matched exactly: neither case nor realm is ignored. Keys of encryption types that purekrb does not know
    are kept, so that saving loses nothing.
    """

    __slots__ = ("_by_principal", "entries")

    def __init__(self, entries: Iterable[KeytabEntry] = ()) -> None:
        self.entries = tuple(entries)
        self._by_principal: dict[Principal, list[KeytabEntry]] = {}
        for entry in self.entries:
            self._by_principal.setdefault(entry.principal, []).append(entry)
        for found in self._by_principal.values():
            found.sort(key=lambda entry: (entry.kvno, entry.timestamp), reverse=True)

    @classmethod
    @forget_frames
    def load(cls, path: files.FilePath | None = None) -> Keytab:
        """Return the keytab in a file; None stands for KRB5_KTNAME or FILE:/etc/krb5.keytab.

        The name may begin with FILE: or WRFILE:. Raises CredentialError for a file that cannot be read or trusted (see
        `files.read_private`), DecodeError for one that is no keytab, UnsupportedError for other types.
        """
        name = _file_of(path)
        try:
            return cls.decode(files.read_private(name, what=_WHAT, shared=True))
        except DecodeError as error:
            raise DecodeError(f"{name}: {error}") from error

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> Keytab:
        """Return the keytab that `data` spells. Raises DecodeError where any byte of it does not fit."""
        if data[:2] not in (b"\5\1", b"\5\2"):
            raise DecodeError("this is no keytab: it does not begin with the version, 0501 or 0502")
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
                    "the keytab is damaged: data follow the record of size 0 that ends it"
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
        """Return the keys that a password has, one for each encryption type.

        The salt must be the one that the KDC used: None is the default salt of the principal; computer accounts of
        Active Directory have another (`<REALM>host<name in lower case>.<realm in lower case>`). `timestamp` is now
        unless given.
        """
        principal = Principal.of(principal)
        salt = principal.default_salt if salt is None else salt
        stamp = (timestamp or now()).replace(microsecond=0)
        return cls(
            KeytabEntry(principal, kvno, crypto.string_to_key(etype, password, salt), stamp)
            for etype in etypes
        )

    @forget_frames
    def encode(self) -> bytes:
        """Return the file of this keytab, version 0x0502. Raises CredentialError where a field is too large for it."""
        records = (_encode_entry(entry) for entry in self.entries)
        return b"\5\2" + b"".join(counted(record, 4) for record in records)

    def save(self, path: files.FilePath | None = None) -> None:
        """Replace the file by this keytab, atomically, with mode 0600: give it to the service's user afterwards.

        Names as for `load`. Raises CredentialError; the old file is then untouched.
        """
        files.write_private(_file_of(path), self.encode(), what=_WHAT)

    def find(
        self, principal: Principal | str, kvno: int | None = None, etype: int | None = None
    ) -> list[KeytabEntry]:
        """Return the entries of exactly this principal, the newest kvno first; [] where there are none."""
        principal = Principal.of(principal) if isinstance(principal, str) else principal
        return [
            entry
            for entry in self._by_principal.get(principal, ())
            if kvno in (None, entry.kvno) and etype in (None, entry.key.etype)
        ]

    @property
    def principals(self) -> list[Principal]:
        """Each principal once, in the order of the file."""
        return list(self._by_principal)

    def add(self, *entries: KeytabEntry) -> Keytab:
        """Return a keytab with `entries` too; each replaces the one of the same principal, kvno and etype."""
        new = {_slot(entry) for entry in entries}
        return Keytab((*(entry for entry in self.entries if _slot(entry) not in new), *entries))

    def merge(self, other: Keytab) -> Keytab:
        """Return a keytab with the entries of both; where both have the same principal, kvno and etype, `other`'s."""
        return self.add(*other.entries)

    def remove(
        self, principal: Principal | str, kvno: int | None = None, etype: int | None = None
    ) -> Keytab:
        """Return a keytab without the entries that `find` gives. Raises CredentialError where there are none."""
        gone = self.find(principal, kvno, etype)
        if not gone:
            raise CredentialError(
                f"the keytab has no such key of {principal}; it has {self.summary()}"
            )
        slots = {_slot(entry) for entry in gone}
        return Keytab(entry for entry in self.entries if _slot(entry) not in slots)

    def summary(self) -> str:
        """Return what the keytab holds as text for messages: principals, kvnos and etypes, the first ten."""
        shown = ", ".join(str(entry) for entry in self.entries[:10])
        more = len(self.entries) - 10
        return (shown or "no keys") + (f" and {more} more" if more > 0 else "")

    def __iter__(self) -> Iterator[KeytabEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        return self.entries == other.entries if isinstance(other, Keytab) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as for the keys in it

    def __repr__(self) -> str:
        return f"Keytab({self.summary()})"


def change_keytab(
    path: files.FilePath, change: Callable[[Keytab], Keytab], *, make: bool
) -> Keytab:
    """Replace the keytab in a file by what `change` makes of it, with other writers kept off; return that.

    A file that does not exist counts as an empty keytab if `make`. Raises CredentialError and DecodeError as `load`.
    """
    name = _file_of(path)
    with files.locked(name, what=_WHAT, shared=True, make=make) as file:
        if file is None:
            return change(Keytab.load(path))  # which says that there is none
        try:
            keytab = change(Keytab.decode(file.read() or b"\5\2"))  # empty where it is new
        except DecodeError as error:
            raise DecodeError(f"{name}: {error}") from error
        file.replace(keytab.encode())
    return keytab


def _file_of(name: files.FilePath | None) -> str:
    if name is None:
        name = os.environ.get("KRB5_KTNAME") or _DEFAULT_NAME
    if not isinstance(name, str):
        return files.text_of(name)
    kind, path = files.split_type(name)
    if kind not in ("FILE", "WRFILE"):
        raise UnsupportedError(
            f"keytabs of type {kind}: are not supported; name a file, as in FILE:/etc/krb5.keytab"
        )
    return path


def _slot(entry: KeytabEntry) -> tuple[Principal, int, int]:
    return entry.principal, entry.kvno, entry.key.etype


def _decode_entry(reader: Reader, version: int) -> KeytabEntry:
    count = reader.count(2, 2)
    if version == 1:
        if not count:
            raise DecodeError("a keytab entry counts no realm")
        count -= 1
    begins = reader.offset
    realm = reader.text(2)
    if not count or not realm:
        raise DecodeError(
            f"the keytab entry at byte {begins} has a principal without {'name' if realm else 'realm'}"
        )
    components = tuple([reader.text(2) for _ in range(count)])
    name_type = reader.signed(4) if version == 2 else NameType.PRINCIPAL
    timestamp = EPOCH + timedelta(seconds=reader.unsigned(4))
    kvno = reader.unsigned(1)
    etype = reader.signed(2)
    key = EncryptionKey(etype, reader.counted(2))
    if reader.remaining >= 4:  # what else follows is padding of a hole that was used again
        kvno = reader.unsigned(4) or kvno
    return KeytabEntry(Principal(components, realm, name_type), kvno, key, timestamp)


def _encode_entry(entry: KeytabEntry) -> bytes:
    principal = entry.principal
    if not principal.realm or not principal.components:
        raise CredentialError(
            "a key of the keytab has a principal without name or realm: nobody would find it"
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
