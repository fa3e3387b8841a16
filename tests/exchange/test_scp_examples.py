"""The three programs in examples/scp_*.py, with the embedded directory and realm; with Samba in test_scp_samba.py."""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from purekrb import Credential, KerberosError, Keytab, KeytabEntry, RegistrationError, crypto
from purekrb.channel.blocking import Server
from purekrb.directory import Directory, EmbeddedDirectory, SpnOperation
from purekrb.testing import Realm

EXAMPLES = Path(__file__).parents[2] / "examples"
HOST = "web.example.test"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


installer, service, client = load("scp_installer"), load("scp_service"), load("scp_client")


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedDirectory]:
    look_up = socket.getaddrinfo

    def here(host: Any, *arguments: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host == HOST else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    with Directory.embedded("example.test") as directory:
        directory.add_computer(HOST)
        directory.add_user("svc")
        yield directory


@pytest.fixture
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", "pw")
        yield realm


def keys(realm: Realm, spns: tuple[str, ...]) -> Keytab:
    keytab = Keytab()
    for spn in spns:
        keytab = keytab.merge(realm.add_service(spn))
    return keytab


def serve(server: Server) -> None:
    for channel in server:
        service.serve(channel)


def alice(realm: Realm) -> Credential:
    return Credential.from_password("alice@EXAMPLE.TEST", "pw")


def test_a_client_finds_the_service_and_talks_to_it(
    directory: EmbeddedDirectory, realm: Realm, tmp_path: Path
) -> None:
    state = str(tmp_path / "state.json")
    made = installer.install(directory, HOST, 1, "svc", state)
    keytab = keys(realm, made.spns)
    with service.start(directory, state, "svc", keytab, ("127.0.0.1", 0)) as server:
        assert directory.find_scps()[0].port == server.address[1]
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        who, answer = client.talk(directory, alice(realm), realm.config, "hello")
    assert str(who) == f"{made.spns[0]}@EXAMPLE.TEST"
    assert answer == "alice@EXAMPLE.TEST said: hello"


def test_a_client_says_nothing_to_what_has_not_the_keys(
    directory: EmbeddedDirectory, realm: Realm, tmp_path: Path
) -> None:
    state = str(tmp_path / "state.json")
    keytab = keys(realm, installer.install(directory, HOST, 1, "svc", state).spns)
    impostor = Keytab(
        KeytabEntry(k.principal, k.kvno, crypto.random_key(k.key.etype), k.timestamp)
        for k in keytab
    )
    with service.start(directory, state, "svc", impostor, ("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        with pytest.raises(KerberosError):
            client.talk(directory, alice(realm), realm.config, "hello")


def test_a_client_without_a_service_says_nothing(
    directory: EmbeddedDirectory, realm: Realm, tmp_path: Path
) -> None:
    with pytest.raises(KerberosError, match="no endpoint of the service is usable"):
        client.talk(directory, alice(realm), realm.config, "hello")
    keys(realm, installer.install(directory, HOST, 1, "svc", str(tmp_path / "state.json")).spns)
    with pytest.raises(KerberosError, match="no instance"):  # nobody listens on port 1
        client.talk(directory, alice(realm), realm.config, "hello")


def test_a_client_who_has_not_logged_in_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KRB5CCNAME", str(tmp_path / "none"))
    for program, argv in (
        (client, ["hello"]),
        (installer, ["--state", str(tmp_path / "state.json"), "install", HOST, "2000", "svc"]),
    ):
        monkeypatch.setattr(sys, "argv", ["example", *argv])
        assert program.main() == 1
        assert "kinit" in capsys.readouterr().err
    assert not (tmp_path / "state.json").exists()


def test_a_service_that_may_not_start_does_not_listen(
    directory: EmbeddedDirectory, realm: Realm, tmp_path: Path
) -> None:
    state = str(tmp_path / "state.json")
    made = installer.install(directory, HOST, 1, "svc", state)
    directory.write_account_spn(SpnOperation.DELETE, "svc", [made.spns[0]])
    with pytest.raises(RegistrationError) as refused:
        service.start(directory, state, "svc", keys(realm, made.spns), ("127.0.0.1", 0))
    assert service.EXIT_CODES[refused.value.reason] == 20
    assert directory.find_scps()[0].port == 1


def test_the_programs_know_each_reason_and_each_flag() -> None:
    from purekrb.cli import REGISTRATION_EXIT_CODES

    assert service.EXIT_CODES == REGISTRATION_EXIT_CODES
    assert service.NEEDED == client.NEEDED
    assert installer.PRODUCT == client.PRODUCT
