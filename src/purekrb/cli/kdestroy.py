"""Destroy a credential cache: overwrite and remove its file."""

from __future__ import annotations

import argparse

from purekrb.cli import options
from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_ccache(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.defaults import ccache_name

    name = ccache_name(args.ccache or None).name
    CCache.destroy(name)
    output.result({"destroyed": name}, f"{name} destroyed")
    return 0
