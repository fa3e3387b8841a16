"""A client whose keytab has several versions of its keys: the KDC has one of them, and not always the newest."""

from __future__ import annotations

from pathlib import Path

import pytest

from purekrb import Credential, EncryptionKey, KdcClient, Keytab, KeytabEntry, Principal
from purekrb.errors import PreauthFailedError
from purekrb.testing import Realm

WEB = Principal.parse("web@R.TEST")


def wrong(kvno: int, letter: str) -> list[KeytabEntry]:
    keys = (EncryptionKey(18, letter.encode() * 32), EncryptionKey(17, letter.encode() * 16))
    return [KeytabEntry(WEB, kvno, key) for key in keys]


def rights(realm: Realm, kvno: int) -> list[KeytabEntry]:
    entries = Keytab.from_password(WEB, "pw", kvno=kvno, etypes=(18, 17)).entries
    realm.add_user("web", "pw", kvno=kvno, etypes=(18, 17))
    return list(entries)


@pytest.mark.parametrize("preauth", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [3]),  # the KDC has the newest
        ([5], []),
        ([5], [3]),
        ([5, 5], [3]),  # two candidates of one kvno
        ([4], [3]),  # a candidate of the same kvno as the right one
    ],
)
def test_the_keys_that_the_kdc_has_are_found(
    before: list[int], after: list[int], preauth: bool
) -> None:
    with Realm("R.TEST") as realm:
        right = rights(realm, 4)
        if not preauth:
            realm.add_user("web", "pw", kvno=4, etypes=(18, 17), preauth=False)
        newer = [entry for n, kvno in enumerate(before) for entry in wrong(kvno, chr(97 + n))]
        older = [entry for n, kvno in enumerate(after) for entry in wrong(kvno, chr(110 + n))]
        credential = Credential.from_keytab(WEB, Keytab([*newer, *right, *older]))
        client = KdcClient(realm.config)
        assert client.get_tgt(credential).client == WEB
        assert credential.kvno == 4
        # The next log-in begins with the keys that were right: nothing is refused any more.
        refused: list[int] = []
        credential.turn_to_other_keys(refused)
        assert len(refused) == 1
        # Of one kvno, the newest entry is first; then that of the kvno before.
        assert (refused == [0]) == (before in ([], [4]))


def test_many_rotations_that_died_do_not_hide_the_key_that_the_kdc_has() -> None:
    with Realm("R.TEST") as realm:
        right = rights(realm, 4)
        died = [entry for letter in "abcdef" for entry in wrong(5, letter)]
        credential = Credential.from_keytab(WEB, Keytab([*died, *right, *wrong(3, "z")]))
        assert KdcClient(realm.config).get_tgt(credential).client == WEB
        assert credential.kvno == 4


def test_at_most_three_versions_are_tried_and_the_newest_is_told() -> None:
    with Realm("R.TEST") as realm:
        right = rights(realm, 4)
        stale = [entry for kvno in (9, 8, 7) for entry in wrong(kvno, str(kvno))]
        credential = Credential.from_keytab(WEB, Keytab([*stale, *right]))
        with pytest.raises(PreauthFailedError, match="kvno 9"):
            KdcClient(realm.config).get_tgt(credential)
        assert credential.kvno == 9
        credential = Credential.from_keytab(WEB, Keytab([*stale[2:], *right]))
        assert KdcClient(realm.config).get_tgt(credential).client == WEB


def test_a_key_that_came_into_the_file_first_counts_once_the_kdc_has_it(tmp_path: Path) -> None:
    """As in a rotation: the keytab, then the KDC."""
    path = tmp_path / "keytab"
    with Realm("R.TEST") as realm:
        old = rights(realm, 1)
        Keytab(old).save(path)
        credential, client = Credential.from_keytab(WEB, path), KdcClient(realm.config)
        client.get_tgt(credential)
        new = Keytab.from_password(WEB, "new", kvno=2, etypes=(18, 17))
        Keytab([*new, *old]).save(path)
        client.get_tgt(credential)
        assert credential.kvno == 1
        realm.add_user("web", "new", kvno=2, etypes=(18, 17))
        client.get_tgt(credential)
        assert credential.kvno == 2


def test_a_password_has_no_other_versions() -> None:
    with Realm("R.TEST") as realm:
        realm.add_user("web", "pw")
        credential = Credential.from_password(WEB, "wrong")
        assert not credential.turn_to_other_keys([])
        with pytest.raises(PreauthFailedError):
            KdcClient(realm.config).get_tgt(credential)
