"""Names, as objects."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi._utils import encoded, encoding
from purekrb.compat.gssapi.raw import names
from purekrb.compat.gssapi.raw.ext_rfc6680 import export_name_composite, inquire_name
from purekrb.compat.gssapi.raw.named_tuples import InquireNameResult
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import NameType

__all__ = ["Name"]


class Name(names.Name):
    """A name: from text and a type, from an exported token, or from a raw name."""

    def __new__(
        cls,
        base: names.Name | bytes | str | None = None,
        name_type: OID | None = None,
        token: bytes | None = None,
        composite: bool = False,
    ) -> Name:
        if token is not None:
            kind = NameType.composite_export if composite else NameType.export
            base = names.import_name(token, kind)
        elif isinstance(base, (bytes, str)):
            base = names.import_name(encoded(base), name_type)
        return super().__new__(cls, base)  # type: ignore[return-value]

    def __init__(
        self,
        base: names.Name | bytes | str | None = None,
        name_type: OID | None = None,
        token: bytes | None = None,
        composite: bool = False,
    ) -> None:
        pass

    def __str__(self) -> str:
        return self._text.decode(encoding())

    def __bytes__(self) -> bytes:
        return self._text

    def __repr__(self) -> str:
        return f"Name({self._text!r}, {self._type!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, names.Name) and names.compare_name(self, other)

    __hash__ = None  # type: ignore[assignment]  # a name may equal names with another text

    def __copy__(self) -> Name:
        return type(self)(self)

    def __deepcopy__(self, memo: Any) -> Name:
        return type(self)(self)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._principal is not None:
            return type(self), (None, None, names.export_name(self))
        return type(self), (self._text, self._type)

    @property
    def name_type(self) -> OID | None:
        """The type of the name; None if it was made without one."""
        return self._type

    def display_as(self, name_type: OID) -> str:
        """Return the text of the name as one of `name_type`; for principals, that of the principal."""
        return str(self)

    def canonicalize(self, mech: OID) -> Name:
        """Return the mechanism name. Hosts are not looked up in the DNS."""
        return type(self)(names.canonicalize_name(self, mech))

    def export(self, composite: bool = False) -> bytes:
        """Return the token of a mechanism name."""
        return export_name_composite(self) if composite else names.export_name(self)

    def _inquire(self, **kwargs: bool) -> InquireNameResult:
        wanted = kwargs if any(kwargs.values()) else {"mech_name": True, "attrs": True}
        return inquire_name(self, wanted.get("mech_name", False), wanted.get("attrs", False))

    @property
    def is_mech_name(self) -> bool:
        """Whether it is the name of a principal."""
        return self._principal is not None

    @property
    def mech(self) -> OID | None:
        """The mechanism of a mechanism name."""
        return self._inquire(mech_name=True).mech

    @property
    def attributes(self) -> MutableMapping[Any, Any]:
        """The attributes of a mechanism name: none. The client's SIDs are in `Acceptor.identity`."""
        if self._principal is None:
            raise _status.status(codes.NAME_NOT_MN, 0, "only mechanism names have attributes")
        return _NoAttributes()


class _NoAttributes(MutableMapping[Any, Any]):
    def __getitem__(self, key: Any) -> Any:
        raise _status.unavailable("get_name_attribute", "names have no attributes")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise _status.unavailable("set_name_attribute", "names have no attributes")

    def __delitem__(self, key: Any) -> None:
        raise _status.unavailable("delete_name_attribute", "names have no attributes")

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0
