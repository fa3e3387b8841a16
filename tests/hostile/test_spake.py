"""SPAKE under attack: by who answers in the KDC's place, and by who is on the path.

K513 to K519. Elements that are none, in every group: tests/unit/test_spake.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from purekrb import (
    Credential,
    IntegrityError,
    KerberosError,
    PolicyError,
    PreauthFailedError,
    ProtocolError,
    UnsupportedError,
)
from purekrb.constants import SPAKE_GROUPS, ErrorCode, PaDataType
from purekrb.crypto.spake_groups import group
from purekrb.exchanges.as_exchange import AsOptions, as_exchange
from purekrb.exchanges.preauth.choice import mechanisms
from purekrb.exchanges.runner import KdcRequest, run
from purekrb.messages.ap import KrbError
from purekrb.messages.kdc import AsReq, MethodData, PaData
from purekrb.messages.spake import SpakeChallenge, SpakeSecondFactor
from purekrb.system import random_bytes
from purekrb.testing import Realm
from purekrb.testing.kdc_preauth import KDC_MECHANISMS
from purekrb.testing.kdc_spake import KdcSpake
from support.values import replace

R = "EXAMPLE.TEST"
Answer = Callable[[bytes, int], bytes]


@pytest.fixture(scope="module")
def realm() -> Iterator[Realm]:
    with Realm(R, preauth_mechanisms=(KdcSpake(challenge=True), *KDC_MECHANISMS)) as realm:
        realm.add_user("alice", "pw")
        yield realm


class Path:
    """The way to the KDC; `change` is called with each answer and its number, from 1."""

    def __init__(self, realm: Realm, change: Answer = lambda data, n: data) -> None:
        self._realm, self._change = realm, change
        self.seen: list[AsReq] = []

    def __call__(self, request: KdcRequest) -> bytes:
        self.seen.append(AsReq.decode(request.message))
        return self._change(self._realm._kdc.handle(request.message), len(self.seen))

    @property
    def proofs(self) -> list[int]:
        """The kinds of proof that were sent."""
        kinds = (PaDataType.SPAKE, PaDataType.ENC_TIMESTAMP)
        return [
            p.padata_type for req in self.seen for p in req.padata or () if p.padata_type in kinds
        ]


def log_in(path: Path, password: str = "pw", groups: tuple[int, ...] | None = None) -> Any:
    credential = Credential.from_password(f"alice@{R}", password)
    options = AsOptions(mechanisms=mechanisms(groups, unasked=False))
    return run(as_exchange(credential, options), path)


def with_methods(data: bytes, change: Callable[[PaData], PaData]) -> bytes:
    error = KrbError.decode(data)
    entries = MethodData.decode(error.e_data or b"\x30\x00").entries
    return replace(error, e_data=MethodData(tuple(map(change, entries))).encode()).encode()


def challenges(change: Callable[[SpakeChallenge], SpakeChallenge]) -> Answer:
    """Change the challenge of the first answer."""

    def of(entry: PaData) -> PaData:
        if entry.padata_type != PaDataType.SPAKE:
            return entry
        changed = change(SpakeChallenge.decode(entry.padata_value))
        return replace(entry, padata_value=changed.encode())

    return lambda data, n: with_methods(data, of) if n == 1 else data


def test_control_the_exchange_succeeds(realm: Realm) -> None:
    path = Path(realm)
    assert log_in(path).is_tgt
    assert path.proofs == [PaDataType.SPAKE]


@pytest.mark.parametrize(
    "pubkey",
    [
        b"",
        b"\0",
        bytes(32),
        b"\1" + bytes(31),
        b"\xec" + b"\xff" * 30 + b"\x7f",
        b"\xee" + b"\xff" * 30 + b"\x7f",
        b"\xff" * 32,
        bytes(33),
    ],
    ids=lambda value: f"K513-{value.hex()[:8] or 'empty'}",
)
def test_an_element_that_is_none_ends_the_exchange_with_nothing_sent(
    realm: Realm, pubkey: bytes
) -> None:
    path = Path(realm, challenges(lambda challenge: replace(challenge, pubkey=pubkey)))
    with pytest.raises(ProtocolError, match="not one of the group"):
        log_in(path)
    assert path.proofs == []


def test_k514_a_group_that_was_not_offered_is_not_used(realm: Realm) -> None:
    def other(data: bytes, n: int) -> bytes:
        return challenges(lambda challenge: replace(challenge, group=3))(data, 1) if n < 3 else data

    path = Path(realm, other)
    with pytest.raises(KerberosError):
        log_in(path, groups=(1, 2))
    # The client says what it supports, and takes nothing else; it falls back to nothing weaker.
    assert set(path.proofs) == {PaDataType.SPAKE}
    unknown = Path(realm, challenges(lambda challenge: replace(challenge, group=99)))
    assert log_in(unknown, groups=(3,)).is_tgt
    assert unknown.proofs == [PaDataType.SPAKE] * 2  # what is supported, and the response


def test_k515_a_challenge_that_was_exchanged_gives_no_ticket(realm: Realm) -> None:
    """The transcript covers the challenge: both sides must have seen the same."""
    found = group(1)
    element = found.element(found.new_scalar(random_bytes), b"\1" + bytes(31), kdc=True)
    path = Path(realm, challenges(lambda challenge: replace(challenge, pubkey=element)))
    with pytest.raises(PreauthFailedError):
        log_in(path)
    more = SpakeSecondFactor(7, b"of no consequence")
    path = Path(realm, challenges(lambda c: replace(c, factors=(*c.factors, more))))
    with pytest.raises(PreauthFailedError):
        log_in(path)


def test_k516_a_second_factor_that_is_not_had_is_named(realm: Realm) -> None:
    only = (SpakeSecondFactor(7, None),)
    path = Path(realm, challenges(lambda challenge: replace(challenge, factors=only)))
    with pytest.raises(UnsupportedError, match="second factor"):
        log_in(path)
    assert path.proofs == []
    none = Path(realm, challenges(lambda challenge: replace(challenge, factors=())))
    with pytest.raises(UnsupportedError, match="second factor"):
        log_in(none)


@pytest.mark.parametrize(
    "code",
    [ErrorCode.KDC_ERR_PREAUTH_REQUIRED, ErrorCode.KDC_ERR_MORE_PREAUTH_DATA_REQUIRED],
    ids=lambda code: f"K517-{int(code)}",
)
def test_a_timestamp_that_is_asked_for_after_spake_is_not_sent(
    realm: Realm, code: ErrorCode
) -> None:
    def ask(data: bytes, n: int) -> bytes:
        if n == 1:
            return data
        methods = MethodData((PaData(PaDataType.ENC_TIMESTAMP, b""),)).encode()
        return replace(KrbError.decode(data), error_code=code, e_data=methods).encode()

    path = Path(realm, ask)
    with pytest.raises(PolicyError, match="weaker"):
        log_in(path, password="wrong")
    assert path.proofs == [PaDataType.SPAKE]


def test_k518_a_kdc_without_the_password_cannot_reply(realm: Realm) -> None:
    """It can choose its element freely, but needs w for the shared one, and the key for the reply."""
    realm.add_user("other", "another password")
    impostor = realm._kdc
    client = next(name for name in impostor.accounts if name.components == ("alice",))
    other = next(name for name in impostor.accounts if name.components == ("other",))
    genuine = impostor.accounts[client]
    impostor.accounts[client] = replace(impostor.accounts[other], name=client, salt=genuine.salt)
    try:
        with pytest.raises(PreauthFailedError):
            log_in(Path(realm))
    finally:
        impostor.accounts[client] = genuine
    assert log_in(Path(realm)).is_tgt


def test_k518_a_reply_under_the_long_term_key_is_refused(realm: Realm) -> None:
    """Whoever stole the key of a backup, or a KDC that skipped the proof, does not pass for SPAKE."""

    class Skipping(KdcSpake):
        def verify(self, request: Any, value: bytes) -> Any:
            super().verify(request, value)
            return None  # the client's own key

    with Realm(R, preauth_mechanisms=(Skipping(challenge=True),)) as skipping:
        skipping.add_user("alice", "pw")
        with pytest.raises((PreauthFailedError, IntegrityError)):
            log_in(Path(skipping))


@pytest.mark.parametrize("number", SPAKE_GROUPS, ids=lambda number: f"K519-{SPAKE_GROUPS[number]}")
def test_a_damaged_challenge_ends_the_exchange_or_has_it_begin_anew(number: int) -> None:
    """Without its contents, or with another group, the client says what it supports."""
    with Realm(R, preauth_mechanisms=(KdcSpake((number,), challenge=True),)) as realm:
        realm.add_user("alice", "pw")
        refused = 0
        for at in range(1, 44, 3):
            for cut in (False, True):
                path = Path(realm, with_damage(at, cut=cut))
                try:
                    log_in(path, groups=(number,))
                except KerberosError:
                    refused += 1
                    continue
                assert path.proofs == [PaDataType.SPAKE] * 2
        assert refused > 6
        assert log_in(Path(realm)).is_tgt


def with_damage(at: int, *, cut: bool) -> Answer:
    def of(entry: PaData) -> PaData:
        value = entry.padata_value
        if entry.padata_type != PaDataType.SPAKE or at >= len(value):
            return entry
        flipped = value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :]
        return replace(entry, padata_value=value[:at] if cut else flipped)

    return lambda data, n: with_methods(data, of) if n == 1 else data


@pytest.mark.parametrize("code", [25, 91], ids=lambda code: f"K517-again-{code}")
def test_a_kdc_that_never_sends_its_challenge_is_left_after_one_more_request(
    realm: Realm, code: int
) -> None:
    def emptied(data: bytes, n: int) -> bytes:
        of = lambda e: replace(e, padata_value=b"") if e.padata_type == PaDataType.SPAKE else e  # noqa: E731
        error = KrbError.decode(with_methods(data, of))
        return replace(error, error_code=25 if n == 1 else code).encode()

    path = Path(realm, emptied)
    with pytest.raises(ProtocolError, match="SPAKE groups"):
        log_in(path)
    assert path.proofs == [PaDataType.SPAKE]
