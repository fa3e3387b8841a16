"""List the tickets of a credential cache, or with -k the entries of a keytab (without the keys)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from purekrb.cli import options
from purekrb.cli.output import Output
from purekrb.constants import TicketFlags, asn1_flags

if TYPE_CHECKING:
    from purekrb.credentials.keytab import Keytab

__all__ = ["add_arguments", "run", "show_keytab"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_ccache(parser)
    parser.add_argument(
        "-k",
        "--keytab",
        nargs="?",
        const="",
        metavar="FILE",
        help="list a keytab (default: KRB5_KTNAME) instead",
    )
    parser.add_argument(
        "-s",
        "--silent",
        action="store_true",
        help="print nothing; the exit code is 0 if a TGT is valid, else 1",
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    if args.keytab is not None:
        from purekrb.credentials.keytab import Keytab

        show_keytab(Keytab.load(args.keytab or None), output)
        return 0
    if args.silent:
        return 0 if _has_tgt(args.ccache) else 1

    from purekrb.credentials.ccache import CCache
    from purekrb.keys import etype_name

    ccache = CCache.load(args.ccache)
    tickets: list[dict[str, Any]] = [
        {
            "service": ticket.service,
            "client": ticket.client,
            "starttime": ticket.starttime or ticket.authtime,
            "endtime": ticket.endtime,
            "renew_till": ticket.renew_till,
            "flags": asn1_flags(TicketFlags, ticket.flags),
            "session_key_etype": etype_name(ticket.session_key.etype),
        }
        for ticket in ccache
    ]
    rows = [
        (
            f"{row['starttime']:%Y-%m-%d %H:%M:%SZ}",
            f"{row['endtime']:%Y-%m-%d %H:%M:%SZ}",
            row["session_key_etype"],
            str(row["service"]),
        )
        for row in tickets
    ]
    output.table(
        {"principal": ccache.principal, "tickets": tickets},
        ("valid from", "until", "session key", "service"),
        rows,
        title=f"tickets of {ccache.principal}",
    )
    return 0


def _has_tgt(name: str | None) -> bool:
    from purekrb.credentials.ccache import CCache
    from purekrb.errors import KerberosError
    from purekrb.names import Principal

    try:
        ccache = CCache.load(name)
    except KerberosError:
        return False
    realm = ccache.principal.realm
    return ccache.find(Principal(("krbtgt", realm), realm)) is not None


def show_keytab(keytab: Keytab, output: Output) -> None:
    """Print the entries of a keytab, without their keys."""
    from purekrb.keys import etype_name

    entries: list[dict[str, Any]] = [
        {
            "principal": str(entry.principal),
            "kvno": entry.kvno,
            "etype": etype_name(entry.key.etype),
            "timestamp": entry.timestamp,
        }
        for entry in keytab
    ]
    rows = [
        (str(e["kvno"]), e["etype"], f"{e['timestamp']:%Y-%m-%d}", e["principal"]) for e in entries
    ]
    output.table({"entries": entries}, ("kvno", "etype", "written", "principal"), rows)
