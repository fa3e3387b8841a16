"""Installing a service in the directory, and uninstalling it: each as one transaction.

The order follows Microsoft's sample: the SCP, the rights on it, the SPNs (which contain its DN),
and then the state file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast
from uuid import UUID

from purekrb.credentials import files
from purekrb.directory import scps, spns
from purekrb.directory.account_state import give_aes, read_state
from purekrb.directory.accounts import (
    Account,
    account_by_guid,
    find_account,
    find_computer,
)
from purekrb.directory.ldap import OBJECT_NOT_FOUND, LdapSession
from purekrb.directory.scp import ServiceConnectionPoint
from purekrb.directory.service_checks import Checks, warnings_of
from purekrb.directory.state import ServiceState, StateAccount
from purekrb.directory.transaction import Undo, transaction
from purekrb.dn import domain_of
from purekrb.errors import DirectoryError
from purekrb.findings import Finding
from purekrb.log import Log

__all__ = ["InstalledService", "install", "uninstall"]

_log = Log("purekrb.directory")

#: The prefix by which Windows marks an account that is local to this machine.
_LOCAL = ".\\"


@dataclass(frozen=True, slots=True)
class InstalledService:
    """The result of an installation: the SCP, the account and its SPNs.

    For a local account, `account` is None and there are no SPNs. `findings` are those of the checks
    that `Directory.verify_service` makes, too, and what was set to mend them.
    """

    scp: ServiceConnectionPoint
    account: Account | None
    spns: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings that are not "ok", each with its remedy."""
        return warnings_of(self.findings)


def install(
    session: LdapSession,
    forest: LdapSession,
    scp: ServiceConnectionPoint,
    state_file: files.FilePath,
    *,
    account: str = "",
    host: str = "",
    parent: str = "",
    hosts: Sequence[str] = (),
    fix: bool = False,
    checks: Checks,
) -> InstalledService:
    """Install the service of `scp`; see `Directory.install_service`."""
    before = ServiceState.load(state_file) if files.exists(state_file) else None
    owner = None
    if account.startswith(_LOCAL):
        _log.warning(
            "%s is local to this machine: no SPN is registered for it, "
            "so clients cannot authenticate the service",
            account,
        )
    else:
        owner = find_account(session, account or find_computer(session, host or scp.dns_name).dn)
        if scp.dns_name_type == "SRV" and not hosts:
            raise DirectoryError(
                f"the hosts of {scp.dns_name} are only known to the DNS: "
                "name them, so that their SPNs can be registered"
            )
    with transaction() as undo:
        published, containers = _publish(session, scp, before, undo, host, parent)
        former = before.account.sid if before and before.account else None
        scps.allow_updates(
            session, published.dn, owner.sid if owner else None, undo, instead_of=former
        )
        names = [spn for one in hosts or [""] for spn in published.spns(one)] if owner else []
        mended = give_aes(session, read_state(session, owner), undo) if owner and fix else None
        _register(session, forest, owner, names, before, undo)
        state_account = None
        if owner:
            state_account = StateAccount(owner.dn, owner.name, owner.object_guid, owner.sid)
        state = ServiceState(
            object_guid=cast(UUID, published.object_guid),
            scp_dn=published.dn,
            domain=domain_of(published.dn),
            spns=tuple(names),
            account=state_account,
            containers=(*containers, *(before.containers if before else ())),
        )
        state.save(state_file)
    findings = [mended] if mended else []
    if owner:
        findings += checks.findings(read_state(session, owner), state.spns)
    for warning in warnings_of(findings):
        _log.warning("%s", warning)
    return InstalledService(published, owner, state.spns, tuple(findings))


def uninstall(session: LdapSession, forest: LdapSession, state_file: files.FilePath) -> None:
    """Undo the installation that `state_file` describes; see `Directory.uninstall_service`."""
    state = ServiceState.load(state_file)
    with transaction() as undo:
        ServiceState.remove(state_file)
        undo.add(
            f"restoring the state file {os.fspath(state_file)}", lambda: state.save(state_file)
        )
        account = account_by_guid(session, state.account.object_guid) if state.account else None
        if account:
            _change_spns(session, forest, account, state.spns, (), undo)
        # This comes last: a deleted object cannot be restored with its objectGUID.
        scps.remove(session, state.object_guid, state.scp_dn)
    try:
        scps.remove_containers(session, state.containers)
    except DirectoryError as error:
        _log.warning("the service is uninstalled, but an empty container remains: %s", error)


def _publish(
    session: LdapSession,
    scp: ServiceConnectionPoint,
    before: ServiceState | None,
    undo: Undo,
    host: str,
    parent: str,
) -> tuple[ServiceConnectionPoint, list[str]]:
    """Bring the SCP of an earlier installation up to date, or publish a new one.

    Returns the SCP and the DNs of new containers.
    """
    if before:
        try:
            known = scps.read(session, before.object_guid, before.scp_dn)
        except DirectoryError as error:
            if error.code != OBJECT_NOT_FOUND:
                raise
        else:
            scps.update(session, replace(scp, dn=known.dn, object_guid=known.object_guid), undo)
            return replace(scp, name=known.name, dn=known.dn, object_guid=known.object_guid), []
    return scps.publish(session, scp, undo, host=host, parent=parent)


def _register(
    session: LdapSession,
    forest: LdapSession,
    owner: Account | None,
    names: Sequence[str],
    before: ServiceState | None,
    undo: Undo,
) -> None:
    """Register `names` on `owner`, and delete the other SPNs of an earlier installation."""
    former = (
        account_by_guid(session, before.account.object_guid) if before and before.account else None
    )
    stale = [spn for spn in before.spns if spn not in names] if before else []
    if former and before and (owner is None or owner.object_guid != former.object_guid):
        _change_spns(session, forest, former, before.spns, (), undo)
        stale = []
    if owner:
        _change_spns(session, forest, owner, stale, names, undo)


def _change_spns(
    session: LdapSession,
    forest: LdapSession,
    account: Account,
    delete: Sequence[str],
    add: Sequence[str],
    undo: Undo,
) -> None:
    """Delete and add names of `account`.

    Names to delete that it lacks, and names to add that it has, are skipped and not undone.
    """
    held = {spn.casefold(): spn for spn in account.spns}
    leaving = [held[spn.casefold()] for spn in delete if spn.casefold() in held]
    coming = [spn for spn in add if spn.casefold() not in held]
    change = partial(spns.change, session, forest, account.dn, warn_of_rc4=False)
    if leaving or coming:
        undo.write(
            lambda: change(delete=leaving, add=coming),
            f"restoring the SPNs of {account.dn}",
            lambda: change(delete=coming, add=leaving),
        )
