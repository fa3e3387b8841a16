"""Steps on this machine: versions and options, krb5.conf, which ccache and keytab are used."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import metadata

from purekrb.credentials import defaults
from purekrb.credentials.ccache import CCache
from purekrb.credentials.keytab import Keytab
from purekrb.doctor.examination import Examination
from purekrb.doctor.report import Status
from purekrb.errors import KerberosError
from purekrb.keys import etype_names
from purekrb.krb5conf.pkinit import pkinit_options
from purekrb.system import now

__all__ = ["certificates", "configuration", "places", "versions"]

_PACKAGES = ("purekrb", "cryptography", "impacket", "pyasn1", "ldap3", "dnspython")
_VARIABLES = ("KRB5_CONFIG", "KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME", "KRB5_TRACE")
#: The encryption type that purekrb does not use unless it is told to.
_RC4 = 23


def versions(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """Versions of what runs here, and the options in force."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "ok", f"{python}; {', '.join(found)}", ""
    config = exam.config
    options = (
        f"encryption types: {etype_names(config.permitted_etypes)}; "
        f"clock skew: {config.clockskew:g} s; KDCs by DNS: {_yes(config.dns_lookup_kdc)}"
    )
    set_here = [f"{name}={os.environ[name]}" for name in _VARIABLES if os.environ.get(name)]
    yield "ok", "; ".join([options, *set_here]), ""
    if _RC4 in config.permitted_etypes:
        yield (
            "warning",
            "RC4 is permitted: its keys can be guessed, and it is being switched off everywhere",
            "remove rc4-hmac from permitted_enctypes in krb5.conf, and allow_weak_crypto",
        )


def configuration(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """The files of krb5.conf that were read, and their lines that do not count."""
    config, error = exam.config, exam.config_error
    if error is not None:
        raise error
    if exam.given_config is not None and not config.files:
        yield "ok", "the configuration was given by the program, not by krb5.conf", ""
    elif not config.files:
        yield (
            "warning",
            "there is no krb5.conf: the realm comes from the names, and its KDCs from DNS",
            "set default_realm in /etc/krb5.conf",
        )
    else:
        yield "ok", f"read: {', '.join(map(str, config.files))}", ""
    for line in config.skipped:
        yield "warning", f"{line}: this line does not count", "correct or remove that line"
    for line in config.without_effect:
        yield "skipped", str(line), ""
    if config.default_realm:
        yield "ok", f"the default realm is {config.default_realm}", ""
    elif not exam.realm:
        yield "warning", "no realm is known", "set default_realm under [libdefaults] in krb5.conf"


def places(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """The credential cache, the keytab and the client keytab that are used, and why."""
    if exam.given_credential is not None:
        yield "ok", f"the credential is the caller's, {exam.given_credential.principal}", ""
    else:
        yield from _ccache(exam)
    given = exam.given_keytab
    if isinstance(given, Keytab):
        yield "ok", f"the keytab is the caller's, with {given.summary()}", ""
    else:
        chosen = defaults.keytab_name(exam.keytab_path or given or None, exam.config)
        wanted = bool(exam.keytab_path or given)
        yield _keytab("keytab", chosen, wanted)
    yield _keytab("client keytab", defaults.client_keytab_name(None, exam.config), False)


class _SecretNeededError(Exception):
    """What the doctor does not ask for: a wrong PIN would count against the user."""


def _refuse(prompt: str) -> str:
    raise _SecretNeededError(prompt)


def certificates(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    """The certificates that krb5.conf names: the client's, and those of the KDCs' authorities."""
    config = exam.config
    realm = exam.realm or config.default_realm or ""
    options = pkinit_options(config, realm)
    if not options.identities and not options.anchors:
        yield "skipped", "krb5.conf names no certificates (pkinit_identities, pkinit_anchors)", ""
        return
    from purekrb.credentials import identities, x509

    for text in options.identities:
        try:
            found = identities.open_identity(text, ask=_refuse, rules=options.cert_match)
        except _SecretNeededError as needed:
            yield (
                "skipped",
                f"the certificate {text} is not opened, since it asks for a secret: {needed}",
                "",
            )
            continue
        except KerberosError as error:
            yield "warning", f"the certificate {text}: {error}", ""
            continue
        name, ends = (
            x509.described(found.certificate),
            x509.utc(found.certificate.not_valid_after_utc),
        )
        problem = x509.date_problem(found.certificate, now())
        if problem is not None:
            yield "failed", f"the certificate {text} of {name} {problem}", "get a new certificate"
        else:
            whose = found.principal_name or "no principal by name"
            yield "ok", f"the certificate {text} is of {name}, for {whose}, until {ends}", ""
        found.wipe()
    if not options.anchors:
        yield (
            "failed",
            "pkinit_anchors is not set: no KDC can prove by a certificate that it is genuine",
            f"set pkinit_anchors of {realm} to the certificate of its authority",
        )
        return
    anchors = x509.certificates_of(options.anchors, "anchor")
    valid = [anchor for anchor in anchors if x509.date_problem(anchor, now()) is None]
    status: Status = "ok" if valid else "failed"
    remedy = "" if valid else "get the present certificates of the authorities"
    yield status, f"anchors of {realm}: {len(valid)} of {len(anchors)} certificates valid", remedy
    if options.allow_sha1:
        yield (
            "warning",
            "pkinit_allow_sha1 is set: a KDC's answer that is signed with SHA-1 is taken",
            "remove it as soon as the KDCs sign with SHA-256",
        )


def _ccache(exam: Examination) -> Iterator[tuple[Status, str, str]]:
    chosen = defaults.ccache_name(exam.given_ccache, exam.config)
    if chosen.passed_over:
        yield (
            "warning",
            f"the credential cache is {chosen.name}: {chosen.passed_over}",
            "set KRB5CCNAME, or another default_ccache_name in krb5.conf",
        )
    try:
        stored = CCache.load(chosen.name)
    except KerberosError as error:
        status: Status = "warning" if _wants_tickets(exam) else "skipped"
        yield status, f"credential cache {chosen}: {error}", "get a ticket with purekrb kinit"
        return
    tickets = list(stored)
    valid = sum(ticket.endtime > now() for ticket in tickets)
    text = f"credential cache {chosen}: {stored.principal}, {valid} of {len(tickets)} tickets valid"
    yield "ok", text, ""


def _wants_tickets(exam: Examination) -> bool:
    return exam.service is not None


def _keytab(what: str, chosen: defaults.ChosenName, wanted: bool) -> tuple[Status, str, str]:
    try:
        if not wanted and not defaults.exists(chosen):
            return "skipped", f"{what} {chosen}: there is none", ""
        return "ok", f"{what} {chosen}: {Keytab.load(chosen.name).summary()}", ""
    except KerberosError as error:
        status: Status = "failed" if wanted else "warning"
        return status, f"{what} {chosen}: {error}", "make the file readable, or name another one"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
