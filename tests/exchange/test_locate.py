"""KDC location by DNS, against a DNS server on loopback; what hostile answers do is in tests/hostile/test_net.py."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import pytest

from purekrb.errors import ConfigError, TransportError
from purekrb.kdc.locate import Locator, SocketAddress, SrvRecord, order_by_rfc2782
from purekrb.krb5conf.config import Config, KdcAddress
from support.kdc_stubs import DnsStub

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
        assert len(dns.received) == 2


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
