"""Apache with mod_auth_gssapi, MIT's acceptor in a web server: its workers have a user of their own."""

from __future__ import annotations

import base64
import http.client
import os
import pwd
import shutil
import tempfile
from pathlib import Path

from support.mit import MitRealm
from support.peers import Daemon, find_program, missing_peer, on_free_port

__all__ = ["Apache"]

_MODULES = Path("/usr/lib/apache2/modules")
_CONFIGURATION = """\
ServerRoot {directory}
ServerName localhost
PidFile {directory}/httpd.pid
Listen 127.0.0.1:{port}
{user}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authn_core_module {modules}/mod_authn_core.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule authz_user_module {modules}/mod_authz_user.so
LoadModule auth_gssapi_module {modules}/mod_auth_gssapi.so
{more}
ErrorLog {directory}/error.log
LogLevel info auth_gssapi:debug
DocumentRoot {directory}/htdocs
<Directory {directory}/htdocs>
 AuthType GSSAPI
 AuthName "test"
 GssapiCredStore keytab:{directory}/http.keytab
 GssapiAllowedMech krb5
 Require valid-user
</Directory>
"""


class Apache:
    """A running Apache for HTTP/localhost of the realm. Its workers run as `uid`, `directory` is theirs.

    The replay cache is the default one of this user, in `directory`. `more` are lines of its configuration, in which
    {modules} is where modules are.
    """

    def __init__(self, realm: MitRealm, more: str = "") -> None:
        program = find_program("apache2", "apache2-bin")
        if not (_MODULES / "mod_auth_gssapi.so").exists():
            missing_peer("mod_auth_gssapi", "libapache2-mod-auth-gssapi")
        # Directories of pytest cannot be entered by other users.
        self.directory = Path(tempfile.mkdtemp(prefix="purekrb-apache-"))
        self.uid = os.getuid() or pwd.getpwnam("www-data").pw_uid
        (self.directory / "htdocs").mkdir()
        (self.directory / "htdocs" / "index.html").write_text("hello")
        shutil.copy(realm.service_keytab, self.directory / "http.keytab")
        shutil.copy(realm.krb5_conf, self.directory / "krb5.conf")
        if os.getuid() == 0:
            for path in (self.directory, *self.directory.rglob("*")):
                os.chown(path, self.uid, -1)

        def start(port: int) -> Daemon:
            self.port = port
            user = "User www-data\nGroup www-data" if os.getuid() == 0 else ""
            configuration = self.directory / "httpd.conf"
            configuration.write_text(
                _CONFIGURATION.format(
                    directory=self.directory,
                    port=port,
                    user=user,
                    modules=_MODULES,
                    more=more.format(modules=_MODULES),
                )
            )
            environment = {
                name: value
                for name, value in realm.env.items()
                if not name.startswith("KRB5RCACHE")
            }
            environment["KRB5_CONFIG"] = str(self.directory / "krb5.conf")
            environment["KRB5RCACHEDIR"] = str(self.directory)
            return Daemon(
                [program, "-f", str(configuration), "-DFOREGROUND"],
                env=environment,
                log=self.directory / "out",
                own_log=self.directory / "error.log",
                port=port,
            )

        self._daemon = on_free_port(start)

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.directory / "error.log").read_text()

    def status_for(self, token: bytes) -> int:
        """Return the HTTP status of its answer to a request with this Negotiate token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        value = f"Negotiate {base64.b64encode(token).decode()}"
        connection.request(
            "GET", "/index.html", headers={"Host": "localhost", "Authorization": value}
        )
        status = connection.getresponse().status
        connection.close()
        return status

    def stop(self) -> None:
        """Stop it and remove its files."""
        self._daemon.stop()
        shutil.rmtree(self.directory)
