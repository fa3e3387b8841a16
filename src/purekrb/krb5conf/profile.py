"""The grammar of krb5.conf: sections, subsections in braces, relations, includes.

Their meaning is in config.py.

One file serves all programs of a machine, and nobody edits it for one of them. So a line that cannot be read is
skipped and noted, and the rest counts. Notes and errors name file and line and never quote one: a relation of another
program may hold a PIN, and a wrong path may name any file.

Source: MIT krb5.conf(5), "Structure".
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from purekrb.errors import ConfigError

__all__ = ["ONE_LINE", "Profile", "Relation", "Section", "SkippedLine", "load", "read_up_to"]

#: Far above any real configuration. They limit the cost of a file that includes itself, or of a
#: wrong path.
MAX_SIZE = 4 << 20
MAX_FILES = 256
MAX_INCLUDE_DEPTH = 10
MAX_BRACE_DEPTH = 16

_BLANK = " \t\r\v\f"
#: More of one load are not noted: the path is wrong, or the file is damaged.
MAX_SKIPPED = 100

_SECTION = re.compile(r"\[([^\[\]]+)\](\*?)\s*(.*)\Z", re.DOTALL)
_INCLUDE = re.compile(r"(include|includedir)[ \t]+(?!=)(.*)\Z")
#: MIT's directive for a configuration that a library keeps: module PATH:RESIDUAL.
_MODULE = re.compile(r"module[ \t]+(?!=)\S+:")
_RELATION = re.compile(r"([^\s=]+?)(\*?)[ \t]*=[ \t]*(.*)\Z", re.DOTALL)
#: An opening or a closing brace; a comment may follow.
_OPENING = re.compile(r"\{\s*(?:[#;].*)?\Z", re.DOTALL)
_CLOSING = re.compile(r"\}(\*?)\s*(.*)\Z", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "b": "\b"}


@dataclass(frozen=True, slots=True)
class Relation:
    """One `name = text`; `where` is its file and line."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """A line of krb5.conf, or a part of it, that does not count. `where` is its file and line."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


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


@dataclass(slots=True)
class Profile:
    """What `load` has read: the merged tree, the files (included ones too), the skipped lines."""

    root: Section = field(default_factory=Section)
    files: list[str] = field(default_factory=list)
    skipped: list[SkippedLine] = field(default_factory=list)

    def skip(self, where: str, reason: str) -> None:
        """Note that a line, or a part of it, does not count."""
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.append(SkippedLine(where, reason))


def load(paths: Sequence[Path]) -> Profile:
    """Return the content of the files at `paths`, earlier ones first.

    Raises ConfigError for a file that is not a krb5.conf at all, and OSError if one of `paths` cannot be read.
    """
    profile = Profile()
    loader = _Loader(profile)
    for path in paths:
        tree = Section()
        loader.load(path, tree, depth=0)
        profile.root.merge(tree)
    if profile.skipped and not profile.root.sections:
        raise ConfigError(f"{profile.skipped[0]}: this is not a krb5.conf")
    return profile


#: What is said of a group on one line, which MIT's library reads as a plain value.
ONE_LINE = "the group {} on one line"


class _Loader:
    """Reads files into trees, within the limits above."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._size = 0

    def load(self, path: Path, root: Section, depth: int) -> None:
        if len(self._profile.files) >= MAX_FILES or depth > MAX_INCLUDE_DEPTH:
            raise ConfigError(
                f"{path}: more than {MAX_FILES} files, or includes more than {MAX_INCLUDE_DEPTH} "
                "deep: "
                "look for a file that includes itself"
            )
        text = self._read(path)
        self._profile.files.append(str(path))
        parser = _Parser(root, self._profile.skip)
        for number, line in enumerate(text.split("\n"), 1):
            where = f"{path}:{number}"
            line = line.strip(_BLANK)
            include = _INCLUDE.match(line)
            if _MODULE.match(line):
                self._profile.skip(
                    where, "a module is a C library that has the configuration: it is not loaded"
                )
            elif include is not None:
                self._include(include[1], include[2], where, root, depth)
            elif line and line[0] not in "#;":
                parser.line(line, where)
        parser.end()

    def _read(self, path: Path) -> str:
        mode = path.stat().st_mode
        # A FIFO would block. /dev/null is often used as an empty file.
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            raise ConfigError(
                f"{path} is not a regular file: name a krb5.conf, or use includedir for a directory"
            )
        data = _contents(path, MAX_SIZE - self._size + 1)
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
            self._profile.skip(where, f"{directive} needs an absolute path")
            return
        paths = [Path(name)]
        try:
            if directive == "includedir":
                paths = [
                    Path(name, entry) for entry in sorted(os.listdir(name)) if _is_included(entry)
                ]
                paths = [path for path in paths if path.is_file()]
        except OSError as error:
            self._unreadable(directive, where, error)
            paths = []
        for path in paths:
            try:
                self.load(path, root, depth + 1)
            except OSError as error:
                self._unreadable(directive, where, error)

    def _unreadable(self, directive: str, where: str, error: OSError) -> None:
        self._profile.skip(
            where,
            f"{directive} names what cannot be read ({error.strerror}): create it or remove this line",
        )


def _contents(path: Path, most: int) -> bytes:
    """Return at most so many bytes of a file."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    try:
        return read_up_to(fd, most)
    finally:
        os.close(fd)


def read_up_to(descriptor: int, most: int) -> bytes:
    """Return at most so many bytes of an open file."""
    parts = []
    while most > 0 and (part := os.read(descriptor, most)):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _is_included(name: str) -> bool:
    """Return whether includedir reads a file of this name.

    It consists of letters, digits, "-" and "_"; or it ends in ".conf" and is not hidden.
    """
    return re.fullmatch(r"[A-Za-z0-9_-]+|[^.].*\.conf", name, re.DOTALL) is not None


class _Parser:
    """Fills `root` line by line; a file starts outside all sections. `skip` notes what does not count."""

    def __init__(self, root: Section, skip: Callable[[str, str], None]) -> None:
        self._root = root
        self._skip = skip
        self._open: list[Section] = []
        #: The places of the braces that are open.
        self._braces: list[str] = []
        #: A "name =" whose "{" should stand on the next line: name, place, whether it is final.
        self._named: tuple[str, str, bool] | None = None

    def line(self, line: str, where: str) -> None:
        """Take a line that is not empty, a comment or an include."""
        if self._named is not None:
            name, named_at, final = self._named
            self._named = None
            if _OPENING.match(line):
                self._enter(name, final, named_at)
                return
            self._skip(named_at, "neither a value nor a '{' follows 'name ='")
        if line[0] == "[":
            self._header(line, where)
        elif line[0] == "}":
            self._leave(line, where)
        else:
            self._relation(line, where)

    def end(self) -> None:
        """Note the braces that are still open."""
        if self._named is not None:
            self._skip(self._named[1], "neither a value nor a '{' follows 'name ='")
        self._unclosed("the end of the file")

    def _unclosed(self, where: str) -> None:
        for brace in self._braces:
            self._skip(brace, f"a '}}' is missing: {where} closes this brace")
        self._braces.clear()

    def _header(self, line: str, where: str) -> None:
        self._unclosed(where)
        match = _SECTION.match(line)
        if match is None:
            self._skip(where, "expected a section like [realms]; what follows is left out")
            self._open = [Section()]  # the lines below belong to no section that is known
            return
        if match[3] and match[3][0] not in "#;":
            self._skip(where, "text after the name of a section does not count")
        section = self._root.sections.setdefault(match[1].strip(_BLANK), Section())
        section.final |= bool(match[2])
        self._open = [section]

    def _enter(self, name: str, final: bool, where: str) -> None:
        if len(self._open) > MAX_BRACE_DEPTH:
            raise ConfigError(f"{where}: braces more than {MAX_BRACE_DEPTH} deep")
        section = self._open[-1].sections.setdefault(name, Section())
        section.final |= final
        self._open.append(section)
        self._braces.append(where)

    def _leave(self, line: str, where: str) -> None:
        if not self._braces:
            self._skip(where, "'}' without a '{' before it")
            return
        match = _CLOSING.match(line)
        if match is not None and match[2] and match[2][0] not in "#;":
            self._skip(where, "text after a '}' does not count")
        self._open.pop().final |= match is not None and match[1] == "*"
        self._braces.pop()

    def _relation(self, line: str, where: str) -> None:
        match = _RELATION.match(line)
        if match is None:
            self._skip(where, "expected 'name = value'")
            return
        if not self._open:
            self._skip(
                where,
                "a relation stands before any section: put [libdefaults] or another one first",
            )
            return
        name, final, text = match[1], bool(match[2]), match[3]
        section = self._open[-1]
        if not text:
            self._named = name, where, final
            return
        if _OPENING.match(text):
            self._enter(name, final, where)
            return
        if text[0] == '"':
            text = _unquote(text)
        elif text[0] == "{" and "=" in text:  # a plain value, also for MIT's library
            self._skip(
                where,
                f"{ONE_LINE.format(name)} is not read as one: put the '{{' at the end of this line, "
                "and each relation and the '}' on a line of its own",
            )
        section.relations.setdefault(name, []).append(Relation(text, where))
        if final:
            section.final_names.add(name)


def _unquote(text: str) -> str:
    """Return the text up to the closing quote; MIT does not miss that one either."""
    out: list[str] = []
    characters = iter(text[1:])
    for c in characters:
        if c == '"':
            break
        if c == "\\":
            c = next(characters, "")
            c = _ESCAPES.get(c, c)
        out.append(c)
    return "".join(out)
