"""Times for authenticators never repeat."""

from __future__ import annotations

import gc
from datetime import datetime, timedelta, timezone

from purekrb.exchanges import timestamps
from purekrb.exchanges.timestamps import unique_now
from purekrb.system import now

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
TICK = timedelta(microseconds=1)


class Settable:
    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time


def test_a_clock_that_moves_on_is_believed() -> None:
    clock = Settable()
    assert unique_now(clock.now) == START
    clock.time += timedelta(seconds=1)
    assert unique_now(clock.now) == START + timedelta(seconds=1)


def test_a_clock_that_stands_still_gives_one_microsecond_after_the_other() -> None:
    clock = Settable()
    assert [unique_now(clock.now) for _ in range(3)] == [START, START + TICK, START + 2 * TICK]


def test_a_clock_that_is_set_back_a_little_repeats_nothing() -> None:
    clock = Settable()
    given = [unique_now(clock.now)]
    for _ in range(3):
        clock.time -= timedelta(minutes=2)
        given.append(unique_now(clock.now))
    assert given == sorted(set(given))


def test_a_clock_that_is_set_back_far_is_believed_again() -> None:
    clock = Settable()
    unique_now(clock.now)
    clock.time -= timedelta(hours=1)
    assert unique_now(clock.now) == START - timedelta(hours=1)


def test_each_clock_has_a_memory_of_its_own_so_that_a_recording_replays() -> None:
    assert unique_now(Settable().now) == unique_now(Settable().now) == unique_now(lambda: START) == START


def test_the_system_clock_increases_strictly() -> None:
    given = [unique_now(now) for _ in range(1000)]
    assert given == sorted(set(given))


def test_a_clock_without_weak_references_works_too() -> None:
    class Slotted:
        __slots__ = ()

        def __call__(self) -> datetime:
            return START

    first, second = unique_now(Slotted()), unique_now(Slotted())
    assert first < second


def test_a_clock_that_is_gone_leaves_nothing_behind() -> None:
    gc.collect()
    before = len(timestamps._last)
    for _ in range(10):
        unique_now(Settable().now)
    gc.collect()
    assert len(timestamps._last) <= before
