"""The complete programs on the pages of docs/: taken from there, and run as a user would run them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from support.peers import run

__all__ = ["on_purekrb", "program", "run_on_purekrb", "run_program"]

_DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def program(page: str, containing: str = "import") -> str:
    """Return the only Python block of a page that contains this text."""
    blocks = _BLOCK.findall((_DOCS / page).read_text(encoding="utf-8"))
    [found] = [block for block in blocks if containing in block]
    return str(found)


def run_program(
    page: str,
    *arguments: str,
    directory: Path,
    env: Mapping[str, str],
    containing: str = "import",
) -> str:
    """Run a program of a page in a process of its own, and return what it prints."""
    path = directory / "program.py"  # not the name of a module that it imports
    path.write_text(program(page, containing), encoding="utf-8")
    return run([sys.executable, str(path), *arguments], env=env)


#: The end of each program that `run_on_purekrb` runs: it fails if another gssapi was loaded.
_PROOF = """

import sys as _sys
for _name, _module in list(_sys.modules.items()):
    if _name == "gssapi" or _name.startswith("gssapi."):
        assert _module.__name__ == f"purekrb.compat.{_name}", f"another {_name} was loaded"
assert "gssapi" in _sys.modules, "the program does not use gssapi"
"""


def on_purekrb(path: Path, *arguments: str) -> list[str]:
    """Return the command that runs an unmodified program with purekrb behind `import gssapi`."""
    command = [sys.executable, "-m", "purekrb", "run", "--", sys.executable]
    return [*command, str(path), *arguments]


def run_on_purekrb(text: str, directory: Path, *arguments: str, env: Mapping[str, str]) -> str:
    """Return what an unmodified program prints; it fails if it loads another gssapi than purekrb's."""
    path = directory / "program.py"
    path.write_text(text + _PROOF, encoding="utf-8")
    return run(on_purekrb(path, *arguments), env=env)
