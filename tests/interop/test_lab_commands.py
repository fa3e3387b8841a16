"""What `make lab` tells newcomers to type."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.lab import prepare
from support.samba import SambaDc

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
#: The names of the page, and those of this test: others may have the page's in the same domain.
NAMES = {
    "a762885a-aa44-11d2-81f1-00c04fb9624e": "0b1e7c2e-7a3f-4f0e-9a51-6d5a7f1c2b90",
    "ADSockAuth": "EmptyAuth",
    "svc-files": "svc-empty",
    "files.ad.test": "empty.ad.test",
    ":2000": ":2001",
    "port 2000": "port 2001",
    "alice@": "empty-alice@",
}


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


def test_the_page_goes_from_an_empty_domain_to_a_rotating_service(
    samba_dc: SambaDc, tmp_path: Path
) -> None:
    for dn in ("CN=svc-empty,CN=Users", "CN=EMPTY,CN=Computers", "CN=empty-alice,CN=Users"):
        samba_dc.delete(f"{dn},{samba_dc.base}")
    samba_dc.samba_tool("user", "create", "empty-alice", samba_dc.password)
    page = (ROOT / "docs" / "scp.md").read_text(encoding="utf-8")
    section = page.partition("## From an empty domain\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^    \$ (purekrb .*)$", section, re.MULTILINE)
    assert len(commands) == 10
    script = ["set -e -u"]
    for command in commands:
        for name, ours in NAMES.items():
            command = command.replace(name, ours)
        if "kinit" in command:
            command = f"echo {samba_dc.password} | {command}"
        if " connect " in command:
            command = f"echo hello | {command}"
        script.append(f"{command} &" if " serve " in command else command)
    others = samba_dc.hosts.read_text().replace("127.0.0.1 ", "127.0.0.2 ")  # of the lab
    (tmp_path / "hosts").write_text(f"127.0.0.1 empty.ad.test\n{others}")
    by_name = samba_dc.krb5_conf.read_text().replace(
        f"= {samba_dc.address}\n", f"= {samba_dc.host}\n"
    )
    (tmp_path / "krb5.conf").write_text(by_name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "purekrb").write_text(
        f"#!/bin/sh\nexec '{sys.executable}' -m purekrb \"$@\"\n"
    )
    (tmp_path / "bin" / "purekrb").chmod(0o755)
    env = {
        **samba_dc.env,
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "KRB5_CONFIG": str(tmp_path / "krb5.conf"),
        "KRB5CCNAME": f"FILE:{tmp_path}/ccache",
        "NSS_WRAPPER_HOSTS": str(tmp_path / "hosts"),
        "NSS_WRAPPER_HOSTNAME": "empty.ad.test",
        "XDG_STATE_HOME": str(tmp_path),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        ["/bin/sh", "-c", "\n".join([*script, "kill $!"])],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "opens the ticket" in done.stdout  # the keytab that account create made
    assert done.stdout.count("connected to EmptyAuth/empty.ad.test") == 2
    assert done.stdout.count("\nhello\n") == 2  # the second one with the ticket of the old key
    assert "kvno 2, and 1 for older tickets" in done.stdout
    assert "kvno 2, opens the ticket" in done.stdout  # a new ticket, for the status
