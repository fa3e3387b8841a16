"""OpenLDAP's server on loopback, which logs in by SASL GSSAPI."""

from __future__ import annotations

from pathlib import Path

from support.mit import MitRealm
from support.peers import Daemon, find_program, on_free_port

__all__ = ["Slapd"]

_CONF = """\
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/pid
sasl-host localhost
sasl-realm {realm}
authz-regexp uid=([^,]+),cn={domain},cn=gssapi,cn=auth cn=$1,dc=mit,dc=test
database mdb
suffix dc=mit,dc=test
rootdn cn=user,dc=mit,dc=test
directory {directory}/db
"""


class Slapd:
    """A server in `directory`; `url` is its own. The realm's user is its manager."""

    def __init__(self, realm: MitRealm, directory: Path) -> None:
        program = find_program("slapd", "slapd")
        (directory / "db").mkdir()
        realm.addprinc("ldap/localhost")
        keytab = realm.keytab("ldap/localhost")
        conf = directory / "slapd.conf"
        conf.write_text(
            _CONF.format(directory=directory, realm=realm.realm, domain=realm.realm.lower())
        )

        def start(port: int) -> tuple[str, Daemon]:
            url = f"ldap://127.0.0.1:{port}"
            argv = [program, "-d", "0", "-f", str(conf), "-h", url]
            env = {**realm.env, "KRB5_KTNAME": str(keytab)}
            daemon = Daemon(argv, env=env, log=directory / "log", port=port)
            return url.replace("127.0.0.1", "localhost"), daemon

        self.url, self._daemon = on_free_port(start)

    def stop(self) -> None:
        """Stop the server."""
        self._daemon.stop()
