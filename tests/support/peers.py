"""How the suite starts and stops real peers: programs looked up by name, daemons that end with the tests."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

__all__ = [
    "AddressInUseError",
    "Daemon",
    "find_program",
    "free_port",
    "missing_peer",
    "on_free_port",
    "run",
]

T = TypeVar("T")

#: Debian keeps daemons where an ordinary user's PATH does not look.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

#: Seconds that any single program of a peer may take before the test fails, and until a daemon listens.
_PROGRAM_TIMEOUT = 60.0

#: Below those that systems hand out to sockets without a port of their own (Linux from 32768, others from 49152).
_PORTS = range(10_240, 32_768)


def missing_peer(what: str, package: str) -> NoReturn:
    """Fail because a peer is not installed; skip instead where a laptop asked for that, never in CI."""
    message = (
        f"{what} is not installed: run `make test`, which installs the Debian package {package}"
    )
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
    """Return a loopback port that is free for both TCP and UDP, and that no socket gets without asking for it."""
    while True:
        port = secrets.choice(
            _PORTS
        )  # as `random` may be seeded alike in processes that test at the same time
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class AddressInUseError(RuntimeError):
    """A daemon says that its address is in use."""


def on_free_port(start: Callable[[int], T]) -> T:
    """Return `start(port)` for a free port; another program may be faster to take one, then for another port."""
    for _ in range(4):
        try:
            return start(free_port())
        except AddressInUseError:
            continue
    return start(free_port())


def run(
    argv: Sequence[str], *, env: Mapping[str, str], text: str = "", cwd: Path | None = None
) -> str:
    """Run a program to its end with `text` as input; return its stdout; fail with its output if it fails."""
    done = subprocess.run(
        argv,
        env=dict(env),
        input=text,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_PROGRAM_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
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
        own_log: Path | None = None,
        port: int | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """Start it and wait until it listens on `port`.

        Its output goes to `log`; `own_log` is what it writes itself. Where the daemon says that the address is in use,
        AddressInUseError is raised.
        """
        logs = [path for path in (log, own_log) if path is not None]
        self._logs = [(path, path.stat().st_size if path.exists() else 0) for path in logs]
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
        self.argv = tuple(argv)
        if port is not None:
            self._wait_for(address, port)

    def _wait_for(self, address: str, port: int) -> None:
        deadline = time.monotonic() + _PROGRAM_TIMEOUT
        while time.monotonic() < deadline:
            try:
                socket.create_connection((address, port), timeout=1).close()
            except OSError:
                if "address already in use" in self._said().lower():
                    self.stop()
                    raise AddressInUseError(
                        f"{self.argv[0]}: port {port} is in use:\n{self._said()}"
                    ) from None
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise RuntimeError(f"{self.argv[0]} does not listen on port {port}:\n{self._said()}")

    def _said(self) -> str:
        """Return what the daemon has said since it was started."""
        return "".join(
            path.read_bytes()[size:].decode(errors="replace")
            for path, size in self._logs
            if path.exists()
        )

    def stop(self) -> None:
        """End the daemon and wait until it is gone."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        try:
            self._guard.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
