"""Which of several certificates a client uses. Source: MIT krb5.conf(5), `pkinit_cert_match`.

Rules come first. Without one, a certificate counts that names the principal; otherwise one for
logging in; otherwise any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from cryptography import x509

from purekrb.constants import NameType
from purekrb.credentials.x509 import (
    host_names,
    key_usages,
    principal_names,
    purposes,
)
from purekrb.errors import CertificateError, ConfigError
from purekrb.krb5conf.posix_ere import Steps, compiled
from purekrb.names import Principal

__all__ = ["Candidate", "choose", "parse_rule"]

#: The names of purposes in rules, and their OIDs.
_PURPOSES = {
    "pkinit": "1.3.6.1.5.2.3.4",
    "msScLogin": "1.3.6.1.4.1.311.20.2.2",
    "clientAuth": "1.3.6.1.5.5.7.3.2",
    "emailProtection": "1.3.6.1.5.5.7.3.4",
}
_USAGES = ("digitalSignature", "keyEncipherment")
_COMPONENT = re.compile(r"<(SUBJECT|ISSUER|SAN|EKU|KU)>")
_MAX_RULE = 4096
#: The purposes of certificates for logging in, the best first.
_FOR_LOGIN = (_PURPOSES["pkinit"], _PURPOSES["msScLogin"], _PURPOSES["clientAuth"])

_Test = Callable[[x509.Certificate], bool]


class Candidate(Protocol):
    """Something with a certificate; its text is for people."""

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate."""


C = TypeVar("C", bound=Candidate)


class _Rule(NamedTuple):
    all_must_hold: bool
    tests: tuple[_Test, ...]

    def holds(self, certificate: x509.Certificate) -> bool:
        return (all if self.all_must_hold else any)(test(certificate) for test in self.tests)


def parse_rule(text: str) -> _Rule:
    """Return the rule in `text`. Raises ConfigError."""
    stripped = text.strip()
    all_must_hold = not stripped.startswith("||")
    body = stripped[2:] if stripped.startswith(("||", "&&")) else stripped
    parts = _COMPONENT.split(body)
    if len(text) > _MAX_RULE or len(parts) < 3 or parts[0].strip():
        raise ConfigError(
            f"{text[:_MAX_RULE]!r} is no rule of pkinit_cert_match: write components such as "
            "<SUBJECT>expression or <EKU>clientAuth, and && or || before all of them"
        )
    tests = tuple(_test(kind, value) for kind, value in zip(parts[1::2], parts[2::2], strict=True))
    return _Rule(all_must_hold, tests)


def _test(kind: str, value: str) -> _Test:
    if kind in ("EKU", "KU"):
        names = value.replace(",", " ").split()
        known: Iterable[str] = _PURPOSES if kind == "EKU" else _USAGES
        if not names or not set(names) <= set(known):
            raise ConfigError(f"<{kind}>{value} names what is unknown: write {', '.join(known)}")
        if kind == "KU":
            return lambda found: set(names) <= set(key_usages(found))
        wanted = {_PURPOSES[name] for name in names}
        return lambda found: wanted <= set(purposes(found) or ())
    expression = compiled(value.strip())
    texts: dict[str, Callable[[x509.Certificate], Sequence[str]]] = {
        "SUBJECT": lambda found: [found.subject.rfc4514_string()],
        "ISSUER": lambda found: [found.issuer.rfc4514_string()],
        "SAN": lambda found: [*map(_plain, principal_names(found)), *host_names(found)],
    }
    return lambda found: any(expression.search(text, Steps()) for text in texts[kind](found))


def _plain(principal: Principal) -> str:
    """Return the text form that rules are matched to: a user principal name is not quoted."""
    enterprise = principal.name_type == NameType.ENTERPRISE and not principal.realm
    return principal.components[0] if enterprise else str(principal)


def choose(
    candidates: Sequence[C], principal: Principal | None, rules: Sequence[str], where: str
) -> C:
    """Return the one candidate to use. Raises CertificateError if none or several are left."""
    for rule in map(parse_rule, rules):
        found = [one for one in candidates if rule.holds(one.certificate)]
        if len(found) == 1:
            return found[0]
    if rules:
        raise CertificateError(
            f"no rule of pkinit_cert_match fits exactly one certificate of {where}: it has "
            f"{_listed(candidates)}"
        )
    left = list(candidates)
    for test in (
        lambda one: principal is not None and _names(one.certificate, principal),
        *(_is_for(purpose) for purpose in _FOR_LOGIN),
    ):
        fitting = [one for one in left if test(one)]
        if len(fitting) == 1:
            return fitting[0]
        left = fitting or left
    if len(left) == 1:
        return left[0]
    if not left:
        raise CertificateError(f"{where} holds no certificate whose private key is there as well")
    raise CertificateError(
        f"{where} holds several certificates that fit: {_listed(left)}; name one of them by its "
        "label or id, or write a rule (pkinit_cert_match)"
    )


def _is_for(purpose: str) -> Callable[[Candidate], bool]:
    return lambda one: purpose in (purposes(one.certificate) or ())


def _names(certificate: x509.Certificate, principal: Principal) -> bool:
    """Return whether the certificate names the principal, by a user principal name or its own."""
    upn = principal.components[0] if principal.name_type == NameType.ENTERPRISE else None
    plain = f"{'/'.join(principal.components)}@{principal.realm}"
    for name in principal_names(certificate):
        if name == principal:
            return True
        if name.name_type == NameType.ENTERPRISE:
            text = name.components[0].casefold()
            if text == plain.casefold() or (upn is not None and text == upn.casefold()):
                return True
    return False


def _listed(candidates: Sequence[Candidate]) -> str:
    names = [str(one) for one in candidates[:8]]
    return ", ".join(names) + (", ..." if len(candidates) > len(names) else "") or "none"
