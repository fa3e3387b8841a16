"""docs/implemented-standards.md names files and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "implemented-standards.md").read_text().splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| standard"))
]


def test_every_row_has_five_cells_and_names_a_file_and_a_test() -> None:
    assert len(ROWS) > 30
    for row in ROWS:
        assert len(row) == 5, row
        assert "`" in row[3], row
        assert "`" in row[4] or row[4] == "none yet", row


def test_every_file_and_test_of_the_table_exists() -> None:
    named = [
        (folder, name)
        for row in ROWS
        for folder, cell in (("src/purekrb", row[3]), ("tests", row[4]))
        for name in re.findall(r"`([^`]+)`", cell)
    ]
    assert [
        f"{folder}/{name}" for folder, name in named if not (ROOT / folder / name).is_file()
    ] == []
