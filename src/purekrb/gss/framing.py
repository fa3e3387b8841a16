"""The GSS-API frame around context tokens: [APPLICATION 0] { mechanism OID, token id, inner token }.

Source: RFC 2743 3.1, RFC 4121 4.1.
"""

from __future__ import annotations

from purekrb.constants import KRB5_MECH_OID
from purekrb.errors import DecodeError, UnsupportedError
from purekrb.messages.der import read_header, tlv

__all__ = ["TOK_AP_REQ", "TOK_AP_REP", "TOK_KRB_ERROR", "frame", "unframe"]

TOK_AP_REQ = b"\x01\x00"
TOK_AP_REP = b"\x02\x00"
TOK_KRB_ERROR = b"\x03\x00"

_SPNEGO_OID = bytes.fromhex("2b0601050502")
_MECHANISM = tlv(0x06, KRB5_MECH_OID)


def frame(tok_id: bytes, inner: bytes) -> bytes:
    """Return `inner` as a framed Kerberos token with the two bytes `tok_id`."""
    return tlv(0x60, _MECHANISM + tok_id + inner)


def unframe(token: bytes) -> tuple[bytes, bytes]:
    """Return (token id, inner token) of a framed Kerberos token.

    Raises DecodeError where the frame is not exactly as long as the token, UnsupportedError for another mechanism.
    """
    tag, start, end = read_header(token, 0, len(token))
    if tag != 0x60 or end != len(token):
        raise DecodeError(
            "this is not a GSS-API token: it does not start with an InitialContextToken of its own length"
        )
    tag, oid_start, oid_end = read_header(token, start, end)
    if tag != 0x06:
        raise DecodeError("the GSS-API token names no mechanism")
    oid = token[oid_start:oid_end]
    if oid != KRB5_MECH_OID:
        name = "SPNEGO (Negotiate)" if oid == _SPNEGO_OID else f"OID {oid[:32].hex()}"
        raise UnsupportedError(
            f"the peer uses the mechanism {name}, this context Kerberos V5: configure it for Kerberos"
        )
    if end - oid_end < 2:
        raise DecodeError("the GSS-API token ends before its token id")
    return token[oid_end : oid_end + 2], token[oid_end + 2 : end]
