"""The keytab of an account before and after a change of its keys, and its passwords."""

from __future__ import annotations

import os
import re
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest

from purekrb import Keytab, KeytabEntry, Principal
from purekrb.directory.account_keys import (
    AccountNames,
    belonging,
    candidates,
    finished,
    random_password,
    with_candidates,
    without,
)
from purekrb.keys import EncryptionKey

NOW = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
WEEK = timedelta(days=7)
NAMES = AccountNames("svc-web", "AD.TEST", ("HTTP/web.ad.test", "HTTP/web"))
OWN = Principal.parse("svc-web@AD.TEST")


def keys(letter: str) -> list[EncryptionKey]:
    return [EncryptionKey(18, letter.encode() * 32), EncryptionKey(17, letter.encode() * 16)]


def entries(
    letter: str, kvno: int, days: float, *names: str, account: AccountNames = NAMES
) -> list[KeytabEntry]:
    """The keys of that letter, `days` old, under the names of an account or others."""
    at = NOW - timedelta(days=days)
    principals = [Principal.parse(name) for name in names] or account.principals
    return [KeytabEntry(one, kvno, key, at) for one in principals for key in keys(letter)]


def versions(keytab: Keytab, principal: Principal = OWN) -> list[tuple[int, str]]:
    """kvno and letter of the AES256 keys."""
    found = keytab.find(principal, etype=18)
    return [(entry.kvno, chr(entry.key.contents[0])) for entry in found]


# Passwords -----------------------------------------------------------------------------------


def test_a_password_has_240_characters_that_no_policy_refuses() -> None:
    password = random_password(os.urandom).decode()
    assert len(password) == 240
    assert password.isascii()
    assert '"' not in password
    for kind in (r"[a-z]", r"[A-Z]", r"[0-9]", r"[^A-Za-z0-9]"):
        assert re.search(kind, password)
    # A part of three letters or digits, of any name, is not in it.
    assert not re.search(r"[A-Za-z0-9]{3}", password)
    assert random_password(os.urandom) != password.encode()


def test_each_character_of_a_password_is_as_frequent_as_the_others() -> None:
    text = "".join(random_password(os.urandom).decode() for _ in range(400))
    for at, size in ((0, 59), (1, 49), (2, 11)):
        counts = Counter(text[at::3])
        mean = len(text) / 3 / size
        assert len(counts) == size
        assert max(abs(count - mean) for count in counts.values()) < 6 * mean**0.5


# Names -----------------------------------------------------------------------------------------


def test_the_keytab_has_the_own_name_and_each_spn_once() -> None:
    names = AccountNames("svc", "AD.TEST", ("HTTP/a", "HTTP/a", "MSSQLSvc/a:1433", "x/h/CN=b"))
    assert list(map(str, names.principals)) == [
        "svc@AD.TEST",
        "HTTP/a@AD.TEST",
        "MSSQLSvc/a:1433@AD.TEST",
        "x/h/CN=b@AD.TEST",
    ]


def test_a_computer_has_the_names_of_its_host_in_small_letters() -> None:
    names = AccountNames("WEB$", "AD.TEST", ("HOST/web.ad.test",), dns_name="web.ad.test")
    assert list(map(str, names.principals)) == [
        "WEB$@AD.TEST",
        "host/web.ad.test@AD.TEST",
        "host/WEB@AD.TEST",
        "HOST/web.ad.test@AD.TEST",
    ]


def test_a_name_that_is_none_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    names = AccountNames("svc", "AD.TEST", ("no-spn\x00/", "HTTP/a"))
    assert [str(one) for one in names.principals] == ["svc@AD.TEST", "HTTP/a@AD.TEST"]
    assert "no key is kept for" in caplog.text


@pytest.mark.parametrize(
    ("names", "salts"),
    [
        (AccountNames("svc-Web", "AD.TEST"), [b"AD.TESTsvc-Web"]),
        (
            AccountNames("svc", "AD.TEST", user_principal_name="HTTP/app.ad.test@AD.TEST"),
            [b"AD.TESTHTTPapp.ad.test", b"AD.TESTsvc"],
        ),
        (AccountNames("svc", "AD.TEST", user_principal_name="svc@ad.test"), [b"AD.TESTsvc"]),
        (AccountNames("WEB1$", "AD.TEST"), [b"AD.TESThostweb1.ad.test"]),
    ],
)
def test_the_likely_salts_are_those_of_a_domain_controller(
    names: AccountNames, salts: list[bytes]
) -> None:
    assert names.likely_salts == salts


# Keytabs ---------------------------------------------------------------------------------------


def test_new_keys_come_first_and_nothing_is_lost() -> None:
    before = Keytab([*entries("a", 3, 40), *entries("o", 1, 1, "other@AD.TEST")])
    new = candidates(b"new", [b"one", b"two", b"one"])
    assert [key.etype for key in new] == [18, 17, 18, 17]
    after = with_candidates(before, NAMES, new, 4, NOW)
    assert after.entries[-len(before) :] == before.entries
    assert len(after.find(OWN, 4)) == 4
    # Again, as after a rotation that died: the slots are the same, and all stay.
    again = with_candidates(after, NAMES, candidates(b"newer", [b"one"]), 4, NOW)
    assert len(again.find(OWN, 4)) == 6
    assert Keytab.decode(again.encode()) == again
    assert without(again, candidates(b"newer", [b"one"])) == after


def test_what_was_never_used_is_dropped_once_the_right_key_is_known() -> None:
    keytab = Keytab([*entries("b", 4, 0), *entries("x", 4, 3), *entries("a", 3, 40)])
    after = finished(keytab, NAMES, keys("b"), 4, NOW, keep=WEEK, before=3)
    assert versions(after) == [(4, "b"), (3, "a")]


def test_the_kvno_is_corrected() -> None:
    keytab = Keytab([*entries("b", 4, 0), *entries("a", 3, 40)])
    after = finished(keytab, NAMES, keys("b"), 7, NOW, keep=WEEK, before=3)
    assert versions(after) == [(7, "b"), (3, "a")]


def test_keys_are_dropped_a_week_after_they_were_replaced() -> None:
    keytab = Keytab([*entries("c", 5, 8), *entries("b", 4, 38), *entries("a", 3, 68)])
    after = finished(keytab, NAMES, keys("d"), 6, NOW, keep=WEEK, before=5)
    assert versions(after) == [(6, "d"), (5, "c")]
    keytab = Keytab([*entries("c", 5, 6), *entries("b", 4, 38), *entries("a", 3, 68)])
    after = finished(keytab, NAMES, keys("d"), 6, NOW, keep=WEEK, before=5)
    assert versions(after) == [(6, "d"), (5, "c"), (4, "b")]


def test_the_key_that_was_in_use_until_now_stays_whatever_the_entries_claim() -> None:
    """The next one was put there long ago, by a rotation that died, and the kvno made a leap."""
    keytab = Keytab([*entries("x", 4, 40), *entries("a", 3, 70)])
    after = finished(keytab, NAMES, keys("b"), 9, NOW, keep=WEEK, before=3)
    assert (3, "a") in versions(after)


def test_keys_of_former_names_live_as_long_as_those_of_the_account() -> None:
    old = [*entries("a", 3, 1), *entries("a", 3, 1, "HTTP/old.ad.test@AD.TEST")]
    other = entries("o", 9, 99, "other@AD.TEST")
    former = Principal.parse("HTTP/old.ad.test@AD.TEST")
    after = finished(Keytab([*old, *other]), NAMES, keys("b"), 4, NOW, keep=WEEK, before=3)
    assert versions(after, former) == [(3, "a")]
    later = finished(after, NAMES, keys("c"), 5, NOW + 2 * WEEK, keep=WEEK, before=4)
    assert versions(later, former) == []
    assert versions(later) == [(5, "c"), (4, "b")]
    assert later.find("other@AD.TEST") == Keytab(other).find("other@AD.TEST")


def test_the_entries_of_an_account_are_those_of_its_names_and_keys() -> None:
    mine = [*entries("a", 3, 1), *entries("a", 3, 1, "HTTP/old.ad.test@AD.TEST")]
    other = entries("o", 3, 1, "other@AD.TEST", "svc-web@OTHER.TEST")
    assert belonging(Keytab([*other, *mine]), NAMES) == mine
