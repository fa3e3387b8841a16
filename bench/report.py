"""From what was measured to JSON, and from JSON to Markdown."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.goals import GOALS, HANDSHAKE, LIMIT, MIT, MIT_FILE, OURS, TALK
from bench.timing import Row

__all__ = ["facts", "figures", "line", "markdown", "update_readme"]

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HOLDS = {True: "✓", False: "✗", None: "-"}
GROUPS = {
    "threads": "Two threads",
    "contexts": "Contexts: initiator step + acceptor step + AP-REP verified",
    "decode": "Decoding",
    "tickets": "Tickets from a local MIT KDC",
    "keys": "Keys",
    "import": "Import, in a new interpreter",
    "memory": "Memory above the input: rise of the peak of resident memory",
    "asyncio": "A crowd",
    "directory": "LDAP",
}
#: The head of the figures: title -> its row, and beside whom it is shown.
_EVERYDAY = {
    f"{TALK}, etype 18": (("contexts", f"etype 18, {TALK}, ticket seen"), MIT_FILE),
    "the same, new ticket": (("contexts", f"etype 18, {TALK}, new ticket"), MIT_FILE),
    f"{TALK}, etype 20": (("contexts", f"etype 20, {TALK}, ticket seen"), MIT_FILE),
    f"{HANDSHAKE} alone, etype 18": (("contexts", f"etype 18, {HANDSHAKE}, ticket seen"), MIT_FILE),
    "AS + TGS by password": (("tickets", "TGT and service ticket, password"), MIT),
    "AS + TGS by key": (("tickets", "TGT and service ticket, key"), MIT),
    "import": (("import", "Initiator, Acceptor and their messages"), "python-gssapi"),
}
COMMON = ("64 B", "1 KiB", "64 KiB", "1 MiB")
COMMON_WORKS = {
    "wrap sealed": "wrap",
    "unwrap sealed": "unwrap",
    "get_mic": "get_mic",
    "verify_mic": "verify_mic",
}


def figures(row: Row) -> dict[str, Any]:
    """Return a row for JSON, with its goals and what was reached."""
    goals = []
    for goal in GOALS.get((row.group, row.work), ()):
        reached = goal.reached(row)
        holds = None if reached is None else goal.holds(reached)
        goals.append(
            {
                "kind": goal.kind,
                "bound": goal.bound,
                "other": goal.other,
                "reached": reached,
                "holds": holds,
            }
        )
    return {
        "group": row.group,
        "work": row.work,
        "unit": row.unit,
        "statistic": row.statistic,
        "values": {name: row.value(name) for name in row.samples},
        "spread": {name: round(row.spread(name), 3) for name in row.samples},
        "samples": {name: len(samples) for name, samples in row.samples.items()},
        "goals": goals,
        "note": row.note,
    }


def facts(peers: dict[str, str], load: float, quick: bool) -> dict[str, str]:
    """Return when, where and with what was measured. `load` is the load average before it began."""
    mit = subprocess.run(
        ["krb5-config", "--version"], capture_output=True, text=True, check=False
    ).stdout.strip()
    packages = ("cryptography", "pyasn1", "impacket", "gssapi")
    library = os.environ.get("PUREKRB_BENCH_GSSAPI_LOADED")
    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    from cryptography.hazmat.backends.openssl import backend

    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "run": "quick, with large spreads" if quick else "full",
        "commit": commit,
        "machine": f"{_processor()}, {os.cpu_count()} cores, load {load:.1f} before",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "MIT": mit if library is None else f"libraries in {library}",
        "OpenSSL of cryptography": backend.openssl_version_text(),
        "OpenSSL of the limit": _libcrypto(),
        **{name: importlib.metadata.version(name) for name in packages},
        **{"pyspnego" if name == "spnego" else name: version for name, version in peers.items()},
    }


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of text, for watching."""
    cells = [
        f"{row['group']}: {row['work']}",
        f"{OURS} {_amount(row['values'][OURS], row['unit'])}",
        _others(row),
    ]
    cells += [f"{_goal(goal, row['unit'])} {HOLDS[goal['holds']]}" for goal in row["goals"]]
    return "  |  ".join(cell for cell in (*cells, row["note"]) if cell)


def markdown(results: dict[str, Any]) -> str:
    """Return the tables."""
    return "\n".join(_markdown(results["facts"], results["rows"])) + "\n"


def update_readme(readme: Path, results: dict[str, Any]) -> None:
    """Replace what stands between the two marks of `readme`."""
    text = readme.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    readme.write_text(f"{head}{BEGIN}\n{markdown(results)}{END}{tail}")


def _markdown(facts: dict[str, str], rows: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "Measured "
        + ", ".join(f"{name} {value}" if name != "date" else value for name, value in facts.items())
        + "."
    )
    yield ""
    goals = [goal for row in rows for goal in row["goals"] if goal["holds"] is not None]
    yield f"Goals that hold: {sum(goal['holds'] for goal in goals)} of {len(goals)}."
    yield from _against_gssapi(rows)
    messages = [row for row in rows if row["group"].startswith("etype")]
    for group in dict.fromkeys(row["group"] for row in messages):
        yield f"\n### Messages, {group}\n"
        yield "| work | purekrb | spread | MIT | ahead of MIT | limit | over the limit | goal | |"
        yield "|---|---:|---:|---:|---:|---:|---:|---|---|"
        for row in messages:
            if row["group"] == group:
                yield _message(row)
    for group, title in GROUPS.items():
        chosen = [row for row in rows if row["group"] == group]
        if chosen:
            yield f"\n### {title}\n"
            yield "| work | purekrb | spread | others (theirs / ours) | goal | |"
            yield "|---|---:|---:|---|---|---|"
        for row in chosen:
            work = f"{row['work']} ({row['note']})" if row["note"] else row["work"]
            ours = _amount(row["values"][OURS], row["unit"])
            yield f"| {work} | {ours} | {_spread(row)} | {_others(row)} | {_goals(row)} |"


def _against_gssapi(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the summary: everyday work, purekrb / python-gssapi."""
    found = {(row["group"], row["work"]): row for row in rows}
    if ("etype 18", "wrap sealed 64 B") not in found:
        return
    yield "\n### Against python-gssapi\n"
    yield "| | purekrb / python-gssapi |\n|---|---|"
    for title, (key, other) in _EVERYDAY.items():
        yield f"| {title} | {_versus(found.get(key), other)} |"
    yield f"\n| etype 18, purekrb / python-gssapi | {' | '.join(COMMON)} |"
    yield "|---|" + "---|" * len(COMMON)
    for work, title in COMMON_WORKS.items():
        cells = [_versus(found.get(("etype 18", f"{work} {size}")), MIT) for size in COMMON]
        yield f"| {title} | {' | '.join(cells)} |"


def _versus(row: dict[str, Any] | None, other: str) -> str:
    if row is None or other not in row["values"]:
        return "-"
    ours, theirs = row["values"][OURS], row["values"][other]
    return f"{_amount(ours, 's')} / {_amount(theirs, 's')} ({theirs / ours:.1f}x)"


def _message(row: dict[str, Any]) -> str:
    values = row["values"]
    ours, mit, limit = values[OURS], values.get(MIT), values[LIMIT]
    theirs = (_amount(mit, "s"), f"{mit / ours:.2f}x") if mit is not None else ("-", "-")
    cells = (
        row["work"],
        _amount(ours, "s"),
        _spread(row),
        *theirs,
        _amount(limit, "s"),
        f"{ours / limit:.2f}",
    )
    return f"| {' | '.join(cells)} | {_goals(row)} |"


def _goals(row: dict[str, Any]) -> str:
    texts = "<br>".join(_goal(goal, row["unit"]) for goal in row["goals"])
    return f"{texts} | " + "<br>".join(HOLDS[goal["holds"]] for goal in row["goals"])


def _goal(goal: dict[str, Any], unit: str) -> str:
    reached = goal["reached"]
    if goal["kind"] == "within":
        return f"<= {_amount(goal['bound'], unit)}"
    if goal["kind"] == "ahead":
        return f">= {goal['bound']:g}x {goal['other']}" + (
            "" if reached is None else f" ({reached:.2f})"
        )
    return f"<= {goal['bound']:g} of {goal['other']}" + (
        "" if reached is None else f" ({reached:.3f})"
    )


def _others(row: dict[str, Any]) -> str:
    ours = row["values"][OURS]
    return ", ".join(
        f"{name} {_amount(value, row['unit'])} ({value / ours:.{1 if value > 10 * ours else 2}f}x)"
        for name, value in row["values"].items()
        if name != OURS
    )


def _spread(row: dict[str, Any]) -> str:
    return f"{row['statistic']} {row['spread'][OURS]:+.0%}"


def _amount(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value / (1 << 20):.2f} MiB"
    if value < 1e-3:
        return f"{value * 1e6:.3g} us"
    return f"{value * 1e3:.3g} ms"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [row for row in cpuinfo.read_text().splitlines() if "model name" in row]
        if cpuinfo.exists()
        else []
    )
    return f"{platform.machine()} {names[0].split(':')[1].strip()}" if names else platform.machine()


def _libcrypto() -> str:
    lib = ctypes.CDLL(ctypes.util.find_library("crypto"))
    lib.OpenSSL_version.restype = ctypes.c_char_p
    return str(lib.OpenSSL_version(0).decode())
