"""New keys of an account: first into the keytab, then into the directory, then proved by a log-in.

Whoever dies in between leaves a keytab with the old and the new keys, so the service goes on. The
next rotation starts from whatever state it finds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from purekrb.credentials import files
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab, change_keytab, keytab_path
from purekrb.directory.account_keys import (
    ETYPES_OF_KEYS,
    AccountNames,
    candidates,
    finished,
    random_password,
    with_candidates,
    without,
)
from purekrb.directory.account_state import etype_finding, give_aes, read_state, suspects_rc4
from purekrb.directory.accounts import KVNO, Account, find_account, find_caller, number_of
from purekrb.directory.ldap import (
    ANY_OBJECT,
    Change,
    ChangeOperation,
    Entry,
    LdapSession,
    Scope,
    single,
)
from purekrb.directory.rights import WRITING, without_right
from purekrb.directory.transaction import Undo
from purekrb.directory.windows_errors import ACCESS_DENIED
from purekrb.errors import (
    DirectoryError,
    InsufficientRightsError,
    KdcError,
    KerberosError,
    OutcomeUnknownError,
    PasswordPolicyError,
    PolicyError,
    PreauthFailedError,
    TransportError,
)
from purekrb.exchanges.as_exchange import AccountKey
from purekrb.kdc.client import KdcClient
from purekrb.log import Log
from purekrb.messages.kpasswd import Result
from purekrb.names import Principal
from purekrb.system import RandomBytes, now, pause, random_bytes
from purekrb.tracebacks import forget_frames

__all__ = [
    "KEEP",
    "WRITABLE",
    "NewKeys",
    "RotatedKeys",
    "as_unicode_pwd",
    "check_encrypted",
    "names_of_account",
    "rotate",
]

_log = Log("purekrb.directory")

#: For how long a replaced key is kept, in seconds: as long as a domain renews tickets by default.
KEEP = 7 * 86400.0
_NAMES = ("sAMAccountName", "servicePrincipalName", "userPrincipalName", "dNSHostName", KVNO)
_MAX_KVNO = 0xFFFFFFFF
#: How Samba says, as a constraintViolation, that the account may not change its password.
_DENIED_BY_SAMBA = re.compile(r"error in module acl: ")
#: The attributes that the bound account may write. Source: MS-ADTS 3.1.1.4.5.22.
WRITABLE = "allowedAttributesEffective"
#: Seconds to wait until another domain controller may know of a change.
_REPLICATION = (1.0, 2.0)


@dataclass(frozen=True, slots=True)
class RotatedKeys:
    """The result of a rotation: the kvno of the keys now and before, and the names in the keytab.

    `previous_kvno` is None if the directory did not tell it. `kept` are the kvnos of older keys that
    are still in the keytab.
    """

    account: Account
    keytab: str
    kvno: int
    previous_kvno: int | None
    kept: tuple[int, ...]
    principals: tuple[Principal, ...]


@forget_frames
def rotate(
    session: LdapSession,
    kdc: KdcClient,
    credential: Credential,
    account: str,
    keytab: files.FilePath | None,
    *,
    keep: float = KEEP,
    changes: Sequence[Change] = (),
    random: RandomBytes = random_bytes,
) -> RotatedKeys:
    """Give `account` new keys; see `Directory.rotate_keys`.

    `changes` are more changes of the account, in the request that sets the password.
    """
    found = find_account(session, account)
    itself = find_caller(session).sid == found.sid
    path = keytab_path(keytab)
    with files.turn_at(path, what="keytab"):
        names, before = names_of_account(session, found)
        new = NewKeys(kdc, names, path, keep=keep, random=random)
        salts = new.asked_salts()
        new.put(salts, 1 if before is None else before + 1 & _MAX_KVNO)
        try:
            if itself:
                prover = _prover(credential, names, path)
                _change_own(session, kdc, prover, found, new, changes)
            else:
                _reset(session, found, new, changes)
        except TransportError as error:
            _check_outcome(new, error)
        except KerberosError:
            new.take_back()
            raise
        _log.debug("step: the directory has the new key of %s", found.dn)
        keys = new.prove()
        told = None
        try:
            new.names, told = names_of_account(session, found)
        except KerberosError as error:  # the KDC has told the kvno, too
            _log.debug("the directory does not tell the names and the kvno: %s", error)
        kvno = new.version(keys, told)
        left = new.finish(keys, kvno, before)
        _set_aes(session, found)
    own = left.find(names.own)
    kept = sorted({entry.kvno for entry in own if entry.kvno != kvno})
    return RotatedKeys(found, path, kvno, before, tuple(kept), tuple(new.names.principals))


def _set_aes(session: LdapSession, account: Account) -> None:
    """Set the account's encryption types, if they have no AES; warn if that is not permitted.

    Not before the keytab has AES keys: the KDC then makes tickets that need them.
    """
    try:
        state = read_state(session, account)
        if not suspects_rc4(state):
            return
        finding = give_aes(session, state, Undo())
        if finding is not None and finding.status != "ok":
            _log.warning("%s", etype_finding(state))
    except KerberosError as error:  # the keys are there all the same
        _log.warning("whether tickets for %s have AES is not known: %s", account.dn, error)


def names_of_account(session: LdapSession, account: Account) -> tuple[AccountNames, int | None]:
    """Return what the keys of `account` depend on, and its kvno if the directory tells it."""
    entry = _read(session, account.dn, _NAMES)
    names = AccountNames(
        entry.text("sAMAccountName"),
        session.domain.upper(),
        entry.texts("servicePrincipalName"),
        entry.text("userPrincipalName"),
        entry.text("dNSHostName"),
    )
    return names, _kvno_of(entry)


class NewKeys:
    """The keys of a new random password, on their way to the keytab and the directory.

    The password is in this object alone, and nowhere else once it is gone.
    """

    __slots__ = ("_kdc", "_keep", "_keys", "_keytab", "names", "password")

    def __init__(
        self,
        kdc: KdcClient,
        names: AccountNames,
        keytab: str,
        *,
        keep: float = KEEP,
        random: RandomBytes = random_bytes,
    ) -> None:
        self._kdc, self._keytab, self._keep = kdc, keytab, timedelta(seconds=keep)
        self.names = names
        self.password = random_password(random)
        self._keys = candidates(b"", ())

    def asked_salts(self) -> tuple[bytes, ...]:
        """Return the salts that the KDC names for the keys that the account has now."""
        kdc, own = self._kdc, self.names.own
        return kdc._run(lambda: kdc._account_salts(own, ETYPES_OF_KEYS))

    @forget_frames
    def put(self, salts: Iterable[bytes], kvno: int) -> None:
        """Add the keys to the keytab, beside those that are there.

        `kvno` is what the directory will probably say. The salts are those that are asked, and
        those that the account's names make: it may have been renamed since it got its last key.
        """
        self._keys = candidates(self.password, (*salts, *self.names.likely_salts))

        def add(keytab: Keytab) -> Keytab:
            return with_candidates(keytab, self.names, self._keys, kvno, now())

        change_keytab(self._keytab, add, make=True)
        _log.debug("step: the keytab has the old and the new keys of %s", self.names.own)

    @forget_frames
    def take_back(self) -> None:
        """Remove the keys from the keytab: the directory has not got them."""
        left = change_keytab(self._keytab, lambda keytab: without(keytab, self._keys), make=True)
        if not len(left):
            files.remove_private(self._keytab, what="keytab", shared=True)
        _log.debug("step: the keytab is as before, since nothing has changed")

    @forget_frames
    def log_in(self) -> list[AccountKey]:
        """Return the keys as the KDC has them: with its salt and kvno, proved by a log-in."""
        kdc = self._kdc
        credential = Credential.from_password(self.names.own, self.password)
        return kdc._run(lambda: kdc._proved_keys(credential, ETYPES_OF_KEYS))

    @forget_frames
    def prove(self) -> list[AccountKey]:
        """Return the keys as `log_in` does; wait a moment for a KDC that does not know them yet."""
        for seconds in (*_REPLICATION, None):
            try:
                return self.log_in()
            except PreauthFailedError as error:
                if seconds is None:
                    raise DirectoryError(
                        f"the directory has taken the new key of {self.names.own}, but the KDC "
                        "refuses it: another rotation of this account has overtaken this one, or "
                        "the KDC has not got it yet. The keytab has the old and the new keys. Run "
                        f"only one rotation at a time, and rotate again ({error})"
                    ) from None
                pause(seconds)
        raise AssertionError("unreachable")

    def version(self, keys: list[AccountKey], told: int | None) -> int:
        """Return the kvno of `keys`: what the directory has `told`, if the KDC agrees."""
        said = next((key.kvno for key in keys if key.kvno is not None), None)
        # A read-only domain controller puts its own number into the upper half.
        if said is None or (told is not None and said & 0xFFFF == told & 0xFFFF):
            if told is None:
                raise DirectoryError(
                    f"neither the directory nor the KDC tells the kvno of {self.names.own}: the "
                    "keytab has the new keys with a kvno that was only expected; let the account "
                    f"read its {KVNO}"
                )
            return told
        return said

    @forget_frames
    def finish(self, keys: list[AccountKey], kvno: int, before: int | None = None) -> Keytab:
        """Leave in the keytab what the KDC has, and the older keys of valid tickets; return it."""

        def complete(keytab: Keytab) -> Keytab:
            proved = [found.key for found in keys]
            return finished(keytab, self.names, proved, kvno, now(), keep=self._keep, before=before)

        keytab = change_keytab(self._keytab, complete, make=True)
        _log.debug("step: the keytab has kvno %d of %s", kvno, self.names.own)
        return keytab


def _prover(credential: Credential, names: AccountNames, keytab: str) -> Credential:
    """Return the credential with which the account proves itself: with tickets, its keytab's key."""
    if credential.can_get_tgt:
        return credential
    return Credential.from_keytab(names.own, keytab)


@forget_frames
def _change_own(
    session: LdapSession,
    kdc: KdcClient,
    credential: Credential,
    account: Account,
    new: NewKeys,
    more: Sequence[Change],
) -> None:
    """Change the password as the account itself, which proves that it knows the old one.

    The directory wants to see the old password; a server that changes passwords takes the key.
    """
    old = credential.spoken()
    if old is None:
        if more:
            _modify(session, account, more, "change password")
        try:
            kdc.change_password(credential, new.password)
        except PasswordPolicyError as error:
            raise PasswordPolicyError(
                f"the domain's password policy refuses that {account.name} changes its own password "
                f"now ({error}). Try again once its minimum password age has passed, or reset it "
                "as an administrator (purekrb account rotate --reset)",
                code=error.code,
                policy=error.policy,
            ) from None
        except KdcError as error:
            if error.krb_error is not None or error.code != Result.ACCESSDENIED:
                raise
            refused = InsufficientRightsError(str(error), code=ACCESS_DENIED)
            raise without_right(session, refused, "change password", account.dn) from None
        return
    check_encrypted(session)
    changes = [
        Change(ChangeOperation.DELETE, "unicodePwd", [as_unicode_pwd(old)]),
        Change(ChangeOperation.ADD, "unicodePwd", [as_unicode_pwd(new.password)]),
    ]
    try:
        _modify(session, account, [*changes, *more], "change password")
    except InsufficientRightsError:
        raise
    except DirectoryError as error:
        if not _DENIED_BY_SAMBA.match(error.diagnostic):
            raise
        refused = InsufficientRightsError(str(error), code=ACCESS_DENIED)
        raise without_right(session, refused, "change password", account.dn) from None


@forget_frames
def _reset(session: LdapSession, account: Account, new: NewKeys, more: Sequence[Change]) -> None:
    """Set the password as an administrator, who need not know the old one."""
    check_encrypted(session)
    change = Change(ChangeOperation.REPLACE, "unicodePwd", [as_unicode_pwd(new.password)])
    _modify(session, account, [change, *more], "reset password")


@forget_frames
def _modify(session: LdapSession, account: Account, changes: Sequence[Change], right: str) -> None:
    """Change the account in one request; `right` is what it needs, unless an attribute is to blame."""
    try:
        session.modify(account.dn, changes)
    except InsufficientRightsError as error:
        names = [change.attribute for change in changes if change.attribute in WRITING]
        if names:
            writable = _read(session, account.dn, (WRITABLE,)).texts(WRITABLE)
            right = next((WRITING[name] for name in names if name not in writable), right)
        raise without_right(session, error, right, account.dn) from None


@forget_frames
def _check_outcome(new: NewKeys, error: TransportError) -> None:
    """Return if the directory has got the new key, though its answer is lost; else raise."""
    own = new.names.own
    try:
        new.log_in()
    except PreauthFailedError:
        text = (
            f"the key of {own} was not changed, since the connection ended: the KDC has the old one"
        )
    except KerberosError:
        text = f"whether the key of {own} was changed is not known, since the connection ended"
    else:
        return
    kind = OutcomeUnknownError if isinstance(error, OutcomeUnknownError) else TransportError
    raise kind(
        f"{text}. The keytab has the old and the new keys, so the service goes on; rotate again "
        "once the domain controller answers"
    ) from error


def as_unicode_pwd(password: bytes) -> bytes:
    """Return a password as the attribute unicodePwd has it. Source: MS-ADTS 3.1.1.3.1.5.1."""
    return f'"{password.decode()}"'.encode("utf-16-le")


def check_encrypted(session: LdapSession) -> None:
    """Raise PolicyError if others on the path could read a password."""
    if not session.encrypted:
        raise PolicyError(
            "a password is only sent over an encrypted connection, and this one is only signed: "
            "connect with sealed=True, or with TLS"
        )


def _kvno_of(entry: Entry) -> int | None:
    """Return the kvno; the attribute has it as a signed number. Source: MS-ADTS 3.1.1.4.5.16."""
    told = number_of(entry, KVNO)
    return None if told is None else told & _MAX_KVNO


def _read(session: LdapSession, dn: str, attributes: tuple[str, ...]) -> Entry:
    found = session.search(dn, ANY_OBJECT, attributes, scope=Scope.BASE)
    return single(found, f"account {dn!r}")
