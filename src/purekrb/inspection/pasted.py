"""What people paste: HTTP headers, base64, hexadecimal in many spellings, dumps, and raw bytes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any
from urllib.parse import unquote_to_bytes

from purekrb.errors import DecodeError, KerberosError
from purekrb.inspection.describe import Inspector
from purekrb.keys import EncryptionKey

__all__ = ["describe_pasted", "from_text"]

#: The most header fields that are shown.
_MAX_FIELDS = 64
#: The most bytes of a field that is broken into lines.
_MAX_FIELD = 1 << 17
#: A header field with a challenge or credentials, as browsers, curl -v and logs show it.
_FIELD = re.compile(
    rb"""(?:^|(?<=[\s<>*|'"\[{(]))(?P<name>(?:Proxy-)?(?:Authorization|Authenticate|Authentication-Info)
    |WWW-Authenticate)['"]?\s*[:=]\s*['"]?(?P<value>[^\r\n]*)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
#: The same without the name, and the commands of SASL in SMTP, IMAP and POP.
_BARE = re.compile(
    rb"""^[\s'"]*(?:[0-9A-Za-z.]{1,16}\s+)?(?:AUTH(?:ENTICATE)?\s+)?
    (?P<value>(?:Negotiate|Kerberos|NTLM|GSSAPI|GSS-SPNEGO)\s+[0-9A-Za-z+/=_\s-]+)['"\s]*$""",
    re.IGNORECASE | re.VERBOSE,
)
#: Schemes whose tokens are decoded. What others carry may be a password.
_SCHEMES = {b"negotiate", b"kerberos", b"ntlm", b"gssapi", b"gss-spnego"}
_CHALLENGE = re.compile(
    rb"(?:^|,)\s*(?P<scheme>[A-Za-z][A-Za-z0-9-]*)(?![A-Za-z0-9-]*\s*=)"
    rb"(?:\s+(?P<token>[A-Za-z0-9+/_-][A-Za-z0-9+/_\-\s]*=*))?"
)
#: A line of base64 that continues the field before it.
_CONTINUED = re.compile(rb"[ \t>]*([A-Za-z0-9+/_-]+=*)[ \t'\"]*")
_DUMPED = re.compile(rb"^\s*(?:0[xX])?([0-9A-Fa-f]{4,8}):?(?:\s+|$)(.*)$")
#: The marks around a literal, and between literals that a compiler joins.
_QUOTES = re.compile(rb"""^[bB]?['"]|(?<!\\)['"]\s*['"]|(?<!\\)['"]$""")
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|[0-7]{1,3}|.|$)", re.DOTALL)
_ESCAPES = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
    b"\\": b"\\", b"'": b"'", b'"': b'"',
}  # fmt: skip
_TEXT = re.compile(rb"[\t\r\n -~]+")
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<body", b"<head")


def describe_pasted(
    data: bytes, keys: Iterable[EncryptionKey] = (), *, show_keys: bool = False
) -> dict[str, Any]:
    """Return the tree of what somebody pasted: text in any of the module's forms, or raw bytes.

    Raises DecodeError, which does not quote the input.
    """
    inspector = Inspector(list(keys), show_keys)
    if data.lstrip()[:9].lower().startswith(_MARKUP):
        raise DecodeError(
            "this is a page in HTML or XML, not a token: a proxy, a login page or an error page "
            "answered; look at the header fields of the answer (WWW-Authenticate)"
        )
    fields = list(_fields(data))
    if not fields:
        raw = from_text(data)
        if raw is None and _TEXT.fullmatch(data):
            raise DecodeError(
                "this is neither an existing file nor hexadecimal, base64 or a header field with "
                "a token"
            )
        return inspector.anything(data if raw is None else raw)
    trees = [_field(inspector, name, value) for name, value in fields]
    return trees[0] if len(trees) == 1 else {"header fields": trees}


def _fields(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the value of each header field that authenticates."""
    if b"\0" in data:
        return
    bare = _BARE.match(data)
    if bare:
        yield "", bare["value"]
        return
    for match in islice(_FIELD.finditer(data), _MAX_FIELDS):
        value = match["value"].strip(b" \t'\",;}])")
        for line in data[match.end() : match.end() + _MAX_FIELD].lstrip(b"\r\n").splitlines():
            continued = _CONTINUED.fullmatch(line)
            if not continued or value.endswith(b"=") or b" " not in value:
                break
            value += continued[1]
        yield match["name"].decode(), value


def _field(inspector: Inspector, name: str, value: bytes) -> dict[str, Any]:
    """Return the tree of a field: each scheme with its token."""
    schemes: list[dict[str, Any]] = []
    for match in _CHALLENGE.finditer(value):
        scheme = match["scheme"]
        tree: dict[str, Any] = {"scheme": scheme.decode()}
        token = b"".join((match["token"] or b"").split())
        if scheme.lower() not in _SCHEMES:
            if value[match.end() :].strip() or token:
                tree["parameters"] = "<not shown: they may be a secret>"
            schemes.append(tree)
            break  # the rest may be a secret, and have commas
        if token:
            raw = _base64(token)
            if raw is None:
                raise DecodeError(f"what follows {scheme.decode()} is not base64: copy all of it")
            tree |= _token(inspector, raw, alone=len(value) == match.end())
        else:
            tree |= {"token": "none"}
            if value[match.end() :].strip() and not _CHALLENGE.match(value, match.end()):
                raise DecodeError(f"what follows {scheme.decode()} is not base64: copy all of it")
        schemes.append(tree)
    if not schemes:
        raise DecodeError("the header field names no scheme, such as Negotiate")
    tree = schemes[0] if len(schemes) == 1 else {"schemes": schemes}
    return {name or "token": tree}


def _token(inspector: Inspector, raw: bytes, *, alone: bool) -> dict[str, Any]:
    try:
        return inspector.anything(raw)
    except KerberosError as error:
        if alone:
            raise
        return {"error": str(error)}


# -- bytes as text ---------------------------------------------------------------------------------


def from_text(data: bytes) -> bytes | None:
    """Return the bytes that a text spells, or None if it spells none.

    It may be hexadecimal with blanks, colons, commas or 0x, a dump of Wireshark, hexdump, xxd or
    tcpdump, a literal of C or Python, or base64: in lines, with the alphabet of URLs, in PEM, with
    per cent signs, and without padding.
    """
    if not data.isascii() or b"\0" in data:
        return None
    text = data.strip()
    for read in (_dump, _hexadecimal, _literal, _pem, _base64):
        raw = read(text)
        if raw is not None:
            return raw
    return None


def _hexadecimal(text: bytes) -> bytes | None:
    digits = re.sub(rb"0[xX](?=[0-9A-Fa-f]{2})|[\s:,{}\[\];'\"-]", b"", text)
    if len(digits) % 2 or (digits != text and not _paired(text)):
        return None
    with suppress(binascii.Error):
        return binascii.unhexlify(digits)
    return None


def _paired(text: bytes) -> bool:
    """Whether separators stand between whole bytes, as they do in no base64."""
    groups = re.findall(rb"[0-9A-Fa-f]+", re.sub(rb"0[xX](?=[0-9A-Fa-f]{2})", b" ", text))
    return all(len(group) % 2 == 0 for group in groups) or b"\n" in text


def _dump(text: bytes) -> bytes | None:
    """Return the bytes of a dump whose lines begin with offsets, in hexadecimal or octal."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = [_DUMPED.match(line) for line in lines]
    rows = [(match[1], match[2]) for match in found if match]
    if len(rows) != len(lines) or not rows:
        return None
    for base in (16, 8):
        with suppress(ValueError):
            raw = _rows([(int(offset, base), rest) for offset, rest in rows])
            if raw is not None:
                return raw
    return None


def _rows(rows: list[tuple[int, bytes]]) -> bytes | None:
    raw = b""
    widest = 16
    for number, (offset, rest) in enumerate(rows):
        if offset != len(raw):
            return None
        following = rows[number + 1][0] - offset if number + 1 < len(rows) else None
        if following is not None and not 0 < following <= 64:
            return None
        raw += _row(rest, widest if following is None else following, following is None)
        widest = following or widest
    return raw or None


def _row(rest: bytes, size: int, last: bool) -> bytes:
    """Return the `size` bytes at the start of a row, or in the last row as many as there are."""
    digits = b""
    if last:  # the characters that the bytes stand for follow behind two blanks or a bar
        rest = rest.partition(b"|")[0]
    for blanks, group in re.findall(rb"(\s*)([^\s]+)", rest):
        # hexdump has two blanks in the middle of a row
        ends = last and digits and len(blanks) > 1 and (len(digits), len(blanks)) != (16, 2)
        if len(digits) >= 2 * size or ends or not re.fullmatch(rb"(?:[0-9A-Fa-f]{2})+", group):
            break
        digits += group
    if not last and len(digits) < 2 * size:
        raise ValueError("a row is shorter than its offset says")
    return bytes.fromhex(digits[: 2 * size].decode())


def _literal(text: bytes) -> bytes | None:
    """Return the bytes of a literal of Python or C: b"...", "\\x60\\x82"."""
    if b"\\x" not in text:
        return None
    body = _QUOTES.sub(b"", text.rstrip(b";,"))
    failed = False

    def octet(match: re.Match[bytes]) -> bytes:
        nonlocal failed
        escape = match[1]
        if escape[:1] == b"x" and len(escape) == 3:
            return bytes.fromhex(escape[1:].decode())
        if escape.strip(b"01234567") == b"" != escape:
            return bytes((int(escape, 8) & 0xFF,))
        failed = failed or escape not in _ESCAPES
        return _ESCAPES.get(escape, b"")

    raw = _ESCAPE.sub(octet, body)
    return None if failed else raw


def _pem(text: bytes) -> bytes | None:
    lines = text.splitlines()
    marked = len(lines) > 2 and lines[0].startswith(b"-----BEGIN ")
    if not marked or not lines[-1].startswith(b"-----END "):
        return None
    return _base64(b"\n".join(lines[1:-1]))


def _base64(text: bytes) -> bytes | None:
    if re.search(rb"%[0-9A-Fa-f]{2}", text):
        text = unquote_to_bytes(text)
    compact = b"".join(text.strip(b" \t\r\n'\",;").split())
    digits = compact.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    with suppress(ValueError):
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    return None
