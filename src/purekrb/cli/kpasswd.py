"""Change a password, also one that has expired; or set that of another user, as an administrator.

The passwords are typed on the terminal, or are lines of standard input: the old one (or that of the
administrator), then the new one. They never stand on the command line.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from purekrb.credentials.credential import Credential
    from purekrb.kdc.client import KdcClient
    from purekrb.names import Principal

__all__ = ["add_arguments", "change_expired", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "principal",
        nargs="?",
        help="user, user@REALM or DOMAIN\\user whose password it is (default: that of the credential "
        "cache)",
    )
    parser.add_argument(
        "--admin",
        metavar="PRINCIPAL",
        help="set the password as this administrator, who need not know the old one",
    )
    options.add_ccache(parser)
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    from purekrb.credentials.credential import Credential
    from purekrb.kdc.client import KdcClient
    from purekrb.krb5conf.spelling import client_principal

    config = options.config(args)
    principal = (
        client_principal(args.principal, config)
        if args.principal
        else options.cached_principal(args, "kpasswd")
    )
    asked = client_principal(args.admin, config) if args.admin else principal
    client = KdcClient(config, timeout=args.timeout)
    credential = Credential.from_password(asked, options.read_secret(f"Password for {asked}"))
    new = _new_password(principal)
    with output.waiting(f"changing the password of {principal}"):
        if args.admin:
            client.set_password(credential, principal, new)
        else:
            client.change_password(credential, new)
    output.result({"principal": principal}, f"the password of {principal} was changed")
    return 0


def change_expired(client: KdcClient, expired: Credential, output: Output) -> Credential:
    """Ask on the terminal for a new password in place of the expired one; return its credential."""
    from purekrb.credentials.credential import Credential

    principal = expired.principal
    output.warning(f"the password of {principal} has expired and must be changed now")
    new = _new_password(principal)
    with output.waiting(f"changing the password of {principal}"):
        client.change_password(expired, new)
    return Credential.from_password(principal, new)


def _new_password(principal: Principal) -> bytes:
    return options.read_secret(f"New password for {principal}", confirm=True)
