"""Directories that lie, stall, forge and refer (K270 to K273). A stub with our own acceptor is the server."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    Credential,
    DecodeError,
    DirectoryError,
    KerberosError,
    Keytab,
    MutualAuthenticationError,
    PolicyError,
    ProtocolError,
    TransportError,
    TransportTimeoutError,
)
from purekrb.directory import Directory
from purekrb.directory.ldap import Change, ChangeOperation, LdapSession
from purekrb.directory.stream import MessageSocket
from purekrb.messages.der import tlv
from purekrb.testing import Realm
from support.contexts import flipped
from support.kdc_stubs import TcpStub
from support.ldap_stub import (
    BIND,
    SEARCH_DONE,
    LdapPeer,
    LdapStub,
    Request,
    credentials,
    entry,
    message,
    reference,
    result,
)
from support.tls import Authority

DC = "dc1.example.test"
TARGET = f"ldap/{DC}"
BASE = "DC=example,DC=test"
ONE = [(f"CN=one,{BASE}", {"cn": [b"one"]})]
MANY = [(f"CN=user{number},{BASE}", {"cn": [b"user%d" % number]}) for number in range(2500)]

Realms = tuple[Realm, Keytab, Credential]


@pytest.fixture(scope="module")
def lab() -> Iterator[Realms]:
    with Realm("EXAMPLE.TEST") as realm:
        alice = realm.add_user("alice", "pw")
        yield realm, realm.add_service(TARGET), alice


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def connect(lab: Realms, stub: TcpStub, **options: Any) -> Directory:
    options = {"target": TARGET, "timeout": 5.0, **options}
    url = stub.url.replace("tcp:", "ldap:")
    return Directory.connect(url, lab[2], lab[0].config, **options)


def everything(directory: Directory) -> list[str]:
    return [found.dn for found in session(directory).search(BASE, "(objectClass=*)", ["cn"])]


def session(directory: Directory) -> LdapSession:
    return directory._sessions.main


# K270 -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def attacker() -> Iterator[TcpStub]:
    with TcpStub(lambda stub, connection: None) as stub:
        yield stub


def test_k270_a_referral_in_place_of_a_result_is_told_and_not_followed(
    lab: Realms, attacker: TcpStub
) -> None:
    url = f"ldap://{attacker.host}:{attacker.port}/{BASE}"

    def refer(peer: LdapPeer, request: Request) -> None:
        peer.send(message(request.number, result(SEARCH_DONE, 10, referrals=[url])))

    with (
        LdapStub(lab[1], search=refer) as stub,
        connect(lab, stub) as directory,
        pytest.raises(DirectoryError, match="never followed") as caught,
    ):
        everything(directory)
    assert url in str(caught.value)
    assert caught.value.code == 8235
    assert attacker.accepted == 0


def test_k270_references_among_results_are_left_out_and_not_followed(
    lab: Realms, attacker: TcpStub
) -> None:
    def refer(peer: LdapPeer, request: Request) -> None:
        url = f"ldap://{attacker.host}:{attacker.port}/{BASE}"
        peer.send(
            *(
                message(request.number, one)
                for one in (reference(url), entry(*ONE[0]), result(SEARCH_DONE))
            )
        )

    with LdapStub(lab[1], search=refer) as stub, connect(lab, stub) as directory:
        assert everything(directory) == [ONE[0][0]]
    assert attacker.accepted == 0


def test_k270_a_change_that_is_referred_elsewhere_is_refused(lab: Realms) -> None:
    with (
        LdapStub(lab[1], write=lambda request: 10) as stub,
        connect(lab, stub) as directory,
        pytest.raises(DirectoryError, match="never followed"),
    ):
        session(directory).delete(ONE[0][0])


# K271 -------------------------------------------------------------------------------------------------------------


def test_k271_nothing_but_a_sasl_bind_is_ever_sent(lab: Realms) -> None:
    with LdapStub(lab[1], ONE) as stub, connect(lab, stub) as directory:
        assert everything(directory) == [ONE[0][0]]
    binds = [request for request in stub.requests if request.name == "bindRequest"]
    assert [request.body["authentication"].getName() for request in binds] == ["sasl"] * 3
    assert stub.contexts[0].initiator == lab[2].principal


def test_k271_starttls_that_is_refused_ends_the_connection_before_any_bind(
    lab: Realms, authority: Authority
) -> None:
    with LdapStub(lab[1]) as stub, pytest.raises(DirectoryError, match="StartTLS"):
        connect(lab, stub, start_tls=True, ca_file=authority.ca)
    assert stub.names() == ["extendedReq"]
    assert len(stub.requests) == 1


def test_k271_what_follows_the_answer_to_starttls_in_clear_is_refused(
    lab: Realms, authority: Authority
) -> None:
    def inject(stub: TcpStub, connection: socket.socket) -> None:
        number = connection.recv(65536)[4]
        connection.sendall(message(number, result(0x78)) + message(number + 1, result(BIND)))
        connection.recv(1)

    with TcpStub(inject) as stub, pytest.raises(KerberosError) as caught:
        connect(lab, stub, start_tls=True, ca_file=authority.ca)
    assert isinstance(caught.value, ProtocolError | TransportError | DirectoryError)


@pytest.mark.parametrize("ldaps", [True, False], ids=["ldaps", "starttls"])
@pytest.mark.parametrize(
    ("issuer", "name"),
    [
        pytest.param("other", DC, id="K271-of-another-ca"),
        pytest.param("ours", "dc2.example.test", id="K271-of-another-host"),
    ],
)
def test_a_certificate_is_refused(
    lab: Realms, authority: Authority, tmp_path: Path, issuer: str, name: str, ldaps: bool
) -> None:
    server = (authority if issuer == "ours" else Authority(tmp_path)).server(name)
    with (
        LdapStub(lab[1], tls=server.context, ldaps=ldaps) as stub,
        pytest.raises(PolicyError, match="certificate"),
    ):
        connect(lab, stub, start_tls=not ldaps, ca_file=authority.ca)
    assert "bindRequest" not in [request.name for request in stub.requests]


@pytest.mark.parametrize("ldaps", [True, False], ids=["ldaps", "starttls"])
def test_k271_control_a_good_certificate_is_accepted_and_bound(
    lab: Realms, authority: Authority, ldaps: bool
) -> None:
    server = authority.server(DC)
    options = {"tls": server.context, "certificate": server.der, "ldaps": ldaps}
    with (
        LdapStub(lab[1], MANY, **options) as stub,
        connect(lab, stub, start_tls=not ldaps, ca_file=authority.ca) as directory,
    ):
        assert len(everything(directory)) == len(MANY)
        assert stub.contexts[0].channel_bound
        assert stub.names()[0] == ("searchRequest" if ldaps else "extendedReq")


def test_k271_the_certificate_of_somebody_between_does_not_fit_the_channel_bindings(
    lab: Realms, authority: Authority
) -> None:
    # Both have a good certificate; the acceptor behind the one in the middle knows its own alone.
    between, server = authority.server(DC), authority.server(DC)
    with (
        LdapStub(lab[1], tls=between.context, certificate=server.der, ldaps=True) as stub,
        pytest.raises(TransportError),
    ):
        connect(lab, stub, ca_file=authority.ca)
    assert not any(context.established for context in stub.contexts)


# K272 -------------------------------------------------------------------------------------------------------------


def forged_offer(server: Acceptor) -> bytes:
    return flipped(server.wrap(b"\7\1\0\0", sealed=False), 130)


OFFERS = [
    pytest.param(b"\0\1\0\0", PolicyError, id="K272-no-layer-at-all"),
    pytest.param(b"\1\0\0\0", PolicyError, id="K272-layer-none-alone"),
    pytest.param(b"\3\1\0\0", PolicyError, id="K272-signing-alone"),
    pytest.param(b"\7\0\0\0", ProtocolError, id="K272-max-buffer-0"),
    pytest.param(b"\7\0\0\1", ProtocolError, id="K272-max-buffer-1"),
    pytest.param(b"\7", ProtocolError, id="K272-cut"),
    pytest.param(lambda server: b"\7\1\0\0", DecodeError, id="K272-not-wrapped"),
    pytest.param(lambda server: b"", DecodeError, id="K272-empty"),
    pytest.param(forged_offer, KerberosError, id="K272-forged"),
]


@pytest.mark.parametrize(("offer", "error"), OFFERS)
def test_an_offer_is_refused(lab: Realms, offer: Any, error: type[KerberosError]) -> None:
    with LdapStub(lab[1], offer=offer) as stub, pytest.raises(error):
        connect(lab, stub)
    assert len(stub.requests) == 2  # the choice of a layer was not sent


@pytest.mark.parametrize("size", [0x100, 0xFFFFFF], ids=["K272-control-256", "K272-control-16-mb"])
@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "signed"])
def test_an_offer_is_accepted(lab: Realms, size: int, sealed: bool) -> None:
    with (
        LdapStub(lab[1], ONE, offer=b"\7" + size.to_bytes(3, "big")) as stub,
        connect(lab, stub, sealed=sealed) as directory,
    ):
        assert everything(directory) == [ONE[0][0]]


def test_k272_success_without_proof_is_refused(lab: Realms) -> None:
    with (
        LdapStub(
            lab[1], bind=lambda peer, request: peer.send(message(request.number, result(BIND)))
        ) as stub,
        pytest.raises(KerberosError, match="impostor"),
    ):
        connect(lab, stub)


def test_k272_a_server_with_another_key_is_refused(lab: Realms) -> None:
    with Realm("EXAMPLE.TEST") as other:
        keytab = other.add_service(TARGET)

        def answer(peer: LdapPeer, request: Request) -> None:
            genuine = peer.stub.acceptor()
            LdapStub.in_progress(peer, request, genuine.step(credentials(request)) or b"")

        with LdapStub(keytab, bind=answer) as stub, pytest.raises(TransportError):
            connect(lab, stub)

        def reflect(peer: LdapPeer, request: Request) -> None:
            LdapStub.in_progress(peer, request, credentials(request))

        with LdapStub(keytab, bind=reflect) as stub, pytest.raises(MutualAuthenticationError):
            connect(lab, stub)


def test_k272_a_bind_without_end_is_refused(lab: Realms) -> None:
    def again(peer: LdapPeer, request: Request) -> None:
        if peer.context is None:
            peer.stub.default_bind(peer, request)
        else:
            LdapStub.in_progress(peer, request, b"")

    with LdapStub(lab[1], bind=again) as stub, pytest.raises(KerberosError):
        connect(lab, stub)
    assert len(stub.requests) <= 10


def test_k272_words_in_clear_behind_the_end_of_the_bind_are_refused(lab: Realms) -> None:
    def speak(peer: LdapPeer, request: Request) -> None:
        if peer.context is None or not credentials(request):
            peer.stub.default_bind(peer, request)
        else:
            forged = message(request.number + 1, entry(*ONE[0])) + message(
                request.number + 1, result(SEARCH_DONE)
            )
            peer.send(message(request.number, result(BIND)) + forged)

    with (
        LdapStub(lab[1], bind=speak) as stub,
        pytest.raises(KerberosError),
        connect(lab, stub) as directory,
    ):
        everything(directory)


def layered(change: Callable[[LdapPeer, bytes], bytes]) -> Callable[[LdapPeer, Request], None]:
    """Answer a search with one entry, changed after it was protected."""

    def search(peer: LdapPeer, request: Request) -> None:
        assert peer.layer is not None
        data = message(request.number, entry(*ONE[0])) + message(
            request.number, result(SEARCH_DONE)
        )
        peer.socket.sendall(change(peer, data))

    return search


def wrapped(peer: LdapPeer, data: bytes) -> bytes:
    assert peer.layer is not None
    return peer.layer.wrap(data)


CHANGES = [
    pytest.param(
        lambda peer, data: flipped(wrapped(peer, data), 8 * 60), id="K272-one-bit-flipped"
    ),
    pytest.param(lambda peer, data: data, id="K272-in-clear"),
    pytest.param(lambda peer, data: (len(data)).to_bytes(4, "big") + data, id="K272-not-wrapped"),
    pytest.param(lambda peer, data: bytes(4), id="K272-length-0"),
    pytest.param(lambda peer, data: b"\1\0\0\0" + data, id="K272-length-16-mb"),
    pytest.param(lambda peer, data: b"\xff\xff\xff\xff" + data, id="K272-length-4-gb"),
    pytest.param(
        lambda peer, data: wrapped(peer, b"lost") and wrapped(peer, data), id="K272-one-lost"
    ),
    pytest.param(lambda peer, data: 2 * wrapped(peer, data), id="K272-twice"),
    pytest.param(
        lambda peer, data: (lambda token: len(token).to_bytes(4, "big") + token)(
            peer.context.wrap(data, sealed=False)
        ),
        id="K272-signed-alone",
    ),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_stream_is_refused(lab: Realms, change: Any) -> None:
    with LdapStub(lab[1], search=layered(change)) as stub, connect(lab, stub) as directory:
        twice = [directory, directory]
        with pytest.raises(KerberosError):
            list(map(everything, twice))


def test_k272_control_the_unchanged_stream_is_read_and_a_refused_one_ends_its_context(
    lab: Realms,
) -> None:
    changes = iter([CHANGES[0].values[0], wrapped])
    search = layered(lambda peer, data: next(changes)(peer, data))
    with LdapStub(lab[1], search=search) as stub, connect(lab, stub) as directory:
        with pytest.raises(KerberosError):
            everything(directory)
        assert everything(directory) == [ONE[0][0]]  # on a new connection, with a new context
        assert len(stub.contexts) == 2


@pytest.mark.parametrize("keep", [1, 3, 4, 20, 100])
def test_k272_a_token_that_is_cut_off_is_no_result(lab: Realms, keep: int) -> None:
    def cut(peer: LdapPeer, request: Request) -> None:
        data = message(request.number, entry(*ONE[0])) + message(
            request.number, result(SEARCH_DONE)
        )
        peer.socket.sendall(wrapped(peer, data)[:keep])
        peer.socket.shutdown(socket.SHUT_RDWR)

    with (
        LdapStub(lab[1], search=cut) as stub,
        connect(lab, stub) as directory,
        pytest.raises(TransportError, match="in the middle of a message"),
    ):
        everything(directory)


# K273 -------------------------------------------------------------------------------------------------------------


def stalling(
    answer: Callable[[LdapPeer, Request], bytes], seconds: float
) -> Callable[[LdapPeer, Request], None]:
    """Answer a search one octet at a time, with a pause before each."""

    def search(peer: LdapPeer, request: Request) -> None:
        for octet in answer(peer, request):
            if peer.stub.stopping.wait(seconds):
                return
            peer.socket.sendall(bytes((octet,)))

    return search


@pytest.mark.parametrize("tls", [False, True], ids=["sealed", "tls"])
@pytest.mark.parametrize("pause", [30.0, 0.05], ids=["K273-silent", "K273-one-octet-at-a-time"])
def test_a_slow_server_is_left_at_the_deadline(
    lab: Realms, authority: Authority, pause: float, tls: bool
) -> None:
    def answer(peer: LdapPeer, request: Request) -> bytes:
        data = message(request.number, entry(*ONE[0])) + message(
            request.number, result(SEARCH_DONE)
        )
        return peer.layer.wrap(data) if peer.layer else data

    server = authority.server(DC)
    options: dict[str, Any] = {"tls": server.context, "ldaps": True} if tls else {}
    with (
        LdapStub(lab[1], search=stalling(answer, pause), **options) as stub,
        connect(lab, stub, timeout=1.0, ca_file=authority.ca) as directory,
    ):
        begun = time.monotonic()
        with pytest.raises(TransportTimeoutError):
            everything(directory)
        assert time.monotonic() - begun < 4


def test_k273_nothing_is_read_or_sent_after_the_deadline() -> None:
    for call in (lambda stream: stream.recv(), lambda stream: stream.sendall(b"x")):
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(b"\x30\0")
            stream = MessageSocket(ours)
            stream.begin(time.monotonic() - 1)
            with pytest.raises(TransportTimeoutError):
                call(stream)
            assert not stream.usable


def test_k273_a_slow_bind_is_left_at_the_deadline(lab: Realms) -> None:
    with TcpStub(lambda stub, connection: bool(stub.stopping.wait(5))) as stub:
        begun = time.monotonic()
        with pytest.raises(TransportTimeoutError):
            connect(lab, stub, timeout=0.4)
        assert time.monotonic() - begun < 4


def test_k273_a_connection_that_is_closed_before_the_answer_is_opened_once_more(
    lab: Realms,
) -> None:
    closed: list[int] = []

    def close(peer: LdapPeer, request: Request) -> None:
        if len(closed) < 1:
            closed.append(1)
            peer.socket.shutdown(socket.SHUT_RDWR)
        else:
            peer.stub.default_search(peer, request)

    with LdapStub(lab[1], MANY, search=close) as stub, connect(lab, stub) as directory:
        assert len(everything(directory)) == len(MANY)
        assert len(stub.contexts) == 2


def test_k273_a_connection_that_always_closes_is_an_error_and_no_loop(lab: Realms) -> None:
    def close(peer: LdapPeer, request: Request) -> None:
        peer.socket.shutdown(socket.SHUT_RDWR)

    with (
        LdapStub(lab[1], search=close) as stub,
        connect(lab, stub) as directory,
        pytest.raises(TransportError),
    ):
        everything(directory)
    assert len(stub.contexts) == 2


def test_k273_a_change_is_not_repeated_when_the_connection_breaks(lab: Realms) -> None:
    done: list[Request] = []

    def vanish(request: Request) -> int:
        done.append(request)
        raise OSError

    with (
        LdapStub(lab[1], write=vanish) as stub,
        connect(lab, stub) as directory,
        pytest.raises(TransportError, match="it may have been done nevertheless"),
    ):
        session(directory).modify(
            ONE[0][0], [Change(ChangeOperation.ADD, "servicePrincipalName", ["a/b"])]
        )
    assert len(done) == 1


def test_k273_a_change_on_a_connection_that_was_closed_meanwhile_goes_to_a_new_one(
    lab: Realms,
) -> None:
    def close_after(peer: LdapPeer, request: Request) -> None:
        peer.stub.default_search(peer, request)
        peer.socket.shutdown(socket.SHUT_RDWR)

    done: list[Request] = []
    with (
        LdapStub(
            lab[1], ONE, search=close_after, write=lambda request: done.append(request) or 0
        ) as stub,
        connect(lab, stub) as directory,
    ):
        assert everything(directory) == [ONE[0][0]]
        time.sleep(0.1)
        session(directory).delete(ONE[0][0])
    assert len(done) == 1
    assert len(stub.contexts) == 2


def test_k273_a_context_that_expires_is_replaced_for_searches_and_for_changes(lab: Realms) -> None:
    realm, keytab, _ = lab
    brief = realm.add_user("brief", "pw", lifetime=3)
    with (
        LdapStub(keytab, ONE) as stub,
        Directory.connect(stub.url, brief, realm.config, target=TARGET, timeout=5) as directory,
    ):
        assert everything(directory) == [ONE[0][0]]
        time.sleep(3.1)
        assert everything(directory) == [ONE[0][0]]
        time.sleep(3.1)
        session(directory).delete(ONE[0][0])
        assert stub.names().count("delRequest") == 1
        assert len(stub.contexts) == 3


JUNK = [
    pytest.param(b"\x30\x84\x7f\xff\xff\xff", id="K273-ber-length-2-gb"),
    pytest.param(b"\x30\x88" + b"\xff" * 8, id="K273-ber-length-of-8-octets"),
    pytest.param(b"\x30\xff" + b"\xff" * 127, id="K273-ber-length-of-127-octets"),
    pytest.param(b"\x30\x80\0\0", id="K273-ber-indefinite-length"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="K273-http"),
    pytest.param(b"\x30\0", id="K273-empty-message"),
    pytest.param(tlv(0x30, b"\2\1\3"), id="K273-no-operation"),
    pytest.param(tlv(0x30, b"\2\1\3" + tlv(0x64, b"")), id="K273-empty-entry"),
    pytest.param(tlv(0x30, b"\2\1\3" + b"\x64\x84\x7f\xff\xff\xff"), id="K273-inner-length-2-gb"),
    pytest.param(
        tlv(0x30, b"\2\1\3" + tlv(0x65, b"\x0a\1\xc8\4\0\4\0")), id="K273-unknown-result-code"
    ),
    pytest.param(tlv(0x30, b"\2\1\3" + b"\x7f\x81\0"), id="K273-unknown-tag"),
    pytest.param(
        tlv(0x30, b"\2\1\x63" + tlv(0x65, b"\x0a\1\0\4\0\4\0")), id="K273-answer-to-another-request"
    ),
    pytest.param(b"", id="K273-nothing"),
]


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = tlv(0x30, data)
    return data


@pytest.mark.parametrize(
    "junk", [*JUNK, pytest.param(tlv(0x30, b"\2\1\3" + nested(5000)), id="K273-nested-5000-deep")]
)
def test_an_answer_that_is_no_ldap_is_refused(lab: Realms, junk: bytes) -> None:
    def answer(peer: LdapPeer, request: Request) -> None:
        peer.send(junk) if junk else None
        peer.socket.shutdown(socket.SHUT_WR)

    with (
        LdapStub(lab[1], search=answer) as stub,
        connect(lab, stub) as directory,
        pytest.raises(KerberosError),
    ):
        everything(directory)


@pytest.mark.parametrize("junk", JUNK)
def test_a_bind_answered_by_no_ldap_is_refused(lab: Realms, junk: bytes) -> None:
    def answer(stub: TcpStub, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(junk)

    with TcpStub(answer) as stub, pytest.raises(KerberosError):
        connect(lab, stub)


def test_k273_a_hundred_thousand_results_in_one_page_are_read(lab: Realms) -> None:
    def all_at_once(peer: LdapPeer, request: Request) -> None:
        one = message(request.number, entry(*ONE[0]))
        for _ in range(100):
            peer.send(1000 * one)
        peer.send(message(request.number, result(SEARCH_DONE)))

    with LdapStub(lab[1], search=all_at_once) as stub, connect(lab, stub, timeout=60) as directory:
        assert len(everything(directory)) == 100_000


def test_k273_results_without_end_are_bounded(lab: Realms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purekrb.directory.stream.MAX_RESPONSE", 1 << 20)

    def flood(peer: LdapPeer, request: Request) -> None:
        while not peer.stub.stopping.is_set():
            peer.send(20 * message(request.number, entry("CN=x", {"cn": [bytes(5000)]})))

    with (
        LdapStub(lab[1], search=flood) as stub,
        connect(lab, stub) as directory,
        pytest.raises(DecodeError, match="more than"),
    ):
        everything(directory)


def test_k273_control_one_value_of_sixteen_megabytes_is_read(lab: Realms) -> None:
    value = bytes(range(256)) * (1 << 16)
    with (
        LdapStub(lab[1], [("CN=x", {"cn": [value]})]) as stub,
        connect(lab, stub, timeout=60) as directory,
    ):
        (found,) = session(directory).search(BASE, "(objectClass=*)", ["cn"])
    assert found.attributes["cn"] == [value]


def test_k273_a_search_whose_pages_never_end_is_bounded(
    lab: Realms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("purekrb.directory.ldap.MAX_ENTRIES", 5000)
    endless = [(f"CN={number}", {"cn": [b"x"]}) for number in range(8000)]
    with (
        LdapStub(lab[1], endless) as stub,
        connect(lab, stub) as directory,
        pytest.raises(DirectoryError, match="5000"),
    ):
        everything(directory)


REFUSALS = [
    pytest.param(3, 8226, "took longer", id="K273-time-limit"),
    pytest.param(4, 8227, "more than the directory gives", id="K273-size-limit"),
    pytest.param(51, 8206, "busy", id="K273-busy-51"),
    pytest.param(52, 8207, "not available", id="K273-unavailable-52"),
    pytest.param(53, 8245, "read-only", id="K273-unwilling-53"),
    pytest.param(80, 0, "says no more", id="K273-other-80"),
]


@pytest.mark.parametrize(("result_code", "code", "text"), REFUSALS)
def test_a_refused_search_is_a_typed_error_and_no_partial_result(
    lab: Realms, result_code: int, code: int, text: str
) -> None:
    def refuse(peer: LdapPeer, request: Request) -> None:
        peer.send(
            message(request.number, entry(*ONE[0])),
            message(request.number, result(SEARCH_DONE, result_code)),
        )

    with (
        LdapStub(lab[1], search=refuse) as stub,
        connect(lab, stub) as directory,
        pytest.raises(DirectoryError, match=text) as caught,
    ):
        everything(directory)
    assert caught.value.code == code


@pytest.mark.parametrize("code", [49, 7, 8, 51])
def test_a_refused_bind_is_a_typed_error(lab: Realms, code: int) -> None:
    with (
        LdapStub(
            lab[1],
            bind=lambda peer, request: peer.send(message(request.number, result(BIND, code))),
        ) as stub,
        pytest.raises(DirectoryError, match=f"LDAP result {code}"),
    ):
        connect(lab, stub)


def test_values_that_come_in_ranges_are_put_together(lab: Realms) -> None:
    values = [b"v%d" % number for number in range(25)]

    def search(peer: LdapPeer, request: Request) -> None:
        (asked,) = (str(name) for name in request.body["attributes"])
        start = int(asked.partition("range=")[2].partition("-")[0] or 0)
        end = start + 10
        option = f"{start}-{'*' if end >= len(values) else end - 1}"
        found = entry(*(ONE[0][0], {"member": [], f"member;range={option}": values[start:end]}))
        peer.send(message(request.number, found), message(request.number, result(SEARCH_DONE)))

    with LdapStub(lab[1], search=search) as stub, connect(lab, stub) as directory:
        (found,) = session(directory).search(BASE, "(objectClass=*)", ["member"])
    assert list(found.attributes["member"]) == values


def test_k273_ranges_without_end_are_bounded(lab: Realms) -> None:
    def search(peer: LdapPeer, request: Request) -> None:
        found = entry(*(ONE[0][0], {"member;range=0-0": [b"x"]}))
        peer.send(message(request.number, found), message(request.number, result(SEARCH_DONE)))

    with (
        LdapStub(lab[1], search=search) as stub,
        connect(lab, stub) as directory,
        pytest.raises(DirectoryError),
    ):
        session(directory).search(BASE, "(objectClass=*)", ["member"])


def test_k261_refused_connections_leave_no_descriptor_behind(lab: Realms) -> None:
    import os

    with LdapStub(lab[1], offer=b"\0\0\0\0") as stub:
        with pytest.raises(PolicyError):
            connect(lab, stub)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with pytest.raises(PolicyError):
                connect(lab, stub)
        time.sleep(0.1)
        assert len(os.listdir("/proc/self/fd")) <= before + 1
