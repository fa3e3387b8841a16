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

#: Attributes in which Python's own errors keep what they are about, and what is put there in its place.
_SUBJECTS = (("AttributeError", "obj", None), ("JSONDecodeError", "doc", ""))


def forget_frames(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function`, but its errors carry no locals of its frames: they hold secrets, and some tools print locals.

    That goes for every exception: also a caller's mistake (TypeError), and what a signal handler raises meanwhile. The
    lines remain. Text that is no Unicode becomes a ValueError, since the UnicodeError itself would hold the text.
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
            failure = ValueError("a password, a salt or a name is no valid Unicode text")
        except BaseException as error:
            del args, kwargs
            forget_locals(error, outer)
            failure = error
        try:
            raise failure
        finally:
            del (
                failure,
                outer,
            )  # or the error and this frame would hold each other, until a garbage collection

    return wrapper


def forget_locals(error: BaseException, outer: BaseException | None = None) -> None:
    """Clear the locals of the frames through which `error`, which the caller has just caught, came.

    The frame that calls this still runs and keeps its own: it deletes from them what is secret, before it calls this.
    The errors that it came from lose theirs too, up to `outer`, which was being handled before; what was suppressed
    (`from None`) is dropped.
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
        if (
            isinstance(one.__context__, UnicodeError) and one.__context__ is not outer
        ):  # it holds the text
            one.__context__ = None
        _clear(one, caller)
        todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _clear(error: BaseException, caller: FrameType | None) -> None:
    entry = error.__traceback__
    while entry is not None:
        try:
            if entry.tb_frame is not caller:
                entry.tb_frame.clear()
        except (
            RuntimeError
        ):  # one that still runs cannot be cleared: then nothing of the traceback is kept
            error.__traceback__ = None
            break
        entry = entry.tb_next
    for kind, name, nothing in _SUBJECTS:
        if type(error).__name__ == kind:
            setattr(error, name, nothing)
