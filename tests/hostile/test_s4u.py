"""S4U with somebody on the path, and with KDCs that say other than they should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from purekrb import (
    Acceptor,
    ApError,
    Credential,
    CredentialError,
    DelegationRefusedError,
    Initiator,
    IntegrityError,
    KdcError,
    KerberosError,
    PolicyError,
    Principal,
    ProtocolError,
)
from purekrb.constants import ErrorCode, KeyUsage, NameType, PaDataType
from purekrb.credentials.ticket import ServiceTicket
from purekrb.exchanges.as_exchange import AsOptions, as_exchange
from purekrb.exchanges.runner import run
from purekrb.exchanges.s4u import delegated_ticket, impersonate, realm_of_user
from purekrb.exchanges.tgs_exchange import tgs_exchange
from purekrb.messages.kdc import PaData, TgsRep, TgsReq
from purekrb.messages.s4u import PaForUser, PaS4uX509User, S4uUserId
from purekrb.names import PrincipalName
from purekrb.replay import MemoryReplayCache
from purekrb.testing import Realm
from support.kdc_path import Mangle, Path
from support.values import replace

R = "EXAMPLE.TEST"
FRONT, BACK = Principal(("HTTP", "front"), R), Principal(("HTTP", "back"), R)
ALICE, MALLORY = Principal(("alice",), R), Principal(("mallory",), R)


@pytest.fixture(scope="module")
def realm() -> Realm:
    realm = Realm(R)
    for user in ("alice", "mallory"):
        realm.add_user(user, "pw")
    realm.add_service("HTTP/front", delegate_to=["HTTP/back"], trusted_to_auth=True)
    realm.add_service("HTTP/back")
    return realm


@pytest.fixture(scope="module")
def tgt(realm: Realm) -> ServiceTicket:
    own = Credential.from_keytab(FRONT, realm.keytab("HTTP/front"))
    return run(as_exchange(own, AsOptions(forwardable=True)), Path(realm))


@pytest.fixture(scope="module")
def evidence(realm: Realm, tgt: ServiceTicket) -> ServiceTicket:
    return run(impersonate(tgt, ALICE), Path(realm))


def reply(change: Callable[[TgsRep], TgsRep]) -> Mangle:
    """Change each TGS-REP on its way to the client."""
    return lambda data: change(TgsRep.decode(data)).encode() if data[:1] == b"\x6d" else data


def request(change: Callable[[PaData], tuple[PaData, ...]]) -> Mangle:
    """Change the padata of each TGS-REQ on its way to the KDC."""

    def changed(data: bytes) -> bytes:
        message = TgsReq.decode(data)
        padata = tuple(new for old in message.padata or () for new in change(old))
        return TgsReq(padata, message.req_body).encode()

    return changed


def answered(change: Callable[[S4uUserId], S4uUserId]) -> Mangle:
    """Change the user-id of the KDC's PA-S4U-X509-USER."""

    def changed(message: TgsRep) -> TgsRep:
        padata = []
        for entry in message.padata or ():
            answer = PaS4uX509User.decode(entry.padata_value)
            user_id = change(S4uUserId.decode(answer.user_id)).encode()
            padata.append(replace(entry, padata_value=replace(answer, user_id=user_id).encode()))
        return replace(message, padata=tuple(padata))

    return reply(changed)


def test_control_the_service_gets_tickets_of_the_user(
    realm: Realm, tgt: ServiceTicket, evidence: ServiceTicket
) -> None:
    for mangle in (reply(lambda message: message), answered(lambda user_id: user_id)):
        path = Path(realm, up=request(lambda entry: (entry,)), down=mangle)
        assert run(impersonate(tgt, ALICE), path).client == ALICE
        assert len(path.seen) == 1
    path = Path(realm)
    assert run(delegated_ticket(tgt, BACK, evidence), path).client == ALICE


# -- S4U2Self


def test_k570_a_ticket_of_the_service_itself_is_not_taken_for_the_users(
    realm: Realm, tgt: ServiceTicket
) -> None:
    """Nothing protects the padata beside PA-TGS-REQ: whoever is on the path can take them away."""
    bare = request(lambda entry: (entry,) if entry.padata_type == PaDataType.TGS_REQ else ())
    path = Path(realm, up=bare)
    with pytest.raises(ProtocolError, match="for the service itself, not for the user"):
        run(impersonate(tgt, ALICE), path)
    assert len(path.seen) == 2


def test_k570_a_ticket_of_the_service_that_was_renamed_serves_for_nothing(
    realm: Realm, tgt: ServiceTicket
) -> None:
    """The name beside a reply is not protected without FAST, but that in the ticket is."""
    bare = request(lambda entry: (entry,) if entry.padata_type == PaDataType.TGS_REQ else ())
    renamed = reply(lambda message: replace(message, cname=ALICE.name, crealm=R))
    ticket = run(impersonate(tgt, ALICE), Path(realm, up=bare, down=renamed))
    keytab = realm.keytab("HTTP/front")
    with pytest.raises(ApError, match="name different clients"):
        Acceptor(keytab, replay_cache=MemoryReplayCache()).step(Initiator(ticket).step())
    onward = run(delegated_ticket(tgt, BACK, ticket), Path(realm, down=renamed))
    with pytest.raises(ApError, match="name different clients"):
        Acceptor(realm.keytab("HTTP/back"), replay_cache=MemoryReplayCache()).step(
            Initiator(onward).step()
        )
    genuine = run(impersonate(tgt, ALICE), Path(realm))
    Acceptor(keytab, replay_cache=MemoryReplayCache()).step(Initiator(genuine).step())


@pytest.mark.parametrize(
    "change",
    [{"cname": MALLORY.name}, {"crealm": "EVIL.TEST"}, {"cname": PrincipalName(("Alice", "x"))}],
    ids=["K571-name", "K571-realm", "K571-longer-name"],
)
def test_a_reply_in_another_name_is_refused(
    realm: Realm, tgt: ServiceTicket, evidence: ServiceTicket, change: dict[str, Any]
) -> None:
    path = Path(realm, down=reply(lambda message: replace(message, **change)))
    with pytest.raises(ProtocolError, match="neither for the user nor"):
        run(impersonate(tgt, ALICE), path)
    with pytest.raises(ProtocolError, match="not for the client of the evidence"):
        run(delegated_ticket(tgt, BACK, evidence), path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"nonce": 7}, IntegrityError),
        ({"cname": MALLORY.name}, IntegrityError),
        ({"options": None}, IntegrityError),
    ],
    ids=["K572-nonce", "K572-name", "K572-usage"],
)
def test_an_answer_to_the_padata_that_was_changed_is_refused(
    realm: Realm, tgt: ServiceTicket, change: dict[str, Any], error: type[KerberosError]
) -> None:
    path = Path(realm, down=answered(lambda user_id: replace(user_id, **change)))
    with pytest.raises(error):
        run(impersonate(tgt, ALICE), path)


def test_k573_a_kdc_that_answers_for_another_request_or_user_is_refused(
    realm: Realm, tgt: ServiceTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from purekrb import crypto
    from purekrb.messages.ap import Checksum
    from purekrb.testing.kdc_s4u import S4uRequest

    genuine = S4uRequest._x509_user
    for change in ({"nonce": 7}, {"cname": MALLORY.name}, {"cname": None}):

        def answer(self: Any, asked: Any, change: dict[str, Any] = change) -> Any:
            name, crealm, certificate, _ = genuine(self, asked)
            user_id = replace(S4uUserId.decode(asked.user_id), **change).encode()
            key = self.authenticator.subkey
            mac = crypto.checksum(key, KeyUsage.PA_S4U_X509_USER_REPLY, user_id)
            kind = crypto.profile_of(key.etype).checksum_type
            padata = PaS4uX509User(user_id, Checksum(kind, mac)).encode()
            return name, crealm, certificate, PaData(PaDataType.S4U_X509_USER, padata)

        with monkeypatch.context() as patch:
            patch.setattr(S4uRequest, "_x509_user", answer)
            with pytest.raises(ProtocolError, match="answers another request, or names another"):
                run(impersonate(tgt, ALICE), Path(realm))


def test_k574_the_user_in_the_request_cannot_be_exchanged(
    realm: Realm, tgt: ServiceTicket, evidence: ServiceTicket
) -> None:
    def exchanged(entry: PaData) -> tuple[PaData, ...]:
        if entry.padata_type == PaDataType.S4U_X509_USER:
            asked = PaS4uX509User.decode(entry.padata_value)
            user_id = replace(S4uUserId.decode(asked.user_id), cname=MALLORY.name).encode()
            return (replace(entry, padata_value=replace(asked, user_id=user_id).encode()),)
        if entry.padata_type == PaDataType.FOR_USER:
            old = replace(PaForUser.decode(entry.padata_value), user_name=MALLORY.name)
            return (replace(entry, padata_value=old.encode()),)
        return (entry,)

    for known in (PaDataType.S4U_X509_USER, PaDataType.FOR_USER):
        realm._kdc.s4u_padata, before = frozenset((known,)), realm._kdc.s4u_padata
        try:
            with pytest.raises(KdcError) as caught:
                run(impersonate(tgt, ALICE), Path(realm, up=request(exchanged)))
            assert caught.value.code == ErrorCode.KRB_AP_ERR_MODIFIED
        finally:
            realm._kdc.s4u_padata = before


@pytest.mark.parametrize("what", ["K575-self", "K575-proxy"])
def test_no_flipped_bit_in_a_reply_gives_another_ticket(
    realm: Realm, tgt: ServiceTicket, evidence: ServiceTicket, what: str
) -> None:
    def ask(path: Path) -> ServiceTicket:
        if what == "K575-self":
            return run(impersonate(tgt, ALICE), path)
        return run(delegated_ticket(tgt, BACK, evidence), path)

    first, tried = ask(Path(realm)), 0
    for at in range(0, 900, 3):

        def flip(data: bytes, at: int = at) -> bytes:
            return data[:at] + bytes([data[at % len(data)] ^ (1 << at % 8)]) + data[at + 1 :]

        tried += 1
        try:
            ticket = ask(Path(realm, down=flip))
        except KerberosError:
            continue
        # A KDC may spell the name otherwise, and the name outside of the ticket is not protected.
        assert str(ticket.client).lower() == str(first.client).lower()
        assert ticket.service == first.service
    assert tried == 300


@pytest.mark.parametrize("name", ["bob@evil.test", "bob@example.test"], ids=lambda n: f"K576-{n}")
def test_the_realm_of_a_user_is_not_taken_from_anybody(realm: Realm, name: str) -> None:
    """Anyone can forge the referral of an AS-REQ without a proof."""
    from purekrb.messages.ap import KrbError

    def forged(data: bytes) -> bytes:
        error = KrbError.decode(data)
        return replace(error, error_code=ErrorCode.KDC_ERR_WRONG_REALM, crealm="EVIL.TEST").encode()

    user = Principal((name,), "", NameType.ENTERPRISE)
    path = Path(realm, down=forged)
    with pytest.raises(PolicyError, match=r"EVIL\.TEST, which is not a realm"):
        run(realm_of_user(user, R, referral_realms=(R,)), path)
    assert len(path.seen) == 1
    with pytest.raises(ProtocolError, match="in a circle"):  # nor is it followed for ever
        run(realm_of_user(user, R, referral_realms=(R, "EVIL.TEST")), Path(realm, down=forged))


# -- S4U2Proxy


def test_k577_the_services_own_ticket_is_no_evidence_for_a_user(
    realm: Realm, tgt: ServiceTicket, evidence: ServiceTicket
) -> None:
    """A KDC that does not know the option answers in the name of the TGT's client."""
    own = run(tgs_exchange(tgt, BACK), Path(realm))
    answer = Path(realm, down=reply(lambda message: replace(message, cname=own.client.name)))
    with pytest.raises(ProtocolError, match="not for the client of the evidence"):
        run(delegated_ticket(tgt, BACK, evidence), answer)


def test_k578_evidence_that_cannot_be_is_refused_before_it_is_sent(
    realm: Realm, tgt: ServiceTicket, evidence: ServiceTicket
) -> None:
    path = Path(realm)
    for bad, error in (
        (tgt, CredentialError),
        (replace(evidence, is_skey=True), CredentialError),
        (replace(evidence, flags=0, by_s4u2self=False), DelegationRefusedError),
    ):
        with pytest.raises(error):
            run(delegated_ticket(tgt, BACK, bad), path)
    assert path.seen == []
    assert run(delegated_ticket(tgt, BACK, evidence), path).client == ALICE


def test_k579_another_services_ticket_is_no_evidence(
    realm: Realm, tgt: ServiceTicket, evidence: ServiceTicket
) -> None:
    alice = Credential.from_password(ALICE, "pw")
    theirs = run(as_exchange(alice, AsOptions(forwardable=True)), Path(realm))
    for_back = run(tgs_exchange(theirs, BACK), Path(realm))
    with pytest.raises(DelegationRefusedError):
        run(delegated_ticket(tgt, BACK, for_back), Path(realm))
    torn = replace(evidence, ticket=evidence.ticket[:-1] + bytes([evidence.ticket[-1] ^ 1]))
    with pytest.raises(KdcError) as caught:
        run(delegated_ticket(tgt, BACK, torn), Path(realm))
    assert caught.value.code == ErrorCode.KRB_AP_ERR_MODIFIED
    for_front = run(tgs_exchange(theirs, FRONT), Path(realm))
    assert run(delegated_ticket(tgt, BACK, for_front), Path(realm)).client == ALICE
