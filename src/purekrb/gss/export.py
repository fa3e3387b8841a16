"""Exported contexts: established contexts as bytes, encrypted with a key of both processes.

    "purekrb context" | version (1) | nonce (12) | AES-GCM(key, nonce, JSON of ContextState)

The AAD of AES-GCM is the text and the version. The format is for processes of one machine that run
the same purekrb: it may change with any version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

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

_T = TypeVar("_T")


@dataclass(frozen=True)
class ContextState:
    """The contents of an established context. `expires` is None if expiry is not enforced.

    `send_seq` and `receive_seq` are the next numbers, `seen` is the window before `receive_seq`.
    The fields from `acceptor_names` on are empty for initiators. `identity` is a PacError if the
    PAC was refused.
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
    acceptor_names: tuple[Principal, ...] = ()
    anonymous: bool = False
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
    """Return the state that `seal_state` encrypted.

    Raises DecodeError if `blob` is not an exported context, UnsupportedError if another version
    exported it, and IntegrityError for another key and for altered or missing bytes.
    """
    cipher = _cipher(key)
    if len(blob) < len(_HEAD) + _NONCE + _TAG or not blob.startswith(_MAGIC):
        raise DecodeError("this is not an exported context, or most of it is missing")
    if not blob.startswith(_HEAD):
        raise UnsupportedError(
            "another version of purekrb exported this context: let both processes run the same"
        )
    start = len(_HEAD) + _NONCE
    try:
        plain = cipher.decrypt(blob[len(_HEAD) : start], blob[start:], _HEAD)
    except InvalidTag:
        raise IntegrityError from None
    with suppress(
        ValueError, TypeError, LookupError, AttributeError, RecursionError, KerberosError
    ):
        return ContextState(
            **{name: _READ[name](value) for name, value in json.loads(plain).items()}
        )
    # Raised outside of the `with`: the other error, which would be its context, may quote a key.
    raise DecodeError("the exported context was not made by purekrb")


def check_key(key: bytes) -> None:
    """Raise ValueError unless `key` can encrypt a context."""
    _cipher(key)


def _cipher(key: bytes) -> AESGCM:
    if len(key) not in _KEY_SIZES:
        raise ValueError(f"the key of an exported context has 16, 24 or 32 bytes, not {len(key)}")
    return AESGCM(key)


def _plain(value: Any) -> Any:
    """Return `value` in a form that JSON can hold."""
    if isinstance(value, EncryptionKey):
        return [int(value.etype), value.contents.hex()]
    if isinstance(value, Principal):
        return [value.components, value.realm, int(value.name_type)]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, AuthorizationDataEntry):
        return [value.ad_type, value.ad_data.hex()]
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    if isinstance(value, ClientIdentity):
        return asdict(value) | {"principal": _plain(value.principal)}
    if isinstance(value, PacError):
        return str(value)
    return value.encode().hex() if isinstance(value, CCache) else value


def _exactly(kind: type[_T]) -> Callable[[Any], _T]:
    """Return a function that accepts only values of this type: JSON may hold any type."""

    def read(value: Any) -> _T:
        if type(value) is not kind:
            raise TypeError
        return value

    return read


_integer, _text, _truth = _exactly(int), _exactly(str), _exactly(bool)
_list: Callable[[Any], list[Any]] = _exactly(list)


def _unsigned(value: Any) -> int:
    if not 0 <= _integer(value) < 1 << 64:
        raise ValueError
    return int(value)


def _or_none(read: Callable[[Any], _T]) -> Callable[[Any], _T | None]:
    return lambda value: None if value is None else read(value)


_text_or_none: Callable[[Any], Any] = _or_none(_text)


def _time(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError
    return moment


def _key(value: Any) -> EncryptionKey:
    return EncryptionKey(_integer(value[0]), bytes.fromhex(value[1]))


def _entries(value: Any) -> tuple[AuthorizationDataEntry, ...]:
    return tuple(
        AuthorizationDataEntry(_integer(kind), bytes.fromhex(data)) for kind, data in _list(value)
    )


def _principal(value: Any) -> Principal:
    return Principal(_texts(value[0]), _text(value[1]), _integer(value[2]))


def _principals(value: Any) -> tuple[Principal, ...]:
    return tuple(map(_principal, _list(value)))


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _list(value)))


def _identity(value: Any) -> ClientIdentity | PacError:
    if type(value) is str:
        return PacError(value)
    return ClientIdentity(
        **{name: _READ_IDENTITY.get(name, _text_or_none)(known) for name, known in value.items()}
    )


def _ccache(value: Any) -> CCache:
    return CCache.decode(bytes.fromhex(value))


#: The readers of the fields of an identity, except for those that are text or None.
_READ_IDENTITY: dict[str, Callable[[Any], Any]] = {
    "principal": _principal,
    "has_pac": _truth,
    "foreign": _truth,
    "group_sids": _texts,
}
#: The reader of each field: it takes the value in the JSON.
_READ: dict[str, Callable[[Any], Any]] = {
    "role": _text,
    "flags": _unsigned,
    "key": _key,
    "initiator_key": _key,
    "acceptor_subkey": _truth,
    "send_seq": _unsigned,
    "receive_seq": _unsigned,
    "seen": _unsigned,
    "initiator": _principal,
    "acceptor": _principal,
    "starttime": _time,
    "endtime": _time,
    "expires": _or_none(_time),
    "acceptor_names": _principals,
    "anonymous": _truth,
    "channel_bound": _truth,
    "relevant": _entries,
    "authorization_data": _entries,
    "identity": _or_none(_identity),
    "delegated": _or_none(_ccache),
}
