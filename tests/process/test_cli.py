"""The `purekrb` command: what each subcommand prints, its exit codes, and that no secret shows anywhere."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import purekrb
from purekrb import CCache, Credential, EncryptionKey, KdcClient, Keytab, KeytabEntry, Principal
from purekrb.cli import COMMANDS, EXIT_CODES, REGISTRATION_EXIT_CODES
from purekrb.cli.output import visible
from purekrb.testing import Realm
from support.canaries import PASSWORD, leaks
from support.commands import ARGV, Commands, environment
from support.console import examples, run_examples
from support.peers import free_port
from support.terminal import Terminal

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
WEB = "HTTP/web.example.test"
WEB_PRINCIPAL = f"{WEB}@EXAMPLE.TEST"


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The password, and the contents of every key that this process makes meanwhile, the KDC's among them."""
    found = [PASSWORD.encode()]
    make = EncryptionKey.__init__

    def remember(self: EncryptionKey, etype: int, contents: bytes) -> None:
        if contents:  # those of a configuration entry in a ccache are empty
            found.append(bytes(contents))
        make(self, etype, contents)

    monkeypatch.setattr(EncryptionKey, "__init__", remember)
    return found


# -- the page


def test_the_examples_of_the_page_work_as_printed(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {
        name: value for name, value in environment(tmp_path).items() if not name.startswith("KRB5")
    }
    assert len(examples(PAGE)) > 15
    differences = run_examples(PAGE, cwd=tmp_path, env={**env, "PATH": path})
    assert not differences, "\n".join(differences)


def test_a_wrong_example_is_noticed(tmp_path: Path) -> None:
    page = "```console\n$ echo one\ntwo\n$ echo three\nthr...\n```\n"
    assert run_examples(page, cwd=tmp_path, env=os.environ) == [
        "$ echo one\nexpected:\ntwo\ngot:\none\n"
    ]


def test_the_page_has_every_command_and_every_exit_code() -> None:
    headings = (
        " ".join(re.findall(r"^## ([a-z].*)$", PAGE, re.MULTILINE)).replace(" and ", " ").split()
    )
    assert sorted(headings) == sorted(COMMANDS)
    codes = {int(code) for code in re.findall(r"^\| ([0-9]+) \|", PAGE, re.MULTILINE)}
    assert codes == {0, 1, 2, 130, 141, *EXIT_CODES, *REGISTRATION_EXIT_CODES.values()}


def documented(command: str, *, of: str | None = None) -> list[list[str]]:
    """The JSON keys that the page names for a command, for each kind of line that it prints."""
    section = next(
        part
        for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)
        if command in part.split("\n")[0]
    )
    (text,) = (
        text
        for text in re.findall(r"^JSON.*?(?=\n\n|\Z)", section, re.MULTILINE | re.DOTALL)
        if of is None or text.startswith(f"JSON of `{of}`")
    )
    text = re.sub(
        r"\([^)]*\)", "", text.partition(":")[2]
    )  # what is inside of a key is in parentheses
    return [re.findall(r"`(\w+)`", sentence) for sentence in text.split(". Then ")]


def test_the_json_of_each_command_has_the_keys_that_the_page_names(logged_in: Commands) -> None:
    run = logged_in
    for argv, stdin, keys in (
        (("kinit", "alice"), PASSWORD, documented("kinit")[0]),
        (("klist",), "", documented("klist")[0]),
        (("kvno", WEB), "", documented("kvno")[0]),
        (("keytab", "list", "keytab"), "", documented("keytab")[0]),
        (("klist", "-k"), "", documented("keytab")[0]),
        (("spn", "make", "HTTP", "web"), "", documented("spn", of="make")[0]),
        (
            ("spn", "get", "dns-host", "HTTP", "--instance", "web"),
            "",
            documented("spn", of="get")[0],
        ),
        (("spn", "crack", "HTTP/web:80"), "", documented("spn", of="crack")[0]),
        (("demo",), "", documented("demo")[0]),
        (("kdestroy",), "", documented("kdestroy")[0]),
    ):
        result = run(*argv, "--json", stdin=stdin)
        assert (result.code, result.err) == (0, ""), argv
        (line,) = result.json
        assert list(line) == keys, argv


def test_the_json_of_what_is_in_lists_has_the_keys_that_the_page_names(logged_in: Commands) -> None:
    inner = {
        name: re.findall(r"`(\w+)`", keys)
        for name, keys in re.findall(r"`(\w+)` \(each with ([^)]*)\)", PAGE, re.DOTALL)
    }
    (listed,) = logged_in("klist", "--json").json
    assert [*listed["tickets"][0]] == inner["tickets"]
    (entries,) = logged_in("keytab", "list", "keytab", "--json").json
    assert [*entries["entries"][0]] == inner["entries"]
    (story,) = logged_in("demo", "--json").json
    assert [*story["steps"][0], *story["steps"][0]["lines"][0]] == inner["steps"]


# -- arguments


def test_no_command_prints_the_help_and_is_a_usage_error(run: Commands) -> None:
    result = run()
    assert (result.code, result.out) == (2, "")
    assert all(re.search(rf"^    {command}\s", result.err, re.MULTILINE) for command in COMMANDS)
    assert run("--trace").code == 2


@pytest.mark.parametrize(
    "argv",
    [
        ("frobnicate",),
        ("kinit", "--password", "x"),
        (
            "kinit",
            "--time",
            "5",
        ),  # no abbreviations: a new option must not change what a script means
        ("kinit", "alice", "--timeout", "0"),
        ("kinit", "alice", "--timeout", "nan"),
        ("kinit", "alice", "--lifetime", "soon"),
        ("connect", "web.example.test", WEB),
        ("connect", "web:65536", WEB),
        ("keytab", "add", "k", "a@R", "--etype", "des-cbc-crc"),
        ("connect", "web:2000"),
        ("connect", "web:2000", WEB, "--scp-keyword", "x"),
        ("scp", "publish", "--class", "c", "--port", "65536", "--keyword", "k"),
        ("scp", "publish", "--class", "c", "--port", "80"),
        ("keytab",),
        ("spn", "get", "no-type", "HTTP"),
        ("spn", "add", "HTTP/web.example.test"),
        ("spn", "list", "web", "--computer", "--user"),
        ("demo", "--etype", "rc4-hmac"),
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_a_usage_error(run: Commands, argv: tuple[str, ...]) -> None:
    result = run(*argv)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("usage: purekrb")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does(run: Commands, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert "--json" in result.out
    assert "--trace" in result.out
    assert len(result.out.splitlines()) > 8
    assert COMMANDS[command].split()[0].lower() in result.out.lower()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_says_what_it_is_for(command: str) -> None:
    def check(parser: argparse.ArgumentParser) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                assert len(action._choices_actions) == len(action.choices)
                for inner in action.choices.values():
                    assert inner.description
                    check(inner)
            else:
                assert action.help, f"{parser.prog}: {action.dest}"
            words = " ".join(action.option_strings)
            secret = re.search("(password|secret)(?!-file)", words)
            assert not secret, "secrets do not come as arguments"

    parser = argparse.ArgumentParser(command)
    importlib.import_module(f"purekrb.cli.{command.replace('-', '_')}").add_arguments(parser)
    check(parser)


def test_a_light_command_loads_nothing_heavy() -> None:
    code = "import sys, purekrb.cli; purekrb.cli.main(['spn', 'make', 'HTTP', 'web']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    spn, modules = done.stdout.split("\n", 1)
    assert spn == "HTTP/web"
    loaded = {module.split(".")[0] for module in modules.split()}
    assert not loaded & {
        "cryptography",
        "impacket",
        "pyasn1",
        "ldap3",
        "rich",
        "dns",
        "asyncio",
        "socket",
        "getpass",
    }
    assert {module for module in modules.split() if module.startswith("purekrb.cli.")} == {
        *("purekrb.cli.options", "purekrb.cli.output", "purekrb.cli.spn")
    }


def test_the_parsers_of_all_commands_load_nothing_heavy() -> None:
    """The build makes the man page and the completion scripts of them, without the dependencies."""
    code = "import sys, purekrb.cli; purekrb.cli.parser(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    assert "purekrb" in loaded
    assert not loaded & {"cryptography", "impacket", "pyasn1", "ldap3", "rich", "dns", "asyncio"}


@pytest.mark.parametrize("argv", [["--version"], ["spn", "--version"]])
def test_the_version_is_an_option_of_purekrb_itself(run: Commands, argv: list[str]) -> None:
    result = run(*argv)
    assert (result.code, result.out) == (
        (0, f"purekrb {purekrb.__version__}\n") if len(argv) == 1 else (2, "")
    )


def test_the_script_and_the_module_are_the_same_command(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "purekrb"
    for argv in ([str(script)], [sys.executable, "-m", "purekrb"]):
        done = subprocess.run(
            [*argv, "spn", "make", "HTTP", "web"], capture_output=True, text=True, check=True
        )
        assert done.stdout == "HTTP/web\n"


# -- errors


def unreachable(run: Commands) -> None:
    """Let the KDC be at a port where nobody listens."""
    conf = run.directory / "krb5.conf"
    conf.write_text(re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{free_port()}", conf.read_text()))


def write(name: str, data: bytes, mode: int = 0o600) -> Any:
    def change(run: Commands) -> None:
        (run.directory / name).write_bytes(data)
        (run.directory / name).chmod(mode)

    return change


def nothing(run: Commands) -> None:
    pass


ERRORS = [
    pytest.param(
        ("kinit", "alice"), "mistyped", nothing, 3, "PreauthFailedError", id="a-wrong-password"
    ),
    pytest.param(("kinit", "carl"), "pw", nothing, 6, "ClientUnknownError", id="an-unknown-client"),
    pytest.param(("kinit", "alice"), PASSWORD, unreachable, 5, "TransportError", id="no-KDC-there"),
    pytest.param(
        ("kinit", "alice@NOWHERE.TEST"), "pw", nothing, 9, "ConfigError", id="no-KDC-known"
    ),
    pytest.param(
        ("kinit", "alice", "--config", "none"),
        "pw",
        nothing,
        9,
        "ConfigError",
        id="no-krb5.conf-there",
    ),
    pytest.param(("kinit", "alice"), "", nothing, 7, "CredentialError", id="no-password"),
    pytest.param(("kinit",), "pw", nothing, 7, "CredentialError", id="no-name"),
    pytest.param(("kinit", "a@b@c"), "pw", nothing, 8, "DecodeError", id="a-name-that-is-none"),
    pytest.param(
        ("kinit", "-t", "none", "alice"), "", nothing, 7, "CredentialError", id="no-keytab"
    ),
    pytest.param(
        ("kinit", "-k", "alice"),
        "",
        nothing,
        7,
        "CredentialError",
        id="a-keytab-without-the-client",
    ),
    pytest.param(
        ("kinit", "-k"), "", write("keytab", b"\5\2"), 7, "CredentialError", id="an-empty-keytab"
    ),
    pytest.param(("kinit", "-R"), "", nothing, 7, "CredentialError", id="nothing-to-renew"),
    pytest.param(("klist",), "", nothing, 1, "CredentialError", id="no-ccache"),
    pytest.param(
        ("klist",), "", write("ccache", b"garbage"), 1, "DecodeError", id="a-damaged-ccache"
    ),
    pytest.param(
        ("klist",),
        "",
        write("ccache", b"\5\4", 0o644),
        1,
        "CredentialError",
        id="a-ccache-for-everyone",
    ),
    pytest.param(
        ("klist", "-c", "API:"), "", nothing, 1, "UnsupportedError", id="a-ccache-of-another-type"
    ),
    pytest.param(("kvno", WEB), "", nothing, 7, "CredentialError", id="kvno-without-tickets"),
    pytest.param(
        ("keytab", "list", "none"),
        "",
        nothing,
        7,
        "CredentialError",
        id="a-keytab-that-is-not-there",
    ),
    pytest.param(
        ("keytab", "list", "text"),
        "",
        write("text", b"[libdefaults]"),
        8,
        "DecodeError",
        id="a-keytab-that-is-none",
    ),
    pytest.param(
        ("keytab", "add", "k", "a@R", "--etype", "18"),
        "not hex",
        nothing,
        8,
        "DecodeError",
        id="a-key-not-in-hex",
    ),
    pytest.param(
        ("keytab", "add", "k", "a@R", "--etype", "18"),
        "00ff",
        nothing,
        8,
        "DecodeError",
        id="a-key-too-short",
    ),
    pytest.param(
        ("keytab", "add", "k", "a", "--etype", "17"),
        "00" * 16,
        nothing,
        8,
        "DecodeError",
        id="a-key-of-no-realm",
    ),
    pytest.param(
        ("keytab", "add", "k", "a@R", "--etype", "17", "--kvno", "-1"),
        *("00" * 16, nothing, 7, "CredentialError"),
        id="a-negative-kvno",
    ),
    pytest.param(
        ("keytab", "delete", "keytab", "nobody@EXAMPLE.TEST"),
        "",
        nothing,
        7,
        "CredentialError",
        id="no-such-entry",
    ),
    pytest.param(
        ("keytab", "merge", "no/such/k", "keytab"),
        "",
        nothing,
        7,
        "CredentialError",
        id="no-directory",
    ),
    pytest.param(
        ("spn", "make", "HTTP", "a/b"), "", nothing, 8, "SpnError", id="a-slash-in-a-name"
    ),
    pytest.param(("spn", "crack", "HTTP"), "", nothing, 8, "SpnError", id="a-word-that-is-no-SPN"),
    pytest.param(
        ("spn", "get", "dns-host", "HTTP", "--instance", "a:b"),
        "",
        nothing,
        1,
        "ValueError",
        id="no-port",
    ),
    pytest.param(
        ("spn", "query", "HTTP/*"),
        "",
        nothing,
        7,
        "CredentialError",
        id="a-directory-without-a-ticket",
    ),
    pytest.param(
        ("inspect", "keytab/x"), "", nothing, 8, "DecodeError", id="a-path-that-leads-nowhere"
    ),
    pytest.param(("inspect", "."), "", nothing, 1, "IsADirectoryError", id="a-directory"),
    pytest.param(
        ("serve", "127.0.0.1:0", "-t", "none"),
        "",
        nothing,
        7,
        "CredentialError",
        id="serve-without-keys",
    ),
    pytest.param(
        ("serve", "203.0.113.1:1"),
        "",
        nothing,
        5,
        "TransportError",
        id="an-address-of-another-machine",
    ),
    pytest.param(
        ("realm", "--directory", "keytab"),
        "",
        nothing,
        1,
        "FileExistsError",
        id="a-file-in-the-way",
    ),
    pytest.param(
        ("realm", "--user", "u"),
        b"\xff\n",
        nothing,
        1,
        "UnicodeDecodeError",
        id="a-password-not-in-UTF-8",
    ),
]


@pytest.mark.parametrize(("argv", "stdin", "change", "code", "kind"), ERRORS)
def test_an_error_is_one_line_and_its_exit_code_that_of_its_kind(
    run: Commands, argv: tuple[str, ...], stdin: str | bytes, change: Any, code: int, kind: str
) -> None:
    change(run)
    result = run(*argv, stdin=stdin)
    assert (result.code, result.out) == (code, "")
    assert re.fullmatch(r"purekrb: .*[a-z ]{10,}.*\n", result.err)
    assert stdin in ("", b"") or str(stdin).strip() not in result.err
    told = run("--json", *argv, stdin=stdin)
    assert (told.code, told.out) == (code, "")
    error = json.loads(told.err)
    assert error == {"error": kind, "message": result.err.removeprefix("purekrb: ").rstrip("\n")}


def test_every_kind_of_error_has_the_code_of_the_first_class_that_fits() -> None:
    kinds = [kind for kinds in EXIT_CODES.values() for kind in kinds]
    for before, kind in enumerate(kinds):
        assert not any(issubclass(kind, other) for other in kinds[:before])


@pytest.mark.parametrize("action", ["verify", "update", "remove"])
def test_a_service_without_a_state_file_is_told_before_anything_is_asked(
    run: Commands, action: str
) -> None:
    result = run("scp", action, "--class", "c", "--state", "none.json")
    assert (result.code, result.out) == (24, "")
    assert "none.json" in result.err


def test_each_reason_why_a_service_must_not_start_has_a_code_of_its_own(run: Commands) -> None:
    reasons = re.findall(r'"([A-Z_]+)"', purekrb.RegistrationError.__doc__ or "")
    assert sorted(reasons) == sorted(REGISTRATION_EXIT_CODES)
    assert len(set(REGISTRATION_EXIT_CODES.values())) == 6
    assert not set(REGISTRATION_EXIT_CODES.values()) & set(EXIT_CODES)


def test_a_service_that_the_kdc_does_not_know_leaves_the_tickets_before_it_stored(
    logged_in: Commands,
) -> None:
    result = logged_in("kvno", WEB, "HTTP/none.example.test")
    assert result.code == 6
    assert result.out == f"{WEB_PRINCIPAL}: kvno = 1 (aes256-cts-hmac-sha1-96)\n"
    assert "KDC_ERR_S_PRINCIPAL_UNKNOWN" in result.err
    assert WEB in logged_in("klist").out


def test_a_keytab_that_does_not_fit_the_kdc_is_told(logged_in: Commands, realm: Realm) -> None:
    assert logged_in("kvno", WEB, "-k", "keytab").out.endswith(", keytab entry valid\n")
    key = EncryptionKey(18, bytes(32))
    Keytab([KeytabEntry(Principal.parse(WEB_PRINCIPAL), 1, key)]).save(
        logged_in.directory / "wrong"
    )
    Keytab([KeytabEntry(Principal.parse(WEB_PRINCIPAL), 2, key)]).save(
        logged_in.directory / "newer"
    )
    wrong, newer = (logged_in("kvno", WEB, "-k", name) for name in ("wrong", "newer"))
    assert (wrong.code, newer.code) == (7, 7)
    assert "in the keytab does not decrypt the ticket" in wrong.err
    assert f"holds kvno 2 of {WEB_PRINCIPAL}" in newer.err


def test_kvno_keeps_what_others_put_into_the_cache_meanwhile(
    logged_in: Commands, realm: Realm
) -> None:
    realm.add_service("host/other.example.test")
    cached = CCache.load(logged_in.directory / "ccache")
    ticket = KdcClient(realm.config).get_ticket(
        Credential.from_ccache(cached), "host/other.example.test"
    )
    CCache(cached.principal, [ticket]).merge_into(logged_in.directory / "ccache")
    assert logged_in("kvno", WEB).code == 0
    listed = logged_in("klist").out
    assert WEB in listed
    assert "host/other.example.test" in listed


# -- names from elsewhere


def test_control_characters_are_spelled_out(run: Commands) -> None:
    principal = Principal(("\x1b[2Jroot", "a\nb"), "R\x9b\u202e")
    CCache(principal).save(run.directory / "ccache")
    listed = run("klist").out
    assert r"Default principal: \x1b[2Jroot/a\nb@R\x9b\u202e" in listed
    assert visible(listed.replace("\n", "")) == listed.replace("\n", "")
    assert run("klist", "--json").json[0]["principal"] == str(principal)
    assert visible("Jürgen") == "Jürgen"
    assert visible("\udc80\x7f") == r"\udc80\x7f"


def test_what_the_output_cannot_encode_is_spelled_out(run: Commands) -> None:
    CCache(Principal(("Jürgen",), "R")).save(run.directory / "ccache")
    with run.spawn("klist", env={**os.environ, "PYTHONIOENCODING": "ascii"}) as process:
        assert r"Default principal: J\xfcrgen@R" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


# -- secrets


def test_no_command_shows_a_secret(run: Commands, realm: Realm, secrets: list[bytes]) -> None:
    """Each command with --trace, and with --json."""
    realm.add_service("host/canary.example.test")
    key = "00112233445566778899aabbccddeeff"
    secrets.append(bytes.fromhex(key))
    (run.directory / "keys").write_text(f"17:{key}\n")
    commands: list[tuple[tuple[str, ...], str]] = [
        (("kinit", "alice", "-r", "1d"), PASSWORD),
        (("kinit", "alice"), PASSWORD + "x"),
        (("kinit", "-R"), ""),
        (("klist",), ""),
        (("kvno", WEB, "-k", "keytab"), ""),
        (("keytab", "add", "new", "a@R", "--etype", "17"), key),
        (("keytab", "add", "new", "a@R", "--etype", "18"), key),  # too short
        (("keytab", "add", "new", "a@R", "--etype", "17"), key + "q"),
        (("keytab", "from-password", "new", "b@R"), PASSWORD),
        (("keytab", "merge", "new", "keytab"), ""),
        (("inspect", "new"), ""),
        (("inspect", "ccache", "-k", "keytab", "--key", "keys"), ""),
        (("inspect", "--key", "new"), "00"),  # not a file of keys
        (("demo",), ""),
        (("kinit", "-t", "new", "b@R"), ""),
        (("kdestroy",), ""),
    ]
    told = []
    for option in ("--trace", "--json"):
        results = [run(option, *argv, stdin=stdin) for argv, stdin in commands]
        assert {result.code for result in results} == {0, 3, 8, 9}
        told += [text for result in results for text in (result.out, result.err)]
    assert "purekrb.kdc" in "".join(told)
    assert len(secrets) > 50
    assert leaks("\n".join(told), secrets) == []


def test_the_search_for_secrets_finds_them_where_they_are_asked_for(
    run: Commands, secrets: list[bytes]
) -> None:
    Keytab.load(run.directory / "keytab")
    assert leaks(run("inspect", "keytab", "--show-keys").out, secrets)


def test_what_cannot_be_read_is_not_quoted(run: Commands) -> None:
    """Who mistakes inspect's argument for a key or password must not find it in a log."""
    for argument in (PASSWORD, "00112233445566778899aabbccddeeff", "c2VjcmV0c2VjcmV0c2VjcmV0"):
        result = run("inspect", argument)
        assert result.code == 8
        assert argument not in result.err
        assert (
            leaks(
                result.err,
                [bytes.fromhex("00112233445566778899aabbccddeeff"), b"secretsecretsecret"],
            )
            == []
        )


# -- the process: pipes, terminals, signals


def test_a_closed_pipe_ends_the_command_quietly(run: Commands) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with run.spawn("demo", stdout=writer) as process:
        os.close(writer)
        assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 141


@pytest.mark.parametrize(
    ("closed", "argv", "code"),
    [
        ("<&-", ("inspect",), 8),
        ("<&-", ("kinit", "alice"), 7),
        (">&-", ("keytab", "list", "keytab"), 0),
        ("2>&-", ("kinit", "alice"), 7),
    ],
)
def test_a_closed_stream_does_no_harm(
    run: Commands, closed: str, argv: tuple[str, ...], code: int
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec {" ".join(ARGV)} "$@" {closed}', "sh", *argv],
        input="",
        capture_output=True,
        text=True,
        cwd=run.directory,
        timeout=60,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str]:
    # A signal that comes between Python's last look for one and the system call that waits is noticed with the next.
    for _ in range(4):
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(timeout=10), process.stderr.read() if process.stderr else ""
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    raise AssertionError("the process does not end at Ctrl-C")


def test_ctrl_c_ends_a_command_with_130_and_no_traceback(run: Commands) -> None:
    with run.spawn("realm", "OTHER.TEST") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        assert process.stdout.readline().startswith("realm OTHER.TEST is up")
        assert interrupted(process) == (130, "")
    with run.spawn("serve", "127.0.0.1:0") as process:
        assert process.stdout
        assert process.stdout.readline().startswith("listening on 127.0.0.1:")
        assert interrupted(process) == (130, "")


def test_ctrl_c_ends_a_command_that_waits_for_a_silent_kdc(run: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (run.directory / "krb5.conf").write_text(
            f"[realms]\nEXAMPLE.TEST = {{\n kdc = tcp/127.0.0.1:{port}\n}}\n"
        )
        with run.spawn("kinit", "alice@EXAMPLE.TEST") as process:
            assert process.stdin
            process.stdin.write(f"{PASSWORD}\n")
            process.stdin.close()
            silent.settimeout(30)
            connection, _ = silent.accept()
            assert interrupted(process) == (130, "")
            connection.close()


def test_a_password_is_asked_for_on_the_terminal_and_does_not_show(run: Commands) -> None:
    terminal = Terminal(run.directory, *ARGV, "kinit", "alice")
    terminal.expect("Password for alice@EXAMPLE.TEST: ")
    terminal.type(f"{PASSWORD}\n")
    assert terminal.wait() == 0
    assert "alice@EXAMPLE.TEST: ticket until" in terminal.printed
    assert PASSWORD not in terminal.printed
    assert run("klist", "-s").code == 0


def test_a_new_password_is_asked_for_twice(run: Commands) -> None:
    for second, code in ((PASSWORD, 0), ("other", 7)):
        terminal = Terminal(
            run.directory, *ARGV, "keytab", "from-password", f"new-{code}", "alice@EXAMPLE.TEST"
        )
        terminal.expect("Password of alice@EXAMPLE.TEST: ")
        terminal.type(f"{PASSWORD}\n")
        terminal.expect("again: ")
        terminal.type(f"{second}\n")
        assert terminal.wait() == code
        assert PASSWORD not in terminal.printed
    assert Keytab.load(run.directory / "new-0").find("alice@EXAMPLE.TEST")
    assert not (run.directory / "new-7").exists()


def test_kinit_has_an_expired_password_changed_on_a_terminal(run: Commands, realm: Realm) -> None:
    realm.add_user("carol", PASSWORD, password_expired=True)
    assert run("kinit", "carol", stdin=PASSWORD).code == 6, "a script is told, and not asked"
    terminal = Terminal(run.directory, *ARGV, "kinit", "carol")
    terminal.expect("Password for carol@EXAMPLE.TEST: ")
    terminal.type(f"{PASSWORD}\n")
    terminal.expect("New password for carol@EXAMPLE.TEST: ")
    terminal.type("another\n")
    terminal.expect("again: ")
    terminal.type("another\n")
    assert terminal.wait() == 0
    assert "has expired and must be changed now" in terminal.printed
    assert "carol@EXAMPLE.TEST: ticket until" in terminal.printed
    assert "another" not in terminal.printed
    assert run("klist", "-s").code == 0
    assert run("kinit", "carol", stdin="another").code == 0


def test_kpasswd_changes_and_sets_passwords(run: Commands, realm: Realm) -> None:
    realm.add_user("carol", PASSWORD)
    realm.add_user("boss", "boss-pw", sets_passwords=True)
    changed = run("kpasswd", "EXAMPLE\\carol", "--json", stdin=f"{PASSWORD}\nnew one\n")
    assert (changed.code, changed.json) == (0, [{"principal": "carol@EXAMPLE.TEST"}])
    assert run("kpasswd", "carol", stdin=f"{PASSWORD}\nx\n").code == 3
    assert run("kinit", "carol", stdin="new one").code == 0
    run.directory.joinpath("ccache").unlink()
    nameless = run("kpasswd", stdin="new one\nnewer\n")
    assert (nameless.code, "as in kpasswd user@REALM" in nameless.err) == (7, True)
    assert "kinit" not in nameless.err  # an expired password gets no ticket
    CCache("carol@EXAMPLE.TEST").save()
    done = run("kpasswd", stdin="new one\nnewer\n")  # of whom the cache is, without a valid ticket
    assert done.out == "the password of carol@EXAMPLE.TEST was changed\n"
    assert run("kpasswd", "carol", "--admin", "boss", stdin="boss-pw\nnewest\n").code == 0
    assert run("kinit", "carol", stdin="newest").code == 0
    refused = run("kpasswd", "boss", "--admin", "carol", stdin="newest\nx\n")
    assert refused.code == 6
    assert "must not do that" in refused.err
    assert run("kpasswd", "carol", stdin="newest\n").code == 7, "there is no new password"
    assert run("kinit", "carol", stdin="newest").code == 0


@pytest.mark.parametrize(("key", "code"), [("\x03", 130), ("\x04", 7)], ids=["ctrl-c", "ctrl-d"])
def test_no_password_ends_the_prompt(run: Commands, key: str, code: int) -> None:
    terminal = Terminal(run.directory, *ARGV, "kinit", "alice")
    terminal.expect("Password for")
    terminal.type(key)
    assert terminal.wait() == code
    assert "Traceback" not in terminal.printed


def test_waiting_shows_on_a_terminal_only(logged_in: Commands) -> None:
    terminal = Terminal(logged_in.directory, *ARGV, "kvno", WEB)
    assert terminal.wait() == 0
    assert f"asking for {WEB}" in terminal.printed
    with logged_in.spawn("kvno", WEB) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (
        0,
        f"{WEB_PRINCIPAL}: kvno = 1 (aes256-cts-hmac-sha1-96)\n",
        "",
    )


# -- kinit, klist, kdestroy


def test_kinit_stores_a_ticket_as_it_was_asked_for(run: Commands) -> None:
    result = run(
        "kinit",
        "alice",
        "-l",
        "2h",
        "-r",
        "1d",
        "-f",
        "--json",
        stdin=f"{PASSWORD}\r\nnot this line\n",
    )
    assert result.code == 0
    assert result.json[0]["client"] == "alice@EXAMPLE.TEST"
    (tgt,) = CCache.load(run.directory / "ccache")
    assert (tgt.endtime - tgt.authtime).total_seconds() == pytest.approx(7200, abs=5)
    assert tgt.renew_till is not None
    assert (tgt.renew_till - tgt.authtime).total_seconds() == pytest.approx(86400, abs=5)
    assert result.json[0]["renew_till"] == tgt.renew_till.isoformat()
    flags = run("klist", "--json").json[0]["tickets"][0]["flags"]
    assert {"forwardable", "renewable", "initial", "pre-authent"} <= set(flags)
    assert (run.directory / "ccache").stat().st_mode & 0o777 == 0o600


def test_kinit_takes_the_name_from_the_cache_and_the_cache_from_an_option(run: Commands) -> None:
    assert run("kinit", "alice", "-c", "FILE:mine", stdin=PASSWORD).code == 0
    assert not (run.directory / "ccache").exists()
    before = CCache.load("mine")
    time.sleep(1.1)
    assert run("kinit", "-c", "mine", stdin=PASSWORD).code == 0
    assert next(iter(CCache.load("mine"))).authtime > next(iter(before)).authtime
    assert run("klist", "-c", "mine").code == 0


def test_kinit_with_a_keytab(run: Commands) -> None:
    by_first_name, by_name = run("kinit", "-k"), run("kinit", "-t", "keytab", WEB, "-c", "other")
    assert (by_first_name.code, by_name.code) == (0, 0)
    assert by_first_name.out.startswith(f"{WEB_PRINCIPAL}: ticket until")


def test_kinit_renews(run: Commands) -> None:
    run("kinit", "alice", "-l", "1h", "-r", "1d", stdin=PASSWORD)
    (old,) = CCache.load()
    time.sleep(1.1)
    assert run("kinit", "-R").code == 0
    (new,) = CCache.load()
    assert new.endtime > old.endtime
    run("kinit", "alice", stdin=PASSWORD)
    result = run("kinit", "-R")
    assert result.code == 7
    assert "not renewable" in result.err


def test_klist_tells_by_its_exit_code_whether_there_is_a_valid_tgt(
    run: Commands, realm: Realm
) -> None:
    assert run("klist", "-s") == run("klist", "--silent")
    assert run("klist", "-s").code == 1
    run("kinit", "alice", stdin=PASSWORD)
    silent = run("klist", "-s")
    assert (silent.code, silent.out, silent.err) == (0, "", "")
    assert run("kinit", "alice", "-l", "3s", stdin=PASSWORD).code == 0
    (tgt,) = CCache.load()
    time.sleep((tgt.endtime - datetime.now(timezone.utc)).total_seconds() + 0.1)
    assert run("klist", "-s").code == 1


def test_kdestroy_removes_the_cache(logged_in: Commands) -> None:
    assert logged_in("kdestroy").out == f"FILE:{logged_in.directory}/ccache destroyed\n"
    assert not (logged_in.directory / "ccache").exists()


# -- keytab


def entries(path: Path) -> set[tuple[str, int, int]]:
    return {(str(entry.principal), entry.kvno, int(entry.key.etype)) for entry in Keytab.load(path)}


def test_keytab_adds_merges_and_deletes(run: Commands) -> None:
    new = run.directory / "new"
    first = run("keytab", "from-password", "new", "a@R", "--kvno", "3", stdin=PASSWORD)
    assert first.code == 0
    assert first.out.splitlines()[0].split() == ["kvno", "etype", "written", "principal"]
    assert entries(new) == {("a@R", 3, 18), ("a@R", 3, 17)}
    assert Keytab.load(new).find("a@R", 3, 18)[0].key == purekrb.crypto.string_to_key(
        18, PASSWORD, "Ra"
    )
    assert (
        run("keytab", "add", "new", "b@R", "--etype", "20", "--kvno", "300", stdin="ab" * 32).code
        == 0
    )
    assert Keytab.load(new).find("b@R", 300, 20)[0].key.contents == b"\xab" * 32
    assert run("keytab", "merge", "FILE:new", "keytab").code == 0
    assert len(entries(new)) == 7
    assert run("keytab", "delete", "new", "a@R", "--etype", "aes128-cts-hmac-sha1-96").code == 0
    assert run("keytab", "delete", "new", WEB_PRINCIPAL).code == 0
    assert entries(new) == {("a@R", 3, 18), ("b@R", 300, 20)}
    assert new.stat().st_mode & 0o777 == 0o600


def test_keytab_derives_keys_with_the_salt_and_the_etypes_that_are_named(run: Commands) -> None:
    options = (
        "--salt",
        "R.TESThostpc.r.test",
        "--etype",
        "aes256-cts-hmac-sha384-192",
        "--etype",
        "17",
    )
    assert run("keytab", "from-password", "new", "PC$@R.TEST", *options, stdin=PASSWORD).code == 0
    keytab = Keytab.load("new")
    assert [entry.key.etype for entry in keytab] == [20, 17]
    salt = "R.TESThostpc.r.test"
    assert all(e.key == purekrb.crypto.string_to_key(e.key.etype, PASSWORD, salt) for e in keytab)


@pytest.mark.parametrize("name", ["keytab", "FILE:keytab"])
@pytest.mark.parametrize(
    ("argv", "stdin"),
    [
        (("add", WEB_PRINCIPAL, "--etype", "18"), "00"),
        (("add", WEB_PRINCIPAL, "--etype", "17", "--kvno", str(1 << 32)), "00" * 16),
        (("add", "no-realm", "--etype", "17"), "00" * 16),
        (("from-password", "a@R"), ""),
        (("from-password", "x" * 70_000 + "@R"), "pw"),
        (("merge", "none"), ""),
        (("merge", "keytab", "krb5.conf"), ""),
        (("delete", "nobody@R"), ""),
        (("delete", WEB_PRINCIPAL, "--kvno", "7"), ""),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_failure_leaves_the_keytab_as_it_was(
    run: Commands, name: str, argv: tuple[str, ...], stdin: str
) -> None:
    keytab = run.directory / "keytab"
    before, files = keytab.read_bytes(), set(os.listdir())
    assert run("keytab", argv[0], name, *argv[1:], stdin=stdin).code in (7, 8)
    assert keytab.read_bytes() == before
    assert set(os.listdir()) == files
    assert run("keytab", "merge", name, "keytab").code == 0


def test_keytabs_are_not_written_through_links_nor_into_other_types(run: Commands) -> None:
    (run.directory / "link").symlink_to("keytab")
    before = (run.directory / "keytab").read_bytes()
    assert run("keytab", "add", "link", "a@R", "--etype", "17", stdin="00" * 16).code == 7
    assert run("keytab", "add", "MEMORY:keytab", "a@R", "--etype", "17", stdin="00" * 16).code == 1
    assert (run.directory / "keytab").read_bytes() == before


def test_keys_that_are_added_at_the_same_time_are_all_there(run: Commands) -> None:
    processes = [run.spawn("keytab", "add", "new", f"p{n}@R", "--etype", "17") for n in range(4)]
    for n, process in enumerate(processes):
        process.communicate(f"{n:032x}\n", timeout=60)
        assert process.returncode == 0
    assert entries(run.directory / "new") == {(f"p{n}@R", 1, 17) for n in range(4)}


def test_a_keytab_that_everyone_can_read_is_warned_of(run: Commands) -> None:
    (run.directory / "keytab").chmod(0o644)
    result = run("klist", "-k")
    assert result.code == 0
    warning = f"the keytab {run.directory}/keytab has mode 0644: every user can read it"
    assert result.err == f"purekrb: warning: {warning}\n"
    assert json.loads(run("klist", "-k", "--json").err) == {"warning": warning}


# -- serve and connect


@pytest.fixture
def echo_port(logged_in: Commands) -> Iterator[int]:
    """The port of `purekrb serve --once`."""
    with logged_in.spawn(
        "serve", "127.0.0.1:0", "--once", "--json", stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout
        listening = json.loads(process.stdout.readline())
        assert list(listening) == documented("serve", of="serve")[0]
        yield listening["port"]
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    served = json.loads(out)
    assert list(served) == documented("serve", of="serve")[1]
    assert served["client"] == "alice@EXAMPLE.TEST"


def test_connect_sends_each_line_and_prints_each_answer(
    logged_in: Commands, echo_port: int
) -> None:
    stdin = b"one\n\n\xff\x1b[2J\nlast, without an end"
    result = logged_in("connect", f"127.0.0.1:{echo_port}", WEB, "--json", stdin=stdin)
    assert (result.code, result.err) == (0, "")
    connected, *received = result.json
    assert list(connected) == documented("connect", of="connect")[0]
    assert connected["mutual"] is True
    assert all(list(event) == documented("connect", of="connect")[1] for event in received)
    assert [event["text"] for event in received] == [
        "one",
        "\N{REPLACEMENT CHARACTER}\x1b[2J",
        "last, without an end",
    ]


def test_connect_negotiates_when_told_to(logged_in: Commands, echo_port: int) -> None:
    argv = ("connect", f"127.0.0.1:{echo_port}", WEB, "--mechanism", "negotiate", "--trace")
    result = logged_in(*argv, stdin=b"one\n")
    assert result.code == 0
    assert result.out.splitlines()[1:] == ["one"]
    assert "NegTokenResp received: ACCEPT_COMPLETED" in result.err


def test_serve_takes_kerberos_alone_when_told_to(logged_in: Commands) -> None:
    argv = ("serve", "127.0.0.1:0", "--mechanism", "kerberos", "--json", "--once")
    with logged_in.spawn(*argv, stdin=subprocess.DEVNULL) as process:
        assert process.stdout
        port = json.loads(process.stdout.readline())["port"]
        refused = logged_in(
            "connect", f"127.0.0.1:{port}", WEB, "--mechanism", "negotiate", stdin=b"one\n"
        )
        accepted = logged_in("connect", f"127.0.0.1:{port}", WEB, stdin=b"one\n")
        process.communicate(timeout=30)
    assert refused.code == 5
    assert (accepted.code, accepted.out.splitlines()[1:]) == (0, ["one"])


def test_connect_prints_no_control_characters(logged_in: Commands, echo_port: int) -> None:
    result = logged_in("connect", f"127.0.0.1:{echo_port}", WEB, stdin=b"\x1b[2J\n")
    assert result.out.splitlines()[1:] == [r"\x1b[2J"]


def test_connect_tells_that_the_service_went_away(logged_in: Commands, realm: Realm) -> None:
    with purekrb.listen(("127.0.0.1", 0), realm.keytab(WEB)) as server:

        def serve() -> None:
            with next(server) as channel:
                channel.recv()

        thread = threading.Thread(target=serve)
        thread.start()
        result = logged_in("connect", f"127.0.0.1:{server.address[1]}", WEB, stdin=b"one\ntwo\n")
        thread.join()
    assert result.code == 5
    assert result.err.startswith("purekrb: the service closed the channel before it answered")


def test_connect_to_an_impostor_ends_with_4(logged_in: Commands) -> None:
    impostor = Keytab(
        [KeytabEntry(Principal.parse(WEB_PRINCIPAL), 1, EncryptionKey(18, bytes(32)))]
    )
    with purekrb.listen(("127.0.0.1", 0), impostor) as server:
        thread = threading.Thread(target=lambda: next(server, None))
        thread.start()
        result = logged_in("connect", f"127.0.0.1:{server.address[1]}", WEB, stdin=b"secret\n")
        server.close()
        thread.join()
    assert result.code == 4
    assert "KRB_AP_ERR_BAD_INTEGRITY" in result.err


# -- realm


def test_realm_writes_what_clients_need_and_takes_passwords_from_standard_input(
    run: Commands,
) -> None:
    directory = run.directory / "made"
    argv = (
        "realm",
        "MADE.TEST",
        "--user",
        "bob",
        "--user",
        "eve",
        "--service",
        WEB,
        "--directory",
        str(directory),
    )
    with run.spawn(*argv, "--json") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{PASSWORD}\n\n")  # and no end: nothing more is needed
        process.stdin.flush()
        made = json.loads(process.stdout.readline())
        assert set(made) == set(documented("realm")[0])
        assert directory.stat().st_mode & 0o777 == 0o700
        assert all(
            (directory / name).stat().st_mode & 0o077 == 0
            for name in ("passwords.txt", "service.keytab")
        )
        (line,) = (directory / "passwords.txt").read_text().splitlines()
        assert re.fullmatch(r"eve \S{16}", line)
        for user, password in (("bob", PASSWORD), tuple(line.split())):
            config = ("--config", made["krb5_conf"])
            assert run("kinit", user, *config, stdin=password).code == 0
            assert run("kvno", WEB, "-k", made["keytab"], *config).code == 0
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert (out, err) == ("", "")
