"""Get service tickets, store them in the credential cache, and show their key version numbers.

Of a collection, each service gets the cache of its realm, else the primary. KRB5CCNAME or
--ccache may name one cache.
With --keytab, also check that the keytab has the key of each ticket.
With --u2u, each SERVICE authenticates itself by a TGT of its own.
With -U, -I or -F, act for a user: as each SERVICE, which the cache must be of, or with -P at each
SERVICE. Such tickets are stored in --out-cache alone.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from purekrb.cli import options
from purekrb.cli.output import Output

if TYPE_CHECKING:
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.credential import Credential
    from purekrb.credentials.keytab import Keytab
    from purekrb.credentials.ticket import ServiceTicket
    from purekrb.kdc.client import KdcClient
    from purekrb.krb5conf.config import Config
    from purekrb.names import Principal

__all__ = ["add_arguments", "run"]


#: MIT's switches that purekrb lacks.
_REFUSED = {
    "--cached-only": "purekrb klist shows the tickets in the cache",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("service", nargs="+", help="as in HTTP/web.example.test; with -S, a host")
    options.add_ccache(parser)
    parser.add_argument(
        "-k", "--keytab", metavar="FILE", help="check that this keytab decrypts each ticket"
    )
    parser.add_argument(
        "-e",
        "--etype",
        type=options.etype,
        metavar="ETYPE",
        help="ask for a session key of this encryption type, name or number",
    )
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        "-S",
        "--service-class",
        metavar="CLASS",
        help="each SERVICE is a host that offers this service, as in kvno -S HTTP web.example.test",
    )
    names.add_argument(
        "-u", "--unknown", action="store_true", help="ask for a name of the type UNKNOWN"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    stored = parser.add_mutually_exclusive_group()
    stored.add_argument("--no-store", action="store_true", help="store no ticket")
    stored.add_argument(
        "--out-cache", metavar="NAME", help="store the tickets in this new credential cache"
    )
    user = parser.add_mutually_exclusive_group()
    user.add_argument(
        "-U", "--for-user", metavar="USER", help="get tickets in the name of this user (S4U2Self)"
    )
    user.add_argument(
        "-I", "--for-enterprise", metavar="NAME", help="the same, for a user principal name"
    )
    user.add_argument(
        "-F", "--for-certificate", metavar="FILE", help="the same, for a certificate's owner (PEM)"
    )
    parser.add_argument(
        "-P",
        "--proxy",
        action="store_true",
        help="get tickets in the user's name for other services (constrained delegation)",
    )
    user.add_argument(
        "--u2u",
        metavar="NAME",
        help="get tickets under the TGT in this credential cache, of whom each SERVICE is",
    )
    options.refuse(parser, _REFUSED)
    options.add_network(parser)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command. Stops at the first service without a ticket; earlier tickets are stored."""
    from dataclasses import replace

    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.keytab import Keytab
    from purekrb.kdc.client import KdcClient
    from purekrb.keys import etype_name
    from purekrb.messages.ap import Ticket

    keytab = None if args.keytab is None else Keytab.load(args.keytab)
    config = options.config(args)
    if args.etype:
        config = replace(config, default_tgs_enctypes=[args.etype])
    client = KdcClient(config, timeout=args.timeout)
    new: CCache | None = None
    acting = _Acting(args, client) if _for_user(args) else None
    theirs = _tgt_in(args.u2u) if args.u2u else None
    for service in args.service:
        target = _target(args, service, config)
        credential, where = (None, None) if acting else _credential(args, target, theirs)
        with output.waiting(f"asking for {service}"):
            if acting is not None:
                ticket = acting.ticket(target)
            elif credential is not None:
                ticket = client.get_ticket(credential, target, user_to_user=theirs)
        if args.out_cache:
            if acting is not None:
                new = acting.ccache()
            new = CCache(ticket.client) if new is None else new
            new.store(ticket)
            new.save(args.out_cache)
        elif credential is not None and not args.no_store:
            credential.keep(where)
        enc_part = Ticket.decode(ticket.ticket).enc_part
        opened_by = "" if keytab is None else _check_key(keytab, ticket, config)
        if args.quiet:
            continue
        etype = etype_name(enc_part.etype)
        kvno = 0 if ticket.is_skey else enc_part.kvno  # a session key has none
        output.result(
            {
                "service": ticket.service,
                "kvno": kvno,
                "etype": etype,
                "keytab_checked": keytab is not None,
                "client": ticket.client,
            },
            f"{ticket.service}: kvno = {kvno} ({etype})"
            + (f", keytab entry valid{opened_by}" if keytab is not None else ""),
        )
    return 0


def _for_user(args: argparse.Namespace) -> bool:
    """Return whether a user is named. Raises SystemExit for -P without one."""
    named = bool(args.for_user or args.for_enterprise or args.for_certificate)
    if args.proxy and not named:
        args.wrong("-P needs the user to act for: -U, -I or -F")
    return named


class _Acting:
    """The service whose cache it is, and what it gets in the name of a user."""

    def __init__(self, args: argparse.Namespace, client: KdcClient) -> None:
        from purekrb.credentials.x509 import read_file
        from purekrb.names import as_written

        self._proxy: bool = args.proxy
        self._client = client
        self._service = options.credential(args)
        path = args.for_certificate
        self._certificate = read_file(path, "certificate") if path else None
        self._user: Principal | str | None = args.for_user
        if args.for_enterprise:
            self._user = as_written(args.for_enterprise, enterprise=True)
        self._credential: Credential | None = None

    def ticket(self, target: str | Principal) -> ServiceTicket:
        """Return the user's ticket for the service itself or, with -P, for another one."""
        from purekrb.credentials.credential import Credential

        if self._proxy and self._credential is not None:
            return self._client.get_ticket(self._credential, target)
        evidence = self._client.impersonate(
            self._service,
            self._user,
            certificate=self._certificate,
            service=None if self._proxy else target,
        )
        self._credential = self._credential or Credential.on_behalf_of(self._service, evidence)
        return self._client.get_ticket(self._credential, target) if self._proxy else evidence

    def ccache(self) -> CCache | None:
        """Return a ccache of the user with the service's tickets, as MIT's library makes it."""
        return None if self._credential is None else self._credential.with_impersonator()


def _tgt_in(name: str) -> ServiceTicket:
    """Return the TGT in the ccache of that name. Raises CredentialError."""
    from purekrb.credentials.credential import Credential
    from purekrb.errors import CredentialError
    from purekrb.names import Principal

    theirs = Credential.from_ccache(options.ccache_of("--u2u", name))
    realm = theirs.ccache.principal.realm
    tgt = theirs.ccache.find(Principal(("krbtgt", realm), realm))
    if tgt is None:
        raise CredentialError(theirs.why_no_ticket())
    return tgt


def _credential(
    args: argparse.Namespace, target: str | Principal, theirs: ServiceTicket | None = None
) -> tuple[Credential, str | None]:
    """Return the credential for a service, and the name of its ccache.

    It stores nothing by itself if the arguments forbid that.
    """
    from purekrb.credentials.ccache import CCache
    from purekrb.credentials.credential import Credential

    # An account's name is no SPN, by which a ccache could be chosen.
    credential = options.credential(args, service=None if theirs else target)
    where = credential.ccache.name
    if args.etype:  # a ticket in the cache may have a session key of another type
        tgts = [ticket for ticket in credential.ccache if ticket.is_tgt]
        credential = Credential.from_ccache(CCache(credential.ccache.principal, tgts))
    elif args.out_cache or args.no_store:
        credential = Credential.from_ccache(credential.ccache)
    return credential, where


def _target(args: argparse.Namespace, service: str, config: Config) -> str | Principal:
    """Return the name to ask for.

    As with MIT, an account may be named without an SPN: `svc-web`, or `svc-web@REALM` with a realm
    of krb5.conf. Any other `class@host` is a host-based name, as elsewhere.
    """
    from purekrb.constants import NameType
    from purekrb.names import Principal
    from purekrb.records import replace

    if args.service_class:
        return f"{args.service_class}/{service}"
    if args.unknown:
        return replace(Principal.parse(service, ""), name_type=NameType.UNKNOWN)
    _, at, realm = service.rpartition("@")
    if args.u2u or "/" in service or "\\" in service or (at and realm not in config.client_realms):
        return service
    return Principal.parse(service, config.default_realm or "")


def _check_key(keytab: Keytab, ticket: ServiceTicket, config: Config) -> str:
    """Return the entry of the keytab with which an acceptor opens the ticket, if it is another's.

    Raises CredentialError, with the acceptor's reason, if there is none.
    """
    from purekrb.constants import DEFAULT_ETYPES, EncryptionType
    from purekrb.errors import ApError, CredentialError
    from purekrb.exchanges.ap_exchange import find_service_key
    from purekrb.messages.ap import Ticket

    rc4 = (EncryptionType.RC4_HMAC,) if config.allow_rc4 else ()
    try:
        entry = find_service_key(ticket.ticket, keytab, permitted_etypes=(*DEFAULT_ETYPES, *rc4))
    except ApError as error:
        raise CredentialError(str(error)) from None
    kvno = Ticket.decode(ticket.ticket).enc_part.kvno
    if (entry.principal, entry.kvno) == (ticket.service, kvno):
        return ""
    return f" (the key of {entry.principal} kvno {entry.kvno} opens the ticket)"
