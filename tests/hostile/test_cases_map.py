"""Every hostile case has its test, or a reason why it has none; every test of a case is in the map."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache

from hostile.refresh_cases import FIELDS, IDS, collect, covered, group_by_case, load

CASES = load()
ADVICE = "run python tests/hostile/refresh_cases.py"


@lru_cache(maxsize=1)
def existing() -> list[str]:
    return collect()


def exists(pattern: str) -> bool:
    function, _, parameters = pattern.partition("[")
    return any(
        test.partition("[")[0] == function and fnmatchcase(test.partition("[")[2], f"*{parameters}")
        for test in existing()
    )


def test_the_map_has_every_case_and_no_other() -> None:
    assert list(CASES) == IDS


def test_every_case_has_tests_or_a_reason_why_not() -> None:
    """Tests may come before the whole capability is there; what cannot arise has none."""
    wrong = []
    for case, fields in CASES.items():
        tested = bool(fields.get("tests") or fields.get("also"))
        answered = tested + bool(fields.get("not_applicable")) == 1 or (
            not tested and fields.get("later")
        )
        if (
            not answered
            or not set(fields) <= set(FIELDS)
            or not fields.get("class")
            or not fields.get("case")
        ):
            wrong.append(f"{case} ({fields.get('case')})")
    assert not wrong, f"{ADVICE}, or say why there is no test: {wrong}"


def test_every_test_that_the_map_names_exists() -> None:
    missing = [
        f"{case}: {pattern}"
        for case, fields in CASES.items()
        for pattern in (*fields.get("tests", []), *fields.get("also", []))
        if not exists(pattern)
    ]
    assert not missing, f"{ADVICE}: {missing}"


def test_every_test_of_a_case_is_in_the_map_under_each_of_its_cases() -> None:
    found = group_by_case(existing())
    unmapped = {
        case: [test for test in tests if test not in CASES.get(case, {}).get("tests", [])]
        for case, tests in found.items()
    }
    assert not {case: tests for case, tests in unmapped.items() if tests}, ADVICE


def test_the_cases_of_a_test_are_read_from_its_name_and_its_parameters() -> None:
    assert covered("hostile/test_x.py::test_k001_k002_twice[a-b]") == {
        "K001": "hostile/test_x.py::test_k001_k002_twice",
        "K002": "hostile/test_x.py::test_k001_k002_twice",
    }
    assert covered("hostile/x.py::test_it[17-K123-long-name]") == {
        "K123": "hostile/x.py::test_it[K123*]"
    }
    assert covered("hostile/test_x.py::test_K9_and_ak123_are_no_cases[K12]") == {}
