"""Names of mechanisms in SASL. Source: RFC 5801 3.1, 10; RFC 4178."""

from __future__ import annotations

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw.misc import SPNEGO, check_mech
from purekrb.compat.gssapi.raw.named_tuples import InquireSASLNameResult
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import MechType

__all__ = ["inquire_saslname_for_mech", "inquire_mech_for_saslname"]

_NAMES = {
    MechType.kerberos: InquireSASLNameResult(b"GS2-KRB5", b"krb5", b"Kerberos 5 GSS-API Mechanism"),
    SPNEGO: InquireSASLNameResult(
        b"SPNEGO", b"spnego", b"Simple and Protected GSS-API Negotiation Mechanism"
    ),
}


def inquire_saslname_for_mech(mech: OID) -> InquireSASLNameResult:
    """Return the names of a mechanism."""
    check_mech(mech)
    return _NAMES[mech]


def inquire_mech_for_saslname(sasl_name: bytes) -> OID:
    """Return the mechanism with a name in SASL. Raises BadMechanismError."""
    for mech, names in _NAMES.items():
        if names.sasl_mech_name == sasl_name:
            return mech
    raise _status.status(codes.BAD_MECH, 0, f"there is no mechanism {sasl_name!r} in SASL here")
