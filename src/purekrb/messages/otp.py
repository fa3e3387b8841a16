"""The messages of one-time passwords, which go in FAST. Source: RFC 6560 4.

impacket has no specs for them: they are declared and written here. Their tags are implicit. Fields
of what purekrb does not do, such as keys that are derived from the password, are read, and never
written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from purekrb.messages.ap import ENCRYPTED_DATA, EncryptedData
from purekrb.messages.der import (
    INT32,
    Any_,
    DerType,
    Field,
    GeneralString,
    KerberosFlags,
    KerberosTime,
    Message,
    OctetString,
    Sequence,
    SequenceOf,
    Utf8String,
)
from purekrb.records import record

__all__ = [
    "AskOtp",
    "OtpAnswer",
    "OtpChallenge",
    "OtpEncRequest",
    "OtpFlags",
    "OtpRequest",
    "OtpTokenInfo",
]

#: The most tokens of one account, and hash algorithms of one token.
_MAX_ENTRIES = 64


class OtpFlags:
    """The bits of OTPFlags, with bit 0 the highest. Source: RFC 6560 4.1."""

    NEXT_OTP = 1 << 30
    COMBINE = 1 << 29
    COLLECT_PIN = 1 << 28
    DO_NOT_COLLECT_PIN = 1 << 27
    MUST_ENCRYPT_NONCE = 1 << 26
    SEPARATE_PIN_REQUIRED = 1 << 25
    CHECK_DIGIT = 1 << 24


def _field(number: int, name: str, kind: DerType, optional: bool = True) -> Field:
    return Field(number, name, kind, optional, implicit=True)


@record
class OtpTokenInfo(Message):
    """OTP-TOKENINFO ::= SEQUENCE {
    flags [0] OTPFlags, otp-vendor [1] UTF8String OPTIONAL, otp-challenge [2] OCTET STRING OPTIONAL,
    otp-length [3] Int32 OPTIONAL, otp-format [4] OTPFormat OPTIONAL,
    otp-tokenID [5] OCTET STRING OPTIONAL, otp-algID [6] AnyURI OPTIONAL,
    supportedHashAlg [7] SEQUENCE OF AlgorithmIdentifier OPTIONAL, iterationCount [8] Int32 OPTIONAL }

    `flags` are those of `OtpFlags`. `format` is 0 for decimal digits, 1 for hexadecimal ones, 2 for
    letters and digits, 3 for bytes, 4 for base64.
    """

    flags: int = 0
    vendor: str | None = None
    challenge: bytes | None = None
    length: int | None = None
    format: int | None = None
    token_id: bytes | None = None
    algorithm: str | None = None
    hash_algorithms: tuple[bytes, ...] | None = None
    iterations: int | None = None

    @property
    def wants_pin(self) -> bool:
        """Whether the person is to give a PIN, too."""
        return bool(self.flags & OtpFlags.COLLECT_PIN)

    @property
    def separate_pin(self) -> bool:
        """Whether the PIN goes beside the one-time password, not in front of it."""
        return bool(self.flags & OtpFlags.SEPARATE_PIN_REQUIRED)

    @property
    def wants_next(self) -> bool:
        """Whether the token's next value is wanted, not the one that was used already."""
        return bool(self.flags & OtpFlags.NEXT_OTP)


OtpTokenInfo.schema = _TOKEN_INFO = Sequence(
    OtpTokenInfo,
    _field(0, "flags", KerberosFlags(), False),
    _field(1, "vendor", Utf8String()),
    _field(2, "challenge", OctetString()),
    _field(3, "length", INT32),
    _field(4, "format", INT32),
    _field(5, "token_id", OctetString()),
    _field(6, "algorithm", Utf8String()),
    _field(7, "hash_algorithms", SequenceOf(Any_(0x30), _MAX_ENTRIES)),
    _field(8, "iterations", INT32),
    extensible=True,
)


@record
class OtpChallenge(Message):
    """PA-OTP-CHALLENGE ::= SEQUENCE {
    nonce [0] OCTET STRING, otp-service [1] UTF8String OPTIONAL,
    otp-tokenInfo [2] SEQUENCE OF OTP-TOKENINFO, salt [3] KerberosString OPTIONAL,
    s2kparams [4] OCTET STRING OPTIONAL }

    `service` is a name for people, such as "ACME Tokens".
    """

    nonce: bytes
    service: str | None
    tokens: tuple[OtpTokenInfo, ...]
    salt: str | None = None
    s2kparams: bytes | None = None


OtpChallenge.schema = Sequence(
    OtpChallenge,
    _field(0, "nonce", OctetString(), False),
    _field(1, "service", Utf8String()),
    _field(2, "tokens", SequenceOf(_TOKEN_INFO, _MAX_ENTRIES), False),
    _field(3, "salt", GeneralString()),
    _field(4, "s2kparams", OctetString()),
    extensible=True,
)


@record
class OtpEncRequest(Message):
    """PA-OTP-ENC-REQUEST ::= SEQUENCE { nonce [0] OCTET STRING }"""

    nonce: bytes


OtpEncRequest.schema = Sequence(
    OtpEncRequest, _field(0, "nonce", OctetString(), False), extensible=True
)


@record
class OtpRequest(Message):
    """PA-OTP-REQUEST ::= SEQUENCE {
    flags [0] OTPFlags, nonce [1] OCTET STRING OPTIONAL, encData [2] EncryptedData,
    hashAlg [3] AlgorithmIdentifier OPTIONAL, iterationCount [4] Int32 OPTIONAL,
    otp-value [5] OCTET STRING OPTIONAL, otp-pin [6] UTF8String OPTIONAL,
    otp-challenge [7] OCTET STRING OPTIONAL, otp-time [8] KerberosTime OPTIONAL,
    otp-counter [9] OCTET STRING OPTIONAL, otp-format [10] OTPFormat OPTIONAL,
    otp-tokenID [11] OCTET STRING OPTIONAL, otp-algID [12] AnyURI OPTIONAL,
    otp-vendor [13] UTF8String OPTIONAL }
    """

    flags: int
    nonce: bytes | None
    enc_data: EncryptedData
    hash_algorithm: bytes | None = None
    iterations: int | None = None
    value: bytes | None = None
    pin: str | None = None
    challenge: bytes | None = None
    time: datetime | None = None
    counter: bytes | None = None
    format: int | None = None
    token_id: bytes | None = None
    algorithm: str | None = None
    vendor: str | None = None

    def __repr__(self) -> str:
        return "OtpRequest(<redacted>)"


OtpRequest.schema = Sequence(
    OtpRequest,
    _field(0, "flags", KerberosFlags(), False),
    _field(1, "nonce", OctetString()),
    _field(2, "enc_data", ENCRYPTED_DATA, False),
    _field(3, "hash_algorithm", Any_(0x30)),
    _field(4, "iterations", INT32),
    _field(5, "value", OctetString()),
    _field(6, "pin", Utf8String()),
    _field(7, "challenge", OctetString()),
    _field(8, "time", KerberosTime()),
    _field(9, "counter", OctetString()),
    _field(10, "format", INT32),
    _field(11, "token_id", OctetString()),
    _field(12, "algorithm", Utf8String()),
    _field(13, "vendor", Utf8String()),
    extensible=True,
)


@record
class OtpAnswer:
    """What a person says to an `OtpChallenge`: the value of a token, and its PIN if it is separate.

    `token` is the place of the token among those of the challenge.
    """

    value: str | bytes
    pin: str | None = None
    token: int = 0

    def __repr__(self) -> str:
        return "OtpAnswer(<redacted>)"


#: Asks a person for a one-time password; may be a coroutine function for asyncio.
AskOtp = Callable[[OtpChallenge], str | OtpAnswer | Awaitable[str | OtpAnswer]]
