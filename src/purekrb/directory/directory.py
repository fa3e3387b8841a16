"""The directory of a domain as its users see it: service principal names, service connection points."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from purekrb.channel.blocking import Channel
from purekrb.credentials.credential import Credential
from purekrb.credentials.files import FilePath
from purekrb.credentials.keytab import Keytab
from purekrb.directory import scps
from purekrb.directory import spns as account_spns
from purekrb.directory.accounts import Account, find_account, find_computer
from purekrb.directory.connect import DEFAULT_TIMEOUT, Options, Sessions, connect
from purekrb.directory.embedded import EmbeddedSession
from purekrb.directory.endpoints import Endpoint, endpoints, reach, resolve_srv
from purekrb.directory.install import InstalledService, install, uninstall
from purekrb.directory.ldap import CONTROL_CHARACTERS, INVALID_PARAMETER, LdapSession
from purekrb.directory.scp import ServiceConnectionPoint
from purekrb.directory.spns import SpnOperation
from purekrb.directory.state import ServiceState
from purekrb.directory.transaction import transaction
from purekrb.directory.verify import VerifiedService, verify
from purekrb.dn import escape_rdn_value
from purekrb.errors import DirectoryError
from purekrb.gss.initiator import Initiator
from purekrb.kdc.client import Target
from purekrb.kdc.config import Config
from purekrb.kdc.locate import Locator

__all__ = ["Directory", "EmbeddedDirectory"]

_Self = TypeVar("_Self", bound="Directory")


class Directory:
    """A directory: `with Directory.embedded() as directory: ...`. Safe to use from several threads.

    An account is named by its DN, its SID, its sAMAccountName (`WEB$`, `alice`), that with its domain
    (`EXAMPLE\\alice`), or its user principal name (`alice@example.test`). Everything raises DirectoryError, whose
    `code` is the Windows error number of the failure, and SpnError for a service principal name that is none; a real
    directory also TransportError where a connection breaks, and what else KerberosError knows of peers that lie.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @property
    def _session(self) -> LdapSession:
        return self._sessions.writer

    @property
    def _forest(self) -> LdapSession:
        """Where names are looked for that must be unique in the forest: a global catalog, if there is one."""
        return self._sessions.forest

    @staticmethod
    def connect(
        url: str | None,
        credential: Credential,
        config: Config | None = None,
        target: Target | None = None,
        *,
        domain: str = "",
        site: str = "",
        mechanism: str = "GSSAPI",
        sealed: bool = True,
        start_tls: bool = False,
        ca_file: FilePath | None = None,
        tls_context: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        locator: Locator | None = None,
        allow_unverified_tls: bool = False,
    ) -> Directory:
        """Return the directory of the domain controller at `url`, authenticated mutually and sealed.

        `url` is ldap://host, ldaps://host (TLS), each with :port; None finds a domain controller of `domain` (by
        default that of the credential's realm), in `site` first where it is given. `target` is the SPN where the URL's
        host is not the domain controller's DNS name. Without TLS the connection is `sealed`, or else signed; the SASL
        `mechanism` is "GSSAPI" or "GSS-SPNEGO". With `start_tls` or ldaps:// TLS protects it, and channel bindings tie
        the context to it; a CA of `ca_file` (by default the system's) must have issued the certificate for the host of
        `target` or of the URL. `tls_context` does that its own way; one that does not check the certificate, or not its
        name, is refused unless `allow_unverified_tls` is set: who stands between reads and changes everything then.
        `timeout` (seconds) is for opening a connection and for the answer to each request.
        Raises DirectoryError for a URL that is none, PolicyError where the protection asked for cannot be had,
        TransportError where nobody answers, and what KdcClient.get_ticket raises.
        """
        options = Options(
            mechanism, sealed, start_tls, ca_file, tls_context, site, timeout, allow_unverified_tls
        )
        return Directory(connect(url, credential, config, target, domain, options, locator))

    @staticmethod
    def embedded(domain: str = "example.test") -> EmbeddedDirectory:
        """Return a new directory of `domain` that lives in this process; see EmbeddedDirectory for its limits."""
        return EmbeddedDirectory(domain)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections. What was written stays where the directory is."""
        self._sessions.close()

    # Service principal names ------------------------------------------------------------------------------------

    def find_account(self, account: str) -> Account:
        """Return the account that `account` names, with its service principal names: `setspn -L`."""
        return find_account(self._session, account)

    def write_account_spn(
        self, operation: SpnOperation | int, account: str, spns: Sequence[str]
    ) -> None:
        """Change the service principal names of `account` in one step: DsWriteAccountSpn.

        ADD leaves names alone that are there already, DELETE ignores names that are not; REPLACE sets exactly `spns`,
        and with none clears them. Case does not count. What is added must be unique in the forest: that is looked up
        before, and named is who has it; the directory itself refuses it too, where it came in between.
        Raises SpnNotUniqueError; AccountNotFoundError; InsufficientRightsError, for names that an account may not
        give itself SpnValidatedWriteDeniedError; SpnError for a name that is none; and DirectoryError with code 1
        for an unknown operation, 87 for an empty account or nothing to add or delete.
        """
        account_spns.write(self._session, self._forest, operation, account, spns)

    def change_account_spns(
        self, account: str, *, delete: Sequence[str] = (), add: Sequence[str] = ()
    ) -> None:
        """Delete and add service principal names of `account` in one step, as for a host that gets another name.

        Either all of it is done or nothing. Otherwise as `write_account_spn` with DELETE and ADD.
        """
        account_spns.change(self._session, self._forest, account, delete=delete, add=add)

    def server_register_spn(
        self, operation: SpnOperation | int, service_class: str, account: str = ""
    ) -> list[str]:
        """Write and return `class/host` for the DNS name and the NetBIOS name of this machine: DsServerRegisterSpn.

        Without `account`, they are written to the account that is bound. Raises what `write_account_spn` raises.
        """
        return account_spns.server_register(
            self._session, self._forest, operation, service_class, account
        )

    def find_spn(self, spn: str) -> list[Account]:
        """Return the accounts that have `spn`, ordered by DN. More than one is a fault: the KDC then knows none.

        The whole forest is searched where there is a global catalog. Case does not count; wildcards have no meaning.
        """
        return account_spns.find(self._forest, spn)

    def query_spns(self, pattern: str) -> list[Account]:
        """Return the accounts that have a name like `pattern`, in which "*" stands for anything: `setspn -Q`."""
        return account_spns.query(self._forest, pattern)

    def duplicate_spns(self) -> dict[str, list[Account]]:
        """Return the names that more than one account has, and those accounts: `setspn -X`."""
        return account_spns.duplicates(self._forest)

    def reset_host_spns(self, host: str) -> list[str]:
        """Give the computer `host` (DNS name or sAMAccountName) its names of class HOST again: `setspn -R`.

        Returns them: `HOST/` and its DNS name and NetBIOS name. Names that it has are left alone.
        """
        return account_spns.reset_host(self._session, self._forest, host)

    # Service connection points ----------------------------------------------------------------------------------

    def publish_scp(
        self, scp: ServiceConnectionPoint, *, host: str = "", parent: str = "", account: str = ""
    ) -> ServiceConnectionPoint:
        """Create `scp` below the computer object of `host` and return it with its DN and objectGUID.

        `host` is a DNS name or a computer's sAMAccountName; by default the SCP's DNS name. `parent` is the DN of
        another place: an organizational unit, or a container below CN=System, which is made if it is missing.
        `account` is the one that the service runs under, by default the computer; it is given the right to update host
        and bindings. Where an SCP of this name and this product (class and GUID keywords) is there already, it is
        brought up to date instead. Where anything fails, the directory is as it was. Raises DirectoryError, also for a
        place where no SCP belongs.
        """
        with transaction() as undo:
            published, _ = scps.publish(self._session, scp, undo, host=host, parent=parent)
            if account or not parent:
                name = account or find_computer(self._session, host or scp.dns_name).dn
                scps.allow_updates(
                    self._session, published.dn, find_account(self._session, name).sid, undo
                )
            return published

    def find_scps(self, keywords: Sequence[str] = ()) -> list[ServiceConnectionPoint]:
        """Return the service connection points that have all `keywords`, ordered by DN; case does not count.

        The global catalog, where there is one, tells which domains have some; they are read there. An SCP whose values
        no client could use is left out, and logged; if only such are found, that is an error.
        """
        return scps.find(self._session, self._forest, keywords, self._sessions.domain_of)

    def update_scp(self, scp: ServiceConnectionPoint) -> tuple[str, ...]:
        """Bring the directory's copy of `scp` up to date and return the LDAP names of what had changed.

        `scp` comes from `publish_scp` or `find_scps`, changed by `dataclasses.replace`. It is found by its objectGUID.
        Nothing is written where nothing differs, so a service may call this at each start.
        """
        return scps.update(self._session, scp)

    def remove_scp(self, scp: ServiceConnectionPoint) -> None:
        """Delete `scp` (as returned by `publish_scp` or `find_scps`); it is no error if it is gone already."""
        scps.remove(self._session, scp.object_guid, scp.dn)

    def find_endpoints(
        self, keywords: Sequence[str], *, policy: str = "first", host: str = ""
    ) -> Iterator[Endpoint]:
        """Yield the places where the service with all `keywords` listens, in the order to try them.

        `policy` is "first" (ordered by DN) or "random", to spread clients over the instances; `host` asks for those on
        one host. The SRV records that an SCP may name are looked up in the DNS, whose answers nobody signs: the SPN
        holds what the directory says, so the worst that comes of them is that the service cannot prove itself.
        Raises DirectoryError where there is none that a client can use.
        """
        return endpoints(self.find_scps(keywords), resolve_srv, policy=policy, host=host)

    def reach_service(
        self,
        keywords: Sequence[str],
        credential: Credential,
        config: Config | None = None,
        *,
        policy: str = "first",
        host: str = "",
        address: tuple[str, int] | None = None,
        mechanism: str = "kerberos",
        timeout: float = 10.0,
    ) -> Channel[Initiator]:
        """Return a channel to the service with all `keywords`: found here, and authenticated mutually.

        The endpoints (`find_endpoints`) are tried in turn: the next one where nobody answers, or where the KDC knows
        none of the names. One that answers and does not prove itself ends the search: it may be an impostor. `address`
        is where to connect in place of what the SCP says; the name to ask the KDC for does not change. `mechanism` and
        `timeout` (seconds, for each attempt) are those of `purekrb.connect`. Raises DirectoryError where no endpoint is
        found, and what `purekrb.connect` raises.
        """
        found = self.find_endpoints(keywords, policy=policy, host=host)
        return reach(
            found, credential, config, address=address, mechanism=mechanism, timeout=timeout
        )

    # Services ---------------------------------------------------------------------------------------------------

    def install_service(
        self,
        scp: ServiceConnectionPoint,
        state_file: FilePath,
        *,
        account: str = "",
        host: str = "",
        parent: str = "",
        hosts: Sequence[str] = (),
    ) -> InstalledService:
        r"""Publish `scp`, register its SPNs on `account`, write the state file, and return what was made.

        `account`, by default the computer, may then update the SCP; `host` and `parent` are those of `publish_scp`.
        SPNs are registered for the SCP's DNS name, or for `hosts` where the service runs on several; each with the
        SCP's DN and with its objectGUID. An installation that `state_file` tells of is brought up to date: its SCP
        wherever it is now, its SPNs on another account or under another DN. For a local account (`.\name`) no SPN is
        registered, since no KDC knows it; the log warns. Where anything fails, directory and state file are as they
        were. Raises DirectoryError and what `write_account_spn` raises; CredentialError where the state file cannot be
        written.
        """
        return install(
            self._session,
            self._forest,
            scp,
            state_file,
            account=account,
            host=host,
            parent=parent,
            hosts=hosts,
        )

    def uninstall_service(self, state_file: FilePath) -> None:
        """Delete the SPNs, the SCP and the state file of an installed service, and containers that it leaves empty.

        What is gone already is no error. Where anything fails, directory and state file are as they were.
        """
        uninstall(self._session, self._forest, state_file)

    def update_service(
        self,
        state: ServiceState | FilePath,
        *,
        bindings: Sequence[str] | None = None,
        host: str | None = None,
    ) -> tuple[str, ...]:
        """Write bindings and host of an installed service, as it finds them when it starts, to its SCP.

        `state` is the state file, or what it holds; None leaves a value alone. Returns the LDAP names of what had
        changed. Where nothing had, nothing is written. Raises InsufficientRightsError where the bound account may not.
        """
        state = _loaded(state)
        scp = scps.read(self._session, state.object_guid, state.scp_dn)
        now = replace(
            scp,
            bindings=scp.bindings if bindings is None else tuple(bindings),
            dns_name=scp.dns_name if host is None else host,
        )
        return scps.update(self._session, now)

    def verify_service(
        self, state: ServiceState | FilePath, *, account: str = "", keytab: Keytab | None = None
    ) -> VerifiedService:
        """Return the SCP and the account of an installed service that may start; call it at each start.

        `state` is the state file, or what it holds; `account` the name that the service runs under, `keytab` its keys.
        Raises RegistrationError, whose `reason` tells what is wrong. Nothing is repaired: that is the administrator's
        right. Keys that may not open clients' tickets are named in `warnings`, and in the log.
        """
        return verify(self._session, self._forest, _loaded(state), account=account, keytab=keytab)


def _loaded(state: ServiceState | FilePath) -> ServiceState:
    return state if isinstance(state, ServiceState) else ServiceState.load(state)


class EmbeddedDirectory(Directory):
    """A directory in this process, for demonstrations and tests. It needs no network and keeps nothing.

    The store is ldap3's mock strategy with the schema of Active Directory 2012 R2. What that store lacks and a domain
    controller has, the session does itself: the objectGUID, objectSid and security descriptor of a new object, the
    idempotent writing of SPNs (permissive modify), the refusal of an SPN that another account has. What it does not do:
    there is no authentication and no access control, so everybody may write everything, whatever the security
    descriptors say, and nobody is "the account that is bound"; an SPN is refused where another account has the same,
    but not where it has one that stands for it (sPNMappings); objects cannot be searched by an `objectCategory`, a
    matching rule or a `<GUID=...>` DN, nor by a pattern with parentheses; an object can be deleted while others are
    below it; mandatory attributes are not enforced.
    """

    def __init__(self, domain: str) -> None:
        super().__init__(Sessions(EmbeddedSession(domain)))
        self._domain = domain

    def add_computer(self, dns_name: str) -> Account:
        """Create the account of the computer `dns_name` in CN=Computers and return it: web.example.test is `WEB$`."""
        name = dns_name.partition(".")[0].upper()[:15]
        return self._add_account(
            "computer", "Computers", name, {"sAMAccountName": f"{name}$", "dNSHostName": dns_name}
        )

    def add_user(self, name: str) -> Account:
        """Create the account of the user `name` in CN=Users and return it."""
        names = {"sAMAccountName": name, "userPrincipalName": f"{name}@{self._domain}"}
        return self._add_account("user", "Users", name, names)

    def _add_account(
        self, object_class: str, container: str, name: str, attributes: Mapping[str, str]
    ) -> Account:
        if not name.strip() or any(
            CONTROL_CHARACTERS.search(value) for value in attributes.values()
        ):
            raise DirectoryError(
                f"account name {name!r} is empty or has control characters", code=INVALID_PARAMETER
            )
        dn = f"CN={escape_rdn_value(name)},CN={container},{self._session.base_dn}"
        self._session.add(
            dn, object_class, {"cn": [name], **{key: [value] for key, value in attributes.items()}}
        )
        return find_account(self._session, attributes["sAMAccountName"])
