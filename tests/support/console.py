"""Runs the `console` examples of a page in one shell, and compares what they print."""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["examples", "run_examples"]

_BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MARK = "--- end of the example ---\n"
_FLAGS = doctest.ELLIPSIS | doctest.REPORT_NDIFF


def examples(page: str) -> list[tuple[str, str]]:
    """Return (command, expected output) for each line that begins with `$ ` in the console blocks of a page."""
    found = []
    for block in _BLOCK.findall(page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            found.append((command, expected))
    return found


def run_examples(
    page: str, *, cwd: Path, env: Mapping[str, str], timeout: float = 120
) -> list[str]:
    """Run the examples one after the other; return the differences. `...` and `<BLANKLINE>` are as in doctest."""
    commands = examples(page)
    script = (
        "".join(f"{command}\necho -n '{_MARK}'\n" for command, _ in commands) + "kill $(jobs -p)\n"
    )
    shell = subprocess.Popen(
        ["bash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=dict(env),
        start_new_session=True,
    )
    try:
        printed, _ = shell.communicate(script, timeout=timeout)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    checker = doctest.OutputChecker()
    outputs = printed.split(_MARK)[:-1]
    differences = []
    if len(outputs) != len(commands):
        differences.append(f"{len(outputs)} of {len(commands)} commands ran:\n{printed}")
    for (command, expected), got in zip(commands, outputs, strict=False):
        if not checker.check_output(expected, got, _FLAGS):
            differences.append(f"$ {command}\nexpected:\n{expected}got:\n{got}")
    return differences
