"""The TGS exchange: tickets for services, by means of a ticket-granting ticket.

All functions here are generators: they yield requests for a KDC, are sent the replies, and return
tickets. Source: RFC 4120 3.3, RFC 6806 8.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, MutableSet
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from purekrb.constants import ErrorCode, KdcOptions, NameType, TicketFlags
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import CredentialError, KdcError, ProtocolError
from purekrb.exchanges.as_exchange import AsOptions, ClientCredential, as_exchange
from purekrb.exchanges.runner import Exchange
from purekrb.exchanges.tgs_request import TgsOptions, TgsRequest, request_ticket
from purekrb.log import Log
from purekrb.messages.ap import HostAddress
from purekrb.names import Principal
from purekrb.records import replace
from purekrb.system import Clock, RandomBytes, now, random_bytes

__all__ = [
    "TgsOptions",
    "TicketStore",
    "CaPath",
    "check_hop",
    "no_capath",
    "realm_of",
    "tgs_exchange",
    "renew",
    "validate",
    "forward_tgt",
    "proxy",
    "get_service_ticket",
]

log = Log("purekrb.kdc")

#: The most realms that are crossed on the way to a service.
MAX_HOPS = 10
#: Returns the realms between a client's realm and a service's, in order; None to leave the way to
#: the KDCs.
CaPath = Callable[[str, str], "list[str] | None"]


def no_capath(_client_realm: str, _service_realm: str) -> None:
    """Leave the way to the KDCs."""


class TicketStore(Protocol):
    """A store for the tickets of one client, such as a CCache."""

    @property
    def realm(self) -> str:
        """The realm whose KDC is asked for tickets."""

    def begin_with(self, initial: ServiceTicket) -> None:
        """Store the ticket of an AS exchange, and take its client for that of the store."""

    def find(self, service: Principal, *, now: datetime, margin: float) -> ServiceTicket | None:
        """Return a ticket of the client for `service` that is valid for `margin` more seconds.

        Returns None if there is none.
        """

    def store(self, ticket: ServiceTicket) -> None:
        """Store `ticket`."""


def tgs_exchange(
    tgt: ServiceTicket,
    service: Principal,
    options: TgsOptions | None = None,
    *,
    kdc_options: int = 0,
    addresses: tuple[HostAddress, ...] | None = None,
    capath: CaPath = no_capath,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return a ticket for `service`, across realms if necessary.

    A service with a realm is requested in that realm; the way there is `capath` or, if that returns
    None, the referrals of the KDCs. A service without a realm is requested in the TGT's realm,
    whose KDC may refer to another. `kdc_options` and `addresses` are those of `TgsRequest`, for the
    service's realm alone. Raises KdcError if a KDC refuses, ProtocolError for a reply that
    does not fit the request or for endless referrals, and IntegrityError for a reply that does not
    decrypt.
    """
    options = options or TgsOptions()
    realms = [realm_of(tgt)]
    path = capath(tgt.client.realm, service.realm) if service.realm else None
    allowed = None if path is None else [*path, service.realm]
    while True:
        realm = realms[-1]
        arrived = service.realm in ("", realm)
        if arrived:
            wanted = Principal(service.components, realm, service.name_type)
            request = TgsRequest(tgt, wanted, options, kdc_options, addresses=addresses)
        else:
            wanted = _tgs(_next_realm(allowed, realm, service.realm), realm)
            request = TgsRequest(tgt, wanted, options)
        ticket = yield from request_ticket(request, clock, random)
        if arrived and (ticket.service == wanted or not ticket.is_tgt):
            return ticket
        if arrived and service.realm:
            raise ProtocolError(
                f"the KDC of {realm} refers to {realm_of(ticket)} for {service}; ask for the "
                "service without a realm to follow it",
                expected=wanted,
                got=ticket.service,
            )
        tgt = ticket
        realms.append(check_hop(realms, realm_of(ticket), allowed))


def renew(
    tgt: ServiceTicket,
    options: TgsOptions | None = None,
    *,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return `tgt` renewed: with a new endtime, up to its renew-till.

    `tgt` may be any renewable ticket of the realm. Raises CredentialError if it is not renewable.
    Source: RFC 4120 2.3, 3.3.2.
    """
    if not tgt.flags & TicketFlags.RENEWABLE or tgt.renew_till is None:
        raise CredentialError(
            f"the ticket for {tgt.service} is not renewable: get one with a renewable lifetime"
        )
    request = TgsRequest(
        tgt,
        tgt.service,
        options or TgsOptions(),
        kdc_options=KdcOptions.RENEW,
        till=tgt.renew_till,
        exact_name=True,
    )
    return (yield from request_ticket(request, clock, random))


def validate(
    tgt: ServiceTicket,
    options: TgsOptions | None = None,
    *,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return the postdated ticket `tgt` validated, once its start time has come.

    Raises CredentialError if it is valid already, and KdcError if it is too early.
    Source: RFC 4120 2.4, 3.3.3.
    """
    if not tgt.flags & TicketFlags.INVALID:
        raise CredentialError(
            f"the ticket for {tgt.service} needs no validation: only postdated tickets do"
        )
    request = TgsRequest(
        tgt,
        tgt.service,
        options or TgsOptions(),
        kdc_options=KdcOptions.VALIDATE,
        till=tgt.endtime,
        exact_name=True,
    )
    ticket = yield from request_ticket(request, clock, random)
    if ticket.flags & TicketFlags.INVALID:
        raise ProtocolError("the KDC did not validate the ticket: it still has the flag INVALID")
    return ticket


def forward_tgt(
    tgt: ServiceTicket,
    addresses: tuple[HostAddress, ...] = (),
    options: TgsOptions | None = None,
    *,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return a forwarded TGT, to delegate it to a service.

    `addresses`: where it may be used from; by default, anywhere. Raises CredentialError if the TGT
    may not be forwarded. Source: RFC 4120 2.6.
    """
    realm_of(tgt)
    if not tgt.flags & TicketFlags.FORWARDABLE:
        raise CredentialError(
            f"the TGT of {tgt.client} is not forwardable: get a new one with forwardable=True"
        )
    request = TgsRequest(
        tgt,
        tgt.service,
        options or TgsOptions(),
        kdc_options=KdcOptions.FORWARDED,
        addresses=addresses,
        exact_name=True,
    )
    ticket = yield from request_ticket(request, clock, random)
    if not ticket.flags & TicketFlags.FORWARDED:
        raise ProtocolError("the KDC did not forward the TGT: the flag FORWARDED is missing")
    return ticket


def proxy(
    tgt: ServiceTicket,
    service: Principal,
    addresses: tuple[HostAddress, ...] = (),
    options: TgsOptions | None = None,
    *,
    capath: CaPath = no_capath,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return a ticket for `service`, with its realm, that another machine may use in the client's name.

    `addresses`: where it may be used from; by default, anywhere. Raises CredentialError if the TGT is
    not proxiable, and the errors of `tgs_exchange`. Source: RFC 4120 2.5.
    """
    realm_of(tgt)
    if not tgt.flags & TicketFlags.PROXIABLE:
        raise CredentialError(
            f"the TGT of {tgt.client} is not proxiable: get a new one with proxiable=True"
        )
    ask = partial(tgs_exchange, tgt, service, options, capath=capath, clock=clock, random=random)
    try:
        ticket = yield from ask(kdc_options=KdcOptions.PROXY, addresses=addresses)
    except KdcError as error:
        if error.code != ErrorCode.KDC_ERR_SERVER_NOMATCH:
            raise
        # MIT's KDC makes a proxy of a ticket for the service, and none of a TGT.
        held = yield from ask()
        request = TgsRequest(
            held,
            held.service,
            options or TgsOptions(),
            kdc_options=KdcOptions.PROXY,
            addresses=addresses,
            exact_name=True,
        )
        ticket = yield from request_ticket(request, clock, random)
    if not ticket.flags & TicketFlags.PROXY:
        raise ProtocolError("the KDC made no proxy: the ticket lacks the flag PROXY")
    return ticket


def get_service_ticket(
    credential: ClientCredential,
    service: Principal,
    *,
    store: TicketStore,
    as_options: AsOptions | None = None,
    tgs_options: TgsOptions | None = None,
    capath: CaPath = no_capath,
    margin: float = 60.0,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
    offsets: MutableMapping[str, timedelta] | None = None,
    fast_realms: MutableSet[str] | None = None,
) -> Exchange[ServiceTicket]:
    """Return a ticket for `service` from `store`, or get it from the KDCs and keep it there.

    A stored ticket is used if it is valid for `margin` more seconds. A service without a realm is
    looked up in the client's realm. So a ticket that is found through referrals is not found in the
    store, and requested each time.
    """
    realm = store.realm
    ticket = store.find(replace(service, realm=service.realm or realm), now=clock(), margin=margin)
    if ticket is not None:
        log.debug("ticket for %s from the store, until %s", ticket.service, ticket.endtime)
        return ticket
    tgt = store.find(_tgs(realm, realm), now=clock(), margin=margin)
    if tgt is None:
        tgt = yield from as_exchange(
            credential,
            as_options,
            clock=clock,
            random=random,
            offsets=offsets,
            fast_realms=fast_realms,
        )
        store.begin_with(tgt)
    else:
        log.debug("ticket for %s from the store, until %s", tgt.service, tgt.endtime)
    ticket = yield from tgs_exchange(
        tgt, service, tgs_options, capath=capath, clock=clock, random=random
    )
    store.store(ticket)
    return ticket


def _tgs(realm: str, at: str) -> Principal:
    """Return the ticket-granting service of `realm`, as the realm `at` knows it."""
    return Principal(("krbtgt", realm), at, NameType.SRV_INST)


def realm_of(tgt: ServiceTicket) -> str:
    """Return the realm whose KDC takes `tgt`."""
    if not tgt.is_tgt:
        raise CredentialError(
            f"the ticket for {tgt.service} is not a ticket-granting ticket: pass a TGT"
        )
    return tgt.service.components[1]


def _next_realm(allowed: list[str] | None, realm: str, target: str) -> str:
    """Return the realm to go to from `realm`: the next one on the path.

    Without a path, it is the target; the KDC then refers towards it.
    """
    if allowed is None:
        return target
    return allowed[allowed.index(realm) + 1] if realm in allowed else allowed[0]


def check_hop(realms: list[str], referred: str, allowed: list[str] | None) -> str:
    """Return the realm to which the last one referred.

    Raises ProtocolError if it closes a circle, if the way is too long, or if the realm is not on
    the path. Source: RFC 4120 3.3.1, RFC 6806 8.
    """
    if not referred:
        raise ProtocolError(f"the KDC of {realms[-1]} refers to a realm without a name")
    if referred in realms:
        raise ProtocolError(f"the KDCs refer in a circle: {' -> '.join([*realms, referred])}")
    if len(realms) > MAX_HOPS:
        raise ProtocolError(f"more than {MAX_HOPS} referrals: {' -> '.join([*realms, referred])}")
    if allowed is not None and referred not in allowed:
        raise ProtocolError(
            f"the KDC of {realms[-1]} refers to a realm off the configured path; "
            "correct [capaths] or the trust",
            expected=allowed,
            got=referred,
        )
    log.debug("%s refers to %s", realms[-1], referred)
    return referred
