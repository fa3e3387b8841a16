"""Run the benchmarks: `python -m bench [--quick] [--only TEXT] [--json FILE]`. Set up by `make bench`."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from bench import rows
from bench.lab import lab
from bench.timing import Row

GROUPS = (rows.messages, rows.contexts, rows.tickets, rows.imports)


def main() -> int:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, with larger spreads")
    parser.add_argument("--only", default="", help="run only the groups whose name contains this")
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    seconds = 0.15 if args.quick else 1.5
    measured: list[Row] = []
    with lab() as peers:
        for group in GROUPS:
            if args.only in group.__name__:
                for row in group(peers, seconds):
                    print(_line(row), flush=True)
                    measured.append(row)
    facts = _facts()
    print("\n" + ", ".join(f"{name} {value}" for name, value in facts.items()))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"facts": facts, "rows": [_figures(row) for row in measured]}, indent=1))
    return 0


def _line(row: Row) -> str:
    if row.group == "import":
        base = row.seconds("pass")
        return "\n".join(
            f"| import | `{name}` | {(row.seconds(name) - base) * 1e3:.0f} ms |" for name in row.samples if name != "pass"
        )
    ours = row.seconds(rows.OURS)
    cells = [row.group, row.work, _time(ours)]
    for other in (rows.MIT, rows.LIMIT):
        if other in row.samples:
            theirs = row.seconds(other)
            ratio = f"{theirs / ours:.2f}x" if other == rows.MIT else f"{ours / theirs:.2f}"
            cells += [_time(theirs), ratio]
    return f"| {' | '.join(cells)} | spread {row.spread(rows.OURS):.0%} |"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.2f} us" if seconds < 0.001 else f"{seconds * 1e3:.2f} ms"


def _figures(row: Row) -> dict[str, object]:
    return {
        "group": row.group,
        "work": row.work,
        "seconds": {name: row.seconds(name) for name in row.samples},
        "spread": {name: row.spread(name) for name in row.samples},
        "samples": {name: len(samples) for name, samples in row.samples.items()},
    }


def _facts() -> dict[str, str]:
    mit = subprocess.run(["krb5-config", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    packages = ("cryptography", "pyasn1", "impacket", "gssapi")
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()} {os.cpu_count()} cores",
        "Python": platform.python_version(),
        "MIT": mit,
        **{name: importlib.metadata.version(name) for name in packages},
    }


if __name__ == "__main__":
    sys.exit(main())
