"""A mechanism of the tests' own in the client and the embedded KDC, from outside of both; and the choice of one."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from purekrb import Credential, KdcClient
from purekrb.constants import ErrorCode, PaDataType, TicketFlags
from purekrb.errors import KdcError, PolicyError, PreauthFailedError, UnsupportedError
from purekrb.exchanges.as_exchange import AsOptions, as_exchange
from purekrb.exchanges.preauth.choice import MECHANISMS
from purekrb.exchanges.preauth.client_keys import ClientKeys
from purekrb.exchanges.preauth.mechanism import Next, Strength
from purekrb.exchanges.runner import Exchange, KdcRequest, run
from purekrb.kdc.client import AsyncKdcClient
from purekrb.keys import EncryptionKey
from purekrb.messages.ap import KrbError
from purekrb.messages.kdc import AsRep, AsReq, KdcReqBody, MethodData, PaData
from purekrb.names import Principal
from purekrb.system import RandomBytes
from purekrb.testing import Realm
from purekrb.testing.kdc_accounts import RefusedError
from purekrb.testing.kdc_preauth import KDC_MECHANISMS, PreauthRequest
from support.values import replace

#: A private padata-type: negative numbers are free for local use. Source: RFC 4120 7.5.2, 1.5.2.
TOY = -1234
NONCE_SIZE = 8
SECRET = b"a secret apart from the password"
ALICE = Principal.parse("alice@TOY.TEST")


def answer_to(challenge: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, b"answer" + challenge, "sha256")


def reply_key(secret: bytes, request: bytes, etype: int) -> EncryptionKey:
    size = {17: 16, 18: 32, 19: 16, 20: 32}[etype]
    return EncryptionKey(etype, hmac.digest(secret, b"reply key" + request, "sha256")[:size])


class ToyProof:
    """Two steps: a nonce; then the answer to the challenge that comes with error 91, which is bound to the nonce."""

    def __init__(self, secret: bytes, nonce: bytes) -> None:
        self.secret = secret
        self.nonce = self.answer = nonce

    def __str__(self) -> str:
        return "the toy"

    def padata(self, body: KdcReqBody, time: datetime) -> Exchange[tuple[PaData, ...]]:
        yield from ()
        return (PaData(TOY, self.answer),)

    def asked(self, methods: tuple[PaData, ...], error: KrbError) -> Exchange[None]:
        challenge = next(m.padata_value for m in methods if m.padata_type == TOY)
        self.answer = answer_to(self.nonce + challenge, self.secret) if challenge else self.nonce
        yield from ()

    def refused(self, error: KrbError) -> Next:
        return Next.FAILURE

    def reply_key(self, reply: AsRep, request: bytes) -> Exchange[EncryptionKey]:
        yield from ()
        return reply_key(self.secret, request, reply.enc_part.etype)


@dataclass(frozen=True)
class Toy:
    """The client's side, for the clients in `secrets`."""

    secrets: dict[Principal, bytes] = field(default_factory=lambda: {ALICE: SECRET})
    type: int = TOY
    name: str = "TOY"
    awaited = True
    announced = False
    strength: Strength = Strength.STRONG

    def begin(self, keys: ClientKeys, random: RandomBytes, *, asked: bool) -> ToyProof | None:
        secret = self.secrets.get(keys.credential.principal)
        return ToyProof(secret, random(NONCE_SIZE)) if asked and secret is not None else None


@dataclass
class ToyAtKdc:
    """The KDC's side. Its cookie holds nonce and challenge; `long_term` makes it encrypt with the client's key."""

    secret: bytes = SECRET
    long_term: bool = False
    type: int = TOY

    def hint(self, request: PreauthRequest) -> bytes | None:
        return b"" if request.client.name == ALICE.name else None

    def verify(self, request: PreauthRequest, value: bytes) -> EncryptionKey | None:
        cookies = [
            p.padata_value
            for p in request.message.padata or ()
            if p.padata_type == PaDataType.FX_COOKIE
        ]
        if len(value) == NONCE_SIZE:
            challenge = hashlib.sha256(request.encoded).digest()
            more = MethodData(
                (PaData(PaDataType.FX_COOKIE, value + challenge), PaData(TOY, challenge))
            )
            code = ErrorCode.KDC_ERR_MORE_PREAUTH_DATA_REQUIRED
            raise RefusedError(code, "answer the challenge", e_data=more.encode())
        if not cookies or not hmac.compare_digest(value, answer_to(cookies[0], self.secret)):
            raise RefusedError(ErrorCode.KDC_ERR_PREAUTH_FAILED, "wrong answer")
        if self.long_term:
            return None
        return reply_key(self.secret, request.encoded, request.message.req_body.etype[0])


BOTH = (Toy(), *MECHANISMS)
AT_KDC = (ToyAtKdc(), *KDC_MECHANISMS)


class Wire:
    """Carries requests to `realm`, keeps them, and lets a test forge an answer: `forge` sees request and number."""

    def __init__(
        self, realm: Realm, forge: Callable[[AsReq, int], bytes | None] = lambda request, n: None
    ) -> None:
        self.realm = realm
        self.forge = forge
        self.seen: list[AsReq] = []
        self.answers: list[bytes] = []

    def __call__(self, request: KdcRequest) -> bytes:
        self.seen.append(AsReq.decode(request.message))
        answer = self.forge(self.seen[-1], len(self.seen)) or self.realm.handle(request.message)
        self.answers.append(answer)
        return answer

    @property
    def proofs(self) -> list[list[int]]:
        """The padata-types of each request that prove something."""
        kinds = (TOY, PaDataType.ENC_TIMESTAMP, PaDataType.FX_COOKIE)
        return [
            [p.padata_type for p in request.padata or () if p.padata_type in kinds]
            for request in self.seen
        ]


def realm_with(*mechanisms: Any) -> Realm:
    realm = Realm("TOY.TEST", preauth_mechanisms=mechanisms)
    realm.add_user("alice", "pw")
    realm.add_user("bob", "pw")
    return realm


def log_in(
    wire: Wire,
    *mechanisms: Any,
    name: str = "alice",
    credential: Credential | None = None,
    **options: Any,
) -> Any:
    credential = credential or Credential.from_password(f"{name}@TOY.TEST", "pw")
    return run(as_exchange(credential, AsOptions(mechanisms=mechanisms, **options)), wire)


def forged(wire: Wire, code: int, *types: int) -> bytes:
    """Return an error that anyone can make of one of the KDC's: it asks for `types`."""
    error = KrbError.decode(wire.answers[0])
    entries = [
        m
        for m in MethodData.decode(error.e_data or b"").entries
        if m.padata_type == PaDataType.ETYPE_INFO2
    ]
    methods = MethodData((*entries, *(PaData(kind, b"") for kind in types)))
    return replace(error, error_code=code, e_data=methods.encode()).encode()


# -- logging in with a mechanism that purekrb does not know


def test_a_mechanism_from_outside_logs_in_and_continues_over_two_steps() -> None:
    wire = Wire(realm_with(*AT_KDC))
    tgt = log_in(wire, *BOTH)
    assert tgt.is_tgt
    assert tgt.flags & TicketFlags.PRE_AUTHENT
    assert (
        tgt.flags & TicketFlags.ENC_PA_REP
    )  # the KDC vouched for the request under the mechanism's key
    assert wire.proofs == [[], [TOY], [PaDataType.FX_COOKIE, TOY]]


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_its_ticket_serves_over_sockets_like_any_other(face: str) -> None:
    with realm_with(*AT_KDC) as realm:
        realm.add_service("HTTP/web.toy.test")
        credential = Credential.from_password("alice@TOY.TEST", "pw")

        def exchange() -> Any:
            return as_exchange(credential, AsOptions(mechanisms=BOTH))

        if face == "blocking":
            tgt = KdcClient(realm.config)._run(exchange)
        else:
            tgt = asyncio.run(AsyncKdcClient(realm.config)._run(exchange))
        credential.ccache.store(tgt)
        assert KdcClient(realm.config).get_ticket(credential, "HTTP/web.toy.test").client == ALICE


def test_a_wrong_secret_is_refused_and_the_kdc_says_again_what_it_offers() -> None:
    wire = Wire(realm_with(*AT_KDC))
    with pytest.raises(PreauthFailedError):
        log_in(wire, Toy({ALICE: b"guess"}), *MECHANISMS)
    assert wire.proofs == [
        [],
        [TOY],
        [PaDataType.FX_COOKIE, TOY],
    ]  # and no weaker mechanism was tried
    methods = MethodData.decode(KrbError.decode(wire.answers[-1]).e_data or b"").entries
    assert [m.padata_type for m in methods] == [
        PaDataType.ETYPE_INFO2,
        PaDataType.FX_FAST,
        TOY,
        PaDataType.ENC_TIMESTAMP,
    ]
    assert log_in(Wire(realm_with(*AT_KDC)), *BOTH).is_tgt


def test_a_client_without_the_mechanism_says_which_kinds_the_kdc_offers() -> None:
    wire = Wire(realm_with(ToyAtKdc()))
    with pytest.raises(UnsupportedError, match=r"by FAST or type -1234.*PA-ENC-TIMESTAMP \(2\)"):
        log_in(wire, *MECHANISMS)
    assert wire.proofs == [[]]
    assert log_in(wire, *BOTH).is_tgt


def test_a_reply_under_another_key_than_the_mechanisms_is_refused() -> None:
    with pytest.raises(PreauthFailedError, match="does not decrypt"):
        log_in(Wire(realm_with(ToyAtKdc(long_term=True))), *BOTH)
    assert log_in(Wire(realm_with(ToyAtKdc())), *BOTH).is_tgt


# -- the choice


def test_the_strongest_mechanism_of_the_client_that_the_kdc_offers_is_chosen() -> None:
    for at_kdc in (AT_KDC, AT_KDC[::-1]):
        wire = Wire(realm_with(*at_kdc))
        log_in(wire, *BOTH)
        assert wire.proofs[1] == [TOY]
    for at_kdc, name in (
        (KDC_MECHANISMS, "alice"),
        (AT_KDC, "bob"),
    ):  # a KDC or an account without it
        wire = Wire(realm_with(*at_kdc))
        log_in(wire, *BOTH, name=name)
        assert wire.proofs == [[], [PaDataType.ENC_TIMESTAMP]]


def test_a_mechanism_that_the_credential_cannot_give_is_passed_over() -> None:
    wire = Wire(realm_with(*AT_KDC))
    log_in(wire, Toy({}), *MECHANISMS)
    assert wire.proofs == [[], [PaDataType.ENC_TIMESTAMP]]
    with pytest.raises(UnsupportedError, match="none of which this credential supports"):
        log_in(Wire(realm_with(ToyAtKdc())), Toy({}), *MECHANISMS)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_floor_that_forbids_the_timestamp_permits_what_is_stronger(allowed: bool) -> None:
    options = {"allow_encrypted_timestamp": allowed}
    assert log_in(Wire(realm_with(*AT_KDC)), *BOTH, **options).is_tgt
    wire = Wire(realm_with(*KDC_MECHANISMS))
    if allowed:
        assert log_in(wire, *BOTH, **options).is_tgt
        return
    with pytest.raises(PolicyError, match=r"PA-ENC-TIMESTAMP.* is not permitted"):
        log_in(wire, *BOTH, **options)
    assert wire.proofs == [[]]


def test_proof_by_any_mechanism_is_what_require_preauth_asks_for() -> None:
    assert log_in(Wire(realm_with(*AT_KDC)), *BOTH, require_preauth=True).is_tgt
    realm = realm_with(*AT_KDC)
    realm.add_user("alice", "pw", preauth=False)
    with pytest.raises(PolicyError, match="without pre-authentication"):
        log_in(Wire(realm), *BOTH, require_preauth=True)


def test_a_key_sends_no_weaker_proof_unasked_than_it_could_give_when_asked() -> None:
    realm = realm_with(*AT_KDC)
    credential = Credential.from_keytab(ALICE, realm.keytab("alice"))
    wire = Wire(realm)
    log_in(wire, *BOTH, credential=credential)
    assert wire.proofs[:2] == [[], [TOY]]
    for mechanisms in (MECHANISMS, (Toy({}), *MECHANISMS)):
        wire = Wire(realm)
        log_in(wire, *mechanisms, credential=credential)
        assert wire.proofs == [[PaDataType.ENC_TIMESTAMP]]


@pytest.mark.parametrize(
    "code", [ErrorCode.KDC_ERR_PREAUTH_REQUIRED, ErrorCode.KDC_ERR_MORE_PREAUTH_DATA_REQUIRED]
)
@pytest.mark.parametrize("after", [2, 3])
def test_a_forged_error_does_not_talk_a_mechanism_down_to_a_weaker_one(
    code: int, after: int
) -> None:
    wire = Wire(realm_with(*AT_KDC))
    wire.forge = lambda request, n: (
        forged(wire, code, PaDataType.ENC_TIMESTAMP) if n == after else None
    )
    with pytest.raises(
        PolicyError, match=r"after TOY the KDC asks for PA-ENC-TIMESTAMP \(2\), which is weaker"
    ):
        log_in(wire, *BOTH)
    assert [PaDataType.ENC_TIMESTAMP] not in wire.proofs
    assert len(wire.seen) == after
    weaker_first = Wire(
        realm_with(*AT_KDC)
    )  # the same error before anything strong was asked for is an offer
    weaker_first.forge = lambda request, n: forged(weaker_first, code, TOY) if n == 2 else None
    assert log_in(weaker_first, *BOTH).is_tgt


def test_a_proof_that_has_expired_is_begun_anew() -> None:
    wire = Wire(realm_with(*AT_KDC))
    wire.forge = lambda request, n: (
        forged(wire, ErrorCode.KDC_ERR_PREAUTH_EXPIRED) if n == 3 else None
    )
    assert log_in(wire, *BOTH).is_tgt
    assert wire.proofs == [
        [],
        [TOY],
        [PaDataType.FX_COOKIE, TOY],
        [],
        [TOY],
        [PaDataType.FX_COOKIE, TOY],
    ]


def test_an_expired_proof_does_not_open_the_way_to_a_weaker_one() -> None:
    wire = Wire(realm_with(*AT_KDC))

    def forge(request: AsReq, n: int) -> bytes | None:
        return {
            3: lambda: forged(wire, ErrorCode.KDC_ERR_PREAUTH_EXPIRED),
            4: lambda: forged(wire, ErrorCode.KDC_ERR_PREAUTH_REQUIRED, PaDataType.ENC_TIMESTAMP),
        }.get(n, lambda: None)()

    wire.forge = forge
    with pytest.raises(PolicyError, match="which is weaker"):
        log_in(wire, *BOTH)
    assert wire.proofs == [[], [TOY], [PaDataType.FX_COOKIE, TOY], []]


@pytest.mark.parametrize("code", [14, 16, 24, 31])
def test_a_refusal_of_a_proof_that_was_asked_for_is_final(code: int) -> None:
    wire = Wire(realm_with(*AT_KDC))
    wire.forge = lambda request, n: forged(wire, code) if n == 2 else None
    with pytest.raises(KdcError) as caught:
        log_in(wire, *BOTH)
    assert (caught.value.code, len(wire.seen)) == (code, 2)
