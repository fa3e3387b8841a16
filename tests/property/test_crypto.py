"""Cryptography on data that hypothesis makes up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purekrb import crypto
from purekrb.crypto.aes_cts import AesCts
from purekrb.errors import IntegrityError
from purekrb.keys import KEY_SIZES, EncryptionKey
from support.reference_cts import cts_decrypt, cts_encrypt

ETYPES = st.sampled_from(sorted(KEY_SIZES))
KEYS = ETYPES.flatmap(
    lambda etype: st.binary(min_size=KEY_SIZES[etype], max_size=KEY_SIZES[etype]).map(
        lambda contents: EncryptionKey(etype, contents)
    )
)
USAGES = st.integers(0, (1 << 32) - 1)
DATA = st.binary(max_size=200)
CONFOUNDERS = st.binary(min_size=16, max_size=16)


@settings(max_examples=200, deadline=None)
@given(KEYS, USAGES, DATA)
def test_what_is_encrypted_comes_back(key: EncryptionKey, usage: int, data: bytes) -> None:
    assert crypto.decrypt(key, usage, crypto.encrypt(key, usage, data)) == data
    crypto.verify_checksum(key, usage, data, crypto.checksum(key, usage, data))


@settings(max_examples=200, deadline=None)
@given(KEYS, USAGES, DATA, st.data())
def test_any_altered_ciphertext_or_checksum_is_refused(
    key: EncryptionKey, usage: int, data: bytes, draw: st.DataObject
) -> None:
    for good, check in (
        (crypto.encrypt(key, usage, data), lambda bad: crypto.decrypt(key, usage, bad)),
        (
            crypto.checksum(key, usage, data),
            lambda bad: crypto.verify_checksum(key, usage, data, bad),
        ),
    ):
        bad = bytearray(good)
        bad[draw.draw(st.integers(0, len(bad) - 1))] ^= draw.draw(st.integers(1, 255))
        for wrong in (bytes(bad), good[: draw.draw(st.integers(0, len(good) - 1))], good + b"\0"):
            with pytest.raises(IntegrityError):
                check(wrong)
        check(good)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([16, 32]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    st.lists(st.tuples(st.booleans(), CONFOUNDERS, DATA), max_size=12),
)
def test_a_running_cipher_equals_the_reference_over_any_sequence_of_calls(
    key: bytes, calls: list[tuple[bool, bytes, bytes]]
) -> None:
    cts = AesCts(key)
    for encrypting, confounder, data in calls:
        if encrypting:
            assert b"".join(cts.encrypt(confounder + data)) == cts_encrypt(key, confounder + data)
        else:
            ciphertext = confounder + data
            assert cts.decrypt(ciphertext[:-16], ciphertext[-16:]) == cts_decrypt(key, ciphertext)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=40), st.integers(1, 40))
def test_n_fold_is_the_sum_of_rotated_copies(data: bytes, size: int) -> None:
    """From the words of RFC 3961 5.1, bit by bit, with the end-around carry done as a remainder."""
    bits = "".join(f"{byte:08b}" for byte in data)
    copies = math.lcm(len(data), size) // len(data)
    stretched = "".join(
        bits[-shift:] + bits[:-shift] for shift in (13 * n % len(bits) for n in range(copies))
    )
    chunks = [int(stretched[at : at + size * 8], 2) for at in range(0, len(stretched), size * 8)]
    ones = (1 << size * 8) - 1
    expected = sum(chunks) % ones
    got = int.from_bytes(crypto.n_fold(data, size), "big")
    assert got % ones == expected  # all ones and all zeros are the same number in ones' complement


@settings(max_examples=40, deadline=None)
@given(KEYS, KEYS, DATA, DATA)
def test_cf2_makes_a_key_of_the_first_keys_etype_from_both(
    one: EncryptionKey, two: EncryptionKey, pepper1: bytes, pepper2: bytes
) -> None:
    both = crypto.cf2(one, two, pepper1, pepper2)
    assert both.etype == one.etype
    assert crypto.cf2(one, two, pepper1, pepper2) == both
    assert crypto.cf2(one, two, pepper1 + b"x", pepper2) != both
    assert crypto.cf2(one, two, pepper1, pepper2 + b"x") != both
