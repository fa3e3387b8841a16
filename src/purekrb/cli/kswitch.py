"""Make a credential cache the primary of its collection: the one that commands use by default."""

from __future__ import annotations

import argparse

from purekrb.cli import options
from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    which = parser.add_mutually_exclusive_group(required=True)
    options.add_ccache(which)
    which.add_argument("-p", "--principal", metavar="NAME", help="the cache of this user")
    parser.set_defaults(failure=1)  # as MIT's kswitch


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command. A file is the only one of its collection, and always the primary."""
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.files import split_type

    name = args.ccache
    if args.principal:
        name = CCache.choose(options.principal(args.principal)).name
    if split_type(name)[0] != "FILE":
        CCache.switch(name)
    output.result({"primary": name}, f"{name} is the primary credential cache")
    return 0
