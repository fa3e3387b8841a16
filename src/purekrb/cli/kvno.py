"""Get service tickets (into the credential cache) and show the key version number of each.

With --keytab, also check that the keytab holds the key of each ticket.
"""

from __future__ import annotations

import argparse
from typing import Any

from purekrb.cli import options
from purekrb.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("service", nargs="+", help="as in HTTP/web.example.test")
    options.add_ccache(parser)
    parser.add_argument("-k", "--keytab", metavar="FILE", help="check that this keytab decrypts each ticket")
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb import crypto
    from purekrb.constants import KeyUsage
    from purekrb.credentials.keytab import Keytab
    from purekrb.errors import CredentialError, IntegrityError
    from purekrb.kdc.client import KdcClient
    from purekrb.keys import etype_name
    from purekrb.messages.ap import Ticket

    keytab = None if args.keytab is None else Keytab.load(args.keytab)
    credential = options.credential(args)
    client = KdcClient(options.config(args), timeout=args.timeout)
    rows: list[dict[str, Any]] = []
    for service in args.service:
        with output.waiting(f"asking for {service}"):
            ticket = client.get_ticket(credential, service)
        enc_part = Ticket.decode(ticket.ticket).enc_part
        row = {"service": str(ticket.service), "kvno": enc_part.kvno, "etype": etype_name(enc_part.etype)}
        if keytab is not None:
            found = keytab.find(ticket.service, enc_part.kvno, enc_part.etype)
            try:
                if not found:
                    raise CredentialError(
                        f"the keytab has no {row['etype']} key of {ticket.service} with kvno {enc_part.kvno}: "
                        "export it again"
                    )
                crypto.decrypt(found[0].key, KeyUsage.TICKET, enc_part.cipher)
            except IntegrityError:
                raise CredentialError(
                    f"the key of {ticket.service} in the keytab is not the KDC's, though its kvno is: export it again"
                ) from None
            row["keytab"] = "valid"
        rows.append(row)
    credential.save(args.ccache)
    checked = ": keytab entry valid" if keytab is not None else ""
    output.result(rows, "\n".join(f"{r['service']}: kvno = {r['kvno']} ({r['etype']}){checked}" for r in rows))
    return 0
