"""Programs that import other libraries' modules get purekrb's: by install, by `purekrb run`, by -m purekrb.compat."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PURE = "purekrb.compat.gssapi"
SHOW = "import gssapi; print(gssapi.__name__)"


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def purekrb(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "purekrb", *arguments, **environment)


def test_an_installed_module_is_one_module_with_two_names() -> None:
    done = python(
        "-c",
        "import purekrb.compat; purekrb.compat.install('gssapi'); purekrb.compat.install('gssapi')\n"
        "import gssapi.raw.misc, gssapi.raw.ext_s4u as s4u, gssapi, purekrb.compat.gssapi as own\n"
        "from gssapi.exceptions import GSSError\n"
        "assert gssapi is own and gssapi.raw.misc is own.raw.misc and GSSError is own.raw.GSSError\n"
        "print(gssapi.__spec__.name, s4u.__name__)",
    )
    assert done.stdout == f"{PURE} {PURE}.raw.ext_s4u\n", done.stderr


def test_install_refuses_where_the_real_one_is_loaded() -> None:
    program = (
        "import purekrb, purekrb.compat, types, sys\n"
        "sys.modules['gssapi'] = types.ModuleType('gssapi')\n"
        "try: purekrb.compat.install('gssapi')\n"
        "except purekrb.KerberosError as error: print(error)"
    )
    done = python("-c", program)
    assert "already loaded" in done.stdout, done.stderr
    assert "call purekrb.compat.install() before" in done.stdout


def test_a_program_that_is_not_there_is_named_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module_at_all")
    for arguments, words in (
        (["missing.py"], "can't open file 'missing.py': No such file or directory"),
        (["-m", "no_such_module"], "no module named 'no_such_module'"),
        (["-m", "os.no.such"], "no module named 'os.no.such'"),
        (["-m", ".x"], "no module named '.x'"),
        (["a\nb"], "can't open file 'a\\nb'"),
    ):
        done = python("-m", "purekrb.compat", *arguments)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    # What the program does wrong is shown as Python shows it.
    done = python("-m", "purekrb.compat", str(tmp_path / "broken.py"))
    assert "Traceback" in done.stderr
    assert "no_such_module_at_all" in done.stderr
    done = python("-m", "purekrb.compat", "-m", "broken", PYTHONPATH=str(tmp_path))
    assert "No module named 'no_such_module_at_all'" in done.stderr


def test_an_unknown_name_is_refused() -> None:
    done = python("-c", "import purekrb.compat; purekrb.compat.install('krb5')")
    assert "ValueError: there is no 'krb5' here: the names are gssapi" in done.stderr


def test_a_submodule_that_does_not_exist_is_not_found() -> None:
    done = python(
        "-c", "import purekrb.compat; purekrb.compat.install('gssapi'); import gssapi.nothing"
    )
    assert "ModuleNotFoundError" in done.stderr


def test_python_m_runs_an_unmodified_program(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("name = 'beside'")
    program = tmp_path / "app.py"
    program.write_text(
        f"import sys, beside; {SHOW}; print(beside.name, sys.argv, __name__); sys.exit(3)"
    )
    done = python("-m", "purekrb.compat", str(program), "a", "-m")
    assert done.stdout == f"{PURE}\nbeside {[str(program), 'a', '-m']} __main__\n", done.stderr
    assert done.returncode == 3


def test_python_m_runs_an_unmodified_module(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(f"import sys; {SHOW}; print(sys.argv[1:])")
    done = python("-m", "purekrb.compat", "-m", "app", "x", PYTHONPATH=str(tmp_path))
    assert done.stdout == f"{PURE}\n['x']\n", done.stderr


def test_python_m_without_a_program_says_how() -> None:
    done = python("-m", "purekrb.compat")
    assert done.returncode != 0
    assert "python -m purekrb.compat app.py" in done.stderr


def test_run_includes_child_processes() -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SHOW!r}])"
    done = purekrb("run", "--", sys.executable, "-c", child)
    assert done.stdout == f"{PURE}\n", done.stderr


def test_run_keeps_the_exit_code_and_the_arguments() -> None:
    done = purekrb(
        "run", sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "--json"
    )
    assert (done.returncode, done.stdout) == (7, "['--json']\n")


def test_run_lets_the_hidden_sitecustomize_have_its_turn(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hidden', __name__)")
    done = purekrb("run", "--", sys.executable, "-c", SHOW, PYTHONPATH=str(tmp_path))
    own, *command = done.stdout.splitlines()  # the first is that of the `purekrb` command itself
    assert own == "hidden sitecustomize"
    assert command == ["hidden sitecustomize", PURE], done.stderr


def test_a_python_without_purekrb_says_so_and_runs(tmp_path: Path) -> None:
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    environment = {"PYTHONPATH": "", "PYTHONHOME": ""}
    done = purekrb("run", "--", str(base), "-c", "print('runs')", **environment)
    assert done.stdout == "runs\n"
    assert "has no purekrb, so gssapi" in done.stderr


@pytest.mark.parametrize(
    ("mode", "words"), [(None, "No such file or directory"), (0o644, "Permission denied")]
)
def test_run_names_a_command_that_cannot_be_run(
    tmp_path: Path, mode: int | None, words: str
) -> None:
    program = tmp_path / "app"
    if mode is not None:
        program.write_text("#!/bin/sh\n")
        program.chmod(mode)
    for command in (str(program), program.name):
        done = purekrb("run", "--", command, PATH=str(tmp_path))
        assert (done.returncode, done.stderr) == (1, f"purekrb: {command}: {words}\n")


def test_run_without_a_command_says_how() -> None:
    done = purekrb("run")
    assert done.returncode == 1
    assert "purekrb run -- python app.py" in done.stderr
    assert "the names are gssapi" in purekrb("run", "--only", "krb5", "true").stderr


@pytest.mark.parametrize(
    "name", ["cryptography", "impacket", "ldap3", "purekrb.kdc", "purekrb.gss"]
)
def test_install_loads_nothing_before_the_module_is_imported(name: str) -> None:
    done = python(
        "-c",
        f"import purekrb.compat as c, sys; c.install('gssapi'); print({name!r} in sys.modules)",
    )
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("name", ["ldap3", "impacket", "pyasn1", "dns", "asyncio", "sqlite3"])
def test_the_gssapi_module_loads_nothing_that_it_does_not_need(name: str) -> None:
    done = python("-c", f"import purekrb.compat.gssapi, sys; print({name!r} in sys.modules)")
    assert done.stdout == "False\n", done.stderr
