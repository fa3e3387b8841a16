"""LDAP answers out of proportion, before and after the bind (K413), and answers of odd shape (K429)."""

from __future__ import annotations

import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from purekrb import (
    Credential,
    DecodeError,
    DirectoryError,
    KerberosError,
    Keytab,
    ProtocolError,
    TransportTimeoutError,
)
from purekrb.directory import Directory, accounts, scps, spns
from purekrb.directory.account_state import read_state
from purekrb.directory.ldap import LdapSession, Scope, ldap3
from purekrb.directory.security_descriptor import Acl, SecurityDescriptor
from purekrb.directory.service_checks import Checks
from purekrb.directory.stream import MessageSocket
from purekrb.directory.transaction import Undo
from purekrb.integrations import ldap3_sasl
from purekrb.messages.der import tlv
from purekrb.sid import Sid
from purekrb.testing import Realm
from support.kdc_stubs import TcpStub
from support.ldap_stub import (
    ANSWERS,
    BIND,
    EXTENDED,
    ROOT_DSE,
    SEARCH,
    SEARCH_DONE,
    SEARCH_ENTRY,
    LdapPeer,
    LdapStub,
    PlainStub,
    Question,
    Request,
    entry,
    integer,
    message,
    next_number,
    octets,
    question_of,
    reference,
    result,
    session_without_bind,
)
from support.tls import Authority

DC = "dc1.example.test"
TARGET = f"ldap/{DC}"
BASE = "DC=example,DC=test"
DN = f"CN=one,{BASE}"

Realms = tuple[Realm, Keytab, Credential]


@pytest.fixture(scope="module")
def lab() -> Iterator[Realms]:
    with Realm("EXAMPLE.TEST") as realm:
        alice = realm.add_user("alice", "pw")
        yield realm, realm.add_service(TARGET), alice


def connect(lab: Realms, stub: TcpStub, **options: Any) -> Directory:
    url = stub.url.replace("tcp:", "ldap:")
    return Directory.connect(
        url, lab[2], lab[0].config, **{"target": TARGET, "timeout": 5.0, **options}
    )


@contextmanager
def measured() -> Iterator[Callable[[], int]]:
    """Measure: the function says how many bytes were in use at most, besides those of the beginning."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# K413: before the bind ----------------------------------------------------------------------------------------------


def bind_answer(contents: bytes) -> bytes:
    return message(2, tlv(BIND, integer(14, 0x0A) + octets("") + octets("") + contents))


MIB = 1 << 20
#: What a server that has proved nothing sends in place of the answer to a bind.
UNPROVED = [
    pytest.param(
        lambda number: message(number, result(BIND, 14, more=octets(bytes(60 * MIB), 0x87))),
        id="K413-60-mb",
    ),
    pytest.param(
        lambda number: message(number, result(BIND, 14, more=octets(bytes(65_600), 0x87))),
        id="K413-64-kib",
    ),
    pytest.param(
        lambda number: message(number, result(BIND, 14, more=tlv(0x30, 32_000 * b"\4\0"))),
        id="K413-tiny-elements",
    ),
    pytest.param(
        lambda number: message(number, result(BIND, 14, more=tlv(0xA3, 32_000 * b"\4\0"))),
        id="K413-urls",
    ),
    pytest.param(
        lambda number: message(number, tlv(BIND, octets(60_000 * b"\1", 0x0A))),
        id="K413-number-of-60-kb",
    ),
    pytest.param(
        lambda number: message(
            number,
            result(BIND),
            tlv(0x30, octets("1.2.840.113556.1.4.319") + octets(bytes(65_000))),
        ),
        id="K413-controls",
    ),
    pytest.param(
        lambda number: 100_000 * message(number, entry("CN=x", {"cn": [b"x"]})), id="K413-entries"
    ),
    pytest.param(
        lambda number: 100_000 * message(number, reference("ldap://x")), id="K413-references"
    ),
    pytest.param(
        lambda number: 100_000 * message(number, tlv(0x79, b"")), id="K413-intermediate-responses"
    ),
]


@pytest.mark.parametrize("answer", UNPROVED)
def test_a_server_that_has_not_proved_itself_costs_nothing(
    lab: Realms, answer: Callable[[int], bytes]
) -> None:
    data = answer(next_number())

    def answer_first(stub: TcpStub, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)
        connection.recv(1)

    with TcpStub(answer_first) as stub, measured() as peak:
        begun = time.monotonic()
        with pytest.raises(KerberosError):
            connect(lab, stub)
        assert time.monotonic() - begun < 3
        assert peak() < 4 * MIB


def test_k413_the_answer_to_starttls_is_bounded_as_well(lab: Realms, tmp_path: Any) -> None:
    def answer(stub: TcpStub, connection: socket.socket) -> None:
        number = question_of(connection.recv(65536)).number
        connection.sendall(message(number, result(EXTENDED, more=octets(bytes(MIB), 0x8B))))
        connection.recv(1)

    with TcpStub(answer) as stub, pytest.raises(DecodeError, match="more than 65536"):
        connect(lab, stub, start_tls=True, ca_file=Authority(tmp_path).ca)


def test_k413_control_an_answer_of_almost_64_kib_is_read(lab: Realms) -> None:
    def refuse(peer: LdapPeer, request: Request) -> None:
        peer.send(message(request.number, result(BIND, 49, "x" * 65_000)))

    with (
        LdapStub(lab[1], bind=refuse) as stub,
        pytest.raises(DirectoryError, match="LDAP result 49") as caught,
    ):
        connect(lab, stub)
    assert len(caught.value.diagnostic) == 65_000


def test_k413_control_after_the_bind_an_answer_may_be_larger(lab: Realms) -> None:
    found = [(DN, {"cn": [bytes(2 * MIB)]})]
    with LdapStub(lab[1], found) as stub, connect(lab, stub) as directory:
        assert directory._session.search(BASE, "(objectClass=*)", ["cn"])[0].attributes["cn"] == [
            bytes(2 * MIB)
        ]


def test_k413_connections_of_ldap3_are_bounded_before_the_bind_and_after_it(lab: Realms) -> None:
    answers = iter([2 * [b"ab"], 500_000 * [b"ab"]])

    def search(peer: LdapPeer, request: Request) -> None:
        peer.send(
            message(request.number, entry(DN, {"cn": next(answers)})),
            message(request.number, result(SEARCH_DONE)),
        )

    def flood(stub: TcpStub, connection: socket.socket) -> None:
        number = question_of(connection.recv(65536)).number
        connection.sendall(message(number, result(BIND, 14, more=octets(bytes(MIB), 0x87))))
        connection.recv(1)

    def connection_to(stub: TcpStub) -> Any:
        return ldap3.Connection(
            ldap3.Server(stub.host, stub.port, get_info=ldap3.NONE), receive_timeout=5
        )

    with TcpStub(flood) as stub, pytest.raises(DecodeError, match="more than 65536"):
        ldap3_sasl.bind(connection_to(stub), lab[2], lab[0].config, TARGET)
    with LdapStub(lab[1], search=search) as stub:
        connection = connection_to(stub)
        ldap3_sasl.bind(connection, lab[2], lab[0].config, TARGET)
        assert connection.search(BASE, "(objectClass=*)", attributes=["cn"])
        assert connection.response[0]["raw_attributes"]["cn"] == [b"ab", b"ab"]
        with pytest.raises(DecodeError, match="too many elements"):
            connection.search(BASE, "(objectClass=*)", attributes=["cn"])


def test_a_connection_of_ldap3_may_receive_more_in_its_life_than_one_answer_has(
    lab: Realms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("purekrb.directory.stream.MAX_RESPONSE", 100_000)
    with LdapStub(lab[1], [(DN, {"cn": [bytes(60_000)]})]) as stub:
        connection = ldap3.Connection(ldap3.Server(stub.host, stub.port, get_info=ldap3.NONE))
        ldap3_sasl.bind(connection, lab[2], lab[0].config, TARGET)
        for _ in range(4):
            assert connection.search(BASE, "(objectClass=*)", attributes=["cn"])
        connection.unbind()


# K413: after the bind -----------------------------------------------------------------------------------------------


def letters(number: int, count: int) -> Iterator[bytes]:
    return (b"%0*d" % (count, value) for value in range(number))


def one_entry(attributes: bytes) -> Callable[[int], bytes]:
    return lambda number: message(number, tlv(SEARCH_ENTRY, octets("CN=x") + tlv(0x30, attributes)))


def attribute(name: bytes, values: bytes) -> bytes:
    return tlv(0x30, octets(name) + tlv(0x31, values))


#: Answers of some hundred kilobytes (most of them), the attributes asked for, whether they are refused.
COLUMNS = (
    "cn",
    "objectGUID",
    "serviceClassName",
    "serviceDNSName",
    "serviceDNSNameType",
    "keywords",
)
COSTLY = [
    pytest.param(
        one_entry(attribute(b"cn", 150_000 * b"\4\0")), COLUMNS, True, id="K413-values-of-0"
    ),
    pytest.param(
        one_entry(attribute(b"cn", 120_000 * b"\4\2ab")), COLUMNS, True, id="K413-values-of-2"
    ),
    pytest.param(
        one_entry(attribute(b"cn", 60_000 * b"\4\3abc")),
        COLUMNS,
        False,
        id="K413-control-values-of-3",
    ),
    pytest.param(
        one_entry(attribute(b"cn", 10_000 * b"\4\2ab")),
        COLUMNS,
        False,
        id="K413-control-few-values-of-2",
    ),
    pytest.param(
        one_entry(attribute(b"cn", octets(bytes(MIB)))), COLUMNS, False, id="K413-control-one-value"
    ),
    pytest.param(
        one_entry(b"".join(attribute(name, b"") for name in letters(30_000, 5))),
        ["*"],
        True,
        id="K413-bare-attributes",
    ),
    pytest.param(
        one_entry(b"".join(attribute(name, octets(name)) for name in letters(15_000, 6))),
        ["*"],
        False,
        id="K413-control-attributes",
    ),
    pytest.param(
        one_entry(b"".join(attribute(name, octets(name)) for name in letters(15_000, 6))),
        COLUMNS,
        False,
        id="K413-control-attributes-that-nobody-asked-for",
    ),
    pytest.param(
        lambda number: 30_000 * message(number, entry("", {})),
        COLUMNS,
        True,
        id="K413-empty-entries",
    ),
    pytest.param(
        lambda number: 10_000 * message(number, entry("CN=x,DC=example,DC=t", {})),
        COLUMNS,
        False,
        id="K413-control-entries-without-attributes",
    ),
    pytest.param(
        lambda number: 8_000 * message(number, entry(DN, {"cn": [b"one"]})),
        COLUMNS,
        False,
        id="K413-control-entries",
    ),
    pytest.param(
        lambda number: 8_000 * message(number, reference("ldap://dc2.example.test/")),
        COLUMNS,
        False,
        id="K413-control-references",
    ),
    pytest.param(
        lambda number: message(number, result(SEARCH_DONE, 10, referrals=30_000 * [""])),
        COLUMNS,
        True,
        id="K413-urls",
    ),
    pytest.param(
        lambda number: message(number, tlv(SEARCH_DONE, octets(MIB * b"\1", 0x0A))),
        COLUMNS,
        True,
        id="K413-number",
    ),
    pytest.param(
        lambda number: 50_000 * message(number, tlv(0x79, b"")),
        COLUMNS,
        True,
        id="K413-intermediate",
    ),
    pytest.param(one_entry(5_000 * b"\x30\x80"), COLUMNS, True, id="K413-indefinite-lengths"),
    pytest.param(
        one_entry(b"".join(b"\x30\x84" + (6 * n).to_bytes(4, "big") for n in range(9_000, -1, -1))),
        COLUMNS,
        True,
        id="K413-nested-9000-deep",
    ),
]


@pytest.mark.parametrize(("answer", "attributes", "refused"), COSTLY)
def test_an_answer_costs_twenty_times_its_size_at_most(
    answer: Callable[[int], bytes], attributes: Sequence[str], refused: bool
) -> None:
    number = next_number()
    data = answer(number) + message(number, result(SEARCH_DONE))

    def send(stub: TcpStub, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)

    with TcpStub(send) as stub:
        session = session_without_bind(stub, timeout=60)
        with measured() as peak:
            begun = time.monotonic()
            try:
                session.search(BASE, "(objectClass=*)", attributes)
            except (DecodeError, ProtocolError):
                assert refused
            else:
                assert not refused
            assert peak() < 20 * len(data) + MIB
            assert time.monotonic() - begun < 30
        session.close()


def test_k413_the_deadline_counts_while_an_answer_is_counted_and_read() -> None:
    data = message(1, entry(DN, {"cn": 600_000 * [b"abc"]})) + message(1, result(SEARCH_DONE))
    for seconds, late in ((0.05, True), (60, False)):
        ours, theirs = socket.socketpair()
        with theirs:
            stream = MessageSocket(ours)
            stream.secure(None)
            stream.begin(None, searching=True, wanted={"cn": "cn"})
            stream.sendall(message(1, tlv(0x63, b"")))
            stream._reader.feed(data)
            stream._deadline = begun = time.monotonic() + seconds
            if late:
                with pytest.raises(TransportTimeoutError):
                    stream.recv()
                assert time.monotonic() - begun < 0.5
            else:
                assert stream.recv() == message(1, result(SEARCH_DONE))
                assert len(stream.entries[0].attributes["cn"]) == 600_000
            stream.close()


def test_k413_nothing_reaches_ldap3_after_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(2 * message(1, result(SEARCH_DONE)))
        stream = MessageSocket(ours)
        stream.secure(None)
        stream.begin(time.monotonic() + 0.2, searching=True)
        stream.sendall(message(1, tlv(0x63, b"")))
        assert stream.recv()
        time.sleep(0.3)
        with pytest.raises(TransportTimeoutError):  # the second one is here already
            stream.recv()


# K429 ---------------------------------------------------------------------------------------------------------------


Attributes = Mapping[str, Sequence[bytes]]
Answer = Callable[[Question], bytes]


def answering(*entries: tuple[str, Attributes], root: Attributes = ROOT_DSE) -> Answer:
    """Return what answers searches of the root DSE with `root`, and others with `entries`."""

    def answer(question: Question) -> bytes:
        if question.operation != SEARCH:
            return message(question.number, result(ANSWERS["modifyRequest"]))
        found = [entry(*one) for one in (entries if question.base else [("", root)])]
        return b"".join(message(question.number, one) for one in (*found, result(SEARCH_DONE)))

    return answer


@contextmanager
def session_with(answer: Answer) -> Iterator[LdapSession]:
    with PlainStub(answer) as stub:
        session = session_without_bind(stub)
        try:
            yield session
        finally:
            session.close()


@pytest.mark.parametrize("count", [0, 2, 100], ids=["K429-none", "K429-two", "K429-a-hundred"])
def test_a_root_dse_that_is_not_one_entry_is_refused(lab: Realms, count: int) -> None:
    def search(peer: LdapPeer, request: Request) -> None:
        found = entry("", ROOT_DSE)
        peer.send(
            *count * [message(request.number, found)], message(request.number, result(SEARCH_DONE))
        )

    with LdapStub(lab[1], search=search) as stub, connect(lab, stub) as directory:
        for call in (
            lambda: directory._session.root_dse,
            lambda: directory._session.base_dn,
            lambda: directory.find_spn("a/b"),
            lambda: directory.find_account("alice"),
            lambda: directory.find_scps(["x"]),
        ):
            with pytest.raises(DirectoryError):
                call()


def test_k429_control_one_root_dse_is_read() -> None:
    with session_with(answering()) as session:
        assert session.base_dn == BASE
        assert session.domain == "example.test"


SID = Sid.parse("S-1-5-21-1-2-3-1104")
GUID = UUID("12345678-1234-5678-1234-567812345678")
ACCOUNT: dict[str, Sequence[bytes]] = {
    "sAMAccountName": [b"WEB$"],
    "servicePrincipalName": [b"HTTP/web.example.test"],
    "objectGUID": [GUID.bytes_le],
    "objectSid": [SID.encode()],
    "msDS-KeyVersionNumber": [b"3"],
    "msDS-SupportedEncryptionTypes": [b"28"],
}
SCP: dict[str, Sequence[bytes]] = {
    "cn": [b"orders"],
    "objectGUID": [GUID.bytes_le],
    "serviceClassName": [b"orders"],
    "serviceDNSName": [b"web.example.test"],
    "serviceDNSNameType": [b"A"],
    "serviceBindingInformation": [b"2000"],
    "keywords": [b"Orders"],
    "nTSecurityDescriptor": [SecurityDescriptor(0x8004, SID, SID, dacl=Acl(2, ())).encode()],
}
TOKENS = {**ROOT_DSE, "tokenGroups": [SID.encode()]}


def found_account(session: LdapSession) -> object:
    return accounts.find_account(session, DN)


def account_by_guid(session: LdapSession) -> object:
    return accounts.account_by_guid(session, GUID)


def key_doubts(session: LdapSession) -> object:
    return list(
        Checks(Keytab([])).findings(
            read_state(session, accounts.Account(DN, "WEB$", (), GUID, SID)), ()
        )
    )


def allowed(session: LdapSession) -> object:
    return scps.allow_updates(session, DN, SID, Undo())


#: What is asked, what the directory holds, its attributes whose absence (or oddity) is refused; others do not matter.
CALLS = [
    pytest.param(found_account, ACCOUNT, {"objectGUID", "objectSid"}, id="K429-account"),
    pytest.param(
        lambda session: accounts.account_by_guid(session, GUID),
        ACCOUNT,
        {"objectGUID", "objectSid"},
        id="K429-guid",
    ),
    pytest.param(
        lambda session: spns.find(session, "a/b"),
        ACCOUNT,
        {"objectGUID", "objectSid"},
        id="K429-spn",
    ),
    pytest.param(key_doubts, ACCOUNT, set(), id="K429-keys"),
    pytest.param(
        lambda session: scps.read(session, None, DN),
        SCP,
        {*SCP} - {"cn", "keywords", "nTSecurityDescriptor"} | {"cn"},
        id="K429-scp",
    ),
    pytest.param(allowed, SCP, {"nTSecurityDescriptor"}, id="K429-descriptor"),
]


@pytest.mark.parametrize(("call", "held", "needed"), CALLS)
def test_an_empty_set_is_an_attribute_that_is_not_there(
    call: Callable[[LdapSession], object], held: Mapping[str, Sequence[bytes]], needed: set[str]
) -> None:
    with session_with(answering((DN, held))) as session:
        call(session)
    for name in held:
        for odd in ([], None):
            attributes = {key: values for key, values in held.items() if key != name}
            if odd is not None:
                attributes[name] = odd
            with session_with(answering((DN, attributes))) as session:
                if name in needed:
                    with pytest.raises(DirectoryError):
                        call(session)
                else:
                    call(session)


@pytest.mark.parametrize(
    "name",
    [
        "defaultNamingContext",
        "configurationNamingContext",
        "supportedCapabilities",
        "tokenGroups",
        "isGlobalCatalogReady",
    ],
)
def test_k429_a_root_dse_with_an_empty_set_is_read_or_refused(name: str) -> None:
    def calls(session: LdapSession) -> None:
        accounts.find_account(session, "EXAMPLE\\WEB$")
        accounts.find_caller(session)

    with session_with(answering((DN, ACCOUNT), root=TOKENS)) as session:
        calls(session)
    with session_with(answering((DN, ACCOUNT), root={**TOKENS, name: []})) as session:
        if name in ("defaultNamingContext", "tokenGroups"):
            with pytest.raises(DirectoryError):
                calls(session)
        else:
            calls(session)


@pytest.mark.parametrize(("call", "held", "needed"), [*CALLS[:2], *CALLS[3:]])
def test_two_objects_where_one_was_asked_for_are_refused(
    call: Any, held: Any, needed: set[str]
) -> None:
    with (
        session_with(answering((DN, held), (f"CN=two,{BASE}", held))) as session,
        pytest.raises(DirectoryError),
    ):
        call(session)


def test_k429_the_doubts_about_keys_of_an_account_that_is_gone_are_a_typed_error() -> None:
    with session_with(answering()) as session, pytest.raises(DirectoryError):
        key_doubts(session)


@pytest.mark.parametrize(
    "digits", [b"9" * 5000, b"x", b"1_0", "\u0663".encode(), b"0x3", b" 3", b"", b"-"]
)
def test_k429_a_number_that_is_none_is_refused(digits: bytes) -> None:
    for name in ("msDS-KeyVersionNumber", "msDS-SupportedEncryptionTypes"):
        with session_with(answering((DN, {**ACCOUNT, name: [digits]}))) as session:
            if digits:
                with pytest.raises(DirectoryError, match="expected a number"):
                    key_doubts(session)
            else:
                key_doubts(session)


RANGES = [
    pytest.param(b"0-" + b"9" * 5000, id="K429-thousands-of-digits"),
    pytest.param(b"9" * 5000 + b"-*", id="K429-begins-with-thousands-of-digits"),
    pytest.param(b"0-", id="K429-no-end"),
    pytest.param(b"-1", id="K429-no-begin"),
    pytest.param(b"", id="K429-empty"),
    pytest.param(b"-", id="K429-dash"),
    pytest.param(b"0-1x", id="K429-behind-the-end"),
    pytest.param(b"0--1", id="K429-negative"),
    pytest.param(b"5-9", id="K429-begins-later"),
    pytest.param(b"0-1;range=0-*", id="K429-twice"),
    pytest.param("0-\u0663".encode(), id="K429-digits-of-another-script"),
    pytest.param(b"0-\n*", id="K429-newline"),
]


@pytest.mark.parametrize("bounds", RANGES)
def test_a_range_that_is_none_is_refused(bounds: bytes) -> None:
    for attributes in (["member"], ["*"]):
        with (
            session_with(answering((DN, {f"member;range={bounds.decode()}": [b"x"]}))) as session,
            pytest.raises(DirectoryError),
        ):
            session.search(DN, "(objectClass=*)", attributes, scope=Scope.BASE)


@pytest.mark.parametrize("first", [b"0-*", b"0-0"], ids=["K429-control-all", "K429-control-in-two"])
@pytest.mark.parametrize("spelling", ["member", "MEMBER"])
def test_a_range_is_completed_however_it_is_spelled(spelling: str, first: bytes) -> None:
    def answer(question: Question) -> bytes:
        bounds, value = (
            ("1-*", b"b") if question.attributes != ["member"] else (first.decode(), b"a")
        )
        found = entry(DN, {"member": [], f"{spelling};Range={bounds}": [value]})
        return message(question.number, found) + message(question.number, result(SEARCH_DONE))

    with session_with(answer) as session:
        (found,) = session.search(DN, "(objectClass=*)", ["member"], scope=Scope.BASE)
    assert list(found.attributes["member"]) == ([b"a"] if first == b"0-*" else [b"a", b"b"])


ODD = [
    pytest.param(lambda number: message(number, result(0x67)), id="K429-result-of-a-modify"),
    pytest.param(lambda number: message(number, result(EXTENDED)), id="K429-extended-response"),
    pytest.param(
        lambda number: message(number + 1, entry(DN, {})), id="K429-entry-of-another-request"
    ),
    pytest.param(
        lambda number: message(number, tlv(SEARCH_ENTRY, octets(b"CN=\xff") + tlv(0x30, b""))),
        id="K429-dn",
    ),
    pytest.param(
        lambda number: message(number, tlv(SEARCH_ENTRY, octets(DN))), id="K429-no-attributes"
    ),
    pytest.param(
        lambda number: message(
            number, tlv(SEARCH_ENTRY, octets(DN) + tlv(0x30, tlv(0x30, octets("cn"))))
        ),
        id="K429-no-values",
    ),
    pytest.param(
        lambda number: message(
            number, tlv(SEARCH_ENTRY, octets(DN) + tlv(0x30, attribute(b"cn", tlv(0x30, b""))))
        ),
        id="K429-values-of-another-type",
    ),
    pytest.param(
        lambda number: message(number, result(SEARCH_DONE), tlv(0x30, b"")), id="K429-empty-control"
    ),
    pytest.param(
        lambda number: message(
            number, result(SEARCH_DONE), tlv(0x30, octets("1.2.840.113556.1.4.319"))
        ),
        id="K429-paging-without-a-cookie",
    ),
    pytest.param(
        lambda number: message(number, result(SEARCH_DONE)) + b"", id="K429-control-nothing-found"
    ),
]


@pytest.mark.parametrize("answer", ODD)
def test_an_odd_answer_is_a_typed_error(
    answer: Callable[[int], bytes], request: pytest.FixtureRequest
) -> None:
    def odd(question: Question) -> bytes:
        return answer(question.number) + message(question.number, result(SEARCH_DONE))

    with session_with(odd) as session:
        if "control-nothing" in request.node.callspec.id:
            assert session.search(BASE, "(objectClass=*)", ["cn"]) == []
        else:
            with pytest.raises(KerberosError):
                session.search(BASE, "(objectClass=*)", ["cn"])
