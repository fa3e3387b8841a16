r"""Names as people write them, read by the configuration.

Kerberos compares realms byte for byte; people write them in small letters, or as Windows does, by
the NetBIOS name of a domain (`DOMAIN\user`), which is by default the first label of its DNS name.
The realm of a client is never corrected silently, because some realms do have small letters: an
error names the one that is configured. A domain's name, and the realm of a service given as text,
stand for the one configured realm that fits; the KDC vouches for the service in any case.
"""

from __future__ import annotations

from collections.abc import Iterable

from purekrb.constants import NameType
from purekrb.errors import ConfigError
from purekrb.krb5conf.config import Config
from purekrb.krb5conf.profile import ONE_LINE
from purekrb.log import Log
from purekrb.names import Principal, as_written

__all__ = [
    "client_principal",
    "complete",
    "fitting_realm",
    "of_upn",
    "one_line_hint",
    "similar_realms",
    "unknown_realm",
    "upn_hint",
]

log = Log("purekrb.kdc")


def client_principal(text: str, config: Config, *, enterprise: bool = False) -> Principal:
    r"""Return the client that `text` names: `user`, `user@REALM` or `DOMAIN\user`.

    The default realm is used if it names none. With `enterprise`, `text` is a name of any form,
    such as a user principal name, which the KDC of the default realm looks up (RFC 6806 5). Raises
    DecodeError for malformed text, and ConfigError if no realm fits.
    """
    return complete(as_written(text, config.default_realm or "", enterprise=enterprise), config)


def complete(client: Principal, config: Config) -> Principal:
    """Return `client` with its realm, if `as_written` left it to the configuration.

    Raises ConfigError if no realm fits.
    """
    if client.realm or client.name_type != NameType.ENTERPRISE:
        return client
    domain, backslash, user = client.components[0].partition("\\")
    if backslash:
        return _of_domain(domain, user, config)
    if not config.default_realm:
        raise ConfigError(
            f"there is no default realm whose KDC can look up {client}: set default_realm in "
            f"krb5.conf, or write the realm as well, as in {client.components[0]}@REALM"
        )
    return Principal(client.components, config.default_realm, NameType.ENTERPRISE)


def of_upn(name: Principal, config: Config) -> Principal:
    """Return the client that the user principal name in a certificate means.

    If its suffix is a known realm, in any letters, it is a user of that realm: not every KDC looks
    names up. Otherwise it is looked up by the KDC of the default realm. Raises ConfigError.
    """
    user, at, suffix = name.components[0].rpartition("@")
    found = _fold_equal(suffix, _known(config, ())) if at and user else []
    return Principal((user,), found[0]) if len(found) == 1 else complete(name, config)


def fitting_realm(realm: str, config: Config, *others: str) -> str:
    """Return the known realm that `realm` means, in other letters or as a NetBIOS name.

    Known are the realms with a section in the configuration, the default realm and `others`. If
    `realm` is one of them, or if none or several fit, it is returned unchanged.
    """
    known = _known(config, others)
    if not realm or realm in known:
        return realm
    found = _fold_equal(realm, known) or _by_first_label(realm, known)
    if len(found) != 1:
        return realm
    log.debug("the realm %s is taken for %s, which is configured", realm, found[0])
    return found[0]


def similar_realms(realm: str, config: Config) -> list[str]:
    """Return the realms that differ from `realm` in the case of letters: those with a section.

    If no section has such a name, it is the default realm, if that does.
    """
    for known in (config.realms, _known(config, ())):
        found = [other for other in _fold_equal(realm, known) if other != realm]
        if found:
            return found
    return []


def unknown_realm(realm: str, config: Config, *, of_client: bool) -> ConfigError:
    """Return the error for a realm without a known KDC; `of_client`: it comes from a client."""
    similar = similar_realms(realm, config)
    if similar:
        return ConfigError(
            f"{config.source} has {' and '.join(similar)}: realm names are case-sensitive; "
            f"write {' or '.join(similar)} instead of {realm}"
        )
    return ConfigError(
        f"no KDC of realm {realm} is known: "
        f"add kdc = host:port to it under [realms] in krb5.conf"
        f"{one_line_hint(realm, config)}"
        f"{upn_hint(realm, config) if of_client else ''}"
    )


def one_line_hint(realm: str, config: Config) -> str:
    """Return what is wrong with the group of `realm` in krb5.conf if it is on one line."""
    begin = ONE_LINE.format(realm)
    lines = [line for line in config.skipped if line.reason.startswith(f"{begin} ")]
    return f"; {lines[0].where}: {lines[0].reason}" if lines else ""


def upn_hint(realm: str, config: Config) -> str:
    """Return more advice about a client of an unknown realm: how else its name may be meant."""
    netbios = _by_first_label(realm, _known(config, ()))
    if len(netbios) == 1:
        return f"; if {realm} is the NetBIOS name of {netbios[0]}, write {netbios[0]}"
    if config.default_realm in (None, "", realm):
        return ""
    return (
        f"; if {realm} is only the suffix of a user principal name (UPN), let the KDC of "
        f"{config.default_realm} look the name up: kinit -E, or in Python "
        "Credential.from_password(..., enterprise=True)"
    )


def _of_domain(domain: str, user: str, config: Config) -> Principal:
    """Return the account `user` of a Windows domain, which is named by its NetBIOS or DNS name."""
    known = _known(config, ())
    found = _fold_equal(domain, known) or _by_first_label(domain, known)
    named = config.realm_of(domain)
    if not found and named:
        found = [named]
    if len(found) == 1:
        return Principal((user,), found[0])
    if "." in domain:
        return Principal((user,), domain.upper())  # Active Directory: its DNS name in capitals
    home = config.default_realm or (known[0] if len(known) == 1 else None)
    if home is None:
        raise ConfigError(
            f"the domain {domain} of {domain}\\{user} is not known as a realm: write {user}@REALM, "
            f"or map it under [domain_realm] in krb5.conf: {domain.lower()} = REALM"
        )
    # A domain controller knows the NetBIOS names: user@DOMAIN is an implicit UPN.
    # Source: MS-ADTS 5.1.1.1.1, MS-KILE 3.3.5.6.1.
    return Principal((f"{user}@{domain}",), home, NameType.ENTERPRISE)


def _known(config: Config, others: Iterable[str]) -> list[str]:
    named = (*config.realms, config.default_realm or "", *others)
    return list(dict.fromkeys(realm for realm in named if realm))


def _fold_equal(realm: str, known: Iterable[str]) -> list[str]:
    folded = realm.casefold()
    return [other for other in known if other.casefold() == folded]


def _by_first_label(name: str, known: Iterable[str]) -> list[str]:
    if "." in name:
        return []
    folded = name.casefold()
    # A NetBIOS name has at most 15 characters.
    return [other for other in known if folded == other.partition(".")[0].casefold()[:15]]
