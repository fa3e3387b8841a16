"""The relations of PKINIT in krb5.conf. Source: MIT krb5.conf(5), "PKINIT options".

A realm's own relations take precedence over those of [libdefaults]; the lists of both are not
added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from purekrb.errors import ConfigError
from purekrb.krb5conf.config import Config, parse_boolean

__all__ = ["EkuChecking", "PkinitOptions", "pkinit_options"]

#: Which purpose a KDC's certificate must have: that of a KDC, or also that of a TLS server.
EkuChecking = Literal["kpKDC", "kpServerAuth", "none"]

#: The sizes of finite-field groups that are as strong as a curve. Source: NIST SP 800-57 5.6.1.1.
_CURVES = {"P-256": 3072, "P-384": 7680, "P-521": 15360}


@dataclass(frozen=True, slots=True)
class PkinitOptions:
    """What krb5.conf says of certificates in a realm: the relations without `pkinit_`.

    `allow_sha1` is not MIT's: it takes a KDC's SHA-1 signature of its answer. `dh_min_bits` is the
    least size of a Diffie-Hellman group; a curve counts as the finite-field group that is as strong.
    """

    anchors: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    revoke: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    cert_match: tuple[str, ...] = ()
    kdc_hostname: tuple[str, ...] = ()
    eku_checking: EkuChecking = "kpKDC"
    require_crl_checking: bool = False
    dh_min_bits: int = 2048
    allow_sha1: bool = False


def pkinit_options(config: Config, realm: str) -> PkinitOptions:
    """Return what `config` says of certificates in `realm`.

    Raises ConfigError for a value that cannot be read: to pass over it would weaken the checks.
    """
    options = config.realm(realm).options
    fields: dict[str, Any] = {}
    for name in PkinitOptions.__dataclass_fields__:
        relation = f"pkinit_{name}"
        values = options.get(relation) or config.pkinit.get(relation)
        if not values:
            continue
        values = (values,) if isinstance(values, str) else tuple(values)
        if name in _SINGLE:
            try:
                fields[name] = _SINGLE[name](values[0].strip())
            except ConfigError as error:
                raise ConfigError(f"{relation} of {config.source}: {error}") from None
        else:
            fields[name] = values
    return PkinitOptions(**fields)


def _eku_checking(text: str) -> EkuChecking:
    found: Sequence[EkuChecking] = [
        known for known in _EKU_CHECKING if known.lower() == text.lower()
    ]
    if not found:
        raise ConfigError(f"{text!r} is no purpose of a certificate: write kpKDC or kpServerAuth")
    return found[0]


_EKU_CHECKING: tuple[EkuChecking, ...] = ("kpKDC", "kpServerAuth", "none")


def _group_size(text: str) -> int:
    if text in _CURVES:
        return _CURVES[text]
    if not (text.isascii() and text.isdigit() and 1024 <= int(text[:9]) <= 15360):
        raise ConfigError(
            f"{text!r} is not the size of a Diffie-Hellman group: write 2048, 4096, or P-256, "
            "P-384, P-521"
        )
    return int(text)


_SINGLE = {
    "eku_checking": _eku_checking,
    "require_crl_checking": parse_boolean,
    "dh_min_bits": _group_size,
    "allow_sha1": parse_boolean,
}
