"""Get service tickets, store them in the credential cache, and show their key version numbers.

With --keytab, also check that the keytab has the key of each ticket.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from purekrb.credentials.keytab import Keytab
    from purekrb.messages.ap import EncryptedData
    from purekrb.names import Principal

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("service", nargs="+", help="as in HTTP/web.example.test")
    options.add_ccache(parser)
    parser.add_argument(
        "-k", "--keytab", metavar="FILE", help="check that this keytab decrypts each ticket"
    )
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command. Stops at the first service without a ticket; earlier tickets are stored."""
    from purekrb.credentials.keytab import Keytab
    from purekrb.kdc.client import KdcClient
    from purekrb.keys import etype_name
    from purekrb.messages.ap import Ticket

    keytab = None if args.keytab is None else Keytab.load(args.keytab)
    credential = options.credential(args)
    client = KdcClient(options.config(args), timeout=args.timeout)
    for service in args.service:
        with output.waiting(f"asking for {service}"):
            ticket = client.get_ticket(credential, service)
        credential.ccache.merge_into(args.ccache)
        enc_part = Ticket.decode(ticket.ticket).enc_part
        if keytab is not None:
            _check_key(keytab, ticket.service, enc_part)
        etype = etype_name(enc_part.etype)
        output.result(
            {
                "service": ticket.service,
                "kvno": enc_part.kvno,
                "etype": etype,
                "keytab_checked": keytab is not None,
            },
            f"{ticket.service}: kvno = {enc_part.kvno} ({etype})"
            + (", keytab entry valid" if keytab is not None else ""),
        )
    return 0


def _check_key(keytab: Keytab, service: Principal, enc_part: EncryptedData) -> None:
    """Raise CredentialError unless the keytab has the key that decrypts a ticket for `service`."""
    from purekrb import crypto
    from purekrb.constants import KeyUsage
    from purekrb.errors import CredentialError, IntegrityError
    from purekrb.keys import etype_name

    found = keytab.find(service, enc_part.kvno, enc_part.etype)
    if not found:
        raise CredentialError(
            f"the keytab has no {etype_name(enc_part.etype)} key of {service} with kvno "
            f"{enc_part.kvno}; it has {keytab.summary()}: export it again"
        )
    try:
        crypto.decrypt(found[0].key, KeyUsage.TICKET, enc_part.cipher)
    except IntegrityError:
        raise CredentialError(
            f"the key of {service} in the keytab is not that of the KDC, although the kvno is the "
            "same: export it again"
        ) from None
