"""Changing and setting passwords with the embedded realm, and with servers that fail or lie. In both worlds."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import purekrb
from purekrb import Config, Credential, KdcClient, Principal, crypto, errors
from purekrb.constants import ErrorCode, KeyUsage
from purekrb.exchanges.change_password import change_password
from purekrb.krb5conf.config import KdcAddress, RealmConfig
from purekrb.messages import kpasswd
from purekrb.messages.ap import EncryptedData, HostAddress
from purekrb.messages.kpasswd import EncKrbPrivPart, KrbPriv, PasswordPolicy
from purekrb.records import replace as replace_fields
from purekrb.testing import Realm
from support.kdc_stubs import (
    DnsStub,
    TcpStub,
    UdpStub,
    closed_port,
    frame,
    krb_error,
    read_frame,
)

OLD, NEW = "Old-pass1", "New-pass1-canary"


class AsyncFace:
    """The asyncio client with the face of the blocking one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = purekrb.aio.KdcClient(*args, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **options: asyncio.run(method(*args, **options))


@pytest.fixture(params=[KdcClient, AsyncFace], ids=["blocking", "asyncio"])
def client_class(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def realm() -> Iterator[Realm]:
    with Realm("R.TEST") as realm:
        realm.add_user("alice", OLD)
        yield realm


def alice(password: str = OLD) -> Credential:
    return Credential.from_password("alice@R.TEST", password)


def accepted(realm: Realm, password: str) -> bool:
    """Return whether this is alice's password."""
    try:
        KdcClient(realm.config).get_tgt(alice(password))
    except errors.PreauthFailedError:
        return False
    return True


def with_servers(realm: Realm, *servers: str, **changes: Any) -> Config:
    config = realm.config
    addresses = tuple(KdcAddress.parse(server, 464) for server in servers)
    changed = replace(config.realm("R.TEST"), kpasswd_server=addresses, **changes)
    return replace(config, realms={"R.TEST": changed})


# --- what the realm permits


def test_a_user_changes_the_password(client_class: Any, realm: Realm) -> None:
    credential = alice()
    assert client_class(realm.config).change_password(credential, NEW) is None
    assert not accepted(realm, OLD)
    assert accepted(realm, NEW)
    assert not list(credential.ccache), "a ticket to change the password is not kept"


def test_a_password_that_has_expired_is_changed(client_class: Any, realm: Realm) -> None:
    realm.add_user("alice", OLD, password_expired=True)
    with pytest.raises(errors.PasswordExpiredError, match="purekrb kpasswd"):
        KdcClient(realm.config).get_tgt(alice())
    client_class(realm.config).change_password(alice(), NEW.encode())
    assert accepted(realm, NEW)


def test_a_wrong_old_password_changes_nothing(client_class: Any, realm: Realm) -> None:
    with pytest.raises(errors.PreauthFailedError):
        client_class(realm.config).change_password(alice("wrong"), NEW)
    assert accepted(realm, OLD)


def test_the_rules_are_told_in_words_and_as_numbers(client_class: Any) -> None:
    rules = PasswordPolicy(12, 3, True, 86400 * 90.0, 86400.0)
    with Realm("R.TEST", password_policy=rules) as realm:
        realm.add_user("alice", OLD)
        with pytest.raises(errors.PasswordPolicyError) as caught:
            client_class(realm.config).change_password(alice(), "Short-1")
        assert caught.value.policy == rules
        assert caught.value.code == kpasswd.Result.SOFTERROR
        for words in ("at least 12 characters", "three kinds", "last 3 passwords", "1 day old"):
            assert words in str(caught.value)


def test_an_administrator_sets_the_password_of_another(client_class: Any, realm: Realm) -> None:
    realm.add_user("boss", "boss-pw", sets_passwords=True)
    client = client_class(realm.config)
    boss = Credential.from_password("boss@R.TEST", "boss-pw")
    client.set_password(boss, "alice", NEW)
    assert accepted(realm, NEW)
    KdcClient(realm.config).get_tgt(boss)
    with_tickets = Credential.from_ccache(boss.ccache)
    client.set_password(with_tickets, Principal.parse("alice@R.TEST"), "Third-pass1")
    assert accepted(realm, "Third-pass1")
    with pytest.raises(errors.KdcError, match=r"must not do that.*not permitted") as caught:
        client.set_password(alice("Third-pass1"), "boss", NEW)
    assert caught.value.code == kpasswd.Result.ACCESSDENIED
    with pytest.raises(errors.KdcError, match="no such user"):
        client.set_password(boss, "nobody", NEW)


def test_tickets_alone_change_no_password(client_class: Any, realm: Realm) -> None:
    user = alice()
    KdcClient(realm.config).get_tgt(user)
    with pytest.raises(errors.CredentialError, match="with the old password"):
        client_class(realm.config).change_password(Credential.from_ccache(user.ccache), NEW)
    # A server that gets one says so, too.
    ticket = KdcClient(realm.config).get_ticket(user, "kadmin/changepw@R.TEST")
    exchange = change_password(ticket, NEW.encode())
    request = next(exchange)
    with pytest.raises(errors.KdcError, match="got with the password itself"):
        exchange.send(realm.handle(request.message))  # type: ignore[union-attr]
    assert accepted(realm, OLD)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_both_transports_serve(client_class: Any, realm: Realm, transport: str) -> None:
    config = with_servers(realm, f"{transport}/127.0.0.1:{realm.port}")
    client_class(config).change_password(alice(), NEW)
    assert accepted(realm, NEW)


@pytest.mark.parametrize(("new", "error"), [("", ValueError), (None, TypeError), (7, TypeError)])
def test_what_is_no_password_is_refused_before_anything_is_sent(
    client_class: Any, new: Any, error: type[Exception]
) -> None:
    client = client_class(Config(dns_lookup_kdc=False))
    with pytest.raises(error):
        client.change_password(alice(), new)
    with pytest.raises(error):
        client.set_password(alice(), "bob", new)


# --- finding the server


def test_a_server_that_is_not_there_is_passed_over(client_class: Any, realm: Realm) -> None:
    gone = f"127.0.0.1:{closed_port()}"
    config = with_servers(
        realm, gone, f"tcp/{gone}", f"udp/{gone}", f"https://{gone}", f"127.0.0.1:{realm.port}"
    )
    client_class(config).change_password(alice(), NEW)
    assert accepted(realm, NEW)
    with pytest.raises(errors.TransportError, match="Nothing was changed") as caught:
        client_class(with_servers(realm, gone)).change_password(alice(NEW), OLD)
    assert not isinstance(caught.value, errors.OutcomeUnknownError)
    assert accepted(realm, NEW)


def test_without_kpasswd_server_port_464_of_the_admin_server_is_asked(realm: Realm) -> None:
    config = with_servers(realm, admin_server=(KdcAddress("admin.r.test", 749),))
    locator = purekrb.kdc.locate.Locator(config)  # type: ignore[attr-defined]
    assert locator.changing_passwords("R.TEST") == (KdcAddress("admin.r.test", 464),)
    named = Config(realms={"R.TEST": RealmConfig(kpasswd_server=(KdcAddress("k", 1),))})
    assert purekrb.kdc.locate.Locator(named).changing_passwords("R.TEST") == (  # type: ignore[attr-defined]
        KdcAddress("k", 1),
    )


def test_dns_names_the_server_last(client_class: Any, realm: Realm) -> None:
    import dns.resolver

    records = {"_kpasswd._tcp.R.TEST.": [f"0 0 {realm.port} localhost."]}
    with DnsStub(records) as stub:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], stub.port
        config = replace(with_servers(realm), dns_lookup_kdc=True)
        locator = purekrb.kdc.locate.Locator(config, resolver=resolver)  # type: ignore[attr-defined]
        client_class(config, locator=locator).change_password(alice(), NEW)
    assert accepted(realm, NEW)
    with pytest.raises(errors.ConfigError, match="kpasswd_server = host"):
        client_class(with_servers(realm)).change_password(alice(NEW), OLD)


# --- answers that are lost, or that another gave


def test_k627_a_lost_answer_is_reported_as_unknown_and_nothing_is_sent_again(
    client_class: Any, realm: Realm
) -> None:
    """The password has changed, but who asked cannot know."""

    def swallow_tcp(stub: TcpStub, connection: Any) -> None:
        realm.handle(read_frame(connection))

    def swallow_udp(stub: UdpStub, data: bytes, client: object) -> None:
        realm.handle(data)

    for stub_class, swallow in ((TcpStub, swallow_tcp), (UdpStub, swallow_udp)):
        realm.add_user("alice", OLD)
        with ExitStack() as stack:
            stub = stack.enter_context(stub_class(swallow))  # type: ignore[arg-type,operator]
            second = stack.enter_context(TcpStub(swallow_tcp))
            config = with_servers(realm, stub.url, second.url)
            begin = time.monotonic()
            with pytest.raises(errors.OutcomeUnknownError, match="was changed, or it was not"):
                client_class(config, timeout=2.5).change_password(alice(), NEW)
            assert time.monotonic() - begin < 10
            assert second.accepted == 0
            if isinstance(stub, UdpStub):
                assert len(stub.received) == 1
            else:
                assert stub.accepted == 1
        assert accepted(realm, NEW)


def relay(realm: Realm, alter: Callable[[bytes, bytes], bytes]) -> TcpStub:
    """Return a server that answers `alter(request, genuine reply)`."""

    def handle(stub: TcpStub, connection: Any) -> None:
        request = read_frame(connection)
        connection.sendall(frame(alter(request, realm.handle(request))))

    return TcpStub(handle)


def reflected(request: bytes, reply: bytes) -> bytes:
    """The genuine AP-REP, and our own KRB-PRIV."""
    _, ap_rep, _ = kpasswd.decode_frame(reply)
    return kpasswd.encode_frame(1, ap_rep, kpasswd.decode_frame(request)[2])


def of_another_exchange(request: bytes, reply: bytes) -> bytes:
    _, ap_rep, private = kpasswd.decode_frame(reply)
    return kpasswd.encode_frame(1, ap_rep[:-1] + bytes([ap_rep[-1] ^ 1]), private)


def altered(request: bytes, reply: bytes) -> bytes:
    return reply[:-1] + bytes([reply[-1] ^ 1])


def under_another_key(request: bytes, reply: bytes) -> bytes:
    _, ap_rep, private = kpasswd.decode_frame(reply)
    part = EncKrbPrivPart(bytes(2), None, None, 1, HostAddress(2, bytes(4)), None)
    cipher = crypto.encrypt(
        crypto.random_key(18), KeyUsage.KRB_PRIV_ENC_PART, part.encode(), bytes(16)
    )
    message = replace_fields(KrbPriv.decode(private), enc_part=EncryptedData(18, None, cipher))
    return kpasswd.encode_frame(1, ap_rep, message.encode())


def refused_by_anybody(request: bytes, reply: bytes) -> bytes:
    return krb_error(ErrorCode.KRB_ERR_GENERIC)


def refused_in_a_frame(request: bytes, reply: bytes) -> bytes:
    return kpasswd.encode_frame(1, b"", krb_error(ErrorCode.KRB_AP_ERR_SKEW))


@pytest.mark.parametrize(
    ("alter", "error"),
    [
        pytest.param(reflected, errors.ProtocolError, id="K624-reflected"),
        pytest.param(of_another_exchange, errors.IntegrityError, id="K625-of-another-exchange"),
        pytest.param(altered, errors.IntegrityError, id="K624-altered"),
        pytest.param(under_another_key, errors.IntegrityError, id="K624-under-another-key"),
        pytest.param(refused_by_anybody, errors.KdcError, id="K628-an-error-by-anybody"),
        pytest.param(refused_in_a_frame, errors.KdcError, id="K628-an-error-in-a-frame"),
    ],
)
def test_an_answer_that_proves_nothing_is_no_success(
    client_class: Any,
    realm: Realm,
    alter: Callable[[bytes, bytes], bytes],
    error: type[Exception],
) -> None:
    with relay(realm, alter) as stub, pytest.raises(error) as caught:
        client_class(with_servers(realm, stub.url)).change_password(alice(), NEW)
    if error is errors.KdcError:
        assert "proves nothing" in str(caught.value)
    realm.add_user("alice", OLD)
    with relay(realm, lambda _, reply: reply) as stub:  # the control
        client_class(with_servers(realm, stub.url)).change_password(alice(), NEW)
    assert accepted(realm, NEW)


def test_k625_a_recorded_answer_is_no_success(client_class: Any, realm: Realm) -> None:
    """That of another request with the same ticket has another time in its AP-REP."""
    ticket = KdcClient(realm.config).get_ticket(alice(), "kadmin/changepw@R.TEST")
    replies = []
    for password in ("first", "second"):
        exchange = change_password(ticket, password.encode())
        replies.append((exchange, realm.handle(next(exchange).message)))  # type: ignore[union-attr]
    with pytest.raises(errors.MutualAuthenticationError):
        replies[1][0].send(replies[0][1])
    with pytest.raises(errors.KdcError, match="with the password itself"):  # the control
        replies[0][0].send(replies[0][1])


def test_k626_an_answer_after_the_deadline_does_not_count(client_class: Any, realm: Realm) -> None:
    def late(request: bytes, reply: bytes) -> bytes:
        time.sleep(2)
        return reply

    with (
        relay(realm, late) as stub,
        pytest.raises(errors.OutcomeUnknownError, match="no answer before the deadline"),
    ):
        client_class(with_servers(realm, stub.url), timeout=1.0).change_password(alice(), NEW)


def test_k629_what_is_not_kerberos_is_no_answer(client_class: Any, realm: Realm) -> None:
    for junk in (b"HTTP/1.1 400", b"\x00\x07\x00\x01\x00\x00\x00\x00", b"\x7f"):
        with (
            relay(realm, lambda *_, junk=junk: junk) as stub,  # type: ignore[misc]
            pytest.raises(errors.OutcomeUnknownError, match="not Kerberos"),
        ):
            client_class(with_servers(realm, stub.url)).change_password(alice(), NEW)
        realm.add_user("alice", OLD)


def test_no_password_is_in_a_traceback(client_class: Any, realm: Realm) -> None:
    secret = "canary" * 3
    with relay(realm, altered) as stub, pytest.raises(errors.IntegrityError) as caught:
        client_class(with_servers(realm, stub.url)).change_password(alice(), secret)
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True).stack
    ours = [frame for frame in frames if "/src/purekrb/" in frame.filename]
    assert ours
    assert not [frame for frame in ours if "canary" in str(frame.locals)]


# --- what is sent


def test_the_request_is_as_the_rfc_has_it(realm: Realm) -> None:
    """One's own password goes as it is; that of others with their name and realm."""
    client = KdcClient(realm.config)
    ticket = client.get_ticket(alice(), "kadmin/changepw@R.TEST")
    drawn: list[bytes] = []

    def random(size: int) -> bytes:
        drawn.append(bytes([len(drawn) + 1]) * size)
        return drawn[-1]

    for target, version in ((None, 1), (Principal.parse("bob@R.TEST"), 0xFF80)):
        drawn.clear()
        request = next(change_password(ticket, NEW.encode(), target, random=random))
        assert (request.realm, request.server) == ("R.TEST", "kpasswd")  # type: ignore[union-attr]
        sent, _, private = kpasswd.decode_frame(request.message)  # type: ignore[union-attr]
        assert sent == version
        subkey = purekrb.EncryptionKey(ticket.session_key.etype, drawn[0])
        part = EncKrbPrivPart.decode(
            crypto.decrypt(
                subkey, KeyUsage.KRB_PRIV_ENC_PART, KrbPriv.decode(private).enc_part.cipher
            )
        )
        if target is None:
            assert part.user_data == NEW.encode()
        else:
            data = kpasswd.ChangePasswdData.decode(part.user_data)
            assert data == kpasswd.ChangePasswdData(NEW.encode(), target.name, "R.TEST")
    assert ticket.endtime - ticket.authtime < timedelta(days=2)
