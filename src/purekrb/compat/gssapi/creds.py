"""Credentials, as objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from purekrb.compat.gssapi.names import Name
from purekrb.compat.gssapi.raw import creds as raw
from purekrb.compat.gssapi.raw import names as raw_names
from purekrb.compat.gssapi.raw.ext_cred_imp_exp import export_cred, import_cred
from purekrb.compat.gssapi.raw.ext_cred_store import (
    acquire_cred_from,
    add_cred_from,
    store_cred_into,
)
from purekrb.compat.gssapi.raw.ext_s4u import (
    acquire_cred_impersonate_name,
    add_cred_impersonate_name,
)
from purekrb.compat.gssapi.raw.named_tuples import (
    AcquireCredResult,
    InquireCredByMechResult,
    InquireCredResult,
    StoreCredResult,
)
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.tracebacks import forget_frames

__all__ = ["Credentials"]

Store = Mapping[str | bytes, str | bytes]


class Credentials(raw.Creds):
    """A credential: acquired with the arguments of `acquire`, imported, or a raw one."""

    @forget_frames
    def __new__(
        cls,
        base: raw.Creds | None = None,
        token: bytes | None = None,
        name: raw_names.Name | None = None,
        lifetime: int | None = None,
        mechs: Iterable[OID] | None = None,
        usage: str = "both",
        store: Store | None = None,
    ) -> Credentials:
        if token is not None:
            base = import_cred(token)
        elif base is None:
            base = acquire_cred_from(store, name, lifetime, mechs, usage).creds
        return super().__new__(cls, base)  # type: ignore[return-value]

    @classmethod
    @forget_frames
    def acquire(
        cls,
        name: raw_names.Name | None = None,
        lifetime: int | None = None,
        mechs: Iterable[OID] | None = None,
        usage: str = "both",
        store: Store | None = None,
    ) -> AcquireCredResult:
        """Return the credential of `name` (None: any), its mechanisms and its lifetime in seconds.

        `usage` is "initiate", "accept" or "both". `store` names where it is kept; see
        `raw.acquire_cred_from`.
        """
        result = acquire_cred_from(store, name, lifetime, mechs, usage)
        return result._replace(creds=cls(base=result.creds))

    @property
    def name(self) -> Name | None:
        """The principal; None if any key of the keytab serves to accept."""
        return self.inquire(lifetime=False, usage=False, mechs=False).name  # type: ignore[no-any-return]

    @property
    def lifetime(self) -> int | None:
        """The remaining seconds. Raises ExpiredCredentialsError if there are none."""
        return self.inquire(name=False, usage=False, mechs=False).lifetime

    @property
    def mechs(self) -> set[OID] | None:
        """The mechanisms."""
        return self.inquire(name=False, lifetime=False, usage=False).mechs

    @property
    def usage(self) -> str | None:
        """ "initiate", "accept" or "both"."""
        return self.inquire(name=False, lifetime=False, mechs=False).usage

    def inquire(
        self, name: bool = True, lifetime: bool = True, usage: bool = True, mechs: bool = True
    ) -> InquireCredResult:
        """Return what was asked for; None for all else."""
        result = raw.inquire_cred(self, name, lifetime, usage, mechs)
        return result._replace(name=_as_object(result.name))

    def inquire_by_mech(
        self,
        mech: OID,
        name: bool = True,
        init_lifetime: bool = True,
        accept_lifetime: bool = True,
        usage: bool = True,
    ) -> InquireCredByMechResult:
        """Return what was asked for; None for all else."""
        result = raw.inquire_cred_by_mech(self, mech, name, init_lifetime, accept_lifetime, usage)
        return result._replace(name=_as_object(result.name))

    def store(
        self,
        store: Store | None = None,
        usage: str = "both",
        mech: OID | None = None,
        overwrite: bool = False,
        set_default: bool = False,
    ) -> StoreCredResult:
        """Write the tickets to the `ccache` of a store, or to the default credential cache."""
        return store_cred_into(store, self, usage, mech, overwrite, set_default)

    @forget_frames
    def add(
        self,
        name: raw_names.Name,
        mech: OID,
        usage: str = "both",
        init_lifetime: int | None = None,
        accept_lifetime: int | None = None,
        impersonator: raw.Creds | None = None,
        store: Store | None = None,
    ) -> Credentials:
        """Return this credential with that of `name` added."""
        if impersonator is not None and store is not None:
            raise ValueError("pass either impersonator or store")
        if impersonator is not None:
            result = add_cred_impersonate_name(
                self, impersonator, name, mech, usage, init_lifetime, accept_lifetime
            )
        else:
            result = add_cred_from(store, self, name, mech, usage, init_lifetime, accept_lifetime)
        return type(self)(result.creds)

    def impersonate(
        self,
        name: raw_names.Name | None = None,
        lifetime: int | None = None,
        mechs: Iterable[OID] | None = None,
        usage: str = "initiate",
    ) -> Credentials:
        """Return the credential of `name`, in whose name this one may act (S4U2Self)."""
        result = acquire_cred_impersonate_name(self, name, lifetime, mechs, usage)
        return type(self)(result.creds)

    def export(self) -> bytes:
        """Return the token of this credential."""
        return export_cred(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (None, self.export())

    def __repr__(self) -> str:
        return f"<Credentials of {self._principal or 'any key'}, to {self._usage or 'nothing yet'}>"


def _as_object(name: raw_names.Name | None) -> Name | None:
    return None if name is None else Name(name)
