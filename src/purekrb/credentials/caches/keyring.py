"""KEYRING:anchor:collection:name: ccaches in keyrings of the Linux kernel.

`KEYRING:anchor:collection` is a collection, and stands for its primary ccache; a name without an
anchor is one of the session ("legacy"). The anchor is `process`, `thread`, `session`, `user`, or
`persistent`, whose collection is a uid.

The collection is the keyring `_krb_<collection>` of the anchor (`_krb` of a persistent one). The
key `krb_ccache:primary` in it holds the name of the primary. Each ccache is a keyring of its name:
the key `__krb5_princ__` is its principal, `__krb5_time_offsets__` its clock offset, and each other
key a ticket, described by its service. Payloads have the form of ccache files of version 4.
Source: MIT krb5, "KEYRING" (cc_keyring); keyrings(7).
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from purekrb.credentials.binary import counted
from purekrb.credentials.caches import keyctl
from purekrb.errors import CredentialError, DecodeError
from purekrb.log import Log
from purekrb.system import now, random_bytes

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache, Piece

__all__ = [
    "destroy",
    "load",
    "members",
    "merge",
    "primary",
    "primary_name",
    "save",
    "stamp",
    "switch",
    "unique",
    "unusable",
]

log = Log("purekrb.credentials")

_PRIMARY = "krb_ccache:primary"
_PRINCIPAL = "__krb5_princ__"
_OFFSETS = "__krb5_time_offsets__"
_ANCHORS = {
    "process": keyctl.PROCESS,
    "thread": keyctl.THREAD,
    "session": keyctl.SESSION,
    "user": keyctl.USER,
    "legacy": keyctl.SESSION,
}
_REASONS = {
    errno.ENOSYS: "this kernel has no keyrings",
    errno.EPERM: "the container does not permit keyrings",
    errno.EACCES: "the keyring is not ours",
    errno.EDQUOT: "the quota of keys of this user is used up",
    errno.EOPNOTSUPP: "this kernel has no persistent keyrings",
}


def load(residual: str, decode: Callable[[bytes], CCache], *, foreign: bool = False) -> CCache:
    """Return the ccache. `foreign` changes nothing: the kernel knows who asks."""
    with _failing(residual):
        keyring = _cache(residual)
        principal = None if keyring is None else _payload(keyring, _PRINCIPAL)
        if keyring is None or principal is None:
            raise CredentialError(
                f"there is no credential cache KEYRING:{residual}: get a ticket first (kinit)"
            )
        offsets = _payload(keyring, _OFFSETS)
        creds = []
        for serial in keyctl.serials_in(keyring):
            try:
                kind, description = keyctl.describe(serial)
                if kind != "keyring" and not description.startswith("__krb5_"):
                    creds.append(keyctl.read(serial))
            except OSError as error:  # it has expired, or was removed in the meantime
                log.debug("a key of KEYRING:%s is left out: %s", residual, error.strerror)
    header = struct.pack(">HH", 1, 8) + offsets if offsets and len(offsets) == 8 else b""
    return decode(b"".join((b"\5\4", counted(header, 2), principal, *creds)))


def save(residual: str, ccache: CCache) -> None:
    """Replace what the keyring holds, or make it."""
    principal, pieces = ccache.pieces()
    anchor, collection, name = _parts(residual)
    with _failing(residual):
        parent = _made(anchor, collection)
        keyring = keyctl.find(parent, "keyring", name)
        if keyring is None:
            keyring = keyctl.add_keyring(name, parent)
        else:
            keyctl.clear(keyring)
        keyctl.add_key("user", _PRINCIPAL, principal, keyring)
        offset = ccache.time_offset()
        if offset:
            seconds = int(offset.total_seconds() // 1)
            offsets = struct.pack(">ii", seconds, offset.microseconds)
            keyctl.add_key("user", _OFFSETS, offsets, keyring)
        _store(keyring, pieces)
        if keyctl.find(parent, "user", _PRIMARY) is None:
            _set_primary(parent, name)


def merge(residual: str, ccache: CCache) -> None:
    """Store what the ccache lacks, ticket by ticket; make it if it is missing."""
    try:
        there = load(residual, type(ccache).decode)
    except CredentialError:
        save(residual, ccache)
        return
    with _failing(residual):
        keyring = _cache(residual)
        if keyring is not None:
            _store(keyring, ccache.additions_to(there))


def destroy(residual: str) -> None:
    """Remove the ccache."""
    anchor, collection, name = _parts(residual)
    with _failing(residual):
        parent = _collection(anchor, collection)
        keyring = None if parent is None else keyctl.find(parent, "keyring", name)
        if parent is None or keyring is None:
            raise CredentialError(f"there is no credential cache KEYRING:{residual}")
        keyctl.clear(keyring)
        keyctl.unlink(keyring, parent)


def primary(residual: str) -> str:
    """Return the ccache that a collection stands for, and its anchor in full."""
    anchor, collection, name = _parts(residual)
    if not name:
        with _failing(residual):
            parent = _collection(anchor, collection)
            data = None if parent is None else _payload(parent, _PRIMARY)
        name = primary_name(data) if data is not None else collection
    return f"{anchor}:{collection}:{name}"


def members(residual: str) -> list[str]:
    """Return the ccaches of a collection, the primary first; a ccache has itself."""
    anchor, collection, name = _parts(residual)
    with _failing(residual):
        parent = _collection(anchor, collection)
        if parent is None:
            return []
        if name:
            return [residual] if keyctl.find(parent, "keyring", name) is not None else []
        found = []
        for serial in keyctl.serials_in(parent):
            kind, description = keyctl.describe(serial)
            if kind == "keyring" and _payload(serial, _PRINCIPAL) is not None:
                found.append(f"{anchor}:{collection}:{description}")
    first = primary(residual)
    return sorted(found, key=lambda member: member != first)


def unique(residual: str) -> str:
    """Return a name that is not in use, in MIT's form."""
    anchor, collection, _ = _parts(residual)
    return f"{anchor}:{collection}:krb_ccache_{random_bytes(4).hex()}"


def switch(residual: str) -> None:
    """Make this ccache the primary."""
    anchor, collection, name = _parts(residual)
    with _failing(residual):
        _set_primary(_made(anchor, collection), name)


def stamp(residual: str) -> object:
    """Return None: the keyring must be read."""
    return None


def unusable() -> str:
    """Return why there are no keyrings here; "" if there are."""
    return "" if keyctl.usable() else "the kernel, or the container, has no keyrings"


def _parts(residual: str) -> tuple[str, str, str]:
    """Return anchor, collection and name; the name of a collection is ""."""
    anchor, colon, rest = residual.partition(":")
    if not colon:
        anchor, rest = "legacy", residual
    collection, _, name = rest.partition(":")
    if anchor == "persistent":
        collection = collection or str(keyctl.own_uid())
    known = anchor in _ANCHORS or (anchor == "persistent" and collection.isdecimal())
    if not known or not collection or "\0" in residual:
        raise CredentialError(
            f"KEYRING:{residual} names no keyring: write KEYRING:session:NAME, "
            "KEYRING:user:NAME, KEYRING:process:NAME or KEYRING:persistent:UID"
        )
    return anchor, collection, name


def _collection(anchor: str, collection: str) -> int | None:
    """Return the keyring of a collection; None if it does not exist."""
    return keyctl.find(*_place(anchor, collection))


def _made(anchor: str, collection: str) -> int:
    """Return the keyring of a collection; make it if it does not exist."""
    above, _, name = _place(anchor, collection)
    found = keyctl.find(above, "keyring", name)
    return keyctl.add_keyring(name, above) if found is None else found


def _place(anchor: str, collection: str) -> tuple[int, str, str]:
    """Return the keyring above a collection, and the type and name of the collection's key."""
    if anchor == "persistent":
        above, name = keyctl.persistent(int(collection), keyctl.PROCESS), "_krb"
    else:
        above, name = _ANCHORS[anchor], f"_krb_{collection}"
        if above == keyctl.SESSION and keyctl.has_users_session():
            above = keyctl.USER_SESSION  # a session of this process alone would serve nobody
    return above, "keyring", name


def _cache(residual: str) -> int | None:
    anchor, collection, name = _parts(residual)
    parent = _collection(anchor, collection)
    return None if parent is None else keyctl.find(parent, "keyring", name)


def _payload(keyring: int, description: str) -> bytes | None:
    serial = keyctl.find(keyring, "user", description)
    return None if serial is None else keyctl.read(serial)


def _set_primary(collection: int, name: str) -> None:
    payload = struct.pack(">I", 1) + counted(name.encode(), 4)
    keyctl.add_key("user", _PRIMARY, payload, collection)


def primary_name(data: bytes) -> str:
    """Return the name in the key that names the primary. Raises DecodeError."""
    size = int.from_bytes(data[4:8], "big")
    if data[:4] != b"\0\0\0\1" or len(data) != 8 + size:
        raise DecodeError("the key that names the primary credential cache is damaged")
    return data[8:].decode(errors="replace")


def _store(keyring: int, pieces: Iterable[Piece]) -> None:
    for piece in pieces:
        serial = _add_ticket(keyring, piece.service, piece.data)
        left = 0 if piece.endtime is None else int((piece.endtime - now()).total_seconds())
        if left > 0:  # as MIT does; a ticket that has ended stays until the keyring goes
            keyctl.set_timeout(serial, left)


def _add_ticket(keyring: int, service: str, data: bytes) -> int:
    """Add the key of a ticket, in memory that may be swapped where the kernel has it."""
    try:
        serial = keyctl.add_key("big_key", service, data, keyring)
        other = keyctl.find(keyring, "user", service)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.EINVAL, errno.ENOPKG):
            raise
        return keyctl.add_key("user", service, data, keyring)
    if other is not None:
        keyctl.unlink(other, keyring)
    return serial


@contextlib.contextmanager
def _failing(residual: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = _REASONS.get(error.errno or 0) or error.strerror
        raise CredentialError(
            f"cannot use the credential cache KEYRING:{residual}: {why}; "
            "set KRB5CCNAME=FILE:/path instead"
        ) from error
