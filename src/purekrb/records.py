"""Records: immutable values with named fields, as cheap to make as the named tuples that they are.

A handshake makes some thirty values. A frozen dataclass takes a microsecond for each, a named tuple
a fifth of it, and importing `dataclasses` would take a third of the time that importing contexts
takes. Elsewhere dataclasses serve.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["record", "replace", "field_names"]

T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_options: object) -> Any:
        """Replace the decorator of `typing_extensions`, which only type checkers need."""
        return lambda decorator: decorator


def _described(value: object) -> str:
    """Return repr(value), but only the length of bytes.

    They may be a message that contains a key in cleartext.
    """
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if type(value) is tuple:
        return f"({', '.join(map(_described, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


class _Record:
    """Base of all records. Unlike tuples, records of two types are never equal.

    The repr shows the size of bytes, not their contents.
    """

    __slots__ = ()
    __hash__ = tuple.__hash__

    def __repr__(self) -> str:
        values: Any = self
        fields = ", ".join(
            f"{name}={_described(value)}"
            for name, value in zip(values._fields, values, strict=True)
        )
        return f"{type(self).__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and tuple.__eq__(self, other)  # type: ignore[operator]

    def __ne__(self, other: object) -> bool:  # tuple.__ne__ would not call __eq__
        return not self == other

    def _replace(self, **changes: Any) -> Any:
        return replace(self, **changes)


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Return `cls` as a class of named tuples: the annotated names are the fields.

    As with a dataclass, fields have defaults, and `__post_init__` checks what was passed. A record
    that is declared a tuple (`class Pair(tuple[int, str])`) compares as one.
    """
    own = vars(cls)
    names = [
        name for name, kind in cls.__annotations__.items() if not str(kind).startswith("ClassVar")
    ]
    defaults = [own[name] for name in names if name in own]
    fields = namedtuple(cls.__name__, names, defaults=defaults, module=cls.__module__)  # type: ignore[misc]
    body = {
        name: value
        for name, value in own.items()
        if name not in (*names, "__dict__", "__weakref__")
    }
    body["__slots__"] = ()
    if "__post_init__" in body:
        body["__new__"] = _checked(fields)
    bases = [kind for kind in cls.__bases__ if kind not in (object, tuple)]
    if tuple not in cls.__bases__:
        bases.append(_Record)
    made: type[T] = type(cls.__name__, (*bases, fields), body)
    return made


def _checked(fields: Any) -> Any:
    make = fields.__new__

    def __new__(cls: Any, *values: Any, **named: Any) -> Any:  # noqa: N807 - it is a method
        self = make(cls, *values, **named)
        self.__post_init__()
        return self

    __new__.__wrapped__ = make  # type: ignore[attr-defined]  # its signature
    return __new__


def replace(value: T, **changes: Any) -> T:
    """Return the record with some fields changed. `__post_init__` checks it as a new one."""
    kind: Any = type(value)
    made: T = kind(**{**dict(zip(kind._fields, value, strict=True)), **changes})  # type: ignore[call-overload]
    return made


def field_names(kind: type) -> tuple[str, ...]:
    """Return the names of a record's fields; () where `kind` is another class."""
    return getattr(kind, "_fields", ())
