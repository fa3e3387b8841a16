"""Two commits, or two files of results, side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.cases import GROUPS
from bench.goals import OURS
from bench.lab import lab
from bench.timing import Contender, Row, measure
from bench.worker import ROOT, Worker

__all__ = ["commits", "files"]


def commits(one: str, two: str, seconds: float, rounds: int, only: str) -> None:
    """Measure each case of two commits in turns, in one run, and print the table."""
    with tempfile.TemporaryDirectory(prefix="purekrb-compare-") as directory, lab() as peers:
        workers = {}
        trees = {name: Path(directory) / f"tree{number}" for number, name in enumerate((one, two))}
        try:
            for name, tree in trees.items():
                _git("worktree", "add", "--quiet", "--detach", str(tree), name)
                setup = {"directory": str(peers.directory), "source": str(tree)}
                env = {**os.environ, "PYTHONPATH": str(tree / "src")}
                workers[name] = Worker(Path(sys.executable), "purekrb", setup, env)
            print(f"| work | {one} | {two} | time {two} / {one} |\n|---|---:|---:|---:|")
            for case in (case for group in GROUPS for case in group(peers)):
                key = f"{case.group}: {case.name}"
                if only not in key:
                    continue
                try:
                    contenders = [
                        Contender(name, workers[name].batch(key), case.batch_seconds)
                        for name in workers
                    ]
                except LookupError as error:
                    print(f"| {key} | {error} | | |")
                    continue
                row = measure(Row(case.group, case.name), contenders, seconds, rounds)
                _print(key, row.value(one), row.value(two))
        finally:
            for worker in workers.values():
                worker.close()
            for tree in trees.values():
                if tree.exists():
                    _git("worktree", "remove", "--force", str(tree))


def files(one: Path, two: Path) -> None:
    """Print the rows that both results have. Runs at different times: only the ratios to the others say much."""
    first, second = (
        {(row["group"], row["work"]): row for row in json.loads(path.read_text())["rows"]}
        for path in (one, two)
    )
    print(
        f"| work | {one.stem} | {two.stem} | time {two.stem} / {one.stem} | the same, as ratios to the others |"
    )
    print("|---|---:|---:|---:|---|")
    for key in first.keys() & second.keys():
        a, b = first[key]["values"], second[key]["values"]
        ratios = [
            f"{name} {(b[OURS] / b[name]) / (a[OURS] / a[name]):.2f}"
            for name in a
            if name != OURS and name in b
        ]
        _print(f"{key[0]}: {key[1]}", a[OURS], b[OURS], ", ".join(ratios))


def _print(work: str, one: float, two: float, *more: Any) -> None:
    cells = (work, f"{one * 1e6:.2f} us", f"{two * 1e6:.2f} us", f"{two / one:.2f}", *more)
    print(f"| {' | '.join(cells)} |", flush=True)


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True)
