"""Damaged and hostile keytabs: K211 to K218."""

from __future__ import annotations

import base64
import os
import stat
import struct
import sys
import time
from pathlib import Path

import pytest

from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.errors import CredentialError, DecodeError
from purekrb.keys import EncryptionKey
from purekrb.names import Principal
from support.credential_files import (
    ALICE,
    NOW,
    WEB,
    good_keytab,
    key,
    keytab_file,
    keytab_record,
    run_python,
)

RECORD = keytab_record()


def test_the_unmodified_keytab_is_accepted() -> None:
    assert [entry.key for entry in Keytab.decode(keytab_file(RECORD))] == [key(17)]


REFUSED = [
    pytest.param(b"", id="K211-empty"),
    pytest.param(b"\5", id="K211-one-byte"),
    pytest.param(b"\5\x99" + keytab_file(RECORD)[2:], id="K211-version-0599"),
    pytest.param(b"\5\3" + keytab_file(RECORD)[2:], id="K211-version-0503"),
    pytest.param(b"\4\2" + keytab_file(RECORD)[2:], id="K211-version-0402"),
    pytest.param(b"\5\1" + keytab_file(RECORD)[2:], id="K211-version-0501-with-0502-contents"),
    pytest.param(b"\5\2" + b"\x7f\xff\xff\xff" + RECORD, id="K212-size-7fffffff"),
    pytest.param(b"\5\2" + b"\x80\0\0\0" + RECORD, id="K212-size-80000000"),
    pytest.param(keytab_file(0, RECORD), id="K212-size-0-before-an-entry"),
    pytest.param(b"\5\2" + b"\xff\xff\xff\xff" + RECORD, id="K212-size-minus-1-inside-an-entry"),
    pytest.param(b"\5\2" + b"\xff\xff\xff\xff", id="K212-size-minus-1-at-the-end"),
    pytest.param(
        b"\5\2" + (len(RECORD) + 1).to_bytes(4, "big") + RECORD, id="K212-bigger-than-the-file"
    ),
    pytest.param(
        b"\5\2" + (len(RECORD) - 1).to_bytes(4, "big") + RECORD, id="K212-smaller-than-the-entry"
    ),
    pytest.param(keytab_file(RECORD, -1000), id="K213-hole-past-the-end"),
    pytest.param(keytab_file(b"\xff\xff" + RECORD[2:]), id="K216-65535-components"),
    pytest.param(keytab_file(b"\0\x04" + RECORD[2:]), id="K216-more-components-than-there-are"),
    pytest.param(keytab_file(RECORD[:2] + b"\xff\xff" + RECORD[4:]), id="K216-realm-past-the-end"),
    pytest.param(
        keytab_file(RECORD[:-18] + b"\xff\xff" + RECORD[-16:]), id="K216-key-past-the-end"
    ),
    pytest.param(keytab_file(keytab_record(realm=b"R\0EVIL")), id="K216-NUL-in-a-name"),
    pytest.param(keytab_file(keytab_record(realm=b"\xff\xfe")), id="K216-name-is-no-UTF-8"),
    pytest.param(keytab_file(keytab_record(contents=bytes(15))), id="K216-key-of-15-bytes"),
    pytest.param(keytab_file(keytab_record(contents=b"")), id="K216-key-of-no-bytes"),
    pytest.param(base64.b64decode("BQIwMDAwMDA="), id="K216-payload-1"),
    pytest.param(
        base64.b64decode("BQIAAAAwAAEACjAwMDAwMDAwMDAAIDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw"),
        id="K216-payload-2",
    ),
    pytest.param(base64.b64decode("BQKAAAAA"), id="K216-payload-3"),
]


@pytest.mark.parametrize("data", REFUSED)
def test_a_malformed_keytab_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Keytab.decode(data)


def test_k211_version_0501_is_read_in_the_native_order_and_refused_in_the_other() -> None:
    other = "big" if sys.byteorder == "little" else "little"
    native, swapped = (keytab_record(version=1, order=order) for order in (sys.byteorder, other))
    (entry,) = Keytab.decode(b"\5\1" + struct.pack("=i", len(native)) + native)
    assert (entry.principal, entry.key) == (WEB, key(17))
    with pytest.raises(DecodeError):
        Keytab.decode(b"\5\1" + struct.pack("=i", len(native))[::-1] + swapped)


@pytest.mark.parametrize(
    "hole",
    [
        pytest.param(b"\xa5" * 40, id="K213-garbage"),
        pytest.param(keytab_record(kvno=9), id="K213-old-key"),
        pytest.param(b"\0", id="K213-one-byte"),
    ],
)
@pytest.mark.parametrize("place", ["first", "between", "last"])
def test_a_hole_is_passed_over_and_its_key_never_returned(hole: bytes, place: str) -> None:
    gap = (-len(hole)).to_bytes(4, "big", signed=True) + hole
    one, two = (len(r).to_bytes(4, "big") + r for r in (RECORD, keytab_record(kvno=4)))
    order = {"first": (gap, one, two), "between": (one, gap, two), "last": (one, two, gap)}[place]
    keytab = Keytab.decode(b"\5\2" + b"".join(order))
    assert [entry.kvno for entry in keytab] == [3, 4]
    assert keytab.find(WEB, kvno=9) == []


@pytest.mark.parametrize(
    ("kvno", "trailer", "expected"),
    [
        pytest.param(3, b"", 3, id="K214-no-trailer"),
        pytest.param(3, bytes(4), 3, id="K214-trailer-0"),
        pytest.param(3, bytes(3), 3, id="K214-trailer-too-short"),
        pytest.param(1, (257).to_bytes(4, "big"), 257, id="K214-257-wrapped-to-1"),
        pytest.param(0, (256).to_bytes(4, "big"), 256, id="K214-256-wrapped-to-0"),
        pytest.param(255, b"\xff\xff\xff\xff", 0xFFFFFFFF, id="K214-largest"),
        pytest.param(3, bytes(4) + b"\0\0\0\7", 3, id="K214-padding-after-trailer-0"),
    ],
)
def test_the_32_bit_kvno_counts_unless_it_is_zero(kvno: int, trailer: bytes, expected: int) -> None:
    keytab = Keytab.decode(keytab_file(keytab_record(kvno=kvno, trailer=trailer)))
    assert [entry.kvno for entry in keytab] == [expected]
    assert [entry.kvno for entry in Keytab.decode(keytab.encode())] == [expected]


def test_k215_every_prefix_is_refused_or_has_fewer_entries_and_never_part_of_a_key() -> None:
    whole = good_keytab()
    data = whole.encode()
    lengths = []
    for size in range(len(data)):
        try:
            entries = Keytab.decode(data[:size]).entries
        except DecodeError:
            continue
        assert entries == whole.entries[: len(entries)]
        lengths.append(len(entries))
    assert lengths == [0, 1, 2]  # only at the borders between records


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param("http/web.r.test@R.TEST", id="K217-other-case-of-the-class"),
        pytest.param("HTTP/WEB.R.TEST@R.TEST", id="K217-other-case-of-the-host"),
        pytest.param("HTTP/web.r.test@r.test", id="K217-other-case-of-the-realm"),
        pytest.param("HTTP/web.r.test@EVIL", id="K217-other-realm"),
        pytest.param("HTTP@R.TEST", id="K217-fewer-components"),
        pytest.param("HTTP/web.r.test/x@R.TEST", id="K217-more-components"),
        pytest.param("HTTP\\/web.r.test@R.TEST", id="K217-slash-within-a-component"),
    ],
)
def test_only_exactly_the_same_principal_is_found(asked: str) -> None:
    keytab = good_keytab()
    assert keytab.find("HTTP/web.r.test@R.TEST")
    assert keytab.find(asked) == []


_SAVE_UNDER_UMASK = """
import os, sys
from purekrb import Keytab
os.umask(int(sys.argv[1], 8))
keytab = Keytab.from_password("a@R", "pw")
seen = []
sys.addaudithook(lambda event, args: seen.append(os.stat(args[0]).st_mode & 0o7777) if event == "os.rename" else None)
keytab.save("kt")
print(oct(os.stat("kt").st_mode & 0o7777), [oct(mode) for mode in seen], os.listdir())
"""


@pytest.mark.parametrize("umask", ["000", "022", "077", "777"])
def test_k218_a_saved_keytab_has_mode_0600_under_every_umask_and_before_it_takes_the_name(
    tmp_path: Path, umask: str
) -> None:
    assert run_python(_SAVE_UNDER_UMASK, umask, cwd=tmp_path).strip() == "0o600 ['0o600'] ['kt']"


def test_k218_saving_follows_no_symbolic_link(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "kt"
    victim.write_bytes(b"precious")
    link.symlink_to(victim)
    with pytest.raises(CredentialError, match="symbolic link"):
        good_keytab().save(link)
    assert victim.read_bytes() == b"precious"
    link.unlink()
    good_keytab().save(link)
    assert Keytab.load(link) == good_keytab()


def test_k218_a_reader_of_the_old_keytab_keeps_it_whole_while_it_is_replaced(
    tmp_path: Path,
) -> None:
    path = tmp_path / "kt"
    good_keytab().save(path)
    path.chmod(0o666)
    with path.open("rb") as reader:
        Keytab([KeytabEntry(ALICE, 1, key(), NOW)]).save(path)
        assert Keytab.decode(reader.read()) == good_keytab()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(Keytab.load(path)) == 1
    assert os.listdir(tmp_path) == ["kt"]


def test_links_in_a_circle_are_called_so(tmp_path: Path) -> None:
    (tmp_path / "kt").symlink_to("other")
    (tmp_path / "other").symlink_to("kt")
    with pytest.raises(CredentialError, match="its symbolic links lead in a circle"):
        Keytab.load(tmp_path / "kt")


def test_k218_loading_follows_no_symbolic_link_of_another_user(tmp_path: Path) -> None:
    good_keytab().save(tmp_path / "real")
    (tmp_path / "inner").symlink_to("real")
    (tmp_path / "kt").symlink_to("./inner")
    assert Keytab.load(tmp_path / "kt") == good_keytab()
    if os.geteuid() != 0:
        pytest.skip("only root can give a link away")
    for link in ("kt", "inner"):
        os.lchown(tmp_path / link, 65534, 65534)
        with pytest.raises(CredentialError, match=rf"{link} is a symbolic link of uid 65534"):
            Keytab.load(tmp_path / "kt")
        os.lchown(tmp_path / link, 0, 0)
    assert Keytab.load(tmp_path / "kt") == good_keytab()


def test_parsing_and_looking_up_20000_entries_takes_linear_time() -> None:
    entries = [
        KeytabEntry(Principal((f"svc{n}",), "R"), 1, EncryptionKey(17, bytes(16)), NOW)
        for n in range(20_000)
    ]
    data = Keytab(entries).encode()
    start = time.process_time()
    keytab = Keytab.decode(data)
    decoded = time.process_time() - start
    assert len(keytab.find("svc19999@R")) == 1
    assert decoded < 2
