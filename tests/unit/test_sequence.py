"""The sequence window of a receiver, against MIT's and Heimdal's tables and a set without a limit."""

from __future__ import annotations

import random
from typing import Any

import pytest

from purekrb import SequenceError
from purekrb.gss.sequence import SequenceWindow
from support.vectors import load

VECTORS = load("sequence_windows.json")


def verdict(window: SequenceWindow, number: int) -> str:
    try:
        window.check(number)
    except SequenceError as error:
        return error.reason
    return "ok"


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(vector, bits, id=f"{vector['source'].split()[0]}-{number}-{bits}-bits")
        for number, vector in enumerate(VECTORS)
        if vector["kind"] == kind
        for bits in vector["bits"]
    ]


@pytest.mark.parametrize(("vector", "bits"), cases("each"))
def test_each_number_of_mits_tables_is_judged(vector: dict[str, Any], bits: int) -> None:
    window = SequenceWindow(vector["first"], replay=vector["replay"], sequence=vector["sequence"], bits=bits)
    assert [(number, verdict(window, number)) for number, _ in vector["steps"]] == [tuple(s) for s in vector["steps"]]


@pytest.mark.parametrize(("vector", "bits"), cases("first-error"))
def test_the_first_error_of_heimdals_tables_is_found(vector: dict[str, Any], bits: int) -> None:
    window = SequenceWindow(vector["first"], replay=vector["replay"], sequence=vector["sequence"], bits=bits)
    verdicts = [verdict(window, number) for number in vector["numbers"]]
    assert next((found for found in verdicts if found != "ok"), "ok") == vector["error"]


@pytest.mark.parametrize("bits", [32, 64])
def test_the_window_is_64_wide(bits: int) -> None:
    first = (1 << bits) - 10
    mask = (1 << bits) - 1

    def number(offset: int) -> int:
        return first + offset & mask

    window = SequenceWindow(first, replay=True, sequence=False, bits=bits)
    assert verdict(window, number(0)) == "ok"
    assert verdict(window, number(64)) == "ok"
    assert verdict(window, number(0)) == "old"
    assert [verdict(window, number(n)) for n in range(1, 64)] == ["ok"] * 63
    assert [verdict(window, number(n)) for n in range(1, 65)] == ["duplicate"] * 64
    assert verdict(window, number(65)) == "ok"
    assert verdict(window, number(1)) == "old"
    assert verdict(window, number(2)) == "duplicate"


@pytest.mark.parametrize("jump", [63, 64, 65, 1000, 1 << 31, (1 << 63) - 1])
def test_a_jump_forgets_what_falls_out_and_nothing_else(jump: int) -> None:
    window = SequenceWindow(0, replay=True, sequence=False)
    assert verdict(window, 0) == "ok"
    assert verdict(window, jump) == "ok"
    assert verdict(window, jump) == "duplicate"
    assert verdict(window, 0) == ("duplicate" if jump < 64 else "old")
    assert verdict(window, jump + 1) == "ok"


def test_half_the_number_space_ahead_is_ahead_and_more_is_behind() -> None:
    for distance, found in (((1 << 63) - 1, "ok"), (1 << 63, "old"), ((1 << 64) - 65, "old")):
        assert verdict(SequenceWindow(5, replay=True, sequence=False), (5 + distance) % (1 << 64)) == found


@pytest.mark.parametrize("replay", [True, False])
@pytest.mark.parametrize("sequence", [True, False])
def test_a_window_agrees_with_a_memory_without_limit(replay: bool, sequence: bool) -> None:
    """A model that keeps every number, over a walk that goes forth and back."""
    walk = random.Random(4121)
    for bits in (32, 64):
        first = walk.choice([0, 1, (1 << bits) - 1, (1 << bits) - 200])
        window = SequenceWindow(first, replay=replay, sequence=sequence, bits=bits)
        seen: set[int] = set()
        newest = -1
        for _ in range(3000):
            offset = newest + 1 + walk.choice([0, 0, 0, 1, 2, 5, 70, -1, -2, -3, -10, -63, -64, -65, -66, -100])
            if offset < 0:
                continue
            if not (replay or sequence):
                expected = "ok"
            elif offset > newest:
                expected = "gap" if sequence and offset > newest + 1 else "ok"
            elif newest - offset >= 64:
                expected = "old"
            elif offset in seen:
                expected = "duplicate"
            else:
                expected = "unsequenced" if sequence else "ok"
            assert verdict(window, (first + offset) % (1 << bits)) == expected
            seen.add(offset)
            newest = max(newest, offset)


def test_without_flags_nothing_is_judged() -> None:
    window = SequenceWindow(0, replay=False, sequence=False)
    assert [verdict(window, number) for number in (5, 5, 0, 1 << 63, 5)] == ["ok"] * 5
