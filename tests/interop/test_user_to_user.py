"""User-to-user with the KDCs of MIT, Heimdal and Samba: their tickets, and contexts on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    CCache,
    Credential,
    Initiator,
    KdcClient,
    KdcError,
    Principal,
    ProtocolError,
    initiate,
)
from purekrb.constants import ErrorCode
from purekrb.kdc.client import AsyncKdcClient
from purekrb.krb5conf.config import Config
from purekrb.messages.ap import Ticket
from purekrb.replay import MemoryReplayCache
from support.heimdal import HeimdalRealm
from support.mit import MitRealm
from support.samba import SambaDc


@dataclass(frozen=True)
class Peer:
    """A KDC, a client there, and an account that is met by its TGT."""

    config: Config
    client: Callable[[], Credential]
    other: Callable[[], Credential]
    #: The name by which the account is asked for.
    name: str


@pytest.fixture(params=["mit", "heimdal", "samba"])
def peer(request: pytest.FixtureRequest) -> Peer:
    if request.param == "mit":
        mit: MitRealm = request.getfixturevalue("mit_realm")
        return Peer(
            mit.config,
            lambda: Credential.from_password("pre@MIT.TEST", "prepw"),
            lambda: Credential.from_password("user@MIT.TEST", "userpw"),
            "user",
        )
    if request.param == "heimdal":
        heimdal: HeimdalRealm = request.getfixturevalue("heimdal_realm")
        return Peer(
            heimdal.config,
            lambda: Credential.from_password("pre@HEIM.TEST", "prepw"),
            lambda: Credential.from_password("user@HEIM.TEST", "userpw"),
            "user",
        )
    samba: SambaDc = request.getfixturevalue("samba_dc")
    samba.add_user("u2ualice")
    samba.add_computer("U2UHOST", servicePrincipalName="TERMSRV/u2uhost.ad.test")
    return Peer(
        samba.config,
        lambda: Credential.from_password("u2ualice@AD.TEST", samba.password),
        lambda: Credential.from_password("U2UHOST$@AD.TEST", samba.password),
        "TERMSRV/u2uhost.ad.test",
    )


def logged_in(peer: Peer) -> tuple[Credential, Any]:
    other = peer.other()
    return other, KdcClient(peer.config).get_tgt(other)


def acceptor_of(own: Credential, **options: Any) -> Acceptor:
    return Acceptor(tgt=own, replay_cache=MemoryReplayCache(), **options)


@pytest.mark.parametrize("world", ["blocking", "asyncio"])
def test_a_ticket_under_a_tgt_makes_a_context(peer: Peer, world: str) -> None:
    other, theirs = logged_in(peer)
    if world == "blocking":
        ticket = KdcClient(peer.config).get_ticket(peer.client(), peer.name, user_to_user=theirs)
    else:
        client = AsyncKdcClient(peer.config)
        ticket = asyncio.run(client.get_ticket(peer.client(), peer.name, user_to_user=theirs))
    assert ticket.is_skey
    assert not Ticket.decode(ticket.ticket).enc_part.kvno
    initiator, acceptor = Initiator(ticket), acceptor_of(other)
    initiator.step(acceptor.step(initiator.step()))
    assert (acceptor.initiator, acceptor.acceptor) == (peer.client().principal, other.principal)
    assert acceptor.identity.principal == acceptor.initiator  # with a PAC, it is genuine


@pytest.mark.parametrize("mechanism", ["user-to-user", "negotiate-user-to-user"])
def test_the_mechanism_makes_a_context(peer: Peer, mechanism: str) -> None:
    other, _ = logged_in(peer)
    initiator = initiate(peer.name, peer.client(), peer.config, mechanism=mechanism)
    acceptor = acceptor_of(other, service=peer.name if "/" in peer.name else None)
    token = initiator.step()
    while token is not None:
        token = acceptor.step(token)
        token = None if token is None else initiator.step(token)
    assert initiator.mutual
    assert acceptor.initiator == peer.client().principal


def test_the_tgt_of_another_is_refused(peer: Peer) -> None:
    client = peer.client()
    mine = KdcClient(peer.config).get_tgt(client)
    # Heimdal 7.8 gives a ticket for the owner of the TGT, whoever was asked for.
    with pytest.raises((KdcError, ProtocolError)):
        KdcClient(peer.config).get_ticket(client, peer.name, user_to_user=mine)
    _, theirs = logged_in(peer)
    assert KdcClient(peer.config).get_ticket(client, peer.name, user_to_user=theirs).is_skey


def test_who_takes_such_tickets_alone_is_told_of_by_mit(mit_realm: MitRealm) -> None:
    mit_realm.addprinc("u2uonly", "pw", flags="-allow_svr +allow_dup_skey")
    other = Credential.from_password("u2uonly@MIT.TEST", "pw")
    client, kdc = Credential.from_password("pre@MIT.TEST", "prepw"), KdcClient(mit_realm.config)
    with pytest.raises(KdcError, match="user-to-user tickets only") as caught:
        kdc.get_ticket(client, Principal(("u2uonly",), "MIT.TEST"))
    assert caught.value.code == ErrorCode.KDC_ERR_MUST_USE_USER2USER
    assert kdc.get_ticket(client, "u2uonly", user_to_user=kdc.get_tgt(other)).is_skey


def test_a_ticket_that_kvno_got_makes_a_context(mit_realm: MitRealm) -> None:
    path, theirs = mit_realm.kinit("pre"), mit_realm.kinit("user")
    mit_realm.kvno(path, "user@MIT.TEST", options=["--u2u", f"FILE:{theirs}"])
    (ticket,) = (ticket for ticket in CCache.load(path) if ticket.is_skey)
    acceptor = acceptor_of(Credential.from_ccache(str(theirs)))
    acceptor.step(Initiator(ticket).step())
    assert str(acceptor.initiator) == "pre@MIT.TEST"
