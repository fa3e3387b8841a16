"""The header fields of HTTP Negotiate: challenges and credentials.

Source: RFC 4559 4, RFC 9110 11.6. A field holds the word `Negotiate` and a token in base64.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

from purekrb.errors import DecodeError
from purekrb.gss.context import MAX_TOKEN

__all__ = ["SCHEME", "find_challenge", "read_credentials", "write_field"]

SCHEME = "Negotiate"
#: The most characters of a field that are looked at: a token of that size in base64, and others.
_MAX_FIELD = MAX_TOKEN * 2
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_CHALLENGE = re.compile(r"\s*negotiate(?:\s+([A-Za-z0-9+/]+={0,2}))?\s*", re.IGNORECASE)


def write_field(token: bytes | None) -> str:
    """Return the value of a field: the scheme, and the token if there is one."""
    return f"{SCHEME} {base64.b64encode(token).decode()}" if token else SCHEME


def find_challenge(fields: Iterable[str]) -> bytes | None:
    """Return the token of the Negotiate challenge in the values of WWW-Authenticate, or None.

    The token is b"" if the challenge has none. One value may hold several challenges, separated by
    commas. Raises DecodeError if the token is not base64.
    """
    for field in fields:
        if len(field) > _MAX_FIELD:
            raise DecodeError(f"a challenge of {len(field)} characters is too long to be read")
        for challenge in _QUOTED.sub('""', field).split(","):
            found = _CHALLENGE.fullmatch(challenge)
            if found:
                return _decode(found[1] or "")
    return None


def read_credentials(field: str) -> bytes | None:
    """Return the token in the value of Authorization; None if it is of another scheme.

    Raises DecodeError if the token is not base64.
    """
    scheme, _, text = field.strip().partition(" ")
    if scheme.lower() != SCHEME.lower():
        return None
    if len(text) > _MAX_FIELD:
        raise DecodeError(f"a token of {len(text)} characters is too long to be read")
    return _decode(text.strip())


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError("the token behind the word Negotiate is not base64") from None
