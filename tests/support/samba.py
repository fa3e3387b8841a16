"""Samba's Active Directory domain controller as a child process, on a loopback address of its own.

The fixture `samba_dc` (tests/conftest.py) holds one `SambaDc` per run of the tests, shared by all of pytest-xdist's
workers. `PUREKRB_SAMBA=DIRECTORY` makes it use the one that runs there already, for instance one started by
`make lab`, instead of making one: accounts then outlive the run, and adding one again replaces it.

Needs root: Samba has no setting for the port of its LDAP server, and cannot be provisioned without.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from support.peers import Daemon, find_program, missing_peer, run
from support.pkinit_files import PkinitFiles
from support.tls import Authority

if TYPE_CHECKING:
    from purekrb import Config

__all__ = ["SambaDc", "free_address", "shared_dc"]

#: What accounts may use: AES128 and AES256 with SHA-1 ([MS-KILE] 2.2.7). Without it Samba makes tickets of RC4.
AES = 24

_UDP_PORTS = (53, 88, 389, 464)
_TCP_PORTS = (53, 88, 135, 389, 445, 464, 636, 3268, 3269)

_SMB_CONF = """\
[global]
 netbios name = DC1
 workgroup = {domain}
 realm = {realm}
 server role = active directory domain controller
 interfaces = {address}/8
 bind interfaces only = yes
 private dir = {directory}/private
 state directory = {directory}/state
 cache directory = {directory}/cache
 lock directory = {directory}/lock
 pid directory = {directory}
 ncalrpc dir = {directory}/ncalrpc
 binddns dir = {directory}/bind-dns
 server services = ldap, cldap, kdc, rpc, kcc, dnsupdate, dns, s3fs, winbindd
 ldap server require strong auth = yes
 tls cafile = {directory}/ca.pem
 tls certfile = {directory}/dc.pem
 tls keyfile = {directory}/dc.key
 dns forwarder =
 dns update command = /bin/true
 prefork children = 1
[sysvol]
 path = {directory}/state/sysvol
[netlogon]
 path = {directory}/state/sysvol/{dns}/scripts
"""

_KRB5_CONF = """\
[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
 forwardable = true
 default_ccache_name = FILE:{directory}/cc_default
[realms]
 {realm} = {{
  kdc = {address}
  kpasswd_server = {address}
  admin_server = {address}
 }}
[domain_realm]
 .{dns} = {realm}
 {dns} = {realm}
"""


class SambaDc:
    """The domain controller dc1.ad.test of the realm AD.TEST, with everything in `directory`.

    It serves Kerberos (88), LDAP (389, 636; its Global Catalog 3268, 3269), kpasswd (464), DNS (53), SMB (445) and RPC
    (135 and others) on `address`. `password` is that of the user Administrator, and of the accounts added here if no
    other is told. `ca` is the certificate of its TLS; `hosts` a hosts file, which `env` puts before C programs, since
    the names of the domain are in no DNS but its own; `krb5_conf` and `config` are the client configuration, for others
    and for purekrb. Attaches to the one provisioned in `directory`, which need not run.
    """

    realm = "AD.TEST"
    dns_domain = "ad.test"
    netbios_domain = "ADTEST"
    host = "dc1.ad.test"
    base = "DC=ad,DC=test"
    administrator = "Administrator"
    password = "Passw0rd.1"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._samba_tool = find_program("samba-tool", "samba-ad-dc")
        self._serial = itertools.count()
        self.krb5_conf = directory / "krb5.conf"
        self.ca = directory / "ca.pem"
        self.hosts = directory / "hosts"
        self.log = directory / "samba.log"
        self.address = (directory / "address").read_text()
        self._own_env = {**_samba_env(), "SMB_CONF_PATH": str(directory / "smb.conf")}
        if self._kdc_conf.exists():
            self._own_env["KRB5_CONFIG"] = str(self._kdc_conf)
        self._sam = str(directory / "private" / "sam.ldb")

    @classmethod
    def provision(cls, directory: Path) -> SambaDc:
        """Make the domain anew in `directory`, for an address that nobody uses; return it, not started yet."""
        samba_tool = find_program("samba-tool", "samba-ad-dc")
        if os.geteuid() != 0:
            missing_peer("Samba's domain controller, which needs root,", "samba-ad-dc, as root")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, mode=0o755)
        address = free_address()
        argv = [
            samba_tool, "domain", "provision", "--configfile=/dev/null", f"--targetdir={directory}",
            f"--realm={cls.realm}", f"--domain={cls.netbios_domain}", f"--host-name={cls.host.partition('.')[0]}",
            f"--host-ip={address}", "--server-role=dc", "--dns-backend=SAMBA_INTERNAL", f"--adminpass={cls.password}",
            f"--option=interfaces={address}/8", "--option=bind interfaces only=yes",
        ]  # fmt: skip
        run(argv, env=_samba_env())
        values = {
            "directory": directory,
            "address": address,
            "realm": cls.realm,
            "domain": cls.netbios_domain,
            "dns": cls.dns_domain,
        }
        (directory / "smb.conf").write_text(_SMB_CONF.format(**values))
        (directory / "krb5.conf").write_text(_KRB5_CONF.format(**values))
        (directory / "hosts").write_text(f"{address} {cls.host} {cls.dns_domain}\n")
        Authority(directory, "AD.TEST CA").issue([cls.host, cls.dns_domain], [address], stem="dc")
        (directory / "address").write_text(address)
        dc = cls(directory)
        dc._set_up_pkinit()
        dc = cls(directory)
        # Passwords may be changed at once, not only a day later.
        dc.modify(f"dn: {cls.base}\nchangetype: modify\nreplace: minPwdAge\nminPwdAge: 0\n")
        return dc

    @property
    def _kdc_conf(self) -> Path:
        return self.directory / "kdc.conf"

    def _set_up_pkinit(self) -> None:
        """Give the KDC a certificate that names its host, as Active Directory's own do."""
        certificate, key = self.pkinit.kdc
        own = (self.directory / "private" / "krb5.conf").read_text()
        anchors = self.pkinit.anchors
        self._kdc_conf.write_text(f"""\
{own}
[kdc]
 enable-pkinit = yes
 pkinit_identity = FILE:{certificate},{key}
 pkinit_anchors = FILE:{anchors}
 pkinit_principal_in_certificate = yes
[appdefaults]
 pkinit_anchors = FILE:{anchors}
""")

    @cached_property
    def pkinit(self) -> PkinitFiles:
        """The authority that issued the KDC's certificate for PKINIT, and issues those of users."""
        directory = self.directory / "pkinit"
        directory.mkdir(exist_ok=True, mode=0o755)
        return PkinitFiles(directory, self.realm, self.host)

    # What the domain is made of

    @property
    def config(self) -> Config:
        """The realm as a purekrb Config."""
        from purekrb import Config

        return Config.from_file(self.krb5_conf)

    @property
    def env(self) -> dict[str, str]:
        """The environment in which other programs find the realm and its hosts."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("KRB5")
        }
        return {
            **inherited,
            "KRB5_CONFIG": str(self.krb5_conf),
            "KRB5RCACHENAME": f"file2:{self.directory}/rcache",
            "LD_PRELOAD": "libnss_wrapper.so",
            "NSS_WRAPPER_HOSTS": str(self.hosts),
            "LDAPTLS_CACERT": str(self.ca),
            "LDAPSASL_NOCANON": "on",
            "LC_ALL": "C",
        }

    def path(self, suffix: str) -> Path:
        """Return a path for a new file."""
        return self.directory / f"{os.getpid()}-{next(self._serial)}-{suffix}"

    def add_user(
        self,
        name: str,
        password: str | None = None,
        *,
        etypes: int = AES,
        **attributes: str | Sequence[str],
    ) -> str:
        """Add (or replace) a user and return its DN. `attributes` are LDAP's, a str or several."""
        return self._add_account(
            f"CN={name},CN=Users,{self.base}",
            password,
            {
                "objectClass": "user",
                "sAMAccountName": name,
                "userPrincipalName": f"{name}@{self.dns_domain}",
                "userAccountControl": "512",
                "msDS-SupportedEncryptionTypes": str(etypes),
                **attributes,
            },
        )

    def add_computer(
        self,
        name: str,
        password: str | None = None,
        *,
        etypes: int = AES,
        **attributes: str | Sequence[str],
    ) -> str:
        """Add (or replace) the computer account `name`$, host `name`.ad.test, and return its DN."""
        return self._add_account(
            f"CN={name},CN=Computers,{self.base}",
            password,
            {
                "objectClass": "computer",
                "sAMAccountName": f"{name}$",
                "dNSHostName": f"{name.lower()}.{self.dns_domain}",
                "userAccountControl": "4096",
                "msDS-SupportedEncryptionTypes": str(etypes),
                **attributes,
            },
        )

    def _add_account(
        self, dn: str, password: str | None, attributes: Mapping[str, str | Sequence[str]]
    ) -> str:
        secret = f'"{self.password if password is None else password}"'.encode("utf-16-le")
        lines = [_ldif("dn", dn), _ldif("unicodePwd", secret)]
        for name, values in attributes.items():
            lines += [
                _ldif(name, value) for value in ([values] if isinstance(values, str) else values)
            ]
        self.delete(dn)
        self._ldb("ldbadd", text="".join(lines))
        return dn

    def set_password(self, dn: str, password: str) -> None:
        """Give an account another password: its keys change, and their version number grows by one."""
        secret = f'"{password}"'.encode("utf-16-le")
        self.modify(
            f"dn: {dn}\nchangetype: modify\nreplace: unicodePwd\n" + _ldif("unicodePwd", secret)
        )

    def modify(self, ldif: str) -> None:
        """Change the directory's database itself, which asks for no permission."""
        self._ldb("ldbmodify", text=ldif)

    def delete(self, dn: str) -> None:
        """Remove an object and what is below it, if it is there."""
        with contextlib.suppress(RuntimeError):
            self._ldb("ldbdel", "-r", dn)

    def search(
        self, filter: str, *attributes: str, base: str | None = None, scope: str = "sub"
    ) -> list[dict[str, list[str | bytes]]]:
        """Return what the database itself has; values that are no plain ASCII as bytes. "dn" is always among them."""
        output = self._ldb("ldbsearch", "-b", base or self.base, "-s", scope, filter, *attributes)
        entries: list[dict[str, list[str | bytes]]] = []
        for line in output.replace("\n ", "").splitlines():
            name, separator, value = line.partition(":")
            if name == "dn":
                entries.append({})
            if line.startswith("#") or not separator or name == "ref":
                continue
            binary = value.startswith(":")
            values = entries[-1].setdefault(name, [])
            values.append(base64.b64decode(value[1:]) if binary else value.lstrip(" "))
        return entries

    def samba_tool(self, *arguments: str) -> str:
        """Run samba-tool on the database itself; return what it prints."""
        return run([self._samba_tool, *arguments], env=self._own_env)

    def keytab(self, *principals: str) -> Path:
        """Return the path of a new keytab with the current keys of `principals`: accounts (WEB1$) or SPNs of theirs."""
        path = self.path("keytab")
        for principal in principals:
            self.samba_tool("domain", "exportkeytab", str(path), f"--principal={principal}")
        return path

    def _ldb(self, program: str, *arguments: str, text: str = "") -> str:
        argv = [find_program(program, "ldb-tools"), "-H", self._sam, *arguments]
        return run(argv, env=self._own_env, text=text)

    # The process

    @property
    def running(self) -> bool:
        """Whether any of its processes is alive: they all hold a lock."""
        with (self.directory / "running").open("w") as lock:
            return not _lock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def start(self, *, while_open: Path | None = None, timeout: float = 60.0) -> None:
        """Start it, to run until `stop`, or for as long as somebody has the FIFO `while_open` open for writing."""
        samba = find_program("samba", "samba-ad-dc")
        # In a session of its own and nobody's child: whoever starts it may be gone before it ends.
        argv = ["setsid", "--fork", *self._own_run_directory(), samba]
        argv += ["--interactive", "--model=prefork", "--debug-stdout"]
        with (
            (self.directory / "running").open("w") as lock,
            self.log.open("ab") as log,
            open(os.open(while_open or os.devnull, os.O_RDONLY | os.O_NONBLOCK), "rb") as stdin,
        ):
            if not _lock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
                raise RuntimeError(f"Samba already runs in {self.directory}")
            subprocess.run(
                argv,
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=self._own_env,
                pass_fds=[lock.fileno()],
                check=True,
            )
        deadline = time.monotonic() + timeout
        while not self._serves():
            if not self.running or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(
                    f"Samba did not start:\n{self.log.read_text(errors='replace')[-3000:]}"
                )
            time.sleep(0.1)

    def _own_run_directory(self) -> list[str]:
        """Return the start of a command that has a /run/samba of its own, or [] where that is not permitted.

        smbd finds winbindd there, whatever smb.conf says, so that domain controllers would disturb each other.
        """
        if subprocess.run(
            ["unshare", "--mount", "true"], check=False, stderr=subprocess.DEVNULL
        ).returncode:
            return []
        own = self.directory / "run"
        own.mkdir(mode=0o755, exist_ok=True)
        Path("/run/samba").mkdir(mode=0o755, exist_ok=True)
        return [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$0" /run/samba && exec "$@"',
            str(own),
        ]

    def _serves(self) -> bool:
        for port in _TCP_PORTS:
            try:
                socket.create_connection((self.address, port), timeout=5).close()
            except OSError:
                return False
        # The DC registers its own service names a moment after it listens.
        return bool(self.search(f"(servicePrincipalName=ldap/{self.host})", "cn"))

    @contextlib.contextmanager
    def ldap_server(self, strong_auth: str) -> Iterator[str]:
        """One more LDAP server of the same database, with another `ldap server require strong auth`: its address.

        As it is, Samba takes no SASL bind inside of TLS; with "allow_sasl_over_tls" it does, as Active Directory.
        """
        directory = self.path("ldap")
        address = free_address()
        (directory / "lock").mkdir(parents=True)
        own = {
            "interfaces": f"{address}/8",
            "pid directory": directory,
            "lock directory": directory / "lock",
            "ncalrpc dir": directory / "ncalrpc",
            "server services": "ldap",
            "ldap server require strong auth": strong_auth,
        }
        lines = (self.directory / "smb.conf").read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.partition("=")[0].strip() not in own]
        kept[1:1] = [f" {name} = {value}\n" for name, value in own.items()]
        (directory / "smb.conf").write_text("".join(kept))
        argv = [
            find_program("samba", "samba-ad-dc"),
            "--interactive",
            "--model=single",
            "--debug-stdout",
        ]
        env = {**self._own_env, "SMB_CONF_PATH": str(directory / "smb.conf")}
        server = Daemon(argv, env=env, log=directory / "log", port=636, address=address)
        yield address
        server.stop()

    def stop(self) -> None:
        """End it and wait until none of its processes is left."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 10
            while self.running and time.monotonic() < deadline:
                with contextlib.suppress(
                    FileNotFoundError, ProcessLookupError
                ):  # not yet, no longer
                    os.killpg(int((self.directory / "samba.pid").read_text()), signal_number)
                time.sleep(0.05)


@contextlib.contextmanager
def shared_dc(directory: Path) -> Iterator[SambaDc]:
    """Return the running DC that all processes of a test run share: the first one makes it, the last one stops it.

    Should all of them be killed, it ends as well, since its standard input does.
    """
    directory.mkdir(exist_ok=True)
    place, fifo = directory / "dc", directory / "users.fifo"
    with (directory / "users").open("w") as users, contextlib.ExitStack() as held:
        with (directory / "starting").open("w") as starting:
            _lock(starting.fileno(), fcntl.LOCK_EX)
            _lock(users.fileno(), fcntl.LOCK_SH)
            dc = SambaDc(place) if (place / "address").exists() else SambaDc.provision(place)
            if not fifo.exists():
                os.mkfifo(fifo)
            # Read-write, since nobody reads from it yet.
            held.callback(os.close, os.open(fifo, os.O_RDWR))
            if not dc.running:
                dc.start(while_open=fifo)
        try:
            yield dc
        finally:
            with (directory / "starting").open("w") as starting:
                _lock(starting.fileno(), fcntl.LOCK_EX)
                if _lock(users.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
                    dc.stop()


def _lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    return True


def _samba_env() -> dict[str, str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KRB5", "PYTHON", "LD_"))
    }
    # Samba's own Python is the system's. Nobody needs the database after a power failure: without fsync it takes
    # seconds to make, not minutes.
    return {
        **env,
        "PATH": f"/usr/bin:/bin:/usr/sbin:/sbin:{env.get('PATH', '')}",
        "TDB_NO_FSYNC": "1",
        "LC_ALL": "C",
    }


def free_address() -> str:
    """Return a loopback address where all the DC's ports are free; by chance, so that two at once choose two."""
    for _ in range(50):
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        with contextlib.ExitStack() as sockets:
            try:
                for kind, ports in (
                    (socket.SOCK_STREAM, _TCP_PORTS),
                    (socket.SOCK_DGRAM, _UDP_PORTS),
                ):
                    for port in ports:
                        sockets.enter_context(socket.socket(socket.AF_INET, kind)).bind(
                            (address, port)
                        )
            except OSError:
                continue
        return address
    raise RuntimeError(
        f"no loopback address has the ports {_TCP_PORTS} free: something listens on all addresses"
    )


def _ldif(name: str, value: str | bytes) -> str:
    data = value.encode() if isinstance(value, str) else value
    return f"{name}:: {base64.b64encode(data).decode()}\n"
