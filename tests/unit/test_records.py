"""Records: immutable, with defaults, checked when made, and changed only as copies."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import ClassVar

import pytest

from purekrb.messages.ap import Checksum, HostAddress
from purekrb.records import field_names, record, replace


class Base:
    __slots__ = ()

    def area(self) -> int:
        return self.width * self.height  # type: ignore[attr-defined,no-any-return]


@record
class Box(Base):
    """A box."""

    sides: ClassVar[int] = 4
    width: int
    height: int = 2

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ValueError("negative")

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def test_a_record_has_its_fields_its_methods_and_those_of_its_base() -> None:
    box = Box(3)
    assert (box.width, box.height, box.area(), str(box)) == (3, 2, 6, "3x2")
    assert repr(box) == "Box(width=3, height=2)"
    assert (Box.__doc__, Box.__module__, Box.sides, field_names(Box)) == (
        "A box.",
        __name__,
        4,
        ("width", "height"),
    )
    assert isinstance(box, Base)
    assert Box(3) == Box(height=2, width=3) != Box(4)
    assert hash(Box(3)) == hash(Box(3))


def test_a_record_cannot_be_changed() -> None:
    box = Box(3)
    for name in ("width", "other"):
        with pytest.raises(AttributeError):
            setattr(box, name, 1)
    assert box.width == 3


def test_a_changed_copy_is_checked_as_a_new_one_is() -> None:
    assert replace(Box(3), height=5) == Box(3, 5)
    assert str(inspect.signature(Box)) == "(width, height=2)"
    assert pickle.loads(pickle.dumps(Box(3))) == copy.copy(Box(3)) == Box(3)
    for make in (
        lambda: Box(-1),
        lambda: replace(Box(3), width=-1),
        lambda: Box(3)._replace(width=-1),
    ):  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="negative"):
            make()
    with pytest.raises(TypeError):
        replace(Box(3), depth=1)


@record
class Pair(tuple[int, str]):
    number: int
    text: str = ""


def test_a_record_that_says_so_is_a_tuple_to_type_checkers_too() -> None:
    number, text = Pair(1, "a")
    assert (number, text) == (1, "a") == Pair(1, "a")
    assert tuple.__new__(Pair, (2, "b")) == Pair(2, "b")
    assert repr(Pair(1)) == "Pair(number=1, text='')"


def test_the_values_of_a_record_are_given_as_to_a_function() -> None:
    for make in (
        lambda: Box(),  # type: ignore[call-arg]
        lambda: Box(1, 2, 3),  # type: ignore[call-arg]
        lambda: Box(1, width=1),  # type: ignore[misc]
        lambda: Box(1, depth=1),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError):
            make()
    assert Box(1, 2) == Box(1, height=2) == Box(width=1)
    assert str(inspect.signature(Pair)) == "(number, text='')"
    match Box(3, 4):
        case Box(width, height):
            assert (width, height) == (3, 4)
    assert Box(3)._asdict() == {"width": 3, "height": 2}  # type: ignore[attr-defined]


def test_other_values_have_no_fields() -> None:
    assert field_names(int) == field_names(tuple) == ()


@record
class Crate(Base):
    width: int
    height: int = 2


def test_records_of_two_types_are_never_equal() -> None:
    assert Crate(3, 2) == Crate(3)
    for other in (Box(3, 2), (3, 2)):
        assert Crate(3, 2) != other
        assert other != Crate(3, 2)
        assert not Crate(3, 2) == other  # noqa: SIM201 - the other operator
    assert len({Crate(3, 2), Box(3, 2), (3, 2)}) == 3
    assert Checksum(1, b"x") != HostAddress(1, b"x")
