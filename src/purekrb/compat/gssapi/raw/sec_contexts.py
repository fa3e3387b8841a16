"""Security contexts. Source: RFC 2743 2.2; RFC 2744 5.1, 5.8, 5.19, 5.21, 5.22."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from time import time

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status, _stores
from purekrb.compat.gssapi.raw import creds as raw_creds
from purekrb.compat.gssapi.raw.chan_bindings import ChannelBindings
from purekrb.compat.gssapi.raw.creds import Creds
from purekrb.compat.gssapi.raw.misc import SPNEGO, check_mech
from purekrb.compat.gssapi.raw.named_tuples import (
    AcceptSecContextResult,
    InitSecContextResult,
    InquireContextResult,
)
from purekrb.compat.gssapi.raw.names import (
    Name,
    export_name,
    import_name,
    mech_name,
    principal_in,
    principal_of,
)
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import (
    GenericFlagSet,
    IntEnumFlagSet,
    MechType,
    NameType,
    RequirementFlag,
)
from purekrb.constants import Flag
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CredentialError, KerberosError
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.context import SecurityContext as PurekrbContext
from purekrb.gss.initiator import Initiator
from purekrb.kdc.client import KdcClient
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.system import now, random_bytes
from purekrb.tracebacks import forget_frames

__all__ = [
    "SecurityContext",
    "init_sec_context",
    "accept_sec_context",
    "inquire_context",
    "context_time",
    "process_context_token",
    "import_sec_context",
    "export_sec_context",
    "delete_sec_context",
]

log = Log("purekrb.compat")

Flags = int | Iterable[int] | None

_DEFAULT_FLAGS = 2 | 8  # mutual_authentication, out_of_sequence_detection
_DELEGATE, _OK_AS_DELEGATE, _CHANNEL_BOUND = 1, 32768, 2048
_MUTUAL, _DCE_STYLE = int(Flag.MUTUAL), int(Flag.DCE_STYLE)
_CONF_INTEG = int(Flag.CONF | Flag.INTEG)
_TRANSFERABLE, _PROTECTION_READY = 256, 128
#: The flags that purekrb's contexts know.
_KNOWN = int(Flag.DEFAULT | Flag.REPLAY | Flag.DCE_STYLE | Flag.IDENTIFY | Flag.EXTENDED_ERROR)
#: A stored ticket is used if it is valid for so many more seconds.
_MARGIN = 60.0
_EXPORTED = b"purekrb gssapi context\x01"
_KEY_SIZE = 32


class SecurityContext:
    """A context. `SecurityContext()` is empty until it is passed to a function."""

    #: The context of purekrb; None before the first step.
    _context: PurekrbContext | None = None
    _is_initiator: bool = False
    _target: Name | None = None
    _ticket: ServiceTicket | None = None
    _limit: int | None = None
    _pending_flags: int = 0
    _delegated: Creds | None = None

    def __new__(cls, cpy: SecurityContext | None = None) -> SecurityContext:
        context = super().__new__(cls)
        if cpy is not None:
            context.__dict__.update(cpy.__dict__)
        return context

    @property
    def _started(self) -> bool:
        return self._context is not None


def context_of(context: SecurityContext) -> PurekrbContext:
    """Return the context of purekrb. Raises ContextReadError if there is none yet."""
    if context._context is None:
        raise _status.status(
            codes.CALL_INACCESSIBLE_READ | codes.NO_CONTEXT, 0, "the context has not begun"
        )
    return context._context


def number_of(flags: Flags) -> int:
    """Return flags in any form as a number; those of the default for None and for none."""
    if flags is None:
        return _DEFAULT_FLAGS
    if not isinstance(flags, (int, GenericFlagSet)):
        flags = GenericFlagSet(flags)
    return int(flags) or _DEFAULT_FLAGS


def initiator_step(
    context: SecurityContext,
    name: Name | None,
    creds: Creds | None,
    mech: OID | None,
    flags: Flags,
    lifetime: int | None,
    channel_bindings: ChannelBindings | None,
    token: bytes | None,
) -> bytes | None:
    """Return the next token of an initiator. Raises GSSErrors."""
    try:
        if context._context is None:
            _begin(context, name, creds, mech, number_of(flags), lifetime, channel_bindings)
            return context_of(context).step(token or None)
        # None, too, is an answer here: of a peer that did not prove itself.
        return context._context.step(token or b"")
    except KerberosError as error:
        raise _status.gss_error(error) from error


def _begin(
    context: SecurityContext,
    name: Name | None,
    creds: Creds | None,
    mech: OID | None,
    flags: int,
    lifetime: int | None,
    channel_bindings: ChannelBindings | None,
) -> None:
    check_mech(mech)
    if not isinstance(name, Name):
        raise TypeError(f"the target is a Name, not {type(name).__name__}")
    current = _stores.current()
    creds = raw_creds.filled(creds, "initiate")
    credential = raw_creds.credential_of(creds)
    client, ticket = _ticket_for(principal_in(current, name), creds, credential, lifetime)
    known = flags & _KNOWN
    if not creds._no_ci_flags:
        known |= _CONF_INTEG
    forwarded = None
    if flags & (_DELEGATE | _OK_AS_DELEGATE):
        forwarded = _forwarded(client, credential, ticket, always=bool(flags & _DELEGATE))
        if forwarded is not None:
            # A TGT goes only to a service that proves itself.
            known |= int(Flag.DELEG | Flag.MUTUAL)
    context._context = Initiator(
        ticket,
        flags=_flag(known),
        mechanism="negotiate" if mech == SPNEGO else "kerberos",
        channel_bindings=None if channel_bindings is None else channel_bindings._to_purekrb(),
        forwarded_tgt=forwarded,
        delegate="always" if forwarded is not None else False,
        permitted_etypes=creds._etypes or current.permitted_etypes,
        no_integrity=creds._no_ci_flags,
    )
    context._is_initiator, context._ticket, context._limit = True, ticket, lifetime
    context._target = name
    context._pending_flags = known


_flag = lru_cache(maxsize=64)(Flag)  # making one is slow: see constants.py
_NO_FLAGS = Flag(0)
#: MIT's library has no limit, and a program could not raise one.
_MAX_TOKEN = 1 << 20


def _ticket_for(
    target: Principal, creds: Creds, credential: Credential, lifetime: int | None
) -> tuple[KdcClient, ServiceTicket]:
    """Return the ticket for a service, and the client that gets more."""
    client = _stores.client()
    if creds._etypes is not None:
        # A stored ticket may have a session key of another type: only the TGTs are kept.
        tgts = [ticket for ticket in credential.ccache if ticket.is_tgt]
        client = KdcClient(replace(client.config, default_tgs_enctypes=creds._etypes))
        credential = Credential.from_ccache(CCache(credential.ccache.principal, tgts))
        return client, client.get_ticket(credential, target)
    ccache = credential.ccache
    service = target
    if not target.realm:
        service = Principal(target.components, ccache.principal.realm, target.name_type)
    found = creds._found
    # The last one again: a file that has changed gives another ccache.
    if found is not None and found[:2] == (ccache, service) and time() < found[3]:
        return client, found[2]
    ticket = ccache.find(service, margin=_MARGIN)
    if ticket is None:
        ticket = client.get_ticket(credential, target, lifetime=lifetime)
        raw_creds.keep_tickets(creds)
    else:
        end = (ticket.endtime - ticket.time_offset).timestamp() - _MARGIN
        creds._found = ccache, service, ticket, end
    return client, ticket


def _forwarded(
    client: KdcClient, credential: Credential, ticket: ServiceTicket, *, always: bool
) -> ServiceTicket | None:
    """Return the TGT to hand over, or None. A context without delegation is better than none."""
    from purekrb.constants import TicketFlags

    if not always and not ticket.flags & TicketFlags.OK_AS_DELEGATE:
        log.warning("no delegation: the KDC did not mark %s OK-AS-DELEGATE", ticket.service)
        return None
    try:
        return client.forward_tgt(credential)
    except (CredentialError, KerberosError) as error:
        log.warning("no delegation to %s: %s", ticket.service, error)
        return None


def acceptor_step(
    context: SecurityContext,
    creds: Creds | None,
    channel_bindings: ChannelBindings | None,
    token: bytes,
) -> bytes | None:
    """Return the next token of an acceptor. Raises GSSErrors."""
    try:
        if context._context is None:
            creds = raw_creds.filled(creds, "accept")
            context._context = Acceptor(
                raw_creds.keys_of(creds),
                channel_bindings=(
                    None if channel_bindings is None else channel_bindings._to_purekrb()
                ),
                replay_cache=raw_creds.replay_cache_of(creds),
                require=_NO_FLAGS,
                max_token=_MAX_TOKEN,
                permitted_etypes=creds._etypes or _stores.current().permitted_etypes,
                # As in MIT's library, a credential for both uses acts for the client.
                tgt=raw_creds.credential_of(creds) if creds._usage == "both" else None,
            )
        return context._context.step(token)
    except KerberosError as error:
        raise _status.gss_error(error) from error


def init_sec_context(
    name: Name,
    creds: Creds | None = None,
    context: SecurityContext | None = None,
    mech: OID | None = None,
    flags: Flags = None,
    lifetime: int | None = None,
    channel_bindings: ChannelBindings | None = None,
    input_token: bytes | None = None,
) -> InitSecContextResult:
    """Take one step of an initiator; pass the context of the first step to the others.

    `flags` are by default mutual_authentication and out_of_sequence_detection. Messages can always
    be signed and sealed.
    """
    context = SecurityContext() if context is None else context
    token = initiator_step(
        context, name, creds, mech, flags, lifetime, channel_bindings, input_token
    )
    return InitSecContextResult(
        context,
        MechType.kerberos,
        flags_of(context),
        token,
        seconds_left(context),
        not context_of(context).established,
    )


def accept_sec_context(
    input_token: bytes,
    acceptor_creds: Creds | None = None,
    context: SecurityContext | None = None,
    channel_bindings: ChannelBindings | None = None,
) -> AcceptSecContextResult:
    """Take one step of an acceptor; pass the context of the first step to the others."""
    context = SecurityContext() if context is None else context
    token = acceptor_step(context, acceptor_creds, channel_bindings, input_token)
    complete = context_of(context).established
    return AcceptSecContextResult(
        context,
        initiator_of(context) if complete else None,
        MechType.kerberos,
        token,
        flags_of(context),
        seconds_left(context) if complete else 0,
        delegated_of(context) if complete else None,
        not complete,
    )


def delegated_of(context: SecurityContext) -> Creds | None:
    """Return the credential that the initiator has delegated, or None."""
    acceptor = context._context
    if context._delegated is None and isinstance(acceptor, Acceptor) and acceptor.established:
        credential = acceptor.delegated_credential
        if credential is not None:
            context._delegated = raw_creds.from_credential(credential)
    return context._delegated


def flags_of(context: SecurityContext) -> IntEnumFlagSet:
    """Return the flags of a context: those in force, or before that, those asked for."""
    inner = context_of(context)
    value = context._pending_flags
    if inner.established:
        value = int(inner.flags) | _PROTECTION_READY
        if isinstance(inner, Acceptor) and inner.channel_bound:
            value |= _CHANNEL_BOUND
    return IntEnumFlagSet(RequirementFlag, value | _TRANSFERABLE)


def seconds_left(context: SecurityContext) -> int:
    """Return for how many seconds a context can be used: 0 if it has expired."""
    inner = context_of(context)
    end = inner.endtime if inner.established else None
    if context._ticket is not None:
        end = context._ticket.endtime - context._ticket.time_offset
    if end is None:
        return 0
    left = max(0, int((end - now()).total_seconds()))
    return left if context._limit is None else min(left, context._limit)


def initiator_of(context: SecurityContext) -> Name:
    """Return the name of the initiator."""
    inner = context_of(context)
    ticket = context._ticket
    return mech_name(inner.initiator if ticket is None else ticket.client)


def target_of(context: SecurityContext) -> Name:
    """Return the name of the acceptor; for an initiator, the one it asked for."""
    asked = context._target
    if asked is None:
        return mech_name(context_of(context).acceptor)
    return asked if asked._principal is not None else mech_name(principal_of(asked))


@_status.as_gss_errors
def inquire_context(
    context: SecurityContext,
    initiator_name: bool = True,
    target_name: bool = True,
    lifetime: bool = True,
    mech: bool = True,
    flags: bool = True,
    locally_init: bool = True,
    complete: bool = True,
) -> InquireContextResult:
    """Return what was asked for; None for all else. Names are there once both sides are known."""
    inner = context_of(context)
    named = inner.established or context._ticket is not None
    return InquireContextResult(
        initiator_of(context) if initiator_name and named else None,
        target_of(context) if target_name and named else None,
        seconds_left(context) if lifetime else None,
        MechType.kerberos if mech else None,
        flags_of(context) if flags else None,
        context._is_initiator if locally_init else None,
        inner.established if complete else None,
    )


def context_time(context: SecurityContext) -> int:
    """Return the remaining seconds. Raises ExpiredContextError if there are none."""
    left = seconds_left(context)
    if not left:
        raise _status.status(codes.CONTEXT_EXPIRED, 0, "the ticket of the context has expired")
    return left


def process_context_token(context: SecurityContext, token: bytes) -> None:
    """Raise OperationUnavailableError: such tokens are obsolete (RFC 2743 2.2.4)."""
    raise _status.unavailable("process_context_token", "Kerberos has no such tokens any more")


@forget_frames
@_status.as_gss_errors
def export_sec_context(context: SecurityContext) -> bytes:
    """End a context, and return it as a token for `import_sec_context`, on the same machine.

    The token holds the keys of the context, as MIT's does: who reads it can read the messages.
    """
    target = export_name(target_of(context))
    key = random_bytes(_KEY_SIZE)
    state = context_of(context).export_context(key)
    role = b"I" if context._is_initiator else b"A"
    return b"".join((_EXPORTED, role, key, len(target).to_bytes(4, "big"), target, state))


@forget_frames
@_status.as_gss_errors
def import_sec_context(token: bytes) -> SecurityContext:
    """Return the context in a token. Import each only once. Raises InvalidTokenError."""
    begins = len(_EXPORTED) + 1 + _KEY_SIZE
    size = int.from_bytes(token[begins : begins + 4], "big")
    end = begins + 4 + size
    role = token[len(_EXPORTED) : len(_EXPORTED) + 1]
    if not token.startswith(_EXPORTED) or len(token) <= end or role not in (b"I", b"A"):
        raise _status.status(
            codes.DEFECTIVE_TOKEN, 0, "this is not a context that this version has exported"
        )
    key, state = token[begins - _KEY_SIZE : begins], token[end:]
    context = SecurityContext()
    context._is_initiator = role == b"I"
    context._context = (Initiator if role == b"I" else Acceptor).import_context(state, key)
    context._target = import_name(token[begins + 4 : end], NameType.export)
    return context


def delete_sec_context(context: SecurityContext, local_only: bool = True) -> bytes:
    """End a context and wipe its keys; return the token for the peer, which is empty."""
    if context._context is not None:
        context._context.close()
    context._context = None
    return b""
