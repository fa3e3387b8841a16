"""Get a ticket-granting ticket with a password or a keytab, and store it in the credential cache.

The password is read from the terminal or standard input, never from the command line.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from purekrb.credentials.credential import Credential
    from purekrb.kdc.client import KdcClient
    from purekrb.krb5conf.config import Config
    from purekrb.names import Principal

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "principal",
        nargs="?",
        help="user@REALM (default: that of the cache, or the first in the keytab)",
    )
    options.add_ccache(parser)
    parser.add_argument(
        "-k", "--use-keytab", action="store_true", help="take the key from the default keytab"
    )
    parser.add_argument("-t", "--keytab", metavar="FILE", help="take the key from this keytab")
    parser.add_argument(
        "-l",
        "--lifetime",
        type=options.duration,
        metavar="TIME",
        help='ticket lifetime, as in 8h or "1d 2h"',
    )
    parser.add_argument(
        "-r",
        "--renewable",
        type=options.duration,
        metavar="TIME",
        help="how long the ticket may be renewed, as in 7d",
    )
    parser.add_argument(
        "-f",
        "--forwardable",
        action="store_true",
        default=None,
        help="ask for a forwardable ticket",
    )
    parser.add_argument("-R", "--renew", action="store_true", help="renew the ticket in the cache")
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command. A password that has expired is changed first, if it was typed on a terminal."""
    from purekrb.errors import PasswordExpiredError
    from purekrb.kdc.client import KdcClient

    config = options.config(args)
    client = KdcClient(config, timeout=args.timeout)
    credential = _credential(args, config)
    try:
        return _get(args, output, client, credential)
    except PasswordExpiredError:
        if not options.on_terminal() or args.use_keytab or args.keytab:
            raise
    from purekrb.cli.kpasswd import change_expired

    return _get(args, output, client, change_expired(client, credential, output))


def _get(
    args: argparse.Namespace, output: Output, client: KdcClient, credential: Credential
) -> int:
    """Get or renew the ticket, and print what it is."""
    with output.waiting(f"asking the KDC of {credential.principal.realm}"):
        if args.renew:
            ticket = client.renew(credential)
            credential.ccache.merge_into(
                args.ccache
            )  # not over what another kinit has put there meanwhile
        else:
            ticket = client.get_tgt(
                credential,
                lifetime=args.lifetime,
                renewable=args.renewable,
                forwardable=args.forwardable,
            )
            credential.save(args.ccache)
    renewable = ""
    if ticket.renew_till is not None:
        renewable = f", renewable until {ticket.renew_till:%Y-%m-%d %H:%M:%SZ}"
    output.result(
        {
            "client": ticket.client,
            "service": ticket.service,
            "endtime": ticket.endtime,
            "renew_till": ticket.renew_till,
        },
        f"{ticket.client}: ticket until {ticket.endtime:%Y-%m-%d %H:%M:%SZ}{renewable}",
    )
    return 0


def _credential(args: argparse.Namespace, config: Config) -> Credential:
    """Return the credential of the client: tickets, a keytab or a password."""
    from purekrb.credentials.credential import Credential
    from purekrb.credentials.keytab import Keytab
    from purekrb.errors import CredentialError

    if args.renew:
        return options.credential(args)
    if args.use_keytab or args.keytab:
        keytab = Keytab.load(args.keytab)
        if not args.principal and not len(keytab):
            raise CredentialError("the keytab is empty: export a key into it")
        return Credential.from_keytab(
            _with_realm(args.principal or keytab.principals[0], config), keytab
        )
    principal = _with_realm(args.principal or _cached_principal(args), config)
    return Credential.from_password(principal, options.read_secret(f"Password for {principal}"))


def _cached_principal(args: argparse.Namespace) -> Principal:
    from purekrb.errors import CredentialError

    try:
        return options.credential(args).principal
    except CredentialError:
        raise CredentialError(
            "there is no credential cache with your name: name the principal, as in kinit "
            "user@REALM"
        ) from None


def _with_realm(name: str | Principal, config: Config) -> Principal:
    from purekrb.names import Principal

    if isinstance(name, str):
        name = Principal.parse(name, config.default_realm or "")
    return Principal.of(name)
