"""Finding the KDCs of a realm: from the configuration or DNS SRV records; then their addresses.

Both lookups block for as long as the system's resolver likes, so transport.py runs them in a
thread. The realm itself is never looked up in DNS. Source: RFC 4120 7.2.3.2, RFC 2782.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from random import SystemRandom
from typing import TYPE_CHECKING, Any, NamedTuple

from purekrb.errors import ConfigError, TransportError, TransportTimeoutError
from purekrb.krb5conf.config import KPASSWD_PORT, Config, KdcAddress
from purekrb.log import Log

if TYPE_CHECKING:
    from dns.resolver import Resolver

__all__ = ["Locator", "SocketAddress", "SrvRecord", "lookup_srv", "order_by_rfc2782"]

_log = Log("purekrb.kdc")

#: The most SRV records, KDCs of one realm, and addresses of one KDC: anyone may write DNS answers.
MAX_RECORDS = 256
MAX_KDCS = 32
MAX_ADDRESSES = 16
#: Seconds that one SRV query may take.
SRV_TIMEOUT = 3.0

#: What the SRV records name, and the relation in krb5.conf that does the same.
_SERVICES = {
    "kerberos": ("KDC", "kdc = host:port"),
    "kpasswd": ("server that changes passwords", "kpasswd_server = host"),
}
_randrange = SystemRandom().randrange


class SocketAddress(NamedTuple):
    """One address of a KDC, as returned by `socket.getaddrinfo`."""

    family: int
    sockaddr: Any


class SrvRecord(NamedTuple):
    """The relevant parts of an SRV record. Source: RFC 2782."""

    priority: int
    weight: int
    kdc: KdcAddress


class Locator:
    """Finds the KDCs of a realm and their addresses.

    `resolver` (dnspython's) and `getaddrinfo` default to the system's.
    """

    def __init__(
        self,
        config: Config,
        *,
        resolver: Resolver | None = None,
        getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        self.config = config
        self._resolver = resolver
        self._getaddrinfo = getaddrinfo

    def with_config(self, config: Config) -> Locator:
        """Return a locator of other servers that asks the same resolvers."""
        return Locator(config, resolver=self._resolver, getaddrinfo=self._getaddrinfo)

    def configured(self, realm: str, *, primary: bool = False) -> tuple[KdcAddress, ...]:
        """Return the configured KDCs; `primary`: only those that get a new password first."""
        return self.config.primary_kdcs(realm) if primary else self.config.kdcs(realm)

    def changing_passwords(self, realm: str) -> tuple[KdcAddress, ...]:
        """Return the configured servers that change passwords.

        They are `kpasswd_server`, or else port 464 of `admin_server`, or else the KDC proxies among
        the KDCs: a proxy serves both.
        """
        servers = self.config.realm(realm)
        return (
            servers.kpasswd_server
            or tuple(
                server if server.transport == "https" else replace(server, port=KPASSWD_PORT)
                for server in servers.admin_server
            )
            or tuple(kdc for kdc in servers.kdc if kdc.transport == "https")
        )

    def by_dns(self, realm: str, service: str = "kerberos") -> list[KdcAddress]:
        """Return the servers in the SRV records of `realm`, in the order to try them. Blocks.

        `service` is "kerberos" (KDCs) or "kpasswd" (servers that change passwords).

        Raises ConfigError if there are none, and TransportError if DNS does not answer.
        """
        records: list[SrvRecord] = []
        failures = []
        try:
            resolver = self.resolver()
        except TransportError as error:
            raise TransportError(f"{_unknown(realm, service)}; {error}") from error
        for transport in ("udp", "tcp"):
            try:
                records += lookup_srv(
                    resolver, f"_{service}._{transport}.{realm.rstrip('.')}.", transport
                )
            except TransportError as error:
                failures.append(str(error))
                if isinstance(error, TransportTimeoutError):
                    break
        kdcs = order_by_rfc2782(records)[:MAX_KDCS]
        if kdcs:
            _log.debug("DNS names %d KDC addresses of %s", len(kdcs), realm)
            return kdcs
        if failures:
            raise TransportError(
                f"{_unknown(realm, service)}; DNS does not answer either ({'; '.join(failures)})"
            )
        raise ConfigError(
            f"{_unknown(realm, service)}, and DNS has no SRV records for _{service}._tcp.{realm}"
        )

    def addresses(self, host: str, port: int, *, numeric: bool = False) -> list[SocketAddress]:
        """Return every address of `host`. Blocks unless `numeric`.

        With `numeric`, `host` must itself be an address. Raises TransportError if there is none.
        """
        if numeric and _is_ipv4(host):  # takes a tenth of the time
            return [SocketAddress(socket.AF_INET, (host, port))]
        flags = socket.AI_NUMERICHOST if numeric else 0
        try:
            found = self._getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        except (OSError, UnicodeError) as error:  # UnicodeError: not a host name at all
            why = error.strerror if isinstance(error, OSError) else "not a host name"
            raise TransportError(f"name lookup failed: {why}") from error
        addresses = (SocketAddress(family, sockaddr) for family, _, _, _, sockaddr in found)
        return list(dict.fromkeys(addresses))[:MAX_ADDRESSES]

    def resolver(self) -> Resolver:
        """Return the resolver in use. Raises TransportError if the system does not have one."""
        if self._resolver is None:
            import dns.exception
            import dns.resolver

            try:
                self._resolver = dns.resolver.Resolver()
            except dns.exception.DNSException as error:
                raise TransportError(f"DNS is not set up on this machine ({error})") from error
            self._resolver.cache = dns.resolver.LRUCache(64)
        return self._resolver


def lookup_srv(resolver: Resolver, name: str, transport: str) -> list[SrvRecord]:
    """Return the usable SRV records of `name`, possibly none; the servers use `transport`. Blocks.

    Raises TransportError (TransportTimeoutError) if DNS does not answer.
    """
    import dns.exception
    import dns.resolver

    try:
        answer = resolver.resolve(
            name, "SRV", lifetime=min(SRV_TIMEOUT, resolver.lifetime), search=False
        )
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        _log.debug("DNS has no SRV records for %s", name)
        return []
    except (dns.exception.DNSException, OSError, ValueError) as error:
        # ValueError: `name` is not a DNS name.
        _log.debug("DNS gave no SRV records for %s: %s", name, type(error).__name__)
        late = isinstance(error, dns.resolver.LifetimeTimeout)
        raise (TransportTimeoutError if late else TransportError)(
            f"{name}: {type(error).__name__}"
        ) from None
    return _usable(answer, transport)


def _is_ipv4(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):  # ValueError: not ASCII, or NUL in it
        return False
    return True


def _unknown(realm: str, service: str) -> str:
    what, relation = _SERVICES[service]
    return f"no {what} of realm {realm} is configured ({relation} under [realms] in krb5.conf)"


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
