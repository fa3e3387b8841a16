"""Credentials: what proves a client's identity, and that it is not shown."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from purekrb import crypto
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.errors import CredentialError, DecodeError, PolicyError
from purekrb.keys import EncryptionKey
from support.credential_files import (
    ALICE,
    BOB,
    NOW,
    TGS,
    WEB,
    good_ccache,
    good_keytab,
    key,
    ticket,
)

SALT = b"R.TESTalice"


def test_a_password_gives_a_key_of_every_type() -> None:
    credential = Credential.from_password("alice@R.TEST", "pw")
    assert (credential.principal, credential.can_get_tgt) == (ALICE, True)
    assert credential.etypes == (18, 17, 20, 19, 23)
    for etype in credential.etypes:
        assert credential.key_for(etype, SALT) == crypto.string_to_key(etype, "pw", SALT)
    assert credential.key_for(3, SALT) is None


def test_a_password_takes_salt_and_parameters_and_derives_once() -> None:
    credential = Credential.from_password(ALICE, "pässword")
    params = (2).to_bytes(4, "big")
    found = credential.key_for(17, b"other", params)
    assert found == crypto.string_to_key(17, "pässword".encode(), b"other", params)
    assert credential.key_for(17, b"other", params) is found
    assert credential.key_for(17, b"other", (3).to_bytes(4, "big")) != found


def test_a_hostile_series_of_salts_costs_no_memory() -> None:
    credential = Credential.from_password(ALICE, "pw")
    for n in range(100):
        credential.key_for(23, bytes([n]))
    assert len(credential._derived) <= 16


def test_bad_parameters_are_a_typed_error_without_the_password_in_its_frames() -> None:
    credential = Credential.from_password(ALICE, "CANARY")
    with pytest.raises(PolicyError) as caught:
        credential.key_for(18, SALT, bytes(4))
    assert_no_canary(caught.value)


def assert_no_canary(error: BaseException | None) -> None:
    """No frame outside of this file, and no attribute of the error or of what led to it, holds CANARY."""
    while error is not None:
        assert "CANARY" not in repr((error.args, vars(error)))
        frame = error.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code.co_filename != __file__:
                assert "CANARY" not in repr(frame.tb_frame.f_locals)
            frame = frame.tb_next
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("make", "error"),
    [
        pytest.param(
            lambda: Credential.from_password("alice", "CANARY"), DecodeError, id="no-realm"
        ),
        pytest.param(
            lambda: Credential.from_password("a@R", "CANARY\ud800"), ValueError, id="no-Unicode"
        ),
        pytest.param(
            lambda: Keytab.from_password("a@R", "CANARY\ud800"), ValueError, id="keytab-no-Unicode"
        ),
        pytest.param(
            lambda: Keytab.from_password("alice", "CANARY"), DecodeError, id="keytab-no-realm"
        ),
        pytest.param(
            lambda: Keytab.decode(b"\5\2\0\0\0\7CANARY"), DecodeError, id="damaged-keytab"
        ),
        pytest.param(lambda: CCache.decode(b"\5\4\0\0CANARY"), DecodeError, id="damaged-ccache"),
    ],
)
def test_errors_do_not_carry_the_secret(make: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        make()
    assert_no_canary(caught.value)


def test_a_key_serves_its_own_type_only() -> None:
    credential = Credential.from_key(ALICE, key(17))
    assert (credential.etypes, credential.can_get_tgt) == ((17,), True)
    assert credential.key_for(17, SALT) == key(17)
    assert credential.key_for(18, SALT) is None


def test_a_keytab_gives_the_keys_of_the_newest_kvno(tmp_path: Path) -> None:
    old, new = key(18), EncryptionKey(18, bytes(32))
    keytab = Keytab(
        [
            KeytabEntry(ALICE, 2, new, NOW),
            KeytabEntry(ALICE, 1, old, NOW),
            KeytabEntry(ALICE, 1, key(17), NOW),
            KeytabEntry(ALICE, 2, key(19), NOW),
            KeytabEntry(ALICE, 2, EncryptionKey(3, b"8 bytes."), NOW),
            KeytabEntry(BOB, 9, key(20), NOW),
        ]
    )
    keytab.save(tmp_path / "kt")
    for source in (keytab, tmp_path / "kt", f"FILE:{tmp_path}/kt"):
        credential = Credential.from_keytab("alice@R.TEST", source)
        assert (credential.etypes, credential.can_get_tgt) == ((18, 19), True)
        assert credential.key_for(18, SALT) == new
        assert credential.key_for(17, SALT) is None


def test_a_keytab_without_the_principal_says_what_it_has() -> None:
    with pytest.raises(
        CredentialError,
        match=r"has no key for alice@R.TEST; it has HTTP/web.r.test@R.TEST kvno 2",
    ):
        Credential.from_keytab(ALICE, good_keytab())


def test_a_keytab_with_keys_of_unknown_types_only_is_refused() -> None:
    with pytest.raises(CredentialError, match="has no usable key"):
        Credential.from_keytab(
            ALICE, Keytab([KeytabEntry(ALICE, 1, EncryptionKey(3, b"8 bytes."), NOW)])
        )


def test_tickets_are_a_credential_that_cannot_get_a_tgt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cc"
    good_ccache().save(path)
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{path}")
    for source in (None, path, f"FILE:{path}", good_ccache()):
        credential = Credential.from_ccache(source)
        assert (credential.principal, credential.can_get_tgt, credential.etypes) == (
            ALICE,
            False,
            (),
        )
        assert credential.key_for(18, SALT) is None
        assert credential.ccache.find(TGS, now=NOW) is not None


def test_save_writes_the_tickets_and_refuses_where_there_are_none(tmp_path: Path) -> None:
    credential = Credential.from_password(ALICE, "pw")
    with pytest.raises(CredentialError, match=r"no ticket of alice@R.TEST to save"):
        credential.save(tmp_path / "cc")
    credential.ccache.store(ticket(WEB))
    credential.save(f"FILE:{tmp_path}/cc")
    assert [found.service for found in CCache.load(tmp_path / "cc")] == [WEB]


def test_wipe_overwrites_the_password_and_what_came_of_it() -> None:
    credential = Credential.from_password(ALICE, "pw")
    derived = credential.key_for(18, SALT)
    assert derived is not None
    password = credential._password
    credential.wipe()
    assert password == bytearray(2)
    for use in (lambda: derived.contents, lambda: credential.key_for(18, SALT)):
        with pytest.raises(CredentialError, match="was wiped"):
            use()
    assert (credential.can_get_tgt, credential.etypes, len(credential.ccache)) == (False, (), 0)


def test_wipe_leaves_keys_and_tickets_of_others_alone() -> None:
    mine, tickets = key(), good_ccache()
    for credential in (Credential.from_key(ALICE, mine), Credential.from_ccache(tickets)):
        credential.wipe()
    assert mine == key()
    assert len(tickets) == 2


CREDENTIALS: list[Any] = [
    pytest.param(lambda: Credential.from_password(ALICE, "CANARY"), "password", id="password"),
    pytest.param(lambda: Credential.from_key(ALICE, key()), "keys", id="key"),
    pytest.param(lambda: Credential.from_ccache(good_ccache()), "tickets", id="ccache"),
]


@pytest.mark.parametrize(("make", "word"), CREDENTIALS)
def test_a_credential_shows_nothing_and_is_not_copied(
    make: Callable[[], Credential], word: str
) -> None:
    credential = make()
    assert repr(credential) == str(credential) == f"Credential(alice@R.TEST, {word}=<redacted>)"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy, vars):
        with pytest.raises(TypeError):
            leak(credential)
