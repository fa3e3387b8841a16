"""Records: immutable values with named fields that are as cheap to make as a tuple, which they are.

A handshake makes some thirty values. A frozen dataclass takes a microsecond for each, a named tuple a fifth of it; and
`dataclasses` alone would take a third of the time that importing contexts takes. `collections.namedtuple`, which
compiles text for each class, would take a tenth of it; so they are put together here. Elsewhere dataclasses serve.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, cast

__all__ = ["record", "replace", "field_names"]

T = TypeVar("T")
_tuple = tuple.__new__
#: What makes a tuple of as many values as its place here says, and one: `_constructor` names the parameters.
_CONSTRUCTORS: tuple[Callable[..., Any], ...] = (
    lambda cls, a: _tuple(cls, (a,)),
    lambda cls, a, b: _tuple(cls, (a, b)),
    lambda cls, a, b, c: _tuple(cls, (a, b, c)),
    lambda cls, a, b, c, d: _tuple(cls, (a, b, c, d)),
    lambda cls, a, b, c, d, e: _tuple(cls, (a, b, c, d, e)),
    lambda cls, a, b, c, d, e, f: _tuple(cls, (a, b, c, d, e, f)),
    lambda cls, a, b, c, d, e, f, g: _tuple(cls, (a, b, c, d, e, f, g)),
    lambda cls, a, b, c, d, e, f, g, h: _tuple(cls, (a, b, c, d, e, f, g, h)),
    lambda cls, a, b, c, d, e, f, g, h, i: _tuple(cls, (a, b, c, d, e, f, g, h, i)),
    lambda cls, a, b, c, d, e, f, g, h, i, j: _tuple(cls, (a, b, c, d, e, f, g, h, i, j)),
    lambda cls, a, b, c, d, e, f, g, h, i, j, k: _tuple(cls, (a, b, c, d, e, f, g, h, i, j, k)),
    lambda cls, a, b, c, d, e, f, g, h, i, j, k, m: _tuple(cls, (a, b, c, d, e, f, g, h, i, j, k, m)),
    lambda cls, a, b, c, d, e, f, g, h, i, j, k, m, n: _tuple(cls, (a, b, c, d, e, f, g, h, i, j, k, m, n)),
    lambda cls, a, b, c, d, e, f, g, h, i, j, k, m, n, o: _tuple(cls, (a, b, c, d, e, f, g, h, i, j, k, m, n, o)),
)
_PLACES = [f"place_{at}" for at in range(len(_CONSTRUCTORS))]
#: What reads a value by its place, of any tuple.
_READERS = list(map(vars(namedtuple("_Places", _PLACES)).get, _PLACES))

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_options: object) -> Any:
        """Stand in for what only type checkers need."""
        return lambda decorator: decorator


def _described(value: object) -> str:
    """Return repr(value), but of bytes their number: they may be a message in which a key stands in the clear."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if type(value) is tuple:
        return f"({', '.join(map(_described, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


class _Record(tuple[Any, ...]):
    """Base of all records: what a named tuple has besides its fields. The repr shows no contents of bytes."""

    __slots__ = ()
    _fields: tuple[str, ...] = ()

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={_described(value)}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({fields})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def _replace(self, **changes: Any) -> Any:
        return replace(self, **changes)


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Return `cls` as a class of tuples whose at most 14 fields are the annotated names, with their defaults.

    As with a dataclass, `__post_init__` checks what was passed; a method of the class stands above that of the tuple.
    Type checkers know that it is a tuple where `cls` says so: `class Pair(tuple[int, str])`.
    """
    own = vars(cls)
    names = tuple(name for name, kind in cls.__annotations__.items() if not str(kind).startswith("ClassVar"))
    body = {name: value for name, value in own.items() if name not in ("__dict__", "__weakref__")}
    body |= zip(names, _READERS, strict=False)
    body |= {"__slots__": (), "_fields": names, "__match_args__": names}
    body["__new__"] = _constructor(names, tuple(own[name] for name in names if name in own))
    if "__post_init__" in body:
        body["__new__"] = _checked(body["__new__"])
    bases = tuple(kind for kind in cls.__bases__ if kind not in (object, tuple))
    made: type[T] = type(cls.__name__, (*bases, _Record), body)
    return made


def _constructor(names: tuple[str, ...], defaults: tuple[Any, ...]) -> Callable[..., Any]:
    """Return `__new__` with parameters of these names, of which the last ones have defaults."""
    code = cast(FunctionType, _CONSTRUCTORS[len(names) - 1]).__code__
    return FunctionType(code.replace(co_varnames=("cls", *names), co_name="__new__"), globals(), "__new__", defaults)


def _checked(make: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(make)
    def __new__(cls: Any, *values: Any, **named: Any) -> Any:  # noqa: N807 - it is one
        self = make(cls, *values, **named)
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
