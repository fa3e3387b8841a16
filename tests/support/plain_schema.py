"""The schemas of messages without any memory: what reading must come to, whatever was read before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from purekrb.messages.der import Field, Message, Sequence, SequenceOf
from purekrb.messages.layouts import Remembered


def plain(kind: type[Message]) -> Callable[[bytes], Any]:
    """Return what decodes a message by `der` alone: strictly, field by field, with nothing remembered."""
    body = {"__slots__": (), "schema": _plain(kind.schema), "_read": vars(Message)["_read"]}
    return type(kind.__name__, (kind,), body).decode


def _plain(schema: Any) -> Any:
    if isinstance(schema, Remembered):
        return _plain(schema._inner)
    twin = copy.copy(schema)
    if isinstance(schema, Sequence):
        twin = object.__new__(Sequence)  # not a Labelled
        vars(twin).update(vars(schema))
        twin.fields = tuple(map(_plain_field, schema.fields))
    elif isinstance(schema, SequenceOf):
        twin.item = _plain(schema.item)
    elif hasattr(schema, "inner"):
        twin.inner = _plain(schema.inner)
    return twin


def _plain_field(field: Field) -> Field:
    twin = copy.copy(field)
    twin.type = _plain(field.type)
    return twin
