"""Config: the settings of krb5.conf, read from the file or given by the caller.

Source: MIT krb5.conf(5).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from purekrb.constants import DEFAULT_ETYPES, SPAKE_GROUPS, EncryptionType, Requirement
from purekrb.errors import ConfigError
from purekrb.krb5conf.profile import Profile, Relation, Section, SkippedLine, load
from purekrb.log import Log
from purekrb.names import Principal
from purekrb.tracebacks import forget_frames

__all__ = ["Config", "KdcAddress", "RealmConfig", "parse_boolean", "parse_duration", "parse_etypes"]

_log = Log("purekrb.kdc")

DEFAULT_PATH = Path("/etc/krb5.conf")
KDC_PORT = 88
KPASSWD_PORT = 464
HTTPS_PORT = 443

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:://|:(?=/)|/)(.*)\Z", re.DOTALL)
_HOST_PORT = re.compile(r"(?:\[([^\[\]\s]+)\]|([^\[\]:/\s]+))(?::([0-9]{1,5}))?/?\Z")
#: What follows the scheme of a KDC proxy's URL: all of it goes into the head of an HTTP request.
_HTTPS = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?))(?::([0-9]{1,5}))?"
    r"(/[!\"$-~]*)?\Z"
)


@dataclass(frozen=True, slots=True)
class KdcAddress:
    """The address of a realm's server: `host` is a name or an IP address.

    `transport` is "tcp", "udp", "" (either) or "https": a KDC proxy (MS-KKDCP), whose URL has the
    `path`. Any other transport is one that purekrb does not have, and then `host` is the rest of
    the URL.
    """

    host: str
    port: int = KDC_PORT
    transport: str = ""
    path: str = ""

    @classmethod
    def parse(cls, text: str, port: int = KDC_PORT) -> KdcAddress:
        """Return the server that `text` names; `port` is the default port.

        Forms: host, host:port, [v6], [v6]:port, v6, tcp/host, udp/host, tcp://host:port,
        udp://host:port, https://host:port/path. Raises ConfigError.
        """
        scheme = _SCHEME.match(text)
        transport, rest = (scheme[1].lower(), scheme[2]) if scheme else ("", text)
        if transport == "https":
            return cls._parse_https(text, rest)
        if transport not in ("", "tcp", "udp"):
            return cls(rest, 0, transport)
        match = _HOST_PORT.match(f"[{rest}]" if _is_ipv6(rest) else rest)
        if match is None or not 0 < int(match[3] or port) < 65536:
            raise ConfigError(
                f"{text!r} is not the address of a KDC: "
                "write host, host:port, [v6]:port, tcp://host:port or udp://host:port"
            )
        return cls(match[1] or match[2], int(match[3] or port), transport)

    @classmethod
    def _parse_https(cls, text: str, rest: str) -> KdcAddress:
        match = _HTTPS.match(rest)
        if match is None or not 0 < int(match[3] or HTTPS_PORT) < 65536:
            raise ConfigError(
                f"{text!r} is not the URL of a KDC proxy: write https://host/KdcProxy or "
                "https://host:port/KdcProxy, in ASCII"
            )
        return cls(match[1] or match[2], int(match[3] or HTTPS_PORT), "https", match[4] or "/")

    def __str__(self) -> str:
        if self.transport not in ("", "tcp", "udp", "https"):
            return f"{self.transport}://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.transport == "https":
            port = "" if self.port == HTTPS_PORT else f":{self.port}"
            return f"https://{host}{port}{self.path}"
        return f"{self.transport}://{host}:{self.port}" if self.transport else f"{host}:{self.port}"


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class RealmConfig:
    """The servers of a realm; `options` has all other relations of its subsection in [realms].

    `auth_to_local` holds rules and `auth_to_local_names` local users by the names of principals: see
    `Config.local_name`.
    """

    kdc: tuple[KdcAddress, ...] = ()
    primary_kdc: tuple[KdcAddress, ...] = ()
    kpasswd_server: tuple[KdcAddress, ...] = ()
    admin_server: tuple[KdcAddress, ...] = ()
    auth_to_local: tuple[str, ...] = ()
    auth_to_local_names: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict, repr=False
    )  # some programs' are PINs
    #: Kind of servers -> why the address of one of them cannot be read.
    unreadable: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """Realms and their KDCs, hosts and their realms, defaults for tickets; named as in krb5.conf.

    `realms` maps a realm to a `RealmConfig`, or to KDCs in the forms of `KdcAddress.parse`.
    Durations are in seconds. `dns_lookup_realm` has no effect: a realm is never looked up in DNS.
    `dns_uri_lookup`: URI records of KDCs are asked for, before SRV records. `ad_site_discovery`: a
    domain controller is asked for the site of this machine, whose KDCs come first. Without
    `noaddresses`, initial tickets are bound to this machine's addresses. `kdc_timeout` limits one attempt to
    reach one KDC, and `request_timeout` all requests of one call; None leaves the limit to the
    call. `max_retries` is the number of times that a UDP datagram is sent at most. The lists of
    encryption types hold numbers in order of preference; None means the default. RC4 needs
    `allow_rc4`.

    `preauth_floor` is the least that the AS exchanges must have, "fast" or "strong"; it is also a
    relation of a realm (see `requirement`). `spake_preauth_groups` holds numbers of groups in order
    of preference; None means all that can be used here.

    Two fields are not in krb5.conf. `referral_realms` are the realms to which a KDC may refer a
    client (RFC 6806 7), which then sends its proof of identity there; None stands for all realms in
    the configuration, see `client_realms`. `max_iterations` limits the PBKDF2 iterations for the
    key of a password; it is at most 2^24, and None means 2^20.

    `pkinit` holds the relations of certificates, such as `pkinit_anchors`, by their names;
    `krb5conf.pkinit` says which there are. A realm's own take precedence.

    `preferred_preauth_types` are padata-types in order of preference: a kind of pre-authentication
    that is listed comes before the others, which are the strongest first. `clpreauth_disable` and
    `clpreauth_enable_only` switch kinds off by MIT's names ([plugins] clpreauth): encrypted_timestamp,
    encrypted_challenge, spake, pkinit, otp. `extra_addresses` are bound to tickets beside this
    machine's, where any are. With `enforce_ok_as_delegate`, no caller delegates to a service that the
    KDC has not marked. `appdefaults` is [appdefaults]: see `app_default`.

    The names of caches and keytabs stand as in the file, with their %{...} tokens.
    `purekrb.credentials.defaults` says which one is used.

    Four more fields say where a Config comes from: `files` have been read; `skipped` are the lines
    that do not count, each with its reason; `without_effect` are well-formed lines that purekrb does
    not follow; `origins` has file and line of each relation of [libdefaults]. They do not count in
    comparisons.

    Raises ConfigError for unusable values.
    """

    realms: Mapping[str, RealmConfig | Sequence[str]] = field(default_factory=dict)
    default_realm: str | None = None
    domain_realm: Mapping[str, str] = field(default_factory=dict)
    capaths: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    dns_lookup_kdc: bool = True
    dns_lookup_realm: bool = False
    dns_uri_lookup: bool = True
    ad_site_discovery: bool = False
    udp_preference_limit: int = 1465
    clockskew: int = 300
    kdc_timesync: bool = True
    ticket_lifetime: int | None = None
    renew_lifetime: int | None = None
    forwardable: bool = False
    proxiable: bool = False
    noaddresses: bool = True
    canonicalize: bool = False
    permitted_enctypes: Sequence[int] | None = None
    default_tkt_enctypes: Sequence[int] | None = None
    default_tgs_enctypes: Sequence[int] | None = None
    allow_rc4: bool = False
    preauth_floor: Requirement | None = None
    spake_preauth_groups: tuple[int, ...] | None = None
    preferred_preauth_types: tuple[int, ...] = ()
    clpreauth_disable: tuple[str, ...] = ()
    clpreauth_enable_only: tuple[str, ...] | None = None
    extra_addresses: tuple[str, ...] = ()
    enforce_ok_as_delegate: bool = False
    appdefaults: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    default_keytab_name: str | None = None
    default_client_keytab_name: str | None = None
    default_ccache_name: str | None = None
    default_rcache_name: str | None = None
    kcm_socket: str | None = None
    k5login_directory: str | None = None
    k5login_authoritative: bool = True
    kdc_timeout: float | None = None
    max_retries: int = 3
    request_timeout: float | None = None
    referral_realms: Collection[str] | None = None
    max_iterations: int | None = None
    pkinit: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    files: Sequence[str] = field(default=(), compare=False)
    skipped: Sequence[SkippedLine] = field(default=(), compare=False, repr=False)
    without_effect: Sequence[SkippedLine] = field(default=(), compare=False, repr=False)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        realms = {name: _realm(value) for name, value in self.realms.items()}
        object.__setattr__(self, "realms", realms)
        hosts = {host.lower().rstrip("."): realm for host, realm in self.domain_realm.items()}
        object.__setattr__(self, "domain_realm", hosts)
        if not self.files:  # those of a file are judged when they are used
            _ = self.tkt_etypes, self.tgs_etypes

    @classmethod
    @forget_frames
    def from_file(cls, path: str | os.PathLike[str] | None = None) -> Config:
        """Return the configuration in `path`; None: in the files of KRB5_CONFIG, or /etc/krb5.conf.

        If KRB5_CONFIG lists several files, some may be missing. If it is not set and /etc/krb5.conf
        is missing, the Config is empty.

        A line that cannot be read is skipped; the log warns of it, once in this process. Raises
        ConfigError if a file cannot be read at all.
        """
        listed = os.environ.get("KRB5_CONFIG", "") if path is None else ""
        if path is not None:
            paths = [Path(path)]
        elif listed:
            paths = [Path(name) for name in listed.split(os.pathsep) if name]
            if len(paths) > 1:
                paths = [name for name in paths if name.exists()]
            if not paths:
                raise ConfigError(
                    f"KRB5_CONFIG={listed!r} names no file that exists: correct or unset it"
                )
        else:
            paths = [DEFAULT_PATH] if DEFAULT_PATH.exists() else []
        try:
            profile = load(paths)
        except OSError as error:
            origin = f" (from KRB5_CONFIG={listed!r})" if listed else ""
            raise ConfigError(
                f"{error.filename}{origin} cannot be read ({error.strerror}): "
                "check the path and its permissions"
            ) from error
        _log.debug("configuration read from %s", ", ".join(map(str, paths)) or "no file")
        fields = _fields(profile)
        _warn(profile.skipped)
        return cls(**fields, files=tuple(profile.files), skipped=tuple(profile.skipped))

    @property
    def source(self) -> str:
        """Where the configuration comes from, for messages: its files, or the program."""
        return ", ".join(self.files) or "the configuration"

    def realm(self, name: str) -> RealmConfig:
        """Return the servers and options of realm `name`; empty if it is not configured."""
        found = self.realms.get(name)
        return found if isinstance(found, RealmConfig) else RealmConfig()

    def requirement(self, realm: str) -> Requirement | None:
        """Return the least that an AS exchange in `realm` must have; None: nothing.

        The stricter one counts of [libdefaults] `preauth_floor` and the realm's. MIT's relation
        `disable_encrypted_timestamp` of a realm stands for "strong". Raises ConfigError for any
        other floor.
        """
        options = self.realm(realm).options
        floors = [self.preauth_floor, *map(parse_requirement, options.get("preauth_floor", ()))]
        if any(map(parse_boolean, options.get("disable_encrypted_timestamp", ())[:1])):
            floors.append("strong")
        return "fast" if "fast" in floors else "strong" if "strong" in floors else None

    def kdcs(self, realm: str) -> tuple[KdcAddress, ...]:
        """Return the configured KDCs of `realm` in their order.

        Raises ConfigError if there are some, and none of their addresses can be read.
        """
        return self._servers(realm, "kdc")

    def primary_kdcs(self, realm: str) -> tuple[KdcAddress, ...]:
        """Return the KDCs of `realm` that get a new password first (primary_kdc, master_kdc)."""
        return self._servers(realm, "primary_kdc")

    def _servers(self, realm: str, kind: str) -> tuple[KdcAddress, ...]:
        found = self.realm(realm)
        servers: tuple[KdcAddress, ...] = getattr(found, kind)
        if not servers and kind in found.unreadable:
            raise ConfigError(found.unreadable[kind])
        return servers

    def app_default(
        self, application: str, option: str, realm: str | None = None, default: str | None = None
    ) -> str | None:
        """Return the value of `option` for a program in [appdefaults], or `default`.

        The first counts of: the realm's within the program's section, the program's, the realm's, the
        one of [appdefaults] itself. `realm` is the default realm by default. Source: MIT krb5.conf(5).
        """
        realm = realm or self.default_realm or ""
        for path in ((application, realm), (application,), (realm,), ()):
            found = self.appdefaults.get((*path, option))
            if found is not None:
                return found
        return default

    def realm_of(self, host: str) -> str | None:
        """Return the realm of `host` by [domain_realm]; None if unknown.

        The host itself takes precedence, then its nearest `.domain`. DNS is not asked: an unsigned
        answer must not choose the realm (RFC 4120 1.3).
        """
        name = host.lower().rstrip(".")
        if name in self.domain_realm:
            return self.domain_realm[name]
        while "." in name:
            name = name.partition(".")[2]
            if f".{name}" in self.domain_realm:
                return self.domain_realm[f".{name}"]
        return None

    def capath(self, client: str, server: str) -> list[str] | None:
        """Return the realms between `client` and `server` in order, as in [capaths].

        An empty list means direct trust; None means that [capaths] does not say.
        """
        path = self.capaths.get(client, {}).get(server)
        return None if path is None else [realm for realm in path if realm != "."]

    def local_name(self, principal: Principal | str) -> str | None:
        """Return the local user that `principal` is, or None if it is none.

        It is what `auth_to_local_names` of the default realm says; otherwise the first of its `auth_to_local`
        that applies; without any, the principal's name if it has one component and the default realm. No
        name with characters that cannot be printed is a user's. Pass principals that an acceptor has
        verified. Raises ConfigError for a rule that cannot be read or takes too long. Source: MIT
        krb5.conf(5).
        """
        from purekrb.krb5conf.localauth import local_name  # only acceptors pay for it

        here = self.realm(self.default_realm or "")
        return local_name(
            Principal.of(principal),
            self.default_realm,
            here.auth_to_local,
            here.auth_to_local_names,
        )

    def may_log_in(self, principal: Principal | str, user: str) -> bool:
        """Return whether `principal` may act as the local user `user`, who must exist on this machine.

        The user's .k5login decides (in the home directory, or `k5login_directory`): whom it lists may,
        and nobody else. It lists nobody if it cannot be read, does not belong to the user or root, or
        others may write to it. Without the file (or with `k5login_authoritative` false, for whom it does
        not list), the principal whose `local_name` is `user` may. Raises ConfigError as `local_name` does.
        Source: MIT .k5login(5).
        """
        from purekrb.krb5conf.k5login import is_listed, k5login_of

        principal = Principal.of(principal)
        found = k5login_of(user, self.k5login_directory)
        if found is None:
            return False
        listed = is_listed(principal, *found)
        if listed or (listed is False and self.k5login_authoritative):
            return listed
        return self.local_name(principal) == user

    @property
    def client_realms(self) -> frozenset[str]:
        """The realms that a client may be referred to.

        They are `referral_realms`. If that is None, they are the realms in the configuration: the
        default realm, those of [realms] and [domain_realm], and the clients' realms in [capaths].
        """
        if isinstance(self.referral_realms, str):
            return frozenset({self.referral_realms})
        if self.referral_realms is not None:
            return frozenset(self.referral_realms)
        named = {*self.realms, *self.domain_realm.values(), *self.capaths}
        if self.default_realm:
            named.add(self.default_realm)
        return frozenset(named - {""})

    @property
    def permitted_etypes(self) -> tuple[int, ...]:
        """The encryption types that may be used at all, in order of preference.

        Raises ConfigError if the configuration leaves none.
        """
        known = (*DEFAULT_ETYPES, EncryptionType.RC4_HMAC)
        usable = known if self.allow_rc4 else DEFAULT_ETYPES
        listed = known if self.permitted_enctypes is None else self.permitted_enctypes
        return self._some("permitted_enctypes", tuple(etype for etype in listed if etype in usable))

    @property
    def tkt_etypes(self) -> tuple[int, ...]:
        """The encryption types to ask for in an AS-REQ. Raises ConfigError if there are none."""
        return self._only_permitted("default_tkt_enctypes", self.default_tkt_enctypes)

    @property
    def tgs_etypes(self) -> tuple[int, ...]:
        """The encryption types to ask for in a TGS-REQ. Raises ConfigError if there are none."""
        return self._only_permitted("default_tgs_enctypes", self.default_tgs_enctypes)

    def _only_permitted(self, name: str, etypes: Sequence[int] | None) -> tuple[int, ...]:
        permitted = self.permitted_etypes
        if etypes is None:
            return permitted
        return self._some(name, tuple(etype for etype in etypes if etype in permitted))

    def _some(self, name: str, etypes: tuple[int, ...]) -> tuple[int, ...]:
        if not etypes:
            where = f"{self.origins[name]}: " if name in self.origins else ""
            raise ConfigError(
                f"{where}the enctypes lists leave no encryption type that purekrb may use: name "
                "aes256-sha1, "
                "aes128-sha1, aes256-sha2 or aes128-sha2, or set allow_rc4 = true if it must be rc4"
            )
        return etypes


def _realm(value: RealmConfig | Sequence[str]) -> RealmConfig:
    if isinstance(value, RealmConfig):
        return value
    names = [value] if isinstance(value, str) else value
    return RealmConfig(kdc=tuple(KdcAddress.parse(name) for name in names))


# -- values ----------------------------------------------------------------------------------------


_BOOLEANS = {
    **dict.fromkeys(("y", "yes", "t", "true", "1", "on"), True),
    **dict.fromkeys(("n", "no", "f", "false", "nil", "0", "off"), False),
}


_FALSE = frozenset(text for text, value in _BOOLEANS.items() if not value)


def parse_boolean(text: str) -> bool:
    """Return the truth value that krb5.conf spells in many ways. Raises ConfigError."""
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise ConfigError(f"{text!r} is not a boolean: write true or false")
    return value


def parse_spake_groups(text: str) -> tuple[int, ...]:
    """Return the numbers of SPAKE groups in `text`; unknown names are skipped. As MIT."""
    known = {name.lower(): number for number, name in SPAKE_GROUPS.items()}
    names = text.replace(",", " ").lower().split()
    found = tuple(dict.fromkeys(known[name] for name in names if name in known))
    if not found:
        raise ConfigError(
            f"{text!r} names no SPAKE group: write some of {', '.join(SPAKE_GROUPS.values())}"
        )
    return found


def _parse_numbers(text: str) -> tuple[int, ...]:
    words = text.replace(",", " ").split()
    if not all(re.fullmatch(r"-?[0-9]{1,9}", word) for word in words):
        raise ConfigError(
            f"{text!r} is no list of numbers: write them with commas, as in 17, 16, 2"
        )
    return tuple(map(int, words))


def _parse_addresses(text: str) -> tuple[str, ...]:
    words = tuple(text.replace(",", " ").split())
    for word in words:
        try:
            ipaddress.ip_address(word)
        except ValueError:
            raise ConfigError(f"{text!r} is no list of IP addresses") from None
    return words


def parse_requirement(text: str) -> Requirement:
    """Return the floor in `text`. Raises ConfigError."""
    if text == "fast":
        return "fast"
    if text == "strong":
        return "strong"
    raise ConfigError(f"{text!r} is no floor of pre-authentication: write fast or strong")


def _parse_integer(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,9}", text) is None:
        raise ConfigError(f"{text!r} is not a number: write decimal digits")
    return int(text)


#: In each form, MIT's; a blank between a number and its unit is none of them.
_DURATION = re.compile(
    r"\s*(?:"
    r"(?:(?P<days>[0-9]{1,10})-(?=[0-9]+:[0-9]+:))?"
    r"(?P<hours>[0-9]{1,10}):(?P<minutes>[0-9]{1,10})(?::(?P<seconds>[0-9]{1,10}))?"
    r"|(?=[0-9]+[dhms])(?:(?P<d>[0-9]{1,10})d\s*)?(?:(?P<h>[0-9]{1,10})h\s*)?"
    r"(?:(?P<m>[0-9]{1,10})m\s*)?(?:(?P<s>[0-9]{1,10})s)?"
    r"|(?P<number>[0-9]{1,10}))\s*"
)
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "n": 1}
_MAX_SECONDS = 0x7FFFFFFF


def parse_duration(text: str) -> int:
    """Return the seconds in a duration of krb5.conf.

    Examples are "600", "10h", "7d 3h", "1:30" (hours and minutes), "0:01:30" and "1-12:00:00".
    Raises ConfigError.
    """
    match = _DURATION.fullmatch(text)
    if match is not None:
        seconds = sum(
            int(count) * _SECONDS[unit[0]] for unit, count in match.groupdict().items() if count
        )
        if seconds <= _MAX_SECONDS:
            return seconds
    raise ConfigError(
        f'{text!r} is not a duration: write seconds, "10h", "7d 3h" or "1:30" (hours:minutes)'
    )


_ETYPE_NAMES: dict[str, tuple[int, ...]] = {
    "aes256-cts-hmac-sha1-96": (18,),
    "aes256-cts": (18,),
    "aes256-sha1": (18,),
    "aes128-cts-hmac-sha1-96": (17,),
    "aes128-cts": (17,),
    "aes128-sha1": (17,),
    "aes256-cts-hmac-sha384-192": (20,),
    "aes256-sha2": (20,),
    "aes128-cts-hmac-sha256-128": (19,),
    "aes128-sha2": (19,),
    "arcfour-hmac": (23,),
    "arcfour-hmac-md5": (23,),
    "rc4-hmac": (23,),
    "rc4": (23,),
    "aes": (18, 17, 20, 19),
    "default": (*DEFAULT_ETYPES, EncryptionType.RC4_HMAC),
}


def _quoted(text: str) -> str:
    """Return one word as an error may quote it, of all else the size: a damaged line may hold the next one as well."""
    return (
        repr(text) if re.fullmatch(r"[^\s=]{1,40}", text) else f"a value of {len(text)} characters"
    )


def parse_etypes(text: str) -> tuple[int, ...]:
    """Return the etypes in `text`: names, families ("aes"), DEFAULT; "-" before a name removes it.

    Names that purekrb does not have (DES, Camellia and so on) are skipped, because a list serves
    all programs of a machine. Source: MIT krb5.conf(5), "Encryption types".
    """
    etypes: list[int] = []
    for word in text.replace(",", " ").lower().split():
        found = _ETYPE_NAMES.get(word.lstrip("+-"), ())
        if not found:
            shown = _quoted(word if "=" not in text else "")
            _log.debug("encryption type %s is passed over: purekrb does not have it", shown)
        if word[0] == "-":
            etypes = [etype for etype in etypes if etype not in found]
        else:
            etypes += [etype for etype in found if etype not in etypes]
    return tuple(etypes)


# -- krb5.conf -------------------------------------------------------------------------------------

#: Where a comment begins that a person has put on the line of a value.
_COMMENT = re.compile(r"\s[#;].*\Z", re.DOTALL)


def _first_word(text: str) -> str:
    return text.split(None, 1)[0] if text.strip() else text


#: The relations of [libdefaults] that are used, with their parsers; each is a field of Config.
_LIBDEFAULTS: dict[str, Callable[[str], Any]] = {
    "default_realm": str,
    "dns_lookup_kdc": parse_boolean,
    "dns_lookup_realm": parse_boolean,
    "dns_uri_lookup": parse_boolean,
    "ad_site_discovery": parse_boolean,
    "udp_preference_limit": _parse_integer,
    "clockskew": parse_duration,
    "kdc_timesync": parse_boolean,
    "ticket_lifetime": parse_duration,
    "renew_lifetime": parse_duration,
    "forwardable": parse_boolean,
    "proxiable": parse_boolean,
    "noaddresses": parse_boolean,
    "canonicalize": parse_boolean,
    "permitted_enctypes": parse_etypes,
    "default_tkt_enctypes": parse_etypes,
    "default_tgs_enctypes": parse_etypes,
    "allow_rc4": parse_boolean,
    "preauth_floor": parse_requirement,
    "spake_preauth_groups": parse_spake_groups,
    "preferred_preauth_types": _parse_numbers,
    "extra_addresses": _parse_addresses,
    "enforce_ok_as_delegate": parse_boolean,
    "k5login_directory": str,
    "k5login_authoritative": parse_boolean,
    "kdc_timeout": parse_duration,
    "max_retries": _parse_integer,
    "request_timeout": parse_duration,
}
#: Those that name caches and keytabs: their tokens are replaced when they are used.
_NAMES = (
    "default_keytab_name",
    "default_client_keytab_name",
    "default_ccache_name",
    "default_rcache_name",
    "kcm_socket",
)

#: Relations in [realms] that name servers -> the field of RealmConfig, and the default port.
_SERVERS = {
    "kdc": ("kdc", KDC_PORT),
    "primary_kdc": ("primary_kdc", KDC_PORT),
    "master_kdc": ("primary_kdc", KDC_PORT),
    "kpasswd_server": ("kpasswd_server", KPASSWD_PORT),
    "admin_server": ("admin_server", 749),
}

#: The skipped lines that the log has told.
_told: set[SkippedLine] = set()


def _warn(skipped: Sequence[SkippedLine]) -> None:
    """Tell the log of each skipped line once in this process."""
    for line in skipped:
        if line not in _told:
            if len(_told) >= 10_000:
                _told.clear()
            _told.add(line)
            _log.warning("%s: %s; this is skipped", line.where, line.reason)


def _uncommented(relation: Relation, skip: Callable[[str, str], None]) -> str:
    """Return the text of a relation without a comment at its end, which is noted."""
    text = _COMMENT.sub("", relation.text)
    if text != relation.text:
        skip(relation.where, "a comment stands on a line of its own")
    return text


def _convert(
    relation: Relation, convert: Callable[[str], Any], skip: Callable[[str, str], None]
) -> Any:
    """Return the value of a relation; None, and a note, if it cannot be read."""
    text = _uncommented(relation, skip)
    try:
        return convert(text)
    except ConfigError as error:
        if convert is parse_requirement:  # to skip it would lower the floor
            raise ConfigError(f"{relation.where}: {error}") from None
        skip(relation.where, str(error.args[0]).replace(repr(text), _quoted(text)))
        return None


def _fields(profile: Profile) -> dict[str, Any]:
    """Return the arguments of Config in a krb5.conf."""
    root, skip = profile.root, profile.skip
    fields: dict[str, Any] = {}
    origins: dict[str, str] = {}
    libdefaults = root.section("libdefaults")
    for name in (*_LIBDEFAULTS, *_NAMES):
        relation = libdefaults.first(name)
        if relation is not None:
            value = relation.text
            if name in _LIBDEFAULTS:
                value = _convert(relation, _LIBDEFAULTS[name], skip)
            if value is not None:
                fields[name], origins[name] = value, relation.where
    fields["origins"] = origins
    fields["pkinit"] = _pkinit(libdefaults)
    fields["realms"] = {
        # MIT looks for a realm's relations of PKINIT in [libdefaults] first.
        name: _realm_config(section, skip, _pkinit(libdefaults.section(name)))
        for name, section in root.section("realms").sections.items()
    }
    fields["domain_realm"] = {
        host: _uncommented(relations[0], skip)
        for host, relations in root.section("domain_realm").relations.items()
    }
    clpreauth = root.section("plugins").section("clpreauth")
    fields["clpreauth_disable"] = _words(clpreauth.relations.get("disable", ()))
    if "enable_only" in clpreauth.relations:
        fields["clpreauth_enable_only"] = _words(clpreauth.relations["enable_only"])
    fields["appdefaults"] = dict(_paths(root.section("appdefaults")))
    fields["without_effect"] = tuple(_without_effect(root))
    fields["capaths"] = {
        client: {server: _words(relations) for server, relations in section.relations.items()}
        for client, section in root.section("capaths").sections.items()
    }
    return fields


_ALIAS = "an alias of a host is never resolved (purekrb.canonicalize_host does it for who accepts the risk)"
_LIBRARY = "plugins are C libraries, which purekrb does not load"
#: Relations of [libdefaults] that MIT follows and purekrb does not -> what happens instead. They may
#: say what purekrb does anyway.
_NOT_FOLLOWED = {
    "dns_canonicalize_hostname": _ALIAS,
    "rdns": _ALIAS,
    "dns_lookup_realm": "the realm of a host is never looked up in DNS: write [domain_realm]",
    "qualify_shortname": "names of hosts are not completed: name services by their full names",
    "ignore_acceptor_hostname": "an acceptor takes the names of its keytab, or the one it is given",
    "kdc_default_options": "requests follow forwardable, proxiable and canonicalize",
    "verify_ap_req_nofail": "verify_credentials always fails without a key",
    "plugin_base_dir": _LIBRARY,
}


def _without_effect(root: Section) -> Iterator[SkippedLine]:
    """Yield the lines that are well-formed, and that purekrb does not follow."""
    for name, reason in _NOT_FOLLOWED.items():
        relation = root.section("libdefaults").first(name)
        if relation is not None and relation.text.lower() not in _FALSE:
            _log.debug("%s: %s is not followed: %s", relation.where, name, reason)
            yield SkippedLine(relation.where, f"{name} is not followed: {reason}")
    for interface, section in root.section("plugins").sections.items():
        for name, relations in section.relations.items():
            if interface != "clpreauth" or name == "module":
                yield SkippedLine(
                    relations[0].where, f"{name} of {interface} is not followed: {_LIBRARY}"
                )


def _paths(section: Section, *above: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path of each relation below a section, and its first value."""
    for name, relations in section.relations.items():
        yield (*above, name), relations[0].text
    if len(above) < 2:
        for name, inner in section.sections.items():
            yield from _paths(inner, *above, name)


def _words(relations: Sequence[Relation]) -> tuple[str, ...]:
    return tuple(word for relation in relations for word in relation.text.split())


def _pkinit(section: Section) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(relation.text for relation in relations)
        for name, relations in section.relations.items()
        if name.startswith("pkinit_")
    }


def _realm_config(
    section: Section,
    skip: Callable[[str, str], None],
    own_options: Mapping[str, tuple[str, ...]],
) -> RealmConfig:
    servers: dict[str, tuple[KdcAddress, ...]] = {}
    unreadable: dict[str, str] = {}
    for name, (attribute, port) in _SERVERS.items():
        found = []
        for relation in section.relations.get(name, ()):
            text = _uncommented(relation, skip)
            word = _first_word(text)
            if word != text.strip():
                skip(relation.where, "only the first word names a server")
            try:
                found.append(KdcAddress.parse(word, port))
            except ConfigError as error:
                reason = str(error.args[0]).replace(repr(word), _quoted(word))
                skip(relation.where, reason)
                unreadable[attribute] = f"{relation.where}: {reason}"
        servers[attribute] = (*servers.get(attribute, ()), *found)
    options = {
        name: tuple(relation.text for relation in relations)
        for name, relations in section.relations.items()
        if name not in _SERVERS and name != "auth_to_local"
    }
    options.update(own_options)
    names = section.section("auth_to_local_names").relations
    return RealmConfig(
        **servers,
        auth_to_local=tuple(rule.text for rule in section.relations.get("auth_to_local", ())),
        auth_to_local_names={name: relations[-1].text for name, relations in names.items()},
        options=options,
        unreadable=unreadable,
    )
