"""Which ccache of a collection a service gets, if nobody names one.

Source: MIT krb5, k5identity(5), and "Choosing a credential cache" (ccselect): the file .k5identity
first, then the realm of the service, then the primary ccache.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase

from purekrb.credentials import files
from purekrb.credentials.ccache import CCache
from purekrb.errors import DecodeError, KerberosError
from purekrb.log import Log
from purekrb.names import Principal

__all__ = ["choose_ccache", "identity_for"]

log = Log("purekrb.credentials")

_WHAT = "file of identities"
_MAX_SIZE = 1 << 20


def choose_ccache(
    service: Principal | None, collection: str
) -> tuple[CCache | None, Principal | None]:
    """Return the ccache for `service`, and the principal that .k5identity names for it.

    If .k5identity names one, only its ccache will do, and it may be missing. Otherwise it is the
    first ccache of the service's realm, else the primary; None if there is none. The realm of
    `service` may be "", which chooses nothing.
    """
    found = CCache.list(collection)
    identity = identity_for(service) if service is not None else None
    if identity is not None:
        same = [ccache for ccache in found if ccache.principal == identity]
        return (same[0] if same else None), identity
    if service is not None and service.realm:
        for ccache in found:
            if ccache.principal.realm == service.realm:
                return ccache, None
    return (found[0] if found else None), None


def identity_for(service: Principal) -> Principal | None:
    """Return the principal that .k5identity in the home directory names for `service`, or None."""
    path = os.path.join(os.environ.get("HOME", ""), ".k5identity")
    if not os.environ.get("HOME") or not files.exists(path):
        return None
    try:
        text = files.read_private(path, what=_WHAT, shared=True, max_size=_MAX_SIZE).decode()
    except (KerberosError, UnicodeDecodeError) as error:
        log.warning("%s is left out: %s", path, error)
        return None
    facts = _facts(service)
    for line in text.splitlines():
        words = line.split()
        if words and not words[0].startswith("#") and _fits(words[1:], facts):
            try:
                return Principal.parse(words[0])
            except DecodeError as error:
                log.warning("a line of %s is left out: %s", path, error)
    return None


def _facts(service: Principal) -> Mapping[str, str]:
    facts = {"realm": service.realm}
    if len(service.components) == 2:
        facts["service"], facts["host"] = service.components[0], service.components[1].lower()
    return facts


def _fits(conditions: list[str], facts: Mapping[str, str]) -> bool:
    """Return whether the service meets all conditions, such as `host=*.servers.example.test`."""
    for condition in conditions:
        name, _, pattern = condition.partition("=")
        pattern = pattern.lower() if name == "host" else pattern
        if name not in facts or not fnmatchcase(facts[name], pattern):
            return False
    return True
