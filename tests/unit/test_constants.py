"""The numbers of the standards: plain ints for contexts, enums for everybody else, and both the same."""

from __future__ import annotations

import enum
import pickle
import subprocess
import sys
from typing import Any

import pytest

from purekrb import constants, registry
from purekrb.constants import error_name, flag_names

FLAGS = {"TicketFlags", "KdcOptions", "ApOptions"}


@pytest.mark.parametrize("name", registry.__all__)
def test_an_enum_has_the_numbers_of_its_registry(name: str) -> None:
    plain, made = getattr(registry, name), getattr(constants, name)
    assert issubclass(made, enum.IntFlag if name in FLAGS else enum.IntEnum)
    assert issubclass(made, enum.IntFlag) == (name in FLAGS)
    assert {member.name: member.value for member in made} == registry.members(plain) != {}
    assert all(type(number) is int for number in registry.members(plain).values())
    assert (made.__name__, made.__module__, made.__doc__) == (name, "purekrb.constants", plain.__doc__)
    for member in made:
        assert pickle.loads(pickle.dumps(member)) is member


def test_an_enum_is_made_once() -> None:
    code = """
import sys
sys.setswitchinterval(1e-6)
from concurrent.futures import ThreadPoolExecutor
from purekrb import constants
assert "ErrorCode" not in vars(constants)
with ThreadPoolExecutor(8) as pool:
    made = list(pool.map(lambda _: constants.ErrorCode, range(64)))
assert all(kind is constants.ErrorCode for kind in made)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_context_makes_none_of_them() -> None:
    code = """
from purekrb import Acceptor, Initiator, constants, registry
assert not set(registry.__all__) & set(vars(constants)), vars(constants)
constants.KeyUsage
assert set(registry.__all__) & set(vars(constants)) == {"KeyUsage"}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_all_names_are_found_by_dir_and_by_star_import_and_no_other() -> None:
    assert set(constants.__all__) <= set(dir(constants))
    namespace: dict[str, Any] = {}
    exec("from purekrb.constants import *", namespace)
    assert set(constants.__all__) <= set(namespace)
    assert set(registry.__all__) <= set(constants.__all__)
    with pytest.raises(AttributeError, match="no attribute 'IntegerFlag'"):
        constants.IntegerFlag  # noqa: B018


def test_codes_and_flags_have_their_names() -> None:
    assert error_name(37) == error_name(constants.ErrorCode.KRB_AP_ERR_SKEW) == "KRB_AP_ERR_SKEW 37"
    assert error_name(89) == "error 89"
    assert error_name(0) == "KDC_ERR_NONE 0"
    # Python's own attributes of a class are no codes, though some are numbers.
    assert all(error_name(number).startswith(("KDC_ERR_", "KRB_", "error ")) for number in range(512))
    assert flag_names(constants.TicketFlags, 1 << 24 | 1 << 22 | 1) == ["INVALID", "INITIAL"]
