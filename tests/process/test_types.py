"""What type checkers know of purekrb, as mypy sees it in a user's program."""

from __future__ import annotations

import re
from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[2]

PROGRAM = """
from typing_extensions import assert_type

import purekrb
from purekrb import Acceptor, Credential, Initiator, Keytab, KdcError
from purekrb.channel import aio, blocking
from purekrb.gss.context import SecurityContext
from purekrb.messages.ap import KrbError


def client(credential: Credential) -> None:
    channel = purekrb.connect(("web.example.com", 4711), "HTTP/web.example.com", credential)
    assert_type(channel.context, Initiator)
    channel.context.identity  # error: Initiator


def server(keytab: Keytab) -> None:
    with purekrb.listen(("", 4711), keytab) as listening:
        for channel in listening:
            assert_type(channel.context, Acceptor)
            print(channel.context.identity)
            either(channel)


def either(channel: blocking.Channel) -> None:
    assert_type(channel.context, SecurityContext)


async def handler(channel: aio.Channel[Acceptor]) -> None:
    print(channel.context.identity)


async def any_handler(channel: aio.Channel) -> None:
    print(channel.context.initiator)


async def wrong_handler(channel: aio.Channel[Initiator]) -> None: ...


async def twins(keytab: Keytab, credential: Credential) -> None:
    await aio.start_server(handler, ("", 4711), keytab)
    await aio.start_server(any_handler, ("", 4711), keytab)
    await aio.start_server(wrong_handler, ("", 4711), keytab)  # error: Channel[Initiator]
    channel = await aio.connect(("web.example.com", 4711), "HTTP/web.example.com", credential)
    assert_type(channel.context, Initiator)


def refused(error: KdcError) -> None:
    assert_type(error.krb_error, KrbError | None)
    if error.krb_error is not None:
        print(error.krb_error.error_code, error.krb_error.nothing)  # error: nothing
"""


def test_mypy_knows_contexts_by_their_role_and_the_message_of_an_error(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    cache = ["--cache-dir", str(tmp_path / "cache")]
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--strict", *cache]
    out, err, _ = api.run([*options, str(program)])
    complaints = re.findall(r"program\.py:(\d+): error: (.*)", out)
    assert not err, err
    marked = {
        number: line.partition("# error: ")[2]
        for number, line in enumerate(PROGRAM.splitlines(), 1)
        if "# error: " in line
    }
    assert {int(line) for line, _ in complaints} == set(marked), out
    for line, text in complaints:
        assert marked[int(line)] in text
