"""Credentials: a credential cache, a client keytab or a password to initiate, a keytab to accept.

Nothing is held open: each use of a credential reads the cache or keytab again, if it has changed.
Source: RFC 2743 2.1; MIT's documentation of the keys of credential stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NoReturn

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status, _stores
from purekrb.compat.gssapi.raw.misc import MECHANISMS, GSSError, check_mech
from purekrb.compat.gssapi.raw.named_tuples import (
    AcquireCredResult,
    AddCredResult,
    InquireCredByMechResult,
    InquireCredResult,
)
from purekrb.compat.gssapi.raw.names import Name, mech_name, principal_of
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import NameType
from purekrb.constants import NameType as PrincipalType
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CredentialError, DecodeError, KerberosError
from purekrb.kdc.client import DEFAULT_LIFETIME
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.replay import ReplayCache
from purekrb.replay.default import default_replay_cache, named_replay_cache
from purekrb.system import now
from purekrb.tracebacks import forget_frames

__all__ = [
    "Creds",
    "acquire_cred",
    "release_cred",
    "add_cred",
    "inquire_cred",
    "inquire_cred_by_mech",
]

log = Log("purekrb.compat")

USAGES = ("initiate", "accept", "both")
_STORE_KEYS = ("ccache", "client_keytab", "keytab", "password", "rcache")


class Creds:
    """What proves who one is: as initiator, as acceptor, or both. `Creds()` holds nothing yet."""

    #: "" if it holds nothing.
    _usage: str = ""
    #: The principal; None stands for any one in the keytab.
    _principal: Principal | None = None
    #: To initiate: the name of a credential cache, or a credential of this process.
    _ccache_name: str | None = None
    _credential: Credential | None = None
    #: To accept: a keytab's name, and the name whose keys count.
    _keytab_name: str | None = None
    _accepts: Name | None = None
    _rcache_name: str | None = None
    _rcache: ReplayCache | None = None
    #: Which encryption types contexts may use; None: those of the configuration.
    _etypes: tuple[int, ...] | None = None
    #: Whether contexts are to offer only those of INTEG and CONF that were asked for.
    _no_ci_flags: bool = False
    _mechs: tuple[OID, ...] = MECHANISMS
    #: The ccache, the service, the ticket that was found last, and until when it is used.
    _found: tuple[CCache, Principal, ServiceTicket, float] | None = None
    _kept_keys: tuple[Keytab, tuple[KeytabEntry, ...]] | None = None

    def __new__(cls, cpy: Creds | None = None) -> Creds:
        creds = super().__new__(cls)
        if cpy is not None:
            creds.__dict__.update(cpy.__dict__)
        return creds

    def _copied(self) -> Creds:
        return Creds(self)


def credential_of(creds: Creds) -> Credential:
    """Return the credential to initiate with. Raises GSSError and CredentialError."""
    if creds._credential is not None:
        return creds._credential
    if creds._ccache_name is None:
        _missing(codes.CC_NOTFOUND, "the credential is one to accept with, not to initiate")
    return _stores.credential_in(creds._ccache_name)


def keys_of(creds: Creds) -> tuple[KeytabEntry, ...] | Keytab:
    """Return the keys to accept with. Raises GSSError and CredentialError."""
    if creds._keytab_name is None:
        _missing(codes.KT_NOTFOUND, "the credential is one to initiate with, not to accept")
    keytab = _stores.keytab_in(creds._keytab_name)
    if creds._accepts is None:
        return keytab
    if creds._kept_keys is None or creds._kept_keys[0] is not keytab:
        creds._kept_keys = keytab, _matching(keytab, creds._accepts)
    return creds._kept_keys[1]


def replay_cache_of(creds: Creds) -> ReplayCache:
    """Return the replay cache that the store named as `rcache`, or the default one.

    It is chosen once for each credential.
    """
    if creds._rcache is None:
        name = creds._rcache_name
        creds._rcache = (
            named_replay_cache(name, f"rcache={name!r}") if name else default_replay_cache()
        )
    return creds._rcache


def _matching(keytab: Keytab, name: Name) -> tuple[KeytabEntry, ...]:
    """Return the entries of `name`. A host-based name without a host stands for every host."""
    wanted = principal_of(name)
    any_host = name._type == NameType.hostbased_service and b"@" not in name._text
    entries = tuple(
        entry
        for entry in keytab
        if (
            entry.principal.components == wanted.components
            or (any_host and entry.principal.components[:1] == wanted.components[:1])
        )
        and wanted.realm in ("", entry.principal.realm)
    )
    if not entries:
        _missing(
            codes.KEYTAB_NOMATCH,
            f"No key table entry found matching {wanted}: the keytab has {keytab.summary()}",
        )
    return entries


def _missing(minor: int, reason: str) -> NoReturn:
    raise _status.status(codes.NO_CRED, minor, reason)


@forget_frames
@_status.as_gss_errors
def acquire(
    store: Mapping[str, str],
    name: Name | None,
    mechs: Iterable[OID] | None,
    usage: str,
) -> Creds:
    """Return the credential of `name` (None: any) in `store`; its other keys are the defaults.

    Raises OperationUnavailableError for a key of the store that purekrb does not know.
    """
    if usage not in USAGES:
        raise ValueError(
            f'Invalid usage "{usage}" - permitted values are "initiate", "accept", and "both"'
        )
    unknown = sorted(set(store) - set(_STORE_KEYS))
    if unknown:
        raise _status.unavailable(
            "acquire_cred_from", f"the store has the unknown key {unknown[0]!r}"
        )
    creds = Creds()
    creds._usage = usage
    if mechs is not None:
        creds._mechs = tuple(mechs)
        for mech in creds._mechs:
            check_mech(mech)
    if usage != "initiate":
        _acquire_keytab(creds, store, name)
    if usage != "accept":
        _acquire_tickets(creds, store, None if name is None else principal_of(name))
    return creds


def _acquire_keytab(creds: Creds, store: Mapping[str, str], name: Name | None) -> None:
    creds._keytab_name = store.get("keytab") or _stores.default_keytab_name()
    creds._rcache_name = store.get("rcache")
    creds._accepts = None if name is None else Name(name)
    if name is not None:
        creds._principal = principal_of(name)
    try:
        keys = keys_of(creds)
    except CredentialError as error:
        keytab_name = creds._keytab_name
        raise _status.status(
            codes.NO_CRED,
            codes.KT_NOTFOUND,
            f"Keytab {keytab_name} is nonexistent or empty: {error}",
        ) from error
    if not keys:
        _missing(codes.KT_NOTFOUND, f"Keytab {creds._keytab_name} is nonexistent or empty")


def _acquire_tickets(creds: Creds, store: Mapping[str, str], name: Principal | None) -> None:
    password = store.get("password")
    if password is not None:
        if name is None:
            _missing(codes.CC_NOTFOUND, "a password needs the name of its client")
        creds._credential, creds._principal = Credential.from_password(name, password), name
        return
    cache_name = store.get("ccache") or _stores.default_ccache_name()
    keytab_name = store.get("client_keytab") or _stores.default_client_keytab_name()
    failure: CredentialError | DecodeError | None = None
    try:
        found = _ccache_of(cache_name, name)
    except (CredentialError, DecodeError) as error:
        found, failure = None, error
    if found is None or not _lifetime_of(_stores.credential_in(found)):
        from_keytab = _from_client_keytab(keytab_name, name)
        if from_keytab is not None:
            creds._credential, creds._principal = from_keytab, from_keytab.principal
            return
    if found is None and failure is None:
        raise GSSError(
            codes.NO_CRED,
            codes.CC_NOTFOUND,
            reason=f"Can't find client principal {name} in cache collection: {cache_name}",
        )
    if found is None:
        minor = codes.FCC_NOFILE if store.get("ccache") else codes.CC_NOTFOUND
        _missing(minor, f"(default cache: {cache_name}): {failure}")
    creds._ccache_name, creds._principal = found, _stores.credential_in(found).principal


def _ccache_of(cache_name: str, name: Principal | None) -> str | None:
    """Return the name of the credential cache of `name` (None: any); in a collection, of a member."""
    principal = _stores.credential_in(cache_name).principal
    if name in (None, principal) or _same_but_realm(name, principal):
        return cache_name
    for ccache in CCache.list(cache_name):
        if ccache.name and (name == ccache.principal or _same_but_realm(name, ccache.principal)):
            return ccache.name
    return None


def _same_but_realm(name: Principal | None, principal: Principal) -> bool:
    """Return whether `name`, whose realm is not known, has the components of `principal`."""
    return name is not None and not name.realm and name.components == principal.components


_MAX_KEPT = 64
#: (keytab's name, client) -> its credential with its tickets, which would otherwise be asked for
#: again for each context.
_of_keytabs: dict[tuple[str, Principal | None], tuple[Keytab, Credential]] = {}


def _from_client_keytab(keytab_name: str | None, name: Principal | None) -> Credential | None:
    """Return the credential of `name` (None: of the first entry); None if there is no key of it."""
    if keytab_name is None:
        return None
    try:
        keytab = _stores.keytab_in(keytab_name)
    except CredentialError as error:
        log.debug("no client keytab: %s", error)
        return None
    kept = _of_keytabs.get((keytab_name, name))
    if kept is not None and kept[0] is keytab:
        return kept[1]
    for entry in keytab:
        if name in (None, entry.principal) or _same_but_realm(name, entry.principal):
            credential = Credential.from_keytab(entry.principal, keytab)
            if len(_of_keytabs) >= _MAX_KEPT:
                _of_keytabs.clear()
            _of_keytabs[keytab_name, name] = keytab, credential
            return credential
    return None


def from_credential(credential: Credential) -> Creds:
    """Return the credential to initiate with that a context or another call has made."""
    creds = Creds()
    creds._usage, creds._credential = "initiate", credential
    creds._principal = credential.principal
    return creds


def acquired(creds: Creds) -> AcquireCredResult:
    """Return the result for a new credential."""
    return AcquireCredResult(creds, set(creds._mechs), lifetime_of(creds))


def lifetime_of(creds: Creds) -> int | None:
    """Return for how many seconds one may initiate with it; None if it only accepts."""
    if creds._usage == "accept":
        return None
    return _lifetime_of(credential_of(creds))


def _lifetime_of(credential: Credential) -> int:
    realm = credential.ccache.principal.realm
    tgt = Principal(("krbtgt", realm), realm, PrincipalType.SRV_INST)
    tickets = list(credential.ccache)
    if not tickets and credential.can_get_tgt:  # its tickets are still to come
        return int(_stores.config().ticket_lifetime or DEFAULT_LIFETIME)
    # As in MIT's library, the TGT tells the lifetime, or else the service tickets that are there.
    counting = [ticket for ticket in tickets if ticket.service == tgt] or tickets
    moment = now()
    left = [ticket.endtime - ticket.time_offset - moment for ticket in counting]
    return max(0, *(int(time.total_seconds()) for time in left), 0)


def acquire_cred(
    name: Name | None = None,
    lifetime: int | None = None,
    mechs: Iterable[OID] | None = None,
    usage: str = "both",
) -> AcquireCredResult:
    """Return the credential of `name` in the default stores. `lifetime` has no effect, as in MIT's."""
    return acquired(acquire({}, name, mechs, usage))


def release_cred(creds: Creds) -> None:
    """Do nothing: Python frees credentials."""


def add_cred(
    input_cred: Creds,
    name: Name,
    mech: OID,
    usage: str = "initiate",
    init_lifetime: int | None = None,
    accept_lifetime: int | None = None,
    mutate_input: bool = False,
) -> AddCredResult:
    """Return `input_cred` with the credential of `name` in the default stores added."""
    return added(input_cred, acquire({}, name, [mech], usage), mutate=mutate_input)


def added(input_cred: Creds | None, new: Creds, *, mutate: bool = False) -> AddCredResult:
    """Return the result for `new` added to `input_cred`.

    Raises DuplicateCredentialsElementError if that has a credential for Kerberos already.
    """
    if input_cred is not None and input_cred._usage:
        raise _status.status(
            codes.DUPLICATE_ELEMENT, 0, "the credential has an element for Kerberos already"
        )
    if mutate and input_cred is not None:
        input_cred.__dict__.update(new.__dict__)
    seconds = lifetime_of(new)
    return AddCredResult(
        None if mutate else new,
        set(new._mechs),
        0 if new._usage == "accept" else seconds,
        0 if new._usage == "initiate" else seconds,
    )


@_status.as_gss_errors
def inquire_cred(
    creds: Creds, name: bool = True, lifetime: bool = True, usage: bool = True, mechs: bool = True
) -> InquireCredResult:
    """Return what was asked for. Raises ExpiredCredentialsError if its lifetime has ended."""
    return InquireCredResult(
        _name_of(creds) if name else None,
        _remaining(creds) if lifetime else None,
        creds._usage or "both" if usage else None,
        set(creds._mechs) if mechs else None,
    )


@_status.as_gss_errors
def inquire_cred_by_mech(
    creds: Creds,
    mech: OID,
    name: bool = True,
    init_lifetime: bool = True,
    accept_lifetime: bool = True,
    usage: bool = True,
) -> InquireCredByMechResult:
    """Return what was asked for."""
    check_mech(mech)
    seconds = _remaining(creds) if init_lifetime or accept_lifetime else None
    return InquireCredByMechResult(
        _name_of(creds) if name else None,
        (0 if creds._usage == "accept" else seconds) if init_lifetime else None,
        (0 if creds._usage == "initiate" else seconds) if accept_lifetime else None,
        creds._usage or "both" if usage else None,
    )


def filled(creds: Creds | None, usage: str) -> Creds:
    """Return `creds`, or the default credential if it is None or holds nothing."""
    return creds if creds is not None and creds._usage else acquire({}, None, None, usage)


def _name_of(creds: Creds) -> Name | None:
    creds = filled(creds, "initiate")
    if creds._usage != "accept":
        return mech_name(credential_of(creds).ccache.principal)
    if creds._accepts is None:  # as in MIT's library, the first name of the keytab stands for all
        return next((mech_name(entry.principal) for entry in keys_of(creds)), None)
    return creds._accepts


def _remaining(creds: Creds) -> int | None:
    seconds = lifetime_of(filled(creds, "initiate"))
    if seconds == 0:
        raise _status.status(codes.CREDENTIALS_EXPIRED, 0, "the tickets have expired: get new ones")
    return seconds


def keep_tickets(creds: Creds) -> None:
    """Write the new tickets of `creds` to its credential cache, if that is possible."""
    if creds._ccache_name is None:
        return
    try:
        _stores.keep(creds._ccache_name, credential_of(creds))
    except KerberosError as error:
        log.debug("%s keeps no new ticket: %s", creds._ccache_name, error)
