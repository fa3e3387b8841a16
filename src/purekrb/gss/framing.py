"""The GSS-API frame around context tokens: [APPLICATION 0] { mechanism OID, inner token }.

A Kerberos token inside begins with a token id of two bytes. Source: RFC 2743 3.1, RFC 4121 4.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NoReturn

from purekrb.constants import (
    IAKERB_OID,
    KRB5_MECH_OID,
    MS_KRB5_MECH_OID,
    NEGOEX_OID,
    NTLM_OID,
    SPNEGO_OID,
    USER_TO_USER_OID,
)
from purekrb.errors import DecodeError, UnsupportedError
from purekrb.gss.strangers import what_is
from purekrb.messages.der import headers_of, read_header, tlv

__all__ = [
    "TOK_AP_REQ",
    "TOK_AP_REP",
    "TOK_KRB_ERROR",
    "frame",
    "unframe",
    "unframe_any",
    "frame_mechanism",
    "unframe_mechanism",
    "is_framed_for",
    "mechanism_names",
]

TOK_AP_REQ = b"\x01\x00"
TOK_AP_REP = b"\x02\x00"
TOK_KRB_ERROR = b"\x03\x00"

#: The first byte of messages without a frame, as DCE style has them, and their token ids.
_BARE = {b"\x6e": TOK_AP_REQ, b"\x6f": TOK_AP_REP, b"\x7e": TOK_KRB_ERROR}
#: The start of NTLM's messages, which have no frame, and of the one that services send. Source:
#: MS-NLMP 2.2.1.2.
_NTLM = b"NTLMSSP\0"
_NTLM_CHALLENGE = _NTLM + b"\x02"
_FRAME = (0x60,)
_LONGEST_HEADER = 6
_NAMES = {
    KRB5_MECH_OID: "Kerberos V5",
    MS_KRB5_MECH_OID: "Microsoft's Kerberos V5",
    SPNEGO_OID: "SPNEGO (Negotiate)",
    NTLM_OID: "NTLM",
    NEGOEX_OID: "NegoEx",
    USER_TO_USER_OID: "Kerberos user-to-user",
    IAKERB_OID: "IAKERB",
}


def mechanism_names(oids: Iterable[bytes]) -> str:
    """Return the mechanisms as text for people; unknown OIDs are bytes in hex."""
    return ", ".join(_NAMES.get(oid) or f"OID {oid[:32].hex()}" for oid in oids)


def frame_mechanism(mechanism: bytes, inner: bytes) -> bytes:
    """Return `inner` as a framed token of the mechanism (the contents of its OID)."""
    return tlv(_FRAME[0], _oid(mechanism) + inner)


def _start_of(token: bytes, mechanism: bytes) -> int:
    """Return the offset of the inner token, or 0 if the frame is not what purekrb would write."""
    head = headers_of(len(token), _FRAME)
    if head is None:
        return 0
    frame = head + _oid(mechanism)
    return len(frame) if token.startswith(frame) else 0


def unframe_mechanism(token: bytes, mechanism: bytes) -> bytes:
    """Return the inner token of a token that is framed for `mechanism`.

    Raises DecodeError if the frame is not exactly as long as the token, and UnsupportedError for
    another mechanism.
    """
    begin = _start_of(token, mechanism)
    if begin:
        return token[begin:]
    if token.startswith(_NTLM):
        _refuse(NTLM_OID, mechanism, by_service=token.startswith(_NTLM_CHALLENGE))
    found = what_is(token)
    if found is not None:
        raise DecodeError(
            f"the peer sent {found}, where a token of {mechanism_names([mechanism])} belongs"
        )
    tag, start, end = read_header(token, 0, len(token))
    # RFC 2743 3.1: an InitialContextToken, which is the whole token.
    if tag != _FRAME[0] or end != len(token):
        raise DecodeError(
            "this is not a GSS-API token: "
            "it does not start with an InitialContextToken of its own length"
        )
    tag, oid_start, oid_end = read_header(token, start, end)
    if tag != 0x06:
        raise DecodeError("the GSS-API token names no mechanism")
    oid = token[oid_start:oid_end]
    if oid != mechanism:
        _refuse(oid, mechanism)
    return token[oid_end:end]


def frame(tok_id: bytes, inner: bytes, mechanism: bytes = KRB5_MECH_OID) -> bytes:
    """Return `inner` as a framed Kerberos token with the two bytes `tok_id`."""
    return frame_mechanism(mechanism, tok_id + inner)


def unframe(token: bytes, mechanism: bytes = KRB5_MECH_OID) -> tuple[bytes, bytes]:
    """Return (token id, inner token) of a framed Kerberos token.

    The errors are those of `unframe_mechanism`.
    """
    start = _start_of(token, mechanism) or len(token) - len(unframe_mechanism(token, mechanism))
    message = start + 2
    if len(token) < message:
        raise DecodeError("the GSS-API token ends before its token id")
    return token[start:message], token[message:]


def unframe_any(token: bytes, mechanism: bytes = KRB5_MECH_OID) -> tuple[bytes, bytes]:
    """Return the same as `unframe`; for a message without a frame, its token id and the message.

    Messages have no frame in DCE style.
    """
    tok_id = _BARE.get(token[:1])
    return (tok_id, token) if tok_id else unframe(token, mechanism)


def is_framed_for(token: bytes, mechanism: bytes) -> bool:
    """Whether the token claims to be for `mechanism`: a quick look, without verification."""
    oid = _oid(mechanism)
    return oid in token[: _LONGEST_HEADER + len(oid)]


@lru_cache(maxsize=16)
def _oid(mechanism: bytes) -> bytes:
    return tlv(0x06, mechanism)


def _refuse(found: bytes, expected: bytes, *, by_service: bool = False) -> NoReturn:
    ours = mechanism_names([expected])
    if by_service:
        advice = (
            "the service does not take Kerberos here: give it a keytab with the keys of its SPN"
        )
    elif found == NTLM_OID:
        advice = (
            "the client has no Kerberos ticket and falls back: let it call the service by the "
            "name of its SPN, not by an IP address, and register that SPN"
        )
    elif found == SPNEGO_OID:
        advice = 'give this side mechanism="negotiate", or configure the peer for Kerberos'
    elif found == USER_TO_USER_OID:
        advice = (
            "to accept it, give the acceptor tgt=, a credential of the service's account with a TGT"
        )
    elif found == IAKERB_OID:
        advice = (
            "it reaches no KDC; to pass its requests on, give the acceptor "
            "relay=KdcClient(config).relay, or let it reach the KDC by itself"
        )
    else:
        advice = "configure it for Kerberos"
    raise UnsupportedError(
        f"the peer uses the mechanism {mechanism_names([found])}, this context {ours}: {advice}"
    )
