"""All exceptions: those of the codes of GSS-API, and those of the objects."""

from __future__ import annotations

from purekrb.compat.gssapi.raw.exceptions import *  # noqa: F403 - there are thirty
from purekrb.compat.gssapi.raw.misc import GSSError as GSSError

__all__ = ["GSSError", "GeneralError", "UnknownUsageError", "EncryptionNotUsed"]


class GeneralError(Exception):
    """An error of the objects, with words of its own kind before its message."""

    MAJOR_MESSAGE = "General error"
    FMT_STR = "{maj}: {min}."

    def __init__(self, minor_message: str, **kwargs: str) -> None:
        major = self.MAJOR_MESSAGE.format(**kwargs)
        super().__init__(self.FMT_STR.format(maj=major, min=minor_message))


class UnknownUsageError(GeneralError):
    """`usage` is not one of those there are."""

    MAJOR_MESSAGE = "Unable to determine {obj} usage"


class EncryptionNotUsed(GeneralError):  # noqa: N818 - python-gssapi's name
    """A message was to be encrypted, and was not; `unwrapped_message` holds it."""

    MAJOR_MESSAGE = "Confidentiality was requested, but not used"

    def __init__(
        self, minor_message: str, unwrapped_message: bytes | None = None, **kwargs: str
    ) -> None:
        super().__init__(minor_message, **kwargs)
        self.unwrapped_message = unwrapped_message
