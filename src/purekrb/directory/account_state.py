"""What a directory tells of an account's log-in and keys, and what is wrong with it.

`verify_service`, `install_service`, `purekrb spn add` and the doctor say it in these words.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from purekrb.constants import EncryptionType
from purekrb.directory.accounts import (
    AES_BITS,
    ETYPES,
    KVNO,
    Account,
    number_of,
)
from purekrb.directory.ldap import (
    ANY_OBJECT,
    Change,
    ChangeOperation,
    Entry,
    LdapSession,
    Scope,
    single,
)
from purekrb.directory.rights import without_right
from purekrb.directory.transaction import Undo
from purekrb.errors import DirectoryError, InsufficientRightsError
from purekrb.findings import Finding, Status, split_remedy
from purekrb.keys import etype_names
from purekrb.log import Log
from purekrb.messages.pac import FILETIME_EPOCH
from purekrb.text import visible

__all__ = [
    "ETYPE_BITS",
    "AccountState",
    "account_findings",
    "etype_finding",
    "give_aes",
    "read_state",
    "state_of",
    "suspects_rc4",
]

_log = Log("purekrb.directory")

_CONTROL, _COMPUTED = "userAccountControl", "msDS-User-Account-Control-Computed"
_PASSWORD_SET, _PASSWORD_ENDS = "pwdLastSet", "msDS-UserPasswordExpiryTimeComputed"
_ENDS = "accountExpires"
_ATTRIBUTES = (ETYPES, KVNO, _CONTROL, _COMPUTED, _PASSWORD_SET, _PASSWORD_ENDS, _ENDS)
_FILETIME = re.compile(r"-?[0-9]{1,19}")
#: The FILETIMEs that stand for "never".
_NEVER = (0, 0x7FFFFFFFFFFFFFFF)

#: The bits of msDS-SupportedEncryptionTypes that are encryption types. Source: MS-KILE 2.2.7.
ETYPE_BITS = {
    0x1: 1,  # des-cbc-crc
    0x2: 3,  # des-cbc-md5
    0x4: EncryptionType.RC4_HMAC,
    0x8: EncryptionType.AES128_CTS_HMAC_SHA1_96,
    0x10: EncryptionType.AES256_CTS_HMAC_SHA1_96,
}
#: Accounts of domain controllers: any delegation, by design. Source: MS-ADTS 2.2.16.
_OF_CONTROLLERS = 0x2000 | 0x4000000
_LOCKED, _PASSWORD_EXPIRED = 0x10, 0x800000
#: From this age on, a password is called old.
_OLD = timedelta(days=365)
#: How long before its end an account, or its password, is warned of.
_SOON = timedelta(days=14)


class _Flag(NamedTuple):
    """A bit of userAccountControl that a service's account should not have; {} is its name."""

    mask: int
    status: Status
    what: str
    remedy: str


#: Source: MS-ADTS 2.2.16.
_FLAGS = (
    _Flag(
        0x2,
        "failed",
        "is disabled: it cannot log in, and a KDC may refuse tickets for it",
        "enable it (Enable-ADAccount {}, samba-tool user enable {})",
    ),
    _Flag(
        0x40000,
        "warning",
        "must log in with a smart card, so the directory has given it random keys",
        "clear SMARTCARD_REQUIRED (Set-ADUser {} -SmartcardLogonRequired 0), set its password again, "
        "and make its keytab again",
    ),
    _Flag(
        0x80000,
        "warning",
        "is trusted for delegation to any service (TRUSTED_FOR_DELEGATION): whoever gets hold of "
        "the service can act as each of its clients",
        "clear it unless the service needs it (Set-ADAccountControl {} -TrustedForDelegation 0, "
        "samba-tool delegation for-any-service {} off)",
    ),
    _Flag(
        0x200000,
        "failed",
        "may only use DES (USE_DES_KEY_ONLY), which nobody accepts",
        "clear it (Set-ADAccountControl {} -UseDESKeyOnly 0), and set its password again",
    ),
    _Flag(
        0x400000,
        "warning",
        "needs no pre-authentication: anyone can get what its password is guessed by",
        "require it (Set-ADAccountControl {} -DoesNotRequirePreAuth 0)",
    ),
)


@dataclass(frozen=True, slots=True)
class AccountState:
    """The state of an account; None where the directory does not tell.

    `control` and `computed` are userAccountControl and msDS-User-Account-Control-Computed, `etypes`
    is msDS-SupportedEncryptionTypes. `must_change`: the password counts no longer. Times are aware
    UTC datetimes; None: never.
    """

    account: Account
    etypes: int | None
    kvno: int | None
    control: int | None
    computed: int
    must_change: bool
    password_set: datetime | None
    password_ends: datetime | None
    ends: datetime | None

    @property
    def has_aes(self) -> bool:
        """Whether msDS-SupportedEncryptionTypes has AES."""
        return bool((self.etypes or 0) & AES_BITS)

    @property
    def supported(self) -> str:
        """The etypes of msDS-SupportedEncryptionTypes in words."""
        names = etype_names(etype for bit, etype in ETYPE_BITS.items() if (self.etypes or 0) & bit)
        return names or "not set"

    @property
    def facts(self) -> str:
        """What is known of the keys, in one line."""
        known = []
        if self.kvno is not None:
            known.append(f"kvno {self.kvno}")
        known.append(f"encryption types: {self.supported}")
        if self.password_set:
            known.append(f"its password was set on {self.password_set:%Y-%m-%d}")
        return "; ".join(known)


def read_state(session: LdapSession, account: Account) -> AccountState:
    """Return the state of `account`. Raises DirectoryError."""
    found = session.search(account.dn, ANY_OBJECT, _ATTRIBUTES, scope=Scope.BASE)
    return state_of(account, single(found, f"account {account.dn!r}"))


def state_of(account: Account, entry: Entry) -> AccountState:
    """Return the state that `entry`, which is that of `account`, describes.

    Raises DirectoryError for attributes that are no numbers.
    """
    return AccountState(
        account=account,
        etypes=number_of(entry, ETYPES),
        kvno=number_of(entry, KVNO),
        control=number_of(entry, _CONTROL),
        computed=number_of(entry, _COMPUTED) or 0,
        must_change=entry.text(_PASSWORD_SET) == "0",
        password_set=_moment(entry, _PASSWORD_SET),
        password_ends=_moment(entry, _PASSWORD_ENDS),
        ends=_moment(entry, _ENDS),
    )


def account_findings(state: AccountState, at: datetime) -> Iterator[Finding]:
    """Yield what is wrong with the account at that time, apart from its encryption types.

    A directory that tells neither kvno nor userAccountControl is no domain controller: nothing is
    wrong. If it only hides userAccountControl, that is told.
    """
    account = state.account
    if state.control is None:
        if state.kvno is not None:
            yield Finding(
                "account",
                "skipped",
                f"whether {account.dn} is enabled is not known: the directory does not show its "
                f"{_CONTROL}",
                "ask as that account, or as an administrator",
            )
        return
    controller = state.control & _OF_CONTROLLERS
    for flag in _FLAGS:
        if state.control & flag.mask and not (controller and flag.mask == 0x80000):
            yield _about(account, flag.status, flag.what, flag.remedy)
    if state.computed & _LOCKED:
        yield _about(
            account,
            "failed",
            "is locked, after too many wrong passwords",
            "unlock it (Unlock-ADAccount {}, samba-tool user unlock {}), and find who tries them",
        )
    again = (
        "set it again, and make its keytab again: purekrb account rotate {} does both, "
        "samba-tool user setpassword {} the first"
    )
    if state.must_change:
        yield _about(account, "failed", "must change its password before it can log in", again)
    elif state.computed & _PASSWORD_EXPIRED:
        yield _about(account, "failed", "has a password that has expired", again)
    else:
        yield from _ending(account, "the password of", state.password_ends, at, again)
        if state.password_set and at - state.password_set > _OLD and not controller:
            yield _about(
                account,
                "warning",
                f"has had its password since {state.password_set:%Y-%m-%d}: whoever gets a ticket "
                "for it can guess at the password",
                "give it a long random password once a year, and make its keytab again: purekrb "
                "account rotate {} does both",
            )
    yield from _ending(
        account,
        "the account",
        state.ends,
        at,
        "set another date (Clear-ADAccountExpiration {}, samba-tool user setexpiry {} --noexpiry)",
    )


def suspects_rc4(state: AccountState) -> bool:
    """Return whether tickets may be of RC4, as far as the directory tells.

    Without AES in msDS-SupportedEncryptionTypes, a domain controller takes its own default, which
    was RC4 for long, whatever keys the account has. Source: MS-KILE 2.2.7, 3.3.5.7.
    """
    # A directory that does not tell the kvno is no domain controller, or does not let us read.
    return state.kvno is not None and not state.has_aes


def etype_finding(state: AccountState, seen: Collection[int] | None = None) -> Finding:
    """Return what is wrong with the encryption types.

    `seen` are those of the KDC's tickets that acceptors refuse; () if it has none in common with
    clients, and None if it was not asked.
    """
    dn = state.account.dn
    status: Status = "failed"
    if seen is None:
        status = "warning"
        what = f"tickets for {dn} may be encrypted with RC4, which acceptors refuse"
    elif seen:
        names = etype_names(sorted(seen))
        what = f"tickets for {dn} are encrypted with {names}, which acceptors refuse"
    else:
        what = f"the KDC has no encryption type for {dn} that clients take"
    bits = "not set" if state.etypes is None else str(state.etypes)
    if state.has_aes:
        return Finding(
            "encryption types",
            status,
            f"{what}, though its {ETYPES} is {bits}: the account has no AES keys, or the KDC does "
            "not know of that number yet",
            "set its password again, which makes AES keys, and make its keytab again (purekrb "
            f"account rotate {_typed(state.account.name)} does both); if the number is new, wait for "
            "the replication",
        )
    return Finding(
        "encryption types",
        status,
        f"{what}: its {ETYPES} is {bits}",
        f"set {ETYPES} to 24 (0x18), as an administrator ({_how_to_set(state.account)}), and set the "
        "password again if it is older than the domain's AES keys",
    )


def give_aes(session: LdapSession, state: AccountState, undo: Undo) -> Finding | None:
    """Set AES in msDS-SupportedEncryptionTypes if it has none; return what came of it, or None.

    Bits that are no encryption types stay. Missing rights are a finding, no error.
    """
    if state.has_aes:
        return None
    dn, before = state.account.dn, state.etypes
    value = ((before or 0) & ~sum(ETYPE_BITS)) | AES_BITS

    def put(number: int | None) -> None:
        values = [] if number is None else [str(number)]
        session.modify(dn, [Change(ChangeOperation.REPLACE, ETYPES, values)])

    try:
        undo.write(lambda: put(value), f"restoring {ETYPES} of {dn}", lambda: put(before))
    except InsufficientRightsError as error:
        refused = without_right(session, error, "set etypes", dn)
        return Finding("encryption types", "failed", *split_remedy(refused))
    was = "was not set" if before is None else f"was {before}"
    _log.info("%s of %s %s, and is %d now", ETYPES, dn, was, value)
    return Finding("encryption types", "ok", f"{ETYPES} of {dn} {was}, and is {value} now")


def _about(account: Account, status: Status, what: str, remedy: str) -> Finding:
    return Finding(
        "account", status, f"{account.dn} {what}", remedy.replace("{}", _typed(account.name))
    )


def _ending(
    account: Account, what: str, ends: datetime | None, at: datetime, remedy: str
) -> Iterator[Finding]:
    if ends is not None and ends <= at + _SOON:
        past = ends <= at
        yield Finding(
            "account",
            "failed" if past else "warning",
            f"{what} {account.dn} {'has expired' if past else 'expires'} on {ends:%Y-%m-%d %H:%MZ}",
            remedy.replace("{}", _typed(account.name)),
        )


def _how_to_set(account: Account) -> str:
    kind = "Computer" if account.name.endswith("$") else "User"
    name = _typed(account.name)
    return (
        f"--fix of purekrb spn add and scp publish, Set-AD{kind} {name} -KerberosEncryptionType AES128,AES256, or "
        f"net ads enctypes set {name} 24"
    )


def _typed(name: str) -> str:
    """Return a name of the directory as one word of a shell."""
    return shlex.quote(visible(name))


def _moment(entry: Entry, name: str) -> datetime | None:
    """Return the time in an attribute; None for "never", and for what no calendar has.

    Raises DirectoryError for what is no FILETIME.
    """
    text = entry.text(name)
    if text and not _FILETIME.fullmatch(text):
        raise DirectoryError(f"{name} of {entry.dn!r} is {text[:50]!r}, expected a FILETIME")
    if not text or int(text) in _NEVER or int(text) < 0:
        return None
    try:
        return FILETIME_EPOCH + timedelta(microseconds=int(text) // 10)
    except OverflowError:
        return None
