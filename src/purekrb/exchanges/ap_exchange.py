"""The AP exchange: the client proves itself with an AP-REQ, the service with an AP-REP. Source: RFC 4120 3.2, 5.5.

Four functions in the order of the handshake: `build_ap_req`, `accept_ap_req`, `build_ap_rep`, `verify_ap_rep`; in DCE
style two more: `build_third_leg`, `verify_third_leg`.
No clock and no randomness: both come in as arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Protocol

from purekrb import crypto
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import ApError, DecodeError, IntegrityError, MutualAuthenticationError, PolicyError, ProtocolError
from purekrb.exchanges.authorization_data import check_critical, read_relevant, wrap_if_relevant
from purekrb.exchanges.timestamps import MICROSECOND
from purekrb.keys import EncryptionKey, etype_name, etype_names
from purekrb.messages.ap import (
    ApRep,
    ApReq,
    Authenticator,
    AuthorizationDataEntry,
    Checksum,
    EncApRepPart,
    EncryptedData,
    EncTicketPart,
    EtypeList,
    HostAddress,
    Ticket,
)
from purekrb.names import Principal
from purekrb.records import record
from purekrb.registry import ApOptions, AuthDataType, ErrorCode, KeyUsage, MessageType, TicketFlags
from purekrb.replay import ReplayCache
from purekrb.system import RandomBytes, unpredictable
from purekrb.trace import Log

__all__ = [
    "ServiceKey",
    "ServiceKeys",
    "AcceptedApReq",
    "SentApReq",
    "build_ap_req",
    "accept_ap_req",
    "remember_authenticator",
    "build_ap_rep",
    "verify_ap_rep",
    "build_third_leg",
    "verify_third_leg",
]

log = Log("purekrb.ap")
PVNO = 5
#: Opened tickets that one service key keeps; the oldest leaves.
_MAX_OPENED = 256
#: Tickets up to this size in bytes are taken apart once, however often they are presented.
_MAX_KNOWN = 8192
#: As plain numbers: enum arithmetic costs a microsecond each time.
_AP_REQ, _AP_REP = int(MessageType.AP_REQ), int(MessageType.AP_REP)
_AUTHENTICATOR, _AP_REP_PART = int(KeyUsage.AP_REQ_AUTHENTICATOR), int(KeyUsage.AP_REP_ENC_PART)
_USE_SESSION_KEY, _MUTUAL_REQUIRED = int(ApOptions.USE_SESSION_KEY), int(ApOptions.MUTUAL_REQUIRED)
_INVALID, _TRANSITED_CHECKED = int(TicketFlags.INVALID), int(TicketFlags.TRANSITED_POLICY_CHECKED)


class ServiceKey(Protocol):
    """A key of a service; KeytabEntry is one."""

    @property
    def principal(self) -> Principal: ...
    @property
    def kvno(self) -> int: ...
    @property
    def key(self) -> EncryptionKey: ...


#: The keys that an acceptor has; a Keytab is one.
ServiceKeys = Iterable[ServiceKey]


@record
class SentApReq:
    """An AP-REQ and what the AP-REP must prove: `ctime` in whole seconds and `cusec`, as sent in the authenticator."""

    message: bytes
    ctime: datetime
    cusec: int


@record
class AcceptedApReq:
    """A verified AP-REQ: whose it is, for which service, and what it agreed on.

    `service` is the principal of `key`, which decrypted the ticket, never the ticket's cleartext name. `sent` is when
    the authenticator was made, with microseconds. `etypes` is the initiator's EtypeList (RFC 4537), () where it sent
    none. `relevant` holds the authenticator's authorization data.
    """

    client: Principal
    service: Principal
    key: EncryptionKey
    ticket: EncTicketPart
    authenticator: Authenticator
    sent: datetime
    ap_options: int
    etypes: tuple[int, ...]
    relevant: tuple[AuthorizationDataEntry, ...]
    replay_tag: bytes


@record
class OpenedTicket:
    """A ticket's encrypted part, and the client that it names."""

    part: EncTicketPart
    client: Principal

    @property
    def key(self) -> EncryptionKey:
        """The session key, which ends with the service's."""
        return self.part.key


def build_ap_req(
    ticket: ServiceTicket,
    *,
    cksum: Checksum,
    subkey: EncryptionKey | None,
    seq_number: int,
    mutual: bool,
    etypes: tuple[int, ...],
    now: datetime,
    random: RandomBytes,
) -> SentApReq:
    """Return an AP-REQ that presents `ticket`. Source: RFC 4120 3.2.2, RFC 4537.

    `now` is the KDC's time (aware UTC, with microseconds), unique to this authenticator. `etypes` are the session key
    etypes that the acceptor may choose its subkey from.
    """
    cusec = now.microsecond
    ctime = now - cusec * MICROSECOND  # a quarter of the time that `replace` takes
    client, authorization_data = ticket.client, _offer(etypes) if mutual else None
    # The fields of messages by their order, as in the ASN.1: by name, making one takes twice as long.
    authenticator = Authenticator(
        PVNO, client.realm, client.name, cksum, cusec, ctime, subkey, seq_number, authorization_data
    )
    cipher = _encrypt(ticket.session_key, _AUTHENTICATOR, authenticator.encode(), random)
    options, encrypted = _MUTUAL_REQUIRED if mutual else 0, EncryptedData(ticket.session_key.etype, None, cipher)
    message = ApReq(PVNO, _AP_REQ, options, ticket.ticket, encrypted).encode()
    if log.on():
        log.debug(
            "AP-REQ: %s presents a ticket for %s, session key %s, %s",
            ticket.client,
            ticket.service,
            etype_name(ticket.session_key.etype),
            "mutual authentication required" if mutual else "no mutual authentication",
        )
    return SentApReq(message, ctime, cusec)


def accept_ap_req(
    message: bytes,
    keys: ServiceKeys,
    *,
    service: Principal | None,
    permitted_etypes: tuple[int, ...],
    clock_skew: timedelta,
    now: datetime,
    peer_address: HostAddress | None = None,
) -> AcceptedApReq:
    """Return what a genuine AP-REQ says. Source: RFC 4120 3.2.3.

    `service` limits which of `keys` count (an empty realm matches any); None takes all. All checks of the section are
    made but the replay cache's, which comes last: call `remember_authenticator` when nothing else can fail. Raises
    ApError with the KRB-ERROR code that fits, DecodeError for a message that is not well-formed.
    """
    request = _decode_ap_req(message)
    ticket = _known_ticket(request.ticket) if len(request.ticket) <= _MAX_KNOWN else _read_ticket(request.ticket)
    if ticket.tkt_vno != PVNO:
        raise _refuse(ErrorCode.KRB_AP_ERR_BADVERSION, f"the ticket has version {ticket.tkt_vno}, not 5")
    if request.ap_options & _USE_SESSION_KEY:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_NOKEY, "the client asks for user-to-user authentication, which is not set up"
        )
    entry, opened = _decrypt_ticket(ticket, keys, service, permitted_etypes)
    enc_ticket = opened.part
    _check_ticket(enc_ticket, clock_skew, now, peer_address)
    session_key = enc_ticket.key
    if session_key.etype not in permitted_etypes:
        raise _not_permitted(session_key.etype, permitted_etypes, "the session key")
    authenticator = _decrypt_authenticator(request, session_key)
    if authenticator.cname != enc_ticket.cname or authenticator.crealm != enc_ticket.crealm:
        raise _refuse(ErrorCode.KRB_AP_ERR_BADMATCH, "the authenticator names another client than the ticket")
    sent = authenticator.ctime + authenticator.cusec * MICROSECOND
    if abs(now - sent) > clock_skew:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_SKEW,
            f"the client's clock differs by {(now - sent).total_seconds():.0f} s, more than "
            f"{clock_skew.total_seconds():.0f} s: set both clocks (NTP)",
        )
    subkey = authenticator.subkey
    if subkey is not None and subkey.etype not in permitted_etypes:
        raise _not_permitted(subkey.etype, permitted_etypes, "the initiator's subkey")
    try:
        check_critical(enc_ticket.authorization_data)
        check_critical(authenticator.authorization_data)
    except ProtocolError as error:
        raise _refuse(ErrorCode.KDC_ERR_POLICY, str(error)) from None
    relevant, etypes = read_relevant(authenticator.authorization_data)
    if log.on():
        log.debug(
            "AP-REQ verified: client %s, ticket for %s kvno %d %s, session key %s",
            opened.client,
            entry.principal,
            entry.kvno,
            etype_name(entry.key.etype),
            etype_name(session_key.etype),
        )
    # The tag is that of the ciphertext alone. No name: where several share a key, as those of one account do, the
    # ticket's cleartext name, which anybody can rewrite, decides whose entry is tried first.
    tag = hashlib.sha256(request.authenticator.cipher).digest()[:16]
    return AcceptedApReq(
        opened.client,
        entry.principal,
        entry.key,
        enc_ticket,
        authenticator,
        sent,
        request.ap_options,
        etypes,
        relevant,
        tag,
    )


def remember_authenticator(accepted: AcceptedApReq, cache: ReplayCache, now: datetime) -> None:
    """Store the authenticator in `cache`; raises ReplayError where it was there. The last step of accepting."""
    cache.remember(accepted.replay_tag, accepted.sent, now)
    log.debug("the authenticator is new to the replay cache")


def build_ap_rep(
    accepted: AcceptedApReq, *, subkey: EncryptionKey | None, seq_number: int, random: RandomBytes
) -> bytes:
    """Return the AP-REP that proves that the service could read the authenticator. Source: RFC 4120 3.2.4."""
    authenticator = accepted.authenticator
    part = EncApRepPart(authenticator.ctime, authenticator.cusec, subkey, seq_number)
    if log.on():
        log.debug(
            "AP-REP for %s: ctime and cusec of its authenticator, acceptor subkey %s",
            accepted.client,
            etype_name(subkey.etype) if subkey else "none",
        )
    return _encode_ap_rep(part, accepted.ticket.key, random)


def verify_ap_rep(
    message: bytes, sent: SentApReq, session_key: EncryptionKey, *, permitted_etypes: tuple[int, ...]
) -> EncApRepPart:
    """Return the AP-REP's content once it proves the service. Source: RFC 4120 3.2.5.

    Only the holder of the service's key can read our authenticator and so return its ctime and cusec. Raises
    MutualAuthenticationError where they differ, IntegrityError where another key encrypted the reply.
    """
    part = _decode_ap_rep(message, session_key)
    if part.ctime != sent.ctime or part.cusec != sent.cusec:
        raise MutualAuthenticationError(
            "the service did not return the time of our authenticator: an impostor, or a replayed AP-REP"
        )
    if part.subkey is not None and part.subkey.etype not in permitted_etypes:
        raise PolicyError(
            f"the acceptor chose a subkey of {etype_name(part.subkey.etype)}, which is not permitted here"
        )
    log.debug("AP-REP verified: its ctime and cusec are those of our authenticator, so the service has its key")
    return part


def build_third_leg(
    sent: SentApReq, session_key: EncryptionKey, *, service_seq_number: int, random: RandomBytes
) -> bytes:
    """Return the client's AP-REP of DCE style, which returns the service's sequence number to it. MS-KILE 3.4.5.1."""
    log.debug("AP-REP for the service: the sequence number of its AP-REP")
    return _encode_ap_rep(EncApRepPart(sent.ctime, sent.cusec, None, service_seq_number), session_key, random)


def verify_third_leg(message: bytes, session_key: EncryptionKey, *, service_seq_number: int) -> None:
    """Raise unless the client's AP-REP proves that it could read ours. Source: MS-KILE 3.4.5.1.

    Its ctime does not count (some clients send that of their authenticator, some the current time); a subkey would be
    our own AP-REP sent back. Raises MutualAuthenticationError, or IntegrityError where another key encrypted it.
    """
    part = _decode_ap_rep(message, session_key)
    if part.seq_number != service_seq_number or part.subkey is not None:
        raise MutualAuthenticationError(
            "the client did not return the sequence number of our AP-REP: an impostor, or a replayed AP-REP"
        )
    log.debug("the client's AP-REP verified: it returns our sequence number, so the client is there now")


@lru_cache(maxsize=16)
def _offer(etypes: tuple[int, ...]) -> tuple[AuthorizationDataEntry, ...]:
    offer = AuthorizationDataEntry(AuthDataType.ETYPE_NEGOTIATION, EtypeList(etypes).encode())
    return (wrap_if_relevant(offer),)


def _encode_ap_rep(part: EncApRepPart, key: EncryptionKey, random: RandomBytes) -> bytes:
    cipher = _encrypt(key, _AP_REP_PART, part.encode(), random)
    return ApRep(PVNO, _AP_REP, EncryptedData(key.etype, None, cipher)).encode()


def _decode_ap_rep(message: bytes, session_key: EncryptionKey) -> EncApRepPart:
    reply = ApRep.decode(message)
    if reply.pvno != PVNO or reply.msg_type != _AP_REP:
        raise ProtocolError("this is not an AP-REP of Kerberos 5", expected=(5, 15), got=(reply.pvno, reply.msg_type))
    if reply.enc_part.etype != session_key.etype:
        raise ProtocolError(
            "the AP-REP is not encrypted with the session key's etype",
            expected=etype_name(session_key.etype),
            got=etype_name(reply.enc_part.etype),
        )
    return EncApRepPart.decode(crypto.decrypt(session_key, _AP_REP_PART, reply.enc_part.cipher))


def _encrypt(key: EncryptionKey, usage: int, plaintext: bytes, random: RandomBytes) -> bytes:
    cipher = crypto.usage_cipher(key, usage)
    return cipher.encrypt(plaintext, unpredictable(random, cipher.confounder_size))


def _refuse(code: ErrorCode, message: str) -> ApError:
    return ApError(message, code=code)


def _not_permitted(etype: int, permitted: tuple[int, ...], what: str) -> ApError:
    return _refuse(
        ErrorCode.KDC_ERR_ETYPE_NOSUPP,
        f"{what} is of {etype_name(etype)}, which is not permitted here: permitted are {etype_names(permitted)}",
    )


def _decode_ap_req(message: bytes) -> ApReq:
    if message[:1] != b"\x6e":
        raise _refuse(ErrorCode.KRB_AP_ERR_MSG_TYPE, "the token holds another message than an AP-REQ")
    request = ApReq.decode(message)
    if request.pvno != PVNO:
        raise _refuse(ErrorCode.KRB_AP_ERR_BADVERSION, f"the AP-REQ has version {request.pvno}, not 5")
    if request.msg_type != _AP_REQ:
        raise _refuse(ErrorCode.KRB_AP_ERR_MSG_TYPE, f"the AP-REQ has msg-type {request.msg_type}, not 14")
    return request


def _matches(name: Principal, entry: Principal) -> bool:
    return name.components == entry.components and (not name.realm or name.realm == entry.realm)


def _same_kvno(wanted: int, held: int) -> bool:
    # Old keytabs hold eight bits of the number.
    return wanted == held or (held < 256 and wanted & 0xFF == held)


def _decrypt_ticket(
    ticket: Ticket, keys: ServiceKeys, service: Principal | None, permitted: tuple[int, ...]
) -> tuple[ServiceKey, OpenedTicket]:
    """Return the service key that decrypts the ticket, and the opened ticket.

    Tried first is the key that the ticket names, then older and newer ones of that name, then (for aliases, and for
    accounts with several names) the other keys that this acceptor answers for.
    """
    etype, kvno, cipher = ticket.enc_part.etype, ticket.enc_part.kvno, ticket.enc_part.cipher
    if log.on():
        log.debug(
            "ticket for %s, %s kvno %s; keys to choose from: %d",
            ticket.sname.principal(ticket.realm),
            etype_name(etype),
            kvno,
            len(_answered_for(keys, service)),
        )
    if etype not in permitted:
        raise _not_permitted(etype, permitted, "the ticket")
    candidates = [
        entry for entry in keys if entry.key.etype == etype and (service is None or _matches(service, entry.principal))
    ]
    if len(candidates) > 1:
        candidates.sort(key=_by_likelihood(ticket))
    for entry in candidates:
        try:
            return entry, _open_ticket(entry.key, cipher)
        except IntegrityError:
            log.debug("the key of %s kvno %d does not decrypt the ticket", entry.principal, entry.kvno)
    raise _why_no_key(ticket, keys, service)


def _answered_for(keys: ServiceKeys, service: Principal | None) -> list[ServiceKey]:
    return [entry for entry in keys if service is None or _matches(service, entry.principal)]


def _by_likelihood(ticket: Ticket) -> Callable[[ServiceKey], tuple[bool, bool, int]]:
    name, kvno = ticket.sname.principal(ticket.realm), ticket.enc_part.kvno
    return lambda entry: (
        entry.principal != name,
        kvno is not None and not _same_kvno(kvno, entry.kvno),
        -entry.kvno,
    )


def _read_ticket(data: bytes) -> Ticket:
    ticket = Ticket.decode(data)
    if not ticket.realm or not ticket.sname.components:  # a principal is a name in a realm: RFC 4120 6.1, 6.2
        raise DecodeError("the ticket names no service: its realm or its sname is empty")
    return ticket


_known_ticket = lru_cache(maxsize=_MAX_OPENED)(_read_ticket)


def _open_ticket(key: EncryptionKey, cipher: bytes) -> OpenedTicket:
    """Return a ticket decrypted, kept with the service's key: a client presents its ticket many times.

    Whoever has the service's key can open the ticket, so it keeps no secret that was not there before. Nothing but the
    decryption is remembered: what depends on the time or on the request is checked each time.
    """
    opened: OpenedTicket | None = key._opened.get(cipher)
    if opened is None:
        # No variable holds the plaintext: the traceback of a later refusal must not show the session key.
        part = EncTicketPart.decode(crypto.decrypt(key, KeyUsage.TICKET, cipher))
        if not part.crealm or not part.cname.components:
            raise DecodeError("the ticket names no client: its crealm or its cname is empty")
        opened = OpenedTicket(part, part.cname.principal(part.crealm))
        if len(key._opened) >= _MAX_OPENED:
            for oldest in list(key._opened)[:1]:  # copied in one step: other threads may add or drop at the same time
                key._opened.pop(oldest, None)  # not wiped: a handshake may be using it; its key wipes itself
        key._opened[cipher] = opened
    return opened


def _why_no_key(ticket: Ticket, keys: ServiceKeys, service: Principal | None) -> ApError:
    name, ours = ticket.sname.principal(ticket.realm), _answered_for(keys, service)
    kvno, etype = ticket.enc_part.kvno, ticket.enc_part.etype
    named = [entry for entry in ours if entry.principal == name]
    if not named:
        if service is not None and (ours or any(entry.principal == name for entry in keys)):
            return _refuse(ErrorCode.KRB_AP_ERR_NOT_US, f"the ticket is for {name}, this acceptor is {service}")
        what = f"for {service}" if service is not None else f"that decrypts a ticket for {name}"
        return _refuse(ErrorCode.KRB_AP_ERR_NOKEY, f"the keytab has no key {what}: export one with that name")
    held = sorted({entry.kvno for entry in named})
    if kvno is not None and not any(_same_kvno(kvno, number) for number in held):
        stale = "the keytab is older: export it again" if kvno > max(held) else "the client's ticket is older: renew it"
        return _refuse(
            ErrorCode.KRB_AP_ERR_BADKEYVER,
            f"the keytab holds kvno {', '.join(map(str, held))} of {name}, the ticket has kvno {kvno}: {stale}",
        )
    if not any(entry.key.etype == etype and (kvno is None or _same_kvno(kvno, entry.kvno)) for entry in named):
        return _refuse(
            ErrorCode.KRB_AP_ERR_BADKEYVER,
            f"the keytab holds no {etype_name(etype)} key of {name}, which the ticket was made with: export it again "
            "with all etypes",
        )
    return _refuse(
        ErrorCode.KRB_AP_ERR_BAD_INTEGRITY,
        f"the key of {name} in the keytab does not decrypt the ticket: it is another account's, "
        "or the ticket was altered",
    )


def _check_ticket(
    ticket: EncTicketPart, clock_skew: timedelta, now: datetime, peer_address: HostAddress | None
) -> None:
    if ticket.flags & _INVALID:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_TKT_NYV, "the ticket is marked as invalid: the client must validate it first"
        )
    start = ticket.starttime or ticket.authtime
    if ticket.endtime < start:
        raise _refuse(ErrorCode.KRB_AP_ERR_TKT_NYV, "the ticket ends before it starts")
    if start > now + clock_skew:
        raise _refuse(ErrorCode.KRB_AP_ERR_TKT_NYV, f"the ticket is not valid before {start:%Y-%m-%d %H:%M:%SZ}")
    if ticket.endtime < now - clock_skew:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_TKT_EXPIRED,
            f"the ticket expired at {ticket.endtime:%Y-%m-%d %H:%M:%SZ}: the client must get a new one",
        )
    if ticket.transited.contents and not ticket.flags & _TRANSITED_CHECKED:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_ILL_CR_TKT, "the ticket crossed realms and no KDC has checked by which way it came"
        )
    if peer_address is not None and ticket.caddr and peer_address not in ticket.caddr:
        raise _refuse(ErrorCode.KRB_AP_ERR_BADADDR, "the ticket is bound to other addresses than the client's")


def _decrypt_authenticator(request: ApReq, session_key: EncryptionKey) -> Authenticator:
    enc_part = request.authenticator
    failed = "the authenticator does not decrypt with the ticket's session key"
    if enc_part.etype != session_key.etype:
        raise _refuse(ErrorCode.KRB_AP_ERR_BAD_INTEGRITY, failed)
    try:
        authenticator = Authenticator.decode(
            crypto.decrypt(session_key, _AUTHENTICATOR, enc_part.cipher)
        )
    except IntegrityError:
        raise _refuse(ErrorCode.KRB_AP_ERR_BAD_INTEGRITY, failed) from None
    if authenticator.authenticator_vno != PVNO:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_BADVERSION, f"the authenticator has version {authenticator.authenticator_vno}, not 5"
        )
    return authenticator
