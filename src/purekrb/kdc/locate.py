"""Finding the KDCs of a realm: from the configuration or DNS records; then their addresses.

All lookups block for as long as the system's resolver likes, so transport.py runs them in a
thread. The realm itself is never looked up in DNS. Source: RFC 4120 7.2.3.2, MS-ADTS 6.3.2.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from purekrb.errors import ConfigError, TransportError, TransportTimeoutError
from purekrb.kdc.records import (
    SocketAddress,
    SrvRecord,
    lookup_srv,
    lookup_uri,
    order_by_rfc2782,
)
from purekrb.krb5conf.config import KDC_PORT, KPASSWD_PORT, Config, KdcAddress
from purekrb.log import Log

if TYPE_CHECKING:
    from dns.resolver import Resolver

__all__ = ["Locator"]

_log = Log("purekrb.kdc")

#: The most KDCs of one realm, and addresses of one KDC: anyone may write DNS answers.
MAX_KDCS = 32
MAX_ADDRESSES = 16
#: Seconds without queries for URI records, if DNS answers those for SRV records alone.
URI_PAUSE = 300.0
#: Seconds for which the site of this machine is remembered.
SITE_LIFETIME = 900.0


class _Service(NamedTuple):
    """What DNS records name, and the relation in krb5.conf that does the same."""

    what: str
    relation: str
    uri: str
    srv: str
    port: int


_SERVICES = {
    "kerberos": _Service("KDC", "kdc = host:port", "_kerberos", "_kerberos", KDC_PORT),
    "primary": _Service(
        "primary KDC", "primary_kdc = host:port", "_kerberos", "_kerberos-master", KDC_PORT
    ),
    "kpasswd": _Service(
        "server that changes passwords",
        "kpasswd_server = host",
        "_kpasswd",
        "_kpasswd",
        KPASSWD_PORT,
    ),
}


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
        self._without_uri_until = 0.0
        self._sites: dict[str, tuple[float, str]] = {}  # realm -> until when, and the site

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

    def by_dns(
        self, realm: str, service: str = "kerberos", *, udp: bool = True
    ) -> list[KdcAddress]:
        """Return the servers in the DNS records of `realm`, in the order to try them. Blocks.

        `service` is "kerberos" (KDCs), "primary" (KDCs that get a new password first) or "kpasswd"
        (servers that change passwords). Without `udp`, the site of this machine is not asked for.
        URI records come before SRV records, of which those of the site come first.

        Raises ConfigError if there are none, and TransportError if DNS does not answer.
        """
        wanted = _SERVICES[service]
        domain = f"{realm.rstrip('.')}."
        failures: list[str] = []
        try:
            resolver = self.resolver()
        except TransportError as error:
            raise TransportError(f"{_unknown(realm, wanted)}; {error}") from error
        records = self._uri_records(resolver, f"{wanted.uri}.{domain}", wanted.port, failures)
        if service == "primary":
            records = [record for record in records if record.primary]
        kdcs = order_by_rfc2782(records)
        if not kdcs:
            near = self._near(resolver, realm, udp) if service == "kerberos" else []
            hosts = {(kdc.host, kdc.port) for kdc in near}
            drops_uri = bool(failures)
            found = order_by_rfc2782(_srv_records(resolver, wanted.srv, domain, failures))
            if drops_uri and found:
                self._without_uri_until = time.monotonic() + URI_PAUSE
            kdcs = [*near, *(kdc for kdc in found if (kdc.host, kdc.port) not in hosts)]
        if not kdcs and service == "kpasswd":
            # A proxy passes on both kinds of messages.
            others = self._uri_records(resolver, f"_kerberos.{domain}", KDC_PORT, [])
            kdcs = [kdc for kdc in order_by_rfc2782(others) if kdc.transport == "https"]
        if kdcs:
            _log.debug("DNS names %d KDC addresses of %s", len(kdcs), realm)
            return kdcs[:MAX_KDCS]
        if failures:
            raise TransportError(
                f"{_unknown(realm, wanted)}; DNS does not answer either ({'; '.join(failures)})"
            )
        raise ConfigError(
            f"{_unknown(realm, wanted)}, and DNS has no SRV records for {wanted.srv}._tcp.{realm}"
        )

    def site(self, realm: str, *, udp: bool = True) -> str:
        """Return the name of the site of this machine in the domain `realm`, or "". Blocks.

        It is `sitename` of the realm, or else, with `ad_site_discovery`, what a domain controller
        says. Nobody signs that: it only says which DNS records come first.
        """
        named = self.config.realm(realm).options.get("sitename", ("",))[0]
        if named or not self.config.ad_site_discovery or not udp:
            return named
        until, site = self._sites.get(realm, (0.0, ""))
        if time.monotonic() >= until:
            from purekrb.kdc.cldap import find_site  # only who asks for it pays for it

            try:
                site = find_site(self.resolver(), self.addresses, realm.rstrip(".").lower())
            except TransportError as error:
                _log.debug("the site in %s is not known: %s", realm, error)
                site = ""
            self._sites[realm] = (time.monotonic() + SITE_LIFETIME, site)
        return site

    def _near(self, resolver: Resolver, realm: str, udp: bool) -> list[KdcAddress]:
        """Return the KDCs of this machine's site. They serve UDP as well. Source: MS-ADTS 6.3.2.3."""
        site = self.site(realm, udp=udp)
        domain = f"{realm.rstrip('.')}."
        try:
            for scope in ("dc._msdcs.", "") if site else ():
                name = f"_kerberos._tcp.{site}._sites.{scope}{domain}"
                records = lookup_srv(resolver, name, "")
                if records:
                    _log.debug("DNS names %d KDCs of the site %s", len(records), site)
                    return order_by_rfc2782(records)
        except TransportError as error:
            _log.debug("DNS does not name the KDCs of the site %s: %s", site, error)
        return []

    def _uri_records(
        self, resolver: Resolver, name: str, port: int, failures: list[str]
    ) -> list[SrvRecord]:
        if not self.config.dns_uri_lookup or time.monotonic() < self._without_uri_until:
            return []
        try:
            return lookup_uri(resolver, name, port)
        except TransportError as error:
            failures.append(str(error))
            return []

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


def _srv_records(
    resolver: Resolver, service: str, domain: str, failures: list[str]
) -> list[SrvRecord]:
    """Return the SRV records of a service by UDP and TCP; note what DNS does not answer."""
    records: list[SrvRecord] = []
    for transport in ("udp", "tcp"):
        try:
            records += lookup_srv(resolver, f"{service}._{transport}.{domain}", transport)
        except TransportError as error:
            failures.append(str(error))
            if isinstance(error, TransportTimeoutError):
                break
    return records


def _is_ipv4(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):  # ValueError: not ASCII, or NUL in it
        return False
    return True


def _unknown(realm: str, service: _Service) -> str:
    return (
        f"no {service.what} of realm {realm} is configured "
        f"({service.relation} under [realms] in krb5.conf)"
    )
