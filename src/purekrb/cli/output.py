"""What the commands print: text for people, or a line of JSON for scripts. Waiting shows on standard error."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from purekrb.records import field_names
from purekrb.system import cached_property
from purekrb.text import visible

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Output"]


class Output:
    """Prints results to standard output as text or as JSON; errors, log and progress to standard error."""

    def __init__(self, *, as_json: bool = False, trace: bool = False) -> None:
        self.as_json = as_json
        self.trace = trace

    def result(self, data: dict[str, Any], *lines: str) -> None:
        """Print `lines`, or `data` (of JSON's types and datetimes, all else as text) as one line of JSON.

        Each of `lines` is one line, whatever is in it: no name that others chose begins a line of its own.
        """
        _print([json.dumps(_plain(data))] if self.as_json else lines, sys.stdout)

    def table(
        self,
        data: dict[str, Any],
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        title: str = "",
    ) -> None:
        """Print `rows` under `columns`, or `data` where JSON was asked for."""
        cells = [columns, *([visible(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        self.result(data, *([title, ""] if title else []), *lines)

    def styled(self, *parts: tuple[str, str]) -> None:
        """Print one line of (text, style) pairs, in rich's styles where standard output is a terminal."""
        from rich.text import Text

        with self._console.capture() as line:
            self._console.print(
                Text.assemble(*((visible(text), style) for text, style in parts)), soft_wrap=True
            )
        _write(line.get(), sys.stdout)

    @property
    def width(self) -> int:
        """The columns of the terminal; 80 where standard output is none, unless COLUMNS says otherwise."""
        return self._console.width

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console

        return Console(highlight=False)

    def error(self, message: str, kind: str) -> None:
        """Print an error as one line on standard error: text, or JSON with the keys `error` and `message`."""
        line = " ".join(message.split())
        _print(
            [json.dumps({"error": kind, "message": line}) if self.as_json else f"purekrb: {line}"],
            sys.stderr,
        )

    def warning(self, message: str) -> None:
        """Print a warning as one line on standard error: text, or JSON with the key `warning`."""
        _print(
            [json.dumps({"warning": message}) if self.as_json else f"purekrb: warning: {message}"],
            sys.stderr,
        )

    @contextmanager
    def log(self) -> Iterator[None]:
        """Print what the logger `purekrb` says meanwhile: warnings, or with `trace` each step of the protocol."""
        logger = logging.getLogger("purekrb")
        handler, level = _LogPrinter(self), logger.level
        handler.setLevel(logging.DEBUG if self.trace else logging.WARNING)
        logger.addHandler(handler)
        if self.trace:
            logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show `what` with a spinner while the block runs, if standard error is a terminal (and shows no trace)."""
        if self.trace or not sys.stderr or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status(Text(visible(what))):
            yield


class _LogPrinter(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a log that nobody reads must not stop what it tells of
            if self._output.trace:
                _print(
                    [f"{record.relativeCreated:8.1f} ms  {record.name:<12}  {record.getMessage()}"],
                    sys.stderr,
                )
            else:
                self._output.warning(record.getMessage())


def _print(lines: Iterable[str], file: TextIO) -> None:
    _write("".join(f"{visible(line)}\n" for line in lines), file)


def _write(text: str, file: TextIO | None) -> None:
    if file is None:  # closed by who started us: nobody wants to know
        return
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end="", file=file, flush=True)


def _plain(value: object) -> object:
    """Return `value` as JSON can hold it: all but numbers, lists and tables as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not field_names(type(value)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)
