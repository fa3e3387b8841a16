"""The tests of units use no socket and start no process: the interpreter's audit events tell."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

#: An event loop makes a pair of sockets for itself. Those are connected to nothing, and raise none of these.
WATCHED = {
    *(f"socket.{name}" for name in ("bind", "connect", "getaddrinfo", "sendmsg", "sendto")),
    *(
        "subprocess.Popen",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
    ),
}
_seen: list[str] = []


def _watch(event: str, _: object) -> None:
    if event in WATCHED:
        _seen.append(event)


sys.addaudithook(_watch)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Forget what tests of other folders did in this process."""
    _seen.clear()


@pytest.fixture(autouse=True)
def audited() -> Iterator[list[str]]:
    """What the test, and the fixtures made for it, did with sockets and processes: nothing."""
    yield _seen
    assert _seen == [], (
        "this test belongs into tests/exchange (sockets) or tests/process (processes)"
    )
