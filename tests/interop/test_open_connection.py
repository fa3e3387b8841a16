"""Other people's clients of SOCKS proxies as `open_connection`: python-socks, PySocks."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import socks
from python_socks.async_.asyncio import Proxy as AsyncProxy
from python_socks.sync import Proxy

from purekrb import Config, Credential, KdcClient, TransportError
from purekrb.aio import KdcClient as AsyncKdcClient
from purekrb.krb5conf.config import KdcAddress, RealmConfig
from purekrb.testing import Realm
from support.kdc_stubs import closed_port
from support.pages import run_program
from support.peers import find_program
from support.socks import SocksStub

KDC = "kdc.inside.invalid"


@pytest.fixture
def realm() -> Iterator[Realm]:
    with Realm("R.TEST") as realm:
        realm.add_user("alice", "pw")
        realm.add_service("HTTP/web.r.test")
        yield realm


@pytest.fixture
def proxy(realm: Realm) -> Iterator[SocksStub]:
    with SocksStub({KDC: realm.port}) as stub:
        yield stub


def inside(realm: Realm) -> Config:
    return replace(realm.config, realms={"R.TEST": RealmConfig(kdc=(KdcAddress(KDC),))})


def alice() -> Credential:
    return Credential.from_password("alice@R.TEST", "pw")


def test_the_program_of_the_page_goes_through_a_socks_proxy(
    realm: Realm, proxy: SocksStub, tmp_path: Path
) -> None:
    credential = alice()
    KdcClient(realm.config).get_tgt(credential)
    credential.save(tmp_path / "cc")
    conf = tmp_path / "krb5.conf"
    realm.write_krb5_conf(conf)
    conf.write_text(conf.read_text().replace(f"kdc = 127.0.0.1:{realm.port}", f"kdc = {KDC}"))
    env = {**os.environ, "KRB5_CONFIG": str(conf), "KRB5CCNAME": f"FILE:{tmp_path}/cc"}
    shown = run_program(
        "kdc-client.md",
        proxy.url,
        "HTTP/web.r.test",
        directory=tmp_path,
        env=env,
        containing="python_socks",
    )
    assert shown == "HTTP/web.r.test@R.TEST\n"
    assert proxy.asked == [(KDC, 88)]


def test_python_socks_and_pysocks_are_taken_as_they_are(realm: Realm, proxy: SocksStub) -> None:
    config = inside(realm)
    client = KdcClient(config, open_connection=Proxy.from_url(proxy.url, rdns=True).connect)
    assert client.get_tgt(alice())

    def by_pysocks(host: str, port: int, timeout: float) -> socks.socksocket:
        return socks.create_connection(
            (host, port),
            timeout,
            proxy_type=socks.SOCKS5,
            proxy_addr=proxy.host,
            proxy_port=proxy.port,
            proxy_rdns=True,
        )

    assert KdcClient(config, open_connection=by_pysocks).get_tgt(alice())

    async def run() -> None:
        connect = AsyncProxy.from_url(proxy.url, rdns=True).connect
        assert await AsyncKdcClient(config, open_connection=connect).get_tgt(alice())

    asyncio.run(run())
    assert proxy.asked == [(KDC, 88)] * 6


@asynccontextmanager
async def jump_host(realm: Realm) -> AsyncIterator[int]:
    """Run an SSH server on loopback that lets everybody in and knows one host; yield its port."""

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

        def connection_requested(self, host: str, port: int, *_: object) -> Any:
            if (host, port) != (KDC, 88):
                return False

            async def forward(reader: Any, writer: Any) -> None:
                to_kdc = await asyncio.open_connection("127.0.0.1", realm.port)
                await asyncio.gather(_copy(reader, to_kdc[1]), _copy(to_kdc[0], writer))

            return forward

    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key])
    async with server:
        yield server.get_port()


async def _copy(reader: Any, writer: Any) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_the_connections_of_asyncssh_are_tunnels_as_they_stand(realm: Realm) -> None:
    async def run() -> None:
        async with (
            jump_host(realm) as port,
            asyncssh.connect("127.0.0.1", port, known_hosts=None, username="any") as jump,
        ):
            client = AsyncKdcClient(inside(realm), open_connection=jump.open_connection)
            ticket = await client.get_ticket(alice(), "HTTP/web.r.test")
            assert str(ticket.service) == "HTTP/web.r.test@R.TEST"
            other = replace(realm.config, realms={"R.TEST": ["elsewhere.inside.invalid"]})
            client = AsyncKdcClient(other, open_connection=jump.open_connection)
            with pytest.raises(TransportError, match=r"open_connection failed: ChannelOpenError"):
                await client.get_tgt(alice())

    asyncio.run(run())


def test_ssh_with_a_pair_of_sockets_is_a_tunnel(realm: Realm) -> None:
    programs = []

    async def run() -> None:
        async with jump_host(realm) as port:
            options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
            command = [find_program("ssh", "openssh-client"), "-q", "-p", str(port), "-F", "none"]
            command += [part for option in options for part in ("-o", option)]

            def through_ssh(host: str, port: int, timeout: float) -> socket.socket:
                ours, theirs = socket.socketpair()
                with theirs:
                    argv = [*command, "-W", f"{host}:{port}", "any@127.0.0.1"]
                    programs.append(subprocess.Popen(argv, stdin=theirs, stdout=theirs))
                return ours

            client = KdcClient(inside(realm), open_connection=through_ssh, timeout=30)
            ticket = await asyncio.to_thread(client.get_ticket, alice(), "HTTP/web.r.test")
            assert str(ticket.service) == "HTTP/web.r.test@R.TEST"
            for program in programs:
                await asyncio.to_thread(program.wait, 20)

    asyncio.run(run())
    assert len(programs) >= 3


def test_their_errors_are_told_as_those_of_the_kdc(realm: Realm, proxy: SocksStub) -> None:
    proxy.network = {}
    connect = Proxy.from_url(proxy.url, rdns=True).connect
    with pytest.raises(
        TransportError, match=r"kdc\.inside\.invalid.*open_connection failed.*nreachable"
    ):
        KdcClient(inside(realm), open_connection=connect).get_tgt(alice())
    gone = Proxy.from_url(f"socks5://127.0.0.1:{closed_port()}", rdns=True).connect
    with pytest.raises(TransportError, match="refused"):
        KdcClient(inside(realm), open_connection=gone).get_tgt(alice())
