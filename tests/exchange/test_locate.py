"""KDC location by DNS, against a DNS server on loopback; what hostile answers do is in tests/hostile/test_net.py."""

from __future__ import annotations

import socket
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from dns import message, rdatatype

from purekrb import Credential, KdcClient
from purekrb.errors import ConfigError, PreauthFailedError, TransportError
from purekrb.kdc import cldap, locate, records
from purekrb.kdc.locate import Locator
from purekrb.kdc.records import SocketAddress, SrvRecord, order_by_rfc2782, parse_uri
from purekrb.krb5conf.config import Config, KdcAddress, RealmConfig
from purekrb.testing import Realm
from support.cldap_stub import CldapStub, entry, message_id, netlogon
from support.kdc_stubs import DnsStub, closed_port

UDP, TCP = "_kerberos._udp.R.TEST.", "_kerberos._tcp.R.TEST."


def kdc(name: str) -> KdcAddress:
    return KdcAddress(name, 88, "tcp")


def test_records_of_both_transports_are_ordered_by_priority() -> None:
    with DnsStub(
        {UDP: ["20 0 88 c.kdc.example.", "0 0 88 a.kdc.example."], TCP: ["10 0 750 b.kdc.example."]}
    ) as dns:
        found = Locator(Config(), resolver=dns.resolver).by_dns("R.TEST")
    assert found == [
        KdcAddress("a.kdc.example", 88, "udp"),
        KdcAddress("b.kdc.example", 750, "tcp"),
        KdcAddress("c.kdc.example", 88, "udp"),
    ]


def test_a_realm_without_records_says_what_to_configure() -> None:
    with DnsStub({}) as dns:
        locator = Locator(Config(), resolver=dns.resolver)
        with pytest.raises(
            ConfigError, match=r"kdc = host:port under \[realms\].*_kerberos\._tcp\.R\.TEST"
        ):
            locator.by_dns("R.TEST")
        assert dns.asked == [("_kerberos.R.TEST.", "URI"), (UDP, "SRV"), (TCP, "SRV")]


@pytest.mark.parametrize("realm", ["a" * 64, "x..y", "\u00e4" * 70, "." * 5, "a." * 130, "-\\"])
def test_a_realm_that_is_no_dns_name_is_a_typed_error(realm: str) -> None:
    with DnsStub({}) as dns, pytest.raises((ConfigError, TransportError), match="no KDC of realm"):
        Locator(Config(), resolver=dns.resolver).by_dns(realm)


def test_a_failing_dns_server_is_told_apart_from_one_without_records() -> None:
    def refuse(stub: Any, data: bytes, client: Any) -> None:
        stub.socket.sendto(data[:2] + b"\x80\x05" + data[4:], client)

    with DnsStub({}) as dns:
        dns.handle = refuse
        with pytest.raises(TransportError, match="DNS does not answer"):
            Locator(Config(), resolver=dns.resolver).by_dns("R.TEST")


def test_within_a_priority_the_weights_decide_how_often_a_kdc_comes_first() -> None:
    records = [
        SrvRecord(0, 10, kdc("light")),
        SrvRecord(0, 90, kdc("heavy")),
        SrvRecord(5, 1000, kdc("spare")),
    ]
    orders = [[address.host for address in order_by_rfc2782(records)] for _ in range(500)]
    assert {order[2] for order in orders} == {"spare"}
    assert 380 < Counter(order[0] for order in orders)["heavy"] < 490


def test_the_draw_is_that_of_rfc_2782() -> None:
    records = [SrvRecord(0, 3, kdc("b")), SrvRecord(0, 0, kdc("zero")), SrvRecord(0, 1, kdc("c"))]

    def first(mark: int) -> str:
        return order_by_rfc2782(records, lambda n: min(mark, n - 1))[0].host

    assert [first(mark) for mark in range(5)] == ["zero", "b", "b", "b", "c"]


def test_every_address_of_a_name_is_found_once() -> None:
    addresses = Locator(Config()).addresses("localhost", 88)
    assert SocketAddress(socket.AF_INET, ("127.0.0.1", 88)) in addresses
    assert len(addresses) == len(set(addresses))


def test_numeric_addresses_need_no_lookup() -> None:
    locator = Locator(Config())
    assert locator.addresses("127.0.0.1", 88, numeric=True) == [
        SocketAddress(socket.AF_INET, ("127.0.0.1", 88))
    ]
    assert locator.addresses("::1", 88, numeric=True)[0].family == socket.AF_INET6
    for name in ("localhost", "127.0.0.256", "a\0b", "\u00e4.test", ""):
        with pytest.raises(TransportError, match="name lookup failed"):
            locator.addresses(name, 88, numeric=True)


def test_a_name_with_a_thousand_addresses_is_bounded() -> None:
    many = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.{i // 250}.{i % 250}", 88))
        for i in range(1000)
    ]
    assert (
        len(Locator(Config(), getaddrinfo=lambda *_args, **_options: many).addresses("x", 88)) == 16
    )


# -- URI records -----------------------------------------------------------------------------------


URIS = "_kerberos.R.TEST."


def uri(priority: int, weight: int, text: str) -> str:
    return f'{priority} {weight} "{text}"'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("krb5srv:m:udp:kdc1.r.test", (KdcAddress("kdc1.r.test", 88, "udp"), True)),
        ("krb5srv::tcp:kdc1.r.test:750", (KdcAddress("kdc1.r.test", 750, "tcp"), False)),
        ("KRB5SRV:xM:TCP:[2001:db8::1]:750", (KdcAddress("2001:db8::1", 750, "tcp"), True)),
        (
            "krb5srv:m:kkdcp:https://gateway.test/KdcProxy",
            (KdcAddress("gateway.test", 443, "https", "/KdcProxy"), True),
        ),
        (
            "krb5srv::kkdcp:https://gateway.test:8443",
            (KdcAddress("gateway.test", 8443, "https", "/"), False),
        ),
    ],
)
def test_a_uri_names_a_server(text: str, found: tuple[KdcAddress, bool]) -> None:
    assert parse_uri(text, 88) == found


def test_uri_records_come_before_srv_records_which_are_then_not_asked_for() -> None:
    records = [
        uri(20, 1, "krb5srv::udp:last.r.test"),
        uri(10, 1, "krb5srv:m:kkdcp:https://gateway.test/KdcProxy"),
        uri(10, 0, "krb5srv:m:sctp:kdc9.r.test"),
    ]
    srv = {TCP: ["0 0 88 srv.kdc.example."]}
    with DnsStub(srv, uris={URIS: records}) as dns:
        locator = Locator(Config(), resolver=dns.resolver)
        assert locator.by_dns("R.TEST") == [
            KdcAddress("gateway.test", 443, "https", "/KdcProxy"),
            KdcAddress("last.r.test", 88, "udp"),
        ]
        assert dns.asked == [(URIS, "URI")]
        assert locator.by_dns("R.TEST", "primary") == [
            KdcAddress("gateway.test", 443, "https", "/KdcProxy")
        ]
        without = Locator(Config(dns_uri_lookup=False), resolver=dns.resolver)
        assert without.by_dns("R.TEST") == [KdcAddress("srv.kdc.example", 88, "tcp")]
        assert dns.asked[-2:] == [(UDP, "SRV"), (TCP, "SRV")]


def test_uri_records_of_which_none_can_be_used_leave_the_srv_records() -> None:
    records = [uri(0, 0, "krb5srv::sctp:kdc.r.test"), uri(0, 0, "ldap://dc.r.test")]
    with DnsStub({TCP: ["0 0 88 srv.kdc.example."]}, uris={URIS: records}) as dns:
        found = Locator(Config(), resolver=dns.resolver).by_dns("R.TEST")
    assert found == [kdc("srv.kdc.example")]


def test_a_server_that_drops_uri_queries_costs_its_time_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "URI_TIMEOUT", 0.3)
    monkeypatch.setattr(locate, "URI_PAUSE", 1.0)
    with DnsStub({TCP: ["0 0 88 srv.kdc.example."]}) as dns:
        answer = dns.handle

        def without_uris(stub: Any, data: bytes, client: Any) -> None:
            if message.from_wire(data).question[0].rdtype != rdatatype.URI:
                answer(stub, data, client)

        dns.handle = without_uris
        locator = Locator(Config(), resolver=dns.resolver)
        assert locator.by_dns("R.TEST") == [kdc("srv.kdc.example")]
        begin = time.monotonic()
        assert locator.by_dns("R.TEST") == [kdc("srv.kdc.example")]
        assert time.monotonic() - begin < 0.3
        dns.handle = answer
        dns.uris[URIS] = [uri(0, 0, "krb5srv::tcp:uri.kdc.example")]
        time.sleep(1.1)
        assert locator.by_dns("R.TEST") == [kdc("uri.kdc.example")]


def test_a_lost_answer_about_uri_records_is_asked_for_again_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "URI_TIMEOUT", 0.2)
    uris = {URIS: [uri(0, 0, "krb5srv::tcp:uri.kdc.example")]}
    with DnsStub({}, uris=uris) as dns:
        answer = dns.handle
        dns.handle = lambda stub, data, client: (
            None
            if message.from_wire(data).question[0].rdtype == rdatatype.URI
            else answer(stub, data, client)
        )
        locator = Locator(Config(), resolver=dns.resolver)
        with pytest.raises(TransportError, match="DNS does not answer"):
            locator.by_dns("R.TEST")
        dns.handle = answer
        assert locator.by_dns("R.TEST") == [kdc("uri.kdc.example")]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (
            {"_kpasswd.R.TEST.": [uri(0, 0, "krb5srv::tcp:k.r.test")]},
            KdcAddress("k.r.test", 464, "tcp"),
        ),
        (
            {
                URIS: [
                    uri(0, 0, "krb5srv::kkdcp:https://g.test/x"),
                    uri(0, 0, "krb5srv::tcp:kdc.r.test"),
                ]
            },
            KdcAddress("g.test", 443, "https", "/x"),
        ),
    ],
)
def test_uri_records_name_the_servers_that_change_passwords(
    records: dict[str, list[str]], expected: KdcAddress
) -> None:
    with DnsStub({}, uris=records) as dns:
        assert Locator(Config(), resolver=dns.resolver).by_dns("R.TEST", "kpasswd") == [expected]


# -- primary KDCs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("by_uri", [True, False])
def test_a_password_that_a_replica_refuses_is_tried_at_the_primary_kdc_that_dns_names(
    by_uri: bool,
) -> None:
    master = {"_kerberos-master._tcp.R.TEST."}
    with Realm("R.TEST") as replica, Realm("R.TEST") as primary:
        replica.add_user("alice", "old")
        primary.add_user("alice", "new")
        uris = {
            URIS: [
                uri(0, 0, f"krb5srv::tcp:127.0.0.1:{replica.port}"),
                uri(1, 0, f"krb5srv:m:tcp:127.0.0.1:{primary.port}"),
            ]
        }
        srv = {
            TCP: [f"0 0 {replica.port} localhost."],
            **{name: [f"0 0 {primary.port} localhost."] for name in master},
        }
        alice = Credential.from_password("alice@R.TEST", "new")
        with DnsStub({} if by_uri else srv, uris=uris if by_uri else {}) as dns:
            client = KdcClient(locator=Locator(Config(), resolver=dns.resolver))
            assert str(client.get_tgt(alice).client) == "alice@R.TEST"
            with pytest.raises(PreauthFailedError):
                client.get_tgt(Credential.from_password("alice@R.TEST", "wrong"))
            if not by_uri:
                del dns.zone["_kerberos-master._tcp.R.TEST."]
            else:
                dns.uris[URIS].pop()
            dns.resolver.cache = None
            with pytest.raises(PreauthFailedError):
                client.get_tgt(Credential.from_password("alice@R.TEST", "new"))
            named = replace(Config(), realms={"R.TEST": [f"127.0.0.1:{replica.port}"]})
            asked = len(dns.asked)
            with pytest.raises(PreauthFailedError):
                KdcClient(named, locator=Locator(named, resolver=dns.resolver)).get_tgt(alice_new())
            assert len(dns.asked) == asked


def alice_new() -> Credential:
    return Credential.from_password("alice@R.TEST", "new")


# -- sites -----------------------------------------------------------------------------------------


PLAIN_TCP, CONTROLLERS = "_kerberos._tcp.EXAMPLE.TEST.", "_ldap._tcp.dc._msdcs.example.test."
OF_SITE = "_kerberos._tcp.Paris._sites.dc._msdcs.EXAMPLE.TEST."


def zone(port: int = 389, *, of_site: str = OF_SITE) -> dict[str, list[str]]:
    return {
        PLAIN_TCP: ["0 0 88 dc1.hosts.example.", "10 0 88 dc2.hosts.example."],
        of_site: ["0 0 88 dc2.hosts.example."],
        CONTROLLERS: [f"0 0 {port} dc1.hosts.example."],
    }


def loopback(host: str, port: int, **options: Any) -> list[Any]:
    """Every host is this machine."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


NEAR = [KdcAddress("dc2.hosts.example", 88), KdcAddress("dc1.hosts.example", 88, "tcp")]
FAR = [KdcAddress("dc1.hosts.example", 88, "tcp"), KdcAddress("dc2.hosts.example", 88, "tcp")]


@pytest.mark.parametrize("scope", ["dc._msdcs.", ""])
def test_the_kdcs_of_the_configured_site_come_first(scope: str) -> None:
    realms = {"EXAMPLE.TEST": RealmConfig(options={"sitename": ("Paris",)})}
    of_site = f"_kerberos._tcp.Paris._sites.{scope}EXAMPLE.TEST."
    with DnsStub(zone(of_site=of_site)) as dns:
        locator = Locator(Config(realms=realms), resolver=dns.resolver)
        assert locator.by_dns("EXAMPLE.TEST") == NEAR
        assert locator.site("EXAMPLE.TEST") == "Paris"
        del dns.zone[of_site]
        dns.resolver.cache = None
        assert locator.by_dns("EXAMPLE.TEST") == FAR
        assert Locator(Config(), resolver=dns.resolver).by_dns("EXAMPLE.TEST") == FAR


def test_a_domain_controller_tells_the_site_if_one_wants_to_know() -> None:
    with CldapStub() as dc, DnsStub(zone(dc.port)) as dns:
        plain = Locator(Config(), resolver=dns.resolver, getaddrinfo=loopback)
        assert plain.by_dns("EXAMPLE.TEST") == FAR
        assert dc.received == []
        config = Config(ad_site_discovery=True)
        locator = Locator(config, resolver=dns.resolver, getaddrinfo=loopback)
        assert locator.by_dns("EXAMPLE.TEST") == NEAR
        assert locator.by_dns("EXAMPLE.TEST") == NEAR
        assert len(dc.received) == 1  # the answer is remembered
        without_udp = Locator(config, resolver=dns.resolver, getaddrinfo=loopback)
        assert without_udp.by_dns("EXAMPLE.TEST", udp=False) == FAR
        assert len(dc.received) == 1


def test_a_realm_without_domain_controllers_costs_one_query_and_no_time() -> None:
    with DnsStub({TCP: ["0 0 88 a.kdc.example."]}) as dns:
        locator = Locator(Config(ad_site_discovery=True), resolver=dns.resolver)
        begin = time.monotonic()
        assert locator.by_dns("R.TEST") == [kdc("a.kdc.example")]
        assert time.monotonic() - begin < 0.9
        assert [name for name, _ in dns.asked].count("_ldap._tcp.dc._msdcs.r.test.") == 1


def test_domain_controllers_that_do_not_answer_cost_a_second_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cldap, "TIMEOUT", 0.2)
    with CldapStub(lambda _: None) as silent, DnsStub(zone(silent.port)) as dns:
        config = Config(ad_site_discovery=True)
        locator = Locator(config, resolver=dns.resolver, getaddrinfo=loopback)
        begin = time.monotonic()
        assert locator.by_dns("EXAMPLE.TEST") == FAR
        assert time.monotonic() - begin < 3
        assert locator.by_dns("EXAMPLE.TEST") == FAR
        assert len(silent.received) == 1
    with DnsStub(zone(closed_port())) as dns:
        locator = Locator(config, resolver=dns.resolver, getaddrinfo=loopback)
        assert locator.by_dns("EXAMPLE.TEST") == FAR


def test_a_client_of_no_site_is_served_by_all() -> None:
    def answer(request: bytes) -> bytes:
        return entry(message_id(request), netlogon(client_site=""))

    with CldapStub(answer) as dc, DnsStub(zone(dc.port)) as dns:
        config = Config(ad_site_discovery=True)
        locator = Locator(config, resolver=dns.resolver, getaddrinfo=loopback)
        assert locator.by_dns("EXAMPLE.TEST") == FAR
        assert len(dc.received) == 1
