"""Cyrus SASL's sample programs: a client or a server that speaks SASL in lines of base64 on its pipes."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from support.peers import find_program

__all__ = ["CyrusProgram", "cyrus_client", "cyrus_server"]

_TIMEOUT = 20


class CyrusProgram:
    """A running program. Its lines of protocol begin with "C: " or "S: "."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def read(self) -> bytes:
        """Return the next token that the program sends."""
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            if line[:3] in (b"C: ", b"S: "):
                return base64.b64decode(line[3:])
            said.append(line)
        raise AssertionError(f"the program ended: {b''.join(said).decode(errors='replace')}")

    def write(self, prefix: str, token: bytes) -> None:
        """Send a token to the program."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{prefix}: ".encode() + base64.b64encode(token) + b"\n")
        self._process.stdin.flush()

    def rest(self) -> str:
        """Return the rest of what the program says, once its input has ended."""
        output, _ = self._process.communicate(timeout=_TIMEOUT)
        return output.decode(errors="replace")


@contextmanager
def _program(argv: Sequence[str], env: Mapping[str, str]) -> Iterator[CyrusProgram]:
    # Without stdbuf the program would keep its lines until it ends.
    with subprocess.Popen(
        [find_program("stdbuf", "coreutils"), "-o0", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env),
    ) as process:
        try:
            yield CyrusProgram(process)
        finally:
            process.kill()


@contextmanager
def cyrus_client(mechanism: str, env: Mapping[str, str], *options: str) -> Iterator[CyrusProgram]:
    """Run the client for the service host/localhost, after it has read the list of mechanisms."""
    program = find_program("sasl-sample-client", "sasl2-bin")
    argv = [program, "-s", "host", "-n", "localhost", "-m", mechanism, *options]
    with _program(argv, env) as client:
        client.write("S", mechanism.encode())
        yield client


@contextmanager
def cyrus_server(mechanism: str, env: Mapping[str, str], *options: str) -> Iterator[CyrusProgram]:
    """Run the server of host@HOSTNAME, after it has sent the list of mechanisms."""
    program = find_program("sasl-sample-server", "sasl2-bin")
    with _program([program, "-s", "host", "-m", mechanism, *options], env) as server:
        assert mechanism.encode() in server.read()
        yield server
