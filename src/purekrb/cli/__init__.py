"""The `purekrb` command. Each subcommand is a module here with `add_arguments(parser)` and `run(args, output)`.

Exit codes, for scripts: see `EXIT_CODES`; 0 is success, 2 a usage error, 130 an interruption.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from purekrb import __version__, errors
from purekrb.cli.output import Output

__all__ = ["main", "COMMANDS", "EXIT_CODES"]

COMMANDS = {
    "demo": "show the whole job in one process: realm, directory, service, client, impostor",
    "kinit": "get a ticket-granting ticket",
    "klist": "list the tickets of a credential cache, or the keys of a keytab",
    "kdestroy": "destroy a credential cache",
    "kvno": "get service tickets and show their key version numbers",
    "keytab": "list, add, delete and merge keys, or derive them from a password",
    "spn": "make, get and crack service principal names",
    "serve": "run an echo service over sealed channels",
    "connect": "talk to a service over a sealed channel",
    "inspect": "decode a token, ticket, keytab or credential cache into a tree",
    "realm": "run an embedded realm (KDC) for tests",
}

#: The first class that an error belongs to gives the exit code.
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.PreauthFailedError, 3),
    (errors.MutualAuthenticationError, 4),
    (errors.IntegrityError, 4),
    (errors.ApError, 4),
    (errors.TransportError, 5),
    (errors.KdcError, 6),
    (errors.CredentialError, 7),
    (errors.DecodeError, 8),
    (errors.ConfigError, 9),
    (errors.KerberosError, 1),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="purekrb", description="Kerberos mutual authentication in pure Python.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"purekrb {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("--trace", action="store_true", help="print each protocol step to standard error; no secrets")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"purekrb.cli.{name}")
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            parents=[common],
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Errors are one line on standard error."""
    args = _parser().parse_args(argv)
    if args.trace:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(relativeCreated)7.1f ms  %(name)s  %(message)s"))
        logger = logging.getLogger("purekrb")
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    output = Output(as_json=args.json)
    try:
        return int(args.run(args, output) or 0)
    except errors.KerberosError as error:
        output.error(str(error), type(error).__name__)
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
        return 1
    except (OSError, ValueError) as error:
        output.error(str(error), type(error).__name__)
        return 1
