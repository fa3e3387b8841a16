"""KdcClient and initiate: tickets and contexts from KDCs, blocking and (the Async twins) with asyncio.

Each call is an exchange, a generator that both twins run; they differ in how they wait for a reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from string import ascii_lowercase, ascii_uppercase
from typing import TypeVar

from purekrb.constants import Flag, TicketFlags
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.files import FilePath
from purekrb.credentials.keytab import Keytab
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    CredentialError,
    KerberosError,
    PreauthFailedError,
    TransportError,
    UnsupportedError,
)
from purekrb.exchanges.as_exchange import DEFAULT_MAX_ITERATIONS, AsOptions, as_exchange
from purekrb.exchanges.runner import Exchange, KdcRequest, KeyDerivation, run, run_async
from purekrb.exchanges.tgs_exchange import TgsOptions, forward_tgt, get_service_ticket, renew
from purekrb.gss.acceptor import Acceptor
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.context import check_mechanism
from purekrb.gss.initiator import Initiator
from purekrb.io import blocking
from purekrb.io.steps import Steps, in_thread
from purekrb.kdc.config import Config, KdcAddress
from purekrb.kdc.locate import Locator
from purekrb.kdc.transport import ask
from purekrb.log import Log
from purekrb.messages.ap import HostAddress
from purekrb.names import Principal
from purekrb.records import replace
from purekrb.replay import MemoryReplayCache
from purekrb.spn import ServicePrincipalName, target_principal

_log = Log("purekrb.kdc")

__all__ = ["KdcClient", "AsyncKdcClient", "initiate", "initiate_async", "verify_credentials"]

T = TypeVar("T")

#: What a ticket can be asked for: "HTTP/web.ad.test" (an SPN, split at "/"), or its parts.
Target = str | Principal | ServicePrincipalName

DEFAULT_TIMEOUT = 10.0
#: Seconds that a TGT is asked to last where neither the caller nor the configuration says.
DEFAULT_LIFETIME = 86400.0
#: Principals of a keytab that `verify_credentials` tries.
MAX_SERVICES = 8
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


class _Call:
    """One call of a client: its deadline, and which KDC answered last."""

    def __init__(self, locator: Locator, deadline: float) -> None:
        self._locator = locator
        self._deadline = deadline
        self._realm = ""
        self._answered: KdcAddress | None = None
        self._primary_of: str | None = (
            None  # from now on, only primary KDCs of this realm are asked
        )
        self._refused_by_replica: PreauthFailedError | None = None

    def ask(self, request: KdcRequest) -> Steps[bytes]:
        """Return the reply to one request. Raises UnsupportedError for a server that is not a KDC."""
        if request.server != "kdc":
            raise UnsupportedError(
                f"purekrb does not talk to the {request.server} servers of {request.realm}, only to its KDCs"
            )
        primary = request.realm == self._primary_of
        try:
            answer = yield from ask(
                self._locator,
                request.realm,
                request.message,
                self._deadline,
                clock=time.monotonic,
                primary=primary,
            )
        except TransportError:
            if primary and self._refused_by_replica is not None:
                raise self._refused_by_replica from None
            raise
        self._realm, self._answered = request.realm, answer.kdc
        return answer.reply

    def derive(self, derivation: KeyDerivation) -> Steps[None]:
        """Have a key derived, in a thread of its own: nothing else would end the wait at the deadline."""
        late = (
            f"a key with {derivation.iterations} iterations, which the KDC names, was not derived before the deadline: "
            "allow more time, or set the account's password anew with fewer iterations"
        )
        return in_thread(derivation.run, self._deadline, time.monotonic, late)

    def exchange(self, make: Callable[[], Exchange[T]]) -> Exchange[T]:
        """Return the result of the exchange; if a replica refuses the password, ask a primary KDC once.

        A replica may not know a new password yet. An answer of a primary, or one more failure, is final: each counts
        against the account.
        """
        try:
            return (yield from make())
        except PreauthFailedError as error:
            primaries = self._locator.configured(self._realm, primary=True)
            if not primaries or self._answered is None or _is_among(self._answered, primaries):
                raise
            _log.debug(
                "%s refused the password, now a primary KDC of %s is asked",
                self._answered,
                self._realm,
            )
            self._primary_of = self._realm
            self._refused_by_replica = error
        return (yield from make())


def _is_among(kdc: KdcAddress, others: Iterable[KdcAddress]) -> bool:
    return any((kdc.host, kdc.port) == (other.host, other.port) for other in others)


class _Exchanges:
    """What both clients do, as exchanges."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        locator: Locator | None = None,
    ) -> None:
        if config is None:
            config = Config.from_file() if locator is None else locator.config
        self.config = config
        self.timeout = timeout
        self._locator = locator or Locator(config)
        self._offsets: dict[str, timedelta] = {}  # by realm: the KDC's clock minus ours

    def _new_call(self) -> _Call:
        limit = self.config.request_timeout
        timeout = self.timeout if limit is None else min(self.timeout, limit)
        return _Call(self._locator, time.monotonic() + timeout)

    def _as_options(
        self,
        lifetime: float | None = None,
        renewable: float | None = None,
        forwardable: bool | None = None,
        canonicalize: bool | None = None,
        pac_request: bool | None = None,
    ) -> AsOptions:
        config = self.config
        return AsOptions(
            lifetime=lifetime or config.ticket_lifetime or DEFAULT_LIFETIME,
            renewable_lifetime=(config.renew_lifetime if renewable is None else renewable) or None,
            forwardable=config.forwardable if forwardable is None else forwardable,
            proxiable=config.proxiable,
            canonicalize=config.canonicalize if canonicalize is None else canonicalize,
            pac_request=pac_request,
            etypes=config.tkt_etypes,
            referral_realms=config.client_realms,
            clock_skew=config.clockskew,
            timesync=config.kdc_timesync,
            max_iterations=config.max_iterations or DEFAULT_MAX_ITERATIONS,
        )

    @property
    def _tgs_options(self) -> TgsOptions:
        return TgsOptions(etypes=self.config.tgs_etypes, clock_skew=self.config.clockskew)

    def _service(self, target: Target) -> Principal:
        """Return the service with its realm: the one named, else that of [domain_realm], else "": as the KDC refers."""
        principal = target_principal(target)
        if principal.realm or len(principal.components) < 2:
            return principal
        host = principal.components[1].partition(":")[0]
        return replace(principal, realm=self.config.realm_of(host) or "")

    def _get_tgt(self, credential: Credential, options: AsOptions) -> Exchange[ServiceTicket]:
        _check_credential(credential, "get_tgt({})")
        tgt = yield from as_exchange(credential, options, offsets=self._offsets)
        _keep(tgt, credential)
        return tgt

    def _get_ticket(
        self, credential: Credential, target: Target, *, forwardable: bool | None = None
    ) -> Exchange[ServiceTicket]:
        _check_credential(credential, "get_ticket({}, target)")
        return get_service_ticket(
            credential,
            self._service(target),
            store=credential.ccache,
            as_options=self._as_options(forwardable=forwardable),
            tgs_options=self._tgs_options,
            capath=self.config.capath,
            offsets=self._offsets,
        )

    def _renew(self, credential: Credential) -> Exchange[ServiceTicket]:
        _check_credential(credential, "renew({})")
        tgt = _stored_tgt(credential)
        if tgt is None:
            raise CredentialError(
                f"there is no valid TGT of {credential.principal} to renew: get a new one with a password or a keytab"
            )
        renewed = yield from renew(tgt, self._tgs_options)
        credential.ccache.store(renewed)
        return renewed

    def _forward_tgt(
        self, credential: Credential, addresses: tuple[HostAddress, ...] = ()
    ) -> Exchange[ServiceTicket]:
        _check_credential(credential, "forward_tgt({})")
        tgt = _stored_tgt(credential)
        if credential.can_get_tgt and not (tgt and tgt.flags & TicketFlags.FORWARDABLE):
            tgt = yield from self._get_tgt(credential, self._as_options(forwardable=True))
        if tgt is None:
            raise CredentialError(
                f"there is no valid TGT of {credential.principal} to forward: get one with kinit -f"
            )
        return (yield from forward_tgt(tgt, addresses, self._tgs_options))

    def _initiate(
        self,
        target: Target,
        credential: Credential,
        flags: Flag,
        mechanism: str,
        channel_bindings: ChannelBindings | None,
    ) -> Exchange[Initiator]:
        delegate = bool(flags & Flag.DELEG)
        ticket = yield from self._get_ticket(credential, target, forwardable=delegate or None)
        forwarded = None
        if delegate and ticket.flags & TicketFlags.OK_AS_DELEGATE:
            forwarded = yield from self._forward_tgt(credential)
        return Initiator(
            ticket,
            flags=flags,
            mechanism=mechanism,
            channel_bindings=channel_bindings,
            forwarded_tgt=forwarded,
            permitted_etypes=self.config.permitted_etypes,
            send_client_target=True,
        )


def _check_credential(credential: object, call: str) -> None:
    """Raise TypeError, with the right `call`, for what is not a Credential. Its value may be a password."""
    if not isinstance(credential, Credential):
        example = 'Credential.from_password("alice@EXAMPLE.COM", password)'
        raise TypeError(f"the credential is of type {type(credential).__name__}: call {call.format(example)}")


def _keep(tgt: ServiceTicket, credential: Credential) -> None:
    credential.ccache.principal = tgt.client  # the KDC may have told the canonical name
    credential.ccache.store(tgt)


def _stored_tgt(credential: Credential) -> ServiceTicket | None:
    realm = credential.ccache.principal.realm
    return credential.ccache.find(Principal(("krbtgt", realm), realm))


class KdcClient(_Exchanges):
    """Gets tickets from KDCs, blocking. `purekrb.aio.KdcClient` is the same for asyncio.

    `config` is by default that of krb5.conf. `timeout` is in seconds and covers everything that one call asks of KDCs,
    whatever they do, and deriving a password's key. Tickets go to the credential's ccache. Holds no socket between
    calls; safe for several threads.
    Every method raises TransportError (TransportTimeoutError at the deadline) where no KDC answers, ConfigError where
    none is known, KdcError for what a KDC refuses, ProtocolError or DecodeError for a reply that does not fit.
    """

    def get_tgt(
        self,
        credential: Credential,
        *,
        lifetime: float | None = None,
        renewable: float | None = None,
        forwardable: bool | None = None,
        canonicalize: bool | None = None,
        pac_request: bool | None = None,
    ) -> ServiceTicket:
        """Return a new TGT. What is None is as configured; `lifetime` and `renewable` (lifetime) are in seconds.

        Raises PreauthFailedError for a wrong password or key, ClientUnknownError and so on for the account's state.
        """
        options = self._as_options(lifetime, renewable, forwardable, canonicalize, pac_request)
        return self._run(lambda: self._get_tgt(credential, options))

    def get_ticket(self, credential: Credential, target: Target) -> ServiceTicket:
        """Return a ticket for `target`, from the credential's ccache or from the KDCs, with a TGT where one is missing.

        The service's realm is the one that `target` names, else that of [domain_realm], else where the KDC of the
        client's realm refers. Raises ServiceUnknownError where no KDC knows it, SpnError for text that is no SPN.
        """
        return self._run(lambda: self._get_ticket(credential, target))

    def renew(self, credential: Credential) -> ServiceTicket:
        """Return the credential's TGT, renewed. Raises CredentialError for one that is not renewable."""
        return self._run(lambda: self._renew(credential))

    def forward_tgt(
        self, credential: Credential, addresses: tuple[HostAddress, ...] = ()
    ) -> ServiceTicket:
        """Return a forwarded TGT, to delegate it to a service; none: `addresses` from which it can be used are all.

        Raises CredentialError for a TGT that is not forwardable.
        """
        return self._run(lambda: self._forward_tgt(credential, addresses))

    def _run(self, make: Callable[[], Exchange[T]]) -> T:
        call = self._new_call()
        return run(
            call.exchange(make),
            lambda request: blocking.drive(call.ask(request)),
            lambda derivation: blocking.drive(call.derive(derivation)),
        )


class AsyncKdcClient(_Exchanges):
    """`KdcClient` for asyncio, method for method. Cancelling a call leaves no socket behind."""

    async def get_tgt(
        self,
        credential: Credential,
        *,
        lifetime: float | None = None,
        renewable: float | None = None,
        forwardable: bool | None = None,
        canonicalize: bool | None = None,
        pac_request: bool | None = None,
    ) -> ServiceTicket:
        """As `KdcClient.get_tgt`."""
        options = self._as_options(lifetime, renewable, forwardable, canonicalize, pac_request)
        return await self._run(lambda: self._get_tgt(credential, options))

    async def get_ticket(self, credential: Credential, target: Target) -> ServiceTicket:
        """As `KdcClient.get_ticket`."""
        return await self._run(lambda: self._get_ticket(credential, target))

    async def renew(self, credential: Credential) -> ServiceTicket:
        """As `KdcClient.renew`."""
        return await self._run(lambda: self._renew(credential))

    async def forward_tgt(
        self, credential: Credential, addresses: tuple[HostAddress, ...] = ()
    ) -> ServiceTicket:
        """As `KdcClient.forward_tgt`."""
        return await self._run(lambda: self._forward_tgt(credential, addresses))

    async def _run(self, make: Callable[[], Exchange[T]]) -> T:
        from purekrb.io import asyncio  # a blocking caller does not need it

        call = self._new_call()
        return await run_async(
            call.exchange(make),
            lambda request: asyncio.drive(call.ask(request)),
            lambda derivation: asyncio.drive(call.derive(derivation)),
        )


def initiate(
    target: Target,
    credential: Credential,
    config: Config | None = None,
    *,
    flags: Flag = Flag.DEFAULT,
    mechanism: str = "kerberos",
    channel_bindings: ChannelBindings | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Initiator:
    """Return the initiator of a context with the service `target`; gets the tickets that it needs first.

    With DELEG it fetches a forwarded TGT where the KDC marks the service OK-AS-DELEGATE. `timeout` (seconds) covers
    the KDCs. Raises what KdcClient.get_ticket raises; CredentialError where DELEG needs a TGT that is not forwardable.
    """
    check_mechanism(mechanism)  # before a KDC is asked
    _check_credential(credential, "initiate(target, {})")
    client = KdcClient(config, timeout=timeout)
    return client._run(
        lambda: client._initiate(target, credential, flags, mechanism, channel_bindings)
    )


async def initiate_async(
    target: Target,
    credential: Credential,
    config: Config | None = None,
    *,
    flags: Flag = Flag.DEFAULT,
    mechanism: str = "kerberos",
    channel_bindings: ChannelBindings | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Initiator:
    """As `initiate`, for asyncio."""
    check_mechanism(mechanism)  # before a KDC is asked
    _check_credential(credential, "initiate(target, {})")
    client = AsyncKdcClient(config, timeout=timeout)
    return await client._run(
        lambda: client._initiate(target, credential, flags, mechanism, channel_bindings)
    )


def verify_credentials(
    credential: Credential,
    keytab: Keytab | FilePath | None = None,
    *,
    service: Target | None = None,
    config: Config | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    accept_canonical: bool = False,
) -> Principal:
    """Return the client's principal once a KDC that knows a key of `keytab` has vouched for its password or key.

    Use the result: it is who has logged in, as the KDC spells the name. It is the credential's principal, but with
    `canonicalize` (or an enterprise name) ASCII letters may differ in case (RFC 6806 6). `accept_canonical`: it may
    be any other name, which the KDC says to be the canonical one.

    `keytab` is a Keytab, a file, or None: see `Keytab.load`.
    A TGT alone proves nothing to others than its owner: who can answer in the KDC's place can answer with any password.
    So a new TGT is taken to get a ticket for a service of this machine, `service` or those in `keytab`, and the ticket
    has to decrypt with the key there. Raises CredentialError where the keytab has no key to check with, or where the
    KDC vouches for another client, else what stood in the way. Source: RFC 4120 3.1.5, 10.
    """
    _check_credential(credential, "verify_credentials({})")
    keytab = keytab if isinstance(keytab, Keytab) else Keytab.load(keytab)
    services: list[Target] = (
        list(dict.fromkeys(entry.principal for entry in keytab)) if service is None else [service]
    )
    if not services:
        raise CredentialError(
            "the keytab is empty, so that nothing can prove the KDC genuine: export a host key into it"
        )
    client = KdcClient(config, timeout=timeout)
    options = client._as_options()
    fresh = client._run(lambda: as_exchange(credential, options, offsets=client._offsets))
    if not accept_canonical and _folded(fresh.client) != _folded(credential.principal):
        # An account that answers in the KDC's place can name itself and hand out a genuine ticket of its own.
        raise CredentialError(
            f"the KDC vouches for {fresh.client}, not for {credential.principal}: do not trust this login; where the "
            "two may be names of one account, pass accept_canonical=True and go by the name that is returned"
        )
    refused: KerberosError | None = None
    for candidate in services[:MAX_SERVICES]:
        proof = Credential(fresh.client, ccache=CCache(fresh.client, [fresh]))
        try:
            ticket = client.get_ticket(proof, candidate)
            permitted = client.config.permitted_etypes
            acceptor = Acceptor(
                keytab, replay_cache=MemoryReplayCache(), permitted_etypes=permitted
            )
            acceptor.step(Initiator(ticket, permitted_etypes=permitted).step())
        except KerberosError as error:
            refused = refused or error
            continue
        if acceptor.initiator != fresh.client:
            raise CredentialError(
                f"the KDC's ticket for {ticket.service} belongs to {acceptor.initiator}, not to {fresh.client}: "
                "do not trust this login"
            )
        _keep(fresh, credential)
        return fresh.client
    raise refused or CredentialError("no service was tried")


def _folded(principal: Principal) -> tuple[str, ...]:
    """Return what principals that differ in the case of ASCII letters alone have in common.

    Unicode's rules would take different accounts for one ("ss" and "ß").
    """
    return tuple(text.translate(_LOWER) for text in (principal.realm, *principal.components))
