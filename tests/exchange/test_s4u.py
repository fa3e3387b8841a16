"""S4U2Self and S4U2Proxy with the embedded KDC, blocking and asyncio; and the acceptor that acts for its client."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from purekrb import (
    Acceptor,
    CCache,
    CertificateError,
    ClientUnknownError,
    Credential,
    CredentialError,
    DelegationRefusedError,
    Initiator,
    KdcClient,
    PolicyError,
    Principal,
    ProtocolError,
    initiate,
)
from purekrb.constants import NameType, PaDataType, TicketFlags
from purekrb.kdc.client import AsyncKdcClient
from purekrb.messages.ap import KrbError
from purekrb.messages.kdc import AsReq, PaData, TgsReq
from purekrb.replay import MemoryReplayCache
from purekrb.system import now
from purekrb.testing import Realm
from support.pki import authority
from support.values import replace

FRONT, BACK, OTHER, RBCD = (
    f"HTTP/{host}.example.test" for host in ("front", "back", "other", "rbcd")
)
ALICE = Principal(("alice",), "EXAMPLE.TEST")
Call = Callable[..., Any]
KEY = bytes(32)


@pytest.fixture
def realm() -> Iterator[Realm]:
    with Realm("EXAMPLE.TEST", domain_sid="S-1-5-21-1-2-3") as realm:
        realm.add_user("alice", "pw")
        realm.add_user("boss", "pw", not_delegated=True)
        realm.add_service(FRONT, delegate_to=[BACK], trusted_to_auth=True)
        realm.add_service(OTHER)
        realm.add_service(BACK)
        realm.add_service(RBCD, delegate_from=[FRONT, OTHER])
        yield realm


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest, realm: Realm) -> Call:
    """call(method, *arguments, ...) with a client of either kind."""

    def call(method: str, *args: Any, **options: Any) -> Any:
        if request.param == "blocking":
            return getattr(KdcClient(realm.config), method)(*args, **options)
        return asyncio.run(getattr(AsyncKdcClient(realm.config), method)(*args, **options))

    return call


@pytest.fixture
def seen(realm: Realm) -> list[AsReq | TgsReq]:
    """The requests that reach the KDC."""
    found: list[AsReq | TgsReq] = []
    handle = realm._kdc.handle

    def listening(request: bytes) -> bytes:
        found.append((AsReq if request[:1] == b"\x6a" else TgsReq).decode(request))
        return handle(request)

    realm._kdc.handle = listening  # type: ignore[method-assign]
    return found


def service(realm: Realm, name: str = FRONT) -> Credential:
    return Credential.from_keytab(f"{name}@EXAMPLE.TEST", realm.keytab(name))


def kinds(request: AsReq | TgsReq) -> list[int]:
    return [entry.padata_type for entry in request.padata or ()]


def accepted(realm: Realm, token: bytes | None, name: str, **options: Any) -> Acceptor:
    acceptor = Acceptor(realm.keytab(name), replay_cache=MemoryReplayCache(), **options)
    acceptor.step(token)
    return acceptor


# -- S4U2Self


def test_a_service_gets_a_ticket_of_a_user_who_is_not_there(
    realm: Realm, call: Call, seen: list[AsReq | TgsReq]
) -> None:
    own = service(realm)
    ticket = call("impersonate", own, "alice")
    assert (ticket.client, ticket.service) == (ALICE, own.principal)
    assert ticket.flags & TicketFlags.FORWARDABLE
    assert ticket.by_s4u2self
    assert [found.is_tgt for found in own.ccache] == [True]  # the service's cache is its own
    assert kinds(seen[-1]) == [PaDataType.TGS_REQ, PaDataType.S4U_X509_USER]
    acceptor = accepted(realm, Initiator(ticket).step(), FRONT)
    assert acceptor.initiator == ALICE
    assert acceptor.identity.name == "alice"


@pytest.mark.parametrize("known", [{PaDataType.FOR_USER}, set()], ids=["old", "none"])
def test_the_old_padata_follow_for_a_kdc_that_knows_no_other(
    realm: Realm, call: Call, seen: list[AsReq | TgsReq], known: set[PaDataType]
) -> None:
    realm._kdc.s4u_padata = frozenset(known)
    if not known:
        with pytest.raises(ProtocolError, match=r"has no S4U2Self: its ticket is for the service"):
            call("impersonate", service(realm), "alice")
        with pytest.raises(
            ProtocolError, match=r"no S4U2Self by certificates: .*owner of the cert"
        ):
            call("impersonate", service(realm), None, certificate=authority().der)
        return
    assert call("impersonate", service(realm), "alice").client == ALICE
    assert [kinds(request)[1:] for request in seen[-2:]] == [[130], [130, 129]]


def test_a_client_remembers_a_kdc_that_knows_the_old_padata_alone(
    realm: Realm, seen: list[AsReq | TgsReq]
) -> None:
    realm._kdc.s4u_padata = frozenset({PaDataType.FOR_USER})
    client, own = KdcClient(realm.config), service(realm)
    for _ in range(2):
        assert client.impersonate(own, "alice").client == ALICE
    assert [kinds(request)[1:] for request in seen[1:]][-3:] == [[130], [130, 129], [130, 129]]


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        (13, None, "the KDC has not been told to allow it"),
        (13, 0xC000006E, "a restriction of the account of alice.*sensitive"),
        (12, 0xC000006E, "a restriction of the account of alice"),
        (27, None, "takes user-to-user tickets only"),
        (7, 0xC0000408, "takes user-to-user tickets only"),
    ],
)
def test_a_refusal_is_told_in_words(realm: Realm, code: int, status: int | None, text: str) -> None:
    client, own = KdcClient(realm.config), service(realm)
    evidence, genuine = client.impersonate(own, "alice"), realm._kdc.handle

    def refusing(request: bytes) -> bytes:
        error = KrbError.decode(genuine(request))
        data = b"" if status is None else PaData(3, struct.pack("<III", status, 0, 1)).encode()
        return replace(error, error_code=code, e_data=data or None).encode()

    realm._kdc.handle = refusing  # type: ignore[method-assign]
    with pytest.raises(DelegationRefusedError, match=text) as caught:
        client.get_ticket(own, OTHER, on_behalf_of=evidence)
    assert caught.value.code == code
    assert caught.value.krb_error is not None


def test_a_ticket_by_s4u2self_for_another_service_is_refused_in_words(realm: Realm) -> None:
    client, own = KdcClient(realm.config), service(realm)
    genuine = realm._kdc.handle

    def as_mits(request: bytes) -> bytes:  # which answers so if the service is not the client
        reply = genuine(request)
        if request[0] != 0x6C:  # a TGS-REQ
            return reply
        return replace(KrbError.decode(reply), error_code=36, e_data=None).encode()

    realm._kdc.handle = as_mits  # type: ignore[method-assign]
    with pytest.raises(DelegationRefusedError, match=r"are for the service itself.*S4U2Proxy"):
        client.impersonate(own, "alice", service=OTHER)
    realm._kdc.handle = genuine  # type: ignore[method-assign]
    assert client.impersonate(own, "alice").client == ALICE


def test_all_of_it_goes_in_fast(realm: Realm, seen: list[AsReq | TgsReq]) -> None:
    realm.add_user("host", "pw")
    armor = Credential.from_password("host@EXAMPLE.TEST", "pw")
    client, own = KdcClient(realm.config, armor=armor), service(realm)
    evidence = client.impersonate(own, "alice")
    assert client.get_ticket(own, BACK, on_behalf_of=evidence).client == ALICE
    theirs = client.get_tgt(Credential.from_password("alice@EXAMPLE.TEST", "pw"))
    assert client.get_ticket(own, "alice", user_to_user=theirs).is_skey
    asked = [request for request in seen if isinstance(request, TgsReq)]
    assert [kinds(request) for request in asked] == [[PaDataType.TGS_REQ, PaDataType.FX_FAST]] * 3
    with pytest.raises(DelegationRefusedError, match="has not been told"):
        client.get_ticket(own, OTHER, on_behalf_of=evidence)


def test_a_service_that_is_not_trusted_gets_a_ticket_that_is_not_forwardable(
    realm: Realm, call: Call
) -> None:
    ticket = call("impersonate", service(realm, OTHER), ALICE)
    assert ticket.client == ALICE
    assert not ticket.flags & TicketFlags.FORWARDABLE


def test_a_user_who_does_not_exist_is_named(realm: Realm, call: Call) -> None:
    with pytest.raises(ClientUnknownError, match=r"nobody@EXAMPLE\.TEST -> HTTP/front"):
        call("impersonate", service(realm), "nobody")
    assert call("impersonate", service(realm), "alice").client == ALICE


def test_a_service_does_not_get_tickets_for_another(realm: Realm, call: Call) -> None:
    with pytest.raises(
        DelegationRefusedError, match=r"does not let HTTP/front.* in the name of alice"
    ):
        call("impersonate", service(realm), "alice", service=BACK)
    assert call("impersonate", service(realm), "alice", service=FRONT).client == ALICE


def test_a_service_asks_by_another_of_its_names(realm: Realm, call: Call) -> None:
    realm.add_alias("HTTP/www.example.test", FRONT)
    ticket = call("impersonate", service(realm), "alice", service="HTTP/www.example.test")
    assert ticket.client == ALICE


def client_certificate() -> bytes:
    """Return a certificate in PEM, with a text before it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now(), now() + timedelta(days=1)
    )
    return b"Subject: alice\n" + made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_certificate_names_the_user(realm: Realm, call: Call) -> None:
    pem, other = client_certificate(), client_certificate()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    realm._kdc.certificates[der] = ALICE.name
    for user, certificate in ((None, der), ("alice", pem)):
        ticket = call("impersonate", service(realm), user, certificate=certificate)
        assert ticket.client == ALICE
    with pytest.raises(ProtocolError, match="neither for the user"):  # the name says otherwise
        call("impersonate", service(realm), "boss", certificate=der)
    with pytest.raises(ClientUnknownError):
        call("impersonate", service(realm), None, certificate=other)
    with pytest.raises(CertificateError):
        call("impersonate", service(realm), None, certificate=b"no certificate")
    with pytest.raises(TypeError, match="name the user"):
        call("impersonate", service(realm), None)


def enterprise(text: str) -> Principal:
    return Principal((text,), "", NameType.ENTERPRISE)


@pytest.fixture
def far(realm: Realm) -> Iterator[Realm]:
    """A realm of which a user comes; that of the service lies behind another one."""
    with Realm("FAR.TEST") as far, Realm("HALF.WAY") as between:
        far.add_user("bob", "pw")
        far.trust(between)
        between.trust(realm)
        yield far


def test_a_user_of_another_realm_is_found_along_the_referrals(
    realm: Realm, far: Realm, call: Call
) -> None:
    own = service(realm)
    ticket = call("impersonate", own, "bob@FAR.TEST")
    assert (ticket.client, ticket.service) == (Principal(("bob",), "FAR.TEST"), own.principal)
    assert accepted(realm, Initiator(ticket).step(), FRONT).initiator == ticket.client
    with pytest.raises(ClientUnknownError, match=r"nobody@FAR\.TEST"):
        call("impersonate", own, "nobody@FAR.TEST")


def test_an_enterprise_name_is_looked_up(
    realm: Realm, call: Call, seen: list[AsReq | TgsReq]
) -> None:
    ticket = call("impersonate", service(realm), enterprise("alice@example.test"))
    assert ticket.client == ALICE
    asked = [request for request in seen if isinstance(request, AsReq)][-1]  # after our own TGT
    assert (asked.req_body.cname, kinds(asked)) == (enterprise("alice@example.test").name, [])
    with pytest.raises(ClientUnknownError):
        call("impersonate", service(realm), enterprise("nobody@example.test"))


def test_an_enterprise_name_of_another_realm_is_found(realm: Realm, call: Call) -> None:
    with Realm("NEXT.TEST") as next_realm:
        next_realm.add_user("carol", "pw")
        next_realm.trust(realm)
        ticket = call("impersonate", service(realm), enterprise("carol@next.test"))
        assert ticket.client == Principal(("carol",), "NEXT.TEST")


def test_a_referral_to_a_realm_that_is_not_configured_is_not_followed(
    realm: Realm, far: Realm
) -> None:
    import dataclasses

    realm._kdc.trusted["EVIL.TEST"] = far._kdc
    with pytest.raises(PolicyError, match=r"EVIL\.TEST, which is not a realm"):
        KdcClient(realm.config).impersonate(service(realm), enterprise("bob@evil.test"))
    believing = dataclasses.replace(realm.config, referral_realms=["EVIL.TEST"])
    with pytest.raises(Exception, match=r"EVIL\.TEST") as caught:  # now it is asked
        KdcClient(believing).impersonate(service(realm), enterprise("bob@evil.test"))
    assert not isinstance(caught.value, PolicyError)


# -- S4U2Proxy


def test_a_service_acts_for_a_user_where_it_may(realm: Realm, call: Call) -> None:
    own = service(realm)
    evidence = call("impersonate", own, "alice")
    for target in (BACK, RBCD):
        ticket = call("get_ticket", own, target, on_behalf_of=evidence)
        assert (ticket.client, str(ticket.service)) == (ALICE, f"{target}@EXAMPLE.TEST")
        assert accepted(realm, Initiator(ticket).step(), target).identity.name == "alice"
    assert [found.is_tgt for found in own.ccache] == [True]


def test_the_request_says_that_resources_may_grant_it(
    realm: Realm, call: Call, seen: list[AsReq | TgsReq]
) -> None:
    own = service(realm)
    call("get_ticket", own, RBCD, on_behalf_of=call("impersonate", own, "alice"))
    (options,) = [p.padata_value for p in seen[-1].padata or () if p.padata_type == 167]
    assert options.hex() == "3009a00703050010000000"


def test_a_service_that_may_not_act_there_is_told_which_right_is_missing(
    realm: Realm, call: Call
) -> None:
    own = service(realm)
    evidence = call("impersonate", own, "alice")
    with pytest.raises(DelegationRefusedError) as caught:
        call("get_ticket", own, OTHER, on_behalf_of=evidence)
    text = str(caught.value)
    assert caught.value.code == 13
    assert text.startswith(
        f"{FRONT}@EXAMPLE.TEST may not act for {ALICE} at {OTHER}@EXAMPLE.TEST: "
    )
    assert "msDS-AllowedToDelegateTo" in text
    assert "msDS-AllowedToActOnBehalfOfOtherIdentity" in text


def test_a_user_whom_nobody_may_act_for_is_told_of(realm: Realm, call: Call) -> None:
    own, client = service(realm), KdcClient(realm.config)
    boss = Credential.from_password("boss@EXAMPLE.TEST", "pw")
    client.get_tgt(boss, forwardable=True)
    evidence = client.get_ticket(boss, FRONT)
    with pytest.raises(
        DelegationRefusedError, match=r"restriction of the account of boss.*sensitive"
    ):
        call("get_ticket", own, BACK, on_behalf_of=evidence)


def test_a_ticket_that_is_not_forwardable_is_refused_before_anything_is_sent(
    realm: Realm, call: Call, seen: list[AsReq | TgsReq]
) -> None:
    client, alice = KdcClient(realm.config), Credential.from_password("alice@EXAMPLE.TEST", "pw")
    client.get_tgt(alice, forwardable=False)
    evidence = client.get_ticket(alice, FRONT)
    del seen[:]
    with pytest.raises(DelegationRefusedError, match="not forwardable") as caught:
        call("get_ticket", service(realm), BACK, on_behalf_of=evidence)
    assert seen == []
    assert caught.value.krb_error is None
    tgt = next(iter(alice.ccache))
    with pytest.raises(CredentialError, match="is no evidence"):
        call("get_ticket", service(realm), BACK, on_behalf_of=tgt)


def test_the_kdc_decides_about_a_ticket_by_s4u2self_that_is_not_forwardable(
    realm: Realm, call: Call
) -> None:
    own = service(realm, OTHER)
    evidence = call("impersonate", own, "alice")
    assert call("get_ticket", own, RBCD, on_behalf_of=evidence).client == ALICE
    with pytest.raises(
        DelegationRefusedError, match=r"not forwardable.*for-any-protocol"
    ) as caught:
        call("get_ticket", own, BACK, on_behalf_of=evidence)
    assert caught.value.krb_error is not None


def test_delegation_crosses_realms_by_the_resource(realm: Realm, far: Realm, call: Call) -> None:
    far.add_service("HTTP/far.example.test", delegate_from=[f"{FRONT}@EXAMPLE.TEST"])
    far.add_service("HTTP/closed.example.test")
    own = service(realm)
    evidence = call("impersonate", own, "alice")
    ticket = call("get_ticket", own, "HTTP/far.example.test", on_behalf_of=evidence)
    assert (ticket.client, ticket.service.realm) == (ALICE, "FAR.TEST")
    with pytest.raises(DelegationRefusedError, match=r"closed\.example\.test@FAR\.TEST"):
        call("get_ticket", own, "HTTP/closed.example.test", on_behalf_of=evidence)


# -- a credential in another's name


def test_a_credential_in_a_users_name_makes_contexts(realm: Realm) -> None:
    own = service(realm)
    acting = Credential.on_behalf_of(own, KdcClient(realm.config).impersonate(own, "alice"))
    assert acting.principal == ALICE
    assert "HTTP/front" in repr(acting)
    context = initiate(BACK, acting, realm.config)
    assert accepted(realm, context.step(), BACK).initiator == ALICE
    assert [str(t.service) for t in acting.ccache if t.service != own.principal] == [
        f"{BACK}@EXAMPLE.TEST"
    ]
    assert [t.client for t in own.ccache] == [own.principal]


def test_what_it_cannot_do_is_said(realm: Realm) -> None:
    client, own = KdcClient(realm.config), service(realm)
    acting = Credential.on_behalf_of(own, client.impersonate(own, "alice"))
    for method in (client.get_tgt, client.renew, client.forward_tgt):
        with pytest.raises(CredentialError, match=r"acts for alice.* by constrained delegation"):
            method(acting)
    acting.wipe()
    assert acting.impersonation is None


def test_its_saved_tickets_serve_again(realm: Realm, tmp_path: Path) -> None:
    client, own = KdcClient(realm.config), service(realm)
    acting = Credential.on_behalf_of(own, client.impersonate(own, "alice"))
    client.get_ticket(acting, BACK)
    path = tmp_path / "ccache"
    acting.save(path)
    saved = CCache.load(path)
    assert saved.get_config("proxy_impersonator") == f"{FRONT}@EXAMPLE.TEST".encode()
    assert saved.principal == ALICE
    again = Credential.from_ccache(path)
    assert client.get_ticket(again, BACK).client == ALICE
    assert client.get_ticket(again, RBCD).client == ALICE
    with pytest.raises(DelegationRefusedError):
        client.get_ticket(again, OTHER)


def test_the_default_credential_may_be_one_in_a_users_name(
    realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, own = KdcClient(realm.config), service(realm)
    Credential.on_behalf_of(own, client.impersonate(own, "alice")).save(tmp_path / "ccache")
    monkeypatch.setenv("KRB5CCNAME", str(tmp_path / "ccache"))
    context = initiate(BACK, config=realm.config)
    assert accepted(realm, context.step(), BACK).initiator == ALICE


# -- the acceptor's side


def client_ticket(realm: Realm, *, forwardable: bool = True, name: str = FRONT) -> Any:
    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    client = KdcClient(realm.config)
    client.get_tgt(alice, forwardable=forwardable)
    return client.get_ticket(alice, name)


@pytest.mark.parametrize("mechanism", ["kerberos", "negotiate"])
def test_an_acceptor_acts_for_its_client_with_the_clients_ticket(
    realm: Realm, mechanism: str
) -> None:
    own = service(realm)
    token = Initiator(client_ticket(realm), mechanism=mechanism).step()
    acceptor = accepted(realm, token, FRONT, tgt=own)
    acting = acceptor.delegated_credential
    assert acting is not None
    assert acting is acceptor.delegated_credential
    assert (acting.principal, len(own.ccache)) == (ALICE, 0)  # nothing was asked for yet
    acceptor.close()
    back = initiate(BACK, acting, realm.config)
    assert accepted(realm, back.step(), BACK).initiator == ALICE
    with pytest.raises(DelegationRefusedError, match=r"may not act for alice.* at HTTP/other"):
        initiate(OTHER, acting, realm.config)


def test_an_acceptor_says_that_its_clients_ticket_is_not_forwardable(
    realm: Realm, seen: list[AsReq | TgsReq]
) -> None:
    token = Initiator(client_ticket(realm, forwardable=False)).step()
    acting = accepted(realm, token, FRONT, tgt=service(realm)).delegated_credential
    assert acting is not None
    del seen[:]
    with pytest.raises(DelegationRefusedError, match=r"ticket for it is not forwardable.*kinit -f"):
        initiate(BACK, acting, realm.config)
    assert seen == []


def test_an_acceptor_without_its_own_credential_does_not_act(realm: Realm) -> None:
    ticket = client_ticket(realm)
    assert accepted(realm, Initiator(ticket).step(), FRONT).delegated_credential is None
    for options, acts in (({}, True), ({"accept_delegation": False}, False)):
        acceptor = accepted(realm, Initiator(ticket).step(), FRONT, tgt=service(realm), **options)
        assert (acceptor.delegated_credential is not None) is acts


def test_a_forwarded_tgt_comes_before_constrained_delegation(realm: Realm) -> None:
    alice = Credential.from_password("alice@EXAMPLE.TEST", "pw")
    context = initiate(FRONT, alice, realm.config, delegate="always")
    acceptor = accepted(realm, context.step(), FRONT, tgt=service(realm))
    assert acceptor.delegated_credential is not None
    assert acceptor.delegated_credential.impersonation is None
    assert [t.is_tgt for t in acceptor.delegated_credential.ccache] == [True]


def test_an_exported_context_goes_on_acting_while_the_services_tgt_lasts(realm: Realm) -> None:
    own = service(realm)
    KdcClient(realm.config).get_tgt(own, forwardable=True)
    acceptor = accepted(realm, Initiator(client_ticket(realm)).step(), FRONT, tgt=own)
    imported = Acceptor.import_context(acceptor.export_context(KEY), KEY)
    acting = imported.delegated_credential
    assert acting is not None
    assert KdcClient(realm.config).get_ticket(acting, BACK).client == ALICE


def test_the_key_of_a_service_is_in_no_error_of_its_delegation(realm: Realm) -> None:
    keytab = realm.keytab(FRONT)
    own = Credential.from_keytab(f"{FRONT}@EXAMPLE.TEST", keytab)
    acting = accepted(realm, Initiator(client_ticket(realm)).step(), FRONT, tgt=own)
    credential = acting.delegated_credential
    assert credential is not None
    secrets = [entry.key.contents.hex() for entry in keytab]
    with pytest.raises(DelegationRefusedError) as caught:
        initiate(OTHER, credential, realm.config)
    for text in (repr(credential), str(caught.value), repr(caught.value.__dict__)):
        assert not any(secret in text for secret in secrets)
