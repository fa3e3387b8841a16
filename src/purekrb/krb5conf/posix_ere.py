"""Extended regular expressions of POSIX, matched in bounded time, as the rules of auth_to_local have them.

Python's `re` backtracks, and takes the first alternative that fits. Here, all ways to match are
followed at once, so the time is at most the size of the expression times that of the text; and the
leftmost match is the longest one. Classes and ranges are those of the POSIX locale: ASCII, by code
point. Source: POSIX.1-2017 XBD 9.4, 9.3.5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from purekrb.errors import ConfigError

__all__ = ["Ere", "Steps", "compiled"]

MAX_PATTERN = 1024
MAX_STATES = 2000
MAX_DEPTH = 50
MAX_REPEATS = 3
#: Some tenths of a second.
MAX_STEPS = 500_000

#: Whether a set has a character.
_Has = Callable[[str], bool]
_CLASSES: dict[str, _Has] = {
    name: re.compile(pattern).fullmatch  # type: ignore[misc]
    for name, pattern in {
        "alpha": "[A-Za-z]",
        "digit": "[0-9]",
        "alnum": "[A-Za-z0-9]",
        "upper": "[A-Z]",
        "lower": "[a-z]",
        "space": r"[ \t\n\r\f\v]",
        "blank": r"[ \t]",
        "punct": r"[!-/:-@\[-`{-~]",
        "print": "[ -~]",
        "graph": "[!-~]",
        "cntrl": r"[\0-\x1f\x7f]",
        "xdigit": "[0-9A-Fa-f]",
    }.items()
}
#: What may follow a backslash: the special characters, and "/", which ends a part of a rule otherwise.
_SPECIAL = frozenset("^.[]$()|*+?{}\\/-")
_REPEATS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_INTERVAL = re.compile(r"\{([0-9]{0,5})(?:(,)([0-9]{0,5}))?\}")


class Steps:
    """How many steps one search, or several together, may still take. One is a state at a character."""

    def __init__(self, most: int = MAX_STEPS) -> None:
        self._left = most

    def take(self, count: int) -> None:
        """Count steps. Raises ConfigError if there were too many."""
        self._left -= count
        if self._left < 0:
            raise ConfigError(
                "the rules take too long for this name: write simpler or fewer expressions"
            )


# An expression as a tree: what is repeated, or chosen, is compiled at each place where it may stand.


class _Set(NamedTuple):
    has: _Has


class _Edge(NamedTuple):
    """The start ("^") or the end ("$") of the text."""

    at_start: bool


class _Chain(NamedTuple):
    parts: list[Any]


class _Choice(NamedTuple):
    branches: list[Any]


class _Repeat(NamedTuple):
    part: Any
    least: int
    most: int | None


class _Split(NamedTuple):
    """A state that goes on in two others."""

    one: int
    other: int


class _End(NamedTuple):
    """The state of a match."""


class Ere:
    """An extended regular expression. Raises ConfigError for a bad one, and for one that is too large."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise _bad(pattern[:40], f"it has more than {MAX_PATTERN} characters")
        self._states: list[Any] = []
        self._pattern = pattern
        self._visits = 0
        self._emit(_Parser(pattern).tree())
        self._add(_End())

    def _add(self, state: Any) -> int:
        if len(self._states) >= MAX_STATES:
            raise self._too_large()
        self._states.append(state)
        return len(self._states) - 1

    def _too_large(self) -> ConfigError:
        return _bad(self._pattern, f"it needs more than {MAX_STATES} states")

    def _emit(self, node: Any) -> None:
        """Append the states of `node`; who leaves them goes to the state behind."""
        states = self._states
        self._visits += 1  # repetitions of nothing add no states
        if self._visits > 10 * MAX_STATES:
            raise self._too_large()
        if isinstance(node, _Chain):
            for part in node.parts:
                self._emit(part)
        elif isinstance(node, _Choice):
            ends = []
            for branch in node.branches[:-1]:
                fork = self._add(None)
                self._emit(branch)
                ends.append(self._add(None))
                states[fork] = _Split(fork + 1, len(states))
            self._emit(node.branches[-1])
            for end in ends:
                states[end] = _Split(len(states), len(states))
        elif isinstance(node, _Repeat):
            for _ in range(node.least):
                self._emit(node.part)
            forks = []
            for _ in range(1 if node.most is None else node.most - node.least):
                forks.append(self._add(None))
                self._emit(node.part)
            if node.most is None:
                self._add(_Split(forks[0], forks[0]))
            for fork in forks:
                states[fork] = _Split(fork + 1, len(states))
        else:
            self._add(node)

    def fits(self, text: str, steps: Steps) -> bool:
        """Return whether the whole of `text` matches."""
        return any(end == len(text) for _, end in self._matches(text, steps, everywhere=False))

    def search(self, text: str, steps: Steps) -> tuple[int, int] | None:
        """Return start and end of the leftmost match, the longest if there are several."""
        found = list(self._matches(text, steps, everywhere=True))
        return found[-1] if found else None

    def _matches(self, text: str, steps: Steps, *, everywhere: bool) -> Iterator[tuple[int, int]]:
        """Yield matches, each of which is better than the one before."""
        states = self._states
        end = len(states) - 1
        best: int | None = None
        current: dict[int, int] = {}  # state -> start of the match; earlier starts come first
        for at in range(len(text) + 1):
            if best is None and (everywhere or at == 0):
                self._enter(0, at, at, text, current)
            steps.take(1 + len(current))
            if end in current and (best is None or current[end] <= best):
                best = current[end]
                yield best, at
            following: dict[int, int] = {}
            for state, start in current.items():
                if best is not None and start > best:
                    break
                here = states[state]
                if at < len(text) and isinstance(here, _Set) and here.has(text[at]):
                    self._enter(state + 1, start, at + 1, text, following)
            current = following
            if not current and (best is not None or not everywhere):
                return

    def _enter(self, first: int, start: int, at: int, text: str, into: dict[int, int]) -> None:
        """Add to `into` the states that can be reached from `first` without a character."""
        waiting = [first]
        while waiting:
            state = waiting.pop()
            if state in into:
                continue
            into[state] = start
            here = self._states[state]
            if isinstance(here, _Split):
                waiting += here
            elif isinstance(here, _Edge) and at == (0 if here.at_start else len(text)):
                waiting.append(state + 1)


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Ere:
    """Return the expression, which may be kept from an earlier call."""
    return Ere(pattern)


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0

    def tree(self) -> Any:
        return self._choice()

    def _bad(self, reason: str) -> ConfigError:
        return _bad(self._pattern, reason)

    @property
    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        taken = self._next
        self._at += 1
        return taken

    def _choice(self) -> Any:
        branches = [self._chain()]
        while self._next == "|":
            self._take()
            branches.append(self._chain())
        return branches[0] if len(branches) == 1 else _Choice(branches)

    def _chain(self) -> Any:
        parts: list[Any] = []
        repeated = 0
        # A ")" without a "(" stands for itself.
        while self._next and self._next not in ("|", ")" if self._depth else "|"):
            if self._next in "*+?{":
                if not parts or parts[-1] == _Edge(True):
                    raise self._bad(f"nothing stands before {self._next!r} to be repeated")
                repeated += 1
                if repeated > MAX_REPEATS:
                    raise self._bad(f"more than {MAX_REPEATS} repetitions stand together")
                parts[-1] = _Repeat(parts[-1], *self._interval())
            else:
                parts.append(self._one())
                repeated = 0
        return _Chain(parts)

    def _interval(self) -> tuple[int, int | None]:
        if self._next != "{":
            return _REPEATS[self._take()]
        match = _INTERVAL.match(self._pattern, self._at)
        if match is None or not (match[1] or match[2]):
            raise self._bad("'{' begins no number of repetitions such as {1,3}")
        self._at = match.end()
        least = int(match[1] or 0)
        most = least if match[2] is None else int(match[3]) if match[3] else None
        if most is not None and most < least:
            raise self._bad(f"{match[0]} repeats less often than at least")
        return least, most

    def _one(self) -> Any:
        character = self._take()
        if character == "(":
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise self._bad(f"parentheses are more than {MAX_DEPTH} deep")
            inner = self._choice()
            if self._take() != ")":
                raise self._bad("a ')' is missing")
            self._depth -= 1
            return inner
        if character == "[":
            return _Set(self._bracket())
        if character == ".":
            return _Set(lambda found: found != "\0")
        if character in "^$":
            return _Edge(character == "^")
        if character == "\\":
            return _Set(self._escaped())
        return _Set(character.__eq__)

    def _escaped(self) -> _Has:
        character = self._take()
        if character in _SPECIAL and character:
            return character.__eq__
        if character in ("w", "W"):
            return _word if character == "w" else lambda found: not _word(found)
        raise self._bad(
            f"\\{character} is not of POSIX: only special characters stand behind a backslash"
        )

    def _bracket(self) -> _Has:
        negated = self._next == "^"
        if negated:
            self._take()
        sets: list[_Has] = []
        while True:
            if self._next == "]" and sets:
                self._take()
                break
            low = self._element()
            if not isinstance(low, str):
                sets.append(low)
                if self._next == "-" and self._pattern[self._at + 1 : self._at + 2] != "]":
                    raise self._bad("a class begins a range")
                continue
            if self._next == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                self._take()
                high = self._element()
                if not isinstance(high, str) or high < low:
                    raise self._bad("a range in [...] ends before it begins")
                sets.append(_Range(low, high).has)
            else:
                sets.append(low.__eq__)
        return _Union(tuple(sets), negated).has

    def _element(self) -> str | _Has:
        character = self._take()
        if not character:
            raise self._bad("a ']' is missing")
        if character != "[" or self._next not in (":", ".", "="):
            return character
        kind = self._take()
        end = self._pattern.find(f"{kind}]", self._at)
        if end < 0:
            raise self._bad(f"a '{kind}]' is missing")
        name, self._at = self._pattern[self._at : end], end + 2
        if kind == ":" and name in _CLASSES:
            return _CLASSES[name]
        if kind != ":" and len(name) == 1:
            return name if kind == "." else name.__eq__
        raise self._bad(f"there is no [{kind}{name}{kind}]")


class _Range(NamedTuple):
    low: str
    high: str

    def has(self, character: str) -> bool:
        return self.low <= character <= self.high


class _Union(NamedTuple):
    sets: tuple[_Has, ...]
    negated: bool

    def has(self, character: str) -> bool:
        return any(has(character) for has in self.sets) != self.negated


def _word(character: str) -> bool:
    return character == "_" or bool(_CLASSES["alnum"](character))


def _bad(pattern: str, reason: str) -> ConfigError:
    return ConfigError(f"{pattern!r} is not an extended regular expression of POSIX: {reason}")
