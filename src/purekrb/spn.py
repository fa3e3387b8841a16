"""Service principal names: parse, make, get, crack. Only text is handled; the grammar is

    spn = serviceclass "/" host [ ":" ( port | instancename ) ] [ "/" servicename ]

Source: MS-ADTS 2.2.21; the functions DsMakeSpn, DsGetSpn and DsCrackSpn of the Windows directory
service API.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase
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
#: Characters that neither a directory nor a KerberosString can hold: NUL, and surrogates, which
#: have no UTF-8 form.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_REALM = re.compile(r"[A-Z0-9][A-Z0-9._-]*")
#: The start of a marshalled CREDENTIAL_TARGET_INFORMATION that is appended to a host name: its
#: magic and its size.
_MARSHALLED = "1UWhRCA"
#: Classes whose second part is no host, so that its letters count. Source: RFC 4120 6.2, 7.3.
_NO_HOST = frozenset(("krbtgt", "WELLKNOWN"))
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


class SpnType(IntEnum):
    """The meaning of the host and the service name of an SPN: DS_SPN_NAME_TYPE."""

    DNS_HOST = 0
    DN_HOST = 1
    NB_HOST = 2
    DOMAIN = 3
    NB_DOMAIN = 4
    SERVICE = 5


class CrackedSpn(NamedTuple):
    """The parts of an SPN, as arguments of `make_spn`."""

    service_class: str
    service_name: str
    instance_name: str | None
    instance_port: int


@dataclass(frozen=True, slots=True, eq=False)
class ServicePrincipalName:
    """A service principal name in parts. `str()` returns its text with the parsed spelling.

    `port` 0 means no port. `instance_name` replaces the port, as in `MSSQLSvc/host:INSTANCE`.
    `service_name` is None for a host-based service. Two names are equal if a directory treats them
    as the same name (see `key`); a KDC may compare the text exactly.
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
                f"host {self.host!r} contains ':': "
                "give the port or the instance name separately from the host"
            )
        if self.port and self.instance_name is not None:
            raise SpnError("an SPN has either a port or an instance name, not both: leave one out")
        # A directory requires at least this of a value; parse(strict=True) requires more.
        if not self.service_class or not (self.host or self.service_name):
            raise SpnError(
                f"SPN {str(self)!r} has an empty service class or host: write class/host"
            )

    @classmethod
    def parse(cls, text: str, *, strict: bool = True) -> ServicePrincipalName:
        """Return the SPN in `text`. Every "/" separates parts; a backslash does not quote it.

        The text after the first ":" of the second part is a port if it is a decimal number from 1
        to 65535; otherwise it is an instance name. `strict` refuses control characters, empty
        parts, blanks around a part, IPv6 addresses, and digits that are not a valid port. Active
        Directory stores some of these (an empty third part, "a//b" ...); `strict=False` reads such
        values. Raises SpnError.
        """
        if len(text) > MAX_TEXT:
            raise SpnError(f"an SPN of {len(text)} characters is longer than {MAX_TEXT}")
        parts = text.split("/")
        if len(parts) not in (2, 3):
            raise SpnError(
                f"SPN {text!r} has {len(parts) - 1} slashes, "
                "expected class/host[:port][/servicename]; if the service name is a DN that "
                "contains '/', use the objectGUID of the object instead"
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
        """The name-string of the Kerberos name: class, host[:port] and any service name."""
        suffix = self._suffix
        host = self.host if suffix is None else f"{self.host}:{suffix}"
        service_name = () if self.service_name is None else (self.service_name,)
        return (self.service_class, host, *service_name)

    @property
    def key(self) -> tuple[object, ...]:
        """A value that is equal for all spellings of an SPN.

        It ignores case, a trailing dot, and the spelling of a DN. It is for local comparisons only:
        a KDC and a directory compare text.
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

    - For a host-based service, pass the host as `service_name`: `class/host[:port]`.
    - For a service that is found through an object, pass the object's DN (or objectGUID) as
      `service_name` and the host as `instance_name`: `class/host[:port]/DN`.
    - `referrer` is the host that referred the client to `service_name`. It is used only if
      `service_name` is an IP address: `class/10.0.0.1[:port]/referrer`.
    - `instance_port` 0 means no port.

    Raises SpnError (code 87) for an empty class or name, "/" or control characters anywhere, ":" in
    the host, or a port above 65535.
    """
    for what, value in (("service class", service_class), ("service name", service_name)):
        if not value:
            raise SpnError(
                f"the {what} of an SPN is empty: "
                "give both, as in make_spn('HTTP', 'web.example.com')"
            )
    _check_slash(referrer)  # even if it is not used, as in the C function
    third = service_name if instance_name else None
    if referrer and is_address(service_name):
        third = referrer
    spn = str(
        ServicePrincipalName(service_class, instance_name or service_name, instance_port, third)
    )
    if _CONTROL.search(spn):
        raise SpnError(f"SPN {spn!r} would contain a control character: remove it from the names")
    return spn


def get_spn(
    spn_type: SpnType | int,
    service_class: str,
    service_name: str | None = None,
    port: int = 0,
    instances: Sequence[str] = (),
    ports: Sequence[int] | None = (),
) -> list[str]:
    """Return the SPNs that a service registers, one per instance and in that order: DsGetSpn.

    Without `instances`, the result is one SPN, for this machine and `port`; `ports` is ignored.
    With `instances` (host names), `port` is ignored: the ports come from `ports`, which is empty or
    as long as `instances`. A port of 0 means no port. DNS_HOST, DN_HOST and NB_HOST give
    `class/host[:port]` and take no `service_name`. DOMAIN, NB_DOMAIN and SERVICE give
    `class/host[:port]/servicename` and need a `service_name`: the domain's name; for SERVICE, the
    DN or objectGUID of a service connection point, or the DNS name of an SRV record. Raises
    SpnError (code 87) for anything else, or if this machine does not know its own DNS name.
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
            f"SPN type {spn_type.name} needs a service name: "
            "a domain, a DN, an objectGUID or an SRV name"
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
            f"{len(instances)} instances but {len(ports)} ports: "
            "give one port (0 for none) per instance"
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
    """Return the parts of `spn`: DsCrackSpn.

    If `make_spn` made `spn`, `make_spn(*crack_spn(spn))` returns it again. An SPN of two parts has
    its host as the service name, and no instance name. A missing port is 0. Raises SpnError (code
    87) if the text is not an SPN, or if the port is not a number from 1 to 65535.
    """
    parsed = ServicePrincipalName.parse(spn, strict=False)
    if parsed.instance_name is not None:
        raise SpnError(
            f"SPN {spn!r} has port {parsed.instance_name!r}, "
            "expected a decimal number of 1 to 65535"
        )
    if not parsed.host or parsed.service_name == "":
        raise SpnError(f"SPN {spn!r} has an empty part: write class/host or class/host/servicename")
    if parsed.service_name is None:
        return CrackedSpn(parsed.service_class, parsed.host, None, parsed.port)
    return CrackedSpn(parsed.service_class, parsed.service_name, parsed.host, parsed.port)


def map_spn(spn: str, mappings: Iterable[str]) -> str | None:
    """Return `spn` with the alias of its service class in place of the class.

    If the class has no alias, None is returned. `mappings` are the values of a forest's sPNMappings
    attribute, `alias=class,class,...`. The first value that lists the class is used. An alias is
    not looked up again. Source: MS-DRSR 4.1.4.2.19.
    """
    service_class, slash, rest = str(ServicePrincipalName.parse(spn, strict=False)).partition("/")
    for mapping in mappings:
        alias, _, classes = mapping.partition("=")
        if service_class.casefold() in (name.strip().casefold() for name in classes.split(",")):
            return alias.strip() + slash + rest
    return None


def target_principal(target: str | Principal | ServicePrincipalName, realm: str = "") -> Principal:
    """Return the principal to ask the KDC for: the name of type SRV_INST in `target`.

    Text is an SPN, or a host-based name of GSS-API (`HTTP@web.example.test`). An SPN is split at
    every "/" into class, host[:port] and service name, without quoting. As in other clients, the
    host is written in small letters, without a trailing dot, because KDCs of MIT and Heimdal compare
    letters exactly; all else stays as typed. An alias is not resolved: the DNS does not decide which
    service the client trusts. "@REALM" at the end of an SPN names the realm. A DN may contain "@",
    so in an SPN with a DN the text after the last "@" is a realm only if it consists of capitals,
    digits, ".", "-" and "_". If `target` names no realm, `realm` is used. A Principal or a
    ServicePrincipalName is used byte for byte, apart from that. Raises SpnError for names that no
    KDC can know: a bare name, an IP address, control characters, or a host that is followed by
    credential target information.
    """
    if isinstance(target, Principal):
        return target if target.realm else Principal(target.components, realm, target.name_type)
    if isinstance(target, str):
        return _of_text(target, realm)
    if not isinstance(target, ServicePrincipalName):
        raise TypeError(
            f"the target is of type {type(target).__name__}: give a name, as in "
            '"HTTP/web.example.com"'
        )
    return _of_spn(target, realm)


@lru_cache(maxsize=64)
def _of_text(target: str, realm: str) -> Principal:
    """Return the principal of a target in text form; cached, since clients use few services."""
    scheme, separator, rest_of_url = target.partition("://")
    if separator and scheme.isalnum():
        authority = re.split("[/?#]", rest_of_url, maxsplit=1)[0]
        host = authority.rpartition("@")[2].partition(":")[0].strip("[]") or "HOST"
        service_class = "HTTP" if scheme.lower() in ("http", "https") else scheme
        raise SpnError(
            f"the target is a URL: give the service's name, as in {service_class}/{host}"
        )
    text, realm = _split_realm(_as_spn(target), realm)
    parsed = ServicePrincipalName.parse(text)
    service_class, host, *rest = _of_spn(parsed, realm).components
    if service_class not in _NO_HOST:
        name, colon, port = host.partition(":")
        host = name.translate(_LOWER).removesuffix(".") + colon + port
    return Principal((service_class, host, *rest), realm, NameType.SRV_INST)


def _as_spn(text: str) -> str:
    """Return the SPN of a host-based name, `class@host`; any other text unchanged.

    Source: RFC 2743 4.1, RFC 1964 2.1.2.
    """
    if "/" in text or text.count("@") != 1:
        return text
    service_class, _, host = text.partition("@")
    return f"{service_class}/{host}" if service_class and host else text


def _of_spn(spn: ServicePrincipalName, realm: str) -> Principal:
    if is_address(spn.host):
        raise SpnError(
            f"target {str(spn)!r} names an IP address: Kerberos needs the DNS name of the host"
        )
    if _CONTROL.search(str(spn)):
        raise SpnError(f"target {str(spn)!r} contains a control character: remove it")
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
            f"target {text!r} is not an SPN: write class/host or class@host, for example "
            "HTTP/web.example.com"
        )
    head, at, tail = text.rpartition("@")
    if not at or "/" in tail:
        return text, realm
    if text.count("/") > 1 and "=" in text and not _REALM.fullmatch(tail):
        return text, realm
    if not tail or _CONTROL.search(tail) or _NO_TEXT.search(tail):
        raise SpnError(f"target {text!r} has no usable realm after '@': write class/host@REALM")
    return head, tail


def _check_slash(part: str | None) -> None:
    if part and "/" in part:
        advice = (
            "give the objectGUID of the object instead of its DN"
            if "=" in part
            else "it separates the parts"
        )
        raise SpnError(f"{part!r} contains '/', which is not allowed in a part of an SPN: {advice}")


def _check_strict(text: str, parts: list[str], instance_name: str | None) -> None:
    host = parts[1].partition(":")[0]
    if not all((*parts, host)):
        raise SpnError(
            f"SPN {text!r} has an empty part: write class/host or class/host/servicename"
        )
    if _CONTROL.search(text):
        raise SpnError(f"SPN {text!r} contains a control character: remove it")
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
        return False  # the usual case: a name; `ip_address` would raise and catch two exceptions
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def local_dns_name() -> str:
    """Return the DNS name of this machine. Raises SpnError if the machine does not know it."""
    fqdn = system.local_fqdn().rstrip(".")
    if "." not in fqdn or is_address(fqdn) or fqdn.casefold().startswith("localhost."):
        raise SpnError(
            f"the host name of this machine is {fqdn!r}, which is not a fully qualified DNS name: "
            "configure its host name (/etc/hosts or DNS), or name the instances"
        )
    return fqdn


def _local_host(spn_type: SpnType) -> str:
    """Return the name of this machine for `spn_type`.

    This is the NetBIOS name for NB_HOST and NB_DOMAIN, else the DNS name.
    """
    fqdn = local_dns_name()
    # A NetBIOS name has 16 bytes; the last one is its type.
    return (
        fqdn.partition(".")[0].upper()[:15]
        if spn_type in (SpnType.NB_HOST, SpnType.NB_DOMAIN)
        else fqdn
    )
