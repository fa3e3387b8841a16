"""The messages of IAKERB, by which a service passes a client's requests on to KDCs.

Two drafts differ. MIT's library has the older one (draft-zhu): the realm is an OCTET STRING. In
draft-ietf-kitten-iakerb it is a UTF8String. impacket has no specs for either.
"""

from __future__ import annotations

from purekrb.errors import DecodeError
from purekrb.messages.ap import CHECKSUM, Checksum
from purekrb.messages.der import (
    Field,
    GeneralString,
    Message,
    OctetString,
    Sequence,
    Utf8String,
    read_header,
)
from purekrb.records import record

__all__ = ["IakerbFinished", "IakerbHeader", "OctetIakerbHeader", "Proxied"]


class _RealmInOctets(GeneralString):
    tag = OctetString.tag


@record
class IakerbHeader(Message):
    """IAKERB-HEADER ::= SEQUENCE { target-realm [1] UTF8String, cookie [2] OCTET STRING OPTIONAL }

    Source: draft-ietf-kitten-iakerb-03 3.
    """

    target_realm: str
    cookie: bytes | None


IakerbHeader.schema = Sequence(
    IakerbHeader,
    Field(1, "target_realm", Utf8String()),
    Field(2, "cookie", OctetString(), optional=True),
    extensible=True,
)


@record
class OctetIakerbHeader(Message):
    """The same with the target-realm as an OCTET STRING, as MIT's library writes it."""

    target_realm: str
    cookie: bytes | None


OctetIakerbHeader.schema = Sequence(
    OctetIakerbHeader,
    Field(1, "target_realm", _RealmInOctets()),
    Field(2, "cookie", OctetString(), optional=True),
    extensible=True,
)


@record
class IakerbFinished(Message):
    """KRB-FINISHED ::= SEQUENCE { gss-mic [1] Checksum }"""

    gss_mic: Checksum


IakerbFinished.schema = Sequence(IakerbFinished, Field(1, "gss_mic", CHECKSUM), extensible=True)


@record
class Proxied:
    """A Kerberos message with its header. An empty `message` asks for the service's realm.

    `octets`: the realm is an OCTET STRING, as MIT writes it.
    """

    realm: str
    cookie: bytes | None
    message: bytes
    octets: bool

    def encode(self) -> bytes:
        """Return the bytes that follow the token id."""
        kind = OctetIakerbHeader if self.octets else IakerbHeader
        return kind(self.realm, self.cookie).encode() + self.message

    @classmethod
    def decode(cls, data: bytes) -> Proxied:
        """Return the message in what follows the token id. Raises DecodeError."""
        _, _, end = read_header(data, 0, len(data))
        header, message = data[:end], data[end:]
        try:
            found, octets = OctetIakerbHeader.decode(header), True
        except DecodeError:
            found, octets = IakerbHeader.decode(header), False  # type: ignore[assignment]
        return cls(found.target_realm, found.cookie, message, octets)
