"""The examples and tables of docs/*.md agree with the code. (docs/spn-and-scp.md: test_docs_spn.py)"""

from __future__ import annotations

import inspect
import re
import socket
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

import purekrb
from purekrb import Acceptor, ChannelBindings, Flag, Initiator, KdcClient, PolicyError, errors
from purekrb.gss.context import MAX_TOKEN
from purekrb.replay import KEEP
from purekrb.testing import Realm

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "caches-and-keytabs.md",
    "contexts.md",
    "doctor.md",
    "errors.md",
    "from-pykerberos.md",
    "kdc-client.md",
    "local-names.md",
    "negotiate.md",
    "sasl.md",
    "scp.md",
    "security.md",
    "sspi.md",
    "testing.md",
)


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def run_examples(page: str) -> dict[str, Any]:
    """Run the Python blocks of a page from top to bottom; return the names that they leave.

    A block that begins with the name of a file is a program: it has a test of its own.
    """
    text = text_of(page)
    names: dict[str, Any] = {"__name__": page}
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert blocks
    for block in blocks:
        if re.match(r"# \S+\.py ", block[1]):
            continue
        lines = text[: block.start(1)].count("\n")
        exec(compile("\n" * lines + block[1], page, "exec"), names)
    return names


def table(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the table whose first column has that heading."""
    lines = text_of(page).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_from_top_to_bottom(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        socket, "getfqdn", lambda *_: "web.example.test"
    )  # whatever this machine is called
    run_examples(page)


TESTS = [value for name, value in run_examples("testing.md").items() if name.startswith("test_")]


@pytest.mark.parametrize("example", TESTS, ids=lambda example: example.__name__)
def test_the_tests_that_the_page_on_testing_shows_pass(
    example: Callable[..., None], krb_realm: Realm, tmp_path: Path
) -> None:
    fixtures = {"krb_realm": krb_realm, "tmp_path": tmp_path}
    example(**{name: fixtures[name] for name in inspect.signature(example).parameters})


def test_the_page_on_testing_names_what_a_realm_has() -> None:
    public = {name for name, _ in inspect.getmembers(Realm) if not name.startswith("_")}
    named = {
        name for row in table("testing.md", "call") for name in re.findall(r"\b[a-z]\w+", row[0])
    }
    assert public - {"start", "stop"} <= named


def test_the_page_on_errors_lists_every_class_below_its_bases() -> None:
    listed = {
        row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in table("errors.md", "class")
    }
    assert list(listed) == errors.__all__
    assert listed == {
        name: [base.__name__ for base in getattr(errors, name).__bases__] for name in errors.__all__
    }


def test_the_page_on_errors_names_the_attributes_that_an_error_has() -> None:
    said = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2]))
        for row in table("errors.md", "class")
    }
    for name in errors.__all__:
        cls = getattr(errors, name)
        own = set(inspect.signature(cls.__init__).parameters) - {
            "self",
            "message",
            "args",
            "kwargs",
        }
        inherited = set(inspect.signature(cls.__bases__[0].__init__).parameters)
        assert said[name] == own - inherited, name


def established(etype: int) -> tuple[Initiator, Acceptor]:
    with Realm(etypes=[etype]) as realm:
        alice = realm.add_user("alice", "pw")
        keytab = realm.add_service("host/web.example.test")
        ticket = KdcClient(realm.config).get_ticket(alice, "host/web.example.test")
    initiator = Initiator(ticket, permitted_etypes=(etype,))
    acceptor = Acceptor(keytab, permitted_etypes=(etype,))
    initiator.step(acceptor.step(initiator.step()))
    return initiator, acceptor


@pytest.mark.parametrize(
    "row", table("contexts.md", "encryption type"), ids=lambda row: row[0].split()[0]
)
def test_the_sizes_of_tokens_are_those_of_the_table(row: list[str]) -> None:
    etype = int(re.search(r"\((\d+)\)", row[0])[1])  # type: ignore[index]
    initiator, _ = established(etype)
    for sealed, cell in ((True, row[1]), (False, row[2])):
        smallest, largest = (int(cell.split()[0]), int(cell.split()[-1]))
        added = [
            len(initiator.wrap(bytes(size), sealed)) - size
            for size in (0, 1, 15, 16, 17, 100, 1 << 10, 1 << 24)
        ]
        assert (min(added), max(added)) == (smallest, largest)
    assert len(initiator.wrap(bytes(initiator.wrap_size_limit(1000)))) == 1000
    if row[3] == "refused":
        with pytest.raises(PolicyError):
            initiator.get_mic(b"")
    else:
        assert len(initiator.get_mic(bytes(100))) == int(row[3])


def test_the_flags_are_those_of_the_table() -> None:
    rows = table("contexts.md", "flag")
    named = {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert set(named) == {flag.name for flag in Flag}
    defaults = {name for name, default in named.items() if default == "yes"}
    assert defaults == {flag.name for flag in Flag if flag in purekrb.Flag.DEFAULT}


def test_limits_named_in_the_pages_are_those_of_the_code() -> None:
    assert f"more than {MAX_TOKEN:,} bytes" in text_of("contexts.md")
    assert f"for {KEEP // 60} minutes" in text_of("security.md")
    skew = inspect.signature(Acceptor).parameters["clock_skew"].default
    assert f"`clock_skew` seconds ({skew})" in text_of("contexts.md")


@pytest.mark.parametrize("page", [path.name for path in sorted(DOCS.glob("*.md"))])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    prose = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#:]+)\)", prose)
    assert [link for link in links if not (DOCS / link).is_file()] == []


def test_the_layout_in_the_page_on_architecture_names_every_module() -> None:
    layout = text_of("architecture.md").split("## Directions")[0]
    sections = re.split(r"^      (?=\w)", layout, flags=re.MULTILINE)[1:]
    named = {section.split()[0]: section for section in sections}
    source = DOCS.parent / "src" / "purekrb"
    for path in source.rglob("*.py"):
        package, _, module = path.relative_to(source).as_posix().rpartition("/")
        if package in ("cli", "compat/gssapi/raw") or (package and module == "__init__.py"):
            continue  # commands are many and alike; so are the extensions of python-gssapi
        room = package.partition("/")[0]  # a package in a package is told of in its section
        assert module in (named[f"{room}/"] if room else named), path


#: The row left out, of a client that says so, is in tests/hostile/test_channel_bindings.py.
BINDINGS = [
    row for row in table("security.md", "client sends") if "KERB_AP_OPTIONS_CBT" not in row[0]
]


@pytest.mark.parametrize("row", BINDINGS, ids=lambda row: row[0])
def test_channel_bindings_are_judged_as_the_table_says(row: list[str]) -> None:
    ours, others = ChannelBindings(b"ours"), ChannelBindings(b"another channel")
    sends = {"none": None, "the same": ours, "others": others}[row[0]]
    with Realm() as realm:
        alice = realm.add_user("alice", "pw")
        keytab = realm.add_service("host/web.example.test")
        ticket = KdcClient(realm.config).get_ticket(alice, "host/web.example.test")
    for said, has, required in ((row[1], None, False), (row[2], ours, False), (row[3], ours, True)):
        acceptor = Acceptor(keytab, channel_bindings=has, require_channel_bindings=required)
        token = Initiator(ticket, channel_bindings=sends).step()
        if said == "`ChannelBindingsError`":
            with pytest.raises(purekrb.ChannelBindingsError):
                acceptor.step(token)
        else:
            acceptor.step(token)
            assert acceptor.channel_bound is ("`channel_bound` is True" in said)
            assert said.startswith("accepted")
