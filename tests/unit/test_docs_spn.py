"""The examples of docs/spn-and-scp.md work as printed."""

from __future__ import annotations

import doctest
from pathlib import Path


def test_the_examples_of_the_page_on_spns_and_scps_work_as_printed() -> None:
    page = Path(__file__).parents[2] / "docs" / "spn-and-scp.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 20
    assert result.failed == 0
