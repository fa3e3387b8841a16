"""Samba of Debian 13 in a chroot, for what that of Debian 12 lacks: it makes the passwords of managed accounts.

Only for `PUREKRB_SOAK=1`: the packages are 70 MB to fetch and 620 MB on disk, in `.lab/debian13`, or where
PUREKRB_DEBIAN13 says. They stay there for the next run. Needs root and the network.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

from purekrb import Config, Credential
from purekrb.directory import Directory
from support.peers import find_program
from support.samba import free_address

__all__ = ["ManagingDc", "chroot"]

_MIRROR = "http://deb.debian.org/debian"
_PACKAGES = (
    "samba-ad-dc",
    "samba-ad-provision",
    "samba",
    "winbind",
    "ldb-tools",
    "python3-samba",
    "samba-dsdb-modules",
    "samba-vfs-modules",
)
#: Where the domain is, as programs inside see it.
_INSIDE = "/srv/purekrb"
_PORTS = (88, 389, 464)

_SMB_CONF = """\
 interfaces = {address}/8
 bind interfaces only = yes
 ad dc functional level = 2016
 server services = ldap, kdc, rpc, winbindd, s3fs, kcc, dnsupdate
 ldap server require strong auth = yes
 dns update command = /bin/true
 prefork children = 1
"""

_KRB5_CONF = """\
[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 rdns = false
[realms]
 {realm} = {{
  kdc = {address}
  kpasswd_server = {address}
 }}
[domain_realm]
 .{domain} = {realm}
"""


def chroot() -> Path:
    """Return the directory of a Debian 13 with Samba, made if it is missing."""
    root = Path(
        os.environ.get("PUREKRB_DEBIAN13") or Path(__file__).parents[2] / ".lab" / "debian13"
    )
    if not (root / "usr/sbin/samba").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(exist_ok=True)
        debootstrap = find_program("debootstrap", "debootstrap")
        _run(
            debootstrap,
            "--variant=minbase",
            "--include=ca-certificates",
            "trixie",
            str(root),
            _MIRROR,
        )
        policy = root / "usr/sbin/policy-rc.d"  # no daemon starts by itself
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        for file in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
            shutil.copy(file, root / "etc/apt/apt.conf.d")
        _in(root, "apt-get", "update")
        _in(root, "apt-get", "install", "-y", "--no-install-recommends", *_PACKAGES)
    return root


def _run(*argv: str, text: str = "") -> str:
    env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "TDB_NO_FSYNC": "1"}
    done = subprocess.run(argv, input=text, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[-3:]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _inside(root: Path, *argv: str) -> list[str]:
    """Return the command that runs `argv` in the chroot.

    /proc is mounted for that program alone: nothing is left that `make clean` could stumble over.
    """
    enter = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    return ["unshare", "--mount", "sh", "-c", enter, str(root), *argv]


def _in(root: Path, *argv: str, text: str = "") -> str:
    return _run(*_inside(root, *argv), text=text)


class ManagingDc:
    """The domain controller dc22.t22.test of the realm T22.TEST, made anew in the chroot `root`."""

    realm, domain, host, password = "T22.TEST", "t22.test", "dc22.t22.test", "Passw0rd.1"
    base = "DC=t22,DC=test"

    def __init__(self, root: Path) -> None:
        self.root, self.address = root, free_address()
        self._files = root / _INSIDE[1:]
        shutil.rmtree(self._files, ignore_errors=True)
        self._files.mkdir(parents=True)
        _in(
            root, "samba-tool", "domain", "provision", "--configfile=/dev/null", f"--targetdir={_INSIDE}",
            f"--realm={self.realm}", "--domain=T22", "--host-name=dc22", f"--host-ip={self.address}",
            "--server-role=dc", "--dns-backend=NONE", f"--adminpass={self.password}",
            "--function-level=2016", "--base-schema=2019", f"--option=interfaces={self.address}/8",
            "--option=bind interfaces only=yes", "--option=ad dc functional level=2016",
        )  # fmt: skip
        own = _SMB_CONF.format(address=self.address)
        names = {line.partition("=")[0].strip() for line in own.splitlines()}
        conf = self._files / "etc/smb.conf"
        lines = conf.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.partition("=")[0].strip() not in names]
        at = next(n for n, line in enumerate(kept) if line.startswith("[global]")) + 1
        conf.write_text("".join([*kept[:at], own, *kept[at:]]))
        self.krb5_conf = self._files / "krb5.conf"
        self.krb5_conf.write_text(
            _KRB5_CONF.format(realm=self.realm, address=self.address, domain=self.domain)
        )
        self.config = Config.from_file(self.krb5_conf)
        conf_inside = f"{_INSIDE}/etc/smb.conf"
        argv = _inside(root, "samba", "-i", "-M", "prefork", "-s", conf_inside, "--debug-stdout")
        self._log = (self._files / "samba.log").open("wb")
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        for port in _PORTS:
            while True:
                try:
                    socket.create_connection((self.address, port), timeout=5).close()
                    break
                except OSError:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        self.stop()
                        raise RuntimeError(
                            (self._files / "samba.log").read_text(errors="replace")[-3000:]
                        ) from None
                    time.sleep(0.2)
        # It registers the names of its own services a moment after it listens.
        own = f"(servicePrincipalName=ldap/{self.host}/{self.domain})"
        while not self._raw(_DOMAIN, own, "cn"):
            if time.monotonic() > deadline:
                raise RuntimeError("the domain controller has not registered its own names")
            time.sleep(0.2)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(60)
        self._log.close()

    def samba_tool(self, *arguments: str) -> str:
        """Run samba-tool on the database itself; return what it prints."""
        database = ("-H", f"{_INSIDE}/private/sam.ldb", "-s", f"{_INSIDE}/etc/smb.conf")
        return _in(self.root, "samba-tool", *arguments, *database)

    def bound(self, account: str, **options: object) -> Directory:
        """Return the directory that the account is bound to."""
        credential = Credential.from_password(f"{account}@{self.realm}", self.password)
        target = f"ldap/{self.host}/{self.domain}"
        return Directory.connect(
            f"ldap://{self.address}",
            credential,
            self.config,
            target,
            **options,  # type: ignore[arg-type]
        )

    def modify(self, dn: str, values: dict[str, str | bytes]) -> None:
        """Replace values of an object of the domain, in the database itself."""
        self._change(_DOMAIN, dn, values)

    def age_password(self, dn: str, hours: int) -> None:
        """Make the password of a managed account older, so that the next reader finds it changed.

        The account and the key that its passwords come from then seem to be older, too. What the
        directory then tells as the previous password is the one of the older time, never in use.
        """
        steps = hours // 10  # the number of a password counts in steps of ten hours
        (root_key,) = self._raw(
            _CONFIGURATION, "(objectClass=msKds-ProvRootKey)", "msKds-UseStartTime"
        )[:1]
        early = str(int(root_key["msKds-UseStartTime"]) - 2 * hours * 3600 * 10_000_000)
        self._change(
            _CONFIGURATION, root_key["dn"], {"msKds-UseStartTime": early, "msKds-CreateTime": early}
        )
        names = ("msDS-ManagedPasswordId", "pwdLastSet")
        (account,) = self._raw(_DOMAIN, f"(distinguishedName={dn})", *names)
        identifier = bytearray(base64.b64decode(account["msDS-ManagedPasswordId"]))
        high, middle, low = struct.unpack_from("<III", identifier, 12)
        number = (high * 32 + middle) * 32 + low - steps
        struct.pack_into("<III", identifier, 12, number // 1024, number // 32 % 32, number % 32)
        values = {
            "msDS-ManagedPasswordId": bytes(identifier),
            "pwdLastSet": str(int(account["pwdLastSet"]) - steps * 10 * 3600 * 10_000_000),
            "whenCreated": "20200101000000.0Z",
        }
        self._change(_DOMAIN, dn, values)

    def _raw(self, partition: str, search_filter: str, *names: str) -> list[dict[str, str]]:
        output = _in(self.root, "ldbsearch", "-H", partition, search_filter, *names)
        entries: list[dict[str, str]] = []
        for line in output.replace("\n ", "").splitlines():
            name, separator, value = line.partition(":")
            if name == "dn":
                entries.append({})
            if separator and entries:
                entries[-1][name] = value.lstrip(": ")
        return entries

    def _change(self, partition: str, dn: str, values: dict[str, str | bytes]) -> None:
        lines = [f"dn: {dn}", "changetype: modify"]
        for name, value in values.items():
            data = value if isinstance(value, bytes) else value.encode()
            lines += [f"replace: {name}", f"{name}:: {base64.b64encode(data).decode()}", "-"]
        _in(self.root, "ldbmodify", "-H", partition, text="\n".join(lines) + "\n")


_PARTITIONS = f"{_INSIDE}/private/sam.ldb.d"
_DOMAIN = f"{_PARTITIONS}/{ManagingDc.base.upper()}.ldb"
_CONFIGURATION = f"{_PARTITIONS}/CN=CONFIGURATION,{ManagingDc.base.upper()}.ldb"
