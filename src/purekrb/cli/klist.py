"""List the tickets of a credential cache, or with -k the keys of a keytab (without the keys themselves)."""

from __future__ import annotations

import argparse
from typing import Any

from purekrb.cli import options
from purekrb.cli.output import Output
from purekrb.constants import TicketFlags

__all__ = ["add_arguments", "run", "flag_names", "show_keytab"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_ccache(parser)
    parser.add_argument("-k", "--keytab", nargs="?", const="", metavar="FILE", help="list a keytab instead")
    parser.add_argument(
        "-s", "--silent", action="store_true", help="print nothing; exit code 0 if a TGT is valid, else 1"
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    if args.keytab is not None:
        from purekrb.credentials.keytab import Keytab

        return show_keytab(Keytab.load(args.keytab or None), output)
    from purekrb.credentials.ccache import CCache
    from purekrb.errors import KerberosError
    from purekrb.keys import etype_name
    from purekrb.system import now

    if args.silent:
        try:
            tickets = list(CCache.load(args.ccache))
        except KerberosError:
            return 1
        return 0 if any(ticket.is_tgt and ticket.endtime > now() + ticket.time_offset for ticket in tickets) else 1
    ccache = CCache.load(args.ccache)
    data: list[dict[str, Any]] = [
        {
            "service": str(ticket.service),
            "client": str(ticket.client),
            "starttime": ticket.starttime or ticket.authtime,
            "endtime": ticket.endtime,
            "renew_till": ticket.renew_till,
            "flags": flag_names(ticket.flags),
            "session_key_etype": etype_name(ticket.session_key.etype),
        }
        for ticket in ccache
    ]
    rows = [
        (
            f"{row['starttime']:%Y-%m-%d %H:%M:%SZ}",
            f"{row['endtime']:%Y-%m-%d %H:%M:%SZ}",
            row["session_key_etype"],
            row["service"],
        )
        for row in data
    ]
    output.table(
        {"principal": str(ccache.principal), "tickets": data},
        ("valid from", "until", "session key", "service"),
        rows,
        title=f"tickets of {ccache.principal}",
    )
    return 0


def flag_names(flags: int) -> list[str]:
    """Return the names of the ticket flags that are set."""
    return [flag.name.lower().replace("_", "-") for flag in TicketFlags if flags & flag and flag.name]


def show_keytab(keytab: Any, output: Output) -> int:
    """Print the entries of a keytab."""
    from purekrb.keys import etype_name

    data = [
        {
            "principal": str(entry.principal),
            "kvno": entry.kvno,
            "etype": etype_name(entry.key.etype),
            "timestamp": entry.timestamp,
        }
        for entry in keytab
    ]
    rows = [(str(r["kvno"]), str(r["etype"]), f"{r['timestamp']:%Y-%m-%d}", str(r["principal"])) for r in data]
    output.table(data, ("kvno", "etype", "written", "principal"), rows)
    return 0
