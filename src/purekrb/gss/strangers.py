"""What a peer sent where a token belongs, as far as it can be recognised. For messages only."""

from __future__ import annotations

import re

__all__ = ["what_is"]

_MARKUP = re.compile(rb"\s*<[!?a-zA-Z]")
_BASE64 = re.compile(rb"[A-Za-z0-9+/\r\n]{16,}={0,2}\s*")
_WITHOUT_FRAME = "without the GSS-API frame around it"
#: The start of what is often there instead -> its name.
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"HTTP/", "an HTTP response"),
    (b"Negotiate", "the value of an HTTP header (the token is behind the scheme, in base64)"),
    (b"Kerberos ", "the value of an HTTP header (the token is behind the scheme, in base64)"),
    (b"Basic ", "a password for HTTP's Basic authentication"),
    (b"Bearer ", "a bearer token of HTTP"),
    (b"NTLMSSP\0", "an NTLM token"),
    (b"TlRMTVNTUA", "an NTLM token in base64"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"\x15\x03", "a TLS alert"),
    (b"\x16\x03", "a TLS handshake"),
    (b"\x6e", f"a bare AP-REQ, {_WITHOUT_FRAME}"),
    (b"\x6f", f"a bare AP-REP, {_WITHOUT_FRAME}"),
    (b"\x7e", f"a bare KRB-ERROR, {_WITHOUT_FRAME}"),
    (b"\x6a", "an AS-REQ, a message for a KDC"),
    (b"\x6b", "an AS-REP, a message of a KDC"),
    (b"\x6c", "a TGS-REQ, a message for a KDC"),
    (b"\x6d", "a TGS-REP, a message of a KDC"),
    (b"\x76", "a KRB-CRED"),
    (b"\xa1", "a NegTokenResp of SPNEGO"),
    (b"\x05\x04", "a sealed or signed message of an established context"),
    (b"\x04\x04", "a signature (MIC) of an established context"),
)


def what_is(token: bytes) -> str | None:
    """Return what `token` looks like, if it is nothing that a GSS-API token begins with."""
    if not token:
        return "nothing"
    if token[:1] == b"\x60":  # RFC 2743 3.1: the frame of an initial token
        return None
    if _MARKUP.match(token):
        return "an HTML or XML page"
    for start, name in _STARTS:
        if token.startswith(start):
            return name
    if _BASE64.fullmatch(token):
        return "text in base64: decode it first"
    line = token[:64].translate(None, b"\r\n\t")
    return "text" if line.isascii() and line.decode().isprintable() and line else None
