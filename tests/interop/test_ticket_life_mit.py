"""The life of tickets with MIT's KDC and programs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import purekrb
from purekrb import Config, Credential, KdcClient
from purekrb.constants import TicketFlags
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
