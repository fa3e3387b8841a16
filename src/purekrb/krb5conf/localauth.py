"""Which local user a principal is: auth_to_local, auth_to_local_names. Text alone.

The relations stand in the section of the default realm. MIT's rules count, not those of Hadoop and Kafka, which spell
alike and mean something else. Where a rule cannot be read, nobody is let in on a guess: ConfigError.
Source: MIT krb5.conf(5), "auth_to_local".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from purekrb.errors import ConfigError
from purekrb.krb5conf.posix_ere import Steps, compiled
from purekrb.log import Log
from purekrb.names import Principal

__all__ = ["local_name"]

log = Log("purekrb.kdc")

_SELECTION = re.compile(r"\[([0-9]{0,3}):([^\]]*)\]")
_VARIABLE = re.compile(r"\$([0-9]{0,3})")
#: What text escapes in the names of `auth_to_local_names` and of rules without a selection.
_ESCAPED = str.maketrans({"\\": r"\\", "/": r"\/", "\n": r"\n", "\t": r"\t", "\b": r"\b"})


def local_name(
    principal: Principal,
    default_realm: str | None,
    rules: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> str | None:
    """Return the local user of `principal`, or None. Raises ConfigError for a rule that cannot be read.

    `names` comes first; it maps names without their realm. Then the first of `rules` counts that applies;
    without any, that is DEFAULT: the name itself if it has one component and the default realm.
    """
    if not principal.components:
        return None
    if not all(map(str.isprintable, (*principal.components, principal.realm))):
        log.debug("a principal with characters that cannot be printed is no local user")
        return None
    steps = Steps()
    found = (names or {}).get(_without_realm(principal))
    if found is None:
        for rule in rules or ("DEFAULT",):
            found = _apply(rule.strip(), principal, default_realm, steps)
            if found is not None:
                log.debug("%s is the local user %s by %s", principal, found, rule)
                break
    return found if found and found.isprintable() else None


def _apply(rule: str, principal: Principal, default_realm: str | None, steps: Steps) -> str | None:
    kind, colon, text = rule.partition(":")
    if kind == "DEFAULT":
        return _default(principal, default_realm)
    if kind == "RULE" and colon:
        return _translate(text, principal, steps)
    raise _bad(rule, "it is neither DEFAULT nor begins with RULE:")


def _default(principal: Principal, default_realm: str | None) -> str | None:
    first, *others = principal.components
    # "user/REALM@REALM" counts as "user@REALM".
    if default_realm and principal.realm == default_realm and others in ([], [default_realm]):
        return first
    return None


def _translate(text: str, principal: Principal, steps: Steps) -> str | None:
    """Return what `[n:selection](expression)s/expression/text/g` makes of a name; each part may be missing."""
    selected = _without_realm(principal)
    if text.startswith("["):
        match = _SELECTION.match(text)
        if match is None:
            raise _bad(text, "it has no [n:...] at its beginning")
        if int(match[1] or 0) != len(principal.components):
            return None
        selected = _VARIABLE.sub(_part_of(principal, text), match[2])
        text = text[match.end() :]
    if text.startswith("("):
        # The first ")" ends the expression, whatever stands before it.
        expression, closed, text = text[1:].partition(")")
        if not closed:
            raise _bad(text, "a ')' is missing")
        if not compiled(expression).fits(selected, steps):
            return None
    for expression, replacement, everywhere in _replacements(text):
        selected = _replace(expression, replacement, everywhere, selected, steps)
    return selected


def _part_of(principal: Principal, rule: str) -> Callable[[re.Match[str]], str]:
    parts = (principal.realm, *principal.components)

    def part(variable: re.Match[str]) -> str:
        number = int(variable[1] or 0)
        if number >= len(parts):
            raise _bad(rule, f"{variable[0]} stands for a component that the name does not have")
        return parts[number]

    return part


def _replacements(text: str) -> Iterator[tuple[str, str, bool]]:
    """Yield expression, replacement and whether it is made everywhere, of each s/.../.../ in `text`."""
    while text := text.lstrip(" \t"):
        if not text.startswith("s/") or text.count("/") < 3:
            hadoop = " (/L is of Hadoop's dialect)" if text in ("/L", "L") else ""
            raise _bad(text, f"expected s/expression/text/{hadoop}")
        _, expression, replacement, text = text.split("/", 3)
        everywhere = text.startswith("g")
        yield expression, replacement, everywhere
        text = text[everywhere:]


def _replace(expression: str, replacement: str, everywhere: bool, text: str, steps: Steps) -> str:
    """Return `text` with the first match replaced, or all. Each is searched for in the text that is left."""
    done, left = "", text
    while (found := compiled(expression).search(left, steps)) is not None:
        start, end = found
        if everywhere and start == end:
            raise _bad(
                f"s/{expression}/.../g", "its expression matches the empty text, without end"
            )
        done, left = done + left[:start] + replacement, left[end:]
        steps.take(len(left))
        if not everywhere:
            break
    return done + left


def _without_realm(principal: Principal) -> str:
    return "/".join(component.translate(_ESCAPED) for component in principal.components)


def _bad(rule: str, reason: str) -> ConfigError:
    return ConfigError(f"auth_to_local: the rule {rule!r} cannot be read: {reason}")
