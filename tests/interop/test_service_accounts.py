"""Accounts of services at Samba's domain controller: created, rotated, killed in the middle, disabled and deleted.

What docs/accounts.md says of them is checked here.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

import purekrb
from purekrb import Acceptor, CCache, Credential, KdcClient, Keytab, ServiceTicket
from purekrb.cli import main
from purekrb.credentials import files
from purekrb.directory import Directory, rotation, service_accounts
from purekrb.directory.account_keys import random_password
from purekrb.directory.rights import RIGHTS
from purekrb.directory.windows_errors import WINDOWS_ERRORS
from purekrb.errors import (
    AccountNotFoundError,
    ClientRevokedError,
    CredentialError,
    DirectoryError,
    InsufficientRightsError,
    KerberosError,
    PasswordPolicyError,
    PolicyError,
    PreauthFailedError,
    SpnNotUniqueError,
)
from purekrb.gss.initiator import Initiator
from purekrb.integrations.requests import Negotiate
from purekrb.messages.ap import Ticket
from purekrb.replay import MemoryReplayCache
from support import canaries
from support.commands import ARGV
from support.peers import Daemon, on_free_port
from support.processes import Child, soak
from support.samba import SambaDc, free_address

PAGE = (Path(__file__).parents[2] / "docs" / "accounts.md").read_text(encoding="utf-8")
SPNS = ("HTTP/{}.ad.test", "ADSockAuth/{}.ad.test:2000")


def bound(dc: SambaDc, credential: Credential, **options: Any) -> Directory:
    return Directory.connect(
        f"ldap://{dc.address}", credential, dc.config, f"ldap/{dc.host}", **options
    )


def as_user(dc: SambaDc, name: str) -> Directory:
    return bound(dc, Credential.from_password(f"{name}@{dc.realm}", dc.password))


@pytest.fixture(scope="module")
def admin(samba_dc: SambaDc) -> Iterator[Directory]:
    with as_user(samba_dc, samba_dc.administrator) as directory:
        yield directory


@pytest.fixture(scope="module", autouse=True)
def _client(samba_dc: SambaDc) -> None:
    samba_dc.add_user("acc-client")


@pytest.fixture
def name(samba_dc: SambaDc, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an account that is not there before the test, nor after it."""
    name = f"acc-{abs(hash(request.node.nodeid)) % 10**8}"
    yield name
    samba_dc.delete(dn_of(samba_dc, name))


def dn_of(dc: SambaDc, name: str) -> str:
    return f"CN={name},CN=Users,{dc.base}"


def spns_of(name: str) -> list[str]:
    return [spn.format(name) for spn in SPNS]


@pytest.fixture
def service(admin: Directory, name: str, tmp_path: Path) -> Path:
    """The keytab of a new account with the name `name`."""
    keytab = tmp_path / "service.keytab"
    admin.create_service_account(name, spns=spns_of(name), keytab=keytab)
    return keytab


def ticket_for(dc: SambaDc, spn: str) -> ServiceTicket:
    """A new ticket of a client that has none yet."""
    credential = Credential.from_password(f"acc-client@{dc.realm}", dc.password)
    return KdcClient(dc.config).get_ticket(credential, spn)


def accepts(keytab: Path, ticket: ServiceTicket) -> bool:
    """Whether an acceptor with this keytab takes the ticket; else the reason is raised."""
    acceptor = Acceptor(Keytab.load(keytab), replay_cache=MemoryReplayCache())
    initiator = Initiator(ticket)
    initiator.step(acceptor.step(initiator.step()))
    return acceptor.established and initiator.established


def kvno_of(ticket: ServiceTicket) -> int | None:
    return Ticket.decode(ticket.ticket).enc_part.kvno


def kvnos(keytab: Path, principal: str) -> list[int]:
    return sorted({entry.kvno for entry in Keytab.load(keytab).find(principal)})


# The first day ----------------------------------------------------------------------------------


def test_an_account_is_created_with_its_keytab_and_clients_reach_it(
    samba_dc: SambaDc, admin: Directory, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "new.keytab"
    made = admin.create_service_account(name, spns=spns_of(name), keytab=path)
    assert made.account.name == name
    assert made.account.dn == dn_of(samba_dc, name)
    (entry,) = samba_dc.search(
        f"(sAMAccountName={name})",
        "userAccountControl",
        "msDS-SupportedEncryptionTypes",
        "servicePrincipalName",
        "msDS-KeyVersionNumber",
    )
    assert entry["userAccountControl"] == [str(0x10200)]
    assert entry["msDS-SupportedEncryptionTypes"] == ["24"]
    assert sorted(map(str, entry["servicePrincipalName"])) == sorted(spns_of(name))
    assert entry["msDS-KeyVersionNumber"] == [str(made.kvno)]

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keytab = Keytab.load(path)
    expected = {f"{one}@{samba_dc.realm}" for one in (name, *spns_of(name))}
    assert {str(principal) for principal in keytab.principals} == expected
    assert {(entry.kvno, entry.key.etype) for entry in keytab} == {
        (made.kvno, 18),
        (made.kvno, 17),
    }
    for spn in spns_of(name):
        ticket = ticket_for(samba_dc, spn)
        assert ticket.session_key.etype == 18
        assert accepts(path, ticket)
    tgt = KdcClient(samba_dc.config).get_tgt(Credential.from_keytab(f"{name}@AD.TEST", path))
    assert str(tgt.client) == f"{name}@AD.TEST"


def test_where_fast_is_required_the_administrators_tickets_are_the_armor(
    samba_dc: SambaDc, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "k"
    credential = Credential.from_password("Administrator@AD.TEST", samba_dc.password)
    KdcClient(samba_dc.config).get_tgt(credential)
    config = dataclasses.replace(samba_dc.config, preauth_floor="fast")
    with Directory.connect(
        f"ldap://{samba_dc.address}",
        Credential.from_ccache(credential.ccache),
        config,
        f"ldap/{samba_dc.host}",
    ) as directory:
        directory.create_service_account(name, spns=spns_of(name), keytab=path)
        directory.rotate_keys(name, path)
    assert accepts(path, ticket_for(samba_dc, spns_of(name)[0]))


def test_the_keytab_is_given_to_the_services_user(
    samba_dc: SambaDc, admin: Directory, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "new.keytab"
    admin.create_service_account(name, keytab=path, owner="daemon")
    assert (path.owner(), stat.S_IMODE(path.stat().st_mode)) == ("daemon", 0o600)
    # It is the user's from now on: not even root changes it in its place.
    with pytest.raises(CredentialError, match="run as its owner"):
        admin.rotate_keys(name, path)
    samba_dc.delete(dn_of(samba_dc, name))
    with pytest.raises(CredentialError, match="no such user"):
        admin.create_service_account(name, keytab=tmp_path / "x", owner="nobody-of-this-name")
    with pytest.raises(AccountNotFoundError):
        admin.find_account(name)


def test_keys_of_other_accounts_in_the_keytab_stay(
    samba_dc: SambaDc, admin: Directory, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "shared.keytab"
    Keytab.from_password("other@AD.TEST", "another's", kvno=7).save(path)
    before = Keytab.load(path)
    admin.create_service_account(name, spns=spns_of(name), keytab=path)
    admin.rotate_keys(name, path)
    assert Keytab.load(path).find("other@AD.TEST") == before.find("other@AD.TEST")
    admin.delete_account(name, keytab=path)
    assert Keytab.load(path) == before


# Rotation ----------------------------------------------------------------------------------------


def as_itself_by_key(dc: SambaDc, name: str, keytab: Path) -> Directory:
    return bound(dc, Credential.from_keytab(f"{name}@AD.TEST", keytab))


def as_itself_by_tickets(dc: SambaDc, name: str, keytab: Path) -> Directory:
    credential = Credential.from_keytab(f"{name}@AD.TEST", keytab)
    KdcClient(dc.config).get_tgt(credential)
    cache = keytab.with_name("cc")
    credential.save(cache)
    return bound(dc, Credential.from_ccache(CCache.load(cache)))


def as_itself_by_password(dc: SambaDc, name: str, keytab: Path) -> Directory:
    dc.set_password(dn_of(dc, name), "Known-Passw0rd.1")
    credential = Credential.from_password(f"{name}@AD.TEST", "Known-Passw0rd.1")
    KdcClient(dc.config).make_keytab(credential).save(keytab)
    return bound(dc, credential)


def as_administrator(dc: SambaDc, name: str, keytab: Path) -> Directory:
    return as_user(dc, dc.administrator)


@pytest.mark.parametrize(
    "who", [as_itself_by_key, as_itself_by_tickets, as_itself_by_password, as_administrator]
)
def test_keys_are_rotated_and_old_tickets_work_on(
    samba_dc: SambaDc,
    service: Path,
    name: str,
    who: Callable[[SambaDc, str, Path], Directory],
) -> None:
    with who(samba_dc, name, service) as directory:
        spn = spns_of(name)[0]
        old = ticket_for(samba_dc, spn)
        rotated = directory.rotate_keys(name, service)
    new = ticket_for(samba_dc, spn)
    assert rotated.kvno == kvno_of(new)
    assert rotated.previous_kvno is not None
    assert rotated.kvno > rotated.previous_kvno
    own = f"{name}@AD.TEST"
    assert kvnos(service, own)[-2:] == [rotated.previous_kvno, rotated.kvno]
    newest = Keytab.load(service).find(own)[0]
    assert len(Keytab.load(service).find(own, newest.kvno)) == 2  # no candidate is left
    assert accepts(service, old)
    assert accepts(service, new)
    assert kvnos(service, f"{spn}@AD.TEST")[-1] == rotated.kvno
    assert stat.S_IMODE(service.stat().st_mode) == 0o600
    assert {path.name for path in service.parent.iterdir()} <= {service.name, "cc"}


@pytest.mark.parametrize("change", ["sAMAccountName", "userPrincipalName"])
def test_the_salt_is_the_kdcs_also_after_a_rename(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str, change: str
) -> None:
    """Before its next password, a renamed account has the salt of its old name; then that of the new one."""
    new = f"{name}x" if change == "sAMAccountName" else f"HTTP/{name}.ad.test@ad.test"
    samba_dc.modify(
        f"dn: {dn_of(samba_dc, name)}\nchangetype: modify\nreplace: {change}\n{change}: {new}\n"
    )
    account = new if change == "sAMAccountName" else name
    old = ticket_for(samba_dc, spns_of(name)[0])
    assert accepts(service, old)
    admin.rotate_keys(account, service)
    assert accepts(service, old)
    assert accepts(service, ticket_for(samba_dc, spns_of(name)[0]))
    # The account's new name is in the keytab, with the key that the KDC has.
    KdcClient(samba_dc.config).get_tgt(Credential.from_keytab(f"{account}@AD.TEST", service))


def test_old_keys_are_dropped_once_no_ticket_for_them_is_valid(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str
) -> None:
    own = f"{name}@AD.TEST"
    first = kvnos(service, own)
    assert admin.rotate_keys(name, service).kept == tuple(first)
    assert admin.rotate_keys(name, service, keep=3600).kept == (first[0], first[0] + 1)
    time.sleep(1.1)  # entries have whole seconds
    # That of kvno 1 was replaced more than a second ago; that of the key before was in use until now.
    assert admin.rotate_keys(name, service, keep=1).kept == (first[0] + 2,)
    assert kvnos(service, own) == [first[0] + 2, first[0] + 3]


@pytest.mark.parametrize("who", [as_itself_by_key, as_administrator])
def test_an_account_of_before_gets_tickets_of_aes_with_its_first_rotation(
    samba_dc: SambaDc,
    name: str,
    tmp_path: Path,
    who: Callable[[SambaDc, str, Path], Directory],
) -> None:
    """It may write its own encryption types."""
    samba_dc.add_user(name, servicePrincipalName=spns_of(name))
    samba_dc.modify(
        f"dn: {dn_of(samba_dc, name)}\nchangetype: modify\ndelete: msDS-SupportedEncryptionTypes\n"
    )
    keytab, spn = tmp_path / "old.keytab", spns_of(name)[0]
    Keytab.load(samba_dc.keytab(name)).save(keytab)
    with pytest.raises(KerberosError, match="rc4"):
        accepts(keytab, ticket_for(samba_dc, spn))
    with who(samba_dc, name, keytab) as directory:
        directory.rotate_keys(name, keytab)
    assert accepts(keytab, ticket_for(samba_dc, spn))
    (entry,) = samba_dc.search(f"(sAMAccountName={name})", "msDS-SupportedEncryptionTypes")
    assert entry["msDS-SupportedEncryptionTypes"] == ["24"]


def test_the_names_that_an_account_has_now_get_its_new_keys(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str
) -> None:
    gone, added = spns_of(name)[0], f"imap/{name}.ad.test"
    admin.change_account_spns(name, delete=[gone], add=[added])
    kvno = admin.rotate_keys(name, service).kvno
    assert kvnos(service, f"{added}@AD.TEST") == [kvno]
    assert kvnos(service, f"{gone}@AD.TEST") == [kvno - 1]  # for tickets that clients have


# What dies in between ----------------------------------------------------------------------------


class KilledAt(logging.Handler):
    """Kills this process, as kill -9 does, when it logs its record number `at` that begins with `start`."""

    def __init__(self, at: int, start: str) -> None:
        super().__init__()
        self.left, self.start = at, start

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self.start):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def run_until(at: int, job: Callable[[], object], start: str) -> bool:
    """Run a job in a process that is killed at its record `at`; return whether it has ended by itself."""

    def killed(writer: int) -> None:
        logger = logging.getLogger("purekrb")
        logger.setLevel(logging.DEBUG)
        logger.addHandler(KilledAt(at, start))
        job()
        os.write(writer, b"done")

    return Child(killed).output() == b"done"


def deaths(full: Sequence[int]) -> tuple[str, Sequence[int]]:
    """What the records begin with at which the process dies: each step; with PUREKRB_SOAK=1, every one."""
    return ("step:", range(1, 20)) if soak(0, 1) == 0 else ("", full)


def test_rotations_that_die_again_and_again_leave_a_way_out(
    samba_dc: SambaDc, service: Path, name: str
) -> None:
    """Each time, the keytab has got one more key that the directory has not."""

    def rotate() -> None:
        with as_itself_by_key(samba_dc, name, service) as directory:
            directory.rotate_keys(name, service)

    for _ in range(5):
        assert not run_until(1, rotate, "step: the keytab has the old and the new keys")
    assert not run_until(1, rotate, "step: the directory has the new key")
    assert accepts(service, ticket_for(samba_dc, spns_of(name)[0]))
    rotate()
    assert accepts(service, ticket_for(samba_dc, spns_of(name)[0]))
    newest = Keytab.load(service).find(f"{name}@AD.TEST")[0].kvno
    assert len(Keytab.load(service).find(f"{name}@AD.TEST", newest)) == 2


@pytest.mark.parametrize("who", [as_itself_by_key, as_administrator])
def test_a_service_accepts_whenever_a_rotation_dies_and_the_next_one_repairs(
    samba_dc: SambaDc,
    service: Path,
    name: str,
    who: Callable[[SambaDc, str, Path], Directory],
) -> None:
    spn, own = spns_of(name)[0], f"{name}@AD.TEST"

    def rotate() -> None:
        with who(samba_dc, name, service) as directory:
            directory.rotate_keys(name, service)

    start, numbers = deaths(range(1, 400))
    died = 0
    for at in numbers:
        before = ticket_for(samba_dc, spn)
        ended = run_until(at, rotate, start)
        # A ticket of before, and one of now.
        assert accepts(service, before)
        assert accepts(service, ticket_for(samba_dc, spn))
        # The service as a client of others, with the same keytab.
        KdcClient(samba_dc.config).get_tgt(Credential.from_keytab(own, service))
        if ended:
            break
        died += 1
    assert died >= 3
    rotate()
    newest = Keytab.load(service).find(own)[0].kvno
    assert len(Keytab.load(service).find(own, newest)) == 2
    assert accepts(service, before)
    assert accepts(service, ticket_for(samba_dc, spn))
    assert [path.name for path in service.parent.iterdir()] == [service.name]


def test_a_creation_that_dies_is_completed_by_the_next_one(
    samba_dc: SambaDc, admin: Directory, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "new.keytab"

    def create() -> None:
        with as_administrator(samba_dc, name, path) as directory:
            directory.create_service_account(name, spns=spns_of(name), keytab=path)

    start, numbers = deaths(range(1, 200))
    died = 0
    for at in numbers:
        ended = run_until(at, create, start)
        made = admin.create_service_account(name, spns=spns_of(name), keytab=path)
        assert accepts(path, ticket_for(samba_dc, spns_of(name)[0]))
        assert kvnos(path, f"{name}@AD.TEST") == [made.kvno]
        admin.delete_account(name, keytab=path)
        assert not path.exists()
        if ended:
            break
        died += 1
    assert died >= 3


# A domain controller that goes away ---------------------------------------------------------------


class Relay:
    """The domain controller at an address of its own, for LDAP and kpasswd, until it goes away.

    It ends with the client's message number `last` (None: never), which is still passed on if `answers_only`.
    """

    def __init__(self, dc: SambaDc, last: int | None, answers_only: bool = False) -> None:
        self.address = free_address()
        self.last, self.answers_only = last, answers_only
        self.gone = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        for port in (389, 464):
            listener = socket.create_server((self.address, port))
            self._sockets.append(listener)
            threading.Thread(target=self._serve, args=(listener, dc.address, port)).start()

    def _serve(self, listener: socket.socket, address: str, port: int) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((address, port))
            self._sockets += (client, server)
            threading.Thread(target=self._pump, args=(client, server, True)).start()
            threading.Thread(target=self._pump, args=(server, client, False)).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    late = self.gone.is_set()
                    if asks and not late and self.last is not None:
                        self.last -= 1
                        if self.last == 0:
                            self.gone.set()
                if late or (self.gone.is_set() and not self.answers_only):
                    break
                sink.sendall(data)
                if self.gone.is_set():
                    time.sleep(0.3)  # it is done there
                    break
        if self.gone.is_set():
            self.close()

    def close(self) -> None:
        self.gone.set()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.mark.parametrize("answers_only", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("what", ["create", "rotate", "reset"])
def test_a_domain_controller_that_goes_away_leaves_nothing_half_made(
    samba_dc: SambaDc, admin: Directory, name: str, tmp_path: Path, what: str, answers_only: bool
) -> None:
    """It goes away with each message, before or after it has done what the message asks for."""
    path, spn = tmp_path / "k", spns_of(name)[0]
    if what != "create":
        admin.create_service_account(name, spns=spns_of(name), keytab=path)
    failures: list[str] = []
    for last in range(1, 40):
        ticket = None if what == "create" else ticket_for(samba_dc, spn)
        credential = (
            Credential.from_keytab(f"{name}@AD.TEST", path)
            if what == "rotate"
            else Credential.from_password("Administrator@AD.TEST", samba_dc.password)
        )
        with Relay(samba_dc, last, answers_only) as relay:
            try:
                with Directory.connect(
                    f"ldap://{relay.address}",
                    credential,
                    samba_dc.config,
                    f"ldap/{samba_dc.host}",
                    timeout=5,
                ) as directory:
                    if what == "create":
                        directory.create_service_account(name, spns=spns_of(name), keytab=path)
                    else:
                        directory.rotate_keys(name, path)
            except KerberosError as error:
                failures.append(str(error))
            ended = not relay.gone.is_set()
        if what != "create":
            assert ticket is not None
            assert accepts(path, ticket)
            assert accepts(path, ticket_for(samba_dc, spn))
        elif path.exists() or samba_dc.search(f"(sAMAccountName={name})", "cn"):
            # The account and its keytab, or neither.
            admin.create_service_account(name, spns=spns_of(name), keytab=path)
            assert accepts(path, ticket_for(samba_dc, spn))
            admin.delete_account(name, keytab=path)
        if ended:
            break
    assert ended
    assert len(failures) > 3
    if what != "create":
        admin.rotate_keys(name, path)
        newest = Keytab.load(path).find(f"{name}@AD.TEST")[0].kvno
        assert len(Keytab.load(path).find(f"{name}@AD.TEST", newest)) == 2


# Services that run --------------------------------------------------------------------------------


class Clients:
    """Clients that come all the time; each has a new ticket, or the one that all of its kind began with."""

    def __init__(self, *visits: Callable[[], object]) -> None:
        self.count, self.refusals = 0, list[str]()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._come, args=(visit,)) for visit in visits]

    def _come(self, visit: Callable[[], object]) -> None:
        while not self._over.is_set():
            try:
                visit()
            except Exception as error:
                self.refusals.append(f"{type(error).__name__}: {error}")
            self.count += 1

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_a_service_that_runs_sees_each_rotation_and_refuses_nobody(
    samba_dc: SambaDc, service: Path, name: str
) -> None:
    spn = spns_of(name)[1]
    cached = Credential.from_password("acc-client@AD.TEST", samba_dc.password)
    KdcClient(samba_dc.config).get_ticket(cached, spn)
    server = purekrb.listen(("127.0.0.1", 0), Keytab.load(service))

    def serve() -> None:
        for channel in server:
            with channel:
                channel.send(channel.recv())

    thread = threading.Thread(target=serve)
    thread.start()

    def visit(credential: Credential | None = None) -> None:
        credential = credential or Credential.from_password("acc-client@AD.TEST", samba_dc.password)
        with purekrb.connect(server.address, spn, credential, samba_dc.config) as channel:
            channel.send(b"hello")
            assert channel.recv() == b"hello"

    try:
        with Clients(visit, lambda: visit(cached)) as clients:
            for _ in range(4):
                with as_itself_by_key(samba_dc, name, service) as directory:
                    directory.rotate_keys(name, service)
                time.sleep(0.2)
    finally:
        server.close()
        thread.join(10)
    assert clients.refusals == []
    assert clients.count > 20


def test_an_http_service_that_runs_sees_each_rotation_and_refuses_nobody(
    samba_dc: SambaDc, service: Path, name: str, tmp_path: Path
) -> None:
    spn = spns_of(name)[0]

    def start(port: int) -> Daemon:
        argv = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "2"]
        argv += ["--threads", "4", "--no-control-socket", "support.web_apps:wsgi()"]
        env = {
            **samba_dc.env,
            "KRB5_KTNAME": str(service),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        env.pop("LD_PRELOAD")
        ports.append(port)
        return Daemon(argv, env=env, log=tmp_path / "gunicorn.log", port=port)

    ports: list[int] = []
    daemon = on_free_port(start)
    cached = Credential.from_password("acc-client@AD.TEST", samba_dc.password)
    KdcClient(samba_dc.config).get_ticket(cached, spn)

    def visit(credential: Credential | None = None) -> None:
        credential = credential or Credential.from_password("acc-client@AD.TEST", samba_dc.password)
        with requests.Session() as session:
            session.trust_env = False
            session.auth = Negotiate(credential, target=spn, config=samba_dc.config)
            answer = session.get(f"http://127.0.0.1:{ports[-1]}/")
            assert answer.status_code == 200, answer.text
            assert answer.json()["user"] == "acc-client@AD.TEST"

    try:
        with Clients(visit, lambda: visit(cached)) as clients:
            for _ in range(4):
                with as_itself_by_key(samba_dc, name, service) as directory:
                    directory.rotate_keys(name, service)
                time.sleep(0.2)
    finally:
        daemon.stop()
    assert clients.refusals == []
    assert clients.count > 20


ACCEPTOR = """
import base64, sys, gssapi
for line in sys.stdin:
    context = gssapi.SecurityContext(usage="accept", creds=gssapi.Credentials(usage="accept"))
    context.step(base64.b64decode(line))
    print(context.initiator_name, flush=True)
"""


@pytest.mark.parametrize("step", ["the keytab has the old", "the directory has the new"])
@pytest.mark.parametrize("renamed", [False, True])
def test_mits_acceptor_takes_old_and_new_tickets_in_the_midst_of_a_rotation(
    samba_dc: SambaDc, service: Path, name: str, step: str, renamed: bool
) -> None:
    spn, account = spns_of(name)[0], name
    if renamed:  # then the new key has two candidates
        account = f"{name}x"
        samba_dc.modify(
            f"dn: {dn_of(samba_dc, name)}\nchangetype: modify\nreplace: sAMAccountName\n"
            f"sAMAccountName: {account}\n"
        )
    tickets = [ticket_for(samba_dc, spn)]
    assert not run_until(
        1, lambda: _reset_by_administrator(samba_dc, account, service), f"step: {step}"
    )
    tickets.append(ticket_for(samba_dc, spn))
    tokens = [base64.b64encode(Initiator(ticket).step() or b"").decode() for ticket in tickets]
    env = {**samba_dc.env, "KRB5_KTNAME": str(service)}
    argv = [sys.executable, "-c", ACCEPTOR]
    done = subprocess.run(
        argv, env=env, input="\n".join(tokens), capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["acc-client@AD.TEST"] * 2, done.stderr


# Two at once --------------------------------------------------------------------------------------


def test_two_rotations_of_one_keytab_do_not_run_at_once(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str
) -> None:
    with files.turn_at(str(service), what="keytab"):
        before = service.read_bytes()
        with pytest.raises(CredentialError, match="is being changed by another process"):
            admin.rotate_keys(name, service)
        assert service.read_bytes() == before
    admin.rotate_keys(name, service)
    assert accepts(service, ticket_for(samba_dc, spns_of(name)[0]))


def test_of_two_rotations_on_two_hosts_one_wins_and_no_keytab_loses_its_old_keys(
    samba_dc: SambaDc, service: Path, name: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.keytab"
    Keytab.load(service).save(other)
    before = ticket_for(samba_dc, spns_of(name)[0])
    results: list[str] = []
    barrier = threading.Barrier(2)

    def rotate(path: Path) -> None:
        with as_itself_by_key(samba_dc, name, path) as directory:
            barrier.wait()
            try:
                directory.rotate_keys(name, path)
                results.append("won")
            except KerberosError as error:
                results.append(str(error))

    threads = [threading.Thread(target=rotate, args=(path,)) for path in (service, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "won" in results
    assert accepts(service, before)
    assert accepts(other, before)
    now = ticket_for(samba_dc, spns_of(name)[0])
    took = []
    for path in (service, other):
        try:
            took.append(accepts(path, now))
        except KerberosError:
            took.append(False)
    assert any(took)


# Refusals, in words -------------------------------------------------------------------------------


def test_who_may_not_create_is_told_who_has_to_grant_what_and_that_helps(
    samba_dc: SambaDc, name: str, tmp_path: Path
) -> None:
    samba_dc.add_user("acc-deploy")
    parent = f"OU={name},{samba_dc.base}"
    samba_dc.modify(f"dn: {parent}\nchangetype: add\nobjectClass: organizationalUnit\n")
    path = tmp_path / "new.keytab"
    try:
        with as_user(samba_dc, "acc-deploy") as directory:
            with pytest.raises(InsufficientRightsError) as caught:
                directory.create_service_account(
                    name, spns=spns_of(name), keytab=path, parent=parent
                )
            text = str(caught.value)
            assert "acc-deploy may not create users in it" in text
            assert f'dsacls "{parent}" /G "acc-deploy@ad.test:CC;user"' in text
            assert caught.value.code == 0x2098
            assert not path.exists()
            grant(samba_dc, text)
            made = directory.create_service_account(
                name, spns=spns_of(name), keytab=path, parent=parent
            )
            assert made.account.dn.endswith(parent)
            assert accepts(path, ticket_for(samba_dc, spns_of(name)[0]))
    finally:
        samba_dc.delete(parent)


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("rotate_keys", "may not reset its password"),
        ("disable_account", "may not write its userAccountControl"),
        ("delete_account", "may not delete it"),
    ],
)
def test_who_may_not_change_an_account_is_told_who_has_to_grant_what_and_that_helps(
    samba_dc: SambaDc, service: Path, name: str, operation: str, words: str
) -> None:
    samba_dc.add_user("acc-deploy")
    before = service.read_bytes()
    options = {} if operation == "disable_account" else {"keytab": service}
    with as_user(samba_dc, "acc-deploy") as directory:
        with pytest.raises(InsufficientRightsError, match=words) as caught:
            getattr(directory, operation)(name, **options)
        assert service.read_bytes() == before
        assert accepts(service, ticket_for(samba_dc, spns_of(name)[0]))
        grant(samba_dc, str(caught.value))
        getattr(directory, operation)(name, **options)


def grant(dc: SambaDc, text: str) -> None:
    """Run the command of samba-tool that an error names."""
    (command,) = [part for part in text.split("on Samba ") if part.startswith("samba-tool")]
    words = shlex.split(command.rpartition(" (")[0])
    dc.samba_tool(*words[1:])


def test_an_account_of_the_same_name_is_not_taken(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str, tmp_path: Path
) -> None:
    with pytest.raises(DirectoryError, match=r"there is an account .* already") as caught:
        admin.create_service_account(name, keytab=tmp_path / "mine.keytab")
    assert caught.value.code == 0x524
    assert not (tmp_path / "mine.keytab").exists()
    # With its keytab, it is the same account; but not with names that it does not have.
    assert admin.create_service_account(name, spns=spns_of(name), keytab=service).kvno
    with pytest.raises(DirectoryError, match="but without http/other"):
        admin.create_service_account(name, spns=["HTTP/other.ad.test"], keytab=service)


def test_where_no_keytab_can_be_written_nothing_is_begun(
    admin: Directory, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CredentialError, match="directory"):
        admin.create_service_account(name, keytab=tmp_path)
    assert caplog.records == []  # there is nothing to undo, so nothing is left to be done by hand
    with pytest.raises(AccountNotFoundError):
        admin.find_account(name)
    assert admin.create_service_account(name, keytab=tmp_path / "new.keytab").kvno


def test_an_spn_of_another_account_leaves_nothing_behind(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "second.keytab"
    with pytest.raises(SpnNotUniqueError):
        admin.create_service_account("acc-second", spns=spns_of(name), keytab=path)
    with pytest.raises(AccountNotFoundError):
        admin.find_account("acc-second")
    assert not path.exists()


def test_the_password_policy_is_named_and_nothing_changes(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str
) -> None:
    before = Keytab.load(service)
    minimum = "dn: {}\nchangetype: modify\nreplace: minPwdAge\nminPwdAge: {}\n"
    samba_dc.modify(minimum.format(samba_dc.base, -864000000000))
    try:
        with (
            as_itself_by_key(samba_dc, name, service) as directory,
            pytest.raises(PasswordPolicyError, match=r"minimum password age.*--reset"),
        ):
            directory.rotate_keys(name, service)
        assert Keytab.load(service) == before
        with as_itself_by_password(samba_dc, name, service) as directory:
            before = Keytab.load(service)
            with pytest.raises(DirectoryError, match="0000052D ERROR_PASSWORD_RESTRICTION"):
                directory.rotate_keys(name, service)
        assert Keytab.load(service) == before
        admin.rotate_keys(name, service)  # a reset is no change
    finally:
        samba_dc.modify(minimum.format(samba_dc.base, 0))
    assert accepts(service, ticket_for(samba_dc, spns_of(name)[0]))


@pytest.mark.parametrize("who", [as_itself_by_key, as_itself_by_password])
def test_an_account_that_may_not_change_its_password_is_told_who_grants_it(
    samba_dc: SambaDc,
    service: Path,
    name: str,
    who: Callable[[SambaDc, str, Path], Directory],
) -> None:
    change = "OA;;CR;ab721a53-1e2f-11d0-9819-00aa0040529b;"
    sids = ["WD", "PS"]  # everyone, and the account itself
    dn = f"--objectdn={dn_of(samba_dc, name)}"
    for sid in sids:
        samba_dc.samba_tool("dsacl", "set", dn, f"--sddl=(OD;;{change[4:]};{sid})")
    with who(samba_dc, name, service) as directory:
        before = Keytab.load(service)
        with pytest.raises(
            InsufficientRightsError, match="may not change its own password"
        ) as caught:
            directory.rotate_keys(name, service)
        assert Keytab.load(service) == before
        assert "CA;Change Password" in str(caught.value)
        assert re.search(r"\(0000(0005|2098) ERROR_", str(caught.value))
    with as_administrator(samba_dc, name, service) as directory:
        directory.rotate_keys(name, service)  # a reset is another right
    assert accepts(service, ticket_for(samba_dc, spns_of(name)[0]))


def test_a_keytab_without_the_accounts_key_is_no_proof(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str
) -> None:
    stale = service.with_name("stale.keytab")
    Keytab.load(service).save(stale)
    samba_dc.set_password(dn_of(samba_dc, name), "Another-Passw0rd.1")
    with pytest.raises(PreauthFailedError):
        as_itself_by_key(samba_dc, name, stale)
    admin.rotate_keys(name, stale)  # an administrator can give it new ones
    assert accepts(stale, ticket_for(samba_dc, spns_of(name)[0]))


def test_a_password_is_not_sent_over_a_connection_that_is_only_signed(
    samba_dc: SambaDc, service: Path, name: str, tmp_path: Path
) -> None:
    before = service.read_bytes()
    credential = Credential.from_password("Administrator@AD.TEST", samba_dc.password)
    with bound(samba_dc, credential, sealed=False) as directory:
        with pytest.raises(PolicyError, match="encrypted"):
            directory.rotate_keys(name, service)
        with pytest.raises(PolicyError, match="encrypted"):
            directory.create_service_account("acc-plain", keytab=tmp_path / "plain.keytab")
    assert service.read_bytes() == before
    with bound(samba_dc, credential) as directory:
        directory.rotate_keys(name, service)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("", "empty"),
        ("a" * 21, "21 characters"),
        ("a/b", "'/'"),
        ("a@b", "'@'"),
        ("a$", "computer"),
        (" a", "blank"),
        ("a.", "dot"),
        ("a\nb", "no name may have"),
        ("a=b", "'='"),
    ],
)
def test_names_that_no_account_can_have_are_refused_before_anything_is_done(
    admin: Directory, tmp_path: Path, bad: str, words: str
) -> None:
    with pytest.raises(DirectoryError, match=words) as caught:
        admin.create_service_account(bad, keytab=tmp_path / "k")
    assert caught.value.code == 87
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["acc a b", "acc-ä", "acc.dot", "acc#1", "a" * 20])
def test_names_that_are_unusual_work(
    samba_dc: SambaDc, admin: Directory, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "k"
    samba_dc.delete(dn_of(samba_dc, name.replace("#", "\\#")))
    made = admin.create_service_account(name, spns=["HTTP/unusual.ad.test"], keytab=path)
    try:
        with bound(samba_dc, Credential.from_keytab(Keytab.load(path).principals[0], path)) as it:
            it.rotate_keys(name, path)
        assert accepts(path, ticket_for(samba_dc, "HTTP/unusual.ad.test"))
    finally:
        admin.delete_account(made.account.dn, keytab=path)
    assert not path.exists()


def test_no_account_without_a_keytab(
    samba_dc: SambaDc, admin: Directory, name: str, tmp_path: Path
) -> None:
    with pytest.raises(CredentialError, match="no such file or directory"):
        admin.create_service_account(name, keytab=tmp_path / "missing" / "k")
    with pytest.raises(AccountNotFoundError):
        admin.find_account(name)


# The last day -------------------------------------------------------------------------------------


def test_a_disabled_account_gets_no_tickets_and_a_deleted_one_leaves_no_keys(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str
) -> None:
    credential = Credential.from_keytab(f"{name}@AD.TEST", service)
    KdcClient(samba_dc.config).get_tgt(credential)
    for _ in range(2):
        assert admin.disable_account(name).name == name
    (entry,) = samba_dc.search(f"(sAMAccountName={name})", "userAccountControl")
    assert entry["userAccountControl"] == [str(0x10202)]
    with pytest.raises(ClientRevokedError):
        KdcClient(samba_dc.config).get_tgt(Credential.from_keytab(f"{name}@AD.TEST", service))
    admin.delete_account(name, keytab=service)
    with pytest.raises(AccountNotFoundError):
        admin.find_account(name)
    assert not service.exists()


def test_an_account_with_objects_below_it_says_which(samba_dc: SambaDc, admin: Directory) -> None:
    samba_dc.add_computer("ACCBOX")
    child = f"CN=below,CN=ACCBOX,CN=Computers,{samba_dc.base}"
    samba_dc.modify(
        f"dn: {child}\nchangetype: add\nobjectClass: serviceConnectionPoint\nkeywords: x\n"
    )
    with pytest.raises(DirectoryError, match="CN=below,CN=ACCBOX"):
        admin.delete_account("ACCBOX$")
    samba_dc.delete(child)
    admin.delete_account("ACCBOX$")


# The command --------------------------------------------------------------------------------------


def test_the_commands_take_an_account_through_its_life(
    samba_dc: SambaDc,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache, keytab = tmp_path / "cc", tmp_path / "web.keytab"
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{cache}")
    monkeypatch.setenv("KRB5_CONFIG", str(samba_dc.krb5_conf))
    credential = Credential.from_password("Administrator@AD.TEST", samba_dc.password)
    KdcClient(samba_dc.config).get_tgt(credential)
    credential.save(cache)
    ldap = ("--ldap", f"ldap://{samba_dc.address}", "--target", f"ldap/{samba_dc.host}")

    def run(*argv: str) -> str:
        assert main(["account", *argv, *ldap]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    spns = [word for spn in spns_of(name) for word in ("--spn", spn)]
    made = json.loads(run("create", name, *spns, "-t", str(keytab), "--json"))
    assert made["account"] == name
    assert (
        run("rotate", name, "-t", str(keytab), "--reset").splitlines()[0].startswith("rotated CN=")
    )
    cache.unlink()  # from here on, the account needs nobody
    out = json.loads(run("rotate", name.upper(), "-t", str(keytab), "--keep", "1d", "--json"))
    assert out["kvno"] == made["kvno"] + 2
    assert out["kept"] == [made["kvno"], made["kvno"] + 1]
    assert accepts(keytab, ticket_for(samba_dc, spns_of(name)[0]))
    assert main(["account", "rotate", "nobody", "-t", str(keytab), *ldap]) == 7
    assert "the keytab has no key of nobody itself" in capsys.readouterr().err
    stale = tmp_path / "stale.keytab"
    Keytab.from_password(f"{name}@{samba_dc.realm}", "another").save(stale)
    assert main(["account", "rotate", name, "-t", str(stale), *ldap]) == 3
    assert "with --reset" in capsys.readouterr().err
    credential.save(cache)
    status = run("status", name, "-t", str(keytab))
    assert f"salt: AD.TEST{name}\n" in status
    assert "enabled: yes\n" in status
    told = json.loads(run("status", name, "-t", str(keytab), "--json"))
    assert (told["kvno"], told["warnings"]) == (out["kvno"], [])
    assert run("disable", name).startswith("disabled CN=")
    assert run("delete", name, "-t", str(keytab)).startswith("deleted CN=")
    assert not keytab.exists()


# Secrets ------------------------------------------------------------------------------------------


class Watched:
    """Random bytes that are remembered, so that the passwords made of them are known."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self.passwords: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        block = os.urandom(size)
        self._blocks.append(block)
        return block

    def made(self) -> bytes:
        """Return the password that was made of the blocks since the last call."""
        blocks = iter(self._blocks)
        self.passwords.append(random_password(lambda _size: next(blocks)))
        self._blocks = []
        return self.passwords[-1]


def secrets_of(password: bytes, *keytabs: Path) -> list[bytes]:
    keys = [e.key.contents for path in keytabs if path.exists() for e in Keytab.load(path)]
    return [password, password.decode().encode("utf-16-le"), *dict.fromkeys(keys)]


def test_no_password_or_key_is_shown_logged_or_left_anywhere(
    samba_dc: SambaDc, admin: Directory, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="purekrb")
    path, watched = tmp_path / "k", Watched()
    sessions = admin._sessions
    texts: list[str] = []
    secrets: list[bytes] = []

    def note(result: object) -> None:
        secrets.extend(secrets_of(watched.made(), path))
        texts.append(canaries.expand(result))

    note(
        service_accounts.create(
            sessions.writer,
            sessions.forest,
            sessions.kdc(),
            name,
            path,
            spns=spns_of(name),
            random=watched,
        )
    )
    note(
        rotation.rotate(
            sessions.writer, sessions.kdc(), sessions.credential, name, path, random=watched
        )
    )
    with as_itself_by_key(samba_dc, name, path) as it:
        own = it._sessions
        note(rotation.rotate(own.writer, own.kdc(), own.credential, name, path, random=watched))
    texts += [repr(Keytab.load(path)), repr(admin), caplog.text]
    assert len(watched.passwords) == 3
    assert canaries.leaks("\n".join(texts), secrets) == []
    # The password is in no file; the keys are in the keytab alone.
    for file in tmp_path.rglob("*"):
        data = file.read_bytes()
        assert not any(password in data for password in watched.passwords)
        assert file == path or not any(secret in data for secret in secrets)
    # What is looked for would be found.
    assert canaries.leaks(repr(watched.passwords[0]), secrets) != []


@pytest.mark.parametrize("failure", ["rights", "exists", "policy", "own policy", "gone", "file"])
def test_no_password_or_key_is_in_an_error(
    samba_dc: SambaDc,
    admin: Directory,
    service: Path,
    name: str,
    tmp_path: Path,
    failure: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither in its text nor in the locals of its frames."""
    watched, secrets = Watched(), secrets_of(b"-", service)[2:]
    minimum = "dn: {}\nchangetype: modify\nreplace: minPwdAge\nminPwdAge: {}\n"
    samba_dc.add_user("acc-nobody")
    new = tmp_path / "new"

    def rotate(directory: Directory, keytab: Path = service) -> None:
        own = directory._sessions
        rotation.rotate(own.writer, own.kdc(), own.credential, name, keytab, random=watched)

    def create(directory: Directory, account: str, keytab: Path = new) -> None:
        own = directory._sessions
        service_accounts.create(own.writer, own.forest, own.kdc(), account, keytab, random=watched)

    def provoke() -> None:
        if failure == "rights":
            with as_user(samba_dc, "acc-nobody") as directory:
                rotate(directory)
        elif failure == "exists":  # found out by the directory alone
            monkeypatch.setattr(service_accounts, "_existing", lambda *_: None)
            create(admin, name)
        elif failure == "policy":
            with as_itself_by_password(samba_dc, name, service) as directory:
                rotate(directory)
        elif failure == "own policy":
            with as_itself_by_key(samba_dc, name, service) as directory:
                rotate(directory)
        elif failure == "gone":
            with Relay(samba_dc, 9) as relay:
                credential = Credential.from_password("Administrator@AD.TEST", samba_dc.password)
                url = f"ldap://{relay.address}"
                with Directory.connect(
                    url, credential, samba_dc.config, f"ldap/{samba_dc.host}", timeout=5
                ) as directory:
                    rotate(directory)
        else:
            create(admin, "acc-nowhere", tmp_path / "missing" / "k")

    if "policy" in failure:
        samba_dc.modify(minimum.format(samba_dc.base, -864000000000))
    try:
        with pytest.raises(KerberosError) as caught:
            provoke()
    finally:
        samba_dc.modify(minimum.format(samba_dc.base, 0))
    if failure != "file":  # it failed before there was a password
        secrets += secrets_of(watched.made(), service, new)
    text = canaries.shown(caught.value) + canaries.printed(caught.value)
    assert canaries.leaks(text, secrets) == []


# Its state ----------------------------------------------------------------------------------------


def test_the_state_of_an_account_tells_flags_key_salt_and_times(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str
) -> None:
    status = admin.account_status(name, keytab=service)
    assert (status.account.name, status.enabled, status.locked) == (name, True, False)
    assert (status.etypes, status.salt) == (24, f"AD.TEST{name}")
    assert status.keytab == (status.kvno,)
    assert status.password_set is not None
    assert abs(time.time() - status.password_set.timestamp()) < 60
    assert (status.password_ends, status.ends, status.warnings) == (None, None, ())
    assert {finding.status for finding in status.findings} == {"ok"}
    admin.rotate_keys(name, service)
    assert admin.account_status(name, keytab=service).keytab == (status.kvno, status.kvno + 1)
    assert admin.account_status(name, ask_kdc=False).salt is None


def test_the_state_of_an_account_tells_what_is_wrong_with_it(
    samba_dc: SambaDc, admin: Directory, service: Path, name: str
) -> None:
    # A rotation that died before the directory had the key.
    start = "step: the keytab has the old and the new keys"
    assert not run_until(1, lambda: _reset_by_administrator(samba_dc, name, service), start)
    (unfinished,) = admin.account_status(name, keytab=service).warnings
    assert "has begun and not ended" in unfinished
    assert f"purekrb account rotate {name}" in unfinished
    admin.rotate_keys(name, service)
    assert admin.account_status(name, keytab=service).warnings == ()
    admin.change_account_spns(name, add=[f"imap/{name}.ad.test"])
    (missing,) = admin.account_status(name, keytab=service).warnings
    assert f"no current key under imap/{name}.ad.test@AD.TEST" in missing
    admin.disable_account(name)
    status = admin.account_status(name)
    assert status.enabled is False
    assert any("is disabled" in warning for warning in status.warnings)


def _reset_by_administrator(dc: SambaDc, name: str, keytab: Path) -> None:
    with as_user(dc, dc.administrator) as directory:
        directory.rotate_keys(name, keytab)


# The page -----------------------------------------------------------------------------------------


def test_the_commands_and_the_program_of_the_page_work(
    samba_dc: SambaDc, name: str, tmp_path: Path
) -> None:
    beginning = PAGE[: PAGE.index("\n## ")]
    kinit, *commands = re.findall(
        r"^    \$ sudo (?:-u svc-web )?(purekrb .*)$", beginning, re.MULTILINE
    )
    assert kinit == "purekrb kinit Administrator"
    (program,) = re.findall(r"^```py\n(.*?)^```$", beginning, re.MULTILINE | re.DOTALL)
    cache, keytab = tmp_path / "cc", tmp_path / "web.keytab"
    credential = Credential.from_password("Administrator@AD.TEST", samba_dc.password)
    KdcClient(samba_dc.config).get_tgt(credential)
    credential.save(cache)
    env = {**samba_dc.env, "KRB5CCNAME": f"FILE:{cache}"}
    ours = {
        "/var/lib/svc-web/service.keytab": str(keytab),
        "--owner svc-web": "--owner root",
        "svc-web": name,
        "web.ad.test": f"{name}.ad.test",
    }

    def run(*argv: str) -> str:
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def adapted(text: str) -> str:
        for theirs, our in ours.items():
            assert theirs in PAGE
            text = text.replace(theirs, our)
        return text

    assert len(commands) == 2
    for command in commands:
        words = shlex.split(adapted(command))
        out = run(*ARGV, *words[1:], "--ldap", f"ldap://{samba_dc.host}")
    assert out.endswith(": kvno 2, and 1 for older tickets\n")
    with as_user(samba_dc, samba_dc.administrator) as directory:
        directory.delete_account(name, keytab=keytab)
    script = tmp_path / "page.py"
    script.write_text(adapted(program))
    assert run(sys.executable, str(script)) == "2\n"


def test_the_page_has_every_error_and_every_right() -> None:
    for number, (error, _) in WINDOWS_ERRORS.items():
        assert f"{number}" in PAGE, error
    for right in RIGHTS.values():
        assert f"`{right.dsacls}`" in PAGE
