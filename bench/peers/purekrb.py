"""Worker: purekrb as found on PYTHONPATH, for comparing commits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import purekrb
from bench.cases import GROUPS
from bench.lab import Lab
from bench.timing import Batch
from bench.worker import serve


def start(setup: dict[str, Any]) -> tuple[str, Any]:
    if not Path(purekrb.__file__).is_relative_to(setup["source"]):
        raise ImportError(f"purekrb comes from {purekrb.__file__}")
    lab = Lab(Path(setup["directory"]))
    cases = {f"{case.group}: {case.name}": case for group in GROUPS for case in group(lab)}

    def find(name: str) -> Batch:
        return cases[name].ours()

    return purekrb.__version__, find


serve(start)
