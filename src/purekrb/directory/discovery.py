"""Finding the directories of a domain: by SRV records, own site first, else by configuration.

DNS answers are not signed. A server that was found here only counts as a domain controller if it
has the key of a name that is reserved for domain controllers: `ldap/host/domain`.
Source: MS-ADTS 6.3.2, 6.3.6.
"""

from __future__ import annotations

from purekrb.errors import TransportError
from purekrb.kdc.locate import Locator
from purekrb.kdc.records import lookup_srv, order_by_rfc2782
from purekrb.krb5conf.config import KdcAddress
from purekrb.log import Log

__all__ = ["LDAP_PORT", "domain_controllers", "global_catalogs"]

_log = Log("purekrb.directory")

LDAP_PORT = 389
#: The most servers of one domain that are tried.
MAX_SERVERS = 8


def domain_controllers(locator: Locator, domain: str, site: str = "") -> list[KdcAddress]:
    """Return the domain controllers of `domain`, in the order to try them. Blocks.

    Those of `site` come first. If DNS names none, the configured KDCs are returned: in Active
    Directory, KDCs are domain controllers. Raises TransportError if there is none either way.
    """
    found = _by_dns(locator, [f"_ldap._tcp.{scope}dc._msdcs.{domain}." for scope in _scopes(site)])
    if not found:
        hosts = dict.fromkeys(
            kdc.host
            for kdc in locator.configured(domain.upper())
            if kdc.transport in ("", "tcp", "udp")
        )
        found = [KdcAddress(host, LDAP_PORT, "tcp") for host in hosts]
    if not found:
        raise TransportError(
            f"no domain controller of {domain} is known: "
            f"DNS has no records _ldap._tcp.dc._msdcs.{domain}; name one by its URL"
        )
    return found[:MAX_SERVERS]


def global_catalogs(locator: Locator, forest: str, site: str = "") -> list[KdcAddress]:
    """Return the global catalogs of the forest with root domain `forest`, `site` first. Blocks."""
    return _by_dns(locator, [f"_gc._tcp.{scope}{forest}." for scope in _scopes(site)])[:MAX_SERVERS]


def _scopes(site: str) -> list[str]:
    return [f"{site}._sites.", ""] if site else [""]


def _by_dns(locator: Locator, names: list[str]) -> list[KdcAddress]:
    if not locator.config.dns_lookup_kdc:
        return []
    found: dict[KdcAddress, None] = {}
    for name in names:
        try:
            records = lookup_srv(locator.resolver(), name, "tcp")
        except TransportError as error:
            _log.debug("DNS does not say where the directory is: %s", error)
            break
        found.update(dict.fromkeys(order_by_rfc2782(records)))
    return list(found)
