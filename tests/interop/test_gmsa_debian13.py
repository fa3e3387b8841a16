"""Managed accounts at a directory that makes their passwords: Samba of Debian 13. Only with PUREKRB_SOAK=1."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from purekrb import Acceptor, Credential, Initiator, KdcClient
from purekrb.directory.ldap import ANY_OBJECT, Scope
from purekrb.directory.managed_accounts import ManagedPassword
from purekrb.errors import DirectoryError, InsufficientRightsError, PolicyError
from purekrb.replay import MemoryReplayCache
from support.debian13 import ManagingDc, chroot


@pytest.fixture(scope="module")
def dc() -> Iterator[ManagingDc]:
    dc = ManagingDc(chroot())
    try:
        for name in ("web1", "web2"):
            dc.samba_tool("computer", "create", name)
            dc.samba_tool("user", "setpassword", f"{name}$", f"--newpassword={dc.password}")
        dc.samba_tool("user", "create", "alice", dc.password)
        yield dc
    finally:
        dc.stop()


SPN = "HTTP/gmsa-web.t22.test"


@pytest.fixture(scope="module")
def account(dc: ManagingDc) -> str:
    """The DN of a managed account whose password WEB1 may read."""
    with dc.bound("Administrator") as admin:
        return admin.create_managed_account("gmsa-web", spns=[SPN], permitted=["web1$"]).dn


def accepts(dc: ManagingDc, keys: object, name: str = SPN) -> bool:
    """Whether an acceptor with `keys` takes a new ticket of alice, and proves itself."""
    alice = Credential.from_password(f"alice@{dc.realm}", dc.password)
    initiator = Initiator(KdcClient(dc.config).get_ticket(alice, name))
    acceptor = Acceptor(keys, replay_cache=MemoryReplayCache())  # type: ignore[arg-type]
    initiator.step(acceptor.step(initiator.step()))
    return initiator.established and str(acceptor.initiator) == f"alice@{dc.realm}"


def test_a_host_that_may_runs_a_service_under_a_managed_account(
    dc: ManagingDc, account: str
) -> None:
    with dc.bound("web1$") as host:
        keytab = host.managed_keytab("gmsa-web")
        assert {str(one) for one in keytab.principals} == {
            f"gmsa-web$@{dc.realm}",
            f"{SPN}@{dc.realm}",
        }
        assert 0 < keytab.next_query <= 30 * 86400
        assert accepts(dc, keytab)
        credential = Credential.from_gmsa(host, "gmsa-web$")
        ticket = KdcClient(dc.config).get_tgt(credential)
        assert str(ticket.client) == f"gmsa-web$@{dc.realm}"


def test_who_may_not_read_is_told_so_until_it_is_permitted(dc: ManagingDc, account: str) -> None:
    for name in ("alice", "web2$", "Administrator"):
        with dc.bound(name) as other, pytest.raises(InsufficientRightsError, match="may not read"):
            other.managed_keytab("gmsa-web")
    with dc.bound("web2$") as other, pytest.raises(InsufficientRightsError):
        other.permit_managed_account("gmsa-web", ["web2$"])
    with dc.bound("Administrator") as admin:
        admin.permit_managed_account("gmsa-web", ["web2$"])
    with dc.bound("web2$") as other:
        assert accepts(dc, other.managed_keytab("gmsa-web"))
    with dc.bound("web1$") as host:
        assert accepts(dc, host.managed_keytab("gmsa-web"))
    # samba-tool reads the list as its own.
    members = dc.samba_tool("service-account", "group-msa-membership", "show", "--name=gmsa-web$")
    assert all(name in members for name in ("web1", "web2"))


def test_neither_side_sends_a_password_on_an_unsealed_connection(
    dc: ManagingDc, account: str
) -> None:
    with dc.bound("web1$", sealed=False) as host:
        with pytest.raises(PolicyError, match="not encrypted"):
            host.managed_keytab("gmsa-web")
        with pytest.raises(DirectoryError, match="requires an encrypted connection"):
            host._session.search(account, ANY_OBJECT, ("msDS-ManagedPassword",), scope=Scope.BASE)


def test_both_keys_are_there_after_a_change_and_the_service_goes_on(
    dc: ManagingDc, account: str
) -> None:
    with dc.bound("web1$") as host:
        running = host.managed_keytab("gmsa-web")
        credential = Credential.from_gmsa(host, "gmsa-web")
        for _ in range(2):
            dc.age_password(account, 31 * 24)
            kvnos = {entry.kvno for entry in running.current()}
            for source in (running._source, credential._keytab._source):  # type: ignore[union-attr]
                source.due = 0.0  # as after 30 days
            newer = running.current()
            assert max(entry.kvno for entry in newer) == max(kvnos) + 1
            assert len({entry.kvno for entry in newer}) == 2
            assert accepts(dc, running)
            credential.ccache = type(credential.ccache)(credential.principal)
            assert KdcClient(dc.config).get_tgt(credential)
            assert credential.kvno == max(entry.kvno for entry in newer)
        (entry,) = host._session.search(
            account, ANY_OBJECT, ("msDS-ManagedPassword",), scope=Scope.BASE
        )
        password = ManagedPassword.decode(entry.attributes["msDS-ManagedPassword"][0])
        assert password.previous is not None


def test_the_command_writes_a_keytab_that_mit_takes(
    dc: ManagingDc, account: str, tmp_path: Path
) -> None:
    env = {"KRB5_CONFIG": str(dc.krb5_conf), "KRB5CCNAME": f"FILE:{tmp_path}/cc"}

    def run(*arguments: str, text: str = "") -> str:
        argv = [sys.executable, "-m", "purekrb", *arguments]
        done = subprocess.run(
            argv, env={**os.environ, **env}, input=text, capture_output=True, text=True, check=True
        )
        return done.stdout

    run("kinit", "web1$", text=dc.password)
    keytab = tmp_path / "gmsa.keytab"
    arguments = ("--ldap", f"ldap://{dc.address}", "--target", f"ldap/{dc.host}/{dc.domain}")
    for _ in range(2):
        told = run("keytab", "gmsa", "gmsa-web", "-t", str(keytab), *arguments)
        assert "get the next password after" in told
    argv = ["kinit", "-k", "-t", str(keytab), "-c", f"FILE:{tmp_path}/mit", "gmsa-web$"]
    subprocess.run(argv, env={**os.environ, **env}, check=True)
