"""The programs of docs/gssapi.md and docs/from-python-gssapi.md, on purekrb and on python-gssapi."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.mit import MitRealm
from support.pages import on_purekrb, program, run_on_purekrb
from support.peers import Daemon, free_port, run

#: A program has just started: it does not listen yet.
PATIENT = """
import socket, time
_connect = socket.create_connection
def _patiently(address, *args, **kwargs):
    for _ in range(400):
        try:
            return _connect(address, *args, **kwargs)
        except ConnectionRefusedError:
            time.sleep(0.02)
    return _connect(address, *args, **kwargs)
socket.create_connection = _patiently
"""


@pytest.mark.parametrize("server", ["purekrb", "MIT"])
@pytest.mark.parametrize("client", ["purekrb", "MIT"])
def test_both_sides_of_the_program_run_on_both_libraries(
    server: str, client: str, mit_realm: MitRealm, tmp_path: Path
) -> None:
    path = tmp_path / "greet.py"
    path.write_text(program("gssapi.md", "# greet.py"))
    env = {
        **mit_realm.env,
        "KRB5CCNAME": str(mit_realm.kinit("user")),
        "KRB5_KTNAME": str(mit_realm.service_keytab),
    }
    arguments = ("localhost", str(free_port()))
    serve = [sys.executable, str(path), "serve", *arguments]
    if server == "purekrb":
        serve = on_purekrb(path, "serve", *arguments)
    daemon = Daemon(serve, env=env, log=tmp_path / "log")
    text = PATIENT + path.read_text()
    try:
        if client == "purekrb":
            shown = run_on_purekrb(text, tmp_path, "ask", *arguments, env=env)
        else:
            asking = tmp_path / "ask.py"
            asking.write_text(text)
            shown = run([sys.executable, str(asking), "ask", *arguments], env=env)
    finally:
        daemon.stop()
    assert shown == "hello, user@MIT.TEST\n"
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_the_program_of_the_migration_page_does_the_same(
    mit_realm: MitRealm, tmp_path: Path
) -> None:
    path = tmp_path / "greet.py"
    path.write_text(program("from-python-gssapi.md", "# greet.py"))
    env = {
        **mit_realm.env,
        "KRB5CCNAME": str(mit_realm.kinit("user")),
        "KRB5_KTNAME": str(mit_realm.service_keytab),
        "KRB5RCACHENAME": "memory:",
    }
    port = free_port()
    serve = [sys.executable, str(path), "serve", "localhost", str(port)]
    daemon = Daemon(serve, env=env, log=tmp_path / "log", port=port)
    try:
        shown = run([sys.executable, str(path), "ask", "localhost", str(port)], env=env)
    finally:
        daemon.stop()
    assert shown == "hello, user@MIT.TEST\n"
