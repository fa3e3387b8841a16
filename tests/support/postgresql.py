"""PostgreSQL on loopback that logs in by Kerberos, as a child process of the user postgres."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from support.mit import MitRealm
from support.peers import Daemon, missing_peer, on_free_port, run

__all__ = ["Postgresql"]

_CONF = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{directory}'
krb_server_keyfile = '{directory}/keytab'
fsync = off
"""
_HBA = """\
local all all trust
hostnogssenc all all 127.0.0.1/32 gss include_realm=0 krb_realm={realm}
"""


class Postgresql:
    """A new database server; `port` is its own, and the realm's user has a role.

    Its directory is not one of pytest's, which are for the user alone that runs pytest.
    """

    def __init__(self, realm: MitRealm) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not programs or os.geteuid() != 0:
            missing_peer("PostgreSQL's server, as root,", "postgresql")
        self._programs = programs[-1]
        self.directory = directory = Path(tempfile.mkdtemp(prefix="purekrb-postgresql-"))
        realm.addprinc("postgres/localhost")
        keytab = directory / "keytab"
        keytab.write_bytes(realm.keytab("postgres/localhost").read_bytes())
        keytab.chmod(0o600)
        owner = pwd.getpwnam("postgres")
        for path in (directory, keytab):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        self._env = {
            **realm.env,
            "KRB5_CONFIG": str(self._readable(realm.krb5_conf)),
            "KRB5RCACHENAME": f"file2:{directory}/rcache",
        }
        data = directory / "data"
        run(
            [*self._as_postgres("initdb"), "-D", f"{data}", "-A", "trust", "--no-sync"],
            env=self._env,
        )
        (data / "pg_hba.conf").write_text(_HBA.format(realm=realm.realm))
        self.port, self._daemon = on_free_port(self._start)
        self._wait()
        psql = [*self._as_postgres("psql"), "-h", str(directory), "-p", str(self.port)]
        run([*psql, "-c", 'CREATE ROLE "user" LOGIN', "postgres"], env=self._env)

    def _readable(self, path: Path) -> Path:
        copy = self.directory / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o644)
        return copy

    def _wait(self) -> None:
        """Wait until the server takes logins; it listens before that."""
        ready = [*self._as_postgres("pg_isready"), "-q", "-h", str(self.directory)]
        while subprocess.run([*ready, "-p", str(self.port)], check=False).returncode != 0:
            time.sleep(0.05)

    def _as_postgres(self, program: str) -> list[str]:
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        return [*user, str(self._programs / program)]

    def _start(self, port: int) -> tuple[int, Daemon]:
        data = self.directory / "data"
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(_CONF.format(port=port, directory=self.directory))
        argv = [*self._as_postgres("postgres"), "-D", str(data)]
        return port, Daemon(argv, env=self._env, log=self.directory / "log", port=port)

    def stop(self) -> None:
        """Stop the server, and remove its files."""
        self._daemon.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
