"""KdcClient and initiate: tickets and contexts from KDCs, blocking and for asyncio.

Each call is an exchange, a generator. The blocking and the asyncio client run the same exchanges,
and only differ in how they wait for a reply. Both spell out their signatures: a caller should see
the arguments, and ParamSpec would hide them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

from purekrb.constants import Flag, NameType, PaDataType, Requirement, TicketFlags
from purekrb.credentials.ccache import CCache
from purekrb.credentials.credential import Credential
from purekrb.credentials.keytab import Keytab, KeytabEntry
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    ConfigError,
    ContextError,
    CredentialError,
    KerberosError,
    PolicyError,
)
from purekrb.exchanges.as_exchange import (
    DEFAULT_MAX_ITERATIONS,
    AccountKey,
    AsOptions,
    account_keys,
    account_salts,
    as_exchange,
)
from purekrb.exchanges.preauth.choice import mechanisms
from purekrb.exchanges.runner import (
    Exchange,
    KdcRequest,
    run,
    run_async,
)
from purekrb.exchanges.tgs_exchange import (
    TgsOptions,
    forward_tgt,
    get_service_ticket,
    proxy,
    renew,
    tgs_exchange,
    validate,
)
from purekrb.exchanges.wire import ArmorSource
from purekrb.gss.channel_bindings import ChannelBindings
from purekrb.gss.context import INITIATORS, MAX_TOKEN, check_mechanism
from purekrb.gss.initiator import Delegate, Initiator, check_delegation, with_delegation
from purekrb.io import blocking, dial
from purekrb.io.steps import Steps
from purekrb.kdc.addresses import local_addresses
from purekrb.kdc.call import Call
from purekrb.kdc.locate import Locator
from purekrb.krb5conf.config import Config
from purekrb.krb5conf.spelling import complete, fitting_realm, of_upn
from purekrb.log import Log
from purekrb.messages.ap import HostAddress
from purekrb.names import Principal
from purekrb.records import replace
from purekrb.spn import ServicePrincipalName, target_principal
from purekrb.system import now
from purekrb.tracebacks import forget_frames, forget_locals

if TYPE_CHECKING:
    from purekrb.io.asyncio import OpenConnection as AsyncOpenConnection
    from purekrb.messages.otp import AskOtp

_log = Log("purekrb.kdc")

__all__ = ["KdcClient", "AsyncKdcClient", "initiate", "initiate_async"]

T = TypeVar("T")
Opens = TypeVar("Opens")

#: The name of a service: "HTTP/web.ad.test" (an SPN, split at "/"), or its parts.
Target = str | Principal | ServicePrincipalName

DEFAULT_TIMEOUT = 10.0
#: The lifetime to ask for in a TGT, in seconds, if neither the caller nor the configuration says.
DEFAULT_LIFETIME = 86400.0
#: That of a ticket to change a password, in seconds: it is used once, at once.
CHANGEPW_LIFETIME = 300.0
#: What the armor of FAST is made of: a credential, its tickets alone, or an anonymous ticket.
Armor = Credential | CCache | Literal["anonymous"]
_STRICTNESS: tuple[Requirement | None, ...] = (None, "strong", "fast")
#: The ccache's configuration entry by which MIT's programs know that a KDC has FAST.
FAST_AVAIL = "fast_avail"
#: The same for the kind of pre-authentication that served, and for what it needs the next time.
PA_TYPE, PA_CONFIG_DATA = "pa_type", "pa_config_data"
#: Seconds for which a stored ticket must be valid.
MARGIN = 60.0
#: The encryption types of the keys that are made from a password.
KEYTAB_ETYPES = (18, 17)


class _Drive(Protocol):
    """Runs steps, and waits in the calling thread."""

    def __call__(self, steps: Steps[T]) -> T: ...


def _named_as_armor(source: ArmorSource) -> ArmorSource:
    """Return the source, whose errors say that they are about the armor, not about the client."""

    def tgt_for(realm: str) -> Exchange[ServiceTicket]:
        try:
            return (yield from source(realm))
        except KerberosError as error:
            error.args = (f"there is no armor for FAST: {error.args[0]}", *error.args[1:])
            raise

    return tgt_for


class _Exchanges(Generic[Opens]):
    """The calls of both clients, as exchanges; `Opens` is the kind of their `open_connection`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        armor: Armor | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        open_connection: Opens | None = None,
        locator: Locator | None = None,
    ) -> None:
        if config is None:
            config = Config.from_file() if locator is None else locator.config
        self.config = config
        self.timeout = timeout
        self._locator = locator or Locator(config)
        self._armor = armor
        self.open_connection = open_connection
        self._dial = None if open_connection is None else self._dialer(open_connection)
        self._offsets: dict[str, timedelta] = {}  # realm -> the KDC's clock minus ours
        self._anonymous: dict[str, Credential] = {}  # by realm, for armors
        self._fast_realms: set[str] = set()  # those whose KDCs have announced FAST
        self._old_s4u_realms: set[str] = set()  # those whose KDCs know PA-FOR-USER alone

    def _new_call(self) -> Call:
        limit = self.config.request_timeout
        timeout = self.timeout if limit is None else min(self.timeout, limit)
        return Call(self._locator, time.monotonic() + timeout, self._dial)

    @staticmethod
    def _dialer(open_connection: Opens) -> dial.Dial:
        raise NotImplementedError

    def _as_options(
        self,
        credential: Credential,
        lifetime: float | None = None,
        renewable: float | None = None,
        forwardable: bool | None = None,
        canonicalize: bool | None = None,
        pac_request: bool | None = None,
        *,
        armor: Armor | None = None,
        require: Requirement | None = None,
        proxiable: bool | None = None,
        addresses: Sequence[HostAddress] | None = None,
        start: datetime | None = None,
        service: Target | None = None,
        otp: AskOtp | None = None,
    ) -> AsOptions:
        config = self.config
        armor = self._armor if armor is None else armor
        otp = credential.otp if otp is None else otp
        floors = (require, credential.require, config.requirement(credential.principal.realm))
        for given in floors:
            if given not in _STRICTNESS:
                raise ValueError(f'require is "fast", "strong" or None, not {given!r}')
        floor = max(floors, key=_STRICTNESS.index)
        if addresses is None:
            addresses = () if config.noaddresses else local_addresses(config.extra_addresses)
        return AsOptions(
            service=None if service is None else target_principal(service),
            starttime=start,
            addresses=tuple(addresses),
            lifetime=lifetime or config.ticket_lifetime or DEFAULT_LIFETIME,
            renewable_lifetime=(config.renew_lifetime if renewable is None else renewable) or None,
            forwardable=config.forwardable if forwardable is None else forwardable,
            proxiable=config.proxiable if proxiable is None else proxiable,
            canonicalize=config.canonicalize if canonicalize is None else canonicalize,
            pac_request=pac_request,
            etypes=config.tkt_etypes,
            referral_realms=config.client_realms,
            clock_skew=config.clockskew,
            timesync=config.kdc_timesync,
            max_iterations=config.max_iterations or DEFAULT_MAX_ITERATIONS,
            require=floor,
            armor=None if armor is None else self._armor_source(armor),
            # Where nothing weaker will do, SPAKE is offered at once.
            mechanisms=mechanisms(
                config.spake_preauth_groups,
                unasked=floor == "strong" and armor is None,
                otp=otp,
                keys=credential.has_key,
                public_key=credential.kdc_trust is not None,
                preferred=config.preferred_preauth_types,
                disabled=config.clpreauth_disable,
                enabled=config.clpreauth_enable_only,
            ),
        )

    def _armor_source(self, armor: Armor) -> ArmorSource:
        """Return what gets TGTs for an armor. It has its own floor, and no armor itself."""
        if armor == "anonymous":
            return _named_as_armor(self._anonymous_tgt)
        credential = armor if isinstance(armor, Credential) else Credential.from_ccache(armor)
        self._prepare(credential, "KdcClient(config, armor={})")

        def tgt_for(realm: str) -> Exchange[ServiceTicket]:
            options = dataclasses.replace(self._as_options(credential), armor=None)
            credential.refresh()
            home = credential.ccache.realm
            if realm != home:
                tgs = Principal(("krbtgt", realm), home, NameType.SRV_INST)
                return (yield from self._service_ticket(credential, tgs, options))
            tgt = credential.tgt()
            return (yield from self._get_tgt(credential, options)) if tgt is None else tgt

        return _named_as_armor(tgt_for)

    def _anonymous_tgt(self, realm: str) -> Exchange[ServiceTicket]:
        """Return an anonymous TGT of `realm`, which only its own KDC gives."""
        credential = self._anonymous.setdefault(realm, Credential.anonymous(realm))
        self._prepare(credential, "")
        tgt = credential.tgt()
        if tgt is None:
            options = dataclasses.replace(self._as_options(credential), armor=None, require=None)
            tgt = yield from self._get_tgt(credential, options)
        return tgt

    def _tgs_options(self, credential: Credential, lifetime: float | None = None) -> TgsOptions:
        """FAST is used where it was for the TGT, which a ccache keeps (`fast_avail`)."""
        realm = credential.ccache.realm
        if credential.ccache.get_config(FAST_AVAIL, _tgs(realm)) is not None:
            self._fast_realms.add(realm)
        armored = self._armor is not None or credential.require is not None
        return TgsOptions(
            lifetime=lifetime,
            etypes=self.config.tgs_etypes,
            clock_skew=self.config.clockskew,
            fast_realms=self._fast_realms if armored else (),
        )

    def _service(self, target: Target, client_realm: str) -> Principal:
        """Return the service with its realm: the named one, or that of [domain_realm].

        If neither is known, the realm is "", and the KDC of the client's realm may refer to
        another. The realm of a target in text may be written in other letters, or as a NetBIOS
        name.
        """
        principal = target_principal(target)
        realm = principal.realm
        if realm and not isinstance(target, str):
            return principal
        if not realm and len(principal.components) > 1:
            host = principal.components[1].partition(":")[0]
            realm = self.config.realm_of(host) or ""
        return replace(principal, realm=fitting_realm(realm, self.config, client_realm))

    def _account(self, target: Target, client_realm: str) -> Principal:
        """Return what `_service` does; text without "/" is the name of an account, not an SPN."""
        if isinstance(target, str) and "/" not in target:
            target = Principal.parse(target, "")
        return self._service(target, client_realm)

    def _prepare(self, credential: Credential, call: str) -> None:
        """Refuse what is not a Credential; complete its principal by the configuration."""
        _check_credential(credential, call)
        principal = credential.principal
        if credential.kdc_trust is not None:
            credential.kdc_trust = dataclasses.replace(credential.kdc_trust, config=self.config)
        if not principal.realm:
            certificate = credential.certificate
            of_certificate = certificate is not None and principal is certificate.principal_name
            completed = of_upn if of_certificate else complete
            credential.principal = completed(principal, self.config)
            if credential.ccache.principal is principal:
                credential.ccache.principal = credential.principal

    def _given(self, credential: Credential | None, target: Target, call: str) -> Credential:
        """Return the caller's credential, or the default one for `target`."""
        if credential is None:
            return Credential.default(self.config, service=target)
        _check_credential(credential, call)
        return credential

    def _get_tgt(self, credential: Credential, options: AsOptions) -> Exchange[ServiceTicket]:
        credential.reload_keys()
        if not credential.can_get_tgt:
            credential.refresh()  # the file may have another ticket by now; if none is valid: why
            raise CredentialError(
                f"a new ticket needs a password or a key, and {credential.why_no_ticket()}"
            )
        tgt = yield from as_exchange(
            credential, options, offsets=self._offsets, fast_realms=self._fast_realms
        )
        credential.ccache.begin_with(tgt)
        self._keep_fast(credential)
        if credential.kdc_trust is not None:
            _keep_pkinit(credential)
        return tgt

    def _keep_fast(self, credential: Credential) -> None:
        """Note in the ccache, as MIT does, that the KDC has announced FAST."""
        realm = credential.ccache.realm
        if realm in self._fast_realms:
            credential.ccache.set_config(FAST_AVAIL, b"yes", _tgs(realm))

    def _get_ticket(
        self,
        credential: Credential,
        target: Target,
        *,
        forwardable: bool | None = None,
        lifetime: float | None = None,
        on_behalf_of: ServiceTicket | None = None,
        user_to_user: ServiceTicket | bytes | None = None,
    ) -> Exchange[ServiceTicket]:
        self._prepare(credential, "get_ticket({}, target)")
        if user_to_user is not None:
            if on_behalf_of is not None:
                raise TypeError("a ticket in another's name is no user-to-user ticket")
            return self._under_their_tgt(credential, target, user_to_user, lifetime)
        if on_behalf_of is not None:
            credential = Credential.on_behalf_of(credential, on_behalf_of)
        options = self._as_options(credential, forwardable=forwardable)
        service = self._service(target, credential.ccache.realm)
        return self._service_ticket(credential, service, options, lifetime)

    def _service_ticket(
        self,
        credential: Credential,
        service: Principal,
        options: AsOptions,
        lifetime: float | None = None,
    ) -> Exchange[ServiceTicket]:
        acting = credential.impersonation
        if acting is not None:
            return (yield from self._delegated(credential, *acting, service, lifetime))
        credential.refresh(service)
        held = len(credential.ccache), credential.ccache.find(service)
        _check_tickets(credential, service)
        ticket = yield from get_service_ticket(
            credential,
            service,
            store=credential.ccache,
            as_options=options,
            tgs_options=self._tgs_options(credential, lifetime),
            capath=self.config.capath,
            offsets=self._offsets,
            fast_realms=self._fast_realms,
        )
        self._keep_fast(credential)
        if held != (len(credential.ccache), ticket):
            credential.keep()
        return ticket

    def _own_tgt(
        self, credential: Credential, *, flag: int = 0, purpose: str = ""
    ) -> Exchange[ServiceTicket]:
        """Return the credential's TGT, or a new one if that lacks `flag` and can be got.

        Raises CredentialError, which begins with the `purpose`, if there is none.
        """
        credential.refresh()
        tgt = credential.tgt()
        if credential.can_get_tgt and not (tgt and tgt.flags & flag == flag):
            options = self._as_options(
                credential,
                forwardable=bool(flag & TicketFlags.FORWARDABLE) or None,
                proxiable=bool(flag & TicketFlags.PROXIABLE) or None,
            )
            tgt = yield from self._get_tgt(credential, options)
        if tgt is None:
            raise CredentialError(purpose + credential.why_no_ticket())
        return tgt

    def _under_their_tgt(
        self,
        credential: Credential,
        target: Target,
        theirs: ServiceTicket | bytes,
        lifetime: float | None = None,
    ) -> Exchange[ServiceTicket]:
        """Return a user-to-user ticket, which the credential keeps."""
        from purekrb.exchanges.user_to_user import ticket_under  # only who needs it pays for it

        service = self._account(target, credential.ccache.principal.realm)
        second = theirs if isinstance(theirs, bytes) else theirs.ticket
        until = now() + timedelta(seconds=MARGIN)
        for stored in credential.ccache:
            if (
                (stored.is_skey, stored.second_ticket) == (True, second)
                and stored.client == credential.ccache.principal
                and stored.service.components == service.components
                and stored.endtime > until + stored.time_offset
            ):
                return stored
        tgt = yield from self._own_tgt(credential)
        ticket = yield from ticket_under(
            theirs,
            tgt,
            service,
            self._tgs_options(credential, lifetime),
            capath=self.config.capath,
        )
        credential.ccache.store(ticket)
        credential.keep()
        return ticket

    # -- acting for a user: these calls load s4u.py

    def _impersonate(
        self,
        credential: Credential,
        user: Principal | str | None,
        certificate: bytes | None,
        service: Target | None,
    ) -> Exchange[ServiceTicket]:
        from purekrb.exchanges.s4u import impersonate, realm_of_user

        self._prepare(credential, "impersonate({}, user)")
        if certificate is not None:
            certificate = _in_der(certificate)
        elif user is None:
            raise TypeError("name the user, or pass the user's certificate")
        tgt = yield from self._tgt_to_act_with(credential)
        home = credential.ccache.realm
        client = Principal.parse(user, home) if isinstance(user, str) else user
        if client is not None and not client.realm:
            if client.name_type == NameType.ENTERPRISE:
                realm = yield from realm_of_user(
                    client,
                    home,
                    referral_realms=self.config.client_realms,
                    etypes=self.config.tkt_etypes,
                )
            else:
                realm = home
            client = replace(client, realm=realm)
        return (
            yield from impersonate(
                tgt,
                client,
                self._tgs_options(credential),
                service=None if service is None else self._account(service, home),
                certificate=certificate,
                old_realms=self._old_s4u_realms,
                capath=self.config.capath,
            )
        )

    def _delegated(
        self,
        credential: Credential,
        service: Credential,
        evidence: ServiceTicket,
        target: Principal,
        lifetime: float | None,
    ) -> Exchange[ServiceTicket]:
        """Return a ticket of the evidence's client by S4U2Proxy, and keep it in `credential`."""
        realm = target.realm or service.ccache.principal.realm
        stored = credential.ccache.find(replace(target, realm=realm), margin=MARGIN)
        if stored is not None:
            return stored
        from purekrb.exchanges.s4u import check_evidence, delegated_ticket

        check_evidence(service.principal, evidence)  # before a KDC is asked
        tgt = yield from self._tgt_to_act_with(service)
        ticket = yield from delegated_ticket(
            tgt,
            target,
            evidence,
            self._tgs_options(service, lifetime),
            capath=self.config.capath,
        )
        credential.ccache.store(ticket)
        return ticket

    def _tgt_to_act_with(self, service: Credential) -> Exchange[ServiceTicket]:
        self._prepare(service, "impersonate({}, user)")
        return self._own_tgt(
            service,
            flag=TicketFlags.FORWARDABLE,
            purpose="the service that acts for others needs its TGT: ",
        )

    def _account_keys(
        self, credential: Credential, etypes: Iterable[int]
    ) -> Exchange[list[AccountKey]]:
        self._prepare(credential, "account_keys({})")
        if not credential.needs_salt:
            raise CredentialError(
                f"the keys of {credential.principal} can only be made from a password: "
                "pass Credential.from_password(...)"
            )
        return self._proved_keys(credential, etypes)

    def _account_salts(
        self, principal: Principal, etypes: Iterable[int]
    ) -> Exchange[tuple[bytes, ...]]:
        return account_salts(
            principal,
            etypes,
            self._as_options(Credential(principal, password=b"")),  # its salt alone counts
            offsets=self._offsets,
            fast_realms=self._fast_realms,
        )

    def _proved_keys(
        self, credential: Credential, etypes: Iterable[int]
    ) -> Exchange[list[AccountKey]]:
        """Return the keys of a password or a keytab, each proved by a log-in, with their kvno."""
        return account_keys(
            credential,
            etypes,
            self._as_options(credential),
            offsets=self._offsets,
            fast_realms=self._fast_realms,
        )

    def _renew(self, credential: Credential) -> Exchange[ServiceTicket]:
        self._prepare(credential, "renew({})")
        credential.refresh()
        tgt = credential.tgt()
        if tgt is None:
            raise CredentialError(f"there is no valid TGT to renew: {credential.why_no_ticket()}")
        renewed = yield from renew(tgt, self._tgs_options(credential))
        credential.ccache.store(renewed)
        return renewed

    def _validate(self, credential: Credential) -> Exchange[ServiceTicket]:
        _check_credential(credential, "validate({})")
        realm = credential.ccache.realm
        tgs = Principal(("krbtgt", realm), realm)
        found = [t for t in credential.ccache if t.service == tgs and t.flags & TicketFlags.INVALID]
        if not found:
            raise CredentialError(
                f"there is no postdated TGT of {credential.principal} to validate: "
                "get one with a start time first (kinit -s)"
            )
        validated = yield from validate(found[-1], self._tgs_options(credential))
        credential.ccache.store(validated)
        return validated

    def _forward_tgt(
        self, credential: Credential, addresses: tuple[HostAddress, ...] = ()
    ) -> Exchange[ServiceTicket]:
        self._prepare(credential, "forward_tgt({})")
        tgt = yield from self._own_tgt(
            credential,
            flag=TicketFlags.FORWARDABLE,
            purpose="there is no valid TGT to forward (kinit -f): ",
        )
        return (yield from forward_tgt(tgt, addresses, self._tgs_options(credential)))

    def _proxy(
        self, credential: Credential, target: Target, addresses: Sequence[HostAddress]
    ) -> Exchange[ServiceTicket]:
        self._prepare(credential, "proxy({}, target)")
        service = self._service(target, credential.ccache.realm)
        tgt = yield from self._own_tgt(
            credential,
            flag=TicketFlags.PROXIABLE,
            purpose="there is no valid TGT for a proxy (kinit -p): ",
        )
        options = self._tgs_options(credential)
        capath = self.config.capath
        if not service.realm:  # the KDCs know it: a request for a proxy is not referred
            service = (yield from tgs_exchange(tgt, service, options, capath=capath)).service
        return (yield from proxy(tgt, service, tuple(addresses), options, capath=capath))

    def _change_password(
        self, credential: Credential, new: str | bytes, target: Principal | None
    ) -> Exchange[None]:
        """Change the password of the credential's client, or set that of `target`."""
        from purekrb.exchanges.change_password import change_password

        password = new.encode() if isinstance(new, str) else new
        realm = credential.principal.realm
        service = Principal(("kadmin", "changepw"), realm, NameType.SRV_INST)
        options = dataclasses.replace(
            self._as_options(credential, CHANGEPW_LIFETIME, 0, False), service=service
        )
        if credential.can_get_tgt:
            ticket = yield from as_exchange(
                credential, options, offsets=self._offsets, fast_realms=self._fast_realms
            )
        elif target is None:
            raise CredentialError(
                f"the password of {credential.principal} cannot be changed with tickets alone: "
                "pass a credential with the old password"
            )
        else:
            ticket = yield from self._service_ticket(credential, service, options)
        yield from change_password(ticket, password, target)

    def _tickets(
        self, target: Target, credential: Credential, flags: Flag, delegate: Delegate
    ) -> Exchange[tuple[ServiceTicket, ServiceTicket | None]]:
        """Return the ticket of a context, and the TGT that it delegates, if any."""
        flags = with_delegation(flags, delegate)
        if delegate == "always":
            check_delegation(flags)  # before a KDC is asked
        wanted = bool(flags & Flag.DELEG)
        ticket = yield from self._get_ticket(credential, target, forwardable=wanted or None)
        forwarded = None
        if wanted and (delegate == "always" or ticket.flags & TicketFlags.OK_AS_DELEGATE):
            forwarded = yield from self._forward_tgt(credential)
        return ticket, forwarded

    def _initiate(
        self,
        target: Target,
        credential: Credential,
        flags: Flag,
        delegate: Delegate,
        mechanism: str,
        channel_bindings: ChannelBindings | None,
        max_token: int,
    ) -> Exchange[Initiator]:
        if delegate == "always" and self.config.enforce_ok_as_delegate:
            delegate = True
        if mechanism.endswith("user-to-user"):
            if delegate or flags & Flag.DELEG:
                raise PolicyError("a user-to-user context hands over no TGT: pass no DELEG")
            return (
                yield from self._initiate_user_to_user(
                    target,
                    credential,
                    flags,
                    channel_bindings,
                    max_token,
                    negotiate=mechanism != "user-to-user",
                )
            )
        if mechanism == "iakerb":
            from purekrb.gss.iakerb import IakerbInitiator  # only who needs it pays for it

            return IakerbInitiator(
                self._tickets(target, credential, flags, delegate),
                flags=flags,
                delegate=delegate,
                channel_bindings=channel_bindings,
                permitted_etypes=self.config.permitted_etypes,
                max_token=max_token,
            )
        ticket, forwarded = yield from self._tickets(target, credential, flags, delegate)
        return Initiator(
            ticket,
            flags=flags,
            delegate=delegate,
            mechanism=mechanism,
            channel_bindings=channel_bindings,
            forwarded_tgt=forwarded,
            permitted_etypes=self.config.permitted_etypes,
            send_client_target=True,
            max_token=max_token,
        )

    def _initiate_user_to_user(
        self,
        target: Target,
        credential: Credential,
        flags: Flag,
        channel_bindings: ChannelBindings | None,
        max_token: int,
        *,
        negotiate: bool,
    ) -> Exchange[Initiator]:
        from purekrb.gss.user_to_user import UserToUserInitiator

        self._prepare(credential, "initiate(target, {})")
        yield from self._own_tgt(credential)  # so that `step` has one request left
        service = self._account(target, credential.ccache.principal.realm)
        return UserToUserInitiator(
            service,
            partial(self._ticket_now, credential, service),
            negotiate=negotiate,
            flags=flags,
            channel_bindings=channel_bindings,
            permitted_etypes=self.config.permitted_etypes,
            max_token=max_token,
        )

    def _ticket_now(
        self, credential: Credential, service: Principal, theirs: bytes
    ) -> ServiceTicket:
        """Return the ticket under a TGT, blocking: the second step of a user-to-user context."""
        raise NotImplementedError

    def _relay(self, realm: str, message: bytes) -> Exchange[bytes]:
        if realm not in self.config.client_realms and realm != self.config.default_realm:
            raise ConfigError(
                f"{realm!r} is not a realm of {self.config.source}: requests for it are not passed "
                "on; name it in [realms]"
            )
        return (yield KdcRequest(realm, message))


def _check_credential(credential: object, call: str) -> None:
    """Raise TypeError, with the right `call`, for what is not a Credential. Its value may be a password."""
    if not isinstance(credential, Credential):
        example = 'Credential.from_password("alice@EXAMPLE.COM", password)'
        raise TypeError(
            f"the credential is of type {type(credential).__name__}: call {call.format(example)}"
        )


def _in_der(certificate: bytes) -> bytes:
    """Return the DER of a certificate in PEM or DER. Raises CertificateError."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from purekrb.credentials.x509 import load_certificate

    return load_certificate(certificate).public_bytes(Encoding.DER)


def _check_new(new: object) -> None:
    if not isinstance(new, str | bytes):
        raise TypeError(f"the new password is text or bytes, not {type(new).__name__}")
    if not new:
        raise ValueError("the new password is empty")


def _in_realm_of(credential: Credential, principal: Principal | str) -> Principal:
    if isinstance(principal, str):
        return Principal.parse(principal, credential.principal.realm)
    return replace(principal, realm=principal.realm or credential.principal.realm)


def _keytab_of(keys: Iterable[AccountKey], names: Iterable[Principal | str]) -> Keytab:
    stamp = now().replace(microsecond=0)
    owners = [Principal.of(name) for name in names]
    return Keytab(
        KeytabEntry(owner, found.kvno or 1, found.key, stamp)
        for found in keys
        for owner in owners or [found.client]
    )


def _check_tickets(credential: Credential, service: Principal) -> None:
    """Raise CredentialError, which says since when, for tickets alone of which none is valid."""
    if credential.can_get_tgt:
        return
    realm = credential.ccache.realm
    wanted = (replace(service, realm=service.realm or realm), Principal(("krbtgt", realm), realm))
    if not any(credential.ccache.find(name, margin=MARGIN) for name in wanted):
        raise CredentialError(credential.why_no_ticket())


def _keep_pkinit(credential: Credential) -> None:
    """Note in the ccache, as MIT does, that PKINIT has served, and by which certificate."""
    ccache, certificate = credential.ccache, credential.certificate
    tgs = _tgs(ccache.realm)
    ccache.set_config(PA_TYPE, str(int(PaDataType.PK_AS_REQ)).encode(), tgs)
    if certificate is not None and certificate.identity is not None:
        import json

        data = json.dumps({"X509_user_identity": certificate.identity})
        ccache.set_config(PA_CONFIG_DATA, data.encode(), tgs)


def _tgs(realm: str) -> Principal:
    return Principal(("krbtgt", realm), realm, NameType.SRV_INST)


class KdcClient(_Exchanges["dial.OpenConnection"]):
    """Gets tickets from KDCs, blocking. `purekrb.aio.KdcClient` is the same for asyncio.

    `config` is read from krb5.conf by default. `timeout` is in seconds and covers a whole call: all
    requests, whatever the KDCs do, and the derivation of keys from a password. `armor` is a
    credential, or a ccache, whose TGT is the armor of FAST (RFC 6113) in every call: that of a host
    or of another user; or "anonymous": it is got by anonymous PKINIT (RFC 8062). Tickets are stored
    in the credential's ccache. The client is thread-safe, and holds no socket between calls.

    `open_connection(host, port, timeout)` opens all connections, in threads, and returns a
    connected socket: through a SOCKS proxy or a tunnel. Host names are not looked up then, and UDP
    is not used. For `purekrb.aio.KdcClient`, it is a coroutine function,
    `open_connection(host, port)`, which may also return streams, as `asyncio.open_connection`.

    Every method raises TransportError if no KDC answers (TransportTimeoutError at the deadline),
    ConfigError if no KDC is known, KdcError if a KDC refuses, and ProtocolError or DecodeError for
    a reply that does not fit the request.
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
        armor: Armor | None = None,
        require: Requirement | None = None,
        proxiable: bool | None = None,
        addresses: Sequence[HostAddress] | None = None,
        start: datetime | None = None,
        service: Target | None = None,
        otp: AskOtp | None = None,
    ) -> ServiceTicket:
        """Return a new TGT.

        An argument of None stands for the configured value. `lifetime` and `renewable` (the
        renewable lifetime) are in seconds. `armor` is that of FAST for this call; once there is
        one, nothing is sent without it. `require` is the floor: "fast" for FAST, "strong" for FAST
        or another mechanism by which the password cannot be guessed; nothing weaker is sent. The
        strictest counts of this floor, `Credential.require` and the configuration's. `addresses`:
        where the ticket may be used from; if empty, anywhere. `start`: when the ticket becomes
        valid, if that is later than now; it must then be validated (`validate`). `service`: get the
        initial ticket for this service, such as kadmin/changepw, and no TGT. `otp`: gets a one-time
        password if the KDC asks for one: see `Credential.from_otp`; the time that it takes does not
        count. Raises
        ArmorRequiredError if FAST is required and missing, PreauthFailedError for a wrong password
        or key, and ClientUnknownError and so on for the state of the account.
        """
        self._prepare(credential, "get_tgt({})")
        options = self._as_options(
            credential,
            lifetime,
            renewable,
            forwardable,
            canonicalize,
            pac_request,
            armor=armor,
            require=require,
            proxiable=proxiable,
            addresses=addresses,
            start=start,
            service=service,
            otp=otp,
        )
        return self._run(lambda: self._get_tgt(credential, options))

    def get_ticket(
        self,
        credential: Credential,
        target: Target,
        *,
        lifetime: float | None = None,
        on_behalf_of: ServiceTicket | None = None,
        user_to_user: ServiceTicket | bytes | None = None,
    ) -> ServiceTicket:
        """Return a ticket for `target`, from the credential's ccache or from the KDCs.

        If necessary, it gets a TGT first. `lifetime` (seconds) is that of a new ticket; None: that of
        the TGT. The service's realm is the one in `target`, or that of
        [domain_realm]; if neither is known, the KDC of the client's realm may refer to it. Raises
        ServiceUnknownError if no KDC knows the service, and SpnError for malformed text.

        With `on_behalf_of`, the ticket is in the name of that ticket's client (S4U2Proxy), who came
        with it to the service of `credential`, or for whom `impersonate` got it. It is not stored.
        Raises DelegationRefusedError if the service may not act for this client there.
        `Credential.on_behalf_of` makes a credential of both, for every other call.

        With `user_to_user`, the TGT of `target` (or its DER), the ticket is under the session key
        of that TGT (RFC 4120 3.7): only who has logged in as `target` can read it. `target` may then
        be an account (`bob`).
        """
        return self._run(
            lambda: self._get_ticket(
                credential,
                target,
                lifetime=lifetime,
                on_behalf_of=on_behalf_of,
                user_to_user=user_to_user,
            )
        )

    def impersonate(
        self,
        service_credential: Credential,
        user: Principal | str | None,
        *,
        certificate: bytes | None = None,
        service: Target | None = None,
    ) -> ServiceTicket:
        """Return a ticket of `user` for the service itself (S4U2Self). It is not stored.

        The user has proved nothing: verify the user by other means first. In text, `user` is a
        principal, in the service's realm if it names none; an enterprise name without a realm (see
        `Credential.from_password`) is looked up. `certificate` (PEM or DER) may stand for the
        name.
        `service` is the name of the service to ask for; by default, that of the credential. If the
        ticket is forwardable, the service may act for the user elsewhere (`get_ticket` with
        `on_behalf_of`). Raises DelegationRefusedError if the KDC does not permit this, and
        ClientUnknownError for an unknown user.
        """
        return self._run(lambda: self._impersonate(service_credential, user, certificate, service))

    def relay(self, realm: str, message: bytes) -> bytes:
        """Return the answer of a KDC of `realm` to the AS-REQ or TGS-REQ `message` of someone else.

        An acceptor passes requests on by this (IAKERB), for the realms of the configuration alone.
        Raises ConfigError for others, and TransportError if no KDC answers.
        """
        return self._run(lambda: self._relay(realm, message))

    def renew(self, credential: Credential) -> ServiceTicket:
        """Return the credential's TGT, renewed. Raises CredentialError if it is not renewable."""
        return self._run(lambda: self._renew(credential))

    def validate(self, credential: Credential) -> ServiceTicket:
        """Return the credential's postdated TGT, validated; its start time must have come.

        Raises CredentialError if there is no postdated TGT.
        """
        return self._run(lambda: self._validate(credential))

    def forward_tgt(
        self, credential: Credential, addresses: tuple[HostAddress, ...] = ()
    ) -> ServiceTicket:
        """Return a forwarded TGT, to delegate it to a service.

        `addresses`: where the TGT may be used from; by default, anywhere. Raises CredentialError if
        the credential's TGT is not forwardable.
        """
        return self._run(lambda: self._forward_tgt(credential, addresses))

    def proxy(
        self, credential: Credential, target: Target, addresses: Sequence[HostAddress] = ()
    ) -> ServiceTicket:
        """Return a ticket for `target` that another machine may use in the client's name.

        `addresses`: where it may be used from; by default, anywhere. It is not kept: give it away in
        a ccache (`CCache(ticket.client, [ticket])`) or a Kirbi. Raises CredentialError if the
        credential's TGT is not proxiable. Source: RFC 4120 2.5.
        """
        return self._run(lambda: self._proxy(credential, target, addresses))

    @forget_frames
    def change_password(self, credential: Credential, new: str | bytes) -> None:
        """Change the password of the credential's client to `new` (text: UTF-8).

        The credential needs the old password, which may have expired, or a key. Make another
        credential with the new one. The request is sent once: raises OutcomeUnknownError if its
        answer is lost, PasswordPolicyError if the realm's rules refuse `new`, PreauthFailedError if
        the old password is wrong, and KdcError if the server refuses for another reason. Source:
        RFC 3244.
        """
        _check_new(new)
        self._prepare(credential, "change_password({}, new)")
        self._run(lambda: self._change_password(credential, new, None))

    @forget_frames
    def set_password(
        self, credential: Credential, principal: Principal | str, new: str | bytes
    ) -> None:
        """Set the password of `principal` to `new`, as the administrator of `credential`.

        Without a realm, the principal is in that of the credential. Raises the errors of
        `change_password`. MIT's and Heimdal's servers need a credential with a password or key; a
        domain controller takes tickets too.
        """
        _check_new(new)
        self._prepare(credential, "set_password({}, principal, new)")
        target = _in_realm_of(credential, principal)
        self._run(lambda: self._change_password(credential, new, target))

    def account_keys(
        self, credential: Credential, *, etypes: Iterable[int] = KEYTAB_ETYPES
    ) -> list[AccountKey]:
        """Return the account's keys, made from its password with the salt that the KDC names.

        The salt is not always that of the name: the KDC knows it alone. Each key is verified by a
        log-in, as the answer that names the salt could be forged; one wrong password counts once
        against the account. An etype without a key at the KDC is left out, with a warning in the
        log. Raises CredentialError for a credential without a password, and the errors of
        `get_tgt`. Source: RFC 4120 4, 5.2.7.5.
        """
        return self._run(lambda: self._account_keys(credential, etypes))

    def make_keytab(
        self,
        credential: Credential,
        *names: Principal | str,
        etypes: Iterable[int] = KEYTAB_ETYPES,
    ) -> Keytab:
        """Return a keytab with the keys and the kvno that the KDC has: see `account_keys`.

        The entries have the `names` (those of the services that the account runs), or by default
        that of the account.
        """
        return _keytab_of(self.account_keys(credential, etypes=etypes), names)

    @staticmethod
    def _dialer(open_connection: dial.OpenConnection) -> dial.Dial:
        return dial.in_thread(open_connection)

    def _ticket_now(
        self, credential: Credential, service: Principal, theirs: bytes
    ) -> ServiceTicket:
        return self.get_ticket(credential, service, user_to_user=theirs)

    def _run(self, make: Callable[[], Exchange[T]], drive: _Drive = blocking.drive) -> T:
        call = self._new_call()
        return run(
            call.exchange(make),
            lambda request: drive(call.ask(request)),
            lambda computation: drive(call.compute(computation)),
            call.question,
        )


class AsyncKdcClient(_Exchanges["AsyncOpenConnection"]):
    """`KdcClient` for asyncio, method for method. Cancelling a call closes its sockets."""

    async def get_tgt(
        self,
        credential: Credential,
        *,
        lifetime: float | None = None,
        renewable: float | None = None,
        forwardable: bool | None = None,
        canonicalize: bool | None = None,
        pac_request: bool | None = None,
        armor: Armor | None = None,
        require: Requirement | None = None,
        proxiable: bool | None = None,
        addresses: Sequence[HostAddress] | None = None,
        start: datetime | None = None,
        service: Target | None = None,
        otp: AskOtp | None = None,
    ) -> ServiceTicket:
        """Like `KdcClient.get_tgt`."""
        self._prepare(credential, "get_tgt({})")
        options = self._as_options(
            credential,
            lifetime,
            renewable,
            forwardable,
            canonicalize,
            pac_request,
            armor=armor,
            require=require,
            proxiable=proxiable,
            addresses=addresses,
            start=start,
            service=service,
            otp=otp,
        )
        return await self._run(lambda: self._get_tgt(credential, options))

    async def get_ticket(
        self,
        credential: Credential,
        target: Target,
        *,
        lifetime: float | None = None,
        on_behalf_of: ServiceTicket | None = None,
        user_to_user: ServiceTicket | bytes | None = None,
    ) -> ServiceTicket:
        """Like `KdcClient.get_ticket`."""
        return await self._run(
            lambda: self._get_ticket(
                credential,
                target,
                lifetime=lifetime,
                on_behalf_of=on_behalf_of,
                user_to_user=user_to_user,
            )
        )

    async def impersonate(
        self,
        service_credential: Credential,
        user: Principal | str | None,
        *,
        certificate: bytes | None = None,
        service: Target | None = None,
    ) -> ServiceTicket:
        """Like `KdcClient.impersonate`."""
        return await self._run(
            lambda: self._impersonate(service_credential, user, certificate, service)
        )

    async def relay(self, realm: str, message: bytes) -> bytes:
        """Like `KdcClient.relay`."""
        return await self._run(lambda: self._relay(realm, message))

    async def renew(self, credential: Credential) -> ServiceTicket:
        """Like `KdcClient.renew`."""
        return await self._run(lambda: self._renew(credential))

    async def validate(self, credential: Credential) -> ServiceTicket:
        """Like `KdcClient.validate`."""
        return await self._run(lambda: self._validate(credential))

    async def forward_tgt(
        self, credential: Credential, addresses: tuple[HostAddress, ...] = ()
    ) -> ServiceTicket:
        """Like `KdcClient.forward_tgt`."""
        return await self._run(lambda: self._forward_tgt(credential, addresses))

    async def proxy(
        self, credential: Credential, target: Target, addresses: Sequence[HostAddress] = ()
    ) -> ServiceTicket:
        """Like `KdcClient.proxy`."""
        return await self._run(lambda: self._proxy(credential, target, addresses))

    async def change_password(self, credential: Credential, new: str | bytes) -> None:
        """Like `KdcClient.change_password`."""
        _check_new(new)
        self._prepare(credential, "change_password({}, new)")
        changed = self._changed(partial(self._change_password, credential, new, None))
        del new  # this frame stays in tracebacks
        await changed

    async def set_password(
        self, credential: Credential, principal: Principal | str, new: str | bytes
    ) -> None:
        """Like `KdcClient.set_password`."""
        _check_new(new)
        self._prepare(credential, "set_password({}, principal, new)")
        target = _in_realm_of(credential, principal)
        changed = self._changed(partial(self._change_password, credential, new, target))
        del new
        await changed

    async def _changed(self, make: Callable[[], Exchange[None]]) -> None:
        try:
            await self._run(make)
        except BaseException as error:
            del make
            forget_locals(error)
            raise

    async def account_keys(
        self, credential: Credential, *, etypes: Iterable[int] = KEYTAB_ETYPES
    ) -> list[AccountKey]:
        """Like `KdcClient.account_keys`."""
        return await self._run(lambda: self._account_keys(credential, etypes))

    async def make_keytab(
        self,
        credential: Credential,
        *names: Principal | str,
        etypes: Iterable[int] = KEYTAB_ETYPES,
    ) -> Keytab:
        """Like `KdcClient.make_keytab`."""
        return _keytab_of(await self.account_keys(credential, etypes=etypes), names)

    @staticmethod
    def _dialer(open_connection: AsyncOpenConnection) -> dial.Dial:
        from purekrb.io import asyncio

        return asyncio.in_task(open_connection)

    def _ticket_now(
        self, credential: Credential, service: Principal, theirs: bytes
    ) -> ServiceTicket:
        import asyncio

        try:
            asyncio.get_running_loop()
        except RuntimeError:  # as it should be: this is a thread without a loop
            return asyncio.run(self.get_ticket(credential, service, user_to_user=theirs))
        raise ContextError(
            "this step of a user-to-user context waits for a KDC, and the event loop with it: let a "
            "thread call it, as in await asyncio.to_thread(context.step, token)"
        )

    async def _run(self, make: Callable[[], Exchange[T]]) -> T:
        from purekrb.io import asyncio  # imported here: a blocking caller does not need it

        call = self._new_call()
        return await run_async(
            call.exchange(make),
            lambda request: asyncio.drive(call.ask(request)),
            lambda computation: asyncio.drive(call.compute(computation)),
            call.question_async,
        )


def initiate(
    target: Target,
    credential: Credential | None = None,
    config: Config | None = None,
    *,
    flags: Flag = Flag.DEFAULT,
    delegate: Delegate = False,
    mechanism: str = "kerberos",
    channel_bindings: ChannelBindings | None = None,
    max_token: int = MAX_TOKEN,
    timeout: float = DEFAULT_TIMEOUT,
    open_connection: dial.OpenConnection | None = None,
) -> Initiator:
    """Return the initiator of a context with the service `target`, after getting its tickets.

    Without a `credential`, it is `Credential.default` for this service.

    With the flag DELEG, or `delegate` true, it also gets a forwarded TGT if the KDC marks the
    service as OK-AS-DELEGATE; with `delegate` "always", whatever the KDC marks, unless the
    configuration has `enforce_ok_as_delegate`. `timeout` (seconds)
    covers all requests to KDCs; `open_connection` is that of KdcClient. For `max_token`, see
    `Initiator`. Raises the errors of
    KdcClient.get_ticket, PolicyError for delegation without MUTUAL, and CredentialError if
    delegation needs a forwardable TGT that the credential does not have.

    With `mechanism` "user-to-user" (by SPNEGO: "negotiate-user-to-user"), `target` authenticates
    itself by its TGT, which it sends first; the second `step` asks a KDC, in `timeout` seconds.
    """
    check_mechanism(mechanism, INITIATORS)  # before a KDC is asked
    client = KdcClient(config, timeout=timeout, open_connection=open_connection)
    credential = client._given(credential, target, "initiate(target, {})")
    return client._run(
        lambda: client._initiate(
            target, credential, flags, delegate, mechanism, channel_bindings, max_token
        )
    )


async def initiate_async(
    target: Target,
    credential: Credential | None = None,
    config: Config | None = None,
    *,
    flags: Flag = Flag.DEFAULT,
    delegate: Delegate = False,
    mechanism: str = "kerberos",
    channel_bindings: ChannelBindings | None = None,
    max_token: int = MAX_TOKEN,
    timeout: float = DEFAULT_TIMEOUT,
    open_connection: AsyncOpenConnection | None = None,
) -> Initiator:
    """Like `initiate`, for asyncio."""
    check_mechanism(mechanism, INITIATORS)  # before a KDC is asked
    client = AsyncKdcClient(config, timeout=timeout, open_connection=open_connection)
    credential = client._given(credential, target, "initiate(target, {})")
    return await client._run(
        lambda: client._initiate(
            target, credential, flags, delegate, mechanism, channel_bindings, max_token
        )
    )
