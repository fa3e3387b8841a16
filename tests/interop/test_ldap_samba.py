"""LDAP with Samba's domain controller: sealed, signed, in TLS; large results, lost connections, discovery."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.resolver
import pytest

from purekrb import Credential, DirectoryError, PolicyError, TransportError
from purekrb.directory import Directory, SpnOperation
from purekrb.directory.ldap import ANY_OBJECT, Change, ChangeOperation, LdapSession, Scope
from purekrb.integrations import ldap3_sasl
from purekrb.kdc.locate import Locator
from support.processes import in_children
from support.samba import SambaDc
from support.tls import Authority

MECHANISMS = ["GSSAPI", "GSS-SPNEGO"]
#: More than one page, below CN=Users.
CONTACTS = 1100
ADMINISTRATOR = 500


@pytest.fixture(scope="module")
def admin(samba_dc: SambaDc) -> Credential:
    return Credential.from_password(f"{samba_dc.administrator}@{samba_dc.realm}", samba_dc.password)


@pytest.fixture(scope="module")
def tls_address(samba_dc: SambaDc) -> Iterator[str]:
    """The address of a server that takes SASL binds inside of TLS."""
    with samba_dc.ldap_server("allow_sasl_over_tls") as address:
        yield address


@pytest.fixture(scope="module")
def contacts(samba_dc: SambaDc) -> str:
    """The DN of a container with many contacts. It stays: to delete them takes minutes."""
    dn = f"CN=ldap-contacts,{samba_dc.base}"
    if not samba_dc.search("(cn=ldap-contacts)", "cn"):
        ldif = [f"dn: {dn}\nchangetype: add\nobjectClass: container\n"]
        ldif += [
            f"dn: CN=c{n},{dn}\nchangetype: add\nobjectClass: contact\n" for n in range(CONTACTS)
        ]
        samba_dc.modify("\n".join(ldif))
    return dn


@pytest.fixture
def connect(samba_dc: SambaDc, admin: Credential) -> Iterator[Callable[..., LdapSession]]:
    """Return what opens a session at an address (by default the domain controller's) with options of connect."""
    opened: list[Directory] = []

    def open_session(scheme: str = "ldap", address: str = "", **options: Any) -> LdapSession:
        options = {"target": f"ldap/{samba_dc.host}", "ca_file": samba_dc.ca, **options}
        url = f"{scheme}://{address or samba_dc.address}"
        opened.append(Directory.connect(url, admin, samba_dc.config, **options))
        return opened[-1]._sessions.main

    yield open_session
    for directory in opened:
        directory.close()


@contextmanager
def proxy(address: tuple[str, int]) -> Iterator[tuple[str, int, list[bytes], Callable[[], None]]]:
    """A relay to `address`: its own host and port, all that went through it, and what cuts its connections."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []
    sockets: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                seen.append(data)
                sink.sendall(data)
        except OSError:
            pass
        cut_one(source)
        cut_one(sink)

    def cut_one(sock: socket.socket) -> None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(address)
            sockets.extend((client, server))
            for ends in ((client, server), (server, client)):
                threads.append(threading.Thread(target=pump, args=ends, daemon=True))
                threads[-1].start()

    threads = [threading.Thread(target=serve, daemon=True)]
    threads[0].start()
    try:
        yield (
            "127.0.0.1",
            listener.getsockname()[1],
            seen,
            lambda: [cut_one(sock) for sock in sockets] and None,
        )
    finally:
        cut_one(listener)
        listener.close()
        for sock in sockets:
            cut_one(sock)
        for thread in threads:
            thread.join(5)
        for sock in sockets:
            sock.close()


def rid(session: LdapSession) -> int:
    """Return the last number of the SID that the server knows us by. Source: MS-ADTS 3.1.1.3.2.22."""
    (root,) = session.search("", "(objectClass=*)", ["tokenGroups"], scope=Scope.BASE)
    return int.from_bytes(root.attributes["tokenGroups"][0][-4:], "little")


# Protection ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "signed"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_connection_is_protected_as_asked_for(
    samba_dc: SambaDc, admin: Credential, mechanism: str, sealed: bool
) -> None:
    with proxy((samba_dc.address, 389)) as (host, port, seen, _):
        options = {"mechanism": mechanism, "sealed": sealed}
        with Directory.connect(
            f"ldap://{host}:{port}",
            admin,
            samba_dc.config,
            target=f"ldap/{samba_dc.host}",
            **options,
        ) as directory:
            session = directory._sessions.main
            assert session.base_dn == samba_dc.base
            assert rid(session) == ADMINISTRATOR
            (domain,) = session.search(
                samba_dc.base, "(objectClass=domainDNS)", ["dc"], scope=Scope.BASE
            )
            assert domain.text("dc") == "ad"
    assert (b"defaultNamingContext" in b"".join(seen)) != sealed


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("scheme", ["ldaps", "ldap"])
def test_tls_protects_the_connection(
    connect: Callable[..., LdapSession], tls_address: str, scheme: str, mechanism: str
) -> None:
    session = connect(scheme, tls_address, start_tls=scheme == "ldap", mechanism=mechanism)
    assert rid(session) == ADMINISTRATOR
    assert isinstance(session._connection.socket._socket, ssl.SSLSocket)
    assert session._connection.socket.layer is None


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("scheme", ["ldaps", "ldap"])
def test_a_server_that_wants_a_layer_inside_of_tls_is_told_of(
    connect: Callable[..., LdapSession], scheme: str, mechanism: str
) -> None:
    with pytest.raises(
        DirectoryError, match=r"strongerAuthRequired.*use ldap:// without StartTLS"
    ) as error:
        connect(scheme, start_tls=scheme == "ldap", mechanism=mechanism)
    assert (error.value.ldap_result, error.value.code) == (8, 8232)
    assert rid(connect(mechanism=mechanism)) == ADMINISTRATOR  # as the message says


@pytest.mark.parametrize("scheme", ["ldaps", "ldap"])
def test_the_certificate_of_another_ca_is_refused(
    connect: Callable[..., LdapSession], tls_address: str, tmp_path: Path, scheme: str
) -> None:
    other = Authority(tmp_path).ca
    with pytest.raises(PolicyError, match="certificate"):
        connect(scheme, tls_address, start_tls=scheme == "ldap", ca_file=other)
    with pytest.raises(PolicyError, match="certificate"):
        connect(scheme, tls_address, start_tls=scheme == "ldap", ca_file=None)


@pytest.mark.parametrize("scheme", ["ldaps", "ldap"])
def test_the_certificate_of_another_host_is_refused(
    connect: Callable[..., LdapSession], tls_address: str, scheme: str
) -> None:
    with pytest.raises(PolicyError, match=r"dc2\.ad\.test"):
        connect(scheme, tls_address, start_tls=scheme == "ldap", target="ldap/dc2.ad.test")


def test_a_certificate_is_not_checked_where_the_caller_brings_such_a_context_and_says_so(
    connect: Callable[..., LdapSession], tls_address: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(PolicyError, match="nobody verified"):
        connect("ldaps", tls_address, tls_context=context)
    session = connect("ldaps", tls_address, tls_context=context, allow_unverified_tls=True)
    assert rid(session) == ADMINISTRATOR


def test_the_name_of_a_service_that_the_server_is_not_is_refused(
    samba_dc: SambaDc, connect: Callable[..., LdapSession]
) -> None:
    samba_dc.add_computer("LDAPEVIL", servicePrincipalName=["ldap/ldapevil.ad.test"])
    with pytest.raises((DirectoryError, TransportError)):
        connect(target="ldap/ldapevil.ad.test")


# Results ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "signed"])
def test_all_of_more_than_a_thousand_entries_are_found(
    connect: Callable[..., LdapSession], contacts: str, sealed: bool
) -> None:
    found = connect(sealed=sealed).search(contacts, "(objectClass=contact)", ["cn"])
    assert sorted(entry.text("cn") for entry in found) == sorted(f"c{n}" for n in range(CONTACTS))


def test_requests_and_results_of_many_megabytes_arrive(
    samba_dc: SambaDc, connect: Callable[..., LdapSession]
) -> None:
    dn = f"CN=ldap-large,CN=Users,{samba_dc.base}"
    samba_dc.delete(dn)
    session = connect()
    session.add(dn, "user", {"sAMAccountName": ["ldap-large"]})
    pictures = [bytes((number,)) * (1 << 20) for number in range(18)]
    for half in (pictures[:9], pictures[9:]):  # Samba takes no request of more than 16 MiB
        session.modify(dn, [Change(ChangeOperation.ADD, "jpegPhoto", half)])
    (found,) = session.search(dn, "(objectClass=user)", ["jpegPhoto"])
    assert sorted(found.attributes["jpegPhoto"]) == pictures
    samba_dc.delete(dn)


# Lost connections ---------------------------------------------------------------------------------------------------


def test_a_search_survives_the_loss_of_the_connection_with_a_new_context(
    samba_dc: SambaDc, admin: Credential, contacts: str
) -> None:
    with proxy((samba_dc.address, 389)) as (host, port, _, cut):
        url, target = f"ldap://{host}:{port}", f"ldap/{samba_dc.host}"
        with Directory.connect(url, admin, samba_dc.config, target) as directory:
            session = directory._sessions.main
            before = session._connection.socket.layer
            for _ in range(3):
                cut()
                assert len(session.search(contacts, "(objectClass=contact)", ["cn"])) == CONTACTS
            assert session._connection.socket.layer is not before


def test_a_change_after_the_loss_of_an_idle_connection_is_made_once(
    samba_dc: SambaDc, admin: Credential, contacts: str
) -> None:
    with proxy((samba_dc.address, 389)) as (host, port, _, cut):
        url, target = f"ldap://{host}:{port}", f"ldap/{samba_dc.host}"
        with Directory.connect(url, admin, samba_dc.config, target) as directory:
            session = directory._sessions.main
            cut()
            session.add(f"CN=once,{contacts}", "contact", {})
            session.delete(f"CN=once,{contacts}")


# Discovery and the global catalog -----------------------------------------------------------------------------------


@pytest.fixture
def locator(samba_dc: SambaDc) -> Locator:
    """Finds what the domain controller's own DNS knows."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [samba_dc.address]

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        known = {samba_dc.host: samba_dc.address}
        return socket.getaddrinfo(known.get(host, host), port, **options)

    return Locator(
        replace(samba_dc.config, dns_lookup_kdc=True), resolver=resolver, getaddrinfo=getaddrinfo
    )


@pytest.mark.parametrize("site", ["", "Default-First-Site-Name", "No-Such-Site"])
def test_a_domain_controller_is_found_by_dns_and_proves_to_be_one(
    samba_dc: SambaDc, admin: Credential, locator: Locator, site: str
) -> None:
    with Directory.connect(None, admin, locator.config, site=site, locator=locator) as directory:
        assert directory._sessions.main.base_dn == samba_dc.base
        tickets = {str(ticket.service) for ticket in admin.ccache}
        assert "ldap/dc1.ad.test/ad.test@AD.TEST" in tickets
        forest = directory._sessions.forest
        assert forest.base_dn == ""
        assert forest is not directory._sessions.main
        assert directory._sessions.domain_of(f"CN=x,{samba_dc.base}") is directory._sessions.writer


def test_a_domain_controller_that_is_configured_is_asked_for_its_global_catalog(
    samba_dc: SambaDc, admin: Credential, locator: Locator, caplog: pytest.LogCaptureFixture
) -> None:
    known = {samba_dc.realm: [f"tcp://{samba_dc.host}"]}
    config = replace(
        samba_dc.config, realms={**samba_dc.config.realms, **known}, dns_lookup_kdc=False
    )
    where = Locator(config, getaddrinfo=locator._getaddrinfo)
    with Directory.connect(None, admin, samba_dc.config, locator=where) as directory:
        assert directory._sessions.forest.base_dn == ""
        assert [account.dn for account in directory.find_spn(f"ldap/{samba_dc.host}")]
    assert not caplog.records


def test_the_name_that_only_domain_controllers_have_is_asked_for_first(
    samba_dc: SambaDc, admin: Credential, locator: Locator
) -> None:
    with Directory.connect(
        f"ldap://{samba_dc.host}", admin, locator.config, locator=locator
    ) as directory:
        assert str(directory._sessions.main._connection.socket.layer.context.acceptor) == (
            "ldap/dc1.ad.test/ad.test@AD.TEST"
        )


def test_a_directory_at_the_port_of_the_global_catalog_writes_at_that_of_the_domain(
    samba_dc: SambaDc, admin: Credential
) -> None:
    samba_dc.add_user("ldap-gc")
    url, target = f"ldap://{samba_dc.address}:3268", f"ldap/{samba_dc.host}"
    with Directory.connect(url, admin, samba_dc.config, target) as directory:
        catalog = directory._sessions.main
        assert catalog.base_dn == ""
        assert directory._sessions.forest is catalog
        changes = [Change(ChangeOperation.ADD, "servicePrincipalName", ["ldapgc/x"])]
        with pytest.raises(DirectoryError, match="writable domain controller"):
            catalog.modify(f"CN=ldap-gc,CN=Users,{samba_dc.base}", changes)
        directory.write_account_spn(SpnOperation.ADD, "ldap-gc", ["ldapgc/x"])
        assert directory._sessions.writer.base_dn == samba_dc.base
        assert [account.name for account in directory.find_spn("ldapgc/x")] == ["ldap-gc"]


# Anyone's ldap3 connection ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("strategy", ["SYNC", "SAFE_SYNC", "RESTARTABLE", "SAFE_RESTARTABLE"])
def test_a_connection_of_ldap3_is_sealed(
    samba_dc: SambaDc, admin: Credential, contacts: str, strategy: str, mechanism: str
) -> None:
    from purekrb.directory.ldap import ldap3

    server = ldap3.Server(samba_dc.address, get_info=ldap3.DSA)
    connection = ldap3.Connection(server, client_strategy=getattr(ldap3, strategy))
    ldap3_sasl.bind(
        connection, admin, samba_dc.config, target=f"ldap/{samba_dc.host}", mechanism=mechanism
    )
    assert connection.bound
    assert server.info.other["defaultNamingContext"] == [samba_dc.base]
    found = connection.extend.standard.paged_search(
        contacts, "(objectClass=contact)", attributes=["cn"], paged_size=500, generator=False
    )
    assert len(found) == CONTACTS
    connection.rebind()
    again = connection.search("", "(objectClass=*)", ldap3.BASE, attributes=["tokenGroups"])
    assert again[0] if strategy.startswith("SAFE") else again
    connection.unbind()


@pytest.mark.parametrize("start_tls", [True, False], ids=["starttls", "ldaps"])
def test_a_connection_of_ldap3_in_tls_that_ldap3_did_not_verify_is_refused(
    samba_dc: SambaDc, admin: Credential, tls_address: str, start_tls: bool
) -> None:
    from purekrb.directory.ldap import ldap3

    for options in ({}, {"allow_unverified_tls": True}):
        server = ldap3.Server(tls_address, use_ssl=not start_tls, get_info=ldap3.NONE)
        connection = ldap3.Connection(server)
        if start_tls:
            connection.start_tls(read_server_info=False)
        if options:
            ldap3_sasl.bind(
                connection, admin, samba_dc.config, target=f"ldap/{samba_dc.host}", **options
            )
            assert connection.bound
            connection.unbind()
        else:
            with pytest.raises(PolicyError, match="nobody verified"):
                ldap3_sasl.bind(connection, admin, samba_dc.config, target=f"ldap/{samba_dc.host}")


@pytest.mark.filterwarnings("ignore:ssl.match_hostname")
@pytest.mark.parametrize("start_tls", [True, False], ids=["starttls", "ldaps"])
def test_a_connection_of_ldap3_binds_in_its_own_tls(
    samba_dc: SambaDc, admin: Credential, tls_address: str, start_tls: bool
) -> None:
    from purekrb.directory.ldap import ldap3

    tls = ldap3.Tls(
        validate=ssl.CERT_REQUIRED, ca_certs_file=str(samba_dc.ca), valid_names=[samba_dc.host]
    )
    server = ldap3.Server(tls_address, use_ssl=not start_tls, tls=tls, get_info=ldap3.NONE)
    connection = ldap3.Connection(server)
    if start_tls:
        connection.start_tls(read_server_info=False)
    ldap3_sasl.bind(connection, admin, samba_dc.config, target=f"ldap/{samba_dc.host}")
    assert connection.search("", "(objectClass=*)", ldap3.BASE, attributes=["tokenGroups"])
    assert connection.entries[0].tokenGroups.raw_values[0][-4:] == ADMINISTRATOR.to_bytes(
        4, "little"
    )
    connection.unbind()


# The page ---------------------------------------------------------------------------------------------------------


def test_the_examples_of_the_page_run_from_top_to_bottom(
    samba_dc: SambaDc, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KRB5_CONFIG", str(samba_dc.krb5_conf))
    page = (Path(__file__).parents[2] / "docs" / "directory.md").read_text()
    where = 'url, target = "ldap://dc1.ad.test", None'
    assert where in page
    page = page.replace(where, f'url, target = "ldap://{samba_dc.address}", "ldap/{samba_dc.host}"')
    names = {"password": samba_dc.password}
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    assert f"CN=DC1,OU=Domain Controllers,{samba_dc.base}" in capsys.readouterr().out


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
def test_forked_children_leave_the_connection_to_their_parent(
    connect: Callable[..., LdapSession], samba_dc: SambaDc, tls_address: str, scheme: str
) -> None:
    session = connect(scheme, tls_address if scheme == "ldaps" else "")
    name = f"CN=DC1,OU=Domain Controllers,{samba_dc.base}"

    def found() -> bytes:
        (entry,) = session.search(name, ANY_OBJECT, ("cn",), scope=Scope.BASE)
        return entry.attributes["cn"][0]

    def job(number: int) -> bytes:
        if number == 3:
            session.close()  # no unbind on the connection of the parent
            return b"closed"
        answers = {found() for _ in range(5)}
        assert session.encrypted
        session.close()
        return answers.pop()

    connection, before = session._connection, found()
    assert in_children(4, job) == [before, before, before, b"closed"]
    assert found() == before == b"DC1"
    assert session._connection is connection
