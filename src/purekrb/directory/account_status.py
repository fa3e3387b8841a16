"""The state of a service's account: what the directory tells, what the KDC does, and its keytab."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from purekrb.credentials.keytab import Keytab
from purekrb.directory.account_keys import AccountNames
from purekrb.directory.account_state import AccountState, read_state
from purekrb.directory.accounts import Account, find_account
from purekrb.directory.ldap import LdapSession
from purekrb.directory.rotation import names_of_account
from purekrb.directory.service_checks import Checks, warnings_of
from purekrb.exchanges.service_keys import same_kvno
from purekrb.findings import Finding
from purekrb.text import first_of

__all__ = ["AccountStatus", "account_status"]

_DISABLED, _LOCKED = 0x2, 0x10
#: The most names in a finding.
_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """An account as it is now; None where the directory does not tell.

    `etypes` is msDS-SupportedEncryptionTypes, and `salt` what the KDC names for the account's keys.
    Times are aware UTC datetimes: when the password was set, when it ends, and when the account
    does (None: never, or not told). `keytab` are the kvnos of the account's own keys in the keytab
    that was looked at. `findings` tell what is right and what is wrong, with the remedy.
    """

    account: Account
    enabled: bool | None
    locked: bool
    kvno: int | None
    etypes: int | None
    salt: str | None
    password_set: datetime | None
    password_ends: datetime | None
    ends: datetime | None
    keytab: tuple[int, ...]
    findings: tuple[Finding, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings that are not "ok", in words."""
        return warnings_of(self.findings)


def account_status(session: LdapSession, account: str, checks: Checks) -> AccountStatus:
    """Return the state of `account`; see `Directory.account_status`."""
    found = find_account(session, account)
    state = read_state(session, found)
    names, _ = names_of_account(session, found)
    findings = checks.findings(state, found.spns)
    kvnos: set[int] = set()
    if checks.keytab is not None:
        findings += _of_keytab(state, names, checks.keytab)
        kvnos = {entry.kvno for entry in checks.keytab.find(names.own)}
    salt = None
    if checks.tickets is not None:
        salt = checks.tickets.salt(names.own, time.monotonic() + checks.timeout)
    return AccountStatus(
        account=found,
        enabled=None if state.control is None else not state.control & _DISABLED,
        locked=bool(state.computed & _LOCKED),
        kvno=state.kvno,
        etypes=state.etypes,
        salt=salt,
        password_set=state.password_set,
        password_ends=state.password_ends,
        ends=state.ends,
        keytab=tuple(sorted(kvnos)),
        findings=tuple(findings),
    )


def _of_keytab(state: AccountState, names: AccountNames, keytab: Keytab) -> Iterator[Finding]:
    """Yield what a rotation has left undone in the keytab."""
    own = keytab.find(names.own)
    current = [entry for entry in own if state.kvno and same_kvno(state.kvno, entry.kvno)]
    newer = [entry for entry in own if state.kvno and entry.kvno > state.kvno]
    slots = {(entry.kvno, entry.key.etype) for entry in own}
    rotate = f"rotate again: purekrb account rotate {names.name}, with this keytab"
    if newer or len(slots) < len(own):
        yield Finding(
            "keytab",
            "warning",
            f"a rotation of {state.account.dn} has begun and not ended: the keytab has keys that "
            "the directory may not have",
            rotate,
        )
    has = {entry.principal for entry in keytab if state.kvno and same_kvno(state.kvno, entry.kvno)}
    missing = [str(one) for one in names.principals if one not in has]
    if current and missing:
        yield Finding(
            "keytab",
            "warning",
            f"the keytab has no current key under {first_of(missing, _MAX_SHOWN)}: programs that look for the name "
            "find none",
            rotate,
        )
