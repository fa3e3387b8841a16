"""Tokens of SoftHSM: a PKCS#11 module whose cards are files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from support.peers import find_program
from support.pki import Issued

PIN = "canary-pin-7731"
SO_PIN = "canary-so-9902"


def module() -> str:
    """Return the path of SoftHSM's module."""
    find_program("softhsm2-util", "softhsm2")
    places = [
        *Path("/usr/lib").glob("*/softhsm/libsofthsm2.so"),
        *map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so")),
        *Path("/opt/homebrew/lib/softhsm").glob("libsofthsm2.so"),
    ]
    return str(next(path for path in places if path.exists()))


class SoftHsm:
    """Tokens in a directory. The module reads its configuration once in a process."""

    def __init__(self, directory: Path) -> None:
        self.module = module()
        (directory / "tokens").mkdir(parents=True)
        conf = directory / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {directory}/tokens\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(conf)}

    def close(self) -> None:
        """Let the module be loaded anew, with another configuration."""
        import pkcs11

        pkcs11.unload(self.module)

    def new_token(self, label: str) -> None:
        """Make an empty token."""
        command = ["softhsm2-util", "--init-token", "--free", "--label", label]
        subprocess.run(
            [*command, "--pin", PIN, "--so-pin", SO_PIN],
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
        )

    def put(self, token: str, issued: Issued, *, label: str, id_: bytes, key: Any = None) -> None:
        """Put a certificate and its private key (or another `key`; False: none) on a token."""
        import pkcs11
        from cryptography.hazmat.primitives import serialization
        from pkcs11.util.ec import decode_ec_private_key
        from pkcs11.util.rsa import decode_rsa_private_key

        attribute, kinds = pkcs11.Attribute, pkcs11.ObjectClass
        common = {attribute.TOKEN: True, attribute.LABEL: label, attribute.ID: id_}
        with (
            pkcs11.lib(self.module)
            .get_token(token_label=token)
            .open(rw=True, user_pin=PIN) as session
        ):
            session.create_object(
                {
                    **common,
                    attribute.CLASS: kinds.CERTIFICATE,
                    attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
                    attribute.SUBJECT: issued.certificate.subject.public_bytes(),
                    attribute.VALUE: issued.der,
                    attribute.PRIVATE: False,
                }
            )
            private = issued.key if key is None else key
            if not private:
                return
            der = private.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
            is_rsa = isinstance(private, rsa.RSAPrivateKey)
            fields = decode_rsa_private_key(der) if is_rsa else decode_ec_private_key(der)
            session.create_object({**fields, **common, attribute.SENSITIVE: True})
