"""Contenders in another process: another virtual environment, or another commit of purekrb.

The parent writes one JSON line per batch, the worker answers with the seconds; so batches of different processes take
turns like those of one. This file and timing.py use the standard library alone, as the workers run without purekrb.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.timing import Batch

__all__ = ["ROOT", "Worker", "peer_python", "serve"]

ROOT = Path(__file__).parents[1]


def peer_python(peer: str) -> Path | None:
    """Return the interpreter of a peer's own virtual environment, None where `make bench` has not made it."""
    python = ROOT / f".venv-bench-{peer}" / "bin" / "python"
    return python if python.exists() else None


class Worker:
    """A running `bench.peers.<module>`; `setup` is what its works need. `version` is what it measures."""

    def __init__(
        self, python: Path, module: str, setup: dict[str, Any], env: dict[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [str(python), "-m", f"bench.peers.{module}"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.version: str = self._ask(setup)["version"]

    def batch(self, work: str) -> Batch:
        """Return the batch of that work. Raises LookupError where the worker cannot do it."""
        self._ask({"work": work, "n": 1})
        return lambda n: self._ask({"work": work, "n": n})["seconds"]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        pipe, answers = self._process.stdin, self._process.stdout
        if pipe is None or answers is None:
            raise RuntimeError("the worker has no pipes")
        pipe.write(json.dumps(question) + "\n")
        pipe.flush()
        line = answers.readline()
        if not line:
            raise RuntimeError(f"the worker ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LookupError(answer["error"])
        return answer


def serve(start: Callable[[dict[str, Any]], tuple[str, Callable[[str], Batch]]]) -> None:
    """Run a worker: `start(setup)` returns the version and what finds the batch of a work."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints does not go into the answers
    find: Callable[[str], Batch] | None = None
    batches: dict[str, Batch] = {}
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any]
        try:
            if find is None:
                version, find = start(question)
                answer = {"version": version}
            else:
                work = question["work"]
                if work not in batches:
                    batches[work] = find(work)
                answer = {"seconds": batches[work](question["n"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
