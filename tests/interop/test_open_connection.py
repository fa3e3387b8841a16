"""Other people's clients of SOCKS proxies as `open_connection`: python-socks, PySocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
