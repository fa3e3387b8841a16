"""Keeps secrets out of the tracebacks of errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from sys import exc_info
from types import FrameType
from typing import ParamSpec, TypeVar

__all__ = ["forget_frames", "forget_locals"]

P = ParamSpec("P")
T = TypeVar("T")

#: Attributes in which errors of Python hold the object that they concern, and their replacement.
_SUBJECTS = (("AttributeError", "obj", None), ("JSONDecodeError", "doc", ""))


def forget_frames(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function`, but without the locals of its frames in its errors.

    These locals hold secrets, and some tools print locals. All exceptions are covered, including a
    caller's mistake (TypeError) and an exception from a signal handler. The line numbers remain. A
    UnicodeError becomes a ValueError, since a UnicodeError holds the text.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        outer = None
        failure: BaseException
        try:
            outer = exc_info()[1]
            return function(*args, **kwargs)
        except UnicodeError:
            del args, kwargs
            failure = ValueError("a password, a salt or a name is not valid Unicode text")
        except BaseException as error:
            del args, kwargs
            forget_locals(error, outer)
            failure = error
        try:
            raise failure
        finally:
            # Otherwise the error and this frame would refer to each other until a garbage
            # collection.
            del failure, outer

    return wrapper


def forget_locals(error: BaseException, outer: BaseException | None = None) -> None:
    """Clear the locals of the frames through which `error` came. The caller has just caught it.

    The frame of the caller is still running and keeps its locals, so the caller must delete its
    secrets first. The causes and contexts of `error` are cleared too, up to `outer`: the error that
    was being handled before. A suppressed context (`from None`) is removed.
    """
    caller = None if error.__traceback__ is None else error.__traceback__.tb_frame
    todo: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while todo:
        one = todo.pop()
        if one is None or one is outer or any(one is other for other in seen):
            continue
        seen.append(one)
        if one.__suppress_context__ and one.__context__ is not outer:
            one.__context__ = None
        # A UnicodeError holds the text.
        if isinstance(one.__context__, UnicodeError) and one.__context__ is not outer:
            one.__context__ = None
        _clear(one, caller)
        todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _clear(error: BaseException, caller: FrameType | None) -> None:
    entry = error.__traceback__
    while entry is not None:
        try:
            if entry.tb_frame is not caller:
                entry.tb_frame.clear()
        except RuntimeError:
            # A frame that is still running cannot be cleared: the whole traceback is dropped.
            error.__traceback__ = None
            break
        entry = entry.tb_next
    for kind, name, nothing in _SUBJECTS:
        if type(error).__name__ == kind:
            setattr(error, name, nothing)
