"""Names and refusals at Samba's domain controller: enterprise names, account states, salts."""

from __future__ import annotations

from pathlib import Path

import pytest

from purekrb import Acceptor, CCache, Config, Credential, KdcClient, Keytab, Principal
from purekrb.cli import main
from purekrb.constants import ErrorCode
from purekrb.errors import (
    ApError,
    ClientRevokedError,
    ClientUnknownError,
    KerberosError,
    PasswordExpiredError,
    PreauthFailedError,
)
from purekrb.gss.initiator import Initiator
from support.samba import SambaDc


@pytest.fixture(scope="module")
def client(samba_dc: SambaDc) -> KdcClient:
    return KdcClient(samba_dc.config)


def test_a_upn_of_another_suffix_is_an_enterprise_name(
    samba_dc: SambaDc,
    client: KdcClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    samba_dc.add_user("jdoe", userPrincipalName="john.doe@mail.example")
    credential = Credential.from_password(
        "john.doe@mail.example", samba_dc.password, enterprise=True
    )
    assert str(client.get_tgt(credential).client) == "jdoe@AD.TEST"

    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/cc")
    monkeypatch.setattr(
        "purekrb.cli.options.read_secret", lambda *a, **k: samba_dc.password.encode()
    )
    config = ("--config", str(samba_dc.krb5_conf))
    assert main(["kinit", "-E", "john.doe@mail.example", *config]) == 0
    assert CCache.load().principal == Principal.parse("jdoe@AD.TEST")
    assert main(["kinit", "john.doe\\@mail.example@AD.TEST", *config]) == 6
    assert "kinit -E" in capsys.readouterr().err
    assert main(["kinit", "john.doe@mail.example", *config]) in (5, 9)
    assert "kinit -E" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["AD\\winuser", "ad.test\\WinUser", "ADTEST\\winuser"])
def test_a_windows_name_is_taken_by_the_first_label_or_by_what_the_kdc_knows(
    samba_dc: SambaDc, client: KdcClient, name: str
) -> None:
    samba_dc.add_user("winuser")
    tgt = client.get_tgt(Credential.from_password(name, samba_dc.password))
    assert str(tgt.client).lower() == "winuser@ad.test"


def test_a_realm_in_small_letters_says_which_to_write(samba_dc: SambaDc) -> None:
    samba_dc.add_user("anna")
    small = Config({"ad.test": [samba_dc.address]}, dns_lookup_kdc=False)
    with pytest.raises(KerberosError, match=r"write anna@AD\.TEST"):
        KdcClient(small).get_tgt(Credential.from_password("anna@ad.test", samba_dc.password))


STATES = {
    "disabled": ({"userAccountControl": "514"}, ClientRevokedError, "the account is disabled"),
    "expired": (
        {"accountExpires": "130000000000000000"},
        ClientRevokedError,
        "the account has expired",
    ),
    "mustchange": (
        {"pwdLastSet": "0"},
        PasswordExpiredError,
        "the password must be changed before the first logon",
    ),
    "nohours": (
        {"logonHours": "\0" * 21},
        KerberosError,
        "the account may not log on at this hour",
    ),
}


@pytest.mark.parametrize("state", STATES)
def test_the_state_of_an_account_is_the_first_thing_said(
    samba_dc: SambaDc, client: KdcClient, state: str
) -> None:
    attributes, cls, words = STATES[state]
    name = f"state-{state}"
    samba_dc.add_user(name, **attributes)
    with pytest.raises(cls) as caught:
        client.get_tgt(Credential.from_password(f"{name}@AD.TEST", samba_dc.password))
    assert str(caught.value).startswith(words), str(caught.value)


@pytest.mark.parametrize(
    ("typed", "sam", "salt"),
    [
        ("maxm", "MaxM", "AD.TESTMaxM"),
        ("svc-mixed", "SVC-Mixed", "AD.TESTSVC-Mixed"),
        ("pc7$", "PC7$", "AD.TESThostpc7.ad.test"),
    ],
)
def test_a_keytab_is_made_with_the_salt_that_only_the_kdc_knows(
    samba_dc: SambaDc,
    client: KdcClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    sam: str,
    salt: str,
) -> None:
    if sam.endswith("$"):
        samba_dc.add_computer(sam[:-1])
    else:
        samba_dc.add_user(sam)
    wrong = Keytab.from_password(f"{typed}@AD.TEST", samba_dc.password, kvno=4, salt="AD.TESTother")
    with pytest.raises(PreauthFailedError) as caught:
        client.get_tgt(Credential.from_keytab(f"{typed}@AD.TEST", wrong))
    assert salt in str(caught.value)
    assert "kvno 4" in str(caught.value)

    monkeypatch.setattr(
        "purekrb.cli.options.read_secret", lambda *a, **k: samba_dc.password.encode()
    )
    new = tmp_path / "new.keytab"
    argv = ["keytab", "from-password", str(new), f"{typed}@AD.TEST", "--ask-kdc"]
    assert main([*argv, "--config", str(samba_dc.krb5_conf)]) == 0
    assert f"salt {salt}" in capsys.readouterr().out
    assert client.get_tgt(Credential.from_keytab(f"{typed}@AD.TEST", new))
    made = client.make_keytab(Credential.from_password(f"{typed}@AD.TEST", samba_dc.password))
    exported = Keytab.load(samba_dc.keytab(sam))
    assert {(e.key.etype, e.key.contents) for e in made} <= {
        (e.key.etype, e.key.contents) for e in exported
    }
    assert {e.kvno for e in made} == {max(e.kvno for e in exported)}


def test_a_service_keytab_is_made_from_its_accounts_password(
    samba_dc: SambaDc, client: KdcClient
) -> None:
    samba_dc.add_user("svc-Made", servicePrincipalName="HTTP/made.ad.test")
    samba_dc.add_user("caller")
    account = Credential.from_password("svc-made@AD.TEST", samba_dc.password)
    keytab = client.make_keytab(account, "HTTP/made.ad.test@AD.TEST")
    caller = Credential.from_password("caller@AD.TEST", samba_dc.password)
    ticket = client.get_ticket(caller, "HTTP/MADE.ad.test")
    acceptor = Acceptor(keytab, service="http/made.ad.test")
    acceptor.step(Initiator(ticket).step())
    assert str(acceptor.initiator) == "caller@AD.TEST"

    with pytest.raises(ClientUnknownError, match="a service's name"):
        client.make_keytab(Credential.from_password("HTTP/made.ad.test@AD.TEST", samba_dc.password))


def test_a_new_account_that_gets_rc4_tickets_is_told_at_every_place(
    samba_dc: SambaDc, client: KdcClient
) -> None:
    """The account has AES keys, and so has the keytab; only msDS-SupportedEncryptionTypes is missing."""
    dn = samba_dc.add_user("svc-old", servicePrincipalName="HTTP/old.ad.test")
    samba_dc.modify(f"dn: {dn}\nchangetype: modify\ndelete: msDS-SupportedEncryptionTypes\n")
    samba_dc.add_user("caller")
    caller = Credential.from_password("caller@AD.TEST", samba_dc.password)
    keytab = Keytab.load(samba_dc.keytab("svc-old"))
    assert 18 in {entry.key.etype for entry in keytab}
    old = client.get_ticket(caller, "HTTP/old.ad.test")
    with pytest.raises(ApError, match=r"only lacks msDS-SupportedEncryptionTypes = 24") as refused:
        Acceptor(keytab).step(Initiator(old).step())
    assert refused.value.code == ErrorCode.KDC_ERR_ETYPE_NOSUPP

    samba_dc.modify(
        f"dn: {dn}\nchangetype: modify\nadd: msDS-SupportedEncryptionTypes\n"
        "msDS-SupportedEncryptionTypes: 24\n"
    )
    fresh = Credential.from_password("caller@AD.TEST", samba_dc.password)
    acceptor = Acceptor(keytab)
    acceptor.step(Initiator(client.get_ticket(fresh, "HTTP/old.ad.test")).step())
    assert acceptor.established
