"""Get a ticket-granting ticket with a password or a keytab, and store it in the credential cache.

The password is asked for on the terminal, or read from standard input; never from the command line.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from purekrb.names import Principal

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("principal", nargs="?", help="user@REALM (default: the one in the cache or keytab)")
    options.add_ccache(parser)
    parser.add_argument("-k", "--use-keytab", action="store_true", help="take the key from a keytab")
    parser.add_argument("-t", "--keytab", metavar="FILE", help="the keytab (default: KRB5_KTNAME or /etc/krb5.keytab)")
    parser.add_argument("-l", "--lifetime", metavar="TIME", help='ticket lifetime, as in "8h" or "1d 2h"')
    parser.add_argument("-r", "--renewable", metavar="TIME", help="renewable lifetime")
    parser.add_argument("-f", "--forwardable", action="store_true", default=None, help="ask for a forwardable ticket")
    parser.add_argument("-R", "--renew", action="store_true", help="renew the ticket in the cache")
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.credentials.credential import Credential
    from purekrb.credentials.keytab import Keytab
    from purekrb.errors import CredentialError
    from purekrb.kdc.client import KdcClient
    from purekrb.kdc.config import parse_duration

    config = options.config(args)
    if args.renew:
        credential = options.credential(args)
    elif args.use_keytab or args.keytab:
        keytab = Keytab.load(args.keytab)
        if not args.principal and not len(keytab):
            raise CredentialError("the keytab is empty: export a key into it")
        name = args.principal or keytab.principals[0]
        credential = Credential.from_keytab(_with_realm(name, config.default_realm), keytab)
    else:
        name = args.principal or options.credential(args).principal
        principal = _with_realm(name, config.default_realm)
        credential = Credential.from_password(principal, options.read_password(f"Password for {principal}"))
    with output.waiting(f"asking the KDC of {credential.principal.realm}"):
        client = KdcClient(config, timeout=args.timeout)
        if args.renew:
            ticket = client.renew(credential)
        else:
            ticket = client.get_tgt(
                credential,
                lifetime=None if args.lifetime is None else parse_duration(args.lifetime),
                renewable=None if args.renewable is None else parse_duration(args.renewable),
                forwardable=args.forwardable,
            )
    credential.save(args.ccache)
    output.result(
        {
            "client": ticket.client,
            "service": ticket.service,
            "endtime": ticket.endtime,
            "renew_till": ticket.renew_till,
        },
        f"{ticket.client}: ticket until {ticket.endtime:%Y-%m-%d %H:%M:%SZ}",
    )
    return 0


def _with_realm(name: str | Principal, realm: str | None) -> Principal:
    from purekrb.names import Principal

    return Principal.parse(name, realm or "") if isinstance(name, str) else name
