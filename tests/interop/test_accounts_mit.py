"""Names and refusals at MIT's KDC, which compares letters exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from purekrb import Config, Credential, KdcClient, Keytab, Principal
from purekrb.errors import (
    KdcEtypeError,
    PasswordExpiredError,
    PreauthFailedError,
    ServiceUnknownError,
)
from support.mit import MitRealm


@pytest.fixture(scope="module")
def client(mit_realm: MitRealm) -> KdcClient:
    config = Config.from_file(mit_realm.krb5_conf)
    return KdcClient(
        Config(config.realms, config.default_realm, config.domain_realm, dns_lookup_kdc=False)
    )


def user(mit_realm: MitRealm, name: str = "pre") -> Credential:
    return Credential.from_password(f"{name}@{mit_realm.realm}", mit_realm.passwords[name])


@pytest.mark.parametrize(
    "target",
    [
        "gsvc/LOCALHOST",
        "gsvc@localhost",
        "gsvc@Localhost.",
        "gsvc/localhost@mit.test",
        "gsvc/LOCALHOST@MIT",
    ],
)
def test_a_target_as_written_is_the_name_that_the_kdc_has(
    mit_realm: MitRealm, client: KdcClient, target: str
) -> None:
    ticket = client.get_ticket(user(mit_realm), target)
    assert str(ticket.service) == "gsvc/localhost@MIT.TEST"


def test_a_principal_is_asked_for_byte_for_byte(mit_realm: MitRealm, client: KdcClient) -> None:
    with pytest.raises(ServiceUnknownError, match=r"alias.*try gsvc/localhost"):
        client.get_ticket(user(mit_realm), Principal.parse("gsvc/LOCALHOST@MIT.TEST"))


def test_an_account_with_rc4_alone_has_no_type_in_common(
    mit_realm: MitRealm, client: KdcClient
) -> None:
    with pytest.raises(KdcEtypeError, match=r"no (key|encryption type).*"):
        client.get_tgt(user(mit_realm, "rc4user"))


def test_a_keytab_of_a_renamed_principal_has_the_salt_of_the_old_name(
    mit_realm: MitRealm, client: KdcClient, tmp_path: Path
) -> None:
    mit_realm.kadmin("addprinc -pw renamedpw +requires_preauth oldname")
    mit_realm.kadmin("renprinc -force oldname newname")
    wrong = Keytab.from_password("newname@MIT.TEST", "renamedpw", kvno=1)
    with pytest.raises(PreauthFailedError) as caught:
        client.get_tgt(Credential.from_keytab("newname@MIT.TEST", wrong))
    assert "MIT.TESToldname" in str(caught.value)
    assert "kvno 1" in str(caught.value)
    password = Credential.from_password("newname@MIT.TEST", "renamedpw")
    made = client.make_keytab(password)
    assert {entry.key.etype for entry in made} == {18, 17}
    assert client.get_tgt(Credential.from_keytab("newname@MIT.TEST", made))


def test_a_password_that_must_be_changed_says_with_what(
    mit_realm: MitRealm, client: KdcClient
) -> None:
    mit_realm.kadmin("addprinc -pw oldpw +needchange +requires_preauth newbie")
    with pytest.raises(PasswordExpiredError, match="kpasswd"):
        client.get_tgt(Credential.from_password("newbie@MIT.TEST", "oldpw"))
