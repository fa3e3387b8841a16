"""The numbers of the standards."""

from __future__ import annotations

import enum
import pickle
from typing import Any

import pytest

from purekrb import constants
from purekrb.constants import error_name, flag_names

FLAGS = {"Flag", "TicketFlags", "KdcOptions", "ApOptions", "FastOptions"}
ENUMS = [name for name in constants.__all__ if isinstance(getattr(constants, name), enum.EnumMeta)]


@pytest.mark.parametrize("name", ENUMS)
def test_each_class_is_an_enum_whose_members_know_their_names(name: str) -> None:
    kind = getattr(constants, name)
    assert issubclass(kind, enum.IntFlag if name in FLAGS else enum.IntEnum)
    assert issubclass(kind, enum.IntFlag) == (name in FLAGS)
    assert list(kind)
    for member in kind:
        assert kind[member.name] is member
        assert type(member.value) is int
        assert pickle.loads(pickle.dumps(member)) is member


def test_all_names_are_found_by_dir_and_by_star_import_and_no_other() -> None:
    assert set(constants.__all__) <= set(dir(constants))
    namespace: dict[str, Any] = {}
    exec("from purekrb.constants import *", namespace)
    assert set(constants.__all__) <= set(namespace)
    assert set(ENUMS) >= FLAGS
    with pytest.raises(AttributeError, match="no attribute 'IntegerFlag'"):
        constants.IntegerFlag  # type: ignore[attr-defined]  # noqa: B018


def test_codes_and_flags_have_their_names() -> None:
    assert error_name(37) == error_name(constants.ErrorCode.KRB_AP_ERR_SKEW) == "KRB_AP_ERR_SKEW 37"
    assert error_name(89) == "error 89"
    assert error_name(0) == "KDC_ERR_NONE 0"
    # Python's own attributes of a class are no codes, though some are numbers.
    assert all(
        error_name(number).startswith(("KDC_ERR_", "KRB_", "error ")) for number in range(512)
    )
    assert flag_names(constants.TicketFlags, 1 << 24 | 1 << 22 | 1) == ["INVALID", "INITIAL"]
