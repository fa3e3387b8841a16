"""Managed accounts at Samba 4.17, which has them, and makes no passwords for them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from purekrb import Credential
from purekrb.directory import Directory
from purekrb.errors import AccountNotFoundError, InsufficientRightsError, PolicyError
from support.samba import SambaDc


def test_the_command_leaves_a_keytab_alone_that_it_cannot_make(
    samba_dc: SambaDc, tmp_path: Path
) -> None:
    dn = f"CN=gmsa-cli,CN=Managed Service Accounts,{samba_dc.base}"
    samba_dc.delete(dn)
    keytab = tmp_path / "web.keytab"
    env = {
        **samba_dc.env,
        "KRB5CCNAME": f"FILE:{tmp_path}/cc",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "purekrb", *arguments]
        return subprocess.run(
            argv, env=env, input=text, capture_output=True, text=True, timeout=60, check=False
        )

    assert run("kinit", samba_dc.administrator, text=samba_dc.password).returncode == 0
    where = ("--ldap", f"ldap://{samba_dc.host}", "-t", str(keytab))
    for account, why in (
        ("gmsa-cli", "there is no account 'gmsa-cli'"),
        (samba_dc.administrator, "is not a group managed service account"),
    ):
        done = run("keytab", "gmsa", account, *where)
        assert (done.returncode != 0, done.stdout) == (True, "")
        assert why in done.stderr
        assert not keytab.exists()


def test_a_directory_that_makes_no_passwords_is_told_from_a_wrong_account(
    samba_dc: SambaDc,
) -> None:
    def bound(**options: bool) -> Directory:
        account = f"{samba_dc.administrator}@{samba_dc.realm}"
        credential = Credential.from_password(account, samba_dc.password)
        target = f"ldap/{samba_dc.host}/{samba_dc.dns_domain}"
        return Directory.connect(
            f"ldap://{samba_dc.address}", credential, samba_dc.config, target, **options
        )

    dn = f"CN=gmsa-old,CN=Managed Service Accounts,{samba_dc.base}"
    samba_dc.delete(dn)
    with bound() as directory:
        made = directory.create_managed_account("gmsa-old", permitted=[samba_dc.administrator])
        assert made.dn == dn
        with pytest.raises(InsufficientRightsError, match="may not read the password of gmsa-old"):
            directory.managed_keytab("gmsa-old")
        with pytest.raises(AccountNotFoundError, match="is not a group managed service account"):
            directory.managed_keytab(samba_dc.administrator)
    with bound(sealed=False) as directory, pytest.raises(PolicyError, match="not encrypted"):
        directory.managed_keytab("gmsa-old")
    samba_dc.delete(dn)


def test_who_may_not_create_one_is_told_who_has_to_grant_what(samba_dc: SambaDc) -> None:
    samba_dc.add_user("gmsa-deploy")
    credential = Credential.from_password(f"gmsa-deploy@{samba_dc.realm}", samba_dc.password)
    parent = f"CN=Managed Service Accounts,{samba_dc.base}"
    with Directory.connect(
        f"ldap://{samba_dc.address}", credential, samba_dc.config, f"ldap/{samba_dc.host}"
    ) as directory:
        with pytest.raises(InsufficientRightsError) as caught:
            directory.create_managed_account("gmsa-denied")
        with pytest.raises(AccountNotFoundError):
            directory.find_account("gmsa-denied$")
    text = str(caught.value)
    grant = "gmsa-deploy@ad.test:CC;msDS-GroupManagedServiceAccount"
    assert f'dsacls "{parent}" /G "{grant}"' in text
    samba_dc.samba_tool(*shlex.split(text.partition("on Samba ")[2].rpartition(" (")[0])[1:])
