"""Services in an Active Directory that Samba serves: published, installed, verified, found, talked to, and removed.

What Samba answers, and what docs/scp.md says of it, is checked here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from purekrb import Credential, Keytab, KeytabEntry, Principal, crypto
from purekrb.directory import Directory, ServiceConnectionPoint, ServiceState, SpnOperation
from purekrb.directory.endpoints import endpoints, resolve_srv
from purekrb.directory.ldap import Change, ChangeOperation, Scope, equals, sd_flags
from purekrb.directory.security_descriptor import SecurityDescriptor, property_ace
from purekrb.errors import (
    DirectoryError,
    InsufficientRightsError,
    RegistrationError,
    TransportError,
)
from support.samba import SambaDc

PRODUCT, VENDOR = "d1c2a8d4-0c5a-4a43-9a3e-5b8f0f6d7a01", "83c29870-1dfc-11d3-a193-0000f87a9099"
PRODUCT_OF_EXAMPLES = "e525e43e-562d-428a-a04c-228200791032"
EXAMPLES = Path(__file__).parents[2] / "examples"
DNS_NAME = UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1")
BINDING = UUID("b7b1311c-b82e-11d0-afee-0000f80367c1")
HOST = "scpweb.ad.test"
SCP = ServiceConnectionPoint(
    "SockAuthAD", "ADSockAuth", HOST, ("2000",), (PRODUCT, VENDOR, "Auth-O-Matic")
)
BASE = SambaDc.base
UNDER_COMPUTER = f"CN=SockAuthAD,CN=SCPWEB,CN=Computers,{BASE}"
CONTAINER = f"CN=Auth-O-Matic,CN=scp-Vendor,CN=System,{BASE}"
#: What any write changes in an object, besides what it is meant to change.
BOOKKEEPING = {
    "uSNChanged",
    "whenChanged",
    "replPropertyMetaData",
    "dSCorePropagationData",
    "lastLogon",
    "logonCount",
}
BOOKKEEPING |= {"lastLogonTimestamp", "badPwdCount", "badPasswordTime"}


def bound(dc: SambaDc, account: str, *, port: int = 389) -> Directory:
    """A directory that the account is bound to."""
    credential = Credential.from_password(f"{account}@{dc.realm}", dc.password)
    return Directory.connect(
        f"ldap://{dc.address}:{port}",
        credential,
        dc.config,
        target=f"ldap/{dc.host}/{dc.dns_domain}",
    )


@pytest.fixture(scope="module", autouse=True)
def accounts(samba_dc: SambaDc) -> None:
    samba_dc.add_computer("SCPWEB")
    for name in ("scp-svc", "scp-other", "scp-client"):
        samba_dc.add_user(name)
    samba_dc.delete(f"CN=scp-Vendor,CN=System,{BASE}")


@pytest.fixture(scope="module")
def admin(samba_dc: SambaDc, accounts: None) -> Iterator[Directory]:
    with bound(samba_dc, samba_dc.administrator) as directory:
        yield directory


@pytest.fixture(scope="module")
def service(samba_dc: SambaDc, accounts: None) -> Iterator[Directory]:
    with bound(samba_dc, "scp-svc") as directory:
        yield directory


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


@pytest.fixture
def published(admin: Directory) -> Iterator[ServiceConnectionPoint]:
    scp = admin.publish_scp(SCP, account="scp-svc")
    yield scp
    admin.remove_scp(scp)


@pytest.fixture
def installed(admin: Directory, state_file: Path) -> Iterator[Path]:
    admin.install_service(SCP, state_file, account="scp-svc")
    yield state_file
    if state_file.exists():
        admin.uninstall_service(state_file)


def attributes(admin: Directory, dn: str, *names: str, flags: int = 0) -> dict[str, list[bytes]]:
    """What the directory has at `dn`: the attributes asked for, or all."""
    controls = [sd_flags(flags)] if flags else []
    (entry,) = admin._session.search(
        dn, "(objectClass=*)", names or ("*",), scope=Scope.BASE, controls=controls
    )
    return {name: sorted(values) for name, values in entry.attributes.items()}


def snapshot(dc: SambaDc) -> dict[str, dict[str, list[str]]]:
    """What LDIF shows of all that an installation may touch, security descriptors included, without the bookkeeping.

    Not the whole domain: other tests are at work in it.
    """
    places = [f"CN=System,{BASE}", f"CN=SCPWEB,CN=Computers,{BASE}", f"CN=scp-svc,CN=Users,{BASE}"]
    entries = [
        e
        for place in places
        for e in dc.search("(objectClass=*)", "*", "nTSecurityDescriptor", base=place)
    ]
    return {
        str(entry["dn"][0]): {
            name: sorted(map(repr, values))
            for name, values in entry.items()
            if name not in BOOKKEEPING
        }
        for entry in entries
    }


def usn(admin: Directory, dn: str) -> int:
    return int(attributes(admin, dn, "uSNChanged")["uSNChanged"][0])


def of_last_write(admin: Directory, dn: str) -> int:
    """How many attributes of `dn` have the number of its last write. Source: MS-DRSR 4.1.10.2.22."""
    (data,) = attributes(admin, dn, "replPropertyMetaData")["replPropertyMetaData"]
    numbers = [local_usn for *_, local_usn in struct.iter_unpack("<IIQ16sQQ", data[16:])]
    assert max(numbers) == usn(admin, dn)
    return numbers.count(max(numbers))


# Publishing -----------------------------------------------------------------------------------------------------


def test_chk15_an_scp_is_published_below_its_computer_with_its_attributes(
    admin: Directory, published: ServiceConnectionPoint
) -> None:
    assert published == replace(SCP, dn=UNDER_COMPUTER, object_guid=published.object_guid)
    found = attributes(admin, UNDER_COMPUTER)
    classes = [b"connectionPoint", b"leaf", b"serviceConnectionPoint", b"top"]
    assert sorted(found["objectClass"]) == classes
    assert found["serviceBindingInformation"] == [b"2000"]
    assert found["serviceDNSNameType"] == [b"A"]
    assert found["serviceDNSName"] == [HOST.encode()]
    assert found["serviceClassName"] == [b"ADSockAuth"]
    assert found["keywords"] == sorted(keyword.encode() for keyword in SCP.keywords)
    assert found["objectGUID"] == [published.object_guid and published.object_guid.bytes_le]


def test_chk15_nothing_is_left_where_the_rights_cannot_be_given(
    admin: Directory, samba_dc: SambaDc, state_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(samba_dc)
    # A descriptor that the domain controller refuses: this attribute does not take what is no descriptor.
    monkeypatch.setattr(
        "purekrb.directory.scps.grant", lambda descriptor, trustee, attributes: b"none"
    )
    with pytest.raises(DirectoryError):
        admin.install_service(SCP, state_file, account="scp-svc", parent=CONTAINER)
    assert snapshot(samba_dc) == before
    assert not state_file.exists()


def test_chk16_containers_are_made_below_system_and_other_places_are_refused(
    admin: Directory, samba_dc: SambaDc, state_file: Path
) -> None:
    before = snapshot(samba_dc)
    made = admin.install_service(SCP, state_file, account="scp-svc", parent=CONTAINER)
    assert made.scp.dn == f"CN=SockAuthAD,{CONTAINER}"
    assert attributes(admin, CONTAINER, "objectClass")["objectClass"] == [b"container", b"top"]
    admin.uninstall_service(state_file)
    for place in (
        f"CN=Configuration,{BASE}",
        f"CN=Users,{BASE}",
        f"CN=Computers,{BASE}",
        f"CN=WinsockServices,CN=System,{BASE}",
        f"CN=RpcServices,CN=System,{BASE}",
    ):
        assert attributes(
            admin, place, "cn"
        )  # it is there, and would take the object or refuse it by itself
        with pytest.raises(DirectoryError, match="must not be published below"):
            admin.publish_scp(SCP, parent=place)
    assert snapshot(samba_dc) == before


def test_publishing_again_adopts_what_is_ours_and_refuses_what_is_not(
    admin: Directory, published: ServiceConnectionPoint
) -> None:
    again = admin.publish_scp(replace(SCP, bindings=("2001",)), account="scp-svc")
    assert again == replace(published, bindings=("2001",))
    with pytest.raises(DirectoryError, match="another name") as refused:
        admin.publish_scp(replace(SCP, service_class_name="Other"), account="scp-svc")
    assert refused.value.code == 8305


# Rights ---------------------------------------------------------------------------------------------------------


def test_chk17_two_aces_are_added_once_and_the_rest_of_the_descriptor_stays(
    admin: Directory, samba_dc: SambaDc
) -> None:
    plain = admin.publish_scp(SCP, parent=f"CN=SCPWEB,CN=Computers,{BASE}")  # no account: no rights
    whole = 7  # owner, group, DACL
    before = SecurityDescriptor.decode(
        attributes(admin, plain.dn, "nTSecurityDescriptor", flags=whole)["nTSecurityDescriptor"][0]
    )
    try:
        for _ in range(2):
            admin.publish_scp(SCP, account="scp-svc")
        data = attributes(admin, plain.dn, "nTSecurityDescriptor", flags=whole)[
            "nTSecurityDescriptor"
        ][0]
        after = SecurityDescriptor.decode(data)
        assert after.encode() == data
        sid = admin.find_account("scp-svc").sid
        added = [property_ace(DNS_NAME, sid), property_ace(BINDING, sid)]
        assert before.dacl
        assert after.dacl
        assert [ace for ace in after.dacl.aces if ace not in before.dacl.aces] == added
        assert [ace for ace in after.dacl.aces if ace not in added] == list(before.dacl.aces)
        assert replace(after, dacl=None) == replace(before, dacl=None)
        first_inherited = next(at for at, ace in enumerate(after.dacl.aces) if ace.flags & 0x10)
        assert after.dacl.aces[first_inherited - 2 : first_inherited] == tuple(added)
        text = samba_dc.samba_tool("dsacl", "get", f"--objectdn={plain.dn}")
        for guid in (DNS_NAME, BINDING):
            assert f"(OA;;RPWP;{guid};;{sid})" in text
    finally:
        admin.remove_scp(plain)


def test_chk18_the_account_may_update_host_and_bindings_and_nothing_else(
    admin: Directory, service: Directory, samba_dc: SambaDc, published: ServiceConnectionPoint
) -> None:
    changed = replace(published, bindings=("2001",), dns_name="scpweb2.ad.test")
    assert service.update_scp(changed) == ("serviceDNSName", "serviceBindingInformation")
    assert admin.find_scps([PRODUCT]) == [changed]
    for forbidden in (
        {"service_class_name": "Other"},
        {"keywords": (PRODUCT,)},
        {"dns_name_type": "SRV"},
    ):
        with pytest.raises(InsufficientRightsError, match="publish the SCP again"):
            service.update_scp(replace(changed, **forbidden))  # type: ignore[arg-type]
    with pytest.raises(InsufficientRightsError):
        service.remove_scp(changed)
    with bound(samba_dc, "scp-other") as other, pytest.raises(InsufficientRightsError):
        other.update_scp(replace(changed, bindings=("2002",)))
    assert admin.find_scps([PRODUCT]) == [changed]


def test_a_computer_may_publish_below_itself_and_update_what_it_published(
    samba_dc: SambaDc,
) -> None:
    with bound(samba_dc, "SCPWEB$") as computer:
        scp = computer.publish_scp(SCP)
        try:
            assert computer.update_scp(replace(scp, bindings=("2001",))) == (
                "serviceBindingInformation",
            )
        finally:
            computer.remove_scp(scp)


# Updating -------------------------------------------------------------------------------------------------------


def test_chk19_the_state_file_finds_the_scp_after_it_was_renamed_and_moved(
    admin: Directory, service: Directory, samba_dc: SambaDc, installed: Path
) -> None:
    samba_dc.modify(
        f"dn: {UNDER_COMPUTER}\nchangetype: modrdn\nnewrdn: CN=renamed\ndeleteoldrdn: 1\n"
        f"newsuperior: CN=System,{BASE}\n"
    )
    assert service.update_service(installed, bindings=["2001"]) == ("serviceBindingInformation",)
    (found,) = admin.find_scps([PRODUCT])
    assert (found.dn, found.port) == (f"CN=renamed,CN=System,{BASE}", 2001)
    assert found.object_guid == ServiceState.load(installed).object_guid
    assert installed.stat().st_mode & 0o777 == 0o600


def test_chk20_an_update_writes_once_and_only_where_something_differs(
    admin: Directory, service: Directory, installed: Path
) -> None:
    before = usn(admin, UNDER_COMPUTER)
    assert service.update_service(installed, bindings=["2000"], host=HOST.upper()) == ()
    assert usn(admin, UNDER_COMPUTER) == before
    changed = service.update_service(installed, bindings=["2001"], host="scpweb2.ad.test")
    assert changed == ("serviceDNSName", "serviceBindingInformation")
    assert of_last_write(admin, UNDER_COMPUTER) == 2  # both by one and the same request


# Looking up -----------------------------------------------------------------------------------------------------


def test_chk21_services_are_found_by_all_keywords_in_any_case(
    admin: Directory, samba_dc: SambaDc, published: ServiceConnectionPoint
) -> None:
    with bound(samba_dc, "scp-client") as client:
        for keywords in ([PRODUCT], [PRODUCT.upper(), VENDOR], ["auth-o-matic", PRODUCT]):
            assert client.find_scps(keywords) == [published]
        assert client.find_scps([PRODUCT, "absent"]) == []
        (endpoint,) = client.find_endpoints([PRODUCT])
        assert (endpoint.address, endpoint.targets) == ((HOST, 2000), published.spns())


def test_chk21_the_catalog_is_asked_by_keyword_for_nothing_but_dns(
    admin: Directory, published: ServiceConnectionPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    catalog, search = admin._forest, admin._forest.search
    assert (catalog is admin._session, catalog.base_dn) == (False, "")
    monkeypatch.setattr(
        catalog,
        "search",
        lambda *options, **named: asked.append((options, named)) or search(*options),
    )
    assert admin.find_scps([PRODUCT]) == [published]
    assert asked == [
        (("", f"(&(objectClass=serviceConnectionPoint){equals('keywords', PRODUCT)})"), {})
    ]
    # No attribute is named, and this is what then comes back.
    ((base, filter), _) = asked[0]
    (entry,) = search(base, filter)
    assert (entry.dn, dict(entry.attributes)) == (published.dn, {})


def test_chk21_the_catalog_of_samba_has_hosts_that_windows_does_not_have(
    admin: Directory, published: ServiceConnectionPoint
) -> None:
    names = ("keywords", "serviceBindingInformation", "serviceDNSName", "serviceClassName")
    (entry,) = admin._forest.search("", f"(keywords={PRODUCT})", names)
    assert sorted(entry.attributes["keywords"]) == sorted(
        keyword.encode() for keyword in SCP.keywords
    )
    # Samba's catalog of a single domain is the domain itself.
    assert (entry.dn, list(entry.attributes["serviceDNSName"])) == (published.dn, [HOST.encode()])


def test_chk21_more_than_a_thousand_services_are_found_in_catalog_and_domain(
    admin: Directory, samba_dc: SambaDc
) -> None:
    keyword, many = "5d1c3b0e-8d0f-4bb5-9d0c-2f0a4d6c1e77", 1010
    place = f"OU=scp-many,{BASE}"
    lines = [f"dn: {place}\nobjectClass: organizationalUnit\n"]
    lines += [
        f"dn: CN={number},{place}\nobjectClass: serviceConnectionPoint\nkeywords: {keyword}\nserviceClassName: many\n"
        f"serviceDNSName: n{number}.ad.test\nserviceDNSNameType: A\nserviceBindingInformation: 2000\n"
        for number in range(many)
    ]
    if not samba_dc.search(
        "(ou=scp-many)", "dn"
    ):  # they take their time, and stay for the next run on a DC that stays
        samba_dc._ldb("ldbadd", text="\n".join(lines))
    assert len(admin._forest.search("", f"(keywords={keyword})")) == many
    found = admin.find_scps([keyword])
    assert {scp.dns_name for scp in found} == {f"n{number}.ad.test" for number in range(many)}
    first = {next(endpoints(found, resolve_srv, policy="random")).host for _ in range(5)}
    assert len(first) > 1
    assert next(endpoints(found, resolve_srv, host="N1000.ad.test")).host == "n1000.ad.test"


def test_chk22_what_is_gone_or_junk_is_passed_over(admin: Directory) -> None:
    gone = admin.publish_scp(replace(SCP, name="gone"), account="scp-svc")
    kept = admin.publish_scp(replace(SCP, name="kept"), account="scp-svc")
    try:
        assert admin.find_scps([PRODUCT]) == [gone, kept]
        admin.remove_scp(gone)
        assert admin.find_scps([PRODUCT]) == [kept]
        # Junk that somebody has written there is passed over as well.
        junk = admin.publish_scp(
            replace(SCP, name="junk", bindings=("http://evil.test/",)), account="scp-svc"
        )
        assert [endpoint.scp for endpoint in admin.find_endpoints([PRODUCT])] == [kept]
        admin.remove_scp(junk)
    finally:
        admin.remove_scp(kept)


# Verifying ------------------------------------------------------------------------------------------------------


def reason(directory: Directory, state: Any, **options: Any) -> str:
    with pytest.raises(RegistrationError) as refused:
        directory.verify_service(state, **options)
    return refused.value.reason


def test_chk23_a_service_as_installed_may_start_and_its_keys_are_checked(
    service: Directory, samba_dc: SambaDc, installed: Path
) -> None:
    keytab = Keytab.load(samba_dc.keytab("scp-svc"))
    verified = service.verify_service(installed, account=f"scp-svc@{samba_dc.realm}", keytab=keytab)
    assert verified.scp.dn == UNDER_COMPUTER
    assert verified.warnings == ()
    # The same password again: another version of the same key, which the KDC proves.
    samba_dc.set_password(verified.account.dn, samba_dc.password)
    assert service.verify_service(installed, keytab=keytab).warnings == ()
    (warning,) = service.verify_service(installed, keytab=keytab, ask_kdc=False).warnings
    assert "export the keytab again" in warning
    samba_dc.set_password(verified.account.dn, "Another.pw1")
    try:
        (warning,) = service.verify_service(installed, keytab=keytab).warnings
        assert "the keytab is stale: export the keytab again" in warning
        current = Keytab.load(samba_dc.keytab("scp-svc"))
        assert service.verify_service(installed, keytab=current).warnings == ()
    finally:
        samba_dc.set_password(verified.account.dn, samba_dc.password)


def test_chk23_each_fault_has_a_reason_of_its_own(
    admin: Directory, service: Directory, samba_dc: SambaDc, installed: Path
) -> None:
    spn = ServiceState.load(installed).spns[0]
    service.verify_service(installed)
    admin.write_account_spn(SpnOperation.DELETE, "scp-svc", [spn])
    assert reason(service, installed) == "NOT_REGISTERED"
    admin.write_account_spn(SpnOperation.ADD, "scp-other", [spn])
    assert reason(service, installed) == "WRONG_ACCOUNT"
    # Samba looks at the first change of a request alone, and so lets a name by that another account has.
    by = [Change(ChangeOperation.DELETE, "servicePrincipalName", ["scp/absent"])]
    by += [Change(ChangeOperation.ADD, "servicePrincipalName", [spn])]
    admin._session.modify(admin.find_account("scp-svc").dn, by, permissive=True)
    assert reason(service, installed) == "DUPLICATE"
    admin.write_account_spn(SpnOperation.DELETE, "scp-other", [spn])
    service.verify_service(installed)
    assert reason(service, installed, account="scp-other") == "WRONG_ACCOUNT"
    samba_dc.modify(
        f"dn: {UNDER_COMPUTER}\nchangetype: modrdn\nnewrdn: CN=renamed\ndeleteoldrdn: 1\n"
    )
    assert reason(service, installed) == "STALE_DN"
    admin.install_service(SCP, installed, account="scp-svc")
    assert service.verify_service(installed).scp.dn == UNDER_COMPUTER.replace(
        "SockAuthAD", "renamed"
    )
    assert reason(service, installed.with_suffix(".none")) == "NO_STATE"


def test_chk23_a_directory_that_does_not_answer_is_told_apart(
    samba_dc: SambaDc, installed: Path
) -> None:
    with bound(samba_dc, "scp-svc") as directory:
        directory.verify_service(installed)
        session = directory._session
        session._connection.socket._socket.shutdown(socket.SHUT_RDWR)
        directory.verify_service(installed)  # on a new connection
        session._connection.socket._socket.shutdown(socket.SHUT_RDWR)
        session._reopen = None  # the next one does not come about
        assert reason(directory, installed) == "DIRECTORY_UNREACHABLE"


def test_chk24_writes_are_not_sent_to_the_catalog(samba_dc: SambaDc) -> None:
    with bound(samba_dc, samba_dc.administrator, port=3268) as directory:
        with pytest.raises(DirectoryError) as refused:
            directory._forest.modify(
                f"CN=SCPWEB,CN=Computers,{BASE}",
                [Change(ChangeOperation.REPLACE, "description", ["x"])],
            )
        assert refused.value.code == 8245
        scp = directory.publish_scp(SCP)
        assert directory.find_scps([PRODUCT]) == [scp]
        directory.remove_scp(scp)


# Installing -----------------------------------------------------------------------------------------------------


def test_chk45_what_is_installed_and_uninstalled_leaves_the_domain_as_it_was(
    admin: Directory, samba_dc: SambaDc, state_file: Path
) -> None:
    before = snapshot(samba_dc)
    for parent in ("", CONTAINER):
        made = admin.install_service(SCP, state_file, account="scp-svc", parent=parent)
        between = snapshot(samba_dc)
        changed = {dn for dn in between if before.get(dn) != between[dn]}
        assert {made.scp.dn, made.account and made.account.dn} <= changed
        admin.uninstall_service(state_file)
        assert snapshot(samba_dc) == before


@pytest.mark.parametrize("number", range(3), ids=["scp", "rights", "names"])
def test_a_connection_that_breaks_before_the_answer_leaves_the_domain_as_it_was(
    samba_dc: SambaDc, state_file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before, count = snapshot(samba_dc), iter(range(100))
    with bound(samba_dc, samba_dc.administrator) as directory:
        session = directory._session

        def breaking(write: Any) -> Any:
            def done_and_cut(*options: Any, **named: Any) -> None:
                write(*options, **named)
                if next(count) == number:
                    session._connection.socket._socket.shutdown(socket.SHUT_RDWR)
                    raise TransportError("the answer is lost")

            return done_and_cut

        for name in ("add", "modify"):
            monkeypatch.setattr(session, name, breaking(getattr(session, name)))
        with pytest.raises(TransportError, match="the answer is lost"):
            directory.install_service(SCP, state_file, account="scp-svc")
    assert snapshot(samba_dc) == before
    assert not state_file.exists()


def test_chk45_a_local_account_gets_no_spn(
    admin: Directory, samba_dc: SambaDc, state_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = snapshot(samba_dc)
    made = admin.install_service(SCP, state_file, account=".\\scp-svc")
    assert "local to this machine" in caplog.text
    assert set(snapshot(samba_dc)) - set(before) == {made.scp.dn}
    admin.uninstall_service(state_file)
    assert snapshot(samba_dc) == before


def test_an_account_without_rights_changes_nothing(
    samba_dc: SambaDc, service: Directory, state_file: Path
) -> None:
    before = snapshot(samba_dc)
    with pytest.raises(InsufficientRightsError):
        service.install_service(SCP, state_file, account="scp-svc")
    assert snapshot(samba_dc) == before
    # A computer may publish below itself, but has no right to register a name with a DN for itself.
    with bound(samba_dc, "SCPWEB$") as computer, pytest.raises(DirectoryError):
        computer.install_service(SCP, state_file)
    assert snapshot(samba_dc) == before
    assert not state_file.exists()


def test_who_may_not_publish_is_told_who_has_to_grant_what_and_that_helps(
    samba_dc: SambaDc,
) -> None:
    samba_dc.add_computer("SCPGRANT")
    samba_dc.add_user("scp-deploy")
    parent = f"CN=SCPGRANT,CN=Computers,{BASE}"
    scp = replace(SCP, dns_name="scpgrant.ad.test")
    try:
        with bound(samba_dc, "scp-deploy") as deploy:
            with pytest.raises(InsufficientRightsError) as caught:
                deploy.publish_scp(scp)
            text = str(caught.value)
            assert "scp-deploy may not create service connection points below it" in text
            assert f'dsacls "{parent}" /G "scp-deploy@ad.test:CC;serviceConnectionPoint"' in text
            assert caught.value.code == 0x2098
            command = text.partition("on Samba ")[2].rpartition(" (")[0]
            samba_dc.samba_tool(*shlex.split(command)[1:])
            deploy.remove_scp(deploy.publish_scp(scp))
    finally:
        samba_dc.delete(parent)


# As programs ----------------------------------------------------------------------------------------------------


class Shell:
    """Runs programs in the domain; the host of the service is this machine."""

    def __init__(self, dc: SambaDc, directory: Path) -> None:
        hosts = directory / "hosts"
        hosts.write_text(f"{dc.hosts.read_text()}127.0.0.1 {HOST}\n")
        self.directory = directory
        self.env = {
            **dc.env,
            "NSS_WRAPPER_HOSTS": str(hosts),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "XDG_STATE_HOME": str(directory),
            "HOME": str(directory),
        }
        self._password = dc.password

    def __call__(
        self, *argv: str, user: str = "", stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run purekrb, or the example that ends with .py, as `user`."""
        return subprocess.run(
            self._argv(argv),
            env=self._env(user),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *argv: str, user: str = "") -> subprocess.Popen[str]:
        """Start a program that tells its port in its first line."""
        return subprocess.Popen(
            self._argv(argv), env=self._env(user), stdout=subprocess.PIPE, text=True
        )

    def log_in(self, *users: str) -> None:
        for user in users:
            done = self("kinit", user, user=user, stdin=f"{self._password}\n")
            assert done.returncode == 0, done.stderr

    def _argv(self, argv: Sequence[str]) -> list[str]:
        program, *rest = argv
        command = (
            [str(EXAMPLES / program)] if program.endswith(".py") else ["-m", "purekrb", program]
        )
        return [sys.executable, *command, *rest]

    def _env(self, user: str) -> dict[str, str]:
        return {**self.env, "KRB5CCNAME": f"FILE:{self.directory}/cc-{user}"}


@pytest.fixture
def shell(samba_dc: SambaDc, tmp_path: Path) -> Shell:
    shell = Shell(samba_dc, tmp_path)
    shell.log_in(samba_dc.administrator, "scp-client")
    return shell


def port_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    found = re.search(r"(?:port |:)(\d+)", line)
    assert found, line
    return found[1]


def test_the_examples_install_start_find_and_talk(
    shell: Shell, samba_dc: SambaDc, admin: Directory
) -> None:
    ldap, state = ("--ldap", f"ldap://{samba_dc.host}"), str(shell.directory / "state.json")
    installer = ("scp_installer.py", *ldap, "--state", state)
    keytab, account = str(samba_dc.keytab("scp-svc")), f"scp-svc@{samba_dc.realm}"
    service = ("scp_service.py", *ldap, "--state", state, "--keytab", keytab, "--account", account)
    client = ("scp_client.py", *ldap, "hello")

    assert shell(*service).returncode == 24  # NO_STATE
    before = snapshot(samba_dc)
    done = shell(*installer, "install", HOST, "1", "scp-svc", user=samba_dc.administrator)
    assert done.returncode == 0, done.stderr
    dn, *spns = done.stdout.splitlines()
    assert dn == UNDER_COMPUTER
    try:
        refused = shell(*client, user="scp-client")
        assert (refused.returncode, refused.stdout) == (1, "")  # nobody listens on port 1
        process = shell.start(*service)
        try:
            port_of(process)
            done = shell(*client, user="scp-client")
            assert done.returncode == 0, done.stderr
            assert (
                done.stdout
                == f"{spns[0]}@{samba_dc.realm} answered: scp-client@{samba_dc.realm} said: hello\n"
            )
        finally:
            process.kill()
            process.communicate()
        # Where the service was, something else listens now: it has the names, and not the keys.
        names = Keytab(
            KeytabEntry(
                Principal(tuple(spn.split("/", 2)), samba_dc.realm), 1, crypto.random_key(18)
            )
            for spn in spns
        )
        names.save(shell.directory / "impostor")
        impostor = shell.start("serve", "127.0.0.1:0", "-t", str(shell.directory / "impostor"))
        try:
            (scp,) = admin.find_scps([PRODUCT_OF_EXAMPLES])
            admin.update_scp(replace(scp, bindings=(port_of(impostor),)))
            refused = shell(*client, user="scp-client")
            assert (refused.returncode, refused.stdout) == (1, "")
            assert "nothing was said" in refused.stderr
        finally:
            impostor.kill()
            impostor.communicate()
        wrong_key = (
            "scp_service.py",
            *ldap,
            "--state",
            state,
            "--account",
            f"scp-other@{samba_dc.realm}",
        )
        assert (
            shell(*wrong_key, "--keytab", str(samba_dc.keytab("scp-other"))).returncode == 21
        )  # WRONG_ACCOUNT
        unreachable = ("scp_service.py", "--ldap", f"ldap://{samba_dc.host}:9", *service[3:])
        assert shell(*unreachable).returncode == 25  # DIRECTORY_UNREACHABLE
        admin.write_account_spn(SpnOperation.DELETE, "scp-svc", spns)
        assert shell(*service).returncode == 20  # NOT_REGISTERED
    finally:
        done = shell(*installer, "uninstall", user=samba_dc.administrator)
    assert done.returncode == 0, done.stderr
    assert snapshot(samba_dc) == before


def test_the_commands_publish_find_connect_verify_update_and_remove(
    shell: Shell, samba_dc: SambaDc
) -> None:
    domain = ("--ldap", f"ldap://{samba_dc.host}")
    name, admin = (
        ("--class", "ADSockAuth", "--state", str(shell.directory / "state.json")),
        samba_dc.administrator,
    )
    before = snapshot(samba_dc)
    options = ("--port", "2000", "--keyword", PRODUCT, "--account", "scp-svc", "--host", HOST)
    done = shell("scp", "publish", *name, *options, *domain, user=admin)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"SCP  CN=ADSockAuth,CN=SCPWEB,CN=Computers,{BASE}\nSPN  ADSockAuth/{HOST}/CN=ADSock"
    )
    try:
        found = shell("scp", "find", PRODUCT, *domain, "--json", user="scp-client")
        (scp,) = json.loads(found.stdout)["scps"]
        assert (scp["dns_name"], scp["bindings"]) == (HOST, ["2000"])
        assert shell("scp", "find", "absent", *domain, user="scp-client").returncode == 1
        by_class = ("scp", "find", "--class", "adsockauth")
        assert scp["dn"] in shell(*by_class, *domain, user="scp-client").stdout
        nothing = shell("scp", "find", "--class", "absent", *domain, user="scp-client")
        assert (nothing.returncode, nothing.stdout) == (1, "")
        assert "no service of the class absent" in nothing.stderr

        keytab = str(
            samba_dc.keytab(*json.loads(shell.directory.joinpath("state.json").read_text())["spns"])
        )
        verified = shell("scp", "verify", *name, "-t", keytab, *domain, user=admin)
        assert (verified.returncode, verified.stderr) == (0, "")
        unreachable = shell(
            "scp", "verify", *name, "--ldap", f"ldap://{samba_dc.host}:9", user=admin
        )
        assert unreachable.returncode == 25
        process = shell.start("serve", "127.0.0.1:0", "-t", keytab)
        try:
            port = port_of(process)
            connect = ("connect", "--scp-keyword", PRODUCT, *domain)
            here = shell(
                "connect", f"127.0.0.1:{port}", *connect[1:], user="scp-client", stdin="hello\n"
            )
            assert (here.returncode, here.stdout.splitlines()[-1]) == (0, "hello"), here.stderr
            assert shell(*connect, "--timeout", "2", user="scp-client").returncode == 5
            changed = shell("scp", "update", *name, "--port", port, *domain, user=admin)
            assert changed.stdout == "changed serviceBindingInformation\n"
            again = shell("scp", "update", *name, "--port", port, *domain, user=admin)
            assert again.stdout == "nothing to change\n"
            there = shell(*connect, user="scp-client", stdin="hello\n")
            assert (there.returncode, there.stdout.splitlines()[-1]) == (0, "hello"), there.stderr
            assert f"connected to ADSockAuth/{HOST}/CN=ADSockAuth," in there.stdout
        finally:
            process.kill()
            process.communicate()
    finally:
        removed = shell("scp", "remove", *name, *domain, user=admin)
    assert removed.returncode == 0, removed.stderr
    assert snapshot(samba_dc) == before


def test_the_twenty_lines_of_the_page_work(shell: Shell, samba_dc: SambaDc) -> None:
    page = (EXAMPLES.parent / "docs" / "scp.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert (
        len([line for line in block.splitlines() if line.strip() and not line.startswith("#")])
        <= 20
    )
    keytab = samba_dc.keytab("scp-svc")
    # With the names and the GUID of this file: others may have the page's in the same domain.
    names = {
        "a762885a-aa44-11d2-81f1-00c04fb9624e": PRODUCT,
        "files.ad.test": HOST,
        "svc-files": "scp-svc",
        "svc.keytab": str(keytab),
        "alice@": "scp-client@",
    }
    for name, ours in names.items():
        assert name in block
        block = block.replace(name, ours)
    block = block.replace("Administrator@AD.TEST", f"{samba_dc.administrator}@{samba_dc.realm}")
    script = shell.directory / "page.py"
    script.write_text(block.replace('"state.json"', repr(str(shell.directory / "s.json"))))
    before = snapshot(samba_dc)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=shell.env,
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"scp-client@{samba_dc.realm} said hello\n"
    assert snapshot(samba_dc) == before
