"""Whatever connections do, none goes that should not, and no more than the limit are there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from purekrb.channel.places import GRACE, PATIENCE, Places

SOURCES = [b"\x0a\0\0\1", b"\x0a\0\0\2", b"\x20\1\x0d\xb8\0\0\0\1"]


@given(
    st.integers(1, 8),
    st.integers(1, 8),
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "heard", "busy", "leave", "overdue"]),
            st.integers(0, 11),
            st.floats(0, 0.4),
        ),
        max_size=80,
    ),
)
def test_k408_places_are_lost_only_by_silence_and_only_when_it_is_crowded(
    limit: int, per_source: int, actions: list[tuple[str, int, float]]
) -> None:
    places: Places[int] = Places(limit, per_source)
    source: dict[int, bytes] = {}
    silent: dict[int, float] = {}  # the model: who waits, and since when
    now, number = 0.0, 100
    for action, which, pause in actions:
        now += pause
        crowded = 2 * len(source) >= limit
        some = sorted(source)[which % len(source)] if source else -1
        lost: list[int] = []
        if action == "enter" and places.opens_at() <= now:
            number += 1
            origin = SOURCES[which % 3]
            own = [one for one in silent if source[one] == origin]
            loser = places.enter(number, origin, now)
            if loser is not None:
                assert crowded
                assert len(own) >= per_source or len(source) == limit
                assert now >= silent[loser] + GRACE
                assert silent[loser] == min(
                    silent[one] for one in (own if loser in own else silent)
                )
                lost = [loser]
            else:
                assert len(source) < limit
            source[number], silent[number] = origin, now
        elif action == "heard":
            places.heard(some, now)
            if some in source:
                silent[some] = now
        elif action == "busy":
            places.busy(some)
            silent.pop(some, None)
        elif action == "leave":
            places.leave(some)
            lost = [some] if some in source else []
        elif action == "overdue":
            lost = places.overdue(now)
            assert crowded or not lost
            assert all(silent[one] + PATIENCE <= now for one in lost)
        for one in lost:
            del source[one]
            silent.pop(one, None)
        assert len(places) == len(source) <= limit
        assert all(one in places for one in source)
        if action == "overdue" and 2 * len(source) >= limit:
            assert all(since + PATIENCE > now for since in silent.values())
