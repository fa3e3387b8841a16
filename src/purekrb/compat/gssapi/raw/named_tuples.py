"""The results of the functions in this package, as python-gssapi documents them."""

from __future__ import annotations

from typing import Any, NamedTuple

from purekrb.compat.gssapi.raw.oids import OID

__all__ = [
    "AcquireCredResult",
    "InquireCredResult",
    "InquireCredByMechResult",
    "AddCredResult",
    "DisplayNameResult",
    "WrapResult",
    "UnwrapResult",
    "AcceptSecContextResult",
    "InitSecContextResult",
    "InquireContextResult",
    "StoreCredResult",
    "IOVUnwrapResult",
    "InquireNameResult",
    "GetNameAttributeResult",
    "InquireAttrsResult",
    "DisplayAttrResult",
    "InquireSASLNameResult",
    "CfxKeyData",
    "Rfc1964KeyData",
]


class AcquireCredResult(NamedTuple):
    """`lifetime` is in seconds; None if the credential does not end."""

    creds: Any
    mechs: set[OID]
    lifetime: int | None


class InquireCredResult(NamedTuple):
    """What was not asked for is None."""

    name: Any
    lifetime: int | None
    usage: str | None
    mechs: set[OID] | None


class InquireCredByMechResult(NamedTuple):
    """What was not asked for is None."""

    name: Any
    init_lifetime: int | None
    accept_lifetime: int | None
    usage: str | None


class AddCredResult(NamedTuple):
    """`creds` is None if the credential that was given was changed."""

    creds: Any
    mechs: set[OID]
    init_lifetime: int | None
    accept_lifetime: int | None


class DisplayNameResult(NamedTuple):
    """A name's text and its type."""

    name: bytes
    name_type: OID | None


class WrapResult(NamedTuple):
    """A token, and whether it is encrypted."""

    message: bytes
    encrypted: bool


class UnwrapResult(NamedTuple):
    """A message, whether it was encrypted, and its quality of protection (always 0)."""

    message: bytes
    encrypted: bool
    qop: int


class AcceptSecContextResult(NamedTuple):
    """One step of an acceptor."""

    context: Any
    initiator_name: Any
    mech: OID | None
    token: bytes | None
    flags: Any
    lifetime: int | None
    delegated_creds: Any
    more_steps: bool


class InitSecContextResult(NamedTuple):
    """One step of an initiator."""

    context: Any
    mech: OID | None
    flags: Any
    token: bytes | None
    lifetime: int | None
    more_steps: bool


class InquireContextResult(NamedTuple):
    """What was not asked for is None."""

    initiator_name: Any
    target_name: Any
    lifetime: int | None
    mech: OID | None
    flags: Any
    locally_init: bool | None
    complete: bool | None


class StoreCredResult(NamedTuple):
    """What was stored."""

    mechs: list[OID]
    usage: str


class IOVUnwrapResult(NamedTuple):
    """Whether the message was encrypted, and its quality of protection (always 0)."""

    encrypted: bool
    qop: int


class InquireNameResult(NamedTuple):
    """A name's attributes, and the mechanism whose name it is."""

    attrs: list[bytes] | None
    is_mech_name: bool | None
    mech: OID | None


class GetNameAttributeResult(NamedTuple):
    """An attribute of a name."""

    values: list[bytes]
    display_values: list[bytes]
    authenticated: bool
    complete: bool


class InquireAttrsResult(NamedTuple):
    """The attributes that a mechanism has, and those that it would tell."""

    mech_attrs: set[OID]
    known_mech_attrs: set[OID]


class DisplayAttrResult(NamedTuple):
    """The words for an attribute of mechanisms."""

    name: bytes
    short_desc: bytes
    long_desc: bytes


class InquireSASLNameResult(NamedTuple):
    """A mechanism's names."""

    sasl_mech_name: bytes
    mech_name: bytes
    mech_description: bytes


class CfxKeyData(NamedTuple):
    """The keys of an RFC 4121 context."""

    ctx_key_type: int
    ctx_key: bytes
    acceptor_subkey_type: int | None
    acceptor_subkey: bytes | None


class Rfc1964KeyData(NamedTuple):
    """The key of an RFC 1964 context."""

    sign_alg: int
    seal_alg: int
    key_type: int
    key: bytes
