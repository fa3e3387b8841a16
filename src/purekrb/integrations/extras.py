"""Packages that only some integrations need: the error if one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from purekrb.errors import UnsupportedError

__all__ = ["extra"]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Raise UnsupportedError, which names the extra, if the block cannot import its package."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("purekrb"):
            raise
        raise UnsupportedError(
            f"the package {error.name} is not installed: run `pip install purekrb[{name}]`"
        ) from None
