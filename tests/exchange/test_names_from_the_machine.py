"""What a program gets that names no credential, and what other programs renew while it runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

import purekrb
from purekrb import (
    Acceptor,
    ApError,
    CCache,
    Credential,
    CredentialError,
    KdcClient,
    Keytab,
    Principal,
    connect,
    initiate,
    listen,
)
from purekrb.cli import main
from purekrb.credentials import keytab as keytab_module
from purekrb.errors import KerberosError
from purekrb.records import replace
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm

NORTH, SOUTH = "NORTH.TEST", "SOUTH.TEST"
WEB = "HTTP/web.north.test"


@pytest.fixture(scope="module")
def realms() -> Iterator[SimpleNamespace]:
    with Realm(NORTH) as north, Realm(SOUTH) as south:
        anna, bruno = north.add_user("anna", "a"), south.add_user("bruno", "b")
        north.add_service(WEB)
        south.add_service("HTTP/web.south.test")
        north.add_service("batch")
        yield SimpleNamespace(north=north, south=south, anna=anna, bruno=bruno)


@pytest.fixture
def machine(realms: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a krb5.conf of both realms, a home, and neither tickets nor keys."""
    conf = "[libdefaults]\n default_realm = NORTH.TEST\n dns_lookup_kdc = false\n[realms]\n"
    for realm in (realms.north, realms.south):
        conf += f" {realm.name} = {{\n  kdc = tcp/127.0.0.1:{realm.port}\n }}\n"
    conf += "[domain_realm]\n .north.test = NORTH.TEST\n .south.test = SOUTH.TEST\n"
    (tmp_path / "krb5.conf").write_text(conf)
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    monkeypatch.setenv("KRB5CCNAME", f"DIR:{tmp_path}/cc")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", f"FILE:{tmp_path}/client.keytab")
    return tmp_path


def log_in(realm: Realm, credential: Credential, name: str | None = None) -> None:
    fresh = Credential(credential.principal)
    fresh.ccache.store(KdcClient(realm.config).get_tgt(credential))
    fresh.save(name)


def ended(realm: Realm, credential: Credential) -> CCache:
    """Return a ccache whose TGT ended yesterday."""
    tgt = KdcClient(realm.config).get_tgt(credential)
    past = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=1)
    return CCache(credential.principal, [replace(tgt, endtime=past, starttime=None)])


def accept(keytab: Keytab, target: str = WEB) -> str:
    context = initiate(target)
    acceptor = Acceptor(keytab, replay_cache=MemoryReplayCache())
    context.step(acceptor.step(context.step()))
    assert context.established
    return str(acceptor.initiator)


def test_initiate_without_a_credential_takes_the_ccache_of_the_services_realm(
    realms: SimpleNamespace, machine: Path
) -> None:
    log_in(realms.north, realms.anna)
    log_in(realms.south, realms.bruno)  # the primary
    assert accept(realms.north.keytab(WEB)) == "anna@NORTH.TEST"
    south = "HTTP/web.south.test"
    assert accept(realms.south.keytab(south), south) == "bruno@SOUTH.TEST"
    assert Credential.default().principal == realms.bruno.principal
    assert Credential.default(service=WEB).principal == realms.anna.principal
    assert Credential.default(principal="anna@NORTH.TEST").principal == realms.anna.principal
    with pytest.raises(CredentialError, match=r"those of bruno@SOUTH.TEST, anna@NORTH.TEST"):
        Credential.default(principal="carol@NORTH.TEST")
    # As MIT does, the new service tickets are in the ccache for the next program.
    assert len(CCache.choose("anna@NORTH.TEST")) == 2


def test_kvno_takes_for_each_service_the_ccache_of_its_realm(
    realms: SimpleNamespace, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(realms.north, realms.anna)
    log_in(realms.south, realms.bruno)  # the primary
    for switches in ([], ["--no-store"], ["--out-cache", f"{machine}/new"]):
        assert main(["kvno", *switches, WEB]) == 0
    assert "HTTP/web.north.test@NORTH.TEST: kvno = " in capsys.readouterr().out
    assert CCache.load(f"{machine}/new").principal == realms.anna.principal
    assert main(["kvno", WEB, "HTTP/web.south.test"]) == 0
    assert [len(CCache.choose(name)) for name in ("anna@NORTH.TEST", "bruno@SOUTH.TEST")] == [2, 2]
    primary = CCache.load().name
    assert main(["kvno", "-c", str(primary), WEB]) != 0  # who names one gets that one


def test_k5identity_chooses_before_the_realm_does(realms: SimpleNamespace, machine: Path) -> None:
    log_in(realms.south, realms.bruno)
    log_in(realms.north, realms.anna)
    identities = machine / ".k5identity"
    identities.write_text(
        "# who I am\n\nnot a principal@@ host=*.north.test\n"
        "bruno@SOUTH.TEST host=WEB.*.test service=HTTP realm=NORTH.TEST\n"
        "anna@NORTH.TEST service=LDAP\n"
    )
    assert Credential.default(service="HTTP/web.north.test").principal == realms.bruno.principal
    assert Credential.default(service="HTTP/other.north.test").principal == realms.anna.principal
    identities.write_text("carol@NORTH.TEST service=HTTP\n")
    with pytest.raises(CredentialError, match=r"carol@NORTH.TEST"):
        Credential.default(service=WEB)
    identities.unlink()
    assert Credential.default(service=WEB).principal == realms.anna.principal


def test_a_client_keytab_logs_in_and_its_tickets_go_to_the_ccache(
    realms: SimpleNamespace, machine: Path
) -> None:
    with pytest.raises(CredentialError, match=r"there is no credential cache.*client.keytab"):
        Credential.default()
    realms.north.keytab("batch").save(machine / "client.keytab")
    credential = Credential.default()
    assert str(credential.principal) == "batch@NORTH.TEST"
    assert accept(realms.north.keytab(WEB)) == "batch@NORTH.TEST"
    kept = CCache.load()
    assert (str(kept.principal), len(kept)) == ("batch@NORTH.TEST", 2)
    (machine / "client.keytab").unlink()
    assert accept(realms.north.keytab(WEB)) == "batch@NORTH.TEST"  # from the ccache now
    realms.north.keytab("batch").save(machine / "client.keytab")
    with pytest.raises(CredentialError, match=r"no key for other@NORTH.TEST; it has batch@NORTH"):
        Credential.default(principal="other@NORTH.TEST")


def test_a_client_keytab_is_not_needed_while_the_ccache_is_valid(
    realms: SimpleNamespace, machine: Path
) -> None:
    realms.north.keytab("batch").save(machine / "client.keytab")
    log_in(realms.north, realms.anna)
    assert Credential.default().principal == realms.anna.principal
    CCache.destroy()
    ended(realms.north, realms.anna).save()
    assert str(Credential.default().principal) == "batch@NORTH.TEST"
    (machine / "client.keytab").unlink()
    with pytest.raises(CredentialError, match=r"anna@NORTH.TEST in DIR::.* expired at 20"):
        Credential.default()


def test_without_a_client_keytab_the_error_says_why_there_is_no_ticket(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KRB5_CLIENT_KTNAME")
    monkeypatch.setattr("purekrb.credentials.defaults._CLIENT_KEYTABS", ("FILE:/nonexistent/kt",))
    with pytest.raises(CredentialError, match="there is no credential cache"):
        initiate(WEB)
    with pytest.raises(CredentialError, match="from_keytab"):
        Credential.from_ccache()


# -- nothing is read once for ever


def test_a_ccache_that_another_program_renews_is_read_again(
    realms: SimpleNamespace, machine: Path
) -> None:
    name = f"FILE:{machine}/anna"
    ended(realms.north, realms.anna).save(name)
    credential = Credential.from_ccache(name)
    client = KdcClient()
    for _ in range(2):
        with pytest.raises(CredentialError, match=rf"in {name} expired at 20"):
            client.get_ticket(credential, WEB)
    with pytest.raises(CredentialError, match=rf"in {name} expired at 20"):
        client.get_tgt(credential)
    log_in(realms.north, realms.anna, f"{machine}/new")
    os.rename(machine / "new", machine / "anna")
    with pytest.raises(CredentialError, match="needs a password or a key") as caught:
        client.get_tgt(credential)
    assert "expired" not in str(caught.value)  # that was the old file's ticket
    assert client.get_ticket(credential, WEB).client == realms.anna.principal
    # While the ticket in hand is valid, nothing is read.
    (machine / "anna").unlink()
    assert client.get_ticket(credential, WEB).client == realms.anna.principal


def test_a_ccache_that_is_another_principals_now_is_no_silent_change_of_identity(
    realms: SimpleNamespace, machine: Path
) -> None:
    name = f"FILE:{machine}/anna"
    ended(realms.north, realms.anna).save(name)
    credential = Credential.from_ccache(name)
    log_in(realms.south, realms.bruno, name)
    with pytest.raises(
        CredentialError, match=r"now belongs to bruno@SOUTH.TEST, not to anna@NORTH"
    ):
        KdcClient().get_ticket(credential, WEB)
    log_in(realms.north, realms.anna, name)
    assert KdcClient().get_ticket(credential, WEB).client == realms.anna.principal


def test_a_half_written_ccache_leaves_the_tickets_as_they_are(
    realms: SimpleNamespace, machine: Path
) -> None:
    name = f"{machine}/anna"
    ended(realms.north, realms.anna).save(name)
    credential = Credential.from_ccache(name)
    data = Path(name).read_bytes()
    Path(name).write_bytes(data[:100])
    with pytest.raises(CredentialError, match=" expired at "):
        KdcClient().get_ticket(credential, WEB)
    log_in(realms.north, realms.anna, name)
    assert KdcClient().get_ticket(credential, WEB).client == realms.anna.principal


@pytest.fixture
def rotated(machine: Path) -> Iterator[SimpleNamespace]:
    """A service whose key is changed; `old` and `new` are its keys, `path` the file of its server."""
    with Realm(NORTH) as realm:
        anna = realm.add_user("anna", "a")
        old = realm.add_service(WEB)
        client = KdcClient(realm.config)
        old_ticket = client.get_ticket(anna, WEB)
        path = machine / "svc.keytab"
        old.save(path)
        new = realm.change_key(WEB)
        both = old.merge(new)
        yield SimpleNamespace(
            realm=realm, anna=anna, old=old, new=new, both=both, path=path, old_ticket=old_ticket
        )


def opens(keytab: Keytab, ticket: object) -> bool:
    from purekrb import Initiator

    acceptor = Acceptor(keytab, replay_cache=MemoryReplayCache())
    try:
        acceptor.step(Initiator(ticket).step())  # type: ignore[arg-type]
    except ApError:
        return False
    return acceptor.established


def new_ticket(rotated: SimpleNamespace) -> object:
    fresh = Credential.from_password("anna@NORTH.TEST", "a")
    return KdcClient(rotated.realm.config).get_ticket(fresh, WEB)


def test_a_keytab_that_is_rotated_is_seen_by_the_next_handshake(rotated: SimpleNamespace) -> None:
    keytab = Keytab.load(rotated.path)
    ticket = new_ticket(rotated)
    assert opens(keytab, rotated.old_ticket)
    assert not opens(keytab, ticket)
    rotated.both.save(rotated.path)  # a rename, as programs do it
    assert opens(keytab, ticket)
    assert opens(keytab, rotated.old_ticket)
    rotated.new.save(rotated.path)  # a key that has left the file stops working
    assert opens(keytab, ticket)
    assert not opens(keytab, rotated.old_ticket)
    assert keytab == rotated.old  # what was loaded is not changed
    assert keytab.current() == rotated.new


@pytest.mark.parametrize("damage", ["half", "empty", "no keys", "missing", "writable", "junk"])
def test_a_keytab_that_is_no_good_leaves_the_old_keys_in_force(
    rotated: SimpleNamespace, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    keytab = Keytab.load(rotated.path)
    data = rotated.both.encode()
    if damage == "missing":
        rotated.path.unlink()
    elif damage == "writable":
        rotated.path.chmod(0o666)
    else:
        contents = {"half": data[:-3], "empty": b"", "no keys": b"\5\2", "junk": b"junk"}[damage]
        rotated.path.write_bytes(contents)
    for _ in range(3):
        assert opens(keytab, rotated.old_ticket)
    told = [record for record in caplog.records if "stay in use" in record.getMessage()]
    assert 1 <= len(told) <= 3
    rotated.both.save(rotated.path)
    assert opens(keytab, new_ticket(rotated))


def test_a_change_within_one_tick_of_the_clock_is_seen(rotated: SimpleNamespace) -> None:
    keytab = Keytab.load(rotated.path)
    status = rotated.path.stat()
    data = rotated.new.encode()
    assert len(data) == status.st_size
    rotated.path.write_bytes(data)  # same file, same size, and perhaps the same time
    os.utime(rotated.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert keytab.current() == rotated.new


def test_a_settled_keytab_costs_one_stat_and_no_read(
    rotated: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keytab_module, "_TICK", -1.0)
    keytab = Keytab.load(rotated.path)

    def refuse(*_: object, **__: object) -> bytes:
        raise AssertionError("the file was read")

    monkeypatch.setattr(keytab_module.files, "read_private", refuse)
    assert keytab.current() is keytab
    assert opens(keytab, rotated.old_ticket)


def test_tickets_that_were_opened_stay_known_when_the_keytab_changes(
    rotated: SimpleNamespace,
) -> None:
    keytab = Keytab.load(rotated.path)
    assert opens(keytab, rotated.old_ticket)
    rotated.both.save(rotated.path)
    key = keytab.entries[0].key
    assert any(entry.key is key for entry in keytab.current())


def test_a_server_goes_on_with_the_rotated_keytab(rotated: SimpleNamespace) -> None:
    keytab = Keytab.load(rotated.path)
    with listen(("127.0.0.1", 0), keytab) as server:

        def serve() -> None:
            for channel in server:
                with channel:
                    channel.send(channel.recv())

        threading.Thread(target=serve, daemon=True).start()

        def talk() -> bytes:
            user = Credential.from_password("anna@NORTH.TEST", "a")
            with connect(server.address, WEB, user, rotated.realm.config) as channel:
                channel.send(b"hello")
                return channel.recv()

        with pytest.raises(KerberosError):
            talk()
        rotated.both.save(rotated.path)
        assert talk() == b"hello"


def test_a_credential_from_a_keytab_takes_the_rotated_keys(rotated: SimpleNamespace) -> None:
    credential = Credential.from_keytab(f"{WEB}@NORTH.TEST", rotated.path)
    client = KdcClient(rotated.realm.config)
    with pytest.raises(KerberosError):
        client.get_ticket(credential, WEB)
    rotated.both.save(rotated.path)
    assert client.get_ticket(credential, WEB).client == Principal.parse(f"{WEB}@NORTH.TEST")


def test_a_kubernetes_secret_is_read_through_its_links_and_again_after_the_swap(
    rotated: SimpleNamespace, machine: Path
) -> None:
    mount = machine / "secret"

    def publish(name: str, keytab: Keytab) -> None:
        (mount / name).mkdir(parents=True)
        keytab.save(mount / name / "svc.keytab")
        (mount / name / "svc.keytab").chmod(0o440)
        (mount / "..data_tmp").symlink_to(name)
        os.rename(mount / "..data_tmp", mount / "..data")

    publish("..2026_01_01", rotated.old)
    (mount / "svc.keytab").symlink_to("..data/svc.keytab")
    keytab = Keytab.load(mount / "svc.keytab")
    assert keytab == rotated.old
    publish("..2026_01_31", rotated.both)
    shutil.rmtree(mount / "..2026_01_01")
    assert opens(keytab, new_ticket(rotated))


def test_a_keyring_of_the_process_is_a_collection(realms: SimpleNamespace, machine: Path) -> None:
    name = f"KEYRING:process:purekrb-{os.getpid()}"
    first = CCache(realms.anna.principal)
    KdcClient(realms.north.config).get_tgt(realms.anna)
    for ticket in realms.anna.ccache:
        first.store(ticket)
    assert first.save(name) == f"{name}:purekrb-{os.getpid()}"
    log_in(realms.south, realms.bruno, name)
    assert [one.principal for one in CCache.list(name)] == [
        realms.bruno.principal,
        realms.anna.principal,
    ]
    for _ in range(2):
        CCache.destroy(CCache.list(name)[0].name)
    assert CCache.list(name) == []
    with pytest.raises(CredentialError, match="there is no credential cache KEYRING:process"):
        CCache.load(name)
    for wrong in ("KEYRING:nonsense:x", "KEYRING:persistent:nobody", "KEYRING:"):
        with pytest.raises(CredentialError, match="write KEYRING:session:NAME"):
            CCache.load(wrong)


@pytest.mark.parametrize("aio", [False, True], ids=["blocking", "asyncio"])
def test_connect_without_a_credential_is_who_the_machine_says(
    realms: SimpleNamespace, machine: Path, *, aio: bool
) -> None:
    log_in(realms.north, realms.anna)
    keytab = realms.north.keytab(WEB)
    with listen(("127.0.0.1", 0), keytab, replay_cache=MemoryReplayCache()) as server:

        def serve() -> None:
            with next(iter(server)) as channel:
                channel.send(str(channel.context.initiator).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        if aio:

            async def ask() -> bytes | None:
                async with await purekrb.aio.connect(server.address, WEB) as channel:
                    return await channel.recv()

            assert asyncio.run(ask()) == b"anna@NORTH.TEST"
        else:
            with connect(server.address, WEB) as channel:
                assert channel.recv() == b"anna@NORTH.TEST"
        thread.join()
