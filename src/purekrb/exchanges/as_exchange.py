"""The AS exchange: a client proves its identity to the KDC and gets its first ticket.

Source: RFC 4120 3.1, RFC 6806.

`as_exchange` is a generator: it yields requests for a KDC, is sent the replies, and returns the
ticket. With a password, it also yields a `Computation` if the KDC names so many iterations that
the runner must watch its deadline or keep its event loop free.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, MutableMapping, MutableSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    EncryptionType,
    ErrorCode,
    KdcOptions,
    KeyUsage,
    NameType,
    PaDataType,
    Requirement,
    TicketFlags,
    error_name,
)
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import (
    ArmorRequiredError,
    ClockSkewError,
    CredentialError,
    IntegrityError,
    KdcEtypeError,
    KerberosError,
    PolicyError,
    PreauthFailedError,
    ProtocolError,
)
from purekrb.exchanges.kdc_reply import (
    ExchangeLabel,
    check_clock,
    check_reply,
    kdc_error,
    new_nonce,
    open_reply,
)
from purekrb.exchanges.preauth.choice import HOW_TO_ARMOR, MECHANISMS, Preauth
from purekrb.exchanges.preauth.client_keys import ClientCredential, ClientKeys
from purekrb.exchanges.preauth.mechanism import Mechanism, Strength
from purekrb.exchanges.runner import Exchange, KdcRequest
from purekrb.exchanges.wire import ArmorSource, Plain
from purekrb.keys import EncryptionKey, etype_name, etype_names
from purekrb.log import Log
from purekrb.messages.ap import Checksum, HostAddress, KrbError
from purekrb.messages.kdc import (
    AsRep,
    AsReq,
    EncKdcRepPart,
    KdcReqBody,
    PaData,
    PaPacRequest,
    TgsRep,
    decode_kdc_reply,
)
from purekrb.names import ANONYMOUS_REALM, Principal
from purekrb.records import record, replace
from purekrb.system import Clock, RandomBytes, now, random_bytes

__all__ = [
    "AccountKey",
    "AsOptions",
    "ClientCredential",
    "account_keys",
    "account_salts",
    "as_exchange",
]

log = Log("purekrb.kdc")

#: The most requests in one exchange, whatever the KDC answers.
MAX_REQUESTS = 16
#: The most client referrals in one exchange.
MAX_REFERRALS = 10
#: The most PBKDF2 iterations that are accepted by default: less than a second of work.
DEFAULT_MAX_ITERATIONS = 1 << 20

#: A plain number: the operators of an IntFlag cost five calls.
_ENC_PA_REP = int(TicketFlags.ENC_PA_REP)
_ANONYMOUS = int(TicketFlags.ANONYMOUS)


@dataclass(frozen=True, slots=True)
class AsOptions:
    """Options of an AS exchange. Lifetimes, `clock_skew` and `max_offset` are in seconds.

    service: the service, in the client's realm if it names none; by default, the ticket-granting
        service of that realm.
    starttime: when the ticket becomes valid (a postdated ticket); None: now.
    canonicalize: let the KDC correct the client's name and refer to another realm (RFC 6806).
    referral_realms: the realms to which a KDC may refer the client. The client sends its proof of
        identity there, by which the password can be guessed; and anyone can forge a referral.
    addresses: bind the ticket to these addresses; if empty, it is valid from anywhere.
    pac_request: ask for a PAC (True), for no PAC (False), or leave it to the KDC (None).
    etypes: the encryption types to offer, in order of preference. RC4 is offered last, and only if
        it is named here.
    require_preauth: refuse a reply that the KDC gives without a proof of identity.
    require: the floor. "fast": FAST, or nothing is sent. "strong": FAST, or a mechanism that is
        strong by itself (SPAKE, PKINIT); then also `require_preauth`.
    armor: returns a TGT for a realm, to make the armor of FAST of; None: no FAST.
    allow_encrypted_timestamp: False refuses PA-ENC-TIMESTAMP outside of FAST, because an
        eavesdropper can then guess at the password. If it is permitted, a client with a key at hand
        sends it in the first request; but not with `require_preauth`, which depends on what the
        KDC asks for.
    timesync: if the KDC's clock differs by more than `clock_skew`, use the KDC's time for this
        realm, up to `max_offset`; the clock of this machine is never set. False: refuse.
    max_iterations: the most PBKDF2 iterations for the key of a password, at most 2^24. Anyone can
        forge the error that names the count.
    mechanisms: the kinds of pre-authentication to use, strongest first.
    """

    service: Principal | None = None
    lifetime: float = 86400.0
    renewable_lifetime: float | None = None
    starttime: datetime | None = None
    forwardable: bool = False
    proxiable: bool = False
    canonicalize: bool = False
    referral_realms: Collection[str] = ()
    addresses: tuple[HostAddress, ...] = ()
    pac_request: bool | None = None
    etypes: tuple[int, ...] = DEFAULT_ETYPES
    require_preauth: bool = False
    require: Requirement | None = None
    armor: ArmorSource | None = None
    allow_encrypted_timestamp: bool = True
    clock_skew: float = 300.0
    timesync: bool = True
    max_offset: float = 86400.0
    max_iterations: int = DEFAULT_MAX_ITERATIONS
    mechanisms: tuple[Mechanism, ...] = MECHANISMS


def as_exchange(
    credential: ClientCredential,
    options: AsOptions | None = None,
    *,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
    offsets: MutableMapping[str, timedelta] | None = None,
    fast_realms: MutableSet[str] | None = None,
) -> Exchange[ServiceTicket]:
    """Return the initial ticket of `credential`; by default, a TGT.

    `offsets` maps a realm to the time by which its KDC's clock is ahead of `clock`, and
    `fast_realms` are those whose KDC has announced FAST. Both are updated for later exchanges.
    Raises KdcError if the KDC refuses, PreauthFailedError for a wrong password
    or key, ProtocolError or DecodeError for a reply that does not fit the request, and PolicyError
    for a reply that `options` do not permit, ArmorRequiredError among them.
    """
    refused: list[int] = []
    first: PreauthFailedError | None = None
    while True:
        exchange = _AsExchange(
            credential,
            options or AsOptions(),
            clock,
            random,
            {} if offsets is None else offsets,
            set() if fast_realms is None else fast_realms,
        )
        try:
            return (yield from exchange.run())
        except PreauthFailedError as error:
            if first is None:
                first = error
        if not credential.turn_to_other_keys(refused):
            raise first


@record
class AccountKey:
    """A client's long-term key as its KDC has it: `kvno` (None: not told) and `salt`."""

    client: Principal
    key: EncryptionKey
    kvno: int | None
    salt: bytes


def account_keys(
    credential: ClientCredential,
    etypes: Iterable[int],
    options: AsOptions | None = None,
    *,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
    offsets: MutableMapping[str, timedelta] | None = None,
    fast_realms: MutableSet[str] | None = None,
) -> Exchange[list[AccountKey]]:
    """Return the keys of a password, one for each of `etypes`, with the salt that the KDC names.

    Anyone can forge the answer that names the salt. So each key is proved by a log-in with it. An
    etype of which the account has no key is left out, with a warning in the log. Raises KdcEtypeError
    if that is true of all, and the errors of `as_exchange`.
    """
    found: list[AccountKey] = []
    refused: KdcEtypeError | None = None
    for etype in etypes:
        exchange = _AsExchange(
            credential,
            dataclasses.replace(options or AsOptions(), etypes=(etype,)),
            clock,
            random,
            {} if offsets is None else offsets,
            set() if fast_realms is None else fast_realms,
        )
        try:
            ticket = yield from exchange.run()
        except KdcEtypeError as error:
            refused = error
            log.warning("the account of %s has no key of %s", exchange.client, etype_name(etype))
            continue
        origin = exchange.keys.derived_from
        salt = b"" if origin is None else origin.salt or b""
        key = credential.key_for(etype, salt, None if origin is None else origin.s2kparams)
        if key is not None:
            found.append(AccountKey(ticket.client, key, exchange.kvno, salt))
    if not found and refused is not None:
        raise refused
    return found


class _SaltNamedError(Exception):
    """The KDC has named a salt: the exchange is over."""

    def __init__(self, salt: bytes) -> None:
        super().__init__()
        self.salt = salt


class _Listener:
    """A client that wants to know its salt, and proves nothing."""

    needs_salt = True
    kvno = certificate = kdc_trust = None
    freshness = True

    def __init__(self, principal: Principal, etype: int) -> None:
        self.principal = principal
        self.etypes = (etype,)

    def key_for(self, etype: int, salt: bytes, params: bytes | None) -> EncryptionKey | None:
        raise _SaltNamedError(salt)

    def turn_to_other_keys(self, refused: list[int]) -> bool:
        return False


def account_salts(
    client: Principal,
    etypes: Iterable[int],
    options: AsOptions | None = None,
    *,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
    offsets: MutableMapping[str, timedelta] | None = None,
    fast_realms: MutableSet[str] | None = None,
) -> Exchange[tuple[bytes, ...]]:
    """Return the salts that the KDC names for the keys of `client`, each once.

    Nothing is proved, on either side: anyone can forge the answers. Raises the errors of
    `as_exchange`; an etype of which the account has no key is left out.
    """
    salts = []
    for etype in etypes:
        exchange = _AsExchange(
            _Listener(client, etype),
            dataclasses.replace(options or AsOptions(), etypes=(etype,)),
            clock,
            random,
            {} if offsets is None else offsets,
            set() if fast_realms is None else fast_realms,
        )
        try:
            yield from exchange.run()
        except _SaltNamedError as heard:
            salts.append(heard.salt)
        except KdcEtypeError:
            continue
    return tuple(dict.fromkeys(salts))


class _AsExchange:
    """One AS exchange: the client, and the realm to which it has been referred so far."""

    def __init__(
        self,
        credential: ClientCredential,
        options: AsOptions,
        clock: Clock,
        random: RandomBytes,
        offsets: MutableMapping[str, timedelta],
        fast_realms: MutableSet[str],
    ) -> None:
        self.credential = credential
        self.options = options
        self.clock = clock
        self.random = random
        self.offsets = offsets
        self.fast_realms = fast_realms
        self.client = credential.principal
        self.canonicalize = options.canonicalize or self.client.name_type == NameType.ENTERPRISE
        self.etypes = _offered_etypes(credential, options)
        self.service = self.service_in(self.client.realm)
        self.label = ExchangeLabel("AS", self.client, self.service)
        self.kvno: int | None = None  # that of the client's key, as the reply tells
        self.realms: list[str] = []

    def enter(self, realm: str) -> Exchange[None]:
        """Turn to the KDCs of `realm`, and forget everything that another realm's KDC has said."""
        self.realms.append(realm)
        self.service = self.service_in(realm)
        self.offset = self.offsets.get(realm, timedelta(0))
        self.clock_corrected = False
        self.wire = yield from self.wire_to(realm)
        options, armor_key = self.options, self.wire.armor_key
        keys = ClientKeys(
            self.credential, realm, self.etypes, options.max_iterations, self.label, armor_key
        )
        self.keys = keys
        # In FAST, an eavesdropper learns nothing, whatever the mechanism.
        guessable = options.allow_encrypted_timestamp and options.require is None
        floor = Strength.GUESSABLE if guessable or armor_key else Strength.STRONG
        self.preauth = Preauth(keys, options.mechanisms, floor, self.random)

    def wire_to(self, realm: str) -> Exchange[Plain]:
        """Return how the messages go to the KDCs of `realm`: in an armor, if there is one."""
        options = self.options
        if options.armor is None:
            if options.require == "fast":
                raise ArmorRequiredError(
                    f"{self.label}: FAST is required, but there is no armor; nothing was sent. "
                    + HOW_TO_ARMOR
                )
            return Plain()
        from purekrb.exchanges.fast import Fast, armor_with  # only who has an armor pays for it

        tgt = yield from options.armor(realm)
        # The armor was made by the KDC's clock, and the proof in it goes by the same.
        self.offset = self.offsets.get(realm, tgt.time_offset)
        return Fast(armor_with(tgt, self.clock, self.random), self.label, self.random)

    @property
    def realm(self) -> str:
        return self.realms[-1]

    def service_in(self, realm: str) -> Principal:
        service = self.options.service
        if service is None:
            return Principal(("krbtgt", realm), realm, NameType.SRV_INST)
        return replace(service, realm=service.realm or realm)

    def run(self) -> Exchange[ServiceTicket]:
        if not self.client.realm:
            raise CredentialError(f"the client {self.client} has no realm: write it as name@REALM")
        yield from self.enter(self.client.realm)
        if not self.options.require_preauth:
            # Only in the client's own realm: anyone can forge a referral to another one.
            self.preauth.begin_optimistic()
        for _ in range(MAX_REQUESTS):
            time = self.clock() + self.offset
            body = self.body(time)
            inner = yield from self.padata(body, time)
            padata = self.wire.seal(inner, body, body.encode())
            request = AsReq(padata, body).encode()
            self.log_request(body)
            answer = yield KdcRequest(self.realm, request)
            try:
                reply = decode_kdc_reply(answer)
                if isinstance(reply, KrbError):
                    yield from self.take_error(self.wire.open_error(reply, body.nonce))
                    continue
                if isinstance(reply, TgsRep):
                    raise ProtocolError("the KDC answered an AS-REQ with a TGS-REP")
                return (yield from self.accept(reply, request, body))
            except KerberosError as error:
                log.debug("AS exchange failed: %s", error)
                raise
        raise ProtocolError(
            f"{self.label}: the KDC still asks for more after {MAX_REQUESTS} requests"
        )

    # -- the request

    def body(self, time: datetime) -> KdcReqBody:
        options = self.options
        kdc_options = 0
        start = time.replace(microsecond=0)
        from_ = None
        if options.starttime is not None:
            start = from_ = options.starttime.replace(microsecond=0)
            kdc_options |= int(KdcOptions.ALLOW_POSTDATE | KdcOptions.POSTDATED)
        rtime = None
        if options.renewable_lifetime is not None:
            kdc_options |= int(KdcOptions.RENEWABLE)
            rtime = start + timedelta(seconds=options.renewable_lifetime)
        for wanted, option in (
            (options.forwardable, KdcOptions.FORWARDABLE),
            (options.proxiable, KdcOptions.PROXIABLE),
            (self.canonicalize, KdcOptions.CANONICALIZE),
            (self.client.name.anonymous, KdcOptions.REQUEST_ANONYMOUS),
        ):
            if wanted:
                kdc_options |= int(option)
        return KdcReqBody(
            kdc_options=kdc_options,
            cname=self.client.name,
            realm=self.realm,
            sname=self.service.name,
            from_=from_,
            till=start + timedelta(seconds=options.lifetime),
            rtime=rtime,
            nonce=new_nonce(self.random),
            etype=self.etypes,
            addresses=options.addresses or None,
        )

    def padata(self, body: KdcReqBody, time: datetime) -> Exchange[tuple[PaData, ...]]:
        padata = [*(yield from self.preauth.padata(body, time))]
        if self.options.pac_request is not None:
            padata.append(
                PaData(PaDataType.PAC_REQUEST, PaPacRequest(self.options.pac_request).encode())
            )
        padata.append(PaData(PaDataType.ENC_PA_REP, b""))
        return tuple(padata)

    def log_request(self, body: KdcReqBody) -> None:
        if log.on():
            log.debug(
                "AS-REQ%s to %s: %s asks for %s, %s, etypes %s",
                self.wire,
                self.realm,
                self.client,
                self.service,
                self.preauth.proof or "no pre-authentication",
                etype_names(body.etype),
            )

    # -- KRB-ERROR

    def take_error(self, error: KrbError) -> Exchange[None]:
        """Take the data for the next request from a KRB-ERROR, or raise what it reports."""
        code = error.error_code
        log.debug("KRB-ERROR from %s: %s", self.realm, error_name(code))
        if code == ErrorCode.KRB_AP_ERR_SKEW and self.options.timesync and not self.clock_corrected:
            self.correct_clock(error)
        elif code == ErrorCode.KDC_ERR_WRONG_REALM and self.canonicalize and error.crealm:
            yield from self.follow_referral(error.crealm)
        elif not (yield from self.preauth.take_error(error)):
            raise self.keys.refusal(error)

    def correct_clock(self, error: KrbError) -> None:
        offset = error.stime + timedelta(microseconds=error.susec) - self.clock()
        if abs(offset) > timedelta(seconds=self.options.max_offset):
            # Anyone can forge a KRB-ERROR. A proof for a distant time could be used at that time.
            raise kdc_error(error, self.label)
        log.debug(
            "the clock of %s is %+.0f s off ours: trying again with its time",
            self.realm,
            offset.total_seconds(),
        )
        self.offset = offset
        self.clock_corrected = True

    def follow_referral(self, realm: str) -> Exchange[None]:
        if realm in self.realms:
            raise ProtocolError(
                f"{self.label}: the KDCs refer the client in a circle: {[*self.realms, realm]}"
            )
        if len(self.realms) > MAX_REFERRALS:
            raise ProtocolError(
                f"{self.label}: more than {MAX_REFERRALS} client referrals: {self.realms}"
            )
        if realm not in frozenset(self.options.referral_realms):
            raise PolicyError(
                f"{self.label}: the KDC of {self.realm} refers the client to {realm!r}, which is "
                "not a realm that it may be referred to; nothing was sent there, because anyone "
                "can "
                "forge this answer. If the account lives there, name the realm in krb5.conf "
                "([realms] or [domain_realm]) or in Config(referral_realms=...)"
            )
        log.debug("%s refers the client %s to %s", self.realm, self.client, realm)
        yield from self.enter(realm)

    # -- AS-REP

    def accept(self, reply: AsRep, request: bytes, body: KdcReqBody) -> Exchange[ServiceTicket]:
        """Return the ticket of the reply, after all checks of RFC 4120 3.1.5 and RFC 6806 6, 11."""
        reply = self.wire.open(reply, body.nonce)
        etype = reply.enc_part.etype
        if etype not in body.etype:  # RFC 4120 3.1.3: the KDC takes one from the request
            raise ProtocolError(
                f"{self.label}: the reply is encrypted with {etype_name(etype)}, "
                "which was not offered",
                expected=etype_names(body.etype),
                got=etype_name(etype),
            )
        proof_needed = self.options.require_preauth or self.options.require is not None
        if proof_needed and self.preauth.proof is None:
            raise PolicyError(
                f"{self.label}: the KDC gave a ticket without pre-authentication, which is not "
                "permitted: anyone can get such a reply and guess at the password offline; have "
                "the account require pre-authentication"
            )
        proven = yield from self.preauth.reply_key(reply, request)
        key = self.wire.reply_key(proven)
        try:
            part = open_reply(key, KeyUsage.AS_REP_ENC_PART, reply.enc_part, body.nonce)
        except IntegrityError:
            raise self.keys.wrong_key(
                f"{self.label}: the reply does not decrypt with the key of {etype_name(etype)}"
            ) from None
        self.kvno = reply.enc_part.kvno
        if self.credential.kdc_trust is not None:
            from purekrb.exchanges.preauth.pkinit import check_key_exchange

            check_key_exchange(reply, proven, part.key, anonymous=self.client.name.anonymous)
        verified = _vouches_for_request(part, key, request)
        if verified and any(
            p.padata_type == PaDataType.FX_FAST for p in part.encrypted_pa_data or ()
        ):
            self.fast_realms.add(self.realm)  # RFC 6806 11: this announcement is authentic
        if etype == EncryptionType.RC4_HMAC and not (verified or self.etypes == (etype,)):
            # Only the checksum protects the request (RFC 6806 11). Without it, an attacker may have
            # removed AES from the request to get this reply.
            raise PolicyError(
                f"{self.label}: the reply is encrypted with rc4-hmac although AES was offered, and "
                "the KDC does not confirm the request that it got (CVE-2022-33647); set the "
                "account's "
                "password anew, or offer rc4-hmac alone"
            )
        client = self.client.name.principal(self.realm)
        canonical = self.canonicalize and verified
        _check_names(client, self.service, reply, part, canonical=canonical)
        if client.name.anonymous and not part.flags & _ANONYMOUS:  # RFC 8062 4.1
            raise ProtocolError("the ticket is not marked as that of an anonymous client")
        offset = _clock_offset(part.authtime, self.clock(), self.options, self.label)
        ticket = check_reply(body, reply, part, addresses=self.options.addresses, offset=offset)
        if part.starttime is not None and body.from_ is None:
            check_clock(part.starttime, self.clock() + offset, self.options.clock_skew, self.label)
        self.offsets[self.realm] = offset
        if log.on():
            log.debug(
                "AS-REP from %s: ticket for %s until %s, session key %s, encrypted with the "
                "client's key %s kvno %s; clock offset %+.0f s",
                self.realm,
                ticket.service,
                ticket.endtime,
                etype_name(ticket.session_key.etype),
                etype_name(etype),
                reply.enc_part.kvno,
                offset.total_seconds(),
            )
        return ticket


def _offered_etypes(credential: ClientCredential, options: AsOptions) -> tuple[int, ...]:
    """Return the permitted etypes of which the client has keys, RC4 last."""
    possible = credential.etypes
    etypes = tuple(e for e in dict.fromkeys(options.etypes) if e in possible)
    if not etypes:
        if not possible:
            raise CredentialError(
                f"{credential.principal} has neither a valid ticket nor a key: run kinit first"
            )
        raise PolicyError(
            f"{credential.principal} only has keys of {etype_names(possible)}, but only "
            f"{etype_names(options.etypes)} are permitted: export AES keys, or permit those types"
        )
    return tuple(sorted(etypes, key=lambda e: e == EncryptionType.RC4_HMAC))


def _vouches_for_request(part: EncKdcRepPart, key: EncryptionKey, request: bytes) -> bool:
    """Return whether the KDC confirms that it got `request` unchanged. Source: RFC 6806 11."""
    if not part.flags & _ENC_PA_REP:
        return False
    padata = [p for p in part.encrypted_pa_data or () if p.padata_type == PaDataType.ENC_PA_REP]
    if not padata:
        raise ProtocolError(
            "the KDC claims to have sent the checksum of the request, but there is none"
        )
    checksum = Checksum.decode(padata[0].padata_value)
    if checksum.cksumtype != crypto.profile_of(key.etype).checksum_type:
        raise ProtocolError(
            f"the checksum of the request is of type {checksum.cksumtype}, "
            "which is not that of the key"
        )
    try:
        crypto.verify_checksum(key, KeyUsage.AS_REQ_ENC_PA_REP, request, checksum.checksum)
    except IntegrityError:
        raise ProtocolError(
            "the KDC got another request than was sent: someone on the path changed it; "
            "try again over another network"
        ) from None
    return True


def _check_names(
    client: Principal,
    service: Principal,
    reply: AsRep,
    part: EncKdcRepPart,
    *,
    canonical: bool,
) -> None:
    """Refuse a reply for another client or service; `canonical` permits their canonical names.

    Source: RFC 4120 3.1.5, RFC 6806 6, 11.
    """
    got_client = reply.cname.principal(reply.crealm)
    got_service = part.sname.principal(part.srealm)
    if client.name.anonymous and got_client == replace(client, realm=ANONYMOUS_REALM):
        client = got_client  # RFC 8062 4.1: the realm is hidden, too
    if (client, service) == (got_client, got_service):
        return
    if not canonical:
        # The client's name is not encrypted. Without the checksum, anyone may have changed it.
        hint = "realm names are case-sensitive; other names are accepted only with canonicalization"
        if client != got_client:
            if client.realm != got_client.realm and str(client).lower() == str(got_client).lower():
                hint = f"realm names are case-sensitive; write {got_client}"
            raise ProtocolError(
                f"the reply is for another client: {hint}", expected=client, got=got_client
            )
        raise ProtocolError(
            f"the reply is for another service: {hint}", expected=service, got=got_service
        )
    tgs = Principal(("krbtgt", reply.crealm), reply.crealm)
    if service != got_service and not (service.components[0] == "krbtgt" and got_service == tgs):
        raise ProtocolError(
            "a canonical service name can only be that of the ticket-granting service",
            expected=service,
            got=got_service,
        )


def _clock_offset(
    authtime: datetime, clock: datetime, options: AsOptions, label: ExchangeLabel
) -> timedelta:
    """Return the KDC's clock, which is `authtime`, minus ours; zero if they nearly agree."""
    if not options.timesync:
        check_clock(authtime, clock, options.clock_skew, label)
        return timedelta(0)
    offset = authtime - clock
    if abs(offset) > timedelta(seconds=options.max_offset):
        raise ClockSkewError(
            f"{label}: the KDC's clock is {offset.total_seconds():+.0f} s off this machine's, more "
            f"than the {options.max_offset:.0f} s that are tolerated; set this machine's clock",
            code=ErrorCode.KRB_AP_ERR_SKEW,
        )
    # Services tolerate `clock_skew`. A difference of a tenth of it can be due to the network.
    return offset if abs(offset) > timedelta(seconds=options.clock_skew / 10) else timedelta(0)
