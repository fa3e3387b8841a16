"""Runs the benchmarks. `make bench` sets everything up; README.md tells how to read the result."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from bench import compare, crowd, directory, memory
from bench.cases import GROUPS
from bench.lab import Lab, lab
from bench.report import facts, figures, line, markdown, update_readme
from bench.timing import Row, measure
from bench.worker import ROOT, peer_python

HERE = Path(__file__).parent
#: Seconds that a row takes at least, and how many rounds.
FULL, QUICK = (1.5, 15), (0.1, 2)


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute, with larger spreads")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only the rows whose 'group: work' contains this"
    )
    parser.add_argument("--json", type=Path, help="where the figures go; bench/results/ by default")
    parser.add_argument(
        "--update-readme", action="store_true", help="put the tables and the plot into bench/"
    )
    commands = parser.add_subparsers(dest="command")
    report = commands.add_parser("report", help="the tables of results measured before")
    report.add_argument("results", type=Path)
    two = commands.add_parser(
        "compare", help="two commits, measured in turns; or two files of results"
    )
    two.add_argument("one")
    two.add_argument("two")
    args = parser.parse_args()
    _load_gssapi_from(os.environ.pop("PUREKRB_BENCH_GSSAPI_LIB", None))
    seconds, rounds = QUICK if args.quick else FULL
    if args.command == "compare":
        if args.one.endswith(".json"):
            compare.files(Path(args.one), Path(args.two))
        else:
            compare.commits(args.one, args.two, seconds, rounds, args.only)
        return 0
    results = args.results if args.command == "report" else _run(args.quick, args.only, args.json)
    print("\n" + markdown(json.loads(results.read_text())))
    if args.update_readme:
        update_readme(HERE / "README.md", json.loads(results.read_text()))
        python = peer_python("plot")
        if python:
            subprocess.run([python, HERE / "plot.py", results, HERE / "plot.png"], check=True)
    return 0


def _load_gssapi_from(directory: str | None) -> None:
    """Start this process anew with python-gssapi's libraries from `directory`, where one is given.

    The dynamic linker reads LD_LIBRARY_PATH when a process starts, so that later the variable can go: the KDC and
    kinit use the libraries that they were installed with.
    """
    if directory is not None:
        os.environ |= {"LD_LIBRARY_PATH": directory, "PUREKRB_BENCH_GSSAPI_LOADED": directory}
        os.execv(sys.executable, [sys.executable, "-m", "bench", *sys.argv[1:]])
    if os.environ.get("PUREKRB_BENCH_GSSAPI_LOADED"):
        del os.environ["LD_LIBRARY_PATH"]


def _run(quick: bool, only: str, target: Path | None) -> Path:
    """Measure, and return the file with the figures."""
    load = os.getloadavg()[0]
    if load > 1:
        print(
            f"The machine is busy (load {load:.1f}): the figures will be worse than they are.",
            file=sys.stderr,
        )
    rows = []
    with lab() as peers:
        for row in _rows(peers, *(QUICK if quick else FULL), only):
            rows.append(figures(row))
            print(line(rows[-1]), flush=True)
        results = {"facts": facts(peers.versions, load, quick), "rows": rows}
    path = target or HERE / "results" / f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1))
    print(f"figures: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    return path


def _rows(peers: Lab, seconds: float, rounds: int, only: str) -> Iterator[Row]:
    for group in GROUPS:
        for case in group(peers):
            if only in f"{case.group}: {case.name}":
                yield measure(Row(case.group, case.name), case.contenders(), seconds, rounds)
    for special in (memory, crowd, directory):
        if not only or only in special.__name__:
            yield from special.rows(peers, rounds)


if __name__ == "__main__":
    sys.exit(main())
