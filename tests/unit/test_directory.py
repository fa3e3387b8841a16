"""Service connection points, and the directory that holds them, over ldap3's own in-memory store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purekrb import system
from purekrb.directory import (
    Account,
    Directory,
    EmbeddedDirectory,
    ServiceConnectionPoint,
    SpnOperation,
)
from purekrb.directory.accounts import find_account
from purekrb.directory.ldap import Change, ChangeOperation, LdapSession, Scope
from purekrb.dn import escape_rdn_value
from purekrb.errors import (
    AccountNotFoundError,
    DecodeError,
    DirectoryError,
    KerberosError,
    SpnError,
    SpnNotUniqueError,
)
from purekrb.spn import SpnType, get_spn

ADD, REPLACE, DELETE = SpnOperation.ADD, SpnOperation.REPLACE, SpnOperation.DELETE
PRODUCT, VENDOR = "a762885a-aa44-11d2-81f1-00c04fb9624e", "83c29870-1dfc-11d3-a193-0000f87a9099"
HOST = "web.example.test"
SCP = ServiceConnectionPoint(
    "SockAuthAD", "ADSockAuth", HOST, ("2000",), (PRODUCT, VENDOR, "Auth-O-Matic")
)


@pytest.fixture
def directory() -> Iterator[EmbeddedDirectory]:
    with Directory.embedded("example.test") as directory:
        directory.add_computer(HOST)
        directory.add_computer("db.example.test")
        directory.add_user("svc")
        yield directory


def spns(directory: Directory, account: str) -> tuple[str, ...]:
    return account_of(directory, account).spns


def account_of(directory: Directory, account: str) -> Account:
    return find_account(directory._session, account)


def store(directory: Directory, dn: str, attribute: str, values: list[str]) -> None:
    """Write past all that our own writers check, as another program or a replication conflict does."""
    LdapSession.modify(directory._session, dn, [Change(ChangeOperation.REPLACE, attribute, values)])


def code_of(error: pytest.ExceptionInfo[KerberosError]) -> int:
    assert isinstance(error.value, DirectoryError | SpnError)
    return error.value.code


# The object -----------------------------------------------------------------------------------------------------


def raw(scp: ServiceConnectionPoint) -> dict[str, list[bytes]]:
    values = {
        name: [value.encode() for value in values] for name, values in scp.attributes().items()
    }
    return {"cn": [scp.name.encode()], **values}


def test_an_scp_is_read_from_the_attributes_that_it_is_written_as() -> None:
    guid = uuid4()
    read = ServiceConnectionPoint.from_attributes("CN=x", raw(SCP), guid)
    assert read == replace(SCP, dn="CN=x", object_guid=guid)
    assert read.port == 2000


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": " "},
        {"name": "a\0b"},
        {"name": "a" * 65},
        {"service_class_name": ""},
        {"service_class_name": "a/b"},
        {"service_class_name": "a\nb"},
        {"dns_name": ""},
        {"dns_name": "web"},
        {"dns_name": "10.0.0.1"},
        {"dns_name": "fe80::1"},
        {"dns_name": "web.example.test/evil"},
        {"dns_name": "web.example.test:80"},
        {"dns_name": "web.example.test\0"},
        {"dns_name": "web..example.test"},
        {"dns_name": "web.example.test\n"},
        {"dns_name": "a." * 130 + "test"},
        {"dns_name": "user@evil.test"},
        {"dns_name_type": "B"},
        {"dns_name_type": ""},
        {"bindings": ()},
        {"bindings": ("",)},
        {"bindings": ("80\0",)},
        {"keywords": ("",)},
        {"keywords": ("a" * 257,)},
        {"keywords": ("a\ud800",)},
        {"dn": "CN=a\0b"},
    ],
)
def test_k275_what_no_client_could_use_is_refused_wherever_it_comes_from(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(DirectoryError):
        replace(SCP, **changes)
    assert (
        replace(SCP, dns_name="WEB_1.example.test.", dns_name_type="a", keywords=()).dns_name_type
        == "A"
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("serviceClassName", []),
        ("serviceClassName", [b"a", b"b"]),
        ("serviceDNSName", []),
        ("serviceDNSName", [b"\xff.example.test"]),
        ("serviceDNSNameType", []),
        ("serviceDNSNameType", [b"A", b"SRV"]),
        ("serviceBindingInformation", []),
        ("keywords", [b"\xc3"]),
        ("cn", []),
    ],
)
def test_k275_an_scp_with_missing_or_broken_attributes_is_refused(
    name: str, values: list[bytes]
) -> None:
    with pytest.raises(DirectoryError, match="not usable"):
        ServiceConnectionPoint.from_attributes("CN=x", {**raw(SCP), name: values})
    assert ServiceConnectionPoint.from_attributes("CN=x", raw(SCP)).dn == "CN=x"


@pytest.mark.parametrize(
    "value", ["0", "65536", "99999", "-1", "+80", " 80", "80 ", "8O", "0x50", "٨٠", "²", "123456"]
)
def test_k275_a_port_that_is_none_is_refused_when_it_is_asked_for(value: str) -> None:
    scp = replace(SCP, bindings=(value, "80"))
    with pytest.raises(DirectoryError, match="port"):
        _ = scp.port
    assert [replace(SCP, bindings=(good,)).port for good in ("1", "65535", "02000")] == [
        1,
        65535,
        2000,
    ]


def test_client_and_service_compose_the_same_spn_from_an_scp() -> None:
    dn, guid = f"CN=SockAuthAD,CN=WEB,{'DC=example,DC=test'}", UUID(PRODUCT)
    scp = replace(SCP, dn=dn, object_guid=guid)
    assert [scp.spn()] == get_spn(SpnType.SERVICE, "ADSockAuth", dn, instances=[HOST])
    assert scp.spn(by_guid=True) == f"ADSockAuth/{HOST}/{PRODUCT}"
    assert scp.spn("node1.example.test") == f"ADSockAuth/node1.example.test/{dn}"


def test_an_spn_is_not_composed_from_what_is_not_known() -> None:
    with pytest.raises(DirectoryError, match="DN"):
        SCP.spn()
    with pytest.raises(DirectoryError, match="objectGUID"):
        replace(SCP, dn="CN=x").spn(by_guid=True)
    with pytest.raises(DirectoryError, match="resolve"):
        replace(SCP, dn="CN=x", dns_name_type="SRV", dns_name="_x._tcp.example.test").spn()
    with pytest.raises(SpnError, match="objectGUID"):
        replace(SCP, dn="CN=a/b,DC=x").spn()
    assert replace(SCP, dn="CN=x").spn()


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("plain", "plain"),
        ("a,b", "a\\,b"),
        ('a+b"c<d>e;f=g', 'a\\+b\\"c\\<d\\>e\\;f\\=g'),
        ("#1", "\\#1"),
        ("a#1", "a#1"),
        (" a b ", "\\20a b\\20"),
        (" ", "\\20"),
        ("  ", "\\20\\20"),
        ("a\\", "a\\5c"),
        ("a\0b", "a\\00b"),
        ("é", "é"),
        ("", ""),
    ],
)
def test_k268_a_name_in_a_dn_is_escaped(value: str, escaped: str) -> None:
    assert escape_rdn_value(value) == escaped


# Service principal names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "account",
    [
        "svc",
        "SVC",
        "svc@example.test",
        "CN=svc,CN=Users,DC=example,DC=test",
        "EXAMPLE\\svc",
        "example.test\\SVC",
        "WEB$",
        "WEB$@EXAMPLE.test",
        "EXAMPLE\\WEB$",
    ],
)
def test_an_account_is_found_by_dn_and_by_its_names(
    directory: EmbeddedDirectory, account: str
) -> None:
    directory.write_account_spn(ADD, account, ["cls/web.example.test"])
    assert [owner.name for owner in directory.find_spn("cls/web.example.test")] == [
        "WEB$" if "$" in account else "svc"
    ]


def test_an_account_is_found_by_its_sid(directory: EmbeddedDirectory) -> None:
    svc = directory.find_account("svc")
    assert directory.find_account(str(svc.sid)) == svc
    assert directory.find_account(str(svc.sid).lower()) == svc
    with pytest.raises(AccountNotFoundError):
        directory.find_account(f"{svc.sid}1")
    with pytest.raises(DecodeError):
        directory.find_account("S-1-svc")


@pytest.mark.parametrize(
    "domain", ["OTHER", "other.test", ".", "EXAMPLE.TEST.", "*", "example)(cn"]
)
def test_an_account_of_another_domain_is_not_taken_for_one_of_this(
    directory: EmbeddedDirectory, domain: str
) -> None:
    with pytest.raises(DirectoryError) as error:
        directory.find_account(f"{domain}\\svc")
    assert error.value.code == 1355
    assert directory.find_account("example\\svc").name == "svc"
    with pytest.raises(AccountNotFoundError):
        directory.find_account("svc@other.test")


def test_adding_twice_stores_once_and_keeps_the_spelling(directory: EmbeddedDirectory) -> None:
    for spn in ("HTTP/web.example.test", "HTTP/web.example.test", "http/WEB.example.test"):
        directory.write_account_spn(ADD, "WEB$", [spn])
    assert spns(directory, "WEB$") == ("HTTP/web.example.test",)
    directory.write_account_spn(ADD, "WEB$", ["cls/a", "CLS/A", "cls/b"])
    assert spns(directory, "WEB$") == ("HTTP/web.example.test", "cls/a", "cls/b")


def test_deleting_removes_the_listed_names_only_and_ignores_absent_ones(
    directory: EmbeddedDirectory,
) -> None:
    directory.write_account_spn(ADD, "WEB$", ["cls/a", "cls/b", "cls/c"])
    directory.write_account_spn(DELETE, "WEB$", ["CLS/B", "cls/absent"])
    assert spns(directory, "WEB$") == ("cls/a", "cls/c")
    directory.write_account_spn(DELETE, "WEB$", ["cls/a", "cls/c"])
    directory.write_account_spn(DELETE, "WEB$", ["cls/a"])
    assert spns(directory, "WEB$") == ()


def test_replacing_sets_exactly_the_listed_names_and_with_none_clears_them(
    directory: EmbeddedDirectory,
) -> None:
    directory.write_account_spn(ADD, "WEB$", ["cls/a", "cls/b"])
    directory.write_account_spn(REPLACE, "WEB$", ["cls/B", "cls/c"])
    assert spns(directory, "WEB$") == ("cls/B", "cls/c")
    directory.write_account_spn(REPLACE, "WEB$", [])
    assert spns(directory, "WEB$") == ()
    directory.write_account_spn(REPLACE, "WEB$", [])


@pytest.mark.parametrize(
    ("operation", "account", "names", "code"),
    [
        (ADD, "", ["cls/a"], 87),
        (3, "WEB$", ["cls/a"], 1),
        (-1, "WEB$", ["cls/a"], 1),
        (ADD, "WEB$", [], 87),
        (DELETE, "WEB$", [], 87),
        (ADD, "WEB$", [""], 87),
        (REPLACE, "WEB$", ["cls/a", ""], 87),
        (ADD, "WEB$", ["garbage"], 87),
        (ADD, "WEB$", ["a/b/c/d"], 87),
        (ADD, "WEB$", ["cls/a\0"], 87),
        (ADD, "nobody", ["cls/a"], 8333),
        (ADD, "CN=nobody,DC=example,DC=test", ["cls/a"], 8333),
        (ADD, "CN=Users,DC=example,DC=test", ["cls/a"], 8333),
        (ADD, "nobody@example.test", ["cls/a"], 8333),
        (ADD, "a\0b", ["cls/a"], 87),
        (ADD, "CN=\ud800,DC=test", ["cls/a"], 87),
    ],
)
def test_a_write_that_cannot_be_is_refused_with_the_code_of_windows(
    directory: EmbeddedDirectory, operation: int, account: str, names: list[str], code: int
) -> None:
    with pytest.raises(KerberosError) as error:
        directory.write_account_spn(operation, account, names)
    assert code_of(error) == code
    assert spns(directory, "WEB$") == ()
    directory.write_account_spn(0, "WEB$", ["cls/a"])
    assert spns(directory, "WEB$") == ("cls/a",)


def test_one_string_of_spns_is_the_callers_mistake(directory: EmbeddedDirectory) -> None:
    with pytest.raises(TypeError):
        directory.write_account_spn(ADD, "WEB$", "cls/a")
    with pytest.raises(TypeError):
        directory.find_scps("keyword")


def test_deleting_and_adding_are_one_step(directory: EmbeddedDirectory) -> None:
    directory.write_account_spn(ADD, "svc", ["cls/taken"])
    directory.write_account_spn(ADD, "WEB$", ["cls/old", "cls/kept"])
    directory.change_account_spns(
        "WEB$", delete=["CLS/old", "cls/absent"], add=["cls/new", "cls/NEW", "CLS/kept"]
    )
    assert spns(directory, "WEB$") == ("cls/kept", "cls/new")
    with pytest.raises(SpnNotUniqueError):
        directory.change_account_spns("WEB$", delete=["cls/kept"], add=["cls/taken"])
    with pytest.raises(SpnError):
        directory.change_account_spns("WEB$", delete=["cls/kept"], add=["garbage"])
    assert spns(directory, "WEB$") == ("cls/kept", "cls/new")
    directory.change_account_spns("WEB$", delete=["cls/kept"], add=["CLS/Kept"])
    assert spns(directory, "WEB$") == ("cls/new", "CLS/Kept")
    directory.change_account_spns("WEB$")
    with pytest.raises(AccountNotFoundError):
        directory.change_account_spns("nobody")
    with pytest.raises(TypeError):
        directory.change_account_spns("WEB$", delete="cls/new")


def test_names_to_add_come_first_for_samba_checks_only_the_first_change_unless_a_name_changes_its_case(
    directory: EmbeddedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[Change]] = []
    monkeypatch.setattr(
        directory._session, "modify", lambda dn, changes, permissive: sent.append(changes)
    )
    store(
        directory,
        account_of(directory, "WEB$").dn,
        "servicePrincipalName",
        ["cls/a", "CLS/A", "cls/b"],
    )
    attribute, add, delete = "servicePrincipalName", ChangeOperation.ADD, ChangeOperation.DELETE
    directory.change_account_spns("WEB$", delete=["Cls/A"], add=["cls/c"])
    directory.change_account_spns("WEB$", delete=["cls/b"], add=["CLS/B"])
    directory.change_account_spns("WEB$", add=["CLS/B", "cls/b", "cls/d", "CLS/D"])
    directory.change_account_spns("WEB$", add=["CLS/B"])
    assert sent == [
        [Change(add, attribute, ["cls/c"]), Change(delete, attribute, ["cls/a", "CLS/A"])],
        [Change(delete, attribute, ["cls/b"]), Change(add, attribute, ["CLS/B"])],
        [Change(add, attribute, ["cls/d"])],
    ]


def test_names_are_queried_with_wildcards(directory: EmbeddedDirectory) -> None:
    directory.write_account_spn(ADD, "WEB$", ["http/web.example.test", "cls/(x)"])
    directory.write_account_spn(ADD, "svc", ["http/svc.example.test"])
    for pattern, expected in {
        "http/*": ["WEB$", "svc"],
        "HTTP/web*": ["WEB$"],
        "*/**.example.test": ["WEB$", "svc"],
        "*": ["WEB$", "svc"],
        "http": [],
        "http/svc.example.test": ["svc"],
        "\\2a": [],
    }.items():
        assert [account.name for account in directory.query_spns(pattern)] == expected, pattern
    for pattern in ("", "a\0*"):
        with pytest.raises(DirectoryError, match="cannot search"):
            directory.query_spns(pattern)


def test_a_computer_gets_its_own_names_again(directory: EmbeddedDirectory) -> None:
    for host in (HOST, "WEB$"):
        assert directory.reset_host_spns(host) == ["HOST/web.example.test", "HOST/WEB"]
        assert spns(directory, "WEB$") == ("HOST/web.example.test", "HOST/WEB")
    with pytest.raises(DirectoryError) as error:
        directory.reset_host_spns("svc")
    assert error.value.code == 8333


def test_a_server_registers_its_dns_name_and_its_netbios_name(
    directory: EmbeddedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "local_fqdn", lambda: HOST)
    assert directory.server_register_spn(ADD, "cls", "WEB$") == ["cls/web.example.test", "cls/WEB"]
    assert directory.server_register_spn(ADD, "cls", "WEB$") == ["cls/web.example.test", "cls/WEB"]
    assert spns(directory, "WEB$") == ("cls/web.example.test", "cls/WEB")
    directory.server_register_spn(DELETE, "cls", "WEB$")
    assert spns(directory, "WEB$") == ()
    with pytest.raises(DirectoryError, match="name the account"):  # nobody is bound here
        directory.server_register_spn(ADD, "cls")


def test_who_takes_a_name_that_another_stood_for_is_told_so(
    directory: EmbeddedDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    directory.write_account_spn(ADD, "WEB$", ["HOST/web.example.test"])
    directory.write_account_spn(ADD, "svc", ["cls/web.example.test"])
    assert not caplog.records
    directory.write_account_spn(ADD, "svc", ["http/WEB.example.test"])
    assert "CN=WEB,CN=Computers,DC=example,DC=test has HOST/web.example.test" in caplog.text
    assert "http/WEB.example.test" in spns(directory, "svc")


@pytest.mark.parametrize("operation", [ADD, REPLACE])
def test_an_spn_of_another_account_is_refused_and_nothing_is_written(
    directory: EmbeddedDirectory, operation: SpnOperation
) -> None:
    directory.write_account_spn(ADD, "WEB$", ["cls/web.example.test"])
    directory.write_account_spn(ADD, "DB$", ["cls/old"])
    with pytest.raises(DirectoryError, match="CN=WEB,") as error:
        directory.write_account_spn(operation, "DB$", ["cls/free", "CLS/WEB.example.test"])
    assert error.value.code == 8647
    assert spns(directory, "DB$") == ("cls/old",)
    directory.write_account_spn(DELETE, "WEB$", ["cls/web.example.test"])
    directory.write_account_spn(operation, "DB$", ["cls/free", "CLS/WEB.example.test"])
    assert spns(directory, "DB$")[-2:] == ("cls/free", "CLS/WEB.example.test")


def test_k269_all_owners_of_a_duplicate_spn_are_found(directory: EmbeddedDirectory) -> None:
    assert directory.find_spn("cls/x") == []
    directory.write_account_spn(ADD, "WEB$", ["cls/x"])
    # What a replication conflict leaves behind; no call of ours writes it.
    store(directory, account_of(directory, "DB$").dn, "servicePrincipalName", ["cls/x"])
    assert [account.name for account in directory.find_spn("CLS/X")] == ["DB$", "WEB$"]


def test_an_odd_spn_that_somebody_stored_can_be_deleted(directory: EmbeddedDirectory) -> None:
    store(directory, account_of(directory, "WEB$").dn, "servicePrincipalName", ["cls//x", "cls/a"])
    with pytest.raises(SpnError):
        directory.write_account_spn(ADD, "DB$", ["cls//x"])
    directory.write_account_spn(DELETE, "WEB$", ["cls//x"])
    assert spns(directory, "WEB$") == ("cls/a",)


def test_k274_writers_in_many_threads_lose_no_update(directory: EmbeddedDirectory) -> None:
    names = [f"cls/{n}" for n in range(24)]
    threads = [
        threading.Thread(target=directory.write_account_spn, args=(ADD, "WEB$", [name]))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(spns(directory, "WEB$")) == sorted(names)


@pytest.mark.parametrize(
    "spn",
    [
        "cls/h/CN=a\\,b \\\\c,DC=x",
        "cls/h/(x)",
        "cls/h/*",
        "cls/*",
        "cls/h/a\\2ab",
        "cls/h/a\\5c2a",
        "cls/h/é€𝄞",
        "cls/h/#1",
        "cls/h/a)(objectClass=*",
        "cls/h/" + "x" * 5000,
    ],
)
def test_k267_a_name_with_filter_characters_is_found_and_finds_nothing_else(
    directory: EmbeddedDirectory, spn: str
) -> None:
    directory.write_account_spn(ADD, "DB$", ["cls/other", "cls/h/a*b", "cls/h/x)"])
    assert directory.find_spn(spn) == []
    directory.write_account_spn(ADD, "WEB$", [spn])
    assert [account.name for account in directory.find_spn(spn)] == ["WEB$"]
    assert spns(directory, "WEB$") == (spn,)


NOISE = st.text(
    st.one_of(st.sampled_from('/*()\\,=+#<>;" :@&|!~aA0\0\n'), st.characters()), max_size=30
)
SHARED = Directory.embedded()
SHARED.add_computer(HOST)


@settings(deadline=None)
@given(NOISE, NOISE, NOISE)
def test_k267_any_text_is_stored_and_found_exactly_or_refused(
    first: str, second: str, account: str
) -> None:
    spn, other = f"cls/h/{first}", f"cls/h/{second}"
    try:
        SHARED.write_account_spn(REPLACE, "WEB$", [spn])
        found = SHARED.find_spn(other)
    except KerberosError:
        pass
    else:
        assert [owner.spns for owner in SHARED.find_spn(spn)] == [(spn,)]
        assert bool(found) == (spn.lower() == other.lower()), (spn, other, found)
    if account.casefold() != "web$":
        with pytest.raises(KerberosError):
            SHARED.write_account_spn(ADD, account, ["cls/never"])
        with pytest.raises(KerberosError):
            SHARED.write_account_spn(
                ADD, f"CN={account},CN=Computers,DC=example,DC=test", ["cls/never"]
            )
        with pytest.raises(KerberosError):
            SHARED.publish_scp(SCP, host=account or "nobody")


# Service connection points --------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["", HOST, HOST.upper(), "WEB$"])
def test_an_scp_is_published_below_its_computer_and_found_by_all_of_its_keywords(
    directory: EmbeddedDirectory, host: str
) -> None:
    published = directory.publish_scp(SCP, host=host)
    assert published.dn == "CN=SockAuthAD,CN=WEB,CN=Computers,DC=example,DC=test"
    assert published.object_guid is not None
    assert published == replace(SCP, dn=published.dn, object_guid=published.object_guid)
    assert directory.find_scps([PRODUCT]) == [published]
    assert directory.find_scps([PRODUCT.upper(), VENDOR, "auth-o-matic"]) == [published]
    assert directory.find_scps() == [published]
    assert directory.find_scps([PRODUCT, "absent"]) == []
    assert directory.find_scps([PRODUCT[:-1]]) == []


def test_publishing_again_brings_up_to_date_what_is_ours_and_leaves_alone_what_is_not(
    directory: EmbeddedDirectory,
) -> None:
    first = directory.publish_scp(SCP)
    again = directory.publish_scp(replace(SCP, bindings=("2001",)))
    assert again == replace(first, bindings=("2001",))
    for foreign in (
        replace(SCP, service_class_name="Other"),
        replace(SCP, keywords=(str(uuid4()),)),
        replace(SCP, keywords=("Auth-O-Matic",)),
    ):
        with pytest.raises(DirectoryError, match="another name") as error:
            directory.publish_scp(foreign)
        assert error.value.code == 8305
    assert directory.find_scps() == [again]


def test_an_object_of_another_kind_is_not_taken_for_an_scp(directory: EmbeddedDirectory) -> None:
    dn = f"CN=SockAuthAD,{account_of(directory, 'WEB$').dn}"
    directory._session.add(dn, "container", {})
    with pytest.raises(DirectoryError) as error:
        directory.publish_scp(SCP)
    assert error.value.code == 8305
    directory.remove_scp(replace(SCP, dn=dn))
    directory.remove_scp(replace(SCP, dn=account_of(directory, "WEB$").dn))
    assert account_of(directory, "WEB$")
    assert directory._session.search(dn, "(objectClass=container)", scope=Scope.BASE)


def test_an_scp_without_a_place_or_without_keywords_is_not_published(
    directory: EmbeddedDirectory,
) -> None:
    with pytest.raises(DirectoryError) as error:
        directory.publish_scp(replace(SCP, dns_name="other.example.test"))
    assert error.value.code == 8333
    with pytest.raises(DirectoryError, match="keywords"):
        directory.publish_scp(replace(SCP, keywords=()))
    assert directory.find_scps() == []
    assert directory.publish_scp(SCP)


def test_an_update_writes_only_what_has_changed(
    directory: EmbeddedDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scp = directory.publish_scp(replace(SCP, bindings=("2000", "2001")))
    written: list[dict[str, Any]] = []
    modify = directory._session.modify

    def watched(dn: str, changes: list[Change]) -> None:
        written.append({change.attribute: change.values for change in changes})
        modify(dn, changes)

    monkeypatch.setattr(directory._session, "modify", watched)
    assert directory.update_scp(scp) == ()
    assert (
        directory.update_scp(replace(scp, dns_name=HOST.upper(), bindings=("2001", "2000"))) == ()
    )
    assert written == []
    moved = replace(scp, dns_name="db.example.test", bindings=("2002",))
    assert directory.update_scp(moved) == ("serviceDNSName", "serviceBindingInformation")
    assert written == [
        {"serviceDNSName": ["db.example.test"], "serviceBindingInformation": ["2002"]}
    ]
    assert directory.find_scps() == [moved]


def test_an_scp_is_found_again_by_its_guid_after_its_dn_has_changed(
    directory: EmbeddedDirectory,
) -> None:
    scp = directory.publish_scp(SCP)
    directory._session.rename(scp.dn, "CN=renamed")
    assert directory.update_scp(replace(scp, bindings=("2002",))) == ("serviceBindingInformation",)
    (found,) = directory.find_scps([PRODUCT])
    assert found.dn != scp.dn
    assert found.port == 2002


def test_an_scp_is_found_by_a_guid_whose_bytes_look_like_an_escape(
    directory: EmbeddedDirectory,
) -> None:
    guid = UUID(bytes_le=b"\\8eKp.\xbcF\x9b\\-f\xe3*(Q")
    dn = f"CN=SockAuthAD,{account_of(directory, 'WEB$').dn}"
    LdapSession.add(
        directory._session,
        dn,
        "serviceConnectionPoint",
        {**raw(SCP), "objectGUID": [guid.bytes_le]},
    )
    (scp,) = directory.find_scps()
    assert scp.object_guid == guid
    assert directory.update_scp(replace(scp, bindings=("1",))) == ("serviceBindingInformation",)


def test_a_removed_scp_is_gone_and_removing_it_again_is_no_error(
    directory: EmbeddedDirectory,
) -> None:
    scp = directory.publish_scp(SCP)
    other = directory.publish_scp(replace(SCP, name="other"))
    directory.remove_scp(scp)
    directory.remove_scp(scp)
    assert directory.find_scps() == [other]
    with pytest.raises(DirectoryError) as error:
        directory.update_scp(scp)
    assert error.value.code == 8333
    for call in (directory.update_scp, directory.remove_scp):
        with pytest.raises(DirectoryError, match="not published"):
            call(SCP)


def test_k275_an_unusable_scp_hides_no_usable_one_but_is_an_error_alone(
    directory: EmbeddedDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    bad = directory.publish_scp(replace(SCP, name="bad"))
    store(directory, bad.dn, "serviceDNSName", ["10.0.0.1"])
    with pytest.raises(DirectoryError, match="DNS name"):
        next(directory.find_endpoints([PRODUCT]))
    good = directory.publish_scp(SCP)
    caplog.set_level(logging.WARNING, logger="purekrb")
    assert [endpoint.scp for endpoint in directory.find_endpoints([PRODUCT])] == [good]
    assert "CN=bad" in caplog.text


def test_k275_an_unreadable_scp_hides_no_readable_one_but_is_an_error_alone(
    directory: EmbeddedDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    bad = directory.publish_scp(replace(SCP, name="bad"))
    store(directory, bad.dn, "serviceDNSName", ["web.example.test", "evil.test"])
    with pytest.raises(DirectoryError, match="2 values"):
        directory.find_scps([PRODUCT])
    good = directory.publish_scp(SCP)
    caplog.set_level(logging.WARNING, logger="purekrb")
    assert directory.find_scps([PRODUCT]) == [good]
    assert "CN=bad" in caplog.text


def test_k275_an_object_without_a_guid_of_its_own_is_refused(directory: EmbeddedDirectory) -> None:
    scp = directory.publish_scp(SCP)
    assert directory.find_scps() == [scp]
    store(directory, scp.dn, "objectGUID", ["short"])
    with pytest.raises(DirectoryError, match="objectGUID"):
        directory.find_scps()


@settings(deadline=None)
@given(
    st.text(
        st.one_of(st.sampled_from('\\,+"<>;=# @/'), st.characters(exclude_categories=["Cs"])),
        min_size=1,
    )
)
def test_k268_any_name_makes_one_object_below_its_computer_or_is_refused(name: str) -> None:
    try:
        scp = SHARED.publish_scp(replace(SCP, name=name))
    except DirectoryError:
        return
    try:
        assert scp.dn.endswith(",CN=WEB,CN=Computers,DC=example,DC=test")
        assert [found.name for found in SHARED.find_scps([PRODUCT])] == [name]
    finally:
        SHARED.remove_scp(scp)
    assert SHARED.find_scps([PRODUCT]) == []


@pytest.mark.parametrize(
    "name", [" a ", "#a", "a,CN=Users", "a+b", "\\", "a\\", "a=b", 'a"b', "<a>", "a;b", "é", "a@b"]
)
def test_k268_a_name_of_special_characters_is_kept(directory: EmbeddedDirectory, name: str) -> None:
    published = directory.publish_scp(replace(SCP, name=name))
    assert directory.find_scps([PRODUCT]) == [published]
    assert published.name == name
    assert published.dn.endswith(",CN=WEB,CN=Computers,DC=example,DC=test")


# The embedded directory -----------------------------------------------------------------------------------------


def test_two_embedded_directories_share_nothing() -> None:
    with Directory.embedded() as one, Directory.embedded() as other:
        one.add_computer(HOST)
        one.publish_scp(SCP)
        assert len(one.find_scps()) == 1
        assert other.find_scps() == []


def test_a_closed_directory_says_so(directory: EmbeddedDirectory) -> None:
    assert directory.find_scps() == []
    directory.close()
    with pytest.raises(DirectoryError):
        directory.find_scps()


def test_an_account_is_added_once_and_not_without_a_name(directory: EmbeddedDirectory) -> None:
    with pytest.raises(DirectoryError) as error:
        directory.add_computer(HOST)
    assert error.value.code == 8305
    for name in ("", " ", "a\0b", "\ud800"):
        with pytest.raises(DirectoryError):
            directory.add_user(name)
    assert directory.add_user("a, b").name == "a, b"


@pytest.mark.parametrize("domain", ["", ".", "a..b", "a,DC=b", "exa mple"])
def test_a_domain_that_is_none_is_refused(domain: str) -> None:
    with pytest.raises(DirectoryError, match="domain"):
        Directory.embedded(domain)
    assert Directory.embedded("corp")


def test_the_package_has_no_other_names() -> None:
    import purekrb.directory

    with pytest.raises(AttributeError):
        _ = purekrb.directory.Nothing


def test_accounts_have_identities_of_their_own(directory: EmbeddedDirectory) -> None:
    accounts = [
        directory.add_user("alice"),
        directory.add_user("bob"),
        directory.add_computer("mail.example.test"),
    ]
    assert (
        len({account.sid for account in accounts})
        == len({account.object_guid for account in accounts})
        == 3
    )
    assert len({account.sid.sub_authorities[:-1] for account in accounts}) == 1
    assert Directory.embedded().add_user("alice").sid != accounts[0].sid
