"""The AS exchange: a client proves to the KDC who it is and gets its first ticket. Source: RFC 4120 3.1, RFC 6806.

`as_exchange` is a generator: it yields requests for a KDC, is sent the replies and returns the ticket. With a password
it also yields a `KeyDerivation` where the KDC names so many iterations that the runner must mind its deadline or loop.
"""

from __future__ import annotations

from collections.abc import Collection, MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    EncryptionType,
    ErrorCode,
    KdcOptions,
    KeyUsage,
    NameType,
    PaDataType,
    TicketFlags,
    error_name,
)
from purekrb.credentials.ticket import ServiceTicket
from purekrb.crypto.profile import MAX_ITERATIONS, QUICK_ITERATIONS, iterations
from purekrb.errors import (
    ClockSkewError,
    CredentialError,
    IntegrityError,
    KdcEtypeError,
    KerberosError,
    PolicyError,
    PreauthFailedError,
    ProtocolError,
    UnsupportedError,
)
from purekrb.exchanges.kdc_reply import About, check_clock, check_reply, kdc_error, new_nonce, open_reply
from purekrb.exchanges.runner import Exchange, KdcRequest, KeyDerivation
from purekrb.keys import EncryptionKey, etype_name, etype_names
from purekrb.messages.ap import Checksum, EncryptedData, HostAddress, KrbError
from purekrb.messages.kdc import (
    AsRep,
    AsReq,
    EncKdcRepPart,
    EtypeInfo2,
    EtypeInfo2Entry,
    KdcReqBody,
    MethodData,
    PaData,
    PaEncTsEnc,
    PaPacRequest,
    TgsRep,
    decode_kdc_reply,
)
from purekrb.names import Principal
from purekrb.system import Clock, RandomBytes, now, random_bytes
from purekrb.trace import Log

__all__ = ["ClientCredential", "AsOptions", "as_exchange"]

log = Log("purekrb.kdc")

#: Requests in one exchange, whatever the KDC answers.
MAX_REQUESTS = 16
#: Client referrals in one exchange.
MAX_REFERRALS = 10
#: PBKDF2 iterations below which a count is refused, since it would make the password cheap to guess for whoever
#: forged it: the defaults of the encryption types. Source: RFC 3962 4, RFC 8009 4.
MIN_ITERATIONS = {17: 4096, 18: 4096, 19: 32768, 20: 32768}
#: PBKDF2 iterations that are accepted unless the caller says otherwise: less than a second of work.
DEFAULT_MAX_ITERATIONS = 1 << 20

#: What the KDC says when it wants (more) pre-authentication.
_PREAUTH_WANTED = (ErrorCode.KDC_ERR_PREAUTH_REQUIRED, ErrorCode.KDC_ERR_MORE_PREAUTH_DATA_REQUIRED)
#: What the KDC says of a timestamp that it did not ask for where it wants another one, or none. MIT's KDC says
#: PREAUTH_FAILED and counts that where the account has no key of the etype, Heimdal's and Samba's ETYPE_NOSUPP.
_STAMP_REFUSED = (
    ErrorCode.KDC_ERR_PREAUTH_FAILED,
    ErrorCode.KDC_ERR_ETYPE_NOSUPP,
    ErrorCode.KDC_ERR_PADATA_TYPE_NOSUPP,
    ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
)
_ENC_PA_REP = int(TicketFlags.ENC_PA_REP)  # a member of an enum costs five calls where it meets a number


class ClientCredential(Protocol):
    """Who asks for a ticket, and the long-term keys that prove it."""

    @property
    def principal(self) -> Principal:
        """The client, with its realm."""

    @property
    def etypes(self) -> tuple[int, ...]:
        """The encryption types that `key_for` has keys of."""

    @property
    def needs_salt(self) -> bool:
        """Whether `key_for` needs what the KDC names, as with a password; keys do not."""

    def key_for(self, etype: int, salt: bytes, params: bytes | None) -> EncryptionKey | None:
        """Return the key of an etype; salt and params are those of string-to-key, for who has a password."""


@dataclass(frozen=True, slots=True)
class AsOptions:
    """What to ask for in an AS exchange. Lifetimes, `clock_skew` and `max_offset` are in seconds.

    service: the service, by default the ticket-granting service of the client's realm.
    starttime: when the ticket shall become valid (a postdated ticket); None: now.
    canonicalize: let the KDC correct the client's name and refer to another realm (RFC 6806).
    referral_realms: the realms that the client may be referred to. Anyone can forge a referral, and the client sends
        its proof of identity there, at which the other side can guess.
    addresses: bind the ticket to these addresses; none: use from anywhere.
    pac_request: ask for a PAC (True), for none (False), or leave it to the KDC (None).
    etypes: what to offer, in order of preference; RC4 is offered last, and only if it is named here.
    require_preauth: refuse a reply that the KDC gives to whoever asks, without a proof of identity.
    allow_encrypted_timestamp: False refuses PA-ENC-TIMESTAMP, which lets an eavesdropper guess at the password. Where
        it is permitted, who has a key sends it at once, without being asked (but not with `require_preauth`, which
        is about what the KDC asks for).
    timesync: where the KDC's clock differs by more than `clock_skew`, go by the KDC's for this realm, up to
        `max_offset`; the clock of this machine is never set. False: refuse.
    max_iterations: the PBKDF2 iterations up to which a password's key is derived, at most 2^24. Anyone can forge the
        error that names the count.
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
    allow_encrypted_timestamp: bool = True
    clock_skew: float = 300.0
    timesync: bool = True
    max_offset: float = 86400.0
    max_iterations: int = DEFAULT_MAX_ITERATIONS


def as_exchange(
    credential: ClientCredential,
    options: AsOptions | None = None,
    *,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
    offsets: MutableMapping[str, timedelta] | None = None,
) -> Exchange[ServiceTicket]:
    """Return the initial ticket of `credential`, by default a TGT.

    `offsets` remembers, by realm, by how much the KDC's clock is ahead of `clock`, so that later exchanges start
    with it. Raises KdcError for what the KDC refuses, PreauthFailedError for a wrong password or key, ProtocolError
    or DecodeError for a reply that does not fit the request, PolicyError for one that `options` do not permit.
    """
    return _AsExchange(credential, options or AsOptions(), clock, random, {} if offsets is None else offsets).run()


class _AsExchange:
    """The state of one AS exchange: what the KDC's errors have taught it so far."""

    def __init__(
        self,
        credential: ClientCredential,
        options: AsOptions,
        clock: Clock,
        random: RandomBytes,
        offsets: MutableMapping[str, timedelta],
    ) -> None:
        self.credential = credential
        self.options = options
        self.clock = clock
        self.random = random
        self.offsets = offsets
        self.referral_realms = frozenset(options.referral_realms)
        self.client = credential.principal
        self.name = self.client.name
        self.etypes = _offered_etypes(credential, options)
        # A KRB-ERROR that names RC4 alone may be forged: no timestamp under RC4 while anything else is offered.
        self.stamp_etypes = tuple(e for e in self.etypes if e != EncryptionType.RC4_HMAC) or self.etypes
        self.referrals = [self.client.realm]
        self.start_over()

    def start_over(self) -> None:
        """Forget what belongs to one realm."""
        self.service = self.options.service or Principal(("krbtgt", self.realm), self.realm, NameType.SRV_INST)
        self.offset = self.offsets.get(self.realm, timedelta(0))
        self.clock_corrected = False
        self.refused: tuple[int, KrbError] | None = None  # the etype of an unasked timestamp, and the KDC's answer
        self.forget_preauth()

    def forget_preauth(self) -> None:
        self.key: EncryptionKey | None = None  # the client's key, once it is known which
        self.unasked = False  # whether the KDC has not asked for a timestamp with that key
        self.info: tuple[EtypeInfo2Entry, ...] = ()
        self.cookie: PaData | None = None

    @property
    def realm(self) -> str:
        return self.referrals[-1]

    @property
    def canonicalize(self) -> bool:
        return self.options.canonicalize or self.client.name_type == NameType.ENTERPRISE

    def run(self) -> Exchange[ServiceTicket]:
        if not self.realm:
            raise CredentialError(f"the client {self.client} has no realm: write it as name@REALM")
        about = About("AS", self.client, self.service)
        yield from self.anticipate()
        for _ in range(MAX_REQUESTS):
            body = self.body()
            request = AsReq(self.padata(), body).encode()
            if log.on():
                log.debug(
                    "AS-REQ to %s: %s asks for %s, %s, etypes %s",
                    self.realm,
                    self.client,
                    self.service,
                    f"PA-ENC-TIMESTAMP with {etype_name(self.key.etype)}" if self.key else "no pre-authentication",
                    etype_names(body.etype),
                )
            answer = yield KdcRequest(self.realm, request)
            try:
                reply = decode_kdc_reply(answer)
                if isinstance(reply, KrbError):
                    log.debug("KRB-ERROR from %s: %s", self.realm, error_name(reply.error_code))
                    yield from self.learn(reply, about)
                    continue
                if isinstance(reply, TgsRep):
                    raise ProtocolError("the KDC answered an AS-REQ with a TGS-REP")
                return (yield from self.accept(reply, request, body, about))
            except KerberosError as error:
                log.debug("AS exchange failed: %s", error)
                raise
        raise ProtocolError(f"{about}: the KDC still asks for more after {MAX_REQUESTS} requests")

    # -- the request

    def body(self) -> KdcReqBody:
        options = self.options
        kdc_options = 0
        start = self.kdc_time().replace(microsecond=0)
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
        ):
            if wanted:
                kdc_options |= int(option)
        return KdcReqBody(
            kdc_options=kdc_options,
            cname=self.name,
            realm=self.realm,
            sname=self.service.name,
            from_=from_,
            till=start + timedelta(seconds=options.lifetime),
            rtime=rtime,
            nonce=new_nonce(self.random),
            etype=self.etypes,
            addresses=options.addresses or None,
        )

    def padata(self) -> tuple[PaData, ...]:
        padata = []
        if self.cookie is not None:
            padata.append(self.cookie)
        if self.key is not None:
            time = self.kdc_time()
            stamp = PaEncTsEnc(time.replace(microsecond=0), time.microsecond).encode()
            confounder = self.random(crypto.profile_of(self.key.etype).confounder_size)
            cipher = crypto.encrypt(self.key, KeyUsage.AS_REQ_PA_ENC_TIMESTAMP, stamp, confounder)
            padata.append(PaData(PaDataType.ENC_TIMESTAMP, EncryptedData(self.key.etype, None, cipher).encode()))
        if self.options.pac_request is not None:
            padata.append(PaData(PaDataType.PAC_REQUEST, PaPacRequest(self.options.pac_request).encode()))
        padata.append(PaData(PaDataType.ENC_PA_REP, b""))
        return tuple(padata)

    def kdc_time(self) -> datetime:
        return self.clock() + self.offset

    def anticipate(self) -> Exchange[None]:
        """Take the key that the KDC will ask for, if there is nothing to learn from it first. Source: RFC 4120 5.2.7.2.

        This spares an exchange. After a referral, which anyone can forge, the other realm's KDC has to ask.
        """
        options = self.options
        if options.allow_encrypted_timestamp and not options.require_preauth and not self.credential.needs_salt:
            self.key = yield from self.client_key(self.stamp_etypes[0])
            self.unasked = True

    # -- KRB-ERROR

    def learn(self, error: KrbError, about: About) -> Exchange[None]:
        """Take from a KRB-ERROR what the next request needs, or raise what it means."""
        code = error.error_code
        if code in _PREAUTH_WANTED:
            yield from self.choose_preauth(error, about)
        elif code == ErrorCode.KDC_ERR_PREAUTH_EXPIRED:
            self.forget_preauth()
        elif code == ErrorCode.KRB_AP_ERR_SKEW and self.options.timesync and not self.clock_corrected:
            self.correct_clock(error, about)
        elif code == ErrorCode.KDC_ERR_WRONG_REALM and self.canonicalize and error.crealm:
            self.follow_referral(error.crealm, about)
        elif self.unasked and self.key is not None and code in _STAMP_REFUSED:
            self.refused = (self.key.etype, error)
            self.forget_preauth()
        else:
            raise kdc_error(error, about)

    def choose_preauth(self, error: KrbError, about: About) -> Exchange[None]:
        methods = MethodData.decode(error.e_data or b"\x30\x00").entries
        if not self.options.allow_encrypted_timestamp:
            raise PolicyError(
                f"{about}: the KDC asks for pre-authentication, and PA-ENC-TIMESTAMP, the only kind that this "
                "credential can give, is not permitted; permit it, or use a credential with another kind"
            )
        types = [method.padata_type for method in methods]
        if PaDataType.ENC_TIMESTAMP not in types:
            raise UnsupportedError(
                f"{about}: the KDC does not take PA-ENC-TIMESTAMP, only pre-authentication of the types {types}"
            )
        self.info = _etype_info2(methods)
        self.cookie = next((m for m in methods if m.padata_type == PaDataType.FX_COOKIE), None)
        offered = {entry.etype for entry in self.info}
        etype = next((e for e in self.stamp_etypes if e in offered), None) if self.info else self.stamp_etypes[0]
        if etype is None:
            advice = "set the account's password anew so that it gets AES keys"
            if EncryptionType.RC4_HMAC in offered.intersection(self.etypes):
                advice += "; no proof is made with rc4-hmac unless it is offered alone (default_tkt_enctypes)"
            raise KdcEtypeError(
                f"{about}: the KDC has keys of {etype_names(sorted(offered))} only, offered were "
                f"{etype_names(self.etypes)}; {advice}",
                code=ErrorCode.KDC_ERR_ETYPE_NOSUPP,
                krb_error=error,
            )
        if self.refused is not None and etype == self.refused[0]:
            raise kdc_error(self.refused[1], about)  # the same key again would fail again, and count twice
        if log.on():
            log.debug(
                "%s takes pre-authentication of the types %s: PA-ENC-TIMESTAMP with %s is chosen",
                self.realm,
                ", ".join(map(str, types)),
                etype_name(etype),
            )
        self.key = yield from self.client_key(etype)
        self.unasked = False

    def correct_clock(self, error: KrbError, about: About) -> None:
        offset = error.stime + timedelta(microseconds=error.susec) - self.clock()
        if abs(offset) > timedelta(seconds=self.options.max_offset):
            raise kdc_error(error, about)  # anyone can forge it: no timestamp for a time as far off as this
        log.debug("the clock of %s is %+.0f s off ours: trying again by its time", self.realm, offset.total_seconds())
        self.offset = offset
        self.clock_corrected = True

    def follow_referral(self, realm: str, about: About) -> None:
        if realm in self.referrals:
            raise ProtocolError(f"{about}: the KDCs refer the client in a circle: {[*self.referrals, realm]}")
        if len(self.referrals) > MAX_REFERRALS:
            raise ProtocolError(f"{about}: more than {MAX_REFERRALS} client referrals: {self.referrals}")
        if realm not in self.referral_realms:
            raise PolicyError(
                f"{about}: the KDC of {self.realm} refers the client to {realm!r}, which is not a realm that it may be "
                "referred to; nothing was sent there, as anyone can forge this answer. If the account lives there, "
                "name the realm in krb5.conf ([realms] or [domain_realm]) or in Config(referral_realms=...)"
            )
        log.debug("%s refers the client %s to %s", self.realm, self.client, realm)
        self.referrals.append(realm)
        self.start_over()

    # -- the client's key

    def client_key(self, etype: int) -> Exchange[EncryptionKey]:
        """Return the long-term key for `etype` with the salt that the KDC named, else the default one."""
        if self.credential.needs_salt:
            key = yield from self.derived_key(etype)
        else:
            key = self.credential.key_for(etype, b"", None)
        if key is None:
            raise CredentialError(f"there is no key of {etype_name(etype)} for {self.client}: export the keytab again")
        return key

    def derived_key(self, etype: int) -> Exchange[EncryptionKey | None]:
        """Return the key of a password, after bounding what the KDC, or whoever answers for it, makes of the work."""
        entry = next((e for e in self.info if e.etype == etype), EtypeInfo2Entry(etype, None, None))
        salt = entry.salt
        if salt is None:  # RFC 4120 4: the realm and the components of the name, one after the other
            salt = (self.realm + "".join(self.client.components)).encode()
        if etype not in MIN_ITERATIONS:
            return self.credential.key_for(etype, salt, None)
        least, most = MIN_ITERATIONS[etype], self.options.max_iterations
        count = iterations(entry.s2kparams, least)
        named = f"the KDC names a PBKDF2 iteration count of {count} for {etype_name(etype)}"
        if count < least:
            raise PolicyError(
                f"{named}; at least {least} is needed: a forged answer, or the account's password must be set anew"
            )
        if count > most:
            raise PolicyError(
                f"{named}; at most {most} is permitted: a forged answer, or the account needs a higher limit "
                f"(Config(max_iterations=...), up to {MAX_ITERATIONS})"
            )
        derive = partial(self.credential.key_for, etype, salt, entry.s2kparams)
        if count <= QUICK_ITERATIONS:
            return derive()
        derivation = KeyDerivation(derive, count)
        yield derivation
        return derivation.key

    # -- AS-REP

    def accept(self, reply: AsRep, request: bytes, body: KdcReqBody, about: About) -> Exchange[ServiceTicket]:
        """Return the ticket of the reply after every check of RFC 4120 3.1.5 and RFC 6806 6 and 11."""
        etype = reply.enc_part.etype
        if etype not in body.etype:
            raise ProtocolError(
                f"{about}: the reply is encrypted with {etype_name(etype)}, which was not offered",
                expected=etype_names(body.etype),
                got=etype_name(etype),
            )
        proven = self.key is not None and not self.unasked
        if not proven and self.options.require_preauth:
            raise PolicyError(
                f"{about}: the KDC gave a ticket without pre-authentication, which is not permitted: anyone can get "
                "such a reply and guess at the password offline; have the account require pre-authentication"
            )
        if self.key is None or self.key.etype != etype:
            self.info = _etype_info2(reply.padata or ()) or self.info
            self.key = yield from self.client_key(etype)
        try:
            part = open_reply(self.key, KeyUsage.AS_REP_ENC_PART, reply.enc_part, body.nonce)
        except IntegrityError:
            raise PreauthFailedError(
                f"{about}: the reply does not decrypt with the client's key of {etype_name(etype)}: the password is "
                "wrong, or the keytab is out of date",
                code=ErrorCode.KDC_ERR_PREAUTH_FAILED,
            ) from None
        verified = self.vouches_for_request(part, request)
        if etype == EncryptionType.RC4_HMAC and not (verified or self.etypes == (etype,)):
            # Whoever strips AES from the request, which nothing protects but the checksum, gets just this reply.
            raise PolicyError(
                f"{about}: the reply is encrypted with rc4-hmac although AES was offered, and the KDC does not "
                "say what it was offered (CVE-2022-33647); set the account's password anew, or offer rc4-hmac alone"
            )
        self.check_names(reply, part, verified)
        offset = self.measure_offset(part.authtime, about)
        ticket = check_reply(
            body,
            reply,
            part,
            addresses=self.options.addresses,
            offset=offset,
        )
        if part.starttime is not None and body.from_ is None:
            check_clock(part.starttime, self.clock() + offset, self.options.clock_skew, about)
        self.offsets[self.realm] = offset
        if log.on():
            log.debug(
                "AS-REP from %s: ticket for %s until %s, session key %s, encrypted with the client's key %s kvno %s; "
                "clock offset %+.0f s",
                self.realm,
                ticket.service,
                ticket.endtime,
                etype_name(ticket.session_key.etype),
                etype_name(etype),
                reply.enc_part.kvno,
                offset.total_seconds(),
            )
        return ticket

    def vouches_for_request(self, part: EncKdcRepPart, request: bytes) -> bool:
        """Return whether the KDC vouches for the request as it got it. Source: RFC 6806 11."""
        if not part.flags & _ENC_PA_REP or self.key is None:
            return False
        padata = [p for p in part.encrypted_pa_data or () if p.padata_type == PaDataType.ENC_PA_REP]
        if not padata:
            raise ProtocolError("the KDC claims to have sent the checksum of the request, but there is none")
        checksum = Checksum.decode(padata[0].padata_value)
        if checksum.cksumtype != crypto.profile_of(self.key.etype).checksum_type:
            raise ProtocolError(f"the checksum of the request is of the type {checksum.cksumtype}, not the key's own")
        try:
            crypto.verify_checksum(self.key, KeyUsage.AS_REQ_ENC_PA_REP, request, checksum.checksum)
        except IntegrityError:
            raise ProtocolError(
                "the KDC got another request than was sent: someone on the way changed it; try over another network"
            ) from None
        return True

    def check_names(self, reply: AsRep, part: EncKdcRepPart, verified: bool) -> None:
        """Raise ProtocolError unless client and service are those asked for, or canonical forms the KDC vouches for."""
        client, got_client = self.name.principal(self.realm), reply.cname.principal(reply.crealm)
        service, got_service = self.service, part.sname.principal(part.srealm)
        if (client, service) == (got_client, got_service):
            return
        hint = "realm names are case-sensitive; other names are taken only with canonicalization"
        if not (self.canonicalize and verified):
            # Without the checksum the client's name, which is not encrypted, may be anyone's work.
            if client != got_client:
                raise ProtocolError(f"the reply is for another client: {hint}", expected=client, got=got_client)
            raise ProtocolError(f"the reply is for another service: {hint}", expected=service, got=got_service)
        canonical = Principal(("krbtgt", reply.crealm), reply.crealm)
        if service != got_service and not (service.components[0] == "krbtgt" and got_service == canonical):
            raise ProtocolError(
                "a canonical service name can only be that of the ticket-granting service",
                expected=service,
                got=got_service,
            )

    def measure_offset(self, authtime: datetime, about: About) -> timedelta:
        """Return the KDC's clock minus ours, zero where they agree well enough; authtime is authentic by now."""
        clock = self.clock()
        if not self.options.timesync:
            check_clock(authtime, clock, self.options.clock_skew, about)
            return timedelta(0)
        offset = authtime - clock
        if abs(offset) > timedelta(seconds=self.options.max_offset):
            raise ClockSkewError(
                f"{about}: the KDC's clock is {offset.total_seconds():+.0f} s off this machine's, more than the "
                f"{self.options.max_offset:.0f} s that are bridged; set this machine's clock",
                code=ErrorCode.KRB_AP_ERR_SKEW,
            )
        # Services allow for `clock_skew`; a difference of a tenth of it can be the network's, and is left alone.
        return offset if abs(offset) > timedelta(seconds=self.options.clock_skew / 10) else timedelta(0)


def _offered_etypes(credential: ClientCredential, options: AsOptions) -> tuple[int, ...]:
    """Return the etypes that are permitted and that the client has keys of, RC4 last."""
    possible = credential.etypes
    etypes = tuple(e for e in dict.fromkeys(options.etypes) if e in possible)
    if not etypes:
        if not possible:
            raise CredentialError(f"{credential.principal} has neither a valid ticket nor a key: run kinit first")
        raise PolicyError(
            f"{credential.principal} has keys of {etype_names(possible)} only; permitted are "
            f"{etype_names(options.etypes)}: export AES keys, or permit those"
        )
    return tuple(sorted(etypes, key=lambda e: e == EncryptionType.RC4_HMAC))


def _etype_info2(padata: tuple[PaData, ...]) -> tuple[EtypeInfo2Entry, ...]:
    return next(
        (EtypeInfo2.decode(p.padata_value).entries for p in padata if p.padata_type == PaDataType.ETYPE_INFO2), ()
    )
