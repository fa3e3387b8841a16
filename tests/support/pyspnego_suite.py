"""Runs pyspnego's own tests on purekrb's provider, without the C bindings that pyspnego would use.

They come in its sdist, which the caller has unpacked into the current directory. This program runs in a process of its
own and prints the outcome of each test as JSON: "passed", or why not.

    python pyspnego_suite.py ARGUMENT-OF-PYTEST ...
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

import purekrb.compat

__all__ = ["main"]


class Outcomes:
    """A plugin of pytest that keeps the outcome of each test."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.skipped:
            self.outcomes[report.nodeid] = str(report.longrepr[2])
        elif report.failed:
            self.outcomes[report.nodeid] = f"{report.when} failed: {report.longreprtext}"
        elif report.when == "call":
            self.outcomes.setdefault(report.nodeid, "passed")


def main(*arguments: str) -> None:
    """Run the tests. Where they want python-gssapi's names, they get those of purekrb."""
    sys.path[0] = ""  # not this directory, which has a module spnego
    purekrb.compat.install("gssapi", "spnego")
    sys.modules["krb5"] = None  # type: ignore[assignment]  # an import of it fails
    plugin = Outcomes()
    pytest.main(
        ["--rootdir=.", "-p", "no:cacheprovider", "-p", "no:terminal", *arguments], [plugin]
    )
    import spnego

    context = type(spnego.client(protocol="kerberos"))
    module = f"{context.__module__}.{context.__name__}"
    print(json.dumps({"provider": module, "outcomes": plugin.outcomes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
