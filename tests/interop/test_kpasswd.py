"""Passwords changed and set at MIT's kadmind, Heimdal's kpasswdd and Samba's domain controller."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from purekrb import Credential, KdcClient, ServiceTicket, errors
from support.heimdal import HeimdalRealm
from support.kpasswd import HeimdalKpasswdd, MitKadmind, with_server
from support.mit import MitRealm
from support.samba import SambaDc

OLD, NEW, THIRD = "Old-pass1", "New-pass2", "Third-pass3"


@pytest.fixture(scope="module")
def kadmind(mit_realm: MitRealm) -> Iterator[MitKadmind]:
    server = MitKadmind(mit_realm)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def kpasswdd(heimdal_realm: HeimdalRealm) -> Iterator[HeimdalKpasswdd]:
    server = HeimdalKpasswdd(heimdal_realm)
    yield server
    server.stop()


def tgt(client: KdcClient, principal: str, password: str) -> ServiceTicket:
    return client.get_tgt(Credential.from_password(principal, password))


def new_name() -> str:
    return f"u{secrets.token_hex(4)}"


# --- MIT


@pytest.mark.parametrize("server", ["tcp/127.0.0.1", "udp/127.0.0.1", "tcp/[::1]", "udp/[::1]"])
def test_mit_changes_a_password_that_must_be_changed(kadmind: MitKadmind, server: str) -> None:
    user = kadmind.realm.addprinc(new_name(), OLD, flags="+needchange -policy strict")
    client = KdcClient(kadmind.config(server))
    with pytest.raises(errors.PasswordExpiredError):
        tgt(client, user, OLD)
    client.change_password(Credential.from_password(user, OLD), NEW)
    assert tgt(client, user, NEW)
    with pytest.raises(errors.PreauthFailedError):
        tgt(client, user, OLD)


@pytest.mark.parametrize(
    ("new", "words"), [("a", "too short"), ("aaaaaaaaaa", "classes"), (OLD, "used previously")]
)
def test_mits_rules_are_told_in_its_words_and_change_nothing(
    kadmind: MitKadmind, new: str, words: str
) -> None:
    user = kadmind.realm.addprinc(new_name(), OLD, flags="-policy strict")
    client = KdcClient(kadmind.config("127.0.0.1"))
    with pytest.raises(errors.PasswordPolicyError, match=words) as caught:
        client.change_password(Credential.from_password(user, OLD), new)
    assert "\\" not in str(caught.value)  # the server's lines, without escapes
    assert tgt(client, user, OLD)


def test_mit_lets_an_administrator_set_a_password(kadmind: MitKadmind) -> None:
    user = kadmind.realm.addprinc(new_name(), OLD)
    client = KdcClient(kadmind.config("127.0.0.1"))
    boss = Credential.from_password(f"boss/admin@{kadmind.realm.realm}", "bosspw")
    client.set_password(boss, user.partition("@")[0], NEW)
    assert tgt(client, user, NEW)
    with pytest.raises(errors.KdcError, match="Unauthorized request"):
        client.set_password(Credential.from_password(user, NEW), "user", THIRD)
    assert tgt(client, "user@MIT.TEST", "userpw")


def test_mit_refuses_a_ticket_that_comes_from_a_tgt(kadmind: MitKadmind) -> None:
    client = KdcClient(kadmind.config("127.0.0.1"))
    boss = Credential.from_password(f"boss/admin@{kadmind.realm.realm}", "bosspw")
    client.get_tgt(boss)
    with pytest.raises(errors.KdcError, match="TGT BASED NOT ALLOWED"):
        client.set_password(Credential.from_ccache(boss.ccache), "user", NEW)


# --- Heimdal, which listens on UDP alone


def test_heimdal_changes_and_sets_passwords(kpasswdd: HeimdalKpasswdd) -> None:
    realm = kpasswdd.realm.realm
    name = new_name()
    kpasswdd.realm.kadmin(f"add --use-defaults --password={OLD} {name}")
    user = f"{name}@{realm}"
    client = KdcClient(kpasswdd.config)
    client.change_password(Credential.from_password(user, OLD), NEW)
    assert tgt(client, user, NEW)
    with pytest.raises(errors.PasswordPolicyError, match="Password too short"):
        client.change_password(Credential.from_password(user, NEW), "a")
    boss = Credential.from_password(f"boss/admin@{realm}", "bosspw")
    client.set_password(boss, name, THIRD)
    assert tgt(client, user, THIRD)
    with pytest.raises(errors.KdcError, match="permission denied"):
        client.set_password(Credential.from_password(user, THIRD), "user", NEW)


def test_heimdals_server_is_found_by_udp_where_tcp_is_refused(kpasswdd: HeimdalKpasswdd) -> None:
    realm = kpasswdd.realm.realm
    name = new_name()
    kpasswdd.realm.kadmin(f"add --use-defaults --password={OLD} {name}")
    config = with_server(kpasswdd.realm.config, realm, f"127.0.0.1:{kpasswdd.port}")
    KdcClient(config).change_password(Credential.from_password(f"{name}@{realm}", OLD), NEW)
    assert tgt(KdcClient(config), f"{name}@{realm}", NEW)


# --- Samba


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_samba_changes_a_password_that_must_be_changed(samba_dc: SambaDc, transport: str) -> None:
    name = new_name()
    dn = samba_dc.add_user(name, "Old-passw0rd")
    samba_dc.modify(f"dn: {dn}\nchangetype: modify\nreplace: pwdLastSet\npwdLastSet: 0\n")
    user = f"{name}@{samba_dc.realm}"
    server = f"{transport}/{samba_dc.address}:464"
    client = KdcClient(with_server(samba_dc.config, samba_dc.realm, server))
    with pytest.raises(errors.PasswordExpiredError):
        tgt(client, user, "Old-passw0rd")
    client.change_password(Credential.from_password(user, "Old-passw0rd"), "New-passw0rd.2")
    assert tgt(client, user, "New-passw0rd.2")


def test_sambas_rules_are_told_in_words(samba_dc: SambaDc) -> None:
    name = new_name()
    samba_dc.add_user(name, "Old-passw0rd")
    user = f"{name}@{samba_dc.realm}"
    client = KdcClient(samba_dc.config)
    with pytest.raises(errors.PasswordPolicyError, match=r"(?i)too short|at least 7 characters"):
        client.change_password(Credential.from_password(user, "Old-passw0rd"), "a")
    assert tgt(client, user, "Old-passw0rd")


def test_samba_lets_an_administrator_set_a_password_by_tickets_too(samba_dc: SambaDc) -> None:
    name = new_name()
    samba_dc.add_user(name, "Old-passw0rd")
    client = KdcClient(samba_dc.config)
    boss = Credential.from_password(f"Administrator@{samba_dc.realm}", samba_dc.password)
    client.set_password(boss, name, "New-passw0rd.2")
    assert tgt(client, f"{name}@{samba_dc.realm}", "New-passw0rd.2")
    client.get_tgt(boss)
    client.set_password(Credential.from_ccache(boss.ccache), name, "New-passw0rd.3")
    assert tgt(client, f"{name}@{samba_dc.realm}", "New-passw0rd.3")
    mine = Credential.from_password(f"{name}@{samba_dc.realm}", "New-passw0rd.3")
    with pytest.raises(errors.KdcError, match=r"(?i)not permitted"):
        client.set_password(mine, "Administrator", "New-passw0rd.4")
