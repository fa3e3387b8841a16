"""Security identifiers, as text and as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purekrb.errors import DecodeError
from purekrb.sid import Sid

#: Well-known SIDs of MS-DTYP 2.4.2.4, and the layout of 2.4.2.2 put together by hand.
KNOWN = [
    ("S-1-0-0", "010100000000000000000000"),
    ("S-1-5-18", "010100000000000512000000"),
    ("S-1-5-32-544", "01020000000000052000000020020000"),
    ("S-1-5-21-1-2-4294967295-1104", "0105000000000005150000000100000002000000ffffffff50040000"),
    ("S-1-0x123456789ABC-7", "0101123456789abc07000000"),
]


@pytest.mark.parametrize(("text", "encoded"), KNOWN)
def test_a_sid_is_the_same_as_text_and_as_bytes(text: str, encoded: str) -> None:
    sid = Sid.parse(text)
    assert sid.encode().hex() == encoded
    assert Sid.decode(bytes.fromhex(encoded)) == sid
    assert Sid.parse(text.lower()) == sid
    assert str(sid) == text


def test_what_follows_a_sid_is_left_alone() -> None:
    encoded = Sid.parse("S-1-5-18").encode()
    assert Sid.decode(encoded + b"more") == Sid.parse("S-1-5-18")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "S-1",
        "S-1-5",
        "S-1-5-",
        "S-2-5-18",
        "S-1-5-18 ",
        " S-1-5-18",
        "S-1-5--1",
        "S-1-5-4294967296",
        "S-1-5-\u0661",
        "S-1-0x1-1",
        "S-1-0x1234567890ABC-1",
        "S-1-5" + "-1" * 16,
        "S-1-5" + "-1" * 100_000,
        "S-1-5-18\n",
    ],
)
def test_text_that_is_no_sid_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        Sid.parse(text)


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "01",
        "0101000000000005",
        "0100000000000005",
        "020100000000000512000000",
        "0101000000000005120000",
        "0110000000000005" + "01000000" * 16,
        "01ff000000000005" + "01000000" * 20,
    ],
)
def test_bytes_that_are_no_sid_are_refused(encoded: str) -> None:
    with pytest.raises(DecodeError):
        Sid.decode(bytes.fromhex(encoded))


@given(st.integers(0, 2**48 - 1), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=15))
def test_every_sid_survives_both_forms(authority: int, sub_authorities: list[int]) -> None:
    sid = Sid(authority, tuple(sub_authorities))
    assert Sid.decode(sid.encode()) == sid == Sid.parse(str(sid))
