"""Records and dataclasses, treated alike."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from purekrb import records

__all__ = ["replace", "field_names"]

T = TypeVar("T")


def replace(value: T, **changes: Any) -> T:
    """Return the record or the dataclass with some fields changed."""
    if records.field_names(type(value)):
        return records.replace(value, **changes)
    return dataclasses.replace(value, **changes)  # type: ignore[type-var]


def field_names(kind: Any) -> tuple[str, ...]:
    """Return the names of the fields of a kind of record or dataclass."""
    return records.field_names(kind) or tuple(field.name for field in dataclasses.fields(kind))
