"""Records: immutable values with named fields that are as cheap to make as a tuple, which they are.

A handshake makes some thirty values. A frozen dataclass takes a microsecond for each, a named tuple a fifth of it; and
`dataclasses` alone would take a third of the time that importing contexts takes. Elsewhere dataclasses serve.
"""

from __future__ import annotations

from collections import namedtuple
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["record", "replace", "field_names"]

T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_options: object) -> Any:
        """Stand in for what only type checkers need."""
        return lambda decorator: decorator


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Return `cls` as a class of named tuples whose fields are the annotated names, with their defaults.

    As with a dataclass, `__post_init__` checks what was passed; a method of the class stands above that of the tuple.
    """
    names = [name for name, kind in cls.__annotations__.items() if not str(kind).startswith("ClassVar")]
    body = {name: value for name, value in vars(cls).items() if name not in (*names, "__dict__", "__weakref__")}
    defaults = [vars(cls)[name] for name in names if name in vars(cls)]
    base = namedtuple(cls.__name__, names, defaults=defaults, module=cls.__module__)  # type: ignore[misc]
    if "__post_init__" in body:
        body["__new__"] = _checked(base)
        body["_make"] = classmethod(lambda cls, values: cls(*values))  # what a tuple's own _replace makes, too
    bases = tuple(kind for kind in cls.__bases__ if kind is not object)
    made: type[T] = type(cls.__name__, (*bases, base), {**body, "__slots__": ()})
    return made


def _checked(base: Any) -> Any:
    @wraps(base.__new__)
    def __new__(cls: Any, *values: Any, **named: Any) -> Any:  # noqa: N807 - it is one
        self = base.__new__(cls, *values, **named)
        self.__post_init__()
        return self

    return __new__


def replace(value: T, **changes: Any) -> T:
    """Return the record with some fields changed, checked as a new one."""
    kind: Any = type(value)
    made: T = kind(**{**dict(zip(kind._fields, value, strict=True)), **changes})  # type: ignore[call-overload]
    return made


def field_names(kind: type) -> tuple[str, ...]:
    """Return the names of a record's fields, () for what is none."""
    return getattr(kind, "_fields", ())
