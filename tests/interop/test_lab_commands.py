"""What `make lab` tells newcomers to type."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from support.lab import prepare
from support.samba import SambaDc

README = Path(__file__).parents[2] / "README.md"


def test_the_commands_of_the_lab_and_of_the_readme_work_as_printed(samba_dc: SambaDc) -> None:
    commands = [line.strip() for line in prepare(samba_dc).splitlines() if line.startswith("    ")]
    in_readme = re.findall(r"^\$ (purekrb .*)$", README.read_text(), re.MULTILINE)
    assert len(in_readme) == 3
    assert all(any(shown in command for command in commands) for shown in in_readme)
    script = "\n".join(["set -e -u", *commands, "kill $!"])
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "connected to ADSockAuth/files.ad.test" in done.stdout
    assert "\nhello\n" in done.stdout
