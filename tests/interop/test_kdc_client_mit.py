"""Our KDC client against MIT's KDC: every kind of credential, every encryption type, both transports, two realms."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import purekrb
from purekrb import (
    ClientUnknownError,
    Config,
    Credential,
    CredentialError,
    KdcEtypeError,
    Keytab,
    PolicyError,
    PreauthFailedError,
    ServiceTicket,
    ServiceUnknownError,
    crypto,
    verify_credentials,
)
from purekrb.constants import ErrorCode, KeyUsage, TicketFlags
from purekrb.kdc import transport
from purekrb.kdc.client import AsyncKdcClient, KdcClient
from purekrb.messages.ap import EncTicketPart, Ticket
from purekrb.system import now
from support.kdc_stubs import TcpStub, UdpStub, closed_port, frame, krb_error, read_frame
from support.mit import ETYPES, MitRealm
from support.peers import free_port

Call = Callable[..., ServiceTicket]


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest) -> Call:
    """call(config, method, ...) -> ticket, with a new client of either kind."""

    def call(config: Config, method: str, *args: Any, **options: Any) -> ServiceTicket:
        if request.param == "blocking":
            return getattr(KdcClient(config), method)(*args, **options)  # type: ignore[no-any-return]
        return asyncio.run(getattr(AsyncKdcClient(config), method)(*args, **options))  # type: ignore[no-any-return]

    return call


def password(name: str) -> Credential:
    return Credential.from_password(f"{name}@MIT.TEST", MitRealm.passwords[name])


def served_over(realm: MitRealm, transport: str) -> Config:
    kdcs = {"MIT.TEST": realm.port, "SUB.TEST": realm.sub_port}
    return replace(
        realm.config,
        realms={name: [f"{transport}://127.0.0.1:{port}"] for name, port in kdcs.items()},
        udp_preference_limit=1465,
    )


def opened(ticket: ServiceTicket, keytab: Path) -> EncTicketPart:
    """Return what the service reads in its ticket."""
    enc_part = Ticket.decode(ticket.ticket).enc_part
    entries = Keytab.load(keytab).find(ticket.service, enc_part.kvno, enc_part.etype)
    return EncTicketPart.decode(crypto.decrypt(entries[0].key, KeyUsage.TICKET, enc_part.cipher))


@pytest.mark.parametrize("name", ["user", "pre"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_password_gives_tickets_over_udp_and_tcp(
    mit_realm: MitRealm, call: Call, name: str, transport: str
) -> None:
    credential = password(name)
    config = served_over(mit_realm, transport)
    tgt = call(config, "get_tgt", credential)
    assert tgt.flags & TicketFlags.INITIAL
    assert bool(tgt.flags & TicketFlags.PRE_AUTHENT) == (name == "pre")
    ticket = call(config, "get_ticket", credential, "gsvc/localhost")
    part = opened(ticket, mit_realm.service_keytab)
    assert (str(part.cname.principal(part.crealm)), part.key) == (
        f"{name}@MIT.TEST",
        ticket.session_key,
    )


def test_a_keytab_and_a_key_give_tickets(mit_realm: MitRealm, call: Call) -> None:
    keytab = Keytab.load(mit_realm.keytab("pre"))
    principal = "pre@MIT.TEST"
    assert call(mit_realm.config, "get_tgt", Credential.from_keytab(principal, keytab)).is_tgt
    for entry in keytab:
        assert call(mit_realm.config, "get_tgt", Credential.from_key(principal, entry.key)).is_tgt


def failures(realm: MitRealm, principal: str) -> int:
    """Return how many failed attempts the KDC counts against the account since the last good one."""
    (line,) = [
        line
        for line in realm.kadmin(f"getprinc {principal}").splitlines()
        if "Failed password" in line
    ]
    return int(line.rpartition(":")[2])


def requests(realm: MitRealm, principal: str) -> list[str]:
    """Return what became of each AS-REQ of that client, by the KDC's log."""
    pattern = rf"AS_REQ \(.*?\}}\) \S+: (\w+): .*\b{re.escape(principal)} for"
    return re.findall(pattern, realm.log.read_text())


def test_a_key_needs_no_demand_for_preauthentication(mit_realm: MitRealm, call: Call) -> None:
    by_key = mit_realm.addprinc(mit_realm.path("by-key").name, "pw", flags="+requires_preauth")
    by_password = mit_realm.addprinc(
        mit_realm.path("by-password").name, "pw", flags="+requires_preauth"
    )
    credential = Credential.from_keytab(by_key, Keytab.load(mit_realm.keytab(by_key)))
    assert call(mit_realm.config, "get_tgt", credential).flags & TicketFlags.PRE_AUTHENT
    call(mit_realm.config, "get_tgt", Credential.from_password(by_password, "pw"))
    assert requests(mit_realm, by_key) == ["ISSUE"]
    assert requests(mit_realm, by_password) == ["NEEDED_PREAUTH", "ISSUE"]


@pytest.mark.parametrize("flags", ["+requires_preauth", ""])
def test_a_key_that_the_account_has_not_gives_way_to_one_that_it_has(
    mit_realm: MitRealm, call: Call, flags: str
) -> None:
    principal = mit_realm.addprinc(mit_realm.path("aes128").name, "pw", etypes=[17], flags=flags)
    keytab = Keytab.from_password(principal, "pw")
    assert {entry.key.etype for entry in keytab} == {17, 18}
    tgt = call(mit_realm.config, "get_tgt", Credential.from_keytab(principal, keytab))
    assert bool(tgt.flags & TicketFlags.PRE_AUTHENT) == bool(flags)
    assert failures(mit_realm, principal) == (
        0 if flags else 1
    )  # MIT counts, and forgives who must prove himself


@pytest.mark.parametrize("flags", ["+requires_preauth", ""])
def test_a_stale_key_counts_once_against_the_account(
    mit_realm: MitRealm, call: Call, flags: str
) -> None:
    principal = mit_realm.addprinc(mit_realm.path("stale").name, "pw", flags=flags)
    stale = Credential.from_keytab(principal, Keytab.from_password(principal, "last year's"))
    for count in (1, 2):
        with pytest.raises(PreauthFailedError):
            call(mit_realm.config, "get_tgt", stale)
        assert failures(mit_realm, principal) == count
    call(
        mit_realm.config,
        "get_tgt",
        Credential.from_keytab(principal, Keytab.load(mit_realm.keytab(principal))),
    )
    assert failures(mit_realm, principal) == (0 if flags else 2)


@pytest.mark.parametrize("etype", ETYPES)
def test_every_encryption_type_works_for_client_tgt_and_service(
    mit_realm: MitRealm, call: Call, etype: int
) -> None:
    name = mit_realm.path("client").name
    mit_realm.addprinc(name, "secret", etypes=[etype], flags="+requires_preauth")
    config = replace(
        mit_realm.config,
        permitted_enctypes=[etype] if etype != 23 else [18, 23],
        default_tkt_enctypes=[etype],
        allow_rc4=etype == 23,
    )
    credential = Credential.from_password(f"{name}@MIT.TEST", "secret")
    assert call(config, "get_tgt", credential).session_key.etype == etype
    ticket = call(config, "get_ticket", credential, f"svc-{etype}/localhost")
    assert ticket.session_key.etype == etype
    assert Ticket.decode(ticket.ticket).enc_part.etype == etype
    assert opened(ticket, mit_realm.service_keytab).key == ticket.session_key


def test_rc4_is_not_used_unless_it_is_allowed(mit_realm: MitRealm, call: Call) -> None:
    credential = password("rc4user")
    with pytest.raises((KdcEtypeError, PolicyError)):
        call(replace(mit_realm.config, allow_rc4=False), "get_tgt", credential)
    assert call(mit_realm.config, "get_tgt", credential).is_tgt


def test_wrong_passwords_and_unknown_names_have_their_own_errors(
    mit_realm: MitRealm, call: Call
) -> None:
    config = mit_realm.config
    for name in ("user", "pre"):  # with and without pre-authentication
        with pytest.raises(PreauthFailedError, match="password"):
            call(config, "get_tgt", Credential.from_password(f"{name}@MIT.TEST", "wrong"))
    with pytest.raises(ClientUnknownError, match="nobody@MIT"):
        call(config, "get_tgt", Credential.from_password("nobody@MIT.TEST", "pw"))
    with pytest.raises(ServiceUnknownError, match="nothing/localhost"):
        call(config, "get_ticket", password("user"), "nothing/localhost")


def test_an_expired_password_and_a_locked_account_have_their_own_errors(
    mit_realm: MitRealm, call: Call
) -> None:
    expired = mit_realm.addprinc(
        mit_realm.path("expired").name, "pw", flags='-pwexpire "1 hour ago"'
    )
    locked = mit_realm.addprinc(mit_realm.path("locked").name, "pw", flags="-allow_tix")
    gone = mit_realm.addprinc(mit_realm.path("gone").name, "pw", flags='-expire "1 hour ago"')
    with pytest.raises(purekrb.PasswordExpiredError, match="change it"):
        call(mit_realm.config, "get_tgt", Credential.from_password(expired, "pw"))
    for name in (locked, gone):
        with pytest.raises(purekrb.ClientRevokedError):
            call(mit_realm.config, "get_tgt", Credential.from_password(name, "pw"))


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("target", "mapped"),
    [
        pytest.param("host/srv.sub.test@SUB.TEST", False, id="realm-named"),
        pytest.param("host/srv.sub.test", True, id="domain_realm"),
        pytest.param("host/srv.sub.test", False, id="referral"),
    ],
)
def test_a_service_of_the_other_realm_is_reached(
    mit_realm: MitRealm, call: Call, target: str, mapped: bool, transport: str
) -> None:
    config = served_over(mit_realm, transport)
    if not mapped:
        config = replace(config, domain_realm={})
    ticket = call(config, "get_ticket", password("pre"), target)
    assert str(ticket.service) == "host/srv.sub.test@SUB.TEST"
    part = opened(ticket, mit_realm.sub_service_keytab)
    assert str(part.cname.principal(part.crealm)) == "pre@MIT.TEST"


def test_a_kdc_that_is_down_beside_one_that_is_up_costs_a_second_at_most(
    mit_realm: MitRealm, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert transport.STAGGER < 1.0
    monkeypatch.setattr(
        transport, "STAGGER", 1.5
    )  # so that one pause can be told from two on a busy machine

    def mute(*_: object) -> None:
        mute_tcp.stopping.wait(30)

    with TcpStub(mute) as mute_tcp, UdpStub(lambda *_: None) as mute_udp:
        for down in (f"127.0.0.1:{closed_port()}", mute_tcp.url, mute_udp.url):
            config = Config(realms={"MIT.TEST": [down, f"127.0.0.1:{mit_realm.port}"]})
            started = time.monotonic()
            assert call(config, "get_tgt", password("user")).is_tgt
            assert time.monotonic() - started < 2 * 1.5


def test_a_reply_too_big_for_udp_comes_over_tcp(mit_realm: MitRealm, call: Call) -> None:
    """MIT's KDC sends datagrams of any size: the limit is one of a front that says RESPONSE_TOO_BIG to all."""

    def too_big(stub: UdpStub, data: bytes, client: Any) -> None:
        stub.socket.sendto(krb_error(ErrorCode.KRB_ERR_RESPONSE_TOO_BIG, realm="MIT.TEST"), client)

    def relay(stub: TcpStub, connection: Any) -> None:
        with socket.create_connection(("127.0.0.1", mit_realm.port)) as kdc:
            kdc.sendall(frame(read_frame(connection)))
            connection.sendall(frame(read_frame(kdc)))

    port = free_port()
    with UdpStub(too_big, port=port) as udp, TcpStub(relay, port=port) as tcp:
        assert call(
            Config(realms={"MIT.TEST": [f"127.0.0.1:{port}"]}), "get_tgt", password("pre")
        ).is_tgt
        assert (len(udp.received), tcp.accepted) == (2, 2)


def test_lifetimes_and_flags_are_what_was_asked_for(mit_realm: MitRealm, call: Call) -> None:
    credential = password("pre")
    tgt = call(
        mit_realm.config, "get_tgt", credential, lifetime=600, renewable=3600, forwardable=True
    )
    assert abs(tgt.endtime - now() - timedelta(minutes=10)) < timedelta(seconds=10)
    assert tgt.renew_till is not None
    assert abs(tgt.renew_till - now() - timedelta(hours=1)) < timedelta(seconds=10)
    assert tgt.flags & TicketFlags.FORWARDABLE
    assert tgt.caddr == ()
    renewed = call(mit_realm.config, "renew", credential)
    assert renewed.endtime >= tgt.endtime
    assert renewed.ticket != tgt.ticket
    forwarded = call(mit_realm.config, "forward_tgt", credential)
    assert forwarded.flags & TicketFlags.FORWARDED
    call(mit_realm.config, "get_tgt", credential, renewable=0)
    with pytest.raises(CredentialError, match="not renewable"):
        call(mit_realm.config, "renew", credential)


def test_tickets_of_mits_kinit_are_used(mit_realm: MitRealm, call: Call) -> None:
    credential = Credential.from_ccache(mit_realm.kinit("pre"))
    assert (
        call(mit_realm.config, "get_ticket", credential, "HTTP/localhost").client
        == credential.principal
    )


def test_our_tickets_are_used_by_mits_kvno(mit_realm: MitRealm, call: Call) -> None:
    credential = password("pre")
    call(mit_realm.config, "get_ticket", credential, "HTTP/localhost")
    path = mit_realm.path("ours")
    credential.save(path)
    assert "HTTP/localhost@MIT.TEST: kvno" in mit_realm.kvno(path, "HTTP/localhost@MIT.TEST")
    assert "gsvc/localhost@MIT.TEST: kvno" in mit_realm.kvno(path, "gsvc/localhost@MIT.TEST")


def test_verify_credentials_asks_mits_kdc_for_proof(mit_realm: MitRealm) -> None:
    config = mit_realm.config
    client = verify_credentials(
        password("pre"), mit_realm.service_keytab, service="host/localhost", config=config
    )
    assert str(client) == "pre@MIT.TEST"
    stale = mit_realm.path("stale.keytab")
    Keytab.from_password("host/localhost@MIT.TEST", "wrong", kvno=2).save(stale)
    with pytest.raises(purekrb.ApError):
        verify_credentials(password("pre"), stale, config=config)


def test_a_three_part_principal_is_found(mit_realm: MitRealm, call: Call) -> None:
    dn = "CN=SockAuthAD,CN=WEB1,OU=Domain Controllers,DC=mit,DC=test"
    host = mit_realm.path("web1.mit.test").name
    mit_realm.addprinc(f'"ADSockAuth/{host}/{dn}"')
    ticket = call(mit_realm.config, "get_ticket", password("pre"), f"ADSockAuth/{host}/{dn}")
    assert ticket.service.components == ("ADSockAuth", host, dn)
