"""Class ROTATION: accounts and their keys, where directory, KDC, keytab or caller are not what they seem."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from purekrb import Credential, KdcClient, Keytab
from purekrb.credentials import files
from purekrb.directory import rotation, service_accounts
from purekrb.directory.account_keys import ETYPES_OF_KEYS
from purekrb.directory.ldap import Change, ChangeOperation, LdapSession
from purekrb.errors import (
    CredentialError,
    DirectoryError,
    KerberosError,
    PolicyError,
    TransportError,
)
from purekrb.testing import Realm
from support.domain import Domain

NAME, OWN, SPN = "svc-web", "svc-web@EXAMPLE.TEST", "HTTP/web.example.test"


@pytest.fixture
def domain() -> Iterator[Domain]:
    with Realm("EXAMPLE.TEST") as realm:
        yield Domain(realm)


def create(domain: Domain, keytab: Path, name: str = NAME, **options: object) -> int:
    session = domain.session
    made = service_accounts.create(
        session, session, domain.kdc, name, keytab, spns=[SPN], **options
    )  # type: ignore[arg-type]
    return made.kvno


def rotate(domain: Domain, keytab: Path) -> rotation.RotatedKeys:
    return rotation.rotate(domain.session, domain.kdc, domain.administrator, NAME, keytab)


def kvnos(keytab: Path) -> list[int]:
    return [entry.kvno for entry in Keytab.load(keytab).find(OWN)]


def logs_in(domain: Domain, keytab: Path) -> bool:
    return (
        str(KdcClient(domain.realm.config).get_tgt(Credential.from_keytab(OWN, keytab)).client)
        == OWN
    )


def test_what_is_tried_here_works_where_nobody_interferes(domain: Domain, tmp_path: Path) -> None:
    path = tmp_path / "k"
    assert create(domain, path) == 1
    assert rotate(domain, path).kvno == 2
    assert kvnos(path) == [2, 2, 1, 1]
    assert logs_in(domain, path)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("x,OU=Admins", id="K630-another-dn"),
        pytest.param("x)(cn=*", id="K630-filter"),
        pytest.param("*", id="K630-wildcard"),
        pytest.param("a\x00b", id="K630-nul"),
        pytest.param("WEB$", id="K630-computer"),
        pytest.param("a" * 21, id="K630-long"),
        pytest.param("DOMAIN\\a", id="K630-domain"),
        pytest.param("a\u202eb", id="K630-invisible"),
        pytest.param("a@b", id="K630-upn"),
        pytest.param("S-1-5-32-544", id="K630-sid"),
    ],
)
def test_a_name_that_is_none_reaches_neither_directory_nor_keytab(
    domain: Domain, tmp_path: Path, name: str
) -> None:
    before = len(domain.session.search(domain.session.base_dn, "(objectClass=*)"))
    with pytest.raises(DirectoryError) as caught:
        create(domain, tmp_path / "k", name)
    assert caught.value.code == 87
    assert len(domain.session.search(domain.session.base_dn, "(objectClass=*)")) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["#sharp", "a b", "-a", "ä"])
def test_a_name_that_is_odd_stays_one_name(domain: Domain, tmp_path: Path, name: str) -> None:
    session = domain.session
    made = service_accounts.create(session, session, domain.kdc, name, tmp_path / "k")
    assert made.account.name == name
    assert made.account.dn.endswith(f",CN=Users,{session.base_dn}")


@pytest.mark.parametrize(
    ("told", "kvno"),
    [
        pytest.param("7", 2, id="K631-another"),
        pytest.param("-65534", 2, id="K631-negative"),
        pytest.param("65538", 65538, id="K631-read-only"),
        pytest.param("0", 2, id="K631-zero"),
    ],
)
def test_the_kvno_is_the_kdcs_whatever_the_directory_tells(
    domain: Domain, tmp_path: Path, told: str, kvno: int
) -> None:
    path = tmp_path / "k"
    create(domain, path)
    domain.session.told = told
    result = rotate(domain, path)
    assert result.kvno in (kvno, int(told) & 0xFFFFFFFF)
    assert result.kvno & 0xFFFF == 2
    assert logs_in(domain, path)


@pytest.mark.parametrize("told", ["x", "99999999999999999999", "1e3"])
def test_k632_a_kvno_that_is_no_number_ends_it_before_anything_is_changed(
    domain: Domain, tmp_path: Path, told: str
) -> None:
    path = tmp_path / "k"
    create(domain, path)
    before = path.read_bytes()
    domain.session.told = told
    with pytest.raises(DirectoryError, match="expected a number"):
        rotate(domain, path)
    assert path.read_bytes() == before
    assert logs_in(domain, path)


def test_k633_a_salt_that_was_forged_before_the_change_makes_no_key(
    domain: Domain, tmp_path: Path
) -> None:
    path = tmp_path / "k"
    create(domain, path)
    domain.realm.add_user(NAME, "of somebody else", kvno=1, salt="forged", etypes=ETYPES_OF_KEYS)
    rotate(domain, path)
    assert kvnos(path)[:2] == [2, 2]
    assert kvnos(path).count(2) == 2  # the candidate of the forged salt is gone
    assert logs_in(domain, path)


def test_k634_a_salt_that_nobody_expects_is_taken_from_the_kdc(
    domain: Domain, tmp_path: Path
) -> None:
    path = tmp_path / "k"
    create(domain, path)
    domain.session.salt = "another rule"
    rotate(domain, path)
    assert kvnos(path).count(2) == 2
    assert logs_in(domain, path)


def writable_by_all(path: Path) -> None:
    path.chmod(0o622)


def link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name("real"))


def another_owner(path: Path) -> None:
    os.chown(path, 12345, -1)


def junk(path: Path) -> None:
    path.write_bytes(b"not a keytab")


SPOILT = {"writable": writable_by_all, "link": link, "junk": junk}
if os.geteuid() == 0:  # nobody else can give a file away
    SPOILT["owner"] = another_owner


@pytest.mark.parametrize(
    "spoil", [pytest.param(spoil, id=f"K635-{name}") for name, spoil in SPOILT.items()]
)
def test_a_keytab_that_cannot_be_trusted_ends_it_before_the_directory_is_changed(
    domain: Domain, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "k"
    create(domain, path)
    keys = Keytab.load(path)
    spoil(path)
    with pytest.raises(KerberosError):
        rotate(domain, path)
    keys.save(tmp_path / "copy")
    assert logs_in(domain, tmp_path / "copy")


def test_k636_a_refused_change_leaves_the_keytab_as_it_was(domain: Domain, tmp_path: Path) -> None:
    path = tmp_path / "k"
    create(domain, path)
    before = Keytab.load(path)
    domain.session.refusal = DirectoryError("no", code=1325, ldap_result=19)
    with pytest.raises(DirectoryError, match="no"):
        rotate(domain, path)
    assert Keytab.load(path) == before
    domain.session.refusal = None
    assert rotate(domain, path).kvno == 2


def test_k637_a_refused_creation_leaves_nothing(domain: Domain, tmp_path: Path) -> None:
    domain.session.refusal = PolicyError("no")
    with pytest.raises(PolicyError):
        create(domain, tmp_path / "k")
    assert not list(tmp_path.iterdir())
    domain.session.refusal = None
    assert create(domain, tmp_path / "k") == 1


def test_k638_an_answer_that_is_lost_leaves_both_keys(domain: Domain, tmp_path: Path) -> None:
    path = tmp_path / "k"
    create(domain, path)
    domain.session.refusal = TransportError("the connection ended")
    with pytest.raises(TransportError, match="the KDC has the old one") as caught:
        rotate(domain, path)
    assert "has the old and the new keys" in str(caught.value)
    assert kvnos(path) == [2, 2, 1, 1]
    assert logs_in(domain, path)
    domain.realm.__exit__(None, None, None)  # and now nobody answers
    with pytest.raises(TransportError):
        rotate(domain, path)
    assert kvnos(path)[-2:] == [1, 1]


@pytest.mark.parametrize(
    "spns",
    [
        pytest.param(["//", "a", "HTTP/\x1b[2J"], id="K639-malformed"),
        pytest.param([f"HTTP/h{n}.example.test" for n in range(2000)], id="K639-many"),
    ],
)
def test_names_that_others_wrote_into_the_account_do_not_hinder_its_rotation(
    domain: Domain, tmp_path: Path, spns: list[str]
) -> None:
    path = tmp_path / "k"
    create(domain, path)
    dn = f"CN={NAME},CN=Users,{domain.session.base_dn}"
    change = Change(ChangeOperation.REPLACE, "servicePrincipalName", spns)
    LdapSession.modify(domain.session, dn, [change])
    rotate(domain, path)
    assert logs_in(domain, path)
    assert len(Keytab.load(path)) >= 2


def test_one_rotation_at_a_time(domain: Domain, tmp_path: Path) -> None:
    path = tmp_path / "k"
    create(domain, path)
    with (
        files.turn_at(path, what="keytab"),
        pytest.raises(CredentialError, match="is being changed"),
    ):
        rotate(domain, path)
    assert rotate(domain, path).kvno == 2
