"""IAKERB between our own two sides, with the embedded KDC behind the service; both drafts' forms."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import purekrb
import purekrb.gss.iakerb
from purekrb import (
    Acceptor,
    Config,
    Credential,
    KdcClient,
    KdcError,
    Keytab,
    UnsupportedError,
    aio,
    initiate,
)
from purekrb.gss.iakerb import IakerbInitiator, Relay
from purekrb.messages.iakerb import Proxied
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm

WEB = "HTTP/web.example.test"
#: The client's configuration: it knows no KDC, and asks no DNS.
NOWHERE = Config(default_realm="EXAMPLE.TEST", domain_realm={"web.example.test": "EXAMPLE.TEST"})


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", "pw")
        yield realm


@pytest.fixture(scope="module")
def keytab(realm: Realm) -> Keytab:
    return realm.add_service(WEB, ok_as_delegate=True)


@pytest.fixture
def relay(realm: Realm) -> Relay:
    return KdcClient(realm.config).relay


def alice() -> Credential:
    return Credential.from_password("alice@EXAMPLE.TEST", "pw")


def client(**options: Any) -> IakerbInitiator:
    context = initiate(
        WEB, options.pop("credential", None) or alice(), NOWHERE, mechanism="iakerb", **options
    )
    assert isinstance(context, IakerbInitiator)
    return context


def service(keytab: Keytab, relay: Relay | None) -> Acceptor:
    return Acceptor(keytab, relay=relay, replay_cache=MemoryReplayCache())


def handshake(ours: IakerbInitiator, theirs: Acceptor) -> list[bytes]:
    """Carry the tokens to and fro; return the client's."""
    sent: list[bytes] = []
    token = ours.step()
    while token is not None:
        sent.append(token)
        answer = theirs.step(token)
        token = None if answer is None else ours.step(answer)
    assert ours.established
    assert theirs.established
    return sent


@pytest.mark.parametrize("as_mit", [True, False], ids=["mit", "kitten"])
def test_a_client_gets_its_tickets_through_the_service(
    keytab: Keytab, relay: Relay, as_mit: bool
) -> None:
    ours, theirs = client(), service(keytab, relay)
    ours._conversation.as_mit = as_mit
    sent = handshake(ours, theirs)
    assert len(sent) == 4  # two AS-REQs, a TGS-REQ, the AP-REQ
    assert [token[:1] == b"\x60" for token in sent] == [True, not as_mit, not as_mit, True]
    assert ours.mutual
    assert str(theirs.initiator) == "alice@EXAMPLE.TEST"
    assert theirs.unwrap(ours.wrap(b"sealed")) == b"sealed"


def test_tickets_that_are_there_are_used(keytab: Keytab, relay: Relay, realm: Realm) -> None:
    credential = alice()
    KdcClient(realm.config).get_ticket(credential, WEB)
    ours = client(credential=credential)
    assert len(handshake(ours, service(keytab, relay))) == 1


def test_a_tgt_is_delegated(keytab: Keytab, relay: Relay) -> None:
    ours, theirs = client(delegate=True), service(keytab, relay)
    handshake(ours, theirs)
    delegated = theirs.delegated_credential
    assert delegated is not None
    assert str(delegated.principal) == "alice@EXAMPLE.TEST"


def test_a_service_without_a_relay_says_so(keytab: Keytab, relay: Relay) -> None:
    ours = client()
    with pytest.raises(UnsupportedError, match=r"IAKERB.*relay=KdcClient"):
        service(keytab, None).step(ours.step())
    handshake(client(), service(keytab, relay))


def test_a_realm_that_the_service_does_not_know_is_not_asked(keytab: Keytab, realm: Realm) -> None:
    other = Config(realms={"OTHER.TEST": realm.config.realms["EXAMPLE.TEST"]})
    ours, theirs = client(), service(keytab, KdcClient(other).relay)
    token = theirs.step(ours.step())
    with pytest.raises(KdcError, match="passes no requests on to this realm"):
        ours.step(token)


def test_a_kdc_that_does_not_answer_is_told_as_that(keytab: Keytab) -> None:
    dead = Config(realms={"EXAMPLE.TEST": ["tcp://127.0.0.1:1"]}, default_realm="EXAMPLE.TEST")
    ours, theirs = client(), service(keytab, KdcClient(dead, timeout=2).relay)
    token = theirs.step(ours.step())
    with pytest.raises(KdcError, match="no KDC answered the service"):
        ours.step(token)


def test_the_service_tells_its_realm(keytab: Keytab, relay: Relay) -> None:
    asked = purekrb.gss.iakerb.Conversation().write("", None, b"", framed=True)
    answer = service(keytab, relay).step(asked)
    assert answer is not None
    assert Proxied.decode(answer[2:]) == Proxied("EXAMPLE.TEST", None, b"", True)


def test_channels(keytab: Keytab, relay: Relay) -> None:
    with purekrb.listen(("127.0.0.1", 0), keytab, relay=relay) as server:
        received: list[bytes] = []

        def serve() -> None:
            channel = next(iter(server))
            with channel:
                received.append(channel.recv())
                channel.send(str(channel.context.initiator).encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with purekrb.connect(server.address, WEB, alice(), NOWHERE, mechanism="iakerb") as channel:
            channel.send(b"hello")
            assert channel.recv() == b"alice@EXAMPLE.TEST"
        thread.join(10)
        assert received == [b"hello"]


def test_channels_of_asyncio(keytab: Keytab, relay: Relay) -> None:
    async def handle(channel: Any) -> None:
        await channel.send(str(channel.context.initiator).encode())

    async def main() -> bytes:
        server = await aio.start_server(handle, ("127.0.0.1", 0), keytab, relay=relay)
        connecting = aio.connect(server.address, WEB, alice(), NOWHERE, mechanism="iakerb")
        async with server, await connecting as channel:
            return bytes(await channel.recv())

    assert asyncio.run(main()) == b"alice@EXAMPLE.TEST"
