"""EncryptionKey holds a key and gives it to nobody by accident."""

from __future__ import annotations

import copy
import pickle

import pytest

from purekrb.constants import EncryptionType
from purekrb.errors import CredentialError, DecodeError
from purekrb.keys import KEY_SIZES, EncryptionKey, etype_name


@pytest.mark.parametrize(("etype", "size"), sorted(KEY_SIZES.items()))
def test_a_key_has_the_length_of_its_etype(etype: int, size: int) -> None:
    key = EncryptionKey(etype, bytes(size))
    assert key.contents == bytes(size)
    assert key.etype is EncryptionType(etype)
    for wrong in (0, 1, size - 1, size + 1, 2 * size):
        with pytest.raises(DecodeError, match=f"{size} bytes"):
            EncryptionKey(etype, bytes(wrong))


@pytest.mark.parametrize("etype", [-128, 0, 1, 16, 24, 99, 1 << 40])
def test_a_key_of_an_unknown_etype_is_held_as_it_is(etype: int) -> None:
    key = EncryptionKey(etype, b"any")
    assert (key.etype, key.contents) == (etype, b"any")
    assert str(etype) in etype_name(etype) or etype_name(etype) in repr(key)


def test_keys_are_equal_when_etype_and_contents_are() -> None:
    key = EncryptionKey(17, bytes(16))
    assert key == EncryptionKey(17, bytearray(16))
    assert key != EncryptionKey(19, bytes(16))
    assert key != EncryptionKey(17, b"\1" * 16)
    assert key != bytes(16)


def test_a_key_has_no_hash_no_copies_and_no_pickle() -> None:
    key = EncryptionKey(17, bytes(16))
    for operation in (hash, copy.copy, copy.deepcopy, pickle.dumps, vars):
        with pytest.raises(TypeError):
            operation(key)


def test_a_key_that_the_caller_changes_afterwards_is_not_changed() -> None:
    contents = bytearray(b"0123456789abcdef")
    key = EncryptionKey(17, contents)
    contents[:] = bytes(16)
    assert key.contents == b"0123456789abcdef"


def test_wiping_zeroes_the_bytes_that_the_key_owns() -> None:
    key = EncryptionKey(17, b"0123456789abcdef")
    owned = key._contents
    key.wipe()
    assert owned == bytes(16)
    with pytest.raises(CredentialError, match="load or derive it again"):
        _ = key.contents
    key.wipe()  # twice is fine
    assert "redacted" in repr(key)


def test_a_key_that_nobody_holds_any_more_wipes_itself() -> None:
    key = EncryptionKey(17, b"0123456789abcdef")
    owned = key._contents
    del key
    assert owned == bytes(16)
