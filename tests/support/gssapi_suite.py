"""Runs python-gssapi's own tests with purekrb's module in the place of their package.

They come in the installed package (gssapi/tests), and make realms of MIT's KDC with k5test. This program runs in a
process of its own, and prints the outcome of each test as JSON: "passed", or why not.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import unittest
from pathlib import Path

import purekrb.compat

__all__ = ["main"]

MODULES = ("test_high_level", "test_raw")


class Outcomes(unittest.TestResult):
    """Keeps the outcome of each test by `module.Class.function`."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str] = {}

    def _keep(self, test: unittest.TestCase, outcome: str) -> None:
        self.outcomes[test.id().removeprefix("gssapi_tests.")] = outcome

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self._keep(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._keep(test, f"skipped: {reason}")

    def addFailure(self, test: unittest.TestCase, err) -> None:  # type: ignore[no-untyped-def]
        super().addFailure(test, err)
        self._keep(test, self.failures[-1][1])

    def addError(self, test: unittest.TestCase, err) -> None:  # type: ignore[no-untyped-def]
        super().addError(test, err)
        self._keep(test, self.errors[-1][1])


def main(portbase: int, *only: str) -> None:
    """Run the tests, or those whose names contain one of `only`; realms take the ports from `portbase` on."""
    purekrb.compat.install("gssapi")
    import k5test.realm

    start = k5test.realm.K5Realm.__init__
    start.__defaults__ = (start.__defaults__[0], portbase, *start.__defaults__[2:])
    distribution = importlib.metadata.distribution("gssapi")
    suite = unittest.TestSuite()
    for name in MODULES:
        path = Path(str(distribution.locate_file(f"gssapi/tests/{name}.py")))
        spec = importlib.util.spec_from_file_location(f"gssapi_tests.{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        for case in unittest.defaultTestLoader.loadTestsFromModule(module):
            for test in case:  # type: ignore[union-attr]
                if not only or any(part in test.id() for part in only):
                    suite.addTest(test)
    result = Outcomes()
    suite.run(result)
    import gssapi

    print(
        json.dumps(
            {
                "module": gssapi.__file__,
                "version": distribution.version,
                "outcomes": result.outcomes,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
