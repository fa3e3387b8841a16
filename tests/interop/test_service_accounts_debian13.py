"""Accounts of services at Samba of Debian 13, as in test_service_accounts.py. Only with PUREKRB_SOAK=1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from purekrb import Acceptor, Credential, Initiator, KdcClient, Keytab, ServiceTicket
from purekrb.directory import Directory
from purekrb.errors import DirectoryError, InsufficientRightsError, PasswordPolicyError
from purekrb.replay import MemoryReplayCache
from support.debian13 import ManagingDc, chroot

NAME, OWN, SPN = "svc-web", "svc-web@T22.TEST", "HTTP/web.t22.test"


@pytest.fixture(scope="module")
def dc() -> Iterator[ManagingDc]:
    dc = ManagingDc(chroot())
    try:
        for name in ("alice", "deploy"):
            dc.samba_tool("user", "create", name, dc.password)
        dc.modify(dc.base, {"minPwdAge": "0"})
        yield dc
    finally:
        dc.stop()


@pytest.fixture
def keytab(dc: ManagingDc, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "k"
    with dc.bound("Administrator") as directory:
        made = directory.create_service_account(NAME, spns=[SPN], keytab=path)
        assert {entry.kvno for entry in Keytab.load(path)} == {made.kvno}
        yield path
        directory.delete_account(NAME, keytab=path)
    assert not path.exists()


def ticket(dc: ManagingDc) -> ServiceTicket:
    credential = Credential.from_password(f"alice@{dc.realm}", dc.password)
    return KdcClient(dc.config).get_ticket(credential, f"{SPN}@{dc.realm}")


def accepts(keytab: Path, ticket: ServiceTicket) -> bool:
    acceptor = Acceptor(Keytab.load(keytab), replay_cache=MemoryReplayCache())
    initiator = Initiator(ticket)
    initiator.step(acceptor.step(initiator.step()))
    return acceptor.established and initiator.established


def as_itself(dc: ManagingDc, credential: Credential) -> Directory:
    return Directory.connect(
        f"ldap://{dc.address}", credential, dc.config, f"ldap/{dc.host}/{dc.domain}"
    )


def by_key(dc: ManagingDc, keytab: Path) -> Directory:
    return as_itself(dc, Credential.from_keytab(OWN, keytab))


def by_password(dc: ManagingDc, keytab: Path) -> Directory:
    dc.samba_tool("user", "setpassword", NAME, "--newpassword=Known-Passw0rd.1")
    credential = Credential.from_password(OWN, "Known-Passw0rd.1")
    KdcClient(dc.config).make_keytab(credential).save(keytab)
    return as_itself(dc, credential)


def by_administrator(dc: ManagingDc, keytab: Path) -> Directory:
    return dc.bound("Administrator")


@pytest.mark.parametrize("who", [by_key, by_password, by_administrator])
def test_keys_are_rotated_and_old_tickets_work_on(
    dc: ManagingDc, keytab: Path, who: Callable[[ManagingDc, Path], Directory]
) -> None:
    with who(dc, keytab) as directory:
        old = ticket(dc)
        rotated = directory.rotate_keys(NAME, keytab)
        assert rotated.previous_kvno is not None
        assert rotated.kvno > rotated.previous_kvno
    assert accepts(keytab, old)
    assert accepts(keytab, ticket(dc))
    assert len(Keytab.load(keytab).find(OWN, rotated.kvno)) == 2
    with dc.bound("Administrator") as directory:
        assert directory.account_status(NAME, keytab=keytab).warnings == ()


@pytest.mark.parametrize("attribute", ["sAMAccountName", "userPrincipalName"])
def test_the_salt_is_the_kdcs_also_after_a_rename(
    dc: ManagingDc, keytab: Path, attribute: str
) -> None:
    value = "svc-other" if attribute == "sAMAccountName" else "HTTP/web.t22.test@t22.test"
    dn = f"CN={NAME},CN=Users,{dc.base}"
    dc.modify(dn, {attribute: value})
    with dc.bound("Administrator") as directory:
        account = directory.find_account(dn).name
        directory.rotate_keys(dn, keytab)
        assert accepts(keytab, ticket(dc))
        KdcClient(dc.config).get_tgt(Credential.from_keytab(f"{account}@{dc.realm}", keytab))
    dc.modify(dn, {"sAMAccountName": NAME})


def test_refusals_are_told_in_words(dc: ManagingDc, keytab: Path, tmp_path: Path) -> None:
    with dc.bound("deploy") as directory:
        with pytest.raises(InsufficientRightsError, match=r"may not create users .* \(00002098"):
            directory.create_service_account("svc-second", keytab=tmp_path / "second")
        with pytest.raises(InsufficientRightsError, match="may not reset its password"):
            directory.rotate_keys(NAME, keytab)
        with pytest.raises(InsufficientRightsError, match="may not delete it"):
            directory.delete_account(NAME)
    before = Keytab.load(keytab)
    dc.modify(dc.base, {"minPwdAge": "-864000000000"})
    with by_key(dc, keytab) as directory, pytest.raises(PasswordPolicyError, match="minimum"):
        directory.rotate_keys(NAME, keytab)
    assert Keytab.load(keytab) == before
    with by_password(dc, keytab) as directory, pytest.raises(DirectoryError, match="0000052D"):
        directory.rotate_keys(NAME, keytab)
    dc.modify(dc.base, {"minPwdAge": "0"})
