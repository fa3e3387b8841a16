"""Destroy a credential cache: overwrite and remove its tickets. Without a cache, nothing is done."""

from __future__ import annotations

import argparse

from purekrb.cli import options
from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    which = parser.add_mutually_exclusive_group()
    options.add_ccache(which)
    which.add_argument("-A", "--all", action="store_true", help="destroy the whole collection")
    which.add_argument(
        "-p", "--principal", metavar="NAME", help="destroy the cache of this user in the collection"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.set_defaults(failure=1)  # as MIT's kdestroy


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command. As with MIT's kdestroy, a missing cache is no failure."""
    from purekrb.credentials.cache_types import resolve
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.defaults import ccache_name

    name = ccache_name(args.ccache).name
    if args.principal:
        name = CCache.choose(options.principal(args.principal)).name or name
    kind, caches, residual = resolve(name)
    members = caches.members(residual if args.all else caches.primary(residual))
    for member in members:
        caches.destroy(member)
    destroyed = [f"{kind}:{member}" for member in members]
    if not args.quiet:
        done = [f"{member} destroyed" for member in destroyed]
        output.result({"destroyed": destroyed}, *done or [f"there is no credential cache {name}"])
    return 0
