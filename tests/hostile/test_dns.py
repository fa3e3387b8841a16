"""Names out of DNS and names with tricks in them (K263 to K266): nobody but the caller says whom the client trusts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from purekrb import Config, KdcClient, ServiceUnknownError, SpnError, initiate
from purekrb.kdc.locate import Locator
from purekrb.spn import ServicePrincipalName, target_principal
from purekrb.testing import Realm
from support.kdc_stubs import DnsStub

WEB = "HTTP/web.example.test"


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", "pw")
        realm.add_service(WEB)
        realm.add_service("HTTP/evil.example.test")
        yield realm


def settings(realm: Realm, path: Path, **libdefaults: str) -> Config:
    """Return the realm's configuration from a krb5.conf with more settings."""
    conf = path / "krb5.conf"
    realm.write_krb5_conf(conf)
    lines = "".join(f"{name} = {value}\n" for name, value in libdefaults.items())
    conf.write_text(conf.read_text().replace("[libdefaults]\n", f"[libdefaults]\n{lines}"))
    return Config.from_file(conf)


@pytest.mark.parametrize("canonicalize", ["false", "true", "fallback"])
def test_k263_the_service_is_the_one_that_was_typed_whatever_dns_says(
    realm: Realm, tmp_path: Path, canonicalize: str
) -> None:
    config = settings(realm, tmp_path, dns_canonicalize_hostname=canonicalize, rdns="true")
    asked: list[str] = []

    def evil(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return [
            (
                *socket.getaddrinfo("127.0.0.1", port, **options)[0][:3],
                "evil.example.test",
                ("127.0.0.1", port),
            )
        ]

    client = KdcClient(config, locator=Locator(config, getaddrinfo=evil))
    ticket = client.get_ticket(realm.add_user("alice", "pw"), WEB)
    assert str(ticket.service) == f"{WEB}@EXAMPLE.TEST"
    assert not any("web" in host for host in asked)
    assert (
        str(initiate(WEB, realm.add_user("alice", "pw"), config)._ticket.service)
        == f"{WEB}@EXAMPLE.TEST"
    )


@pytest.mark.parametrize("host", ["web.elsewhere.test", "web.sub.example.test", "web"])
def test_k264_no_realm_comes_out_of_dns_or_of_the_parents_of_a_host(
    realm: Realm, tmp_path: Path, host: str
) -> None:
    with DnsStub({}) as dns:
        config = replace(settings(realm, tmp_path, dns_lookup_realm="true"), dns_lookup_kdc=True)
        assert config.realm_of(host) is None
        client = KdcClient(config, locator=Locator(config, resolver=dns.resolver))
        with pytest.raises(
            ServiceUnknownError, match="EXAMPLE"
        ):  # the client's own realm is asked, no other
            client.get_ticket(realm.add_user("alice", "pw"), f"HTTP/{host}")
        assert dns.received == []


def test_k264_control_the_realm_that_the_configuration_names_is_taken() -> None:
    config = Config(domain_realm={".elsewhere.test": "ELSEWHERE.TEST"})
    assert config.realm_of("web.elsewhere.test") == "ELSEWHERE.TEST"


REFUSED = [
    ("HTTP/", "empty"),
    ("HTTP//web", "empty"),
    ("HTTP/web/a/b", "slashes"),
    ("HTTP/web\0.example.test", "nul"),
    ("HTTP/web\n.example.test", "newline"),
    ("HTTP/ web.example.test", "leading-blank"),
    ("HTTP/web.example.test ", "trailing-blank"),
    ("HTTP/ws@web@EXAMPLE.TEST", "at"),
    ("HTTP/web.example.test@", "empty-realm"),
    ("HTTP/127.0.0.1", "ipv4"),
    ("HTTP/[::1]", "ipv6-in-brackets"),
    ("HTTP/::1", "ipv6"),
    ("HTTP/web:0", "port-0"),
    ("HTTP/web:65536", "port-65536"),
]


@pytest.mark.parametrize(
    "target", [pytest.param(target, id=f"K265-{name}") for target, name in REFUSED]
)
def test_a_host_with_tricks_in_it_is_refused(target: str) -> None:
    with pytest.raises(SpnError):
        target_principal(target)


TAKEN = [
    ("HTTP/web.example.test", ("HTTP", "web.example.test"), "control"),
    ("HTTP/web.example.test.", ("HTTP", "web.example.test"), "trailing-dot"),
    ("HTTP/web:8080", ("HTTP", "web:8080"), "port"),
    ("HTTP/wéb.example.test", ("HTTP", "wéb.example.test"), "unicode"),
    ("HTTP/xn--wb-bja.example.test", ("HTTP", "xn--wb-bja.example.test"), "punycode"),
    ("cls/web/CN=a b,DC=x", ("cls", "web", "CN=a b,DC=x"), "three-parts"),
]


@pytest.mark.parametrize(
    ("target", "components"),
    [pytest.param(target, parts, id=f"K265-{name}") for target, parts, name in TAKEN],
)
def test_a_host_is_taken_without_a_lookup_and_comes_back_so(
    target: str, components: tuple[str, ...]
) -> None:
    principal = target_principal(target, "EXAMPLE.TEST")
    assert principal.components == components
    assert type(principal).parse(str(principal)) == principal
    assert str(ServicePrincipalName.parse(target)) == target


@pytest.mark.parametrize("form", ["HTTP/{}", "HTTP/{}.example.test", "cls/web.example.test/{}"])
def test_k266_a_name_with_target_information_in_it_is_refused(form: str) -> None:
    with pytest.raises(SpnError, match="target information"):
        target_principal(form.format("web1UWhRCAAAAAAAAAAAAAAAAAAAAAAAAAAAAAwbEAYBAAAA"))
    target_principal(form.format("web1UWhR"))
