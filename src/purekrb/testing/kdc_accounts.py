"""The accounts of the embedded KDC, and the error by which it refuses a request."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

from purekrb import crypto
from purekrb.constants import ErrorCode
from purekrb.keys import EncryptionKey
from purekrb.names import Principal, PrincipalName
from purekrb.system import RandomBytes

__all__ = ["CLOCK_SKEW", "KdcAccount", "RefusedError"]

#: The most by which the clock of a client may be off. Source: RFC 4120 8.2.
CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class KdcAccount:
    """A principal with keys at the KDC: a user, a service, or a ticket-granting service.

    `etypes` are in order of preference; tickets for this principal are encrypted with the first.
    The keys of a user are derived from `password`, `salt` and PBKDF2 `iterations` (None: the
    default of the etype). The keys of a service are random. A service acts for users at the
    services in `delegate_to`, and at those whose `delegate_from` lists it; if it is
    `trusted_to_auth`, also for users who have not come to it. Nobody acts for users that are
    `not_delegated`. Source: MS-SFU 3.2.
    """

    name: PrincipalName
    etypes: tuple[int, ...]
    kvno: int
    password: str | None = field(default=None, repr=False)
    salt: bytes = b""
    iterations: int | None = None
    preauth: bool = True
    password_expired: bool = False
    disabled: bool = False
    sets_passwords: bool = False
    ok_as_delegate: bool = False
    lifetime: timedelta | None = None
    delegate_to: frozenset[PrincipalName] = frozenset()
    delegate_from: frozenset[Principal] = frozenset()
    trusted_to_auth: bool = False
    not_delegated: bool = False
    #: Whether tickets for it are under its TGT, and never under its key.
    user_to_user: bool = False
    #: By kvno and etype. Keys of earlier kvnos stay, for tickets that are still in use.
    keys: dict[tuple[int, int], EncryptionKey] = field(default_factory=dict, repr=False)

    @property
    def s2kparams(self) -> bytes | None:
        """The string-to-key parameters as ETYPE-INFO2 carries them. Source: RFC 3962 4."""
        return None if self.iterations is None else self.iterations.to_bytes(4, "big")

    def key(self, etype: int, kvno: int | None = None) -> EncryptionKey | None:
        """Return the key of `etype` and `kvno` (None: the current one), or None without one."""
        kvno = self.kvno if kvno is None else kvno
        known = self.keys.get((kvno, etype))
        if known is not None or self.password is None:
            return known
        if kvno != self.kvno or etype not in self.etypes:
            return None
        # Derived on first use: PBKDF2 for every etype of every user would dominate the start time.
        derived = crypto.string_to_key(etype, self.password, self.salt, self.s2kparams)
        self.keys[kvno, etype] = derived
        return derived

    def with_random_keys(self, kvno: int, random: RandomBytes) -> KdcAccount:
        """Return this account with fresh random keys of `kvno` as its current ones."""
        fresh = {(kvno, etype): crypto.random_key(etype, random) for etype in self.etypes}
        return replace(self, kvno=kvno, keys={**self.keys, **fresh})


class RefusedError(Exception):
    """A request that is answered with a KRB-ERROR."""

    def __init__(
        self, code: ErrorCode, text: str, *, e_data: bytes | None = None, crealm: str | None = None
    ) -> None:
        super().__init__(text)
        self.code, self.text, self.e_data, self.crealm = code, text, e_data, crealm
