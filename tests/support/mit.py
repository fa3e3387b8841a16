"""MIT Kerberos on loopback: two realms that trust each other, with the principals the tests need.

The fixture `mit_realm` (tests/conftest.py) holds one `MitRealm` per session.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from support.peers import Daemon, find_program, free_port, on_free_port, run

if TYPE_CHECKING:
    from purekrb import Config

__all__ = ["ETYPES", "MitRealm"]

REALM = "MIT.TEST"
SUB_REALM = "SUB.TEST"

#: MIT's name of each encryption type; every service named svc-<number> has a key of that type alone.
ETYPES = {
    17: "aes128-cts-hmac-sha1-96",
    18: "aes256-cts-hmac-sha1-96",
    19: "aes128-cts-hmac-sha256-128",
    20: "aes256-cts-hmac-sha384-192",
    23: "arcfour-hmac",
}
_PREFERENCE = [ETYPES[etype] for etype in (20, 19, 18, 17, 23)]

#: Users and their passwords. `pre` must pre-authenticate; `rc4user` has an RC4 key alone.
PASSWORDS = {"user": "userpw", "pre": "prepw", "rc4user": "rc4pw"}

#: Services of MIT.TEST with keys of all encryption types; tickets for `deleg` carry OK-AS-DELEGATE.
SERVICES = ("gsvc/localhost", "host/localhost", "HTTP/localhost", "deleg/localhost")
#: Services of SUB.TEST; MIT.TEST's KDC refers there for names in .sub.test.
SUB_SERVICES = ("host/srv.sub.test", "gsvc/srv.sub.test")

_KRB5_CONF = """\
[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
 allow_rc4 = true
 allow_weak_crypto = true
 permitted_enctypes = {etypes}
 forwardable = true
 default_ccache_name = FILE:{directory}/cc_default
[realms]
 {realm} = {{
  kdc = 127.0.0.1:{port}
 }}
 {sub_realm} = {{
  kdc = 127.0.0.1:{sub_port}
 }}
[domain_realm]
 .mit.test = {realm}
 .sub.test = {sub_realm}
 localhost = {realm}
"""

_KDC_CONF = """\
[realms]
 {realm} = {{
  database_name = {directory}/{realm}.db
  key_stash_file = {directory}/{realm}.stash
  kdc_listen = 127.0.0.1:{port}
  kdc_tcp_listen = 127.0.0.1:{port}
  supported_enctypes = {salted}
  max_renewable_life = 7d
 }}
 {sub_realm} = {{
  database_name = {directory}/{sub_realm}.db
  key_stash_file = {directory}/{sub_realm}.stash
  kdc_listen = 127.0.0.1:{sub_port}
  kdc_tcp_listen = 127.0.0.1:{sub_port}
  supported_enctypes = {salted}
  max_renewable_life = 7d
 }}
[logging]
 kdc = FILE:{directory}/kdc.log
"""


class MitRealm:
    """MIT.TEST and SUB.TEST served by one krb5kdc, with everything in `directory`.

    `env` is the environment for MIT's programs; `krb5_conf` the client configuration; `service_keytab` holds the keys
    of all services of MIT.TEST, `sub_service_keytab` those of SUB.TEST. `log` is the KDC's log.
    """

    realm = REALM
    sub_realm = SUB_REALM
    passwords = PASSWORDS
    etypes = ETYPES

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._krb5kdc = find_program("krb5kdc", "krb5-kdc")
        self._kdb5_util = find_program("kdb5_util", "krb5-kdc")
        self._kadmin_local = find_program("kadmin.local", "krb5-admin-server")
        self._kinit = find_program("kinit", "krb5-user")
        self._kvno = find_program("kvno", "krb5-user")
        self._klist = find_program("klist", "krb5-user")
        self._serial = itertools.count()
        self.krb5_conf = directory / "krb5.conf"
        self.service_keytab = directory / "service.keytab"
        self.sub_service_keytab = directory / "sub-service.keytab"
        self.log = directory / "kdc.log"
        self._kdc_conf = directory / "kdc.conf"
        self._listen_on(88)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("KRB5")
        }
        self.env: dict[str, str] = {
            **inherited,
            "KRB5_CONFIG": str(self.krb5_conf),
            "KRB5_KDC_PROFILE": str(self._kdc_conf),
            "KRB5RCACHENAME": f"file2:{directory}/rcache",
            "LC_ALL": "C",
        }
        self._create()
        self._daemon: Daemon | None = None
        on_free_port(self._start_on)

    def _listen_on(self, port: int) -> None:
        """Write the configuration of the KDC, and of those that ask it."""
        self.port, self.sub_port = port, free_port()
        values = {
            "realm": REALM,
            "sub_realm": SUB_REALM,
            "port": self.port,
            "sub_port": self.sub_port,
            "directory": self.directory,
            "etypes": " ".join(_PREFERENCE),
            "salted": " ".join(f"{name}:normal" for name in _PREFERENCE),
        }
        self.krb5_conf.write_text(_KRB5_CONF.format(**values))
        self._kdc_conf.write_text(_KDC_CONF.format(**values))

    def _start_on(self, port: int) -> None:
        self._listen_on(port)
        self.start()

    def _create(self) -> None:
        for realm in (REALM, SUB_REALM):
            run([self._kdb5_util, "create", "-s", "-r", realm, "-P", "masterpw"], env=self.env)
        trust = [
            f"addprinc -pw trustpw krbtgt/{there}@{here}"
            for there, here in ((REALM, SUB_REALM), (SUB_REALM, REALM))
        ]
        commands = [
            *trust,
            "addprinc -pw userpw user",
            "addprinc +requires_preauth -pw prepw pre",
            "addprinc -e arcfour-hmac:normal -pw rc4pw rc4user",
            *(f"addprinc -randkey {service}" for service in SERVICES),
            "modprinc +ok_as_delegate deleg/localhost",
        ]
        for number, name in ETYPES.items():
            commands.append(f"addprinc -randkey -e {name}:normal svc-{number}/localhost")
            commands.append(f"setstr svc-{number}/localhost session_enctypes {name}")
        services = [*SERVICES, *(f"svc-{number}/localhost" for number in ETYPES)]
        commands.extend(
            f"ktadd -norandkey -k {self.service_keytab} {service}" for service in services
        )
        self.kadmin(*commands)
        self.kadmin(
            *trust,
            *(f"addprinc -randkey {service}" for service in SUB_SERVICES),
            *(
                f"ktadd -norandkey -k {self.sub_service_keytab} {service}"
                for service in SUB_SERVICES
            ),
            realm=SUB_REALM,
        )

    def start(self) -> None:
        """Start the KDC (after `stop`)."""
        argv = [self._krb5kdc, "-n", "-r", REALM, "-r", SUB_REALM]
        self._daemon = Daemon(
            argv, env=self.env, log=self.directory / "kdc.out", own_log=self.log, port=self.port
        )

    def stop(self) -> None:
        """Stop the KDC; the database stays."""
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None

    @property
    def config(self) -> Config:
        """The same realms as a purekrb Config."""
        from purekrb import Config

        return Config.from_file(self.krb5_conf)

    def path(self, suffix: str) -> Path:
        """Return a path for a new file."""
        return self.directory / f"{next(self._serial)}-{suffix}"

    def kadmin(self, *commands: str, realm: str = REALM) -> str:
        """Run kadmin commands on the database; raise with kadmin's words if one fails."""
        # A script would go on after a failed command and end with 0, so that its stderr decides.
        script = "".join(f"{command}\n" for command in commands)
        output = run(
            ["/bin/sh", "-c", 'exec "$0" -r "$1" 2>&1', self._kadmin_local, realm],
            env=self.env,
            text=script,
        )
        failures = [line for line in output.splitlines() if " while " in line]
        if failures:
            raise RuntimeError("\n".join(failures))
        return output

    def addprinc(
        self,
        name: str,
        password: str | None = None,
        *,
        etypes: Sequence[int] = (),
        flags: str = "",
        realm: str = REALM,
    ) -> str:
        """Add a principal (with a random key where there is no password) and return its full name.

        `flags` are kadmin's options, for instance "+requires_preauth" or "-maxlife 1min". A service with `etypes`
        also gets session keys of these types.
        """
        keys = f'-e "{",".join(f"{ETYPES[etype]}:normal" for etype in etypes)}"' if etypes else ""
        secret = "-randkey" if password is None else f'-pw "{password}"'
        commands = [f"addprinc {flags} {keys} {secret} {name}"]
        if etypes and password is None:
            commands.append(
                f'setstr {name} session_enctypes "{" ".join(ETYPES[etype] for etype in etypes)}"'
            )
        self.kadmin(*commands, realm=realm)
        return name if "@" in name else f"{name}@{realm}"

    def keytab(self, *principals: str, realm: str = REALM) -> Path:
        """Return the path of a new keytab with the current keys of `principals`."""
        path = self.path("keytab")
        self.kadmin(
            *(f"ktadd -norandkey -k {path} {principal}" for principal in principals), realm=realm
        )
        return path

    def kinit(
        self,
        principal: str = "user",
        password: str | None = None,
        *,
        keytab: Path | None = None,
        options: Sequence[str] = (),
        services: Sequence[str] = (),
    ) -> Path:
        """Return the path of a new ccache of `principal`, made by MIT's kinit, with tickets for `services`.

        The password of a standard user need not be told.
        """
        path = self.path("ccache")
        argv = [self._kinit, "-c", f"FILE:{path}", *options]
        if keytab is not None:
            run([*argv, "-k", "-t", str(keytab), principal], env=self.env)
        else:
            secret = PASSWORDS[principal] if password is None else password
            run([*argv, principal], env=self.env, text=f"{secret}\n")
        if services:
            self.kvno(path, *services)
        return path

    def kvno(self, ccache: Path, *services: str, options: Sequence[str] = ()) -> str:
        """Get tickets for `services` into `ccache` with MIT's kvno; return what it prints."""
        return run([self._kvno, "-c", f"FILE:{ccache}", *options, *services], env=self.env)

    def klist(self, ccache: Path, *options: str) -> str:
        """Return MIT's own listing of a ccache (of a keytab with the option "-k")."""
        return run([self._klist, *options, str(ccache)], env=self.env)
