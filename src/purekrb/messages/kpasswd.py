"""The messages by which passwords are changed and set. Source: RFC 3244 2, RFC 4120 5.7.

A request and a reply have a header of big-endian numbers before an AP-REQ or AP-REP and a KRB-PRIV.
Nothing here encrypts.
"""

from __future__ import annotations

import struct
from datetime import datetime
from enum import IntEnum

from purekrb.errors import DecodeError
from purekrb.messages.ap import ADDRESS, ENCRYPTED_DATA, NAME, EncryptedData, HostAddress
from purekrb.messages.der import (
    INT32,
    MICROSECONDS,
    SEQ_NUMBER,
    Application,
    Field,
    GeneralString,
    KerberosTime,
    Message,
    OctetString,
    Sequence,
)
from purekrb.names import PrincipalName
from purekrb.records import record

__all__ = [
    "CHANGE",
    "ChangePasswdData",
    "EncKrbPrivPart",
    "KrbPriv",
    "PasswordPolicy",
    "Result",
    "SET",
    "VERSION",
    "decode_frame",
    "decode_result",
    "encode_frame",
    "encode_policy",
    "encode_result",
]

#: The versions of requests: to change one's own password, and to set anybody's. A reply has the
#: first.
CHANGE = VERSION = 0x0001
SET = 0xFF80

_HEADER = struct.Struct(">HHH")
_POLICY = struct.Struct(">HIIIqq")
_COMPLEXITY = 1
#: 100 ns, the unit of times in a policy.
_TICKS = 10_000_000


class Result(IntEnum):
    """The result codes of a reply. Source: RFC 3244 2."""

    SUCCESS = 0
    MALFORMED = 1
    HARDERROR = 2
    AUTHERROR = 3
    SOFTERROR = 4
    ACCESSDENIED = 5
    BAD_VERSION = 6
    INITIAL_FLAG_NEEDED = 7


@record
class KrbPriv(Message):
    """KRB-PRIV ::= [APPLICATION 21] SEQUENCE {
    pvno [0] INTEGER (5), msg-type [1] INTEGER (21), enc-part [3] EncryptedData }
    """

    pvno: int
    msg_type: int
    enc_part: EncryptedData


KrbPriv.schema = Application(
    21,
    Sequence(
        KrbPriv,
        Field(0, "pvno", INT32),
        Field(1, "msg_type", INT32),
        Field(3, "enc_part", ENCRYPTED_DATA),
    ),
)


@record
class EncKrbPrivPart(Message):
    """EncKrbPrivPart ::= [APPLICATION 28] SEQUENCE {
    user-data [0] OCTET STRING, timestamp [1] KerberosTime OPTIONAL,
    usec [2] Microseconds OPTIONAL, seq-number [3] UInt32 OPTIONAL,
    s-address [4] HostAddress, r-address [5] HostAddress OPTIONAL }
    """

    user_data: bytes
    timestamp: datetime | None
    usec: int | None
    seq_number: int | None
    s_address: HostAddress
    r_address: HostAddress | None


EncKrbPrivPart.schema = Application(
    28,
    Sequence(
        EncKrbPrivPart,
        Field(0, "user_data", OctetString()),
        Field(1, "timestamp", KerberosTime(), optional=True),
        Field(2, "usec", MICROSECONDS, optional=True),
        Field(3, "seq_number", SEQ_NUMBER, optional=True),
        Field(4, "s_address", ADDRESS),
        Field(5, "r_address", ADDRESS, optional=True),
    ),
)


@record
class ChangePasswdData(Message):
    """ChangePasswdData ::= SEQUENCE {
    newpasswd [0] OCTET STRING, targname [1] PrincipalName OPTIONAL, targrealm [2] Realm OPTIONAL }
    """

    newpasswd: bytes
    targname: PrincipalName | None
    targrealm: str | None


ChangePasswdData.schema = Sequence(
    ChangePasswdData,
    Field(0, "newpasswd", OctetString()),
    Field(1, "targname", NAME, optional=True),
    Field(2, "targrealm", GeneralString(), optional=True),
)


@record
class PasswordPolicy:
    """The rules for new passwords that a domain controller names. Ages are in seconds.

    `min_length` is in characters, `history` the number of earlier passwords that must not come
    again. With `complexity`, a password needs characters of several kinds. A password must be kept
    for `min_age`, and expires after `max_age` (0: never).
    """

    min_length: int
    history: int
    complexity: bool
    max_age: float
    min_age: float

    def __str__(self) -> str:
        rules = [
            (self.min_length, f"at least {self.min_length} characters"),
            (
                self.complexity,
                "characters of three kinds (capitals, small letters, digits, others), "
                "and no part of the user's name",
            ),
            (self.history, f"none of the last {self.history} passwords"),
            (self.min_age, f"not before the old password is {_spelled(self.min_age)} old"),
        ]
        return "; ".join(text for rule, text in rules if rule) or "no rule is named"


def _spelled(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit if seconds != size else unit[:-1]}"
    return f"{seconds:g} seconds"


def encode_frame(version: int, ap: bytes, priv: bytes) -> bytes:
    """Return a request or reply of an AP-REQ or AP-REP, and a KRB-PRIV."""
    return _HEADER.pack(_HEADER.size + len(ap) + len(priv), version, len(ap)) + ap + priv


def decode_frame(message: bytes) -> tuple[int, bytes, bytes]:
    """Return the version, the AP-REQ or AP-REP, and what follows: KRB-PRIV, or KRB-ERROR if the former is empty.

    Raises DecodeError.
    """
    if len(message) < _HEADER.size:
        raise DecodeError(f"a kpasswd message of {len(message)} bytes has no whole header")
    length, version, size = _HEADER.unpack_from(message)
    if length != len(message) or _HEADER.size + size > length:
        raise DecodeError(
            f"a kpasswd message of {len(message)} bytes claims {length}, {size} of them for its "
            "AP message"
        )
    at = _HEADER.size + size
    return version, message[_HEADER.size : at], message[at:]


def encode_result(code: int, text: bytes = b"") -> bytes:
    """Return the user data of a reply."""
    return code.to_bytes(2, "big") + text


def encode_policy(policy: PasswordPolicy) -> bytes:
    """Return the text of a reply by which a domain controller names its rules."""
    ages = [round(age * _TICKS) for age in (policy.max_age, policy.min_age)]
    properties = _COMPLEXITY if policy.complexity else 0
    return _POLICY.pack(0, policy.min_length, policy.history, properties, *ages)


def decode_result(data: bytes) -> tuple[int, str, PasswordPolicy | None]:
    """Return the code, the text and the policy of a reply's user data. Raises DecodeError.

    The text is the server's, and may be anything. Source: RFC 3244 2; of the policy: what domain
    controllers send, 30 bytes.
    """
    if len(data) < 2:
        raise DecodeError("the result of the password change has no code")
    code, text = int.from_bytes(data[:2], "big"), data[2:]
    if len(text) == _POLICY.size and text[:2] == b"\0\0":
        _, length, history, properties, expire, age = _POLICY.unpack(text)
        complexity = bool(properties & _COMPLEXITY)
        # Active Directory writes intervals as negative numbers in some places.
        policy = PasswordPolicy(
            length, history, complexity, abs(expire) / _TICKS, abs(age) / _TICKS
        )
        return code, "", policy
    try:
        said = text.decode().rstrip("\0")
    except UnicodeDecodeError:
        said = ""
    return code, "" if "\0" in said else said.strip(), None
