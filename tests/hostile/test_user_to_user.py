"""User-to-user with wrong TGTs, other orders of tokens, and somebody between."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    Credential,
    CredentialError,
    DecodeError,
    Initiator,
    KdcError,
    KerberosError,
    Principal,
    ProtocolError,
    ReplayError,
    ServiceTicket,
    UnsupportedError,
)
from purekrb.constants import USER_TO_USER_OID, ErrorCode
from purekrb.exchanges.as_exchange import as_exchange
from purekrb.exchanges.runner import run
from purekrb.exchanges.tgs_exchange import tgs_exchange
from purekrb.exchanges.user_to_user import ticket_under
from purekrb.gss.framing import frame, unframe
from purekrb.gss.user_to_user import TOK_TGT_REP, TOK_TGT_REQ, UserToUserInitiator
from purekrb.messages.ap import Ticket
from purekrb.messages.kdc import TgsRep
from purekrb.messages.user2user import TgtReply, TgtRequest
from purekrb.names import PrincipalName
from purekrb.replay import MemoryReplayCache
from purekrb.system import now
from purekrb.testing import Realm
from support.kdc_path import Path
from support.values import replace

R = "EXAMPLE.TEST"
ALICE, BOB, MALLORY = (Principal((name,), R) for name in ("alice", "bob", "mallory"))
WEB = Principal(("HTTP", "web"), R)


@pytest.fixture(scope="module")
def realm() -> Realm:
    realm = Realm(R)
    for user in ("alice", "bob", "mallory"):
        realm.add_user(user, "pw")
    realm.add_service("HTTP/web")
    return realm


def logged_in(realm: Realm, who: Principal) -> Credential:
    credential = Credential.from_password(who, "pw")
    credential.ccache.store(run(as_exchange(credential), Path(realm)))
    return credential


def tgt_of(credential: Credential) -> ServiceTicket:
    (tgt,) = credential.ccache
    return tgt


@pytest.fixture
def bob(realm: Realm) -> Credential:
    return logged_in(realm, BOB)


@pytest.fixture
def alice(realm: Realm) -> Credential:
    return logged_in(realm, ALICE)


def asking(realm: Realm, alice: Credential, service: Principal = BOB) -> UserToUserInitiator:
    return UserToUserInitiator(
        service,
        lambda theirs: run(ticket_under(theirs, tgt_of(alice), service), Path(realm)),
    )


def acceptor_of(own: Credential, **options: Any) -> Acceptor:
    return Acceptor(**{"tgt": own, "replay_cache": MemoryReplayCache(), **options})


def test_control_the_context_is_made(realm: Realm, alice: Credential, bob: Credential) -> None:
    initiator, acceptor = asking(realm, alice), acceptor_of(bob)
    initiator.step(acceptor.step(initiator.step(acceptor.step(initiator.step()))))
    assert (acceptor.initiator, initiator.acceptor) == (ALICE, BOB)


# -- the acceptor


@pytest.mark.parametrize("owner", [BOB, MALLORY], ids=["K580-before", "K580-another"])
def test_a_ticket_under_another_tgt_does_not_open(
    realm: Realm, alice: Credential, bob: Credential, owner: Principal
) -> None:
    other = logged_in(realm, owner)  # bob's TGT from another log-in, or somebody else's
    ticket = run(ticket_under(tgt_of(other), tgt_of(alice), owner), Path(realm))
    for acceptor in (acceptor_of(bob), acceptor_of(bob, keytab=realm.keytab("HTTP/web"))):
        with pytest.raises(
            ApError, match="does not open with the session key of our TGT"
        ) as caught:
            acceptor.step(Initiator(ticket).step())
        assert caught.value.code == ErrorCode.KRB_AP_ERR_NOKEY
    acceptor_of(other).step(Initiator(ticket).step())


def test_k581_an_ap_req_before_the_tgt_was_asked_for_is_refused(
    realm: Realm, alice: Credential, bob: Credential
) -> None:
    ticket = run(ticket_under(tgt_of(bob), tgt_of(alice), BOB), Path(realm))
    _, ap_req = unframe(Initiator(ticket).step() or b"")
    with pytest.raises(ApError, match="did not ask for our TGT before") as caught:
        acceptor_of(bob).step(frame(b"\x01\x00", ap_req, USER_TO_USER_OID))
    assert caught.value.code == ErrorCode.KRB_AP_ERR_MSG_TYPE
    acceptor_of(bob).step(Initiator(ticket).step())  # by the other mechanism, it is good


def test_k582_a_ticket_of_the_other_kind_is_refused(
    realm: Realm, alice: Credential, bob: Credential
) -> None:
    """Neither is a ticket under our key taken for one under our TGT, nor in its place."""
    usual = run(tgs_exchange(tgt_of(alice), WEB), Path(realm))
    acceptor = acceptor_of(bob, keytab=realm.keytab("HTTP/web"))
    acceptor.step(asking(realm, alice).step())
    _, ap_req = unframe(Initiator(usual).step() or b"")
    with pytest.raises(ApError, match="came with another ticket than one under it") as caught:
        acceptor.step(frame(b"\x01\x00", ap_req, USER_TO_USER_OID))
    assert caught.value.code == ErrorCode.KRB_AP_ERR_USER_TO_USER_REQUIRED
    with pytest.raises(ApError) as claimed:
        acceptor_of(bob, keytab=realm.keytab("HTTP/web")).step(
            Initiator(replace(usual, is_skey=True)).step()
        )
    assert claimed.value.code == ErrorCode.KRB_AP_ERR_NOKEY
    acceptor_of(bob, keytab=realm.keytab("HTTP/web")).step(Initiator(usual).step())


def test_k583_an_authenticator_counts_once(
    realm: Realm, alice: Credential, bob: Credential
) -> None:
    cache = MemoryReplayCache()
    initiator, first = asking(realm, alice), acceptor_of(bob, replay_cache=cache)
    token = initiator.step(first.step(initiator.step()))
    first.step(token)
    second = acceptor_of(bob, replay_cache=cache)
    second.step(asking(realm, alice).step())
    with pytest.raises(ReplayError):
        second.step(token)


@pytest.mark.parametrize(
    ("late", "code"),
    [
        (timedelta(hours=1), ErrorCode.KRB_AP_ERR_SKEW),
        (timedelta(days=2), ErrorCode.KRB_AP_ERR_TKT_EXPIRED),
    ],
    ids=["K584-skew", "K584-expired"],
)
def test_the_other_checks_are_made_as_ever(
    realm: Realm, alice: Credential, bob: Credential, late: timedelta, code: ErrorCode
) -> None:
    ticket = run(ticket_under(tgt_of(bob), tgt_of(alice), BOB), Path(realm))

    def later() -> datetime:
        return now() + late

    with pytest.raises(ApError) as caught:
        acceptor_of(bob, clock=later).step(Initiator(ticket).step())
    # The TGT has ended by then, too: there is none to open the ticket with.
    assert caught.value.code in (code, ErrorCode.KRB_AP_ERR_NOKEY)
    acceptor_of(bob).step(Initiator(ticket).step())


@pytest.mark.parametrize(
    "asked",
    [
        PrincipalName(("mallory",)),
        PrincipalName(("HTTP", "web")),
        PrincipalName(("bob", "admin")),
        PrincipalName(("krbtgt", R)),
    ],
    ids=lambda name: f"K585-{'-'.join(name.components)}",
)
def test_a_request_for_another_service_gets_no_tgt(bob: Credential, asked: PrincipalName) -> None:
    for realm, refused in ((R, True), (None, True)):
        token = frame(TOK_TGT_REQ, TgtRequest(asked, realm).encode(), USER_TO_USER_OID)
        with pytest.raises(ApError, match="the client asks for") as caught:
            acceptor_of(bob).step(token)
        assert (caught.value.code == ErrorCode.KRB_AP_ERR_NOT_US) is refused
        assert caught.value.response is not None
    for good in (PrincipalName(("bob",)), PrincipalName(("BOB",)), None):
        token = frame(TOK_TGT_REQ, TgtRequest(good, R).encode(), USER_TO_USER_OID)
        assert acceptor_of(bob).step(token) is not None


def test_k586_an_acceptor_that_was_not_given_its_tgt_has_no_such_mechanism(
    realm: Realm, alice: Credential
) -> None:
    with pytest.raises(UnsupportedError, match=r"user-to-user.*give the acceptor tgt="):
        Acceptor(realm.keytab("HTTP/web")).step(asking(realm, alice).step())


# -- the initiator


def answer(ticket: bytes) -> bytes:
    return frame(TOK_TGT_REP, TgtReply(ticket).encode(), USER_TO_USER_OID)


def test_k587_the_tgt_of_another_gets_no_ticket(
    realm: Realm, alice: Credential, bob: Credential
) -> None:
    """Whoever answers in the service's place has a TGT of its own: the KDC knows whose it is."""
    mallory = logged_in(realm, MALLORY)
    initiator = asking(realm, alice)
    initiator.step()
    with pytest.raises(KdcError, match="belongs to another account") as caught:
        initiator.step(answer(tgt_of(mallory).ticket))
    assert caught.value.code == ErrorCode.KDC_ERR_SERVER_NOMATCH
    assert not initiator.established
    other = asking(realm, alice)
    other.step()
    other.step(answer(tgt_of(bob).ticket))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda tgt, web: answer(web), CredentialError),
        (lambda tgt, web: answer(tgt)[:-1], DecodeError),
        (lambda tgt, web: frame(TOK_TGT_REP, b"", USER_TO_USER_OID), DecodeError),
        (
            lambda tgt, web: frame(TOK_TGT_REQ, TgtReply(tgt).encode(), USER_TO_USER_OID),
            DecodeError,
        ),
        (lambda tgt, web: frame(b"\x02\x00", b"", USER_TO_USER_OID), DecodeError),
        (lambda tgt, web: frame(TOK_TGT_REP, TgtReply(tgt).encode()), UnsupportedError),
        (lambda tgt, web: b"", DecodeError),
    ],
    ids=[
        f"K587-{n}" for n in ("no-tgt", "cut", "empty", "request", "ap-rep", "kerberos", "nothing")
    ],
)
def test_what_is_no_tgt_gets_no_ticket(
    realm: Realm,
    alice: Credential,
    bob: Credential,
    make: Callable[[bytes, bytes], bytes],
    error: type[KerberosError],
) -> None:
    usual = run(tgs_exchange(tgt_of(alice), WEB), Path(realm))
    initiator = asking(realm, alice)
    initiator.step()
    with pytest.raises(KerberosError) as caught:
        initiator.step(make(tgt_of(bob).ticket, usual.ticket))
    if error is not DecodeError:
        assert isinstance(caught.value, error)
    assert not initiator.established


@pytest.mark.parametrize("what", ["K588-etype", "K588-service", "K588-usual"])
def test_a_reply_that_is_no_ticket_under_the_tgt_is_refused(
    realm: Realm, alice: Credential, bob: Credential, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tgt_of(bob)

    def changed(data: bytes) -> bytes:
        reply = TgsRep.decode(data)
        ticket = Ticket.decode(reply.ticket)
        if what == "K588-etype":
            ticket = replace(ticket, enc_part=replace(ticket.enc_part, etype=17))
        elif what == "K588-service":
            ticket = replace(ticket, sname=MALLORY.name)
        return replace(reply, ticket=ticket.encode()).encode()

    if what == "K588-usual":  # a KDC that does not know the option: the acceptor opens it not
        monkeypatch.setattr(realm._kdc, "_session_key_of", lambda service, body: None)
        ticket = run(ticket_under(theirs, tgt_of(alice), BOB), Path(realm))
        with pytest.raises(ApError) as caught:
            acceptor_of(bob).step(Initiator(ticket).step())
        assert caught.value.code == ErrorCode.KRB_AP_ERR_NOKEY
        return
    with pytest.raises(ProtocolError):
        run(ticket_under(theirs, tgt_of(alice), BOB), Path(realm, down=changed))
    assert run(ticket_under(theirs, tgt_of(alice), BOB), Path(realm)).is_skey


@pytest.mark.parametrize("leg", range(4), ids=lambda leg: f"K589-token-{leg}")
def test_no_flipped_bit_in_a_token_makes_another_context(
    realm: Realm, alice: Credential, bob: Credential, leg: int
) -> None:
    def attempt(at: int | None) -> tuple[Principal, Principal] | None:
        initiator, acceptor = asking(realm, alice), acceptor_of(bob)
        token: bytes | None = initiator.step()
        for number in range(4):
            if token is None:
                return None
            if number == leg and at is not None:
                place = at % len(token)
                token = token[:place] + bytes([token[place] ^ (1 << at % 8)]) + token[place + 1 :]
            token = (acceptor if number % 2 == 0 else initiator).step(token)
        return (acceptor.initiator, initiator.acceptor) if initiator.established else None

    assert attempt(None) == (ALICE, BOB)
    for at in range(0, 600, 11):
        try:
            found = attempt(at)
        except KerberosError:
            continue
        assert found in (None, (ALICE, BOB))
