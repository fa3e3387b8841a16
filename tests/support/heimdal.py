"""Heimdal as a peer: its GSS-API, through heimdal/gss_peer.c, and its KDC with the realm HEIM.TEST.

`tools/install-peers` unpacks the KDC into .lab/heimdal, since Debian's package of it conflicts with MIT's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from support.gss_peer import GssPeer
from support.peers import Daemon, find_program, missing_peer, on_free_port, run

if TYPE_CHECKING:
    from purekrb import Config

__all__ = ["UNPACKED", "HeimdalRealm", "start_heimdal_peer"]

_SOURCE = Path(__file__).parent / "heimdal" / "gss_peer.c"
UNPACKED = Path(__file__).parents[2] / ".lab" / "heimdal" / "usr"


def start_heimdal_peer(directory: Path, krb5_conf: Path) -> GssPeer:
    """Return a running process on Heimdal's library that obeys gss_peer.py's commands."""
    krb5_config, gcc = (
        find_program("krb5-config.heimdal", "heimdal-multidev"),
        find_program("gcc", "gcc"),
    )
    flags = [
        flag
        for what in ("--cflags", "--libs")
        for flag in run([krb5_config, what, "gssapi", "krb5"], env=os.environ).split()
    ]
    program = directory / "gss_peer"
    run([gcc, "-O1", "-o", str(program), str(_SOURCE), *flags], env=os.environ)
    env = {**os.environ, "KRB5_CONFIG": str(krb5_conf)}
    return GssPeer("Heimdal", [str(program)], env=env, log=directory / "heimdal.log")


class HeimdalRealm:
    """HEIM.TEST served by Heimdal's kdc, with users and gsvc/localhost, whose keys `service_keytab` holds.

    Passwords: `user` has "userpw", `pre` "prepw", `aes128` "aes128pw". `pre` and `aes128`, which has a key of AES128
    alone, must pre-authenticate. `krb5_conf` suits Heimdal and MIT.
    """

    realm = "HEIM.TEST"

    def __init__(self, directory: Path) -> None:
        kdc = UNPACKED / "lib" / "heimdal-servers" / "kdc"
        if not kdc.exists():
            missing_peer("Heimdal's kdc", "heimdal-kdc")
        self.directory = directory
        self.krb5_conf = directory / "krb5.conf"
        self.service_keytab = directory / "service.keytab"
        self._write_conf(88)
        (directory / "kadmind.acl").touch()
        self.env = {**os.environ, "KRB5_CONFIG": str(self.krb5_conf)}
        run(
            [str(UNPACKED / "sbin" / "kstash"), "--random-key", f"--key-file={directory}/m-key"],
            env=self.env,
        )
        script = [
            f"init --realm-max-ticket-life=1day --realm-max-renewable-life=7days {self.realm}",
            "add --use-defaults --password=userpw user",
            "add --use-defaults --password=prepw --attributes=requires-pre-auth pre",
            "add --use-defaults --password=aes128pw --attributes=requires-pre-auth aes128",
            "del_enctype aes128 aes256-cts-hmac-sha1-96",
            "add --use-defaults --random-key gsvc/localhost",
            f"ext_keytab -k {self.service_keytab} gsvc/localhost",
        ]
        self.kadmin(*script)

        def start(port: int) -> Daemon:
            self.port = port
            self._write_conf(port)
            return Daemon(
                [
                    str(kdc),
                    f"--config-file={self.krb5_conf}",
                    "--addresses=127.0.0.1",
                    f"--ports={port}",
                ],
                env=self.env,
                log=directory / "kdc.out",
                own_log=directory / "kdc.log",
                port=port,
            )

        self._daemon = on_free_port(start)

    def _write_conf(self, port: int) -> None:
        self.krb5_conf.write_text(f"""\
[libdefaults]
 default_realm = {self.realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
[realms]
 {self.realm} = {{
  kdc = 127.0.0.1:{port}
 }}
[domain_realm]
 localhost = {self.realm}
[kdc]
 database = {{
  realm = {self.realm}
  dbname = {self.directory}/heimdal
  mkey_file = {self.directory}/m-key
  acl_file = {self.directory}/kadmind.acl
  log_file = {self.directory}/hdb.log
 }}
 enable-pkinit = no
 tgt-use-strongest-session-key = true
 svc-use-strongest-session-key = true
[kadmin]
 default_keys = aes256-cts-hmac-sha1-96:pw-salt aes128-cts-hmac-sha1-96:pw-salt
[logging]
 kdc = FILE:{self.directory}/kdc.log
""")

    def kadmin(self, *commands: str) -> str:
        """Run kadmin commands on the database."""
        kadmin = [str(UNPACKED / "bin" / "kadmin.heimdal"), "-l", "-c", str(self.krb5_conf)]
        return run(kadmin, env=self.env, text="".join(f"{line}\n" for line in commands))

    def stop(self) -> None:
        """Stop the KDC."""
        self._daemon.stop()

    @property
    def config(self) -> Config:
        """The same realm as a purekrb Config."""
        from purekrb import Config

        return Config.from_file(self.krb5_conf)
