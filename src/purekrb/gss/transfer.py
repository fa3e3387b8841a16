"""Contexts that change hands: an established context as bytes, encrypted with a key that both processes have.

    "purekrb context" | version (1) | nonce (12) | AES-GCM(key, nonce, JSON of ContextState, with all before as AAD)

For the processes of one machine, which run the same purekrb: the form may change with any version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from purekrb.credentials.ccache import CCache
from purekrb.errors import DecodeError, IntegrityError, KerberosError, PacError, UnsupportedError
from purekrb.exchanges.identity import ClientIdentity
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import AuthorizationDataEntry
from purekrb.names import Principal
from purekrb.system import RandomBytes

__all__ = ["ContextState", "check_key", "seal_state", "open_state"]

_MAGIC = b"purekrb context"
_VERSION = b"\x01"
_HEAD = _MAGIC + _VERSION
_NONCE, _TAG = 12, 16
_KEY_SIZES = (16, 24, 32)


@dataclass(frozen=True)
class ContextState:
    """All that an established context is made of. `expires` is None where expiry is not enforced.

    `send_seq` and `receive_seq` are the next numbers, `seen` the window behind the second. What only acceptors know
    is empty for initiators; `identity` is the PAC's verdict instead, where that failed.
    """

    role: str
    flags: int
    key: EncryptionKey
    initiator_key: EncryptionKey
    acceptor_subkey: bool
    send_seq: int
    receive_seq: int
    seen: int
    initiator: Principal
    acceptor: Principal
    starttime: datetime
    endtime: datetime
    expires: datetime | None
    channel_bound: bool = False
    relevant: tuple[AuthorizationDataEntry, ...] = ()
    authorization_data: tuple[AuthorizationDataEntry, ...] = ()
    identity: ClientIdentity | PacError | None = None
    delegated: CCache | None = None


def seal_state(state: ContextState, key: bytes, random: RandomBytes) -> bytes:
    """Return `state` encrypted with `key` of 16, 24 or 32 bytes."""
    nonce = random(_NONCE)
    plain = {field.name: _plain(getattr(state, field.name)) for field in fields(state)}
    return _HEAD + nonce + _cipher(key).encrypt(nonce, json.dumps(plain).encode(), _HEAD)


def open_state(blob: bytes, key: bytes) -> ContextState:
    """Return what `seal_state` encrypted.

    Raises DecodeError for what is none of its work, UnsupportedError for another version's, IntegrityError for another
    key and for what was altered or cut off.
    """
    cipher = _cipher(key)
    if len(blob) < len(_HEAD) + _NONCE + _TAG or not blob.startswith(_MAGIC):
        raise DecodeError("this is not an exported context, or most of it is missing")
    if not blob.startswith(_HEAD):
        raise UnsupportedError("another version of purekrb exported this context: let both processes run the same")
    start = len(_HEAD) + _NONCE
    try:
        plain = cipher.decrypt(blob[len(_HEAD) : start], blob[start:], _HEAD)
    except InvalidTag:
        raise IntegrityError from None
    try:
        return ContextState(**{name: _READ.get(name, _same)(value) for name, value in json.loads(plain).items()})
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, KerberosError):
        raise DecodeError("the exported context was made by something else than purekrb") from None


def check_key(key: bytes) -> None:
    """Raise ValueError unless `key` can encrypt a context."""
    _cipher(key)


def _cipher(key: bytes) -> AESGCM:
    if len(key) not in _KEY_SIZES:
        raise ValueError(f"the key of an exported context has 16, 24 or 32 bytes, not {len(key)}")
    return AESGCM(key)


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it."""
    if isinstance(value, EncryptionKey):
        return [int(value.etype), value.contents.hex()]
    if isinstance(value, Principal):
        return [value.components, value.realm, int(value.name_type)]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [[entry.ad_type, entry.ad_data.hex()] for entry in value]
    if isinstance(value, ClientIdentity):
        return asdict(value) | {"principal": _plain(value.principal)}
    if isinstance(value, PacError):
        return str(value)
    return value.encode().hex() if isinstance(value, CCache) else value


def _same(value: Any) -> Any:
    return value


def _key(value: Any) -> EncryptionKey:
    return EncryptionKey(value[0], bytes.fromhex(value[1]))


def _entries(value: Any) -> tuple[AuthorizationDataEntry, ...]:
    return tuple(AuthorizationDataEntry(kind, bytes.fromhex(data)) for kind, data in value)


def _principal(value: Any) -> Principal:
    return Principal(tuple(value[0]), value[1], value[2])


def _identity(value: Any) -> ClientIdentity | PacError | None:
    if value is None or isinstance(value, str):
        return PacError(value) if value else None
    known = value | {"principal": _principal(value["principal"]), "group_sids": tuple(value["group_sids"])}
    return ClientIdentity(**known)


#: How each field is read that JSON holds in another form.
_READ: dict[str, Callable[[Any], Any]] = {
    "key": _key,
    "initiator_key": _key,
    "initiator": _principal,
    "acceptor": _principal,
    "starttime": datetime.fromisoformat,
    "endtime": datetime.fromisoformat,
    "expires": lambda value: value and datetime.fromisoformat(value),
    "relevant": _entries,
    "authorization_data": _entries,
    "identity": _identity,
    "delegated": lambda value: value and CCache.decode(bytes.fromhex(value)),
}
