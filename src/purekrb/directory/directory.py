"""The public face of a directory: service principal names and service connection points."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from purekrb.channel.blocking import Channel
from purekrb.credentials.credential import Credential
from purekrb.credentials.files import FilePath
from purekrb.credentials.keytab import Keytab
from purekrb.directory import joining, managed_accounts, scps, service_accounts
from purekrb.directory import spns as account_spns
from purekrb.directory.account_state import give_aes, read_state
from purekrb.directory.account_status import AccountStatus, account_status
from purekrb.directory.accounts import Account, find_account, find_computer
from purekrb.directory.connect import DEFAULT_TIMEOUT, Options, Sessions, connect
from purekrb.directory.embedded import EmbeddedSession
from purekrb.directory.endpoints import (
    Endpoint,
    Parse,
    connect_to_first,
    endpoints,
    resolve_srv,
)
from purekrb.directory.install import InstalledService, install, uninstall
from purekrb.directory.ldap import ANY_OBJECT, INVALID_PARAMETER, LdapSession
from purekrb.directory.managed_accounts import ManagedKeytab, managed_keytab
from purekrb.directory.patterns import CONTROL_CHARACTERS
from purekrb.directory.rotation import KEEP, RotatedKeys, rotate
from purekrb.directory.scp import ServiceConnectionPoint
from purekrb.directory.service_accounts import ServiceAccount
from purekrb.directory.service_checks import Checks, warnings_of
from purekrb.directory.sids import MAX_AGE, SidNames, find_sid
from purekrb.directory.spns import SpnOperation
from purekrb.directory.state import ServiceState
from purekrb.directory.transaction import transaction
from purekrb.directory.verify import VerifiedService, verify
from purekrb.dn import escape_rdn_value
from purekrb.errors import DirectoryError
from purekrb.gss.initiator import Initiator
from purekrb.io.dial import OpenConnection
from purekrb.kdc.client import DEFAULT_TIMEOUT as KDC_TIMEOUT
from purekrb.kdc.client import Target
from purekrb.kdc.locate import Locator
from purekrb.krb5conf.config import Config
from purekrb.log import Log
from purekrb.sid import Sid

__all__ = ["Directory", "EmbeddedDirectory"]

_log = Log("purekrb.directory")
_Self = TypeVar("_Self", bound="Directory")


class Directory:
    """A directory: `with Directory.embedded() as directory: ...`. Safe to use from several threads.

    An account is named by its DN, its SID, its sAMAccountName (`WEB$`, `alice`), its sAMAccountName
    with the domain (`EXAMPLE\\alice`), or its user principal name (`alice@example.test`).

    Every method raises DirectoryError, whose `code` is the Windows error number of the failure, and
    SpnError for a malformed service principal name. With a real directory they also raise
    TransportError for a broken connection, and other KerberosErrors for answers that are not
    genuine.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._names = SidNames()

    @property
    def _session(self) -> LdapSession:
        return self._sessions.writer

    @property
    def _forest(self) -> LdapSession:
        """The session that knows the names of the forest: a global catalog, if there is one."""
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
        open_connection: OpenConnection | None = None,
    ) -> Directory:
        """Return the directory at `url`, mutually authenticated and sealed.

        `url` is ldap://host or ldaps://host (TLS), with an optional :port. If it is None, a domain
        controller of `domain` is looked up (by default, the domain of the credential's realm),
        first in `site` if that is given. Pass its SPN as `target` if the URL's host is not the DNS
        name of the domain controller. The SASL `mechanism` is "GSSAPI" or "GSS-SPNEGO".

        Without TLS, messages are encrypted if `sealed` is true, and only signed otherwise. With
        `start_tls` or ldaps://, TLS protects the connection, and channel bindings tie the context
        to it. The certificate must be issued by a CA in `ca_file` (by default, one that the system
        trusts) for the host of `target` or of the URL. `tls_context` replaces these checks with its
        own. A `tls_context` that does not check the certificate and its name is refused unless
        `allow_unverified_tls` is set: anyone on the path can then read and change everything.

        `timeout` is in seconds. It applies to opening a connection, and to the answer to each
        request. `open_connection` opens the connections to directories and KDCs; it is that of
        `purekrb.KdcClient`. Raises DirectoryError for a malformed URL, PolicyError if the connection cannot be
        protected as asked, TransportError if no server answers, and the errors of
        KdcClient.get_ticket.
        """
        options = Options(
            mechanism,
            sealed,
            start_tls,
            ca_file,
            tls_context,
            site,
            timeout,
            allow_unverified_tls,
            open_connection,
        )
        return Directory(connect(url, credential, config, target, domain, options, locator))

    @staticmethod
    def embedded(domain: str = "example.test") -> EmbeddedDirectory:
        """Return a new directory of `domain` in this process; see EmbeddedDirectory."""
        return EmbeddedDirectory(domain)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections. Whatever was written stays in the directory."""
        self._sessions.close()

    def _domain_and_forest(self) -> list[LdapSession]:
        """Return the sessions with the domain and with the forest; one, if they are the same."""
        return list({id(session): session for session in (self._session, self._forest)}.values())

    def find_sid(self, name: str) -> Sid:
        r"""Return the SID of the account or group `name`, named as an account is.

        `BUILTIN\Administrators` and the like come from a table. Raises AccountNotFoundError.
        """
        return find_sid(self._session, name)

    def resolve(self, sids: Iterable[Sid | str], *, max_age: float = MAX_AGE) -> dict[Sid, str]:
        r"""Return the names of `sids`, as in `EXAMPLE\Web Admins`, without those that have none.

        `sids` are Sids or their texts, such as `identity.sids`, at most 10,000. Names of well-known
        SIDs come from a table, in English. Others are looked up in the domain, then in the forest's
        global catalog, in few requests. SIDs of other forests, of deleted accounts and of local
        groups of a machine have no name here. Names are remembered; an older one than `max_age`
        (seconds) is looked up again. Names are for people: grant rights to SIDs. Raises DecodeError
        for text that is not a SID.
        """
        return self._names.resolve(sids, self._domain_and_forest, max_age)

    # Service principal names ----------------------------------------------------------------------

    def find_account(self, account: str) -> Account:
        """Return the account `account` with its service principal names, like `setspn -L`."""
        return find_account(self._session, account)

    def write_account_spn(
        self,
        operation: SpnOperation | int,
        account: str,
        spns: Sequence[str],
        *,
        fix: bool = False,
    ) -> None:
        """Change the service principal names of `account` in one step, like DsWriteAccountSpn.

        ADD ignores names that the account has already, and DELETE ignores names that it lacks.
        REPLACE sets exactly `spns`; an empty sequence clears all names. Case is ignored. Added
        names must be unique in the forest. This is looked up first, so that the error can name the
        other owner; the directory refuses names that another account gets in the meantime. If tickets
        for the account may be of RC4, the log warns; with `fix`, AES is set first in its
        msDS-SupportedEncryptionTypes.

        Raises SpnNotUniqueError, AccountNotFoundError or InsufficientRightsError;
        SpnValidatedWriteDeniedError for names that an account may not give itself; SpnError for a
        malformed name; and DirectoryError with code 1 for an unknown operation, or with code 87 for
        an empty account or if there is nothing to add or delete.
        """
        with transaction() as undo:
            if fix:
                owner = find_account(self._session, account)
                mended = give_aes(self._session, read_state(self._session, owner), undo)
                for warning in warnings_of([mended] if mended else []):
                    _log.warning("%s", warning)
            account_spns.write(self._session, self._forest, operation, account, spns)

    def change_account_spns(
        self, account: str, *, delete: Sequence[str] = (), add: Sequence[str] = ()
    ) -> None:
        """Delete and add service principal names of `account` in one step, as for a renamed host.

        Either everything is done or nothing. Otherwise like `write_account_spn` with DELETE and
        ADD.
        """
        account_spns.change(self._session, self._forest, account, delete=delete, add=add)

    def server_register_spn(
        self, operation: SpnOperation | int, service_class: str, account: str = ""
    ) -> list[str]:
        """Write `class/host` for this machine's DNS and NetBIOS name, like DsServerRegisterSpn.

        Returns these names. They are written to `account`; by default, to the bound account. Raises
        the errors of `write_account_spn`.
        """
        return account_spns.server_register(
            self._session, self._forest, operation, service_class, account
        )

    def find_spn(self, spn: str) -> list[Account]:
        """Return the accounts that have `spn`, ordered by DN.

        If there is more than one, the KDC issues no ticket for `spn`. The whole forest is searched
        if it has a global catalog. Case is ignored, and wildcards have no meaning.
        """
        return account_spns.find(self._forest, spn)

    def query_spns(self, pattern: str) -> list[Account]:
        """Return accounts with a name like `pattern` ("*" matches anything), like `setspn -Q`."""
        return account_spns.query(self._forest, pattern)

    def duplicate_spns(self) -> dict[str, list[Account]]:
        """Return names that more than one account has, with these accounts, like `setspn -X`."""
        return account_spns.duplicates(self._forest)

    def reset_host_spns(self, host: str) -> list[str]:
        """Give the computer `host` its names of class HOST again, like `setspn -R`.

        `host` is a DNS name or sAMAccountName. Returns `HOST/` with the DNS name and with the
        NetBIOS name. Other names of the computer stay as they are.
        """
        return account_spns.reset_host(self._session, self._forest, host)

    # Service connection points --------------------------------------------------------------------

    def publish_scp(
        self, scp: ServiceConnectionPoint, *, host: str = "", parent: str = "", account: str = ""
    ) -> ServiceConnectionPoint:
        """Create `scp` below the computer object of `host`; return it with its DN and objectGUID.

        `host` is a DNS name or a computer's sAMAccountName; by default, the SCP's DNS name.
        `parent` is the DN of another place: an organizational unit, or a container below CN=System,
        which is created if it is missing. `account` is the account that the service runs under; by
        default, the computer. It gets the right to update host and bindings. If there already is an
        SCP with this name for the same product (class and GUID keywords), it is brought up to date
        instead. If anything fails, the directory is left as it was. Raises DirectoryError, also for
        a place that is not meant for SCPs.
        """
        with transaction() as undo:
            published, _ = scps.publish(self._session, scp, undo, host=host, parent=parent)
            if account or not parent:
                name = account or find_computer(self._session, host or scp.dns_name).dn
                scps.allow_updates(
                    self._session, published.dn, find_account(self._session, name).sid, undo
                )
            return published

    def find_scps(
        self, keywords: Sequence[str] = (), *, service_class: str = ""
    ) -> list[ServiceConnectionPoint]:
        """Return the service connection points that have all `keywords`, ordered by DN.

        With `service_class`, only those of this class. Case is ignored. The domain and the forest's
        Configuration partition are searched. If there is a global catalog, it tells which other
        domains have matching SCPs, and these are read there. SCPs of other products are returned as
        they are, with "" or () for what they lack; `find_endpoints` and `ServiceConnectionPoint.spn`
        refuse what clients cannot use. An SCP that cannot be read (not UTF-8, two values in place
        of one) is left out and logged; if all are such, DirectoryError is raised.
        """
        return scps.find(
            self._session,
            self._forest,
            keywords,
            self._sessions.domain_of,
            service_class=service_class,
        )

    def update_scp(self, scp: ServiceConnectionPoint) -> tuple[str, ...]:
        """Bring the directory's copy of `scp` up to date and return the LDAP names that changed.

        `scp` comes from `publish_scp` or `find_scps`, changed with `dataclasses.replace`. It is
        found by its objectGUID. If nothing differs, nothing is written, so a service may call this
        at each start.
        """
        return scps.update(self._session, scp)

    def remove_scp(self, scp: ServiceConnectionPoint) -> None:
        """Delete `scp`, as returned by `publish_scp` or `find_scps`. It may be gone already."""
        scps.remove(self._session, scp.object_guid, scp.dn)

    def find_endpoints(
        self,
        keywords: Sequence[str],
        *,
        service_class: str = "",
        policy: str = "first",
        host: str = "",
        parse: Parse | None = None,
    ) -> Iterator[Endpoint]:
        """Yield the endpoints of the service with all `keywords`, in the order to try them.

        `policy` is "first" (ordered by DN) or "random", to spread clients over the instances.
        `host` selects the instances on one host. If an SCP names SRV records, they are looked up in
        the DNS. Its answers are not signed, but the SPN is made from what the directory says: at
        worst, the service cannot prove its identity. `service_class` selects SCPs of one class.

        Where a product has bindings of its own format, or another type of serviceDNSName, pass
        `parse`: it gets the ServiceConnectionPoint and returns (host, port) pairs. It may raise
        ValueError or a KerberosError for an SCP that it cannot read, which is then skipped. Raises
        DirectoryError if no endpoint is usable.
        """
        found = self.find_scps(keywords, service_class=service_class)
        return endpoints(found, resolve_srv, policy=policy, host=host, parse=parse)

    def reach_service(
        self,
        keywords: Sequence[str],
        credential: Credential,
        config: Config | None = None,
        *,
        service_class: str = "",
        policy: str = "first",
        host: str = "",
        parse: Parse | None = None,
        address: tuple[str, int] | None = None,
        mechanism: str = "kerberos",
        timeout: float = 10.0,
        open_connection: OpenConnection | None = None,
    ) -> Channel[Initiator]:
        """Find the service with all `keywords` and return a mutually authenticated channel to it.

        The endpoints (`find_endpoints`) are tried in turn. If one does not answer, or if the KDC
        knows none of its names, the next one follows. If one answers and fails to prove its
        identity, the search ends: it may be an impostor. `address` replaces the address in the SCP;
        the name to ask the KDC for stays the same. `mechanism`, `timeout` (seconds, for each
        attempt) and `open_connection` are those of `purekrb.connect`. Raises DirectoryError if there
        is no endpoint, and the errors of `purekrb.connect`.
        """
        found = self.find_endpoints(
            keywords, service_class=service_class, policy=policy, host=host, parse=parse
        )
        return connect_to_first(
            found,
            credential,
            config,
            address=address,
            mechanism=mechanism,
            timeout=timeout,
            open_connection=open_connection,
        )

    # Managed accounts ----------------------------------------------------------------------------

    def managed_keytab(self, account: str, *, etypes: Sequence[int] = (18, 17)) -> ManagedKeytab:
        """Return the keys of a group managed service account (gMSA), current and previous.

        The result is a Keytab for acceptors and credentials. It asks the directory again, in the
        thread that uses it, when the interval that the directory named is over; keep this Directory
        open. The entries have the account's name and each of its SPNs. The "$" at the end of
        `account` may be left out. Raises PolicyError for a connection that is not encrypted,
        InsufficientRightsError if the bound account may not read the password, and
        AccountNotFoundError for an account that is not a gMSA.
        """
        return managed_keytab(lambda: self._session, account, etypes=etypes)

    def create_managed_account(
        self,
        name: str,
        *,
        dns_host_name: str = "",
        spns: Sequence[str] = (),
        permitted: Sequence[str] = (),
        interval: int = 30,
    ) -> Account:
        """Create the group managed service account `name`, and return it.

        It is enabled, and has AES. `dns_host_name` is by default `name` in the domain. `permitted`
        are the accounts and groups that may read its password: the computers where the service
        runs. The password changes every `interval` days. The domain needs a root key of its key
        distribution service (`samba-tool domain kds root-key create`, Add-KdsRootKey).
        """
        with transaction() as undo:
            return managed_accounts.create(
                self._session,
                name,
                undo,
                dns_host_name=dns_host_name,
                spns=spns,
                permitted=permitted,
                interval=interval,
            )

    def permit_managed_account(self, account: str, permitted: Sequence[str]) -> None:
        """Let the accounts and groups in `permitted` read the password of a gMSA, beside others."""
        managed_accounts.permit(self._session, account, permitted)

    # Services -------------------------------------------------------------------------------------

    def install_service(
        self,
        scp: ServiceConnectionPoint,
        state_file: FilePath,
        *,
        account: str = "",
        host: str = "",
        parent: str = "",
        hosts: Sequence[str] = (),
        fix: bool = False,
        keytab: Keytab | None = None,
        ask_kdc: bool = True,
        kdc_timeout: float = KDC_TIMEOUT,
    ) -> InstalledService:
        r"""Publish `scp`, register its SPNs on `account`, write the state file; return them.

        `account` (by default, the computer) gets the right to update the SCP. `host` and `parent`
        are those of `publish_scp`. SPNs are registered for the SCP's DNS name, or for `hosts` if
        the service runs on several; each with the SCP's DN and with its objectGUID. If `state_file`
        describes an earlier installation, that is brought up to date: its SCP wherever it is now,
        and its SPNs, even on another account or under another DN. A local account (`.\name`) gets
        no SPN, since no KDC knows it; a warning is logged. If anything fails, the directory and the
        state file are left as they were.

        With `fix`, AES is set in msDS-SupportedEncryptionTypes of the account if it has none; without
        the right to do so, a finding says who grants it. Then the checks of `verify_service` are
        made, with `keytab`, `ask_kdc` and `kdc_timeout`; their `findings` are returned, and those that
        are not "ok" are logged.

        Raises DirectoryError, the errors of `write_account_spn`, and CredentialError if the state
        file cannot be written.
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
            fix=fix,
            checks=self._checks(keytab, ask_kdc, kdc_timeout),
        )

    def uninstall_service(self, state_file: FilePath) -> None:
        """Delete the SPNs, the SCP, the state file and the emptied containers of a service.

        Any of them may be gone already. If anything fails, the directory and the state file are
        left as they were.
        """
        uninstall(self._session, self._forest, state_file)

    def update_service(
        self,
        state: ServiceState | FilePath,
        *,
        bindings: Sequence[str] | None = None,
        host: str | None = None,
    ) -> tuple[str, ...]:
        """Write the current bindings and host of an installed service to its SCP.

        `state` is the state file or its content. A value of None stays as it is. Returns the LDAP
        names that changed; if none did, nothing is written. Raises InsufficientRightsError if the
        bound account may not do this.
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
        self,
        state: ServiceState | FilePath,
        *,
        account: str = "",
        keytab: Keytab | None = None,
        ask_kdc: bool = True,
        kdc_timeout: float = KDC_TIMEOUT,
    ) -> VerifiedService:
        """Check that an installed service may start; return its SCP and its account.

        Call it at each start. `state` is the state file or its content, `account` the name of the
        account that the service runs under, and `keytab` its keys. Raises RegistrationError, whose
        `reason` tells what is wrong. Nothing is repaired: only an administrator may do that.

        What keeps clients out, or soon will, is in the `findings` that are returned, each with its
        remedy; those that are not "ok" are in `warnings`, and in the log. They are about the account,
        and about what clients get: a new ticket of each SPN is asked for, as the directory's
        credential, and opened with `keytab`. This takes at most `kdc_timeout` seconds. If no KDC
        answers, the finding is "skipped", and versions and encryption types are compared alone. With
        `ask_kdc=False`, no KDC is asked.
        """
        checks = self._checks(keytab, ask_kdc, kdc_timeout)
        return verify(self._session, self._forest, _loaded(state), account=account, checks=checks)

    def _checks(self, keytab: Keytab | None, ask_kdc: bool, timeout: float) -> Checks:
        return Checks(keytab, self._sessions.tickets if ask_kdc else None, timeout)

    # Accounts of services -------------------------------------------------------------------------

    def create_service_account(
        self,
        name: str,
        *,
        spns: Sequence[str] = (),
        keytab: FilePath,
        parent: str = "",
        owner: str = "",
    ) -> ServiceAccount:
        """Create the account `name` of a service, with a random password, and its keytab.

        `name` is the sAMAccountName, of at most 20 characters. The account gets `spns`, AES keys,
        and a password that does not expire and that nobody sees: only its keys are kept. It is
        created in CN=Users, or below the DN `parent`. The keytab has the account's name and each of
        the `spns`; it is made with mode 0600 if it does not exist, and then belongs to the local
        user `owner`, if that is given. Keys of other accounts in it stay.

        If anything fails, the directory and the keytab are left as they were. If an earlier attempt
        was killed, the next one completes it. Raises DirectoryError (code 1316 if there is such an
        account already, code 87 for a name that is none), SpnNotUniqueError, SpnError,
        InsufficientRightsError, which says who has to grant what, PolicyError if the connection is
        not encrypted, and CredentialError if the keytab cannot be written.
        """
        return service_accounts.create(
            self._session,
            self._forest,
            self._sessions.kdc(),
            name,
            keytab,
            spns=spns,
            parent=parent,
            owner=owner,
        )

    def join_computer(
        self,
        name: str = "",
        *,
        keytab: FilePath | None = None,
        dns_name: str = "",
        spns: Sequence[str] = (),
        parent: str = "",
        owner: str = "",
        reuse: bool = False,
    ) -> ServiceAccount:
        """Join a computer to the domain: its account, its names, and its keytab.

        `name` is that of the computer, of at most 15 characters, by default the first part of this
        host's name; `dns_name` is by default this host's, or `name` in the domain. The account gets
        the names that Windows gives it (HOST and RestrictedKrbHost, with both), and `spns`. The
        other arguments are those of `create_service_account`; `keytab` is by default that of this
        machine: see `Keytab.load`.

        An account that was prepared for this computer, and has not been used, gets a new password.
        For that, this directory is bound as somebody who may reset it, or as the computer itself
        with the one-time password of the prepared account. An account that is in use is refused
        (DirectoryError, code 1316) without `reuse`, which takes it from the computer that has it.
        If anything fails, everything is undone; if an earlier attempt was killed, the next one
        completes it. Raises the errors of `create_service_account` and `rotate_keys`.
        """
        return joining.join(
            self._session,
            self._forest,
            self._sessions.kdc(),
            self._sessions.credential,
            name,
            keytab,
            dns_name=dns_name,
            spns=spns,
            parent=parent,
            owner=owner,
            reuse=reuse,
        )

    def rotate_keys(
        self, account: str, keytab: FilePath | None = None, *, keep: float = KEEP
    ) -> RotatedKeys:
        """Give `account` a new random password and its keys, without an interruption of the service.

        First the keytab gets the new keys beside the old ones, then the directory gets the
        password; then a log-in tells the salt and the kvno of the keys, and the keytab is corrected
        by them. So the service can accept at any time, even if this is killed; the next call
        completes it. A replaced key is kept for `keep` seconds, at least as long as a ticket for it
        may be valid, and dropped by the next call after that.

        If this directory is bound as `account` itself, it changes its own password: with the key of
        its credential (or, if that has tickets only, of the keytab) by RFC 3244, or with its old
        password by LDAP. Otherwise the password is reset, which needs a right. Raises
        CredentialError if another rotation works on this keytab, or if it cannot be written;
        InsufficientRightsError, which says who has to grant what; PasswordPolicyError or
        DirectoryError if the domain's rules refuse the change, and OutcomeUnknownError or
        TransportError if the domain controller goes away. If the change was refused, the keytab is
        as before; if its outcome is unknown, the keytab has both keys.
        """
        return rotate(
            self._session,
            self._sessions.kdc(),
            self._sessions.credential,
            account,
            keytab,
            keep=keep,
        )

    def account_status(
        self,
        account: str,
        *,
        keytab: Keytab | FilePath | None = None,
        ask_kdc: bool = True,
        kdc_timeout: float = KDC_TIMEOUT,
    ) -> AccountStatus:
        """Return the state of `account`: its flags, its key, its times, and what is wrong.

        With `keytab`, its keys are compared with what the KDC really issues: a ticket for each SPN
        is asked for, and opened. Without `ask_kdc`, only the directory is asked. `kdc_timeout` is in
        seconds, for all questions to KDCs. Nothing is changed.
        """
        if keytab is not None and not isinstance(keytab, Keytab):
            keytab = Keytab.load(keytab)
        return account_status(self._session, account, self._checks(keytab, ask_kdc, kdc_timeout))

    def disable_account(self, account: str) -> Account:
        """Disable `account`: it cannot log in, and gets no new tickets. Return it.

        An account that is disabled stays so. Raises InsufficientRightsError, which says who has to
        grant what.
        """
        return service_accounts.disable(self._session, account)

    def delete_account(self, account: str, *, keytab: FilePath | None = None) -> Account:
        """Delete `account`, and remove its keys from `keytab`, if that is given. Return it.

        A keytab that has no other keys is removed. Raises InsufficientRightsError, which says who
        has to grant what, and DirectoryError if there are objects below the account, such as SCPs.
        """
        return service_accounts.delete(self._session, account, keytab)


def _loaded(state: ServiceState | FilePath) -> ServiceState:
    return state if isinstance(state, ServiceState) else ServiceState.load(state)


class EmbeddedDirectory(Directory):
    """A directory in this process, for demonstrations and tests. It needs no network or file.

    The store is ldap3's mock strategy with the schema of Active Directory 2012 R2. The session adds
    some features of a domain controller that the store lacks: the objectGUID, objectSid and
    security descriptor of a new object, permissive modify, and the refusal of an SPN that another
    account has.

    The limits:

    - There is no authentication and no access control. Everybody may write everything, whatever the
      security descriptors say, and there is no bound account.
    - An SPN is refused if another account has the same one, but not if another account has one that
      stands for it (sPNMappings).
    - Searches do not support `objectCategory`, matching rules, `<GUID=...>` as a DN, or patterns
    with
      parentheses.
    - An object can be deleted while there are objects below it.
    - Mandatory attributes are not enforced.
    """

    def __init__(self, domain: str) -> None:
        super().__init__(Sessions(EmbeddedSession(domain)))
        self._domain = domain

    def add_computer(self, dns_name: str) -> Account:
        """Create the account of the computer `dns_name` in CN=Computers and return it.

        The account of web.example.test is `WEB$`.
        """
        name = dns_name.partition(".")[0].upper()[:15]
        return self._add_account(
            "computer",
            "Computers",
            name,
            {
                "sAMAccountName": f"{name}$",
                "dNSHostName": dns_name,
                "userAccountControl": "4096",
            },
        )

    def add_user(self, name: str) -> Account:
        """Create the account of the user `name` in CN=Users and return it."""
        names = {
            "sAMAccountName": name,
            "userPrincipalName": f"{name}@{self._domain}",
            "userAccountControl": "512",
        }
        return self._add_account("user", "Users", name, names)

    def add_group(self, name: str) -> Account:
        """Create the group `name` in CN=Users and return it."""
        return self._add_account("group", "Users", name, {"sAMAccountName": name})

    def _add_account(
        self, object_class: str, container: str, name: str, attributes: Mapping[str, str]
    ) -> Account:
        values = attributes.values()
        if not name.strip() or any(CONTROL_CHARACTERS.search(value) for value in values):
            raise DirectoryError(
                f"account name {name!r} is empty or has control characters", code=INVALID_PARAMETER
            )
        dn = f"CN={escape_rdn_value(name)},CN={container},{self._session.base_dn}"
        named = {"cn": name, **attributes}
        self._session.add(dn, object_class, {key: [value] for key, value in named.items()})
        return find_account(self._session, dn, classes=ANY_OBJECT)
