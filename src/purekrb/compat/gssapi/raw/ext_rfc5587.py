"""Attributes of mechanisms. Source: RFC 5587 3.4."""

from __future__ import annotations

from collections.abc import Iterable

from purekrb.compat.gssapi import _codes as codes
from purekrb.compat.gssapi import _status
from purekrb.compat.gssapi.raw.misc import SPNEGO, check_mech, indicate_mechs
from purekrb.compat.gssapi.raw.named_tuples import DisplayAttrResult, InquireAttrsResult
from purekrb.compat.gssapi.raw.oids import OID
from purekrb.compat.gssapi.raw.types import MechType

__all__ = ["indicate_mechs_by_attrs", "inquire_attrs_for_mech", "display_mech_attr"]

#: Each attribute: the end of its symbol, its short name, and what it says.
_ATTRIBUTES = (
    (
        "MECH_CONCRETE",
        "concrete-mech",
        "Mechanism is neither a pseudo-mechanism nor a composite mechanism.",
    ),
    ("MECH_PSEUDO", "pseudo-mech", "Mechanism only chooses another one."),
    ("MECH_COMPOSITE", "composite-mech", "Mechanism is made of several."),
    ("MECH_NEGO", "mech-negotiation-mech", "Mechanism negotiates which one is used."),
    ("MECH_GLUE", "mech-glue", "OID stands for GSS-API itself."),
    ("NOT_MECH", "not-mech", "OID is known, but not that of a mechanism."),
    ("DEPRECATED", "mech-deprecated", "Mechanism should not be used any more."),
    ("NOT_DFLT_MECH", "mech-not-default", "Mechanism is used only if a program names it."),
    ("ITOK_FRAMED", "initial-is-framed", "First token has the frame of RFC 2743 3.1."),
    ("AUTH_INIT", "auth-init-princ", "Initiator proves who it is."),
    ("AUTH_TARG", "auth-targ-princ", "Acceptor proves who it is."),
    ("AUTH_INIT_INIT", "auth-init-princ-initial", "Initiator may prove itself by a password."),
    ("AUTH_TARG_INIT", "auth-target-princ-initial", "Acceptor may prove itself by a password."),
    ("AUTH_INIT_ANON", "auth-init-princ-anon", "Initiator may be anonymous."),
    ("AUTH_TARG_ANON", "auth-targ-princ-anon", "Acceptor may be anonymous."),
    ("DELEG_CRED", "deleg-cred", "Initiator may delegate its credential."),
    ("INTEG_PROT", "integ-prot", "Messages can be signed."),
    ("CONF_PROT", "conf-prot", "Messages can be encrypted."),
    ("MIC", "mic", "Signatures can be sent apart from their messages."),
    ("WRAP", "wrap", "Messages can be wrapped."),
    ("PROT_READY", "prot-ready", "Messages can be protected before the context is complete."),
    ("REPLAY_DET", "replay-detection", "Repeated messages are found."),
    ("OOS_DET", "oos-detection", "Messages out of order are found."),
    ("CBINDINGS", "channel-bindings", "Mechanism supports channel bindings."),
    ("PFS", "pfs", "Old messages stay secret if a long-term key leaks."),
    ("COMPRESS", "compress", "Messages are compressed."),
    ("CTX_TRANS", "context-transfer", "Contexts can be passed to another process."),
)


def _attribute(number: int) -> OID:
    return OID.from_int_seq(f"1.3.6.1.5.5.13.{number}")


_WORDS = {
    _attribute(number): DisplayAttrResult(
        f"GSS_C_MA_{symbol}".encode(), short.encode(), long.encode()
    )
    for number, (symbol, short, long) in enumerate(_ATTRIBUTES, 1)
}
_OF_MECHANISMS = {
    MechType.kerberos: {
        _attribute(number) for number in (1, 9, 10, 11, 16, 17, 18, 19, 20, 22, 23, 24, 27)
    },
    SPNEGO: {_attribute(number) for number in (4, 9)},
}


def indicate_mechs_by_attrs(
    desired_mech_attrs: Iterable[OID] | None = None,
    except_mech_attrs: Iterable[OID] | None = None,
    critical_mech_attrs: Iterable[OID] | None = None,
) -> set[OID]:
    """Return the mechanisms with all, and with none, of these attributes.

    They must know all of `critical_mech_attrs`.
    """
    desired, excepted = set(desired_mech_attrs or ()), set(except_mech_attrs or ())
    if not set(critical_mech_attrs or ()) <= set(_WORDS):
        return set()
    return {
        mech
        for mech in indicate_mechs()
        if desired <= _OF_MECHANISMS[mech] and not excepted & _OF_MECHANISMS[mech]
    }


def inquire_attrs_for_mech(mech: OID) -> InquireAttrsResult:
    """Return the attributes that a mechanism has, and those that it knows."""
    check_mech(mech)
    return InquireAttrsResult(set(_OF_MECHANISMS[mech]), set(_WORDS))


def display_mech_attr(attr: OID) -> DisplayAttrResult:
    """Return the words for an attribute. Raises BadMechanismError for an unknown one."""
    if attr not in _WORDS:
        raise _status.status(
            codes.BAD_MECH, 0, f"there is no attribute {attr.dotted_form} of mechanisms"
        )
    return _WORDS[attr]
