"""The sequence window of a receiver, against MIT's and Heimdal's tables and a set without a limit."""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from types import FrameType
from typing import Any

import pytest

from purekrb import SequenceError
from purekrb.gss import sequence as module
from purekrb.gss.sequence import SequenceWindow, numbers
from support.vectors import load

VECTORS = load("sequence_windows.json")


def verdict(window: SequenceWindow, number: int) -> str:
    try:
        window.check(number.to_bytes(window._mask.bit_length() // 8, "big"))
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
    window = SequenceWindow(
        vector["first"], replay=vector["replay"], sequence=vector["sequence"], bits=bits
    )
    assert [(number, verdict(window, number)) for number, _ in vector["steps"]] == [
        tuple(s) for s in vector["steps"]
    ]


@pytest.mark.parametrize(("vector", "bits"), cases("first-error"))
def test_the_first_error_of_heimdals_tables_is_found(vector: dict[str, Any], bits: int) -> None:
    window = SequenceWindow(
        vector["first"], replay=vector["replay"], sequence=vector["sequence"], bits=bits
    )
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
        assert (
            verdict(SequenceWindow(5, replay=True, sequence=False), (5 + distance) % (1 << 64))
            == found
        )


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
            offset = (
                newest
                + 1
                + walk.choice([0, 0, 0, 1, 2, 5, 70, -1, -2, -3, -10, -63, -64, -65, -66, -100])
            )
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


@pytest.mark.parametrize("first", [0, 1000, (1 << 63) - 2, 1 << 63, (1 << 64) - 3])
def test_a_sender_takes_one_number_after_the_other_and_zero_after_the_highest(first: int) -> None:
    assert list(islice(numbers(first), 6)) == [
        ((first + n) % (1 << 64)).to_bytes(8, "big") for n in range(6)
    ]


def test_the_state_carries_on_wherever_it_is_taken() -> None:
    """Among them places where the counter starts again."""
    for bits in (32, 64):
        first = (1 << bits) - 70
        for received in (0, 1, 2, 64, 65, 66, 69, 70, 71, 140):
            window = SequenceWindow(first, replay=True, sequence=True, bits=bits)
            stream = [(first + n) % (1 << bits) for n in range(received)]
            assert {verdict(window, number) for number in stream} <= {"ok"}
            expected, seen = window.state
            assert window.state == (expected, seen)
            assert expected == (first + received) % (1 << bits)
            assert seen == (1 << min(received, 64)) - 1
            carried_on = SequenceWindow(expected, seen=seen, replay=True, sequence=True, bits=bits)
            for one in (window, carried_on):
                assert {verdict(one, number) for number in stream[-64:]} <= {"duplicate"}
                assert [verdict(one, expected) for _ in range(2)] == ["ok", "duplicate"]


# --- threads


def test_of_many_threads_with_the_same_numbers_one_passes_each() -> None:
    window = SequenceWindow((1 << 64) - 500, replay=True, sequence=False)
    stream = [((1 << 64) - 500 + n) % (1 << 64) for n in range(1000)]
    barrier = threading.Barrier(6)
    passed: list[int] = []

    def present() -> None:
        for at, number in enumerate(stream):
            if at % 50 == 0:
                barrier.wait()
            if verdict(window, number) == "ok":
                passed.append(number)

    threads = [threading.Thread(target=present) for _ in range(6)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert max(Counter(passed).values()) == 1
    assert set(passed) == set(stream), "a number that came in time was refused"


def at_step(step: int, then: Callable[[FrameType], bool], call: Callable[[], object]) -> bool:
    """Make `call`, and `then` before the bytecode number `step` of the window's code, or before the first one after it
    for which it returns True. Tell whether there was one.

    In a thread of its own: what a trace function raises can stay behind as the exception that a thread is handling.
    """
    done = False

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal step, done
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not done:
            step -= 1
            done = step < 0 and then(frame)
        return trace

    def traced() -> None:
        sys._getframe().f_trace_opcodes = (
            True  # Python 3.12 looks whether any frame wants it when tracing begins
        )
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(None)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(traced).result()
    return done


def in_order(received: int, *, sequence: bool) -> tuple[SequenceWindow, int]:
    """Return a window to which numbers have come in order, and the next one."""
    window = SequenceWindow(1000, replay=True, sequence=sequence)
    assert {verdict(window, 1000 + n) for n in range(received)} == {"ok"}
    return window, 1000 + received


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("received", [1, 2, 5, 63, 64, 65, 66])
@pytest.mark.parametrize(
    "offsets", [(0,), (1,), (0, 1), (1, 0), (0, 1, 2), (-1,), (5,), (5, 0), (1, 2, 3, 0, 4)]
)
def test_what_another_thread_does_between_any_two_steps_lets_no_number_pass_twice(
    offsets: tuple[int, ...], received: int, sequence: bool
) -> None:
    for step in range(1000):
        window, number = in_order(received, sequence=sequence)
        passed: list[int] = []

        def present(
            offset: int, window: SequenceWindow = window, number: int = number, passed: Any = passed
        ) -> str:
            found = verdict(window, number + offset)
            if found == "ok":
                passed.append(offset)
            return found

        def other_thread(
            _: FrameType, window: SequenceWindow = window, present: Any = present
        ) -> bool:
            if window._lock.locked():  # then it waits
                return False
            for offset in offsets:
                present(offset)
            return True

        came = at_step(step, other_thread, lambda present=present: present(0))  # type: ignore[misc]
        if not came:
            assert step > 20
            break
        assert max(Counter(passed).values(), default=1) == 1
        assert set(passed) <= {0, *offsets} - {-1}
        if not sequence:
            assert set(passed) == {0, *offsets} - {-1}, "a number that came in time was refused"
        again = {0, *offsets}
        assert {present(offset) for offset in again} == {"duplicate"}
        assert present(max(again) + 1) == "ok"
        assert window.state[0] == number + max(again) + 2


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("received", [1, 2, 5, 63, 64, 65, 66])
@pytest.mark.parametrize("offset", [0, 1, -1])
def test_an_interrupt_at_any_step_leaves_a_window_that_goes_on(
    offset: int, received: int, sequence: bool
) -> None:
    def interrupt(frame: FrameType) -> bool:
        # Python looks for signals after calls, so never between the end of a `with` and the release of its lock.
        if frame.f_code.co_name == "check" and window._lock.locked():
            return False
        raise KeyboardInterrupt

    for step in range(1000):
        window, number = in_order(received, sequence=sequence)
        try:
            at_step(step, interrupt, lambda w=window, n=number: verdict(w, n + offset))  # type: ignore[misc]
            assert step > 20
            break
        except KeyboardInterrupt:
            pass
        found = [verdict(window, number + n) for n in (0, 0, 1, 1, -1, 2)]
        assert found[1:] in (
            ["duplicate", "ok", "duplicate", "duplicate", "ok"],
            ["duplicate", "duplicate", "duplicate", "duplicate", "ok"],  # offset 1 was recorded
        )
        assert found[0] in ("ok", "duplicate", "unsequenced")
        assert window.state[0] == number + 3
