"""Service connection points: the objects in which services publish where they listen. Pure data.

Source: the classSchema serviceConnectionPoint in MS-ADSC, its attributes in MS-ADA1 to MS-ADA3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from purekrb.directory.patterns import CONTROL_CHARACTERS, DNS_NAME, GUID
from purekrb.errors import DirectoryError
from purekrb.spn import make_spn

__all__ = ["SCP_ATTRIBUTES", "ServiceConnectionPoint"]

#: The attributes that are read and written, beside cn and objectGUID.
SCP_ATTRIBUTES = (
    "serviceClassName",
    "serviceDNSName",
    "serviceDNSNameType",
    "serviceBindingInformation",
    "keywords",
)
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class ServiceConnectionPoint:
    """A service connection point (SCP).

    name: the cn.
    service_class_name: the service class, as in SPNs.
    dns_name: the host where the service runs; or, if `dns_name_type` is "SRV", the owner of the SRV
        records that name host and port. Other types are the products' own.
    bindings: the values that a client needs to connect; by convention, the port in decimal. A
        directory does not keep the order of several values.
    keywords: the values that clients search for; by convention, the GUIDs of the product and the
        vendor, and readable names.
    dn, object_guid: known once the SCP is in a directory.

    An SCP that you compose (without `object_guid`) is checked at once, and DirectoryError is raised
    for values that clients cannot use. An SCP from a directory is kept as it is there: the schema
    requires none of these attributes, and products use them in their own ways. A missing value is
    "" or (). `check` says whether it is complete; everything that connects to it, composes an SPN
    of it or writes it calls that first.
    """

    name: str
    service_class_name: str
    dns_name: str
    bindings: tuple[str, ...]
    keywords: tuple[str, ...]
    dns_name_type: str = "A"
    dn: str = ""
    object_guid: UUID | None = None

    def __post_init__(self) -> None:
        # Callers often pass lists, but a frozen object must hold immutable values.
        object.__setattr__(self, "bindings", tuple(self.bindings))
        object.__setattr__(self, "keywords", tuple(self.keywords))
        object.__setattr__(self, "dns_name_type", self.dns_name_type.upper())
        if self.object_guid is None:
            self.check()

    def check(self, *, place: bool = True) -> None:
        """Raise DirectoryError unless clients can use each value.

        Without `place`, the values that say where the service listens are not looked at:
        `dns_name`, `dns_name_type` and `bindings`.
        """
        self._check_text("name", self.name, 64)
        self._check_text("serviceClassName", self.service_class_name, 256)
        if "/" in self.service_class_name:
            raise self._unusable(
                f"serviceClassName {self.service_class_name!r} contains '/', which ends it in an "
                "SPN"
            )
        if CONTROL_CHARACTERS.search(self.dn):
            raise self._unusable("its DN has control characters")
        for value in self.keywords:
            self._check_text("keywords", value, 256)
        if place:
            self._check_place()

    def _check_place(self) -> None:
        self._check_present("serviceDNSName", self.dns_name)
        if not DNS_NAME.fullmatch(self.dns_name):
            raise self._unusable(
                f"serviceDNSName {self.dns_name!r} is not a fully qualified DNS name"
            )
        self._check_present("serviceDNSNameType", self.dns_name_type)
        if self.dns_name_type not in ("A", "SRV"):
            raise self._unusable(
                f"serviceDNSNameType is {self.dns_name_type!r}, expected 'A' or 'SRV'"
            )
        if not self.bindings:
            raise self._unusable(
                "serviceBindingInformation is empty, expected the port in decimal first"
            )
        for value in self.bindings:
            self._check_text("serviceBindingInformation", value, 1024)

    @classmethod
    def from_attributes(
        cls, dn: str, attributes: Mapping[str, Sequence[bytes]], object_guid: UUID | None = None
    ) -> ServiceConnectionPoint:
        """Return the SCP at `dn` in a directory; `attributes` maps LDAP names to raw values.

        Raises DirectoryError for several values of an attribute with one, for bytes that are not
        UTF-8, and, if `object_guid` is None, the errors of `check`.
        """

        def texts(name: str) -> tuple[str, ...]:
            try:
                return tuple(value.decode() for value in attributes.get(name, ()))
            except UnicodeDecodeError:
                raise DirectoryError(f"the SCP {dn!r} is not usable: {name} is not UTF-8") from None

        def text(name: str) -> str:
            values = texts(name)
            if len(values) > 1:
                raise DirectoryError(
                    f"the SCP {dn!r} is not usable: {name} has {len(values)} values, expected one"
                )
            return "".join(values)

        return cls(
            name=(texts("cn") or ("",))[0],
            service_class_name=text("serviceClassName"),
            dns_name=text("serviceDNSName"),
            dns_name_type=text("serviceDNSNameType"),
            bindings=texts("serviceBindingInformation"),
            keywords=texts("keywords"),
            dn=dn,
            object_guid=object_guid,
        )

    def attributes(self) -> dict[str, list[str]]:
        """Return the stored values by LDAP name, without objectClass, cn and objectGUID."""
        return {
            "serviceClassName": [self.service_class_name],
            "serviceDNSName": [self.dns_name],
            "serviceDNSNameType": [self.dns_name_type],
            "serviceBindingInformation": list(self.bindings),
            "keywords": list(self.keywords),
        }

    @property
    def port(self) -> int:
        """The port: the first value of `bindings`.

        Raises DirectoryError unless that is a number from 1 to 65535.
        """
        value = "".join(self.bindings[:1])
        if not _PORT.fullmatch(value) or not 1 <= int(value) <= 65535:
            raise self._unusable(
                f"serviceBindingInformation begins with {value!r}, "
                "expected a port from 1 to 65535 in decimal; "
                "parse `bindings` yourself (`find_endpoints(..., parse=...)`) if the service has a "
                "format of its own"
            )
        return int(value)

    def spn(self, host: str = "", *, by_guid: bool = False) -> str:
        """Return the SPN with which a client asks for the service: `class/host/DN`.

        `by_guid` puts the objectGUID in place of the DN. It serves for DNs that are not allowed in
        an SPN (with "/"), and for DNs that some KDCs do not find (with blanks or backslashes). The
        service must have registered the same form. `host` overrides `dns_name`; it is required for
        the type "SRV", whose hosts come from the DNS. Raises DirectoryError if the SCP was never in
        a directory, the errors of `check`, and SpnError for a DN with "/".
        """
        self.check(place=not host)
        if not host and self.dns_name_type == "SRV":
            raise self._unusable(
                "its serviceDNSName is the owner of SRV records: resolve them and pass the host"
            )
        service_name = str(self.object_guid or "") if by_guid else self.dn
        if not service_name:
            raise self._unusable(
                f"its {'objectGUID' if by_guid else 'DN'} is not known: "
                "use the SCP that publish_scp or find_scps returned"
            )
        return make_spn(self.service_class_name, service_name, (host or self.dns_name).rstrip("."))

    def spns(self, host: str = "") -> tuple[str, ...]:
        """Return the SPNs of the service on `host` (by default, `dns_name`).

        The first has the DN, the second the objectGUID. A service registers both. A client asks for
        the first; if the KDC does not know it, the client asks for the second, because some KDCs do
        not find a DN with blanks or backslashes. If the DN contains "/", there is only the second.
        Raises the errors of `spn`.
        """
        by_guid = self.spn(host, by_guid=True)
        return (by_guid,) if "/" in self.dn else (self.spn(host), by_guid)

    def same_service(self, other: ServiceConnectionPoint) -> bool:
        """Return whether both describe one product.

        The service class is the same, and `other` has every GUID among the keywords of this SCP.
        """
        guids = {keyword.casefold() for keyword in self.keywords if GUID.fullmatch(keyword)}
        return (
            bool(guids)
            and guids <= {keyword.casefold() for keyword in other.keywords}
            and self.service_class_name.casefold() == other.service_class_name.casefold()
        )

    def _check_present(self, what: str, value: str) -> None:
        if not value:
            raise self._unusable(f"it has no {what}")

    def _check_text(self, what: str, value: str, limit: int) -> None:
        self._check_present(what, value)
        if not value.strip() or len(value) > limit or CONTROL_CHARACTERS.search(value):
            raise self._unusable(f"{what} {value[:limit]!r} is not text of 1 to {limit} characters")

    def _unusable(self, why: str) -> DirectoryError:
        return DirectoryError(f"the SCP {self.dn or self.name!r} is not usable: {why}")
