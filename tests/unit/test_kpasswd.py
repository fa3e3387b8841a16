"""The messages by which passwords are changed, and what their results say."""

from __future__ import annotations

import pytest

from purekrb.errors import DecodeError
from purekrb.messages.kpasswd import (
    PasswordPolicy,
    decode_frame,
    decode_result,
    encode_frame,
    encode_policy,
    encode_result,
)
from purekrb.messages.kpasswd import Result as Code
from support.vectors import params

DAY = 86400.0


@pytest.mark.parametrize("vector", params("kpasswd_policy.json", "{source}"))
def test_what_a_domain_controller_sends_is_read(vector: dict[str, object]) -> None:
    code, text, policy = decode_result(encode_result(Code.SOFTERROR, vector["result_string"]))  # type: ignore[arg-type]
    assert code == Code.SOFTERROR
    if "text" in vector:
        assert policy is None
        assert text == (vector["text"] or b"").decode()  # type: ignore[attr-defined]
    else:
        assert text == ""
        expected = PasswordPolicy(
            vector.get("min_length", 0),  # type: ignore[arg-type]
            vector.get("history", 0),  # type: ignore[arg-type]
            bool(vector.get("complexity", False)),
            0.0,
            float(vector.get("min_age", 0)),  # type: ignore[arg-type]
        )
        assert policy == expected
        assert encode_policy(expected) == vector["result_string"]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (PasswordPolicy(0, 0, False, 0, 0), "no rule is named"),
        (PasswordPolicy(8, 0, False, 0, 0), "at least 8 characters"),
        (
            PasswordPolicy(0, 24, False, 0, DAY),
            "none of the last 24 passwords; not before the old password is 1 day old",
        ),
        (PasswordPolicy(0, 0, False, 0, 2.5 * DAY), "not before the old password is 2.5 days old"),
        (PasswordPolicy(0, 0, False, 0, 90), "not before the old password is 1.5 minutes old"),
    ],
)
def test_rules_are_words(policy: PasswordPolicy, words: str) -> None:
    assert str(policy) == words


def test_complexity_is_told_by_what_it_asks_for() -> None:
    assert "three kinds" in str(PasswordPolicy(0, 0, True, 0, 0))


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"Too short\0", "Too short"), ("Zu kürz".encode(), "Zu kürz"), (b"\xff", ""), (b"a\0b", "")],
)
def test_texts_are_utf_8_and_may_end_in_a_nul(text: bytes, said: str) -> None:
    assert decode_result(encode_result(4, text)) == (4, said, None)


def test_a_frame_is_what_its_lengths_say() -> None:
    frame = encode_frame(0xFF80, b"ap", b"private")
    assert frame == b"\x00\x0f\xff\x80\x00\x02apprivate"
    assert decode_frame(frame) == (0xFF80, b"ap", b"private")
    for wrong in (b"", frame[:5], frame[:-1], frame + b"x", b"\x00\x06\x00\x01\x00\x01"):
        with pytest.raises(DecodeError):
            decode_frame(wrong)
    for short in (b"", b"\0"):
        with pytest.raises(DecodeError):
            decode_result(short)
