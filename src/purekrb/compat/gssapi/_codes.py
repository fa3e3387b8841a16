"""Status codes and their words. Source: RFC 2744 3.9.1 (major codes), RFC 4120 7.5.9 (KRB-ERROR).

Minor codes are those of MIT's library, because programs compare them: the number of its error table
plus a KRB-ERROR code, or plus the number of an error of the library itself.
"""

from __future__ import annotations

from purekrb.constants import ErrorCode

__all__ = ["major_texts", "minor_text"]

BAD_MECH, BAD_NAME, BAD_NAMETYPE, BAD_BINDINGS = (n << 16 for n in range(1, 5))
BAD_SIG, NO_CRED, NO_CONTEXT, DEFECTIVE_TOKEN, DEFECTIVE_CREDENTIAL = (
    n << 16 for n in range(6, 11)
)
CREDENTIALS_EXPIRED, CONTEXT_EXPIRED, FAILURE, BAD_QOP = (n << 16 for n in range(11, 15))
UNAVAILABLE, DUPLICATE_ELEMENT, NAME_NOT_MN = (n << 16 for n in range(16, 19))
CALL_INACCESSIBLE_READ = 1 << 24

_CALLING = {
    1: "A required input parameter could not be read",
    2: "A required output parameter could not be written",
    3: "A parameter was malformed",
}
_BAD_STATUS_TEXT = "An invalid status code was supplied"
_ROUTINE = {
    1: "An unsupported mechanism was requested",
    2: "An invalid name was supplied",
    3: "A supplied name was of an unsupported type",
    4: "Incorrect channel bindings were supplied",
    5: _BAD_STATUS_TEXT,
    6: "A token had an invalid Message Integrity Check (MIC)",
    7: "No credentials were supplied, or the credentials were unavailable or inaccessible",
    8: "No context has been established",
    9: "Invalid token was supplied",
    10: "Invalid credential was supplied",
    11: "The referenced credential has expired",
    12: "The referenced context has expired",
    13: "Unspecified GSS failure.  Minor code may provide more information",
    14: "The quality-of-protection (QOP) requested could not be provided",
    15: "The operation is forbidden by local security policy",
    16: "The operation or option is not available or unsupported",
    17: "The requested credential element already exists",
    18: "The provided name was not mechanism specific (MN)",
}
_SUPPLEMENTARY = {
    1: "The routine must be called again to complete its function",
    2: "The token was a duplicate of an earlier token",
    4: "The token's validity period has expired",
    8: "A later token has already been processed",
    16: "An expected per-message token was not received",
}
_COMPLETE_TEXT = "The routine completed successfully"

#: The number of MIT's error table, to which the code of a KRB-ERROR is added.
KRB5 = 2529638912
#: Numbers of MIT's library in that table.
MALFORMED_NAME, CONFIG, CC_NOTFOUND = KRB5 + 134, KRB5 + 136, KRB5 + 141
KDC_UNREACH, MUTUAL_FAILED, KT_NOTFOUND = KRB5 + 156, KRB5 + 158, KRB5 + 181
FCC_NOFILE = KRB5 + 195
#: Numbers of MIT's mechanism, which has a table of its own.
KEYTAB_NOMATCH = 39756033
BAD_ETYPE = KRB5 + 150

#: The words for a minor code, with which its text begins.
MINOR_TEXTS = {
    0: "Unknown error",
    MALFORMED_NAME: "Malformed representation of principal",
    CONFIG: "Improper format of Kerberos configuration file",
    CC_NOTFOUND: "No Kerberos credentials available",
    KDC_UNREACH: "Cannot contact any KDC for requested realm",
    MUTUAL_FAILED: "Mutual authentication failed",
    KT_NOTFOUND: "Key table entry not found",
    FCC_NOFILE: "No credentials cache found",
    BAD_ETYPE: "KDC has no support for encryption type",
    KRB5 + ErrorCode.KDC_ERR_NAME_EXP: "Client's entry in database has expired",
    KRB5 + ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN: "Client not found in Kerberos database",
    KRB5 + ErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN: "Server not found in Kerberos database",
    KRB5 + ErrorCode.KDC_ERR_POLICY: "KDC policy rejects request",
    KRB5 + ErrorCode.KDC_ERR_BADOPTION: "KDC can't fulfill requested option",
    KRB5 + ErrorCode.KDC_ERR_ETYPE_NOSUPP: "KDC has no support for encryption type",
    KRB5 + ErrorCode.KDC_ERR_CLIENT_REVOKED: "Client's credentials have been revoked",
    KRB5 + ErrorCode.KDC_ERR_KEY_EXPIRED: "Password has expired",
    KRB5 + ErrorCode.KDC_ERR_PREAUTH_FAILED: "Preauthentication failed",
    KRB5 + ErrorCode.KDC_ERR_PREAUTH_REQUIRED: "Additional pre-authentication required",
    KRB5 + ErrorCode.KRB_AP_ERR_BAD_INTEGRITY: "Decrypt integrity check failed",
    KRB5 + ErrorCode.KRB_AP_ERR_TKT_EXPIRED: "Ticket expired",
    KRB5 + ErrorCode.KRB_AP_ERR_TKT_NYV: "Ticket not yet valid",
    KRB5 + ErrorCode.KRB_AP_ERR_REPEAT: "Request is a replay",
    KRB5 + ErrorCode.KRB_AP_ERR_NOT_US: "The ticket isn't for us",
    KRB5 + ErrorCode.KRB_AP_ERR_SKEW: "Clock skew too great",
    KRB5 + ErrorCode.KRB_AP_ERR_BADADDR: "Incorrect net address",
    KRB5 + ErrorCode.KRB_AP_ERR_MSG_TYPE: "Invalid message type",
    KRB5 + ErrorCode.KRB_AP_ERR_MODIFIED: "Message stream modified",
    KRB5 + ErrorCode.KRB_AP_ERR_BADKEYVER: "Key version is not available",
    KRB5 + ErrorCode.KRB_AP_ERR_NOKEY: "Service key not available",
    KRB5 + ErrorCode.KRB_AP_ERR_INAPP_CKSUM: "Inappropriate type of checksum in message",
    KRB5 + ErrorCode.KRB_ERR_GENERIC: "Generic error (see e-text)",
}


def major_texts(code: int) -> list[str]:
    """Return the words for each part of a major code."""
    if code == 0:
        return [_COMPLETE_TEXT]
    texts = []
    if calling := code >> 24 & 0xFF:
        texts.append(_CALLING.get(calling, _BAD_STATUS_TEXT))
    if routine := code >> 16 & 0xFF:
        texts.append(_ROUTINE.get(routine, _BAD_STATUS_TEXT))
    texts += [text for bit, text in _SUPPLEMENTARY.items() if code & bit]
    return texts or [_BAD_STATUS_TEXT]


def minor_text(code: int) -> str:
    """Return the words for a minor code."""
    return MINOR_TEXTS.get(code) or f"Unknown code {code}"
