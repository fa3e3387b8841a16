"""S4U2Self and S4U2Proxy with the KDCs of MIT, Heimdal and Samba."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ClientUnknownError,
    Credential,
    DelegationRefusedError,
    Initiator,
    KdcClient,
    Keytab,
    Principal,
    initiate,
)
from purekrb.constants import NameType, TicketFlags
from purekrb.kdc.client import AsyncKdcClient
from purekrb.krb5conf.config import Config
from purekrb.records import replace
from purekrb.replay import MemoryReplayCache
from support.gss_peer import GssPeer
from support.heimdal import HeimdalRealm
from support.mit import MitRealm
from support.peers import missing_peer, run
from support.samba import SambaDc

S4U, WEB, HOST = "svc/s4u", "HTTP/s4u-web", "host/s4u-other"


@dataclass(frozen=True)
class Peer:
    """A KDC with a service that may act for users, and their names there."""

    name: str
    config: Config
    account: str
    keytab: Keytab
    back_keytab: Keytab
    user: str
    password: str
    #: The service's own name, one where it may act, and one where it may not.
    front: str
    back: str
    other: str

    def service(self) -> Credential:
        return Credential.from_keytab(self.account, self.keytab)


@pytest.fixture(scope="module")
def mit_peer(mit_realm: MitRealm) -> Peer:
    mit_realm.addprinc(S4U, flags="+ok_to_auth_as_delegate")
    for name in (WEB, HOST):
        mit_realm.addprinc(name)
    return Peer(
        "MIT",
        mit_realm.config,
        f"{S4U}@MIT.TEST",
        Keytab.load(mit_realm.keytab(S4U)),
        Keytab.load(mit_realm.keytab(WEB)),
        "pre@MIT.TEST",
        "prepw",
        S4U,
        WEB,
        HOST,
    )


@pytest.fixture(scope="module")
def heimdal_peer(heimdal_realm: HeimdalRealm) -> Peer:
    keytab = heimdal_realm.directory / "s4u.keytab"
    commands = []
    for name in (S4U, WEB, HOST):
        commands += [f"add --use-defaults --random-key {name}", f"ext_keytab -k {keytab} {name}"]
    heimdal_realm.kadmin(
        *commands,
        f"modify --attributes=+trusted-for-delegation {S4U}",
        f"modify --constrained-delegation={WEB}@HEIM.TEST {S4U}",
    )
    keys = Keytab.load(keytab)
    return Peer(
        "Heimdal",
        heimdal_realm.config,
        f"{S4U}@HEIM.TEST",
        keys,
        keys,
        "pre@HEIM.TEST",
        "prepw",
        S4U,
        WEB,
        HOST,
    )


@pytest.fixture(scope="module")
def samba_peer(samba_dc: SambaDc) -> Peer:
    samba_dc.add_user("s4ualice")
    front, back, other = (f"HTTP/{name}.ad.test" for name in ("s4ufront", "s4uback", "s4uother"))
    for name, spn in (("S4UFRONT", front), ("S4UBACK", back), ("S4UOTHER", other)):
        samba_dc.add_computer(name, servicePrincipalName=spn)
    samba_dc.samba_tool("delegation", "for-any-protocol", "S4UFRONT$", "on")
    samba_dc.samba_tool("delegation", "add-service", "S4UFRONT$", back)
    return Peer(
        "Samba",
        samba_dc.config,
        "S4UFRONT$@AD.TEST",
        Keytab.load(samba_dc.keytab("S4UFRONT$", front)),
        Keytab.load(samba_dc.keytab(back)),
        "s4ualice@AD.TEST",
        samba_dc.password,
        front,
        back,
        other,
    )


@pytest.fixture(params=["mit", "heimdal", "samba"])
def peer(request: pytest.FixtureRequest) -> Peer:
    found: Peer = request.getfixturevalue(f"{request.param}_peer")
    return found


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def call(config: Config, method: str, *args: Any, **options: Any) -> Any:
        if request.param == "blocking":
            return getattr(KdcClient(config), method)(*args, **options)
        return asyncio.run(getattr(AsyncKdcClient(config), method)(*args, **options))

    return call


def accepted(ticket_token: bytes | None, keytab: Keytab, **options: Any) -> Acceptor:
    acceptor = Acceptor(keytab, replay_cache=MemoryReplayCache(), **options)
    acceptor.step(ticket_token)
    return acceptor


def test_a_service_gets_a_ticket_of_a_user_who_is_not_there(
    peer: Peer, call: Callable[..., Any]
) -> None:
    own = peer.service()
    ticket = call(peer.config, "impersonate", own, peer.user)
    assert ticket.client == Principal.parse(peer.user)
    assert ticket.flags & TicketFlags.FORWARDABLE
    acceptor = accepted(Initiator(ticket).step(), peer.keytab)
    assert acceptor.initiator == Principal.parse(peer.user)
    assert [t.client for t in own.ccache] == [own.principal]
    with pytest.raises(ClientUnknownError):
        call(peer.config, "impersonate", own, "nosuchuser")


def test_a_service_acts_where_the_kdc_lets_it(peer: Peer, call: Callable[..., Any]) -> None:
    own = peer.service()
    evidence = call(peer.config, "impersonate", own, peer.user)
    if peer.name != "MIT":  # whose database of files has no rules for it
        ticket = call(peer.config, "get_ticket", own, peer.back, on_behalf_of=evidence)
        assert ticket.client == Principal.parse(peer.user)
        acceptor = accepted(Initiator(ticket).step(), peer.back_keytab)
        assert acceptor.initiator == Principal.parse(peer.user)
    for target in (peer.back,) if peer.name == "MIT" else (peer.other,):
        with pytest.raises(DelegationRefusedError, match="may not act for") as caught:
            call(peer.config, "get_ticket", own, target, on_behalf_of=evidence)
        assert caught.value.code == 13


def test_an_acceptor_acts_for_its_client(peer: Peer) -> None:
    user, client = Credential.from_password(peer.user, peer.password), KdcClient(peer.config)
    client.get_tgt(user, forwardable=True)
    token = Initiator(client.get_ticket(user, peer.front)).step()
    acting = accepted(token, peer.keytab, tgt=peer.service()).delegated_credential
    assert acting is not None
    # MIT's database of files has no rules for it, and Heimdal 7.8 only takes tickets by S4U2Self.
    if peer.name != "Samba":
        with pytest.raises(DelegationRefusedError, match="may not act for"):
            initiate(peer.back, acting, peer.config)
        return
    context = initiate(peer.back, acting, peer.config)
    assert accepted(context.step(), peer.back_keytab).initiator == Principal.parse(peer.user)
    with pytest.raises(DelegationRefusedError, match="may not act for"):
        initiate(peer.other, acting, peer.config)


def test_a_ticket_that_is_not_forwardable_is_no_evidence_for_samba_either(
    samba_peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = KdcClient(samba_peer.config)
    user = Credential.from_password(samba_peer.user, samba_peer.password)
    client.get_tgt(user, forwardable=False)
    evidence = client.get_ticket(user, samba_peer.front)
    own = samba_peer.service()
    with pytest.raises(DelegationRefusedError, match="not forwardable") as here:
        client.get_ticket(own, samba_peer.back, on_behalf_of=evidence)
    assert here.value.krb_error is None
    claimed = replace(evidence, by_s4u2self=True)  # so that the KDC is asked
    with pytest.raises(DelegationRefusedError, match="not forwardable") as there:
        client.get_ticket(own, samba_peer.back, on_behalf_of=claimed)
    assert there.value.krb_error is not None


@pytest.fixture(scope="module")
def mit_gss_at_samba(
    samba_dc: SambaDc, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GssPeer]:
    """MIT's GSS-API in the domain of Samba."""
    if importlib.util.find_spec("gssapi") is None:
        missing_peer("PyPI's gssapi", "libkrb5-dev")
    program = Path(__file__).parents[1] / "support" / "gssapi_peer.py"
    peer = GssPeer(
        "MIT",
        [sys.executable, str(program)],
        env=samba_dc.env,
        log=tmp_path_factory.mktemp("s4u-gss") / "log",
    )
    yield peer
    peer.stop()


def test_mits_library_acts_for_the_user_with_our_cache(
    samba_peer: Peer, mit_gss_at_samba: GssPeer, tmp_path: Path
) -> None:
    own = samba_peer.service()
    evidence = KdcClient(samba_peer.config).impersonate(
        own, samba_peer.user, service=samba_peer.account
    )
    Credential.on_behalf_of(own, evidence).save(tmp_path / "ccache")
    host = samba_peer.back.partition("/")[2]
    token = mit_gss_at_samba.initiate(f"HTTP@{host}", tmp_path / "ccache").step()
    assert accepted(token, samba_peer.back_keytab).initiator == Principal.parse(samba_peer.user)


def test_our_client_acts_for_the_user_with_a_cache_of_mits_library(
    samba_dc: SambaDc, samba_peer: Peer, mit_gss_at_samba: GssPeer, tmp_path: Path
) -> None:
    """A user's context with the service, which acts as its own account, made by MIT's library."""
    client, own = KdcClient(samba_peer.config), samba_peer.service()
    client.get_tgt(own, forwardable=True)
    own.save(tmp_path / "own")
    user = Credential.from_password(samba_peer.user, samba_peer.password)
    client.get_tgt(user, forwardable=True)
    samba_peer.keytab.save(tmp_path / "keytab")
    script = (
        "import base64, sys, gssapi\n"
        "creds = gssapi.Credentials(usage='both', store={'ccache': sys.argv[1], 'keytab': sys.argv[2]})\n"
        "context = gssapi.SecurityContext(creds=creds, usage='accept')\n"
        "context.step(base64.b64decode(sys.argv[3]))\n"
        "context.delegated_creds.store({'ccache': sys.argv[4]}, usage='initiate', overwrite=True)\n"
    )
    token = Initiator(client.get_ticket(user, samba_peer.front)).step() or b""
    paths = [f"FILE:{tmp_path / name}" for name in ("own", "keytab", "acting")]
    argv = [sys.executable, "-c", script, *paths[:2], base64.b64encode(token).decode(), paths[2]]
    run(argv, env=samba_dc.env)
    acting = Credential.from_ccache(paths[2])
    assert acting.impersonation is not None
    context = initiate(samba_peer.back, acting, samba_peer.config)
    found = accepted(context.step(), samba_peer.back_keytab)
    assert found.initiator == Principal.parse(samba_peer.user)
    with pytest.raises(DelegationRefusedError):
        initiate(samba_peer.other, acting, samba_peer.config)


def test_samba_finds_users_by_enterprise_names(samba_peer: Peer, call: Callable[..., Any]) -> None:
    own = samba_peer.service()
    name = Principal(("s4ualice@ad.test",), "", NameType.ENTERPRISE)
    ticket = call(samba_peer.config, "impersonate", own, name)
    # Samba puts the name into the ticket as it was asked for.
    assert ticket.client == replace(name, realm="AD.TEST")
    unknown = Principal(("nosuchuser@ad.test",), "", NameType.ENTERPRISE)
    with pytest.raises(ClientUnknownError):
        call(samba_peer.config, "impersonate", own, unknown)
