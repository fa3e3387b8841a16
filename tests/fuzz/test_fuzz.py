"""Every parser of a peer's or a file's data, fed with mutated seeds: only its own errors leave it.

A few hundred mutations, the same ones in each run. With PUREKRB_SOAK=1 each parser is fuzzed for a
minute, with atheris where it is installed; see `fuzz/__main__.py`.
"""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import purekrb
from fuzz.mutate import mutant
from fuzz.targets import TARGETS, Target
from support.processes import soak

ROOT = Path(__file__).parents[2]
SOURCE = Path(purekrb.__file__).parent
EACH = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
#: Mutations of each seed, and at least of each parser.
PER_SEED, AT_LEAST = 40, 300
SECONDS = soak(0, 60)


@EACH
def test_only_the_errors_of_a_parser_leave_it(target: Target) -> None:
    seeds = list(target.seeds())
    accepted = [target(seed) for seed in seeds]
    assert any(accepted) or target.refuses
    rng = random.Random(target.name)
    for number in range(max(AT_LEAST, PER_SEED * len(seeds))):
        data = mutant(rng, seeds)
        try:
            target(data)
        except Exception as error:
            what = f"mutation {number}, {len(data)} bytes: {data[:2000].hex()}"
            pytest.fail(f"{type(error).__name__}: {error}\n{what}")
    if SECONDS:
        fuzz(target.name, SECONDS)


def fuzz(name: str, seconds: int) -> str:
    """Fuzz the parser in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", name, str(seconds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=3 * seconds + 60,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


def test_what_is_found_is_told() -> None:
    def careless(data: bytes) -> None:
        if data[:2] != b"ok":
            raise purekrb.DecodeError("no")
        data[2]

    target = Target("careless", careless, lambda: [b"ok."])
    assert target(b"ok.")
    assert not target(b"no")
    with pytest.raises(IndexError):
        target(b"ok")
    rng = random.Random(target.name)
    found = set()
    for _ in range(AT_LEAST):
        try:
            target(mutant(rng, [b"ok."]))
        except IndexError:
            found.add("IndexError")
    assert found, "a few hundred mutations find what a cut seed finds"


def test_the_names_are_those_of_one_row_each() -> None:
    names = [target.name for target in TARGETS]
    assert len(names) == len(set(names))
    listed = subprocess.run(
        [sys.executable, "-m", "fuzz"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
    )
    assert set(names) <= set(listed.stdout.splitlines()), listed.stderr


# Every parser is a row

#: What parsers are called in this package.
NAMES = {
    "decode",
    "parse",
    "unwrap",
    "unwrap_into",
    "unwrap_iov",
    "verify_mic",
    "feed",
    "next_frame",
    "next_message",
    "unframe",
    "unframe_any",
    "unframe_mechanism",
    "from_attributes",
    "from_file",
    "import_context",
    "open_state",
    "read_krb_cred",
    "client_identity",
    "remember",
    "crack_spn",
    "decrypt_message",
    "verify_signature",
    "describe",
    "tls_server_end_point",
    "lookup_srv",
    "decode_kdc_reply",
    "handshake",
    "_choose",
}
#: What has such a name and is reached otherwise, or reads nothing of a peer or a file.
ELSEWHERE = {
    "credentials/caches/keyctl.py:describe",  # the kernel's own words
    "doctor/tickets.py:handshake",  # a step of the doctor: both sides are our own
    "integrations/dnspython.py:verify_signature",  # hands it to the context's verify_mic
    "integrations/http/client.py:remember",  # no input of a peer: bindings of a connection
    "nt_status.py:describe",  # a number
    "replay/default.py:_choose",  # the machine's own settings
    "replay/redis.py:remember",  # over a socket
    "channel/establish.py:handshake",  # over sockets: hands what comes to SealedStream.handshake
    "sspi/auth.py:unwrap",  # hands it to DecryptMessage
    "gss/context.py:unwrap_into",
}


def parsers() -> Iterator[str]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name in NAMES:
                stub = ast.unparse(node.body[-1]) == "..." or not any(
                    isinstance(inner, ast.Return | ast.Call) for inner in ast.walk(node)
                )
                if not stub:
                    yield f"{path.relative_to(SOURCE).as_posix()}:{node.name}"


def test_every_parser_is_called_by_a_row() -> None:
    called = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name in NAMES:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(SOURCE):
                called.add(f"{path.relative_to(SOURCE).as_posix()}:{frame.f_code.co_name}")

    for target in TARGETS:
        for seed in target.seeds():
            sys.setprofile(watch)
            try:
                target(seed)
            finally:
                sys.setprofile(None)
    # The modules of compat have other libraries' names, and hand everything to these parsers.
    own = {name for name in parsers() if not name.startswith("compat/")}
    missing = own - called - ELSEWHERE
    assert not missing, missing
    assert len(called) > 40
