"""FAST under attack: by who is on the path, and by a KDC that has the armor key and does not know the client's.

K501 to K512; the downgrade table is K512.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from purekrb import (
    ArmorRequiredError,
    Credential,
    IntegrityError,
    KdcClient,
    KdcError,
    KerberosError,
    PolicyError,
    PreauthFailedError,
    Principal,
    ProtocolError,
    ServiceTicket,
    crypto,
)
from purekrb.constants import ErrorCode, KeyUsage, PaDataType
from purekrb.exchanges.as_exchange import AsOptions, as_exchange
from purekrb.exchanges.runner import run
from purekrb.exchanges.tgs_exchange import TgsOptions, tgs_exchange
from purekrb.messages.ap import EncryptedData, KrbError
from purekrb.messages.fast import FastResponse
from purekrb.messages.kdc import AsRep, AsReq, MethodData, PaData, TgsRep
from purekrb.names import PrincipalName
from purekrb.testing import Realm
from purekrb.testing.kdc_fast import KdcFast
from support.kdc_path import Mangle, Path, same
from support.values import replace

R = "EXAMPLE.TEST"
WEB = Principal.parse(f"HTTP/web.example.test@{R}")


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm(R) as realm:
        realm.add_user("alice", "pw")
        realm.add_user("mallory", "pw")
        realm.add_user("host", "hostpw")
        realm.add_user("open", "pw", preauth=False)
        realm.add_service("HTTP/web.example.test")
        yield realm


@pytest.fixture(scope="module")
def armor_tgt(realm: Realm) -> ServiceTicket:
    return KdcClient(realm.config).get_tgt(Credential.from_password(f"host@{R}", "hostpw"))


def get(
    path: Path,
    armor_tgt: ServiceTicket | None,
    *,
    user: str = "alice",
    password: str = "pw",
    **options: Any,
) -> ServiceTicket:
    def source(_realm: str) -> Any:
        assert armor_tgt is not None
        return armor_tgt
        yield

    credential = Credential.from_password(f"{user}@{R}", password)
    armor = None if armor_tgt is None else source
    return run(as_exchange(credential, AsOptions(armor=armor, **options)), path)


def is_armored(message: bytes) -> bool:
    kinds = [entry.padata_type for entry in AsReq.decode(message).padata or ()]
    return kinds == [PaDataType.FX_FAST]


def test_control_the_exchange_succeeds(realm: Realm, armor_tgt: ServiceTicket) -> None:
    path = Path(realm)
    assert str(get(path, armor_tgt).client) == f"alice@{R}"
    assert len(path.seen) == 2
    assert all(map(is_armored, path.seen))


# -- on the path


def without(kind: int) -> Mangle:
    """Take a kind of padata out of every answer."""

    def strip(data: bytes) -> bytes:
        if data[:1] == b"\x7e":
            error = KrbError.decode(data)
            methods = MethodData.decode(error.e_data or b"\x30\x00").entries
            kept = tuple(m for m in methods if m.padata_type != kind)
            return replace(error, e_data=MethodData(kept).encode()).encode()
        reply = AsRep.decode(data)
        kept = tuple(p for p in reply.padata or () if p.padata_type != kind)
        return replace(reply, padata=kept).encode()

    return strip


def test_k501_fast_stripped_from_the_answers_is_missed(
    realm: Realm, armor_tgt: ServiceTicket
) -> None:
    path = Path(realm, down=without(PaDataType.FX_FAST))
    with pytest.raises(ArmorRequiredError, match="outside of FAST"):
        get(path, armor_tgt)
    assert len(path.seen) == 1
    assert is_armored(path.seen[0])


def forged(code: int, **fields: Any) -> Mangle:
    """Answer everything with a KRB-ERROR of our own."""
    methods = MethodData((PaData(PaDataType.ENC_TIMESTAMP, b""),)).encode()

    def answer(data: bytes) -> bytes:
        error = KrbError.decode(data)
        return replace(error, error_code=code, e_data=methods, **fields).encode()

    return answer


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (ErrorCode.KDC_ERR_PREAUTH_REQUIRED, ArmorRequiredError),
        (ErrorCode.KDC_ERR_MORE_PREAUTH_DATA_REQUIRED, KdcError),
        (ErrorCode.KDC_ERR_PREAUTH_FAILED, PreauthFailedError),
        (ErrorCode.KDC_ERR_ETYPE_NOSUPP, KdcError),
        (ErrorCode.KRB_AP_ERR_SKEW, KdcError),
        (ErrorCode.KDC_ERR_WRONG_REALM, KdcError),
        (ErrorCode.KDC_ERR_PREAUTH_EXPIRED, KdcError),
    ],
    ids=lambda value: f"K502-{int(value)}" if isinstance(value, int) else "",
)
def test_an_error_outside_of_the_armor_has_no_effect_but_to_end_the_exchange(
    realm: Realm, armor_tgt: ServiceTicket, code: ErrorCode, error: type[KerberosError]
) -> None:
    path = Path(realm, down=forged(code, crealm="EVIL.TEST"))
    with pytest.raises(error):
        get(path, armor_tgt, canonicalize=True, referral_realms=("EVIL.TEST",))
    assert len(path.seen) == 1
    assert is_armored(path.seen[0])


@pytest.mark.parametrize("which", [1, 2], ids=["K503-error", "K503-reply"])
def test_no_flipped_bit_in_an_answer_gives_another_ticket(
    realm: Realm, armor_tgt: ServiceTicket, which: int
) -> None:
    """Only the outer names and texts are not protected: nothing is taken from them."""
    first = get(Path(realm), armor_tgt)
    tried = [0]
    for at in range(0, 900, 3):
        count = [0]

        def flip(data: bytes, at: int = at, count: list[int] = count) -> bytes:
            count[0] += 1
            if count[0] != which or at >= len(data):
                return data
            tried[0] += 1
            return data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]

        try:
            ticket = get(Path(realm, down=flip), armor_tgt)
        except KerberosError:
            continue
        assert (ticket.client, ticket.service) == (first.client, first.service)
    assert tried[0] > 150


def test_k504_an_answer_to_another_request_is_refused(
    realm: Realm, armor_tgt: ServiceTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(monkeypatch, lambda response: replace(response, nonce=response.nonce ^ 1))
    with pytest.raises(ProtocolError, match="its nonce differs"):
        get(Path(realm), armor_tgt)


# -- a KDC with the armor key


def altered(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[FastResponse], FastResponse]
) -> None:
    """Change what the KDC seals with the armor key."""
    sealed = KdcFast._sealed
    monkeypatch.setattr(KdcFast, "_sealed", lambda self, response: sealed(self, change(response)))


def final(change: Callable[[FastResponse], FastResponse]) -> Callable[[FastResponse], FastResponse]:
    """Change the response of a reply alone."""
    return lambda response: response if response.finished is None else change(response)


def test_k505_a_reply_that_does_not_confirm_its_ticket_is_refused(
    realm: Realm, armor_tgt: ServiceTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(monkeypatch, final(lambda response: replace(response, finished=None)))
    with pytest.raises(ProtocolError, match="KrbFastFinished is missing"):
        get(Path(realm), armor_tgt)


@pytest.mark.parametrize(
    "change",
    [
        {"cname": PrincipalName(("mallory",), 1)},
        {"crealm": "EVIL.TEST"},
    ],
    ids=["K506-cname", "K506-crealm"],
)
def test_the_client_is_the_one_in_the_armor(
    realm: Realm,
    armor_tgt: ServiceTicket,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
) -> None:
    def other(response: FastResponse) -> FastResponse:
        assert response.finished is not None
        return replace(response, finished=replace(response.finished, **change))

    altered(monkeypatch, final(other))
    with pytest.raises(ProtocolError, match="for another client"):
        get(Path(realm), armor_tgt)


def test_k506_an_empty_name_outside_of_the_armor_does_not_count(
    realm: Realm, armor_tgt: ServiceTicket
) -> None:
    """Heimdal before 8 leaves it empty."""

    def emptied(data: bytes) -> bytes:
        if data[:1] == b"\x7e":
            return data
        return replace(AsRep.decode(data), cname=PrincipalName((), 0), crealm="").encode()

    assert str(get(Path(realm, down=emptied), armor_tgt).client) == f"alice@{R}"


def test_k507_a_ticket_that_was_exchanged_is_refused(
    realm: Realm, armor_tgt: ServiceTicket
) -> None:
    other = get(Path(realm), armor_tgt, user="mallory")

    def exchanged(data: bytes) -> bytes:
        if data[:1] == b"\x7e":
            return data
        return replace(AsRep.decode(data), ticket=other.ticket).encode()

    with pytest.raises(ProtocolError, match="not the one that the KDC sealed"):
        get(Path(realm, down=exchanged), armor_tgt)


@pytest.mark.parametrize("etype", [17, 20, 23, 999], ids=lambda etype: f"K508-{etype}")
def test_a_strengthen_key_that_does_not_fit_is_a_typed_error(
    realm: Realm, armor_tgt: ServiceTicket, monkeypatch: pytest.MonkeyPatch, etype: int
) -> None:
    key = crypto.random_key(etype) if etype != 999 else replace_etype(crypto.random_key(18), etype)
    altered(monkeypatch, final(lambda response: replace(response, strengthen_key=key)))
    with pytest.raises(KerberosError):
        get(Path(realm), armor_tgt)


def replace_etype(key: Any, etype: int) -> Any:
    return type(key)(etype, key.contents)


def challenges(change: Callable[[PaData], tuple[PaData, ...]]) -> Any:
    def other(response: FastResponse) -> FastResponse:
        padata: list[PaData] = []
        for entry in response.padata:
            is_challenge = entry.padata_type == PaDataType.ENCRYPTED_CHALLENGE
            padata += change(entry) if is_challenge else (entry,)
        return replace(response, padata=tuple(padata))

    return final(other)


def test_k509_a_kdc_that_does_not_answer_the_challenge_is_refused(
    realm: Realm, armor_tgt: ServiceTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(monkeypatch, challenges(lambda entry: ()))
    with pytest.raises(ProtocolError, match="did not answer the encrypted challenge"):
        get(Path(realm), armor_tgt)


def test_k510_an_answer_of_another_exchange_or_key_is_refused(
    realm: Realm, armor_tgt: ServiceTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[PaData] = []

    def keep(entry: PaData) -> tuple[PaData, ...]:
        answers.append(entry)
        return (entry,)

    with monkeypatch.context() as first:
        altered(first, challenges(keep))
        get(Path(realm), armor_tgt)
    with monkeypatch.context() as second:
        altered(second, challenges(lambda entry: (answers[0],)))
        with pytest.raises(PreauthFailedError, match="does not open with the client's key"):
            get(Path(realm), armor_tgt)

    def of_no_key(entry: PaData) -> tuple[PaData, ...]:
        made = crypto.encrypt(crypto.random_key(18), KeyUsage.ENC_CHALLENGE_KDC, b"0\0")
        return (replace(entry, padata_value=EncryptedData(18, None, made).encode()),)

    altered(monkeypatch, challenges(of_no_key))
    with pytest.raises(PreauthFailedError, match="does not open with the client's key"):
        get(Path(realm), armor_tgt)


def test_k511_a_timestamp_is_not_sent_after_the_challenge_failed(
    realm: Realm, armor_tgt: ServiceTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = [0]

    def ask_for_a_timestamp(response: FastResponse) -> FastResponse:
        count[0] += 1
        if count[0] == 1:
            return response
        padata = tuple(
            replace(entry, padata_value=as_required(entry.padata_value))
            if entry.padata_type == PaDataType.FX_ERROR
            else entry
            for entry in response.padata
            if entry.padata_type != PaDataType.ENCRYPTED_CHALLENGE
        )
        return replace(response, padata=(*padata, PaData(PaDataType.ENC_TIMESTAMP, b"")))

    def as_required(data: bytes) -> bytes:
        error = KrbError.decode(data)
        return replace(error, error_code=ErrorCode.KDC_ERR_PREAUTH_REQUIRED).encode()

    altered(monkeypatch, ask_for_a_timestamp)
    path = Path(realm)
    with pytest.raises(PolicyError, match="weaker"):
        get(path, armor_tgt, password="wrong")
    assert len(path.seen) == 2


# -- the downgrade table

STRIPS = {
    "nothing": same,
    "FAST": without(PaDataType.FX_FAST),
    "the timestamp": without(PaDataType.ENC_TIMESTAMP),
}
#: (floor, armor, what an attacker strips, account) -> what authenticates, or the class of the refusal.
TABLE: dict[tuple[str | None, bool, str, str], str | type[KerberosError]] = {
    (None, False, "nothing", "alice"): "PA-ENC-TIMESTAMP",
    (None, False, "FAST", "alice"): "PA-ENC-TIMESTAMP",
    (None, False, "the timestamp", "alice"): KerberosError,
    (None, False, "nothing", "open"): "no pre-authentication",
    (None, True, "nothing", "alice"): "PA-ENCRYPTED-CHALLENGE",
    (None, True, "FAST", "alice"): ArmorRequiredError,
    (None, True, "the timestamp", "alice"): "PA-ENCRYPTED-CHALLENGE",
    (None, True, "nothing", "open"): "no pre-authentication",
    ("strong", False, "nothing", "alice"): PolicyError,
    ("strong", False, "FAST", "alice"): PolicyError,
    ("strong", False, "nothing", "open"): PolicyError,
    ("strong", True, "nothing", "alice"): "PA-ENCRYPTED-CHALLENGE",
    ("strong", True, "FAST", "alice"): ArmorRequiredError,
    ("strong", True, "nothing", "open"): PolicyError,
    ("fast", False, "nothing", "alice"): ArmorRequiredError,
    ("fast", False, "nothing", "open"): ArmorRequiredError,
    ("fast", True, "nothing", "alice"): "PA-ENCRYPTED-CHALLENGE",
    ("fast", True, "FAST", "alice"): ArmorRequiredError,
    ("fast", True, "nothing", "open"): PolicyError,
}


@pytest.mark.parametrize(
    ("row", "end"),
    TABLE.items(),
    ids=[f"K512-{'-'.join(map(str, row)).replace(' ', '_')}" for row in TABLE],
)
def test_the_downgrade_table(
    realm: Realm,
    armor_tgt: ServiceTicket,
    caplog: pytest.LogCaptureFixture,
    row: tuple[str | None, bool, str, str],
    end: str | type[KerberosError],
) -> None:
    floor, armored, stripped, user = row
    path = Path(realm, down=STRIPS[stripped])

    def attempt() -> ServiceTicket:
        return get(path, armor_tgt if armored else None, user=user, require=floor)

    if isinstance(end, str):
        with caplog.at_level("DEBUG", "purekrb.kdc"):
            attempt()
        requests = [line for line in caplog.messages if line.startswith("AS-REQ")]
        assert end in requests[-1]
    else:
        with pytest.raises(end):
            attempt()
    sent_timestamps = [
        message
        for message in path.seen
        for entry in AsReq.decode(message).padata or ()
        if entry.padata_type == PaDataType.ENC_TIMESTAMP
    ]
    assert bool(sent_timestamps) == (end == "PA-ENC-TIMESTAMP")
    assert all(map(is_armored, path.seen)) or not armored


# -- the TGS exchange


def get_service_ticket(path: Path, tgt: ServiceTicket) -> ServiceTicket:
    return run(tgs_exchange(tgt, WEB, TgsOptions(fast_realms=(R,))), path)


def test_a_tgs_reply_is_checked_as_well(
    realm: Realm, armor_tgt: ServiceTicket, monkeypatch: pytest.MonkeyPatch
) -> None:
    tgt = get(Path(realm), armor_tgt)
    good = get_service_ticket(Path(realm), tgt)
    assert good.service == WEB

    def exchanged(data: bytes) -> bytes:
        return replace(TgsRep.decode(data), ticket=good.ticket).encode()

    with pytest.raises(ProtocolError, match="not the one that the KDC sealed"):
        get_service_ticket(Path(realm, down=exchanged), tgt)
    for change, error in (
        (lambda r: replace(r, nonce=r.nonce ^ 1), ProtocolError),
        (lambda r: replace(r, finished=None), ProtocolError),
        (lambda r: replace(r, strengthen_key=crypto.random_key(18)), IntegrityError),
    ):
        with monkeypatch.context() as patch:
            altered(patch, final(change))
            with pytest.raises(error):
                get_service_ticket(Path(realm), tgt)


def test_what_the_kdc_says_in_fast_of_a_service_is_taken_and_nothing_else(
    realm: Realm, armor_tgt: ServiceTicket
) -> None:
    tgt = get(Path(realm), armor_tgt)
    nowhere = Principal.parse(f"HTTP/nowhere@{R}")
    with pytest.raises(KdcError, match="does not know the service"):
        run(tgs_exchange(tgt, nowhere, TgsOptions(fast_realms=(R,))), Path(realm))
    damaged = Path(realm, down=lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(KerberosError):
        run(tgs_exchange(tgt, nowhere, TgsOptions(fast_realms=(R,))), damaged)
