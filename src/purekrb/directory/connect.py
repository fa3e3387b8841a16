"""From a URL and a credential to a session with a directory: names, TLS, the bind; and the other sessions it takes.

Every session is mutually authenticated by Kerberos, and sealed or signed, or inside of TLS with channel bindings.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from purekrb.credentials.credential import Credential
from purekrb.credentials.files import FilePath
from purekrb.credentials.ticket import ServiceTicket
from purekrb.directory.discovery import LDAP_PORT, domain_controllers, global_catalogs
from purekrb.directory.ldap import INVALID_PARAMETER, LdapSession, StartBind, Tls, open_connection
from purekrb.directory.sasl import MECHANISMS, Bind, Layer, context_flags
from purekrb.dn import domain_of
from purekrb.errors import (
    ClientRevokedError,
    ClientUnknownError,
    CredentialError,
    DirectoryError,
    KerberosError,
    PasswordExpiredError,
    PreauthFailedError,
    ServiceUnknownError,
    TransportError,
    UnsupportedError,
)
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.initiator import Initiator
from purekrb.io.blocking import drive
from purekrb.io.steps import look_up
from purekrb.kdc.client import KdcClient, Target
from purekrb.kdc.config import Config, KdcAddress
from purekrb.kdc.locate import Locator
from purekrb.log import Log
from purekrb.spn import target_principal
from purekrb.system import fork_safe

__all__ = [
    "DEFAULT_TIMEOUT",
    "Options",
    "Sessions",
    "Url",
    "bind_starter",
    "connect",
    "default_targets",
    "host_of",
]

_log = Log("purekrb.directory")

#: Seconds for the opening of a connection, and for the answer to one request: a page of a search may take a while.
DEFAULT_TIMEOUT = 30.0
_LDAPS_PORT = 636
#: The port of a domain controller's global catalog, by that of its directory: without and with TLS.
_GC_PORTS = {LDAP_PORT: 3268, _LDAPS_PORT: 3269}
_TLS_PORTS = {LDAP_PORT: _LDAPS_PORT, 3268: 3269}
_DIRECTORY_PORTS = {gc: port for port, gc in _GC_PORTS.items()}
_URL = re.compile(
    r"(?P<scheme>ldaps?)://(?:(?P<name>[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?)|\[(?P<address>[0-9a-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE | re.ASCII,
)
#: LDAP_CAP_ACTIVE_DIRECTORY_PARTIAL_SECRETS_OID: a read-only domain controller. Source: MS-ADTS 3.1.1.3.4.3.
_READ_ONLY = "1.2.840.113556.1.4.1920"
#: The context's mechanism behind each SASL mechanism.
_CONTEXTS = {"GSSAPI": "kerberos", "GSS-SPNEGO": "negotiate"}


class Url(NamedTuple):
    """What an LDAP URL names: a server, and whether TLS begins at once."""

    host: str
    port: int
    ldaps: bool

    @classmethod
    def parse(cls, text: str) -> Url:
        """Return what `ldap://host`, `ldap://host:port` or `ldaps://...` names. Raises DirectoryError for all else."""
        match = _URL.fullmatch(text)
        if match is not None:
            ldaps = match["scheme"].lower() == "ldaps"
            host = (match["name"] or match["address"]).rstrip(".")
            port = int(match["port"] or (_LDAPS_PORT if ldaps else LDAP_PORT))
            if 0 < port <= 0xFFFF and (match["name"] or _is_address(host)):
                return cls(host, port, ldaps)
        raise DirectoryError(
            f"{text!r} is no URL of a directory: write ldap://dc1.ad.test, or ldaps://dc1.ad.test:636",
            code=INVALID_PARAMETER,
        )


@dataclass(frozen=True)
class Options:
    """How sessions are opened. `sealed` counts without TLS alone: inside of TLS there is no security layer.

    `allow_unverified_tls`: a `tls_context` that does not check certificates and their names will do.
    """

    mechanism: str = "GSSAPI"
    sealed: bool = True
    start_tls: bool = False
    ca_file: FilePath | None = None
    tls_context: ssl.SSLContext | None = None
    site: str = ""
    timeout: float = DEFAULT_TIMEOUT
    allow_unverified_tls: bool = False


def bind_starter(
    client: KdcClient,
    credential: Credential,
    targets: Sequence[Target],
    *,
    mechanism: str,
    sealed: bool,
) -> StartBind:
    """Return what begins a bind as `credential` with the first of `targets` that the KDC knows.

    Raises UnsupportedError for a SASL mechanism that is not among MECHANISMS.
    """
    if mechanism not in MECHANISMS:
        raise UnsupportedError(
            f"there is no SASL mechanism {mechanism!r} here: use {' or '.join(MECHANISMS)}"
        )

    def start(tls: bool, bindings: ChannelBindings | None) -> tuple[str, Bind]:
        layer = Layer.NONE if tls else Layer.CONFIDENTIALITY if sealed else Layer.INTEGRITY
        ticket = _first_known(client, credential, targets)
        context = Initiator(
            ticket,
            flags=context_flags(layer),
            mechanism=_CONTEXTS[mechanism],
            channel_bindings=bindings,
            permitted_etypes=client.config.permitted_etypes,
            send_client_target=True,
        )
        _log.debug(
            "bind as %s to %s: %s, %s", credential.principal, ticket.service, mechanism, layer.name
        )
        return mechanism, MECHANISMS[mechanism](context, layer)

    return start


class Connector:
    """Opens sessions for one credential, each with a context of its own. `ldaps`: those found by DNS begin with TLS."""

    def __init__(
        self,
        credential: Credential,
        config: Config | None,
        options: Options,
        *,
        ldaps: bool = False,
        locator: Locator | None = None,
    ) -> None:
        if ldaps and options.start_tls:
            raise DirectoryError(
                "ldaps:// is TLS from the first octet: leave out start_tls", code=INVALID_PARAMETER
            )
        client = KdcClient(config, timeout=options.timeout, locator=locator)
        self.config = client.config
        self._credential = credential
        self._options = options
        self._ldaps = ldaps
        self._client = client
        self._locator = locator or Locator(client.config)

    def to(self, url: Url, targets: Sequence[Target]) -> LdapSession:
        """Return a session with the server at `url`, which proves to be the first of `targets` that a KDC knows."""
        options = self._options
        start_bind = bind_starter(
            self._client,
            self._credential,
            targets,
            mechanism=options.mechanism,
            sealed=options.sealed,
        )
        tls = self._tls(url, targets[0])

        def connection() -> object:
            return open_connection(self._addresses(url), url.port, start_bind, tls, options.timeout)

        base_dn = "" if url.port in _DIRECTORY_PORTS else None  # a global catalog: the forest
        return LdapSession(connection(), base_dn, reopen=connection, timeout=options.timeout)

    def to_domain(self, domain: str, *, writable: bool = False) -> LdapSession:
        """Return a session with a domain controller of `domain`; `writable`: with none that is read-only."""
        return self.find(domain, writable=writable)[0]

    def find(self, domain: str, *, writable: bool = False) -> tuple[LdapSession, Url, str]:
        """Return what `to_domain` returns, where that is, and the name that it has proved."""
        servers = domain_controllers(self._locator, domain, "" if writable else self._options.site)
        return self._to_first(servers, f"ldap/{{}}/{domain}", writable)

    def to_forest(self, forest: str) -> LdapSession:
        """Return a session with a global catalog of the forest whose root domain is `forest`."""
        return self._to_first(
            global_catalogs(self._locator, forest, self._options.site), f"GC/{{}}/{forest}"
        )[0]

    def _to_first(
        self, servers: Sequence[KdcAddress], target: str, writable: bool = False
    ) -> tuple[LdapSession, Url, str]:
        refusals = []
        for server in servers:
            port = _TLS_PORTS.get(server.port, server.port) if self._ldaps else server.port
            # Whoever answers DNS chooses the host, so that only a name that domain controllers alone have will do.
            url, name = Url(server.host, port, self._ldaps), target.format(server.host)
            try:
                session = self.to(url, [name])
                if not writable or not is_read_only(session):
                    return session, url, name
                session.close()
                refusals.append(f"{server.host} is read-only")
            except (
                CredentialError,
                PreauthFailedError,
                ClientUnknownError,
                ClientRevokedError,
                PasswordExpiredError,
            ):
                raise  # ours, not the server's: to try again with each would lock the account
            except KerberosError as error:
                refusals.append(f"{server.host}: {error}")
                _log.debug("%s is passed over: %s", server.host, error)
        raise TransportError(
            f"no session with a {target.partition('/')[0]} server: {'; '.join(refusals) or 'none found'}"
        )

    def _addresses(self, url: Url) -> list[str]:
        deadline = time.monotonic() + self._options.timeout
        find = partial(self._locator.addresses, url.host, url.port)
        found = drive(look_up(find, deadline, time.monotonic, f"the addresses of {url.host}"))
        return [address.sockaddr[0] for address in found]

    def _tls(self, url: Url, target: Target) -> Tls | None:
        options = self._options
        if not url.ldaps and not options.start_tls:
            return None
        context = options.tls_context
        if context is None:
            try:
                context = ssl.create_default_context(cafile=options.ca_file)
            except OSError as error:
                raise DirectoryError(
                    f"the CA file {options.ca_file} cannot be used: {error}"
                ) from None
        return Tls(context, host_of(target), options.start_tls, options.allow_unverified_tls)


def default_targets(config: Config, credential: Credential, host: str) -> list[str]:
    """Return the names by which `host`, which the caller typed, may prove itself. Source: MS-ADTS 6.3.3.

    First the one that only domain controllers may have. Raises DirectoryError for an address.
    """
    if _is_address(host):
        raise DirectoryError(
            f"{host} is an address, and Kerberos needs a name: pass target='ldap/' and the DNS name of the domain "
            "controller",
            code=INVALID_PARAMETER,
        )
    realm = config.realm_of(host) or credential.principal.realm
    return [f"ldap/{host}/{realm.lower()}", f"ldap/{host}"]


def host_of(target: Target) -> str:
    """Return the host that the service principal name `target` names, "" where it names none."""
    components = target_principal(target).components
    return components[1].partition(":")[0] if len(components) > 1 else ""


def _first_known(
    client: KdcClient, credential: Credential, targets: Sequence[Target]
) -> ServiceTicket:
    for target in targets[:-1]:
        with suppress(ServiceUnknownError):
            return client.get_ticket(credential, target)
    return client.get_ticket(credential, targets[-1])


def is_read_only(session: LdapSession) -> bool:
    """Return whether the domain controller of `session` takes no changes."""
    return _READ_ONLY in session.root_dse.texts("supportedCapabilities")


class Sessions:
    """The sessions that one directory takes: here `main` for everything, but `forest` for that where it is given."""

    def __init__(self, main: LdapSession, forest: LdapSession | None = None) -> None:
        self.main = main
        self._given_forest = forest

    @property
    def writer(self) -> LdapSession:
        """The session for changes, and for reading what they depend on."""
        return self.main

    @property
    def forest(self) -> LdapSession:
        """The session for searches of the whole forest, from its `base_dn`: few attributes, no changes."""
        return self._given_forest or self.main

    def domain_of(self, dn: str) -> LdapSession:
        """Return the session for all attributes of the object `dn`, which `forest` found."""
        return self.main

    def close(self) -> None:
        """End all sessions."""
        self.main.close()
        self.forest.close()


class ConnectedSessions(Sessions):
    """The sessions of a real directory, opened when first needed.

    `main` is with the server at `url`, which is one of `targets`.
    """

    def __init__(
        self, main: LdapSession, connector: Connector, url: Url, targets: Sequence[Target]
    ) -> None:
        super().__init__(main)
        self._connector = connector
        self._url = url
        self._targets = targets
        self._others: dict[str, LdapSession] = {}
        self._lock = fork_safe(threading.RLock())

    @property
    def writer(self) -> LdapSession:
        """The session for changes: not with a global catalog, not with a read-only domain controller."""
        return self._once("writer", self._open_writer)

    @property
    def forest(self) -> LdapSession:
        """The session for searches of the whole forest; where no global catalog answers, of the one domain."""
        return self._once("forest", self._open_forest)

    def domain_of(self, dn: str) -> LdapSession:
        """Return the session with a domain controller of the domain of `dn`."""
        domain = domain_of(dn)
        if not domain:
            raise DirectoryError(
                f"{dn!r} is in no domain: expected a DN that ends in DC=...", code=INVALID_PARAMETER
            )
        return self._once(domain, lambda: self._open_domain(domain))

    def close(self) -> None:
        """End all sessions."""
        with self._lock:
            for session in (self.main, *self._others.values()):
                session.close()

    def _once(self, name: str, open_session: Callable[[], LdapSession]) -> LdapSession:
        with self._lock:
            if name not in self._others:
                self._others[name] = open_session()
            return self._others[name]

    def _open_writer(self) -> LdapSession:
        session = self._at_other_port(_DIRECTORY_PORTS) or self.main
        if not is_read_only(session):
            return session
        _log.debug("the domain controller is read-only: another one is looked for")
        domain = domain_of(session.root_dse.text("defaultNamingContext"))
        if session is not self.main:
            session.close()
        return self._connector.to_domain(domain, writable=True)

    def _open_forest(self) -> LdapSession:
        if self._url.port in _DIRECTORY_PORTS:
            return self.main
        root = self.main.root_dse
        try:
            session = (
                self._at_other_port(_GC_PORTS)
                if root.text("isGlobalCatalogReady") == "TRUE"
                else None
            )
            return session or self._connector.to_forest(
                domain_of(root.text("rootDomainNamingContext"))
            )
        except KerberosError as error:
            _log.warning(
                "no global catalog answers, so that only %s is searched: %s",
                self.main.base_dn,
                error,
            )
            return self.main

    def _at_other_port(self, ports: Mapping[int, int]) -> LdapSession | None:
        """Return a session with the same server at the port that `ports` has for ours; None where it has none."""
        if self._url.port not in ports:
            return None
        return self._connector.to(self._url._replace(port=ports[self._url.port]), self._targets)

    def _open_domain(self, domain: str) -> LdapSession:
        writer = self.writer
        if domain_of(writer.base_dn) == domain:
            return writer
        return self._connector.to_domain(domain)


def connect(
    url: str | None,
    credential: Credential,
    config: Config | None,
    target: Target | None,
    domain: str,
    options: Options,
    locator: Locator | None,
) -> Sessions:
    """Return the sessions that begin with one at `url`, or with a domain controller of `domain`."""
    where = None if url is None else Url.parse(url)
    connector = Connector(
        credential, config, options, ldaps=where is not None and where.ldaps, locator=locator
    )
    if where is None:
        main, where, name = connector.find(domain or credential.principal.realm.lower())
        return ConnectedSessions(main, connector, where, [name])
    targets = (
        [target]
        if target is not None
        else default_targets(connector.config, credential, where.host)
    )
    return ConnectedSessions(connector.to(where, targets), connector, where, targets)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
