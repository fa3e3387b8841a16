"""Mechanisms, as objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from purekrb.compat.gssapi._utils import encoded, encoding
from purekrb.compat.gssapi.raw import misc
from purekrb.compat.gssapi.raw.ext_rfc5587 import indicate_mechs_by_attrs, inquire_attrs_for_mech
from purekrb.compat.gssapi.raw.ext_rfc5801 import (
    inquire_mech_for_saslname,
    inquire_saslname_for_mech,
)
from purekrb.compat.gssapi.raw.names import Name
from purekrb.compat.gssapi.raw.oids import OID

__all__ = ["Mechanism"]

Attributes = OID | Iterable[OID] | None


class Mechanism(OID):
    """A mechanism: its OID, and what is known of it."""

    __slots__ = ()

    @property
    def name_types(self) -> set[OID]:
        """The types of names that it takes."""
        return misc.inquire_names_for_mech(self)

    @property
    def sasl_name(self) -> str:
        """Its name in SASL, such as GS2-KRB5."""
        return inquire_saslname_for_mech(self).sasl_mech_name.decode(encoding())

    @property
    def description(self) -> str:
        """What it is, in words."""
        return inquire_saslname_for_mech(self).mech_description.decode(encoding())

    @property
    def known_attrs(self) -> set[OID]:
        """The attributes of which it tells whether it has them."""
        return inquire_attrs_for_mech(self).known_mech_attrs

    @property
    def attrs(self) -> set[OID]:
        """The attributes that it has."""
        return inquire_attrs_for_mech(self).mech_attrs

    def __str__(self) -> str:
        return inquire_saslname_for_mech(self).mech_name.decode(encoding())

    def __repr__(self) -> str:
        return f"<Mechanism {self} ({self.dotted_form})>"

    @classmethod
    def all_mechs(cls) -> Iterator[Mechanism]:
        """Return all mechanisms."""
        return (cls(mech) for mech in misc.indicate_mechs())

    @classmethod
    def from_name(cls, name: Name) -> Iterator[Mechanism]:
        """Return the mechanisms that take `name`."""
        return (cls(mech) for mech in misc.inquire_mechs_for_name(name))

    @classmethod
    def from_sasl_name(cls, name: str | bytes | None = None) -> Mechanism:
        """Return the mechanism with a name in SASL. Raises BadMechanismError."""
        return cls(inquire_mech_for_saslname(encoded(name or b"")))

    @classmethod
    def from_attrs(
        cls,
        desired_attrs: Attributes = None,
        except_attrs: Attributes = None,
        critical_attrs: Attributes = None,
    ) -> Iterator[Mechanism]:
        """Return the mechanisms with all of `desired_attrs` and none of `except_attrs`.

        They must know all of `critical_attrs`.
        """
        mechs = indicate_mechs_by_attrs(
            *map(_several, (desired_attrs, except_attrs, critical_attrs))
        )
        return (cls(mech) for mech in mechs)


def _several(attrs: Attributes) -> Iterable[OID] | None:
    return [attrs] if isinstance(attrs, OID) else attrs
