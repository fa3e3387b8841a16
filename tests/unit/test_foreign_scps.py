"""Service connection points that other products have published: read as they are, never connected to as they are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from purekrb.directory import Directory, EmbeddedDirectory, ServiceConnectionPoint, SpnOperation
from purekrb.errors import DirectoryError, SpnError

BASE = "DC=example,DC=test"
CONFIGURATION = f"CN=Configuration,{BASE}"
EXCHANGE = f"CN=EX1,CN=Autodiscover,CN=Services,{CONFIGURATION}"
URL = "https://mail.example.test/Autodiscover/Autodiscover.xml"
#: What the products write: DN -> attributes.
OTHERS = {
    EXCHANGE: {
        "keywords": ["77378F46-2C66-4aa9-A6A6-3E7A48B19596", "Site=Default-First-Site-Name"],
        "serviceBindingInformation": [URL],
        "serviceClassName": ["ms-Exchange-AutoDiscover-Service"],
        "serviceDNSName": ["EX1"],
    },
    f"CN=ForestPointer,CN=Autodiscover,CN=Services,{CONFIGURATION}": {
        "keywords": ["67661d7F-8FC4-4fa7-BFAC-E1D7794C1F68", "Domain=other.test"],
        "serviceBindingInformation": ["LDAP://other.test"],
    },
    f"CN=62a0ff2e-97b9-4513-943f-0d221bd30080,CN=Device Registration Configuration,CN=Services,{CONFIGURATION}": {
        "keywords": ["azureADName:example.test"],
    },
    f"CN=SMS-MP-ABC,CN=System,{BASE}": {
        "keywords": ["SMS-Site-ABC"],
        "serviceBindingInformation": ["https://sccm.example.test", "8531"],
    },
}
OURS = ServiceConnectionPoint(
    "Ours",
    "Web",
    "web.example.test",
    ("2000",),
    ("SMS-Site-ABC", "d1c2a8d4-0c5a-4a43-9a3e-5b8f0f6d7a01"),
)


@pytest.fixture
def directory() -> Iterator[EmbeddedDirectory]:
    with Directory.embedded("example.test") as directory:
        directory.add_computer("web.example.test")
        for dn, attributes in OTHERS.items():
            directory._session.add(dn, "serviceConnectionPoint", attributes)
        yield directory


@pytest.mark.parametrize(
    ("dn", "attributes"), OTHERS.items(), ids=["exchange", "pointer", "azure", "sccm"]
)
def test_the_scp_of_another_product_is_found_by_its_keyword_and_read_as_it_is(
    directory: EmbeddedDirectory, dn: str, attributes: dict[str, list[str]]
) -> None:
    (found,) = directory.find_scps([attributes["keywords"][0].upper()])
    assert (found.dn, set(found.keywords)) == (dn, set(attributes["keywords"]))
    assert set(found.bindings) == set(attributes.get("serviceBindingInformation", ()))
    assert found.service_class_name == "".join(attributes.get("serviceClassName", ()))
    assert found.dns_name == "".join(attributes.get("serviceDNSName", ()))
    assert found.object_guid is not None


def test_what_is_incomplete_hides_nothing_and_is_never_connected_to(
    directory: EmbeddedDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    (alone,) = directory.find_scps(["SMS-Site-ABC"])
    with pytest.raises(DirectoryError, match="has no serviceClassName"):
        next(directory.find_endpoints(["SMS-Site-ABC"]))
    ours = directory.publish_scp(OURS)
    assert {scp.dn for scp in directory.find_scps(["SMS-Site-ABC"])} == {alone.dn, ours.dn}
    caplog.set_level(logging.WARNING, logger="purekrb")
    assert [endpoint.scp for endpoint in directory.find_endpoints(["SMS-Site-ABC"])] == [ours]
    assert alone.dn in caplog.text


def test_no_spn_is_composed_of_an_incomplete_scp_and_none_is_written_back(
    directory: EmbeddedDirectory,
) -> None:
    (exchange,) = directory.find_scps(["Site=Default-First-Site-Name"])
    with pytest.raises(DirectoryError, match="'EX1' is not a fully qualified DNS name"):
        exchange.spn()
    with pytest.raises(DirectoryError):
        exchange.check()
    with pytest.raises(DirectoryError, match="EX1"):
        directory.update_scp(replace(exchange, keywords=("x",)))
    assert exchange.spn("ex1.example.test").startswith(
        "ms-Exchange-AutoDiscover-Service/ex1.example.test/CN=EX1,"
    )
    complete = replace(exchange, dns_name="ex1.example.test", dns_name_type="A", bindings=("443",))
    complete.check()
    assert directory.update_scp(complete) != ()


def test_scps_are_found_by_their_class_alone_or_with_keywords(directory: EmbeddedDirectory) -> None:
    ours = directory.publish_scp(OURS)
    assert directory.find_scps(service_class="WEB") == [ours]
    assert directory.find_scps(["SMS-Site-ABC"], service_class="web") == [ours]
    assert directory.find_scps(["absent"], service_class="web") == []
    assert directory.find_scps(service_class="we*") == []
    assert [
        scp.dn for scp in directory.find_scps(service_class="ms-exchange-autodiscover-service")
    ] == [EXCHANGE]
    assert len(directory.find_scps()) == len(OTHERS) + 1


def of_url(scp: ServiceConnectionPoint) -> list[tuple[str, int]]:
    """What a caller writes for Exchange: the host of the URL, on the port of HTTPS."""
    (url,) = scp.bindings  # ValueError if there are none, or several
    if not url.startswith("https://"):
        raise ValueError(f"{url} is not a URL of HTTPS")
    return [(url.split("/")[2], 443)]


def test_a_callers_parser_reads_places_of_any_format(
    directory: EmbeddedDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="purekrb")
    keyword = "Site=Default-First-Site-Name"
    (endpoint,) = directory.find_endpoints([keyword], parse=of_url)
    assert endpoint.address == ("mail.example.test", 443)
    assert endpoint.targets[0] == f"ms-Exchange-AutoDiscover-Service/mail.example.test/{EXCHANGE}"
    # An SCP that the parser refuses is passed over, like one that lacks the class of the SPN.
    for unreadable in ("Domain=other.test", "azureADName:example.test"):
        with pytest.raises(DirectoryError, match="no endpoint of the service is usable"):
            next(directory.find_endpoints([unreadable], parse=of_url))
    published = directory.publish_scp(OURS)
    with pytest.raises(DirectoryError, match="is not a URL of HTTPS"):
        next(directory.find_endpoints([], service_class="Web", parse=of_url))
    assert published.dn in caplog.text
    with pytest.raises(ZeroDivisionError):  # a mistake in the parser is its author's to see
        next(
            directory.find_endpoints(
                [], service_class="Web", parse=lambda scp: [("a.test", 1 // 0)]
            )
        )


@pytest.mark.parametrize(
    "place",
    [
        ("10.0.0.1", 443),
        ("evil", 443),
        ("a.example.test/x", 443),
        ("a.example.test", 0),
        ("a.example.test", 65536),
    ],
    ids=["K655-address", "K655-short", "K655-slash", "K655-no-port", "K655-large-port"],
)
def test_places_that_no_client_can_use_are_skipped_whoever_parsed_them(
    directory: EmbeddedDirectory, place: tuple[str, int]
) -> None:
    good = ("ok.example.test", 443)
    found = directory.find_endpoints(
        ["Site=Default-First-Site-Name"], parse=lambda scp: [place, good]
    )
    assert [endpoint.address for endpoint in found] == [good]


@pytest.mark.parametrize(
    ("spn", "why"),
    [
        ("Web/10.0.0.1", "IP address"),
        ("Web/10.0.0.1:8080", "IP address"),
        ("Web/web.example.test@EXAMPLE.TEST", "realm EXAMPLE.TEST"),
    ],
)
def test_a_name_that_our_own_client_would_not_ask_for_is_warned_of_when_it_is_registered(
    directory: EmbeddedDirectory, caplog: pytest.LogCaptureFixture, spn: str, why: str
) -> None:
    caplog.set_level(logging.WARNING, logger="purekrb")
    directory.write_account_spn(
        SpnOperation.ADD, "WEB$", ["Web/web.example.test", "Web/web.example.test:8080"]
    )
    assert caplog.text == ""
    directory.write_account_spn(SpnOperation.ADD, "WEB$", [spn])
    assert f"{spn} is registered, but clients" in caplog.text
    assert why in caplog.text
    assert spn in directory.find_account("WEB$").spns


@pytest.mark.parametrize(
    "spn", ["Web/web.example.test:0", "Web/web.example.test:65536", "Web/[::1]:80"]
)
def test_a_name_with_a_port_that_is_none_is_not_registered_at_all(
    directory: EmbeddedDirectory, spn: str
) -> None:
    with pytest.raises(SpnError):
        directory.write_account_spn(SpnOperation.ADD, "WEB$", [spn])
    assert directory.find_account("WEB$").spns == ()


def test_a_computer_is_found_by_its_further_host_names(directory: EmbeddedDirectory) -> None:
    directory._session.add(
        f"CN=NODE,CN=Computers,{BASE}",
        "computer",
        {
            "sAMAccountName": ["NODE$"],
            "dNSHostName": ["node.example.test"],
            "msDS-AdditionalDnsHostName": ["www.example.test", "shop.example.test"],
        },
    )
    alias = replace(OURS, dns_name="shop.example.test")
    assert directory.publish_scp(alias).dn == f"CN=Ours,CN=NODE,CN=Computers,{BASE}"
    with pytest.raises(DirectoryError, match=r"computer object of 'other\.example\.test'"):
        directory.publish_scp(replace(OURS, dns_name="other.example.test"))
