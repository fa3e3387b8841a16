"""Where a client tries to reach a service: which instance, in which order, and under which names."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from purekrb.directory import ServiceConnectionPoint
from purekrb.directory.endpoints import Endpoint, endpoints
from purekrb.errors import DirectoryError, TransportError

GUID = UUID("a762885a-aa44-11d2-81f1-00c04fb9624e")


def scp(name: str, host: str, port: str = "2000", kind: str = "A") -> ServiceConnectionPoint:
    return ServiceConnectionPoint(
        name,
        "ADSockAuth",
        host,
        (port,),
        ("k",),
        kind,
        dn=f"CN={name},DC=ad,DC=test",
        object_guid=GUID,
    )


A, B, C = scp("a", "a.ad.test"), scp("b", "b.ad.test", "2001"), scp("c", "C.ad.test.", "2002")
SRV = scp("srv", "_sock._tcp.ad.test", "unused", "SRV")


def records(name: str) -> list[tuple[str, int]]:
    """What a DNS has, ordered by priority and weight."""
    found = {
        "_sock._tcp.ad.test": [("n2.ad.test.", 3002), ("n1.ad.test", 3001)],
        "_none._tcp.ad.test": [],
    }
    if name not in found:
        raise TransportError("the DNS does not answer")
    return found[name]


def places(scps: list[ServiceConnectionPoint], **options: Any) -> list[tuple[str, int]]:
    return [endpoint.address for endpoint in endpoints(scps, records, **options)]


def test_the_first_scp_comes_first_and_the_others_are_there_should_it_fail() -> None:
    assert places([A, B, C]) == [("a.ad.test", 2000), ("b.ad.test", 2001), ("C.ad.test", 2002)]


def test_random_spreads_clients_over_all_instances() -> None:
    orders = Counter(tuple(places([A, B, C], policy="random")) for _ in range(300))
    assert {len(order) for order in orders} == {3}
    assert len(orders) == 6


def test_a_host_is_chosen_whatever_its_case() -> None:
    assert places([A, B, C], host="c.AD.test") == [("C.ad.test", 2002)]
    assert places([A, SRV], host="n1.ad.test") == [("n1.ad.test", 3001)]
    with pytest.raises(DirectoryError, match=r"host d\.ad\.test"):
        places([A, B, C], host="d.ad.test")


def test_srv_records_give_host_and_port() -> None:
    found = list(endpoints([SRV, A], records))
    assert [endpoint.address for endpoint in found] == [
        ("n2.ad.test", 3002),
        ("n1.ad.test", 3001),
        ("a.ad.test", 2000),
    ]
    assert found[0].targets == (f"ADSockAuth/n2.ad.test/{SRV.dn}", f"ADSockAuth/n2.ad.test/{GUID}")


def test_the_names_of_an_endpoint_are_those_that_the_service_registers() -> None:
    assert Endpoint("a.ad.test", 2000, A).targets == A.spns() == (A.spn(), A.spn(by_guid=True))
    slash = replace(A, dn="CN=a/b,DC=ad,DC=test")
    assert Endpoint("a.ad.test", 2000, slash).targets == slash.spns() == (A.spn(by_guid=True),)


@pytest.mark.parametrize(
    "junk",
    [scp("x", "x.ad.test", "http://evil.test/"), scp("x", "_lost._tcp.ad.test", kind="SRV")],
    ids=["K275-no-port", "no-dns"],
)
def test_an_scp_that_leads_nowhere_is_passed_over_and_told(
    junk: ServiceConnectionPoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="purekrb")
    assert places([junk, A]) == [("a.ad.test", 2000)]
    assert "CN=x" in caplog.text
    with pytest.raises(DirectoryError, match="no endpoint of the service is usable"):
        places([junk])


@pytest.mark.parametrize(
    "scps", [[], [scp("x", "_none._tcp.ad.test", kind="SRV")]], ids=["no-scp", "no-srv-record"]
)
def test_a_service_that_is_nowhere_is_an_error(scps: list[ServiceConnectionPoint]) -> None:
    with pytest.raises(DirectoryError, match="no endpoint of the service is usable"):
        places(scps)
    assert places([*scps, A])


@pytest.mark.parametrize(
    "target", ["10.0.0.1", "n1", "evil.test/x", "a..b", "evil@ad.test", "x" * 300]
)
def test_k275_an_srv_record_whose_target_is_no_dns_name_is_passed_over(target: str) -> None:
    hostile = [(target, 3000), ("n1.ad.test", 3001)]
    assert [endpoint.host for endpoint in endpoints([SRV], lambda name: hostile)] == ["n1.ad.test"]


def test_an_unknown_policy_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="random"):
        places([A], policy="best")
