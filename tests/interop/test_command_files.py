"""The completion scripts in real shells, and the man page with man: the files that the build puts into the wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import purekrb.cli
from purekrb.cli.completion import SCRIPTS
from support.peers import find_program
from support.terminal import Terminal

PROJECT = Path(__file__).parents[2]

#: Lets each shell print its arguments in place of the command, and load the script as installed, or by eval.
SETUP = {
    ("bash", "installed"): 'purekrb() { echo "got[$*]"; }; . {script}',
    ("bash", "eval"): 'purekrb() { echo "got[$*]"; }; eval "$(cat {script})"',
    (
        "zsh",
        "installed",
    ): 'purekrb() { echo "got[$*]"; }; fpath=({script:h} $fpath); autoload -U compinit; compinit -u -D',
    (
        "zsh",
        "eval",
    ): 'purekrb() { echo "got[$*]"; }; autoload -U compinit; compinit -u -D; eval "$(cat {script})"',
    ("fish", "installed"): 'function purekrb; echo got["$argv"]; end',
    ("fish", "eval"): 'function purekrb; echo got["$argv"]; end; cat {script} | source',
}
ARGV = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
    "fish": ("fish", "--private", "-i"),
}


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory `share` as the wheel installs it."""
    sys.path.append(str(PROJECT / "tools"))
    try:
        from command_files import command_files
    finally:
        sys.path.pop()
    root = tmp_path_factory.mktemp("prefix")
    for name, text in command_files().items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    return root / "share"


@pytest.mark.parametrize(("shell", "how"), SETUP, ids=lambda pair: pair)
def test_a_real_shell_completes_commands_switches_and_files(
    shell: str, how: str, share: Path, tmp_path: Path
) -> None:
    find_program(shell, shell)
    script = share.parent / SCRIPTS[shell]
    (tmp_path / "some.keytab").touch()
    data = share if how == "installed" else tmp_path
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XDG")},
        "HOME": str(tmp_path),
        "XDG_DATA_DIRS": f"{data}:/usr/share",
        "PS1": "$ ",
    }
    setup = (
        SETUP[shell, how].replace("{script:h}", str(script.parent)).replace("{script}", str(script))
    )
    terminal = Terminal(tmp_path, *ARGV[shell], env=env)
    terminal.type(f"{setup}\n")
    for typed, completed in (
        ("purekrb kdes\t", "kdestroy"),
        ("purekrb klist --ut\t", "klist --utc"),
        ("purekrb spn dup\t", "spn duplicates"),
        ("purekrb spn add --comp\t", "spn add --computer"),
        ("purekrb connect --mechanism neg\t", "connect --mechanism negotiate"),
        ("purekrb kinit -t some\t", "kinit -t some.keytab"),
        ("purekrb inspect some\t", "inspect some.keytab"),
    ):
        terminal.type(f"{typed}\n")
        terminal.expect(f"got[{completed}]")
    terminal.type("exit\n")
    terminal.wait()


def test_the_man_page_explains_every_command_and_is_what_man_expects(share: Path) -> None:
    find_program("man", "man-db")
    page = share / "man" / "man1" / "purekrb.1"
    done = subprocess.run(
        ["man", "--warnings", "-l", str(page)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub(".\b", "", done.stdout)
    for command in purekrb.cli.COMMANDS:
        assert f"purekrb {command}\n" in text
    assert "-S NAME, --service NAME" in text
    assert "purekrb keytab from-password" in text
    assert "KRB5_TRACE" in text
    assert "wrong password or key" in text
    assert max(map(len, text.splitlines())) <= 80
