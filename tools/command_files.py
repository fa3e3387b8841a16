"""The man page and the completion scripts of the command, made from its parsers.

The build hook (hatch_build.py) puts them into the wheel. shtab makes the scripts: they are plain
functions of the shells, so that no Python starts at each TAB, and purekrb depends on nothing more.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import purekrb.cli
from purekrb.cli.completion import SCRIPTS

__all__ = ["MAN_PAGE", "command_files"]

#: Where the wheel installs the man page.
MAN_PAGE = "share/man/man1/purekrb.1"

_PROJECT = Path(__file__).parents[1]
_ENVIRONMENT = {
    "KRB5CCNAME": "the credential cache, such as FILE:/tmp/krb5cc_1000 or KCM:",
    "KRB5_KTNAME": "the keytab of services",
    "KRB5_CLIENT_KTNAME": "the keytab of clients",
    "KRB5_CONFIG": "krb5.conf, or several files separated by colons",
    "KRB5_TRACE": "a file to which each step of the protocol is appended, without secrets",
}
#: Options of every command, which the page explains once.
_EVERYWHERE = ("help", "json", "trace")
#: Arguments that are files, by their names. All with the metavar FILE or DIR are, too.
_FILES = ("file", "others", "input", "source", "target")


def command_files() -> dict[str, str]:
    """Return the text of each file, by the path where it is installed."""
    import shtab

    parser = purekrb.cli.parser()
    for action in _all_actions(parser):
        if action.choices is not None and not _subparsers(action):
            action.choices = list(action.choices)  # shtab takes a dict for subcommands
        if action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar == "FILE" or action.dest in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif not action.option_strings and action.choices is None:
            # Else zsh shows the help of the argument, and inserts no switch beside it.
            action.complete = {"zsh": "( )"}  # type: ignore[attr-defined]
    scripts = {path: shtab.complete(parser, shell) for shell, path in SCRIPTS.items()}
    return {MAN_PAGE: _man_page(purekrb.cli.parser()), **scripts}


def _all_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        for inner in _subparsers(action).values():
            yield from _all_actions(inner)


def _subparsers(action: argparse.Action) -> dict[str, argparse.ArgumentParser]:
    return dict(action.choices) if isinstance(action, argparse._SubParsersAction) else {}


# The man page ------------------------------------------------------------------------------------


def _man_page(parser: argparse.ArgumentParser) -> str:
    lines = [
        f'.TH PUREKRB 1 "" "purekrb {purekrb.__version__}" "User Commands"',
        *(".SH NAME", f"purekrb \\- {_roff(str(parser.description).rstrip('.'))}"),
        *(".SH SYNOPSIS", ".B purekrb", ".RI [ options ]", ".I COMMAND", ".RI [ arguments ]"),
        *(".SH OPTIONS", *_options(parser, ("help",))),
        ".SH COMMANDS",
        *_commands(parser),
        ".SH EXIT STATUS",
        *(line for code, text in _exit_codes() for line in (".TP", f".B {code}", _roff(text))),
        ".SH ENVIRONMENT",
        *(line for name, text in _ENVIRONMENT.items() for line in (".TP", f".B {name}", text)),
        *(".SH SEE ALSO", ".BR krb5.conf (5)"),
    ]
    return "\n".join(lines) + "\n"


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        for inner in _subparsers(action).values():
            usage = inner.format_usage().removeprefix("usage: ")
            yield f".SS {_roff(inner.prog)}"
            yield from (".B Usage:", _roff(" ".join(usage.split())), ".PP")
            yield from _paragraphs(inner.description or "")
            yield from _options(inner, _EVERYWHERE)
            yield from _commands(inner)


def _options(parser: argparse.ArgumentParser, skipped: Collection[str]) -> Iterator[str]:
    formatter = parser._get_formatter()
    for action in parser._actions:
        if _subparsers(action) or action.dest in skipped:
            continue
        names = formatter._format_action_invocation(action)
        text = formatter._expand_help(action) if action.help else ""
        yield from (".TP", f".B {_roff(names)}", _roff(text))


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a docstring; indented lines and tables stay as they are."""
    for paragraph in text.strip().split("\n\n"):
        lines = paragraph.splitlines()
        if any(re.search(r"\S {2,}\S|^ {2,}", line) for line in lines):
            yield from (".nf", *map(_roff, lines), ".fi", ".PP")
        else:
            yield from (_roff(" ".join(lines)), ".PP")


def _roff(text: str) -> str:
    """Return text that roff prints as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    return re.sub(r"^\.", r"\\&.", text)


def _exit_codes() -> list[tuple[str, str]]:
    """Return the codes and meanings in the table of docs/cli.md."""
    page = (_PROJECT / "docs" / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([0-9]+) \| (.*) \|$", page, re.MULTILINE)
    return [(code, text.replace("`", "")) for code, text in rows]
