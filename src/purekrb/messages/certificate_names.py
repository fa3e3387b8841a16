"""Names of principals in certificates. Source: RFC 4556 3.2.2.

`Krb5PrincipalName` is the value of the alternative name id-pkinit-san, and part of what the key of
PKINIT is derived from (RFC 8636 5).
"""

from __future__ import annotations

from purekrb.messages.ap import NAME
from purekrb.messages.der import Field, GeneralString, Message, Sequence
from purekrb.names import PrincipalName
from purekrb.records import record

__all__ = ["Krb5PrincipalName"]


@record
class Krb5PrincipalName(Message):
    """KRB5PrincipalName ::= SEQUENCE { realm [0] Realm, principalName [1] PrincipalName }"""

    realm: str
    principal_name: PrincipalName


Krb5PrincipalName.schema = Sequence(
    Krb5PrincipalName, Field(0, "realm", GeneralString()), Field(1, "principal_name", NAME)
)
