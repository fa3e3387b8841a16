"""KCM:name: ccaches that a daemon of this machine keeps, Heimdal's kcm or sssd_kcm.

`KCM:` alone is the collection of the user, and stands for its primary ccache. The daemon knows the
user by the credentials of the socket.

A request is a length of 32 bits, the version 2.0 (two bytes), an opcode of 16 bits and arguments;
the answer a length of 32 bits, a code of 32 bits that the length does not count, a status of 32
bits and data. Names end with NUL, principals and credentials have the form of ccache files of
version 4. Source: Heimdal's KCM protocol, with MIT's additions (opcodes from 13000).

The daemons lock nothing across requests. So a merge stores ticket by ticket, and reads nothing that
it would write back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from purekrb.credentials.binary import counted
from purekrb.errors import CredentialError, DecodeError, TransportError
from purekrb.io import local
from purekrb.krb5conf.config import Config

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache, Piece

__all__ = [
    "destroy",
    "listed",
    "load",
    "members",
    "merge",
    "primary",
    "save",
    "stamp",
    "switch",
    "unique",
    "unusable",
]

DEFAULT_SOCKET = "/var/run/.heim_org.h5l.kcm-socket"
_TIMEOUT = 10.0
#: The largest answer that is read, in bytes.
_MAX_SIZE = 16 << 20
#: The most ccaches, and tickets in one, that are looked at.
_MAX_COUNT = 4096

_GEN_NEW, _INITIALIZE, _DESTROY, _STORE = 3, 4, 5, 6
_GET_PRINCIPAL, _CRED_UUIDS, _CRED_BY_UUID = 8, 9, 10
_CACHE_UUIDS, _CACHE_BY_UUID, _GET_DEFAULT, _SET_DEFAULT = 18, 19, 20, 21
_GET_OFFSET, _SET_OFFSET = 22, 23
_CRED_LIST, _REPLACE = 13001, 13002

#: KRB5_FCC_NOFILE, KRB5_CC_NOTFOUND and KRB5_CC_END: there is no such ccache, or nothing in it.
_NOT_FOUND = (-1765328189, -1765328243, -1765328242)
#: KRB5_FCC_INTERNAL, KRB5_CC_NOSUPP and KRB5_CC_... of daemons that do not know an opcode.
_NOT_KNOWN = (-1765328188, -1765328137)


class _MissingError(CredentialError):
    """There is no such ccache."""


class _UnknownError(CredentialError):
    """The daemon does not know the opcode."""


def load(residual: str, decode: Callable[[bytes], CCache], *, foreign: bool = False) -> CCache:
    """Return the ccache. `foreign` changes nothing: the daemon knows who asks."""
    path = _socket()
    principal = _principal(path, residual)
    if not principal:
        raise CredentialError(
            f"there is no credential cache KCM:{residual}: get a ticket first (kinit)"
        )
    return decode(b"".join((b"\5\4", _header(path, residual), principal, *_creds(path, residual))))


def save(residual: str, ccache: CCache) -> None:
    """Replace the ccache, at once where the daemon can."""
    path = _socket()
    principal, pieces = ccache.pieces()
    offset = struct.pack(">i", round(ccache.time_offset().total_seconds()))
    listed = b"".join(counted(piece.data, 4) for piece in pieces)
    try:
        _ask(path, _REPLACE, residual, offset, principal, struct.pack(">I", len(pieces)), listed)
        return
    except _UnknownError:
        pass
    _ask(path, _INITIALIZE, residual, principal)
    _store(path, residual, pieces)
    if ccache.time_offset():
        try:
            _ask(path, _SET_OFFSET, residual, offset)
        except _UnknownError:
            return


def merge(residual: str, ccache: CCache) -> None:
    """Store what the ccache lacks, ticket by ticket; make it if it is missing."""
    path = _socket()
    try:
        there = load(residual, type(ccache).decode)
    except CredentialError:
        save(residual, ccache)
        return
    _store(path, residual, ccache.additions_to(there))


def destroy(residual: str) -> None:
    """Remove the ccache."""
    path = _socket()
    if not _principal(path, residual):
        raise CredentialError(f"there is no credential cache KCM:{residual}")
    _ask(path, _DESTROY, residual)


def primary(residual: str) -> str:
    """Return the name of the ccache that `KCM:` stands for."""
    return residual or _name(_ask(_socket(), _GET_DEFAULT))


def members(residual: str) -> list[str]:
    """Return the names of the user's ccaches that have a principal, the primary first."""
    path = _socket()
    if residual:
        return [residual] if _principal(path, residual) else []
    try:
        uuids = _ask(path, _CACHE_UUIDS)
    except _MissingError:
        return []
    names = []
    for uuid in _uuids(uuids):
        try:
            name = _name(_ask(path, _CACHE_BY_UUID, uuid))
        except _MissingError:  # it was removed in the meantime
            continue
        if _principal(path, name):
            names.append(name)
    first = primary("")
    return sorted(dict.fromkeys(names), key=lambda name: name != first)


def unique(residual: str) -> str:
    """Return the name that the daemon gives for a new ccache."""
    return _name(_ask(_socket(), _GEN_NEW))


def switch(residual: str) -> None:
    """Make this ccache the primary."""
    _ask(_socket(), _SET_DEFAULT, residual)


def stamp(residual: str) -> object:
    """Return None: the daemon must be asked."""
    return None


def unusable() -> str:
    """Return why no daemon can be reached; "" if one can."""
    try:
        path = _socket()
    except CredentialError as error:
        return str(error)
    return "" if local.answers(path) else f"no daemon answers at {path}"


def _socket() -> str:
    path = Config.from_file().kcm_socket or DEFAULT_SOCKET
    if path == "-":
        raise CredentialError(
            "kcm_socket = - in krb5.conf says that there is no KCM daemon: set KRB5CCNAME=FILE:/path"
        )
    return path


def _ask(path: str, opcode: int, *arguments: str | bytes) -> bytes:
    """Return the data of the answer. Text arguments are names."""
    body = struct.pack(">BBH", 2, 0, opcode) + b"".join(
        one.encode() + b"\0" if isinstance(one, str) else one for one in arguments
    )
    try:
        answer = local.ask(path, counted(body, 4), 8, _body_size, _TIMEOUT)
    except TransportError as error:
        if opcode in (_CRED_LIST, _REPLACE) and local.answers(path):
            raise _UnknownError(str(error)) from error  # sssd closes the connection
        raise CredentialError(
            f"cannot reach the credential caches of type KCM: {error}; start the daemon "
            "(sssd-kcm, or Heimdal's kcm), or set KRB5CCNAME=FILE:/path"
        ) from error
    (code,) = struct.unpack(">i", answer[4:8])
    status = struct.unpack(">i", answer[8:12])[0] if len(answer) >= 12 else 0
    failure = code or status
    if not failure and len(answer) < 12:
        raise DecodeError("the answer of the KCM daemon ends before its status")
    if failure in _NOT_FOUND:
        raise _MissingError(
            "the KCM daemon has no such credential cache: get a ticket first (kinit)"
        )
    if failure in _NOT_KNOWN:
        raise _UnknownError(f"the KCM daemon does not know the operation {opcode}")
    if failure:
        raise CredentialError(
            f"the KCM daemon refused the operation {opcode}: error {failure}; see its log"
        )
    return answer[12:]


def _body_size(head: bytes) -> int:
    size = int.from_bytes(head[:4], "big")
    if size > _MAX_SIZE:
        raise DecodeError(f"the answer of the KCM daemon has {size} bytes, at most {_MAX_SIZE}")
    return size


def _name(data: bytes) -> str:
    try:
        return data.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise DecodeError("the KCM daemon names a credential cache in no UTF-8 text") from None


def _uuids(data: bytes) -> list[bytes]:
    if len(data) % 16 or len(data) // 16 > _MAX_COUNT:
        raise DecodeError(f"the KCM daemon lists {len(data)} bytes, expected some UUIDs of 16")
    return [data[at : at + 16] for at in range(0, len(data), 16)]


def _principal(path: str, name: str) -> bytes:
    """Return the principal of a ccache, encoded; b"" if there is none."""
    try:
        return _ask(path, _GET_PRINCIPAL, name)
    except _MissingError:
        return b""


def _creds(path: str, name: str) -> list[bytes]:
    try:
        data = _ask(path, _CRED_LIST, name)
    except _MissingError:
        return []
    except _UnknownError:
        return _creds_one_by_one(path, name)
    return listed(data)


def listed(data: bytes) -> list[bytes]:
    """Return the credentials in a list of the daemon: their number, then each after its length.

    Raises DecodeError.
    """
    count, at, creds = int.from_bytes(data[:4], "big"), 4, []
    for _ in range(min(count, _MAX_COUNT)):
        size = int.from_bytes(data[at : at + 4], "big")
        creds.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    if len(data) < 4 or at != len(data):
        raise DecodeError("the list of tickets from the KCM daemon is damaged: its lengths differ")
    return creds


def _creds_one_by_one(path: str, name: str) -> list[bytes]:
    try:
        uuids = _uuids(_ask(path, _CRED_UUIDS, name))
    except _MissingError:
        return []
    creds = []
    for uuid in uuids:
        try:
            creds.append(_ask(path, _CRED_BY_UUID, name, uuid))
        except _MissingError:  # it was removed in the meantime
            continue
    return creds


def _store(path: str, name: str, pieces: Iterable[Piece]) -> None:
    for piece in pieces:
        _ask(path, _STORE, name, piece.data)


def _header(path: str, name: str) -> bytes:
    """Return the header of a file with the clock offset that the daemon keeps."""
    try:
        data = _ask(path, _GET_OFFSET, name)
    except CredentialError:
        return counted(b"", 2)
    offset = data[:4] if len(data) >= 4 else bytes(4)
    return (
        counted(struct.pack(">HH", 1, 8) + offset + bytes(4), 2) if any(offset) else counted(b"", 2)
    )
