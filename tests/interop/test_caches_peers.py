"""KCM and KEYRING caches, shared with MIT's, Heimdal's and sssd's programs in both directions."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from purekrb import CCache, Credential, CredentialError, KdcClient
from purekrb.credentials.caches import keyctl, keyring
from purekrb.credentials.defaults import ccache_name
from purekrb.system import now
from support.kcm import KINDS, kcm_daemon
from support.mit import MitRealm
from support.peers import find_program, run

#: A uid whose persistent keyring nobody else uses.
_UID = 54_321
_HEIMDAL = Path(__file__).parents[2] / ".lab" / "heimdal" / "usr" / "bin"


def keyrings_of(name: str) -> Iterator[int]:
    """Yield the keyrings of the test's own collection, and what is above them."""
    anchor, collection, _ = keyring._parts(name.partition(":")[2])
    above, kind, description = keyring._place(anchor, collection)
    found = keyctl.find(above, kind, description)
    if found is not None:
        keyctl.clear(found)
        if anchor != "persistent":
            keyctl.unlink(found, above)
        yield found


@pytest.fixture(
    scope="module",
    params=[*(f"KCM-{kind}" for kind in KINDS), "session", "user", "persistent", "legacy"],
)
def store(
    request: pytest.FixtureRequest, mit_realm: MitRealm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """A collection of the test's own, and the environment in which MIT's programs use it."""
    kind = request.param
    if kind.startswith("KCM"):
        name = "KCM:"
        with kcm_daemon(kind[4:], tmp_path_factory.mktemp("kcm"), mit_realm.krb5_conf):
            yield SimpleNamespace(kind=kind, name=name, env={**mit_realm.env, "KRB5CCNAME": name})
            run([find_program("kdestroy", "krb5-user"), "-A", "-q", "-c", name], env=mit_realm.env)
        return
    own = f"purekrb-test-{os.getpid()}"
    name = f"KEYRING:{kind}:{own}"
    if kind == "persistent":
        name = f"KEYRING:persistent:{_UID}"
    elif kind == "legacy":
        name = f"KEYRING:{own}"
    yield SimpleNamespace(kind=kind, name=name, env={**mit_realm.env, "KRB5CCNAME": name})
    list(keyrings_of(name))


@pytest.fixture(autouse=True)
def empty(store: SimpleNamespace, mit_realm: MitRealm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5CCNAME", store.name)
    monkeypatch.setenv("KRB5_CONFIG", str(mit_realm.krb5_conf))
    for ccache in CCache.list(store.name):
        CCache.destroy(ccache.name)


def mit(store: SimpleNamespace, program: str, *argv: str, text: str = "") -> str:
    return run([find_program(program, "krb5-user"), *argv], env=store.env, text=text)


def log_in(realm: MitRealm, user: str) -> str:
    credential = Credential.from_password(f"{user}@MIT.TEST", realm.passwords[user])
    KdcClient(realm.config).get_tgt(credential)
    return credential.ccache.save()


def test_mits_programs_read_what_purekrb_writes(
    store: SimpleNamespace, mit_realm: MitRealm
) -> None:
    first = log_in(mit_realm, "user")
    second = log_in(mit_realm, "pre")
    listed = mit(store, "klist", "-l")
    assert listed.index("pre@MIT.TEST") < listed.index("user@MIT.TEST")  # the primary comes first
    assert first in listed
    assert second in listed
    assert "gsvc/localhost@MIT.TEST: kvno" in mit(store, "kvno", "gsvc/localhost")
    assert "krbtgt/MIT.TEST@MIT.TEST" in mit(store, "klist", first)
    CCache.switch(first)
    assert "Default principal: user@MIT.TEST" in mit(store, "klist")
    # What MIT's kvno has added is here, too.
    services = {str(ticket.service) for ticket in CCache.load(second)}
    assert services == {"krbtgt/MIT.TEST@MIT.TEST", "gsvc/localhost@MIT.TEST"}
    CCache.destroy(first)
    assert "user@MIT.TEST" not in mit(store, "klist", "-l")
    with pytest.raises(CredentialError, match="there is no credential cache"):
        CCache.load(first)


def test_purekrb_reads_and_uses_what_mits_programs_write(
    store: SimpleNamespace, mit_realm: MitRealm
) -> None:
    mit(store, "kinit", "user", text="userpw\n")
    mit(store, "kinit", "pre", text="prepw\n")
    assert [str(one.principal) for one in CCache.list()] == ["pre@MIT.TEST", "user@MIT.TEST"]
    mit(store, "kswitch", "-p", "user")
    credential = Credential.default(mit_realm.config, service="gsvc/localhost")
    assert str(credential.principal) == "user@MIT.TEST"
    ticket = KdcClient(mit_realm.config).get_ticket(credential, "gsvc/localhost")
    assert str(ticket.client) == "user@MIT.TEST"
    # The default credential keeps its tickets where MIT's programs find them.
    assert "gsvc/localhost@MIT.TEST" in mit(store, "klist")
    mit(store, "kdestroy", "-A")
    assert CCache.list() == []


def test_a_second_user_never_loses_the_first_ones_tickets(
    store: SimpleNamespace, mit_realm: MitRealm
) -> None:
    mit(store, "kinit", "user", text="userpw\n")
    mit(store, "kvno", "gsvc/localhost")
    before = mit(store, "klist", CCache.choose("user@MIT.TEST").name or "")
    log_in(mit_realm, "pre")
    first = CCache.choose("user@MIT.TEST").name or ""
    assert mit(store, "klist", first) == before
    log_in(mit_realm, "user")  # replaces its own, and nothing else
    assert len(CCache.list()) == 2
    assert CCache.load().name == first


def test_what_is_written_is_read_back(store: SimpleNamespace, mit_realm: MitRealm) -> None:
    credential = Credential.from_password("user@MIT.TEST", "userpw")
    tgt = KdcClient(mit_realm.config).get_tgt(credential)
    ccache = credential.ccache
    ccache.set_config("fast_avail", b"yes", tgt.service)
    ccache.set_time_offset(timedelta(seconds=-7))
    name = ccache.save()
    found = CCache.load(name)
    assert [(one.service, one.ticket, one.session_key, one.flags) for one in found] == [
        (tgt.service, tgt.ticket, tgt.session_key, tgt.flags)
    ]
    assert found.get_config("fast_avail", tgt.service) == b"yes"
    if store.kind != "KCM-heimdal":  # MIT's clients do not ask Heimdal's daemon for it either
        assert found.time_offset() == timedelta(seconds=-7)
    assert found.principal == ccache.principal


def test_a_ticket_that_another_program_renews_is_seen(
    store: SimpleNamespace, mit_realm: MitRealm
) -> None:
    client = KdcClient(mit_realm.config)
    expired = Credential.from_password("user@MIT.TEST", "userpw")
    tgt = client.get_tgt(expired, lifetime=2)
    name = expired.ccache.save()
    credential = Credential.from_ccache(name)
    mit(store, "kinit", "user", text="userpw\n")
    assert tgt.endtime - now() < timedelta(seconds=60)
    ticket = client.get_ticket(credential, "gsvc/localhost")
    assert ticket.endtime - now() > timedelta(hours=1)


def test_programs_that_store_at_the_same_time_lose_nothing(
    store: SimpleNamespace, mit_realm: MitRealm
) -> None:
    name = log_in(mit_realm, "user")
    services = [f"svc-{etype}/localhost" for etype in (17, 18, 19, 20)]

    def add(service: str) -> None:
        credential = Credential.from_ccache(name)
        KdcClient(mit_realm.config).get_ticket(credential, service)
        credential.ccache.merge_into(name)

    threads = [threading.Thread(target=add, args=(service,)) for service in services]
    for thread in threads:
        thread.start()
    mit(store, "kvno", "gsvc/localhost")
    for thread in threads:
        thread.join()
    found = {str(one.service).partition("@")[0] for one in CCache.load(name)}
    assert found == {"krbtgt/MIT.TEST", "gsvc/localhost", *services}


@pytest.mark.parametrize("store", ["KCM-heimdal", "KCM-sssd"], indirect=True)
def test_heimdals_programs_share_the_daemon(store: SimpleNamespace, mit_realm: MitRealm) -> None:
    name = log_in(mit_realm, "user")
    assert "user@MIT.TEST" in _heimdal(store, "klist", "-c", name)
    if store.kind == "KCM-heimdal":  # with sssd's daemon, Heimdal's kinit fails
        password = mit_realm.path("password")
        password.write_text("prepw\n")
        password.chmod(0o600)
        _heimdal(store, "kinit", f"--password-file={password}", "pre@MIT.TEST")
        assert "pre@MIT.TEST" in {str(one.principal) for one in CCache.list()}


def _heimdal(store: SimpleNamespace, program: str, *argv: str) -> str:
    if program == "klist":
        return run([str(_HEIMDAL / "heimtools"), program, *argv], env=store.env)
    return run([str(_HEIMDAL / f"{program}.heimdal"), *argv], env=store.env)


def test_a_krb5_conf_that_names_it_is_obeyed(
    store: SimpleNamespace, mit_realm: MitRealm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KRB5CCNAME")
    conf = tmp_path / "krb5.conf"
    text = mit_realm.krb5_conf.read_text()
    conf.write_text(
        text.replace(
            f"FILE:{mit_realm.directory}/cc_default", store.name.replace("54321", "%{uid}")
        )
    )
    monkeypatch.setenv("KRB5_CONFIG", str(conf))
    chosen = ccache_name()
    assert chosen.name.partition(":")[0] == store.name.partition(":")[0]
    assert chosen.origin.startswith(str(conf))
    assert not chosen.passed_over
