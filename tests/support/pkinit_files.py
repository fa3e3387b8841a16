"""Files of certificates for real KDCs and their clients, by one authority, valid now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from purekrb import Credential
from support.pki import KP_CLIENT, KP_KDC, Issued, authority, key_usage, rsa_key, san_of

__all__ = ["PkinitFiles"]

_DAY = timedelta(days=1)


class PkinitFiles:
    """The certificates of `realm` in `directory`: `anchors`, that of the KDC, and those of clients.

    With `hosts`, the KDC's names those alone. What is there already is used.
    """

    def __init__(self, directory: Path, realm: str, *hosts: str) -> None:
        self.directory, self.realm = directory, realm
        now = datetime.now(timezone.utc)
        self._dates = {"begins": now - _DAY, "ends": now + _DAY}
        self.anchors, own_key = directory / "ca.pem", directory / "ca.key"
        self.kdc = directory / "kdc.pem", directory / "kdc.key"
        if own_key.exists():  # another process has made them
            certificate = x509.load_pem_x509_certificate(self.anchors.read_bytes())
            key = serialization.load_pem_private_key(own_key.read_bytes(), None)
            self.authority = Issued(certificate, key)
            return
        self.authority = authority("CA", key=rsa_key(2), **self._dates)  # Heimdal has no ECDSA
        self.anchors.write_bytes(self.authority.pem)
        own_key.write_bytes(self.authority.key_pem())
        names = [x509.DNSName(host) for host in hosts] or [san_of(f"krbtgt/{realm}@{realm}")]
        self.issue("kdc", names, [KP_KDC], rsa_key())

    def issue(
        self,
        name: str,
        names: Sequence[x509.GeneralName],
        purposes: Sequence[str],
        key: Any,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        **dates: datetime,
    ) -> tuple[Path, Path]:
        """Return the files of a new certificate and of its key; `begins` and `ends` are its dates."""
        made = self.authority.issue(
            name,
            *names,
            purposes=purposes,
            key=key,
            extensions=[
                (key_usage("digital_signature"), True),  # MIT's KDC wants it
                *extensions,
            ],
            **{**self._dates, **dates},
        )
        paths = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        paths[0].write_bytes(made.pem)
        paths[1].write_bytes(made.key_pem())
        paths[1].chmod(0o600)
        return paths

    def credential(
        self,
        user: str = "pre",
        *,
        elliptic: bool = False,
        names: Sequence[x509.GeneralName] = (),
        purposes: Sequence[str] = (KP_CLIENT,),
    ) -> Credential:
        """Return the credential of a user's new certificate; by default, it names the principal."""
        paths = self.user(user, elliptic=elliptic, names=names, purposes=purposes)
        return Credential.from_certificate(None if names else f"{user}@{self.realm}", *paths)

    def user(
        self,
        user: str,
        *,
        elliptic: bool = False,
        names: Sequence[x509.GeneralName] = (),
        purposes: Sequence[str] = (KP_CLIENT,),
    ) -> tuple[Path, Path]:
        """Return the files of a user's new certificate, and of its key; RSA keys have 2048 bits."""
        key = ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa_key(1)
        return self.issue(user, names or [san_of(f"{user}@{self.realm}")], purposes, key)
