"""The TGS exchange: tickets for services, by means of a ticket-granting ticket. Source: RFC 4120 3.3, RFC 6806 8.

All functions here are generators: they yield requests for a KDC, are sent the replies and return tickets.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from purekrb import crypto
from purekrb.constants import (
    DEFAULT_ETYPES,
    EncryptionType,
    KdcOptions,
    KeyUsage,
    MessageType,
    NameType,
    PaDataType,
    TicketFlags,
    error_name,
)
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CredentialError, IntegrityError, KerberosError, ProtocolError
from purekrb.exchanges.as_exchange import AsOptions, ClientCredential, as_exchange
from purekrb.exchanges.kdc_reply import About, check_clock, check_reply, kdc_error, new_nonce, open_reply
from purekrb.exchanges.runner import Exchange, KdcRequest
from purekrb.exchanges.timestamps import unique_now
from purekrb.keys import EncryptionKey, etype_name, etype_names
from purekrb.messages.ap import ApReq, Authenticator, Checksum, EncryptedData, HostAddress, KrbError, Ticket
from purekrb.messages.kdc import AsRep, EncKdcRepPart, KdcReqBody, PaData, TgsReq, decode_kdc_reply
from purekrb.names import Principal
from purekrb.records import replace
from purekrb.system import Clock, RandomBytes, now, random_bytes
from purekrb.trace import Log

__all__ = ["TgsOptions", "TicketStore", "CaPath", "tgs_exchange", "renew", "forward_tgt", "get_service_ticket"]

log = Log("purekrb.kdc")

PVNO = 5
#: Realms that are crossed on the way to a service.
MAX_HOPS = 10
#: What a ticket takes over from the TGT; each option has the bit of its flag.
_INHERITED = int(TicketFlags.FORWARDABLE | TicketFlags.PROXIABLE | TicketFlags.RENEWABLE)

#: Returns the realms between a client's realm and a service's, in order; None where only the KDCs know.
CaPath = Callable[[str, str], "list[str] | None"]


def _no_capath(_client_realm: str, _service_realm: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class TgsOptions:
    """What to ask for in a TGS exchange.

    lifetime: seconds; None: as long as the TGT.
    canonicalize: let the KDC name the service canonically and refer to other realms (RFC 6806).
    etypes: of the session key, in order of preference.
    clock_skew: seconds that the KDC's clock may differ from the TGT's time.
    """

    lifetime: float | None = None
    canonicalize: bool = True
    etypes: tuple[int, ...] = DEFAULT_ETYPES
    clock_skew: float = 300.0


class TicketStore(Protocol):
    """Where the tickets of one client are kept for later; a CCache is one."""

    principal: Principal

    def find(self, service: Principal, *, now: datetime, margin: float) -> ServiceTicket | None:
        """Return a ticket of `principal` for `service` that is valid for `margin` more seconds, or None."""

    def store(self, ticket: ServiceTicket) -> None:
        """Keep `ticket`."""


def tgs_exchange(
    tgt: ServiceTicket,
    service: Principal,
    options: TgsOptions | None = None,
    *,
    capath: CaPath = _no_capath,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return a ticket for `service`, across realms where necessary.

    A service with a realm is looked for in that realm: along `capath` where it names the way, else as the KDCs refer. A
    service without one is asked for in the TGT's realm, whose KDC may refer to another. Raises KdcError for what a KDC
    refuses, ProtocolError for a reply that does not fit or referrals without end, IntegrityError for one that does
    not decrypt.
    """
    asker = _Asker(options or TgsOptions(), clock, random)
    realms = [_realm_of(tgt)]
    path = capath(tgt.client.realm, service.realm) if service.realm else None
    allowed = None if path is None else [*path, service.realm]
    while True:
        realm = realms[-1]
        arrived = service.realm in ("", realm)
        if arrived:
            wanted = Principal(service.components, realm, service.name_type)
        else:
            wanted = _tgs(_next_realm(allowed, realm, service.realm), realm)
        ticket = yield from asker.ask(tgt, wanted)
        if arrived and (ticket.service == wanted or not ticket.is_tgt):
            return ticket
        if arrived and service.realm:
            raise ProtocolError(
                f"the KDC of {realm} refers to {_realm_of(ticket)} for {service}; ask for the service without a realm "
                "to follow it",
                expected=wanted,
                got=ticket.service,
            )
        tgt = ticket
        realms.append(_check_hop(realms, _realm_of(ticket), allowed))


def renew(
    tgt: ServiceTicket,
    options: TgsOptions | None = None,
    *,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return `tgt` (or another renewable ticket of the TGT's realm) renewed: a new endtime, up to its renew-till.

    Raises CredentialError for a ticket that cannot be renewed. Source: RFC 4120 2.3, 3.3.2.
    """
    if not tgt.flags & TicketFlags.RENEWABLE or tgt.renew_till is None:
        raise CredentialError(f"the ticket for {tgt.service} is not renewable: get one with a renewable lifetime")
    asker = _Asker(options or TgsOptions(), clock, random)
    return (yield from asker.ask(tgt, tgt.service, KdcOptions.RENEW, till=tgt.renew_till))


def forward_tgt(
    tgt: ServiceTicket,
    addresses: tuple[HostAddress, ...] = (),
    options: TgsOptions | None = None,
    *,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return a forwarded TGT for use from `addresses` (none: from anywhere), to delegate it to a service.

    Raises CredentialError for a TGT that may not be forwarded. Source: RFC 4120 2.6.
    """
    _realm_of(tgt)
    if not tgt.flags & TicketFlags.FORWARDABLE:
        raise CredentialError(f"the TGT of {tgt.client} is not forwardable: get a new one with forwardable=True")
    asker = _Asker(options or TgsOptions(), clock, random)
    ticket = yield from asker.ask(tgt, tgt.service, KdcOptions.FORWARDED, addresses=addresses)
    if not ticket.flags & TicketFlags.FORWARDED:
        raise ProtocolError("the KDC did not forward the TGT: the flag FORWARDED is missing")
    return ticket


def get_service_ticket(
    credential: ClientCredential,
    service: Principal,
    *,
    store: TicketStore,
    as_options: AsOptions | None = None,
    tgs_options: TgsOptions | None = None,
    capath: CaPath = _no_capath,
    margin: float = 60.0,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
    offsets: MutableMapping[str, timedelta] | None = None,
) -> Exchange[ServiceTicket]:
    """Return a ticket for `service` from `store`, or get what is missing from the KDCs and keep it there.

    A stored ticket is used if it is valid for `margin` more seconds. A service without a realm is looked up in the
    client's, so that a ticket to which KDCs referred is asked for each time.
    """
    realm = store.principal.realm
    ticket = store.find(replace(service, realm=service.realm or realm), now=clock(), margin=margin)
    if ticket is not None:
        log.debug("ticket for %s from the store, until %s", ticket.service, ticket.endtime)
        return ticket
    tgt = store.find(_tgs(realm, realm), now=clock(), margin=margin)
    if tgt is None:
        tgt = yield from as_exchange(credential, as_options, clock=clock, random=random, offsets=offsets)
        store.principal = tgt.client  # the canonical name, under which the store finds the tickets again
        store.store(tgt)
    else:
        log.debug("ticket for %s from the store, until %s", tgt.service, tgt.endtime)
    ticket = yield from tgs_exchange(tgt, service, tgs_options, capath=capath, clock=clock, random=random)
    store.store(ticket)
    return ticket


def _tgs(realm: str, at: str) -> Principal:
    """Return the ticket-granting service of `realm`, as the realm `at` knows it."""
    return Principal(("krbtgt", realm), at, NameType.SRV_INST)


def _realm_of(tgt: ServiceTicket) -> str:
    """Return the realm whose KDC takes `tgt`."""
    if not tgt.is_tgt:
        raise CredentialError(f"the ticket for {tgt.service} is not a ticket-granting ticket: pass a TGT")
    return tgt.service.components[1]


def _next_realm(allowed: list[str] | None, realm: str, target: str) -> str:
    """Return the realm to go to from `realm`: the next one on the path, or the target for the KDC to refer to."""
    if allowed is None:
        return target
    return allowed[allowed.index(realm) + 1] if realm in allowed else allowed[0]


def _check_hop(realms: list[str], referred: str, allowed: list[str] | None) -> str:
    """Return the realm that the last one referred to. Raises ProtocolError for a circle, a long way, or a wrong one."""
    if not referred:
        raise ProtocolError(f"the KDC of {realms[-1]} refers to a realm without a name")
    if referred in realms:
        raise ProtocolError(f"the KDCs refer in a circle: {' -> '.join([*realms, referred])}")
    if len(realms) > MAX_HOPS:
        raise ProtocolError(f"more than {MAX_HOPS} referrals: {' -> '.join([*realms, referred])}")
    if allowed is not None and referred not in allowed:
        raise ProtocolError(
            f"the KDC of {realms[-1]} refers to a realm off the configured path; correct [capaths] or the trust",
            expected=allowed,
            got=referred,
        )
    log.debug("%s refers to %s", realms[-1], referred)
    return referred


class _Asker:
    """One TGS-REQ and its answer."""

    def __init__(self, options: TgsOptions, clock: Clock, random: RandomBytes) -> None:
        self.options = options
        self.clock = clock
        self.random = random

    def ask(
        self,
        tgt: ServiceTicket,
        wanted: Principal,
        purpose: KdcOptions | None = None,
        *,
        till: datetime | None = None,
        addresses: tuple[HostAddress, ...] = (),
    ) -> Exchange[ServiceTicket]:
        """Return the ticket that the KDC gives for `wanted`, which may be a referral.

        `purpose` is RENEW or FORWARDED where the TGT itself is to be had anew: then no other name will do.
        """
        realm = wanted.realm
        about = About("TGS", tgt.client, wanted)
        kdc_options = tgt.flags & _INHERITED | int(purpose or 0)
        if purpose is None and self.options.canonicalize:
            kdc_options |= int(KdcOptions.CANONICALIZE)
        body = KdcReqBody(
            kdc_options=kdc_options,
            cname=None,
            realm=realm,
            sname=wanted.name,
            from_=None,
            till=till or self.till(tgt),
            rtime=tgt.renew_till if tgt.flags & TicketFlags.RENEWABLE else None,
            nonce=new_nonce(self.random),
            etype=self.options.etypes,
            addresses=addresses or None,
        )
        subkey = crypto.random_key(tgt.session_key.etype, self.random)
        request = TgsReq((PaData(PaDataType.TGS_REQ, self.ap_req(tgt, subkey, body)),), body).encode()
        if log.on():
            log.debug(
                "TGS-REQ to %s: %s asks for %s%s, etypes %s",
                realm,
                tgt.client,
                wanted,
                f" ({purpose.name})" if purpose else "",
                etype_names(body.etype),
            )
        answer = yield KdcRequest(realm, request)
        try:
            reply = decode_kdc_reply(answer)
            if isinstance(reply, KrbError):
                log.debug("KRB-ERROR from %s: %s", realm, error_name(reply.error_code))
                raise kdc_error(reply, about, wanted)
            if isinstance(reply, AsRep):
                raise ProtocolError("the KDC answered a TGS-REQ with an AS-REP")
            part = _open(reply.enc_part, subkey, tgt.session_key, body.nonce, about)
            forwarded = purpose == KdcOptions.FORWARDED
            ticket = check_reply(
                body,
                reply,
                part,
                addresses=addresses if forwarded else tgt.caddr,
                inherited=not forwarded,
                offset=tgt.time_offset,
            )
            self.check_names(tgt, wanted, ticket, exact=purpose is not None)
            if part.starttime is not None:
                check_clock(part.starttime, self.clock() + tgt.time_offset, self.options.clock_skew, about)
        except KerberosError as error:
            log.debug("TGS exchange failed: %s", error)
            raise
        if log.on():
            service_key = Ticket.decode(ticket.ticket).enc_part
            log.debug(
                "TGS-REP from %s: ticket for %s until %s, session key %s, encrypted with the service's key %s kvno %s",
                realm,
                ticket.service,
                ticket.endtime,
                etype_name(ticket.session_key.etype),
                etype_name(service_key.etype),
                service_key.kvno,
            )
        if realm != tgt.client.realm and not tgt.flags & TicketFlags.OK_AS_DELEGATE:
            # Only a trust that our own realm marks may vouch for the services of another. Source: RFC 4120 2.8.
            ticket = replace(ticket, flags=ticket.flags & ~TicketFlags.OK_AS_DELEGATE)
        return ticket

    def till(self, tgt: ServiceTicket) -> datetime:
        if self.options.lifetime is None:
            return tgt.endtime
        start = (self.clock() + tgt.time_offset).replace(microsecond=0)
        return min(tgt.endtime, start + timedelta(seconds=self.options.lifetime))

    def ap_req(self, tgt: ServiceTicket, subkey: EncryptionKey, body: KdcReqBody) -> bytes:
        """Return the AP-REQ of PA-TGS-REQ, with a checksum that ties it to `body`. Source: RFC 4120 5.2.7.1, 7.5.1."""
        key = tgt.session_key
        profile = crypto.profile_of(key.etype)
        time = unique_now(self.clock) + tgt.time_offset
        authenticator = Authenticator(
            authenticator_vno=PVNO,
            crealm=tgt.client.realm,
            cname=tgt.client.name,
            cksum=Checksum(
                profile.checksum_type, crypto.checksum(key, KeyUsage.TGS_REQ_AUTHENTICATOR_CHECKSUM, body.encode())
            ),
            cusec=time.microsecond,
            ctime=time.replace(microsecond=0),
            subkey=subkey,
            seq_number=None,
            authorization_data=None,
        ).encode()
        confounder = self.random(profile.confounder_size)
        cipher = crypto.encrypt(key, KeyUsage.TGS_REQ_AUTHENTICATOR, authenticator, confounder)
        return ApReq(PVNO, MessageType.AP_REQ, 0, tgt.ticket, EncryptedData(key.etype, None, cipher)).encode()

    def check_names(self, tgt: ServiceTicket, wanted: Principal, ticket: ServiceTicket, *, exact: bool) -> None:
        """Raise ProtocolError unless client and service are those asked for, or ones that may stand for them."""
        if ticket.client != tgt.client:
            raise ProtocolError("the reply is not for the client of the TGT", expected=tgt.client, got=ticket.client)
        named = ticket.service
        if named == wanted:
            return
        if named.components[:1] == ("krbtgt",) and not ticket.is_tgt:
            raise ProtocolError("a referral names a ticket-granting service without its realm", got=named)
        to_tgs = wanted.components[:1] == ("krbtgt",)
        may_differ = ticket.is_tgt if to_tgs else self.options.canonicalize
        if exact or not may_differ or named.realm != wanted.realm:
            raise ProtocolError("the ticket is for another service than was asked for", expected=wanted, got=named)


def _open(
    enc_part: EncryptedData, subkey: EncryptionKey, session_key: EncryptionKey, nonce: int, about: About
) -> EncKdcRepPart:
    """Return the encrypted part of a TGS-REP.

    RFC 4120 5.4.2: with the subkey, usage 9. Old Heimdal KDCs use the session key, usage 8, although there is a
    subkey; RFC 4757 as printed has 8 for both, before its erratum. A wrong guess fails the integrity check.
    """
    attempts = [(subkey, KeyUsage.TGS_REP_ENC_PART_SUBKEY), (session_key, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY)]
    if subkey.etype == EncryptionType.RC4_HMAC:
        attempts.append((subkey, KeyUsage.TGS_REP_ENC_PART_SESSION_KEY))
    if enc_part.etype != subkey.etype:
        raise ProtocolError(
            f"{about}: the reply is encrypted with another encryption type than the key's",
            expected=etype_name(subkey.etype),
            got=etype_name(enc_part.etype),
        )
    for key, usage in attempts:
        try:
            return open_reply(key, usage, enc_part, nonce)
        except IntegrityError:
            continue
    raise IntegrityError
