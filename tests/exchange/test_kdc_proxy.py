"""KDCs through an HTTPS proxy (MS-KKDCP), the embedded one; hostile ones are in tests/hostile/test_kkdcp.py."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from purekrb import Acceptor, Config, Credential, KdcClient, TransportError, errors, initiate
from purekrb.aio import KdcClient as AsyncKdcClient
from purekrb.constants import ErrorCode
from purekrb.kdc.locate import Locator
from purekrb.krb5conf.config import KdcAddress, RealmConfig
from purekrb.messages.kkdcp import KdcProxyMessage, unwrap, wrap
from purekrb.testing import Realm
from purekrb.testing.kdc_proxy import KdcProxy
from support.kdc_stubs import closed_port

WEB = "HTTP/web.r.test"


class AsyncFace:
    """The asyncio client, called like the blocking one."""

    def __init__(self, config: Config) -> None:
        self._client = AsyncKdcClient(config)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args: asyncio.run(getattr(self._client, name)(*args))


@pytest.fixture(params=[KdcClient, AsyncFace], ids=["blocking", "asyncio"])
def client_class(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def realm() -> Realm:
    """A realm that listens at no port of its own."""
    realm = Realm("R.TEST", port=closed_port())
    realm.add_user("alice", "pw")
    realm.add_service(WEB)
    return realm


@pytest.fixture(scope="module")
def proxy(realm: Realm) -> Iterator[KdcProxy]:
    with KdcProxy(realm) as proxy:
        yield proxy


def alice() -> Credential:
    return Credential.from_password("alice@R.TEST", "pw")


def test_tickets_come_through_a_proxy(client_class: Any, realm: Realm, proxy: KdcProxy) -> None:
    before = proxy.requests
    credential = alice()
    ticket = client_class(proxy.config).get_ticket(credential, WEB)
    assert str(ticket.service) == f"{WEB}@R.TEST"
    assert proxy.requests == before + 3
    with pytest.raises(TransportError):
        client_class(realm.config).get_ticket(alice(), WEB)
    context = initiate(WEB, credential, proxy.config)
    acceptor = Acceptor(realm.keytab(WEB))
    context.step(acceptor.step(context.step()))
    assert str(acceptor.initiator) == "alice@R.TEST"


def test_a_refusal_of_the_kdc_comes_through_a_proxy_as_it_is(
    client_class: Any, proxy: KdcProxy
) -> None:
    client = client_class(proxy.config)
    with pytest.raises(errors.PreauthFailedError):
        client.get_tgt(Credential.from_password("alice@R.TEST", "wrong"))
    with pytest.raises(errors.ClientUnknownError) as caught:
        client.get_tgt(Credential.from_password("nobody@R.TEST", "pw"))
    assert caught.value.code == ErrorCode.KDC_ERR_C_PRINCIPAL_UNKNOWN


def test_realms_that_trust_each_other_are_reached_through_one_proxy(client_class: Any) -> None:
    here, there = Realm("HERE.TEST", port=closed_port()), Realm("THERE.TEST", port=closed_port())
    here.trust(there)
    user = here.add_user("alice", "pw")
    there.add_service("HTTP/web.there.test")
    with KdcProxy(here) as proxy:
        ticket = client_class(proxy.config).get_ticket(user, "HTTP/web.there.test@THERE.TEST")
    assert ticket.service.realm == "THERE.TEST"


def test_a_password_is_changed_through_a_proxy(client_class: Any) -> None:
    realm = Realm("R.TEST", port=closed_port())
    old = realm.add_user("alice", "old password")
    with KdcProxy(realm) as proxy:
        client = client_class(proxy.config)
        client.change_password(old, "new password")
        new = Credential.from_password("alice@R.TEST", "new password")
        assert str(client.get_tgt(new).client) == "alice@R.TEST"


def test_the_servers_that_change_passwords_may_be_proxies() -> None:
    gateway = KdcAddress.parse("https://gateway.test/KdcProxy")
    admin = KdcAddress("admin.r.test", 749)

    def servers(**kinds: Any) -> tuple[KdcAddress, ...]:
        config = Config(realms={"R.TEST": RealmConfig(**kinds)})
        return Locator(config).changing_passwords("R.TEST")

    assert servers(admin_server=(gateway, admin)) == (gateway, KdcAddress("admin.r.test", 464))
    assert servers(kdc=(KdcAddress("kdc"), gateway)) == (gateway,)
    assert servers(kdc=(gateway,), kpasswd_server=(KdcAddress("k", 464),)) == (
        KdcAddress("k", 464),
    )
    assert servers(kdc=(KdcAddress("kdc"),)) == ()


def test_krb5_conf_names_a_proxy_and_its_ca(
    client_class: Any, proxy: KdcProxy, tmp_path: Path
) -> None:
    conf = tmp_path / "krb5.conf"
    text = (
        "[libdefaults]\n default_realm = R.TEST\n dns_lookup_kdc = false\n[realms]\n R.TEST = {\n"
        f"  kdc = {proxy.url}\n  http_anchors = FILE:{proxy.anchor}\n }}\n"
    )
    conf.write_text(text)
    config = Config.from_file(conf)
    assert config.kdcs("R.TEST")[0].path == "/KdcProxy"
    assert str(client_class(config).get_tgt(alice()).client) == "alice@R.TEST"
    conf.write_text(text.replace("/KdcProxy", ""))
    with pytest.raises(TransportError, match=r"no KDC proxy at this path.*HTTP 404"):
        client_class(Config.from_file(conf)).get_tgt(alice())


def test_a_proxy_has_its_place_among_the_kdcs(
    client_class: Any, realm: Realm, proxy: KdcProxy
) -> None:
    """The order of the file is kept: a proxy is not the last resort."""
    other = Realm("R.TEST")
    other.add_user("alice", "pw")
    anchors = proxy.config.realm("R.TEST").options
    with other:
        kdc = f"127.0.0.1:{other.port}"

        def asked_first(*kdcs: str) -> bool:
            before = proxy.requests
            servers = RealmConfig(kdc=tuple(map(KdcAddress.parse, kdcs)), options=anchors)
            client_class(replace(proxy.config, realms={"R.TEST": servers})).get_tgt(alice())
            return proxy.requests > before

        assert asked_first(proxy.url, kdc)
        assert not asked_first(kdc, proxy.url)
        assert asked_first(f"tcp://127.0.0.1:{closed_port()}", proxy.url)


def test_a_realm_that_the_gateway_does_not_serve_is_told(
    client_class: Any, proxy: KdcProxy
) -> None:
    config = proxy.config
    config = replace(config, realms={"OTHER.TEST": config.realm("R.TEST")})
    with pytest.raises(TransportError, match=r"the gateway forbids this.*HTTP 403"):
        client_class(config).get_tgt(Credential.from_password("bob@OTHER.TEST", "pw"))


def test_without_h11_the_extra_is_named(realm: Realm, proxy: KdcProxy) -> None:
    code = """
import sys
sys.modules["h11"] = None
from purekrb import Config, Credential, KdcClient, TransportError
try:
    KdcClient(Config(realms={"R.TEST": [sys.argv[1]]})).get_tgt(Credential.from_password("a@R.TEST", "pw"))
except TransportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, proxy.url], capture_output=True, text=True, check=True
    )
    assert "run `pip install purekrb[proxy]`" in done.stdout


def test_the_message_of_a_proxy_is_that_of_ms_kkdcp() -> None:
    encoded = wrap(b"abc", "R.TEST")
    assert encoded.hex() == ("3015a009040700000003616263a1081b06522e54455354")
    assert unwrap(encoded) == b"abc"
    with_hint = KdcProxyMessage(b"\0\0\0\3abc", "R.TEST", 1)
    assert KdcProxyMessage.decode(with_hint.encode()) == with_hint
