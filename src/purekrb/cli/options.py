"""Arguments that several commands share, and input from standard input.

Secrets are read from standard input, never from arguments.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from purekrb.cli.output import Output
from purekrb.errors import ConfigError, CredentialError
from purekrb.text import visible

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.credential import Credential
    from purekrb.directory import Directory
    from purekrb.krb5conf.config import Config
    from purekrb.names import Principal

__all__ = [
    "add_actions",
    "add_ccache",
    "add_directory",
    "add_mechanism",
    "add_network",
    "cache_exists",
    "ccache_of",
    "cached",
    "common",
    "config",
    "credential",
    "directory",
    "duration",
    "etype",
    "host_port",
    "lines",
    "on_terminal",
    "principal",
    "read_secret",
    "refuse",
    "secret_in",
]

DEFAULT_TIMEOUT = 10.0


def common() -> argparse.ArgumentParser:
    """Return the parent of every parser: --json and --trace, before or after the command."""
    parser = argparse.ArgumentParser(
        add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print each result as a line of JSON")
    parser.add_argument(
        "--trace",
        action="store_true",
        help="print each protocol step on standard error, without secrets",
    )
    return parser


def add_actions(
    parser: argparse.ArgumentParser, summaries: Mapping[str, str]
) -> dict[str, argparse.ArgumentParser]:
    """Add the actions of a command; return their parsers by name. `args.action` is the action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    parsers = {
        name: actions.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            parents=[common()],
            allow_abbrev=False,
        )
        for name, summary in summaries.items()
    }
    for action in parsers.values():
        action.set_defaults(wrong=action.error)
    return parsers


def refuse(parser: argparse.ArgumentParser, switches: Mapping[str, str]) -> None:
    """Add switches of other programs that purekrb lacks. Each refuses to be used, and says why."""
    for switch, reason in switches.items():
        parser.add_argument(switch, action=_Refusal, help=f"not available: {reason}")


class _Refusal(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(
            option_strings, dest, nargs="?", metavar="...", default=argparse.SUPPRESS, **options
        )

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        parser.error(f"argument {option_string}: {self.help}")


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add --config and --timeout."""
    parser.add_argument(
        "--config", metavar="FILE", help="krb5.conf (default: KRB5_CONFIG or /etc/krb5.conf)"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULT_TIMEOUT,
        metavar="S",
        help="give up after S seconds (default: 10)",
    )


def add_ccache(parser: argparse._ActionsContainer, *switches: str) -> None:
    """Add -c/--ccache, or the same under other `switches`."""
    parser.add_argument(
        *(switches or ("-c", "--ccache")),
        metavar="NAME",
        help="credential cache (default: KRB5CCNAME, krb5.conf, or /tmp/krb5cc_UID)",
    )


def add_mechanism(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --mechanism."""
    parser.add_argument(
        "--mechanism",
        choices=("kerberos", "negotiate"),
        default=default,
        help=f"kerberos, or negotiate for SPNEGO (default: {default})",
    )


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for a domain controller: --ldap, --domain, --target, --start-tls, --ca."""
    parser.add_argument(
        "--ldap",
        metavar="URL",
        help="domain controller, such as ldaps://dc1.ad.test (default: found by DNS)",
    )
    parser.add_argument(
        "--domain", default="", metavar="NAME", help="domain (default: that of your realm)"
    )
    parser.add_argument(
        "--target",
        metavar="SPN",
        help="such as ldap/dc1.ad.test, if the URL lacks the domain controller's name",
    )
    parser.add_argument(
        "--start-tls",
        action="store_true",
        help="protect the connection by TLS (default: by Kerberos)",
    )
    parser.add_argument(
        "--ca", metavar="FILE", help="CA certificates for TLS (default: the system's)"
    )


def config(args: argparse.Namespace) -> Config:
    """Return the configuration from --config."""
    from purekrb.krb5conf.config import Config

    return Config.from_file(args.config)


def cache_exists(name: str) -> bool:
    """Return whether there is a ccache of that name, even one that cannot be read."""
    from purekrb.credentials.cache_types import resolve

    _, caches, residual = resolve(name)
    return bool(caches.members(caches.primary(residual)))


def principal(name: str) -> Principal:
    """Return the user of that name, as people write it."""
    from purekrb.krb5conf.config import Config
    from purekrb.krb5conf.spelling import client_principal

    return client_principal(name, Config.from_file())


def cached(args: argparse.Namespace) -> Credential:
    """Return the credential of the tickets in the ccache from --ccache; no keytab stands in."""
    from purekrb.credentials.credential import Credential
    from purekrb.credentials.defaults import ccache_name

    return Credential.from_ccache(ccache_name(args.ccache or None, config(args)).name)


def cached_principal(args: argparse.Namespace, command: str) -> Principal:
    """Return whose the ccache from --ccache is, also if its tickets have expired."""
    from purekrb.errors import CredentialError

    try:
        return cached(args).principal
    except CredentialError:
        raise CredentialError(
            f"there is no credential cache with your name: name the principal, as in {command} "
            "user@REALM"
        ) from None


def credential(args: argparse.Namespace, service: str | Principal | None = None) -> Credential:
    """Return the credential in the ccache from --ccache, or the default one for `service`."""
    from purekrb.credentials.credential import Credential

    if args.ccache:
        return Credential.from_ccache(args.ccache)
    return Credential.default(config(args), service=service)


def ccache_of(switch: str, name: str) -> CCache:
    """Return the ccache that a switch names beside the user's own. Raises CredentialError."""
    from purekrb.credentials.ccache import CCache
    from purekrb.errors import CredentialError

    try:
        return CCache.load(name)
    except CredentialError as error:
        raise CredentialError(f"{switch} {name}: {error}") from None


def directory(
    args: argparse.Namespace, output: Output, bound_as: Credential | None = None
) -> Directory:
    """Return the directory that the arguments name, connected as the owner of the ccache.

    If `bound_as` is given, it is connected with that credential.
    """
    from purekrb.directory import Directory

    with output.waiting(f"connecting to {args.ldap or args.domain or 'a domain controller'}"):
        return Directory.connect(
            args.ldap,
            credential(args) if bound_as is None else bound_as,
            config(args),
            args.target,
            domain=args.domain,
            start_tls=args.start_tls,
            ca_file=args.ca,
            timeout=args.timeout,
        )


def _seconds(text: str) -> float:
    seconds = float(text)  # argparse reports a ValueError
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds


def duration(text: str) -> float:
    """Return the seconds of a duration in krb5.conf's notation; an argparse type.

    Examples: `8h`, `1d 2h`.
    """
    from purekrb.krb5conf.config import parse_duration

    try:
        return parse_duration(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def host_port(text: str) -> tuple[str, int]:
    """Return (host, port) of `host:port` or `[v6]:port`; an argparse type."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form HOST:PORT")
    return host.strip("[]"), int(port)


def etype(text: str) -> int:
    """Return the number of an encryption type, given by number or name; an argparse type."""
    from purekrb.constants import EncryptionType
    from purekrb.keys import etype_name
    from purekrb.krb5conf.config import parse_etypes

    known = [int(etype) for etype in EncryptionType]
    found = [etype for etype in known if text == str(etype)] or parse_etypes(text)
    if len(found) != 1:
        names = ", ".join(map(etype_name, known))
        raise argparse.ArgumentTypeError(f"unknown encryption type {text!r}: give one of {names}")
    return found[0]


def lines() -> Iterator[bytes]:
    """Yield the lines of standard input, without line ends."""
    if sys.stdin:
        for line in sys.stdin.buffer:
            yield line.rstrip(b"\r\n")


def on_terminal() -> bool:
    """Return whether standard input is a terminal."""
    return bool(sys.stdin and sys.stdin.isatty())


def read_secret(prompt: str, *, confirm: bool = False) -> bytes:
    """Return a password (UTF-8) or key.

    It is typed on the terminal; if standard input is not a terminal, it is the next line. Raises
    CredentialError if it is empty, or if two entries differ.
    """
    typed = on_terminal()
    secret = _typed(f"{prompt}: ") if typed else next(lines(), b"")
    if not secret:
        raise CredentialError(
            "nothing was entered: type it at the prompt, or pipe it into standard input"
        )
    if typed and confirm and _typed(f"{prompt} again: ") != secret:
        raise CredentialError("the two entries differ: try again")
    return secret


def secret_in(file: str) -> bytes:
    """Return the password in the first line of a file that nobody else can read.

    "-" is standard input. Raises CredentialError if the file or its first line cannot be used.
    """
    from purekrb.credentials.files import read_private

    found = lines() if file == "-" else iter(read_private(file, what="password file").splitlines())
    secret = next(found, b"")
    if not secret:
        raise CredentialError(f"{file}: the first line of the password file is empty")
    return secret


def _typed(prompt: str) -> bytes:
    import getpass

    try:
        return getpass.getpass(visible(prompt)).encode()
    except EOFError:
        return b""
    except UnicodeError:
        raise CredentialError(
            "the input is not UTF-8 text: check the terminal's encoding"
        ) from None
