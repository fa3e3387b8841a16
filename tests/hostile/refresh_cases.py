"""Keeps cases.toml in step with the tests: `python tests/hostile/refresh_cases.py` after adding or renaming some.

A test says which cases it covers: `test_k113_...` in its name, or an id such as "K113-second-accept"
of one of its parameters. This script writes the names of these tests into cases.toml, and keeps all else there:

    case              what an attacker (or a broken peer) does
    tests             the tests that say so, below tests/, written by this script
    also              tests that do not say so, below tests/, written by hand
    later             the capability that the case, or what it has no tests for, belongs to: not there yet
    not_applicable    why the case cannot arise
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same under its older name
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
#: Where tests of cases are. The tests with real peers show what is accepted, not what is refused.
FOLDERS = ("tests/hostile", "tests/unit", "tests/exchange", "tests/process", "tests/property")
CASES = Path(__file__).with_name("cases.toml")
#: The ids in use: what was specified before the code was written, and what was found by trying it.
RANGES = (
    range(1, 311),
    range(401, 432),
    range(501, 549),
    range(550, 640),
    range(645, 650),
    range(655, 666),
    range(670, 684),
    range(685, 690),
)
IDS = [f"K{number:03}" for number in sorted({*chain.from_iterable(RANGES)})]
FIELDS = ("class", "case", "tests", "also", "later", "not_applicable")


def load() -> dict[str, dict[str, Any]]:
    """Return what cases.toml holds: case id -> its fields."""
    return tomllib.loads(CASES.read_text())


def collect() -> list[str]:
    """Return the ids of all tests as pytest names them, but below tests/: file::function[parameters]."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "-p",
            "no:cacheprovider",
            *FOLDERS,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the tests cannot be collected:\n{done.stdout}{done.stderr}")
    return [line.removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line]


def covered(test: str) -> dict[str, str]:
    """Return which cases a test covers, each with the pattern that stands for the test in cases.toml."""
    function, _, parameters = test.partition("[")
    ids = {
        f"K{n}": function
        for n in re.findall(r"(?<=_)k(\d{3})(?=_|$)", function.rpartition("::")[2])
    }
    for number in re.findall(r"(?<![A-Za-z0-9])K(\d{3})(?!\d)", parameters):
        ids.setdefault(f"K{number}", f"{function}[K{number}*]")
    return ids


def group_by_case(tests: Iterable[str]) -> dict[str, list[str]]:
    """Return case id -> patterns of its tests, in the order of the files."""
    found: dict[str, dict[str, None]] = {}
    for test in tests:
        for case, pattern in covered(test).items():
            found.setdefault(case, {})[pattern] = None
    return {case: list(patterns) for case, patterns in found.items()}


def render(cases: dict[str, dict[str, Any]]) -> str:
    """Return the text of cases.toml."""
    lines = [
        "# Which test refuses, or survives, which hostile case. Refreshed by refresh_cases.py, which explains the",
        "# fields; test_cases_map.py fails where this file and the tests differ.",
    ]
    for case in sorted(cases):
        lines += ["", f"[{case}]"]
        for field in FIELDS:
            value = cases[case].get(field)
            if isinstance(value, list) and len(value) > 1:
                lines += [
                    f"{field} = [",
                    *(f"  {json.dumps(item, ensure_ascii=False)}," for item in value),
                    "]",
                ]
            elif value:
                lines.append(f"{field} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Rewrite cases.toml."""
    cases = load()
    found = group_by_case(collect())
    for case, fields in cases.items():
        fields["tests"] = found.pop(case, [])
    for (
        case,
        tests,
    ) in found.items():  # an id that nobody has heard of: test_cases_map.py will say so
        cases[case] = {"tests": tests}
    CASES.write_text(render(cases))


if __name__ == "__main__":
    main()
