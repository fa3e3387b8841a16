"""IAKERB under attack: on the path, by clients that use the service as a way to KDCs, by services. K675 to K683."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from purekrb import (
    Acceptor,
    ApError,
    Config,
    Credential,
    DecodeError,
    KdcClient,
    KerberosError,
    Keytab,
    PolicyError,
    ProtocolError,
    initiate,
)
from purekrb.constants import IAKERB_OID, ErrorCode, Flag
from purekrb.gss.framing import TOK_AP_REQ, frame
from purekrb.gss.iakerb import MAX_REQUESTS, Conversation, IakerbInitiator
from purekrb.gss.initiator import Initiator
from purekrb.messages.iakerb import Proxied
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm
from support.kdc_requests import as_req

WEB = "HTTP/web.example.test"
NOWHERE = Config(default_realm="EXAMPLE.TEST", domain_realm={"web.example.test": "EXAMPLE.TEST"})
AS_REQ = as_req("EXAMPLE.TEST", "alice")
Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", "pw")
        yield realm


@pytest.fixture(scope="module")
def keytab(realm: Realm) -> Keytab:
    return realm.add_service(WEB)


class Service:
    """The service; `asked` are the messages that it passed on."""

    def __init__(self, realm: Realm, keytab: Keytab) -> None:
        self.asked: list[bytes] = []
        self._client = KdcClient(realm.config)
        self.acceptor = Acceptor(keytab, relay=self._relay, replay_cache=MemoryReplayCache())

    def _relay(self, realm: str, message: bytes) -> bytes:
        self.asked.append(message)
        return self._client.relay(realm, message)

    def step(self, token: bytes) -> bytes:
        answer = self.acceptor.step(token)
        assert answer is not None
        return answer


@pytest.fixture
def service(realm: Realm, keytab: Keytab) -> Service:
    return Service(realm, keytab)


def client() -> IakerbInitiator:
    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    context = initiate(WEB, alice, NOWHERE, mechanism="iakerb")
    assert isinstance(context, IakerbInitiator)
    return context


def same(token: bytes) -> bytes:
    return token


def handshake(service: Service, up: Change = same, down: Change = same) -> IakerbInitiator:
    """`up` and `down` change the tokens on the way."""
    ours = client()
    token = ours.step()
    while token is not None and not service.acceptor.established:
        answer = service.step(up(token))
        token = ours.step(down(answer))
    return ours


def with_cookie(token: bytes) -> bytes:
    """Change what no KDC and no client looks at: the header of the message."""
    if token[:2] != b"\x05\x01":
        return token
    proxied = Proxied.decode(token[2:])
    return token[:2] + Proxied(proxied.realm, b"other", proxied.message, proxied.octets).encode()


def test_control_the_client_gets_in(service: Service) -> None:
    assert handshake(service).established
    assert len(service.asked) == 3


@pytest.mark.parametrize("way", [pytest.param(way, id=f"K675-{way}") for way in ("up", "down")])
def test_a_token_that_was_changed_on_the_way_is_noticed(service: Service, way: str) -> None:
    """Even where the KDC and the client take the message: the client confirms what it has seen."""
    with pytest.raises(ApError, match="did not confirm") as caught:
        handshake(service, **{way: with_cookie})
    assert caught.value.code == ErrorCode.KRB_AP_ERR_MODIFIED
    assert not service.acceptor.established


def test_k676_an_ap_req_that_confirms_nothing_is_refused(service: Service, realm: Realm) -> None:
    """The messages of one client, and then the AP-REQ of another."""
    ours = client()
    service.step(ours.step() or b"")
    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    ticket = KdcClient(realm.config).get_ticket(alice, WEB)

    class Plain(Initiator):
        _mechanism = IAKERB_OID

    with pytest.raises(ApError, match="did not confirm"):
        service.step(Plain(ticket).step() or b"")
    assert Service.step(
        fresh(realm, service), Plain(ticket).step() or b""
    )  # with no messages before


def fresh(realm: Realm, service: Service) -> Service:
    return Service(realm, Keytab(service.acceptor._keys))


def proxied(realm: str, message: bytes) -> bytes:
    return Conversation().write(realm, None, message, framed=True)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        pytest.param(b"\x6e\x02\x30\x00", PolicyError, id="K677-AP-REQ"),
        pytest.param(b"\x7e\x02\x30\x00", PolicyError, id="K677-KRB-ERROR"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", PolicyError, id="K677-another-protocol"),
        pytest.param(b"\x6a" + bytes(40_000), PolicyError, id="K677-too-large"),
        pytest.param(b"\x6a\x02\x30\x00", DecodeError, id="K677-malformed"),
    ],
)
def test_only_requests_for_kdcs_are_passed_on(
    service: Service, message: bytes, error: type[KerberosError]
) -> None:
    with pytest.raises(error):
        service.acceptor.step(proxied("EXAMPLE.TEST", message))
    assert service.asked == []


def test_k678_a_request_for_another_realm_than_the_header_says_is_not_passed_on(
    service: Service,
) -> None:
    message = AS_REQ
    with pytest.raises(PolicyError, match="another realm"):
        service.acceptor.step(proxied("OTHER.TEST", message))
    assert service.asked == []


def test_k679_no_end_of_requests_is_passed_on(service: Service) -> None:
    message = AS_REQ
    for _ in range(MAX_REQUESTS):
        service.step(proxied("EXAMPLE.TEST", message))
    with pytest.raises(ProtocolError, match="no more are passed on"):
        service.step(proxied("EXAMPLE.TEST", message))
    assert len(service.asked) == MAX_REQUESTS


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(b"", id="K680-empty"),
        pytest.param(b"\x05", id="K680-half-a-token-id"),
        pytest.param(b"\x05\x01", id="K680-no-header"),
        pytest.param(b"\x05\x01\x30\x80", id="K680-no-length"),
        pytest.param(b"\x05\x02\x30\x00", id="K680-another-token-id"),
        pytest.param(frame(TOK_AP_REQ, b"x"), id="K680-another-mechanism"),
        pytest.param(b"\x05\x01" + Proxied("R", None, b"", True).encode(), id="K680-no-message"),
    ],
)
def test_an_answer_that_is_none_ends_the_handshake(token: bytes) -> None:
    ours = client()
    ours.step()
    with pytest.raises(KerberosError):
        ours.step(token)
    assert not ours.established


def test_k681_a_service_cannot_answer_in_the_kdcs_place(service: Service, realm: Realm) -> None:
    """Another realm of the same name, with other keys: what the service may be."""
    with Realm("EXAMPLE.TEST") as impostor:
        impostor.add_user("alice", "guessed")
        fake = Service(impostor, impostor.add_service(WEB))
        with pytest.raises(KerberosError):
            handshake(fake)
    assert handshake(service).established


def test_k682_the_service_proves_itself_as_ever(service: Service) -> None:
    ours = client()
    token = ours.step()
    while len(service.asked) < 3:
        token = ours.step(service.step(token or b""))
    assert ours._flags & Flag.MUTUAL
    with pytest.raises(KerberosError):
        ours.step(b"")
    assert not ours.established


def test_k683_extensions_that_are_cut_off_are_refused() -> None:
    from purekrb.keys import EncryptionKey

    key = EncryptionKey(18, bytes(32))
    good = Conversation().finished(key)
    Conversation().verify(key, good)
    for size in range(len(good)):
        with pytest.raises((ApError, DecodeError)):
            Conversation().verify(key, good[:size])
    for at in range(len(good)):
        with pytest.raises((ApError, DecodeError)):
            Conversation().verify(key, good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])
