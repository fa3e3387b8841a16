"""The check that a service may start: its registration in the directory against its state file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from purekrb.credentials.keytab import Keytab
from purekrb.directory import scps, spns
from purekrb.directory.accounts import (
    ETYPES,
    KVNO,
    Account,
    account_by_guid,
    find_account,
    number_of,
    rc4_warning,
)
from purekrb.directory.ldap import ANY_OBJECT, OBJECT_NOT_FOUND, LdapSession, Scope, single
from purekrb.directory.scp import ServiceConnectionPoint
from purekrb.directory.state import ServiceState
from purekrb.errors import DirectoryError, RegistrationError, TransportError
from purekrb.exchanges.service_keys import same_kvno
from purekrb.keys import etype_name
from purekrb.log import Log
from purekrb.spn import ServicePrincipalName

__all__ = ["VerifiedService", "unreachable", "verify"]

_log = Log("purekrb.directory")

#: ERROR_DS_BUSY, ERROR_DS_UNAVAILABLE: the domain controller answers, but not the question.
_NO_ANSWER = (8206, 8207)
#: The bits of msDS-SupportedEncryptionTypes. Source: MS-KILE 2.2.7.
_ETYPE_BITS = {0x4: 23, 0x8: 17, 0x10: 18}


@dataclass(frozen=True, slots=True)
class VerifiedService:
    """A service that may start: its current SCP and account, and warnings about its keys."""

    scp: ServiceConnectionPoint
    account: Account
    warnings: tuple[str, ...]


def verify(
    session: LdapSession,
    forest: LdapSession,
    state: ServiceState,
    *,
    account: str = "",
    keytab: Keytab | None = None,
) -> VerifiedService:
    """Return the service that `state` describes; see `Directory.verify_service`."""
    try:
        installed = _registered_account(session, state, account)
        for spn in state.spns:
            _check_owner(session, forest, spn, installed)
        scp = _published_scp(session, state)
    except TransportError as error:
        raise unreachable(error) from error
    except RegistrationError:
        raise
    except DirectoryError as error:
        if error.code in _NO_ANSWER:
            raise unreachable(error) from error
        raise
    _check_names(state, scp, installed)
    rc4 = rc4_warning(session, installed)
    warnings: tuple[str, ...] = () if rc4 is None else (rc4,)
    if keytab is not None:
        warnings += tuple(_doubts_about_keys(session, installed, keytab))
    for warning in warnings:
        _log.warning("%s", warning)
    _log.debug("verified: %s of %s, %s", ", ".join(state.spns), installed.dn, scp.dn)
    return VerifiedService(scp, installed, warnings)


def _registered_account(session: LdapSession, state: ServiceState, runs_as: str) -> Account:
    """Return the current account of `state`, after checking that the service runs under it."""
    if not state.account or not state.spns:
        raise RegistrationError(
            "the service was installed for an account that is local to this machine, "
            "so clients cannot authenticate it: install it again for an account of the domain",
            reason="NOT_REGISTERED",
        )
    account = account_by_guid(session, state.account.object_guid)
    if account is None:
        raise _not_registered(f"the account {state.account.dn} is gone")
    if runs_as:
        actual = find_account(session, runs_as)
        if actual.object_guid != account.object_guid:
            raise _wrong_account(
                f"the service runs as {actual.dn}, but was installed for {account.dn}"
            )
    return account


def _check_owner(session: LdapSession, forest: LdapSession, spn: str, account: Account) -> None:
    """Raise RegistrationError unless `account`, and no other account, has `spn`."""
    # A catalog lags behind. The domain itself knows its accounts best.
    owners = {
        owner.object_guid: owner for owner in (*spns.find(forest, spn), *spns.find(session, spn))
    }
    names = ", ".join(owner.dn for owner in owners.values())
    if len(owners) > 1:
        raise RegistrationError(
            f"the SPN {spn} belongs to several accounts, so the KDC cannot tell whose key to use: "
            f"{names}; have an administrator delete it from all but one",
            reason="DUPLICATE",
        )
    if not owners:
        raise _not_registered(f"no account has the SPN {spn}, expected on {account.dn}")
    if account.object_guid not in owners:
        raise _wrong_account(
            f"the SPN {spn} belongs to {names}, but the service runs as {account.dn}"
        )


def _published_scp(session: LdapSession, state: ServiceState) -> ServiceConnectionPoint:
    try:
        return scps.read(session, state.object_guid, state.scp_dn)
    except DirectoryError as error:
        if error.code != OBJECT_NOT_FOUND:
            raise
        raise _not_registered(f"the SCP {state.scp_dn} is gone") from error


def _check_names(state: ServiceState, scp: ServiceConnectionPoint, account: Account) -> None:
    """Raise RegistrationError if clients compose an SPN that is not registered."""
    for spn in state.spns:
        service_name = ServicePrincipalName.parse(spn).service_name or ""
        if "=" in service_name and service_name.casefold() != scp.dn.casefold():
            raise RegistrationError(
                f"the SCP is now {scp.dn}, from which clients compose the SPN, "
                f"but the registered SPN is {spn}: "
                "have an administrator install the service again",
                reason="STALE_DN",
            )
    if scp.dns_name_type == "A":
        # A DN may not be registered, because it contains "/" or because the KDC does not find it.
        # Clients then use the objectGUID.
        composed = scp.spns()
        by_dn = any(
            "=" in (ServicePrincipalName.parse(spn).service_name or "") for spn in state.spns
        )
        expected = composed[0 if by_dn else -1]
        if expected.casefold() not in (spn.casefold() for spn in account.spns):
            raise _not_registered(
                f"clients compose the SPN {expected}, which {account.dn} does not have"
            )


def _doubts_about_keys(session: LdapSession, account: Account, keytab: Keytab) -> Iterator[str]:
    """Yield the reasons why `keytab` may not open the tickets that clients will present."""
    found = session.search(account.dn, ANY_OBJECT, (KVNO, ETYPES), scope=Scope.BASE)
    entry = single(found, f"account {account.dn!r}")
    kvno, bits = number_of(entry, KVNO), number_of(entry, ETYPES)
    if kvno is None:
        return
    advice = "export the keytab again"
    names = {name.casefold() for name in (account.name, *account.spns)}
    keys = [entry for entry in keytab if "/".join(entry.principal.components).casefold() in names]
    current = {entry.key.etype for entry in keys if same_kvno(kvno, entry.kvno)}
    if not current:
        held = ", ".join(map(str, sorted({entry.kvno for entry in keys}))) or "none"
        yield (
            f"the keytab has no key of version {kvno}, the current one, for {account.dn}; "
            f"it has {held}. Unless the key itself is the current one, it opens no ticket of a "
            f"client: {advice}"
        )
        return
    wanted = {etype for bit, etype in _ETYPE_BITS.items() if (bits or 0) & bit}
    if wanted and not wanted & current:
        yield (
            f"the keytab only has keys of {', '.join(map(etype_name, sorted(current)))}, "
            f"but tickets for {account.dn} are encrypted with keys of "
            f"{', '.join(map(etype_name, sorted(wanted)))}: {advice}"
        )


def _not_registered(what: str) -> RegistrationError:
    return RegistrationError(
        f"{what}: have an administrator install the service again", reason="NOT_REGISTERED"
    )


def _wrong_account(what: str) -> RegistrationError:
    return RegistrationError(
        f"{what}: run the service under the account that owns its SPNs, "
        "or have an administrator install it again for the account that it runs under",
        reason="WRONG_ACCOUNT",
    )


def unreachable(error: Exception) -> RegistrationError:
    """Return the verdict that the directory does not answer, because of `error`."""
    return RegistrationError(
        "the registration could not be verified, because the directory does not answer: "
        f"{error}; start the service again later",
        reason="DIRECTORY_UNREACHABLE",
    )
