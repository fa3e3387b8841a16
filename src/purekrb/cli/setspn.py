"""Manage the service principal names of accounts, with the letters of Windows' setspn.

Letters may be small. The names are unique in the whole forest
if it has a global catalog. See `purekrb help spn` for the same in words.
"""

from __future__ import annotations

import argparse

from purekrb.cli import options, spn
from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]

#: Letter -> the action of `purekrb spn`, its arguments (as there), and its help.
_ACTIONS = {
    "S": ("add", ("spn", "account"), "add a name, if no other account has it"),
    "A": ("add", ("spn", "account"), "the same as -S: no name is added unchecked"),
    "D": ("delete", ("spn", "account"), "delete a name"),
    "R": ("reset", ("host",), "give a computer the names of the class HOST again"),
    "L": ("list", ("account",), "list the names of an account; the default"),
    "Q": ("query", ("pattern",), 'find the accounts with a name; "*" stands for anything'),
    "X": ("duplicates", (), "list the names that several accounts have"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", nargs="?", metavar="ACCOUNT", help="list the names of this account")
    letters = parser.add_mutually_exclusive_group()
    for letter, (_, names, text) in _ACTIONS.items():
        metavar = tuple("ACCOUNT" if name == "host" else name.upper() for name in names)
        letters.add_argument(
            *_cases(letter), dest=letter, nargs=len(names), metavar=metavar, help=text
        ) if names else letters.add_argument(
            *_cases(letter), dest=letter, action="store_const", const=[], help=text
        )
    types = parser.add_mutually_exclusive_group()
    spn.add_account_types(types, computer=_cases("C"), user=_cases("U"))
    parser.add_argument(
        *_cases("T"),
        dest="domain",
        default=argparse.SUPPRESS,
        metavar="DOMAIN",
        help="the same as --domain",
    )
    parser.add_argument(
        *_cases("F"), dest="forest", action="store_true", help="search the whole forest (always)"
    )
    parser.add_argument(
        *_cases("P"), dest="plain", action="store_true", help="show no progress on the terminal"
    )
    options.add_directory(parser)
    options.add_ccache(parser, "--ccache")  # -c is "computer"
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    letter = next((letter for letter in _ACTIONS if getattr(args, letter) is not None), "L")
    args.action, names, _ = _ACTIONS[letter]
    values = getattr(args, letter)
    if values is None:
        values = [args.name]
    elif args.name is not None:
        args.wrong(f"-{letter} takes {len(names)} arguments, not also {args.name!r}")
    if values == [None]:
        args.wrong("give a letter with its arguments, or an account")
    for name, value in zip(names, values, strict=True):
        if name == "host" and "." not in value and not value.endswith("$"):
            value += "$"  # a bare name is that of a computer
        setattr(args, name, [value] if name == "spn" else value)
    args.fix = False  # Windows' setspn writes nothing but names
    output.quiet = output.quiet or args.plain
    return spn.run(args, output)


def _cases(letter: str) -> tuple[str, str]:
    """Return the switch of a letter, in capitals and small."""
    return f"-{letter}", f"-{letter.lower()}"
