"""Group managed service accounts (gMSA): their password, which the directory makes, as keys.

The directory changes the password by itself, and tells it to the hosts that may know it: in the
attribute msDS-ManagedPassword, over an encrypted connection alone.
Source: MS-ADTS 2.2.19 (the attribute's value), 3.1.1.4.5.39 (who reads it, and how it changes).
"""

from __future__ import annotations

import re
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from purekrb.constants import EncryptionType
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.crypto.rc4 import nt_hash
from purekrb.directory.accounts import (
    AES_BITS,
    ETYPES,
    KVNO,
    Account,
    find_account,
    number_of,
)
from purekrb.directory.ldap import (
    INVALID_PARAMETER,
    Change,
    ChangeOperation,
    Entry,
    LdapSession,
    Scope,
    single,
)
from purekrb.directory.patterns import DNS_NAME
from purekrb.directory.rights import without_right
from purekrb.directory.security_descriptor import Ace, Acl, SecurityDescriptor
from purekrb.directory.transaction import Undo
from purekrb.dn import escape_rdn_value, parent_of
from purekrb.errors import (
    AccountNotFoundError,
    DecodeError,
    DirectoryError,
    InsufficientRightsError,
    KerberosError,
    PolicyError,
    SpnError,
)
from purekrb.keys import EncryptionKey
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.sid import Sid
from purekrb.spn import ServicePrincipalName, target_principal
from purekrb.system import fork_safe, now
from purekrb.tracebacks import forget_frames

__all__ = ["ManagedKeytab", "ManagedPassword", "create", "managed_keytab", "permit"]

_log = Log("purekrb.directory")

_PASSWORD, _MEMBERSHIP = "msDS-ManagedPassword", "msDS-GroupMSAMembership"
_CONTROL = "userAccountControl"
_IS_MANAGED = "(objectClass=msDS-GroupManagedServiceAccount)"
#: Bits of userAccountControl: ADS_UF_ACCOUNTDISABLE, ADS_UF_WORKSTATION_TRUST_ACCOUNT.
#: Source: MS-ADTS 2.2.16.
_DISABLED, _WORKSTATION = 0x2, 0x1000
#: Seconds after which a directory that failed is asked again, and the least between two questions.
_RETRY = 60.0
#: Version, reserved, length, then the offsets of both passwords and of both intervals.
_HEADER = struct.Struct("<HHIHHHH")
_INTERVAL = struct.Struct("<Q")
#: The unit of the intervals: 100 nanoseconds.
_UNITS_PER_SECOND = 10_000_000
#: Longer than any password that a directory makes (256 bytes).
_MAX_PASSWORD = 1024
#: The longest name that has room for "$" and a NetBIOS name's limit of 16 characters.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", re.ASCII)
#: The most days between two changes of the password.
_MAX_INTERVAL = 3650
#: Whatever may read the password.
_MAY_READ = "(|(objectClass=user)(objectClass=group))"
_ADMINISTRATORS = Sid.parse("S-1-5-32-544")
_SELF_RELATIVE_WITH_DACL = 0x8004
#: Rights of everything, for a generic access control entry (MS-DTYP 2.4.3), as Windows writes them.
_ALL_RIGHTS = 0xF01FF
_ACCESS_ALLOWED = 0


@dataclass(frozen=True, slots=True)
class ManagedPassword:
    """The value of msDS-ManagedPassword: the current password, and the previous one if there is one.

    The passwords are UTF-16-LE and no text: most of them hold lone surrogates. `query_interval` is
    the time in seconds after which the password has to be asked for again; for
    `unchanged_interval`, the answer stays the same. After it, the directory tells the next password
    some minutes before KDCs use that.
    """

    current: bytes = field(repr=False)
    previous: bytes | None = field(repr=False)
    query_interval: float
    unchanged_interval: float

    @classmethod
    @forget_frames
    def decode(cls, data: bytes) -> ManagedPassword:
        """Return the password in the value of the attribute. Raises DecodeError.

        The layout: version 1, reserved, length of the whole, four offsets from the start (little-endian);
        the passwords in UTF-16-LE, each ended by a NUL character; the intervals.
        """
        if len(data) < _HEADER.size:
            raise _damaged(f"it has {len(data)} bytes, its header alone {_HEADER.size}")
        version, _, length, current, previous, query, unchanged = _HEADER.unpack_from(data)
        if version != 1:
            raise _damaged(f"its version is {version}, expected 1")
        if length != len(data):
            raise _damaged(f"it has {len(data)} bytes, and says {length}")
        taken = [range(_HEADER.size)]

        def take(what: str, start: int, size: int) -> bytes:
            end = start + size
            if end > length or any(start < one.stop and one.start < end for one in taken):
                raise _damaged(f"its {what} is outside of it, or overlaps another part")
            taken.append(range(start, end))
            return data[start:end]

        def password(what: str, start: int) -> bytes:
            for end in range(start, min(length, start + _MAX_PASSWORD + 2) - 1, 2):
                if data[end : end + 2] == b"\0\0":
                    if end == start:
                        raise _damaged(f"its {what} is empty")
                    return take(what, start, end + 2 - start)[:-2]
            raise _damaged(f"its {what} has no end")

        seconds = [
            _INTERVAL.unpack(take(what, start, _INTERVAL.size))[0] / _UNITS_PER_SECOND
            for what, start in (("query interval", query), ("unchanged interval", unchanged))
        ]
        return cls(
            password("current password", current),
            password("previous password", previous) if previous else None,
            *seconds,
        )

    @forget_frames
    def keytab(
        self,
        account: Principal | str,
        *names: Principal | str,
        kvno: int = 1,
        etypes: Iterable[int] = (18, 17),
        salt: str | bytes | None = None,
    ) -> Keytab:
        """Return the keys of both passwords: the current one with `kvno`, the previous one with one less.

        `account` is the account's principal (`gmsa$@EXAMPLE.TEST`); the entries have its name and
        those in `names`. `salt` is by default that of a computer: the realm, "host", and the DNS
        name that the account's name makes in the realm.
        """
        account = Principal.of(account)
        stamp = now().replace(microsecond=0)
        versions = [(kvno, self.current)]
        if self.previous is not None:
            versions.append((max(0, kvno - 1), self.previous))
        entries = []
        for version, password in versions:
            keys = [_key(etype, password, account, salt) for etype in etypes]
            entries += [
                KeytabEntry(Principal.of(name), version, key, stamp)
                for name in (account, *names)
                for key in keys
            ]
        return Keytab(entries)


def _key(
    etype: int, password: bytes, account: Principal, salt: str | bytes | None
) -> EncryptionKey:
    if etype == EncryptionType.RC4_HMAC:
        return EncryptionKey(etype, nt_hash(password))
    # A KDC makes the key of the text in UTF-8, where a lone surrogate has no form: U+FFFD is there
    # instead of it.
    text = password.decode("utf-16-le", "replace")
    return Keytab.from_password(account, text, etypes=(etype,), salt=salt).entries[0].key


def _damaged(why: str) -> DecodeError:
    return DecodeError(f"the password of a managed account cannot be read: {why}")


# From the directory --------------------------------------------------------------------------------


class ManagedKeytab(Keytab):
    """The keys of a managed account, with the account's name and each of its SPNs.

    Give it to an acceptor or to `Credential.from_keytab` like any keytab. They ask it for its
    `current` keys. `account` is the account, and `next_query` says in how many seconds the
    directory will be asked again.
    """

    __slots__ = ("_source", "account")

    _source: _Source
    account: Account

    def current(self) -> Keytab:
        """Return the newest keys; ask the directory for them if it is time.

        If the directory does not answer, the keys before stay in use, the log warns, and the next
        attempt is a minute later.
        """
        return self._source.current()

    @property
    def next_query(self) -> float:
        """The seconds until the directory is asked again; 0 or less: at the next use."""
        return self._source.due - self._source.monotonic()


class _Source:
    """Where the keys of a ManagedKeytab come from, and when they are asked for again."""

    def __init__(
        self, read: Callable[[], tuple[ManagedKeytab, float]], monotonic: Callable[[], float]
    ) -> None:
        self._read = read
        self.monotonic = monotonic
        self._lock = fork_safe(threading.Lock())
        self.newest, self.due = self._ask()

    def current(self) -> ManagedKeytab:
        # Another thread that waits for the directory need not hold up this one.
        if self.monotonic() >= self.due and self._lock.acquire(blocking=False):
            try:
                self.newest, self.due = self._ask()
            except KerberosError as error:
                self.due = self.monotonic() + _RETRY
                _log.warning(
                    "the keys of %s that were read before stay in use: %s",
                    self.newest.account.name,
                    error,
                )
            finally:
                self._lock.release()
        return self.newest

    def _ask(self) -> tuple[ManagedKeytab, float]:
        keytab, seconds = self._read()
        keytab._source = self
        # Each use asks once it is time: an interval of nothing must not make that each handshake.
        return keytab, self.monotonic() + max(seconds, _RETRY)


def managed_keytab(
    session: Callable[[], LdapSession],
    account: str,
    *,
    etypes: Sequence[int] = (18, 17),
    monotonic: Callable[[], float] = time.monotonic,
) -> ManagedKeytab:
    """Return the keys of a managed account; see `Directory.managed_keytab`.

    `session` returns the session to ask.
    """
    return _Source(partial(_read, session, account, tuple(etypes)), monotonic).newest


@forget_frames
def _read(
    session: Callable[[], LdapSession], name: str, etypes: Sequence[int]
) -> tuple[ManagedKeytab, float]:
    """Return the keys of an account, and the seconds after which they have to be asked for again."""
    asked = session()
    if not asked.encrypted:
        raise PolicyError(
            "this connection to the directory is not encrypted, and the answer would be a password: "
            "connect without sealed=False"
        )
    account = _find(asked, name)
    found = asked.search(account.dn, _IS_MANAGED, (_PASSWORD,), scope=Scope.BASE)
    if not found:
        raise AccountNotFoundError(
            f"{account.dn!r} is not a group managed service account: the directory makes no "
            "password for it. To give it a new one and a keytab: purekrb account rotate"
        )
    blob = b"".join(found[0].attributes[_PASSWORD])
    if not blob:
        raise InsufficientRightsError(
            f"the account that is bound may not read the password of {account.name}: have an "
            "administrator permit it, or a group that it is in (Directory.permit_managed_account; "
            f"samba-tool service-account group-msa-membership add --name='{account.name}' "
            "--principal=...; Set-ADServiceAccount -PrincipalsAllowedToRetrieveManagedPassword). "
            "If it has just been added to a group, it needs a new ticket first",
        )
    password = ManagedPassword.decode(blob)
    # To read the password may be what changes it; in the same answer, the kvno is still the old one.
    facts = asked.search(account.dn, _IS_MANAGED, (KVNO, ETYPES, _CONTROL), scope=Scope.BASE)
    entry = single(facts, f"managed account {account.name!r}")
    _warn(entry, account)
    realm = asked.domain.upper()
    keytab = ManagedKeytab(
        password.keytab(
            Principal.of(f"{account.name}@{realm}"),
            *_principals(account.spns, realm),
            kvno=number_of(entry, KVNO) or 1,
            etypes=etypes,
        )
    )
    keytab.account = account
    _log.debug(
        "read the password of %s: ask again in %.0f seconds", account.name, password.query_interval
    )
    return keytab, password.query_interval


def _find(session: LdapSession, name: str) -> Account:
    """Return the account `name`; the "$" at its end may be left out."""
    try:
        return find_account(session, name)
    except AccountNotFoundError:
        if _NAME.fullmatch(name):
            with suppress(AccountNotFoundError):
                return find_account(session, f"{name}$")
        raise


def _principals(spns: Iterable[str], realm: str) -> list[Principal]:
    """Return the names of services, byte for byte; without those that are no names."""
    principals = []
    for spn in spns:
        with suppress(SpnError):
            principals.append(
                target_principal(ServicePrincipalName.parse(spn, strict=False), realm)
            )
    return principals


def _warn(entry: Entry, account: Account) -> None:
    """Log what keeps the account's keys from being of use."""
    if (number_of(entry, _CONTROL) or 0) & _DISABLED:
        _log.warning(
            "%s is disabled, so the KDC gives no tickets for it: enable it "
            "(samba-tool user enable '%s')",
            account.name,
            account.name,
        )
    if not (number_of(entry, ETYPES) or 0) & AES_BITS:
        _log.warning(
            "tickets for %s may be encrypted with RC4, which acceptors refuse: set its %s to 24",
            account.name,
            ETYPES,
        )


# Making one -----------------------------------------------------------------------------------------


def create(
    session: LdapSession,
    name: str,
    undo: Undo,
    *,
    dns_host_name: str = "",
    spns: Sequence[str] = (),
    permitted: Sequence[str] = (),
    interval: int = 30,
) -> Account:
    """Create a managed account; see `Directory.create_managed_account`."""
    name = name.removesuffix("$")
    dns_host_name = dns_host_name or f"{name.lower()}.{session.domain}"
    if not _NAME.fullmatch(name):
        raise DirectoryError(
            f"{name!r} is not the name of a managed account: give 1 to 15 letters, digits, "
            "'-', '_' and '.'",
            code=INVALID_PARAMETER,
        )
    if not DNS_NAME.fullmatch(dns_host_name):
        raise DirectoryError(
            f"{dns_host_name!r} is not a fully qualified DNS name", code=INVALID_PARAMETER
        )
    if not 1 <= interval <= _MAX_INTERVAL:
        raise DirectoryError(
            f"the password cannot change every {interval} days: give 1 to {_MAX_INTERVAL}",
            code=INVALID_PARAMETER,
        )
    for spn in spns:
        ServicePrincipalName.parse(spn)
    readers = [find_account(session, one, classes=_MAY_READ).sid for one in permitted]
    dn = f"CN={escape_rdn_value(name)},CN=Managed Service Accounts,{session.base_dn}"
    attributes: dict[str, list[str | bytes]] = {
        "sAMAccountName": [f"{name}$"],
        "dNSHostName": [dns_host_name],
        # Without the next two, Samba makes the account disabled, and its tickets of RC4.
        _CONTROL: [str(_WORKSTATION)],
        ETYPES: [str(AES_BITS)],
        "msDS-ManagedPasswordInterval": [str(interval)],
        _MEMBERSHIP: [_descriptor(readers)],
    }
    if spns:
        attributes["servicePrincipalName"] = list(spns)

    def create() -> None:
        try:
            session.add(dn, "msDS-GroupManagedServiceAccount", attributes)
        except InsufficientRightsError as error:
            where = parent_of(dn)
            raise without_right(session, error, "create managed account", where) from None

    undo.write(create, f"deleting {dn}", lambda: session.delete(dn))
    return find_account(session, dn)


def permit(session: LdapSession, account: str, permitted: Sequence[str]) -> None:
    """Let others read a managed account's password; see `Directory.permit_managed_account`."""
    if isinstance(permitted, str):
        raise TypeError("permitted is a sequence of accounts and groups, not one string")
    dn = _find(session, account).dn
    readers = [find_account(session, one, classes=_MAY_READ).sid for one in permitted]
    found = session.search(dn, _IS_MANAGED, (_MEMBERSHIP,), scope=Scope.BASE)
    before = b"".join(single(found, f"managed account {account!r}").attributes[_MEMBERSHIP])
    try:
        after = _descriptor(readers, SecurityDescriptor.decode(before) if before else None)
    except DecodeError as error:
        raise DirectoryError(f"{_MEMBERSHIP} of {dn!r} cannot be changed: {error}") from None
    if after != before:
        session.modify(dn, [Change(ChangeOperation.REPLACE, _MEMBERSHIP, [after])])


def _descriptor(readers: Iterable[Sid], before: SecurityDescriptor | None = None) -> bytes:
    """Return the descriptor that lets `readers` read the password, beside those of `before`."""
    before = before or SecurityDescriptor(_SELF_RELATIVE_WITH_DACL, _ADMINISTRATORS)
    dacl = before.dacl or Acl(2, ())
    aces = (
        Ace(_ACCESS_ALLOWED, 0, struct.pack("<I", _ALL_RIGHTS) + reader.encode())
        for reader in readers
    )
    missing = tuple(ace for ace in aces if ace not in dacl.aces)
    return replace(before, dacl=Acl(dacl.revision, dacl.aces + missing)).encode()
