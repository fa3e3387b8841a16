"""What `make lab` tells newcomers to type."""

from __future__ import annotations

import subprocess

from support.lab import prepare
from support.samba import SambaDc


def test_the_commands_of_the_lab_work_as_printed(samba_dc: SambaDc) -> None:
    commands = [line for line in prepare(samba_dc).splitlines() if line.startswith("    ")]
    script = "\n".join(["set -e -u", *commands])
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "HOST/files.ad.test@AD.TEST: kvno = " in done.stdout
