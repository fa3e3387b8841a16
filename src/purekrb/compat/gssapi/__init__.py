"""python-gssapi's modules over purekrb's contexts: `import purekrb.compat.gssapi as gssapi`.

`Name`, `Credentials` and `SecurityContext` are the objects; `raw` has the functions of GSS-API.
For programs that `import gssapi`, see `purekrb.compat.install`. Mechanisms are Kerberos and SPNEGO,
which agrees on Kerberos alone. Source: python-gssapi's documentation, RFC 2743, RFC 2744.
"""

from purekrb.compat.gssapi import exceptions as exceptions
from purekrb.compat.gssapi import raw as raw
from purekrb.compat.gssapi._utils import set_encoding
from purekrb.compat.gssapi.creds import Credentials
from purekrb.compat.gssapi.mechs import Mechanism
from purekrb.compat.gssapi.names import Name
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import (
    AddressType,
    IntEnumFlagSet,
    MechType,
    NameType,
    RequirementFlag,
)
from purekrb.compat.gssapi.sec_contexts import SecurityContext

__all__ = [
    "AddressType",
    "Credentials",
    "IntEnumFlagSet",
    "Mechanism",
    "MechType",
    "Name",
    "NameType",
    "OID",
    "RequirementFlag",
    "SecurityContext",
    "set_encoding",
]
