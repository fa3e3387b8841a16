"""Distinguished names: how they are spelled, compared and taken apart. Pure text. Source: RFC 4514."""

from __future__ import annotations

import re

__all__ = ["DnKey", "dn_key", "domain_of", "escape_rdn_value", "is_at_or_below", "parent_of"]

#: One attribute of a DN with the separator behind it; the value still escaped.
_AVA = re.compile(
    r"\s*([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)\s*=((?:[^\\,+]|\\.)*)(,|\+|\Z)", re.DOTALL
)
_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2}|.)", re.DOTALL)

#: What `dn_key` returns.
DnKey = tuple[tuple[tuple[str, str], ...], ...]


def dn_key(text: str) -> DnKey | None:
    """Return what all spellings of the DN `text` have in common, None where it is no DN.

    One tuple per RDN, the object's own first, of its (attribute, value) pairs, everything in lower case.
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
    if backslashes % 2:  # the blank behind it is escaped, and so part of the value
        stripped += " "
    raw = stripped.encode(
        errors="surrogatepass"
    )  # text that is no Unicode is compared all the same
    return _ESCAPE.sub(_unescaped_bytes, raw).decode(errors="surrogateescape")


def _unescaped_bytes(escape: re.Match[bytes]) -> bytes:
    return bytes.fromhex(escape[1].decode()) if len(escape[1]) == 2 else escape[1]


def is_at_or_below(dn: str, ancestor: str) -> bool:
    """Return whether `dn` names the object `ancestor` or one below it. False where either is no DN."""
    key, top = dn_key(dn), dn_key(ancestor)
    return key is not None and top is not None and key[-len(top) :] == top


def parent_of(dn: str) -> str:
    """Return the DN of the object above `dn`, as it is spelled there; "" where there is none."""
    position = 0
    while ava := _AVA.match(dn, position):
        position = ava.end()
        if ava[3] == ",":
            return dn[position:].lstrip()
        if not ava[3]:
            break
    return ""


def domain_of(dn: str) -> str:
    """Return the DNS name that the DC= parts at the end of `dn` spell, in lower case; "" where there are none."""
    labels: list[str] = []
    for rdn in reversed(dn_key(dn) or ()):
        if len(rdn) != 1 or rdn[0][0] != "dc":
            break
        labels.insert(0, rdn[0][1])
    return ".".join(labels)


def escape_rdn_value(value: str) -> str:
    r"""Return `value` as it stands in an RDN: `CN=` and this. Source: RFC 4514 2.4.

    Special characters get a backslash; NUL, the backslash itself and blanks at the ends become `\XX`, a form that
    leaves nothing for a careless parser to split.
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
