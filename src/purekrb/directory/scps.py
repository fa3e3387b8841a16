"""Service connection points in the directory: publish, find, update, remove."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from purekrb.directory.accounts import find_computer
from purekrb.directory.ldap import (
    INVALID_PARAMETER,
    OBJECT_EXISTS,
    OBJECT_NOT_FOUND,
    Change,
    ChangeOperation,
    Entry,
    LdapSession,
    Scope,
    equals,
    object_guid,
    single,
)
from purekrb.directory.scp import SCP_ATTRIBUTES, ServiceConnectionPoint
from purekrb.dn import escape_rdn_value
from purekrb.errors import DirectoryError

__all__ = ["find", "publish", "remove", "update"]

_log = logging.getLogger("purekrb.directory")

_IS_SCP = "(objectClass=serviceConnectionPoint)"
_COLUMNS = ("cn", "objectGUID", *SCP_ATTRIBUTES)


def publish(session: LdapSession, scp: ServiceConnectionPoint, host: str) -> ServiceConnectionPoint:
    """Create `scp` below the computer object of `host`; see `Directory.publish_scp`."""
    if not scp.keywords:
        raise DirectoryError(
            f"the SCP {scp.name!r} has no keywords, so no client can find it: give at least the product's GUID",
            code=INVALID_PARAMETER,
        )
    dn = f"CN={escape_rdn_value(scp.name)},{find_computer(session, host or scp.dns_name).dn}"
    _log.debug("publishing the SCP %s", dn)
    try:
        session.add(dn, "serviceConnectionPoint", {"cn": [scp.name], **scp.attributes()})
    except DirectoryError as error:
        if error.code != OBJECT_EXISTS:
            raise
        existing = session.search(dn, _IS_SCP, _COLUMNS, scope=Scope.BASE)
        if not existing or not scp.same_service(_scp(existing[0])):
            raise
        update(session, replace(scp, dn=dn, object_guid=None))
    return _scp(_published(session, replace(scp, dn=dn, object_guid=None)))


def find(session: LdapSession, keywords: Sequence[str]) -> list[ServiceConnectionPoint]:
    """Return the service connection points that have all `keywords`; see `Directory.find_scps`."""
    if isinstance(keywords, str):
        raise TypeError("keywords is a sequence of keywords, not one string")
    wanted = "".join(equals("keywords", keyword) for keyword in keywords)
    found = session.search(session.base_dn, f"(&{_IS_SCP}{wanted})", _COLUMNS)
    usable: list[ServiceConnectionPoint] = []
    refused: list[DirectoryError] = []
    for entry in sorted(found, key=lambda entry: entry.dn):
        try:
            usable.append(_scp(entry))
        except DirectoryError as error:
            _log.warning("%s", error)
            refused.append(error)
    if refused and not usable:
        raise refused[0]
    _log.debug("found %d SCPs with the keywords %s", len(usable), ", ".join(keywords) or "(any)")
    return usable


def update(session: LdapSession, scp: ServiceConnectionPoint) -> tuple[str, ...]:
    """Bring the directory's copy of `scp` up to date; see `Directory.update_scp`."""
    entry = _published(session, scp)
    changes = [
        Change(ChangeOperation.REPLACE, name, values)
        for name, values in scp.attributes().items()
        if _comparable(name, (value.encode() for value in values)) != _comparable(name, entry.attributes[name])
    ]
    changed = tuple(change.attribute for change in changes)
    if changes:
        _log.debug("updating %s of the SCP %s", ", ".join(changed), entry.dn)
        session.modify(entry.dn, changes)
    return changed


def remove(session: LdapSession, scp: ServiceConnectionPoint) -> None:
    """Delete `scp`; see `Directory.remove_scp`."""
    try:
        entry = _published(session, scp)
        _log.debug("removing the SCP %s", entry.dn)
        session.delete(entry.dn)
    except DirectoryError as error:
        if error.code != OBJECT_NOT_FOUND:
            raise


def _published(session: LdapSession, scp: ServiceConnectionPoint) -> Entry:
    """Return the directory's copy of `scp`."""
    if scp.object_guid:
        # The DN changes when the object or its computer is moved or renamed; the objectGUID never does.
        wanted = f"(&{_IS_SCP}{equals('objectGUID', scp.object_guid.bytes_le)})"
        found = session.search(session.base_dn, wanted, _COLUMNS)
    elif scp.dn:
        found = session.search(scp.dn, _IS_SCP, _COLUMNS, scope=Scope.BASE)
    else:
        raise DirectoryError(f"the SCP {scp.name!r} is not published: pass what publish_scp or find_scps returned")
    return single(found, f"SCP {scp.dn or scp.name!r}")


def _scp(entry: Entry) -> ServiceConnectionPoint:
    return ServiceConnectionPoint.from_attributes(entry.dn, entry.attributes, object_guid(entry))


def _comparable(name: str, values: Iterable[bytes]) -> list[bytes]:
    # LDAP keeps no order among values; and a host name is the same in any case.
    return sorted(value.lower() if name == "serviceDNSName" else value for value in values)
