"""Service principal names in an Active Directory that Samba serves: who may write which, and what the KDC makes of it.

What Samba answers, and what docs/spn-and-scp.md says of it, is checked here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

import pytest

from purekrb import Credential, KdcClient, system
from purekrb.cli import main
from purekrb.directory import Directory, SpnOperation
from purekrb.directory.ldap import Change, ChangeOperation, Scope, sd_flags
from purekrb.directory.security_descriptor import grant
from purekrb.errors import (
    AccountNotFoundError,
    DirectoryError,
    InsufficientRightsError,
    KerberosError,
    ServiceUnknownError,
    SpnError,
    SpnNotUniqueError,
    SpnValidatedWriteDeniedError,
)
from support.commands import ARGV
from support.peers import run
from support.samba import SambaDc

ADD, REPLACE, DELETE = SpnOperation.ADD, SpnOperation.REPLACE, SpnOperation.DELETE
SPN = "servicePrincipalName"
#: The schemaIDGUID of servicePrincipalName, which also names the validated write of it.
SPN_ATTRIBUTE = UUID("f3a64788-5306-11d1-a9c5-0000f80367c1")


def bound_as(dc: SambaDc, name: str) -> Directory:
    """The directory that the account `name` is bound to."""
    credential = Credential.from_password(f"{name}@{dc.realm}", dc.password)
    return Directory.connect(f"ldap://{dc.address}", credential, dc.config, f"ldap/{dc.host}")


@pytest.fixture(scope="module")
def admin(samba_dc: SambaDc) -> Iterator[Directory]:
    with bound_as(samba_dc, samba_dc.administrator) as directory:
        yield directory


@pytest.fixture(scope="module")
def created(samba_dc: SambaDc) -> dict[str, str]:
    """The accounts of this file: their DNs by sAMAccountName."""
    users = {name: samba_dc.add_user(name) for name in ("spns-one", "spns-two")}
    return users | {f"{name}$": samba_dc.add_computer(name) for name in ("SPNSA", "SPNSB")}


@pytest.fixture
def dns(admin: Directory, created: dict[str, str]) -> dict[str, str]:
    """The accounts of this file, without SPNs: their DNs by sAMAccountName."""
    for dn in created.values():
        admin.write_account_spn(REPLACE, dn, [])
    return created


def spns(directory: Directory, account: str) -> tuple[str, ...]:
    return directory.find_account(account).spns


def same(found: Sequence[str], *expected: str) -> bool:
    return sorted(found) == sorted(expected)


def modify(
    directory: Directory, account: str, *changes: tuple[ChangeOperation, Sequence[str]]
) -> None:
    """Send changes as they are, past our own checks and orders."""
    dn = directory.find_account(account).dn
    directory._session.modify(
        dn, [Change(how, SPN, values) for how, values in changes], permissive=True
    )


# Syntax and semantics of the write ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("garbage", 19),
        ("a/b/c/d", 19),
        ("cls/h/CN=a\\/b", 19),
        ("", 21),
        # Samba counts slashes, no more.
        ("//", 0),
        ("spns//x", 0),
        ("spns/", 0),
        ("/spns", 0),
        ("spns/h/", 0),
        ("spns x/h", 0),
        ("spns/h:", 0),
        ("spns/h:99999", 0),
        ("spns/h\\/x", 0),
        ("spns/h:80", 0),
        ("spns/h:INSTANCE", 0),
    ],
)
@pytest.mark.usefixtures("dns")
def test_chk04_what_samba_takes_for_an_spn(admin: Directory, value: str, result: int) -> None:
    if result:
        with pytest.raises(DirectoryError) as error:
            modify(admin, "spns-one", (ChangeOperation.ADD, [value]))
        assert error.value.ldap_result == result
        with pytest.raises(SpnError):
            admin.write_account_spn(ADD, "spns-one", [value])
        assert spns(admin, "spns-one") == ()
    else:
        modify(admin, "spns-one", (ChangeOperation.ADD, [value]))
        assert spns(admin, "spns-one") == (value,)
        admin.write_account_spn(DELETE, "spns-one", [value])
        assert spns(admin, "spns-one") == ()


@pytest.mark.usefixtures("dns")
def test_chk04_a_syntax_error_of_the_directory_is_an_spn_error(
    admin: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = admin._session.modify

    def other(dn: str, changes: Sequence[Change], **options: bool) -> None:
        sent(dn, [Change(ChangeOperation.ADD, SPN, ["garbage"])], **options)

    with monkeypatch.context() as patched:
        patched.setattr(admin._session, "modify", other)
        with pytest.raises(SpnError) as error:
            admin.write_account_spn(ADD, "spns-one", ["spns/good"])
    assert error.value.code == 8373
    admin.write_account_spn(ADD, "spns-one", ["spns/good"])


@pytest.mark.usefixtures("dns")
def test_chk05_writing_is_idempotent_and_one_step(admin: Directory) -> None:
    admin.write_account_spn(ADD, "spns-two", ["spns/taken"])
    for names in (["spns/a"], ["spns/a"], ["SPNS/A"], ["spns/a", "spns/b", "SPNS/B"]):
        admin.write_account_spn(ADD, "spns-one", names)
    assert same(spns(admin, "spns-one"), "spns/a", "spns/b")
    admin.write_account_spn(DELETE, "spns-one", ["spns/absent"])
    admin.write_account_spn(DELETE, "spns-one", ["SPNS/b", "spns/absent"])
    assert same(spns(admin, "spns-one"), "spns/a")
    admin.change_account_spns("spns-one", delete=["spns/A"], add=["spns/new", "spns/c"])
    assert same(spns(admin, "spns-one"), "spns/new", "spns/c")
    with pytest.raises(DirectoryError):  # one change is refused, so the other is not made either
        modify(
            admin,
            "spns-one",
            (ChangeOperation.ADD, ["spns/taken"]),
            (ChangeOperation.DELETE, ["spns/new"]),
        )
    assert same(spns(admin, "spns-one"), "spns/new", "spns/c")
    admin.change_account_spns("spns-one", delete=["spns/new"], add=["SPNS/New"])
    assert same(spns(admin, "spns-one"), "SPNS/New", "spns/c")
    admin.write_account_spn(REPLACE, "spns-one", ["spns/x", "SPNS/X", "spns/c"])
    assert same(spns(admin, "spns-one"), "spns/x", "spns/c")
    admin.write_account_spn(REPLACE, "spns-one", [])
    admin.write_account_spn(REPLACE, "spns-one", [])
    assert spns(admin, "spns-one") == ()


@pytest.mark.usefixtures("dns")
def test_chk05_samba_takes_another_case_for_another_value(admin: Directory) -> None:
    """Why `write_account_spn` looks at what is there."""
    modify(admin, "spns-one", (ChangeOperation.ADD, ["spns/a"]))
    modify(admin, "spns-one", (ChangeOperation.ADD, ["SPNS/A"]))
    assert same(spns(admin, "spns-one"), "spns/a", "SPNS/A")
    admin.write_account_spn(DELETE, "spns-one", ["Spns/a"])
    assert spns(admin, "spns-one") == ()


@pytest.mark.usefixtures("dns")
def test_chk05_samba_checks_the_first_change_alone_and_even_if_that_deletes(
    admin: Directory,
) -> None:
    """Why what `change_account_spns` adds comes first, and what is deleted alone may come second."""
    modify(
        admin,
        "spns-one",
        (ChangeOperation.DELETE, ["spns/absent"]),
        (ChangeOperation.ADD, ["garbage"]),
    )
    assert spns(admin, "spns-one") == ("garbage",)
    with pytest.raises(DirectoryError) as error:
        modify(admin, "spns-one", (ChangeOperation.DELETE, ["garbage"]))
    assert error.value.ldap_result == 19
    admin.write_account_spn(DELETE, "spns-one", ["garbage"])
    assert spns(admin, "spns-one") == ()


@pytest.mark.parametrize(
    ("operation", "account", "names", "code"),
    [
        (ADD, "", ["spns/a"], 87),
        (3, "spns-one", ["spns/a"], 1),
        (ADD, "spns-one", [], 87),
        (DELETE, "spns-one", [], 87),
        (ADD, "spns-one", [""], 87),
        (REPLACE, "spns-one", ["spns/a", ""], 87),
        (ADD, "spns-nobody", ["spns/a"], 8333),
        (ADD, "CN=spns-nobody,CN=Users,DC=ad,DC=test", ["spns/a"], 8333),
        (ADD, "CN=Users,DC=ad,DC=test", ["spns/a"], 8333),
        (ADD, "OTHER\\spns-one", ["spns/a"], 1355),
    ],
)
@pytest.mark.usefixtures("dns")
def test_chk06_what_cannot_be_is_refused_before_anything_is_written(
    admin: Directory, operation: int, account: str, names: list[str], code: int
) -> None:
    admin.write_account_spn(ADD, "spns-one", ["spns/before"])
    with pytest.raises(KerberosError) as error:
        admin.write_account_spn(operation, account, names)
    assert isinstance(error.value, DirectoryError | SpnError)
    assert error.value.code == code
    assert isinstance(error.value, AccountNotFoundError) == (code == 8333)
    assert spns(admin, "spns-one") == ("spns/before",)


def test_chk07_an_administrator_registers_names_of_three_parts_as_they_are_spelled(
    admin: Directory, dns: dict[str, str]
) -> None:
    names = {
        "spns-one": f"ADSockAuth/spnsa.ad.test/CN=SockAuthAD,{dns['SPNSA$']}",
        "SPNSA$": "ADSockAuth/SpnsA.ad.test/CN=a\\,b  c,CN=\\C3\\A9,DC=ad,DC=test",
    }
    for account, name in names.items():
        admin.write_account_spn(ADD, account, [name])
        assert spns(admin, account) == (name,)
        assert [owner.dn for owner in admin.find_spn(name.upper())] == [dns[account]]


def test_an_account_has_many_names(admin: Directory, dns: dict[str, str]) -> None:
    account = admin.find_account("spns-one")
    for name in (
        "ADTEST\\spns-one",
        "ad.test\\SPNS-one",
        "spns-one@ad.test",
        str(account.sid),
        dns["spns-one"],
    ):
        assert admin.find_account(name) == account
    assert admin.find_account("SPNSA$@ad.test") == admin.find_account("SPNSA$")  # its implicit name


# Who may write what ---------------------------------------------------------------------------------------------


def test_chk08_a_user_registers_no_name_before_the_right_is_granted(
    samba_dc: SambaDc, admin: Directory
) -> None:
    dn = samba_dc.add_user("spns-plain")
    with bound_as(samba_dc, "spns-plain") as directory:
        with pytest.raises(InsufficientRightsError) as error:
            directory.write_account_spn(ADD, "spns-plain", ["spns/plain"])
        assert not isinstance(error.value, SpnValidatedWriteDeniedError)
        assert (error.value.code, error.value.ldap_result) == (8344, 50)
        dacl = sd_flags(4)
        [entry] = admin._session.search(
            dn, "(objectClass=*)", ("nTSecurityDescriptor",), scope=Scope.BASE, controls=[dacl]
        )
        [descriptor] = entry.attributes["nTSecurityDescriptor"]
        granted = grant(descriptor, admin.find_account("spns-plain").sid, [SPN_ATTRIBUTE])
        change = Change(ChangeOperation.REPLACE, "nTSecurityDescriptor", [granted])
        admin._session.modify(dn, [change], controls=[dacl])
        # The right to write the attribute lifts the rules of the validated write, not those of syntax and uniqueness.
        directory.write_account_spn(ADD, "spns-plain", ["spns/any.other.host/CN=x"])
        assert spns(directory, "spns-plain") == ("spns/any.other.host/CN=x",)
        with pytest.raises(DirectoryError, match="invalid with 1 components"):
            modify(directory, "spns-plain", (ChangeOperation.ADD, ["garbage"]))
    samba_dc.delete(dn)


@pytest.mark.usefixtures("dns")
def test_chk09_a_computer_registers_names_of_its_own_host_alone(
    samba_dc: SambaDc, admin: Directory
) -> None:
    with bound_as(samba_dc, "SPNSA$") as directory:
        own = ["spns/spnsa.ad.test", "spns/SPNSA"]
        directory.write_account_spn(ADD, "SPNSA$", own)
        assert same(spns(directory, "SPNSA$"), *own)
        for name in (
            "spns/other.ad.test",
            "spns/spnsa.evil.test",
            "spns/spnsb.ad.test",
            "spns/spnsa.ad.test/CN=SockAuthAD,CN=SPNSA,CN=Computers,DC=ad,DC=test",
            "spns/spnsa.ad.test/ad.test",
            "spns/spnsa.ad.test:8443",  # as the documentation of Windows allows
            "spns/spnsa.ad.test:INSTANCE",
        ):
            with pytest.raises(SpnValidatedWriteDeniedError) as error:
                directory.write_account_spn(ADD, "SPNSA$", [name])
            assert (error.value.code, error.value.ldap_result) == (8203, 19), name
        with pytest.raises(SpnValidatedWriteDeniedError):
            directory.write_account_spn(REPLACE, "SPNSA$", [*own, "spns/other.ad.test"])
        with pytest.raises(SpnValidatedWriteDeniedError):
            directory.change_account_spns("SPNSA$", delete=own, add=["spns/other.ad.test"])
        with pytest.raises(InsufficientRightsError) as denied:
            directory.write_account_spn(ADD, "SPNSB$", ["spns/spnsb.ad.test"])
        assert denied.value.ldap_result == 50
        assert same(spns(directory, "SPNSA$"), *own)
        admin.write_account_spn(ADD, "SPNSA$", ["spns/other.ad.test"])
        directory.write_account_spn(DELETE, "SPNSA$", ["spns/other.ad.test", own[0]])
        assert same(spns(directory, "SPNSA$"), own[1])


# One name, one account ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["spns/unique.ad.test", "SPNS/Unique.AD.test"])
def test_chk10_a_name_that_another_has_is_refused_and_its_owner_named(
    admin: Directory, dns: dict[str, str], spelling: str
) -> None:
    admin.write_account_spn(ADD, "SPNSA$", ["spns/unique.ad.test"])
    admin.write_account_spn(ADD, "spns-one", ["spns/before"])
    for operation in (ADD, REPLACE):
        with pytest.raises(SpnNotUniqueError) as error:
            admin.write_account_spn(operation, "spns-one", ["spns/free", spelling])
        assert (error.value.owners, error.value.spn, error.value.ldap_result) == (
            (dns["SPNSA$"],),
            spelling,
            0,
        )
    with pytest.raises(DirectoryError) as refused:
        modify(admin, "spns-one", (ChangeOperation.ADD, [spelling]))
    assert refused.value.ldap_result == 19
    assert spns(admin, "spns-one") == ("spns/before",)
    admin.write_account_spn(DELETE, "SPNSA$", [spelling])
    admin.write_account_spn(ADD, "spns-one", ["spns/free", spelling])


@pytest.mark.usefixtures("dns")
def test_k274_of_two_writers_one_gets_the_name_and_neither_loses_another(
    samba_dc: SambaDc, admin: Directory
) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def run(account: str) -> None:
        with bound_as(samba_dc, samba_dc.administrator) as directory:
            for number in range(5):
                start.wait(30)
                try:
                    directory.write_account_spn(ADD, account, [f"spns/wanted-{number}"])
                    outcomes.append("taken")
                except SpnNotUniqueError:
                    outcomes.append("refused")
                directory.write_account_spn(ADD, "spns-one", [f"spns/{account}-{number}"])

    threads = [
        threading.Thread(target=run, args=(account,)) for account in ("spns-one", "spns-two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 5 + ["taken"] * 5
    wanted = [
        name
        for account in ("spns-one", "spns-two")
        for name in spns(admin, account)
        if "wanted" in name
    ]
    assert same(wanted, *(f"spns/wanted-{number}" for number in range(5)))
    kept = [name for name in spns(admin, "spns-one") if "wanted" not in name]
    assert same(
        kept, *(f"spns/{account}-{n}" for account in ("spns-one", "spns-two") for n in range(5))
    )


def test_k274_what_came_between_check_and_write_is_named_all_the_same(
    admin: Directory, dns: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = admin._session.modify

    def overtaken(dn: str, changes: Sequence[Change], **options: bool) -> None:
        sent(dns["spns-two"], changes, **options)
        sent(dn, changes, **options)

    monkeypatch.setattr(admin._session, "modify", overtaken)
    with pytest.raises(SpnNotUniqueError) as error:
        admin.write_account_spn(ADD, "spns-one", ["spns/contested"])
    assert (error.value.owners, error.value.ldap_result, error.value.code) == (
        (dns["spns-two"],),
        19,
        8647,
    )


def test_chk11_names_that_stand_for_each_other(
    admin: Directory, dns: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    admin.write_account_spn(ADD, "SPNSA$", ["host/spns-x.ad.test", "cifs/spns-y.ad.test"])
    with pytest.raises(SpnNotUniqueError, match=r"cifs/spns-y\.ad\.test") as error:
        admin.write_account_spn(ADD, "SPNSB$", ["HOST/spns-y.ad.test"])
    assert (error.value.owners, error.value.ldap_result) == ((dns["SPNSA$"],), 19)
    assert not caplog.records
    admin.write_account_spn(
        ADD, "SPNSB$", ["cifs/spns-x.ad.test"]
    )  # an administrator may write SPNSA as well
    assert f"{dns['SPNSA$']} has host/spns-x.ad.test" in caplog.text
    assert spns(admin, "SPNSB$") == ("cifs/spns-x.ad.test",)
    admin.write_account_spn(ADD, "SPNSA$", ["http/spns-x.ad.test"])  # both of one account


def test_chk11_who_may_not_write_the_owner_takes_no_name_from_it(
    samba_dc: SambaDc, admin: Directory, dns: dict[str, str]
) -> None:
    admin.write_account_spn(ADD, "SPNSA$", ["host/spnsb.ad.test"])
    with bound_as(samba_dc, "SPNSB$") as directory:
        with pytest.raises(InsufficientRightsError, match=r"host/spnsb\.ad\.test") as error:
            directory.write_account_spn(ADD, "SPNSB$", ["cifs/spnsb.ad.test"])
        assert error.value.ldap_result == 50
        assert repr(dns["SPNSA$"]) in str(error.value)
        directory.write_account_spn(ADD, "SPNSB$", ["spns/spnsb.ad.test"])


def test_chk12_the_kdc_finds_a_host_under_its_aliases_and_no_other_class(
    samba_dc: SambaDc, admin: Directory, dns: dict[str, str]
) -> None:
    admin.write_account_spn(ADD, "SPNSA$", ["host/spnsa.ad.test"])
    guid, dn = admin.find_account("SPNSA$").object_guid, dns["SPNSA$"]
    client = KdcClient(samba_dc.config)
    credential = Credential.from_password(
        f"{samba_dc.administrator}@{samba_dc.realm}", samba_dc.password
    )
    assert client.get_ticket(credential, "cifs/spnsa.ad.test").service.components[0] == "cifs"
    for name in (
        "spns/spnsa.ad.test",
        f"spns/spnsa.ad.test/{guid}",
        f"spns/spnsa.ad.test/CN=x,{dn}",
    ):
        with pytest.raises(ServiceUnknownError):
            client.get_ticket(credential, name)
        admin.write_account_spn(ADD, dn, [name])
        assert client.get_ticket(credential, name).service.components == tuple(name.split("/"))


# setspn ---------------------------------------------------------------------------------------------------------


def test_chk13_list_query_duplicates_and_reset(admin: Directory, dns: dict[str, str]) -> None:
    computer, user = dns["SPNSA$"], dns["spns-one"]
    admin.write_account_spn(ADD, computer, ["spnsq/web.ad.test", "spnsq/(x) *:1"])
    admin.write_account_spn(ADD, user, ["spnsq/user.ad.test"])
    assert same(spns(admin, computer), "spnsq/web.ad.test", "spnsq/(x) *:1")
    for pattern, expected in {
        "spnsq/*": {computer, user},
        "SPNSQ/w*.AD.test": {computer},
        "spnsq/(x)*": {computer},
        "spnsq/nobody*": set(),
    }.items():
        assert {account.dn for account in admin.query_spns(pattern)} == expected, pattern
    assert {computer, user} < {account.dn for account in admin.query_spns("*")}
    assert "spnsq/double" not in admin.duplicate_spns()
    store_unchecked(admin, "spnsq/double", computer, user)
    assert {account.dn for account in admin.duplicate_spns()["spnsq/double"]} == {computer, user}
    admin.write_account_spn(DELETE, user, ["spnsq/double"])
    assert "spnsq/double" not in admin.duplicate_spns()
    for _ in range(2):
        assert admin.reset_host_spns("spnsa.ad.test") == ["HOST/spnsa.ad.test", "HOST/SPNSA"]
    assert {"HOST/spnsa.ad.test", "HOST/SPNSA"} < set(spns(admin, computer))


def store_unchecked(admin: Directory, spn: str, *accounts: str) -> None:
    """Give all `accounts` the name `spn`: Samba lets by what it never looks at."""
    for account in accounts:
        modify(
            admin, account, (ChangeOperation.DELETE, ["spns/absent"]), (ChangeOperation.ADD, [spn])
        )


@pytest.mark.usefixtures("dns")
def test_k269_the_kdc_knows_no_service_of_a_name_that_two_have(
    samba_dc: SambaDc, admin: Directory
) -> None:
    store_unchecked(admin, "spns/twice", "spns-one", "spns-two")
    client = KdcClient(samba_dc.config)
    credential = Credential.from_password(
        f"{samba_dc.administrator}@{samba_dc.realm}", samba_dc.password
    )
    with pytest.raises(ServiceUnknownError):
        client.get_ticket(credential, "spns/twice")
    assert len(admin.find_spn("spns/twice")) == 2
    admin.write_account_spn(DELETE, "spns-two", ["spns/twice"])
    assert client.get_ticket(credential, "spns/twice")


@pytest.mark.usefixtures("dns")
def test_chk14_a_computer_registers_its_two_names(
    samba_dc: SambaDc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "local_fqdn", lambda: "spnsa.ad.test")
    with bound_as(samba_dc, "SPNSA$") as directory:
        for _ in range(2):
            assert directory.server_register_spn(ADD, "spns") == [
                "spns/spnsa.ad.test",
                "spns/SPNSA",
            ]
        assert same(spns(directory, "SPNSA$"), "spns/spnsa.ad.test", "spns/SPNSA")
        directory.server_register_spn(DELETE, "spns", "SPNSA$")
        assert spns(directory, "SPNSA$") == ()


def test_nothing_is_written_over_the_global_catalog(admin: Directory, dns: dict[str, str]) -> None:
    changes = [Change(ChangeOperation.ADD, SPN, ["spns/a"])]
    with pytest.raises(DirectoryError, match="writable domain controller") as error:
        admin._forest.modify(dns["spns-one"], changes, permissive=True)
    assert (error.value.ldap_result, error.value.code) == (53, 8245)
    admin._session.modify(dns["spns-one"], changes, permissive=True)


# The command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def purekrb_spn(
    samba_dc: SambaDc, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs `purekrb spn` with the credential cache of an administrator; returns its output, or exit code and error."""
    ccache = samba_dc.path("ccache")
    run(
        [*ARGV, "kinit", samba_dc.administrator, "-c", str(ccache)],
        env=samba_dc.env,
        text=f"{samba_dc.password}\n",
    )
    monkeypatch.setenv("KRB5_CONFIG", str(samba_dc.krb5_conf))
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{ccache}")

    def purekrb_spn(*argv: str) -> str:
        command = () if argv[0] == "setspn" else ("spn",)
        code = main(
            [
                *command,
                *argv,
                "--ldap",
                f"ldap://{samba_dc.address}",
                "--target",
                f"ldap/{samba_dc.host}",
            ]
        )
        out, err = capsys.readouterr()
        return f"{code}: {err}" if code else out

    return purekrb_spn


def test_setspn_does_the_same_with_the_letters_of_windows(
    purekrb_spn: Callable[..., str], dns: dict[str, str]
) -> None:
    spn, dn = "ADSockAuth/spns-letters.ad.test", dns["spns-one"]
    assert purekrb_spn("setspn", "-S", spn, "spns-one") == f"added {spn}\n"
    assert "must be unique in the forest" in purekrb_spn("setspn", "-A", spn, "spns-two")
    assert purekrb_spn("setspn", "-l", "spns-one") == f"{dn}:\n{spn}\n"
    assert purekrb_spn("setspn", "spns-one") == f"{dn}:\n{spn}\n"
    assert f"{spn}  {dn}" in purekrb_spn("setspn", "-T", "ad.test", "-Q", "*/spns-letters*")
    assert spn not in purekrb_spn("setspn", "-F", "-X")
    assert purekrb_spn("setspn", "-U", "-D", spn, "spns-one") == f"deleted {spn}\n"
    assert purekrb_spn("setspn", "-R", "SPNSA").startswith("added HOST/")
    assert "HOST/SPNSA\n" in purekrb_spn("setspn", "-C", "-L", "SPNSA")
    assert purekrb_spn("setspn", "-U", "-L", "SPNSA").startswith("10: ")


def test_chk13_an_administrator_keeps_names_with_the_command(
    purekrb_spn: Callable[..., str], dns: dict[str, str]
) -> None:
    spn, dn = "ADSockAuth/spns-files.ad.test", dns["spns-one"]
    for _ in range(2):
        assert purekrb_spn("add", spn, "--account", "spns-one") == f"added {spn}\n"
    assert purekrb_spn("add", spn, "--account", "SPNSA") == (
        f"10: purekrb: SPN '{spn}' must be unique in the forest, but '{dn}' has '{spn}': delete it there first\n"
    )
    listed = [purekrb_spn("list", name) for name in ("spns-one", "ADTEST\\spns-one", dn)]
    assert listed == [f"{dn}:\n{spn}\n"] * 3
    assert json.loads(purekrb_spn("query", "adsockauth/SPNS-*", "--json")) == {
        "found": [{"spn": spn, "account": dn}]
    }
    assert purekrb_spn("query", "spns-nobody/*") == "none found\n"
    assert purekrb_spn("delete", spn.upper(), "-a", "spns-one") == f"deleted {spn.upper()}\n"
    assert json.loads(purekrb_spn("list", "spns-one", "--json")) == {"account": dn, "spns": []}
    # As with setspn, a bare name is a computer's where there is one.
    assert purekrb_spn("reset", "spnsa.ad.test") == "added HOST/spnsa.ad.test\nadded HOST/SPNSA\n"
    assert purekrb_spn("list", "SPNSA").splitlines()[0] == f"{dns['SPNSA$']}:"
    assert purekrb_spn("list", "SPNSA", "--computer").count("HOST/") == 2
    assert "no account 'SPNSA'" in purekrb_spn("list", "SPNSA", "--user")


def test_chk13_the_command_tells_of_duplicates(
    purekrb_spn: Callable[..., str], admin: Directory, dns: dict[str, str]
) -> None:
    store_unchecked(admin, "spns/both", "spns-one", "SPNSB$")
    for line in (f"spns/both  {dns['spns-one']}", f"spns/both  {dns['SPNSB$']}"):
        assert line in purekrb_spn("duplicates")
    found = [
        entry
        for entry in json.loads(purekrb_spn("duplicates", "--json"))["found"]
        if entry["spn"] == "spns/both"
    ]
    assert {entry["account"] for entry in found} == {dns["spns-one"], dns["SPNSB$"]}
