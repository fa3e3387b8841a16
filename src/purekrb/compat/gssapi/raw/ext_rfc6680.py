"""Names with attributes. Names have none here. Source: RFC 6680."""

from __future__ import annotations

from collections.abc import Iterable

from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw.named_tuples import GetNameAttributeResult, InquireNameResult
from purekrb.compat.gssapi.raw.names import Name, display_name, export_composite
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import MechType

__all__ = [
    "display_name_ext",
    "inquire_name",
    "set_name_attribute",
    "get_name_attribute",
    "delete_name_attribute",
    "export_name_composite",
]


def display_name_ext(name: Name, name_type: OID) -> bytes:
    """Return the text of a name; that of principals is the same for all types."""
    return display_name(name, name_type=False).name


def inquire_name(name: Name, mech_name: bool = True, attrs: bool = True) -> InquireNameResult:
    """Return what was asked for; None for all else."""
    is_mech_name = name._principal is not None
    return InquireNameResult(
        [] if attrs else None,
        is_mech_name if mech_name else None,
        MechType.kerberos if mech_name and is_mech_name else None,
    )


def set_name_attribute(
    name: Name, attr: bytes, value: Iterable[bytes], complete: bool = False
) -> None:
    """Raise OperationUnavailableError."""
    raise _status.unavailable("set_name_attribute", _WHY)


def get_name_attribute(name: Name, attr: bytes, more: int | None = None) -> GetNameAttributeResult:
    """Raise OperationUnavailableError."""
    raise _status.unavailable("get_name_attribute", _WHY)


def delete_name_attribute(name: Name, attr: bytes) -> None:
    """Raise OperationUnavailableError."""
    raise _status.unavailable("delete_name_attribute", _WHY)


#: Names with attributes, as MIT's library exports them, but without attributes.
export_name_composite = export_composite
_WHY = "names have no attributes"
