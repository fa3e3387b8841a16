"""Credentials that are kept fresh, by a thread and by asyncio, with tickets that live for seconds."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import purekrb
from purekrb import CCache, Credential, KdcClient, Keytab, Principal, ServiceTicket
from purekrb.constants import TicketFlags
from purekrb.kdc.renewal import HALF, JITTER, REFRESH_TIME, _due, _patience
from purekrb.system import now
from purekrb.testing import Realm
from support.kdc_stubs import TcpStub

ALICE = "alice@R.TEST"
#: The life of a ticket: it is replaced after 2 to 2.4 seconds.
LIFE = 4


@pytest.fixture
def realm() -> Iterator[Realm]:
    with Realm("R.TEST", lifetime=LIFE) as realm:
        realm.add_user("alice", "pw")
        yield realm


@contextmanager
def blocking(credential: Credential, config: Any) -> Iterator[Any]:
    with credential.keep_fresh(config) as handle:
        yield handle


@contextmanager
def by_asyncio(credential: Credential, config: Any) -> Iterator[Any]:
    """Keep a credential fresh in an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Any:
        return purekrb.aio.keep_fresh(credential, config)

    def wait(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)

    handle = wait(start())
    try:
        yield handle
    finally:
        wait(handle.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(params=[blocking, by_asyncio], ids=["blocking", "asyncio"])
def fresh(request: pytest.FixtureRequest) -> Any:
    return request.param


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait until `condition` holds, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def newer(credential: Credential, than: ServiceTicket) -> Callable[[], Any]:
    """A condition: the credential has a ticket that lasts longer."""

    def condition() -> ServiceTicket | None:
        tgt = credential.tgt()
        return tgt if tgt is not None and tgt.endtime > than.endtime else None

    return condition


def cached(realm: Realm, path: Path, **options: Any) -> Credential:
    """A credential of tickets alone, which a file holds."""
    owner = Credential.from_password(ALICE, "pw")
    KdcClient(realm.config).get_tgt(owner, **options)
    owner.save(str(path))
    return Credential.from_ccache(str(path))


def in_file(path: Path) -> ServiceTicket | None:
    return Credential.from_ccache(str(path)).tgt()


def test_a_password_gets_new_tickets_like_the_one_before(realm: Realm, fresh: Any) -> None:
    credential = Credential.from_password(ALICE, "pw")
    before = KdcClient(realm.config).get_tgt(credential, forwardable=True, lifetime=LIFE - 1)
    with fresh(credential, realm.config) as handle:
        first = until(newer(credential, before))
        second = until(newer(credential, first))
        assert handle.running
        assert handle.problem is handle.ended is None
    assert not handle.running
    assert second.flags & TicketFlags.FORWARDABLE
    assert not second.flags & TicketFlags.RENEWABLE
    assert second.endtime - second.starttime == timedelta(seconds=LIFE - 1)
    assert "alice@R.TEST" in repr(handle)


def test_a_keytab_without_a_ticket_gets_one_at_once(realm: Realm, fresh: Any) -> None:
    credential = Credential.from_keytab(ALICE, realm.keytab("alice"))
    with fresh(credential, realm.config):
        assert until(credential.tgt, 3).client == Principal.parse(ALICE)


def test_tickets_are_renewed_in_their_ccache(realm: Realm, fresh: Any, tmp_path: Path) -> None:
    credential = cached(realm, tmp_path / "cc", renewable=3600)
    before = credential.tgt()
    assert before is not None
    with fresh(credential, realm.config):
        after = until(newer(credential, before))
        stored = until(lambda: newer(Credential.from_ccache(str(tmp_path / "cc")), before)())
        assert stored.ticket == after.ticket
    assert after.authtime == before.authtime  # renewed, and no new log-in
    half = after.starttime + HALF * (after.endtime - after.starttime)
    refresh = int(CCache.load(str(tmp_path / "cc")).get_config(REFRESH_TIME) or b"0")
    assert 0 <= refresh - half.timestamp() <= LIFE * JITTER + 1
    assert (tmp_path / "cc").stat().st_mode & 0o777 == 0o600


def test_what_another_program_has_renewed_is_taken(
    realm: Realm, fresh: Any, tmp_path: Path
) -> None:
    credential = cached(realm, tmp_path / "cc", renewable=3600)
    realm.add_user("alice", "pw", lifetime=600)
    theirs = cached(realm, tmp_path / "theirs").tgt()
    assert theirs is not None
    realm.stop()  # nobody can be asked
    with fresh(credential, realm.config) as handle:
        os.replace(tmp_path / "theirs", tmp_path / "cc")
        until(lambda: credential.tgt() == theirs)
        assert handle.problem is None


def test_a_failure_costs_no_ticket_and_is_tried_again(
    realm: Realm, fresh: Any, caplog: pytest.LogCaptureFixture
) -> None:
    credential = Credential.from_password(ALICE, "pw")
    before = KdcClient(realm.config).get_tgt(credential)
    realm.stop()
    with caplog.at_level(logging.WARNING, "purekrb"), fresh(credential, realm.config) as handle:
        until(lambda: handle.problem)
        assert credential.ccache.find("krbtgt/R.TEST@R.TEST", now=now() - timedelta(seconds=1))
        assert before in list(credential.ccache)
        assert handle.running
        realm.start()
        until(newer(credential, before))
        assert handle.problem is None
    assert "the tickets of alice@R.TEST stay as they are" in caplog.text
    assert "pw" not in caplog.text.replace("purekrb", "")


def test_a_ticket_that_cannot_be_renewed_any_more_ends_it_and_it_says_so(
    realm: Realm, fresh: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    credential = cached(realm, tmp_path / "cc", renewable=LIFE + 3)
    before = credential.tgt()
    assert before is not None
    assert before.renew_till is not None
    with caplog.at_level(logging.WARNING, "purekrb"), fresh(credential, realm.config) as handle:
        last = until(newer(credential, before))
        while last.endtime < before.renew_till:
            last = until(newer(credential, last))
        until(lambda: "cannot be renewed any more" in caplog.text)
        assert credential.tgt() == last  # not given up before its end
        until(lambda: handle.ended)
        assert not handle.running
    assert "expired at" in str(handle.ended)
    assert "not kept fresh any more" in caplog.text


def test_a_ticket_that_was_never_renewable_is_only_watched(
    realm: Realm, fresh: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    credential = cached(realm, tmp_path / "cc")
    with caplog.at_level(logging.WARNING, "purekrb"), fresh(credential, realm.config) as handle:
        until(lambda: "cannot be renewed any more" in caplog.text, 3)
        realm.add_user("alice", "pw", lifetime=600)
        cached(realm, tmp_path / "cc", renewable=3600)  # somebody runs kinit
        until(lambda: credential.tgt() == in_file(tmp_path / "cc"))
        assert handle.running


def test_k616_a_refused_key_is_not_tried_again_before_the_keytab_changes(
    realm: Realm, fresh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failure counts against the account."""
    monkeypatch.setattr("purekrb.kdc.renewal.LOOK", 0.3)
    asked = []
    handle_request = realm.handle
    monkeypatch.setattr(realm, "handle", lambda data: asked.append(data) or handle_request(data))
    wrong = Keytab.from_password(ALICE, "wrong")
    wrong.save(str(tmp_path / "keytab"))
    credential = Credential.from_keytab(ALICE, str(tmp_path / "keytab"))
    with fresh(credential, realm.config) as handle:
        until(lambda: handle.problem)
        count = len(asked)
        time.sleep(2)
        assert len(asked) == count
        assert handle.running
        realm.keytab("alice").save(str(tmp_path / "keytab"))
        until(credential.tgt)
        assert len(asked) > count


def test_k617_a_wrong_password_is_tried_once(realm: Realm, fresh: Any) -> None:
    credential = Credential.from_password(ALICE, "wrong")
    with fresh(credential, realm.config) as handle:
        until(lambda: handle.ended)
        assert isinstance(handle.ended, purekrb.PreauthFailedError)
        assert not handle.running


def test_k618_a_cache_of_somebody_else_in_its_place_is_not_taken(
    realm: Realm, fresh: Any, tmp_path: Path
) -> None:
    realm.add_user("eve", "pw")
    credential = cached(realm, tmp_path / "cc", renewable=3600)
    eve = Credential.from_password("eve@R.TEST", "pw")
    KdcClient(realm.config).get_tgt(eve)
    with fresh(credential, realm.config) as handle:
        eve.save(str(tmp_path / "cc"))
        until(lambda: handle.problem)
        assert "now belongs to eve@R.TEST" in str(handle.problem)
        assert {t.client for t in credential.ccache} == {Principal.parse(ALICE)}
    assert Credential.from_ccache(str(tmp_path / "cc")).principal == eve.principal


def test_k619_close_does_not_wait_for_a_silent_kdc(fresh: Any) -> None:
    with TcpStub(lambda stub, _: stub.stopping.wait(60)) as silent:
        config = purekrb.Config({"R.TEST": [f"tcp/127.0.0.1:{silent.port}"]}, dns_lookup_kdc=False)
        with fresh(Credential.from_password(ALICE, "pw"), config) as handle:
            until(lambda: silent.accepted)
            assert handle.running
            started = time.monotonic()
        assert time.monotonic() - started < 5
        assert not handle.running


def test_the_client_keytab_stands_in_when_the_default_cache_ends(
    fresh: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("purekrb.kdc.renewal.HALF", 0.02)
    monkeypatch.setattr("purekrb.kdc.renewal.JITTER", 0)
    with Realm("R.TEST") as realm:
        realm.add_user("alice", "pw")
        realm.keytab("alice").save(str(tmp_path / "client.keytab"))
        cached(realm, tmp_path / "cc", lifetime=70)
        monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/cc")
        monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(tmp_path / "client.keytab"))
        credential = Credential.default(realm.config)
        assert not credential.can_get_tgt
        before = credential.tgt()
        assert before is not None
        with fresh(credential, realm.config):
            after = until(newer(credential, before))
            until(lambda: in_file(tmp_path / "cc") == after)


def test_wiping_the_credential_ends_it(realm: Realm, fresh: Any) -> None:
    credential = Credential.from_password(ALICE, "pw")
    with fresh(credential, realm.config) as handle:
        until(credential.tgt)
        credential.wipe()
        until(lambda: not handle.running)
        assert handle.ended is not None


def test_tasks_and_threads_end_with_their_handle(realm: Realm) -> None:
    credential = Credential.from_password(ALICE, "pw")

    async def main() -> int:
        async with purekrb.aio.keep_fresh(credential, realm.config):
            await asyncio.sleep(0.1)
            assert len(asyncio.all_tasks()) == 2
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1
    handle = credential.keep_fresh(client=KdcClient(realm.config))
    assert [t for t in threading.enumerate() if t.name == "purekrb-keep-fresh"]
    handle.close()
    handle.close()
    assert not [t for t in threading.enumerate() if t.name == "purekrb-keep-fresh"]


PROGRAM = """
import os, sys, threading
from purekrb import Config, Credential
config = Config({{"R.TEST": ["127.0.0.1:{port}"]}}, dns_lookup_kdc=False)
credential = Credential.from_password("alice@R.TEST", "pw")
handle = credential.keep_fresh(config)
while credential.tgt() is None:
    assert handle.problem is None, handle.problem
if "fork" in sys.argv:
    child = os.fork()
    if child == 0:
        assert not handle.running
        handle.close()
        again = credential.keep_fresh(config)
        again.close()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert handle.running
print("done")
"""


@pytest.mark.parametrize("words", [[], ["fork"]], ids=["exit", "fork"])
def test_a_program_ends_at_once_without_closing(realm: Realm, words: list[str]) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(port=realm.port), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert time.monotonic() - started < 30


def test_the_schedule_has_jitter_and_patience_by_the_time_that_is_left(realm: Realm) -> None:
    tgt = KdcClient(realm.config).get_tgt(Credential.from_password(ALICE, "pw"))
    start = tgt.starttime or tgt.authtime
    tgt = replace_life(tgt, timedelta(hours=10), timedelta(minutes=3))
    dues = {_due(tgt) + timedelta(minutes=3) - start for _ in range(100)}
    assert timedelta(hours=5) <= min(dues) < max(dues) <= timedelta(hours=6)
    assert max(dues) - min(dues) > timedelta(minutes=20)
    assert _patience(1, 3600 * 5) == 300
    assert _patience(9, 80) == 10
    assert _patience(1, 0.5) == 1
    assert _patience(1, 0) < _patience(5, 0) < _patience(50, 0) == 300


def replace_life(tgt: ServiceTicket, life: timedelta, offset: timedelta) -> ServiceTicket:
    start = tgt.starttime or tgt.authtime
    return tgt._replace(endtime=start + life, time_offset=offset)  # type: ignore[attr-defined]


def test_whatever_a_function_of_the_program_raises_is_a_failure_and_no_end(
    realm: Realm, fresh: Any
) -> None:
    class Odd(Credential):
        __slots__ = ("tries",)

        def key_for(self, *arguments: Any) -> Any:
            self.tries = getattr(self, "tries", 0) + 1
            if self.tries == 1:
                raise RuntimeError("Canary")
            return super().key_for(*arguments)

    credential = Odd.from_password(ALICE, "pw")
    with fresh(credential, realm.config) as handle:
        problem = until(lambda: handle.problem, 3)
        assert "RuntimeError" in str(problem)
        assert "Canary" not in str(problem)
        assert until(credential.tgt).client == Principal.parse(ALICE)
        assert handle.ended is None
