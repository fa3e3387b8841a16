"""Distinguished names (DNs): compare, split, escape. Only text is handled. Source: RFC 4514."""

from __future__ import annotations

import re

__all__ = ["DnKey", "dn_key", "domain_of", "escape_rdn_value", "is_at_or_below", "parent_of"]

#: One attribute of a DN, with the separator after it. The value is still escaped.
_AVA = re.compile(
    r"\s*([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)\s*=((?:[^\\,+]|\\.)*)(,|\+|\Z)", re.DOTALL
)
_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2}|.)", re.DOTALL)

#: The result of `dn_key`.
DnKey = tuple[tuple[tuple[str, str], ...], ...]


def dn_key(text: str) -> DnKey | None:
    """Return a value that is equal for all spellings of the DN `text`; None if it is not a DN.

    The value has one tuple for each RDN, the object's own RDN first. Each tuple holds (attribute,
    value) pairs in lower case.
    """
    dn: list[tuple[tuple[str, str], ...]] = []
    rdn: list[tuple[str, str]] = []
    position, separator = 0, ","
    while separator:
        ava = _AVA.match(text, position)
        if ava is None:
            return None
        attribute, value, separator = ava.groups()
        rdn.append((attribute.casefold(), _unescape(value).casefold()))
        if separator != "+":
            dn.append(tuple(sorted(rdn)))
            rdn = []
        position = ava.end()
    return tuple(dn)


def _unescape(value: str) -> str:
    stripped = value.strip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    if backslashes % 2:  # the blank after it is escaped, so it belongs to the value
        stripped += " "
    # Text that is not valid Unicode can be compared, too.
    raw = stripped.encode(errors="surrogatepass")
    return _ESCAPE.sub(_unescaped_bytes, raw).decode(errors="surrogateescape")


def _unescaped_bytes(escape: re.Match[bytes]) -> bytes:
    return bytes.fromhex(escape[1].decode()) if len(escape[1]) == 2 else escape[1]


def is_at_or_below(dn: str, ancestor: str) -> bool:
    """Return whether `dn` names the object `ancestor` or one below it; False if one is not a DN."""
    key, top = dn_key(dn), dn_key(ancestor)
    return key is not None and top is not None and key[-len(top) :] == top


def parent_of(dn: str) -> str:
    """Return the DN of the object above `dn`, with the spelling of `dn`; "" if there is none."""
    position = 0
    while ava := _AVA.match(dn, position):
        position = ava.end()
        if ava[3] == ",":
            return dn[position:].lstrip()
        if not ava[3]:
            break
    return ""


def domain_of(dn: str) -> str:
    """Return the DNS name of the DC= parts at the end of `dn`, in lower case; "" without them."""
    labels: list[str] = []
    for rdn in reversed(dn_key(dn) or ()):
        if len(rdn) != 1 or rdn[0][0] != "dc":
            break
        labels.insert(0, rdn[0][1])
    return ".".join(labels)


def escape_rdn_value(value: str) -> str:
    r"""Return `value` as it is written in an RDN, after `CN=`. Source: RFC 4514 2.4.

    Special characters get a backslash. NUL, the backslash itself and blanks at the ends become
    `\XX`, so that a careless parser cannot split the value.
    """
    escaped = "".join(
        f"\\{ord(c):02x}" if c in "\0\\" else f"\\{c}" if c in ',+"<>;=' else c for c in value
    )
    if escaped.startswith("#"):
        escaped = "\\" + escaped
    if escaped.startswith(" "):
        escaped = r"\20" + escaped[1:]
    if escaped.endswith(" "):
        escaped = escaped[:-1] + r"\20"
    return escaped
