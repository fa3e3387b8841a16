"""KDC proxies of others: PyPI's kdcproxy before MIT's KDC and kadmind; and MIT's kinit at the embedded proxy."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from purekrb import Config, Credential, KdcClient, TransportError, errors
from purekrb.aio import KdcClient as AsyncKdcClient
from purekrb.krb5conf.config import KdcAddress, RealmConfig
from purekrb.testing import Realm
from purekrb.testing.kdc_proxy import KdcProxy
from support.kdc_stubs import closed_port
from support.kdcproxy import RunningProxy, kdcproxy
from support.kpasswd import MitKadmind
from support.mit import MitRealm
from support.peers import find_program
from support.tls import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def kadmind(mit_realm: MitRealm) -> Iterator[MitKadmind]:
    server = MitKadmind(mit_realm)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def proxy(
    mit_realm: MitRealm, kadmind: MitKadmind, authority: Authority, tmp_path_factory: Any
) -> Iterator[RunningProxy]:
    here = f"127.0.0.1:{mit_realm.port}"
    servers = {
        "kerberos": f"kerberos+tcp://{here} kerberos+udp://{here}",
        "kpasswd": f"kpasswd+tcp://127.0.0.1:{kadmind.port}",
    }
    realms = {mit_realm.realm: servers}
    with kdcproxy(tmp_path_factory.mktemp("kdcproxy"), authority, realms) as running:
        yield running


def through(proxy: RunningProxy, authority: Authority, *realms: str) -> Config:
    servers = RealmConfig(
        kdc=(KdcAddress.parse(proxy.url),), options={"http_anchors": (f"FILE:{authority.ca}",)}
    )
    return Config(realms=dict.fromkeys(realms, servers), dns_lookup_kdc=False)


def test_tickets_of_mits_kdc_come_through_kdcproxy(
    mit_realm: MitRealm, proxy: RunningProxy, authority: Authority
) -> None:
    config = through(proxy, authority, mit_realm.realm)
    user = Credential.from_password(f"pre@{mit_realm.realm}", "prepw")
    proxy.answers.clear()
    ticket = KdcClient(config).get_ticket(user, "host/localhost")
    assert str(ticket.service) == f"host/localhost@{mit_realm.realm}"
    assert proxy.answers == ["200 OK"] * 3
    user = Credential.from_password(f"pre@{mit_realm.realm}", "prepw")
    assert asyncio.run(AsyncKdcClient(config).get_ticket(user, "host/localhost"))
    with pytest.raises(errors.PreauthFailedError):
        KdcClient(config).get_tgt(Credential.from_password(f"pre@{mit_realm.realm}", "wrong"))


def test_a_password_is_changed_at_mits_kadmind_through_kdcproxy(
    mit_realm: MitRealm, proxy: RunningProxy, authority: Authority
) -> None:
    config = through(proxy, authority, mit_realm.realm)
    name = mit_realm.addprinc(f"u{secrets.token_hex(4)}", "Old-pass1")
    KdcClient(config).change_password(Credential.from_password(name, "Old-pass1"), "New-pass2")
    new = Credential.from_password(name, "New-pass2")
    assert KdcClient(mit_realm.config).get_tgt(new)
    asyncio.run(AsyncKdcClient(config).change_password(new, "Third-pass3"))
    assert KdcClient(config).get_tgt(Credential.from_password(name, "Third-pass3"))


def test_what_kdcproxy_refuses_is_told_and_a_kdc_after_it_is_asked(
    mit_realm: MitRealm, proxy: RunningProxy, authority: Authority
) -> None:
    config = through(proxy, authority, "NONE.TEST", mit_realm.realm)
    with pytest.raises(TransportError, match=r"no answer from a KDC \(HTTP 503\)"):
        KdcClient(config).get_tgt(Credential.from_password("a@NONE.TEST", "pw"))
    user = Credential.from_password(f"pre@{mit_realm.realm}", "prepw")
    by_address = KdcAddress.parse(proxy.url.replace("localhost", "127.0.0.1"))
    kdc = mit_realm.config.kdcs(mit_realm.realm)
    servers = replace(config.realm(mit_realm.realm), kdc=(by_address, *kdc))
    other_name = replace(config, realms={mit_realm.realm: servers})
    only = replace(config, realms={mit_realm.realm: replace(servers, kdc=(by_address,))})
    answers = len(proxy.answers)
    assert KdcClient(other_name).get_tgt(user)
    assert len(proxy.answers) == answers
    with pytest.raises(
        TransportError, match="write the URL with a name that is in the certificate"
    ):
        KdcClient(only).get_tgt(user)


def test_mits_kinit_gets_its_tickets_through_the_embedded_proxy(
    mit_realm: MitRealm, tmp_path: Path
) -> None:
    realm = Realm("R.TEST", port=closed_port())
    realm.add_user("alice", "pw")
    realm.add_service("HTTP/web.r.test")
    with KdcProxy(realm) as proxy:
        conf = tmp_path / "krb5.conf"
        conf.write_text(
            "[libdefaults]\n default_realm = R.TEST\n dns_lookup_kdc = false\n"
            " dns_canonicalize_hostname = false\n"
            f"[realms]\n R.TEST = {{\n  kdc = {proxy.url}\n  http_anchors = FILE:{proxy.anchor}\n }}\n"
        )
        env = {**mit_realm.env, "KRB5_CONFIG": str(conf), "KRB5CCNAME": f"FILE:{tmp_path}/cc"}

        def mit(program: str, *arguments: str, stdin: str = "") -> str:
            path = find_program(program, "krb5-user")
            done = subprocess.run(
                [path, *arguments], env=env, input=stdin, capture_output=True, text=True, timeout=60
            )
            return done.stdout + done.stderr if done.returncode else ""

        assert mit("kinit", "alice", stdin="pw\n") == ""
        assert mit("kvno", "HTTP/web.r.test") == ""
        assert proxy.requests == 3
        conf.write_text(conf.read_text().replace("localhost", "127.0.0.1"))
        assert "Cannot contact any KDC" in mit("kinit", "alice", stdin="pw\n")
