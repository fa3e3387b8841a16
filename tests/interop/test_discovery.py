"""KDCs found by real DNS servers and a real domain controller: dnsmasq's URI records, Samba's DNS and Netlogon."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.resolver
import pytest

from purekrb import Config, Credential, KdcClient, TransportError
from purekrb.aio import KdcClient as AsyncKdcClient
from purekrb.directory import Directory
from purekrb.kdc import cldap
from purekrb.kdc.locate import Locator
from purekrb.kdc.records import SocketAddress
from purekrb.krb5conf.config import KdcAddress, RealmConfig
from purekrb.messages.cldap import NetlogonFlags
from purekrb.testing import Realm
from purekrb.testing.kdc_proxy import KdcProxy
from support.dnsmasq import dnsmasq, srv, uri
from support.samba import SambaDc

SITE = "Default-First-Site-Name"


def test_dnsmasqs_uri_records_lead_through_a_proxy_and_to_a_kdc(tmp_path: Path) -> None:
    with Realm("R.TEST") as realm, KdcProxy(realm) as proxy:
        alice = realm.add_user("alice", "old password")
        records = [
            uri("_kerberos.r.test", 0, 0, "krb5srv:m:sctp:kdc.r.test"),
            uri("_kerberos.r.test", 1, 0, f"krb5srv:m:kkdcp:{proxy.url}"),
            uri("_kerberos.r.test", 2, 0, f"krb5srv::tcp:127.0.0.1:{realm.port}"),
            uri("_kpasswd.r.test", 0, 0, f"krb5srv::udp:127.0.0.1:{realm.port}"),
            srv("_kerberos._tcp.r.test", "srv.r.test", 88),
        ]
        with dnsmasq(tmp_path, records) as resolver:
            options = proxy.config.realm("R.TEST").options
            config = Config(realms={"R.TEST": RealmConfig(options=options)})
            locator = Locator(config, resolver=resolver)
            gateway = KdcAddress.parse(proxy.url)
            direct = KdcAddress("127.0.0.1", realm.port, "tcp")
            assert locator.by_dns("R.TEST") == [gateway, direct]
            assert locator.by_dns("R.TEST", "primary") == [gateway]
            assert KdcClient(locator=locator).get_tgt(alice)
            assert proxy.requests == 2
            KdcClient(locator=locator).change_password(alice, "new password")
            new = Credential.from_password("alice@R.TEST", "new password")
            assert asyncio.run(AsyncKdcClient(locator=locator).get_tgt(new))
            # Without the CA, the proxy is not trusted, and the KDC after it is asked.
            before = proxy.requests
            assert KdcClient(locator=Locator(Config(), resolver=resolver)).get_tgt(new)
            assert proxy.requests == before
            without = Config(dns_uri_lookup=False)
            assert Locator(without, resolver=resolver).by_dns("R.TEST") == [
                KdcAddress("srv.r.test", 88, "tcp")
            ]


@pytest.fixture(scope="module")
def admin(samba_dc: SambaDc) -> Credential:
    return Credential.from_password(f"Administrator@{samba_dc.realm}", samba_dc.password)


def locator(samba_dc: SambaDc, **settings: Any) -> Locator:
    """Return what finds KDCs by the domain controller's own DNS."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [samba_dc.address]

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        known = {samba_dc.host: samba_dc.address}
        return socket.getaddrinfo(known.get(host, host), port, **options)

    config = replace(samba_dc.config, realms={}, dns_lookup_kdc=True, **settings)
    return Locator(config, resolver=resolver, getaddrinfo=getaddrinfo)


def test_samba_says_what_it_is_and_in_which_site_the_client_is(samba_dc: SambaDc) -> None:
    address = SocketAddress(socket.AF_INET, (samba_dc.address, 389))
    answer = cldap.ping([address], samba_dc.dns_domain, 10)
    assert (answer.host, answer.domain, answer.forest) == (
        samba_dc.host,
        samba_dc.dns_domain,
        samba_dc.dns_domain,
    )
    assert (answer.dc_site, answer.client_site) == (SITE, SITE)
    assert answer.flags & NetlogonFlags.KDC
    assert answer.flags & NetlogonFlags.WRITABLE
    with pytest.raises(TransportError, match=r"no domain controller of none\.test"):
        cldap.ping([address], "none.test", 0.5)


def test_the_kdcs_of_sambas_site_come_first(samba_dc: SambaDc, admin: Credential) -> None:
    near = KdcAddress(samba_dc.host, 88)
    found = locator(samba_dc, ad_site_discovery=True)
    assert found.by_dns(samba_dc.realm) == [near]
    assert found.site(samba_dc.realm) == SITE
    assert KdcClient(locator=found).get_tgt(admin)
    plain = locator(samba_dc).by_dns(samba_dc.realm)
    assert set(plain) == {replace(near, transport=transport) for transport in ("udp", "tcp")}
    named = locator(samba_dc)
    realms = {samba_dc.realm: RealmConfig(options={"sitename": (SITE,)})}
    assert named.with_config(replace(named.config, realms=realms)).by_dns(samba_dc.realm) == [near]


def test_the_directory_is_found_in_the_site(samba_dc: SambaDc, admin: Credential) -> None:
    found = locator(samba_dc, ad_site_discovery=True)
    cache = found.resolver().cache = dns.resolver.LRUCache()
    with Directory.connect(None, admin, found.config, locator=found) as directory:
        assert directory._sessions.main.base_dn == samba_dc.base
    asked = {str(name) for name, _, _ in cache.data}
    assert f"_ldap._tcp.{SITE}._sites.dc._msdcs.{samba_dc.dns_domain}." in asked
