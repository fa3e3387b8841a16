"""An exception class for each code of RFC 2744 3.9.1."""

from __future__ import annotations

from purekrb.compat.gssapi.raw.misc import GSSError

__all__ = [
    "ParameterReadError",
    "ParameterWriteError",
    "MalformedParameterError",
    "BadMechanismError",
    "BadNameError",
    "BadNameTypeError",
    "BadChannelBindingsError",
    "BadStatusError",
    "BadMICError",
    "MissingCredentialsError",
    "MissingContextError",
    "InvalidTokenError",
    "InvalidCredentialsError",
    "ExpiredCredentialsError",
    "ExpiredContextError",
    "BadQoPError",
    "UnauthorizedError",
    "OperationUnavailableError",
    "DuplicateCredentialsElementError",
    "MechanismNameRequiredError",
    "NameReadError",
    "NameTypeReadError",
    "TokenReadError",
    "ContextReadError",
    "CredentialsReadError",
    "ContextWriteError",
    "CredentialsWriteError",
    "SupplementaryError",
    "DuplicateTokenError",
    "ExpiredTokenError",
    "TokenOutOfSequenceError",
    "TokenTooLateError",
    "TokenTooEarlyError",
]


class ParameterReadError(GSSError):
    """GSS_S_CALL_INACCESSIBLE_READ."""

    CALLING_CODE = 1 << 24


class ParameterWriteError(GSSError):
    """GSS_S_CALL_INACCESSIBLE_WRITE."""

    CALLING_CODE = 2 << 24


class MalformedParameterError(GSSError):
    """GSS_S_CALL_BAD_STRUCTURE."""

    CALLING_CODE = 3 << 24


class BadMechanismError(GSSError):
    """GSS_S_BAD_MECH."""

    ROUTINE_CODE = 1 << 16


class BadNameError(GSSError):
    """GSS_S_BAD_NAME."""

    ROUTINE_CODE = 2 << 16


class BadNameTypeError(GSSError):
    """GSS_S_BAD_NAMETYPE."""

    ROUTINE_CODE = 3 << 16


class BadChannelBindingsError(GSSError):
    """GSS_S_BAD_BINDINGS."""

    ROUTINE_CODE = 4 << 16


class BadStatusError(GSSError):
    """GSS_S_BAD_STATUS."""

    ROUTINE_CODE = 5 << 16


class BadMICError(GSSError):
    """GSS_S_BAD_SIG."""

    ROUTINE_CODE = 6 << 16


class MissingCredentialsError(GSSError):
    """GSS_S_NO_CRED."""

    ROUTINE_CODE = 7 << 16


class MissingContextError(GSSError):
    """GSS_S_NO_CONTEXT."""

    ROUTINE_CODE = 8 << 16


class InvalidTokenError(GSSError):
    """GSS_S_DEFECTIVE_TOKEN."""

    ROUTINE_CODE = 9 << 16


class InvalidCredentialsError(GSSError):
    """GSS_S_DEFECTIVE_CREDENTIAL."""

    ROUTINE_CODE = 10 << 16


class ExpiredCredentialsError(GSSError):
    """GSS_S_CREDENTIALS_EXPIRED."""

    ROUTINE_CODE = 11 << 16


class ExpiredContextError(GSSError):
    """GSS_S_CONTEXT_EXPIRED."""

    ROUTINE_CODE = 12 << 16


class BadQoPError(GSSError):
    """GSS_S_BAD_QOP."""

    ROUTINE_CODE = 14 << 16


class UnauthorizedError(GSSError):
    """GSS_S_UNAUTHORIZED."""

    ROUTINE_CODE = 15 << 16


class OperationUnavailableError(GSSError):
    """GSS_S_UNAVAILABLE."""

    ROUTINE_CODE = 16 << 16


class DuplicateCredentialsElementError(GSSError):
    """GSS_S_DUPLICATE_ELEMENT."""

    ROUTINE_CODE = 17 << 16


class MechanismNameRequiredError(GSSError):
    """GSS_S_NAME_NOT_MN."""

    ROUTINE_CODE = 18 << 16


class NameReadError(ParameterReadError, BadNameError):
    """GSS_S_CALL_INACCESSIBLE_READ with GSS_S_BAD_NAME."""


class NameTypeReadError(ParameterReadError, BadNameTypeError):
    """GSS_S_CALL_INACCESSIBLE_READ with GSS_S_BAD_NAMETYPE."""


class TokenReadError(ParameterReadError, InvalidTokenError):
    """GSS_S_CALL_INACCESSIBLE_READ with GSS_S_DEFECTIVE_TOKEN."""


class ContextReadError(ParameterReadError, MissingContextError):
    """GSS_S_CALL_INACCESSIBLE_READ with GSS_S_NO_CONTEXT."""


class CredentialsReadError(ParameterReadError, MissingCredentialsError):
    """GSS_S_CALL_INACCESSIBLE_READ with GSS_S_NO_CRED."""


class ContextWriteError(ParameterWriteError, MissingContextError):
    """GSS_S_CALL_INACCESSIBLE_WRITE with GSS_S_NO_CONTEXT."""


class CredentialsWriteError(ParameterWriteError, MissingCredentialsError):
    """GSS_S_CALL_INACCESSIBLE_WRITE with GSS_S_NO_CRED."""


class SupplementaryError(GSSError):
    """A supplementary status that counts as an error."""


class DuplicateTokenError(SupplementaryError):
    """GSS_S_DUPLICATE_TOKEN."""

    SUPPLEMENTARY_CODE = 2


class ExpiredTokenError(SupplementaryError):
    """GSS_S_OLD_TOKEN."""

    SUPPLEMENTARY_CODE = 4


class TokenOutOfSequenceError(SupplementaryError):
    """GSS_S_UNSEQ_TOKEN or GSS_S_GAP_TOKEN."""


class TokenTooLateError(TokenOutOfSequenceError):
    """GSS_S_UNSEQ_TOKEN."""

    SUPPLEMENTARY_CODE = 8


class TokenTooEarlyError(TokenOutOfSequenceError):
    """GSS_S_GAP_TOKEN."""

    SUPPLEMENTARY_CODE = 16
