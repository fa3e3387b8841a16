"""What clients get from a KDC, as a service's start-up check sees it: an embedded KDC beside an embedded directory."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from purekrb import Config, Credential, KdcClient, Keytab, KeytabEntry, Principal, crypto
from purekrb.credentials.ccache import CCache
from purekrb.directory import Directory, EmbeddedDirectory, ServiceConnectionPoint
from purekrb.directory.account_state import read_state
from purekrb.directory.connect import Sessions
from purekrb.directory.ldap import ANY_OBJECT, Change, ChangeOperation, LdapSession, Scope
from purekrb.directory.service_checks import Checks
from purekrb.directory.tickets import TicketSource, with_tgts_alone
from purekrb.findings import Finding
from purekrb.kdc.client import FAST_AVAIL
from purekrb.messages.kdc import TgsRep
from purekrb.testing import Realm

PASSWORD = "Cana ry.svc"
SCP = ServiceConnectionPoint("Web", "WebSvc", "web.example.test", ("2000",), ("product",))


class WithKdc(Sessions):
    """The sessions of an embedded directory that has a KDC."""

    def __init__(self, main: LdapSession, config: Config, credential: Credential) -> None:
        super().__init__(main)
        self._source = TicketSource(KdcClient(config), credential)

    @property
    def tickets(self) -> TicketSource:
        return self._source


class Service:
    """A service that is installed; its account `svc` has the password, and kvno 3, in both."""

    def __init__(self, realm: Realm, directory: EmbeddedDirectory, state_file: Path) -> None:
        self.realm, self.directory, self.state_file = realm, directory, state_file
        self.alice = realm.add_user("alice", "pw")
        directory.add_computer("web.example.test")
        directory.add_user("svc")
        self.spns = directory.install_service(SCP, state_file, account="svc").spns
        self.set_attribute("msDS-KeyVersionNumber", "3")
        self.set_attribute("msDS-SupportedEncryptionTypes", "24")
        self.set_keys()
        self.config = Config(realms={realm.name: list(map(str, realm.config.kdcs(realm.name)))})
        self.ask(self.config)

    def set_attribute(self, name: str, *values: str) -> None:
        dn = self.directory.find_account("svc").dn
        self.directory._session.modify(dn, [Change(ChangeOperation.REPLACE, name, list(values))])

    def attribute(self, name: str) -> tuple[str, ...]:
        dn = self.directory.find_account("svc").dn
        (entry,) = self.directory._session.search(dn, ANY_OBJECT, (name,), scope=Scope.BASE)
        return entry.texts(name)

    def set_keys(self, etypes: tuple[int, ...] = (18, 17), *, aliases: int = 2) -> None:
        self.realm.add_user("svc", PASSWORD, etypes=etypes, kvno=3, salt="EXAMPLE.TESTold-name")
        self.realm._kdc.aliases.clear()
        for spn in self.spns[2 - aliases :]:
            self.realm.add_alias(spn, "svc")

    def ask(self, config: Config, credential: Credential | None = None) -> None:
        self.directory._sessions = WithKdc(
            self.directory._session, config, credential or self.alice
        )

    def keys(self, *, salt: str = "EXAMPLE.TESTold-name", **options: object) -> Keytab:
        made = {"kvno": 3, "salt": salt, **options}
        return Keytab.from_password("svc@EXAMPLE.TEST", PASSWORD, **made)  # type: ignore[arg-type]

    def findings(self, keytab: Keytab | None = None, **options: object) -> tuple[Finding, ...]:
        verified = self.directory.verify_service(self.state_file, keytab=keytab, **options)  # type: ignore[arg-type]
        assert verified.warnings == tuple(str(f) for f in verified.findings if f.status != "ok")
        assert PASSWORD not in repr(verified)
        return verified.findings

    def wrong(self, keytab: Keytab | None = None, **options: object) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings(keytab, **options) if f.status != "ok")


@pytest.fixture
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST", etypes=(18, 17, 23)) as realm:
        yield realm


@pytest.fixture
def service(realm: Realm, tmp_path: Path) -> Iterator[Service]:
    with Directory.embedded("example.test") as directory:
        yield Service(realm, directory, tmp_path / "state.json")


def test_what_clients_get_and_which_key_opens_it_is_told(service: Service) -> None:
    tickets, keytab = service.findings(service.keys())
    assert (tickets.step, tickets.status) == ("tickets", "ok")
    assert all(spn in tickets.text for spn in service.spns)
    assert "kvno 3, encrypted with aes256-cts-hmac-sha1-96" in tickets.text
    assert (keytab.step, keytab.status) == ("keytab", "ok")
    assert "the key of svc@EXAMPLE.TEST, kvno 3, opens the ticket" in keytab.text
    assert service.findings() == (tickets,)  # without a keytab, nothing is said of it


@pytest.mark.parametrize("kvno", [0, 1, 259])
def test_the_right_key_under_another_version_is_right(service: Service, kvno: int) -> None:
    keytab = service.keys(kvno=kvno)
    assert service.wrong(keytab) == ()
    assert "whose kvno is 3" in service.findings(keytab)[-1].text
    if kvno != 259:  # of which old keytabs hold 3
        (doubt,) = service.wrong(keytab, ask_kdc=False)
        assert "no key of version 3" in doubt.text
        assert "which the directory does not tell" in doubt.text


def test_another_salt_is_told_with_the_one_of_the_kdc(service: Service) -> None:
    (wrong,) = service.wrong(service.keys(salt="EXAMPLE.TESTsvc"))
    assert (wrong.step, wrong.status) == ("keytab", "failed")
    assert "another password, or with another salt" in wrong.text
    assert "'EXAMPLE.TESTold-name'" in wrong.remedy
    assert "--ask-kdc" in wrong.remedy
    assert service.wrong(service.keys(salt="EXAMPLE.TESTsvc"), ask_kdc=False) == ()


def test_a_stale_key_is_told_with_both_versions(service: Service) -> None:
    (wrong,) = service.wrong(service.keys(kvno=2, salt="x"))
    assert "has kvno 2, the ticket has kvno 3: the keytab is stale" in wrong.text
    assert "export the keytab again" in wrong.remedy
    assert "purekrb account rotate svc --reset" in wrong.remedy
    (wrong,) = service.wrong(service.keys(kvno=4, salt="x"))
    assert "has kvno 4, the ticket has the older kvno 3" in wrong.text


def test_a_ticket_of_an_encryption_type_that_the_keytab_lacks_is_told(service: Service) -> None:
    (wrong,) = service.wrong(service.keys(etypes=[17]))
    assert "made with a key of aes256-cts-hmac-sha1-96, and the keytab holds none" in wrong.text
    assert service.wrong(service.keys(etypes=[18])) == ()


@pytest.mark.parametrize("names", [(), ("other", "HTTP/else.example.test")])
def test_a_keytab_without_the_account_is_told(service: Service, names: tuple[str, ...]) -> None:
    keytab = Keytab(
        KeytabEntry(Principal(tuple(name.split("/")), "EXAMPLE.TEST"), 3, crypto.random_key(18))
        for name in names
    )
    (wrong,) = service.wrong(keytab)
    assert "the keytab has no key of svc or of its SPNs" in wrong.text
    assert ("other@EXAMPLE.TEST" if names else "nobody") in wrong.text


@pytest.mark.parametrize(
    ("number", "cause", "remedy"),
    [
        ((), "is not set", "set msDS-SupportedEncryptionTypes to 24 (0x18)"),
        (("24",), "though its msDS-SupportedEncryptionTypes is 24", "set its password again"),
    ],
)
def test_rc4_tickets_are_told_once_with_their_cause(
    service: Service, number: tuple[str, ...], cause: str, remedy: str
) -> None:
    service.set_keys((23, 18, 17))
    service.set_attribute("msDS-SupportedEncryptionTypes", *number)
    (wrong,) = service.wrong(service.keys())
    assert (wrong.step, wrong.status) == ("encryption types", "failed")
    assert "are encrypted with rc4-hmac, which acceptors refuse" in wrong.text
    assert cause in wrong.text
    assert remedy in wrong.remedy


def test_aes_tickets_are_well_whatever_the_directory_says(service: Service) -> None:
    service.set_attribute("msDS-SupportedEncryptionTypes")
    assert service.wrong(service.keys()) == ()
    (doubt,) = service.wrong(service.keys(), ask_kdc=False)
    assert "may be encrypted with RC4" in doubt.text


def test_an_account_without_spns_is_judged_by_the_directory(service: Service) -> None:
    service.set_attribute("msDS-SupportedEncryptionTypes")
    state = read_state(service.directory._session, service.directory.find_account("svc"))
    checks = Checks(service.keys(), service.directory._sessions.tickets)
    (doubt,) = checks.findings(state, ())
    assert "may be encrypted with RC4" in doubt.text
    assert checks.findings(state, service.spns)[0].step == "tickets"


def test_no_encryption_type_in_common_is_told(service: Service) -> None:
    service.set_keys((23,))
    service.set_attribute("msDS-SupportedEncryptionTypes", "4")
    wrong = service.wrong(service.keys())
    assert "the KDC has no encryption type for CN=svc" in wrong[0].text
    assert len(wrong) == 1


def test_an_encryption_type_that_is_not_permitted_here_is_told(service: Service) -> None:
    config = replace(service.config, permitted_enctypes=(17,))
    service.ask(config)
    (wrong,) = service.wrong(service.keys())
    assert "is not permitted here: permitted are aes128" in wrong.text
    assert "permitted_enctypes" in wrong.remedy


def test_one_spn_that_the_kdc_finds_is_enough_for_its_host(service: Service) -> None:
    service.set_keys(aliases=1)  # the one with the objectGUID
    assert service.wrong(service.keys()) == ()
    service.set_keys(aliases=0)
    (wrong,) = service.wrong(service.keys())
    assert (wrong.step, wrong.status) == ("tickets", "failed")
    assert f"purekrb spn query {service.spns[0]}" in wrong.remedy
    assert f"the same for {service.spns[1]}" in wrong.text


def test_a_new_ticket_is_asked_for_and_none_is_kept(service: Service, realm: Realm) -> None:
    client = KdcClient(service.config)
    client.get_ticket(service.alice, f"{service.spns[0]}@EXAMPLE.TEST")
    held = list(service.alice.ccache)
    realm.add_user("svc", "another", kvno=4)
    (wrong,) = service.wrong(service.keys())
    assert "the ticket has kvno 4: the keytab is stale" in wrong.text
    assert list(service.alice.ccache) == held


def test_the_copy_asks_as_strictly_as_the_credential(service: Service, realm: Realm) -> None:
    client = KdcClient(service.config)
    client.get_ticket(service.alice, f"{service.spns[0]}@EXAMPLE.TEST")
    service.alice.require = "fast"
    tgs = Principal(("krbtgt", realm.name), realm.name)
    service.alice.ccache.set_config(FAST_AVAIL, b"yes", tgs)
    copy = with_tgts_alone(service.alice, client)
    assert copy.require == "fast"
    assert copy.ccache.get_config(FAST_AVAIL, tgs) == b"yes"
    assert [ticket.is_tgt for ticket in copy.ccache] == [True]


@pytest.mark.parametrize("silent", [False, True])
def test_k649_a_check_that_no_kdc_answers_is_skipped_by_name_and_in_time(
    service: Service, silent: bool
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        service.ask(Config(realms={"EXAMPLE.TEST": [address]}))
        began = time.monotonic()
        (skipped,) = service.wrong(service.keys(), kdc_timeout=0.5)
        assert time.monotonic() - began < 10
        assert (skipped.step, skipped.status) == ("tickets", "skipped")
        assert "no KDC has told" in skipped.text
        assert skipped.remedy
        # What the directory alone tells is still told.
        skipped, doubt = service.wrong(service.keys(kvno=2), kdc_timeout=0.5)
        assert "no key of version 3" in doubt.text


@pytest.mark.parametrize("alter", ["flip", "cut", "none"])
def test_k647_a_ticket_that_is_none_does_not_end_the_start(
    service: Service, realm: Realm, alter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = realm._kdc.handle

    def altered(request: bytes) -> bytes:
        reply = handle(request)
        if reply[0] != 0x6D:  # no TGS-REP
            return reply
        ticket = TgsRep.decode(reply).ticket
        at = reply.index(ticket)
        cipher = reply[: at + len(ticket) - 1] + bytes([ticket[-1] ^ 1]) + reply[at + len(ticket) :]
        return {"flip": cipher, "cut": reply[:-1], "none": b"0\0"}[alter]

    keytab = service.keys()
    assert service.wrong(keytab) == ()
    monkeypatch.setattr(realm._kdc, "handle", altered)
    (wrong,) = service.wrong(keytab, kdc_timeout=0.5)
    assert wrong.status == ("failed" if alter == "flip" else "skipped")
    assert wrong.remedy


def test_k648_a_salt_is_shown_without_its_escapes_and_not_in_full(
    service: Service, realm: Realm
) -> None:
    realm.add_user("svc", PASSWORD, etypes=(18,), kvno=3, salt="\x1b[31m\u202e\n" + "a" * 900)
    (wrong,) = service.wrong(service.keys())
    assert r"'\x1b[31m\u202e\na" in wrong.remedy
    assert wrong.remedy.isprintable()
    assert len(wrong.remedy) < 600


def test_a_credential_without_tickets_skips_the_check(service: Service) -> None:
    empty = Credential.from_ccache(CCache("alice@EXAMPLE.TEST"))
    service.ask(service.config, empty)
    (skipped,) = service.wrong(service.keys())
    assert skipped.status == "skipped"
    assert "has no valid TGT" in skipped.text


def test_no_kdc_is_asked_where_the_caller_asks_for_none(service: Service) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        service.ask(Config(realms={"EXAMPLE.TEST": [address]}))
        assert service.findings(service.keys(), ask_kdc=False) == ()
        with pytest.raises(TimeoutError):
            listener.accept()
        service.findings(service.keys(), kdc_timeout=0.2)
        listener.accept()[0].close()


def test_an_installation_tells_the_same(service: Service) -> None:
    service.set_keys((23, 18, 17))
    service.set_attribute("msDS-SupportedEncryptionTypes")
    made = service.directory.install_service(SCP, service.state_file, account="svc")
    assert made.findings == service.findings()
    (warning,) = made.warnings
    assert "--fix of purekrb spn add and scp publish" in warning


def test_fix_sets_aes_and_nothing_else(service: Service) -> None:
    attribute = "msDS-SupportedEncryptionTypes"
    changes: tuple[tuple[tuple[str, ...], str], ...]
    changes = (((), "24"), (("4",), "24"), (("65540",), "65560"), (("8",), "8"))
    for before, after in changes:
        service.set_attribute(attribute, *before)
        made = service.directory.install_service(SCP, service.state_file, account="svc", fix=True)
        (number,) = service.attribute(attribute)
        assert number == after
        assert made.warnings == ()


def test_an_installation_that_fails_leaves_the_encryption_types(
    service: Service, tmp_path: Path
) -> None:
    service.set_attribute("msDS-SupportedEncryptionTypes")
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="state file"):
        service.directory.install_service(
            replace(SCP, name="Web2"), tmp_path / "file" / "state", account="svc", fix=True
        )
    assert service.attribute("msDS-SupportedEncryptionTypes") == ()
