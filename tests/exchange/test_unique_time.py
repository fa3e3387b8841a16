"""Times for authenticators never repeat."""

from __future__ import annotations

import gc
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from itertools import pairwise

from purekrb.exchanges import unique_time
from purekrb.exchanges.unique_time import UniqueTimes, unique_now
from purekrb.system import WINDOW, now
from support.processes import in_children, soak

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
TICK = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
PERIOD = timedelta(microseconds=WINDOW)


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
    assert (
        unique_now(Settable().now)
        == unique_now(Settable().now)
        == unique_now(lambda: START)
        == START
    )


def test_another_clock_that_is_set_back_far_repeats_nothing() -> None:
    clock = Settable()
    given = []
    for hours in (0, -1, 0, -1, -2, 0, 0):
        clock.time = START + timedelta(hours=hours)
        given.append(unique_now(clock.now))
    assert len(set(given)) == len(given)
    assert all(
        abs(moment - START - timedelta(hours=hours)) < timedelta(seconds=1)
        for moment, hours in zip(given, (0, -1, 0, -1, -2, 0, 0), strict=True)
    )


def test_the_memory_of_another_clock_is_bounded() -> None:
    clock = Settable()
    for number in range(unique_time._MAX_GIVEN + 100):
        clock.time = START + timedelta(seconds=number)
        unique_now(clock.now)
    assert len(unique_time._last[clock]) == unique_time._MAX_GIVEN


# --- the system's clock, whose microseconds are random


def test_times_are_off_by_less_than_a_window() -> None:
    times, clock = UniqueTimes(), Settable()
    for number in range(2000):
        clock.time += timedelta(microseconds=WINDOW // 3 + number)
        off = times(clock.now) - clock.time
        assert abs(off) < timedelta(microseconds=WINDOW)
        assert (times(clock.now) - EPOCH) // PERIOD == (clock.time - EPOCH) // PERIOD


def test_the_same_moment_has_other_microseconds_in_another_process() -> None:
    """There are 100,000 of them, so that of 60 processes hardly any two have the same."""
    clock = Settable()
    microseconds = {UniqueTimes()(clock.now).microsecond for _ in range(60)}
    assert len(microseconds) >= 58
    of_children = in_children(8, lambda _: str(unique_time._of_system(clock.now)).encode())
    assert len(set(of_children)) >= 7


def test_windows_have_places_that_do_not_tell_each_other() -> None:
    times, clock = UniqueTimes(), Settable()
    places = []
    for _ in range(500):
        clock.time += PERIOD
        places.append(((times(clock.now) - EPOCH) % PERIOD).microseconds)
    assert len(set(places)) > 480
    assert len({later - former for former, later in pairwise(places)}) > 480


def test_k416_no_time_is_given_twice_however_the_clock_is_set() -> None:
    rng = random.Random(416)
    times, clock = UniqueTimes(), Settable()
    given, rounds = set(), soak(300, 20_000)
    for count in range(rounds):
        clock.time = (
            START + rng.choice((0, 0, 1, 3600)) * timedelta(seconds=1) + rng.randrange(4) * PERIOD
        )
        for _ in range(rng.choice((1, 2, 40))):
            given.add(times(clock.now))
            clock.time += rng.choice((0, 0, 1)) * timedelta(milliseconds=1)
            count += 1
    control = set()
    for _ in range(3):
        clock.time = START
        before = len(given)
        given.add(times(clock.now))
        assert len(given) == before + 1
        control.add(clock.now())
    assert len(control) == 1, "the clock itself says the same"


def test_k416_times_run_ahead_rather_than_repeat_where_the_places_are_used_up() -> None:
    times, clock = UniqueTimes(), Settable()
    given = []
    for _ in range(soak(20, 200)):
        for moment in (START + timedelta(hours=1), START):
            clock.time = moment
            given += [times(clock.now) for _ in range(1000)]
    assert len(set(given)) == len(given)
    assert given[-1] > START + timedelta(minutes=50), "the clock is not believed any more"
    clock.time = START + timedelta(hours=2)
    assert abs(times(clock.now) - clock.time) < PERIOD, "until it is there"


def test_k416_threads_and_full_windows_repeat_nothing() -> None:
    times, clock = UniqueTimes(), Settable()
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda _: times(clock.now), range(60_000)))
    assert len(set(given)) == 60_000
    assert max(given) - START < 4 * PERIOD


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
    before = len(unique_time._last)
    for _ in range(10):
        unique_now(Settable().now)
    gc.collect()
    assert len(unique_time._last) <= before
