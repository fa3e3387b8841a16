"""Numbers and names of the standards. Source: RFC 4120 7.5, and the RFCs at each class.

To compare a member costs as much as to compare a plain int, but `&` and `|` of an IntFlag are a
hundred times slower. For these, modules of the hot path hold `int()` copies of the members.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import ClassVar, Literal

__all__ = [
    "EncryptionType",
    "Flag",
    "ChecksumType",
    "KeyUsage",
    "NameType",
    "MessageType",
    "ErrorCode",
    "PaDataType",
    "AuthDataType",
    "AddressType",
    "TicketFlags",
    "KdcOptions",
    "ApOptions",
    "FastOptions",
    "PrfKey",
    "NegState",
    "DEFAULT_ETYPES",
    "KERB_AP_OPTIONS_CBT",
    "IAKERB_OID",
    "KRB5_MECH_OID",
    "MS_KRB5_MECH_OID",
    "SPNEGO_OID",
    "USER_TO_USER_OID",
    "NTLM_OID",
    "NEGOEX_OID",
    "error_name",
    "flag_names",
    "asn1_flags",
    "number_name",
]


class EncryptionType(IntEnum):
    """Encryption types. Source: RFC 3962, RFC 8009, RFC 4757."""

    AES128_CTS_HMAC_SHA1_96 = 17
    AES256_CTS_HMAC_SHA1_96 = 18
    AES128_CTS_HMAC_SHA256_128 = 19
    AES256_CTS_HMAC_SHA384_192 = 20
    RC4_HMAC = 23


#: The encryption types that purekrb requests and accepts by default, in order of preference. RC4 is
#: never among them.
DEFAULT_ETYPES: tuple[int, ...] = (18, 17, 20, 19)


class Flag(IntFlag):
    """Context flags, with the values of the 0x8003 checksum.

    Source: RFC 4121 4.1.1.1, MS-KILE 3.2.5.2.
    """

    DELEG = 0x0001
    MUTUAL = 0x0002
    REPLAY = 0x0004
    SEQUENCE = 0x0008
    CONF = 0x0010
    INTEG = 0x0020
    DCE_STYLE = 0x1000
    IDENTIFY = 0x2000
    EXTENDED_ERROR = 0x4000

    #: The default flags of a context. These are several flags, so they are not a member of the
    #: enum; the value is set below.
    DEFAULT: ClassVar[Flag]


Flag.DEFAULT = Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE | Flag.CONF | Flag.INTEG


class ChecksumType(IntEnum):
    """Checksum types. purekrb makes and checks those of its encryption types alone.

    Source: RFC 3961 8, RFC 3962 7, RFC 6803, RFC 8009, RFC 4757, RFC 4121 4.1.1.
    """

    CRC32 = 1
    RSA_MD4 = 2
    RSA_MD4_DES = 3
    DES_MAC = 4
    DES_MAC_K = 5
    RSA_MD4_DES_K = 6
    RSA_MD5 = 7
    RSA_MD5_DES = 8
    HMAC_SHA1_DES3_KD = 12
    SHA1 = 14
    HMAC_SHA1_96_AES128 = 15
    HMAC_SHA1_96_AES256 = 16
    CMAC_CAMELLIA128 = 17
    CMAC_CAMELLIA256 = 18
    HMAC_SHA256_128_AES128 = 19
    HMAC_SHA384_192_AES256 = 20
    GSSAPI = 0x8003
    HMAC_MD5 = -138
    MD5_HMAC = -137


#: What an AS exchange must have, so that whoever records it cannot guess at the password: FAST, or
#: any kind that is strong by itself or in FAST.
Requirement = Literal["fast", "strong"]


#: The groups of SPAKE, the preferred one first, named as in MIT's krb5.conf. Source: RFC 9588 12.2.
SPAKE_GROUPS = {1: "edwards25519", 2: "P-256", 3: "P-384", 4: "P-521"}


class KeyUsage(IntEnum):
    """Key usage numbers.

    Source: RFC 4120 7.5.1, RFC 4121 2, RFC 6113 5.4, 5.4.6, RFC 6806 11, RFC 9588 11.2,
    MS-SFU 2.2.2.
    """

    AS_REQ_PA_ENC_TIMESTAMP = 1
    TICKET = 2
    AS_REP_ENC_PART = 3
    TGS_REQ_AUTH_DATA_SESSION_KEY = 4
    TGS_REQ_AUTH_DATA_SUBKEY = 5
    TGS_REQ_AUTHENTICATOR_CHECKSUM = 6
    TGS_REQ_AUTHENTICATOR = 7
    TGS_REP_ENC_PART_SESSION_KEY = 8
    TGS_REP_ENC_PART_SUBKEY = 9
    AP_REQ_AUTHENTICATOR_CHECKSUM = 10
    AP_REQ_AUTHENTICATOR = 11
    AP_REP_ENC_PART = 12
    KRB_PRIV_ENC_PART = 13
    KRB_CRED_ENC_PART = 14
    KRB_SAFE_CHECKSUM = 15
    KERB_NON_KERB_CKSUM_SALT = 17
    ACCEPTOR_SEAL = 22
    ACCEPTOR_SIGN = 23
    INITIATOR_SEAL = 24
    INITIATOR_SIGN = 25
    PA_S4U_X509_USER_REQUEST = 26
    PA_S4U_X509_USER_REPLY = 27
    FINISHED = 41
    IAKERB_FINISHED = 42
    PA_PKINIT_KX = 44
    PA_OTP_REQUEST = 45
    FAST_REQ_CHECKSUM = 50
    FAST_REQ = 51
    FAST_REP = 52
    FAST_FINISHED = 53
    ENC_CHALLENGE_CLIENT = 54
    ENC_CHALLENGE_KDC = 55
    AS_REQ_ENC_PA_REP = 56
    SPAKE = 65


class NameType(IntEnum):
    """Principal name types. Source: RFC 4120 6.2, RFC 6806 5, RFC 5179, MS-KILE 2.2."""

    UNKNOWN = 0
    PRINCIPAL = 1
    SRV_INST = 2
    SRV_HST = 3
    SRV_XHST = 4
    UID = 5
    X500_PRINCIPAL = 6
    SMTP_NAME = 7
    ENTERPRISE = 10
    WELLKNOWN = 11
    SRV_HST_DOMAIN = 12
    MS_PRINCIPAL = -128
    MS_PRINCIPAL_AND_ID = -129
    ENT_PRINCIPAL_AND_ID = -130


class MessageType(IntEnum):
    """Message types, equal to the ASN.1 APPLICATION tag of each message that has one.

    TGT_REQ and TGT_REP are those of user-to-user contexts.
    Source: RFC 4120 7.5.7, 5.10; draft-swift-win2k-krb-user2user.
    """

    AS_REQ = 10
    AS_REP = 11
    TGS_REQ = 12
    TGS_REP = 13
    AP_REQ = 14
    AP_REP = 15
    TGT_REQ = 16
    TGT_REP = 17
    KRB_SAFE = 20
    KRB_PRIV = 21
    KRB_CRED = 22
    KRB_ERROR = 30


class ErrorCode(IntEnum):
    """KRB-ERROR codes. Source: RFC 4120 7.5.9, RFC 4556 3.1.3, RFC 6113 5, RFC 8636 7."""

    KDC_ERR_NONE = 0
    KDC_ERR_NAME_EXP = 1
    KDC_ERR_SERVICE_EXP = 2
    KDC_ERR_BAD_PVNO = 3
    KDC_ERR_C_OLD_MAST_KVNO = 4
    KDC_ERR_S_OLD_MAST_KVNO = 5
    KDC_ERR_C_PRINCIPAL_UNKNOWN = 6
    KDC_ERR_S_PRINCIPAL_UNKNOWN = 7
    KDC_ERR_PRINCIPAL_NOT_UNIQUE = 8
    KDC_ERR_NULL_KEY = 9
    KDC_ERR_CANNOT_POSTDATE = 10
    KDC_ERR_NEVER_VALID = 11
    KDC_ERR_POLICY = 12
    KDC_ERR_BADOPTION = 13
    KDC_ERR_ETYPE_NOSUPP = 14
    KDC_ERR_SUMTYPE_NOSUPP = 15
    KDC_ERR_PADATA_TYPE_NOSUPP = 16
    KDC_ERR_TRTYPE_NOSUPP = 17
    KDC_ERR_CLIENT_REVOKED = 18
    KDC_ERR_SERVICE_REVOKED = 19
    KDC_ERR_TGT_REVOKED = 20
    KDC_ERR_CLIENT_NOTYET = 21
    KDC_ERR_SERVICE_NOTYET = 22
    KDC_ERR_KEY_EXPIRED = 23
    KDC_ERR_PREAUTH_FAILED = 24
    KDC_ERR_PREAUTH_REQUIRED = 25
    KDC_ERR_SERVER_NOMATCH = 26
    KDC_ERR_MUST_USE_USER2USER = 27
    KDC_ERR_PATH_NOT_ACCEPTED = 28
    KDC_ERR_SVC_UNAVAILABLE = 29
    KRB_AP_ERR_BAD_INTEGRITY = 31
    KRB_AP_ERR_TKT_EXPIRED = 32
    KRB_AP_ERR_TKT_NYV = 33
    KRB_AP_ERR_REPEAT = 34
    KRB_AP_ERR_NOT_US = 35
    KRB_AP_ERR_BADMATCH = 36
    KRB_AP_ERR_SKEW = 37
    KRB_AP_ERR_BADADDR = 38
    KRB_AP_ERR_BADVERSION = 39
    KRB_AP_ERR_MSG_TYPE = 40
    KRB_AP_ERR_MODIFIED = 41
    KRB_AP_ERR_BADORDER = 42
    KRB_AP_ERR_ILL_CR_TKT = 43
    KRB_AP_ERR_BADKEYVER = 44
    KRB_AP_ERR_NOKEY = 45
    KRB_AP_ERR_MUT_FAIL = 46
    KRB_AP_ERR_BADDIRECTION = 47
    KRB_AP_ERR_METHOD = 48
    KRB_AP_ERR_BADSEQ = 49
    KRB_AP_ERR_INAPP_CKSUM = 50
    KRB_AP_PATH_NOT_ACCEPTED = 51
    KRB_ERR_RESPONSE_TOO_BIG = 52
    KRB_ERR_GENERIC = 60
    KRB_ERR_FIELD_TOOLONG = 61
    KDC_ERR_CLIENT_NOT_TRUSTED = 62
    KDC_ERR_KDC_NOT_TRUSTED = 63
    KDC_ERR_INVALID_SIG = 64
    KDC_ERR_DH_KEY_PARAMETERS_NOT_ACCEPTED = 65
    KDC_ERR_CERTIFICATE_MISMATCH = 66
    KRB_AP_ERR_NO_TGT = 67
    KDC_ERR_WRONG_REALM = 68
    KRB_AP_ERR_USER_TO_USER_REQUIRED = 69
    KDC_ERR_CANT_VERIFY_CERTIFICATE = 70
    KDC_ERR_INVALID_CERTIFICATE = 71
    KDC_ERR_REVOKED_CERTIFICATE = 72
    KDC_ERR_REVOCATION_STATUS_UNKNOWN = 73
    KDC_ERR_REVOCATION_STATUS_UNAVAILABLE = 74
    KDC_ERR_CLIENT_NAME_MISMATCH = 75
    KDC_ERR_KDC_NAME_MISMATCH = 76
    KDC_ERR_INCONSISTENT_KEY_PURPOSE = 77
    KDC_ERR_DIGEST_IN_CERT_NOT_ACCEPTED = 78
    KDC_ERR_PA_CHECKSUM_MUST_BE_INCLUDED = 79
    KDC_ERR_DIGEST_IN_SIGNED_DATA_NOT_ACCEPTED = 80
    KDC_ERR_PUBLIC_KEY_ENCRYPTION_NOT_SUPPORTED = 81
    KRB_AP_ERR_IAKERB_KDC_NOT_FOUND = 85
    KRB_AP_ERR_IAKERB_KDC_NO_RESPONSE = 86
    KDC_ERR_PREAUTH_EXPIRED = 90
    KDC_ERR_MORE_PREAUTH_DATA_REQUIRED = 91
    KDC_ERR_UNKNOWN_CRITICAL_FAST_OPTIONS = 93
    KDC_ERR_NO_ACCEPTABLE_KDF = 100


class PaDataType(IntEnum):
    """Pre-authentication data types.

    Source: RFC 4120 7.5.2, RFC 4556 3.1.3, RFC 6113 7.1, RFC 6560 6, RFC 6806 15, RFC 8070 5,
    RFC 8636 9, RFC 9588 12, MS-KILE 2.2.3, MS-SFU 2.2. Those of 101 to 112 are also the types of
    TYPED-DATA.
    """

    TGS_REQ = 1
    ENC_TIMESTAMP = 2
    PW_SALT = 3
    ENC_UNIX_TIME = 5
    SANDIA_SECUREID = 6
    SESAME = 7
    OSF_DCE = 8
    CYBERSAFE_SECUREID = 9
    AFS3_SALT = 10
    ETYPE_INFO = 11
    SAM_CHALLENGE = 12
    SAM_RESPONSE = 13
    PK_AS_REQ_OLD = 14
    PK_AS_REP_OLD = 15
    PK_AS_REQ = 16
    PK_AS_REP = 17
    PK_OCSP_RESPONSE = 18
    ETYPE_INFO2 = 19
    SVR_REFERRAL_INFO = 20
    SAM_REDIRECT = 21
    GET_FROM_TYPED_DATA = 22
    SAM_ETYPE_INFO = 23
    ALT_PRINC = 24
    SERVER_REFERRAL = 25
    SAM_CHALLENGE2 = 30
    SAM_RESPONSE2 = 31
    EXTRA_TGT = 41
    TD_PKINIT_CMS_CERTIFICATES = 101
    TD_KRB_PRINCIPAL = 102
    TD_KRB_REALM = 103
    TD_TRUSTED_CERTIFIERS = 104
    TD_CERTIFICATE_INDEX = 105
    TD_APP_DEFINED_ERROR = 106
    TD_REQ_NONCE = 107
    TD_REQ_SEQ = 108
    TD_DH_PARAMETERS = 109
    TD_CMS_DIGEST_ALGORITHMS = 111
    TD_CERT_DIGEST_ALGORITHMS = 112
    PAC_REQUEST = 128
    FOR_USER = 129
    S4U_X509_USER = 130
    FOR_CHECK_DUPS = 131
    AS_CHECKSUM = 132
    FX_COOKIE = 133
    AUTHENTICATION_SET = 134
    AUTH_SET_SELECTED = 135
    FX_FAST = 136
    FX_ERROR = 137
    ENCRYPTED_CHALLENGE = 138
    OTP_CHALLENGE = 141
    OTP_REQUEST = 142
    OTP_CONFIRM = 143
    OTP_PIN_CHANGE = 144
    EPAK_AS_REQ = 145
    EPAK_AS_REP = 146
    PKINIT_KX = 147
    PKU2U_NAME = 148
    ENC_PA_REP = 149
    AS_FRESHNESS = 150
    SPAKE = 151
    KERB_KEY_LIST_REQ = 161
    KERB_KEY_LIST_REP = 162
    SUPPORTED_ENCTYPES = 165
    EXTENDED_ERROR = 166
    PAC_OPTIONS = 167
    KERB_SUPERSEDED_BY_USER = 170
    KERB_DMSA_KEY_PACKAGE = 171


class AuthDataType(IntEnum):
    """Authorization data types.

    Source: RFC 4120 7.5.4, RFC 4537 2, RFC 6113 5.4, RFC 7751, RFC 8129, MS-KILE 2.2.
    """

    IF_RELEVANT = 1
    INTENDED_FOR_SERVER = 2
    INTENDED_FOR_APPLICATION_CLASS = 3
    KDC_ISSUED = 4
    AND_OR = 5
    MANDATORY_TICKET_EXTENSIONS = 6
    IN_TICKET_EXTENSIONS = 7
    MANDATORY_FOR_KDC = 8
    INITIAL_VERIFIED_CAS = 9
    OSF_DCE = 64
    SESAME = 65
    OSF_DCE_PKI_CERTID = 66
    FX_FAST_ARMOR = 71
    FX_FAST_USED = 72
    CAMMAC = 96
    AUTHENTICATION_INDICATOR = 97
    WIN2K_PAC = 128
    ETYPE_NEGOTIATION = 129
    TOKEN_RESTRICTIONS = 141
    LOCAL = 142
    AP_OPTIONS = 143
    CLIENT_TARGET = 144
    SIGNTICKET = 512


class AddressType(IntEnum):
    """Host address types. Source: RFC 4120 7.5.3; the last two are MIT's."""

    IPV4 = 2
    DIRECTIONAL = 3
    CHAOSNET = 5
    XNS = 6
    ISO = 7
    DECNET_PHASE_IV = 12
    APPLETALK_DDP = 16
    NETBIOS = 20
    IPV6 = 24
    ADDRPORT = 0x100
    IPPORT = 0x101


class TicketFlags(IntFlag):
    """Ticket flags as a 32-bit number; bit 0 of the RFC is the highest bit.

    Source: RFC 4120 5.3, RFC 6806 11.
    """

    FORWARDABLE = 1 << 30
    FORWARDED = 1 << 29
    PROXIABLE = 1 << 28
    PROXY = 1 << 27
    MAY_POSTDATE = 1 << 26
    POSTDATED = 1 << 25
    INVALID = 1 << 24
    RENEWABLE = 1 << 23
    INITIAL = 1 << 22
    PRE_AUTHENT = 1 << 21
    HW_AUTHENT = 1 << 20
    TRANSITED_POLICY_CHECKED = 1 << 19
    OK_AS_DELEGATE = 1 << 18
    ENC_PA_REP = 1 << 16
    ANONYMOUS = 1 << 15


class KdcOptions(IntFlag):
    """KDC options as a 32-bit number; bit 0 of the RFC is the highest bit.

    Source: RFC 4120 5.4.1, RFC 6806, RFC 8062, MS-SFU 2.2.3.
    """

    FORWARDABLE = 1 << 30
    FORWARDED = 1 << 29
    PROXIABLE = 1 << 28
    PROXY = 1 << 27
    ALLOW_POSTDATE = 1 << 26
    POSTDATED = 1 << 25
    RENEWABLE = 1 << 23
    CNAME_IN_ADDL_TKT = 1 << 17
    CANONICALIZE = 1 << 16
    REQUEST_ANONYMOUS = 1 << 15
    DISABLE_TRANSITED_CHECK = 1 << 5
    RENEWABLE_OK = 1 << 4
    ENC_TKT_IN_SKEY = 1 << 3
    RENEW = 1 << 1
    VALIDATE = 1 << 0


class FastOptions(IntFlag):
    """The options of a request in FAST. Source: RFC 6113 5.4.2."""

    HIDE_CLIENT_NAMES = 1 << 30


class ApOptions(IntFlag):
    """AP-REQ options as a 32-bit number; bit 0 of the RFC is the highest bit.

    Source: RFC 4120 5.5.1.
    """

    USE_SESSION_KEY = 1 << 30
    MUTUAL_REQUIRED = 1 << 29


class PrfKey(IntEnum):
    """The key of a pseudo-random function. Source: RFC 4401 3, RFC 4402 2.

    FULL is the key of the per-message tokens. PARTIAL is the key that the initiator alone chose.
    """

    FULL = 0
    PARTIAL = 1


class NegState(IntEnum):
    """The state of the negotiation in a NegTokenResp. Source: RFC 4178 4.2.2."""

    ACCEPT_COMPLETED = 0
    ACCEPT_INCOMPLETE = 1
    REJECT = 2
    REQUEST_MIC = 3


def flag_names(kind: type[IntFlag], value: int) -> list[str]:
    """Return the names of the flags in `value`, in the order of `kind`."""
    return [str(flag.name) for flag in kind if value & flag]


def asn1_flags(kind: type[IntFlag], value: int) -> list[str]:
    """Return the names of the flags in `value` as the ASN.1 spells them.

    A bit without a name is its number, of which 0 is the highest. Source: RFC 4120 5.2.8.
    """
    known = 0
    for flag in kind:
        known |= flag
    names = [name.lower().replace("_", "-") for name in flag_names(kind, value)]
    unknown = value & ~known
    return names + [f"bit {31 - n}" for n in range(31, -1, -1) if unknown >> n & 1]


def number_name(kind: type[IntEnum], value: int) -> str:
    """Return the name and the number of a member of `kind`; of any other value, the number."""
    known = kind._value2member_map_.get(value)
    return str(value) if known is None else f"{known.name} {value}"


def error_name(code: int) -> str:
    """Return the name and the number of a KRB-ERROR code."""
    known = ErrorCode._value2member_map_.get(code)
    return f"{known.name} {code}" if known is not None else f"error {code}"


#: In AD-AP-OPTIONS: the client supports channel bindings, so their absence is deliberate.
#: Source: MS-KILE 3.2.5.8.
KERB_AP_OPTIONS_CBT = 0x4000

#: DER contents of 1.2.840.113554.1.2.2, the Kerberos V5 mechanism. Source: RFC 4121 4.1.
KRB5_MECH_OID = bytes.fromhex("2a864886f712010202")
#: 1.2.840.48018.1.2.2, the same mechanism under the OID that Windows lists first.
#: Source: MS-KILE 3.1.5, MS-SPNG 1.9.
MS_KRB5_MECH_OID = bytes.fromhex("2a864882f712010202")
#: 1.2.840.113554.1.2.2.3. Source: draft-swift-win2k-krb-user2user-03 2.
USER_TO_USER_OID = KRB5_MECH_OID + b"\x03"
#: 1.3.6.1.5.2.5. Source: draft-ietf-kitten-iakerb 2.
IAKERB_OID = bytes.fromhex("2b0601050205")
#: 1.3.6.1.5.5.2. Source: RFC 4178 4.
SPNEGO_OID = bytes.fromhex("2b0601050502")
#: 1.3.6.1.4.1.311.2.2.10 and .30. They are known only so that the refusal can name them.
#: Source: MS-SPNG 1.9.
NTLM_OID = bytes.fromhex("2b06010401823702020a")
NEGOEX_OID = bytes.fromhex("2b06010401823702021e")
