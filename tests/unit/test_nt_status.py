"""Windows' reasons for a refused log-on, in KRB-ERRORs and in LDAP's diagnostic texts."""

from __future__ import annotations

from typing import Any

import pytest

from purekrb.directory.ldap import _refused
from purekrb.nt_status import LOGON_STATUS, WIN32_STATUS, describe


def bind_refused(diagnostic: str, number: int = 49) -> str:
    result: dict[str, Any] = {
        "result": number,
        "description": "invalidCredentials",
        "message": diagnostic,
        "referrals": None,
    }
    return str(_refused("the bind", result))


@pytest.mark.parametrize(
    ("diagnostic", "words"),
    [
        (
            "80090346: LdapErr: DSID-0C09056D, comment: AcceptSecurityContext error, "
            "data 80090346, v4563",
            "channel bindings",
        ),
        (
            "80090346: LdapErr: DSID-0C090597, comment: AcceptSecurityContext error, data 35b, v",
            "TLS",
        ),
        (
            "8009030C: LdapErr: DSID-0C09058A, comment: AcceptSecurityContext error, data 52e, v4f7c",
            "the name or the password is wrong",
        ),
        (
            "8009030C: LdapErr: DSID-0, comment: AcceptSecurityContext error, data 533, v1",
            "disabled",
        ),
        ("8009030C: LdapErr: DSID-0, comment: AcceptSecurityContext error, data 775, v1", "locked"),
        (
            "8009030C: LdapErr: DSID-0, comment: AcceptSecurityContext error, data 773, v1",
            "changed",
        ),
        ("8009030C: LdapErr: DSID-0, comment: AcceptSecurityContext error, data 530, v1", "hour"),
    ],
)
def test_a_refused_bind_says_why(diagnostic: str, words: str) -> None:
    assert words in bind_refused(diagnostic)


@pytest.mark.parametrize(
    "diagnostic", ["", "8009030C: LdapErr", "data 1, data 52e", "data fffffff"]
)
def test_a_text_without_a_known_number_leaves_the_general_advice(diagnostic: str) -> None:
    assert "check its clock" in bind_refused(diagnostic)


def test_only_a_refused_authentication_is_read_so() -> None:
    assert "disabled" not in bind_refused("00002098: SecErr: DSID-0, data 533, v1", number=50)


def test_every_number_has_words_and_the_rest_are_shown() -> None:
    assert set(WIN32_STATUS.values()) <= set(LOGON_STATUS)
    for status, (words, advice) in LOGON_STATUS.items():
        assert describe(status) == (words, advice)
        assert status >> 30 == 3
        assert words
        assert advice
    assert describe(0xC0FFEE00) == ("the domain controller's reason is 0xC0FFEE00", "")
