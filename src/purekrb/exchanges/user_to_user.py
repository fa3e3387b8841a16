"""User-to-user: tickets under the session key of a TGT. Source: RFC 4120 3.7, 3.3.3.

Who has no key of its own that lasts, such as a user's program, authenticates itself by its TGT.
"""

from __future__ import annotations

from purekrb.constants import ErrorCode, KdcOptions, NameType
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import ApError, CredentialError, IntegrityError, ProtocolError
from purekrb.exchanges.opened_tickets import OpenedTicket, open_ticket, read_ticket
from purekrb.exchanges.runner import Exchange
from purekrb.exchanges.service_keys import ServiceKey, is_for
from purekrb.exchanges.tgs_exchange import CaPath, no_capath, realm_of, tgs_exchange
from purekrb.exchanges.tgs_request import TgsOptions, TgsRequest, request_ticket
from purekrb.keys import EncryptionKey, etype_name
from purekrb.log import Log
from purekrb.messages.ap import Ticket
from purekrb.names import Principal
from purekrb.records import record, replace
from purekrb.system import Clock, RandomBytes, now, random_bytes

__all__ = ["open_under_tgt", "ticket_under"]

log = Log("purekrb.ap")


def ticket_under(
    theirs: ServiceTicket | bytes,
    tgt: ServiceTicket,
    service: Principal,
    options: TgsOptions | None = None,
    *,
    capath: CaPath = no_capath,
    clock: Clock = now,
    random: RandomBytes = random_bytes,
) -> Exchange[ServiceTicket]:
    """Return a ticket for `service` under the session key of `theirs`, its TGT (or the DER of it).

    `tgt` is ours. The KDC that has issued the TGT is asked; it makes sure that the TGT is that of
    the service. Raises CredentialError if `theirs` is no TGT, and KdcError if it is another's.
    """
    options = options or TgsOptions()
    second = theirs if isinstance(theirs, bytes) else theirs.ticket
    read = read_ticket(second)
    if read.sname.components != ("krbtgt", read.realm):
        raise CredentialError(
            f"a user-to-user ticket needs the TGT of {service}, and what came is a ticket for "
            f"{read.sname.principal(read.realm)}"
        )
    realm = read.realm
    if service.realm not in ("", realm):
        raise CredentialError(
            f"a user-to-user ticket for {service} needs a TGT of that realm, not of {realm}"
        )
    if realm_of(tgt) != realm:
        far = Principal(("krbtgt", realm), "", NameType.SRV_INST)
        tgt = yield from tgs_exchange(tgt, far, options, capath=capath, clock=clock, random=random)
    request = TgsRequest(
        tgt,
        replace(service, realm=realm),
        options,
        kdc_options=int(KdcOptions.ENC_TKT_IN_SKEY),
        additional_tickets=(second,),
        exact_name=True,
    )
    ticket = yield from request_ticket(request, clock, random)
    made = read_ticket(ticket.ticket).enc_part.etype
    if not isinstance(theirs, bytes) and made != theirs.session_key.etype:
        raise ProtocolError(
            "the KDC did not encrypt the ticket in the session key of the TGT",
            expected=etype_name(theirs.session_key.etype),
            got=etype_name(made),
        )
    return replace(ticket, is_skey=True, second_ticket=second)


@record
class _SessionKey:
    """The session key of a TGT as a key of its client."""

    principal: Principal
    key: EncryptionKey
    kvno: int = 0


def open_under_tgt(
    ticket: Ticket,
    tgt: ServiceTicket | None,
    service: Principal | None,
    permitted: tuple[int, ...],
) -> tuple[ServiceKey, OpenedTicket, tuple[Principal, ...]]:
    """Return the session key of our own `tgt`, what it opens, and the name that it proves.

    Which TGT counts is our choice, never the client's. The name is that of the TGT's client: the
    KDC has made sure that the client asked for a name of that account. Raises ApError.
    """
    if tgt is None:
        raise ApError(
            "the client asks for user-to-user authentication, for which this acceptor has no TGT: "
            "pass tgt=, a credential that has one",
            code=ErrorCode.KRB_AP_ERR_NOKEY,
        )
    named = ticket.sname.principal(ticket.realm)
    if service is not None and not (is_for(service, tgt.client) or is_for(service, named)):
        raise ApError(
            f"the user-to-user ticket is for {named}, under the TGT of {tgt.client}, but this "
            f"acceptor is {service}",
            code=ErrorCode.KRB_AP_ERR_NOT_US,
        )
    key = tgt.session_key
    if key.etype not in permitted:
        raise ApError(
            f"the session key of our TGT is of {etype_name(key.etype)}, which is not permitted here",
            code=ErrorCode.KDC_ERR_ETYPE_NOSUPP,
        )
    try:
        if ticket.enc_part.etype != key.etype:
            raise IntegrityError
        opened = open_ticket(key, ticket.enc_part.cipher)
    except IntegrityError:
        raise ApError(
            "the user-to-user ticket does not open with the session key of our TGT: the client has "
            "the TGT of another, or one from before; let it ask for our TGT again",
            code=ErrorCode.KRB_AP_ERR_NOKEY,
        ) from None
    log.debug("user-to-user: the ticket is under the TGT of %s", tgt.client)
    return _SessionKey(tgt.client, key), opened, (tgt.client,)
