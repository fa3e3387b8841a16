"""Credential: a client, and how it proves its identity to the KDC."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, NoReturn, Protocol

from purekrb import crypto
from purekrb.constants import DEFAULT_ETYPES, EncryptionType, Requirement
from purekrb.credentials import files
from purekrb.credentials.ccache import CCache
from purekrb.credentials.choice import choose_ccache
from purekrb.credentials.defaults import ccache_name, client_keytab_name, exists
from purekrb.credentials.keytab import Keytab
from purekrb.credentials.lapsed import why_no_ticket
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CertificateError, CredentialError, DecodeError, KerberosError
from purekrb.keys import KEY_SIZES, EncryptionKey, etype_names
from purekrb.krb5conf.config import Config
from purekrb.log import Log
from purekrb.names import ANONYMOUS, Principal, as_written
from purekrb.records import replace
from purekrb.spn import ServicePrincipalName, target_principal
from purekrb.system import fork_safe, now
from purekrb.tracebacks import forget_frames

if TYPE_CHECKING:
    from purekrb.credentials.certificate import Ask, ClientCertificate, Password
    from purekrb.credentials.kdc_trust import KdcTrust
    from purekrb.credentials.x509 import Source, Sources
    from purekrb.kdc.client import KdcClient
    from purekrb.kdc.renewal import Renewal
    from purekrb.messages.otp import AskOtp

__all__ = ["Credential"]


class ManagedKeys(Protocol):
    """Whatever has the keys of managed accounts: a Directory."""

    def managed_keytab(self, account: str) -> Keytab: ...


log = Log("purekrb.credentials")

#: The ccache's configuration entry that names the service that acts for the client, as in MIT's.
PROXY_IMPERSONATOR = "proxy_impersonator"

#: Every encryption type that purekrb has, in order of preference.
_PREFERENCE = (*DEFAULT_ETYPES, *(etype for etype in EncryptionType if etype not in DEFAULT_ETYPES))
#: The most keys that are kept for one password. A KDC names one salt for each encryption type, and
#: seldom changes it.
_MAX_DERIVED = 16
#: The most versions of a keytab's keys that are tried on a KDC. Each wrong one counts against the
#: account.
_MAX_VERSIONS = 3


class Credential:
    """A client and its password, keys, certificate or tickets.

    Make one with `from_password`, `from_keytab`, `from_key`, `from_otp`, `from_certificate`,
    `from_pkcs12`, `from_pkcs11` or `from_ccache`. `principal` is the client as the caller named it. `certificate`
    is the client's, and `kdc_trust` says which KDCs it is for; None without one. `ccache` holds its
    tickets, in memory until saved. `require` may be set to "fast" or "strong": the least that its
    AS exchanges must have (`KdcClient.get_tgt`).
    Nothing here uses the network. Several threads may use it. It cannot be pickled or copied.
    """

    # Without a __dict__, no tool can print one.
    __slots__ = (
        "_came_from",
        "_client_keytab",
        "_derived",
        "_evidence",
        "_impersonator",
        "_keeps_in",
        "_keys",
        "_keytab",
        "_lock",
        "_password",
        "_versions",
        "_wiped",
        "ccache",
        "certificate",
        "freshness",
        "kdc_trust",
        "kvno",
        "otp",
        "principal",
        "require",
    )

    @forget_frames
    def __init__(
        self,
        principal: Principal | str,
        *,
        password: bytes | None = None,
        keys: Iterable[EncryptionKey] = (),
        ccache: CCache | None = None,
        certificate: ClientCertificate | None = None,
        kdc_trust: KdcTrust | None = None,
    ) -> None:
        self.principal = Principal.of(
            as_written(principal) if isinstance(principal, str) else principal
        )
        self.ccache = CCache(self.principal) if ccache is None else ccache
        self._password = None if password is None else bytearray(password)
        self._keys = {key.etype: key for key in keys}
        self._derived: dict[tuple[int, bytes, bytes | None], EncryptionKey] = {}
        self._lock = fork_safe(threading.Lock())
        self._wiped = False
        self.require: Requirement | None = None
        #: Gets a one-time password, if the KDC asks for one.
        self.otp: AskOtp | None = None
        self.certificate = certificate
        self.kdc_trust = kdc_trust
        #: Whether to ask the KDC for a freshness token (RFC 8070), which some require.
        self.freshness = True
        #: The version of the keys, if a keytab holds them.
        self.kvno: int | None = None
        #: The ccache that the tickets were read from, as the caller named it, its stamp then, and
        #: whether it may be another user's.
        self._came_from: tuple[str, object, bool] | None = None
        #: The ccache that new tickets are added to.
        self._keeps_in: str | None = None
        self._keytab: Keytab | None = None
        #: The versions of the keytab's keys, the newest first.
        self._versions: list[tuple[int, dict[int, EncryptionKey]]] = []
        #: For constrained delegation: the service that acts for the client, and its ticket of the
        #: client.
        self._impersonator: Credential | None = None
        self._evidence: ServiceTicket | None = None
        #: The client keytab that stands in once the ccache of `default` has no ticket.
        self._client_keytab: str | None = None

    @classmethod
    @forget_frames
    def from_password(
        cls, principal: Principal | str, password: str | bytes, *, enterprise: bool = False
    ) -> Credential:
        r"""Return the credential of a password; text is encoded as UTF-8.

        `principal` is a Principal, `user@REALM`, or `DOMAIN\user` as Windows writes it. With
        `enterprise`, it is a user principal name whose suffix is no realm (`john.doe@mail.example`);
        the KDC of the default realm knows whose it is (RFC 6806 5). For the last two, the
        configuration of the first client that uses the credential completes `principal`. Raises
        DecodeError for a bad principal.
        """
        if isinstance(principal, str):
            principal = as_written(principal, enterprise=enterprise)
        return cls(principal, password=password.encode() if isinstance(password, str) else password)

    @classmethod
    @forget_frames
    def from_keytab(
        cls, principal: Principal | str, keytab: Keytab | files.FilePath | None = None
    ) -> Credential:
        """Return the credential of a principal with its keys in `keytab`.

        `keytab` is a Keytab, a file, or None: see `Keytab.load`. The keys of the newest kvno are
        used. If the KDC refuses them, older ones are tried, three versions at most: while a key is
        rotated, the keytab has the new one before the KDC does. The first request to a KDC proves
        possession of a key before the KDC asks for it (docs/security.md). Raises CredentialError if
        the keytab has no key for exactly this principal, or none that purekrb can use.

        If the keytab comes from a file, and a new TGT is needed, the file is looked at again: the
        newest keys are used.
        """
        principal = Principal.of(principal)
        keytab = keytab if isinstance(keytab, Keytab) else Keytab.load(keytab)
        credential = cls(principal)
        credential._take_keys(keytab)
        return credential

    def _take_keys(self, keytab: Keytab) -> None:
        """Take the newest keys of the principal. Raises CredentialError."""
        principal = self.principal
        found = keytab.find(principal)
        groups = [
            list(_versions(kvno, [entry.key for entry in found if entry.kvno == kvno]))
            for kvno in dict.fromkeys(entry.kvno for entry in found)
        ]
        # Rotations that died may have left several keys of the newest kvno. If the last of them has
        # not reached the KDC, that of the kvno before is right: so these two come first.
        versions = [
            pair for pairs in zip_longest(*groups[:2]) for pair in pairs if pair is not None
        ]
        versions += [version for group in groups[2:] for version in group]
        if not versions or versions[0][0] != found[0].kvno:
            problem = "no usable key" if found else "no key"
            raise CredentialError(
                f"the keytab has {problem} for {principal}; it has {keytab.summary()}: "
                "name one of these principals, or export its keys again"
            )
        if log.on():
            log.debug(
                "keys of %s from the keytab: kvno %d, %s",
                principal,
                found[0].kvno,
                etype_names(versions[0][1]),
            )
        with self._lock:
            self._keytab, self._versions = keytab, versions
            self.kvno, self._keys = versions[0]

    def turn_to_other_keys(self, refused: list[int]) -> bool:
        """Use another version of the keytab's keys, since the KDC has refused this one.

        Returns whether there is one. `refused` is the caller's list of the versions that were
        tried, which this extends; it is empty at first. If there is no other one, the newest is
        used again.
        """
        with self._lock:
            kvnos = [keys for _, keys in self._versions]
            refused += [at for at, keys in enumerate(kvnos) if keys is self._keys]
            others = [at for at in range(len(kvnos)) if at not in refused]
            found = bool(others) and bool(refused) and len(refused) < _MAX_VERSIONS
            if self._versions:
                self.kvno, self._keys = self._versions[others[0] if found else 0]
        if found:
            log.debug("other keys of %s from the keytab: kvno %s", self.principal, self.kvno)
        return found

    @classmethod
    @forget_frames
    def from_gmsa(cls, directory: ManagedKeys, account: str) -> Credential:
        """Return the credential of a group managed service account, with keys from the directory.

        `directory` is a Directory (purekrb.directory), as whom the account's password may be read.
        If a new TGT is needed, and the interval that the directory named is over, it is asked
        again. Raises the errors of `Directory.managed_keytab`.
        """
        keytab = directory.managed_keytab(account)
        return cls.from_keytab(keytab.principals[0], keytab)

    @classmethod
    @forget_frames
    def from_key(cls, principal: Principal | str, key: EncryptionKey) -> Credential:
        """Return the credential of a principal with its long-term key.

        The first request to a KDC proves possession of the key before the KDC asks for it.
        """
        return cls(principal, keys=[key])

    @classmethod
    def from_otp(cls, principal: Principal | str, otp: AskOtp) -> Credential:
        """Return the credential of one-time passwords; `otp` gets one when the KDC asks.

        `otp` is a function of the KDC's `OtpChallenge`, or a coroutine function for asyncio, and
        returns the one-time password as text, or an `OtpAnswer`. The password goes in FAST alone,
        so each AS exchange needs an armor. Source: RFC 6560.
        """
        credential = cls(as_written(principal) if isinstance(principal, str) else principal)
        credential.otp = otp
        return credential

    @classmethod
    @forget_frames
    def from_certificate(
        cls,
        principal: Principal | str | None,
        certificate: Source,
        key: Source | None = None,
        *,
        password: Password | None = None,
        anchors: KdcTrust | Sources | None = None,
    ) -> Credential:
        """Return the credential of a certificate and its private key, in PEM or DER.

        `certificate` and `key` are paths, or the contents of files as bytes; without `key`, one
        file holds both. `password` is that of an encrypted key, or a function that gets
        it if there is a need; it is not kept. If `principal` is
        None, it is the one in the certificate; a user principal name (Active Directory) is looked
        up by the KDC of the default realm.

        `anchors` are the authorities whose certificates a KDC may have: files or their contents, or
        a `KdcTrust`, which can say more; None: those of krb5.conf. Nothing else proves that a KDC
        is genuine. Raises CertificateError, and DecodeError for a bad principal.
        """
        from purekrb.credentials.certificate import ClientCertificate

        found = ClientCertificate.from_files(certificate, key, password=password)
        return cls._of_certificate(principal, found, anchors)

    @classmethod
    @forget_frames
    def from_pkcs12(
        cls,
        path: Source,
        password: Password | None = None,
        *,
        principal: Principal | str | None = None,
        anchors: KdcTrust | Sources | None = None,
    ) -> Credential:
        """Return the credential of a certificate and its key in PKCS#12 (.p12, .pfx).

        `path` is a file, or its contents as bytes. For the rest, see `from_certificate`.
        """
        from purekrb.credentials.certificate import ClientCertificate

        return cls._of_certificate(
            principal, ClientCertificate.from_pkcs12(path, password), anchors
        )

    @classmethod
    @forget_frames
    def from_pkcs11(
        cls,
        principal: Principal | str | None,
        module: files.FilePath,
        token: str | None = None,
        label: str | None = None,
        id: bytes | None = None,  # noqa: A002 - PKCS #11's word
        *,
        pin: Ask | None = None,
        slot: int | None = None,
        anchors: KdcTrust | Sources | None = None,
    ) -> Credential:
        """Return the credential of a certificate on a smart card, which keeps its key.

        `module` is the PKCS#11 module, a shared library. `token` is the card's label, `label` and
        `id` (CKA_ID) are those of the certificate, `slot` the number of the slot; what is not given
        must be unique. `pin` is called once, with a text that says which card asks, and returns the
        PIN: it is tried once, and not kept. Needs the extra `smartcard`. For the rest, see
        `from_certificate`.
        """
        from purekrb.credentials.smartcard import from_token

        wanted = as_written(principal) if isinstance(principal, str) else principal
        certificate = from_token(
            files.text_of(module),
            token=token,
            slot=slot,
            label=label,
            certid=id,
            pin=pin,
            principal=wanted,
        )
        return cls._of_certificate(wanted, certificate, anchors)

    @classmethod
    def anonymous(cls, realm: str, *, anchors: KdcTrust | Sources | None = None) -> Credential:
        """Return the credential of nobody: the KDC of `realm` proves itself, and learns no name.

        Its tickets are those of WELLKNOWN/ANONYMOUS. They get services that let anybody in, or are
        the armor of FAST for a machine without a key of its own. For `anchors`, see
        `from_certificate`. Source: RFC 8062.
        """
        from purekrb.credentials.kdc_trust import KdcTrust

        return cls(ANONYMOUS.principal(realm), kdc_trust=KdcTrust.of(anchors))

    @classmethod
    @forget_frames
    def from_identity(
        cls,
        identity: str | Sequence[str],
        *,
        principal: Principal | str | None = None,
        ask: Ask | None = None,
        rules: Sequence[str] = (),
        anchors: KdcTrust | Sources | None = None,
    ) -> Credential:
        """Return the credential of a certificate that is named as in krb5.conf.

        `identity` is `FILE:certificate,key`, `DIR:directory`, `PKCS12:path`,
        `PKCS11:module:token=label`, or `ENV:variable`; of several, it is the first that can be
        opened. `ask` gets a PIN or a password, if there is a need. If there are several
        certificates, `rules` as in pkinit_cert_match choose, or the `principal`. For the rest, see
        `from_certificate`.
        """
        from purekrb.credentials.identities import first_identity

        wanted = as_written(principal) if isinstance(principal, str) else principal
        texts = [identity] if isinstance(identity, str) else identity
        certificate = first_identity(texts, ask=ask, principal=wanted, rules=rules)
        return cls._of_certificate(wanted, certificate, anchors)

    @classmethod
    def _of_certificate(
        cls,
        principal: Principal | str | None,
        certificate: ClientCertificate,
        anchors: KdcTrust | Sources | None,
    ) -> Credential:
        from purekrb.credentials.kdc_trust import KdcTrust

        if principal is None:
            principal = certificate.principal_name
        if principal is None:
            raise CertificateError(f"{certificate} names no principal: name the principal as well")
        return cls(principal, certificate=certificate, kdc_trust=KdcTrust.of(anchors))

    @classmethod
    @forget_frames
    def from_ccache(
        cls, ccache: CCache | files.FilePath | None = None, *, foreign: bool = False
    ) -> Credential:
        """Return the credential of the tickets in `ccache`.

        `ccache` is a CCache, a name, or None: see `CCache.load`, also for `foreign`. The
        credential works as long as its tickets last. If it has no ticket, or the ticket is about
        to end, a ccache that was named is read again, since another program may have renewed it.
        New tickets stay in memory until saved.
        """
        if isinstance(ccache, CCache):
            return cls(ccache.principal, ccache=ccache)
        chosen = ccache_name(ccache)
        name = chosen.name
        stamp = CCache.stamp(name)  # before the file is read, so that no change is missed
        try:
            found = CCache.load(name, foreign=foreign)
        except CredentialError as error:
            raise CredentialError(
                f"{error}{chosen.note}; for a keytab, there is from_keytab"
            ) from None
        credential = cls(found.principal, ccache=found)
        credential._came_from = name, stamp, foreign
        return credential

    @classmethod
    @forget_frames
    def on_behalf_of(cls, service: Credential, evidence: ServiceTicket) -> Credential:
        """Return a credential with which `service` acts for the client of `evidence`.

        `evidence` is the client's ticket for the service: that of an accepted context
        (`Acceptor.delegated_credential` is made of it), or one by `KdcClient.impersonate`. Each
        ticket is got by constrained delegation (S4U2Proxy) where the KDC permits it. The tickets
        stay apart from those of `service`. Source: MS-SFU 3.1.5.2.
        """
        if not isinstance(evidence, ServiceTicket):
            raise TypeError(f"the evidence must be a ServiceTicket, not {type(evidence).__name__}")
        ccache = CCache(evidence.client, [evidence])
        ccache.set_config(PROXY_IMPERSONATOR, str(service.ccache.principal).encode())
        credential = cls(evidence.client, ccache=ccache)
        credential._impersonator, credential._evidence = service, evidence
        return credential

    @property
    def impersonation(self) -> tuple[Credential, ServiceTicket] | None:
        """The service's credential that acts for this client, and its evidence; else None.

        A ccache may tell so, too: that of MIT's GSS-API and of `purekrb kvno` has the entry
        `proxy_impersonator`, and holds the service's tickets beside the evidence.
        """
        if self._impersonator is not None and self._evidence is not None:
            return self._impersonator, self._evidence
        named = self.ccache.get_config(PROXY_IMPERSONATOR)
        if named is None:
            return None
        service, tickets = Principal.parse(named.decode(errors="replace")), list(self.ccache)
        mine = [t for t in tickets if t.client == self.ccache.principal and not t.is_tgt]
        mine.sort(key=lambda ticket: ticket.service != service)  # the one for the service itself
        if not mine:
            return None
        own = CCache(service, [ticket for ticket in tickets if ticket.client == service])
        # Whether it came by S4U2Self is not known here: the KDC decides.
        return Credential.from_ccache(own), replace(mine[0], by_s4u2self=True)

    def with_impersonator(self) -> CCache:
        """Return the ccache for others; for constrained delegation, with the service's TGT in it."""
        if self._impersonator is None:
            return self.ccache
        whole = CCache(self.ccache.principal, [*self._impersonator.ccache, *self.ccache])
        for key, principal, value in self.ccache.config_entries():
            whole.set_config(key, value, Principal.parse(principal) if principal else None)
        return whole

    @classmethod
    @forget_frames
    def default(
        cls,
        config: Config | None = None,
        *,
        service: str | Principal | ServicePrincipalName | None = None,
        principal: Principal | str | None = None,
    ) -> Credential:
        """Return the credential that this machine has for the user.

        It is the ccache, if that has a valid TGT (or a valid ticket for `service`); otherwise a
        key in the client keytab; without one, a certificate of pkinit_identities that needs no PIN
        and no password. `defaults.ccache_name` and `client_keytab_name` say which those
        are. In a collection, the ccache is that of `principal`; without one, it is chosen for
        `service` by the file .k5identity, by the service's realm, or it is the primary. Without a
        `principal`, the keytab's is that of the ccache or, if the keytab does not have it, the
        first. New tickets are added to the ccache, as MIT does; if that fails, the log warns, and
        they stay in memory. Raises CredentialError if there is neither.
        """
        chosen = ccache_name(None, config)
        name = chosen.name
        wanted = None if principal is None else Principal.of(principal)
        target = None if service is None else _with_realm(target_principal(service), config)
        problem = None
        try:
            if wanted is not None:
                found: CCache | None = CCache.choose(wanted, name)
            else:
                found, wanted = choose_ccache(target, name)
                if found is None and wanted is None:
                    found = CCache.load(name)  # its error says why there is none
        except (CredentialError, DecodeError) as error:
            found, problem = None, type(error)(f"{error}{chosen.note}")
        if found is not None:
            credential = cls(found.principal, ccache=found)
            credential._came_from = found.name or name, None, False
            credential._keeps_in = found.name or name
            if credential.has_ticket(target):
                credential._client_keytab = client_keytab_name(None, config).name
                return credential
            problem = CredentialError(credential.why_no_ticket())
        elif problem is None:
            problem = CredentialError(
                f".k5identity names {wanted} for {target}, which has no credential cache in "
                f"{name}: get a ticket first (kinit {wanted})"
            )
        keytab = client_keytab_name(None, config)
        if not exists(keytab) and not keytab.named:
            credential = cls._configured(config, wanted, problem)
            credential._keeps_in = name
            return credential
        try:
            keys = Keytab.load(keytab.name)
            owner = wanted or (found.principal if found and keys.find(found.principal) else None)
            credential = cls.from_keytab(owner or _first_principal(keys), keys)
        except (CredentialError, DecodeError) as error:
            raise CredentialError(f"{problem}; and the client keytab {keytab}: {error}") from None
        credential._keeps_in = name
        log.debug("%s from the client keytab %s", credential.principal, keytab)
        return credential

    @classmethod
    def _configured(
        cls, config: Config | None, principal: Principal | None, problem: KerberosError
    ) -> Credential:
        """Return the credential of pkinit_identities, if no PIN and no password is needed.

        Raises `problem` if krb5.conf names none.
        """
        from purekrb.krb5conf.pkinit import pkinit_options

        config = Config.from_file() if config is None else config
        realm = principal.realm if principal else config.default_realm
        options = pkinit_options(config, realm or "")
        if not options.identities:
            raise problem
        try:
            credential = cls.from_identity(
                options.identities, principal=principal, rules=options.cert_match
            )
        except CertificateError as error:
            raise CredentialError(f"{problem}; and pkinit_identities: {error}") from None
        log.debug("%s from pkinit_identities: %s", credential.principal, credential.certificate)
        return credential

    # -- what other programs renew

    def has_ticket(self, service: Principal | None = None, *, margin: float = 60) -> bool:
        """Return whether there is a TGT, or a ticket for `service`, for `margin` more seconds.

        For constrained delegation, the TGT is that of the service that acts.

        A service without a realm is looked up in the client's.
        """
        realm = self.ccache.realm
        if service is not None and self.ccache.find(
            replace(service, realm=service.realm or realm), margin=margin
        ):
            return True
        if self.ccache.find(Principal(("krbtgt", realm), realm), margin=margin):
            return True
        acting = self.impersonation
        return acting is not None and (acting[0].can_get_tgt or acting[0].has_ticket(margin=margin))

    @forget_frames
    def refresh(self, service: Principal | None = None) -> None:
        """Read the ccache, or the keytab, again, if a ticket is missing and they have changed.

        It costs one stat if nothing has changed. A ccache that cannot be read is left alone. Raises
        CredentialError if the ccache now belongs to another principal, or if the keytab has no key
        of this one any more; and if there are tickets alone, and none is valid.
        """
        if (self._came_from is None and self._keytab is None) or self.has_ticket(service):
            return
        self.reload_keys()
        if self._came_from is not None:
            self._read_again(*self._came_from)
        if not self.can_get_tgt and not self.has_ticket(service):
            if self.has_ticket(service, margin=0):
                return
            raise CredentialError(self.why_no_ticket())

    def reload_keys(self) -> bool:
        """Take the newest keys, if they come from a file that has changed; return whether they differ.

        Raises CredentialError if there are none of this principal any more.
        """
        keytab = None if self._keytab is None else self._keytab.current()
        if keytab is None or keytab is self._keytab:
            return False
        before = self._versions
        self._take_keys(keytab)
        return self._versions != before

    # -- kept fresh

    def keep_fresh(
        self, config: Config | None = None, *, client: KdcClient | None = None
    ) -> Renewal:
        """Keep the TGT fresh from a thread, until `close()` of the result or the end of a `with` block.

        At half the TGT's life, or somewhat later, a password or key gets a new TGT like the one
        before (with none, at once); tickets without one are renewed. The result goes to the ccache as well
        that the tickets were read from, or that of `default`. That ccache, and a keytab, are read
        again when they have changed: another program may have renewed them. After a failure, the
        ticket stays, the log warns, and it is tried again; a key that the KDC has refused is not tried
        again before the keytab changes. The log tells when a ticket cannot be renewed any more;
        `ended` of the result says why nothing is left. `client` (default: one of `config`) asks the
        KDCs. For asyncio, there is `purekrb.aio.keep_fresh(credential)`.
        """
        from purekrb.kdc.renewal import keep_fresh  # the one import that points up

        return keep_fresh(self, config, client=client)

    @property
    def origin(self) -> str | None:
        """The name of the ccache that the tickets were read from, or that new ones go to."""
        return self._keeps_in or (self._came_from and self._came_from[0]) or None

    def tgt(self) -> ServiceTicket | None:
        """Return the valid TGT of the client's realm that lasts longest, or None."""
        realm = self.ccache.realm
        return self.ccache.find(Principal(("krbtgt", realm), realm))

    @forget_frames
    def look_again(self) -> bool:
        """Read the ccache and the keytab again, if they have changed; return whether the keys are new.

        The TGT stays that lasts longest. Raises the errors of `refresh`, but none for a missing
        ticket.
        """
        held = self.tgt()
        try:
            return self.reload_keys()
        finally:
            if self._came_from is not None:
                self._read_again(*self._came_from)
                found = self.tgt()
                if held is not None and (found is None or found.endtime < held.endtime):
                    self.ccache.store(held)

    @forget_frames
    def take_client_keytab(self) -> None:
        """Take the keys of the client keytab, if `default` chose a ccache over it, and it has some."""
        name, self._client_keytab = self._client_keytab, None
        if name is None:
            return
        try:
            keytab = Keytab.load(name)
            self._take_keys(keytab)
        except (CredentialError, DecodeError) as error:
            log.debug("the client keytab %s does not help: %s", name, error)

    def _read_again(self, name: str, before: object, foreign: bool) -> None:
        try:
            stamp = CCache.stamp(name)
            if stamp is not None and stamp == before:
                return
            newer = CCache.load(name, foreign=foreign)
        except (CredentialError, DecodeError) as error:
            log.debug("the tickets of %s stay as they are: %s", self.principal, error)
            return
        if newer.principal != self.ccache.principal:
            raise CredentialError(
                f"the credential cache {newer.name} now belongs to {newer.principal}, not to "
                f"{self.ccache.principal}: make a new Credential, or get a ticket of "
                f"{self.ccache.principal} (kinit)"
            )
        if newer is not self.ccache:
            self.ccache.take(newer)
        self._came_from = name, stamp, foreign

    def why_no_ticket(self) -> str:
        """Return why the tickets do not do: which one has ended, when, and what to do."""
        client = self.ccache.principal
        if self.impersonation is not None:
            return (
                f"{self.impersonation[0].principal} acts for {client} by constrained delegation, and "
                "so has no ticket-granting ticket of that client: ask for tickets of services"
            )
        return why_no_ticket(client, self.ccache, now(), self.ccache.name)

    def keep(self, name: files.FilePath | None = None) -> None:
        """Add new tickets to the ccache `name`; None: to that of `default`, or to none.

        If that fails, the log warns, and they stay in memory.
        """
        name = self._keeps_in if name is None else name
        if name is None:
            return
        try:
            self.ccache.merge_into(name)
        except KerberosError as error:
            log.warning("the new tickets of %s stay in memory: %s", self.principal, error)

    @property
    def can_get_tgt(self) -> bool:
        """Whether an AS exchange is possible: not with tickets alone."""
        return self.has_key or self.otp is not None or self.kdc_trust is not None

    @property
    def has_key(self) -> bool:
        """Whether there is a long-term key: a password, or keys."""
        return self._password is not None or bool(self._keys)

    @property
    def etypes(self) -> tuple[int, ...]:
        """The encryption types of the keys that `key_for` can return, in order of preference.

        A password has all types, and so has who needs no key. RC4 is included if there is such a
        key: the exchange decides whether it is permitted.
        """
        if not self._keys:
            return _PREFERENCE if self.can_get_tgt else ()
        return tuple(
            etype for etype in _PREFERENCE if self._password is not None or etype in self._keys
        )

    @property
    def needs_salt(self) -> bool:
        """Whether `key_for` needs the salt and parameters from the KDC; true with a password."""
        return self._password is not None

    def spoken(self) -> bytes | None:
        """Return the password, or None: for a server that must see it. A secret."""
        with self._lock:
            return None if self._password is None else bytes(self._password)

    @forget_frames
    def key_for(self, etype: int, salt: bytes, params: bytes | None = None) -> EncryptionKey | None:
        """Return the client's long-term key of `etype`, or None if it has no such key.

        `salt` and `params` are the KDC's values for string-to-key; only a password needs them.
        Raises DecodeError or PolicyError for bad `params`, and CredentialError after `wipe()`.
        """
        with self._lock:
            if self._wiped:
                raise CredentialError(
                    f"the credential of {self.principal} was wiped: make a new one"
                )
            if self._password is None or etype not in _PREFERENCE:
                return self._keys.get(etype)
            known = self._derived.get((etype, salt, params))
            if known is not None:
                return known
            password = bytes(self._password)
        # This takes milliseconds, so it is done outside the lock.
        key = crypto.string_to_key(etype, password, salt, params)
        with self._lock:
            if len(self._derived) >= _MAX_DERIVED:
                self._derived.clear()
            if not self._wiped:
                self._derived[etype, salt, params] = key
        return key

    def save(self, ccache: files.FilePath | None = None) -> None:
        """Replace the ccache of that name by the tickets of this credential.

        None: see `CCache.save`. Raises CredentialError if there is no ticket yet, or if the file
        cannot be written.
        """
        if not len(self.ccache):
            raise CredentialError(
                f"there is no ticket of {self.principal} to save: get one first (KdcClient.get_tgt)"
            )
        self.with_impersonator().save(ccache)

    def wipe(self) -> None:
        """Overwrite the password and the keys derived from it, and release all else. Best effort.

        Keys and ccaches from the caller may be in use elsewhere, so they are not overwritten.
        """
        with self._lock:
            self._wiped = True
            if self._password is not None:
                self._password[:] = bytes(len(self._password))
                self._password = None
            for key in self._derived.values():
                key.wipe()
            self._derived.clear()
            self._keys = {}
            self._versions = []
            if self.certificate is not None:
                self.certificate.wipe()
                self.certificate = None
            self.kdc_trust = None
            self._impersonator = self._evidence = None
            self.ccache = CCache(self.principal)

    def __repr__(self) -> str:
        if self._impersonator is not None:
            return f"Credential({self.principal}, in whose name {self._impersonator!r} acts)"
        proof = "password" if self._password is not None else "keys" if self._keys else "tickets"
        if not self.has_key and self.otp is not None:
            proof = "one-time password"
        if self.certificate is not None:
            proof = "certificate"
        elif self.kdc_trust is not None:
            return f"Credential({self.principal})"
        return f"Credential({self.principal}, {proof}=<redacted>)"

    def _refuse(self, *_args: object) -> NoReturn:
        raise TypeError(
            "a Credential is secret and cannot be pickled or copied: "
            "pass the object, or save its ccache"
        )

    __reduce__ = _refuse
    __reduce_ex__ = _refuse
    __copy__ = _refuse
    __deepcopy__ = _refuse


def _versions(
    kvno: int, keys: Iterable[EncryptionKey]
) -> Iterator[tuple[int, dict[int, EncryptionKey]]]:
    """Yield the versions among the keys of one kvno: the first of each etype, the second, and so on.

    There are several while it is not known which salt a new key has, or which of them the KDC has
    (purekrb.directory.rotation).
    """
    left = [key for key in keys if key.etype in KEY_SIZES]
    while left:
        version: dict[int, EncryptionKey] = {}
        for key in left:
            version.setdefault(key.etype, key)
        yield kvno, version
        left = [key for key in left if not any(key is one for one in version.values())]


def _with_realm(service: Principal, config: Config | None) -> Principal:
    """Return the service with its realm by [domain_realm], if it has a host and no realm."""
    if service.realm or len(service.components) < 2:
        return service
    config = Config.from_file() if config is None else config
    host = service.components[1].partition(":")[0]
    return replace(service, realm=config.realm_of(host) or "")


def _first_principal(keytab: Keytab) -> Principal:
    if not len(keytab):
        raise CredentialError("the keytab is empty: export a key into it")
    return keytab.principals[0]
