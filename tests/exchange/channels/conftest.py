"""Fixtures of the tests of channels."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest

from support.channels import PATIENCE, Side, open_descriptors

KINDS = ["blocking", "asyncio"]


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest) -> Iterator[Side]:
    side = Side(request.param)
    yield side
    side.stop()


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Side]:
    side = Side(request.param)
    yield side
    side.stop()


@pytest.fixture(scope="module", autouse=True)
def old_objects_are_frozen() -> Iterator[None]:
    """Looking for garbage takes half a second where a run has made a million objects: look at new ones alone."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """Every test gives back what it opened, whatever it did to the other side."""
    before = open_descriptors()
    yield
    deadline = time.monotonic() + PATIENCE
    while open_descriptors() != before:  # a KDC may still be closing its end
        assert time.monotonic() < deadline
        time.sleep(0.01)
