"""A client tries the endpoints of a service in turn, and stops at the first that answers and proves nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest

import purekrb
from purekrb import (
    Credential,
    KerberosError,
    Keytab,
    KeytabEntry,
    ServiceUnknownError,
    TransportError,
    crypto,
)
from purekrb.channel.blocking import Server
from purekrb.directory import ServiceConnectionPoint
from purekrb.directory.endpoints import Endpoint, connect_to_first, endpoints, resolve_srv
from purekrb.testing import Realm
from support.kdc_stubs import DnsStub, closed_port

HOSTS = ("a.example.test", "b.example.test")


@pytest.fixture
def realm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Realm]:
    look_up = socket.getaddrinfo

    def here(host: Any, *arguments: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host in HOSTS else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", "pw")
        yield realm


@pytest.fixture
def alice() -> Credential:
    return Credential.from_password("alice@EXAMPLE.TEST", "pw")


@pytest.fixture
def listening() -> Iterator[Callable[[Keytab], Server]]:
    """Starts servers that answer with their port."""
    servers: list[Server] = []

    def answer(server: Server) -> None:
        for channel in server:
            with channel:
                channel.send(str(server.address[1]).encode())

    def start(keytab: Keytab) -> Server:
        servers.append(purekrb.listen(("127.0.0.1", 0), keytab))
        threading.Thread(target=answer, args=(servers[-1],), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def endpoint(host: str, port: int) -> Endpoint:
    guid = UUID(int=HOSTS.index(host) + 1)
    dn = f"CN={host},DC=example,DC=test"
    scp = ServiceConnectionPoint(
        "scp", "ADSockAuth", host, (str(port),), ("k",), dn=dn, object_guid=guid
    )
    return Endpoint(host, port, scp)


A, B = (endpoint(host, 1).targets for host in HOSTS)


def test_where_nobody_answers_the_next_endpoint_is_tried(
    realm: Realm, alice: Credential, listening: Callable[[Keytab], Server]
) -> None:
    realm.add_service(A[0])
    port = listening(realm.add_service(B[0])).address[1]
    down = endpoint(HOSTS[0], closed_port())
    with connect_to_first([down, endpoint(HOSTS[1], port)], alice, realm.config) as channel:
        assert str(channel.context.acceptor) == f"{B[0]}@EXAMPLE.TEST"
        assert channel.recv() == str(port).encode()
    with pytest.raises(TransportError):
        connect_to_first([down], alice, realm.config)


@pytest.mark.parametrize("registered", [A[1], B[0], B[1]])
def test_where_the_kdc_does_not_know_a_name_the_next_one_is_asked_for(
    realm: Realm, alice: Credential, listening: Callable[[Keytab], Server], registered: str
) -> None:
    port = listening(realm.add_service(registered)).address[1]
    places = [endpoint(host, port) for host in HOSTS]
    with connect_to_first(places, alice, realm.config) as channel:
        assert str(channel.context.acceptor) == f"{registered}@EXAMPLE.TEST"
    with pytest.raises(ServiceUnknownError):
        connect_to_first(
            [place for place in places if registered not in place.targets], alice, realm.config
        )


def test_one_that_answers_and_does_not_prove_itself_ends_the_search(
    realm: Realm, alice: Credential, listening: Callable[[Keytab], Server]
) -> None:
    names = realm.add_service(A[0])
    keys = Keytab(
        KeytabEntry(k.principal, k.kvno, crypto.random_key(k.key.etype), k.timestamp) for k in names
    )
    impostor = endpoint(HOSTS[0], listening(keys).address[1])
    genuine = endpoint(HOSTS[1], listening(realm.add_service(B[0])).address[1])
    asked: list[Endpoint] = []

    def found() -> Iterator[Endpoint]:
        for place in (impostor, genuine):
            asked.append(place)
            yield place

    with pytest.raises(KerberosError) as refused:
        connect_to_first(found(), alice, realm.config)
    assert not isinstance(refused.value, TransportError | ServiceUnknownError)
    assert asked == [impostor]
    connect_to_first([genuine], alice, realm.config).close()


def test_srv_records_are_tried_in_their_order_and_the_name_holds_the_host_of_the_record(
    realm: Realm, alice: Credential, listening: Callable[[Keytab], Server]
) -> None:
    dn = "CN=all,CN=System,DC=example,DC=test"
    scp = ServiceConnectionPoint(
        "all",
        "ADSockAuth",
        "_s._tcp.example.test",
        ("unused",),
        ("k",),
        "SRV",
        dn=dn,
        object_guid=UUID(int=9),
    )
    port = listening(realm.add_service(f"ADSockAuth/{HOSTS[1]}/{dn}")).address[1]
    realm.add_service(f"ADSockAuth/{HOSTS[0]}/{dn}")
    records = [(HOSTS[0], closed_port()), (HOSTS[1], port)]
    with connect_to_first(endpoints([scp], lambda name: records), alice, realm.config) as channel:
        assert str(channel.context.acceptor) == f"ADSockAuth/{HOSTS[1]}/{dn}@EXAMPLE.TEST"
        assert channel.recv() == str(port).encode()


def test_no_endpoint_is_an_error(realm: Realm, alice: Credential) -> None:
    with pytest.raises(KerberosError, match="no endpoint"):
        connect_to_first([], alice, realm.config)


def test_srv_records_come_from_the_dns_by_priority_and_weight() -> None:
    zone = {
        "_sock._tcp.ad.test.": ["20 0 3002 spare.ad.test.", "10 0 3001 n1.ad.test.", "10 0 3001 ."]
    }
    name, dn = "_sock._tcp.ad.test", "CN=srv,DC=ad,DC=test"
    guid = UUID("a762885a-aa44-11d2-81f1-00c04fb9624e")
    srv = ServiceConnectionPoint(
        "srv", "ADSockAuth", name, ("unused",), ("k",), "SRV", dn=dn, object_guid=guid
    )
    with DnsStub(zone) as dns:
        assert resolve_srv("_sock._tcp.ad.test", dns.resolver) == [
            ("n1.ad.test", 3001),
            ("spare.ad.test", 3002),
        ]
        assert resolve_srv("_none._tcp.ad.test.", dns.resolver) == []
        resolve = partial(resolve_srv, resolver=dns.resolver)
        assert next(endpoints([srv], resolve)).targets[0] == f"ADSockAuth/n1.ad.test/{srv.dn}"
