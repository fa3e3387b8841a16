"""The errors of purekrb; all derive from KerberosError.

A class exists only if a caller would catch it separately. Each message says what happened, what was
expected and what to do next. No message, attribute or repr holds a password, a key or plaintext.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purekrb.messages.ap import KrbError
    from purekrb.messages.kpasswd import PasswordPolicy

from purekrb.text import visible

__all__ = [
    "KerberosError",
    "DecodeError",
    "ProtocolError",
    "MutualAuthenticationError",
    "IntegrityError",
    "UnsupportedError",
    "PolicyError",
    "ArmorRequiredError",
    "KdcError",
    "PreauthFailedError",
    "ClientUnknownError",
    "ClientRevokedError",
    "PasswordExpiredError",
    "PasswordPolicyError",
    "ServiceUnknownError",
    "KdcEtypeError",
    "PreauthUnsupportedError",
    "DelegationRefusedError",
    "ClockSkewError",
    "ApError",
    "ReplayError",
    "ChannelBindingsError",
    "PacError",
    "SequenceError",
    "ContextError",
    "ContextExpiredError",
    "CredentialError",
    "CertificateError",
    "ConfigError",
    "TransportError",
    "TransportTimeoutError",
    "OutcomeUnknownError",
    "DirectoryError",
    "AccountNotFoundError",
    "InsufficientRightsError",
    "SpnValidatedWriteDeniedError",
    "SpnNotUniqueError",
    "RegistrationError",
    "SpnError",
    "SspiError",
]


class KerberosError(Exception):
    """Base of every error that a public call raises (besides TypeError and ValueError for misuse).

    `response` is the token to send to the peer of a context before closing: a KRB-ERROR, or the
    rejection of a negotiation; None if there is nothing to send. Others may have chosen a name in
    the message, so `str()` escapes characters that a terminal does not show. `args` holds the
    original text.
    """

    response: bytes | None = None

    def __str__(self) -> str:
        return visible(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        # Process pools pickle errors. The default would call __init__ without the arguments that
        # subclasses require.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    cls: type[KerberosError], args: tuple[Any, ...], state: dict[str, Any]
) -> KerberosError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class DecodeError(KerberosError, ValueError):
    """Bytes or text violate their specification (DER, keytab, ccache, SPN ...)."""


class ProtocolError(KerberosError):
    """A well-formed message does not fit the exchange.

    It answers another request, or violates a MUST of the specification.

    `expected` and `got` are the compared values, or None. They are never secrets.
    """

    def __init__(self, message: str, *, expected: object = None, got: object = None) -> None:
        if expected is not None or got is not None:
            message = f"{message} (expected {expected}, got {got})"
        super().__init__(message)
        self.expected = expected
        self.got = got


class MutualAuthenticationError(ProtocolError):
    """The service did not prove that it holds its key. Treat the peer as an impostor.

    In DCE style, the peer may also be the client.
    """


class IntegrityError(KerberosError):
    """A decryption or a checksum failed.

    All causes have the same message, so that it cannot serve as an oracle.
    """

    def __init__(
        self, message: str = "integrity check failed: wrong key, or the data was altered"
    ) -> None:
        super().__init__(message)


class UnsupportedError(KerberosError):
    """purekrb lacks the mechanism, encryption type or option that the peer or caller asks for."""


class PolicyError(KerberosError):
    """The configured policy refuses this (RC4, missing flags, weak keys ...)."""


class ArmorRequiredError(PolicyError):
    """FAST is required and missing: there is no armor, or the KDC answered outside of it."""


class KdcError(KerberosError):
    """The KDC answered with a KRB-ERROR.

    `code` is its error-code (a `constants.ErrorCode` if known). `krb_error` is the decoded message.
    Source: RFC 4120 5.9.1, 7.5.9.
    """

    def __init__(self, message: str, *, code: int, krb_error: KrbError | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.krb_error = krb_error


class PreauthFailedError(KdcError):
    """The password or key is wrong (KDC_ERR_PREAUTH_FAILED, or the AS-REP does not decrypt)."""


class ClientUnknownError(KdcError):
    """The KDC does not know the client (KDC_ERR_C_PRINCIPAL_UNKNOWN)."""


class ClientRevokedError(KdcError):
    """The client's account is disabled, locked or expired.

    The codes are KDC_ERR_CLIENT_REVOKED and KDC_ERR_NAME_EXP.
    """


class PasswordExpiredError(KdcError):
    """The password has expired and must be changed first (KDC_ERR_KEY_EXPIRED)."""


class PasswordPolicyError(KdcError):
    """The realm's rules refuse the new password. Nothing was changed.

    `code` is the result code of RFC 3244. `policy` holds the rules (`messages.kpasswd`) if the
    server names them as a domain controller does, or is None.
    """

    def __init__(self, message: str, *, code: int, policy: PasswordPolicy | None = None) -> None:
        super().__init__(message, code=code)
        self.policy = policy


class ServiceUnknownError(KdcError):
    """The KDC does not know the service (KDC_ERR_S_PRINCIPAL_UNKNOWN)."""


class KdcEtypeError(KdcError):
    """The KDC and the client share no encryption type (KDC_ERR_ETYPE_NOSUPP)."""


class PreauthUnsupportedError(UnsupportedError, KdcError):
    """The KDC wants a kind of pre-authentication that purekrb or the credential lacks.

    Another program may have it: get the ticket there, and use its credential cache.
    """


class DelegationRefusedError(KdcError):
    """A service may not act for this user, or not at that service. Source: MS-SFU 3.2.5.

    The message says which right is missing, as far as the KDC's answer tells. `krb_error` is None
    if nothing was sent, because the ticket of the user rules it out.
    """


class ClockSkewError(KdcError):
    """The clocks of this machine and the KDC differ too much (KRB_AP_ERR_SKEW)."""


class ApError(KerberosError):
    """An AP exchange failed. `code` is the matching KRB-ERROR code (RFC 4120 7.5.9)."""

    def __init__(self, message: str, *, code: int, response: bytes | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.response = response


class ReplayError(ApError):
    """This authenticator was already presented (KRB_AP_ERR_REPEAT)."""


class ChannelBindingsError(ApError):
    """The peer's channel bindings are missing, or belong to another channel."""


class PacError(ApError):
    """The ticket's PAC is malformed, not signed for this service, or about another client.

    Nothing in it may be used.
    """

    def __init__(self, message: str, *, code: int = 41, response: bytes | None = None) -> None:
        super().__init__(message, code=code, response=response)


class SequenceError(KerberosError):
    """A genuine per-message token came twice or out of order.

    `reason` is "duplicate", "old", "unsequenced" or "gap" (RFC 2743 1.2.3). On a stream, close the
    connection.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ContextError(KerberosError):
    """A call does not fit the state of the security context (not established, failed, closed)."""


class ContextExpiredError(ContextError):
    """The ticket of the context has expired: authenticate again."""


class CredentialError(KerberosError):
    """The key, ticket, keytab or credential cache that is needed is missing or unusable."""


class CertificateError(CredentialError):
    """A certificate or its key cannot be used, or that of a KDC is not trusted."""


class ConfigError(KerberosError):
    """krb5.conf or a Config argument cannot be used."""


class TransportError(KerberosError, OSError):
    """No KDC (or peer) could be reached, or a connection broke."""


class TransportTimeoutError(TransportError, TimeoutError):
    """The overall deadline has passed."""


class OutcomeUnknownError(TransportTimeoutError):
    """The request was sent, but its answer is lost: what it asks for was done, or was not."""


class DirectoryError(KerberosError):
    """The directory refused or failed an operation, or holds unusable data.

    `code` is the Windows error number of the same failure (8333 ERROR_DS_OBJ_NOT_FOUND ...), or 0.
    If a server refused a request, `ldap_result` is the result code (RFC 4511 4.1.9), and
    `diagnostic` is the server's text, unchanged.
    """

    def __init__(
        self, message: str, *, code: int = 0, ldap_result: int = 0, diagnostic: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.ldap_result = ldap_result
        self.diagnostic = diagnostic


class AccountNotFoundError(DirectoryError):
    """The account does not exist (ERROR_DS_OBJ_NOT_FOUND)."""


class InsufficientRightsError(DirectoryError):
    """The bound account lacks the right to do this (ERROR_DS_INSUFF_ACCESS_RIGHTS)."""


class SpnValidatedWriteDeniedError(InsufficientRightsError):
    """The SPN is for another host; an account may register SPNs for its own host only.

    The Windows error is ERROR_DS_INVALID_ATTRIBUTE_SYNTAX.
    """


class SpnNotUniqueError(DirectoryError):
    """Another account of the forest has the SPN, or an alias of it.

    The Windows error is ERROR_DS_SPN_VALUE_NOT_UNIQUE_IN_FOREST. `spn` is the name that was to be
    written. `owners` are the DNs of the accounts that have it, as far as they are visible.
    """

    def __init__(
        self,
        message: str,
        *,
        spn: str,
        owners: tuple[str, ...] = (),
        code: int = 8647,
        ldap_result: int = 0,
        diagnostic: str = "",
    ) -> None:
        super().__init__(message, code=code, ldap_result=ldap_result, diagnostic=diagnostic)
        self.spn = spn
        self.owners = owners


class RegistrationError(DirectoryError):
    """A service must not start: its data in the directory or on this machine are wrong.

    An administrator must act. `reason` is one of these:

    - "NOT_REGISTERED": an SPN or the SCP is missing.
    - "WRONG_ACCOUNT": an SPN belongs to another account.
    - "DUPLICATE": an SPN belongs to several accounts.
    - "STALE_DN": the SCP was moved or renamed, so clients compose another SPN.
    - "NO_STATE": the state file is missing or unusable.
    - "DIRECTORY_UNREACHABLE": nothing could be verified.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SpnError(KerberosError, ValueError):
    """A service principal name cannot be composed or parsed.

    `code` is the Windows error number of the same failure (87 ERROR_INVALID_PARAMETER ...).
    """

    def __init__(self, message: str, *, code: int = 87) -> None:
        super().__init__(message)
        self.code = code


class SspiError(KerberosError):
    """A function of `purekrb.sspi` failed. The attributes are those of pywin32's error.

    `winerror` is the status (SEC_E_..., negative as in C), `funcname` the function, and `strerror`
    the message. `krb_code` is the KRB-ERROR code of the failure, or None. `gss_major` is the major
    status of the same failure in GSS-API (RFC 2744 3.9.1), with the supplementary bits of a
    SequenceError. The original error is the `__cause__`.
    """

    def __init__(
        self,
        message: str,
        *,
        winerror: int,
        funcname: str,
        krb_code: int | None = None,
        gss_major: int = 13 << 16,
    ) -> None:
        super().__init__(winerror, funcname, message)
        self.winerror = winerror
        self.funcname = funcname
        self.strerror = message
        self.krb_code = krb_code
        self.gss_major = gss_major

    def __str__(self) -> str:
        return f"{self.funcname}: {self.strerror}"
