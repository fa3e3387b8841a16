"""The servers that change passwords of MIT's realm and Heimdal's: kadmind and kpasswdd, on free ports of loopback."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from support.heimdal import UNPACKED, HeimdalRealm
from support.mit import MitRealm
from support.peers import Daemon, find_program, free_port, missing_peer, on_free_port

if TYPE_CHECKING:
    from purekrb import Config

__all__ = ["HeimdalKpasswdd", "MitKadmind", "with_server"]


class MitKadmind:
    """kadmind for MIT.TEST, which the principal boss/admin (password "bosspw") may tell to do everything.

    The policy "strict" demands 8 characters of 2 kinds, and remembers 3 passwords.
    """

    def __init__(self, realm: MitRealm) -> None:
        self.realm = realm
        program = find_program("kadmind", "krb5-admin-server")
        directory = realm.path("kadmind")
        directory.mkdir()
        (directory / "kadm5.acl").write_text(f"boss/admin@{realm.realm} *\n")
        realm.kadmin(
            "addprinc -pw bosspw boss/admin",
            "addpol -minlength 8 -minclasses 2 -history 3 strict",
        )

        def start(port: int) -> Daemon:
            self.port = port
            profile = directory / "kdc.conf"
            text = (realm.directory / "kdc.conf").read_text()
            profile.write_text(
                text.replace(
                    f" {realm.realm} = {{\n",
                    f" {realm.realm} = {{\n"
                    f"  acl_file = {directory}/kadm5.acl\n"
                    f"  kadmind_listen = 127.0.0.1:{free_port()}\n"
                    f"  kpasswd_listen = 127.0.0.1:{port},[::1]:{port}\n",
                    1,
                )
            )
            return Daemon(
                [program, "-nofork", "-r", realm.realm],
                env={**realm.env, "KRB5_KDC_PROFILE": str(profile)},
                log=directory / "out",
                port=port,
            )

        self._daemon = on_free_port(start)

    def stop(self) -> None:
        """Stop it."""
        self._daemon.stop()

    def config(self, server: str) -> Config:
        """Return the configuration with this server, such as "udp/127.0.0.1"; the port is added."""
        return with_server(self.realm.config, self.realm.realm, f"{server}:{self.port}")


class HeimdalKpasswdd:
    """kpasswdd for HEIM.TEST, over UDP alone. boss/admin (password "bosspw") may set passwords."""

    def __init__(self, realm: HeimdalRealm) -> None:
        self.realm = realm
        program = UNPACKED / "lib" / "heimdal-servers" / "kpasswdd"
        if not program.exists():
            missing_peer("Heimdal's kpasswdd", "heimdal-kdc")
        (realm.directory / "kadmind.acl").write_text(f"boss/admin@{realm.realm} all\n")
        realm.kadmin("add --use-defaults --password=bosspw boss/admin")
        self.port = free_port()
        self._daemon = Daemon(
            [
                str(program),
                f"--config-file={realm.krb5_conf}",
                f"--realm={realm.realm}",
                "--addresses=127.0.0.1",
                f"--port={self.port}",
            ],
            env=realm.env,
            log=realm.directory / "kpasswdd.out",
        )

    def stop(self) -> None:
        """Stop it."""
        self._daemon.stop()

    @property
    def config(self) -> Config:
        """The configuration with this server."""
        return with_server(self.realm.config, self.realm.realm, f"udp/127.0.0.1:{self.port}")


def with_server(config: Config, realm: str, server: str) -> Config:
    """Return `config` with the server that changes passwords."""
    from purekrb.krb5conf.config import KdcAddress

    changed = replace(config.realm(realm), kpasswd_server=(KdcAddress.parse(server, 464),))
    return replace(config, realms={**config.realms, realm: changed})
