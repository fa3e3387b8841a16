"""python-gssapi's own tests, which come in its package, on purekrb's module, against MIT's KDC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import gssapi_suite
from support.peers import find_program, free_port

ATTRIBUTES = "names have no attributes; MIT's have them only by a plugin, which is not installed"
NTLM = "purekrb has no NTLM"

#: The tests that do not pass -> the feature that purekrb's module lacks.
LACKING = {
    "test_high_level.NamesTestCase.test_basic_get_set_del_name_attribute_no_auth": ATTRIBUTES,
    "test_high_level.NamesTestCase.test_create_from_composite_token_with_attrs": ATTRIBUTES,
    "test_high_level.NamesTestCase.test_export_name_composite_with_attrs": ATTRIBUTES,
    "test_raw.TestBaseUtilities.test_basic_get_set_delete_name_attributes_no_auth": ATTRIBUTES,
    "test_raw.TestBaseUtilities.test_import_export_name_composite": ATTRIBUTES,
    "test_raw.TestBaseUtilities.test_inquire_name_with_attrs": ATTRIBUTES,
    "test_raw.TestBaseUtilities.test_krb5_import_cred": "it takes pointers into a C library",
    "test_raw.TestBaseUtilities.test_set_neg_mechs": NTLM,
    "test_raw.TestBaseUtilities.test_set_sec_context_option": NTLM,
    "test_raw.TestBaseUtilities.test_set_sec_context_option_fail": NTLM,
}


@pytest.fixture(scope="module")
def report() -> dict[str, object]:
    find_program("krb5kdc", "krb5-kdc")
    program = Path(gssapi_suite.__file__)
    done = subprocess.run(
        [sys.executable, str(program), str(free_port())],
        capture_output=True,
        text=True,
        timeout=300,
        env={name: value for name, value in os.environ.items() if not name.startswith("KRB5")},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_tests_ran_on_this_module(report: dict[str, object]) -> None:
    assert str(report["module"]).endswith("purekrb/compat/gssapi/__init__.py")


def test_what_does_not_pass_is_what_the_table_says(report: dict[str, object]) -> None:
    outcomes: dict[str, str] = report["outcomes"]  # type: ignore[assignment]
    failed = {name: outcome for name, outcome in outcomes.items() if outcome != "passed"}
    unexpected = {name: outcome for name, outcome in failed.items() if name not in LACKING}
    assert not unexpected, "\n".join(f"{name}: {outcome}" for name, outcome in unexpected.items())
    assert failed.keys() == LACKING.keys()


def test_of_the_tests_that_need_no_lacking_feature_nearly_all_pass(
    report: dict[str, object],
) -> None:
    outcomes: dict[str, str] = report["outcomes"]  # type: ignore[assignment]
    others = [outcome for name, outcome in outcomes.items() if name not in LACKING]
    assert len(others) > 150
    assert others.count("passed") >= 0.85 * len(others)
