"""The tables of docs/sspi.md are true: its functions exist and have examples, its attributes and statuses are all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from purekrb import directory, spn, sspi
from purekrb.sspi.attributes import _ATTRIBUTES
from purekrb.sspi.constants import SEC_E_OK
from purekrb.sspi.status import _CLASSES, _CODES

PAGE = (Path(__file__).parents[2] / "docs" / "sspi.md").read_text()
EXAMPLES = "".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
#: The same without comments: what runs.
CODE = re.sub(r"#.*", "", EXAMPLES)
#: Every function that Microsoft's page and its samples call.
FUNCTIONS = (
    *(
        "DsGetSpn",
        "DsFreeSpnArray",
        "DsBind",
        "DsUnBind",
        "DsWriteAccountSpn",
        "DsServerRegisterSpn",
    ),
    *("DsMakeSpn", "DsClientMakeSpnForTargetServer", "DsCrackSpn", "QuerySecurityPackageInfo"),
    *(
        "AcquireCredentialsHandle",
        "QueryCredentialsAttributes",
        "InitializeSecurityContext",
        "AcceptSecurityContext",
    ),
    *(
        "CompleteAuthToken",
        "QueryContextAttributes",
        "QuerySecurityContextToken",
        "MakeSignature",
        "VerifySignature",
    ),
    *("EncryptMessage", "DecryptMessage", "ImpersonateSecurityContext", "RevertSecurityContext"),
    *("DeleteSecurityContext", "FreeCredentialsHandle", "FreeContextBuffer"),
)


def table(heading: str) -> Iterator[list[str]]:
    """Yield the rows of the table whose first column has that heading."""
    lines = iter(PAGE.splitlines())
    for line in lines:
        if line.startswith(f"| {heading} |"):
            break
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


ROWS = list(table("Windows"))


def test_every_function_of_windows_has_its_row() -> None:
    assert [name for row in ROWS for name in re.findall(r"`(\w+)`", row[0])] == list(FUNCTIONS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_a_row_names_is_there_and_has_an_example(row: list[str]) -> None:
    names = re.findall(r"`([\w.]+)(?:\(.*?\))?`", row[1])
    assert names or row[1].startswith("nothing")
    for name in names:
        last = name.rpartition(".")[2]
        if name.startswith("Directory."):
            assert hasattr(directory.Directory, last)
        else:
            assert callable(getattr(sspi if name.startswith("sspi.") else spn, last))
        shown = (
            EXAMPLES if name == "Directory.connect" else CODE
        )  # that one needs a domain controller
        assert re.search(rf"\b{last}\b", shown), f"{last} has no example"
    if names:
        for windows in re.findall(r"`(\w+)`", row[0]):
            assert re.search(rf"\b{windows}\b", EXAMPLES), f"{windows} has no example"


def test_the_table_of_attributes_is_that_of_the_code() -> None:
    assert {getattr(sspi, row[0].strip("`")) for row in table("attribute")} == set(_ATTRIBUTES)


def test_the_table_of_statuses_names_all_that_errors_lead_to() -> None:
    listed = {getattr(sspi, row[0].strip("`")) for row in table("status")}
    mapped = {status for _, statuses in _CLASSES for status in statuses} | {
        s for both in _CODES.values() for s in both
    }
    assert mapped <= listed
    assert SEC_E_OK not in listed


@pytest.mark.parametrize("code", _CODES)
def test_the_table_of_statuses_has_each_krb_error_where_it_belongs(code: int) -> None:
    rows = {getattr(sspi, row[0].strip("`")): row for row in table("status")}
    columns = (rows[status][1 + phase] for phase, status in enumerate(_CODES[code]))
    told = [number for cell in columns for number in re.findall(r"\b\d+\b", cell)]
    assert str(int(code)) in told or code in (
        39,
        40,
        50,
    )  # malformed tokens, whatever is wrong with them
