"""Which credential cache, keytab and client keytab are used: the order of the names, and their origin."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from purekrb import CCache, Config, ConfigError, Credential, CredentialError, Keytab
from purekrb.credentials import defaults
from purekrb.credentials.cache_types import CACHE_TYPES, resolve
from purekrb.credentials.caches import directory
from purekrb.credentials.defaults import ChosenName, ccache_name, client_keytab_name, keytab_name
from support.credential_files import good_ccache, good_keytab

BUILT_IN = f"FILE:/tmp/krb5cc_{os.getuid()}"


@pytest.fixture(autouse=True)
def krb5_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty environment, with a krb5.conf of the test's own."""
    for name in ("KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "krb5.conf"
    path.write_text("[libdefaults]\n")
    monkeypatch.setenv("KRB5_CONFIG", str(path))
    return path


NAMES = [
    (ccache_name, "KRB5CCNAME", "default_ccache_name", BUILT_IN),
    (keytab_name, "KRB5_KTNAME", "default_keytab_name", "FILE:/etc/krb5.keytab"),
    (
        client_keytab_name,
        "KRB5_CLIENT_KTNAME",
        "default_client_keytab_name",
        f"FILE:/etc/krb5/user/{os.geteuid()}/client.keytab",
    ),
]


@pytest.mark.parametrize(("choose", "variable", "relation", "built_in"), NAMES)
def test_the_order_is_caller_environment_krb5_conf_built_in(
    krb5_conf: Path,
    monkeypatch: pytest.MonkeyPatch,
    choose: Callable[..., ChosenName],
    variable: str,
    relation: str,
    built_in: str,
) -> None:
    assert choose() == ChosenName(built_in, "the built-in default", "")
    krb5_conf.write_text(f"[libdefaults]\n {relation} = FILE:/x/%{{uid}}/%{{null}}y\n")
    assert choose() == ChosenName(f"FILE:/x/{os.getuid()}/y", f"{krb5_conf}:2", "")
    assert choose(None, Config()) == ChosenName(built_in, "the built-in default", "")
    monkeypatch.setenv(variable, "FILE:/from/%{uid}")  # MIT expands no token there either
    assert choose() == ChosenName("FILE:/from/%{uid}", variable, "")
    assert choose(Path("/mine")) == ChosenName("/mine", "the caller", "")
    monkeypatch.setenv(variable, "")
    assert choose().origin == f"{krb5_conf}:2"
    assert f"(from {krb5_conf}:2)" in str(choose())


@pytest.mark.parametrize(("choose", "variable", "relation", "built_in"), NAMES)
def test_a_name_is_judged_when_it_is_wanted(
    krb5_conf: Path,
    monkeypatch: pytest.MonkeyPatch,
    choose: Callable[..., ChosenName],
    variable: str,
    relation: str,
    built_in: str,
) -> None:
    krb5_conf.write_text(f"[libdefaults]\n {relation} = FILE:%{{LOCALSTATEDIR}}/x\n")
    others = [one for one, *_ in NAMES if one is not choose]
    assert all(other().origin == "the built-in default" for other in others)
    with pytest.raises(ConfigError, match=r"krb5.conf:2: %{LOCALSTATEDIR} has no value here"):
        choose()
    monkeypatch.setenv(variable, "FILE:/mine")
    assert choose().name == "FILE:/mine"


def test_who_finds_no_ccache_hears_that_krb5_conf_names_another(
    krb5_conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    krb5_conf.write_text("[libdefaults]\n default_ccache_name = API:\n")
    monkeypatch.setattr(defaults, "_default_file", lambda: f"FILE:{tmp_path}/none")
    for load in (CCache.load, Credential.from_ccache, Credential.default):
        with pytest.raises(
            CredentialError, match=r"no credential cache .*krb5.conf:2 names .* API"
        ):
            load()
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/none")
    with pytest.raises(CredentialError, match="no credential cache") as caught:
        CCache.load()
    assert "API" not in str(caught.value)


def test_a_user_without_a_passwd_entry_needs_no_name(
    krb5_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    krb5_conf.write_text("[libdefaults]\n default_ccache_name = FILE:/tmp/krb5cc_%{username}\n")
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(ConfigError, match=r"krb5.conf:2: %\{username\} .* write %\{euid\}"):
        ccache_name()
    monkeypatch.setenv("KRB5CCNAME", "FILE:/tmp/mine")
    assert ccache_name().name == "FILE:/tmp/mine"


@pytest.mark.parametrize("name", ["API:", "MSLSA:", "NONSENSE:x", "DIR:/nowhere"])
def test_a_type_that_this_machine_lacks_is_passed_over_and_the_log_says_so(
    krb5_conf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setattr(directory, "unusable", lambda: "it is a test")
    krb5_conf.write_text(f"[libdefaults]\n default_ccache_name = {name}\n")
    for _ in range(2):
        chosen = ccache_name()
        assert (chosen.name, chosen.origin) == (BUILT_IN, "the built-in default")
        assert f"{krb5_conf}:2 names the type {name.partition(':')[0]}" in chosen.passed_over
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"the credential cache is {BUILT_IN} instead" in record.getMessage()
    monkeypatch.setenv("KRB5CCNAME", name)  # the user's own word is not passed over
    assert ccache_name() == ChosenName(name, "KRB5CCNAME", "")


def test_what_krb5_conf_names_is_what_is_read_and_written(krb5_conf: Path, tmp_path: Path) -> None:
    krb5_conf.write_text(
        f"[libdefaults]\n default_ccache_name = DIR:{tmp_path}/cc\n"
        f" default_keytab_name = FILE:{tmp_path}/kt\n"
    )
    assert good_ccache().save() == f"DIR::{tmp_path}/cc/tkt"
    assert CCache.load().name == f"DIR::{tmp_path}/cc/tkt"
    good_keytab().save()
    assert Keytab.load(tmp_path / "kt") == Keytab.load() == good_keytab()
    CCache.destroy()
    with pytest.raises(CredentialError, match="there is no credential cache"):
        CCache.load()


def test_every_type_says_whether_this_machine_has_it() -> None:
    assert set(CACHE_TYPES) == {"FILE", "MEMORY", "DIR", "KCM", "KEYRING"}
    here = [resolve(f"{name}:x")[1].unusable() for name in ("FILE", "MEMORY", "DIR")]
    assert here == ["", "", ""]
