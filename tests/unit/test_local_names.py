"""Local users of principals: auth_to_local by MIT's known answers and by hand, and .k5login."""

from __future__ import annotations

import json
import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest

from purekrb import Config, ConfigError, Principal
from purekrb.krb5conf.config import RealmConfig
from purekrb.krb5conf.posix_ere import MAX_STATES, Ere, Steps
from support.vectors import VECTORS

KNOWN = json.loads((VECTORS / "auth_to_local.json").read_text())["vectors"]
REALM = "KRBTEST.COM"


def config(*rules: str, **names: str) -> Config:
    return Config(
        {REALM: RealmConfig(auth_to_local=rules, auth_to_local_names=names)}, default_realm=REALM
    )


@pytest.mark.parametrize("known", KNOWN, ids=lambda k: f"{k['rules']}-{k['principal']}")
def test_known_answers(known: dict[str, Any]) -> None:
    judge = config(*known["rules"], **known["names"])
    if known["local"] == "error":
        with pytest.raises(ConfigError, match="auth_to_local"):
            judge.local_name(known["principal"])
    else:
        assert judge.local_name(known["principal"]) == known["local"]


@pytest.mark.parametrize("known", KNOWN, ids=lambda k: f"{k['rules']}-{k['principal']}")
def test_known_answers_come_from_a_krb5_conf_too(known: dict[str, Any], tmp_path: Path) -> None:
    lines = [f"auth_to_local = {rule}" for rule in known["rules"]]
    lines += [f"auth_to_local_names = {{\n {k} = {v}\n}}" for k, v in known["names"].items()]
    text = "\n".join(
        ["[libdefaults]", f"default_realm = {REALM}", "[realms]", f"{REALM} = {{", *lines, "}"]
    )
    (tmp_path / "krb5.conf").write_text(text)
    judge = Config.from_file(tmp_path / "krb5.conf")
    assert judge.realm(REALM).auth_to_local == tuple(known["rules"])
    try:
        found = judge.local_name(known["principal"])
    except ConfigError:
        found = "error"
    assert found == known["local"]


@pytest.mark.parametrize(
    ("rules", "name", "local"),
    [
        # MIT 1.20.1 gives the same answers.
        (["RULE:[1:$1](a|)"], "a@R", "a"),
        (["RULE:[1:$1](^a$)"], "a@R", "a"),
        (["RULE:[1:$1](x^a$y)"], "x^a$y@R", None),
        (["RULE:[1:$1]([]a]+)"], "a]@R", "a]"),
        (["RULE:[1:$1](a{,2})"], "aa@R", "aa"),
        (["RULE:[1:$1]s/x*/y/"], "axb@R", "yaxb"),
        (["RULE:[1:$1]s/^a/b/g"], "aaa@R", "bbb"),
        (["RULE:[1:$1]s/a|ab/X/"], "abc@R", "Xc"),
        (["RULE:[1:$1]s/(a)(b)/\\2\\1&/"], "abc@R", "\\2\\1&c"),
        (["RULE:[1:$1]s/a/b/s/b/c/"], "abc@R", "cbc"),
        (["RULE:[1:$1] s/a/b/ s/b/c/g "], "abb@R", "ccc"),
        (["RULE:[1:$1]s/a)/b/"], "a)@R", "b"),
        (["RULE:[1:$]"], "a@R", "R"),
        (["RULE:[:x]", "RULE:[0:x]"], "a@R", None),
        (["RULE:[2:$2;$1](.*;admin)s/;admin$//"], "admin/bob@R", "bob"),
        (["RULE:"], "a\\/b/c@R", "a\\/b/c"),
        (["RULE:"], "e\\@f@R", "e@f"),
        (["DEFAULT:x"], f"a@{REALM}", "a"),
        (["DEFAULT"], f"a\\/b@{REALM}", "a/b"),
    ],
)
def test_rules_mean_what_they_mean_to_mit(rules: list[str], name: str, local: str | None) -> None:
    assert config(*rules).local_name(name) == local


@pytest.mark.parametrize(
    "rule",
    [
        "default",
        "rule:[1:$1]",
        "DB:/etc/aliases",
        "RULE:[1:$1]s/a/b/L",
        "RULE:[1:$1]/L",
        "RULE:[1:$1]trailing",
        "RULE:[1:$1] (a)",
        "RULE: [1:$1]",
        "RULE:[1:$2]",
        "RULE:[1",
        "RULE:[1]",
        "RULE:(a",
        "RULE:s/a/b",
        "RULE:(*)",
        "RULE:(a{2)",
        "RULE:([a)",
        "RULE:([b-a])",
        "RULE:([[:foo:]])",
        "RULE:(a\\1)",
        "RULE:s/(/b/",
        "RULE:s/x*/y/g",
    ],
)
def test_rules_that_cannot_be_read_let_nobody_in(rule: str) -> None:
    with pytest.raises(ConfigError):
        config(rule, "DEFAULT").local_name(f"a@{REALM}")
    assert config("DEFAULT", rule).local_name(f"a@{REALM}") == "a"  # an earlier rule has decided


def test_a_name_of_hadoops_dialect_is_recognized() -> None:
    with pytest.raises(ConfigError, match="Hadoop"):
        config("RULE:[1:$1]/L").local_name("a@R")


def test_names_that_cannot_be_printed_or_are_empty_are_nobody() -> None:
    everybody = config("RULE:")
    assert everybody.local_name("root@R") == "root"
    for name in ("root\n", "ro\u202eot", "root\x1b[2J", ""):
        assert everybody.local_name(Principal((name,), "R")) is None
    assert config("RULE:s/.*//").local_name("root@R") is None


def test_without_a_default_realm_nobody_is_local() -> None:
    assert Config({REALM: []}).local_name(f"a@{REALM}") is None
    assert config().local_name(f"a@{REALM}") == "a"
    assert config().local_name(f"a@{REALM.lower()}") is None


# Hostile rules and names. An expression that makes Python's `re` backtrack is answered at once.


@pytest.mark.parametrize(
    "expression", ["(a+)+b", "(a|a)*b", "(.*.*.*.*.*)*b", "(a?){40}a{40}", "((a*)*)*b"]
)
def test_k610_an_expression_that_makes_others_backtrack_does_not_stall(expression: str) -> None:
    text = "a" * 40
    started = time.process_time()
    fits = Ere(expression).fits(text, Steps())
    assert time.process_time() - started < 2
    assert fits == (not expression.endswith("b"))
    assert not expression.endswith("b") or Ere(expression).fits(text + "b", Steps())


@pytest.mark.parametrize(
    "rule",
    [
        "RULE:(" + "a?" * 500 + "a" * 10,
        "RULE:s/" + "(a|b|c)*" * 60 + "x/y/g",
        "RULE:s/a/" + "b" * 500 + "/g",
    ],
    ids=["many-states", "many-starts", "long-replacement"],
)
def test_k611_a_long_name_ends_in_time(rule: str) -> None:
    rule += ")" if rule.startswith("RULE:(") else ""
    judge = config(*[rule] * 50)
    started = time.process_time()
    with pytest.raises(ConfigError, match="too long"):
        judge.local_name(Principal(("a" * 5000,), "R"))
    assert time.process_time() - started < 5
    assert judge.local_name("c@R") in ("c", None)


@pytest.mark.parametrize(
    "expression",
    [
        "(a{255}){255}",
        "(){32767}{32767}",
        "(" * 60 + ")" * 60,
        "a" * 2000,
        "a****",
        "((((a?){9}){9}){9}){9}",
    ],
    ids=["states", "nothing", "depth", "length", "stars", "nested"],
)
def test_k612_an_expression_that_is_too_large_is_refused_at_once(expression: str) -> None:
    started = time.process_time()
    with pytest.raises(ConfigError, match="not an extended regular expression"):
        Ere(expression)
    assert time.process_time() - started < 1
    assert Ere(f"a{{{MAX_STATES - 1}}}").fits("a" * (MAX_STATES - 1), Steps(10**7))


# .k5login

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def login(tmp_path: Path) -> Any:
    """login(content, mode) -> a Config whose k5login_directory holds this user's file."""

    def make(content: str | None, mode: int = 0o600, **settings: Any) -> Config:
        if content is not None:
            (tmp_path / ME).write_text(content)
            (tmp_path / ME).chmod(mode)
        return Config(default_realm="R", k5login_directory=str(tmp_path), **settings)

    return make


def test_without_a_file_the_local_name_decides(login: Any) -> None:
    judge = login(None)
    assert judge.may_log_in(f"{ME}@R", ME)
    assert not judge.may_log_in(f"{ME}@OTHER", ME)
    assert not judge.may_log_in("somebody@R", ME)


def test_a_file_decides_alone(login: Any) -> None:
    judge = login("alice@X\nbob/admin@R\nla\\/st@R")
    for listed in ("alice@X", "bob/admin@R", "la\\/st@R"):
        assert judge.may_log_in(listed, ME)
    for other in (f"{ME}@R", "alice@x", "Alice@X", "bob@R", "la/st@R"):
        assert not judge.may_log_in(other, ME)
    assert not login("").may_log_in(f"{ME}@R", ME)  # an empty file lists nobody


def test_lines_are_taken_as_they_stand(login: Any) -> None:
    judge = login(" a@R\nb@R \nc@R\r\n# d@R\ne@R # x\n*@R\nf\ng@R\n")
    assert judge.may_log_in("g@R", ME)
    assert not any(judge.may_log_in(f"{name}@R", ME) for name in "abcdef")


def test_a_file_may_only_add_to_the_local_name(login: Any) -> None:
    judge = login("alice@X\n", k5login_authoritative=False)
    assert judge.may_log_in("alice@X", ME)
    assert judge.may_log_in(f"{ME}@R", ME)
    assert not judge.may_log_in("bob@R", ME)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_k613_a_file_that_others_may_write_to_lists_nobody(login: Any, mode: int) -> None:
    assert not login("alice@X\n", mode).may_log_in("alice@X", ME)
    assert not login("alice@X\n", mode).may_log_in(f"{ME}@R", ME)
    assert login("alice@X\n", 0o644).may_log_in("alice@X", ME)


@pytest.mark.parametrize("kind", ["fifo", "directory", "circle"])
def test_k614_what_is_no_file_lists_nobody_and_does_not_block(
    login: Any, tmp_path: Path, kind: str
) -> None:
    judge = login(None)
    assert judge.may_log_in(f"{ME}@R", ME)
    path = tmp_path / ME
    make = {"fifo": os.mkfifo, "directory": os.mkdir, "circle": lambda p: os.symlink(p, p)}
    make[kind](path)
    assert not judge.may_log_in(f"{ME}@R", ME)


def test_k615_a_user_whose_name_is_a_path_does_not_exist(login: Any, tmp_path: Path) -> None:
    judge = login("alice@X\n")
    assert judge.may_log_in("alice@X", ME)
    for user in (f"../{tmp_path.name}/{ME}", f"./{ME}", "", ".", "..", f"{ME}\n", f"{ME}\0"):
        assert not judge.may_log_in("alice@X", user)
    assert not judge.may_log_in("nosuchuser@R", "nosuchuser")


def test_the_file_is_in_the_home_directory_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = pwd.getpwuid(os.getuid())
    home = pwd.struct_passwd((*account[:5], str(tmp_path), account[6]))
    monkeypatch.setattr(pwd, "getpwnam", {ME: home}.__getitem__)
    (tmp_path / ".k5login").write_text("alice@X\n")
    (tmp_path / ".k5login").chmod(0o600)
    assert Config().may_log_in("alice@X", ME)
    assert not Config().may_log_in("bob@X", ME)


def test_krb5_conf_says_where_the_files_are(tmp_path: Path) -> None:
    (tmp_path / "krb5.conf").write_text(
        "[libdefaults]\nk5login_directory = /etc/k5login.d\nk5login_authoritative = false\n"
    )
    found = Config.from_file(tmp_path / "krb5.conf")
    assert (found.k5login_directory, found.k5login_authoritative) == ("/etc/k5login.d", False)
