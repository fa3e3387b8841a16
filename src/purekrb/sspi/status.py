"""The statuses of SSPI for purekrb's errors: one table by KRB-ERROR code, one by class."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import ParamSpec, TypeVar

from purekrb import errors
from purekrb.constants import ErrorCode
from purekrb.errors import (
    ApError,
    ChannelBindingsError,
    KdcError,
    KerberosError,
    PacError,
    SequenceError,
    SspiError,
)
from purekrb.log import Log
from purekrb.sspi import constants as c

__all__ = ["Phase", "RefusedError", "sspi_function"]

log = Log("purekrb.sspi")

P = ParamSpec("P")
T = TypeVar("T")


class Phase(IntEnum):
    """The situation of an error: a client's handshake, a service's handshake, or messages."""

    CLIENT = 0
    SERVICE = 1
    MESSAGE = 2


class RefusedError(KerberosError):
    """A refusal by an SSPI function itself; `sspi_function` turns it into an SspiError."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


_NAMES = {value: name for name, value in vars(c).items() if name.startswith("SEC_E_")}

#: KRB-ERROR code -> its status for a client, and for a service.
_CODES: dict[int, tuple[int, int]] = {
    ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN: (c.SEC_E_TARGET_UNKNOWN, c.SEC_E_TARGET_UNKNOWN),
    ErrorCode.KDC_ERR_PRINCIPAL_NOT_UNIQUE: (c.SEC_E_TARGET_UNKNOWN, c.SEC_E_TARGET_UNKNOWN),
    ErrorCode.KDC_ERR_ETYPE_NOSUPP: (c.SEC_E_KDC_UNKNOWN_ETYPE, c.SEC_E_KDC_UNKNOWN_ETYPE),
    ErrorCode.KRB_AP_ERR_BAD_INTEGRITY: (c.SEC_E_WRONG_PRINCIPAL, c.SEC_E_INVALID_TOKEN),
    ErrorCode.KRB_AP_ERR_TKT_EXPIRED: (c.SEC_E_CONTEXT_EXPIRED, c.SEC_E_CONTEXT_EXPIRED),
    ErrorCode.KRB_AP_ERR_TKT_NYV: (c.SEC_E_TIME_SKEW, c.SEC_E_TIME_SKEW),
    ErrorCode.KRB_AP_ERR_NOT_US: (c.SEC_E_WRONG_PRINCIPAL, c.SEC_E_WRONG_PRINCIPAL),
    ErrorCode.KRB_AP_ERR_SKEW: (c.SEC_E_TIME_SKEW, c.SEC_E_TIME_SKEW),
    ErrorCode.KRB_AP_ERR_BADVERSION: (c.SEC_E_INVALID_TOKEN, c.SEC_E_INVALID_TOKEN),
    ErrorCode.KRB_AP_ERR_MSG_TYPE: (c.SEC_E_INVALID_TOKEN, c.SEC_E_INVALID_TOKEN),
    ErrorCode.KRB_AP_ERR_MODIFIED: (c.SEC_E_WRONG_PRINCIPAL, c.SEC_E_INVALID_TOKEN),
    ErrorCode.KRB_AP_ERR_BADKEYVER: (c.SEC_E_WRONG_PRINCIPAL, c.SEC_E_INVALID_TOKEN),
    ErrorCode.KRB_AP_ERR_NOKEY: (c.SEC_E_WRONG_PRINCIPAL, c.SEC_E_NO_KERB_KEY),
    ErrorCode.KRB_AP_ERR_MUT_FAIL: (c.SEC_E_SECURITY_QOS_FAILED, c.SEC_E_SECURITY_QOS_FAILED),
    ErrorCode.KRB_AP_ERR_INAPP_CKSUM: (c.SEC_E_INVALID_TOKEN, c.SEC_E_INVALID_TOKEN),
}

#: Class -> its status in each phase. The first class that matches decides, so subclasses come
#: first.
_CLASSES: tuple[tuple[type[KerberosError], tuple[int, int, int]], ...] = (
    (errors.ChannelBindingsError, (c.SEC_E_BAD_BINDINGS,) * 3),
    (errors.PacError, (c.SEC_E_LOGON_DENIED,) * 3),
    (errors.KdcError, (c.SEC_E_LOGON_DENIED,) * 3),
    (errors.ApError, (c.SEC_E_LOGON_DENIED,) * 3),
    (errors.MutualAuthenticationError, (c.SEC_E_SECURITY_QOS_FAILED,) * 3),
    (
        errors.IntegrityError,
        (c.SEC_E_WRONG_PRINCIPAL, c.SEC_E_INVALID_TOKEN, c.SEC_E_MESSAGE_ALTERED),
    ),
    (errors.SequenceError, (c.SEC_E_OUT_OF_SEQUENCE,) * 3),
    (errors.ContextExpiredError, (c.SEC_E_CONTEXT_EXPIRED,) * 3),
    (errors.ContextError, (c.SEC_E_INVALID_HANDLE,) * 3),
    (errors.CredentialError, (c.SEC_E_NO_CREDENTIALS,) * 3),
    (errors.ConfigError, (c.SEC_E_NO_AUTHENTICATING_AUTHORITY,) * 3),
    (errors.TransportError, (c.SEC_E_NO_AUTHENTICATING_AUTHORITY,) * 3),
    (errors.SpnError, (c.SEC_E_TARGET_UNKNOWN,) * 3),
    (errors.UnsupportedError, (c.SEC_E_UNSUPPORTED_FUNCTION,) * 3),
    (
        errors.PolicyError,
        (c.SEC_E_CRYPTO_SYSTEM_INVALID, c.SEC_E_CRYPTO_SYSTEM_INVALID, c.SEC_E_QOP_NOT_SUPPORTED),
    ),
    (errors.DecodeError, (c.SEC_E_INVALID_TOKEN, c.SEC_E_INVALID_TOKEN, c.SEC_E_MESSAGE_ALTERED)),
    (errors.ProtocolError, (c.SEC_E_INVALID_TOKEN, c.SEC_E_INVALID_TOKEN, c.SEC_E_MESSAGE_ALTERED)),
    (errors.KerberosError, (c.SEC_E_INTERNAL_ERROR,) * 3),
)

#: Status -> the routine error of GSS-API; all others are GSS_S_FAILURE (13). Source: RFC 2744
#: 3.9.1.
_GSS_ERRORS = {
    c.SEC_E_SECPKG_NOT_FOUND: 1,
    c.SEC_E_TARGET_UNKNOWN: 2,
    c.SEC_E_BAD_BINDINGS: 4,
    c.SEC_E_MESSAGE_ALTERED: 6,
    c.SEC_E_NO_CREDENTIALS: 7,
    c.SEC_E_INVALID_HANDLE: 8,
    c.SEC_E_INVALID_TOKEN: 9,
    c.SEC_E_UNKNOWN_CREDENTIALS: 10,
    c.SEC_E_CONTEXT_EXPIRED: 12,
    c.SEC_E_QOP_NOT_SUPPORTED: 14,
    c.SEC_E_LOGON_DENIED: 15,
    c.SEC_E_UNSUPPORTED_FUNCTION: 16,
}
_GSS_FAILURE = 13
#: `SequenceError.reason` -> the supplementary bit. Source: RFC 2744 3.9.1.
_GSS_SUPPLEMENTARY = {"duplicate": 2, "old": 4, "unsequenced": 8, "gap": 16}


def sspi_function(phase: Phase) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that turns errors into SspiErrors, with the statuses of `phase`."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except SspiError:
                raise
            except RefusedError as error:
                raise _sspi_error(error, error.status, function.__name__) from None
            except KerberosError as error:
                raise _sspi_error(error, _status(error, phase), function.__name__) from error

        return wrapper

    return decorate


def _status(error: KerberosError, phase: Phase) -> int:
    own_status = isinstance(error, ChannelBindingsError | PacError)
    if isinstance(error, KdcError | ApError) and not own_status:
        client, service = _CODES.get(error.code, (0, 0))
        status = service if phase is Phase.SERVICE else client
        if status:
            return status
    return next(statuses[phase] for cls, statuses in _CLASSES if isinstance(error, cls))


def _sspi_error(error: KerberosError, status: int, funcname: str) -> SspiError:
    major = _GSS_ERRORS.get(status, _GSS_FAILURE) << 16
    if isinstance(error, SequenceError):  # in GSS-API, this is a warning, not an error
        major = _GSS_SUPPLEMENTARY[error.reason]
    failure = SspiError(
        f"{_NAMES[status]}: {error}",
        winerror=status,
        funcname=funcname,
        krb_code=error.code if isinstance(error, KdcError | ApError) else None,
        gss_major=major,
    )
    log.debug("%s", failure)
    return failure
