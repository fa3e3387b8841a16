"""Local users of principals as MIT's library says it: krb5_aname_to_localname and krb5_kuserok."""

from __future__ import annotations

import itertools
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from purekrb import Config, ConfigError

REALM = "R.TEST"
ME = pwd.getpwuid(os.getuid()).pw_name

#: Prints what MIT's library answers to each of the names in the arguments, as lines of JSON.
PROGRAM = """
import ctypes, json, sys
krb5 = ctypes.CDLL("libkrb5.so.3")
context = ctypes.c_void_p()
assert krb5.krb5_init_context(ctypes.byref(context)) == 0
user = sys.argv[1].encode()
for name in sys.argv[2:]:
    principal, text = ctypes.c_void_p(), ctypes.create_string_buffer(1000)
    assert krb5.krb5_parse_name(context, name.encode(), ctypes.byref(principal)) == 0
    code = krb5.krb5_aname_to_localname(context, principal, 1000, text)
    local = {0: text.value.decode(), -1765328208: None}.get(code, "error")
    print(json.dumps([local, bool(krb5.krb5_kuserok(context, principal, user))]))
"""

RULES = [
    "DEFAULT",
    "RULE:",
    "RULE:[1:$1]",
    "RULE:[2:$2.$1@$0]",
    "RULE:[1:$1-$0](fred.*)s/-/ /g",
    "RULE:[1:$1](.*d)s/f|fr/X/",
    "RULE:[1:$1]s/(e|d)+$//",
    "RULE:[1:$1]s/[[:alpha:]]{2}/<&>/g",
    "RULE:[1:$1]([^x-z]+)s/^./_/ s/r|re/R/g",
    "RULE:[2:$1](a.+|)s/\\./-/",
    "RULE:([a-d/]+)",
    "RULE:[2:$1;$2](.*;admin)s/;admin$//",
    "RULE:[1:$3]",
    "RULE:[1:$1]s/a/b/L",
    "NONSENSE:x",
]
NAMES = [
    f"fred@{REALM}",
    "fred@OTHER",
    "freed@OTHER",
    "aaron/burr@OTHER",
    "fred/admin@OTHER",
    "a.b/c@OTHER",
    f"fred/{REALM}@{REALM}",
    "a\\/b@OTHER",
    f"x\\@y@{REALM}",
    f"{ME}@{REALM}",
    f"renamed@{REALM}",
]

LOGINS = [
    None,
    "",
    "fred@OTHER",
    f"fred@{REALM}\nfred/admin@OTHER\n",
    " fred@OTHER\n*\na\\/b@OTHER\n",
]


def ask(directory: Path, relations: str, libdefaults: str = "") -> list[tuple[Any, Any]]:
    """Return MIT's answers and ours for each of NAMES: the local user, and whether it may be this user."""
    conf = directory / "krb5.conf"
    conf.write_text(
        f"[libdefaults]\ndefault_realm = {REALM}\nk5login_directory = {directory}/logins\n"
        f"{libdefaults}\n[realms]\n{REALM} = {{\n{relations}\n}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ME, *NAMES],
        env={**os.environ, "KRB5_CONFIG": str(conf)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    config = Config.from_file(conf)
    ours = []
    for name in NAMES:
        try:
            ours.append([config.local_name(name), config.may_log_in(name, ME)])
        except ConfigError:
            ours.append(["error", False])
    return list(zip(map(json.loads, done.stdout.splitlines()), ours, strict=True))


@pytest.mark.parametrize("first", RULES)
def test_rules_translate_as_mits_library_does(tmp_path: Path, first: str) -> None:
    seen = set()
    pairs = [(first, other) for other in RULES[:6]] + [(other, first) for other in RULES[2:6]]
    for rules in [(first,), *pairs]:
        for mit, ours in ask(tmp_path, "\n".join(f"auth_to_local = {rule}" for rule in rules)):
            assert ours == mit, (rules, ours, mit)
            seen.add(mit[0])
    assert len(seen) > 1


def test_names_translate_as_mits_library_does(tmp_path: Path) -> None:
    relations = (
        f"auth_to_local_names = {{\n fred = a\n fred = b\n fred/admin = c\n renamed = {ME}\n}}"
    )
    answers = ask(tmp_path, relations)
    assert [mit for mit, _ in answers] == [ours for _, ours in answers]
    assert ["b", False] in [mit for mit, _ in answers]
    assert [ME, True] in [mit for mit, _ in answers]


@pytest.mark.parametrize(
    ("content", "authoritative"),
    list(itertools.product(LOGINS, [True, False])),
)
def test_k5login_admits_whom_mits_library_admits(
    tmp_path: Path, content: str | None, authoritative: bool
) -> None:
    (tmp_path / "logins").mkdir()
    if content is not None:
        (tmp_path / "logins" / ME).write_text(content)
        (tmp_path / "logins" / ME).chmod(0o600)
    answers = ask(tmp_path, "", "" if authoritative else "k5login_authoritative = false")
    assert [mit for mit, _ in answers] == [ours for _, ours in answers]
    if content is None or not authoritative:
        assert any(admitted for (_, admitted), _ in answers)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_admits_nobody_with_either(tmp_path: Path) -> None:
    (tmp_path / "logins").mkdir()
    path = tmp_path / "logins" / ME
    path.write_text(f"fred@OTHER\n{ME}@{REALM}\n")
    path.chmod(0o600)
    assert any(admitted for (_, admitted), _ in ask(tmp_path, ""))
    os.chown(path, 65534, -1)
    assert ask(tmp_path, "")
    for mit, ours in ask(tmp_path, ""):
        assert mit[1] is ours[1] is False
