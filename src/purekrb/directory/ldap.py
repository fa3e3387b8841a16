"""The directory over LDAP: service principal names of accounts, service connection points.

The only file that imports ldap3. No exception of ldap3 leaves it: what fails is a DirectoryError.
Source: RFC 4511; for the SPNs DsWriteAccountSpn and MS-DRSR 4.1.28, which say the same in terms of LDAP.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from types import TracebackType
from typing import Any
from uuid import UUID, uuid4

from purekrb.directory.scp import SCP_ATTRIBUTES, ServiceConnectionPoint, escape_rdn_value
from purekrb.errors import DirectoryError
from purekrb.spn import ServicePrincipalName

with warnings.catch_warnings():
    # ldap3 2.9 uses names that pyasn1 0.6 has renamed; the warning about it is not for who imports purekrb.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3
    from ldap3.core.exceptions import LDAPException
    from ldap3.utils.conv import escape_bytes

__all__ = ["Account", "Directory", "EmbeddedDirectory", "SpnOperation"]

_log = logging.getLogger("purekrb.directory")

_INVALID_FUNCTION = 1
_INVALID_PARAMETER = 87
_OBJECT_EXISTS = 8305
_OBJECT_NOT_FOUND = 8333
_SPN_NOT_UNIQUE = 8647

#: LDAP result codes (RFC 4511 4.1.9) that a caller can act upon: the Windows error number, and the advice.
_RESULTS = {
    32: (_OBJECT_NOT_FOUND, "the object does not exist: check the name, or create it first"),
    68: (_OBJECT_EXISTS, "an object of this name exists already: choose another name, or remove it first"),
}
_IS_SCP = "(objectClass=serviceConnectionPoint)"
_SCP_COLUMNS = ("cn", "objectGUID", *SCP_ATTRIBUTES)
_ACCOUNT_COLUMNS = ("sAMAccountName", "servicePrincipalName")
_DOMAIN = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class SpnOperation(IntEnum):
    """What `write_account_spn` does: DS_SPN_WRITE_OP."""

    ADD = 0
    REPLACE = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class Account:
    """A user or computer account: its DN, its sAMAccountName and its service principal names."""

    dn: str
    name: str
    spns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a search found: the DN, and raw values by LDAP name."""

    dn: str
    attributes: Mapping[str, Sequence[bytes]]


class Directory(ABC):
    """A directory: `with Directory.embedded() as directory: ...`. Safe to use from several threads.

    An account is named by its DN, its sAMAccountName (`WEB$`, `alice`) or its user principal name
    (`alice@example.test`). Everything raises DirectoryError, whose `code` is the Windows error number of the failure,
    and SpnError for a service principal name that is none.
    """

    def __init__(self, connection: Any, base_dn: str) -> None:
        self._connection = connection
        self._base_dn = base_dn
        # An ldap3 connection keeps the result of its last request, which another thread must not replace.
        self._lock = threading.RLock()

    @staticmethod
    def embedded(domain: str = "example.test") -> EmbeddedDirectory:
        """Return a new directory of `domain` that lives in this process; see EmbeddedDirectory for its limits."""
        return EmbeddedDirectory(domain)

    def __enter__(self) -> Directory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. What was written stays where the directory is."""
        self._request("closing the directory", "unbind")

    # Service principal names ------------------------------------------------------------------------------------

    def write_account_spn(self, operation: SpnOperation | int, account: str, spns: Sequence[str]) -> None:
        """Change the service principal names of `account`: DsWriteAccountSpn.

        ADD leaves names alone that are there already, DELETE ignores names that are not; REPLACE sets exactly `spns`,
        and with none clears them. Case does not count. Raises DirectoryError: code 1 for an unknown operation, 87 for
        an empty account or nothing to add or delete, 8333 where there is no such account, 8647 where another account
        has the name.
        """
        if isinstance(spns, str):
            raise TypeError("spns is a sequence of service principal names, not one string")
        if not account or _CONTROL.search(account):
            raise DirectoryError(
                f"account {account!r} is empty or has control characters: give its DN or its name",
                code=_INVALID_PARAMETER,
            )
        try:
            operation = SpnOperation(operation)
        except ValueError:
            raise DirectoryError(
                f"SPN operation {operation!r} is unknown: use a member of SpnOperation", code=_INVALID_FUNCTION
            ) from None
        if not spns and operation is not SpnOperation.REPLACE:
            raise DirectoryError(f"there is no SPN to {operation.name}: name at least one", code=_INVALID_PARAMETER)
        for spn in spns:
            # What somebody stored by other means must be deletable, however odd.
            ServicePrincipalName.parse(spn, strict=operation is not SpnOperation.DELETE)
        with self._lock:
            found = self._find_account(account)
            _log.debug("%s service principal names of %s: %s", operation.name, found.dn, ", ".join(spns) or "all")
            self._write_spns(operation, found, spns)

    def find_spn(self, spn: str) -> list[Account]:
        """Return the accounts that have `spn`, ordered by DN. More than one is a fault: the KDC then knows none.

        Case does not count; wildcards have no meaning.
        """
        ServicePrincipalName.parse(spn, strict=False)
        found = self._search(_equals("servicePrincipalName", spn), _ACCOUNT_COLUMNS)
        return sorted(map(_account, found), key=lambda account: account.dn)

    # Service connection points ----------------------------------------------------------------------------------

    def publish_scp(self, scp: ServiceConnectionPoint, *, host: str = "") -> ServiceConnectionPoint:
        """Create `scp` below the computer object of `host` and return it with its DN and objectGUID.

        `host` is a DNS name or a computer's sAMAccountName; by default the SCP's DNS name. Where an SCP of this name
        and this product (class and GUID keywords) is there already, it is brought up to date instead.
        """
        if not scp.keywords:
            raise DirectoryError(
                f"the SCP {scp.name!r} has no keywords, so no client can find it: give at least the product's GUID",
                code=_INVALID_PARAMETER,
            )
        with self._lock:
            dn = f"CN={escape_rdn_value(scp.name)},{self._find_computer(host or scp.dns_name)}"
            _log.debug("publishing the SCP %s", dn)
            try:
                self._add(dn, "serviceConnectionPoint", {"cn": [scp.name], **scp.attributes()})
            except DirectoryError as error:
                if error.code != _OBJECT_EXISTS:
                    raise
                existing = self._search(_IS_SCP, _SCP_COLUMNS, at=dn)
                if not existing or not scp.same_service(_scp(existing[0])):
                    raise
                self.update_scp(replace(scp, dn=dn, object_guid=None))
            return _scp(self._published(replace(scp, dn=dn, object_guid=None)))

    def find_scps(self, keywords: Sequence[str] = ()) -> list[ServiceConnectionPoint]:
        """Return the service connection points that have all `keywords`, ordered by DN; case does not count.

        An SCP whose values no client could use is left out, and logged; if only such are found, that is an error.
        """
        if isinstance(keywords, str):
            raise TypeError("keywords is a sequence of keywords, not one string")
        wanted = "".join(_equals("keywords", keyword) for keyword in keywords)
        found = self._search(f"(&{_IS_SCP}{wanted})", _SCP_COLUMNS)
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

    def update_scp(self, scp: ServiceConnectionPoint) -> tuple[str, ...]:
        """Bring the directory's copy of `scp` up to date and return the LDAP names of what had changed.

        `scp` comes from `publish_scp` or `find_scps`, changed by `dataclasses.replace`. It is found by its objectGUID.
        Nothing is written where nothing differs, so a service may call this at each start.
        """
        with self._lock:
            entry = self._published(scp)
            changes = {
                name: values
                for name, values in scp.attributes().items()
                if _comparable(name, (value.encode() for value in values))
                != _comparable(name, entry.attributes.get(name, ()))
            }
            if changes:
                _log.debug("updating %s of the SCP %s", ", ".join(changes), entry.dn)
                self._modify(entry.dn, changes)
            return tuple(changes)

    def remove_scp(self, scp: ServiceConnectionPoint) -> None:
        """Delete `scp` (as returned by `publish_scp` or `find_scps`); it is no error if it is gone already."""
        with self._lock:
            try:
                entry = self._published(scp)
            except DirectoryError as error:
                if error.code != _OBJECT_NOT_FOUND:
                    raise
                return
            _log.debug("removing the SCP %s", entry.dn)
            self._request(f"deleting {entry.dn!r}", "delete", entry.dn)

    # Inside -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def _write_spns(self, operation: SpnOperation, account: Account, spns: Sequence[str]) -> None:
        """Do what `write_account_spn` says, in one step that no other writer can come between."""

    def _find_account(self, account: str) -> Account:
        if "=" in account:
            found = self._search("(objectClass=user)", _ACCOUNT_COLUMNS, at=account)
        else:
            attribute = "userPrincipalName" if "@" in account else "sAMAccountName"
            found = self._search(f"(&(objectClass=user){_equals(attribute, account)})", _ACCOUNT_COLUMNS)
        return _account(_only(found, f"account {account!r}"))

    def _find_computer(self, host: str) -> str:
        names = _equals("dNSHostName", host) + _equals("sAMAccountName", host)
        found = self._search(f"(&(objectClass=computer)(|{names}))", ("dNSHostName",))
        return _only(found, f"computer object of {host!r}").dn

    def _published(self, scp: ServiceConnectionPoint) -> _Entry:
        if not scp.object_guid and not scp.dn:
            raise DirectoryError(f"the SCP {scp.name!r} is not published: pass what publish_scp or find_scps returned")
        guid = f"(objectGUID={escape_bytes(scp.object_guid.bytes_le)})" if scp.object_guid else ""
        found = self._search(
            f"(&{_IS_SCP}{guid})",
            _SCP_COLUMNS,
            # The DN changes when the object or its computer is moved or renamed; the objectGUID never does.
            at="" if scp.object_guid else scp.dn,
        )
        return _only(found, f"SCP {scp.dn or scp.name!r}")

    def _search(self, search_filter: str, attributes: Sequence[str], at: str = "") -> list[_Entry]:
        """Return what matches in the whole domain, or the one object at the DN `at` if it matches."""
        response = self._request(
            f"searching {at or self._base_dn!r}",
            "search",
            at or self._base_dn,
            search_filter,
            ldap3.BASE if at else ldap3.SUBTREE,
            attributes=list(attributes),
            missing_is_empty=True,
        )
        return [_Entry(str(entry["dn"]), _by_ldap_name(entry["raw_attributes"], attributes)) for entry in response]

    def _add(self, dn: str, object_class: str, attributes: Mapping[str, Sequence[str | bytes]]) -> None:
        self._request(f"adding {dn!r}", "add", dn, object_class, dict(attributes))

    def _modify(self, dn: str, values: Mapping[str, Sequence[str]]) -> None:
        """Replace the values of all these attributes in one request, which succeeds or fails as a whole."""
        changes = {name: [(ldap3.MODIFY_REPLACE, list(new))] for name, new in values.items()}
        self._request(f"modifying {dn!r}", "modify", dn, changes)

    def _request(
        self, what: str, operation: str, *arguments: object, missing_is_empty: bool = False, **options: object
    ) -> list[Any]:
        """Return what the directory answered to one request. The one place where ldap3 is called."""
        with self._lock:
            try:
                getattr(self._connection, operation)(*arguments, **options)
            except LDAPException as error:
                raise DirectoryError(f"{what} failed: {error}") from error
            result, response = self._connection.result, self._connection.response
        number = result["result"]
        if number == 32 and missing_is_empty:
            return []
        if number != 0:
            code, advice = _RESULTS.get(number, (0, result["message"] or "no reason given"))
            raise DirectoryError(
                f"{what} was refused: LDAP result {number} {result['description']}: {advice}", code=code
            )
        return response or []


class EmbeddedDirectory(Directory):
    """A directory in this process, for demonstrations and tests. It needs no network and keeps nothing.

    The store is ldap3's mock strategy with the schema of Active Directory 2012 R2. What that store lacks and a domain
    controller has, this class does itself: the objectGUID of a new object, the idempotent writing of SPNs (permissive
    modify), the refusal of an SPN that another account has. What it does not do: there is no authentication and no
    access control, so everybody may write everything; no alias of a service class (sPNMappings) is looked at when
    SPNs are compared; objects cannot be searched by an `objectCategory`, a matching rule or a `<GUID=...>` DN; an
    object can be deleted while others are below it; mandatory attributes are not enforced.
    """

    def __init__(self, domain: str) -> None:
        if not _DOMAIN.fullmatch(domain):
            raise DirectoryError(f"domain {domain!r} is no DNS name: give one such as 'example.test'")
        # ldap3 unescapes the objectGUID in a filter twice, and corrupts one whose bytes look like an escape, unless
        # its validator of GUIDs is replaced.
        validators = {"objectGUID": lambda value: True}
        server = ldap3.Server("embedded", get_info=ldap3.OFFLINE_AD_2012_R2, validator=validators)
        base_dn = ",".join(f"DC={label}" for label in domain.split("."))
        super().__init__(ldap3.Connection(server, client_strategy=ldap3.MOCK_SYNC), base_dn)
        self._domain = domain
        self._request("opening the embedded directory", "bind")
        self._add(base_dn, "domainDNS", {})
        for container in ("Computers", "Users"):
            self._add(f"CN={container},{base_dn}", "container", {})

    def __enter__(self) -> EmbeddedDirectory:
        return self

    def add_computer(self, dns_name: str) -> Account:
        """Create the account of the computer `dns_name` in CN=Computers and return it: web.example.test is `WEB$`."""
        name = dns_name.partition(".")[0].upper()[:15]
        return self._add_account("computer", "Computers", name, {"sAMAccountName": f"{name}$", "dNSHostName": dns_name})

    def add_user(self, name: str) -> Account:
        """Create the account of the user `name` in CN=Users and return it."""
        names = {"sAMAccountName": name, "userPrincipalName": f"{name}@{self._domain}"}
        return self._add_account("user", "Users", name, names)

    def _add_account(self, object_class: str, container: str, name: str, attributes: Mapping[str, str]) -> Account:
        if not name.strip() or any(_CONTROL.search(value) for value in attributes.values()):
            raise DirectoryError(f"account name {name!r} is empty or has control characters", code=_INVALID_PARAMETER)
        dn = f"CN={escape_rdn_value(name)},CN={container},{self._base_dn}"
        with self._lock:
            self._add(dn, object_class, {"cn": [name], **{key: [value] for key, value in attributes.items()}})
            return self._find_account(attributes["sAMAccountName"])

    def _add(self, dn: str, object_class: str, attributes: Mapping[str, Sequence[str | bytes]]) -> None:
        super()._add(dn, object_class, {**attributes, "objectGUID": [uuid4().bytes_le]})

    def _write_spns(self, operation: SpnOperation, account: Account, spns: Sequence[str]) -> None:
        # The mock has no permissive modify, and stores a value twice if told so. All writers of this directory hold
        # its lock, so what was read is still true when it is written back.
        spelled = {} if operation is SpnOperation.REPLACE else {spn.casefold(): spn for spn in account.spns}
        for spn in spns:
            if operation is SpnOperation.DELETE:
                spelled.pop(spn.casefold(), None)
            else:
                spelled.setdefault(spn.casefold(), spn)
        wanted = list(spelled.values())
        for spn in wanted:
            owners = [owner.dn for owner in self.find_spn(spn) if owner.dn != account.dn]
            if owners:
                raise DirectoryError(
                    f"SPN {spn!r} belongs to {owners[0]!r} already, and must be unique: delete it there first",
                    code=_SPN_NOT_UNIQUE,
                )
        if wanted != list(account.spns):
            self._modify(account.dn, {"servicePrincipalName": wanted})


def _equals(attribute: str, value: str) -> str:
    """Return the filter `(attribute=value)` with every octet of the value escaped. Source: RFC 4515 3.

    ldap3's escape_filter_chars leaves blanks alone, and its parser then strips those at the ends; with every octet
    escaped there is nothing left to misread.
    """
    if not value or _CONTROL.search(value):
        raise DirectoryError(
            f"cannot search for {attribute} {value!r}: it is empty or has control characters", code=_INVALID_PARAMETER
        )
    return f"({attribute}={escape_bytes(value.encode())})"


def _only(found: Sequence[_Entry], what: str) -> _Entry:
    if len(found) == 1:
        return found[0]
    if not found:
        raise DirectoryError(f"there is no {what}: check the name, or create it first", code=_OBJECT_NOT_FOUND)
    raise DirectoryError(f"there are {len(found)} objects for {what}, expected one: give the DN, or remove the others")


def _by_ldap_name(values: Mapping[str, Sequence[bytes]], names: Sequence[str]) -> dict[str, Sequence[bytes]]:
    """Return `values` under the spelling of `names`: a directory may answer in another case."""
    folded = {name.casefold(): value for name, value in values.items()}
    return {name: folded.get(name.casefold(), ()) for name in names}


def _account(entry: _Entry) -> Account:
    name = b"".join(entry.attributes["sAMAccountName"]).decode(errors="replace")
    spns = tuple(value.decode(errors="replace") for value in entry.attributes["servicePrincipalName"])
    return Account(entry.dn, name, spns)


def _scp(entry: _Entry) -> ServiceConnectionPoint:
    guid = b"".join(entry.attributes["objectGUID"])
    if len(guid) != 16:
        raise DirectoryError(f"the SCP {entry.dn!r} is not usable: its objectGUID has {len(guid)} bytes, expected 16")
    return ServiceConnectionPoint.from_attributes(entry.dn, entry.attributes, UUID(bytes_le=guid))


def _comparable(name: str, values: Any) -> list[bytes]:
    # LDAP keeps no order among values; and a host name is the same in any case.
    return sorted(value.lower() if name == "serviceDNSName" else value for value in values)
