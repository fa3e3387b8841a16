"""The padata with which a service asks for tickets in another's name. Source: MS-SFU 2.2.

impacket's specs of them are of an older form: they are declared and written here.
"""

from __future__ import annotations

from purekrb.messages.ap import CHECKSUM, NAME, Checksum
from purekrb.messages.der import (
    SEQ_NUMBER,
    Any_,
    Field,
    GeneralString,
    KerberosFlags,
    Message,
    OctetString,
    Sequence,
)
from purekrb.names import PrincipalName
from purekrb.records import record

__all__ = [
    "AUTH_PACKAGE",
    "RESOURCE_BASED",
    "USE_REPLY_KEY_USAGE",
    "PaForUser",
    "PaPacOptions",
    "PaS4uX509User",
    "S4uUserId",
]

#: The auth-package of PA-FOR-USER. Source: MS-SFU 2.2.1.
AUTH_PACKAGE = "Kerberos"
#: The option of S4UUserID by which the reply's checksum has a key usage of its own. MS-SFU 2.2.2.
USE_REPLY_KEY_USAGE = 0x20000000
#: The bit of PA-PAC-OPTIONS for resource-based constrained delegation. Source: MS-KILE 2.2.10.
RESOURCE_BASED = 0x10000000


@record
class PaForUser(Message):
    """PA-FOR-USER-ENC ::= SEQUENCE {
    userName [0] PrincipalName, userRealm [1] Realm, cksum [2] Checksum,
    auth-package [3] KerberosString }
    """

    user_name: PrincipalName
    user_realm: str
    cksum: Checksum
    auth_package: str = AUTH_PACKAGE

    @staticmethod
    def checked(name: PrincipalName, realm: str, auth_package: str = AUTH_PACKAGE) -> bytes:
        """Return what the checksum covers (S4UByteArray): all the names. Source: MS-SFU 2.2.1."""
        texts = (*name.components, realm, auth_package)
        number = name.name_type.to_bytes(4, "little", signed=True)
        return number + b"".join(text.encode() for text in texts)


PaForUser.schema = Sequence(
    PaForUser,
    Field(0, "user_name", NAME),
    Field(1, "user_realm", GeneralString()),
    Field(2, "cksum", CHECKSUM),
    Field(3, "auth_package", GeneralString()),
)


@record
class S4uUserId(Message):
    """S4UUserID ::= SEQUENCE {
    nonce [0] UInt32, cname [1] PrincipalName OPTIONAL, crealm [2] Realm,
    subject-certificate [3] OCTET STRING OPTIONAL, options [4] BIT STRING OPTIONAL }

    `nonce` is that of the request's body.
    """

    nonce: int
    cname: PrincipalName | None
    crealm: str
    subject_certificate: bytes | None = None
    options: int | None = None


S4uUserId.schema = Sequence(
    S4uUserId,
    Field(0, "nonce", SEQ_NUMBER),
    Field(1, "cname", NAME, optional=True),
    Field(2, "crealm", GeneralString()),
    Field(3, "subject_certificate", OctetString(), optional=True),
    Field(4, "options", KerberosFlags(), optional=True),
)


@record
class PaS4uX509User(Message):
    """PA-S4U-X509-USER ::= SEQUENCE { user-id [0] S4UUserID, checksum [1] Checksum }

    `user_id` holds the DER bytes of the S4UUserID, which the checksum covers.
    """

    user_id: bytes
    checksum: Checksum


PaS4uX509User.schema = Sequence(
    PaS4uX509User, Field(0, "user_id", Any_(0x30)), Field(1, "checksum", CHECKSUM)
)


@record
class PaPacOptions(Message):
    """PA-PAC-OPTIONS ::= SEQUENCE { flags [0] KerberosFlags }. Source: MS-KILE 2.2.10."""

    flags: int


PaPacOptions.schema = Sequence(PaPacOptions, Field(0, "flags", KerberosFlags()))
