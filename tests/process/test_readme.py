"""What README.md prints works as printed: its commands, its client and server, its tour."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from purekrb import KdcClient
from purekrb.testing import Realm
from support.peers import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(
    r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
)
PYTHON = [text for language, text in BLOCKS if language == "python"]


def program(name: str) -> str:
    (text,) = [text for text in PYTHON if text.startswith(f"# {name} ")]
    return text


def programs(directory: Path) -> None:
    for name in ("client.py", "server.py"):
        (directory / name).write_text(program(name))


def environment(directory: Path) -> dict[str, str]:
    """Nothing but names of files: the programs themselves are those of the README."""
    names = {"KRB5_CONFIG": "krb5.conf", "KRB5CCNAME": "ccache", "KRB5_KTNAME": "service.keytab"}
    return os.environ | {variable: str(directory / name) for variable, name in names.items()}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Realm]:
    """A realm that has written its krb5.conf, alice's ccache and the keytab of host/localhost into `tmp_path`."""
    with Realm("EXAMPLE.TEST") as realm:
        alice = realm.add_user("alice", "pw")
        realm.add_service("host/localhost").save(tmp_path / "service.keytab")
        realm.write_krb5_conf(tmp_path / "krb5.conf")
        KdcClient(realm.config).get_tgt(alice)
        alice.save(tmp_path / "ccache")
        programs(tmp_path)
        yield realm


@contextmanager
def running_server(directory: Path) -> Iterator[str]:
    """Run the README's server; yield its port."""
    argv = [sys.executable, "server.py", "0"]
    with subprocess.Popen(
        argv, cwd=directory, env=environment(directory), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1]
        finally:
            server.kill()


def run_client(directory: Path, port: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "client.py", "localhost", port],
        cwd=directory,
        env=environment(directory),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_opens_with_the_two_commands_and_the_makefile_has_them() -> None:
    commands = re.findall(r"^    make (\w+)", README.split("```")[0], re.MULTILINE)
    assert commands == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{command}:", makefile, re.MULTILINE) for command in commands)


@pytest.mark.parametrize("name", ["client.py", "server.py"])
def test_client_and_server_have_fifteen_lines_at_most(name: str) -> None:
    lines = [line for line in program(name).splitlines() if line]
    assert 10 <= len(lines) <= 15


def test_the_client_and_the_server_work_as_printed(lab: Realm, tmp_path: Path) -> None:
    with running_server(tmp_path) as port:
        for _ in range(2):  # the server is still there after the first client
            done = run_client(tmp_path, port)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.splitlines() == [
                "host/localhost@EXAMPLE.TEST has proved its identity",
                "alice@EXAMPLE.TEST says hello",
            ]


def test_the_client_refuses_a_server_with_another_key(lab: Realm, tmp_path: Path) -> None:
    impostor = Realm("EXAMPLE.TEST").add_service("host/localhost")
    impostor.save(tmp_path / "service.keytab")
    with running_server(tmp_path) as port:
        done = run_client(tmp_path, port)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("refused: the service refused us")


@contextmanager
def terminal(commands: str, shows: str, **settings: Any) -> Iterator[None]:
    """Run commands in a shell of their own until `shows` is on its screen; leaving ends them."""
    with subprocess.Popen(
        ["sh", "-ec", commands], stdout=subprocess.PIPE, start_new_session=True, **settings
    ) as shell:
        try:
            assert shell.stdout is not None
            assert shows in shell.stdout.readline()
            yield
        finally:
            os.killpg(shell.pid, signal.SIGKILL)  # the session holds this shell and what it started


def test_the_commands_of_the_three_terminals_work_as_printed(tmp_path: Path) -> None:
    (script,) = [text for language, text in BLOCKS if language == "sh"]
    port = str(free_port())  # the printed one may be taken on this machine
    first, second, third = script.replace("10020", port).split("\n\n")
    programs(tmp_path)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    settings: dict[str, Any] = {
        "cwd": tmp_path,
        "env": os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
        "text": True,
    }
    with (
        terminal(first, "realm EXAMPLE.TEST is up", **settings),
        terminal(second, f"listening on port {port}", **settings),
    ):
        done = subprocess.run(
            ["sh", "-ec", third], capture_output=True, timeout=60, check=False, **settings
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("alice@EXAMPLE.TEST says hello\n")


def test_the_tour_runs_from_top_to_bottom(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    krb_realm: Realm,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tour = [text for text in PYTHON if not text.startswith(("# client.py", "# server.py"))]
    assert len(tour) >= 8
    names: dict[str, object] = {"__name__": "tour"}
    try:
        for text in tour:
            line = README[: README.index(text)].count("\n")
            exec(compile("\n" * line + text, "README.md", "exec"), names)
    finally:
        names["realm"].stop()  # type: ignore[attr-defined]
    names["test_my_service_knows_its_client"](krb_realm)  # type: ignore[operator]
    printed = capsys.readouterr().out
    assert (
        "ServiceTicket(alice@EXAMPLE.TEST -> HTTP/web.example.test@EXAMPLE.TEST, until" in printed
    )
    assert "EncryptionKey(aes256-cts-hmac-sha1-96, contents=<redacted>)" in printed


def test_every_link_leads_to_a_file_and_every_page_of_the_documentation_is_linked() -> None:
    links = set(re.findall(r"\]\(([^)#:]+)\)", README))
    assert [link for link in sorted(links) if not (ROOT / link).is_file()] == []
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= links
