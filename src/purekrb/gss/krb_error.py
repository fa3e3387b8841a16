"""The meaning of a service's KRB-ERROR for its client. Source: RFC 4120 5.9.1."""

from __future__ import annotations

from purekrb.constants import ErrorCode, error_name
from purekrb.errors import ApError
from purekrb.messages.ap import KrbError

__all__ = ["peer_refused"]

#: Advice only: a KRB-ERROR is not authenticated, so it never changes what purekrb does.
_ADVICE = {
    ErrorCode.KRB_AP_ERR_BAD_INTEGRITY: (
        "it could not decrypt our ticket: it runs with another account's key"
    ),
    ErrorCode.KRB_AP_ERR_MODIFIED: (
        "it refused our ticket or channel bindings: it has another key "
        "(a new one? get a new ticket) or another channel"
    ),
    ErrorCode.KRB_AP_ERR_BADKEYVER: (
        "its keytab is out of date: export it again, or renew the ticket"
    ),
    ErrorCode.KRB_AP_ERR_NOKEY: (
        "its keytab has no key that opens our ticket: export the keys of the account that has "
        "this name"
    ),
    ErrorCode.KRB_AP_ERR_NO_TGT: "it has no TGT for user-to-user authentication: it must log in",
    ErrorCode.KRB_AP_ERR_NOT_US: "the ticket is for a service that it does not serve",
    ErrorCode.KRB_AP_ERR_SKEW: "our clocks differ by more than it allows: set them (NTP)",
    ErrorCode.KRB_AP_ERR_TKT_EXPIRED: "the ticket has expired: get a new one",
    ErrorCode.KRB_AP_ERR_TKT_NYV: "the ticket is not yet valid: check the clocks",
    ErrorCode.KDC_ERR_ETYPE_NOSUPP: (
        "it does not permit the encryption type of our ticket (RC4?): set "
        "msDS-SupportedEncryptionTypes of its account to 24, then get a new ticket"
    ),
    ErrorCode.KRB_AP_ERR_REPEAT: "it has seen this authenticator before: try again",
}


def peer_refused(message: bytes) -> ApError:
    """Return the error for the KRB-ERROR `message` of a service. Raises DecodeError."""
    code = KrbError.decode(message).error_code
    advice = _ADVICE.get(code, "see its log")  # type: ignore[call-overload]
    return ApError(f"the service refused us ({error_name(code)}): {advice}", code=code)
