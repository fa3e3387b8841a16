"""Get a ticket-granting ticket with a password or a keytab, and store it in the credential cache.

The password is read from the terminal, standard input or a file, never from the command line.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from purekrb.cli import certificates, options
from purekrb.cli.output import Output
from purekrb.constants import TicketFlags
from purekrb.system import now

if TYPE_CHECKING:
    from purekrb.credentials.credential import Credential
    from purekrb.kdc.client import KdcClient
    from purekrb.krb5conf.config import Config
    from purekrb.messages.ap import HostAddress
    from purekrb.messages.otp import OtpAnswer, OtpChallenge
    from purekrb.names import Principal

__all__ = ["add_arguments", "run"]


#: More seconds than this are digits of a date.
_MOST_SECONDS = 2**31
#: Forms of an absolute start time, by the number of digits.
_DIGITS = {10: "%y%m%d%H%M", 12: "%y%m%d%H%M%S", 14: "%Y%m%d%H%M%S"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "principal",
        nargs="?",
        help="user@REALM or DOMAIN\\user (default: that of the cache, or the first in the keytab)",
    )
    options.add_ccache(parser)
    parser.add_argument(
        "-k", "--use-keytab", action="store_true", help="take the key from the default keytab"
    )
    keytabs = parser.add_mutually_exclusive_group()
    keytabs.add_argument(
        "-i",
        "--client-keytab",
        action="store_true",
        help="take the key from the client keytab (KRB5_CLIENT_KTNAME)",
    )
    keytabs.add_argument("-t", "--keytab", metavar="FILE", help="take the key from this keytab")
    parser.add_argument(
        "-n",
        "--anonymous",
        action="store_true",
        help="get an anonymous ticket of @REALM (default: of the default realm); the KDC proves "
        "itself by its certificate",
    )
    parser.add_argument(
        "--password-file",
        metavar="FILE",
        help="take the password from the first line of a file that nobody else can read",
    )
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
        "-s",
        "--start",
        type=_start,
        metavar="TIME",
        help="when the ticket becomes valid: after a time, as in 2h, or at a local time, as in "
        "2026-12-24T18:00 or 20261224180000; use kinit -v then",
    )
    _either(parser, "forwardable", ("-f", "--forwardable"), ("-F", "--not-forwardable"))
    _either(parser, "proxiable", ("-p", "--proxiable"), ("-P", "--not-proxiable"))
    addresses = parser.add_mutually_exclusive_group()
    addresses.add_argument(
        "-a",
        "--addresses",
        action="store_true",
        default=None,
        help="bind the ticket to the addresses of this machine",
    )
    addresses.add_argument(
        "-A",
        "--no-addresses",
        action="store_false",
        dest="addresses",
        help="get a ticket that is valid from anywhere",
    )
    pac = parser.add_mutually_exclusive_group()
    pac.add_argument(
        "--request-pac", action="store_true", default=None, dest="pac", help="ask for a PAC"
    )
    pac.add_argument("--no-request-pac", action="store_false", dest="pac", help="ask for no PAC")
    parser.add_argument(
        "-S",
        "--service",
        metavar="NAME",
        help="get the ticket for this service, such as kadmin/changepw, and no TGT",
    )
    parser.add_argument(
        "-T",
        "--armor",
        metavar="NAME",
        help="protect the request by FAST, with the TGT in this credential cache",
    )
    parser.add_argument(
        "-I",
        "--input-cache",
        metavar="NAME",
        help="get the ticket as that in this credential cache was got: for the same client, and by "
        "the same certificate",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("-R", "--renew", action="store_true", help="renew the ticket in the cache")
    again.add_argument(
        "-v", "--validate", action="store_true", help="validate the postdated ticket in the cache"
    )
    parser.add_argument(
        "--require",
        choices=("fast", "strong"),
        help="the least that must protect the password: FAST, or FAST, SPAKE or PKINIT; else nothing is sent",
    )
    parser.add_argument(
        "-V", "--verbose", action="store_true", help="say which cache and which name are used"
    )
    parser.add_argument(
        "-E",
        "--enterprise",
        action="store_true",
        help="the principal is an enterprise name, such as a user principal name whose suffix is "
        "no realm: the KDC of the default realm looks it up",
    )
    parser.add_argument(
        "-C",
        "--canonicalize",
        action="store_true",
        default=None,
        help="let the KDC correct the client's name",
    )
    certificates.add_arguments(parser)
    options.add_network(parser)


def _either(
    parser: argparse.ArgumentParser, name: str, on: tuple[str, str], off: tuple[str, str]
) -> None:
    """Add a switch that asks for a kind of ticket, and one that asks for none of that kind."""
    switches = parser.add_mutually_exclusive_group()
    for names, action, what in ((on, "store_true", "a"), (off, "store_false", "no")):
        switches.add_argument(
            *names, dest=name, action=action, default=None, help=f"ask for {what} {name} ticket"
        )


def _start(text: str) -> datetime:
    """Return a start time: a duration from now, or a local time; an argparse type."""
    with suppress(ValueError, argparse.ArgumentTypeError):
        seconds = options.duration(text)
        if seconds < _MOST_SECONDS:
            return now() + timedelta(seconds=seconds)
    with suppress(ValueError):
        if text.isascii() and text.isdigit():
            return datetime.strptime(text, _DIGITS.get(len(text), "")).astimezone(timezone.utc)
        return datetime.fromisoformat(text).astimezone(timezone.utc)
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither a duration such as 2h nor a time such as 2026-12-24T18:00"
    )


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command. A password that has expired is changed first, if it was typed on a terminal."""
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.defaults import ccache_name
    from purekrb.errors import PasswordExpiredError, PreauthUnsupportedError
    from purekrb.kdc.client import KdcClient

    config = options.config(args)
    client = KdcClient(config, timeout=args.timeout)
    if args.input_cache:
        certificates.repeat(args, CCache.load(args.input_cache))
    typed = not (
        args.attributes
        or args.use_keytab
        or args.keytab
        or args.client_keytab
        or args.password_file
        or args.anonymous
        or args.renew
        or args.validate
    )
    if args.armor and typed:
        done = _get_with_otp(args, output, client, config)
        if done is not None:
            return done
    credential = _credential(args, config)
    if args.verbose:
        cache = ccache_name(args.ccache, config).name
        output.note(f"Using cache: {cache}", f"Using principal: {credential.principal}")
    try:
        try:
            return _get(args, output, client, credential)
        except PreauthUnsupportedError:
            if credential.certificate is None or not typed:
                raise
        output.note(f"the KDC of {credential.principal.realm} takes no certificate")
        credential = _with_password(args, config)
        return _get(args, output, client, credential)
    except PasswordExpiredError:
        if not options.on_terminal() or not typed:
            raise
    from purekrb.cli.kpasswd import change_expired

    return _get(args, output, client, change_expired(client, credential, output))


def _get_with_otp(
    args: argparse.Namespace, output: Output, client: KdcClient, config: Config
) -> int | None:
    """Get the ticket with a one-time password; return None if the KDC asks for none.

    In FAST only, since a KDC asks for one nowhere else. The first request tells: it proves nothing,
    so it does not count against the account.
    """
    from purekrb.credentials.credential import Credential
    from purekrb.errors import CredentialError, PreauthUnsupportedError

    asked = False

    def otp(challenge: OtpChallenge) -> OtpAnswer:
        nonlocal asked
        asked = True
        return _one_time_password(challenge, credential.principal)

    credential = Credential.from_otp(_client(args, None, config), otp)
    try:
        return _get(args, output, client, credential)
    except (PreauthUnsupportedError, CredentialError):
        if asked:
            raise
        return None


def _one_time_password(challenge: OtpChallenge, principal: Principal) -> OtpAnswer:
    """Ask for the value of the first token, and for its PIN if that is separate."""
    from purekrb.messages.otp import OtpAnswer
    from purekrb.text import visible

    token = challenge.tokens[0]
    names = ", ".join(visible(name) for name in (challenge.service, token.vendor) if name)
    whose = f"{principal} ({names})" if names else str(principal)
    together = token.wants_pin and not token.separate_pin
    what = "PIN and one-time password" if together else "One-time password"
    value = options.read_secret(f"{what} for {whose}")
    if not (token.wants_pin and token.separate_pin):
        return OtpAnswer(value)
    return OtpAnswer(value, options.read_secret("PIN").decode(errors="replace"))


def _get(
    args: argparse.Namespace, output: Output, client: KdcClient, credential: Credential
) -> int:
    """Get or renew the ticket, and print what it is."""
    from purekrb.cli.klist import local

    # The name in a certificate may be one that the KDC of the default realm looks up.
    realm = credential.principal.realm or client.config.default_realm
    with output.waiting(f"asking the KDC of {realm}"):
        if args.renew or args.validate:
            ticket = (client.renew if args.renew else client.validate)(credential)
            # Not over what another kinit has put there meanwhile.
            credential.ccache.merge_into(args.ccache)
        else:
            ticket = client.get_tgt(
                credential,
                lifetime=args.lifetime,
                renewable=args.renewable,
                forwardable=args.forwardable,
                proxiable=args.proxiable,
                addresses=_addresses(args, client.config, output),
                pac_request=args.pac,
                start=args.start,
                service=args.service,
                armor=options.ccache_of("-T", args.armor) if args.armor else None,
                require=args.require,
                canonicalize=args.canonicalize,
            )
            credential.save(args.ccache)
    if args.verbose:
        output.note("Authenticated to Kerberos v5", f"Stored in {credential.ccache.name}")
    what = f"{ticket.client}: ticket" + (f" for {ticket.service}" if args.service else "")
    times = f"until {local(ticket.endtime)}"
    if ticket.starttime and ticket.flags & TicketFlags.INVALID:
        times = f"from {local(ticket.starttime)} {times}; validate it then (kinit -v)"
    if ticket.renew_till is not None:
        times += f", renewable until {local(ticket.renew_till)}"
    output.result(
        {
            "client": ticket.client,
            "service": ticket.service,
            "endtime": ticket.endtime,
            "renew_till": ticket.renew_till,
        },
        f"{what} {times}",
    )
    return 0


def _addresses(
    args: argparse.Namespace, config: Config, output: Output
) -> Sequence[HostAddress] | None:
    """Return the addresses to bind the ticket to; None leaves it to the configuration."""
    from purekrb.kdc.addresses import local_addresses

    if not args.addresses:
        return None if args.addresses is None else ()
    addresses = local_addresses(config.extra_addresses)
    if not addresses:
        output.warning("-a: this machine has no address, so the ticket is valid from anywhere")
    return addresses


def _credential(args: argparse.Namespace, config: Config) -> Credential:
    """Return the credential of the client: tickets, a keytab, a certificate or a password."""
    from purekrb.credentials.credential import Credential
    from purekrb.credentials.defaults import client_keytab_name
    from purekrb.credentials.keytab import Keytab
    from purekrb.errors import CredentialError

    if args.renew or args.validate:
        return options.cached(args)
    if args.anonymous:
        return Credential.anonymous(
            _anonymous_realm(args, config), anchors=certificates.anchors(args)
        )
    if args.use_keytab or args.keytab or args.client_keytab:
        keytab = Keytab.load(client_keytab_name().name if args.client_keytab else args.keytab)
        if not args.principal and not len(keytab):
            raise CredentialError("the keytab is empty: export a key into it")
        return Credential.from_keytab(
            _client(args, next(iter(keytab.principals), None), config), keytab
        )
    named = _client(args, None, config) if args.principal else None
    found = certificates.given(args, config, named)
    if found is None and not args.password_file:
        found = certificates.configured(args, config, named)
    return found or _with_password(args, config)


def _with_password(args: argparse.Namespace, config: Config) -> Credential:
    from purekrb.credentials.credential import Credential

    principal = _client(args, None, config)
    if args.password_file:
        password = options.secret_in(args.password_file)
    else:
        password = options.read_secret(f"Password for {principal}")
    return Credential.from_password(principal, password)


def _anonymous_realm(args: argparse.Namespace, config: Config) -> str:
    """Return the realm that `@REALM` names, or the default one."""
    from purekrb.errors import ConfigError, CredentialError
    from purekrb.krb5conf.spelling import fitting_realm

    named, at, realm = (args.principal or "").partition("@")
    if named or (at and not realm):
        raise CredentialError(
            f"kinit -n gets tickets of nobody, not of {args.principal}: write @REALM, or nothing for "
            "the default realm"
        )
    if realm:
        return fitting_realm(realm, config)
    if not config.default_realm:
        raise ConfigError("there is no default realm: write kinit -n @REALM, or set default_realm")
    return config.default_realm


def _client(args: argparse.Namespace, default: Principal | None, config: Config) -> Principal:
    """Return the client that the command line names, or `default`, or that of the cache."""
    from purekrb.krb5conf.spelling import client_principal
    from purekrb.names import Principal

    if not args.principal:
        return default or options.cached_principal(args, "kinit")
    return Principal.of(client_principal(args.principal, config, enterprise=args.enterprise))
