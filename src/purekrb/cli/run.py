"""Run a program with purekrb behind the modules that it imports, such as gssapi.

    purekrb run -- python app.py ARGUMENT ...

The program needs no change and no system library of Kerberos. Every Python that it starts is
included, as long as purekrb is installed in its environment. How: a directory of purekrb comes
first on PYTHONPATH, and Python imports the module sitecustomize in it at startup. So it has no
effect on `python -I`, `-E` and `-S`, which ignore these. The command's exit code is that of the program.
"""

from __future__ import annotations

import argparse
import os
import sys

from purekrb.cli.output import Output
from purekrb.compat import NAMES

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--only",
        metavar="NAMES",
        default=",".join(NAMES),
        help="replace these modules alone; separate them by commas (default: %(default)s)",
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="the program to run"
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command in place of this process."""
    from purekrb import compat

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    unknown = sorted(set(args.only.split(",")) - set(NAMES))
    if not command or unknown:
        raise ValueError(
            f"--only {unknown[0]}: the names are {', '.join(NAMES)}"
            if unknown
            else "name the command to run: purekrb run -- python app.py"
        )
    startup = os.path.join(os.path.dirname(os.path.abspath(compat.__file__)), "startup")
    rest = os.environ.get("PYTHONPATH")
    path = startup if not rest else os.pathsep.join((startup, rest))
    sys.stdout.flush()
    try:
        os.execvpe(  # noqa: S606 - the caller's own command
            command[0], command, {**os.environ, "PYTHONPATH": path, "PUREKRB_COMPAT": args.only}
        )
    except OSError as error:  # it names the last place that was searched
        raise OSError(error.errno, error.strerror, command[0]) from None
