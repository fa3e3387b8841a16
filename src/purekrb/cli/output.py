"""The output of the commands: text for people, or a line of JSON for scripts.

Results go to standard output; errors, the log and the spinner to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO

from purekrb.records import field_names
from purekrb.system import cached_property
from purekrb.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

__all__ = ["Output"]


class Output:
    """Prints results to standard output, and errors, log and progress to standard error."""

    def __init__(self, *, as_json: bool = False, trace: bool = False) -> None:
        self.as_json = as_json
        self.trace = trace
        #: Whether to show no progress, even on a terminal.
        self.quiet = trace
        self._spinner: Status | None = None

    def result(self, data: dict[str, Any], *lines: str) -> None:
        """Print `lines`, or `data` as one line of JSON.

        Values of `data` that are not of a JSON type become text; datetimes use ISO 8601. Each of
        `lines` stays one line: a name that others chose cannot begin a new line.
        """
        self._print([json.dumps(_plain(data))] if self.as_json else lines, sys.stdout)

    def note(self, *lines: str) -> None:
        """Print lines for people, beside the result; nothing as JSON."""
        if not self.as_json:
            self._print(lines, sys.stdout)

    def table(
        self,
        data: dict[str, Any],
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        title: str = "",
    ) -> None:
        """Print `rows` under `columns`, or `data` as JSON."""
        cells = [columns, *([visible(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        self.result(data, *([title, ""] if title else []), *lines)

    def styled(self, *parts: tuple[str, str]) -> None:
        """Print one line of (text, style) pairs.

        rich's styles are used if standard output is a terminal.
        """
        from rich.text import Text

        with self._console.capture() as line:
            self._console.print(
                Text.assemble(*((visible(text), style) for text, style in parts)), soft_wrap=True
            )
        _write(line.get(), sys.stdout)

    def rendered(self, content: Any) -> None:
        """Print a table or another renderable of rich. Its texts are already fit for a terminal."""
        with self._console.capture() as drawn:
            self._console.print(content)
        _write(drawn.get(), sys.stdout)

    @property
    def width(self) -> int:
        """The number of columns of the terminal; without a terminal, COLUMNS or 80."""
        return self._console.width

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console

        return Console(highlight=False)

    def error(self, message: str, kind: str) -> None:
        """Print an error as one line on standard error.

        As JSON, it has the keys `error` and `message`.
        """
        line = " ".join(message.split())
        self._print(
            [json.dumps({"error": kind, "message": line}) if self.as_json else f"purekrb: {line}"],
            sys.stderr,
        )

    def warning(self, message: str) -> None:
        """Print a warning as one line on standard error: text, or JSON with the key `warning`."""
        self._print(
            [json.dumps({"warning": message}) if self.as_json else f"purekrb: warning: {message}"],
            sys.stderr,
        )

    @contextmanager
    def log(self, file: str | None = None) -> Iterator[None]:
        """Print the records of the logger `purekrb` during the block.

        These are warnings; with `trace`, also each step of the protocol. The steps are also
        appended to the file named `file`, if one is named.
        """
        logger = logging.getLogger("purekrb")
        printer, level = _LogPrinter(self), logger.level
        printer.setLevel(logging.DEBUG if self.trace else logging.WARNING)
        handlers: list[logging.Handler] = [printer]
        if file:
            try:
                handlers.append(_LogFile(file))
            except OSError as error:
                self.warning(f"KRB5_TRACE: {file}: {error.strerror}")
        for handler in handlers:
            logger.addHandler(handler)
        if self.trace or len(handlers) > 1:
            logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            for handler in handlers:
                logger.removeHandler(handler)
                handler.close()
            logger.setLevel(level)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show `what` with a spinner while the block runs, until it prints something.

        Nothing is shown if standard error is not a terminal, or if it shows the trace.
        """
        if self.quiet or not sys.stderr or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.text import Text

        self._spinner = Console(stderr=True).status(Text(visible(what)))
        self._spinner.start()
        try:
            yield
        finally:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        spinner, self._spinner = self._spinner, None
        if spinner is not None:
            spinner.stop()

    def _print(self, lines: Iterable[str], file: TextIO) -> None:
        self._stop_waiting()
        _write("".join(f"{visible(line)}\n" for line in lines), file)


class _LogPrinter(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # if the log cannot be written, the command continues
            if self._output.trace:
                self._output._print(
                    [f"{record.relativeCreated:8.1f} ms  {record.name:<12}  {record.getMessage()}"],
                    sys.stderr,
                )
            else:
                self._output.warning(record.getMessage())


class _LogFile(logging.Handler):
    """Appends records to a file. Several processes may do so at the same time, as with MIT's."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def emit(self, record: logging.LogRecord) -> None:
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line = (
            f"[{record.process}] {time:%Y-%m-%d %H:%M:%S.%f}Z {record.name}: {record.getMessage()}"
        )
        with suppress(OSError):  # if the log cannot be written, the command continues
            os.write(self._file, f"{visible(line)}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        os.close(self._file)
        super().close()


def _write(text: str, file: TextIO | None) -> None:
    if file is None:  # the caller started this process with a closed stream
        return
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), end="", file=file, flush=True)


def _plain(value: object) -> object:
    """Return `value` in JSON's types; other types become text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not field_names(type(value)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)
