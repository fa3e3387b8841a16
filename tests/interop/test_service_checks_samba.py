"""A service on accounts of Samba's Active Directory as other tools make them: what its start-up check finds, and mends.

What docs/scp.md says of such accounts is checked here.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import purekrb
from purekrb import Credential, KdcClient, Keytab
from purekrb.cli import parser
from purekrb.directory import Directory, ServiceConnectionPoint, VerifiedService
from purekrb.directory.account_state import give_aes, read_state
from purekrb.directory.ldap import Change, ChangeOperation
from purekrb.directory.transaction import transaction
from purekrb.doctor import examine
from purekrb.errors import ApError, RegistrationError
from purekrb.findings import Finding
from support.samba import SambaDc

PRODUCT = "6f2b7a8e-5a06-4a2d-9d43-2f1f3f0a5c11"
HOST = "truthweb.ad.test"
NUMBER = "msDS-SupportedEncryptionTypes"


def bound(dc: SambaDc, account: str) -> Directory:
    credential = Credential.from_password(f"{account}@{dc.realm}", dc.password)
    target = f"ldap/{dc.host}/{dc.dns_domain}"
    return Directory.connect(f"ldap://{dc.address}", credential, dc.config, target=target)


def put(dc: SambaDc, dn: str, **attributes: str) -> None:
    for name, value in attributes.items():
        name = name.replace("_", "-")
        dc.modify(f"dn: {dn}\nchangetype: modify\nreplace: {name}\n{name}: {value}\n")


class Stock:
    """A service installed on a user account that samba-tool made, as it makes it."""

    def __init__(self, dc: SambaDc, admin: Directory, state_file: Path, name: str) -> None:
        self.dc, self.admin, self.state_file, self.name = dc, admin, state_file, name
        self.dn = f"CN={name},CN=Users,{dc.base}"
        dc.delete(self.dn)
        dc.samba_tool("user", "create", name, dc.password)
        self.scp = ServiceConnectionPoint(name, f"Truth{name}", HOST, ("2000",), (PRODUCT,))
        self.findings = admin.install_service(self.scp, state_file, account=name).findings

    def fix(self) -> tuple[Finding, ...]:
        made = self.admin.install_service(
            self.scp, self.state_file, account=self.name, keytab=self.keytab(), fix=True
        )
        return made.findings

    def keytab(self) -> Keytab:
        """The keys, as purekrb makes them of the password with the salt that the KDC names."""
        credential = Credential.from_password(f"{self.name}@{self.dc.realm}", self.dc.password)
        return KdcClient(self.dc.config).make_keytab(credential)

    def number(self) -> object:
        (entry,) = self.dc.search(f"(sAMAccountName={self.name})", NUMBER)
        return entry.get(NUMBER)

    def verified(self, keytab: Keytab | None = None, **options: object) -> VerifiedService:
        return self.admin.verify_service(self.state_file, keytab=keytab, **options)  # type: ignore[arg-type]

    def wrong(self, keytab: Keytab | None = None) -> list[Finding]:
        return [f for f in self.verified(keytab).findings if f.status != "ok"]


@pytest.fixture(scope="module")
def admin(samba_dc: SambaDc) -> Iterator[Directory]:
    samba_dc.add_computer("TRUTHWEB")
    samba_dc.add_user("truth-alice")
    with bound(samba_dc, samba_dc.administrator) as directory:
        yield directory


@pytest.fixture
def stock(samba_dc: SambaDc, admin: Directory, tmp_path: Path) -> Iterator[Stock]:
    stock = Stock(samba_dc, admin, tmp_path / "state.json", "truth-svc")
    yield stock
    admin.uninstall_service(stock.state_file)
    samba_dc.delete(stock.dn)


def test_a_stock_account_gets_rc4_tickets_which_is_told_and_mended(
    stock: Stock, samba_dc: SambaDc
) -> None:
    (warning,) = [f for f in stock.findings if f.status != "ok"]
    assert "are encrypted with rc4-hmac, which acceptors refuse" in warning.text
    assert f"its {NUMBER} is not set" in warning.text
    assert stock.wrong(stock.keytab()) == [warning]
    # It is true: a client is refused.
    spn = stock.verified().scp.spns()[0]
    alice = Credential.from_password(f"truth-alice@{samba_dc.realm}", samba_dc.password)
    client = KdcClient(samba_dc.config)
    refused = purekrb.Initiator(client.get_ticket(alice, f"{spn}@{samba_dc.realm}"))
    with pytest.raises(ApError, match="rc4-hmac"):
        purekrb.Acceptor(stock.keytab()).step(refused.step())

    mended, *rest = stock.fix()
    assert mended.text == f"{NUMBER} of {stock.dn} was not set, and is 24 now"
    assert [finding.status for finding in (mended, *rest)] == ["ok", "ok", "ok"]
    assert stock.number() == ["24"]
    alice = Credential.from_password(f"truth-alice@{samba_dc.realm}", samba_dc.password)
    served = purekrb.Initiator(client.get_ticket(alice, f"{spn}@{samba_dc.realm}"))
    acceptor = purekrb.Acceptor(stock.keytab())
    served.step(acceptor.step(served.step()))
    assert served.mutual
    assert stock.wrong(stock.keytab()) == []


def test_an_account_without_aes_keys_needs_its_password_again(
    stock: Stock, samba_dc: SambaDc
) -> None:
    # Samba makes random keys of RC4 alone for an account that must have a smart card.
    put(samba_dc, stock.dn, userAccountControl=str(512 | 0x40000))
    put(samba_dc, stock.dn, userAccountControl="512", **{NUMBER: "24"})
    (wrong,) = stock.wrong()
    assert f"though its {NUMBER} is 24: the account has no AES keys" in wrong.text
    assert "set its password again" in wrong.remedy
    samba_dc.set_password(stock.dn, samba_dc.password)
    assert stock.wrong(stock.keytab()) == []


def test_a_number_of_rc4_alone_refuses_clients_and_is_told(stock: Stock, samba_dc: SambaDc) -> None:
    put(samba_dc, stock.dn, **{NUMBER: "4"})
    (wrong,) = stock.wrong()
    assert "the KDC has no encryption type for CN=truth-svc" in wrong.text
    stock.fix()
    assert stock.wrong() == []


def test_keys_of_the_keytab_are_proved_by_the_kdc(stock: Stock, samba_dc: SambaDc) -> None:
    stock.fix()
    name = f"{stock.name}@{samba_dc.realm}"
    right = stock.keytab()
    (kvno,) = {entry.kvno for entry in right}
    # The right key under any version; the one of another salt; of another password.
    assert stock.wrong(Keytab.from_password(name, samba_dc.password, kvno=0)) == []
    salted = Keytab.from_password(name, samba_dc.password, salt=f"{samba_dc.realm}x", kvno=kvno)
    (wrong,) = stock.wrong(salted)
    assert "with another salt" in wrong.text
    assert f"'{samba_dc.realm}{stock.name}'" in wrong.remedy
    samba_dc.set_password(stock.dn, "Another.pw1")
    (wrong,) = stock.wrong(right)
    assert f"has kvno {kvno}, the ticket has kvno {kvno + 1}: the keytab is stale" in wrong.text
    spns = Keytab.load(samba_dc.keytab(*stock.verified().scp.spns()))
    assert stock.wrong(spns) == []


def test_a_renamed_account_keeps_its_salt_and_is_told_by_both_names(
    stock: Stock, samba_dc: SambaDc
) -> None:
    stock.fix()
    before = stock.keytab()
    put(samba_dc, stock.dn, sAMAccountName="truth-new")
    try:
        (wrong,) = stock.wrong(before)
        assert "was called truth-svc when the service was installed, and is called truth-new" in (
            wrong.text
        )
        with pytest.raises(RegistrationError, match=r"does not know.*now truth-new") as refused:
            stock.verified(account="truth-svc")
        assert refused.value.reason == "WRONG_ACCOUNT"
        assert stock.verified(account="truth-new").account.name == "truth-new"
        # Made by the new name, the salt is another.
        guessed = Keytab.from_password(f"truth-new@{samba_dc.realm}", samba_dc.password, kvno=2)
        assert f"'{samba_dc.realm}truth-svc'" in stock.wrong(guessed)[-1].remedy
    finally:
        put(samba_dc, stock.dn, sAMAccountName="truth-svc")


@pytest.mark.parametrize(
    ("attributes", "cause"),
    [
        ({"userAccountControl": "514"}, "is disabled"),
        ({"accountExpires": "132223104000000000"}, "has expired on 2020-01-01"),
        ({"pwdLastSet": "0"}, "must change its password"),
        ({"userAccountControl": str(512 | 0x80000)}, "TRUSTED_FOR_DELEGATION"),
        ({"userAccountControl": str(512 | 0x400000)}, "no pre-authentication"),
    ],
)
def test_samba_gives_tickets_for_an_account_in_these_states_which_are_told(
    stock: Stock, samba_dc: SambaDc, attributes: dict[str, str], cause: str
) -> None:
    stock.fix()
    assert stock.wrong() == []
    put(samba_dc, stock.dn, **attributes)
    verified = stock.verified()
    (warning,) = verified.warnings
    assert cause in warning
    assert [f.step for f in verified.findings] == ["account", "tickets"]


def test_a_locked_account_is_told(stock: Stock, samba_dc: SambaDc) -> None:
    stock.fix()
    samba_dc.samba_tool("domain", "passwordsettings", "set", "--account-lockout-threshold=2")
    try:
        wrong = Credential.from_password(f"{stock.name}@{samba_dc.realm}", "wrong")
        for _ in range(3):
            with pytest.raises(purekrb.KerberosError):
                KdcClient(samba_dc.config).get_tgt(wrong)
        state, tickets = stock.wrong()
        assert "is locked, after too many wrong passwords" in state.text
        # Samba gives no tickets for it meanwhile: whoever can try passwords can stop a service.
        assert "KDC_ERR_SERVICE_REVOKED" in tickets.text
        samba_dc.samba_tool("user", "unlock", stock.name)  # as the remedy says
        assert stock.wrong() == []
    finally:
        samba_dc.samba_tool("domain", "passwordsettings", "set", "--account-lockout-threshold=0")


def test_who_may_set_the_encryption_types(stock: Stock, samba_dc: SambaDc) -> None:
    """The account itself may, as its number is Personal Information; others need the right that the remedy grants."""
    state = read_state(stock.admin._session, stock.admin.find_account(stock.name))
    with bound(samba_dc, "truth-alice") as alice:
        with transaction() as undo:
            refused = give_aes(alice._session, state, undo)
        assert refused is not None
        assert refused.status == "failed"
        assert stock.number() is None
        _, _, command = refused.remedy.partition("samba-tool ")
        samba_dc.samba_tool(*shlex.split(command.rpartition(" (")[0]))
        with transaction() as undo:
            done = give_aes(alice._session, state, undo)
        assert done is not None
        assert done.status == "ok"
        assert stock.number() == ["24"]
    put(samba_dc, stock.dn, **{NUMBER: "0"})
    with bound(samba_dc, stock.name) as itself:
        change = Change(ChangeOperation.REPLACE, NUMBER, ["24"])
        itself._session.modify(stock.dn, [change])
        assert itself.verify_service(stock.state_file, keytab=stock.keytab()).warnings == ()
    assert stock.number() == ["24"]


def test_the_doctor_and_the_command_say_the_same(
    stock: Stock, samba_dc: SambaDc, tmp_path: Path
) -> None:
    put(samba_dc, stock.dn, userAccountControl=str(514 | 0x80000))
    keytab = Keytab.from_password(f"{stock.name}@{samba_dc.realm}", "another", kvno=2)
    keytab.save(tmp_path / "keytab")
    put(samba_dc, stock.dn, **{NUMBER: "24"})
    verified = stock.verified(keytab)
    spn = verified.scp.spns()[0]
    report = examine(
        f"{spn}@{samba_dc.realm}",
        config=samba_dc.config,
        credential=Credential.from_password(
            f"{samba_dc.administrator}@{samba_dc.realm}", samba_dc.password
        ),
        keytab=keytab,
        directory=f"ldap://{samba_dc.address}",
        directory_target=f"ldap/{samba_dc.host}",
    )
    disabled, trusted, tickets, key = verified.findings
    assert tickets.status == "ok"
    for told, finding in zip(report.of("SPN"), (disabled, trusted), strict=True):
        assert (told.status, told.remedy) == (finding.status, finding.remedy)
        assert told.text.endswith(f"; {finding.text}")
    (told,) = report.of("keytab")
    assert (told.status, told.text) == (key.status, key.text)

    env = {**samba_dc.env, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)}
    env["KRB5CCNAME"] = f"FILE:{tmp_path}/ccache"
    purekrb_command = [sys.executable, "-m", "purekrb"]
    subprocess.run(
        [*purekrb_command, "kinit", samba_dc.administrator],
        env=env,
        input=f"{samba_dc.password}\n",
        text=True,
        check=True,
    )
    argv = [*purekrb_command, "scp", "verify", "--class", "x", "--state", str(stock.state_file)]
    argv += ["-t", str(tmp_path / "keytab"), "--ldap", f"ldap://{samba_dc.host}"]
    shown = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    assert tickets.text in shown.stdout
    for warning in verified.warnings:
        assert warning in shown.stderr
    as_json = json.loads(
        subprocess.run(
            [*argv, "--no-kdc", "--json"], env=env, capture_output=True, text=True, check=True
        ).stdout
    )
    assert [finding["step"] for finding in as_json["findings"]] == ["account", "account"]
    assert as_json["warnings"] == list(verified.warnings[:2])


def test_the_doctor_knows_the_classes_that_host_stands_for(
    admin: Directory, samba_dc: SambaDc
) -> None:
    put(samba_dc, f"CN=TRUTHWEB,CN=Computers,{samba_dc.base}", servicePrincipalName=f"HOST/{HOST}")
    credential = Credential.from_password(
        f"{samba_dc.administrator}@{samba_dc.realm}", samba_dc.password
    )

    def found(target: str) -> list[Finding]:
        report = examine(
            f"{target}@{samba_dc.realm}",
            config=samba_dc.config,
            credential=credential,
            directory=f"ldap://{samba_dc.address}",
            directory_target=f"ldap/{samba_dc.host}",
        )
        return [*report.of("SPN"), *report.of("ticket")]

    served, _, ticket = found(f"http/{HOST}")
    assert (served.status, served.text) == ("ok", f"http/{HOST} is served by host/{HOST}")
    assert ticket.status == "ok"
    missing, no_ticket = found(f"Truth/{HOST}")
    assert (missing.status, no_ticket.status) == ("failed", "failed")
    for finding in (missing, no_ticket):
        assert f"purekrb spn add Truth/{HOST} --account ACCOUNT" in finding.remedy
    parser().parse_args(["spn", "add", f"Truth/{HOST}", "--account", "ACCOUNT"])


def test_an_spn_of_two_accounts_has_no_ticket(stock: Stock, samba_dc: SambaDc) -> None:
    stock.fix()
    spn = stock.verified().scp.spns()[0]
    samba_dc.delete(f"CN=truth-two,CN=Users,{samba_dc.base}")
    # Samba does not compare what is added in one request with a deletion of nothing.
    changes = (
        Change(ChangeOperation.DELETE, "servicePrincipalName", ["truth/absent"]),
        Change(ChangeOperation.ADD, "servicePrincipalName", [spn]),
    )
    other = samba_dc.add_user("truth-two")
    stock.admin._session.modify(other, changes, permissive=True)
    try:
        with pytest.raises(RegistrationError) as refused:
            stock.verified()
        assert refused.value.reason == "DUPLICATE"
        (answer, _) = stock.admin._sessions.tickets.ask(
            [spn, spn], samba_dc.dns_domain, time.monotonic() + 10
        )  # type: ignore[union-attr]
        assert isinstance(answer.error, purekrb.errors.ServiceUnknownError)
    finally:
        samba_dc.delete(other)
    assert stock.wrong() == []
