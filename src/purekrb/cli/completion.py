"""Print the script that makes a shell complete purekrb's commands and arguments.

The wheel also installs the scripts where shells look for them if purekrb is installed for the whole
system. Otherwise, load one from the shell's start-up file:

bash   eval "$(purekrb completion bash)"
zsh    eval "$(purekrb completion zsh)", after compinit
fish   purekrb completion fish | source
"""

from __future__ import annotations

import argparse

from purekrb.cli.output import Output

__all__ = ["SCRIPTS", "add_arguments", "run"]

#: Where the wheel installs the script of each shell.
SCRIPTS = {
    "bash": "share/bash-completion/completions/purekrb",
    "zsh": "share/zsh/site-functions/_purekrb",
    "fish": "share/fish/vendor_completions.d/purekrb.fish",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", choices=tuple(SCRIPTS), help=f"one of {', '.join(SCRIPTS)}")


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the command."""
    script = _installed(SCRIPTS[args.shell])
    output.result({"shell": args.shell, "script": script}, *script.splitlines())
    return 0


def _installed(path: str) -> str:
    """Return the text of a file that the wheel has installed."""
    from importlib import metadata

    from purekrb.errors import UnsupportedError

    try:
        files = metadata.files("purekrb") or ()
        return next(file for file in files if file.as_posix().endswith(path)).read_text("utf-8")
    except (metadata.PackageNotFoundError, StopIteration, OSError):
        raise UnsupportedError(
            "this copy of purekrb came without completion scripts: install it with pip"
        ) from None
