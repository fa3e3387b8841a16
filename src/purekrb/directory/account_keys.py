"""The keys of an account: passwords that nobody sees, and the keytab before and after a change.

This is pure. An account's entries in a keytab are those of its names, and whatever has their keys:
the names that it had before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from purekrb import crypto
from purekrb.constants import NameType
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.errors import KerberosError
from purekrb.keys import EncryptionKey
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.spn import target_principal
from purekrb.system import RandomBytes
from purekrb.tracebacks import forget_frames

__all__ = [
    "ETYPES_OF_KEYS",
    "AccountNames",
    "belonging",
    "candidates",
    "finished",
    "random_password",
    "with_candidates",
    "without",
]

_log = Log("purekrb.directory")

#: The encryption types of the keys, the best first.
ETYPES_OF_KEYS = (18, 17)
#: Active Directory takes 256 characters; other programs have less.
_LENGTH = 240
_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
_DIGITS = "0123456789"
#: No account's name has one of these. Source: MS-SAMR 3.1.1.8.4.
_MARKS = "[]:;|=+*?<>"


def random_password(random: RandomBytes) -> bytes:
    """Return 240 random characters of ASCII, with about 1000 bits of entropy. A secret.

    Every third character is one that no name has: a domain refuses passwords with a part of the
    account's name or of its display name in them, of at least three letters.
    """
    sets = (_LETTERS + _DIGITS, _LETTERS, _MARKS)
    text: list[str] = []
    while len(text) < _LENGTH:
        for number in random(64):
            characters = sets[len(text) % 3]
            # Otherwise the first characters of the set would be more frequent.
            if number < 256 - 256 % len(characters) and len(text) < _LENGTH:
                text.append(characters[number % len(characters)])
    return "".join(text).encode()


@dataclass(frozen=True, slots=True)
class AccountNames:
    """What the keys of an account depend on.

    `name` is the sAMAccountName, `user_principal_name` and `dns_name` may be "".
    """

    name: str
    realm: str
    spns: tuple[str, ...] = ()
    user_principal_name: str = ""
    dns_name: str = ""

    @property
    def own(self) -> Principal:
        """The principal of the account itself."""
        return Principal((self.name,), self.realm)

    @property
    def principals(self) -> list[Principal]:
        """The names under which the account has tickets: its own, and each of its SPNs.

        A computer also has those of its host in small letters, which libkrb5 looks for.
        """
        found = [self.own]
        if self.name.endswith("$"):
            hosts = (self.dns_name, self.name[:-1])
            found += [self._service("host", host) for host in hosts if host]
        for spn in self.spns:
            try:
                found.append(target_principal(spn, self.realm))
            except KerberosError as error:
                _log.warning("no key is kept for %s, a name of %s: %s", spn, self.name, error)
        return list(dict.fromkeys(found))

    @property
    def likely_salts(self) -> list[bytes]:
        """The salts that a domain controller makes of the names as they are now.

        It makes one when the password is set, and keeps it when the account is renamed.
        Source: MS-KILE 3.1.1.2; Samba makes that of a user of its userPrincipalName, if it has one.
        """
        if self.name.endswith("$"):
            short = self.name[:-1].lower()
            return [f"{self.realm}host{short}.{self.realm.lower()}".encode()]
        names = [self.user_principal_name.rpartition("@")[0].replace("/", ""), self.name]
        return [f"{self.realm}{name}".encode() for name in dict.fromkeys(names) if name]

    def _service(self, service_class: str, host: str) -> Principal:
        return Principal((service_class, host), self.realm, NameType.SRV_HST)


@forget_frames
def candidates(password: bytes, salts: Iterable[bytes]) -> list[EncryptionKey]:
    """Return the keys of a new password with each of `salts`: the KDC's is only known afterwards."""
    return [
        crypto.string_to_key(etype, password, salt)
        for salt in dict.fromkeys(salts)
        for etype in ETYPES_OF_KEYS
    ]


def with_candidates(
    keytab: Keytab, names: AccountNames, keys: Iterable[EncryptionKey], kvno: int, at: datetime
) -> Keytab:
    """Return the keytab with new keys, before the directory has them. All other entries stay.

    Several entries may have one principal, kvno and etype: acceptors try all of them.
    """
    # The new ones first: programs that take one key of a kvno take the first.
    return Keytab((*_entries(names, keys, kvno, at), *keytab))


def finished(
    keytab: Keytab,
    names: AccountNames,
    keys: Sequence[EncryptionKey],
    kvno: int,
    at: datetime,
    *,
    keep: timedelta,
    before: int | None = None,
) -> Keytab:
    """Return the keytab with the account's keys, which the KDC has as `kvno`, and older ones.

    A key that was replaced more than `keep` ago is dropped, since no ticket for it is valid any
    more; and so is one that claims this kvno, or a later one, and is not the KDC's. `before` is the
    kvno that was replaced just now. Entries of other accounts stay.
    """
    ours = belonging(keytab, names)
    mine = set(map(id, ours))
    others = [entry for entry in keytab if id(entry) not in mine]
    older = [entry for entry in ours if entry.kvno < kvno and entry.key not in keys]
    came: dict[int, datetime] = {}  # each version, when its last entry was written
    for entry in older:
        came[entry.kvno] = max(entry.timestamp, came.get(entry.kvno, entry.timestamp))
    kept = []
    for entry in older:
        replaced = min((time for version, time in came.items() if version > entry.kvno), default=at)
        if entry.kvno == before or replaced > at - keep:
            kept.append(entry)
    return Keytab((*_entries(names, keys, kvno, at), *kept, *others))


def without(keytab: Keytab, gone: Iterable[EncryptionKey]) -> Keytab:
    """Return the keytab without the entries that have one of these keys."""
    gone = list(gone)
    return Keytab(entry for entry in keytab if entry.key not in gone)


def _entries(
    names: AccountNames, keys: Iterable[EncryptionKey], kvno: int, at: datetime
) -> list[KeytabEntry]:
    keys = list(keys)
    stamp = at.replace(microsecond=0)
    return [
        KeytabEntry(principal, kvno, key, stamp) for principal in names.principals for key in keys
    ]


def belonging(keytab: Keytab, names: AccountNames) -> list[KeytabEntry]:
    """Return the entries of the account."""
    principals = set(names.principals)
    keys: list[EncryptionKey] = []  # each once: an account may have thousands of names
    for entry in keytab:
        if entry.principal in principals and entry.key not in keys:
            keys.append(entry.key)
    return [entry for entry in keytab if entry.principal in principals or entry.key in keys]
