"""Programs on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Terminal"]

_ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A program on a terminal of its own. `expect` waits until it has printed something."""

    def __init__(
        self,
        directory: Path,
        *argv: str,
        stdout: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x28\0\x50\0" + bytes(4))
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-c", _ON_A_TERMINAL, *argv],
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            cwd=directory,
            env={**(os.environ if env is None else env), "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)
        self.printed = ""

    def expect(self, text: str) -> None:
        while text not in self.printed:
            assert select.select([self._master], [], [], 30)[0], (
                f"nothing more than {self.printed!r}"
            )
            self.printed += os.read(self._master, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait(self) -> int:
        """Return the exit code, once all that it prints is in `printed`."""
        try:
            while piece := os.read(self._master, 4096):
                self.printed += piece.decode()
        except OSError:  # EIO: the last process has closed the terminal
            pass
        os.close(self._master)
        return self.process.wait(timeout=30)
