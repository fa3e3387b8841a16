"""Sealed messages in two parts, a header and the rest, as WinRM and its libraries have them.

Source: MS-WSMV 2.2.9.1; RFC 4121 4.2.4 and RFC 4757 7.3 for what is where in a token.
"""

from __future__ import annotations

__all__ = ["split"]

#: The start of a token with an AES key. Other tokens have RC4 keys.
_AES = b"\x05\x04"
#: The bytes after the data in an RC4 token.
_RC4_PADDING = 1


def split(token: bytes, size: int) -> tuple[bytes, bytes, int]:
    """Return (header, the rest, bytes of padding in the rest) of our sealed token of `size` bytes.

    The rest are the encrypted data and then the padding, if any.
    """
    padding = 0 if token[:2] == _AES else _RC4_PADDING
    start = len(token) - size - padding
    return token[:start], token[start:], padding
