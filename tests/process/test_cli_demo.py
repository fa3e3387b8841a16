"""`purekrb demo` tells the whole story readably, believes no impostor, shows no secret, and is quick."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from purekrb import EncryptionKey, KerberosError, system
from purekrb.cli.demo import _wrap
from purekrb.constants import DEFAULT_ETYPES
from purekrb.exchanges.ap_exchange import verify_ap_rep
from purekrb.gss import initiator
from purekrb.keys import etype_name
from purekrb.messages.ap import EncApRepPart
from purekrb.testing import Realm
from support.canaries import leaks
from support.commands import ARGV, Commands


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Commands:
    with Realm() as realm:
        return Commands(tmp_path, monkeypatch, capsys, realm)


STORY = [
    "1. A realm and a directory start",
    "keys of {etype}",
    "2. The service is installed with an SCP and an SPN",
    "SCP CN=SockAuthAD",
    "SPN ADSockAuth/files.example.test/CN=SockAuthAD",
    "3. The client finds the service",
    "search (keywords=a762885a",
    "4. The client gets its tickets",
    "client -> KDC AS-REQ to EXAMPLE.TEST: alice@EXAMPLE.TEST asks for krbtgt/EXAMPLE.TEST@EXAMPLE.TEST, no pre-auth",
    "etypes aes256-cts-hmac-sha1-96, aes128-cts-hmac-sha1-96, aes256-cts-hmac-sha384-192, aes128-cts-hmac-sha256-128",
    "client -> KDC udp 127.0.0.1 port",
    "bytes for EXAMPLE.TEST",
    "KDC -> client udp 127.0.0.1 port",
    "answered with",
    "KDC -> client KRB-ERROR from EXAMPLE.TEST: KDC_ERR_PREAUTH_REQUIRED 25",
    "client -> KDC AS-REQ",
    "PA-ENC-TIMESTAMP with {etype}",
    "KDC -> client AS-REP from EXAMPLE.TEST: ticket for krbtgt/EXAMPLE.TEST@EXAMPLE.TEST until 20",
    "client -> KDC TGS-REQ",
    "KDC -> client TGS-REP",
    "encrypted with the service's key {etype} kvno 1",
    "valid 10.0 h",
    "5. Client and service prove themselves",
    "client -> service AP-REQ",
    "service -> client AP-REP",
    "it is the time that I sent: the service is ADSockAuth/files.example.test",
    "MUTUAL, REPLAY, SEQUENCE, CONF, INTEG",
    "key of {etype}",
    "6. They exchange signed and sealed messages",
    "(MIC)",
    "sealed as",
    "100000 bytes came back sealed",
    "7. Impostors take the service's place",
    "KRB-ERROR",
    "refuses it: the service refused us (KRB_AP_ERR_BAD_INTEGRITY 31)",
    "recorded from the real service",
    "refuses it: the service did not return the time of our authenticator",
    "made with a key of its own",
    "refuses it: integrity check failed",
    "The service proved itself, every impostor was refused. Done in",
]


def assert_story(text: str, etype: str) -> None:
    """Compare without line breaks, which names have behind slashes and commas."""
    told = "".join(text.split())
    place = 0
    for passage in STORY:
        found = told.find("".join(passage.format(etype=etype).split()), place)
        assert found >= 0, f"{passage!r} is missing, or comes too early"
        place = found


@pytest.mark.parametrize("etype", [etype_name(etype) for etype in DEFAULT_ETYPES])
def test_the_demo_tells_the_whole_story_and_no_secret(
    run: Commands, monkeypatch: pytest.MonkeyPatch, etype: str
) -> None:
    secrets: list[bytes] = []
    make = EncryptionKey.__init__

    def remember(self: EncryptionKey, etype: int, contents: bytes) -> None:
        secrets.append(bytes(contents))
        make(self, etype, contents)

    monkeypatch.setattr(EncryptionKey, "__init__", remember)
    result = run("demo", "--etype", etype)
    assert (result.code, result.err) == (0, "")
    assert_story(result.out, etype)
    assert len(secrets) > 20
    assert leaks(result.out, secrets) == []


@pytest.mark.parametrize("columns", [80, 120])
def test_the_lines_fit_the_terminal_and_hold_no_escape_codes_in_a_pipe(
    run: Commands, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("demo").out.splitlines()
    assert columns - 20 < max(map(len, lines)) <= columns
    assert all(line == line.rstrip() and line.isprintable() for line in lines)
    assert not any(re.search(r"\w\['|'\]", line) for line in lines), "a list as Python spells it"
    whos = {line[2:22].rstrip() for line in lines if re.match("  [^ ]", line)}
    assert whos == {
        *("KDC", "directory", "installer", "service", "client", "both", "impostor"),
        *("client -> directory", "directory -> client", "client -> KDC", "KDC -> client"),
        *("client -> service", "service -> client", "impostor -> client"),
    }


def test_a_terminal_gets_colours(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(
        [*ARGV, "demo"], stdout=slave, stderr=slave, stdin=slave, env=env, cwd=tmp_path
    ) as process:
        os.close(slave)
        printed = b""
        try:
            while piece := os.read(master, 4096):
                printed += piece
        except OSError:  # EIO: the process has closed the terminal
            pass
    os.close(master)
    assert process.returncode == 0
    assert b"\x1b[36m" in printed
    assert_story(re.sub(r"\x1b\[[0-9;]*m", "", printed.decode()), etype_name(DEFAULT_ETYPES[0]))


def test_json_tells_the_same_steps(run: Commands) -> None:
    result = run("demo", "--json")
    (story,) = result.json
    assert story["impostors_refused"] is True
    assert 0 < story["seconds"] < 5
    told = "\n".join(
        f"{number}. {step['step']}\n"
        + "\n".join(f"{line['who']} {line['what']}" for line in step["lines"])
        for number, step in enumerate(story["steps"], 1)
    )
    assert_story(
        f"{told}The service proved itself, every impostor was refused. Done in",
        "aes256-cts-hmac-sha1-96",
    )


def test_an_impostor_who_is_believed_is_a_failure(
    run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the demo shows is what happens: here, with a client that takes any AP-REP."""

    def believe(*args: Any, **options: Any) -> EncApRepPart:
        try:
            return verify_ap_rep(*args, **options)
        except KerberosError:
            return EncApRepPart(system.now(), 0, None, None)

    monkeypatch.setattr(initiator, "verify_ap_rep", believe)
    result = run("demo")
    assert result.code == 1
    assert result.out.splitlines()[-1].startswith(
        "The service proved itself, AN IMPOSTOR WAS BELIEVED."
    )


def test_the_demo_takes_less_than_five_seconds_with_starting_python(tmp_path: Path) -> None:
    started = time.monotonic()
    subprocess.run([*ARGV, "demo"], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert time.monotonic() - started < 5


def test_the_demo_leaves_the_log_as_it_was(run: Commands) -> None:
    logger = logging.getLogger("purekrb.kdc")
    before = (logger.level, list(logger.handlers))
    assert run("demo").code == 0
    assert (logger.level, logger.handlers) == before


def test_long_names_break_behind_slashes_and_commas() -> None:
    assert _wrap("SPN class/host/CN=a,DC=b end", 12) == ["SPN class/", "host/CN=a,", "DC=b end"]
    assert _wrap("short", 12) == ["short"]
    assert _wrap("x" * 20 + " y", 12) == ["x" * 20, "y"]
