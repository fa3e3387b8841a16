"""A program and the command, frozen by PyInstaller: what purekrb imports late is in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from purekrb.cli import COMMANDS
from purekrb.testing import Realm
from support.canaries import PASSWORD
from support.commands import environment
from support.terminal import Terminal

WEB = "HTTP/web.example.test"

#: A program with everything of a handshake, which is also the command.
PROGRAM = """\
import sys
import purekrb

if sys.argv[1:] == ["handshake"]:
    from purekrb.testing import Realm

    with Realm("EXAMPLE.TEST") as realm:
        alice = realm.add_user("alice", "pw")
        acceptor = purekrb.Acceptor(realm.add_service("HTTP/web.example.test"))
        initiator = purekrb.initiate("HTTP/web.example.test", alice, realm.config)
        initiator.step(acceptor.step(initiator.step()))
        print(acceptor.initiator, acceptor.unwrap(initiator.wrap(b"sealed")).decode())
    print(all(hasattr(purekrb, name) for name in purekrb.__all__))
else:
    from purekrb.cli import main

    sys.exit(main())
"""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, frozen; about 20 seconds of work."""
    directory = tmp_path_factory.mktemp("frozen")
    (directory / "program.py").write_text(PROGRAM)
    options = ("--noconfirm", "--log-level", "ERROR", "--name", "program")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "PyInstaller", *options, "program.py"],
        cwd=directory,
        env={**os.environ, "PYINSTALLER_CONFIG_DIR": str(directory / "cache")},
        check=True,
        timeout=500,
    )
    return directory / "dist" / "program" / "program"


def run(frozen: Path, *argv: str, text: str = "", **options: object) -> str:
    done = subprocess.run(
        [frozen, *argv],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        **options,  # type: ignore[call-overload]
    )
    assert (done.returncode, done.stderr) == (0, ""), argv
    return str(done.stdout)


def test_a_frozen_program_makes_a_handshake(frozen: Path) -> None:
    assert run(frozen, "handshake") == "alice@EXAMPLE.TEST sealed\nTrue\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_frozen_command_has_every_command(frozen: Path, command: str) -> None:
    assert run(frozen, "help", command).startswith(f"usage: purekrb {command} ")


def test_the_frozen_command_gets_tickets(frozen: Path, tmp_path: Path) -> None:
    with Realm("EXAMPLE.TEST") as realm:
        realm.add_user("alice", PASSWORD)
        realm.add_service(WEB).save(tmp_path / "keytab")
        realm.write_krb5_conf(tmp_path / "krb5.conf")
        env = environment(tmp_path)
        assert "ticket until" in run(frozen, "kinit", "alice", text=PASSWORD, env=env)
        terminal = Terminal(tmp_path, str(frozen), "kvno", "-k", "keytab", WEB, env=env)
        assert terminal.wait() == 0
        assert f"asking for {WEB}" in terminal.printed
        assert "keytab entry valid" in terminal.printed
        assert WEB in run(frozen, "klist", "-efa", env=env)
        assert "credential cache" in run(frozen, "inspect", "ccache", env=env, cwd=tmp_path)
