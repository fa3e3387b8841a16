"""Resource-based delegation, and the rest of S4U, at Samba of Debian 13, which has it. Only with PUREKRB_SOAK=1."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from purekrb import (
    Acceptor,
    Credential,
    DelegationRefusedError,
    Initiator,
    KdcClient,
    Principal,
    initiate,
)
from purekrb.constants import TicketFlags
from purekrb.replay import MemoryReplayCache
from support.debian13 import ManagingDc, chroot


@pytest.fixture(scope="module")
def dc() -> Iterator[ManagingDc]:
    """svc1 may act at svc2; svc3 lets svc2 act; svc4 has no right."""
    dc = ManagingDc(chroot())
    try:
        dc.samba_tool("user", "create", "alice", dc.password)
        for name in ("svc1", "svc2", "svc3", "svc4"):
            dc.samba_tool("computer", "create", name)
            dc.samba_tool("user", "setpassword", f"{name}$", f"--newpassword={dc.password}")
            dn = f"CN={name},CN=Computers,{dc.base}"
            dc.modify(dn, {"msDS-SupportedEncryptionTypes": "24"})
            dc.samba_tool("spn", "add", f"HTTP/{name}.{dc.domain}", f"{name}$")
        for name in ("svc1", "svc2"):
            dc.samba_tool("delegation", "for-any-protocol", f"{name}$", "on")
        dc.samba_tool("delegation", "add-service", "svc1$", f"HTTP/svc2.{dc.domain}")
        dc.samba_tool("delegation", "add-principal", "svc3$", "svc2$")
        yield dc
    finally:
        dc.stop()


def service(dc: ManagingDc, name: str) -> Credential:
    return Credential.from_password(f"{name}$@{dc.realm}", dc.password)


def spn(dc: ManagingDc, name: str) -> str:
    return f"HTTP/{name}.{dc.domain}"


def test_a_service_acts_where_the_resource_lets_it(dc: ManagingDc) -> None:
    client, own, alice = KdcClient(dc.config), service(dc, "svc2"), Principal(("alice",), dc.realm)
    evidence = client.impersonate(own, "alice")
    assert evidence.client == alice
    assert evidence.flags & TicketFlags.FORWARDABLE
    assert client.get_ticket(own, spn(dc, "svc3"), on_behalf_of=evidence).client == alice
    with pytest.raises(DelegationRefusedError, match="may not act for"):
        client.get_ticket(own, spn(dc, "svc4"), on_behalf_of=evidence)


def test_a_service_acts_where_its_own_account_may(dc: ManagingDc) -> None:
    client, own, alice = KdcClient(dc.config), service(dc, "svc1"), Principal(("alice",), dc.realm)
    evidence = client.impersonate(own, "alice")
    assert client.get_ticket(own, spn(dc, "svc2"), on_behalf_of=evidence).client == alice
    with pytest.raises(DelegationRefusedError, match="may not act for"):
        client.get_ticket(own, spn(dc, "svc3"), on_behalf_of=evidence)


def test_samba_wants_evidence_that_is_forwardable(dc: ManagingDc) -> None:
    client, own = KdcClient(dc.config), service(dc, "svc4")
    dc.samba_tool("delegation", "add-principal", "svc3$", "svc4$")
    evidence = client.impersonate(own, "alice")
    assert not evidence.flags & TicketFlags.FORWARDABLE
    with pytest.raises(DelegationRefusedError, match="not forwardable") as caught:
        client.get_ticket(own, spn(dc, "svc3"), on_behalf_of=evidence)
    assert caught.value.krb_error is not None


def test_an_acceptor_acts_for_its_client_at_a_resource(dc: ManagingDc) -> None:
    client, own = KdcClient(dc.config), service(dc, "svc2")
    alice = Credential.from_password(f"alice@{dc.realm}", dc.password)
    client.get_tgt(alice, forwardable=True)
    keytab = client.make_keytab(service(dc, "svc2"), f"{spn(dc, 'svc2')}@{dc.realm}")
    acceptor = Acceptor(keytab, tgt=own, replay_cache=MemoryReplayCache())
    acceptor.step(Initiator(client.get_ticket(alice, spn(dc, "svc2"))).step())
    onward = initiate(spn(dc, "svc3"), acceptor.delegated_credential, dc.config)
    back = Acceptor(
        client.make_keytab(service(dc, "svc3"), f"{spn(dc, 'svc3')}@{dc.realm}"),
        replay_cache=MemoryReplayCache(),
    )
    back.step(onward.step())
    assert str(back.initiator) == f"alice@{dc.realm}"


def test_user_to_user(dc: ManagingDc) -> None:
    client, own = KdcClient(dc.config), service(dc, "svc2")
    alice = Credential.from_password(f"alice@{dc.realm}", dc.password)
    theirs = client.get_tgt(own)
    ticket = client.get_ticket(alice, spn(dc, "svc2"), user_to_user=theirs)
    acceptor = Acceptor(tgt=own, replay_cache=MemoryReplayCache())
    acceptor.step(Initiator(ticket).step())
    assert str(acceptor.initiator) == f"alice@{dc.realm}"
    assert acceptor.identity.has_pac
