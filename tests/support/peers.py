"""How the suite starts and stops real peers: programs looked up by name, daemons that end with the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["Daemon", "find_program", "free_port", "missing_peer", "run"]

#: Debian keeps daemons where an ordinary user's PATH does not look.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

#: Seconds that any single program of a peer may take before the test fails.
_PROGRAM_TIMEOUT = 60.0


def missing_peer(what: str, package: str) -> NoReturn:
    """Fail because a peer is not installed; skip instead where a laptop asked for that, never in CI."""
    message = f"{what} is not installed: run `make test`, which installs the Debian package {package}"
    if os.environ.get("PUREKRB_ALLOW_MISSING_PEERS") == "1" and os.environ.get("CI") != "true":
        pytest.skip(message)
    pytest.fail(message, pytrace=False)


def find_program(name: str, package: str) -> str:
    """Return the absolute path of the program `name`, which the Debian package `package` brings."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        missing_peer(name, package)
    return path


def free_port() -> int:
    """Return a loopback port that is free for both TCP and UDP at this moment."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                try:
                    udp.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port


def run(argv: Sequence[str], *, env: Mapping[str, str], text: str = "", cwd: Path | None = None) -> str:
    """Run a program to its end with `text` as input; return its stdout; fail with its output if it fails."""
    done = subprocess.run(
        argv, env=dict(env), input=text, cwd=cwd, capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Daemon:
    """A child process that listens on a loopback port and ends with this process, however this process ends.

    A small shell stands between: it waits on a pipe that only we hold, so that even `kill -9` of pytest
    closes the pipe and takes the daemon down.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        port: int | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        # The traps come second, so that the daemon does not inherit them.
        guard = '"$@" </dev/null & child=$!; trap "" TERM INT; read -r _; kill $child 2>/dev/null; wait $child'
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", guard, "guard", *argv],
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
        self._log = log
        self.argv = tuple(argv)
        if port is not None:
            self._wait_for(address, port)

    def _wait_for(self, address: str, port: int) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection((address, port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise RuntimeError(f"{self.argv[0]} does not listen on port {port}:\n{self._log.read_text(errors='replace')}")

    def stop(self) -> None:
        """End the daemon and wait until it is gone."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        try:
            self._guard.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
