"""Runs examples/sspi_service.py and examples/sspi_client.py, as users do."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Service", "run_client", "running_service"]

EXAMPLES = Path(__file__).parents[2] / "examples"
_PYTHON = (sys.executable, "-W", "error")


@dataclass
class Service:
    """A running service, and what it has printed once it has ended."""

    port: str
    name: str
    printed: list[str] = field(default_factory=list)


@contextmanager
def running_service(env: Mapping[str, str], *options: str) -> Iterator[Service]:
    """Run the service on a free port."""
    argv = [*_PYTHON, str(EXAMPLES / "sspi_service.py"), "--port", "0", *options]
    with subprocess.Popen(argv, env=dict(env), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            match = re.fullmatch(r"(.*) listens on port (\d+)\n", first)
            assert match, first
            service = Service(match[2], match[1])
            yield service
        finally:
            process.kill()
            rest, _ = process.communicate()
    service.printed = rest.splitlines()


def run_client(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the client; the service is on this machine, whatever its host's name is."""
    argv = [*_PYTHON, str(EXAMPLES / "sspi_client.py"), "--address", "127.0.0.1", *arguments]
    return subprocess.run(
        argv, env=dict(env), capture_output=True, text=True, timeout=60, check=False
    )
