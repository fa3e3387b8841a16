"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import TYPE_CHECKING

from purekrb.errors import CredentialError

if TYPE_CHECKING:
    from purekrb.credentials.credential import Credential
    from purekrb.kdc.config import Config

__all__ = ["add_network", "add_ccache", "config", "credential", "read_password", "host_port", "DEFAULT_TIMEOUT"]

DEFAULT_TIMEOUT = 10.0


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add --config and --timeout."""
    parser.add_argument("--config", metavar="FILE", help="krb5.conf (default: KRB5_CONFIG or /etc/krb5.conf)")
    parser.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT, metavar="S", help="overall, in seconds")


def add_ccache(parser: argparse.ArgumentParser) -> None:
    """Add -c/--ccache."""
    parser.add_argument("-c", "--ccache", metavar="NAME", help="credential cache (default: KRB5CCNAME)")


def config(args: argparse.Namespace) -> Config:
    """Return the configuration that the arguments name."""
    from purekrb.kdc.config import Config

    return Config.from_file(args.config)


def credential(args: argparse.Namespace) -> Credential:
    """Return the credential in the ccache that the arguments name."""
    from purekrb.credentials.credential import Credential

    return Credential.from_ccache(args.ccache)


def read_password(prompt: str, *, confirm: bool = False) -> str:
    """Return a password from the terminal, or the first line of standard input where that is no terminal.

    Raises CredentialError for an empty one or where the two entries differ. Never from the command line.
    """
    if sys.stdin.isatty():
        password = getpass.getpass(f"{prompt}: ")
        if confirm and getpass.getpass(f"{prompt} again: ") != password:
            raise CredentialError("the two passwords differ: try again")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CredentialError("no password was given: type one, or pipe it into standard input")
    return password


def host_port(text: str) -> tuple[str, int]:
    """Return (host, port) of `host:port` or `[v6]:port`; an argparse type."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form HOST:PORT")
    return host.strip("[]"), int(port)
