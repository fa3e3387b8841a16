"""What the commands print: text for people, or one JSON document for scripts. Waiting shows on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

__all__ = ["Output"]


class Output:
    """Prints results to standard output as text or as JSON, errors and progress to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, data: Any, text: str) -> None:
        """Print `text`, or `data` (lists, dicts, strings, numbers, datetimes) where JSON was asked for."""
        print(json.dumps(data, default=_json, indent=2) if self.as_json else text, flush=True)

    def table(self, data: Any, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Print `rows` under `columns`, or `data` where JSON was asked for."""
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows)
        ]
        self.result(data, "\n".join([*([title, ""] if title else []), *(line.rstrip() for line in lines)]))

    def error(self, message: str, kind: str) -> None:
        """Print an error as one line on standard error, or as JSON there."""
        line = " ".join(message.split())
        print(json.dumps({"error": kind, "message": line}) if self.as_json else f"purekrb: {line}", file=sys.stderr)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show `what` with a spinner while the block runs, if standard error is a terminal."""
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(what):
            yield


def _json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
