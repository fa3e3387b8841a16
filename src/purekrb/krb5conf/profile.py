"""The grammar of krb5.conf: sections, subsections in braces, relations, includes.

Their meaning is in config.py.

Errors name file and line and never quote one: a relation of another program may hold a PIN, and a wrong path may name
any file.

Source: MIT krb5.conf(5), "Structure".
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from purekrb.errors import ConfigError

__all__ = ["Relation", "Section", "load"]

#: Far above any real configuration. They limit the cost of a file that includes itself, or of a
#: wrong path.
MAX_SIZE = 4 << 20
MAX_FILES = 256
MAX_INCLUDE_DEPTH = 10
MAX_BRACE_DEPTH = 16

_BLANK = " \t\r\v\f"
_SECTION = re.compile(r"\[([^\[\]]+)\](\*?)\s*\Z")
_INCLUDE = re.compile(r"(include|includedir)[ \t]+(?!=)(.*)\Z")
_RELATION = re.compile(r"([^\s=]+?)(\*?)[ \t]*=[ \t]*(.*)\Z", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "b": "\b"}


@dataclass(frozen=True, slots=True)
class Relation:
    """One `name = text`; `where` is its file and line."""

    text: str
    where: str


@dataclass(slots=True)
class Section:
    """A section or subsection: all relations of each name in their order, and the subsections.

    A section or relation that is marked as final ("*") ignores later files in KRB5_CONFIG.
    """

    relations: dict[str, list[Relation]] = field(default_factory=dict)
    sections: dict[str, Section] = field(default_factory=dict)
    final: bool = False
    final_names: set[str] = field(default_factory=set)

    def first(self, name: str) -> Relation | None:
        """Return the first relation `name`, which counts if there can be only one."""
        return next(iter(self.relations.get(name, ())), None)

    def section(self, name: str) -> Section:
        """Return the subsection `name`; an empty one if it does not exist."""
        return self.sections.get(name) or Section()

    def merge(self, later: Section) -> None:
        """Add the content of a later file."""
        if self.final:
            return
        for name, relations in later.relations.items():
            if name not in self.final_names:
                self.relations.setdefault(name, []).extend(relations)
        self.final_names |= later.final_names
        for name, section in later.sections.items():
            self.sections.setdefault(name, Section()).merge(section)
        self.final = later.final


def load(paths: Sequence[Path]) -> Section:
    """Return the merged tree of the files at `paths`, earlier ones first.

    Raises ConfigError, with file and line, for a file that is not a krb5.conf, and OSError if one
    of `paths` cannot be read.
    """
    loader = _Loader()
    root = Section()
    for path in paths:
        tree = Section()
        loader.load(path, tree, depth=0)
        root.merge(tree)
    return root


class _Loader:
    """Reads files into trees, within the limits above."""

    def __init__(self) -> None:
        self._files = 0
        self._size = 0

    def load(self, path: Path, root: Section, depth: int) -> None:
        self._files += 1
        if self._files > MAX_FILES or depth > MAX_INCLUDE_DEPTH:
            raise ConfigError(
                f"{path}: more than {MAX_FILES} files, or includes more than {MAX_INCLUDE_DEPTH} "
                "deep: "
                "look for a file that includes itself"
            )
        parser = _Parser(root)
        for number, line in enumerate(self._read(path).split("\n"), 1):
            where = f"{path}:{number}"
            line = line.strip(_BLANK)
            include = _INCLUDE.match(line)
            if include is not None:
                self._include(include[1], include[2], where, root, depth)
            elif line and line[0] not in "#;":
                parser.line(line, where)
        parser.end(str(path))

    def _read(self, path: Path) -> str:
        mode = path.stat().st_mode
        # A FIFO would block. /dev/null is often used as an empty file.
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise ConfigError(
                f"{path} is not a regular file: name a krb5.conf, or use includedir for a directory"
            )
        with path.open("rb") as file:
            data = file.read(MAX_SIZE - self._size + 1)
        self._size += len(data)
        if self._size > MAX_SIZE:
            raise ConfigError(
                f"{path}: more than {MAX_SIZE} bytes of configuration: this is not a krb5.conf"
            )
        if b"\0" in data:
            raise ConfigError(f"{path} contains NUL bytes: this is not a krb5.conf")
        return data.decode("utf-8-sig", errors="replace")

    def _include(self, directive: str, name: str, where: str, root: Section, depth: int) -> None:
        if not os.path.isabs(name):
            raise ConfigError(f"{where}: {directive} needs an absolute path")
        try:
            if directive == "include":
                paths = [Path(name)]
            else:
                paths = [
                    Path(name, entry) for entry in sorted(os.listdir(name)) if _is_included(entry)
                ]
                paths = [path for path in paths if path.is_file()]
            for path in paths:
                self.load(path, root, depth + 1)
        except OSError as error:
            raise ConfigError(
                f"{where}: {directive} names what cannot be read ({error.strerror}): create it or remove this line"
            ) from None


def _is_included(name: str) -> bool:
    """Return whether includedir reads a file of this name.

    It consists of letters, digits, "-" and "_"; or it ends in ".conf" and is not hidden.
    """
    return re.fullmatch(r"[A-Za-z0-9_-]+|[^.].*\.conf", name, re.DOTALL) is not None


class _Parser:
    """Fills `root` line by line; a file starts outside all sections."""

    def __init__(self, root: Section) -> None:
        self._root = root
        self._open: list[Section] = []
        self._brace_of: Section | None = None

    def line(self, line: str, where: str) -> None:
        """Take a line that is not empty, a comment or an include."""
        if self._brace_of is not None:
            if line != "{":
                raise ConfigError(f"{where}: expected '{{' after the 'name =' before")
            self._enter(self._brace_of, where)
            self._brace_of = None
        elif line[0] == "[":
            self._header(line, where)
        elif line[0] == "}":
            self._leave(line, where)
        else:
            self._relation(line, where)

    def end(self, path: str) -> None:
        """Refuse a file that ends inside braces."""
        if len(self._open) > 1 or self._brace_of is not None:
            raise ConfigError(f"{path}: a '}}' is missing at the end of the file")

    def _header(self, line: str, where: str) -> None:
        match = _SECTION.match(line)
        if match is None:
            raise ConfigError(f"{where}: expected a section like [realms]")
        if len(self._open) > 1:
            raise ConfigError(f"{where}: section header inside braces: a '}}' is missing before it")
        section = self._root.sections.setdefault(match[1].strip(_BLANK), Section())
        section.final |= bool(match[2])
        self._open = [section]

    def _enter(self, section: Section, where: str) -> None:
        if len(self._open) > MAX_BRACE_DEPTH:
            raise ConfigError(f"{where}: braces more than {MAX_BRACE_DEPTH} deep")
        self._open.append(section)

    def _leave(self, line: str, where: str) -> None:
        if len(self._open) < 2:
            raise ConfigError(f"{where}: '}}' without a '{{' before it")
        if line not in ("}", "}*"):
            raise ConfigError(f"{where}: '}}' must stand alone on its line")
        self._open.pop().final |= line == "}*"

    def _relation(self, line: str, where: str) -> None:
        match = _RELATION.match(line)
        if match is None:
            raise ConfigError(f"{where}: expected 'name = value'")
        if not self._open:
            raise ConfigError(
                f"{where}: a relation stands before any section: put [libdefaults] or another one first"
            )
        name, final, text = match[1], bool(match[2]), match[3]
        section = self._open[-1]
        if text in ("", "{"):
            inner = section.sections.setdefault(name, Section())
            inner.final |= final
            if text:
                self._enter(inner, where)
            else:
                self._brace_of = inner
            return
        if text[0] == '"':
            text = _unquote(text, where)
        section.relations.setdefault(name, []).append(Relation(text, where))
        if final:
            section.final_names.add(name)


def _unquote(text: str, where: str) -> str:
    out: list[str] = []
    characters = iter(text[1:])
    for c in characters:
        if c == '"':
            return "".join(out)
        if c == "\\":
            c = next(characters, "")
            c = _ESCAPES.get(c, c)
        out.append(c)
    raise ConfigError(f"{where}: a closing quote is missing")
