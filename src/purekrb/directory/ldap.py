"""Sessions with a directory over LDAP: requests as typed calls, failures as DirectoryError.

The only file that imports ldap3; no exception of ldap3 leaves it. Source: RFC 4511.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any
from uuid import UUID

from purekrb.errors import DirectoryError, InsufficientRightsError

with warnings.catch_warnings():
    # ldap3 2.9 uses names that pyasn1 0.6 has renamed; the warning about it is not for who imports purekrb.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3
    from ldap3.core.exceptions import LDAPException
    from ldap3.utils.conv import escape_bytes

__all__ = [
    "CONTROL_CHARACTERS",
    "INVALID_PARAMETER",
    "OBJECT_EXISTS",
    "OBJECT_NOT_FOUND",
    "PERMISSIVE_MODIFY",
    "SPN_NOT_UNIQUE",
    "Change",
    "ChangeOperation",
    "Control",
    "Entry",
    "LdapSession",
    "Scope",
    "any_equals",
    "equals",
    "like",
    "mock_connection",
    "object_guid",
    "sd_flags",
    "single",
]

#: Windows error numbers: what `DirectoryError.code` may be.
INVALID_PARAMETER = 87
OBJECT_EXISTS = 8305
OBJECT_NOT_FOUND = 8333
SPN_NOT_UNIQUE = 8647

#: LDAP result codes (RFC 4511 4.1.9) that a caller can act upon: the Windows error number, and the advice.
_RESULTS = {
    8: (8232, "it demands a signed or encrypted connection: use sealing or TLS"),
    10: (8235, "another server holds the object, and referrals are not followed: connect to a writable one there"),
    32: (OBJECT_NOT_FOUND, "the object does not exist: check the name, or create it first"),
    34: (8242, "the DN is malformed: give it as the directory returns it"),
    50: (8344, "the account you are bound as may not do this: ask an administrator for the right, or to do it"),
    51: (8206, "the server is busy: try again later"),
    52: (8207, "the server is not available: try again later, or another one"),
    53: (8245, "the server is a global catalog or read-only: connect to a writable domain controller"),
    68: (OBJECT_EXISTS, "an object of this name exists already: choose another name, or remove it first"),
}
_NO_SUCH_OBJECT, _INSUFFICIENT_ACCESS_RIGHTS = 32, 50
#: How Windows and mostly also Samba begin their diagnostic message: with the Windows error number.
_WINDOWS_ERROR = re.compile(r"([0-9A-Fa-f]{8}): ")
#: What a domain controller of default configuration returns at most in one page (MaxPageSize).
_PAGE_SIZE = 1000
_PAGED_RESULTS = "1.2.840.113556.1.4.319"
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

#: A control of a request: its OID, whether the directory must fail if it does not know it, its BER value if any.
Control = tuple[str, bool, "bytes | None"]
#: Adding values that are there and deleting values that are not is no error. Source: MS-ADTS 3.1.1.3.4.1.8.
PERMISSIVE_MODIFY: Control = ("1.2.840.113556.1.4.1413", True, None)


def sd_flags(flags: int) -> Control:
    """Return the control that says which parts of nTSecurityDescriptor are meant: owner 1, group 2, DACL 4, SACL 8.

    Source: MS-ADTS 3.1.1.3.4.1.11.
    """
    return "1.2.840.113556.1.4.801", True, bytes((0x30, 3, 2, 1, flags))


class Scope(Enum):
    """How far below its base a search goes."""

    BASE = ldap3.BASE
    LEVEL = ldap3.LEVEL
    SUBTREE = ldap3.SUBTREE


class ChangeOperation(Enum):
    """What a change does with the values of an attribute. Source: RFC 4511 4.6."""

    ADD = ldap3.MODIFY_ADD
    DELETE = ldap3.MODIFY_DELETE
    REPLACE = ldap3.MODIFY_REPLACE


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one attribute. DELETE without values deletes the attribute; so does REPLACE."""

    operation: ChangeOperation
    attribute: str
    values: Sequence[str | bytes] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """What a search found: the DN, and raw values by LDAP name, none where the object has no such attribute."""

    dn: str
    attributes: Mapping[str, Sequence[bytes]]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the values of the attribute `name` as text; what is no UTF-8 becomes U+FFFD."""
        return tuple(value.decode(errors="replace") for value in self.attributes.get(name, ()))

    def text(self, name: str) -> str:
        """Return the only (or first) value of the attribute `name` as text, "" where there is none."""
        return next(iter(self.texts(name)), "")


class LdapSession:
    """A session with a directory over one bound ldap3 connection of a synchronous strategy; for several threads.

    `base_dn` is where searches of everything begin: by default the domain, "" for the forest on a global catalog.
    What fails raises DirectoryError, whose `code` is the Windows error number of the failure.
    """

    def __init__(self, connection: Any, base_dn: str | None = None) -> None:
        self._connection = connection
        self._base_dn = base_dn
        # An ldap3 connection keeps the result of its last request, which another thread must not replace.
        self._lock = threading.RLock()

    @cached_property
    def root_dse(self) -> Entry:
        """What the directory says of itself. Source: RFC 4512 5.1; MS-ADTS 3.1.1.3.2."""
        (entry,) = self.search("", "(objectClass=*)", ("*",), scope=Scope.BASE)
        return entry

    @cached_property
    def base_dn(self) -> str:
        """Where searches of everything begin."""
        return self.root_dse.text("defaultNamingContext") if self._base_dn is None else self._base_dn

    @property
    def domain(self) -> str:
        """The DNS name of the domain whose naming context `base_dn` is."""
        labels = (rdn.partition("=") for rdn in self.base_dn.split(","))
        return ".".join(label for attribute, _, label in labels if attribute.upper() == "DC")

    def search(
        self,
        base: str,
        search_filter: str,
        attributes: Sequence[str] = (),
        *,
        scope: Scope = Scope.SUBTREE,
        controls: Sequence[Control] = (),
    ) -> list[Entry]:
        """Return all that match, however many pages they fill; nothing where there is no object `base`.

        Entries have the attributes under the spelling of `attributes`; "*" stands for all, as the directory spells
        them. Referrals to other directories are not followed.
        """
        found: list[Entry] = []
        cookie: bytes | None = None
        while True:
            result, response = self._request(
                f"searching {base!r}",
                "search",
                base,
                search_filter,
                scope.value,
                attributes=list(attributes),
                controls=list(controls) or None,
                paged_size=None if scope is Scope.BASE else _PAGE_SIZE,
                paged_cookie=cookie,
                accepted=(_NO_SUCH_OBJECT,),
            )
            found += [
                Entry(str(entry["dn"]), _by_ldap_name(entry["raw_attributes"], attributes))
                for entry in response
                if entry["type"] == "searchResEntry"
            ]
            cookie = (result.get("controls") or {}).get(_PAGED_RESULTS, {}).get("value", {}).get("cookie")
            if not cookie:
                return found

    def add(self, dn: str, object_class: str, attributes: Mapping[str, Sequence[str | bytes]]) -> None:
        """Create the object `dn`."""
        self._request(f"adding {dn!r}", "add", dn, object_class, dict(attributes))

    def modify(
        self, dn: str, changes: Iterable[Change], *, permissive: bool = False, controls: Sequence[Control] = ()
    ) -> None:
        """Make all `changes` of the object `dn` in one request, which succeeds or fails as a whole.

        Those of one attribute are made in their order. `permissive` adds PERMISSIVE_MODIFY to the controls.
        """
        by_attribute: dict[str, list[tuple[str, list[str | bytes]]]] = {}
        for change in changes:
            by_attribute.setdefault(change.attribute, []).append((change.operation.value, list(change.values)))
        controls = [*controls, PERMISSIVE_MODIFY] if permissive else list(controls)
        self._request(f"modifying {dn!r}", "modify", dn, by_attribute, controls=controls or None)

    def rename(self, dn: str, rdn: str) -> None:
        """Give the object `dn` the new relative DN `rdn`."""
        self._request(f"renaming {dn!r}", "modify_dn", dn, rdn)

    def delete(self, dn: str) -> None:
        """Delete the object `dn`."""
        self._request(f"deleting {dn!r}", "delete", dn)

    def close(self) -> None:
        """End the connection, whatever became of it."""
        with self._lock, suppress(LDAPException):  # unlike all else, it has no answer, and the last one stays as it was
            self._connection.unbind()

    def _request(
        self, what: str, operation: str, *arguments: object, accepted: Sequence[int] = (), **options: object
    ) -> tuple[Mapping[str, Any], list[Any]]:
        """Return the result of one request, and the entries of a search. The one place where requests are sent."""
        with self._lock:
            try:
                getattr(self._connection, operation)(*arguments, **options)
            except LDAPException as error:
                raise DirectoryError(f"{what} failed: {error}") from error
            result, response = self._connection.result, self._connection.response
        number = result["result"]
        if number != 0 and number not in accepted:
            raise _refusal(what, number, result["description"], result["message"])
        return result, response or []


def _refusal(what: str, number: int, description: str, diagnostic: str) -> DirectoryError:
    """Return the error for the LDAP result `number`."""
    windows_error = _WINDOWS_ERROR.match(diagnostic)
    code, advice = _RESULTS.get(number, (int(windows_error[1], 16) if windows_error else 0, ""))
    kind = InsufficientRightsError if number == _INSUFFICIENT_ACCESS_RIGHTS else DirectoryError
    # The diagnostic is the server's own text, and may be anything.
    said = f"the server says {diagnostic[:500]!r}" if diagnostic else "the server says no more"
    return kind(
        f"{what} was refused: LDAP result {number} {description}: {advice or said}",
        code=code,
        ldap_result=number,
        diagnostic=diagnostic,
    )


def mock_connection() -> Any:
    """Return a bound connection to a new and empty store in this process: ldap3's mock strategy, AD's schema."""
    # ldap3 unescapes the objectGUID in a filter twice, and corrupts one whose bytes look like an escape, unless
    # its validator of GUIDs is replaced. The same with SIDs.
    validators = {"objectGUID": lambda value: True, "objectSid": lambda value: True}
    server = ldap3.Server("embedded", get_info=ldap3.OFFLINE_AD_2012_R2, validator=validators)
    connection = ldap3.Connection(server, client_strategy=ldap3.MOCK_SYNC)
    connection.bind()
    return connection


def equals(attribute: str, value: str | bytes) -> str:
    """Return the filter `(attribute=value)` with every octet of the value escaped. Source: RFC 4515 3.

    ldap3's escape_filter_chars leaves blanks alone, and its parser then strips those at the ends; with every octet
    escaped there is nothing left to misread. Raises DirectoryError for text that is empty or has control characters.
    """
    if isinstance(value, str):
        if not value or CONTROL_CHARACTERS.search(value):
            raise DirectoryError(
                f"cannot search for {attribute} {value!r}: it is empty or has control characters",
                code=INVALID_PARAMETER,
            )
        value = value.encode()
    return f"({attribute}={escape_bytes(value)})"


def any_equals(attribute: str, values: Iterable[str | bytes]) -> str:
    """Return the filter that holds where `attribute` has one of `values`."""
    return f"(|{''.join(equals(attribute, value) for value in values)})"


def like(attribute: str, pattern: str) -> str:
    """Return the filter `(attribute=pattern)` in which "*" stands for anything, and all else for itself."""
    if not pattern or CONTROL_CHARACTERS.search(pattern):
        raise DirectoryError(
            f"cannot search for {attribute} {pattern!r}: it is empty or has control characters", code=INVALID_PARAMETER
        )
    return f"({attribute}={re.sub('[^*]+', lambda part: escape_bytes(part[0].encode()), re.sub('[*]+', '*', pattern))})"


def single(found: Sequence[Entry], what: str, missing: type[DirectoryError] = DirectoryError) -> Entry:
    """Return the one entry that was `found`.

    Raises `missing` where there is none and DirectoryError where there are several: never a guess.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        raise missing(f"there is no {what}: check the name, or create it first", code=OBJECT_NOT_FOUND)
    raise DirectoryError(f"there are {len(found)} objects for {what}, expected one: give the DN, or remove the others")


def object_guid(entry: Entry) -> UUID:
    """Return the objectGUID of `entry`. Raises DirectoryError where it has none that can be."""
    guid = b"".join(entry.attributes["objectGUID"])
    if len(guid) != 16:
        raise DirectoryError(
            f"the object {entry.dn!r} is not usable: its objectGUID has {len(guid)} bytes, expected 16"
        )
    return UUID(bytes_le=guid)


def _by_ldap_name(values: Mapping[str, Sequence[bytes]], names: Sequence[str]) -> dict[str, Sequence[bytes]]:
    """Return `values` under the spelling of `names`: a directory may answer in another case."""
    if "*" in names:
        return dict(values)
    folded = {name.casefold(): value for name, value in values.items()}
    return {name: folded.get(name.casefold(), ()) for name in names}
