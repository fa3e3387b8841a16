"""From a URL and a credential to sessions with a directory: server names, TLS and the bind.

Kerberos authenticates both sides of every session. The messages are sealed or signed; or they go
through TLS, with channel bindings.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from purekrb.credentials.credential import Credential
from purekrb.credentials.files import FilePath
from purekrb.credentials.ticket import ServiceTicket
from purekrb.directory.discovery import LDAP_PORT, domain_controllers, global_catalogs
from purekrb.directory.ldap import INVALID_PARAMETER, LdapSession, StartBind, Tls, bound_connection
from purekrb.directory.tickets import TicketSource
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
from purekrb.io.dial import Dial, OpenConnection, dialed, in_thread
from purekrb.io.steps import look_up
from purekrb.kdc.client import KdcClient, Target
from purekrb.kdc.locate import Locator
from purekrb.krb5conf.config import KPASSWD_PORT, Config, KdcAddress, RealmConfig
from purekrb.log import Log
from purekrb.sasl import CLIENTS, Layer, SaslClient, context_flags
from purekrb.spn import is_address, target_principal
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

#: Seconds for opening a connection, and for the answer to one request: a page of a search may take
#: a while.
DEFAULT_TIMEOUT = 30.0
_LDAPS_PORT = 636
#: Ports of a domain controller: of its directory -> of its global catalog, without and with TLS.
_GC_PORTS = {LDAP_PORT: 3268, _LDAPS_PORT: 3269}
_TLS_PORTS = {LDAP_PORT: _LDAPS_PORT, 3268: 3269}
_DIRECTORY_PORTS = {gc: port for port, gc in _GC_PORTS.items()}
_URL = re.compile(
    r"(?P<scheme>ldaps?)://"
    r"(?:(?P<name>[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?\.?)|\[(?P<address>[0-9a-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE | re.ASCII,
)
#: LDAP_CAP_ACTIVE_DIRECTORY_PARTIAL_SECRETS_OID: a read-only domain controller.
#: Source: MS-ADTS 3.1.1.3.4.3.
_READ_ONLY = "1.2.840.113556.1.4.1920"
#: SASL mechanism -> the mechanism of its contexts.
_CONTEXTS = {"GSSAPI": "kerberos", "GSS-SPNEGO": "negotiate"}


class Url(NamedTuple):
    """The parts of an LDAP URL: a server, and whether TLS begins at once."""

    host: str
    port: int
    ldaps: bool

    @classmethod
    def parse(cls, text: str) -> Url:
        """Return the parts of `ldap://host`, `ldap://host:port` or `ldaps://...`.

        Raises DirectoryError for any other text.
        """
        match = _URL.fullmatch(text)
        if match is not None:
            ldaps = match["scheme"].lower() == "ldaps"
            host = (match["name"] or match["address"]).rstrip(".")
            port = int(match["port"] or (_LDAPS_PORT if ldaps else LDAP_PORT))
            if 0 < port <= 0xFFFF and (match["name"] or is_address(host)):
                return cls(host, port, ldaps)
        raise DirectoryError(
            f"{text!r} is not the URL of a directory: "
            "write ldap://dc1.ad.test or ldaps://dc1.ad.test:636",
            code=INVALID_PARAMETER,
        )


@dataclass(frozen=True)
class Options:
    """How to open sessions.

    `sealed` only applies without TLS: inside TLS there is no security layer.
    `allow_unverified_tls` permits a `tls_context` that does not check certificates or their names.
    """

    mechanism: str = "GSSAPI"
    sealed: bool = True
    start_tls: bool = False
    ca_file: FilePath | None = None
    tls_context: ssl.SSLContext | None = None
    site: str = ""
    timeout: float = DEFAULT_TIMEOUT
    allow_unverified_tls: bool = False
    open_connection: OpenConnection | None = None


def bind_starter(
    client: KdcClient,
    credential: Credential,
    targets: Sequence[Target],
    *,
    mechanism: str,
    sealed: bool,
) -> StartBind:
    """Return a function that begins a bind as `credential` with the first target known to the KDC.

    Raises UnsupportedError for a SASL mechanism that is not among CLIENTS.
    """
    if mechanism not in CLIENTS:
        raise UnsupportedError(
            f"there is no SASL mechanism {mechanism!r} here: use {' or '.join(CLIENTS)}"
        )
    protection = Layer.CONFIDENTIALITY if sealed else Layer.INTEGRITY

    def start(tls: bool, bindings: ChannelBindings | None) -> SaslClient:
        layer = Layer.NONE if tls else protection
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
        return CLIENTS[mechanism](context, layer=layer)

    return start


class Connector:
    """Opens sessions for one credential; each has a context of its own.

    With `ldaps`, sessions with servers that DNS names begin with TLS.
    """

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
                "ldaps:// is TLS from the first byte: leave out start_tls", code=INVALID_PARAMETER
            )
        client = KdcClient(
            config,
            timeout=options.timeout,
            locator=locator,
            open_connection=options.open_connection,
        )
        self.config = client.config
        self.credential = credential
        self._options = options
        self._ldaps = ldaps
        self._client = client
        self._locator = locator or Locator(client.config)
        opens = options.open_connection
        self._dial = None if opens is None else in_thread(opens)

    def to(self, url: Url, targets: Sequence[Target]) -> LdapSession:
        """Return a session with the server at `url`.

        The server has proved that it has the key of the first of `targets` that the KDC knows.
        """
        options = self._options
        start_bind = bind_starter(
            self._client,
            self.credential,
            targets,
            mechanism=options.mechanism,
            sealed=options.sealed,
        )
        tls = self._tls(url, targets[0])

        def connection() -> object:
            dial = self._dial
            where = self._addresses(url) if dial is None else self._dialed(dial, url)
            return bound_connection(where, url.port, start_bind, tls, options.timeout)

        # A global catalog is searched from the top of the forest.
        base_dn = "" if url.port in _DIRECTORY_PORTS else None
        return LdapSession(connection(), base_dn, reopen=connection, timeout=options.timeout)

    def kdc_at(self, host: str, realm: str) -> KdcClient:
        """Return a client of the KDC at the domain controller `host`, before all others of `realm`.

        What was just written there, other domain controllers may not know yet.
        """
        known = self.config.realm(realm)
        passwords = self._locator.changing_passwords(realm)
        servers = RealmConfig(
            kdc=_first(KdcAddress(host), known.kdc),
            primary_kdc=known.primary_kdc,
            kpasswd_server=_first(KdcAddress(host, KPASSWD_PORT), passwords),
            options=known.options,
        )
        config = replace(self.config, realms={**self.config.realms, realm: servers})
        return KdcClient(
            config,
            # An account that is made just now has no ticket to make an armor of.
            armor=self.credential if config.requirement(realm) == "fast" else None,
            timeout=self._options.timeout,
            locator=self._locator.with_config(config),
            open_connection=self._options.open_connection,
        )

    def to_domain(self, domain: str, *, writable: bool = False) -> LdapSession:
        """Return a session with a domain controller of `domain`, a writable one if `writable`."""
        return self.find(domain, writable=writable)[0]

    def find(self, domain: str, *, writable: bool = False) -> tuple[LdapSession, Url, str]:
        """Return the session of `to_domain`, the URL of its server, and the name that it proved."""
        servers = domain_controllers(self._locator, domain, "" if writable else self._site(domain))
        return self._to_first(servers, f"ldap/{{}}/{domain}", writable)

    def to_forest(self, forest: str) -> LdapSession:
        """Return a session with a global catalog of the forest whose root domain is `forest`."""
        return self._to_first(
            global_catalogs(self._locator, forest, self._site(forest)), f"GC/{{}}/{forest}"
        )[0]

    def _site(self, domain: str) -> str:
        """Return the site whose servers come first: the given one, or that of this machine."""
        locator = self._locator
        return self._options.site or locator.site(domain.upper(), udp=self._dial is None)

    def _to_first(
        self, servers: Sequence[KdcAddress], target: str, writable: bool = False
    ) -> tuple[LdapSession, Url, str]:
        refusals = []
        for server in servers:
            port = _TLS_PORTS.get(server.port, server.port) if self._ldaps else server.port
            # DNS answers are not signed, so anyone may have chosen the host. Only a name that is
            # reserved for domain controllers is proof enough. Source: MS-ADTS 6.3.3.
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
                raise  # the fault is ours; trying each server would lock the account
            except KerberosError as error:
                refusals.append(f"{server.host}: {error}")
                _log.debug("%s is skipped: %s", server.host, error)
        raise TransportError(
            f"no session with a {target.partition('/')[0]} server could be opened: "
            f"{'; '.join(refusals) or 'none was found'}"
        )

    def _addresses(self, url: Url) -> list[str]:
        deadline = time.monotonic() + self._options.timeout
        find = partial(self._locator.addresses, url.host, url.port)
        found = drive(look_up(find, deadline, time.monotonic, f"the addresses of {url.host}"))
        return [address.sockaddr[0] for address in found]

    def _dialed(self, dial: Dial, url: Url) -> socket.socket:
        deadline = time.monotonic() + self._options.timeout
        return drive(dialed(dial, url.host, url.port, deadline, time.monotonic))

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


def _first(server: KdcAddress, others: Sequence[KdcAddress]) -> tuple[KdcAddress, ...]:
    same = [other for other in others if (other.host, other.port) == (server.host, server.port)]
    return tuple(dict.fromkeys((*same, server, *others)))


def default_targets(config: Config, credential: Credential, host: str) -> list[str]:
    """Return the names by which `host`, which the caller typed, may prove itself.

    The first is the one that only domain controllers may have. Raises DirectoryError for an
    address. Source: MS-ADTS 6.3.3.
    """
    if is_address(host):
        raise DirectoryError(
            f"{host} is an address, and Kerberos needs a name: "
            "pass target='ldap/' and the DNS name of the domain controller",
            code=INVALID_PARAMETER,
        )
    realm = config.realm_of(host) or credential.principal.realm
    return [f"ldap/{host}/{realm.lower()}", f"ldap/{host}"]


def host_of(target: Target) -> str:
    """Return the host in the service principal name `target`; "" without one."""
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
    """Return whether the domain controller of `session` is read-only."""
    return _READ_ONLY in session.root_dse.texts("supportedCapabilities")


class Sessions:
    """The sessions of one directory: here `main` for everything, unless `forest` is given."""

    def __init__(self, main: LdapSession, forest: LdapSession | None = None) -> None:
        self.main = main
        self._given_forest = forest

    @property
    def writer(self) -> LdapSession:
        """The session for changes, and for the reads that they depend on."""
        return self.main

    @property
    def forest(self) -> LdapSession:
        """The session for searches of the whole forest: few attributes, and no changes."""
        return self._given_forest or self.main

    @property
    def credential(self) -> Credential:
        """The credential of the sessions. Raises UnsupportedError if they have none."""
        raise UnsupportedError(
            "this directory has no KDC, so accounts have no keys here: connect to a domain "
            "controller (Directory.connect)"
        )

    def kdc(self) -> KdcClient:
        """Return a client of the KDC of the domain controller that `writer` writes to."""
        raise UnsupportedError(
            "this directory has no KDC, so accounts have no keys here: connect to a domain "
            "controller (Directory.connect)"
        )

    def domain_of(self, dn: str) -> LdapSession:
        """Return the session for all attributes of the object `dn`, which `forest` found."""
        return self.main

    @property
    def tickets(self) -> TicketSource | None:
        """What asks the KDC for tickets as the caller; None if the directory has no KDC."""
        return None

    def close(self) -> None:
        """End all sessions."""
        self.main.close()
        self.forest.close()


class ConnectedSessions(Sessions):
    """The sessions of a real directory, opened on first use.

    `main` is the session with the server at `url`, whose name is one of `targets`.
    """

    def __init__(
        self, main: LdapSession, connector: Connector, url: Url, targets: Sequence[Target]
    ) -> None:
        super().__init__(main)
        self._connector = connector
        self._url = url
        self._targets = targets
        self._writer_host = url.host
        self._others: dict[str, LdapSession] = {}
        self._lock = fork_safe(threading.RLock())

    @property
    def writer(self) -> LdapSession:
        """The session for changes: never with a global catalog or a read-only domain controller."""
        return self._once("writer", self._open_writer)

    @property
    def forest(self) -> LdapSession:
        """The session for searches of the forest; of one domain if no global catalog answers."""
        return self._once("forest", self._open_forest)

    @property
    def credential(self) -> Credential:
        """The credential of the sessions."""
        return self._connector.credential

    def kdc(self) -> KdcClient:
        """Return a client of the KDC of the domain controller that `writer` writes to."""
        writer = self.writer
        return self._connector.kdc_at(self._writer_host, writer.domain.upper())

    @property
    def tickets(self) -> TicketSource:
        """What asks the KDC for tickets as the caller."""
        return TicketSource(self.kdc(), self.credential)

    def domain_of(self, dn: str) -> LdapSession:
        """Return the session with a domain controller of the domain of `dn`."""
        domain = domain_of(dn)
        if not domain:
            raise DirectoryError(
                f"{dn!r} is not in a domain: expected a DN that ends in DC=...",
                code=INVALID_PARAMETER,
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
        _log.debug("the domain controller is read-only: looking for another one")
        domain = domain_of(session.root_dse.text("defaultNamingContext"))
        if session is not self.main:
            session.close()
        session, url, _ = self._connector.find(domain, writable=True)
        self._writer_host = url.host
        return session

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
                "no global catalog answers, so only %s is searched: %s",
                self.main.base_dn,
                error,
            )
            return self.main

    def _at_other_port(self, ports: Mapping[int, int]) -> LdapSession | None:
        """Return a session with the same server at the port to which `ports` maps ours, or None."""
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
    """Return sessions, the main one with the server at `url` or a domain controller of `domain`."""
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
