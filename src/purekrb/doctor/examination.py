"""The examination: its target, and what the steps share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from purekrb.credentials import defaults
from purekrb.credentials.ccache import CCache
from purekrb.credentials.choice import choose_ccache
from purekrb.credentials.credential import Credential
from purekrb.credentials.files import FilePath, split_type
from purekrb.credentials.keytab import Keytab
from purekrb.credentials.ticket import ServiceTicket
from purekrb.doctor.facts import facts_of
from purekrb.doctor.recorder import Answered, RecordingClient, put, question
from purekrb.doctor.report import Exchanged
from purekrb.errors import ConfigError, CredentialError, KerberosError
from purekrb.findings import Finding, Status, split_remedy
from purekrb.inspection.describe import describe
from purekrb.kdc.locate import Locator
from purekrb.krb5conf.config import Config, KdcAddress
from purekrb.krb5conf.spelling import client_principal, fitting_realm
from purekrb.names import Principal
from purekrb.records import replace
from purekrb.spn import target_principal
from purekrb.system import cached_property, now
from purekrb.text import visible

__all__ = ["Examination", "Step", "MAX_KDCS"]

#: What a step yields: status, text, and the one thing to do.
Step = Callable[["Examination"], Iterator[tuple[Status, str, str]]]
#: The name that is asked for where no user is known. No KDC knows it, and each says its time.
_NOBODY = "purekrb-doctor"


class Examination:
    """What the steps know. Each fact is found out once, by the step that needs it first."""

    def __init__(
        self,
        target: str | None,
        config: Config | None,
        credential: Credential | None,
        ccache: FilePath | None,
        keytab: FilePath | Keytab | None,
        timeout: float,
    ) -> None:
        self.target = _without_password((target or "").strip())
        self.given_config, self.given_credential = config, credential
        self.given_ccache, self.given_keytab = ccache, keytab
        self.timeout = timeout
        self.directory_url: str | None = None
        self.directory_target: str | None = None
        self.ca_file: FilePath | None = None
        self.findings: list[Finding] = []
        self.exchanged: list[Exchanged] = []
        self._started = time.monotonic()
        #: The ticket for the service.
        self.ticket: ServiceTicket | None = None

    # -- findings

    def run(self, name: str, step: Step) -> None:
        """Run one step. What it raises is a finding, too."""
        try:
            for status, text, remedy in step(self):
                self.findings.append(Finding(name, status, visible(text), visible(remedy)))
        except KerberosError as error:
            self.findings.append(Finding(name, "failed", *split_remedy(error)))
        except OSError as error:
            why = f"{error.filename or ''} {error.strerror or error}".strip()
            self.findings.append(Finding(name, "failed", visible(why)))
        except ValueError:  # its text may quote a secret
            text = "the target has characters or numbers that cannot stand there"
            self.findings.append(Finding(name, "failed", text, "check the spelling of the target"))

    def record(self, sender: str, receiver: str, message: bytes) -> None:
        """Add a message to the exchange. Nothing secret of it is kept."""
        try:
            tree = describe(message)
        except KerberosError as error:
            tree = {"unknown message": str(error)}
        name, facts = facts_of(tree)
        seconds = time.monotonic() - self._started
        self.exchanged.append(Exchanged(sender, receiver, name, seconds, facts, tree))

    # -- the target

    @cached_property
    def url(self) -> str:
        """The URL of the target, or ""; host:port is taken for HTTP or HTTPS."""
        if "://" in self.target:
            return self.target
        host, colon, port = self.target.rpartition(":")
        if colon and port.isdigit() and "/" not in host and "@" not in host and host:
            scheme = {"443": "https", "8443": "https", "389": "ldap", "636": "ldaps"}
            return f"{scheme.get(port, 'http')}://{self.target}"
        return ""

    @cached_property
    def keytab_path(self) -> str:
        """The target as the name of a keytab, or ""."""
        if not self.target or self.url:
            return ""
        kind, path = split_type(self.target)
        named = kind == "FILE" and self.target.startswith("FILE:")
        return self.target if named or os.path.isfile(path) else ""

    @cached_property
    def _found_names(self) -> tuple[Principal | None, Principal | None, KerberosError | None]:
        """The service, the user, and why the target names neither."""
        try:
            return self._service(), self._user(), None
        except KerberosError as error:
            return None, None, error

    @property
    def service(self) -> Principal | None:
        """The service in question, with its realm, or None."""
        return self._found_names[0]

    @property
    def user(self) -> Principal | None:
        """The user in question: the target, or who the tickets belong to."""
        return self._found_names[1]

    @property
    def target_error(self) -> KerberosError | None:
        """Why the target is no name that Kerberos knows, or None."""
        return self._found_names[2]

    def _service(self, *, home: bool = True) -> Principal | None:
        """Return the service; `home`: its realm may be that of the tickets."""
        if self.url:
            parts = urlsplit(self.url)
            ldap = parts.scheme in ("ldap", "ldaps")
            if ldap and self.directory_target:
                return self._in_realm(self.directory_target, home)
            if not parts.hostname:
                return None
            return self._in_realm(f"{'ldap' if ldap else 'HTTP'}/{parts.hostname}", home)
        if self.keytab_path:
            services = [p for p in self.keytab_principals if len(p.components) > 1]
            return services[0] if services else None
        return self._in_realm(self.target, home) if "/" in self.target else None

    def _user(self) -> Principal | None:
        if self.keytab_path and not self._service():
            return next(iter(self.keytab_principals), None)
        if self.target and not (self.url or self.keytab_path or "/" in self.target):
            return client_principal(self.target, self.config)
        return self.owner

    @property
    def keytab_principals(self) -> list[Principal]:
        """The names in the keytab that is the target, or none if it cannot be read."""
        try:
            return Keytab.load(self.keytab_path).principals
        except (KerberosError, OSError):
            return []

    def _in_realm(self, name: str, home: bool) -> Principal:
        """Return the service with its realm: the named one, that of its host, or the default."""
        principal = target_principal(name)
        if principal.realm:
            realm = fitting_realm(principal.realm, self.config)
            return Principal(principal.components, realm, principal.name_type)
        host = principal.components[1].partition(":")[0] if len(principal.components) > 1 else ""
        realm = self.config.realm_of(host) or self.config.default_realm or ""
        if not realm and home and self.owner is not None:
            realm = self.owner.realm
        return Principal(principal.components, realm, principal.name_type)

    # -- the configuration

    @cached_property
    def config_error(self) -> KerberosError | None:
        """Why krb5.conf cannot be used, or None."""
        return self._read_config[1]

    @cached_property
    def config(self) -> Config:
        """The configuration; an empty one if krb5.conf cannot be used."""
        return self._read_config[0]

    @cached_property
    def _read_config(self) -> tuple[Config, KerberosError | None]:
        if self.given_config is not None:
            return self.given_config, None
        try:
            return Config.from_file(), None
        except KerberosError as error:
            return Config(), error

    @cached_property
    def realm(self) -> str:
        """The realm whose KDCs are asked, or ""."""
        for principal in (self.user, self.service):
            if principal is not None and principal.realm:
                return principal.realm
        return self.config.default_realm or ""

    # -- KDCs

    @cached_property
    def kdcs(self) -> list[KdcAddress]:
        """The KDCs of the realm, from the configuration or DNS."""
        configured = list(self.config.kdcs(self.realm))
        if configured or not self.config.dns_lookup_kdc:
            return configured
        try:
            return Locator(self.config).by_dns(self.realm)
        except KerberosError:
            return []

    @cached_property
    def asked_about(self) -> Principal:
        """The client that the KDCs are asked about."""
        user = self.user
        return user if user and user.realm == self.realm else Principal((_NOBODY,), self.realm)

    @cached_property
    def answers(self) -> list[Answered]:
        """What each KDC says, by UDP and TCP. Only the first question is a part of the exchange."""
        if not self.realm:
            return []
        found = []
        for kdc in self.kdcs[:MAX_KDCS]:
            for transport in (kdc.transport,) if kdc.transport else ("udp", "tcp"):
                found.append(self.ask_about(self.asked_about, kdc, transport))
        return found

    def ask_about(
        self,
        client: Principal,
        kdc: KdcAddress,
        transport: str,
        etypes: tuple[int, ...] | None = None,
    ) -> Answered:
        """Ask one KDC for what a client needs to log in, without any proof."""
        message = question(client, etypes or self.config.tkt_etypes, now() + self.offset_guess)
        return put(self.config, kdc, transport, client.realm, message, self.timeout)

    @property
    def offset_guess(self) -> timedelta:
        """The KDC's clock minus ours, as far as it is known by now."""
        answers = self.__dict__.get("answers", [])
        return next((a.offset for a in answers if a.offset is not None), timedelta(0))

    @property
    def reachable(self) -> Answered | None:
        """The first answer of a KDC, or None."""
        return next((answer for answer in self.answers if answer.message is not None), None)

    def put_question(
        self, client: Principal, etypes: tuple[int, ...] | None = None
    ) -> Answered | None:
        """Ask a KDC that answers about a client, as a part of the exchange that is shown."""
        first = self.reachable
        if first is None:
            return None
        message = question(client, etypes or self.config.tkt_etypes, self.kdc_time())
        answer = put(self.config, first.kdc, first.transport, client.realm, message, self.timeout)
        kdc = f"KDC of {client.realm}"
        self.record("client", kdc, message)
        if answer.message is not None:
            self.record(kdc, "client", _bytes_of(answer))
        return answer

    def kdc_time(self) -> datetime:
        """Return the KDC's time, as far as it is known."""
        return now() + self.offset_guess

    # -- credentials

    @cached_property
    def credential_error(self) -> KerberosError | None:
        """Why no credential can be used, or None."""
        return self._found_credential[1]

    @cached_property
    def credential(self) -> Credential | None:
        """The caller's credential, or one of a copy of the machine's ccache; None if there is none."""
        return self._found_credential[0]

    @cached_property
    def _found_credential(self) -> tuple[Credential | None, KerberosError | None]:
        given = self.given_credential
        if given is None:
            stored, error = self._found_ccache
            return self._copy(stored.principal, list(stored)) if stored else None, error
        try:
            return self._copy(given.principal, self._tgts_of(given)), None
        except KerberosError as failure:
            return None, failure

    @cached_property
    def _found_ccache(self) -> tuple[CCache | None, KerberosError | None]:
        try:
            return self._chosen_ccache(), None
        except KerberosError as error:
            return None, error
        except OSError as error:
            return None, CredentialError(f"the credential cache cannot be read: {error.strerror}")

    def _chosen_ccache(self) -> CCache:
        """Return the ccache; of a collection, the one that fits the service."""
        name = defaults.ccache_name(self.given_ccache, self.config).name
        try:
            service = self._service(home=False)
        except KerberosError:  # a step tells
            service = None
        found = choose_ccache(service, name)[0] if self.given_ccache is None else None
        return CCache.load(name) if found is None else found

    def _tgts_of(self, given: Credential) -> list[ServiceTicket]:
        """Return the tickets of the caller's credential, which may get a TGT first."""
        stored = list(given.ccache)
        valid = any(ticket.is_tgt and ticket.endtime > self.kdc_time() for ticket in stored)
        return stored if valid or not given.can_get_tgt else [self.client.get_tgt(given)]

    def _copy(self, owner: Principal, tickets: list[ServiceTicket]) -> Credential:
        """Return a credential with the TGTs alone, so that other tickets are asked for anew.

        They have the KDC's time: a wrong clock has a step of its own, and must not end the chain.
        """
        offset = self.offset_guess
        tgts = [ticket for ticket in tickets if ticket.is_tgt]
        timed = [replace(tgt, time_offset=offset) if offset else tgt for tgt in tgts]
        return Credential.from_ccache(CCache(owner, timed))

    @property
    def owner(self) -> Principal | None:
        """Who the tickets belong to, or None."""
        if self.given_credential is not None:
            return self.given_credential.principal
        stored = self._found_ccache[0]
        return stored.principal if stored is not None else None

    @cached_property
    def client(self) -> RecordingClient:
        """A client of the KDCs whose messages are part of the exchange."""
        return RecordingClient(self.config, self.record, self.timeout)

    @cached_property
    def keytab(self) -> Keytab | None:
        """The keytab of the service: the target, the caller's, or the machine's if it can be read."""
        given = self.given_keytab
        if isinstance(given, Keytab):
            return given
        name = self.keytab_path or given
        try:
            chosen = defaults.keytab_name(name or None, self.config)
            if name is None and not defaults.exists(chosen):
                return None
            return Keytab.load(chosen.name)
        except (KerberosError, OSError):
            if name:
                raise
            return None


def _without_password(target: str) -> str:
    """Return a URL without the name and the password that may stand before its host."""
    scheme, found, rest = target.partition("://")
    if not found:
        return target
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


#: The most KDCs that are asked.
MAX_KDCS = 8


def _bytes_of(answer: Answered) -> bytes:
    if answer.message is None:
        raise ConfigError("there is no answer")
    return answer.message.encode()
