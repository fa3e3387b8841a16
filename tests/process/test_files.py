"""Files that hold secrets: what is read, what is refused, and how files are replaced."""

from __future__ import annotations

import fcntl
import logging
import os
import pwd
import resource
import signal
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from purekrb.credentials import files
from purekrb.errors import CredentialError, KerberosError
from support.processes import Child

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
    with pytest.raises(
        CredentialError, match=r"cannot read the credential cache .*/none: there is no such file"
    ):
        files.read_private(tmp_path / "none", what=WHAT)


def test_a_file_beyond_the_cap_is_refused_and_one_at_the_cap_is_read(secret: Path) -> None:
    assert files.read_private(secret, what=WHAT, max_size=4) == b"data"
    with pytest.raises(CredentialError, match="larger than 3 bytes"):
        files.read_private(secret, what=WHAT, max_size=3)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_private_file_that_others_can_access_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(
        CredentialError, match=f"mode {mode:04o} gives others access, expected 0600"
    ):
        files.read_private(secret, what=WHAT)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_shared_file_may_be_read_by_a_group(
    secret: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
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


def test_write_takes_a_path_relative_to_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.fixture(params=["of the open file", "of the process"])
def kind_of_lock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of fcntl's locks: Linux has the first, macOS and the other systems the second."""
    if request.param == "of the process":
        monkeypatch.setattr(files, "_OFD", {})
        monkeypatch.setattr(files, "_turn", threading.RLock())
    return str(request.param)


@pytest.mark.usefixtures("kind_of_lock")
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
    with (
        pytest.raises(
            CredentialError, match=r"cannot change the credential cache .*: there is no such file"
        ),
        files.locked(tmp_path / "a" / "b", what=WHAT),
    ):
        pass
    with files.locked(tmp_path / "a" / "b", what=WHAT, make=False) as file:
        assert file is None


def test_errors_of_the_locked_block_pass_through_and_release_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.locked(tmp_path / "cc", what=WHAT):
        _ = 1 / 0
    assert os.listdir(tmp_path) == []
    with files.locked(tmp_path / "cc", what=WHAT):
        assert os.listdir(tmp_path) == ["cc"]
    assert os.listdir(tmp_path) == []


def lock_elsewhere(path: Path, kind: int) -> Child:
    """Lock the file as MIT's programs did before Linux 3.15, in a process that ends when it is killed."""
    ready = path.with_name("ready")

    def job(_: int) -> None:
        fd = os.open(path, os.O_RDWR)
        fcntl.lockf(fd, kind)
        ready.touch()
        signal.pause()

    child = Child(job)
    while not ready.exists():
        time.sleep(0.001)
    ready.unlink()
    return child


def end(child: Child) -> None:
    child.kill()
    child.output()


def under_lock(path: Path, *, shared: bool) -> None:
    with files.locked(path, what=WHAT, shared=shared) as file:
        assert file is not None
        file.read()


_WAITING: dict[str, Callable[[Path], object]] = {
    "write": lambda path: files.write_private(path, b"new", what=WHAT),
    "remove": lambda path: files.remove_private(path, what=WHAT),
    "locked": lambda path: under_lock(path, shared=False),
    "read": lambda path: files.read_private(path, what=WHAT),
}


@pytest.mark.usefixtures("kind_of_lock")
@pytest.mark.parametrize("kind", [fcntl.LOCK_EX, fcntl.LOCK_SH], ids=["exclusive", "shared"])
@pytest.mark.parametrize("call", _WAITING)
def test_writers_wait_for_the_lock_of_another_program_and_readers_for_an_exclusive_one(
    secret: Path, call: str, kind: int
) -> None:
    other = lock_elsewhere(secret, kind)
    thread = threading.Thread(target=_WAITING[call], args=(secret,))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive() == (call != "read" or kind == fcntl.LOCK_EX)
    if thread.is_alive():
        assert secret.read_bytes() == b"data"
    end(other)
    thread.join(10)
    assert not thread.is_alive()
    assert secret.exists() == (call != "remove")


@pytest.mark.usefixtures("kind_of_lock")
def test_a_file_that_others_can_lock_is_waited_for_only_so_long(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_WAITS", (0.001,) * 5)
    secret.chmod(0o640)
    other = lock_elsewhere(secret, fcntl.LOCK_SH)
    assert files.read_private(secret, what="keytab", shared=True) == b"data"
    with pytest.raises(CredentialError, match="another program has kept it locked for ten seconds"):
        under_lock(secret, shared=True)
    end(other)
    under_lock(secret, shared=True)


def test_a_file_that_others_may_lock_is_replaced_without_a_lock(secret: Path) -> None:
    other = lock_elsewhere(secret, fcntl.LOCK_EX)
    secret.chmod(0o666)
    start = time.monotonic()
    files.write_private(secret, b"new", what=WHAT)
    assert time.monotonic() - start < 5
    end(other)
    assert secret.read_bytes() == b"new"


@pytest.mark.usefixtures("kind_of_lock")
def test_a_lock_is_on_the_file_that_has_the_path_when_it_is_got(secret: Path) -> None:
    other = lock_elsewhere(secret, fcntl.LOCK_EX)

    def replace_and_end() -> None:
        time.sleep(0.02)
        new = secret.with_name("new")
        new.write_bytes(b"newer")
        new.chmod(0o600)
        new.replace(secret)
        other.kill()

    thread = threading.Thread(target=replace_and_end)
    thread.start()
    with files.locked(secret, what=WHAT) as file:
        assert file is not None
        assert file.read() == b"newer"
        assert file.extend(b"+", {0: b"N"})
        secret.unlink()
        assert not file.extend(b"+", {})
    thread.join()
    other.output()
    assert not secret.exists()


def test_what_cannot_be_added_as_a_whole_is_not_added(secret: Path) -> None:
    def job(writer: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, 6))
        with files.locked(secret, what=WHAT) as file:
            assert file is not None
            with pytest.raises(CredentialError, match="the file size limit is reached"):
                file.extend(b"12345678", {0: b"x"})
        os.write(writer, b"refused")

    child = Child(job)
    assert child.output() == b"refused"
    assert secret.read_bytes() == b"data"


def test_a_keytab_that_its_owner_may_only_read_is_locked_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kt"
    path.write_bytes(b"data")
    path.chmod(0o400)

    def job(writer: int) -> None:
        if os.geteuid() == 0:
            for owned in (path, tmp_path):
                os.chown(owned, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        with files.locked("kt", what="keytab", shared=True) as file:
            assert file is not None
            file.replace(file.read() + b"+")
        os.write(writer, Path("kt").read_bytes())

    monkeypatch.chdir(tmp_path)  # what is above it, the other user may not enter
    assert Child(job).output() == b"data+"


# -- what killed writers leave


STALE = ".purekrb.0123456789abcdef"


@pytest.fixture
def stale(tmp_path: Path) -> Path:
    path = tmp_path / STALE
    path.write_bytes(b"ticket")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("call", ["write", "replace", "remove"])
def test_what_a_killed_writer_left_is_overwritten_and_removed_by_the_next(
    secret: Path, stale: Path, call: str
) -> None:
    with stale.open("rb") as reader:
        if call == "write":
            files.write_private(secret, b"new", what=WHAT)
        elif call == "remove":
            files.remove_private(secret, what=WHAT)
        else:
            with files.locked(secret, what=WHAT) as file:
                assert file is not None
                file.replace(b"new")
        assert os.listdir(secret.parent) == ([] if call == "remove" else ["secret"])
        assert reader.read() == bytes(6)


def test_what_a_living_process_writes_is_left_alone(secret: Path, stale: Path) -> None:
    fd = os.open(stale, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    files.write_private(secret, b"new", what=WHAT)
    assert stale.read_bytes() == b"ticket"
    os.close(fd)
    files.write_private(secret, b"new", what=WHAT)
    assert not stale.exists()


@pytest.mark.parametrize(
    "name",
    [
        ".purekrb.0123456789abcde",
        ".purekrb.0123456789abcdeg",
        "x.purekrb.0123456789abcdef",
        f"{STALE}0",
    ],
)
def test_files_of_other_names_are_left_alone(secret: Path, stale: Path, name: str) -> None:
    stale.rename(stale.with_name(name))
    files.write_private(secret, b"new", what=WHAT)
    assert sorted(os.listdir(secret.parent)) == sorted([name, "secret"])


@pytest.mark.parametrize(
    "kind", ["symbolic link", "hard link", "FIFO", "directory", "another user's file"]
)
def test_what_someone_else_put_in_the_place_of_a_temporary_file_is_left_alone(
    tmp_path: Path, secret: Path, stale: Path, kind: str
) -> None:
    victim = tmp_path / "victim"
    if kind == "another user's file":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(stale, 65534, 65534)
    elif kind == "directory":
        stale.unlink()
        stale.mkdir()
    elif kind == "FIFO":
        stale.unlink()
        os.mkfifo(stale, 0o600)
    elif kind == "hard link":
        os.link(stale, victim)
    else:
        stale.rename(victim)
        stale.symlink_to(victim)
    files.write_private(secret, b"new", what=WHAT)
    assert secret.read_bytes() == b"new"
    assert os.path.lexists(stale)
    if victim.exists():
        assert victim.read_bytes() == b"ticket"


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


# Turns at a file --------------------------------------------------------------------------------


def test_one_has_the_turn_at_a_file_and_others_read_and_write_it_meanwhile(secret: Path) -> None:
    with files.turn_at(secret, what="keytab"):
        with (
            pytest.raises(CredentialError, match="is being changed by another process"),
            files.turn_at(secret, what="keytab"),
        ):
            pytest.fail("two have the turn")
        files.write_private(secret, b"new", what="keytab")
        assert files.read_private(secret, what="keytab") == b"new"
        with files.turn_at(secret.with_name("other"), what="keytab"):
            pass
    with files.turn_at(secret, what="keytab"):
        pass
    assert [path.name for path in secret.parent.iterdir()] == [secret.name]


def test_a_killed_process_has_no_turn(secret: Path) -> None:
    def hold(writer: int) -> None:
        with files.turn_at(secret, what="keytab"):
            os.write(writer, b"1")
            time.sleep(60)

    child = Child(hold)
    deadline = time.monotonic() + 20
    while not secret.with_name(f".{secret.name}.lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    child.kill()
    child.output()
    with files.turn_at(secret, what="keytab"):
        pass
    assert [path.name for path in secret.parent.iterdir()] == [secret.name]


def test_a_turn_in_a_missing_directory_is_a_typed_error(tmp_path: Path) -> None:
    with (
        pytest.raises(CredentialError, match="cannot lock the keytab"),
        files.turn_at(tmp_path / "missing" / "k", what="keytab"),
    ):
        pytest.fail("there is no such directory")


def test_a_turn_in_a_directory_of_others_says_what_is_missing(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(secret.parent)  # root's user is not let through the directories above
    root = os.geteuid() == 0
    secret.parent.chmod(0o555)
    if root:
        os.seteuid(12345)
    try:
        with (
            pytest.raises(CredentialError, match="must be able to write to its directory"),
            files.turn_at(secret.name, what="keytab"),
        ):
            pytest.fail("others may not write there")
    finally:
        if root:
            os.seteuid(0)
        secret.parent.chmod(0o700)
    with files.turn_at(secret.name, what="keytab"):
        pass


def _other_name_of(path: Path) -> None:
    os.link(path, path.with_name("shadow"))


def _writable_by_all(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize(
    ("exchange", "said"),
    [
        pytest.param(_other_name_of, "it has 2 hard links", id="K687-another name of a file"),
        pytest.param(_writable_by_all, "lets others write it", id="K687-writable by all"),
    ],
)
def test_a_file_that_was_exchanged_is_not_given_away(
    secret: Path, exchange: Callable[[Path], None], said: str
) -> None:
    """Who owns the directory of a keytab could have root give away another file of root's."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    files.give(secret, user, what="keytab")  # the control
    exchange(secret)
    with pytest.raises(CredentialError, match=said):
        files.give(secret, user, what="keytab")


def test_a_file_is_only_given_to_users_that_exist(secret: Path) -> None:
    with pytest.raises(CredentialError, match="no such user"):
        files.give(secret, "nobody-of-this-name", what="keytab")
    if os.geteuid() == 0:
        files.give(secret, "daemon", what="keytab")
        assert secret.owner() == "daemon"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
