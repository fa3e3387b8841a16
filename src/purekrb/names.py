"""Principals: their parts and their text form.

Source: RFC 4120 5.2.2, 6.1, 6.2; the text form follows RFC 1964 2.1.1.
"""

from __future__ import annotations

import re
from string import ascii_lowercase, ascii_uppercase

from purekrb.constants import NameType
from purekrb.errors import DecodeError
from purekrb.records import record
from purekrb.text import is_shown, spelled

__all__ = ["ANONYMOUS", "ANONYMOUS_REALM", "Principal", "PrincipalName", "as_written", "folded"]

_ESCAPES = {"\n": "\\n", "\t": "\\t", "\b": "\\b", "\\": "\\\\", "/": "\\/", "@": "\\@"}
_UNESCAPES = {"n": "\n", "t": "\t", "b": "\b", "0": "\0"}
#: The number of hexadecimal digits after a backslash and this letter. MIT does not write these
#: forms.
_NUMBERED = {"x": 2, "u": 4, "U": 8}
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
#: More than any directory allows. It bounds hostile input.
MAX_TEXT = 8192
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
#: `DOMAIN\\user`, which is no text form of a principal: it would need a realm to be one.
_WINDOWS_NAME = re.compile(r"[^\\/@\s]+\\[^\\/@]+")


def _quote(text: str) -> str:
    if is_shown(text) and _ESCAPES.keys().isdisjoint(text):  # nearly every name
        return text
    return "".join(_ESCAPES.get(c) or (c if is_shown(c) else spelled(c)) for c in text)


def _unquote(text: str, at: int) -> tuple[str, int]:
    """Return the character that the escape at `at` stands for, and the position after the escape.

    The backslash is before `at`.
    """
    letter = text[at]
    digits = text[at + 1 : at + 1 + _NUMBERED.get(letter, 0)]
    if len(digits) == _NUMBERED.get(letter) and _HEXADECIMAL.issuperset(digits):
        code = int(digits, 16)
        if code > 0x10FFFF:
            raise DecodeError(
                f"a principal has the character number 0x{code:x}, but the highest is 0x10ffff"
            )
        return chr(code), at + 1 + len(digits)
    return _UNESCAPES.get(letter, letter), at + 1


@record
class PrincipalName:
    """A name within a realm: PrincipalName of RFC 4120 5.2.2.

    Comparisons ignore the name type (6.2).
    """

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

    @property
    def anonymous(self) -> bool:
        """Whether it stands for nobody."""
        return self.components == ANONYMOUS.components


#: The client that stands for nobody, and the realm of one whose realm is hidden, too.
#: Source: RFC 8062 3.
ANONYMOUS = PrincipalName(("WELLKNOWN", "ANONYMOUS"), NameType.WELLKNOWN)
ANONYMOUS_REALM = "WELLKNOWN:ANONYMOUS"


@record
class Principal:
    """A principal: name components and realm.

    An empty realm means "not known yet"; no components mean "nobody". Comparisons ignore the name
    type (RFC 4120 6.2); components and realm compare exactly. Raises DecodeError for NUL (6.1).
    Clients, owners of keys and principals in messages need a name and a realm: `of`, and the
    decoders of files and messages, refuse principals without them. Only a client's enterprise name
    (`as_written`) may lack the realm until the configuration gives it.
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
        r"""Return the principal of the text form `comp/comp@REALM`.

        A `\` quotes `/`, `@`, `\`, n, t and b. `\x1b`, `\u202e` and `\U000e0001` stand for a
        character by its number; `str()` uses these forms if a terminal would not show the
        character. After `\`, any other character stands for itself, as in MIT's library. If the
        text names no realm, `realm` is used. One component gives a name of type PRINCIPAL; more
        give SRV_INST. Raises DecodeError for NUL (also as `\0`), an empty first component or realm,
        a second `@`, an unquoted `/` in the realm, or a trailing backslash.
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
                        f"principal {text!r} ends in a backslash: quote it with another one"
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
        """Return `value` itself, or the principal of its text form.

        Raises DecodeError if the realm or the name is missing; an enterprise name may lack a realm.
        """
        principal = cls.parse(value) if isinstance(value, str) else value
        if not principal.components:
            raise DecodeError(
                "a principal has no name: expected at least one component before the realm"
            )
        if not principal.realm and principal.name_type != NameType.ENTERPRISE:
            if isinstance(value, str) and _WINDOWS_NAME.fullmatch(value):
                user = value.partition("\\")[2]
                raise DecodeError(
                    f"{value!r} names a Windows domain and an account: write {user}@REALM"
                )
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
        """The string-to-key salt, unless the KDC names another one: realm and components joined.

        Source: RFC 4120 4.
        """
        return "".join((self.realm, *self.components)).encode()

    def __str__(self) -> str:
        r"""Return the text form that `parse` reads.

        It has MIT's quoting. Invisible characters are written by their number (`\x1b`).
        """
        text = str(self.name)
        return f"{text}@{_quote(self.realm)}" if self.realm else text


def as_written(text: str, realm: str = "", *, enterprise: bool = False) -> Principal:
    r"""Return the client that a person's `text` names; `realm` is used if it names none.

    Besides the text form of a principal, this is `DOMAIN\user`, and with `enterprise` a name of any
    form that the KDC looks up, such as a user principal name (`john.doe@mail.example`). Its realm is
    the text after a second "@", as in MIT's kinit -E; without one, it stays empty, whatever `realm`
    is: `spelling.complete` adds it. Raises DecodeError. Source: RFC 6806 5.
    """
    if _WINDOWS_NAME.fullmatch(text) and len(text) <= MAX_TEXT:
        return Principal((text,), "", NameType.ENTERPRISE)
    if not enterprise:
        return Principal.parse(text, realm)
    quoted = text.replace("\\@", "@")
    name, at, last = quoted.rpartition("@")
    if not at or ("@" not in name):
        name, last = quoted, ""
    if not name or len(text) > MAX_TEXT or (at and not last and quoted.endswith("@")):
        raise DecodeError(
            f"{text[:MAX_TEXT]!r} is no enterprise name: write name@suffix, or name@suffix@REALM"
        )
    return Principal((name,), last, NameType.ENTERPRISE)


def folded(principal: Principal) -> tuple[str, ...]:
    """Return a key that is equal for principals that only differ in the case of ASCII letters.

    By Unicode's rules, different accounts would be equal ("ss" and "ß").
    """
    return tuple(text.translate(_LOWER) for text in (principal.realm, *principal.components))
