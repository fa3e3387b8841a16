"""DNS records that name servers: SRV and URI, and the order in which to try them.

The lookups block for as long as the resolver likes. Source: RFC 2782, RFC 7553,
draft-mccallum-kitten-krb-service-discovery.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice
from random import SystemRandom
from typing import TYPE_CHECKING, Any, NamedTuple

from purekrb.errors import ConfigError, TransportError, TransportTimeoutError
from purekrb.krb5conf.config import KdcAddress
from purekrb.log import Log

if TYPE_CHECKING:
    from dns.resolver import Resolver

__all__ = [
    "SocketAddress",
    "SrvRecord",
    "lookup_srv",
    "lookup_uri",
    "order_by_rfc2782",
    "parse_uri",
]

_log = Log("purekrb.kdc")

#: The most records of one name: anyone may write DNS answers.
MAX_RECORDS = 256
#: Seconds that one query for SRV records may take, and one for URI records, which some firewalls drop.
SRV_TIMEOUT = 3.0
URI_TIMEOUT = 1.5
_MAX_URI = 1024
#: A URI of a server: flags, transport, and what the transport needs.
_URI = re.compile(r"krb5srv:([^:]*):([^:]*):(.+)", re.IGNORECASE | re.ASCII)
_randrange = SystemRandom().randrange


class SocketAddress(NamedTuple):
    """One address of a KDC, as returned by `socket.getaddrinfo`."""

    family: int
    sockaddr: Any


class SrvRecord(NamedTuple):
    """The relevant parts of an SRV or URI record. Source: RFC 2782, RFC 7553."""

    priority: int
    weight: int
    kdc: KdcAddress
    #: A URI record says that this KDC gets a new password first.
    primary: bool = False


def lookup_srv(resolver: Resolver, name: str, transport: str) -> list[SrvRecord]:
    """Return the usable SRV records of `name`, possibly none; the servers use `transport`. Blocks.

    Raises TransportError (TransportTimeoutError) if DNS does not answer.
    """
    return _usable(_look_up(resolver, name, "SRV", SRV_TIMEOUT), transport)


def lookup_uri(resolver: Resolver, name: str, port: int) -> list[SrvRecord]:
    """Return the usable URI records of `name`, possibly none; `port` is the default one. Blocks.

    Raises TransportError (TransportTimeoutError) if DNS does not answer.
    """
    records = []
    for record in islice(_look_up(resolver, name, "URI", URI_TIMEOUT), MAX_RECORDS):
        text = record.target.decode("latin-1")
        parsed = parse_uri(text, port)
        if parsed is None:
            _log.debug("the URI %r of %s is skipped", text[:_MAX_URI], name)
            continue
        kdc, primary = parsed
        records.append(SrvRecord(record.priority, record.weight, kdc, primary))
    return records


def parse_uri(text: str, port: int) -> tuple[KdcAddress, bool] | None:
    """Return the server in a URI record, and whether it is primary; None for what cannot be used.

    "krb5srv:m:tcp:kdc.example.com:88": the flag m marks a primary KDC, others do not count. The
    transports are udp, tcp, and kkdcp with the URL of a KDC proxy. `port` is the default port.
    """
    match = _URI.fullmatch(text) if len(text) <= _MAX_URI else None
    if match is None:
        return None
    flags, transport, rest = match[1].lower(), match[2].lower(), match[3]
    try:
        if transport == "kkdcp":
            kdc = KdcAddress.parse(rest)
            usable = kdc.transport == "https"
        else:
            kdc = KdcAddress.parse(f"{transport}://{rest}", port)
            usable = transport in ("udp", "tcp")
    except ConfigError:
        return None
    return (kdc, "m" in flags) if usable else None


def _look_up(resolver: Resolver, name: str, kind: str, seconds: float) -> Iterable[Any]:
    import dns.exception
    import dns.resolver

    try:
        return resolver.resolve(name, kind, lifetime=min(seconds, resolver.lifetime), search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        _log.debug("DNS has no %s records for %s", kind, name)
        return ()
    except (dns.exception.DNSException, OSError, ValueError) as error:
        # ValueError: `name` is not a DNS name.
        _log.debug("DNS gave no %s records for %s: %s", kind, name, type(error).__name__)
        late = isinstance(error, dns.resolver.LifetimeTimeout)
        raise (TransportTimeoutError if late else TransportError)(
            f"{name}: {type(error).__name__}"
        ) from None


def _usable(answer: Iterable[Any], transport: str) -> list[SrvRecord]:
    """Return the records that name a KDC. A target of "." means that there is none (RFC 2782)."""
    records = []
    for record in islice(answer, MAX_RECORDS):
        host = record.target.to_text(omit_final_dot=True)
        if host in ("", ".", "@") or record.port == 0:
            _log.debug("an SRV record with target %s and port %d is skipped", host, record.port)
            continue
        records.append(
            SrvRecord(record.priority, record.weight, KdcAddress(host, record.port, transport))
        )
    return records


def order_by_rfc2782(
    records: Iterable[SrvRecord], choose: Callable[[int], int] = _randrange
) -> list[KdcAddress]:
    """Return the KDCs by ascending priority; KDCs of one priority are drawn at random by weight.

    `choose(n)` returns a number below n. Source: RFC 2782, "Weight".
    """
    by_priority: dict[int, list[SrvRecord]] = {}
    for record in records:
        by_priority.setdefault(record.priority, []).append(record)
    ordered = []
    for priority in sorted(by_priority):
        # The RFC puts records of weight 0 first.
        group = sorted(by_priority[priority], key=lambda record: record.weight != 0)
        while group:
            mark = choose(sum(record.weight for record in group) + 1)
            for i, record in enumerate(group):
                mark -= record.weight
                if mark <= 0:
                    ordered.append(group.pop(i).kdc)
                    break
    return ordered
