"""Managed accounts at Samba 4.17, which has them, and makes no passwords for them."""

from __future__ import annotations

import pytest

from purekrb import Credential
from purekrb.directory import Directory
from purekrb.errors import AccountNotFoundError, InsufficientRightsError, PolicyError
from support.samba import SambaDc


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
