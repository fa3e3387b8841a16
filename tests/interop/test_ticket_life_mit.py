"""The life of tickets with MIT's KDC and programs."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

import purekrb
from purekrb import CCache, Config, Credential, CredentialError, KdcClient
from purekrb.constants import AddressType, TicketFlags
from purekrb.messages.ap import HostAddress
from support.mit import MitRealm


@pytest.fixture
def config(mit_realm: MitRealm) -> Config:
    return Config.from_file(mit_realm.krb5_conf)


def in_cache(path: Path) -> Any:
    tgt = Credential.from_ccache(str(path)).tgt()
    assert tgt is not None
    return tgt


@pytest.mark.parametrize("world", ["blocking", "asyncio"])
def test_tickets_of_kinit_are_renewed_and_klist_shows_them(
    mit_realm: MitRealm, config: Config, world: str
) -> None:
    cache = mit_realm.kinit(options=["-l", "6s", "-r", "1h"])
    before = in_cache(cache)
    credential = Credential.from_ccache(str(cache))
    deadline = time.monotonic() + 30

    def renewed() -> bool:
        assert time.monotonic() < deadline
        return bool(in_cache(cache).endtime > before.endtime)

    async def in_asyncio() -> None:
        async with purekrb.aio.keep_fresh(credential, config):
            while not renewed():
                await asyncio.sleep(0.1)

    if world == "asyncio":
        asyncio.run(in_asyncio())
    else:
        with credential.keep_fresh(config):
            while not renewed():
                time.sleep(0.1)
    after = in_cache(cache)
    assert after.authtime == before.authtime
    assert after.flags & TicketFlags.RENEWABLE
    shown = mit_realm.klist(cache, "-C", "-f")
    assert "config: refresh_time" in shown
    assert f"Default principal: user@{mit_realm.realm}" in shown
    assert mit_realm.klist(cache).count("krbtgt/") == 1  # the one that was renewed is gone
    assert "kvno = " in mit_realm.kvno(cache, "host/localhost")


def test_a_keytab_gets_new_tickets_before_the_old_ones_end(
    mit_realm: MitRealm, config: Config
) -> None:
    credential = Credential.from_keytab(
        f"host/localhost@{mit_realm.realm}", str(mit_realm.service_keytab)
    )
    first = KdcClient(config).get_tgt(credential, lifetime=6, renewable=0)
    with credential.keep_fresh(config) as handle:
        deadline = time.monotonic() + 30
        while (tgt := credential.tgt()) is None or tgt.endtime <= first.endtime:
            assert time.monotonic() < deadline
            assert handle.problem is None
            time.sleep(0.1)
    assert tgt.authtime > first.authtime
    assert (tgt.endtime - tgt.authtime).total_seconds() == 6


@pytest.mark.parametrize("world", ["blocking", "asyncio"])
def test_mits_kdc_makes_a_proxy_and_its_programs_show_and_use_it(
    mit_realm: MitRealm, config: Config, tmp_path: Path, world: str
) -> None:
    user = Credential.from_password(f"user@{mit_realm.realm}", mit_realm.passwords["user"])
    here = [HostAddress(AddressType.IPV4, bytes([127, 0, 0, 1]))]
    if world == "asyncio":
        client = purekrb.aio.KdcClient(config)
        ticket = asyncio.run(client.proxy(user, "host/localhost", here))
    else:
        ticket = KdcClient(config).proxy(user, "host/localhost", here)
    assert ticket.flags & TicketFlags.PROXY
    CCache(ticket.client, [ticket]).save(str(tmp_path / "proxy"))
    shown = mit_realm.klist(tmp_path / "proxy", "-f", "-a", "-n")
    assert re.search(r"Flags: \w*p", shown)
    assert "Addresses: 127.0.0.1" in shown
    assert "kvno = " in mit_realm.kvno(tmp_path / "proxy", "host/localhost")


def test_mits_kdc_makes_no_proxy_of_a_tgt_that_is_not_proxiable(
    mit_realm: MitRealm, config: Config
) -> None:
    cache = mit_realm.kinit(options=["-P"])
    with pytest.raises(CredentialError, match="not proxiable"):
        KdcClient(config).proxy(Credential.from_ccache(str(cache)), "host/localhost")
    cache = mit_realm.kinit(options=["-p"])
    proxy = KdcClient(config).proxy(Credential.from_ccache(str(cache)), "host/localhost")
    assert proxy.flags & TicketFlags.PROXY
    assert proxy.caddr == ()


def test_mits_kdc_of_another_realm_makes_a_proxy(mit_realm: MitRealm, config: Config) -> None:
    user = Credential.from_password(f"user@{mit_realm.realm}", mit_realm.passwords["user"])
    here = [HostAddress(AddressType.IPV4, bytes([192, 0, 2, 1]))]
    ticket = KdcClient(config).proxy(user, "host/srv.sub.test", here)
    assert ticket.service.realm == mit_realm.sub_realm
    assert ticket.flags & TicketFlags.PROXY
    assert ticket.caddr == tuple(here)
