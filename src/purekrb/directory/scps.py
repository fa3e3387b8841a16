"""Service connection points in the directory: publish, find, update, remove."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from uuid import UUID

from purekrb.directory.accounts import find_computer
from purekrb.directory.ldap import (
    ANY_OBJECT,
    INVALID_PARAMETER,
    OBJECT_NOT_FOUND,
    Change,
    ChangeOperation,
    Entry,
    LdapSession,
    Scope,
    equals,
    object_guid,
    sd_flags,
    single,
)
from purekrb.directory.rights import without_right
from purekrb.directory.scp import SCP_ATTRIBUTES, ServiceConnectionPoint
from purekrb.directory.security_descriptor import grant, revoke
from purekrb.directory.transaction import Undo
from purekrb.dn import dn_key, domain_of, escape_rdn_value, is_at_or_below, parent_of
from purekrb.errors import DecodeError, DirectoryError, InsufficientRightsError, TransportError
from purekrb.log import Log
from purekrb.sid import Sid

__all__ = ["allow_updates", "find", "publish", "read", "remove", "remove_containers", "update"]

_log = Log("purekrb.directory")

_IS_SCP = "(objectClass=serviceConnectionPoint)"
_COLUMNS = ("cn", "objectGUID", *SCP_ATTRIBUTES)
_DESCRIPTOR = "nTSecurityDescriptor"
_DACL = 4
#: The schemaIDGUIDs of the attributes that a service updates when it starts,
#: serviceBindingInformation and serviceDNSName. Source: MS-ADA3 2.211, 2.213.
_UPDATED = (
    UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1"),
    UUID("b7b1311c-b82e-11d0-afee-0000f80367c1"),
)

#: Places in a domain that are not for SCPs; whether places below them are not, either; and why.
_FORBIDDEN = (
    (dn_key("CN=Configuration"), True, "it is replicated to every domain controller of the forest"),
    (dn_key("CN=Users"), False, "it is for accounts"),
    (dn_key("CN=Computers"), False, "it is for accounts: publish below one of the computers in it"),
    (dn_key("CN=WinsockServices,CN=System"), True, "Windows manages it by itself"),
    (dn_key("CN=RpcServices,CN=System"), True, "Windows manages it by itself"),
)


def publish(
    session: LdapSession,
    scp: ServiceConnectionPoint,
    undo: Undo,
    *,
    host: str = "",
    parent: str = "",
) -> tuple[ServiceConnectionPoint, list[str]]:
    """Create `scp` or bring it up to date; see `Directory.publish_scp`.

    Returns also the DNs of new containers. All writes are added to `undo`.
    """
    scp.check()
    if not scp.keywords:
        raise DirectoryError(
            f"the SCP {scp.name!r} has no keywords, so clients cannot find it: "
            "give at least the product's GUID",
            code=INVALID_PARAMETER,
        )
    containers: list[str] = []
    if parent:
        _check_place(session, parent)
        containers = _make_containers(session, parent, undo)
    else:
        parent = find_computer(session, host or scp.dns_name).dn
    dn = f"CN={escape_rdn_value(scp.name)},{parent}"
    _log.debug("publishing the SCP %s", dn)

    def create() -> None:
        attributes = {"cn": [scp.name], **scp.attributes()}
        try:
            session.add(dn, "serviceConnectionPoint", attributes)
        except InsufficientRightsError as error:
            raise without_right(session, error, "create SCP", parent_of(dn)) from None

    if not session.search(dn, ANY_OBJECT, scope=Scope.BASE):
        undo.write(create, f"deleting {dn}", lambda: session.delete(dn))
    else:
        existing = session.search(dn, _IS_SCP, _COLUMNS, scope=Scope.BASE)
        if existing and scp.same_service(_scp(existing[0])):
            update(session, replace(scp, dn=dn, object_guid=None), undo)
        else:
            create()  # the directory refuses it
    return read(session, None, dn), containers


def find(
    session: LdapSession,
    forest: LdapSession,
    keywords: Sequence[str],
    domain_of_dn: Callable[[str], LdapSession],
    *,
    service_class: str = "",
) -> list[ServiceConnectionPoint]:
    """Return the service connection points that have all `keywords`; see `Directory.find_scps`.

    `forest` is a session with a global catalog, or `session` again. `domain_of_dn` returns a
    session with the domain of a DN.
    """
    if isinstance(keywords, str):
        raise TypeError("keywords is a sequence of keywords, not one string")
    catalogued = f"{_IS_SCP}{''.join(equals('keywords', keyword) for keyword in keywords)}"
    wanted = catalogued + (equals("serviceClassName", service_class) if service_class else "")
    # Every domain controller has a copy of the forest's configuration, in a partition of its own:
    # a search of the domain leaves it out, although its DN is below that of the root domain.
    configuration = session.root_dse.text("configurationNamingContext")
    found: dict[str, Entry] = {}

    def collect(searched: LdapSession, base: str) -> None:
        for entry in searched.search(base, f"(&{wanted})", _COLUMNS):
            found.setdefault(entry.dn.casefold(), entry)

    for base in (session.base_dn, configuration):
        if base:
            collect(session, base)
    # The catalog knows where else in the forest there are SCPs, but not their hosts and classes.
    elsewhere = {
        domain_of(entry.dn): entry.dn
        for entry in (
            forest.search(forest.base_dn, f"(&{catalogued})") if forest is not session else ()
        )
        if not (configuration and is_at_or_below(entry.dn, configuration))
    }
    elsewhere.pop(domain_of(session.base_dn), None)
    for domain, dn in elsewhere.items():
        try:
            other = domain_of_dn(dn)
            collect(other, other.base_dn)
        except TransportError as error:
            _log.warning("the services in the domain %s are skipped: %s", domain, error)
    readable: list[ServiceConnectionPoint] = []
    refused: list[DirectoryError] = []
    for entry in sorted(found.values(), key=lambda entry: entry.dn):
        try:
            readable.append(_scp(entry))
        except DirectoryError as error:
            _log.warning("%s", error)
            refused.append(error)
    if refused and not readable:
        raise refused[0]
    _log.debug("found %d SCPs with the keywords %s", len(readable), ", ".join(keywords) or "(any)")
    return readable


def read(session: LdapSession, guid: UUID | None, dn: str) -> ServiceConnectionPoint:
    """Return the SCP with the objectGUID `guid`; if that is None, the SCP at `dn`.

    Raises DirectoryError, with code 8333 if the SCP is gone, and the errors of
    ServiceConnectionPoint.check.
    """
    scp = _scp(_published(session, guid, dn))
    scp.check()
    return scp


def update(
    session: LdapSession, scp: ServiceConnectionPoint, undo: Undo | None = None
) -> tuple[str, ...]:
    """Bring the directory's copy of `scp` up to date; see `Directory.update_scp`.

    All writes are added to `undo`.
    """
    scp.check()
    entry = _published(session, scp.object_guid, scp.dn)
    changes = [
        Change(ChangeOperation.REPLACE, name, values)
        for name, values in scp.attributes().items()
        if _comparable(name, (value.encode() for value in values))
        != _comparable(name, entry.attributes[name])
    ]
    changed = tuple(change.attribute for change in changes)
    if changes:
        _log.debug("updating %s of the SCP %s", ", ".join(changed), entry.dn)
        before = [Change(ChangeOperation.REPLACE, name, entry.attributes[name]) for name in changed]
        restoring = f"restoring {', '.join(changed)} of {entry.dn}"
        try:
            (undo or Undo()).write(
                lambda: session.modify(entry.dn, changes),
                restoring,
                lambda: session.modify(entry.dn, before),
            )
        except InsufficientRightsError as error:
            raise InsufficientRightsError(
                f"{error}. A service may only update the SCP that it was installed for, and only "
                "its "
                "host and bindings: have an administrator publish the SCP again for this account",
                code=error.code,
            ) from error
    return changed


def remove(session: LdapSession, guid: UUID | None, dn: str) -> None:
    """Delete an SCP; see `Directory.remove_scp`."""
    try:
        entry = _published(session, guid, dn)
        _log.debug("removing the SCP %s", entry.dn)
        session.delete(entry.dn)
    except DirectoryError as error:
        if error.code != OBJECT_NOT_FOUND:
            raise


def remove_containers(session: LdapSession, containers: Iterable[str]) -> None:
    """Delete those of `containers`, in their order, that still exist and are empty."""
    for dn in containers:
        exists = session.search(dn, "(objectClass=container)", scope=Scope.BASE)
        if exists and not session.search(dn, ANY_OBJECT, scope=Scope.LEVEL):
            _log.debug("removing the empty container %s", dn)
            session.delete(dn)


def allow_updates(
    session: LdapSession, dn: str, trustee: Sid | None, undo: Undo, *, instead_of: Sid | None = None
) -> None:
    """Give `trustee` the right to update the SCP `dn`, and revoke that of `instead_of`.

    Of the security descriptor, only the DACL is read and written.
    """

    def write(descriptor: bytes) -> None:
        replaced = Change(ChangeOperation.REPLACE, _DESCRIPTOR, [descriptor])
        session.modify(dn, [replaced], controls=[sd_flags(_DACL)])

    found = session.search(
        dn, _IS_SCP, (_DESCRIPTOR,), scope=Scope.BASE, controls=[sd_flags(_DACL)]
    )
    before = b"".join(single(found, f"SCP {dn}").attributes[_DESCRIPTOR])
    try:
        after = grant(before, trustee, _UPDATED) if trustee else before
        if instead_of and instead_of != trustee:
            after = revoke(after, instead_of, _UPDATED)
    except DecodeError as error:
        raise DirectoryError(f"the access rights on {dn!r} cannot be changed: {error}") from None
    if after != before:
        _log.debug("allowing %s to update the SCP %s", trustee, dn)
        undo.write(
            lambda: write(after), f"restoring the access rights on {dn}", lambda: write(before)
        )


def _check_place(session: LdapSession, parent: str) -> None:
    """Raise DirectoryError unless SCPs may be created below `parent`."""
    key, top = dn_key(parent), dn_key(session.base_dn) or ()
    if key is None:
        raise DirectoryError(
            f"the parent {parent!r} is not a DN: give one such as "
            "CN=Product,CN=System,DC=example,DC=com"
        )
    domain = domain_of(session.base_dn)
    if domain_of(parent) != domain or key[-len(top) :] != top:
        raise DirectoryError(
            f"the parent {parent!r} is not in the domain {domain}: connect to its own domain"
        )
    inside = key[: -len(top)]
    for place, also_below, why in _FORBIDDEN:
        if inside == place or (also_below and inside[-len(place or ()) :] == place):
            raise DirectoryError(
                f"an SCP must not be published below {parent!r}: {why}. Leave out the parent to "
                "publish below the host's computer object, or give a container below CN=System or "
                "an "
                "organizational unit"
            )


def _make_containers(session: LdapSession, parent: str, undo: Undo) -> list[str]:
    """Create the missing containers of `parent` below CN=System.

    Returns the DNs of the new ones, deepest first.
    """
    missing: list[str] = []
    dn = parent
    while not session.search(dn, ANY_OBJECT, scope=Scope.BASE):
        missing.append(dn)
        dn = parent_of(dn)
        if not is_at_or_below(dn, f"CN=System,{session.base_dn}"):
            raise DirectoryError(
                f"there is no object {parent!r}: create it first; "
                "only containers below CN=System are created as needed",
                code=OBJECT_NOT_FOUND,
            )
    for dn in reversed(missing):
        _log.debug("creating the container %s", dn)
        undo.write(
            partial(session.add, dn, "container", {}), f"deleting {dn}", partial(session.delete, dn)
        )
    return missing


def _published(session: LdapSession, guid: UUID | None, dn: str) -> Entry:
    """Return the directory's copy of an SCP."""
    if guid:
        # The DN changes when the object or its computer is moved or renamed; the objectGUID never
        # does.
        found = session.search(
            session.base_dn, f"(&{_IS_SCP}{equals('objectGUID', guid.bytes_le)})", _COLUMNS
        )
    elif dn:
        found = session.search(dn, _IS_SCP, _COLUMNS, scope=Scope.BASE)
    else:
        raise DirectoryError(
            "the SCP is not published: pass the SCP that publish_scp or find_scps returned"
        )
    return single(found, f"SCP {dn or guid}")


def _scp(entry: Entry) -> ServiceConnectionPoint:
    return ServiceConnectionPoint.from_attributes(entry.dn, entry.attributes, object_guid(entry))


def _comparable(name: str, values: Iterable[bytes]) -> list[bytes]:
    # LDAP does not keep the order of values, and host names ignore case.
    return sorted(value.lower() if name == "serviceDNSName" else value for value in values)
