"""DNS records and domain controllers that lie about where KDCs are (K600 to K609)."""

from __future__ import annotations

import socket
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.rdatatype
import pytest

from purekrb import Config, DecodeError, KdcClient, TransportError
from purekrb.errors import ConfigError
from purekrb.kdc import cldap
from purekrb.kdc.locate import MAX_KDCS, Locator
from purekrb.kdc.records import SocketAddress, parse_uri
from purekrb.krb5conf.config import KdcAddress, RealmConfig
from purekrb.messages.cldap import decode_answer, decode_netlogon
from purekrb.testing import Realm
from support.cldap_stub import CldapStub, entry, message_id, name, netlogon
from support.https_stub import HttpsStub, response
from support.kdc_stubs import DnsStub
from support.tls import Authority

URIS = "_kerberos.R.TEST."
GOOD = "krb5srv::tcp:kdc.hosts.example"
FOUND = KdcAddress("kdc.hosts.example", 88, "tcp")


def by_dns(stub: DnsStub, **options: Any) -> list[KdcAddress]:
    return Locator(Config(**options), resolver=stub.resolver).by_dns("R.TEST")


# -- URI records -----------------------------------------------------------------------------------


def test_k600_ten_thousand_uri_records_cost_neither_time_nor_memory_nor_attempts() -> None:
    """As many as there is room for in a message: some 3000; and as many texts as one likes."""
    records = [f'0 0 "krb5srv::tcp:k{n:04}"' for n in range(1500)]
    with DnsStub({}, uris={URIS: records}) as stub:
        begin = time.monotonic()
        found = by_dns(stub)
        assert time.monotonic() - begin < 5
        assert len(found) == len(set(found)) == MAX_KDCS
        stub.uris[URIS] = [f'0 0 "x{n}"' for n in range(2400)]
        stub.zone["_kerberos._tcp.R.TEST."] = ["0 0 88 kdc.hosts.example."]
        assert by_dns(stub) == [FOUND]
    tracemalloc.start()
    try:
        begin = time.monotonic()
        assert not any(parse_uri(f"krb5srv::x{n}:host", 88) for n in range(10_000))
        assert parse_uri("krb5srv::tcp:" + "a" * 65_000, 88) is None
        assert parse_uri(GOOD, 88) == (FOUND, False)
        assert time.monotonic() - begin < 5
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


UNUSABLE = [
    "",
    "krb5srv",
    "krb5srv:",
    "krb5srv::",
    "krb5srv:::",
    "krb5srv::tcp:",
    "krb5srv::tcp",
    "krb5srv:tcp:kdc.hosts.example",
    "krb5srv::tcp:kdc.hosts.example:0",
    "krb5srv::tcp:kdc.hosts.example:99999",
    "krb5srv::tcp:kdc.hosts.example:88:88",
    "krb5srv::tcp:a b",
    "krb5srv::tcp:https://gateway.test/KdcProxy",
    "krb5srv::udp:udp://kdc.hosts.example",
    "krb5srv::https:gateway.test/KdcProxy",
    "krb5srv::unix:/run/kdc",
    "krb5srv::kkdcp:gateway.test/KdcProxy",
    "krb5srv::kkdcp:http://gateway.test/KdcProxy",
    "krb5srv::kkdcp:tcp://gateway.test",
    "krb5srv::kkdcp:https://",
    "krb5srv::kkdcp:https://user:secret@gateway.test/",
    "krb5srv::kkdcp:https://gateway.test/ HTTP/1.1\r\nX: y",
    # loops
    "krb5srv::kkdcp:krb5srv::kkdcp:https://gateway.test/KdcProxy",
    "krb5srv::tcp:krb5srv::tcp:kdc.hosts.example",
    "krb5srv::kkdcp:_kerberos.R.TEST",
    "kerberos:m:tcp:kdc.hosts.example",
    "https://gateway.test/KdcProxy",
    "\xff" * 10,
]


@pytest.mark.parametrize("text", [pytest.param(t, id=f"K601-{n}") for n, t in enumerate(UNUSABLE)])
def test_a_uri_that_names_no_server_is_passed_over_and_the_others_are_used(text: str) -> None:
    assert parse_uri(text, 88) is None
    escaped = "".join(f"\\{ord(c):03}" for c in text)
    with DnsStub({}, uris={URIS: [f'0 0 "{escaped}"', f'1 0 "{GOOD}"']} if text else {}) as stub:
        if text:
            assert by_dns(stub) == [FOUND]
        else:  # the empty one cannot be in a record
            with pytest.raises(ConfigError, match="no KDC"):
                by_dns(stub)
    assert parse_uri(GOOD, 88) == (FOUND, False)


@pytest.mark.parametrize(
    "rdata",
    [
        pytest.param(b"", id="K602-nothing"),
        pytest.param(b"\0\0\0", id="K602-cut-off"),
        pytest.param(b"\0\0\0\0", id="K602-no-target"),
        pytest.param(b"\0\0\0\0\xff\xfe\0", id="K602-noise"),
    ],
)
def test_a_uri_record_whose_data_are_broken_leaves_the_srv_records(rdata: bytes) -> None:
    whole = struct.pack(">HH", 0, 0) + b"krb5srv::tcp:of-uri.r.test"
    zone = {"_kerberos._tcp.R.TEST.": ["0 0 88 kdc.hosts.example."]}
    for data, found in ((rdata, "kdc.hosts.example"), (whole, "of-uri.r.test")):
        options = {"broken": data, "broken_type": dns.rdatatype.URI}
        with DnsStub(zone, uris={URIS: [""]}, **options) as stub:
            assert by_dns(stub) == [KdcAddress(found, 88, "tcp")]


def test_k603_a_gateway_that_leads_to_itself_is_asked_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    answers: list[bytes] = []
    with (
        Realm("R.TEST") as realm,
        HttpsStub(authority.server("localhost"), lambda _: answers[0]) as gateway,
        DnsStub({}) as stub,
    ):
        answers.append(response(b"", f"Location: {gateway.url()}", status="307 Temporary Redirect"))
        alice = realm.add_user("alice", "pw", preauth=False)
        itself = [f'{n} 0 "krb5srv::kkdcp:{gateway.url()}"' for n in range(3)]
        stub.uris[URIS] = itself
        anchors = RealmConfig(options={"http_anchors": (f"FILE:{authority.ca}",)})
        config = Config(realms={"R.TEST": anchors})
        with pytest.raises(TransportError, match="HTTP 307"):
            KdcClient(locator=Locator(config, resolver=stub.resolver)).get_tgt(alice)
        assert len(gateway.requests) == 1
        stub.uris[URIS] = [*itself, f'9 0 "krb5srv::tcp:127.0.0.1:{realm.port}"']
        client = KdcClient(locator=Locator(config, resolver=stub.resolver))
        assert str(client.get_tgt(alice).client) == "alice@R.TEST"


# -- domain controllers ----------------------------------------------------------------------------


def pointer(to: int) -> bytes:
    return bytes((0xC0 | to >> 8, to & 0xFF))


NAMES = b"".join(map(name, ("r.test", "r.test", "dc1.r.test", "R", "DC1", "", "Paris")))
AT = 24 + len(NAMES)
BROKEN_NAMES = {
    "to-itself": pointer(AT),
    "forwards": pointer(AT + 2) + name("x"),
    "beyond-the-end": pointer(0x3FFF),
    "to-one-another": b"\1a" + pointer(AT + 4) + pointer(AT),
    "through-itself": b"\1a" + pointer(AT),
    "cut-off-in-a-pointer": b"\xc0",
    "reserved-kind": b"\x80\0",
    "label-beyond-the-end": b"\x3fx",
    "too-long": (b"\x3f" + b"a" * 63) * 5 + b"\0",
    "not-utf-8": b"\2\xff\xfe\0",
    "nothing": b"",
}


@pytest.mark.parametrize("case", [pytest.param(case, id=f"K604-{case}") for case in BROKEN_NAMES])
def test_a_name_that_loops_or_is_cut_off_is_refused(case: str) -> None:
    value = netlogon(raw=NAMES + BROKEN_NAMES[case])
    if case in ("nothing", "cut-off-in-a-pointer", "label-beyond-the-end"):
        value = value[: AT + len(BROKEN_NAMES[case])]  # without the versions behind the names
    with pytest.raises(DecodeError):
        decode_netlogon(value)
    genuine = decode_netlogon(netlogon(raw=NAMES + pointer(24)))
    assert (genuine.dc_site, genuine.client_site) == ("Paris", "r.test")


def test_k604_names_by_many_pointers_take_no_time() -> None:
    """A chain of pointers, each to the one before, is as long as the data and no longer."""
    chain = b"".join(pointer(24 + 2 * max(n - 1, 0)) for n in range(1, 8000))
    begin = time.monotonic()
    with pytest.raises(DecodeError):
        decode_netlogon(netlogon(raw=name("") + chain * 4))
    assert time.monotonic() - begin < 2


CONTROLLERS = "_ldap._tcp.dc._msdcs.r.test."
OF_PARIS = "_kerberos._tcp.Paris._sites.dc._msdcs.R.TEST."
NEAR, FAR = KdcAddress("near.hosts.example", 88), KdcAddress("far.hosts.example", 88, "tcp")


def kdcs_after(answer: Callable[[bytes], bytes | None]) -> tuple[list[KdcAddress], DnsStub]:
    """Return the KDCs that are found when a domain controller answers so, and the DNS server."""

    def loopback(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    with CldapStub(answer) as controller:
        zone = {
            "_kerberos._tcp.R.TEST.": ["0 0 88 far.hosts.example."],
            OF_PARIS: ["0 0 88 near.hosts.example."],
            CONTROLLERS: [f"0 0 {controller.port} dc1.hosts.example."],
        }
        with DnsStub(zone) as stub:
            config = Config(ad_site_discovery=True)
            locator = Locator(config, resolver=stub.resolver, getaddrinfo=loopback)
            return locator.by_dns("R.TEST"), stub


def answered(value: bytes, attribute: bytes = b"Netlogon") -> Callable[[bytes], bytes]:
    return lambda request: entry(message_id(request), value, attribute)


OF_R = netlogon(domain="r.test")
LIES: dict[str, Callable[[bytes], bytes | None]] = {
    "of-another-request": lambda request: entry(b"\2\4\x7f\1\2\3", OF_R),
    "of-another-domain": answered(netlogon(domain="evil.test")),
    "of-another-attribute": answered(OF_R, b"Netlogin"),
    "of-another-operation": answered(netlogon(domain="r.test", opcode=19)),
    "cut-off": lambda request: entry(message_id(request), OF_R)[:60],
    "no-ldap": lambda _: b"HTTP/1.1 200 OK\r\n\r\n",
    "empty": lambda _: b"",
    "indefinite-length": lambda request: b"\x30\x80" + message_id(request) + b"\0\0",
    "length-of-4-gib": lambda request: b"\x30\x84\xff\xff\xff\xff" + message_id(request),
    "a-refusal": lambda request: b"\x30\x0c" + message_id(request) + b"\x65\x07\n\1\1\4\0\4\0",
}


@pytest.mark.parametrize("case", [pytest.param(case, id=f"K605-{case}") for case in LIES])
def test_an_answer_that_does_not_fit_changes_nothing(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cldap, "TIMEOUT", 0.15)
    assert kdcs_after(LIES[case])[0] == [FAR]
    monkeypatch.setattr(cldap, "TIMEOUT", 5.0)
    assert kdcs_after(answered(OF_R))[0] == [NEAR, FAR]


def test_k605_any_octet_changed_or_the_end_cut_off_is_read_or_refused() -> None:
    genuine = entry(b"\2\1\7", OF_R)
    assert decode_answer(genuine)[1].client_site == "Paris"
    for at in range(len(genuine)):
        for change in (0x01, 0x80, 0xFF):
            damaged = genuine[:at] + bytes([genuine[at] ^ change]) + genuine[at + 1 :]
            try:
                decode_answer(damaged)
            except DecodeError:
                continue
    for end in range(len(genuine) - 20):
        try:
            decode_answer(genuine[:end])
        except DecodeError:
            continue


SITES = [
    "..",
    "evil.test",
    "Paris._sites.dc._msdcs.evil.test",
    "a b",
    "-Paris",
    "Paris\n",
    "Par\u00efs",
    "*",
]


@pytest.mark.parametrize(
    "site", [pytest.param(site, id=f"K606-{n}") for n, site in enumerate(SITES)]
)
def test_a_site_that_is_no_label_is_not_asked_for(site: str) -> None:
    raw = b"".join(map(name, ("r.test", "r.test", "dc1.r.test", "R", "DC1", "", "Paris")))
    label = site.encode()
    found, stub = kdcs_after(answered(netlogon(raw=raw + bytes([len(label)]) + label + b"\0")))
    assert found == [FAR]
    assert not any("_sites" in asked for asked, _ in stub.asked)
    assert kdcs_after(answered(OF_R))[0] == [NEAR, FAR]


def test_k607_a_lie_about_the_site_neither_hides_nor_adds_a_kdc() -> None:
    """DNS alone says which KDCs there are; the answer chooses among its records."""
    found, stub = kdcs_after(answered(netlogon(domain="r.test", client_site="Nowhere")))
    assert found == [FAR]
    assert ("_kerberos._tcp.Nowhere._sites.dc._msdcs.R.TEST.", "SRV") in stub.asked
    raw = b"".join(map(name, ("evil.test", "r.test", "evil.test", "E", "E", "", "x", "Paris")))
    assert kdcs_after(answered(netlogon(raw=raw)))[0] == [NEAR, FAR]


def test_k608_a_flood_of_answers_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cldap, "TIMEOUT", 0.5)

    def flood(request: bytes) -> None:
        for _ in range(2000):
            stub.socket.sendto(b"\x30\0", stub.client)

    class Flood(CldapStub):
        client: Any

    stub = Flood(flood)
    handle = stub.handle

    def noted(one: Any, data: bytes, client: Any) -> None:
        stub.client = client
        handle(one, data, client)

    stub.handle = noted
    address = ("127.0.0.1", stub.port)
    with stub:
        begin = time.monotonic()
        with pytest.raises(TransportError, match=r"no domain controller of r\.test answered"):
            cldap.ping([SocketAddress(socket.AF_INET, address)], "r.test", 0.5)
        assert time.monotonic() - begin < 4
    with CldapStub(answered(OF_R)) as good:
        address = ("127.0.0.1", good.port)
        answer = cldap.ping([SocketAddress(socket.AF_INET, address)], "r.test", 5)
        assert answer.client_site == "Paris"


def test_k609_a_site_of_the_configuration_is_asked_for_without_a_ping() -> None:
    """Whoever fears the ping can name the site: then no datagram is sent."""
    realms = {"R.TEST": RealmConfig(options={"sitename": ("Paris",)})}
    zone = {OF_PARIS: ["0 0 88 near.hosts.example."], CONTROLLERS: ["0 0 1 dc1.hosts.example."]}
    with DnsStub(zone) as stub:
        config = Config(realms=realms, ad_site_discovery=True)
        locator = Locator(config, resolver=stub.resolver)
        assert locator.by_dns("R.TEST") == [NEAR]
        assert not any(CONTROLLERS in asked for asked, _ in stub.asked)
