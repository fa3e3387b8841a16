"""Principals: their parts and their text. Source: RFC 4120 5.2.2, 6.1, 6.2; text form as in RFC 1964 2.1.1."""

from __future__ import annotations

from purekrb.constants import NameType
from purekrb.errors import DecodeError
from purekrb.records import record
from purekrb.text import is_shown, spelled

__all__ = ["PrincipalName", "Principal"]

_ESCAPES = {"\n": "\\n", "\t": "\\t", "\b": "\\b", "\\": "\\\\", "/": "\\/", "@": "\\@"}
_UNESCAPES = {"n": "\n", "t": "\t", "b": "\b", "0": "\0"}
#: Hexadecimal digits of a character's number behind a backslash and each of these letters, which MIT does not write.
_NUMBERED = {"x": 2, "u": 4, "U": 8}
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
#: More than any directory allows; keeps hostile input bounded.
MAX_TEXT = 8192


def _quote(text: str) -> str:
    return "".join(_ESCAPES.get(c) or (c if is_shown(c) else spelled(c)) for c in text)


def _unquote(text: str, at: int) -> tuple[str, int]:
    """Return what the backslash before `at` makes of the text there, and where it goes on."""
    letter = text[at]
    digits = text[at + 1 : at + 1 + _NUMBERED.get(letter, 0)]
    if len(digits) == _NUMBERED.get(letter) and _HEXADECIMAL.issuperset(digits):
        code = int(digits, 16)
        if code > 0x10FFFF:
            raise DecodeError(
                f"a principal has the character number 0x{code:x}, but the last one is 0x10ffff"
            )
        return chr(code), at + 1 + len(digits)
    return _UNESCAPES.get(letter, letter), at + 1


@record
class PrincipalName:
    """A name within a realm: PrincipalName of RFC 4120 5.2.2. The name type does not count in comparisons (6.2)."""

    components: tuple[str, ...]
    name_type: int = NameType.PRINCIPAL

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, PrincipalName) and self.components == other.components
        )

    def __ne__(self, other: object) -> bool:  # a tuple's own would compare the name types
        return not self == other

    def __hash__(self) -> int:
        return hash(self.components)

    def __str__(self) -> str:
        return "/".join(map(_quote, self.components))

    def principal(self, realm: str) -> Principal:
        """Return this name in `realm`."""
        return Principal(self.components, realm, self.name_type)


@record
class Principal:
    """A principal: name components and realm; an empty realm means "not known yet", no components "nobody".

    The name type does not count in comparisons (RFC 4120 6.2); components and realm compare exactly. Raises DecodeError
    for NUL (6.1). Whoever is a client, has a key or is named by a message has a name and a realm: `of`, the readers of
    files and those of messages refuse the others.
    """

    components: tuple[str, ...]
    realm: str
    name_type: int = NameType.PRINCIPAL

    def __post_init__(self) -> None:
        if "\0" in self.realm or "\0" in "".join(self.components):
            raise DecodeError("a principal must not contain NUL")

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Principal)
            and self.components == other.components
            and self.realm == other.realm
        )

    def __ne__(self, other: object) -> bool:  # a tuple's own would compare the name types
        return not self == other

    def __hash__(self) -> int:
        return hash((self.components, self.realm))

    @classmethod
    def parse(cls, text: str, realm: str = "") -> Principal:
        r"""Return the principal that `text` spells: `comp/comp@REALM`, with `\` quoting `/`, `@`, `\`, n, t and b.

        `\x1b`, `\u202e` and `\U000e0001` stand for a character by its number, as `str()` writes what a terminal would
        not show. Any other character behind `\` stands for itself, as it does for MIT.
        `realm` is taken where the text names none. One component makes a name of type PRINCIPAL, more make
        SRV_INST. Raises DecodeError for NUL (also as `\0`), empty names, a second `@`, a `/` in the realm that is not
        quoted, or a trailing backslash.
        """
        if len(text) > MAX_TEXT:
            raise DecodeError(f"a principal of {len(text)} characters is longer than {MAX_TEXT}")
        parts: list[list[str]] = [[]]
        realm_at: int | None = None
        i = 0
        while i < len(text):
            c = text[i]
            if c == "\\":
                i += 1
                if i == len(text):
                    raise DecodeError(
                        f"principal {text!r} ends in a backslash: quote it by another one"
                    )
                character, i = _unquote(text, i)
                parts[-1].append(character)
                continue
            if c == "@":
                if realm_at is not None:
                    raise DecodeError(f"principal {text!r} has two '@': quote the first as '\\@'")
                realm_at = len(parts)
                parts.append([])
            elif c == "/":
                if realm_at is not None:
                    raise DecodeError(
                        f"the realm of principal {text!r} has a '/': quote it as '\\/'"
                    )
                parts.append([])
            else:
                parts[-1].append(c)
            i += 1
        names = ["".join(p) for p in parts]
        if realm_at is not None:
            realm = names.pop()
            if not realm:
                raise DecodeError(f"principal {text!r} has an empty realm")
        if not names[0]:
            raise DecodeError(f"principal {text!r} has an empty first component")
        name_type = NameType.PRINCIPAL if len(names) == 1 else NameType.SRV_INST
        return cls(tuple(names), realm, name_type)

    @classmethod
    def of(cls, value: Principal | str) -> Principal:
        """Return `value` itself, or what it spells. Raises DecodeError where no realm is named, or nobody in it."""
        principal = cls.parse(value) if isinstance(value, str) else value
        if not principal.components:
            raise DecodeError(
                "a principal has no name: expected at least one component before the realm"
            )
        if not principal.realm:
            raise DecodeError(
                f"principal {str(principal)!r} names no realm: write {principal}@REALM"
            )
        return principal

    @property
    def name(self) -> PrincipalName:
        """The name without the realm."""
        return PrincipalName(self.components, self.name_type)

    @property
    def default_salt(self) -> bytes:
        """The string-to-key salt unless the KDC names another: realm and components joined. Source: RFC 4120 4."""
        return "".join((self.realm, *self.components)).encode()

    def __str__(self) -> str:
        r"""The text that `parse` reads: MIT's quoting, and characters that are not shown by their number (`\x1b`)."""
        text = str(self.name)
        return f"{text}@{_quote(self.realm)}" if self.realm else text
