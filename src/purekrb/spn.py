"""Service principal names: parse, make, get, crack. Pure text; the grammar is

    spn = serviceclass "/" host [ ":" ( port | instancename ) ] [ "/" servicename ]

Source: MS-ADTS 2.2.21; the functions DsMakeSpn, DsGetSpn and DsCrackSpn of the Windows directory service API.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from purekrb import system
from purekrb.constants import NameType
from purekrb.dn import dn_key
from purekrb.errors import SpnError
from purekrb.names import MAX_TEXT, Principal

__all__ = [
    "ServicePrincipalName",
    "SpnType",
    "CrackedSpn",
    "make_spn",
    "get_spn",
    "crack_spn",
    "is_address",
    "local_dns_name",
    "map_spn",
    "target_principal",
]

_PORT = re.compile(r"[1-9][0-9]{0,4}")
#: What no directory and no KerberosString can hold: NUL, and surrogates, which have no UTF-8 form.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_REALM = re.compile(r"[A-Z0-9][A-Z0-9._-]*")
#: How a marshalled CREDENTIAL_TARGET_INFORMATION begins when it is appended to a host name: its magic and its size.
_MARSHALLED = "1UWhRCA"


class SpnType(IntEnum):
    """What the host and the service name of an SPN stand for: DS_SPN_NAME_TYPE."""

    DNS_HOST = 0
    DN_HOST = 1
    NB_HOST = 2
    DOMAIN = 3
    NB_DOMAIN = 4
    SERVICE = 5


class CrackedSpn(NamedTuple):
    """The arguments with which `make_spn` makes the same SPN again."""

    service_class: str
    service_name: str
    instance_name: str | None
    instance_port: int


@dataclass(frozen=True, slots=True, eq=False)
class ServicePrincipalName:
    """A service principal name in parts. `str()` gives its text, spelled as it was parsed.

    `port` 0 means none; `instance_name` is what stands in the port's place in, for example, `MSSQLSvc/host:INSTANCE`;
    `service_name` is None for a host-based service. Two are equal where a directory would take them for the same
    name (see `key`), though a KDC may compare the text exactly.
    """

    service_class: str
    host: str
    port: int = 0
    service_name: str | None = None
    instance_name: str | None = None

    def __post_init__(self) -> None:
        for part in (self.service_class, self.host, self.instance_name, self.service_name):
            if part and _NO_TEXT.search(part):
                raise SpnError(f"{part!r} contains NUL or a lone surrogate: an SPN is text")
            _check_slash(part)
        if not 0 <= self.port <= 65535:
            raise SpnError(f"port {self.port} is out of range, expected 1 to 65535, or 0 for none")
        if ":" in self.host:
            raise SpnError(
                f"host {self.host!r} contains ':': give the port or the instance name apart from the host"
            )
        if self.port and self.instance_name is not None:
            raise SpnError("an SPN has either a port or an instance name, not both: leave one out")
        # The least that a directory demands of a value; parse(strict=True) demands more.
        if not self.service_class or not (self.host or self.service_name):
            raise SpnError(
                f"SPN {str(self)!r} has an empty service class or host: write class/host"
            )

    @classmethod
    def parse(cls, text: str, *, strict: bool = True) -> ServicePrincipalName:
        """Return the SPN that `text` spells. Every "/" separates: a backslash does not hide one.

        Behind the first ":" of the second part stands a port where it is a decimal number of 1 to 65535, an
        instance name otherwise. `strict` refuses what is no sensible SPN: control characters, empty parts, blanks
        around a part, IPv6 addresses, and digits that are no port. `strict=False` takes what Active Directory stores
        (an empty third part, "a//b" ...), for reading such values back.
        Raises SpnError.
        """
        if len(text) > MAX_TEXT:
            raise SpnError(f"an SPN of {len(text)} characters is longer than {MAX_TEXT}")
        parts = text.split("/")
        if len(parts) not in (2, 3):
            raise SpnError(
                f"SPN {text!r} has {len(parts) - 1} slashes, expected class/host[:port][/servicename]; "
                "where the service name is a DN that contains '/', use the objectGUID of the object in its place"
            )
        host, colon, suffix = parts[1].partition(":")
        port = int(suffix) if _PORT.fullmatch(suffix) and int(suffix) <= 65535 else 0
        if strict:
            _check_strict(text, parts, suffix if colon and not port else None)
        return cls(
            parts[0],
            host,
            port,
            parts[2] if len(parts) == 3 else None,
            suffix if colon and not port else None,
        )

    @property
    def components(self) -> tuple[str, ...]:
        """The name-string of the Kerberos name: class, host[:port] and, where there is one, the service name."""
        suffix = self._suffix
        host = self.host if suffix is None else f"{self.host}:{suffix}"
        service_name = () if self.service_name is None else (self.service_name,)
        return (self.service_class, host, *service_name)

    @property
    def key(self) -> tuple[object, ...]:
        """What two SPNs of the same meaning have in common: no case, no trailing dot, a DN without its spelling.

        For comparisons on this side only: a KDC and a directory compare text, so what is sent is never normalised.
        """
        name = self.service_name
        return (
            self.service_class.casefold(),
            self.host.casefold().removesuffix("."),
            None if self._suffix is None else self._suffix.casefold(),
            None if name is None else dn_key(name) or name.casefold(),
        )

    @property
    def _suffix(self) -> str | None:
        return str(self.port) if self.port else self.instance_name

    def __str__(self) -> str:
        return "/".join(self.components)

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, ServicePrincipalName) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)


def make_spn(
    service_class: str,
    service_name: str,
    instance_name: str | None = None,
    instance_port: int = 0,
    referrer: str | None = None,
) -> str:
    """Return the SPN with which a client asks for a service: DsMakeSpn.

    For a host-based service give the host as `service_name`: `class/host[:port]`. For a service that is found through
    an object, give the object's DN (or objectGUID) as `service_name` and the host as `instance_name`:
    `class/host[:port]/DN`. `referrer` is the host that referred the client to `service_name`, and counts only where
    that is an IP address: `class/10.0.0.1[:port]/referrer`. `instance_port` 0 means none.
    Raises SpnError (code 87) for an empty class or name, "/" or control characters anywhere, ":" in the host, and a
    port beyond 65535.
    """
    for what, value in (("service class", service_class), ("service name", service_name)):
        if not value:
            raise SpnError(
                f"the {what} of an SPN is empty: give both, as in make_spn('HTTP', 'web.example.com')"
            )
    _check_slash(referrer)  # even where it does not count, as in the C function
    third = service_name if instance_name else None
    if referrer and is_address(service_name):
        third = referrer
    spn = str(
        ServicePrincipalName(service_class, instance_name or service_name, instance_port, third)
    )
    if _CONTROL.search(spn):
        raise SpnError(f"SPN {spn!r} would contain a control character: take it out of the names")
    return spn


def get_spn(
    spn_type: SpnType | int,
    service_class: str,
    service_name: str | None = None,
    port: int = 0,
    instances: Sequence[str] = (),
    ports: Sequence[int] | None = (),
) -> list[str]:
    """Return the SPNs that a service registers, one per instance, in their order: DsGetSpn.

    Without `instances` there is one SPN, for this machine, with `port`; `ports` is then not looked at. With
    `instances` (host names), `port` is not looked at: the ports come from `ports`, which is empty or as long as
    `instances`; a port of 0 means none. DNS_HOST, DN_HOST and NB_HOST make `class/host[:port]` and take no
    `service_name`; DOMAIN, NB_DOMAIN and SERVICE make `class/host[:port]/servicename` and need one: the domain's
    name, or for SERVICE the DN or objectGUID of a service connection point or the DNS name of an SRV record.
    Raises SpnError (code 87) for anything else, and where this machine does not know its own DNS name.
    """
    try:
        spn_type = SpnType(spn_type)
    except ValueError:
        raise SpnError(f"SPN type {spn_type!r} is unknown: use a member of SpnType") from None
    if isinstance(instances, str):
        raise TypeError("instances is a sequence of host names, not one string")
    named = spn_type in (SpnType.DOMAIN, SpnType.NB_DOMAIN, SpnType.SERVICE)
    if named and not service_name:
        raise SpnError(
            f"SPN type {spn_type.name} needs a service name: a domain, a DN, an objectGUID or an SRV name"
        )
    if not named and service_name is not None:
        raise SpnError(
            f"SPN type {spn_type.name} takes no service name: leave it out, or use SpnType.SERVICE"
        )
    if not instances:
        instances, ports = [_local_host(spn_type)], [port]
    elif not ports:
        ports = [0] * len(instances)
    elif len(ports) != len(instances):
        raise SpnError(
            f"{len(instances)} instances but {len(ports)} ports: give one port (0 for none) per instance"
        )
    if not all(instances):
        raise SpnError(
            "an instance name is empty: leave out the instances to get the SPN of this machine"
        )
    pairs = zip(instances, ports, strict=True)
    if service_name:
        return [make_spn(service_class, service_name, host, number) for host, number in pairs]
    return [make_spn(service_class, host, None, number) for host, number in pairs]


def crack_spn(spn: str) -> CrackedSpn:
    """Return the parts of `spn`: DsCrackSpn. `make_spn(*crack_spn(spn))` is `spn` again for all that make_spn makes.

    An SPN of two parts names its host in the place of the service name, and has no instance name. A missing port
    is 0. Raises SpnError (code 87) for text that is no SPN and for a port that is no number of 1 to 65535.
    """
    parsed = ServicePrincipalName.parse(spn, strict=False)
    if parsed.instance_name is not None:
        raise SpnError(
            f"SPN {spn!r} has port {parsed.instance_name!r}, expected a decimal number of 1 to 65535"
        )
    if not parsed.host or parsed.service_name == "":
        raise SpnError(f"SPN {spn!r} has an empty part: write class/host or class/host/servicename")
    if parsed.service_name is None:
        return CrackedSpn(parsed.service_class, parsed.host, None, parsed.port)
    return CrackedSpn(parsed.service_class, parsed.service_name, parsed.host, parsed.port)


def map_spn(spn: str, mappings: Iterable[str]) -> str | None:
    """Return `spn` with its service class replaced by the alias that `mappings` gives it, None where they give none.

    `mappings` are the values of a forest's sPNMappings attribute, `alias=class,class,...`; the first that lists the
    class counts, and an alias is not looked up again. Source: MS-DRSR 4.1.4.2.19.
    """
    service_class, slash, rest = str(ServicePrincipalName.parse(spn, strict=False)).partition("/")
    for mapping in mappings:
        alias, _, classes = mapping.partition("=")
        if service_class.casefold() in (name.strip().casefold() for name in classes.split(",")):
            return alias.strip() + slash + rest
    return None


def target_principal(target: str | Principal | ServicePrincipalName, realm: str = "") -> Principal:
    """Return the principal to ask the KDC for: the name of type SRV_INST that `target` spells, nothing resolved.

    Text is an SPN and is split at every "/" into class, host[:port] and service name; there is no quoting, and
    the host stays as it is typed (no DNS look-up decides whom the client trusts). "@REALM" at the end names the
    realm. In an SPN of three parts it does so only where what follows the last "@" is written in capitals, digits,
    ".", "-" and "_", for a DN may contain "@": pass a Principal or a ServicePrincipalName to leave no doubt. `realm` is
    taken where `target` names none. A Principal is taken as it is.
    Raises SpnError for what no KDC can know: a bare or host-based name (`HTTP@web`), an IP address, control
    characters, a host with credential target information behind it.
    """
    if isinstance(target, Principal):
        return target if target.realm else Principal(target.components, realm, target.name_type)
    if isinstance(target, str):
        return _of_text(target, realm)
    return _of_spn(target, realm)


@lru_cache(maxsize=64)
def _of_text(target: str, realm: str) -> Principal:
    """Return the principal that the text of a target spells: clients ask for the same few services again and again."""
    text, realm = _split_realm(target, realm)
    return _of_spn(ServicePrincipalName.parse(text), realm)


def _of_spn(spn: ServicePrincipalName, realm: str) -> Principal:
    if is_address(spn.host):
        raise SpnError(
            f"target {str(spn)!r} names an IP address: Kerberos needs the DNS name of the host"
        )
    if _CONTROL.search(str(spn)):
        raise SpnError(f"target {str(spn)!r} contains a control character: take it out")
    if "@" in spn.service_class or "@" in spn.host:
        raise SpnError(f"target {str(spn)!r} has '@' in its class or host: write class/host@REALM")
    if any(_MARSHALLED in part for part in spn.components):
        raise SpnError(
            f"target {str(spn)!r} carries credential target information: give the plain host name"
        )
    return Principal(spn.components, realm, NameType.SRV_INST)


def _split_realm(text: str, realm: str) -> tuple[str, str]:
    if "/" not in text:
        raise SpnError(
            f"target {text!r} is no SPN: write class/host, for example HTTP/web.example.com"
        )
    head, at, tail = text.rpartition("@")
    if not at or "/" in tail:
        return text, realm
    if text.count("/") > 1 and not _REALM.fullmatch(tail):
        return text, realm
    if not tail or _CONTROL.search(tail) or _NO_TEXT.search(tail):
        raise SpnError(f"target {text!r} has no usable realm behind '@': write class/host@REALM")
    return head, tail


def _check_slash(part: str | None) -> None:
    if part and "/" in part:
        advice = (
            "give the objectGUID of the object in place of its DN"
            if "=" in part
            else "it separates the parts"
        )
        raise SpnError(f"{part!r} contains '/', which no part of an SPN may: {advice}")


def _check_strict(text: str, parts: list[str], instance_name: str | None) -> None:
    host = parts[1].partition(":")[0]
    if not all((*parts, host)):
        raise SpnError(
            f"SPN {text!r} has an empty part: write class/host or class/host/servicename"
        )
    if _CONTROL.search(text):
        raise SpnError(f"SPN {text!r} contains a control character: take it out")
    if any(part != part.strip() for part in (*parts, host)):
        raise SpnError(f"SPN {text!r} has blanks around a part: remove them")
    if host.startswith("[") or (is_address(parts[1]) and ":" in parts[1]):
        raise SpnError(f"SPN {text!r} names an IPv6 address: give the DNS name of the host")
    if instance_name is not None and (not instance_name or instance_name.isdigit()):
        raise SpnError(
            f"SPN {text!r} has port {instance_name!r}, expected a decimal number of 1 to 65535"
        )


def is_address(text: str) -> bool:
    """Return whether `text` is an IPv4 or IPv6 address rather than a name."""
    if ":" not in text and not text[-1:].isdigit():
        return False  # a name, as almost always: no need to have two exceptions say so
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def local_dns_name() -> str:
    """Return the DNS name of this machine. Raises SpnError where it does not know its own."""
    fqdn = system.local_fqdn().rstrip(".")
    if "." not in fqdn or is_address(fqdn) or fqdn.casefold().startswith("localhost."):
        raise SpnError(
            f"this machine calls itself {fqdn!r}, which is no fully qualified DNS name: configure its host name "
            "(/etc/hosts or DNS), or name the instances"
        )
    return fqdn


def _local_host(spn_type: SpnType) -> str:
    """Return the name of this machine that fits: its NetBIOS name for NB_HOST and NB_DOMAIN, else its DNS name."""
    fqdn = local_dns_name()
    # A NetBIOS name has 16 bytes, the last of which is its type.
    return (
        fqdn.partition(".")[0].upper()[:15]
        if spn_type in (SpnType.NB_HOST, SpnType.NB_DOMAIN)
        else fqdn
    )
