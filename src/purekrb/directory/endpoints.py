"""From service connection points to hosts, ports and names: which instance of a service a client tries, in what order.

Source: RFC 2782 for SCPs whose serviceDNSName is the owner of SRV records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import SystemRandom
from typing import TYPE_CHECKING

from purekrb.channel.blocking import Channel, connect
from purekrb.credentials.credential import Credential
from purekrb.directory.scp import DNS_NAME, ServiceConnectionPoint
from purekrb.errors import DirectoryError, KerberosError, ServiceUnknownError, TransportError
from purekrb.gss.initiator import Initiator
from purekrb.kdc.config import Config
from purekrb.kdc.locate import Locator, lookup_srv, order_by_rfc2782
from purekrb.log import Log

if TYPE_CHECKING:
    from dns.resolver import Resolver

__all__ = ["POLICIES", "Endpoint", "Resolve", "endpoints", "reach", "resolve_srv"]

_log = Log("purekrb.directory")

#: How `endpoints` orders several SCPs.
POLICIES = ("first", "random")

#: Returns the (host, port) pairs that the SRV records of a name tell, in the order to try them.
Resolve = Callable[[str], Iterable[tuple[str, int]]]

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
        """The SPNs to ask the KDC for: the next one where it does not know the first (ServiceUnknownError).

        Services that others than purekrb have installed are mostly known by the first alone.
        """
        return self.scp.spns(self.host)


def endpoints(
    scps: Iterable[ServiceConnectionPoint],
    resolve: Resolve,
    *,
    policy: str = "first",
    host: str = "",
) -> Iterator[Endpoint]:
    """Yield the endpoints of `scps` in the order to try them.

    `policy` is "first" (the order of `scps`) or "random", to spread clients over the instances; `host` asks for the
    instances on this host alone. SRV records are looked up when their SCP comes up. What no client can use is logged
    and passed over. Raises DirectoryError where nothing is left.
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
            places = (
                list(resolve(scp.dns_name))
                if scp.dns_name_type == "SRV"
                else [(scp.dns_name, scp.port)]
            )
        except KerberosError as error:
            _log.warning("the SCP %s is passed over: %s", scp.dn, error)
            reasons.append(str(error))
            continue
        for name, port in places:
            if not DNS_NAME.fullmatch(name):
                _log.warning(
                    "an SRV record of the SCP %s is passed over: %r is no DNS name", scp.dn, name
                )
            elif not wanted or _host_key(name) == wanted:
                found = True
                yield Endpoint(name.rstrip("."), port, scp)
    if not found:
        reasons += [f"none is on the host {host}"] if host else []
        raise DirectoryError(
            f"the service is nowhere to be reached: {'; '.join(reasons) or 'no SRV record is left'}"
        )


def _host_key(name: str) -> str:
    return name.casefold().rstrip(".")


def reach(
    found: Iterable[Endpoint],
    credential: Credential,
    config: Config | None = None,
    *,
    address: tuple[str, int] | None = None,
    mechanism: str = "kerberos",
    timeout: float = 10.0,
) -> Channel[Initiator]:
    """Return a channel to the first endpoint that answers and proves itself; see `Directory.reach_service`."""
    failure: KerberosError | None = None
    for endpoint in found:
        for target in endpoint.targets:
            try:
                place = address or endpoint.address
                return connect(
                    place, target, credential, config, mechanism=mechanism, timeout=timeout
                )
            except (ServiceUnknownError, TransportError) as error:
                _log.debug("%s at %s:%d is passed over: %s", target, *endpoint.address, error)
                failure = error
                if isinstance(error, TransportError):
                    break
    raise failure or DirectoryError("the service is nowhere to be reached: there is no endpoint")


def resolve_srv(name: str, resolver: Resolver | None = None) -> list[tuple[str, int]]:
    """Return host and port of each SRV record of `name`, ordered by priority and weight. Blocks.

    `resolver` is by default the system's. Raises TransportError where the DNS does not say.
    """
    records = lookup_srv(
        Locator(Config(), resolver=resolver).resolver(), f"{name.rstrip('.')}.", "tcp"
    )
    return [(server.host, server.port) for server in order_by_rfc2782(records)]
