"""The check that a service may start: its registration in the directory against its state file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from purekrb.directory import scps, spns
from purekrb.directory.account_state import read_state
from purekrb.directory.accounts import Account, account_by_guid, find_account
from purekrb.directory.ldap import OBJECT_NOT_FOUND, LdapSession
from purekrb.directory.scp import ServiceConnectionPoint
from purekrb.directory.service_checks import Checks, warnings_of
from purekrb.directory.state import ServiceState
from purekrb.errors import (
    AccountNotFoundError,
    DirectoryError,
    RegistrationError,
    TransportError,
)
from purekrb.findings import Finding
from purekrb.log import Log
from purekrb.spn import ServicePrincipalName

__all__ = ["VerifiedService", "unreachable", "verify"]

_log = Log("purekrb.directory")

#: ERROR_DS_BUSY, ERROR_DS_UNAVAILABLE: the domain controller answers, but not the question.
_NO_ANSWER = (8206, 8207)


@dataclass(frozen=True, slots=True)
class VerifiedService:
    """A service that may start: its current SCP and account, and what its checks have found.

    The findings are about the account, the encryption types, the tickets that clients get, and the
    keytab. A finding that is "skipped" could not be made.
    """

    scp: ServiceConnectionPoint
    account: Account
    findings: tuple[Finding, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings that are not "ok", each with its remedy."""
        return warnings_of(self.findings)


def verify(
    session: LdapSession,
    forest: LdapSession,
    state: ServiceState,
    *,
    account: str = "",
    checks: Checks,
) -> VerifiedService:
    """Return the service that `state` describes; see `Directory.verify_service`."""
    try:
        installed = _registered_account(session, state, account)
        for spn in state.spns:
            _check_owner(session, forest, spn, installed)
        scp = _published_scp(session, state)
        account_state = read_state(session, installed)
    except TransportError as error:
        raise unreachable(error) from error
    except RegistrationError:
        raise
    except DirectoryError as error:
        if error.code in _NO_ANSWER:
            raise unreachable(error) from error
        raise
    _check_names(state, scp, installed)
    findings = [*_renamed(state, installed), *checks.findings(account_state, state.spns)]
    for warning in warnings_of(findings):
        _log.warning("%s", warning)
    _log.debug("verified: %s of %s, %s", ", ".join(state.spns), installed.dn, scp.dn)
    return VerifiedService(scp, installed, tuple(findings))


def _renamed(state: ServiceState, account: Account) -> Iterator[Finding]:
    """Yield that the account has another name than when the service was installed."""
    former = state.account.name if state.account else account.name
    if former.casefold() != account.name.casefold():
        yield Finding(
            "account",
            "warning",
            f"{account.dn} was called {former} when the service was installed, and is called "
            f"{account.name} now: its keys and their salt stay until its password is set, but it "
            "only logs in by its new name",
            f"let the service log in as {account.name}, and install it again, which writes the new "
            "name to the state file",
        )


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
        try:
            actual = find_account(session, runs_as)
        except AccountNotFoundError as error:
            raise _wrong_account(
                f"the service runs as {runs_as}, which the directory does not know, but was "
                f"installed for {account.dn} (now {account.name})"
            ) from error
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
