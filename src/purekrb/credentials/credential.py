"""Credential: a client, and how it proves its identity to the KDC."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NoReturn

from purekrb import crypto
from purekrb.constants import DEFAULT_ETYPES, EncryptionType, Requirement
from purekrb.credentials import files
from purekrb.credentials.ccache import CCache
from purekrb.credentials.keytab import Keytab
from purekrb.errors import CredentialError
from purekrb.keys import KEY_SIZES, EncryptionKey, etype_names
from purekrb.log import Log
from purekrb.names import Principal, as_written
from purekrb.system import fork_safe
from purekrb.tracebacks import forget_frames

__all__ = ["Credential"]

log = Log("purekrb.credentials")

#: Every encryption type that purekrb has, in order of preference.
_PREFERENCE = (*DEFAULT_ETYPES, *(etype for etype in EncryptionType if etype not in DEFAULT_ETYPES))
#: The most keys that are kept for one password. A KDC names one salt for each encryption type, and
#: seldom changes it.
_MAX_DERIVED = 16


class Credential:
    """A client and its password, keys or tickets.

    Make one with `from_password`, `from_keytab`, `from_key` or `from_ccache`. `principal` is the
    client as the caller named it. `ccache` holds its tickets, in memory until saved. `require` may
    be set to "fast" or "strong": the least that its AS exchanges must have (`KdcClient.get_tgt`).
    Nothing here uses the network. Several threads may use it. It cannot be pickled or copied.
    """

    # Without a __dict__, no tool can print one.
    __slots__ = (
        "_derived",
        "_keys",
        "_lock",
        "_password",
        "_wiped",
        "ccache",
        "kvno",
        "principal",
        "require",
    )

    @forget_frames
    def __init__(
        self,
        principal: Principal | str,
        *,
        password: bytes | None = None,
        keys: Iterable[EncryptionKey] = (),
        ccache: CCache | None = None,
    ) -> None:
        self.principal = Principal.of(
            as_written(principal) if isinstance(principal, str) else principal
        )
        self.ccache = CCache(self.principal) if ccache is None else ccache
        self._password = None if password is None else bytearray(password)
        self._keys = {key.etype: key for key in keys}
        self._derived: dict[tuple[int, bytes, bytes | None], EncryptionKey] = {}
        self._lock = fork_safe(threading.Lock())
        self._wiped = False
        self.require: Requirement | None = None
        #: The version of the keys, if a keytab holds them.
        self.kvno: int | None = None

    @classmethod
    @forget_frames
    def from_password(
        cls, principal: Principal | str, password: str | bytes, *, enterprise: bool = False
    ) -> Credential:
        r"""Return the credential of a password; text is encoded as UTF-8.

        `principal` is a Principal, `user@REALM`, or `DOMAIN\user` as Windows writes it. With
        `enterprise`, it is a user principal name whose suffix is no realm (`john.doe@mail.example`);
        the KDC of the default realm knows whose it is (RFC 6806 5). For the last two, the
        configuration of the first client that uses the credential completes `principal`. Raises
        DecodeError for a bad principal.
        """
        if isinstance(principal, str):
            principal = as_written(principal, enterprise=enterprise)
        return cls(principal, password=password.encode() if isinstance(password, str) else password)

    @classmethod
    @forget_frames
    def from_keytab(
        cls, principal: Principal | str, keytab: Keytab | files.FilePath | None = None
    ) -> Credential:
        """Return the credential of a principal with its keys in `keytab`.

        `keytab` is a Keytab, a file, or None: see `Keytab.load`. Only the keys of the newest kvno
        are used, since the KDC has no others. The first request to a KDC proves possession of a key
        before the KDC asks for it (docs/security.md). Raises CredentialError if the keytab has no
        key for exactly this principal, or none that purekrb can use.
        """
        principal = Principal.of(principal)
        keytab = keytab if isinstance(keytab, Keytab) else Keytab.load(keytab)
        found = keytab.find(principal)
        usable = [
            entry for entry in found if entry.kvno == found[0].kvno and entry.key.etype in KEY_SIZES
        ]
        if not usable:
            problem = "no usable key" if found else "no key"
            raise CredentialError(
                f"the keytab has {problem} for {principal}; it has {keytab.summary()}: "
                "name one of these principals, or export its keys again"
            )
        if log.on():
            log.debug(
                "keys of %s from the keytab: kvno %d, %s",
                principal,
                found[0].kvno,
                etype_names(entry.key.etype for entry in usable),
            )
        # Reversed, so that the newest of several keys of one etype stays.
        credential = cls(principal, keys=[entry.key for entry in reversed(usable)])
        credential.kvno = found[0].kvno
        return credential

    @classmethod
    @forget_frames
    def from_key(cls, principal: Principal | str, key: EncryptionKey) -> Credential:
        """Return the credential of a principal with its long-term key.

        The first request to a KDC proves possession of the key before the KDC asks for it.
        """
        return cls(principal, keys=[key])

    @classmethod
    @forget_frames
    def from_ccache(cls, ccache: CCache | files.FilePath | None = None) -> Credential:
        """Return the credential of the tickets in `ccache`.

        `ccache` is a CCache, a name, or None: see `CCache.load`. The credential works as long as
        its tickets last. New tickets stay in memory until saved.
        """
        ccache = ccache if isinstance(ccache, CCache) else CCache.load(ccache)
        return cls(ccache.principal, ccache=ccache)

    @property
    def can_get_tgt(self) -> bool:
        """Whether an AS exchange is possible: with a password or key, not with tickets alone."""
        return self._password is not None or bool(self._keys)

    @property
    def etypes(self) -> tuple[int, ...]:
        """The encryption types of the keys that `key_for` can return, in order of preference.

        A password has all types. RC4 is included if there is such a key: the exchange decides
        whether it is permitted.
        """
        return tuple(
            etype for etype in _PREFERENCE if self._password is not None or etype in self._keys
        )

    @property
    def needs_salt(self) -> bool:
        """Whether `key_for` needs the salt and parameters from the KDC; true with a password."""
        return self._password is not None

    @forget_frames
    def key_for(self, etype: int, salt: bytes, params: bytes | None = None) -> EncryptionKey | None:
        """Return the client's long-term key of `etype`, or None if it has no such key.

        `salt` and `params` are the KDC's values for string-to-key; only a password needs them.
        Raises DecodeError or PolicyError for bad `params`, and CredentialError after `wipe()`.
        """
        with self._lock:
            if self._wiped:
                raise CredentialError(
                    f"the credential of {self.principal} was wiped: make a new one"
                )
            if self._password is None or etype not in _PREFERENCE:
                return self._keys.get(etype)
            known = self._derived.get((etype, salt, params))
            if known is not None:
                return known
            password = bytes(self._password)
        # This takes milliseconds, so it is done outside the lock.
        key = crypto.string_to_key(etype, password, salt, params)
        with self._lock:
            if len(self._derived) >= _MAX_DERIVED:
                self._derived.clear()
            if not self._wiped:
                self._derived[etype, salt, params] = key
        return key

    def save(self, ccache: files.FilePath | None = None) -> None:
        """Replace the ccache of that name by the tickets of this credential.

        None: see `CCache.save`. Raises CredentialError if there is no ticket yet, or if the file
        cannot be written.
        """
        if not len(self.ccache):
            raise CredentialError(
                f"there is no ticket of {self.principal} to save: get one first (KdcClient.get_tgt)"
            )
        self.ccache.save(ccache)

    def wipe(self) -> None:
        """Overwrite the password and the keys derived from it, and release all else. Best effort.

        Keys and ccaches from the caller may be in use elsewhere, so they are not overwritten.
        """
        with self._lock:
            self._wiped = True
            if self._password is not None:
                self._password[:] = bytes(len(self._password))
                self._password = None
            for key in self._derived.values():
                key.wipe()
            self._derived.clear()
            self._keys.clear()
            self.ccache = CCache(self.principal)

    def __repr__(self) -> str:
        proof = "password" if self._password is not None else "keys" if self._keys else "tickets"
        return f"Credential({self.principal}, {proof}=<redacted>)"

    def _refuse(self, *_args: object) -> NoReturn:
        raise TypeError(
            "a Credential is secret and cannot be pickled or copied: "
            "pass the object, or save its ccache"
        )

    __reduce__ = _refuse
    __reduce_ex__ = _refuse
    __copy__ = _refuse
    __deepcopy__ = _refuse
