"""The complete programs on the pages of docs/: taken from there, and run as a user would run them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from support.peers import run

__all__ = ["program", "run_program"]

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
