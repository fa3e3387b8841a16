"""Convert tickets between a kirbi file and a credential cache.

The source shows by its contents what it is. The target is a kirbi if its name ends with .kirbi, and
a credential cache otherwise. A target that exists is left as it is.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.output import Output
from purekrb.errors import CredentialError, DecodeError

if TYPE_CHECKING:
    from purekrb.credentials.ticket import ServiceTicket

__all__ = ["add_arguments", "run"]

_SUFFIX = ".kirbi"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", help="a kirbi file, or the name of a credential cache")
    parser.add_argument("target", help=f"a file that ends with {_SUFFIX}, or a credential cache")


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.kirbi import Kirbi

    tickets = _read(args.source)
    if not tickets:
        raise CredentialError(f"{args.source} holds no ticket")
    to_kirbi = args.target.lower().endswith(_SUFFIX)
    if options.cache_exists(args.target):
        raise CredentialError(f"{args.target} exists: choose another name, or remove it first")
    if to_kirbi:
        Kirbi(tickets).save(args.target)
    else:
        tgt = next((ticket for ticket in tickets if ticket.is_tgt), tickets[0])
        CCache(tgt.client, tickets).save(args.target)
    output.result(
        {
            "source": args.source,
            "target": args.target,
            "format": "kirbi" if to_kirbi else "ccache",
            "tickets": len(tickets),
        },
        f"{args.target}: {len(tickets)} tickets from {args.source}",
    )
    return 0


def _read(name: str) -> list[ServiceTicket]:
    """Return the tickets of the credential cache or the kirbi file of that name."""
    from purekrb.credentials import files
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.kirbi import Kirbi

    kind, path = files.split_type(name)
    if kind != "FILE":
        return list(CCache.load(name))
    try:
        return list(Kirbi.load(path))
    except DecodeError as error:
        if name.lower().endswith(_SUFFIX):
            raise
        kirbi = error
    try:
        return list(CCache.load(name))
    except DecodeError:
        raise DecodeError(f"{kirbi}, nor a credential cache") from None
