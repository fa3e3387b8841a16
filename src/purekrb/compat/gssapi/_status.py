"""Errors of purekrb as those of GSS-API."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from purekrb import errors
from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi.raw.misc import GSSError
from purekrb.constants import ErrorCode
from purekrb.errors import ApError, KdcError, KerberosError, SequenceError

__all__ = ["gss_error", "status", "unavailable", "as_gss_errors"]

P = ParamSpec("P")
T = TypeVar("T")

#: Class -> the major and minor code; the first class that matches counts. A code of None stands for
#: that of the KRB-ERROR.
_HANDSHAKE: tuple[tuple[type[KerberosError], tuple[int, int | None]], ...] = (
    (errors.ChannelBindingsError, (codes.BAD_BINDINGS, 0)),
    (errors.KdcError, (codes.FAILURE, None)),
    (errors.ApError, (codes.FAILURE, None)),
    (errors.MutualAuthenticationError, (codes.FAILURE, codes.MUTUAL_FAILED)),
    (errors.IntegrityError, (codes.FAILURE, codes.KRB5 + ErrorCode.KRB_AP_ERR_BAD_INTEGRITY)),
    (errors.ContextExpiredError, (codes.FAILURE, codes.KRB5 + ErrorCode.KRB_AP_ERR_TKT_EXPIRED)),
    (errors.ContextError, (codes.NO_CONTEXT, 0)),
    (errors.CredentialError, (codes.NO_CRED, codes.CC_NOTFOUND)),
    (errors.ConfigError, (codes.FAILURE, codes.CONFIG)),
    (errors.TransportError, (codes.FAILURE, codes.KDC_UNREACH)),
    (errors.SpnError, (codes.BAD_NAME, codes.MALFORMED_NAME)),
    (errors.UnsupportedError, (codes.UNAVAILABLE, 0)),
    (errors.PolicyError, (codes.FAILURE, codes.BAD_ETYPE)),
    (errors.DecodeError, (codes.DEFECTIVE_TOKEN, 0)),
    (errors.ProtocolError, (codes.DEFECTIVE_TOKEN, 0)),
    (errors.KerberosError, (codes.FAILURE, 0)),
)
#: What differs for messages of an established context.
_MESSAGE: tuple[tuple[type[KerberosError], tuple[int, int | None]], ...] = (
    (errors.IntegrityError, (codes.BAD_SIG, 0)),
    (errors.ContextExpiredError, (codes.CONTEXT_EXPIRED, 0)),
    *_HANDSHAKE,
)
#: `SequenceError.reason` -> the supplementary bit.
_REASONS = {"duplicate": 2, "old": 4, "unsequenced": 8, "gap": 16}


def gss_error(error: KerberosError, *, message: bool = False) -> GSSError:
    """Return the GSSError for an error of purekrb, which becomes its cause.

    `message`: the error is about a message of an established context.
    """
    if isinstance(error, SequenceError):
        major: int = _REASONS[error.reason]
        minor: int | None = 0
    else:
        table = _MESSAGE if message else _HANDSHAKE
        major, minor = next(codes for cls, codes in table if isinstance(error, cls))
    if minor is None:
        minor = codes.KRB5 + error.code if isinstance(error, KdcError | ApError) else 0
    return status(major, minor, str(error), error.response)


def status(major: int, minor: int, reason: str, token: bytes | None = None) -> GSSError:
    """Return the GSSError of these codes, with the words of the minor code and then `reason`."""
    words = codes.MINOR_TEXTS.get(minor) if minor else None
    return GSSError(major, minor, token, f"{words}: {reason}" if words else reason)


def unavailable(function: str, why: str) -> GSSError:
    """Return the OperationUnavailableError for a function that purekrb lacks; the text names it."""
    return status(codes.UNAVAILABLE, 0, f"{function}: {why}")


def as_gss_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` with the errors of purekrb as GSSErrors."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except KerberosError as error:
            raise gss_error(error) from error

    return wrapper
