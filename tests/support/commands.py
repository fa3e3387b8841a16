"""Runs the `purekrb` command, in this process or as users do."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from purekrb.cli import main
from purekrb.testing import Realm

__all__ = ["ARGV", "Commands", "Result", "environment"]

#: How a subprocess runs the command; warnings are errors there too.
ARGV = (sys.executable, "-W", "error", "-m", "purekrb")


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[Any]:
        """The lines of its output."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment(directory: Path) -> dict[str, str]:
    """Return the environment in which krb5.conf, ccache and keytab are files of `directory`."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("KRB5")},
        "KRB5_CONFIG": str(directory / "krb5.conf"),
        "KRB5CCNAME": f"FILE:{directory}/ccache",
        "KRB5_KTNAME": f"FILE:{directory}/keytab",
        "KRB5RCACHENAME": f"file2:{directory}/rcache2",
    }


class Commands:
    """Runs commands in this process, in `directory`, whose files are the default krb5.conf, ccache and keytab."""

    def __init__(
        self,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        realm: Realm,
    ) -> None:
        self.directory = directory
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(directory)
        for name, value in environment(directory).items():
            monkeypatch.setenv(name, value)
        realm.write_krb5_conf(directory / "krb5.conf")

    def __call__(self, *argv: str, stdin: bytes | str = b"") -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        self._monkeypatch.setattr(
            sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")
        )
        self._capsys.readouterr()
        try:
            code = main([str(argument) for argument in argv])
        except SystemExit as exit:
            code = int(exit.code or 0)
        return Result(code, *self._capsys.readouterr())

    def spawn(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command as a process of its own; its streams are pipes unless `options` say otherwise."""
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(
            [*ARGV, *argv], text=True, cwd=self.directory, **{**pipes, **options}
        )
