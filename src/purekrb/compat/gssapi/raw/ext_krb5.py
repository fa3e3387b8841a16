"""What only Kerberos has. Source: MIT's gssapi_krb5.h."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from purekrb.compat.gssapi import _status, _stores
from purekrb.compat.gssapi.raw.creds import Creds
from purekrb.compat.gssapi.raw.named_tuples import CfxKeyData, Rfc1964KeyData
from purekrb.compat.gssapi.raw.sec_contexts import SecurityContext, context_of
from purekrb.constants import DEFAULT_ETYPES, EncryptionType
from purekrb.gss.acceptor import Acceptor
from purekrb.tracebacks import forget_frames

__all__ = [
    "CfxKeyData",
    "Rfc1964KeyData",
    "Krb5LucidContext",
    "Krb5LucidContextV1",
    "krb5_ccache_name",
    "krb5_export_lucid_sec_context",
    "krb5_extract_authtime_from_sec_context",
    "krb5_extract_authz_data_from_sec_context",
    "krb5_import_cred",
    "krb5_get_tkt_flags",
    "krb5_set_allowable_enctypes",
]


def krb5_ccache_name(name: bytes | None) -> bytes:
    """Set the default credential cache of this thread, and return the old one's name.

    None stands for that of the process.
    """
    old = _stores.default_ccache_name()
    _stores.set_default_ccache_name(None if name is None else name.decode())
    return old.encode()


class Krb5LucidContext:
    """The facts and keys of a context."""


class Krb5LucidContextV1(Krb5LucidContext):
    """The facts and keys of a context, as version 1 of the structure has them."""

    def __init__(
        self, *, is_initiator: bool, endtime: int, send_seq: int, recv_seq: int, cfx_kd: CfxKeyData
    ) -> None:
        self.version = 1
        self.is_initiator = is_initiator
        self.endtime = endtime
        self.send_seq = send_seq
        self.recv_seq = recv_seq
        #: 1 stands for the tokens of RFC 4121.
        self.protocol = 1
        self.rfc1964_kd: Rfc1964KeyData | None = None
        self.cfx_kd = cfx_kd

    def __repr__(self) -> str:
        return f"<Krb5LucidContextV1 {'initiator' if self.is_initiator else 'acceptor'}>"


@forget_frames
@_status.as_gss_errors
def krb5_export_lucid_sec_context(context: SecurityContext, version: int) -> Krb5LucidContext:
    """Return the facts and keys of a context, and end it."""
    if version != 1:
        raise _status.unavailable("krb5_export_lucid_sec_context", f"there is no version {version}")
    inner = context_of(context)
    key, initiator_key = inner.session_key, inner.initiator_key
    if key.etype == EncryptionType.RC4_HMAC:
        raise _status.unavailable("krb5_export_lucid_sec_context", "not for RC4 contexts")
    send_seq, recv_seq = inner.sequence_numbers
    has_subkey = inner.has_acceptor_subkey
    return Krb5LucidContextV1(
        is_initiator=context._is_initiator,
        endtime=int(inner.endtime.timestamp()),
        send_seq=send_seq,
        recv_seq=recv_seq,
        cfx_kd=CfxKeyData(
            int(initiator_key.etype),
            initiator_key.contents,
            int(key.etype) if has_subkey else None,
            key.contents if has_subkey else None,
        ),
    )


@_status.as_gss_errors
def krb5_extract_authtime_from_sec_context(context: SecurityContext) -> int:
    """Return when the client logged in, in seconds since 1970."""
    ticket = context._ticket
    authtime = _acceptor(context).authtime if ticket is None else ticket.authtime
    return int(authtime.timestamp())


@_status.as_gss_errors
def krb5_extract_authz_data_from_sec_context(context: SecurityContext, ad_type: int) -> bytes:
    """Return the data of this ad-type in the ticket's authorization data.

    Raises OperationUnavailableError if there are none.
    """
    for entry in _acceptor(context).authorization_data:
        if entry.ad_type == ad_type:
            return entry.ad_data
    raise _status.unavailable(
        "krb5_extract_authz_data_from_sec_context", f"the ticket has no data of ad-type {ad_type}"
    )


@_status.as_gss_errors
def krb5_get_tkt_flags(context: SecurityContext) -> int:
    """Return the flags of the ticket: bit 0 of RFC 4120 5.3 is the highest of 32."""
    ticket = context._ticket
    return int(_acceptor(context).ticket_flags if ticket is None else ticket.flags)


def _acceptor(context: SecurityContext) -> Acceptor:
    inner = context_of(context)
    if isinstance(inner, Acceptor):
        return inner
    raise _status.unavailable("this function", "an imported initiator has no ticket")


def krb5_import_cred(
    cred_handle: Creds,
    cache: int | None = None,
    keytab_principal: int | None = None,
    keytab: int | None = None,
) -> NoReturn:
    """Raise OperationUnavailableError: the arguments point to structures of a C library."""
    if cache is None and keytab_principal is None and keytab is None:
        raise ValueError("Either cache or keytab_principal/keytab must be set")
    raise _status.unavailable("krb5_import_cred", "there is no C library: use a credential store")


def krb5_set_allowable_enctypes(cred_handle: Creds, ktypes: Iterable[int]) -> None:
    """Let contexts of this credential use only these encryption types; RC4 is never one of them."""
    cred_handle._etypes = tuple(etype for etype in ktypes if etype in DEFAULT_ETYPES)
