"""Services in the embedded directory: where they are published, installed as a whole or not at all, and verified."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from purekrb import Keytab, KeytabEntry, Principal, crypto
from purekrb.directory import Directory, ServiceConnectionPoint, SpnOperation
from purekrb.directory.directory import EmbeddedDirectory
from purekrb.directory.ldap import Change, ChangeOperation, LdapSession
from purekrb.directory.scps import find
from purekrb.directory.security_descriptor import SecurityDescriptor
from purekrb.directory.state import ServiceState
from purekrb.errors import DirectoryError, KerberosError, RegistrationError, TransportError
from purekrb.sid import Sid
from support.vectors import load

BASE = "DC=example,DC=test"
PRODUCT, VENDOR = "a762885a-aa44-11d2-81f1-00c04fb9624e", "83c29870-1dfc-11d3-a193-0000f87a9099"
SCP = ServiceConnectionPoint(
    "SockAuthAD", "ADSockAuth", "web.example.test", ("2000",), (PRODUCT, VENDOR)
)
UNDER_WEB = f"CN=SockAuthAD,CN=WEB,CN=Computers,{BASE}"
CONTAINER = f"CN=Auth-O-Matic,CN=Vendor,CN=System,{BASE}"


@pytest.fixture
def directory() -> Iterator[EmbeddedDirectory]:
    with Directory.embedded("example.test") as directory:
        directory.add_computer("web.example.test")
        directory.add_computer("db.example.test")
        directory.add_user("svc")
        directory.add_user("other")
        directory._session.add(f"CN=System,{BASE}", "container", {})
        yield directory


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def contents(directory: Directory) -> dict[str, Any]:
    """Everything that the directory holds. Values have no order."""
    found = directory._session.search(BASE, "(objectClass=*)", ("*",))
    return {
        entry.dn: {name: sorted(values) for name, values in entry.attributes.items() if values}
        for entry in found
    }


def trustees(directory: Directory, dn: str) -> dict[Sid, int]:
    """How many ACEs for single properties each trustee has on the SCP."""
    (entry,) = directory._session.search(dn, "(objectClass=*)", ("nTSecurityDescriptor",))
    dacl = SecurityDescriptor.decode(entry.attributes["nTSecurityDescriptor"][0]).dacl
    assert dacl
    sids = [Sid.decode(ace.body[24:]) for ace in dacl.aces if ace.type == 5]
    return {sid: sids.count(sid) for sid in sids}


# Places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parent", "why"),
    [
        (f"CN=Configuration,{BASE}", "replicated"),
        (f"CN=Sites,CN=Configuration,{BASE}", "replicated"),
        (f"cn=users,{BASE}", "accounts"),
        (f"CN=Computers,{BASE}", "accounts"),
        (f"CN=WinsockServices,CN=System,{BASE}", "Windows"),
        (f"CN=x,CN=WinsockServices,CN=System,{BASE}", "Windows"),
        (f"CN=RPCServices, CN=System, {BASE}", "Windows"),
        ("CN=Vendor,CN=System,DC=other,DC=test", "not in the domain"),
        (f"CN=Vendor,CN=System,DC=child,{BASE}", "not in the domain"),
        ("DC=test", "not in the domain"),
        ("Vendor", "not a DN"),
        (f"OU=Missing,{BASE}", "create it first"),
        (f"CN=Missing,CN=Users,{BASE}", "create it first"),
        (f"CN=x,OU=Missing,CN=Sys,{BASE}", "create it first"),
    ],
)
def test_an_scp_is_not_put_where_none_belongs(
    directory: EmbeddedDirectory, parent: str, why: str
) -> None:
    before = contents(directory)
    with pytest.raises(DirectoryError, match=why):
        directory.publish_scp(SCP, parent=parent)
    assert contents(directory) == before
    assert directory.publish_scp(SCP).dn == UNDER_WEB


def test_containers_below_system_are_made_as_needed_and_used_again(
    directory: EmbeddedDirectory,
) -> None:
    first = directory.publish_scp(SCP, parent=CONTAINER)
    second = directory.publish_scp(replace(SCP, name="second"), parent=CONTAINER)
    assert (first.dn, second.dn) == (f"CN=SockAuthAD,{CONTAINER}", f"CN=second,{CONTAINER}")
    classes = {entry.dn for entry in directory._session.search(BASE, "(objectClass=container)")}
    assert {CONTAINER, f"CN=Vendor,CN=System,{BASE}"} < classes


def test_an_organizational_unit_is_a_place_too(directory: EmbeddedDirectory) -> None:
    directory._session.add(f"OU=Services,{BASE}", "organizationalUnit", {})
    assert (
        directory.publish_scp(SCP, parent=f"OU=Services,{BASE}").dn
        == f"CN=SockAuthAD,OU=Services,{BASE}"
    )


def test_a_computer_that_has_no_dns_name_yet_is_known_by_its_netbios_name(
    directory: EmbeddedDirectory,
) -> None:
    names = {"cn": ["NEW"], "sAMAccountName": ["NEW$"]}
    directory._session.add(f"CN=NEW,CN=Computers,{BASE}", "computer", names)
    scp = replace(SCP, dns_name="new.example.test")
    assert directory.publish_scp(scp).dn == f"CN=SockAuthAD,CN=NEW,CN=Computers,{BASE}"
    with pytest.raises(
        DirectoryError, match=r"web\.other\.test"
    ):  # the computer WEB is another host
        directory.publish_scp(replace(SCP, dns_name="web.other.test"))


# Rights ---------------------------------------------------------------------------------------------------------


def test_the_account_of_the_service_may_update_the_scp_and_by_default_that_is_the_computer(
    directory: EmbeddedDirectory,
) -> None:
    svc, web = directory.find_account("svc"), directory.find_account("WEB$")
    for _ in range(2):
        scp = directory.publish_scp(SCP, account="svc")
        assert trustees(directory, scp.dn) == {svc.sid: 2}
    assert trustees(directory, directory.publish_scp(replace(SCP, name="b")).dn) == {web.sid: 2}
    assert (
        trustees(directory, directory.publish_scp(replace(SCP, name="c"), parent=CONTAINER).dn)
        == {}
    )


def test_all_that_samba_had_in_a_descriptor_stays_in_it(directory: EmbeddedDirectory) -> None:
    scp = directory.publish_scp(SCP)
    vector = load("security_descriptors.json")[0]
    directory._session.modify(
        scp.dn, [Change(ChangeOperation.REPLACE, "nTSecurityDescriptor", [vector["before"]])]
    )
    directory.publish_scp(SCP, account="svc")
    (entry,) = directory._session.search(scp.dn, "(objectClass=*)", ("nTSecurityDescriptor",))
    before = SecurityDescriptor.decode(vector["before"])
    after = SecurityDescriptor.decode(entry.attributes["nTSecurityDescriptor"][0])
    assert before.dacl
    assert after.dacl
    added = [ace for ace in after.dacl.aces if ace not in before.dacl.aces]
    assert len(added) == 2
    assert [ace for ace in after.dacl.aces if ace not in added] == list(before.dacl.aces)
    assert replace(after, dacl=None) == replace(before, dacl=None)


# Installing -----------------------------------------------------------------------------------------------------


def test_an_installation_makes_scp_rights_spns_and_state_and_its_end_removes_them(
    directory: EmbeddedDirectory, state_file: Path
) -> None:
    before = contents(directory)
    made = directory.install_service(SCP, state_file, account="svc")
    assert made.scp == replace(SCP, dn=UNDER_WEB, object_guid=made.scp.object_guid)
    assert made.spns == (
        f"ADSockAuth/web.example.test/{UNDER_WEB}",
        f"ADSockAuth/web.example.test/{made.scp.object_guid}",
    )
    svc = directory.find_account("svc")
    assert set(svc.spns) == set(made.spns)
    assert trustees(directory, UNDER_WEB) == {svc.sid: 2}
    state = ServiceState.load(state_file)
    assert (state.object_guid, state.scp_dn, state.spns) == (
        made.scp.object_guid,
        UNDER_WEB,
        made.spns,
    )
    assert state.account
    assert (state.account.object_guid, state.account.sid, state.domain) == (
        svc.object_guid,
        svc.sid,
        "example.test",
    )
    directory.uninstall_service(state_file)
    assert contents(directory) == before
    assert not state_file.exists()
    with pytest.raises(RegistrationError, match="no such file"):
        directory.uninstall_service(state_file)


def test_without_an_account_the_computer_gets_the_names(
    directory: EmbeddedDirectory, state_file: Path
) -> None:
    made = directory.install_service(SCP, state_file)
    assert set(directory.find_account("WEB$").spns) == set(made.spns)


def test_a_service_on_several_hosts_has_names_on_each(
    directory: EmbeddedDirectory, state_file: Path
) -> None:
    scp = replace(SCP, dns_name="_sock._tcp.example.test", dns_name_type="SRV")
    with pytest.raises(DirectoryError, match="hosts"):
        directory.install_service(scp, state_file, account="svc", parent=CONTAINER)
    before = contents(directory)
    hosts = ["web.example.test", "db.example.test"]
    made = directory.install_service(scp, state_file, account="svc", parent=CONTAINER, hosts=hosts)
    assert {spn.split("/")[1] for spn in directory.find_account("svc").spns} == set(hosts)
    assert len(made.spns) == 4
    assert directory.verify_service(state_file).scp == made.scp
    directory.uninstall_service(state_file)
    assert contents(directory) == before


def test_a_local_account_gets_no_names_and_a_warning(
    directory: EmbeddedDirectory, state_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="purekrb")
    made = directory.install_service(SCP, state_file, account=".\\svc")
    assert (made.account, made.spns) == (None, ())
    assert "local to this machine" in caplog.text
    assert not any(
        "servicePrincipalName" in attributes for attributes in contents(directory).values()
    )
    with pytest.raises(RegistrationError, match="install it again") as refused:
        directory.verify_service(state_file)
    assert refused.value.reason == "NOT_REGISTERED"
    directory.uninstall_service(state_file)
    assert directory.find_scps() == []


def test_containers_are_removed_with_the_last_service_in_them(
    directory: EmbeddedDirectory, tmp_path: Path
) -> None:
    before = contents(directory)
    one, two = tmp_path / "1", tmp_path / "2"
    directory.install_service(SCP, one, account="svc", parent=CONTAINER)
    other = directory.install_service(
        replace(SCP, name="second"), two, account="svc", parent=CONTAINER
    )
    directory.uninstall_service(one)
    assert directory.find_scps() == [other.scp]
    assert CONTAINER in contents(directory)
    directory.uninstall_service(two)
    assert set(contents(directory)) - set(before) == {
        CONTAINER,
        f"CN=Vendor,CN=System,{BASE}",
    }  # the first one made them


def test_installing_again_brings_all_up_to_date_wherever_the_scp_is(
    directory: EmbeddedDirectory, state_file: Path
) -> None:
    first = directory.install_service(SCP, state_file, account="svc")
    directory._session.rename(UNDER_WEB, "CN=renamed")
    with pytest.raises(RegistrationError):
        directory.verify_service(state_file)
    again = directory.install_service(replace(SCP, bindings=("2001",)), state_file, account="other")
    assert again.scp.object_guid == first.scp.object_guid
    assert again.scp.dn == UNDER_WEB.replace("SockAuthAD", "renamed")
    assert directory.find_scps() == [again.scp]
    assert again.scp.port == 2001
    assert directory.find_account("svc").spns == ()
    other = directory.find_account("other")
    assert set(other.spns) == set(again.spns)
    assert trustees(directory, again.scp.dn) == {other.sid: 2}
    assert directory.verify_service(state_file).account == other


def test_names_that_the_account_had_before_stay_spelled_as_they_were(
    directory: EmbeddedDirectory, state_file: Path
) -> None:
    mine = ["HTTP/web.example.test", f"adsockauth/WEB.example.test/{UNDER_WEB.lower()}"]
    directory.write_account_spn(SpnOperation.ADD, "svc", mine)
    directory.install_service(SCP, state_file, account="svc")
    assert set(mine) < set(directory.find_account("svc").spns)
    directory.verify_service(state_file)
    directory.uninstall_service(state_file)
    assert directory.find_account("svc").spns == ("HTTP/web.example.test",)


class Failure(KerberosError):
    """What a write fails with in these tests."""


def fail_at(
    session: LdapSession,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    *,
    kind: type[Exception] | None = None,
    done: bool = False,
) -> None:
    """Let the write with this number (from 0) fail, and only this one; `done`: it has its effect all the same."""
    count = iter(range(10_000))

    def failing(call: Any) -> Any:
        def write(*arguments: Any, **options: Any) -> None:
            failing = next(count) == number
            if done or not failing:
                call(*arguments, **options)
            if failing:
                raise (kind or Failure)("the line is cut")

        return write

    for name in ("add", "modify", "delete"):
        monkeypatch.setattr(session, name, failing(getattr(session, name)))


def writes(
    directory: EmbeddedDirectory, call: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Let each write that `call` makes fail in turn, until it makes no more; yield after each failure."""
    for number in range(20):
        with monkeypatch.context() as patch:
            fail_at(directory._session, number, patch)
            try:
                call()
            except Failure:
                pass
            else:
                assert number > 1
                return
        yield


@pytest.mark.parametrize("parent", ["", CONTAINER], ids=["computer", "containers"])
def test_whichever_write_of_an_installation_fails_the_directory_is_as_before(
    directory: EmbeddedDirectory, state_file: Path, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(directory)
    failures = 0
    call = lambda: directory.install_service(SCP, state_file, account="svc", parent=parent)  # noqa: E731
    for _ in writes(directory, call, monkeypatch):
        failures += 1
        assert contents(directory) == before
        assert not state_file.exists()
    assert failures == (5 if parent else 3)  # two containers; the SCP, its rights, the names
    assert directory.verify_service(state_file)


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("parent", ["", CONTAINER], ids=["computer", "containers"])
def test_whichever_write_loses_its_connection_the_directory_is_as_before_whether_it_was_done_or_not(
    directory: EmbeddedDirectory,
    state_file: Path,
    parent: str,
    done: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = contents(directory)
    for number in range(5 if parent else 3):
        with monkeypatch.context() as patch:
            fail_at(directory._session, number, patch, kind=TransportError, done=done)
            with pytest.raises(TransportError):
                directory.install_service(SCP, state_file, account="svc", parent=parent)
        assert contents(directory) == before
        assert not state_file.exists()
    assert not caplog.records
    directory.install_service(SCP, state_file, account="svc", parent=parent)
    assert directory.verify_service(state_file)


def test_whichever_write_of_a_second_installation_fails_the_first_one_remains(
    directory: EmbeddedDirectory, state_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.install_service(SCP, state_file, account="svc")
    before, state = contents(directory), state_file.read_bytes()
    changed = replace(SCP, bindings=("2001",), keywords=(*SCP.keywords, "new"))
    failures = 0
    for _ in writes(
        directory,
        lambda: directory.install_service(changed, state_file, account="other"),
        monkeypatch,
    ):
        failures += 1
        assert contents(directory) == before
        assert state_file.read_bytes() == state
        directory.verify_service(state_file)
    assert failures == 4  # the SCP, its rights, the names of the one account and of the other
    assert directory.verify_service(state_file).account.name == "other"


def test_whichever_write_of_an_uninstallation_fails_the_service_is_as_before(
    directory: EmbeddedDirectory, state_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = contents(directory)
    directory.install_service(SCP, state_file, account="svc")
    before, state = contents(directory), state_file.read_bytes()
    failures = 0
    for _ in writes(directory, lambda: directory.uninstall_service(state_file), monkeypatch):
        failures += 1
        assert contents(directory) == before
        assert state_file.read_bytes() == state
        directory.verify_service(state_file)
    assert failures == 2
    assert contents(directory) == empty


def test_a_state_file_that_cannot_be_written_undoes_the_installation(
    directory: EmbeddedDirectory, tmp_path: Path
) -> None:
    before = contents(directory)
    (tmp_path / "file").write_text("")
    with pytest.raises(KerberosError, match="state file"):
        directory.install_service(SCP, tmp_path / "file" / "state.json", account="svc")
    assert contents(directory) == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(KerberosError, match="state file"):
        directory.install_service(SCP, tmp_path / "link", account="svc")
    assert contents(directory) == before


def test_k274_an_spn_that_somebody_else_takes_in_between_undoes_the_installation(
    directory: EmbeddedDirectory, state_file: Path
) -> None:
    directory.write_account_spn(
        SpnOperation.ADD, "other", [f"ADSockAuth/web.example.test/{UNDER_WEB}"]
    )
    before = contents(directory)
    with pytest.raises(DirectoryError, match="CN=other") as refused:
        directory.install_service(SCP, state_file, account="svc")
    assert refused.value.code == 8647
    assert contents(directory) == before
    assert not state_file.exists()


def test_what_cannot_be_undone_is_told_and_the_first_error_stays(
    directory: EmbeddedDirectory,
    state_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="purekrb")
    fail_at(directory._session, 1, monkeypatch)

    def refuse(dn: str) -> None:
        raise DirectoryError("the line is cut")

    monkeypatch.setattr(directory._session, "delete", refuse)
    with pytest.raises(Failure):
        directory.install_service(SCP, state_file, account="svc")
    assert f"deleting {UNDER_WEB}" in caplog.text
    assert "the line is cut" in caplog.text


# Verifying ------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(directory: EmbeddedDirectory, state_file: Path) -> Path:
    directory.install_service(SCP, state_file, account="svc")
    return state_file


def reason(directory: Directory, state: Any, **options: Any) -> str:
    with pytest.raises(RegistrationError) as refused:
        directory.verify_service(state, **options)
    assert refused.value.args[0]
    return refused.value.reason


@pytest.mark.parametrize(
    "account", ["", "svc", "SVC", "svc@example.test", f"CN=svc,CN=Users,{BASE}"]
)
def test_a_service_as_it_was_installed_may_start(
    directory: EmbeddedDirectory, installed: Path, account: str
) -> None:
    verified = directory.verify_service(installed, account=account)
    assert verified.scp == directory.find_scps()[0]
    assert verified.account.name == "svc"
    assert verified.warnings == ()
    assert directory.update_scp(replace(verified.scp, bindings=("2001",))) == (
        "serviceBindingInformation",
    )
    assert directory.verify_service(ServiceState.load(installed)).scp.port == 2001


def test_a_renamed_account_is_still_the_account(
    directory: EmbeddedDirectory, installed: Path
) -> None:
    directory._session.rename(f"CN=svc,CN=Users,{BASE}", "CN=svc2")
    assert directory.verify_service(installed).account.dn == f"CN=svc2,CN=Users,{BASE}"


def test_an_unregistered_service_does_not_start(
    directory: EmbeddedDirectory, installed: Path
) -> None:
    spns = ServiceState.load(installed).spns
    for spn in spns:
        directory.write_account_spn(SpnOperation.DELETE, "svc", [spn])
        assert reason(directory, installed) == "NOT_REGISTERED"
        directory.write_account_spn(SpnOperation.ADD, "svc", [spn.upper()])
        directory.verify_service(installed)
    directory.remove_scp(directory.find_scps()[0])
    assert reason(directory, installed) == "NOT_REGISTERED"


def test_a_service_whose_host_has_changed_does_not_start(
    directory: EmbeddedDirectory, installed: Path
) -> None:
    scp = directory.find_scps()[0]
    directory.update_scp(replace(scp, dns_name="db.example.test"))
    assert reason(directory, installed) == "NOT_REGISTERED"
    directory.update_scp(replace(scp, dns_name="WEB.example.test."))
    directory.verify_service(installed)


def test_a_service_whose_account_is_gone_does_not_start(
    directory: EmbeddedDirectory, installed: Path
) -> None:
    directory._session.delete(f"CN=svc,CN=Users,{BASE}")
    assert reason(directory, installed) == "NOT_REGISTERED"


def test_a_service_under_another_account_does_not_start(
    directory: EmbeddedDirectory, installed: Path
) -> None:
    assert reason(directory, installed, account="other") == "WRONG_ACCOUNT"
    spn = ServiceState.load(installed).spns[0]
    directory.write_account_spn(SpnOperation.DELETE, "svc", [spn])
    directory.write_account_spn(SpnOperation.ADD, "other", [spn])
    assert reason(directory, installed) == "WRONG_ACCOUNT"


def test_k269_a_service_whose_name_two_accounts_have_does_not_start(
    directory: EmbeddedDirectory, installed: Path
) -> None:
    spn = ServiceState.load(installed).spns[0]
    # As replication would: no write of ours is let through.
    added = [Change(ChangeOperation.REPLACE, "servicePrincipalName", [spn])]
    LdapSession.modify(directory._session, directory.find_account("other").dn, added)
    with pytest.raises(RegistrationError, match=r"CN=other.*CN=svc|CN=svc.*CN=other") as refused:
        directory.verify_service(installed)
    assert refused.value.reason == "DUPLICATE"


def test_a_service_whose_scp_was_renamed_does_not_start(
    directory: EmbeddedDirectory, installed: Path
) -> None:
    directory._session.rename(UNDER_WEB, "CN=renamed")
    assert reason(directory, installed) == "STALE_DN"


@pytest.mark.parametrize(
    "spoil", [os.unlink, lambda path: Path(path).write_text("{}")], ids=["missing", "damaged"]
)
def test_a_service_without_its_state_does_not_start(
    directory: EmbeddedDirectory, installed: Path, spoil: Any
) -> None:
    directory.verify_service(installed)
    spoil(installed)
    assert reason(directory, installed) == "NO_STATE"


@pytest.mark.parametrize(
    "error",
    [
        TransportError("the connection broke"),
        DirectoryError("busy", code=8206),
        DirectoryError("", code=8207),
    ],
)
def test_a_service_does_not_start_where_the_directory_does_not_answer(
    directory: EmbeddedDirectory,
    installed: Path,
    error: KerberosError,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def search(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(directory._session, "search", search)
    assert reason(directory, installed) == "DIRECTORY_UNREACHABLE"


def test_other_failures_of_the_directory_are_no_verdict(
    directory: EmbeddedDirectory, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(*arguments: Any, **options: Any) -> None:
        raise DirectoryError("no right to read", code=8344)

    monkeypatch.setattr(directory._session, "search", search)
    with pytest.raises(DirectoryError, match="no right") as failed:
        directory.verify_service(installed)
    assert not isinstance(failed.value, RegistrationError)


def keytab(*names: str, kvno: int = 3, etype: int = 18) -> Keytab:
    realm = "EXAMPLE.TEST"
    return Keytab(
        KeytabEntry(Principal(tuple(name.split("/")), realm), kvno, crypto.random_key(etype))
        for name in names
    )


def test_keys_that_cannot_open_tickets_are_told(
    directory: EmbeddedDirectory, installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dn = f"CN=svc,CN=Users,{BASE}"
    spn = ServiceState.load(installed).spns[0]
    assert (
        directory.verify_service(installed, keytab=keytab("svc")).warnings == ()
    )  # the version is not known here
    numbers = {"msDS-KeyVersionNumber": "3", "msDS-SupportedEncryptionTypes": "24"}
    directory._session.modify(
        dn, [Change(ChangeOperation.REPLACE, name, [v]) for name, v in numbers.items()]
    )
    for good in (keytab("svc"), keytab("SVC", etype=17), keytab(spn)):
        assert directory.verify_service(installed, keytab=good).warnings == ()
    caplog.set_level(logging.WARNING, logger="purekrb")
    for bad, expected in (
        (keytab("svc", kvno=2), "of version 3, .*for CN=svc.*it has 2"),
        (keytab("other"), "it has none"),
        (keytab(), "it has none"),
        (keytab("svc", etype=23), "only has keys of rc4.*aes128.*aes256"),
    ):
        caplog.clear()
        (warning,) = directory.verify_service(installed, keytab=bad).warnings
        assert warning in caplog.text
        assert re.search(expected, warning), warning


@pytest.mark.parametrize("bits", ["", "0", "4", "7"])
def test_an_account_that_gets_rc4_tickets_is_told_of(
    directory: EmbeddedDirectory, installed: Path, caplog: pytest.LogCaptureFixture, bits: str
) -> None:
    dn = f"CN=svc,CN=Users,{BASE}"

    def set_bits(value: str) -> None:
        numbers = {"msDS-KeyVersionNumber": ["3"]}
        numbers["msDS-SupportedEncryptionTypes"] = [value] if value else []
        directory._session.modify(
            dn, [Change(ChangeOperation.REPLACE, name, v) for name, v in numbers.items()]
        )

    set_bits(bits)
    caplog.set_level(logging.WARNING, logger="purekrb")
    (warning,) = directory.verify_service(installed).warnings
    assert "set msDS-SupportedEncryptionTypes to 24 (0x18)" in warning
    assert f"is {bits or 'not set'}" in warning
    caplog.clear()
    directory.write_account_spn(SpnOperation.ADD, dn, [f"HTTP/new{bits}.example.test"])
    assert "set msDS-SupportedEncryptionTypes to 24 (0x18)" in caplog.text
    caplog.clear()
    set_bits("24")
    assert directory.verify_service(installed).warnings == ()
    directory.write_account_spn(SpnOperation.ADD, dn, [f"HTTP/newer{bits}.example.test"])
    assert caplog.text == ""


# The forest -----------------------------------------------------------------------------------------------------


def test_the_catalog_tells_which_other_domains_have_the_service(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        Directory.embedded("example.test") as home,
        Directory.embedded("child.example.test") as child,
    ):
        home.add_computer("web.example.test")
        child.add_computer("web.child.example.test")
        here = home.publish_scp(SCP)
        there = child.publish_scp(replace(SCP, dns_name="web.child.example.test"))
        asked: list[str] = []

        def domain_of(dn: str) -> LdapSession:
            asked.append(dn)
            return child._session

        # Here the catalog knows the SCPs of the child domain alone.
        found = find(home._session, child._session, [PRODUCT], domain_of)
        assert found == sorted([here, there], key=lambda scp: scp.dn)
        assert asked == [there.dn]
        assert find(home._session, home._session, [PRODUCT], domain_of) == [here]

        def unreachable(dn: str) -> LdapSession:
            raise TransportError("nobody answers")

        caplog.set_level(logging.WARNING, logger="purekrb")
        assert find(home._session, child._session, [PRODUCT], unreachable) == [here]
        assert "child.example.test" in caplog.text


def test_an_scp_that_is_in_the_catalog_alone_is_not_found() -> None:
    with Directory.embedded("example.test") as home, Directory.embedded("example.test") as stale:
        stale.add_computer("web.example.test")
        stale.publish_scp(SCP)
        assert find(home._session, stale._session, [PRODUCT], lambda dn: home._session) == []
        assert find(stale._session, stale._session, [PRODUCT], lambda dn: stale._session)


def test_endpoints_are_found_by_keyword(directory: EmbeddedDirectory) -> None:
    published = directory.publish_scp(SCP)
    (endpoint,) = directory.find_endpoints([PRODUCT, VENDOR.upper()])
    assert (endpoint.address, endpoint.scp) == (("web.example.test", 2000), published)
    assert endpoint.targets == published.spns()
    with pytest.raises(DirectoryError, match="no endpoint"):
        next(directory.find_endpoints(["absent"]))
