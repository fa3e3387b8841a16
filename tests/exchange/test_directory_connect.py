"""Where a directory is, by which name it must prove itself, and whose connections can be protected."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from purekrb import (
    Config,
    Credential,
    DirectoryError,
    Keytab,
    PreauthFailedError,
    SpnError,
    TransportError,
    UnsupportedError,
)
from purekrb.directory import Directory
from purekrb.directory.connect import Url, default_targets
from purekrb.directory.discovery import domain_controllers, global_catalogs
from purekrb.directory.ldap import ldap3  # without the warnings of its own import
from purekrb.integrations import ldap3_sasl
from purekrb.kdc.locate import Locator
from purekrb.krb5conf.config import KdcAddress
from purekrb.testing import Realm
from support.kdc_stubs import DnsStub, closed_port
from support.ldap_stub import ROOT_DSE, LdapStub

DOMAIN = "example.test"
ZONE = {
    "_ldap._tcp.dc._msdcs.example.test.": [
        "1 0 389 dc2.example.test.",
        "0 0 389 dc1.example.test.",
    ],
    "_ldap._tcp.Site-A._sites.dc._msdcs.example.test.": ["0 0 389 dc2.example.test."],
    "_gc._tcp.example.test.": ["0 0 3268 dc1.example.test."],
    "_gc._tcp.Site-A._sites.example.test.": ["0 0 3268 dc2.example.test."],
}


# URLs and names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ldap://dc1.ad.test", Url("dc1.ad.test", 389, False)),
        ("ldaps://dc1.ad.test", Url("dc1.ad.test", 636, True)),
        ("LDAPS://DC1.ad.test./", Url("DC1.ad.test", 636, True)),
        ("ldap://dc1.ad.test:3268", Url("dc1.ad.test", 3268, False)),
        ("ldap://127.0.0.1:10389", Url("127.0.0.1", 10389, False)),
        ("ldap://[::1]", Url("::1", 389, False)),
        ("ldap://DC1", Url("DC1", 389, False)),
    ],
)
def test_a_url_names_a_server(text: str, url: Url) -> None:
    assert Url.parse(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dc1.ad.test",
        "http://dc1.ad.test",
        "ldapi:///",
        "ldap://",
        "ldap://dc1:0",
        "ldap://dc1:65536",
        "ldap://dc1:x",
        "ldap://user@dc1",
        "ldap://dc1/DC=ad",
        "ldap://dc1?x",
        "ldap://dc1#x",
        "ldap://[::1",
        "ldap://dc1 evil",
        "ldap://dc1\\evil",
        "ldap://-dc1",
        "ldap://dç1.ad.test",
        "ldap://dc1\0.ad.test",
        "ldap://dc1\n.ad.test",
    ],
)
def test_k265_what_is_no_url_of_a_directory_is_refused(text: str) -> None:
    with pytest.raises(DirectoryError) as error:
        Url.parse(text)
    assert error.value.code == 87


def test_the_name_that_only_domain_controllers_may_have_comes_first() -> None:
    alice = Credential.from_password("alice@AD.TEST", "pw")
    assert default_targets(Config(), alice, "dc1.ad.test") == [
        "ldap/dc1.ad.test/ad.test",
        "ldap/dc1.ad.test",
    ]
    mapped = Config(domain_realm={".other.test": "OTHER.TEST"})
    assert default_targets(mapped, alice, "dc.other.test")[0] == "ldap/dc.other.test/other.test"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_needs_a_target(host: str) -> None:
    with pytest.raises(DirectoryError, match="pass target"):
        default_targets(Config(), Credential.from_password("alice@AD.TEST", "pw"), host)


def test_k266_a_host_with_target_information_behind_it_is_refused(
    realm: tuple[Realm, Keytab, Credential],
) -> None:
    host = "dc11UWhRCAAAAAAAAAAAAAAAAAAAAAAAAAAAAwbEAYBAAAA.example.test"
    locator = Locator(
        realm[0].config,
        getaddrinfo=lambda host, port, **options: [(2, 1, 6, "", ("127.0.0.1", port))],
    )
    with LdapStub(realm[1]) as stub, pytest.raises(SpnError, match="target information"):
        Directory.connect(f"ldap://{host}:{stub.port}", realm[2], realm[0].config, locator=locator)


# DNS ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dns() -> Iterator[DnsStub]:
    with DnsStub(dict(ZONE)) as stub:
        yield stub


def hosts(servers: Sequence[KdcAddress]) -> list[str]:
    return [f"{server.host}:{server.port}" for server in servers]


def test_domain_controllers_come_in_the_order_of_dns_those_of_the_site_first(dns: DnsStub) -> None:
    locator = Locator(Config(), resolver=dns.resolver)
    assert hosts(domain_controllers(locator, DOMAIN)) == [
        "dc1.example.test:389",
        "dc2.example.test:389",
    ]
    assert hosts(domain_controllers(locator, DOMAIN, "Site-A")) == [
        "dc2.example.test:389",
        "dc1.example.test:389",
    ]
    assert hosts(domain_controllers(locator, DOMAIN, "No-Such")) == [
        "dc1.example.test:389",
        "dc2.example.test:389",
    ]


def test_global_catalogs_come_from_dns_those_of_the_site_first(dns: DnsStub) -> None:
    locator = Locator(Config(), resolver=dns.resolver)
    assert hosts(global_catalogs(locator, DOMAIN)) == ["dc1.example.test:3268"]
    assert hosts(global_catalogs(locator, DOMAIN, "Site-A")) == [
        "dc2.example.test:3268",
        "dc1.example.test:3268",
    ]
    assert global_catalogs(locator, "other.test") == []


def test_configured_kdcs_stand_in_where_dns_knows_nothing(dns: DnsStub) -> None:
    config = Config(realms={"OTHER.TEST": ["tcp://dc.other.test:88", "udp://dc.other.test:88"]})
    locator = Locator(config, resolver=dns.resolver)
    assert hosts(domain_controllers(locator, "other.test")) == ["dc.other.test:389"]
    with pytest.raises(TransportError, match="no domain controller"):
        domain_controllers(locator, "third.test")


def test_dns_is_not_asked_where_the_configuration_says_so(dns: DnsStub) -> None:
    locator = Locator(Config(dns_lookup_kdc=False), resolver=dns.resolver)
    with pytest.raises(TransportError):
        domain_controllers(locator, DOMAIN)
    assert dns.received == []


# A directory that DNS leads to --------------------------------------------------------------------------------------


Found = tuple[Realm, Keytab, Credential]


@pytest.fixture(scope="module")
def realm() -> Iterator[Found]:
    with Realm("EXAMPLE.TEST") as realm:
        alice = realm.add_user("alice", "pw")
        keytab = realm.add_service("ldap/dc1.example.test/example.test")
        more = [
            realm.add_service(f"GC/dc1.example.test/{DOMAIN}"),
            realm.add_service("ldap/evil.example.test"),
        ]
        yield realm, Keytab([*keytab, *(entry for other in more for entry in other)]), alice


def led_to(realm: Found, zone: Mapping[str, list[str]], dns: DnsStub) -> Locator:
    """Return a locator of `zone`, for whom every host is this machine."""
    dns.zone.clear()
    dns.zone.update(zone)
    config = replace(realm[0].config, dns_lookup_kdc=True)
    return Locator(
        config,
        resolver=dns.resolver,
        getaddrinfo=lambda host, port, **o: [(2, 1, 6, "", ("127.0.0.1", port))],
    )


def dc(port: int, host: str = "dc1") -> dict[str, list[str]]:
    return {"_ldap._tcp.dc._msdcs.example.test.": [f"0 0 {port} {host}.example.test."]}


def test_a_directory_is_found_by_dns(realm: Found, dns: DnsStub) -> None:
    with LdapStub(realm[1]) as stub:
        locator = led_to(realm, dc(stub.port), dns)
        with Directory.connect(None, realm[2], realm[0].config, locator=locator) as directory:
            assert directory._sessions.main.base_dn == "DC=example,DC=test"
        assert str(stub.contexts[0].acceptor) == "ldap/dc1.example.test/example.test@EXAMPLE.TEST"


def test_k263_a_host_that_dns_names_must_have_a_name_that_only_domain_controllers_have(
    realm: Found, dns: DnsStub
) -> None:
    # The member evil has a key for ldap/evil.example.test, and DNS says that it is a domain controller.
    with LdapStub(realm[1]) as stub:
        locator = led_to(realm, dc(stub.port, "evil"), dns)
        with pytest.raises(TransportError, match="evil"):
            Directory.connect(None, realm[2], realm[0].config, locator=locator)
        assert stub.requests == []


def test_k263_control_a_host_that_the_caller_names_may_prove_itself_by_two_parts(
    realm: Found, dns: DnsStub
) -> None:
    with LdapStub(realm[1]) as stub:
        locator = led_to(realm, {}, dns)
        url = f"ldap://evil.example.test:{stub.port}"
        Directory.connect(url, realm[2], realm[0].config, locator=locator).close()
        assert str(stub.contexts[0].acceptor) == "ldap/evil.example.test@EXAMPLE.TEST"


def test_a_wrong_password_is_tried_once_and_not_at_each_domain_controller(
    realm: Found, dns: DnsStub
) -> None:
    with LdapStub(realm[1]) as first, LdapStub(realm[1]) as second:
        records = [f"0 0 {stub.port} dc1.example.test." for stub in (first, second)]
        locator = led_to(realm, {"_ldap._tcp.dc._msdcs.example.test.": records}, dns)
        wrong = Credential.from_password("alice@EXAMPLE.TEST", "wrong")
        with pytest.raises(PreauthFailedError):
            Directory.connect(None, wrong, realm[0].config, locator=locator)
        assert first.accepted + second.accepted == 1


def test_changes_go_to_a_writable_domain_controller(realm: Found, dns: DnsStub) -> None:
    read_only = {**ROOT_DSE, "supportedCapabilities": [b"1.2.840.113556.1.4.1920"]}
    with LdapStub(realm[1], root=read_only) as first, LdapStub(realm[1]) as second:
        zone = {
            "_ldap._tcp.dc._msdcs.example.test.": [
                f"{n} 0 {s.port} dc1.example.test." for n, s in enumerate((first, second))
            ]
        }
        locator = led_to(realm, zone, dns)
        with Directory.connect(None, realm[2], realm[0].config, locator=locator) as directory:
            assert len(first.contexts) == 1
            directory._session.delete("CN=x,DC=example,DC=test")
        assert "delRequest" not in first.names()
        assert "delRequest" in second.names()


def test_the_forest_is_searched_in_a_global_catalog(realm: Found, dns: DnsStub) -> None:
    with LdapStub(realm[1]) as stub, LdapStub(realm[1]) as catalog:
        zone = {
            **dc(stub.port),
            "_gc._tcp.example.test.": [f"0 0 {catalog.port} dc1.example.test."],
        }
        locator = led_to(realm, zone, dns)
        with Directory.connect(None, realm[2], realm[0].config, locator=locator) as directory:
            directory._forest.search("", "(objectClass=*)")
        assert str(catalog.contexts[0].acceptor) == "GC/dc1.example.test/example.test@EXAMPLE.TEST"


def test_without_a_global_catalog_the_domain_is_searched_and_a_warning_tells(
    realm: Found, dns: DnsStub, caplog: pytest.LogCaptureFixture
) -> None:
    with LdapStub(realm[1]) as stub:
        locator = led_to(realm, dc(stub.port), dns)
        with (
            Directory.connect(None, realm[2], realm[0].config, locator=locator) as directory,
            caplog.at_level(logging.WARNING, "purekrb.directory"),
        ):
            assert directory._forest is directory._sessions.main
    assert "no global catalog" in caplog.text


def test_an_object_in_no_domain_is_told(realm: Found, dns: DnsStub) -> None:
    with LdapStub(realm[1]) as stub:
        locator = led_to(realm, dc(stub.port), dns)
        with Directory.connect(None, realm[2], realm[0].config, locator=locator) as directory:
            assert directory._sessions.domain_of("CN=x,DC=example,DC=test") is directory._session
            with pytest.raises(DirectoryError, match="not in a domain"):
                directory._sessions.domain_of("CN=x")


def test_a_server_that_does_not_run_is_told_with_its_address(realm: Found) -> None:
    with pytest.raises(TransportError, match=r"127\.0\.0\.1"):
        Directory.connect(
            f"ldap://127.0.0.1:{closed_port()}",
            realm[2],
            realm[0].config,
            target="ldap/x.example.test",
        )


def test_an_unknown_mechanism_is_refused(realm: Found) -> None:
    with pytest.raises(UnsupportedError, match="GSS-SPNEGO"):
        Directory.connect("ldap://dc1.example.test", realm[2], realm[0].config, mechanism="PLAIN")


def test_starttls_inside_of_tls_is_refused(realm: Found) -> None:
    with pytest.raises(DirectoryError, match="leave out start_tls"):
        Directory.connect("ldaps://dc1.example.test", realm[2], realm[0].config, start_tls=True)


# Anyone's ldap3 connection ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [ldap3.ASYNC, ldap3.SAFE_SYNC, ldap3.REUSABLE, ldap3.MOCK_SYNC]
)
def test_a_strategy_that_cannot_be_protected_is_refused(realm: Found, strategy: str) -> None:
    with LdapStub(realm[1]) as stub:
        server = ldap3.Server(stub.host, stub.port, get_info=ldap3.NONE)
        connection = ldap3.Connection(server, client_strategy=strategy, pool_name="x")
        target = "ldap/dc1.example.test/example.test"
        if strategy == ldap3.SAFE_SYNC:
            ldap3_sasl.bind(connection, realm[2], realm[0].config, target)
            assert connection.bound
            connection.unbind()
            return
        with pytest.raises(UnsupportedError, match="SAFE_SYNC"):
            ldap3_sasl.bind(connection, realm[2], realm[0].config, target)
        assert stub.requests == []
