"""One TGS-REQ and its answer. Source: RFC 4120 3.3.2 to 3.3.4."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    EncryptionType,
    ErrorCode,
    KdcOptions,
    KeyUsage,
    MessageType,
    PaDataType,
    TicketFlags,
    error_name,
    flag_names,
)
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import IntegrityError, KdcError, KerberosError, ProtocolError
from purekrb.exchanges.kdc_reply import (
    ExchangeLabel,
    check_clock,
    check_reply,
    kdc_error,
    new_nonce,
    open_reply,
)
from purekrb.exchanges.runner import Exchange, KdcRequest
from purekrb.exchanges.unique_time import unique_now
from purekrb.exchanges.wire import Plain
from purekrb.keys import EncryptionKey, etype_name, etype_names
from purekrb.log import Log
from purekrb.messages.ap import (
    PVNO,
    ApReq,
    Authenticator,
    Checksum,
    EncryptedData,
    HostAddress,
    KrbError,
    Ticket,
)
from purekrb.messages.kdc import (
    AsRep,
    EncKdcRepPart,
    KdcReqBody,
    PaData,
    TgsRep,
    TgsReq,
    decode_kdc_reply,
)
from purekrb.names import Principal
from purekrb.records import replace
from purekrb.system import Clock, RandomBytes

__all__ = ["TgsOptions", "TgsRequest", "BuiltTgsRequest", "request_ticket"]

log = Log("purekrb.kdc")

#: The options that a request takes over from the TGT; each has the same bit as its flag.
_INHERITED = int(TicketFlags.FORWARDABLE | TicketFlags.PROXIABLE | TicketFlags.RENEWABLE)

#: The errors about the time in which the TGT is valid.
_OUT_OF_TIME = (ErrorCode.KRB_AP_ERR_TKT_EXPIRED, ErrorCode.KRB_AP_ERR_TKT_NYV)
#: Makes padata from the body and the subkey of their request.
MakePadata = Callable[[KdcReqBody, EncryptionKey], tuple[PaData, ...]]


@dataclass(frozen=True, slots=True)
class TgsOptions:
    """Options of a TGS exchange.

    lifetime: seconds; None: that of the TGT.
    canonicalize: let the KDC name the service canonically and refer to other realms (RFC 6806).
    etypes: the encryption types of the session key, in order of preference.
    clock_skew: the seconds by which the KDC's clock may differ from the TGT's time.
    fast_realms: the realms whose KDCs are asked in FAST, because they have announced it.
    """

    lifetime: float | None = None
    canonicalize: bool = True
    etypes: tuple[int, ...] = DEFAULT_ETYPES
    clock_skew: float = 300.0
    fast_realms: Collection[str] = ()


def _no_padata(_body: KdcReqBody, _subkey: EncryptionKey) -> tuple[PaData, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class TgsRequest:
    """A request for a ticket, made with a TGT.

    tgt: a ticket for the ticket-granting service of the realm to ask, or a ticket to renew.
    service: the service to get a ticket for; its realm is the one to ask.
    kdc_options: options in addition to those that follow from the TGT and from `options`.
    till: the end of the ticket; None: after the lifetime in `options`.
    addresses: bind the ticket to these; if empty, it is valid from anywhere; None: like the TGT.
    additional_tickets: the DER of each, for user-to-user and constrained delegation.
    padata: makes the padata in addition to PA-TGS-REQ. The arguments are the body and the subkey,
        because PA-S4U-X509-USER is bound to both (MS-SFU 2.2.2).
    exact_name: refuse a ticket for another service, even if that may stand for the service.
    """

    tgt: ServiceTicket
    service: Principal
    options: TgsOptions = TgsOptions()
    kdc_options: int = 0
    till: datetime | None = None
    addresses: tuple[HostAddress, ...] | None = None
    additional_tickets: tuple[bytes, ...] = ()
    padata: MakePadata = _no_padata
    exact_name: bool = False

    def __str__(self) -> str:
        purpose = ", ".join(flag_names(KdcOptions, self.kdc_options))
        asked = f"{self.tgt.client} asks for {self.service}"
        return f"{asked} ({purpose})" if purpose else asked

    @property
    def canonicalize(self) -> bool:
        """Whether the KDC may name the service canonically, or refer to another realm."""
        return self.options.canonicalize and not self.exact_name

    def build(self, clock: Clock, random: RandomBytes) -> BuiltTgsRequest:
        """Return the message with a fresh nonce and a fresh subkey."""
        tgt = self.tgt
        kdc_options = tgt.flags & _INHERITED | self.kdc_options
        if self.canonicalize:
            kdc_options |= int(KdcOptions.CANONICALIZE)
        body = KdcReqBody(
            kdc_options=kdc_options,
            cname=None,
            realm=self.service.realm,
            sname=self.service.name,
            from_=None,
            till=self.till or self._default_till(clock),
            rtime=tgt.renew_till if tgt.flags & TicketFlags.RENEWABLE else None,
            nonce=new_nonce(random),
            etype=self.options.etypes,
            addresses=self.addresses or None,
            additional_tickets=self.additional_tickets or None,
        )
        subkey = crypto.random_key(tgt.session_key.etype, random)
        pa_tgs_req = PaData(PaDataType.TGS_REQ, _ap_req(tgt, subkey, body, clock, random))
        wire = self._wire(subkey, random)
        padata = wire.seal(self.padata(body, subkey), body, pa_tgs_req.padata_value)
        message = TgsReq((pa_tgs_req, *padata), body).encode()
        return BuiltTgsRequest(self, body, subkey, message, wire)

    @property
    def label(self) -> ExchangeLabel:
        """The name of the exchange in errors."""
        return ExchangeLabel("TGS", self.tgt.client, self.service)

    # What a request in another's name does otherwise: see `s4u.py`.

    def check_client(self, ticket: ServiceTicket) -> None:
        """Refuse a reply for another client than that of the TGT. Source: RFC 4120 3.3.4."""
        if ticket.client != self.tgt.client:
            raise ProtocolError(
                "the reply is not for the client of the TGT",
                expected=self.tgt.client,
                got=ticket.client,
            )

    def check_padata(self, reply: TgsRep, body: KdcReqBody, subkey: EncryptionKey) -> None:
        """Refuse a reply whose padata do not answer those of the request."""

    def refusal(self, error: KrbError) -> KdcError:
        """Return the exception for the KDC's KRB-ERROR."""
        facts = _validity(self.tgt) if error.error_code in _OUT_OF_TIME else ""
        return kdc_error(error, self.label, self.service, facts)

    def _wire(self, subkey: EncryptionKey, random: RandomBytes) -> Plain:
        if self.service.realm not in self.options.fast_realms:
            return Plain()
        from purekrb.exchanges.fast import Fast, implicit_armor  # only FAST pays for it

        return Fast(implicit_armor(subkey, self.tgt.session_key), self.label, random)

    def _default_till(self, clock: Clock) -> datetime:
        if self.options.lifetime is None:
            return self.tgt.endtime
        start = (clock() + self.tgt.time_offset).replace(microsecond=0)
        return min(self.tgt.endtime, start + timedelta(seconds=self.options.lifetime))


@dataclass(frozen=True, slots=True)
class BuiltTgsRequest:
    """A TGS-REQ, encoded, with the data to check its answer."""

    request: TgsRequest
    body: KdcReqBody
    subkey: EncryptionKey
    message: bytes
    wire: Plain

    def open(self, answer: bytes, clock: Clock) -> ServiceTicket:
        """Return the KDC's ticket, which may be a referral, after every check of RFC 4120 3.3.4.

        Raises the KdcError of a KRB-ERROR, ProtocolError or DecodeError for a reply that does not
        fit the request, IntegrityError for a reply that does not decrypt, and ClockSkewError.
        """
        request = self.request
        label = request.label
        reply = decode_kdc_reply(answer)
        if isinstance(reply, KrbError):
            log.debug("KRB-ERROR from %s: %s", request.service.realm, error_name(reply.error_code))
            raise request.refusal(self.wire.open_error(reply, self.body.nonce))
        if isinstance(reply, AsRep):
            raise ProtocolError("the KDC answered a TGS-REQ with an AS-REP")
        reply = self.wire.open(reply, self.body.nonce)
        part = self._open_part(reply, label)
        ticket = check_reply(
            self.body,
            reply,
            part,
            addresses=request.tgt.caddr if request.addresses is None else request.addresses,
            inherited=request.addresses is None,
            offset=request.tgt.time_offset,
        )
        request.check_client(ticket)
        request.check_padata(reply, self.body, self.subkey)
        _check_names(request, ticket)
        # A ticket that is validated keeps its start time, which may be long ago (RFC 4120 3.3.3).
        if part.starttime is not None and not request.kdc_options & KdcOptions.VALIDATE:
            kdc_time = clock() + request.tgt.time_offset
            check_clock(part.starttime, kdc_time, request.options.clock_skew, label)
        return _without_foreign_delegation(request, ticket)

    def _open_part(self, reply: TgsRep, label: ExchangeLabel) -> EncKdcRepPart:
        """Return the encrypted part of the reply.

        By RFC 4120 5.4.2, the key is the subkey, with usage 9. Old Heimdal KDCs use the session
        key, with usage 8, even though there is a subkey. The original RFC 4757, before its erratum,
        has 8 for both. A wrong guess fails the integrity check.
        """
        subkey, enc_part = self.wire.reply_key(self.subkey), reply.enc_part
        attempts = [
            (subkey, KeyUsage.TGS_REP_ENC_PART_SUBKEY),
            (self.request.tgt.session_key, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY),
        ]
        if subkey.etype == EncryptionType.RC4_HMAC:
            attempts.append((subkey, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY))
        if enc_part.etype != subkey.etype:
            raise ProtocolError(
                f"{label}: the reply is encrypted with another encryption type than the key has",
                expected=etype_name(subkey.etype),
                got=etype_name(enc_part.etype),
            )
        for key, usage in attempts:
            try:
                return open_reply(key, usage, enc_part, self.body.nonce)
            except IntegrityError:
                continue
        raise IntegrityError


def request_ticket(
    request: TgsRequest, clock: Clock, random: RandomBytes
) -> Exchange[ServiceTicket]:
    """Return the ticket from the KDC of the service's realm; it may be a referral.

    Raises the errors of `BuiltTgsRequest.open`.
    """
    built = request.build(clock, random)
    realm = request.service.realm
    if log.on():
        etypes = etype_names(built.body.etype)
        log.debug("TGS-REQ%s to %s: %s, etypes %s", built.wire, realm, request, etypes)
    answer = yield KdcRequest(realm, built.message)
    try:
        ticket = built.open(answer, clock)
    except KerberosError as error:
        log.debug("TGS exchange failed: %s", error)
        raise
    if log.on():
        service_key = Ticket.decode(ticket.ticket).enc_part
        log.debug(
            "TGS-REP from %s: ticket for %s until %s, session key %s, encrypted with the service's "
            "key %s kvno %s",
            realm,
            ticket.service,
            ticket.endtime,
            etype_name(ticket.session_key.etype),
            etype_name(service_key.etype),
            service_key.kvno,
        )
    return ticket


def _ap_req(
    tgt: ServiceTicket, subkey: EncryptionKey, body: KdcReqBody, clock: Clock, random: RandomBytes
) -> bytes:
    """Return the AP-REQ of PA-TGS-REQ, with a checksum that ties it to `body`.

    Source: RFC 4120 5.2.7.1, 7.5.1.
    """
    key = tgt.session_key
    profile = crypto.profile_of(key.etype)
    time = unique_now(clock) + tgt.time_offset
    usage = KeyUsage.TGS_REQ_AUTHENTICATOR_CHECKSUM
    authenticator = Authenticator(
        authenticator_vno=PVNO,
        crealm=tgt.client.realm,
        cname=tgt.client.name,
        cksum=Checksum(profile.checksum_type, crypto.checksum(key, usage, body.encode())),
        cusec=time.microsecond,
        ctime=time.replace(microsecond=0),
        subkey=subkey,
        seq_number=None,
        authorization_data=None,
    ).encode()
    confounder = random(profile.confounder_size)
    cipher = crypto.encrypt(key, KeyUsage.TGS_REQ_AUTHENTICATOR, authenticator, confounder)
    encrypted = EncryptedData(key.etype, None, cipher)
    return ApReq(PVNO, MessageType.AP_REQ, 0, tgt.ticket, encrypted).encode()


def _validity(tgt: ServiceTicket) -> str:
    start = tgt.starttime or tgt.authtime
    return f", it is valid from {start:%Y-%m-%d %H:%M:%SZ} to {tgt.endtime:%Y-%m-%d %H:%M:%SZ}"


def _check_names(request: TgsRequest, ticket: ServiceTicket) -> None:
    """Refuse names that were not asked for, except for services that may stand for them.

    Source: RFC 4120 3.3.4, RFC 6806 6, 8.
    """
    wanted, named = request.service, ticket.service
    if named == wanted:
        return
    if named.components[:1] == ("krbtgt",) and not ticket.is_tgt:
        raise ProtocolError(
            "a referral names a ticket-granting service without its realm", got=named
        )
    to_tgs = wanted.components[:1] == ("krbtgt",)
    may_differ = ticket.is_tgt if to_tgs else request.canonicalize
    if request.exact_name or not may_differ or named.realm != wanted.realm:
        raise ProtocolError(
            "the ticket is for another service than was asked for", expected=wanted, got=named
        )


def _without_foreign_delegation(request: TgsRequest, ticket: ServiceTicket) -> ServiceTicket:
    """Return `ticket` without OK-AS-DELEGATE, unless its realm may vouch for services.

    The client's own realm may. Another realm may if OK-AS-DELEGATE is set in the cross-realm TGT.
    Source: RFC 4120 2.8.
    """
    tgt = request.tgt
    if request.service.realm == tgt.client.realm or tgt.flags & TicketFlags.OK_AS_DELEGATE:
        return ticket
    return replace(ticket, flags=ticket.flags & ~TicketFlags.OK_AS_DELEGATE)
