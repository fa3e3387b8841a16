"""What a caller's function says of who may come in."""

from __future__ import annotations

__all__ = ["is_allowed"]


def is_allowed(answer: object) -> bool:
    """Return the answer of a function that may not be a coroutine function.

    Raises TypeError if it is one: a coroutine is true, whatever it would answer.
    """
    if hasattr(answer, "__await__"):
        if hasattr(answer, "close"):
            answer.close()  # or Python would warn that nothing awaited it
        raise TypeError("authorize is a coroutine function, whose answer nothing awaits here")
    return bool(answer)
