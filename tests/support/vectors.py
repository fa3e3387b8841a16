"""The known answers of `vectors/`, with their hex fields as bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parents[2] / "vectors"
_WORDS = {"source", "kind", "message", "name", "error"}


def load(file: str) -> list[dict[str, Any]]:
    """Return the entries of vectors/<file>."""
    entries = json.loads((VECTORS / file).read_text())["vectors"]
    return [
        {
            k: bytes.fromhex(v) if isinstance(v, str) and k not in _WORDS else v
            for k, v in entry.items()
        }
        for entry in entries
    ]


def params(file: str, label: str) -> list[Any]:
    """Return the entries of vectors/<file> as pytest parameters; `label` formats the id of one from its fields."""
    return [
        pytest.param(entry, id=f"{entry['source'].replace(' ', '-')}-{label.format(**entry)}-{n}")
        for n, entry in enumerate(load(file))
    ]
