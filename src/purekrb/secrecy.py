"""Keeps secrets out of the tracebacks of errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from purekrb.errors import KerberosError

__all__ = ["forget_frames"]

P = ParamSpec("P")
T = TypeVar("T")


def forget_frames(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function`, but its errors carry no frames of it: their locals hold secrets, and some tools print locals.

    Text that is no Unicode becomes a ValueError, since the UnicodeError itself would hold the text.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        failure: Exception
        try:
            return function(*args, **kwargs)
        except UnicodeError:
            failure = ValueError("a password, a salt or a name is no valid Unicode text")
        except (KerberosError, ValueError) as error:
            failure = error.with_traceback(None)
            for reason in (error.__cause__, error.__context__):
                if reason is not None:
                    reason.with_traceback(None)  # in place
        del args, kwargs
        raise failure

    return wrapper
