"""A realm of MIT's KDC with PKINIT, and an authority that issues certificates for it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from purekrb import Config, Credential
from support.mit import REALM, MitRealm
from support.pki import KP_CLIENT, KP_KDC, Issued, authority, key_usage, rsa_key, san_of

__all__ = ["PkinitRealm"]

_DAY = timedelta(days=1)


class PkinitRealm(MitRealm):
    """A realm whose KDC has PKINIT, also for anonymous clients; `kdc_conf` adds relations of it."""

    kdc_conf: tuple[str, ...] = ()

    def _create(self) -> None:
        super()._create()
        self.kadmin("addprinc -randkey WELLKNOWN/ANONYMOUS")

    @cached_property
    def authority(self) -> Issued:
        return authority("CA", **_dates())

    def issue(self, name: str, principal: str, purpose: str, key: Any) -> tuple[Path, Path]:
        """Return the files of a new certificate and of its key."""
        made = self.authority.issue(
            name,
            san_of(principal),
            purposes=[purpose],
            key=key,
            extensions=[(key_usage("digital_signature"), True)],  # MIT's KDC wants it
            **_dates(),
        )
        paths = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        paths[0].write_bytes(made.pem)
        paths[1].write_bytes(made.key_pem())
        paths[1].chmod(0o600)
        return paths

    def credential(self, user: str = "pre", *, elliptic: bool = False) -> Credential:
        """Return the credential of a user's new certificate."""
        key = ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa_key(1)
        paths = self.issue(user, f"{user}@{REALM}", KP_CLIENT, key)
        return Credential.from_certificate(f"{user}@{REALM}", *paths)

    @cached_property
    def anchors(self) -> Path:
        path = self.directory / "ca.pem"
        path.write_bytes(self.authority.pem)
        return path

    def _listen_on(self, port: int) -> None:
        super()._listen_on(port)
        if not (self.directory / "kdc.pem").exists():
            self.issue("kdc", f"krbtgt/{REALM}@{REALM}", KP_KDC, rsa_key())
        anchors = f"  pkinit_anchors = FILE:{self.anchors}\n"
        identity = f"  pkinit_identity = FILE:{self.directory}/kdc.pem,{self.directory}/kdc.key\n"
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


def _dates() -> dict[str, datetime]:
    now = datetime.now(timezone.utc)
    return {"begins": now - _DAY, "ends": now + _DAY}
