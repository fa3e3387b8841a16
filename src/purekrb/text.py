"""Text for messages; that from other parties is made safe for a terminal or a log.

A peer, a KDC or a directory may choose a name with control characters that move the cursor or begin
a new line, or with format controls that reverse the direction of writing or are invisible.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["first_of", "is_shown", "spelled", "visible"]

_LETTERS = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
#: Marks and letters without a glyph (Default_Ignorable_Code_Point) that `str.isprintable` accepts.
_UNSEEN = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)


def is_shown(text: str) -> bool:
    """Return whether each character of `text` has a glyph or is a blank.

    Control characters and format controls do not.
    """
    return text.isprintable() and (text.isascii() or _UNSEEN.isdisjoint(text))


def spelled(character: str) -> str:
    r"""Return the escape of a character, by its number: `\x0d`, `\u202e` or `\U000e0001`."""
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str) -> str:
    r"""Return `text` with invisible characters escaped, as `\n`, `\x1b` or `\u202e`.

    A second call changes nothing.
    """
    if is_shown(text):
        return text
    return "".join(c if is_shown(c) else _LETTERS.get(c) or spelled(c) for c in text)


def first_of(names: Iterable[str], most: int) -> str:
    """Return the first `most` names with commas, and how many more there are."""
    names = list(names)
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
