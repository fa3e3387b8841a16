"""Service connection points: the objects in which a service publishes where it can be found. Pure data.

Source: the classSchema serviceConnectionPoint of MS-ADSC and its attributes in MS-ADA1 to MS-ADA3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from purekrb.errors import DirectoryError
from purekrb.spn import make_spn

__all__ = ["DNS_NAME", "SCP_ATTRIBUTES", "ServiceConnectionPoint"]

#: What is read and written, besides cn and objectGUID.
SCP_ATTRIBUTES = (
    "serviceClassName",
    "serviceDNSName",
    "serviceDNSNameType",
    "serviceBindingInformation",
    "keywords",
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: At least two labels of letters, digits, "-" and "_" (SRV owner names have it), and no IPv4 address.
DNS_NAME = re.compile(r"(?![0-9.]+\Z)(?=.{1,254}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})+\.?")
_PORT = re.compile(r"[0-9]{1,5}")
_GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True, slots=True)
class ServiceConnectionPoint:
    """A service connection point (SCP).

    `name` is its cn; `dns_name` the host where the service runs, or with `dns_name_type` "SRV" the owner name of SRV
    records; `bindings` what a client needs to connect, by convention the port in decimal (a directory
    keeps no order among several values); `keywords` what a
    client searches for, by convention GUIDs of the product and the vendor, and readable names. `dn` and
    `object_guid` are known once it is in a directory. Every value is checked, wherever it comes from: a client is
    about to connect to it. Raises DirectoryError.
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
        # Sequences given as lists are common in callers' code; what is kept must be immutable.
        object.__setattr__(self, "bindings", tuple(self.bindings))
        object.__setattr__(self, "keywords", tuple(self.keywords))
        object.__setattr__(self, "dns_name_type", self.dns_name_type.upper())
        self._check_text("name", self.name, 64)
        self._check_text("serviceClassName", self.service_class_name, 256)
        if "/" in self.service_class_name:
            raise self._unusable(
                f"serviceClassName {self.service_class_name!r} contains '/', which ends it in an SPN"
            )
        if not DNS_NAME.fullmatch(self.dns_name):
            raise self._unusable(f"serviceDNSName {self.dns_name!r} is no fully qualified DNS name")
        if self.dns_name_type not in ("A", "SRV"):
            raise self._unusable(
                f"serviceDNSNameType is {self.dns_name_type!r}, expected 'A' or 'SRV'"
            )
        if _CONTROL.search(self.dn):
            raise self._unusable("its DN has control characters")
        if not self.bindings:
            raise self._unusable(
                "serviceBindingInformation is empty, expected the port in decimal first"
            )
        for value in self.bindings:
            self._check_text("serviceBindingInformation", value, 1024)
        for value in self.keywords:
            self._check_text("keywords", value, 256)

    @classmethod
    def from_attributes(
        cls, dn: str, attributes: Mapping[str, Sequence[bytes]], object_guid: UUID | None = None
    ) -> ServiceConnectionPoint:
        """Return the SCP that a directory holds at `dn`; `attributes` maps LDAP names to raw values.

        Raises DirectoryError for a missing attribute, several values where one belongs, bytes that are no UTF-8,
        and values that no client could use.
        """

        def texts(name: str) -> tuple[str, ...]:
            try:
                return tuple(value.decode() for value in attributes.get(name, ()))
            except UnicodeDecodeError:
                raise DirectoryError(f"the SCP {dn!r} is not usable: {name} is no UTF-8") from None

        def text(name: str) -> str:
            values = texts(name)
            if len(values) != 1:
                raise DirectoryError(
                    f"the SCP {dn!r} is not usable: {name} has {len(values)} values, expected one"
                )
            return values[0]

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
        """Return what a directory stores, by LDAP name, without objectClass, cn and objectGUID."""
        return {
            "serviceClassName": [self.service_class_name],
            "serviceDNSName": [self.dns_name],
            "serviceDNSNameType": [self.dns_name_type],
            "serviceBindingInformation": list(self.bindings),
            "keywords": list(self.keywords),
        }

    @property
    def port(self) -> int:
        """The port: the first value of `bindings`. Raises DirectoryError where that is no number of 1 to 65535."""
        value = self.bindings[0]
        if not _PORT.fullmatch(value) or not 1 <= int(value) <= 65535:
            raise self._unusable(
                f"serviceBindingInformation begins with {value!r}, expected a port of 1 to 65535 in decimal; "
                "parse `bindings` yourself if the service has a format of its own"
            )
        return int(value)

    def spn(self, host: str = "", *, by_guid: bool = False) -> str:
        """Return the SPN with which a client asks for the service: `class/host/DN`.

        `by_guid` puts the objectGUID in the place of the DN, for DNs that cannot stand in an SPN (they contain "/") or
        that some KDCs do not find (they contain blanks or backslashes). The service must have registered the same
        form. `host` overrides `dns_name`; it is needed for the type "SRV", whose host comes from the DNS.
        Raises DirectoryError where the SCP was never in a directory, SpnError for a DN with "/".
        """
        if not host and self.dns_name_type == "SRV":
            raise self._unusable(
                "its serviceDNSName is that of SRV records: resolve them and pass the host"
            )
        service_name = str(self.object_guid or "") if by_guid else self.dn
        if not service_name:
            raise self._unusable(
                f"its {'objectGUID' if by_guid else 'DN'} is not known: use what publish_scp or find_scps returned"
            )
        return make_spn(self.service_class_name, service_name, (host or self.dns_name).rstrip("."))

    def spns(self, host: str = "") -> tuple[str, ...]:
        """Return the SPNs of the service on `host` (by default `dns_name`): with the DN, and with the objectGUID.

        A service registers both. A client asks for the first, and for the second where the KDC does not know that: some
        do not find a DN with blanks or backslashes. Of an SCP whose DN contains "/" there is the second alone.
        Raises DirectoryError as `spn` does.
        """
        by_guid = self.spn(host, by_guid=True)
        return (by_guid,) if "/" in self.dn else (self.spn(host), by_guid)

    def same_service(self, other: ServiceConnectionPoint) -> bool:
        """Return whether both describe one product: same service class, and every GUID keyword here is there too."""
        guids = {keyword.casefold() for keyword in self.keywords if _GUID.fullmatch(keyword)}
        return (
            bool(guids)
            and guids <= {keyword.casefold() for keyword in other.keywords}
            and self.service_class_name.casefold() == other.service_class_name.casefold()
        )

    def _check_text(self, what: str, value: str, limit: int) -> None:
        if not value.strip() or len(value) > limit or _CONTROL.search(value):
            raise self._unusable(f"{what} {value[:limit]!r} is not text of 1 to {limit} characters")

    def _unusable(self, why: str) -> DirectoryError:
        return DirectoryError(f"the SCP {self.dn or self.name!r} is not usable: {why}")
