"""User-to-user with the embedded KDC: tickets under a TGT, and the contexts of both forms."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    CCache,
    ContextError,
    Credential,
    CredentialError,
    DelegationRefusedError,
    Flag,
    Initiator,
    KdcClient,
    KdcError,
    Keytab,
    PolicyError,
    Principal,
    ServiceTicket,
    connect,
    initiate,
    listen,
)
from purekrb.constants import ErrorCode
from purekrb.kdc.client import AsyncKdcClient, initiate_async
from purekrb.messages.ap import Ticket
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm

R = "EXAMPLE.TEST"
ALICE, BOB = Principal(("alice",), R), Principal(("bob",), R)
Call = Callable[..., Any]


@pytest.fixture
def realm() -> Iterator[Realm]:
    with Realm(R, domain_sid="S-1-5-21-1-2-3") as realm:
        realm.add_user("alice", "pw")
        realm.add_user("bob", "pw", user_to_user=True)
        realm.add_service("HTTP/web.example.test")
        yield realm


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest, realm: Realm) -> Call:
    def call(method: str, *args: Any, **options: Any) -> Any:
        if request.param == "blocking":
            return getattr(KdcClient(realm.config), method)(*args, **options)
        return asyncio.run(getattr(AsyncKdcClient(realm.config), method)(*args, **options))

    return call


def user(name: str) -> Credential:
    return Credential.from_password(f"{name}@{R}", "pw")


@pytest.fixture
def bob(realm: Realm) -> Credential:
    """Bob, who has logged in."""
    bob = user("bob")
    KdcClient(realm.config).get_tgt(bob)
    return bob


def tgt_of(credential: Credential) -> ServiceTicket:
    (tgt,) = (ticket for ticket in credential.ccache if ticket.is_tgt)
    return tgt


def acceptor_of(own: Credential | None, **options: Any) -> Acceptor:
    keys = options.pop("keytab", None)
    return Acceptor(keys, tgt=own, replay_cache=MemoryReplayCache(), **options)


def talk(initiator: Initiator, acceptor: Acceptor) -> int:
    """Drive both sides; return the number of tokens."""
    tokens, token = 0, initiator.step()
    while token is not None:
        tokens += 1
        token = acceptor.step(token)
        if token is not None:
            tokens += 1
            token = initiator.step(token)
    assert initiator.established
    assert acceptor.established
    assert acceptor.unwrap(initiator.wrap(b"sealed")) == b"sealed"
    assert initiator.unwrap(acceptor.wrap(b"sealed")) == b"sealed"
    return tokens


# -- the exchange with the KDC


def test_a_ticket_is_under_the_session_key_of_the_other_sides_tgt(
    bob: Credential, call: Call
) -> None:
    alice, theirs = user("alice"), tgt_of(bob)
    for given in (theirs, theirs.ticket):
        ticket = call("get_ticket", alice, "bob", user_to_user=given)
        assert (ticket.client, ticket.service) == (ALICE, BOB)
        assert (ticket.is_skey, ticket.second_ticket) == (True, theirs.ticket)
        enc_part = Ticket.decode(ticket.ticket).enc_part
        assert (enc_part.kvno, enc_part.etype) == (None, theirs.session_key.etype)
    assert len(alice.ccache) == 2  # the TGT, and the ticket, which was found again
    assert alice.ccache.find(BOB) is None  # it is no usual ticket


def test_who_takes_such_tickets_alone_is_told_of(call: Call, bob: Credential) -> None:
    with pytest.raises(KdcError, match=r"user-to-user tickets only.*user_to_user=") as caught:
        call("get_ticket", user("alice"), BOB)
    assert caught.value.code == ErrorCode.KDC_ERR_MUST_USE_USER2USER
    assert call("get_ticket", user("alice"), "bob", user_to_user=tgt_of(bob)).is_skey


def test_constrained_delegation_to_such_a_user_is_refused_in_words(
    realm: Realm, call: Call
) -> None:
    realm.add_service(
        "HTTP/front.example.test", delegate_to=["HTTP/peer.example.test"], trusted_to_auth=True
    )
    front = Credential.from_keytab(
        f"HTTP/front.example.test@{R}", realm.keytab("HTTP/front.example.test")
    )
    realm.add_alias("HTTP/peer.example.test", "bob")
    evidence = call("impersonate", front, "alice")
    with pytest.raises(DelegationRefusedError, match="takes user-to-user tickets only"):
        call("get_ticket", front, "HTTP/peer.example.test", on_behalf_of=evidence)


def test_the_tgt_must_be_that_of_the_service(realm: Realm, call: Call, bob: Credential) -> None:
    realm.add_user("carol", "pw")
    carol = user("carol")
    KdcClient(realm.config).get_tgt(carol)
    with pytest.raises(KdcError, match="belongs to another account") as caught:
        call("get_ticket", user("alice"), "bob", user_to_user=tgt_of(carol))
    assert caught.value.code == ErrorCode.KDC_ERR_SERVER_NOMATCH
    usual = KdcClient(realm.config).get_ticket(bob, "HTTP/web.example.test")
    with pytest.raises(CredentialError, match="needs the TGT of bob"):
        call("get_ticket", user("alice"), "bob", user_to_user=usual)
    with pytest.raises(CredentialError, match="needs a TGT of that realm"):
        call("get_ticket", user("alice"), "bob@OTHER.TEST", user_to_user=tgt_of(bob))


def test_a_user_of_another_realm_is_met_there(realm: Realm, call: Call) -> None:
    with Realm("OTHER.TEST") as other:
        other.add_user("dave", "pw")
        other.trust(realm)
        dave = Credential.from_password("dave@OTHER.TEST", "pw")
        KdcClient(other.config).get_tgt(dave)
        ticket = call("get_ticket", user("alice"), "dave@OTHER.TEST", user_to_user=tgt_of(dave))
        assert str(ticket.service) == "dave@OTHER.TEST"
        initiator = Initiator(ticket)
        assert talk(initiator, acceptor_of(dave)) == 2


# -- the AP exchange


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
def test_a_context_by_a_tgt_that_was_passed_on_by_the_application(
    realm: Realm, bob: Credential, mechanism: str
) -> None:
    ticket = KdcClient(realm.config).get_ticket(user("alice"), "bob", user_to_user=tgt_of(bob))
    acceptor = acceptor_of(bob)
    assert talk(Initiator(ticket, mechanism=mechanism), acceptor) == 2
    assert (acceptor.initiator, acceptor.acceptor) == (ALICE, BOB)
    assert acceptor.identity.name == "alice"  # the PAC is signed with the session key
    assert acceptor.delegated_credential is None


def test_keys_and_a_tgt_serve_side_by_side(realm: Realm, bob: Credential) -> None:
    keytab = realm.keytab("HTTP/web.example.test")
    client, alice = KdcClient(realm.config), user("alice")
    usual = client.get_ticket(alice, "HTTP/web.example.test")
    under = client.get_ticket(alice, "bob", user_to_user=tgt_of(bob))
    for ticket, name in ((usual, f"HTTP/web.example.test@{R}"), (under, str(BOB))):
        acceptor = acceptor_of(bob, keytab=keytab)
        talk(Initiator(ticket), acceptor)
        assert str(acceptor.acceptor) == name


# -- the mechanism


@pytest.mark.parametrize("mechanism", ["user-to-user", "negotiate-user-to-user"])
def test_the_mechanism_asks_for_the_tgt_by_itself(
    realm: Realm, bob: Credential, mechanism: str
) -> None:
    initiator = initiate("bob", user("alice"), realm.config, mechanism=mechanism)
    acceptor = acceptor_of(bob)
    assert talk(initiator, acceptor) == 4
    assert (acceptor.initiator, initiator.acceptor) == (ALICE, BOB)
    assert initiator.mutual


@pytest.mark.parametrize("mechanism", ["user-to-user", "negotiate-user-to-user"])
def test_the_mechanism_in_asyncio(realm: Realm, bob: Credential, mechanism: str) -> None:
    async def both() -> Acceptor:
        initiator = await initiate_async("bob", user("alice"), realm.config, mechanism=mechanism)
        acceptor, token = acceptor_of(bob), initiator.step()
        while token is not None:
            token = acceptor.step(token)
            if token is not None:
                token = await asyncio.to_thread(initiator.step, token)
        assert initiator.established
        return acceptor

    assert asyncio.run(both()).initiator == ALICE


def test_the_event_loop_does_not_wait_for_a_kdc(realm: Realm, bob: Credential) -> None:
    async def careless() -> None:
        initiator = await initiate_async(
            "bob", user("alice"), realm.config, mechanism="user-to-user"
        )
        initiator.step(acceptor_of(bob).step(initiator.step()))

    with pytest.raises(ContextError, match=r"await asyncio\.to_thread"):
        asyncio.run(careless())


@pytest.mark.parametrize("world", ["blocking", "asyncio"])
def test_a_channel_to_a_user(realm: Realm, bob: Credential, world: str) -> None:
    with listen(("127.0.0.1", 0), None, tgt=bob, replay_cache=MemoryReplayCache()) as server:
        thread = threading.Thread(target=_echo, args=(server,))
        thread.start()
        options: dict[str, Any] = {"mechanism": "user-to-user"}
        if world == "blocking":
            with connect(server.address, "bob", user("alice"), realm.config, **options) as channel:
                channel.send(b"hello")
                assert channel.recv() == b"hello"
        else:
            assert asyncio.run(_talk(server.address, realm, options)) == b"hello"
        thread.join(10)


def _echo(server: Any) -> None:
    with next(server) as channel:
        channel.send(channel.recv())


async def _talk(address: Any, realm: Realm, options: dict[str, Any]) -> Any:
    from purekrb import aio

    channel = await aio.connect(address, "bob", user("alice"), realm.config, **options)
    async with channel:
        await channel.send(b"hello")
        return await channel.recv()


def test_a_context_goes_on_with_the_tgt_that_was_shown(realm: Realm, bob: Credential) -> None:
    initiator, acceptor = (
        initiate("bob", user("alice"), realm.config, mechanism="user-to-user"),
        None,
    )
    acceptor = acceptor_of(bob)
    shown = acceptor.step(initiator.step())
    KdcClient(realm.config).get_tgt(bob)  # the credential has another one by now
    initiator.step(acceptor.step(initiator.step(shown)))
    assert acceptor.initiator == ALICE


def test_without_mutual_authentication_the_service_is_proved_by_the_messages(
    realm: Realm, bob: Credential
) -> None:
    flags = Flag.DEFAULT & ~Flag.MUTUAL
    initiator = initiate("bob", user("alice"), realm.config, flags=flags, mechanism="user-to-user")
    assert talk(initiator, acceptor_of(bob, require=Flag(0))) == 3


def test_an_acceptor_without_a_tgt_says_so_to_both_sides(realm: Realm) -> None:
    initiator = initiate("bob", user("alice"), realm.config, mechanism="user-to-user")
    acceptor = acceptor_of(user("bob"))
    token = initiator.step()
    with pytest.raises(ApError, match=r"asks for the TGT of bob.*get one first") as caught:
        acceptor.step(token)
    assert caught.value.code == ErrorCode.KRB_AP_ERR_NO_TGT
    assert caught.value.response is not None
    with pytest.raises(ApError, match="no TGT for user-to-user authentication: it must log in"):
        initiator.step(caught.value.response)


def test_a_client_that_asks_for_another_is_refused(realm: Realm, bob: Credential) -> None:
    realm.add_user("carol", "pw")
    carol = user("carol")
    KdcClient(realm.config).get_tgt(carol)
    for options, accepts in (
        ({}, False),
        ({"service": f"bob@{R}"}, True),
        ({"keytab": Keytab.from_password(f"bob@{R}", "pw")}, True),
    ):
        acceptor = acceptor_of(carol, **options)
        token = initiate("bob", user("alice"), realm.config, mechanism="user-to-user").step()
        if accepts:
            assert acceptor.step(token) is not None
        else:
            with pytest.raises(ApError, match=r"asks for bob, but this acceptor is carol"):
                acceptor.step(token)


def test_no_tgt_is_handed_over(realm: Realm) -> None:
    with pytest.raises(PolicyError, match="hands over no TGT"):
        initiate("bob", user("alice"), realm.config, delegate=True, mechanism="user-to-user")


def test_a_cache_keeps_such_tickets(realm: Realm, bob: Credential, tmp_path: Any) -> None:
    client, alice = KdcClient(realm.config), user("alice")
    client.get_ticket(alice, "bob", user_to_user=tgt_of(bob))
    alice.save(tmp_path / "ccache")
    (kept,) = (ticket for ticket in CCache.load(tmp_path / "ccache") if ticket.is_skey)
    assert talk(Initiator(kept), acceptor_of(bob)) == 2


def test_an_acceptor_needs_keys_or_a_tgt(bob: Credential) -> None:
    with pytest.raises(TypeError, match="Acceptor takes keys, not NoneType"):
        Acceptor()
    Acceptor(tgt=bob).close()
