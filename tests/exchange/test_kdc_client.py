"""KdcClient and initiate against the embedded realm: what they ask, keep and retry; each test blocking and asyncio."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import purekrb
from purekrb import (
    Acceptor,
    ClientUnknownError,
    Config,
    ConfigError,
    Credential,
    CredentialError,
    EncryptionKey,
    Flag,
    Keytab,
    KeytabEntry,
    PreauthFailedError,
    Principal,
    ProtocolError,
    ServiceUnknownError,
    SpnError,
    TransportError,
    TransportTimeoutError,
    UnsupportedError,
    crypto,
    verify_credentials,
)
from purekrb.constants import ErrorCode, TicketFlags
from purekrb.exchanges.runner import KdcRequest
from purekrb.kdc.client import AsyncKdcClient, KdcClient, initiate, initiate_async
from purekrb.krb5conf.config import RealmConfig
from purekrb.messages.ap import HostAddress
from purekrb.system import now
from purekrb.testing import Realm
from support.kdc_stubs import TcpStub, UdpStub, closed_port, frame, krb_error, read_frame


class _BlockingFace:
    """AsyncKdcClient with the calls of KdcClient."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = AsyncKdcClient(*args, **options)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **options: asyncio.run(method(*args, **options))


@pytest.fixture(params=[KdcClient, _BlockingFace], ids=["blocking", "asyncio"])
def client_class(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[initiate, initiate_async], ids=["blocking", "asyncio"])
def start(request: pytest.FixtureRequest) -> Callable[..., purekrb.Initiator]:
    """`initiate`, in either way."""
    if request.param is initiate:
        return initiate
    return lambda *args, **options: asyncio.run(initiate_async(*args, **options))


@pytest.fixture
def realm() -> Iterator[Realm]:
    with Realm("R.TEST") as realm:
        realm.add_user("alice", "pw")
        realm.add_service("HTTP/web.r.test")
        yield realm


@pytest.fixture
def alice() -> Credential:
    return Credential.from_password("alice@R.TEST", "pw")


@pytest.fixture
def client(client_class: Any, realm: Realm) -> Any:
    return client_class(realm.config)


# -- get_tgt ---------------------------------------------------------------------------------------------------------


def test_a_tgt_comes_for_a_password_and_is_kept(client: Any, alice: Credential) -> None:
    tgt = client.get_tgt(alice)
    assert (str(tgt.client), str(tgt.service)) == ("alice@R.TEST", "krbtgt/R.TEST@R.TEST")
    assert list(alice.ccache) == [tgt]


def test_a_tgt_comes_for_a_keytab_and_for_a_key(client: Any, realm: Realm) -> None:
    keytab = realm.keytab("alice")
    for credential in (
        Credential.from_keytab("alice@R.TEST", keytab),
        *(Credential.from_key("alice@R.TEST", entry.key) for entry in keytab),
    ):
        assert client.get_tgt(credential).is_tgt


def test_what_the_caller_asks_for_goes_before_what_is_configured(
    client_class: Any, realm: Realm, alice: Credential
) -> None:
    config = replace(realm.config, ticket_lifetime=3600, renew_lifetime=7200, forwardable=True)
    client = client_class(config)
    tgt = client.get_tgt(alice)
    assert abs(tgt.endtime - now() - timedelta(hours=1)) < timedelta(seconds=5)
    assert tgt.renew_till is not None
    assert abs(tgt.renew_till - now() - timedelta(hours=2)) < timedelta(seconds=5)
    assert tgt.flags & TicketFlags.FORWARDABLE
    tgt = client.get_tgt(alice, lifetime=600, renewable=0, forwardable=False)
    assert abs(tgt.endtime - now() - timedelta(minutes=10)) < timedelta(seconds=5)
    assert tgt.renew_till is None
    assert not tgt.flags & TicketFlags.FORWARDABLE


@pytest.mark.parametrize("etype", [17, 18, 19, 20])
def test_the_configured_encryption_types_are_asked_for(
    client_class: Any, realm: Realm, alice: Credential, etype: int
) -> None:
    client = client_class(replace(realm.config, permitted_enctypes=[etype]))
    assert client.get_tgt(alice).session_key.etype == etype
    assert client.get_ticket(alice, "HTTP/web.r.test").session_key.etype == etype


def test_each_way_to_fail_has_its_own_error(client_class: Any, realm: Realm) -> None:
    client = client_class(realm.config, timeout=0.5)
    with pytest.raises(PreauthFailedError, match="check the password"):
        client.get_tgt(Credential.from_password("alice@R.TEST", "wrong"))
    with pytest.raises(ClientUnknownError):
        client.get_tgt(Credential.from_password("nobody@R.TEST", "pw"))
    with pytest.raises(ConfigError, match=r"no KDC of realm ELSEWHERE\.TEST is known"):
        client.get_tgt(Credential.from_password("alice@ELSEWHERE.TEST", "pw"))
    realm.stop()
    with pytest.raises(
        TransportError, match=f"no KDC of realm R.TEST could be reached.*port {realm.port}"
    ):
        client.get_tgt(Credential.from_password("alice@R.TEST", "pw"))


def test_the_deadline_covers_all_requests_of_a_call(
    client_class: Any, realm: Realm, alice: Credential
) -> None:
    def slow(stub: TcpStub, connection: Any) -> None:
        request = read_frame(connection)
        stub.stopping.wait(0.4)
        connection.sendall(frame(realm.handle(request)))

    with TcpStub(slow) as kdc:
        config = Config(realms={"R.TEST": [kdc.url]})
        started = time.monotonic()
        with pytest.raises(TransportTimeoutError):
            client_class(config, timeout=0.6).get_tgt(alice)  # two requests of 0.4 s each
        assert 0.5 < time.monotonic() - started < 4
        with pytest.raises(TransportTimeoutError):
            client_class(replace(config, request_timeout=0.2)).get_tgt(alice)
        assert client_class(config, timeout=20).get_tgt(alice).is_tgt


def test_a_kdc_whose_clock_is_off_is_bridged_and_remembered(
    client: Any, realm: Realm, alice: Credential
) -> None:
    realm.clock_offset = 3600
    keytab = realm.add_service("HTTP/web.r.test")
    tgt = client.get_tgt(alice)
    assert abs(tgt.time_offset - timedelta(hours=1)) < timedelta(seconds=5)
    ticket = client.get_ticket(alice, "HTTP/web.r.test")
    acceptor = Acceptor(keytab, clock=lambda: now() + timedelta(hours=1))
    initiator = purekrb.Initiator(ticket)
    initiator.step(acceptor.step(initiator.step()))
    assert initiator.established


# -- get_ticket ------------------------------------------------------------------------------------------------------


def test_a_service_ticket_brings_the_tgt_along_and_both_are_reused(
    client: Any, alice: Credential, realm: Realm
) -> None:
    ticket = client.get_ticket(alice, "HTTP/web.r.test")
    assert str(ticket.service) == "HTTP/web.r.test@R.TEST"
    assert len(alice.ccache) == 2
    realm.stop()
    assert client.get_ticket(alice, "HTTP/web.r.test@R.TEST") is ticket
    with pytest.raises(TransportError):
        client.get_ticket(alice, "HTTP/other.r.test")


def test_a_target_is_text_or_spn_or_principal(client: Any, alice: Credential, realm: Realm) -> None:
    dn = "CN=Sock\\,Auth,CN=WEB1,DC=r,DC=test"
    realm.add_service(str(Principal(("svc", "web.r.test", dn), "R.TEST")))
    for target in (
        f"svc/web.r.test/{dn}",
        Principal(("svc", "web.r.test", dn), "R.TEST"),
        purekrb.spn.ServicePrincipalName.parse(f"svc/web.r.test/{dn}"),
    ):
        assert client.get_ticket(alice, target).service.components == ("svc", "web.r.test", dn)
    with pytest.raises(SpnError):
        client.get_ticket(alice, "justahost")


def test_an_unknown_service_has_its_own_error(client: Any, alice: Credential) -> None:
    with pytest.raises(ServiceUnknownError, match=r"HTTP/nowhere\.r\.test"):
        client.get_ticket(alice, "HTTP/nowhere.r.test")


@pytest.fixture
def other(realm: Realm) -> Iterator[Realm]:
    with Realm("OTHER.TEST") as other:
        realm.trust(other)
        other.add_service("HTTP/web.other.test")
        yield other


@pytest.mark.parametrize(
    ("target", "domain_realm"),
    [
        pytest.param("HTTP/web.other.test@OTHER.TEST", {}, id="realm-named"),
        pytest.param("HTTP/web.other.test", {".other.test": "OTHER.TEST"}, id="domain_realm"),
        pytest.param("HTTP/web.other.test", {}, id="referral"),
    ],
)
def test_a_service_of_another_realm_is_found(
    client_class: Any,
    realm: Realm,
    other: Realm,
    alice: Credential,
    target: str,
    domain_realm: dict[str, str],
) -> None:
    client = client_class(replace(realm.config, domain_realm=domain_realm))
    ticket = client.get_ticket(alice, target)
    assert str(ticket.service) == "HTTP/web.other.test@OTHER.TEST"
    assert str(ticket.client) == "alice@R.TEST"


def test_capaths_of_the_configuration_are_followed(
    client_class: Any, realm: Realm, other: Realm, alice: Credential
) -> None:
    with Realm("FAR.TEST") as far:
        other.trust(far)
        far.add_service("HTTP/web.far.test")
        config = realm.config
        assert (
            client_class(config).get_ticket(alice, "HTTP/web.far.test@FAR.TEST").service.realm
            == "FAR.TEST"
        )
        through_other = replace(config, capaths={"R.TEST": {"FAR.TEST": ["OTHER.TEST"]}})
        fresh = Credential.from_password("alice@R.TEST", "pw")
        assert (
            client_class(through_other)
            .get_ticket(fresh, "HTTP/web.far.test@FAR.TEST")
            .service.realm
            == "FAR.TEST"
        )
        elsewhere = replace(config, capaths={"R.TEST": {"FAR.TEST": ["THIRD.TEST"]}})
        fresh = Credential.from_password("alice@R.TEST", "pw")
        with pytest.raises(purekrb.KerberosError):
            client_class(elsewhere).get_ticket(fresh, "HTTP/web.far.test@FAR.TEST")


def test_many_threads_share_one_client(realm: Realm) -> None:
    client = KdcClient(realm.config)
    for i in range(8):
        realm.add_user(f"user{i}", f"pw{i}")
    got: dict[int, str] = {}

    def get(i: int) -> None:
        ticket = client.get_ticket(
            Credential.from_password(f"user{i}@R.TEST", f"pw{i}"), "HTTP/web.r.test"
        )
        got[i] = str(ticket.client)

    threads = [threading.Thread(target=get, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert got == {i: f"user{i}@R.TEST" for i in range(8)}


def test_many_tasks_share_one_client(realm: Realm) -> None:
    for i in range(8):
        realm.add_user(f"user{i}", f"pw{i}")

    async def get_all() -> list[str]:
        client = purekrb.aio.KdcClient(realm.config)
        credentials = [Credential.from_password(f"user{i}@R.TEST", f"pw{i}") for i in range(8)]
        tickets = await asyncio.gather(
            *(client.get_ticket(one, "HTTP/web.r.test") for one in credentials)
        )
        return [str(ticket.client) for ticket in tickets]

    assert asyncio.run(get_all()) == [f"user{i}@R.TEST" for i in range(8)]


# -- renew, forward_tgt ----------------------------------------------------------------------------------------------


def test_a_renewable_tgt_is_renewed_and_kept(client: Any, alice: Credential) -> None:
    client.get_tgt(alice, lifetime=60, renewable=3600)
    renewed = client.renew(alice)
    assert renewed.flags & TicketFlags.RENEWABLE
    assert list(alice.ccache) == [renewed]


def test_what_cannot_be_renewed_is_told(client: Any, alice: Credential) -> None:
    with pytest.raises(CredentialError, match="no valid TGT"):
        client.renew(alice)
    client.get_tgt(alice)
    with pytest.raises(CredentialError, match="not renewable"):
        client.renew(alice)


def test_a_forwarded_tgt_comes_with_a_forwardable_one_got_on_the_way(
    client: Any, alice: Credential
) -> None:
    client.get_tgt(alice)
    forwarded = client.forward_tgt(alice)
    assert forwarded.flags & TicketFlags.FORWARDED
    assert forwarded.is_tgt
    assert client.get_ticket(
        Credential(alice.principal, ccache=purekrb.CCache(alice.principal, [forwarded])),
        "HTTP/web.r.test",
    )


def test_tickets_alone_cannot_be_made_forwardable(client: Any, alice: Credential) -> None:
    client.get_tgt(alice)
    with pytest.raises(CredentialError, match="not forwardable"):
        client.forward_tgt(Credential.from_ccache(alice.ccache))
    with pytest.raises(CredentialError, match="no valid TGT"):
        client.forward_tgt(Credential.from_ccache(purekrb.CCache("alice@R.TEST")))


HERE = HostAddress(2, bytes([192, 0, 2, 7]))


def test_a_proxy_is_a_ticket_for_other_addresses_and_is_not_kept(
    client: Any, realm: Realm, alice: Credential
) -> None:
    tgt = client.get_tgt(alice)
    assert not tgt.flags & TicketFlags.PROXIABLE
    ticket = client.proxy(alice, "HTTP/web.r.test", [HERE])  # with a TGT got on the way
    assert ticket.flags & TicketFlags.PROXY
    assert ticket.caddr == (HERE,)
    assert str(ticket.service) == "HTTP/web.r.test@R.TEST"
    assert ticket not in list(alice.ccache)
    anywhere = client.proxy(alice, "HTTP/web.r.test")
    assert anywhere.caddr == ()
    given_away = Credential.from_ccache(purekrb.CCache(anywhere.client, [anywhere]))
    assert client.get_ticket(given_away, "HTTP/web.r.test@R.TEST") == anywhere
    acceptor = Acceptor(realm.keytab("HTTP/web.r.test"))
    acceptor.step(purekrb.Initiator(anywhere).step())
    assert str(acceptor.initiator) == "alice@R.TEST"


def test_a_proxy_for_a_service_of_another_realm(client_class: Any, realm: Realm) -> None:
    with Realm("FAR.TEST") as far:
        far.add_service("HTTP/web.far.test")
        realm.trust(far)
        client = client_class(realm.config)
        alice = Credential.from_password("alice@R.TEST", "pw")
        ticket = client.proxy(alice, "HTTP/web.far.test@FAR.TEST", [HERE])
        assert ticket.flags & TicketFlags.PROXY
        assert ticket.caddr == (HERE,)
        referred = client.proxy(alice, "HTTP/web.far.test", [HERE])
        assert (referred.service, referred.caddr) == (ticket.service, (HERE,))


def test_tickets_alone_cannot_be_made_proxiable(client: Any, alice: Credential) -> None:
    client.get_tgt(alice)
    with pytest.raises(CredentialError, match="not proxiable"):
        client.proxy(Credential.from_ccache(alice.ccache), "HTTP/web.r.test")
    with pytest.raises(CredentialError, match="no valid TGT"):
        client.proxy(Credential.from_ccache(purekrb.CCache("alice@R.TEST")), "HTTP/web.r.test")


# -- K255: a replica with the old password -----------------------------------------------------------------------------


@pytest.fixture
def replica() -> Iterator[TcpStub]:
    """A KDC that finds every password wrong, as one does that has not heard of a new one."""
    refusal = frame(krb_error(ErrorCode.KDC_ERR_PREAUTH_FAILED))

    def refuse(stub: TcpStub, connection: Any) -> None:
        read_frame(connection)
        connection.sendall(refusal)

    with TcpStub(refuse) as stub:
        yield stub


def with_primary(replica: TcpStub, primary: str) -> Config:
    parsed = Config(realms={"R.TEST": [replica.url], "primary": [primary]})
    return Config(
        realms={
            "R.TEST": RealmConfig(kdc=parsed.kdcs("R.TEST"), primary_kdc=parsed.kdcs("primary"))
        }
    )


def test_k255_preauth_failed_at_a_replica_is_tried_once_at_the_primary(
    client_class: Any, realm: Realm, alice: Credential, replica: TcpStub
) -> None:
    client = client_class(with_primary(replica, f"127.0.0.1:{realm.port}"))
    assert client.get_tgt(alice).is_tgt
    assert replica.accepted == 1


def test_k255_the_primary_of_one_realm_is_not_asked_about_another(
    client_class: Any, realm: Realm, other: Realm, alice: Credential, replica: TcpStub
) -> None:
    config = with_primary(replica, f"127.0.0.1:{realm.port}")
    client = client_class(
        replace(config, realms={**config.realms, "OTHER.TEST": realm.config.realm("OTHER.TEST")})
    )
    assert client.get_ticket(alice, "HTTP/web.other.test").service.realm == "OTHER.TEST"


def test_k255_a_wrong_password_is_tried_once_at_the_primary(
    client_class: Any, realm: Realm, replica: TcpStub
) -> None:
    requests: list[bytes] = []

    def count(stub: TcpStub, connection: Any) -> None:
        requests.append(read_frame(connection))
        connection.sendall(frame(realm.handle(requests[-1])))

    with TcpStub(count) as primary:
        with pytest.raises(PreauthFailedError):
            client_class(with_primary(replica, primary.url)).get_tgt(
                Credential.from_password("alice@R.TEST", "wrong")
            )
        assert (replica.accepted, len(requests)) == (1, 2)  # without and with the proof


def test_k255_without_another_primary_the_first_answer_counts(
    client_class: Any, alice: Credential, replica: TcpStub
) -> None:
    for config, asked in (
        (Config(realms={"R.TEST": [replica.url]}), 1),
        (with_primary(replica, replica.url), 2),
    ):
        with pytest.raises(PreauthFailedError):
            client_class(config).get_tgt(alice)
        assert replica.accepted == asked


def test_k255_an_unreachable_primary_leaves_the_first_answer(
    client_class: Any, alice: Credential, replica: TcpStub
) -> None:
    with pytest.raises(PreauthFailedError):
        client_class(with_primary(replica, f"tcp://127.0.0.1:{closed_port()}")).get_tgt(alice)


# -- K259: an answer to another request --------------------------------------------------------------------------------


def test_k259_the_answer_to_a_previous_request_is_refused(client_class: Any, realm: Realm) -> None:
    recorded: list[bytes] = []

    def replay(stub: UdpStub, data: bytes, client: Any) -> None:
        reply = realm.handle(data)
        if reply[0] == 0x6B:  # AS-REP: the first one is what everybody gets
            recorded.append(reply)
            reply = recorded[0]
        stub.socket.sendto(reply, client)

    with UdpStub(replay) as kdc:
        client = client_class(Config(realms={"R.TEST": [kdc.url]}))
        assert client.get_tgt(Credential.from_password("alice@R.TEST", "pw")).is_tgt
        with pytest.raises(ProtocolError, match="nonce"):
            client.get_tgt(Credential.from_password("alice@R.TEST", "pw"))


# -- initiate --------------------------------------------------------------------------------------------------------


def handshake(initiator: purekrb.Initiator, keytab: Keytab) -> Acceptor:
    acceptor = Acceptor(keytab)
    initiator.step(acceptor.step(initiator.step()))
    assert initiator.established
    return acceptor


def test_initiate_gets_the_tickets_that_a_context_needs(
    start: Callable[..., purekrb.Initiator], realm: Realm, alice: Credential
) -> None:
    keytab = realm.keytab("HTTP/web.r.test")
    initiator = start("HTTP/web.r.test", alice, realm.config)
    acceptor = handshake(initiator, keytab)
    assert initiator.mutual
    assert str(acceptor.initiator) == "alice@R.TEST"
    assert acceptor.unwrap(initiator.wrap(b"hello")) == b"hello"


def test_initiate_passes_flags_and_channel_bindings_on(
    start: Callable[..., purekrb.Initiator], realm: Realm, alice: Credential
) -> None:
    bindings = purekrb.ChannelBindings(application_data=b"here")
    initiator = start(
        "HTTP/web.r.test", alice, realm.config, flags=Flag.MUTUAL, channel_bindings=bindings
    )
    acceptor = Acceptor(
        realm.keytab("HTTP/web.r.test"), channel_bindings=bindings, require_channel_bindings=True
    )
    initiator.step(acceptor.step(initiator.step()))
    assert acceptor.channel_bound
    assert initiator.flags == Flag.MUTUAL
    other = start(
        "HTTP/web.r.test",
        alice,
        realm.config,
        channel_bindings=purekrb.ChannelBindings(application_data=b""),
    )
    with pytest.raises(purekrb.ChannelBindingsError):
        Acceptor(realm.keytab("HTTP/web.r.test"), channel_bindings=bindings).step(other.step())


def test_initiate_delegates_only_where_the_kdc_marks_the_service(
    start: Callable[..., purekrb.Initiator], realm: Realm, alice: Credential
) -> None:
    trusted = realm.add_service("cifs/files.r.test", ok_as_delegate=True)
    flags = Flag.DEFAULT | Flag.DELEG
    acceptor = handshake(start("cifs/files.r.test", alice, realm.config, flags=flags), trusted)
    delegated = acceptor.delegated_credential
    assert delegated is not None
    assert (
        KdcClient(realm.config).get_ticket(delegated, "HTTP/web.r.test").client == alice.principal
    )
    plain = handshake(start("cifs/files.r.test", alice, realm.config), trusted)
    assert plain.delegated_credential is None
    unmarked = start("HTTP/web.r.test", alice, realm.config, flags=flags)
    assert handshake(unmarked, realm.keytab("HTTP/web.r.test")).delegated_credential is None
    assert not unmarked.flags & Flag.DELEG


def test_initiate_refuses_an_unknown_mechanism(
    start: Callable[..., purekrb.Initiator], alice: Credential
) -> None:
    with pytest.raises(UnsupportedError, match="'ntlm'"):
        start("HTTP/web.r.test", alice, Config(), mechanism="ntlm")


def test_initiate_uses_rc4_only_where_the_configuration_allows_it(
    start: Callable[..., purekrb.Initiator], realm: Realm, alice: Credential
) -> None:
    with Realm("RC4.TEST", etypes=(18, 23)) as old:
        credential = old.add_user("bob", "pw")
        keytab = old.add_service("HTTP/old.rc4.test", etypes=(23,))
        config = replace(old.config, allow_rc4=True, default_tgs_enctypes=(23,))
        initiator = start("HTTP/old.rc4.test", credential, config)
        acceptor = Acceptor(keytab, permitted_etypes=(18, 23))
        initiator.step(acceptor.step(initiator.step()))
        assert initiator.established
        fresh = Credential.from_password("bob@RC4.TEST", "pw")
        with pytest.raises(purekrb.KerberosError):
            start("HTTP/old.rc4.test", fresh, replace(old.config, allow_rc4=False)).step()


def test_the_default_configuration_is_that_of_krb5_conf(
    client_class: Any,
    realm: Realm,
    alice: Credential,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    realm.write_krb5_conf(tmp_path / "krb5.conf")
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    assert client_class().get_tgt(alice).is_tgt


def test_both_clients_have_the_same_methods() -> None:
    def methods(cls: type) -> dict[str, inspect.Signature]:
        return {
            name: inspect.signature(m) for name, m in vars(cls).items() if not name.startswith("_")
        }

    assert methods(KdcClient) == methods(AsyncKdcClient)
    assert purekrb.aio.KdcClient is AsyncKdcClient
    assert _but_for_open_connection(initiate) == _but_for_open_connection(initiate_async)
    assert _but_for_open_connection(KdcClient) == _but_for_open_connection(AsyncKdcClient)


def _but_for_open_connection(function: Any) -> list[inspect.Parameter]:
    """Return the parameters; `open_connection` is a coroutine function for asyncio alone."""
    return [
        parameter.replace(annotation="") if name == "open_connection" else parameter
        for name, parameter in inspect.signature(function).parameters.items()
    ]


# -- verify_credentials: K066-K068 --------------------------------------------------------------------------------


def test_k066_a_kdc_that_knows_a_key_of_this_machine_vouches_for_a_password(
    realm: Realm, alice: Credential
) -> None:
    host = realm.add_service("host/here.r.test")
    assert str(verify_credentials(alice, host, config=realm.config)) == "alice@R.TEST"
    with pytest.raises(PreauthFailedError):
        verify_credentials(
            Credential.from_password("alice@R.TEST", "wrong"), host, config=realm.config
        )


def test_k066_a_spoofed_kdc_with_the_attackers_password_is_refused(realm: Realm) -> None:
    host = realm.add_service("host/here.r.test")
    with Realm("R.TEST") as spoofed:
        guess = spoofed.add_user("alice", "guess")
        spoofed.add_service("host/here.r.test")
        assert KdcClient(spoofed.config).get_tgt(guess).is_tgt  # what a mere kinit believes
        with pytest.raises(purekrb.ApError):
            verify_credentials(guess, host, config=spoofed.config)


def test_k066_an_old_tgt_in_the_cache_proves_nothing(realm: Realm, alice: Credential) -> None:
    host = realm.add_service("host/here.r.test")
    KdcClient(realm.config).get_tgt(alice)
    with pytest.raises(CredentialError, match="neither a valid ticket nor a key"):
        verify_credentials(Credential.from_ccache(alice.ccache), host, config=realm.config)


@pytest.mark.parametrize("case", ["K067-absent", "K067-empty", "K067-unreadable"])
def test_k067_without_a_keytab_nothing_is_verified(
    realm: Realm, alice: Credential, tmp_path: Any, case: str
) -> None:
    path = tmp_path / "keytab"
    realm.add_service("host/here.r.test").save(path)
    assert verify_credentials(alice, path, config=realm.config)
    if case == "K067-absent":
        path.unlink()
    elif case == "K067-empty":
        Keytab([]).save(path)
    elif os.getuid():
        path.chmod(0)
    else:  # nothing is unreadable to root but what is no file
        path.unlink()
        path.mkdir()
    with pytest.raises(CredentialError):
        verify_credentials(alice, path, config=realm.config)


def test_k068_a_keytab_that_does_not_fit_verifies_nothing(realm: Realm, alice: Credential) -> None:
    outdated = realm.add_service("host/here.r.test")
    current = realm.change_key("host/here.r.test")
    with pytest.raises(purekrb.ApError):
        verify_credentials(alice, outdated, config=realm.config)
    assert verify_credentials(alice, current, config=realm.config)
    only_nfs = realm.add_service("nfs/here.r.test")
    with pytest.raises(purekrb.ApError):
        verify_credentials(alice, only_nfs, service="host/here.r.test", config=realm.config)
    assert verify_credentials(alice, only_nfs, service="nfs/here.r.test", config=realm.config)
    unknown = Keytab(
        [KeytabEntry(Principal.parse("host/gone.r.test@R.TEST"), 1, crypto.random_key(18), now())]
    )
    with pytest.raises(ServiceUnknownError):
        verify_credentials(alice, unknown, config=realm.config)
    assert verify_credentials(alice, Keytab([*unknown, *current]), config=realm.config)


def test_no_secret_is_in_the_clients_repr(realm: Realm) -> None:
    key = EncryptionKey(18, b"canary canary canary canary cana")
    client = KdcClient(realm.config)
    with pytest.raises(purekrb.KerberosError) as caught:
        client.get_tgt(Credential.from_key("alice@R.TEST", key))
    assert "canary" not in repr(caught.value) + repr(client) + repr(vars(client))


# -- other servers than KDCs


def test_a_request_goes_to_the_server_that_it_is_for(realm: Realm, client_class: Any) -> None:
    without = replace(realm.config, realms={"R.TEST": [f"127.0.0.1:{realm.port}"]})

    def exchange(server: Any) -> Any:
        reply = yield KdcRequest("R.TEST", b"neither an AS-REQ nor a TGS-REQ", server)
        return reply

    with pytest.raises(ConfigError, match=r"changes passwords of realm R\.TEST is known"):
        client_class(without)._run(lambda: exchange("kpasswd"))
    assert client_class(realm.config)._run(lambda: exchange("kpasswd"))[:1] == b"\x7e"
    assert client_class(without)._run(lambda: exchange("kdc"))[:1] == b"\x7e"  # a KRB-ERROR
    assert KdcRequest("R.TEST", b"").server == "kdc"


# -- relations of krb5.conf with an effect on requests ---------------------------------------------------------------


def test_a_kind_that_is_switched_off_is_never_sent(
    client_class: Any, realm: Realm, alice: Credential
) -> None:
    config = replace(realm.config, clpreauth_disable=("encrypted_timestamp",))
    with pytest.raises(purekrb.PreauthUnsupportedError):
        client_class(config).get_tgt(alice)
    keys = Credential.from_keytab("alice@R.TEST", realm.keytab("alice"))
    with pytest.raises(purekrb.PreauthUnsupportedError):
        client_class(config).get_tgt(keys)
    only = replace(realm.config, clpreauth_enable_only=("encrypted_timestamp",))
    assert client_class(only).get_tgt(alice).is_tgt


def test_extra_addresses_are_bound_where_any_are(
    client_class: Any, realm: Realm, alice: Credential
) -> None:
    extra = ("192.0.2.99", "2001:db8::99")
    bound = replace(realm.config, noaddresses=False, extra_addresses=extra)
    found = client_class(bound).get_tgt(alice).caddr
    assert HostAddress(2, bytes([192, 0, 2, 99])) in found
    assert [a.address[-1] for a in found if len(a.address) == 16][-1:] == [0x99]
    assert client_class(replace(bound, noaddresses=True)).get_tgt(alice).caddr == ()


def test_enforce_ok_as_delegate_is_stronger_than_the_caller(
    start: Any, realm: Realm, alice: Credential
) -> None:
    enforced = replace(realm.config, enforce_ok_as_delegate=True)
    realm.add_service("HTTP/trusted", ok_as_delegate=True)
    for target, config, delegated in (
        ("HTTP/web.r.test", realm.config, True),
        ("HTTP/web.r.test", enforced, False),
        ("HTTP/trusted", enforced, True),
    ):
        initiator = start(f"{target}@R.TEST", alice, config, delegate="always")
        acceptor = Acceptor(realm.keytab(target))
        initiator.step(acceptor.step(initiator.step()))
        assert (acceptor.delegated_credential is not None) is delegated
