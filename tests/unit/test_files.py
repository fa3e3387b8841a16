"""Files that hold secrets: what is read, what is refused, and how files are replaced."""

from __future__ import annotations

import logging
import os
import stat
import threading
from pathlib import Path

import pytest

from purekrb.credentials import files
from purekrb.errors import CredentialError, KerberosError

WHAT = "credential cache"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"data")
    path.chmod(0o600)
    return path


def test_a_private_file_is_read(secret: Path) -> None:
    assert files.read_private(secret, what=WHAT) == b"data"


def test_an_empty_file_is_read_as_nothing(secret: Path) -> None:
    secret.write_bytes(b"")
    assert files.read_private(secret, what=WHAT) == b""


def test_a_missing_file_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match=r"cannot read the credential cache .*/none: there is no such file"):
        files.read_private(tmp_path / "none", what=WHAT)


def test_a_file_beyond_the_cap_is_refused_and_one_at_the_cap_is_read(secret: Path) -> None:
    assert files.read_private(secret, what=WHAT, max_size=4) == b"data"
    with pytest.raises(CredentialError, match="larger than 3 bytes"):
        files.read_private(secret, what=WHAT, max_size=3)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_private_file_that_others_can_access_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(CredentialError, match=f"mode {mode:04o} gives others access, expected 0600"):
        files.read_private(secret, what=WHAT)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_shared_file_may_be_read_by_a_group(secret: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    secret.chmod(mode)
    with caplog.at_level(logging.WARNING, "purekrb"):
        assert files.read_private(secret, what="keytab", shared=True) == b"data"
    assert not caplog.records


def test_a_shared_file_that_everybody_can_read_is_read_with_a_warning(
    secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret.chmod(0o644)
    with caplog.at_level(logging.WARNING, "purekrb"):
        assert files.read_private(secret, what="keytab", shared=True) == b"data"
    assert [record.getMessage() for record in caplog.records] == [
        f"the keytab {secret} has mode 0644: every user can read it"
    ]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_shared_file_that_others_can_write_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(CredentialError, match="lets others write it"):
        files.read_private(secret, what="keytab", shared=True)


def test_a_shared_file_may_have_hard_links(secret: Path) -> None:
    os.link(secret, secret.with_name("other"))
    assert files.read_private(secret, what="keytab", shared=True) == b"data"


def test_write_makes_a_file_of_mode_0600_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new"
    files.write_private(path, b"one", what=WHAT)
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["new"]


def test_write_replaces_the_file_and_its_mode(secret: Path) -> None:
    secret.chmod(0o666)
    inode = secret.stat().st_ino
    files.write_private(secret, b"two", what=WHAT)
    assert secret.read_bytes() == b"two"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.stat().st_ino != inode


def test_write_takes_a_path_relative_to_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.write_private("plain", b"three", what=WHAT)
    assert (tmp_path / "plain").read_bytes() == b"three"


def test_write_to_a_missing_directory_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="there is no such file or directory"):
        files.write_private(tmp_path / "none" / "file", b"", what=WHAT)


@pytest.mark.parametrize("kind", ["symbolic link", "dangling symbolic link", "directory", "FIFO"])
def test_write_replaces_only_regular_files(tmp_path: Path, secret: Path, kind: str) -> None:
    path = tmp_path / "target"
    if kind == "symbolic link":
        path.symlink_to(secret)
    elif kind == "dangling symbolic link":
        path.symlink_to(tmp_path / "none")
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(CredentialError, match=f"it is a {kind.removeprefix('dangling ')}, not"):
        files.write_private(path, b"new", what=WHAT)
    assert sorted(os.listdir(tmp_path)) == before
    assert secret.read_bytes() == b"data"


def test_no_descriptor_is_left_open(secret: Path, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    files.read_private(secret, what=WHAT)
    files.write_private(secret, b"new", what=WHAT)
    with files.locked(secret, what=WHAT):
        pass
    secret.chmod(0o644)
    for path in (secret, tmp_path, tmp_path / "none"):
        with pytest.raises(CredentialError):
            files.read_private(path, what=WHAT)
    assert len(os.listdir("/proc/self/fd")) == before


def test_remove_overwrites_with_zeros_and_unlinks(secret: Path) -> None:
    with secret.open("rb") as reader:
        files.remove_private(secret, what=WHAT)
        assert not secret.exists()
        assert reader.read() == bytes(4)


def test_remove_does_not_touch_what_a_link_points_to(secret: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(secret)
    with pytest.raises(CredentialError, match="symbolic link"):
        files.remove_private(link, what=WHAT)
    assert secret.read_bytes() == b"data"


def test_a_lock_keeps_other_threads_out_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "cc"
    inside, most, rounds = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, rounds
        for _ in range(25):
            with files.locked(path, what=WHAT):
                inside += 1
                most = max(most, inside)
                rounds += 1
                os.sched_yield()
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, rounds) == (1, 100)
    assert os.listdir(tmp_path) == []


def test_a_lock_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="cannot make the lock"), files.locked(tmp_path / "a" / "b", what=WHAT):
        pass


def test_errors_of_the_locked_block_pass_through_and_release_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.locked(tmp_path / "cc", what=WHAT):
        _ = 1 / 0
    with files.locked(tmp_path / "cc", what=WHAT):
        assert os.listdir(tmp_path) == ["cc.lock"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/tmp/x", ("FILE", "/tmp/x")),
        ("FILE:/tmp/x", ("FILE", "/tmp/x")),
        ("WRFILE:x", ("WRFILE", "x")),
        ("dir::/a/tkt", ("DIR", ":/a/tkt")),
        ("C:\\cc", ("FILE", "C:\\cc")),
        ("/tmp/a:b", ("FILE", "/tmp/a:b")),
        ("MEMORY:", ("MEMORY", "")),
        (":x", ("FILE", ":x")),
    ],
)
def test_a_name_is_split_into_type_and_residual(name: str, expected: tuple[str, str]) -> None:
    assert files.split_type(name) == expected


def test_errors_of_a_failed_write_hold_no_frame_with_the_data(tmp_path: Path) -> None:
    with pytest.raises(CredentialError) as caught:
        files.write_private(tmp_path / "none" / "file", b"CANARY", what=WHAT)
    error: BaseException | None = caught.value
    seen = 0
    while error is not None:
        frame = error.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code.co_filename != __file__:
                assert "CANARY" not in repr(frame.tb_frame.f_locals)
            seen += 1
            frame = frame.tb_next
        error = error.__cause__ or error.__context__
    assert seen
    assert isinstance(caught.value, KerberosError)
