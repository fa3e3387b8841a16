"""From service connection points to endpoints: the hosts, ports and names that a client tries.

Source: RFC 2782 for SCPs whose serviceDNSName is the owner of SRV records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING

from purekrb.channel.blocking import Channel, connect
from purekrb.credentials.credential import Credential
from purekrb.directory.patterns import DNS_NAME
from purekrb.directory.scp import ServiceConnectionPoint
from purekrb.errors import DirectoryError, KerberosError, ServiceUnknownError, TransportError
from purekrb.gss.initiator import Initiator
from purekrb.io.dial import OpenConnection
from purekrb.kdc.locate import Locator
from purekrb.kdc.records import lookup_srv, order_by_rfc2782
from purekrb.krb5conf.config import Config
from purekrb.log import Log

if TYPE_CHECKING:
    from dns.resolver import Resolver

__all__ = [
    "POLICIES",
    "Endpoint",
    "Parse",
    "Resolve",
    "connect_to_first",
    "endpoints",
    "resolve_srv",
]

_log = Log("purekrb.directory")

#: The orders in which `endpoints` takes several SCPs.
POLICIES = ("first", "random")

#: Returns the (host, port) pairs in the SRV records of a name, in the order to try them.
Resolve = Callable[[str], Iterable[tuple[str, int]]]
#: Returns the (host, port) pairs at which the service of an SCP listens.
Parse = Callable[[ServiceConnectionPoint], Iterable[tuple[str, int]]]

_shuffle = SystemRandom().shuffle


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place where a service listens: its host, its port, and the SCP that says so."""

    host: str
    port: int
    scp: ServiceConnectionPoint

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, as `purekrb.connect` takes them."""
        return self.host, self.port

    @property
    def targets(self) -> tuple[str, ...]:
        """The SPNs to ask the KDC for, in order: try the next one after ServiceUnknownError.

        A service that was not installed by purekrb usually has only the first one.
        """
        return self.scp.spns(self.host)


def endpoints(
    scps: Iterable[ServiceConnectionPoint],
    resolve: Resolve,
    *,
    policy: str = "first",
    host: str = "",
    parse: Parse | None = None,
) -> Iterator[Endpoint]:
    """Yield the endpoints of `scps` in the order to try them.

    `policy` is "first" (the order of `scps`) or "random", to spread clients over the instances.
    `host` selects the instances on one host. The SRV records of an SCP are looked up when its turn
    comes. `parse` reads the places from SCPs that have them in a format of their own; its
    KerberosErrors and ValueErrors are reasons to skip an SCP. SCPs and places that clients cannot
    use are logged and skipped. Raises DirectoryError if nothing is left.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy is {policy!r}, expected one of {', '.join(POLICIES)}")
    ordered = list(scps)
    if policy == "random":
        _shuffle(ordered)
    wanted = _host_key(host)
    found = False
    reasons = [] if ordered else ["there is no SCP"]
    for scp in ordered:
        try:
            places = _places(scp, resolve, parse)
        except (KerberosError, ValueError) as error:
            _log.warning("the SCP %s is skipped: %s", scp.dn, error)
            reasons.append(str(error))
            continue
        for name, port in places:
            if not DNS_NAME.fullmatch(name):
                _log.warning("a host of the SCP %s is skipped: %r is not a DNS name", scp.dn, name)
            elif not 0 < port <= 0xFFFF:
                _log.warning("a port of the SCP %s is skipped: %r is not a port", scp.dn, port)
            elif not wanted or _host_key(name) == wanted:
                found = True
                yield Endpoint(name.rstrip("."), port, scp)
    if not found:
        if host:
            reasons.append(f"none is on the host {host}")
        raise DirectoryError(
            f"no endpoint of the service is usable: {'; '.join(reasons) or 'no host is left'}"
        )


def _places(
    scp: ServiceConnectionPoint, resolve: Resolve, parse: Parse | None
) -> list[tuple[str, int]]:
    scp.check(place=parse is None)
    if parse is not None:
        return list(parse(scp))
    if scp.dns_name_type == "SRV":
        return list(resolve(scp.dns_name))
    return [(scp.dns_name, scp.port)]


def _host_key(name: str) -> str:
    return name.casefold().rstrip(".")


def connect_to_first(
    found: Iterable[Endpoint],
    credential: Credential,
    config: Config | None = None,
    *,
    address: tuple[str, int] | None = None,
    mechanism: str = "kerberos",
    timeout: float = 10.0,
    open_connection: OpenConnection | None = None,
) -> Channel[Initiator]:
    """Return a channel to the first endpoint that answers and proves its identity.

    See `Directory.reach_service`.
    """
    failure: KerberosError | None = None
    for endpoint in found:
        for target in endpoint.targets:
            try:
                place = address or endpoint.address
                return connect(
                    place,
                    target,
                    credential,
                    config,
                    mechanism=mechanism,
                    timeout=timeout,
                    open_connection=open_connection,
                )
            except (ServiceUnknownError, TransportError) as error:
                _log.debug("%s at %s:%d is skipped: %s", target, *endpoint.address, error)
                failure = error
                if isinstance(error, TransportError):
                    break
    raise failure or DirectoryError("the service has no endpoint that could be tried")


def resolve_srv(name: str, resolver: Resolver | None = None) -> list[tuple[str, int]]:
    """Return host and port of each SRV record of `name`, ordered by priority and weight. Blocks.

    `resolver` is the system's by default. Raises TransportError if DNS does not answer.
    """
    locator = Locator(Config(), resolver=resolver)
    records = lookup_srv(locator.resolver(), f"{name.rstrip('.')}.", "tcp")
    return [(server.host, server.port) for server in order_by_rfc2782(records)]
