"""The mechanisms that SPNEGO may agree on. Source: RFC 4178 Appendix."""

from __future__ import annotations

from collections.abc import Iterable

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw.creds import Creds
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import MechType

__all__ = ["set_neg_mechs"]


def set_neg_mechs(cred_handle: Creds, mech_set: Iterable[OID]) -> None:
    """Do nothing if Kerberos is among the mechanisms: SPNEGO agrees on nothing else here.

    Raises BadMechanismError if it is not.
    """
    if MechType.kerberos not in set(mech_set):
        raise _status.status(codes.BAD_MECH, 0, "SPNEGO agrees on Kerberos alone here")
