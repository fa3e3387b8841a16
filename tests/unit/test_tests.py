"""The folders of the tests are what they say: tests/unit/conftest.py notices sockets, tests/support has its list."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def bind() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))


def fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("offence", "event"),
    [
        (bind, "socket.bind"),
        (lambda: socket.getaddrinfo("127.0.0.1", 1), "socket.getaddrinfo"),
        (fork, "os.fork"),
        (lambda: subprocess.run([sys.executable, "-c", ""], check=True), "subprocess.Popen"),
    ],
    ids=["socket", "name lookup", "fork", "program"],
)
def test_sockets_and_processes_are_noticed(
    audited: list[str], offence: Callable[[], object], event: str
) -> None:
    assert audited == []
    offence()
    assert audited[0] == event
    audited.clear()


def test_an_event_loop_is_no_socket(audited: list[str]) -> None:
    asyncio.run(asyncio.sleep(0))
    assert audited == []


def test_the_list_of_helpers_names_each_of_them_and_no_other() -> None:
    folder = Path(__file__).parents[1] / "support"
    named = re.findall(r"`(\w+)`", (folder / "README.md").read_text())
    assert sorted(set(named) - {"purekrb", "soak"}) == sorted(
        path.stem for path in folder.glob("*.py")
    )
