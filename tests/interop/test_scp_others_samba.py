"""The directory as others use it, at Samba: SCPs of other products, aliases of hosts, one SPN on several hosts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from purekrb import Credential, Keytab, ReplayError
from purekrb.directory import Directory, ServiceConnectionPoint, SpnOperation
from purekrb.errors import DirectoryError, SpnValidatedWriteDeniedError
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.initiator import Initiator
from purekrb.kdc.client import KdcClient
from purekrb.replay import FileReplayCache, RedisReplayCache, ReplayCache
from support.redis_server import RedisServer
from support.samba import SambaDc

BASE = SambaDc.base
SERVICES = f"CN=Services,CN=Configuration,{BASE}"
EXCHANGE_URL = "https://mail.ad.test/Autodiscover/Autodiscover.xml"
#: Keyword -> the object's DN, and its bindings: what Exchange, Azure AD Connect and Configuration Manager publish.
OTHERS = {
    "77378F46-2C66-4aa9-A6A6-3E7A48B19596": (f"CN=EX1,CN=Autodiscover,{SERVICES}", (EXCHANGE_URL,)),
    "67661d7F-8FC4-4fa7-BFAC-E1D7794C1F68": (
        f"CN=ForestPointer,CN=Autodiscover,{SERVICES}",
        ("LDAP://other.test",),
    ),
    "azureADName:example.test": (
        f"CN=62a0ff2e-97b9-4513-943f-0d221bd30080,CN=Device Registration Configuration,{SERVICES}",
        (),
    ),
    "SMS-Site-ABC": (f"CN=SMS-MP-ABC-sccm.ad.test,CN=System,{BASE}", ("https://sccm.ad.test",)),
}
PARENTS = (
    f"CN=Autodiscover,{SERVICES}",
    f"CN=Device Registration Configuration,{SERVICES}",
)
HOST, ALIAS = "others1.ad.test", "www-others.ad.test"
SCP = ServiceConnectionPoint(
    "Others", "others", HOST, ("2000",), ("SMS-Site-ABC", "8c2c8e0e-6f0a-4d2b-9d5e-1f4b4b9d0a55")
)


def bound(dc: SambaDc, account: str, port: int = 389) -> Directory:
    credential = Credential.from_password(f"{account}@{dc.realm}", dc.password)
    target = f"ldap/{dc.host}/{dc.dns_domain}"
    return Directory.connect(f"ldap://{dc.address}:{port}", credential, dc.config, target=target)


@pytest.fixture(scope="module", autouse=True)
def others(samba_dc: SambaDc) -> Iterator[None]:
    samba_dc.add_user("others-client")
    samba_dc.add_computer("OTHERS1")
    objects = [f"dn: {dn}\nobjectClass: container\n" for dn in PARENTS]
    for keyword, (dn, bindings) in OTHERS.items():
        lines = [f"dn: {dn}", "objectClass: serviceConnectionPoint", f"keywords: {keyword}"]
        lines += [f"serviceBindingInformation: {binding}" for binding in bindings]
        if "EX1" in dn:
            lines += ["serviceClassName: ms-Exchange-AutoDiscover-Service", "serviceDNSName: EX1"]
        objects.append("\n".join(lines) + "\n")
    gone = [*PARENTS, *(dn for dn, _ in OTHERS.values())]
    for dn in gone:
        samba_dc.delete(dn)
    samba_dc._ldb("ldbadd", text="\n".join(objects))
    yield
    for dn in gone:
        samba_dc.delete(dn)


@pytest.fixture(scope="module")
def admin(samba_dc: SambaDc) -> Iterator[Directory]:
    with bound(samba_dc, samba_dc.administrator) as directory:
        yield directory


@pytest.mark.parametrize("port", [389, 3268])
def test_the_scps_of_other_products_are_found_wherever_they_are(
    samba_dc: SambaDc, port: int
) -> None:
    with bound(samba_dc, "others-client", port) as client:
        for keyword, (dn, bindings) in OTHERS.items():
            (found,) = client.find_scps([keyword.lower()])
            assert (found.dn, found.bindings) == (dn, bindings)
            assert found.object_guid is not None
            with pytest.raises(DirectoryError, match="no endpoint of the service is usable"):
                next(client.find_endpoints([keyword]))
        assert client.find_scps(["absent-keyword"]) == []
        (exchange,) = client.find_scps(service_class="MS-exchange-autodiscover-service")
        assert (exchange.dns_name, exchange.dns_name_type) == ("EX1", "")
        keyword = exchange.keywords[0]
        (endpoint,) = client.find_endpoints(
            [keyword], parse=lambda scp: [(scp.bindings[0].split("/")[2], 443)]
        )
        assert endpoint.address == ("mail.ad.test", 443)


def test_an_scp_of_ours_is_found_beside_an_incomplete_one(admin: Directory) -> None:
    ours = admin.publish_scp(SCP)
    try:
        assert [scp.dn for scp in admin.find_scps(["SMS-Site-ABC"])] == sorted(
            [ours.dn, OTHERS["SMS-Site-ABC"][0]]
        )
        assert [one.scp for one in admin.find_endpoints(["SMS-Site-ABC"])] == [ours]
        assert admin.find_scps(["SMS-Site-ABC"], service_class="Others") == [ours]
    finally:
        admin.remove_scp(ours)


def test_a_service_is_published_under_a_further_dns_name_of_its_host(
    samba_dc: SambaDc, admin: Directory
) -> None:
    with bound(samba_dc, "OTHERS1$") as computer:
        with pytest.raises(SpnValidatedWriteDeniedError):
            computer.write_account_spn(SpnOperation.ADD, "OTHERS1$", [f"others/{ALIAS}"])
        with pytest.raises(DirectoryError, match="computer object"):
            admin.publish_scp(replace(SCP, dns_name=ALIAS))
        samba_dc.modify(
            f"dn: CN=OTHERS1,CN=Computers,{BASE}\nchangetype: modify\n"
            f"add: msDS-AdditionalDnsHostName\nmsDS-AdditionalDnsHostName: {ALIAS}\n"
        )
        try:
            # Windows is documented to let a computer register names of its further hosts itself.
            with pytest.raises(SpnValidatedWriteDeniedError):
                computer.write_account_spn(SpnOperation.ADD, "OTHERS1$", [f"others/{ALIAS}"])
            admin.write_account_spn(SpnOperation.ADD, "OTHERS1$", [f"others/{ALIAS}"])
            assert f"others/{ALIAS}" in computer.find_account("OTHERS1$").spns
            scp = admin.publish_scp(replace(SCP, dns_name=ALIAS))
            assert scp.dn == f"CN=Others,CN=OTHERS1,CN=Computers,{BASE}"
            assert [one.host for one in admin.find_endpoints(SCP.keywords[1:])] == [ALIAS]
            admin.remove_scp(scp)
        finally:
            samba_dc.add_computer("OTHERS1")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


@pytest.mark.parametrize("kind", ["file", "redis"])
def test_one_spn_on_several_hosts_is_one_account_whose_keys_all_hosts_have(
    samba_dc: SambaDc, admin: Directory, redis: RedisServer, tmp_path: Path, kind: str
) -> None:
    spn = "HTTP/balanced-others.ad.test"
    samba_dc.add_user("svc-balanced")
    admin.write_account_spn(SpnOperation.ADD, "svc-balanced", [spn])
    exported = samba_dc.keytab(spn)
    hosts = [Keytab.load(shutil.copy(exported, tmp_path / name)) for name in ("one", "two")]
    alice = Credential.from_password(f"others-client@{samba_dc.realm}", samba_dc.password)
    client = KdcClient(samba_dc.config)

    def shared() -> ReplayCache:
        if kind == "redis":
            return RedisReplayCache(redis.url)
        return FileReplayCache(tmp_path / "shared")

    def own(count: Iterator[int] = iter(range(9))) -> ReplayCache:  # noqa: B008
        return FileReplayCache(tmp_path / f"own{next(count)}")

    def accepted(cache: Callable[[], ReplayCache]) -> list[bool]:
        """Whether each host takes one and the same token."""
        token = Initiator(client.get_ticket(alice, spn)).step(None)
        assert token is not None
        answers = []
        for keytab in hosts:
            acceptor = Acceptor(keytab, replay_cache=cache())
            try:
                acceptor.step(token)
                answers.append(str(acceptor.initiator) == f"others-client@{samba_dc.realm}")
            except ReplayError:
                answers.append(False)
        return answers

    assert accepted(shared) == [True, False]  # any host, and each token once
    hosts.reverse()
    assert accepted(shared) == [True, False]
    assert accepted(own) == [True, True]  # what caches of their own let an attacker do
