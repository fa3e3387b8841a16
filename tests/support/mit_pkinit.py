"""A realm of MIT's KDC with PKINIT."""

from __future__ import annotations

from functools import cached_property

from purekrb import Config, Credential
from support.mit import REALM, MitRealm
from support.pkinit_files import PkinitFiles

__all__ = ["PkinitRealm"]


class PkinitRealm(MitRealm):
    """A realm whose KDC has PKINIT, also for anonymous clients; `kdc_conf` adds relations of it."""

    kdc_conf: tuple[str, ...] = ()

    @cached_property
    def files(self) -> PkinitFiles:
        return PkinitFiles(self.directory, REALM)

    def _create(self) -> None:
        super()._create()
        self.kadmin("addprinc -randkey WELLKNOWN/ANONYMOUS")

    def credential(self, user: str = "pre", *, elliptic: bool = False) -> Credential:
        """Return the credential of a user's new certificate."""
        return self.files.credential(user, elliptic=elliptic)

    def _listen_on(self, port: int) -> None:
        super()._listen_on(port)
        certificate, key = self.files.kdc
        anchors = f"  pkinit_anchors = FILE:{self.files.anchors}\n"
        identity = f"  pkinit_identity = FILE:{certificate},{key}\n"
        more = "".join(f"  {line}\n" for line in self.kdc_conf)
        text = self._kdc_conf.read_text()
        begin = f" {REALM} = {{\n"
        self._kdc_conf.write_text(text.replace(begin, begin + anchors + identity + more, 1))
        text = self.krb5_conf.read_text()
        self.krb5_conf.write_text(text.replace(begin, begin + anchors, 1))

    def restart(self, *kdc_conf: str) -> None:
        """Start the KDC anew, with more relations."""
        self.stop()
        self.kdc_conf = kdc_conf
        self._listen_on(self.port)
        self.start()

    def config_with(self, *relations: str) -> Config:
        """Return the clients' configuration with more relations of the realm."""
        path = self.path("krb5.conf")
        begin = f" {REALM} = {{\n"
        lines = "".join(f"  {line}\n" for line in relations)
        path.write_text(self.krb5_conf.read_text().replace(begin, begin + lines, 1))
        return Config.from_file(path)
