"""Keytabs: the file format, lookups and changes."""

from __future__ import annotations

import copy
import pickle
import stat
import struct
import sys
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from purekrb import crypto
from purekrb.constants import NameType
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.errors import CredentialError, DecodeError, UnsupportedError
from purekrb.keys import EncryptionKey
from purekrb.names import Principal
from support.credential_files import ALICE, NOW, WEB, good_keytab, key, keytab_file, keytab_record


def test_a_keytab_survives_encoding() -> None:
    keytab = good_keytab()
    assert Keytab.decode(keytab.encode()) == keytab
    assert [entry.principal.name_type for entry in Keytab.decode(keytab.encode())] == [
        NameType.SRV_INST
    ] * 3


def test_the_file_has_the_documented_layout() -> None:
    entry = KeytabEntry(
        WEB, 300, EncryptionKey(17, bytes(16)), datetime.fromtimestamp(0x01020304, timezone.utc)
    )
    assert Keytab([entry]).encode() == bytes.fromhex(
        "0502 0000003d 0002 0006 522e54455354 0004 48545450 000a 7765622e722e74657374 00000002"
        "01020304 2c 0011 0010 00000000000000000000000000000000 0000012c"
    )


def test_every_field_of_a_record_is_read() -> None:
    (entry,) = Keytab.decode(keytab_file(keytab_record()))
    assert entry == KeytabEntry(
        WEB, 3, key(17), datetime.fromtimestamp(1_700_000_000, timezone.utc)
    )
    assert entry.principal.name_type == NameType.SRV_INST
    assert entry.timestamp.tzinfo is timezone.utc


def test_version_1_is_read_in_the_byte_order_of_this_machine() -> None:
    record = keytab_record(version=1, order=sys.byteorder)
    (entry,) = Keytab.decode(b"\5\1" + struct.pack("=i", len(record)) + record)
    assert (entry.principal, entry.kvno, entry.key) == (WEB, 3, key(17))


def test_an_empty_keytab_has_no_entries() -> None:
    assert list(Keytab.decode(b"\5\2")) == []
    assert Keytab().encode() == b"\5\2"


def test_a_size_of_zero_ends_the_keytab() -> None:
    assert len(Keytab.decode(keytab_file(keytab_record(), 0) + bytes(100))) == 1


def test_padding_of_a_hole_that_was_used_again_is_passed_over() -> None:
    padded = keytab_record(trailer=(7).to_bytes(4, "big") + bytes(30))
    assert [entry.kvno for entry in Keytab.decode(keytab_file(padded, keytab_record()))] == [7, 3]


def test_keys_of_unknown_encryption_types_are_kept() -> None:
    data = keytab_file(
        keytab_record(etype=3, contents=b"8 bytes."), keytab_record(etype=0xFF80, contents=b"x")
    )
    keytab = Keytab.decode(data)
    assert [(entry.key.etype, entry.key.contents) for entry in keytab] == [
        (3, b"8 bytes."),
        (-128, b"x"),
    ]
    assert Keytab.decode(keytab.encode()) == keytab


def test_find_gives_the_newest_kvno_first() -> None:
    keytab = good_keytab()
    assert [entry.kvno for entry in keytab.find("HTTP/web.r.test@R.TEST")] == [300, 2]
    assert [entry.kvno for entry in keytab.find(WEB, kvno=2)] == [2]
    assert [entry.kvno for entry in keytab.find(WEB, etype=18)] == [300]
    assert keytab.find(WEB, kvno=2, etype=18) == []
    assert keytab.find(WEB, kvno=300 & 0xFF) == []


def test_find_prefers_the_later_of_two_entries_with_one_kvno() -> None:
    old, new = (
        KeytabEntry(WEB, 1, EncryptionKey(17, bytes([n]) * 16), NOW + timedelta(n)) for n in (0, 1)
    )
    assert Keytab([old, new]).find(WEB) == Keytab([new, old]).find(WEB) == [new, old]


def test_find_of_a_text_without_realm_is_told() -> None:
    with pytest.raises(DecodeError, match="names no realm"):
        good_keytab().find("HTTP/web.r.test")
    assert good_keytab().find(Principal(WEB.components, "")) == []


def test_add_replaces_the_same_principal_kvno_and_etype_only() -> None:
    keytab = good_keytab()
    other = EncryptionKey(17, bytes(16))
    changed = keytab.add(KeytabEntry(WEB, 2, other, NOW), KeytabEntry(ALICE, 2, other, NOW))
    assert len(changed) == 4
    assert changed.find(WEB, 2)[0].key == other
    assert len(keytab) == 3
    assert keytab.find(WEB, 2)[0].key == key(17)


def test_merge_takes_the_entries_of_both() -> None:
    keytab, other = good_keytab(), Keytab([KeytabEntry(ALICE, 1, key(19), NOW)])
    assert set(keytab.merge(other).principals) == {*keytab.principals, ALICE}
    assert keytab.merge(keytab) == keytab


def test_remove_takes_out_what_matches_and_says_so_where_nothing_does() -> None:
    keytab = good_keytab()
    assert [entry.kvno for entry in keytab.remove(WEB, kvno=2)] == [300, 1]
    assert len(keytab.remove(WEB)) == 1
    with pytest.raises(
        CredentialError, match=r"no such key of alice@R.TEST; it has HTTP/web.r.test@R.TEST kvno 2"
    ):
        keytab.remove(ALICE)


def test_from_password_takes_the_default_salt_of_the_principal() -> None:
    keytab = Keytab.from_password("HTTP/web.r.test@R.TEST", "pw", kvno=4)
    expected = [crypto.string_to_key(etype, "pw", "R.TESTHTTPweb.r.test") for etype in (18, 17)]
    assert [(entry.kvno, entry.key) for entry in keytab] == [(4, k) for k in expected]


def test_from_password_takes_another_salt_types_and_time() -> None:
    salt = "AD.TESThostweb.ad.test"
    (entry,) = Keytab.from_password("WEB$@AD.TEST", b"pw", etypes=[20], salt=salt, timestamp=NOW)
    assert entry == KeytabEntry(
        Principal.parse("WEB$@AD.TEST"), 1, crypto.string_to_key(20, "pw", salt), NOW
    )


def test_load_and_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kt"
    good_keytab().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name in (path, str(path), f"FILE:{path}", f"WRFILE:{path}"):
        assert Keytab.load(name) == good_keytab()
    monkeypatch.setenv("KRB5_KTNAME", f"FILE:{path}")
    assert Keytab.load() == good_keytab()


def test_load_names_the_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "kt"
    path.write_bytes(b"\5\2\0\0")
    with pytest.raises(DecodeError, match=f"{path}: the keytab is cut off or damaged"):
        Keytab.load(path)


def test_other_types_of_keytabs_are_not_supported() -> None:
    with pytest.raises(
        UnsupportedError, match="keytabs of type KDB are not supported: name a file"
    ):
        Keytab.load("KDB:")


def test_a_kvno_or_name_that_the_format_cannot_hold_is_refused() -> None:
    for entry in (
        KeytabEntry(WEB, 1 << 32, key()),
        KeytabEntry(Principal(("x" * 65536,), "R"), 1, key()),
    ):
        with pytest.raises(CredentialError, match="does not fit"):
            Keytab([entry]).encode()
    assert len(Keytab.decode(Keytab([KeytabEntry(WEB, (1 << 32) - 1, key())]).encode())) == 1


def test_keytabs_show_no_key() -> None:
    keytab = good_keytab()
    secret = keytab.entries[0].key.contents
    for shown in (repr(keytab), str(keytab.entries[0]), repr(keytab.entries), f"{keytab}"):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
        assert "HTTP/web.r.test@R.TEST" in shown or "redacted" in shown
    for leak in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(keytab)
    with pytest.raises(TypeError):
        asdict(keytab.entries[0])
