"""The `purekrb` command.

Each subcommand is a module here with `add_arguments(parser)` and `run(args, output)`. A secret is
never an argument: passwords and keys are read from the terminal, standard input or a file.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from purekrb import __version__, errors
from purekrb.cli import options
from purekrb.cli.output import Output

# Never run, but read by tools that freeze programs, such as PyInstaller.
if TYPE_CHECKING:
    from purekrb.cli import (  # noqa: F401
        account,
        completion,
        connect,
        convert,
        demo,
        doctor,
        inspect,
        kdestroy,
        keytab,
        kinit,
        klist,
        kpasswd,
        kswitch,
        kvno,
        realm,
        run,
        scp,
        serve,
        serve_http_auth,
        setspn,
        spn,
    )

__all__ = ["main", "parser", "COMMANDS", "EXIT_CODES"]

COMMANDS = {
    "demo": "show everything in one process: a realm, a directory, a service, a client, impostors",
    "kinit": "get or renew a ticket-granting ticket",
    "klist": "list the tickets of a credential cache, or the keys of a keytab",
    "kpasswd": "change a password, or set that of another user",
    "kdestroy": "destroy a credential cache",
    "kswitch": "make a credential cache the primary of its collection",
    "kvno": "get service tickets and show their key version numbers",
    "keytab": "list, add, delete and merge keys, or derive them from a password",
    "spn": "make and parse service principal names; manage those of accounts in a directory",
    "setspn": "manage the service principal names of accounts, with the letters of Windows",
    "account": "create the account of a service, and give it new keys; disable and delete it",
    "scp": "publish services in the directory, find and verify them",
    "serve": "run an echo service over sealed channels",
    "serve-http-auth": "answer nginx's auth_request: who a request comes from",
    "connect": "talk to a service over a sealed channel",
    "convert": "convert tickets between a kirbi file and a credential cache",
    "run": "run a Python program with purekrb behind the modules that it imports, such as gssapi",
    "inspect": "decode a token, ticket, keytab or credential cache into a tree",
    "doctor": "find out why Kerberos does not work, and what to do",
    "realm": "run an embedded realm (KDC) for tests",
    "completion": "print what makes a shell complete purekrb's arguments",
}

#: Exit codes of errors. The first code whose classes match counts; other errors have 1. docs/cli.md
#: explains them.
EXIT_CODES: dict[int, tuple[type[errors.KerberosError], ...]] = {
    3: (errors.PreauthFailedError,),
    4: (errors.ProtocolError, errors.IntegrityError, errors.ApError, errors.SequenceError),
    5: (errors.TransportError,),
    6: (errors.KdcError,),
    7: (errors.CredentialError,),
    8: (errors.DecodeError, errors.SpnError),
    9: (errors.ConfigError,),
    10: (errors.DirectoryError,),
}
#: Exit codes of a service that must not start, by `RegistrationError.reason`.
REGISTRATION_EXIT_CODES = {
    "NOT_REGISTERED": 20,
    "WRONG_ACCOUNT": 21,
    "DUPLICATE": 22,
    "STALE_DN": 23,
    "NO_STATE": 24,
    "DIRECTORY_UNREACHABLE": 25,
}
USAGE, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


class _Paragraphs(argparse.HelpFormatter):
    """Fills each paragraph of a description to the terminal's width; indented ones stay."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part
            if part.startswith(" ")
            else super(_Paragraphs, self)._fill_text(part, width, indent)
            for part in text.strip().split("\n\n")
        )


def parser(wanted: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Return the parser of the command line. Only the commands in `wanted` are imported."""
    parser = argparse.ArgumentParser(
        prog="purekrb",
        description="Kerberos mutual authentication in pure Python.",
        epilog="`purekrb help COMMAND` explains a command.",
        parents=[options.common()],
        allow_abbrev=False,
    )
    parser.set_defaults(json=False, trace=False, wrong=parser.error)
    parser.add_argument("-V", "--version", action="version", version=f"purekrb {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        if name not in wanted:
            commands.add_parser(name, help=summary)
            continue
        module = importlib.import_module(f"purekrb.cli.{name.replace('-', '_')}")
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            parents=[options.common()],
            allow_abbrev=False,
            formatter_class=_Paragraphs,
        )
        command.set_defaults(run=module.run, wrong=command.error)
        module.add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (by default, sys.argv) and return the exit code.

    Errors are printed as one line on standard error.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    try:
        whole = parser(argv)
        args, unknown = whole.parse_known_args(argv)
        if unknown:  # with the usage of the command, where parse_args would print that of purekrb
            args.wrong(f"unrecognized arguments: {' '.join(unknown)}")
        if "run" not in args:
            whole.print_help(sys.stderr)
            return USAGE
        output = Output(as_json=args.json, trace=args.trace)
        with output.log(os.environ.get("KRB5_TRACE")):
            return _run(args, output)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has ended, as `| head` does
        # Otherwise Python would fail when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(args: argparse.Namespace, output: Output) -> int:
    try:
        return int(args.run(args, output))
    except errors.KerberosError as error:
        output.error(str(error), type(error).__name__)
        if "failure" in args:
            return int(args.failure)
        if isinstance(error, errors.RegistrationError):
            return REGISTRATION_EXIT_CODES[error.reason]
        return next((code for code, kinds in EXIT_CODES.items() if isinstance(error, kinds)), 1)
    except BrokenPipeError:
        raise
    except OSError as error:
        output.error(
            f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), type(error).__name__
        )
    except UnicodeError as error:  # its own text may quote a password
        output.error(
            "a text is not UTF-8: check the encoding of the terminal or the file",
            type(error).__name__,
        )
    except ValueError as error:
        output.error(str(error), type(error).__name__)
    return 1
