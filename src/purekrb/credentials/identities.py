"""Where a client's certificate is, in MIT's words: FILE:, DIR:, PKCS12:, PKCS11: and ENV:.

Source: MIT krb5.conf(5), "Specifying PKINIT identity information".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509

from purekrb.credentials import files
from purekrb.credentials.cert_match import choose
from purekrb.credentials.certificate import Ask, ClientCertificate
from purekrb.errors import CertificateError
from purekrb.log import Log
from purekrb.names import Principal

__all__ = ["first_identity", "open_identity"]

log = Log("purekrb.credentials")

#: The module that is used if an identity names none, as MIT does.
_MODULE = "opensc-pkcs11.so"
_KINDS = ("FILE", "DIR", "PKCS12", "PKCS11", "ENV")
_MAX_FILES = 256


def open_identity(
    text: str,
    *,
    ask: Ask | None = None,
    principal: Principal | None = None,
    rules: Sequence[str] = (),
) -> ClientCertificate:
    """Return the certificate that `text` names, with its key.

    `ask` gets a PIN or a password, if one is needed. If there are several certificates, the `rules`
    (pkinit_cert_match) and the `principal` choose. Raises CertificateError.
    """
    kind, residual = files.split_type(text)
    if kind not in _KINDS:
        raise CertificateError(
            f"{text!r} is of a kind of certificate that is not known: write one of "
            + ", ".join(f"{known}:..." for known in _KINDS)
        )
    if kind == "ENV":
        value = os.environ.get(residual, "")
        if not value or files.split_type(value)[0] == "ENV":
            raise CertificateError(
                f"ENV:{residual} names no certificate: set the variable {residual} to a name such "
                "as FILE:/path"
            )
        return open_identity(value, ask=ask, principal=principal, rules=rules)
    if kind == "PKCS11":
        return _on_token(residual, ask, principal, rules)
    if kind == "DIR":
        return _in_directory(residual, ask, principal, rules)
    if kind == "PKCS12":
        return ClientCertificate.from_pkcs12(residual, ask)
    # The path of a certificate may have a comma: then the key's comes after the last one.
    certificate, comma, key = residual.rpartition(",")
    if not comma:
        certificate, key = residual, ""
    return ClientCertificate.from_files(certificate, key or None, password=ask)


def first_identity(
    texts: Sequence[str],
    *,
    ask: Ask | None = None,
    principal: Principal | None = None,
    rules: Sequence[str] = (),
) -> ClientCertificate:
    """Return the certificate of the first identity that can be opened, as `open_identity`.

    Raises the error of the last one.
    """
    failure = CertificateError("no certificate is named: write one, such as FILE:/path")
    for text in texts:
        try:
            return open_identity(text, ask=ask, principal=principal, rules=rules)
        except CertificateError as error:
            log.debug("the identity %s is passed over: %s", text, error)
            failure = error
    raise failure


class _Pair(NamedTuple):
    """A certificate in a directory: its files are called NAME.crt and NAME.key."""

    certificate: x509.Certificate
    found: ClientCertificate
    path: str

    def __str__(self) -> str:
        return self.path


def _in_directory(
    directory: str, ask: Ask | None, principal: Principal | None, rules: Sequence[str]
) -> ClientCertificate:
    names = sorted(files.names_in(directory, what="directory of certificates"))[:_MAX_FILES]
    pairs = []
    for name in names:
        stem, dot, ending = name.rpartition(".")
        if not dot or ending != "crt" or f"{stem}.key" not in names:
            continue
        paths = os.path.join(directory, name), os.path.join(directory, f"{stem}.key")
        try:
            found = open_identity(f"FILE:{paths[0]},{paths[1]}", ask=ask)
            pairs.append(_Pair(found.certificate, found, paths[0]))
        except CertificateError as error:
            log.debug("passed over: %s", error)
    if not pairs:
        raise CertificateError(
            f"the directory {directory} holds no certificate with its key: their files must be "
            "called NAME.crt and NAME.key"
        )
    return choose(pairs, principal, rules, directory).found


def _on_token(
    residual: str, ask: Ask | None, principal: Principal | None, rules: Sequence[str]
) -> ClientCertificate:
    from purekrb.credentials.smartcard import from_token

    values: dict[str, str] = {}
    for part in residual.split(":"):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = "module_name", part
        if name not in ("module_name", "slotid", "token", "certid", "certlabel"):
            raise CertificateError(
                f"{name!r} in PKCS11:{residual} is not known: write module_name, slotid, token, "
                "certid or certlabel"
            )
        values[name] = value
    try:
        slot = int(values["slotid"], 0) if values.get("slotid") else None
        certid = bytes.fromhex(values["certid"]) if values.get("certid") else None
    except ValueError:
        raise CertificateError(
            f"PKCS11:{residual} cannot be read: slotid is a number, certid is hexadecimal"
        ) from None
    return from_token(
        values.get("module_name") or _MODULE,
        token=values.get("token") or None,
        slot=slot,
        label=values.get("certlabel") or None,
        certid=certid,
        pin=ask,
        principal=principal,
        rules=rules,
    )
