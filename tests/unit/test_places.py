"""Which connection may be in the handshake, and which one goes: the policy alone, with times of our own."""

from __future__ import annotations

import math

import pytest

from purekrb.channel.places import GRACE, PATIENCE, Places

HERE, THERE = b"\x7f\0\0\1", b"\x7f\0\0\2"


def full_of(
    places: Places[str], n: int, source: bytes, start: float = 0.0, step: float = 0.01
) -> list[str]:
    """Let `n` connections of `source` in, one after the other; return those that lost their places by that."""
    entered = [
        places.enter(f"{source[-1]}.{number}", source, start + number * step) for number in range(n)
    ]
    return [loser for loser in entered if loser is not None]


def test_k408_who_is_alone_may_have_half_of_the_places_from_one_address_and_time() -> None:
    places: Places[str] = Places(100, 5)
    assert full_of(places, 49, HERE) == []
    assert not places.crowded
    assert (places.overdue(3600), places.look_at(), places.opens_at()) == ([], math.inf, 0.0)


def test_k408_in_a_crowd_a_frame_has_to_come_within_a_second() -> None:
    places: Places[str] = Places(10, 10)
    full_of(places, 6, HERE)
    assert places.look_at() == PATIENCE == 1.0
    assert places.overdue(PATIENCE - 0.01) == []
    assert places.overdue(PATIENCE) == ["1.0"]  # the oldest alone: the others still have time
    assert places.overdue(PATIENCE + 1) == ["1.1"]  # after which there is no crowd
    assert len(places) == 4
    assert places.overdue(3600) == []


def test_k408_a_frame_gives_another_second_and_a_part_of_one_nothing() -> None:
    places: Places[str] = Places(4, 4)
    full_of(places, 3, HERE)
    places.heard("1.0", 0.9)
    assert places.overdue(1.05) == ["1.1", "1.2"]
    full_of(places, 2, THERE, 1.05)
    assert places.overdue(1.89) == []
    assert places.overdue(1.9) == ["1.0"]


def test_k408_in_a_crowd_one_source_replaces_its_own_connections_alone() -> None:
    places: Places[str] = Places(10, 2)
    assert full_of(places, 5, HERE) == []  # there was no crowd yet
    assert places.crowded
    assert full_of(places, 2, THERE, 0.2) == []
    assert places.enter("more", HERE, 0.3) == "1.0"
    assert places.enter("more still", HERE, 0.3) == "1.1"
    assert places.enter("of the other", THERE, 0.4) == "2.0"
    assert len(places) == 7


def test_k408_when_all_places_are_taken_the_oldest_silent_connection_goes() -> None:
    places: Places[str] = Places(4, 4)
    full_of(places, 4, HERE)
    places.busy("1.0")
    places.heard("1.1", 0.2)
    assert places.enter("new", THERE, 0.5) == "1.2"
    assert places.enter("newer", THERE, 0.5) == "1.3"
    assert places.enter("newest", THERE, 0.5) == "1.1"
    assert "1.0" in places  # its token is being verified


def test_k408_nobody_goes_for_another_within_a_tenth_of_a_second() -> None:
    places: Places[str] = Places(4, 1)
    assert (
        full_of(places, 3, HERE, step=0) == []
    )  # beyond the share of one, but not silent for long
    assert places.opens_at() == 0.0
    assert full_of(places, 1, THERE) == []
    assert places.opens_at() == GRACE == 0.1  # newcomers wait
    assert places.enter("new", THERE, GRACE) == "2.0"


def test_k408_newcomers_wait_for_those_whose_tokens_are_being_verified() -> None:
    places: Places[str] = Places(2, 2)
    full_of(places, 2, HERE)
    for connection in ("1.0", "1.1"):
        places.busy(connection)
    assert (places.opens_at(), places.look_at(), places.overdue(3600)) == (math.inf, math.inf, [])
    places.leave("1.0")
    assert places.opens_at() == 0.0
    places.heard("1.1", 5.0)
    assert places.overdue(6.0) == ["1.1"]


def test_who_has_left_is_forgotten() -> None:
    places: Places[str] = Places(2, 2)
    full_of(places, 2, HERE)
    for connection in ("1.0", "1.0", "1.1", "never there"):
        places.leave(connection)
        places.heard(connection, 1.0)
        places.busy(connection)
    assert len(places) == 0
    assert vars(places) == vars(Places(2, 2))


@pytest.mark.parametrize(("limit", "per_source"), [(0, 1), (1, 0), (-1, 1)])
def test_a_limit_below_one_is_misuse(limit: int, per_source: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Places(limit, per_source)
    assert Places[str](1, 1).enter("one", HERE, 0.0) is None
