"""SPAKE: the published values in every group, and elements that are none."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from purekrb import EncryptionKey, ProtocolError, UnsupportedError
from purekrb.constants import SPAKE_GROUPS
from purekrb.crypto.spake_groups import available_groups, group, w_of
from purekrb.exchanges.preauth.spake import derived_keys, transcript_hash
from purekrb.messages.spake import SpakeChallenge, SpakeSupport, decode_pa_spake
from purekrb.system import random_bytes
from support.vectors import load

VECTORS = load("spake.json")
GROUPS = tuple(SPAKE_GROUPS)


@pytest.mark.parametrize(
    "vector", VECTORS, ids=lambda v: f"{SPAKE_GROUPS[v['group']]}-{v['etype']}"
)
def test_every_step_gives_the_published_value(vector: dict[str, Any]) -> None:
    found = group(vector["group"])
    key, w = EncryptionKey(vector["etype"], vector["key"]), vector["w"]
    assert w_of(found, key) == w
    assert found.element(vector["kdc_scalar"], w, kdc=True) == vector["kdc_element"]
    assert found.element(vector["client_scalar"], w, kdc=False) == vector["client_element"]
    at_client = found.shared(vector["client_scalar"], w, vector["kdc_element"], kdc=True)
    at_kdc = found.shared(vector["kdc_scalar"], w, vector["client_element"], kdc=False)
    assert at_client == at_kdc == vector["shared"]
    opening = (vector["support"] or b"") + vector["challenge"]
    transcript = transcript_hash(found, opening, vector["client_element"])
    assert transcript == vector["transcript"]
    keys = derived_keys(found, key, w, at_client, transcript, vector["body"])
    assert [made.contents for made in itertools.islice(keys, 4)] == [
        vector[name] for name in ("k0", "k1", "k2", "k3")
    ]


@pytest.mark.parametrize(
    "vector", VECTORS, ids=lambda v: f"{SPAKE_GROUPS[v['group']]}-{v['etype']}"
)
def test_the_published_messages_are_read_and_written(vector: dict[str, Any]) -> None:
    challenge = decode_pa_spake(vector["challenge"])
    assert isinstance(challenge, SpakeChallenge)
    assert (challenge.group, challenge.pubkey) == (vector["group"], vector["kdc_element"])
    assert challenge.encode() == vector["challenge"]
    if vector["support"] is not None:
        support = decode_pa_spake(vector["support"])
        assert isinstance(support, SpakeSupport)
        assert support.encode() == vector["support"]


@pytest.mark.parametrize("number", GROUPS, ids=SPAKE_GROUPS.get)
def test_both_sides_share_an_element_and_other_passwords_do_not(number: int) -> None:
    found = group(number)
    for _ in range(20):
        w, x, y = (random_bytes(found.mult_len), *(found.new_scalar(random_bytes) for _ in "xy"))
        kdc, client = found.element(x, w, kdc=True), found.element(y, w, kdc=False)
        shared = found.shared(y, w, kdc, kdc=True)
        assert found.shared(x, w, client, kdc=False) == shared
        other = bytes([w[0] ^ 1, *w[1:-1], w[-1] ^ 1])
        assert found.shared(y, other, kdc, kdc=True) != shared


def trivial_elements(number: int) -> list[bytes]:
    """Return what is no element of the group, or one that would give the secret away."""
    found = group(number)
    w = bytes(found.mult_len - 1) + b"\1"
    good = found.element(found.new_scalar(random_bytes), w, kdc=True)
    wrong = [b"", good[:-1], good + b"\0", bytes(len(good)), b"\xff" * len(good)]
    if number == 1:
        return [
            *wrong,
            b"\1" + bytes(31),  # the neutral element
            b"\xec" + b"\xff" * 30 + b"\x7f",  # of order 2
            bytes.fromhex(
                "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
            ),  # of order 8
            bytes.fromhex(
                "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
            ),  # of order 8
            b"\xee" + b"\xff" * 30 + b"\x7f",  # not canonical
            b"\2" + bytes(31),  # not on the curve
        ]
    size = found.mult_len
    return [
        *wrong,
        b"\0",  # the neutral element
        b"\4" + good[1:] * 2,  # not compressed
        b"\2" + b"\xff" * size,  # beyond the field
        next(  # not on the curve
            data
            for n in range(1, 100)
            if not on_curve(number, data := b"\2" + n.to_bytes(size, "big"))
        ),
    ]


def on_curve(number: int, data: bytes) -> bool:
    found = group(number)
    w = bytes(found.mult_len - 1) + b"\1"
    try:
        found.shared(found.new_scalar(random_bytes), w, data, kdc=True)
    except ProtocolError:
        return False
    return True


@pytest.mark.parametrize("number", GROUPS, ids=SPAKE_GROUPS.get)
def test_what_is_no_element_of_the_group_is_refused(number: int) -> None:
    found = group(number)
    w = bytes(found.mult_len - 1) + b"\1"
    scalar = found.new_scalar(random_bytes)
    for data in trivial_elements(number):
        with pytest.raises(ProtocolError, match="not one of the group"):
            found.shared(scalar, w, data, kdc=True)
    assert found.shared(scalar, w, found.element(scalar, w, kdc=True), kdc=True)


@pytest.mark.parametrize("number", GROUPS, ids=SPAKE_GROUPS.get)
def test_an_element_whose_blinding_is_all_is_refused(number: int) -> None:
    """wM itself, from who knows w: the shared element would be the neutral one."""
    found = group(number)
    w = bytes(found.mult_len - 1) + b"\5" if number != 1 else b"\5" + bytes(31)
    zero_and_more = found.element(found.new_scalar(random_bytes), w, kdc=True)
    assert found.shared(found.new_scalar(random_bytes), w, zero_and_more, kdc=True)
    with pytest.raises(ProtocolError):
        found.shared(found.new_scalar(random_bytes), w, blinding(number, w), kdc=True)


def blinding(number: int, w: bytes) -> bytes:
    found: Any = group(number)
    point = found._blinding(w, kdc=True)
    return point if isinstance(point, bytes) else found._encode(point)


def test_an_unknown_group_is_named() -> None:
    assert available_groups() == GROUPS
    with pytest.raises(UnsupportedError, match="group 5"):
        group(5)
