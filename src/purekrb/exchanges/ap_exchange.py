"""The AP exchange: the client proves itself with an AP-REQ, the service with an AP-REP. Source: RFC 4120 3.2, 5.5.

Four functions in the order of the handshake: `build_ap_req`, `accept_ap_req`, `build_ap_rep`, `verify_ap_rep`; in DCE
style two more: `build_third_leg`, `verify_third_leg`.
No clock and no randomness: both come in as arguments.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Protocol

from purekrb import crypto
from purekrb.constants import AddressType, ApOptions, AuthDataType, ErrorCode, KeyUsage, MessageType, TicketFlags
from purekrb.credentials.ticket import ServiceTicket
from purekrb.errors import ApError, IntegrityError, MutualAuthenticationError, PolicyError, ProtocolError
from purekrb.exchanges.authorization_data import (
    check_critical,
    read_client_target,
    read_relevant,
    wrap_if_relevant,
)
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
from purekrb.replay import ReplayCache, remember_in
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
#: Service keys that are tried on one ticket, so that junk costs no decryption for each key of a large keytab.
MAX_TRIES = 16
#: Tickets up to this size in bytes are taken apart once, however often they are presented.
_MAX_KNOWN = 8192
#: As plain numbers: enum arithmetic costs a microsecond each time.
_AP_REQ, _AP_REP = int(MessageType.AP_REQ), int(MessageType.AP_REP)
_AUTHENTICATOR, _AP_REP_PART = int(KeyUsage.AP_REQ_AUTHENTICATOR), int(KeyUsage.AP_REP_ENC_PART)
_USE_SESSION_KEY, _MUTUAL_REQUIRED = int(ApOptions.USE_SESSION_KEY), int(ApOptions.MUTUAL_REQUIRED)
_NETBIOS = int(AddressType.NETBIOS)
_INVALID, _TRANSITED_CHECKED = int(TicketFlags.INVALID), int(TicketFlags.TRANSITED_POLICY_CHECKED)
_ANONYMOUS = int(TicketFlags.ANONYMOUS)
#: The name of clients that have none, and the realm of those that do not tell theirs either. Source: RFC 8062 3.
_ANONYMOUS_NAME, _ANONYMOUS_REALM = ("WELLKNOWN", "ANONYMOUS"), "WELLKNOWN:ANONYMOUS"


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

    `service` is one of `names`, all principals of `key`, which decrypted the ticket; the ticket's cleartext name has no
    say in it. `sent` is when the authenticator was made, with microseconds. `etypes` is the initiator's EtypeList (RFC
    4537), () where it sent none. `relevant` holds the authenticator's authorization data. `anonymous` tells that the
    KDC does not say who the client is. `account` is the client as replay caches know it.
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
    names: tuple[Principal, ...]
    anonymous: bool
    account: str


@record
class OpenedTicket:
    """A ticket's encrypted part, the client that it names, and whether that is anonymous.

    `account` stands for all spellings of the client: some KDCs let it choose the case of its name.
    """

    part: EncTicketPart
    client: Principal
    anonymous: bool
    account: str

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
    client_target: bool,
    now: datetime,
    random: RandomBytes,
) -> SentApReq:
    """Return an AP-REQ that presents `ticket`. Source: RFC 4120 3.2.2, RFC 4537, MS-KILE 3.2.5.8.

    `now` is the KDC's time (aware UTC, with microseconds), unique to this authenticator. `etypes` are the session key
    etypes that the acceptor may choose its subkey from. With `client_target` the authenticator names the service.
    """
    cusec = now.microsecond
    ctime = now - cusec * MICROSECOND  # a quarter of the time that `replace` takes
    client, service = ticket.client, ticket.service
    target = f"{'/'.join(service.components)}@{service.realm}" if client_target else None  # nothing is quoted
    authorization_data = _authorization_data(etypes if mutual else None, target)
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
    accept_anonymous: bool = False,
    require_client_target: bool = False,
) -> AcceptedApReq:
    """Return what a genuine AP-REQ says. Source: RFC 4120 3.2.3, RFC 8062, MS-KILE 3.2.5.8.

    `service` limits which of `keys` count (an empty realm matches any); None takes all. Of several names of one key the
    service is the first that `keys` have; with `require_client_target` the one that the client says, encrypted, that it
    asked for. All checks of the section are made but the replay cache's, which comes last: call
    `remember_authenticator` when nothing else can fail. Raises ApError with the KRB-ERROR code that fits, DecodeError
    for a message that is not well-formed, ProtocolError for a malformed client target.
    """
    request = _decode_ap_req(message)
    ticket = _known_ticket(request.ticket) if len(request.ticket) <= _MAX_KNOWN else Ticket.decode(request.ticket)
    if ticket.tkt_vno != PVNO:
        raise _refuse(ErrorCode.KRB_AP_ERR_BADVERSION, f"the ticket has version {ticket.tkt_vno}, not 5")
    if request.ap_options & _USE_SESSION_KEY:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_NOKEY, "the client asks for user-to-user authentication, which is not set up"
        )
    entry, opened, names = _decrypt_ticket(ticket, keys, service, permitted_etypes)
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
    if opened.anonymous and not accept_anonymous:
        raise _refuse(
            ErrorCode.KDC_ERR_POLICY,
            "the client is anonymous: pass accept_anonymous=True if whoever does not say who it is may come in",
        )
    ours = names if service is None else tuple([name for name in names if _matches(service, name)])
    chosen = _targeted(ours, read_client_target(relevant)) if require_client_target else ours[0]
    if log.on():
        log.debug(
            "AP-REQ verified: client %s, ticket for %s kvno %d %s, session key %s",
            opened.client,
            chosen,
            entry.kvno,
            etype_name(entry.key.etype),
            etype_name(session_key.etype),
        )
    # The tag is that of the ciphertext alone: no name, of which one key may have several.
    tag = hashlib.sha256(request.authenticator.cipher).digest()[:16]
    return AcceptedApReq(
        opened.client,
        chosen,
        entry.key,
        enc_ticket,
        authenticator,
        sent,
        request.ap_options,
        etypes,
        relevant,
        tag,
        names,
        opened.anonymous,
        opened.account,
    )


def remember_authenticator(accepted: AcceptedApReq, cache: ReplayCache, now: datetime) -> None:
    """Store the authenticator in `cache`; raises ReplayError where it was there. The last step of accepting."""
    remember_in(cache, accepted.replay_tag, accepted.sent, now, accepted.account)
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


@lru_cache(maxsize=64)
def _authorization_data(
    etypes: tuple[int, ...] | None, target: str | None
) -> tuple[AuthorizationDataEntry, ...] | None:
    """Return an authenticator's authorization data: what acceptors need not know, in one AD-IF-RELEVANT."""
    entries = []
    if etypes is not None:
        entries.append(AuthorizationDataEntry(AuthDataType.ETYPE_NEGOTIATION, EtypeList(etypes).encode()))
    if target is not None:
        name = target.encode("utf-16-le", "surrogatepass")
        entries.append(AuthorizationDataEntry(AuthDataType.CLIENT_TARGET, name))
    return (wrap_if_relevant(*entries),) if entries else None


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
) -> tuple[ServiceKey, OpenedTicket, tuple[Principal, ...]]:
    """Return the service key that decrypts the ticket, the opened ticket, and all principals that have that key.

    Tried first is the key that the ticket names, then older and newer ones of that name, then (for aliases, and for
    accounts with several names) the other keys that this acceptor answers for; MAX_TRIES different keys in all.
    """
    held = list(keys)
    etype, kvno, cipher = ticket.enc_part.etype, ticket.enc_part.kvno, ticket.enc_part.cipher
    if log.on():
        log.debug(
            "ticket for %s, %s kvno %s; keys to choose from: %d",
            ticket.sname.principal(ticket.realm),
            etype_name(etype),
            kvno,
            len(_answered_for(held, service)),
        )
    if etype not in permitted:
        raise _not_permitted(etype, permitted, "the ticket")
    fitting = [entry for entry in held if entry.key.etype == etype]
    candidates = fitting if service is None else _answered_for(fitting, service)
    for entry in candidates if len(candidates) == 1 else _likeliest(ticket, candidates):
        try:
            opened = _open_ticket(entry.key, cipher)
        except IntegrityError:
            log.debug("the key of %s kvno %d does not decrypt the ticket", entry.principal, entry.kvno)
        else:
            return entry, opened, (entry.principal,) if len(fitting) == 1 else _names_of(entry, fitting)
    raise _why_no_key(ticket, held, service)


def _answered_for(keys: list[ServiceKey], service: Principal | None) -> list[ServiceKey]:
    return keys if service is None else [entry for entry in keys if _matches(service, entry.principal)]


def _likeliest(ticket: Ticket, candidates: list[ServiceKey]) -> Iterator[ServiceKey]:
    """Yield the entries to try, the likeliest first, each key once, and of MAX_TRIES keys at most."""
    components, realm = ticket.sname.components, ticket.realm
    named: list[ServiceKey] = []
    others: list[ServiceKey] = []
    for entry in candidates:
        principal = entry.principal
        (named if principal.components == components and principal.realm == realm else others).append(entry)
    tried: list[EncryptionKey] = []
    for entries in (named, others):
        entries.sort(key=_by_kvno(ticket.enc_part.kvno))
        for entry in entries:
            if entry.key in tried:
                continue
            if len(tried) == MAX_TRIES:
                log.debug("%d keys were tried, the others are not", MAX_TRIES)
                return
            tried.append(entry.key)
            yield entry


def _by_kvno(wanted: int | None) -> Callable[[ServiceKey], tuple[bool, int]]:
    return lambda entry: (wanted is not None and not _same_kvno(wanted, entry.kvno), -entry.kvno)


def _names_of(found: ServiceKey, fitting: list[ServiceKey]) -> tuple[Principal, ...]:
    """Return the principals that have the key, in the order of the keytab: nothing proves which one was asked for."""
    # Not by `==`, which copies both keys each time: a keytab may be large.
    ours = found.key._contents or b""
    return tuple(
        dict.fromkeys([entry.principal for entry in fitting if hmac.compare_digest(entry.key._contents or b"", ours)])
    )


def _targeted(names: tuple[Principal, ...], target: str | None) -> Principal:
    """Return the one of `names` that the client asked for: with or without realm, in any case, as in a directory."""
    if target is None:
        raise _refuse(
            ErrorCode.KDC_ERR_POLICY, "the client does not say which service it asked for, which this acceptor requires"
        )
    wanted = target.casefold()
    for name in names:
        text = "/".join(name.components).casefold()
        if wanted in (text, f"{text}@{name.realm.casefold()}"):
            return name
    raise _refuse(
        ErrorCode.KRB_AP_ERR_NOT_US,
        f"the client asked for {target!r}, this acceptor is {' or '.join(map(str, names[:10]))}",
    )


@lru_cache(maxsize=_MAX_OPENED)
def _known_ticket(ticket: bytes) -> Ticket:
    return Ticket.decode(ticket)


def _open_ticket(key: EncryptionKey, cipher: bytes) -> OpenedTicket:
    """Return a ticket decrypted, kept with the service's key: a client presents its ticket many times.

    Whoever has the service's key can open the ticket, so it keeps no secret that was not there before. Nothing but the
    decryption is remembered: what depends on the time or on the request is checked each time.
    """
    opened: OpenedTicket | None = key._opened.get(cipher)
    if opened is None:
        # No variable holds the plaintext: the traceback of a later refusal must not show the session key.
        part = EncTicketPart.decode(crypto.decrypt(key, KeyUsage.TICKET, cipher))
        client = part.cname.principal(part.crealm)
        opened = OpenedTicket(part, client, _is_anonymous(part), str(client).casefold())
        if len(key._opened) >= _MAX_OPENED:
            for oldest in list(key._opened)[:1]:  # copied in one step: other threads may add or drop at the same time
                key._opened.pop(oldest, None)  # not wiped: a handshake may be using it; its key wipes itself
        key._opened[cipher] = opened
    return opened


def _is_anonymous(part: EncTicketPart) -> bool:
    """Return whether the KDC does not say who the client is: by the flag, the name or the realm. Source: RFC 8062 3."""
    return bool(part.flags & _ANONYMOUS) or part.cname.components == _ANONYMOUS_NAME or part.crealm == _ANONYMOUS_REALM


def _why_no_key(ticket: Ticket, keys: list[ServiceKey], service: Principal | None) -> ApError:
    name, ours = ticket.sname.principal(ticket.realm), _answered_for(keys, service)
    kvno, etype = ticket.enc_part.kvno, ticket.enc_part.etype
    named = [entry for entry in ours if entry.principal == name]
    if not named:
        if service is not None and (ours or any(entry.principal == name for entry in keys)):
            return _refuse(ErrorCode.KRB_AP_ERR_NOT_US, f"the ticket is for {name}, this acceptor is {service}")
        if service is not None:
            what = f"no key for {service}"
        elif sum(entry.key.etype == etype for entry in ours) > MAX_TRIES:
            what = f"no key of {name}, and none of the {MAX_TRIES} likeliest others decrypts the ticket"
        else:
            what = f"no key that decrypts a ticket for {name}"
        return _refuse(ErrorCode.KRB_AP_ERR_NOKEY, f"the keytab has {what}: export one with that name")
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
    if peer_address is not None and ticket.caddr and not _is_listed(peer_address, ticket.caddr):
        raise _refuse(ErrorCode.KRB_AP_ERR_BADADDR, "the ticket is bound to other addresses than the client's")


def _is_listed(address: HostAddress, addresses: tuple[HostAddress, ...]) -> bool:
    """Tell whether `addresses` hold `address`, or nothing that it can be compared with.

    Windows names its computer (NetBIOS) where others name addresses, and some KDCs put that into the ticket.
    """
    return address in addresses or all(other.addr_type == _NETBIOS for other in addresses)


def _decrypt_authenticator(request: ApReq, session_key: EncryptionKey) -> Authenticator:
    enc_part = request.authenticator
    failed = "the authenticator does not decrypt with the ticket's session key"
    if enc_part.etype != session_key.etype:
        raise _refuse(ErrorCode.KRB_AP_ERR_BAD_INTEGRITY, failed)
    try:
        authenticator = Authenticator.decode(crypto.decrypt(session_key, _AUTHENTICATOR, enc_part.cipher))
    except IntegrityError:
        raise _refuse(ErrorCode.KRB_AP_ERR_BAD_INTEGRITY, failed) from None
    if authenticator.authenticator_vno != PVNO:
        raise _refuse(
            ErrorCode.KRB_AP_ERR_BADVERSION, f"the authenticator has version {authenticator.authenticator_vno}, not 5"
        )
    return authenticator
