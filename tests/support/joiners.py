"""msktutil and adcli, in a mount namespace where the names of Samba's domain are known."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.peers import find_program
from support.samba import SambaDc

__all__ = ["Joiners"]

_SCRIPT = """\
mount --bind "$W/hosts" /etc/hosts && mount --bind "$W/resolv.conf" /etc/resolv.conf && exec "$@"
"""


class Joiners:
    """The tools, run as the domain's administrator; files are in `directory`."""

    def __init__(self, dc: SambaDc, directory: Path) -> None:
        self._dc, self._directory = dc, directory
        self._msktutil = find_program("msktutil", "msktutil")
        self._adcli = find_program("adcli", "adcli")
        self._unshare = find_program("unshare", "util-linux")
        host, domain = dc.host, dc.dns_domain
        (directory / "hosts").write_text(
            f"127.0.0.1 localhost\n{dc.address} {host} {host.partition('.')[0]}\n"
        )
        (directory / "resolv.conf").write_text(f"nameserver {dc.address}\nsearch {domain}\n")
        self._ccache = directory / "admin.ccache"
        kinit = find_program("kinit", "krb5-user")
        self._run({}, kinit, f"{dc.administrator}@{dc.realm}", text=f"{dc.password}\n")

    def msktutil(self, *arguments: str, as_admin: bool = True) -> None:
        """Run msktutil; without `as_admin`, with the keys of its keytab alone."""
        always = ["--server", self._dc.host, "-N", "-n", "--realm", self._dc.realm]
        ccache = {} if as_admin else {"KRB5CCNAME": f"FILE:{self._directory}/none"}
        self._run(ccache, self._msktutil, *arguments, *always, "--enctypes", "24")

    def adcli(self, command: str, *arguments: str) -> None:
        """Run adcli."""
        where = ["--domain", self._dc.dns_domain, "--domain-controller", self._dc.host]
        login = [f"--login-ccache={self._ccache}"] if command == "join" else []
        self._run({}, self._adcli, command, *where, *login, *arguments)

    def _run(self, env: Mapping[str, str], *argv: str, text: str | None = None) -> None:
        done = subprocess.run(
            [self._unshare, "-m", "/bin/sh", "-c", _SCRIPT, "sh", *argv],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "W": str(self._directory),
                "KRB5_CONFIG": str(self._dc.krb5_conf),
                "KRB5CCNAME": f"FILE:{self._ccache}",
                "LC_ALL": "C",
                **env,
            },
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{argv}: {done.stdout}{done.stderr}")
