"""Connections that the caller opens: a SOCKS proxy that alone knows the hosts, and what goes wrong there."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import purekrb
from purekrb import Config, Credential, KdcClient, TransportError, UnsupportedError, aio
from purekrb.directory import Directory
from purekrb.errors import TransportTimeoutError
from purekrb.krb5conf.config import KdcAddress, RealmConfig
from purekrb.testing import Realm
from purekrb.testing.kdc_proxy import KdcProxy
from support.kdc_stubs import TcpStub, UdpStub
from support.ldap_stub import LdapStub
from support.socks import SocksStub, socks_connector

WEB = "HTTP/web.r.test"
#: Hosts that no resolver knows: only the proxy does.
KDC, SERVICE, DC = "kdc.inside.invalid", "web.inside.invalid", "dc1.inside.invalid"

OpenConnection = Callable[..., Any]


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("R.TEST") as realm:
        realm.add_user("alice", "pw")
        realm.add_service(WEB)
        realm.add_service(f"ldap/{DC}")
        yield realm


@pytest.fixture
def socks(realm: Realm) -> Iterator[SocksStub]:
    with SocksStub({KDC: realm.port}) as stub:
        yield stub


def alice() -> Credential:
    return Credential.from_password("alice@R.TEST", "pw")


def inside(realm: Realm, *kdcs: str) -> Config:
    """Return a configuration with these KDCs, which are behind the proxy."""
    addresses = tuple(map(KdcAddress.parse, kdcs or (KDC,)))
    servers = RealmConfig(kdc=addresses, kpasswd_server=addresses)
    return replace(realm.config, realms={"R.TEST": servers})


class Face:
    """Both clients, called in one way, with an `open_connection` of either kind."""

    def __init__(self, name: str) -> None:
        self.asyncio = name != "blocking"
        self._streams = name == "streams"

    def adapted(self, blocking: OpenConnection) -> OpenConnection:
        """Return the same for this client."""
        if not self.asyncio:
            return blocking

        async def open_connection(host: str, port: int) -> Any:
            sock = await asyncio.to_thread(blocking, host, port, 5.0)
            return await asyncio.open_connection(sock=sock) if self._streams else sock

        return open_connection

    def call(
        self, config: Config, blocking: OpenConnection, method: str, *args: Any, **options: Any
    ) -> Any:
        open_connection = self.adapted(blocking)
        if not self.asyncio:
            client = KdcClient(config, open_connection=open_connection, **options)
            return getattr(client, method)(*args)

        async def run() -> Any:
            client = aio.KdcClient(config, open_connection=open_connection, **options)
            return await getattr(client, method)(*args)

        return asyncio.run(run())


@pytest.fixture(params=["blocking", "asyncio", "streams"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


# -- where it is used ------------------------------------------------------------------------------


def test_kdcs_are_reached_through_a_proxy_that_looks_up_their_names(
    face: Face, realm: Realm, socks: SocksStub
) -> None:
    ticket = face.call(inside(realm), socks_connector(socks), "get_ticket", alice(), WEB)
    assert str(ticket.service) == f"{WEB}@R.TEST"
    assert socks.asked == [(KDC, 88)] * 3
    with pytest.raises(TransportError, match="name lookup failed"):
        KdcClient(inside(realm)).get_tgt(alice())


def test_a_password_is_changed_through_a_proxy(face: Face, socks: SocksStub) -> None:
    with Realm("R.TEST") as realm:
        realm.add_user("alice", "pw")
        socks.network = {KDC: realm.port}
        face.call(inside(realm), socks_connector(socks), "change_password", alice(), "new password")
        new = Credential.from_password("alice@R.TEST", "new password")
        assert KdcClient(realm.config).get_tgt(new)
        gone = inside(realm, "gone.inside.invalid", "udp/kdc.inside.invalid", KDC)
        face.call(gone, socks_connector(socks), "change_password", new, "newer password")
        server = (KdcAddress("gone.inside.invalid", 464),)
        nowhere = replace(
            gone, realms={"R.TEST": replace(gone.realm("R.TEST"), kpasswd_server=server)}
        )
        newer = Credential.from_password("alice@R.TEST", "newer password")
        with pytest.raises(TransportError, match=r"SOCKS proxy says 4.*Nothing was changed"):
            face.call(nowhere, socks_connector(socks), "change_password", newer, "newest password")


def test_udp_is_not_used_and_a_kdc_that_has_no_other_is_told(
    face: Face, realm: Realm, socks: SocksStub
) -> None:
    with UdpStub(lambda stub, data, client: None) as udp:
        hosts = (f"udp://{udp.host}:{udp.port}", KDC)
        assert face.call(inside(realm, *hosts), socks_connector(socks), "get_tgt", alice())
        with pytest.raises(UnsupportedError, match=r"udp://.*configure one with TCP"):
            face.call(inside(realm, hosts[0]), socks_connector(socks), "get_tgt", alice())
        assert udp.received == []
    assert {port for _, port in socks.asked} == {88}


def test_a_kdc_proxy_may_be_behind_a_socks_proxy(
    face: Face, realm: Realm, socks: SocksStub
) -> None:
    with KdcProxy(realm) as gateway:
        address = KdcAddress.parse(gateway.url)
        socks.network = {"localhost": address.port}
        before = gateway.requests
        assert face.call(gateway.config, socks_connector(socks), "get_tgt", alice())
        assert gateway.requests == before + 2
    assert socks.asked == [("localhost", address.port)] * 2


def test_initiate_and_connect_take_it_in_both_worlds(realm: Realm, socks: SocksStub) -> None:
    connector, config = socks_connector(socks), inside(realm)
    assert purekrb.initiate(WEB, alice(), config, open_connection=connector).step()

    async def connector_async(host: str, port: int) -> Any:
        return await asyncio.open_connection(sock=await asyncio.to_thread(connector, host, port, 5))

    async def run(port: int) -> bytes | None:
        context = await aio.initiate(WEB, alice(), config, open_connection=connector_async)
        assert context.step()
        async with await aio.connect(
            (SERVICE, 4711), WEB, alice(), config, open_connection=connector_async
        ) as channel:
            await channel.send(b"x" * 300_000)
            return await channel.recv()

    with purekrb.listen(("127.0.0.1", 0), realm.keytab(WEB)) as server:

        def serve() -> None:
            for channel in server:
                with channel, contextlib.suppress(TransportError):
                    while message := channel.recv(10):
                        channel.send(message)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        socks.network = {KDC: realm.port, SERVICE: server.address[1]}
        with purekrb.connect(
            (SERVICE, 4711), WEB, alice(), config, open_connection=connector
        ) as channel:
            channel.send(b"through the tunnel")
            assert channel.recv(10) == b"through the tunnel"
        assert (SERVICE, 4711) in socks.asked
        assert asyncio.run(run(server.address[1])) == b"x" * 300_000
        with pytest.raises(TransportError, match=r"cannot connect to gone.*SOCKS proxy says 4"):
            purekrb.connect(("gone.invalid", 1), WEB, alice(), config, open_connection=connector)
    thread.join(10)


def test_a_directory_is_reached_through_a_proxy(realm: Realm, socks: SocksStub) -> None:
    with LdapStub(realm.keytab(f"ldap/{DC}")) as stub:
        socks.network = {KDC: realm.port, DC: stub.port}
        config = replace(inside(realm), domain_realm={DC: "R.TEST"})
        connector = socks_connector(socks)
        with Directory.connect(
            f"ldap://{DC}", alice(), config, f"ldap/{DC}", open_connection=connector
        ) as directory:
            assert (DC, 389) in socks.asked
            assert directory._session.base_dn == "DC=example,DC=test"
        assert "searchRequest" in stub.names()
        assert str(stub.contexts[0].initiator) == "alice@R.TEST"
        with pytest.raises(TransportError, match="SOCKS proxy says 4"):
            Directory.connect(
                "ldap://gone.invalid",
                alice(),
                config,
                f"ldap/{DC}",
                open_connection=socks_connector(socks),
            )


def test_verify_credentials_takes_it(realm: Realm, socks: SocksStub) -> None:
    name = purekrb.verify_credentials(
        alice(), realm.keytab(WEB), config=inside(realm), open_connection=socks_connector(socks)
    )
    assert str(name) == "alice@R.TEST"


def test_a_program_that_speaks_on_its_standard_streams_is_a_tunnel(realm: Realm) -> None:
    """As `ssh -W` does. The connection is one end of a socketpair."""
    relaying = (
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def out():\n"
        "    while data := s.recv(65536): os.write(1, data)\n"
        "threading.Thread(target=out, daemon=True).start()\n"
        "while data := os.read(0, 65536): s.sendall(data)\n"
    )
    programs = []

    def open_connection(host: str, port: int, timeout: float) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", relaying, "127.0.0.1", str(realm.port)]
            programs.append(subprocess.Popen(command, stdin=theirs, stdout=theirs))
        return ours

    client = KdcClient(inside(realm), open_connection=open_connection)
    assert client.get_ticket(alice(), WEB)
    assert [program.wait(10) for program in programs] == [0] * 3


# -- what goes wrong -------------------------------------------------------------------------------


class ProxyError(Exception):
    """As the errors of libraries, it is no OSError."""


def raising(error: BaseException) -> OpenConnection:
    def open_connection(host: str, port: int, timeout: float = 0) -> Any:
        raise error

    return open_connection


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(111, "Connection refused"), "open_connection failed: Connection refused"),
        (TimeoutError("too late"), "open_connection failed: too late"),
        (ProxyError("no\nroute\x1b"), r"open_connection failed: ProxyError: no\\nroute\\x1b"),
        (ProxyError(""), "open_connection failed: ProxyError"),
        (KeyError("host"), "open_connection failed: KeyError: 'host'"),
    ],
)
def test_an_error_of_open_connection_is_that_of_one_kdc(
    face: Face, realm: Realm, socks: SocksStub, error: BaseException, text: str
) -> None:
    with pytest.raises(TransportError, match=text):
        face.call(inside(realm), raising(error), "get_tgt", alice())
    through = socks_connector(socks)

    def second_time(host: str, port: int, timeout: float) -> Any:
        if host == "first.invalid":
            raise error
        return through(host, port, timeout)

    config = inside(realm, "first.invalid", KDC)
    assert face.call(config, second_time, "get_tgt", alice())


def test_a_silent_tunnel_does_not_hold_up_the_next_kdc_nor_the_deadline(
    realm: Realm, socks: SocksStub
) -> None:
    through = socks_connector(socks)
    late = threading.Event()
    opened: list[socket.socket] = []
    other_ends: list[socket.socket] = []

    def silent(host: str, port: int, timeout: float) -> Any:
        if host == KDC:
            return through(host, port, timeout)
        late.wait(20)
        ours, theirs = socket.socketpair()
        other_ends.append(theirs)
        opened.append(ours)
        return ours

    try:
        begin = time.monotonic()
        assert KdcClient(inside(realm, "silent.invalid", KDC), open_connection=silent).get_tgt(
            alice()
        )
        assert time.monotonic() - begin < 8
        with pytest.raises(TransportTimeoutError, match=r"silent\.invalid.*no answer"):
            KdcClient(inside(realm, "silent.invalid"), open_connection=silent, timeout=0.5).get_tgt(
                alice()
            )
    finally:
        late.set()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (
        len(opened) < 3 or any(sock.fileno() >= 0 for sock in opened)
    ):
        time.sleep(0.01)
    assert [sock.fileno() for sock in opened] == [-1] * 3  # what comes too late is closed
    for end in other_ends:
        end.close()


def test_a_silent_coroutine_does_not_hold_up_the_next_kdc_nor_the_deadline(
    realm: Realm, socks: SocksStub
) -> None:
    through = Face("streams").adapted(socks_connector(socks))
    cancelled: list[str] = []

    async def silent(host: str, port: int) -> Any:
        if host == KDC:
            return await through(host, port)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(host)
            raise

    async def run(*hosts: str, timeout: float = 10.0) -> None:
        config = inside(realm, *hosts)
        await aio.KdcClient(config, open_connection=silent, timeout=timeout).get_tgt(alice())

    begin = time.monotonic()
    asyncio.run(run("silent.invalid", KDC))
    assert time.monotonic() - begin < 8
    with pytest.raises(TransportTimeoutError, match=r"silent\.invalid.*no answer"):
        asyncio.run(run("silent.invalid", timeout=0.5))
    assert cancelled == ["silent.invalid"] * 3


def test_the_time_that_is_left_is_told(realm: Realm, socks: SocksStub) -> None:
    told: list[float] = []

    def noted(host: str, port: int, timeout: float) -> Any:
        told.append(timeout)
        return socks_connector(socks)(host, port, timeout)

    KdcClient(inside(realm), open_connection=noted, timeout=7).get_tgt(alice())
    config = replace(inside(realm), kdc_timeout=2)
    KdcClient(config, open_connection=noted, timeout=7).get_tgt(alice())
    assert 0 < told[1] <= told[0] <= 7
    assert 0 < told[-1] <= 2


@pytest.mark.parametrize("kind", ["nothing", "streams", "tls"])
def test_what_is_no_socket_is_the_callers_mistake(realm: Realm, kind: str) -> None:
    ends: list[Any] = []

    def open_connection(host: str, port: int, timeout: float) -> Any:
        if kind == "nothing":
            return None
        ends.extend(socket.socketpair())
        if kind == "streams":
            return ends[0].makefile("rwb")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return context.wrap_socket(ends[0], server_hostname="x", do_handshake_on_connect=False)

    with pytest.raises(TypeError, match="must return a connected socket"):
        KdcClient(inside(realm), open_connection=open_connection).get_tgt(alice())
    for end in ends:
        end.close()


@pytest.mark.parametrize("kind", ["nothing", "no coroutine"])
def test_what_is_no_stream_is_the_callers_mistake_in_asyncio(realm: Realm, kind: str) -> None:
    async def nothing(host: str, port: int) -> Any:
        return None

    def no_coroutine(host: str, port: int) -> Any:
        return 1

    chosen: Any = nothing if kind == "nothing" else no_coroutine

    async def run() -> None:
        await aio.KdcClient(inside(realm), open_connection=chosen).get_tgt(alice())

    with pytest.raises((TypeError, TransportError), match=r"must return|TypeError"):
        asyncio.run(run())


def test_a_cancelled_call_cancels_what_it_opens(realm: Realm) -> None:
    seen: list[str] = []

    async def forever(host: str, port: int) -> Any:
        seen.append(host)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def run() -> None:
        client = aio.KdcClient(inside(realm), open_connection=forever)
        task = asyncio.ensure_future(client.get_tgt(alice()))
        while not seen:
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert seen == [KDC, "cancelled"]


def test_streams_that_end_early_are_a_kdc_that_left(realm: Realm) -> None:
    with TcpStub(lambda stub, connection: None) as gone:

        async def run() -> None:
            async def open_connection(host: str, port: int) -> Any:
                return await asyncio.open_connection(gone.host, gone.port)

            client = aio.KdcClient(inside(realm), open_connection=open_connection)
            await client.get_tgt(alice())

        with pytest.raises(TransportError, match=r"closed the connection|reset|Broken pipe"):
            asyncio.run(run())


def test_no_descriptor_and_no_task_is_left_behind(
    face: Face, realm: Realm, socks: SocksStub
) -> None:
    def rounds(count: int) -> None:
        for _ in range(count):
            face.call(inside(realm), socks_connector(socks), "get_tgt", alice())
            with contextlib.suppress(TransportError):
                face.call(inside(realm, "gone.invalid"), socks_connector(socks), "get_tgt", alice())

    rounds(1)
    gc.collect()
    time.sleep(0.2)
    before = len(os.listdir("/proc/self/fd"))
    rounds(5)
    gc.collect()
    deadline = time.monotonic() + 5
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= before
